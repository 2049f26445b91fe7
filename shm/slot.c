/*
 * slot.c - commit slots. The edges of the state machine drawn in slot.h.
 *
 * Happy path: an owner claims a slot, stores its intents, takes the stripes, writes the payload,
 * submits, sleeps; the writer takes it, commits, releases the stripes, writes the result, publishes;
 * the owner reads the result and frees the slot.
 *
 * Invariants
 *   Q1  `word` changes by compare-and-swap only; whoever succeeded owns the next step.
 *   Q2  a slot in FREE has no intents and no blocks.
 *   Q3  SUBMITTED is stored after the payload, so what the writer sees is whole; its hash is checked
 *       all the same, because the payload is another process's word.
 *   Q4  stripes are released before the result is published: a caller that has its answer may at
 *       once take the same stripes again.
 *   Q5  queue_bits and free_bits are hints. A lost queue bit (its owner died between SUBMITTED and
 *       the bit) is set by the reaper; lost in the writer's hands, by the scan at its start. A lost
 *       free bit is found by the full scan that precedes waiting.
 *   Q6  order for one submitter: seq is drawn before the bit is set, and the writer sorts by it.
 */
#include "shm/slot.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "shm/stripe.h"

#include <limits.h>
#include <string.h>
#include <xxhash.h>

static struct slot_shm *shm_of(const struct slot *s)
{
    return &s->owner->segment->slot[s->index];
}

static void bit_set(A64 *bits, uint32_t i)
{
    atomic_fetch_or(&bits[i / 64], 1ull << (i % 64));
}

static void queue_bit_set(struct segment *s, uint32_t i)
{
    atomic_fetch_or(&s->header->queue_bits[i / SHM_QUEUE_WORD], 1ull << (i % SHM_QUEUE_WORD));
}

/* ---- claiming ---- */

static int claim_one(struct participant *p, uint32_t i, struct slot *ret)
{
    struct slot_shm *sl = &p->segment->slot[i];
    uint64_t word = atomic_load(&sl->word);
    if (slot_word_state(word) != SLOT_FREE)
        return 0;
    uint64_t ticket = (slot_word_ticket(word) + 1) & SLOT_TICKET_MASK;
    if (!atomic_compare_exchange_strong(&sl->word, &word,
                                        slot_word(SLOT_CLAIMED, p->index, ticket)))
        return 0;
    sl->claimed_ns = clock_mono_ns();
    atomic_store_explicit(&sl->flags, 0, memory_order_relaxed);
    atomic_store_explicit(&sl->waits, 0, memory_order_relaxed);
    *ret = (struct slot){p, i, ticket};
    atomic_store_explicit(&p->claim_hint, i / 64, memory_order_relaxed);
    CRASH_POINT(preflight_claimed);
    return 1;
}

int slot_claim(struct participant *p, struct slot *ret)
{
    struct segment *s = p->segment;
    uint32_t words = (s->slots + 63) / 64;
    uint32_t first = atomic_load_explicit(&p->claim_hint, memory_order_relaxed);
    for (uint32_t k = 0; k < words; k++) {
        A64 *bits = &s->header->free_bits[(first + k) % words];
        uint64_t seen;
        while ((seen = atomic_load(bits)) != 0) {
            uint32_t at = (uint32_t)__builtin_ctzll(seen);
            uint32_t i = (first + k) % words * 64 + at;
            /* The bit goes first: who frees the slot after this sets it again. */
            atomic_fetch_and(bits, ~(1ull << at));
            CRASH_POINT(preflight_bit_taken);
            if (i < s->slots && claim_one(p, i, ret))
                return 1;
        }
    }
    for (uint32_t i = 0; i < s->slots; i++)
        if (claim_one(p, i, ret))
            return 1;
    return 0;
}

void slot_claim_wait(struct participant *p, uint64_t timeout_ns)
{
    struct header_shm *h = p->segment->header;
    uint32_t seen = atomic_load(&h->free_wake);
    atomic_store(&h->free_waiters, 1);
    for (uint32_t w = 0; w < SHM_SLOT_WORDS; w++)
        if (atomic_load(&h->free_bits[w]))
            return;
    shm_wait(&h->free_wake, seen, timeout_ns < SHM_WAIT_SLICE_NS ? timeout_ns : SHM_WAIT_SLICE_NS);
}

/* ---- blocks ---- */

