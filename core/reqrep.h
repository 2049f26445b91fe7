/*
 * reqrep.h - many requests in flight over nanomsg's raw REQ and REP sockets.
 *
 * A raw socket hands the SP header to us: the server answers in any order by giving a request's
 * header back; the client numbers its requests itself (31 bits, the top bit of the 32-bit
 * big-endian id is set on the wire: nanomsg rfc "sp-request-reply-01"). Interoperates with plain
 * REQ sockets of nanomsg, nng and mangos.
 *
 * One thread receives on a socket; others may send on it.
 */
#ifndef CORE_REQREP_H
#define CORE_REQREP_H

#include "core/azoth_base.h"

struct reqrep; /* a socket */

/* Where an answer has to go: the SP header of a request, copied. */
struct reqrep_return {
    uint32_t len;
    unsigned char header[128]; /* longer ones (more than 30 devices on the way) are dropped */
};

/* As pipe_bind_pull: USAGE, IO, DUPLICATE, NOMEM. */
int reqrep_bind(const char *endpoint, struct reqrep **ret, struct azoth_error *err);
int reqrep_bind_more(struct reqrep *s, const char *endpoint, struct azoth_error *err);
int reqrep_connect(const char *endpoint, struct reqrep **ret, struct azoth_error *err);
void reqrep_close(struct reqrep *s);
int reqrep_poll_fd(struct reqrep *s);

/* Server. 1 and outputs, 0 when none came within timeout_ms, IO. Release with reqrep_release(). */
int reqrep_receive(struct reqrep *s, int timeout_ms, struct reqrep_return *ret_to,
                   struct azoth_bytes *ret, struct azoth_error *err);
/*
 * 0, BUSY, IO. A client that is gone is not an error. 0 is no promise: nanomsg drops an answer in
 * silence when the client's connection is full (about 2 MiB of answers that it does not read).
 */
int reqrep_answer(struct reqrep *s, const struct reqrep_return *to, struct azoth_bytes message,
                  int timeout_ms, struct azoth_error *err);

/* Client. request_id: 31 bits, the caller's own; the answer carries it back. */
int reqrep_request(struct reqrep *s, uint32_t request_id, struct azoth_bytes message,
                   int timeout_ms, struct azoth_error *err);
int reqrep_collect(struct reqrep *s, int timeout_ms, uint32_t *ret_request_id,
                   struct azoth_bytes *ret, struct azoth_error *err);

/* Client: how many of its connections have broken so far: with each, its server was gone. */
uint32_t reqrep_breaks(struct reqrep *s);

void reqrep_release(struct azoth_bytes message);

#endif
