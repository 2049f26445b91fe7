/*
 * bench_azoth.c - the product beside its floor, in the same run on the same disk.
 *
 * Each row runs product and floor in turn for a fraction of a second, several times, and prints the
 * medians and the median ratio of neighbours: a machine's speed drifts, ratios of neighbours do not.
 * The floor writes records of the product's size under keys of the product's order.
 *
 *   bench_azoth [PAIRS] [ROW ...]     rows a to f; a table, and build/bench.json
 */
#include "core/clock.h"
#include "core/record.h"
#include "projector/table.h"
#include "tests/system/harness.h"

#include <jansson.h>
#include <lmdb.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEYS      100000
#define VALUE     100
#define SLICE_NS  (400 * NS_PER_MS)
#define PAIRS_MAX 101

static int pairs = 7;
static uint64_t seed = 88172645463325252u;
static char value[VALUE];

static void must(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench: %s\n", what);
        exit(1);
    }
}

static struct azoth_bytes key_of(char out[24], uint64_t i)
{
    int n = snprintf(out, 24, "acct/%011llu", (unsigned long long)i);
    return (struct azoth_bytes){out, (size_t)n};
}

/* ---- results ---- */

struct row {
    char name;
    const char *what;
    double product[PAIRS_MAX], floor[PAIRS_MAX];
    int n;
    double reach, least_rate; /* of the ratio; of the product's rate */
};
static struct row rows[8];
static int rows_len;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *v, int n, double q)
{
    double s[PAIRS_MAX];
    memcpy(s, v, (size_t)n * sizeof *s);
    qsort(s, (size_t)n, sizeof *s, by_size);
    int i = (int)(q * (n - 1) + 0.5);
    return s[i];
}

static double row_ratio(const struct row *r, double q)
{
    double ratio[PAIRS_MAX];
    for (int i = 0; i < r->n; i++)
        ratio[i] = r->floor[i] > 0 ? r->product[i] / r->floor[i] : 0;
    return quantile(ratio, r->n, q);
}

static int row_met(const struct row *r)
{
    return row_ratio(r, 0.5) >= r->reach && quantile(r->product, r->n, 0.5) >= r->least_rate;
}

static struct row *row_new(char name, const char *what, double reach, double least_rate)
{
    struct row *r = &rows[rows_len++];
    *r = (struct row){.name = name, .what = what, .reach = reach, .least_rate = least_rate};
    fprintf(stderr, "%c %s\n", name, what);
    return r;
}

/* ---- raw LMDB ---- */

struct raw {
    char dir[300];
    MDB_env *env;
    MDB_dbi state, events;
    uint64_t next;
};

static void raw_open(struct raw *r, const char *dir)
{
    MDB_txn *t;
    snprintf(r->dir, sizeof r->dir, "%s/raw", dir);
    mkdir(r->dir, 0700);
    must(!mdb_env_create(&r->env) && !mdb_env_set_maxdbs(r->env, 4) &&
             !mdb_env_set_mapsize(r->env, 1ull << 38) &&
             !mdb_env_open(r->env, r->dir, MDB_NOTLS, 0600) &&
             !mdb_txn_begin(r->env, NULL, 0, &t) &&
             !mdb_dbi_open(t, "state", MDB_CREATE, &r->state) &&
             !mdb_dbi_open(t, "events", MDB_CREATE, &r->events) && !mdb_txn_commit(t),
         "raw LMDB");
    r->next = 1;
}

static void raw_put(struct raw *r, MDB_txn *t, const char *key, size_t key_len)
{
    char state[RECORD_STATE_HEADER + VALUE], event[RECORD_EVENT_HEADER + 9 + VALUE];
    memset(state, 1, sizeof state);
    memset(event, 2, sizeof event);
    unsigned char id[8];
    put_be64(id, r->next++);
    MDB_val k = {key_len, (void *)(uintptr_t)key}, v = {sizeof state, state}, ek = {8, id},
            ev = {sizeof event, event};
    must(!mdb_put(t, r->state, &k, &v, 0) && !mdb_put(t, r->events, &ek, &ev, MDB_APPEND),
         "raw put");
}

