/* test_culprits.c - azoth status names who keeps others waiting: the key and who held it, why transactions are
 * refused, who pins pages of the store and the WAL of a projection; and the histograms beside them. */
#include "client/azoth.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/process.h"
#include "shm/pins.h"
#include "shm/projection_row.h"
#include "tests/system/harness.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE (60 * NS_PER_S)

static struct harness h;
static struct azoth_error err;

static json_t *status(void)
{
    static char out[200000];
    assert_int_equal(harness_azoth(&h, out, sizeof out, "status", "--json", NULL, NULL), 0);
    json_t *j = json_loads(out, 0, NULL);
    assert_non_null(j);
    return j;
}

/* A number in it, by its path: "gauges.lag_ns.count". */
static int64_t number(const json_t *j, const char *path)
{
    char text[100];
    snprintf(text, sizeof text, "%s", path);
    for (char *p = strtok(text, "."); p && j; p = strtok(NULL, "."))
        j = json_object_get(j, p);
    return (int64_t)json_number_value(j);
}

/* The entry of a list whose `key` is n; NULL. */
static json_t *entry(json_t *j, const char *list, const char *key, int64_t n)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(j, list), i,
                       e) if (json_integer_value(json_object_get(e, key)) == n) return e;
    return NULL;
}

static void on_done(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                    const struct azoth_error *why, void *arg)
{
    (void)info;
    (void)why;
    *(int *)arg = code;
    azoth_txn_free(t);
}

static void submit(struct azoth *db, const char *key, int *code)
{
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, azoth_str(key), 1);
    assert_int_equal(azoth_submit(t, on_done, code, &err), 0);
}

static void put(struct azoth *db, int64_t v)
{
    char data[40];
    struct azoth_txn *t = azoth_txn_new(db);
    snprintf(data, sizeof data, "{\"v\":%lld}", (long long)v);
    azoth_event_json(t, "put", data);
    azoth_set_i64(t, azoth_str("v"), v);
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    azoth_txn_free(t);
}

static void a_stopped_writer_is_seen_as_waits_for_a_key_and_who_holds_it(void **state)
{
    (void)state;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 20000);
    int codes[3] = {1, 1, 1};
    harness_kill(w, SIGSTOP);
    for (int i = 0; i < 3; i++)
        submit(db, i < 2 ? "acct/hot" : "acct/cold", &codes[i]);
    for (int i = 0; i < 20; i++)
        azoth_poll(db, 10);
    harness_kill(w, SIGCONT);
    while (azoth_in_flight(db))
        assert_true(azoth_poll(db, 1000) >= 0);
    assert_true(codes[0] == 0 && codes[1] == 0 && codes[2] == 0);
    json_t *j = status();
    json_t *stripes = json_object_get(json_object_get(j, "contention"), "stripes");
    assert_int_equal(json_array_size(stripes), 1);
    json_t *hot = json_array_get(stripes, 0);
    assert_string_equal(json_string_value(json_object_get(hot, "key")), "acct/hot");
    assert_int_equal(number(hot, "waits"), 1);
    assert_in_range(number(hot, "wait_ns"), 100 * NS_PER_MS, 20 * NS_PER_S);
    /* It waited for its own: both sides of the account are ours. */
    json_t *me = entry(j, "participants", "pid", getpid());
    assert_non_null(me);
    assert_int_equal(number(me, "stripe_waits"), 1);
    assert_int_equal(number(me, "held_up"), 1);
    assert_int_equal(number(me, "wait_ns"), number(hot, "wait_ns"));
    assert_in_range(number(me, "held_up_ns"), 100 * NS_PER_MS, 20 * NS_PER_S);
    assert_int_equal(number(j, "gauges.preflight_ns.count"), 3);
    assert_true(number(j, "gauges.preflight_ns.max") > number(hot, "wait_ns"));
    assert_true(number(j, "disk.free_bytes") > 0);
    json_decref(j);
    azoth_close(db);
    harness_end(&h);
}

static void a_transaction_that_times_out_and_one_that_is_refused_are_counted_by_why(void **state)
{
    (void)state;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 20000);
    int code = 1, late = 1;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_require_min_i64(t, azoth_str("none"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), AZOTH_ERR_PREFLIGHT_FAILED);
    azoth_txn_free(t);
    harness_kill(w, SIGSTOP);
    submit(db, "k", &code);
    t = azoth_txn_new(db);
    azoth_add_i64(t, azoth_str("k"), 1);
    azoth_txn_set_deadline(t, 50);
    assert_int_equal(azoth_submit(t, on_done, &late, &err), 0);
    while (late == 1)
        assert_true(azoth_poll(db, 100) >= 0);
    assert_int_equal(late, AZOTH_ERR_LOCK_TIMEOUT);
    harness_kill(w, SIGCONT);
    while (azoth_in_flight(db))
        assert_true(azoth_poll(db, 1000) >= 0);
    json_t *j = status();
    assert_int_equal(number(j, "contention.refused_by.lock-timeout"), 1);
    assert_int_equal(number(j, "contention.refused_by.min"), 1);
    assert_int_equal(number(j, "contention.refused_by.max"), 0);
    json_decref(j);
    azoth_close(db);
    harness_end(&h);
}

