/*
 * projection.c - rows 11, 15 and 20: what a projection, and its rebuild, cost beside SQLite used by hand, and how
 * soon a transaction is visible in it.
 */
#include "core/clock.h"
#include "core/record.h"
#include "projector/table.h"
#include "tests/bench/load.h"
#include "tests/bench/raw.h"

#include <jansson.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char accounts_sql[] =
    "-- azoth: projection accounts\n"
    "-- azoth: migration 1 create accounts\n"
    "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL,"
    " updated INTEGER NOT NULL);\n"
    "-- azoth: on opened\n"
    "INSERT INTO accounts VALUES (:account, :amount, @time);\n"
    "-- azoth: on transferred\n"
    "UPDATE accounts SET balance = balance - :amount, updated = @time WHERE account = :from;\n"
    "UPDATE accounts SET balance = balance + :amount, updated = @time WHERE account = :to;\n";

/* ---- SQLite by hand ---- */

struct hand {
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *cursor, *open, *pay, *take;
    int wal_pages, batches; /* since a checkpoint */
};

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s = NULL;
    must(!sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL), sqlite3_errmsg(db));
    return s;
}

static void step(struct hand *h, sqlite3_stmt *s)
{
    must(sqlite3_step(s) == SQLITE_DONE, sqlite3_errmsg(h->db));
    sqlite3_reset(s);
}

static int note_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((struct hand *)arg)->wal_pages = pages;
    return SQLITE_OK;
}

/* The settings of projector/tablefile.c. */
static void hand_open(struct hand *h, const char *dir)
{
    char path[400];
    memset(h, 0, sizeof *h);
    snprintf(path, sizeof path, "%s/hand.db", dir);
    must(!sqlite3_open_v2(path, &h->db,
                          SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL),
         path);
    must(!sqlite3_exec(h->db,
                       "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                       "PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -65536;"
                       "CREATE TABLE position (id INTEGER PRIMARY KEY, cursor INTEGER);"
                       "INSERT INTO position VALUES (1, 0);"
                       "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT"
                       " NULL, updated INTEGER NOT NULL);",
                       NULL, NULL, NULL),
         sqlite3_errmsg(h->db));
    sqlite3_wal_hook(h->db, note_wal, h);
    h->begin = prepare(h->db, "BEGIN IMMEDIATE");
    h->commit = prepare(h->db, "COMMIT");
    h->cursor = prepare(h->db, "UPDATE position SET cursor = ?1 WHERE id = 1");
    h->open = prepare(h->db, "INSERT INTO accounts VALUES (?1, ?2, ?3)");
    h->pay = prepare(h->db, "UPDATE accounts SET balance = balance - ?2, updated = ?3"
                            " WHERE account = ?1");
    h->take = prepare(h->db, "UPDATE accounts SET balance = balance + ?2, updated = ?3"
                             " WHERE account = ?1");
}

static void hand_close(struct hand *h)
{
    sqlite3_stmt *all[] = {h->begin, h->commit, h->cursor, h->open, h->pay, h->take};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        sqlite3_finalize(all[i]);
    sqlite3_close(h->db);
}

static void change(struct hand *h, sqlite3_stmt *s, const json_t *account, const json_t *amount,
                   int64_t time_ns)
{
    must(json_is_integer(account) && json_is_integer(amount), "a payload is not as it was made");
    sqlite3_bind_int64(s, 1, json_integer_value(account));
    sqlite3_bind_int64(s, 2, json_integer_value(amount));
    sqlite3_bind_int64(s, 3, time_ns);
    step(h, s);
}

static void hand_event(struct hand *h, const struct event_record *ev)
{
    json_t *j = json_loadb(ev->payload.ptr, ev->payload.len, 0, NULL);
    const json_t *amount = json_object_get(j, "amount");
    if (*(const char *)ev->type.ptr == 'o') {
        change(h, h->open, json_object_get(j, "account"), amount, ev->time_ns);
    } else {
        change(h, h->pay, json_object_get(j, "from"), amount, ev->time_ns);
        change(h, h->take, json_object_get(j, "to"), amount, ev->time_ns);
    }
    json_decref(j);
}

