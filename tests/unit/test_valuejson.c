/* test_valuejson.c - the JSON form of values and base64: each error by its name, what lies in the
 * buffer that is written to, and that a failure leaves the buffer as it was. */
#include "core/valuejson.h"
#include "core/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEXT(out) assert_int_equal(buf_add((out), "", 1), 0) /* a NUL, to compare as a string */

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_non_null(j);
    return j;
}

/* A buffer whose capacity is used up, so that the next byte moves it. */
static void fill(struct buf *b, size_t n, char c)
{
    unsigned char *p = buf_grow(b, n);
    assert_non_null(p);
    memset(p, c, n);
    p = realloc(b->ptr, b->len);
    assert_non_null(p);
    b->ptr = p;
    b->cap = b->len;
}

/* ---- values from JSON ---- */

static void each_form_gives_its_encoding(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        uint32_t type;
        size_t len;
        const char *enc;
    } row[] = {
        {"-2", AZOTH_TYPE_I64, 8, "\xfe\xff\xff\xff\xff\xff\xff\xff"},
        {"{\"i64\":258}", AZOTH_TYPE_I64, 8, "\2\1\0\0\0\0\0\0"},
        {"9223372036854775807", AZOTH_TYPE_I64, 8, "\xff\xff\xff\xff\xff\xff\xff\x7f"},
        {"\"a\\u0000b\"", AZOTH_TYPE_STRING, 3, "a\0b"},
        {"{\"string\":\"\"}", AZOTH_TYPE_STRING, 0, ""},
        {"[\"b\",\"a\\u0000\",\"b\"]", AZOTH_TYPE_ARRAY, 20,
         "\3\0\0\0\1\0\0\0b\2\0\0\0a\0\1\0\0\0b"},
        {"{\"array\":[]}", AZOTH_TYPE_ARRAY, 4, "\0\0\0\0"},
        {"{\"set\":[\"b\",\"a\",\"b\"]}", AZOTH_TYPE_SET, 14, "\2\0\0\0\1\0\0\0a\1\0\0\0b"},
        {"{\"bytes\":\"AP8=\"}", AZOTH_TYPE_BYTES, 2, "\0\xff"},
        {"{\"bytes\":\"\"}", AZOTH_TYPE_BYTES, 0, ""},
        {"{\"u256\":\"0258\"}", AZOTH_TYPE_U256, 32,
         "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\2"},
        {"{\"u256\":258}", AZOTH_TYPE_U256, 32,
         "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\2"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct buf out = {0};
        struct azoth_value v;
        json_t *j = parse(row[i].json);
        assert_int_equal(value_from_json(&out, j, &v, NULL), 0);
        assert_int_equal(v.type, row[i].type);
        assert_true(bytes_eq(v.enc, bytes_of(row[i].enc, row[i].len)));
        assert_int_equal(out.len, row[i].len);
        assert_int_equal(value_check(v), 0);
        json_decref(j);
        buf_fini(&out);
    }
}

