/*
 * breaker.h - waiting times between attempts, and the circuit breaker: plain memory and arithmetic.
 *
 *            N failures in the window              the time has passed
 *   CLOSED --------------------------> OPEN ---------------------------> HALF_OPEN
 *      ^                                ^  a probe fails                   |     |
 *      |                                +----------------------------------+     |
 *      +-------------------------------------------------------------------------+
 *                                          so many probes in a row succeed
 */
#ifndef PROJECTOR_BREAKER_H
#define PROJECTOR_BREAKER_H

#include "projector/sqlfile.h"

/* Numbers are stored in files and sent to the feed: they never change. */
enum breaker_at {
    BREAKER_NONE = 0, /* the definition has none */
    BREAKER_CLOSED = 1,
    BREAKER_OPEN = 2,
    BREAKER_HALF_OPEN = 3,
};

struct breaker {
    enum breaker_at at;
    uint64_t probes;                    /* that have succeeded, when half open */
    uint32_t failures;                  /* of time[], the oldest first */
    int64_t until_ns;                   /* wall clock, when open */
    uint64_t due_ns;                    /* the same as running time */
    int64_t time[BREAKER_FAILURES_MAX]; /* wall clock */
};

/* Milliseconds before the next attempt after so many failures (from 1), within the backoff's bounds.
 * random: any bits; exponential times are drawn between half of the doubled time and all of it. */
uint64_t backoff_ms(const struct backoff *b, uint32_t failures, uint64_t random);

/* Notes a failure; 1 when that opens it. Without a breaker (failures 0) nothing. */
int breaker_fails(struct breaker *b, const struct sql_breaker *def, int64_t wall_ns,
                  uint64_t mono_ns);
/* Notes a success; 1 when that changed what is worth keeping. */
int breaker_succeeds(struct breaker *b, const struct sql_breaker *def);
/* OPEN becomes HALF_OPEN when its time has passed. */
void breaker_look(struct breaker *b, uint64_t mono_ns);

#endif
