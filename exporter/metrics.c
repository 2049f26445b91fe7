/*
 * metrics.c - see metrics.h. Tables: one for single numbers, one for what each projection has, one
 * for what each process of ours has, one for histograms. A new gauge is a row.
 */
#include "exporter/metrics.h"

#include "core/error.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct text {
    struct buf *b;
    int failed;
};

#define ADD(t, ...) ((t)->failed |= buf_addf((t)->b, __VA_ARGS__) != 0)

static void family(struct text *t, const char *name, const char *type, const char *help)
{
    ADD(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Doubles are what Prometheus keeps; whole numbers are written as such. */
static void number(struct text *t, double n)
{
    if (isnan(n))
        ADD(t, "NaN\n");
    else if (isinf(n))
        ADD(t, "%sInf\n", n > 0 ? "+" : "-");
    else if (fabs(n) < 9007199254740992.0 && floor(n) == n)
        ADD(t, "%.0f\n", n);
    else
        ADD(t, "%.15g\n", n);
}

/* The value of a label: others wrote it, and it must be UTF-8 with three characters escaped. */
static void label(struct text *t, const char *name, const char *value)
{
    int utf8 = utf8_valid(bytes_str(value));
    ADD(t, "%s=\"", name);
    for (const char *p = value; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '\\' || c == '"')
            ADD(t, "\\%c", c);
        else if (c == '\n')
            ADD(t, "\\n");
        else
            ADD(t, "%c", c < ' ' || (c >= 0x7f && !utf8) ? '?' : c);
    }
    ADD(t, "\"");
}

/* ---- single numbers ---- */

enum needs { NOTHING, GAUGES, SEGMENT, DISK };

struct single {
    enum needs needs;
    const char *name, *type, *help;
    double (*get)(const struct look *k);
};

/* Those that are a field of the gauges as it is. */
#define GAUGE_FIELDS(X)                                                                            \
    X(commits, "azoth_commits_total", "counter", "Commits of the writer.")                         \
    X(transactions, "azoth_transactions_total", "counter", "Transactions committed.")              \
    X(events, "azoth_events_total", "counter", "Events committed.")                                \
    X(rejected, "azoth_transactions_rejected_total", "counter",                                    \
      "Transactions that the writer refused.")                                                     \
    X(duplicates, "azoth_transactions_duplicate_total", "counter",                                 \
      "Requests that the writer answered from the first result of their id.")                      \
    X(commit_failures, "azoth_commit_failures_total", "counter", "Commits that failed.")           \
    X(recovered, "azoth_transactions_recovered_total", "counter",                                  \
      "Transactions that a restarted writer found in flight and answered.")                        \
    X(bytes, "azoth_commit_bytes_total", "counter", "Bytes of transactions committed.")            \
    X(head_event, "azoth_head_event", "gauge", "Id of the newest event.")                          \
    X(head_txn, "azoth_head_transaction", "gauge", "Id of the newest transaction.")                \
    X(clock_held, "azoth_clock_held", "gauge",                                                     \
      "1 while event times stand still, since the clock went back.")                               \
    X(feed_batches, "azoth_feed_batches_total", "counter", "Batches sent to projectors.")          \
    X(feed_events, "azoth_feed_events_total", "counter", "Events sent to projectors.")             \
    X(feed_bytes, "azoth_feed_bytes_total", "counter", "Bytes of events sent to projectors.")      \
    X(feed_broken_connections, "azoth_feed_broken_connections_total", "counter",                   \
      "Connections of the feed that broke.")                                                       \
    X(readers_cleared, "azoth_readers_cleared_total", "counter",                                   \
      "Places of dead readers of the store that were given back.")                                 \
    X(participants_reaped, "azoth_participants_reaped_total", "counter",                           \
      "Dead processes that the writer cleaned up after.")                                          \
    X(reserve_bytes, "azoth_disk_reserve_bytes", "gauge",                                          \
      "Bytes held in reserve for what is in flight when the disk runs full.")

#define X(field, name, type, help)                                                                 \
    static double get_##field(const struct look *k)                                                \
    {                                                                                              \
        return (double)gauge_get(&k->v.gauges->g->field);                                          \
    }
GAUGE_FIELDS(X)
#undef X

/* They stand in the order of the commits that they are behind. One who opens a snapshot anew now and then
 * is younger than another who stands. */
static double pin_oldest(const struct look *k)
{
    double most = k->pins_known ? 0 : NAN;
    for (uint32_t i = 0; i < k->pins; i++)
        most = k->pin[i].age > most ? k->pin[i].age : most;
    return most;
}

#define GET(name, expression)                                                                      \
    static double get_##name(const struct look *k)                                                 \
    {                                                                                              \
        return (double)(expression);                                                               \
    }
GET(up, k->up)
GET(feed_up, k->v.feed_alive >= 0 ? k->v.feed_alive : k->feed_beat_age <= LOOK_HANGS_S)
GET(writer_beat, k->writer_beat_age)
GET(feed_beat, k->feed_beat_age)
GET(started, (double)gauge_get(&k->v.gauges->g->writer_started_ns) / 1e9)
GET(head_time, (double)gauge_get(&k->v.gauges->g->head_time_ns) / 1e9)
GET(disk_full, gauge_get(&k->v.gauges->g->disk_full_ns) != 0)
GET(epoch, atomic_load((A64 *)&k->v.segment->header->epoch))
GET(incarnation, k->v.segment->incarnation)
GET(retired, segment_retired(k->v.segment))
GET(paused, k->pauses.writes >= WRITES_PAUSED)
GET(sealed, k->pauses.writes == WRITES_SEALED)
GET(pause_left, k->pauses.left_ns == UINT64_MAX ? INFINITY : (double)k->pauses.left_ns / 1e9)
GET(pause_age, (double)k->pauses.age_ns / 1e9)
GET(queue, k->counts.slot[SLOT_SUBMITTED])
GET(stripes, k->v.segment->stripes)
GET(stripe_waits, k->stripe_waits)
GET(stripe_wait, (double)k->stripe_wait_ns / 1e9)
GET(blocks, k->v.segment->blocks)
GET(blocks_used, k->counts.blocks_used)
GET(pins, k->pins_known ? (double)k->pins : NAN)
GET(pin_age, pin_oldest(k))
GET(pin_behind, k->pins_known ? (double)k->pin[0].behind : NAN)
GET(disk_fill, k->disk_fill)
GET(disk_free, k->disk_free)
GET(disk_size, k->disk_size)
GET(disk_seconds, k->disk_seconds)
GET(store_bytes, k->store_bytes)

static const struct single singles[] = {
    {NOTHING, "azoth_up", "gauge", "1 when a writer lives and its segment is in force.", get_up},
    {NOTHING, "azoth_feed_up", "gauge", "1 when the feed lives.", get_feed_up},
#define X(field, name, type, help) {GAUGES, name, type, help, get_##field},
    GAUGE_FIELDS(X)
#undef X
        {GAUGES, "azoth_writer_heartbeat_age_seconds", "gauge",
         "Since the writer's loop was seen to turn; NaN: never.", get_writer_beat},
    {GAUGES, "azoth_feed_heartbeat_age_seconds", "gauge",
     "Since the feed's loop was seen to turn; NaN: never.", get_feed_beat},
    {GAUGES, "azoth_writer_start_time_seconds", "gauge",
     "When the writer was started, in seconds since 1970.", get_started},
    {GAUGES, "azoth_head_timestamp_seconds", "gauge",
     "When the newest event was committed, in seconds since 1970.", get_head_time},
    {GAUGES, "azoth_disk_full", "gauge",
     "1 while new transactions are refused since the disk is full.", get_disk_full},
    {GAUGES, "azoth_pins", "gauge",
     "Snapshots of the store that are open since before the newest commits, at most eight; NaN: "
     "not known.",
     get_pins},
    {GAUGES, "azoth_pin_oldest_age_seconds", "gauge",
     "Since the oldest of them was seen first; 0: there is none.", get_pin_age},
    {GAUGES, "azoth_pin_oldest_commits", "gauge",
     "Commits since the oldest of them; 0: there is none.", get_pin_behind},
    {GAUGES, "azoth_disk_fill_bytes_per_second", "gauge",
     "How fast free bytes get less, as the writer saw it over an hour; NaN: not known yet.",
     get_disk_fill},
    {SEGMENT, "azoth_writer_epoch", "gauge", "Starts of a writer on this store.", get_epoch},
    {SEGMENT, "azoth_segment_incarnation", "gauge", "Segments made for this store.",
     get_incarnation},
    {SEGMENT, "azoth_segment_retired", "gauge", "1 when the segment was given up.", get_retired},
    {SEGMENT, "azoth_paused", "gauge", "1 while writes are held, by a pause or a seal.",
     get_paused},
    {SEGMENT, "azoth_sealed", "gauge", "1 while the database is sealed.", get_sealed},
    {SEGMENT, "azoth_pause_remaining_seconds", "gauge",
     "Until the last pause or seal ends by itself; +Inf: it does not.", get_pause_left},
    {SEGMENT, "azoth_pause_age_seconds", "gauge",
     "Since the oldest pause or seal that there is was asked for; 0: there is none.",
     get_pause_age},
    {SEGMENT, "azoth_queue_depth", "gauge", "Transactions submitted and not yet answered.",
     get_queue},
    {SEGMENT, "azoth_stripes", "gauge", "Stripes that keys hash onto.", get_stripes},
    {SEGMENT, "azoth_stripe_waits_total", "counter",
     "Waits for a stripe that another transaction held.", get_stripe_waits},
    {SEGMENT, "azoth_stripe_wait_seconds_total", "counter", "Time of those waits.",
     get_stripe_wait},
    {SEGMENT, "azoth_blocks", "gauge", "Blocks for large transactions.", get_blocks},
    {SEGMENT, "azoth_blocks_used", "gauge", "Blocks in use.", get_blocks_used},
    {DISK, "azoth_disk_free_bytes", "gauge",
     "Free bytes of the file system that the database lies on.", get_disk_free},
    {DISK, "azoth_disk_size_bytes", "gauge", "Size of that file system.", get_disk_size},
    {DISK, "azoth_disk_full_in_seconds", "gauge",
     "Until it is full at the pace that the writer saw, without one that of the last day; +Inf: it "
     "does "
     "not fill, NaN: not known yet.",
     get_disk_seconds},
    {DISK, "azoth_store_size_bytes", "gauge", "Bytes that the store takes on the disk.",
     get_store_bytes},
};

static int there_is(enum needs needs, const struct look *k)
{
    switch (needs) {
    case GAUGES:
        return k->v.gauges != NULL;
    case SEGMENT:
        return k->v.segment != NULL;
    case DISK:
        return k->disk_known;
    default:
        return 1;
    }
}

static void write_singles(struct text *t, const struct look *k)
{
    for (size_t i = 0; i < sizeof singles / sizeof *singles; i++) {
        const struct single *s = &singles[i];
        if (!there_is(s->needs, k))
            continue;
        family(t, s->name, s->type, s->help);
        ADD(t, "%s ", s->name);
        number(t, s->get(k));
    }
}

/* ---- numbers by a state of the segment ---- */

static void write_segment(struct text *t, const struct look *k)
{
    if (!k->v.segment)
        return;
    uint32_t at = atomic_load((A32 *)&k->v.segment->header->writer_state);
    family(t, "azoth_writer_state", "gauge", "1 for the state that the writer said last.");
    for (uint32_t i = WRITER_ABSENT; i <= WRITER_DRAINING; i++)
        ADD(t, "azoth_writer_state{state=\"%s\"} %d\n", writer_state_name(i), i == at);
    family(t, "azoth_slots", "gauge", "Slots of transactions, by their state.");
    for (uint32_t i = 0; i <= SLOT_REAPING; i++)
        ADD(t, "azoth_slots{state=\"%s\"} %u\n", slot_state_name(i), k->counts.slot[i]);
    family(t, "azoth_stripes_held", "gauge", "Stripes held, exclusively or shared.");
    ADD(t, "azoth_stripes_held{mode=\"exclusive\"} %u\n", k->counts.exclusive);
    ADD(t, "azoth_stripes_held{mode=\"shared\"} %u\n", k->counts.shared);
}

/* ---- contention ---- */

/* By stripe, not by key: a stripe is one of ten series, a key would be a new one each time that another was
 * waited for, and it is the user's data. /status.json tells the keys. */
static void write_hot_stripes(struct text *t, const struct look *k)
{
    static const char waits[] = "azoth_hot_stripe_waits_total";
    static const char wait[] = "azoth_hot_stripe_wait_seconds_total";
    family(t, waits, "counter", "Waits for one of the ten stripes that were waited for most.");
    for (uint32_t i = 0; i < k->stripes_len; i++)
        ADD(t, "%s{stripe=\"%u\"} %" PRIu64 "\n", waits, k->stripe[i].hot.stripe,
            k->stripe[i].hot.waits);
    family(t, wait, "counter", "Time of the waits for one of these stripes.");
    for (uint32_t i = 0; i < k->stripes_len; i++) {
        ADD(t, "%s{stripe=\"%u\"} ", wait, k->stripe[i].hot.stripe);
        number(t, (double)k->stripe[i].hot.wait_ns / 1e9);
    }
}

static void write_contention(struct text *t, const struct look *k)
{
    static const char refusals[] = "azoth_refusals_total";
    if (!k->v.segment)
        return;
    family(t, refusals, "counter", "Transactions that preflight refused, by what did not hold.");
    for (uint32_t i = 0; i < REFUSALS; i++)
        ADD(t, "%s{reason=\"%s\"} %" PRIu64 "\n", refusals, refusal_name(i),
            gauge_get(&k->v.segment->contention->refused_by[i]));
    write_hot_stripes(t, k);
}

/* ---- processes ---- */

static int lives(const struct look *k, uint32_t row)
{
    const struct participant_shm *p = &k->v.segment->participant[row];
    return (atomic_load((A64 *)&p->word) & 0xff) == PARTICIPANT_LIVE;
}

/* Clients come and go: each of them a series would be too many. They are counted by their kind. */
static int has_series(const struct participant_shm *p)
{
    uint32_t kind = atomic_load((A32 *)&p->kind);
    return kind == PARTICIPANT_WRITER || kind == PARTICIPANT_WORKER || kind == PARTICIPANT_EMBEDDED;
}

static void write_process(struct text *t, const char *family_name, const struct look *k,
                          uint32_t row, double n)
{
    const struct participant_shm *p = &k->v.segment->participant[row];
    char name[sizeof p->name + 1] = {0}, number_text[16];
    memcpy(name, p->name, sizeof p->name);
    snprintf(number_text, sizeof number_text, "%u", row);
    ADD(t, "%s{", family_name);
    label(t, "kind", participant_kind_name(atomic_load((A32 *)&p->kind)));
    ADD(t, ",");
    label(t, "name", name);
    ADD(t, ",");
    label(t, "row", number_text);
    ADD(t, "} ");
    number(t, n);
}

static const struct process_counter {
    const char *name, *help;
    size_t offset;
    double unit; /* of one, in the unit of the name */
} process_counters[] = {
#define P(field, name, help, unit)                                                                 \
    {                                                                                              \
        name, help, offsetof(struct participant_shm, field), unit                                  \
    }
    P(submitted, "azoth_process_submitted_total", "Transactions that a process submitted.", 1),
    P(refused, "azoth_process_refused_total", "Transactions that a process refused itself.", 1),
    P(lock_timeouts, "azoth_process_lock_timeouts_total",
      "Transactions of a process that waited for a stripe until their deadline.", 1),
    P(stripe_waits, "azoth_process_stripe_waits_total", "Waits of a process for a stripe.", 1),
    P(wait_ns, "azoth_process_stripe_wait_seconds_total", "Time of these waits.", 1e-9),
    P(held_up, "azoth_process_held_up_total", "Waits of others for a stripe that a process held.",
      1),
    P(held_up_ns, "azoth_process_held_up_seconds_total", "Time of these waits of others.", 1e-9),
    P(reaped, "azoth_process_reaped_total", "Dead processes that a process cleaned up after.", 1),
#undef P
};

static void write_processes(struct text *t, const struct look *k)
{
    uint32_t by_kind[PARTICIPANT_TOOL + 1] = {0}, dead = 0;
    if (!k->v.segment)
        return;
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        uint32_t kind = atomic_load((A32 *)&k->v.segment->participant[i].kind);
        if (!lives(k, i))
            continue;
        if (kind <= PARTICIPANT_TOOL)
            by_kind[kind]++;
        dead += view_participant_alive(&k->v, i) == 0;
    }
    family(t, "azoth_participants", "gauge", "Processes that take part, by their kind.");
    for (uint32_t i = PARTICIPANT_WRITER; i <= PARTICIPANT_TOOL; i++)
        ADD(t, "azoth_participants{kind=\"%s\"} %u\n", participant_kind_name(i), by_kind[i]);
    family(t, "azoth_participants_dead", "gauge", "Dead processes not cleaned up after yet.");
    ADD(t, "azoth_participants_dead %u\n", dead);
    for (size_t c = 0; c < sizeof process_counters / sizeof *process_counters; c++) {
        const struct process_counter *pc = &process_counters[c];
        family(t, pc->name, "counter", pc->help);
        for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
            const struct participant_shm *p = &k->v.segment->participant[i];
            const A64 *counter = (const void *)((const char *)p + pc->offset);
            if (lives(k, i) && has_series(p))
                write_process(t, pc->name, k, i, (double)gauge_get(counter) * pc->unit);
        }
    }
}

