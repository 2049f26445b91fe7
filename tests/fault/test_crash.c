/*
 * test_crash.c - a death at every crash point, at the first passing and at a later one.
 *
 * The list of points is core/crash.h's own: a point without a row in the table below fails the run, and
 * so does one that its victim does not pass. For each row the whole system runs (writer, feed,
 * projector, clients); the victim dies at the point, is started again and dies there again, and is
 * started once more. Nobody lends a hand. Then must hold:
 *
 *   K1  what was answered as committed is in the log exactly once, what was refused is not, what is of
 *       unknown outcome is there at most once
 *   K2  event ids are 1, 2, 3, ..., and the state is what the log says
 *   K3  the projection's rows are those of the log
 *   K4  no slot, stripe or block is held; everybody goes on, stops in order, and leaves no object
 *   K5  the store's own check finds nothing: chain, redo, indexes, pages (core/storecheck.h). Under large batches
 *       it is asked after each death as well, with the store as the dead writer left it
 *
 * The later passing is drawn; AZOTH_TEST_SEED repeats a run. Where a process passes a point once in its
 * life, it dies there in several lives one after the other. With arguments it is its own client: --load
 * DIR NAME works until DIR/enough is there, --pause DIR pauses and resumes without end, --mark DIR
 * sets, moves and drops a mark, --crowd DIR wants nearly all blocks. With the name of a point it takes that one alone.
 */
#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "projector/control.h"
#include "projector/table.h"
#include "shm/segment.h"
#include "tests/fault/crash.h"
#include "tests/system/harness.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE (40 * NS_PER_S)

