/*
 * world.c - the model's memory, kernel and disk, and the invariants of shm/.
 *
 * Which fields are steps: all that two participants may touch. Not steps are counters for status
 * (never read by the protocol) and, unless a scenario sleeps exactly, the wake words and the flags
 * that say who sleeps: without them a sleeper may wake at any time, which includes every real run.
 * Everything else in the segment is constant: an atomic write to it is reported at once, a plain one
 * after the search.
 *
 * Checked after each step
 *   M1  a slot's word changes along an edge of slot.h only, by who may make it: the owner while it
 *       lives, the writer, a reaper only when the owner, or the reaper before it, is dead
 *   M2  a FREE slot has no intents, no blocks, and holds no stripe
 *   M3  a stripe's mark or bit belongs to a slot in PREFLIGHT, SUBMITTED or REAPING, of that ticket,
 *       whose intents name it so
 *   M4  who was told that it holds a stripe exclusively is alone there, until it is released; a mark or
 *       bit is taken away by who has the slot alone
 *   M5  a block belongs to a slot that is not free, of that ticket
 *   M10 a row becomes a process's while that has the row's lock, and no other's as long as it lives
 * and where the disk is written and answers are read
 *   M6  the writer applies whole payloads, each transaction once, each submitter's in their order
 *   M7  what preflight read under its stripes is still so when the writer applies
 *   M8  an answer is the outcome of the owner's own transaction, and durable before it is given
 */
#include "tests/model/world.h"

#include "core/clock.h"
#include "core/error.h"
#include "shm/stripe.h"

#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct world W;
struct segment *model_segment;
struct model_plan model_plan;
struct model_txn model_txn[TXNS_MAX];
uint32_t model_txns;

enum watch { CONSTANT = 0, STEP, OWNED, ROW_WORD, IGNORED };

static uint8_t *watch_map;     /* one for each four bytes of the segment */
static unsigned char *outside; /* what the segment was, to find changes of constants */
static uint8_t *saved_map;     /* one for each byte: part of the state */

/* ---- setting up ---- */

int world_open(void)
{
    struct segment_plan plan = {.incarnation = 1,
                                .slots = SLOTS_MAX,
                                .stripes = STRIPES_MAX,
                                .blocks = BLOCKS_MAX,
                                .mode = 0600};
    struct segment_name name;
    snprintf(name.segment, sizeof name.segment, "/azoth-model-%d", (int)getpid());
    snprintf(name.gauges, sizeof name.gauges, "/azoth-model-%d-g", (int)getpid());
    int rc = segment_create(&name, &plan, &model_segment, NULL);
    if (rc)
        return rc;
    segment_unlink(&name);
    watch_map = calloc(1, model_segment->bytes / 4);
    saved_map = calloc(1, model_segment->bytes);
    outside = malloc(model_segment->bytes);
    return watch_map && saved_map && outside ? 0 : AZOTH_ERR_NOMEM;
}

static size_t offset_of(const void *at)
{
    return (size_t)((const unsigned char *)at - (const unsigned char *)model_segment->prefix);
}

static int inside(const void *at)
{
    return offset_of(at) < model_segment->bytes;
}

static void watched(uint32_t part, void *at, size_t bytes, enum watch how)
{
    memset(watch_map + offset_of(at) / 4, (int)how, bytes / 4);
    if (how != IGNORED) {
        memset(saved_map + offset_of(at), 1, bytes);
        explore_part(part, at, bytes);
    }
}

/* Plain memory between atomics. */
static void kept(uint32_t part, void *at, const void *end)
{
    size_t bytes = (size_t)((const unsigned char *)end - (unsigned char *)at);
    memset(saved_map + offset_of(at), 1, bytes);
    explore_part(part, at, bytes);
}

