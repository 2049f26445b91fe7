/*
 * copy.h - the store's file as one commit left it, as a stream, while others go on writing.
 *
 * The copy is LMDB's compacting one: pages in the order of the trees, without free ones, and what is
 * read back is a whole LMDB file. Its own snapshot keeps the pages of that commit in use, so data.mdb
 * grows by what is written meanwhile; copy_growth() tells by how much.
 *
 * One thread works inside LMDB and fills a pipe, the caller empties it: a caller that waits holds up
 * nobody. A copy belongs to one thread. The process must not be forked while there is one.
 */
#ifndef WRITER_COPY_H
#define WRITER_COPY_H

#include "core/store.h"

struct copy;

/*
 * Begins to copy the newest commit. BUSY: commits came so fast that no copy and snapshot of one and the
 * same commit were had in many tries (a pause of a moment helps). NOMEM, IO, FULL (no reader slot), CORRUPT.
 */
int copy_begin(struct store *s, struct copy **ret, struct azoth_error *err);
/* A snapshot of the commit that is copied, until copy_end(): what it says is true of the copy. */
struct snapshot *copy_snapshot(const struct copy *c);
/* Fills p as far as the copy goes: *ret_len below cap is its end, and it is whole then. Blocks on the
 * disk. CORRUPT: the file's pages do not add up. BUSY: a file system that is mounted for reading only was
 * written to from elsewhere. IO, NOMEM. */
int copy_read(struct copy *c, void *p, size_t cap, size_t *ret_len, struct azoth_error *err);
/* Bytes that the file has gained since copy_begin(). */
uint64_t copy_growth(const struct copy *c);
/* Also before its end, which it is told by the broken pipe. NULL is accepted. */
void copy_end(struct copy *c);

#endif
