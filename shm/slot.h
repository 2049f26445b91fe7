/*
 * slot.h - commit slots: claiming, submitting, taking, completing, freeing.
 *
 * Every edge of the state machine is one function here and one compare-and-swap:
 *
 *            slot_claim          slot_intend           slot_submit
 *      FREE ───────────► CLAIMED ───────────► PREFLIGHT ──────────► SUBMITTED
 *       ▲                   │ slot_cancel         │ slot_cancel         │ slot_complete (writer)
 *       │◄──────────────────┴─────────────────────┘                     ▼
 *       │◄──────── slot_free (owner, or writer when given up) ── COMMITTED, REJECTED
 *       │
 *       └◄─ REAPING ◄── slot_reap: from CLAIMED, PREFLIGHT, COMMITTED, REJECTED or REAPING of a dead owner
 */
#ifndef SHM_SLOT_H
#define SHM_SLOT_H

#include "core/txn.h"
#include "shm/participant.h"

/* A claimed slot, in its owner's hands. */
struct slot {
    struct participant *owner;
    uint32_t index;
    uint64_t ticket;
};

/* 1 claimed, 0 none free now. Does not wait. */
int slot_claim(struct participant *p, struct slot *ret);
/* Waits for a free slot at most timeout_ns (and never over SHM_WAIT_SLICE_NS). */
void slot_claim_wait(struct participant *p, uint64_t timeout_ns);

/* Waits until n blocks may be free, at most timeout_ns (and never over SHM_WAIT_SLICE_NS). */
void slot_block_wait(struct participant *p, uint32_t n, uint64_t timeout_ns);

/*
 * Stores which stripes will be taken (sorted, unique; INTENT_EXCLUSIVE in the top bit) and moves to
 * PREFLIGHT. More than SHM_INLINE_INTENTS need a block: 0, or BUSY when none is free now.
 */
int slot_intend(struct slot *s, const uint32_t *intents, uint32_t n);

struct slot_submission {
    struct azoth_bytes payload; /* transaction image */
    const uint8_t *id;          /* 16 bytes or NULL */
    uint64_t content;
    uint32_t flags; /* SLOT_WAITS_PAUSE, SLOT_CONTROL */
};
/* Copies the payload (blocks for what does not fit inline), publishes it with SUBMITTED and tells
 * the writer. 0, or BUSY when too few blocks are free now (nothing has changed). */
int slot_submit(struct slot *s, const struct slot_submission *sub);
/* Wakes the writer if it sleeps. slot_submit() does not: a batch of submits needs one wake. */
void slot_wake_writer(struct segment *s);

/* State of a submitted slot: 1 complete, 0 not yet. */
int slot_done(const struct slot *s);
/* Sleeps until done, at most timeout_ns (and never over SHM_WAIT_SLICE_NS). */
void slot_wait(struct slot *s, uint64_t timeout_ns);

struct slot_outcome {
    int32_t code; /* 0 committed, else why it was rejected */
    struct txn_result result;
    char detail[SHM_DETAIL];
};
/* Reads a completed slot's outcome and frees the slot. */
void slot_collect(struct slot *s, struct slot_outcome *ret);
/* Owner gives up waiting: 1 when the slot is now the writer's, 0 when it is complete after all
 * (then slot_collect). */
int slot_give_up(struct slot *s);
/* Before SUBMITTED: releases the stripes that were taken and frees the slot. */
void slot_cancel(struct slot *s);

/* --- the writer's side --- */

/* One taken slot, as the writer saw it. */
struct slot_taken {
    uint32_t index;
    uint32_t flags;
    uint64_t ticket;
    uint64_t seq;
    uint64_t claimed_ns, submitted_ns;
};
/* Moves the queue's bits into out (at most SHM_SLOTS_MAX entries exist); returns how many slots in
 * SUBMITTED were found. scan: look at every slot (after a restart), not only at the bits. */
uint32_t slot_take(struct segment *s, int scan, struct slot_taken *out);
/* 1 when a bit is set. */
int slot_queued(const struct segment *s);
/* Copies the payload out and checks it: 0, or CORRUPT (message in detail), NOMEM. */
int slot_copy(struct segment *s, const struct slot_taken *t, struct buf *out, uint8_t id[16],
              uint64_t *ret_content);
/* Releases the stripes, then publishes the outcome; frees a slot that was given up. Adds to *wakes
 * who is to be told; that is left to the caller, who completes several. */
void slot_complete(struct segment *s, const struct slot_taken *t, const struct slot_outcome *o,
                   struct wakes *wakes);
void wakes_send(struct segment *s, const struct wakes *w);
/* Frees slots that were given up and completed before the writer died. */
void slot_free_given_up(struct segment *s);
/* 1 when a slot in SUBMITTED carries this id. */
int slot_find_id(struct segment *s, const uint8_t id[16]);

/* --- the reaper's side (shm/reaper.c) --- */

/* Repairs one slot of a dead owner: 1 when it was freed or is the writer's business now
 * (SUBMITTED), 0 when somebody else was faster. */
int slot_reap(struct participant *self, uint32_t index, uint64_t word);

#endif
