/* top_look.c - what azoth top shows: one look, and what has changed since the one before. */
#include "client/cmd/top.h"

#include "core/clock.h"

#include <string.h>

/* Counters go back when a segment is made anew, and with a row's next owner. */
static uint64_t since(uint64_t now, uint64_t before)
{
    return now >= before ? now - before : now;
}

static void copy_histogram(struct histogram_shm *to, const struct histogram_shm *from)
{
    for (uint32_t b = 0; b < SHM_HISTOGRAM_BUCKETS; b++)
        gauge_set(&to->bucket[b], gauge_get(&from->bucket[b]));
}

static void take_gauges(struct top *t)
{
    const struct gauges_shm *g = t->v.gauges->g;
    const struct histogram_shm *const from[TOP_HISTOGRAMS] = {
        [TOP_COMMIT] = &g->commit_ns, [TOP_PREFLIGHT] = &g->preflight_ns,
        [TOP_QUEUE] = &g->queue_ns,   [TOP_BATCH] = &g->batch_size,
        [TOP_LAG] = &g->lag_ns,       [TOP_APPLY] = &g->apply_ns};
    t->now.commits = gauge_get(&g->commits);
    t->now.transactions = gauge_get(&g->transactions);
    t->now.events = gauge_get(&g->events);
    for (int i = 0; i < TOP_HISTOGRAMS; i++)
        copy_histogram(&t->now.histogram[i], from[i]);
}

static void take_segment(struct top *t)
{
    const struct segment *s = t->v.segment;
    for (uint32_t i = 0; i < SHM_REFUSALS; i++)
        t->now.refused += gauge_get(&s->contention->refused_by[i]);
    for (uint32_t i = 0; i < s->stripes && i < SHM_STRIPES_MAX; i++)
        t->now.stripe_waits += gauge_get(&s->stripe[i].waits);
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        const struct participant_shm *p = &s->participant[i];
        t->now.row[i] = (struct top_counts){.word = atomic_load((A64 *)&p->word),
                                            .submitted = gauge_get(&p->submitted),
                                            .refused = gauge_get(&p->refused),
                                            .waits = gauge_get(&p->stripe_waits),
                                            .wait_ns = gauge_get(&p->wait_ns),
                                            .held_up_ns = gauge_get(&p->held_up_ns)};
    }
}

static double rate(const struct top *t, uint64_t now, uint64_t before)
{
    double s = (double)(t->now.at_ns - t->before.at_ns) / 1e9;
    return t->before.at_ns && s > 0 ? (double)since(now, before) / s : -1;
}

static void list_process(struct top *t, uint32_t i)
{
    const struct participant_shm *p = &t->v.segment->participant[i];
    const struct top_counts *c = &t->now.row[i], *b = &t->before.row[i];
    struct top_process *out = &t->process[t->processes++];
    char name[sizeof p->name + 1] = {0};
    memcpy(name, p->name, sizeof p->name);
    *out = (struct top_process){.pid = atomic_load((A32 *)&p->pid),
                                .kind = atomic_load((A32 *)&p->kind),
                                .alive = view_participant_alive(&t->v, i),
                                .submitted_s = -1,
                                .refused_s = -1,
                                .waits_s = -1,
                                .waited = -1,
                                .held_up = -1};
    bytes_print(bytes_str(name), out->name, sizeof out->name);
    if (c->word != b->word)
        return;
    out->submitted_s = rate(t, c->submitted, b->submitted);
    out->refused_s = rate(t, c->refused, b->refused);
    out->waits_s = rate(t, c->waits, b->waits);
    out->waited = rate(t, c->wait_ns, b->wait_ns) / 1e9;
    out->held_up = rate(t, c->held_up_ns, b->held_up_ns) / 1e9;
}

/* ---- history ---- */

