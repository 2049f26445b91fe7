/* lag_look.c - looking at the lag of projections; see lag.h. */
#include "client/cmd/lag.h"
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "projector/split.h"
#include "projector/table.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STORE_ANSWER_MS 1000u
#define RATE_OVER_NS    (NS_PER_S / 2) /* at least */

/* ---- rows ---- */

static int wanted(const struct lag *g, const char *name)
{
    for (int i = 0; i < g->names.n; i++)
        if (strcmp(g->names.text[i], name) == 0)
            return 1;
    return g->names.n == 0;
}

int lag_has_row(const struct lag *g, const char *name)
{
    for (uint32_t i = 0; i < g->rows; i++)
        if (strcmp(g->row[i].r.name, name) == 0)
            return 1;
    return 0;
}

static uint64_t lapse_ns(const struct lag *g)
{
    return g->config.number[CONFIG_feed_lapse] * NS_PER_MS;
}

static int unheard(const struct lag *g, const struct lag_row *row)
{
    return row->r.heard_ns + lapse_ns(g) < g->now_ns;
}

/* Of the same projection, in as many shards. */
static int same_split(const struct lag_row *a, const struct lag_row *b)
{
    return strcmp(a->r.name, b->r.name) == 0 && a->r.shards == b->r.shards;
}

/* When its split was heard last: a row that lives, in it, counts more than any time. */
static uint64_t split_lives(const struct lag *g, const struct lag_row *row)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < g->rows; i++) {
        const struct lag_row *a = &g->row[i];
        if (!same_split(a, row))
            continue;
        int gone = a->r.state == PROJECTION_STOPPED || unheard(g, a);
        uint64_t n = gone ? a->r.heard_ns : UINT64_MAX;
        most = n > most ? n : most;
    }
    return most;
}

/* A projection that was split anew leaves its old shards' rows: what is told is the split that lives; both,
 * while the new files are filled. */
static void drop_old_splits(struct lag *g)
{
    uint64_t lives[LAG_ROWS_MAX];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->rows; i++)
        lives[i] = split_lives(g, &g->row[i]);
    /* Decided against all rows: marked first, moved below. */
    for (uint32_t i = 0; i < g->rows; i++) {
        g->row[i].seen = 1;
        for (uint32_t k = 0; k < g->rows; k++)
            if (lives[k] > lives[i] && strcmp(g->row[k].r.name, g->row[i].r.name) == 0)
                g->row[i].seen = 0;
    }
    for (uint32_t i = 0; i < g->rows; i++)
        if (g->row[i].seen)
            g->row[kept++] = g->row[i];
    g->rows = kept;
}

/* A row of one that was not heard of. */
static void add_shard(struct lag *g, const char *name, uint32_t shard, uint32_t shards)
{
    if (g->rows == LAG_ROWS_MAX) {
        g->left_out++;
        return;
    }
    struct lag_row *row = &g->row[g->rows++];
    memset(row, 0, sizeof *row);
    snprintf(row->r.name, sizeof row->r.name, "%s", name);
    row->r.shard = shard;
    row->r.shards = shards;
}

static void add_definition(struct lag *g, const char *projections, const char *name)
{
    uint32_t shards = 1;
    split_serving(projections, name, &shards, NULL);
    for (uint32_t i = 0; i < shards; i++)
        add_shard(g, name, i, shards);
}

static void add_definitions(struct lag *g)
{
    char path[4200];
    struct dirent **list;
    if (dbdir_path(path, sizeof path, g->dir, "projections"))
        return;
    int n = cmd_definitions(g->dir, &list, NULL);
    for (int i = 0; i < n; i++)
        if (wanted(g, list[i]->d_name) && !lag_has_row(g, list[i]->d_name))
            add_definition(g, path, list[i]->d_name);
    cmd_definitions_free(list, n);
}

static int has_shard(const struct lag *g, const struct lag_row *of, uint32_t shard)
{
    for (uint32_t i = 0; i < g->rows; i++)
        if (same_split(&g->row[i], of) && g->row[i].r.shard == shard)
            return 1;
    return 0;
}

