/*
 * growth.c - what growth costs: a database of 10 million events and 1 million keys beside a small one
 * (a tenth of the keys, as many events).
 *
 *   g1 to g4  one client (g1), 64 in flight (g2), get (g3), one of the newest events (g4): the factor
 *             that the product loses from small to large, beside the factor that raw LMDB loses
 *   g5, g6    opening the large database; its writer killed and started again; beside 100 ms
 *   g7        memory of writer, worker, feed and projector while the 10 million events run through
 *             them: in the last two fifths of the way beside the first two
 *
 * The large database is made by the run of g7: through a worker, with feed and projector behind it.
 */
#include "client/cmd/bench_load.h"
#include "core/clock.h"
#include "tests/bench/bench.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIFTHS      5
#define PROCESSES   4
#define ACCOUNTS    10000 /* SQLite has them all in its cache early: what grows then is no cache */
#define OPEN_US     100000.0
#define BATCH       1000
#define LOSS_REACH  1.15
#define FLAT_REACH  1.10
#define PAYLOAD_MAX 128

struct size {
    struct harness h;
    struct azoth *db;
    struct floor *floor;
    struct bench_load load;
    uint64_t events;
};

static struct size small, large;
static uint64_t seed = 88172645463325252u;

static const char definition[] =
    "-- azoth: projection accounts\n"
    "-- azoth: migration 1 create\n"
    "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL);\n"
    "-- azoth: on deposited\n"
    "INSERT INTO accounts VALUES (:account, :amount)"
    " ON CONFLICT (account) DO UPDATE SET balance = balance + excluded.balance;\n";

static void ok(int rc, const struct azoth_error *err)
{
    must(rc == 0, err->message);
}

static struct azoth_bytes movement(uint64_t account, uint64_t r, char out[PAYLOAD_MAX])
{
    int n = snprintf(out, PAYLOAD_MAX,
                     "{\"account\":%" PRIu64 ",\"amount\":%" PRIu64
                     ",\"channel\":\"atm\",\"reference\":\"R%016" PRIx64 "\"}",
                     account, r >> 32 & 1023, r);
    return (struct azoth_bytes){out, (size_t)n};
}

/* ---- making them ---- */

/* Anonymous memory of a process in KiB: the page cache and the mapped store apart. */
static double anonymous_kib(const struct process *p)
{
    char path[64], line[200];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)p->pid);
    FILE *f = fopen(path, "r");
    must(f != NULL, path);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %lf", &kib) == 1)
            break;
    fclose(f);
    must(kib > 0, "a process has no RssAnon");
    return kib;
}

/* BATCH events to a transaction, each about one account; every key is set by the first of them. */
static void fill_batch(struct azoth_txn *t, const struct size *s, uint64_t from, uint64_t to)
{
    char key[32], value[BENCH_VALUE], payload[PAYLOAD_MAX];
    memset(value, 'x', sizeof value);
    azoth_txn_reset(t);
    for (uint64_t i = from; i < from + BATCH && i < to; i++) {
        uint64_t r = bench_load_random(&seed);
        if (i < s->load.keys)
            azoth_set_bytes(t, bench_load_key(LOAD_PAIR, i, key),
                            (struct azoth_bytes){value, sizeof value});
        azoth_event_bytes(t, "deposited", movement(r % ACCOUNTS, r, payload));
    }
}

/* Keeps a few transactions in flight. */
struct filling {
    struct azoth_txn *idle[8];
    int len;
};

static void filled(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                   const struct azoth_error *err, void *arg)
{
    struct filling *f = arg;
    (void)info;
    ok(code, err);
    f->idle[f->len++] = t;
}