static const char *const point_name[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

/* ---- who dies where ---- */

enum who { INIT, CLIENT, WRITER, FEED, PROJECTOR, REBUILDER, PAUSER };

enum how {
    LOAD,      /* passed again and again by who works */
    BULKY,     /* the same, with batches that are large: the store is checked after each death */
    CONTENDED, /* the same, when another takes a stripe between two looks at it */
    CROWDED,   /* the same, while another waits for nearly all blocks */
    START,     /* once in each start */
    ONCE,      /* once in the life of what it makes: that is removed before the next death */
    STOP,      /* after SIGTERM */
    ALONE,     /* after SIGTERM, with nobody attached */
    RECOVERY,  /* by a writer whose predecessor died between commit and answer */
    REAPING,   /* while clients die with their stripes held */
    REQUEUING, /* while clients die between submission and queue bit */
    PAUSING,   /* while somebody pauses and resumes */
    MARKING,   /* while a place of backups sets, moves and drops its mark */
    FULL,      /* while the disk runs full and is freed, again and again */
    FAILING,   /* while one event in twenty fails at first, and is put aside and replayed */
    RETRYING,  /* the same, tried again at its place */
    COMMANDED, /* the same, put aside and replayed because somebody asks for it */
    REBUILT    /* while the projection is rebuilt over and over */
};

static const struct row {
    enum crash_point at;
    enum who who;
    enum how how;
    unsigned most; /* the later passing is drawn from 2 to this; 0 or 1: the first one again */
} rows[] = {
    {CRASH_create_begun, INIT, START, 1},
    {CRASH_create_lock, INIT, START, 1},
    {CRASH_create_begins_store, INIT, START, 1},
    {CRASH_create_stored, INIT, START, 1},
    {CRASH_create_uuid, INIT, START, 1},
    {CRASH_create_reserve, INIT, START, 1},
    {CRASH_create_ready, INIT, START, 1},
    {CRASH_create_renamed, INIT, ONCE, 1},
    {CRASH_participant_filled, CLIENT, LOAD, 4},
    {CRASH_participant_filled, WRITER, START, 1},
    {CRASH_participant_joined, CLIENT, LOAD, 4},
    {CRASH_participant_joined, WRITER, START, 1},
    {CRASH_participant_joined, FEED, START, 1},
    {CRASH_participant_left, CLIENT, LOAD, 4},
    {CRASH_participant_left, WRITER, STOP, 1},
    {CRASH_place_taken, WRITER, START, 1},
    {CRASH_place_taken, FEED, START, 1},
    {CRASH_preflight_bit_taken, CLIENT, LOAD, 20},
    {CRASH_preflight_claimed, CLIENT, LOAD, 20},
    {CRASH_preflight_intents_stored, CLIENT, LOAD, 20},
    {CRASH_preflight_intended, CLIENT, LOAD, 20},
    {CRASH_preflight_one_stripe, CLIENT, LOAD, 40},
    {CRASH_preflight_locked, CLIENT, LOAD, 20},
    {CRASH_preflight_one_block, CLIENT, LOAD, 6},
    {CRASH_preflight_payload_stored, CLIENT, LOAD, 20},
    {CRASH_preflight_submitted, CLIENT, LOAD, 20},
    {CRASH_preflight_queued, CLIENT, LOAD, 20},
    {CRASH_preflight_wakes, CLIENT, LOAD, 4},
    {CRASH_preflight_collected, CLIENT, LOAD, 20},
    {CRASH_preflight_unlocked, CLIENT, LOAD, 6},
    {CRASH_stripe_marked, CLIENT, LOAD, 40},
    {CRASH_stripe_seen_free, CLIENT, LOAD, 20},
    {CRASH_stripe_bit_set, CLIENT, LOAD, 20},
    {CRASH_stripe_bit_withdrawn, CLIENT, CONTENDED, 2},
    {CRASH_stripe_released, CLIENT, LOAD, 6},
    {CRASH_stripe_released, WRITER, LOAD, 40},
    {CRASH_stripe_released, WRITER, REAPING, 2},
    {CRASH_slot_emptied, CLIENT, LOAD, 20},
    {CRASH_slot_emptied, WRITER, REAPING, 2},
    {CRASH_slot_freed, CLIENT, LOAD, 20},
    {CRASH_slot_freed, WRITER, REAPING, 2},
    {CRASH_slot_waiters_taken, CLIENT, CROWDED, 4},
    {CRASH_segment_opened, WRITER, START, 2},
    {CRASH_segment_allocated, WRITER, START, 2},
    {CRASH_segment_made, WRITER, ONCE, 1},
    {CRASH_segment_retired_state, WRITER, ALONE, 1},
    {CRASH_segment_unlinked, WRITER, ALONE, 1},
    {CRASH_writer_epoch, WRITER, START, 1},
    {CRASH_writer_incarnation, WRITER, START, 1},
    {CRASH_writer_one_answered, WRITER, RECOVERY, 2},
    {CRASH_writer_recovered, WRITER, START, 1},
    {CRASH_writer_taken, WRITER, LOAD, 12},
    {CRASH_writer_applied, WRITER, LOAD, 12},
    {CRASH_writer_applied, WRITER, BULKY, 12},
    {CRASH_chain_taken, WRITER, BULKY, 6},
    {CRASH_writer_committed, WRITER, BULKY, 12},
    {CRASH_writer_completed, WRITER, BULKY, 12},
    {CRASH_writer_halves, WRITER, FULL, 2},
    {CRASH_writer_committed, WRITER, LOAD, 12},
    {CRASH_writer_head_published, WRITER, LOAD, 12},
    {CRASH_writer_stripes_released, WRITER, LOAD, 40},
    {CRASH_writer_published, WRITER, LOAD, 40},
    {CRASH_writer_one_completed, WRITER, LOAD, 12},
    {CRASH_writer_completed, WRITER, LOAD, 12},
    {CRASH_writer_woken, WRITER, LOAD, 12},
    {CRASH_control_applied, WRITER, MARKING, 6},
    {CRASH_redo_trimmed, WRITER, MARKING, 6},
    {CRASH_pause_claimed, PAUSER, PAUSING, 4},
    {CRASH_pause_filled, PAUSER, PAUSING, 4},
    {CRASH_pause_asked, PAUSER, PAUSING, 4},
    {CRASH_pause_confirmed, WRITER, PAUSING, 3},
    {CRASH_pause_freed, PAUSER, PAUSING, 4},
    {CRASH_pause_freed, WRITER, PAUSING, 2},
    {CRASH_writer_seal_shown, WRITER, START, 1},
    {CRASH_writer_seal_shown, WRITER, PAUSING, 3},
    {CRASH_control_applied, WRITER, PAUSING, 2},
    {CRASH_writer_paused, WRITER, PAUSING, 3},
    {CRASH_writer_unpaused, WRITER, PAUSING, 3},
    {CRASH_writer_draining, WRITER, STOP, 1},
    {CRASH_writer_absent, WRITER, STOP, 1},
    {CRASH_reserve_given_up, WRITER, FULL, 2},
    {CRASH_reserve_made, WRITER, FULL, 2},
    {CRASH_reaper_chosen, WRITER, REAPING, 2},
    {CRASH_reaper_marked, WRITER, REAPING, 2},
    {CRASH_reaper_requeued, WRITER, REQUEUING, 2},
    {CRASH_reaper_stripes_released, WRITER, REAPING, 2},
    {CRASH_reaper_done, WRITER, REAPING, 2},
    {CRASH_feed_asked, FEED, LOAD, 12},
    {CRASH_feed_row_filled, FEED, START, 1},
    {CRASH_feed_text_begun, FEED, START, 1},
    {CRASH_feed_sent, FEED, LOAD, 12},
    {CRASH_projector_link_made, PROJECTOR, START, 1},
    {CRASH_projector_linked, PROJECTOR, ONCE, 1},
    {CRASH_projector_file_made, PROJECTOR, START, 1},
    {CRASH_projector_identified, PROJECTOR, START, 1},
    {CRASH_projector_migrating, PROJECTOR, START, 2},
    {CRASH_projector_migrated, PROJECTOR, START, 1},
    {CRASH_projector_grants, PROJECTOR, LOAD, 12},
    {CRASH_projector_begun, PROJECTOR, LOAD, 12},
    {CRASH_projector_applied, PROJECTOR, LOAD, 12},
    {CRASH_projector_committed, PROJECTOR, LOAD, 12},
    {CRASH_projector_reports, PROJECTOR, LOAD, 12},
    {CRASH_projector_dead_lettered, PROJECTOR, FAILING, 12},
    {CRASH_projector_replayed, PROJECTOR, FAILING, 12},
    {CRASH_projector_command_taken, PROJECTOR, COMMANDED, 12},
    {CRASH_projector_command_done, PROJECTOR, COMMANDED, 12},
    {CRASH_projector_retry_written, PROJECTOR, RETRYING, 12},
    {CRASH_projector_link_made, PROJECTOR, REBUILT, 3},
    {CRASH_projector_linked, PROJECTOR, REBUILT, 3},
    {CRASH_generation_named, PROJECTOR, REBUILT, 3},
    {CRASH_generation_swapped, PROJECTOR, REBUILT, 3},
    {CRASH_rebuild_filled, REBUILDER, REBUILT, 1},
    {CRASH_rebuild_held, REBUILDER, REBUILT, 1},
    {CRASH_rebuild_closed, REBUILDER, REBUILT, 1},
};

/* ---- the system ---- */

static struct harness h;
static struct process *writer, *feed, *projector, *client[2], *other;
static char self[256], what[120];
static uint64_t seed;
static unsigned deaths, bulky_deaths, trailed; /* of those, when the store's record did */

static void put_file(const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", h.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A process that is known, but runs only from its first harness_spawn() on. */
static struct process *prepare(const char *name, const char *program, const char *a, const char *b,
                               const char *c)
{
    struct process *p = &h.process[h.processes++];
    char path[256];
    harness_program(&h, program, path);
    const char *const argv[] = {path, a, b, c};
    snprintf(p->name, sizeof p->name, "%s", name);
    for (int i = 0; i < 4 && argv[i]; i++)
        p->argv[i] = strdup(argv[i]);
    return p;
}

/* The definitions. An event that fails is one that has not failed before: at the end all are applied. */
#define CREATE_SEEN                                                                                \
    "-- azoth: migration 1 create\n"                                                               \
    "CREATE TABLE seen (id INTEGER PRIMARY KEY, n TEXT NOT NULL);\n"
#define ON_ADDED "-- azoth: on added\nINSERT INTO seen VALUES (@id, @payload);\n"
/* Of a long payload the token that it begins with. */
#define ON_ADDED_LARGE                                                                             \
    "-- azoth: on added\nINSERT INTO seen VALUES (@id,"                                            \
    " substr(CAST(@payload AS TEXT), 1, instr(CAST(@payload AS TEXT) || ' ', ' ') - 1));\n"
#define FAILS_ONCE(table)                                                                          \
    "CREATE TRIGGER once BEFORE INSERT ON seen WHEN NEW.id % 20 = 0 AND NOT EXISTS\n"              \
    " (SELECT 1 FROM " table " WHERE event = NEW.id) BEGIN SELECT RAISE(ABORT, 'not yet'); END;\n"
#define PLAIN                                                                                      \
    "-- azoth: projection counts\n" CREATE_SEEN                                                    \
    "-- azoth: migration 2 index\nCREATE INDEX seen_n ON seen (n);\n"                              \
    "-- azoth: migration 3 more\nCREATE TABLE more (n TEXT);\n"                                    \
    "-- azoth: migration 4 even more\nCREATE INDEX more_n ON more (n);\n" ON_ADDED
#define LARGE_EVENTS "-- azoth: projection counts\n" CREATE_SEEN ON_ADDED_LARGE
#define COMMANDED_LETTERS                                                                          \
    "-- azoth: projection counts\n-- azoth: on-error dead-letter\n"                                \
    "-- azoth: replay every 1s, age 1s, batch 1000\n" CREATE_SEEN FAILS_ONCE("azoth_dlq") ON_ADDED
#define DEAD_LETTERS                                                                               \
    "-- azoth: projection counts\n-- azoth: on-error dead-letter\n"                                \
    "-- azoth: replay every 20ms, batch 1000\n" CREATE_SEEN FAILS_ONCE("azoth_dlq") ON_ADDED
#define RETRIES                                                                                    \
    "-- azoth: projection counts\n-- azoth: on-error retry 3 fixed 5ms\n" CREATE_SEEN FAILS_ONCE(  \
        "azoth_retry") ON_ADDED

static void begin(const struct row *r)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = "none"};
    struct azoth *db;
    struct azoth_error err;
    harness_begin(&h);
    put_file("azoth.conf", "[segment]\nslots = 64\nstripes = 1024\nblocks = 80\n"
                           "[projector]\ntimeout = 100ms\n");
    put_file("projections/counts.sql", r->how == FAILING     ? DEAD_LETTERS
                                       : r->how == COMMANDED ? COMMANDED_LETTERS
                                       : r->how == RETRYING  ? RETRIES
                                       : r->how == BULKY     ? LARGE_EVENTS
                                                             : PLAIN);
    if (r->how == BULKY)
        put_file("large", "");
    assert_int_equal(azoth_open(h.dir, &o, &db, &err), 0);
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, AZOTH_STR("greatest"), INT64_MAX);
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    azoth_txn_free(t);
    azoth_close(db);
    setenv("AZOTH_DIR", h.dir, 1); /* of a rebuild */
    writer = prepare("writer", "azoth-writer", "--dir", h.dir, NULL);
    feed = prepare("feed", "azoth-feed", "--dir", h.dir, NULL);
    projector = prepare("projector", "azoth-projector", "--dir", h.dir, "counts");
    client[0] = prepare("client0", self, "--load", h.dir, "client0");
    client[1] = prepare("client1", self, "--load", h.dir, "client1");
    other = r->how == PAUSING     ? prepare("pauser", self, "--pause", h.dir, NULL)
            : r->how == MARKING   ? prepare("marker", self, "--mark", h.dir, NULL)
            : r->how == COMMANDED ? prepare("commander", self, "--command", h.dir, NULL)
            : r->how == REBUILT   ? prepare("rebuild", "azoth", "projection", "rebuild", "counts")
            : r->how == CROWDED   ? prepare("crowd", self, "--crowd", h.dir, NULL)
                                  : prepare("prey", self, "--load", h.dir, "prey");
}