static double raw_pairs(struct raw *r, int batch)
{
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < SLICE_NS) {
        MDB_txn *t;
        must(!mdb_txn_begin(r->env, NULL, 0, &t), "raw begin");
        for (int i = 0; i < batch; i++, n++) {
            char key[24];
            struct azoth_bytes k = key_of(key, random_next(&seed) % KEYS);
            raw_put(r, t, k.ptr, k.len);
        }
        must(!mdb_txn_commit(t), "raw commit");
    }
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

static void raw_fill(struct raw *r)
{
    MDB_txn *t;
    must(!mdb_txn_begin(r->env, NULL, 0, &t), "raw begin");
    for (uint64_t i = 0; i < KEYS; i++) {
        char key[24];
        struct azoth_bytes k = key_of(key, i);
        raw_put(r, t, k.ptr, k.len);
    }
    must(!mdb_txn_commit(t), "raw commit");
}

/* ---- the product ---- */

static void fill_pair(struct azoth_txn *t)
{
    char key[24];
    azoth_txn_reset(t);
    azoth_set_bytes(t, key_of(key, random_next(&seed) % KEYS), (struct azoth_bytes){value, VALUE});
    azoth_event_bytes(t, "deposited", (struct azoth_bytes){value, VALUE});
}

static double product_single(struct azoth *db)
{
    struct azoth_txn *t = azoth_txn_new(db);
    struct azoth_error err;
    uint64_t from = clock_mono_ns(), n = 0;
    for (; clock_mono_ns() - from < SLICE_NS; n++) {
        fill_pair(t);
        must(azoth_commit(t, NULL, &err) == 0, err.message);
    }
    azoth_txn_free(t);
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
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

static double product_flight(struct azoth *db, int in_flight)
{
    struct flight f = {.len = 0};
    struct azoth_error err;
    for (int i = 0; i < in_flight; i++)
        f.idle[f.len++] = azoth_txn_new(db);
    uint64_t from = clock_mono_ns();
    while (clock_mono_ns() - from < SLICE_NS) {
        while (f.len > 0) {
            struct azoth_txn *t = f.idle[--f.len];
            fill_pair(t);
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

static void fill_keys(struct azoth *db)
{
    struct azoth_error err;
    for (uint64_t i = 0; i < KEYS;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int k = 0; k < 1000 && i < KEYS; k++, i++) {
            char key[24];
            azoth_set_bytes(t, key_of(key, i), (struct azoth_bytes){value, VALUE});
            azoth_event_bytes(t, "deposited", (struct azoth_bytes){value, VALUE});
        }
        must(azoth_commit(t, NULL, &err) == 0, err.message);
        azoth_txn_free(t);
    }
}

static struct azoth *open_embedded(struct harness *h)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .deadline_ms = 60000};
    struct azoth *db;
    struct azoth_error err;
    must(azoth_open(h->dir, &o, &db, &err) == 0, err.message);
    return db;
}

/* ---- rows a, b, d: embedded ---- */

static double get_product(struct azoth *db)
{
    struct azoth_buffer buf = {0};
    struct azoth_entry e;
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < SLICE_NS / 2)
        for (int i = 0; i < 1000; i++, n++) {
            char key[24];
            must(azoth_get(db, key_of(key, random_next(&seed) % KEYS), &buf, &e, NULL) == 0, "get");
        }
    free(buf.ptr);
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

static double get_floor(struct raw *r)
{
    MDB_txn *t;
    char copy[512];
    must(!mdb_txn_begin(r->env, NULL, MDB_RDONLY, &t), "raw begin");
    mdb_txn_reset(t);
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < SLICE_NS / 2)
        for (int i = 0; i < 1000; i++, n++) {
            char key[24];
            struct azoth_bytes b = key_of(key, random_next(&seed) % KEYS);
            MDB_val k = {b.len, (void *)(uintptr_t)b.ptr}, v;
            must(!mdb_txn_renew(t) && !mdb_get(t, r->state, &k, &v), "raw get");
            memcpy(copy, v.mv_data, v.mv_size);
            mdb_txn_reset(t);
        }
    mdb_txn_abort(t);
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}

