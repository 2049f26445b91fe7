/* test_exporter.c - what the exporter makes of shared memory: every metric follows what it is named
 * after, ages are right, readiness names what is not. */
#include "client/cmd/culprits.h"
#include "core/clock.h"
#include "core/error.h"
#include "exporter/metrics.h"
#include "exporter/status.h"
#include "shm/contention.h"
#include "shm/slot.h"
#include "shm/stripe.h"
#include "tests/unit/segment_dir.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define LAPSE_MS 10000u

static char dir[64];
static struct segment_name name;
static struct segment *seg;
static struct gauges *gauges;
static struct participant *worker, *follower;
static struct place *writer_place, *feed_place;
static struct azoth_error err;
static struct look_memory memory;
static struct look look;
static struct buf text;

static int setup(void **state)
{
    (void)state;
    if (segment_begin((struct segment_plan){.slots = 32, .stripes = 256, .blocks = 80}, dir, &name,
                      &seg) ||
        gauges_create(&name, &gauges, &err) || writer_place_take(dir, "test", &writer_place, &err))
        return -1;
    memset(&memory, 0, sizeof memory);
    return participant_join(seg, dir, PARTICIPANT_WORKER, "w\"1", &worker, &err);
}

static int teardown(void **state)
{
    (void)state;
    char path[100];
    participant_leave(worker);
    participant_leave(follower);
    follower = NULL;
    place_leave(writer_place);
    place_leave(feed_place);
    feed_place = NULL;
    gauges_detach(gauges);
    buf_fini(&text);
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    unlink(path);
    return segment_end(dir, &name, seg);
}

/* ---- what a metric says ---- */

static const char *metrics(void)
{
    look_open(&look, &memory, dir, LAPSE_MS);
    buf_clear(&text);
    assert_int_equal(metrics_write(&text, &look, 5), 0);
    look_close(&look);
    assert_int_equal(buf_add(&text, "", 1), 0);
    return (const char *)text.ptr;
}

/* The value of a line that begins so; "" when there is none. */
static const char *value_in(const char *all, const char *line)
{
    static char value[64];
    size_t n = strlen(line);
    *value = 0;
    for (const char *p = all; p; p = strchr(p, '\n'), p += p != NULL)
        if (strncmp(p, line, n) == 0 && p[n] == ' ')
            snprintf(value, sizeof value, "%.*s", (int)strcspn(p + n + 1, "\n"), p + n + 1);
    return value;
}

static const char *value_of(const char *line)
{
    return value_in(metrics(), line);
}

/* To be given back. */
static json_t *status_json(void)
{
    look_open(&look, &memory, dir, LAPSE_MS);
    buf_clear(&text);
    assert_int_equal(status_write(&text, &look, &memory, dir), 0);
    look_close(&look);
    json_t *o = json_loadb((const char *)text.ptr, text.len, 0, NULL);
    assert_non_null(o);
    return o;
}

static struct projection_shm *row_p(void)
{
    int row = projection_row_claim(gauges, "p", 0, 1);
    assert_true(row >= 0);
    return &gauges->projection[row];
}

static void makes_a_row(void)
{
    atomic_store(&row_p()->state, PROJECTION_RUNNING);
    gauge_set(&row_p()->heard_ns, clock_mono_ns());
    atomic_store(&gauges->g->feed_heartbeat_ns, clock_mono_ns());
    assert_int_equal(feed_place_take(dir, "test", &feed_place, &err), 0);
}

/* ---- actions ---- */

