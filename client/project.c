/*
 * project.c - projections in a process that has the database open: the projector's table, filled from the store.
 *
 * A turn of one shard: dead letters that are due, then a batch of the log. What waits (an event to be tried
 * again, an open breaker) is left to the caller of run_once, and waited for by run. No snapshot is open while
 * something is waited for.
 */
#include "client/internal.h"

#include "client/fill.h"
#include "core/clock.h"
#include "core/dbdir.h"
#include "projector/replay.h"
#include "projector/split.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define BATCH_EVENTS 1000u
#define BATCH_NS     (100 * NS_PER_MS)
#define IDLE_NS      NS_PER_S /* without work for so long: the WAL's space goes back */

struct shard {
    struct table *table;
    struct fill *fill;
};

struct projecting {
    struct azoth *db;
    const struct azoth_projection_options *o;
    struct sqlfile def;
    struct shard shard[SPLIT_MAX];
    uint32_t shards;
    uint64_t batch;        /* events of the next transaction */
    struct gauges *gauges; /* NULL: there are none, or this handle is read-only */
    uint64_t gauges_ns;    /* when that was looked at last; 0: never */
};

#define GAUGES_LOOK_NS NS_PER_S

static void on_failure(void *arg, enum failure_action action, uint64_t event, const char *error)
{
    static const char *const said[] = {
        [FAILURE_SKIPPED] = "skipped",           [FAILURE_DEAD_LETTERED] = "dead-lettered",
        [FAILURE_RETRIES] = "to be tried again", [FAILURE_OPENS] = "breaker open",
        [FAILURE_RETIRED] = "retired",           [FAILURE_MORE] = "more failures"};
    const struct azoth_projection_options *o = arg;
    o->failed(o->arg, said[action], event, error);
}

/* ---- opening ---- */

static int read_definition(struct projecting *p, const char *dir, const char *definition,
                           struct azoth_error *err)
{
    char path[4300];
    size_t n = strlen(definition);
    int file = strchr(definition, '/') || (n > 4 && strcmp(definition + n - 4, ".sql") == 0);
    if (!file && !dbdir_name_valid(definition))
        return error_set(err, AZOTH_ERR_USAGE, "\"%.80s\" is no name of a projection", definition);
    if (!file && dbdir_path(path, sizeof path, dir, "%s.sql", definition))
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir);
    int rc = sqlfile_read(file ? definition : path, &p->def, err);
    if (!rc && !file && strcmp(p->def.name, definition) != 0)
        rc = error_set(err, AZOTH_ERR_PROJECTION, "%s defines projection %s, not %s", p->def.path,
                       p->def.name, definition);
    if (!rc && p->def.effects[0])
        rc = error_set(err, AZOTH_ERR_UNSUPPORTED,
                       "%s: effects are run by azoth-projector and azoth-effects", p->def.path);
    return rc;
}

static int open_shard(struct projecting *p, const char *dir, uint32_t i, struct azoth_error *err)
{
    struct store *store = p->db->local->store;
    struct shard *s = &p->shard[i];
    const struct table_options o = {.dir = dir,
                                    .uuid = store_identity(store)->uuid,
                                    .load = p->o->load,
                                    .accept_changed = p->o->accept_changed,
                                    .shard = i,
                                    .shards = p->shards};
    int rc = table_open(&p->def, &o, &s->table, err);
    if (rc)
        return rc;
    if (p->o->failed)
        table_on_failure(s->table, on_failure, (void *)p->o);
    return fill_open(store, s->table, i, p->shards, p->def.shard_by, &s->fill, err);
}

static void projecting_close(struct projecting *p)
{
    for (uint32_t i = 0; i < p->shards; i++) {
        fill_close(p->shard[i].fill);
        table_close(p->shard[i].table);
    }
    gauges_detach(p->gauges);
    sqlfile_fini(&p->def);
}

static int projecting_open(struct projecting *p, struct azoth *db, const char *definition,
                           const struct azoth_projection_options *o, struct azoth_error *err)
{
    static const struct azoth_projection_options none;
    char dir[4200];
    *p = (struct projecting){.db = db, .o = o ? o : &none, .batch = BATCH_EVENTS};
    int rc = client_allowed(db, AZOTH_ERR_UNSUPPORTED, err);
    if (!rc && db->remote)
        rc = error_set(err, AZOTH_ERR_UNSUPPORTED, "a remote handle has no projections");
    if (!rc && dbdir_path(dir, sizeof dir, db->local->dir, "projections"))
        rc = error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", db->local->dir);
    if (!rc)
        rc = read_definition(p, dir, definition, err);
    if (!rc)
        rc = dbdir_make(dir, 0770, err);
    if (rc)
        return rc;
    p->shards = p->def.shards ? p->def.shards : 1;
    for (uint32_t i = 0; i < p->shards && !rc; i++)
        rc = open_shard(p, dir, i, err);
    return rc;
}

