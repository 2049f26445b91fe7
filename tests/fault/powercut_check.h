/*
 * powercut_check.h - what must hold in a state that a power cut may leave, and the recording's share of it.
 */
#ifndef TESTS_FAULT_POWERCUT_CHECK_H
#define TESTS_FAULT_POWERCUT_CHECK_H

#include "client/azoth.h"

#include <stdint.h>

#define TRANSACTIONS 240

/* What a mark says beside the transaction's number (ino) and id (at). Number 0: init has answered. */
/* Packed: it is read where it lies in the log. */
struct __attribute__((packed)) answer {
    uint64_t first_event;
    uint8_t id[AZOTH_ID_BYTES];
};

/* The projection that runs beside. */
extern const char cut_counts_sql[];

void cut_put_file(const char *dir, const char *name, const char *text);
/* Removes what lies in the directory; self: and the directory. */
void cut_empty_tree(const char *path, int self);

/*
 * Makes states of a log and checks them, one after another, until one is wrong; says on stdout how many,
 * which was wrong and why. argv: LOG DIR SEED STATES full|lazy IGNORED-SYNC any|POLICY. DIR is emptied for
 * each state. Exit code 0, 1 (found something), 2 (not a log), 3 (died in a state, said which).
 */
int cut_check_main(char **argv);

#endif
