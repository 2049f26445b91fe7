/*
 * backupfile_crypt.c - the lowest layer of a backup file: its bytes on a descriptor, as they are or as encrypted
 * chunks, and the trailer.
 *
 * Writing: what comes is gathered to 64 KiB; a chunk is pushed when one more byte than that has come, so
 * that the last one is known to be the last and tagged FINAL; it may be empty. Reading: the last 32
 * bytes that were read are always held back: at the end of the file they are the trailer.
 *
 *   what is wrong                         says
 *   the file is shorter than its header   TRUNCATED
 *   a changed byte in the header          CORRUPT (`sum`); in its first 8, it is none of ours
 *   another key                           WRONG_KEY (`check`), before a byte is decrypted
 *   limits beyond ours for a passphrase   FORMAT: a hostile file must not take the machine's memory
 *   a chunk that fails its check          CORRUPT; TRUNCATED when there is no trailer at the end
 *   chunks missing at the end             TRUNCATED: no FINAL, whether there is a trailer or not
 *   bytes behind FINAL                    CORRUPT
 *   the trailer's checksum                CORRUPT
 *
 * The trailer's checksum is XXH3: it takes next to no time where BLAKE2b of the file would take as long as that of its
 * contents, and it has only to notice what happens to files by itself.
 *
 * Of libsodium 1.0.18: crypto_secretstream's pull takes a chunk shorter than 17 bytes for a failure, not for
 * an error of ours. A chunk's tag is told only after its check.
 */
#define XXH_INLINE_ALL
#include "writer/backupfile_parts.h"

#include "core/error.h"
#include "core/io.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC        "AZOTHBK1"
#define SUM_BYTES    16u
#define AHEAD        (BACKUP_CHUNK + BACKUP_CHUNK_SEAL) /* bytes that one look takes at most */
#define OPSLIMIT_MAX 10u
#define MEMLIMIT_MAX (1ull << 30)
#define MORE_MAX                                                                                   \
    (1u << 20) /* bytes of the stream behind the end of the tar: those of its last block */

static const unsigned char trailer_begin[16] = "\x50\x2A\x4D\x18\x18\0\0\0AZOTHEND";

/* ---- the descriptor ---- */

static int (*asked)(void);

void backupfile_give_up_when(int (*interrupted)(void))
{
    asked = interrupted;
}

int backup_write_all(int fd, const void *p, size_t len, struct azoth_error *err)
{
    return io_write_unless(asked, fd, p, len, "writing the backup", err);
}

int backup_read_full(int fd, void *p, size_t len, size_t *ret, struct azoth_error *err)
{
    return io_read_unless(asked, fd, p, len, ret, "reading the backup", err);
}

static void put_sum(const XXH3_state_t *sum, unsigned char ret[SUM_BYTES])
{
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(sum));
    memcpy(ret, &c, SUM_BYTES);
}
_Static_assert(sizeof(XXH128_canonical_t) == SUM_BYTES, "checksum");
_Static_assert(sizeof trailer_begin + SUM_BYTES == BACKUP_TRAILER, "trailer");

/* ---- the header ---- */

static void put_le(unsigned char *p, uint64_t n, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(n >> 8 * i);
}

static uint64_t get_le(const unsigned char *p, size_t bytes)
{
    uint64_t n = 0;
    for (size_t i = bytes; i-- > 0;)
        n = n << 8 | p[i];
    return n;
}

/* The header's parts, by their places. */
enum {
    AT_KDF = 8,
    AT_OPS = 12,
    AT_MEM = 16,
    AT_SALT = 24,
    AT_CHECK = 40,
    AT_HEAD = 56,
    AT_SUM = 80
};
#define CHECK_BYTES 16u
_Static_assert(AT_HEAD + crypto_secretstream_xchacha20poly1305_HEADERBYTES == AT_SUM, "header");
_Static_assert(AT_SUM + 16 == BACKUP_HEADER, "header");
_Static_assert(crypto_pwhash_SALTBYTES == AT_CHECK - AT_SALT, "salt");

/* From the master key: the stream's key, and what tells that it is the right one. */
static int derive(const struct backup_key *key, const unsigned char h[BACKUP_HEADER],
                  unsigned char ret_key[32], unsigned char ret_check[CHECK_BYTES],
                  struct azoth_error *err)
{
    unsigned char master[32], text[AT_CHECK + 1];
    struct backup_kdf how = {.kdf = (uint32_t)get_le(h + AT_KDF, 4),
                             .opslimit = (uint32_t)get_le(h + AT_OPS, 4),
                             .memlimit = get_le(h + AT_MEM, 8)};
    memcpy(how.salt, h + AT_SALT, sizeof how.salt);
    int rc = backup_key_master(key, &how, master, err);
    if (rc)
        return rc;
    memcpy(text, h, AT_CHECK);
    text[AT_CHECK] = 'k';
    crypto_generichash(ret_key, 32, text, sizeof text, master, sizeof master);
    text[AT_CHECK] = 'c';
    crypto_generichash(ret_check, CHECK_BYTES, text, sizeof text, master, sizeof master);
    sodium_memzero(master, sizeof master);
    return 0;
}

