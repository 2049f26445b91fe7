/*
 * bench_projection.c - the projection engine beside its floor: a hand-written loop over the same
 * events with jansson, the same SQL, pragmas, checkpoints and 1000 events per transaction.
 *
 * What the product does beside the floor, and the ratio measures: checking each frame, finding the
 * handler by type, parameters by name, reporting of what fails.
 *
 * Both files stay open, and chunks of the same events are applied to each in turn, first one then
 * the other begins: runs on a disk differ by more than what is measured, neighbours do not.
 */
#include "core/clock.h"
#include "core/error.h"
#include "core/record.h"
#include "projector/table.h"

#include <inttypes.h>
#include <jansson.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#define ACCOUNTS     100000u
#define BATCH_EVENTS 1000u
#define PAIRS_MAX    200

static const char accounts_sql[] =
    "-- azoth: projection accounts\n"
    "-- azoth: migration 1 create accounts\n"
    "CREATE TABLE accounts (account TEXT PRIMARY KEY, balance INTEGER NOT NULL, updated INTEGER)"
    " WITHOUT ROWID;\n"
    "-- azoth: on deposited\n"
    "INSERT INTO accounts VALUES (:account, :amount, @time)"
    " ON CONFLICT (account) DO UPDATE SET balance = balance + excluded.balance,"
    " updated = excluded.updated;\n"
    "-- azoth: on withdrawn\n"
    "UPDATE accounts SET balance = balance - :amount, updated = @time WHERE account = :account;\n";

static const char totals_sql[] =
    "-- azoth: projection daily_totals\n"
    "-- azoth: migration 1 create daily_totals\n"
    "CREATE TABLE daily_totals (day TEXT PRIMARY KEY, movements INTEGER NOT NULL,"
    " amount INTEGER NOT NULL) WITHOUT ROWID;\n"
    "-- azoth: on deposited, withdrawn\n"
    "INSERT INTO daily_totals VALUES (date(@time / 1000000000, 'unixepoch'), 1, :amount)"
    " ON CONFLICT (day) DO UPDATE SET movements = movements + 1,"
    " amount = amount + excluded.amount;\n";

static void must(int ok, const char *what, const char *why)
{
    if (ok)
        return;
    fprintf(stderr, "bench_projection: %s: %s\n", what, why);
    exit(1);
}

/* ---- events ---- */

struct chunk {
    struct buf *frames; /* one per batch */
    uint32_t *check;    /* of each batch's last event */
    uint32_t batches;
    struct event_record *event; /* the same, decoded, for the floor */
    uint64_t first;
};

static uint64_t random_next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void chunk_make(struct chunk *c, uint64_t first, int opening, uint64_t *seed)
{
    static unsigned char rec[RECORD_EVENT_MAX];
    c->first = first;
    for (uint32_t b = 0; b < c->batches; b++) {
        buf_clear(&c->frames[b]);
        for (uint32_t i = 0; i < BATCH_EVENTS; i++) {
            uint64_t id = first + (uint64_t)b * BATCH_EVENTS + i, r = random_next(seed);
            uint64_t account = opening ? id - 1 : r % ACCOUNTS;
            char payload[128];
            int n = snprintf(payload, sizeof payload,
                             "{\"account\":\"A%08" PRIu64 "\",\"amount\":%" PRIu64
                             ",\"channel\":\"atm\",\"reference\":\"R%016" PRIx64 "\"}",
                             account, r >> 32 & 1023, r);
            struct event_record ev = {.id = id,
                                      .txn = id,
                                      .time_ns = 1700000000000000000 + (int64_t)id * 1000000,
                                      .type =
                                          bytes_str(opening || r >> 63 ? "deposited" : "withdrawn"),
                                      .payload = bytes_of(payload, (size_t)n)};
            record_event_encode(rec, &ev);
            struct azoth_bytes bytes = bytes_of(rec, record_event_size(&ev));
            must(!record_frame_add(&c->frames[b], id, bytes), "frames", "out of memory");
            c->check[b] = record_checksum(bytes);
        }
        size_t at = 0;
        struct event_record *ev = &c->event[(size_t)b * BATCH_EVENTS];
        while (record_frame_next(buf_bytes(&c->frames[b]), &at, ev, NULL) == 1)
            ev++;
    }
}

/* ---- the product ---- */

static double product_run(struct table *t, const struct chunk *c)
{
    struct azoth_error err = {0};
    uint64_t begin = clock_mono_ns();
    for (uint32_t b = 0; b < c->batches; b++) {
        uint64_t first = c->first + (uint64_t)b * BATCH_EVENTS;
        must(!table_apply(t, buf_bytes(&c->frames[b]), first, first + BATCH_EVENTS - 1, c->check[b],
                          &err),
             "table_apply", err.message);
    }
    return (double)(clock_mono_ns() - begin) / 1e9;
}

/* ---- the floor ---- */