static void writer_leaves(void)
{
    place_leave(writer_place);
    writer_place = NULL;
}
static void feed_comes(void)
{
    assert_int_equal(feed_place_take(dir, "test", &feed_place, &err), 0);
}
static void hears_writer(void)
{
    gauge_set(&gauges->g->writer_heartbeat_ns, clock_mono_ns() - 5 * NS_PER_S);
}
static void hears_feed(void)
{
    gauge_set(&gauges->g->feed_heartbeat_ns, clock_mono_ns() - 5 * NS_PER_S);
}
static void retires(void)
{
    segment_retire(seg);
}
static void runs(void)
{
    atomic_store(&seg->header->writer_state, WRITER_RUNNING);
}
static void pauses(void)
{
    uint64_t now = clock_mono_ns();
    atomic_store(&seg->pause[0].until_ns, now + 100 * NS_PER_S);
    atomic_store(&seg->pause[0].since_ns, now - 100 * NS_PER_S);
    atomic_store(&seg->pause[0].kind, PAUSE_WRITES);
    atomic_store(&seg->pause[0].word, PAUSE_FORCE | PAUSE_OWNER_HELD << 8 | 1ull << 24);
    atomic_store(&seg->header->paused, PAUSE_WRITES);
}
static void seals(void)
{
    pauses();
    atomic_store(&seg->pause[0].kind, PAUSE_SEAL);
    atomic_store(&seg->header->paused, PAUSE_SEAL);
}
static void seals_for_ever(void)
{
    seals();
    atomic_store(&seg->pause[0].until_ns, UINT64_MAX);
}
static void epoch(void)
{
    atomic_store(&seg->header->epoch, 3);
}
static void incarnation(void)
{
    seg->header->incarnation = 9;
}
static void submits(void)
{
    atomic_store(&seg->slot[3].word, slot_word(SLOT_SUBMITTED, 0, 1));
}
static void holds(void)
{
    atomic_store(&seg->stripe[1].exclusive, stripe_owner(3, 1));
    atomic_store(&seg->stripe[2].shared[0], 8);
}
static void waits(void)
{
    atomic_store(&seg->stripe[1].waits, 4);
    atomic_store(&seg->stripe[5].waits, 2);
    atomic_store(&seg->stripe[1].wait_ns, 1500000000);
    atomic_store(&seg->stripe[5].wait_ns, 1000000000);
}
static void takes_a_block(void)
{
    atomic_store(&seg->block_owner[7], 1);
}
static void works(void)
{
    struct participant_shm *p = &seg->participant[worker->index];
    gauge_set(&p->submitted, 11);
    gauge_set(&p->refused, 12);
    gauge_set(&p->lock_timeouts, 13);
    gauge_set(&p->stripe_waits, 14);
    gauge_set(&p->reaped, 15);
    gauge_set(&p->wait_ns, 16500000000);
    gauge_set(&p->held_up, 17);
    gauge_set(&p->held_up_ns, 18500000000);
}
static void refuses(void)
{
    contention_refused(seg, REFUSED_MIN);
    contention_refused(seg, REFUSED_MIN);
    contention_refused(seg, REFUSED_LOCK_TIMEOUT);
}
static void client_dies(void)
{
    struct participant *p;
    pid_t pid = fork();
    if (pid == 0)
        _exit(participant_join(seg, dir, PARTICIPANT_CLIENT, "c", &p, &err) ? 1 : 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}
static void disk_fills(void)
{
    for (uint64_t i = 0; i < 100; i++) /* a byte a second: 1000 s are left */
        history_add(&memory.free_bytes, (i + 1) * NS_PER_S, 1100 - i - 1);
}
/* Its helper looked so long ago, and has watched for so long before. */
static void watches(uint64_t ago_s, uint64_t watched_s)
{
    uint64_t looked = clock_mono_ns() - ago_s * NS_PER_S;
    gauge_set(&gauges->g->disk_free_bytes, 5000);
    gauge_set(&gauges->g->disk_total_bytes, 9000);
    gauge_set(&gauges->g->disk_fill_bytes_day, 2 * 86400);
    gauge_set(&gauges->g->disk_watched_ns, looked - watched_s * NS_PER_S);
    gauge_set(&gauges->g->looked_ns, looked);
}
static void writer_sees_it_fill(void)
{
    disk_fills();
    watches(0, 300);
}
static void writer_sees_it_stand(void)
{
    disk_fills();
    watches(0, 300);
    gauge_set(&gauges->g->disk_fill_bytes_day, 0);
}
static void writer_sees_it_full(void)
{
    writer_sees_it_stand();
    gauge_set(&gauges->g->disk_free_bytes, 0);
}
static void writer_sees_it_fill_for_a_moment(void)
{
    disk_fills();
    watches(0, 299);
}
static void writer_saw_it_fill(void)
{
    disk_fills();
    watches(6, 300);
}
static void some_read_on(void)
{
    uint64_t now = clock_mono_ns();
    const struct {
        uint64_t pid, behind, age_s;
    } pins[] = {{(uint64_t)getpid(), 40, 20}, {1u << 30, 30, 50}};
    for (int i = 0; i < 2; i++) {
        struct pin_shm *p = &gauges->g->pin[i];
        gauge_set(&p->behind, pins[i].behind);
        gauge_set(&p->since_ns, now - pins[i].age_s * NS_PER_S);
        gauge_set(&p->pid, pins[i].pid);
    }
    gauge_set(&gauges->g->looked_ns, now);
}
static void others_read_on(void)
{
    uint64_t now = clock_mono_ns();
    const struct pinned store[] = {{.pid = 7,
                                    .behind = 40,
                                    .since_ns = now - 20 * NS_PER_S,
                                    .program = "r\"d",
                                    .unit = "u.service"},
                                   {.pid = 7,
                                    .place = 1,
                                    .behind = 30,
                                    .since_ns = now - 50 * NS_PER_S,
                                    .program = "r\"d",
                                    .unit = "u.service"},
                                   {.pid = 1u << 30, .behind = 20, .since_ns = now}};
    const struct pinned file[] = {{.pid = 9,
                                   .behind = 60,
                                   .since_ns = now - 70 * NS_PER_S,
                                   .program = "sqlite3",
                                   .stem = "p"},
                                  {.pid = 9,
                                   .behind = 50,
                                   .since_ns = now - 30 * NS_PER_S,
                                   .program = "sqlite3",
                                   .stem = "p.1of4"}};
    pins_write(gauges->g->pin, store, 3);
    pins_write(gauges->g->file_pin, file, 2);
    gauge_set(&gauges->g->looked_ns, now);
    gauge_set(&gauges->g->files_looked_ns, now);
}
static void others_read_on_a_while_ago(void)
{
    others_read_on();
    gauge_set(&gauges->g->looked_ns, clock_mono_ns() - 6 * NS_PER_S);
    gauge_set(&gauges->g->files_looked_ns, clock_mono_ns() - 6 * NS_PER_S);
}
static void reader_holds_the_wal(void)
{
    makes_a_row();
    gauge_set(&row_p()->wal_bytes, 4096);
    gauge_set(&row_p()->wal_pinned_ns, clock_mono_ns() - 60 * NS_PER_S);
}
static void has_no_wal(void)
{
    makes_a_row();
    gauge_set(&row_p()->wal_bytes, UINT64_MAX);
}
/* One that is followed, and behind; one where a first backup is being made; one whose redo was given up. */
static void places_lag(void)
{
    const int64_t then = clock_wall_ns() - 100 * (int64_t)NS_PER_S;
    const struct mark_told told[] = {
        {{{7}, 5, 40, then, 0, 1, 1}, 1700000000 * (int64_t)NS_PER_S},
        {{{8}, 8, 50, then, 0, 0, 0}, 0},
        {{{9}, 1, 10, then, 1, 1, 0}, 1600000000 * (int64_t)NS_PER_S},
    };
    marks_write(gauges->g, told, 3);
    gauge_set(&gauges->g->head_event, 50);
    gauge_set(&gauges->g->head_txn, 8);
}
/* As shown by a writer that died at it. */
static void places_change(void)
{
    places_lag();
    atomic_fetch_sub(&gauges->g->marks_seq, 1);
}
static void places_change_and_are_written(void)
{
    places_change();
    places_lag();
}
static void places_are_seen(void)
{
    history_add(&memory.head_txn, clock_mono_ns() - 20 * NS_PER_S, 5);
    places_lag();
}
static void somebody_follows(void)
{
    places_lag();
    assert_int_equal(participant_join(seg, dir, PARTICIPANT_TOOL, MARK_FOLLOWER "0700000000000000",
                                      &follower, &err),
                     0);
}
static void nobody_reads_on(void)
{
    gauge_set(&gauges->g->looked_ns, clock_mono_ns());
}
static void some_read_on_a_while_ago(void)
{
    some_read_on();
    gauge_set(&gauges->g->looked_ns, clock_mono_ns() - 6 * NS_PER_S);
}
static void store_grows(void)
{
    char path[100];
    static const char page[8192] = "x";
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, page, sizeof page), sizeof page);
    assert_int_equal(fsync(fd), 0);
    close(fd);
}
static void one_behind(void)
{
    makes_a_row();
    struct projection_shm *p = row_p();
    uint64_t now = clock_mono_ns();
    gauge_set(&gauges->g->head_event, 107);
    gauge_set(&p->cursor, 100);
    gauge_set(&p->at_head_ns, now - 30 * NS_PER_S);
    gauge_set(&p->progress_ns, now - 20 * NS_PER_S);
    gauge_set(&p->heard_ns, now - 3 * NS_PER_S);
    gauge_set(&p->errors, 4);
    gauge_set(&p->events_sent, 5);
    gauge_set(&p->bytes_sent, 6);
    gauge_set(&p->rate_ns, now - 10 * NS_PER_S);
    gauge_set(&p->rate_cursor, 20);
    gauge_set(&p->apply_ns, 8000000);
    gauge_set(&p->lag_ns, 9000000);
    gauge_set(&p->failed_ns, now - 40 * NS_PER_S);
    gauge_set(&p->stands_event, 101);
    gauge_set(&p->dead_waiting, 1);
    gauge_set(&p->dead_retired, 2);
    gauge_set(&p->dead_parked, 3);
    atomic_store(&p->breaker, 2);
    atomic_store(&p->state, PROJECTION_OPEN);
}
static void has_neither_pace_nor_error(void)
{
    makes_a_row();
    gauge_set(&row_p()->rate_ns, clock_mono_ns() - 10 * NS_PER_S);
    gauge_set(&row_p()->rate_cursor, 1); /* it was further: its cursor went back */
}
static void breaker_is_half_open(void)
{
    makes_a_row();
    atomic_store(&row_p()->breaker, 3);
}
static void commits(void)
{
    histogram_add(&gauges->g->commit_ns, 1000000);
    histogram_add(&gauges->g->queue_ns, 2000000);
    histogram_add(&gauges->g->batch_size, 3);
    histogram_add(&gauges->g->preflight_ns, 3000000);
    histogram_add(&gauges->g->apply_ns, 4000000);
    histogram_add(&gauges->g->lag_ns, 100 * NS_PER_S);
}

