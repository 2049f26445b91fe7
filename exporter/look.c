/*
 * look.c - see look.h.
 *
 * How old what a projection has not applied may be, without the store: the first event behind its
 * cursor came after the head was last seen at or before that cursor, by this process (each second) or
 * by the feed. When only the newest event is missing, its own time says it too. The least of these
 * is told: never less than the truth but for a wall clock that jumped, and within a second of it
 * while this process runs.
 */
#include "exporter/look.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "shm/stripe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* Seconds since a point of running time; NAN for 0. */
static double since(uint64_t now_ns, uint64_t then_ns)
{
    if (then_ns == 0)
        return NAN;
    return now_ns > then_ns ? (double)(now_ns - then_ns) / 1e9 : 0;
}

/* ---- projections ---- */

/* A rate over less is no rate; the feed's marks are 5 to 10 s old. */
#define RATE_OVER_NS (NS_PER_S / 2)

static double rate_of(const struct projection_row *r, uint64_t now_ns)
{
    if (r->rate_ns == 0 || now_ns < r->rate_ns + RATE_OVER_NS || r->cursor < r->rate_cursor)
        return NAN;
    return (double)(r->cursor - r->rate_cursor) * 1e9 / (double)(now_ns - r->rate_ns);
}

static int unheard(const struct look_projection *p, uint64_t now_ns, uint64_t lapse_ns)
{
    return p->r.heard_ns + lapse_ns < now_ns;
}

static int same_split(const struct look_projection *a, const struct look_projection *b)
{
    return strcmp(a->r.name, b->r.name) == 0 && a->r.shards == b->r.shards;
}

/* When this split was heard last; one with a row that lives counts more than any time. */
static uint64_t split_lives(const struct look *k, const struct look_projection *row,
                            uint64_t lapse_ns)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < k->projections; i++) {
        const struct look_projection *a = &k->projection[i];
        if (!same_split(a, row))
            continue;
        int gone = a->r.state == PROJECTION_STOPPED || unheard(a, k->now_ns, lapse_ns);
        uint64_t n = gone ? a->r.heard_ns : UINT64_MAX;
        most = n > most ? n : most;
    }
    return most;
}

/* Rows of a split that was replaced go, as azoth lag leaves them out: nobody moves them any more. */
static void drop_old_splits(struct look *k, uint64_t lapse_ns)
{
    uint64_t lives[SHM_PROJECTIONS];
    uint8_t old[SHM_PROJECTIONS] = {0};
    uint32_t kept = 0;
    for (uint32_t i = 0; i < k->projections; i++)
        lives[i] = split_lives(k, &k->projection[i], lapse_ns);
    for (uint32_t i = 0; i < k->projections; i++)
        for (uint32_t n = 0; n < k->projections; n++)
            if (lives[n] > lives[i] &&
                strcmp(k->projection[n].r.name, k->projection[i].r.name) == 0)
                old[i] = 1;
    for (uint32_t i = 0; i < k->projections; i++)
        if (!old[i])
            k->projection[kept++] = k->projection[i];
    k->projections = kept;
}

static int has_shard(const struct look *k, const struct look_projection *of, uint32_t shard)
{
    for (uint32_t i = 0; i < k->projections; i++)
        if (same_split(&k->projection[i], of) && k->projection[i].r.shard == shard)
            return 1;
    return 0;
}

/* A shard that nobody runs leaves no row, but those of its split say that there has to be one. */
static void add_missing_shards(struct look *k)
{
    uint32_t reported = k->projections;
    for (uint32_t i = 0; i < reported; i++) {
        const struct look_projection *of = &k->projection[i];
        for (uint32_t n = 0; n < of->r.shards && k->projections < LOOK_PROJECTIONS; n++) {
            if (has_shard(k, of, n))
                continue;
            struct look_projection *p = &k->projection[k->projections++];
            *p = (struct look_projection){.r = {.shard = n, .shards = of->r.shards}};
            memcpy(p->r.name, of->r.name, sizeof p->r.name);
        }
    }
}

