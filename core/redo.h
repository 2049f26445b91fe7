/*
 * redo.h - redo records: what a transaction did to the state, as after-images. With the events and the
 * ids' own rules they rebuild a store exactly, at any transaction.
 *
 *   LMDB database redo, key: transaction id, u64 big-endian
 *   record  u32 checksum | u8 format=1 | u8 flags (1: request id) | u16 0 | i64 commit time | u64 first event
 *           | u64 last event | u64 running_ms | u64 id_first | u8 request id[16] | u64 id age | u64 content
 *           | u32 keys written | u32 keys deleted | u32 keys missing | u32 operations | operations
 *   operation  u8 type (0: the key is deleted) | u8 0 | u16 key length | u32 value length | key | encoding
 *
 * Integers little-endian, without alignment. The checksum is the low half of XXH3_64bits over the record
 * without its first 4 bytes, seeded with the transaction id. A key stands in it once; its version is the
 * transaction. running_ms and id_first are those of the batch record (batchrec.h) as the transaction found
 * them; without a request id the id, its age and content are 0.
 *
 * They are written while a place of backups has a mark (mark.h), and kept from the lowest mark on.
 */
#ifndef CORE_REDO_H
#define CORE_REDO_H

#include "core/record.h"
#include "core/store.h"

#define REDO_HEADER    96u
#define REDO_OP_HEADER 8u
/* A transaction whose record would be greater has none: it breaks the marks, as one over writer.redo_keep. */
#define REDO_RECORD_MAX (1u << 30)

struct redo_record {
    uint64_t txn;
    int64_t time_ns;
    uint64_t first_event, last_event; /* 0, 0: it logged none */
    uint64_t running_ms, id_first;
    int has_id;
    uint8_t id[AZOTH_ID_BYTES];
    uint64_t id_age, content;
    uint32_t keys_written, keys_deleted, keys_missing, ops;
    struct azoth_bytes body; /* the operations, for redo_next() */
};

struct redo_op {
    struct azoth_bytes key;
    int deleted;
    struct azoth_value value; /* unless it is deleted */
};

static inline size_t redo_op_size(size_t key_len, size_t value_len)
{
    return REDO_OP_HEADER + key_len + value_len;
}
/* Writes the header, then each operation behind it (redo_put_op() returns where the next one goes), then
 * redo_seal() over the whole of len bytes. r->body is not looked at. */
unsigned char *redo_put_header(unsigned char *out, const struct redo_record *r);
unsigned char *redo_put_op(unsigned char *to, const struct redo_op *op);
void redo_seal(unsigned char *out, size_t len, uint64_t txn);

/* Decodes and checks, operations too; *ret borrows rec. CORRUPT, FORMAT. Safe on any bytes. */
int redo_decode(uint64_t txn, struct azoth_bytes rec, struct redo_record *ret);
/* Steps through the operations of a decoded record: begin with *at = 0. 1 and *ret, 0 at the end. */
int redo_next(const struct redo_record *r, size_t *at, struct redo_op *ret);

/*
 * Records in the order of transactions, from `from` (inclusive) to the snapshot's end. With from >= 1 each
 * one from there on has to be there: GAP. from 0: those that there are. The scan borrows the snapshot and must
 * be closed before it ends.
 */
struct redo_scan;
int redo_scan_open(struct snapshot *sn, uint64_t from, struct redo_scan **ret,
                   struct azoth_error *err);
/* 1 and *ret (borrows the snapshot); 0 at the end; CORRUPT, FORMAT, GAP, IO. *ret_raw (may be NULL) gets
 * the record's bytes. After CORRUPT and FORMAT the next call goes on behind the damaged one. */
int redo_scan_next(struct redo_scan *rs, struct redo_record *ret, struct azoth_bytes *ret_raw,
                   struct azoth_error *err);
void redo_scan_close(struct redo_scan *rs); /* NULL is accepted */

#endif
