/* crash.h - the parts of test_crash: its clients, and what must hold after a death. */
#ifndef TESTS_FAULT_CRASH_H
#define TESTS_FAULT_CRASH_H

#include "tests/system/harness.h"

/* A client: transactions of all kinds until DIR/enough is there. Each answer is a line of
 * DIR/journal-NAME. The one called "prey" shares no key with the others. Where DIR/large is most events have
 * 90,000 bytes: the token, a blank, and what makes it long. Exit status. */
int crash_load(const char *dir, const char *name);
/* Pauses, and resumes or lets the pause run out, without end. Exit status. */
int crash_pause(const char *dir);
int crash_mark(const char *dir);  /* marks, moves the mark on, drops it, without end */
int crash_crowd(const char *dir); /* waits for most blocks, again and again, until it is killed */

/* Fails the test, naming `what`, unless the log is whole, agrees with the journals of client0, client1
 * and prey, and with the state; waits for the projection. The rows that it must have: the caller's. */
char *crash_check(const struct harness *h, struct azoth *db, const char *what);
/* Fails the test unless the store's own check finds nothing. 1: the chain in its record ended before its newest batch. */
int crash_check_store(const struct harness *h, const char *what);
void crash_check_projection(const struct harness *h, const char *want, const char *what);

#endif
