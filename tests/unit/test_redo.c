/*
 * test_redo.c - redo records and marks: their codecs, that a state is rebuilt from them exactly, and when
 * they are written, removed and given up.
 */
#include "core/error.h"
#include "core/mark.h"
#include "core/redo.h"
#include "writer/append.h"
#include "writer/control.h"
#include "writer/create.h"
#include "tests/unit/seed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct store *store;
static struct append *append;
static struct azoth_error err;
static const uint8_t place[2][MARK_PLACE] = {{1}, {2}};
static struct append_limits limits;

/* ---- a database of one's own ---- */

static int setup(void **state)
{
    (void)state;
    struct buf record = {0};
    strcpy(dir, "/tmp/azoth-redo-XXXXXX");
    limits = (struct append_limits){1000, 1000000, 1u << 30};
    if (!mkdtemp(dir) || store_create(dir, 0, &err) || store_open(dir, STORE_WRITE, &store, &err) ||
        append_open(store, 2, &append, &record, &err))
        return -1;
    buf_fini(&record);
    return 0;
}

static int teardown(void **state)
{
    static const char *const files[] = {"data.mdb", "lock.mdb", "uuid"};
    (void)state;
    append_close(append);
    store_close(store);
    char path[100];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/projections", dir);
    return rmdir(path) || rmdir(dir);
}

static void begin(void)
{
    static int64_t clock_ns = 1700000000000000000;
    assert_int_equal(append_begin(append, clock_ns++, 0, &err), 0);
}

static int trims = 1;

static void commit(void)
{
    assert_int_equal(append_expire_ids(append, &limits, &err), 0);
    if (trims)
        assert_int_equal(append_trim_redo(append, &limits, &err), 0);
    assert_int_equal(append_commit(append, NULL, 0, &err), 0);
}

/* One transaction in the batch that is open: its id is n's. */
static void apply(struct txn_builder *b, uint64_t n)
{
    uint8_t id[AZOTH_ID_BYTES] = {0};
    struct txn_result r;
    int code;
    put_u64(id, n);
    assert_int_equal(append_apply(append, txn_image(b), id, n, &code, &r, &err), 0);
    assert_int_equal(code, 0);
    txn_builder_clear(b);
}

static int control(const char *operation, const void *argument, size_t len)
{
    struct txn_builder b = {0};
    struct txn_result r;
    int code;
    assert_int_equal(txn_set_control(&b, bytes_str(operation), bytes_of(argument, len), &err), 0);
    assert_int_equal(control_apply(append, txn_image(&b), &code, &r, &err), 0);
    txn_builder_fini(&b);
    return code;
}

static void move(const uint8_t *to, uint64_t txn)
{
    unsigned char argument[CONTROL_MARK_MOVE] = {0};
    memcpy(argument, to, MARK_PLACE);
    put_u64(argument + 16, txn);
    begin();
    assert_int_equal(control("mark", argument, sizeof argument), 0);
    commit();
}

/* n transactions in a commit, each a counter and one key of its own. */
static void counts(uint64_t n)
{
    struct txn_builder b = {0};
    struct azoth_value one = {AZOTH_TYPE_I64, {"\1\0\0\0\0\0\0\0", 8}};
    begin();
    for (uint64_t i = 0; i < n; i++) {
        char key[32];
        uint64_t txn = append_head(append)->txn + 1;
        snprintf(key, sizeof key, "k%llu", (unsigned long long)txn);
        assert_int_equal(txn_add_value(&b, TXN_ADD, bytes_str("n"), one, &err), 0);
        assert_int_equal(txn_add_value(&b, TXN_SET, bytes_str(key), one, &err), 0);
        apply(&b, txn);
    }
    commit();
    txn_builder_fini(&b);
}

/* Transactions that have redo records: the first and how many, which must have no gap among them. */
static uint64_t redo_from(uint64_t *ret_n)
{
    struct snapshot *sn;
    struct redo_scan *rs;
    struct redo_record r;
    uint64_t first = 0;
    int rc;
    *ret_n = 0;
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(redo_scan_open(sn, 0, &rs, &err), 0);
    while ((rc = redo_scan_next(rs, &r, NULL, &err)) == 1) {
        if (!first)
            first = r.txn;
        assert_int_equal(r.txn, first + *ret_n);
        ++*ret_n;
    }
    assert_int_equal(rc, 0);
    redo_scan_close(rs);
    snapshot_end(sn);
    return first;
}

