/*
 * backupfile.h - the file that a backup is: members, one after the other, compressed, and encrypted as
 * a whole.
 *
 *   members   a tar stream (POSIX ustar/pax as libarchive writes it; times, owners and modes fixed)
 *   about     the first member, "about.json": what the backup is, by whoever makes it
 *   manifest  the last member, "manifest.json": name, bytes and BLAKE2b-256 of every member before it,
 *             in their order, and an Ed25519 signature if there is a signing key
 *   zstd      around the tar stream. Without a key that is all: `zstd -d | tar t` reads it
 *   encrypted u8[8] "AZOTHBK1" | u32 kdf | u32 opslimit | u64 memlimit | u8 salt[16]
 *             | u8 header[24] | chunks: each of 64 KiB of the zstd stream, the last one shorter, as
 *             crypto_secretstream_xchacha20poly1305 pushes it (libsodium 1.0.18), the 56 bytes before
 *             `header` as additional data of the first; the last chunk is tagged FINAL.
 *             kdf 0: a key file; 1: crypto_pwhash with Argon2id 1.3 over a passphrase.
 *
 * What a file without its manifest, or without FINAL, holds is not believed: TRUNCATED. So a file is
 * complete or none, whatever ended the one that wrote it. Nothing but sizes is readable without the key.
 *
 * Members are written and read in order, without seeking: a pipe will do. Content whose size is not known
 * before is split by the caller into members of at most BACKUPFILE_PART ("data.mdb/00000001", ...).
 *
 * The same members with the same level give the same bytes, when there is no key.
 *
 * A writer to a path makes PATH.partial beside it (mode 0640, O_EXCL, locked with flock: a partial
 * file that nobody holds is a dead one's and may be replaced), syncs it, renames it to PATH, syncs the
 * directory. Threads: one object belongs to one thread at a time. Calls block on the file.
 */
#ifndef WRITER_BACKUPFILE_H
#define WRITER_BACKUPFILE_H

#include "core/azoth_base.h"
#include "core/buf.h"

#define BACKUPFILE_PART     (8u << 20)
#define BACKUPFILE_NAME_MAX 255u        /* bytes of a member's name: relative, no "..", no NUL */
#define BACKUPFILE_JSON_MAX (64u << 20) /* bytes of about.json and of the manifest */
#define BACKUPFILE_LEVEL    3           /* zstd, unless asked otherwise */
#define BACKUPFILE_DIGEST   32u         /* bytes of a BLAKE2b-256 */

/* ---- keys ---- */

/* What opens an encrypted backup. Wiped by backup_key_fini(); locked in memory if the system allows. */
struct backup_key {
    int passphrase; /* 1: secret is a passphrase; 0: 32 bytes of a key file */
    unsigned char secret[1024];
    size_t secret_len;
};
/* A key file has 64 hexadecimal digits (and a newline): made by backup_key_make with mode 0600, refused
 * when others may read it. CONFIG, PERMISSION, IO, NOT_FOUND. */
int backup_key_make(const char *path, struct azoth_error *err); /* DUPLICATE when it is there */
int backup_key_read(const char *path, struct backup_key *ret, struct azoth_error *err);
/* A passphrase: the first line of the file (or of descriptor fd when path is NULL), 8 to 1023 bytes. */
int backup_key_passphrase(const char *path, int fd, struct backup_key *ret,
                          struct azoth_error *err);
void backup_key_fini(struct backup_key *k);

/* Ed25519: PATH gets the secret key (0600), PATH.pub the public one, both in hexadecimal. */
struct sign_key {
    unsigned char secret[64], public[32];
    int has_secret;
};
int sign_key_make(const char *path, struct azoth_error *err);
/* Reads either file: a public key can only check. */
int sign_key_read(const char *path, struct sign_key *ret, struct azoth_error *err);
void sign_key_fini(struct sign_key *k);
int sign_bytes(const struct sign_key *k, struct azoth_bytes text, unsigned char ret[64],
               struct azoth_error *err);
