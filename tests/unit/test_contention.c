/* test_contention.c - who waits for what and who holds it, as counted; a sample of the key that was waited
 * for; why preflight refuses, through a database in this process. */
#include "client/azoth.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/txn.h"
#include "core/value.h"
#include "shm/contention.h"
#include "shm/gauges.h"
#include "shm/participant.h"
#include "shm/slot.h"
#include "shm/stripe.h"
#include "tests/unit/segment_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char dir[64];
static struct segment_name name;
static struct segment *seg;
static struct participant *me, *other;
static struct azoth_error err;

static int setup(void **state)
{
    (void)state;
    if (segment_begin((struct segment_plan){.slots = 32, .stripes = 2048, .blocks = 80}, dir, &name,
                      &seg) ||
        participant_join(seg, dir, PARTICIPANT_CLIENT, "me", &me, &err))
        return -1;
    return participant_join(seg, dir, PARTICIPANT_CLIENT, "other", &other, &err);
}

static int teardown(void **state)
{
    (void)state;
    participant_leave(other);
    participant_leave(me);
    return segment_end(dir, &name, seg);
}

#define X(n) ((n) | INTENT_EXCLUSIVE)

static const struct participant_shm *row(const struct participant *p)
{
    return &seg->participant[p->index];
}

static struct slot hold(struct participant *p, uint32_t intent)
{
    struct slot s;
    assert_int_equal(slot_claim(p, &s), 1);
    assert_int_equal(slot_intend(&s, &intent, 1), 0);
    assert_true(stripe_try(seg, s.index, s.ticket, intent));
    return s;
}

static void a_wait_is_charged_to_each_holder_for_as_long_as_it_held(void **state)
{
    (void)state;
    struct stripe_wait w = {0};
    struct slot a = hold(other, X(7));
    contention_look(seg, &w, me->index, 7, 1000);
    contention_look(seg, &w, me->index, 7, 1300);
    assert_int_equal(gauge_get(&row(other)->held_up), 1);
    assert_int_equal(gauge_get(&row(other)->held_up_ns), 300);
    slot_cancel(&a);
    struct slot b = hold(me, X(7));
    contention_look(seg, &w, me->index, 7, 2000);
    contention_end(seg, &w, me->index, 7, 2500);
    slot_cancel(&b);
    assert_int_equal(gauge_get(&row(other)->held_up_ns), 1000);
    assert_int_equal(gauge_get(&row(me)->held_up), 1);
    assert_int_equal(gauge_get(&row(me)->held_up_ns), 500);
    /* One wait, however often it looked. */
    assert_int_equal(gauge_get(&row(me)->stripe_waits), 1);
    assert_int_equal(gauge_get(&row(me)->wait_ns), 1500);
    assert_int_equal(gauge_get(&seg->stripe[7].waits), 1);
    assert_int_equal(gauge_get(&seg->stripe[7].wait_ns), 1500);
    contention_end(seg, &w, me->index, 7, 9000); /* it waits no longer */
    assert_int_equal(gauge_get(&seg->stripe[7].wait_ns), 1500);
}

static void wait_once(uint32_t stripe, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        struct stripe_wait w = {0};
        contention_look(seg, &w, me->index, stripe, 100);
        contention_end(seg, &w, me->index, stripe, 110);
    }
}

static void the_stripes_waited_for_most_come_first(void **state)
{
    (void)state;
    struct hot_stripe hot[3];
    static uint64_t before[2048];
    assert_int_equal(contention_hot(seg, NULL, hot, 3), 0);
    wait_once(3, 2);
    wait_once(900, 9);
    wait_once(2047, 5);
    wait_once(1, 1);
    assert_int_equal(contention_hot(seg, NULL, hot, 3), 3);
    assert_int_equal(hot[0].stripe, 900);
    assert_int_equal(hot[0].waits, 9);
    assert_int_equal(hot[0].wait_ns, 90);
    assert_int_equal(hot[1].stripe, 2047);
    assert_int_equal(hot[2].stripe, 3);
    for (uint32_t i = 0; i < seg->stripes; i++)
        before[i] = gauge_get(&seg->stripe[i].waits);
    wait_once(1, 1);
    assert_int_equal(contention_hot(seg, before, hot, 3), 1);
    assert_int_equal(hot[0].stripe, 1);
    /* An earlier look at a segment that was replaced: this one's counters began at 0. */
    before[900] = 1000;
    assert_int_equal(contention_hot(seg, before, hot, 3), 2);
    assert_int_equal(hot[0].stripe, 900);
    assert_int_equal(hot[0].waits, 9);
}

