#include "core/answer.h"

#include "core/error.h"

#include <string.h>

static void begin(const struct wire_request *req, struct wire_answer *ret)
{
    *ret = (struct wire_answer){.kind = req->kind, .id = req->id};
}

void answer_error(const struct wire_request *req, const struct azoth_error *err, struct buf *store,
                  struct wire_answer *ret)
{
    begin(req, ret);
    ret->code = err->code;
    buf_clear(store);
    if (buf_add_str(store, err->message) == 0)
        ret->message = buf_bytes(store);
}

void answer_txn(const struct wire_request *req, const struct txn_result *r, struct wire_answer *ret)
{
    begin(req, ret);
    ret->txn = r->txn;
    ret->first_event = r->first_event;
    ret->last_event = r->last_event;
    ret->keys_written = r->keys_written;
    ret->keys_deleted = r->keys_deleted;
    ret->keys_missing = r->keys_missing;
    ret->flags = r->duplicate ? WIRE_DUPLICATE : 0;
}

static int read_get(struct snapshot *sn, const struct wire_request *req, struct buf *store,
                    struct azoth_error *err)
{
    struct state_record st;
    int rc = snapshot_get(sn, req->name, &st, err);
    return rc ? rc : wire_item_add(store, req->name, &st);
}

static int read_scan(struct snapshot *sn, const struct wire_request *req, struct buf *store,
                     struct wire_answer *ret, struct azoth_error *err)
{
    struct azoth_bytes from = bytes_cmp(req->after, req->name) > 0 ? req->after : req->name, key;
    struct scan *sc;
    struct state_record st;
    int rc = scan_open(sn, req->args, from, req->body, &sc, err);
    if (rc)
        return rc;
    uint32_t rows = 0;
    while ((rc = scan_next(sc, &key, &st, err)) == 1) {
        if (req->after.len && bytes_eq(key, req->after))
            continue;
        if (rows == req->limit || (rows && store->len + st.value.enc.len > ANSWER_BYTES_MAX)) {
            ret->flags |= WIRE_MORE;
            rc = 0;
            break;
        }
        rc = wire_item_add(store, key, &st);
        if (rc)
            break;
        rows++;
    }
    scan_close(sc);
    return rc;
}

static int read_events(struct snapshot *sn, const struct wire_request *req, struct buf *store,
                       struct wire_answer *ret, struct azoth_error *err)
{
    struct store_head head;
    struct event_scan *es;
    struct event_record ev;
    struct azoth_bytes raw;
    int rc = snapshot_head(sn, &head, err);
    if (!rc)
        rc = event_scan_open(sn, req->from, req->to, &es, err);
    if (rc)
        return rc;
    uint32_t rows = 0, looked = 0;
    ret->last_event = head.event;
    while ((rc = event_scan_next(es, &ev, &raw, err)) == 1) {
        int wanted = req->name.len == 0 || bytes_eq(req->name, ev.type);
        /* A rare type must not make one request read the whole log. */
        if (rows == req->limit || looked == 100000 ||
            (rows && store->len + raw.len > ANSWER_BYTES_MAX)) {
            ret->flags |= WIRE_MORE;
            rc = 0;
            break;
        }
        ret->first_event = ev.id; /* how far it looked: the next page begins after it */
        looked++;
        if (wanted && (rc = record_frame_add(store, ev.id, raw)) != 0)
            break;
        rows += (uint32_t)wanted;
    }
    event_scan_close(es);
    return rc;
}

static int read_outcome(struct snapshot *sn, const struct wire_request *req, int in_hands,
                        struct wire_answer *ret, struct azoth_error *err)
{
    if (req->id.len != AZOTH_ID_BYTES)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "an outcome is asked for by a request id");
    struct txn_result r;
    uint64_t content;
    int rc = snapshot_find_id(sn, req->id.ptr, &r, &content, err);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return in_hands
                   ? error_set(err, AZOTH_ERR_BUSY, "the writer has it: ask again")
                   : error_set(err, AZOTH_ERR_NOT_FOUND, "no commit is remembered under this id");
    r.duplicate = 0;
    answer_txn(req, &r, ret);
    return 0;
}

void answer_read(struct store *st, const struct wire_request *req, int in_hands, struct buf *store,
                 struct wire_answer *ret)
{
    struct snapshot *sn;
    struct azoth_error err = {0};
    begin(req, ret);
    buf_clear(store);
    if (req->kind == WIRE_PING)
        return;
    int rc = snapshot_begin(st, &sn, &err);
    if (!rc) {
        switch (req->kind) {
        case WIRE_GET:
            rc = read_get(sn, req, store, &err);
            break;
        case WIRE_SCAN:
            rc = read_scan(sn, req, store, ret, &err);
            break;
        case WIRE_EVENTS:
            rc = read_events(sn, req, store, ret, &err);
            break;
        case WIRE_OUTCOME:
            rc = read_outcome(sn, req, in_hands, ret, &err);
            break;
        default:
            rc = error_set(&err, AZOTH_ERR_BAD_REQUEST, "request kind %u is no read", req->kind);
            break;
        }
        snapshot_end(sn);
    }
    if (rc) {
        if (!err.code)
            error_set(&err, rc, "%s", azoth_code_sentence(rc));
        answer_error(req, &err, store, ret);
    } else if (store->len) {
        ret->body = buf_bytes(store);
    }
}
