#include "exporter/recent.h"

#include <string.h>

const struct recent_point *recent_at(const struct recent *r, uint32_t i)
{
    return &r->point[(r->first + i) % RECENT_POINTS];
}

/* The value that the q-th part of what was counted since `before` does not exceed. */
static uint64_t quantile(const uint64_t *before, const uint64_t *after, double q)
{
    uint64_t total = 0, seen = 0;
    for (uint32_t b = 0; b < SHM_HISTOGRAM_BUCKETS; b++)
        total += after[b] - before[b];
    if (total == 0)
        return RECENT_NONE;
    for (uint32_t b = 0; b < SHM_HISTOGRAM_BUCKETS; b++) {
        seen += after[b] - before[b];
        if ((double)seen > q * (double)total || seen == total)
            return histogram_bucket_end(b);
    }
    return RECENT_NONE;
}

static void measure(struct recent *r, struct recent_point *p, const struct gauges_shm *g)
{
    uint64_t transactions = gauge_get(&g->transactions), events = gauge_get(&g->events);
    uint64_t bucket[SHM_HISTOGRAM_BUCKETS];
    int grew = r->at_ns && transactions >= r->transactions && events >= r->events;
    for (uint32_t b = 0; b < SHM_HISTOGRAM_BUCKETS; b++) {
        bucket[b] = gauge_get(&g->commit_ns.bucket[b]);
        grew = grew && bucket[b] >= r->bucket[b]; /* gauges that were made anew begin at 0 */
    }
    if (grew) {
        p->span_ns = p->at_ns - r->at_ns;
        p->transactions = transactions - r->transactions;
        p->events = events - r->events;
        p->p50_ns = quantile(r->bucket, bucket, 0.5);
        p->p99_ns = quantile(r->bucket, bucket, 0.99);
    }
    r->at_ns = p->at_ns;
    r->transactions = transactions;
    r->events = events;
    memcpy(r->bucket, bucket, sizeof bucket);
}

static void measure_lag(struct recent_point *p, const struct gauges *g)
{
    struct projection_row row;
    uint64_t cursor[SHM_PROJECTIONS];
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++)
        cursor[i] = projection_row_read(g, i, &row) ? row.cursor : RECENT_NONE;
    uint64_t head = gauge_get(&g->g->head_event);
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++)
        if (cursor[i] != RECENT_NONE)
            p->lag[i] = head > cursor[i] ? head - cursor[i] : 0;
}

void recent_note(struct recent *r, const struct gauges *g, uint64_t now_ns)
{
    if (r->len == RECENT_POINTS) {
        r->first = (r->first + 1) % RECENT_POINTS;
        r->len--;
    }
    struct recent_point *p = &r->point[(r->first + r->len++) % RECENT_POINTS];
    *p = (struct recent_point){.at_ns = now_ns, .p50_ns = RECENT_NONE, .p99_ns = RECENT_NONE};
    memset(p->lag, 0xff, sizeof p->lag);
    if (g) {
        measure(r, p, g->g);
        measure_lag(p, g);
    } else {
        r->at_ns = 0;
    }
}