/* What each line says before and after the action, or after the field of the gauges was set. */
#define PLACE(digits)     "{place=\"" digits "000000000000000000000000000000\"}"
#define IN(digits, state) "{place=\"" digits "000000000000000000000000000000\",state=\"" state "\"}"
static const struct effect {
    const char *line, *before, *after; /* "N~": from N, and as much more as a busy machine takes */
    void (*act)(void);
    size_t field; /* of gauges_shm, when there is no act */
    uint64_t value;
} effects[] = {
#define FIELD(line, field, value, after)                                                           \
    {                                                                                              \
        line, "0", after, NULL, offsetof(struct gauges_shm, field), value                          \
    }
#define P     "{projection=\"p\",shard=\"0\",shards=\"1\"}"
#define PIN_7 "{pid=\"7\",program=\"r\\\"d\",unit=\"u.service\"}"
#define PIN_9(shard, shards)                                                                       \
    "{projection=\"p\",shard=\"" shard "\",shards=\"" shards                                       \
    "\",pid=\"9\",program=\"sqlite3\",unit=\"\"}"
#define W "{kind=\"worker\",name=\"w\\\"1\",row=\"0\"}"
    FIELD("azoth_commits_total", commits, 7, "7"),
    FIELD("azoth_transactions_total", transactions, 7, "7"),
    FIELD("azoth_events_total", events, 1ull << 50, "1125899906842624"),
    FIELD("azoth_transactions_rejected_total", rejected, 7, "7"),
    FIELD("azoth_transactions_duplicate_total", duplicates, 7, "7"),
    FIELD("azoth_commit_failures_total", commit_failures, 7, "7"),
    FIELD("azoth_transactions_recovered_total", recovered, 7, "7"),
    FIELD("azoth_commit_bytes_total", bytes, 7, "7"),
    FIELD("azoth_head_event", head_event, 7, "7"),
    FIELD("azoth_head_transaction", head_txn, 7, "7"),
    FIELD("azoth_clock_held", clock_held, 1, "1"),
    FIELD("azoth_feed_batches_total", feed_batches, 7, "7"),
    FIELD("azoth_feed_events_total", feed_events, 7, "7"),
    FIELD("azoth_feed_bytes_total", feed_bytes, 7, "7"),
    FIELD("azoth_feed_broken_connections_total", feed_broken_connections, 7, "7"),
    FIELD("azoth_readers_cleared_total", readers_cleared, 7, "7"),
    FIELD("azoth_participants_reaped_total", participants_reaped, 7, "7"),
    FIELD("azoth_disk_reserve_bytes", reserve_bytes, 7, "7"),
    FIELD("azoth_writer_start_time_seconds", writer_started_ns, 1700000000500000000,
          "1700000000.5"),
    FIELD("azoth_head_timestamp_seconds", head_time_ns, 1700000000500000000, "1700000000.5"),
    FIELD("azoth_disk_full", disk_full_ns, 7, "1"),
    {"azoth_up", "1", "0", writer_leaves, 0, 0},
    {"azoth_up", "1", "0", retires, 0, 0},
    {"azoth_feed_up", "0", "1", feed_comes, 0, 0},
    {"azoth_writer_heartbeat_age_seconds", "NaN", "5~", hears_writer, 0, 0},
    {"azoth_feed_heartbeat_age_seconds", "NaN", "5~", hears_feed, 0, 0},
    {"azoth_writer_epoch", "0", "3", epoch, 0, 0},
    {"azoth_segment_incarnation", "1", "9", incarnation, 0, 0},
    {"azoth_segment_retired", "0", "1", retires, 0, 0},
    {"azoth_writer_state{state=\"running\"}", "0", "1", runs, 0, 0},
    {"azoth_writer_state{state=\"absent\"}", "1", "0", runs, 0, 0},
    {"azoth_paused", "0", "1", pauses, 0, 0},
    {"azoth_paused", "0", "1", seals, 0, 0},
    {"azoth_sealed", "0", "1", seals, 0, 0},
    {"azoth_pause_remaining_seconds", "0", "90~", pauses, 0, 0},
    {"azoth_pause_remaining_seconds", "0", "+Inf", seals_for_ever, 0, 0},
    {"azoth_pause_age_seconds", "0", "100~", pauses, 0, 0},
    {"azoth_queue_depth", "0", "1", submits, 0, 0},
    {"azoth_slots{state=\"submitted\"}", "0", "1", submits, 0, 0},
    {"azoth_slots{state=\"free\"}", "32", "31", submits, 0, 0},
    {"azoth_stripes", "256", "256", holds, 0, 0},
    {"azoth_stripes_held{mode=\"exclusive\"}", "0", "1", holds, 0, 0},
    {"azoth_stripes_held{mode=\"shared\"}", "0", "1", holds, 0, 0},
    {"azoth_stripe_waits_total", "0", "6", waits, 0, 0},
    {"azoth_stripe_wait_seconds_total", "0", "2.5", waits, 0, 0},
    {"azoth_hot_stripe_waits_total{stripe=\"1\"}", "", "4", waits, 0, 0},
    {"azoth_hot_stripe_wait_seconds_total{stripe=\"1\"}", "", "1.5", waits, 0, 0},
    {"azoth_hot_stripe_waits_total{stripe=\"5\"}", "", "2", waits, 0, 0},
    {"azoth_hot_stripe_waits_total{stripe=\"0\"}", "", "", waits, 0, 0},
    {"azoth_refusals_total{reason=\"min\"}", "0", "2", refuses, 0, 0},
    {"azoth_refusals_total{reason=\"lock-timeout\"}", "0", "1", refuses, 0, 0},
    {"azoth_refusals_total{reason=\"max\"}", "0", "0", refuses, 0, 0},
    {"azoth_blocks", "80", "80", takes_a_block, 0, 0},
    {"azoth_blocks_used", "0", "1", takes_a_block, 0, 0},
    {"azoth_participants{kind=\"worker\"}", "1", "1", client_dies, 0, 0},
    {"azoth_participants{kind=\"client\"}", "0", "1", client_dies, 0, 0},
    {"azoth_participants_dead", "0", "1", client_dies, 0, 0},
    {"azoth_process_submitted_total" W, "0", "11", works, 0, 0},
    {"azoth_process_refused_total" W, "0", "12", works, 0, 0},
    {"azoth_process_lock_timeouts_total" W, "0", "13", works, 0, 0},
    {"azoth_process_stripe_waits_total" W, "0", "14", works, 0, 0},
    {"azoth_process_stripe_wait_seconds_total" W, "0", "16.5", works, 0, 0},
    {"azoth_process_held_up_total" W, "0", "17", works, 0, 0},
    {"azoth_process_held_up_seconds_total" W, "0", "18.5", works, 0, 0},
    {"azoth_process_reaped_total" W, "0", "15", works, 0, 0},
    {"azoth_disk_full_in_seconds", "NaN", "1000", disk_fills, 0, 0},
    {"azoth_disk_full_in_seconds", "NaN", "2500", writer_sees_it_fill, 0, 0},
    {"azoth_disk_full_in_seconds", "NaN", "+Inf", writer_sees_it_stand, 0, 0},
    {"azoth_disk_full_in_seconds", "NaN", "0", writer_sees_it_full, 0, 0},
    {"azoth_disk_full_in_seconds", "NaN", "1000", writer_sees_it_fill_for_a_moment, 0, 0},
    {"azoth_disk_full_in_seconds", "NaN", "1000", writer_saw_it_fill, 0, 0},
    {"azoth_disk_fill_bytes_per_second", "NaN", "2", writer_sees_it_fill, 0, 0},
    {"azoth_disk_fill_bytes_per_second", "NaN", "0", writer_sees_it_stand, 0, 0},
    {"azoth_disk_fill_bytes_per_second", "NaN", "NaN", writer_saw_it_fill, 0, 0},
    {"azoth_pins", "NaN", "2", some_read_on, 0, 0},
    {"azoth_pins", "NaN", "0", nobody_reads_on, 0, 0},
    {"azoth_pins", "NaN", "NaN", some_read_on_a_while_ago, 0, 0},
    {"azoth_pin_oldest_age_seconds", "NaN", "50~", some_read_on, 0, 0},
    {"azoth_pin_oldest_age_seconds", "NaN", "0", nobody_reads_on, 0, 0},
    {"azoth_pin_oldest_age_seconds", "NaN", "NaN", some_read_on_a_while_ago, 0, 0},
    {"azoth_pin_oldest_commits", "NaN", "40", some_read_on, 0, 0},
    {"azoth_pin_oldest_commits", "NaN", "0", nobody_reads_on, 0, 0},
    {"azoth_pin_oldest_commits", "NaN", "NaN", some_read_on_a_while_ago, 0, 0},
    {"azoth_pinned_snapshot_age_seconds" PIN_7, "", "20~", others_read_on, 0, 0},
    {"azoth_pinned_snapshot_commits" PIN_7, "", "40", others_read_on, 0, 0},
    {"azoth_pinned_snapshot_commits" PIN_7, "", "", others_read_on_a_while_ago, 0, 0},
    /* It has only just begun. */
    {"azoth_pinned_snapshot_commits{pid=\"1073741824\",program=\"\",unit=\"\"}", "", "",
     others_read_on, 0, 0},
    {"azoth_projection_wal_reader_age_seconds" PIN_9("0", "1"), "", "70~", others_read_on, 0, 0},
    {"azoth_projection_wal_reader_frames" PIN_9("0", "1"), "", "60", others_read_on, 0, 0},
    {"azoth_projection_wal_reader_frames" PIN_9("1", "4"), "", "50", others_read_on, 0, 0},
    {"azoth_projection_wal_reader_frames" PIN_9("0", "1"), "", "", others_read_on_a_while_ago, 0,
     0},
    {"azoth_projection_wal_bytes" P, "", "4096", reader_holds_the_wal, 0, 0},
    {"azoth_projection_wal_bytes" P, "", "NaN", has_no_wal, 0, 0},
    {"azoth_projection_wal_pinned_seconds" P, "", "60~", reader_holds_the_wal, 0, 0},
    {"azoth_projection_wal_pinned_seconds" P, "", "0", has_no_wal, 0, 0},
    {"azoth_backup_lag_events" PLACE("07"), "", "10", places_lag, 0, 0},
    {"azoth_backup_lag_events" PLACE("08"), "", "0", places_lag, 0, 0},
    {"azoth_backup_lag_events" PLACE("07"), "", "", places_change, 0, 0},
    {"azoth_backup_lag_events" PLACE("07"), "", "10", places_change_and_are_written, 0, 0},
    {"azoth_backup_lag_seconds" PLACE("07"), "", "100~", places_lag, 0, 0},
    {"azoth_backup_lag_seconds" PLACE("07"), "", "20~", places_are_seen, 0, 0},
    {"azoth_backup_lag_seconds" PLACE("08"), "", "0", places_lag, 0, 0},
    {"azoth_backup_last_success_timestamp_seconds" PLACE("07"), "", "1700000000", places_lag, 0, 0},
    {"azoth_backup_last_success_timestamp_seconds" PLACE("08"), "", "NaN", places_lag, 0, 0},
    {"azoth_backup_followed" PLACE("07"), "", "1", places_lag, 0, 0},
    {"azoth_backup_followed" PLACE("08"), "", "0", places_lag, 0, 0},
    {"azoth_backup_state" IN("07", "silent"), "", "1", places_lag, 0, 0},
    {"azoth_backup_state" IN("07", "silent"), "", "0", somebody_follows, 0, 0},
    {"azoth_backup_state" IN("07", "following"), "", "1", somebody_follows, 0, 0},
    {"azoth_backup_state" IN("08", "kept"), "", "1", somebody_follows, 0, 0},
    {"azoth_backup_state" IN("09", "broken"), "", "1", places_lag, 0, 0},
    {"azoth_store_size_bytes", "0", "8192", store_grows, 0, 0},
    {"azoth_projection_lag_events" P, "", "7", one_behind, 0, 0},
    {"azoth_projection_lag_seconds" P, "", "30~", one_behind, 0, 0},
    {"azoth_projection_progress_age_seconds" P, "", "20~", one_behind, 0, 0},
    {"azoth_projection_heard_age_seconds" P, "", "3~", one_behind, 0, 0},
    {"azoth_projection_cursor" P, "", "100", one_behind, 0, 0},
    {"azoth_projection_errors_total" P, "", "4", one_behind, 0, 0},
    {"azoth_projection_sent_events_total" P, "", "5", one_behind, 0, 0},
    {"azoth_projection_sent_bytes_total" P, "", "6", one_behind, 0, 0},
    {"azoth_projection_stands_at_event" P, "", "101", one_behind, 0, 0},
    {"azoth_projection_applied_events_per_second" P, "", "7~", one_behind, 0, 0}, /* 80 in 10 s */
    {"azoth_projection_applied_events_per_second" P, "", "NaN", has_neither_pace_nor_error, 0, 0},
    {"azoth_projection_batch_duration_seconds" P, "", "0.008", one_behind, 0, 0},
    {"azoth_projection_batch_duration_seconds" P, "", "NaN", has_neither_pace_nor_error, 0, 0},
    {"azoth_projection_batch_lag_seconds" P, "", "0.009", one_behind, 0, 0},
    {"azoth_projection_batch_lag_seconds" P, "", "NaN", has_neither_pace_nor_error, 0, 0},
    {"azoth_projection_error_age_seconds" P, "", "40~", one_behind, 0, 0},
    {"azoth_projection_error_age_seconds" P, "", "NaN", has_neither_pace_nor_error, 0, 0},
    {"azoth_projection_breaker_open" P, "", "1", one_behind, 0, 0},
    {"azoth_projection_breaker_open" P, "", "0", breaker_is_half_open, 0, 0},
    {"azoth_projection_dead_letters{projection=\"p\",shard=\"0\",shards=\"1\",state=\"retired\"}",
     "", "2", one_behind, 0, 0},
    {"azoth_projection_state{projection=\"p\",shard=\"0\",shards=\"1\",state=\"open\"}", "", "1",
     one_behind, 0, 0},
    {"azoth_projection_state{projection=\"p\",shard=\"0\",shards=\"1\",state=\"idle\"}", "", "0",
     one_behind, 0, 0},
    {"azoth_commit_duration_seconds_count", "0", "1", commits, 0, 0},
    {"azoth_commit_duration_seconds_sum", "0", "0.001", commits, 0, 0},
    {"azoth_commit_duration_seconds_bucket{le=\"0.000786431\"}", "0", "0", commits, 0, 0},
    {"azoth_commit_duration_seconds_bucket{le=\"0.001048575\"}", "0", "1", commits, 0, 0},
    {"azoth_commit_duration_seconds_bucket{le=\"+Inf\"}", "0", "1", commits, 0, 0},
    {"azoth_queue_duration_seconds_sum", "0", "0.002", commits, 0, 0},
    {"azoth_preflight_duration_seconds_sum", "0", "0.003", commits, 0, 0},
    {"azoth_apply_duration_seconds_sum", "0", "0.004", commits, 0, 0},
    {"azoth_apply_lag_seconds_sum", "0", "100", commits, 0, 0},
    {"azoth_apply_lag_seconds_bucket{le=\"68.719476735\"}", "0", "0", commits, 0, 0},
    {"azoth_apply_lag_seconds_bucket{le=\"103.079215103\"}", "0", "1", commits, 0, 0},
    {"azoth_commit_transactions_bucket{le=\"1\"}", "0", "0", commits, 0, 0},
    {"azoth_commit_transactions_bucket{le=\"3\"}", "0", "1", commits, 0, 0},
};
/* Those that other tests see. */
static const char *const others[] = {"azoth_build_info", "azoth_disk_free_bytes",
                                     "azoth_disk_size_bytes", "azoth_exporter_requests_total"};

