/*
 * test_pause.c - pauses and seals whose owners live, die, stand and compete; writers that die meanwhile;
 * seals that the store keeps.
 */
#include "client/internal.h"
#include "core/clock.h"
#include "tests/system/harness.h"
#include "writer/control.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define LONG_MS 60000u

static struct harness h;
static struct process *writer;
static struct azoth *db;
static struct azoth_error err;

static int begin(void **state)
{
    (void)state;
    harness_begin(&h);
    writer = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    db = harness_attach(&h, 10000);
    return db ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    azoth_close(db);
    db = NULL;
    harness_end(&h);
    return 0;
}

static int add_to(struct azoth *to)
{
    struct azoth_txn *t = azoth_txn_new(to);
    azoth_add_i64(t, AZOTH_STR("n"), 1);
    azoth_event_bytes(t, "added", AZOTH_STR("x"));
    int rc = azoth_commit(t, NULL, &err);
    azoth_txn_free(t);
    return rc;
}

static int add(void)
{
    return add_to(db);
}

/* Another handle; with `waits` its transactions wait for the end of pauses. */
static struct azoth *open_handle(int waits)
{
    struct azoth_options o = {.deadline_ms = 20000, .attach_wait_ms = 20000, .wait_paused = waits};
    struct azoth *ret = NULL;
    assert_int_equal(azoth_open(h.dir, &o, &ret, &err), 0);
    return ret;
}

/* What `paused` says, waited for. Returns when the last pause ends by itself. */
static uint64_t paused_becomes(uint32_t kind)
{
    struct segment_name name;
    struct segment *s;
    uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(segment_inspect(&name, &s, &err), 0);
    while (atomic_load(&s->header->paused) != kind && clock_mono_ns() < until)
        nap_ms(2);
    assert_int_equal(atomic_load(&s->header->paused), kind);
    uint64_t ends_ns = atomic_load(&s->header->pause_until_ns);
    segment_detach(s);
    return ends_ns;
}

/* One that waits: how long it took, in ms. */
static uint64_t waits_for(struct azoth *patient)
{
    uint64_t from = clock_mono_ns();
    int rc = add_to(patient);
    if (rc)
        fail_msg("who waited was told %s", err.message);
    return (clock_mono_ns() - from) / NS_PER_MS;
}

static uint64_t head(void)
{
    uint64_t event, txn;
    assert_int_equal(azoth_head(db, &event, &txn, &err), 0);
    return event;
}

/* ---- owners ---- */

static void writes_go_on_when_the_owner_is_killed_and_who_waits_sees_no_error(void **state)
{
    (void)state;
    struct azoth *patient = open_handle(1);
    struct process *p = harness_start(&h, "owner", 0, "azoth", "pause", "--dir", h.dir, NULL);
    paused_becomes(PAUSE_WRITES);
    assert_int_equal(add(), AZOTH_ERR_PAUSED);
    harness_kill(p, SIGKILL);
    uint64_t ms = waits_for(patient);
    print_message("MEASURED writes go on %" PRIu64 " ms after the owner's death\n", ms);
    assert_true(ms < 3000); /* 0.3 s when this machine has time for it */
    assert_int_equal(add(), 0);
    azoth_close(patient);
}

static void writes_go_on_after_the_time_when_the_owner_stands(void **state)
{
    (void)state;
    struct azoth *patient = open_handle(1);
    struct process *p =
        harness_start(&h, "owner", 0, "azoth", "pause", "--timeout", "800ms", "--dir", h.dir, NULL);
    uint64_t ends_ns = paused_becomes(PAUSE_WRITES);
    harness_kill(p, SIGSTOP);
    waits_for(patient);
    assert_in_range(clock_mono_ns(), ends_ns, ends_ns + 5 * NS_PER_S);
    harness_kill(p, SIGCONT);
    /* It ends; as what, depends on whether it was told before it stood that it pauses. */
    assert_true(WIFEXITED(harness_wait(&h, p, 10000)));
    azoth_close(patient);
}

