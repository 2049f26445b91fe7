/*
 * contention.c - rows 12, 13, 14 and 16: transactions that need each other's keys, processor or turn.
 *
 * 12 many accounts, two keys a transfer; 13 one key for all; 14 validators that burn processor;
 * 16 what one client waits while 63 others load.
 */
#include "core/clock.h"
#include "tests/bench/load.h"
#include "tests/bench/raw.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct azoth_bytes payload(void)
{
    return (struct azoth_bytes){bench_value, BENCH_VALUE};
}

/* ---- row 12 ---- */

#define OPENING 1000000000

/* Accounts as integers. Nobody runs dry in a benchmark's time. */
static void fill_accounts(struct azoth *db)
{
    struct azoth_error err;
    char key[24];
    for (uint64_t i = 0; i < BENCH_KEYS;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int n = 0; n < 1000 && i < BENCH_KEYS; n++, i++) {
            azoth_set_i64(t, bench_key(key, i), OPENING);
            azoth_event_bytes(t, "deposited", payload());
        }
        must(azoth_commit(t, NULL, &err) == 0, err.message);
        azoth_txn_free(t);
    }
}

/* Two different ones. */
static void pick(uint64_t *ret_from, uint64_t *ret_to)
{
    *ret_from = bench_random() % BENCH_KEYS;
    *ret_to = (*ret_from + 1 + bench_random() % (BENCH_KEYS - 1)) % BENCH_KEYS;
}

static void make_transfer(struct azoth_txn *t, void *arg)
{
    (void)arg;
    char payer[24], payee[24];
    uint64_t from, to;
    int64_t x = (int64_t)(bench_random() % 100) + 1;
    pick(&from, &to);
    azoth_txn_reset(t);
    azoth_require_min_i64(t, bench_key(payer, from), x);
    azoth_add_i64(t, bench_key(payer, from), -x);
    azoth_add_i64(t, bench_key(payee, to), x);
    azoth_event_bytes(t, "deposited", payload());
}

static void transfer_row(void)
{
    struct harness h;
    struct bench_load by_hand = {.kind = LOAD_TRANSFER, .keys = BENCH_KEYS};
    struct floor *raw;
    bench_begin(&h);
    raw = raw_open(h.dir);
    raw_fill(raw, LOAD_TRANSFER, BENCH_KEYS);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = load_attach(h.dir);
    fill_accounts(db);
    struct bench_row *r =
        bench_row("12", "transfers, 64 in flight / raw LMDB, 2 gets, 2 puts, 1 event", "/s", 0.60);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = load_flight_of(db, 64, make_transfer, NULL);
        bench_pair(r, product, raw_rate(raw, by_hand, 64));
    }
    azoth_close(db);
    floor_close(raw);
    harness_end(&h);
}

/* ---- row 13 ---- */

static void make_hot(struct azoth_txn *t, void *arg)
{
    (void)arg;
    azoth_txn_reset(t);
    azoth_require_min_i64(t, AZOTH_STR("hot"), 0);
    azoth_add_i64(t, AZOTH_STR("hot"), 1);
    azoth_event_bytes(t, "deposited", payload());
}

static void hot_row(struct azoth *db)
{
    struct azoth_error err;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, AZOTH_STR("hot"), 0);
    must(azoth_commit(t, NULL, &err) == 0, err.message);
    azoth_txn_free(t);
    struct bench_row *r =
        bench_row("13", "64 in flight on one key / 1 client, random keys", "/s", 0.80);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = load_flight_of(db, 64, make_hot, NULL);
        bench_pair(r, product, load_single(db, BENCH_KEYS));
    }
}

/* ---- row 14 ---- */

static void make_call(struct buf *out)
{
    char id[33], key[24];
    load_json_id(id);
    struct azoth_bytes k = bench_key(key, bench_random() % BENCH_KEYS);
    must(!buf_addf(out,
                   "{\"op\":\"call\",\"id\":\"%s\",\"deadline_ms\":60000,\"command\":\"burn\","
                   "\"args\":{\"key\":\"%.*s\"}}",
                   id, (int)k.len, key),
         "out of memory");
}

