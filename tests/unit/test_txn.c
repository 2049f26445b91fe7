/* test_txn.c - transaction images: every kind in its form and in no other, every limit on both of
 * its sides, and lies of the image about itself. */
#include "core/txn.h"

#include "core/error.h"
#include "core/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct azoth_error err;
static const unsigned char i64[8] = {5};
static unsigned char big[AZOTH_VALUE_MAX + 1]; /* zeros: valid UTF-8 and valid bytes */

static struct azoth_bytes of_size(size_t n)
{
    return bytes_of(big, n);
}

/* An item of this kind as it should be. */
static struct txn_item good(uint32_t kind)
{
    struct txn_item it = {.kind = kind, .key = bytes_str("key")};
    switch (kind) {
    case TXN_REQUIRE_TYPE:
        it.type = AZOTH_TYPE_SET;
        break;
    case TXN_REQUIRE_CONTAINS:
    case TXN_SET_ADD:
    case TXN_SET_REMOVE:
    case TXN_ARRAY_PUSH:
        it.value = bytes_str("member");
        break;
    case TXN_REQUIRE_VERSION:
        it.value = bytes_of(i64, 8);
        break;
    case TXN_REQUIRE_EQUALS:
    case TXN_REQUIRE_MIN:
    case TXN_REQUIRE_MAX:
    case TXN_SET:
    case TXN_ADD:
        it.type = AZOTH_TYPE_I64;
        it.value = bytes_of(i64, 8);
        break;
    case TXN_EVENT:
        it.name = bytes_str("type");
        it.metadata = bytes_str("meta");
        it.value = bytes_str("payload");
        break;
    default:
        break;
    }
    return it;
}

static const uint32_t kinds[] = {TXN_READ,
                                 TXN_WRITE,
                                 TXN_REQUIRE_EXISTS,
                                 TXN_REQUIRE_ABSENT,
                                 TXN_REQUIRE_EQUALS,
                                 TXN_REQUIRE_MIN,
                                 TXN_REQUIRE_MAX,
                                 TXN_REQUIRE_TYPE,
                                 TXN_DELETE,
                                 TXN_REQUIRE_VERSION,
                                 TXN_SET,
                                 TXN_REQUIRE_CONTAINS,
                                 TXN_ADD,
                                 TXN_SET_ADD,
                                 TXN_SET_REMOVE,
                                 TXN_ARRAY_PUSH,
                                 TXN_EVENT};
#define KINDS (sizeof kinds / sizeof *kinds)

/* The answer of the builder, and of txn_check on the same item written past the builder. */
static int refused(struct txn_item it)
{
    struct txn_builder b = {0};
    int rc = txn_add(&b, &it, &err);
    if (rc)
        assert_int_equal(b.items, 0);
    txn_builder_fini(&b);
    struct buf raw = {0};
    unsigned char *p = buf_grow(&raw, TXN_HEADER + TXN_ITEM_HEADER);
    assert_non_null(p);
    memcpy(p, "AZT1", 4);
    put_u32(p + 4, 1);
    p[8] = (unsigned char)it.kind;
    p[9] = (unsigned char)it.type;
    put_u16(p + 10, (uint16_t)it.key.len);
    put_u16(p + 12, (uint16_t)it.name.len);
    put_u16(p + 14, (uint16_t)it.metadata.len);
    put_u32(p + 16, (uint32_t)it.value.len);
    put_u32(p + 20, 0);
    assert_int_equal(buf_add(&raw, it.key.ptr, it.key.len), 0);
    assert_int_equal(buf_add(&raw, it.name.ptr, it.name.len), 0);
    assert_int_equal(buf_add(&raw, it.metadata.ptr, it.metadata.len), 0);
    assert_int_equal(buf_add(&raw, it.value.ptr, it.value.len), 0);
    assert_int_equal(txn_check(buf_bytes(&raw), &err), rc);
    buf_fini(&raw);
    return rc;
}