static void embedded_rows(const char *which)
{
    struct harness h;
    struct raw raw;
    harness_begin(&h);
    raw_open(&raw, h.dir);
    raw_fill(&raw);
    struct azoth *db = open_embedded(&h);
    fill_keys(db);
    if (strchr(which, 'a')) {
        struct row *r =
            row_new('a', "atomic state + event, one client, embedded / raw LMDB", 0.7, 0);
        for (; r->n < pairs; r->n++) {
            r->product[r->n] = product_single(db);
            r->floor[r->n] = raw_pairs(&raw, 1);
        }
    }
    if (strchr(which, 'b')) {
        struct row *r = row_new('b', "64 in flight, embedded / one client", 10, 0);
        for (; r->n < pairs; r->n++) {
            r->product[r->n] = product_flight(db, 64);
            r->floor[r->n] = product_single(db);
        }
        r = row_new('B', "64 in flight, embedded / raw LMDB, 64 pairs a transaction", 0, 0);
        for (; r->n < pairs; r->n++) {
            r->product[r->n] = product_flight(db, 64);
            r->floor[r->n] = raw_pairs(&raw, 64);
        }
    }
    if (strchr(which, 'd')) {
        struct row *r = row_new('d', "get, a snapshot a call / raw mdb_get, renew a call", 0.7, 0);
        for (; r->n < pairs; r->n++) {
            r->product[r->n] = get_product(db);
            r->floor[r->n] = get_floor(&raw);
        }
    }
    azoth_close(db);
    mdb_env_close(raw.env);
    harness_end(&h);
}

/* ---- row c: through workers ---- */

static void worker_row(void)
{
    struct harness h, e;
    harness_begin(&h);
    harness_begin(&e);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    harness_start(&h, "worker-1", 0, "azoth-worker", "--dir", h.dir, "--name", "1", NULL);
    harness_start(&h, "worker-2", 0, "azoth-worker", "--dir", h.dir, "--name", "2", NULL);
    char both[600];
    snprintf(both, sizeof both, "ipc://%s/run/worker-1.sock,ipc://%s/run/worker-2.sock", h.dir,
             h.dir);
    struct azoth *remote, *single = open_embedded(&e);
    struct azoth_error err;
    must(harness_answers(both), "workers answer");
    must(azoth_connect(both, NULL, &remote, &err) == 0, err.message);
    fill_keys(single);
    fill_keys(remote);
    struct row *r =
        row_new('c', "64 in flight through 2 workers, ids included / one client embedded", 5, 0);
    for (; r->n < pairs; r->n++) {
        r->product[r->n] = product_flight(remote, 64);
        r->floor[r->n] = product_single(single);
    }
    azoth_close(remote);
    azoth_close(single);
    harness_end(&e);
    harness_end(&h);
}

/* ---- row e: the feed ---- */

static void feed_row(void)
{
    struct harness h;
    harness_begin(&h);
    struct azoth *db = open_embedded(&h);
    struct azoth_error err;
    uint64_t events = 0;
    while (events < 1000000) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int i = 0; i < 10000; i++, events++)
            azoth_event_bytes(t, "deposited", (struct azoth_bytes){value, VALUE});
        must(azoth_commit(t, NULL, &err) == 0, err.message);
        azoth_txn_free(t);
    }
    azoth_close(db);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    struct row *r =
        row_new('e', "events a second to a discarding projector (floor: 500,000)", 1, 500000);
    for (; r->n < pairs; r->n++) {
        uint64_t from = clock_mono_ns();
        struct process *p = harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir,
                                          "--discard", "--once", "discard", NULL);
        must(harness_wait(&h, p, 60000) == 0, "the projector ended well");
        r->product[r->n] = (double)events * 1e9 / (double)(clock_mono_ns() - from);
        r->floor[r->n] = 500000;
    }
    harness_end(&h);
}

