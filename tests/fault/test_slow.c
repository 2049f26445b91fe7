/*
 * test_slow.c - processes that are stopped and not dead, in front of the commit.
 *
 * A stopped process is alive (shm/README.md): nothing is taken from it, others time out on its keys and
 * go on with the rest, and when it continues it continues where it was. Built with crash points, at
 * which a process stops itself. With arguments it is its own client: --add DIR KEY commits one addition
 * of 1 to KEY and waits long for it.
 *
 * What must hold wherever a transaction was when somebody stopped
 *   T1  answered with 0: its event is in the log exactly once, with the ids that it was told
 *   T2  answered with LOCK_TIMEOUT, BUSY or another refusal: not at all
 *   T3  answered with OUTCOME_UNKNOWN: submitted, so it is there once when the writer has come to it, and
 *       azoth_outcome() says so
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/gauges.h"
#include "shm/stripe.h"
#include "tests/system/harness.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NUMBERS 4096 /* transactions of one test */

static struct harness h;
static struct azoth_error err;

/* ---- transactions that are numbered, and what became of them ---- */

static struct {
    int told[NUMBERS]; /* answers */
    int code[NUMBERS];
    uint64_t event[NUMBERS]; /* as answered */
    uint8_t id[NUMBERS][AZOTH_ID_BYTES];
    int made;
} ledger;

static void begin(const char *conf)
{
    harness_begin(&h);
    memset(&ledger, 0, sizeof ledger);
    if (conf) {
        char path[300];
        snprintf(path, sizeof path, "%s/azoth.conf", h.dir);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(conf, f);
        fclose(f);
    }
}

static void told(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                 const struct azoth_error *why, void *arg)
{
    int n = (int)(intptr_t)arg;
    (void)why;
    ledger.told[n]++;
    ledger.code[n] = code;
    ledger.event[n] = code ? 0 : info->first_event;
    azoth_txn_free(t);
}

/* Adds 1 to the key and logs the number. id: NULL for the library's own. Its number. */
static int submit(struct azoth *db, const char *key, uint32_t deadline_ms, const uint8_t *id)
{
    int n = ledger.made++;
    char text[16];
    struct azoth_txn *t = azoth_txn_new(db);
    assert_true(n < NUMBERS);
    snprintf(text, sizeof text, "%d", n);
    if (id)
        azoth_txn_set_id(t, id);
    azoth_txn_id(t, ledger.id[n]);
    azoth_txn_set_deadline(t, deadline_ms);
    azoth_add_i64(t, azoth_str(key), 1);
    azoth_event_bytes(t, "added", azoth_str(text));
    assert_int_equal(azoth_submit(t, told, (void *)(intptr_t)n, &err), 0);
    return n;
}

static int commit(struct azoth *db, const char *key, uint32_t deadline_ms, const uint8_t *id)
{
    int n = submit(db, key, deadline_ms, id);
    while (!ledger.told[n])
        azoth_poll(db, 100);
    return ledger.code[n];
}

static void finish(struct azoth *db)
{
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
}

/* T1, T2, T3, and that nothing else is in the log. others: events that no number stands for. */
static void audit(struct azoth *db, int others)
{
    static uint64_t at[NUMBERS];
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_commit_info info;
    uint64_t next = 1;
    memset(at, 0, sizeof at);
    assert_int_equal(azoth_events(db, 1, 0, NULL, &it, &err), 0);
    while (azoth_events_next(it, &ev, &err) == 1) {
        char text[16] = "";
        assert_int_equal(ev.id, next++);
        snprintf(text, sizeof text, "%.*s", (int)ev.payload.len, (const char *)ev.payload.ptr);
        if (text[0] < '0' || text[0] > '9') {
            others--;
            continue;
        }
        assert_in_range(atoi(text), 0, ledger.made - 1);
        assert_int_equal(at[atoi(text)], 0); /* nothing twice */
        at[atoi(text)] = ev.id;
    }
    azoth_events_free(it);
    assert_int_equal(others, 0);
    for (int n = 0; n < ledger.made; n++) {
        int code = ledger.code[n];
        assert_int_equal(ledger.told[n], 1);
        if (code == 0)
            assert_int_equal(at[n], ledger.event[n]);
        if (code != 0 && code != AZOTH_ERR_OUTCOME_UNKNOWN)
            assert_int_equal(at[n], 0);
        if (code == AZOTH_ERR_OUTCOME_UNKNOWN) {
            assert_int_equal(azoth_outcome(db, ledger.id[n], &info, &err), 0);
            assert_int_equal(info.first_event, at[n]);
        }
    }
}

