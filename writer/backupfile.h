/*
 * backupfile.h - the file that a backup is: members, one after the other, compressed, and encrypted as
 * a whole.
 *
 *   members   a tar stream (POSIX ustar/pax as libarchive writes it; times, owners and modes fixed)
 *   about     the first member, "about.json": what the backup is, by whoever makes it
 *   manifest  the last member, "manifest.json": name, bytes and BLAKE2b-256 of every member before it, in
 *             their order, and an Ed25519 signature if there is a signing key. One text per content, a
 *             member a line: whoever reads the members writes the same text and compares, so that nobody
 *             parses it. Signed and digested is the text without the signature:
 *               {"azoth-backup":1,"members":[
 *               {"name":"about.json","bytes":2,"blake2b":"HEX"},
 *               ...
 *               ]}
 *             whose last line is `],"public":"HEX","signature":"HEX"}` in the file that is signed
 *   zstd      around the tar stream. Without a key that is all but the trailer: `zstd -d | tar t` reads it
 *   encrypted u8[8] "AZOTHBK1" | u32 kdf | u32 opslimit | u64 memlimit | u8 salt[16] | u8 check[16]
 *             | u8 header[24] | u8 sum[16] | chunks: each of 64 KiB of the zstd stream, the last one
 *             shorter or as long, as crypto_secretstream_xchacha20poly1305 pushes it (libsodium 1.0.18), the
 *             56 bytes before `header` as additional data of the first; the last chunk is tagged FINAL.
 *             kdf 0: a key file; 1: crypto_pwhash with Argon2id 1.3 over a passphrase. The stream's key and
 *             `check` are BLAKE2b of the 40 bytes before `check`, keyed with that: a file has a key of its
 *             own, and a wrong key is told from a changed byte, since `sum` is BLAKE2b of the 80 bytes before.
 *   trailer   u32 0x184D2A50 | u32 24 | u8[8] "AZOTHEND" | u8[16] XXH3-128 of all bytes before it. For
 *             zstd that is a frame to be skipped, for tar it stands behind the end. It tells a file that
 *             was cut from one that was changed; it is a check, no proof: FINAL and signatures are.
 *
 * What a file without its manifest, without FINAL or without its trailer holds is not believed: TRUNCATED. So
 * a file is complete or none, whatever ended the one that wrote it. Nothing but sizes is readable without
 * the key. Numbers are little-endian.
 *
 * Members are written and read in order, without seeking: a pipe will do. Content whose size is not known
 * before is split by the caller into members of at most BACKUPFILE_PART ("data.mdb/00000001", ...).
 *
 * The same members with the same level give the same bytes, when there is no key and no more than the caller's
 * thread, with the same libarchive and libzstd, whatever locale, time zone and umask are. The digest
 * of a content depends on none of these.
 *
 * A plain directory, instead: a file per member, named as it is, manifest.json as the last one. No zstd, no
 * encryption, no trailer; read in the manifest's order, symbolic links refused. Files that the manifest does
 * not name are not looked at.
 *
 * A writer to a path makes PATH.partial beside it (mode 0640 less the umask, O_EXCL, locked with flock: a partial
 * file that nobody holds is a dead one's and is replaced), syncs it, renames it to PATH, which must
 * not be there, and syncs the directory. Of a directory the same is true; a PATH.partial of
 * which about.json is not the first sign is somebody else's and is refused.
 *
 * Threads: one object belongs to one thread at a time. Calls block on the file, also when it is a pipe and
 * non-blocking, whatever signals come, unless backupfile_give_up_when() says otherwise. Nothing else is global: whoever writes to a pipe ignores SIGPIPE, else its reader's end ends
 * the process too (ignored, the call says IO). Without sodium_init() nothing works: these calls make it.
 */
#ifndef WRITER_BACKUPFILE_H
#define WRITER_BACKUPFILE_H

#include "core/azoth_base.h"
#include "core/buf.h"

#define BACKUPFILE_PART     (8u << 20)
#define BACKUPFILE_NAME_MAX 255u        /* bytes of a member's name */
#define BACKUPFILE_JSON_MAX (64u << 20) /* bytes of the manifest: half a million members */
#define BACKUPFILE_ABOUT_MAX                                                                       \
    (4u << 20) /* bytes of about.json: who reads it has a JSON parser, which takes more */
#define BACKUPFILE_MEMBER_MAX (1ull << 40) /* bytes of a member */
#define BACKUPFILE_LEVEL      3            /* zstd, unless asked otherwise */
#define BACKUPFILE_DIGEST     32u          /* bytes of a BLAKE2b-256 */

/* ---- keys ---- */

/* What opens an encrypted backup. Wiped by backup_key_fini(); locked in memory if the system allows. */
struct backup_key {
    int passphrase; /* 1: secret is a passphrase; 0: 32 bytes of a key file */
    unsigned char secret[1024];
    size_t secret_len;
};
/* A key file has 64 hexadecimal digits (and a newline): made by backup_key_make with mode 0600, refused
 * when others may read it, or the group may write it. CONFIG, PERMISSION, IO, NOT_FOUND. */
int backup_key_make(const char *path, struct azoth_error *err); /* DUPLICATE when it is there */
int backup_key_read(const char *path, struct backup_key *ret, struct azoth_error *err);
/* A passphrase: the first line of the file (or of descriptor fd when path is NULL), 8 to 1023 bytes. */
int backup_key_passphrase(const char *path, int fd, struct backup_key *ret,
                          struct azoth_error *err);
void backup_key_fini(struct backup_key *k);

/* Ed25519: PATH gets the secret key (0600), PATH.pub the public one, both in hexadecimal behind a word that says
 * which it is, so that none is taken for another or for the key of an encryption. */
