/*
 * test_bank.c - the bank load through real processes: alone, and while everything is being killed.
 *
 * Also its own client program: with arguments it is bank_client_main().
 */
#include "core/clock.h"
#include "shm/segment.h"
#include "tests/system/bank.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define ACCOUNTS 50

struct bank {
    struct harness h;
    struct process *writer, *worker[2], *feed, *projector;
    char endpoints[2][200], both[400];
    struct azoth *db;
};

static const char accounts_sql[] =
    "-- azoth: projection accounts\n"
    "-- azoth: migration 1 create accounts\n"
    "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL);\n"
    "-- azoth: on opened\n"
    "INSERT INTO accounts VALUES (:account, :amount);\n"
    "-- azoth: on transferred\n"
    "UPDATE accounts SET balance = balance - :amount WHERE account = :from;\n"
    "UPDATE accounts SET balance = balance + :amount WHERE account = :to;\n";

static void bank_begin(struct bank *b)
{
    memset(b, 0, sizeof *b);
    harness_begin(&b->h);
    char path[300];
    snprintf(path, sizeof path, "%s/projections/accounts.sql", b->h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(accounts_sql, f);
    fclose(f);
    b->writer = harness_start(&b->h, "writer", 1, "azoth-writer", "--dir", b->h.dir, NULL);
    b->worker[0] =
        harness_start(&b->h, "worker-1", 1, "azoth-worker", "--dir", b->h.dir, "--name", "1", NULL);
    b->worker[1] =
        harness_start(&b->h, "worker-2", 1, "azoth-worker", "--dir", b->h.dir, "--name", "2", NULL);
    b->feed = harness_start(&b->h, "feed", 1, "azoth-feed", "--dir", b->h.dir, NULL);
    b->projector = harness_start(&b->h, "projector", 1, "azoth-projector", "--dir", b->h.dir,
                                 "accounts", NULL);
    for (int i = 0; i < 2; i++)
        snprintf(b->endpoints[i], sizeof b->endpoints[i], "ipc://%s/run/worker-%d.sock", b->h.dir,
                 i + 1);
    snprintf(b->both, sizeof b->both, "%s,%s", b->endpoints[0], b->endpoints[1]);
    b->db = harness_attach(&b->h, 20000);
    assert_non_null(b->db);
    assert_int_equal(bank_open(b->db, ACCOUNTS), 0);
}

static void bank_end(struct bank *b)
{
    azoth_close(b->db);
    harness_end(&b->h);
}

/* The projection's balances against the store's, once it has caught up. */
static void projection_equals_store(struct bank *b)
{
    struct azoth_error err = {0};
    uint64_t head;
    assert_int_equal(azoth_head(b->db, &head, NULL, &err), 0);
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S;
    int rc;
    do {
        harness_supervise(&b->h);
        rc = azoth_wait_projected(b->db, "accounts", head, 100, &err);
    } while (rc && clock_mono_ns() < until);
    if (rc)
        print_message("%s\n", err.message);
    assert_int_equal(rc, 0);
    char db[300], out[64 * ACCOUNTS];
    snprintf(db, sizeof db, "%s/projections/accounts.db", b->h.dir);
    char *const argv[] = {"sqlite3", "-readonly", db,
                          "SELECT account || ' ' || balance FROM accounts ORDER BY account", NULL};
    assert_int_equal(harness_run(out, sizeof out, argv), 0);
    char *line = strtok(out, "\n");
    for (int i = 0; i < ACCOUNTS; i++, line = strtok(NULL, "\n")) {
        char key[32];
        int64_t have;
        int account;
        long long balance;
        snprintf(key, sizeof key, "acct/%06d", i);
        assert_int_equal(azoth_get_i64(b->db, azoth_str(key), &have, &err), 0);
        assert_non_null(line);
        assert_int_equal(sscanf(line, "%d %lld", &account, &balance), 2);
        assert_int_equal(account, i);
        assert_int_equal(balance, have);
    }
    assert_null(line);
}

static int running(struct process **clients, int n)
{
    int r = 0;
    for (int i = 0; i < n; i++)
        r += clients[i]->pid != 0;
    return r;
}

static void twenty_thousand_transfers_by_many_processes_keep_every_invariant(void **state)
{
    (void)state;
    static struct bank b; /* outlives a failed assertion: ended at exit then */
    struct process *c[5];
    bank_begin(&b);
    assert_true(harness_answers(b.endpoints[0]) && harness_answers(b.endpoints[1]));
    uint64_t seed = harness_seed();
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "remote%d", i);
        c[i] = bank_client(&b.h, name, b.both, ACCOUNTS, 4000, random_next(&seed));
    }
    c[4] = bank_client(&b.h, "attached", "-", ACCOUNTS, 4000, random_next(&seed));
    for (int i = 0; i < 5; i++)
        assert_int_equal(harness_wait(&b.h, c[i], 240000), 0);
    assert_true(bank_check(&b.h, b.db, ACCOUNTS));
    assert_true(harness_segment_clean(&b.h, 2000));
    projection_equals_store(&b);
    bank_end(&b);
}