void world_reset(const struct model_plan *plan)
{
    struct segment *s = model_segment;
    explore_reset();
    memset(&W, 0, sizeof W);
    memset(model_txn, 0, sizeof model_txn);
    model_txns = 0;
    model_plan = *plan;
    W.deaths_left = (uint8_t)plan->deaths;
    batch_encode(W.record, &(struct batch_head){.incarnation = 1}, NULL);
    W.record_len = BATCH_HEAD;
    memset(watch_map, CONSTANT, s->bytes / 4);
    memset(saved_map, 0, s->bytes);
    memset(s->header, 0, s->bytes - offset_of(s->header));
    s->slots = plan->slots;
    s->stripes = plan->stripes;
    s->blocks = plan->blocks;
    s->header->free_bits[0] = (1ull << plan->slots) - 1;
}

#define PART_WORLD  0u
#define PART_HEADER 1u
#define PART_ROWS   2u
#define PART_STRIPE 3u
#define PART_SLOT   4u
_Static_assert(PART_SLOT + SLOTS_MAX <= PARTS_MAX, "a part for each slot");

#define WATCH(part, field, how) watched(part, (void *)&(field), sizeof(field), how)

static void watch_slot(uint32_t i, enum watch wakes)
{
    struct slot_shm *sl = &model_segment->slot[i];
    uint32_t p = PART_SLOT + i;
    WATCH(p, sl->word, STEP);
    WATCH(p, sl->waits, wakes);
    WATCH(p, sl->seq, OWNED);
    WATCH(p, sl->flags, OWNED);
    WATCH(p, sl->intents, OWNED);
    WATCH(p, sl->uses_blocks, OWNED);
    kept(p, &sl->payload_bytes, &sl->id);
    kept(p, &sl->content, &sl->slot_reserved);
    kept(p, &sl->code, &sl->detail[1]);
    kept(p, &sl->block, &sl->block[BLOCKS_MAX]);
    kept(p, &sl->intents_block, &sl->intent[STRIPES_MAX]);
    kept(p, &sl->payload, &sl->payload[KEPT_BYTES]);
}

void world_watch(void)
{
    struct segment *s = model_segment;
    struct header_shm *h = s->header;
    enum watch wakes = model_plan.exact_sleep ? STEP : IGNORED;
    explore_part(PART_WORLD, &W, sizeof W);
    A64 *ignored[] = {&h->head_event, &h->head_txn, &h->heartbeat_ns};
    for (unsigned i = 0; i < sizeof ignored / sizeof *ignored; i++)
        WATCH(PART_HEADER, *ignored[i], IGNORED);
    WATCH(PART_HEADER, h->head_seq, IGNORED);
    WATCH(PART_HEADER, h->head_waiters, IGNORED);
    WATCH(PART_HEADER, h->queue_seq, STEP);
    WATCH(PART_HEADER, h->writer_wake, wakes);
    WATCH(PART_HEADER, h->writer_sleeps, wakes);
    WATCH(PART_HEADER, h->free_wake, wakes);
    WATCH(PART_HEADER, h->free_waiters, wakes);
    WATCH(PART_HEADER, h->block_hint, IGNORED); /* where to begin to look: any place will do */
    for (uint32_t w = 0; w < SLOTS_MAX; w++)
        WATCH(PART_HEADER, h->queue_bits[w], STEP);
    WATCH(PART_HEADER, h->free_bits[0], STEP);
    for (uint32_t i = 0; i < ROWS_MAX; i++) {
        struct participant_shm *row = &s->participant[i];
        WATCH(PART_ROWS, row->word, ROW_WORD);
        WATCH(PART_ROWS, row->pid, IGNORED);
        WATCH(PART_ROWS, row->kind, IGNORED);
        kept(PART_ROWS, &row->name, &row->name[4]);
        WATCH(PART_ROWS, row->done_seq, wakes);
        WATCH(PART_ROWS, row->sleeps, wakes);
        WATCH(PART_ROWS, row->wants_release, wakes);
        for (A64 *c = &row->submitted; c <= &row->held_up_ns; c++)
            WATCH(PART_ROWS, *c, IGNORED);
    }
    for (uint32_t i = 0; i < s->stripes; i++) {
        struct stripe_shm *st = &s->stripe[i];
        WATCH(PART_STRIPE, st->exclusive, STEP);
        WATCH(PART_STRIPE, st->shared[0], STEP);
        WATCH(PART_STRIPE, st->wake, wakes);
        WATCH(PART_STRIPE, st->waiters, wakes);
        WATCH(PART_STRIPE, st->waits, IGNORED);
        WATCH(PART_STRIPE, st->wait_ns, IGNORED);
    }
    for (uint32_t i = 0; i < s->blocks; i++) {
        WATCH(PART_STRIPE, s->block_owner[i], STEP);
        unsigned char *b = s->block + (size_t)i * SHM_BLOCK_BYTES;
        kept(PART_STRIPE, b, b + KEPT_BYTES);
    }
    for (uint32_t i = 0; i < s->slots; i++)
        watch_slot(i, wakes);
    memcpy(outside, s->prefix, s->bytes);
}

