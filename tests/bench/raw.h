/*
 * raw.h - the floor of the write and read rows: raw LMDB by hand (client/cmd/bench_floor.h), an
 * environment beside the product's, full sync. What fails ends the program.
 */
#ifndef TESTS_BENCH_RAW_H
#define TESTS_BENCH_RAW_H

#include "client/cmd/bench_load.h"

struct floor *raw_open(const char *parent); /* makes parent/raw; floor_close() */
/* Each key once, with an event; of LOAD_EVENTS so many events. */
void raw_fill(struct floor *f, enum bench_load_kind kind, uint64_t keys);
/* Of the load, `together` to an LMDB transaction: how many a second, over BENCH_SLICE_NS. */
double raw_rate(struct floor *f, struct bench_load l, uint32_t together);
/* Pairs a second, `batch` to a transaction, random keys of BENCH_KEYS; ids: each with a request id. */
double raw_pairs(struct floor *f, int batch, int ids);
/* Events a second, 1000 to a transaction. */
double raw_events(struct floor *f);

#endif