static void a_child_that_was_forked_ends_nothing(void **state)
{
    (void)state;
    assert_int_equal(azoth_pause(db, LONG_MS, &err), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int stands = azoth_pause_stands(db);
        int rc = azoth_resume(db, NULL);
        azoth_close(db);
        _exit(stands == 0 && rc == AZOTH_ERR_FORKED ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(azoth_pause_stands(db), 1);
    assert_int_equal(add(), AZOTH_ERR_PAUSED);
}

static void the_last_of_two_owners_counts_and_closing_ends_ones_own(void **state)
{
    (void)state;
    struct azoth *second = open_handle(0);
    assert_int_equal(azoth_pause(db, LONG_MS, &err), 0);
    assert_int_equal(azoth_pause(second, LONG_MS, &err), 0);
    assert_int_equal(azoth_resume(db, &err), 0);
    assert_int_equal(azoth_pause_stands(db), 0);
    assert_int_equal(azoth_pause_stands(second), 1);
    assert_int_equal(add(), AZOTH_ERR_PAUSED);
    assert_int_equal(azoth_resume(db, &err), 0); /* it has none: no error, and ends nobody's */
    assert_int_equal(add(), AZOTH_ERR_PAUSED);
    azoth_close(second);
    paused_becomes(0);
    assert_int_equal(add(), 0);
}

static void a_handle_has_one_at_a_time_and_the_next_takes_its_place(void **state)
{
    (void)state;
    assert_int_equal(azoth_pause(db, LONG_MS, &err), 0);
    assert_int_equal(azoth_seal(db, LONG_MS, NULL, &err), 0);
    assert_int_equal(add(), AZOTH_ERR_SEALED);
    assert_int_equal(azoth_pause(db, LONG_MS, &err), 0);
    paused_becomes(PAUSE_WRITES); /* who is refused meanwhile is told the one or the other */
    assert_int_equal(add(), AZOTH_ERR_PAUSED);
    assert_int_equal(azoth_unseal(db, &err), 0);
    assert_int_equal(add(), 0);
    assert_true(harness_segment_clean(&h, 0));
}

static void more_than_eight_are_refused_until_one_ends(void **state)
{
    (void)state;
    struct azoth *many[SHM_PAUSES + 1];
    for (uint32_t i = 0; i <= SHM_PAUSES; i++)
        many[i] = open_handle(0);
    for (uint32_t i = 0; i < SHM_PAUSES; i++)
        assert_int_equal(azoth_pause(many[i], LONG_MS, &err), 0);
    assert_int_equal(azoth_pause(many[SHM_PAUSES], LONG_MS, &err), AZOTH_ERR_FULL);
    assert_int_equal(azoth_pause_stands(many[SHM_PAUSES]), 0);
    assert_int_equal(azoth_resume(many[3], &err), 0);
    assert_int_equal(azoth_pause(many[SHM_PAUSES], LONG_MS, &err), 0);
    for (uint32_t i = 0; i <= SHM_PAUSES; i++)
        azoth_close(many[i]);
    paused_becomes(0);
    assert_int_equal(add(), 0);
}

static void a_third_ends_what_is_held_and_a_living_ones_only_when_told(void **state)
{
    (void)state;
    uint32_t left = 9;
    struct azoth *owner = open_handle(0), *gone = open_handle(0);
    assert_int_equal(azoth_pause_hold(gone, LONG_MS, &err), 0);
    azoth_close(gone);
    assert_int_equal(add(), AZOTH_ERR_PAUSED);
    assert_int_equal(azoth_pause(owner, LONG_MS, &err), 0);
    assert_int_equal(azoth_resume_held(db, 0, &left, &err), 0);
    assert_int_equal(left, 1);
    assert_int_equal(add(), AZOTH_ERR_PAUSED);
    assert_int_equal(azoth_pause_stands(owner), 1);
    assert_int_equal(azoth_resume_held(db, 1, &left, &err), 0);
    assert_int_equal(left, 0);
    assert_int_equal(azoth_pause_stands(owner), 0);
    assert_int_equal(add(), 0);
    azoth_close(owner);
}

static void what_is_held_ends_by_its_time(void **state)
{
    (void)state;
    struct azoth *patient = open_handle(1);
    uint64_t from = clock_mono_ns();
    assert_int_equal(azoth_pause_hold(db, 500, &err), 0);
    waits_for(patient);
    assert_in_range(clock_mono_ns() - from, 500 * NS_PER_MS, 6 * NS_PER_S);
    azoth_close(patient);
}

static void times_that_no_pause_may_have_are_refused(void **state)
{
    (void)state;
    const uint32_t bad[] = {0, 3600001};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(azoth_pause(db, bad[i], &err), AZOTH_ERR_USAGE);
        assert_int_equal(azoth_pause_hold(db, bad[i], &err), AZOTH_ERR_USAGE);
        assert_int_equal(azoth_seal(db, bad[i], NULL, &err), AZOTH_ERR_USAGE);
    }
    assert_int_equal(add(), 0);
}

/* ---- writers that die ---- */

static void restart_writer(int signal)
{
    harness_kill(writer, signal);
    assert_true(harness_wait(&h, writer, 10000) >= 0);
    harness_spawn(&h, writer);
}

static void a_living_owners_pause_outlives_the_writer(void **state)
{
    (void)state;
    struct azoth *patient = open_handle(1);
    const int how[] = {SIGKILL, SIGTERM};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(azoth_pause(db, LONG_MS, &err), 0);
        restart_writer(how[i]);
        assert_int_equal(add(), AZOTH_ERR_PAUSED);
        assert_int_equal(azoth_pause_stands(db), 1);
        struct azoth *third = open_handle(0); /* the new writer is there */
        assert_int_equal(add_to(third), AZOTH_ERR_PAUSED);
        azoth_close(third);
        assert_int_equal(azoth_resume(db, &err), 0);
        waits_for(patient);
    }
    assert_int_equal(head(), 2);
    azoth_close(patient);
}

