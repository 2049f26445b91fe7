/* test_u256.c - the ends of the range, text, bytes and aliased outputs; and random operands against
 * gmp's unbounded integers, which share no code of ours. */
#include "core/u256.h"
#include "core/buf.h"
#include "tests/unit/seed.h"

#include <gmp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_TEXT  "115792089237316195423570985008687907853269984665640564039457584007913129639935"
#define OVER_TEXT "115792089237316195423570985008687907853269984665640564039457584007913129639936"

static const struct azoth_u256 greatest = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};
static const struct azoth_u256 mark = {{11, 22, 33, 44}};

static int is(const struct azoth_u256 *a, uint64_t l3, uint64_t l2, uint64_t l1, uint64_t l0)
{
    return a->limb[3] == l3 && a->limb[2] == l2 && a->limb[1] == l1 && a->limb[0] == l0;
}

static int untouched(const struct azoth_u256 *a)
{
    return memcmp(a, &mark, sizeof mark) == 0;
}

/* ---- the ends ---- */

static void adding_one_to_the_greatest_u256_is_overflow(void **state)
{
    (void)state;
    struct azoth_u256 one = u256_of(1), zero = u256_of(0), r = mark;
    assert_int_equal(u256_add(&greatest, &one, &r), AZOTH_ERR_OVERFLOW);
    assert_true(untouched(&r));
    assert_int_equal(u256_add(&greatest, &zero, &r), 0);
    assert_int_equal(u256_cmp(&r, &greatest), 0);
}

static void a_carry_runs_through_all_limbs(void **state)
{
    (void)state;
    struct azoth_u256 a = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, 6}}, one = u256_of(1), r;
    assert_int_equal(u256_add(&a, &one, &r), 0);
    assert_true(is(&r, 7, 0, 0, 0));
    assert_int_equal(u256_sub(&r, &one, &r), 0);
    assert_int_equal(u256_cmp(&r, &a), 0);
}

static void less_than_zero_is_underflow(void **state)
{
    (void)state;
    struct azoth_u256 one = u256_of(1), zero = u256_of(0), r = mark;
    assert_int_equal(u256_sub(&zero, &one, &r), AZOTH_ERR_UNDERFLOW);
    assert_int_equal(u256_sub(&one, &greatest, &r), AZOTH_ERR_UNDERFLOW);
    assert_true(untouched(&r));
    assert_int_equal(u256_sub(&greatest, &greatest, &r), 0);
    assert_true(is(&r, 0, 0, 0, 0));
}

static void the_first_product_too_great_is_overflow(void **state)
{
    (void)state;
    struct azoth_u256 half = {{0, 0, 1, 0}}, most = {{UINT64_MAX, UINT64_MAX, 0, 0}}, r = mark;
    assert_int_equal(u256_mul(&half, &half, &r), AZOTH_ERR_OVERFLOW); /* 2^256 */
    assert_int_equal(u256_mul(&greatest, &greatest, &r), AZOTH_ERR_OVERFLOW);
    assert_true(untouched(&r));
    assert_int_equal(u256_mul(&most, &half, &r), 0); /* 2^256 - 2^128 */
    assert_true(is(&r, UINT64_MAX, UINT64_MAX, 0, 0));
}

static void dividing_by_zero_is_refused(void **state)
{
    (void)state;
    struct azoth_u256 zero = u256_of(0), q = mark, r = mark;
    assert_int_equal(u256_div(&greatest, &zero, &q, &r), AZOTH_ERR_DIVISION);
    assert_int_equal(u256_div(&zero, &zero, &q, &r), AZOTH_ERR_DIVISION);
    assert_true(untouched(&q));
    assert_true(untouched(&r));
}

static void either_output_of_a_division_may_be_left_out(void **state)
{
    (void)state;
    struct azoth_u256 a = u256_of(17), b = u256_of(5), q, r;
    assert_int_equal(u256_div(&a, &b, &q, NULL), 0);
    assert_true(is(&q, 0, 0, 0, 3));
    assert_int_equal(u256_div(&a, &b, NULL, &r), 0);
    assert_true(is(&r, 0, 0, 0, 2));
    assert_int_equal(u256_div(&a, &b, NULL, NULL), 0);
    assert_int_equal(u256_div(&b, &greatest, &q, &r), 0);
    assert_true(is(&q, 0, 0, 0, 0));
    assert_true(is(&r, 0, 0, 0, 5));
}

