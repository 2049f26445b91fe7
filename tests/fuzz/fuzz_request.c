/*
 * fuzz_request.c - any bytes through a worker's way of decoding, up to what would be executed, and
 * the answer of what is refused: always a message of the same kind.
 */
#include "workers/message.h"

#include "core/error.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf store, out;
    struct wire_request req;
    struct wire_answer a;
    struct azoth_error err = {0};
    int json = -1;
    int rc = message_decode(bytes_of(data, size), &store, &req, &json, &err);
    ensure(json == 0 || json == 1);
    if (rc == 0) {
        ensure(req.deadline_ms >= 1 && req.deadline_ms <= 3600000);
        ensure(req.id.len == 0 || req.id.len == AZOTH_ID_BYTES);
        struct txn_item it;
        size_t at = 0;
        uint32_t items = 0;
        if (req.kind == WIRE_TX) {
            while (txn_next(req.body, &at, &it))
                items++;
            ensure(items == txn_items(req.body));
            ensure(items == 0 || at == req.body.len);
        }
        return 0;
    }
    ensure(err.code == rc && err.message[0]);
    ensure(message_error(&out, json, &req, &err) == 0);
    if (json)
        ensure(out.len > 2 && out.ptr[0] == '{');
    else
        ensure(wire_answer_decode(buf_bytes(&out), &a, &err) == 0 && a.code == rc);
    return 0;
}
