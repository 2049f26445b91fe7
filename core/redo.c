#include "core/redo.h"

#include "core/error.h"

#include <string.h>
#include <xxhash.h>

#define FORMAT_1 1
#define HAS_ID   1u

static uint32_t checksum(uint64_t txn, const unsigned char *rec, size_t len)
{
    return (uint32_t)XXH3_64bits_withSeed(rec + 4, len - 4, txn);
}

unsigned char *redo_put_header(unsigned char *out, const struct redo_record *r)
{
    memset(out, 0, REDO_HEADER);
    out[4] = FORMAT_1;
    out[5] = r->has_id ? HAS_ID : 0;
    put_u64(out + 8, (uint64_t)r->time_ns);
    put_u64(out + 16, r->first_event);
    put_u64(out + 24, r->last_event);
    put_u64(out + 32, r->running_ms);
    put_u64(out + 40, r->id_first);
    if (r->has_id) {
        memcpy(out + 48, r->id, AZOTH_ID_BYTES);
        put_u64(out + 64, r->id_age);
        put_u64(out + 72, r->content);
    }
    put_u32(out + 80, r->keys_written);
    put_u32(out + 84, r->keys_deleted);
    put_u32(out + 88, r->keys_missing);
    put_u32(out + 92, r->ops);
    return out + REDO_HEADER;
}

unsigned char *redo_put_op(unsigned char *to, const struct redo_op *op)
{
    size_t value_len = op->deleted ? 0 : op->value.enc.len;
    to[0] = op->deleted ? 0 : (unsigned char)op->value.type;
    to[1] = 0;
    put_u16(to + 2, (uint16_t)op->key.len);
    put_u32(to + 4, (uint32_t)value_len);
    to += REDO_OP_HEADER;
    memcpy(to, op->key.ptr, op->key.len);
    to += op->key.len;
    if (value_len)
        memcpy(to, op->value.enc.ptr, value_len);
    return to + value_len;
}

void redo_seal(unsigned char *out, size_t len, uint64_t txn)
{
    put_u32(out, checksum(txn, out, len));
}

/* The operation at p, which has `left` bytes: its size, or 0 when it does not fit. */
static size_t op_split(const unsigned char *p, size_t left, struct redo_op *ret)
{
    if (left < REDO_OP_HEADER || p[1])
        return 0;
    size_t key_len = get_u16(p + 2), value_len = get_u32(p + 4);
    if (key_len < 1 || key_len > AZOTH_KEY_MAX || value_len > AZOTH_VALUE_MAX ||
        (!p[0] && value_len) || redo_op_size(key_len, value_len) > left)
        return 0;
    *ret = (struct redo_op){
        .key = bytes_of(p + REDO_OP_HEADER, key_len),
        .deleted = !p[0],
        .value = {p[0], bytes_of(p + REDO_OP_HEADER + key_len, value_len)},
    };
    return redo_op_size(key_len, value_len);
}

static int ops_check(const struct redo_record *r)
{
    size_t at = 0;
    for (uint32_t i = 0; i < r->ops; i++) {
        struct redo_op op;
        size_t size = op_split((const unsigned char *)r->body.ptr + at, r->body.len - at, &op);
        if (size == 0)
            return AZOTH_ERR_CORRUPT;
        at += size;
    }
    return at == r->body.len ? 0 : AZOTH_ERR_CORRUPT;
}

int redo_decode(uint64_t txn, struct azoth_bytes rec, struct redo_record *ret)
{
    const unsigned char *p = rec.ptr;
    if (rec.len < REDO_HEADER || rec.len > REDO_RECORD_MAX ||
        get_u32(p) != checksum(txn, p, rec.len))
        return AZOTH_ERR_CORRUPT;
    if (p[4] != FORMAT_1)
        return AZOTH_ERR_FORMAT;
    struct redo_record r = {
        .txn = txn,
        .time_ns = (int64_t)get_u64(p + 8),
        .first_event = get_u64(p + 16),
        .last_event = get_u64(p + 24),
        .running_ms = get_u64(p + 32),
        .id_first = get_u64(p + 40),
        .has_id = p[5] & HAS_ID,
        .id_age = get_u64(p + 64),
        .content = get_u64(p + 72),
        .keys_written = get_u32(p + 80),
        .keys_deleted = get_u32(p + 84),
        .keys_missing = get_u32(p + 88),
        .ops = get_u32(p + 92),
        .body = bytes_of(p + REDO_HEADER, rec.len - REDO_HEADER),
    };
    memcpy(r.id, p + 48, AZOTH_ID_BYTES);
    int rc = ops_check(&r);
    if (!rc)
        *ret = r;
    return rc;
}

int redo_next(const struct redo_record *r, size_t *at, struct redo_op *ret)
{
    if (*at >= r->body.len)
        return 0;
    size_t size = op_split((const unsigned char *)r->body.ptr + *at, r->body.len - *at, ret);
    *at += size;
    return size != 0;
}