int world_rest_unchanged(void)
{
    const unsigned char *now = (const void *)model_segment->prefix;
    for (size_t i = 0; i < model_segment->bytes; i++)
        if (!saved_map[i] && now[i] != outside[i]) {
            printf("  changed, and not part of the state: %s\n", world_address(now + i));
            return 0;
        }
    return 1;
}

/* ---- names, for the printed way ---- */

const char *world_address(const void *at)
{
    static char text[80];
    const struct segment *s = model_segment;
    size_t o = offset_of(at);
#define NAMED(base, count, structure, label)                                                       \
    if (o >= offset_of(base) && o < offset_of(base) + (count) * sizeof(struct structure)) {        \
        size_t i = (o - offset_of(base)) / sizeof(struct structure);                               \
        size_t f = (o - offset_of(base)) % sizeof(struct structure);                               \
        size_t at_most = 0;                                                                        \
        const char *n = "?";                                                                       \
        for (unsigned k = 0; k < sizeof names / sizeof *names; k++)                                \
            if (strcmp(names[k].of, label) == 0 && names[k].at <= f && names[k].at >= at_most) {   \
                n = names[k].name;                                                                 \
                at_most = names[k].at;                                                             \
            }                                                                                      \
        snprintf(text, sizeof text, "%s[%zu].%s", label, i, n);                                    \
        return text;                                                                               \
    }
#define N(structure, label, field) {label, #field, offsetof(struct structure, field)},
    static const struct {
        const char *of, *name;
        size_t at;
    } names[] = {
#define H1(type, name)        N(header_shm, "header", name)
#define HN(type, name, count) N(header_shm, "header", name)
#define R1(type, name)        N(participant_shm, "row", name)
#define RN(type, name, count) N(participant_shm, "row", name)
#define S1(type, name)        N(slot_shm, "slot", name)
#define SN(type, name, count) N(slot_shm, "slot", name)
#define T1(type, name)        N(stripe_shm, "stripe", name)
#define TN(type, name, count) N(stripe_shm, "stripe", name)
        SHM_HEADER_FIELDS(H1, HN) SHM_PARTICIPANT_FIELDS(R1, RN) SHM_SLOT_FIELDS(S1, SN)
            SHM_STRIPE_FIELDS(T1, TN)};
    NAMED(s->header, 1, header_shm, "header")
    NAMED(s->participant, SHM_PARTICIPANTS, participant_shm, "row")
    NAMED(s->slot, SLOTS_MAX, slot_shm, "slot")
    NAMED(s->stripe, STRIPES_MAX, stripe_shm, "stripe")
    snprintf(text, sizeof text, "byte %zu", o);
    return text;
}

/* ---- atomics ---- */

static uint64_t raw_get(const void *at, unsigned bytes)
{
    uint32_t four;
    uint64_t eight;
    if (bytes == 4) {
        memcpy(&four, at, 4);
        return four;
    }
    memcpy(&eight, at, 8);
    return eight;
}

static void raw_set(void *at, unsigned bytes, uint64_t v)
{
    uint32_t four = (uint32_t)v;
    if (bytes == 4)
        memcpy(at, &four, 4);
    else
        memcpy(at, &v, 8);
}

