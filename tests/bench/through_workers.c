/* through_workers.c - rows 5 and 6: 64 transactions in flight through two worker processes. */
#include "tests/bench/load.h"
#include "tests/bench/raw.h"

#include <stdio.h>

/* The load's pair in JSON: a string of 100 bytes, and an event whose JSON text has 100. */
static void make_pair(struct buf *out)
{
    char id[33], key[24];
    load_json_id(id);
    struct azoth_bytes k = bench_key(key, bench_random() % BENCH_KEYS);
    must(!buf_addf(out,
                   "{\"id\":\"%s\",\"deadline_ms\":60000,\"set\":{\"%.*s\":\"%.*s\"},"
                   "\"events\":[{\"type\":\"deposited\",\"data\":\"%.*s\"}]}",
                   id, (int)k.len, key, (int)BENCH_VALUE, bench_value, (int)BENCH_VALUE - 2,
                   bench_value),
         "out of memory");
}

static void tpl_row(const char *both, struct floor *raw)
{
    struct azoth_options o = {.deadline_ms = 60000};
    struct azoth *remote;
    struct azoth_error err;
    must(azoth_connect(both, &o, &remote, &err) == 0, err.message);
    struct bench_row *r =
        bench_row("5", "64 in flight through 2 workers, tpl / raw LMDB, 64 pairs, ids", "/s", 0.50);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = load_flight(remote, 64, 1, BENCH_KEYS);
        bench_pair(r, product, raw_pairs(raw, 64, 1));
    }
    azoth_close(remote);
}

/* What many in flight gain over one at a time, in a process of its own. */
static void gain_row(const char *both)
{
    struct azoth_options o = {.deadline_ms = 60000};
    struct azoth *remote;
    struct azoth_error err;
    struct harness h;
    bench_begin(&h);
    struct azoth *single = load_open_embedded(h.dir);
    load_fill(single, BENCH_KEYS);
    must(azoth_connect(both, &o, &remote, &err) == 0, err.message);
    struct bench_row *r =
        bench_row("19", "64 in flight through 2 workers / 1 client, embedded", "/s", 5);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = load_flight(remote, 64, 1, BENCH_KEYS);
        bench_pair(r, product, load_single(single, BENCH_KEYS));
    }
    azoth_close(remote);
    azoth_close(single);
    harness_end(&h);
}

static void json_row(const char *const *endpoint, struct floor *raw)
{
    struct bench_row *r = bench_row(
        "6", "64 in flight through 2 workers, JSON / raw LMDB, 64 pairs, ids", "/s", 0.40);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = load_json(endpoint, 2, 64, make_pair);
        bench_pair(r, product, raw_pairs(raw, 64, 1));
    }
}

void bench_worker_rows(void)
{
    if (!bench_wants("5") && !bench_wants("6") && !bench_wants("19"))
        return;
    struct harness h;
    struct floor *raw;
    char one[400], two[400], both[801];
    bench_begin(&h);
    raw = raw_open(h.dir);
    raw_fill(raw, LOAD_PAIR, BENCH_KEYS);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = load_attach(h.dir);
    load_fill(db, BENCH_KEYS);
    azoth_close(db);
    load_worker(&h, "1", NULL, one);
    load_worker(&h, "2", NULL, two);
    snprintf(both, sizeof both, "%s,%s", one, two);
    if (bench_wants("5"))
        tpl_row(both, raw);
    if (bench_wants("6"))
        json_row((const char *const[]){one, two}, raw);
    if (bench_wants("19"))
        gain_row(both);
    floor_close(raw);
    harness_end(&h);
}
