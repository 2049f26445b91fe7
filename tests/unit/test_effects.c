/* test_effects.c - the ledger of an effects projection: who is given what, when, and what is kept. */
#include "projector/effects.h"
#include "tests/unit/projecting.h"

#include "core/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD    "-- azoth: projection p\n-- azoth: effects true\n-- azoth: lease 5s\n"
#define LEASE   ((5000 + EFFECTS_GRACE_MS) * NS_PER_MS)
#define T0      (1000 * NS_PER_S)
#define RETRIES "-- azoth: on-error retry 2 100ms..1s then log-and-skip\n"

static const struct effects_worker one = {"1", 11}, two = {"2", 22}, one_again = {"1", 12};

static struct {
    struct effects *e;
    uint64_t next;
    int64_t time_ns; /* of events */
} ledger;

static int setup(void **state)
{
    memset(&ledger, 0, sizeof ledger);
    ledger.next = 1;
    return begin(state);
}

static void close_ledger(void)
{
    effects_close(ledger.e);
    ledger.e = NULL;
    shut();
}

static int teardown(void **state)
{
    close_ledger();
    return end(state);
}

static void open_at(const char *sql, uint64_t now_ns)
{
    struct table_options o = {.dir = fx.dir, .uuid = uuid, .shards = 1};
    good(sqlfile_parse("p.sql", bytes_str(sql), &fx.def, &fx.err));
    good(effects_open(&fx.def, &o, now_ns, &ledger.e, &fx.err));
}

/* As if the process had been killed and started again. */
static void again(const char *sql, uint64_t now_ns)
{
    close_ledger();
    open_at(sql, now_ns);
}

/* Takes an event per key; "" is an event without one. */
static void take(const char *const *keys, int n)
{
    uint32_t check = 0;
    for (int i = 0; i < n; i++) {
        char payload[60];
        snprintf(payload, sizeof payload, "{\"to\":\"%s\"}", keys[i]);
        struct event_record ev = {.id = ledger.next + (uint64_t)i,
                                  .txn = 1,
                                  .time_ns = ledger.time_ns,
                                  .type = bytes_str("put"),
                                  .key = bytes_str(keys[i]),
                                  .payload = bytes_str(payload)};
        check = add_event(&fx.frames, &ev);
    }
    good(effects_take(ledger.e, buf_bytes(&fx.frames), ledger.next, ledger.next + (uint64_t)n - 1,
                      check, &fx.err));
    ledger.next += (uint64_t)n;
    buf_clear(&fx.frames);
}

