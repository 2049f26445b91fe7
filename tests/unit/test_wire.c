/*
 * test_wire.c - each envelope: every field comes back, tpl reads the same, any cut is refused, what
 * is accepted after any damage is the one image of what was decoded, and no field is out of range.
 */
#include "core/wire.h"

#include "core/error.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <tpl.h>

#include <cmocka.h>

static struct azoth_error err;

/* Memory can be made to run out, where a sanitizer does not own malloc() already. */
#if defined(__SANITIZE_ADDRESS__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OWN_MALLOC 0
#endif
#endif
#ifndef OWN_MALLOC
#define OWN_MALLOC 1
extern void *__libc_malloc(size_t n);
extern void *__libc_realloc(void *p, size_t n);
static _Thread_local int no_memory;
static _Thread_local unsigned long mallocs;
void *malloc(size_t n)
{
    mallocs++;
    return no_memory ? NULL : __libc_malloc(n);
}
void *realloc(void *p, size_t n)
{
    return no_memory ? NULL : __libc_realloc(p, n);
}
#endif

/* ---- one of each ---- */

union message {
    struct wire_request request;
    struct wire_answer answer;
    struct wire_pull pull;
    struct wire_batch batch;
    struct wire_effect_ask ask;
    struct wire_effect_answer effect;
};

static int request_encode(struct buf *out, const union message *m)
{
    return wire_request_encode(out, &m->request);
}
static int request_decode(struct azoth_bytes b, union message *m)
{
    return wire_request_decode(b, &m->request, &err);
}
static int answer_encode(struct buf *out, const union message *m)
{
    return wire_answer_encode(out, &m->answer);
}
static int answer_decode(struct azoth_bytes b, union message *m)
{
    return wire_answer_decode(b, &m->answer, &err);
}
static int pull_encode(struct buf *out, const union message *m)
{
    return wire_pull_encode(out, &m->pull);
}
static int pull_decode(struct azoth_bytes b, union message *m)
{
    return wire_pull_decode(b, &m->pull, &err);
}
static int batch_encode(struct buf *out, const union message *m)
{
    return wire_batch_encode(out, &m->batch);
}
static int batch_decode(struct azoth_bytes b, union message *m)
{
    return wire_batch_decode(b, &m->batch, &err);
}

static int ask_encode(struct buf *out, const union message *m)
{
    return wire_effect_ask_encode(out, &m->ask);
}
static int ask_decode(struct azoth_bytes b, union message *m)
{
    return wire_effect_ask_decode(b, &m->ask, &err);
}
static int effect_encode(struct buf *out, const union message *m)
{
    return wire_effect_answer_encode(out, &m->effect);
}
static int effect_decode(struct azoth_bytes b, union message *m)
{
    return wire_effect_answer_decode(b, &m->effect, &err);
}

static const struct kind {
    const char *format;
    int (*encode)(struct buf *, const union message *);
    int (*decode)(struct azoth_bytes, union message *);
} kinds[] = {
    {"uuuuUUBBBBB", request_encode, request_decode},
    {"uiuUUUuuuBBB", answer_encode, answer_decode},
    {"UUUUuuuuuuUUUUUUUUBBBBBBB", pull_encode, pull_decode},
    {"UUUUuiBB", batch_encode, batch_decode},
    {"UUuuuBB", ask_encode, ask_decode},
    {"UuuuB", effect_encode, effect_decode},
};
#define KINDS 6