static struct process *victim_of(const struct row *r)
{
    switch (r->who) {
    case CLIENT:
        return client[0];
    case FEED:
        return feed;
    case PROJECTOR:
        return projector;
    case REBUILDER:
    case PAUSER:
        return other;
    default:
        return writer;
    }
}

/* Answers so far of the two clients. */
static long answers(void)
{
    long n = 0;
    for (int i = 0; i < 2; i++) {
        char path[300];
        struct stat st;
        snprintf(path, sizeof path, "%s/journal-client%d", h.dir, i);
        n += stat(path, &st) == 0 ? (long)st.st_size / 20 : 0;
    }
    return n;
}

static void spawn_armed(struct process *p, const char *point, unsigned passing)
{
    char value[80];
    snprintf(value, sizeof value, "%s:%u", point, passing);
    setenv("AZOTH_CRASH", value, 1);
    harness_spawn(&h, p);
    unsetenv("AZOTH_CRASH");
}

static void start_all_but(const struct process *victim, int clients)
{
    struct process *const all[] = {writer, feed, projector, client[0], client[1]};
    for (int i = 0; i < 3 + 2 * clients; i++)
        if (all[i] != victim && !all[i]->pid)
            harness_spawn(&h, all[i]);
}

static void full_disk(int on)
{
    char path[300];
    snprintf(path, sizeof path, "%s/full", h.dir);
    if (on)
        put_file("full", "");
    else
        unlink(path);
}

