/* bench_floor.c - raw LMDB by hand; the one file beside the store's own that calls LMDB. */
#include "client/cmd/bench_floor.h"

#include "core/record.h"
#include "core/store_lmdb.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { FLOOR_STATE, FLOOR_EVENTS, FLOOR_IDS, FLOOR_IDS_AGE, FLOOR_DBS };

struct floor {
    MDB_env *env;
    MDB_dbi dbi[FLOOR_DBS];
    MDB_txn *txn;    /* the write transaction */
    MDB_txn *reader; /* NULL until the first read */
    MDB_cursor *cursor;
    uint64_t head, ids;
    unsigned char id[AZOTH_ID_BYTES], record[RECORD_STATE_HEADER + FLOOR_VALUE_MAX];
};

static int failed(int rc, const char *what, struct azoth_error *err)
{
    return rc ? lmdb_error(err, rc, what) : 0;
}

int floor_open(const char *dir, struct floor **ret, struct azoth_error *err)
{
    static const char *const names[FLOOR_DBS] = {"state", "events", "ids", "ids_age"};
    struct floor *f = calloc(1, sizeof *f);
    MDB_txn *txn = NULL;
    if (!f)
        return error_set(err, AZOTH_ERR_NOMEM, "the floor");
    int rc = mkdir(dir, 0700) ? error_errno(err, errno, "%s", dir) : 0;
    if (!rc)
        rc = lmdb_env_open(dir, 0, &f->env, err);
    if (!rc)
        rc = failed(mdb_txn_begin(f->env, NULL, 0, &txn), "floor", err);
    for (int i = 0; i < FLOOR_DBS && !rc; i++)
        rc = failed(mdb_dbi_open(txn, names[i], MDB_CREATE, &f->dbi[i]), names[i], err);
    if (txn && rc)
        mdb_txn_abort(txn);
    if (!rc)
        rc = failed(mdb_txn_commit(txn), "floor", err);
    if (!rc && getrandom(f->id, sizeof f->id, 0) != (ssize_t)sizeof f->id)
        rc = error_set(err, AZOTH_ERR_IO, "no random bytes");
    if (rc) {
        floor_close(f);
        return rc;
    }
    memset(f->record, 'x', sizeof f->record);
    *ret = f;
    return 0;
}

void floor_close(struct floor *f)
{
    if (!f)
        return;
    if (f->txn)
        mdb_txn_abort(f->txn);
    if (f->cursor)
        mdb_cursor_close(f->cursor);
    if (f->reader)
        mdb_txn_abort(f->reader);
    if (f->env)
        mdb_env_close(f->env);
    free(f);
}

int floor_lazy(struct floor *f, int lazy, struct azoth_error *err)
{
    int rc = mdb_env_set_flags(f->env, MDB_NOSYNC, lazy);
    if (!rc && !lazy)
        rc = mdb_env_sync(f->env, 1);
    return failed(rc, "floor", err);
}

/* ---- writing ---- */

int floor_begin(struct floor *f, struct azoth_error *err)
{
    return failed(mdb_txn_begin(f->env, NULL, 0, &f->txn), "floor", err);
}

int floor_commit(struct floor *f, struct azoth_error *err)
{
    int rc = mdb_txn_commit(f->txn);
    f->txn = NULL;
    return failed(rc, "floor", err);
}

int floor_put_state(struct floor *f, struct azoth_bytes key, size_t value_len,
                    struct azoth_error *err)
{
    MDB_val k = val_of(key), v = {record_state_size(value_len), f->record};
    ensure(v.mv_size <= sizeof f->record);
    return failed(mdb_put(f->txn, f->dbi[FLOOR_STATE], &k, &v, 0), "floor", err);
}

int floor_append(struct floor *f, struct azoth_bytes record, struct azoth_error *err)
{
    unsigned char id[8];
    put_be64(id, f->head + 1);
    MDB_val k = {8, id}, v = val_of(record);
    int rc = mdb_put(f->txn, f->dbi[FLOOR_EVENTS], &k, &v, MDB_APPEND);
    if (!rc)
        f->head++;
    return failed(rc, "floor", err);
}

int floor_put_id(struct floor *f, struct azoth_error *err)
{
    unsigned char age[8], count[8], aged[AZOTH_ID_BYTES + 8] = {0};
    put_be64(age, ++f->ids);
    put_be64(count, f->ids);
    memcpy(f->id + AZOTH_ID_BYTES - 6, count + 2, 6);
    memcpy(aged, f->id, AZOTH_ID_BYTES);
    MDB_val k = {AZOTH_ID_BYTES, f->id}, v = {STORE_ID_RECORD, f->record};
    MDB_val ak = {8, age}, av = {sizeof aged, aged};
    int rc = mdb_put(f->txn, f->dbi[FLOOR_IDS], &k, &v, MDB_NOOVERWRITE);
    if (!rc)
        rc = mdb_put(f->txn, f->dbi[FLOOR_IDS_AGE], &ak, &av, MDB_APPEND);
    return failed(rc, "floor", err);
}

