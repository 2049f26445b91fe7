/*
 * record.h - what lies in LMDB under a key: state records and event records, each with a checksum.
 *
 * All integers little-endian, packed without alignment. The checksum is the low 32 bits of
 * XXH3_64bits (xxHash 0.8) over the record without its first 4 bytes, seeded with the event's id or
 * with XXH3_64bits of the state key, so that a record moved under another key fails too.
 *
 *   state   u32 checksum | u8 format=1 | u8 type | u16 0 | u64 version | encoded value
 *   event   u32 checksum | u8 format=1 | u8 type_len | u16 key_len | u32 meta_len | u32 payload_len
 *           | u64 txn | i64 time_ns | type | stream key | metadata | payload
 *
 * The LMDB key of an event is its id, u64 big-endian. `format` leaves room: a decoder answers
 * AZOTH_ERR_FORMAT for one it does not know.
 *
 * An event outside LMDB (a feed batch, a page of events) is a frame: u64 id, u32 length of the
 * record, the record. Frames are concatenated.
 */
#ifndef CORE_RECORD_H
#define CORE_RECORD_H

#include "core/azoth_base.h"
#include "core/buf.h"

#define RECORD_STATE_HEADER 16u
#define RECORD_EVENT_HEADER 32u
#define RECORD_FRAME_HEADER 12u

/* The greatest event record: every field at its limit. */
#define RECORD_EVENT_MAX                                                                           \
    (RECORD_EVENT_HEADER + AZOTH_EVENT_TYPE_MAX + AZOTH_STREAM_KEY_MAX + AZOTH_METADATA_MAX +      \
     AZOTH_PAYLOAD_MAX)

struct state_record {
    uint64_t version; /* transaction id that last changed it */
    struct azoth_value value;
};

struct event_record {
    uint64_t id;
    uint64_t txn;
    int64_t time_ns; /* UTC, since 1970 */
    struct azoth_bytes type, key, metadata, payload;
};

static inline size_t record_state_size(size_t value_len)
{
    return RECORD_STATE_HEADER + value_len;
}
/* Writes record_state_size() bytes to out. */
void record_state_encode(unsigned char *out, struct azoth_bytes key, uint64_t version,
                         struct azoth_value value);
/* Decodes and checks; *ret borrows rec. AZOTH_ERR_CORRUPT, AZOTH_ERR_FORMAT. Safe on any bytes. */
int record_state_decode(struct azoth_bytes key, struct azoth_bytes rec, struct state_record *ret);

size_t record_event_size(const struct event_record *ev);
void record_event_encode(unsigned char *out, const struct event_record *ev);
/* Decodes and checks, as above. */
int record_event_decode(uint64_t id, struct azoth_bytes rec, struct event_record *ret);
/* The record's checksum field (rec has at least 4 bytes). Identifies an event of one history. */
uint32_t record_checksum(struct azoth_bytes rec);

/* Appends a frame. AZOTH_ERR_NOMEM. */
int record_frame_add(struct buf *out, uint64_t id, struct azoth_bytes rec);
/* Steps through frames: begin with *at = 0. 1 and *ret (checked; borrows frames), 0 at the end,
 * or AZOTH_ERR_CORRUPT, AZOTH_ERR_FORMAT. *ret_check (may be NULL) gets the record's checksum. */
int record_frame_next(struct azoth_bytes frames, size_t *at, struct event_record *ret,
                      uint32_t *ret_check);

/* Integers of the formats above. */
static inline void put_u16(unsigned char *p, uint16_t v)
{
    __builtin_memcpy(p, &v, 2);
}
static inline void put_u32(unsigned char *p, uint32_t v)
{
    __builtin_memcpy(p, &v, 4);
}
static inline void put_u64(unsigned char *p, uint64_t v)
{
    __builtin_memcpy(p, &v, 8);
}
static inline uint16_t get_u16(const unsigned char *p)
{
    uint16_t v;
    __builtin_memcpy(&v, p, 2);
    return v;
}
static inline uint32_t get_u32(const unsigned char *p)
{
    uint32_t v;
    __builtin_memcpy(&v, p, 4);
    return v;
}
static inline uint64_t get_u64(const unsigned char *p)
{
    uint64_t v;
    __builtin_memcpy(&v, p, 8);
    return v;
}
static inline void put_be64(unsigned char *p, uint64_t v)
{
    put_u64(p, __builtin_bswap64(v));
}
static inline uint64_t get_be64(const unsigned char *p)
{
    return __builtin_bswap64(get_u64(p));
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "formats are little-endian, so is the machine");

#endif
