/* pause.c - asking for pauses and ending them; pause.h has the states and what a death leaves. */
#include "shm/pause.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "shm/slot.h"

#include <string.h>
#include <unistd.h>

#define TICKET_MASK ((1ull << 40) - 1)

static uint64_t word_of(uint32_t state, uint32_t owner, uint64_t ticket)
{
    return state | (uint64_t)owner << 8 | ticket << 24;
}

static uint32_t state_of(uint64_t word)
{
    return (uint32_t)(word & 0xff);
}

static uint32_t owner_of(uint64_t word)
{
    return (uint32_t)(word >> 8 & 0xffff);
}

static uint64_t ticket_of(uint64_t word)
{
    return word >> 24;
}

/* ---- asking and ending ---- */

static void fill(struct pause_shm *row, enum pause_kind kind, uint64_t until_ns, uint64_t since_ns,
                 uint32_t pid, const char *who)
{
    atomic_store(&row->kind, kind);
    atomic_store(&row->pid, pid);
    atomic_store(&row->until_ns, until_ns);
    atomic_store(&row->since_ns, since_ns);
    memset(row->who, 0, sizeof row->who);
    snprintf(row->who, sizeof row->who, "%s", who);
}

int pause_ask(struct participant *p, enum pause_kind kind, uint64_t until_ns, int held,
              const char *who, struct pause *ret, struct azoth_error *err)
{
    struct segment *s = p->segment;
    uint64_t ticket = (atomic_fetch_add(&s->header->pause_tickets, 1) + 1) & TICKET_MASK;
    for (uint32_t i = 0; i < SHM_PAUSES; i++) {
        struct pause_shm *row = &s->pause[i];
        uint64_t word = atomic_load(&row->word), mine = word_of(PAUSE_CLAIMED, p->index, ticket);
        if (state_of(word) != PAUSE_FREE ||
            !atomic_compare_exchange_strong(&row->word, &word, mine))
            continue;
        CRASH_POINT(pause_claimed);
        fill(row, kind, until_ns, clock_mono_ns(), (uint32_t)getpid(), who);
        CRASH_POINT(pause_filled);
        if (!atomic_compare_exchange_strong(
                &row->word, &mine,
                word_of(PAUSE_ASKED, held ? PAUSE_OWNER_HELD : p->index, ticket)))
            return error_set(err, AZOTH_ERR_CORRUPT, "the row of a pause was taken from us");
        CRASH_POINT(pause_asked);
        slot_wake_writer(s);
        *ret = (struct pause){i, ticket};
        return 0;
    }
    return error_set(err, AZOTH_ERR_FULL, "all %u pauses that there can be at once are taken",
                     SHM_PAUSES);
}

int pause_in_force(const struct segment *s, const struct pause *p)
{
    uint64_t word = atomic_load(&s->pause[p->row].word);
    if (state_of(word) == PAUSE_FREE || ticket_of(word) != p->ticket)
        return -1;
    return state_of(word) == PAUSE_FORCE;
}

/* Frees it from whatever state it is in, as long as it is this one. */
static int free_row(struct pause_shm *row, uint64_t word)
{
    for (uint64_t now = word; state_of(now) != PAUSE_FREE && ticket_of(now) == ticket_of(word);)
        if (atomic_compare_exchange_strong(&row->word, &now,
                                           word_of(PAUSE_FREE, 0, ticket_of(now)))) {
            CRASH_POINT(pause_freed);
            return 1;
        }
    return 0;
}

void pause_end(struct segment *s, const struct pause *p)
{
    if (free_row(&s->pause[p->row], word_of(PAUSE_ASKED, 0, p->ticket)))
        slot_wake_writer(s);
}

uint32_t pause_end_all(struct segment *s, enum pause_kind kind, int living)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < SHM_PAUSES; i++) {
        uint64_t word = atomic_load(&s->pause[i].word);
        /* One that is not asked for yet comes after us. */
        if (state_of(word) < PAUSE_ASKED || atomic_load(&s->pause[i].kind) != kind)
            continue;
        if (living || owner_of(word) == PAUSE_OWNER_HELD)
            free_row(&s->pause[i], word);
        else
            left++;
    }
    slot_wake_writer(s);
    return left;
}

/* ---- death ---- */