/* ---- projections ---- */

#define PROJECTION_NUMBERS(X)                                                                      \
    X(behind, "azoth_projection_lag_events", "gauge", "Events that are not applied.",              \
      (double)p->behind)                                                                           \
    X(seconds, "azoth_projection_lag_seconds", "gauge",                                            \
      "Age of the oldest event that is not applied, at most; NaN: not known.", p->seconds)         \
    X(progress, "azoth_projection_progress_age_seconds", "gauge",                                  \
      "Since the cursor moved; NaN: never.", p->progress_age)                                      \
    X(heard, "azoth_projection_heard_age_seconds", "gauge",                                        \
      "Since the projector was heard; NaN: never.", p->heard_age)                                  \
    X(cursor, "azoth_projection_cursor", "gauge", "Id of the last event that is applied.",         \
      (double)p->r.cursor)                                                                         \
    X(errors, "azoth_projection_errors_total", "counter", "Failures of handlers.",                 \
      (double)p->r.errors)                                                                         \
    X(events, "azoth_projection_sent_events_total", "counter",                                     \
      "Events that the feed sent to the projector.", (double)p->r.events_sent)                     \
    X(bytes, "azoth_projection_sent_bytes_total", "counter",                                       \
      "Bytes of events that the feed sent to the projector.", (double)p->r.bytes_sent)             \
    X(rate, "azoth_projection_applied_events_per_second", "gauge",                                 \
      "Pace of the cursor over the last seconds; NaN: not known.", p->rate)                        \
    X(apply, "azoth_projection_batch_duration_seconds", "gauge",                                   \
      "Time that the newest batch took to be applied; NaN: none was.", known_ns(p->r.apply_ns))    \
    X(batch_lag, "azoth_projection_batch_lag_seconds", "gauge",                                    \
      "From the commit of the newest batch's oldest event until it was applied; NaN: none was.",   \
      known_ns(p->r.lag_ns))                                                                       \
    X(failed, "azoth_projection_error_age_seconds", "gauge",                                       \
      "Since the error came that it stands with; NaN: it has none.", p->failed_age)                \
    X(breaker, "azoth_projection_breaker_open", "gauge",                                           \
      "1 while the circuit breaker is open: nothing is applied.", p->r.breaker == BREAKER_IS_OPEN) \
    X(stands, "azoth_projection_stands_at_event", "gauge",                                         \
      "Event that failed and is tried again; 0: none.", (double)p->r.stands_event)                 \
    X(wal, "azoth_projection_wal_bytes", "gauge", "Bytes of its file's WAL; NaN: it has none.",    \
      p->r.wal_bytes == UINT64_MAX ? NAN : (double)p->r.wal_bytes)                                 \
    X(wal_pinned, "azoth_projection_wal_pinned_seconds", "gauge",                                  \
      "Since a reader keeps that from starting over; 0: none does.", p->wal_pinned)