static uint64_t word_of(uint32_t i)
{
    return raw_get(&model_segment->slot[i].word, 8);
}

/* Whose are the fields of a slot that is not free: M9. */
static void check_owned(const void *at, uint32_t a)
{
    uint32_t i =
        (uint32_t)((offset_of(at) - offset_of(model_segment->slot)) / sizeof(struct slot_shm));
    uint64_t word = word_of(i);
    int ok = 0;
    switch (slot_word_state(word)) {
    case SLOT_CLAIMED:
    case SLOT_PREFLIGHT:
        ok = W.claimant[i] == a;
        break;
    case SLOT_SUBMITTED:
        ok = W.writes[a];
        break;
    case SLOT_COMMITTED:
    case SLOT_REJECTED:
        ok = slot_word_owner(word) == SLOT_OWNER_WRITER ? W.writes[a] : W.claimant[i] == a;
        break;
    case SLOT_REAPING:
        ok = W.reaper[i] == a;
        break;
    default:
        break;
    }
    if (!ok)
        model_fail("%s is touched by one who does not own the slot", world_address(at));
}

/* The row of a process that lives, and that nobody can find dead meanwhile: it changes its row itself
 * or not at all, and who looks at it does nothing. */
static int row_is_quiet(uint32_t row)
{
    return W.lock[row] != 0;
}

/* Stops if others see it. 0: the write is dropped. */
static int seen_by_others(const void *at, enum pending_kind kind)
{
    uint32_t a = model_self();
    if (!inside(at) || a == ACTORS_MAX)
        return 1;
    switch ((enum watch)watch_map[offset_of(at) / 4]) {
    case STEP:
        model_stop(kind, at);
        return 1;
    case OWNED:
        check_owned(at, a);
        return 1;
    case ROW_WORD:
        if (kind != PENDING_LOAD ||
            !row_is_quiet((uint32_t)((offset_of(at) - offset_of(model_segment->participant)) /
                                     sizeof(struct participant_shm))))
            model_stop(kind, at);
        return 1;
    case IGNORED:
        return 0;
    default:
        return 1;
    }
}

/* ---- the edges ---- */

static int dead(uint32_t a)
{
    return W.status[a] == ACTOR_DEAD;
}

/* M1, all edges but the claim. */
static int edge_allowed(uint32_t i, uint32_t a, uint32_t from, uint32_t to, uint32_t owner_from,
                        uint32_t owner_to)
{
    uint32_t row = W.row_of[a];
    int mine = W.claimant[i] == a, same = owner_from == owner_to;
    int finished = from == SLOT_COMMITTED || from == SLOT_REJECTED;
    if (to == SLOT_REAPING)
        return owner_to == row &&
               (from == SLOT_REAPING
                    ? dead(W.reaper[i])
                    : from != SLOT_FREE && dead(W.claimant[i]) && from != SLOT_SUBMITTED);
    switch (from) {
    case SLOT_CLAIMED:
        return mine && ((to == SLOT_PREFLIGHT && same) || to == SLOT_FREE);
    case SLOT_PREFLIGHT:
        return mine && ((to == SLOT_SUBMITTED && same) || to == SLOT_FREE);
    case SLOT_SUBMITTED:
        if (to == SLOT_SUBMITTED)
            return owner_to == SLOT_OWNER_WRITER && !same && (mine || dead(W.claimant[i]));
        return (to == SLOT_COMMITTED || to == SLOT_REJECTED) && same && W.writes[a];
    case SLOT_REAPING:
        return to == SLOT_FREE && owner_from == row && W.reaper[i] == a;
    default:
        return finished && to == SLOT_FREE &&
               (owner_from == SLOT_OWNER_WRITER ? W.writes[a] : mine);
    }
}

static const char *const state_name[] = {"FREE",      "CLAIMED",  "PREFLIGHT", "SUBMITTED",
                                         "COMMITTED", "REJECTED", "REAPING"};

