/*
 * test_crash_backup.c - a death at every crash point of backups and restores, and a stop inside the copy.
 *
 * The points are those of core/crash.h whose names begin with "copy_", "backup_" and "restore_"; one that is not passed
 * fails the run. After the death of a backup there is what was there before, and after that of a restore nothing that
 * is a database, or the whole one; the next call does it, and leaves nothing of the dead one. Deaths of the writer and
 * of a projector at each of their points while a copy is under way change nothing of what is copied.
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fault/shell.h"

static const char *const point_name[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

static struct harness h;
static struct azoth *db;

static int count(const char *line)
{
    static char out[8192];
    assert_int_equal(run(out, sizeof out, line), 0);
    return atoi(out);
}

static int begin(void **state)
{
    (void)state;
    harness_begin(&h);
    shell_begin(&h);
    must("cat >$D/projections/p.sql <<'S'\n-- azoth: projection p\n-- azoth: migration 1 t\nCREATE "
         "TABLE t (id "
         "INTEGER PRIMARY KEY);\n-- azoth: on a\nINSERT INTO t VALUES (@id);\nS\n");
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir, "p", NULL);
    db = harness_attach(&h, 10000);
    assert_non_null(db);
    must("$AZOTH tx --dir $D '{\"set\":{\"k\":1},\"events\":[{\"type\":\"a\"},{\"type\":\"a\"}]}'");
    must("$AZOTH tx --dir $D '{\"events\":[{\"type\":\"a\"}]}'");
    must("$AZOTH lag p --dir $D --wait --timeout 20");
    must("$AZOTH archive --dir $D --keep-events 1");
    return 0;
}

static int end(void **state)
{
    (void)state;
    azoth_close(db);
    db = NULL;
    must("rm -rf $D.*");
    harness_end(&h);
    return 0;
}

static void a_backup_dies(const char *point, const char *how)
{
    char line[300];
    int before = count("ls $D.dest/*.azb 2>/dev/null | wc -l");
    snprintf(line, sizeof line, "backup --dir $D %s $D.dest", how);
    dies(point, line);
    assert_int_equal(count("ls $D.dest/*.azb 2>/dev/null | wc -l"), before);
    snprintf(line, sizeof line, "$AZOTH backup --dir $D %s $D.dest", how);
    must(line);
    assert_int_equal(count("ls $D.dest/*.azb | wc -l"), before + 1);
    must("test \"$(ls $D.dest | grep -v azb$)\" = place || { ls -la $D.dest; exit 1; }");
}

static void a_restore_dies(const char *point)
{
    int done = strcmp(point, "restore_done") == 0;
    dies(point, "restore $D.dest $D.new");
    int named = done || strcmp(point, "restore_named") == 0;
    assert_int_equal(count("ls $D.new/data.mdb 2>/dev/null | wc -l"), done);
    assert_int_equal(count("ls $D.new*/data.mdb 2>/dev/null | wc -l"), named);
    if (!done)
        must("$AZOTH restore $D.dest $D.new");
    assert_int_equal(count("ls -d $D.new.restoring-* 2>/dev/null | wc -l"), 0);
    must("test \"$($AZOTH digest --dir $D)\" = \"$($AZOTH digest --dir $D.new)\"");
    must("$AZOTH verify --all-projections --dir $D.new && rm -r $D.new");
}

static void every_death_of_a_backup_or_a_restore_leaves_what_was_there_or_all_of_it(void **state)
{
    (void)state;
    unsigned deaths = 0;
    must("mkdir $D.tmp && $AZOTH backup --dir $D $D.dest");
    for (int at = 0; at < CRASH_POINT_COUNT; at++) {
        const char *name = point_name[at];
        if (strncmp(name, "restore_", 8) == 0)
            a_restore_dies(name);
        else if (strncmp(name, "backup_", 7) == 0 || strncmp(name, "copy_", 5) == 0)
            a_backup_dies(name, "");
        else
            continue;
        deaths++;
        /* Archived events are as others in a sealed one. */
        if (strncmp(name, "backup_", 7) == 0 && strcmp(name, "backup_archived") != 0) {
            a_backup_dies(name, "--sealed");
            deaths++;
            /* It was paused by who is dead: that ends by itself, or by the next. */
            must("$AZOTH resume --dir $D");
        }
    }
    must("$AZOTH backup verify --deep --tmp $D.tmp $D.dest");
    print_message("MEASURED %u deaths\n", deaths);
    assert_true(deaths > 10);
}

/* Copies of projections can be read. Where only what is encrypted goes there are none, and elsewhere those of a dead one go
 * with the next. */
