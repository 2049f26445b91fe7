/* test_archiving.c - the writer's part of archiving, step by step: what is recorded, what a piece deletes, what is
 * refused; and scans over the border. */
#include "core/error.h"
#include "core/store_lmdb.h"
#include "core/storecheck.h"
#include "tests/unit/log_segment.h"
#include "writer/append.h"
#include "writer/control.h"
#include "writer/create.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define EVENTS 3000u /* of a test: two in a transaction */

static char dir[64];
static struct store *store;
static struct append *append;
static struct azoth_error err;

static int setup(void **state)
{
    (void)state;
    struct buf record = {0};
    strcpy(dir, "/tmp/azoth-archiving-XXXXXX");
    if (!mkdtemp(dir) || store_create(dir, 0, &err) || store_open(dir, STORE_WRITE, &store, &err) ||
        append_open(store, 2, &append, &record, &err))
        return -1;
    buf_fini(&record);
    return 0;
}

static int teardown(void **state)
{
    static const char *const files[] = {"data.mdb", "lock.mdb", "uuid", "segment", "projections"};
    (void)state;
    append_close(append);
    store_close(store);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        if (unlink(path))
            rmdir(path);
    }
    return rmdir(dir);
}

/* One batch that does fn, or a control operation. */
static void begin(void)
{
    assert_int_equal(append_begin(append, 1000, 1000, &err), 0);
}

static void commit(void)
{
    assert_int_equal(append_commit(append, NULL, 0, &err), 0);
}

static void log_events(unsigned n)
{
    struct txn_builder b = {0};
    struct txn_result result;
    int code = 0;
    begin();
    for (unsigned i = 0; i < n; i += 2) {
        txn_builder_clear(&b);
        for (int k = 0; k < 2; k++)
            assert_int_equal(txn_add_event(&b, bytes_str("t"), bytes_str("key"), bytes_str(""),
                                           bytes_str("payload"), &err),
                             0);
        assert_int_equal(append_apply(append, txn_image(&b), NULL, 0, &code, &result, &err), 0);
        assert_int_equal(code, 0);
    }
    commit();
    txn_builder_fini(&b);
}

/* The verdict on a control operation, in a batch of its own. */
static int control(const char *operation, const void *p, size_t len)
{
    struct txn_builder b = {0};
    struct txn_result result;
    int code = 0;
    assert_int_equal(txn_set_control(&b, bytes_str(operation), bytes_of(p, len), &err), 0);
    begin();
    assert_int_equal(control_apply(append, txn_image(&b), &code, &result, &err), 0);
    commit();
    txn_builder_fini(&b);
    return code;
}

static struct archived_state state_now(void)
{
    struct snapshot *sn;
    struct archived_state s;
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(snapshot_archive(sn, &s, &err), 0);
    snapshot_end(sn);
    return s;
}

/* Writes events first..last into DIR/segment. */
static void make_segment(struct archived_entry *e, uint64_t first, uint64_t last)
{
    assert_int_equal(log_segment(store, dir, first, last, e, &err), 0);
}

static int record(const struct archived_entry *e)
{
    struct buf b = {0};
    assert_int_equal(archived_entry_encode(&b, e), 0);
    int code = control("archive", b.ptr, b.len);
    buf_fini(&b);
    return code;
}

static void check_scan(uint64_t from, uint64_t to)
{
    struct snapshot *sn;
    struct event_scan *es;
    struct event_record ev;
    struct azoth_bytes raw;
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(event_scan_open(sn, from, to, &es, &err), 0);
    for (; from < to; from++) {
        struct event_record again;
        assert_int_equal(event_scan_next(es, &ev, &raw, &err), 1);
        assert_true(ev.id == from && ev.txn == (from + 1) / 2);
        assert_int_equal(record_event_decode(from, raw, &again), 0);
    }
    assert_int_equal(event_scan_next(es, &ev, &raw, &err), 0);
    event_scan_close(es);
    snapshot_end(sn);
}