/* A commit of our own after each kill: how long until the segment is usable again. */
static uint64_t probe_ns(struct bank *b, int i)
{
    struct azoth_txn *t = azoth_txn_new(b->db);
    struct azoth_error err = {0};
    char key[32];
    snprintf(key, sizeof key, "probe/%d", i % 7);
    azoth_add_i64(t, azoth_str(key), 1);
    uint64_t from = clock_mono_ns();
    harness_supervise(&b->h);
    int rc = azoth_commit(t, NULL, &err);
    azoth_txn_free(t);
    if (rc)
        print_message("probe: %s\n", err.message);
    assert_int_equal(rc, 0);
    return clock_mono_ns() - from;
}

static void fifty_kills_under_load_lose_nothing_and_repeat_nothing(void **state)
{
    (void)state;
    static struct bank b; /* outlives a failed assertion: ended at exit then */
    struct process *c[4];
    bank_begin(&b);
    assert_true(harness_answers(b.both));
    uint64_t seed = harness_seed() * 3 | 1, worst = 0;
    c[0] = bank_client(&b.h, "k-remote0", b.both, ACCOUNTS, 100000000, random_next(&seed));
    c[1] = bank_client(&b.h, "k-remote1", b.both, ACCOUNTS, 100000000, random_next(&seed));
    c[2] = bank_client(&b.h, "k-attached0", "-", ACCOUNTS, 100000000, random_next(&seed));
    c[3] = bank_client(&b.h, "k-attached1", "-", ACCOUNTS, 100000000, random_next(&seed));
    /* Clients are killed too, and started again under the same name: their journals go on. */
    for (int i = 0; i < 4; i++)
        c[i]->restart = 1;
    struct process *victims[] = {b.writer,    b.writer, b.worker[0], b.worker[1], b.feed,
                                 b.projector, c[0],     c[1],        c[2],        c[3]};
    int restarts = 0;
    for (int i = 0; i < 60; i++) {
        nap_ms((long)(20 + random_next(&seed) % 100));
        harness_supervise(&b.h);
        struct process *v = victims[random_next(&seed) % (sizeof victims / sizeof *victims)];
        int before = v->restarts;
        harness_kill(v, SIGKILL);
        while (v->restarts == before) {
            harness_supervise(&b.h);
            nap_ms(1);
        }
        uint64_t ns = probe_ns(&b, i);
        worst = ns > worst ? ns : worst;
    }
    for (int i = 0; i < 4; i++) {
        c[i]->restart = 0;
        restarts += c[i]->restarts;
        /* Those that ended by themselves had got an answer they must not get. */
        harness_kill(c[i], SIGKILL);
    }
    while (running(c, 4)) {
        harness_supervise(&b.h);
        nap_ms(1);
    }
    assert_true(harness_drain(b.db));
    restarts += b.writer->restarts + b.worker[0]->restarts + b.worker[1]->restarts +
                b.feed->restarts + b.projector->restarts;
    print_message(
        "60 kills, %d restarts (writer %d); longest time to a commit after a kill: %.0f ms\n",
        restarts, b.writer->restarts, (double)worst / 1e6);
    assert_true(restarts >= 50);
    /* Every end was one of ours: a process that ended by itself was restarted once too often. */
    assert_true(restarts <= 60);
    assert_true(worst < NS_PER_S);
    assert_true(harness_segment_clean(&b.h, 3000));
    assert_true(bank_check(&b.h, b.db, ACCOUNTS));
    projection_equals_store(&b);
    bank_end(&b);
}

