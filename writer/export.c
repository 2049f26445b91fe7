#include "writer/export.h"

#include "core/error.h"
#include "writer/feed_look.h"

#include <string.h>

#define STATE_HEADER 8u

struct parts {
    struct buf buf;
    export_part fn;
    void *arg;
    uint64_t entries;
};

static int flush(struct parts *p, struct azoth_error *err)
{
    int rc = p->buf.len ? p->fn(p->arg, buf_bytes(&p->buf), err) : 0;
    buf_clear(&p->buf);
    return rc;
}

/* Room for one more entry, in the next part if this one has none. NULL and *rc otherwise. */
static unsigned char *entry(struct parts *p, size_t bytes, int *rc, struct azoth_error *err)
{
    *rc = p->buf.len && p->buf.len + bytes > EXPORT_PART ? flush(p, err) : 0;
    unsigned char *at = *rc ? NULL : buf_grow(&p->buf, bytes);
    if (!at && !*rc)
        *rc = error_set(err, AZOTH_ERR_NOMEM, "a part of the export");
    p->entries++;
    return at;
}

static int finish(struct parts *p, int rc, uint64_t *ret_n, struct azoth_error *err)
{
    if (!rc)
        rc = flush(p, err);
    buf_fini(&p->buf);
    if (!rc)
        *ret_n = p->entries;
    return rc;
}

int export_state(struct snapshot *sn, export_part part, void *arg, uint64_t *ret_n,
                 struct azoth_error *err)
{
    struct parts p = {.fn = part, .arg = arg};
    const struct azoth_bytes open = {0};
    struct azoth_bytes key = {0};
    struct state_record rec = {0};
    struct scan *sc = NULL;
    int rc = scan_open(sn, open, open, open, &sc, err);
    if (rc)
        return rc;
    while ((rc = scan_next(sc, &key, &rec, err)) == 1) {
        size_t bytes = record_state_size(rec.value.enc.len);
        unsigned char *at = entry(&p, STATE_HEADER + key.len + bytes, &rc, err);
        if (!at)
            break;
        put_u32(at, (uint32_t)key.len);
        put_u32(at + 4, (uint32_t)bytes);
        memcpy(at + STATE_HEADER, key.ptr, key.len);
        record_state_encode(at + STATE_HEADER + key.len, key, rec.version, rec.value);
    }
    scan_close(sc);
    return finish(&p, rc, ret_n, err);
}

int export_ids(struct snapshot *sn, export_part part, void *arg, uint64_t *ret_n,
               struct azoth_error *err)
{
    struct parts p = {.fn = part, .arg = arg};
    struct id_entry e;
    struct id_scan *is = NULL;
    int rc = id_scan_open(sn, &is, err);
    if (rc)
        return rc;
    while ((rc = id_scan_next(is, &e, err)) == 1) {
        unsigned char *at = entry(&p, EXPORT_ID_ENTRY, &rc, err);
        if (!at)
            break;
        put_u64(at, e.age);
        put_u64(at + 8, e.born_ms);
        memcpy(at + 16, e.id, AZOTH_ID_BYTES);
        memcpy(at + 16 + AZOTH_ID_BYTES, e.record.ptr, STORE_ID_RECORD);
    }
    id_scan_close(is);
    return finish(&p, rc, ret_n, err);
}

int export_events(struct store *s, uint64_t after, uint64_t to, export_part part, void *arg,
                  struct azoth_error *err)
{
    const struct feed_filter all = {.shards = 1, .to = to};
    struct feed_look look = {.last = after};
    struct buf frames = {0};
    int rc = 0;
    while (!rc && look.last < to) {
        buf_clear(&frames);
        rc = feed_look(s, &all, look.last, EXPORT_PART, &frames, &look, err);
        if (!rc && !frames.len)
            rc = error_set(err, AZOTH_ERR_GAP, "event %llu is missing",
                           (unsigned long long)look.last + 1);
        if (!rc)
            rc = part(arg, buf_bytes(&frames), err);
    }
    buf_fini(&frames);
    return rc;
}

/* ---- reading a part ---- */

int export_state_next(struct azoth_bytes part, size_t *at, struct azoth_bytes *ret_key,
                      struct azoth_bytes *ret_record, struct state_record *ret)
{
    size_t left = part.len - *at;
    const unsigned char *p = (const unsigned char *)part.ptr + *at;
    if (!left)
        return 0;
    if (left < STATE_HEADER)
        return AZOTH_ERR_CORRUPT;
    size_t key = get_u32(p), record = get_u32(p + 4);
    if (key < 1 || key > AZOTH_KEY_MAX || record > left - STATE_HEADER ||
        key > left - STATE_HEADER - record)
        return AZOTH_ERR_CORRUPT;
    *ret_key = bytes_of(p + STATE_HEADER, key);
    *ret_record = bytes_of(p + STATE_HEADER + key, record);
    *at += STATE_HEADER + key + record;
    int rc = record_state_decode(*ret_key, *ret_record, ret);
    return rc ? rc : 1;
}

int export_id_next(struct azoth_bytes part, size_t *at, struct id_entry *ret)
{
    struct txn_result unused;
    uint64_t content, age;
    size_t left = part.len - *at;
    const unsigned char *p = (const unsigned char *)part.ptr + *at;
    if (!left)
        return 0;
    if (left < EXPORT_ID_ENTRY)
        return AZOTH_ERR_CORRUPT;
    ret->age = get_u64(p);
    ret->born_ms = get_u64(p + 8);
    memcpy(ret->id, p + 16, AZOTH_ID_BYTES);
    ret->record = bytes_of(p + 16 + AZOTH_ID_BYTES, STORE_ID_RECORD);
    *at += EXPORT_ID_ENTRY;
    return store_id_decode(ret->id, ret->record, &unused, &content, &age) || age != ret->age
               ? AZOTH_ERR_CORRUPT
               : 1;
}