static void what_is_recorded_is_deleted_in_pieces_and_read_as_one_log(void **state)
{
    (void)state;
    static struct archived_entry e;
    struct snapshot *sn;
    uint64_t id = 0;
    log_events(EVENTS);
    assert_int_equal(control("archive-piece", NULL, 0), 0);
    assert_int_equal(state_now().first_in_store, 1);
    make_segment(&e, 1, 2500);
    assert_int_equal(record(&e), 0);
    assert_true(state_now().first_in_store == 1 && state_now().last_archived == 2500);
    check_scan(1, EVENTS + 1);
    assert_int_equal(record(&e), 0); /* once more */
    uint64_t first = 1;
    for (int piece = 0; piece < 4; piece++) {
        assert_int_equal(control("archive-piece", NULL, 0), 0);
        first = first + ARCHIVE_PIECE_EVENTS < 2501 ? first + ARCHIVE_PIECE_EVENTS : 2501;
        assert_int_equal(state_now().first_in_store, first);
        check_scan(1, EVENTS + 1);
        check_scan(first - 1, first + 1);
        check_scan(first, first + 1);
        check_scan(7, first - 3);
    }
    /* By transaction, in a segment, at the border, in LMDB; and what counts them. */
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    for (uint64_t txn = 1; txn <= EVENTS / 2; txn += 3) {
        assert_int_equal(snapshot_event_of_txn(sn, txn, &id, &err), 1);
        assert_int_equal(id, 2 * txn - 1);
    }
    snapshot_end(sn);
    struct store_usage u;
    assert_int_equal(store_usage(store, &u, &err), 0);
    assert_true(u.events == EVENTS && u.events_archived == 2500);
}

static void what_does_not_follow_is_refused(void **state)
{
    (void)state;
    static struct archived_entry e;
    make_segment(&e, 2503, 2600); /* 2501 and 2502 are nowhere then */
    assert_int_equal(record(&e), AZOTH_ERR_BAD_REQUEST);
    make_segment(&e, 2501, 2600);
    e.about.last = EVENTS + 1; /* beyond the head */
    assert_int_equal(record(&e), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(control("archive", "junk", 4), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(control("archive-piece", "junk", 4), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(control("archive-move", "12345678", 8), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(control("archive-move", "12345678path", 12), AZOTH_ERR_NOT_FOUND);
    assert_true(state_now().last_archived == 2500 && state_now().first_in_store == 2501);
}

static void a_new_path_is_recorded(void **state)
{
    (void)state;
    struct snapshot *sn;
    static struct archived_entry e;
    unsigned char argument[8 + 9];
    put_u64(argument, 2500);
    memcpy(argument + 8, "elsewhere", 9);
    assert_int_equal(control("archive-move", argument, sizeof argument), 0);
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(snapshot_archive_of(sn, 1, &e, &err), 1);
    assert_string_equal(e.path, "elsewhere");
    assert_true(e.about.first == 1 && e.about.last == 2500);
    assert_int_equal(snapshot_archive_of(sn, 2501, &e, &err), 0);
    snapshot_end(sn);
}

static void an_event_that_lmdb_lost_ends_no_writer(void **state)
{
    (void)state;
    static struct archived_entry e;
    make_segment(&e, 2501, 2600);
    assert_int_equal(record(&e), 0);
    begin();
    uint64_t first = 2501;
    assert_int_equal(append_delete_events(append, &first, 2501, 1, 1, &err), 0);
    commit();
    assert_int_equal(control("archive-piece", NULL, 0), AZOTH_ERR_GAP);
    assert_int_equal(state_now().first_in_store, 2501);
}

static void on_found(void *arg, const struct store_finding *f)
{
    (void)arg;
    print_error("%s: %s\n", f->kind, f->message);
}

/* Its events lie in more blocks than the cache has places. */
static void the_chain_goes_over_a_transaction_of_many_blocks(void **state)
{
    static char payload[270000];
    static struct archived_entry e;
    struct txn_builder b = {0};
    struct txn_result result;
    struct store_check_sum sum;
    const struct store_check_tell tell = {.found = on_found};
    int code = 0;
    assert_int_equal(teardown(state), 0);
    assert_int_equal(setup(state), 0);
    for (int i = 0; i < 14; i++) {
        memset(payload, 'a' + i, sizeof payload);
        assert_int_equal(txn_add_event(&b, bytes_str("t"), bytes_str("key"), bytes_str(""),
                                       bytes_of(payload, sizeof payload), &err),
                         0);
    }
    begin();
    assert_int_equal(append_apply(append, txn_image(&b), NULL, 0, &code, &result, &err), 0);
    commit();
    txn_builder_fini(&b);
    log_events(10);
    make_segment(&e, 1, 14);
    assert_int_equal(record(&e), 0);
    while (state_now().first_in_store <= 14)
        assert_int_equal(control("archive-piece", NULL, 0), 0);
    assert_int_equal(store_check(store, &tell, &sum, &err), 0);
    assert_int_equal(sum.findings, 0);
    assert_int_equal(sum.events, 24);
    assert_int_equal(sum.chain_checked, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_recorded_is_deleted_in_pieces_and_read_as_one_log),
        cmocka_unit_test(what_does_not_follow_is_refused),
        cmocka_unit_test(a_new_path_is_recorded),
        cmocka_unit_test(an_event_that_lmdb_lost_ends_no_writer),
        cmocka_unit_test(the_chain_goes_over_a_transaction_of_many_blocks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
