/*
 * test_library.c - libazoth under the conditions that its callers make: many threads, forks, pauses,
 * a writer that goes away, callbacks that call back.
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/segment.h"
#include "shm/slot.h"
#include "tests/system/harness.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct harness h;
static struct azoth_error err;

static struct azoth *embedded(uint32_t deadline_ms, int wait_paused)
{
    struct azoth_options o = {
        .flags = AZOTH_EMBEDDED, .deadline_ms = deadline_ms, .wait_paused = wait_paused};
    struct azoth *db = NULL;
    int rc = azoth_open(h.dir, &o, &db, &err);
    if (rc)
        print_error("%s\n", err.message);
    assert_int_equal(rc, 0);
    return db;
}

static int add(struct azoth *db, const char *key, uint32_t deadline_ms, struct azoth_error *why)
{
    struct azoth_txn *t = azoth_txn_new(db);
    if (deadline_ms)
        azoth_txn_set_deadline(t, deadline_ms);
    azoth_add_i64(t, azoth_str(key), 1);
    int rc = azoth_commit(t, NULL, why);
    azoth_txn_free(t);
    return rc;
}

static int64_t value_of(struct azoth *db, const char *key)
{
    int64_t n = 0;
    int rc = azoth_get_i64(db, azoth_str(key), &n, &err);
    return rc == AZOTH_ERR_NOT_FOUND ? 0 : rc ? -1 : n;
}

/* ---- a steady load: the queue is never empty for long ---- */

#define IN_FLIGHT 300u

struct load {
    _Atomic int stop, failed;
    _Atomic uint64_t done, refused;
    pthread_t thread[2];
};

static void load_ended(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                       const struct azoth_error *why, void *arg)
{
    struct load *l = arg;
    (void)info;
    if (code == 0)
        atomic_fetch_add(&l->done, 1);
    else if (code == AZOTH_ERR_PAUSED)
        atomic_fetch_add(&l->refused, 1);
    else if (atomic_exchange(&l->failed, code) == 0)
        fprintf(stderr, "load: %s\n", why->message);
    azoth_txn_free(t);
}

static void *load_main(void *arg)
{
    struct load *l = arg;
    struct azoth_options o = {.deadline_ms = 20000};
    struct azoth *db;
    struct azoth_error why;
    uint64_t n = 0;
    int rc = azoth_open(h.dir, &o, &db, &why);
    while (!rc && !atomic_load(&l->stop) && !atomic_load(&l->failed)) {
        while (azoth_in_flight(db) < IN_FLIGHT && !rc) {
            struct azoth_txn *t = azoth_txn_new(db);
            char key[48];
            snprintf(key, sizeof key, "load/%p/%u", (void *)db, (unsigned)(n++ % (2 * IN_FLIGHT)));
            azoth_add_i64(t, azoth_str(key), 1);
            rc = azoth_submit(t, load_ended, l, &why);
            if (rc)
                azoth_txn_free(t);
        }
        azoth_poll(db, 10);
    }
    if (rc) {
        fprintf(stderr, "load: %s\n", why.message);
        atomic_store(&l->failed, rc);
        return NULL;
    }
    azoth_close(db);
    return NULL;
}

static void load_start(struct load *l)
{
    memset(l, 0, sizeof *l);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&l->thread[i], NULL, load_main, l), 0);
}

static void load_until(const struct load *l, const _Atomic uint64_t *count, uint64_t more)
{
    uint64_t want = atomic_load(count) + more;
    while (atomic_load(count) < want && !atomic_load(&l->failed))
        sched_yield();
}

static void load_stop(struct load *l)
{
    atomic_store(&l->stop, 1);
    for (int i = 0; i < 2; i++)
        pthread_join(l->thread[i], NULL);
}

/* Its batches are much smaller than what is in flight: the queue is never empty. */
static struct process *start_busy_writer(void)
{
    return harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir,
                         "--writer-batch-transactions", "16", NULL);
}

static uint64_t last_transaction(void)
{
    struct segment_name name;
    struct segment *s;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(segment_inspect(&name, &s, &err), 0);
    uint64_t txn = atomic_load(&s->header->head_txn);
    segment_detach(s);
    return txn;
}