void pause_leave(struct participant *p)
{
    for (uint32_t i = 0; i < SHM_PAUSES; i++) {
        uint64_t word = atomic_load(&p->segment->pause[i].word);
        if (state_of(word) != PAUSE_FREE && owner_of(word) == p->index)
            free_row(&p->segment->pause[i], word);
    }
}

void pause_reap(struct segment *s, uint32_t dead, uint64_t row_word)
{
    for (uint32_t i = 0; i < SHM_PAUSES; i++) {
        uint64_t word = atomic_load(&s->pause[i].word);
        if (state_of(word) == PAUSE_FREE || owner_of(word) != dead)
            continue;
        /* Another reaper may have been faster, and the place be a living one's: as R2 of reaper.c. */
        if (atomic_load(&s->participant[dead].word) != row_word)
            return;
        free_row(&s->pause[i], word);
    }
}

/* ---- the writer's ---- */

/* Does nobody stand behind it? (P2) */
static int orphan(const struct segment *s, uint64_t word)
{
    uint32_t owner = owner_of(word);
    if (owner == PAUSE_OWNER_HELD)
        return 0;
    return owner >= SHM_PARTICIPANTS ||
           (atomic_load(&s->participant[owner].word) & 0xff) != PARTICIPANT_LIVE;
}

uint32_t pause_look(struct segment *s, uint64_t now_ns, uint64_t *ret_until_ns)
{
    uint32_t wanted = 0;
    uint64_t last = 0;
    for (uint32_t i = 0; i <= SHM_PAUSE_STORE; i++) {
        struct pause_shm *row = &s->pause[i];
        uint64_t word = atomic_load(&row->word);
        if (state_of(word) == PAUSE_FREE)
            continue;
        if (i != SHM_PAUSE_STORE && orphan(s, word)) {
            free_row(row, word);
            continue;
        }
        if (state_of(word) == PAUSE_CLAIMED)
            continue;
        uint64_t until = atomic_load(&row->until_ns);
        if (until <= now_ns) {
            free_row(row, word);
            continue;
        }
        uint32_t kind = atomic_load(&row->kind) == PAUSE_SEAL ? PAUSE_SEAL : PAUSE_WRITES;
        wanted = kind > wanted ? kind : wanted;
        last = until > last ? until : last;
    }
    *ret_until_ns = last;
    return wanted;
}

uint32_t pause_confirm(struct segment *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < SHM_PAUSES; i++) {
        uint64_t word = atomic_load(&s->pause[i].word);
        if (state_of(word) != PAUSE_ASKED)
            continue;
        if (atomic_compare_exchange_strong(&s->pause[i].word, &word,
                                           word_of(PAUSE_FORCE, owner_of(word), ticket_of(word)))) {
            CRASH_POINT(pause_confirmed);
            n++;
        }
    }
    return n;
}

void pause_store(struct segment *s, const char *who, uint32_t pid, uint64_t since_ns)
{
    struct pause_shm *row = &s->pause[SHM_PAUSE_STORE];
    atomic_store(&row->word, word_of(PAUSE_FREE, 0, 0));
    if (!who)
        return;
    fill(row, PAUSE_SEAL, UINT64_MAX, since_ns, pid, who);
    atomic_store(&row->word, word_of(PAUSE_FORCE, PAUSE_OWNER_STORE, 0));
}

/* ---- looking ---- */

int pause_read(const struct segment *s, uint32_t i, struct pause_info *ret)
{
    const struct pause_shm *row = &s->pause[i];
    uint64_t word = atomic_load(&row->word);
    if (state_of(word) < PAUSE_ASKED || state_of(word) > PAUSE_FORCE)
        return 0;
    *ret = (struct pause_info){
        .kind = atomic_load(&row->kind) == PAUSE_SEAL ? PAUSE_SEAL : PAUSE_WRITES,
        .state = state_of(word),
        .pid = atomic_load(&row->pid),
        .held = owner_of(word) == PAUSE_OWNER_HELD,
        .stored = i == SHM_PAUSE_STORE,
        .owner = owner_of(word),
        .until_ns = atomic_load(&row->until_ns),
        .since_ns = atomic_load(&row->since_ns),
    };
    memcpy(ret->who, row->who, sizeof ret->who);
    ret->who[sizeof ret->who - 1] = 0;
    atomic_thread_fence(memory_order_acquire);
    uint64_t again = atomic_load(&row->word);
    return ticket_of(again) == ticket_of(word) && state_of(again) != PAUSE_FREE;
}
