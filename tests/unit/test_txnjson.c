/* test_txnjson.c - each request form as the message that it becomes, what is refused by name, bytes
 * that JSON cannot write plainly, and each answer as text that a JSON reader takes. */
#include "core/txnjson.h"

#include "core/error.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct azoth_error err;
static struct buf store;

static int parse(const char *text, struct wire_request *ret)
{
    buf_clear(&store);
    err.message[0] = 0;
    return txnjson_parse(bytes_str(text), &store, ret, &err);
}

static void assert_bytes(struct azoth_bytes got, const char *want)
{
    assert_true(bytes_eq(got, bytes_str(want)));
}

static void reads_become_the_messages_they_say(void **state)
{
    (void)state;
    struct wire_request r;
    assert_int_equal(parse("{\"op\":\"get\",\"key\":{\"b64\":\"/wA=\"}}", &r), 0);
    assert_int_equal(r.kind, WIRE_GET);
    assert_true(bytes_eq(r.name, bytes_of("\xff\0", 2)));
    assert_int_equal(r.deadline_ms, 5000);
    assert_int_equal(parse("{\"op\":\"scan\",\"prefix\":\"p\",\"from\":\"pa\",\"to\":\"pz\","
                           "\"after\":\"pc\",\"limit\":7}",
                           &r),
                     0);
    assert_int_equal(r.kind, WIRE_SCAN);
    assert_bytes(r.args, "p");
    assert_bytes(r.name, "pa");
    assert_bytes(r.body, "pz");
    assert_bytes(r.after, "pc");
    assert_int_equal(r.limit, 7);
    assert_int_equal(parse("{\"op\":\"events\"}", &r), 0);
    assert_true(r.kind == WIRE_EVENTS && r.from == 1 && r.to == 0 && r.limit == 100);
    assert_int_equal(parse("{\"op\":\"events\",\"from\":9223372036854775807,\"to\":2,"
                           "\"type\":\"t\"}",
                           &r),
                     0);
    assert_true(r.from == INT64_MAX && r.to == 2);
    assert_bytes(r.name, "t");
    assert_int_equal(parse("{\"op\":\"outcome\",\"id\":\"00112233445566778899AABBCCDDEEFF\"}", &r),
                     0);
    assert_int_equal(r.kind, WIRE_OUTCOME);
    assert_memory_equal(r.id.ptr,
                        "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff", 16);
    assert_int_equal(parse("{\"op\":\"ping\"}", &r), 0);
    assert_int_equal(r.kind, WIRE_PING);
}

static void a_call_carries_its_arguments_as_text_and_its_declarations(void **state)
{
    (void)state;
    struct wire_request r;
    struct txn_item it;
    size_t at = 0;
    assert_int_equal(parse("{\"op\":\"call\",\"command\":\"pay\",\"args\":{\"b\":2,\"a\":[1]},"
                           "\"read\":[\"r\"],\"write\":[{\"b64\":\"gA==\"}],"
                           "\"wait_paused\":true,\"at_least_once\":true}",
                           &r),
                     0);
    assert_int_equal(r.kind, WIRE_CALL);
    assert_int_equal(r.flags, WIRE_AT_LEAST_ONCE | WIRE_WAIT_PAUSED);
    assert_bytes(r.name, "pay");
    assert_bytes(r.args, "{\"a\":[1],\"b\":2}");
    assert_int_equal(txn_check(r.body, &err), 0);
    assert_int_equal(txn_next(r.body, &at, &it), 1);
    assert_int_equal(it.kind, TXN_READ);
    assert_int_equal(txn_next(r.body, &at, &it), 1);
    assert_int_equal(it.kind, TXN_WRITE);
    assert_bytes(it.key, "\x80");
}