static void what_a_dead_backup_has_copied_beside_an_encrypted_place_goes_with_the_next(void **state)
{
    (void)state;
    static const char copies[] = "find $D.tmp -type f | wc -l";
    must("mkdir $D.tmp && $AZOTH key make $D.key");
    dies("backup_projection_copied", "backup --dir $D --tmp $D.tmp --key-file $D.key $D.dest");
    assert_int_equal(count(copies), 1);
    assert_int_equal(count("ls $D.dest | grep -v '^place$' | wc -l"), 0);
    must("TMPDIR=$D.tmp $AZOTH backup --dir $D --key-file $D.key $D.dest");
    assert_int_equal(count("ls -A $D.tmp | wc -l"), 0);
    dies("backup_projection_copied", "backup --dir $D --tmp $D.tmp --sealed - >$D.stream");
    assert_int_equal(count(copies), 1);
    must("$AZOTH resume --dir $D; $AZOTH backup --dir $D --tmp $D.tmp - >$D.stream");
    assert_int_equal(count("ls -A $D.tmp | wc -l"), 0);
}

/* A backup that has stopped itself there. */
static struct process *stopped_at(const char *point)
{
    setenv("AZOTH_CRASH", point, 1);
    setenv("AZOTH_CRASH_ACTION", "stop", 1);
    char dest[300];
    snprintf(dest, sizeof dest, "%s.dest", h.dir);
    struct process *p =
        harness_start(&h, "backup", 0, "azoth", "backup", "--dir", h.dir, dest, NULL);
    unsetenv("AZOTH_CRASH");
    unsetenv("AZOTH_CRASH_ACTION");
    int status;
    assert_int_equal(waitpid(p->pid, &status, WUNTRACED), p->pid);
    assert_true(WIFSTOPPED(status));
    return p;
}

/* Between its store and its segments: these are moved, and other events are archived. */
static void one_that_is_stopped_finds_segments_that_were_moved_meanwhile(void **state)
{
    (void)state;
    char was[300], is[300], moved[40];
    must("mkdir $D.elsewhere");
    assert_int_equal(run(was, sizeof was, "$AZOTH digest --with-times --dir $D"), 0);
    struct process *p = stopped_at("backup_stored");
    must("$AZOTH archive --dir $D --move $D.elsewhere && $AZOTH archive --dir $D --keep-events 0");
    must("$AZOTH tx --dir $D '{\"events\":[{\"type\":\"a\"}]}'");
    assert_int_equal(count("ls $D/archive | wc -l"), 0);
    assert_int_equal(run(moved, sizeof moved, "ls $D.elsewhere | wc -l"), 0);
    assert_string_equal(moved, "2\n");
    harness_kill(p, SIGCONT);
    assert_int_equal(harness_wait(&h, p, 20000), 0);
    must("$AZOTH restore $D.dest $D.new && $AZOTH verify --dir $D.new --all-projections");
    assert_int_equal(run(is, sizeof is, "$AZOTH digest --with-times --dir $D.new"), 0);
    assert_string_equal(was, is);
    assert_int_equal(count("ls $D.new/archive | wc -l"), 1);
}

static void one_that_is_stopped_inside_its_copy_holds_up_no_commit(void **state)
{
    (void)state;
    struct process *p = stopped_at("copy_opened");
    for (int i = 0; i < 3; i++) {
        struct azoth_error err;
        struct azoth_txn *t = azoth_txn_new(db);
        azoth_set_i64(t, AZOTH_STR("k"), i);
        azoth_event_json(t, "a", "{}");
        int rc = azoth_commit(t, NULL, &err);
        if (rc)
            fail_msg("a commit beside a stopped backup: %s", err.message);
        azoth_txn_free(t);
    }
    harness_kill(p, SIGKILL);
    harness_wait(&h, p, 10000);
    must("$AZOTH backup --dir $D $D.dest");
}

struct answer {
    int ended, code;
};

static void on_answer(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                      const struct azoth_error *err, void *arg)
{
    struct answer *a = arg;
    (void)t;
    (void)info;
    (void)err;
    a->ended = 1;
    a->code = code;
}

/* Starts again what has ended, without a crash point; how many had. */
static unsigned revive(struct process *const *list, size_t n)
{
    unsigned ended = 0;
    harness_supervise(&h);
    for (size_t i = 0; i < n; i++)
        if (!list[i]->pid) {
            assert_true(WIFSIGNALED(list[i]->status) && WTERMSIG(list[i]->status) == SIGKILL);
            harness_spawn(&h, list[i]);
            ended++;
        }
    return ended;
}

