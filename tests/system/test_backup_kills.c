/*
 * test_backup_kills.c - backups of a bank at work, whose old events are archived meanwhile, while its writer, feed and
 * projector, runs of archiving and the backups themselves are killed: each backup that is there is whole, and of one
 * moment of the bank's history.
 *
 * Also its own client program: with arguments it is bank_client_main().
 */
#include "tests/system/bank.h"

#include "core/clock.h"
#include "writer/restore.h"

#include <glob.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ACCOUNTS 20
#define ROUNDS   16
#define PATIENCE 60000

static struct harness h;
static struct azoth *db;
static struct process *writer, *feed, *projector, *client[2];
static char dest[300];

/* Beside the database's directory, so the harness does not know of it. */
static void remove_dest(void)
{
    restore_remove_tree(dest);
}

static void begin(void)
{
    char path[300];
    atexit(remove_dest);
    harness_begin(&h);
    snprintf(dest, sizeof dest, "%s.dest", h.dir);
    snprintf(path, sizeof path, "%s/projections/accounts.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("-- azoth: projection accounts\n"
          "-- azoth: migration 1 create accounts\n"
          "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL);\n"
          "-- azoth: on opened\n"
          "INSERT INTO accounts VALUES (:account, :amount);\n"
          "-- azoth: on transferred\n"
          "UPDATE accounts SET balance = balance - :amount WHERE account = :from;\n"
          "UPDATE accounts SET balance = balance + :amount WHERE account = :to;\n",
          f);
    fclose(f);
    writer = harness_start(&h, "writer", 1, "azoth-writer", "--dir", h.dir, NULL);
    feed = harness_start(&h, "feed", 1, "azoth-feed", "--dir", h.dir, NULL);
    projector =
        harness_start(&h, "projector", 1, "azoth-projector", "--dir", h.dir, "accounts", NULL);
    db = harness_attach(&h, 20000);
    assert_non_null(db);
    assert_int_equal(bank_open(db, ACCOUNTS), 0);
}

static int backups(glob_t *g)
{
    char pattern[320];
    snprintf(pattern, sizeof pattern, "%s/*.azb", dest);
    return glob(pattern, 0, NULL, g) == 0 ? (int)g->gl_pathc : 0;
}

static void backup_and_kill(uint64_t *seed, unsigned *killed)
{
    struct process *b =
        harness_start(&h, "backup", 0, "azoth", "backup", "--quiet", "--dir", h.dir, dest, NULL);
    struct process *a = harness_start(&h, "archive", 0, "azoth", "archive", "--quiet", "--dir",
                                      h.dir, "--keep-events", "100", NULL);
    struct process *victims[] = {writer, writer, projector, feed, b, a};
    nap_ms((long)(random_next(seed) % 60));
    harness_supervise(&h);
    struct process *v = victims[random_next(seed) % (sizeof victims / sizeof *victims)];
    if (v->pid) {
        harness_kill(v, SIGKILL);
        ++*killed;
    }
    int status = harness_wait(&h, b, PATIENCE);
    if (v != b && status != 0)
        fail_msg("a backup ended with status %x", (unsigned)status);
    /* Refused while the projection is behind, or the writer away for long: it is tried again. */
    harness_wait(&h, a, PATIENCE);
    harness_drop(&h);
    harness_drop(&h);
}

/* The restored bank's events are the first ones of the bank's, and its accounts what they make of it. */
static void check_history(struct azoth *copy)
{
    int64_t balance[ACCOUNTS] = {0}, have, sum = 0;
    struct azoth_events *of_copy, *of_bank;
    struct azoth_event a, b;
    struct azoth_error err;
    int rc;
    assert_int_equal(azoth_events(copy, 1, 0, NULL, &of_copy, &err), 0);
    assert_int_equal(azoth_events(db, 1, 0, NULL, &of_bank, &err), 0);
    while ((rc = azoth_events_next(of_copy, &a, &err)) == 1) {
        assert_int_equal(azoth_events_next(of_bank, &b, &err), 1);
        assert_int_equal(a.id, b.id);
        assert_int_equal(a.txn, b.txn);
        assert_int_equal(a.payload.len, b.payload.len);
        assert_memory_equal(a.payload.ptr, b.payload.ptr, a.payload.len);
        int64_t amount = bank_member(a.payload, "amount"), from = bank_member(a.payload, "from");
        if (from >= 0)
            balance[from] -= amount;
        balance[bank_member(a.payload, from >= 0 ? "to" : "account")] += amount;
    }
    assert_int_equal(rc, 0);
    azoth_events_free(of_copy);
    azoth_events_free(of_bank);
    for (int i = 0; i < ACCOUNTS; i++) {
        char key[32];
        snprintf(key, sizeof key, "acct/%06d", i);
        assert_int_equal(azoth_get_i64(copy, azoth_str(key), &have, &err), 0);
        assert_int_equal(have, balance[i]);
        sum += have;
    }
    assert_int_equal(sum, ACCOUNTS * BANK_OPENING);
}

