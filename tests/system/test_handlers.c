/*
 * test_handlers.c - handlers in C in real processes: one that crashes takes down its projector only, and each event
 * is in its rows once; a library that cannot be used is not tried over and over.
 */
#include "tests/system/harness.h"

#include "core/clock.h"
#include "core/service.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE (120 * NS_PER_S)

static struct harness h;
static char library[400];

static void define(const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/projections/%s", h.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

#define TABLE "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER);\n"
#define IN_C  "-- azoth: projection c\n-- azoth: load crashing.so\n" TABLE "-- azoth: on put in C\n"
#define IN_SQL                                                                                     \
    "-- azoth: projection plain\n" TABLE "-- azoth: on put\nINSERT INTO t VALUES (@id);\n"

/* The library is built beside this program, and lies beside the definition. */
static void begin(const char *every)
{
    char link[300];
    harness_begin(&h);
    define("c.sql", IN_C);
    define("plain.sql", IN_SQL);
    snprintf(link, sizeof link, "%s/projections/crashing.so", h.dir);
    assert_int_equal(symlink(library, link), 0);
    setenv("AZOTH_TEST_CRASH_EVERY", every, 1);
    setenv("AZOTH_TEST_CRASH_DIR", h.dir, 1);
}

static void commit(struct azoth *db, int n)
{
    struct azoth_error err;
    for (int done = 0; done < n;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int i = 0; i < 100 && done < n; i++, done++)
            azoth_event_json(t, "put", "{}");
        if (azoth_commit(t, NULL, &err))
            fail_msg("%s", err.message);
        azoth_txn_free(t);
    }
}

static char text[4000];

static const char *rows(const char *name, const char *sql)
{
    return harness_rows(&h, name, sql, text, sizeof text);
}

static void until_rows(const char *name, const char *sql, const char *want)
{
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (strcmp(rows(name, sql), want) != 0 && clock_mono_ns() < until) {
        harness_supervise(&h);
        nap_ms(5);
    }
    assert_string_equal(rows(name, sql), want);
}

static void each_event_is_in_the_rows_once_whatever_crashes(void **state)
{
    (void)state;
    static char out[4000];
    begin("500");
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none", NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    struct process *c = harness_start(&h, "c", 1, "azoth-projector", "--dir", h.dir, "c", NULL);
    struct process *plain =
        harness_start(&h, "plain", 1, "azoth-projector", "--dir", h.dir, "plain", NULL);
    commit(db, 10000);
    until_rows("c", "SELECT cursor FROM azoth_projection", "10000;");
    assert_string_equal(rows("c", "SELECT count(*), count(DISTINCT id), max(id) FROM t"),
                        "10000,10000,10000;");
    assert_int_equal(c->restarts, 20);
    until_rows("plain", "SELECT cursor FROM azoth_projection", "10000;");
    assert_int_equal(plain->restarts, 0);
    if (harness_azoth(&h, out, sizeof out, "verify", "--projection", "c", NULL))
        fail_msg("%s", out);
    assert_non_null(strstr(out, "c: events 1 to 10000: its 10000 handled"));
    azoth_close(db);
    harness_end(&h);
}

/* How often `what` is in the log of azoth run. */
static int logged(const char *what)
{
    static char log[200000];
    char path[300];
    int n = 0;
    snprintf(path, sizeof path, "%s/log-run", h.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    log[fread(log, 1, sizeof log - 1, f)] = 0;
    fclose(f);
    for (const char *at = log; (at = strstr(at, what)); at += strlen(what))
        n++;
    return n;
}

static void azoth_run_starts_a_crashed_one_again_and_leaves_the_others_alone(void **state)
{
    (void)state;
    begin("200");
    struct process *run =
        harness_start(&h, "run", 0, "azoth", "run", h.dir, "--writer-sync", "none", NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    commit(db, 799);
    until_rows("c", "SELECT cursor FROM azoth_projection", "799;");
    until_rows("plain", "SELECT cursor FROM azoth_projection", "799;");
    assert_string_equal(rows("c", "SELECT count(*), count(DISTINCT id) FROM t"), "799,799;");
    assert_int_equal(harness_stop(&h, run), 0);
    assert_int_equal(logged("projector-c (pid"), 3);
    assert_int_equal(logged("was ended by signal") + logged("ended with exit code"), 3);
    azoth_close(db);
    harness_end(&h);
}

static int exit_code(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void a_library_given_by_hand_goes_before_the_definitions(void **state)
{
    (void)state;
    char path[300];
    begin("1000000");
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none", NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    commit(db, 10);
    snprintf(path, sizeof path, "%s/projections/crashing.so", h.dir);
    unlink(path);
    struct process *p =
        harness_start(&h, "none", 0, "azoth-projector", "--dir", h.dir, "c", "--once", NULL);
    assert_int_equal(exit_code(harness_wait(&h, p, 20000)), SERVICE_EXIT_NEVER_RESTART);
    p = harness_start(&h, "plain", 0, "azoth-projector", "--dir", h.dir, "plain", "--load", library,
                      NULL);
    assert_int_equal(exit_code(harness_wait(&h, p, 20000)), SERVICE_EXIT_NEVER_RESTART);
    p = harness_start(&h, "given", 0, "azoth-projector", "--dir", h.dir, "c", "--once", "--load",
                      library, NULL);
    assert_int_equal(exit_code(harness_wait(&h, p, 20000)), 0);
    assert_string_equal(rows("c", "SELECT count(*), count(DISTINCT id) FROM t"), "10,10;");
    azoth_close(db);
    harness_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_event_is_in_the_rows_once_whatever_crashes),
        cmocka_unit_test(azoth_run_starts_a_crashed_one_again_and_leaves_the_others_alone),
        cmocka_unit_test(a_library_given_by_hand_goes_before_the_definitions),
    };
    /* They are meant to crash. */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    ssize_t n = readlink("/proc/self/exe", library, sizeof library - 20);
    library[n > 0 ? n : 0] = 0;
    char *slash = strrchr(library, '/');
    if (!slash)
        return 1;
    strcpy(slash, "/crashing.so");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