/* The owner dies while there is no writer: the next one notices. */
static void a_pause_whose_owner_and_writer_both_died_is_over(void **state)
{
    (void)state;
    struct azoth *patient = open_handle(1);
    struct process *p = harness_start(&h, "owner", 0, "azoth", "pause", "--dir", h.dir, NULL);
    paused_becomes(PAUSE_WRITES);
    harness_kill(writer, SIGKILL);
    harness_wait(&h, writer, 5000);
    harness_kill(p, SIGKILL);
    harness_wait(&h, p, 5000);
    harness_spawn(&h, writer);
    waits_for(patient);
    azoth_close(patient);
}

/* ---- seals ---- */

struct load {
    _Atomic int stop, failed;
    _Atomic uint64_t done, refused;
    pthread_t thread;
};

/* One that adds events as fast as it can. */
static void *load_main(void *arg)
{
    struct load *l = arg;
    struct azoth *own = open_handle(0);
    struct azoth_error why;
    while (!atomic_load(&l->stop)) {
        struct azoth_txn *t = azoth_txn_new(own);
        azoth_event_bytes(t, "load", AZOTH_STR("x"));
        int rc = azoth_commit(t, NULL, &why);
        if (rc == 0)
            atomic_fetch_add(&l->done, 1);
        else if (rc == AZOTH_ERR_SEALED)
            atomic_fetch_add(&l->refused, 1);
        else
            atomic_store(&l->failed, rc);
        azoth_txn_free(t);
    }
    azoth_close(own);
    return NULL;
}

static void until_over(_Atomic uint64_t *n, uint64_t more)
{
    uint64_t least = atomic_load(n) + more, until = clock_mono_ns() + 20 * NS_PER_S;
    while (atomic_load(n) < least && clock_mono_ns() < until)
        nap_ms(1);
    assert_true(atomic_load(n) >= least);
}

