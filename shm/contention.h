/*
 * contention.h - who waits for which key, who holds it, and what preflight refuses: counters that tell
 * culprits. Called where a transaction waits or is refused anyway; no lock, no allocation, no system
 * call. Any thread of a participant.
 */
#ifndef SHM_CONTENTION_H
#define SHM_CONTENTION_H

#include "shm/segment.h"

/* Why preflight refused: the kind of the requirement that did not hold, or something else. */
enum refusal {
    REFUSED_OTHER = 0,
    REFUSED_EXISTS,
    REFUSED_ABSENT,
    REFUSED_EQUALS,
    REFUSED_MIN,
    REFUSED_MAX,
    REFUSED_TYPE,
    REFUSED_CONTAINS,
    REFUSED_VERSION,
    REFUSED_CALLBACK,     /* a callback or command said no */
    REFUSED_ID_REUSED,    /* the request's id was committed with another content */
    REFUSED_LOCK_TIMEOUT, /* a stripe was held by others until the deadline */
    REFUSALS
};
_Static_assert(REFUSALS <= SHM_REFUSALS, "each has its counter");
/* "exists", "min", ..., "callback", "id-reused", "lock-timeout", "other"; "?" */
const char *refusal_name(uint32_t why);
/* The refusal of a requirement by its kind in enum txn_kind. */
enum refusal refusal_of_requirement(uint32_t kind);
void contention_refused(struct segment *s, enum refusal why);

/* One transaction's wait for one stripe. Zero-initialise; used again for the next one. */
struct stripe_wait {
    uint64_t since_ns, looked_ns; /* 0: it does not wait */
    int holder; /* row of the participant that held it at the last look; -1: not known */
};
/*
 * The stripe could not be taken: at the first look of a wait it is counted, later the time since the look
 * before is put down to whoever held it then. `self` is the waiter's row. Times are CLOCK_MONOTONIC.
 */
void contention_look(struct segment *s, struct stripe_wait *w, uint32_t self, uint32_t stripe,
                     uint64_t now_ns);
/* It was taken, or given up. Nothing when it did not wait. */
void contention_end(struct segment *s, struct stripe_wait *w, uint32_t self, uint32_t stripe,
                    uint64_t now_ns);
/* Leaves a key of the stripe, up to 511 bytes, for who looks. */
void contention_sample(struct segment *s, uint32_t stripe, struct azoth_bytes key);

/* A key that was waited for at this stripe: its length, 0 when none is known. */
uint32_t contention_key(const struct segment *s, uint32_t stripe, unsigned char out[512]);

/* A stripe that was waited for. */
struct hot_stripe {
    uint32_t stripe;
    uint64_t waits, wait_ns;
};
/* The `most` stripes that were waited for most often, most first; how many. Looks at every stripe.
 * before: waits of each stripe at an earlier look, which are not counted; may be NULL. */
uint32_t contention_hot(const struct segment *s, const uint64_t *before, struct hot_stripe *out,
                        uint32_t most);

#endif