static void wait_until_not_pinned(uint64_t until)
{
    json_t *pin;
    do {
        json_t *j = status();
        pin = entry(j, "pins", "pid", getpid());
        json_decref(j);
        nap_ms(20);
    } while (pin && clock_mono_ns() < until);
    assert_null(pin);
}

static struct gauges *gauges(void)
{
    struct segment_name name;
    struct gauges *g;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(gauges_attach(&name, 0, &g, &err), 0);
    return g;
}

static void a_snapshot_that_is_kept_is_named_with_its_process_and_age(void **state)
{
    (void)state;
    uint64_t until = clock_mono_ns() + PATIENCE;
    struct azoth_snapshot *sn;
    harness_begin(&h);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    struct azoth *db = harness_attach(&h, 20000);
    put(db, 1);
    assert_int_equal(azoth_snapshot(db, &sn, &err), 0);
    put(db, 2);
    assert_int_equal(prctl(PR_SET_NAME, "a\033[2J\nb"), 0); /* what a terminal would obey */
    json_t *j = status(), *pin;
    while (!(pin = entry(j, "pins", "pid", getpid())) && clock_mono_ns() < until) {
        json_decref(j);
        nap_ms(20);
        j = status();
    }
    assert_non_null(pin);
    assert_string_equal(json_string_value(json_object_get(pin, "of")), "store");
    assert_string_equal(json_string_value(json_object_get(pin, "program")), "a?[2J");
    assert_int_equal(number(pin, "commits_behind"), 1);
    struct gauges *g = gauges();
    struct pinned seen[SHM_PINS];
    assert_int_equal(pins_read(g->g->pin, seen), 1);
    assert_string_equal(seen[0].program, "a?[2J");
    gauges_detach(g);
    prctl(PR_SET_NAME, "test_culprits");
    assert_true(json_number_value(json_object_get(pin, "age_s")) < 60);
    json_decref(j);
    /* One who looks for it is stopped: what it saw is not told for ever. */
    harness_kill(w, SIGSTOP);
    wait_until_not_pinned(until);
    harness_kill(w, SIGCONT);
    do {
        j = status();
        pin = entry(j, "pins", "pid", getpid());
        json_decref(j);
    } while (!pin && clock_mono_ns() < until);
    assert_non_null(pin);
    azoth_snapshot_free(sn);
    put(db, 3);
    wait_until_not_pinned(until);
    azoth_close(db);
    harness_end(&h);
}