static int as_wanted(const char *got, const char *want)
{
    if (!strchr(want, '~'))
        return strcmp(got, want) == 0;
    double least = strtod(want, NULL), n = strtod(got, NULL);
    return *got && n >= least && n < least + 10;
}

static void every_metric_follows_what_it_is_named_after(void **state)
{
    for (size_t i = 0; i < sizeof effects / sizeof *effects; i++) {
        const struct effect *e = &effects[i];
        const char *got = value_of(e->line);
        if (!as_wanted(got, e->before))
            fail_msg("%s says '%s' before, not '%s'", e->line, got, e->before);
        if (e->act)
            e->act();
        else
            gauge_set((A64 *)((char *)gauges->g + e->field), e->value);
        got = value_of(e->line);
        if (!as_wanted(got, e->after))
            fail_msg("%s says '%s' after, not '%s'", e->line, got, e->after);
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

static int in_table(const char *family, size_t n)
{
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strlen(others[i]) == n && strncmp(others[i], family, n) == 0)
            return 1;
    for (size_t i = 0; i < sizeof effects / sizeof *effects; i++) {
        const char *line = effects[i].line;
        static const char *const ends[] = {"{", "", "_bucket", "_sum", "_count"};
        for (size_t k = 0; k < 5; k++)
            if (strncmp(line, family, n) == 0 && strncmp(line + n, ends[k], strlen(ends[k])) == 0 &&
                (*ends[k] || !line[n]))
                return 1;
    }
    return 0;
}

static void no_metric_is_without_a_test(void **state)
{
    (void)state;
    int families = 0;
    one_behind();
    waits();
    others_read_on();
    places_lag();
    for (const char *p = metrics(); (p = strstr(p, "# TYPE ")); families++) {
        p += strlen("# TYPE ");
        if (!in_table(p, strcspn(p, " ")))
            fail_msg("nothing tests %.*s", (int)strcspn(p, " "), p);
    }
    assert_true(families > 50);
}

static void free_bytes_are_those_of_the_file_system(void **state)
{
    (void)state;
    struct statvfs st;
    char size[32];
    assert_int_equal(statvfs(dir, &st), 0);
    snprintf(size, sizeof size, "%llu", (unsigned long long)st.f_blocks * st.f_frsize);
    assert_string_equal(value_of("azoth_disk_size_bytes"), size);
    double told = strtod(value_of("azoth_disk_free_bytes"), NULL);
    /* Others write meanwhile. */
    assert_true(fabs(told - (double)st.f_bavail * (double)st.f_frsize) < 4e9);
    watches(0, 0);
    assert_string_equal(value_of("azoth_disk_free_bytes"), "5000");
    assert_string_equal(value_of("azoth_disk_size_bytes"), "9000");
    watches(6, 0); /* what a writer saw that has gone is old */
    assert_string_equal(value_of("azoth_disk_size_bytes"), size);
    assert_string_equal(value_of("azoth_exporter_requests_total"), "5");
    assert_string_equal(value_of("azoth_build_info{version=\"" AZOTH_VERSION "\"}"), "1");
}

/* ---- without a writer, without anything ---- */

static void what_is_not_there_is_left_out(void **state)
{
    (void)state;
    segment_unlink(&name);
    const char *all = metrics();
    assert_string_equal(value_in(all, "azoth_up"), "0");
    assert_null(strstr(all, "azoth_commits_total"));
    assert_null(strstr(all, "azoth_queue_depth"));
    assert_non_null(strstr(all, "azoth_disk_free_bytes"));
    look_open(&look, &memory, "/tmp/there/is/no/such", LAPSE_MS);
    buf_clear(&text);
    assert_int_equal(metrics_write(&text, &look, 0), 0);
    look_close(&look);
    assert_int_equal(buf_add(&text, "", 1), 0);
    assert_null(strstr((const char *)text.ptr, "azoth_disk_free_bytes"));
    assert_string_equal(value_in((const char *)text.ptr, "azoth_up"), "0");
}

/* ---- projections ---- */

#define NONE 0
#define LAG  "azoth_projection_lag_seconds" P

static void an_age_is_the_least_that_is_known(void **state)
{
    /* seconds ago: the feed saw it at the head; this process saw the head at its cursor; the newest
     * event was committed. NONE: never. */
    static const struct {
        uint64_t behind, feed, own, committed;
        const char *age;
    } cases[] = {
        {0, 50, NONE, 40, "0"},    {5, 30, NONE, 2, "30~"}, {5, 30, 4, 2, "4~"},
        {5, 3, 20, 2, "3~"},       {1, 30, NONE, 2, "2~"},  {1, NONE, NONE, 2, "2~"},
        {5, NONE, NONE, 2, "NaN"}, {5, NONE, 12, 2, "12~"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t now = clock_mono_ns();
        makes_a_row();
        gauge_set(&gauges->g->head_event, 100);
        gauge_set(&row_p()->cursor, 100 - cases[i].behind);
        gauge_set(&row_p()->at_head_ns, cases[i].feed ? now - cases[i].feed * NS_PER_S : 0);
        gauge_set(&gauges->g->head_time_ns,
                  (uint64_t)clock_wall_ns() - cases[i].committed * NS_PER_S);
        if (cases[i].own) {
            history_add(&memory.head, now - cases[i].own * NS_PER_S, 100 - cases[i].behind);
            history_add(&memory.head, now - NS_PER_S, 100);
        }
        const char *got = value_of(LAG);
        if (!as_wanted(got, cases[i].age))
            fail_msg("case %zu: %s, not %s", i, got, cases[i].age);
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

static const char *state_told(void)
{
    static char told[32];
    *told = 0;
    const char *all = metrics();
    for (const char *p = all; (p = strstr(p, "azoth_projection_state{")); p++) {
        const char *at = strstr(p, "state=\"");
        if (at && strstr(at, "\"} 1\n") == at + strlen("state=\"") + strcspn(at + 7, "\""))
            snprintf(told, sizeof told, "%.*s", (int)strcspn(at + 7, "\""), at + 7);
    }
    return told;
}

static void a_state_is_corrected_by_who_lives(void **state)
{
    (void)state;
    makes_a_row();
    assert_string_equal(state_told(), "running");
    gauge_set(&row_p()->cursor, 1);
    assert_string_equal(state_told(), "diverged");
    /* The feed has seen a commit that the writer did not live to tell of. */
    gauge_set(&row_p()->head_seen, 1);
    assert_string_equal(state_told(), "running");
    gauge_set(&row_p()->cursor, 0);
    gauge_set(&row_p()->heard_ns, clock_mono_ns() - 11 * NS_PER_S);
    assert_string_equal(state_told(), "silent");
    gauge_set(&row_p()->heard_ns, clock_mono_ns());
    place_leave(feed_place);
    feed_place = NULL;
    assert_string_equal(state_told(), "silent");
    atomic_store(&row_p()->state, PROJECTION_FAILED);
    assert_string_equal(state_told(), "failed");
}

static void the_page_is_told_pace_and_error_and_newest_batch_of_a_projection(void **state)
{
    (void)state;
    has_neither_pace_nor_error();
    json_t *o = status_json(), *p = json_array_get(json_object_get(o, "projections"), 0);
    static const char *const unknown[] = {"rate_s", "error_age_s", "batch_s", "batch_lag_s"};
    for (int i = 0; i < 4; i++)
        assert_true(json_is_null(json_object_get(p, unknown[i])));
    json_decref(o);
    place_leave(feed_place); /* it is taken again */
    one_behind();
    o = status_json();
    p = json_array_get(json_object_get(o, "projections"), 0);
    double rate = json_real_value(json_object_get(p, "rate_s"));
    assert_true(rate > 2 && rate <= 8);
    assert_true(json_real_value(json_object_get(p, "error_age_s")) >= 40);
    assert_true(json_real_value(json_object_get(p, "batch_s")) == 0.008);
    assert_true(json_real_value(json_object_get(p, "batch_lag_s")) == 0.009);
    json_decref(o);
}

static void rows_of_a_split_that_was_replaced_are_left_out(void **state)
{
    (void)state;
    makes_a_row();
    gauge_set(&row_p()->heard_ns, clock_mono_ns() - 20 * NS_PER_S);
    for (uint32_t i = 0; i < 2; i++) {
        struct projection_shm *p = &gauges->projection[projection_row_claim(gauges, "p", i, 2)];
        gauge_set(&p->heard_ns, clock_mono_ns());
        atomic_store(&p->state, PROJECTION_RUNNING);
    }
    assert_string_equal(value_of("azoth_projection_cursor" P), "");
    assert_string_equal(
        value_of("azoth_projection_cursor{projection=\"p\",shard=\"1\",shards=\"2\"}"), "0");
}

static void a_shard_that_nobody_runs_is_told_of_by_the_others(void **state)
{
    (void)state;
    static const char third[] = "{projection=\"p\",shard=\"2\",shards=\"3\"";
    char line[120];
    gauge_set(&gauges->g->head_event, 9);
    for (uint32_t i = 0; i < 2; i++) {
        struct projection_shm *p = &gauges->projection[projection_row_claim(gauges, "p", i, 3)];
        gauge_set(&p->heard_ns, clock_mono_ns());
        gauge_set(&p->cursor, 9);
        atomic_store(&p->state, PROJECTION_IDLE);
    }
    feed_comes();
    recent_note(&memory.recent, gauges, clock_mono_ns());
    snprintf(line, sizeof line, "azoth_projection_state%s,state=\"silent\"}", third);
    assert_string_equal(value_of(line), "1");
    snprintf(line, sizeof line, "azoth_projection_lag_events%s}", third);
    assert_string_equal(value_of(line), "");
    json_t *o = status_json(), *told = json_object_get(o, "projections");
    assert_int_equal(json_array_size(told), 3);
    assert_true(json_is_null(json_object_get(json_array_get(told, 2), "cursor")));
    json_t *lag = json_object_get(json_object_get(o, "recent"), "lag_events");
    assert_true(json_is_integer(json_array_get(json_array_get(lag, 1), 0)));
    assert_true(json_is_null(json_array_get(json_array_get(lag, 2), 0)));
    json_decref(o);
}

static void texts_of_others_are_escaped_and_never_there_twice(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct projection_shm *p = &gauges->projection[i];
        strcpy(p->name, "a\"b\\c\nd\xff\x01");
        atomic_store(&p->shards, 1);
        strcpy(p->error, "<script>\xff\"");
        atomic_store(&p->used, 1);
    }
    const char *line = "azoth_projection_cursor{projection=\"a\\\"b\\\\c\\nd??\",shard=\"0\","
                       "shards=\"1\"} 0\n";
    const char *first = strstr(metrics(), line);
    assert_non_null(first);
    assert_null(strstr(first + 1, line));
    json_t *o = status_json();
    json_t *projections = json_object_get(o, "projections");
    assert_int_equal(json_array_size(projections), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(projections, 0), "error")),
                        "<script>?\"");
    json_decref(o);
}

/* ---- contention ---- */

static void the_ten_stripes_waited_for_most_are_told_most_first(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 30; i++) /* 0, 7, 14, 21, 28, 5, ... */
        atomic_store(&seg->stripe[i * 7 % 30].waits, i + 1);
    json_t *o = status_json(), *stripes = json_object_get(o, "stripes");
    assert_int_equal(json_array_size(stripes), 10);
    for (uint32_t i = 0; i < 10; i++) {
        json_t *s = json_array_get(stripes, i);
        assert_int_equal(json_integer_value(json_object_get(s, "waits")), 30 - i);
        assert_int_equal(json_integer_value(json_object_get(s, "stripe")), (29 - i) * 7 % 30);
        assert_true(json_is_null(json_object_get(s, "key")));
    }
    json_decref(o);
    int series = 0;
    for (const char *p = metrics(); (p = strstr(p, "\nazoth_hot_stripe_waits_total{")); p++)
        series++;
    assert_int_equal(series, 10);
}