static void add(struct top_track *k, double value)
{
    if (k->len == TOP_HISTORY)
        memmove(k->value, k->value + 1, (TOP_HISTORY - 1) * sizeof *k->value);
    else
        k->len++;
    k->value[k->len - 1] = value;
}

static int is_track_of(const struct top_track *k, const struct projection_row *r)
{
    return k->len && k->shard == r->shard && k->shards == r->shards &&
           strcmp(k->name, r->name) == 0;
}

const struct top_track *top_track_of(const struct top *t, const struct lag_row *row)
{
    for (uint32_t i = 0; i < TOP_TRACKS; i++)
        if (is_track_of(&t->track[i], &row->r))
            return &t->track[i];
    return NULL;
}

static void track_projection(struct top *t, const struct lag_row *row)
{
    struct top_track *k = (struct top_track *)top_track_of(t, row);
    for (uint32_t i = 0; !k && i < TOP_TRACKS; i++)
        if (t->track[i].len == 0)
            k = &t->track[i];
    if (!k)
        return;
    snprintf(k->name, sizeof k->name, "%s", row->r.name);
    k->shard = row->r.shard;
    k->shards = row->r.shards;
    k->used = 1;
    add(k, (double)row->behind);
}

static void track(struct top *t)
{
    for (uint32_t i = 0; i < TOP_TRACKS; i++)
        t->track[i].used = 0;
    for (uint32_t i = 0; i < t->lag.rows; i++)
        track_projection(t, &t->lag.row[i]);
    for (uint32_t i = 0; i < TOP_TRACKS; i++)
        if (!t->track[i].used)
            t->track[i].len = 0; /* it is gone */
    if (t->transactions_s >= 0)
        add(&t->throughput, t->transactions_s);
}

/* ---- the look ---- */

void top_look(struct top *t)
{
    lag_look(&t->lag); /* before the view: it may wait */
    t->before = t->now;
    memset(&t->now, 0, sizeof t->now);
    view_open(&t->v, t->lag.dir);
    t->now.at_ns = clock_mono_ns();
    memset(&t->counts, 0, sizeof t->counts);
    if (t->v.gauges)
        take_gauges(t);
    if (t->v.segment) {
        view_count(t->v.segment, &t->counts);
        take_segment(t);
    }
    view_pauses(&t->v, t->now.at_ns, &t->pauses);
    culprits_look(&t->v, t->before.at_ns ? t->stripe_before : NULL, t->now.at_ns, &t->culprits);
    for (uint32_t i = 0; t->v.segment && i < t->v.segment->stripes && i < SHM_STRIPES_MAX; i++)
        t->stripe_before[i] = gauge_get(&t->v.segment->stripe[i].waits);
    t->commits_s = rate(t, t->now.commits, t->before.commits);
    t->transactions_s = rate(t, t->now.transactions, t->before.transactions);
    t->events_s = rate(t, t->now.events, t->before.events);
    t->refused_s = rate(t, t->now.refused, t->before.refused);
    t->waits_s = rate(t, t->now.stripe_waits, t->before.stripe_waits);
    t->processes = 0;
    for (uint32_t i = 0; t->v.segment && i < SHM_PARTICIPANTS; i++)
        if ((t->now.row[i].word & 0xff) == PARTICIPANT_LIVE)
            list_process(t, i);
    track(t);
}

void top_unlook(struct top *t)
{
    view_close(&t->v);
}

double top_quantile(const struct top *t, int histogram, double q)
{
    static struct histogram_shm fresh;
    uint64_t n = 0;
    for (uint32_t b = 0; b < SHM_HISTOGRAM_BUCKETS; b++) {
        uint64_t now = gauge_get(&t->now.histogram[histogram].bucket[b]);
        uint64_t was = gauge_get(&t->before.histogram[histogram].bucket[b]);
        gauge_set(&fresh.bucket[b], since(now, was));
        n += since(now, was);
    }
    return n ? (double)histogram_at(&fresh, q) : -1;
}