static void every_requirement_and_operation_has_its_member(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t kind, type, items;
    } cases[] = {
        {"{\"require\":[{\"key\":\"k\",\"exists\":true}]}", TXN_REQUIRE_EXISTS, 0, 1},
        {"{\"require\":[{\"key\":\"k\",\"absent\":true}]}", TXN_REQUIRE_ABSENT, 0, 1},
        {"{\"require\":[{\"key\":\"k\",\"equals\":\"s\"}]}", TXN_REQUIRE_EQUALS, AZOTH_TYPE_STRING,
         1},
        {"{\"require\":[{\"key\":\"k\",\"min\":1}]}", TXN_REQUIRE_MIN, AZOTH_TYPE_I64, 1},
        {"{\"require\":[{\"key\":\"k\",\"max\":{\"u256\":\"1\"}}]}", TXN_REQUIRE_MAX,
         AZOTH_TYPE_U256, 1},
        {"{\"require\":[{\"key\":\"k\",\"type\":\"set\"}]}", TXN_REQUIRE_TYPE, AZOTH_TYPE_SET, 1},
        {"{\"require\":[{\"key\":\"k\",\"contains\":\"m\"}]}", TXN_REQUIRE_CONTAINS, 0, 1},
        {"{\"require\":[{\"key\":\"k\",\"version\":0}]}", TXN_REQUIRE_VERSION, 0, 1},
        {"{\"set\":{\"k\":1}}", TXN_SET, AZOTH_TYPE_I64, 1},
        {"{\"add\":{\"k\":-1}}", TXN_ADD, AZOTH_TYPE_I64, 1},
        {"{\"delete\":[\"k\"]}", TXN_DELETE, 0, 1},
        {"{\"set_add\":{\"k\":[\"a\",\"b\",\"c\"]}}", TXN_SET_ADD, 0, 3},
        {"{\"set_remove\":{\"k\":\"a\"}}", TXN_SET_REMOVE, 0, 1},
        {"{\"array_push\":{\"k\":[]}}", TXN_ARRAY_PUSH, 0, 0},
        {"{\"read\":[\"k\"]}", TXN_READ, 0, 1},
        {"{}", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wire_request r;
        struct txn_item it;
        size_t at = 0;
        if (parse(cases[i].text, &r))
            print_message("%s: %s\n", cases[i].text, err.message);
        assert_int_equal(parse(cases[i].text, &r), 0);
        assert_int_equal(txn_check(r.body, &err), 0);
        assert_int_equal(txn_items(r.body), cases[i].items);
        while (txn_next(r.body, &at, &it)) {
            assert_int_equal(it.kind, cases[i].kind);
            assert_int_equal(it.type, cases[i].type);
            assert_bytes(it.key, "k");
        }
    }
}

static void a_member_of_another_form_is_refused_by_its_name(void **state)
{
    (void)state;
    static const char *const ops[] = {"tx", "call", "get", "scan", "events", "outcome", "ping"};
    static const char *const members[] = {"nonsense", "set "};
    struct wire_request r;
    char text[100];
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        for (size_t m = 0; m < 2; m++) {
            snprintf(text, sizeof text, "{\"op\":\"%s\",\"%s\":1}", ops[i], members[m]);
            assert_int_equal(parse(text, &r), AZOTH_ERR_BAD_JSON);
            assert_non_null(strstr(err.message, members[m]));
            assert_non_null(strstr(err.message, ops[i]));
        }
    /* Two names that stand side by side in our list are no name. */
    assert_int_equal(parse("{\"require set\":1}", &r), AZOTH_ERR_BAD_JSON);
    assert_int_equal(parse("{\"op\":\"ping\",\"op id\":1}", &r), AZOTH_ERR_BAD_JSON);
    assert_int_equal(parse("{\"op\":\"get\",\"key\":\"k\",\"set\":{}}", &r), AZOTH_ERR_BAD_JSON);
    assert_non_null(strstr(err.message, "set"));
    assert_int_equal(parse("{\"op\":\"call\",\"command\":\"c\",\"events\":[]}", &r),
                     AZOTH_ERR_BAD_JSON);
    assert_non_null(strstr(err.message, "events"));
}

static void nul_bytes_in_strings_are_kept_and_in_member_names_refused(void **state)
{
    (void)state;
    struct wire_request r;
    struct txn_item it;
    size_t at = 0;
    assert_int_equal(parse("{\"write\":[\"a\\u0000b\"],\"set\":{\"k\":\"x\\u0000y\"},"
                           "\"events\":[{\"type\":\"t\\u0000u\",\"data\":\"\\u0000\"}]}",
                           &r),
                     0);
    assert_int_equal(txn_next(r.body, &at, &it), 1);
    assert_true(bytes_eq(it.key, bytes_of("a\0b", 3)));
    assert_int_equal(txn_next(r.body, &at, &it), 1);
    assert_true(bytes_eq(it.value, bytes_of("x\0y", 3)));
    assert_int_equal(txn_next(r.body, &at, &it), 1);
    assert_true(bytes_eq(it.name, bytes_of("t\0u", 3)));
    assert_bytes(it.value, "\"\\u0000\"");
    assert_int_equal(parse("{\"set\":{\"a\\u0000b\":1}}", &r), AZOTH_ERR_BAD_JSON);
}

