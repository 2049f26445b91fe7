/* fuzz_wire_pull.c - any bytes as a pull: refused, or the one image of what was decoded. */
#include "core/error.h"
#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf again;
    struct wire_pull m;
    struct azoth_error err = {0};
    int rc = wire_pull_decode(bytes_of(data, size), &m, &err);
    if (rc) {
        ensure(rc == AZOTH_ERR_BAD_REQUEST);
        ensure(err.code == rc && err.message[0]);
        return 0;
    }
    ensure(m.name.len >= 1 && m.name.len <= AZOTH_NAME_MAX);
    ensure(m.shards >= 1 && m.shard < m.shards);
    const unsigned char *types = m.types.ptr;
    size_t at = 0;
    while (at < m.types.len)
        at += 1u + types[at];
    ensure(at == m.types.len);
    buf_clear(&again);
    ensure(wire_pull_encode(&again, &m) == 0);
    ensure(bytes_eq(buf_bytes(&again), bytes_of(data, size)));
    return 0;
}
