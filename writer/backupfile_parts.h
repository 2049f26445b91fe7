/*
 * backupfile_parts.h - what the files of a backup file share: its layers, from the members down to the bytes.
 *
 *   backupfile_out.c, _in.c     members and the manifest: what writer/backupfile.h promises
 *   backupfile_manifest.c       the manifest's text, names, digests of members
 *   backupfile_tar.c            members as a tar stream, through zstd, by libarchive
 *   backupfile_dir.c            members as files of a directory
 *   backupfile_crypt.c          a stream as chunks, its trailer, and the descriptor
 *   backupfile_place.c          PATH.partial: taken, renamed, removed
 *   backupfile_sum.c            a member's digest, beside its reading
 *   backupkey.c                 keys and signatures
 *
 * One object belongs to one thread at a time. Calls answer 0 or a negative AZOTH_ERR_*.
 */
#ifndef WRITER_BACKUPFILE_PARTS_H
#define WRITER_BACKUPFILE_PARTS_H

#include "core/hash.h"
#include "writer/backupfile.h"

#include <sodium.h>

#define BACKUP_ABOUT      "about.json"
#define BACKUP_MANIFEST   "manifest.json"
#define BACKUP_CHUNK      65536u /* bytes of the stream in one chunk */
#define BACKUP_TRAILER    32u
#define BACKUP_HEADER     96u /* bytes before the first chunk */
#define BACKUP_CHUNK_SEAL crypto_secretstream_xchacha20poly1305_ABYTES

/* Loads libsodium, once or again. IO. */
int backup_sodium(struct azoth_error *err);

/* ---- digests ---- */

/* BLAKE2b-256 of one member after the other, by a thread of its own when they are large. NULL: no memory. */
struct backup_sum *backup_sum_new(void);
void backup_sum_begin(struct backup_sum *s);
void backup_sum_add(struct backup_sum *s, const void *p, size_t n); /* p is the caller's again */
void backup_sum_end(struct backup_sum *s, unsigned char ret[BACKUPFILE_DIGEST]);
void backup_sum_free(struct backup_sum *s); /* ends the thread; NULL is accepted */

/* ---- keys ---- */

/* What a file's key is made with, as its header has it. */
struct backup_kdf {
    uint32_t kdf, opslimit;
    uint64_t memlimit;
    unsigned char salt[16];
};
/* 32 bytes that the file's keys come from: of the key file, or of the passphrase with what `how` says. NOMEM,
 * WRONG_KEY (a passphrase where a key file is wanted, or the other way round). Takes what memory and time `how`
 * asks for, which the caller has checked. */
int backup_key_master(const struct backup_key *k, const struct backup_kdf *how,
                      unsigned char ret[32], struct azoth_error *err);

/* ---- the manifest ---- */

struct backup_manifest {
    struct buf text; /* what was added so far, without the end */
    void *names;     /* of tsearch(): lists of names that were taken */
    uint64_t members;
};
void manifest_fini(struct backup_manifest *m);
/* Takes a name: DUPLICATE (taken; or a file where others have a directory, when `tree` is set), NOMEM. */
int manifest_name(struct backup_manifest *m, const char *name, int tree, struct azoth_error *err);
/* Adds a member: USAGE when the text would be too long, NOMEM. */
int manifest_add(struct backup_manifest *m, const char *name, uint64_t bytes,
                 const unsigned char digest[BACKUPFILE_DIGEST], struct azoth_error *err);
/* Appends the end and tells the whole text's digest; signed_text, when k is there, gets the text to be
 * written. NOMEM, USAGE (k has no secret). */
int manifest_end(struct backup_manifest *m, const struct sign_key *k, struct buf *ret_text,
                 unsigned char digest[BACKUPFILE_DIGEST], struct azoth_error *err);
/* Does text say what m does, which has its end? Then 0, and *ret_signature is borrowed from text: its last
 * line's values in hexadecimal, 64 and 128 digits; NULLs when it is not signed. CORRUPT names the member. */
struct manifest_signature {
    const char *public, *signature;
};
int manifest_agrees(const struct backup_manifest *m, struct azoth_bytes text,
                    struct manifest_signature *ret, struct azoth_error *err);
/* Reads the member's line at *at of the text and moves *at behind it: 1, 0 when there is none left, CORRUPT. */
struct manifest_line {
    char name[BACKUPFILE_NAME_MAX + 1];
    uint64_t bytes;
};
int manifest_read(struct azoth_bytes text, size_t *at, struct manifest_line *ret,
                  struct azoth_error *err);
