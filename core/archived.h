/*
 * archived.h - what the store knows of its segments, and reading through them.
 *
 * Events that were archived lie in segment files (archivefile.h). At any commit each event is in LMDB or in a
 * recorded segment: ids below `first_in_store` are read from segments, the others from LMDB. Both records are
 * in `meta`, so that a snapshot sees one consistent list.
 *
 *   "archive"               u32 magic "AZA1" | u32 0 | u64 first event that is in LMDB | u64 last event that is
 *                           in a segment | u64 checksum (XXH3_64bits over the 24 bytes before)
 *   "segment:" u64 BE last  u32 magic "AZA2" | u32 chained | u64 first, last event | u64 first, last
 *                           transaction | i64 first, last time | u64 bytes of the file | u64 of its frames
 *                           | u8 uuid[16] | u8 digest[32] | u8 chain before[32], after[32]
 *                           | path | u64 checksum (XXH3_64bits over all before it)
 *
 * A path below the database's directory is relative to it, so that the directory may be moved and restored
 * elsewhere. A segment that was recorded and whose events are not all deleted yet is there twice, and read from
 * LMDB: first_in_store says so.
 */
#ifndef CORE_ARCHIVED_H
#define CORE_ARCHIVED_H

#include "core/archivefile.h"

#define ARCHIVE_PATH_MAX   4000u
#define ARCHIVE_STATE      32u
#define ARCHIVE_ENTRY      208u /* and the path, and a checksum */
#define ARCHIVE_ENTRY_MAX  (ARCHIVE_ENTRY + ARCHIVE_PATH_MAX + 8u)
#define ARCHIVE_KEY        16u
#define ARCHIVE_KEY_PREFIX "segment:"

/* Events that one commit deletes at most, and the bytes of their records. */
#define ARCHIVE_PIECE_EVENTS 1024u
#define ARCHIVE_PIECE_BYTES  (1u << 20)

struct archived_state {
    uint64_t first_in_store; /* 1: nothing was archived */
    uint64_t last_archived;  /* of the newest segment; 0: there is none */
};

struct archived_entry {
    struct archive_about about;
    char path[ARCHIVE_PATH_MAX + 1]; /* as it is recorded */
};

void archived_state_encode(unsigned char out[ARCHIVE_STATE], const struct archived_state *s);
int archived_state_decode(struct azoth_bytes rec, struct archived_state *ret); /* 0 or CORRUPT */

void archived_key(unsigned char out[ARCHIVE_KEY], uint64_t last);
/* Appends the record. USAGE (the path is empty or too long), NOMEM. */
int archived_entry_encode(struct buf *out, const struct archived_entry *e);
/* 0, or CORRUPT. Safe on any bytes. */
int archived_entry_decode(struct azoth_bytes rec, struct archived_entry *ret);
/* The file's path, for a database in dir: 0 or USAGE (too long). */
int archived_path(char *out, size_t size, const char *dir, const char *recorded);
/* The other way: what is recorded for an absolute path. */
const char *archived_path_recorded(const char *dir, const char *absolute);

/* ---- reading: open files and unpacked blocks of one store, shared by its threads ---- */

struct archived_cache;
struct archived_block;

/* Relative paths are below dir. NULL: NOMEM. */
struct archived_cache *archived_cache_make(const char *dir);
void archived_cache_free(
    struct archived_cache *c); /* all blocks were given back; NULL is accepted */

/*
 * The block with event id, which the segment has. Held until archived_block_release(), however many others are
 * read meanwhile. The file is opened when it is first asked for, must be the one that was recorded (by its digest) and
 * stays open for a while. NOT_FOUND, PERMISSION, CORRUPT, FORMAT, IO, NOMEM; err names the file.
 */
int archived_cache_block(struct archived_cache *c, const struct archived_entry *e, uint64_t id,
                         struct archived_block **ret, struct azoth_error *err);
/* The first event behind the block that has event id, by what the file says of itself; behind the segment when it can
 * not be opened: where reading may go on. */
uint64_t archived_cache_behind(struct archived_cache *c, const struct archived_entry *e,
                               uint64_t id);
/* Opens the recorded file for the caller, who closes it: the one that was recorded, by its digest and its range.
 * Errors as of archived_cache_block(). */
int archived_cache_open(const struct archived_cache *c, const struct archived_entry *e,
                        struct archivefile **ret, struct azoth_error *err);
void archived_block_release(struct archived_cache *c,
                            struct archived_block *b); /* NULL is accepted */
struct azoth_bytes archived_block_frames(const struct archived_block *b);

#endif
