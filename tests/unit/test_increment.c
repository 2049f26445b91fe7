/*
 * test_increment.c - random transactions, copies and increments at random points: a copy that is advanced
 * by increments is what the store was, at every event and at random times.
 *
 * AZOTH_TEST_SEED=N repeats a run.
 */
#include "core/error.h"
#include "core/mark.h"
#include "writer/advance.h"
#include "writer/append.h"
#include "writer/backupfile.h"
#include "writer/control.h"
#include "writer/copy.h"
#include "writer/create.h"
#include "writer/export.h"
#include "writer/increment.h"
#include "tests/unit/log_segment.h"
#include "tests/unit/seed.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#define TXNS   240u
#define STEP   1000u /* of the clock between two commits, ns */
#define FULLS  4u
#define ID_MAX 20u /* ids that are remembered: some expire */

static char dir[64];
static struct store *store;
static struct append *append;
static struct azoth_error err;
static const uint8_t place[MARK_PLACE] = {7};
static const struct append_limits limits = {ID_MAX, 1000000, 1u << 30};
static uint64_t seed;
static int64_t clock_ns;
static unsigned cuts; /* increments that end before the head */

static uint64_t some(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

/* ---- what happened ---- */

/* What a store held, by its meaning. */
struct content {
    uint64_t state, log, ids;
    uint64_t txn, event, id_first, running_ms;
    int64_t time_ns;
};

static struct moment {
    uint64_t first_event, last_event; /* 0: none */
    int64_t time_ns;
    int ended; /* a commit ended here: is is what the store held then */
    struct content is;
} moment[TXNS + 8]; /* by transaction */
static uint64_t txns;

static struct full {
    char path[100];
    uint64_t txn;
} full[FULLS];
static unsigned fulls;

static struct increment {
    struct increment_at from;
    struct store_head to;
    struct buf parts[64];
    unsigned n;
} increment[TXNS];
static unsigned increments;

static int hash_part(void *arg, struct azoth_bytes part, struct azoth_error *e)
{
    (void)e;
    uint64_t *h = arg;
    *h = XXH3_64bits_withSeed(part.ptr, part.len, *h);
    return 0;
}

static struct content content_of(struct store *s)
{
    struct snapshot *sn;
    struct store_head head;
    struct content c = {0};
    uint64_t n;
    assert_int_equal(snapshot_begin(s, &sn, &err), 0);
    assert_int_equal(snapshot_head_chained(sn, &head, &err), 0);
    assert_int_equal(export_state(sn, hash_part, &c.state, &n, &err), 0);
    assert_int_equal(export_ids(sn, hash_part, &c.ids, &n, &err), 0);
    snapshot_end(sn);
    assert_int_equal(export_events(s, 0, head.event, hash_part, &c.log, &err), 0);
    c.txn = head.txn;
    c.event = head.event;
    c.id_first = head.id_first;
    c.running_ms = head.running_ms;
    c.time_ns = head.time_ns;
    return c;
}

/* ---- the original ---- */

static void open_store(void)
{
    struct buf record = {0};
    strcpy(dir, "/tmp/azoth-increment-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(store_create(dir, 0, &err), 0);
    assert_int_equal(store_open(dir, STORE_WRITE, &store, &err), 0);
    assert_int_equal(append_open(store, 2, &append, &record, &err), 0);
    buf_fini(&record);
    clock_ns = 1700000000000000000;
    txns = fulls = increments = 0;
    memset(moment, 0, sizeof moment);
}

static void begin(void)
{
    clock_ns += STEP;
    assert_int_equal(
        append_begin(append, clock_ns, (uint64_t)clock_ns * 1000 + 86400000000000u, &err), 0);
}

static void commit(void)
{
    assert_int_equal(append_expire_ids(append, &limits, &err), 0);
    assert_int_equal(append_trim_redo(append, &limits, &err), 0);
    assert_int_equal(append_commit(append, NULL, 0, &err), 0);
    moment[txns].ended = 1;
    moment[txns].is = content_of(store);
}

static void operate(const char *operation, const void *argument, size_t len)
{
    struct txn_builder b = {0};
    struct txn_result r;
    int code;
    assert_int_equal(txn_set_control(&b, bytes_str(operation), bytes_of(argument, len), &err), 0);
    begin();
    assert_int_equal(control_apply(append, txn_image(&b), &code, &r, &err), 0);
    assert_int_equal(code, 0);
    commit();
    txn_builder_fini(&b);
}

static void control(const void *argument, size_t len)
{
    operate("mark", argument, len);
}

/* Sets, deletes, sums, events: some of each, or none. */
static void one_txn(void)
{
    struct txn_builder b = {0};
    struct txn_result r;
    uint8_t id[AZOTH_ID_BYTES] = {1};
    char key[16], text[16];
    int code;
    unsigned char n[8];
    struct azoth_value number = {AZOTH_TYPE_I64, {n, 8}};
    put_u64(n, some(1000));
    for (uint64_t i = some(4); i; i--) {
        snprintf(key, sizeof key, "k%d", (int)some(25));
        if (some(3) == 0)
            assert_int_equal(txn_add_key(&b, TXN_DELETE, bytes_str(key), &err), 0);
        else
            assert_int_equal(txn_add_value(&b, TXN_SET, bytes_str(key), number, &err), 0);
    }
    if (some(2))
        assert_int_equal(txn_add_value(&b, TXN_ADD, bytes_str("sum"), number, &err), 0);
    for (uint64_t i = some(4); i; i--) {
        snprintf(text, sizeof text, "%d", (int)some(100000));
        assert_int_equal(
            txn_add_event(&b, bytes_str("e"), bytes_str("s"), bytes_str(""), bytes_str(text), &err),
            0);
    }
    put_u64(id + 4, txns);
    assert_int_equal(
        append_apply(append, txn_image(&b), some(3) ? id : NULL, txns, &code, &r, &err), 0);
    assert_int_equal(code, 0);
    assert_int_equal(r.txn, ++txns);
    moment[txns] = (struct moment){r.first_event, r.last_event, clock_ns, 0, {0}};
    txn_builder_fini(&b);
}

static void copy_store(void)
{
    static unsigned char piece[65536];
    struct full *f = &full[fulls];
    struct copy *c;
    size_t len = sizeof piece;
    snprintf(f->path, sizeof f->path, "%s/full%u", dir, fulls++);
    f->txn = txns;
    int fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(copy_begin(store, &c, &err), 0);
    while (len == sizeof piece) {
        assert_int_equal(copy_read(c, piece, sizeof piece, &len, &err), 0);
        assert_int_equal(write(fd, piece, len), (ssize_t)len);
    }
    copy_end(c);
    close(fd);
}

static int keep_part(void *arg, struct azoth_bytes part, struct azoth_error *e)
{
    (void)e;
    struct increment *i = arg;
    assert_true(i->n < 64);
    return buf_add(&i->parts[i->n++], part.ptr, part.len);
}

static struct store_head head_now(void)
{
    struct snapshot *sn;
    struct store_head head;
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(snapshot_head_chained(sn, &head, &err), 0);
    snapshot_end(sn);
    return head;
}

static struct increment_at at_now(void)
{
    struct store_head head = head_now();
    return (struct increment_at){head.txn, head.event, head.chain};
}

static int not_kept(void *arg, struct azoth_bytes part, struct azoth_error *e)
{
    (void)e;
    *(uint64_t *)arg += part.len;
    return 0;
}

/* Of at most so many bytes, when that is not 0. */
static void take_piece(struct increment_at *at, uint64_t bytes)
{
    struct increment *i = &increment[increments++];
    unsigned char move[CONTROL_MARK_MOVE];
    memset(i, 0, sizeof *i);
    i->from = *at;
    i->to = head_now();
    if (bytes) {
        const struct store_head head = i->to;
        uint64_t all = 0, some_of_it = 0;
        struct store_head again;
        assert_int_equal(increment_cut(store, at, &head, bytes, 0, not_kept, &all, &i->to, &err),
                         0);
        assert_int_equal(
            increment_cut(store, at, &head, bytes, 1, not_kept, &some_of_it, &again, &err), 0);
        assert_int_equal(again.txn, i->to.txn);
        assert_int_equal(again.event, i->to.event);
        assert_int_equal(again.id_first, i->to.id_first);
        assert_int_equal(again.running_ms, i->to.running_ms);
        assert_true(i->to.txn == head.txn ? some_of_it == all : some_of_it < all);
        cuts += i->to.txn < head.txn;
    }
    uint64_t before = at->txn, size = 0;
    assert_int_equal(increment_export(store, at, &i->to, keep_part, i, &err), 0);
    assert_int_equal(at->txn, i->to.txn);
    for (unsigned p = 0; p < i->n; p++)
        size += i->parts[p].len;
    assert_true(!bytes || (at->txn > before && (size <= bytes || at->txn == before + 1)));
    memcpy(move, place, MARK_PLACE);
    put_u64(move + 16, at->txn);
    put_u64(move + 24, at->event);
    put_u64(move + 32, (uint64_t)i->to.time_ns);
    control(move, sizeof move);
}

static void take_increment(struct increment_at *at)
{
    take_piece(at, 0);
}

/* ---- restoring ---- */

/* The newest copy at or before this transaction, brought up to the target; its path into out. */
static void restore_to(const struct advance_target *t, uint64_t txn, char out[110])
{
    struct advance *a;
    char command[300];
    unsigned f = 0;
    int done = 0;
    for (unsigned i = 1; i < fulls; i++)
        if (full[i].txn <= txn)
            f = i;
    snprintf(out, 110, "%s/restored", dir);
    snprintf(command, sizeof command, "cp %s %s", full[f].path, out);
    assert_int_equal(system(command), 0);
    assert_int_equal(advance_open(out, &a, &err), 0);
    for (unsigned i = 0; i < increments && !done; i++) {
        struct increment *in = &increment[i];
        if (in->to.txn <= advance_head(a)->txn)
            continue;
        assert_int_equal(advance_increment(a, in->from.txn, &in->from.chain, &err), 0);
        for (unsigned p = 0; p < in->n && !done; p++) {
            done = advance_part(a, buf_bytes(&in->parts[p]), t, &err);
            assert_true(done >= 0);
        }
        if (!done)
            assert_int_equal(advance_increment_end(a, &in->to, &err), 0);
    }
    assert_int_equal(advance_head(a)->txn, txn);
    assert_int_equal(advance_finish(a, &err), 0);
}

static void same_as(uint64_t txn, const char *path)
{
    struct store *s;
    assert_int_equal(store_open(path, STORE_FILE, &s, &err), 0);
    struct content c = content_of(s);
    store_close(s);
    const struct content *is = &moment[txn].is;
    assert_int_equal(c.txn, txn);
    if (moment[txn].ended) {
        assert_int_equal(c.state, is->state);
        assert_int_equal(c.log, is->log);
        assert_int_equal(c.ids, is->ids);
        assert_int_equal(c.event, is->event);
        assert_int_equal(c.id_first, is->id_first);
    }
}

static uint64_t txn_of_event(uint64_t event)
{
    uint64_t txn = 0;
    for (uint64_t i = 1; i <= txns && (!moment[i].first_event || moment[i].first_event <= event);
         i++)
        txn = i;
    return txn;
}

static uint64_t txn_of_time(int64_t time_ns)
{
    uint64_t txn = 0;
    while (txn < txns && moment[txn + 1].time_ns <= time_ns)
        txn++;
    return txn;
}

static void fini(void)
{
    char command[100];
    append_close(append);
    store_close(store);
    for (unsigned i = 0; i < increments; i++)
        for (unsigned p = 0; p < increment[i].n; p++)
            buf_fini(&increment[i].parts[p]);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* All that there is in pieces of a few transactions, of which one may be larger than a piece. */
static void take_pieces(struct increment_at *at)
{
    while (at->txn < txns)
        take_piece(at, 100 + some(2000));
}

/* Transactions in commits of one to three, with increments and copies at random points. */
static void random_history(void)
{
    control(place, MARK_PLACE);
    copy_store();
    struct increment_at at = at_now();
    while (txns < TXNS) {
        begin();
        for (uint64_t n = 1 + some(3); n; n--)
            one_txn();
        commit();
        if (some(12) == 0)
            take_increment(&at);
        if (some(12) == 0)
            take_pieces(&at);
        if (fulls < FULLS && some(40) == 0)
            copy_store();
    }
    take_increment(&at);
}

static void a_restored_store_is_what_it_was_at_every_event_and_at_random_times(void **unused)
{
    (void)unused;
    char path[110];
    seed = seed_of_run();
    open_store();
    random_history();
    assert_true(cuts > 0);
    uint64_t last = head_now().event;
    for (uint64_t event = 0; event <= last; event++) {
        uint64_t txn = txn_of_event(event);
        if (txn < full[0].txn)
            continue;
        restore_to(&(struct advance_target){.by_event = 1, .event = event}, txn, path);
        same_as(txn, path);
        unlink(path);
    }
    for (unsigned i = 0; i < 60; i++) {
        int64_t time_ns =
            1700000000000000000 + (int64_t)(some(TXNS + 60) * STEP + (i % 2 ? some(STEP) : 0));
        uint64_t txn = txn_of_time(time_ns);
        restore_to(&(struct advance_target){.by_time = 1, .time_ns = time_ns}, txn, path);
        same_as(txn, path);
        unlink(path);
    }
    restore_to(&(struct advance_target){0}, txns, path);
    same_as(txns, path);
    fini();
}

/* ---- what does not fit ---- */

static void two_increments(void)
{
    open_store();
    seed = 1;
    control(place, MARK_PLACE);
    copy_store();
    struct increment_at at = at_now();
    for (int i = 0; i < 2; i++) {
        for (int n = 0; n < 20; n++) {
            begin();
            one_txn();
            commit();
            if (i == 0 && n == 9)
                copy_store();
        }
        take_increment(&at);
    }
}

static struct advance *advance_copy(void)
{
    struct advance *a;
    assert_int_equal(advance_open(full[0].path, &a, &err), 0);
    return a;
}

static void a_missing_increment_is_named_by_its_transactions(void **unused)
{
    (void)unused;
    two_increments();
    struct advance *a = advance_copy();
    assert_int_equal(advance_increment(a, increment[1].from.txn, &increment[1].from.chain, &err),
                     AZOTH_ERR_BACKUP_MISSING);
    assert_non_null(strstr(err.message, "transactions 1 to 20"));
    advance_abort(a);
    fini();
}

static void an_increment_of_another_history_is_refused(void **unused)
{
    (void)unused;
    two_increments();
    struct advance *a = advance_copy();
    struct chain other = increment[0].from.chain;
    other.value[3] ^= 1;
    assert_int_equal(advance_increment(a, 0, &other, &err), AZOTH_ERR_DIVERGED);
    advance_abort(a);
    /* Also when it begins before the store's head, and meets it later. */
    assert_int_equal(advance_open(full[1].path, &a, &err), 0);
    assert_int_equal(advance_increment(a, 0, &other, &err), 0);
    assert_int_equal(
        advance_part(a, buf_bytes(&increment[0].parts[0]), &(struct advance_target){0}, &err),
        AZOTH_ERR_DIVERGED);
    advance_abort(a);
    /* And when the one that exports stands in another one's: the events do not lead to the head. */
    struct increment_at at = at_now();
    struct increment *spare = &increment[increments++];
    memset(spare, 0, sizeof *spare);
    at.chain = other;
    begin();
    one_txn();
    commit();
    struct store_head to = head_now();
    struct store_head cut;
    uint64_t read = 0;
    assert_int_equal(increment_cut(store, &at, &to, 1, 0, not_kept, &read, &cut, &err),
                     AZOTH_ERR_DIVERGED);
    assert_int_equal(increment_export(store, &at, &to, keep_part, spare, &err), AZOTH_ERR_DIVERGED);
    fini();
}

static void redo_records_that_are_gone_are_a_missing_backup(void **unused)
{
    (void)unused;
    two_increments();
    begin();
    one_txn();
    commit(); /* and so the records below the mark are trimmed */
    struct increment_at at = {.chain = increment[0].from.chain};
    struct store_head to = head_now();
    struct increment *spare = &increment[increments++];
    memset(spare, 0, sizeof *spare);
    assert_int_equal(increment_export(store, &at, &to, keep_part, spare, &err),
                     AZOTH_ERR_BACKUP_MISSING);
    fini();
}

/* Every byte counts: what was changed is refused, by a record's check, an id's order or the chain. */
static void a_part_with_a_changed_byte_is_refused(void **unused)
{
    (void)unused;
    two_increments();
    struct increment *in = &increment[0];
    struct buf *part = &in->parts[0], events = {0};
    for (size_t i = 0; i < part->len; i++) {
        struct increment_entry e;
        size_t at = 0;
        int rc;
        part->ptr[i] ^= 0x10;
        while ((rc = increment_next(buf_bytes(part), &at, &events, &e)) == 1)
            ;
        assert_true(rc == AZOTH_ERR_CORRUPT || rc == AZOTH_ERR_FORMAT);
        part->ptr[i] ^= 0x10;
    }
    buf_fini(&events);
    fini();
}

static void transactions_out_of_order_are_refused(void **unused)
{
    (void)unused;
    two_increments();
    struct increment *in = &increment[0];
    struct buf *part = &in->parts[0], events = {0};
    struct increment_entry e;
    size_t second = 0;
    assert_int_equal(increment_next(buf_bytes(part), &second, &events, &e), 1);
    struct advance *a = advance_copy();
    assert_int_equal(advance_increment(a, 0, &in->from.chain, &err), 0);
    assert_int_equal(advance_part(a, bytes_of(part->ptr + second, part->len - second),
                                  &(struct advance_target){0}, &err),
                     AZOTH_ERR_GAP);
    advance_abort(a);
    buf_fini(&events);
    fini();
}

#define LARGE 200000u

/* Transactions of so many events that no cache has all blocks of the segment that one of them lies in. */
static void large_txns(unsigned n)
{
    static char payload[LARGE];
    struct txn_builder b = {0};
    struct txn_result r;
    int code;
    begin();
    for (unsigned i = 0; i < n; i++) {
        txn_builder_clear(&b);
        for (int k = 0; k < 19; k++) {
            memset(payload, 'a' + (int)i + k, sizeof payload);
            assert_int_equal(txn_add_event(&b, bytes_str("e"), bytes_str("s"), bytes_str(""),
                                           bytes_of(payload, sizeof payload), &err),
                             0);
        }
        assert_int_equal(append_apply(append, txn_image(&b), NULL, 0, &code, &r, &err), 0);
        assert_int_equal(code, 0);
        txns++;
    }
    commit();
    txn_builder_fini(&b);
}

static void archive_all(void)
{
    static struct archived_entry e;
    struct snapshot *sn;
    struct archived_state state = {0};
    struct buf rec = {0};
    assert_int_equal(log_segment(store, dir, 1, 0, &e, &err), 0);
    assert_int_equal(archived_entry_encode(&rec, &e), 0);
    operate("archive", rec.ptr, rec.len);
    buf_fini(&rec);
    while (state.first_in_store <= e.about.last) {
        operate("archive-piece", NULL, 0);
        assert_int_equal(snapshot_begin(store, &sn, &err), 0);
        assert_int_equal(snapshot_archive(sn, &state, &err), 0);
        snapshot_end(sn);
    }
}

static void an_increment_of_archived_events_is_the_same(void **unused)
{
    (void)unused;
    open_store();
    control(place, sizeof place);
    struct increment_at from = at_now(), at = from;
    large_txns(2);
    struct store_head to = head_now();
    struct increment *in = increment;
    memset(in, 0, 2 * sizeof *in);
    increments = 2;
    assert_int_equal(increment_export(store, &at, &to, keep_part, &in[0], &err), 0);
    archive_all();
    at = from;
    assert_int_equal(increment_export(store, &at, &to, keep_part, &in[1], &err), 0);
    assert_int_equal(in[0].n, in[1].n);
    for (unsigned i = 0; i < in[0].n; i++)
        assert_true(bytes_eq(buf_bytes(&in[0].parts[i]), buf_bytes(&in[1].parts[i])));
    fini();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_store_is_what_it_was_at_every_event_and_at_random_times),
        cmocka_unit_test(a_missing_increment_is_named_by_its_transactions),
        cmocka_unit_test(an_increment_of_another_history_is_refused),
        cmocka_unit_test(redo_records_that_are_gone_are_a_missing_backup),
        cmocka_unit_test(a_part_with_a_changed_byte_is_refused),
        cmocka_unit_test(transactions_out_of_order_are_refused),
        cmocka_unit_test(an_increment_of_archived_events_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
