/*
 * explore.h - every interleaving of a few actors over shared memory, each state once.
 *
 * An actor is a function on a stack of its own that stops before each watched access. A state is the
 * content of the shared parts plus, for each actor, its stack and its private memory. Parts and
 * actors are kept apart and each distinct content once; a state is a row of numbers, compared in
 * full: no state is taken for another because of a hash.
 *
 * The search is breadth first, so what is reported is a shortest way to it. At the end, every state
 * must still be able to reach a good one (world_good): that finds what is lost, stuck or forgotten.
 */
#ifndef MODEL_EXPLORE_H
#define MODEL_EXPLORE_H

#include <stddef.h>
#include <stdint.h>

#define ACTORS_MAX 8u
#define PARTS_MAX  8u

enum actor_status { ACTOR_UNBORN = 0, ACTOR_RUNS, ACTOR_DONE, ACTOR_DEAD };

/* What an actor is about to do; kept with its stack. */
struct pending {
    const void *at;
    uint32_t kind;    /* enum pending_kind */
    uint32_t choices; /* ways to go on: 1, or more for model_choose */
};
enum pending_kind {
    PENDING_START,
    PENDING_LOAD,
    PENDING_STORE,
    PENDING_CHANGE,
    PENDING_CAS,
    PENDING_WAIT,
    PENDING_ASLEEP,
    PENDING_CHOICE,
    PENDING_CALL
};

struct actor {
    const char *name;
    void (*body)(void *arg);
    void *arg;
    int mortal;
    int (*may_start)(const struct actor *a); /* NULL: at once */
    void (*tidy)(uint32_t actor); /* clears what its private memory holds beyond its use */
    struct {
        void *ptr;
        size_t bytes;
    } own[6]; /* private memory, beside the stack */
    uint32_t owns;
};

/* Begins a scenario. */
void explore_reset(void);
uint32_t explore_actor(const struct actor *a);
/* A range of shared memory that belongs to the state. */
void explore_part(uint32_t part, void *ptr, size_t bytes);

struct explore_result {
    uint64_t states, transitions, deepest;
    int failed;
};
/* Explores all; prints what was found and the way to it. states_max bounds the memory: reaching it
 * is a failure, never a smaller search. */
struct explore_result explore_run(uint64_t states_max);

/* ---- for the actors ---- */
uint32_t model_self(void); /* the actor that runs, or ACTORS_MAX */
/* Stops before something that others see. */
void model_stop(enum pending_kind kind, const void *at);
uint32_t model_choose(uint32_t ways); /* goes on in each of the ways: 0 .. ways - 1 */
/* Reports a violation and ends this state's way. Does not return to an actor. */
void model_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- what the world answers ---- */
enum actor_status world_status(uint32_t actor);
void world_set_status(uint32_t actor, enum actor_status s);
int world_asleep(uint32_t actor, const struct pending *p);
int world_may_die(uint32_t actor);
void world_die(uint32_t actor);
void world_check(uint32_t actor); /* invariants, after each step */
int world_good(void);
const char *world_address(const void *at); /* for the printed way; a static buffer */

#endif
