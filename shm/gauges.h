/* gauges.h - counters and histograms: no lock, no allocation. One process writes each, but for the histograms of what
 * projections do. */
#ifndef SHM_GAUGES_H
#define SHM_GAUGES_H

#include "shm/segment.h"

static inline void gauge_add(A64 *g, uint64_t n)
{
    atomic_store_explicit(g, atomic_load_explicit(g, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void gauge_set(A64 *g, uint64_t n)
{
    atomic_store_explicit(g, n, memory_order_relaxed);
}
static inline uint64_t gauge_get(const A64 *g)
{
    return atomic_load_explicit((A64 *)g, memory_order_relaxed);
}

/* Log-linear buckets, four to a power of two (after HdrHistogram): within 25% of the value. */
void histogram_add(struct histogram_shm *h, uint64_t value);
/* The same where several processes add at once. */
void histogram_add_shared(struct histogram_shm *h, uint64_t value);
/* The greatest value that is counted in this bucket. */
uint64_t histogram_bucket_end(uint32_t bucket);
/* The value at quantile q (0 to 1): the upper bound of its bucket, at most the greatest value if that is known
 * (max is not 0); 0 when empty. */
uint64_t histogram_at(const struct histogram_shm *h, double q);

#endif
