/*
 * fuzz_record.c - any bytes as records and frames: corrupt, or what the encoder makes of what was
 * read. The first byte says whether the checksum is made to fit, so that the lengths are reached.
 */
#include "core/error.h"
#include "core/record.h"
#include "core/seal.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_event(struct azoth_bytes rec)
{
    struct event_record ev;
    if (record_event_decode(1, rec, &ev))
        return;
    ensure(record_event_size(&ev) == rec.len);
    unsigned char *again = malloc(rec.len);
    ensure(again != NULL);
    record_event_encode(again, &ev);
    ensure(memcmp(again, rec.ptr, rec.len) == 0);
    free(again);
}

static void check_state(struct azoth_bytes key, struct azoth_bytes rec)
{
    struct state_record st;
    if (record_state_decode(key, rec, &st))
        return;
    ensure(record_state_size(st.value.enc.len) == rec.len);
    ensure(st.value.type == ((const unsigned char *)rec.ptr)[5]);
}

static void check_frames(struct azoth_bytes frames)
{
    struct event_record ev;
    size_t at = 0, before = 0;
    while (record_frame_next(frames, &at, &ev, NULL) == 1) {
        ensure(at > before && at <= frames.len);
        before = at;
    }
}

static void check_seal(unsigned char *rec, size_t n, int sign)
{
    unsigned char again[SEAL_RECORD];
    struct seal seal, same;
    if (sign && n == SEAL_RECORD)
        put_u64(rec + n - 8, XXH3_64bits(rec, n - 8));
    if (seal_decode(bytes_of(rec, n), &seal))
        return;
    seal_encode(again, &seal);
    ensure(seal_decode(bytes_of(again, sizeof again), &same) == 0);
    ensure(same.event == seal.event && same.txn == seal.txn && same.time_ns == seal.time_ns &&
           same.pid == seal.pid && strcmp(same.who, seal.who) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t n = size - 1;
    unsigned char *rec = malloc(n ? n : 1);
    struct azoth_bytes key = bytes_str("key"), b = bytes_of(rec, n);
    ensure(rec != NULL);
    memcpy(rec, data + 1, n);
    check_frames(b);
    if (data[0] % 2 && n >= 4)
        put_u32(rec, (uint32_t)XXH3_64bits_withSeed(rec + 4, n - 4, 1));
    check_event(b);
    if (data[0] % 2 && n >= 4)
        put_u32(rec, (uint32_t)XXH3_64bits_withSeed(rec + 4, n - 4, XXH3_64bits(key.ptr, key.len)));
    check_state(key, b);
    check_seal(rec, n, data[0] % 2);
    free(rec);
    return 0;
}
