/*
 * test_conformance.c - what users of the library may do, one test a capability, in embedded mode.
 */
#include "core/clock.h"
#include "tests/system/harness.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct harness h;
static struct azoth *db;
static struct azoth_error err;
static struct azoth_commit_info info;

#define KEY(s) AZOTH_STR(s)

static int setup(void **state)
{
    (void)state;
    harness_begin(&h);
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = "none", .deadline_ms = 5000};
    if (azoth_open(h.dir, &o, &db, &err)) {
        print_message("%s\n", err.message);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    azoth_close(db);
    db = NULL;
    harness_end(&h);
    return 0;
}

/* Commits and frees. */
static int commit(struct azoth_txn *t)
{
    int rc = azoth_commit(t, &info, &err);
    azoth_txn_free(t);
    return rc;
}

static void set_i64(struct azoth_bytes key, int64_t n)
{
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, key, n);
    assert_int_equal(commit(t), 0);
}

/* ---- opening, state ---- */

static void what_was_committed_is_there_after_closing_and_opening(void **state)
{
    (void)state;
    set_i64(KEY("k"), 7);
    azoth_close(db);
    struct azoth_options o = {.flags = AZOTH_EMBEDDED};
    assert_int_equal(azoth_open(h.dir, &o, &db, &err), 0);
    int64_t n;
    assert_int_equal(azoth_get_i64(db, KEY("k"), &n, &err), 0);
    assert_int_equal(n, 7);
}

static void the_same_directory_opened_twice_shares_one_writer(void **state)
{
    (void)state;
    struct azoth *second;
    assert_int_equal(azoth_open(h.dir, NULL, &second, &err), 0);
    set_i64(KEY("k"), 1);
    int64_t n;
    assert_int_equal(azoth_get_i64(second, KEY("k"), &n, &err), 0);
    assert_int_equal(n, 1);
    azoth_close(second);
    set_i64(KEY("k"), 2);
}

static void a_missing_key_is_not_found_and_named(void **state)
{
    (void)state;
    int64_t n;
    int there = 1;
    assert_int_equal(azoth_get_i64(db, KEY("no-such"), &n, &err), AZOTH_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "no-such"));
    assert_int_equal(azoth_exists(db, KEY("no-such"), &there, &err), 0);
    assert_int_equal(there, 0);
}

static void deleting_a_missing_key_is_no_error_and_is_reported(void **state)
{
    (void)state;
    set_i64(KEY("a"), 1);
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_delete(t, KEY("a"));
    azoth_delete(t, KEY("b"));
    assert_int_equal(commit(t), 0);
    assert_int_equal(info.keys_deleted, 1);
    assert_int_equal(info.keys_missing, 1);
    assert_int_equal(info.keys_written, 0);
}

static void a_scan_of_ten_thousand_keys_sees_each_once_in_order_in_one_snapshot(void **state)
{
    (void)state;
    for (int i = 0; i < 10000;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int k = 0; k < 1000; k++, i++) {
            char key[16];
            snprintf(key, sizeof key, "s/%05d", i);
            azoth_set_i64(t, azoth_str(key), i);
        }
        assert_int_equal(commit(t), 0);
    }
    struct azoth_scan *s;
    struct azoth_bytes key;
    struct azoth_entry e;
    int n = 0, rc;
    assert_int_equal(azoth_scan(db, KEY("s/"), KEY(""), KEY(""), &s, &err), 0);
    while ((rc = azoth_scan_next(s, &key, &e, &err)) == 1) {
        int64_t v;
        char want[16];
        if (n == 5000) /* a change in the middle is not seen */
            set_i64(KEY("s/99999"), 1);
        snprintf(want, sizeof want, "s/%05d", n);
        assert_memory_equal(key.ptr, want, 7);
        assert_int_equal(azoth_value_i64(e.value, &v), 0);
        assert_int_equal(v, n++);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(n, 10000);
    azoth_scan_free(s);
}

static int count_scan(struct azoth_bytes prefix, struct azoth_bytes from, struct azoth_bytes to)
{
    struct azoth_scan *s;
    struct azoth_bytes key;
    struct azoth_entry e;
    int n = 0, rc;
    assert_int_equal(azoth_scan(db, prefix, from, to, &s, &err), 0);
    while ((rc = azoth_scan_next(s, &key, &e, &err)) == 1)
        n++;
    assert_int_equal(rc, 0);
    azoth_scan_free(s);
    return n;
}

