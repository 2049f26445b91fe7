/*
 * wire.c - envelopes as tpl images (tpl 1.6, "tpl: serialize C data": magic, flags, length, format
 * string, then the fields in order, integers in the byte order that the flags tell).
 *
 * Encoding is tpl's own but for the bytes of each 'B', see finish(). Decoding walks the image with
 * a bounds-checked reader of the same layout, for scalars and 'B' only: tpl_load() copies every
 * image and trusts lengths that come from outside, and tpl_unpack() allocates for each 'B'. An
 * image is accepted only when its flags byte, length field and format string are exactly what our
 * encoder writes, so the two stay one format; a test decodes with tpl what this file accepts.
 */
#include "core/wire.h"

#include "core/error.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <tpl.h>

extern tpl_hook_t tpl_hook; /* exported by the library; its header keeps silent about it */

/* One letter a field, as tpl writes them: u uint32, i int32, U uint64, B bytes. */
#define REQUEST_FORMAT       "uuuuUUBBBBB"
#define ANSWER_FORMAT        "uiuUUUuuuBBB"
#define PULL_FORMAT          "UUUUuuuuuuUUUUUUUUBBBBBBB"
#define BATCH_FORMAT         "UUUUuiBB"
#define EFFECT_ASK_FORMAT    "UUuuuBB"
#define EFFECT_ANSWER_FORMAT "UuuuB"

/* ---- encoding ---- */

/*
 * tpl allocates a node for each field and calls `fatal`, which must not return, when it gets none.
 * So its memory during an encoding comes from this pool, which is large enough for every format
 * above: no encoding can run into `fatal`, and none allocates but in the caller's buf. Users of tpl
 * beside us in one process get malloc() as ever.
 */
static _Thread_local struct {
    _Alignas(16) unsigned char bytes[4096];
    size_t used;
    int active;
} pool;

static void *pool_malloc(size_t n)
{
    size_t size = (n + 15) & ~(size_t)15;
    if (!pool.active || size > sizeof pool.bytes - pool.used)
        return malloc(n);
    void *p = pool.bytes + pool.used;
    pool.used += size;
    return p;
}

static void pool_free(void *p)
{
    uintptr_t at = (uintptr_t)p, begin = (uintptr_t)pool.bytes;
    if (at < begin || at >= begin + sizeof pool.bytes)
        free(p);
}

static int quiet(const char *fmt, ...)
{
    (void)fmt;
    return 0;
}

static void fatal(const char *fmt, ...)
{
    (void)fmt;
    /* Only a format string of this file, or one too long for the pool, could bring us here: a bug
     * of ours, seen by the first test. tpl's own hook would exit() without a trace. */
    ensure_failed("tpl accepts our format", __FILE__, __LINE__);
}

static void set_hooks(void)
{
    tpl_hook.oops = quiet;
    tpl_hook.fatal = fatal;
    tpl_hook.malloc = pool_malloc;
    tpl_hook.free = pool_free;
}

static void begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_hooks);
    pool.used = 0;
    pool.active = 1;
}

/* What tpl is given for every 'B': see finish(). */
static tpl_bin none = {(void *)(uintptr_t) "", 0};

/*
 * Appends the image. tpl writes it with empty 'B's, which stand last in every format; their lengths
 * and bytes are put in here. So a body is copied once; tpl_pack() and tpl_dump() copy it each.
 */
static int finish(struct buf *out, tpl_node *tn, const struct azoth_bytes *bins, size_t n)
{
    size_t size = 0, total;
    unsigned char *to = NULL;
    int rc = AZOTH_ERR_NOMEM;
    if (tn && tpl_pack(tn, 0) == 0 && tpl_dump(tn, TPL_GETSIZE, &size) == 0) {
        total = size;
        for (size_t i = 0; i < n; i++)
            total += bins[i].len;
        /* More than the length field can say is more than anyone has memory for. */
        if (total <= UINT32_MAX && buf_reserve(out, total) == 0)
            to = out->ptr + out->len;
    }
    if (to && tpl_dump(tn, TPL_MEM | TPL_PREALLOCD, to, size) == 0) {
        unsigned char *at = to + size - 4 * n;
        for (size_t i = 0; i < n; i++) {
            put_u32(at, (uint32_t)bins[i].len);
            if (bins[i].len)
                memcpy(at + 4, bins[i].ptr, bins[i].len);
            at += 4 + bins[i].len;
        }
        put_u32(to + 4, (uint32_t)total);
        out->len += total;
        rc = 0;
    }
    if (tn)
        tpl_free(tn);
    pool.active = 0;
    return rc;
}