static void check_edge(uint32_t i, uint32_t a, uint64_t was)
{
    uint64_t now = word_of(i);
    uint32_t from = slot_word_state(was), to = slot_word_state(now);
    uint64_t ticket = slot_word_ticket(was) + (from == SLOT_FREE);
    int ok = to <= SLOT_REAPING && slot_word_ticket(now) == ticket;
    if (ok && from == SLOT_FREE) {
        ok = to == SLOT_CLAIMED && slot_word_owner(now) == W.row_of[a];
        W.claimant[i] = (uint8_t)a;
        W.holds[i] = 0;
        W.txn_in[i] = 0;
    } else if (ok) {
        ok = edge_allowed(i, a, from, to, slot_word_owner(was), slot_word_owner(now));
    }
    if (!ok) {
        model_fail(
            "slot %u: %s of row %u goes to %s of row %u, ticket %llu to %llu", i, state_name[from],
            slot_word_owner(was), to <= SLOT_REAPING ? state_name[to] : "?", slot_word_owner(now),
            (unsigned long long)slot_word_ticket(was), (unsigned long long)slot_word_ticket(now));
        return;
    }
    if (to == SLOT_REAPING)
        W.reaper[i] = (uint8_t)a;
    if (from == SLOT_PREFLIGHT && to == SLOT_SUBMITTED) {
        uint32_t no = (uint32_t)model_segment->slot[i].content;
        W.txn_in[i] = (uint8_t)no;
        W.owner[no - 1] = (uint8_t)a;
        uint8_t order = 1;
        for (uint32_t t = 0; t < model_txns; t++)
            order = (uint8_t)(order + (t != no - 1 && W.order[t] && W.owner[t] == a));
        W.order[no - 1] = order;
    }
    if (to == SLOT_FREE) {
        W.claimant[i] = W.reaper[i] = W.holds[i] = W.txn_in[i] = 0;
        if (raw_get(&model_segment->slot[i].intents, 4) ||
            raw_get(&model_segment->slot[i].uses_blocks, 4))
            model_fail("slot %u is free and has intents or blocks", i);
    }
}

/* M4, its other half: a mark or bit is taken away by who has the slot. */
static void check_release(uint32_t stripe, uint32_t slot, uint32_t a)
{
    uint64_t word = slot < model_plan.slots ? word_of(slot) : 0;
    uint32_t st = slot_word_state(word);
    if (!(st == SLOT_PREFLIGHT && W.claimant[slot] == a) &&
        !(st == SLOT_SUBMITTED && W.writes[a]) && !(st == SLOT_REAPING && W.reaper[slot] == a))
        model_fail("stripe %u is taken from slot %u by one who does not have the slot", stripe,
                   slot);
}

static void check_stripe_write(const void *at, uint64_t was, uint64_t now, uint32_t a)
{
    for (uint32_t i = 0; i < model_plan.stripes; i++) {
        const struct stripe_shm *st = &model_segment->stripe[i];
        if (at == &st->exclusive && was && now != was)
            check_release(i, (uint32_t)(was >> 40) - 1, a);
        for (uint32_t k = 0; at == &st->shared[0] && k < 64; k++)
            if (was & ~now & 1ull << k)
                check_release(i, k, a);
    }
}

/* M10: a row becomes a process's while that has the row's lock, and no other's as long as it lives. */
static void check_row(uint32_t row, uint32_t a, uint64_t was, uint64_t now)
{
    uint32_t holder = W.lock[row];
    if ((now & 0xff) == PARTICIPANT_LIVE && holder != a + 1)
        model_fail("row %u is joined by one who does not have its lock", row);
    if ((was & 0xff) == PARTICIPANT_LIVE && holder && holder != a + 1)
        model_fail("row %u is taken from a process that lives", row);
}

