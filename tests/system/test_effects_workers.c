/*
 * test_effects_workers.c - effects with real workers: each event's command is run, in the order of its
 * key, whoever is killed, however many workers there are.
 *
 * The command writes "ID KEY" into a file before it ends, so what is checked is what was really done.
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/gauges.h"
#include "tests/system/harness.h"

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

#define KEYS       8u
#define EVENTS_MAX 4000u

static struct harness h;
static struct azoth *db;

/* command is a line of sh; $DONE is the file that it writes to. */
static void begin(const char *marks, const char *command)
{
    char path[400];
    harness_begin(&h);
    snprintf(path, sizeof path, "%s/done", h.dir);
    setenv("DONE", path, 1);
    snprintf(path, sizeof path, "%s/projections/mails.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "-- azoth: projection mails\n-- azoth: effects %s\n%s-- azoth: on sent\n", command,
            marks);
    fclose(f);
    harness_start(&h, "writer", 1, "azoth-writer", "--dir", h.dir, NULL);
    harness_start(&h, "feed", 1, "azoth-feed", "--dir", h.dir, NULL);
    harness_start(&h, "projector", 1, "azoth-projector", "--dir", h.dir, "mails", NULL);
    db = harness_attach(&h, 10000);
    assert_non_null(db);
}

static void end(void)
{
    azoth_close(db);
    harness_end(&h);
    unsetenv("DONE");
}

static struct process *worker(int n)
{
    char label[20], name[40];
    snprintf(label, sizeof label, "effects-%d", n);
    snprintf(name, sizeof name, "mails:%d", n);
    return harness_start(&h, label, 1, "azoth-effects", "--dir", h.dir, name, NULL);
}

/* Event i is of key i % KEYS; every fifth one is of another type. */
static void send(unsigned from, unsigned to)
{
    struct azoth_error err;
    struct azoth_txn *t = azoth_txn_new(db);
    for (unsigned i = from; i < to; i++) {
        char key[16], payload[40];
        snprintf(key, sizeof key, "k%u", i % KEYS);
        snprintf(payload, sizeof payload, "{\"n\":%u}", i);
        azoth_event(t, &(struct azoth_event_in){.type = azoth_str(i % 5 == 4 ? "other" : "sent"),
                                                .stream = azoth_str(key),
                                                .payload = azoth_str(payload)});
    }
    if (azoth_commit(t, NULL, &err))
        fail_msg("%s", err.message);
    azoth_txn_free(t);
}

static void await(uint64_t id, int seconds)
{
    struct azoth_error err = {0};
    uint64_t until = clock_mono_ns() + (uint64_t)seconds * NS_PER_S;
    while (azoth_wait_projected(db, "mails", id, 200, &err)) {
        harness_supervise(&h);
        if (clock_mono_ns() > until)
            fail_msg("event %llu: %s", (unsigned long long)id, err.message);
    }
}

/* Reads "ID KEY" lines. Each of 1..last of the type is there at least once; of one key, no event begins
 * before the last of those before it. Returns how many lines there are beyond once each. */
static unsigned check_done(unsigned last)
{
    static unsigned char seen[EVENTS_MAX + 1];
    unsigned newest[KEYS] = {0}, lines = 0, wanted = 0;
    unsigned id, key;
    memset(seen, 0, sizeof seen);
    FILE *f = fopen(getenv("DONE"), "r");
    assert_non_null(f);
    while (fscanf(f, "%u k%u\n", &id, &key) == 2) {
        assert_true(id >= 1 && id <= last && key < KEYS);
        if (id < newest[key])
            fail_msg("event %u of k%u came behind event %u", id, key, newest[key]);
        newest[key] = id;
        seen[id] = 1;
        lines++;
    }
    assert_true(feof(f));
    fclose(f);
    for (unsigned i = 1; i <= last; i++) {
        unsigned is_sent = (i - 1) % 5 != 4;
        if (seen[i] != is_sent)
            fail_msg("event %u: %s", i, seen[i] ? "not wanted" : "never done");
        wanted += is_sent;
    }
    return lines - wanted;
}

#define NOTE "echo \"$AZOTH_EVENT_ID $AZOTH_EVENT_KEY\" >> \"$DONE\""