static void fill_part(struct azoth *db, const struct size *s, uint64_t from, uint64_t to)
{
    struct filling f = {.len = 8};
    struct azoth_error err = {0};
    for (int i = 0; i < f.len; i++)
        must((f.idle[i] = azoth_txn_new(db)) != NULL, "out of memory");
    for (uint64_t i = from; i < to; i += BATCH) {
        while (f.len == 0)
            azoth_poll(db, 1000);
        struct azoth_txn *t = f.idle[--f.len];
        fill_batch(t, s, i, to);
        ok(azoth_submit(t, filled, &f, &err), &err);
    }
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
    while (f.len > 0)
        azoth_txn_free(f.idle[--f.len]);
}

static void fill_floor(struct size *s)
{
    struct bench_load keys = s->load, events = {.kind = LOAD_EVENTS,
                                                .keys = s->events - s->load.keys,
                                                .value_bytes = LOAD_VALUE};
    struct azoth_error err = {0};
    char raw[300];
    snprintf(raw, sizeof raw, "%s/raw", s->h.dir);
    ok(floor_open(raw, &s->floor, &err), &err);
    ok(bench_load_fill_floor(s->floor, &keys, NULL, &err), &err);
    ok(bench_load_fill_floor(s->floor, &events, NULL, &err), &err);
}

static void stop_all(struct size *s)
{
    for (int i = s->h.processes; i-- > 0;)
        must(harness_stop(&s->h, &s->h.process[i]) == 0, s->h.process[i].name);
}

/* Waits until the projector has applied every event: it is asked by its file. */
static void await_projection(const struct size *s)
{
    char azoth[300], dir[280];
    static char out[65536];
    snprintf(azoth, sizeof azoth, "%s/azoth", s->h.build);
    snprintf(dir, sizeof dir, "%s", s->h.dir);
    char *argv[] = {azoth, "lag", "--dir", dir, "--wait", "--timeout", "600", NULL};
    must(harness_run(out, sizeof out, argv) == 0, "the projector does not follow");
}

static double greater(double a, double b)
{
    return a > b ? a : b;
}

static double lesser(double a, double b)
{
    return a < b ? a : b;
}

/* Makes the large database through all the processes; prints and judges their memory. */
static void make_large(struct size *s)
{
    char path[400], endpoint[300];
    struct azoth_options o = {.deadline_ms = 60000};
    struct azoth_error err = {0};
    struct azoth *remote;
    double kib[FIFTHS + 1][PROCESSES];
    snprintf(path, sizeof path, "%s/projections/%s.sql", s->h.dir, "accounts");
    FILE *f = fopen(path, "w");
    must(f && fputs(definition, f) != EOF && fclose(f) == 0, path);
    harness_start(&s->h, "writer", 0, "azoth-writer", "--dir", s->h.dir, NULL);
    harness_start(&s->h, "worker", 0, "azoth-worker", "--dir", s->h.dir, "--name", "1", NULL);
    harness_start(&s->h, "feed", 0, "azoth-feed", "--dir", s->h.dir, NULL);
    harness_start(&s->h, "projector", 0, "azoth-projector", "--dir", s->h.dir, "accounts", NULL);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/run/worker-1.sock", s->h.dir);
    must(harness_answers(endpoint), "the worker does not answer");
    ok(azoth_connect(endpoint, &o, &remote, &err), &err);
    for (int part = 0; part < FIFTHS; part++) {
        uint64_t from = s->events / FIFTHS * (uint64_t)part;
        uint64_t to = part == FIFTHS - 1 ? s->events : s->events / FIFTHS * (uint64_t)(part + 1);
        fill_part(remote, s, from, to);
        await_projection(s);
        fprintf(stderr, "%llu events:", (unsigned long long)to);
        for (int i = 0; i < PROCESSES; i++) {
            kib[part][i] = anonymous_kib(&s->h.process[i]);
            fprintf(stderr, " %s %.1f MiB", s->h.process[i].name, kib[part][i] / 1024);
        }
        fprintf(stderr, "\n");
    }
    azoth_close(remote);
    static const char *const rows[PROCESSES][2] = {
        {"g7a", "memory of the writer: last two fifths / first two"},
        {"g7b", "memory of the worker: last two fifths / first two"},
        {"g7c", "memory of the feed: last two fifths / first two"},
        {"g7d", "memory of the projector: last two fifths / first two"}};
    for (int i = 0; i < PROCESSES; i++) {
        struct bench_row *r = bench_row(rows[i][0], rows[i][1], "KiB", FLAT_REACH);
        r->lower_is_better = 1;
        /* What a request needs comes and goes, what leaks stays: of the last two looks the lesser. */
        bench_pair(r, lesser(kib[FIFTHS - 2][i], kib[FIFTHS - 1][i]),
                   greater(kib[0][i], kib[1][i]));
    }
    stop_all(s);
}

