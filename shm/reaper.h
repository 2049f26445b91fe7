/*
 * reaper.h - repairing what dead participants left. Any participant may do it; who does is replaced
 * when it dies in the middle.
 */
#ifndef SHM_REAPER_H
#define SHM_REAPER_H

#include "shm/slot.h"

/*
 * Looks for dead participants and repairs their slots; returns how many rows were freed. Bounded: one
 * system call per live row, one pass over the slots per dead one. Called by whoever waits, and by
 * the writer's helper four times a second.
 */
uint32_t reap_step(struct participant *self);

#endif
