/*
 * participant.h - who takes part, and the kernel's word on who has died.
 *
 * Each participant holds an open-file-description lock on its byte of DIR/participants.lock through
 * a descriptor of its own (O_CLOEXEC). The kernel drops it when the process is gone, and only then:
 * not when a thread ends, and a pid's reuse does not matter. A forked child would hold it on: an
 * atfork handler closes the child's copy and marks the handle.
 */
#ifndef SHM_PARTICIPANT_H
#define SHM_PARTICIPANT_H

#include "shm/segment.h"

struct participant {
    struct segment *segment;
    uint32_t index;
    uint64_t word; /* ours: LIVE and generation */
    int lock_fd;
    _Atomic uint32_t forked; /* set in a forked child: nothing here may be used */
    _Atomic uint32_t claim_hint;
    struct participant *next; /* of this process, for the atfork handler */
};

/* FULL (256 live ones), IO, PERMISSION, RETIRED. name is cut at 31 bytes. */
int participant_join(struct segment *s, const char *dir, enum participant_kind kind,
                     const char *name, struct participant **ret, struct azoth_error *err);
/* Frees the row and the lock, and ends its pauses. Its slots must be free or given up to the writer. NULL is accepted.
 * In a forked child only the memory is freed. */
void participant_leave(struct participant *p);

/* 1 when the row is LIVE and its process is gone. Never says so of `self`. A system call. */
int participant_dead(const struct participant *self, uint32_t index);

/*
 * Who is to be woken. All threads of one participant sleep on its done_seq, each under a bit: one
 * system call wakes those of a whole batch, however many they are. Slots that share a bit wake each
 * other in vain, and look again.
 */
struct wakes {
    uint64_t rows[SHM_PARTICIPANTS / 64];
    uint32_t bits[SHM_PARTICIPANTS];
};
#define WAITS_ANY (1u << 31) /* for whatever of the participant's is next, with `sleeps` set */
static inline uint32_t waits_slot(uint32_t slot)
{
    return 1u << slot % 31;
}
static inline void wakes_add(struct wakes *w, uint32_t row, uint32_t bits)
{
    w->rows[row / 64] |= 1ull << row % 64;
    w->bits[row] |= bits;
}

/*
 * The writer's place: one process per data directory. *ret keeps it until place_leave() or the death
 * of this process; a forked child does not hold it on. WRITER_RUNNING tells who holds it (err),
 * NO_DATABASE, NOMEM, PERMISSION, IO.
 */
struct place;
int writer_place_take(const char *dir, const char *program, struct place **ret,
                      struct azoth_error *err);
int writer_place_held(const char *dir); /* 1 when a writer lives */
/* The same for azoth-feed: one per data directory. */
int feed_place_take(const char *dir, const char *program, struct place **ret,
                    struct azoth_error *err);
int feed_place_held(const char *dir);
void place_leave(struct place *p); /* NULL is accepted; not in a forked child */

#endif