/* What the victim's death needs, again and again until it is dead. */
static void provoke(const struct row *r, struct process *victim, long answered_before, int *told)
{
    switch (r->how) {
    case STOP:
        if (!*told && answers() > answered_before + 10) {
            harness_kill(victim, SIGTERM);
            *told = 1;
        }
        break;
    case ALONE:
        if (!*told) {
            struct azoth *db = harness_attach(&h, 5000);
            assert_non_null(db);
            azoth_close(db);
            harness_kill(victim, SIGTERM);
            *told = 1;
        }
        break;
    case REAPING:
    case REQUEUING:
        if (!other->pid)
            spawn_armed(other, r->how == REAPING ? "preflight_locked" : "preflight_submitted", 2);
        break;
    case PAUSING:
    case MARKING:
    case CROWDED:
    case COMMANDED:
    case REBUILT:
        if (!other->pid)
            harness_spawn(&h, other);
        break;
    case FULL: /* on and off: some points are passed when there is room again */
        if (*told != ((answers() - answered_before) / 20) % 2) {
            *told = !*told;
            full_disk(*told);
        }
        break;
    default:
        break;
    }
}

static void must_die(const struct row *r, struct process *victim)
{
    uint64_t until = clock_mono_ns() + PATIENCE;
    long before = answers();
    int told = 0;
    while (victim->pid && clock_mono_ns() < until) {
        provoke(r, victim, before, &told);
        harness_supervise(&h);
        nap_ms(1);
    }
    if (other->pid) { /* it has nobody to answer it */
        harness_kill(other, SIGKILL);
        harness_wait(&h, other, 5000);
    }
    full_disk(0);
    if (victim->pid)
        fail_msg("%s: not passed", what);
    if (!WIFSIGNALED(victim->status) || WTERMSIG(victim->status) != SIGKILL)
        fail_msg("%s: the victim ended with status %d", what, victim->status);
    deaths++;
}

