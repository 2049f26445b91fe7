/*
 * test_chaining.c - the chain of the commit thread beside chain_extend(): at every step a record's chain is that of the
 * whole log with the batch, or of the log before it, and never anything else.
 *
 * What the hashing thread does, and when, is the test's: it is linked with --wrap of what starts, ends and
 * waits for it, and of hash_once(). A gate holds the thread before it begins or in the middle of its hash, and is
 * opened by the very call that must not hang on it. AZOTH_TEST_SEED=N repeats a run.
 */
#include "core/error.h"
#include "core/hash.h"
#include "writer/chaining.h"
#include "tests/unit/seed.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the thread in the test's hands ---- */

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __real_pthread_join(pthread_t t, void **ret);
int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
void __real_hash_once(unsigned char ret[HASH_BYTES], const void *p, size_t n);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_join(pthread_t t, void **ret);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
void __wrap_hash_once(unsigned char ret[HASH_BYTES], const void *p, size_t n);

enum where { NOWHERE, AT_ITS_START, IN_ITS_HASH };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static pthread_t commit_thread;
/* Under the lock. */
static enum where held;    /* where the thread is to stop */
static enum where stopped; /* where it has */
static int opens_on_wait, opens_on_join;
static unsigned hashed_by_thread, hashed_by_commits;
static int sees_signals;
/* The commit thread's. */
static int refused; /* no thread can be made */
static unsigned asked;
static void *(*body)(void *);

static void stop_at(enum where here)
{
    pthread_mutex_lock(&lock);
    if (held == here) {
        stopped = here;
        pthread_cond_broadcast(&moved);
        while (held == here)
            __real_pthread_cond_wait(&moved, &lock);
        stopped = NOWHERE;
    }
    pthread_mutex_unlock(&lock);
}

