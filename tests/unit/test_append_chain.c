/*
 * test_append_chain.c - a store whose newest batch is large, so that its record's chain ends before it: whoever asks is
 * told the chain of the whole log, through crashes, failed commits, archiving, copies and damage.
 *
 * "Whole" is what a walk over all events gives. A crash is a child that opens the store, commits and is gone
 * without append_close(). AZOTH_TEST_SEED=N repeats a run.
 */
#include "core/error.h"
#include "core/store_lmdb.h"
#include "core/storecheck.h"
#include "writer/advance.h"
#include "writer/append.h"
#include "writer/control.h"
#include "writer/copy.h"
#include "writer/create.h"
#include "writer/increment.h"
#include "writer/restore.h"
#include "tests/unit/log_segment.h"
#include "tests/unit/seed.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define LARGE 100000u /* bytes of a payload: its batch is for the hashing thread */

static char top[64], dir[80];
static struct store *store;
static struct append *append;
static struct azoth_error err;
static int64_t clock_ns;
static pid_t parent;

/* An assertion that a child can make too, which must not return into the test's runner. */
static void must_be(int ok, const char *what, int line)
{
    if (ok)
        return;
    fprintf(stderr, "line %d: %s (%s)\n", line, what, err.message);
    if (getpid() != parent)
        _exit(1);
    fail();
}
#define must(cond) must_be(cond, #cond, __LINE__)

/* ---- a database ---- */

static void open_writer(void)
{
    struct buf record = {0};
    must(store_open(dir, STORE_WRITE, &store, &err) == 0);
    must(append_open(store, 2, &append, &record, &err) == 0);
    buf_fini(&record);
}

static void close_writer(void)
{
    append_close(append);
    store_close(store);
    append = NULL;
    store = NULL;
}

static int make(int chain_off)
{
    strcpy(top, "/tmp/azoth-append-chain-XXXXXX");
    clock_ns = 1700000000000000000;
    if (!mkdtemp(top))
        return -1;
    snprintf(dir, sizeof dir, "%s/db", top);
    if (store_create_planned(dir, &(struct store_plan){.chain_off = chain_off}, &err))
        return -1;
    open_writer();
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return make(0);
}

static int setup_without_chain(void **state)
{
    (void)state;
    return make(1);
}

static int teardown(void **state)
{
    (void)state;
    close_writer();
    restore_remove_tree(top);
    return access(top, F_OK) == 0;
}

static void begin(void)
{
    must(append_begin(append, clock_ns++, 0, &err) == 0);
}

static void commit(void)
{
    must(append_commit(append, NULL, 0, &err) == 0);
}

/* A transaction of n events with so many bytes each and a key: 0, or what LMDB refused it with. */
static int try_txn(uint32_t n, size_t payload)
{
    struct txn_builder b = {0};
    struct txn_result r;
    int code = 0, rc = 0;
    unsigned char *p = malloc(payload + 1);
    must(p != NULL);
    for (uint32_t i = 0; i < n && !rc; i++) {
        memset(p, 'a' + (int)(random() % 26), payload);
        rc = txn_add_event(&b, bytes_str("moved"), bytes_str("acct"), bytes_str(""),
                           bytes_of(p, payload), &err);
    }
    struct azoth_value one = {AZOTH_TYPE_I64, {"\1\0\0\0\0\0\0\0", 8}};
    if (!rc)
        rc = txn_add_value(&b, TXN_ADD, bytes_str("n"), one, &err);
    must(rc == 0);
    rc = append_apply(append, txn_image(&b), NULL, 0, &code, &r, &err);
    must(rc || code == 0);
    txn_builder_fini(&b);
    free(p);
    return rc;
}

static void txn(uint32_t n, size_t payload)
{
    must(try_txn(n, payload) == 0);
}

static void batch(uint32_t n, size_t payload)
{
    begin();
    txn(n, payload);
    commit();
}

/* A control operation in the batch that is open: the verdict. */
static int control(const char *operation, const void *p, size_t len)
{
    struct txn_builder b = {0};
    struct txn_result result;
    int code = 0;
    must(txn_set_control(&b, bytes_str(operation), bytes_of(p, len), &err) == 0);
    must(control_apply(append, txn_image(&b), &code, &result, &err) == 0);
    txn_builder_fini(&b);
    return code;
}

