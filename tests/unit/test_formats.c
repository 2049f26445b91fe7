/* test_formats.c - records, transaction images, tpl envelopes, JSON requests, configuration: what
 * they accept, and that damage is never taken for something else. */
#include "core/batchrec.h"
#include "core/config.h"
#include "core/error.h"
#include "core/record.h"
#include "core/txn.h"
#include "core/txnjson.h"
#include "core/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tpl.h>
#include <unistd.h>

#include <cmocka.h>

static struct azoth_error err;

/* A copy in memory of exactly this size, so that a sanitizer sees the first byte beyond. */
static unsigned char *exact(const void *p, size_t n)
{
    unsigned char *c = malloc(n ? n : 1);
    assert_non_null(c);
    memcpy(c, p, n);
    return c;
}

/* ---- records ---- */

static void a_flipped_bit_or_another_key_makes_a_state_record_corrupt(void **state)
{
    (void)state;
    int64_t n = 42;
    struct azoth_value v = {AZOTH_TYPE_I64, {&n, 8}};
    unsigned char rec[64];
    size_t size = record_state_size(8);
    struct state_record st;
    record_state_encode(rec, bytes_str("key"), 7, v);
    assert_int_equal(record_state_decode(bytes_str("key"), bytes_of(rec, size), &st), 0);
    assert_int_equal(st.version, 7);
    assert_true(record_state_decode(bytes_str("kez"), bytes_of(rec, size), &st) < 0);
    for (size_t i = 0; i < size * 8; i++) {
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
        assert_true(record_state_decode(bytes_str("key"), bytes_of(rec, size), &st) < 0);
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
    }
    for (size_t len = 0; len < size; len++) {
        unsigned char *c = exact(rec, len);
        assert_true(record_state_decode(bytes_str("key"), bytes_of(c, len), &st) < 0);
        free(c);
    }
}

static void a_flipped_bit_or_another_id_makes_an_event_record_corrupt(void **state)
{
    (void)state;
    struct event_record ev = {.id = 9,
                              .txn = 4,
                              .time_ns = -5,
                              .type = bytes_str("type"),
                              .key = bytes_str("stream"),
                              .metadata = bytes_str("m"),
                              .payload = bytes_str("{\"n\":1}")},
                        back;
    unsigned char rec[128];
    size_t size = record_event_size(&ev);
    record_event_encode(rec, &ev);
    assert_int_equal(record_event_decode(9, bytes_of(rec, size), &back), 0);
    assert_true(bytes_eq(back.type, ev.type) && bytes_eq(back.key, ev.key) &&
                bytes_eq(back.metadata, ev.metadata) && bytes_eq(back.payload, ev.payload));
    assert_int_equal(back.time_ns, -5);
    assert_true(record_event_decode(10, bytes_of(rec, size), &back) < 0);
    for (size_t i = 0; i < size * 8; i++) {
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
        assert_true(record_event_decode(9, bytes_of(rec, size), &back) < 0);
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
    }
}

static void the_batch_record_is_refused_when_it_is_not_whole(void **state)
{
    (void)state;
    struct batch_head h = {.incarnation = 1, .epoch = 2, .event = 3, .txn = 4, .count = 2}, back;
    struct batch_entry e[2] = {{.slot = 5, .ticket = 6}, {.slot = 7, .code = -3, .ticket = 8}}, one;
    unsigned char rec[BATCH_HEAD + 2 * BATCH_ENTRY];
    batch_encode(rec, &h, e);
    assert_int_equal(batch_decode(bytes_of(rec, sizeof rec), &back), 0);
    batch_entry_decode(bytes_of(rec, sizeof rec), 1, &one);
    assert_true(one.slot == 7 && one.code == -3 && one.ticket == 8);
    for (size_t len = 0; len < sizeof rec; len++)
        assert_true(batch_decode(bytes_of(rec, len), &back) < 0);
    for (size_t i = 0; i < sizeof rec * 8; i++) {
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
        assert_true(batch_decode(bytes_of(rec, sizeof rec), &back) < 0);
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
    }
}