static void hold(enum where there)
{
    pthread_mutex_lock(&lock);
    held = there;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

static void until_stopped(enum where there)
{
    pthread_mutex_lock(&lock);
    while (stopped != there)
        __real_pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
}

static void until_hashed(unsigned n)
{
    pthread_mutex_lock(&lock);
    while (hashed_by_thread < n)
        __real_pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
}

static void open_if(const int *wanted)
{
    pthread_mutex_lock(&lock);
    if (*wanted)
        held = NOWHERE;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

static void *started(void *arg)
{
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    pthread_mutex_lock(&lock);
    sees_signals = !sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGUSR1);
    pthread_mutex_unlock(&lock);
    stop_at(AT_ITS_START);
    return body(arg);
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    asked++;
    body = f;
    return refused ? EAGAIN : __real_pthread_create(t, a, started, arg);
}

int __wrap_pthread_join(pthread_t t, void **ret)
{
    open_if(&opens_on_join);
    return __real_pthread_join(t, ret);
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    if (pthread_equal(pthread_self(), commit_thread))
        open_if(&opens_on_wait);
    return __real_pthread_cond_wait(c, m);
}

void __wrap_hash_once(unsigned char ret[HASH_BYTES], const void *p, size_t n)
{
    int by_commits = pthread_equal(pthread_self(), commit_thread);
    if (!by_commits)
        stop_at(IN_ITS_HASH);
    __real_hash_once(ret, p, n);
    pthread_mutex_lock(&lock);
    if (by_commits)
        hashed_by_commits++;
    else
        hashed_by_thread++;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

/* ---- batches, and what they make of the chain ---- */

#define EVENTS_MAX 300u
#define BYTES_MAX  (6u << 20)

static struct chaining *ch;
static struct chain log_at;   /* over what was committed */
static struct chain batch_at; /* and over the batch in hand */
static size_t batch_bytes;    /* of its text */
static int64_t now_ns;
static unsigned char *bytes; /* of the events; changed after each call */
static unsigned char round_no;

static int setup(void **state)
{
    (void)state;
    commit_thread = pthread_self();
    chain_begin(&log_at, (const uint8_t[16]){1, 2, 3}, 0, 0);
    now_ns = 1700000000000000000;
    held = stopped = NOWHERE;
    opens_on_wait = opens_on_join = refused = 0;
    asked = hashed_by_thread = hashed_by_commits = 0;
    bytes = malloc(BYTES_MAX);
    ch = chaining_new(&log_at);
    return !bytes || !ch;
}

static int teardown(void **state)
{
    (void)state;
    hold(NOWHERE);
    chaining_free(ch);
    free(bytes);
    return 0;
}

static void begin(void)
{
    batch_at = log_at;
    batch_bytes = 0;
    now_ns++;
}

/* One transaction of n events, whose payloads have so many bytes together. */
static void txn(uint32_t n, size_t payload)
{
    static struct event_record ev[EVENTS_MAX];
    assert_true(n >= 1 && n <= EVENTS_MAX && payload <= BYTES_MAX);
    memset(bytes, ++round_no, payload);
    for (uint32_t i = 0; i < n; i++) {
        size_t from = payload * i / n, to = payload * (i + 1) / n;
        ev[i] = (struct event_record){.id = batch_at.event + 1 + i,
                                      .txn = batch_at.txn + 1 + (uint64_t)random() % 3,
                                      .time_ns = now_ns,
                                      .type = bytes_str("moved"),
                                      .key = bytes_str(i % 2 ? "acct/1" : ""),
                                      .payload = bytes_of(bytes + from, to - from)};
        ev[i].txn = ev[0].txn;
    }
    assert_int_equal(chaining_add(ch, ev, n), 0);
    chain_extend(&batch_at, ev, n);
    batch_bytes += 8 + chain_text_size(ev, n);
    memset(bytes, ~round_no, payload);
}

static int same(const struct chain *a, const struct chain *b)
{
    return a->on == b->on && a->txn == b->txn && a->event == b->event &&
           memcmp(a->value, b->value, CHAIN_BYTES) == 0;
}

/* 1: the record is to have the chain with the batch, 0: before it. */
static int head(void)
{
    struct chain said;
    chaining_head(ch, &said);
    int with = same(&said, &batch_at);
    assert_true(with || same(&said, &log_at));
    return with;
}

/* The batch with that record is committed. */
static void commit(int with)
{
    chaining_commit(ch);
    assert_int_equal(chaining_trails(ch), !with);
    log_at = batch_at;
}

static void large(void)
{
    begin();
    txn(1, 100000);
    assert_int_equal(head(), 0);
}

/* The next one's record has all: nothing was forgotten, and nothing came back. */
static void expect_all(void)
{
    begin();
    assert_int_equal(head(), 1);
    commit(1);
    begin();
    txn(2, 100);
    assert_int_equal(head(), 1);
    commit(1);
}

/* ---- whatever comes ---- */

static void some_txns(void)
{
    switch (random() % 7) {
    case 0: /* none: control items, or transactions without events */
        break;
    case 1:
    case 2:
        for (long i = random() % 4; i >= 0; i--)
            txn(1 + (uint32_t)random() % 3, (size_t)random() % 200);
        break;
    case 3:
        txn(1, 30000 + (size_t)random() % 60000);
        break;
    case 4: /* around what a thread is worth */
        txn(1, 10000);
        txn(1, 32768 - 140 - batch_bytes + (size_t)random() % 80);
        break;
    case 5:
        for (long i = random() % 200; i >= 0; i--)
            txn(1, (size_t)random() % 400);
        break;
    default:
        txn(EVENTS_MAX, (size_t)random() % 70000);
        txn(1, (size_t)random() % 200);
        break;
    }
}

static void one_batch(void)
{
    begin();
    if (random() % 20 == 0) {
        chaining_abort(ch);
        return;
    }
    some_txns();
    if (random() % 8 == 0) {
        chaining_abort(ch);
        return;
    }
    int was_large = batch_bytes >= 65536, was_small = batch_bytes < 16384, with = head();
    assert_true(with || !was_small);
    assert_true(!with || !was_large || refused);
    if (random() % 4 == 0)
        chaining_abort(ch);
    else
        commit(with);
}

static void random_batches(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        one_batch();
        if (random() % 50 == 0) {
            /* Another writer, which has hashed what was missing. */
            chaining_free(ch);
            ch = chaining_new(&log_at);
            assert_non_null(ch);
            assert_int_equal(chaining_trails(ch), 0);
        }
    }
    expect_all();
}

static void every_record_has_the_chain_with_its_batch_or_before_it(void **state)
{
    (void)state;
    random_batches(1200);
    /* Where one thread runs at a time, the commit thread may have taken back each of them. */
    unsigned before = hashed_by_thread;
    large();
    commit(0);
    until_hashed(before + 1);
    expect_all();
    assert_true(asked > 0 && hashed_by_thread > 0);
}

static void without_a_thread_every_record_has_its_batch(void **state)
{
    (void)state;
    refused = 1;
    for (int i = 0; i < 20; i++) {
        begin();
        txn(3, 100000);
        assert_int_equal(head(), 1);
        if (i % 3)
            commit(1);
        else
            chaining_abort(ch);
    }
    assert_int_equal(asked, 1); /* and not again with each batch */
    random_batches(200);
    assert_int_equal(hashed_by_thread, 0);
}

static void small_batches_want_no_thread(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        begin();
        txn(4, 1000);
        assert_int_equal(head(), 1);
        commit(1);
    }
    assert_int_equal(asked, 0);
}