/* The number of breaker_state_name(). */
#define BREAKER_IS_OPEN 2u

/* Seconds; NaN for 0, which is what a row has before the first one. */
static double known_ns(uint64_t ns)
{
    return ns ? (double)ns / 1e9 : NAN;
}

#define X(field, name, type, help, expression)                                                     \
    static double projection_##field(const struct look_projection *p)                              \
    {                                                                                              \
        return expression;                                                                         \
    }
PROJECTION_NUMBERS(X)
#undef X

static const struct projection_number {
    const char *name, *type, *help;
    double (*get)(const struct look_projection *p);
} projection_numbers[] = {
#define X(field, name, type, help, expression) {name, type, help, projection_##field},
    PROJECTION_NUMBERS(X)
#undef X
};

static void projection_labels(struct text *t, const char *family_name,
                              const struct look_projection *p)
{
    ADD(t, "%s{", family_name);
    label(t, "projection", p->r.name);
    ADD(t, ",shard=\"%u\",shards=\"%u\"", p->r.shard, p->r.shards);
}

static void write_dead_letters(struct text *t, const struct look *k)
{
    static const char name[] = "azoth_projection_dead_letters";
    family(t, name, "gauge", "Events put aside: waiting for another attempt, retired, or parked.");
    for (uint32_t i = 0; i < k->projections; i++) {
        const struct look_projection *p = &k->projection[i];
        const uint64_t n[] = {p->r.dead_waiting, p->r.dead_retired, p->r.dead_parked};
        static const char *const state[] = {"waiting", "retired", "parked"};
        for (int s = 0; s < 3 && p->heard; s++) {
            projection_labels(t, name, p);
            ADD(t, ",state=\"%s\"} %" PRIu64 "\n", state[s], n[s]);
        }
    }
}