static void a_control_item_is_accepted_by_those_who_ask_for_it_alone(void **state)
{
    (void)state;
    struct txn_builder b = {0}, mixed = {0};
    struct txn_item control = {
        .kind = TXN_CONTROL, .name = bytes_str("mark"), .value = bytes_str("argument")};
    assert_int_equal(refused(control), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(txn_set_control(&b, control.name, control.value, &err), 0);
    struct azoth_bytes image = txn_image(&b);
    assert_int_equal(txn_check_control(image, &err), 0);
    assert_int_equal(txn_check(image, &err), AZOTH_ERR_BAD_REQUEST);
    for (size_t len = 0; len < image.len; len++)
        assert_int_equal(txn_check_control(bytes_of(image.ptr, len), &err), AZOTH_ERR_BAD_REQUEST);
    /* Never with anything beside it, of either kind. */
    assert_int_equal(
        txn_add(&mixed, &(struct txn_item){.kind = TXN_DELETE, .key = bytes_str("k")}, &err), 0);
    assert_int_equal(txn_check_control(txn_image(&mixed), &err), AZOTH_ERR_BAD_REQUEST);
    struct buf two = {0};
    assert_int_equal(buf_add(&two, image.ptr, image.len), 0);
    assert_int_equal(buf_add(&two, (const char *)image.ptr + TXN_HEADER, image.len - TXN_HEADER),
                     0);
    put_u32(two.ptr + 4, 2);
    assert_int_equal(txn_check_control(buf_bytes(&two), &err), AZOTH_ERR_BAD_REQUEST);
    put_u32(two.ptr + 4, 0);
    assert_int_equal(txn_check_control(bytes_of(two.ptr, TXN_HEADER), &err), AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(txn_set_control(&b, bytes_str(""), control.value, &err),
                     AZOTH_ERR_BAD_REQUEST);
    static const char long_value[TXN_CONTROL_MAX + 1];
    assert_int_equal(
        txn_set_control(&b, control.name, bytes_of(long_value, sizeof long_value), &err),
        AZOTH_ERR_BAD_REQUEST);
    buf_fini(&two);
    txn_builder_fini(&b);
    txn_builder_fini(&mixed);
}

static void every_kind_is_accepted_in_its_form(void **state)
{
    (void)state;
    struct txn_builder b = {0};
    for (size_t i = 0; i < KINDS; i++) {
        struct txn_item it = good(kinds[i]);
        assert_int_equal(refused(it), 0);
        assert_int_equal(txn_add(&b, &it, &err), 0);
        assert_string_not_equal(txn_kind_name(kinds[i]), "?");
    }
    struct azoth_bytes image = txn_image(&b);
    assert_int_equal(txn_check(image, &err), 0);
    struct txn_item it;
    size_t at = 0, n = 0;
    while (txn_next(image, &at, &it)) {
        struct txn_item want = good(kinds[n++]);
        assert_int_equal(it.kind, want.kind);
        assert_int_equal(it.type, want.type);
        assert_true(bytes_eq(it.key, want.key) && bytes_eq(it.name, want.name) &&
                    bytes_eq(it.metadata, want.metadata) && bytes_eq(it.value, want.value));
    }
    assert_int_equal(n, KINDS);
    txn_builder_fini(&b);
}

static void a_kind_is_refused_with_a_field_that_it_has_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct txn_item it = good(kinds[i]);
        if (it.kind != TXN_EVENT) {
            it.name = bytes_str("n");
            assert_int_equal(refused(it), AZOTH_ERR_BAD_REQUEST);
            it = good(kinds[i]);
            it.metadata = bytes_str("m");
            assert_int_equal(refused(it), AZOTH_ERR_BAD_REQUEST);
            it = good(kinds[i]);
        }
        if (it.value.len == 0) {
            it.value = bytes_str("v");
            assert_int_equal(refused(it), AZOTH_ERR_BAD_REQUEST);
            it = good(kinds[i]);
        }
        if (it.type == 0) {
            it.type = AZOTH_TYPE_I64;
            assert_int_equal(refused(it), AZOTH_ERR_BAD_REQUEST);
        }
    }
    assert_int_equal(refused((struct txn_item){.kind = 0, .key = bytes_str("k")}),
                     AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(refused((struct txn_item){.kind = 255, .key = bytes_str("k")}),
                     AZOTH_ERR_BAD_REQUEST);
}

static void values_are_of_a_fitting_type_and_canonical(void **state)
{
    (void)state;
    struct txn_item it = good(TXN_ADD);
    it.type = AZOTH_TYPE_STRING;
    assert_int_equal(refused(it), AZOTH_ERR_TYPE);
    it = good(TXN_REQUIRE_MIN);
    it.type = AZOTH_TYPE_BYTES;
    assert_int_equal(refused(it), AZOTH_ERR_TYPE);
    it = good(TXN_REQUIRE_TYPE);
    it.type = AZOTH_TYPE_STRING + 1;
    assert_int_equal(refused(it), AZOTH_ERR_TYPE);
    it = good(TXN_SET);
    it.value.len = 7;
    assert_int_equal(refused(it), AZOTH_ERR_ENCODING);
    it.type = AZOTH_TYPE_STRING;
    it.value = bytes_str("\xff");
    assert_int_equal(refused(it), AZOTH_ERR_UTF8);
    it = good(TXN_SET_ADD);
    it.value = bytes_str("\xc0\x80");
    assert_int_equal(refused(it), AZOTH_ERR_UTF8);
    it = good(TXN_REQUIRE_VERSION);
    it.value.len = 7;
    assert_int_equal(refused(it), AZOTH_ERR_BAD_REQUEST);
    it = good(TXN_EVENT);
    it.name = bytes_str("\xed\xa0\x80");
    assert_int_equal(refused(it), AZOTH_ERR_EVENT_TYPE);
}

static void every_limit_holds_on_both_of_its_sides(void **state)
{
    (void)state;
    struct txn_item it = good(TXN_READ);
    it.key = of_size(AZOTH_KEY_MAX);
    assert_int_equal(refused(it), 0);
    it.key = of_size(AZOTH_KEY_MAX + 1);
    assert_int_equal(refused(it), AZOTH_ERR_KEY_SIZE);
    it.key = of_size(0);
    assert_int_equal(refused(it), AZOTH_ERR_KEY_SIZE);

    it = good(TXN_EVENT);
    it.key = of_size(0);
    it.metadata = of_size(AZOTH_METADATA_MAX);
    it.name = of_size(AZOTH_EVENT_TYPE_MAX);
    it.value = of_size(AZOTH_PAYLOAD_MAX);
    assert_int_equal(refused(it), 0);
    it.key = of_size(AZOTH_STREAM_KEY_MAX);
    assert_int_equal(refused(it), 0);
    it.key = of_size(AZOTH_STREAM_KEY_MAX + 1);
    assert_int_equal(refused(it), AZOTH_ERR_KEY_SIZE);
    it = good(TXN_EVENT);
    it.metadata = of_size(AZOTH_METADATA_MAX + 1);
    assert_int_equal(refused(it), AZOTH_ERR_VALUE_SIZE);
    it = good(TXN_EVENT);
    it.name = of_size(AZOTH_EVENT_TYPE_MAX + 1);
    assert_int_equal(refused(it), AZOTH_ERR_EVENT_TYPE);
    it.name = of_size(0);
    assert_int_equal(refused(it), AZOTH_ERR_EVENT_TYPE);
    it = good(TXN_EVENT);
    it.value = of_size(AZOTH_PAYLOAD_MAX + 1);
    assert_int_equal(refused(it), AZOTH_ERR_VALUE_SIZE);
    it = good(TXN_SET);
    it.type = AZOTH_TYPE_BYTES;
    it.value = of_size(AZOTH_VALUE_MAX);
    assert_int_equal(refused(it), 0);
    it.value = of_size(AZOTH_VALUE_MAX + 1);
    assert_int_equal(refused(it), AZOTH_ERR_VALUE_SIZE);
    it = good(TXN_SET_ADD);
    it.value = of_size(AZOTH_VALUE_MAX + 1);
    assert_int_equal(refused(it), AZOTH_ERR_VALUE_SIZE);
}

static void a_transaction_has_at_most_so_many_items_and_bytes(void **state)
{
    (void)state;
    struct txn_builder b = {0};
    struct txn_item it = good(TXN_READ);
    for (uint32_t i = 0; i < AZOTH_TXN_ITEMS_MAX; i++)
        assert_int_equal(txn_add(&b, &it, &err), 0);
    assert_int_equal(txn_check(txn_image(&b), &err), 0);
    assert_int_equal(txn_add(&b, &it, &err), AZOTH_ERR_TXN_SIZE);
    assert_int_equal(txn_items(txn_image(&b)), AZOTH_TXN_ITEMS_MAX);

    txn_builder_clear(&b);
    it = good(TXN_EVENT);
    it.value = of_size(AZOTH_PAYLOAD_MAX);
    for (int i = 0; i < 3; i++)
        assert_int_equal(txn_add(&b, &it, &err), 0);
    it.value.len = AZOTH_TXN_BYTES_MAX - txn_image(&b).len - TXN_ITEM_HEADER - it.key.len -
                   it.name.len - it.metadata.len + 1;
    size_t before = txn_image(&b).len;
    assert_int_equal(txn_add(&b, &it, &err), AZOTH_ERR_TXN_SIZE);
    assert_int_equal(txn_image(&b).len, before);
    it.value.len--;
    assert_int_equal(txn_add(&b, &it, &err), 0);
    assert_int_equal(txn_image(&b).len, AZOTH_TXN_BYTES_MAX);
    assert_int_equal(txn_check(txn_image(&b), &err), 0);
    txn_builder_fini(&b);
}

static void an_untouched_builder_gives_the_empty_transaction(void **state)
{
    (void)state;
    struct txn_builder b = {0};
    struct txn_item it;
    size_t at = 0;
    assert_int_equal(txn_check(txn_image(&b), &err), 0);
    assert_int_equal(txn_items(txn_image(&b)), 0);
    assert_int_equal(txn_next(txn_image(&b), &at, &it), 0);
    it = good(TXN_READ);
    it.key = of_size(0);
    assert_int_equal(txn_add(&b, &it, &err), AZOTH_ERR_KEY_SIZE);
    assert_int_equal(txn_check(txn_image(&b), &err), 0);
    txn_builder_fini(&b);
}

static void an_image_that_lies_about_its_count_or_lengths_is_refused(void **state)
{
    (void)state;
    struct txn_builder b = {0};
    for (size_t i = 0; i < KINDS; i++) {
        struct txn_item it = good(kinds[i]);
        assert_int_equal(txn_add(&b, &it, &err), 0);
    }
    struct azoth_bytes image = txn_image(&b);
    unsigned char *copy = malloc(image.len);
    assert_non_null(copy);
    static const uint32_t counts[] = {0, KINDS - 1, KINDS + 1, 0x80000000u, UINT32_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        memcpy(copy, image.ptr, image.len);
        put_u32(copy + 4, counts[i]);
        assert_true(txn_check(bytes_of(copy, image.len), &err) < 0);
    }
    static const uint32_t lengths[] = {0xffffffffu, 0x80000000u, 0x7fffffffu, 0xfffffff0u, 1000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(copy, image.ptr, image.len);
        put_u32(copy + TXN_HEADER + 8, lengths[i]);
        assert_int_equal(txn_check(bytes_of(copy, image.len), &err), AZOTH_ERR_BAD_REQUEST);
        struct txn_item it;
        size_t at = 0;
        assert_int_equal(txn_next(bytes_of(copy, image.len), &at, &it), 0);
    }
    memcpy(copy, image.ptr, image.len);
    put_u32(copy + TXN_HEADER + 12, 1); /* reserved: has a meaning some day */
    assert_int_equal(txn_check(bytes_of(copy, image.len), &err), AZOTH_ERR_BAD_REQUEST);
    free(copy);
    txn_builder_fini(&b);
}

static void the_refusal_names_the_key(void **state)
{
    (void)state;
    struct txn_item it = good(TXN_ADD);
    it.key = bytes_str("acct/7");
    it.type = AZOTH_TYPE_BYTES;
    assert_int_equal(refused(it), AZOTH_ERR_TYPE);
    assert_non_null(strstr(err.message, "acct/7"));
    assert_non_null(strstr(err.message, "add"));
}

static void the_content_hash_tells_images_and_commands_apart(void **state)
{
    (void)state;
    struct txn_builder b = {0};
    struct txn_item it = good(TXN_SET);
    assert_int_equal(txn_add(&b, &it, &err), 0);
    struct azoth_bytes image = txn_image(&b), no = {0};
    uint64_t h = txn_content_hash(image, no);
    assert_true(h == txn_content_hash(image, no));
    assert_true(h != txn_content_hash(image, bytes_str("command")));
    assert_true(txn_content_hash(image, bytes_str("a")) != txn_content_hash(image, bytes_str("b")));
    for (size_t i = 0; i < image.len * 8; i++) {
        b.image.ptr[i / 8] ^= (unsigned char)(1 << (i % 8));
        assert_true(h != txn_content_hash(buf_bytes(&b.image), no));
        b.image.ptr[i / 8] ^= (unsigned char)(1 << (i % 8));
    }
    txn_builder_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_accepted_in_its_form),
        cmocka_unit_test(a_control_item_is_accepted_by_those_who_ask_for_it_alone),
        cmocka_unit_test(a_kind_is_refused_with_a_field_that_it_has_not),
        cmocka_unit_test(values_are_of_a_fitting_type_and_canonical),
        cmocka_unit_test(every_limit_holds_on_both_of_its_sides),
        cmocka_unit_test(a_transaction_has_at_most_so_many_items_and_bytes),
        cmocka_unit_test(an_untouched_builder_gives_the_empty_transaction),
        cmocka_unit_test(an_image_that_lies_about_its_count_or_lengths_is_refused),
        cmocka_unit_test(the_refusal_names_the_key),
        cmocka_unit_test(the_content_hash_tells_images_and_commands_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