static int by_name(const void *a, const void *b)
{
    const struct look_projection *x = a, *y = b;
    int c = strcmp(x->r.name, y->r.name);
    if (c == 0)
        c = (x->r.shards > y->r.shards) - (x->r.shards < y->r.shards);
    return c ? c : (x->r.shard > y->r.shard) - (x->r.shard < y->r.shard);
}

/* Shared memory is input: the same name twice would make the whole answer invalid to who scrapes it. */
static void drop_twins(struct look *k)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < k->projections; i++)
        if (kept == 0 || by_name(&k->projection[kept - 1], &k->projection[i]) != 0)
            k->projection[kept++] = k->projection[i];
    k->projections = kept;
}

static double age(const struct look *k, const struct look_memory *m,
                  const struct look_projection *p)
{
    if (!p->heard)
        return NAN;
    if (p->behind == 0)
        return 0;
    double feeds = since(k->now_ns, p->r.at_head_ns);
    double most = fmin(feeds, since(k->now_ns, history_last_at_most(&m->head, p->r.cursor)));
    if (p->behind == 1) {
        int64_t then_ns = (int64_t)gauge_get(&k->v.gauges->g->head_time_ns);
        double own = k->wall_ns >= then_ns ? (double)(k->wall_ns - then_ns) / 1e9 : NAN;
        most = fmin(most, own);
    }
    return most;
}

static void look_at_projections(struct look *k, const struct look_memory *m, uint64_t lapse_ns)
{
    const struct gauges *g = k->v.gauges;
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++) {
        struct look_projection *p = &k->projection[k->projections];
        p->row = i;
        p->heard = 1;
        if (projection_row_read(g, i, &p->r))
            k->projections++;
    }
    /* After the rows: a cursor is not ahead of it then, unless the log went back. */
    k->head = gauge_get(&g->g->head_event);
    k->now_ns = clock_mono_ns();
    drop_old_splits(k, lapse_ns);
    add_missing_shards(k);
    qsort(k->projection, k->projections, sizeof *k->projection, by_name);
    drop_twins(k);
    for (uint32_t i = 0; i < k->projections; i++) {
        struct look_projection *p = &k->projection[i];
        p->behind = k->head > p->r.cursor ? k->head - p->r.cursor : 0;
        p->seconds = age(k, m, p);
        p->progress_age = since(k->now_ns, p->r.progress_ns);
        p->heard_age = since(k->now_ns, p->r.heard_ns);
        p->failed_age = since(k->now_ns, p->r.failed_ns);
        p->wal_pinned = p->r.wal_pinned_ns ? since(k->now_ns, p->r.wal_pinned_ns) : 0;
        p->rate = rate_of(&p->r, k->now_ns);
        p->state = projection_row_state(&p->r, projection_row_head(&p->r, k->head), k->v.feed_alive,
                                        k->now_ns, lapse_ns);
    }
}

/* ---- stripes ---- */

static void look_at_stripes(struct look *k)
{
    const struct segment *s = k->v.segment;
    struct hot_stripe hot[LOOK_STRIPES];
    for (uint32_t i = 0; i < s->stripes; i++) {
        k->stripe_waits += gauge_get(&s->stripe[i].waits);
        k->stripe_wait_ns += gauge_get(&s->stripe[i].wait_ns);
    }
    k->stripes_len = contention_hot(s, NULL, hot, LOOK_STRIPES);
    for (uint32_t i = 0; i < k->stripes_len; i++) {
        struct look_stripe *l = &k->stripe[i];
        l->hot = hot[i];
        l->holder = stripe_holder(s, hot[i].stripe);
        l->key_len = contention_key(s, hot[i].stripe, l->key);
    }
}

/* ---- what the writer's helper sees ---- */

/* Its trend of the disk is none before. */
#define FILL_OBSERVED_NS (300 * NS_PER_S)

