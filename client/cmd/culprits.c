/* culprits.c - see culprits.h. */
#include "client/cmd/culprits.h"

#include "core/clock.h"
#include "core/walpins.h"
#include "shm/contention.h"
#include "shm/pins.h"

#include <string.h>
#include <sys/statvfs.h>

/* The disk's rate is no rate before. */
#define FILL_OBSERVED_NS (300 * NS_PER_S)

/* ---- the store ---- */

static void look_at_store_pins(const struct view *v, uint64_t now_ns, struct culprits *ret)
{
    if (view_helper_looked(v, now_ns) == 0)
        return;
    struct pinned seen[SHM_PINS];
    uint32_t n = pins_read(v->gauges->g->pin, seen);
    for (uint32_t i = 0; i < n; i++) {
        struct pin *p = &ret->pin[ret->pins++];
        *p = (struct pin){
            .pid = seen[i].pid,
            .behind = seen[i].behind,
            .age_s = now_ns > seen[i].since_ns ? (double)(now_ns - seen[i].since_ns) / 1e9 : 0};
        process_name(p->pid, p->program, p->unit);
        /* Hidden from us, perhaps, and not from the writer. */
        if (!*p->program) {
            snprintf(p->program, sizeof p->program, "%s", seen[i].program);
            snprintf(p->unit, sizeof p->unit, "%s", seen[i].unit);
        }
    }
}

/* ---- projections ---- */

static void look_at_projections(const char *db, struct culprits *ret)
{
    struct wal_pin found[CULPRITS_PINS_MAX];
    uint32_t n = wal_pins(db, found, CULPRITS_PINS_MAX - ret->pins);
    for (uint32_t i = 0; i < n; i++) {
        struct pin *p = &ret->pin[ret->pins++];
        *p = (struct pin){.pid = found[i].pid,
                          .behind = found[i].behind,
                          .wal_bytes = found[i].wal_bytes,
                          .age_s = process_age(found[i].pid)};
        snprintf(p->projection, sizeof p->projection, "%s", found[i].stem);
        process_name(p->pid, p->program, p->unit);
    }
}

/* ---- stripes and disk ---- */

static void look_at_stripes(const struct segment *s, const uint64_t *before, struct culprits *ret)
{
    struct hot_stripe hot[CULPRITS_HOT_MAX];
    ret->hots = contention_hot(s, before, hot, CULPRITS_HOT_MAX);
    for (uint32_t i = 0; i < ret->hots; i++) {
        struct hot_key *k = &ret->hot[i];
        k->stripe = hot[i].stripe;
        k->waits = hot[i].waits;
        k->wait_ns = hot[i].wait_ns;
        k->len = contention_key(s, k->stripe, k->key);
    }
}

static void look_at_disk(const struct view *v, uint64_t now_ns, struct culprits *ret)
{
    struct statvfs fs;
    ret->disk_fill_day = ret->days_to_full = -1;
    if (statvfs(v->dir, &fs) == 0) {
        ret->disk_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        ret->disk_total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    }
    if (ret->disk_total_bytes && ret->disk_free_bytes == 0)
        ret->days_to_full = 0;
    uint64_t looked = view_helper_looked(v, now_ns);
    if (looked == 0)
        return;
    const struct gauges_shm *g = v->gauges->g;
    uint64_t since = gauge_get(&g->disk_watched_ns);
    if (since == 0 || looked < since + FILL_OBSERVED_NS)
        return;
    ret->disk_fill_day = (double)gauge_get(&g->disk_fill_bytes_day);
    if (ret->disk_fill_day > 0)
        ret->days_to_full = (double)ret->disk_free_bytes / ret->disk_fill_day;
}

void culprits_look(const struct view *v, const uint64_t *before, uint64_t now_ns,
                   struct culprits *ret)
{
    ret->pins = ret->hots = 0;
    ret->disk_free_bytes = ret->disk_total_bytes = 0;
    look_at_store_pins(v, now_ns, ret);
    look_at_projections(v->dir, ret);
    if (v->segment)
        look_at_stripes(v->segment, before, ret);
    look_at_disk(v, now_ns, ret);
}