/* One of a split that never reported is as far behind as its file says, or has applied nothing. */
static void add_missing_shards(struct lag *g)
{
    uint32_t reported = g->rows;
    for (uint32_t i = 0; i < reported; i++) {
        const struct lag_row *of = &g->row[i];
        for (uint32_t n = 0; n < of->r.shards && n < SPLIT_MAX; n++)
            if (!has_shard(g, of, n))
                add_shard(g, of->r.name, n, of->r.shards);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct lag_row *x = a, *y = b;
    int c = strcmp(x->r.name, y->r.name);
    return c ? c : (int)x->r.shard - (int)y->r.shard;
}

/* Not heard of: what its own file says is nearer to the truth than the last report. */
static int silent(const struct lag *g, const struct lag_row *row)
{
    return g->feed_alive == 0 || unheard(g, row);
}

/* The row is older than the file: it was written after the last report, or without one. */
static void date_file(const char *projections, struct lag_row *row)
{
    static const char *const suffix[] = {"", "-wal"};
    char path[4300], stem[SPLIT_STEM], real[4096];
    struct stat st;
    split_stem(stem, row->r.name, row->r.shard, row->r.shards);
    if (dbdir_path(path, sizeof path, projections, "%s.db", stem) || !realpath(path, real))
        return;
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s", real, suffix[i]);
        if (stat(path, &st) == 0) {
            int64_t at = st.st_mtim.tv_sec * (int64_t)NS_PER_S + st.st_mtim.tv_nsec;
            row->file_wall_ns = at > row->file_wall_ns ? at : row->file_wall_ns;
        }
    }
}

static int on_cursor(void *arg, int n, const char *const *names, const struct query_value *values)
{
    struct lag_row *row = arg;
    (void)names;
    if (n == 1 && values && values[0].type == QUERY_INTEGER && values[0].integer >= 0) {
        row->r.cursor = (uint64_t)values[0].integer;
        row->in_file = 1;
    }
    return 0;
}

static void ask_file(const char *projections, struct lag_row *row)
{
    const struct projection_row *r = &row->r;
    query_run_shard(projections, r->name, r->shard, r->shards,
                    "SELECT cursor FROM azoth_projection", on_cursor, row, NULL);
    /* Of effects that is how far they were taken. Others have no such table. */
    if (row->in_file)
        query_run_shard(projections, r->name, r->shard, r->shards,
                        "SELECT min(id) - 1 FROM azoth_effects WHERE again = 0", on_cursor, row,
                        NULL);
}

static void ask_files(struct lag *g)
{
    char path[4200];
    if (dbdir_path(path, sizeof path, g->dir, "projections"))
        return;
    for (uint32_t i = 0; i < g->rows; i++) {
        struct lag_row *row = &g->row[i];
        uint64_t told = row->r.cursor;
        if (!row->seen || silent(g, row))
            ask_file(path, row);
        if (row->in_file && row->r.cursor > told)
            date_file(path, row);
    }
}

/* What it left when it ended, or what the feed was told of one that does not go on. */
static void ask_failures(struct lag *g)
{
    char path[4200], stem[SPLIT_STEM];
    if (dbdir_path(path, sizeof path, g->dir, "projections"))
        return;
    for (uint32_t i = 0; i < g->rows; i++) {
        struct lag_row *row = &g->row[i];
        split_stem(stem, row->r.name, row->r.shard, row->r.shards);
        row->failed = last_read(path, stem, &row->last);
        if (row->failed || !*row->r.error)
            continue;
        row->failed = 1;
        row->last = (struct last_words){.event = row->r.stands_event, .times = 1};
        snprintf(row->last.message, sizeof row->last.message, "%s", row->r.error);
        int64_t wall = clock_wall_ns(), mono = (int64_t)clock_mono_ns();
        if (row->r.failed_ns)
            row->last.since_ns = wall - (mono - (int64_t)row->r.failed_ns);
        if (row->r.heard_ns)
            row->last.at_ns = wall - (mono - (int64_t)row->r.heard_ns);
    }
}

/* Events a second since an earlier look; -1 when that is too near, or it went back. */
static double rate_since(uint64_t then_ns, uint64_t was, uint64_t now_ns, uint64_t is)
{
    if (then_ns == 0 || now_ns < then_ns + RATE_OVER_NS || is < was)
        return -1;
    return (double)(is - was) * 1e9 / (double)(now_ns - then_ns);
}

