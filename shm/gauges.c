#include "shm/gauges.h"

/* Bucket of a value: its power of two and the next two bits. */
static uint32_t bucket_of(uint64_t v)
{
    if (v < 4)
        return (uint32_t)v;
    uint32_t top = 63 - (uint32_t)__builtin_clzll(v);
    return (top - 1) * 4 + (uint32_t)(v >> (top - 2) & 3);
}

uint64_t histogram_bucket_end(uint32_t b)
{
    if (b < 4)
        return b;
    uint32_t top = b / 4 + 1;
    uint64_t step = 1ull << (top - 2);
    return (4 + (uint64_t)(b & 3)) * step + (step - 1);
}

void histogram_add(struct histogram_shm *h, uint64_t value)
{
    gauge_add(&h->count, 1);
    gauge_add(&h->sum, value);
    if (value > gauge_get(&h->max))
        gauge_set(&h->max, value);
    gauge_add(&h->bucket[bucket_of(value)], 1);
}

void histogram_add_shared(struct histogram_shm *h, uint64_t value)
{
    uint64_t max = gauge_get(&h->max);
    atomic_fetch_add_explicit(&h->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, value, memory_order_relaxed);
    while (value > max && !atomic_compare_exchange_weak(&h->max, &max, value)) {
    }
    atomic_fetch_add_explicit(&h->bucket[bucket_of(value)], 1, memory_order_relaxed);
}

uint64_t histogram_at(const struct histogram_shm *h, double q)
{
    uint64_t total = 0, seen = 0;
    for (uint32_t b = 0; b < SHM_HISTOGRAM_BUCKETS; b++)
        total += gauge_get(&h->bucket[b]);
    if (total == 0)
        return 0;
    uint64_t want = (uint64_t)(q * (double)total), max = gauge_get(&h->max);
    if (want >= total)
        want = total - 1;
    for (uint32_t b = 0; b < SHM_HISTOGRAM_BUCKETS; b++) {
        seen += gauge_get(&h->bucket[b]);
        if (seen > want)
            return max && histogram_bucket_end(b) > max ? max : histogram_bucket_end(b);
    }
    return max;
}
