/*
 * test_copy.c - the copy of a store's file under commits, and its content by meaning: export, import, digest.
 */
#include "core/error.h"
#include "core/store_lmdb.h"
#include "writer/append.h"
#include "writer/copy.h"
#include "writer/create.h"
#include "writer/digest.h"
#include "writer/export.h"
#include "writer/import.h"
#include "writer/restore.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char top[64];
static struct azoth_error err;

struct database {
    char dir[100];
    struct store *store;
    struct append *append;
    const char *differs; /* in the payload of its events */
};
static struct database db;

static void open_database(struct database *d, const char *name)
{
    struct buf record = {0};
    snprintf(d->dir, sizeof d->dir, "%s/%s", top, name);
    d->differs = "";
    assert_int_equal(store_create(d->dir, 0, &err), 0);
    assert_int_equal(store_open(d->dir, STORE_WRITE, &d->store, &err), 0);
    assert_int_equal(append_open(d->store, 2, &d->append, &record, &err), 0);
    buf_fini(&record);
}

static void close_database(struct database *d)
{
    append_close(d->append);
    store_close(d->store);
}

static _Atomic int enough;
static pthread_t committer;
static int committing;

static void stop_committing(void)
{
    atomic_store(&enough, 1);
    if (committing)
        pthread_join(committer, NULL);
    committing = 0;
}

static int setup(void **state)
{
    (void)state;
    strcpy(top, "/tmp/azoth-copy-XXXXXX");
    if (!mkdtemp(top))
        return -1;
    open_database(&db, "db");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop_committing();
    close_database(&db);
    restore_remove_tree(top);
    return access(top, F_OK) == 0;
}

/* One transaction: key `n` gets i, a key of its own, an event, a request id; every third one deletes. */
static void commit(struct database *d, uint64_t i, int64_t wall_ns)
{
    struct txn_builder b = {0};
    struct txn_result res;
    unsigned char n[8];
    char key[40], payload[60];
    uint8_t id[AZOTH_ID_BYTES] = {0};
    int code;
    put_u64(n, i);
    memcpy(id, n, 8);
    struct azoth_value v = {AZOTH_TYPE_BYTES, {n, 8}};
    snprintf(key, sizeof key, "key/%llu", (unsigned long long)(i * 7919 % 1000));
    snprintf(payload, sizeof payload, "{\"n\":%llu%s}", (unsigned long long)i, d->differs);
    assert_int_equal(txn_add_value(&b, TXN_SET, bytes_str("n"), v, &err), 0);
    assert_int_equal(txn_add_value(&b, TXN_SET, bytes_str(key), v, &err), 0);
    if (i % 3 == 0) {
        snprintf(key, sizeof key, "key/%llu", (unsigned long long)((i - 1) * 7919 % 1000));
        assert_int_equal(txn_add_key(&b, TXN_DELETE, bytes_str(key), &err), 0);
    }
    assert_int_equal(txn_add_event(&b, bytes_str("counted"), bytes_str("n"), bytes_of("", 0),
                                   bytes_str(payload), &err),
                     0);
    assert_int_equal(append_begin(d->append, wall_ns, 0, &err), 0);
    assert_int_equal(append_apply(d->append, txn_image(&b), id, i, &code, &res, &err), 0);
    assert_int_equal(code, 0);
    assert_int_equal(append_commit(d->append, NULL, 0, &err), 0);
    txn_builder_fini(&b);
}

static void commit_many(struct database *d, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i <= to; i++)
        commit(d, i, 1700000000000000000 + (int64_t)i);
}

/* What is left of c, into a file. */
static void drain(struct copy *c, const char *path)
{
    static unsigned char part[100000];
    size_t n;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    do {
        assert_int_equal(copy_read(c, part, sizeof part, &n, &err), 0);
        assert_int_equal(write(fd, part, n), n);
    } while (n == sizeof part);
    close(fd);
}

static void head_of(struct snapshot *sn, struct store_head *ret)
{
    assert_int_equal(snapshot_head(sn, ret, &err), 0);
}

/* The copied store says the same of itself, and what it holds is of that commit. */
static void check_copy(const char *path, const struct store_head *head)
{
    struct store *s;
    struct snapshot *sn;
    struct store_head got;
    struct state_record n;
    assert_int_equal(store_open(path, STORE_FILE, &s, &err), 0);
    assert_int_equal(snapshot_begin(s, &sn, &err), 0);
    head_of(sn, &got);
    assert_int_equal(got.txn, head->txn);
    assert_int_equal(got.event, head->event);
    assert_int_equal(snapshot_get(sn, bytes_str("n"), &n, &err), 0);
    assert_int_equal(n.version, head->txn);
    assert_int_equal(get_u64(n.value.enc.ptr), head->txn);
    snapshot_end(sn);
    store_close(s);
    unlink(path);
}

