/*
 * test_crash_effects.c - a death at every crash point of effects, at the first passing and at a later one.
 *
 * The points are those of core/crash.h whose name begins with "effects_"; one without a row here fails the
 * run, as does one that is not passed. The victim dies, is started again, dies at a later passing, and is
 * started once more. Each event's command has run then, those of one key in their order, and the
 * projection stands at the head.
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
#include <time.h>

#include <cmocka.h>

#define KEYS   4u
#define EVENTS 120u /* of one death */

static const char *const point_name[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

static const struct row {
    enum crash_point at;
    int of_worker;
} rows[] = {
    {CRASH_effects_commits, 0},
    {CRASH_effects_committed, 0},
    {CRASH_effects_answered, 0},
    {CRASH_effects_ran, 1},
};

static struct harness h;
static struct azoth *db;
static char what[120];

static void begin(void)
{
    char path[400];
    harness_begin(&h);
    snprintf(path, sizeof path, "%s/done", h.dir);
    setenv("DONE", path, 1);
    snprintf(path, sizeof path, "%s/projections/mails.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("-- azoth: projection mails\n"
          "-- azoth: effects echo \"$AZOTH_EVENT_ID $AZOTH_EVENT_KEY\" >> \"$DONE\"\n"
          "-- azoth: lease 1s\n",
          f);
    fclose(f);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir, "mails", NULL);
    harness_start(&h, "effects-1", 0, "azoth-effects", "--dir", h.dir, "mails:1", NULL);
    harness_start(&h, "effects-2", 0, "azoth-effects", "--dir", h.dir, "mails:2", NULL);
    db = harness_attach(&h, 10000);
    assert_non_null(db);
}

static void send(unsigned n)
{
    struct azoth_error err;
    struct azoth_txn *t = azoth_txn_new(db);
    for (unsigned i = 0; i < n; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i % KEYS);
        azoth_event(t, &(struct azoth_event_in){.type = AZOTH_STR("sent"),
                                                .stream = azoth_str(key),
                                                .payload = AZOTH_STR("{}")});
    }
    if (azoth_commit(t, NULL, &err))
        fail_msg("%s", err.message);
    azoth_txn_free(t);
}

static void die_at(struct process *victim, enum crash_point at, unsigned passing)
{
    char value[80];
    harness_kill(victim, SIGKILL);
    harness_wait(&h, victim, 5000);
    snprintf(value, sizeof value, "%s:%u", point_name[at], passing);
    setenv("AZOTH_CRASH", value, 1);
    harness_spawn(&h, victim);
    unsetenv("AZOTH_CRASH");
    send(EVENTS);
    int status = harness_wait(&h, victim, 30000);
    if (status == -1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s: not passed, status %d", what, status);
    harness_spawn(&h, victim);
}

static void check_done(unsigned last)
{
    unsigned newest[KEYS] = {0}, id, key, n = 0;
    static unsigned char seen[4 * EVENTS + 1];
    memset(seen, 0, sizeof seen);
    FILE *f = fopen(getenv("DONE"), "r");
    assert_non_null(f);
    while (fscanf(f, "%u k%u\n", &id, &key) == 2) {
        assert_true(id >= 1 && id <= last && key < KEYS);
        if (id < newest[key])
            fail_msg("%s: event %u of k%u behind event %u", what, id, key, newest[key]);
        newest[key] = id;
        n += !seen[id];
        seen[id] = 1;
    }
    assert_true(feof(f));
    fclose(f);
    if (n != last)
        fail_msg("%s: %u of %u events were done", what, n, last);
}

static void survive(const struct row *r)
{
    struct azoth_error err = {0};
    begin();
    struct process *victim = &h.process[r->of_worker ? 3 : 2];
    for (unsigned death = 0; death < 3; death++) {
        unsigned passing = death == 0 ? 1 : 4 + 13 * death;
        snprintf(what, sizeof what, "%s, passing %u", point_name[r->at], passing);
        die_at(victim, r->at, passing);
    }
    uint64_t until = clock_mono_ns() + 40 * NS_PER_S;
    while (azoth_wait_projected(db, "mails", 3 * EVENTS, 200, &err)) {
        harness_supervise(&h);
        if (clock_mono_ns() > until)
            fail_msg("%s: %s", what, err.message);
    }
    check_done(3 * EVENTS);
    azoth_close(db);
    for (int i = h.processes; i-- > 0;)
        if (harness_stop(&h, &h.process[i]) != 0)
            fail_msg("%s: %s ended with status %d", what, h.process[i].name, h.process[i].status);
    harness_end(&h);
}

static void every_point_of_effects_is_survived(void **state)
{
    (void)state;
    for (int at = 0; at < CRASH_POINT_COUNT; at++) {
        int known = strncmp(point_name[at], "effects_", 8) != 0;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            known |= (int)rows[i].at == at;
        if (!known)
            fail_msg("no row for the point %s", point_name[at]);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        survive(&rows[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_point_of_effects_is_survived)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