int wire_request_encode(struct buf *out, const struct wire_request *m)
{
    begin();
    struct wire_request c = *m;
    const struct azoth_bytes bins[] = {m->id, m->name, m->body, m->args, m->after};
    tpl_node *tn = tpl_map(REQUEST_FORMAT, &c.kind, &c.flags, &c.deadline_ms, &c.limit, &c.from,
                           &c.to, &none, &none, &none, &none, &none);
    return finish(out, tn, bins, 5);
}

int wire_answer_encode(struct buf *out, const struct wire_answer *m)
{
    begin();
    struct wire_answer c = *m;
    const struct azoth_bytes bins[] = {m->id, m->message, m->body};
    tpl_node *tn =
        tpl_map(ANSWER_FORMAT, &c.kind, &c.code, &c.flags, &c.txn, &c.first_event, &c.last_event,
                &c.keys_written, &c.keys_deleted, &c.keys_missing, &none, &none, &none);
    return finish(out, tn, bins, 3);
}

int wire_pull_encode(struct buf *out, const struct wire_pull *m)
{
    begin();
    struct wire_pull c = *m;
    const struct azoth_bytes bins[] = {bytes_of(m->uuid, 16), m->name,  m->endpoint, m->types,
                                       m->shard_by,           m->error, m->samples};
    tpl_node *tn = tpl_map(PULL_FORMAT, &c.subscription, &c.instance, &c.cursor, &c.applied,
                           &c.cursor_check, &c.credit_bytes, &c.shard, &c.shards, &c.state,
                           &c.breaker, &c.errors, &c.dead_waiting, &c.dead_retired, &c.dead_parked,
                           &c.stands_event, &c.next_ns, &c.wal_bytes, &c.wal_pinned_for_ns, &none,
                           &none, &none, &none, &none, &none, &none);
    return finish(out, tn, bins, 7);
}

void wire_sample_put(unsigned char out[WIRE_SAMPLE], const struct wire_sample *s)
{
    put_u32(out, s->apply_us);
    put_u32(out + 4, s->lag_us);
}

struct wire_sample wire_sample_get(const unsigned char in[WIRE_SAMPLE])
{
    return (struct wire_sample){get_u32(in), get_u32(in + 4)};
}

int wire_batch_encode(struct buf *out, const struct wire_batch *m)
{
    begin();
    struct wire_batch c = *m;
    const struct azoth_bytes bins[] = {m->message, m->frames};
    tpl_node *tn = tpl_map(BATCH_FORMAT, &c.subscription, &c.first, &c.last, &c.head, &c.last_check,
                           &c.code, &none, &none);
    return finish(out, tn, bins, 2);
}

int wire_effect_ask_encode(struct buf *out, const struct wire_effect_ask *m)
{
    begin();
    struct wire_effect_ask c = *m;
    const struct azoth_bytes bins[] = {m->worker, m->error};
    tpl_node *tn =
        tpl_map(EFFECT_ASK_FORMAT, &c.instance, &c.id, &c.grant, &c.result, &c.wants, &none, &none);
    return finish(out, tn, bins, 2);
}

int wire_effect_answer_encode(struct buf *out, const struct wire_effect_answer *m)
{
    begin();
    struct wire_effect_answer c = *m;
    tpl_node *tn = tpl_map(EFFECT_ANSWER_FORMAT, &c.id, &c.grant, &c.failures, &c.lease_ms, &none);
    return finish(out, tn, &m->frame, 1);
}

int wire_batch_begin(struct buf *out)
{
    buf_clear(out);
    return buf_grow(out, WIRE_BATCH_ENVELOPE) ? 0 : AZOTH_ERR_NOMEM;
}

