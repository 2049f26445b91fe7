#include "core/record.h"

#include "core/error.h"

#include <string.h>
/* Inlined: the lengths of records are short, a call costs as much as the sum. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#define FORMAT_1 1

/* The record without its first 4 bytes, seeded by its key: one pass, no streaming state. */
static uint32_t state_checksum(struct azoth_bytes key, const unsigned char *rec, size_t len)
{
    return (uint32_t)XXH3_64bits_withSeed(rec + 4, len - 4, XXH3_64bits(key.ptr, key.len));
}

static uint32_t event_checksum(uint64_t id, const unsigned char *rec, size_t len)
{
    return (uint32_t)XXH3_64bits_withSeed(rec + 4, len - 4, id);
}

void record_state_encode(unsigned char *out, struct azoth_bytes key, uint64_t version,
                         struct azoth_value value)
{
    out[4] = FORMAT_1;
    out[5] = (unsigned char)value.type;
    put_u16(out + 6, 0);
    put_u64(out + 8, version);
    if (value.enc.len)
        memcpy(out + RECORD_STATE_HEADER, value.enc.ptr, value.enc.len);
    put_u32(out, state_checksum(key, out, record_state_size(value.enc.len)));
}

int record_state_decode(struct azoth_bytes key, struct azoth_bytes rec, struct state_record *ret)
{
    const unsigned char *p = rec.ptr;
    if (rec.len < RECORD_STATE_HEADER || get_u32(p) != state_checksum(key, p, rec.len))
        return AZOTH_ERR_CORRUPT;
    if (p[4] != FORMAT_1)
        return AZOTH_ERR_FORMAT;
    ret->version = get_u64(p + 8);
    ret->value = (struct azoth_value){
        p[5], bytes_of(p + RECORD_STATE_HEADER, rec.len - RECORD_STATE_HEADER)};
    return 0;
}

size_t record_event_size(const struct event_record *ev)
{
    return RECORD_EVENT_HEADER + ev->type.len + ev->key.len + ev->metadata.len + ev->payload.len;
}

static unsigned char *append(unsigned char *to, struct azoth_bytes b)
{
    if (b.len)
        memcpy(to, b.ptr, b.len);
    return to + b.len;
}

void record_event_encode(unsigned char *out, const struct event_record *ev)
{
    out[4] = FORMAT_1;
    out[5] = (unsigned char)ev->type.len;
    put_u16(out + 6, (uint16_t)ev->key.len);
    put_u32(out + 8, (uint32_t)ev->metadata.len);
    put_u32(out + 12, (uint32_t)ev->payload.len);
    put_u64(out + 16, ev->txn);
    put_u64(out + 24, (uint64_t)ev->time_ns);
    unsigned char *p = out + RECORD_EVENT_HEADER;
    p = append(p, ev->type);
    p = append(p, ev->key);
    p = append(p, ev->metadata);
    p = append(p, ev->payload);
    put_u32(out, event_checksum(ev->id, out, (size_t)(p - out)));
}

int record_event_decode(uint64_t id, struct azoth_bytes rec, struct event_record *ret)
{
    const unsigned char *p = rec.ptr;
    if (rec.len < RECORD_EVENT_HEADER || get_u32(p) != event_checksum(id, p, rec.len))
        return AZOTH_ERR_CORRUPT;
    if (p[4] != FORMAT_1)
        return AZOTH_ERR_FORMAT;
    uint64_t type_len = p[5], key_len = get_u16(p + 6), meta_len = get_u32(p + 8),
             payload_len = get_u32(p + 12);
    if (RECORD_EVENT_HEADER + type_len + key_len + meta_len + payload_len != rec.len)
        return AZOTH_ERR_CORRUPT;
    const unsigned char *at = p + RECORD_EVENT_HEADER;
    ret->id = id;
    ret->txn = get_u64(p + 16);
    ret->time_ns = (int64_t)get_u64(p + 24);
    ret->type = bytes_of(at, type_len);
    ret->key = bytes_of(at + type_len, key_len);
    ret->metadata = bytes_of(at + type_len + key_len, meta_len);
    ret->payload = bytes_of(at + type_len + key_len + meta_len, payload_len);
    return 0;
}

uint32_t record_checksum(struct azoth_bytes rec)
{
    ensure(rec.len >= 4);
    return get_u32(rec.ptr);
}

int record_frame_add(struct buf *out, uint64_t id, struct azoth_bytes rec)
{
    unsigned char *p = buf_grow(out, RECORD_FRAME_HEADER + rec.len);
    if (!p)
        return AZOTH_ERR_NOMEM;
    put_u64(p, id);
    put_u32(p + 8, (uint32_t)rec.len);
    memcpy(p + RECORD_FRAME_HEADER, rec.ptr, rec.len);
    return 0;
}

int record_frame_next(struct azoth_bytes frames, size_t *at, struct event_record *ret,
                      uint32_t *ret_check)
{
    if (*at >= frames.len)
        return 0;
    const unsigned char *p = (const unsigned char *)frames.ptr + *at;
    size_t left = frames.len - *at;
    if (left < RECORD_FRAME_HEADER || get_u32(p + 8) > left - RECORD_FRAME_HEADER)
        return AZOTH_ERR_CORRUPT;
    struct azoth_bytes rec = bytes_of(p + RECORD_FRAME_HEADER, get_u32(p + 8));
    int rc = record_event_decode(get_u64(p), rec, ret);
    if (rc)
        return rc;
    if (ret_check)
        *ret_check = record_checksum(rec);
    *at += RECORD_FRAME_HEADER + rec.len;
    return 1;
}
