/*
 * pull.h - the projector's side of the feed's protocol. Never sleeps; one thread.
 */
#ifndef PROJECTOR_PULL_H
#define PROJECTOR_PULL_H

#include "core/wire.h"

struct pull;

struct pull_options {
    const char *name;
    const char *feed;     /* where the feed listens */
    const char *endpoint; /* where this projector listens; bound here */
    uint8_t uuid[16];
    uint32_t shard, shards;
    const char *shard_by;
    struct azoth_bytes types;
    uint32_t credit_bytes; /* may be on their way at once; a batch has at most a quarter */
    uint64_t timeout_ns;   /* silence after which the subscription is made anew */
    uint64_t cursor;
    uint32_t cursor_check;
};

/* USAGE, DUPLICATE (address in use), IO, NOMEM. */
int pull_open(const struct pull_options *o, struct pull **ret, struct azoth_error *err);
void pull_close(struct pull *p);
int pull_poll_fd(const struct pull *p);

/*
 * Looks for the next batch. 1 and *ret (borrows the message until pull_release): it begins behind what
 * was received before. The feed sends on as far as the credit goes, until the next pull_report().
 * 0: none now. Errors: what the feed refused with (DIVERGED), IO. Asks again when the feed has been silent for too long.
 */
int pull_next(struct pull *p, uint64_t now_ns, struct wire_batch *ret, struct azoth_error *err);
void pull_release(struct pull *p);
/*
 * Tells the feed how far we are, and so that it may send more unless we have failed or stopped. Sent at
 * once in these two cases; else with a few more batches, and behind the one that reaches the head when
 * pull_next() finds nothing more. state of shm/projection_row.h; error may be NULL.
 *
 * A last word, which FAILED and STOPPED are, is said until the feed has answered it, for at most
 * PULL_LAST_WORD_MS: what a socket still holds when it is closed is lost. Nothing can be pulled behind it.
 */
#define PULL_LAST_WORD_MS 500
void pull_report(struct pull *p, uint64_t applied, uint32_t state, uint64_t errors,
                 const char *error);
/*
 * In place of pull_next() as long as no more can be taken: the subscription lives on, what
 * pull_report() was given is told at most four times a second, and nothing more is asked for.
 */
void pull_keep(struct pull *p, uint64_t now_ns);
#define PULL_KEEP_NS 250000000u
/* What later reports tell beside it. */
struct pull_faults {
    uint32_t breaker;
    uint64_t dead_waiting, dead_retired, dead_parked, stands_event;
    uint64_t next_ns;                      /* from now */
    uint64_t wal_bytes, wal_pinned_for_ns; /* as in struct wire_pull */
};
void pull_faults(struct pull *p, const struct pull_faults *f);
/* How a batch was applied; told with the next report. */
void pull_sample(struct pull *p, const struct wire_sample *s);
/*
 * In place of pull_next() while the last batch cannot be applied: keeps the subscription alive and tells
 * the feed why, at the first call and then every half of the timeout. What the feed has sent stays where
 * it is.
 */
void pull_hold(struct pull *p, uint64_t now_ns, uint64_t applied, uint32_t state, uint64_t errors,
               const char *error);
/* Of running time, between two calls of it. */
uint64_t pull_hold_ns(const struct pull *p);
/* When pull_next wants to be called even without a message. */
uint64_t pull_deadline_ns(const struct pull *p);

#endif
