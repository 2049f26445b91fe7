/*
 * test_crash_increment.c - a death at every crash point of increments: what was durable before is restored, and the next
 * increment leaves nothing out.
 *
 * The points are those of core/crash.h whose names begin with "increment_", "exec_" and "prune_"; one that is not passed fails the run. After each
 * death: the mark is not beyond what lies in the directory, so nothing is lost; the next backup and a restore give the
 * database as it is, and as it was at the moment of each death.
 */
#include "core/clock.h"
#include "core/crash.h"
#include "tests/system/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fault/shell.h"

static const char *const point_name[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

static struct harness h;

static struct process *first;

static struct process *start_writer(void)
{
    struct process *p = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    azoth_close(db);
    return p;
}

static int begin(void **state)
{
    (void)state;
    harness_begin(&h);
    shell_begin(&h);
    setenv("AZOTH_DIR", h.dir, 1);
    first = start_writer();
    return 0;
}

static int end(void **state)
{
    (void)state;
    unsetenv("AZOTH_DIR");
    must("rm -rf $D.*");
    harness_end(&h);
    return 0;
}

static void changes(void)
{
    must("for v in 1 2 3; do echo '{\"add\":{\"sum\":1},\"set\":{\"k\":'$v'},\"events\":[{\"type\":"
         "\"a\",\"data\":{\"v\":'$v'}}]}'; done | $AZOTH tx - >/dev/null");
}

/* Nothing that the mark has passed is missing in the directory. */
static void nothing_is_lost(void)
{
    must("mark=$($AZOTH status --json | jq '[.store.marks[] | select(.broken | not) | .txn] | max "
         "// "
         "0')\n"
         "there=$($AZOTH backup list $D.dest --json | jq '[.[] | select(.complete) | "
         ".to_transaction] | max // 0')\n"
         "$AZOTH backup list $D.dest --json | jq -e 'any(.kind == \"full\" and .complete)' "
         ">/dev/null || exit 0\n"
         "test $mark -le $there || { echo mark $mark beyond $there; exit 1; }");
}

static void same(void)
{
    must("$AZOTH restore $D.dest $D.new && "
         "test \"$($AZOTH digest --with-times)\" = \"$($AZOTH digest --with-times --dir $D.new)\" "
         "&& "
         "rm -r $D.new");
}

static void after_a_death_the_next_increment_has_all(void)
{
    changes();
    must("$AZOTH backup --incremental $D.dest");
    nothing_is_lost();
    same();
    must("test \"$(ls $D.dest | grep -v azb$)\" = place || { ls -la $D.dest; exit 1; }");
}

static void a_death_at_every_point_loses_nothing(void **state)
{
    (void)state;
    unsigned deaths = 0;
    changes();
    must("$AZOTH backup --incremental $D.dest");
    for (int at = 0; at < CRASH_POINT_COUNT; at++) {
        const char *name = point_name[at];
        if (strncmp(name, "increment_", 10) != 0)
            continue;
        deaths++;
        changes();
        nothing_is_lost();
        if (strcmp(name, "increment_mark_set") == 0) {
            /* When it is a full one again. */
            must("$AZOTH backup forget $D.dest");
            dies(name, "backup --incremental $D.dest");
        } else if (strcmp(name, "increment_applied") == 0) {
            must("$AZOTH backup --incremental $D.dest");
            dies(name, "restore $D.dest $D.new");
            must("test ! -e $D.new");
        } else {
            dies(name, "backup --incremental $D.dest");
            nothing_is_lost();
            after_a_death_the_next_increment_has_all();
            changes();
            dies(name, "backup --follow $D.dest");
            nothing_is_lost();
            changes();
            dies(name, "backup $D.dest"); /* of the increment that leads on to a full one */
            nothing_is_lost();
        }
        after_a_death_the_next_increment_has_all();
    }
    print_message("MEASURED %u deaths\n", deaths);
    assert_true(deaths >= 7);
}

/* Backups through a command: what it has had it may get once more, and nothing is left out. */
static void a_death_beside_the_command_loses_nothing(void **state)
{
    (void)state;
    static const char follow[] =
        "backup --follow $D.sent --exec 'cat >$D.far/$AZOTH_BACKUP_NAME' --interval 10ms";
    char line[1000];
    unsigned deaths = 0;
    must("mkdir $D.far");
    /* Each of a full backup or the first increment, and of a later one. */
    for (unsigned i = 0; i < 2 * CRASH_POINT_COUNT; i++) {
        const char *name = point_name[i % CRASH_POINT_COUNT];
        if (strncmp(name, "exec_", 5) != 0)
            continue;
        deaths++;
        changes();
        dies(name, follow);
        changes();
        snprintf(
            line, sizeof line,
            "cp -n $D.sent/place $D.far/; $AZOTH %s 2>/dev/null & p=$!\n"
            "want=$($AZOTH status --json | jq .head.event)\n"
            "for i in $(seq 600); do\n"
            "  there=$($AZOTH backup list $D.far --json | jq 'map(.to_event // 0) | max // 0')\n"
            "  mark=$($AZOTH status --json | jq '[.store.marks[].event] | max // 0')\n"
            "  test $there = $want -a $mark = $want && break\n"
            "done\n"
            "kill $p; wait $p; test $mark = $want",
            follow);
        must(line);
        must("rm -rf $D.new; $AZOTH restore $D.far $D.new && "
             "test \"$($AZOTH digest)\" = \"$($AZOTH digest --dir $D.new)\"");
    }
    print_message("MEASURED %u deaths\n", deaths);
    assert_true(deaths >= 6);
}

/* A point of its own name has no death here. */
static void pruning_has_one_point(void)
{
    for (int at = 0; at < CRASH_POINT_COUNT; at++)
        if (strncmp(point_name[at], "prune_", 6) == 0)
            assert_string_equal(point_name[at], "prune_removed");
}

/* Whatever a prune that died has left: it all is restored, and each increment has what it builds on. */
static void a_death_while_pruning_breaks_no_chain(void **state)
{
    (void)state;
    char crash[40], line[200];
    unsigned deaths = 0;
    pruning_has_one_point();
    for (int full = 0; full < 3; full++) {
        changes();
        must("$AZOTH backup $D.dest");
        for (int i = 0; i < 2; i++) {
            changes();
            must("$AZOTH backup --incremental $D.dest");
        }
    }
    must("cp -r $D.dest $D.all");
    for (;; deaths++) {
        char out[4000];
        must("rm -r $D.dest && cp -r $D.all $D.dest");
        snprintf(crash, sizeof crash, "prune_removed:%u", deaths + 1);
        snprintf(line, sizeof line,
                 "AZOTH_CRASH=%s $AZOTH backup prune $D.dest --keep '2 last' 2>&1", crash);
        int status = run(out, sizeof out, line);
        same();
        must("$AZOTH backup list $D.dest --json | jq -e "
             "'all(.kind == \"full\" or .builds_on != null)' >/dev/null");
        if (status == 0)
            break;
        assert_int_equal(status, 128 + SIGKILL);
        must("$AZOTH backup prune $D.dest --keep '2 last'");
        same();
    }
    print_message("MEASURED %u deaths\n", deaths);
    assert_true(deaths > 3);
}

/* The writer dies while increments are made: each that is there is of one history. */
static void the_writer_may_die_between_and_meanwhile(void **state)
{
    (void)state;
    harness_stop(&h, first);
    struct process *writer = start_writer();
    must("$AZOTH backup --incremental $D.dest");
    for (int i = 0; i < 3; i++) {
        changes();
        harness_kill(writer, SIGKILL);
        harness_wait(&h, writer, 10000);
        /* Without a writer the increment is made, and the mark stays. */
        must("$AZOTH backup --incremental $D.dest 2>&1 | grep -q 'mark stays'");
        writer = start_writer();
        after_a_death_the_next_increment_has_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_death_at_every_point_loses_nothing, begin, end),
        cmocka_unit_test_setup_teardown(a_death_beside_the_command_loses_nothing, begin, end),
        cmocka_unit_test_setup_teardown(a_death_while_pruning_breaks_no_chain, begin, end),
        cmocka_unit_test_setup_teardown(the_writer_may_die_between_and_meanwhile, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
