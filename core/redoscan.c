/* redoscan.c - redo records in the order of transactions, by one cursor in one snapshot. */
#include "core/redo.h"
#include "core/store_lmdb.h"

#include <string.h>

struct redo_scan {
    MDB_cursor *cursor; /* NULL: a store of format 1, which has none */
    uint64_t next;      /* the transaction that has to come; 0: any */
    int started;
    unsigned char from[8];
};

int redo_scan_open(struct snapshot *sn, uint64_t from, struct redo_scan **ret,
                   struct azoth_error *err)
{
    struct store_lmdb *l = store_lmdb(snapshot_store(sn));
    struct redo_scan *rs = calloc(1, sizeof *rs);
    if (!rs)
        return error_set(err, AZOTH_ERR_NOMEM, "a scan of redo records");
    rs->next = from;
    put_be64(rs->from, from);
    int rc = atomic_load(&l->redo_open)
                 ? mdb_cursor_open(snapshot_txn(sn), l->dbi[DB_REDO], &rs->cursor)
                 : 0;
    if (rc) {
        free(rs);
        return lmdb_error(err, rc, "redo");
    }
    *ret = rs;
    return 0;
}

int redo_scan_next(struct redo_scan *rs, struct redo_record *ret, struct azoth_bytes *ret_raw,
                   struct azoth_error *err)
{
    MDB_val k = {8, rs->from}, v;
    int rc = rs->cursor ? mdb_cursor_get(rs->cursor, &k, &v, rs->started ? MDB_NEXT : MDB_SET_RANGE)
                        : MDB_NOTFOUND;
    rs->started = 1;
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return lmdb_error(err, rc, "redo");
    if (k.mv_size != 8)
        return error_set(err, AZOTH_ERR_CORRUPT, "redo has a key of %zu bytes", k.mv_size);
    uint64_t txn = get_be64(k.mv_data);
    if (rs->next && txn != rs->next)
        return error_set(err, AZOTH_ERR_GAP, "the redo record of transaction %llu is missing",
                         (unsigned long long)rs->next);
    rc = redo_decode(txn, bytes_of_val(v), ret);
    if (rs->next)
        rs->next = txn + 1;
    if (rc)
        return error_set(err, rc, "the redo record of transaction %llu fails its check",
                         (unsigned long long)txn);
    if (ret_raw)
        *ret_raw = bytes_of_val(v);
    return 1;
}

void redo_scan_close(struct redo_scan *rs)
{
    if (!rs)
        return;
    if (rs->cursor)
        mdb_cursor_close(rs->cursor);
    free(rs);
}