static void a_stopped_writer_answers_late_and_without_error(void **state)
{
    (void)state;
    static struct bank b; /* outlives a failed assertion: ended at exit then */
    bank_begin(&b);
    harness_kill(b.writer, SIGSTOP);
    struct azoth_txn *t = azoth_txn_new(b.db);
    struct azoth_error err;
    azoth_txn_set_deadline(t, 200);
    azoth_set_i64(t, AZOTH_STR("late"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), AZOTH_ERR_OUTCOME_UNKNOWN);
    uint8_t id[16];
    azoth_txn_id(t, id);
    assert_int_equal(azoth_outcome(b.db, id, NULL, &err), AZOTH_ERR_BUSY);
    harness_kill(b.writer, SIGCONT);
    /* The same id again waits for the first to be decided and answers with its result. */
    struct azoth_commit_info info;
    azoth_txn_set_deadline(t, 10000);
    assert_int_equal(azoth_commit(t, &info, &err), 0);
    assert_int_equal(info.duplicate, 1);
    assert_int_equal(azoth_outcome(b.db, id, &info, &err), 0);
    azoth_txn_free(t);
    assert_true(harness_segment_clean(&b.h, 2000));
    bank_end(&b);
}

static void through_two_workers_a_stopped_writer_leaves_the_outcome_unknown(void **state)
{
    (void)state;
    static struct bank b; /* outlives a failed assertion: ended at exit then */
    bank_begin(&b);
    assert_true(harness_answers(b.endpoints[0]) && harness_answers(b.endpoints[1]));
    struct azoth *remote;
    struct azoth_error err;
    assert_int_equal(azoth_connect(b.both, NULL, &remote, &err), 0);
    harness_kill(b.writer, SIGSTOP);
    /* One worker submits it. Asked again, the other waits for the id's stripe until it gives up. */
    struct azoth_txn *t = azoth_txn_new(remote);
    azoth_txn_set_deadline(t, 700);
    azoth_set_i64(t, AZOTH_STR("late"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), AZOTH_ERR_OUTCOME_UNKNOWN);
    harness_kill(b.writer, SIGCONT);
    struct azoth_commit_info info;
    azoth_txn_set_deadline(t, 10000);
    assert_int_equal(azoth_commit(t, &info, &err), 0);
    assert_int_equal(info.duplicate, 1);
    azoth_txn_free(t);
    azoth_close(remote);
    assert_true(harness_segment_clean(&b.h, 2000));
    bank_end(&b);
}