static void define(void)
{
    char path[400];
    snprintf(path, sizeof path, "%s/projections", h.dir);
    mkdir(path, 0770);
    snprintf(path, sizeof path, "%s/projections/p.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("-- azoth: projection p\n-- azoth: migration 1 t\nCREATE TABLE t (id INTEGER PRIMARY "
          "KEY, v);\n"
          "-- azoth: on put\nINSERT INTO t VALUES (@id, :v);\n",
          f);
    assert_int_equal(fclose(f), 0);
}

/* What who may not look himself is told: by the writer's helper, and by the projector, whose checkpoint fails once it
 * has nothing to do. */
static void expect_in_gauges(pid_t reader, uint64_t until)
{
    struct gauges *g = gauges();
    struct pinned pin[SHM_PINS];
    struct projection_row r;
    uint32_t n;
    /* The projector itself reads an old frame for a moment now and then. */
    while (((n = pins_read(g->g->file_pin, pin)) != 1 || pin[0].pid != (uint64_t)reader) &&
           clock_mono_ns() < until)
        nap_ms(20);
    assert_int_equal(n, 1);
    assert_int_equal(pin[0].pid, reader);
    assert_string_equal(pin[0].stem, "p");
    assert_string_equal(pin[0].program, "sqlite3");
    assert_true(pin[0].behind > 0 && pin[0].since_ns <= clock_mono_ns());
    while (projection_row_read(g, 0, &r) && r.wal_pinned_ns == 0 && clock_mono_ns() < until)
        nap_ms(20);
    assert_true(r.wal_pinned_ns > 0 && r.wal_pinned_ns <= clock_mono_ns());
    assert_true(r.wal_bytes > 4096 && r.wal_bytes < 64u << 20);
    gauges_detach(g);
}

static void expect_no_pin(uint64_t until)
{
    struct gauges *g = gauges();
    struct pinned pin[SHM_PINS];
    struct projection_row r;
    while (pins_read(g->g->file_pin, pin) && clock_mono_ns() < until)
        nap_ms(20);
    assert_int_equal(pins_read(g->g->file_pin, pin), 0);
    /* Nothing was committed meanwhile: its projector has tried again by itself. */
    while (projection_row_read(g, 0, &r) && (r.wal_pinned_ns || r.wal_bytes) &&
           clock_mono_ns() < until)
        nap_ms(20);
    assert_int_equal(r.wal_pinned_ns, 0);
    assert_int_equal(r.wal_bytes, 0);
    gauges_detach(g);
}

static void a_reader_of_a_projection_that_holds_its_wal_is_named(void **state)
{
    (void)state;
    char fifo[300], command[700];
    uint64_t until = clock_mono_ns() + PATIENCE;
    harness_begin(&h);
    define();
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir, "p", NULL);
    struct azoth *db = harness_attach(&h, 20000);
    put(db, 1);
    assert_int_equal(azoth_wait_projected(db, "p", 1, 20000, &err), 0);
    snprintf(fifo, sizeof fifo, "%s/questions", h.dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    int fd = open(fifo, O_RDWR | O_CLOEXEC);
    snprintf(command, sizeof command, "exec sqlite3 -readonly %s/projections/p.db <%s >/dev/null",
             h.dir, fifo);
    struct process *reader = harness_start(&h, "reader", 0, "/bin/sh", "-c", command, NULL);
    static const char question[] = "BEGIN; SELECT max(id) FROM t;\n";
    assert_int_equal(write(fd, question, sizeof question - 1), sizeof question - 1);
    json_t *j = NULL, *pin = NULL;
    for (int64_t v = 2; !pin && clock_mono_ns() < until; v++) {
        json_decref(j);
        put(db, v);
        nap_ms(20);
        j = status();
        pin = entry(j, "pins", "pid", reader->pid);
    }
    assert_non_null(pin);
    assert_string_equal(json_string_value(json_object_get(pin, "of")), "projection");
    assert_string_equal(json_string_value(json_object_get(pin, "projection")), "p");
    assert_string_equal(json_string_value(json_object_get(pin, "program")), "sqlite3");
    assert_true(number(pin, "frames_behind") > 0);
    assert_true(number(pin, "wal_bytes") > 0);
    assert_true(json_number_value(json_object_get(pin, "process_age_s")) < 120);
    expect_in_gauges(reader->pid, until);
    /* What projectors tell of their batches has arrived as well. */
    assert_true(number(j, "gauges.apply_ns.count") > 0);
    assert_true(number(j, "gauges.lag_ns.count") > 0);
    assert_in_range(number(j, "gauges.lag_ns.max"), 1000, 60 * NS_PER_S);
    json_decref(j);
    static const char end[] = "COMMIT;\n";
    assert_int_equal(write(fd, end, sizeof end - 1), sizeof end - 1);
    do {
        j = status();
        pin = entry(j, "pins", "pid", reader->pid);
        json_decref(j);
    } while (pin && clock_mono_ns() < until);
    assert_null(pin);
    expect_no_pin(until);
    close(fd);
    azoth_close(db);
    harness_end(&h);
}

static void the_unit_is_found_in_what_the_kernel_tells_of_a_process(void **state)
{
    (void)state;
    static const struct {
        const char *text, *unit;
    } t[] = {
        {"0::/system.slice/system-azoth\\x2dworker.slice/azoth-worker@main:1.service\n",
         "azoth-worker@main:1.service"},
        {"0::/user.slice/user-0.slice/user@0.service/app.slice/my.service\n", "my.service"},
        {"0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"},
        {"12:cpu:/\n1:name=systemd:/system.slice/ssh.service\n0::/\n", "ssh.service"},
        {"0::/\n", ""},
        {"0::/system.slice/.service\n", ""},
        {"", ""},
        {"nonsense", ""},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char unit[80];
        process_unit(t[i].text, unit, sizeof unit);
        assert_string_equal(unit, t[i].unit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unit_is_found_in_what_the_kernel_tells_of_a_process),
        cmocka_unit_test(a_stopped_writer_is_seen_as_waits_for_a_key_and_who_holds_it),
        cmocka_unit_test(a_transaction_that_times_out_and_one_that_is_refused_are_counted_by_why),
        cmocka_unit_test(a_snapshot_that_is_kept_is_named_with_its_process_and_age),
        cmocka_unit_test(a_reader_of_a_projection_that_holds_its_wal_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
