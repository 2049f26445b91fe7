/*
 * harness.h - real processes for tests: starting, supervising, killing, and what must hold after.
 *
 * Everything lives in a directory of its own; harness_end() ends every process it started, removes
 * the directory and the shared objects, whatever state they are in. A harness in static memory that a
 * failed assertion left open is ended when the test program exits.
 */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#include "client/azoth.h"

#include <stdint.h>
#include <sys/types.h>

#define HARNESS_PROCESSES 32

struct process {
    char name[32];
    char *argv[16];
    pid_t pid;   /* 0: not running */
    int restart; /* started again when it ends while supervised */
    int restarts;
    int status; /* of its last end */
};

struct harness {
    char dir[256];
    const char *build; /* directory of the programs */
    struct process process[HARNESS_PROCESSES];
    int processes;
};

/* A new directory with an empty database. */
void harness_begin(struct harness *h);
void harness_end(struct harness *h);
/* Adds and starts a program of the build (or an absolute path); NULL ends argv. */
struct process *harness_start(struct harness *h, const char *name, int restart, ...);
void harness_spawn(struct harness *h, struct process *p);
/* Notices ended processes and starts again those that shall; returns how many ended. */
int harness_supervise(struct harness *h);
/* Waits for the process's end, at most timeout_ms; its status, or -1. Others are supervised. */
int harness_wait(struct harness *h, struct process *p, int timeout_ms);
void harness_kill(struct process *p, int signal);
/* Gives the place of the process that was started last to another one. Whatever it does, it is ended. */
void harness_drop(struct harness *h);
/* SIGTERM, then waits; its status. */
int harness_stop(struct harness *h, struct process *p);
/* The writer, and an attached handle on it (waits until it is ready). */
struct azoth *harness_attach(struct harness *h, uint32_t deadline_ms);
/* A client that was killed may have left a transaction in the queue: once this has answered with 1, what was is committed, and the
 * head stands. Its own transaction logs no event. */
int harness_drain(struct azoth *db);
/* Waits until `endpoint` answers a ping, at most 10 s: 1 when it did. */
int harness_answers(const char *endpoint);

/* Every slot free, every stripe unlocked, and no pause, within wait_ms. 1, or 0 after saying what is not. */
int harness_segment_clean(struct harness *h, int wait_ms);

/* Deterministic random numbers: the seed is printed once and taken from AZOTH_TEST_SEED. */
uint64_t harness_seed(void);
uint64_t random_next(uint64_t *state);

/* Between two looks at what other processes do, which tell nobody. */
void nap_ms(long ms);

/* Runs a program to its end with its standard output in out; its exit status, or -1. */
int harness_run(char *out, size_t size, char *const argv[]);
/* The same of azoth --dir DIR and up to four words; NULL ends them. */
int harness_azoth(struct harness *h, char *out, size_t size, const char *a, const char *b,
                  const char *c, const char *d);
/* What query_run() finds in a projection, as text: "1,2;3,4;"; or the error's message. Returns text. */
const char *harness_rows(const struct harness *h, const char *name, const char *sql, char *text,
                         size_t size);
void harness_program(struct harness *h, const char *name, char out[256]);

#endif
