/*
 * command.h - runs an effects projection's command for one event, as a child process of its own group.
 *
 * /bin/sh -c COMMAND; the payload on standard input; what there is to know of the event in the
 * environment (azoth-projection(5), EFFECTS). Exit status 0 is success. What it writes to standard error goes to
 * ours, and its last line into the error. One thread; one child at a time for one struct.
 */
#ifndef EFFECTS_COMMAND_H
#define EFFECTS_COMMAND_H

#include "core/record.h"

#include <poll.h>
#include <sys/types.h>

#define COMMAND_ERROR_MAX 160u
#define COMMAND_FDS       3 /* most that command_poll_fds() gives */

struct command {
    pid_t pid; /* 0: none runs */
    int pid_fd, in_fd, err_fd;
    unsigned char *input; /* a copy of the payload */
    size_t input_len, input_at;
    char line[COMMAND_ERROR_MAX + 1], last[COMMAND_ERROR_MAX + 1]; /* of standard error */
    size_t line_len;
};

struct command_event {
    struct event_record event;
    const char *projection, *uuid; /* uuid: 32 hex digits */
    uint32_t attempt, delivery;    /* from 1 */
};

/* NOMEM, IO (no process can be made). The child dies with this process. */
int command_start(struct command *c, const char *text, const struct command_event *e,
                  struct azoth_error *err);
/* What it waits for; returns how many. */
int command_poll_fds(const struct command *c, struct pollfd *ret);
/* Passes on what can be passed on. 1 when it has ended: *ret_status as waitpid() tells it; 0 it runs.
 * Never blocks. */
int command_step(struct command *c, int *ret_status);
/* To the whole group. */
void command_signal(const struct command *c, int signal);
/* "exit status 3: no such address"; out has COMMAND_ERROR_MAX + 1 bytes. */
void command_error(const struct command *c, int status, char *out);

#endif