static void write_checked(void *at, unsigned bytes, uint64_t v)
{
    if (inside(at) && model_self() < ACTORS_MAX && watch_map[offset_of(at) / 4] == CONSTANT &&
        raw_get(at, bytes) != v)
        model_fail("a field that was taken for constant changes: %s", world_address(at));
    uint64_t was = raw_get(at, bytes);
    raw_set(at, bytes, v);
    for (uint32_t i = 0; i < model_plan.slots && model_self() < ACTORS_MAX; i++)
        if (at == &model_segment->slot[i].word)
            check_edge(i, model_self(), was);
    if (model_self() == ACTORS_MAX)
        return;
    check_stripe_write(at, was, raw_get(at, bytes), model_self());
    for (uint32_t i = 0; i < ROWS_MAX; i++)
        if (at == &model_segment->participant[i].word)
            check_row(i, model_self(), was, raw_get(at, bytes));
}

uint64_t model_load(const void *at, unsigned bytes)
{
    return seen_by_others(at, PENDING_LOAD) ? raw_get(at, bytes) : 0;
}

void model_store(void *at, unsigned bytes, uint64_t value)
{
    if (seen_by_others(at, PENDING_STORE))
        write_checked(at, bytes, value);
}

uint64_t model_change(void *at, unsigned bytes, enum model_change how, uint64_t value)
{
    if (!seen_by_others(at, PENDING_CHANGE))
        return 0;
    uint64_t old = raw_get(at, bytes);
    write_checked(at, bytes,
                  how == MODEL_SWAP  ? value
                  : how == MODEL_ADD ? old + value
                  : how == MODEL_AND ? (old & value)
                                     : (old | value));
    return old;
}

int model_cas(void *at, unsigned bytes, void *expected, uint64_t value)
{
    if (!seen_by_others(at, PENDING_CAS))
        return 0;
    uint64_t old = raw_get(at, bytes);
    if (old != raw_get(expected, bytes)) {
        raw_set(expected, bytes, old);
        return 0;
    }
    write_checked(at, bytes, value);
    return 1;
}

/* ---- the kernel: locks, sleeping, time ---- */

int model_lock_call(int set, uint32_t byte, int unlock)
{
    uint32_t who = model_self();
    if (byte >= ROWS_MAX) {
        model_fail("a lock on byte %u", byte);
        return 0;
    }
    if (who == ACTORS_MAX)
        return 1; /* the scenario is being made, which notes the owner itself */
    /* Held for good: nothing to wait for. */
    if (set || !W.lock[byte] || W.deaths_left)
        model_stop(PENDING_CALL,
                   set ? "the kernel for a row's lock" : "the kernel whether a row lives");
    if (!set)
        return W.lock[byte] != 0 && W.lock[byte] != who + 1;
    if (unlock) {
        W.lock[byte] = 0;
        return 1;
    }
    if (W.lock[byte] && W.lock[byte] != who + 1)
        return 0;
    W.lock[byte] = (uint8_t)(who + 1);
    return 1;
}

void model_wait_bits(A32 *word, uint32_t expected, uint64_t timeout_ns, uint32_t bits)
{
    if (timeout_ns == 0)
        return;
    W.bits[model_self()] = bits;
    model_stop(PENDING_WAIT, word);
    if (model_plan.exact_sleep && raw_get((void *)word, 4) == expected) {
        W.asleep_on[model_self()] = (uint32_t)offset_of(word) + 1;
        model_stop(PENDING_ASLEEP, word);
    }
    W.bits[model_self()] = 0;
}

void model_wait(A32 *word, uint32_t expected, uint64_t timeout_ns)
{
    model_wait_bits(word, expected, timeout_ns, ~0u);
}

static void wake(A32 *word, int count, uint32_t bits)
{
    int woken = 0;
    if (!model_plan.exact_sleep || !inside(word))
        return;
    for (uint32_t a = 0; a < ACTORS_MAX; a++)
        if (W.asleep_on[a] == offset_of(word) + 1 && (W.bits[a] & bits)) {
            W.asleep_on[a] = 0;
            if (++woken > count)
                model_fail("more sleep on %s than one wake reaches", world_address(word));
        }
}

void model_wake(A32 *word, int count)
{
    wake(word, count, ~0u);
}