int wire_batch_seal(struct buf *out, const struct wire_batch *m)
{
    ensure(out->len >= WIRE_BATCH_ENVELOPE);
    size_t frames = out->len - WIRE_BATCH_ENVELOPE;
    if (out->len > UINT32_MAX)
        return AZOTH_ERR_NOMEM;
    struct wire_batch c = *m;
    c.message = c.frames = bytes_of("", 0);
    struct buf head = {0};
    int rc = wire_batch_encode(&head, &c);
    if (!rc) {
        ensure(head.len == WIRE_BATCH_ENVELOPE);
        memcpy(out->ptr, head.ptr, head.len);
        put_u32(out->ptr + 4, (uint32_t)out->len);
        put_u32(out->ptr + WIRE_BATCH_ENVELOPE - 4, (uint32_t)frames);
    }
    buf_fini(&head);
    return rc;
}

/* ---- decoding ---- */

struct reader {
    const unsigned char *p;
    size_t left;
    int failed;
};

static int reader_open(struct reader *r, struct azoth_bytes image, const char *format,
                       struct azoth_error *err)
{
    const unsigned char *p = image.ptr;
    size_t n = strlen(format) + 1;
    if (image.len > WIRE_MESSAGE_MAX)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a message of %zu bytes: at most %u",
                         image.len, WIRE_MESSAGE_MAX);
    if (image.len < 8 + n || memcmp(p, "tpl", 3) != 0)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "neither JSON nor a tpl image");
    /* What our encoder writes: little-endian, no strings. */
    if (p[3] != 0)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a tpl image with flags %02x", p[3]);
    if (get_u32(p + 4) != image.len)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a tpl image of %zu bytes that says %u",
                         image.len, get_u32(p + 4));
    if (memcmp(p + 8, format, n) != 0)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a tpl image of another format");
    *r = (struct reader){p + 8 + n, image.len - 8 - n, 0};
    return 0;
}

static const unsigned char *take(struct reader *r, size_t n)
{
    static const unsigned char zeros[8];
    if (r->failed || r->left < n) {
        r->failed = 1;
        return zeros;
    }
    const unsigned char *p = r->p;
    r->p += n;
    r->left -= n;
    return p;
}

static uint32_t take_u32(struct reader *r)
{
    return get_u32(take(r, 4));
}

static uint64_t take_u64(struct reader *r)
{
    return get_u64(take(r, 8));
}

static struct azoth_bytes take_bytes(struct reader *r, size_t most)
{
    size_t n = take_u32(r);
    if (n > most || n > r->left)
        r->failed = 1;
    if (r->failed)
        return bytes_of("", 0);
    const unsigned char *p = r->p;
    r->p += n;
    r->left -= n;
    return bytes_of(p, n);
}

static int reader_close(const struct reader *r, struct azoth_error *err)
{
    if (r->failed || r->left)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a tpl image whose lengths do not fit it");
    return 0;
}

int wire_request_decode(struct azoth_bytes image, struct wire_request *ret, struct azoth_error *err)
{
    struct reader r;
    int rc = reader_open(&r, image, REQUEST_FORMAT, err);
    if (rc)
        return rc;
    struct wire_request m = {0};
    m.kind = take_u32(&r);
    m.flags = take_u32(&r);
    m.deadline_ms = take_u32(&r);
    m.limit = take_u32(&r);
    m.from = take_u64(&r);
    m.to = take_u64(&r);
    m.id = take_bytes(&r, AZOTH_ID_BYTES);
    m.name = take_bytes(&r, AZOTH_KEY_MAX);
    m.body = take_bytes(&r, AZOTH_TXN_BYTES_MAX);
    m.args = take_bytes(&r, AZOTH_VALUE_MAX);
    m.after = take_bytes(&r, AZOTH_KEY_MAX);
    rc = reader_close(&r, err);
    if (rc)
        return rc;
    if (m.kind < WIRE_TX || m.kind > WIRE_PING)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a request of kind %u", m.kind);
    if (m.id.len != 0 && m.id.len != AZOTH_ID_BYTES)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a request id has 16 bytes");
    /* A flag that is not understood asks for something that would not be done. */
    if (m.flags & ~(uint32_t)(WIRE_AT_LEAST_ONCE | WIRE_WAIT_PAUSED))
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a request with flags %x", m.flags);
    if (m.deadline_ms < 1 || m.deadline_ms > 3600000)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a deadline is 1 ms to 1 h");
    if (m.limit < 1 || m.limit > 1000)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a page has 1 to 1000 rows");
    *ret = m;
    return 0;
}

