/* fuzz_wire_answer.c - any bytes as an answer: refused, or the one image of what was decoded. */
#include "core/error.h"
#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf again;
    struct wire_answer m;
    struct azoth_error err = {0};
    int rc = wire_answer_decode(bytes_of(data, size), &m, &err);
    if (rc) {
        ensure(rc == AZOTH_ERR_BAD_REQUEST);
        ensure(err.code == rc && err.message[0]);
        return 0;
    }
    ensure(m.kind <= WIRE_PING && m.code <= 0);
    ensure(m.id.len == 0 || m.id.len == AZOTH_ID_BYTES);
    size_t at = 0;
    struct azoth_bytes key;
    struct state_record st;
    while (wire_item_next(m.body, &at, &key, &st) == 1)
        ensure(key.len >= 1 && key.len <= AZOTH_KEY_MAX);
    buf_clear(&again);
    ensure(wire_answer_encode(&again, &m) == 0);
    ensure(bytes_eq(buf_bytes(&again), bytes_of(data, size)));
    return 0;
}