static void scans_by_prefix_and_range_take_bytes_of_any_value(void **state)
{
    (void)state;
    set_i64(KEY("a"), 1);
    set_i64(KEY("\xff"), 2);
    set_i64(KEY("\xff\xff"), 3);
    set_i64(KEY("\xff\xff\x01"), 4);
    set_i64(((struct azoth_bytes){"z\0z", 3}), 5);
    assert_int_equal(count_scan(KEY(""), KEY(""), KEY("")), 5);
    assert_int_equal(count_scan(KEY("\xff"), KEY(""), KEY("")), 3);
    assert_int_equal(count_scan(KEY("\xff\xff"), KEY(""), KEY("")), 2);
    assert_int_equal(count_scan(KEY(""), KEY("a"), KEY("\xff")), 2);
    assert_int_equal(count_scan(KEY(""), KEY("b"), KEY("")), 4);
    assert_int_equal(count_scan(KEY("q"), KEY(""), KEY("")), 0);
}

/* ---- values ---- */

static void values_of_all_six_types_come_back_as_they_went_in(void **state)
{
    (void)state;
    struct azoth_bytes set[] = {KEY("pear"), KEY("apple"), KEY("pear")},
                       list[] = {KEY("b"), KEY("a")};
    struct azoth_u256 big;
    assert_int_equal(azoth_u256_parse("115792089237316195423570985008687907853269984665640564039457"
                                      "584007913129639935",
                                      &big),
                     0);
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, KEY("i"), INT64_MIN);
    azoth_set_u256(t, KEY("u"), &big);
    azoth_set_set(t, KEY("s"), set, 3);
    azoth_set_array(t, KEY("l"), list, 2);
    azoth_set_bytes(t, KEY("b"), ((struct azoth_bytes){"\0\xff", 2}));
    azoth_set_string(t, KEY("t"), KEY("caf\xc3\xa9"));
    assert_int_equal(commit(t), 0);
    assert_int_equal(info.keys_written, 6);
    static const char *const keys[] = {"i", "u", "s", "l", "b", "t"};
    static const char *const want[] = {
        "-9223372036854775808",
        ("{\"u256\":"
         "\"115792089237316195423570985008687907853269984665640564039457584007913129639935\"}"),
        "{\"set\":[\"apple\",\"pear\"]}",
        "[\"b\",\"a\"]",
        "{\"bytes\":\"AP8=\"}",
        "\"caf\xc3\xa9\""};
    struct azoth_buffer buf = {0};
    for (int i = 0; i < 6; i++) {
        struct azoth_entry e;
        char json[200];
        assert_int_equal(azoth_get(db, azoth_str(keys[i]), &buf, &e, &err), 0);
        assert_int_equal(e.version, info.txn);
        azoth_value_json(e.value, json, sizeof json);
        assert_string_equal(json, want[i]);
    }
    free(buf.ptr);
}

static void arithmetic_never_wraps_and_refuses_its_transaction_alone(void **state)
{
    (void)state;
    struct azoth_u256 one, max;
    azoth_u256_parse("1", &one);
    azoth_u256_parse(
        "115792089237316195423570985008687907853269984665640564039457584007913129639935", &max);
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, KEY("i"), INT64_MAX);
    azoth_set_u256(t, KEY("u"), &max);
    azoth_set_string(t, KEY("t"), KEY("text"));
    assert_int_equal(commit(t), 0);
    t = azoth_txn_new(db);
    azoth_set_i64(t, KEY("other"), 1);
    azoth_add_i64(t, KEY("i"), 1);
    assert_int_equal(commit(t), AZOTH_ERR_OVERFLOW);
    assert_non_null(strstr(err.message, "key i"));
    t = azoth_txn_new(db);
    azoth_add_u256(t, KEY("u"), &one);
    assert_int_equal(commit(t), AZOTH_ERR_OVERFLOW);
    t = azoth_txn_new(db);
    azoth_add_i64(t, KEY("new-u"), 0);
    azoth_add_i64(t, KEY("t"), 1);
    assert_int_equal(commit(t), AZOTH_ERR_TYPE);
    int there;
    assert_int_equal(azoth_exists(db, KEY("other"), &there, &err), 0);
    assert_int_equal(there, 0); /* nothing of a refused one */
    t = azoth_txn_new(db);
    azoth_set_u256(t, KEY("u"), &one);
    azoth_add_i64(t, KEY("u"), -2);
    assert_int_equal(commit(t), AZOTH_ERR_UNDERFLOW);
}

