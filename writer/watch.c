#include "writer/watch.h"

#include "core/clock.h"

#include <string.h>
#include <sys/statvfs.h>

#define RATE_OVER_NS (3600.0 * 1e9)
#define DAY_NS       (86400.0 * 1e9)

void watch_rate_step(struct watch_rate *r, uint64_t now_ns, double value)
{
    if (r->first_ns == 0) {
        *r = (struct watch_rate){.first_ns = now_ns, .last_ns = now_ns, .last = value};
        return;
    }
    if (now_ns <= r->last_ns)
        return;
    double passed = (double)(now_ns - r->last_ns), since = (double)(now_ns - r->first_ns);
    double share = passed / (since < RATE_OVER_NS ? since : RATE_OVER_NS);
    r->per_ns += ((value - r->last) / passed - r->per_ns) * (share < 1 ? share : 1);
    r->last = value;
    r->last_ns = now_ns;
}

/* ---- the disk ---- */

static void look_at_disk(struct watch *w, const char *dir, struct gauges_shm *g, uint64_t now_ns)
{
    struct statvfs fs;
    if (statvfs(dir, &fs))
        return; /* the gauges keep what was seen last */
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    watch_rate_step(&w->fill, now_ns, -(double)free_bytes);
    double day = w->fill.per_ns * DAY_NS;
    gauge_set(&g->disk_free_bytes, free_bytes);
    gauge_set(&g->disk_total_bytes, (uint64_t)fs.f_blocks * fs.f_frsize);
    gauge_set(&g->disk_fill_bytes_day, day > 0 && day < 1e18 ? (uint64_t)day : 0);
    gauge_set(&g->disk_watched_ns, w->fill.first_ns);
}

/* ---- pinned pages ---- */

/* When this snapshot of this reader was first seen; now, when it was not there at the last look. */
static uint64_t seen_since(const struct watch *w, const struct store_reader *r, uint64_t now_ns)
{
    for (uint32_t i = 0; i < w->seen_len; i++) {
        const struct store_reader *old = &w->seen[i].reader;
        if (old->pid == r->pid && old->thread == r->thread && old->snapshot == r->snapshot)
            return w->seen[i].since_ns;
    }
    return now_ns;
}

/* The oldest ones that commits have gone past, oldest first; their number. */
static uint32_t oldest(const struct watch *w, uint32_t n, uint64_t now_ns, struct watch_seen *out)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct store_reader *r = &w->reader[i];
        if (r->behind == 0 || (kept == SHM_PINS && r->behind <= out[kept - 1].reader.behind))
            continue;
        uint32_t at = kept < SHM_PINS ? kept++ : kept - 1;
        for (; at > 0 && out[at - 1].reader.behind < r->behind; at--)
            out[at] = out[at - 1];
        out[at] = (struct watch_seen){*r, seen_since(w, r, now_ns)};
    }
    return kept;
}

static void look_at_readers(struct watch *w, struct store *store, struct gauges_shm *g,
                            uint64_t now_ns)
{
    struct watch_seen found[SHM_PINS];
    uint32_t n = 0;
    if (store_readers(store, w->reader, STORE_READERS_MAX, &n))
        return;
    n = oldest(w, n, now_ns, found);
    for (uint32_t i = 0; i < SHM_PINS; i++) {
        struct pin_shm *p = &g->pin[i];
        gauge_set(&p->pid, 0); /* who reads meanwhile takes the list to end here */
        if (i >= n)
            continue;
        gauge_set(&p->thread, found[i].reader.thread);
        gauge_set(&p->behind, found[i].reader.behind);
        gauge_set(&p->since_ns, found[i].since_ns);
        gauge_set(&p->pid, found[i].reader.pid);
    }
    memcpy(w->seen, found, n * sizeof *found);
    w->seen_len = n;
}

void watch_step(struct watch *w, struct store *store, const char *dir, struct gauges_shm *g,
                uint64_t now_ns)
{
    look_at_disk(w, dir, g, now_ns);
    look_at_readers(w, store, g, now_ns);
    gauge_set(&g->looked_ns, now_ns);
}