/* A transaction is committed and applied, whoever dies meanwhile: how many did. */
static unsigned commit_beside_deaths(const char *point, struct process *const *list, size_t n)
{
    struct answer a = {0};
    struct azoth_error err = {0};
    unsigned deaths = 0;
    uint64_t head = 0, until = clock_mono_ns() + 30 * NS_PER_S;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, AZOTH_STR("n"), 1);
    azoth_event_json(t, "a", "{}");
    azoth_txn_set_deadline(t, 20000);
    assert_int_equal(azoth_submit(t, on_answer, &a, &err), 0);
    while (!a.ended) {
        azoth_poll(db, 1);
        deaths += revive(list, n);
    }
    if (a.code)
        fail_msg("%s: a commit is answered with %d", point, a.code);
    azoth_txn_free(t);
    assert_int_equal(azoth_head(db, &head, NULL, NULL), 0);
    while (azoth_wait_projected(db, "p", head, 20, &err) && clock_mono_ns() < until)
        deaths += revive(list, n);
    assert_true(clock_mono_ns() < until);
    return deaths;
}

/* Writer, feed and projector are made anew and die there, if they pass it with a transaction: how many did. Who dies behind
 * what the first one is waited for is missed by the second. */
static unsigned others_die_at(const char *point, struct process *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        harness_kill(list[i], SIGKILL);
        harness_wait(&h, list[i], 10000);
    }
    setenv("AZOTH_CRASH", point, 1);
    for (size_t i = 0; i < n; i++)
        harness_spawn(&h, list[i]);
    unsetenv("AZOTH_CRASH");
    unsigned deaths = commit_beside_deaths(point, list, n);
    return deaths + commit_beside_deaths(point, list, n);
}

static void a_copy_that_is_stopped_outlives_every_death_of_the_others(void **state)
{
    (void)state;
    char was[300], is[300];
    unsigned deaths = 0;
    struct process *others[] = {&h.process[0], &h.process[1], &h.process[2]};
    assert_int_equal(run(was, sizeof was, "$AZOTH digest --with-times --dir $D"), 0);
    struct process *p = stopped_at("copy_begun");
    for (int at = 0; at < CRASH_POINT_COUNT; at++)
        if (strncmp(point_name[at], "writer_", 7) == 0 ||
            strncmp(point_name[at], "projector_", 10) == 0)
            deaths += others_die_at(point_name[at], others, 3);
    print_message("MEASURED %u deaths beside one backup\n", deaths);
    assert_true(deaths > 15);
    harness_kill(p, SIGCONT);
    assert_int_equal(harness_wait(&h, p, 20000), 0);
    must("$AZOTH restore $D.dest $D.new && $AZOTH verify --dir $D.new --store --all-projections "
         "--replay");
    assert_int_equal(run(is, sizeof is, "$AZOTH digest --with-times --dir $D.new"), 0);
    assert_string_equal(was, is);
    must("$AZOTH verify --dir $D --store --all-projections --replay");
}

/* After the first of the projection's generations was copied. */
static void one_finds_another_generation_serving(const char *line, const char *file)
{
    char want[100];
    struct process *p = stopped_at("backup_projection_copied");
    must(line);
    harness_kill(p, SIGCONT);
    assert_int_equal(harness_wait(&h, p, 20000), 0);
    harness_drop(&h);
    must("$AZOTH restore $D.dest $D.new && $AZOTH verify --dir $D.new --all-projections --replay");
    snprintf(want, sizeof want, "test \"$(readlink $D.new/projections/p.db)\" = %s", file);
    must(want);
    must("rm -r $D.new");
}

static void generations_that_are_swapped_while_they_are_copied_leave_one_that_serves(void **state)
{
    (void)state;
    assert_int_equal(harness_stop(&h, &h.process[2]), 0);
    /* Both were serving when they were begun; then neither was. */
    one_finds_another_generation_serving("$AZOTH projection rebuild p --quiet --dir $D", "p.g2.db");
    one_finds_another_generation_serving("$AZOTH projection rollback p --generation --dir $D",
                                         "p.g1.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            every_death_of_a_backup_or_a_restore_leaves_what_was_there_or_all_of_it, begin, end),
        cmocka_unit_test_setup_teardown(
            what_a_dead_backup_has_copied_beside_an_encrypted_place_goes_with_the_next, begin, end),
        cmocka_unit_test_setup_teardown(
            one_that_is_stopped_finds_segments_that_were_moved_meanwhile, begin, end),
        cmocka_unit_test_setup_teardown(a_copy_that_is_stopped_outlives_every_death_of_the_others,
                                        begin, end),
        cmocka_unit_test_setup_teardown(
            generations_that_are_swapped_while_they_are_copied_leave_one_that_serves, begin, end),
        cmocka_unit_test_setup_teardown(one_that_is_stopped_inside_its_copy_holds_up_no_commit,
                                        begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