static int count_told(int code)
{
    int n = 0;
    for (int i = 0; i < ledger.made; i++)
        n += ledger.told[i] && ledger.code[i] == code;
    return n;
}

/* ---- keys and ids that meet nobody else's stripe ---- */

static struct segment *look(void)
{
    struct segment_name name;
    struct segment *s;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(segment_inspect(&name, &s, &err), 0);
    return s;
}

static uint8_t taken[SHM_STRIPES_MAX];

static int take_stripe(const struct segment *s, uint32_t stripe)
{
    if (taken[stripe] || stripe_holder(s, stripe) >= 0)
        return 0;
    taken[stripe] = 1;
    return 1;
}

/* Ids and keys are hashed onto stripes, which others may hold: these are on stripes of their own. */
static void lonely(const struct segment *s, char key[32], uint8_t id[AZOTH_ID_BYTES])
{
    static unsigned n;
    do
        snprintf(key, 32, "lonely/%u", n++);
    while (!take_stripe(s, stripe_of_key(s, azoth_str(key))));
    memset(id, 0, AZOTH_ID_BYTES);
    do
        snprintf((char *)id, AZOTH_ID_BYTES, "id%u", n++);
    while (!take_stripe(s, stripe_of_id(s, id)));
}

static int64_t value_of(struct azoth *db, const char *key)
{
    int64_t n = 0;
    int rc = azoth_get_i64(db, azoth_str(key), &n, &err);
    return rc == AZOTH_ERR_NOT_FOUND ? 0 : n;
}

/* ---- processes ---- */

static struct process *start_writer(void)
{
    return harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
}

/* A worker that stops itself at the point, which it has not come to when this returns. */
static struct process *start_worker(const char *point, struct azoth **ret)
{
    char listen[300];
    struct azoth_options o = {.deadline_ms = 30000};
    snprintf(listen, sizeof listen, "ipc://%s/w.sock", h.dir);
    if (point) {
        setenv("AZOTH_CRASH", point, 1);
        setenv("AZOTH_CRASH_ACTION", "stop", 1);
    }
    struct process *p = harness_start(&h, "worker", 0, "azoth-worker", "--dir", h.dir, "--name",
                                      "w", "--worker-listen", listen, NULL);
    unsetenv("AZOTH_CRASH");
    unsetenv("AZOTH_CRASH_ACTION");
    assert_true(harness_answers(listen));
    assert_int_equal(azoth_connect(listen, &o, ret, &err), 0);
    return p;
}

static void wait_stopped(const struct process *p, struct azoth *poll)
{
    int status;
    pid_t got;
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S;
    while ((got = waitpid(p->pid, &status, WUNTRACED | (poll ? WNOHANG : 0))) == 0 &&
           clock_mono_ns() < until)
        azoth_poll(poll, 10);
    assert_int_equal(got, p->pid);
    assert_true(WIFSTOPPED(status));
}

static void stop(const struct process *p)
{
    assert_int_equal(kill(p->pid, SIGSTOP), 0);
    wait_stopped(p, NULL);
}

/* ---- a stopped worker ---- */

static uint64_t reaped(void)
{
    struct segment_name name;
    struct gauges *g;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(gauges_attach(&name, 0, &g, &err), 0);
    uint64_t n = gauge_get(&g->g->participants_reaped);
    gauges_detach(g);
    return n;
}

static void
a_stopped_workers_keys_time_out_and_it_commits_on_its_locks_when_it_goes_on(void **state)
{
    (void)state;
    struct azoth *remote;
    begin(NULL);
    start_writer();
    struct process *worker = start_worker("preflight_locked", &remote);
    struct azoth *db = harness_attach(&h, 5000);
    assert_non_null(db);
    int held = submit(remote, "held", 30000, NULL);
    wait_stopped(worker, remote);
    struct segment *s = look();
    uint32_t stripe = stripe_of_key(s, AZOTH_STR("held"));
    int slot = stripe_holder(s, stripe);
    assert_true(slot >= 0);
    /* Six times as long as it takes to reap a dead one. */
    uint64_t from = clock_mono_ns();
    assert_int_equal(commit(db, "held", 1500, NULL), AZOTH_ERR_LOCK_TIMEOUT);
    assert_in_range((clock_mono_ns() - from) / NS_PER_MS, 1400, 4000);
    assert_int_equal(stripe_holder(s, stripe), slot);
    assert_int_equal(reaped(), 0);
    for (int i = 0; i < 100; i++) {
        char key[32];
        uint8_t id[AZOTH_ID_BYTES];
        memset(taken, 0, sizeof taken);
        lonely(s, key, id);
        assert_int_equal(commit(db, key, 5000, id), 0);
    }
    /* One waits for the key; the worker's goes first, since it holds the lock still. */
    int waiter = submit(db, "held", 30000, NULL);
    assert_int_equal(stripe_holder(s, stripe), slot);
    harness_kill(worker, SIGCONT);
    finish(remote);
    finish(db);
    assert_int_equal(ledger.code[held], 0);
    assert_int_equal(ledger.code[waiter], 0);
    assert_true(ledger.event[held] < ledger.event[waiter]);
    assert_int_equal(value_of(db, "held"), 2);
    audit(db, 0);
    assert_true(harness_segment_clean(&h, 2000));
    segment_detach(s);
    azoth_close(remote);
    azoth_close(db);
    harness_end(&h);
}