static void json_that_is_no_value_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int code;
    } row[] = {
        {"1.5", AZOTH_ERR_BAD_JSON},
        {"1.0", AZOTH_ERR_BAD_JSON},
        {"null", AZOTH_ERR_BAD_JSON},
        {"true", AZOTH_ERR_BAD_JSON},
        {"{}", AZOTH_ERR_BAD_JSON},
        {"{\"set\":[],\"i64\":1}", AZOTH_ERR_BAD_JSON},
        {"[1]", AZOTH_ERR_BAD_JSON},
        {"[\"a\",[\"b\"]]", AZOTH_ERR_BAD_JSON},
        {"{\"set\":[\"a\",null]}", AZOTH_ERR_BAD_JSON},
        {"{\"nope\":1}", AZOTH_ERR_TYPE},
        {"{\"i64\":1.5}", AZOTH_ERR_TYPE},
        {"{\"i64\":\"1\"}", AZOTH_ERR_TYPE},
        {"{\"string\":1}", AZOTH_ERR_TYPE},
        {"{\"set\":\"a\"}", AZOTH_ERR_TYPE},
        {"{\"array\":{\"array\":[]}}", AZOTH_ERR_TYPE},
        {"{\"u256\":\"-1\"}", AZOTH_ERR_BAD_JSON},
        {"{\"u256\":\"\"}", AZOTH_ERR_BAD_JSON},
        {"{\"u256\":\"1\\u0000\"}", AZOTH_ERR_BAD_JSON},
        {"{\"u256\":-1}", AZOTH_ERR_BAD_JSON},
        {"{\"u256\":1.5}", AZOTH_ERR_BAD_JSON},
        {"{\"u256\":\"1157920892373161954235709850086879078532699846656405640394575840079131296"
         "39936\"}",
         AZOTH_ERR_OVERFLOW},
        {"{\"bytes\":1}", AZOTH_ERR_BAD_JSON},
        {"{\"bytes\":\"A\"}", AZOTH_ERR_BAD_JSON},
        {"{\"bytes\":\"AB==\"}", AZOTH_ERR_BAD_JSON},
    };
    for (size_t i = 0; i <= sizeof row / sizeof *row; i++) {
        int none = i == sizeof row / sizeof *row; /* last: no JSON at all */
        int code = none ? AZOTH_ERR_BAD_JSON : row[i].code;
        struct buf out = {0};
        struct azoth_value v = {77, {NULL, 78}};
        struct azoth_error err = {0};
        json_t *j = none ? NULL : parse(row[i].json);
        assert_int_equal(buf_add(&out, "before", 6), 0);
        assert_int_equal(value_from_json(&out, j, &v, &err), code);
        assert_int_equal(err.code, code);
        assert_true(err.message[0]);
        assert_int_equal(out.len, 6);
        assert_int_equal(v.type, 77);
        assert_int_equal(v.enc.len, 78);
        assert_int_equal(value_from_json(&out, j, &v, NULL), code);
        json_decref(j);
        buf_fini(&out);
    }
}

static void a_string_that_is_not_utf8_is_refused(void **state)
{
    (void)state;
    struct buf out = {0};
    struct azoth_value v;
    json_t *j = json_stringn_nocheck("a\xff", 2), *list = json_array();
    assert_int_equal(value_from_json(&out, j, &v, NULL), AZOTH_ERR_UTF8);
    json_array_append_new(list, j);
    assert_int_equal(value_from_json(&out, list, &v, NULL), AZOTH_ERR_UTF8);
    assert_int_equal(out.len, 0);
    json_decref(list);
    buf_fini(&out);
}

static void a_value_of_the_greatest_size_passes_and_one_byte_more_does_not(void **state)
{
    (void)state;
    for (int more = 0; more < 2; more++) {
        size_t n = AZOTH_VALUE_MAX + (size_t)more;
        int code = more ? AZOTH_ERR_VALUE_SIZE : 0;
        char *text = malloc(n);
        assert_non_null(text);
        memset(text, 'x', n);
        struct buf out = {0}, b64 = {0};
        struct azoth_value v;
        json_t *j = json_stringn(text, n);
        assert_int_equal(value_from_json(&out, j, &v, NULL), code);
        json_decref(j);
        assert_int_equal(out.len, more ? 0 : n);
        buf_clear(&out);
        assert_int_equal(base64_encode(&b64, bytes_of(text, n)), 0);
        j = json_object();
        json_object_set_new(j, "bytes", json_stringn((char *)b64.ptr, b64.len));
        assert_int_equal(value_from_json(&out, j, &v, NULL), code);
        assert_int_equal(out.len, more ? 0 : n);
        json_decref(j);
        buf_clear(&out);
        j = json_array(); /* the count and the length take eight bytes */
        json_array_append_new(j, json_stringn(text, n - 8));
        assert_int_equal(value_from_json(&out, j, &v, NULL), code);
        assert_int_equal(out.len, more ? 0 : n);
        json_decref(j);
        free(text);
        buf_fini(&out);
        buf_fini(&b64);
    }
}

/* ---- JSON from values ---- */