/* ---- what is in it ---- */

static struct batch_head record_of(struct snapshot *sn)
{
    struct batch_head h;
    MDB_val k = {4, "head"}, v;
    must(mdb_get(snapshot_txn(sn), store_lmdb(snapshot_store(sn))->dbi[DB_META], &k, &v) == 0);
    must(batch_decode(bytes_of_val(v), &h) == 0);
    return h;
}

static struct chain walked(struct snapshot *sn)
{
    struct chain_walk w = {0};
    struct event_scan *es;
    struct event_record ev;
    int rc;
    must(snapshot_chain_start(sn, &w.chain, &err) == 1);
    must(event_scan_open(sn, 1, 0, &es, &err) == 0);
    while ((rc = event_scan_next(es, &ev, NULL, &err)) == 1)
        must(chain_walk_add(&w, &ev) == 0);
    must(rc == 0);
    chain_walk_end(&w);
    chain_walk_fini(&w);
    event_scan_close(es);
    return w.chain;
}

static int same(const struct chain *a, const struct chain *b)
{
    return a->on && b->on && a->txn == b->txn && a->event == b->event &&
           memcmp(a->value, b->value, CHAIN_BYTES) == 0;
}

/* The chain that is told is whole. 1: the record's own is not. */
static int trails_in(struct store *s)
{
    struct snapshot *sn;
    struct store_head head;
    must(snapshot_begin(s, &sn, &err) == 0);
    must(snapshot_head_chained(sn, &head, &err) == 0);
    struct batch_head record = record_of(sn);
    struct chain all = walked(sn);
    snapshot_end(sn);
    must(same(&head.chain, &all));
    must(head.chain.event == head.event);
    must(record.chain.on && record.chain.event <= head.event);
    int trails = record.chain.event < head.event;
    must(trails || same(&record.chain, &all));
    return trails;
}

static int trails(void)
{
    return trails_in(store);
}

/* The same with nobody writing: the store as a reader opens it. */
static int trails_at_rest(void)
{
    must(store_open(dir, 0, &store, &err) == 0);
    int is = trails();
    store_close(store);
    store = NULL;
    return is;
}

/* ---- crashes ---- */

/* The store is closed here; a child opens it, does that, and is gone. */
static void crash_after(void (*work)(void))
{
    int status;
    if (append)
        close_writer();
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        open_writer();
        work();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    clock_ns += 1000000; /* the child's clock went on */
}

static void commit_large(void)
{
    batch(3, 10);
    batch(1, LARGE);
}

static void commit_large_twice(void)
{
    commit_large();
    batch(300, 300);
}

static void commit_very_large(void)
{
    begin();
    for (int i = 0; i < 5; i++)
        txn(4, 200000);
    txn(0, 0); /* one without an event is the last */
    commit();
}

static void commit_large_and_begin_another(void)
{
    commit_large();
    begin();
    txn(2, LARGE);
}

static void commit_large_and_small(void)
{
    commit_large();
    batch(1, 10);
}

static void the_record_ends_before_a_large_batch_and_who_asks_is_told_the_whole_chain(void **state)
{
    (void)state;
    assert_int_equal(trails(), 0);
    batch(2, 100);
    assert_int_equal(trails(), 0);
    for (int i = 0; i < 3; i++) {
        batch(2, LARGE);
        assert_int_equal(trails(), 1);
    }
    batch(0, 0);
    assert_int_equal(trails(), 0);
    begin();
    for (int i = 0; i < 300; i++)
        txn(1, 200);
    commit();
    assert_int_equal(trails(), 1);
    batch(1, 1);
    assert_int_equal(trails(), 0);
}

static void a_crash_behind_a_large_batch_loses_nothing_of_the_chain(void **state)
{
    (void)state;
    static const struct {
        void (*work)(void);
        int trails;
    } crash[] = {{commit_large, 1},
                 {commit_large_twice, 1},
                 {commit_very_large, 1},
                 {commit_large_and_begin_another, 1},
                 {commit_large_and_small, 0}};
    for (size_t i = 0; i < 2 * sizeof crash / sizeof *crash; i++) {
        size_t k = i / 2;
        crash_after(crash[k].work);
        assert_int_equal(trails_at_rest(), crash[k].trails);
        open_writer();
        assert_int_equal(trails(), 0); /* it has hashed what was missing */
        batch(1, i % 2 ? 10 : LARGE);
        assert_int_equal(trails(), i % 2 ? 0 : 1);
    }
}

