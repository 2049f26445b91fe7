/* fuzz_wire_batch.c - any bytes as a batch: refused, or the one image of what was decoded. */
#include "core/error.h"
#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf again;
    struct wire_batch m;
    struct azoth_error err = {0};
    int rc = wire_batch_decode(bytes_of(data, size), &m, &err);
    if (rc) {
        ensure(rc == AZOTH_ERR_BAD_REQUEST);
        ensure(err.code == rc && err.message[0]);
        return 0;
    }
    ensure(m.first >= 1 && m.last + 1 >= m.first && m.code <= 0);
    size_t at = 0;
    struct event_record ev;
    uint32_t check;
    while (record_frame_next(m.frames, &at, &ev, &check) == 1)
        ensure(at <= m.frames.len);
    buf_clear(&again);
    ensure(wire_batch_encode(&again, &m) == 0);
    ensure(bytes_eq(buf_bytes(&again), bytes_of(data, size)));
    return 0;
}