static union message sample(int kind)
{
    union message m;
    memset(&m, 0, sizeof m);
    switch (kind) {
    case 0:
        m.request = (struct wire_request){.kind = WIRE_SCAN,
                                          .flags = 3,
                                          .deadline_ms = 3600000,
                                          .limit = 1000,
                                          .from = UINT64_MAX,
                                          .to = 1ull << 63,
                                          .id = bytes_of("0123456789\0bcdef", 16),
                                          .name = bytes_str("name"),
                                          .body = bytes_str("the body"),
                                          .args = bytes_str("args!"),
                                          .after = bytes_str("x")};
        break;
    case 1:
        m.answer = (struct wire_answer){.kind = WIRE_CALL,
                                        .code = AZOTH_ERR_SEALED,
                                        .flags = 3,
                                        .txn = 1ull << 40,
                                        .first_event = 5,
                                        .last_event = UINT64_MAX,
                                        .keys_written = 7,
                                        .keys_deleted = 8,
                                        .keys_missing = UINT32_MAX,
                                        .id = bytes_of("0123456789\0bcdef", 16),
                                        .message = bytes_str("message"),
                                        .body = bytes_str("body")};
        break;
    case 2:
        m.pull = (struct wire_pull){.uuid = "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17",
                                    .subscription = 1,
                                    .instance = 2,
                                    .cursor = 3,
                                    .applied = 4,
                                    .cursor_check = 5,
                                    .credit_bytes = 6,
                                    .shard = 7,
                                    .shards = 1024,
                                    .state = 8,
                                    .breaker = 3,
                                    .errors = 9,
                                    .dead_waiting = 10,
                                    .dead_retired = 11,
                                    .dead_parked = 12,
                                    .stands_event = 13,
                                    .next_ns = UINT64_MAX,
                                    .wal_bytes = 14,
                                    .wal_pinned_for_ns = 15,
                                    .name = bytes_str("name"),
                                    .endpoint = bytes_str("ipc://e"),
                                    .types = bytes_str("\3abc\1d"),
                                    .shard_by = bytes_str(":field"),
                                    .error = bytes_str("error"),
                                    .samples = bytes_str("\1\2\3\4\5\6\7\10")};
        break;
    case 4:
        m.ask = (struct wire_effect_ask){.instance = 1,
                                         .id = UINT64_MAX,
                                         .grant = 2,
                                         .result = WIRE_EFFECT_GIVEN_BACK,
                                         .wants = 1,
                                         .worker = bytes_str("1"),
                                         .error = bytes_str("error")};
        break;
    case 5:
        m.effect = (struct wire_effect_answer){
            .id = 1, .grant = 2, .failures = 3, .lease_ms = 4, .frame = bytes_str("frame")};
        break;
    default:
        m.batch = (struct wire_batch){.subscription = 1,
                                      .first = 2,
                                      .last = 3,
                                      .head = 4,
                                      .last_check = 5,
                                      .code = AZOTH_ERR_DIVERGED,
                                      .message = bytes_str("message"),
                                      .frames = bytes_str("frames")};
    }
    return m;
}

/* A copy of exactly this size, so that a sanitizer sees the first byte beyond. */
static int decode_copy(const struct kind *k, const void *p, size_t n, union message *m,
                       unsigned char **ret)
{
    *ret = malloc(n ? n : 1);
    assert_non_null(*ret);
    memcpy(*ret, p, n);
    return k->decode(bytes_of(*ret, n), m);
}

static void every_field_of_what_effects_say_comes_back(void **state)
{
    (void)state;
    struct buf b = {0};
    union message in = sample(4), out;
    assert_int_equal(ask_encode(&b, &in), 0);
    assert_int_equal(ask_decode(buf_bytes(&b), &out), 0);
    const struct wire_effect_ask *a = &in.ask, *a2 = &out.ask;
    assert_true(a->instance == a2->instance && a->id == a2->id && a->grant == a2->grant &&
                a->result == a2->result && a->wants == a2->wants);
    assert_true(bytes_eq(a->worker, a2->worker) && bytes_eq(a->error, a2->error));
    buf_clear(&b);
    in = sample(5);
    assert_int_equal(effect_encode(&b, &in), 0);
    assert_int_equal(effect_decode(buf_bytes(&b), &out), 0);
    const struct wire_effect_answer *e = &in.effect, *e2 = &out.effect;
    assert_true(e->id == e2->id && e->grant == e2->grant && e->failures == e2->failures &&
                e->lease_ms == e2->lease_ms && bytes_eq(e->frame, e2->frame));
    buf_fini(&b);
}