static void a_writer_that_ends_in_peace_leaves_a_whole_record(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        batch(2, LARGE);
        assert_int_equal(trails(), 1);
        if (i == 1)
            begin();
        if (i == 2) {
            /* The batch that is given up has had the large one hashed. */
            begin();
            txn(1, 10);
            append_abort(append);
        }
        close_writer();
        assert_int_equal(trails_at_rest(), 0);
        open_writer();
    }
}

/* ---- what does not happen ---- */

static void a_batch_that_is_aborted_is_not_in_the_chain(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        if (i % 2)
            batch(1, LARGE);
        begin();
        txn(2, i < 2 ? LARGE : 10);
        append_abort(append);
        assert_int_equal(trails(), i % 2);
        batch(3, 10);
        assert_int_equal(trails(), 0);
    }
    begin();
    txn(2, LARGE);
    append_abort(append);
    batch(1, LARGE);
    assert_int_equal(trails(), 1);
}

static void map(size_t bytes)
{
    must(mdb_env_set_mapsize(store_lmdb(store)->env, bytes) == 0);
}

static size_t used(void)
{
    MDB_envinfo info;
    must(mdb_env_info(store_lmdb(store)->env, &info) == 0);
    return (info.me_last_pgno + 1) * 4096;
}

/* Which of the two was refused: 0 none, 1 the transaction, 2 the commit. */
static int large_batch_within(size_t bytes)
{
    int refused = 0;
    map(bytes);
    begin();
    if (try_txn(1, LARGE)) {
        append_abort(append);
        refused = 1;
    } else {
        int rc = append_commit(append, NULL, 0, &err);
        must(rc == 0 || rc == AZOTH_ERR_NOSPACE);
        refused = rc ? 2 : 0;
    }
    map(1u << 30);
    return refused;
}

/* From no room at all, a page more each time, until the batch goes through: it fails at its events first, and then
 * wherever the commit needs a page. No page that is freed meanwhile is used again, for an old snapshot's sake. */
static void a_batch_that_has_no_room_is_not_in_the_chain(void **state)
{
    (void)state;
    int times[3] = {0}, refused = 1;
    struct snapshot *old;
    batch(1, 100);
    must(snapshot_begin(store, &old, &err) == 0);
    for (size_t pages = 0; refused; pages++) {
        int before = pages % 2;
        must(pages < 200);
        batch(1, before ? LARGE : 10);
        refused = large_batch_within(used() + pages * 4096);
        times[refused]++;
        must(trails() == (refused ? before : 1));
        batch(2, 10);
        must(trails() == 0);
    }
    snapshot_end(old);
    assert_true(times[0] && times[1] && times[2]);
}

/* It was the commit that failed, behind a large batch: what that one left on the disk still trails. */
static void a_peaceful_end_after_a_failed_commit_leaves_a_whole_record(void **state)
{
    (void)state;
    int refused = 1;
    struct snapshot *old;
    must(snapshot_begin(store, &old, &err) == 0);
    for (size_t pages = 20; refused == 1; pages++) {
        batch(1, LARGE);
        refused = large_batch_within(used() + pages * 4096);
    }
    snapshot_end(old);
    assert_int_equal(refused, 2);
    assert_int_equal(trails(), 1);
    close_writer();
    assert_int_equal(trails_at_rest(), 0);
    open_writer();
}