int wire_answer_decode(struct azoth_bytes image, struct wire_answer *ret, struct azoth_error *err)
{
    struct reader r;
    int rc = reader_open(&r, image, ANSWER_FORMAT, err);
    if (rc)
        return rc;
    struct wire_answer m = {0};
    m.kind = take_u32(&r);
    m.code = (int32_t)take_u32(&r);
    m.flags = take_u32(&r);
    m.txn = take_u64(&r);
    m.first_event = take_u64(&r);
    m.last_event = take_u64(&r);
    m.keys_written = take_u32(&r);
    m.keys_deleted = take_u32(&r);
    m.keys_missing = take_u32(&r);
    m.id = take_bytes(&r, AZOTH_ID_BYTES);
    m.message = take_bytes(&r, 4096);
    m.body = take_bytes(&r, WIRE_MESSAGE_MAX);
    rc = reader_close(&r, err);
    if (rc)
        return rc;
    if (m.code > 0 || m.kind > WIRE_PING)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "an answer of kind %u with code %d", m.kind,
                         m.code);
    if (m.id.len != 0 && m.id.len != AZOTH_ID_BYTES)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a request id has 16 bytes");
    *ret = m;
    return 0;
}

/* Names and endpoints become C strings at the feed: what lies behind a NUL would be lost. */
static int is_text(struct azoth_bytes b)
{
    return b.len == 0 || !memchr(b.ptr, 0, b.len);
}

/* A list of u8 length and bytes, each with at least one. */
static int is_list(struct azoth_bytes b)
{
    const unsigned char *p = b.ptr;
    size_t at = 0;
    while (at < b.len && p[at] > 0 && p[at] <= b.len - at - 1)
        at += 1u + p[at];
    return at == b.len;
}

int wire_pull_decode(struct azoth_bytes image, struct wire_pull *ret, struct azoth_error *err)
{
    struct reader r;
    int rc = reader_open(&r, image, PULL_FORMAT, err);
    if (rc)
        return rc;
    struct wire_pull m = {.subscription = 0};
    m.subscription = take_u64(&r);
    m.instance = take_u64(&r);
    m.cursor = take_u64(&r);
    m.applied = take_u64(&r);
    m.cursor_check = take_u32(&r);
    m.credit_bytes = take_u32(&r);
    m.shard = take_u32(&r);
    m.shards = take_u32(&r);
    m.state = take_u32(&r);
    m.breaker = take_u32(&r);
    m.errors = take_u64(&r);
    m.dead_waiting = take_u64(&r);
    m.dead_retired = take_u64(&r);
    m.dead_parked = take_u64(&r);
    m.stands_event = take_u64(&r);
    m.next_ns = take_u64(&r);
    m.wal_bytes = take_u64(&r);
    m.wal_pinned_for_ns = take_u64(&r);
    struct azoth_bytes uuid = take_bytes(&r, 16);
    m.name = take_bytes(&r, AZOTH_NAME_MAX);
    m.endpoint = take_bytes(&r, 127);
    m.types = take_bytes(&r, 65536);
    m.shard_by = take_bytes(&r, 255);
    m.error = take_bytes(&r, 1024);
    m.samples = take_bytes(&r, WIRE_SAMPLE * WIRE_SAMPLES_MAX);
    rc = reader_close(&r, err);
    if (rc)
        return rc;
    if (uuid.len != 16 || m.name.len < 1 || m.shards < 1 || m.shards > 1024 || m.shard >= m.shards)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a pull with fields out of their ranges");
    if (!is_text(m.name) || !is_text(m.endpoint) || !is_text(m.shard_by) || !is_list(m.types) ||
        m.samples.len % WIRE_SAMPLE)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a pull with malformed fields");
    memcpy(m.uuid, uuid.ptr, 16);
    *ret = m;
    return 0;
}