static int event_there(uint64_t id)
{
    struct azoth_event e;
    struct azoth_events *it;
    assert_int_equal(azoth_events(db, id, id + 1, NULL, &it, &err), 0);
    int n = azoth_events_next(it, &e, &err);
    assert_true(n >= 0);
    azoth_events_free(it);
    return n;
}

static void a_seal_under_load_fixes_the_newest_event_until_it_ends(void **state)
{
    (void)state;
    static struct load l[2];
    memset(l, 0, sizeof l);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&l[i].thread, NULL, load_main, &l[i]), 0);
    for (int round = 0; round < 3; round++) {
        struct azoth_seal_info at;
        until_over(&l[0].done, 50);
        assert_int_equal(azoth_seal(db, LONG_MS, &at, &err), 0);
        assert_true(at.event >= 50 && at.txn == at.event && at.time_ns > 0);
        assert_int_equal(head(), at.event);
        until_over(&l[0].refused, 20);
        until_over(&l[1].refused, 20);
        assert_int_equal(head(), at.event);
        assert_int_equal(event_there(at.event), 1);
        assert_int_equal(event_there(at.event + 1), 0);
        assert_int_equal(azoth_pause_stands(db), 1);
        assert_int_equal(azoth_unseal(db, &err), 0);
        until_over(&l[1].done, 20);
        assert_true(head() > at.event);
    }
    for (int i = 0; i < 2; i++)
        atomic_store(&l[i].stop, 1);
    for (int i = 0; i < 2; i++) {
        pthread_join(l[i].thread, NULL);
        assert_int_equal(l[i].failed, 0);
    }
    assert_int_equal(head(), l[0].done + l[1].done);
}

static void note_code(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                      const struct azoth_error *why, void *arg)
{
    (void)t;
    (void)info;
    (void)why;
    *(int *)arg = code;
}

/* Its event was waited for, or told: another one is not what was asked for. */
static void a_seal_that_has_ended_is_not_made_durable(void **state)
{
    (void)state;
    struct azoth_seal_info at;
    assert_int_equal(add(), 0);
    assert_int_equal(azoth_seal(db, 20, &at, &err), 0);
    while (azoth_pause_stands(db))
        ;
    struct azoth *two = open_handle(1);
    assert_int_equal(add_to(two), 0);
    azoth_close(two);
    assert_int_equal(azoth_seal_hold(db, &at, &err), AZOTH_ERR_TIMEOUT);
    assert_int_equal(add(), 0);
    assert_int_equal(azoth_seal_hold(db, &at, &err), 0); /* one of its own */
    assert_int_equal(at.event, 3);
    assert_int_equal(azoth_unseal_held(db, 0, NULL, &err), 0);
}

static void a_held_seal_outlives_the_writer_and_the_segment_until_unseal(void **state)
{
    (void)state;
    struct azoth_seal_info at, again;
    const int how[] = {SIGKILL, SIGTERM, SIGTERM};
    assert_int_equal(add(), 0);
    assert_int_equal(azoth_seal_hold(db, &at, &err), 0);
    assert_int_equal(at.event, 1);
    for (int i = 0; i < 3; i++) {
        /* With nobody attached the segment goes as well. */
        if (i == 2)
            azoth_close(db);
        restart_writer(how[i]);
        if (i == 2)
            db = open_handle(0);
        struct azoth *third = open_handle(0);
        assert_int_equal(add_to(third), AZOTH_ERR_SEALED);
        azoth_close(third);
        assert_int_equal(azoth_seal_hold(db, &again, &err), 0);
        assert_memory_equal(&again, &at, sizeof at);
    }
    int code = 1;
    struct azoth *patient = open_handle(1);
    struct azoth_txn *t = azoth_txn_new(patient);
    azoth_event_bytes(t, "waited", AZOTH_STR("x"));
    assert_int_equal(azoth_submit(t, note_code, &code, &err), 0);
    assert_int_equal(azoth_poll(patient, 50), 0);
    uint32_t left = 9;
    assert_int_equal(azoth_unseal_held(db, 0, &left, &err), 0);
    assert_int_equal(left, 0);
    while (azoth_in_flight(patient))
        assert_true(azoth_poll(patient, 1000) >= 0);
    assert_int_equal(code, 0);
    assert_int_equal(head(), 2);
    assert_int_equal(azoth_unseal_held(db, 0, &left, &err), 0); /* no error */
    azoth_txn_free(t);
    azoth_close(patient);
    restart_writer(SIGKILL);
    waits_for(db);
}

