#include "core/record.h"
#include "core/u256.h"
#include "core/value.h"
#include "core/valuejson.h"

#include <gmp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint64_t seed;

static uint64_t random_next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static struct azoth_u256 random_u256(void)
{
    struct azoth_u256 n;
    /* Often small or near the end: that is where carries are. */
    unsigned limbs = (unsigned)(random_next() % 5);
    for (unsigned i = 0; i < 4; i++)
        n.limb[i] = i < limbs ? (random_next() % 4 ? random_next() : UINT64_MAX) : 0;
    return n;
}

static void to_mpz(mpz_t out, const struct azoth_u256 *n)
{
    mpz_import(out, 4, -1, 8, 0, 0, n->limb);
}

static void u256_arithmetic_agrees_with_unbounded_integers(void **state)
{
    (void)state;
    const char *given = getenv("AZOTH_TEST_SEED");
    seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) | 1;
    print_message("AZOTH_TEST_SEED=%llu\n", (unsigned long long)seed);
    mpz_t x, y, r, top, q, m;
    mpz_inits(x, y, r, top, q, m, NULL);
    mpz_ui_pow_ui(top, 2, 256);
    for (int i = 0; i < 20000; i++) {
        struct azoth_u256 a = random_u256(), b = random_u256(), s, rem;
        to_mpz(x, &a);
        to_mpz(y, &b);
        int rc = u256_add(&a, &b, &s);
        mpz_add(r, x, y);
        assert_int_equal(rc, mpz_cmp(r, top) < 0 ? 0 : AZOTH_ERR_OVERFLOW);
        if (!rc) {
            to_mpz(q, &s);
            assert_int_equal(mpz_cmp(q, r), 0);
        }
        rc = u256_sub(&a, &b, &s);
        mpz_sub(r, x, y);
        assert_int_equal(rc, mpz_sgn(r) >= 0 ? 0 : AZOTH_ERR_UNDERFLOW);
        if (!rc) {
            to_mpz(q, &s);
            assert_int_equal(mpz_cmp(q, r), 0);
        }
        rc = u256_mul(&a, &b, &s);
        mpz_mul(r, x, y);
        assert_int_equal(rc, mpz_cmp(r, top) < 0 ? 0 : AZOTH_ERR_OVERFLOW);
        if (!rc) {
            to_mpz(q, &s);
            assert_int_equal(mpz_cmp(q, r), 0);
        }
        rc = u256_div(&a, &b, &s, &rem);
        assert_int_equal(rc, mpz_sgn(y) ? 0 : AZOTH_ERR_DIVISION);
        if (!rc) {
            mpz_tdiv_qr(q, m, x, y);
            to_mpz(r, &s);
            assert_int_equal(mpz_cmp(q, r), 0);
            to_mpz(r, &rem);
            assert_int_equal(mpz_cmp(m, r), 0);
        }
        char text[U256_TEXT_MAX], want[U256_TEXT_MAX + 2];
        u256_text(&a, text);
        mpz_get_str(want, 10, x);
        assert_string_equal(text, want);
        assert_int_equal(u256_parse(bytes_str(text), &s), 0);
        assert_int_equal(u256_cmp(&s, &a), 0);
        assert_int_equal(u256_cmp(&a, &b), (mpz_cmp(x, y) > 0) - (mpz_cmp(x, y) < 0));
    }
    mpz_clears(x, y, r, top, q, m, NULL);
}

static void u256_text_is_parsed_strictly(void **state)
{
    (void)state;
    struct azoth_u256 n;
    assert_int_equal(u256_parse(bytes_str(""), &n), AZOTH_ERR_ENCODING);
    assert_int_equal(u256_parse(bytes_str("-1"), &n), AZOTH_ERR_ENCODING);
    assert_int_equal(u256_parse(bytes_str("1 "), &n), AZOTH_ERR_ENCODING);
    assert_int_equal(
        u256_parse(bytes_str("0000000000000000000000000000000000000000000000000000000000"
                             "00000000000000000000000000000000007"),
                   &n),
        0);
    assert_int_equal(n.limb[0], 7);
    assert_int_equal(
        u256_parse(bytes_str("115792089237316195423570985008687907853269984665640564039"
                             "457584007913129639936"),
                   &n),
        AZOTH_ERR_OVERFLOW);
}

