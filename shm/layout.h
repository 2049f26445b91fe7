/*
 * layout.h - the bytes of the segment. Every struct that two processes share is here.
 *
 * Fixed-width integers and lock-free atomics only; offsets, no pointers. The structs are made from
 * field tables, which also give the layout's fingerprint and the dump of `azoth status --segment`.
 * A change of size or of meaning bumps SHM_LAYOUT_VERSION.
 *
 *   prefix | header | participants[256] | slots[N] | stripes[M] | block owners[B] | blocks[B] | contention | pauses[9]
 *
 * shm/README.md draws the states and argues, for each of them, who repairs what a death leaves.
 */
#ifndef SHM_LAYOUT_H
#define SHM_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SHM_MAGIC          0x31676573687a41ull /* "Azhseg1" */
#define SHM_GAUGES_MAGIC   0x31756167687a41ull
#define SHM_LAYOUT_VERSION 6u

#define SHM_PARTICIPANTS 256u
#define SHM_SLOTS_MAX    1024u
#define SHM_STRIPES_MAX  16384u
#define SHM_SLOT_WORDS   (SHM_SLOTS_MAX / 64)
#ifndef SHM_QUEUE_WORD
#define SHM_QUEUE_WORD 64u /* slots to a word of queue_bits; the model has words of two */
#endif
#define SHM_BLOCK_BYTES    65536u
#define SHM_SLOT_BLOCKS    66u /* the largest transaction, and its intents */
#define SHM_INLINE_INTENTS 64u
#define SHM_DETAIL         208u
#define SHM_INLINE_BYTES   3200u
#define SHM_PROJECTIONS    128u
#define SHM_REFUSALS       16u /* enum refusal, and room */
#define SHM_KEY_SAMPLES    512u
#define SHM_PINS           8u
#define SHM_MARKS          64u /* places of backups: MARKS_MAX */
#define SHM_PAUSES         8u  /* at once; and one row for the seal that the store keeps */
#define SHM_PAUSE_STORE    SHM_PAUSES

typedef _Atomic uint32_t A32;
typedef _Atomic uint64_t A64;
_Static_assert(sizeof(A32) == 4 && sizeof(A64) == 8, "atomics have no hidden lock");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "atomics are lock-free");

/* F(type, name, count): one field; count 1 is a plain member, written without brackets. */
#define SHM_FIELD_1(type, name)        type name;
#define SHM_FIELD_N(type, name, count) type name[count];

/*
 * Prefix: frozen for all layout versions, so that any version can retire any other's segment.
 *   magic     stored last by the creator, with release: before that the segment is not there
 *   state     1 live, 2 retired; never goes back. Written by the writer that retires.
 */
enum { SEGMENT_LIVE = 1, SEGMENT_RETIRED = 2 };
#define SHM_PREFIX_FIELDS(F1, FN)                                                                  \
    F1(A64, magic)                                                                                 \
    F1(uint32_t, layout_version)                                                                   \
    F1(A32, state)                                                                                 \
    F1(uint64_t, fingerprint)                                                                      \
    F1(uint64_t, bytes)                                                                            \
    FN(uint64_t, prefix_reserved, 4)
struct prefix_shm {
    SHM_PREFIX_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};
_Static_assert(sizeof(struct prefix_shm) == 64, "the prefix is frozen");

/*
 * Header.
 *   identity (uuid .. gauges): by the creator, before magic; read-only afterwards
 *   writer line:  by the writer alone; head after its commit is durable, with release
 *   wake line:    queue_seq, writer_wake and writer_sleeps by submitters and writer;
 *                 free_wake and free_waiters by whoever frees or wants a slot
 *   pause line:   paused (enum pause_kind, 0: writes go on) and pause_until_ns (when the last pause ends by
 *                 itself) by the writer alone, as its answer to the rows of pauses; pause_tickets by who asks
 *                 for one; pause_wake by both
 *   queue_bits:   set by submitters after SUBMITTED, taken (exchanged with 0) by the writer. A hint:
 *                 the slot's word is the truth, and a lost bit is set again by the reaper or found
 *                 by the restarted writer
 *   free_bits:    a hint likewise
 */
