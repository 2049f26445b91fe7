#include "core/record.h"
#include "core/u256.h"
#include "core/value.h"
#include "core/valuejson.h"
#include "tests/unit/seed.h"

#include <gmp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    seed = seed_of_run();
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

/* ---- what each function says about its errors and about the buffer it appends to ---- */

/* The bytes in memory of their own size, so that a sanitizer sees the first one beyond. */
static struct azoth_value exact(uint32_t type, const void *p, size_t n)
{
    unsigned char *c = malloc(n ? n : 1);
    assert_non_null(c);
    if (n)
        memcpy(c, p, n);
    return (struct azoth_value){type, {c, n}};
}

static void release(struct azoth_value v)
{
    free((void *)(uintptr_t)v.enc.ptr);
}

/* Makes the buffer exactly as large as its content: the next byte moves it. */
static void tighten(struct buf *b)
{
    unsigned char *p = realloc(b->ptr, b->len);
    assert_non_null(p);
    b->ptr = p;
    b->cap = b->len;
}

static void type_names_come_back_and_others_are_no_type(void **state)
{
    (void)state;
    static const char *const names[] = {"?", "i64", "u256", "set", "array", "bytes", "string", "?"};
    uint32_t type = 77;
    for (uint32_t i = 0; i < 8; i++) {
        assert_string_equal(value_type_name(i), names[i]);
        assert_int_equal(value_type_parse(names[i], &type), *names[i] == '?' ? AZOTH_ERR_TYPE : 0);
        assert_int_equal(type, i == 0 ? 77 : i == 7 ? 6 : i);
    }
    assert_string_equal(value_type_name(UINT32_MAX), "?");
    assert_int_equal(value_type_parse("I64", &type), AZOTH_ERR_TYPE);
    assert_int_equal(value_type_parse("", &type), AZOTH_ERR_TYPE);
}

static void a_canonical_encoding_cut_or_lengthened_is_refused(void **state)
{
    (void)state;
    static const unsigned char list[] = {2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0xc3, 0xa9};
    static const uint32_t types[] = {AZOTH_TYPE_I64, AZOTH_TYPE_U256, AZOTH_TYPE_SET,
                                     AZOTH_TYPE_ARRAY};
    static const size_t sizes[] = {8, 32, sizeof list, sizeof list};
    unsigned char enc[40] = {0};
    for (size_t i = 0; i < 4; i++) {
        memcpy(enc, list, sizeof list);
        for (size_t n = 0; n < sizeof enc; n++) {
            struct azoth_value v = exact(types[i], enc, n);
            assert_true((value_check(v) == 0) == (n == sizes[i]));
            release(v);
        }
    }
}

static void random_bytes_are_refused_or_safe_to_walk(void **state)
{
    (void)state;
    seed = seed_of_run() | 1;
    unsigned good = 0;
    for (int i = 0; i < 50000; i++) {
        unsigned char enc[32];
        size_t n = (size_t)(random_next() % (sizeof enc + 1));
        for (size_t k = 0; k < n; k++)
            enc[k] = (unsigned char)(random_next() % 16 ? random_next() % 3 : random_next());
        /* Mostly small counts and lengths, so that some are right; else counts over 2^31. */
        for (size_t k = 0; random_next() % 8 && k + 4 <= n; k += 4)
            memset(enc + k + 1, 0, 3);
        struct azoth_value v = exact((uint32_t)(random_next() % 8), enc, n);
        size_t at = 0, bytes = 4;
        struct azoth_bytes m;
        uint32_t members = 0, count;
        int rc = value_check(v);
        while (value_next(v, &at, &m)) {
            const unsigned char *p = m.ptr, *start = v.enc.ptr;
            assert_true(p >= start);
            assert_true((size_t)(p - start) + m.len <= n);
            bytes += 4 + m.len;
            members++;
        }
        if (rc == 0 && value_count(v, &count) == 0) {
            assert_int_equal(members, count);
            assert_int_equal(bytes, n);
            good += count > 0;
        }
        release(v);
    }
    assert_true(good > 20); /* else only the refusal is tested */
}

