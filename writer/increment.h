/*
 * increment.h - what the log and the state gained between two transactions, as entries of parts: what an
 * incremental backup holds, and what takes a restored store further.
 *
 *   part    entries, one after the other; at most BACKUPFILE_PART bytes unless one entry is longer
 *   entry   u64 transaction | u64 bytes of redo | u64 bytes of frames | redo record (core/redo.h)
 *           | its events as frames (core/record.h)
 *
 * Integers little-endian. Transactions follow each other without a gap, and so do the ids of their events.
 */
#ifndef WRITER_INCREMENT_H
#define WRITER_INCREMENT_H

#include "core/redo.h"
#include "core/store.h"
#include "writer/export.h"

#define INCREMENT_HEADER 24u

/* How far it has come: everything up to here is elsewhere already. The chain is that of the same moment. */
struct increment_at {
    uint64_t txn, event;
    struct chain chain;
};

/*
 * Hands out what comes after *at up to `to`, the head of a snapshot of this store, in parts, and moves *at there. One
 * short snapshot for each part: the log does not change any more, and the redo records stay while the place's mark
 * is at at->txn or before it. Blocks on the disk.
 *
 * BACKUP_MISSING: a redo record is not there any more. DIVERGED: the events do not lead from the chain at *at to that of
 * `to`, so *at is of another history. CORRUPT, FORMAT, GAP, IO, FULL (no reader slot), NOMEM, and what part answers.
 */
int increment_export(struct store *s, struct increment_at *at, const struct store_head *to,
                     export_part part, void *arg, struct azoth_error *err);

/*
 * Where an increment that begins at *at has to end so that it has at most `bytes` of content, or one transaction: *ret is
 * `to`, or the head as it was behind an earlier transaction, as a restore to there would find it. Unless `checked`, also what
 * comes behind that is read, up to `to`: that it is of the same history is seen there alone, and an increment that ends
 * before has to be sure of it. Each part that was read goes to `part`, to be counted. Errors as increment_export().
 */
int increment_cut(struct store *s, const struct increment_at *at, const struct store_head *to,
                  uint64_t bytes, int checked, export_part part, void *arg, struct store_head *ret,
                  struct azoth_error *err);

struct increment_entry {
    struct redo_record redo;   /* checked; borrows the part */
    struct azoth_bytes frames; /* checked: the events of redo, all of them and no others */
    struct buf *events;        /* struct event_record of each */
};
/* Steps through a part: begin with *at = 0. 1 and *ret, 0 at its end, CORRUPT, FORMAT, NOMEM. `events` is a buffer of
 * the caller's that is overwritten. Safe on any bytes. */
int increment_next(struct azoth_bytes part, size_t *at, struct buf *events,
                   struct increment_entry *ret);

#endif
