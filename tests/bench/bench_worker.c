/*
 * bench_worker.c - transactions per second through worker processes, beside an embedded client.
 *
 *   bench_worker [ROUNDS [MILLISECONDS [SYNC]]]       default 5 rounds of 1000 ms, "full"
 *
 * Each transaction is a transfer: a requirement, two additions, an event, a request id. 64 are in
 * flight: from one client through two azoth-worker processes (tpl, JSON), or by azoth_submit in an
 * embedded database. The rows run in turn, in every round: a machine's speed drifts.
 */
#include "core/clock.h"
#include "core/error.h"
#include "core/reqrep.h"
#include "core/txn.h"
#include "core/wire.h"
#include "shm/gauges.h"
#include "tests/system/harness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLIGHT   64
#define WORKERS  2
#define ACCOUNTS 20000
#define ROWS     4
#define ROUNDS   51

static void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench_worker: %s\n", what);
    exit(1);
}

static uint64_t seed = 88172645463325252u;
static struct harness alone, served;

/* However it ends: no process and no directory stays. */
static void end_all(void)
{
    harness_end(&alone);
    harness_end(&served);
}

static void pick(uint64_t *state, char from[32], char to[32])
{
    uint64_t r = random_next(state);
    snprintf(from, 32, "acct/%llu", (unsigned long long)(r % ACCOUNTS));
    /* Another one: JSON refuses a member that is there twice. */
    snprintf(to, 32, "acct/%llu",
             (unsigned long long)((r + 1 + (r >> 32) % (ACCOUNTS - 1)) % ACCOUNTS));
}

/* ---- through workers ---- */

struct client {
    char endpoint[300];
    int json;
    uint64_t state;
    uint64_t until_ns;
    uint64_t answered, refused;
};

static void tpl_request(struct buf *out, struct client *c)
{
    static _Thread_local struct txn_builder b;
    struct azoth_error err;
    char from[32], to[32];
    unsigned char n[8];
    uint64_t id[2] = {random_next(&c->state), random_next(&c->state)};
    pick(&c->state, from, to);
    txn_builder_clear(&b);
    struct azoth_value v = {AZOTH_TYPE_I64, {n, 8}};
    put_u64(n, (uint64_t)-1000000000);
    must(!txn_add_value(&b, TXN_REQUIRE_MIN, bytes_str(from), v, &err), "min");
    put_u64(n, (uint64_t)-1);
    must(!txn_add_value(&b, TXN_ADD, bytes_str(from), v, &err), "add");
    put_u64(n, 1);
    must(!txn_add_value(&b, TXN_ADD, bytes_str(to), v, &err), "add");
    struct azoth_bytes none = {NULL, 0};
    must(!txn_add_event(&b, bytes_str("transferred"), none, none,
                        bytes_str("{\"amount\":1,\"from\":1,\"to\":2}"), &err),
         "event");
    struct wire_request r = {.kind = WIRE_TX, .deadline_ms = 30000, .limit = 1};
    r.id = bytes_of(id, sizeof id);
    r.body = txn_image(&b);
    buf_clear(out);
    must(!wire_request_encode(out, &r), "encode");
}

static void json_request(struct buf *out, struct client *c)
{
    char from[32], to[32];
    pick(&c->state, from, to);
    buf_clear(out);
    must(!buf_addf(out,
                   "{\"id\":\"%016llx%016llx\",\"deadline_ms\":30000,"
                   "\"require\":[{\"key\":\"%s\",\"min\":-1000000000}],"
                   "\"add\":{\"%s\":-1,\"%s\":1},\"events\":[{\"type\":\"transferred\","
                   "\"data\":{\"amount\":1,\"from\":1,\"to\":2}}]}",
                   (unsigned long long)random_next(&c->state),
                   (unsigned long long)random_next(&c->state), from, from, to),
         "encode");
}