/* ---- writing ---- */

struct backup_sink {
    XXH3_state_t sum; /* of all bytes before the trailer; first, for its alignment */
    crypto_secretstream_xchacha20poly1305_state cipher;
    int fd, encrypted, first;
    size_t len; /* of plain */
    unsigned char plain[BACKUP_CHUNK], chunk[BACKUP_CHUNK + BACKUP_CHUNK_SEAL];
    unsigned char said[AT_HEAD]; /* additional data of the first chunk */
    int failed;
    struct azoth_error why;
};

/* Whatever failed once fails on: nobody goes on behind bytes that are missing. */
static int sink_fails(struct backup_sink *s, struct azoth_error *err)
{
    if (err)
        *err = s->why;
    return s->failed;
}

static int put(struct backup_sink *s, const void *p, size_t len, struct azoth_error *err)
{
    if (s->failed)
        return sink_fails(s, err);
    s->failed = backup_write_all(s->fd, p, len, &s->why);
    if (s->failed)
        return sink_fails(s, err);
    XXH3_128bits_update(&s->sum, p, len);
    return 0;
}

static int put_header(struct backup_sink *s, const struct backup_key *key, struct azoth_error *err)
{
    unsigned char h[BACKUP_HEADER] = MAGIC, stream_key[32];
    put_le(h + AT_KDF, key->passphrase ? 1 : 0, 4);
    put_le(h + AT_OPS, key->passphrase ? crypto_pwhash_OPSLIMIT_MODERATE : 0, 4);
    put_le(h + AT_MEM, key->passphrase ? crypto_pwhash_MEMLIMIT_MODERATE : 0, 8);
    randombytes_buf(h + AT_SALT, crypto_pwhash_SALTBYTES);
    int rc = derive(key, h, stream_key, h + AT_CHECK, err);
    if (rc)
        return rc;
    crypto_secretstream_xchacha20poly1305_init_push(&s->cipher, h + AT_HEAD, stream_key);
    sodium_memzero(stream_key, sizeof stream_key);
    crypto_generichash(h + AT_SUM, BACKUP_HEADER - AT_SUM, h, AT_SUM, NULL, 0);
    memcpy(s->said, h, sizeof s->said);
    s->encrypted = s->first = 1;
    return put(s, h, sizeof h, err);
}

static int put_chunk(struct backup_sink *s, unsigned char tag, struct azoth_error *err)
{
    unsigned long long n;
    crypto_secretstream_xchacha20poly1305_push(&s->cipher, s->chunk, &n, s->plain, s->len,
                                               s->first ? s->said : NULL,
                                               s->first ? sizeof s->said : 0, tag);
    s->first = 0;
    s->len = 0;
    return put(s, s->chunk, (size_t)n, err);
}

