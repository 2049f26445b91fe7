/*
 * export.h - what a store holds, by its meaning and not by its pages: the same content gives the same
 * bytes, on whichever machine and whatever was stored and deleted before.
 *
 *   state   in the order of keys:    u32 key_len | u32 record_len | key | state record (core/record.h)
 *   events  in the order of ids:     frames (core/record.h)
 *   ids     in the order of commits: u64 age | u64 born_ms | id, 16 bytes | id record (core/store.h)
 *
 * Integers little-endian. Each comes in parts of whole entries, at most EXPORT_PART bytes unless one entry
 * is longer, cut at places that the content alone decides. Memory is bounded by a part.
 *
 * All calls block on the disk and belong to one thread.
 */
#ifndef WRITER_EXPORT_H
#define WRITER_EXPORT_H

#include "core/store.h"

#define EXPORT_PART     (4u << 20)
#define EXPORT_ID_ENTRY (16u + AZOTH_ID_BYTES + STORE_ID_RECORD)

/* Takes one part; an error of it ends the export and is returned. */
typedef int (*export_part)(void *arg, struct azoth_bytes part, struct azoth_error *err);

/* State and ids of one snapshot, which is held for so long. *ret_n: entries. CORRUPT, IO, NOMEM. */
int export_state(struct snapshot *sn, export_part part, void *arg, uint64_t *ret_n,
                 struct azoth_error *err);
int export_ids(struct snapshot *sn, export_part part, void *arg, uint64_t *ret_n,
               struct azoth_error *err);
/* Events behind `after` up to `to`, which are there: the log does not change any more, so there is one short
 * snapshot for each part. CORRUPT, GAP, FORMAT, IO, FULL, NOMEM. */
int export_events(struct store *s, uint64_t after, uint64_t to, export_part part, void *arg,
                  struct azoth_error *err);

/* Steps through a part: begin with *at = 0. 1 and outputs (checked; they borrow the part), 0 at its end, or
 * CORRUPT, FORMAT. Safe on any bytes. Of events it is record_frame_next(). */
int export_state_next(struct azoth_bytes part, size_t *at, struct azoth_bytes *ret_key,
                      struct azoth_bytes *ret_record, struct state_record *ret);
int export_id_next(struct azoth_bytes part, size_t *at, struct id_entry *ret);

#endif
