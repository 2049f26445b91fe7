/* chain.c - rows 7b to 7d: what the hash chain and redo records cost, beside the same without them. */
#include "client/internal.h"
#include "core/clock.h"
#include "core/mark.h"
#include "tests/bench/load.h"

#include <stdio.h>
#include <unistd.h>

/* A database of one's own: as a harness makes it, or without a chain. */
static struct azoth *begin(struct harness *h, int chain_off)
{
    char path[300];
    struct azoth_error err;
    bench_begin(h);
    if (chain_off) {
        snprintf(path, sizeof path, "%s/data.mdb", h->dir);
        must(unlink(path) == 0 && client_init(h->dir, 1, &err) == 0, "a database without a chain");
    }
    return load_open_embedded(h->dir);
}

static void finish(struct harness *h, struct azoth *db)
{
    azoth_close(db);
    harness_end(h);
}

static void set_mark(struct azoth *db)
{
    static const uint8_t place[MARK_PLACE] = {'b', 'e', 'n', 'c', 'h'};
    struct txn_result r;
    struct azoth_error err;
    must(client_control(db, "mark", bytes_of(place, sizeof place), clock_mono_ns() + 10 * NS_PER_S,
                        &r, &err) == 0,
         "a mark");
}

static void chain_row(struct azoth *with)
{
    struct harness h;
    struct azoth *without = begin(&h, 1);
    struct bench_row *r =
        bench_row("7b", "1000 events a transaction, hash chain on / off", "/s", 0.85);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = bench_append_events(with);
        bench_pair(r, product, bench_append_events(without));
    }
    finish(&h, without);
}

static void redo_rows(struct azoth *without)
{
    struct harness h;
    struct azoth *with = begin(&h, 0);
    load_fill(with, BENCH_KEYS);
    load_fill(without, BENCH_KEYS);
    set_mark(with);
    if (bench_wants("7c")) {
        struct bench_row *r =
            bench_row("7c", "1000 events a transaction, redo kept / not", "/s", 0);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = bench_append_events(with);
            bench_pair(r, product, bench_append_events(without));
        }
    }
    if (bench_wants("7d")) {
        struct bench_row *r = bench_row("7d", "64 in flight, redo kept / not", "/s", 0);
        for (int i = 0; i < bench_pairs(); i++) {
            double product = load_flight(with, 64, 1, BENCH_KEYS);
            bench_pair(r, product, load_flight(without, 64, 1, BENCH_KEYS));
        }
    }
    finish(&h, with);
}

void bench_chain_rows(void)
{
    struct harness h;
    if (!bench_wants("7b") && !bench_wants("7c") && !bench_wants("7d"))
        return;
    struct azoth *db = begin(&h, 0);
    if (bench_wants("7b"))
        chain_row(db);
    if (bench_wants("7c") || bench_wants("7d"))
        redo_rows(db);
    finish(&h, db);
}
