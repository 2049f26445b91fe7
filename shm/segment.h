/*
 * segment.h - creating, attaching and retiring the shared objects of a database.
 *
 * The name of the object follows from the data directory's device and inode, so that every process
 * finds it from the directory alone; whether it belongs to the data file that lies there now is
 * checked (device and inode of data.mdb, incarnation), since files can be swapped under it.
 *
 * The only place with mmap and shm_open.
 */
#ifndef SHM_SEGMENT_H
#define SHM_SEGMENT_H

#include "core/azoth_base.h"
#include "shm/layout.h"

#define SEGMENT_NAME_MAX 48u

struct segment_name {
    char segment[SEGMENT_NAME_MAX]; /* "/azoth-0123456789abcdef" */
    char gauges[SEGMENT_NAME_MAX];  /* the same with "-gauges" */
};

/* Local handle. The pointers lie in the mapping; threads share them. */
struct segment {
    struct prefix_shm *prefix;
    struct header_shm *header;
    struct participant_shm *participant;
    struct slot_shm *slot;
    struct stripe_shm *stripe;
    A64 *block_owner;
    unsigned char *block;
    struct contention_shm *contention;
    struct pause_shm *pause; /* SHM_PAUSES, and SHM_PAUSE_STORE */
    /* copies of the header's sizes, checked once: shared memory is input */
    uint32_t slots, stripes, blocks;
    uint64_t bytes;
    uint64_t incarnation;
    struct segment_name name;
    int fd;                     /* of the object: tells whether it still has a name */
    _Atomic uint64_t looked_ns; /* by segment_look() */
    _Atomic int seen_taken;     /* likewise */
};

struct gauges {
    struct prefix_shm *prefix;
    struct gauges_shm *g;
    struct projection_shm *projection;
    uint64_t bytes;
    int writable;
    int fd;
};

struct segment_plan {
    uint8_t uuid[16];
    uint64_t device, inode; /* of data.mdb */
    uint64_t incarnation;
    uint32_t slots, stripes, blocks;
    uint32_t sync_mode;
    unsigned mode; /* of the object, e.g. 0660 */
};

/* IO when dir cannot be looked at. */
int segment_name_of(const char *dir, struct segment_name *ret, struct azoth_error *err);

/* Creates the segment, allocated in full, replacing one of the same name (which the caller has
 * retired). NOSPACE, NOMEM, IO, PERMISSION. Only the writer calls it. */
int segment_create(const struct segment_name *name, const struct segment_plan *plan,
                   struct segment **ret, struct azoth_error *err);

/* NO_WRITER (not there, or not yet complete), LAYOUT (err says which), RETIRED, CORRUPT,
 * PERMISSION. */
int segment_attach(const struct segment_name *name, struct segment **ret, struct azoth_error *err);
void segment_detach(struct segment *s); /* NULL is accepted */

/* For looking only (status, post mortem): a read-only mapping, of a retired segment and of one without
 * a writer too. Calls that write must not be made on it. NO_WRITER (not there), LAYOUT, CORRUPT,
 * PERMISSION, NOMEM. */
int segment_inspect(const struct segment_name *name, struct segment **ret, struct azoth_error *err);

/* Marks it retired and wakes everybody who waits in it. The name is unlinked if it is still this
 * object's. Works on a segment of any layout version through the prefix. */
void segment_retire(struct segment *s);
/* Retires by name whatever lies there, of any layout; 0 when nothing did. */
int segment_retire_name(const struct segment_name *name, struct azoth_error *err);
void segment_unlink(const struct segment_name *name); /* both objects; no error when absent */

static inline int segment_retired(const struct segment *s)
{
    return atomic_load_explicit(&s->prefix->state, memory_order_acquire) != SEGMENT_LIVE;
}

/* 1 when somebody has unlinked the object (logind's RemoveIPC, an operator, tmpfiles): those who are attached
 * go on with it, but nobody else finds it. A system call. */
int segment_taken(const struct segment *s);
int gauges_taken(const struct gauges *g);
/* For those who wait in it, once for each slice of waiting: looks whether it was taken, a second after the last look,
 * and retires it when its writer has not moved for SEGMENT_SILENT_NS. One that lives notices, finishes what it has and
 * retires it by itself; the successor of one that was killed does not find it. 1: it was taken, as of the last look.
 * Any thread. */
#define SEGMENT_SILENT_NS (2 * 1000000000ull)
int segment_look(struct segment *s, uint64_t now_ns);

/* The layout's fingerprint: XXH3_64bits over every field's name, offset and size. */
uint64_t segment_fingerprint(void);

/* The gauges live as long as the database's directory: they are kept over restarts and retirement.
 */
int gauges_create(const struct segment_name *name, struct gauges **ret, struct azoth_error *err);
int gauges_attach(const struct segment_name *name, int writable, struct gauges **ret,
                  struct azoth_error *err);
void gauges_detach(struct gauges *g);

/* Futexes in shared memory. Returns when woken, when *word != expected, or after timeout_ns at the
 * latest; the caller looks again. */
void shm_wait(A32 *word, uint32_t expected, uint64_t timeout_ns);
void shm_wake(A32 *word, int count);
/* The same under a set of bits: a wake reaches those with a bit in common (and every shm_wait()). */
void shm_wait_bits(A32 *word, uint32_t expected, uint64_t timeout_ns, uint32_t bits);
void shm_wake_bits(A32 *word, uint32_t bits);

#define SHM_WAIT_SLICE_NS                                                                          \
    100000000ull /* the longest sleep before conditions are looked at again                        \
                  */

#endif