static void sets_and_arrays_change_by_member(void **state)
{
    (void)state;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_add(t, KEY("s"), KEY("b"));
    azoth_set_add(t, KEY("s"), KEY("a"));
    azoth_set_add(t, KEY("s"), KEY("b"));
    azoth_set_remove(t, KEY("s"), KEY("nope"));
    azoth_array_push(t, KEY("l"), KEY("x"));
    azoth_array_push(t, KEY("l"), KEY("x"));
    assert_int_equal(commit(t), 0);
    struct azoth_buffer buf = {0};
    struct azoth_entry e;
    char json[100];
    assert_int_equal(azoth_get(db, KEY("s"), &buf, &e, &err), 0);
    azoth_value_json(e.value, json, sizeof json);
    assert_string_equal(json, "{\"set\":[\"a\",\"b\"]}");
    assert_int_equal(azoth_get(db, KEY("l"), &buf, &e, &err), 0);
    azoth_value_json(e.value, json, sizeof json);
    assert_string_equal(json, "[\"x\",\"x\"]");
    free(buf.ptr);
}

/* ---- events ---- */

static void several_events_of_a_transaction_have_one_range_of_ids_without_gaps(void **state)
{
    (void)state;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_event_json(t, "a:b", "{\"n\":1}");
    azoth_event_bytes(t, "raw", ((struct azoth_bytes){"\0\x01\xff", 3}));
    azoth_event(t, &(struct azoth_event_in){.type = KEY("full"),
                                            .payload = KEY("{}"),
                                            .stream = KEY("order/7"),
                                            .metadata = KEY("{\"by\":\"me\"}")});
    assert_int_equal(commit(t), 0);
    assert_int_equal(info.first_event, 1);
    assert_int_equal(info.last_event, 3);
    struct azoth_events *it;
    struct azoth_event ev;
    assert_int_equal(azoth_events(db, 1, 0, NULL, &it, &err), 0);
    assert_int_equal(azoth_events_next(it, &ev, &err), 1);
    assert_int_equal(ev.id, 1);
    assert_memory_equal(ev.type.ptr, "a:b", 3);
    assert_int_equal(azoth_events_next(it, &ev, &err), 1);
    assert_int_equal(ev.payload.len, 3);
    assert_memory_equal(ev.payload.ptr, "\0\x01\xff", 3);
    assert_int_equal(azoth_events_next(it, &ev, &err), 1);
    assert_memory_equal(ev.stream.ptr, "order/7", 7);
    assert_memory_equal(ev.metadata.ptr, "{\"by\":\"me\"}", 11);
    assert_int_equal(ev.txn, info.txn);
    assert_int_equal(azoth_events_next(it, &ev, &err), 0);
    azoth_events_free(it);
}

static void events_are_read_from_any_id_to_any_id_and_by_type(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct azoth_txn *t = azoth_txn_new(db);
        azoth_event_json(t, i % 2 ? "odd" : "even", "{}");
        assert_int_equal(commit(t), 0);
    }
    static const struct {
        uint64_t from, to;
        const char *type;
        int n;
    } cases[] = {{1, 0, NULL, 10}, {4, 0, NULL, 7},   {4, 7, NULL, 3},
                 {1, 0, "odd", 5}, {2, 4, "even", 1}, {11, 0, NULL, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct azoth_events *it;
        struct azoth_event ev;
        int n = 0;
        assert_int_equal(azoth_events(db, cases[i].from, cases[i].to, cases[i].type, &it, &err), 0);
        while (azoth_events_next(it, &ev, &err) == 1)
            n++;
        azoth_events_free(it);
        assert_int_equal(n, cases[i].n);
    }
}