static void a_key_that_was_waited_for_is_told_with_its_holder(void **state)
{
    (void)state;
    static const struct azoth_bytes key = {"acc:\"\xff<b>", 9};
    uint32_t stripe = stripe_of_key(seg, key);
    struct stripe_wait w = {0};
    atomic_store(&seg->slot[3].word, slot_word(SLOT_PREFLIGHT, worker->index, 1));
    atomic_store(&seg->stripe[stripe].exclusive, stripe_owner(3, 1));
    contention_look(seg, &w, worker->index, stripe, NS_PER_S);
    contention_sample(seg, stripe, key);
    contention_end(seg, &w, worker->index, stripe, 3 * NS_PER_S);
    json_t *o = status_json(), *s = json_array_get(json_object_get(o, "stripes"), 0);
    assert_string_equal(json_string_value(json_object_get(s, "key")), "acc:\"\\xff<b>");
    assert_string_equal(json_string_value(json_object_get(s, "holder")), "worker w\"1");
    assert_int_equal(json_integer_value(json_object_get(s, "waits")), 1);
    assert_true(json_real_value(json_object_get(s, "wait_s")) == 2);
    json_t *p = json_array_get(json_object_get(o, "processes"), 0);
    assert_int_equal(json_integer_value(json_object_get(p, "held_up")), 1);
    assert_true(json_real_value(json_object_get(p, "held_up_s")) == 2);
    assert_true(json_real_value(json_object_get(p, "wait_s")) == 2);
    json_decref(o);
    /* The user's data is no label. */
    assert_null(strstr(metrics(), "acc:"));
}