static void write_state(struct text *t, const struct look_projection *p, const char *state)
{
    static const char name[] = "azoth_projection_state";
    projection_labels(t, name, p);
    ADD(t, ",state=\"%s\"} %d\n", state, strcmp(state, p->state) == 0);
}

static void write_states(struct text *t, const struct look *k)
{
    family(t, "azoth_projection_state", "gauge", "1 for the state that the projection is in.");
    for (uint32_t i = 0; i < k->projections; i++) {
        for (uint32_t s = 0; s <= PROJECTION_OPEN; s++)
            write_state(t, &k->projection[i], projection_state_name(s));
        write_state(t, &k->projection[i], "diverged");
    }
}

static void write_projections(struct text *t, const struct look *k)
{
    if (!k->v.gauges)
        return;
    for (size_t n = 0; n < sizeof projection_numbers / sizeof *projection_numbers; n++) {
        const struct projection_number *pn = &projection_numbers[n];
        family(t, pn->name, pn->type, pn->help);
        for (uint32_t i = 0; i < k->projections; i++) {
            if (!k->projection[i].heard)
                continue;
            projection_labels(t, pn->name, &k->projection[i]);
            ADD(t, "} ");
            number(t, pn->get(&k->projection[i]));
        }
    }
    write_dead_letters(t, k);
    write_states(t, k);
}