static void
following_returns_what_is_there_then_what_comes_then_waits_no_longer_than_asked(void **state)
{
    (void)state;
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_event_json(t, "e", "{}");
    assert_int_equal(commit(t), 0);
    assert_int_equal(azoth_events(db, 1, 0, NULL, &it, &err), 0);
    assert_int_equal(azoth_events_follow(it, 1000, &ev, &err), 1);
    uint64_t from = clock_mono_ns();
    assert_int_equal(azoth_events_follow(it, 50, &ev, &err), 0);
    assert_in_range(clock_mono_ns() - from, 50 * NS_PER_MS, 1000 * NS_PER_MS);
    t = azoth_txn_new(db);
    azoth_event_json(t, "e", "{}");
    assert_int_equal(commit(t), 0);
    assert_int_equal(azoth_events_follow(it, 1000, &ev, &err), 1);
    assert_int_equal(ev.id, 2);
    azoth_events_free(it);
}

static void a_payload_that_is_no_json_is_refused_where_json_is_promised(void **state)
{
    (void)state;
    struct azoth_txn *t = azoth_txn_new(db);
    assert_int_equal(azoth_event_json(t, "e", "{\"n\":"), AZOTH_ERR_BAD_JSON);
    /* The first error stays with the transaction. */
    azoth_set_i64(t, KEY("k"), 1);
    assert_int_equal(commit(t), AZOTH_ERR_BAD_JSON);
}

static void state_and_events_commit_together_or_not_at_all(void **state)
{
    (void)state;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, KEY("k"), 1);
    azoth_event_json(t, "e", "{}");
    azoth_require_exists(t, KEY("missing"));
    assert_int_equal(commit(t), AZOTH_ERR_PREFLIGHT_FAILED);
    uint64_t head = 9;
    assert_int_equal(azoth_head(db, &head, NULL, &err), 0);
    assert_int_equal(head, 0);
    int there = 1;
    assert_int_equal(azoth_exists(db, KEY("k"), &there, &err), 0);
    assert_int_equal(there, 0);
}

/* ---- requirements ---- */

static int require_commit(int (*add)(struct azoth_txn *, struct azoth_bytes), const char *key)
{
    struct azoth_txn *t = azoth_txn_new(db);
    add(t, azoth_str(key));
    azoth_set_i64(t, KEY("effect"), 1);
    return commit(t);
}

static int require_i64(int (*add)(struct azoth_txn *, struct azoth_bytes, int64_t), const char *key,
                       int64_t n)
{
    struct azoth_txn *t = azoth_txn_new(db);
    add(t, azoth_str(key), n);
    azoth_set_i64(t, KEY("effect"), 1);
    return commit(t);
}

static void ready_made_requirements_hold_or_name_the_key(void **state)
{
    (void)state;
    set_i64(KEY("n"), 10);
    uint64_t version = info.txn;
    assert_int_equal(require_commit(azoth_require_exists, "n"), 0);
    assert_int_equal(require_commit(azoth_require_exists, "m"), AZOTH_ERR_PREFLIGHT_FAILED);
    assert_non_null(strstr(err.message, "key m"));
    assert_int_equal(require_commit(azoth_require_absent, "m"), 0);
    assert_int_equal(require_commit(azoth_require_absent, "n"), AZOTH_ERR_PREFLIGHT_FAILED);
    /* Bounds are inclusive; a missing key fails. */
    assert_int_equal(require_i64(azoth_require_min_i64, "n", 10), 0);
    assert_int_equal(require_i64(azoth_require_min_i64, "n", 11), AZOTH_ERR_PREFLIGHT_FAILED);
    assert_int_equal(require_i64(azoth_require_max_i64, "n", 10), 0);
    assert_int_equal(require_i64(azoth_require_max_i64, "n", 9), AZOTH_ERR_PREFLIGHT_FAILED);
    assert_int_equal(require_i64(azoth_require_min_i64, "m", 0), AZOTH_ERR_PREFLIGHT_FAILED);
    assert_non_null(strstr(err.message, "key m"));
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_require_version(t, KEY("n"), version);
    azoth_require_type(t, KEY("n"), AZOTH_TYPE_I64);
    int64_t ten = 10;
    azoth_require_equals(t, KEY("n"), (struct azoth_value){AZOTH_TYPE_I64, {&ten, 8}});
    azoth_add_i64(t, KEY("n"), 1);
    assert_int_equal(commit(t), 0);
    t = azoth_txn_new(db);
    azoth_require_version(t, KEY("n"), version);
    azoth_add_i64(t, KEY("n"), 1);
    assert_int_equal(commit(t), AZOTH_ERR_PREFLIGHT_FAILED);
    t = azoth_txn_new(db);
    azoth_require_type(t, KEY("n"), AZOTH_TYPE_SET);
    assert_int_equal(commit(t), AZOTH_ERR_PREFLIGHT_FAILED);
    t = azoth_txn_new(db);
    azoth_set_add(t, KEY("s"), KEY("x"));
    assert_int_equal(commit(t), 0);
    t = azoth_txn_new(db);
    azoth_require_contains(t, KEY("s"), KEY("x"));
    assert_int_equal(commit(t), 0);
    t = azoth_txn_new(db);
    azoth_require_contains(t, KEY("s"), KEY("y"));
    assert_int_equal(commit(t), AZOTH_ERR_PREFLIGHT_FAILED);
}