static void restore_and_check(const char *file)
{
    static char out[4096];
    char to[300], program[256];
    struct azoth *copy;
    struct azoth_error err;
    snprintf(to, sizeof to, "%s/copy", h.dir);
    harness_program(&h, "azoth", program);
    if (harness_run(out, sizeof out,
                    (char *[]){program, "restore", (char *)(uintptr_t)file, to, NULL}))
        fail_msg("%s is not restored: %s", file, out);
    const struct azoth_options o = {.flags = AZOTH_READ_ONLY};
    assert_int_equal(azoth_open(to, &o, &copy, &err), 0);
    check_history(copy);
    azoth_close(copy);
    if (harness_run(out, sizeof out, (char *[]){program, "verify", "--dir", to, NULL}))
        fail_msg("the store in %s: %s", file, out);
    if (harness_run(out, sizeof out,
                    (char *[]){program, "verify", "--dir", to, "--projection", "accounts", NULL}))
        fail_msg("the projection in %s: %s", file, out);
    assert_int_equal(harness_run(out, sizeof out, (char *[]){"rm", "-r", to, NULL}), 0);
}

/* The newest event that lies in a segment. */
static unsigned long long archived(void)
{
    static char out[65536];
    char program[256];
    unsigned long long n = 0;
    harness_program(&h, "azoth", program);
    assert_int_equal(
        harness_run(out, sizeof out,
                    (char *[]){program, "archive", "list", "--json", "--dir", h.dir, NULL}),
        0);
    const char *at = strstr(out, "\"last_archived\":");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"last_archived\":%llu", &n), 1);
    return n;
}

/* Between the kills a run may not have come far: one more, which nobody ends. */
static void archive_at_last(void)
{
    static char out[4096];
    char program[256];
    harness_program(&h, "azoth", program);
    if (harness_run(
            out, sizeof out,
            (char *[]){program, "lag", "--wait", "--timeout", "60", "--dir", h.dir, NULL}) ||
        harness_run(out, sizeof out,
                    (char *[]){program, "archive", "--quiet", "--dir", h.dir, "--keep-events",
                               "100", NULL}))
        fail_msg("nothing is archived: %s", out);
}

static void what_was_backed_up_between_kills_is_a_moment_of_the_banks_history(void **state)
{
    (void)state;
    glob_t g = {0};
    unsigned killed = 0;
    uint64_t seed = harness_seed() | 1;
    begin();
    for (int i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "client%d", i);
        client[i] = bank_client(&h, name, "-", ACCOUNTS, 100000000, random_next(&seed));
    }
    for (int i = 0; i < ROUNDS; i++)
        backup_and_kill(&seed, &killed);
    for (int i = 0; i < 2; i++) {
        harness_kill(client[i], SIGKILL);
        harness_wait(&h, client[i], PATIENCE);
    }
    harness_supervise(&h);
    archive_at_last();
    int n = backups(&g);
    print_message("MEASURED %u kills, %d backups of %d, %llu events archived\n", killed, n, ROUNDS,
                  archived());
    uint64_t head;
    assert_true(n >= ROUNDS / 2);
    assert_int_equal(azoth_head(db, &head, NULL, NULL), 0);
    assert_true(head > 2 * ACCOUNTS); /* the bank was at work */
    assert_true(archived() > ACCOUNTS);
    for (int i = 0; i < n; i++)
        restore_and_check(g.gl_pathv[i]);
    globfree(&g);
    assert_true(bank_check(&h, db, ACCOUNTS));
    azoth_close(db);
    harness_end(&h);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return bank_client_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_backed_up_between_kills_is_a_moment_of_the_banks_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
