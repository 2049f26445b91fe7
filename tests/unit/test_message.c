/* test_message.c - requests and answers of a worker's endpoint, in both kinds. */
#include "workers/message.h"

#include "core/error.h"
#include "core/txnjson.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t id[AZOTH_ID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static json_t *parsed(const struct buf *out)
{
    json_t *j = json_loadb((const char *)out->ptr, out->len, 0, NULL);
    assert_non_null(j);
    return j;
}

static const char *member(const json_t *j, const char *name)
{
    return json_string_value(json_object_get(j, name));
}

/* Decodes JSON text; the code. */
static int decode_text(const char *text, struct wire_request *req, struct azoth_error *err)
{
    static struct buf store;
    int json;
    int rc = message_decode(bytes_str(text), &store, req, &json, err);
    assert_int_equal(json, 1);
    return rc;
}

static void a_transaction_needs_an_id_or_says_at_least_once(void **state)
{
    (void)state;
    struct wire_request req;
    struct azoth_error err = {0};
    assert_int_equal(decode_text("{\"set\":{\"k\":1}}", &req, &err), AZOTH_ERR_NO_ID);
    assert_int_equal(req.kind, WIRE_TX);
    assert_int_equal(decode_text("{\"set\":{\"k\":1},\"at_least_once\":true}", &req, &err), 0);
    assert_int_equal(
        decode_text("{\"set\":{\"k\":1},\"id\":\"0102030405060708090a0b0c0d0e0f10\"}", &req, &err),
        0);
    assert_memory_equal(req.id.ptr, id, sizeof id);
    assert_int_equal(decode_text("{\"op\":\"call\",\"command\":\"x\"}", &req, &err),
                     AZOTH_ERR_NO_ID);
}

static void reads_need_no_id(void **state)
{
    (void)state;
    struct wire_request req;
    struct azoth_error err = {0};
    assert_int_equal(decode_text("{\"op\":\"ping\"}", &req, &err), 0);
    assert_int_equal(decode_text("{\"op\":\"get\",\"key\":\"k\"}", &req, &err), 0);
    assert_true(message_is_read(req.kind));
    assert_false(message_is_read(WIRE_TX));
    assert_false(message_is_read(WIRE_CALL));
}

static void a_tpl_transaction_with_a_damaged_image_is_refused(void **state)
{
    (void)state;
    struct buf image = {0}, store = {0};
    struct wire_request req, got;
    struct azoth_error err = {0};
    struct txn_builder b = {0};
    int json;
    assert_int_equal(txn_add_key(&b, TXN_WRITE, bytes_str("key"), &err), 0);
    struct azoth_bytes body = txn_image(&b);
    req = (struct wire_request){
        .kind = WIRE_TX, .deadline_ms = 100, .limit = 1, .id = {id, sizeof id}, .body = body};
    assert_int_equal(wire_request_encode(&image, &req), 0);
    assert_int_equal(message_decode(buf_bytes(&image), &store, &got, &json, &err), 0);
    assert_int_equal(json, 0);
    req.body.len--;
    buf_clear(&image);
    assert_int_equal(wire_request_encode(&image, &req), 0);
    assert_int_equal(message_decode(buf_bytes(&image), &store, &got, &json, &err),
                     AZOTH_ERR_BAD_REQUEST);
    assert_int_equal(got.kind, WIRE_TX); /* so that the answer can name it */
    assert_int_equal(got.id.len, AZOTH_ID_BYTES);
    txn_builder_fini(&b);
    buf_fini(&image);
    buf_fini(&store);
}

static void every_cut_of_a_request_is_an_error_with_a_sentence(void **state)
{
    (void)state;
    struct buf image = {0}, store = {0};
    struct wire_request got;
    int json;
    struct wire_request req = {.kind = WIRE_GET, .deadline_ms = 1, .limit = 1};
    req.name = bytes_str("key");
    assert_int_equal(wire_request_encode(&image, &req), 0);
    for (size_t n = 0; n < image.len; n++) {
        struct azoth_error err = {0};
        int rc = message_decode(bytes_of(image.ptr, n), &store, &got, &json, &err);
        assert_int_equal(rc, AZOTH_ERR_BAD_REQUEST);
        assert_int_equal(err.code, rc);
        assert_true(err.message[0]);
        assert_int_equal(got.kind, 0);
    }
    buf_fini(&image);
    buf_fini(&store);
}

