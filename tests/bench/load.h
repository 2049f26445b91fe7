/*
 * load.h - the product's load: transactions of one state put and one 100-byte event each, each
 * answered when it is durable. Rates are per second over BENCH_SLICE_NS.
 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include "core/buf.h"
#include "tests/bench/bench.h"

struct azoth *load_open_embedded(const char *dir);
struct azoth *load_attach(const char *dir);
/* Each of `keys` keys once, with an event, 1000 a transaction. */
void load_fill(struct azoth *db, uint64_t keys);
/* Puts a random pair into t, which is reset. */
void load_pair(struct azoth_txn *t, uint64_t keys);
/* One after the other. */
double load_single(struct azoth *db, uint64_t keys);
/* Transactions of 1000 events, one after the other: events a second. */
double bench_append_events(struct azoth *db);
/* `in_flight` at once, submitted by one thread; each with `events` more events. */
double load_flight(struct azoth *db, int in_flight, int events, uint64_t keys);
/* The same with transactions of the caller's making: make resets t and appends. */
typedef void (*load_make)(struct azoth_txn *t, void *arg);
double load_flight_of(struct azoth *db, int in_flight, load_make make, void *arg);

/*
 * JSON requests through `n` workers' endpoints, `in_flight` at once in all, by one thread with a raw
 * REQ socket each: what a program without libazoth sends. make appends one request to the empty out,
 * under an id of load_json_id(). An answer that is not "ok" ends the program.
 */
#define LOAD_JSON_WORKERS 2
typedef void (*load_json_make)(struct buf *out);
double load_json(const char *const *endpoint, int n, int in_flight, load_json_make make);
/* Neighbours, as libazoth makes them: 32 hex digits. */
void load_json_id(char out[33]);
/* Starts azoth-worker NAME, with the commands of `load` unless it is NULL; its endpoint, which answers. */
void load_worker(struct harness *h, const char *name, const char *load, char endpoint[400]);

#endif