/* Each commit is made durable, as they usually are: without that they would come faster than a copy can begin. */
static void *commit_until(void *arg)
{
    uint64_t i = *(uint64_t *)arg;
    while (!atomic_load(&enough)) {
        commit_many(&db, i, i);
        mdb_env_sync(store_lmdb(db.store)->env, 1);
        i++;
    }
    *(uint64_t *)arg = i;
    return NULL;
}

static void a_copy_is_of_the_commit_that_its_snapshot_sees_while_others_commit(void **state)
{
    (void)state;
    char path[100];
    static uint64_t next;
    snprintf(path, sizeof path, "%s/copy", top);
    commit_many(&db, 1, 3000);
    next = 3001;
    atomic_store(&enough, 0);
    assert_int_equal(pthread_create(&committer, NULL, commit_until, &next), 0);
    committing = 1;
    for (int i = 0; i < 30; i++) {
        struct copy *c;
        struct store_head head;
        /* On a busy machine none of many tries may meet one commit. Who wants a copy then pauses writes. */
        int rc = AZOTH_ERR_BUSY;
        for (int again = 0; rc == AZOTH_ERR_BUSY && again < 100; again++)
            rc = copy_begin(db.store, &c, &err);
        assert_int_equal(rc, 0);
        head_of(copy_snapshot(c), &head);
        drain(c, path);
        copy_end(c);
        check_copy(path, &head);
    }
    stop_committing();
    assert_true(next > 3001);
}

static void a_copy_that_nobody_takes_holds_up_no_commit_and_makes_the_file_grow(void **state)
{
    (void)state;
    char path[100];
    struct copy *c;
    struct store_head head;
    snprintf(path, sizeof path, "%s/copy", top);
    commit_many(&db, 1, 1000);
    assert_int_equal(copy_begin(db.store, &c, &err), 0);
    head_of(copy_snapshot(c), &head);
    alarm(60); /* a commit that is held up would be so for ever */
    commit_many(&db, 1001, 3000);
    alarm(0);
    assert_true(copy_growth(c) > 0);
    drain(c, path);
    copy_end(c);
    assert_int_equal(head.txn, 1000);
    check_copy(path, &head);
}

static void a_copy_can_be_given_up(void **state)
{
    (void)state;
    struct copy *c;
    unsigned char some[100];
    size_t n;
    commit_many(&db, 1, 3000);
    assert_int_equal(copy_begin(db.store, &c, &err), 0);
    copy_end(c);
    assert_int_equal(copy_begin(db.store, &c, &err), 0);
    assert_int_equal(copy_read(c, some, sizeof some, &n, &err), 0);
    assert_int_equal(n, sizeof some);
    copy_end(c);
    struct store_reader readers[4];
    uint32_t left;
    assert_int_equal(store_readers(db.store, readers, 4, &left), 0);
    assert_int_equal(left, 0);
}

/* ---- by meaning ---- */

struct gathered {
    struct buf state, events, ids;
    struct import *im;
};

static struct gathered *into;

static int on_state(void *arg, struct azoth_bytes part, struct azoth_error *e)
{
    assert_true(part.len <= EXPORT_PART);
    assert_int_equal(buf_add(arg, part.ptr, part.len), 0);
    return into->im ? import_state(into->im, part, e) : 0;
}

static int on_events(void *arg, struct azoth_bytes part, struct azoth_error *e)
{
    assert_int_equal(buf_add(arg, part.ptr, part.len), 0);
    return into->im ? import_events(into->im, part, e) : 0;
}

static int on_ids(void *arg, struct azoth_bytes part, struct azoth_error *e)
{
    assert_int_equal(buf_add(arg, part.ptr, part.len), 0);
    return into->im ? import_ids(into->im, part, e) : 0;
}

static void gather(struct store *s, struct gathered *g, struct store_head *ret_head)
{
    struct snapshot *sn;
    uint64_t keys, ids;
    into = g;
    assert_int_equal(snapshot_begin(s, &sn, &err), 0);
    head_of(sn, ret_head);
    assert_int_equal(export_state(sn, on_state, &g->state, &keys, &err), 0);
    assert_int_equal(export_ids(sn, on_ids, &g->ids, &ids, &err), 0);
    snapshot_end(sn);
    assert_int_equal(ids, ret_head->txn);
    assert_int_equal(export_events(s, 0, ret_head->event, on_events, &g->events, &err), 0);
}

static void gathered_fini(struct gathered *g)
{
    buf_fini(&g->state);
    buf_fini(&g->events);
    buf_fini(&g->ids);
}

static void digest_of(struct store *s, int with_times, struct digest *ret)
{
    memset(ret, 0, sizeof *ret);
    assert_int_equal(digest_store(s, with_times, NULL, NULL, ret, &err), 0);
}

