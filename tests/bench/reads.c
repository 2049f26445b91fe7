/* reads.c - rows 8 and 9: gets and event iteration beside the bare calls on the same kind of file. */
#include "core/clock.h"
#include "tests/bench/load.h"
#include "tests/bench/raw.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define READ_NS (BENCH_SLICE_NS / 2)
#define EVENTS  1000000u

/* What both sides do with a value: look at all of it. */
static volatile uint64_t sink;

static void consume(const void *p, size_t n)
{
    static char copy[4096];
    memcpy(copy, p, n < sizeof copy ? n : sizeof copy);
    sink += (uint64_t)(unsigned char)copy[n / 2];
}

/* ---- row 8 ---- */

static double get_each(struct azoth *db)
{
    struct azoth_buffer buf = {0};
    struct azoth_entry e;
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < READ_NS)
        for (int i = 0; i < 1000; i++, n++) {
            char key[24];
            must(azoth_get(db, bench_key(key, bench_random() % BENCH_KEYS), &buf, &e, NULL) == 0,
                 "get");
            sink += (uint64_t)((const unsigned char *)e.value.enc.ptr)[e.value.enc.len / 2];
        }
    free(buf.ptr);
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

static double get_within(struct azoth *db)
{
    struct azoth_snapshot *s;
    struct azoth_entry e;
    must(azoth_snapshot(db, &s, NULL) == 0, "snapshot");
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < READ_NS)
        for (int i = 0; i < 1000; i++, n++) {
            char key[24];
            must(azoth_snapshot_get(s, bench_key(key, bench_random() % BENCH_KEYS), &e, NULL) == 0,
                 "get");
            consume(e.value.enc.ptr, e.value.enc.len);
        }
    double rate = (double)n * 1e9 / (double)(clock_mono_ns() - from);
    azoth_snapshot_free(s);
    return rate;
}

static double raw_get(struct raw *r, int renew)
{
    MDB_txn *t;
    must(!mdb_txn_begin(r->env, NULL, MDB_RDONLY, &t), "raw LMDB: begin");
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < READ_NS)
        for (int i = 0; i < 1000; i++, n++) {
            char key[24];
            struct azoth_bytes b = bench_key(key, bench_random() % BENCH_KEYS);
            MDB_val k = {b.len, (void *)(uintptr_t)b.ptr}, v;
            if (renew) {
                mdb_txn_reset(t);
                must(!mdb_txn_renew(t), "raw LMDB: renew");
            }
            must(!mdb_get(t, r->state, &k, &v), "raw LMDB: get");
            consume(v.mv_data, v.mv_size);
        }
    double rate = (double)n * 1e9 / (double)(clock_mono_ns() - from);
    mdb_txn_abort(t);
    return rate;
}

/* ---- row 9 ---- */

static double iterate(struct azoth *db)
{
    struct azoth_events *it;
    struct azoth_event ev;
    uint64_t n = 0, from = clock_mono_ns();
    must(azoth_events(db, 1, 0, NULL, &it, NULL) == 0, "events");
    for (; azoth_events_next(it, &ev, NULL) == 1; n++)
        sink += ((const unsigned char *)ev.payload.ptr)[ev.payload.len / 2];
    azoth_events_free(it);
    must(n >= EVENTS, "every event is read");
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

/* A record's checksum covers what is behind its first four bytes. */
static double raw_iterate(struct raw *r)
{
    MDB_txn *t;
    MDB_cursor *c = NULL;
    MDB_val k, v;
    uint64_t n = 0, from = clock_mono_ns();
    must(!mdb_txn_begin(r->env, NULL, MDB_RDONLY, &t) && !mdb_cursor_open(t, r->events, &c),
         "raw LMDB: cursor");
    for (int rc = mdb_cursor_get(c, &k, &v, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(c, &k, &v, MDB_NEXT), n++)
        sink += XXH3_64bits((const char *)v.mv_data + 4, v.mv_size - 4) +
                ((const unsigned char *)v.mv_data)[v.mv_size / 2];
    mdb_cursor_close(c);
    mdb_txn_abort(t);
    must(n >= EVENTS, "every event is read");
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

/* ---- rows ---- */

static void fill_events(struct azoth *db, struct raw *raw)
{
    struct azoth_error err;
    for (uint32_t i = 0; i < EVENTS;) {
        struct azoth_txn *t = azoth_txn_new(db);
        MDB_txn *r = raw_begin(raw);
        for (int k = 0; k < 10000 && i < EVENTS; k++, i++) {
            azoth_event_bytes(t, "deposited", (struct azoth_bytes){bench_value, BENCH_VALUE});
            raw_put_event(raw, r);
        }
        must(azoth_commit(t, NULL, &err) == 0, err.message);
        azoth_txn_free(t);
        raw_commit(r);
    }
}

void bench_read_rows(void)
{
    if (!bench_wants("8a") && !bench_wants("8b") && !bench_wants("9"))
        return;
    struct harness h;
    struct raw raw;
    bench_begin(&h);
    raw_open(&raw, h.dir);
    raw_fill(&raw, BENCH_KEYS);
    struct azoth *db = load_open_embedded(h.dir);
    load_fill(db, BENCH_KEYS);
    if (bench_wants("8a")) {
        struct bench_row *r =
            bench_row("8a", "get, a snapshot a call / mdb_get, renew a call", "/s", 0.85);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = get_each(db);
            bench_pair(r, product, raw_get(&raw, 1));
        }
    }
    if (bench_wants("8b")) {
        struct bench_row *r =
            bench_row("8b", "get within one snapshot / mdb_get in one transaction", "/s", 0.85);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = get_within(db);
            bench_pair(r, product, raw_get(&raw, 0));
        }
    }
    if (bench_wants("9")) {
        fill_events(db, &raw);
        struct bench_row *r =
            bench_row("9", "events through the API / cursor and checksum", "/s", 0.60);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = iterate(db);
            bench_pair(r, product, raw_iterate(&raw));
        }
    }
    azoth_close(db);
    raw_close(&raw);
    harness_end(&h);
}
