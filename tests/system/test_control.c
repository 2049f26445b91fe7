/*
 * test_control.c - control operations through the commit queue: who may submit one, what it answers, and
 * that no pause holds it up.
 */
#include "client/internal.h"
#include "core/clock.h"
#include "core/mark.h"
#include "core/redo.h"
#include "tests/system/harness.h"
#include "writer/control.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct harness h;
static struct azoth_error err;
static const uint8_t place[2][MARK_PLACE] = {{1, 2, 3, 0xff}, {9}};

static uint64_t soon(void)
{
    return clock_mono_ns() + 10 * NS_PER_S;
}

static struct azoth *embedded(void)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .deadline_ms = 10000};
    struct azoth *db = NULL;
    harness_begin(&h);
    assert_int_equal(azoth_open(h.dir, &o, &db, &err), 0);
    return db;
}

static void finish(struct azoth *db)
{
    azoth_close(db);
    harness_end(&h);
}

static uint64_t add(struct azoth *db, const char *key)
{
    struct azoth_commit_info info;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, azoth_str(key), 1);
    azoth_event_bytes(t, "added", azoth_str(key));
    assert_int_equal(azoth_commit(t, &info, &err), 0);
    azoth_txn_free(t);
    return info.txn;
}

static int control(struct azoth *db, const char *operation, const void *argument, size_t len,
                   struct txn_result *ret)
{
    return client_control(db, operation, bytes_of(argument, len), soon(), ret, &err);
}

static int move(struct azoth *db, const uint8_t *to, uint64_t txn, uint64_t event)
{
    unsigned char argument[CONTROL_MARK_MOVE] = {0};
    struct txn_result r;
    memcpy(argument, to, MARK_PLACE);
    put_u64(argument + 16, txn);
    put_u64(argument + 24, event);
    put_u64(argument + 32, 77);
    return control(db, "mark", argument, sizeof argument, &r);
}

static uint32_t marks(struct mark *out)
{
    struct store *s;
    struct snapshot *sn;
    uint32_t n = 0;
    assert_int_equal(store_open(h.dir, 0, &s, &err), 0);
    assert_int_equal(snapshot_begin(s, &sn, &err), 0);
    assert_int_equal(snapshot_marks(sn, out, MARKS_MAX, &n, &err), 0);
    snapshot_end(sn);
    store_close(s);
    return n;
}

