/* test_bench_load.c - the load of the benchmarks: filling that can be ended, and sizes asked for. */
#include "client/cmd/bench_load.h"
#include "core/record.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fixture {
    char dir[64];
    struct azoth *db;
    struct floor *floor;
} fx;

static int setup(void **state)
{
    struct azoth_options o = {
        .flags = AZOTH_EMBEDDED | AZOTH_CREATE, .deadline_ms = 60000, .sync = "none"};
    char db[80], raw[80];
    (void)state;
    memset(&fx, 0, sizeof fx);
    snprintf(fx.dir, sizeof fx.dir, "/tmp/test-bench-load-XXXXXX");
    if (!mkdtemp(fx.dir))
        return -1;
    snprintf(db, sizeof db, "%s/db", fx.dir);
    snprintf(raw, sizeof raw, "%s/raw", fx.dir);
    return azoth_open(db, &o, &fx.db, NULL) || floor_open(raw, &fx.floor, NULL) ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    azoth_close(fx.db);
    floor_close(fx.floor);
    return nftw(fx.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int looks;

static int at_the_third_look(void)
{
    return ++looks >= 3;
}

static int there(uint64_t i)
{
    char key[32];
    int there = 0;
    assert_int_equal(azoth_exists(fx.db, bench_load_key(LOAD_PAIR, i, key), &there, NULL), 0);
    return there;
}

static void filling_ends_when_it_is_told_to(void **state)
{
    struct bench_load l = {.kind = LOAD_PAIR, .keys = 100000, .value_bytes = LOAD_VALUE};
    (void)state;
    looks = 0;
    assert_int_equal(bench_load_fill(fx.db, &l, at_the_third_look, NULL), 0);
    assert_true(there(0) && there(1999));
    assert_false(there(2000));
    assert_int_equal(looks, 3);
}

static void filling_by_hand_ends_when_it_is_told_to(void **state)
{
    struct bench_load l = {.kind = LOAD_PAIR, .keys = 100000, .value_bytes = LOAD_VALUE};
    (void)state;
    looks = 0;
    assert_int_equal(bench_load_fill_floor(fx.floor, &l, at_the_third_look, NULL), 0);
    assert_int_equal(floor_head(fx.floor), 2000);
    assert_int_equal(looks, 3);
}

static size_t product_size(uint64_t i)
{
    struct azoth_buffer buf = {0};
    struct azoth_entry e;
    char key[32];
    assert_int_equal(azoth_get(fx.db, bench_load_key(LOAD_PAIR, i, key), &buf, &e, NULL), 0);
    size_t n = e.value.enc.len;
    free(buf.ptr);
    return n;
}

static size_t floor_size(uint64_t i)
{
    static unsigned char rec[RECORD_STATE_HEADER + LOAD_VALUE_MAX + 1];
    size_t n;
    char key[32];
    assert_int_equal(floor_read(fx.floor, NULL), 0);
    assert_int_equal(
        floor_get(fx.floor, bench_load_key(LOAD_PAIR, i, key), rec, sizeof rec, &n, NULL), 0);
    floor_unread(fx.floor);
    return n;
}

/* The floor's records are of the product's size, and so are its events. */
static void same_sizes(uint32_t value_bytes, uint64_t keys)
{
    struct bench_load l = {
        .kind = LOAD_PAIR, .keys = keys, .value_bytes = value_bytes, .seed = 88172645463325252u};
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_error err;
    uint64_t bytes, n = 0;
    double rate;
    assert_int_equal(bench_load_fill(fx.db, &l, NULL, NULL), 0);
    assert_int_equal(bench_load_fill_floor(fx.floor, &l, NULL, NULL), 0);
    assert_int_equal(product_size(keys - 1), value_bytes);
    assert_int_equal(floor_size(keys - 1), record_state_size(value_bytes));
    assert_int_equal(floor_read(fx.floor, NULL), 0);
    assert_int_equal(floor_events(fx.floor, 1, keys, &bytes, &err), 0);
    floor_unread(fx.floor);
    assert_int_equal(bytes, keys * (RECORD_EVENT_HEADER + strlen(LOAD_EVENT_TYPE) + value_bytes));
    assert_int_equal(bench_load_product(fx.db, &l, 4, 1000000, NULL, &rate, &err), 0);
    assert_int_equal(bench_load_floor(fx.floor, &l, 4, 1000000, NULL, &rate, &err), 0);
    assert_int_equal(azoth_events(fx.db, 1, 0, NULL, &it, NULL), 0);
    for (; azoth_events_next(it, &ev, NULL) == 1; n++)
        assert_int_equal(ev.payload.len, value_bytes);
    azoth_events_free(it);
    assert_true(n > keys && floor_head(fx.floor) > keys);
}

/* Frames hold whole events, each once, whatever room a message has. */
static void frames_hold_each_event_once(void **state)
{
    static unsigned char message[1000];
    struct bench_load l = {.kind = LOAD_EVENTS, .keys = 100, .value_bytes = 100, .seed = 1};
    struct azoth_error err;
    struct event_record ev;
    uint64_t id = 1;
    size_t len;
    (void)state;
    assert_int_equal(bench_load_fill_floor(fx.floor, &l, NULL, NULL), 0);
    assert_int_equal(floor_read(fx.floor, NULL), 0);
    uint64_t last = floor_head(fx.floor);
    assert_int_equal(floor_frames(fx.floor, 1, last, message, 100, &len, &err), AZOTH_ERR_USAGE);
    while (id <= last) {
        int n = floor_frames(fx.floor, id, last, message, sizeof message, &len, &err);
        assert_true(n > 0 && len <= sizeof message);
        for (size_t at = 0; at < len; n--) {
            assert_int_equal(record_frame_next((struct azoth_bytes){message, len}, &at, &ev, NULL),
                             1);
            assert_int_equal(ev.id, id++);
        }
        assert_int_equal(n, 0);
    }
    assert_int_equal(id, 101);
    floor_unread(fx.floor);
}

static void records_have_the_size_asked_for(void **state)
{
    (void)state;
    same_sizes(5000, 1500);
}

static void the_smallest_records_have_it(void **state)
{
    (void)state;
    same_sizes(1, 1500);
}

/* A thousand of these are far over the limit of a transaction. */
static void the_largest_records_have_it(void **state)
{
    (void)state;
    same_sizes(LOAD_VALUE_MAX, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(filling_ends_when_it_is_told_to, setup, teardown),
        cmocka_unit_test_setup_teardown(filling_by_hand_ends_when_it_is_told_to, setup, teardown),
        cmocka_unit_test_setup_teardown(records_have_the_size_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_hold_each_event_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_smallest_records_have_it, setup, teardown),
        cmocka_unit_test_setup_teardown(the_largest_records_have_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