static void an_effect_out_of_range_is_refused(void **state)
{
    (void)state;
    struct buf b = {0};
    union message out;
    for (int i = 0; i < 6; i++) {
        union message ask = sample(4), effect = sample(5);
        const int of_ask = i < 4;
        buf_clear(&b);
        ask.ask.worker = i == 0 ? bytes_str("") : ask.ask.worker;
        ask.ask.worker = i == 1 ? bytes_of("a\0b", 3) : ask.ask.worker;
        ask.ask.result = i == 2 ? 3 : ask.ask.result;
        ask.ask.wants = i == 3 ? 2 : ask.ask.wants;
        effect.effect.frame = i == 4 ? bytes_str("") : effect.effect.frame;
        effect.effect.lease_ms = i == 5 ? 0 : effect.effect.lease_ms;
        assert_int_equal(of_ask ? ask_encode(&b, &ask) : effect_encode(&b, &effect), 0);
        assert_int_equal(of_ask ? ask_decode(buf_bytes(&b), &out)
                                : effect_decode(buf_bytes(&b), &out),
                         AZOTH_ERR_BAD_REQUEST);
    }
    buf_fini(&b);
}

static void every_field_of_an_answer_pull_and_batch_comes_back(void **state)
{
    (void)state;
    struct buf b = {0};
    union message in, out;
    in = sample(1);
    assert_int_equal(answer_encode(&b, &in), 0);
    assert_int_equal(answer_decode(buf_bytes(&b), &out), 0);
    const struct wire_answer *a = &in.answer, *a2 = &out.answer;
    assert_true(a->kind == a2->kind && a->code == a2->code && a->flags == a2->flags &&
                a->txn == a2->txn && a->first_event == a2->first_event &&
                a->last_event == a2->last_event && a->keys_written == a2->keys_written &&
                a->keys_deleted == a2->keys_deleted && a->keys_missing == a2->keys_missing);
    assert_true(bytes_eq(a->id, a2->id) && bytes_eq(a->message, a2->message) &&
                bytes_eq(a->body, a2->body));
    buf_clear(&b);
    in = sample(2);
    assert_int_equal(pull_encode(&b, &in), 0);
    assert_int_equal(pull_decode(buf_bytes(&b), &out), 0);
    const struct wire_pull *p = &in.pull, *p2 = &out.pull;
    assert_memory_equal(p->uuid, p2->uuid, 16);
    assert_true(p->subscription == p2->subscription && p->instance == p2->instance &&
                p->cursor == p2->cursor && p->applied == p2->applied &&
                p->cursor_check == p2->cursor_check && p->credit_bytes == p2->credit_bytes &&
                p->shard == p2->shard && p->shards == p2->shards && p->state == p2->state &&
                p->errors == p2->errors && p->breaker == p2->breaker &&
                p->dead_waiting == p2->dead_waiting && p->dead_retired == p2->dead_retired &&
                p->dead_parked == p2->dead_parked && p->stands_event == p2->stands_event &&
                p->next_ns == p2->next_ns && p->wal_bytes == p2->wal_bytes &&
                p->wal_pinned_for_ns == p2->wal_pinned_for_ns);
    assert_true(bytes_eq(p->name, p2->name) && bytes_eq(p->endpoint, p2->endpoint) &&
                bytes_eq(p->types, p2->types) && bytes_eq(p->shard_by, p2->shard_by) &&
                bytes_eq(p->error, p2->error) && bytes_eq(p->samples, p2->samples));
    struct wire_sample one = wire_sample_get(p2->samples.ptr);
    assert_true(one.apply_us == 0x04030201 && one.lag_us == 0x08070605);
    in.pull.samples.len = 7; /* not whole ones */
    buf_clear(&b);
    assert_int_equal(pull_encode(&b, &in), 0);
    assert_int_equal(pull_decode(buf_bytes(&b), &out), AZOTH_ERR_BAD_REQUEST);
    buf_clear(&b);
    in = sample(3);
    assert_int_equal(batch_encode(&b, &in), 0);
    assert_int_equal(batch_decode(buf_bytes(&b), &out), 0);
    const struct wire_batch *t = &in.batch, *t2 = &out.batch;
    assert_true(t->subscription == t2->subscription && t->first == t2->first &&
                t->last == t2->last && t->head == t2->head && t->last_check == t2->last_check &&
                t->code == t2->code);
    assert_true(bytes_eq(t->message, t2->message) && bytes_eq(t->frames, t2->frames));
    buf_fini(&b);
}