static int answer_ok(const struct client *c, struct azoth_bytes m)
{
    struct wire_answer a;
    struct azoth_error err;
    if (c->json)
        return m.len > 10 && memcmp(m.ptr, "{\"ok\":true", 10) == 0;
    return wire_answer_decode(m, &a, &err) == 0 && a.code == 0;
}

/* Keeps its share of FLIGHT requests under way until the time is over, then collects the rest. */
static void *client_main(void *arg)
{
    struct client *c = arg;
    struct buf out = {0};
    struct reqrep *s;
    struct azoth_error err = {0};
    struct azoth_bytes m;
    uint32_t n = 0, got, in_flight = 0;
    must(!reqrep_connect(c->endpoint, &s, &err), err.message);
    for (;;) {
        int more = clock_mono_ns() < c->until_ns;
        while (more && in_flight < FLIGHT / WORKERS) {
            (c->json ? json_request : tpl_request)(&out, c);
            must(!reqrep_request(s, ++n, buf_bytes(&out), 10000, &err), err.message);
            in_flight++;
        }
        if (!in_flight)
            break;
        must(reqrep_collect(s, 30000, &got, &m, &err) == 1, "no answer");
        do {
            c->answered++;
            c->refused += !answer_ok(c, m);
            in_flight--;
            reqrep_release(m);
        } while (in_flight && reqrep_collect(s, 0, &got, &m, &err) == 1);
    }
    reqrep_close(s);
    buf_fini(&out);
    return NULL;
}

static double through_workers(struct harness *h, int json, uint64_t slice_ns)
{
    struct client c[WORKERS] = {{.json = json}, {.json = json}};
    pthread_t thread[WORKERS];
    uint64_t began = clock_mono_ns(), answered = 0;
    for (int i = 0; i < WORKERS; i++) {
        snprintf(c[i].endpoint, sizeof c[i].endpoint, "ipc://%.200s/run/worker-%d.sock", h->dir,
                 i + 1);
        c[i].state = random_next(&seed);
        c[i].until_ns = began + slice_ns;
        must(!pthread_create(&thread[i], NULL, client_main, &c[i]), "thread");
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(thread[i], NULL);
        answered += c[i].answered;
        must(c[i].refused == 0, "a transfer was refused");
    }
    return (double)answered * 1e9 / (double)(clock_mono_ns() - began);
}

/* ---- embedded ---- */

static uint64_t embedded_done;

static void on_done(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                    const struct azoth_error *err, void *arg)
{
    (void)info;
    (void)arg;
    must(code == 0, err ? err->message : "refused");
    embedded_done++;
    azoth_txn_free(t);
}

static void transfer_append(struct azoth_txn *t)
{
    char from[32], to[32];
    pick(&seed, from, to);
    azoth_require_min_i64(t, azoth_str(from), -1000000000);
    azoth_add_i64(t, azoth_str(from), -1);
    azoth_add_i64(t, azoth_str(to), 1);
    azoth_event_bytes(t, "transferred", AZOTH_STR("{\"amount\":1,\"from\":1,\"to\":2}"));
}

static double embedded(struct azoth *db, uint64_t slice_ns)
{
    struct azoth_error err = {0};
    uint64_t began = clock_mono_ns();
    embedded_done = 0;
    while (clock_mono_ns() < began + slice_ns || azoth_in_flight(db)) {
        int more = clock_mono_ns() < began + slice_ns;
        while (more && azoth_in_flight(db) < FLIGHT) {
            struct azoth_txn *t = azoth_txn_new(db);
            must(t != NULL, "memory");
            transfer_append(t);
            must(!azoth_submit(t, on_done, NULL, &err), err.message);
        }
        azoth_poll(db, 100);
    }
    return (double)embedded_done * 1e9 / (double)(clock_mono_ns() - began);
}

