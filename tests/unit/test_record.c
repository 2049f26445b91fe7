/* test_record.c - records that lie under a valid checksum, formats of later versions, the greatest
 * and the smallest record, and frames. */
#include "core/record.h"

#include "core/error.h"
#include "core/seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

static struct event_record event(uint64_t id)
{
    return (struct event_record){.id = id,
                                 .txn = id + 1,
                                 .time_ns = -7,
                                 .type = bytes_str("type"),
                                 .key = bytes_str("stream"),
                                 .metadata = bytes_str("meta"),
                                 .payload = bytes_str("payload")};
}

/* Makes the checksum fit again, as one who wants to deceive us would. */
static void sign_event(unsigned char *rec, size_t size, uint64_t id)
{
    put_u32(rec, (uint32_t)XXH3_64bits_withSeed(rec + 4, size - 4, id));
}

static void assert_events_equal(const struct event_record *a, const struct event_record *b)
{
    assert_true(a->id == b->id && a->txn == b->txn && a->time_ns == b->time_ns);
    assert_true(bytes_eq(a->type, b->type) && bytes_eq(a->key, b->key) &&
                bytes_eq(a->metadata, b->metadata) && bytes_eq(a->payload, b->payload));
}

static void lengths_that_do_not_add_up_are_corrupt_under_a_valid_checksum(void **state)
{
    (void)state;
    static const struct {
        size_t at, width;
    } fields[] = {{5, 1}, {6, 2}, {8, 4}, {12, 4}};
    static const uint32_t lies[] = {0, 1, 0x7fffffffu, 0x80000000u, 0xffffffffu};
    struct event_record ev = event(3), back;
    size_t size = record_event_size(&ev);
    unsigned char *rec = malloc(size);
    assert_non_null(rec);
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
        for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
            record_event_encode(rec, &ev);
            memcpy(rec + fields[f].at, &lies[i], fields[f].width);
            sign_event(rec, size, 3);
            assert_int_equal(record_event_decode(3, bytes_of(rec, size), &back), AZOTH_ERR_CORRUPT);
        }
    /* Four lengths that overflow 32 bits together are no smaller record. */
    record_event_encode(rec, &ev);
    put_u32(rec + 8, 0xffffffffu);
    put_u32(rec + 12, (uint32_t)(4 + 7 + 1));
    sign_event(rec, size, 3);
    assert_int_equal(record_event_decode(3, bytes_of(rec, size), &back), AZOTH_ERR_CORRUPT);
    free(rec);
}

static void a_format_of_a_later_version_is_told_from_damage(void **state)
{
    (void)state;
    struct event_record ev = event(3), back;
    unsigned char rec[128];
    size_t size = record_event_size(&ev);
    record_event_encode(rec, &ev);
    rec[4] = 2;
    assert_int_equal(record_event_decode(3, bytes_of(rec, size), &back), AZOTH_ERR_CORRUPT);
    sign_event(rec, size, 3);
    assert_int_equal(record_event_decode(3, bytes_of(rec, size), &back), AZOTH_ERR_FORMAT);

    struct state_record st;
    size = record_state_size(3);
    record_state_encode(rec, bytes_str("k"), 9,
                        (struct azoth_value){AZOTH_TYPE_BYTES, bytes_str("abc")});
    rec[4] = 2;
    put_u32(rec, (uint32_t)XXH3_64bits_withSeed(rec + 4, size - 4, XXH3_64bits("k", 1)));
    assert_int_equal(record_state_decode(bytes_str("k"), bytes_of(rec, size), &st),
                     AZOTH_ERR_FORMAT);
}

/* The checksum stands on disks: these numbers never change. */
static void the_stored_checksums_are_the_ones_of_the_first_version(void **state)
{
    (void)state;
    struct event_record ev = event(3);
    unsigned char rec[128];
    record_event_encode(rec, &ev);
    assert_int_equal(record_checksum(bytes_of(rec, record_event_size(&ev))), 0xccd4ebcbu);
    record_state_encode(rec, bytes_str("k"), 9,
                        (struct azoth_value){AZOTH_TYPE_BYTES, bytes_str("abc")});
    assert_int_equal(record_checksum(bytes_of(rec, record_state_size(3))), 0x3ea0d869u);
}

static void the_greatest_and_the_smallest_event_come_back(void **state)
{
    (void)state;
    unsigned char *fill = malloc(AZOTH_PAYLOAD_MAX), *rec = malloc(RECORD_EVENT_MAX);
    assert_non_null(fill);
    assert_non_null(rec);
    memset(fill, 'x', AZOTH_PAYLOAD_MAX);
    struct event_record ev = {.id = UINT64_MAX,
                              .txn = UINT64_MAX,
                              .time_ns = INT64_MIN,
                              .type = bytes_of(fill, AZOTH_EVENT_TYPE_MAX),
                              .key = bytes_of(fill, AZOTH_STREAM_KEY_MAX),
                              .metadata = bytes_of(fill, AZOTH_METADATA_MAX),
                              .payload = bytes_of(fill, AZOTH_PAYLOAD_MAX)},
                        back;
    assert_int_equal(record_event_size(&ev), RECORD_EVENT_MAX);
    record_event_encode(rec, &ev);
    assert_int_equal(record_event_decode(ev.id, bytes_of(rec, RECORD_EVENT_MAX), &back), 0);
    assert_events_equal(&ev, &back);
    ev = (struct event_record){.id = 1, .type = bytes_str("t")};
    record_event_encode(rec, &ev);
    assert_int_equal(record_event_decode(1, bytes_of(rec, record_event_size(&ev)), &back), 0);
    assert_events_equal(&ev, &back);
    free(fill);
    free(rec);
}