static struct mark mark_of(const uint8_t *of)
{
    struct snapshot *sn;
    struct mark m[MARKS_MAX], found = {0};
    uint32_t n;
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(snapshot_marks(sn, m, MARKS_MAX, &n, &err), 0);
    for (uint32_t i = 0; i < n; i++)
        if (memcmp(m[i].place, of, MARK_PLACE) == 0)
            found = m[i];
    snapshot_end(sn);
    return found;
}

/* ---- codecs ---- */

static size_t encoded(unsigned char *out)
{
    struct redo_record r = {.txn = 9,
                            .time_ns = -5,
                            .first_event = 3,
                            .last_event = 4,
                            .running_ms = 6,
                            .id_first = 7,
                            .has_id = 1,
                            .id = {8},
                            .id_age = 10,
                            .content = 11,
                            .keys_written = 12,
                            .keys_deleted = 13,
                            .keys_missing = 14,
                            .ops = 2};
    unsigned char *to = redo_put_header(out, &r);
    to = redo_put_op(
        to, &(struct redo_op){bytes_str("key"), 0, {AZOTH_TYPE_STRING, bytes_str("value")}});
    to = redo_put_op(to, &(struct redo_op){bytes_str("gone"), 1, {0, {NULL, 0}}});
    redo_seal(out, (size_t)(to - out), r.txn);
    return (size_t)(to - out);
}

static void a_redo_record_comes_back_as_it_was(void **state)
{
    (void)state;
    unsigned char rec[256];
    struct redo_record r;
    struct redo_op op;
    size_t at = 0, size = encoded(rec);
    assert_int_equal(redo_decode(9, bytes_of(rec, size), &r), 0);
    assert_true(r.txn == 9 && r.time_ns == -5 && r.first_event == 3 && r.last_event == 4);
    assert_true(r.running_ms == 6 && r.id_first == 7 && r.has_id && r.id[0] == 8 && r.id_age == 10);
    assert_true(r.content == 11 && r.keys_written == 12 && r.keys_deleted == 13);
    assert_true(r.keys_missing == 14 && r.ops == 2);
    assert_int_equal(redo_next(&r, &at, &op), 1);
    assert_true(bytes_eq(op.key, bytes_str("key")) && !op.deleted);
    assert_true(op.value.type == AZOTH_TYPE_STRING && bytes_eq(op.value.enc, bytes_str("value")));
    assert_int_equal(redo_next(&r, &at, &op), 1);
    assert_true(bytes_eq(op.key, bytes_str("gone")) && op.deleted);
    assert_int_equal(redo_next(&r, &at, &op), 0);
}

static void a_flipped_bit_or_another_transaction_makes_it_corrupt(void **state)
{
    (void)state;
    unsigned char rec[256];
    struct redo_record r;
    size_t size = encoded(rec);
    assert_true(redo_decode(10, bytes_of(rec, size), &r) < 0);
    for (size_t i = 0; i < size * 8; i++) {
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
        assert_true(redo_decode(9, bytes_of(rec, size), &r) < 0);
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
    }
    for (size_t len = 0; len < size; len++) {
        unsigned char *exact = malloc(len + 1);
        assert_non_null(exact);
        memcpy(exact, rec, len);
        assert_true(redo_decode(9, bytes_of(exact, len), &r) < 0);
        free(exact);
    }
    /* Lengths that do not fit, under a checksum that does. */
    for (size_t at = REDO_HEADER - 4; at < size; at++) {
        unsigned char bad[256];
        memcpy(bad, rec, size);
        bad[at] = 0xff;
        redo_seal(bad, size, 9);
        if (redo_decode(9, bytes_of(bad, size), &r) == 0)
            assert_in_range(at, REDO_HEADER, size);
    }
    put_u32(rec + REDO_HEADER - 4, 3);
    redo_seal(rec, size, 9);
    assert_int_equal(redo_decode(9, bytes_of(rec, size), &r), AZOTH_ERR_CORRUPT);
    rec[4] = 2;
    redo_seal(rec, size, 9);
    assert_int_equal(redo_decode(9, bytes_of(rec, size), &r), AZOTH_ERR_FORMAT);
}