int wire_batch_decode(struct azoth_bytes image, struct wire_batch *ret, struct azoth_error *err)
{
    struct reader r;
    int rc = reader_open(&r, image, BATCH_FORMAT, err);
    if (rc)
        return rc;
    struct wire_batch m = {0};
    m.subscription = take_u64(&r);
    m.first = take_u64(&r);
    m.last = take_u64(&r);
    m.head = take_u64(&r);
    m.last_check = take_u32(&r);
    m.code = (int32_t)take_u32(&r);
    m.message = take_bytes(&r, 1024);
    m.frames = take_bytes(&r, WIRE_MESSAGE_MAX);
    rc = reader_close(&r, err);
    if (rc)
        return rc;
    if (m.code > 0 || m.first < 1 || m.last + 1 < m.first || m.last == UINT64_MAX)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "a batch with fields out of their ranges");
    *ret = m;
    return 0;
}

int wire_effect_ask_decode(struct azoth_bytes image, struct wire_effect_ask *ret,
                           struct azoth_error *err)
{
    struct reader r;
    int rc = reader_open(&r, image, EFFECT_ASK_FORMAT, err);
    if (rc)
        return rc;
    struct wire_effect_ask m = {0};
    m.instance = take_u64(&r);
    m.id = take_u64(&r);
    m.grant = take_u32(&r);
    m.result = take_u32(&r);
    m.wants = take_u32(&r);
    m.worker = take_bytes(&r, AZOTH_NAME_MAX);
    m.error = take_bytes(&r, 1024);
    rc = reader_close(&r, err);
    if (rc)
        return rc;
    if (m.worker.len < 1 || !is_text(m.worker) || !is_text(m.error) ||
        m.result > WIRE_EFFECT_GIVEN_BACK || m.wants > 1)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "an effect with fields out of their ranges");
    *ret = m;
    return 0;
}

int wire_effect_answer_decode(struct azoth_bytes image, struct wire_effect_answer *ret,
                              struct azoth_error *err)
{
    struct reader r;
    int rc = reader_open(&r, image, EFFECT_ANSWER_FORMAT, err);
    if (rc)
        return rc;
    struct wire_effect_answer m = {0};
    m.id = take_u64(&r);
    m.grant = take_u32(&r);
    m.failures = take_u32(&r);
    m.lease_ms = take_u32(&r);
    m.frame = take_bytes(&r, WIRE_MESSAGE_MAX);
    rc = reader_close(&r, err);
    if (rc)
        return rc;
    if ((m.id == 0) != (m.frame.len == 0) || (m.id && m.lease_ms == 0))
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "an effect's answer that is none");
    *ret = m;
    return 0;
}

/* ---- items ---- */

int wire_item_add(struct buf *out, struct azoth_bytes key, const struct state_record *st)
{
    unsigned char *p = buf_grow(out, 16 + key.len + st->value.enc.len);
    if (!p)
        return AZOTH_ERR_NOMEM;
    put_u16(p, (uint16_t)key.len);
    put_u16(p + 2, (uint16_t)st->value.type);
    put_u32(p + 4, (uint32_t)st->value.enc.len);
    put_u64(p + 8, st->version);
    memcpy(p + 16, key.ptr, key.len);
    if (st->value.enc.len)
        memcpy(p + 16 + key.len, st->value.enc.ptr, st->value.enc.len);
    return 0;
}

int wire_item_next(struct azoth_bytes items, size_t *at, struct azoth_bytes *ret_key,
                   struct state_record *ret)
{
    if (*at >= items.len)
        return 0;
    const unsigned char *p = (const unsigned char *)items.ptr + *at;
    size_t left = items.len - *at;
    if (left < 16 || (size_t)get_u16(p) + get_u32(p + 4) > left - 16)
        return AZOTH_ERR_CORRUPT;
    size_t key = get_u16(p), value = get_u32(p + 4);
    struct azoth_value v = {get_u16(p + 2), bytes_of(p + 16 + key, value)};
    if (key < 1 || key > AZOTH_KEY_MAX || value_check(v))
        return AZOTH_ERR_CORRUPT;
    *ret_key = bytes_of(p + 16, key);
    *ret = (struct state_record){get_u64(p + 8), v};
    *at += 16 + key + value;
    return 1;
}

int wire_is_json(struct azoth_bytes message)
{
    const unsigned char *p = message.ptr;
    for (size_t i = 0; i < message.len; i++)
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r' && p[i] != '\n')
            return p[i] == '{';
    return 0;
}