static void a_result_may_replace_either_operand(void **state)
{
    (void)state;
    struct azoth_u256 a = {{7, 8, 9, 10}}, b = {{1, 2, 3, 4}}, want, x;
    int (*const op[])(const struct azoth_u256 *, const struct azoth_u256 *,
                      struct azoth_u256 *) = {u256_add, u256_sub};
    for (size_t i = 0; i < sizeof op / sizeof *op; i++) {
        assert_int_equal(op[i](&a, &b, &want), 0);
        x = a;
        assert_int_equal(op[i](&x, &b, &x), 0);
        assert_int_equal(u256_cmp(&x, &want), 0);
        x = b;
        assert_int_equal(op[i](&a, &x, &x), 0);
        assert_int_equal(u256_cmp(&x, &want), 0);
    }
    x = u256_of(1u << 20);
    assert_int_equal(u256_mul(&x, &x, &x), 0);
    assert_true(is(&x, 0, 0, 0, 1ull << 40));
    x = a;
    struct azoth_u256 y = b, q, r;
    assert_int_equal(u256_div(&a, &b, &q, &r), 0);
    assert_int_equal(u256_div(&x, &y, &x, &y), 0);
    assert_int_equal(u256_cmp(&x, &q), 0);
    assert_int_equal(u256_cmp(&y, &r), 0);
}

static void comparing_looks_at_the_highest_limb_first(void **state)
{
    (void)state;
    struct azoth_u256 high = {{0, 0, 0, 1}}, low = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, 0}};
    assert_int_equal(u256_cmp(&high, &low), 1);
    assert_int_equal(u256_cmp(&low, &high), -1);
    assert_int_equal(u256_cmp(&low, &low), 0);
}

/* ---- text and bytes ---- */

static void the_greatest_u256_has_78_digits_and_comes_back(void **state)
{
    (void)state;
    char text[U256_TEXT_MAX];
    struct azoth_u256 n, zero = u256_of(0);
    assert_int_equal(u256_text(&greatest, text), U256_TEXT_MAX - 1);
    assert_string_equal(text, MAX_TEXT);
    assert_int_equal(u256_parse(bytes_str(text), &n), 0);
    assert_int_equal(u256_cmp(&n, &greatest), 0);
    assert_int_equal(u256_text(&zero, text), 1);
    assert_string_equal(text, "0");
    assert_int_equal(u256_parse(bytes_str("000"), &n), 0);
    assert_true(is(&n, 0, 0, 0, 0));
}

static void every_power_of_ten_has_its_text(void **state)
{
    (void)state;
    struct azoth_u256 n = u256_of(1), ten = u256_of(10);
    char text[U256_TEXT_MAX], want[U256_TEXT_MAX] = "1";
    for (size_t digits = 1; digits <= 78; digits++) {
        assert_int_equal(u256_text(&n, text), digits);
        assert_string_equal(text, want);
        int rc = u256_mul(&n, &ten, &n);
        assert_int_equal(rc, digits < 78 ? 0 : AZOTH_ERR_OVERFLOW);
        if (!rc)
            strcat(want, "0");
    }
}

static void text_over_the_greatest_is_overflow(void **state)
{
    (void)state;
    struct azoth_u256 n = mark;
    assert_int_equal(u256_parse(bytes_str(OVER_TEXT), &n), AZOTH_ERR_OVERFLOW);
    assert_int_equal(u256_parse(bytes_str(MAX_TEXT "0"), &n), AZOTH_ERR_OVERFLOW);
    char nines[5000];
    memset(nines, '9', sizeof nines);
    for (size_t len = 78; len <= sizeof nines; len += 7)
        assert_int_equal(u256_parse(bytes_of(nines, len), &n), AZOTH_ERR_OVERFLOW);
    assert_true(untouched(&n));
}

static void anything_but_digits_is_no_u256(void **state)
{
    (void)state;
    struct azoth_u256 n = mark;
    for (int c = 0; c < 256; c++)
        for (size_t at = 0; at < 3; at++) {
            char text[3] = {'1', '2', '3'};
            if (c >= '0' && c <= '9')
                continue;
            text[at] = (char)c;
            assert_int_equal(u256_parse(bytes_of(text, 3), &n), AZOTH_ERR_ENCODING);
        }
    assert_int_equal(u256_parse(bytes_of(NULL, 0), &n), AZOTH_ERR_ENCODING);
    /* What is wrong in its form is not called too great. */
    assert_int_equal(u256_parse(bytes_str(OVER_TEXT "x"), &n), AZOTH_ERR_ENCODING);
    assert_true(untouched(&n));
}

static void bytes_are_big_endian(void **state)
{
    (void)state;
    struct azoth_u256 n, back;
    unsigned char be[32];
    for (unsigned i = 0; i < 32; i++)
        be[i] = (unsigned char)(i + 1);
    u256_from_be(be, &n);
    assert_true(
        is(&n, 0x0102030405060708, 0x090a0b0c0d0e0f10, 0x1112131415161718, 0x191a1b1c1d1e1f20));
    unsigned char again[32];
    u256_to_be(&n, again);
    assert_memory_equal(be, again, 32);
    u256_to_be(&greatest, again);
    u256_from_be(again, &back);
    assert_int_equal(u256_cmp(&back, &greatest), 0);
}

