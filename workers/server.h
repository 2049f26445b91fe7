/*
 * server.h - serves requests of one SP REP endpoint, many in flight at once.
 *
 * Two threads: the caller's receives, decodes, answers reads and starts transactions; one of the
 * server's own steps those that are in flight and answers them. Both die together, so a mutex is
 * safe.
 */
#ifndef WORKERS_SERVER_H
#define WORKERS_SERVER_H

#include "core/reqrep.h"
#include "core/store.h"
#include "shm/participant.h"
#include "workers/command.h"

#define SERVER_IN_FLIGHT_MAX 512u
#define SERVER_BURST         64u /* requests taken before the writer is woken */

struct server;

/* All borrowed until server_close. */
struct server_options {
    struct store *store;
    struct participant *participant;
    struct reqrep *socket;
    const struct command_set *commands;
    struct command_timer *timer;
    uint32_t in_flight_max; /* 1 to SERVER_IN_FLIGHT_MAX */
};

/* NOMEM, IO (thread). */
int server_open(const struct server_options *o, struct server **ret, struct azoth_error *err);

/*
 * Takes what has come, at most SERVER_BURST requests, and starts or answers each; wakes the writer
 * once at the end. Does not wait for requests: the number taken, or IO. Blocks for reads of the
 * store and for commands, which have their own limit.
 */
int server_step(struct server *s, struct azoth_error *err);

/* Backpressure: 1 when another request can be taken; else waits at most timeout_ns for that. */
int server_wait_room(struct server *s, uint64_t timeout_ns);
/* 1 when nothing is in flight; else waits at most timeout_ns for that. Any thread. */
int server_wait_idle(struct server *s, uint64_t timeout_ns);
/* 1 while the server's own thread makes its rounds: for the watchdog. */
int server_alive(const struct server *s, uint64_t now_ns);

struct server_counters {
    uint64_t requests, refused, undelivered;
    uint32_t in_flight;
};
struct server_counters server_counters(struct server *s);

/* What is still in flight is given up and answered: OUTCOME_UNKNOWN when it was submitted, else
 * BUSY. NULL is accepted. */
void server_close(struct server *s);

#endif