static void a_mark_is_set_to_the_head_and_only_moves_on(void **state)
{
    (void)state;
    struct azoth *db = embedded();
    struct txn_result r;
    struct mark m[MARKS_MAX];
    add(db, "a");
    assert_int_equal(control(db, "mark", place[0], MARK_PLACE, &r), 0);
    assert_int_equal(r.txn, 1);
    assert_int_equal(r.last_event, 1);
    assert_int_equal(marks(m), 1);
    assert_false(m[0].confirmed);
    assert_int_equal(move(db, place[0], 1, 1), 0); /* to where it is: there is a backup now */
    assert_int_equal(marks(m), 1);
    assert_true(m[0].confirmed);
    assert_int_equal(add(db, "a"), 2); /* it took no transaction id */
    assert_int_equal(move(db, place[0], 3, 3), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(move(db, place[0], 2, 2), 0);
    assert_int_equal(move(db, place[0], 1, 1), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(move(db, place[1], 2, 2), AZOTH_ERR_NOT_FOUND);
    assert_int_equal(marks(m), 1);
    assert_memory_equal(m[0].place, place[0], MARK_PLACE);
    assert_int_equal(m[0].txn, 2);
    assert_int_equal(m[0].event, 2);
    assert_int_equal(m[0].since_ns, 77);
    assert_false(m[0].broken);
    assert_true(m[0].confirmed);
    assert_int_equal(control(db, "mark", place[0], MARK_PLACE, &r), 0);
    assert_int_equal(marks(m), 1);
    assert_false(m[0].confirmed); /* begun anew */
    assert_int_equal(control(db, "unmark", place[0], MARK_PLACE, &r), 0);
    assert_int_equal(control(db, "unmark", place[0], MARK_PLACE, &r), 0);
    assert_int_equal(marks(m), 0);
    finish(db);
}

static void what_is_no_operation_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    struct azoth *db = embedded();
    struct txn_result r;
    struct mark m[MARKS_MAX];
    assert_int_equal(control(db, "marks", place[0], MARK_PLACE, &r), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(control(db, "mark", place[0], MARK_PLACE - 1, &r), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(control(db, "unmark", NULL, 0, &r), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(marks(m), 0);
    for (uint32_t i = 0; i <= MARKS_MAX; i++) {
        uint8_t many[MARK_PLACE] = {(uint8_t)i};
        assert_int_equal(control(db, "mark", many, MARK_PLACE, &r),
                         i == MARKS_MAX ? AZOTH_ERR_FULL : 0);
    }
    assert_int_equal(marks(m), MARKS_MAX);
    finish(db);
}

static void a_pause_does_not_hold_control_up(void **state)
{
    (void)state;
    struct azoth *db = embedded();
    struct txn_result r;
    struct mark m[MARKS_MAX];
    add(db, "a");
    assert_int_equal(azoth_pause(db, 60000, &err), 0);
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, azoth_str("a"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), AZOTH_ERR_PAUSED);
    azoth_txn_free(t);
    assert_int_equal(control(db, "mark", place[0], MARK_PLACE, &r), 0);
    assert_int_equal(marks(m), 1);
    assert_int_equal(azoth_resume(db, &err), 0);
    assert_int_equal(add(db, "a"), 2);
    finish(db);
}

/* Who copies the files under a pause has them as one commit left them. */
static void archiving_waits_for_the_end_of_a_pause(void **state)
{
    (void)state;
    static const char *const operation[] = {"archive", "archive-piece", "archive-move"};
    struct azoth *db = embedded();
    struct txn_result r;
    add(db, "a");
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(azoth_pause(db, 60000, &err), 0);
        assert_int_equal(client_control(db, operation[i], bytes_of(NULL, 0),
                                        clock_mono_ns() + 20 * NS_PER_MS, &r, &err),
                         AZOTH_ERR_PAUSED);
        assert_int_equal(azoth_seal(db, 60000, NULL, &err), 0);
        assert_int_equal(client_control(db, operation[i], bytes_of(NULL, 0),
                                        clock_mono_ns() + 20 * NS_PER_MS, &r, &err),
                         AZOTH_ERR_SEALED);
        assert_int_equal(azoth_resume(db, &err), 0);
    }
    assert_int_equal(azoth_pause(db, 50, &err), 0);
    assert_int_equal(control(db, "archive-piece", NULL, 0, &r), 0); /* when that is over */
    finish(db);
}

static void a_worker_and_the_library_submit_none_for_others(void **state)
{
    (void)state;
    harness_begin(&h);
    char endpoint[300];
    struct process *writer = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct process *worker =
        harness_start(&h, "worker-1", 0, "azoth-worker", "--dir", h.dir, "--name", "1", NULL);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/run/worker-1.sock", h.dir);
    assert_true(harness_answers(endpoint));
    struct azoth *remote = NULL, *db = harness_attach(&h, 10000);
    assert_int_equal(azoth_connect(endpoint, NULL, &remote, &err), 0);
    struct txn_builder b = {0};
    uint8_t id[AZOTH_ID_BYTES] = {5};
    assert_int_equal(txn_set_control(&b, bytes_str("mark"), bytes_of(place[0], MARK_PLACE), &err),
                     0);
    struct wire_request req = {.kind = WIRE_TX,
                               .deadline_ms = 5000,
                               .limit = 1,
                               .id = {id, sizeof id},
                               .body = txn_image(&b)};
    struct azoth *const handles[] = {remote, db};
    for (int i = 0; i < 2; i++) {
        struct buf store = {0};
        struct wire_answer a;
        assert_int_equal(client_request(handles[i], &req, &store, &a, &err), 0);
        assert_int_equal(a.code, AZOTH_ERR_BAD_REQUEST);
        buf_fini(&store);
    }
    struct txn_result r;
    struct mark m[MARKS_MAX];
    assert_int_equal(control(remote, "mark", place[0], MARK_PLACE, &r), AZOTH_ERR_UNSUPPORTED);
    assert_int_equal(marks(m), 0);
    assert_int_equal(control(db, "mark", place[0], MARK_PLACE, &r), 0);
    assert_int_equal(marks(m), 1);
    txn_builder_fini(&b);
    azoth_close(remote);
    azoth_close(db);
    assert_int_equal(harness_stop(&h, worker), 0);
    assert_int_equal(harness_stop(&h, writer), 0);
    harness_end(&h);
}

static uint64_t redo_records(struct store *s)
{
    struct store_usage u;
    assert_int_equal(store_usage(s, &u, &err), 0);
    return u.redo_records;
}

static void who_has_a_store_of_format_1_open_sees_the_redo_of_format_2(void **state)
{
    (void)state;
    char out[100], tool[300];
    struct store *s;
    struct snapshot *sn;
    struct redo_scan *rs;
    struct redo_record r;
    struct txn_result set;
    harness_begin(&h);
    snprintf(tool, sizeof tool, "%s/tests/system/damage", h.build);
    assert_int_equal(harness_run(out, sizeof out, (char *[]){tool, h.dir, "format1", NULL}), 0);
    assert_int_equal(store_open(h.dir, 0, &s, &err), 0);
    assert_int_equal(redo_records(s), 0);
    assert_int_equal(snapshot_begin(s, &sn, &err), 0);
    assert_int_equal(redo_scan_open(sn, 0, &rs, &err), 0);
    assert_int_equal(redo_scan_next(rs, &r, NULL, &err), 0);
    redo_scan_close(rs);
    snapshot_end(sn);
    struct process *writer = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_int_equal(control(db, "mark", place[0], MARK_PLACE, &set), 0);
    assert_int_equal(add(db, "a"), 1);
    assert_int_equal(redo_records(s), 1);
    assert_int_equal(snapshot_begin(s, &sn, &err), 0);
    assert_int_equal(redo_scan_open(sn, 1, &rs, &err), 0);
    assert_int_equal(redo_scan_next(rs, &r, NULL, &err), 1);
    assert_true(r.txn == 1 && r.first_event == 1 && r.ops == 1);
    redo_scan_close(rs);
    snapshot_end(sn);
    store_close(s);
    azoth_close(db);
    assert_int_equal(harness_stop(&h, writer), 0);
    harness_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mark_is_set_to_the_head_and_only_moves_on),
        cmocka_unit_test(what_is_no_operation_is_refused_and_changes_nothing),
        cmocka_unit_test(a_pause_does_not_hold_control_up),
        cmocka_unit_test(archiving_waits_for_the_end_of_a_pause),
        cmocka_unit_test(a_worker_and_the_library_submit_none_for_others),
        cmocka_unit_test(who_has_a_store_of_format_1_open_sees_the_redo_of_format_2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