static void what_memory_a_very_large_batch_took_is_no_longer_needed(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        begin();
        txn(7, BYTES_MAX);
        commit(head());
        expect_all();
    }
}

/* ---- wherever the thread is ---- */

static void what_nobody_has_begun_is_hashed_by_who_needs_it(void **state)
{
    (void)state;
    hold(AT_ITS_START);
    for (int i = 0; i < 4; i++) {
        large();
        commit(0);
    }
    expect_all();
    assert_int_equal(hashed_by_thread, 0);
    /* The thread, let go, finds nothing to do, and is there for the next one. */
    hold(NOWHERE);
    large();
    until_hashed(1);
    commit(0);
    unsigned before = hashed_by_commits;
    begin();
    assert_int_equal(head(), 1);
    assert_int_equal(hashed_by_commits, before);
    commit(1);
}

static void what_is_being_hashed_is_waited_for(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        hold(IN_ITS_HASH);
        large();
        until_stopped(IN_ITS_HASH);
        commit(0);
        opens_on_wait = 1;
        unsigned before = hashed_by_commits;
        begin();
        assert_int_equal(head(), 1);
        assert_int_equal(hashed_by_thread, i + 1);
        assert_int_equal(hashed_by_commits, before);
        commit(1);
        opens_on_wait = 0;
    }
}

static void an_aborted_batch_never_comes_back(void **state)
{
    (void)state;
    large();
    until_hashed(1);
    chaining_abort(ch);
    expect_all();
    hold(IN_ITS_HASH);
    large();
    until_stopped(IN_ITS_HASH);
    opens_on_wait = 1;
    chaining_abort(ch);
    assert_int_equal(hashed_by_thread, 2);
    expect_all();
    chaining_free(ch);
    hold(AT_ITS_START);
    ch = chaining_new(&log_at);
    large();
    chaining_abort(ch);
    expect_all();
    hold(NOWHERE);
    large();
    until_hashed(3);
    chaining_abort(ch);
    large();
    commit(0);
    expect_all();
}

/* The batch that is aborted has had the one before it hashed; the record on the disk is still that one's. */
static void an_aborted_batch_leaves_the_record_trailing(void **state)
{
    (void)state;
    large();
    commit(0);
    begin();
    txn(1, 100);
    chaining_abort(ch);
    assert_int_equal(chaining_trails(ch), 1);
    begin();
    txn(1, 100);
    assert_int_equal(head(), 1);
    chaining_abort(ch);
    assert_int_equal(chaining_trails(ch), 1);
    large();
    chaining_abort(ch);
    assert_int_equal(chaining_trails(ch), 1);
    begin();
    assert_int_equal(head(), 1);
    commit(1);
}

static void end(void)
{
    opens_on_join = 1;
    chaining_free(ch);
    opens_on_join = 0;
    ch = chaining_new(&log_at);
    assert_non_null(ch);
    asked = hashed_by_thread = 0;
}

static void it_ends_wherever_its_thread_is(void **state)
{
    (void)state;
    for (int committed = 0; committed < 2; committed++) {
        end();
        large();
        until_hashed(1);
        if (committed)
            commit(0);
        end();
        hold(AT_ITS_START);
        large();
        if (committed)
            commit(0);
        until_stopped(AT_ITS_START);
        end();
        hold(IN_ITS_HASH);
        large();
        until_stopped(IN_ITS_HASH);
        if (committed)
            commit(0);
        end();
    }
    begin();
    txn(1, 100000); /* gathered alone */
    assert_int_equal(asked, 0);
    chaining_free(NULL);
}

static void signals_are_the_other_threads(void **state)
{
    (void)state;
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    large();
    until_hashed(1);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sees_signals, 0);
    for (int s = 1; s < 32; s++)
        assert_int_equal(sigismember(&before, s), sigismember(&after, s));
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(every_record_has_the_chain_with_its_batch_or_before_it),
        T(without_a_thread_every_record_has_its_batch),
        T(small_batches_want_no_thread),
        T(what_memory_a_very_large_batch_took_is_no_longer_needed),
        T(what_nobody_has_begun_is_hashed_by_who_needs_it),
        T(what_is_being_hashed_is_waited_for),
        T(an_aborted_batch_never_comes_back),
        T(an_aborted_batch_leaves_the_record_trailing),
        T(it_ends_wherever_its_thread_is),
        T(signals_are_the_other_threads),
    };
    srandom((unsigned)seed_of_run());
    alarm(200); /* a lost wake is a failure, not a wait */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