static void a_mark_is_refused_when_it_is_not_whole_or_of_another_place(void **state)
{
    (void)state;
    struct mark m = {.place = {0xab, 1}, .txn = 5, .event = 6, .since_ns = 7, .broken = 1}, back;
    unsigned char rec[MARK_RECORD];
    char key[MARK_KEY + 1], other[MARK_KEY + 1];
    mark_key(key, m.place);
    mark_key(other, place[0]);
    assert_string_equal(key, "mark:ab010000000000000000000000000000");
    mark_encode(rec, &m);
    assert_int_equal(mark_decode(bytes_str(key), bytes_of(rec, sizeof rec), &back), 0);
    assert_memory_equal(back.place, m.place, MARK_PLACE);
    assert_true(back.txn == 5 && back.event == 6 && back.since_ns == 7 && back.broken);
    assert_false(back.confirmed);
    m.confirmed = 1;
    mark_encode(rec, &m);
    assert_int_equal(mark_decode(bytes_str(key), bytes_of(rec, sizeof rec), &back), 0);
    assert_true(back.broken && back.confirmed);
    assert_true(mark_decode(bytes_str(other), bytes_of(rec, sizeof rec), &back) < 0);
    assert_true(mark_decode(bytes_str("mark:"), bytes_of(rec, sizeof rec), &back) < 0);
    for (size_t i = 0; i < sizeof rec * 8; i++) {
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
        assert_true(mark_decode(bytes_str(key), bytes_of(rec, sizeof rec), &back) < 0);
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
    }
}

/* ---- what is in them ---- */

#define KEYS 8

/* The state: as it is, or as redo has made it. */
struct image {
    struct {
        int there;
        uint64_t version;
        struct buf value; /* type and encoding */
    } key[KEYS];
};

static void image_put(struct image *im, struct azoth_bytes key, uint64_t version,
                      const struct azoth_value *v)
{
    unsigned i = (unsigned)(((const char *)key.ptr)[0] - 'a');
    assert_in_range(i, 0, KEYS - 1);
    unsigned char type = v ? (unsigned char)v->type : 0;
    im->key[i].there = v != NULL;
    im->key[i].version = version;
    buf_clear(&im->key[i].value);
    if (v) {
        assert_int_equal(buf_add(&im->key[i].value, &type, 1), 0);
        assert_int_equal(buf_add(&im->key[i].value, v->enc.ptr, v->enc.len), 0);
    }
}

static void image_of_state(struct image *im)
{
    struct snapshot *sn;
    struct scan *sc;
    struct azoth_bytes key, none = {0};
    struct state_record st;
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(scan_open(sn, none, none, none, &sc, &err), 0);
    while (scan_next(sc, &key, &st, &err) == 1)
        image_put(im, key, st.version, &st.value);
    scan_close(sc);
    snapshot_end(sn);
}

static void image_redo(struct image *im, uint64_t from)
{
    struct snapshot *sn;
    struct redo_scan *rs;
    struct redo_record r;
    struct redo_op op;
    int rc;
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(redo_scan_open(sn, from, &rs, &err), 0);
    while ((rc = redo_scan_next(rs, &r, NULL, &err)) == 1) {
        struct txn_result res;
        uint64_t content;
        size_t at = 0;
        while (redo_next(&r, &at, &op))
            image_put(im, op.key, r.txn, op.deleted ? NULL : &op.value);
        assert_true(r.has_id);
        assert_int_equal(snapshot_find_id(sn, r.id, &res, &content, &err), 1);
        assert_true(res.txn == r.txn && content == r.content);
        assert_true(res.first_event == r.first_event && res.last_event == r.last_event);
        assert_true(res.keys_written == r.keys_written && res.keys_deleted == r.keys_deleted);
        assert_true(res.keys_missing == r.keys_missing);
    }
    assert_int_equal(rc, 0);
    redo_scan_close(rs);
    snapshot_end(sn);
}