#define SHM_HEADER_FIELDS(F1, FN)                                                                  \
    FN(uint8_t, uuid, 16)                                                                          \
    F1(uint64_t, device)                                                                           \
    F1(uint64_t, inode)                                                                            \
    F1(uint64_t, incarnation)                                                                      \
    F1(uint64_t, created_ns)                                                                       \
    F1(uint32_t, slots)                                                                            \
    F1(uint32_t, stripes)                                                                          \
    F1(uint32_t, blocks)                                                                           \
    F1(uint32_t, sync_mode)                                                                        \
    FN(uint64_t, identity_reserved, 8)                                                             \
    /* writer line */                                                                              \
    F1(A64, head_event)                                                                            \
    F1(A64, head_txn)                                                                              \
    F1(A64, epoch)                                                                                 \
    F1(A64, heartbeat_ns)                                                                          \
    F1(A32, head_seq)                                                                              \
    F1(A32, head_waiters)                                                                          \
    F1(A32, writer_pid)                                                                            \
    F1(A32, writer_state)                                                                          \
    FN(uint64_t, writer_reserved, 2)                                                               \
    /* wake line */                                                                                \
    F1(A64, queue_seq)                                                                             \
    F1(A32, writer_wake)                                                                           \
    F1(A32, writer_sleeps)                                                                         \
    F1(A32, free_wake)                                                                             \
    F1(A32, free_waiters)                                                                          \
    F1(A32, block_hint)                                                                            \
    F1(A32, wake_reserved1)                                                                        \
    FN(uint64_t, wake_reserved, 4)                                                                 \
    /* pause line */                                                                               \
    F1(A64, pause_until_ns)                                                                        \
    F1(A32, paused)                                                                                \
    F1(A32, pause_wake)                                                                            \
    F1(A64, pause_tickets)                                                                         \
    FN(uint64_t, pause_reserved, 5)                                                                \
    FN(A64, queue_bits, SHM_SLOT_WORDS)                                                            \
    FN(A64, free_bits, SHM_SLOT_WORDS)
struct header_shm {
    SHM_HEADER_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};
_Static_assert(offsetof(struct header_shm, head_event) % 64 == 0, "one line per writing party");
_Static_assert(offsetof(struct header_shm, queue_seq) % 64 == 0, "one line per writing party");
_Static_assert(offsetof(struct header_shm, pause_until_ns) % 64 == 0, "one line per writing party");
_Static_assert(offsetof(struct header_shm, queue_bits) % 64 == 0, "one line per writing party");
_Static_assert(offsetof(struct header_shm, free_bits) % 64 == 0, "one line per writing party");

enum { WRITER_ABSENT = 0, WRITER_RECOVERING = 1, WRITER_RUNNING = 2, WRITER_DRAINING = 3 };

/*
 * Participant: one process (one handle of it). All fields but these by the participant itself:
 *   word        FREE -> LIVE by the joiner, which holds the kernel's lock on its byte already;
 *               LIVE -> FREE by itself when it leaves, or by a reaper that saw the lock gone
 *   done_seq    bumped by the writer after results of this participant were published; all of its
 *               threads sleep on it (participant.h, struct wakes)
 *   sleeps      set by the participant before it sleeps on done_seq, cleared by the waker
 *   wants_release  set by a participant that has transactions parked for a stripe and sleeps on
 *               done_seq, cleared by whoever releases a stripe marked STRIPE_PARKED
 *   stripe_waits, wait_ns  transactions of it that had to wait for a stripe, and for how long
 *   held_up, held_up_ns    how often others waited for a stripe that it held, and for how long: added
 *               to by those who waited (contention.h)
 * word = state (8 bits, low) | generation (56 bits): a row that was freed and taken again differs.
 */
enum { PARTICIPANT_FREE = 0, PARTICIPANT_LIVE = 1 };
#define SHM_PARTICIPANT_FIELDS(F1, FN)                                                             \
    F1(A64, word)                                                                                  \
    F1(A32, pid)                                                                                   \
    F1(A32, kind)                                                                                  \
    FN(char, name, 32)                                                                             \
    F1(uint64_t, joined_ns)                                                                        \
    F1(uint64_t, participant_reserved0)                                                            \
    /* wake line */                                                                                \
    F1(A32, done_seq)                                                                              \
    F1(A32, sleeps)                                                                                \
    F1(A32, wants_release)                                                                         \
    F1(A32, participant_reserved3)                                                                 \
    FN(uint64_t, participant_reserved1, 6)                                                         \
    /* what it did: counters for status */                                                         \
    F1(A64, submitted)                                                                             \
    F1(A64, refused)                                                                               \
    F1(A64, lock_timeouts)                                                                         \
    F1(A64, stripe_waits)                                                                          \
    F1(A64, reaped)                                                                                \
    F1(A64, wait_ns)                                                                               \
    F1(A64, held_up)                                                                               \
    F1(A64, held_up_ns)