static void burn_row(void)
{
    struct harness h;
    char one[400], two[400], library[300];
    bench_begin(&h);
    harness_program(&h, "tests/bench/burn.so", library);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    load_worker(&h, "1", library, one);
    load_worker(&h, "2", library, two);
    const char *const both[] = {one, two};
    struct bench_row *r =
        bench_row("14", "validators that burn 200 us: 2 workers / 1 worker", "/s", 1.4);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = load_json(both, 2, 64, make_call);
        bench_pair(r, product, load_json(both, 1, 64, make_call));
    }
    harness_end(&h);
}

/* ---- row 16 ---- */

#define OTHERS      63
#define ANSWERS_MAX 100000
#define WATCH_NS    (5 * BENCH_SLICE_NS) /* a hundredth of the answers has to be several */

struct others {
    struct azoth *db;
    _Atomic int stop;
    _Atomic uint64_t next;
};

static void one_more(struct azoth_txn *t, uint64_t *seed)
{
    char key[24];
    struct azoth_error err;
    azoth_txn_reset(t);
    azoth_set_bytes(t, bench_key(key, random_next(seed) % BENCH_KEYS), payload());
    azoth_event_bytes(t, "deposited", payload());
    must(azoth_commit(t, NULL, &err) == 0, err.message);
}

static void *other_main(void *arg)
{
    struct others *o = arg;
    uint64_t seed = 0x9e3779b97f4a7c15u * (atomic_fetch_add(&o->next, 1) + 1);
    struct azoth_txn *t = azoth_txn_new(o->db);
    while (!atomic_load(&o->stop))
        one_more(t, &seed);
    azoth_txn_free(t);
    return NULL;
}

/* The time of each answer to one client, in microseconds; how many. */
static int watch(struct azoth *db, double *us)
{
    uint64_t seed = bench_random(), from = clock_mono_ns(), began = from;
    struct azoth_txn *t = azoth_txn_new(db);
    int n = 0;
    while (began - from < WATCH_NS && n < ANSWERS_MAX) {
        one_more(t, &seed);
        uint64_t now = clock_mono_ns();
        us[n++] = (double)(now - began) / 1e3;
        began = now;
    }
    azoth_txn_free(t);
    return n;
}

static void fairness_row(const char *dir, struct azoth *db)
{
    double *us = malloc(ANSWERS_MAX * sizeof *us);
    must(us != NULL, "out of memory");
    struct azoth *own = load_attach(dir);
    struct bench_row *r =
        bench_row("16", "time to answer while 63 others load: 99th percentile / median", "us", 5);
    r->lower_is_better = 1;
    for (int i = 0; i < bench_pairs(); i++) {
        pthread_t thread[OTHERS];
        struct others o = {.db = db};
        for (int k = 0; k < OTHERS; k++)
            must(pthread_create(&thread[k], NULL, other_main, &o) == 0, "a thread");
        int n = watch(own, us);
        atomic_store(&o.stop, 1);
        for (int k = 0; k < OTHERS; k++)
            pthread_join(thread[k], NULL);
        bench_pair(r, bench_quantile(us, n, 0.99), bench_quantile(us, n, 0.5));
    }
    azoth_close(own);
    free(us);
}

void bench_contention_rows(void)
{
    if (bench_wants("12"))
        transfer_row();
    if (bench_wants("13") || bench_wants("16")) {
        struct harness h;
        bench_begin(&h);
        harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
        struct azoth *db = load_attach(h.dir);
        load_fill(db, BENCH_KEYS);
        if (bench_wants("13"))
            hot_row(db);
        if (bench_wants("16"))
            fairness_row(h.dir, db);
        azoth_close(db);
        harness_end(&h);
    }
    if (bench_wants("14"))
        burn_row();
}
