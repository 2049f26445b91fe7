/* clock.h - the clocks, in one place. */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdint.h>

#define NS_PER_US ((uint64_t)1000)
#define NS_PER_MS ((uint64_t)1000000)
#define NS_PER_S  ((uint64_t)1000000000)

uint64_t clock_mono_ns(void); /* CLOCK_MONOTONIC: the same in all processes; for deadlines */
int64_t clock_wall_ns(void);  /* CLOCK_REALTIME: UTC since 1970; for event times */

#endif
