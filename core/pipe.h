/*
 * pipe.h - one-way pipelines over nanomsg PUSH/PULL. The receiving side binds, the sending side
 * connects (a connecting receiver that loses its peer mid-message parses rubbish from then on).
 *
 * A pipeline may lose, and with injected faults repeat or reorder, messages: what travels on it
 * must be idempotent. Message size is bounded by WIRE_MESSAGE_MAX on both ends. Endpoints are
 * "ipc://PATH" with PATH below 108 bytes, or "tcp://ADDRESS:PORT". One thread reads a socket.
 */
#ifndef CORE_PIPE_H
#define CORE_PIPE_H

#include "core/azoth_base.h"

struct pipe_end; /* a socket */

/* AZOTH_ERR_USAGE (endpoint), IO, DUPLICATE (address in use), NOMEM. ipc sockets are mode 0660. */
int pipe_bind_pull(const char *endpoint, struct pipe_end **ret, struct azoth_error *err);
/* A second endpoint on a bound socket. */
int pipe_bind_more(struct pipe_end *p, const char *endpoint, struct azoth_error *err);
int pipe_connect_push(const char *endpoint, struct pipe_end **ret, struct azoth_error *err);
/*
 * Before nn_bind, here and in reqrep: for ipc, removes a socket file that nobody listens on.
 * AZOTH_ERR_USAGE (endpoint), DUPLICATE (in use, or the path is no socket), PERMISSION, IO.
 */
int pipe_prepare_bind(const char *endpoint, struct azoth_error *err);
void pipe_close(struct pipe_end *p); /* NULL is accepted; unsent messages are discarded */

/*
 * Receives one message within timeout_ms (0: do not wait). 1 and *ret, 0 when none came, or IO.
 * The message is released with pipe_release(); its bytes may be misaligned.
 */
int pipe_receive(struct pipe_end *p, int timeout_ms, struct azoth_bytes *ret,
                 struct azoth_error *err);
void pipe_release(struct azoth_bytes message);
/* Descriptor that polls readable when pipe_receive(p, 0) may return a message; owned by p. */
int pipe_poll_fd(struct pipe_end *p);
/* Descriptor that polls readable when pipe_send() may be taken: a connection is there, and it has
 * passed on what it was given before. Owned by p; -1 when there is none. */
int pipe_send_fd(struct pipe_end *p);

/* 0 when the transport took it (which says nothing about delivery), BUSY when it could not within
 * timeout_ms, USAGE when it is over WIRE_MESSAGE_MAX, IO. */
int pipe_send(struct pipe_end *p, struct azoth_bytes message, int timeout_ms,
              struct azoth_error *err);

#endif
