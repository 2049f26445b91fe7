/*
 * bank.h - the bank load: accounts under acct/NNN, transfers with a minimum balance, a journal of
 * what was sent and answered, and the checks that follow from it.
 */
#ifndef TESTS_BANK_H
#define TESTS_BANK_H

#include "tests/system/harness.h"

#define BANK_OPENING 1000

/* Opens n accounts with BANK_OPENING each. */
int bank_open(struct azoth *db, int accounts);

/*
 * A client process: `transfers` random transfers among `accounts`, through `endpoints` or, when that
 * is "-", attached with C callbacks. Its journal (one line when sent, one when answered) is
 * DIR/journal-NAME. Exit 0 when every answer was one that it may get.
 */
struct process *bank_client(struct harness *h, const char *name, const char *endpoints,
                            int accounts, int transfers, uint64_t seed);
int bank_client_main(int argc, char **argv);

/*
 * The truth: ids gapless and in reading order, each answered transfer's event there exactly once,
 * those without an answer at most once, those refused not at all, balances as replaying the events
 * gives them, none below zero, the sum conserved. 1, or 0 after saying what is wrong.
 */
int bank_check(struct harness *h, struct azoth *db, int accounts);

/* "name":INTEGER of the flat JSON that a test itself wrote; -1 when it is not there. */
int64_t bank_member(struct azoth_bytes json, const char *name);

#endif