static void each_value_has_one_form(void **state)
{
    (void)state;
    static const char *const forms[] = {"0",
                                        "-9223372036854775808",
                                        "9223372036854775807",
                                        "\"\"",
                                        "\"\\\"\\\\\\u0000\\u001f\x7f/\xc3\xa9\xf0\x9f\x98\x80\"",
                                        "[]",
                                        "[\"b\",\"\",\"a\\u0000\"]",
                                        "{\"set\":[]}",
                                        "{\"set\":[\"\",\"a\",\"ab\",\"b\"]}",
                                        "{\"u256\":\"0\"}",
                                        "{\"u256\":\"18446744073709551616\"}",
                                        "{\"bytes\":\"\"}",
                                        "{\"bytes\":\"AAECAw==\"}"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct buf enc = {0}, out = {0};
        struct azoth_value v;
        json_t *j = parse(forms[i]);
        assert_int_equal(value_from_json(&enc, j, &v, NULL), 0);
        assert_int_equal(value_to_json(&out, v), 0);
        TEXT(&out);
        assert_string_equal((char *)out.ptr, forms[i]);
        json_decref(j);
        buf_fini(&enc);
        buf_fini(&out);
    }
}

static void damaged_values_are_not_shown_and_leave_nothing_behind(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        size_t len;
        const char *enc;
    } row[] = {
        {AZOTH_TYPE_I64, 7, "\0\0\0\0\0\0\0"},
        {AZOTH_TYPE_U256, 31, "0123456789012345678901234567890"},
        {AZOTH_TYPE_STRING, 2, "a\xff"},
        {AZOTH_TYPE_SET, 9, "\2\0\0\0\1\0\0\0a"},           /* a member is missing */
        {AZOTH_TYPE_ARRAY, 9, "\0\0\0\0\1\0\0\0a"},         /* one that is not counted */
        {AZOTH_TYPE_ARRAY, 9, "\1\0\0\0\1\0\0\0\xff"},      /* not UTF-8 */
        {AZOTH_TYPE_SET, 14, "\2\0\0\0\1\0\0\0b\1\0\0\0a"}, /* not sorted */
        {AZOTH_TYPE_ARRAY, 9, "\1\0\0\0\xff\xff\xff\xff\x01"},
        {AZOTH_TYPE_SET, 3, "\0\0\0"},
        {0, 0, ""},
        {7, 0, ""},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct buf out = {0};
        unsigned char *enc = malloc(row[i].len + !row[i].len);
        assert_non_null(enc);
        memcpy(enc, row[i].enc, row[i].len);
        assert_int_equal(buf_add(&out, "before", 6), 0);
        struct azoth_value v = {row[i].type, {enc, row[i].len}};
        assert_int_equal(value_to_json(&out, v), AZOTH_ERR_ENCODING);
        assert_int_equal(out.len, 6);
        free(enc);
        buf_fini(&out);
    }
}

static void a_string_of_broken_utf8_is_refused_or_mended(void **state)
{
    (void)state;
    static const struct {
        const char *in, *lossy;
    } row[] = {
        {"a\xff", "\"a\xef\xbf\xbd\""},
        {"\x80z", "\"\xef\xbf\xbdz\""},
        {"\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xf0\x9f\x98\"", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\\\"\""},
        {"\xc3\xa9\xc3", "\"\xc3\xa9\xef\xbf\xbd\""},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct buf out = {0};
        assert_int_equal(buf_add(&out, "before", 6), 0);
        assert_int_equal(json_add_string(&out, bytes_str(row[i].in), 0), AZOTH_ERR_UTF8);
        assert_int_equal(out.len, 6);
        assert_int_equal(json_add_string(&out, bytes_str(row[i].in), 1), 0);
        assert_true(bytes_eq(bytes_of(out.ptr + 6, out.len - 6), bytes_str(row[i].lossy)));
        buf_fini(&out);
    }
}

/* ---- base64 ---- */