/* ---- places of backups ---- */

static double backup_behind(const struct look_backup *b)
{
    return (double)b->behind;
}

static double backup_seconds(const struct look_backup *b)
{
    return b->seconds;
}

static double backup_success(const struct look_backup *b)
{
    return b->m.moved_ns ? (double)b->m.moved_ns / 1e9 : NAN;
}

static double backup_followed(const struct look_backup *b)
{
    return b->m.is.followed;
}

static const struct backup_number {
    const char *name, *help;
    double (*get)(const struct look_backup *b);
} backup_numbers[] = {
    {"azoth_backup_lag_events", "Events that no backup of a place has.", backup_behind},
    {"azoth_backup_lag_seconds",
     "Age of the oldest transaction that no backup of a place has, at most; 0: it has all.",
     backup_seconds},
    {"azoth_backup_last_success_timestamp_seconds",
     "When a backup of a place that had something new was durable last, in seconds since 1970, at "
     "least; NaN: none was.",
     backup_success},
    {"azoth_backup_followed", "1 when azoth backup --follow is to keep a place close to the head.",
     backup_followed},
};

static void write_backup_states(struct text *t, const struct look *k)
{
    if (!k->v.segment)
        return;
    family(t, "azoth_backup_state", "gauge", "1 for the state that a place of backups is in.");
    for (uint32_t i = 0; i < k->backups; i++)
        for (unsigned s = 0; s < VIEW_PLACE_STATES; s++)
            ADD(t, "azoth_backup_state{place=\"%s\",state=\"%s\"} %d\n", k->backup[i].place,
                view_place_states[s], k->backup[i].state == view_place_states[s]);
}