static void read_head(struct lag *g, const struct view *v)
{
    g->head = 0;
    g->head_rate = -1;
    g->head_known = v->gauges != NULL;
    if (!v->gauges)
        return;
    const struct gauges_shm *s = v->gauges->g;
    uint64_t then_ns = gauge_get(&s->head_mark_ns), was = gauge_get(&s->head_mark_event);
    if (then_ns == 0) {
        then_ns = gauge_get(&s->head_next_ns);
        was = gauge_get(&s->head_next_event);
    }
    g->head = gauge_get(&s->head_event);
    g->head_rate = rate_since(then_ns, was, clock_mono_ns(), g->head);
}

void lag_read_rows(struct lag *g)
{
    struct view v;
    view_open(&v, g->dir);
    g->rows = g->left_out = 0;
    g->feed_alive = v.feed_alive;
    g->now_ns = clock_mono_ns();
    view_pauses(&v, g->now_ns, &g->pauses);
    for (uint32_t i = 0; v.gauges && i < SHM_PROJECTIONS; i++) {
        struct lag_row *row = &g->row[g->rows];
        memset(row, 0, sizeof *row);
        if (projection_row_read(v.gauges, i, &row->r) && wanted(g, row->r.name))
            g->rows++;
    }
    drop_old_splits(g);
    add_missing_shards(g);
    add_definitions(g);
    qsort(g->row, g->rows, sizeof *g->row, by_name);
    ask_files(g);
    ask_failures(g);
    read_head(g, &v);
    g->followers = view_followers(&v, g->follower, MARKS_MAX);
    view_close(&v);
}

/* ---- the store's part ---- */

struct question {
    uint32_t n;
    uint64_t head;
    uint64_t id[LAG_ROWS_MAX];
    int64_t time_ns[LAG_ROWS_MAX]; /* 0: there is no such event */
    uint64_t head_txn;
    struct mark mark[MARKS_MAX];
    int64_t mark_time_ns[MARKS_MAX]; /* of the oldest event that it lacks; 0: there is none */
    uint32_t marks;
};

static int event_time(struct snapshot *sn, uint64_t id, int64_t *ret, struct azoth_error *err)
{
    struct event_stamp stamp = {0};
    int rc = snapshot_event(sn, id, &stamp, err);
    if (rc == 1)
        *ret = stamp.time_ns;
    return rc < 0 ? rc : 0;
}

static int ask_marks(struct snapshot *sn, const struct store_head *head, struct question *q,
                     struct azoth_error *err)
{
    q->head_txn = head->txn;
    int rc = snapshot_marks(sn, q->mark, MARKS_MAX, &q->marks, err);
    for (uint32_t i = 0; !rc && i < q->marks; i++)
        if (q->mark[i].event < head->event)
            rc = event_time(sn, q->mark[i].event + 1, &q->mark_time_ns[i], err);
    return rc;
}

static int ask_times(struct store *s, void *arg, struct azoth_error *err)
{
    struct question *q = arg;
    struct snapshot *sn;
    struct store_head head;
    int rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    if (!rc)
        q->head = head.event;
    if (!rc)
        rc = ask_marks(sn, &head, q, err);
    for (uint32_t i = 0; !rc && i < q->n; i++)
        if (q->id[i] <= q->head)
            rc = event_time(sn, q->id[i], &q->time_ns[i], err);
    snapshot_end(sn);
    return rc;
}

static double since(uint64_t now_ns, uint64_t then_ns)
{
    if (then_ns == 0)
        return -1;
    return now_ns > then_ns ? (double)(now_ns - then_ns) / 1e9 : 0;
}

/*
 * The age of the oldest event that is not applied. Its own time is the wall clock's, which may have
 * jumped since: ahead, and it looks too old; back, and it lies in the future, which says nothing. But it
 * is younger than the moment when the projection was last at the head.
 */
static double age(const struct lag *g, const struct lag_row *row, int64_t then_ns)
{
    double most = since(g->now_ns, row->r.at_head_ns);
    double own = then_ns == 0                               ? -1
                 : g->wall_ns >= then_ns                    ? (double)(g->wall_ns - then_ns) / 1e9
                 : then_ns - g->wall_ns < (int64_t)NS_PER_S ? 0
                                                            : -1;
    if (own < 0 || (most >= 0 && most < own))
        return most;
    return own;
}

