/*
 * digest.h - one number for what a database holds: BLAKE2b-256 (core/hash.h) over
 *
 *   "azoth digest 1" or, with times, "azoth digest 1 with times"
 *   each key in order    u32 key_len | key | u8 type | u64 version | u32 value_len | encoded value
 *   u64 number of keys
 *   each event in order  u64 id | u64 txn | (i64 time_ns with times) | u32 type_len | type | u32 key_len | key
 *                        | u32 meta_len | metadata | u32 payload_len | payload
 *   u64 number of events
 *
 * Integers little-endian. So databases that were given the same transactions in the same order have the
 * same digest; request ids, which are forgotten with time, do not count.
 */
#ifndef WRITER_DIGEST_H
#define WRITER_DIGEST_H

#include "core/store.h"

#define DIGEST_BYTES 32u

struct digest {
    unsigned char sum[DIGEST_BYTES];
    uint64_t keys;
    struct store_head head; /* the commit that it is of */
};

/* Told now and then; not 0 ends the digest. */
typedef int (*digest_progress)(void *arg, uint64_t event, uint64_t head);

/*
 * Of the newest commit. State is read in one snapshot, whose pages stay in use for so long; events in short
 * ones. progress may be NULL. 0, 1 when progress ended it, CORRUPT, GAP, FORMAT, IO, FULL, NOMEM. Blocks on the disk.
 */
int digest_store(struct store *s, int with_times, digest_progress progress, void *arg,
                 struct digest *ret, struct azoth_error *err);

#endif