static void make_small(struct size *s)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .deadline_ms = 60000};
    struct azoth_error err = {0};
    ok(azoth_open(s->h.dir, &o, &s->db, &err), &err);
    fill_part(s->db, s, 0, s->events);
    azoth_close(s->db);
    s->db = NULL;
}

/* ---- opening and restarting ---- */

static double open_us(void)
{
    struct azoth_options o = {.flags = AZOTH_READ_ONLY};
    struct azoth_error err = {0};
    struct azoth *db;
    uint64_t from = clock_mono_ns();
    ok(azoth_open(large.h.dir, &o, &db, &err), &err);
    double us = (double)(clock_mono_ns() - from) / 1e3;
    azoth_close(db);
    return us;
}

/* From the start of the process to an answered transaction, after the last one was killed. */
static double restart_us(struct process *writer, struct azoth *db)
{
    struct azoth_error err = {0};
    struct azoth_txn *t = azoth_txn_new(db);
    harness_kill(writer, SIGKILL);
    harness_wait(&large.h, writer, 10000);
    must(t != NULL, "out of memory");
    azoth_event_bytes(t, LOAD_EVENT_TYPE, AZOTH_STR("after a restart"));
    uint64_t from = clock_mono_ns();
    harness_spawn(&large.h, writer);
    ok(azoth_commit(t, NULL, &err), &err);
    double us = (double)(clock_mono_ns() - from) / 1e3;
    azoth_txn_free(t);
    return us;
}

static void rows_opening(void)
{
    struct bench_row *r = bench_row("g5", "opening the large database / 100 ms", "us", 1.0);
    r->lower_is_better = 1;
    for (int i = 0; i < bench_pairs(); i++)
        bench_pair(r, open_us(), OPEN_US);
    r = bench_row("g6", "writer killed, started again, first answer / 100 ms", "us", 1.0);
    r->lower_is_better = 1;
    struct process *w =
        harness_start(&large.h, "writer", 0, "azoth-writer", "--dir", large.h.dir, NULL);
    struct azoth *db = harness_attach(&large.h, 60000);
    must(db != NULL, "attach");
    for (int i = 0; i < bench_pairs(); i++)
        bench_pair(r, restart_us(w, db), OPEN_US);
    azoth_close(db);
    must(harness_stop(&large.h, w) == 0, "the writer");
}

/* ---- losses ---- */

typedef double (*size_measure)(struct size *s, int by_hand);

static double write_rate(struct size *s, int by_hand, uint32_t n)
{
    struct azoth_error err = {0};
    double rate = 0;
    ok(by_hand ? bench_load_floor(s->floor, &s->load, n, BENCH_SLICE_NS, NULL, &rate, &err)
               : bench_load_product(s->db, &s->load, n, BENCH_SLICE_NS, NULL, &rate, &err),
       &err);
    return rate;
}

static double one_rate(struct size *s, int by_hand)
{
    return write_rate(s, by_hand, 1);
}

static double many_rate(struct size *s, int by_hand)
{
    return write_rate(s, by_hand, 64);
}

