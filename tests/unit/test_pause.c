/*
 * test_pause.c - the table of pauses: who has a row, who loses it when. Real death and time are
 * tests/system/test_pause.c's.
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/pause.h"
#include "shm/reaper.h"
#include "shm/view.h"
#include "tests/unit/segment_dir.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct segment_name name;
static struct segment *s;
static struct participant *self, *other;
static struct azoth_error err;

static struct participant *join(void)
{
    struct participant *p;
    assert_int_equal(participant_join(s, dir, PARTICIPANT_CLIENT, "test", &p, &err), 0);
    return p;
}

static int setup(void **state)
{
    (void)state;
    if (segment_begin((struct segment_plan){.slots = 16, .stripes = 64, .blocks = 8}, dir, &name,
                      &s))
        return -1;
    self = join();
    other = join();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    participant_leave(other);
    participant_leave(self);
    return segment_end(dir, &name, s);
}

static uint64_t in_ms(uint64_t ms)
{
    return clock_mono_ns() + ms * NS_PER_MS;
}

static struct pause ask(struct participant *p, enum pause_kind kind, uint64_t ms, int held)
{
    struct pause ret;
    assert_int_equal(pause_ask(p, kind, in_ms(ms), held, "somebody", &ret, &err), 0);
    return ret;
}

static uint32_t wanted_at(uint64_t now_ns)
{
    uint64_t until;
    return pause_look(s, now_ns, &until);
}

static uint32_t wanted(void)
{
    return wanted_at(clock_mono_ns());
}

static void a_pause_is_in_force_when_the_writer_says_so_and_until_it_is_ended(void **state)
{
    (void)state;
    uint64_t until;
    struct pause p = ask(self, PAUSE_WRITES, 10000, 0);
    assert_int_equal(pause_in_force(s, &p), 0);
    assert_int_equal(pause_look(s, clock_mono_ns(), &until), PAUSE_WRITES);
    assert_int_equal(until, atomic_load(&s->pause[p.row].until_ns));
    assert_int_equal(pause_confirm(s), 1);
    assert_int_equal(pause_in_force(s, &p), 1);
    assert_int_equal(pause_confirm(s), 0);
    pause_end(s, &p);
    assert_int_equal(pause_in_force(s, &p), -1);
    assert_int_equal(wanted(), 0);
    pause_end(s, &p); /* twice changes nothing */
}

static void one_that_has_ended_does_not_end_the_next_on_its_row(void **state)
{
    (void)state;
    struct pause first = ask(self, PAUSE_WRITES, 10000, 0);
    pause_end(s, &first);
    struct pause second = ask(self, PAUSE_WRITES, 10000, 0);
    assert_int_equal(first.row, second.row);
    pause_end(s, &first);
    assert_int_equal(wanted(), PAUSE_WRITES);
    assert_int_equal(pause_in_force(s, &first), -1);
    assert_int_equal(pause_in_force(s, &second), 0);
}

static void a_seal_is_told_before_a_pause_and_the_last_one_counts(void **state)
{
    (void)state;
    struct pause a = ask(self, PAUSE_SEAL, 10000, 0), b = ask(other, PAUSE_WRITES, 20000, 0);
    assert_int_equal(wanted(), PAUSE_SEAL);
    pause_end(s, &a);
    assert_int_equal(wanted(), PAUSE_WRITES);
    assert_int_equal(wanted_at(in_ms(19000)), PAUSE_WRITES);
    assert_int_equal(pause_in_force(s, &b), 0);
    assert_int_equal(wanted_at(in_ms(20001)), 0);
    assert_int_equal(pause_in_force(s, &b), -1);
}

static void there_are_so_many_and_no_more(void **state)
{
    (void)state;
    struct pause p, first = {0};
    for (uint32_t i = 0; i < SHM_PAUSES; i++) {
        p = ask(i % 2 ? self : other, PAUSE_WRITES, 10000, i % 3 == 0);
        if (i == 0)
            first = p;
    }
    assert_int_equal(pause_ask(self, PAUSE_SEAL, in_ms(1000), 0, "late", &p, &err), AZOTH_ERR_FULL);
    pause_end(s, &first);
    ask(self, PAUSE_SEAL, 1000, 0);
}

static void who_leaves_takes_its_own_pauses_along_and_leaves_what_is_held(void **state)
{
    (void)state;
    struct participant *third = join();
    struct pause own = ask(third, PAUSE_WRITES, 10000, 0), held = ask(third, PAUSE_SEAL, 10000, 1),
                 mine = ask(self, PAUSE_WRITES, 10000, 0);
    participant_leave(third);
    assert_int_equal(pause_in_force(s, &own), -1);
    assert_int_equal(pause_in_force(s, &held), 0);
    assert_int_equal(pause_in_force(s, &mine), 0);
}

