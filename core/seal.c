/* seal.c - the record of the seal that the store keeps; seal.h has its form. */
#include "core/seal.h"

#include "core/error.h"
#include "core/record.h"
#include "core/store_lmdb.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC 0x31535a41u /* "AZS1" */

void seal_encode(unsigned char out[SEAL_RECORD], const struct seal *s)
{
    memset(out, 0, SEAL_RECORD);
    put_u32(out, MAGIC);
    put_u32(out + 4, s->pid);
    put_u64(out + 8, s->event);
    put_u64(out + 16, s->txn);
    put_u64(out + 24, (uint64_t)s->time_ns);
    memcpy(out + 32, s->who, strnlen(s->who, sizeof s->who - 1));
    put_u64(out + 64, XXH3_64bits(out, 64));
}

int seal_decode(struct azoth_bytes rec, struct seal *ret)
{
    const unsigned char *p = rec.ptr;
    if (rec.len != SEAL_RECORD || get_u32(p) != MAGIC || get_u64(p + 64) != XXH3_64bits(p, 64) ||
        p[63])
        return AZOTH_ERR_CORRUPT;
    ret->pid = get_u32(p + 4);
    ret->event = get_u64(p + 8);
    ret->txn = get_u64(p + 16);
    ret->time_ns = (int64_t)get_u64(p + 24);
    memcpy(ret->who, p + 32, sizeof ret->who);
    return 0;
}

int snapshot_seal(struct snapshot *sn, struct seal *ret, struct azoth_error *err)
{
    MDB_val k = val_of(bytes_str(SEAL_KEY)), v;
    int rc = mdb_get(snapshot_txn(sn), store_lmdb(snapshot_store(sn))->dbi[DB_META], &k, &v);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return lmdb_error(err, rc, "meta");
    if (seal_decode(bytes_of_val(v), ret))
        return error_set(err, AZOTH_ERR_CORRUPT, "meta/" SEAL_KEY " fails its check");
    return 1;
}