static void who_holds_a_snapshot_is_told_by_its_pid_and_program(void **state)
{
    (void)state;
    json_t *o = status_json();
    assert_true(json_is_null(json_object_get(o, "pins"))); /* nobody has looked */
    json_decref(o);
    some_read_on();
    assert_int_equal(prctl(PR_SET_NAME, "a\033[2J\xc4\x8d"), 0);
    o = status_json();
    prctl(PR_SET_NAME, "test_exporter");
    json_t *pins = json_object_get(o, "pins"), *p = json_array_get(pins, 0);
    assert_int_equal(json_array_size(pins), 2);
    assert_int_equal(json_integer_value(json_object_get(p, "pid")), getpid());
    assert_string_equal(json_string_value(json_object_get(p, "program")), "a?[2J\xc4\x8d");
    assert_int_equal(json_integer_value(json_object_get(p, "commits_behind")), 40);
    assert_true(json_real_value(json_object_get(p, "age_s")) >= 20);
    p = json_array_get(pins, 1); /* no process has this pid */
    assert_string_equal(json_string_value(json_object_get(p, "program")), "");
    assert_true(json_is_null(json_object_get(o, "wal_pins"))); /* nobody looked at files */
    json_decref(o);
    /* What the writer saw counts: it is hidden from us, perhaps. */
    others_read_on();
    o = status_json();
    p = json_array_get(json_object_get(o, "pins"), 0);
    assert_string_equal(json_string_value(json_object_get(p, "unit")), "u.service");
    p = json_array_get(json_object_get(o, "wal_pins"), 1);
    assert_string_equal(json_string_value(json_object_get(p, "projection")), "p");
    assert_int_equal(json_integer_value(json_object_get(p, "shard")), 1);
    assert_int_equal(json_integer_value(json_object_get(p, "shards")), 4);
    assert_int_equal(json_integer_value(json_object_get(p, "frames_behind")), 50);
    json_decref(o);
}