/* Of ONCE: as if it had never been made. */
static void forget(const struct row *r)
{
    static const char *const files[] = {"counts.db", "counts.g1.db", "counts.g1.db-wal",
                                        "counts.g1.db-shm"};
    struct segment_name name;
    if (r->who == WRITER) {
        assert_int_equal(segment_name_of(h.dir, &name, NULL), 0);
        segment_unlink(&name);
    }
    for (size_t i = 0; r->who == PROJECTOR && i < sizeof files / sizeof *files; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/projections/%s", h.dir, files[i]);
        unlink(path);
    }
}

static void preload_full_disk(void)
{
    char cwd[200], shim[420], full[300];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(shim, sizeof shim, "%s%s%s/tests/fault/fail_io.so", h.build[0] == '/' ? "" : cwd,
             h.build[0] == '/' ? "" : "/", h.build);
    assert_int_equal(access(shim, R_OK), 0);
    snprintf(full, sizeof full, "%s/full", h.dir);
    setenv("AZOTH_FAIL_DIR", h.dir, 1);
    setenv("AZOTH_FAIL_FULL", full, 1);
    setenv("LD_PRELOAD", shim, 1);
}

/* ---- what must hold then ---- */

static int on_count(void *arg, int n, const char *const *names, const struct query_value *v)
{
    (void)names;
    *(int64_t *)arg = n == 1 && v ? v[0].integer : -1;
    return 0;
}