/* As backupfile_name_valid(), but about.json and manifest.json may be. */
int backup_path_valid(const char *name);

/* ---- the bytes ---- */

/* Where a stream goes: chunks if there is a key, the trailer, a descriptor. Fails on with its first error. */
struct backup_sink;
/* Writes the header. key may be NULL. Frees all when it fails. */
int sink_open(int fd, const struct backup_key *key, struct backup_sink **ret,
              struct azoth_error *err);
int sink_write(struct backup_sink *s, const void *p, size_t len, struct azoth_error *err);
/* The last chunk and the trailer. */
int sink_end(struct backup_sink *s, struct azoth_error *err);
void sink_free(struct backup_sink *s); /* wipes the keys; NULL is accepted */

/* Where it comes from. */
struct backup_source;
int source_open(int fd, const struct backup_key *key, struct backup_source **ret,
                struct azoth_error *err);
/* The next bytes of the stream, *ret_len 0 at its end; they live until the next call. CORRUPT, TRUNCATED, IO. */
int source_read(struct backup_source *s, const void **ret, size_t *ret_len,
                struct azoth_error *err);
/* Reads on to the end and checks the trailer: CORRUPT, TRUNCATED, IO. */
int source_end(struct backup_source *s, struct azoth_error *err);
int source_encrypted(const struct backup_source *s);
uint64_t source_bytes(const struct backup_source *s); /* read from the descriptor */
/* Does the file end with a trailer? 1, 0, or -1 for a pipe whose end was not reached. It tells one that was cut
 * or is none of ours from one that was changed. */
int source_trailer(const struct backup_source *s);
void source_free(struct backup_source *s); /* wipes the keys; NULL is accepted */

/* All of it, whatever signals come; waits for a pipe that does not block. */
int backup_write_all(int fd, const void *p, size_t len, struct azoth_error *err);
/* As much as there is, up to len: *ret less than len only at the end. */
int backup_read_full(int fd, void *p, size_t len, size_t *ret, struct azoth_error *err);

/* ---- members, one backend for each form ---- */

struct backup_writing {
    /* A member of so many bytes, its content, its end. */
    int (*begin)(void *w, const char *name, uint64_t bytes, struct azoth_error *err);
    int (*write)(void *w, const void *p, size_t len, struct azoth_error *err);
    int (*end)(void *w, struct azoth_error *err);
    /* All are written; then everything must be synced but what has PATH.partial's name. */
    int (*finish)(void *w, struct azoth_error *err);
    void (*free)(void *w); /* NULL is accepted */
};
extern const struct backup_writing backup_tar_writing, backup_dir_writing;
/* The sink belongs to the tar from then on, also when it fails. */
int backup_tar_create(struct backup_sink *sink, int level, unsigned threads, void **ret,
                      struct azoth_error *err);
/* dirfd is borrowed. */
int backup_dir_create(int dirfd, void **ret, struct azoth_error *err);

struct backup_reading {
    /* 1 and the next member's name and size, 0 at the end (checked), or an error. The name lives until the next
     * call. The manifest comes as a member, the last one. */
    int (*next)(void *r, const char **ret_name, uint64_t *ret_bytes, struct azoth_error *err);
    int (*read)(void *r, void *p, size_t cap, size_t *ret_len, struct azoth_error *err);
    uint64_t (*bytes)(const void *r);
    int (*encrypted)(const void *r);
    void (*free)(void *r); /* NULL is accepted */
};
extern const struct backup_reading backup_tar_reading, backup_dir_reading;
int backup_tar_open(struct backup_source *source, void **ret, struct azoth_error *err);
/* The descriptor belongs to the reader from then on, also when it fails. */
int backup_dir_open(int dirfd, void **ret, struct azoth_error *err);

/* ---- a place for what is being written ---- */

struct backup_place {
    char *path, *partial;
    int parent; /* descriptor of the directory that both are in */
    int fd;     /* of PATH.partial, locked; -1: there is none */
    int dir;    /* it is a directory */
};
/* DUPLICATE, BUSY, PERMISSION, NOT_FOUND (the directory), IO, NOSPACE, NOMEM. */
int place_take(struct backup_place *p, const char *path, int dir, struct azoth_error *err);
/* Syncs, renames, syncs. After a failure place_drop() removes what has not got its name. */
int place_keep(struct backup_place *p, struct azoth_error *err);
void place_drop(struct backup_place *p); /* removes PATH.partial if it is there still; frees */

#endif