struct hand {
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *cursor, *deposit, *withdraw;
    int wal_pages;
    uint32_t batches; /* since a checkpoint */
    int totals;       /* its statement has two parameters, the other's three */
};

static sqlite3_stmt *hand_prepare(struct hand *h, const char *sql)
{
    sqlite3_stmt *s = NULL;
    must(!sqlite3_prepare_v3(h->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL), sql,
         sqlite3_errmsg(h->db));
    return s;
}

static int hand_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((struct hand *)arg)->wal_pages = pages;
    return SQLITE_OK;
}

static void hand_open(struct hand *h, const char *path, int totals)
{
    h->totals = totals;
    must(!sqlite3_open_v2(path, &h->db,
                          SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL),
         path, "cannot be opened");
    must(
        !sqlite3_exec(h->db,
                      "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                      "PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -65536;"
                      "CREATE TABLE position (id INTEGER PRIMARY KEY, cursor INTEGER);"
                      "INSERT INTO position VALUES (1, 0);"
                      "CREATE TABLE accounts (account TEXT PRIMARY KEY, balance INTEGER NOT NULL,"
                      " updated INTEGER) WITHOUT ROWID;"
                      "CREATE TABLE daily_totals (day TEXT PRIMARY KEY, movements INTEGER NOT NULL,"
                      " amount INTEGER NOT NULL) WITHOUT ROWID;",
                      NULL, NULL, NULL),
        path, sqlite3_errmsg(h->db));
    sqlite3_wal_hook(h->db, hand_wal, h);
    h->begin = hand_prepare(h, "BEGIN IMMEDIATE");
    h->commit = hand_prepare(h, "COMMIT");
    h->cursor = hand_prepare(h, "UPDATE position SET cursor = ?1 WHERE id = 1");
    static const char totals_sql_hand[] =
        "INSERT INTO daily_totals VALUES (date(?1 / 1000000000, 'unixepoch'), 1, ?2)"
        " ON CONFLICT (day) DO UPDATE SET movements = movements + 1,"
        " amount = amount + excluded.amount";
    h->deposit = hand_prepare(
        h, totals ? totals_sql_hand
                  : "INSERT INTO accounts VALUES (?1, ?2, ?3) ON CONFLICT (account) DO UPDATE"
                    " SET balance = balance + excluded.balance, updated = excluded.updated");
    h->withdraw = hand_prepare(
        h, totals ? totals_sql_hand
                  : "UPDATE accounts SET balance = balance - ?2, updated = ?3 WHERE account = ?1");
}

static void hand_step(struct hand *h, sqlite3_stmt *s)
{
    must(sqlite3_step(s) == SQLITE_DONE, "step", sqlite3_errmsg(h->db));
    sqlite3_reset(s);
}

static void hand_event(struct hand *h, const struct event_record *ev)
{
    json_t *j = json_loadb(ev->payload.ptr, ev->payload.len, 0, NULL);
    const json_t *account = json_object_get(j, "account"), *amount = json_object_get(j, "amount");
    must(json_is_string(account) && json_is_integer(amount), "payload", "not as it was made");
    sqlite3_stmt *s = *(const char *)ev->type.ptr == 'd' ? h->deposit : h->withdraw;
    if (h->totals) {
        sqlite3_bind_int64(s, 1, ev->time_ns);
        sqlite3_bind_int64(s, 2, json_integer_value(amount));
    } else {
        sqlite3_bind_text(s, 1, json_string_value(account), (int)json_string_length(account),
                          SQLITE_STATIC);
        sqlite3_bind_int64(s, 2, json_integer_value(amount));
        sqlite3_bind_int64(s, 3, ev->time_ns);
    }
    hand_step(h, s);
    json_decref(j);
}