/* What was put aside is applied at last. */
static void no_letters(void)
{
    char dir[300];
    int64_t n = -1;
    snprintf(dir, sizeof dir, "%s/projections", h.dir);
    for (uint64_t until = clock_mono_ns() + PATIENCE; n && clock_mono_ns() < until; nap_ms(5))
        query_run(dir, "counts", "SELECT count(*) FROM azoth_dlq", on_count, &n, NULL);
    if (n)
        fail_msg("%s: %lld dead letters are left", what, (long long)n);
}

static void check_all(void)
{
    struct segment_name name;
    struct azoth *db = harness_attach(&h, 20000);
    assert_non_null(db);
    if (!harness_segment_clean(&h, 3000))
        fail_msg("%s: the segment is not clean", what);
    char *rows_wanted = crash_check(&h, db, what);
    azoth_close(db);
    no_letters();
    struct process *const all[] = {projector, feed, writer};
    for (int i = 0; i < 3; i++)
        if (harness_stop(&h, all[i]) != 0)
            fail_msg("%s: %s ended with status %d", what, all[i]->name, all[i]->status);
    crash_check_projection(&h, rows_wanted, what);
    free(rows_wanted);
    char object[100];
    assert_int_equal(segment_name_of(h.dir, &name, NULL), 0);
    snprintf(object, sizeof object, "/dev/shm%s", name.segment);
    if (access(object, F_OK) == 0)
        fail_msg("%s: the segment is left over", what);
}

/* One that nobody disturbs comes to its end, whatever was left. */
static void rebuild_once(void)
{
    harness_spawn(&h, other);
    if (harness_wait(&h, other, 40000) != 0)
        fail_msg("%s: a rebuild ended with status %d", what, other->status);
}

/* What the dead have left of pauses ends: their own within a second, held ones by their time, and the store's
 * seal by whoever sees it. Until then all answers would be refusals. */
static void pauses_end(void)
{
    struct azoth_options o = {.deadline_ms = 5000, .attach_wait_ms = 20000, .wait_paused = 1};
    struct azoth_error err;
    struct azoth *db;
    assert_int_equal(azoth_open(h.dir, &o, &db, &err), 0);
    struct azoth_txn *t = azoth_txn_new(db);
    if (azoth_unseal_held(db, 0, NULL, &err))
        fail_msg("%s: unseal: %s", what, err.message);
    azoth_set_i64(t, AZOTH_STR("paused"), -1);
    if (azoth_commit(t, NULL, &err))
        fail_msg("%s: a pause does not end: %s", what, err.message);
    azoth_txn_free(t);
    azoth_close(db);
}

/* Everybody goes on: answers come, and nobody but the victim has ended. */
static void go_on(const struct row *r, struct process *victim)
{
    struct process *const all[] = {writer, feed, projector, client[0], client[1]};
    start_all_but(NULL, 1);
    if (r->how == REBUILT)
        rebuild_once();
    if (r->how == PAUSING)
        pauses_end();
    uint64_t until = clock_mono_ns() + PATIENCE;
    long before = answers();
    while (answers() < before + 60 && clock_mono_ns() < until) {
        harness_supervise(&h);
        nap_ms(1);
    }
    if (answers() < before + 60)
        fail_msg("%s: no answers after the death of %s", what, victim->name);
    for (int i = 0; i < 5; i++)
        if (!all[i]->pid)
            fail_msg("%s: %s ended with status %d", what, all[i]->name, all[i]->status);
    put_file("enough", "");
    for (int i = 0; i < 2; i++)
        if (harness_wait(&h, client[i], 40000) != 0)
            fail_msg("%s: %s ended with status %d", what, client[i]->name, client[i]->status);
}