static void a_pause_takes_effect_under_steady_load(void **state)
{
    (void)state;
    static struct load l;
    harness_begin(&h);
    start_busy_writer();
    struct azoth *db = harness_attach(&h, 2000);
    load_start(&l);
    for (int round = 0; round < 5; round++) {
        load_until(&l, &l.done, 1000);
        assert_int_equal(azoth_pause(db, 60000, &err), 0);
        uint64_t at = last_transaction();
        load_until(&l, &l.refused, 3 * IN_FLIGHT);
        uint64_t later = last_transaction();
        assert_int_equal(azoth_resume(db, NULL), 0);
        assert_int_equal(later, at);
    }
    load_until(&l, &l.done, 1000);
    load_stop(&l);
    assert_int_equal(atomic_load(&l.failed), 0);
    azoth_close(db);
    harness_end(&h);
}

static void a_writer_stops_soon_under_steady_load_and_nobody_is_refused(void **state)
{
    (void)state;
    static struct load l;
    harness_begin(&h);
    struct process *w = start_busy_writer();
    struct azoth *db = harness_attach(&h, 20000);
    load_start(&l);
    for (int round = 0; round < 3; round++) {
        load_until(&l, &l.done, 2000);
        uint64_t before = clock_mono_ns();
        assert_int_equal(harness_stop(&h, w), 0);
        assert_true(clock_mono_ns() - before < NS_PER_S);
        harness_spawn(&h, w);
    }
    load_until(&l, &l.done, 2000);
    load_stop(&l);
    assert_int_equal(atomic_load(&l.failed), 0);
    azoth_close(db);
    harness_end(&h);
}

/* ---- forks ---- */

static void a_forked_child_opens_the_parents_database_itself(void **state)
{
    (void)state;
    harness_begin(&h);
    struct azoth *db = embedded(5000, 0);
    assert_int_equal(add(db, "n", 0, &err), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct azoth *mine = NULL;
        struct azoth_error why = {0};
        int rc = add(db, "n", 0, &why) == AZOTH_ERR_FORKED ? 0 : 1;
        azoth_close(db);
        if (!rc && azoth_open(h.dir, NULL, &mine, &why))
            rc = 2;
        if (!rc && value_of(mine, "n") != 1)
            rc = 3;
        if (!rc && add(mine, "n", 0, &why))
            rc = 4;
        if (!rc && value_of(mine, "n") != 2)
            rc = 5;
        if (rc)
            fprintf(stderr, "child: %d %s\n", rc, why.message);
        azoth_close(mine);
        _exit(rc);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(add(db, "n", 0, &err), 0);
    assert_int_equal(value_of(db, "n"), 3);
    azoth_close(db);
    harness_end(&h);
}

/* ---- waiting costs nothing ---- */

static uint64_t processor_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static int last_code;
static void note_code(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                      const struct azoth_error *why, void *arg)
{
    (void)t;
    (void)info;
    (void)why;
    (void)arg;
    last_code = code;
}

static void *commit_main(void *arg)
{
    static struct azoth_error why;
    return (void *)(intptr_t)add(arg, "waits", 0, &why);
}

static void a_paused_embedded_database_is_waited_for_without_burning_the_processor(void **state)
{
    (void)state;
    harness_begin(&h);
    struct azoth *db = embedded(10000, 1);
    assert_int_equal(azoth_pause(db, 600, &err), 0);
    uint64_t before = processor_ns(), from = clock_mono_ns();
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, azoth_str("n"), 1);
    last_code = 1;
    assert_int_equal(azoth_submit(t, note_code, NULL, &err), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, commit_main, db), 0);
    while (azoth_in_flight(db))
        assert_true(azoth_poll(db, 2000) >= 0);
    void *rc;
    pthread_join(thread, &rc);
    uint64_t burnt = processor_ns() - before, waited = clock_mono_ns() - from;
    assert_int_equal(last_code, 0);
    assert_ptr_equal(rc, NULL);
    print_message("MEASURED processor time while waiting %" PRIu64 " ms: %" PRIu64 " ms\n",
                  waited / NS_PER_MS, burnt / NS_PER_MS);
    assert_true(waited >= 500 * NS_PER_MS);
    assert_true(burnt < 30 * NS_PER_MS);
    azoth_txn_free(t);
    azoth_close(db);
    harness_end(&h);
}