void model_wake_bits(A32 *word, uint32_t bits)
{
    wake(word, INT_MAX, bits);
}

uint64_t model_mono_ns(void)
{
    return NOW_NS;
}

int64_t model_wall_ns(void)
{
    return 0;
}

void model_ensure_failed(const char *cond, const char *file, int line)
{
    model_fail("%s:%d: ensure(%s)", file, line, cond);
    for (;;) /* an actor does not come back from model_fail */
        ;
}

/* ---- what the explorer asks ---- */

enum actor_status world_status(uint32_t a)
{
    return (enum actor_status)W.status[a];
}

void world_set_status(uint32_t a, enum actor_status s)
{
    W.status[a] = (uint8_t)s;
}

int world_dead_row(void)
{
    for (uint32_t i = 0; i < ROWS_MAX; i++)
        if ((raw_get(&model_segment->participant[i].word, 8) & 0xff) == PARTICIPANT_LIVE &&
            !W.lock[i])
            return 1;
    return 0;
}

static int any_queued(const struct segment *s)
{
    for (uint32_t w = 0; w < SLOTS_MAX; w++)
        if (raw_get(&s->header->queue_bits[w], 8))
            return 1;
    return 0;
}

/*
 * When sleep is not exact, a sleeper may wake at any time; but one that would look, change nothing
 * and sleep again is left asleep. Whether it would is asked of the segment, not of the wake words.
 */
static int nothing_to_do(uint32_t a, const void *at)
{
    const struct segment *s = model_segment;
    if (at == &s->header->writer_wake)
        return !any_queued(s);
    if (at == &s->header->free_wake) {
        int none = 1;
        for (uint32_t i = 0; i < s->slots; i++)
            none &= slot_word_state(word_of(i)) != SLOT_FREE;
        for (uint32_t i = 0; i < s->blocks; i++)
            none &= raw_get(&s->block_owner[i], 8) != 0;
        return none;
    }
    /* One that waits for a slot: its process has no other slot under this bit. */
    for (uint32_t i = 0; i < s->slots; i++)
        if (W.bits[a] == waits_slot(i) && slot_word_owner(word_of(i)) == W.row_of[a] &&
            at == &s->participant[W.row_of[a]].done_seq)
            return slot_word_state(word_of(i)) == SLOT_SUBMITTED;
    for (uint32_t i = 0; i < s->stripes; i++)
        if (at == &s->stripe[i].wake) {
            uint64_t mark = raw_get(&s->stripe[i].exclusive, 8);
            uint32_t slot = (uint32_t)(mark >> 40) - 1;
            return mark && (slot >= s->slots || W.claimant[slot] != a);
        }
    return 0;
}

int world_asleep(uint32_t a, const struct pending *p)
{
    if (W.asleep_on[a] || (W.idle[a] && !world_dead_row()))
        return 1;
    if (model_plan.exact_sleep || model_plan.clock_moves ||
        (model_plan.all_reap && world_dead_row()))
        return 0;
    return p->kind == PENDING_WAIT && nothing_to_do(a, p->at);
}

int world_may_die(uint32_t a)
{
    (void)a;
    return W.deaths_left > 0;
}

void world_die(uint32_t a)
{
    W.deaths_left--;
    W.status[a] = ACTOR_DEAD;
    W.writes[a] = 0;
    W.asleep_on[a] = 0;
    for (uint32_t i = 0; i < ROWS_MAX; i++)
        if (W.lock[i] == a + 1)
            W.lock[i] = 0;
}

uint32_t world_version(uint32_t stripe, const uint8_t *applied, uint32_t n)
{
    uint32_t v = 0;
    for (uint32_t i = 0; i < W.log_len + n; i++) {
        uint8_t no = i < W.log_len ? W.log[i] : applied[i - W.log_len];
        const struct model_txn *t = &model_txn[no - 1];
        for (uint32_t k = 0; k < t->intents; k++)
            v += t->intent[k] == (stripe | INTENT_EXCLUSIVE);
    }
    return v;
}

/* ---- invariants ---- */

