/*
 * bench_load.h - the load of the benchmarks: the same transactions for the product and for raw LMDB.
 *
 * Keys are random among load.keys; values and payloads have load.value_bytes. Product and floor draw the
 * same keys when they begin with the same seed. Calls run for about slice_ns and yield a rate; a
 * failure ends the slice with its error.
 */
#ifndef CLIENT_CMD_BENCH_LOAD_H
#define CLIENT_CMD_BENCH_LOAD_H

#include "client/azoth.h"
#include "client/cmd/bench_floor.h"

#define LOAD_VALUE      100u            /* bytes, where nobody asks for others */
#define LOAD_VALUE_MAX  FLOOR_VALUE_MAX /* a transaction fits the queue's blocks several times */
#define LOAD_EVENT_TYPE "deposited"

enum bench_load_kind {
    LOAD_PAIR,     /* sets one value, logs one event */
    LOAD_TRANSFER, /* min on one account, moves 1 to another, one event */
    LOAD_HOT,      /* min on the one hot key, adds to it, one event */
    LOAD_EVENTS,   /* events alone */
};

struct bench_load {
    enum bench_load_kind kind;
    uint64_t keys;        /* 2 at least */
    uint32_t events;      /* of a transaction of LOAD_EVENTS */
    uint32_t value_bytes; /* of a value of LOAD_PAIR, and of every payload: 1 to LOAD_VALUE_MAX */
    int ids;              /* the floor keeps request ids too */
    uint64_t seed;        /* not 0 */
};

/* Times of single transactions, in ns. Zero-initialise; free(t.ns). */
struct bench_load_times {
    double *ns;
    size_t len, cap;
};
int bench_load_times_add(struct bench_load_times *t, double ns); /* 0 or NOMEM */
/* q of 0 to 1; sorts. 0 when there are none. */
double bench_load_times_quantile(struct bench_load_times *t, double q);

uint64_t bench_load_random(uint64_t *seed);
struct azoth_bytes bench_load_key(enum bench_load_kind kind, uint64_t i, char out[32]);

/* Every key once, in 1000 per transaction (fewer when they are large); LOAD_EVENTS: load.keys events.
 * stop (may be NULL) is asked before each transaction: when it says so, the rest is left out and 0
 * returned; by hand, what was written is not synced then. */
int bench_load_fill(struct azoth *db, const struct bench_load *l, int (*stop)(void),
                    struct azoth_error *err);
int bench_load_fill_floor(struct floor *f, const struct bench_load *l, int (*stop)(void),
                          struct azoth_error *err);

/* Empties t and makes the next transaction of the load in it. */
void bench_load_make(struct azoth_txn *t, struct bench_load *l);

/* Transactions a second with so many in flight: 1 commits and waits. times may be NULL. At the end
 * nothing is in flight. */
int bench_load_product(struct azoth *db, struct bench_load *l, uint32_t in_flight,
                       uint64_t slice_ns, struct bench_load_times *times, double *ret_rate,
                       struct azoth_error *err);
/* The same by hand, so many to one LMDB transaction; times are of the LMDB transactions. */
int bench_load_floor(struct floor *f, struct bench_load *l, uint32_t together, uint64_t slice_ns,
                     struct bench_load_times *times, double *ret_rate, struct azoth_error *err);

#endif
