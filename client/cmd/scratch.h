/*
 * scratch.h - a directory of one's own for a while, of which nothing stays: also not when its process is killed, once another
 * comes to the same place.
 *
 * It is PREFIX and six letters below a directory that others may use as well, for its user alone, and its lock says that its
 * process lives. One without a lock is a dead one's.
 */
#ifndef CLIENT_CMD_SCRATCH_H
#define CLIENT_CMD_SCRATCH_H

#include "core/error.h"

#include <limits.h>

struct scratch {
    char path[PATH_MAX]; /* empty: there is none */
    int fd;              /* of that, with the lock */
};

/* Where nothing else was asked for: TMPDIR, or /var/tmp. The text is the environment's. */
const char *scratch_above(void);

/*
 * Makes one below `above`, and removes those of the same prefix that dead processes of this user have left there.
 * USAGE: the path is too long; BUSY: others remove what is made there; errors of the file system. Does not block. One thread.
 */
int scratch_begin(struct scratch *s, const char *above, const char *prefix,
                  struct azoth_error *err);
/* Removes it with all that is in it. Of {.path = ""} it is nothing. */
void scratch_end(struct scratch *s);

#endif