static void walking_from_anywhere_stays_within_the_bytes(void **state)
{
    (void)state;
    static const unsigned char enc[] = {1, 0, 0, 0, 1, 0, 0, 0, 'a'};
    struct azoth_value v = exact(AZOTH_TYPE_ARRAY, enc, sizeof enc);
    struct azoth_bytes m = {NULL, 77};
    for (size_t k = 0; k < 16; k++) {
        size_t at = SIZE_MAX - k;
        assert_int_equal(value_next(v, &at, &m), 0);
        at = sizeof enc - 3 + k;
        assert_int_equal(value_next(v, &at, &m), 0);
    }
    assert_int_equal(m.len, 77);
    release(v);
}

static void a_value_of_the_greatest_size_passes_and_one_byte_more_does_not(void **state)
{
    (void)state;
    char *text = malloc(AZOTH_VALUE_MAX + 1);
    assert_non_null(text);
    memset(text, 'x', AZOTH_VALUE_MAX + 1);
    struct buf out = {0};
    for (size_t more = 0; more < 2; more++) {
        int code = more ? AZOTH_ERR_VALUE_SIZE : 0;
        struct azoth_bytes whole = bytes_of(text, AZOTH_VALUE_MAX + more);
        struct azoth_bytes member = bytes_of(text, AZOTH_VALUE_MAX - 8 + more);
        struct azoth_value v, empty;
        assert_int_equal(value_make_bytes(&out, whole, &v), code);
        assert_int_equal(value_make_string(&out, whole, &v), code);
        assert_int_equal(value_make_set(&out, &member, 1, &v), code);
        assert_int_equal(value_make_array(&out, &member, 1, &v), code);
        static const unsigned char none[4];
        empty = (struct azoth_value){AZOTH_TYPE_SET, {none, 4}};
        assert_int_equal(value_set_add(&out, empty, member, &v, NULL), code);
        empty.type = AZOTH_TYPE_ARRAY;
        assert_int_equal(value_array_push(&out, empty, member, &v), code);
        assert_int_equal(out.len, more ? 0 : 6 * (size_t)AZOTH_VALUE_MAX);
        assert_int_equal(value_check((struct azoth_value){AZOTH_TYPE_BYTES, whole}), code);
        buf_clear(&out);
    }
    struct azoth_bytes huge[2] = {bytes_of(text, SIZE_MAX), bytes_of(text, SIZE_MAX - 3)};
    struct azoth_value v;
    assert_int_equal(value_make_array(&out, huge, 2, &v), AZOTH_ERR_VALUE_SIZE);
    free(text);
    buf_fini(&out);
}

static void what_is_not_utf8_is_no_member_and_no_string(void **state)
{
    (void)state;
    static const unsigned char none[4];
    struct azoth_bytes bad[2] = {bytes_str("a"), bytes_str("\xff")};
    struct azoth_value v = {77, {NULL, 78}}, set = {AZOTH_TYPE_SET, {none, 4}},
                       array = {AZOTH_TYPE_ARRAY, {none, 4}};
    struct buf out = {0};
    int changed = 77;
    assert_int_equal(value_make_string(&out, bad[1], &v), AZOTH_ERR_UTF8);
    assert_int_equal(value_make_set(&out, bad, 2, &v), AZOTH_ERR_UTF8);
    assert_int_equal(value_make_array(&out, bad, 2, &v), AZOTH_ERR_UTF8);
    assert_int_equal(value_set_add(&out, set, bad[1], &v, &changed), AZOTH_ERR_UTF8);
    assert_int_equal(value_array_push(&out, array, bad[1], &v), AZOTH_ERR_UTF8);
    assert_int_equal(out.len, 0);
    assert_int_equal(v.type, 77);
    assert_int_equal(changed, 77);
    assert_int_equal(value_make_bytes(&out, bad[1], &v), 0);
    buf_fini(&out);
}

static void a_list_without_its_count_is_refused(void **state)
{
    (void)state;
    for (size_t n = 0; n < 4; n++) {
        struct azoth_value set = exact(AZOTH_TYPE_SET, "\0\0\0", n), v = {77, {NULL, 78}};
        struct azoth_value array = {AZOTH_TYPE_ARRAY, set.enc};
        struct buf out = {0};
        int there = 77;
        assert_int_equal(value_set_add(&out, set, bytes_str("a"), &v, NULL), AZOTH_ERR_ENCODING);
        assert_int_equal(value_set_remove(&out, set, bytes_str("a"), &v, NULL), AZOTH_ERR_ENCODING);
        assert_int_equal(value_array_push(&out, array, bytes_str("a"), &v), AZOTH_ERR_ENCODING);
        assert_int_equal(value_contains(set, bytes_str("a"), &there), 0);
        assert_int_equal(there, 0);
        assert_int_equal(v.type, 77);
        assert_int_equal(out.len, 0);
        buf_fini(&out);
        release(set);
    }
}