/* ---- transaction images ---- */

static void build(struct txn_builder *b)
{
    int64_t n = 5;
    struct azoth_value v = {AZOTH_TYPE_I64, {&n, 8}};
    assert_int_equal(txn_add_value(b, TXN_REQUIRE_MIN, bytes_str("a"), v, &err), 0);
    assert_int_equal(txn_add_value(b, TXN_ADD, bytes_str("a"), v, &err), 0);
    assert_int_equal(txn_add_key(b, TXN_DELETE, bytes_str("b"), &err), 0);
    assert_int_equal(txn_add_member(b, TXN_SET_ADD, bytes_str("s"), bytes_str("m"), &err), 0);
    assert_int_equal(
        txn_add_event(b, bytes_str("t"), bytes_str("k"), bytes_str("{}"), bytes_str("p"), &err), 0);
}

static void an_image_is_accepted_whole_and_at_no_other_length(void **state)
{
    (void)state;
    struct txn_builder b = {0};
    build(&b);
    struct azoth_bytes image = txn_image(&b);
    assert_int_equal(txn_check(image, &err), 0);
    assert_int_equal(txn_items(image), 5);
    for (size_t len = 0; len < image.len; len++) {
        unsigned char *c = exact(image.ptr, len);
        assert_true(txn_check(bytes_of(c, len), &err) < 0);
        free(c);
    }
    txn_builder_fini(&b);
}

static void damaged_images_are_refused_or_harmless(void **state)
{
    (void)state;
    struct txn_builder b = {0};
    build(&b);
    struct azoth_bytes image = txn_image(&b);
    for (size_t i = 0; i < image.len; i++)
        for (unsigned x = 1; x < 256; x += 37) {
            unsigned char *c = exact(image.ptr, image.len);
            c[i] ^= (unsigned char)x;
            if (txn_check(bytes_of(c, image.len), &err) == 0) {
                size_t at = 0;
                struct txn_item it;
                uint32_t items = 0;
                while (txn_next(bytes_of(c, image.len), &at, &it))
                    items++;
                assert_int_equal(items, 5);
                assert_int_equal(at, image.len);
            }
            free(c);
        }
    txn_builder_fini(&b);
}

/* ---- envelopes ---- */

static struct wire_request request(void)
{
    return (struct wire_request){.kind = WIRE_TX,
                                 .flags = 3,
                                 .deadline_ms = 1000,
                                 .limit = 7,
                                 .from = 1ull << 60,
                                 .to = 3,
                                 .id = bytes_of("0123456789abcdef", 16),
                                 .name = bytes_str("name"),
                                 .body = bytes_str("body"),
                                 .args = bytes_str("args"),
                                 .after = bytes_str("after")};
}

static void envelopes_come_back_as_they_went_in(void **state)
{
    (void)state;
    struct buf b = {0};
    struct wire_request q = request(), q2;
    assert_int_equal(wire_request_encode(&b, &q), 0);
    assert_int_equal(wire_request_decode(buf_bytes(&b), &q2, &err), 0);
    assert_true(q2.from == q.from && q2.limit == 7 && bytes_eq(q2.after, q.after) &&
                bytes_eq(q2.id, q.id));
    buf_clear(&b);
    struct wire_answer a = {.kind = 1, .code = -29, .txn = 5, .message = bytes_str("no")}, a2;
    assert_int_equal(wire_answer_encode(&b, &a), 0);
    assert_int_equal(wire_answer_decode(buf_bytes(&b), &a2, &err), 0);
    assert_true(a2.code == -29 && a2.txn == 5 && bytes_eq(a2.message, a.message));
    buf_clear(&b);
    struct wire_pull p = {.subscription = 1,
                          .cursor = 2,
                          .applied = 1,
                          .shards = 1,
                          .name = bytes_str("p")},
                     p2;
    assert_int_equal(wire_pull_encode(&b, &p), 0);
    assert_int_equal(wire_pull_decode(buf_bytes(&b), &p2, &err), 0);
    assert_true(p2.cursor == 2 && p2.applied == 1);
    buf_clear(&b);
    struct wire_batch t = {.subscription = 9,
                           .first = 4,
                           .last = 3,
                           .head = 3,
                           .frames = bytes_str("f")},
                      t2;
    assert_int_equal(wire_batch_encode(&b, &t), 0);
    assert_int_equal(wire_batch_decode(buf_bytes(&b), &t2, &err), 0);
    assert_true(t2.first == 4 && t2.last == 3);
    buf_fini(&b);
}