static void
what_a_worker_stopped_beyond_the_deadline_was_asked_is_done_once_by_a_retry(void **state)
{
    (void)state;
    static const char *const points[] = {"preflight_claimed", "preflight_locked",
                                         "preflight_submitted", "preflight_collected"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        struct azoth *remote;
        begin(NULL);
        start_writer();
        struct process *worker = start_worker(points[i], &remote);
        struct azoth *db = harness_attach(&h, 5000);
        assert_non_null(db);
        int n = submit(remote, "k", 700, NULL);
        wait_stopped(worker, remote);
        uint64_t from = clock_mono_ns();
        finish(remote);
        assert_true(clock_mono_ns() - from < 3 * NS_PER_S);
        assert_int_equal(ledger.code[n], AZOTH_ERR_OUTCOME_UNKNOWN);
        harness_kill(worker, SIGCONT);
        struct azoth_txn *t = azoth_txn_new(remote);
        char text[16];
        snprintf(text, sizeof text, "%d", n);
        azoth_txn_set_id(t, ledger.id[n]);
        azoth_txn_set_deadline(t, 20000);
        azoth_add_i64(t, AZOTH_STR("k"), 1);
        azoth_event_bytes(t, "added", azoth_str(text));
        assert_int_equal(azoth_commit(t, NULL, &err), 0);
        azoth_txn_free(t);
        assert_int_equal(value_of(db, "k"), 1);
        audit(db, 0);
        assert_true(harness_segment_clean(&h, 2000));
        azoth_close(remote);
        azoth_close(db);
        harness_end(&h);
    }
}

/* ---- a stopped writer ---- */

static void
a_writer_stopped_again_and_again_under_load_loses_nothing_and_repeats_nothing(void **state)
{
    (void)state;
    uint64_t seed = harness_seed();
    begin(NULL);
    struct process *w = start_writer();
    struct azoth *db = harness_attach(&h, 5000);
    assert_non_null(db);
    for (int round = 0; round < 6; round++) {
        int before = ledger.made, want = (int)(random_next(&seed) % 40);
        /* Stopped in the middle of a batch: when some of these have been answered and some not. */
        for (int i = 0; i < 80; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", (int)(random_next(&seed) % 60));
            submit(db, key, 100 + (uint32_t)(random_next(&seed) % 500), NULL);
        }
        for (int done = 0; done < want;) {
            azoth_poll(db, 1000);
            done = 0;
            for (int n = before; n < ledger.made; n++)
                done += ledger.told[n];
        }
        stop(w);
        for (int i = 0; i < 80; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", (int)(random_next(&seed) % 60));
            submit(db, key, 100 + (uint32_t)(random_next(&seed) % 500), NULL);
        }
        uint64_t from = clock_mono_ns();
        finish(db); /* each at its deadline: the writer does not run */
        assert_true(clock_mono_ns() - from < 3 * NS_PER_S);
        harness_kill(w, SIGCONT);
        assert_int_equal(commit(db, "between", 20000, NULL), 0);
    }
    assert_int_equal(harness_stop(&h, w), 0); /* it finishes what was left to it */
    harness_spawn(&h, w);
    assert_int_equal(commit(db, "between", 20000, NULL), 0);
    print_message("MEASURED stopped writer: %d answered, %d unknown, %d timed out, %d busy\n",
                  count_told(0), count_told(AZOTH_ERR_OUTCOME_UNKNOWN),
                  count_told(AZOTH_ERR_LOCK_TIMEOUT), count_told(AZOTH_ERR_BUSY));
    assert_true(count_told(AZOTH_ERR_OUTCOME_UNKNOWN) > 6);
    assert_true(count_told(AZOTH_ERR_LOCK_TIMEOUT) > 6);
    assert_int_equal(count_told(0) + count_told(AZOTH_ERR_OUTCOME_UNKNOWN) +
                         count_told(AZOTH_ERR_LOCK_TIMEOUT) + count_told(AZOTH_ERR_BUSY),
                     ledger.made);
    audit(db, 0);
    assert_true(harness_segment_clean(&h, 2000));
    azoth_close(db);
    harness_end(&h);
}