static void a_stopped_worker_keeps_its_keys_and_no_others(void **state)
{
    (void)state;
    static struct bank b; /* outlives a failed assertion: ended at exit then */
    bank_begin(&b);
    /* A child that stops itself inside a callback holds the stripes of its keys. */
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "holder", "--hold", b.h.dir, NULL);
        _exit(9);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    struct azoth_txn *t = azoth_txn_new(b.db);
    struct azoth_error err;
    azoth_txn_set_deadline(t, 300);
    azoth_add_i64(t, AZOTH_STR("acct/000000"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), AZOTH_ERR_LOCK_TIMEOUT);
    azoth_txn_reset(t);
    azoth_txn_set_deadline(t, 1000);
    azoth_add_i64(t, AZOTH_STR("other"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    /* Dead, its keys come back within a second. */
    uint64_t from = clock_mono_ns();
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    azoth_txn_reset(t);
    azoth_add_i64(t, AZOTH_STR("acct/000000"), 0);
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    assert_true(clock_mono_ns() - from < NS_PER_S);
    azoth_txn_free(t);
    assert_true(harness_segment_clean(&b.h, 2000));
    bank_end(&b);
}

static int stop_here(struct azoth_txn *t, void *arg)
{
    (void)t;
    (void)arg;
    raise(SIGSTOP);
    return 0;
}

static int hold_main(const char *dir)
{
    struct azoth *db;
    if (azoth_open(dir, NULL, &db, NULL))
        return 1;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_write(t, AZOTH_STR("acct/000000"));
    azoth_validate(t, stop_here, NULL);
    return azoth_commit(t, NULL, NULL) != 0;
}

static void a_second_writer_is_refused_and_told_who_holds_the_database(void **state)
{
    (void)state;
    static struct bank b; /* outlives a failed assertion: ended at exit then */
    bank_begin(&b);
    struct process *second =
        harness_start(&b.h, "second", 0, "azoth-writer", "--dir", b.h.dir, NULL);
    int status = harness_wait(&b.h, second, 5000);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    char path[300], text[500] = "", pid[32];
    snprintf(path, sizeof path, "%s/log-second", b.h.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    fclose(f);
    snprintf(pid, sizeof pid, "azoth-writer pid %d ", (int)b.writer->pid);
    assert_non_null(strstr(text, pid));
    assert_non_null(strstr(text, "AZOTH_ERR_WRITER_RUNNING"));
    bank_end(&b);
}

static void a_data_file_swapped_under_a_living_segment_retires_it(void **state)
{
    (void)state;
    static struct bank b; /* outlives a failed assertion: ended at exit then */
    bank_begin(&b);
    char data[300], copy[300], cmd[1300];
    snprintf(data, sizeof data, "%s/data.mdb", b.h.dir);
    snprintf(copy, sizeof copy, "%s/copy.mdb", b.h.dir);
    /* Another file under the same name, as a restore by hand makes it. */
    snprintf(cmd, sizeof cmd, "cp --sparse=always %s %s && mv %s %s", data, copy, copy, data);
    b.writer->restart = 0;
    harness_kill(b.writer, SIGKILL);
    harness_wait(&b.h, b.writer, 5000);
    char *const argv[] = {"sh", "-c", cmd, NULL};
    assert_int_equal(harness_run(NULL, 0, argv), 0);
    b.writer->restart = 1;
    harness_spawn(&b.h, b.writer);
    /* This process still reads the old file: it is told so and must open again. */
    struct azoth_txn *t = azoth_txn_new(b.db);
    struct azoth_error err;
    int rc;
    uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
    do {
        azoth_txn_reset(t);
        azoth_txn_set_deadline(t, 500);
        azoth_add_i64(t, AZOTH_STR("swap"), 1);
        rc = azoth_commit(t, NULL, &err);
    } while (rc == AZOTH_ERR_OUTCOME_UNKNOWN && clock_mono_ns() < until);
    assert_int_equal(rc, AZOTH_ERR_RETIRED);
    azoth_txn_free(t);
    azoth_close(b.db);
    b.db = harness_attach(&b.h, 10000);
    assert_non_null(b.db);
    int64_t n;
    assert_int_equal(azoth_get_i64(b.db, AZOTH_STR("acct/000001"), &n, &err), 0);
    assert_int_equal(n, BANK_OPENING);
    t = azoth_txn_new(b.db);
    azoth_add_i64(t, AZOTH_STR("swap"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    azoth_txn_free(t);
    bank_end(&b);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--hold") == 0)
        return hold_main(argv[2]);
    if (argc > 1)
        return bank_client_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_thousand_transfers_by_many_processes_keep_every_invariant),
        cmocka_unit_test(fifty_kills_under_load_lose_nothing_and_repeat_nothing),
        cmocka_unit_test(a_stopped_writer_answers_late_and_without_error),
        cmocka_unit_test(through_two_workers_a_stopped_writer_leaves_the_outcome_unknown),
        cmocka_unit_test(a_stopped_worker_keeps_its_keys_and_no_others),
        cmocka_unit_test(a_second_writer_is_refused_and_told_who_holds_the_database),
        cmocka_unit_test(a_data_file_swapped_under_a_living_segment_retires_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