/* ---- what is told of it ---- */

/* They come with a writer and may be taken away: looked after now and then. */
static struct gauges *gauges_now(struct projecting *p, uint64_t now_ns)
{
    struct segment_name name;
    if (p->db->read_only || (p->gauges_ns && now_ns - p->gauges_ns < GAUGES_LOOK_NS))
        return p->gauges;
    p->gauges_ns = now_ns;
    if (p->gauges && gauges_taken(p->gauges)) {
        gauges_detach(p->gauges);
        p->gauges = NULL;
    }
    if (!p->gauges && (segment_name_of(p->db->local->dir, &name, NULL) ||
                       gauges_attach(&name, 1, &p->gauges, NULL)))
        p->gauges = NULL;
    return p->gauges;
}

/* For the histograms, as a projector tells its batches to the feed. */
static void sample(struct projecting *p, const struct shard *s, uint64_t begun_ns, uint64_t now_ns)
{
    int64_t oldest = fill_oldest_ns(s->fill), wall = clock_wall_ns();
    struct gauges *g = oldest ? gauges_now(p, now_ns) : NULL;
    if (!g)
        return;
    histogram_add_shared(&g->g->apply_ns, now_ns - begun_ns);
    histogram_add_shared(&g->g->lag_ns, wall > oldest ? (uint64_t)(wall - oldest) : 0);
}

/* ---- a turn ---- */

static int replay_due(struct shard *s, struct azoth_error *err)
{
    uint64_t begun = clock_mono_ns();
    int tried = 0, rc = 1;
    while (rc > 0 && !table_replay_wait_ns(s->table) && clock_mono_ns() - begun < BATCH_NS) {
        rc = table_replay_step(s->table, err);
        tried |= rc > 0;
    }
    return rc < 0 ? rc : tried;
}

static void adapt(struct projecting *p, uint64_t took_ns)
{
    if (took_ns > BATCH_NS && p->batch > 1)
        p->batch /= 2;
    else if (took_ns < BATCH_NS / 4 && p->batch * 2 <= BATCH_EVENTS)
        p->batch *= 2;
}

/* An enum fill_state: FILL_MORE when something was done. What was released is tried before newer events. */
static int turn(struct projecting *p, struct shard *s, uint64_t to, struct azoth_error *err)
{
    struct table_standing standing;
    uint64_t cursor, at;
    uint32_t check;
    int tried = replay_due(s, err);
    if (tried < 0)
        return tried;
    if (tried && table_has_released(s->table))
        return FILL_MORE;
    table_standing(s->table, &standing);
    if (standing.wait_ns)
        return tried ? FILL_MORE : FILL_STANDS;
    table_cursor(s->table, &cursor, &check);
    uint64_t begun = clock_mono_ns();
    int rc =
        fill_step(s->fill, to > cursor && to - cursor > p->batch ? cursor + p->batch : to, err);
    if (rc < 0 || rc == FILL_STANDS)
        return rc;
    uint64_t ended = clock_mono_ns();
    adapt(p, ended - begun);
    table_cursor(s->table, &at, &check);
    if (at > cursor)
        sample(p, s, begun, ended);
    return tried || at > cursor ? FILL_MORE : FILL_DONE;
}

/* ---- once ---- */

static int stands_error(const struct projecting *p, const struct shard *s, struct azoth_error *err)
{
    struct table_standing standing;
    uint64_t ms;
    table_standing(s->table, &standing);
    ms = standing.wait_ns / NS_PER_MS + 1;
    if (standing.event)
        return error_set(err, AZOTH_ERR_BUSY,
                         "projection %s tries event %" PRIu64 " again in %" PRIu64 " ms: %s",
                         p->def.name, standing.event, ms, standing.error);
    return error_set(err, AZOTH_ERR_BUSY,
                     "projection %s: its breaker is open for %" PRIu64 " ms more", p->def.name, ms);
}

