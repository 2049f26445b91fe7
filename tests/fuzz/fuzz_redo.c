/*
 * fuzz_redo.c - any bytes as a redo record, a mark and the start of a chain: corrupt, or what the encoder
 * makes of what was read. The first byte says whether the record's checksum is made to fit, so that the
 * lengths are reached.
 */
#include "core/error.h"
#include "core/mark.h"
#include "core/redo.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_redo(struct azoth_bytes rec)
{
    struct redo_record r;
    struct redo_op op;
    size_t at = 0;
    uint32_t ops = 0;
    if (redo_decode(1, rec, &r))
        return;
    unsigned char *again = malloc(rec.len);
    ensure(again != NULL);
    unsigned char *to = redo_put_header(again, &r);
    while (redo_next(&r, &at, &op)) {
        to = redo_put_op(to, &op);
        ops++;
    }
    ensure(ops == r.ops && (size_t)(to - again) == rec.len);
    /* What a header says of an id that it has not, and its unused bits, come back as zeros. */
    ensure(memcmp(again + REDO_HEADER, (const char *)rec.ptr + REDO_HEADER,
                  rec.len - REDO_HEADER) == 0);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mark m;
    struct chain c;
    static const char key[] = "mark:000102030405060708090a0b0c0d0e0f";
    if (size < 1)
        return 0;
    size_t n = size - 1;
    unsigned char *rec = malloc(n ? n : 1);
    ensure(rec != NULL);
    memcpy(rec, data + 1, n);
    (void)mark_decode(bytes_of(key, MARK_KEY), bytes_of(rec, n), &m);
    (void)mark_decode(bytes_of(rec, n), bytes_of(rec, n), &m);
    (void)chain_start_decode(bytes_of(rec, n), &c);
    if (data[0] % 2 && n >= 4)
        put_u32(rec, (uint32_t)XXH3_64bits_withSeed(rec + 4, n - 4, 1));
    check_redo(bytes_of(rec, n));
    free(rec);
    return 0;
}