/* ---- row f: the projection ---- */

static const char bank_sql[] =
    "-- azoth: projection accounts\n-- azoth: migration 1 create\n"
    "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL, updated "
    "INTEGER);\n"
    "-- azoth: on deposited\n"
    "INSERT INTO accounts VALUES (:account, :amount, @time) ON CONFLICT (account) DO UPDATE SET "
    "balance = balance + excluded.balance, updated = excluded.updated;\n"
    "-- azoth: on withdrawn\n"
    "UPDATE accounts SET balance = balance - :amount, updated = @time WHERE account = :account;\n";

static void make_frames(struct buf *out, uint64_t first, int n)
{
    buf_clear(out);
    struct buf rec = {0};
    for (int i = 0; i < n; i++) {
        char json[80];
        int len = snprintf(json, sizeof json, "{\"account\":%d,\"amount\":%d}",
                           (int)(random_next(&seed) % KEYS), (int)(random_next(&seed) % 1000));
        struct event_record ev = {.id = first + (uint64_t)i,
                                  .txn = 1,
                                  .time_ns = 1700000000000000000,
                                  .type = i % 4 ? bytes_str("deposited") : bytes_str("withdrawn"),
                                  .payload = bytes_of(json, (size_t)len)};
        buf_clear(&rec);
        must(buf_grow(&rec, record_event_size(&ev)) != NULL, "memory");
        record_event_encode(rec.ptr, &ev);
        must(record_frame_add(out, ev.id, buf_bytes(&rec)) == 0, "memory");
    }
    buf_fini(&rec);
}

struct hand {
    sqlite3 *db;
    sqlite3_stmt *deposit, *withdraw, *begin, *commit, *cursor;
};

static void hand_open(struct hand *w, const char *dir)
{
    char path[400];
    snprintf(path, sizeof path, "%s/hand.db", dir);
    must(!sqlite3_open(path, &w->db), "sqlite");
    must(!sqlite3_exec(
             w->db,
             "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=4000;"
             "PRAGMA cache_size=-65536;"
             "CREATE TABLE c (id INTEGER PRIMARY KEY, cursor INTEGER); INSERT INTO c VALUES (1,0);"
             "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL, "
             "updated INTEGER)",
             NULL, NULL, NULL),
         "schema");
    const char *sql[] = {
        "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT (account) DO UPDATE SET "
        "balance = balance + excluded.balance, updated = excluded.updated",
        "UPDATE accounts SET balance = balance - ?2, updated = ?3 WHERE account = ?1",
        "BEGIN IMMEDIATE", "COMMIT", "UPDATE c SET cursor = ? WHERE id = 1"};
    sqlite3_stmt **to[] = {&w->deposit, &w->withdraw, &w->begin, &w->commit, &w->cursor};
    for (int i = 0; i < 5; i++)
        must(!sqlite3_prepare_v3(w->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, to[i], NULL),
             "prepare");
}

static void hand_step(sqlite3_stmt *s)
{
    must(sqlite3_step(s) == SQLITE_DONE, "step");
    sqlite3_reset(s);
}

static void hand_apply(struct hand *w, struct azoth_bytes frames)
{
    size_t at = 0;
    struct event_record ev;
    hand_step(w->begin);
    while (record_frame_next(frames, &at, &ev, NULL) == 1) {
        json_t *o = json_loadb(ev.payload.ptr, ev.payload.len, 0, NULL);
        sqlite3_stmt *s =
            ev.type.len == 9 && memcmp(ev.type.ptr, "deposited", 9) == 0 ? w->deposit : w->withdraw;
        sqlite3_bind_int64(s, 1, json_integer_value(json_object_get(o, "account")));
        sqlite3_bind_int64(s, 2, json_integer_value(json_object_get(o, "amount")));
        sqlite3_bind_int64(s, 3, ev.time_ns);
        hand_step(s);
        json_decref(o);
        sqlite3_bind_int64(w->cursor, 1, (int64_t)ev.id);
    }
    hand_step(w->cursor);
    hand_step(w->commit);
}

