/*
 * answer.h - executing read requests against a store: get, scan, events, outcome, ping.
 *
 * One snapshot per request, ended before it returns. Pages are bounded by the request's limit and by
 * ANSWER_BYTES_MAX; WIRE_MORE says that there is more. Used by azoth-worker and by attached clients.
 */
#ifndef CORE_ANSWER_H
#define CORE_ANSWER_H

#include "core/store.h"
#include "core/wire.h"

/* Small enough for a socket's buffer: nanomsg drops an answer to a peer that it is still sending
 * to. */
#define ANSWER_BYTES_MAX (128u << 10)

/* Fills *ret, whose bytes lie in *store (cleared first; caller's). Errors are in the answer.
 * in_hands tells, for OUTCOME, whether a submitted transaction carries the id (looked at before the
 * store). */
void answer_read(struct store *st, const struct wire_request *req, int in_hands, struct buf *store,
                 struct wire_answer *ret);

/* An answer that is an error; the message is copied to *store. */
void answer_error(const struct wire_request *req, const struct azoth_error *err, struct buf *store,
                  struct wire_answer *ret);
/* The answer of a transaction. */
void answer_txn(const struct wire_request *req, const struct txn_result *r,
                struct wire_answer *ret);

#endif
