/*
 * test_hash.c - BLAKE2b-256: known answers, and that it is libsodium's, however the bytes come.
 *
 * The known answers are those of Python's hashlib, which has the RFC's authors' own code. AZOTH_TEST_SEED=N repeats a
 * run.
 */
#include "core/hash.h"
#include "tests/unit/seed.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static unsigned char text[100000];

static void expect(const void *p, size_t n, const char *hex)
{
    unsigned char sum[HASH_BYTES];
    char said[2 * HASH_BYTES + 1];
    hash_once(sum, p, n);
    for (size_t i = 0; i < sizeof sum; i++)
        snprintf(said + 2 * i, 3, "%02x", sum[i]);
    assert_string_equal(said, hex);
}

static void its_values_are_those_of_another_implementation(void **state)
{
    (void)state;
    expect(NULL, 0, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    expect("abc", 3, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    memset(text, 'a', 129);
    expect(text, 129, "2f64744a6de0d2c0b56e64cf6e29a5aaa255010d415d51c75ccc82f73dccd865");
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (unsigned char)(i % 251);
    expect(text, sizeof text, "916cfaa800ee55811e82095babeb88ea29c9ef8a36e8d7e20c7b772c344c9e1c");
}

static void expect_libsodiums(const struct hash *so_far, size_t n)
{
    unsigned char want[HASH_BYTES], got[HASH_BYTES];
    struct hash h = *so_far;
    assert_int_equal(crypto_generichash(want, sizeof want, text, n, NULL, 0), 0);
    hash_end(&h, got);
    assert_memory_equal(got, want, sizeof want);
}

static void every_length_in_pieces_is_libsodiums(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 2000; n++) {
        struct hash h;
        hash_begin(&h);
        for (size_t at = 0; at < n;) {
            /* Short ones are gathered, long ones are not: some of each. */
            size_t piece = (size_t)random() % (random() % 2 ? 40 : 900);
            if (piece > n - at)
                piece = n - at;
            hash_add(&h, text + at, piece);
            at += piece;
        }
        expect_libsodiums(&h, n);
    }
}

static void pieces_as_long_as_what_is_gathered_are_libsodiums(void **state)
{
    (void)state;
    static const size_t edge[] = {0, 1, 127, 128, 129, 511, 512, 513, 1024};
    const size_t edges = sizeof edge / sizeof *edge;
    for (size_t i = 0; i < edges * edges * edges; i++) {
        const size_t piece[] = {edge[i % edges], edge[i / edges % edges], edge[i / edges / edges]};
        size_t n = 0;
        struct hash h;
        hash_begin(&h);
        for (size_t k = 0; k < 3; k++) {
            hash_add(&h, piece[k] ? text + n : NULL, piece[k]);
            n += piece[k];
            expect_libsodiums(&h, n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_values_are_those_of_another_implementation),
        cmocka_unit_test(every_length_in_pieces_is_libsodiums),
        cmocka_unit_test(pieces_as_long_as_what_is_gathered_are_libsodiums),
    };
    unsigned seed = (unsigned)seed_of_run();
    srandom(seed);
    if (sodium_init() < 0)
        return 1;
    randombytes_buf_deterministic(text, sizeof text,
                                  (const unsigned char[32]){(unsigned char)seed});
    return cmocka_run_group_tests(tests, NULL, NULL);
}
