/*
 * fuzz_txnjson.c - any bytes as a request's text, and as payload, key and message of an answer: a
 * request within its limits or a sentence; an answer that a JSON reader takes, on one line.
 */
#include "core/error.h"
#include "core/txnjson.h"

#include <jansson.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(const struct buf *out)
{
    ensure(!memchr(out->ptr, '\n', out->len));
    /* Versions and ids of 64 bits are JSON, but more than jansson's integers hold. */
    json_t *j = json_loadb((const char *)out->ptr, out->len,
                           JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    ensure(json_is_object(j));
    json_decref(j);
}

static void check_request(struct azoth_bytes text)
{
    static struct buf store;
    struct wire_request r;
    struct azoth_error err = {0};
    buf_clear(&store);
    int rc = txnjson_parse(text, &store, &r, &err);
    if (rc) {
        ensure(err.code == rc && err.message[0]);
        ensure(store.len == 0);
        return;
    }
    ensure(r.kind >= WIRE_TX && r.kind <= WIRE_PING);
    ensure(r.deadline_ms >= 1 && r.deadline_ms <= 3600000);
    ensure(r.limit >= 1 && r.limit <= 1000);
    ensure(r.id.len == 0 || r.id.len == AZOTH_ID_BYTES);
    if (r.kind == WIRE_TX || r.kind == WIRE_CALL)
        ensure(txn_check(r.body, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf out;
    struct azoth_bytes b = bytes_of(data, size);
    struct azoth_bytes most = bytes_of(data, size < 255 ? size : 255);
    check_request(b);
    struct event_record ev = {.id = 1, .type = most, .key = most, .metadata = b, .payload = b};
    buf_clear(&out);
    ensure(txnjson_event(&out, &ev) == 0);
    /* One level deeper than what was read: at jansson's own limit it says no. */
    if (size < 2000)
        check_line(&out);
    struct wire_answer a = {.code = AZOTH_ERR_BUSY, .message = b};
    buf_clear(&out);
    ensure(txnjson_answer(&out, &a) == 0);
    check_line(&out);
    a = (struct wire_answer){.kind = WIRE_SCAN, .body = b};
    buf_clear(&out);
    if (txnjson_answer(&out, &a) == 0)
        check_line(&out);
    return 0;
}
