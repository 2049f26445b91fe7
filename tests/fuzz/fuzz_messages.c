/* fuzz_messages.c - any bytes as each message, image and record: refused, or safe to walk. */
#include "core/batchrec.h"
#include "core/record.h"
#include "core/txn.h"
#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_image(struct azoth_bytes image)
{
    struct txn_item it;
    size_t at = 0;
    if (txn_check(image, NULL) == 0)
        while (txn_next(image, &at, &it))
            if (it.kind == TXN_SET)
                (void)value_check(txn_item_value(&it));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct azoth_bytes b = bytes_of(data + 1, size - 1), key;
    struct wire_request request;
    struct wire_answer answer;
    struct wire_pull pull;
    struct wire_batch batch;
    struct event_record ev;
    struct state_record st;
    struct batch_head head;
    struct azoth_error err;
    size_t at = 0;
    switch (data[0] % 8) {
    case 0:
        if (wire_request_decode(b, &request, &err) == 0)
            walk_image(request.body);
        break;
    case 1:
        if (wire_answer_decode(b, &answer, &err) == 0)
            while (wire_item_next(answer.body, &at, &key, &st) == 1)
                ;
        break;
    case 2:
        (void)wire_pull_decode(b, &pull, &err);
        break;
    case 3:
        if (wire_batch_decode(b, &batch, &err) == 0)
            while (record_frame_next(batch.frames, &at, &ev, NULL) == 1)
                ;
        break;
    case 4:
        walk_image(b);
        break;
    case 5:
        (void)record_event_decode(1, b, &ev);
        break;
    case 6:
        (void)record_state_decode(bytes_str("key"), b, &st);
        break;
    default:
        (void)batch_decode(b, &head);
        break;
    }
    return 0;
}