int floor_look(struct floor *f, struct azoth_bytes key, struct azoth_error *err)
{
    unsigned char value[8];
    MDB_val k = val_of(key), v;
    int rc = mdb_get(f->txn, f->dbi[FLOOR_STATE], &k, &v);
    if (!rc)
        memcpy(value, v.mv_data, v.mv_size < sizeof value ? v.mv_size : sizeof value);
    return failed(rc, "floor", err);
}

uint64_t floor_head(const struct floor *f)
{
    return f->head;
}

/* ---- reading ---- */

int floor_read(struct floor *f, struct azoth_error *err)
{
    return failed(f->reader ? mdb_txn_renew(f->reader)
                            : mdb_txn_begin(f->env, NULL, MDB_RDONLY, &f->reader),
                  "floor", err);
}

void floor_unread(struct floor *f)
{
    mdb_txn_reset(f->reader);
}

int floor_get(struct floor *f, struct azoth_bytes key, void *out, size_t size, size_t *ret_len,
              struct azoth_error *err)
{
    MDB_val k = val_of(key), v;
    int rc = mdb_get(f->reader, f->dbi[FLOOR_STATE], &k, &v);
    if (rc)
        return failed(rc, "floor", err);
    *ret_len = v.mv_size < size ? v.mv_size : size;
    memcpy(out, v.mv_data, *ret_len);
    return 0;
}

static int first_event(struct floor *f, uint64_t id, MDB_val *ret_record)
{
    unsigned char key[8];
    put_be64(key, id);
    MDB_val k = {8, key};
    int rc = f->cursor ? mdb_cursor_renew(f->reader, f->cursor)
                       : mdb_cursor_open(f->reader, f->dbi[FLOOR_EVENTS], &f->cursor);
    return rc ? rc : mdb_cursor_get(f->cursor, &k, ret_record, MDB_SET);
}

static int event_valid(uint64_t id, MDB_val record)
{
    const unsigned char *p = record.mv_data;
    return get_u32(p) == (uint32_t)XXH3_64bits_withSeed(p + 4, record.mv_size - 4, id);
}

int floor_events(struct floor *f, uint64_t first, uint64_t last, uint64_t *ret_bytes,
                 struct azoth_error *err)
{
    uint64_t bytes = 0;
    MDB_val k, v;
    int rc = first <= last ? first_event(f, first, &v) : 0;
    for (uint64_t i = first; i <= last && !rc; i++) {
        if (i > first)
            rc = mdb_cursor_get(f->cursor, &k, &v, MDB_NEXT);
        if (rc)
            break;
        if (!event_valid(i, v))
            return error_set(err, AZOTH_ERR_CORRUPT, "the floor's event %llu",
                             (unsigned long long)i);
        bytes += v.mv_size;
    }
    if (!rc)
        *ret_bytes = bytes;
    return failed(rc, "floor", err);
}

int floor_frames(struct floor *f, uint64_t first, uint64_t last, void *out, size_t size,
                 size_t *ret_len, struct azoth_error *err)
{
    size_t len = 0;
    uint64_t id = first;
    MDB_val k, v;
    int rc = first <= last ? first_event(f, first, &v) : 0;
    while (id <= last && !rc) {
        if (!event_valid(id, v))
            return error_set(err, AZOTH_ERR_CORRUPT, "the floor's event %llu",
                             (unsigned long long)id);
        if (len + RECORD_FRAME_HEADER + v.mv_size > size)
            break;
        unsigned char *to = (unsigned char *)out + len;
        put_u64(to, id);
        put_u32(to + 8, (uint32_t)v.mv_size);
        memcpy(to + RECORD_FRAME_HEADER, v.mv_data, v.mv_size);
        len += RECORD_FRAME_HEADER + v.mv_size;
        if (++id <= last)
            rc = mdb_cursor_get(f->cursor, &k, &v, MDB_NEXT);
    }
    if (!rc && len == 0 && first <= last)
        return error_set(err, AZOTH_ERR_USAGE, "the floor's event %llu: no room",
                         (unsigned long long)first);
    *ret_len = len;
    return rc ? failed(rc, "floor", err) : (int)(id - first);
}
