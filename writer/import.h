/*
 * import.h - a store made from what export.h gives: fresh pages, in order, and everything checked.
 */
#ifndef WRITER_IMPORT_H
#define WRITER_IMPORT_H

#include "core/batchrec.h"
#include "core/store.h"

struct import;

/* What is no entry of its own. */
struct import_identity {
    uint8_t uuid[16];
    uint64_t created_ns;
    uint64_t txn, event;             /* the newest */
    struct chain chain_start, chain; /* where it began and stands; off: the store has none */
};

/* Makes the file, which is not there, for this process alone. DUPLICATE, NOSPACE, IO, PERMISSION, NOMEM. */
int import_open(const char *path, struct import **ret, struct azoth_error *err);
/*
 * One part each, in the export's order, with nothing left out. CORRUPT: an entry fails its check, or does not
 * come after the one before; GAP: an event's id is not the next; FORMAT, NOSPACE, IO, NOMEM. What was taken is in
 * the file, but not durable.
 */
int import_state(struct import *im, struct azoth_bytes part, struct azoth_error *err);
int import_events(struct import *im, struct azoth_bytes part, struct azoth_error *err);
int import_ids(struct import *im, struct azoth_bytes part, struct azoth_error *err);
/* Writes the store's own records and makes all durable. CORRUPT: the entries are not those of this identity (the
 * chain is not recomputed: restore_check() does that). Frees
 * im in any case. Blocks on the disk. */
int import_finish(struct import *im, const struct import_identity *id, struct azoth_error *err);
/* The file stays as it is: its caller removes it. NULL is accepted. */
void import_abort(struct import *im);

#endif
