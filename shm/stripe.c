/*
 * stripe.c - stripe locks.
 *
 * Exclusive: swap `exclusive` from 0 to (slot, ticket), then wait until no shared bit but ours is
 * left; the mark keeps new ones out meanwhile. Shared: set the slot's bit, then look at `exclusive`;
 * if somebody is there, take the bit back. Both sides write first and look second, sequentially
 * consistent, so of two that meet at least one sees the other.
 *
 * Order: each transaction takes its stripes in ascending order, and a shared taker holds no bit
 * while it waits. A waiter therefore only ever waits for holders that are further on: no cycle.
 *
 * Invariants
 *   S1  exclusive == (slot, ticket) or a shared bit of slot is set only while the slot's intents name
 *       the stripe: the intents are stored first and erased last.
 *   S2  a release names its holder, so repeating one, or one that comes late, changes nothing.
 *   S3  nobody waits here while holding something the writer needs: it takes no stripes.
 */
#include "shm/stripe.h"

#include "core/crash.h"

#include <limits.h>
#include <xxhash.h>

uint32_t stripe_of_key(const struct segment *s, struct azoth_bytes key)
{
    return (uint32_t)(XXH64(key.ptr, key.len, 0) % s->stripes);
}

uint32_t stripe_of_id(const struct segment *s, const uint8_t id[AZOTH_ID_BYTES])
{
    return (uint32_t)(XXH64(id, AZOTH_ID_BYTES, 1) % s->stripes);
}

/* Shared holders other than this slot. */
static int shared_by_others(struct segment *s, const struct stripe_shm *st, uint32_t slot)
{
    for (uint32_t w = 0; w <= (s->slots - 1) / 64; w++) {
        uint64_t bits = atomic_load((A64 *)&st->shared[w]);
        if (w == slot / 64)
            bits &= ~(1ull << (slot % 64));
        if (bits)
            return 1;
    }
    return 0;
}

/* Wakes those asleep; 1 when somebody has parked. */
static int announce(struct stripe_shm *st)
{
    if (!atomic_load(&st->waiters))
        return 0;
    uint32_t who = atomic_exchange(&st->waiters, 0);
    if (who & STRIPE_SLEEPERS) {
        atomic_fetch_add(&st->wake, 1);
        shm_wake(&st->wake, INT_MAX);
    }
    return (who & STRIPE_PARKED) != 0;
}

int stripe_try(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t intent)
{
    struct stripe_shm *st = &s->stripe[intent & ~INTENT_EXCLUSIVE];
    if (BROKEN(locks))
        return 1;
    uint64_t own = stripe_owner(slot, ticket);
    uint64_t seen = atomic_load(&st->exclusive);
    if (intent & INTENT_EXCLUSIVE) {
        if (seen != own) {
            seen = 0;
            if (!atomic_compare_exchange_strong(&st->exclusive, &seen, own))
                return 0;
            CRASH_POINT(stripe_marked);
        }
        return !shared_by_others(s, st, slot);
    }
    if (seen != 0)
        return 0;
    CRASH_POINT(stripe_seen_free);
    uint64_t bit = 1ull << (slot % 64);
    atomic_fetch_or(&st->shared[slot / 64], bit);
    CRASH_POINT(stripe_bit_set);
    if (atomic_load(&st->exclusive) == 0)
        return 1;
    atomic_fetch_and(&st->shared[slot / 64], ~bit);
    CRASH_POINT(stripe_bit_withdrawn);
    /* The exclusive taker may have gone to sleep because of our bit. Parked ones look again within
     * a slice; ours was there for an instant only. */
    if (announce(st))
        atomic_fetch_or(&st->waiters, STRIPE_PARKED);
    return 0;
}

/* May stripe_try succeed now? */
static int looks_free(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t intent)
{
    struct stripe_shm *st = &s->stripe[intent & ~INTENT_EXCLUSIVE];
    uint64_t seen = atomic_load(&st->exclusive);
    if (!(intent & INTENT_EXCLUSIVE))
        return seen == 0;
    return seen == 0 || (seen == stripe_owner(slot, ticket) && !shared_by_others(s, st, slot));
}

void stripe_wait(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t intent,
                 uint64_t timeout_ns)
{
    struct stripe_shm *st = &s->stripe[intent & ~INTENT_EXCLUSIVE];
    uint32_t seen = atomic_load(&st->wake);
    atomic_fetch_or(&st->waiters, STRIPE_SLEEPERS);
    if (looks_free(s, slot, ticket, intent) || segment_retired(s))
        return;
    shm_wait(&st->wake, seen, timeout_ns < SHM_WAIT_SLICE_NS ? timeout_ns : SHM_WAIT_SLICE_NS);
}

void stripe_park(struct participant *p, uint32_t intent)
{
    struct stripe_shm *st = &p->segment->stripe[intent & ~INTENT_EXCLUSIVE];
    atomic_store(&p->segment->participant[p->index].wants_release, 1);
    atomic_fetch_or(&st->waiters, STRIPE_PARKED);
}

int stripe_release(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t intent)
{
    uint32_t at = intent & ~INTENT_EXCLUSIVE;
    if (at >= s->stripes) /* shared memory is input */
        return 0;
    struct stripe_shm *st = &s->stripe[at];
    if (intent & INTENT_EXCLUSIVE) {
        uint64_t own = stripe_owner(slot, ticket);
        if (!atomic_compare_exchange_strong(&st->exclusive, &own, 0))
            return 0;
    } else {
        uint64_t bit = 1ull << (slot % 64);
        if (!(atomic_fetch_and(&st->shared[slot / 64], ~bit) & bit))
            return 0;
    }
    return announce(st);
}

int stripe_release_slot(struct segment *s, uint32_t slot, uint64_t ticket)
{
    struct slot_shm *sl = &s->slot[slot];
    uint32_t n = atomic_load(&sl->intents);
    const uint32_t *intent = sl->intent;
    if (n > SHM_INLINE_INTENTS) {
        uint32_t block = *(volatile const uint32_t *)&sl->intents_block; /* checked as it is used */
        if (n > s->stripes || block >= s->blocks)
            return 0;
        intent = (const uint32_t *)(const void *)(s->block + (size_t)block * SHM_BLOCK_BYTES);
    }
    int parked = 0;
    for (uint32_t i = 0; i < n; i++) {
        parked |= stripe_release(s, slot, ticket, intent[i]);
        CRASH_POINT(stripe_released);
    }
    return parked;
}

void stripe_poke(struct segment *s, struct wakes *wakes)
{
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++)
        if (atomic_load(&s->participant[i].wants_release) &&
            atomic_exchange(&s->participant[i].wants_release, 0))
            wakes_add(wakes, i, WAITS_ANY);
}

int stripe_holder(const struct segment *s, uint32_t stripe)
{
    const struct stripe_shm *st = &s->stripe[stripe];
    uint64_t seen = atomic_load((A64 *)&st->exclusive);
    if (seen)
        return (int)(seen >> 40) - 1;
    for (uint32_t w = 0; w < SHM_SLOT_WORDS; w++) {
        uint64_t bits = atomic_load((A64 *)&st->shared[w]);
        if (bits)
            return (int)(w * 64 + (uint32_t)__builtin_ctzll(bits));
    }
    return -1;
}
