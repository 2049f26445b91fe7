/*
 * effects.h - the ledger of an effects projection: which events are given to which worker, which have
 * failed and how often, which are settled.
 *
 * The projection's SQLite file (table.h: name, generation, lock) holds the cursor in the feed and one
 * row for each event up to it that is not settled (azoth_effects). So nothing is lost: an event is
 * behind the cursor and settled, or has a row, or is before the cursor. Calls change the file within a
 * transaction that effects_commit() ends; what a worker is told must not leave before that.
 *
 * At least once: a worker that dies, or whose report is lost after the command has run, lets the event
 * be run again. Events of the same order value are given out one after the other, in the order of their
 * ids; the next when the one before is settled.
 *
 * After an error of any call the ledger in memory is not that of the file any more: close it.
 * A struct effects belongs to one thread.
 */
#ifndef PROJECTOR_EFFECTS_H
#define PROJECTOR_EFFECTS_H

#include "projector/replay.h"

/* No more events are taken from the feed while so many, or so many bytes of them, are not settled. */
#define EFFECTS_OPEN_MAX       4096u
#define EFFECTS_OPEN_BYTES_MAX (32u << 20)
/* A worker ends its command when the lease is over; it has so long to say so. */
#define EFFECTS_GRACE_MS 2000u

struct effects;

/* As table_open(): PROJECTION, DIVERGED, DUPLICATE, NOSPACE, IO, CORRUPT, BUSY, PERMISSION, NOMEM. Leases
 * that are in the file begin anew now. def is borrowed until effects_close. Blocks on the disk. */
int effects_open(const struct sqlfile *def, const struct table_options *o, uint64_t now_ns,
                 struct effects **ret, struct azoth_error *err);
/* What is not committed is undone. NULL is accepted. */
void effects_close(struct effects *e);

/* ---- events, from the feed ---- */

/* Up to where events were taken from the feed, and that event's checksum. */
void effects_cursor(const struct effects *e, uint64_t *ret_cursor, uint32_t *ret_check);
/* Highest id below and at which every event is settled: the cursor that lag is measured by. */
uint64_t effects_settled(const struct effects *e);
struct azoth_bytes effects_types(const struct effects *e); /* as table_types() */
int effects_room(const struct effects *e); /* whether effects_take() may be called */
/* Takes the events of a batch into the ledger and commits. As table_apply(): GAP, CORRUPT, NOSPACE, IO,
 * BUSY, PERMISSION, NOMEM. */
int effects_take(struct effects *e, struct azoth_bytes frames, uint64_t first, uint64_t last,
                 uint32_t last_check, struct azoth_error *err);

/* ---- workers ---- */

struct effects_worker {
    const char *name;  /* one live process has a name */
    uint64_t instance; /* of the process */
};

struct effects_grant {
    uint64_t id;
    uint32_t grant, failures, lease_ms;
    struct azoth_bytes frame; /* record.h; borrowed until the event is settled */
};

/*
 * What became of a grant. A grant that is not the event's present one, or of an event that is settled,
 * is none of our business any more: 0. A failure: the event waits (retry), is forgotten with a line in
 * the log (log-and-skip), is put aside (dead-letter), or HANDLER (fail-fast; it has a row, so that it comes again): err names event,
 * attempt and error. Others as effects_take().
 */
int effects_done(struct effects *e, uint64_t id, uint32_t grant, struct azoth_error *err);
int effects_failed(struct effects *e, uint64_t id, uint32_t grant, struct azoth_bytes error,
                   uint64_t now_ns, struct azoth_error *err);
int effects_given_back(struct effects *e, uint64_t id, uint32_t grant, struct azoth_error *err);

/*
 * Does what `text` says, commits, and puts a sentence into answer, as table_command() (replay.h):
 *   retry EVENT   "queued": the dead letter is an event to be run again, once, out of its order; it is back
 *                 among the letters when that fails. "failed WHY", "not-found"
 *   drop EVENT    "dropped", "not-found"
 * Anything else: "unknown". Done once for an id within an hour. 0, or as effects_take().
 */
int effects_command(struct effects *e, const uint8_t id[COMMAND_ID_BYTES], const char *text,
                    char answer[COMMAND_ANSWER_MAX], struct azoth_error *err);

/* 1 and the event that w is to run: the one it has already when the answer was lost, else the first that
 * may run now; 0 when there is none. An event that an earlier process of this name had is free. */
int effects_give(struct effects *e, const struct effects_worker *w, uint64_t now_ns,
                 struct effects_grant *ret, struct azoth_error *err);
/* w's process wants no more and has nothing. */
int effects_leave(struct effects *e, const struct effects_worker *w, struct azoth_error *err);

/* Frees events whose lease is over. */
int effects_expire(struct effects *e, uint64_t now_ns, struct azoth_error *err);
/* Makes durable what was done since the last call; nothing to do costs nothing. */
int effects_commit(struct effects *e, struct azoth_error *err);
/* When, after now, a lease or a wait ends next; UINT64_MAX: none does. */
uint64_t effects_due_ns(const struct effects *e, uint64_t now_ns);
/* Writes and commits something that changes nothing, outside of a transaction: NOSPACE when there is no room even
 * for that, or as effects_take(). */
int effects_probe(struct effects *e, struct azoth_error *err);
/* When there is nothing to do: truncates the WAL, as table_idle(). */
int effects_idle(struct effects *e);

/*
 * Called by effects_commit() for each event that is settled by it, for the first time: apply_ns since it was given to
 * its worker, lag_ns since its own commit, by the wall clock (perhaps of another machine: it may be less than 0).
 */
typedef void (*effects_settled_fn)(void *arg, uint64_t apply_ns, int64_t lag_ns);
void effects_on_settled(struct effects *e, effects_settled_fn fn, void *arg);

struct effects_stats {
    uint64_t settled, skipped;         /* since effects_open; skipped are settled, too */
    uint64_t failures;                 /* since effects_open */
    uint64_t commits;                  /* likewise: what wrote */
    uint64_t dead;                     /* letters that there are */
    uint32_t open;                     /* not settled: */
    uint32_t given, waiting;           /* with a worker; waiting for another attempt */
    uint64_t wal_bytes, wal_pinned_ns; /* of its file, as in struct table_stats */
    /* "event 7, attempt 2: exit status 1: ..." of the oldest one that has failed and is not settled, or
     * empty */
    char error[200];
};
void effects_stats(const struct effects *e, struct effects_stats *ret);

#endif
