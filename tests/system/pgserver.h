/*
 * pgserver.h - a PostgreSQL server for tests: a cluster of its own in a private directory, on a unix socket there
 * and on no port. It refuses to run as root, so for root it runs as postgres (or nobody).
 *
 * Ended, and its directory removed, by pgserver_end(), and when the test program exits in whatever way it notices; when it is killed
 * the server gets a signal and ends. Its memory is in files of that directory, but for a key that its end frees.
 */
#ifndef TESTS_PGSERVER_H
#define TESTS_PGSERVER_H

#include <sys/types.h>

struct pgserver {
    char dir[64], bin[128];
    char conninfo[160]; /* of database postgres, as a superuser */
    pid_t pid;          /* 0: it does not run */
    uid_t uid;
    gid_t gid;
};

/* 1 when PostgreSQL is installed. */
int pgserver_there(void);
/* Makes the cluster and starts it. Fails the test when it cannot. */
void pgserver_begin(struct pgserver *s);
void pgserver_end(struct pgserver *s);
/* SIGKILL to all its processes at once; nothing is flushed. */
void pgserver_kill(struct pgserver *s);
/* Starts it, and waits until it answers. */
void pgserver_start(struct pgserver *s);
/* Runs statements, and returns the first value of the last one's result ("" without one); it lives until the next call. Fails the
 * test when they fail. */
const char *pgserver_ask(struct pgserver *s, const char *sql);

#endif