struct sign_key {
    unsigned char secret[64], public[32];
    int has_secret;
};
int sign_key_make(const char *path, struct azoth_error *err);
/* Reads either file: a public key can only check. CONFIG, PERMISSION (a secret that others may read), IO,
 * NOT_FOUND. */
int sign_key_read(const char *path, struct sign_key *ret, struct azoth_error *err);
void sign_key_fini(struct sign_key *k);
/* USAGE when k has no secret. What is signed says by its first bytes what it is. */
int sign_bytes(const struct sign_key *k, struct azoth_bytes text, unsigned char ret[64],
               struct azoth_error *err);
/* 0, or CORRUPT: it was not signed with this key, or changed since. */
int sign_check(const struct sign_key *k, struct azoth_bytes text, const unsigned char sig[64],
               struct azoth_error *err);

/* ---- writing ---- */

struct backupfile_options {
    int level;        /* zstd's, 1 to 19; 0: stored as it is */
    unsigned threads; /* of zstd; 0: the caller's own, which is what makes equal bytes */
    const struct backup_key *key; /* NULL: not encrypted. Read at once: not needed afterwards */
    const struct sign_key *sign;  /* NULL: not signed. Borrowed until the object is freed */
};
struct backupfile_out;

/* Whether a member may be called so: 1 to 255 printable ASCII characters but " and \, relative, no part of
 * it empty, "." or "..", neither about.json nor manifest.json. (libarchive converts names by the program's
 * locale: others would depend on it.) */
int backupfile_name_valid(const char *name);

/* about: a JSON object, written as the first member. DUPLICATE (path is there), BUSY (another one writes it),
 * NOSPACE, IO, PERMISSION, NOMEM, BAD_JSON, USAGE (the level, the size of about). After a failure of any of the
 * calls below but DUPLICATE and USAGE the object only fails on, with the same error. */
int backupfile_create(const char *path, const struct backupfile_options *o,
                      struct azoth_bytes about, struct backupfile_out **ret,
                      struct azoth_error *err);
/* To a descriptor that stays the caller's: a pipe, a terminal's redirection. */
int backupfile_stream(int fd, const struct backupfile_options *o, struct azoth_bytes about,
                      struct backupfile_out **ret, struct azoth_error *err);
/* A directory with a file per member. USAGE with a key; level and threads do not count. */
int backupfile_create_dir(const char *path, const struct backupfile_options *o,
                          struct azoth_bytes about, struct backupfile_out **ret,
                          struct azoth_error *err);
/* A member, then exactly `bytes` of it by backupfile_write(). DUPLICATE: the name was used (or, in a
 * directory, is a directory's). USAGE: the name, the size, too many members, or bytes of the one before are missing. */
int backupfile_member(struct backupfile_out *b, const char *name, uint64_t bytes,
                      struct azoth_error *err);
/* USAGE: more than was announced. */
int backupfile_write(struct backupfile_out *b, const void *p, size_t len, struct azoth_error *err);
/* Both at once. */
int backupfile_add(struct backupfile_out *b, const char *name, struct azoth_bytes content,
                   struct azoth_error *err);
/* Bytes of content so far, with those of about: what progress shows. */
uint64_t backupfile_written(const struct backupfile_out *b);
/* Manifest, sync, rename, sync; frees b in any case, and removes what was written if it fails (but a file that
 * has its name and whose directory could not be synced: IO). digest (may be NULL): BLAKE2b-256 of the manifest
 * without its signature, which stands for the whole content. DUPLICATE: path is there meanwhile. */
int backupfile_finish(struct backupfile_out *b, unsigned char digest[BACKUPFILE_DIGEST],
                      struct azoth_error *err);
void backupfile_abort(struct backupfile_out *b); /* removes what was written; NULL is accepted */

/* Asked when a signal has come while a call waits for a file or a pipe, and every 100 ms while it waits for one that is
 * non-blocking: not 0, and the call fails with IO (foreign: EINTR). Of the whole process: set before the first backup. NULL,
 * as at first: nobody is asked. */
void backupfile_give_up_when(int (*interrupted)(void));

/* ---- reading ---- */

struct backupfile_in;

/* Reads what the file is and its about.json. WRONG_KEY (also: it is encrypted and no key was given; a key
 * for a file that is not encrypted is no error: who wants to be sure asks backupfile_encrypted()), FORMAT (no
 * backup of ours, of another version, or its passphrase asks for more memory or time than one should give),
 * CORRUPT, TRUNCATED, NOT_FOUND, IO, NOMEM. Bounded in memory whatever the bytes are. path: a file, a
 * directory that backupfile_create_dir() made, or "-" for standard input. The key is not needed afterwards. */
int backupfile_open(const char *path, const struct backup_key *key, struct backupfile_in **ret,
                    struct azoth_error *err);
/* Of a descriptor that stays the caller's, from where it stands. */
int backupfile_open_fd(int fd, const struct backup_key *key, struct backupfile_in **ret,
                       struct azoth_error *err);
struct azoth_bytes backupfile_about(const struct backupfile_in *b); /* borrows b */
int backupfile_encrypted(const struct backupfile_in *b);
uint64_t backupfile_bytes_read(const struct backupfile_in *b); /* of the file, for a progress bar */
/* The next member: 1, 0 at the end (the manifest was read and agrees with all that was read), CORRUPT (names
 * the member), TRUNCATED, IO, NOMEM. What is left of the member before is read and checked. The name lives until
 * the next call. About.json was read already: it does not come again. */
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

/* Makes the name of path durable: syncs the directory that it is in. NOT_FOUND, PERMISSION, IO. */
int backup_sync_parent(const char *path, struct azoth_error *err);

#endif