struct participant_shm {
    SHM_PARTICIPANT_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};
_Static_assert(sizeof(struct participant_shm) == 192, "three lines");

enum participant_kind {
    PARTICIPANT_WRITER = 1,
    PARTICIPANT_WORKER = 2,
    PARTICIPANT_CLIENT = 3,
    PARTICIPANT_FEED = 4,
    PARTICIPANT_EMBEDDED = 5,
    PARTICIPANT_TOOL = 6,
};

/*
 * Slot: one transaction in flight.
 *   word      state (8 bits, low) | owner (16 bits) | ticket (40 bits); every edge is a
 *             compare-and-swap, so the owner, the writer and reapers cannot both take one
 *   result    (code .. detail) by the writer before COMMITTED or REJECTED
 *   waits     a thread sleeps on its owner's done_seq for this slot alone
 *   all other fields by the owner before SUBMITTED, and by a reaper or the owner when it is freed
 *
 * The ticket changes with every claim. A FREE slot has intents = 0 and uses_blocks = 0.
 */
enum slot_state {
    SLOT_FREE = 0,
    SLOT_CLAIMED = 1,
    SLOT_PREFLIGHT = 2,
    SLOT_SUBMITTED = 3,
    SLOT_COMMITTED = 4,
    SLOT_REJECTED = 5,
    SLOT_REAPING = 6,
};
#define SLOT_OWNER_WRITER 0xffffu /* given up by its submitter: the writer frees it */

enum slot_flags {
    SLOT_HAS_ID = 1,
    SLOT_WAITS_PAUSE = 2, /* stays queued while the database is paused */
    SLOT_CONTROL =
        4, /* a control item: without SLOT_WAITS_PAUSE done while the database is paused, too */
};

#define SHM_SLOT_FIELDS(F1, FN)                                                                    \
    F1(A64, word)                                                                                  \
    F1(uint32_t, slot_reserved0)                                                                   \
    F1(A32, waits)                                                                                 \
    F1(A64, seq)                                                                                   \
    F1(uint64_t, claimed_ns)                                                                       \
    F1(uint64_t, submitted_ns)                                                                     \
    F1(A32, flags)                                                                                 \
    F1(A32, intents)                                                                               \
    F1(A32, uses_blocks)                                                                           \
    F1(uint32_t, payload_bytes)                                                                    \
    F1(uint64_t, payload_hash)                                                                     \
    /* identity of the request */                                                                  \
    FN(uint8_t, id, 16)                                                                            \
    F1(uint64_t, content)                                                                          \
    FN(uint64_t, slot_reserved, 5)                                                                 \
    /* result */                                                                                   \
    F1(int32_t, code)                                                                              \
    F1(uint32_t, duplicate)                                                                        \
    F1(uint64_t, txn)                                                                              \
    F1(uint64_t, first_event)                                                                      \
    F1(uint64_t, last_event)                                                                       \
    F1(uint32_t, keys_written)                                                                     \
    F1(uint32_t, keys_deleted)                                                                     \
    F1(uint32_t, keys_missing)                                                                     \
    F1(uint32_t, result_reserved)                                                                  \
    FN(char, detail, SHM_DETAIL)                                                                   \
    FN(uint32_t, block, SHM_SLOT_BLOCKS)                                                           \
    F1(uint32_t, intents_block)                                                                    \
    F1(uint32_t, block_count)                                                                      \
    FN(uint32_t, intent, SHM_INLINE_INTENTS)                                                       \
    FN(uint8_t, payload, SHM_INLINE_BYTES)
struct slot_shm {
    _Alignas(64) SHM_SLOT_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};
_Static_assert(sizeof(struct slot_shm) % 64 == 0, "slots do not share lines");
_Static_assert(sizeof(struct slot_shm) <= 4160, "a slot is about a page");
_Static_assert(SHM_STRIPES_MAX * 4 <= SHM_BLOCK_BYTES, "the intents of all stripes fit one block");

#define INTENT_EXCLUSIVE 0x80000000u

