/*
 * split.h - a projection that is split into shards: K processes, K files, K cursors.
 *
 * The file of shard I of K is NAME.IofK.db, its lock NAME.IofK.lock; unsplit (0 of 1) it is NAME.db. The
 * feed sends a shard only its events. Another K is another set of files, filled from event 1 while the
 * old set goes on serving: readers go over to it when its slowest shard is as far as the old set's.
 */
#ifndef PROJECTOR_SPLIT_H
#define PROJECTOR_SPLIT_H

#include "core/azoth_base.h"

/* A query reads all shards as one, and SQLite attaches ten files to the first one at most. */
#define SPLIT_MAX  10u
#define SPLIT_STEM (AZOTH_NAME_MAX + 10u)

/* The name of its files without what follows the last dot. */
void split_stem(char out[SPLIT_STEM], const char *name, uint32_t shard, uint32_t shards);

/* "I/K" or "I-K" (for units, whose names have no slash): I below K, K of 1 to SPLIT_MAX. USAGE. */
int split_parse(const char *text, uint32_t *ret_shard, uint32_t *ret_shards,
                struct azoth_error *err);

/*
 * In how many shards the projection is that is to be read: of several complete sets of files the one whose
 * slowest shard is furthest; of equals the one whose files began to serve last. NOT_FOUND: no set is complete.
 * Reads each file when there is more than one set. Blocks on the disk.
 */
int split_serving(const char *dir, const char *name, uint32_t *ret_shards, struct azoth_error *err);

#endif