static void equal_sets_have_equal_bytes_whatever_the_order(void **state)
{
    (void)state;
    struct azoth_bytes a[] = {bytes_str("b"), bytes_str("a"), bytes_str("c"), bytes_str("a")};
    struct azoth_bytes b[] = {bytes_str("c"), bytes_str("b"), bytes_str("a")};
    struct buf x = {0}, y = {0};
    struct azoth_value v, w;
    assert_int_equal(value_make_set(&x, a, 4, &v), 0);
    assert_int_equal(value_make_set(&y, b, 3, &w), 0);
    assert_true(bytes_eq(v.enc, w.enc));
    assert_int_equal(value_check(v), 0);
    buf_fini(&x);
    buf_fini(&y);
}

static void what_is_not_canonical_is_refused(void **state)
{
    (void)state;
    static const unsigned char unsorted[] = {2, 0, 0, 0, 1, 0, 0, 0, 'b', 1, 0, 0, 0, 'a'};
    static const unsigned char repeated[] = {2, 0, 0, 0, 1, 0, 0, 0, 'a', 1, 0, 0, 0, 'a'};
    static const unsigned char huge[] = {0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 'a'};
    static const unsigned char beyond[] = {1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 'a'};
    static const unsigned char trailing[] = {1, 0, 0, 0, 1, 0, 0, 0, 'a', 0};
#define V(type, bytes) ((struct azoth_value){type, {bytes, sizeof bytes}})
    assert_int_equal(value_check(V(AZOTH_TYPE_SET, unsorted)), AZOTH_ERR_ENCODING);
    assert_int_equal(value_check(V(AZOTH_TYPE_ARRAY, unsorted)), 0);
    assert_int_equal(value_check(V(AZOTH_TYPE_SET, repeated)), AZOTH_ERR_ENCODING);
    assert_int_equal(value_check(V(AZOTH_TYPE_SET, huge)), AZOTH_ERR_ENCODING);
    assert_int_equal(value_check(V(AZOTH_TYPE_SET, beyond)), AZOTH_ERR_ENCODING);
    assert_int_equal(value_check(V(AZOTH_TYPE_SET, trailing)), AZOTH_ERR_ENCODING);
    assert_int_equal(value_check(V(AZOTH_TYPE_I64, huge)), AZOTH_ERR_ENCODING);
    assert_int_equal(value_check(V(AZOTH_TYPE_STRING, huge)), AZOTH_ERR_UTF8);
    assert_int_equal(value_check(V(9, huge)), AZOTH_ERR_TYPE);
}

static void i64_arithmetic_is_checked_at_its_ends(void **state)
{
    (void)state;
    struct buf out = {0};
    struct azoth_value max, min, one, minus, zero, r;
    assert_int_equal(buf_reserve(&out, 4096), 0);
    value_make_i64(&out, INT64_MAX, &max);
    value_make_i64(&out, INT64_MIN, &min);
    value_make_i64(&out, 1, &one);
    value_make_i64(&out, -1, &minus);
    value_make_i64(&out, 0, &zero);
    assert_int_equal(value_add(&out, max, one, &r), AZOTH_ERR_OVERFLOW);
    assert_int_equal(value_add(&out, min, minus, &r), AZOTH_ERR_UNDERFLOW);
    assert_int_equal(value_sub(&out, min, one, &r), AZOTH_ERR_UNDERFLOW);
    assert_int_equal(value_sub(&out, max, minus, &r), AZOTH_ERR_OVERFLOW);
    assert_int_equal(value_mul(&out, max, max, &r), AZOTH_ERR_OVERFLOW);
    assert_int_equal(value_div(&out, min, minus, &r), AZOTH_ERR_OVERFLOW);
    assert_int_equal(value_div(&out, one, zero, &r), AZOTH_ERR_DIVISION);
    int64_t n;
    assert_int_equal(value_add(&out, max, min, &r), 0);
    assert_int_equal(value_i64(r, &n), 0);
    assert_int_equal(n, -1);
    buf_fini(&out);
}

