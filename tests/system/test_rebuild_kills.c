/*
 * test_rebuild_kills.c - a projection is rebuilt over and over while events come and its projector, the feed and the
 * rebuild itself are killed: no reader ever finds less than was there before, and the rows are right.
 */
#include "tests/system/harness.h"

#include "core/clock.h"
#include "projector/control.h"
#include "projector/generation.h"
#include "projector/table.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define KILLS    20
#define FIRST    100000 /* events before the first rebuild, so that it takes a while */
#define PATIENCE (60 * NS_PER_S)

static struct harness h;
static struct azoth *db;
static char projections[300];
static uint64_t head, seen;

static void define(const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s.sql", projections, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "-- azoth: projection %s\n-- azoth: on-error dead-letter\n"
            "-- azoth: migration 1 one\n"
            "CREATE TABLE account (name PRIMARY KEY, balance INTEGER NOT NULL, moves INTEGER NOT "
            "NULL);\n"
            "CREATE TABLE history (event INTEGER PRIMARY KEY, amount CHECK (amount <> 0));\n"
            "-- azoth: on moved\n"
            "INSERT INTO history VALUES (@id, :amount);\n"
            "INSERT INTO account VALUES (:account, :amount, 1) ON CONFLICT (name) DO UPDATE SET "
            "balance = balance + :amount, moves = moves + 1;\n",
            name);
    fclose(f);
}

/* Every hundredth cannot be applied. */
static void move(int n)
{
    struct azoth_error err;
    struct azoth_txn *t = azoth_txn_new(db);
    for (int i = 0; i < n; i++) {
        char json[80];
        head++;
        snprintf(json, sizeof json, "{\"account\":\"a%d\",\"amount\":%d}", (int)(head * 31 % 200),
                 head % 100 == 0 ? 0 : (int)(head % 977) + 1);
        azoth_event_json(t, "moved", json);
    }
    if (azoth_commit(t, NULL, &err))
        fail_msg("%s", err.message);
    azoth_txn_free(t);
}

static int take_number(void *arg, int n, const char *const *names, const struct query_value *v)
{
    (void)names;
    if (v && n == 1)
        *(uint64_t *)arg = (uint64_t)v[0].integer;
    return 0;
}

static uint64_t number_in(const char *name)
{
    uint64_t n = 0;
    return query_run(projections, name, "SELECT cursor FROM azoth_projection", take_number, &n,
                     NULL)
               ? 0
               : n;
}

static void await_file(void)
{
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (number_in("built") == 0) {
        assert_true(clock_mono_ns() < until);
        nap_ms(1);
    }
}

/* What a reader finds who opens the file now: never less than another one before. */
static void look(void)
{
    uint64_t cursor = 0;
    struct azoth_error err;
    int rc = query_run(projections, "built", "SELECT cursor FROM azoth_projection", take_number,
                       &cursor, &err);
    if (rc)
        fail_msg("a reader finds: %s", err.message);
    if (cursor < seen)
        fail_msg("a reader finds event %" PRIu64 " after %" PRIu64, cursor, seen);
    seen = cursor;
}

static void await(uint64_t event)
{
    uint64_t until = clock_mono_ns() + PATIENCE;
    struct azoth_error err;
    while (azoth_wait_projected(db, "built", event, 1, &err)) {
        assert_true(clock_mono_ns() < until);
        harness_supervise(&h);
        look();
    }
    look();
    assert_in_range(seen, event, UINT64_MAX);
}

static uint64_t generation(void)
{
    uint64_t n;
    struct azoth_error err;
    if (generation_current(projections, "built", &n, &err))
        fail_msg("%s", err.message);
    return n;
}

static void same_rows(const char *sql)
{
    static char one[65536], other[65536];
    harness_rows(&h, "whole", sql, one, sizeof one);
    assert_true(strlen(one) > 5);
    assert_string_equal(one, harness_rows(&h, "built", sql, other, sizeof other));
}

static void begin(void)
{
    head = seen = 0;
    harness_begin(&h);
    snprintf(projections, sizeof projections, "%s/projections", h.dir);
    define("whole");
    define("built");
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none", NULL);
    db = harness_attach(&h, 10000);
    assert_non_null(db);
    harness_start(&h, "whole", 1, "azoth-projector", "--dir", h.dir, "whole", NULL);
}

