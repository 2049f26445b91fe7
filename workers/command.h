/*
 * command.h - named commands of shared objects (client/azoth_command.h): loading, declaring,
 * running.
 *
 *   command_call_begin (declare) ─► preflight_begin with command_call_hook ─► command_call_end
 */
#ifndef WORKERS_COMMAND_H
#define WORKERS_COMMAND_H

#include "client/azoth_command.h"
#include "core/txn.h"
#include "workers/command_timer.h"
#include "workers/preflight.h"

#include <jansson.h>

struct command_set;

/* Commands of this process. Load at start; from then on any thread may look them up. */
int command_set_open(struct command_set **ret, struct azoth_error *err); /* NOMEM */
void command_set_close(struct command_set *set); /* NULL is accepted; libraries stay loaded */

/* CONFIG (not loadable, no table, another ABI: err says which), DUPLICATE (a name is taken), NOMEM.
 */
int command_load(struct command_set *set, const char *path, struct azoth_error *err);
/* NULL when no library has it. */
const struct azoth_command *command_find(const struct command_set *set, struct azoth_bytes name);
uint32_t command_count(const struct command_set *set);

/* One call in flight; its memory is kept and used again. Zero-initialise. */
struct command_call {
    const struct azoth_command *command;
    struct command_timer *timer;
    uint8_t id[AZOTH_ID_BYTES]; /* for the log; zeros when there is none */
    struct txn_builder declared;
    struct buf hashed; /* name, NUL, arguments */
    json_t *args;      /* parsed at first use */
    int args_parsed;   /* 1 tried */
    struct azoth_command_args args_api;
    struct azoth_error *err; /* where the running function's failures go */
    struct preflight_view *view;
};

/*
 * Declares: *ret_image is the request's own declarations (sent: an image of READ and WRITE items,
 * checked, or empty) with those of the command added; *ret_content identifies what the client sent.
 * Both borrow c until command_call_end. NO_COMMAND, BAD_REQUEST (another kind of item), NOMEM, and
 * what the command answered. Runs the command's declare.
 */
int command_call_begin(struct command_call *c, const struct command_set *set,
                       struct command_timer *timer, struct azoth_bytes name,
                       struct azoth_bytes sent, struct azoth_bytes args, struct azoth_bytes id,
                       struct azoth_bytes *ret_image, uint64_t *ret_content,
                       struct azoth_error *err);
/* The hook for preflight: runs the command. c must stay until the transaction is done. */
struct preflight_hooks command_call_hook(struct command_call *c);
void command_call_end(struct command_call *c);  /* keeps memory for the next one */
void command_call_fini(struct command_call *c); /* frees it */

#endif