/* The encoder writes the bytes of each 'B' itself: tpl is the judge of the whole. */
static void tpl_makes_the_same_image_of_what_it_reads(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct buf b = {0};
        union message m = sample(k);
        assert_int_equal(kinds[k].encode(&b, &m), 0);
        /* Room for each field by its place; tpl does not look at the types of its arguments. */
        union {
            uint64_t number;
            tpl_bin bin;
        } v[25];
        memset(v, 0, sizeof v);
        char format[26];
        strcpy(format, kinds[k].format);
        tpl_node *in = tpl_map(format, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7],
                               &v[8], &v[9], &v[10], &v[11], &v[12], &v[13], &v[14], &v[15], &v[16],
                               &v[17], &v[18], &v[19], &v[20], &v[21], &v[22], &v[23], &v[24]);
        assert_non_null(in);
        assert_int_equal(tpl_load(in, TPL_MEM, b.ptr, b.len), 0);
        assert_true(tpl_unpack(in, 0) > 0);
        tpl_free(in);
        tpl_node *out =
            tpl_map(format, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8], &v[9],
                    &v[10], &v[11], &v[12], &v[13], &v[14], &v[15], &v[16], &v[17], &v[18], &v[19],
                    &v[20], &v[21], &v[22], &v[23], &v[24]);
        assert_non_null(out);
        void *image;
        size_t size;
        assert_int_equal(tpl_pack(out, 0), 0);
        assert_int_equal(tpl_dump(out, TPL_MEM, &image, &size), 0);
        assert_int_equal(size, b.len);
        assert_memory_equal(image, b.ptr, size);
        tpl_free(out);
        free(image);
        for (size_t i = 0; format[i]; i++)
            if (format[i] == 'B' && v[i].bin.sz)
                free(v[i].bin.addr);
        buf_fini(&b);
    }
}

static void an_image_cut_anywhere_is_refused(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct buf b = {0};
        union message m = sample(k), got;
        assert_int_equal(kinds[k].encode(&b, &m), 0);
        for (size_t len = 0; len < b.len; len++) {
            unsigned char *c;
            assert_int_equal(decode_copy(&kinds[k], b.ptr, len, &got, &c), AZOTH_ERR_BAD_REQUEST);
            assert_true(err.message[0]);
            if (len >= 8) { /* also with a length field that agrees */
                put_u32(c + 4, (uint32_t)len);
                assert_int_equal(kinds[k].decode(bytes_of(c, len), &got), AZOTH_ERR_BAD_REQUEST);
            }
            free(c);
        }
        assert_int_equal(buf_add(&b, "", 1), 0); /* nor is anything left over */
        put_u32(b.ptr + 4, (uint32_t)b.len);
        assert_int_equal(kinds[k].decode(buf_bytes(&b), &got), AZOTH_ERR_BAD_REQUEST);
        buf_fini(&b);
    }
}

static void what_is_accepted_with_a_flipped_bit_is_the_image_of_what_it_says(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct buf b = {0}, again = {0};
        union message m = sample(k), got;
        assert_int_equal(kinds[k].encode(&b, &m), 0);
        size_t fixed = 8 + strlen(kinds[k].format) + 1, accepted = 0;
        for (size_t i = 0; i < b.len * 8; i++) {
            unsigned char *c;
            b.ptr[i / 8] ^= (unsigned char)(1 << (i % 8));
            int rc = decode_copy(&kinds[k], b.ptr, b.len, &got, &c);
            if (i / 8 < fixed)
                assert_int_equal(rc, AZOTH_ERR_BAD_REQUEST);
            if (rc == 0) {
                accepted++;
                buf_clear(&again);
                assert_int_equal(kinds[k].encode(&again, &got), 0);
                assert_true(bytes_eq(buf_bytes(&again), buf_bytes(&b)));
            }
            free(c);
            b.ptr[i / 8] ^= (unsigned char)(1 << (i % 8));
        }
        assert_true(accepted > 0); /* in numbers and bytes: the test looks at something */
        buf_fini(&b);
        buf_fini(&again);
    }
}

