/* rebuild.h - the verbs of azoth projection that put another file in a projection's place: exit codes, told. */
#ifndef CLIENT_CMD_REBUILD_H
#define CLIENT_CMD_REBUILD_H

#include "client/cmd/cmd.h"

struct rebuild_flags {
    int abort, quiet;
    struct cmd_number shards, timeout; /* timeout in ms */
};
int rebuild_run(struct cmd_line *l, const char *projections, const char *name,
                const struct rebuild_flags *flags);

/* generation: given without a number, the one before. */
int generations_back(struct cmd_line *l, const char *projections, const char *name,
                     const struct cmd_number *generation, uint64_t timeout_ms);
int generations_list(struct cmd_line *l, const char *projections, const char *name);
int generations_prune(struct cmd_line *l, const char *projections, const char *name,
                      uint64_t timeout_ms);

#endif