static double hand_run(struct hand *h, const struct chunk *c)
{
    uint64_t begin = clock_mono_ns();
    for (uint32_t b = 0; b < c->batches; b++) {
        hand_step(h, h->begin);
        for (uint32_t i = 0; i < BATCH_EVENTS; i++)
            hand_event(h, &c->event[(size_t)b * BATCH_EVENTS + i]);
        sqlite3_bind_int64(h->cursor, 1,
                           (int64_t)(c->first + (uint64_t)(b + 1) * BATCH_EVENTS - 1));
        hand_step(h, h->cursor);
        hand_step(h, h->commit);
        /* As seldom as the product does: checkpoints are not what is compared. */
        if (++h->batches >= 16 && h->wal_pages >= 4000) {
            h->batches = 0;
            sqlite3_wal_checkpoint_v2(h->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        }
    }
    return (double)(clock_mono_ns() - begin) / 1e9;
}

static void hand_close(struct hand *h)
{
    sqlite3_stmt *all[] = {h->begin, h->commit, h->cursor, h->deposit, h->withdraw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        sqlite3_finalize(all[i]);
    sqlite3_close(h->db);
}

/* ---- one projection ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

struct bench {
    const char *dir;
    int pairs;
    uint32_t batches;
    uint64_t seed;
};

/* Events applied to both, timed or (pairs 0) to fill the tables. */
static void run_pairs(struct table *t, struct hand *h, struct chunk *c, uint64_t *next,
                      const struct bench *o, const char *name)
{
    double product[PAIRS_MAX], floor[PAIRS_MAX], ratio[PAIRS_MAX];
    uint64_t seed = o->seed;
    double events = (double)c->batches * BATCH_EVENTS;
    for (int i = 0; i < o->pairs; i++) {
        chunk_make(c, *next, 0, &seed);
        *next += (uint64_t)c->batches * BATCH_EVENTS;
        double p = i % 2 ? 0 : product_run(t, c);
        double f = hand_run(h, c);
        if (i % 2)
            p = product_run(t, c);
        product[i] = events / p;
        floor[i] = events / f;
        ratio[i] = f / p;
    }
    double least = ratio[0], most = ratio[0];
    for (int i = 0; i < o->pairs; i++) {
        least = ratio[i] < least ? ratio[i] : least;
        most = ratio[i] > most ? ratio[i] : most;
    }
    printf("MEASURED projection %-12s product %.0f events/s, floor %.0f events/s, ratio %.3f "
           "(%.3f to %.3f, %d pairs)\n",
           name, median(product, o->pairs), median(floor, o->pairs), median(ratio, o->pairs), least,
           most, o->pairs);
}

static void bench_projection(const struct bench *o, const char *name, const char *sql, int totals)
{
    static struct sqlfile def;
    static const uint8_t uuid[16] = {1};
    struct azoth_error err = {0};
    struct table *t = NULL;
    struct hand h = {0};
    char path[4200];
    must(!sqlfile_parse(name, bytes_str(sql), &def, &err), name, err.message);
    struct table_options options = {.dir = o->dir, .uuid = uuid, .shards = 1};
    must(!table_open(&def, &options, &t, &err), name, err.message);
    snprintf(path, sizeof path, "%s/%s-floor.db", o->dir, name);
    hand_open(&h, path, totals);

    uint32_t most = o->batches > ACCOUNTS / BATCH_EVENTS ? o->batches : ACCOUNTS / BATCH_EVENTS;
    struct chunk c = {.frames = calloc(most, sizeof *c.frames),
                      .check = calloc(most, sizeof *c.check),
                      .event = calloc((size_t)most * BATCH_EVENTS, sizeof *c.event)};
    must(c.frames && c.check && c.event, "chunk", "out of memory");
    uint64_t next = 1, seed = o->seed;
    c.batches = ACCOUNTS / BATCH_EVENTS; /* an account each: rows exist when the time counts */
    chunk_make(&c, next, 1, &seed);
    next += ACCOUNTS;
    product_run(t, &c);
    hand_run(&h, &c);
    c.batches = o->batches;
    run_pairs(t, &h, &c, &next, o, name);

    for (uint32_t i = 0; i < most; i++)
        buf_fini(&c.frames[i]);
    free(c.frames);
    free(c.check);
    free(c.event);
    hand_close(&h);
    table_close(t);
    sqlfile_fini(&def);
}

static void remove_dir(const char *dir)
{
    static const char *const names[] = {
        "accounts.g1.db",     "accounts.db",     "accounts.lock",     "accounts-floor.db",
        "daily_totals.g1.db", "daily_totals.db", "daily_totals.lock", "daily_totals-floor.db"};
    static const char *const suffix[] = {"", "-wal", "-shm"};
    char path[4300];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t k = 0; k < 3; k++) {
            snprintf(path, sizeof path, "%s/%s%s", dir, names[i], suffix[k]);
            unlink(path);
        }
    rmdir(dir);
}

int main(int argc, char **argv)
{
    char dir[4096];
    const char *tmp = getenv("TMPDIR");
    struct bench o = {.dir = dir, .pairs = 9, .batches = 50, .seed = 88172645463325252u};
    for (int i = 1; i < argc; i++) {
        int more = i + 1 < argc;
        if (more && strcmp(argv[i], "--pairs") == 0)
            o.pairs = atoi(argv[++i]);
        else if (more && strcmp(argv[i], "--batches") == 0)
            o.batches = (uint32_t)atoi(argv[++i]);
        else if (more && strcmp(argv[i], "--seed") == 0)
            o.seed = strtoull(argv[++i], NULL, 10) | 1;
        else
            must(0, argv[i], "usage: bench_projection [--pairs N] [--batches N] [--seed N]");
    }
    must(o.pairs >= 1 && o.pairs <= PAIRS_MAX, "--pairs", "1 to 200");
    must(o.batches >= 1 && o.batches <= 1000, "--batches", "1 to 1000, of 1000 events each");
    snprintf(dir, sizeof dir, "%s/bench-projection-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    must(mkdtemp(dir) != NULL, dir, "cannot be made");
    bench_projection(&o, "accounts", accounts_sql, 0);
    bench_projection(&o, "daily_totals", totals_sql, 1);
    remove_dir(dir);
    return 0;
}