/* ---- a segment that is retired ---- */

static void note(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                 const struct azoth_error *why, void *arg)
{
    (void)t;
    (void)info;
    (void)why;
    *(int *)arg = code;
}

static void retire_segment(void)
{
    struct segment_name name;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(segment_retire_name(&name, &err), 0);
}

static void *long_commit_main(void *arg)
{
    static struct azoth_error why;
    return (void *)(intptr_t)add(arg, "long", 4000, &why);
}

static void a_thread_keeps_its_deadline_while_another_waits_for_a_writer(void **state)
{
    (void)state;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 5000);
    harness_kill(w, SIGKILL);
    harness_wait(&h, w, 5000);
    retire_segment();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, long_commit_main, db), 0);
    for (int i = 0; i < 5; i++) {
        uint64_t before = clock_mono_ns();
        assert_int_equal(add(db, "short", 50, &err), AZOTH_ERR_NO_WRITER);
        assert_true(clock_mono_ns() - before < NS_PER_S);
    }
    harness_spawn(&h, w);
    void *rc;
    pthread_join(thread, &rc);
    assert_ptr_equal(rc, NULL);
    assert_int_equal(value_of(db, "long"), 1);
    azoth_close(db);
    harness_end(&h);
}

/* Transactions on one key: the first is submitted to a writer that stands, the others wait behind it. */
struct queued {
    int n, code[3]; /* 1 until it has ended */
    struct azoth_txn *t[3];
};

/* The last one's deadline is last_ms; the others', or with 0 its too, is the handle's. */
static void queue_behind_stopped(struct queued *q, int n, struct process *w, struct azoth *db,
                                 uint32_t last_ms)
{
    harness_kill(w, SIGSTOP);
    q->n = n;
    for (int i = 0; i < n; i++) {
        q->code[i] = 1;
        q->t[i] = azoth_txn_new(db);
        azoth_add_i64(q->t[i], azoth_str("same"), 1);
        if (last_ms && i == n - 1)
            azoth_txn_set_deadline(q->t[i], last_ms);
        assert_int_equal(azoth_submit(q->t[i], note, &q->code[i], &err), 0);
    }
}

static void queued_free(struct queued *q)
{
    for (int i = 0; i < q->n; i++)
        azoth_txn_free(q->t[i]);
}

static void what_waited_on_a_retired_segment_goes_on_on_the_next(void **state)
{
    (void)state;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 20000);
    struct queued q;
    queue_behind_stopped(&q, 3, w, db, 0);
    harness_kill(w, SIGKILL);
    harness_wait(&h, w, 5000);
    retire_segment();
    /* The one that was submitted is told as unknown, the others wait for the next segment. */
    while (q.code[0] == 1)
        assert_true(azoth_poll(db, 100) >= 0);
    assert_int_equal(q.code[0], AZOTH_ERR_OUTCOME_UNKNOWN);
    assert_int_equal(q.code[1], 1);
    harness_spawn(&h, w);
    while (azoth_in_flight(db))
        assert_true(azoth_poll(db, 1000) >= 0);
    assert_int_equal(q.code[1], 0);
    assert_int_equal(q.code[2], 0);
    /* Not executed by the writer that never saw it. */
    assert_int_equal(value_of(db, "same"), 2);
    queued_free(&q);
    azoth_close(db);
    harness_end(&h);
}

/* ---- a segment whose object was removed, with its writer ---- */

static void take_segment_away(void)
{
    struct segment_name name;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    segment_unlink(&name);
}

/* Looks until n are submitted. */
static void wait_submitted(uint32_t n)
{
    struct segment_name name;
    struct segment *s;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(segment_inspect(&name, &s, &err), 0);
    uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
    for (uint32_t have = 0; have < n; nap_ms(1)) {
        assert_true(clock_mono_ns() < until);
        have = 0;
        for (uint32_t i = 0; i < s->slots; i++)
            have += slot_word_state(atomic_load(&s->slot[i].word)) == SLOT_SUBMITTED;
    }
    segment_detach(s);
}

static void *lost_commit_main(void *arg)
{
    static struct azoth_error why;
    return (void *)(intptr_t)add(arg, "lost", 0, &why);
}