/* The projector tells of most of them, and the feed counts that: not at once. */
static void expect_in_histograms(uint64_t most)
{
    struct azoth_error err;
    struct segment_name name;
    struct gauges *g;
    uint64_t until = clock_mono_ns() + 30 * NS_PER_S;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(gauges_attach(&name, 0, &g, &err), 0);
    while (gauge_get(&g->g->lag_ns.count) == 0 && clock_mono_ns() < until)
        nap_ms(10);
    assert_in_range(gauge_get(&g->g->lag_ns.count), 1, most);
    assert_in_range(gauge_get(&g->g->apply_ns.count), 1, most);
    /* A command is a process: so long it takes at least. */
    assert_in_range(gauge_get(&g->g->apply_ns.max), 100000, 60 * NS_PER_S);
    assert_in_range(gauge_get(&g->g->lag_ns.max), gauge_get(&g->g->apply_ns.max) / 2,
                    60 * NS_PER_S);
    gauges_detach(g);
}

static void each_event_is_done_once_in_the_order_of_its_key(void **state)
{
    (void)state;
    begin("", NOTE);
    worker(1);
    worker(2);
    send(0, 200);
    await(200, 30);
    assert_int_equal(check_done(200), 0);
    expect_in_histograms(160);
    end();
}

static void the_command_is_given_the_payload_and_what_there_is_to_know(void **state)
{
    char path[300], line[400] = "", want[400];
    (void)state;
    begin("", "(cat; echo \" $AZOTH_EVENT_TYPE $AZOTH_EVENT_KEY $AZOTH_PROJECTION $AZOTH_ATTEMPT "
              "$AZOTH_DELIVERY ${AZOTH_IDEMPOTENCY_KEY#*-}\") > \"$DONE\"");
    worker(1);
    send(3, 4);
    await(1, 20);
    snprintf(path, sizeof path, "%s/done", h.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    snprintf(want, sizeof want, "{\"n\":3} sent k3 mails 1 1 mails-1\n");
    assert_string_equal(line, want);
    end();
}

static void workers_come_and_go_under_load_and_nothing_is_left_out(void **state)
{
    (void)state;
    begin("-- azoth: lease 2s\n", NOTE);
    worker(1);
    send(0, 600);
    await(60, 30);
    struct process *second = worker(2), *third = worker(3), *fourth = worker(4);
    send(600, 1200);
    await(700, 40);
    third->restart = fourth->restart = 0;
    int a = harness_stop(&h, third), b = harness_stop(&h, fourth);
    assert_int_equal(a, 0);
    assert_int_equal(b, 0);
    send(1200, 1500);
    await(1500, 60);
    assert_true(second->pid != 0);
    assert_int_equal(check_done(1500), 0); /* stopping in order repeats nothing */
    end();
}

static void whoever_is_killed_no_event_is_left_out_and_no_key_is_out_of_order(void **state)
{
    uint64_t seed = harness_seed();
    (void)state;
    begin("-- azoth: lease 1s\n", "sleep 0.002; " NOTE);
    for (int i = 1; i <= 3; i++)
        worker(i);
    for (unsigned round = 0; round < 30; round++) {
        send(round * 40, round * 40 + 40);
        nap_ms((long)(random_next(&seed) % 60));
        /* The projector or a worker; they are started again. */
        struct process *p = &h.process[2 + random_next(&seed) % 4];
        int was = p->restarts;
        harness_kill(p, SIGKILL);
        while (p->restarts == was) {
            harness_supervise(&h);
            nap_ms(1);
        }
    }
    await(30 * 40, 90);
    unsigned more = check_done(30 * 40);
    printf("MEASURED 30 kills of projector and workers: %u of %u commands ran again\n", more,
           30u * 32u);
    /* And none was left out of the ledger. */
    char proof[4000];
    assert_int_equal(
        harness_azoth(&h, proof, sizeof proof, "verify", "--projection", "mails", NULL), 0);
    assert_non_null(strstr(proof, "mails: events 1 to 1200: its 960 handled"));
    end();
}

static void a_command_that_does_not_end_is_killed_and_tried_again(void **state)
{
    (void)state;
    begin("-- azoth: lease 1s\n-- azoth: on-error retry 3 10ms..20ms\n",
          "if [ $AZOTH_ATTEMPT = 1 ]; then sleep 60 & echo stuck >&2; wait; fi; " NOTE);
    worker(1);
    send(0, 1);
    uint64_t from = clock_mono_ns();
    await(1, 20);
    assert_in_range((clock_mono_ns() - from) / NS_PER_MS, 900, 15000);
    assert_int_equal(check_done(1), 0);
    end();
}

static void fail_fast_stops_and_says_why(void **state)
{
    static char out[65536];
    char azoth[256];
    (void)state;
    begin("", "if [ $AZOTH_EVENT_ID = 2 ]; then echo closed >&2; exit 3; fi; " NOTE);
    struct process *projector = &h.process[2];
    projector->restart = 0;
    worker(1);
    send(0, 3);
    int status = harness_wait(&h, projector, 20000);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    harness_program(&h, "azoth", azoth);
    char *const argv[] = {azoth, "lag", "--dir", h.dir, "--json", NULL};
    uint64_t until = clock_mono_ns() + 5 * NS_PER_S;
    do {
        nap_ms(10); /* the feed writes the row */
        harness_run(out, sizeof out, argv);
    } while (!strstr(out, "event 2") && clock_mono_ns() < until);
    if (!strstr(out, "event 2, attempt 1: exit status 3: closed"))
        fail_msg("%s", out);
    end();
}

static int lines_done(void)
{
    int n = 0, c;
    FILE *f = fopen(getenv("DONE"), "r");
    assert_non_null(f);
    while ((c = getc(f)) != EOF)
        n += c == '\n';
    fclose(f);
    return n;
}

static void what_a_dlq_says(const char *verb, const char *event, const char *expected)
{
    static char out[65536];
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S;
    do {
        harness_azoth(&h, out, sizeof out, "dlq", verb, "mails", event);
        nap_ms(5);
    } while (!strstr(out, expected) && clock_mono_ns() < until);
    if (!strstr(out, expected))
        fail_msg("dlq %s: %s", verb, out);
}

static void what_is_given_up_is_a_dead_letter_and_is_run_again_when_asked_for(void **state)
{
    static char out[65536];
    char mended[300];
    (void)state;
    begin("-- azoth: on-error retry 1 fixed 10ms then dead-letter\n",
          "if [ $AZOTH_EVENT_ID = 2 ] && [ ! -e \"$DONE.mended\" ]; then echo closed >&2; exit 3; "
          "fi; " NOTE);
    worker(1);
    send(0, 3);
    await(3, 20);
    what_a_dlq_says("list", NULL, "exit status 3: closed");
    harness_azoth(&h, out, sizeof out, "lag", "mails", NULL, NULL);
    if (!strstr(out, "dead letters: 1 waiting"))
        fail_msg("%s", out);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "retry", "mails", "2"), 0);
    assert_string_equal(out, "event 2: queued\n");
    what_a_dlq_says("show", "2", "attempts       3");
    snprintf(mended, sizeof mended, "%s/done.mended", h.dir);
    FILE *f = fopen(mended, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "retry-all", "mails", NULL), 0);
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S;
    while (lines_done() < 3 && clock_mono_ns() < until)
        nap_ms(5);
    assert_int_equal(check_done(3), 0);
    what_a_dlq_says("list", NULL, "there are no dead letters");
    /* The projection's own process is not there: the command does it. */
    struct process *projector = &h.process[2];
    harness_stop(&h, projector);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "dlq", "drop", "mails", "2"), 1);
    assert_string_equal(out, "event 2: not-found\n");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_event_is_done_once_in_the_order_of_its_key),
        cmocka_unit_test(the_command_is_given_the_payload_and_what_there_is_to_know),
        cmocka_unit_test(workers_come_and_go_under_load_and_nothing_is_left_out),
        cmocka_unit_test(whoever_is_killed_no_event_is_left_out_and_no_key_is_out_of_order),
        cmocka_unit_test(a_command_that_does_not_end_is_killed_and_tried_again),
        cmocka_unit_test(fail_fast_stops_and_says_why),
        cmocka_unit_test(what_is_given_up_is_a_dead_letter_and_is_run_again_when_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
