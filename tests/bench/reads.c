/* reads.c - rows 8 and 9: gets and event iteration beside the bare calls on the same kind of file. */
#include "core/clock.h"
#include "tests/bench/load.h"
#include "tests/bench/raw.h"

#include <stdlib.h>
#include <string.h>

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

static double raw_get(struct floor *f, int renew)
{
    struct azoth_error err;
    char copy[4096];
    size_t len;
    must(floor_read(f, &err) == 0, err.message);
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < READ_NS)
        for (int i = 0; i < 1000; i++, n++) {
            char key[24];
            struct azoth_bytes k = bench_key(key, bench_random() % BENCH_KEYS);
            if (renew) {
                floor_unread(f);
                must(floor_read(f, &err) == 0, err.message);
            }
            must(floor_get(f, k, copy, sizeof copy, &len, &err) == 0, err.message);
            sink += (uint64_t)(unsigned char)copy[len / 2];
        }
    double rate = (double)n * 1e9 / (double)(clock_mono_ns() - from);
    floor_unread(f);
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

static double raw_iterate(struct floor *f)
{
    struct azoth_error err;
    uint64_t bytes, from = clock_mono_ns();
    must(floor_read(f, &err) == 0 && floor_events(f, 1, floor_head(f), &bytes, &err) == 0,
         err.message);
    floor_unread(f);
    must(floor_head(f) >= EVENTS, "every event is read");
    return (double)floor_head(f) * 1e9 / (double)(clock_mono_ns() - from);
}

/* ---- rows ---- */

static void fill_events(struct azoth *db)
{
    struct azoth_error err;
    for (uint32_t i = 0; i < EVENTS;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int k = 0; k < 10000 && i < EVENTS; k++, i++)
            azoth_event_bytes(t, "deposited", (struct azoth_bytes){bench_value, BENCH_VALUE});
        must(azoth_commit(t, NULL, &err) == 0, err.message);
        azoth_txn_free(t);
    }
}

void bench_read_rows(void)
{
    if (!bench_wants("8a") && !bench_wants("8b") && !bench_wants("9"))
        return;
    struct harness h;
    struct floor *raw;
    bench_begin(&h);
    raw = raw_open(h.dir);
    raw_fill(raw, LOAD_PAIR, BENCH_KEYS);
    struct azoth *db = load_open_embedded(h.dir);
    load_fill(db, BENCH_KEYS);
    if (bench_wants("8a")) {
        struct bench_row *r =
            bench_row("8a", "get, a snapshot a call / mdb_get, renew a call", "/s", 0.85);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = get_each(db);
            bench_pair(r, product, raw_get(raw, 1));
        }
    }
    if (bench_wants("8b")) {
        struct bench_row *r =
            bench_row("8b", "get within one snapshot / mdb_get in one transaction", "/s", 0.85);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = get_within(db);
            bench_pair(r, product, raw_get(raw, 0));
        }
    }
    if (bench_wants("9")) {
        fill_events(db);
        raw_fill(raw, LOAD_EVENTS, EVENTS);
        struct bench_row *r =
            bench_row("9", "events through the API / cursor and checksum", "/s", 0.60);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = iterate(db);
            bench_pair(r, product, raw_iterate(raw));
        }
    }
    azoth_close(db);
    floor_close(raw);
    harness_end(&h);
}