/* The file cannot grow, which LMDB is told in the middle of its commit: this writer is at its end. */
static void a_commit_of_unknown_effect_leaves_the_chain_to_the_next_writer(void **state)
{
    (void)state;
    struct rlimit was, small;
    struct stat st;
    char path[100];
    batch(1, LARGE);
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    assert_int_equal(stat(path, &st), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = was;
    small.rlim_cur = (rlim_t)st.st_size + 8192;
    begin();
    txn(20, LARGE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = append_commit(append, NULL, 0, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(rc, AZOTH_ERR_IO);
    assert_int_equal(append_begin(append, clock_ns, 0, &err), AZOTH_ERR_IO);
    close_writer();
    assert_int_equal(trails_at_rest(), 1);
    open_writer();
    assert_int_equal(append_head(append)->event, 1);
    assert_int_equal(trails(), 0);
    batch(2, 10);
    assert_int_equal(trails(), 0);
}

/* ---- what else a batch may hold ---- */

static const unsigned char place[CONTROL_MARK_NEW] = {7};

static void a_mark_behind_a_large_batch_has_its_record_whole(void **state)
{
    (void)state;
    batch(2, LARGE);
    begin();
    assert_int_equal(control("mark", place, sizeof place), 0);
    commit();
    assert_int_equal(trails(), 0);
    begin();
    txn(1, LARGE);
    assert_int_equal(control("unmark", place, sizeof place), 0);
    commit();
    assert_int_equal(trails(), 1);
    assert_int_equal(append_incarnation(append, 77, &err), 0);
    assert_int_equal(trails(), 0);
}

/* Events 1 to the newest, as a segment that is recorded in the batch that is open. */
static void archive_all(void)
{
    static struct archived_entry e;
    struct buf b = {0};
    must(log_segment(store, dir, 1, 0, &e, &err) == 0);
    must(archived_entry_encode(&b, &e) == 0);
    must(control("archive", b.ptr, b.len) == 0);
    buf_fini(&b);
}

/* The events of the large batch are deleted by the very batch whose record has its value, and which is large too. */
static void archive_what_trails_with_a_large_batch(void)
{
    struct snapshot *sn;
    struct archived_state s;
    batch(2, 50);
    batch(2, LARGE);
    must(trails() == 1);
    begin();
    archive_all();
    must(control("archive-piece", NULL, 0) == 0);
    txn(2, LARGE);
    commit();
    must(snapshot_begin(store, &sn, &err) == 0);
    must(snapshot_archive(sn, &s, &err) == 0);
    snapshot_end(sn);
    must(s.first_in_store == 5 && s.last_archived == 4);
}

static void events_that_are_archived_are_not_missed(void **state)
{
    (void)state;
    crash_after(archive_what_trails_with_a_large_batch);
    assert_int_equal(trails_at_rest(), 1);
    open_writer();
    assert_int_equal(trails(), 0);
    batch(1, 10);
    assert_int_equal(trails(), 0);
}

static void an_archive_of_all_behind_a_large_batch_has_its_record_whole(void **state)
{
    (void)state;
    batch(3, LARGE);
    begin();
    archive_all();
    assert_int_equal(control("archive-piece", NULL, 0), 0);
    commit();
    assert_int_equal(trails(), 0);
    close_writer();
    assert_int_equal(trails_at_rest(), 0);
    open_writer();
    batch(1, LARGE);
    assert_int_equal(trails(), 1);
}

/* ---- copies ---- */

static void copy_to(const char *path)
{
    static unsigned char piece[65536];
    struct copy *c;
    size_t len = sizeof piece;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    must(fd >= 0);
    must(copy_begin(store, &c, &err) == 0);
    while (len == sizeof piece) {
        must(copy_read(c, piece, sizeof piece, &len, &err) == 0);
        must(write(fd, piece, len) == (ssize_t)len);
    }
    copy_end(c);
    close(fd);
}

static struct store_head head_in(struct store *s)
{
    struct snapshot *sn;
    struct store_head head;
    must(snapshot_begin(s, &sn, &err) == 0);
    must(snapshot_head_chained(sn, &head, &err) == 0);
    snapshot_end(sn);
    return head;
}

static struct buf part[64];
static unsigned parts;

static int keep_part(void *arg, struct azoth_bytes p, struct azoth_error *e)
{
    (void)arg;
    (void)e;
    must(parts < sizeof part / sizeof *part);
    return buf_add(&part[parts++], p.ptr, p.len);
}

static void advance(const char *path, const struct increment_at *from, const struct store_head *to)
{
    struct advance *a;
    must(advance_open(path, &a, &err) == 0);
    must(advance_increment(a, from->txn, &from->chain, &err) == 0);
    for (unsigned i = 0; i < parts; i++)
        must(advance_part(a, buf_bytes(&part[i]), &(struct advance_target){0}, &err) == 0);
    must(advance_increment_end(a, to, &err) == 0);
    must(advance_finish(a, &err) == 0);
}

/* The file at path is what the restored database is made of, which then goes on. */
static void restore_and_write(const char *path, const struct store_head *want)
{
    struct restore *r;
    struct store_head head;
    uint8_t uuid[16];
    char target[100];
    snprintf(target, sizeof target, "%s/restored", top);
    must(restore_begin(target, &r, &err) == 0);
    must(rename(path, restore_store(r)) == 0);
    must(restore_check(r, NULL, NULL, &head, &err) == 0);
    must(same(&head.chain, &want->chain));
    must(restore_identity(r, 0, uuid, &err) == 0);
    must(restore_finish(r, uuid, 0, &err) == 0);
    snprintf(dir, sizeof dir, "%s", target);
    trails_at_rest();
    open_writer();
    must(trails() == 0);
    head = head_in(store);
    must(same(&head.chain, &want->chain));
    batch(2, LARGE);
    must(trails() == 1);
}

static void a_copy_of_what_trails_is_restored_advanced_and_goes_on(void **state)
{
    (void)state;
    char path[2][100];
    struct store *s;
    begin();
    assert_int_equal(control("mark", place, sizeof place), 0);
    commit();
    batch(2, LARGE);
    assert_int_equal(trails(), 1);
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/copy%d", top, i);
        copy_to(path[i]);
    }
    struct store_head then = head_in(store);
    struct increment_at at = {then.txn, then.event, then.chain}, from = at;
    batch(2, 10);
    batch(1, LARGE);
    assert_int_equal(trails(), 1);
    struct store_head now = head_in(store);
    parts = 0;
    assert_int_equal(increment_export(store, &at, &now, keep_part, NULL, &err), 0);
    assert_true(same(&at.chain, &now.chain));
    advance(path[1], &from, &now);
    assert_int_equal(store_open(path[1], STORE_FILE, &s, &err), 0);
    trails_in(s);
    struct store_head advanced = head_in(s);
    store_close(s);
    assert_true(same(&advanced.chain, &now.chain));
    close_writer();
    restore_and_write(path[0], &then);
    close_writer();
    restore_remove_tree(dir);
    restore_and_write(path[1], &now);
    for (unsigned i = 0; i < parts; i++)
        buf_fini(&part[i]);
    memset(part, 0, sizeof part);
}

/* ---- damage ---- */

static unsigned found[3];
static const char *const kind[3] = {"event", "chain", NULL}; /* and others */
static char said[400];

static void on_found(void *arg, const struct store_finding *f)
{
    (void)arg;
    unsigned i = 0;
    while (kind[i] && strcmp(kind[i], f->kind) != 0)
        i++;
    found[i]++;
    snprintf(said, sizeof said, "%s", f->message);
}

static struct store_check_sum check(void)
{
    static const struct store_check_tell tell = {.found = on_found};
    struct store_check_sum sum;
    memset(found, 0, sizeof found);
    said[0] = 0;
    assert_int_equal(store_open(dir, 0, &store, &err), 0);
    assert_int_equal(store_check(store, &tell, &sum, &err), 0);
    store_close(store);
    store = NULL;
    assert_int_equal(sum.findings, found[0] + found[1] + found[2]);
    return sum;
}

/* What append_open() says of it. */
static int refused(void)
{
    struct buf record = {0};
    assert_int_equal(store_open(dir, STORE_WRITE, &store, &err), 0);
    int rc = append_open(store, 2, &append, &record, &err);
    buf_fini(&record);
    if (rc) {
        store_close(store);
        store = NULL;
        append = NULL;
    } else {
        close_writer();
    }
    return rc;
}

/* Puts what fn makes of a value in its place, behind everybody's back. fn: 0 takes the record away. */
static void damage(const char *db, const void *key, size_t key_len,
                   size_t (*fn)(unsigned char *p, size_t len))
{
    MDB_env *env;
    MDB_txn *t;
    MDB_dbi dbi;
    MDB_val k = {key_len, (void *)(uintptr_t)key}, v;
    assert_int_equal(lmdb_env_open(dir, 0, &env, &err), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &t), 0);
    assert_int_equal(mdb_dbi_open(t, db, 0, &dbi), 0);
    assert_int_equal(mdb_get(t, dbi, &k, &v), 0);
    unsigned char *p = malloc(v.mv_size);
    assert_non_null(p);
    memcpy(p, v.mv_data, v.mv_size);
    v = (MDB_val){fn(p, v.mv_size), p};
    assert_int_equal(v.mv_size ? mdb_put(t, dbi, &k, &v, 0) : mdb_del(t, dbi, &k, NULL), 0);
    assert_int_equal(mdb_txn_commit(t), 0);
    mdb_env_close(env);
    free(p);
}

static void damage_event(uint64_t id, size_t (*fn)(unsigned char *p, size_t len))
{
    unsigned char key[8];
    put_be64(key, id);
    damage("events", key, sizeof key, fn);
}

static size_t flip(unsigned char *p, size_t len)
{
    p[len / 2] ^= 1;
    return len;
}

static size_t take_away(unsigned char *p, size_t len)
{
    (void)p;
    (void)len;
    return 0;
}

static size_t flip_chain_value(unsigned char *p, size_t len)
{
    struct batch_head h;
    assert_int_equal(batch_decode(bytes_of(p, len), &h), 0);
    assert_int_equal(h.count, 0);
    h.chain.value[5] ^= 1;
    batch_encode(p, &h, NULL);
    return len;
}

static uint64_t forged_id;

/* Another byte, and a checksum that fits. */
static size_t forge(unsigned char *p, size_t len)
{
    struct event_record ev;
    unsigned char *copy = malloc(len);
    assert_non_null(copy);
    p[len - 1] ^= 1;
    memcpy(copy, p, len);
    record_event_decode(forged_id, bytes_of(copy, len), &ev);
    p[len - 1] ^= 1;
    assert_int_equal(record_event_decode(forged_id, bytes_of(p, len), &ev), 0);
    p[len - 1] ^= 1;
    memcpy(copy, p, len);
    struct azoth_bytes *const field[] = {&ev.type, &ev.key, &ev.metadata, &ev.payload};
    for (size_t i = 0; i < 4; i++)
        field[i]->ptr = copy + ((const unsigned char *)field[i]->ptr - p);
    record_event_encode(p, &ev);
    free(copy);
    return len;
}

static void a_healthy_store_that_trails_is_found_healthy(void **state)
{
    (void)state;
    crash_after(commit_large);
    struct store_check_sum sum = check();
    assert_int_equal(sum.findings, 0);
    assert_int_equal(sum.chain_checked, 1);
    assert_int_equal(sum.events, 4);
    assert_int_equal(trails_at_rest(), 1); /* nothing was written */
    assert_int_equal(refused(), 0);
    assert_int_equal(check().findings, 0);
}

static void a_flipped_byte_in_the_newest_batch_is_told_and_no_writer_goes_on(void **state)
{
    (void)state;
    crash_after(commit_large);
    damage_event(4, flip);
    struct store_check_sum sum = check();
    assert_int_equal(found[0], 1);
    assert_int_equal(sum.findings, 1);
    assert_int_equal(sum.chain_checked, 0);
    assert_int_equal(refused(), AZOTH_ERR_CORRUPT);
    assert_non_null(strstr(err.message, "event 4 of the newest batch"));
    damage_event(4, flip);
    assert_int_equal(check().findings, 0);
    assert_int_equal(refused(), 0);
}

static void a_missing_event_of_the_newest_batch_is_told_and_no_writer_goes_on(void **state)
{
    (void)state;
    crash_after(commit_large_twice);
    damage_event(17, take_away);
    assert_true(check().findings > 0);
    assert_int_equal(refused(), AZOTH_ERR_GAP);
    assert_non_null(strstr(err.message, "event 17 of the newest batch"));
    damage_event(304, take_away); /* the last one */
    assert_true(check().findings > 0);
    assert_int_equal(refused(), AZOTH_ERR_GAP);
}

static void a_changed_chain_value_is_told(void **state)
{
    (void)state;
    crash_after(commit_large);
    damage("meta", "head", 4, flip_chain_value);
    struct store_check_sum sum = check();
    assert_int_equal(sum.findings, 1);
    assert_int_equal(found[1], 1);
    assert_non_null(strstr(said, "do not give the chain's value"));
    damage("meta", "head", 4, flip_chain_value);
    assert_int_equal(check().findings, 0);
}

/* Whoever ends in peace has left the value of all: also the newest event cannot be forged any more. */
static void a_forged_event_of_the_last_batch_is_told_after_a_peaceful_end(void **state)
{
    (void)state;
    batch(3, 10);
    batch(1, LARGE);
    close_writer();
    forged_id = 4;
    damage_event(4, forge);
    struct store_check_sum sum = check();
    assert_int_equal(sum.findings, 1);
    assert_int_equal(found[1], 1);
    damage_event(4, forge);
    assert_int_equal(check().findings, 0);
    /* And one that the trailing record has in its value. */
    crash_after(commit_large);
    forged_id = 7;
    damage_event(7, forge);
    assert_int_equal(check().findings, 1);
    assert_int_equal(found[1], 1);
    damage_event(7, forge);
    assert_int_equal(check().findings, 0);
}

/* ---- without a chain ---- */

static unsigned threads(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/task");
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void a_large_batch_has_a_thread_that_ends_with_the_writer(void **state)
{
    (void)state;
    unsigned before = threads();
    batch(1, 10);
    assert_int_equal(threads(), before);
    batch(2, LARGE);
    assert_int_equal(threads(), before + 1);
}

static void without_a_chain_there_is_no_thread_and_nothing_to_hash(void **state)
{
    (void)state;
    static const struct chain none;
    struct snapshot *sn;
    unsigned before = threads();
    for (int i = 0; i < 3; i++) {
        batch(2, LARGE);
        begin();
        txn(1, LARGE);
        append_abort(append);
        batch(1, 10);
    }
    assert_int_equal(threads(), before);
    struct store_head head = head_in(store);
    assert_int_equal(head.event, 9);
    assert_memory_equal(&head.chain, &none, sizeof none);
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    struct batch_head record = record_of(sn);
    snapshot_end(sn);
    assert_memory_equal(&record.chain, &none, sizeof none);
    close_writer();
    struct store_check_sum sum = check();
    assert_true(sum.findings == 0 && !sum.chain_checked);
    open_writer();
}

/* ---- whatever comes ---- */

static void random_batches_leave_a_whole_chain(void **state)
{
    (void)state;
    for (int i = 0; i < 120; i++) {
        begin();
        for (long k = random() % 3; k >= 0; k--)
            txn((uint32_t)random() % 4,
                random() % 3 ? (size_t)random() % 300 : (size_t)random() % 40000);
        if (random() % 5 == 0)
            append_abort(append);
        else
            commit();
        if (random() % 4 == 0)
            trails();
        if (random() % 12 == 0) {
            close_writer();
            assert_int_equal(trails_at_rest(), 0);
            open_writer();
        }
    }
    batch(1, 10);
    assert_int_equal(trails(), 0);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_record_ends_before_a_large_batch_and_who_asks_is_told_the_whole_chain),
        T(a_crash_behind_a_large_batch_loses_nothing_of_the_chain),
        T(a_writer_that_ends_in_peace_leaves_a_whole_record),
        T(a_batch_that_is_aborted_is_not_in_the_chain),
        T(a_batch_that_has_no_room_is_not_in_the_chain),
        T(a_peaceful_end_after_a_failed_commit_leaves_a_whole_record),
        T(a_commit_of_unknown_effect_leaves_the_chain_to_the_next_writer),
        T(a_mark_behind_a_large_batch_has_its_record_whole),
        T(events_that_are_archived_are_not_missed),
        T(an_archive_of_all_behind_a_large_batch_has_its_record_whole),
        T(a_copy_of_what_trails_is_restored_advanced_and_goes_on),
        T(a_healthy_store_that_trails_is_found_healthy),
        T(a_flipped_byte_in_the_newest_batch_is_told_and_no_writer_goes_on),
        T(a_missing_event_of_the_newest_batch_is_told_and_no_writer_goes_on),
        T(a_changed_chain_value_is_told),
        T(a_forged_event_of_the_last_batch_is_told_after_a_peaceful_end),
        T(a_large_batch_has_a_thread_that_ends_with_the_writer),
        cmocka_unit_test_setup_teardown(without_a_chain_there_is_no_thread_and_nothing_to_hash,
                                        setup_without_chain, teardown),
        T(random_batches_leave_a_whole_chain),
    };
    srandom((unsigned)seed_of_run());
    parent = getpid();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