static inline uint64_t slot_word(uint32_t state, uint32_t owner, uint64_t ticket)
{
    return (uint64_t)(state & 0xffu) | (uint64_t)(owner & 0xffffu) << 8 | ticket << 24;
}
static inline uint32_t slot_word_state(uint64_t w)
{
    return (uint32_t)(w & 0xff);
}
static inline uint32_t slot_word_owner(uint64_t w)
{
    return (uint32_t)(w >> 8 & 0xffff);
}
static inline uint64_t slot_word_ticket(uint64_t w)
{
    return w >> 24;
}
#define SLOT_TICKET_MASK ((1ull << 40) - 1)

/*
 * Stripe: what keys hash onto.
 *   exclusive  0, or owner = (slot + 1) << 40 | ticket; taken by the slot's owner, given back by the
 *              owner, the writer on completion, or a reaper: always by compare-and-swap from the
 *              very value, so a late release cannot hit the next holder
 *   shared     one bit per slot. A holder sets its bit and then looks at exclusive; an exclusive
 *              taker sets exclusive and then looks at the bits (both sequentially consistent): at
 *              least one of two sees the other
 *   waiters, wake   set by who sleeps, exchanged by who releases
 *   waits, wait_ns  transactions that had to wait for it, and for how long: never less
 */
#define SHM_STRIPE_FIELDS(F1, FN)                                                                  \
    F1(A64, exclusive)                                                                             \
    F1(A32, wake)                                                                                  \
    F1(A32, waiters)                                                                               \
    F1(A64, waits)                                                                                 \
    F1(A64, wait_ns)                                                                               \
    FN(uint64_t, stripe_reserved, 4)                                                               \
    FN(A64, shared, SHM_SLOT_WORDS)
/* Bits of `waiters`: threads asleep on `wake`; participants that parked a transaction. */
enum { STRIPE_SLEEPERS = 1, STRIPE_PARKED = 2 };
struct stripe_shm {
    SHM_STRIPE_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};
_Static_assert(sizeof(struct stripe_shm) == 192, "three lines");

static inline uint64_t stripe_owner(uint32_t slot, uint64_t ticket)
{
    return (uint64_t)(slot + 1) << 40 | (ticket & SLOT_TICKET_MASK);
}

/*
 * Pause: somebody's wish that nothing is written. shm/pause.h draws its states and argues what a death
 * leaves.
 *   word   state (8 bits, low) | owner (16 bits) | ticket (40 bits); every edge is a compare-and-swap
 *   all other fields by who asks, before ASKED
 * until_ns is running time; so is since_ns, which may lie before the machine's start (mod 2^64).
 */
enum pause_state { PAUSE_FREE = 0, PAUSE_CLAIMED = 1, PAUSE_ASKED = 2, PAUSE_FORCE = 3 };
enum pause_kind { PAUSE_WRITES = 1, PAUSE_SEAL = 2 }; /* the greater one is what is told */
#define PAUSE_OWNER_HELD  0xffffu                     /* nobody: it ends by its time, or is ended */
#define PAUSE_OWNER_STORE 0xfffeu                     /* the store: ended by a commit */
#define SHM_PAUSE_FIELDS(F1, FN)                                                                   \
    F1(A64, word)                                                                                  \
    F1(A64, until_ns)                                                                              \
    F1(A64, since_ns)                                                                              \
    F1(A32, kind)                                                                                  \
    F1(A32, pid)                                                                                   \
    FN(char, who, 32)
struct pause_shm {
    SHM_PAUSE_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};
_Static_assert(sizeof(struct pause_shm) == 64, "pauses do not share lines");

/*
 * Contention: who looks for culprits finds them here. Added to by all participants, on paths that wait or
 * refuse; nothing is decided by it.
 *   refused_by  transactions that preflight refused, by enum refusal
 *   sample      a key that was waited for lately, of the stripes whose number leaves i when it is divided
 *               by SHM_KEY_SAMPLES. head = (stripe + 1) << 32 | bytes. Two who write at once, or one who
 *               dies at it, leave a mixture: a reader takes a key only when it hashes onto its stripe.
 */
struct key_sample_shm {
    A64 head;
    A64 word[64]; /* the key's bytes */
};
#define SHM_CONTENTION_FIELDS(F1, FN)                                                              \
    FN(A64, refused_by, SHM_REFUSALS)                                                              \
    FN(struct key_sample_shm, sample, SHM_KEY_SAMPLES)
struct contention_shm {
    SHM_CONTENTION_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};

/* Gauges: a second object that a wider group may read. Layout: prefix | gauges | projections. */
#define SHM_HISTOGRAM_BUCKETS 256u
struct histogram_shm {
    A64 count, sum, max;
    A64 reserved[5];
    A64 bucket[SHM_HISTOGRAM_BUCKETS];
};

