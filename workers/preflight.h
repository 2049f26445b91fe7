/*
 * preflight.h - one transaction from declaration to answer, as a machine that never blocks.
 *
 * The order decides everything: declare all keys, claim a slot, store the intents, take the stripes
 * in ascending order, only then take a snapshot of the store, look the request id up, evaluate
 * requirements, run callbacks, submit. What preflight saw then holds at commit, because the stripes
 * are held until the writer's commit is durable and the writer releases them.
 *
 *   preflight_begin ─► preflight_step* ─► submitted ─► preflight_step* ─► done ─► preflight_end
 *
 * Used by azoth-worker for many requests at once and by libazoth for one, with preflight_run().
 */
#ifndef WORKERS_PREFLIGHT_H
#define WORKERS_PREFLIGHT_H

#include "core/store.h"
#include "core/txn.h"
#include "shm/reaper.h"
#include "shm/stripe.h"

struct preflight;

/* A callback's view of the transaction; valid inside the callback only. */
struct preflight_view {
    struct snapshot *snapshot;
    struct preflight *preflight;
};

struct preflight_hooks {
    /* Runs after the declarative requirements. May read declared keys (preflight_read) and, through
     * preflight_emit, yield operations and events on keys declared for writing. 0, or an error:
     * AZOTH_ERR_REJECTED with a sentence, or whatever a call it made returned. */
    int (*run)(struct preflight_view *view, void *arg, struct azoth_error *err);
    void *arg;
};

/* Value of a declared key: 0, NOT_FOUND, UNDECLARED_KEY, CORRUPT. *ret borrows the snapshot. */
int preflight_read(struct preflight_view *view, struct azoth_bytes key, struct state_record *ret,
                   struct azoth_error *err);
/* Appends an operation or event. UNDECLARED_KEY for an operation on a key that is not declared for
 * writing, and the errors of txn_add. */
int preflight_emit(struct preflight_view *view, const struct txn_item *item,
                   struct azoth_error *err);

struct preflight_request {
    struct azoth_bytes image; /* checked (txn_check; control: txn_check_control); borrowed until
                                 preflight_end */
    const uint8_t *id;        /* 16 bytes or NULL; borrowed */
    uint64_t content;         /* txn_content_hash() of what the client sent */
    uint64_t deadline_ns;     /* CLOCK_MONOTONIC; covers everything */
    int wait_paused;
    int control; /* the image is a control item: no keys, no id; a pause holds it up only with wait_paused */
    struct preflight_hooks hooks; /* run may be NULL */
};

enum preflight_stage {
    PREFLIGHT_WANTS_SLOT,   /* the queue is full */
    PREFLIGHT_WANTS_PAUSE,  /* the database is paused */
    PREFLIGHT_WANTS_STRIPE, /* another transaction holds a stripe */
    PREFLIGHT_WANTS_BLOCKS, /* blocks for a large payload are taken */
    PREFLIGHT_SUBMITTED,    /* in the writer's hands */
    PREFLIGHT_DONE,         /* outcome is there */
};

struct preflight_outcome {
    int code; /* 0, or why not; OUTCOME_UNKNOWN when the deadline passed after submission */
    struct txn_result result;
    struct azoth_error error;
};

/* One per transaction in flight; kept and used again (its buffers stay). */
int preflight_new(struct participant *p, struct store *store, struct preflight **ret);
void preflight_free(struct preflight *f); /* gives up what is in flight */

/* Starts; nothing is claimed yet. The deadline counts from here. */
void preflight_begin(struct preflight *f, const struct preflight_request *r);
/* Goes as far as it can without waiting. Never blocks, but for the callback and LMDB page faults.
 */
enum preflight_stage preflight_step(struct preflight *f, uint64_t now_ns);
/* Ends one that waits (preflight_waiting) with LOCK_TIMEOUT: it was held back by an earlier one until
 * its deadline. */
void preflight_expire(struct preflight *f);
/* After PREFLIGHT_DONE: 0 committed, or why not. */
int preflight_code(const struct preflight *f);
/* After PREFLIGHT_DONE: takes the outcome; f may begin again. */
void preflight_end(struct preflight *f, struct preflight_outcome *ret);
/* Waits for what the last step wanted, at most SHM_WAIT_SLICE_NS and not beyond the deadline; reaps
 * while it waits. */
void preflight_wait(struct preflight *f, uint64_t now_ns);
/* begin, step and wait until done. */
void preflight_run(struct preflight *f, const struct preflight_request *r,
                   struct preflight_outcome *ret);

/*
 * For many at once: sleeps until a result of this participant was published, or timeout_ns passed.
 * *seen is the caller's; begin with 0. Returns 1 when something was published since *seen.
 */
int preflight_wait_any(struct participant *p, uint32_t *seen, uint64_t timeout_ns);
/*
 * To keep order among several of one submitter: 1 while f is begun and not yet submitted; 1 when
 * the two share a stripe that one of them writes, or when one of them declares no key at all (its
 * place among the events is then all that it has).
 */
int preflight_waiting(const struct preflight *f);
int preflight_conflict(const struct preflight *a, const struct preflight *b);
/* preflight_step() leaves waking the writer to the caller, who submits several and wakes once. */
void preflight_flush(struct participant *p);

#endif