/* ---- callbacks ---- */

static int read_undeclared(struct azoth_txn *t, void *arg)
{
    struct azoth_entry e;
    (void)arg;
    return azoth_txn_get(t, KEY("undeclared"), &e);
}

static int write_read_only(struct azoth_txn *t, void *arg)
{
    (void)arg;
    return azoth_set_i64(t, KEY("r"), 1);
}

static int scan_inside(struct azoth_txn *t, void *arg)
{
    struct azoth_scan *s;
    struct azoth_error why;
    (void)t;
    (void)arg;
    return azoth_scan(db, KEY(""), KEY(""), KEY(""), &s, &why);
}

static int double_it(struct azoth_txn *t, void *arg)
{
    int64_t n;
    (void)arg;
    int rc = azoth_txn_get_i64(t, KEY("w"), &n);
    return rc ? rc : azoth_set_i64(t, KEY("w"), 2 * n);
}

static int refuse(struct azoth_txn *t, void *arg)
{
    return azoth_reject(t, "no %s today", (const char *)arg);
}

static int with_callback(int (*add)(struct azoth_txn *, azoth_callback, void *), azoth_callback fn)
{
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_read(t, KEY("r"));
    azoth_write(t, KEY("w"));
    add(t, fn, "money");
    return commit(t);
}

static void callbacks_see_declared_keys_only_and_yield_operations(void **state)
{
    (void)state;
    set_i64(KEY("w"), 21);
    assert_int_equal(with_callback(azoth_execute, double_it), 0);
    int64_t n;
    assert_int_equal(azoth_get_i64(db, KEY("w"), &n, &err), 0);
    assert_int_equal(n, 42);
    assert_int_equal(with_callback(azoth_validate, refuse), AZOTH_ERR_REJECTED);
    assert_string_equal(err.message, "no money today");
    assert_int_equal(with_callback(azoth_validate, read_undeclared), AZOTH_ERR_UNDECLARED_KEY);
    assert_non_null(strstr(err.message, "undeclared"));
    assert_int_equal(with_callback(azoth_execute, write_read_only), AZOTH_ERR_UNDECLARED_KEY);
    assert_int_equal(with_callback(azoth_validate, scan_inside), AZOTH_ERR_SCAN_IN_CALLBACK);
    assert_int_equal(with_callback(azoth_validate, double_it), AZOTH_ERR_USAGE);
}

/* ---- ids ---- */

static void the_same_id_answers_with_the_first_result_and_commits_nothing(void **state)
{
    (void)state;
    struct azoth_txn *t = azoth_txn_new(db);
    uint8_t id[16];
    azoth_require_absent(t, KEY("once"));
    azoth_set_i64(t, KEY("once"), 1);
    azoth_event_json(t, "e", "{}");
    assert_int_equal(azoth_commit(t, &info, &err), 0);
    assert_int_equal(info.duplicate, 0);
    uint64_t txn = info.txn;
    /* Its own `absent` does not hold any more: the id is looked at first. */
    assert_int_equal(azoth_commit(t, &info, &err), 0);
    assert_int_equal(info.duplicate, 1);
    assert_int_equal(info.txn, txn);
    assert_int_equal(info.first_event, 1);
    azoth_txn_id(t, id);
    azoth_txn_reset(t);
    azoth_txn_set_id(t, id);
    azoth_set_i64(t, KEY("another"), 1);
    assert_int_equal(azoth_commit(t, &info, &err), AZOTH_ERR_ID_REUSED);
    assert_int_equal(azoth_outcome(db, id, &info, &err), 0);
    assert_int_equal(info.txn, txn);
    id[0] ^= 1;
    assert_int_equal(azoth_outcome(db, id, &info, &err), AZOTH_ERR_NOT_FOUND);
    azoth_txn_free(t);
}

