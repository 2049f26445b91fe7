/*
 * coverage.h - the account of what a projection has handled, from which the log proves that nothing was left
 * out, nothing was handled twice, and nothing was out of order.
 *
 * The table azoth_coverage has a row for each span of the log that was followed with one filter (event
 * types, shard): how many events were handled, and a rolling hash over their ids and checksums. Handled is
 * what the cursor's transaction applied, skipped, dead-lettered or parked behind a dead letter; of effects, what
 * it took into the ledger. The last row is written by the transaction that moves the cursor.
 *
 * The hash of an event is XXH3 64 (https://github.com/Cyan4973/xxHash) over its id (8 bytes) and its record's
 * checksum (4 bytes), little-endian, with the hash before it as the seed; it begins at 0 in each span.
 */
#ifndef PROJECTOR_COVERAGE_H
#define PROJECTOR_COVERAGE_H

#include "core/azoth_base.h"

struct tablefile;
struct coverage; /* of an open file; belongs to its thread */

struct coverage_sum {
    uint64_t events, hash;
};

/* Does not block, does not fail. */
void coverage_add(struct coverage_sum *s, uint64_t id, uint32_t check);

/*
 * Makes the table, and a new span behind the cursor unless the last one has this filter. types are those of
 * wire_pull; shard_by is of one that is split, else empty. *ret_sum: of the span so far. Errors of
 * sql_error(). Before the projection's first transaction; blocks on the disk.
 */
int coverage_open(struct tablefile *f, struct azoth_bytes types, const char *shard_by,
                  uint64_t cursor, struct coverage **ret, struct coverage_sum *ret_sum,
                  struct azoth_error *err);
/* Within the cursor's transaction. Errors of sql_error(); CORRUPT: the span's row is gone. */
int coverage_write(struct coverage *c, const struct coverage_sum *s, struct azoth_error *err);
void coverage_close(struct coverage *c); /* NULL is accepted */

/* A row a span, all as of one moment: shard, shards, uuid, cursor, cursor_check, from_event, events, hash,
 * types, shard_by. */
extern const char coverage_query[];

#endif