static void who_waits_in_a_segment_that_was_removed_with_its_writer_hears_of_it(void **state)
{
    (void)state;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 60000), *other = harness_attach(&h, 60000);
    pthread_t thread;
    void *lost;
    struct queued q;
    queue_behind_stopped(&q, 2, w, db, 0);
    assert_int_equal(pthread_create(&thread, NULL, lost_commit_main, other), 0);
    wait_submitted(2);
    take_segment_away();
    harness_kill(w, SIGKILL);
    harness_wait(&h, w, 5000);
    harness_spawn(&h, w);
    /* Long before the deadline: what was submitted is unknown, what waited for it goes on. */
    uint64_t before = clock_mono_ns();
    while (azoth_in_flight(db))
        assert_true(azoth_poll(db, 1000) >= 0);
    pthread_join(thread, &lost);
    assert_true(clock_mono_ns() - before < 15 * NS_PER_S);
    assert_int_equal(q.code[0], AZOTH_ERR_OUTCOME_UNKNOWN);
    assert_int_equal(q.code[1], 0);
    assert_int_equal((int)(intptr_t)lost, AZOTH_ERR_OUTCOME_UNKNOWN);
    assert_int_equal(value_of(db, "same"), 1);
    assert_int_equal(value_of(db, "lost"), 0);
    queued_free(&q);
    azoth_close(db);
    azoth_close(other);
    harness_end(&h);
}

static void who_did_nothing_when_the_segment_was_removed_goes_on_on_the_next(void **state)
{
    (void)state;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 60000);
    take_segment_away();
    harness_kill(w, SIGKILL);
    harness_wait(&h, w, 5000);
    harness_spawn(&h, w);
    uint64_t before = clock_mono_ns();
    assert_int_equal(add(db, "n", 0, &err), 0);
    assert_true(clock_mono_ns() - before < 10 * NS_PER_S);
    assert_int_equal(value_of(db, "n"), 1);
    azoth_close(db);
    harness_end(&h);
}

static void one_that_is_held_back_by_an_earlier_one_keeps_its_own_deadline(void **state)
{
    (void)state;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 20000);
    struct queued q;
    queue_behind_stopped(&q, 3, w, db, 200);
    uint64_t before = clock_mono_ns();
    while (q.code[2] == 1)
        assert_true(azoth_poll(db, 100) >= 0);
    assert_true(clock_mono_ns() - before < 2 * NS_PER_S);
    assert_int_equal(q.code[2], AZOTH_ERR_LOCK_TIMEOUT);
    assert_int_equal(q.code[1], 1);
    harness_kill(w, SIGCONT);
    while (azoth_in_flight(db))
        assert_true(azoth_poll(db, 1000) >= 0);
    assert_int_equal(q.code[0], 0);
    assert_int_equal(q.code[1], 0);
    assert_int_equal(value_of(db, "same"), 2);
    queued_free(&q);
    azoth_close(db);
    harness_end(&h);
}

/* ---- threads of one handle ---- */

static struct azoth *shared;
static _Atomic int submitting;
static _Atomic uint64_t ended_well;

static void count_end(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                      const struct azoth_error *why, void *arg)
{
    (void)info;
    (void)why;
    (void)arg;
    if (code == 0)
        atomic_fetch_add(&ended_well, 1);
    azoth_txn_free(t);
}

static void *poll_main(void *arg)
{
    (void)arg;
    while (atomic_load(&submitting) || azoth_in_flight(shared))
        azoth_poll(shared, 1);
    return NULL;
}

static void one_thread_submits_while_another_polls(void **state)
{
    (void)state;
    harness_begin(&h);
    shared = embedded(20000, 0);
    atomic_store(&submitting, 1);
    atomic_store(&ended_well, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, poll_main, NULL), 0);
    for (int i = 0; i < 5000; i++) {
        struct azoth_txn *t = azoth_txn_new(shared);
        char key[16];
        snprintf(key, sizeof key, "k%d", i % 100);
        azoth_add_i64(t, azoth_str(key), 1);
        while (azoth_in_flight(shared) > 500)
            sched_yield();
        assert_int_equal(azoth_submit(t, count_end, NULL, &err), 0);
    }
    atomic_store(&submitting, 0);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&ended_well), 5000);
    azoth_close(shared);
    harness_end(&h);
}

