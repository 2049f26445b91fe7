/*
 * world.h - the whole system as processes, with clients, and somebody who starts again what ends.
 *
 * A process may only end by SIGKILL: any other end is told with its log and counts as a failure. In a
 * build with crash points some of the started processes carry one and kill themselves there. Hot backups come one
 * after the other, each a process that may also end by having made one.
 */
#ifndef TESTS_WORLD_H
#define TESTS_WORLD_H

#include "shm/segment.h"
#include "tests/system/harness.h"
#include "tests/torture/client.h"

#define WORLD_CLIENTS 10

struct world {
    struct harness h;
    struct process *writer, *worker[2], *feed, *projector[2], *client[WORLD_CLIENTS];
    struct azoth *db; /* the supervisor's own */
    struct segment *segment;
    uint64_t random;
    int restarts[HARNESS_PROCESSES]; /* as last seen */
    int crash_points;                /* arm them in what is started from now on */
    uint64_t last_death_ns;          /* when the last one was noticed */
    /* Backups: the one that is made, or was; where they are; where they are restored. */
    struct process *backup;
    char place[280], place_of_copies[280];
    int backing_up, backup_runs; /* another is begun when this one has ended; it has not */
    uint64_t next_backup_ns;
    uint64_t backup_began_at; /* the log's head before it was begun */
    uint64_t backup_floor;    /* the same of the last one that was made */
    unsigned backups;         /* that were made */
    unsigned full_backups;    /* of these; an increment that finds nothing new makes none */
    unsigned backup_deaths;
    unsigned deaths, unexpected;
};

void world_begin(struct world *w, uint64_t seed);
/* Starts again what has ended; completes the supervisor's own transactions. */
void world_supervise(struct world *w);
/* The same for some time. */
void world_nap(struct world *w, uint64_t ns);
/* Kills and waits until it is back. 1, or 0 when there was nothing to kill. */
int world_kill(struct world *w, struct process *p);
/* Its end was noticed, and it was started again since it had been so often. A backup is begun in its own time. */
int world_is_back(const struct world *w, const struct process *p, int before);
/* Number of the client that p is, or -1. */
int world_client(const struct world *w, const struct process *p);
/* Runs the azoth command with these words, NULL at the end, while the others are supervised; its status. What it
 * said is told when that is not 0. It dies at no crash point. */
int world_azoth(struct world *w, const char *const *words);
/* Ends with one more backup, which nobody kills; 1 when it was made. */
int world_stop_backups(struct world *w);
/* Asks the clients to finish what is open and waits for it; 1 when all did. */
int world_stop_clients(struct world *w);
/* Slots, stripes and blocks are free, and nobody has a row but those who live: 1. */
int world_segment_clean(struct world *w);
/* Stops everything in order, with exit status 0; 1 when it did. */
int world_end(struct world *w);

#endif
