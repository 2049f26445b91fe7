/*
 * chaining.h - the hash chain of the commit thread: a large batch is hashed while the disk writes it.
 *
 * Hashing a large batch takes longer than putting its events, and the commit thread then waits for
 * the disk for longer still, with nothing to do. So a thread of its own hashes it meanwhile, and its value is
 * in the record of the *next* batch: the chain in a batch record trails the log by that one batch at
 * most, and says which transaction it is of. What is missing can be hashed again from the log by
 * anyone (snapshot_chain(), append_open()). A small batch is hashed before its record is put, which takes less
 * than telling another thread, and its record has its own value.
 *
 *   what a batch's text goes through (CHAINING_LARGE is in the .c)
 *
 *     gathered --head: small--> hashed --commit--> the chain's value
 *        |                         \--abort--> gone
 *        \------head: large--> OFFERED --the thread takes it--> TAKEN --> DONE
 *                                 \                               \         \
 *                                  \-- the next head, or abort: taken back, waited for when TAKEN
 *
 * The commit thread never waits for a thread that has not begun: what is still OFFERED it hashes itself.
 * So without a processor to spare it takes as long as without the thread.
 *
 *   dies, and when             what is left, and who notices
 *   the process, before the commit   nothing of the batch
 *   ... after it                     a record whose chain ends before the batch: append_open() hashes the rest
 *   the thread alone                 it can not: it shares the process
 *   the commit fails                 the batch's value is dropped with it (abort)
 *
 * Invariants
 *   CH1  the events behind a record's chain are in LMDB: what a batch deletes was committed by one before it,
 *        and that one is settled when this one's record is put.
 *   CH2  `at` moves with commits alone.
 *
 * All calls belong to the commit thread.
 */
#ifndef WRITER_CHAINING_H
#define WRITER_CHAINING_H

#include "core/chain.h"

struct chaining;

/* From where the chain stands. NULL: no memory. */
struct chaining *chaining_new(const struct chain *at);
/* NULL is accepted. Ends its thread. */
void chaining_free(struct chaining *ch);

/* The next transaction of the batch in hand; n >= 1 events, whose bytes need not outlive the call. 0, or NOMEM. */
int chaining_add(struct chaining *ch, const struct event_record *ev, uint32_t n);
/* What the batch's record is to say. The batch is whole: nothing is added to it any more. */
void chaining_head(struct chaining *ch, struct chain *ret);
/* The batch with that record is durable, or does not exist. */
void chaining_commit(struct chaining *ch);
void chaining_abort(struct chaining *ch);

/* 1: the last record's chain ends before the batch that was committed with it. */
int chaining_trails(const struct chaining *ch);

#endif
