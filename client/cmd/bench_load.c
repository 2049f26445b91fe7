/* bench_load.c - the load of the benchmarks, through the product and by hand. */
#include "client/cmd/bench_load.h"

#include "core/clock.h"
#include "core/error.h"
#include "core/record.h"

#include <string.h>

#define FLIGHT_MAX 1024u
#define LEAST      (-1000000000000000)

#define FILL_KEYS  1000u
#define FILL_BYTES (1u << 20) /* of values and payloads in a transaction */

static struct azoth_bytes value_of(const struct bench_load *l)
{
    static char value[LOAD_VALUE_MAX];
    ensure(l->value_bytes >= 1 && l->value_bytes <= sizeof value);
    if (!value[0])
        memset(value, 'x', sizeof value);
    return (struct azoth_bytes){value, l->value_bytes};
}

/* How many keys are filled by one transaction. */
static uint32_t fill_batch(const struct bench_load *l)
{
    uint32_t fit = FILL_BYTES / (2 * l->value_bytes);
    return fit < FILL_KEYS ? fit : FILL_KEYS;
}

/* ---- times ---- */

int bench_load_times_add(struct bench_load_times *t, double ns)
{
    if (t->len == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 1024;
        double *p = realloc(t->ns, cap * sizeof *p);
        if (!p)
            return AZOTH_ERR_NOMEM;
        t->ns = p;
        t->cap = cap;
    }
    t->ns[t->len++] = ns;
    return 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_load_times_quantile(struct bench_load_times *t, double q)
{
    if (!t->len)
        return 0;
    qsort(t->ns, t->len, sizeof *t->ns, by_size);
    return t->ns[(size_t)(q * (double)(t->len - 1) + 0.5)];
}

/* ---- keys and transactions ---- */

uint64_t bench_load_random(uint64_t *s)
{
    /* xorshift64 (Marsaglia 2003). */
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

struct azoth_bytes bench_load_key(enum bench_load_kind kind, uint64_t i, char out[32])
{
    if (kind == LOAD_HOT)
        return azoth_str("hot");
    int n =
        snprintf(out, 32, "%s/%011llu", kind == LOAD_PAIR ? "acct" : "bank", (unsigned long long)i);
    return (struct azoth_bytes){out, (size_t)n};
}

/* Two different ones. */
static void pick_two(struct bench_load *l, uint64_t *ret_from, uint64_t *ret_to)
{
    uint64_t r = bench_load_random(&l->seed);
    *ret_from = r % l->keys;
    *ret_to = (*ret_from + 1 + (r >> 32) % (l->keys - 1)) % l->keys;
}

static void make_move(struct azoth_txn *t, struct azoth_bytes from, struct azoth_bytes to)
{
    azoth_require_min_i64(t, from, LEAST);
    azoth_add_i64(t, from, -1);
    if (to.len)
        azoth_add_i64(t, to, 1);
}

void bench_load_make(struct azoth_txn *t, struct bench_load *l)
{
    char a[32], b[32];
    uint64_t from, to;
    uint32_t events = 1;
    azoth_txn_reset(t);
    switch (l->kind) {
    case LOAD_PAIR:
        azoth_set_bytes(t, bench_load_key(l->kind, bench_load_random(&l->seed) % l->keys, a),
                        value_of(l));
        break;
    case LOAD_TRANSFER:
        pick_two(l, &from, &to);
        make_move(t, bench_load_key(l->kind, from, a), bench_load_key(l->kind, to, b));
        break;
    case LOAD_HOT:
        make_move(t, bench_load_key(l->kind, 0, a), (struct azoth_bytes){NULL, 0});
        break;
    case LOAD_EVENTS:
        events = l->events;
        break;
    }
    for (uint32_t i = 0; i < events; i++)
        azoth_event_bytes(t, LOAD_EVENT_TYPE, value_of(l));
}

int bench_load_fill(struct azoth *db, const struct bench_load *l, int (*stop)(void),
                    struct azoth_error *err)
{
    uint64_t n = l->kind == LOAD_HOT ? 1 : l->keys;
    uint32_t batch = fill_batch(l);
    struct azoth_txn *t = azoth_txn_new(db);
    if (!t)
        return error_set(err, AZOTH_ERR_NOMEM, "a transaction");
    int rc = 0;
    for (uint64_t i = 0; i < n && !rc && !(stop && stop());) {
        azoth_txn_reset(t);
        for (uint32_t k = 0; k < batch && i < n; k++, i++) {
            char key[32];
            if (l->kind == LOAD_PAIR)
                azoth_set_bytes(t, bench_load_key(l->kind, i, key), value_of(l));
            else if (l->kind != LOAD_EVENTS)
                azoth_set_i64(t, bench_load_key(l->kind, i, key), 0);
            azoth_event_bytes(t, LOAD_EVENT_TYPE, value_of(l));
        }
        rc = azoth_commit(t, NULL, err);
    }
    azoth_txn_free(t);
    return rc;
}

/* ---- the product ---- */

static int one_by_one(struct azoth *db, struct bench_load *l, uint64_t until_ns,
                      struct bench_load_times *times, uint64_t *ret_done, struct azoth_error *err)
{
    struct azoth_txn *t = azoth_txn_new(db);
    int rc = t ? 0 : error_set(err, AZOTH_ERR_NOMEM, "a transaction");
    for (uint64_t now = clock_mono_ns(); now < until_ns && !rc;) {
        bench_load_make(t, l);
        rc = azoth_commit(t, NULL, err);
        uint64_t after = clock_mono_ns();
        if (times && !rc)
            rc = bench_load_times_add(times, (double)(after - now));
        now = after;
        *ret_done += !rc;
    }
    azoth_txn_free(t);
    return rc;
}

struct flight {
    struct flying {
        struct flight *flight;
        struct azoth_txn *txn;
        uint64_t since_ns;
    } place[FLIGHT_MAX];
    struct flying *idle[FLIGHT_MAX];
    uint32_t idle_len;
    uint64_t done, now_ns;
    struct bench_load_times *times;
    int code;
    struct azoth_error error;
};

static void landed(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                   const struct azoth_error *err, void *arg)
{
    struct flying *y = arg;
    struct flight *f = y->flight;
    (void)t;
    (void)info;
    f->idle[f->idle_len++] = y;
    if (!code && f->times)
        code = bench_load_times_add(f->times, (double)(clock_mono_ns() - y->since_ns));
    f->done += !code;
    if (code && !f->code) {
        f->code = code;
        f->error = *err;
    }
}

static int launch(struct flight *f, struct bench_load *l)
{
    while (f->idle_len > 0 && !f->code) {
        struct flying *y = f->idle[--f->idle_len];
        bench_load_make(y->txn, l);
        y->since_ns = clock_mono_ns();
        int rc = azoth_submit(y->txn, landed, y, &f->error);
        if (rc) {
            f->idle[f->idle_len++] = y;
            f->code = rc;
        }
    }
    return f->code;
}

static int many(struct azoth *db, struct bench_load *l, uint32_t in_flight, uint64_t until_ns,
                struct bench_load_times *times, uint64_t *ret_done, struct azoth_error *err)
{
    struct flight *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(err, AZOTH_ERR_NOMEM, "transactions in flight");
    f->times = times;
    for (uint32_t i = 0; i < in_flight; i++) {
        f->place[i] = (struct flying){.flight = f, .txn = azoth_txn_new(db)};
        if (!f->place[i].txn)
            f->code = error_set(&f->error, AZOTH_ERR_NOMEM, "transactions in flight");
        f->idle[f->idle_len++] = &f->place[i];
    }
    while (clock_mono_ns() < until_ns && launch(f, l) == 0)
        azoth_poll(db, 1000);
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
    for (uint32_t i = 0; i < in_flight; i++)
        azoth_txn_free(f->place[i].txn);
    *ret_done = f->done;
    int rc = f->code;
    if (rc && err)
        *err = f->error;
    free(f);
    return rc;
}

int bench_load_product(struct azoth *db, struct bench_load *l, uint32_t in_flight,
                       uint64_t slice_ns, struct bench_load_times *times, double *ret_rate,
                       struct azoth_error *err)
{
    ensure(in_flight >= 1 && in_flight <= FLIGHT_MAX);
    uint64_t from = clock_mono_ns(), done = 0;
    int rc = in_flight == 1 ? one_by_one(db, l, from + slice_ns, times, &done, err)
                            : many(db, l, in_flight, from + slice_ns, times, &done, err);
    if (!rc)
        *ret_rate = (double)done * 1e9 / (double)(clock_mono_ns() - from);
    return rc;
}

/* ---- by hand ---- */

#define EVENT_HEAD (RECORD_EVENT_HEADER + sizeof LOAD_EVENT_TYPE - 1)
#define EVENT_MAX  (EVENT_HEAD + LOAD_VALUE_MAX)

static struct azoth_bytes event_of(const struct bench_load *l, uint64_t id)
{
    static unsigned char rec[EVENT_MAX];
    struct event_record ev = {
        .id = id, .txn = 1, .type = bytes_str(LOAD_EVENT_TYPE), .payload = value_of(l)};
    record_event_encode(rec, &ev);
    return bytes_of(rec, record_event_size(&ev));
}

/* With a checksum under any id but its own, made once for a slice: the size is what counts. */
static struct azoth_bytes event_like(const struct bench_load *l)
{
    static unsigned char made[EVENT_MAX];
    static struct azoth_bytes of;
    struct azoth_bytes one;
    if (of.len != EVENT_HEAD + l->value_bytes) {
        one = event_of(l, 1);
        memcpy(made, one.ptr, one.len);
        of = bytes_of(made, one.len);
    }
    return of;
}

static int floor_one(struct floor *f, struct bench_load *l, struct azoth_error *err)
{
    char a[32], b[32];
    uint64_t from, to;
    uint32_t events = 1;
    struct azoth_bytes k, k2;
    int rc = 0;
    switch (l->kind) {
    case LOAD_PAIR:
        k = bench_load_key(l->kind, bench_load_random(&l->seed) % l->keys, a);
        rc = floor_put_state(f, k, l->value_bytes, err);
        break;
    case LOAD_TRANSFER:
        pick_two(l, &from, &to);
        k = bench_load_key(l->kind, from, a);
        k2 = bench_load_key(l->kind, to, b);
        rc = floor_look(f, k, err);
        rc = rc ? rc : floor_look(f, k2, err);
        rc = rc ? rc : floor_put_state(f, k, 8, err);
        rc = rc ? rc : floor_put_state(f, k2, 8, err);
        break;
    case LOAD_HOT:
        k = bench_load_key(l->kind, 0, a);
        rc = floor_look(f, k, err);
        rc = rc ? rc : floor_put_state(f, k, 8, err);
        break;
    case LOAD_EVENTS:
        events = l->events;
        break;
    }
    for (uint32_t i = 0; i < events && !rc; i++)
        rc = floor_append(f, event_like(l), err);
    if (l->ids && !rc)
        rc = floor_put_id(f, err);
    return rc;
}

int bench_load_floor(struct floor *f, struct bench_load *l, uint32_t together, uint64_t slice_ns,
                     struct bench_load_times *times, double *ret_rate, struct azoth_error *err)
{
    uint64_t from = clock_mono_ns(), now = from, done = 0;
    int rc = 0;
    while (now - from < slice_ns && !rc) {
        rc = floor_begin(f, err);
        for (uint32_t i = 0; i < together && !rc; i++)
            rc = floor_one(f, l, err);
        if (!rc)
            rc = floor_commit(f, err);
        uint64_t after = clock_mono_ns();
        if (times && !rc)
            rc = bench_load_times_add(times, (double)(after - now));
        now = after;
        done += together;
    }
    if (!rc)
        *ret_rate = (double)done * 1e9 / (double)(now - from);
    return rc;
}

/* Records as the product writes them, so that floor_events() can check them. */
static int floor_fill_one(struct floor *f, const struct bench_load *l, uint64_t i,
                          struct azoth_error *err)
{
    char key[32];
    int rc = 0;
    if (l->kind != LOAD_EVENTS)
        rc = floor_put_state(f, bench_load_key(l->kind, i, key),
                             l->kind == LOAD_PAIR ? l->value_bytes : 8, err);
    return rc ? rc : floor_append(f, event_of(l, floor_head(f) + 1), err);
}

int bench_load_fill_floor(struct floor *f, const struct bench_load *l, int (*stop)(void),
                          struct azoth_error *err)
{
    uint64_t n = l->kind == LOAD_HOT ? 1 : l->keys;
    uint32_t batch = fill_batch(l);
    int rc = floor_lazy(f, 1, err);
    for (uint64_t i = 0; i < n && !rc;) {
        if (stop && stop())
            return 0; /* what is left out need not be synced either */
        rc = floor_begin(f, err);
        for (uint32_t k = 0; k < batch && i < n && !rc; k++, i++)
            rc = floor_fill_one(f, l, i, err);
        if (!rc)
            rc = floor_commit(f, err);
    }
    return rc ? rc : floor_lazy(f, 0, err);
}