static void write_backups(struct text *t, const struct look *k)
{
    if (!k->backups_known)
        return;
    for (size_t n = 0; n < sizeof backup_numbers / sizeof *backup_numbers; n++) {
        const struct backup_number *bn = &backup_numbers[n];
        family(t, bn->name, "gauge", bn->help);
        for (uint32_t i = 0; i < k->backups; i++) {
            ADD(t, "%s{place=\"%s\"} ", bn->name, k->backup[i].place);
            number(t, bn->get(&k->backup[i]));
        }
    }
    write_backup_states(t, k);
}

/* ---- who holds old snapshots open ---- */

/* A reader that is about to end is no culprit, and each pid would be a series. */
#define PIN_TOLD_S 1.0

static int same_pin(const struct look_pin *a, const struct look_pin *b)
{
    return a->pid == b->pid && a->shard == b->shard && a->shards == b->shards &&
           strcmp(a->projection, b->projection) == 0;
}

/* Of a process with several threads, the one that is told first speaks for all. */
static int is_told(const struct look_pin *pin, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (same_pin(&pin[k], &pin[i]) && pin[k].age >= PIN_TOLD_S)
            return 0;
    return pin[i].age >= PIN_TOLD_S;
}

static void write_pin(struct text *t, const char *name, const struct look_pin *p, double n)
{
    ADD(t, "%s{", name);
    if (p->shards) {
        label(t, "projection", p->projection);
        ADD(t, ",shard=\"%u\",shards=\"%u\",", p->shard, p->shards);
    }
    ADD(t, "pid=\"%" PRIu64 "\",", p->pid);
    label(t, "program", p->program);
    ADD(t, ",");
    label(t, "unit", p->unit);
    ADD(t, "} ");
    number(t, n);
}