static void another_type_is_a_type_error_everywhere(void **state)
{
    (void)state;
    static const unsigned char enc[32];
    static const size_t sizes[] = {0, 8, 32, 4, 4, 3, 3};
    struct buf out = {0};
    for (uint32_t a = 1; a <= 6; a++) {
        struct azoth_value x = {a, {enc, sizes[a]}}, v;
        struct azoth_u256 u;
        int64_t i;
        uint32_t n;
        int c;
        assert_int_equal(value_check(x), 0);
        assert_int_equal(value_i64(x, &i), a == 1 ? 0 : AZOTH_ERR_TYPE);
        assert_int_equal(value_u256(x, &u), a == 2 ? 0 : AZOTH_ERR_TYPE);
        assert_int_equal(value_count(x, &n), a == 3 || a == 4 ? 0 : AZOTH_ERR_TYPE);
        assert_int_equal(value_contains(x, bytes_str("a"), &c), a == 3 ? 0 : AZOTH_ERR_TYPE);
        for (uint32_t b = 1; b <= 6; b++) {
            struct azoth_value y = {b, {enc, sizes[b]}};
            int numbers = a == b && a <= 2;
            assert_int_equal(value_compare(x, y, &c), a == b ? 0 : AZOTH_ERR_TYPE);
            int adds = numbers || (a == 2 && b == 1);
            assert_int_equal(value_add(&out, x, y, &v), adds ? 0 : AZOTH_ERR_TYPE);
            assert_int_equal(value_sub(&out, x, y, &v), numbers ? 0 : AZOTH_ERR_TYPE);
            assert_int_equal(value_mul(&out, x, y, &v), numbers ? 0 : AZOTH_ERR_TYPE);
            assert_int_equal(value_div(&out, x, y, &v),
                             numbers ? AZOTH_ERR_DIVISION : AZOTH_ERR_TYPE);
        }
        struct azoth_bytes m = bytes_str("a");
        assert_int_equal(value_set_add(&out, x, m, &v, NULL), a == 3 ? 0 : AZOTH_ERR_TYPE);
        assert_int_equal(value_set_remove(&out, x, m, &v, NULL), a == 3 ? 0 : AZOTH_ERR_TYPE);
        assert_int_equal(value_array_push(&out, x, m, &v), a == 4 ? 0 : AZOTH_ERR_TYPE);
    }
    buf_fini(&out);
}

static void i64_arithmetic_agrees_with_128_bits_at_every_end(void **state)
{
    (void)state;
    static const int64_t ends[] = {
        INT64_MIN, INT64_MIN + 1, -3037000500, -3037000499,   -2,       -1, 0, 1,
        2,         3037000499,    3037000500,  INT64_MAX - 1, INT64_MAX};
    int (*const op[])(struct buf *, struct azoth_value, struct azoth_value,
                      struct azoth_value *) = {value_add, value_sub, value_mul, value_div};
    size_t n = sizeof ends / sizeof *ends;
    for (size_t i = 0; i < n * n * 4; i++) {
        int64_t a = ends[i / 4 / n], b = ends[i / 4 % n], got;
        struct azoth_value x = {AZOTH_TYPE_I64, {&a, 8}}, y = {AZOTH_TYPE_I64, {&b, 8}},
                           v = {77, {NULL, 78}};
        struct buf out = {0};
        __int128 p = a, q = b, r = 0;
        int want = 0;
        if (i % 4 == 3 && b == 0)
            want = AZOTH_ERR_DIVISION;
        else
            r = i % 4 == 0 ? p + q : i % 4 == 1 ? p - q : i % 4 == 2 ? p * q : p / q;
        if (!want)
            want = r > INT64_MAX ? AZOTH_ERR_OVERFLOW : r < INT64_MIN ? AZOTH_ERR_UNDERFLOW : 0;
        assert_int_equal(op[i % 4](&out, x, y, &v), want);
        if (want) {
            assert_int_equal(v.type, 77);
            assert_int_equal(out.len, 0);
        } else {
            assert_int_equal(value_i64(v, &got), 0);
            assert_true(got == (int64_t)r);
        }
        buf_fini(&out);
    }
}