/* ---- row 11 ---- */

#define BATCH   1000u
#define BATCHES 30u

/* The same events for both: in frames as the feed sends them, and decoded for the loop by hand. */
struct chunk {
    struct buf frames[BENCH_KEYS / BATCH];
    uint32_t check[BENCH_KEYS / BATCH]; /* of each batch's last event */
    struct event_record event[BENCH_KEYS];
    uint32_t batches;
    uint64_t first;
};

static int make_payload(char out[128], uint64_t id, int opening)
{
    if (opening)
        return snprintf(out, 128, "{\"account\":%llu,\"amount\":1000}", (unsigned long long)id);
    return snprintf(out, 128, "{\"amount\":%u,\"from\":%u,\"to\":%u}",
                    (unsigned)(bench_random() % 1000), (unsigned)(bench_random() % BENCH_KEYS) + 1,
                    (unsigned)(bench_random() % BENCH_KEYS) + 1);
}

static void chunk_make(struct chunk *c, uint64_t first, uint32_t batches, int opening)
{
    static unsigned char rec[1024];
    c->first = first;
    c->batches = batches;
    for (uint32_t b = 0; b < batches; b++) {
        struct event_record *ev = &c->event[b * BATCH];
        buf_clear(&c->frames[b]);
        for (uint64_t id = first + b * BATCH; id < first + (b + 1) * BATCH; id++) {
            char payload[128];
            int n = make_payload(payload, id, opening);
            struct event_record e = {.id = id,
                                     .txn = id,
                                     .time_ns = 1700000000000000000 + (int64_t)id * 1000000,
                                     .type = bytes_str(opening ? "opened" : "transferred"),
                                     .payload = bytes_of(payload, (size_t)n)};
            record_event_encode(rec, &e);
            struct azoth_bytes bytes = bytes_of(rec, record_event_size(&e));
            must(!record_frame_add(&c->frames[b], id, bytes), "out of memory");
            c->check[b] = record_checksum(bytes);
        }
        size_t at = 0;
        while (record_frame_next(buf_bytes(&c->frames[b]), &at, ev, NULL) == 1)
            ev++;
    }
}

static double apply_product(struct table *t, const struct chunk *c)
{
    struct azoth_error err;
    uint64_t began = clock_mono_ns();
    for (uint32_t b = 0; b < c->batches; b++) {
        uint64_t first = c->first + b * BATCH;
        must(!table_apply(t, buf_bytes(&c->frames[b]), first, first + BATCH - 1, c->check[b], &err),
             err.message);
    }
    return (double)(c->batches * BATCH) * 1e9 / (double)(clock_mono_ns() - began);
}