static void a_sample_is_told_only_for_the_stripe_that_its_key_hashes_onto(void **state)
{
    (void)state;
    unsigned char out[512], longest[511];
    struct azoth_bytes key = bytes_str("acct/12345");
    uint32_t at = stripe_of_key(seg, key);
    assert_int_equal(contention_key(seg, at, out), 0);
    contention_sample(seg, at, key);
    assert_int_equal(contention_key(seg, at, out), key.len);
    assert_memory_equal(out, key.ptr, key.len);
    /* The other stripe that has the same place does not take it for its own. */
    assert_int_equal(contention_key(seg, (at + SHM_KEY_SAMPLES) % 2048, out), 0);
    /* What a writer that died half-way leaves is no key. */
    struct key_sample_shm *k = &seg->contention->sample[at % SHM_KEY_SAMPLES];
    atomic_store(&k->word[0], 0x4141414141414141ull);
    assert_int_equal(contention_key(seg, at, out), 0);
    atomic_store(&k->head, (uint64_t)(at + 1) << 32 | 100000);
    assert_int_equal(contention_key(seg, at, out), 0);
    memset(longest, 'k', sizeof longest);
    key = (struct azoth_bytes){longest, sizeof longest};
    at = stripe_of_key(seg, key);
    contention_sample(seg, at, key);
    assert_int_equal(contention_key(seg, at, out), 511);
    assert_memory_equal(out, longest, 511);
}

/* A database of its own, closed and removed whatever the test found. */
static char path[64];
static struct azoth *db;

static int setup_database(void **state)
{
    (void)state;
    struct azoth_options o = {.flags = AZOTH_EMBEDDED | AZOTH_CREATE, .sync = "none"};
    strcpy(path, "/tmp/azoth-refuse-XXXXXX");
    return mkdtemp(path) ? azoth_open(path, &o, &db, &err) : -1;
}

static int teardown_database(void **state)
{
    (void)state;
    char command[100];
    azoth_close(db);
    snprintf(command, sizeof command, "rm -r %s", path);
    return system(command);
}

static void set(const char *key, int64_t n, const char *event)
{
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, azoth_str(key), n);
    if (event)
        azoth_event(t,
                    &(struct azoth_event_in){.type = azoth_str(event), .payload = azoth_str("{}")});
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    azoth_txn_free(t);
}

static void refused(struct azoth_txn *t, int code, const char *says)
{
    assert_int_equal(azoth_commit(t, NULL, &err), code);
    if (!strstr(err.message, says))
        fail_msg("\"%s\" does not say \"%s\"", err.message, says);
    azoth_txn_free(t);
}

static void refuse_each(void)
{
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_require_min_i64(t, azoth_str("a"), 100);
    refused(t, AZOTH_ERR_PREFLIGHT_FAILED,
            "it is 7, not at least 100 (since transaction 3, event 2)");
    t = azoth_txn_new(db);
    azoth_require_min_i64(t, azoth_str("a"), 200);
    refused(t, AZOTH_ERR_PREFLIGHT_FAILED, "event 2)");
    t = azoth_txn_new(db);
    struct buf one = {0};
    struct azoth_value v;
    assert_int_equal(value_make_i64(&one, 1, &v), 0);
    azoth_require_equals(t, azoth_str("b"), v);
    buf_fini(&one);
    refused(t, AZOTH_ERR_PREFLIGHT_FAILED, "it is 5, not 1 (since transaction 2)");
    t = azoth_txn_new(db);
    azoth_require_absent(t, azoth_str("c"));
    refused(t, AZOTH_ERR_PREFLIGHT_FAILED, "it is there (since transaction 1, event 1)");
    t = azoth_txn_new(db);
    azoth_require_exists(t, azoth_str("none"));
    refused(t, AZOTH_ERR_PREFLIGHT_FAILED, "it is not there");
    assert_null(strstr(err.message, "since"));
}

static void
refusals_are_counted_by_requirement_and_tell_the_event_that_changed_the_key(void **state)
{
    (void)state;
    struct segment_name its;
    struct segment *s;
    set("c", 1, "made");
    set("b", 5, NULL);
    set("a", 7, "changed");
    for (int i = 0; i < 40; i++)
        set("other", i, "other");
    refuse_each();
    assert_int_equal(segment_name_of(path, &its, &err), 0);
    assert_int_equal(segment_inspect(&its, &s, &err), 0);
    const A64 *by = s->contention->refused_by;
    assert_int_equal(gauge_get(&by[REFUSED_MIN]), 2);
    assert_int_equal(gauge_get(&by[REFUSED_EQUALS]), 1);
    assert_int_equal(gauge_get(&by[REFUSED_ABSENT]), 1);
    assert_int_equal(gauge_get(&by[REFUSED_EXISTS]), 1);
    assert_int_equal(gauge_get(&by[REFUSED_OTHER]), 0);
    segment_detach(s);
}

int main(void)
{
    assert_string_equal(refusal_name(REFUSED_MIN), "min");
    assert_int_equal(refusal_of_requirement(TXN_REQUIRE_VERSION), REFUSED_VERSION);
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_wait_is_charged_to_each_holder_for_as_long_as_it_held),
        T(the_stripes_waited_for_most_come_first),
        T(a_sample_is_told_only_for_the_stripe_that_its_key_hashes_onto),
        cmocka_unit_test_setup_teardown(
            refusals_are_counted_by_requirement_and_tell_the_event_that_changed_the_key,
            setup_database, teardown_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