static void tpl_itself_reads_what_the_decoder_accepts(void **state)
{
    (void)state;
    struct buf b = {0};
    struct wire_request q = request();
    assert_int_equal(wire_request_encode(&b, &q), 0);
    uint32_t u[4];
    uint64_t w[2];
    tpl_bin bin[5] = {{0}};
    tpl_node *tn = tpl_map("uuuuUUBBBBB", &u[0], &u[1], &u[2], &u[3], &w[0], &w[1], &bin[0],
                           &bin[1], &bin[2], &bin[3], &bin[4]);
    assert_int_equal(tpl_load(tn, TPL_MEM, b.ptr, b.len), 0);
    assert_true(tpl_unpack(tn, 0) > 0);
    assert_int_equal(w[0], q.from);
    assert_int_equal(bin[4].sz, 5);
    assert_memory_equal(bin[4].addr, "after", 5);
    for (int i = 0; i < 5; i++)
        free(bin[i].addr);
    tpl_free(tn);
    buf_fini(&b);
}

static void hostile_envelopes_are_refused(void **state)
{
    (void)state;
    struct buf b = {0};
    struct wire_request q = request(), back;
    assert_int_equal(wire_request_encode(&b, &q), 0);
    for (size_t len = 0; len < b.len; len++) {
        unsigned char *c = exact(b.ptr, len);
        assert_true(wire_request_decode(bytes_of(c, len), &back, &err) < 0);
        /* Also with a length field that agrees. */
        if (len >= 8) {
            put_u32(c + 4, (uint32_t)len);
            assert_true(wire_request_decode(bytes_of(c, len), &back, &err) < 0);
        }
        free(c);
    }
    for (size_t i = 0; i < b.len; i++)
        for (unsigned x = 1; x < 256; x <<= 1) {
            unsigned char *c = exact(b.ptr, b.len);
            c[i] ^= (unsigned char)x;
            (void)wire_request_decode(bytes_of(c, b.len), &back, &err); /* a sanitizer watches */
            if (i < 8 + 12) /* header and format: nothing else is ours */
                assert_true(wire_request_decode(bytes_of(c, b.len), &back, &err) < 0);
            free(c);
        }
    buf_fini(&b);
}

/* ---- JSON ---- */

static int parse(const char *text, struct wire_request *ret, struct buf *store)
{
    buf_clear(store);
    err.message[0] = 0;
    return txnjson_parse(bytes_str(text), store, ret, &err);
}