static void the_vectors_of_rfc_4648_hold_both_ways(void **state)
{
    (void)state;
    static const char *const row[][2] = {{"", ""},
                                         {"f", "Zg=="},
                                         {"fo", "Zm8="},
                                         {"foo", "Zm9v"},
                                         {"foob", "Zm9vYg=="},
                                         {"fooba", "Zm9vYmE="},
                                         {"foobar", "Zm9vYmFy"},
                                         {"\xfb\xff\xbf", "+/+/"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct buf out = {0}, back = {0};
        assert_int_equal(base64_encode(&out, bytes_str(row[i][0])), 0);
        assert_true(bytes_eq(buf_bytes(&out), bytes_str(row[i][1])));
        assert_int_equal(base64_decode(&back, buf_bytes(&out)), 0);
        assert_true(bytes_eq(buf_bytes(&back), bytes_str(row[i][0])));
        buf_fini(&out);
        buf_fini(&back);
    }
}

static void base64_of_every_byte_and_length_comes_back(void **state)
{
    (void)state;
    unsigned char all[256];
    for (unsigned i = 0; i < 256; i++)
        all[i] = (unsigned char)(i * 167 + 13);
    for (size_t n = 0; n <= 256; n++) {
        struct buf out = {0}, back = {0};
        assert_int_equal(base64_encode(&out, bytes_of(all, n)), 0);
        assert_int_equal(out.len, (n + 2) / 3 * 4);
        assert_int_equal(base64_decode(&back, buf_bytes(&out)), 0);
        assert_true(bytes_eq(buf_bytes(&back), bytes_of(all, n)));
        buf_fini(&out);
        buf_fini(&back);
    }
}

static void base64_has_one_spelling(void **state)
{
    (void)state;
    static const char *const wrong[] = {"A",    "AA",   "AAA",      "A===",  "====",     "=AAA",
                                        "AA=A", "AB==", "AAB=",     "AA\n=", "AA==AAAA", "AAA=AAAA",
                                        "A-A_", "AA A", "AAAAA===", "Zg",    "Zg==\n",   "*AAA"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct buf out = {0};
        assert_int_equal(buf_add(&out, "before", 6), 0);
        assert_int_equal(base64_decode(&out, bytes_str(wrong[i])), AZOTH_ERR_ENCODING);
        assert_int_equal(out.len, 6);
        /* The same behind a good group, whose bytes are taken back. */
        char text[32];
        snprintf(text, sizeof text, "Zm9v%s", wrong[i]);
        assert_int_equal(base64_decode(&out, bytes_str(text)), AZOTH_ERR_ENCODING);
        assert_int_equal(out.len, 6);
        buf_fini(&out);
    }
    struct buf out = {0};
    assert_int_equal(base64_decode(&out, bytes_of("AA\0A", 4)), AZOTH_ERR_ENCODING);
    buf_fini(&out);
}

static void every_letter_of_base64_has_its_number(void **state)
{
    (void)state;
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int c = 0; c < 256; c++) {
        char text[4] = {'A', 'A', 'A', (char)c};
        const char *at = c ? strchr(letters, c) : NULL;
        struct buf out = {0};
        int rc = base64_decode(&out, bytes_of(text, 4));
        if (at) {
            assert_int_equal(rc, 0);
            assert_int_equal(out.len, 3);
            assert_int_equal(out.ptr[2], at - letters);
        } else if (c == '=') {
            assert_int_equal(rc, 0);
            assert_int_equal(out.len, 2);
        } else {
            assert_int_equal(rc, AZOTH_ERR_ENCODING);
        }
        buf_fini(&out);
    }
}

/* ---- operands in the buffer that grows ---- */

static void text_of_bytes_in_the_same_buffer_is_right_when_it_moves(void **state)
{
    (void)state;
    struct buf out = {0};
    fill(&out, 3000, '\1');
    assert_int_equal(json_add_string(&out, bytes_of(out.ptr, 3000), 0), 0);
    assert_int_equal(out.len, 3000 + 2 + 6 * 3000);
    assert_memory_equal(out.ptr + 3000, "\"\\u0001\\u0001", 13);
    buf_fini(&out);

    fill(&out, 3000, '\0');
    assert_int_equal(base64_encode(&out, bytes_of(out.ptr, 3000)), 0);
    assert_int_equal(out.len, 7000);
    for (size_t i = 3000; i < 7000; i++)
        assert_int_equal(out.ptr[i], 'A');
    buf_fini(&out);

    fill(&out, 3000, 'A');
    assert_int_equal(base64_decode(&out, bytes_of(out.ptr, 3000)), 0);
    assert_int_equal(out.len, 3000 + 2250);
    for (size_t i = 3000; i < out.len; i++)
        assert_int_equal(out.ptr[i], 0);
    buf_fini(&out);
}

