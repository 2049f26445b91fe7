#include "core/batchrec.h"

#include "core/record.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC_1 0x31425a41u /* "AZB1" */
#define MAGIC   0x32425a41u /* "AZB2" */
#define HEAD_1  80u         /* bytes of a head of format 1 */
#define CHAINED 1u

static uint64_t checksum(const unsigned char *rec, size_t len, size_t head)
{
    return XXH3_64bits_withSeed(rec + head, len - head, XXH3_64bits(rec, head - 8));
}

/* Bytes of the head before the entries; 0 when rec is none. */
static size_t head_bytes(struct azoth_bytes rec)
{
    size_t n = rec.len < HEAD_1              ? 0
               : get_u32(rec.ptr) == MAGIC_1 ? HEAD_1
               : get_u32(rec.ptr) == MAGIC   ? BATCH_HEAD
                                             : 0;
    return n <= rec.len ? n : 0;
}

void batch_encode(unsigned char *out, const struct batch_head *h, const struct batch_entry *entries)
{
    put_u32(out, MAGIC);
    put_u32(out + 4, h->count);
    put_u64(out + 8, h->incarnation);
    put_u64(out + 16, h->epoch);
    put_u64(out + 24, h->event);
    put_u64(out + 32, h->txn);
    put_u64(out + 40, (uint64_t)h->time_ns);
    put_u64(out + 48, h->running_ms);
    put_u64(out + 56, h->id_first);
    put_u64(out + 64, h->id_next);
    memset(out + 72, 0, BATCH_HEAD - 80);
    if (h->chain.on) {
        put_u64(out + 72, CHAINED);
        memcpy(out + 80, h->chain.value, CHAIN_BYTES);
        put_u64(out + 112, h->chain.txn);
        put_u64(out + 120, h->chain.event);
    }
    unsigned char *p = out + BATCH_HEAD;
    for (uint32_t i = 0; i < h->count; i++, p += BATCH_ENTRY) {
        const struct batch_entry *e = &entries[i];
        put_u32(p, e->slot);
        put_u32(p + 4, (uint32_t)e->code);
        put_u64(p + 8, e->ticket);
        put_u64(p + 16, e->result.txn);
        put_u64(p + 24, e->result.first_event);
        put_u64(p + 32, e->result.last_event);
        put_u32(p + 40, e->result.keys_written);
        put_u32(p + 44, e->result.keys_deleted);
        put_u32(p + 48, e->result.keys_missing);
        put_u32(p + 52, e->result.duplicate);
    }
    put_u64(out + BATCH_HEAD - 8, checksum(out, (size_t)(p - out), BATCH_HEAD));
}

int batch_decode(struct azoth_bytes rec, struct batch_head *ret)
{
    const unsigned char *p = rec.ptr;
    size_t head = head_bytes(rec);
    if (!head)
        return AZOTH_ERR_CORRUPT;
    struct batch_head h = {
        .count = get_u32(p + 4),
        .incarnation = get_u64(p + 8),
        .epoch = get_u64(p + 16),
        .event = get_u64(p + 24),
        .txn = get_u64(p + 32),
        .time_ns = (int64_t)get_u64(p + 40),
        .running_ms = get_u64(p + 48),
        .id_first = get_u64(p + 56),
        .id_next = get_u64(p + 64),
    };
    if ((rec.len - head) % BATCH_ENTRY || (rec.len - head) / BATCH_ENTRY != h.count)
        return AZOTH_ERR_CORRUPT;
    if (checksum(p, rec.len, head) != get_u64(p + head - 8))
        return AZOTH_ERR_CORRUPT;
    if (head == BATCH_HEAD && get_u64(p + 72) == CHAINED) {
        h.chain = (struct chain){.txn = get_u64(p + 112), .event = get_u64(p + 120), .on = 1};
        memcpy(h.chain.value, p + 80, CHAIN_BYTES);
    }
    *ret = h;
    return 0;
}

void batch_entry_decode(struct azoth_bytes rec, uint32_t i, struct batch_entry *ret)
{
    const unsigned char *p =
        (const unsigned char *)rec.ptr + head_bytes(rec) + (size_t)i * BATCH_ENTRY;
    *ret = (struct batch_entry){
        .slot = get_u32(p),
        .code = (int32_t)get_u32(p + 4),
        .ticket = get_u64(p + 8),
        .result = {.txn = get_u64(p + 16),
                   .first_event = get_u64(p + 24),
                   .last_event = get_u64(p + 32),
                   .keys_written = get_u32(p + 40),
                   .keys_deleted = get_u32(p + 44),
                   .keys_missing = get_u32(p + 48),
                   .duplicate = get_u32(p + 52)},
    };
}
