/*
 * writer.h - the only LMDB writer: take, decide, append, commit, complete, announce.
 *
 * The loop itself belongs to the caller: azoth-writer's main, or a thread of an embedding process
 * (whose waiting callers may run the step themselves). One thread at a time runs writer_step().
 */
#ifndef WRITER_WRITER_H
#define WRITER_WRITER_H

#include "core/config.h"
#include "core/store.h"
#include "shm/gauges.h"
#include "shm/participant.h"
#include "shm/slot.h"

struct writer;

struct writer_options {
    const char *dir;
    const char *program; /* shown to a second writer that is refused */
    enum config_sync sync;
    uint32_t slots, stripes, blocks;
    uint64_t batch_bytes;
    uint32_t batch_transactions;
    uint64_t id_count, id_time_ms;
    uint64_t redo_bytes;    /* of redo records; the lowest marks lose theirs over it */
    uint64_t reserve_bytes; /* of DIR/reserve; 0: none */
    int create;             /* make the database if there is none */
    int embedded;           /* other code of this process may have files of projections open */
};
/* From the configuration's writer and segment sections; dir and program are the caller's. */
void writer_options_from(const struct config *c, struct writer_options *ret);

/*
 * Takes the writer's place, opens the store, commits epoch + 1, attaches or (re)creates the segment
 * and answers what the last writer left undecided. NO_DATABASE, WRITER_RUNNING (err says who),
 * FORMAT, CORRUPT, NOSPACE, IO, PERMISSION, NOMEM. Blocks for two commits.
 */
int writer_open(const struct writer_options *o, struct writer **ret, struct azoth_error *err);

/*
 * One batch: takes what is queued, applies it in one LMDB transaction, commits (durable, in the sync
 * mode), releases stripes, publishes results, wakes waiters. Returns the number of transactions
 * decided, 0 when nothing was queued, or an error after which this writer cannot go on: IO, CORRUPT (the
 * process exits and is started again; nothing of the batch was answered); RETIRED (somebody took the shared
 * objects away; seen once a second. writer_close() finishes what is submitted and sends everybody to the next
 * writer's). Blocks for the commit.
 */
int writer_step(struct writer *w, uint64_t now_ns, struct azoth_error *err);

/* Takes over what may change while it runs: batch_bytes, batch_transactions, id_count, id_time_ms, redo_bytes. Between
 * steps, by the thread that makes them. */
void writer_reconfigure(struct writer *w, const struct writer_options *o);

/* How many are submitted and not decided, as of the last step. */
uint32_t writer_waiting(const struct writer *w);

/* Sleeps until something is queued, at most timeout_ns. */
void writer_wait(struct writer *w, uint64_t timeout_ns);

/* To be called every WRITER_HELP_S. Looks at disk and readers (watch.h), and every few times clears reader
 * slots of dead processes. May block behind a process that is stopped inside LMDB: a
 * thread of its own, never the one that commits. (Dead participants are reaped by the step itself.)
 */
#define WRITER_HELP_S 1
void writer_help(struct writer *w);

/* Finishes what is submitted, detaches in order, unlinks the segment when nobody else is attached.
 * NULL is accepted. */
void writer_close(struct writer *w);

struct segment *writer_segment(struct writer *w);
struct gauges *writer_gauges(struct writer *w);
struct store *writer_store(struct writer *w);
struct participant *writer_participant(struct writer *w);
/* What recovery found, for the line in the log. */
struct writer_recovery {
    uint64_t epoch, incarnation, head_event;
    uint32_t answered; /* from the batch record */
    uint32_t requeued; /* submitted, not decided: executed by the first step */
    uint32_t retired;  /* 1: an older segment was retired */
};
struct writer_recovery writer_recovered(const struct writer *w);

#endif