static void projection_row(void)
{
    struct harness h;
    harness_begin(&h);
    struct sqlfile def;
    struct table *t;
    struct azoth_error err;
    char dir[300];
    snprintf(dir, sizeof dir, "%s/projections", h.dir);
    must(sqlfile_parse("accounts.sql", bytes_str(bank_sql), &def, &err) == 0, err.message);
    struct table_options o = {.dir = dir, .shards = 1};
    must(table_open(&def, &o, &t, &err) == 0, err.message);
    struct hand w;
    hand_open(&w, h.dir);
    struct buf frames = {0};
    uint64_t next = 1;
    struct row *r =
        row_new('f', "bank projection / the same statements by hand, 1000 a transaction", 0.6, 0);
    for (int warm = 1; r->n < pairs;) {
        uint64_t product = 0, by_hand = 0, n = 0;
        for (int i = 0; i < 40; i++, n += 1000, next += 1000) {
            make_frames(&frames, next, 1000);
            uint64_t from = clock_mono_ns();
            must(table_apply(t, buf_bytes(&frames), next, next + 999, 1, &err) == 0, err.message);
            uint64_t mid = clock_mono_ns();
            hand_apply(&w, buf_bytes(&frames));
            product += mid - from;
            by_hand += clock_mono_ns() - mid;
        }
        if (warm-- > 0)
            continue; /* the first round fills the tables */
        r->product[r->n] = (double)n * 1e9 / (double)product;
        r->floor[r->n++] = (double)n * 1e9 / (double)by_hand;
    }
    buf_fini(&frames);
    table_close(t);
    sqlfile_fini(&def);
    sqlite3_stmt *all[] = {w.deposit, w.withdraw, w.begin, w.commit, w.cursor};
    for (int i = 0; i < 5; i++)
        sqlite3_finalize(all[i]);
    sqlite3_close(w.db);
    harness_end(&h);
}

/* ---- output ---- */

static int report(const char *build)
{
    char path[300];
    int missed = 0;
    snprintf(path, sizeof path, "%s/bench.json", build);
    FILE *f = fopen(path, "w");
    printf("\n%-3s %-66s %10s %10s %6s %13s %6s\n", "row", "product / floor", "product/s",
           "floor/s", "ratio", "quartiles", "reach");
    if (f)
        fputs("[", f);
    for (int i = 0; i < rows_len; i++) {
        const struct row *r = &rows[i];
        double ratio = row_ratio(r, 0.5), p = quantile(r->product, r->n, 0.5),
               fl = quantile(r->floor, r->n, 0.5);
        int met = row_met(r);
        missed += !met;
        printf("%-3c %-66s %10.0f %10.0f %6.2f %6.2f-%6.2f %6.2f%s\n", r->name, r->what, p, fl,
               ratio, row_ratio(r, 0.25), row_ratio(r, 0.75), r->reach, met ? "" : "  MISSED");
        if (f)
            fprintf(f,
                    "%s\n{\"row\":\"%c\",\"name\":\"%s\",\"product\":%.0f,\"floor\":%.0f,\"ratio\":"
                    "%.3f,"
                    "\"reach\":%.2f,\"met\":%s}",
                    i ? "," : "", r->name, r->what, p, fl, ratio, r->reach, met ? "true" : "false");
    }
    if (f) {
        fputs("\n]\n", f);
        fclose(f);
    }
    return missed;
}

int main(int argc, char **argv)
{
    const char *which = argc > 2 ? argv[2] : "abcdef";
    if (argc > 1)
        pairs = atoi(argv[1]);
    must(pairs >= 1 && pairs <= PAIRS_MAX, "1 to 101 pairs");
    memset(value, 'x', sizeof value);
    if (strpbrk(which, "abd"))
        embedded_rows(which);
    if (strchr(which, 'c'))
        worker_row();
    if (strchr(which, 'e'))
        feed_row();
    if (strchr(which, 'f'))
        projection_row();
    const char *build = getenv("AZOTH_BUILD");
    return report(build ? build : "build") ? 1 : 0;
}
