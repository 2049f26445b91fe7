/*
 * control.h - commands to a projector that runs: RUN/dlq-NAME.sock, a socket of packets.
 *
 * The projector's connection is the only one that writes to a projection's file, so who wants a letter tried
 * or dropped asks the projector. A packet is a command's id and its text (replay.h); the answer is a
 * packet with its text. Who dies is seen by the other as the connection's end. The one who asks may
 * send the same command again, to the next projector or to the file itself under its lock: the id makes it
 * happen once.
 */
#ifndef PROJECTOR_CONTROL_H
#define PROJECTOR_CONTROL_H

#include "projector/replay.h"

#include <poll.h>

#define CONTROL_CLIENTS 16u

/* ---- the projector's side: its thread, nothing blocks but the commands themselves ---- */

struct control;

/* Holds the projection's lock already: a socket that is there is a dead projector's. USAGE (the path is
 * too long), IO, PERMISSION, NOMEM. */
int control_open(const char *run_dir, const char *name, struct control **ret,
                 struct azoth_error *err);
void control_close(struct control *c); /* NULL is accepted; the socket goes */
/* What to wait for: at most CONTROL_CLIENTS + 1; how many. */
unsigned control_fds(const struct control *c, struct pollfd *fds);
/* Takes what has come and answers it: how many commands were done, or the machine's fault. */
int control_step(struct control *c, struct table *t, struct azoth_error *err);

/* ---- the other side: any process, blocks for at most timeout_ms ---- */

/* UNREACHABLE: no projector is there, or it went away before it had answered. OUTCOME_UNKNOWN: it has not
 * answered in time. USAGE, IO. */
int control_ask(const char *run_dir, const char *name, const uint8_t id[COMMAND_ID_BYTES],
                const char *text, int timeout_ms, char answer[COMMAND_ANSWER_MAX],
                struct azoth_error *err);

#endif