/* One operation of any kind on any key; those on a key of another type are refused, with their transaction. */
static void random_item(struct txn_builder *b)
{
    char key[2] = {(char)('a' + random() % KEYS), 0}, text[20];
    int64_t n = random() % 100;
    struct azoth_value i64 = {AZOTH_TYPE_I64, {&n, 8}}, str = {AZOTH_TYPE_STRING, bytes_str(text)};
    snprintf(text, sizeof text, "%ld", random() % 50);
    str.enc = bytes_str(text);
    switch (random() % 7) {
    case 0:
        assert_int_equal(txn_add_value(b, TXN_SET, bytes_str(key), i64, &err), 0);
        break;
    case 1:
        assert_int_equal(txn_add_value(b, TXN_SET, bytes_str(key), str, &err), 0);
        break;
    case 2:
        assert_int_equal(txn_add_key(b, TXN_DELETE, bytes_str(key), &err), 0);
        break;
    case 3:
        assert_int_equal(txn_add_value(b, TXN_ADD, bytes_str(key), i64, &err), 0);
        break;
    case 4:
        assert_int_equal(txn_add_member(b, TXN_SET_ADD, bytes_str(key), str.enc, &err), 0);
        break;
    case 5:
        assert_int_equal(txn_add_member(b, TXN_ARRAY_PUSH, bytes_str(key), str.enc, &err), 0);
        break;
    default:
        assert_int_equal(txn_add_event(b, bytes_str("e"), str.enc, bytes_of("", 0), str.enc, &err),
                         0);
        break;
    }
}

static void the_state_is_rebuilt_from_redo_exactly(void **state)
{
    (void)state;
    uint64_t tried = 0;
    srandom((unsigned)seed_of_run());
    static struct image then, now;
    struct txn_builder b = {0};
    for (int batch = 0; batch < 400; batch++) {
        begin();
        if (batch == 100)
            assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
        for (long k = random() % 4; k >= 0; k--) {
            uint8_t id[AZOTH_ID_BYTES] = {0};
            struct txn_result r;
            int code;
            put_u64(id, ++tried);
            for (long i = random() % 4; i >= 0; i--)
                random_item(&b);
            assert_int_equal(append_apply(append, txn_image(&b), id, tried, &code, &r, &err), 0);
            txn_builder_clear(&b);
        }
        if (append_changes(append))
            commit();
        else
            append_abort(append);
        if (batch == 99)
            image_of_state(&then);
    }
    txn_builder_fini(&b);
    image_redo(&then, mark_of(place[0]).txn + 1);
    image_of_state(&now);
    for (int i = 0; i < KEYS; i++) {
        /* A key that redo deleted was not met by the second look. */
        assert_int_equal(then.key[i].there, now.key[i].there);
        if (now.key[i].there)
            assert_int_equal(then.key[i].version, now.key[i].version);
        assert_true(bytes_eq(buf_bytes(&then.key[i].value), buf_bytes(&now.key[i].value)));
        buf_fini(&then.key[i].value);
        buf_fini(&now.key[i].value);
    }
}

/* ---- when they are kept ---- */

static void without_a_mark_nothing_is_written_twice(void **state)
{
    (void)state;
    uint64_t n;
    trims = 0; /* which would take away at once what was written in vain */
    counts(10);
    trims = 1;
    assert_int_equal(redo_from(&n), 0);
    begin();
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    commit();
    counts(3);
    assert_int_equal(redo_from(&n), 11);
    assert_int_equal(n, 3);
}

static void what_the_lowest_mark_does_not_want_is_removed_with_later_commits(void **state)
{
    (void)state;
    uint64_t n, at;
    begin();
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    assert_int_equal(control("mark", place[1], MARK_PLACE), 0);
    commit();
    for (int i = 0; i < 10; i++)
        counts(100);
    move(place[0], 900);
    assert_int_equal(redo_from(&n), 1); /* the other one wants them */
    assert_int_equal(n, 1000);
    move(place[1], 600);
    at = redo_from(&n);
    for (int i = 0; i < 40 && at != 601; i++) {
        uint64_t was = at;
        counts(1);
        at = redo_from(&n);
        assert_in_range(at, was + 1, was + 64 + 2);
    }
    assert_int_equal(at, 601);
    begin();
    assert_int_equal(control("unmark", place[1], MARK_PLACE), 0);
    assert_int_equal(control("unmark", place[0], MARK_PLACE), 0);
    commit();
    for (int i = 0; i < 40 && at; i++) {
        counts(1);
        at = redo_from(&n);
    }
    assert_int_equal(n, 0);
}