static void sets_keep_their_order_when_members_come_and_go(void **state)
{
    (void)state;
    struct buf out = {0};
    struct azoth_value set;
    int changed;
    assert_int_equal(value_make_set(&out, NULL, 0, &set), 0);
    for (int i = 0; i < 200; i++) {
        char member[16];
        snprintf(member, sizeof member, "%d", (i * 37) % 100);
        assert_int_equal(buf_reserve(&out, 65536), 0);
        set.enc.ptr = out.ptr + out.len - set.enc.len;
        assert_int_equal(value_set_add(&out, set, bytes_str(member), &set, &changed), 0);
        assert_int_equal(changed, i < 100);
        assert_int_equal(value_check(set), 0);
    }
    uint32_t n;
    assert_int_equal(value_count(set, &n), 0);
    assert_int_equal(n, 100);
    assert_int_equal(buf_reserve(&out, 65536), 0);
    set.enc.ptr = out.ptr + out.len - set.enc.len;
    assert_int_equal(value_set_remove(&out, set, bytes_str("37"), &set, &changed), 0);
    assert_int_equal(changed, 1);
    assert_int_equal(value_contains(set, bytes_str("37"), &changed), 0);
    assert_int_equal(changed, 0);
    assert_int_equal(value_check(set), 0);
    buf_fini(&out);
}

static void json_and_back_is_the_same_value(void **state)
{
    (void)state;
    static const char *const texts[] = {"-9223372036854775808", "\"caf\\u0000\xc3\xa9\"",
                                        "[\"b\",\"\",\"b\"]",   "{\"set\":[\"a\",\"b\"]}",
                                        "{\"u256\":\"0\"}",     "{\"bytes\":\"AP8=\"}",
                                        "{\"bytes\":\"\"}",     "[]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *j = json_loads(texts[i], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        struct buf enc = {0}, back = {0};
        struct azoth_value v;
        assert_int_equal(value_from_json(&enc, j, &v, NULL), 0);
        assert_int_equal(value_check(v), 0);
        assert_int_equal(value_to_json(&back, v), 0);
        assert_int_equal(back.len, strlen(texts[i]));
        assert_memory_equal(back.ptr, texts[i], back.len);
        json_decref(j);
        buf_fini(&enc);
        buf_fini(&back);
    }
}

static void json_that_is_no_value_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"1.5",
                                        "null",
                                        "true",
                                        "[1]",
                                        "{}",
                                        "{\"u256\":\"-1\"}",
                                        "{\"u256\":1.5}",
                                        "{\"bytes\":\"A\"}",
                                        "{\"bytes\":\"AB==\"}",
                                        "{\"bytes\":\"A===\"}",
                                        "{\"set\":\"a\"}",
                                        "{\"set\":[],\"x\":1}",
                                        "{\"nope\":1}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *j = json_loads(texts[i], JSON_DECODE_ANY, NULL);
        struct buf enc = {0};
        struct azoth_value v;
        assert_true(value_from_json(&enc, j, &v, NULL) < 0);
        json_decref(j);
        buf_fini(&enc);
    }
}

static void utf8_is_checked_as_rfc_3629_says(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "a",
                                       "\xc2\x80",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const wrong[] = {"\x80",
                                        "\xc0\x80",
                                        "\xc1\xbf",
                                        "\xe0\x9f\xbf",
                                        "\xed\xa0\x80",
                                        "\xf0\x8f\xbf\xbf",
                                        "\xf4\x90\x80\x80",
                                        "\xf5\x80\x80\x80",
                                        "\xe2\x82",
                                        "\xc3"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(utf8_valid(bytes_str(good[i])));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(utf8_valid(bytes_str(wrong[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(u256_arithmetic_agrees_with_unbounded_integers),
        cmocka_unit_test(u256_text_is_parsed_strictly),
        cmocka_unit_test(equal_sets_have_equal_bytes_whatever_the_order),
        cmocka_unit_test(what_is_not_canonical_is_refused),
        cmocka_unit_test(i64_arithmetic_is_checked_at_its_ends),
        cmocka_unit_test(sets_keep_their_order_when_members_come_and_go),
        cmocka_unit_test(json_and_back_is_the_same_value),
        cmocka_unit_test(json_that_is_no_value_is_refused),
        cmocka_unit_test(utf8_is_checked_as_rfc_3629_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
