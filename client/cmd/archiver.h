/*
 * archiver.h - moves old events out of LMDB into segment files, one segment after the other.
 *
 * A segment is made in full and durable beside its name, read back from the disk and compared with LMDB, and
 * renamed; then the writer records it, and then it deletes the events, a piece a commit. So an event is always in
 * LMDB or in a recorded segment, whatever dies when; see archiver.c. One run at a time: archiver_lock().
 */
#ifndef CLIENT_CMD_ARCHIVER_H
#define CLIENT_CMD_ARCHIVER_H

#include "client/azoth.h"
#include "core/archived.h"
#include "core/store.h"

#define ARCHIVER_EVENTS 1000000u /* of one segment: it is closed at the end of that transaction */
#define ARCHIVER_BYTES  (256ull << 20) /* likewise, of its event frames */

#define ARCHIVER_INTERRUPTED (-1000) /* beside the errors */

struct archiver {
    struct azoth *db; /* attached; borrowed, like store and dir */
    struct store *store;
    const char *dir; /* of the database, absolute */
    char dest[4096]; /* of segments, absolute; archiver_dest() */
    int level;       /* zstd's */
    uint64_t events_max;
    int lock_fd;
    /* May be NULL. Told the newest event that was written, compared or deleted; ARCHIVER_INTERRUPTED ends the run,
     * and is what is returned then. */
    int (*say)(void *arg, const char *doing, uint64_t event);
    void *arg;
};

/* Only one archives: *a keeps the lock until archiver_unlock(). BUSY, IO, PERMISSION. */
int archiver_lock(struct archiver *a, struct azoth_error *err);
void archiver_unlock(struct archiver *a);

/* Where segments go: NULL: where the newest one lies, else DIR/archive. make: it is made, with the owner of the
 * database's directory; what is above it must be there. IO, PERMISSION, NOT_FOUND, USAGE (too long). */
int archiver_dest(struct archiver *a, const char *dest, int make, struct azoth_error *err);

/* The newest event before `before` that ends a transaction: a segment ends where one does. 0: there is none. */
int archiver_end(struct archiver *a, uint64_t before, uint64_t *ret, struct azoth_error *err);

/*
 * Makes, places and has recorded the next segment, of events up to `end` (of archiver_end()). 1 and *ret, 0 when
 * everything up to there is recorded. NOSPACE (the disk of dest is full; nothing was changed), BUSY, DUPLICATE (a
 * file that is not recorded is in its place), CORRUPT (what was read back is not what was written; or the log is damaged),
 * IO, PERMISSION, and what client_control() answers. Blocks on disks.
 */
int archiver_segment(struct archiver *a, uint64_t end, struct archived_entry *ret,
                     struct azoth_error *err);
/* What a run that died has left to delete, after its files were checked once more: nothing is deleted when one is missing
 * or damaged (NOT_FOUND, CORRUPT, and its name). */
int archiver_resume(struct archiver *a, struct azoth_error *err);
/* Has the writer delete what recorded segments have, piece by piece, to the end. */
int archiver_delete(struct archiver *a, struct azoth_error *err);
/* Copies a segment to dest, has its new path recorded and removes the old file. 1, or 0 when it lies there. */
int archiver_move(struct archiver *a, const struct archived_entry *e, struct azoth_error *err);

#endif
