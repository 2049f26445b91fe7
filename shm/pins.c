#include "shm/pins.h"

#include <string.h>

_Static_assert(sizeof((struct pin_shm *)0)->program == PROCESS_PROGRAM &&
                   sizeof((struct pin_shm *)0)->unit == PROCESS_UNIT &&
                   sizeof((struct pin_shm *)0)->stem == WALPINS_STEM,
               "what is told fits");

void pins_write(struct pin_shm list[SHM_PINS], const struct pinned *p, uint32_t n)
{
    for (uint32_t i = 0; i < SHM_PINS; i++) {
        struct pin_shm *s = &list[i];
        atomic_store(&s->pid, 0); /* who reads meanwhile takes the list to end here */
        if (i >= n)
            continue;
        gauge_set(&s->place, p[i].place);
        gauge_set(&s->behind, p[i].behind);
        gauge_set(&s->since_ns, p[i].since_ns);
        memcpy(s->program, p[i].program, sizeof s->program);
        memcpy(s->unit, p[i].unit, sizeof s->unit);
        memcpy(s->stem, p[i].stem, sizeof s->stem);
        atomic_store(&s->pid, p[i].pid);
    }
}

uint32_t pins_read(const struct pin_shm list[SHM_PINS], struct pinned ret[SHM_PINS])
{
    uint32_t n = 0;
    for (; n < SHM_PINS; n++) {
        const struct pin_shm *s = &list[n];
        uint64_t pid = atomic_load((A64 *)&s->pid);
        if (pid == 0)
            break;
        ret[n] = (struct pinned){.pid = pid,
                                 .place = gauge_get(&s->place),
                                 .behind = gauge_get(&s->behind),
                                 .since_ns = gauge_get(&s->since_ns)};
        /* The last byte stays 0: what another process wrote need not end. */
        memcpy(ret[n].program, s->program, sizeof s->program - 1);
        memcpy(ret[n].unit, s->unit, sizeof s->unit - 1);
        memcpy(ret[n].stem, s->stem, sizeof s->stem - 1);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load((A64 *)&s->pid) != pid)
            break;
    }
    return n;
}