int sink_open(int fd, const struct backup_key *key, struct backup_sink **ret,
              struct azoth_error *err)
{
    int rc = backup_sodium(err);
    if (rc)
        return rc;
    struct backup_sink *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "the backup's buffers");
    s->fd = fd;
    XXH3_128bits_reset(&s->sum);
    sodium_mlock(&s->cipher, sizeof s->cipher);
    rc = key ? put_header(s, key, err) : 0;
    if (rc) {
        sink_free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

int sink_write(struct backup_sink *s, const void *p, size_t len, struct azoth_error *err)
{
    const unsigned char *at = p;
    if (!s->encrypted)
        return put(s, p, len, err);
    while (len) {
        if (s->len == BACKUP_CHUNK && put_chunk(s, 0, err))
            return s->failed;
        size_t n = BACKUP_CHUNK - s->len < len ? BACKUP_CHUNK - s->len : len;
        memcpy(s->plain + s->len, at, n);
        s->len += n;
        at += n;
        len -= n;
    }
    return s->failed ? sink_fails(s, err) : 0;
}

int sink_end(struct backup_sink *s, struct azoth_error *err)
{
    unsigned char trailer[BACKUP_TRAILER];
    if (s->encrypted && put_chunk(s, crypto_secretstream_xchacha20poly1305_TAG_FINAL, err))
        return s->failed;
    memcpy(trailer, trailer_begin, sizeof trailer_begin);
    put_sum(&s->sum, trailer + sizeof trailer_begin);
    return put(s, trailer, sizeof trailer, err);
}

void sink_free(struct backup_sink *s)
{
    if (!s)
        return;
    sodium_munlock(&s->cipher, sizeof s->cipher);
    sodium_memzero(s, sizeof *s);
    free(s);
}

/* ---- reading ---- */

struct backup_source {
    XXH3_state_t sum; /* first, for its alignment */
    crypto_secretstream_xchacha20poly1305_state cipher;
    int fd, encrypted, ended, first, final;
    uint64_t bytes;
    size_t at, len; /* what was read and not yet given: raw[at] to raw[len - 1] */
    unsigned char raw[2 * (AHEAD + BACKUP_TRAILER)], plain[BACKUP_CHUNK];
    unsigned char said[AT_HEAD];
};

/* Reads until there are `want` bytes, or the file ends. */
static int fill(struct backup_source *s, size_t want, struct azoth_error *err)
{
    size_t n = 0;
    ensure(want <= AHEAD + BACKUP_TRAILER);
    if (s->ended || s->len - s->at >= want)
        return 0;
    if (s->at + want > sizeof s->raw) {
        memmove(s->raw, s->raw + s->at, s->len - s->at);
        s->len -= s->at;
        s->at = 0;
    }
    want -= s->len - s->at;
    int rc = backup_read_full(s->fd, s->raw + s->len, want, &n, err);
    if (rc)
        return rc;
    s->len += n;
    s->bytes += n;
    s->ended = n < want;
    return 0;
}

/* Up to `want` bytes of what is before the trailer; 0 at its end, or where the file was cut. */
static int take(struct backup_source *s, size_t want, const unsigned char **ret, size_t *ret_len,
                struct azoth_error *err)
{
    int rc = fill(s, want + BACKUP_TRAILER, err);
    if (rc)
        return rc;
    size_t have = s->len - s->at;
    have = have > BACKUP_TRAILER ? have - BACKUP_TRAILER : 0;
    *ret = s->raw + s->at;
    *ret_len = have < want ? have : want;
    XXH3_128bits_update(&s->sum, *ret, *ret_len);
    s->at += *ret_len;
    return 0;
}

int source_trailer(const struct backup_source *s)
{
    unsigned char end[sizeof trailer_begin];
    struct stat st;
    if (s->ended)
        return s->len - s->at >= BACKUP_TRAILER &&
               memcmp(s->raw + s->len - BACKUP_TRAILER, trailer_begin, sizeof end) == 0;
    if (fstat(s->fd, &st) || !S_ISREG(st.st_mode))
        return -1;
    return st.st_size >= (off_t)BACKUP_TRAILER &&
           pread(s->fd, end, sizeof end, st.st_size - (off_t)BACKUP_TRAILER) == sizeof end &&
           memcmp(end, trailer_begin, sizeof end) == 0;
}

static int is_cut(struct azoth_error *err)
{
    return error_set(err, AZOTH_ERR_TRUNCATED, "the backup ends too early");
}

/* What the header asks for, before anything is done for it. */
static int check_header(const unsigned char h[BACKUP_HEADER], struct azoth_error *err)
{
    unsigned char sum[BACKUP_HEADER - AT_SUM];
    crypto_generichash(sum, sizeof sum, h, AT_SUM, NULL, 0);
    if (memcmp(sum, h + AT_SUM, sizeof sum) != 0)
        return error_set(err, AZOTH_ERR_CORRUPT, "the backup's header was changed");
    uint64_t kdf = get_le(h + AT_KDF, 4), ops = get_le(h + AT_OPS, 4), mem = get_le(h + AT_MEM, 8);
    if (kdf > 1)
        return error_set(err, AZOTH_ERR_FORMAT,
                         "the backup's key is made in a way that this version does not know");
    if (kdf == 1 && (ops < crypto_pwhash_OPSLIMIT_MIN || ops > OPSLIMIT_MAX ||
                     mem < crypto_pwhash_MEMLIMIT_MIN || mem > MEMLIMIT_MAX))
        return error_set(err, AZOTH_ERR_FORMAT,
                         "the backup's passphrase asks for %llu passes over %llu MiB of memory; at "
                         "most %u and %llu are given",
                         (unsigned long long)ops, (unsigned long long)(mem >> 20), OPSLIMIT_MAX,
                         MEMLIMIT_MAX >> 20);
    return 0;
}

static int take_header(struct backup_source *s, const struct backup_key *key,
                       struct azoth_error *err)
{
    unsigned char stream_key[32], check[CHECK_BYTES];
    const unsigned char *h;
    size_t n;
    int rc = take(s, BACKUP_HEADER, &h, &n, err);
    if (!rc && n < BACKUP_HEADER)
        rc = is_cut(err);
    if (!rc)
        rc = check_header(h, err);
    if (!rc && !key)
        rc = error_set(err, AZOTH_ERR_WRONG_KEY, "the backup is encrypted with a %s",
                       get_le(h + AT_KDF, 4) ? "passphrase" : "key file");
    if (!rc)
        rc = derive(key, h, stream_key, check, err);
    if (rc)
        return rc;
    if (sodium_memcmp(check, h + AT_CHECK, sizeof check) != 0)
        rc = error_set(err, AZOTH_ERR_WRONG_KEY, "this %s does not open the backup",
                       key->passphrase ? "passphrase" : "key");
    else if (crypto_secretstream_xchacha20poly1305_init_pull(&s->cipher, h + AT_HEAD, stream_key))
        rc = error_set(err, AZOTH_ERR_CORRUPT, "the backup's header was changed");
    memcpy(s->said, h, sizeof s->said);
    s->encrypted = s->first = 1;
    sodium_memzero(stream_key, sizeof stream_key);
    return rc;
}

int source_open(int fd, const struct backup_key *key, struct backup_source **ret,
                struct azoth_error *err)
{
    int rc = backup_sodium(err);
    if (rc)
        return rc;
    struct backup_source *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "the backup's buffers");
    s->fd = fd;
    XXH3_128bits_reset(&s->sum);
    sodium_mlock(&s->cipher, sizeof s->cipher);
    rc = fill(s, BACKUP_TRAILER, err);
    size_t seen = s->len < 8 ? s->len : 8;
    if (!rc && seen == 8 && memcmp(s->raw, MAGIC, 7) == 0 && s->raw[7] != MAGIC[7])
        rc = error_set(err, AZOTH_ERR_FORMAT, "the backup is of another version");
    /* Also of less than its first 8 bytes; of nothing, too. */
    else if (!rc && memcmp(s->raw, MAGIC, seen) == 0)
        rc = seen < 8 ? is_cut(err) : take_header(s, key, err);
    if (rc) {
        source_free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

/* The next chunk; nothing behind the last one. */
static int pull(struct backup_source *s, const void **ret, size_t *ret_len, struct azoth_error *err)
{
    const unsigned char *p;
    unsigned long long n = 0;
    unsigned char tag;
    size_t len;
    int rc = take(s, AHEAD, &p, &len, err);
    if (rc)
        return rc;
    *ret = p;
    *ret_len = 0;
    if (s->final)
        return len ? error_set(err, AZOTH_ERR_CORRUPT, "the backup goes on behind its end") : 0;
    if (len == 0)
        return is_cut(err);
    if (crypto_secretstream_xchacha20poly1305_pull(&s->cipher, s->plain, &n, &tag, p, len,
                                                   s->first ? s->said : NULL,
                                                   s->first ? sizeof s->said : 0))
        return source_trailer(s) == 0
                   ? is_cut(err)
                   : error_set(err, AZOTH_ERR_CORRUPT,
                               "the part before byte %llu of the backup fails its check",
                               (unsigned long long)(s->bytes - (s->len - s->at)));
    s->first = 0;
    s->final = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
    *ret = s->plain;
    *ret_len = (size_t)n;
    /* An empty chunk before the last one would be taken for the end. */
    return n || s->final ? 0 : error_set(err, AZOTH_ERR_CORRUPT, "the backup has an empty part");
}

int source_read(struct backup_source *s, const void **ret, size_t *ret_len, struct azoth_error *err)
{
    const unsigned char *p = NULL;
    if (s->encrypted)
        return pull(s, ret, ret_len, err);
    int rc = take(s, AHEAD, &p, ret_len, err);
    *ret = p;
    return rc;
}

int source_end(struct backup_source *s, struct azoth_error *err)
{
    unsigned char sum[SUM_BYTES];
    const void *p;
    size_t n = 0, more = 0;
    int rc;
    do {
        rc = source_read(s, &p, &n, err);
        more += n;
    } while (!rc && n && more < MORE_MAX);
    if (!rc && n)
        return error_set(err, AZOTH_ERR_CORRUPT, "the backup goes on behind its end");
    if (!rc && s->encrypted)
        rc = source_read(s, &p, &n, err); /* FINAL may have been empty: what is behind it? */
    if (rc)
        return rc;
    if (source_trailer(s) != 1)
        return is_cut(err);
    put_sum(&s->sum, sum);
    if (memcmp(sum, s->raw + s->at + sizeof trailer_begin, sizeof sum) != 0)
        return error_set(err, AZOTH_ERR_CORRUPT, "the backup was changed: its checksum is another");
    return 0;
}

int source_encrypted(const struct backup_source *s)
{
    return s->encrypted;
}

uint64_t source_bytes(const struct backup_source *s)
{
    return s->bytes;
}

void source_free(struct backup_source *s)
{
    if (!s)
        return;
    sodium_munlock(&s->cipher, sizeof s->cipher);
    sodium_memzero(s, sizeof *s);
    free(s);
}
