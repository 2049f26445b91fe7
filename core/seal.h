/*
 * seal.h - the seal that the store keeps: the database is sealed until somebody unseals it, over restarts of
 * writer and machine.
 *
 * One record in meta under "seal":
 *
 *   u32 magic "AZS1" | u32 pid | u64 event | u64 txn | i64 time_ns | char who[32], NUL-padded
 *   | u64 checksum (XXH3_64bits over the 64 bytes before)
 *
 * Integers little-endian. Written by writer/control.c alone. A database that is made from a copy (a restore)
 * begins without it.
 */
#ifndef CORE_SEAL_H
#define CORE_SEAL_H

#include "core/store.h"

#define SEAL_KEY    "seal"
#define SEAL_RECORD 72u

struct seal {
    uint64_t event, txn; /* the newest when it was sealed */
    int64_t time_ns;     /* then, UTC */
    uint32_t pid;        /* of who sealed it */
    char who[32];
};

void seal_encode(unsigned char out[SEAL_RECORD], const struct seal *s);
/* CORRUPT. Safe on any bytes. */
int seal_decode(struct azoth_bytes rec, struct seal *ret);

/* 1 and *ret when it is sealed, 0 when not. CORRUPT, IO. */
int snapshot_seal(struct snapshot *sn, struct seal *ret, struct azoth_error *err);

#endif