static void hostile_lengths_are_refused(void **state)
{
    (void)state;
    static const uint32_t lies[] = {0xffffffffu, 0x80000000u, 0x7fffffffu, 0xfffffffcu,
                                    WIRE_MESSAGE_MAX};
    for (int k = 0; k < KINDS; k++) {
        struct buf b = {0};
        union message m = sample(k), got;
        assert_int_equal(kinds[k].encode(&b, &m), 0);
        const char *f = kinds[k].format;
        size_t at = 8 + strlen(f) + 1;
        for (; *f; f++) {
            if (*f != 'B') {
                at += *f == 'U' ? 8 : 4;
                continue;
            }
            uint32_t was = get_u32(b.ptr + at);
            for (size_t i = 0; i < sizeof lies / sizeof *lies + 2; i++) {
                unsigned char *c;
                put_u32(b.ptr + at, i < 5 ? lies[i] : i == 5 ? was + 1 : was - 1);
                assert_int_equal(decode_copy(&kinds[k], b.ptr, b.len, &got, &c),
                                 AZOTH_ERR_BAD_REQUEST);
                free(c);
            }
            put_u32(b.ptr + at, was);
            at += 4 + was;
        }
        assert_int_equal(at, b.len);
        assert_int_equal(kinds[k].decode(buf_bytes(&b), &got), 0);
        buf_fini(&b);
    }
}

static void one_message_is_not_taken_for_another(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct buf b = {0};
        union message m = sample(k), got;
        assert_int_equal(kinds[k].encode(&b, &m), 0);
        for (int other = 0; other < KINDS; other++)
            assert_int_equal(kinds[other].decode(buf_bytes(&b), &got),
                             other == k ? 0 : AZOTH_ERR_BAD_REQUEST);
        buf_fini(&b);
    }
}

/* ---- ranges ---- */

static int again(int kind, const union message *m)
{
    struct buf b = {0};
    union message got;
    assert_int_equal(kinds[kind].encode(&b, m), 0);
    int rc = kinds[kind].decode(buf_bytes(&b), &got);
    buf_fini(&b);
    return rc;
}

#define REFUSED(KIND, FIELD, VALUE)                                                                \
    do {                                                                                           \
        union message m_ = sample(KIND);                                                           \
        assert_int_equal(again(KIND, &m_), 0);                                                     \
        m_.FIELD = (VALUE);                                                                        \
        assert_int_equal(again(KIND, &m_), AZOTH_ERR_BAD_REQUEST);                                 \
    } while (0)

static unsigned char zeros[AZOTH_VALUE_MAX + 1], letters[70000];

