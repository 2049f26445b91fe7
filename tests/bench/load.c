#include "tests/bench/load.h"

#include "core/clock.h"

#include <stdlib.h>

static struct azoth_bytes payload(void)
{
    return (struct azoth_bytes){bench_value, BENCH_VALUE};
}

static struct azoth *opened(const char *dir, uint32_t flags)
{
    struct azoth_options o = {.flags = flags, .deadline_ms = 60000, .attach_wait_ms = 10000};
    struct azoth *db = NULL;
    struct azoth_error err;
    must(azoth_open(dir, &o, &db, &err) == 0, err.message);
    return db;
}

struct azoth *load_open_embedded(const char *dir)
{
    return opened(dir, AZOTH_EMBEDDED);
}

struct azoth *load_attach(const char *dir)
{
    return opened(dir, 0);
}

void load_fill(struct azoth *db, uint64_t keys)
{
    struct azoth_error err;
    for (uint64_t i = 0; i < keys;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int n = 0; n < 1000 && i < keys; n++, i++) {
            char key[24];
            azoth_set_bytes(t, bench_key(key, i), payload());
            azoth_event_bytes(t, "deposited", payload());
        }
        must(azoth_commit(t, NULL, &err) == 0, err.message);
        azoth_txn_free(t);
    }
}

void load_pair(struct azoth_txn *t, uint64_t keys)
{
    char key[24];
    azoth_txn_reset(t);
    azoth_set_bytes(t, bench_key(key, bench_random() % keys), payload());
    azoth_event_bytes(t, "deposited", payload());
}

double load_single(struct azoth *db, uint64_t keys)
{
    struct azoth_txn *t = azoth_txn_new(db);
    struct azoth_error err;
    uint64_t from = clock_mono_ns(), n = 0;
    for (; clock_mono_ns() - from < BENCH_SLICE_NS; n++) {
        load_pair(t, keys);
        must(azoth_commit(t, NULL, &err) == 0, err.message);
    }
    double rate = (double)n * 1e9 / (double)(clock_mono_ns() - from);
    azoth_txn_free(t);
    return rate;
}

struct flight {
    struct azoth_txn *idle[1024];
    int len;
    uint64_t done;
};

static void landed(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                   const struct azoth_error *err, void *arg)
{
    struct flight *f = arg;
    (void)info;
    must(code == 0, err->message);
    f->idle[f->len++] = t;
    f->done++;
}

double load_flight_of(struct azoth *db, int in_flight, load_make make, void *arg)
{
    struct flight f = {.len = 0};
    struct azoth_error err;
    for (int i = 0; i < in_flight; i++)
        f.idle[f.len++] = azoth_txn_new(db);
    uint64_t from = clock_mono_ns();
    while (clock_mono_ns() - from < BENCH_SLICE_NS) {
        while (f.len > 0) {
            struct azoth_txn *t = f.idle[--f.len];
            make(t, arg);
            must(azoth_submit(t, landed, &f, &err) == 0, err.message);
        }
        azoth_poll(db, 1000);
    }
    double rate = (double)f.done * 1e9 / (double)(clock_mono_ns() - from);
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
    while (f.len > 0)
        azoth_txn_free(f.idle[--f.len]);
    return rate;
}

struct pairs {
    int events;
    uint64_t keys;
};

static void make_pairs(struct azoth_txn *t, void *arg)
{
    const struct pairs *p = arg;
    load_pair(t, p->keys);
    for (int i = 1; i < p->events; i++)
        azoth_event_bytes(t, "deposited", payload());
}

double load_flight(struct azoth *db, int in_flight, int events, uint64_t keys)
{
    struct pairs p = {events, keys};
    return load_flight_of(db, in_flight, make_pairs, &p);
}
