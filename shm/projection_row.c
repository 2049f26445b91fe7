#include "shm/projection_row.h"

#include "core/crash.h"
#include "core/error.h"
#include "shm/gauges.h"

#include <string.h>

const char *projection_state_name(uint32_t state)
{
    static const char *const names[] = {"unknown", "starting", "running",  "idle", "failed",
                                        "stopped", "silent",   "retrying", "open"};
    return state < sizeof names / sizeof *names ? names[state] : "?";
}

const char *breaker_state_name(uint32_t breaker)
{
    static const char *const names[] = {"none", "closed", "open", "half-open"};
    return breaker < sizeof names / sizeof *names ? names[breaker] : "?";
}

const char *projection_row_state(const struct projection_row *r, uint64_t head, int feed_alive,
                                 uint64_t now_ns, uint64_t lapse_ns)
{
    if (r->cursor > head)
        return "diverged";
    if (r->state == PROJECTION_FAILED || r->state == PROJECTION_STOPPED)
        return projection_state_name(r->state);
    if (feed_alive == 0 || r->heard_ns + lapse_ns < now_ns)
        return projection_state_name(PROJECTION_SILENT);
    return projection_state_name(r->state);
}

/* Gives up what was heard least lately: who lives was heard in the last seconds. A reader that is at it just
 * now may tell a mixture, once. */
static void row_clear(struct projection_shm *p)
{
    uint32_t seq = atomic_load(&p->text_seq) | 1u;
    atomic_store(&p->used, 0);
    atomic_store(&p->text_seq, seq);
    atomic_thread_fence(memory_order_seq_cst);
    memset((char *)p + offsetof(struct projection_shm, shard), 0,
           sizeof *p - offsetof(struct projection_shm, shard));
    atomic_thread_fence(memory_order_seq_cst);
    atomic_store(&p->text_seq, seq + 1);
}

int projection_row_claim(struct gauges *g, const char *name, uint32_t shard, uint32_t shards)
{
    int free_row = -1;
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++) {
        struct projection_shm *p = &g->projection[i];
        if (!atomic_load_explicit(&p->used, memory_order_acquire)) {
            if (free_row < 0)
                free_row = (int)i;
            continue;
        }
        if (strncmp(p->name, name, sizeof p->name) == 0 && atomic_load(&p->shard) == shard &&
            atomic_load(&p->shards) == shards)
            return (int)i;
        if (gauge_get(&p->heard_ns) < gauge_get(&g->projection[oldest].heard_ns))
            oldest = i;
    }
    if (free_row < 0) {
        free_row = (int)oldest;
        row_clear(&g->projection[oldest]);
    }
    struct projection_shm *p = &g->projection[free_row];
    snprintf(p->name, sizeof p->name, "%s", name);
    atomic_store(&p->shard, shard);
    atomic_store(&p->shards, shards);
    CRASH_POINT(feed_row_filled);
    atomic_store_explicit(&p->used, 1, memory_order_release);
    return free_row;
}

void projection_row_text(struct gauges *g, int row, const char *error, const char *endpoint)
{
    struct projection_shm *p = &g->projection[row];
    /* An odd number left by a feed that died in the middle is made even first. */
    uint32_t seq = atomic_load(&p->text_seq) | 1u;
    atomic_store(&p->text_seq, seq);
    CRASH_POINT(feed_text_begun);
    atomic_thread_fence(memory_order_seq_cst);
    if (error)
        snprintf(p->error, sizeof p->error, "%s", error);
    if (endpoint)
        snprintf(p->endpoint, sizeof p->endpoint, "%s", endpoint);
    atomic_thread_fence(memory_order_seq_cst);
    atomic_store(&p->text_seq, seq + 1);
}

int projection_row_read(const struct gauges *g, uint32_t row, struct projection_row *ret)
{
    if (row >= SHM_PROJECTIONS)
        return 0;
    struct projection_shm *p = &g->projection[row];
    if (!atomic_load_explicit(&p->used, memory_order_acquire))
        return 0;
    *ret = (struct projection_row){
        .shard = atomic_load(&p->shard),
        .shards = atomic_load(&p->shards),
        .state = atomic_load(&p->state),
        .cursor = gauge_get(&p->cursor),
        .head_seen = gauge_get(&p->head_seen),
        .errors = gauge_get(&p->errors),
        .instance = gauge_get(&p->instance),
        .events_sent = gauge_get(&p->events_sent),
        .bytes_sent = gauge_get(&p->bytes_sent),
        .breaker = atomic_load(&p->breaker),
        .dead_waiting = gauge_get(&p->dead_waiting),
        .dead_retired = gauge_get(&p->dead_retired),
        .dead_parked = gauge_get(&p->dead_parked),
        .stands_event = gauge_get(&p->stands_event),
        .next_attempt_ns = gauge_get(&p->next_attempt_ns),
        .progress_ns = gauge_get(&p->progress_ns),
        .heard_ns = gauge_get(&p->heard_ns),
        .at_head_ns = gauge_get(&p->at_head_ns),
        .failed_ns = gauge_get(&p->failed_ns),
        .apply_ns = gauge_get(&p->apply_ns),
        .lag_ns = gauge_get(&p->lag_ns),
        .wal_bytes = gauge_get(&p->wal_bytes),
        .wal_pinned_ns = gauge_get(&p->wal_pinned_ns),
        .rate_ns = gauge_get(&p->rate_ns),
        .rate_cursor = gauge_get(&p->rate_cursor),
    };
    /* Until there is one that is 5 s old, the younger one. */
    if (ret->rate_ns == 0) {
        ret->rate_ns = gauge_get(&p->rate_next_ns);
        ret->rate_cursor = gauge_get(&p->rate_next_cursor);
    }
    memcpy(ret->name, p->name, sizeof ret->name);
    ret->name[sizeof ret->name - 1] = 0;
    /* A few tries: a feed that died while writing leaves the number odd, and what is there then is
     * still text with an end. */
    for (int i = 0; i < 100; i++) {
        uint32_t before = atomic_load(&p->text_seq);
        atomic_thread_fence(memory_order_seq_cst);
        memcpy(ret->error, p->error, sizeof ret->error);
        memcpy(ret->endpoint, p->endpoint, sizeof ret->endpoint);
        atomic_thread_fence(memory_order_seq_cst);
        if (!(before & 1) && atomic_load(&p->text_seq) == before)
            break;
    }
    ret->error[sizeof ret->error - 1] = 0;
    ret->endpoint[sizeof ret->endpoint - 1] = 0;
    return 1;
}