static void ending_all_ends_what_is_held_and_others_only_when_asked(void **state)
{
    (void)state;
    struct pause held = ask(other, PAUSE_WRITES, 10000, 1), seal = ask(other, PAUSE_SEAL, 10000, 1),
                 mine = ask(self, PAUSE_WRITES, 10000, 0),
                 others = ask(other, PAUSE_WRITES, 10000, 0);
    assert_int_equal(pause_end_all(s, PAUSE_WRITES, 0), 2);
    assert_int_equal(pause_in_force(s, &held), -1);
    assert_int_equal(pause_in_force(s, &mine), 0);
    assert_int_equal(pause_end_all(s, PAUSE_WRITES, 1), 0);
    assert_int_equal(pause_in_force(s, &mine), -1);
    assert_int_equal(pause_in_force(s, &others), -1);
    assert_int_equal(pause_in_force(s, &seal), 0);
}

/* A process that asked, and died: in each state that its row may have had. */
static void a_dead_ones_pauses_are_reaped_and_what_it_held_is_not(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct participant *p = join();
        struct pause q;
        if (pause_ask(p, PAUSE_WRITES, in_ms(60000), 0, "dead", &q, NULL) == 0 &&
            pause_ask(p, PAUSE_WRITES, in_ms(60000), 1, "dead", &q, NULL) == 0 &&
            pause_ask(p, PAUSE_WRITES, in_ms(60000), 0, "dead", &q, NULL) == 0)
            /* As if it had died before it said what it wants. */
            atomic_fetch_sub(&s->pause[q.row].word, PAUSE_ASKED - PAUSE_CLAIMED);
        raise(SIGKILL);
    }
    struct pause mine = ask(self, PAUSE_WRITES, 60000, 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(reap_step(self), 1);
    uint32_t rows = 0;
    for (uint32_t i = 0; i < SHM_PAUSES; i++)
        rows += (atomic_load(&s->pause[i].word) & 0xff) != PAUSE_FREE;
    assert_int_equal(rows, 2);
    assert_int_equal(pause_in_force(s, &mine), 0);
    struct pause_info info;
    for (uint32_t i = 0; i < SHM_PAUSES; i++)
        if (pause_read(s, i, &info) && i != mine.row) {
            assert_true(info.held);
            assert_string_equal(info.who, "dead");
            assert_int_equal(info.pid, pid);
        }
}

static void a_row_that_names_nobody_there_can_be_is_freed_by_the_writer(void **state)
{
    (void)state;
    const uint64_t nobody[] = {SHM_PARTICIPANTS, 200, PAUSE_OWNER_STORE};
    for (uint32_t i = 0; i < 3; i++) {
        atomic_store(&s->pause[i].until_ns, in_ms(60000));
        atomic_store(&s->pause[i].word, PAUSE_ASKED | nobody[i] << 8 | 5ull << 24);
    }
    assert_int_equal(wanted(), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(atomic_load(&s->pause[i].word) & 0xff, PAUSE_FREE);
}

static void
the_stores_seal_is_ended_by_the_writer_alone_and_its_age_survives_a_restart(void **state)
{
    (void)state;
    struct pause_info info;
    uint64_t now = clock_mono_ns(), until;
    pause_store(s, "azoth seal", 7, now - 3 * 86400 * NS_PER_S); /* before this machine's start */
    assert_int_equal(pause_end_all(s, PAUSE_SEAL, 1), 0);
    assert_int_equal(pause_look(s, now, &until), PAUSE_SEAL);
    assert_true(until == UINT64_MAX);
    assert_int_equal(pause_read(s, SHM_PAUSE_STORE, &info), 1);
    assert_true(info.stored);
    assert_int_equal((now - info.since_ns) / NS_PER_S, 3 * 86400);
    pause_store(s, NULL, 0, 0);
    assert_int_equal(wanted(), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_pause_is_in_force_when_the_writer_says_so_and_until_it_is_ended),
        T(one_that_has_ended_does_not_end_the_next_on_its_row),
        T(a_seal_is_told_before_a_pause_and_the_last_one_counts),
        T(there_are_so_many_and_no_more),
        T(who_leaves_takes_its_own_pauses_along_and_leaves_what_is_held),
        T(ending_all_ends_what_is_held_and_others_only_when_asked),
        T(a_dead_ones_pauses_are_reaped_and_what_it_held_is_not),
        T(a_row_that_names_nobody_there_can_be_is_freed_by_the_writer),
        T(the_stores_seal_is_ended_by_the_writer_alone_and_its_age_survives_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
