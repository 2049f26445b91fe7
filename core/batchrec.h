/*
 * batchrec.h - the record that every commit overwrites in LMDB: meta/"head".
 *
 * It holds the newest ids and, for each transaction of the last batch, what was decided. A writer
 * that starts after a kill answers from it the slots whose (slot, ticket) it finds, so a batch that
 * is durable is never applied again.
 *
 *   head   u32 magic "AZB2" | u32 count | u64 incarnation | u64 epoch | u64 event | u64 txn
 *          | i64 time_ns | u64 running_ms | u64 id_first | u64 id_next | u64 flags (1: chain)
 *          | u8 chain value[32] | u64 chain txn | u64 chain event | u64 checksum
 *   entry  u32 slot | i32 code | u64 ticket | u64 txn | u64 first_event | u64 last_event
 *          | u32 keys_written | u32 keys_deleted | u32 keys_missing | u32 duplicate
 *
 * checksum: XXH3_64bits over the entries, seeded with XXH3_64bits over the bytes before it.
 * Integers little-endian. A store of format 1 has "AZB1": from the flags on there is the checksum alone. It is
 * read as one without a chain, and not written any more.
 * chain: where it stands (chain.h), without it zeros. With a large batch it stands before that batch: its txn and
 * event say where (writer/chaining.h).
 * running_ms: how long writers have run on this store; request ids age by it, not by a clock.
 * id_first, id_next: the range of ages in use in ids_age; id_next - id_first ids are remembered.
 */
#ifndef CORE_BATCHREC_H
#define CORE_BATCHREC_H

#include "core/buf.h"
#include "core/chain.h"
#include "core/txn.h"

#define BATCH_HEAD  136u
#define BATCH_ENTRY 56u

struct batch_head {
    uint64_t incarnation, epoch, event, txn;
    int64_t time_ns;
    uint64_t running_ms, id_first, id_next;
    struct chain chain;
    uint32_t count;
};

struct batch_entry {
    uint32_t slot;
    int32_t code;
    uint64_t ticket;
    struct txn_result result;
};

/* Writes BATCH_HEAD + count * BATCH_ENTRY bytes to out. */
void batch_encode(unsigned char *out, const struct batch_head *h,
                  const struct batch_entry *entries);
/* 0 and *ret, or CORRUPT. Safe on any bytes. */
int batch_decode(struct azoth_bytes rec, struct batch_head *ret);
/* Entry i of a record that batch_decode accepted. */
void batch_entry_decode(struct azoth_bytes rec, uint32_t i, struct batch_entry *ret);

#endif