static void a_durable_seal_is_made_under_a_seal_only(void **state)
{
    (void)state;
    static const char argument[CONTROL_SEAL + 1] = {0};
    struct txn_result r;
    uint64_t soon = clock_mono_ns() + 10 * NS_PER_S;
    struct azoth_bytes a = bytes_of(argument, sizeof argument);
    assert_int_equal(client_control(db, "seal", a, soon, &r, &err), AZOTH_ERR_TIMEOUT);
    assert_int_equal(azoth_pause(db, LONG_MS, &err), 0);
    assert_int_equal(client_control(db, "seal", a, soon, &r, &err), AZOTH_ERR_TIMEOUT);
    assert_int_equal(azoth_resume(db, &err), 0);
    assert_int_equal(add(), 0);
    a.len = CONTROL_SEAL - 1;
    assert_int_equal(azoth_seal(db, LONG_MS, NULL, &err), 0);
    assert_int_equal(client_control(db, "seal", a, soon, &r, &err), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(client_control(db, "unseal", a, soon, &r, &err), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(azoth_unseal(db, &err), 0);
    assert_int_equal(add(), 0);
}

/* ---- in one process ---- */

static struct azoth *embedded(void)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .deadline_ms = 10000};
    struct azoth *ret = NULL;
    assert_int_equal(azoth_open(h.dir, &o, &ret, &err), 0);
    return ret;
}

static void an_embedded_database_pauses_and_seals_alike(void **state)
{
    (void)state;
    struct azoth_seal_info at;
    harness_begin(&h);
    struct azoth *one = embedded(), *two = embedded();
    assert_int_equal(azoth_pause(one, LONG_MS, &err), 0);
    assert_int_equal(add_to(two), AZOTH_ERR_PAUSED);
    azoth_close(one);
    paused_becomes(0);
    assert_int_equal(add_to(two), 0);
    assert_int_equal(azoth_seal(two, LONG_MS, &at, &err), 0);
    assert_int_equal(at.event, 1);
    assert_int_equal(add_to(two), AZOTH_ERR_SEALED);
    assert_int_equal(azoth_seal_hold(two, NULL, &err), 0);
    assert_int_equal(azoth_pause_stands(two), 0);
    azoth_close(two);
    two = embedded();
    assert_int_equal(add_to(two), AZOTH_ERR_SEALED);
    assert_int_equal(azoth_unseal_held(two, 0, NULL, &err), 0);
    assert_int_equal(add_to(two), 0);
    azoth_close(two);
    harness_end(&h);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(writes_go_on_when_the_owner_is_killed_and_who_waits_sees_no_error),
        T(writes_go_on_after_the_time_when_the_owner_stands),
        T(a_child_that_was_forked_ends_nothing),
        T(the_last_of_two_owners_counts_and_closing_ends_ones_own),
        T(a_handle_has_one_at_a_time_and_the_next_takes_its_place),
        T(more_than_eight_are_refused_until_one_ends),
        T(a_third_ends_what_is_held_and_a_living_ones_only_when_told),
        T(what_is_held_ends_by_its_time),
        T(times_that_no_pause_may_have_are_refused),
        T(a_living_owners_pause_outlives_the_writer),
        T(a_pause_whose_owner_and_writer_both_died_is_over),
        T(a_seal_under_load_fixes_the_newest_event_until_it_ends),
        T(a_seal_that_has_ended_is_not_made_durable),
        T(a_held_seal_outlives_the_writer_and_the_segment_until_unseal),
        T(a_durable_seal_is_made_under_a_seal_only),
        cmocka_unit_test(an_embedded_database_pauses_and_seals_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