static int names(uint32_t slot, uint32_t intent)
{
    const struct slot_shm *sl = &model_segment->slot[slot];
    uint64_t n = raw_get(&sl->intents, 4);
    for (uint32_t k = 0; k < n && k < STRIPES_MAX; k++)
        if (sl->intent[k] == intent)
            return 1;
    return 0;
}

static void check_holder(uint32_t stripe, uint32_t slot, uint32_t intent, uint64_t ticket)
{
    uint64_t word = slot < model_plan.slots ? word_of(slot) : 0;
    uint32_t st = slot_word_state(word);
    if ((st != SLOT_PREFLIGHT && st != SLOT_SUBMITTED && st != SLOT_REAPING) ||
        slot_word_ticket(word) != ticket || !names(slot, intent))
        model_fail("stripe %u is held by slot %u, ticket %llu, which is %s, ticket %llu", stripe,
                   slot, (unsigned long long)ticket, state_name[st],
                   (unsigned long long)slot_word_ticket(word));
}

static void check_stripe(uint32_t i)
{
    const struct stripe_shm *st = &model_segment->stripe[i];
    uint64_t mark = raw_get(&st->exclusive, 8), bits = raw_get(&st->shared[0], 8);
    uint32_t alone = SLOTS_MAX, holders = 0;
    if (mark) {
        uint32_t slot = (uint32_t)(mark >> 40) - 1;
        check_holder(i, slot, i | INTENT_EXCLUSIVE, mark & SLOT_TICKET_MASK);
        if (slot < SLOTS_MAX && (W.holds[slot] & 1u << i)) {
            alone = slot;
            holders++;
        }
    }
    for (uint32_t k = 0; k < 64; k++)
        if (bits >> k & 1) {
            check_holder(i, k, i, k < SLOTS_MAX ? slot_word_ticket(word_of(k)) : 0);
            holders += k < SLOTS_MAX && (W.holds[k] & 1u << i);
        }
    if (alone < SLOTS_MAX && holders > 1)
        model_fail("stripe %u is held exclusively by slot %u and by another", i, alone);
}

void world_check(uint32_t a)
{
    (void)a;
    for (uint32_t i = 0; i < model_plan.stripes; i++)
        check_stripe(i);
    for (uint32_t b = 0; b < model_plan.blocks; b++) {
        uint64_t own = raw_get(&model_segment->block_owner[b], 8);
        uint32_t slot = (uint32_t)(own >> 40) - 1;
        if (own && (slot >= model_plan.slots || slot_word_state(word_of(slot)) == SLOT_FREE ||
                    slot_word_ticket(word_of(slot)) != (own & SLOT_TICKET_MASK)))
            model_fail("block %u belongs to slot %u, which is of another ticket or free", b, slot);
    }
}

/* Everybody is done, everything is given back, and each submission was answered or is on the disk. */
int world_good(void)
{
    int writer = 0;
    for (uint32_t a = 0; a < ACTORS_MAX; a++) {
        writer |= W.writes[a];
        if (W.status[a] == ACTOR_RUNS && !W.writes[a] && !W.idle[a])
            return 0;
    }
    for (uint32_t i = 0; i < model_plan.slots; i++)
        if (slot_word_state(word_of(i)) != SLOT_FREE)
            return 0;
    for (uint32_t i = 0; i < model_plan.stripes; i++)
        if (raw_get(&model_segment->stripe[i].exclusive, 8) ||
            raw_get(&model_segment->stripe[i].shared[0], 8))
            return 0;
    for (uint32_t b = 0; b < model_plan.blocks; b++)
        if (raw_get(&model_segment->block_owner[b], 8))
            return 0;
    for (uint32_t t = 0; t < model_txns; t++) {
        uint32_t n = W.refused[t];
        for (uint32_t k = 0; k < W.log_len; k++)
            n += W.log[k] == t + 1;
        if (n != (W.order[t] != 0))
            return 0;
    }
    return writer && (model_plan.unrepaired || !world_dead_row());
}