static void a_repeated_member_is_refused_at_any_depth(void **state)
{
    (void)state;
    struct wire_request r;
    assert_int_equal(parse("{\"add\":{\"k\":1,\"k\":2}}", &r), AZOTH_ERR_BAD_JSON);
    assert_int_equal(
        parse("{\"events\":[{\"type\":\"t\",\"data\":{\"x\":[{\"a\":1,\"a\":1}]}}]}", &r),
        AZOTH_ERR_BAD_JSON);
}

static void a_text_over_its_size_is_refused_before_it_is_read(void **state)
{
    (void)state;
    struct wire_request r;
    size_t n = TXNJSON_BYTES_MAX + 1u;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, ' ', n);
    memcpy(text, "{}", 2);
    buf_clear(&store);
    assert_int_equal(txnjson_parse(bytes_of(text, n - 1), &store, &r, &err), 0);
    assert_int_equal(txnjson_parse(bytes_of(text, n), &store, &r, &err), AZOTH_ERR_BAD_JSON);
    assert_non_null(strstr(err.message, "8388608"));
    free(text);
}

static void
a_refused_text_leaves_the_store_and_an_accepted_one_stands_behind_what_is_there(void **state)
{
    (void)state;
    struct wire_request r;
    struct buf b = {0};
    assert_int_equal(buf_add_str(&b, "before"), 0);
    assert_int_equal(txnjson_parse(bytes_str("{\"id\":\"00112233445566778899aabbccddeeff\","
                                             "\"set\":{\"k\":1},\"delete\":[1]}"),
                                   &b, &r, &err),
                     AZOTH_ERR_BAD_JSON);
    assert_true(bytes_eq(buf_bytes(&b), bytes_str("before")));
    assert_int_equal(txnjson_parse(bytes_str("{\"set\":{\"k\":1}}"), &b, &r, &err), 0);
    assert_memory_equal(b.ptr, "before", 6);
    assert_int_equal(txn_check(r.body, &err), 0);
    assert_int_equal(txn_items(r.body), 1);
    buf_fini(&b);
}

/* ---- answers ---- */

