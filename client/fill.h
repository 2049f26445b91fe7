/*
 * fill.h - a projection's file filled from the store itself, without a feed: to rebuild it, to try a
 * definition, and in a process that runs everything.
 *
 * Each step is one look into the log (a short snapshot of its own) and one transaction of the file, cursor and
 * all; killed anywhere, the next one begins at the cursor in the file. One thread at a time.
 */
#ifndef CLIENT_FILL_H
#define CLIENT_FILL_H

#include "core/store.h"
#include "projector/table.h"

struct fill;

/*
 * Fills t, which is shard `shard` of `shards` and stays the caller's, as store does; both are borrowed until
 * fill_close(). shard_by says which events are the shard's, as in struct sqlfile. DIVERGED: the file
 * follows another log than the store's. GAP, CORRUPT, FORMAT: the log is damaged at the cursor. IO, NOMEM.
 */
int fill_open(struct store *store, struct table *t, uint32_t shard, uint32_t shards,
              const char *shard_by, struct fill **ret, struct azoth_error *err);
void fill_close(struct fill *f); /* NULL is accepted */

enum fill_state {
    FILL_DONE,   /* the cursor is at `to`, or at the newest event when that is less */
    FILL_MORE,   /* something was applied */
    FILL_STANDS, /* it stands at an event or behind a breaker: table_standing() says until when */
};
/*
 * Applies what comes next, up to event `to` (UINT64_MAX: to the newest): at most 4 MiB or 50,000 events
 * of the log. An enum fill_state, or what table_apply() and feed_look() fail with. Blocks on the disk.
 */
int fill_step(struct fill *f, uint64_t to, struct azoth_error *err);

/* When the oldest event that the last step applied was committed (wall clock); 0: it applied none. */
int64_t fill_oldest_ns(const struct fill *f);
/* The newest event of the log, as of the last step. */
uint64_t fill_head(const struct fill *f);

#endif
