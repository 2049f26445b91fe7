/*
 * owner.h - who may put another file in a projection's place: its projector, which is asked, or this process
 * under the projection's lock when none runs.
 */
#ifndef CLIENT_CMD_OWNER_H
#define CLIENT_CMD_OWNER_H

#include "projector/adopt.h"

struct owner {
    int talk_fd; /* to the projector; -1: there is none, and */
    int lock_fd; /* this is STEM.lock; -1 */
};

/*
 * Blocks until one of both is there, at most timeout_ms, and with an answer of the projector as long again.
 * UNREACHABLE: a projector holds the lock, but does not listen in run_dir. USAGE, IO, PERMISSION.
 */
int owner_find(const char *run_dir, const char *projections, const char *stem, int timeout_ms,
               struct owner *ret, struct azoth_error *err);
void owner_close(struct owner *o);

/*
 * One of the texts of control.h ("hold" of a projector only): 0 and the number of its answer, or the code that
 * it was refused with. UNREACHABLE: the projector went away. OUTCOME_UNKNOWN: it has not answered in time.
 * cursor: as for adopt_command(), when it is done here.
 */
int owner_ask(const struct owner *o, const char *definition, const struct table_options *options,
              uint64_t cursor, const char *text, uint64_t *ret_n, struct azoth_error *err);

#endif
