/*
 * append.h - the only file that writes the store (mdb_put, mdb_del, mdb_txn_commit).
 *
 * One LMDB write transaction at a time. A transaction's operations are all evaluated before its
 * first put, so one that fails is refused alone.
 */
#ifndef WRITER_APPEND_H
#define WRITER_APPEND_H

#include "core/batchrec.h"
#include "core/store.h"

struct append;

/* Reads the last batch record (copied to *ret_record) and commits epoch + 1 with `incarnation`
 * (0: keep) in one durable write transaction. */
int append_open(struct store *s, uint32_t sync, struct append **ret, struct buf *ret_record,
                struct azoth_error *err);
void append_close(struct append *a);

/* Sets the incarnation, committed durably at once. */
int append_incarnation(struct append *a, uint64_t incarnation, struct azoth_error *err);

/* The numbers as the last commit left them (or this batch has moved them). */
const struct batch_head *append_head(const struct append *a);

/* Begins a batch. wall_ns: the clock now; event times never decrease. */
int append_begin(struct append *a, int64_t wall_ns, uint64_t mono_ns, struct azoth_error *err);

struct append_limits {
    uint64_t id_count, id_time_ms;
    uint64_t redo_bytes;
};

/*
 * Decides and applies one checked transaction image. Returns 0 with *ret_code 0 (applied; or a
 * duplicate: result of the first commit) or an AZOTH_ERR_ (refused alone, detail says why). Returns
 * an error when LMDB itself failed: the batch must be aborted (NOSPACE, NOMEM, IO, CORRUPT).
 */
int append_apply(struct append *a, struct azoth_bytes image, const uint8_t *id, uint64_t content,
                 int *ret_code, struct txn_result *ret, struct azoth_error *detail);

/*
 * Records of meta beside the format and the head, inside the batch: for writer/control.c alone. get: 1 and
 * *ret (borrows the batch until the next put), 0 when there is none. They fail as append_apply() does.
 */
int append_meta_get(struct append *a, struct azoth_bytes key, struct azoth_bytes *ret,
                    struct azoth_error *err);
int append_meta_put(struct append *a, struct azoth_bytes key, struct azoth_bytes rec,
                    struct azoth_error *err);
int append_meta_del(struct append *a, struct azoth_bytes key, struct azoth_error *err);
/*
 * Deletes events from *first (which must be the first that is there) up to `last`, at most `events` and until
 * their records have `bytes`; *first is then the first that is left. For writer/archiving.c alone, which has
 * recorded where else they are. GAP: another one is the first, nothing was changed. Else it fails as
 * append_apply() does.
 */
int append_delete_events(struct append *a, uint64_t *first, uint64_t last, uint32_t events,
                         size_t bytes, struct azoth_error *err);
uint32_t append_marks(const struct append *a); /* core/mark.h: how many there are */
struct mark;
/* Those that are no damaged records; how many. Behind a commit, and when *ret_version is another one than the last time: else
 * nothing has changed, and the list may be that of a batch that was undone. */
uint32_t append_mark_list(const struct append *a, const struct mark **ret, uint64_t *ret_version);

/* Forgets ids that are over the limits: at most two for each one added. */
int append_expire_ids(struct append *a, const struct append_limits *l, struct azoth_error *err);

/* Removes redo records that no mark wants any more, some by each commit. Over redo_bytes it breaks the
 * lowest mark first (core/mark.h). */
int append_trim_redo(struct append *a, const struct append_limits *l, struct azoth_error *err);

/* Writes the batch record and commits. NOSPACE: the batch is undone, nothing was written. Another
 * error: what is on the disk is unknown, this process must not answer and must end. */
int append_commit(struct append *a, const struct batch_entry *entries, uint32_t n,
                  struct azoth_error *err);
void append_abort(struct append *a);
/* Changes so far in this batch: 0 means that aborting loses nothing. */
uint64_t append_changes(const struct append *a);

#endif
