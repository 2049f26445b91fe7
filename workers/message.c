#include "workers/message.h"

#include "core/error.h"
#include "core/txnjson.h"
#include "shm/slot.h"

#include <string.h>

int message_is_read(uint32_t kind)
{
    return kind == WIRE_GET || kind == WIRE_SCAN || kind == WIRE_EVENTS || kind == WIRE_OUTCOME ||
           kind == WIRE_PING;
}

/* What a transaction or call needs before it may begin. */
static int check_transaction(const struct wire_request *req, struct azoth_error *err)
{
    if (req->id.len == 0 && !(req->flags & WIRE_AT_LEAST_ONCE))
        return error_set(err, AZOTH_ERR_NO_ID,
                         "a request over the network needs an id, or at_least_once: a client that "
                         "loses its worker sends it again");
    /* A call may declare nothing itself. */
    if (req->kind == WIRE_CALL && req->body.len == 0)
        return 0;
    return txn_check(req->body, err);
}

int message_decode(struct azoth_bytes message, struct buf *store, struct wire_request *ret,
                   int *ret_json, struct azoth_error *err)
{
    buf_clear(store);
    memset(ret, 0, sizeof *ret);
    *ret_json = wire_is_json(message);
    int rc = *ret_json ? txnjson_parse(message, store, ret, err)
                       : wire_request_decode(message, ret, err);
    if (rc)
        return rc;
    if (message_is_read(ret->kind))
        return 0;
    if (ret->kind != WIRE_TX && ret->kind != WIRE_CALL)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "request kind %u is not known", ret->kind);
    return check_transaction(ret, err);
}

static int encode(struct buf *out, int json, const struct wire_answer *a)
{
    buf_clear(out);
    return json ? txnjson_answer(out, a) : wire_answer_encode(out, a);
}

int message_answer(struct buf *out, int json, const struct wire_answer *a)
{
    int rc = encode(out, json, a);
    if (rc == 0 && out->len <= WIRE_MESSAGE_MAX)
        return 0;
    if (rc == AZOTH_ERR_NOMEM)
        return rc;
    struct wire_answer e = {.kind = a->kind, .code = rc ? rc : AZOTH_ERR_TXN_SIZE, .id = a->id};
    e.message =
        bytes_str(rc ? "the answer cannot be encoded" : "the answer is over a message's size");
    rc = encode(out, json, &e);
    return rc ? AZOTH_ERR_NOMEM : 0;
}

int message_error(struct buf *out, int json, const struct wire_request *req,
                  const struct azoth_error *err)
{
    struct azoth_bytes text =
        bytes_str(err->message[0] ? err->message : azoth_code_sentence(err->code));
    while (text.len && !utf8_valid(text)) /* cut at its field's size inside a character */
        text.len--;
    struct wire_answer a = {.kind = req->kind, .code = err->code, .id = req->id, .message = text};
    return message_answer(out, json, &a);
}

int message_outcome(struct buf *out, int json, const struct wire_request *req,
                    const struct preflight_outcome *o)
{
    if (o->code) {
        struct azoth_error err = o->error;
        if (err.code != o->code)
            error_set(&err, o->code, "%s", azoth_code_sentence(o->code));
        return message_error(out, json, req, &err);
    }
    struct wire_answer a;
    answer_txn(req, &o->result, &a);
    return message_answer(out, json, &a);
}

int message_read(struct buf *out, struct buf *work, int json, const struct wire_request *req,
                 struct store *st, struct segment *s)
{
    struct wire_request r = *req;
    struct wire_answer a;
    /* Before the snapshot: what has left the writer's hands by then is in it. */
    int in_hands =
        r.kind == WIRE_OUTCOME && r.id.len == AZOTH_ID_BYTES && slot_find_id(s, r.id.ptr);
    for (;;) {
        answer_read(st, &r, in_hands, work, &a);
        int rc = encode(out, json, &a);
        /* JSON makes rows longer (base64, escapes): take fewer. One always fits. */
        if (rc == 0 && out->len > WIRE_MESSAGE_MAX && r.limit > 1 && a.body.len) {
            r.limit /= 2;
            continue;
        }
        return rc == 0 && out->len <= WIRE_MESSAGE_MAX ? 0 : message_answer(out, json, &a);
    }
}