static void an_error_is_answered_in_kind_with_its_name(void **state)
{
    (void)state;
    struct buf out = {0};
    struct wire_request req = {.kind = WIRE_TX, .id = {id, sizeof id}};
    struct azoth_error err = {0};
    error_set(&err, AZOTH_ERR_BUSY, "the reason");
    assert_int_equal(message_error(&out, 1, &req, &err), 0);
    json_t *j = parsed(&out);
    assert_false(json_is_true(json_object_get(j, "ok")));
    assert_string_equal(member(j, "error"), "AZOTH_ERR_BUSY");
    assert_string_equal(member(j, "message"), "the reason");
    assert_string_equal(member(j, "id"), "0102030405060708090a0b0c0d0e0f10");
    assert_true(json_is_true(json_object_get(j, "retry")));
    json_decref(j);

    struct wire_answer a;
    assert_int_equal(message_error(&out, 0, &req, &err), 0);
    assert_int_equal(wire_answer_decode(buf_bytes(&out), &a, &err), 0);
    assert_int_equal(a.code, AZOTH_ERR_BUSY);
    assert_int_equal(a.kind, WIRE_TX);
    assert_true(bytes_eq(a.message, bytes_str("the reason")));
    assert_true(bytes_eq(a.id, req.id));
    buf_fini(&out);
}

static void a_message_cut_inside_a_character_is_still_utf8(void **state)
{
    (void)state;
    struct buf out = {0};
    struct wire_request req = {.kind = WIRE_TX};
    struct azoth_error err = {0};
    char text[300];
    for (unsigned i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 3);
    error_set(&err, AZOTH_ERR_REJECTED, "xy%s", text); /* the field ends after half a character */
    assert_false(utf8_valid(bytes_str(err.message)));
    assert_int_equal(message_error(&out, 1, &req, &err), 0);
    json_t *j = parsed(&out);
    assert_string_equal(member(j, "error"), "AZOTH_ERR_REJECTED");
    json_decref(j);
    buf_fini(&out);
}

static void an_outcome_carries_the_result_and_whether_it_is_a_duplicate(void **state)
{
    (void)state;
    struct buf out = {0};
    struct wire_request req = {.kind = WIRE_TX, .id = {id, sizeof id}};
    struct preflight_outcome o = {.result = {7, 3, 4, 2, 1, 1, 1}};
    assert_int_equal(message_outcome(&out, 1, &req, &o), 0);
    json_t *j = parsed(&out);
    assert_true(json_is_true(json_object_get(j, "ok")));
    assert_true(json_is_true(json_object_get(j, "duplicate")));
    assert_int_equal(json_integer_value(json_object_get(j, "txn")), 7);
    assert_int_equal(json_integer_value(json_object_get(j, "events")), 2);
    json_decref(j);
    struct wire_answer a;
    struct azoth_error err = {0};
    assert_int_equal(message_outcome(&out, 0, &req, &o), 0);
    assert_int_equal(wire_answer_decode(buf_bytes(&out), &a, &err), 0);
    assert_int_equal(a.flags & WIRE_DUPLICATE, WIRE_DUPLICATE);
    assert_int_equal(a.keys_deleted, 1);

    o.code = AZOTH_ERR_PREFLIGHT_FAILED; /* without a sentence: the code's own */
    assert_int_equal(message_outcome(&out, 0, &req, &o), 0);
    assert_int_equal(wire_answer_decode(buf_bytes(&out), &a, &err), 0);
    assert_int_equal(a.code, AZOTH_ERR_PREFLIGHT_FAILED);
    assert_true(bytes_eq(a.message, bytes_str(azoth_code_sentence(a.code))));
    assert_int_equal(a.txn, 0);
    buf_fini(&out);
}

static void an_answer_over_a_messages_size_becomes_an_error(void **state)
{
    (void)state;
    struct buf out = {0}, body = {0};
    unsigned char *p = buf_grow(&body, WIRE_MESSAGE_MAX + 1);
    assert_non_null(p);
    memset(p, 0, WIRE_MESSAGE_MAX + 1);
    struct wire_answer big = {.kind = WIRE_SCAN, .body = buf_bytes(&body)}, a;
    struct azoth_error err = {0};
    assert_int_equal(message_answer(&out, 0, &big), 0);
    assert_true(out.len < 1000);
    assert_int_equal(wire_answer_decode(buf_bytes(&out), &a, &err), 0);
    assert_int_equal(a.code, AZOTH_ERR_TXN_SIZE);
    assert_int_equal(message_answer(&out, 1, &big), 0); /* and these bytes are no items at all */
    json_t *j = parsed(&out);
    assert_false(json_is_true(json_object_get(j, "ok")));
    json_decref(j);
    buf_fini(&out);
    buf_fini(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transaction_needs_an_id_or_says_at_least_once),
        cmocka_unit_test(reads_need_no_id),
        cmocka_unit_test(a_tpl_transaction_with_a_damaged_image_is_refused),
        cmocka_unit_test(every_cut_of_a_request_is_an_error_with_a_sentence),
        cmocka_unit_test(an_error_is_answered_in_kind_with_its_name),
        cmocka_unit_test(a_message_cut_inside_a_character_is_still_utf8),
        cmocka_unit_test(an_outcome_carries_the_result_and_whether_it_is_a_duplicate),
        cmocka_unit_test(an_answer_over_a_messages_size_becomes_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