/*
 * Who holds a snapshot open while others commit: of the store, whose pages cannot be used again since, or of a
 * projection's file, whose WAL cannot start over. Written by the writer's helper, oldest first (pins.h).
 *   pid       0 ends the list; it is 0 while the rest changes
 *   place     of the store the reader's thread, of a file the mark that it holds
 *   behind    commits since the snapshot of the store; frames since that of the file
 *   since_ns  when it was first seen there (running time): it is as old at least
 *   program, unit  as the helper saw them; empty: hidden from it, or none
 *   stem      of a file: "NAME" or "NAME.IofK"; empty: the store
 */
#define SHM_PIN_FIELDS(F1, FN)                                                                     \
    F1(A64, pid)                                                                                   \
    F1(A64, place)                                                                                 \
    F1(A64, behind)                                                                                \
    F1(A64, since_ns)                                                                              \
    FN(char, program, 16)                                                                          \
    FN(char, unit, 160)                                                                            \
    FN(char, stem, 80)
struct pin_shm {
    SHM_PIN_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};

/*
 * A place of backups that the store keeps something for, as it was committed last (core/mark.h). The list is written by the
 * writer (marks.h), under marks_seq, as in a sequence lock; marks is their number, and marks_seq 0 before the first time.
 *   flags     1 broken, 2 confirmed, 4 followed
 *   since_ns  commit time of txn
 *   moved_ns  wall time at which a backup there that had something new was durable last; after a start of the writer in
 *             which the gauges were made anew the commit time of what it has; 0: none was
 */
#define SHM_MARK_FIELDS(F1, FN)                                                                    \
    FN(A64, place, 2)                                                                              \
    F1(A64, flags)                                                                                 \
    F1(A64, txn)                                                                                   \
    F1(A64, event)                                                                                 \
    F1(A64, since_ns)                                                                              \
    F1(A64, moved_ns)                                                                              \
    F1(A64, mark_reserved)
struct mark_shm {
    SHM_MARK_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};
_Static_assert(sizeof(struct mark_shm) == 64, "one line");

/*
 * Histograms: of times in ns but for batch_size.
 *   commit_ns     one LMDB commit                               the writer
 *   queue_ns      from submission to the answer                 the writer
 *   preflight_ns  from the claim of a slot to submission, of those that were submitted   the writer
 *   apply_ns      a batch of events into a projection; of effects, one event from its grant to a worker until
 *                 what became of it is kept          the feed, as projectors tell; who embeds a projection
 *   lag_ns        from the commit of a batch's oldest event until it was applied; of an effect, until it was
 *                 settled                            likewise
 * head_mark: the head as it was 5 to 10 s ago, for rates; head_next becomes it.
 * disk_fill_bytes_day: how fast the free space shrinks, averaged over an hour; 0: it does not.
 * disk_watched_ns: since when that is observed (running time). looked_ns: when pins and disk were looked at last.
 * files_looked_ns: when those of files were; 0: they are not (a process that embeds the writer may not).
 */
