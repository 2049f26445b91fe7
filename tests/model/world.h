/*
 * world.h - the segment, the kernel's locks, the disk, and what is known of them that no participant
 * knows (the ghosts, for the invariants).
 */
#ifndef MODEL_WORLD_H
#define MODEL_WORLD_H

#include "core/batchrec.h"
#include "shm/slot.h"
#include "tests/model/explore.h"

#define SLOTS_MAX   3u
#define STRIPES_MAX 2u
#define BLOCKS_MAX  2u
#define ROWS_MAX    6u
#define TXNS_MAX    4u
#define IMAGE_MAX   128u
#define NOW_NS      0u
#define DEADLINE_NS 1000000000ull
#define KEPT_BYTES  96u /* of an inline payload */

/* One transaction of a scenario. */
struct model_txn {
    uint32_t intent[STRIPES_MAX]; /* as stripe.h has them */
    uint32_t intents;
    int expires;      /* its deadline may pass wherever it looks at the clock */
    uint32_t padding; /* bytes of event payload, to make it need blocks */
    unsigned char *image;
    size_t image_bytes;
};

/* What a scenario asks for. */
struct model_plan {
    uint32_t slots, stripes, blocks;
    uint32_t deaths; /* how many actors may die */
    int exact_sleep; /* sleepers sleep until they are woken (else: any may wake at any time) */
    int unrepaired;  /* there is no reaper: dead rows stay */
    int all_reap;    /* the writer and those who wait reap as well */
    int clock_moves; /* deadlines may pass while one sleeps */
};

struct world {
    uint8_t status[ACTORS_MAX];
    uint8_t idle[ACTORS_MAX];       /* a reaper that waits for somebody to be dead */
    uint32_t asleep_on[ACTORS_MAX]; /* offset of the futex in the segment, + 1 */
    uint32_t bits[ACTORS_MAX];      /* under which it waits */
    uint8_t deaths_left;
    uint8_t lock[ROWS_MAX]; /* byte of participants.lock: actor + 1 that holds it */
    uint8_t row_of[ACTORS_MAX];
    uint8_t writes[ACTORS_MAX]; /* has the writer's place */
    /* the disk */
    uint32_t log_len;
    uint8_t log[TXNS_MAX * 2]; /* transaction + 1, in the order of commit */
    uint32_t record_len;
    unsigned char record[BATCH_HEAD + SLOTS_MAX * BATCH_ENTRY];
    /* ghosts */
    uint8_t claimant[SLOTS_MAX], reaper[SLOTS_MAX]; /* actor */
    uint8_t holds[SLOTS_MAX];    /* stripes that the claimant was told it holds, a bit each */
    uint8_t txn_in[SLOTS_MAX];   /* transaction + 1 */
    uint8_t evaluated[TXNS_MAX]; /* preflight read the store */
    uint8_t seen[TXNS_MAX][STRIPES_MAX]; /* the version it read */
    uint8_t owner[TXNS_MAX];             /* actor */
    uint8_t order[TXNS_MAX];             /* n-th submission of its owner, from 1 */
    uint8_t refused[TXNS_MAX];           /* the writer said no (paused) */
    uint8_t answered[TXNS_MAX];
};
extern struct world W;
extern struct segment *model_segment;
extern struct model_plan model_plan;
extern struct model_txn model_txn[TXNS_MAX];
extern uint32_t model_txns;

/* Maps the segment, once. */
int world_open(void);
/* Clears everything for a scenario; then rows are joined and actors made. */
void world_reset(const struct model_plan *plan);
uint32_t world_txn(const struct model_txn *t); /* makes its image */
/* After the rows are joined: what belongs to the state and what is a step. */
void world_watch(void);
/* 1: nothing outside of what is watched has changed since. */
int world_rest_unchanged(void);

/* Version of a stripe: how many committed (and extra applied) transactions wrote it. */
uint32_t world_version(uint32_t stripe, const uint8_t *applied, uint32_t n);
int world_dead_row(void); /* a row is LIVE and its process gone */

/* join.c: the product's participant.c on the model's kernel */
struct participant *model_join(uint32_t who, uint32_t kind);
struct participant *model_handle(uint32_t who); /* what it joins with: the actor's own memory */
int model_lock_call(int set, uint32_t byte, int unlock);

/* submitter.c */
void submitter_body(void *script);
struct script {
    uint32_t txn[3], n;
    int together; /* all in flight at once, as a worker has them */
    int joins;    /* takes a row first (else world_reset's setup has joined it) */
};
void submitter_actor(struct actor *a, uint32_t who, struct script *s);
void submitter_reset(uint32_t who, struct participant *p);

/* writer_actor.c */
void writer_body(void *arg);
void writer_actor(struct actor *a, uint32_t who);
void writer_reset(uint32_t who, struct participant *p);

#endif