/* ---- asynchronous ---- */

static int landed;
static uint64_t last_txn;

static void on_done(struct azoth_txn *t, int code, const struct azoth_commit_info *i,
                    const struct azoth_error *why, void *arg)
{
    (void)why;
    (void)arg;
    assert_int_equal(code, 0);
    /* One submitter's transactions are applied in the order of submission. */
    assert_true(i->txn > 0);
    last_txn = i->txn > last_txn ? i->txn : last_txn;
    landed++;
    azoth_txn_free(t);
}

static void many_transactions_in_flight_are_each_told_once_and_keep_their_order(void **state)
{
    (void)state;
    landed = 0;
    for (int i = 0; i < 500; i++) {
        char json[40];
        struct azoth_txn *t = azoth_txn_new(db);
        snprintf(json, sizeof json, "{\"n\":%d}", i);
        azoth_event_json(t, "e", json);
        assert_int_equal(azoth_submit(t, on_done, NULL, &err), 0);
    }
    while (azoth_in_flight(db))
        assert_true(azoth_poll(db, 1000) >= 0);
    assert_int_equal(landed, 500);
    struct azoth_events *it;
    struct azoth_event ev;
    assert_int_equal(azoth_events(db, 1, 0, NULL, &it, &err), 0);
    for (int i = 0; i < 500; i++) {
        char want[40];
        snprintf(want, sizeof want, "{\"n\":%d}", i);
        assert_int_equal(azoth_events_next(it, &ev, &err), 1);
        assert_int_equal(ev.payload.len, strlen(want));
        assert_memory_equal(ev.payload.ptr, want, strlen(want));
    }
    azoth_events_free(it);
}

static void transactions_in_flight_on_one_key_keep_their_order_among_others(void **state)
{
    (void)state;
    landed = 0;
    for (int i = 0; i < 300; i++) {
        char member[16], other[16];
        struct azoth_txn *t = azoth_txn_new(db);
        snprintf(member, sizeof member, "%d", i);
        snprintf(other, sizeof other, "other/%d", i % 17);
        if (i % 3 == 0)
            azoth_array_push(t, KEY("list"), azoth_str(member));
        azoth_add_i64(t, azoth_str(other), 1);
        azoth_txn_set_deadline(t, 60000);
        assert_int_equal(azoth_submit(t, on_done, NULL, &err), 0);
    }
    while (azoth_in_flight(db))
        assert_true(azoth_poll(db, 1000) >= 0);
    assert_int_equal(landed, 300);
    struct azoth_buffer buf = {0};
    struct azoth_entry e;
    struct azoth_bytes m;
    size_t at = 0;
    int i = 0;
    assert_int_equal(azoth_get(db, KEY("list"), &buf, &e, &err), 0);
    for (; azoth_value_next(e.value, &at, &m); i += 3) {
        char want[16];
        snprintf(want, sizeof want, "%d", i);
        assert_int_equal(m.len, strlen(want));
        assert_memory_equal(m.ptr, want, m.len);
    }
    assert_int_equal(i, 300);
    free(buf.ptr);
}

/* ---- threads ---- */

static void *add_many(void *arg)
{
    struct azoth_error why;
    char own[24];
    snprintf(own, sizeof own, "thread/%p", arg);
    for (long i = 0; i < 100; i++) {
        struct azoth_txn *t = azoth_txn_new(db);
        azoth_add_i64(t, KEY("shared"), 1);
        azoth_add_i64(t, azoth_str(own), 1);
        azoth_event_json(t, "added", "{}");
        int rc = azoth_commit(t, NULL, &why);
        azoth_txn_free(t);
        if (rc)
            return t;
    }
    return NULL;
}

