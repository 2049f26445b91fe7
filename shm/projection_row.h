/*
 * projection_row.h - the feed's account of each projection, read by status, lag and the exporter.
 * Written by azoth-feed alone, which is one process (feed_place_take).
 */
#ifndef SHM_PROJECTION_ROW_H
#define SHM_PROJECTION_ROW_H

#include "shm/segment.h"

enum projection_state {
    PROJECTION_UNKNOWN = 0,
    PROJECTION_STARTING = 1,
    PROJECTION_RUNNING = 2,
    PROJECTION_IDLE = 3,   /* at the head */
    PROJECTION_FAILED = 4, /* stopped by an error; see its text */
    PROJECTION_STOPPED = 5,
    PROJECTION_SILENT = 6,   /* nothing heard for longer than feed.lapse */
    PROJECTION_RETRYING = 7, /* stands at an event that failed and is tried again */
    PROJECTION_OPEN = 8,     /* its breaker is open: nothing is applied for a while */
};
const char *projection_state_name(uint32_t state);
/* "none", "closed", "open", "half-open": the numbers of enum breaker_at (projector/breaker.h). */
const char *breaker_state_name(uint32_t breaker);

/* What one row says, copied out consistently. */
struct projection_row {
    char name[64], error[256], endpoint[128];
    uint32_t shard, shards, state;
    uint64_t cursor, head_seen, errors, instance, events_sent, bytes_sent;
    uint64_t dead_waiting, dead_retired, dead_parked; /* dead letters */
    uint64_t stands_event;                            /* is tried again; 0: none */
    uint64_t next_attempt_ns;                         /* running time; 0: not waiting */
    uint32_t breaker;                                 /* breaker_state_name() */
    uint64_t progress_ns, heard_ns, at_head_ns;       /* of running time; 0: never */
    uint64_t failed_ns;                               /* since when `error` is told; likewise */
    uint64_t apply_ns, lag_ns;                        /* of the newest batch */
    uint64_t wal_bytes, wal_pinned_ns;                /* of its file, as in struct projection_shm */
    uint64_t rate_ns, rate_cursor; /* an earlier look at the cursor; rate_ns 0: none yet */
};

/*
 * What is told of its state, corrected by what is known of the living: "diverged" when its cursor is ahead of
 * the log, whose newest event is head; "silent" when no feed lives (feed_alive: 1, 0, or -1 for not known) or
 * it was not heard for lapse_ns.
 */
const char *projection_row_state(const struct projection_row *r, uint64_t head, int feed_alive,
                                 uint64_t now_ns, uint64_t lapse_ns);

/* The head for it, where the gauges' is all that is known: a writer may have committed what it did not live
 * to tell, and the feed has seen that. */
static inline uint64_t projection_row_head(const struct projection_row *r, uint64_t gauges_head)
{
    return r->head_seen > gauges_head ? r->head_seen : gauges_head;
}

/* The row of (name, shard, shards), taken if new: its index. When all are taken it is the row of who was heard
 * least lately, which cannot be one of the feed's subscriptions: it has no more of them than there are rows. */
int projection_row_claim(struct gauges *g, const char *name, uint32_t shard, uint32_t shards);
/* Writes texts under the row's sequence. NULL leaves one as it is. */
void projection_row_text(struct gauges *g, int row, const char *error, const char *endpoint);
/* 1 and *ret; 0 for a row not used. Any process, any time. */
int projection_row_read(const struct gauges *g, uint32_t row, struct projection_row *ret);

#endif
