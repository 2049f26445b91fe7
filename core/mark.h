/*
 * mark.h - what a place of backups wants kept: redo records after the transaction that it has.
 *
 * One record in meta under "mark:" and the place's UUID as 32 hexadecimal digits:
 *
 *   u32 magic "AZM1" | u32 flags (1: broken; 2: confirmed; 4: followed) | u64 txn | u64 event | i64 since_ns
 *   | u64 checksum (XXH3_64bits over the 32 bytes before, seeded with that of the UUID)
 *
 * Integers little-endian. Written by writer/control.c and, when redo records that it wants are thrown away,
 * by writer/append.c.
 */
#ifndef CORE_MARK_H
#define CORE_MARK_H

#include "core/store.h"

#define MARK_RECORD 40u
#define MARK_PLACE  16u /* bytes of a place's UUID */
#define MARK_KEY    37u /* bytes of its key in meta */
#define MARKS_MAX   64u /* places of one database */

/* Begins the name of a participant that follows; the first 16 digits of the place's UUID come behind it. */
#define MARK_FOLLOWER        "follow "
#define MARK_FOLLOWER_DIGITS 16

struct mark {
    uint8_t place[MARK_PLACE];
    uint64_t txn, event; /* it has everything up to here, when it is confirmed */
    int64_t since_ns;    /* commit time of that */
    int broken;          /* redo records after txn are gone: the next backup there is a full one */
    int confirmed; /* a backup was durable there since the mark was set; else the place has nothing yet */
    int followed; /* by azoth backup --follow: it is to come close to the head at all times */
};

void mark_key(char out[MARK_KEY + 1], const uint8_t place[MARK_PLACE]);
/* 1 when this key of meta is a mark's. */
int mark_is_key(struct azoth_bytes key);
void mark_encode(unsigned char out[MARK_RECORD], const struct mark *m);
/* The record under this key. CORRUPT. Safe on any bytes. */
int mark_decode(struct azoth_bytes key, struct azoth_bytes rec, struct mark *ret);

/* Whether it is broken (1), confirmed (2) and followed (4), as one number, and back. */
uint32_t mark_flags(const struct mark *m);
void mark_take_flags(struct mark *m, uint32_t flags);

/* All marks, by their UUIDs, at most cap; *ret_n. CORRUPT, IO. */
int snapshot_marks(struct snapshot *sn, struct mark *out, uint32_t cap, uint32_t *ret_n,
                   struct azoth_error *err);
/* That of one place: 1 and *ret, 0 when there is none; CORRUPT (also of another one), IO. */
int snapshot_mark(struct snapshot *sn, const uint8_t place[MARK_PLACE], struct mark *ret,
                  struct azoth_error *err);

#endif