/* azoth status and azoth top: how fast the disk fills is known while the writer looks at it. */
static void the_commands_tell_no_fill_that_a_dead_writer_saw(void **state)
{
    (void)state;
    static struct culprits c;
    struct view v;
    for (uint64_t ago_s = 0; ago_s < 20; ago_s += 10) {
        watches(ago_s, 300);
        view_open(&v, dir);
        culprits_look(&v, NULL, clock_mono_ns(), &c);
        view_close(&v);
        assert_true(ago_s ? c.disk_fill_day == -1 : c.disk_fill_day == 2 * 86400);
        assert_true(ago_s ? c.days_to_full == -1 : c.days_to_full > 0);
    }
}

static void times_and_refusals_are_told_to_the_page(void **state)
{
    (void)state;
    static const struct {
        const char *of;
        double most; /* of three: the others are 1 us, whose bucket ends at 1.023 us */
    } want[] = {
        {"preflight", 0.003}, {"queue", 0.002}, {"commit", 0.001}, {"apply", 0.004}, {"lag", 100}};
    commits();
    struct histogram_shm *const all[] = {&gauges->g->preflight_ns, &gauges->g->queue_ns,
                                         &gauges->g->commit_ns, &gauges->g->apply_ns,
                                         &gauges->g->lag_ns};
    for (size_t i = 0; i < 5; i++)
        for (int n = 0; n < 2; n++)
            histogram_add(all[i], 1000);
    refuses();
    json_t *o = status_json(), *times = json_object_get(o, "times");
    assert_int_equal(json_array_size(times), 5);
    for (size_t i = 0; i < 5; i++) {
        json_t *t = json_array_get(times, i);
        assert_string_equal(json_string_value(json_object_get(t, "of")), want[i].of);
        assert_int_equal(json_integer_value(json_object_get(t, "count")), 3);
        assert_true(fabs(json_real_value(json_object_get(t, "p50_s")) - 1.023e-6) < 1e-9);
        assert_true(fabs(json_real_value(json_object_get(t, "p99_s")) - want[i].most) < 1e-9);
        assert_true(fabs(json_real_value(json_object_get(t, "max_s")) - want[i].most) < 1e-9);
    }
    json_t *refused = json_object_get(o, "refused_by");
    assert_int_equal(json_integer_value(json_object_get(refused, "min")), 2);
    assert_int_equal(json_integer_value(json_object_get(refused, "max")), 0);
    json_decref(o);
}

/* ---- readiness ---- */

static const char *readiness(int *ret_ready)
{
    struct config c;
    config_defaults(&c);
    c.number[CONFIG_exporter_max_lag_events] = 6;
    c.number[CONFIG_exporter_max_lag_seconds] = 20;
    look_open(&look, &memory, dir, LAPSE_MS);
    buf_clear(&text);
    assert_int_equal(status_ready(&text, &look, &c, ret_ready), 0);
    look_close(&look);
    assert_int_equal(buf_add(&text, "", 1), 0);
    return (const char *)text.ptr;
}

static void is_ready(void)
{
    runs();
    gauge_set(&gauges->g->writer_heartbeat_ns, clock_mono_ns());
}
static void hangs(void)
{
    gauge_set(&gauges->g->writer_heartbeat_ns, clock_mono_ns() - 11 * NS_PER_S);
}
static void drains(void)
{
    atomic_store(&seg->header->writer_state, WRITER_DRAINING);
}
static void disk_is_full(void)
{
    gauge_set(&gauges->g->disk_full_ns, 1);
}
static void old_but_few(void)
{
    one_behind();
    gauge_set(&row_p()->cursor, 102);
}
static void age_unknown(void)
{
    old_but_few();
    gauge_set(&row_p()->at_head_ns, 0);
}
static void segment_is_gone(void)
{
    segment_unlink(&name);
}
static void within(void)
{
    old_but_few();
    gauge_set(&row_p()->cursor, 101); /* as far behind as the limit, no further */
    gauge_set(&row_p()->at_head_ns, clock_mono_ns() - 10 * NS_PER_S);
}
static void runs_one_shard(void)
{
    struct projection_shm *p = &gauges->projection[projection_row_claim(gauges, "q", 0, 2)];
    gauge_set(&p->heard_ns, clock_mono_ns());
    gauge_set(&p->cursor, gauge_get(&gauges->g->head_event));
}
static void log_went_back(void)
{
    gauge_set(&row_p()->cursor, gauge_get(&gauges->g->head_event) + 1);
}
static void gauges_are_gone(void)
{
    shm_unlink(name.gauges);
}
static void never_beat(void)
{
    gauge_set(&gauges->g->writer_heartbeat_ns, 0);
}
static void nothing(void)
{
}