static unsigned later(const struct row *r)
{
    return r->most < 2 ? 1 : 2 + (unsigned)(random_next(&seed) % (r->most - 1));
}

/* A writer dies between commit and answer, its successor at the point; but a batch that was all refused
 * leaves no record to answer from: then both are killed and it is tried again. */
static void die_recovering(const struct row *r, struct process *victim, unsigned passing)
{
    for (int attempt = 0; attempt < 30; attempt++) {
        spawn_armed(victim, "writer_committed", 3);
        must_die(r, victim);
        spawn_armed(victim, point_name[r->at], passing);
        long before = answers();
        while (victim->pid && answers() < before + 20) {
            harness_supervise(&h);
            nap_ms(1);
        }
        if (!victim->pid)
            return;
        harness_kill(victim, SIGKILL);
        harness_wait(&h, victim, 5000);
    }
    fail_msg("%s: not passed", what);
}

static void survive(const struct row *r)
{
    const char *point = point_name[r->at];
    begin(r);
    struct process *victim = victim_of(r);
    int alone = r->how == ALONE || (r->how == ONCE && r->who == WRITER);
    for (int death = 0; death < 2 + (r->most < 2); death++) {
        unsigned passing = death == 0 ? 1 : later(r);
        snprintf(what, sizeof what, "%s, passing %u of life %d of %s", point, passing, death + 1,
                 victim->name);
        if (death && r->how == ONCE)
            forget(r);
        if (!alone)
            start_all_but(victim, 1);
        if (r->how == FULL)
            preload_full_disk();
        if (r->how == CONTENDED)
            setenv("AZOTH_DELAY", "stripe_seen_free", 1);
        if (r->how == RECOVERY)
            die_recovering(r, victim, passing);
        else
            spawn_armed(victim, point, passing);
        unsetenv("LD_PRELOAD");
        unsetenv("AZOTH_DELAY");
        must_die(r, victim);
        if (r->how == BULKY) {
            bulky_deaths++;
            trailed += (unsigned)crash_check_store(&h, what);
        }
    }
    go_on(r, victim);
    check_all();
    harness_end(&h);
}

/* ---- init ---- */

static int run_init(const char *dir, const char *program, const char *point)
{
    struct process *p = strcmp(program, "azoth") == 0
                            ? prepare("init", program, "init", dir, NULL)
                            : prepare("create", program, "--dir", dir, "--create");
    if (point)
        spawn_armed(p, point, 1);
    else
        harness_spawn(&h, p);
    return harness_wait(&h, p, 20000);
}

static void check_new(const char *dir)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED};
    struct azoth *db;
    struct azoth_error err;
    char path[400];
    if (azoth_open(dir, &o, &db, &err))
        fail_msg("%s: %s", what, err.message);
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, AZOTH_STR("n"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    azoth_txn_free(t);
    azoth_close(db);
    snprintf(path, sizeof path, "%s/data.mdb.new", dir);
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/projections", dir);
    assert_int_equal(access(path, W_OK), 0);
}