static int poll_in_callback(struct azoth_txn *t, void *arg)
{
    (void)t;
    int *seen = arg;
    seen[0] = azoth_poll(shared, 10);
    seen[1] = (int)azoth_in_flight(shared);
    return 0;
}

static void a_callback_that_polls_is_refused_and_blocks_nobody(void **state)
{
    (void)state;
    harness_begin(&h);
    shared = embedded(5000, 0);
    int seen[2] = {1, -1}, code = 1;
    struct azoth_txn *t = azoth_txn_new(shared);
    azoth_add_i64(t, azoth_str("n"), 1);
    azoth_validate(t, poll_in_callback, seen);
    assert_int_equal(azoth_submit(t, note, &code, &err), 0);
    while (azoth_in_flight(shared))
        azoth_poll(shared, 1000);
    assert_int_equal(code, 0);
    assert_int_equal(seen[0], AZOTH_ERR_USAGE);
    assert_in_range(seen[1], 0, 1);
    azoth_txn_free(t);
    azoth_close(shared);
    harness_end(&h);
}

/* ---- copies of a request at two workers ---- */

/* Two workers; the remote handle's next request goes to the first, which is stopped. */
struct two_workers {
    struct process *w[2];
    struct azoth *remote;
};

static void two_workers_begin(struct two_workers *two)
{
    harness_begin(&h);
    harness_start(&h, "writer", 1, "azoth-writer", "--dir", h.dir, NULL);
    char listen[2][300], both[620];
    for (int i = 0; i < 2; i++) {
        char name[8];
        snprintf(name, sizeof name, "w%d", i);
        snprintf(listen[i], sizeof listen[i], "ipc://%s/%s.sock", h.dir, name);
        two->w[i] = harness_start(&h, name, 0, "azoth-worker", "--dir", h.dir, "--name", name,
                                  "--worker-listen", listen[i], NULL);
        assert_true(harness_answers(listen[i]));
    }
    snprintf(both, sizeof both, "%s,%s", listen[0], listen[1]);
    struct azoth_options o = {.deadline_ms = 30000};
    assert_int_equal(azoth_connect(both, &o, &two->remote, &err), 0);
    /* A remote handle takes its endpoints in turn. */
    assert_int_equal(add(two->remote, "a", 0, &err), 0);
    assert_int_equal(add(two->remote, "a", 0, &err), 0);
    harness_kill(two->w[0], SIGSTOP);
}

static struct azoth_txn *submit_add_if(struct azoth *remote, const char *exists, int *code)
{
    struct azoth_txn *t = azoth_txn_new(remote);
    azoth_require_exists(t, azoth_str(exists));
    azoth_add_i64(t, azoth_str("b"), 1);
    *code = 1;
    assert_int_equal(azoth_submit(t, note, code, &err), 0);
    return t;
}

static void a_refusal_is_not_told_while_a_stopped_worker_may_commit_the_same_request(void **state)
{
    (void)state;
    struct two_workers two;
    two_workers_begin(&two);
    struct azoth *db = harness_attach(&h, 5000);
    int code;
    struct azoth_txn *t = submit_add_if(two.remote, "later", &code);
    /* Long enough for the second worker's refusal to have come. */
    uint64_t until = clock_mono_ns() + 1500 * NS_PER_MS;
    while (clock_mono_ns() < until && code == 1)
        azoth_poll(two.remote, 100);
    assert_int_equal(code, 1);
    struct azoth_txn *later = azoth_txn_new(db);
    azoth_set_i64(later, azoth_str("later"), 1);
    assert_int_equal(azoth_commit(later, NULL, &err), 0);
    azoth_txn_free(later);
    harness_kill(two.w[0], SIGCONT);
    while (azoth_in_flight(two.remote))
        azoth_poll(two.remote, 1000);
    assert_int_equal(code, 0);
    assert_int_equal(value_of(db, "b"), 1);
    azoth_txn_free(t);
    azoth_close(two.remote);
    azoth_close(db);
    harness_end(&h);
}