/* 0, or CORRUPT: it was not signed with this key, or changed since. */
int sign_check(const struct sign_key *k, struct azoth_bytes text, const unsigned char sig[64],
               struct azoth_error *err);

/* ---- writing ---- */

struct backupfile_options {
    int level;        /* zstd's, 1 to 19; 0: stored as it is */
    unsigned threads; /* of zstd; 0: the caller's own, which is what makes equal bytes */
    const struct backup_key *key; /* NULL: not encrypted */
    const struct sign_key *sign;  /* NULL: not signed */
};
struct backupfile_out;

/* about: a JSON object, written as the first member. DUPLICATE (path is there), BUSY (another one writes it),
 * NOSPACE, IO, PERMISSION, NOMEM. */
int backupfile_create(const char *path, const struct backupfile_options *o,
                      struct azoth_bytes about, struct backupfile_out **ret,
                      struct azoth_error *err);
/* To a descriptor that stays the caller's: a pipe, a terminal's redirection. */
int backupfile_stream(int fd, const struct backupfile_options *o, struct azoth_bytes about,
                      struct backupfile_out **ret, struct azoth_error *err);
/* A member, then exactly `bytes` of it by backupfile_write(). DUPLICATE: the name was used. */
int backupfile_member(struct backupfile_out *b, const char *name, uint64_t bytes,
                      struct azoth_error *err);
int backupfile_write(struct backupfile_out *b, const void *p, size_t len, struct azoth_error *err);
/* Both at once. */
int backupfile_add(struct backupfile_out *b, const char *name, struct azoth_bytes content,
                   struct azoth_error *err);
uint64_t backupfile_written(const struct backupfile_out *b); /* bytes of content so far */
/* Manifest, sync, rename, sync; frees b in any case. digest (may be NULL): BLAKE2b-256 of the manifest
 * without its signature, which stands for the whole content. */
int backupfile_finish(struct backupfile_out *b, unsigned char digest[BACKUPFILE_DIGEST],
                      struct azoth_error *err);
void backupfile_abort(struct backupfile_out *b); /* removes what was written; NULL is accepted */

/* ---- reading ---- */

struct backupfile_in;

/* Reads what the file is and its about.json. WRONG_KEY (also: encrypted and no key was given, or a key for
 * a file that is not encrypted is not an error), FORMAT (no backup of ours, or of another version),
 * CORRUPT, TRUNCATED, NOT_FOUND, IO. Bounded whatever the bytes are. path "-" is standard input. */
int backupfile_open(const char *path, const struct backup_key *key, struct backupfile_in **ret,
                    struct azoth_error *err);
struct azoth_bytes backupfile_about(const struct backupfile_in *b); /* borrows b */
int backupfile_encrypted(const struct backupfile_in *b);
/* The next member: 1, 0 at the end (the manifest was read and agrees with all that was read), CORRUPT (names
 * the member), TRUNCATED, IO. What is left of the member before is read and checked. */
int backupfile_next(struct backupfile_in *b, const char **ret_name, uint64_t *ret_bytes,
                    struct azoth_error *err);
/* *ret_len 0 at the member's end. The bytes are believed only when backupfile_next() has answered 0. */
int backupfile_read(struct backupfile_in *b, void *p, size_t cap, size_t *ret_len,
                    struct azoth_error *err);
/* After the end: as backupfile_finish() gave it. */
void backupfile_digest(const struct backupfile_in *b, unsigned char ret[BACKUPFILE_DIGEST]);
/* After the end: 0 when it was signed with this key; CORRUPT; NOT_FOUND when it is not signed. */
int backupfile_signed_by(const struct backupfile_in *b, const struct sign_key *k,
                         struct azoth_error *err);
void backupfile_close(struct backupfile_in *b); /* NULL is accepted */

#endif
