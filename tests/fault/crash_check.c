/* crash_check.c - what must hold after a death: the log, the state and the projection against what the
 * clients noted. K1 to K3 and K5 of test_crash.c. */
#include "tests/fault/crash.h"

#include "core/batchrec.h"
#include "core/error.h"
#include "core/store_lmdb.h"
#include "core/storecheck.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct tokens {
    char (*token)[48];
    size_t len;
};

static int by_token(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The log: ids without a gap (K2); *ret_rows is what the projection must hold (K3). */
static void read_log(struct azoth *db, const char *what, struct tokens *ret, char **ret_rows)
{
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_error err;
    uint64_t id = 0;
    int rc;
    size_t cap = 0, rows_len = 0;
    *ret = (struct tokens){0};
    *ret_rows = NULL;
    assert_int_equal(azoth_events(db, 1, 0, NULL, &it, &err), 0);
    while ((rc = azoth_events_next(it, &ev, &err)) == 1) {
        if (ret->len == cap) {
            cap = cap ? 2 * cap : 1024;
            ret->token = realloc(ret->token, cap * sizeof *ret->token);
            *ret_rows = realloc(*ret_rows, cap * 72);
            assert_true(ret->token && *ret_rows);
        }
        char *token = ret->token[ret->len++];
        const char *blank = memchr(ev.payload.ptr, ' ', ev.payload.len);
        size_t len = blank ? (size_t)(blank - (const char *)ev.payload.ptr) : ev.payload.len;
        assert_true(len < 48);
        memcpy(token, ev.payload.ptr, len);
        token[len] = 0;
        rows_len += (size_t)sprintf(*ret_rows + rows_len, "%" PRIu64 "|%s\n", ev.id, token);
        assert_true(ev.id == ++id);
    }
    if (rc)
        fail_msg("%s: event %" PRIu64 ": %s", what, id + 1, err.message);
    azoth_events_free(it);
    assert_true(ret->len > 0);
    qsort(ret->token, ret->len, sizeof *ret->token, by_token);
    for (size_t i = 1; i < ret->len; i++)
        if (strcmp(ret->token[i - 1], ret->token[i]) == 0)
            fail_msg("%s: %s was applied twice", what, ret->token[i]);
}

static void check_journal(const struct harness *h, const char *name, const char *what,
                          const struct tokens *t)
{
    char path[300], token[48];
    int rc;
    snprintf(path, sizeof path, "%s/journal-%s", h->dir, name);
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    while (fscanf(f, "%47s %d", token, &rc) == 2) {
        int there = bsearch(token, t->token, t->len, sizeof *t->token, by_token) != NULL;
        if (rc == 0 ? !there : rc != AZOTH_ERR_OUTCOME_UNKNOWN && there)
            fail_msg("%s: %s was answered %s and is%s in the log", what, token, azoth_code_name(rc),
                     there ? "" : " not");
    }
    fclose(f);
}

static void check_state(struct azoth *db, const char *what, size_t events)
{
    struct azoth_scan *s;
    struct azoth_bytes key;
    struct azoth_entry e;
    struct azoth_error err;
    int64_t n, sum = 0;
    int rc;
    assert_int_equal(
        azoth_scan(db, AZOTH_STR("n/"), (struct azoth_bytes){0}, (struct azoth_bytes){0}, &s, &err),
        0);
    while ((rc = azoth_scan_next(s, &key, &e, &err)) == 1) {
        assert_int_equal(azoth_value_i64(e.value, &n), 0);
        sum += n;
    }
    azoth_scan_free(s);
    assert_int_equal(rc, 0);
    if ((uint64_t)sum != events)
        fail_msg("%s: the state says %" PRId64 " additions, the log %zu", what, sum, events);
}

void crash_check_projection(const struct harness *h, const char *want, const char *what)
{
    static char out[8 << 20];
    char db[400];
    snprintf(db, sizeof db, "%s/projections/counts.db", h->dir);
    char *const argv[] = {"sqlite3", "-readonly", db, "SELECT id, n FROM seen ORDER BY id", NULL};
    assert_int_equal(harness_run(out, sizeof out, argv), 0);
    if (strcmp(out, want) != 0)
        fail_msg("%s: the projection is not a replay of the log", what);
}

static void on_finding(void *arg, const struct store_finding *f)
{
    print_message("%s: %s: %s\n", (const char *)arg, f->kind, f->message);
}

/* Whoever asks is told the whole chain: the record itself says whether something was hashed for that. */
static int record_trails(struct store *s)
{
    struct snapshot *sn;
    struct batch_head h;
    MDB_val k = {4, "head"}, v;
    assert_int_equal(snapshot_begin(s, &sn, NULL), 0);
    assert_int_equal(mdb_get(snapshot_txn(sn), store_lmdb(s)->dbi[DB_META], &k, &v), 0);
    assert_int_equal(batch_decode(bytes_of_val(v), &h), 0);
    snapshot_end(sn);
    return h.chain.event < h.event;
}

int crash_check_store(const struct harness *h, const char *what)
{
    struct store *s;
    struct store_check_sum sum;
    struct azoth_error err = {0};
    const struct store_check_tell tell = {.arg = (void *)(uintptr_t)what, .found = on_finding};
    assert_int_equal(store_open(h->dir, 0, &s, &err), 0);
    if (store_check(s, &tell, &sum, &err))
        fail_msg("%s: the store's check: %s", what, err.message);
    if (sum.findings || !sum.chain_checked)
        fail_msg("%s: the store's check has findings", what);
    int trails = record_trails(s);
    store_close(s);
    return trails;
}

char *crash_check(const struct harness *h, struct azoth *db, const char *what)
{
    struct tokens t;
    char *rows;
    struct azoth_error err;
    read_log(db, what, &t, &rows);
    check_journal(h, "client0", what, &t);
    check_journal(h, "client1", what, &t);
    check_journal(h, "prey", what, &t);
    check_state(db, what, t.len);
    crash_check_store(h, what);
    if (azoth_wait_projected(db, "counts", t.len, 20000, &err))
        fail_msg("%s: %s", what, err.message);
    free(t.token);
    return rows;
}