/* together: so many batches a transaction. */
static double apply_by_hand(struct hand *h, const struct chunk *c, uint32_t together)
{
    uint64_t began = clock_mono_ns();
    for (uint32_t b = 0; b < c->batches; b++) {
        if (b % together == 0)
            step(h, h->begin);
        for (uint32_t i = 0; i < BATCH; i++)
            hand_event(h, &c->event[b * BATCH + i]);
        if ((b + 1) % together)
            continue;
        sqlite3_bind_int64(h->cursor, 1, (int64_t)(c->first + (b + 1) * BATCH - 1));
        step(h, h->cursor);
        step(h, h->commit);
        /* As seldom as the product does: checkpoints are not what is compared. */
        h->batches += (int)together;
        if (h->batches >= 16 && h->wal_pages >= 4000) {
            h->batches = 0;
            sqlite3_wal_checkpoint_v2(h->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        }
    }
    return (double)(c->batches * BATCH) * 1e9 / (double)(clock_mono_ns() - began);
}

static void apply_pairs(struct table *t, struct hand *h, struct chunk *c)
{
    uint64_t next = 1;
    chunk_make(c, next, BENCH_KEYS / BATCH, 1); /* rows exist when the time counts */
    apply_product(t, c);
    apply_by_hand(h, c, 1);
    next += BENCH_KEYS;
    struct bench_row *r =
        bench_row("11", "bank projection / the same statements by hand, 1000 a batch", "/s", 0.85);
    for (int i = 0; i < bench_pairs(); i++, next += BATCHES * BATCH) {
        chunk_make(c, next, BATCHES, 0);
        /* Who comes second finds the disk busy with the first one's pages: they take turns. */
        double product = i % 2 ? 0 : apply_product(t, c);
        double floor = apply_by_hand(h, c, 1);
        bench_pair(r, i % 2 ? apply_product(t, c) : product, floor);
    }
}

static void projection_row(void)
{
    static const uint8_t uuid[16] = {1};
    static struct sqlfile def;
    struct harness h;
    struct hand hand;
    struct table *t = NULL;
    struct azoth_error err;
    char dir[300];
    struct chunk *c = calloc(1, sizeof *c);
    must(c != NULL, "out of memory");
    bench_begin(&h);
    snprintf(dir, sizeof dir, "%s/projections", h.dir);
    must(!sqlfile_parse("accounts.sql", bytes_str(accounts_sql), &def, &err), err.message);
    struct table_options o = {.dir = dir, .uuid = uuid, .shards = 1};
    must(!table_open(&def, &o, &t, &err), err.message);
    hand_open(&hand, h.dir);
    apply_pairs(t, &hand, c);
    hand_close(&hand);
    table_close(t);
    sqlfile_fini(&def);
    for (size_t i = 0; i < sizeof c->frames / sizeof *c->frames; i++)
        buf_fini(&c->frames[i]);
    free(c);
    harness_end(&h);
}

/* ---- row 15 ---- */

static void define_accounts(const struct harness *h)
{
    char path[400];
    snprintf(path, sizeof path, "%s/projections/accounts.sql", h->dir);
    FILE *f = fopen(path, "w");
    must(f && fputs(accounts_sql, f) >= 0 && fclose(f) == 0, path);
}

#define LOOKS      100
#define IDLE_MS    3
#define VISIBLE_NS (10ull * 1000 * 1000 * 1000)

/* The load of this row: without it nobody is asleep, and a system that is not idle is measured. */
static void idle(void)
{
    struct timespec ts = {0, IDLE_MS * (long)NS_PER_MS};
    nanosleep(&ts, NULL);
}

/* Accounts are opened one after the other; row n is there when transaction n is visible. */
struct seen {
    sqlite3 *db;
    sqlite3_stmt *look;
    struct azoth_txn *txn;
    int64_t account;
};

static int looks(struct seen *s)
{
    sqlite3_bind_int64(s->look, 1, s->account);
    int rc = sqlite3_step(s->look);
    must(rc == SQLITE_ROW || rc == SQLITE_DONE, sqlite3_errmsg(s->db));
    sqlite3_reset(s->look);
    return rc == SQLITE_ROW;
}

static double until_seen(struct seen *s)
{
    char payload[80], key[24];
    struct azoth_error err;
    s->account++;
    snprintf(payload, sizeof payload, "{\"account\":%lld,\"amount\":1000}", (long long)s->account);
    azoth_txn_reset(s->txn);
    azoth_set_i64(s->txn, bench_key(key, (uint64_t)s->account), 1000);
    azoth_event_json(s->txn, "opened", payload);
    uint64_t began = clock_mono_ns();
    must(azoth_commit(s->txn, NULL, &err) == 0, err.message);
    while (!looks(s)) {
        must(clock_mono_ns() - began < VISIBLE_NS, "a transaction did not become visible in 10 s");
        sched_yield();
    }
    return (double)(clock_mono_ns() - began) / 1e3;
}

static double both_commits(struct floor *raw, struct hand *h, int64_t account)
{
    static const unsigned char event[RECORD_EVENT_HEADER + 9 + BENCH_VALUE] = {1};
    char key[24];
    struct azoth_error err;
    uint64_t began = clock_mono_ns();
    must(!floor_begin(raw, &err) &&
             !floor_put_state(raw, bench_key(key, (uint64_t)account), BENCH_VALUE, &err) &&
             !floor_append(raw, bytes_of(event, sizeof event), &err) && !floor_commit(raw, &err),
         err.message);
    step(h, h->begin);
    sqlite3_bind_int64(h->open, 1, account);
    sqlite3_bind_int64(h->open, 2, 1000);
    sqlite3_bind_int64(h->open, 3, 1);
    step(h, h->open);
    sqlite3_bind_int64(h->cursor, 1, account);
    step(h, h->cursor);
    step(h, h->commit);
    return (double)(clock_mono_ns() - began) / 1e3;
}

static void seen_pairs(struct seen *s, struct floor *raw, struct hand *h)
{
    double product[LOOKS], floor[LOOKS];
    int64_t by_hand = 0;
    struct bench_row *r =
        bench_row("15", "submission to visible in SQLite / LMDB + SQLite commit, median", "us", 2);
    struct bench_row *tail = bench_row("15b", "the same, 99th percentile", "us", 0);
    r->lower_is_better = tail->lower_is_better = 1;
    for (int i = 0; i < bench_pairs(); i++) {
        for (int k = 0; k < LOOKS; k++) {
            idle();
            product[k] = until_seen(s);
            idle();
            floor[k] = both_commits(raw, h, ++by_hand);
        }
        bench_pair(r, bench_quantile(product, LOOKS, 0.5), bench_quantile(floor, LOOKS, 0.5));
        bench_pair(tail, bench_quantile(product, LOOKS, 0.99), bench_quantile(floor, LOOKS, 0.99));
    }
}

static void seen_open(struct seen *s, struct harness *h, struct azoth *db)
{
    struct azoth_error err;
    char path[400];
    define_accounts(h);
    harness_start(h, "feed", 0, "azoth-feed", "--dir", h->dir, NULL);
    harness_start(h, "projector", 0, "azoth-projector", "--dir", h->dir, "accounts", NULL);
    *s = (struct seen){.txn = azoth_txn_new(db)};
    azoth_event_json(s->txn, "opened", "{\"account\":0,\"amount\":0}");
    struct azoth_commit_info info;
    must(azoth_commit(s->txn, &info, &err) == 0, err.message);
    uint64_t began = clock_mono_ns();
    int rc;
    while ((rc = azoth_wait_projected(db, "accounts", info.last_event, 1000, &err)) != 0) {
        must(rc == AZOTH_ERR_NOT_FOUND || rc == AZOTH_ERR_TIMEOUT, err.message);
        must(clock_mono_ns() - began < VISIBLE_NS, "the projector does not follow");
        idle();
    }
    snprintf(path, sizeof path, "%s/projections/accounts.db", h->dir);
    must(!sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL), path);
    s->look = prepare(s->db, "SELECT 1 FROM accounts WHERE account = ?1");
}