static const char *state_of(const struct lag *g, const struct lag_row *row)
{
    uint64_t head = !g->head_known      ? UINT64_MAX
                    : g->store_err.code ? projection_row_head(&row->r, g->head)
                                        : g->head;
    if (!row->seen && !row->in_file && !row->failed)
        return "unseen";
    const char *state = projection_row_state(&row->r, head, g->feed_alive, g->now_ns, lapse_ns(g));
    /* Its last report was before that, or none was heard. */
    if (strcmp(state, projection_state_name(PROJECTION_SILENT)) == 0 && row->failed &&
        row->last.code)
        return projection_state_name(PROJECTION_FAILED);
    return state;
}

static double since_progress(const struct lag *g, const struct lag_row *row)
{
    if (row->file_wall_ns == 0)
        return since(g->now_ns, row->r.progress_ns);
    return g->wall_ns > row->file_wall_ns ? (double)(g->wall_ns - row->file_wall_ns) / 1e9 : 0;
}

static double catch_up(const struct lag *g, const struct lag_row *row)
{
    double gain = row->rate - (g->head_rate > 0 ? g->head_rate : 0);
    if (!g->head_known)
        return -1;
    if (row->behind == 0)
        return 0;
    return row->rate > 0 && gain > 0 ? (double)row->behind / gain : -1;
}

double lag_until(const struct lag *g, uint64_t then_ns)
{
    if (then_ns == 0)
        return -1;
    return then_ns > g->now_ns ? (double)(then_ns - g->now_ns) / 1e9 : 0;
}

const char *lag_name(const struct lag_row *row, char out[96])
{
    if (row->r.shards > 1)
        snprintf(out, 96, "%s %u/%u", row->r.name, row->r.shard, row->r.shards);
    else
        snprintf(out, 96, "%s", row->r.name);
    return out;
}

static void fill_backups(struct lag *g, const struct question *q)
{
    g->backups = q ? q->marks : 0;
    for (uint32_t i = 0; i < g->backups; i++) {
        const struct mark *m = &q->mark[i];
        struct lag_backup *b = &g->backup[i];
        int64_t then = q->mark_time_ns[i] ? q->mark_time_ns[i] : m->since_ns;
        bytes_hex(b->place, m->place, MARK_PLACE);
        b->event = m->event;
        b->txn = m->txn;
        b->behind = q->head > m->event ? q->head - m->event : 0;
        b->txns_behind = q->head_txn > m->txn ? q->head_txn - m->txn : 0;
        b->seconds_behind = !b->txns_behind      ? 0
                            : g->wall_ns >= then ? (double)(g->wall_ns - then) / 1e9
                                                 : 0;
        b->followed = m->followed;
        b->state = view_place_state(m, g->follower, g->followers, b->place);
    }
}

void lag_look(struct lag *g)
{
    lag_read_rows(g);
    g->store_err.code = 0;
    struct question *q = calloc(1, sizeof *q);
    if (q) {
        q->n = g->rows;
        for (uint32_t i = 0; i < g->rows; i++)
            q->id[i] = g->row[i].r.cursor + 1;
        int rc = cmd_ask_store(g->dir, ask_times, q, STORE_ANSWER_MS, &g->store_err);
        if (rc == AZOTH_ERR_TIMEOUT) {
            q = NULL; /* the thread's now */
        } else if (!rc) {
            g->head = q->head;
            g->head_known = 1;
        }
    }
    g->now_ns = clock_mono_ns();
    g->wall_ns = clock_wall_ns();
    fill_backups(g, q);
    for (uint32_t i = 0; i < g->rows; i++) {
        struct lag_row *row = &g->row[i];
        row->behind = g->head > row->r.cursor ? g->head - row->r.cursor : 0;
        row->seconds_behind = !g->head_known     ? -1
                              : row->behind == 0 ? 0
                              : q                ? age(g, row, q->time_ns[i])
                                                 : -1;
        row->since_progress = since_progress(g, row);
        row->since_heard = since(g->now_ns, row->r.heard_ns);
        row->state = state_of(g, row);
        row->rate = rate_since(row->r.rate_ns, row->r.rate_cursor, g->now_ns, row->r.cursor);
        row->catch_up = catch_up(g, row);
    }
    free(q);
}
