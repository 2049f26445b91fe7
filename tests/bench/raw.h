/*
 * raw.h - the floor of the write and read rows: bare LMDB, one environment of its own, full sync, the
 * product's flags, records of the product's size.
 */
#ifndef TESTS_BENCH_RAW_H
#define TESTS_BENCH_RAW_H

#include "core/record.h"

#include <lmdb.h>

struct raw {
    char dir[400];
    MDB_env *env;
    MDB_dbi state, events, ids, ids_age;
    uint64_t next; /* event id */
};

void raw_open(struct raw *r, const char *parent); /* makes parent/raw */
void raw_close(struct raw *r);                    /* and removes it */
void raw_fill(struct raw *r, uint64_t keys);      /* each key once, with an event */
MDB_txn *raw_begin(struct raw *r);
void raw_commit(MDB_txn *t);
/* One state record and one event record. */
void raw_put(struct raw *r, MDB_txn *t, struct azoth_bytes key);
void raw_put_state(struct raw *r, MDB_txn *t, struct azoth_bytes key, size_t value_bytes);
void raw_put_event(struct raw *r, MDB_txn *t);
/* The record of a request id, as the product keeps it. */
void raw_put_id(struct raw *r, MDB_txn *t);
/* Pairs a second, `batch` a transaction, random keys below `keys`; for BENCH_SLICE_NS. */
double raw_pairs(struct raw *r, int batch, int ids, uint64_t keys);

#endif