static void an_empty_value_is_a_value(void **state)
{
    (void)state;
    unsigned char rec[RECORD_STATE_HEADER];
    struct state_record st;
    record_state_encode(rec, bytes_str("k"), UINT64_MAX,
                        (struct azoth_value){AZOTH_TYPE_STRING, {NULL, 0}});
    assert_int_equal(record_state_decode(bytes_str("k"), bytes_of(rec, sizeof rec), &st), 0);
    assert_true(st.version == UINT64_MAX && st.value.type == AZOTH_TYPE_STRING);
    assert_int_equal(st.value.enc.len, 0);
}

static void make_frames(struct buf *out, uint32_t checks[3])
{
    for (uint64_t id = 0; id < 3; id++) {
        struct event_record ev = event(id + 10);
        unsigned char rec[128];
        record_event_encode(rec, &ev);
        checks[id] = record_checksum(bytes_of(rec, record_event_size(&ev)));
        assert_int_equal(record_frame_add(out, ev.id, bytes_of(rec, record_event_size(&ev))), 0);
    }
}

static void frames_come_back_in_order_with_their_checksums(void **state)
{
    (void)state;
    struct buf b = {0};
    struct event_record got;
    uint32_t checks[3], check, n = 0;
    size_t at = 0;
    make_frames(&b, checks);
    while (record_frame_next(buf_bytes(&b), &at, &got, &check) == 1) {
        struct event_record want = event(n + 10);
        assert_events_equal(&got, &want);
        assert_int_equal(check, checks[n++]);
    }
    assert_int_equal(n, 3);
    assert_int_equal(at, b.len);
    assert_int_equal(record_frame_next(buf_bytes(&b), &at, &got, NULL), 0);
    buf_fini(&b);
}

static void frames_cut_or_damaged_anywhere_are_corrupt(void **state)
{
    (void)state;
    struct buf b = {0};
    struct event_record got;
    uint32_t checks[3];
    make_frames(&b, checks);
    size_t one = b.len / 3;
    for (size_t len = 1; len < b.len; len++) {
        unsigned char *c = malloc(len);
        size_t at = 0, n = 0;
        int rc;
        assert_non_null(c);
        memcpy(c, b.ptr, len);
        while ((rc = record_frame_next(bytes_of(c, len), &at, &got, NULL)) == 1)
            n++;
        assert_int_equal(n, len / one);
        assert_int_equal(rc, len % one ? AZOTH_ERR_CORRUPT : 0);
        free(c);
    }
    for (size_t i = 0; i < b.len * 8; i++) {
        size_t at = 0, n = 0;
        int rc;
        b.ptr[i / 8] ^= (unsigned char)(1 << (i % 8));
        while ((rc = record_frame_next(buf_bytes(&b), &at, &got, NULL)) == 1)
            n++;
        assert_true(rc < 0);
        assert_int_equal(n, i / 8 / one);
        b.ptr[i / 8] ^= (unsigned char)(1 << (i % 8));
    }
    buf_fini(&b);
}

static void a_seal_is_what_was_written_and_no_bit_of_it_may_change(void **state)
{
    (void)state;
    unsigned char rec[SEAL_RECORD];
    struct seal seal = {.event = 7, .txn = 1ull << 40, .time_ns = -3, .pid = 12}, got;
    snprintf(seal.who, sizeof seal.who, "azoth seal of thirty-one letters");
    seal_encode(rec, &seal);
    assert_int_equal(seal_decode(bytes_of(rec, sizeof rec), &got), 0);
    assert_true(got.event == 7 && got.txn == 1ull << 40 && got.time_ns == -3 && got.pid == 12);
    assert_string_equal(got.who, "azoth seal of thirty-one letter");
    for (unsigned bit = 0; bit < 8 * SEAL_RECORD; bit++) {
        rec[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_equal(seal_decode(bytes_of(rec, sizeof rec), &got), AZOTH_ERR_CORRUPT);
        rec[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t n = 0; n < SEAL_RECORD; n++)
        assert_int_equal(seal_decode(bytes_of(rec, n), &got), AZOTH_ERR_CORRUPT);
    /* A name without its end, under a checksum that fits. */
    rec[63] = 'x';
    put_u64(rec + 64, XXH3_64bits(rec, 64));
    assert_int_equal(seal_decode(bytes_of(rec, sizeof rec), &got), AZOTH_ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seal_is_what_was_written_and_no_bit_of_it_may_change),
        cmocka_unit_test(lengths_that_do_not_add_up_are_corrupt_under_a_valid_checksum),
        cmocka_unit_test(a_format_of_a_later_version_is_told_from_damage),
        cmocka_unit_test(the_stored_checksums_are_the_ones_of_the_first_version),
        cmocka_unit_test(the_greatest_and_the_smallest_event_come_back),
        cmocka_unit_test(an_empty_value_is_a_value),
        cmocka_unit_test(frames_come_back_in_order_with_their_checksums),
        cmocka_unit_test(frames_cut_or_damaged_anywhere_are_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
