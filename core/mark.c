#include "core/mark.h"

#include "core/error.h"
#include "core/store_lmdb.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC     0x314d5a41u /* "AZM1" */
#define BROKEN    1u
#define CONFIRMED 2u
#define FOLLOWED  4u
#define PREFIX    "mark:"

void mark_key(char out[MARK_KEY + 1], const uint8_t place[MARK_PLACE])
{
    memcpy(out, PREFIX, sizeof PREFIX);
    bytes_hex(out + sizeof PREFIX - 1, place, MARK_PLACE);
}

int mark_is_key(struct azoth_bytes key)
{
    return key.len > sizeof PREFIX - 1 && memcmp(key.ptr, PREFIX, sizeof PREFIX - 1) == 0;
}

static uint64_t checksum(const unsigned char *rec, const uint8_t place[MARK_PLACE])
{
    return XXH3_64bits_withSeed(rec, MARK_RECORD - 8, XXH3_64bits(place, MARK_PLACE));
}

uint32_t mark_flags(const struct mark *m)
{
    return (m->broken ? BROKEN : 0) | (m->confirmed ? CONFIRMED : 0) | (m->followed ? FOLLOWED : 0);
}

void mark_take_flags(struct mark *m, uint32_t flags)
{
    m->broken = (flags & BROKEN) != 0;
    m->confirmed = (flags & CONFIRMED) != 0;
    m->followed = (flags & FOLLOWED) != 0;
}

void mark_encode(unsigned char out[MARK_RECORD], const struct mark *m)
{
    put_u32(out, MAGIC);
    put_u32(out + 4, mark_flags(m));
    put_u64(out + 8, m->txn);
    put_u64(out + 16, m->event);
    put_u64(out + 24, (uint64_t)m->since_ns);
    put_u64(out + 32, checksum(out, m->place));
}

static int hex(unsigned char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int mark_decode(struct azoth_bytes key, struct azoth_bytes rec, struct mark *ret)
{
    struct mark m = {0};
    const unsigned char *k = key.ptr, *p = rec.ptr;
    if (key.len != MARK_KEY || !mark_is_key(key) || rec.len != MARK_RECORD || get_u32(p) != MAGIC)
        return AZOTH_ERR_CORRUPT;
    k += sizeof PREFIX - 1;
    for (unsigned i = 0; i < MARK_PLACE; i++) {
        int high = hex(k[2 * i]), low = hex(k[2 * i + 1]);
        if (high < 0 || low < 0)
            return AZOTH_ERR_CORRUPT;
        m.place[i] = (uint8_t)(high << 4 | low);
    }
    if (get_u64(p + 32) != checksum(p, m.place) ||
        (get_u32(p + 4) & ~(BROKEN | CONFIRMED | FOLLOWED)))
        return AZOTH_ERR_CORRUPT;
    mark_take_flags(&m, get_u32(p + 4));
    m.txn = get_u64(p + 8);
    m.event = get_u64(p + 16);
    m.since_ns = (int64_t)get_u64(p + 24);
    *ret = m;
    return 0;
}

int snapshot_marks(struct snapshot *sn, struct mark *out, uint32_t cap, uint32_t *ret_n,
                   struct azoth_error *err)
{
    MDB_cursor *cursor;
    uint32_t n = 0;
    int rc =
        mdb_cursor_open(snapshot_txn(sn), store_lmdb(snapshot_store(sn))->dbi[DB_META], &cursor);
    if (rc)
        return lmdb_error(err, rc, "meta");
    MDB_val k = {sizeof PREFIX - 1, (void *)(uintptr_t)PREFIX}, v;
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    int code = 0;
    for (; rc == 0 && mark_is_key(bytes_of_val(k)) && n < cap && !code;
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))
        if (mark_decode(bytes_of_val(k), bytes_of_val(v), &out[n++]))
            code = error_set(err, AZOTH_ERR_CORRUPT, "meta/%.*s fails its check", (int)k.mv_size,
                             (const char *)k.mv_data);
    mdb_cursor_close(cursor);
    if (!code && rc && rc != MDB_NOTFOUND)
        code = lmdb_error(err, rc, "meta");
    if (!code)
        *ret_n = n;
    return code;
}

int snapshot_mark(struct snapshot *sn, const uint8_t place[MARK_PLACE], struct mark *ret,
                  struct azoth_error *err)
{
    struct mark all[MARKS_MAX];
    uint32_t n = 0;
    int rc = snapshot_marks(sn, all, MARKS_MAX, &n, err);
    for (uint32_t i = 0; i < n && !rc; i++)
        if (memcmp(all[i].place, place, MARK_PLACE) == 0) {
            *ret = all[i];
            rc = 1;
        }
    return rc;
}
