/* migrate.h - migrations of a projection's file: applied, tried, undone. One thread; blocks on the disk. */
#ifndef PROJECTOR_MIGRATE_H
#define PROJECTOR_MIGRATE_H

#include "projector/tablefile.h"

#define MIGRATE_ONE_BACK UINT64_MAX

/* Called after each migration that was applied, tried or undone, in which file. */
typedef void (*migration_told)(void *arg, uint32_t shard, uint32_t shards,
                               const struct sql_migration *m);

/*
 * Applies what is pending, each migration with its row of history in one transaction. told may be NULL.
 * PROJECTION: a statement failed (nothing of its migration is left), or the definition does not go
 * together with the history: an applied migration was changed or is missing, or a new one is lower than
 * an applied one. NOSPACE, IO, BUSY, CORRUPT, PERMISSION, NOMEM.
 */
int migrations_apply(struct tablefile *f, const struct sqlfile *def, migration_told told, void *arg,
                     struct azoth_error *err);

/* ---- of a projection whose projectors do not run; dir is that of the projections ----
 *
 * Of one that is split the files of all shards are locked before the first is changed. */

/*
 * As migrations_apply(). dry: in a transaction that is taken back, so that all of it is tried and nothing
 * changed. NOT_FOUND: there is no file yet. DUPLICATE: its projector runs.
 */
int projection_migrate(const struct sqlfile *def, const char *dir, int dry, migration_told told,
                       void *arg, struct azoth_error *err);

/*
 * Undoes applied migrations above version `to`, the newest first, each in one transaction;
 * MIGRATE_ONE_BACK: the newest. PROJECTION, before anything was done: one has no undo, was changed, or is
 * not in the definition any more. NOT_FOUND: nothing to undo, or no file. DUPLICATE: its projector runs.
 * Afterwards a projector goes on only with accept_changed, unless no event was applied yet.
 */
int projection_rollback(const struct sqlfile *def, const char *dir, uint64_t to,
                        migration_told told, void *arg, struct azoth_error *err);

#endif