#define SHM_GAUGES_FIELDS(F1, FN)                                                                  \
    F1(A64, commits)                                                                               \
    F1(A64, transactions)                                                                          \
    F1(A64, events)                                                                                \
    F1(A64, rejected)                                                                              \
    F1(A64, duplicates)                                                                            \
    F1(A64, commit_failures)                                                                       \
    F1(A64, recovered)                                                                             \
    F1(A64, bytes)                                                                                 \
    F1(A64, head_event)                                                                            \
    F1(A64, head_txn)                                                                              \
    F1(A64, head_time_ns)                                                                          \
    F1(A64, writer_started_ns)                                                                     \
    F1(A64, writer_heartbeat_ns)                                                                   \
    F1(A64, sync_mode)                                                                             \
    F1(A64, clock_held)                                                                            \
    F1(A64, feed_heartbeat_ns)                                                                     \
    F1(A64, feed_batches)                                                                          \
    F1(A64, feed_events)                                                                           \
    F1(A64, feed_bytes)                                                                            \
    F1(A64, feed_broken_connections)                                                               \
    F1(A64, readers_cleared)                                                                       \
    F1(A64, participants_reaped)                                                                   \
    F1(A64, reserve_bytes)                                                                         \
    F1(A64, disk_full_ns)                                                                          \
    F1(A64, disk_free_bytes)                                                                       \
    F1(A64, disk_total_bytes)                                                                      \
    F1(A64, disk_fill_bytes_day)                                                                   \
    F1(A64, disk_watched_ns)                                                                       \
    F1(A64, looked_ns)                                                                             \
    F1(A64, head_mark_ns)                                                                          \
    F1(A64, head_mark_event)                                                                       \
    F1(A64, head_next_ns)                                                                          \
    F1(A64, head_next_event)                                                                       \
    F1(A64, files_looked_ns)                                                                       \
    F1(A64, marks_seq)                                                                             \
    F1(A64, marks)                                                                                 \
    FN(A64, gauges_reserved, 4)                                                                    \
    F1(struct histogram_shm, commit_ns)                                                            \
    F1(struct histogram_shm, batch_size)                                                           \
    F1(struct histogram_shm, queue_ns)                                                             \
    F1(struct histogram_shm, preflight_ns)                                                         \
    F1(struct histogram_shm, apply_ns)                                                             \
    F1(struct histogram_shm, lag_ns)                                                               \
    FN(struct pin_shm, pin, SHM_PINS)                                                              \
    FN(struct pin_shm, file_pin, SHM_PINS)                                                         \
    FN(struct mark_shm, mark, SHM_MARKS)
struct gauges_shm {
    SHM_GAUGES_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};

/*
 * Projection row: what the feed knows of one projection (or shard), kept after it went away until another one
 * needs the row.
 * Written by the feed alone (one process, see its lock); `used` is stored last with release.
 * Text fields are guarded by text_seq (odd while they change), as in a sequence lock.
 * Times are running time (CLOCK_MONOTONIC, the same in all processes): the wall clock may jump.
 *   stands_event    failed and is tried again: nothing behind it is applied; 0: none
 *   next_attempt_ns when that, or an open breaker, lets it go on; 0: not waiting
 *   at_head_ns   when it was last seen with nothing before it; 0: not since its cursor went back.
 *                What it has not applied is younger.
 *   rate_ns, rate_cursor  the cursor as it was 5 to 10 s ago; the next pair becomes it
 *   failed_ns    since when it tells the error that it tells; 0: it tells none
 *   apply_ns, lag_ns      of the newest batch that was applied, as in the histograms
 *   wal_bytes    of its file's WAL; UINT64_MAX: it has none (PostgreSQL's is the server's)
 *   wal_pinned_ns  since when a reader has kept that from starting over; 0: none does
 */
#define SHM_PROJECTION_FIELDS(F1, FN)                                                              \
    F1(A32, used)                                                                                  \
    F1(A32, text_seq)                                                                              \
    F1(A32, shard)                                                                                 \
    F1(A32, shards)                                                                                \
    F1(A64, cursor)                                                                                \
    F1(A64, head_seen)                                                                             \
    F1(A32, state)                                                                                 \
    F1(A32, breaker)                                                                               \
    F1(A64, errors)                                                                                \
    F1(A64, progress_ns)                                                                           \
    F1(A64, heard_ns)                                                                              \
    F1(A64, at_head_ns)                                                                            \
    F1(A64, instance)                                                                              \
    F1(A64, events_sent)                                                                           \
    F1(A64, bytes_sent)                                                                            \
    F1(A64, dead_waiting)                                                                          \
    F1(A64, dead_retired)                                                                          \
    F1(A64, dead_parked)                                                                           \
    F1(A64, stands_event)                                                                          \
    F1(A64, next_attempt_ns)                                                                       \
    F1(A64, rate_ns)                                                                               \
    F1(A64, rate_cursor)                                                                           \
    F1(A64, rate_next_ns)                                                                          \
    F1(A64, rate_next_cursor)                                                                      \
    F1(A64, failed_ns)                                                                             \
    F1(A64, apply_ns)                                                                              \
    F1(A64, lag_ns)                                                                                \
    F1(A64, wal_bytes)                                                                             \
    F1(A64, wal_pinned_ns)                                                                         \
    FN(A64, row_reserved, 6)                                                                       \
    FN(char, name, 64)                                                                             \
    FN(char, error, 256)                                                                           \
    FN(char, endpoint, 128)
struct projection_shm {
    SHM_PROJECTION_FIELDS(SHM_FIELD_1, SHM_FIELD_N)
};
_Static_assert(sizeof(struct projection_shm) % 64 == 0, "rows do not share lines");

#endif