static void fields_out_of_their_ranges_are_refused(void **state)
{
    (void)state;
    memset(letters, 'a', sizeof letters);
    REFUSED(0, request.kind, 0);
    REFUSED(0, request.kind, WIRE_PING + 1);
    REFUSED(0, request.flags, 4);
    REFUSED(0, request.flags, 0x80000000u);
    REFUSED(0, request.deadline_ms, 0);
    REFUSED(0, request.deadline_ms, 3600001);
    REFUSED(0, request.limit, 0);
    REFUSED(0, request.limit, 1001);
    REFUSED(0, request.id, bytes_of(zeros, 15));
    REFUSED(0, request.id, bytes_of(zeros, 17));
    REFUSED(0, request.name, bytes_of(zeros, AZOTH_KEY_MAX + 1));
    REFUSED(0, request.after, bytes_of(zeros, AZOTH_KEY_MAX + 1));
    REFUSED(0, request.args, bytes_of(zeros, AZOTH_VALUE_MAX + 1));
    REFUSED(1, answer.kind, WIRE_PING + 1);
    REFUSED(1, answer.code, 1);
    REFUSED(1, answer.id, bytes_of(zeros, 15));
    REFUSED(1, answer.message, bytes_of(letters, 4097));
    REFUSED(2, pull.name, bytes_of(letters, 0));
    REFUSED(2, pull.name, bytes_of(letters, AZOTH_NAME_MAX + 1));
    REFUSED(2, pull.name, bytes_of("a\0b", 3));
    REFUSED(2, pull.endpoint, bytes_of(letters, 128));
    REFUSED(2, pull.endpoint, bytes_of("ipc://a\0b", 9));
    REFUSED(2, pull.shard_by, bytes_of(letters, 256));
    REFUSED(2, pull.shard_by, bytes_of(":\0", 2));
    REFUSED(2, pull.error, bytes_of(letters, 1025));
    REFUSED(2, pull.shards, 0);
    REFUSED(2, pull.shards, 1025);
    REFUSED(2, pull.shard, 1024);
    REFUSED(2, pull.types, bytes_str("\4abc"));
    REFUSED(2, pull.types, bytes_str("\2abc"));
    REFUSED(2, pull.types, bytes_of("\0", 1));
    REFUSED(2, pull.types, bytes_of("\3abc\0", 5));
    REFUSED(3, batch.code, 1);
    REFUSED(3, batch.first, 0);
    REFUSED(3, batch.last, 0);
    REFUSED(3, batch.last, UINT64_MAX);
    REFUSED(3, batch.message, bytes_of(letters, 1025));
    /* An empty batch ends before it begins, by one. */
    union message m = sample(3);
    m.batch.last = m.batch.first - 1;
    assert_int_equal(again(3, &m), 0);
}

/* ---- memory ---- */

static void an_encoding_is_appended_behind_what_is_there(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int k = 0; k < KINDS; k++) {
        union message m = sample(k), got;
        size_t before = b.len;
        assert_int_equal(kinds[k].encode(&b, &m), 0);
        assert_int_equal(kinds[k].decode(bytes_of(b.ptr + before, b.len - before), &got), 0);
    }
    buf_fini(&b);
}

/* tpl's own way with a failed malloc() is to end the process. */
static void an_encoding_takes_memory_for_its_image_alone(void **state)
{
    (void)state;
#if OWN_MALLOC
    for (int k = 0; k < KINDS; k++) {
        struct buf room = {0}, full = {0};
        union message m = sample(k);
        assert_int_equal(buf_reserve(&room, 4096), 0);
        assert_int_equal(kinds[k].encode(&room, &m), 0);
        size_t size = room.len;
        unsigned long before = mallocs;
        no_memory = 1;
        int rc = kinds[k].encode(&room, &m);
        int none = kinds[k].encode(&full, &m);
        no_memory = 0;
        assert_int_equal(rc, 0);
        assert_int_equal(room.len, 2 * size);
        assert_memory_equal(room.ptr, room.ptr + size, size);
        assert_true(mallocs == before);
        assert_int_equal(none, AZOTH_ERR_NOMEM);
        assert_int_equal(full.len, 0);
        buf_fini(&room);
        buf_fini(&full);
    }
#else
    skip();
#endif
}

static void *encode_often(void *arg)
{
    struct buf first[KINDS] = {{0}}, b = {0};
    long wrong = 0;
    for (int i = 0; i < 2000; i++) {
        int k = i % KINDS;
        union message m = sample(k);
        struct buf *out = i < KINDS ? &first[k] : &b;
        buf_clear(out);
        if (kinds[k].encode(out, &m) || !bytes_eq(buf_bytes(out), buf_bytes(&first[k])))
            wrong++;
    }
    for (int k = 0; k < KINDS; k++)
        buf_fini(&first[k]);
    buf_fini(&b);
    *(long *)arg = wrong;
    return NULL;
}

