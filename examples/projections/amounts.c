/*
 * amounts.c - a library of handlers: percentiles of what each account has paid, for amounts.sql.
 *
 *   cc -O2 -shared -fPIC -I/usr/local/include/azoth amounts.c -o DIR/projections/amounts.so
 *   cp amounts.sql DIR/projections/
 *   azoth projection check DIR/projections/amounts.sql --load DIR/projections/amounts.so
 *   azoth-projector --dir DIR amounts
 *
 * An account's amounts are counted in buckets an eighth of a power of two wide, so that a percentile is at most an
 * eighth too low. The histogram is a row's blob. In memory it is kept too, as a cache: a batch of a thousand
 * events changes each account's row once. When a transaction or an event is undone the cache is forgotten, which
 * is all that is needed to follow it: rows are read again when they are wanted.
 */
#include "azoth_projection.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS      488u /* of 0 to 2^63-1 */
#define ACCOUNTS_MAX 4096u

/* Codes of failures, of our own. */
enum { NO_TRANSFER = 1, NEGATIVE = 2 };

struct account {
    int64_t id;
    int used, changed;
    uint32_t count[BUCKETS];
};

struct state {
    sqlite3_stmt *parse, *load, *store;
    size_t accounts, changes;
    struct account *changed[ACCOUNTS_MAX]; /* since they were stored */
    struct account account[ACCOUNTS_MAX];  /* open addressing by id */
};

/* ---- histograms ---- */

static unsigned bucket_of(uint64_t amount)
{
    if (amount < 8)
        return (unsigned)amount;
    unsigned power = 63u - (unsigned)__builtin_clzll(amount);
    return 8 + (power - 3) * 8 + (unsigned)(amount >> (power - 3) & 7);
}

static int64_t least_of(unsigned bucket)
{
    if (bucket < 8)
        return bucket;
    return (int64_t)((8 + (uint64_t)bucket % 8) << (bucket / 8 - 1));
}

static int64_t percentile(const struct account *a, uint64_t transfers, unsigned p)
{
    uint64_t wanted = (transfers * p + 99) / 100, seen = 0;
    unsigned i = 0;
    while (i < BUCKETS - 1 && (seen += a->count[i]) < wanted)
        i++;
    return least_of(i);
}

/* ---- accounts ---- */

static int store(struct state *s, struct account *a, struct azoth_projection_fail *f)
{
    static const unsigned percents[] = {50, 90, 99};
    uint64_t transfers = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        transfers += a->count[i];
    sqlite3_bind_int64(s->store, 1, a->id);
    sqlite3_bind_int64(s->store, 2, (int64_t)transfers);
    for (int i = 0; i < 3; i++)
        sqlite3_bind_int64(s->store, 3 + i, percentile(a, transfers, percents[i]));
    sqlite3_bind_blob(s->store, 6, a->count, sizeof a->count, SQLITE_STATIC);
    int rc = sqlite3_step(s->store) == SQLITE_DONE ? 0 : f->sqlite(f);
    sqlite3_reset(s->store);
    return rc;
}

static int store_changed(struct state *s, struct azoth_projection_fail *f)
{
    int rc = 0;
    for (size_t i = 0; i < s->changes && !rc; i++) {
        rc = store(s, s->changed[i], f);
        s->changed[i]->changed = 0;
    }
    s->changes = 0;
    return rc;
}

static void forget(void *state)
{
    struct state *s = state;
    for (size_t i = 0; s->accounts && i < ACCOUNTS_MAX; i++)
        s->account[i].used = 0;
    s->accounts = s->changes = 0;
}

static int read_account(struct state *s, struct account *a, int64_t id,
                        struct azoth_projection_fail *f)
{
    *a = (struct account){.id = id, .used = 1};
    s->accounts++;
    sqlite3_bind_int64(s->load, 1, id);
    int step = sqlite3_step(s->load);
    if (step == SQLITE_ROW && sqlite3_column_bytes(s->load, 0) == sizeof a->count)
        memcpy(a->count, sqlite3_column_blob(s->load, 0), sizeof a->count);
    int rc = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : f->sqlite(f);
    sqlite3_reset(s->load);
    return rc;
}

static int find(struct state *s, int64_t id, struct account **ret, struct azoth_projection_fail *f)
{
    if (s->accounts > ACCOUNTS_MAX / 2) {
        int rc = store_changed(s, f);
        if (rc)
            return rc;
        forget(s);
    }
    size_t i = (size_t)((uint64_t)id * 0x9e3779b97f4a7c15u >> 52);
    while (s->account[i].used && s->account[i].id != id)
        i = (i + 1) % ACCOUNTS_MAX;
    *ret = &s->account[i];
    return s->account[i].used ? 0 : read_account(s, *ret, id, f);
}

