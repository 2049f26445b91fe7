#include "writer/watch.h"

#include "core/clock.h"

#include <stdlib.h>
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
    struct pinned told[SHM_PINS];
    uint32_t n = 0;
    if (store_readers(store, w->reader, STORE_READERS_MAX, &n))
        return;
    n = oldest(w, n, now_ns, found);
    for (uint32_t i = 0; i < n; i++) {
        told[i] = (struct pinned){.pid = found[i].reader.pid,
                                  .place = found[i].reader.thread,
                                  .behind = found[i].reader.behind,
                                  .since_ns = found[i].since_ns};
        process_name(told[i].pid, told[i].program, told[i].unit);
    }
    pins_write(g->pin, told, n);
    memcpy(w->seen, found, n * sizeof *found);
    w->seen_len = n;
}

/* ---- WALs of projections ---- */

/* When this mark of this file was first seen held by this process; now, when it was not at the last look. */
static uint64_t held_since(const struct watch *w, const struct wal_pin *p, uint64_t now_ns)
{
    for (uint32_t i = 0; i < w->files; i++) {
        const struct wal_pin *old = &w->file[i].pin;
        if (old->pid == p->pid && old->mark == p->mark && strcmp(old->stem, p->stem) == 0)
            return w->file[i].since_ns;
    }
    return now_ns;
}

static int by_since(const void *a, const void *b)
{
    const struct watch_file *x = a, *y = b;
    return (x->since_ns > y->since_ns) - (x->since_ns < y->since_ns);
}

static void look_at_files(struct watch *w, const char *dir, struct gauges_shm *g, uint64_t now_ns)
{
    struct wal_pin found[WATCH_FILES_MAX];
    struct watch_file file[WATCH_FILES_MAX];
    struct pinned told[SHM_PINS];
    uint32_t n = wal_pins(dir, found, WATCH_FILES_MAX);
    for (uint32_t i = 0; i < n; i++)
        file[i] = (struct watch_file){found[i], held_since(w, &found[i], now_ns)};
    qsort(file, n, sizeof *file, by_since);
    memcpy(w->file, file, n * sizeof *file);
    w->files = n;
    n = n < SHM_PINS ? n : SHM_PINS;
    for (uint32_t i = 0; i < n; i++) {
        told[i] = (struct pinned){.pid = file[i].pin.pid,
                                  .place = file[i].pin.mark,
                                  .behind = file[i].pin.behind,
                                  .since_ns = file[i].since_ns};
        memcpy(told[i].stem, file[i].pin.stem, sizeof told[i].stem);
        process_name(told[i].pid, told[i].program, told[i].unit);
    }
    pins_write(g->file_pin, told, n);
    gauge_set(&g->files_looked_ns, now_ns);
}

void watch_step(struct watch *w, struct store *store, const char *dir, struct gauges_shm *g,
                uint64_t now_ns)
{
    look_at_disk(w, dir, g, now_ns);
    look_at_readers(w, store, g, now_ns);
    if (!w->not_files)
        look_at_files(w, dir, g, now_ns);
    gauge_set(&g->looked_ns, now_ns);
}