/* What the helper saw, or what is not hidden from us: it may have been another one's process a moment ago. */
static void take_pin(const struct look *k, const struct pinned *s, struct look_pin *ret)
{
    *ret =
        (struct look_pin){.pid = s->pid, .behind = s->behind, .age = since(k->now_ns, s->since_ns)};
    memcpy(ret->program, s->program, sizeof ret->program);
    memcpy(ret->unit, s->unit, sizeof ret->unit);
    if (!*ret->program)
        process_name(s->pid, ret->program, ret->unit);
}

/* "NAME" or "NAME.IofK". */
static void take_stem(const char *stem, struct look_pin *ret)
{
    size_t n = strcspn(stem, ".");
    ret->shards = 1;
    snprintf(ret->projection, sizeof ret->projection, "%.*s", (int)n, stem);
    if (stem[n] && sscanf(stem + n + 1, "%uof%u", &ret->shard, &ret->shards) != 2)
        ret->shards = 1;
}

static void look_at_pins(struct look *k)
{
    struct pinned seen[SHM_PINS];
    if (!k->v.gauges || view_helper_looked(&k->v, k->now_ns) == 0)
        return;
    k->pins_known = 1;
    k->pins = pins_read(k->v.gauges->g->pin, seen);
    for (uint32_t i = 0; i < k->pins; i++)
        take_pin(k, &seen[i], &k->pin[i]);
}

static void look_at_file_pins(struct look *k)
{
    struct pinned seen[SHM_PINS];
    if (!k->v.gauges || view_files_looked(&k->v, k->now_ns) == 0)
        return;
    k->file_pins_known = 1;
    k->file_pins = pins_read(k->v.gauges->g->file_pin, seen);
    for (uint32_t i = 0; i < k->file_pins; i++) {
        take_pin(k, &seen[i], &k->file_pin[i]);
        take_stem(seen[i].stem, &k->file_pin[i]);
    }
}

/* ---- places of backups ---- */

/* As age() of a projection: by when the head was last seen no further than what the place has. What it has is older. */
static double backup_age(const struct look *k, const struct look_memory *m, const struct mark *is,
                         uint64_t head_txn)
{
    if (head_txn <= is->txn)
        return 0;
    double most = k->wall_ns >= is->since_ns ? (double)(k->wall_ns - is->since_ns) / 1e9 : 0;
    return fmin(most, since(k->now_ns, history_last_at_most(&m->head_txn, is->txn)));
}

static void look_at_backups(struct look *k, const struct look_memory *m)
{
    struct mark_told told[SHM_MARKS];
    char follower[SHM_MARKS][VIEW_FOLLOWER];
    if (!k->v.gauges || !marks_read(k->v.gauges->g, told, &k->backups))
        return;
    const struct gauges_shm *g = k->v.gauges->g;
    uint64_t head = gauge_get(&g->head_event), txn = gauge_get(&g->head_txn);
    uint32_t followers = view_followers(&k->v, follower, SHM_MARKS);
    k->backups_known = 1;
    for (uint32_t i = 0; i < k->backups; i++) {
        struct look_backup *b = &k->backup[i];
        const struct mark *is = &told[i].is;
        b->m = told[i];
        bytes_hex(b->place, is->place, MARK_PLACE);
        b->behind = head > is->event ? head - is->event : 0;
        b->seconds = backup_age(k, m, is, txn);
        b->state = k->v.segment ? view_place_state(is, follower, followers, b->place) : NULL;
    }
}

/* ---- the disk ---- */

static int disk_free(const char *dir, uint64_t *ret_free, uint64_t *ret_size)
{
    struct statvfs st;
    if (statvfs(dir, &st))
        return 0;
    *ret_free = (uint64_t)st.f_bavail * st.f_frsize;
    *ret_size = (uint64_t)st.f_blocks * st.f_frsize;
    return 1;
}

/* The writer sees its own disk, where this process may not look, and has watched it since before this
 * process began. */
