#include "shm/marks.h"

#include <string.h>

#define TRIES                                                                                      \
    1000 /* of who reads while it is written, which takes a microsecond and happens seldom */

void marks_write(struct gauges_shm *g, const struct mark_told *m, uint32_t n)
{
    uint64_t seq = gauge_get(&g->marks_seq) | 1; /* odd already: who wrote it died */
    atomic_store(&g->marks_seq, seq);
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t i = 0; i < n; i++) {
        struct mark_shm *s = &g->mark[i];
        uint64_t place[2];
        memcpy(place, m[i].is.place, sizeof place);
        gauge_set(&s->place[0], place[0]);
        gauge_set(&s->place[1], place[1]);
        gauge_set(&s->flags, mark_flags(&m[i].is));
        gauge_set(&s->txn, m[i].is.txn);
        gauge_set(&s->event, m[i].is.event);
        gauge_set(&s->since_ns, (uint64_t)m[i].is.since_ns);
        gauge_set(&s->moved_ns, (uint64_t)m[i].moved_ns);
    }
    gauge_set(&g->marks, n);
    atomic_store(&g->marks_seq, seq + 1);
}

static void read_row(const struct mark_shm *s, struct mark_told *ret)
{
    uint64_t place[2] = {gauge_get(&s->place[0]), gauge_get(&s->place[1])};
    *ret = (struct mark_told){.is = {.txn = gauge_get(&s->txn),
                                     .event = gauge_get(&s->event),
                                     .since_ns = (int64_t)gauge_get(&s->since_ns)},
                              .moved_ns = (int64_t)gauge_get(&s->moved_ns)};
    mark_take_flags(&ret->is, (uint32_t)gauge_get(&s->flags));
    memcpy(ret->is.place, place, sizeof place);
}

int marks_read(const struct gauges_shm *g, struct mark_told ret[SHM_MARKS], uint32_t *ret_n)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t seq = atomic_load((A64 *)&g->marks_seq), n = gauge_get(&g->marks);
        if (seq == 0)
            return 0;
        if (seq % 2 || n > SHM_MARKS)
            continue;
        for (uint64_t k = 0; k < n; k++)
            read_row(&g->mark[k], &ret[k]);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load((A64 *)&g->marks_seq) == seq) {
            *ret_n = (uint32_t)n;
            return 1;
        }
    }
    return 0;
}