static void threads_encode_at_once(void **state)
{
    (void)state;
    pthread_t t[4];
    long wrong[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, encode_often, &wrong[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(wrong[i], 0);
    }
}

/* ---- items ---- */

static void items_come_back_and_are_refused_cut_or_out_of_range(void **state)
{
    (void)state;
    struct buf b = {0};
    struct azoth_bytes key;
    struct state_record st = {1ull << 40, {AZOTH_TYPE_BYTES, bytes_str("value")}}, got;
    size_t at = 0;
    assert_int_equal(wire_item_add(&b, bytes_of(zeros, AZOTH_KEY_MAX), &st), 0);
    st.value.enc.len = 0;
    assert_int_equal(wire_item_add(&b, bytes_str("k"), &st), 0);
    assert_int_equal(wire_item_next(buf_bytes(&b), &at, &key, &got), 1);
    assert_true(key.len == AZOTH_KEY_MAX && got.version == st.version);
    assert_true(bytes_eq(got.value.enc, bytes_str("value")));
    size_t one = at;
    assert_int_equal(wire_item_next(buf_bytes(&b), &at, &key, &got), 1);
    assert_true(bytes_eq(key, bytes_str("k")) && got.value.enc.len == 0);
    assert_int_equal(wire_item_next(buf_bytes(&b), &at, &key, &got), 0);
    for (size_t len = 1; len < one; len++) {
        at = 0;
        assert_int_equal(wire_item_next(bytes_of(b.ptr, len), &at, &key, &got), AZOTH_ERR_CORRUPT);
        assert_int_equal(at, 0);
    }
    static const struct {
        uint16_t key, type;
        uint32_t value;
    } bad[] = {{0, AZOTH_TYPE_BYTES, 5},
               {AZOTH_KEY_MAX + 1, AZOTH_TYPE_BYTES, 4},
               {1, 0, 0},
               {1, AZOTH_TYPE_I64, 0},
               {1, AZOTH_TYPE_BYTES, UINT32_MAX},
               {UINT16_MAX, AZOTH_TYPE_BYTES, 0x80000000u}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_u16(b.ptr, bad[i].key);
        put_u16(b.ptr + 2, bad[i].type);
        put_u32(b.ptr + 4, bad[i].value);
        at = 0;
        assert_int_equal(wire_item_next(buf_bytes(&b), &at, &key, &got), AZOTH_ERR_CORRUPT);
    }
    buf_fini(&b);
}

static void json_is_told_by_its_first_byte(void **state)
{
    (void)state;
    assert_int_equal(wire_is_json(bytes_str("{}")), 1);
    assert_int_equal(wire_is_json(bytes_str(" \t\r\n{")), 1);
    assert_int_equal(wire_is_json(bytes_str("tpl")), 0);
    assert_int_equal(wire_is_json(bytes_str("[{")), 0);
    assert_int_equal(wire_is_json(bytes_str("   ")), 0);
    assert_int_equal(wire_is_json(bytes_of(NULL, 0)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_encode_at_once), /* first: the hooks are not yet set */
        cmocka_unit_test(every_field_of_an_answer_pull_and_batch_comes_back),
        cmocka_unit_test(every_field_of_what_effects_say_comes_back),
        cmocka_unit_test(an_effect_out_of_range_is_refused),
        cmocka_unit_test(tpl_makes_the_same_image_of_what_it_reads),
        cmocka_unit_test(an_image_cut_anywhere_is_refused),
        cmocka_unit_test(what_is_accepted_with_a_flipped_bit_is_the_image_of_what_it_says),
        cmocka_unit_test(hostile_lengths_are_refused),
        cmocka_unit_test(one_message_is_not_taken_for_another),
        cmocka_unit_test(fields_out_of_their_ranges_are_refused),
        cmocka_unit_test(an_encoding_is_appended_behind_what_is_there),
        cmocka_unit_test(an_encoding_takes_memory_for_its_image_alone),
        cmocka_unit_test(items_come_back_and_are_refused_cut_or_out_of_range),
        cmocka_unit_test(json_is_told_by_its_first_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