static void a_u256_takes_an_i64_delta_of_either_sign(void **state)
{
    (void)state;
    struct azoth_u256 top = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}}, got;
    struct azoth_u256 big = u256_of(1ull << 63), zero = u256_of(0), one = u256_of(1);
    const struct {
        struct azoth_u256 from;
        int64_t delta;
        int code;
        struct azoth_u256 want;
    } row[] = {
        {zero, 1, 0, one},
        {one, -1, 0, zero},
        {zero, -1, AZOTH_ERR_UNDERFLOW, zero},
        {top, 1, AZOTH_ERR_OVERFLOW, zero},
        {top, 0, 0, top},
        {big, INT64_MIN, 0, zero},
        {u256_of(INT64_MAX), INT64_MIN, AZOTH_ERR_UNDERFLOW, zero},
        {one, INT64_MAX, 0, big},
    };
    struct buf out = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        unsigned char be[32];
        struct azoth_value v;
        u256_to_be(&row[i].from, be);
        struct azoth_value a = {AZOTH_TYPE_U256, {be, 32}},
                           d = {AZOTH_TYPE_I64, {&row[i].delta, 8}};
        size_t before = out.len;
        assert_int_equal(value_add(&out, a, d, &v), row[i].code);
        if (row[i].code) {
            assert_int_equal(out.len, before);
            continue;
        }
        assert_int_equal(value_u256(v, &got), 0);
        assert_int_equal(u256_cmp(&got, &row[i].want), 0);
    }
    buf_fini(&out);
}

static void values_are_ordered_as_numbers_or_as_bytes(void **state)
{
    (void)state;
    int64_t minus = -1, one = 1;
    unsigned char small[32] = {[31] = 255}, large[32] = {[30] = 1};
    const struct azoth_value pair[][2] = {
        {{AZOTH_TYPE_I64, {&minus, 8}}, {AZOTH_TYPE_I64, {&one, 8}}},
        {{AZOTH_TYPE_U256, {small, 32}}, {AZOTH_TYPE_U256, {large, 32}}},
        {{AZOTH_TYPE_STRING, {"a", 1}}, {AZOTH_TYPE_STRING, {"aa", 2}}},
        {{AZOTH_TYPE_BYTES, {"\x7f", 1}}, {AZOTH_TYPE_BYTES, {"\x80", 1}}},
    };
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
        int c;
        assert_int_equal(value_compare(pair[i][0], pair[i][1], &c), 0);
        assert_int_equal(c, -1);
        assert_int_equal(value_compare(pair[i][1], pair[i][0], &c), 0);
        assert_int_equal(c, 1);
        assert_int_equal(value_compare(pair[i][0], pair[i][0], &c), 0);
        assert_int_equal(c, 0);
    }
}

static void operands_in_the_buffer_that_moves_give_the_right_result(void **state)
{
    (void)state;
    /* Each round appends to a buffer without room, from operands that lie in it. */
    struct azoth_bytes m[3];
    struct azoth_value v, set, array;
    struct buf out = {0};
    int changed;
    assert_int_equal(buf_add(&out, "bacca", 5), 0);
    tighten(&out);
    for (size_t i = 0; i < 3; i++)
        m[i] = bytes_of(out.ptr + i, 1);
    assert_int_equal(value_make_set(&out, m, 3, &set), 0);
    assert_true(bytes_eq(set.enc, bytes_of("\3\0\0\0\1\0\0\0a\1\0\0\0b\1\0\0\0c", 19)));
    tighten(&out);
    for (size_t i = 0; i < 3; i++)
        m[i] = bytes_of(out.ptr + i, 1);
    assert_int_equal(value_make_array(&out, m, 3, &array), 0);
    assert_true(bytes_eq(array.enc, bytes_of("\3\0\0\0\1\0\0\0b\1\0\0\0a\1\0\0\0c", 19)));
    size_t at = out.len - array.enc.len;

    tighten(&out);
    array.enc.ptr = out.ptr + at;
    assert_int_equal(value_array_push(&out, array, bytes_of(out.ptr + 1, 2), &v), 0);
    assert_true(bytes_eq(v.enc, bytes_of("\4\0\0\0\1\0\0\0b\1\0\0\0a\1\0\0\0c\2\0\0\0ac", 25)));

    tighten(&out);
    set.enc.ptr = out.ptr + 5;
    assert_int_equal(value_set_add(&out, set, bytes_of(out.ptr, 2), &v, &changed), 0);
    assert_int_equal(changed, 1);
    assert_true(bytes_eq(v.enc, bytes_of("\4\0\0\0\1\0\0\0a\1\0\0\0b\2\0\0\0ba\1\0\0\0c", 25)));

    tighten(&out); /* a member that is there: the set is copied */
    set.enc.ptr = out.ptr + 5;
    assert_int_equal(value_set_add(&out, set, bytes_of(out.ptr, 1), &v, &changed), 0);
    assert_int_equal(changed, 0);
    assert_true(bytes_eq(v.enc, bytes_of(out.ptr + 5, 19)));

    tighten(&out);
    set.enc.ptr = out.ptr + 5;
    assert_int_equal(value_set_remove(&out, set, bytes_of(out.ptr, 1), &v, &changed), 0);
    assert_int_equal(changed, 1);
    assert_true(bytes_eq(v.enc, bytes_of("\2\0\0\0\1\0\0\0a\1\0\0\0c", 14)));

    tighten(&out);
    assert_int_equal(value_make_string(&out, bytes_of(out.ptr, 5), &v), 0);
    assert_true(bytes_eq(v.enc, bytes_str("bacca")));
    buf_fini(&out);
}

