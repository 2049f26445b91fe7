/* seed.h - what a run of a unit test draws from: AZOTH_TEST_SEED, else another one each time; told, so that it can be repeated. */
#ifndef TESTS_UNIT_SEED_H
#define TESTS_UNIT_SEED_H

#include "core/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline uint64_t seed_of_run(void)
{
    const char *given = getenv("AZOTH_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10)
                          : ((uint64_t)clock_wall_ns() ^ (uint64_t)getpid() << 40) | 1;
    printf("AZOTH_TEST_SEED=%" PRIu64 "\n", seed);
    return seed;
}

#endif
