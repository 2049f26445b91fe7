/*
 * history.h - one number over time, in a fixed space: each second for some minutes, each minute for
 * more than a day.
 *
 * Used for the head of the log ("when was it last no further than this cursor?", which is how old
 * what a projection has not applied can be) and for the free bytes of the disk ("when is it full?").
 * Plain memory, one thread; times are running time in nanoseconds and do not go back.
 */
#ifndef EXPORTER_HISTORY_H
#define EXPORTER_HISTORY_H

#include "core/azoth_base.h"

#define HISTORY_FINE      512u
#define HISTORY_COARSE    2048u
#define HISTORY_FINE_NS   1000000000ull
#define HISTORY_COARSE_NS 60000000000ull

struct history_point {
    uint64_t at_ns, value;
};

struct history_ring {
    uint32_t first, len;
};

/* Zeroed to begin. */
struct history {
    struct history_ring fine_ring, coarse_ring;
    struct history_point fine[HISTORY_FINE], coarse[HISTORY_COARSE];
};

/* Takes the point into each ring whose last one is old enough. */
void history_add(struct history *h, uint64_t now_ns, uint64_t value);

/* The newest time at which the value was at most `value`; 0: not in what is kept. A value that went
 * back (another log) is no obstacle: the newest point counts. */
uint64_t history_last_at_most(const struct history *h, uint64_t value);

/*
 * Seconds until the value reaches 0 if it goes on as in the last day (least squares over the coarse
 * points, over the fine ones before there are enough): INFINITY when it does not fall, NAN when less than
 * HISTORY_TREND_NS are known.
 */
#define HISTORY_TREND_NS 60000000000ull
double history_seconds_to_zero(const struct history *h);

#endif
