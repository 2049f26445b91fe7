/*
 * effects_serve.h - the workers' side of an effects projection: a socket at which they report and ask.
 *
 * Raw REP (core/reqrep.h), messages of core/wire.h: wire_effect_ask, answered by wire_effect_answer. A
 * worker that wants an event when there is none is kept waiting for up to EFFECTS_HOLD_MS, so that an
 * event that comes is on its way at once. Never sleeps; one thread.
 */
#ifndef PROJECTOR_EFFECTS_SERVE_H
#define PROJECTOR_EFFECTS_SERVE_H

#include "projector/effects.h"

#define EFFECTS_HOLD_MS 1000u
/* A worker that has heard nothing for so long asks again. */
#define EFFECTS_ANSWER_MS 5000u

struct effects_server;

/* Binds endpoint. e is borrowed. As reqrep_bind(): USAGE, IO, DUPLICATE, NOMEM. */
int effects_server_open(const char *endpoint, struct effects *e, struct effects_server **ret,
                        struct azoth_error *err);
void effects_server_close(struct effects_server *s);
int effects_server_poll_fd(const struct effects_server *s);

/*
 * Takes what has come, gives what there is, commits, and then answers. How many were answered, or what
 * effects_*() ended with: HANDLER, NOSPACE, IO, ...; IO of the socket.
 */
int effects_server_step(struct effects_server *s, uint64_t now_ns, struct azoth_error *err);
/* When the next step is due although nothing comes; UINT64_MAX: never. */
uint64_t effects_server_due_ns(const struct effects_server *s, uint64_t now_ns);
uint32_t
effects_server_waiting(const struct effects_server *s); /* workers that wait for an event */

#endif
