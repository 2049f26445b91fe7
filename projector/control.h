/*
 * control.h - commands to a projector that runs: RUN/dlq-NAME.sock, a socket of packets.
 *
 * The projector's connection is the only one that writes to a projection's file, so who wants a letter tried
 * or dropped, or another file in its place, asks the projector. A packet is a command's id and its text (replay.h); the answer is a
 * packet with its text. Who dies is seen by the other as the connection's end. The one who asks may
 * send the same command again, to the next projector or to the file itself under its lock: the id makes it
 * happen once.
 *
 * Texts are those of table_command(), and of the file itself:
 *   hold        "held CURSOR": nothing is applied until this connection ends, but at most CONTROL_HOLD_NS, so
 *               that a file that is being built can catch up. "refused": another connection holds
 *   adopt       "adopted N": STEM.rebuild.db serves as generation N
 *   serve N     "serves N": generation N serves
 *   prune       "pruned K": K generations that do not serve are gone
 * Instead of these, "refused CODE WHY". The last three are answered before the projector goes on with
 * the file that serves then, and are not kept by id: adopt.h says what each finds when it is sent again.
 */
#ifndef PROJECTOR_CONTROL_H
#define PROJECTOR_CONTROL_H

#include "projector/replay.h"

#include <poll.h>

#define CONTROL_CLIENTS 16u
#define CONTROL_HOLD_NS (10 * 1000000000ull)

/* ---- the projector's side: its thread, nothing blocks but the commands themselves ---- */

struct control;

/* Holds the projection's lock already: a socket that is there is a dead projector's. USAGE (the path is
 * too long), IO, PERMISSION, NOMEM. */
int control_open(const char *run_dir, const char *name, struct control **ret,
                 struct azoth_error *err);
void control_close(struct control *c); /* NULL is accepted; the socket goes */
/* What to wait for: at most CONTROL_CLIENTS + 1; how many. */
unsigned control_fds(const struct control *c, struct pollfd *fds);
/* Does what a text says and answers it: 0, or the machine's fault. */
typedef int (*control_do)(void *arg, const uint8_t id[COMMAND_ID_BYTES], const char *text,
                          char answer[COMMAND_ANSWER_MAX], struct azoth_error *err);
/* Takes what has come and answers it: how many commands were done, or the machine's fault. cursor: of the
 * file that serves, for who holds. */
int control_step(struct control *c, uint64_t cursor, uint64_t now_ns, control_do fn, void *arg,
                 struct azoth_error *err);
/* Until when nothing is to be applied; 0: nobody holds. */
uint64_t control_held_ns(const struct control *c, uint64_t now_ns);

/* ---- the other side: any process, blocks for at most timeout_ms ---- */

/* UNREACHABLE: no projector is there, or it went away before it had answered. OUTCOME_UNKNOWN: it has not
 * answered in time. USAGE, IO. */
int control_ask(const char *run_dir, const char *name, const uint8_t id[COMMAND_ID_BYTES],
                const char *text, int timeout_ms, char answer[COMMAND_ANSWER_MAX],
                struct azoth_error *err);

/* The same in parts, for one who holds: the connection, to be closed by the caller, and an exchange on it. */
int control_dial(const char *run_dir, const char *name, int timeout_ms, int *ret_fd,
                 struct azoth_error *err);
int control_say(int fd, const uint8_t id[COMMAND_ID_BYTES], const char *text,
                char answer[COMMAND_ANSWER_MAX], struct azoth_error *err);

#endif