/* ---- a full segment ---- */

static int add_main(const char *dir, const char *key)
{
    struct azoth_options o = {.deadline_ms = 60000, .attach_wait_ms = 10000};
    struct azoth *db;
    int rc = azoth_open(dir, &o, &db, &err);
    if (rc)
        return 1;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, azoth_str(key), 1);
    azoth_event_bytes(t, "added", azoth_str(key));
    rc = azoth_commit(t, NULL, &err);
    azoth_txn_free(t);
    azoth_close(db);
    return rc != 0;
}

static struct process *start_adder(const char *name, const char *key, const char *point)
{
    char self[256];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    if (point)
        setenv("AZOTH_CRASH", point, 1);
    struct process *p = harness_start(&h, name, 0, self, "--add", h.dir, key, NULL);
    unsetenv("AZOTH_CRASH");
    return p;
}

#define SLOTS 16

/* Fills every slot with a submission: one of a client that dies of it, the others ours, given up. */
static void fill_all_slots(struct azoth *db, struct segment *s)
{
    struct process *dead = start_adder("dead", "dead", "preflight_queued");
    assert_true(WIFSIGNALED(harness_wait(&h, dead, 10000)));
    memset(taken, 0, sizeof taken);
    for (int i = 1; i < SLOTS; i++) {
        char key[32];
        uint8_t id[AZOTH_ID_BYTES];
        lonely(s, key, id);
        submit(db, key, 300, id);
    }
    finish(db);
    assert_int_equal(count_told(AZOTH_ERR_OUTCOME_UNKNOWN), SLOTS - 1);
    for (uint32_t i = 0; i < SLOTS; i++)
        assert_int_equal(slot_word_state(atomic_load(&s->slot[i].word)), SLOT_SUBMITTED);
}

static void a_segment_full_of_a_stopped_writers_work_says_busy_and_empties_by_itself(void **state)
{
    (void)state;
    struct azoth *remote;
    begin("[segment]\nslots = 16\n");
    struct process *w = start_writer();
    struct azoth *db = harness_attach(&h, 5000);
    assert_non_null(db);
    start_worker(NULL, &remote);
    stop(w);
    struct segment *s = look();
    fill_all_slots(db, s);
    for (int i = 0; i < 3; i++) {
        char key[32];
        uint8_t id[AZOTH_ID_BYTES];
        lonely(s, key, id);
        uint64_t from = clock_mono_ns();
        assert_int_equal(commit(i == 2 ? remote : db, key, 300, id), AZOTH_ERR_BUSY);
        assert_in_range((clock_mono_ns() - from) / NS_PER_MS, 250, 2500);
    }
    /* In the writer's hands; reading needs no slot. */
    assert_int_equal(azoth_outcome(db, ledger.id[0], NULL, &err), AZOTH_ERR_BUSY);
    assert_int_equal(value_of(db, "dead"), 0);
    struct process *waits = start_adder("waits", "waits", NULL);
    assert_int_equal(harness_wait(&h, waits, 500), -1);
    harness_kill(w, SIGCONT);
    assert_int_equal(harness_wait(&h, waits, 10000), 0);
    assert_int_equal(commit(db, "after", 5000, NULL), 0);
    assert_int_equal(commit(remote, "after", 5000, NULL), 0);
    assert_true(harness_segment_clean(&h, 2000));
    assert_int_equal(value_of(db, "dead"), 1);
    assert_int_equal(value_of(db, "waits"), 1);
    audit(db, 2);
    segment_detach(s);
    azoth_close(remote);
    azoth_close(db);
    harness_end(&h);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--add") == 0)
        return add_main(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            a_stopped_workers_keys_time_out_and_it_commits_on_its_locks_when_it_goes_on),
        cmocka_unit_test(
            what_a_worker_stopped_beyond_the_deadline_was_asked_is_done_once_by_a_retry),
        cmocka_unit_test(
            a_writer_stopped_again_and_again_under_load_loses_nothing_and_repeats_nothing),
        cmocka_unit_test(a_segment_full_of_a_stopped_writers_work_says_busy_and_empties_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
