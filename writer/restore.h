/*
 * restore.h - a database in the making beside its place: nothing, or a whole one.
 *
 *   TARGET.restoring-XXXXXX   the directory that is filled, locked (flock) for as long as somebody does
 *     archive/                segments of its log, if there are any
 *     data.mdb.new            its store: no data.mdb, so no program takes the directory for a database
 *
 * When all of it is there and checked, the store gets its new identity and then its name, and the directory
 * becomes TARGET, in this order and each durable before the next.
 *
 *   dies, and when                      what is left, and who removes it
 *   before the store has its name       a directory that holds no database; the next restore to TARGET
 *   ... before the directory has        one that holds a whole database, but still with that name; likewise
 *   after that                          the restored database
 *
 * One thread. Calls block on the disk.
 */
#ifndef WRITER_RESTORE_H
#define WRITER_RESTORE_H

#include "core/store.h"

struct restore;

/*
 * target: is made, or an empty directory whose place the new one takes with its mode and owner. Removes what dead
 * restores to it have left. DATABASE_EXISTS; DUPLICATE: there is something else; NO_DATABASE: no directory for it
 * above; NOSPACE, PERMISSION, IO, NOMEM.
 */
int restore_begin(const char *target, struct restore **ret, struct azoth_error *err);
const char *restore_dir(const struct restore *r); /* to be filled: data.mdb.new, projections/... */
const char *restore_store(const struct restore *r); /* the path of data.mdb.new */

/*
 * The store's records of segments say archive/NAME, where they lie in the directory that is filled, wherever they lay
 * before. Durable. Nothing is said of the files. CORRUPT, IO, NOMEM.
 */
int restore_segments(const struct restore *r, struct azoth_error *err);

/* Told now and then; not 0 ends the check. */
typedef int (*restore_progress)(void *arg, uint64_t event, uint64_t head);
/*
 * Reads every record of the store that was filled: checksums and encodings, keys, ids without a gap, transactions and
 * times that do not go back, nothing beyond the head, the hash chain from its start to the head. *ret (may be NULL): its head. 0, 1 when progress ended it,
 * CORRUPT, GAP, FORMAT, IO, NOMEM.
 */
int restore_check(const struct restore *r, restore_progress progress, void *arg,
                  struct store_head *ret, struct azoth_error *err);

/*
 * Makes the store one of its own: the UUID in its format record, an incarnation that no segment has, no seal, no
 * marks of backups, no answers of the last batch. Durable, with all that the file holds. ret_uuid: a new one, or the store's with same_uuid.
 */
int restore_identity(const struct restore *r, int same_uuid, uint8_t ret_uuid[16],
                     struct azoth_error *err);
/* The rest of a database (store_surround()), and the names. Frees r in any case; what was made is removed when it
 * fails. */
int restore_finish(struct restore *r, const uint8_t uuid[16], uint64_t reserve_bytes,
                   struct azoth_error *err);
/* Removes what was made. NULL is accepted. */
void restore_abort(struct restore *r);

/* Removes a directory with all that is in it; what cannot be removed stays. */
void restore_remove_tree(const char *dir);

#endif