/* ---- random operands ---- */

static uint64_t seed;

static uint64_t random_next(void)
{
    seed += 0x9e3779b97f4a7c15; /* splitmix64: any seed will do, 0 too */
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static struct azoth_u256 random_u256(void)
{
    struct azoth_u256 n = {{0}};
    unsigned limbs = (unsigned)(random_next() % 5);
    /* Limbs of zeros, of ones and next to them: that is where carries and quotients go wrong. */
    for (unsigned i = 0; i < limbs; i++)
        switch (random_next() % 5) {
        case 0:
            n.limb[i] = UINT64_MAX;
            break;
        case 1:
            n.limb[i] = random_next() % 2;
            break;
        case 2:
            n.limb[i] = 1ull << 63;
            break;
        default:
            n.limb[i] = random_next();
        }
    return n;
}

static void to_mpz(mpz_t out, const struct azoth_u256 *n)
{
    mpz_import(out, 4, -1, 8, 0, 0, n->limb);
}

/* rc and got are what the exact result says: in range and equal, or refused and untouched. */
static void agrees(int rc, const struct azoth_u256 *got, const mpz_t exact, mpz_t scratch)
{
    int want = mpz_sgn(exact) < 0               ? AZOTH_ERR_UNDERFLOW
               : mpz_sizeinbase(exact, 2) > 256 ? AZOTH_ERR_OVERFLOW
                                                : 0;
    assert_int_equal(rc, want);
    to_mpz(scratch, got);
    if (rc)
        assert_true(untouched(got));
    else
        assert_int_equal(mpz_cmp(scratch, exact), 0);
}

static void random_arithmetic_agrees_with_unbounded_integers(void **state)
{
    (void)state;
    seed = seed_of_run();
    mpz_t x, y, r, s, t;
    mpz_inits(x, y, r, s, t, NULL);
    unsigned seen[6] = {0}; /* sums, differences, products: fitting and not */
    for (int i = 0; i < 20000; i++) {
        struct azoth_u256 a = random_u256(), b = random_u256(), got = mark, rem = mark;
        to_mpz(x, &a);
        to_mpz(y, &b);
        int rc = u256_add(&a, &b, &got);
        mpz_add(r, x, y);
        agrees(rc, &got, r, s);
        seen[rc ? 1 : 0]++;
        got = mark;
        rc = u256_sub(&a, &b, &got);
        mpz_sub(r, x, y);
        agrees(rc, &got, r, s);
        seen[rc ? 3 : 2]++;
        got = mark;
        rc = u256_mul(&a, &b, &got);
        mpz_mul(r, x, y);
        agrees(rc, &got, r, s);
        seen[rc ? 5 : 4]++;
        got = mark;
        rc = u256_div(&a, &b, &got, &rem);
        if (mpz_sgn(y) == 0) {
            assert_int_equal(rc, AZOTH_ERR_DIVISION);
        } else {
            mpz_tdiv_qr(r, t, x, y);
            agrees(rc, &got, r, s);
            agrees(rc, &rem, t, s);
        }
        assert_int_equal(u256_cmp(&a, &b), (mpz_cmp(x, y) > 0) - (mpz_cmp(x, y) < 0));
        char text[U256_TEXT_MAX], want[U256_TEXT_MAX + 2];
        mpz_get_str(want, 10, x);
        assert_int_equal(u256_text(&a, text), strlen(want));
        assert_string_equal(text, want);
        assert_int_equal(u256_parse(bytes_str(text), &got), 0);
        assert_int_equal(u256_cmp(&got, &a), 0);
    }
    for (size_t i = 0; i < 6; i++)
        assert_true(seen[i] > 500); /* else the operands no longer reach both sides */
    mpz_clears(x, y, r, s, t, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adding_one_to_the_greatest_u256_is_overflow),
        cmocka_unit_test(a_carry_runs_through_all_limbs),
        cmocka_unit_test(less_than_zero_is_underflow),
        cmocka_unit_test(the_first_product_too_great_is_overflow),
        cmocka_unit_test(dividing_by_zero_is_refused),
        cmocka_unit_test(either_output_of_a_division_may_be_left_out),
        cmocka_unit_test(a_result_may_replace_either_operand),
        cmocka_unit_test(comparing_looks_at_the_highest_limb_first),
        cmocka_unit_test(the_greatest_u256_has_78_digits_and_comes_back),
        cmocka_unit_test(every_power_of_ten_has_its_text),
        cmocka_unit_test(text_over_the_greatest_is_overflow),
        cmocka_unit_test(anything_but_digits_is_no_u256),
        cmocka_unit_test(bytes_are_big_endian),
        cmocka_unit_test(random_arithmetic_agrees_with_unbounded_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