struct pin_families {
    const char *age, *age_help, *behind, *behind_help;
};

static void write_pins(struct text *t, const struct pin_families *f, const struct look_pin *pin,
                       uint32_t pins)
{
    family(t, f->age, "gauge", f->age_help);
    for (uint32_t i = 0; i < pins; i++)
        if (is_told(pin, i))
            write_pin(t, f->age, &pin[i], pin[i].age);
    family(t, f->behind, "gauge", f->behind_help);
    for (uint32_t i = 0; i < pins; i++)
        if (is_told(pin, i))
            write_pin(t, f->behind, &pin[i], (double)pin[i].behind);
}

static void write_culprits(struct text *t, const struct look *k)
{
    static const struct pin_families store = {
        "azoth_pinned_snapshot_age_seconds",
        "Since a process's old snapshot of the store was seen first, from one second on.",
        "azoth_pinned_snapshot_commits", "Commits since that snapshot."};
    static const struct pin_families files = {
        "azoth_projection_wal_reader_age_seconds",
        "Since a process that keeps a projection's WAL from starting over was seen first, from one "
        "second on.",
        "azoth_projection_wal_reader_frames", "Frames of the WAL since what it reads."};
    if (k->pins_known)
        write_pins(t, &store, k->pin, k->pins);
    if (k->file_pins_known)
        write_pins(t, &files, k->file_pin, k->file_pins);
}

