/*
 * reaper.c - repairing what dead participants left.
 *
 *   state of the slot   who died    repaired by           how
 *   CLAIMED             owner       any participant       freed (no intents yet: nothing held)
 *   PREFLIGHT           owner       any participant       stripes released by the intents, freed
 *   SUBMITTED           owner       any participant       given to the writer, queued again
 *   COMMITTED, REJECTED owner       any participant       freed (stripes were released before)
 *   REAPING             reaper      any participant       marked with the new reaper, done once more
 *   any                 writer      the next writer       scan of all slots, batch record (writer/)
 *   (a pause)           owner       any participant       freed with one swap (pause.h)
 *
 * Invariant R1: a row is freed only after a pass over all slots found none that names it, and the
 * swap is from the very generation that was found dead: a new process on the row is not touched.
 * A dead process makes no new slots, so the pass misses none.
 *
 * Invariant R2: a slot is repaired only when its word was read before the row was seen to be still
 * of the dead generation. Another reaper may have finished meanwhile and a new process joined on the
 * row: what names the row then is the living one's, and is left alone.
 */
#include "shm/reaper.h"

#include "core/crash.h"
#include "shm/pause.h"

static int slot_names(uint64_t word, uint32_t participant)
{
    return slot_word_state(word) != SLOT_FREE && slot_word_owner(word) == participant;
}

static int reap_one(struct participant *self, uint32_t dead, uint64_t row_word)
{
    struct segment *s = self->segment;
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t word = atomic_load(&s->slot[i].word);
        if (!slot_names(word, dead))
            continue;
        CRASH_POINT(reaper_chosen);
        if (atomic_load(&s->participant[dead].word) != row_word)
            return 0;
        slot_reap(self, i, word);
    }
    for (uint32_t i = 0; i < s->slots; i++)
        if (slot_names(atomic_load(&s->slot[i].word), dead))
            return 0; /* somebody else repairs it this moment, or the writer published: next time */
    pause_reap(s, dead, row_word);
    CRASH_POINT(reaper_done);
    struct participant_shm *row = &s->participant[dead];
    if (!atomic_compare_exchange_strong(&row->word, &row_word, row_word & ~0xffull))
        return 0;
    atomic_fetch_add_explicit(&s->participant[self->index].reaped, 1, memory_order_relaxed);
    return 1;
}

uint32_t reap_step(struct participant *self)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        uint64_t word = atomic_load(&self->segment->participant[i].word);
        if ((word & 0xff) == PARTICIPANT_LIVE && participant_dead(self, i))
            n += (uint32_t)reap_one(self, i, word);
    }
    return n;
}
