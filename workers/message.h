/*
 * message.h - requests and answers of a worker's endpoint, in both kinds: tpl images (core/wire.h)
 * and JSON text (core/txnjson.h). The answer has the kind of its request.
 *
 * No call here blocks, but for reading the store. Safe on any bytes.
 */
#ifndef WORKERS_MESSAGE_H
#define WORKERS_MESSAGE_H

#include "core/answer.h"
#include "core/wire.h"
#include "shm/segment.h"
#include "workers/preflight.h"

/*
 * Decodes and checks completely: the transaction image too, and that there is an id where one is
 * needed. *ret borrows message and store (cleared first). 0, or BAD_REQUEST, BAD_JSON, NO_ID,
 * TXN_SIZE and the errors of txn_check with a sentence. *ret_json is always set, and *ret has kind
 * and id when they could be read, so that an error can be answered.
 */
int message_decode(struct azoth_bytes message, struct buf *store, struct wire_request *ret,
                   int *ret_json, struct azoth_error *err);

/* 1 for the kinds that message_read answers. */
int message_is_read(uint32_t kind);

/*
 * Answers: out is cleared and gets the message to send, of at most WIRE_MESSAGE_MAX bytes. An
 * answer that cannot be encoded becomes the answer of that error. 0 or AZOTH_ERR_NOMEM.
 */
int message_answer(struct buf *out, int json, const struct wire_answer *a);
int message_error(struct buf *out, int json, const struct wire_request *req,
                  const struct azoth_error *err);
int message_outcome(struct buf *out, int json, const struct wire_request *req,
                    const struct preflight_outcome *o);

/* Executes a read on one snapshot. s tells which ids are in the writer's hands. work is the
 * caller's and is cleared. A page that is too large as JSON is made shorter, down to one row. */
int message_read(struct buf *out, struct buf *work, int json, const struct wire_request *req,
                 struct store *st, struct segment *s);

#endif
