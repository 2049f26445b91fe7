/* write.c - rows 1 to 4 and 7, and the plots: what a durable transaction costs beside bare LMDB. */
#include "core/clock.h"
#include "tests/bench/load.h"
#include "tests/bench/raw.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- 64 threads, each with one transaction at a time ---- */

#define THREADS 64

struct crowd {
    struct azoth *db;
    uint64_t until_ns;
    _Atomic uint64_t done;
};

static void *crowd_main(void *arg)
{
    struct crowd *c = arg;
    static _Atomic uint64_t next;
    uint64_t seed = 0x9e3779b97f4a7c15u * (atomic_fetch_add(&next, 1) + 1), n = 0;
    struct azoth_txn *t = azoth_txn_new(c->db);
    struct azoth_error err;
    struct azoth_bytes payload = {bench_value, BENCH_VALUE};
    for (; clock_mono_ns() < c->until_ns; n++) {
        char key[24];
        azoth_txn_reset(t);
        azoth_set_bytes(t, bench_key(key, random_next(&seed) % BENCH_KEYS), payload);
        azoth_event_bytes(t, "deposited", payload);
        must(azoth_commit(t, NULL, &err) == 0, err.message);
    }
    azoth_txn_free(t);
    atomic_fetch_add(&c->done, n);
    return NULL;
}

static double crowd(struct azoth *db)
{
    pthread_t thread[THREADS];
    uint64_t from = clock_mono_ns();
    struct crowd c = {.db = db, .until_ns = from + BENCH_SLICE_NS};
    for (int i = 0; i < THREADS; i++)
        must(pthread_create(&thread[i], NULL, crowd_main, &c) == 0, "a thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    return (double)atomic_load(&c.done) * 1e9 / (double)(clock_mono_ns() - from);
}

/* ---- row 7 ---- */

double bench_append_events(struct azoth *db)
{
    struct azoth_error err;
    struct azoth_txn *t = azoth_txn_new(db);
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < BENCH_SLICE_NS) {
        azoth_txn_reset(t);
        for (int i = 0; i < 1000; i++, n++)
            azoth_event_bytes(t, "deposited", (struct azoth_bytes){bench_value, BENCH_VALUE});
        must(azoth_commit(t, NULL, &err) == 0, err.message);
    }
    azoth_txn_free(t);
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

/* ---- rows ---- */

static void embedded_rows(struct floor *raw)
{
    struct harness h;
    bench_begin(&h);
    struct azoth *db = load_open_embedded(h.dir);
    load_fill(db, BENCH_KEYS);
    if (bench_wants("1")) {
        struct bench_row *r =
            bench_row("1", "state + event, 1 client, embedded / raw LMDB", "/s", 0.90);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = load_single(db, BENCH_KEYS);
            bench_pair(r, product, raw_pairs(raw, 1, 0));
        }
    }
    if (bench_wants("7")) {
        struct bench_row *r =
            bench_row("7", "1000 events a transaction / raw MDB_APPEND", "/s", 0.80);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = bench_append_events(db);
            bench_pair(r, product, raw_events(raw));
        }
    }
    if (bench_wants("18")) {
        struct bench_row *r =
            bench_row("18", "64 in flight, embedded / 1 client, embedded", "/s", 10);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = load_flight(db, 64, 1, BENCH_KEYS);
            bench_pair(r, product, load_single(db, BENCH_KEYS));
        }
    }
    azoth_close(db);
    harness_end(&h);
}

static void flight_row(struct azoth *db, struct floor *raw, const char *id, const char *name,
                       int in_flight, int events, double reach)
{
    if (!bench_wants(id))
        return;
    struct bench_row *r = bench_row(id, name, "/s", reach);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = load_flight(db, in_flight, events, BENCH_KEYS) * events;
        if (events > 1) {
            bench_pair(r, product, raw_events(raw));
        } else {
            bench_pair(r, product, raw_pairs(raw, in_flight, 0));
        }
    }
}

#define PLOT_POINTS 5
#define PLOT_TIMES  5 /* at most: what a point is the median of */

/* Little's law: what is in flight divided by the rate is the mean time that each waits. */
static void plot_series(const char *series, const int *at, double v[PLOT_POINTS][PLOT_TIMES], int n)
{
    for (int i = 0; i < PLOT_POINTS; i++) {
        double rate = bench_quantile(v[i], n, 0.5);
        bench_point_throughput(series, at[i], rate);
        bench_point_latency(series, at[i], at[i] * 1e6 / rate);
    }
}

static void plot(struct azoth *db, struct floor *raw)
{
    static const int at[PLOT_POINTS] = {1, 8, 64, 256, 1024};
    double product[PLOT_POINTS][PLOT_TIMES], floor[PLOT_POINTS][PLOT_TIMES];
    int times = bench_pairs() < PLOT_TIMES ? bench_pairs() : PLOT_TIMES;
    fprintf(stderr, "plot throughput and latency, 1 to 1024 in flight\n");
    for (int k = 0; k < times; k++)
        for (int i = 0; i < PLOT_POINTS; i++) {
            product[i][k] = load_flight(db, at[i], 1, BENCH_KEYS);
            floor[i][k] = raw_pairs(raw, at[i], 0);
        }
    plot_series("azoth, through the segment", at, product, times);
    plot_series("raw LMDB, as many a transaction", at, floor, times);
}

static void segment_rows(struct floor *raw)
{
    struct harness h;
    bench_begin(&h);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = load_attach(h.dir);
    load_fill(db, BENCH_KEYS);
    if (bench_wants("2")) {
        struct bench_row *r =
            bench_row("2", "state + event, 1 client through the segment / raw LMDB", "/s", 0.85);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = load_single(db, BENCH_KEYS);
            bench_pair(r, product, raw_pairs(raw, 1, 0));
        }
    }
    flight_row(db, raw, "3a", "64 in flight, asynchronous / raw LMDB, 64 pairs", 64, 1, 0.75);
    if (bench_wants("3b")) {
        struct bench_row *r = bench_row("3b", "64 threads / raw LMDB, 64 pairs", "/s", 0.65);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = crowd(db);
            bench_pair(r, product, raw_pairs(raw, 64, 0));
        }
    }
    flight_row(db, raw, "4", "256 in flight, asynchronous / raw LMDB, 256 pairs", 256, 1, 0.70);
    flight_row(db, raw, "17", "events: 64 in flight with 64 events each / raw MDB_APPEND, 1000", 64,
               64, 0);
    if (bench_wants("plot"))
        plot(db, raw);
    azoth_close(db);
    harness_end(&h);
}

void bench_write_rows(void)
{
    if (!bench_wants("1") && !bench_wants("2") && !bench_wants("3a") && !bench_wants("3b") &&
        !bench_wants("4") && !bench_wants("7") && !bench_wants("17") && !bench_wants("18") &&
        !bench_wants("plot"))
        return;
    struct harness h;
    struct floor *raw;
    bench_begin(&h);
    raw = raw_open(h.dir);
    raw_fill(raw, LOAD_PAIR, BENCH_KEYS);
    if (bench_wants("1") || bench_wants("7") || bench_wants("18"))
        embedded_rows(raw);
    segment_rows(raw);
    floor_close(raw);
    harness_end(&h);
}