static void take_the_writers_disk(struct look *k)
{
    uint64_t looked = view_helper_looked(&k->v, k->now_ns);
    if (looked == 0 || !k->v.gauges)
        return;
    const struct gauges_shm *g = k->v.gauges->g;
    uint64_t size = gauge_get(&g->disk_total_bytes), from = gauge_get(&g->disk_watched_ns);
    if (size == 0)
        return;
    k->disk_known = 1;
    k->disk_size = size;
    k->disk_free = gauge_get(&g->disk_free_bytes);
    if (from == 0 || looked < from + FILL_OBSERVED_NS)
        return;
    k->disk_fill = (double)gauge_get(&g->disk_fill_bytes_day) / 86400;
    k->disk_seconds = k->disk_fill > 0 ? (double)k->disk_free / k->disk_fill : INFINITY;
}

static void look_at_disk(struct look *k, const struct look_memory *m, const char *dir)
{
    char path[4200];
    struct stat st;
    k->disk_known = disk_free(dir, &k->disk_free, &k->disk_size);
    k->disk_seconds = history_seconds_to_zero(&m->free_bytes);
    k->disk_fill = NAN;
    take_the_writers_disk(k);
    if (k->disk_known && k->disk_free == 0)
        k->disk_seconds = 0; /* one that is full does not fill any more */
    if (dbdir_path(path, sizeof path, dir, "data.mdb") == 0 && stat(path, &st) == 0)
        k->store_bytes = (uint64_t)st.st_blocks * 512;
}

/* ---- the whole ---- */

static void note_head(struct look_memory *m, const struct gauges_shm *g, uint64_t now_ns)
{
    history_add(&m->head, now_ns, gauge_get(&g->head_event));
    history_add(&m->head_txn, now_ns, gauge_get(&g->head_txn));
}

void look_note(struct look_memory *m, const char *dir)
{
    struct segment_name name;
    struct gauges *g = NULL;
    uint64_t now_ns = clock_mono_ns(), free_bytes, size;
    if (segment_name_of(dir, &name, NULL) == 0 && gauges_attach(&name, 0, &g, NULL) == 0)
        note_head(m, g->g, now_ns);
    else
        g = NULL;
    recent_note(&m->recent, g, now_ns);
    gauges_detach(g);
    if (disk_free(dir, &free_bytes, &size))
        history_add(&m->free_bytes, now_ns, free_bytes);
}

void look_at(struct look *k, const struct look_memory *m, uint64_t lapse_ms)
{
    k->now_ns = clock_mono_ns();
    k->wall_ns = clock_wall_ns();
    k->writer_beat_age = k->feed_beat_age = NAN;
    view_pauses(&k->v, k->now_ns, &k->pauses);
    if (k->v.gauges) {
        look_at_projections(k, m, lapse_ms * NS_PER_MS);
        k->writer_beat_age = since(k->now_ns, gauge_get(&k->v.gauges->g->writer_heartbeat_ns));
        k->feed_beat_age = since(k->now_ns, gauge_get(&k->v.gauges->g->feed_heartbeat_ns));
    }
    if (k->v.segment) {
        view_count(k->v.segment, &k->counts);
        look_at_stripes(k);
    }
    /* Where we may not ask the kernel who lives, the heartbeat tells; who may not look into the segment
     * has the gauges, which more may read. */
    int alive = k->v.writer_alive >= 0 ? k->v.writer_alive : k->writer_beat_age <= LOOK_HANGS_S;
    int in_force = k->v.segment ? !segment_retired(k->v.segment)
                                : k->v.segment_err.code == AZOTH_ERR_PERMISSION;
    k->up = alive && in_force;
    look_at_pins(k);
    look_at_file_pins(k);
    look_at_backups(k, m);
    look_at_disk(k, m, k->v.dir);
}

void look_open(struct look *k, const struct look_memory *m, const char *dir, uint64_t lapse_ms)
{
    memset(k, 0, sizeof *k);
    view_open(&k->v, dir);
    look_at(k, m, lapse_ms);
}

void look_close(struct look *k)
{
    view_close(&k->v);
}
