/* fuzz_wire_effect.c - any bytes as what effects say: refused, or the one image of what was decoded. */
#include "core/error.h"
#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf again;
    struct wire_effect_ask ask;
    struct wire_effect_answer answer;
    struct azoth_error err = {0};
    buf_clear(&again);
    if (wire_effect_ask_decode(bytes_of(data, size), &ask, &err) == 0) {
        ensure(ask.worker.len >= 1 && ask.worker.len <= AZOTH_NAME_MAX);
        ensure(ask.result <= WIRE_EFFECT_GIVEN_BACK);
        ensure(wire_effect_ask_encode(&again, &ask) == 0);
        ensure(bytes_eq(buf_bytes(&again), bytes_of(data, size)));
        return 0;
    }
    ensure(err.code == AZOTH_ERR_BAD_REQUEST && err.message[0]);
    if (wire_effect_answer_decode(bytes_of(data, size), &answer, &err) == 0) {
        ensure((answer.id == 0) == (answer.frame.len == 0));
        ensure(wire_effect_answer_encode(&again, &answer) == 0);
        ensure(bytes_eq(buf_bytes(&again), bytes_of(data, size)));
    }
    return 0;
}