static json_t *loaded(const struct buf *out)
{
    json_t *j =
        json_loadb((const char *)out->ptr, out->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (!j)
        print_message("%.*s\n", (int)out->len, (const char *)out->ptr);
    assert_non_null(j);
    assert_null(memchr(out->ptr, '\n', out->len));
    return j;
}

static const char *text(const json_t *j, const char *name)
{
    return json_string_value(json_object_get(j, name));
}

static json_int_t number(const json_t *j, const char *name)
{
    return json_integer_value(json_object_get(j, name));
}

static json_t *event_json(struct event_record ev)
{
    struct buf out = {0};
    assert_int_equal(txnjson_event(&out, &ev), 0);
    json_t *j = loaded(&out);
    buf_fini(&out);
    return j;
}

static void an_event_is_one_line_whatever_its_payload(void **state)
{
    (void)state;
    json_t *j =
        event_json((struct event_record){.id = 5,
                                         .txn = 4,
                                         .time_ns = -1,
                                         .type = bytes_str("t"),
                                         .key = bytes_str("\xff"),
                                         .metadata = bytes_str("[\r\n1]\n"),
                                         .payload = bytes_str("{\n  \"a\": \"x\\ny\"\r\n}")});
    assert_int_equal(number(j, "id"), 5);
    assert_int_equal(number(j, "time"), -1);
    assert_string_equal(text(json_object_get(j, "data"), "a"), "x\ny");
    assert_string_equal(text(json_object_get(j, "key"), "b64"), "/w==");
    assert_int_equal(json_array_size(json_object_get(j, "metadata")), 1);
    json_decref(j);
    /* No JSON: its bytes. Empty, cut, with something behind it, not UTF-8. */
    static const struct {
        const char *payload, *base64;
    } cases[] = {{"", ""}, {"{", "ew=="}, {"1 2", "MSAy"}, {"\"\xff\"", "Iv8i"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        j = event_json((struct event_record){
            .id = 1, .type = bytes_str("t"), .payload = bytes_str(cases[i].payload)});
        assert_null(json_object_get(j, "data"));
        assert_string_equal(text(j, "bytes"), cases[i].base64);
        json_decref(j);
    }
}

static void each_answer_is_json_of_its_form(void **state)
{
    (void)state;
    struct buf out = {0}, body = {0};
    int64_t n = -3;
    struct state_record st = {7, {AZOTH_TYPE_I64, {&n, 8}}};
    assert_int_equal(wire_item_add(&body, bytes_str("k1"), &st), 0);
    struct wire_answer a = {.kind = WIRE_GET, .body = buf_bytes(&body)};
    assert_int_equal(txnjson_answer(&out, &a), 0);
    json_t *j = loaded(&out);
    assert_true(json_is_true(json_object_get(j, "ok")));
    assert_string_equal(text(j, "key"), "k1");
    assert_int_equal(number(j, "version"), 7);
    assert_int_equal(number(j, "value"), -3);
    json_decref(j);

    assert_int_equal(wire_item_add(&body, bytes_str("\x80"), &st), 0);
    a = (struct wire_answer){.kind = WIRE_SCAN, .flags = WIRE_MORE, .body = buf_bytes(&body)};
    buf_clear(&out);
    assert_int_equal(txnjson_answer(&out, &a), 0);
    j = loaded(&out);
    assert_int_equal(json_array_size(json_object_get(j, "items")), 2);
    assert_true(json_is_true(json_object_get(j, "more")));
    json_decref(j);

    struct event_record ev = {.id = 3, .type = bytes_str("t"), .payload = bytes_str("\n1\n")};
    unsigned char rec[64];
    record_event_encode(rec, &ev);
    buf_clear(&body);
    assert_int_equal(record_frame_add(&body, 3, bytes_of(rec, record_event_size(&ev))), 0);
    a = (struct wire_answer){
        .kind = WIRE_EVENTS, .first_event = 3, .last_event = 9, .body = buf_bytes(&body)};
    buf_clear(&out);
    assert_int_equal(txnjson_answer(&out, &a), 0);
    j = loaded(&out);
    assert_int_equal(json_array_size(json_object_get(j, "events")), 1);
    assert_int_equal(number(j, "next"), 4);
    assert_int_equal(number(j, "head"), 9);
    json_decref(j);

    a = (struct wire_answer){.kind = WIRE_TX,
                             .txn = UINT64_MAX >> 1,
                             .first_event = 3,
                             .last_event = 5,
                             .flags = WIRE_DUPLICATE,
                             .id = bytes_of("0123456789abcdef", 16)};
    buf_clear(&out);
    assert_int_equal(txnjson_answer(&out, &a), 0);
    j = loaded(&out);
    assert_int_equal(number(j, "events"), 3);
    assert_int_equal(number(j, "txn"), INT64_MAX);
    assert_true(json_is_true(json_object_get(j, "duplicate")));
    assert_string_equal(text(j, "id"), "30313233343536373839616263646566");
    json_decref(j);

    a = (struct wire_answer){.code = AZOTH_ERR_BUSY, .message = bytes_str("a \"\n\x01 b")};
    buf_clear(&out);
    assert_int_equal(txnjson_answer(&out, &a), 0);
    j = loaded(&out);
    assert_true(json_is_false(json_object_get(j, "ok")));
    assert_string_equal(text(j, "error"), "AZOTH_ERR_BUSY");
    assert_string_equal(text(j, "message"), "a \"\n\x01 b");
    assert_true(json_is_true(json_object_get(j, "retry")));
    json_decref(j);
    buf_fini(&out);
    buf_fini(&body);
}

static void a_body_that_is_no_items_or_frames_is_an_error_and_no_half_answer_is_taken(void **state)
{
    (void)state;
    static const uint32_t kinds[] = {WIRE_GET, WIRE_SCAN, WIRE_EVENTS};
    for (size_t i = 0; i < 3; i++) {
        struct buf out = {0};
        struct wire_answer a = {.kind = kinds[i], .body = bytes_str("rubbish")};
        assert_int_equal(txnjson_answer(&out, &a), AZOTH_ERR_CORRUPT);
        buf_fini(&out);
    }
}

static int done(void **state)
{
    (void)state;
    buf_fini(&store);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_become_the_messages_they_say),
        cmocka_unit_test(a_call_carries_its_arguments_as_text_and_its_declarations),
        cmocka_unit_test(every_requirement_and_operation_has_its_member),
        cmocka_unit_test(a_member_of_another_form_is_refused_by_its_name),
        cmocka_unit_test(nul_bytes_in_strings_are_kept_and_in_member_names_refused),
        cmocka_unit_test(a_repeated_member_is_refused_at_any_depth),
        cmocka_unit_test(a_text_over_its_size_is_refused_before_it_is_read),
        cmocka_unit_test(
            a_refused_text_leaves_the_store_and_an_accepted_one_stands_behind_what_is_there),
        cmocka_unit_test(an_event_is_one_line_whatever_its_payload),
        cmocka_unit_test(each_answer_is_json_of_its_form),
        cmocka_unit_test(a_body_that_is_no_items_or_frames_is_an_error_and_no_half_answer_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