static void *read_many(void *arg)
{
    _Atomic int *stop = arg;
    int64_t last = 0, n;
    struct azoth_error why;
    while (!atomic_load(stop)) {
        int rc = azoth_get_i64(db, KEY("shared"), &n, &why);
        if (rc == AZOTH_ERR_NOT_FOUND)
            continue;
        if (rc || n < last) /* a counter that only grows is never seen smaller */
            return arg;
        last = n;
    }
    return NULL;
}

static void sixteen_threads_of_one_handle_write_while_others_read(void **state)
{
    (void)state;
    pthread_t w[16], r[4];
    _Atomic int stop = 0;
    void *bad;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&r[i], NULL, read_many, &stop), 0);
    for (int i = 0; i < 16; i++)
        assert_int_equal(pthread_create(&w[i], NULL, add_many, (void *)(intptr_t)(i + 1)), 0);
    for (int i = 0; i < 16; i++) {
        pthread_join(w[i], &bad);
        assert_null(bad);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 4; i++) {
        pthread_join(r[i], &bad);
        assert_null(bad);
    }
    int64_t n;
    uint64_t head;
    assert_int_equal(azoth_get_i64(db, KEY("shared"), &n, &err), 0);
    assert_int_equal(n, 1600);
    assert_int_equal(azoth_head(db, &head, NULL, &err), 0);
    assert_int_equal(head, 1600);
    assert_true(harness_segment_clean(&h, 1000));
}

/* ---- limits ---- */

static int one(int (*add)(struct azoth_txn *, struct azoth_bytes, struct azoth_bytes),
               size_t key_len, size_t value_len)
{
    static char bytes[2 << 20];
    struct azoth_txn *t = azoth_txn_new(db);
    add(t, (struct azoth_bytes){bytes, key_len}, (struct azoth_bytes){bytes, value_len});
    return commit(t);
}

static void what_is_over_its_limit_is_refused_by_name(void **state)
{
    (void)state;
    assert_int_equal(one(azoth_set_bytes, 0, 1), AZOTH_ERR_KEY_SIZE);
    assert_int_equal(one(azoth_set_bytes, 511, 1), 0);
    assert_int_equal(one(azoth_set_bytes, 512, 1), AZOTH_ERR_KEY_SIZE);
    assert_int_equal(one(azoth_set_bytes, 1, AZOTH_VALUE_MAX), 0);
    assert_int_equal(one(azoth_set_bytes, 1, AZOTH_VALUE_MAX + 1), AZOTH_ERR_VALUE_SIZE);
    char type[300];
    memset(type, 'e', sizeof type);
    type[256] = 0;
    struct azoth_txn *t = azoth_txn_new(db);
    assert_int_equal(azoth_event_bytes(t, "", KEY("x")), AZOTH_ERR_EVENT_TYPE);
    azoth_txn_reset(t);
    assert_int_equal(azoth_event_bytes(t, type, KEY("x")), AZOTH_ERR_EVENT_TYPE);
    azoth_txn_reset(t);
    type[255] = 0;
    assert_int_equal(azoth_event_bytes(t, type, KEY("x")), 0);
    assert_int_equal(azoth_commit(t, &info, &err), 0);
    azoth_txn_reset(t);
    assert_int_equal(azoth_set_string(t, KEY("k"), KEY("\xc3\x28")), AZOTH_ERR_UTF8);
    azoth_txn_reset(t);
    int rc = 0, n = 0;
    for (; !rc; n++)
        rc = azoth_delete(t, KEY("k"));
    assert_int_equal(rc, AZOTH_ERR_TXN_SIZE);
    assert_int_equal(n, AZOTH_TXN_ITEMS_MAX + 1);
    azoth_txn_reset(t);
    static char mega[1 << 20];
    for (rc = 0, n = 0; !rc; n++)
        rc = azoth_event_bytes(t, "e", (struct azoth_bytes){mega, sizeof mega - 1000});
    assert_int_equal(rc, AZOTH_ERR_TXN_SIZE);
    assert_int_equal(n, 5);
    azoth_txn_free(t);
}

