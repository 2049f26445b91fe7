/*
 * supervised.h - what the supervisor of a projector that does not run means to do: azoth run, or systemd. For
 * `azoth lag`.
 *
 * azoth run tells in RUN/supervisor.json how its projectors are, anew whenever that changes; it counts while somebody
 * holds RUN/supervisor.lock. systemd is asked by systemctl, about databases of /var/lib/azoth alone and about all
 * units in one call.
 */
#ifndef CLIENT_CMD_SUPERVISED_H
#define CLIENT_CMD_SUPERVISED_H

#include "core/config.h"

enum supervised_state {
    SUPERVISED_UNKNOWN, /* nobody is known to supervise it */
    SUPERVISED_RUNS,    /* or is being started or stopped */
    SUPERVISED_WAITS,   /* is started again by itself */
    SUPERVISED_FAILED,  /* is not started again */
    SUPERVISED_STOPPED, /* nobody wants it to run */
};
const char *supervised_state_name(enum supervised_state s);

struct supervised {
    enum supervised_state state;
    const char *by;         /* "azoth run", "systemd" */
    char unit[160];         /* "azoth-projector@main:accounts.service"; "projector-accounts" */
    uint64_t next_start_ns; /* running time; 0: not known, or never */
    uint64_t starts;        /* again, so far */
    int exit_code;          /* of the last end; -1: not known */
    char result[32];        /* systemd's word for that; may be empty */
};

#define SUPERVISED_MAX 64u

struct supervised_ask {
    const char *instance; /* "NAME" or "NAME:I-K" */
    struct supervised *ret;
};
/* Asks whoever supervises this database about n of its projectors, of which the first SUPERVISED_MAX count. Blocks for
 * at most SUPERVISED_WITHIN_MS. What is not known is UNKNOWN. */
#define SUPERVISED_WITHIN_MS 2000u
void supervised_ask(const char *dir, const struct config *c, const struct supervised_ask *ask,
                    uint32_t n);

/* What `systemctl show` prints about one unit: as text, which is changed. For supervised_ask() and its test. */
void supervised_parse(char *text, struct supervised *ret);

#endif
