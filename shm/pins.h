/*
 * pins.h - the lists of those who hold old snapshots open (struct pin_shm): written by the writer's helper, read by
 * whoever looks for culprits.
 */
#ifndef SHM_PINS_H
#define SHM_PINS_H

#include "core/process.h"
#include "core/walpins.h"
#include "shm/gauges.h"

struct pinned {
    uint64_t pid, place, behind, since_ns; /* as in struct pin_shm */
    char program[PROCESS_PROGRAM], unit[PROCESS_UNIT], stem[WALPINS_STEM];
};

/* The whole list: n of at most SHM_PINS. One thread of one process. */
void pins_write(struct pin_shm list[SHM_PINS], const struct pinned *p, uint32_t n);
/* How many; up to one that just changes. Any process, any time. */
uint32_t pins_read(const struct pin_shm list[SHM_PINS], struct pinned ret[SHM_PINS]);

#endif