static void a_refusal_is_told_soon_after_the_other_worker_has_died(void **state)
{
    (void)state;
    struct two_workers two;
    two_workers_begin(&two);
    int code;
    struct azoth_txn *t = submit_add_if(two.remote, "never", &code);
    uint64_t before = clock_mono_ns();
    harness_kill(two.w[0], SIGKILL);
    while (azoth_in_flight(two.remote))
        azoth_poll(two.remote, 100);
    assert_int_equal(code, AZOTH_ERR_PREFLIGHT_FAILED);
    assert_true(clock_mono_ns() - before < 5 * NS_PER_S);
    azoth_txn_free(t);
    azoth_close(two.remote);
    harness_end(&h);
}

#define LARGE 8

/* Each is longer than a connection's buffers: a copy too many would stand before the answers. */
static void large_requests_in_flight_outlast_a_stopped_writer_and_commit_once(void **state)
{
    (void)state;
    static char fill[300 << 10];
    struct azoth_txn *t[LARGE];
    int code[LARGE];
    char listen[300];
    struct azoth *remote;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    snprintf(listen, sizeof listen, "ipc://%s/w.sock", h.dir);
    harness_start(&h, "w", 0, "azoth-worker", "--dir", h.dir, "--name", "w", "--worker-listen",
                  listen, NULL);
    assert_true(harness_answers(listen));
    struct azoth_options o = {.deadline_ms = 30000};
    assert_int_equal(azoth_connect(listen, &o, &remote, &err), 0);
    harness_kill(w, SIGSTOP);
    for (int i = 0; i < LARGE; i++) {
        code[i] = 1;
        t[i] = azoth_txn_new(remote);
        azoth_event_bytes(t[i], "filled", (struct azoth_bytes){fill, sizeof fill});
        assert_int_equal(azoth_submit(t[i], note, &code[i], &err), 0);
    }
    /* Until requests have been sent again, twice. */
    uint64_t until = clock_mono_ns() + 1000 * NS_PER_MS;
    while (clock_mono_ns() < until)
        azoth_poll(remote, 50);
    assert_int_equal(azoth_in_flight(remote), LARGE);
    harness_kill(w, SIGCONT);
    uint64_t from = clock_mono_ns();
    while (azoth_in_flight(remote))
        azoth_poll(remote, 1000);
    assert_true(clock_mono_ns() - from < 5 * NS_PER_S);
    for (int i = 0; i < LARGE; i++) {
        assert_int_equal(code[i], 0);
        azoth_txn_free(t[i]);
    }
    azoth_close(remote);
    struct azoth *db = harness_attach(&h, 5000);
    uint64_t head, txn;
    assert_int_equal(azoth_head(db, &head, &txn, &err), 0);
    assert_int_equal(head, LARGE);
    azoth_close(db);
    harness_end(&h);
}

/* With an argument: only the tests whose name begins so. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pause_takes_effect_under_steady_load),
        cmocka_unit_test(a_writer_stops_soon_under_steady_load_and_nobody_is_refused),
        cmocka_unit_test(a_forked_child_opens_the_parents_database_itself),
        cmocka_unit_test(a_paused_embedded_database_is_waited_for_without_burning_the_processor),
        cmocka_unit_test(a_thread_keeps_its_deadline_while_another_waits_for_a_writer),
        cmocka_unit_test(what_waited_on_a_retired_segment_goes_on_on_the_next),
        cmocka_unit_test(who_waits_in_a_segment_that_was_removed_with_its_writer_hears_of_it),
        cmocka_unit_test(who_did_nothing_when_the_segment_was_removed_goes_on_on_the_next),
        cmocka_unit_test(one_that_is_held_back_by_an_earlier_one_keeps_its_own_deadline),
        cmocka_unit_test(one_thread_submits_while_another_polls),
        cmocka_unit_test(a_callback_that_polls_is_refused_and_blocks_nobody),
        cmocka_unit_test(a_refusal_is_not_told_while_a_stopped_worker_may_commit_the_same_request),
        cmocka_unit_test(a_refusal_is_told_soon_after_the_other_worker_has_died),
        cmocka_unit_test(large_requests_in_flight_outlast_a_stopped_writer_and_commit_once),
    };
    char filter[100];
    snprintf(filter, sizeof filter, "%s*", argc > 1 ? argv[1] : "");
    cmocka_set_test_filter(filter);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
