/*
 * recent.h - the last minutes, second by second: what the page's plots show, as soon as it opens.
 *
 * Plain memory, one thread.
 */
#ifndef EXPORTER_RECENT_H
#define EXPORTER_RECENT_H

#include "shm/gauges.h"
#include "shm/projection_row.h"

#define RECENT_POINTS 180u
#define RECENT_NONE   UINT64_MAX /* not known: no gauges, no commit in this second, no such row */

struct recent_point {
    uint64_t at_ns;                         /* running time */
    uint64_t span_ns, transactions, events; /* since the point before; span_ns 0: not known */
    uint64_t p50_ns, p99_ns;                /* of the commits in between */
    uint64_t lag[SHM_PROJECTIONS];          /* events, by row */
};

/* Zeroed to begin. */
struct recent {
    uint32_t first, len;
    struct recent_point point[RECENT_POINTS];
    /* what the next point is measured against; at_ns 0: nothing */
    uint64_t at_ns, transactions, events, bucket[SHM_HISTOGRAM_BUCKETS];
};

/* Adds a point. g NULL: there is nothing to see. */
void recent_note(struct recent *r, const struct gauges *g, uint64_t now_ns);
/* i from 0, the oldest, to r->len. */
const struct recent_point *recent_at(const struct recent *r, uint32_t i);

#endif
