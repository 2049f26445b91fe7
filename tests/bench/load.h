/*
 * load.h - the product's load: transactions of one state put and one 100-byte event each, each
 * answered when it is durable. Rates are per second over BENCH_SLICE_NS.
 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include "tests/bench/bench.h"

struct azoth *load_open_embedded(const char *dir);
struct azoth *load_attach(const char *dir);
/* Each of `keys` keys once, with an event, 1000 a transaction. */
void load_fill(struct azoth *db, uint64_t keys);
/* Puts a random pair into t, which is reset. */
void load_pair(struct azoth_txn *t, uint64_t keys);
/* One after the other. */
double load_single(struct azoth *db, uint64_t keys);
/* `in_flight` at once, submitted by one thread; each with `events` more events. */
double load_flight(struct azoth *db, int in_flight, int events, uint64_t keys);

#endif
