/*
 * contention.c - counters of waits and refusals.
 *
 * A wait is charged in slices: each time the waiter looks and finds the stripe held, the time since its
 * last look goes to the participant that held it then. A stripe that changes hands while somebody waits
 * is thereby charged to each of its holders, as near as the looks are.
 *
 * What a holder's row says may be of a process that has since gone and left the row to another one: a
 * count at the wrong name, never a wrong decision.
 */
#include "shm/contention.h"

#include "core/txn.h"
#include "shm/stripe.h"

#include <string.h>

_Static_assert(TXN_REQUIRE_VERSION - TXN_REQUIRE_EXISTS == REFUSED_VERSION - REFUSED_EXISTS,
               "refusals are numbered as the requirements are");

static void add(A64 *g, uint64_t n)
{
    atomic_fetch_add_explicit(g, n, memory_order_relaxed);
}

static uint64_t get(const A64 *g)
{
    return atomic_load_explicit((A64 *)g, memory_order_relaxed);
}

const char *refusal_name(uint32_t why)
{
    static const char *const names[REFUSALS] = {[REFUSED_OTHER] = "other",
                                                [REFUSED_EXISTS] = "exists",
                                                [REFUSED_ABSENT] = "absent",
                                                [REFUSED_EQUALS] = "equals",
                                                [REFUSED_MIN] = "min",
                                                [REFUSED_MAX] = "max",
                                                [REFUSED_TYPE] = "type",
                                                [REFUSED_CONTAINS] = "contains",
                                                [REFUSED_VERSION] = "version",
                                                [REFUSED_CALLBACK] = "callback",
                                                [REFUSED_ID_REUSED] = "id-reused",
                                                [REFUSED_LOCK_TIMEOUT] = "lock-timeout"};
    return why < REFUSALS ? names[why] : "?";
}

enum refusal refusal_of_requirement(uint32_t kind)
{
    return txn_kind_is_requirement(kind)
               ? (enum refusal)(kind - TXN_REQUIRE_EXISTS + REFUSED_EXISTS)
               : REFUSED_OTHER;
}

void contention_refused(struct segment *s, enum refusal why)
{
    add(&s->contention->refused_by[why], 1);
}

/* The participant whose transaction holds the stripe; -1 when none does, or it is the writer's. */
static int holder_of(const struct segment *s, uint32_t stripe)
{
    int slot = stripe_holder(s, stripe);
    if (slot < 0 || (uint32_t)slot >= s->slots)
        return -1;
    uint32_t owner = slot_word_owner(atomic_load(&s->slot[slot].word));
    return owner < SHM_PARTICIPANTS ? (int)owner : -1;
}

static void charge(struct segment *s, const struct stripe_wait *w, uint64_t now_ns)
{
    if (w->holder >= 0 && now_ns > w->looked_ns)
        add(&s->participant[w->holder].held_up_ns, now_ns - w->looked_ns);
}

void contention_look(struct segment *s, struct stripe_wait *w, uint32_t self, uint32_t stripe,
                     uint64_t now_ns)
{
    int holder = holder_of(s, stripe);
    if (w->since_ns == 0) {
        w->since_ns = now_ns;
        w->holder = -1;
        add(&s->stripe[stripe].waits, 1);
        add(&s->participant[self].stripe_waits, 1);
    } else {
        charge(s, w, now_ns);
    }
    if (holder >= 0 && holder != w->holder)
        add(&s->participant[holder].held_up, 1);
    w->holder = holder;
    w->looked_ns = now_ns;
}

void contention_end(struct segment *s, struct stripe_wait *w, uint32_t self, uint32_t stripe,
                    uint64_t now_ns)
{
    if (w->since_ns == 0)
        return;
    charge(s, w, now_ns);
    uint64_t waited = now_ns > w->since_ns ? now_ns - w->since_ns : 0;
    add(&s->stripe[stripe].wait_ns, waited);
    add(&s->participant[self].wait_ns, waited);
    w->since_ns = 0;
}

/* ---- samples of keys ---- */

void contention_sample(struct segment *s, uint32_t stripe, struct azoth_bytes key)
{
    struct key_sample_shm *k = &s->contention->sample[stripe % SHM_KEY_SAMPLES];
    uint64_t head = (uint64_t)(stripe + 1) << 32 | key.len;
    if (key.len > sizeof k->word)
        return;
    for (size_t at = 0; at < key.len; at += 8) {
        uint64_t word = 0;
        memcpy(&word, (const unsigned char *)key.ptr + at, key.len - at < 8 ? key.len - at : 8);
        if (get(&k->word[at / 8]) != word)
            atomic_store_explicit(&k->word[at / 8], word, memory_order_relaxed);
    }
    if (get(&k->head) != head)
        atomic_store_explicit(&k->head, head, memory_order_relaxed);
}

uint32_t contention_key(const struct segment *s, uint32_t stripe, unsigned char out[512])
{
    const struct key_sample_shm *k = &s->contention->sample[stripe % SHM_KEY_SAMPLES];
    uint64_t head = get(&k->head);
    uint32_t len = (uint32_t)head;
    if (head >> 32 != stripe + 1 || len > sizeof k->word)
        return 0;
    for (uint32_t i = 0; i < (len + 7) / 8; i++) {
        uint64_t word = get(&k->word[i]);
        memcpy(out + (size_t)i * 8, &word, 8);
    }
    /* A mixture of two keys, or what lies there after a crash, hashes onto another stripe. */
    return stripe_of_key(s, (struct azoth_bytes){out, len}) == stripe ? len : 0;
}

uint32_t contention_hot(const struct segment *s, const uint64_t *before, struct hot_stripe *out,
                        uint32_t most)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->stripes; i++) {
        uint64_t waits = get(&s->stripe[i].waits);
        if (before && waits >= before[i]) /* else of a segment that was made anew since */
            waits -= before[i];
        if (waits == 0 || (n == most && waits <= out[n - 1].waits))
            continue;
        uint32_t at = n < most ? n++ : n - 1;
        for (; at > 0 && out[at - 1].waits < waits; at--)
            out[at] = out[at - 1];
        out[at] = (struct hot_stripe){i, waits, get(&s->stripe[i].wait_ns)};
    }
    return n;
}