static void what_is_imported_is_exported_as_the_same_bytes_from_other_pages(void **state)
{
    (void)state;
    char path[100];
    struct gathered g = {0}, again = {0};
    struct store_head head, head2;
    struct store *s;
    struct import_identity id = {.created_ns = 7};
    struct digest a, b;
    snprintf(path, sizeof path, "%s/imported", top);
    commit_many(&db, 1, 5000);
    assert_int_equal(import_open(path, &g.im, &err), 0);
    gather(db.store, &g, &head);
    id.txn = head.txn;
    id.event = head.event;
    memset(id.uuid, 5, sizeof id.uuid);
    assert_int_equal(import_finish(g.im, &id, &err), 0);
    assert_int_equal(store_open(path, STORE_FILE, &s, &err), 0);
    assert_memory_equal(store_identity(s)->uuid, id.uuid, 16);
    gather(s, &again, &head2);
    assert_true(bytes_eq(buf_bytes(&g.state), buf_bytes(&again.state)));
    assert_true(bytes_eq(buf_bytes(&g.events), buf_bytes(&again.events)));
    assert_true(bytes_eq(buf_bytes(&g.ids), buf_bytes(&again.ids)));
    digest_of(db.store, 1, &a);
    digest_of(s, 1, &b);
    assert_memory_equal(a.sum, b.sum, DIGEST_BYTES);
    assert_int_equal(a.keys, b.keys);
    store_close(s);
    gathered_fini(&g);
    gathered_fini(&again);
}

static void an_import_takes_nothing_out_of_its_order(void **state)
{
    (void)state;
    char path[100];
    struct gathered g = {0};
    struct store_head head;
    struct import *im;
    struct import_identity id = {0};
    snprintf(path, sizeof path, "%s/imported", top);
    commit_many(&db, 1, 20);
    gather(db.store, &g, &head);
    assert_int_equal(import_open(path, &im, &err), 0);
    assert_int_equal(import_open(path, &g.im, &err), AZOTH_ERR_DUPLICATE);
    assert_int_equal(import_state(im, buf_bytes(&g.state), &err), 0);
    assert_int_equal(import_state(im, buf_bytes(&g.state), &err), AZOTH_ERR_CORRUPT);
    struct event_record ev;
    size_t second = 0;
    assert_int_equal(record_frame_next(buf_bytes(&g.events), &second, &ev, NULL), 1);
    struct azoth_bytes tail = {g.events.ptr + second, g.events.len - second};
    assert_int_equal(import_events(im, tail, &err), AZOTH_ERR_GAP);
    assert_int_equal(import_events(im, buf_bytes(&g.events), &err), 0);
    assert_int_equal(import_ids(im, buf_bytes(&g.ids), &err), 0);
    assert_int_equal(import_ids(im, buf_bytes(&g.ids), &err), AZOTH_ERR_CORRUPT);
    g.state.ptr[g.state.len - 1] ^= 1;
    assert_int_equal(import_state(im, buf_bytes(&g.state), &err), AZOTH_ERR_CORRUPT);
    id.txn = head.txn;
    id.event = head.event + 1;
    assert_int_equal(import_finish(im, &id, &err), AZOTH_ERR_GAP);
    unlink(path);
    gathered_fini(&g);
}

static void the_same_transactions_have_the_same_digest_and_others_have_another(void **state)
{
    (void)state;
    struct database other;
    struct digest a, b;
    open_database(&other, "other");
    commit_many(&db, 1, 500);
    for (uint64_t i = 1; i <= 500; i++)
        commit(&other, i, 1800000000000000000 + (int64_t)i); /* at other times */
    digest_of(db.store, 0, &a);
    digest_of(other.store, 0, &b);
    assert_memory_equal(a.sum, b.sum, DIGEST_BYTES);
    digest_of(db.store, 1, &a);
    digest_of(other.store, 1, &b);
    assert_memory_not_equal(a.sum, b.sum, DIGEST_BYTES);
    other.differs = " ";
    commit_many(&db, 501, 501);
    commit_many(&other, 501, 501);
    digest_of(db.store, 0, &a);
    digest_of(other.store, 0, &b);
    assert_memory_not_equal(a.sum, b.sum, DIGEST_BYTES);
    close_database(&other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_copy_is_of_the_commit_that_its_snapshot_sees_while_others_commit),
        TEST(a_copy_that_nobody_takes_holds_up_no_commit_and_makes_the_file_grow),
        TEST(a_copy_can_be_given_up),
        TEST(what_is_imported_is_exported_as_the_same_bytes_from_other_pages),
        TEST(an_import_takes_nothing_out_of_its_order),
        TEST(the_same_transactions_have_the_same_digest_and_others_have_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
