/*
 * control.h - what changes meta on request: operations that go through the commit queue as an image of
 * one control item (core/txn.h), whose name is the operation and whose value is its argument.
 *
 * An operation is done inside the LMDB transaction of the batch that it came in, between two
 * transactions, and answered when that is durable: once, in order, and by the only process that writes. It has
 * no transaction id and is no part of the chain; the result carries the head at which it was done (txn,
 * last_event). All may be repeated. A pause and a seal hold up those of archives alone, which move files and rewrite much of
 * data.mdb: under a pause people copy these. The others are one small commit each.
 *
 *   operation  argument                   what
 *   mark       place, 16 bytes            sets the place's mark to the head: from the next transaction on there
 *                                         are redo records. Of one that is there: begins anew. Not confirmed: until it
                                         is moved, be it to where it is, its place counts as having nothing
 *   mark       place | u64 txn | u64 event | i64 commit time
 *                                         moves the mark on and confirms it, after the backup up to there is durable. NOT_FOUND
 *                                         (no mark), BACKUP_MISSING (broken), BAD_REQUEST (back, or beyond the head)
 *   follow     place, 16 bytes            says that somebody follows with backups to this place. NOT_FOUND (no mark). Stays until
 *                                         `unmark`
 *   unmark     place, 16 bytes            drops the mark, if it is there
 *   seal       u32 pid | i64 time | who   seals until `unseal`, over restarts (core/seal.h): at the head, which a seal of
 *                                         the segment (shm/pause.h) holds already, or TIMEOUT.
 *                                         One that is there stays as it is
 *   unseal     nothing                    ends that
 *   archive, archive-piece, archive-move    writer/archiving.h
 *
 * FULL: more than MARKS_MAX marks. BAD_REQUEST: no such operation, or not this argument.
 */
#ifndef WRITER_CONTROL_H
#define WRITER_CONTROL_H

#include "core/seal.h"
#include "writer/append.h"

#define CONTROL_MARK_NEW  16u /* bytes of the first kind of argument */
#define CONTROL_MARK_MOVE 40u /* and of the second */
#define CONTROL_SEAL      12u /* bytes before `who`, which has at most 31 */

/* As append_apply(): 0 with the verdict in *ret_code, or an error of LMDB. The image is checked. */
int control_apply(struct append *a, struct azoth_bytes image, int *ret_code, struct txn_result *ret,
                  struct azoth_error *detail);

/* 1 when the operation of this name waits for the end of a pause (SLOT_WAITS_PAUSE): whoever submits it says so. */
int control_waits(struct azoth_bytes name);
/* 1 when the image is a `seal`: the writer refuses it unless it commits nothing else meanwhile. */
int control_seals(struct azoth_bytes image);
/* 1 and *ret when the store is sealed, 0 when not; within a batch. CORRUPT, or as LMDB failed. */
int control_seal(struct append *a, struct seal *ret, struct azoth_error *err);

#endif