static void a_json_request_becomes_the_image_it_says(void **state)
{
    (void)state;
    struct buf store = {0};
    struct wire_request r;
    assert_int_equal(
        parse("{\"id\":\"00112233445566778899aabbccddeeff\",\"deadline_ms\":2000,"
              "\"require\":[{\"key\":\"acct/1\",\"min\":100,\"exists\":true}],"
              "\"add\":{\"acct/1\":-100},\"delete\":[\"x\"],"
              "\"events\":[{\"type\":\"t\",\"data\":{\"b\":1,\"a\":[2]},\"key\":\"s\"}]}",
              &r, &store),
        0);
    assert_int_equal(r.kind, WIRE_TX);
    assert_int_equal(r.deadline_ms, 2000);
    assert_int_equal(((const unsigned char *)r.id.ptr)[15], 0xff);
    assert_int_equal(txn_check(r.body, &err), 0);
    static const uint32_t kinds[] = {TXN_REQUIRE_EXISTS, TXN_REQUIRE_MIN, TXN_ADD, TXN_DELETE,
                                     TXN_EVENT};
    size_t at = 0, i = 0;
    struct txn_item it;
    while (txn_next(r.body, &at, &it))
        assert_int_equal(it.kind, kinds[i++]);
    assert_int_equal(i, 5);
    /* Compact and with sorted members: equal data have equal bytes. */
    assert_int_equal(it.value.len, 15);
    assert_memory_equal(it.value.ptr, "{\"a\":[2],\"b\":1}", 15);
    buf_fini(&store);
}

static void json_mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
        int code;
    } cases[] = {
        {"", "", AZOTH_ERR_BAD_JSON},
        {"[]", "object", AZOTH_ERR_BAD_JSON},
        {"{\"sett\":{}}", "sett", AZOTH_ERR_BAD_JSON},
        {"{\"op\":\"nope\"}", "op", AZOTH_ERR_BAD_JSON},
        {"{\"set\":{\"k\":1.5}}", "key k", AZOTH_ERR_BAD_JSON},
        {"{\"set\":{\"k\":1},\"set\":{}}", "", AZOTH_ERR_BAD_JSON},
        {"{\"set\":{\"\":1}}", "set", AZOTH_ERR_KEY_SIZE},
        {"{\"require\":[{\"key\":\"k\",\"mim\":1}]}", "mim", AZOTH_ERR_BAD_JSON},
        {"{\"require\":[{\"key\":\"k\"}]}", "condition", AZOTH_ERR_BAD_JSON},
        {"{\"require\":[{\"min\":1}]}", "key", AZOTH_ERR_BAD_JSON},
        {"{\"add\":{\"k\":\"1\"}}", "key k", AZOTH_ERR_TYPE},
        {"{\"events\":[{\"data\":1}]}", "type", AZOTH_ERR_BAD_JSON},
        {"{\"events\":[{\"type\":\"\"}]}", "event", AZOTH_ERR_EVENT_TYPE},
        {"{\"events\":[{\"type\":\"t\",\"dta\":1}]}", "dta", AZOTH_ERR_BAD_JSON},
        {"{\"id\":\"12\"}", "id", AZOTH_ERR_BAD_JSON},
        {"{\"deadline_ms\":0}", "deadline_ms", AZOTH_ERR_BAD_JSON},
        {"{\"op\":\"get\"}", "key", AZOTH_ERR_KEY_SIZE},
        {"{\"op\":\"scan\",\"limit\":1001}", "limit", AZOTH_ERR_BAD_JSON},
        {"{\"op\":\"call\"}", "command", AZOTH_ERR_BAD_JSON},
    };
    struct buf store = {0};
    struct wire_request r;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = parse(cases[i].text, &r, &store);
        if (rc != cases[i].code || !strstr(err.message, cases[i].want))
            print_message("%s -> %s %s\n", cases[i].text, azoth_code_name(rc), err.message);
        assert_int_equal(rc, cases[i].code);
        assert_non_null(strstr(err.message, cases[i].want));
    }
    buf_fini(&store);
}

static void deep_nesting_is_an_error_and_no_crash(void **state)
{
    (void)state;
    static char text[200001];
    memset(text, '[', 200000);
    struct buf store = {0};
    struct wire_request r;
    assert_int_equal(parse(text, &r, &store), AZOTH_ERR_BAD_JSON);
    memcpy(text, "{\"a\":", 5);
    assert_int_equal(parse(text, &r, &store), AZOTH_ERR_BAD_JSON);
    buf_fini(&store);
}

/* ---- configuration ---- */

static char conf_dir[64];