#define TAKE(...)                                                                                  \
    take((const char *const[]){__VA_ARGS__},                                                       \
         (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

/* The event that w is given, 0 for none; *ret_grant its number. */
static uint64_t give(const struct effects_worker *w, uint64_t now, uint32_t *ret_grant)
{
    struct effects_grant g;
    int rc = effects_give(ledger.e, w, now, &g, &fx.err);
    if (rc < 0)
        fail_msg("%s", fx.err.message);
    good(effects_commit(ledger.e, &fx.err));
    if (rc && ret_grant)
        *ret_grant = g.grant;
    return rc ? g.id : 0;
}

static void done(uint64_t id, uint32_t grant)
{
    good(effects_done(ledger.e, id, grant, &fx.err));
    good(effects_commit(ledger.e, &fx.err));
}

static int failed(uint64_t id, uint32_t grant, uint64_t now)
{
    int rc = effects_failed(ledger.e, id, grant, bytes_str("no such address"), now, &fx.err);
    return rc ? rc : effects_commit(ledger.e, &fx.err);
}

static void the_cursor_is_below_the_first_event_that_is_not_settled(void **state)
{
    uint32_t a = 0, b = 0, c = 0;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a", "b", "c");
    assert_int_equal(effects_settled(ledger.e), 0);
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(give(&two, T0, &b), 2);
    done(2, b);
    assert_int_equal(effects_settled(ledger.e), 0);
    assert_int_equal(give(&two, T0, &c), 3);
    done(1, a);
    assert_int_equal(effects_settled(ledger.e), 2);
    done(3, c);
    assert_int_equal(effects_settled(ledger.e), 3);
    assert_int_equal(give(&one, T0, NULL), 0);
}

struct told {
    unsigned n;
    uint64_t apply_ns;
    int64_t lag_ns;
};

static void on_settled(void *arg, uint64_t apply_ns, int64_t lag_ns)
{
    struct told *t = arg;
    *t = (struct told){t->n + 1, apply_ns, lag_ns};
}

static void what_is_settled_is_told_with_its_times_once_it_is_kept(void **state)
{
    struct told told = {0};
    char answer[COMMAND_ANSWER_MAX];
    uint32_t a = 0;
    (void)state;
    open_at(HEAD "-- azoth: on-error dead-letter\n", T0);
    effects_on_settled(ledger.e, on_settled, &told);
    ledger.time_ns = clock_wall_ns() - 5 * (int64_t)NS_PER_S;
    TAKE("a", "b");
    uint64_t begun = clock_mono_ns();
    assert_int_equal(give(&one, T0, &a), 1);
    good(effects_done(ledger.e, 1, a, &fx.err));
    assert_int_equal(told.n, 0);
    good(effects_commit(ledger.e, &fx.err));
    assert_int_equal(told.n, 1);
    assert_in_range(told.apply_ns, 1, clock_mono_ns() - begun);
    assert_in_range(told.lag_ns, 5 * NS_PER_S, 65 * NS_PER_S);
    /* What is given up is settled as well; when it is run again it is not, for a second time. */
    assert_int_equal(give(&one, T0, &a), 2);
    good(failed(2, a, T0));
    assert_int_equal(told.n, 2);
    good(effects_command(ledger.e, uuid, "retry 2", answer, &fx.err));
    assert_string_equal(answer, "queued");
    assert_int_equal(give(&one, T0, &a), 2);
    done(2, a);
    assert_int_equal(told.n, 2);
    /* One that was given by a process before this one. */
    TAKE("c");
    assert_int_equal(give(&one, T0, &a), 3);
    again(HEAD "-- azoth: on-error dead-letter\n", T0);
    begun = clock_mono_ns();
    effects_on_settled(ledger.e, on_settled, &told);
    done(3, a);
    assert_int_equal(told.n, 3);
    assert_true(told.apply_ns < NS_PER_S * 60 && told.lag_ns >= 5 * (int64_t)NS_PER_S);
}

static void events_of_one_key_come_one_after_the_other(void **state)
{
    uint32_t a = 0, b = 0;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a", "a", "b", "a");
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(give(&two, T0, &b), 3);
    done(3, b);
    assert_int_equal(give(&two, T0, NULL), 0);
    done(1, a);
    assert_int_equal(give(&two, T0, &a), 2);
    assert_int_equal(give(&one, T0, NULL), 0);
    done(2, a);
    assert_int_equal(give(&one, T0, NULL), 4);
}

static void events_without_a_key_and_without_an_order_wait_for_none(void **state)
{
    (void)state;
    open_at(HEAD, T0);
    TAKE("", "");
    assert_int_equal(give(&one, T0, NULL), 1);
    assert_int_equal(give(&two, T0, NULL), 2);
    close_ledger();
    ledger.next = 1;
    char command[100];
    snprintf(command, sizeof command, "rm -f %s/p.*", fx.dir);
    assert_int_equal(system(command), 0);
    open_at(HEAD "-- azoth: order-by none\n", T0);
    TAKE("a", "a");
    assert_int_equal(give(&one, T0, NULL), 1);
    assert_int_equal(give(&two, T0, NULL), 2);
}

static void the_order_may_be_that_of_a_field(void **state)
{
    (void)state;
    open_at(HEAD "-- azoth: order-by :to\n", T0);
    TAKE("a", "a", "b");
    assert_int_equal(give(&one, T0, NULL), 1);
    assert_int_equal(give(&two, T0, NULL), 3);
}

static void one_who_asks_again_is_given_the_same_under_the_same_number(void **state)
{
    uint32_t a = 0, b = 0;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a", "b");
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(give(&one, T0, &b), 1);
    assert_int_equal(a, b);
    again(HEAD, T0);
    assert_int_equal(give(&one, T0, &b), 1);
    assert_int_equal(a, b);
    done(1, a);
    done(1, a); /* told twice */
    assert_int_equal(effects_settled(ledger.e), 1);
}

static void a_lease_that_is_over_frees_the_event_and_its_report_comes_too_late(void **state)
{
    uint32_t a = 0, b = 0;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a");
    assert_int_equal(give(&one, T0, &a), 1);
    good(effects_expire(ledger.e, T0 + LEASE - 1, &fx.err));
    assert_int_equal(give(&two, T0 + LEASE - 1, NULL), 0);
    assert_int_equal(effects_due_ns(ledger.e, T0), T0 + LEASE);
    good(effects_expire(ledger.e, T0 + LEASE, &fx.err));
    assert_int_equal(give(&two, T0 + LEASE, &b), 1);
    assert_int_equal(b, a + 1);
    done(1, a);
    assert_int_equal(effects_settled(ledger.e), 0);
    done(1, b);
    assert_int_equal(effects_settled(ledger.e), 1);
}

static void the_next_process_of_a_name_frees_what_the_last_one_had(void **state)
{
    uint32_t a = 0, b = 0;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a");
    assert_int_equal(give(&one, T0, &a), 1);
    again(HEAD, T0);
    assert_int_equal(give(&two, T0, NULL), 0);
    assert_int_equal(give(&one_again, T0, &b), 1);
    assert_int_equal(b, a + 1);
    good(effects_leave(ledger.e, &one_again, &fx.err));
    good(effects_commit(ledger.e, &fx.err));
    assert_int_equal(give(&two, T0, NULL), 1);
}

static void what_was_given_and_taken_survives_a_restart(void **state)
{
    uint32_t a = 0;
    uint64_t cursor;
    uint32_t check;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a", "b", "c");
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(give(&two, T0, NULL), 2);
    done(1, a);
    again(HEAD, T0 + LEASE);
    effects_cursor(ledger.e, &cursor, &check);
    assert_int_equal(cursor, 3);
    assert_true(check != 0);
    assert_int_equal(effects_settled(ledger.e), 1);
    assert_int_equal(give(&one, T0 + LEASE, NULL), 3); /* 2 is still with the other */
    good(effects_expire(ledger.e, T0 + 2 * LEASE - 1, &fx.err));
    assert_int_equal(give(&one_again, T0 + 2 * LEASE - 1, NULL), 3);
    good(effects_expire(ledger.e, T0 + 2 * LEASE, &fx.err));
    assert_int_equal(give(&two, T0 + 2 * LEASE, NULL), 2);
}

static void what_is_not_committed_is_not_there(void **state)
{
    struct effects_grant g;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a");
    assert_int_equal(effects_give(ledger.e, &one, T0, &g, &fx.err), 1);
    again(HEAD, T0);
    assert_int_equal(give(&two, T0, NULL), 1);
}

static void a_failure_ends_a_projection_that_fails_fast_and_comes_again(void **state)
{
    uint32_t a = 0;
    struct effects_stats st;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a");
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(failed(1, a, T0), AZOTH_ERR_HANDLER);
    assert_string_equal(fx.err.message, "event 1, attempt 1: no such address");
    again(HEAD, T0);
    effects_stats(ledger.e, &st);
    assert_string_equal(st.error, "event 1, attempt 1: no such address");
    assert_int_equal(give(&one, T0, &a), 1);
    done(1, a);
    assert_int_equal(effects_settled(ledger.e), 1);
}

static void retries_wait_longer_each_time_and_hold_up_their_key_alone(void **state)
{
    uint32_t a = 0;
    (void)state;
    open_at(HEAD RETRIES, T0);
    TAKE("a", "a", "b");
    assert_int_equal(give(&one, T0, &a), 1);
    good(failed(1, a, T0));
    assert_int_equal(give(&one, T0 + 49 * NS_PER_MS, &a), 3);
    done(3, a);
    uint64_t due = effects_due_ns(ledger.e, T0);
    assert_in_range(due, T0 + 50 * NS_PER_MS, T0 + 100 * NS_PER_MS);
    assert_int_equal(give(&one, due - 1, NULL), 0);
    again(HEAD RETRIES, T0);
    due = effects_due_ns(ledger.e, T0);
    assert_in_range(due, T0 + 1, T0 + 100 * NS_PER_MS); /* less the time that has passed */
    assert_int_equal(give(&one, due, &a), 1);
    good(failed(1, a, due));
    assert_in_range(effects_due_ns(ledger.e, due), due + 100 * NS_PER_MS, due + 200 * NS_PER_MS);
}

static void after_its_retries_an_event_is_skipped_and_the_next_of_its_key_comes(void **state)
{
    uint32_t a = 0;
    uint64_t now = T0;
    struct effects_stats st;
    (void)state;
    open_at(HEAD RETRIES, T0);
    TAKE("a", "a");
    for (int attempt = 1; attempt <= 3; attempt++, now += NS_PER_S) {
        assert_int_equal(give(&one, now, &a), 1);
        good(failed(1, a, now));
    }
    effects_stats(ledger.e, &st);
    assert_int_equal(st.skipped, 1);
    assert_int_equal(st.failures, 3);
    assert_int_equal(effects_settled(ledger.e), 1);
    assert_int_equal(give(&one, now, NULL), 2);
}

static void what_is_given_back_is_no_failure(void **state)
{
    uint32_t a = 0;
    (void)state;
    open_at(HEAD, T0);
    TAKE("a");
    assert_int_equal(give(&one, T0, &a), 1);
    good(effects_given_back(ledger.e, 1, a, &fx.err));
    assert_int_equal(give(&two, T0, &a), 1);
    struct effects_stats st;
    effects_stats(ledger.e, &st);
    assert_int_equal(st.failures, 0);
}

static void no_more_is_taken_than_may_be_open_and_all_of_it_comes_out(void **state)
{
    static const char *keys[512];
    uint32_t a = 0;
    (void)state;
    for (int i = 0; i < 512; i++)
        keys[i] = i % 2 ? "" : "a";
    open_at(HEAD, T0);
    while (effects_room(ledger.e))
        take(keys, 512);
    assert_in_range(ledger.next - 1, EFFECTS_OPEN_MAX, EFFECTS_OPEN_MAX + 511);
    uint64_t last = ledger.next - 1, seen = 0, id;
    while ((id = give(&one, T0, &a))) {
        done(id, a);
        seen++;
        if (seen == 600)
            again(HEAD, T0);
    }
    assert_int_equal(seen, last);
    assert_int_equal(effects_settled(ledger.e), last);
    assert_true(effects_room(ledger.e));
}

#define LETTERS "-- azoth: on-error retry 1 100ms..1s then dead-letter\n"

static const char *say(uint8_t id, const char *text)
{
    static char answer[COMMAND_ANSWER_MAX];
    const uint8_t bytes[COMMAND_ID_BYTES] = {id};
    good(effects_command(ledger.e, bytes, text, answer, &fx.err));
    return answer;
}

static uint64_t dead(void)
{
    struct effects_stats st;
    effects_stats(ledger.e, &st);
    return st.dead;
}

static void letters_are(const char *expected)
{
    assert_string_equal(rows("SELECT event, type, key, payload, state, error, attempts,"
                             " first_failure <= last_failure FROM azoth_dlq ORDER BY event"),
                        expected);
}

static void an_event_that_is_given_up_is_kept_and_the_next_of_its_key_comes(void **state)
{
    uint32_t a = 0, b = 0;
    (void)state;
    open_at(HEAD LETTERS, T0);
    TAKE("a", "a");
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(failed(1, a, T0), 0);
    assert_int_equal(dead(), 0);
    assert_int_equal(give(&one, T0 + NS_PER_S, &a), 1);
    assert_int_equal(failed(1, a, T0 + NS_PER_S), 0);
    letters_are("1,put,a,{\"to\":\"a\"},waiting,no such address,2,1;");
    assert_int_equal(dead(), 1);
    assert_int_equal(effects_settled(ledger.e), 1);
    assert_int_equal(give(&one, T0 + NS_PER_S, &b), 2);
    again(HEAD LETTERS, T0);
    assert_int_equal(dead(), 1);
    assert_int_equal(effects_settled(ledger.e), 1);
}

static void a_dead_letter_is_run_again_once_for_each_command_and_the_cursor_stays(void **state)
{
    uint32_t a = 0;
    (void)state;
    open_at(HEAD "-- azoth: on-error dead-letter\n", T0);
    TAKE("a", "b", "c");
    for (uint64_t id = 1; id <= 3; id++) {
        assert_int_equal(give(&one, T0, &a), id);
        if (id == 2)
            assert_int_equal(failed(id, a, T0), 0);
        else
            done(id, a);
    }
    assert_int_equal(effects_settled(ledger.e), 3);
    assert_string_equal(say(1, "retry 1"), "not-found");
    assert_string_equal(say(2, "retry 2"), "queued");
    assert_string_equal(say(2, "retry 2"), "queued"); /* the answer had been lost */
    letters_are(";");
    assert_int_equal(dead(), 0);
    assert_int_equal(effects_settled(ledger.e), 3);
    again(HEAD "-- azoth: on-error dead-letter\n", T0);
    assert_int_equal(effects_settled(ledger.e), 3);
    assert_int_equal(give(&one, T0, &a), 2);
    assert_int_equal(give(&two, T0, NULL), 0);
    assert_int_equal(failed(2, a, T0), 0);
    letters_are("2,put,b,{\"to\":\"b\"},waiting,no such address,2,1;");
    TAKE("d");
    assert_string_equal(say(3, "retry 2"), "queued");
    assert_int_equal(give(&one, T0, &a), 2);
    done(2, a);
    assert_int_equal(give(&one, T0, &a), 4);
    done(4, a);
    assert_int_equal(effects_settled(ledger.e), 4);
    letters_are(";");
}

static void a_dead_letter_is_run_again_while_an_older_event_is_still_with_a_worker(void **state)
{
    uint32_t a = 0, b = 0;
    (void)state;
    open_at(HEAD "-- azoth: on-error dead-letter\n", T0);
    TAKE("a", "b", "c");
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(give(&two, T0, &b), 2);
    assert_int_equal(failed(2, b, T0), 0);
    assert_string_equal(say(1, "retry 2"), "queued");
    assert_int_equal(give(&two, T0, &b), 2);
    assert_int_equal(give(&two, T0, &b), 2); /* its answer had been lost */
    done(2, b);
    assert_int_equal(give(&two, T0, &b), 3);
    assert_int_equal(effects_settled(ledger.e), 0);
    done(1, a);
    assert_int_equal(effects_settled(ledger.e), 2);
}

static void a_dead_letter_waits_for_a_later_event_of_its_key_that_is_with_a_worker(void **state)
{
    uint32_t a = 0;
    (void)state;
    open_at(HEAD "-- azoth: on-error dead-letter\n", T0);
    TAKE("a", "a");
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(failed(1, a, T0), 0);
    assert_int_equal(give(&one, T0, &a), 2);
    assert_string_equal(say(1, "retry 1"), "queued");
    assert_int_equal(give(&two, T0, NULL), 0);
    done(2, a);
    assert_int_equal(give(&two, T0, &a), 1);
}

static void a_dead_letter_is_dropped(void **state)
{
    uint32_t a = 0;
    (void)state;
    open_at(HEAD "-- azoth: on-error dead-letter\n", T0);
    TAKE("a");
    assert_int_equal(give(&one, T0, &a), 1);
    assert_int_equal(failed(1, a, T0), 0);
    assert_string_equal(say(1, "drop 1"), "dropped");
    assert_string_equal(say(1, "drop 1"), "dropped");
    assert_string_equal(say(2, "drop 1"), "not-found");
    assert_string_equal(say(3, "frob 1"), "unknown");
    assert_string_equal(say(4, "retry x"), "unknown");
    assert_int_equal(dead(), 0);
    assert_int_equal(give(&one, T0, &a), 0);
}

static void a_file_of_the_time_before_dead_letters_is_taken(void **state)
{
    uint32_t a = 0;
    char command[300];
    (void)state;
    open_at(HEAD LETTERS, T0);
    TAKE("a");
    close_ledger();
    snprintf(command, sizeof command,
             "sqlite3 $(readlink -f %s/p.db) 'ALTER TABLE azoth_effects DROP COLUMN again;"
             " DROP TABLE azoth_dlq; DROP TABLE azoth_command'",
             fx.dir);
    assert_int_equal(system(command), 0);
    open_at(HEAD LETTERS, T0);
    assert_int_equal(give(&one, T0, &a), 1);
    done(1, a);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_cursor_is_below_the_first_event_that_is_not_settled),
        T(what_is_settled_is_told_with_its_times_once_it_is_kept),
        T(events_of_one_key_come_one_after_the_other),
        T(events_without_a_key_and_without_an_order_wait_for_none),
        T(the_order_may_be_that_of_a_field),
        T(one_who_asks_again_is_given_the_same_under_the_same_number),
        T(a_lease_that_is_over_frees_the_event_and_its_report_comes_too_late),
        T(the_next_process_of_a_name_frees_what_the_last_one_had),
        T(what_was_given_and_taken_survives_a_restart),
        T(what_is_not_committed_is_not_there),
        T(a_failure_ends_a_projection_that_fails_fast_and_comes_again),
        T(retries_wait_longer_each_time_and_hold_up_their_key_alone),
        T(after_its_retries_an_event_is_skipped_and_the_next_of_its_key_comes),
        T(an_event_that_is_given_up_is_kept_and_the_next_of_its_key_comes),
        T(a_dead_letter_is_run_again_once_for_each_command_and_the_cursor_stays),
        T(a_dead_letter_is_run_again_while_an_older_event_is_still_with_a_worker),
        T(a_dead_letter_waits_for_a_later_event_of_its_key_that_is_with_a_worker),
        T(a_dead_letter_is_dropped),
        T(a_file_of_the_time_before_dead_letters_is_taken),
        T(what_is_given_back_is_no_failure),
        T(no_more_is_taken_than_may_be_open_and_all_of_it_comes_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