/* ---- histograms ---- */

static const struct histogram {
    const char *name, *help;
    size_t offset;
    double unit;       /* of one, in the unit of the name */
    uint32_t from, to; /* buckets of the segment whose ends are told, each second one of them */
} histograms[] = {
#define H(field, name, help, unit, from, to)                                                       \
    {                                                                                              \
        name, help, offsetof(struct gauges_shm, field), unit, from, to                             \
    }
    /* 8 us to 34 s: below and above there is nothing to tell apart. */
    H(commit_ns, "azoth_commit_duration_seconds", "Time of a commit, durable at its end.", 1e-9, 47,
      135),
    H(queue_ns, "azoth_queue_duration_seconds", "From submission of a transaction to its answer.",
      1e-9, 47, 135),
    H(preflight_ns, "azoth_preflight_duration_seconds",
      "From the claim of a slot to the submission of its transaction.", 1e-9, 47, 135),
    H(apply_ns, "azoth_apply_duration_seconds",
      "Time of a projector to apply a batch of events, of all projections.", 1e-9, 47, 135),
    /* To 37 minutes: one that catches up is late for long. */
    H(lag_ns, "azoth_apply_lag_seconds",
      "From the commit of a batch's oldest event until a projection had applied it.", 1e-9, 47,
      159),
    H(batch_size, "azoth_commit_transactions", "Transactions of a commit.", 1, 1, 63),
#undef H
};

/* The segment's own buckets, added up: what is told is exact at each of their ends. Read one after the other
 * while they grow, so the sum of what was read is the count. */
static void write_histogram(struct text *t, const struct histogram *h, const struct look *k)
{
    const struct histogram_shm *shm = (const void *)((const char *)k->v.gauges->g + h->offset);
    uint64_t seen = 0;
    family(t, h->name, "histogram", h->help);
    for (uint32_t b = 0; b < SHM_HISTOGRAM_BUCKETS; b++) {
        seen += gauge_get(&shm->bucket[b]);
        if (b >= h->from && b <= h->to && (b - h->from) % 2 == 0)
            ADD(t, "%s_bucket{le=\"%.12g\"} %" PRIu64 "\n", h->name,
                (double)histogram_bucket_end(b) * h->unit, seen);
    }
    ADD(t, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", h->name, seen);
    ADD(t, "%s_sum %.12g\n", h->name, (double)gauge_get(&shm->sum) * h->unit);
    ADD(t, "%s_count %" PRIu64 "\n", h->name, seen);
}

/* ---- the whole ---- */

int metrics_write(struct buf *b, const struct look *k, uint64_t requests)
{
    struct text t = {.b = b};
    family(&t, "azoth_build_info", "gauge", "The exporter's version.");
    ADD(&t, "azoth_build_info{version=\"%s\"} 1\n", AZOTH_VERSION);
    write_singles(&t, k);
    write_segment(&t, k);
    write_contention(&t, k);
    write_processes(&t, k);
    write_projections(&t, k);
    write_backups(&t, k);
    write_culprits(&t, k);
    for (size_t i = 0; k->v.gauges && i < sizeof histograms / sizeof *histograms; i++)
        write_histogram(&t, &histograms[i], k);
    family(&t, "azoth_exporter_requests_total", "counter", "Requests that the exporter answered.");
    ADD(&t, "azoth_exporter_requests_total %" PRIu64 "\n", requests);
    return t.failed ? AZOTH_ERR_NOMEM : 0;
}
