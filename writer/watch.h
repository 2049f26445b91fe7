/*
 * watch.h - what the writer's helper looks at, now and then: who pins pages of the store, how much of the
 * disk is free and how fast that shrinks. Written to the gauges, for who looks for culprits. Never on the
 * commit thread.
 */
#ifndef WRITER_WATCH_H
#define WRITER_WATCH_H

#include "core/store.h"
#include "shm/gauges.h"

/* How fast something grows, averaged over about an hour; over the time since it was first looked at, while
 * that is less. Zero-initialise. */
struct watch_rate {
    uint64_t first_ns, last_ns; /* 0: never looked */
    double last, per_ns;
};
void watch_rate_step(struct watch_rate *r, uint64_t now_ns, double value);

struct watch {
    struct watch_rate fill;                        /* of the disk */
    struct store_reader reader[STORE_READERS_MAX]; /* of one look */
    struct watch_seen {
        struct store_reader reader;
        uint64_t since_ns;
    } seen[SHM_PINS];
    uint32_t seen_len;
};

/* Looks once and writes the gauges. now_ns: CLOCK_MONOTONIC. Takes no lock that another process holds. */
void watch_step(struct watch *w, struct store *store, const char *dir, struct gauges_shm *g,
                uint64_t now_ns);

#endif
