/*
 * advance.h - takes a store that is being restored further, transaction by transaction, by the entries of
 * increments (increment.h), up to a target.
 *
 * What comes out is what the original was after that transaction: state with its versions, events, request ids with
 * their ages, and the batch record's counters. Every entry is checked before it is applied: that transactions and
 * events come without a gap, that times do not go back, and at an increment's end the chain and the head.
 *
 * One thread; the store is nobody else's. LMDB transactions of bounded size, without sync: what is there is durable
 * after advance_finish(), and before that it is nothing. Calls block on the disk.
 */
#ifndef WRITER_ADVANCE_H
#define WRITER_ADVANCE_H

#include "core/batchrec.h"
#include "core/store.h"

/* Where to stop: before the first transaction whose events come after `event`, or which is later than time_ns. */
struct advance_target {
    int by_event, by_time; /* neither: at the end */
    uint64_t event;
    int64_t time_ns; /* UTC, since 1970 */
};

struct advance;

/* path: of the store's file. FORMAT (a store of format 1 has nothing that comes after it), CORRUPT, IO, NOMEM. */
int advance_open(const char *path, struct advance **ret, struct azoth_error *err);
/* Where the store stands; borrows a. */
const struct batch_head *advance_head(const struct advance *a);
/*
 * An increment comes that begins behind `from`, where the chain was at `chain`. It may begin before the store's head:
 * what the store has already is passed over, and the chain is compared where the head is. BACKUP_MISSING: it begins
 * later than that. DIVERGED: it is of another history.
 */
int advance_increment(struct advance *a, uint64_t from_txn, const struct chain *chain,
                      struct azoth_error *err);
/* Applies its next part, whole or up to the target: 1 when that is reached, 0 when it is not. CORRUPT, FORMAT, GAP, DIVERGED, NOSPACE,
 * IO, NOMEM: nothing of use is left. */
int advance_part(struct advance *a, struct azoth_bytes part, const struct advance_target *t,
                 struct azoth_error *err);
/* All of its parts were applied, and the original's head was this. CORRUPT: the store's is another. */
int advance_increment_end(struct advance *a, const struct store_head *to, struct azoth_error *err);
/* Makes all durable. Frees a in any case. */
int advance_finish(struct advance *a, struct azoth_error *err);
void advance_abort(struct advance *a); /* NULL is accepted */

#endif