static void rows_are_right(void)
{
    static char proof[65536];
    uint64_t until = clock_mono_ns() + PATIENCE;
    struct azoth_error err;
    while (azoth_wait_projected(db, "whole", head, 10, &err))
        assert_true(clock_mono_ns() < until);
    same_rows("SELECT name, balance, moves FROM account ORDER BY name");
    same_rows("SELECT count(*), sum(amount), sum(event * amount), max(event) FROM history");
    same_rows("SELECT count(*), sum(event), min(attempts), max(attempts) FROM azoth_dlq");
    assert_int_equal(
        harness_azoth(&h, proof, sizeof proof, "verify", "--all-projections", NULL, NULL), 0);
}

static void a_rebuild_under_load_loses_nothing_whoever_is_killed(void **state)
{
    (void)state;
    uint64_t seed = harness_seed(), until;
    struct process *victim[3];
    begin();
    victim[0] = harness_start(&h, "feed", 1, "azoth-feed", "--dir", h.dir, NULL);
    victim[1] = harness_start(&h, "built", 1, "azoth-projector", "--dir", h.dir, "built", NULL);
    for (int i = 0; i < FIRST / 1000; i++)
        move(1000);
    await_file();
    await(head);
    victim[2] = harness_start(&h, "rebuild", 1, "azoth", "--dir", h.dir, "projection", "rebuild",
                              "built", "--quiet", NULL);
    for (int kills = 0; kills < KILLS;) {
        move(200);
        for (long n = (long)(random_next(&seed) % 300); n >= 0; n -= 10) {
            harness_supervise(&h);
            look();
            nap_ms(10);
        }
        struct process *p = victim[random_next(&seed) % 3];
        if (p->pid) {
            harness_kill(p, SIGKILL);
            kills++;
        }
        await(head);
    }
    /* Those that nobody disturbs come to their end, whatever was left. */
    victim[2]->restart = 0;
    if (victim[2]->pid)
        harness_wait(&h, victim[2], 60000);
    for (int i = 0; i < 5; i++) {
        uint64_t before = generation();
        until = clock_mono_ns() + PATIENCE;
        harness_spawn(&h, victim[2]);
        while (victim[2]->pid && clock_mono_ns() < until) {
            move(10);
            harness_supervise(&h);
            look();
        }
        assert_int_equal(victim[2]->status, 0);
        assert_int_equal(generation(), before + 1);
    }
    printf("# %d kills, %" PRIu64 " generations, %" PRIu64 " events\n", KILLS, generation(), head);
    await(head);
    rows_are_right();
    azoth_close(db);
    harness_end(&h);
}

/* A connection that holds the projector, as a rebuild's does; its cursor. */
static uint64_t hold(int *ret_fd)
{
    static const uint8_t id[COMMAND_ID_BYTES] = {1};
    char run_dir[300], answer[COMMAND_ANSWER_MAX];
    struct azoth_error err;
    unsigned long long cursor = 0;
    snprintf(run_dir, sizeof run_dir, "%s/run", h.dir);
    if (control_dial(run_dir, "built", 10000, ret_fd, &err) ||
        control_say(*ret_fd, id, "hold", answer, &err))
        fail_msg("%s", err.message);
    assert_int_equal(sscanf(answer, "held %llu", &cursor), 1);
    return cursor;
}

static void
a_projector_that_is_held_goes_on_when_the_one_who_holds_is_gone_or_does_nothing(void **state)
{
    (void)state;
    int fd, other;
    begin();
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    harness_start(&h, "built", 1, "azoth-projector", "--dir", h.dir, "built", NULL);
    move(1000);
    await_file();
    await(head);
    assert_int_equal(hold(&fd), head);
    move(10);
    /* The other projection has them, and may be behind this one by chance only once in a while. */
    for (uint64_t n = head; number_in("whole") < n;)
        nap_ms(1);
    for (int i = 0; i < 20; i++) {
        look();
        assert_int_equal(seen, head - 10);
        nap_ms(10);
    }
    close(fd);
    await(head);

    uint64_t began = clock_mono_ns();
    assert_int_equal(hold(&fd), head);
    move(10);
    await(head);
    /* It was held for as long as it may be, and no longer. */
    assert_in_range(clock_mono_ns() - began, CONTROL_HOLD_NS - NS_PER_S, CONTROL_HOLD_NS * 3);
    other = fd;
    assert_int_equal(hold(&fd), head);
    close(other);
    close(fd);
    move(10);
    await(head);
    rows_are_right();
    azoth_close(db);
    harness_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rebuild_under_load_loses_nothing_whoever_is_killed),
        cmocka_unit_test(
            a_projector_that_is_held_goes_on_when_the_one_who_holds_is_gone_or_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