/* One at a time: what a single caller that waits for each commit gets. */
static double embedded_single(struct azoth *db, uint64_t slice_ns)
{
    struct azoth_error err = {0};
    struct azoth_txn *t = azoth_txn_new(db);
    uint64_t began = clock_mono_ns(), done = 0;
    must(t != NULL, "memory");
    for (; clock_mono_ns() < began + slice_ns; done++) {
        transfer_append(t);
        must(!azoth_commit(t, NULL, &err), err.message);
        azoth_txn_reset(t);
    }
    azoth_txn_free(t);
    return (double)done * 1e9 / (double)(clock_mono_ns() - began);
}

/* ---- the table ---- */

/* Transactions and commits of the served database so far. */
static void count(uint64_t *ret_transactions, uint64_t *ret_commits)
{
    struct segment_name name;
    struct gauges *g;
    struct azoth_error err = {0};
    must(!segment_name_of(served.dir, &name, &err), err.message);
    must(!gauges_attach(&name, 0, &g, &err), err.message);
    *ret_transactions = gauge_get(&g->g->transactions);
    *ret_commits = gauge_get(&g->g->commits);
    gauges_detach(g);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v, int n)
{
    double s[ROUNDS];
    memcpy(s, v, (size_t)n * sizeof *s);
    qsort(s, (size_t)n, sizeof *s, by_size);
    return s[n / 2];
}

/* All accounts with 0, so that each transfer finds both. */
static void open_accounts(struct azoth *db)
{
    struct azoth_error err = {0};
    struct azoth_txn *t = azoth_txn_new(db);
    must(t != NULL, "memory");
    for (int i = 0; i < ACCOUNTS; i++) {
        char key[32];
        snprintf(key, sizeof key, "acct/%d", i);
        azoth_set_i64(t, azoth_str(key), 0);
        if (i % 5000 == 4999) {
            must(!azoth_commit(t, NULL, &err), err.message);
            azoth_txn_reset(t);
        }
    }
    azoth_txn_free(t);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    uint64_t slice_ns = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1000) * NS_PER_MS;
    const char *sync = argc > 3 ? argv[3] : "full";
    must(rounds >= 1 && rounds <= ROUNDS, "1 to 51 rounds");
    struct azoth_error err = {0};
    harness_begin(&served);
    harness_begin(&alone);
    atexit(end_all);
    harness_start(&served, "writer", 1, "azoth-writer", "--dir", served.dir, "--writer-sync", sync,
                  NULL);
    harness_start(&served, "worker-1", 1, "azoth-worker", "--dir", served.dir, "--name", "1", NULL);
    harness_start(&served, "worker-2", 1, "azoth-worker", "--dir", served.dir, "--name", "2", NULL);
    struct azoth *db = harness_attach(&served, 20000);
    must(db != NULL, "attach");
    open_accounts(db);
    azoth_close(db);
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = sync, .deadline_ms = 30000};
    must(!azoth_open(alone.dir, &o, &db, &err), err.message);
    open_accounts(db);
    double rate[ROWS][ROUNDS];
    uint64_t transactions, commits, transactions_before, commits_before;
    count(&transactions_before, &commits_before);
    for (int i = 0; i < rounds; i++) {
        rate[0][i] = embedded_single(db, slice_ns);
        rate[1][i] = through_workers(&served, 0, slice_ns);
        rate[2][i] = through_workers(&served, 1, slice_ns);
        rate[3][i] = embedded(db, slice_ns);
    }
    count(&transactions, &commits);
    azoth_close(db);
    static const char *const names[ROWS] = {"embedded, one at a time", "2 workers, tpl, 64",
                                            "2 workers, JSON, 64", "embedded, 64"};
    printf("sync %s, median of %d rounds\n", sync, rounds);
    for (int r = 0; r < ROWS; r++)
        printf("%-24s %9.0f transactions/s  %5.2f\n", names[r], median(rate[r], rounds),
               median(rate[r], rounds) / median(rate[0], rounds));
    printf("through workers: %.1f transactions a commit\n",
           (double)(transactions - transactions_before) / (double)(commits - commits_before + 1));
    return 0;
}