static void a_transaction_of_a_thousand_events_and_five_hundred_keys_is_one_commit(void **state)
{
    (void)state;
    static char payload[200];
    struct azoth_txn *t = azoth_txn_new(db);
    for (int i = 0; i < 1000; i++)
        azoth_event_bytes(t, "e", (struct azoth_bytes){payload, sizeof payload});
    for (int i = 0; i < 500; i++) {
        char key[16];
        snprintf(key, sizeof key, "many/%d", i);
        azoth_set_i64(t, azoth_str(key), i);
    }
    assert_int_equal(commit(t), 0);
    assert_int_equal(info.last_event - info.first_event + 1, 1000);
    assert_int_equal(info.keys_written, 500);
    assert_true(harness_segment_clean(&h, 1000));
}

/* ---- pausing ---- */

static void a_pause_refuses_or_holds_writes_and_ends_by_itself(void **state)
{
    (void)state;
    assert_int_equal(azoth_pause(db, 300, &err), 0);
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, KEY("k"), 1);
    assert_int_equal(azoth_commit(t, &info, &err), AZOTH_ERR_PAUSED);
    struct azoth *patient;
    struct azoth_options o = {.wait_paused = 1};
    assert_int_equal(azoth_open(h.dir, &o, &patient, &err), 0);
    struct azoth_txn *w = azoth_txn_new(patient);
    azoth_set_i64(w, KEY("k"), 2);
    uint64_t from = clock_mono_ns();
    assert_int_equal(azoth_commit(w, &info, &err), 0);
    assert_true(clock_mono_ns() - from > 100 * NS_PER_MS);
    assert_int_equal(azoth_pause(db, 60000, &err), 0);
    assert_int_equal(azoth_resume(db, &err), 0);
    assert_int_equal(azoth_commit(t, &info, &err), 0);
    azoth_txn_free(w);
    azoth_txn_free(t);
    azoth_close(patient);
}

/* ---- other processes ---- */

static void another_process_attaches_and_cannot_be_a_second_writer(void **state)
{
    (void)state;
    char self[256];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    struct process *p = harness_start(&h, "other", 0, self, "--other", h.dir, NULL);
    assert_int_equal(harness_wait(&h, p, 10000), 0);
    int64_t n;
    assert_int_equal(azoth_get_i64(db, KEY("from-other"), &n, &err), 0);
    assert_int_equal(n, 5);
}

static int other_main(const char *dir)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED};
    if (azoth_open(dir, &o, &db, &err) != AZOTH_ERR_WRITER_RUNNING)
        return 1;
    if (azoth_open(dir, NULL, &db, &err))
        return 2;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, KEY("from-other"), 5);
    int rc = commit(t);
    azoth_close(db);
    return rc ? 3 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--other") == 0)
        return other_main(argv[2]);
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_was_committed_is_there_after_closing_and_opening),
        T(the_same_directory_opened_twice_shares_one_writer),
        T(a_missing_key_is_not_found_and_named),
        T(deleting_a_missing_key_is_no_error_and_is_reported),
        T(a_scan_of_ten_thousand_keys_sees_each_once_in_order_in_one_snapshot),
        T(scans_by_prefix_and_range_take_bytes_of_any_value),
        T(values_of_all_six_types_come_back_as_they_went_in),
        T(arithmetic_never_wraps_and_refuses_its_transaction_alone),
        T(sets_and_arrays_change_by_member),
        T(several_events_of_a_transaction_have_one_range_of_ids_without_gaps),
        T(events_are_read_from_any_id_to_any_id_and_by_type),
        T(following_returns_what_is_there_then_what_comes_then_waits_no_longer_than_asked),
        T(a_payload_that_is_no_json_is_refused_where_json_is_promised),
        T(state_and_events_commit_together_or_not_at_all),
        T(ready_made_requirements_hold_or_name_the_key),
        T(callbacks_see_declared_keys_only_and_yield_operations),
        T(the_same_id_answers_with_the_first_result_and_commits_nothing),
        T(many_transactions_in_flight_are_each_told_once_and_keep_their_order),
        T(transactions_in_flight_on_one_key_keep_their_order_among_others),
        T(sixteen_threads_of_one_handle_write_while_others_read),
        T(what_is_over_its_limit_is_refused_by_name),
        T(a_transaction_of_a_thousand_events_and_five_hundred_keys_is_one_commit),
        T(a_pause_refuses_or_holds_writes_and_ends_by_itself),
        T(another_process_attaches_and_cannot_be_a_second_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