static void a_value_in_the_same_buffer_is_shown_right_when_it_moves(void **state)
{
    (void)state;
    struct azoth_bytes members[200];
    char text[200][8];
    for (int i = 0; i < 200; i++) {
        snprintf(text[i], sizeof text[i], "\x01%03d", i);
        members[i] = bytes_str(text[i]);
    }
    static const uint32_t types[] = {AZOTH_TYPE_SET, AZOTH_TYPE_ARRAY, AZOTH_TYPE_BYTES,
                                     AZOTH_TYPE_STRING};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct buf made = {0}, out = {0}, want = {0};
        struct azoth_value v;
        int rc = types[i] == AZOTH_TYPE_SET     ? value_make_set(&made, members, 200, &v)
                 : types[i] == AZOTH_TYPE_ARRAY ? value_make_array(&made, members, 200, &v)
                 : types[i] == AZOTH_TYPE_BYTES ? value_make_bytes(&made, members[7], &v)
                                                : value_make_string(&made, members[7], &v);
        assert_int_equal(rc, 0);
        assert_int_equal(value_to_json(&want, v), 0);
        fill(&out, v.enc.len, 0);
        memcpy(out.ptr, v.enc.ptr, v.enc.len);
        v.enc.ptr = out.ptr;
        assert_int_equal(value_to_json(&out, v), 0);
        size_t from = v.enc.len;
        assert_true(bytes_eq(bytes_of(out.ptr + from, out.len - from), buf_bytes(&want)));
        buf_fini(&made);
        buf_fini(&out);
        buf_fini(&want);
    }
}

/* ---- no memory ---- */

static void no_memory_is_told_as_such_and_changes_nothing(void **state)
{
    (void)state;
    /* A buffer that says it holds nearly all there is: growing it is refused before it is tried. */
    static unsigned char byte[1];
    struct buf full = {byte, SIZE_MAX / 4, SIZE_MAX / 4};
    static const char *const forms[] = {"1",
                                        "\"a\"",
                                        "\"\"",
                                        "[]",
                                        "[\"a\"]",
                                        "{\"set\":[\"a\"]}",
                                        "{\"u256\":\"1\"}",
                                        "{\"bytes\":\"AAAA\"}",
                                        "{\"bytes\":\"\"}"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct azoth_value v = {77, {NULL, 78}};
        struct azoth_error err = {0};
        struct buf good = {0};
        json_t *j = parse(forms[i]);
        assert_int_equal(value_from_json(&full, j, &v, &err), AZOTH_ERR_NOMEM);
        assert_int_equal(err.code, AZOTH_ERR_NOMEM);
        assert_int_equal(v.type, 77);
        assert_int_equal(value_from_json(&good, j, &v, NULL), 0);
        assert_int_equal(value_to_json(&full, v), AZOTH_ERR_NOMEM);
        assert_int_equal(full.len, SIZE_MAX / 4);
        json_decref(j);
        buf_fini(&good);
    }
    assert_int_equal(json_add_string(&full, bytes_str("a"), 0), AZOTH_ERR_NOMEM);
    assert_int_equal(base64_encode(&full, bytes_str("a")), AZOTH_ERR_NOMEM);
    assert_int_equal(base64_decode(&full, bytes_str("AAAA")), AZOTH_ERR_NOMEM);
    assert_int_equal(full.len, SIZE_MAX / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_gives_its_encoding),
        cmocka_unit_test(json_that_is_no_value_is_refused_by_name),
        cmocka_unit_test(a_string_that_is_not_utf8_is_refused),
        cmocka_unit_test(a_value_of_the_greatest_size_passes_and_one_byte_more_does_not),
        cmocka_unit_test(each_value_has_one_form),
        cmocka_unit_test(damaged_values_are_not_shown_and_leave_nothing_behind),
        cmocka_unit_test(a_string_of_broken_utf8_is_refused_or_mended),
        cmocka_unit_test(the_vectors_of_rfc_4648_hold_both_ways),
        cmocka_unit_test(base64_of_every_byte_and_length_comes_back),
        cmocka_unit_test(base64_has_one_spelling),
        cmocka_unit_test(every_letter_of_base64_has_its_number),
        cmocka_unit_test(text_of_bytes_in_the_same_buffer_is_right_when_it_moves),
        cmocka_unit_test(a_value_in_the_same_buffer_is_shown_right_when_it_moves),
        cmocka_unit_test(no_memory_is_told_as_such_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
