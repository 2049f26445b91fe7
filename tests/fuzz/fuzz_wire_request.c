/* fuzz_wire_request.c - any bytes as a request: refused, or the one image of what was decoded. */
#include "core/error.h"
#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf again;
    struct wire_request m;
    struct azoth_error err = {0};
    int rc = wire_request_decode(bytes_of(data, size), &m, &err);
    if (rc) {
        ensure(rc == AZOTH_ERR_BAD_REQUEST);
        ensure(err.code == rc && err.message[0]);
        return 0;
    }
    ensure(m.kind >= WIRE_TX && m.kind <= WIRE_PING);
    ensure(m.deadline_ms >= 1 && m.deadline_ms <= 3600000);
    ensure(m.limit >= 1 && m.limit <= 1000);
    ensure(m.id.len == 0 || m.id.len == AZOTH_ID_BYTES);
    ensure(m.name.len <= AZOTH_KEY_MAX && m.after.len <= AZOTH_KEY_MAX);
    buf_clear(&again);
    ensure(wire_request_encode(&again, &m) == 0);
    ensure(bytes_eq(buf_bytes(&again), bytes_of(data, size)));
    return 0;
}