static void put_conf(const char *text)
{
    char path[100];
    snprintf(path, sizeof path, "%s/azoth.conf", conf_dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int conf_setup(void **state)
{
    (void)state;
    strcpy(conf_dir, "/tmp/azoth-conf-XXXXXX");
    return mkdtemp(conf_dir) ? 0 : -1;
}

static int conf_teardown(void **state)
{
    (void)state;
    char path[100];
    snprintf(path, sizeof path, "%s/azoth.conf", conf_dir);
    unlink(path);
    return rmdir(conf_dir);
}

static void a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(config_load(&c, conf_dir, &err), 0);
    assert_int_equal(c.number[CONFIG_segment_slots], 1024);
    put_conf("# a comment\n[segment]\nslots = 64\n[writer]\nbatch_bytes = 2M\nid_time = 2h\n");
    assert_int_equal(config_load(&c, conf_dir, &err), 0);
    assert_int_equal(c.number[CONFIG_segment_slots], 64);
    assert_int_equal(c.number[CONFIG_writer_batch_bytes], 2 << 20);
    assert_int_equal(c.number[CONFIG_writer_id_time], 7200000);
    setenv("AZOTH_SEGMENT_SLOTS", "128", 1);
    assert_int_equal(config_load(&c, conf_dir, &err), 0);
    unsetenv("AZOTH_SEGMENT_SLOTS");
    assert_int_equal(c.number[CONFIG_segment_slots], 128);
    char *argv[] = {"x", "--segment-slots=256", "--writer-batch-bytes", "1M", "word"};
    int i = 1;
    assert_int_equal(config_flag(&c, 5, argv, &i, &err), 1);
    assert_int_equal(config_flag(&c, 5, argv, &i, &err), 1);
    assert_int_equal(config_flag(&c, 5, argv, &i, &err), 0);
    assert_int_equal(i, 4);
    assert_int_equal(c.number[CONFIG_segment_slots], 256);
    assert_int_equal(c.number[CONFIG_writer_batch_bytes], 1 << 20);
}

static void mistakes_in_the_file_are_told_with_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {{"[segment]\nslits = 1\n", "azoth.conf:2"},
                 {"\n[segment]\nslots = many\n", "azoth.conf:3"},
                 {"[segment]\nslots = 4\n", "azoth.conf:2"},
                 {"[writer]\nsync = sometimes\n", "sometimes"},
                 {"[segment]\nthis is no setting\n", "azoth.conf:2"},
                 {"[nope]\nx = 1\n", "nope.x"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config c;
        put_conf(cases[i].text);
        assert_int_equal(config_load(&c, conf_dir, &err), AZOTH_ERR_CONFIG);
        if (!strstr(err.message, cases[i].want))
            print_message("%s\n", err.message);
        assert_non_null(strstr(err.message, cases[i].want));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flipped_bit_or_another_key_makes_a_state_record_corrupt),
        cmocka_unit_test(a_flipped_bit_or_another_id_makes_an_event_record_corrupt),
        cmocka_unit_test(the_batch_record_is_refused_when_it_is_not_whole),
        cmocka_unit_test(an_image_is_accepted_whole_and_at_no_other_length),
        cmocka_unit_test(damaged_images_are_refused_or_harmless),
        cmocka_unit_test(envelopes_come_back_as_they_went_in),
        cmocka_unit_test(tpl_itself_reads_what_the_decoder_accepts),
        cmocka_unit_test(hostile_envelopes_are_refused),
        cmocka_unit_test(a_json_request_becomes_the_image_it_says),
        cmocka_unit_test(json_mistakes_are_named),
        cmocka_unit_test(deep_nesting_is_an_error_and_no_crash),
        cmocka_unit_test_setup_teardown(
            a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default, conf_setup,
            conf_teardown),
        cmocka_unit_test_setup_teardown(mistakes_in_the_file_are_told_with_their_line, conf_setup,
                                        conf_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