static void visible_rows(void)
{
    struct harness h;
    struct floor *raw;
    struct hand hand;
    struct seen s;
    bench_begin(&h);
    raw = raw_open(h.dir);
    hand_open(&hand, h.dir);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = load_attach(h.dir);
    seen_open(&s, &h, db);
    seen_pairs(&s, raw, &hand);
    sqlite3_finalize(s.look);
    sqlite3_close(s.db);
    azoth_txn_free(s.txn);
    azoth_close(db);
    hand_close(&hand);
    floor_close(raw);
    harness_end(&h);
}

/* ---- row 20 ---- */

#define TOGETHER        50 /* batches a transaction, as a rebuild has them */
#define TRANSFERRED     4u /* times as many transfers as accounts are opened */
#define REBUILT_BATCHES ((1 + TRANSFERRED) * BENCH_KEYS / BATCH)

/* The events of both chunks, those of the second several times, in a store of the product's. */
static void store_events(const char *dir, const struct chunk *const chunk[2])
{
    struct azoth_error err;
    struct azoth *db = load_open_embedded(dir);
    for (uint32_t b = 0; b < REBUILT_BATCHES; b++) {
        const struct event_record *ev =
            &chunk[b >= BENCH_KEYS / BATCH]->event[b % (BENCH_KEYS / BATCH) * BATCH];
        struct azoth_txn *t = azoth_txn_new(db);
        for (uint32_t i = 0; i < BATCH; i++, ev++) {
            char type[16], payload[128];
            snprintf(type, sizeof type, "%.*s", (int)ev->type.len, (const char *)ev->type.ptr);
            snprintf(payload, sizeof payload, "%.*s", (int)ev->payload.len,
                     (const char *)ev->payload.ptr);
            azoth_event_json(t, type, payload);
        }
        must(azoth_commit(t, NULL, &err) == 0, err.message);
        azoth_txn_free(t);
    }
    azoth_close(db);
}