static double get_rate(struct size *s, int by_hand)
{
    struct azoth_error err = {0};
    struct azoth_buffer buf = {0};
    struct azoth_entry e;
    char key[32], copy[512];
    size_t len;
    uint64_t from = clock_mono_ns(), end = from + BENCH_SLICE_NS / 2, n = 0;
    for (; clock_mono_ns() < end; n++) {
        struct azoth_bytes k =
            bench_load_key(LOAD_PAIR, bench_load_random(&s->load.seed) % s->load.keys, key);
        if (!by_hand) {
            ok(azoth_get(s->db, k, &buf, &e, &err), &err);
            continue;
        }
        ok(floor_read(s->floor, &err), &err);
        ok(floor_get(s->floor, k, copy, sizeof copy, &len, &err), &err);
        floor_unread(s->floor);
    }
    free(buf.ptr);
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

/* One event among the newest thousand, found by its id. */
static double tail_rate(struct size *s, int by_hand)
{
    struct azoth_error err = {0};
    struct azoth_events *it;
    struct azoth_event ev;
    uint64_t from = clock_mono_ns(), end = from + BENCH_SLICE_NS / 2, n = 0, bytes;
    uint64_t tail = s->events < 1000 ? s->events : 1000;
    for (; clock_mono_ns() < end; n++) {
        uint64_t id = s->events - bench_load_random(&s->load.seed) % tail;
        if (!by_hand) {
            ok(azoth_events(s->db, id, id + 1, NULL, &it, &err), &err);
            must(azoth_events_next(it, &ev, &err) == 1 && ev.id == id, "the event");
            azoth_events_free(it);
            continue;
        }
        ok(floor_read(s->floor, &err), &err);
        ok(floor_events(s->floor, id, id, &bytes, &err), &err);
        floor_unread(s->floor);
    }
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

static void row_loss(const char *row, const char *name, size_measure measure)
{
    static const char *const what[] = {"product, small", "product, large", "by hand, small",
                                       "by hand, large"};
    double rate[4][BENCH_PAIRS_MAX];
    struct bench_row *r = bench_row(row, name, "x", LOSS_REACH);
    r->lower_is_better = 1;
    for (int i = 0; i < bench_pairs(); i++) {
        rate[0][i] = measure(&small, 0);
        rate[1][i] = measure(&large, 0);
        rate[2][i] = measure(&small, 1);
        rate[3][i] = measure(&large, 1);
        bench_pair(r, rate[0][i] / rate[1][i], rate[2][i] / rate[3][i]);
    }
    for (int i = 0; i < 4; i++)
        fprintf(stderr, "     %s: %.0f/s\n", what[i], bench_quantile(rate[i], bench_pairs(), 0.5));
}

static void rows_losses(void)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .deadline_ms = 60000};
    struct azoth_error err = {0};
    fill_floor(&small);
    fill_floor(&large);
    ok(azoth_open(small.h.dir, &o, &small.db, &err), &err);
    ok(azoth_open(large.h.dir, &o, &large.db, &err), &err);
    row_loss("g3", "get: the product's loss / raw LMDB's", get_rate);
    row_loss("g4", "one of the newest events: the product's loss / raw LMDB's", tail_rate);
    row_loss("g1", "state + event, one client: the product's loss / raw LMDB's", one_rate);
    row_loss("g2", "state + event, 64 in flight: the product's loss / raw LMDB's", many_rate);
    azoth_close(small.db);
    azoth_close(large.db);
    floor_close(small.floor);
    floor_close(large.floor);
}

void bench_growth_rows(uint64_t events)
{
    uint64_t keys = events / 10;
    bench_begin(&small.h);
    bench_begin(&large.h);
    large.events = events;
    large.load = (struct bench_load){
        .kind = LOAD_PAIR, .keys = keys, .value_bytes = LOAD_VALUE, .seed = seed};
    small.events = keys / 10;
    small.load = (struct bench_load){
        .kind = LOAD_PAIR, .keys = keys / 10, .value_bytes = LOAD_VALUE, .seed = seed};
    make_large(&large);
    rows_opening();
    make_small(&small);
    rows_losses();
    harness_end(&small.h);
    harness_end(&large.h);
}