void slot_block_wait(struct participant *p, uint32_t n, uint64_t timeout_ns)
{
    struct segment *s = p->segment;
    struct header_shm *h = s->header;
    uint32_t seen = atomic_load(&h->free_wake), none = 0;
    /* Word is left before the look: blocks that are freed after it wake us. */
    atomic_store(&h->free_waiters, 1);
    for (uint32_t b = 0; b < s->blocks && none < n; b++)
        none += atomic_load(&s->block_owner[b]) == 0;
    if (none < n)
        shm_wait(&h->free_wake, seen,
                 timeout_ns < SHM_WAIT_SLICE_NS ? timeout_ns : SHM_WAIT_SLICE_NS);
}

/* Takes n free blocks for the slot or none: two that each held half would wait for each other. */
static int blocks_take(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t n, uint32_t *ret)
{
    uint64_t own = stripe_owner(slot, ticket);
    uint32_t got = 0;
    uint32_t first = atomic_fetch_add_explicit(&s->header->block_hint, n, memory_order_relaxed);
    for (uint32_t k = 0; k < s->blocks && got < n; k++) {
        uint32_t b = (first + k) % s->blocks;
        uint64_t none = 0;
        if (atomic_load_explicit(&s->block_owner[b], memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong(&s->block_owner[b], &none, own))
            ret[got++] = b;
        if (got == 1)
            CRASH_POINT(preflight_one_block);
    }
    if (got == n)
        return 0;
    while (got > 0)
        atomic_store(&s->block_owner[ret[--got]], 0);
    return AZOTH_ERR_BUSY;
}

static void blocks_free(struct segment *s, uint32_t slot, uint64_t ticket)
{
    uint64_t own = stripe_owner(slot, ticket);
    for (uint32_t b = 0; b < s->blocks; b++) {
        uint64_t seen = own;
        if (atomic_load_explicit(&s->block_owner[b], memory_order_relaxed) == own)
            atomic_compare_exchange_strong(&s->block_owner[b], &seen, 0);
    }
}

static unsigned char *block_at(struct segment *s, uint32_t b)
{
    return s->block + (size_t)b * SHM_BLOCK_BYTES;
}

/* ---- freeing ---- */

/* Frees a slot whose word is `word` and belongs to the caller. Its stripes are released already. */
static void slot_put_free(struct segment *s, uint32_t index, uint64_t word)
{
    struct slot_shm *sl = &s->slot[index];
    uint64_t ticket = slot_word_ticket(word);
    if (atomic_load_explicit(&sl->uses_blocks, memory_order_relaxed)) {
        blocks_free(s, index, ticket);
        atomic_store_explicit(&sl->uses_blocks, 0, memory_order_relaxed);
    }
    atomic_store_explicit(&sl->intents, 0, memory_order_relaxed);
    CRASH_POINT(slot_emptied);
    if (!atomic_compare_exchange_strong(&sl->word, &word, slot_word(SLOT_FREE, 0, ticket)))
        return; /* of another incarnation, or corrupt: not ours to touch */
    CRASH_POINT(slot_freed);
    bit_set(s->header->free_bits, index);
    if (atomic_load(&s->header->free_waiters) && atomic_exchange(&s->header->free_waiters, 0)) {
        CRASH_POINT(slot_waiters_taken);
        atomic_fetch_add(&s->header->free_wake, 1);
        shm_wake(&s->header->free_wake, INT_MAX);
    }
}

static void release_and_poke(struct segment *s, uint32_t index, uint64_t ticket)
{
    if (!stripe_release_slot(s, index, ticket))
        return;
    struct wakes wakes = {0};
    stripe_poke(s, &wakes);
    wakes_send(s, &wakes);
}

void slot_cancel(struct slot *s)
{
    struct slot_shm *sl = shm_of(s);
    uint64_t word = atomic_load(&sl->word);
    release_and_poke(s->owner->segment, s->index, s->ticket);
    CRASH_POINT(preflight_unlocked);
    slot_put_free(s->owner->segment, s->index, word);
}

/* ---- the owner's way ---- */

int slot_intend(struct slot *s, const uint32_t *intents, uint32_t n)
{
    struct segment *seg = s->owner->segment;
    struct slot_shm *sl = shm_of(s);
    ensure(n <= seg->stripes);
    uint32_t *to = sl->intent;
    if (n > SHM_INLINE_INTENTS) {
        atomic_store(&sl->uses_blocks, 1);
        int rc = blocks_take(seg, s->index, s->ticket, 1, &sl->intents_block);
        if (rc)
            return rc;
        to = (uint32_t *)(void *)block_at(seg, sl->intents_block);
    }
    if (n)
        memcpy(to, intents, n * sizeof *intents);
    atomic_store(&sl->intents, n);
    CRASH_POINT(preflight_intents_stored);
    uint64_t word = slot_word(SLOT_CLAIMED, s->owner->index, s->ticket);
    int moved = atomic_compare_exchange_strong(
        &sl->word, &word, slot_word(SLOT_PREFLIGHT, s->owner->index, s->ticket));
    ensure(moved);
    CRASH_POINT(preflight_intended);
    return 0;
}

static int payload_put(struct slot *s, struct azoth_bytes payload)
{
    struct segment *seg = s->owner->segment;
    struct slot_shm *sl = shm_of(s);
    sl->payload_bytes = (uint32_t)payload.len;
    sl->payload_hash = XXH3_64bits(payload.ptr, payload.len);
    sl->block_count = 0;
    if (payload.len <= SHM_INLINE_BYTES) {
        memcpy(sl->payload, payload.ptr, payload.len);
        return 0;
    }
    uint32_t n = (uint32_t)((payload.len + SHM_BLOCK_BYTES - 1) / SHM_BLOCK_BYTES);
    ensure(n <= SHM_SLOT_BLOCKS);
    atomic_store(&sl->uses_blocks, 1);
    int rc = blocks_take(seg, s->index, s->ticket, n, sl->block);
    if (rc)
        return rc;
    sl->block_count = n;
    for (uint32_t i = 0; i < n; i++) {
        size_t at = (size_t)i * SHM_BLOCK_BYTES;
        size_t part = payload.len - at < SHM_BLOCK_BYTES ? payload.len - at : SHM_BLOCK_BYTES;
        memcpy(block_at(seg, sl->block[i]), (const char *)payload.ptr + at, part);
    }
    return 0;
}

int slot_submit(struct slot *s, const struct slot_submission *sub)
{
    struct segment *seg = s->owner->segment;
    struct slot_shm *sl = shm_of(s);
    int rc = payload_put(s, sub->payload);
    if (rc)
        return rc;
    CRASH_POINT(preflight_payload_stored);
    uint32_t flags = sub->flags;
    if (sub->id) {
        memcpy(sl->id, sub->id, sizeof sl->id);
        flags |= SLOT_HAS_ID;
    }
    sl->content = sub->content;
    atomic_store_explicit(&sl->flags, flags, memory_order_relaxed);
    sl->submitted_ns = clock_mono_ns();
    atomic_store_explicit(&sl->seq, atomic_fetch_add(&seg->header->queue_seq, 1),
                          memory_order_relaxed);
    uint64_t word = slot_word(SLOT_PREFLIGHT, s->owner->index, s->ticket);
    int moved = atomic_compare_exchange_strong(
        &sl->word, &word, slot_word(SLOT_SUBMITTED, s->owner->index, s->ticket));
    ensure(moved);
    CRASH_POINT(preflight_submitted);
    queue_bit_set(seg, s->index);
    CRASH_POINT(preflight_queued);
    atomic_fetch_add_explicit(&seg->participant[s->owner->index].submitted, 1,
                              memory_order_relaxed);
    return 0;
}

void slot_wake_writer(struct segment *s)
{
    struct header_shm *h = s->header;
    if (atomic_load(&h->writer_sleeps) && atomic_exchange(&h->writer_sleeps, 0)) {
        CRASH_POINT(preflight_wakes);
        atomic_fetch_add(&h->writer_wake, 1);
        shm_wake(&h->writer_wake, 1);
    }
}

int slot_done(const struct slot *s)
{
    uint32_t state = slot_word_state(atomic_load_explicit(&shm_of(s)->word, memory_order_acquire));
    return state == SLOT_COMMITTED || state == SLOT_REJECTED;
}

void slot_wait(struct slot *s, uint64_t timeout_ns)
{
    struct slot_shm *sl = shm_of(s);
    A32 *done_seq = &s->owner->segment->participant[s->owner->index].done_seq;
    uint32_t seen = atomic_load(done_seq);
    atomic_store(&sl->waits, 1);
    if (slot_word_state(atomic_load(&sl->word)) != SLOT_SUBMITTED ||
        segment_retired(s->owner->segment))
        return;
    shm_wait_bits(done_seq, seen, timeout_ns < SHM_WAIT_SLICE_NS ? timeout_ns : SHM_WAIT_SLICE_NS,
                  waits_slot(s->index));
}

void slot_collect(struct slot *s, struct slot_outcome *ret)
{
    struct slot_shm *sl = shm_of(s);
    uint64_t word = atomic_load_explicit(&sl->word, memory_order_acquire);
    *ret = (struct slot_outcome){
        .code = sl->code,
        .result = {.txn = sl->txn,
                   .first_event = sl->first_event,
                   .last_event = sl->last_event,
                   .keys_written = sl->keys_written,
                   .keys_deleted = sl->keys_deleted,
                   .keys_missing = sl->keys_missing,
                   .duplicate = sl->duplicate},
    };
    memcpy(ret->detail, sl->detail, sizeof ret->detail);
    ret->detail[sizeof ret->detail - 1] = 0;
    CRASH_POINT(preflight_collected);
    slot_put_free(s->owner->segment, s->index, word);
}

int slot_give_up(struct slot *s)
{
    uint64_t word = slot_word(SLOT_SUBMITTED, s->owner->index, s->ticket);
    return atomic_compare_exchange_strong(&shm_of(s)->word, &word,
                                          slot_word(SLOT_SUBMITTED, SLOT_OWNER_WRITER, s->ticket));
}

/* ---- the writer's way ---- */

int slot_queued(const struct segment *s)
{
    for (uint32_t w = 0; w < SHM_SLOT_WORDS; w++)
        if (atomic_load(&s->header->queue_bits[w]))
            return 1;
    return 0;
}

static uint32_t take_one(struct segment *s, uint32_t i, struct slot_taken *out)
{
    struct slot_shm *sl = &s->slot[i];
    uint64_t word = atomic_load_explicit(&sl->word, memory_order_acquire);
    if (slot_word_state(word) != SLOT_SUBMITTED)
        return 0;
    *out = (struct slot_taken){
        .index = i,
        .flags = atomic_load_explicit(&sl->flags, memory_order_relaxed),
        .ticket = slot_word_ticket(word),
        .seq = atomic_load_explicit(&sl->seq, memory_order_relaxed),
        .claimed_ns = sl->claimed_ns,
        .submitted_ns = sl->submitted_ns,
    };
    return 1;
}

uint32_t slot_take(struct segment *s, int scan, struct slot_taken *out)
{
    uint32_t n = 0;
    for (uint32_t w = 0; w < (s->slots + SHM_QUEUE_WORD - 1) / SHM_QUEUE_WORD; w++) {
        if (!scan && !atomic_load_explicit(&s->header->queue_bits[w], memory_order_relaxed))
            continue;
        uint64_t bits = atomic_exchange(&s->header->queue_bits[w], 0);
        if (scan)
            bits = ~0ull >> (64 - SHM_QUEUE_WORD);
        while (bits) {
            uint32_t i = w * SHM_QUEUE_WORD + (uint32_t)__builtin_ctzll(bits);
            bits &= bits - 1;
            if (i < s->slots)
                n += take_one(s, i, &out[n]);
        }
    }
    return n;
}

int slot_copy(struct segment *s, const struct slot_taken *t, struct buf *out, uint8_t id[16],
              uint64_t *ret_content)
{
    struct slot_shm *sl = &s->slot[t->index];
    size_t n = sl->payload_bytes;
    buf_clear(out);
    if (n > AZOTH_TXN_BYTES_MAX)
        return AZOTH_ERR_CORRUPT;
    unsigned char *to = buf_grow(out, n ? n : 1);
    if (!to)
        return AZOTH_ERR_NOMEM;
    out->len = n;
    memcpy(id, sl->id, 16);
    *ret_content = sl->content;
    if (n <= SHM_INLINE_BYTES) {
        memcpy(to, sl->payload, n);
    } else {
        for (size_t at = 0; at < n; at += SHM_BLOCK_BYTES) {
            uint32_t b = sl->block[at / SHM_BLOCK_BYTES];
            if (b >= s->blocks)
                return AZOTH_ERR_CORRUPT;
            memcpy(to + at, block_at(s, b), n - at < SHM_BLOCK_BYTES ? n - at : SHM_BLOCK_BYTES);
        }
    }
    return XXH3_64bits(to, n) == sl->payload_hash ? 0 : AZOTH_ERR_CORRUPT;
}

void slot_complete(struct segment *s, const struct slot_taken *t, const struct slot_outcome *o,
                   struct wakes *wakes)
{
    struct slot_shm *sl = &s->slot[t->index];
    uint64_t word = atomic_load(&sl->word);
    if (slot_word_state(word) != SLOT_SUBMITTED || slot_word_ticket(word) != t->ticket)
        return;
    if (stripe_release_slot(s, t->index, t->ticket))
        stripe_poke(s, wakes);
    CRASH_POINT(writer_stripes_released);
    sl->code = o->code;
    sl->duplicate = o->result.duplicate;
    sl->txn = o->result.txn;
    sl->first_event = o->result.first_event;
    sl->last_event = o->result.last_event;
    sl->keys_written = o->result.keys_written;
    sl->keys_deleted = o->result.keys_deleted;
    sl->keys_missing = o->result.keys_missing;
    if (o->code)
        memcpy(sl->detail, o->detail, sizeof sl->detail);
    else
        sl->detail[0] = 0;
    uint32_t state = o->code ? SLOT_REJECTED : SLOT_COMMITTED;
    /* The owner may give it up, or a reaper for it, while we publish: then the owner field differs.
     */
    while (!atomic_compare_exchange_weak(&sl->word, &word,
                                         slot_word(state, slot_word_owner(word), t->ticket)))
        if (slot_word_state(word) != SLOT_SUBMITTED || slot_word_ticket(word) != t->ticket)
            return;
    CRASH_POINT(writer_published);
    uint32_t owner = slot_word_owner(word);
    if (owner == SLOT_OWNER_WRITER) {
        slot_put_free(s, t->index, slot_word(state, owner, t->ticket));
        return;
    }
    if (owner >= SHM_PARTICIPANTS) /* shared memory is input */
        return;
    wakes_add(wakes, owner, atomic_load(&sl->waits) ? waits_slot(t->index) : WAITS_ANY);
}

void wakes_send(struct segment *s, const struct wakes *w)
{
    for (uint32_t k = 0; k < SHM_PARTICIPANTS / 64; k++)
        for (uint64_t left = w->rows[k]; left; left &= left - 1) {
            uint32_t i = k * 64 + (uint32_t)__builtin_ctzll(left), bits = w->bits[i];
            struct participant_shm *p = &s->participant[i];
            atomic_fetch_add(&p->done_seq, 1);
            if ((bits & WAITS_ANY) && !(atomic_load(&p->sleeps) && atomic_exchange(&p->sleeps, 0)))
                bits &= ~WAITS_ANY;
            if (bits)
                shm_wake_bits(&p->done_seq, bits);
        }
}

void slot_free_given_up(struct segment *s)
{
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t word = atomic_load(&s->slot[i].word);
        uint32_t state = slot_word_state(word);
        if (slot_word_owner(word) == SLOT_OWNER_WRITER &&
            (state == SLOT_COMMITTED || state == SLOT_REJECTED))
            slot_put_free(s, i, word);
    }
}