static int all_once(struct projecting *p, uint64_t to, uint64_t *ret_cursor,
                    struct azoth_error *err)
{
    const struct shard *stands = NULL;
    uint64_t least = UINT64_MAX, cursor;
    uint32_t check;
    for (uint32_t i = 0; i < p->shards; i++) {
        struct shard *s = &p->shard[i];
        int rc;
        do
            rc = turn(p, s, to, err);
        while (rc == FILL_MORE);
        if (rc < 0)
            return rc;
        if (rc == FILL_STANDS)
            stands = s;
        table_cursor(s->table, &cursor, &check);
        least = cursor < least ? cursor : least;
    }
    if (stands)
        return stands_error(p, stands, err);
    if (ret_cursor)
        *ret_cursor = least;
    return 0;
}

int azoth_projection_run_once(struct azoth *db, const char *definition,
                              const struct azoth_projection_options *opt, uint64_t *ret_cursor,
                              struct azoth_error *err)
{
    struct projecting *p = malloc(sizeof *p);
    uint64_t head;
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a projection");
    int rc = projecting_open(p, db, definition, opt, err);
    if (!rc)
        rc = azoth_head(db, &head, NULL, err);
    if (!rc)
        rc = all_once(p, head, ret_cursor, err);
    projecting_close(p);
    free(p);
    return rc;
}

/* ---- until it is stopped ---- */

static int stopped(const struct projecting *p, uint64_t until)
{
    return (p->o->stop && __atomic_load_n(p->o->stop, __ATOMIC_RELAXED)) ||
           clock_mono_ns() >= until;
}

struct round {
    int worked;
    uint32_t stand;   /* shards that wait for a time */
    uint64_t wait_ns; /* until the first of them, or a dead letter, is due */
};

static int all_shards(struct projecting *p, struct round *r, struct azoth_error *err)
{
    *r = (struct round){.wait_ns = UINT64_MAX};
    for (uint32_t i = 0; i < p->shards; i++) {
        struct shard *s = &p->shard[i];
        struct table_standing standing;
        int rc = turn(p, s, UINT64_MAX, err);
        if (rc < 0)
            return rc;
        r->worked |= rc == FILL_MORE;
        r->stand += rc == FILL_STANDS;
        table_standing(s->table, &standing);
        uint64_t due = table_replay_wait_ns(s->table);
        if (standing.wait_ns && standing.wait_ns < due)
            due = standing.wait_ns;
        r->wait_ns = due < r->wait_ns ? due : r->wait_ns;
    }
    return 0;
}

/* Where all stand, commits are no reason to look. */
static void wait_for(const struct projecting *p, const struct watch *w, const struct round *r,
                     uint64_t until)
{
    uint64_t now = clock_mono_ns(), ns = until > now ? until - now : 0;
    if (ns > SHM_WAIT_SLICE_NS)
        ns = SHM_WAIT_SLICE_NS;
    if (r->wait_ns < ns)
        ns = r->wait_ns;
    if (r->stand < p->shards) {
        watch_wait(w, ns);
        return;
    }
    struct timespec ts = {0, (long)ns};
    nanosleep(&ts, NULL);
}

static void give_back_space(struct projecting *p)
{
    for (uint32_t i = 0; i < p->shards; i++)
        table_idle(p->shard[i].table);
}

static int run(struct projecting *p, struct azoth_error *err)
{
    uint64_t worked_ns = clock_mono_ns(), until = UINT64_MAX;
    int idle = 0, rc = 0;
    if (p->o->timeout_ms)
        until = worked_ns + p->o->timeout_ms * NS_PER_MS;
    while (!rc && !stopped(p, until)) {
        struct watch w;
        struct round r;
        watch_begin(p->db, &w);
        rc = all_shards(p, &r, err);
        if (r.worked) {
            worked_ns = clock_mono_ns();
            idle = 0;
        } else if (!rc) {
            wait_for(p, &w, &r, until);
        }
        watch_end(p->db, &w);
        if (!idle && clock_mono_ns() - worked_ns > IDLE_NS) {
            give_back_space(p);
            idle = 1;
        }
    }
    return rc;
}

int azoth_projection_run(struct azoth *db, const char *definition,
                         const struct azoth_projection_options *opt, struct azoth_error *err)
{
    struct projecting *p = malloc(sizeof *p);
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a projection");
    int rc = projecting_open(p, db, definition, opt, err);
    if (!rc)
        rc = run(p, err);
    projecting_close(p);
    free(p);
    return rc;
}