/* ---- events ---- */

/* SQLite reads the JSON; text that is none is the event's fault, which f->sqlite tells by itself. */
static int parse(struct state *s, const struct azoth_projection_event *ev, int64_t *ret_from,
                 int64_t *ret_amount, struct azoth_projection_fail *f)
{
    int rc = 0;
    sqlite3_bind_text64(s->parse, 1, ev->payload.ptr, ev->payload.len, SQLITE_STATIC, SQLITE_UTF8);
    if (sqlite3_step(s->parse) != SQLITE_ROW)
        rc = f->sqlite(f);
    else if (sqlite3_column_type(s->parse, 0) != SQLITE_INTEGER ||
             sqlite3_column_type(s->parse, 1) != SQLITE_INTEGER)
        rc = f->event(f, NO_TRANSFER, "from and amount are not both integers");
    *ret_from = rc ? 0 : sqlite3_column_int64(s->parse, 0);
    *ret_amount = rc ? 0 : sqlite3_column_int64(s->parse, 1);
    sqlite3_reset(s->parse);
    if (!rc && *ret_amount < 0)
        rc = f->event(f, NEGATIVE, "an amount of %lld", (long long)*ret_amount);
    return rc;
}

static int transferred(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev,
                       size_t n, struct azoth_projection_fail *f)
{
    struct state *s = state;
    (void)db; /* its statements know it */
    for (size_t i = 0; i < n; i++) {
        struct account *a;
        int64_t from, amount;
        int rc = parse(s, &ev[i], &from, &amount, f);
        rc = rc ? rc : find(s, from, &a, f);
        if (rc)
            return rc;
        a->count[bucket_of((uint64_t)amount)]++;
        if (!a->changed)
            s->changed[s->changes++] = a;
        a->changed = 1;
    }
    return store_changed(s, f);
}

/* Amounts below zero are corrections, which are not wanted here; what is no transfer somebody shall look at. */
static enum azoth_projection_answer on_error(void *state, const struct azoth_projection_event *ev,
                                             const struct azoth_projection_failure *why,
                                             uint64_t *ret_wait_ms)
{
    (void)state;
    (void)ev;
    (void)ret_wait_ms;
    return why->code == NEGATIVE ? AZOTH_PROJECTION_SKIP : AZOTH_PROJECTION_DEAD_LETTER;
}

/* ---- the state ---- */

static void close_state(void *state)
{
    struct state *s = state;
    sqlite3_finalize(s->parse);
    sqlite3_finalize(s->load);
    sqlite3_finalize(s->store);
    free(s);
}

static int open_state(const struct azoth_projection_open *o, void **ret_state,
                      struct azoth_projection_fail *f)
{
    static const char parse_sql[] = "SELECT ?1 ->> '$.from', ?1 ->> '$.amount'";
    static const char load_sql[] = "SELECT histogram FROM amounts WHERE account = ?";
    static const char store_sql[] = "INSERT OR REPLACE INTO amounts VALUES (?, ?, ?, ?, ?, ?)";
    struct state *s = calloc(1, sizeof *s);
    if (!s)
        return f->event(f, 0, "out of memory");
    unsigned keep = SQLITE_PREPARE_PERSISTENT;
    if (sqlite3_prepare_v3(o->db, parse_sql, -1, keep, &s->parse, NULL) ||
        sqlite3_prepare_v3(o->db, load_sql, -1, keep, &s->load, NULL) ||
        sqlite3_prepare_v3(o->db, store_sql, -1, keep, &s->store, NULL)) {
        int rc = f->sqlite(f);
        close_state(s);
        return rc;
    }
    *ret_state = s;
    return 0;
}

static const struct azoth_projection_handler handlers[] = {
    {.type = "transferred", .batch = transferred}};

static const struct azoth_projection projections[] = {{.name = "amounts",
                                                       .version = 1,
                                                       .handlers = 1,
                                                       .handler = handlers,
                                                       .open = open_state,
                                                       .close = close_state,
                                                       .rollback = forget,
                                                       .undo = forget,
                                                       .on_error = on_error}};

const struct azoth_projection_library *azoth_projections(void)
{
    static const struct azoth_projection_library library = {AZOTH_PROJECTION_ABI, 1, projections};
    return &library;
}