int slot_find_id(struct segment *s, const uint8_t id[16])
{
    for (uint32_t i = 0; i < s->slots; i++) {
        struct slot_shm *sl = &s->slot[i];
        uint64_t word = atomic_load_explicit(&sl->word, memory_order_acquire);
        if (slot_word_state(word) == SLOT_SUBMITTED &&
            (atomic_load_explicit(&sl->flags, memory_order_relaxed) & SLOT_HAS_ID) &&
            memcmp(sl->id, id, 16) == 0 && atomic_load(&sl->word) == word)
            return 1;
    }
    return 0;
}

/* ---- the reaper's way ---- */

int slot_reap(struct participant *self, uint32_t index, uint64_t word)
{
    struct segment *s = self->segment;
    struct slot_shm *sl = &s->slot[index];
    uint64_t ticket = slot_word_ticket(word);
    if (slot_word_state(word) == SLOT_SUBMITTED) {
        /* It goes on: the writer commits it and, as nobody will collect it, frees it. The bit goes
         * first: once the slot names no dead owner, nobody looks after a bit that is missing. */
        queue_bit_set(s, index);
        CRASH_POINT(reaper_requeued);
        if (!atomic_compare_exchange_strong(&sl->word, &word,
                                            slot_word(SLOT_SUBMITTED, SLOT_OWNER_WRITER, ticket)))
            return 0;
        slot_wake_writer(s);
        return 1;
    }
    uint64_t mine = slot_word(SLOT_REAPING, self->index, ticket);
    if (!atomic_compare_exchange_strong(&sl->word, &word, mine))
        return 0;
    CRASH_POINT(reaper_marked);
    release_and_poke(s, index, ticket);
    CRASH_POINT(reaper_stripes_released);
    slot_put_free(s, index, mine);
    return 1;
}