/* A death of `program` in the middle, several times, and then what `azoth init` says. */
static void survive_init(const struct row *r, const char *program)
{
    char dir[300];
    harness_begin(&h);
    snprintf(dir, sizeof dir, "%s/db", h.dir);
    for (int death = 0; death < (r->how == ONCE ? 1 : 3); death++) {
        snprintf(what, sizeof what, "%s of %s, death %d", point_name[r->at], program, death + 1);
        int status = run_init(dir, program, point_name[r->at]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("%s: not passed", what);
        deaths++;
    }
    int status = run_init(dir, "azoth", NULL), whole = r->how == ONCE;
    /* What is whole is said to be there already. */
    if (!WIFEXITED(status) || WEXITSTATUS(status) != whole)
        fail_msg("%s: a new init ends with status %d", what, status);
    check_new(dir);
    struct segment_name name;
    assert_int_equal(segment_name_of(dir, &name, NULL), 0);
    segment_unlink(&name);
    harness_end(&h);
}

/* ---- somebody who asks for replays ---- */

static int on_letter(void *arg, int n, const char *const *names, const struct query_value *v)
{
    (void)names;
    *(uint64_t *)arg = n == 1 && v ? (uint64_t)v[0].integer : 0;
    return 0;
}

/* The same command, until somebody has answered it. */
static void ask_until_answered(const char *run, const uint8_t id[COMMAND_ID_BYTES],
                               const char *text)
{
    char answer[COMMAND_ANSWER_MAX];
    while (control_ask(run, "counts", id, text, 1000, answer, NULL))
        nap_ms(2);
    /* Whoever is told that it failed, or was never there, was lied to: it is tried here alone. */
    if (strcmp(answer, "applied") != 0 && strcmp(answer, "not-found") != 0)
        fprintf(stderr, "%s: %s\n", text, answer);
}

/* Without end. */
static int command(const char *dir)
{
    char projections[300], run[300], text[COMMAND_TEXT_MAX];
    uint8_t id[COMMAND_ID_BYTES];
    snprintf(projections, sizeof projections, "%s/projections", dir);
    snprintf(run, sizeof run, "%s/run", dir);
    for (;;) {
        uint64_t event = 0;
        query_run(projections, "counts", "SELECT min(event) FROM azoth_dlq", on_letter, &event,
                  NULL);
        if (!event) {
            nap_ms(1);
            continue;
        }
        if (getrandom(id, sizeof id, 0) != sizeof id)
            return 1;
        snprintf(text, sizeof text, "retry %" PRIu64, event);
        ask_until_answered(run, id, text);
    }
}

/* ---- all of them ---- */

static const char *only;

/* Those of effects are test_crash_effects.c's, those of a backup's file test_crash_backupfile.c's, of backups
 * and restores test_crash_backup.c's, of increments and pruning test_crash_increment.c's, and of archiving
 * test_crash_archive.c's. */
static int is_elsewhere(const char *name)
{
    static const char *const prefix[] = {"effects_", "backupfile_", "copy_",  "backup_", "restore_",
                                         "archive_", "increment_",  "prune_", "exec_"};
    for (size_t i = 0; i < sizeof prefix / sizeof *prefix; i++)
        if (strncmp(name, prefix[i], strlen(prefix[i])) == 0)
            return 1;
    return 0;
}

static void every_point_of_the_list_is_survived_at_its_first_and_at_a_later_passing(void **state)
{
    (void)state;
    seed = harness_seed();
    for (int at = 0; at < CRASH_POINT_COUNT; at++) {
        int tried = is_elsewhere(point_name[at]);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            const struct row *r = &rows[i];
            if ((int)r->at != at)
                continue;
            tried++;
            if (only && strcmp(only, point_name[at]) != 0)
                continue;
#if defined(__SANITIZE_ADDRESS__)
            if (r->how == FULL) {
                print_message("skip - %s: its disk is a preloaded file\n", point_name[at]);
                continue;
            }
#endif
            if (r->who == INIT) {
                survive_init(r, "azoth");
                survive_init(r, "azoth-writer");
            } else {
                survive(r);
            }
        }
        if (!tried)
            fail_msg("no test kills at %s", point_name[at]);
    }
    print_message(
        "MEASURED %d crash points, %u deaths; of %u under large batches %u left a record whose "
        "chain trails\n",
        CRASH_POINT_COUNT, deaths, bulky_deaths, trailed);
    if (bulky_deaths > 2)
        assert_true(trailed > 0);
}

int main(int argc, char **argv)
{
    /* What is preloaded comes before a sanitizer's runtime, which would refuse that. */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    if (argc == 4 && strcmp(argv[1], "--load") == 0)
        return crash_load(argv[2], argv[3]);
    if (argc == 3 && strcmp(argv[1], "--pause") == 0)
        return crash_pause(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--mark") == 0)
        return crash_mark(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--crowd") == 0)
        return crash_crowd(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--command") == 0)
        return command(argv[2]);
    only = argc == 2 ? argv[1] : NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_point_of_the_list_is_survived_at_its_first_and_at_a_later_passing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