/* The whole command, until the new file serves. */
static double rebuild_product(struct harness *h)
{
    char out[1000];
    uint64_t began = clock_mono_ns();
    must(harness_azoth(h, out, sizeof out, "projection", "rebuild", "accounts", "--json") == 0,
         out);
    return REBUILT_BATCHES * BATCH * 1e9 / (double)(clock_mono_ns() - began);
}

/* From no file to one whose log is empty. */
static double rebuild_by_hand(struct harness *h, const struct chunk *const chunk[2])
{
    struct hand hand;
    char path[400];
    uint64_t began = clock_mono_ns();
    hand_open(&hand, h->dir);
    apply_by_hand(&hand, chunk[0], TOGETHER);
    for (unsigned i = 0; i < TRANSFERRED; i++)
        apply_by_hand(&hand, chunk[1], TOGETHER);
    must(!sqlite3_wal_checkpoint_v2(hand.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL),
         sqlite3_errmsg(hand.db));
    hand_close(&hand);
    double rate = REBUILT_BATCHES * BATCH * 1e9 / (double)(clock_mono_ns() - began);
    snprintf(path, sizeof path, "%s/hand.db", h->dir);
    must(!unlink(path), path);
    return rate;
}

static void rebuild_row(void)
{
    struct harness h;
    struct chunk *c[2] = {calloc(1, sizeof *c[0]), calloc(1, sizeof *c[1])};
    char out[1000];
    must(c[0] && c[1], "out of memory");
    bench_begin(&h);
    define_accounts(&h);
    chunk_make(c[0], 1, BENCH_KEYS / BATCH, 1);
    chunk_make(c[1], BENCH_KEYS + 1, BENCH_KEYS / BATCH, 0);
    const struct chunk *const all[2] = {c[0], c[1]};
    store_events(h.dir, all);
    struct bench_row *r = bench_row(
        "20", "rebuild of 500,000 bank events / the same loop by hand, 50,000 a transaction", "/s",
        0.85);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = i % 2 ? 0 : rebuild_product(&h);
        double floor = rebuild_by_hand(&h, all);
        bench_pair(r, i % 2 ? rebuild_product(&h) : product, floor);
        must(harness_azoth(&h, out, sizeof out, "projection", "prune", "accounts", NULL) == 0, out);
    }
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < sizeof c[k]->frames / sizeof *c[k]->frames; i++)
            buf_fini(&c[k]->frames[i]);
        free(c[k]);
    }
    harness_end(&h);
}

void bench_projection_rows(void)
{
    if (bench_wants("11"))
        projection_row();
    if (bench_wants("15") || bench_wants("15b"))
        visible_rows();
    if (bench_wants("20"))
        rebuild_row();
}