static void over_the_limit_the_lowest_mark_is_broken_and_the_others_keep_theirs(void **state)
{
    (void)state;
    uint64_t n;
    struct store_usage u;
    begin();
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    commit();
    counts(500);
    begin();
    assert_int_equal(control("mark", place[1], MARK_PLACE), 0);
    commit();
    assert_int_equal(store_usage(store, &u, &err), 0);
    assert_int_equal(u.redo_records, 500);
    limits.redo_bytes = u.redo_bytes + 8192;
    for (int i = 0; i < 100 && !mark_of(place[0]).broken; i++)
        counts(5);
    assert_true(mark_of(place[0]).broken);
    assert_int_equal(mark_of(place[0]).txn, 0);
    assert_false(mark_of(place[1]).broken);
    for (int i = 0; i < 20; i++)
        counts(1);
    assert_int_equal(redo_from(&n), 501);
    assert_int_equal(n, append_head(append)->txn - 500);
    assert_false(mark_of(place[1]).broken);
    /* A broken one does not move; set anew it is whole. */
    unsigned char argument[CONTROL_MARK_MOVE] = {0};
    memcpy(argument, place[0], MARK_PLACE);
    put_u64(argument + 16, 510);
    begin();
    assert_int_equal(control("mark", argument, sizeof argument), AZOTH_ERR_BACKUP_MISSING);
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    commit();
    assert_false(mark_of(place[0]).broken);
    assert_int_equal(mark_of(place[0]).txn, append_head(append)->txn);
}

static void a_missing_record_is_a_gap_for_who_needs_it(void **state)
{
    (void)state;
    struct snapshot *sn;
    struct redo_scan *rs;
    struct redo_record r;
    counts(5);
    begin();
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    commit();
    counts(2);
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(redo_scan_open(sn, 5, &rs, &err), 0);
    assert_int_equal(redo_scan_next(rs, &r, NULL, &err), AZOTH_ERR_GAP);
    redo_scan_close(rs);
    assert_int_equal(redo_scan_open(sn, 6, &rs, &err), 0);
    assert_int_equal(redo_scan_next(rs, &r, NULL, &err), 1);
    assert_int_equal(r.txn, 6);
    redo_scan_close(rs);
    snapshot_end(sn);
}

static void a_batch_that_is_aborted_leaves_marks_and_redo_as_they_were(void **state)
{
    (void)state;
    uint64_t n;
    struct txn_builder b = {0};
    begin();
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    assert_int_equal(append_marks(append), 1);
    append_abort(append);
    assert_int_equal(append_marks(append), 0);
    counts(2);
    assert_int_equal(redo_from(&n), 0);
    begin();
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    commit();
    begin();
    assert_int_equal(control("unmark", place[0], MARK_PLACE), 0);
    append_abort(append);
    counts(1);
    assert_int_equal(redo_from(&n), 3);
    txn_builder_fini(&b);
}

#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static void a_mark_that_is_followed_stays_so_until_it_is_dropped(void **state)
{
    (void)state;
    begin();
    assert_int_equal(control("follow", place[0], MARK_PLACE), AZOTH_ERR_NOT_FOUND);
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    assert_int_equal(control("follow", place[0], MARK_PLACE), 0);
    assert_int_equal(control("follow", place[0], 3), AZOTH_ERR_BAD_REQUEST);
    commit();
    counts(2);
    move(place[0], 1);
    assert_int_equal(mark_of(place[0]).followed, 1);
    assert_int_equal(mark_of(place[0]).txn, 1);
    begin();
    assert_int_equal(control("unmark", place[0], MARK_PLACE), 0);
    assert_int_equal(control("mark", place[0], MARK_PLACE), 0);
    commit();
    assert_int_equal(mark_of(place[0]).followed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_redo_record_comes_back_as_it_was),
        cmocka_unit_test(a_flipped_bit_or_another_transaction_makes_it_corrupt),
        cmocka_unit_test(a_mark_is_refused_when_it_is_not_whole_or_of_another_place),
        WITH_STORE(the_state_is_rebuilt_from_redo_exactly),
        WITH_STORE(without_a_mark_nothing_is_written_twice),
        WITH_STORE(what_the_lowest_mark_does_not_want_is_removed_with_later_commits),
        WITH_STORE(over_the_limit_the_lowest_mark_is_broken_and_the_others_keep_theirs),
        WITH_STORE(a_mark_that_is_followed_stays_so_until_it_is_dropped),
        WITH_STORE(a_missing_record_is_a_gap_for_who_needs_it),
        WITH_STORE(a_batch_that_is_aborted_leaves_marks_and_redo_as_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