static void no_memory_is_told_and_changes_nothing(void **state)
{
    (void)state;
    /* A buffer that says it holds nearly all there is: growing it is refused before it is tried. */
    static unsigned char byte[1];
    static const unsigned char enc[4];
    struct buf full = {byte, SIZE_MAX / 4, SIZE_MAX / 4};
    struct azoth_value v = {77, {NULL, 78}}, set = {AZOTH_TYPE_SET, {enc, 4}},
                       array = {AZOTH_TYPE_ARRAY, {enc, 4}};
    struct azoth_bytes m = bytes_str("a");
    struct azoth_u256 u = u256_of(1);
    int64_t i = 1;
    int changed = 77;
    struct azoth_value one = {AZOTH_TYPE_I64, {&i, 8}};
    assert_int_equal(value_make_i64(&full, 1, &v), AZOTH_ERR_NOMEM);
    assert_int_equal(value_make_u256(&full, &u, &v), AZOTH_ERR_NOMEM);
    assert_int_equal(value_make_set(&full, &m, 1, &v), AZOTH_ERR_NOMEM);
    assert_int_equal(value_make_array(&full, &m, 1, &v), AZOTH_ERR_NOMEM);
    assert_int_equal(value_make_bytes(&full, m, &v), AZOTH_ERR_NOMEM);
    assert_int_equal(value_make_string(&full, m, &v), AZOTH_ERR_NOMEM);
    assert_int_equal(value_add(&full, one, one, &v), AZOTH_ERR_NOMEM);
    assert_int_equal(value_set_add(&full, set, m, &v, &changed), AZOTH_ERR_NOMEM);
    assert_int_equal(value_set_remove(&full, set, m, &v, &changed), AZOTH_ERR_NOMEM);
    assert_int_equal(value_array_push(&full, array, m, &v), AZOTH_ERR_NOMEM);
    assert_int_equal(full.len, SIZE_MAX / 4);
    assert_int_equal(v.type, 77);
    assert_int_equal(changed, 77);
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
        cmocka_unit_test(type_names_come_back_and_others_are_no_type),
        cmocka_unit_test(a_canonical_encoding_cut_or_lengthened_is_refused),
        cmocka_unit_test(random_bytes_are_refused_or_safe_to_walk),
        cmocka_unit_test(walking_from_anywhere_stays_within_the_bytes),
        cmocka_unit_test(a_value_of_the_greatest_size_passes_and_one_byte_more_does_not),
        cmocka_unit_test(what_is_not_utf8_is_no_member_and_no_string),
        cmocka_unit_test(a_list_without_its_count_is_refused),
        cmocka_unit_test(another_type_is_a_type_error_everywhere),
        cmocka_unit_test(i64_arithmetic_agrees_with_128_bits_at_every_end),
        cmocka_unit_test(a_u256_takes_an_i64_delta_of_either_sign),
        cmocka_unit_test(values_are_ordered_as_numbers_or_as_bytes),
        cmocka_unit_test(operands_in_the_buffer_that_moves_give_the_right_result),
        cmocka_unit_test(no_memory_is_told_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
