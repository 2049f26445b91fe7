/*
 * watch.h - what the writer's helper looks at, now and then: who pins pages of the store and
 * the WALs of projections, how much of the disk is free and how fast that shrinks. Written to the gauges, for who
 * looks for culprits: it may be one to whom other processes are hidden. Never on the commit thread.
 */
#ifndef WRITER_WATCH_H
#define WRITER_WATCH_H

#include "core/store.h"
#include "shm/pins.h"

/* How fast something grows, averaged over about an hour; over the time since it was first looked at, while
 * that is less. Zero-initialise. */
struct watch_rate {
    uint64_t first_ns, last_ns; /* 0: never looked */
    double last, per_ns;
};
void watch_rate_step(struct watch_rate *r, uint64_t now_ns, double value);

/* Of readers that hold the WAL of a projection so many are looked at; the oldest SHM_PINS of them are told. */
#define WATCH_FILES_MAX 64u

struct watch {
    struct watch_rate fill;                        /* of the disk */
    struct store_reader reader[STORE_READERS_MAX]; /* of one look */
    struct watch_seen {
        struct store_reader reader;
        uint64_t since_ns;
    } seen[SHM_PINS];
    uint32_t seen_len;
    struct watch_file {
        struct wal_pin pin;
        uint64_t since_ns;
    } file[WATCH_FILES_MAX]; /* of the look before */
    uint32_t files;
    int not_files; /* 1: this process may have files of projections open (walpins.h): they are not looked at */
};

/* Looks once and writes the gauges. now_ns: CLOCK_MONOTONIC. Takes no lock that another process holds. */
void watch_step(struct watch *w, struct store *store, const char *dir, struct gauges_shm *g,
                uint64_t now_ns);

#endif