static void readiness_names_what_is_not(void **state)
{
    static const struct {
        void (*act)(void);
        const char *says;
    } cases[] = {
        {nothing, "ready\n"},
        {within, "ready\n"},
        {writer_leaves, "writer: not running\n"},
        {segment_is_gone, "writer: no writer has made the shared segment yet\n"},
        {retires, "writer: the segment is retired\n"},
        {drains, "writer: draining\n"},
        {hangs, "writer: no heartbeat for 1? s\n"},
        {pauses, "writer: writes are paused\n"},
        {seals, "writer: writes are sealed\n"},
        {disk_is_full, "writer: writes are refused\n"},
        {one_behind, "projection p: 7 events behind, the limit is 6\n"},
        {old_but_few, "projection p: 3?.? s behind, the limit is 20\n"},
        {runs_one_shard, "projection q 1/2: it has not reported\n"},
        {log_went_back, "projection p: ahead of the log, it follows another history\n"},
        {gauges_are_gone, "writer: its gauges are not to be seen: *no*\n"},
        {never_beat, "writer: no heartbeat yet\n"},
        {age_unknown, "projection p: 5 events behind, how old is not known\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int ready = -1;
        is_ready();
        cases[i].act();
        const char *got = readiness(&ready);
        if (fnmatch(cases[i].says, got, 0) != 0)
            fail_msg("says %s not %s", got, cases[i].says);
        assert_int_equal(ready, strcmp(cases[i].says, "ready\n") == 0);
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

static void who_may_read_the_gauges_alone_is_told_by_the_heartbeat(void **state)
{
    (void)state;
    int ready = -1;
    if (geteuid() != 0)
        skip(); /* only root can become somebody else */
    is_ready();
    assert_int_equal(seteuid(65534), 0);
    char up[8];
    snprintf(up, sizeof up, "%s", value_of("azoth_up"));
    const char *said = readiness(&ready);
    assert_int_equal(seteuid(0), 0);
    assert_string_equal(up, "1");
    assert_string_equal(said, "ready\n");
    hangs();
    assert_int_equal(seteuid(65534), 0);
    snprintf(up, sizeof up, "%s", value_of("azoth_up"));
    said = readiness(&ready);
    assert_int_equal(seteuid(0), 0);
    assert_string_equal(up, "0");
    assert_non_null(strstr(said, "writer: no heartbeat"));
}

/* ---- memory ---- */

static void a_history_finds_when_a_value_was_last_so_small(void **state)
{
    (void)state;
    static struct history h;
    memset(&h, 0, sizeof h);
    assert_int_equal(history_last_at_most(&h, 5), 0);
    /* Two days, each second: the value is the number of the second. */
    for (uint64_t i = 1; i <= 172800; i++)
        history_add(&h, i * NS_PER_S, i);
    assert_int_equal(history_last_at_most(&h, 172800), 172800 * NS_PER_S);
    assert_int_equal(history_last_at_most(&h, 172500), 172500 * NS_PER_S);
    uint64_t at = history_last_at_most(&h, 100000) / NS_PER_S; /* from those a minute apart */
    assert_true(at <= 100000 && at > 100000 - 60);
    assert_int_equal(history_last_at_most(&h, 10000), 0); /* too long ago */
}

static void a_trend_is_told_when_enough_is_known(void **state)
{
    (void)state;
    static struct history h;
    static const struct {
        double step; /* a second */
        uint64_t seconds;
        double want; /* until zero, from 1e9; -1: not known */
    } cases[] = {{-1000, 59, -1},
                 {-1000, 100, 999900},
                 {0, 100, INFINITY},
                 {500, 100, INFINITY},
                 {-1000, 86400, 913600}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&h, 0, sizeof h);
        for (uint64_t s = 0; s <= cases[i].seconds; s++)
            history_add(&h, (s + 1) * NS_PER_S, (uint64_t)(1e9 + cases[i].step * (double)s));
        double got = history_seconds_to_zero(&h), want = cases[i].want;
        if (want < 0 ? !isnan(got) : isinf(want) ? got != want : fabs(got - want) > want / 1000)
            fail_msg("case %zu: %f, not %f", i, got, want);
    }
}

static void the_last_minutes_are_kept_second_by_second(void **state)
{
    (void)state;
    static struct recent r;
    memset(&r, 0, sizeof r);
    makes_a_row();
    gauge_set(&gauges->g->transactions, 1000);
    recent_note(&r, gauges, NS_PER_S);
    assert_int_equal(recent_at(&r, 0)->span_ns, 0); /* there is nothing to compare with */
    gauge_set(&gauges->g->transactions, 1030);
    gauge_set(&gauges->g->head_event, 12);
    commits();
    recent_note(&r, gauges, 3 * NS_PER_S);
    const struct recent_point *p = recent_at(&r, 1);
    assert_int_equal(p->transactions, 30);
    assert_int_equal(p->span_ns, 2 * NS_PER_S);
    assert_int_equal(p->p99_ns, 1048575);
    assert_int_equal(p->lag[0], 12);
    assert_true(p->lag[1] == RECENT_NONE);
    gauge_set(&gauges->g->transactions, 0); /* made anew */
    recent_note(&r, gauges, 4 * NS_PER_S);
    assert_int_equal(recent_at(&r, 2)->span_ns, 0);
    recent_note(&r, NULL, 5 * NS_PER_S);
    recent_note(&r, gauges, 6 * NS_PER_S);
    assert_int_equal(recent_at(&r, 4)->span_ns, 0); /* what was between is not known */
    for (uint64_t i = 0; i < RECENT_POINTS; i++)
        recent_note(&r, gauges, (7 + i) * NS_PER_S);
    assert_int_equal(r.len, RECENT_POINTS);
    assert_int_equal(recent_at(&r, 0)->at_ns, 7 * NS_PER_S);
    assert_true(recent_at(&r, 0)->p50_ns == RECENT_NONE);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(every_metric_follows_what_it_is_named_after),
        T(no_metric_is_without_a_test),
        T(free_bytes_are_those_of_the_file_system),
        T(what_is_not_there_is_left_out),
        T(an_age_is_the_least_that_is_known),
        T(a_state_is_corrected_by_who_lives),
        T(the_page_is_told_pace_and_error_and_newest_batch_of_a_projection),
        T(rows_of_a_split_that_was_replaced_are_left_out),
        T(a_shard_that_nobody_runs_is_told_of_by_the_others),
        T(texts_of_others_are_escaped_and_never_there_twice),
        T(the_ten_stripes_waited_for_most_are_told_most_first),
        T(a_key_that_was_waited_for_is_told_with_its_holder),
        T(who_holds_a_snapshot_is_told_by_its_pid_and_program),
        T(the_commands_tell_no_fill_that_a_dead_writer_saw),
        T(times_and_refusals_are_told_to_the_page),
        T(readiness_names_what_is_not),
        T(who_may_read_the_gauges_alone_is_told_by_the_heartbeat),
        T(a_history_finds_when_a_value_was_last_so_small),
        T(a_trend_is_told_when_enough_is_known),
        T(the_last_minutes_are_kept_second_by_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
