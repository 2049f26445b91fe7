/*
 * filecopy.h - projections' files as backups take and restores give them.
 *
 * A copy is SQLite's (the backup API), of one moment, while the projector goes on writing: one read transaction
 * of the source is held for so long, whose log (WAL) grows by what is written meanwhile. Everything that is in the
 * file comes along: rows, cursor, dead letters, an effects ledger.
 *
 * One thread. Everything blocks on the disk.
 */
#ifndef PROJECTOR_FILECOPY_H
#define PROJECTOR_FILECOPY_H

#include "core/azoth_base.h"

/* What a file says of itself. */
struct filecopy {
    char name[AZOTH_NAME_MAX + 1]; /* the projection */
    uint8_t uuid[16];              /* of the database that it follows */
    uint64_t cursor;
    uint32_t cursor_check; /* checksum of the event at the cursor */
    uint32_t shard, shards;
};

/*
 * Copies the file `from` to `to`, which is not there, and tells what the copy says of itself. stop (may be NULL) is asked
 * now and then; not 0 ends it: 1 is returned. NOT_FOUND: there is no such file, or no projector has filled it yet.
 * NOSPACE, CORRUPT, BUSY, PERMISSION, IO, NOMEM; then and after 1 there is no file `to`. The copy is not synced.
 */
int filecopy_make(const char *from, const char *to, int (*stop)(void), struct filecopy *ret,
                  struct azoth_error *err);
/* Looks into a file that nobody else has open. deep: its pages and indexes are checked, too: CORRUPT says what
 * is wrong. Others as above. */
int filecopy_look(const char *path, int deep, struct filecopy *ret, struct azoth_error *err);
/* Lets such a file follow the database with this UUID, durably. */
int filecopy_follow(const char *path, const uint8_t uuid[16], struct azoth_error *err);
/*
 * BLAKE2b-256 over the definition's own tables (not azoth_...) and their rows, in the order of the names and, in each, of
 * the primary key, or without one of all columns: the same rows give the same digest, however they came about. Of a file that nobody else has open.
 */
int filecopy_digest(const char *path, unsigned char ret[32], struct azoth_error *err);

/* Generations in DIR, in the order of their names: fn(arg, file, stem, n) until it returns not 0, which is returned.
 * IO, PERMISSION, NOMEM. None when there is no such directory. */
typedef int (*filecopy_fn)(void *arg, const char *file, const char *stem, uint64_t n);
int filecopy_each(const char *dir, filecopy_fn fn, void *arg, struct azoth_error *err);
/* The stem and the number in the name of a generation's file, STEM.gN.db: 1, or 0 when it is none. */
int filecopy_parse(const char *file, char *ret_stem, size_t size, uint64_t *ret_n);

#endif
