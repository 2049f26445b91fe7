/*
 * library.h - handlers and decisions in C (client/azoth_projection.h): loading, the state's life, calls.
 *
 * While a function of the library runs, statements are prepared under the guard of a definition's SQL
 * and nothing can be committed. Between library_start() and library_stop() all calls stand where table.h's
 * do: the table's thread. Every call accepts a NULL library where that makes sense, and says so.
 */
#ifndef PROJECTOR_LIBRARY_H
#define PROJECTOR_LIBRARY_H

#include "client/azoth_projection.h"
#include "core/record.h"
#include "projector/tablefile.h"

struct library;

/*
 * What the definition needs of a library, from `load` or, when that is NULL, the definition's own mark.
 * *ret is NULL when it needs none and names none. PROJECTION: a type or strategy that no library takes, with
 * FILE:LINE. CONFIG: a file that is not there, is no shared object, has not the function, another ABI or a
 * table that is not valid. NOMEM. Runs the file's constructors and azoth_projections(). def is borrowed until
 * library_unload. Blocks on the disk.
 */
int library_load(const struct sqlfile *def, const char *load, struct library **ret,
                 struct azoth_error *err);
/* Behind library_stop, and behind the connection's end: SQLite may know functions of it. NULL is accepted. */
void library_unload(struct library *l);

/* What it adds to what makes the rows (tablefile.library); 0 of NULL. */
uint64_t library_makers(const struct library *l);
/* The handler of a type that the definition says is in C; NULL: it has none. */
const struct azoth_projection_handler *library_handler(const struct library *l,
                                                       struct azoth_bytes type);

/* Opens its state; f is borrowed until library_stop, NULL is accepted for l. PROJECTION: it refuses; or the
 * machine's fault. */
int library_start(struct library *l, struct tablefile *f, struct azoth_error *err);
/* Closes its state, which finalizes its statements, before the connection. NULL is accepted. */
void library_stop(struct library *l);

/* What has become of the transaction, or of the event's savepoint in it, just now. Told once each: a rollback
 * without a transaction is none. NULL is accepted. */
enum library_moment {
    LIBRARY_BEGUN,
    LIBRARY_COMMITTED,
    LIBRARY_ROLLED_BACK,
    LIBRARY_SAVED,
    LIBRARY_RELEASED,
    LIBRARY_UNDONE
};
void library_tell(struct library *l, enum library_moment moment);

/*
 * The event's handler, h. Within a savepoint it is run now; without, a batch handler's event is kept, as long as
 * the frames are there, until library_flush() or an event of another handler. line is that of its mark. HANDLER:
 * this event's fault, or without a savepoint that of one that was kept; the transaction may be gone with it.
 * Others: the machine's fault.
 */
int library_run(struct library *l, const struct azoth_projection_handler *h,
                const struct event_record *ev, uint32_t line, struct azoth_error *err);
/* Runs what was kept; errors as above. NULL is accepted. */
int library_flush(struct library *l, struct azoth_error *err);

/* What on_error says about a failure: attempts and first_ns are in *why already. A wait that is too long is
 * cut; a retry after AZOTH_PROJECTION_ATTEMPTS_MAX failures is fail-fast. l has an on_error. */
enum azoth_projection_answer library_decide(struct library *l, const struct event_record *ev,
                                            const struct azoth_projection_failure *why,
                                            uint64_t *ret_wait_ms);

#endif
