/*
 * archivefile.h - a segment of the log outside of LMDB: consecutive events in one file that never changes.
 *
 *   header   u8[8] "AZOTHSG1" | u32 format=1 | u32 0 | u8 uuid[16] | u64 first event | u8[16] 0
 *            | u64 checksum (XXH3_64bits over the 56 bytes before)
 *   block    u32 packed bytes | u32 bytes | u64 first event | u32 events | u32 0
 *            | u64 checksum (XXH3_64bits over what is packed, seeded with that of the 24 bytes before)
 *            | packed: one zstd frame of event frames (record.h), ids consecutive
 *   index    for each block: u64 first event | u64 its place in the file
 *   footer   u64 first, last event | u64 first, last transaction | i64 first, last time
 *            | u64 bytes of all blocks unpacked | u64 place of the index | u32 blocks | u32 chained
 *            | u8 chain before[32] | u8 chain after[32] | u64 checksum of the index (XXH3_64bits)
 *            | u8 digest[32]: BLAKE2b-256 (core/hash.h) over all bytes before it
 *            | u8[8] "AZOTHSGE" | u64 checksum of the footer (XXH3_64bits over the 184 bytes before)
 *
 * Integers little-endian. What is known only at the end stands at the end, so that the file is written in one
 * pass; a reader begins there, and finds an event with one look into the index. A block closes at
 * ARCHIVE_BLOCK bytes: at most one event more. chained: the values of the hash chain before the first
 * transaction and after the last one; a segment ends where a transaction does. 0: those events have no chain.
 *
 * Opening checks header, index and footer; reading checks the block's sum and each record's;
 * archivefile_verify() checks all, the digest and the chain. Every byte of the file is under one of these.
 *
 * Threads: one out belongs to one thread; an open file may be read by any number of threads.
 */
#ifndef CORE_ARCHIVEFILE_H
#define CORE_ARCHIVEFILE_H

#include "core/buf.h"
#include "core/record.h"

#define ARCHIVE_BLOCK     (256u << 10)
#define ARCHIVE_BLOCK_MAX (ARCHIVE_BLOCK + RECORD_FRAME_HEADER + RECORD_EVENT_MAX)
#define ARCHIVE_DIGEST    32u
#define ARCHIVE_LEVEL     3 /* zstd's, unless asked otherwise */
#define ARCHIVE_NAME_MAX  64u
#define ARCHIVE_PIECE     (1u << 20)

/* What a segment says of itself. */
struct archive_about {
    uint8_t uuid
        [16]; /* of the database that made it: a restored one has another, and the same segments */
    uint64_t first, last, first_txn, last_txn;
    int64_t first_time_ns, last_time_ns;
    uint64_t bytes;     /* of the file */
    uint64_t log_bytes; /* of its event frames, unpacked */
    uint32_t chained;
    uint8_t chain_before[ARCHIVE_DIGEST], chain_after[ARCHIVE_DIGEST];
    uint8_t digest[ARCHIVE_DIGEST];
};

/* What footer and record (archived.h) have alike: u64 first, last event | u64 first, last transaction | i64 first, last
 * time; and u8 chain before[32], after[32]. */
#define ARCHIVE_RANGE  48u
#define ARCHIVE_CHAINS (2u * ARCHIVE_DIGEST)
void archivefile_range_encode(unsigned char out[ARCHIVE_RANGE], const struct archive_about *a);
void archivefile_range_decode(const unsigned char p[ARCHIVE_RANGE], struct archive_about *ret);
void archivefile_chains_encode(unsigned char out[ARCHIVE_CHAINS], const struct archive_about *a);
void archivefile_chains_decode(const unsigned char p[ARCHIVE_CHAINS], struct archive_about *ret);

/* "events-FIRST-LAST.azs", of fixed width, so that names sort as events do. */
void archivefile_name(char out[ARCHIVE_NAME_MAX], uint64_t first, uint64_t last);
/* 1 and both numbers when it is such a name. */
int archivefile_name_parse(const char *name, uint64_t *ret_first, uint64_t *ret_last);

/* ---- writing ---- */

struct archivefile_out;

/*
 * Begins a file at path, mode 0440, that holds a lock (flock) until it is finished or aborted. One that is there
 * and is not locked is a dead one's and is replaced. BUSY (another process writes it), NOSPACE, IO,
 * PERMISSION, NOMEM, NOT_FOUND (its directory).
 */
int archivefile_create(const char *path, const uint8_t uuid[16], int level,
                       struct archivefile_out **ret, struct azoth_error *err);
/* The next event; raw is its record. Ids without a gap: GAP. NOSPACE, IO, NOMEM. May block on the file. */
int archivefile_add(struct archivefile_out *o, const struct event_record *ev,
                    struct azoth_bytes raw, struct azoth_error *err);
uint64_t archivefile_events(const struct archivefile_out *o);
/* Bytes of frames so far, unpacked. */
uint64_t archivefile_log_bytes(const struct archivefile_out *o);
/* chain: before and after, or NULL for both. Index, footer, fsync; frees o in any case. *ret has all of the
 * segment. At least one event was added. */
int archivefile_finish(struct archivefile_out *o, const uint8_t *chain_before,
                       const uint8_t *chain_after, struct archive_about *ret,
                       struct azoth_error *err);
void archivefile_abort(struct archivefile_out *o); /* removes the file; NULL is accepted */

/* ---- reading ---- */

struct archivefile;

/* NOT_FOUND, PERMISSION, IO, NOMEM, FORMAT (another version), CORRUPT; err names the file. Bounded whatever
 * the bytes are. */
int archivefile_open(const char *path, struct archivefile **ret, struct azoth_error *err);
void archivefile_close(struct archivefile *f); /* NULL is accepted */
const struct archive_about *archivefile_about(const struct archivefile *f);
uint32_t archivefile_blocks(const struct archivefile *f);
/* The block that has this event, which the file has. */
uint32_t archivefile_block_of(const struct archivefile *f, uint64_t id);
uint64_t archivefile_block_first(const struct archivefile *f, uint32_t block);
/* The block's event frames, unpacked, replace what is in *frames. CORRUPT (names file and events), IO, NOMEM. */
int archivefile_read(const struct archivefile *f, uint32_t block, struct buf *frames,
                     struct azoth_error *err);
/*
 * Hands all bytes of the file to sink (may be NULL), in order and in pieces of at most ARCHIVE_PIECE, and checks
 * them against the file's digest: CORRUPT comes after the last piece. What sink returns other than 0 ends it and is
 * returned. IO, NOMEM.
 */
int archivefile_copy(const struct archivefile *f,
                     int (*sink)(void *arg, const void *p, size_t len, struct azoth_error *err),
                     void *arg, struct azoth_error *err);
/* Reads all of it and checks everything, the digest and that the chain's values fit the events, too. say (may be NULL) is told the event that it has come
 * to, and ends it by returning other than 0, which is returned then. CORRUPT, IO, NOMEM. */
int archivefile_verify(const struct archivefile *f, int (*say)(void *arg, uint64_t event),
                       void *arg, struct azoth_error *err);

#endif
