/*
 * chain.h - the hash chain over the log: what stands for all events up to a transaction in 32 bytes.
 *
 * For each transaction that logs events, in order:
 *
 *   value(n) = BLAKE2b-256(no key, value(n-1) | u64 txn | u64 first event | u32 events | i64 time
 *              | per event: u32 length | type | u32 length | stream key | u32 length | metadata
 *                           | u32 length | payload)
 *
 * Integers little-endian; BLAKE2b of RFC 7693 (core/hash.h). It begins with
 * BLAKE2b-256("azoth chain 1" | the UUID that the database was made with). Where it stands is in the batch
 * record (batchrec.h), with the newest batch or, when that is large, before it: the rest is hashed from the log by who
 * asks (snapshot_head_chained() in store.h). Values between are not stored.
 *
 * Where it began is one record of meta, "chain", written once:
 *
 *   u32 magic "AZC1" | u32 0 | value | u64 txn | u64 event | u64 checksum (XXH3_64bits of the 56 before)
 *
 * txn and event are what came before it: 0, or the head of a store that had no chain until then. Without
 * that record the store has no chain.
 */
#ifndef CORE_CHAIN_H
#define CORE_CHAIN_H

#include "core/buf.h"
#include "core/record.h"

#define CHAIN_BYTES  32u
#define CHAIN_RECORD 64u

struct chain {
    uint8_t value[CHAIN_BYTES];
    uint64_t txn, event; /* the last ones in it */
    int on;              /* 0: the store has none, the rest is nothing */
};

/* The chain before its first transaction. */
void chain_begin(struct chain *c, const uint8_t uuid[16], uint64_t txn, uint64_t event);
/* One transaction's events, n >= 1 of them in their order: their ids, txn and time are those of ev[0] on. */
void chain_extend(struct chain *c, const struct event_record *ev, uint32_t n);

/* What chain_extend() hashes, for who does it elsewhere: value(n) is hash_once() over this text. */
size_t chain_text_size(const struct event_record *ev, uint32_t n);
void chain_text(unsigned char *out, const struct chain *c, const struct event_record *ev,
                uint32_t n);

/* The chain over events that come one by one, whose bytes need not outlive the call: they are kept until their
 * transaction is whole. Begins as {.chain = ...}; without a chain (not `on`) it does nothing. */
struct chain_walk {
    struct chain chain;
    struct event_record *ev; /* of the transaction in hand; pointers: places in `bytes` */
    uint32_t n, cap;
    struct buf bytes;
};
/* Events that the chain has already are passed over. 0, or NOMEM. */
int chain_walk_add(struct chain_walk *w, const struct event_record *ev);
void chain_walk_end(
    struct chain_walk *w); /* the transaction in hand is whole: it goes into the chain */
void chain_walk_fini(struct chain_walk *w);

void chain_start_encode(unsigned char out[CHAIN_RECORD], const struct chain *c);
/* 0 and *ret (on), or CORRUPT. Safe on any bytes. */
int chain_start_decode(struct azoth_bytes rec, struct chain *ret);

#endif
