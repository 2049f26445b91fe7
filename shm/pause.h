/*
 * pause.h - who wants that nothing is written: pauses and seals, several at once.
 *
 * A pause belongs to a participant and ends with it, or is held: then it belongs to nobody and ends by
 * its time or because somebody ends it. While there is one, the writer commits nothing but what the
 * store itself needs (control items, but not those that archive). A seal is a pause that is told by another name.
 *
 *            pause_ask             pause_ask              pause_confirm (writer)
 *      FREE ───────────► CLAIMED ───────────► ASKED ─────────────────────► FORCE
 *       ▲                   │ pause_reap         │ pause_end, pause_end_all   │ the same, and
 *       │                   ▼                    ▼ pause_reap, pause_look     ▼ pause_look
 *       └───────────────────┴────────────────────┴────────────────────────────┘
 *
 * Every edge is a compare-and-swap of one word (state, owner, ticket), so each is done once. All that a
 * row says is written in CLAIMED, and what lies in a FREE one means nothing: freeing is the swap alone,
 * and nothing is ever half repaired.
 *
 *   state    who died             what is left        who repairs, and how they know
 *   CLAIMED  who asked            a row               any participant, before it frees the dead one's place
 *                                                     (shm/reaper.c): the row names that place
 *   ASKED    its owner            a pause             the same, within 250 ms while a writer lives
 *   FORCE    its owner            a pause             the same
 *   ASKED,   who asked, after the a held pause        nobody: it was asked for, and ends by its time
 *   FORCE    row was made a held
 *            one
 *   any      the writer           `paused` as it was  the next writer looks at the rows before it commits
 *   FREE     who ended it, before `paused` as it was  the writer looks at least ten times a second
 *            the writer was woken
 *   FREE     the writer, before   waiters asleep      they look again within SHM_WAIT_SLICE_NS; the next
 *            it woke who waits                        writer clears `paused`
 *
 * A process that is stopped is alive, and so is its pause: that is what the time is for, which the writer
 * looks at, not the owner.
 *
 * Invariants
 *   P1  after pause_in_force() said 1 nothing is committed before the row is freed: the writer sets FORCE
 *       only between two batches, with `paused` set, and clears `paused` only when it finds no row.
 *   P2  a row names a living participant, since a dead one's place is freed after its rows, and one that
 *       leaves frees them first. A row that names a free place, or none that there can be, is damaged: the
 *       writer frees it.
 */
#ifndef SHM_PAUSE_H
#define SHM_PAUSE_H

#include "shm/participant.h"

#define PAUSE_LONGEST_NS (3600ull * 1000000000ull)

/* One that was asked for. ticket 0: none. */
struct pause {
    uint32_t row;
    uint64_t ticket;
};

/*
 * Asks for a pause until until_ns (running time; at most PAUSE_LONGEST_NS from now) and wakes the writer.
 * It belongs to p, or with `held` to nobody. who: what asks, cut at 31 bytes. FULL (all rows are taken).
 * Does not wait: pause_in_force() tells when it is.
 */
int pause_ask(struct participant *p, enum pause_kind kind, uint64_t until_ns, int held,
              const char *who, struct pause *ret, struct azoth_error *err);
/* 1: nothing is written; 0: asked for; -1: it has ended. */
int pause_in_force(const struct segment *s, const struct pause *p);
/* Ends it, whoever else wants one; nothing when it has ended. Wakes the writer. */
void pause_end(struct segment *s, const struct pause *p);
/* Ends all held ones of a kind, and with `living` those of others too (not the store's). Returns how many
 * of the kind are left. */
uint32_t pause_end_all(struct segment *s, enum pause_kind kind, int living);

/* For participant.c and reaper.c. */
void pause_leave(struct participant *p);
/* Of a dead participant, while its place has the word that was found dead. */
void pause_reap(struct segment *s, uint32_t dead, uint64_t row_word);

/* For the writer, at its step: ends what is over. Returns the kind that is wanted, 0 when none is, and
 * when the last of them ends (UINT64_MAX: not by itself). */
uint32_t pause_look(struct segment *s, uint64_t now_ns, uint64_t *ret_until_ns);
/* What is asked for is in force: `paused` is set, and no batch is being made. Returns how many that are. */
uint32_t pause_confirm(struct segment *s);
/* The seal that the store keeps: sets its row, or (who NULL) frees it. The writer's alone. */
void pause_store(struct segment *s, const char *who, uint32_t pid, uint64_t since_ns);

/* For who looks: one row, copied out. 0 when it is free, or changed while we read. */
struct pause_info {
    uint32_t kind, state, pid;
    int held;                    /* by nobody */
    int stored;                  /* by the store: outlives writer and machine */
    uint32_t owner;              /* of one that is not held: its participant's row */
    uint64_t until_ns, since_ns; /* until_ns UINT64_MAX: not by itself */
    char who[32];
};
int pause_read(const struct segment *s, uint32_t row, struct pause_info *ret);

#endif
