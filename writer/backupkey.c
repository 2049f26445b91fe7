/*
 * backupkey.c - keys of backups: files of hexadecimal digits, passphrases, signatures.
 *
 * Key files are read byte by byte up to their first newline, so that a descriptor that has more to say
 * (a pipe, standard input) loses nothing of it. Whatever held a secret is wiped before it is given up.
 *
 * Of libsodium 1.0.18: sodium_mlock() and sodium_munlock() are about whole pages, so that two keys on one
 * page lose their lock together; it is a best effort, as RLIMIT_MEMLOCK makes it anyway. crypto_pwhash()
 * answers -1 for want of memory and for limits out of its range alike: limits are checked before.
 */
#include "writer/backupfile_parts.h"

#include "core/error.h"
#include "core/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET_WORD    "azoth-sign-secret "
#define PUBLIC_WORD    "azoth-sign-public "
#define PASSPHRASE_MIN 8u
#define LINE_MAX_BYTES 1024u

int backup_sodium(struct azoth_error *err)
{
    return sodium_init() < 0 ? error_set(err, AZOTH_ERR_IO, "libsodium: no random numbers") : 0;
}

/* ---- files ---- */

/* Others must not read a secret, and nobody but the owner may put one there. */
static int check_mode(int fd, const char *path, struct azoth_error *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return error_errno(err, errno, "%s", path);
    if (st.st_mode & 027)
        return error_set(err, AZOTH_ERR_PERMISSION,
                         "%s: mode %03o: a secret that others may read, or the group may write; "
                         "chmod 600 makes it yours",
                         path, st.st_mode & 0777);
    return 0;
}

/* The first line, without its newline; at most LINE_MAX_BYTES - 1 bytes of it. */
static int read_line(int fd, const char *what, char *ret, size_t *ret_len, struct azoth_error *err)
{
    size_t n = 0;
    char c;
    for (;;) {
        ssize_t r = read(fd, &c, 1);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return error_errno(err, errno, "%s", what);
        if (r == 0 || c == '\n')
            break;
        if (n == LINE_MAX_BYTES - 1)
            return error_set(err, AZOTH_ERR_CONFIG, "%s: its first line is longer than %u bytes",
                             what, LINE_MAX_BYTES - 1);
        ret[n++] = c;
    }
    ret[n] = 0;
    *ret_len = n;
    if (memchr(ret, 0, n))
        return error_set(err, AZOTH_ERR_CONFIG, "%s: its first line has a NUL byte", what);
    return 0;
}

static int open_key(const char *path, int *ret, struct azoth_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? error_foreign(err, AZOTH_ERR_NOT_FOUND, ENOENT,
                                               "%s: there is no such file", path)
                               : error_errno(err, errno, "%s", path);
    *ret = fd;
    return 0;
}

/* A new file with this text; it is the disk's when it is there. */
static int put_file(const char *path, mode_t mode, const char *text, struct azoth_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return errno == EEXIST ? error_foreign(err, AZOTH_ERR_DUPLICATE, EEXIST,
                                               "%s is there: a key is never written over", path)
                               : error_errno(err, errno, "%s", path);
    int rc = io_write_all(fd, text, strlen(text), path, err);
    /* Whatever the umask is: a key that its owner cannot read opens nothing. */
    if (!rc && (fchmod(fd, mode) || fsync(fd)))
        rc = error_errno(err, errno, "%s", path);
    if (close(fd) && !rc)
        rc = error_errno(err, errno, "%s", path);
    if (!rc)
        rc = backup_sync_parent(path, err); /* a key must not go where a backup stays */
    if (rc)
        unlink(path);
    return rc;
}

/* 1 when text is 2 n hexadecimal digits and no more. */
static int unhex(const char *text, unsigned char *ret, size_t n)
{
    size_t len = 0;
    const char *end;
    return strlen(text) == 2 * n && sodium_hex2bin(ret, n, text, 2 * n, NULL, &len, &end) == 0 &&
           len == n && *end == 0;
}

/* ---- keys ---- */

int backup_key_make(const char *path, struct azoth_error *err)
{
    unsigned char key[32];
    char text[2 * sizeof key + 2];
    int rc = backup_sodium(err);
    if (rc)
        return rc;
    randombytes_buf(key, sizeof key);
    sodium_bin2hex(text, sizeof text, key, sizeof key);
    strcat(text, "\n");
    rc = put_file(path, 0600, text, err);
    sodium_memzero(key, sizeof key);
    sodium_memzero(text, sizeof text);
    return rc;
}

int backup_key_read(const char *path, struct backup_key *ret, struct azoth_error *err)
{
    char line[LINE_MAX_BYTES];
    unsigned char key[32];
    size_t len;
    int fd, rc = backup_sodium(err);
    if (rc || (rc = open_key(path, &fd, err)))
        return rc;
    rc = check_mode(fd, path, err);
    if (!rc)
        rc = read_line(fd, path, line, &len, err);
    close(fd);
    if (!rc && !unhex(line, key, sizeof key))
        rc = error_set(err, AZOTH_ERR_CONFIG, "%s: a key is 64 hexadecimal digits on one line",
                       path);
    if (!rc) {
        *ret = (struct backup_key){.secret_len = sizeof key};
        sodium_mlock(ret, sizeof *ret);
        memcpy(ret->secret, key, sizeof key);
    }
    sodium_memzero(key, sizeof key);
    sodium_memzero(line, sizeof line);
    return rc;
}

int backup_key_passphrase(const char *path, int fd, struct backup_key *ret, struct azoth_error *err)
{
    char line[LINE_MAX_BYTES];
    const char *what = path ? path : "the passphrase";
    size_t len = 0;
    int rc = backup_sodium(err);
    if (!rc && path)
        rc = open_key(path, &fd, err);
    if (rc)
        return rc;
    if (path)
        rc = check_mode(fd, path, err);
    if (!rc)
        rc = read_line(fd, what, line, &len, err);
    if (path)
        close(fd);
    if (!rc && len < PASSPHRASE_MIN)
        rc = error_set(err, AZOTH_ERR_CONFIG, "%s: a passphrase has at least %u bytes", what,
                       PASSPHRASE_MIN);
    if (!rc) {
        *ret = (struct backup_key){.passphrase = 1, .secret_len = len};
        sodium_mlock(ret, sizeof *ret);
        memcpy(ret->secret, line, len);
    }
    sodium_memzero(line, sizeof line);
    return rc;
}

void backup_key_fini(struct backup_key *k)
{
    sodium_munlock(k, sizeof *k); /* wipes it, too */
    sodium_memzero(k, sizeof *k); /* also where it was not locked */
}

int backup_key_master(const struct backup_key *k, const struct backup_kdf *how,
                      unsigned char ret[32], struct azoth_error *err)
{
    if (k->passphrase != (how->kdf == 1))
        return error_set(err, AZOTH_ERR_WRONG_KEY, "it was encrypted with a %s",
                         k->passphrase ? "key file" : "passphrase");
    if (!k->passphrase) {
        ensure(k->secret_len == 32);
        memcpy(ret, k->secret, 32);
        return 0;
    }
    if (crypto_pwhash(ret, 32, (const char *)k->secret, k->secret_len, how->salt, how->opslimit,
                      (size_t)how->memlimit, crypto_pwhash_ALG_ARGON2ID13))
        return error_set(err, AZOTH_ERR_NOMEM, "the passphrase takes %llu MiB of memory",
                         (unsigned long long)(how->memlimit >> 20));
    return 0;
}

/* ---- signatures ---- */

/* "WORD HEX\n" of bytes into a new file. */
static int put_key(const char *path, mode_t mode, const char *word, const unsigned char *p,
                   size_t n, struct azoth_error *err)
{
    char hex[2 * 64 + 1], text[sizeof hex + 40];
    ensure(n <= 64);
    sodium_bin2hex(hex, sizeof hex, p, n);
    snprintf(text, sizeof text, "%s%s\n", word, hex);
    int rc = put_file(path, mode, text, err);
    sodium_memzero(hex, sizeof hex);
    sodium_memzero(text, sizeof text);
    return rc;
}

int sign_key_make(const char *path, struct azoth_error *err)
{
    struct sign_key k;
    struct buf public = {0};
    int rc = backup_sodium(err);
    if (rc)
        return rc;
    if (buf_addf(&public, "%s.pub", path) || buf_add(&public, "", 1))
        rc = error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    crypto_sign_keypair(k.public, k.secret);
    if (!rc)
        rc = put_key(path, 0600, SECRET_WORD, k.secret, sizeof k.secret, err);
    if (!rc) {
        rc = put_key((const char *)public.ptr, 0644, PUBLIC_WORD, k.public, sizeof k.public, err);
        if (rc)
            unlink(path); /* both or none */
    }
    buf_fini(&public);
    sodium_memzero(&k, sizeof k);
    return rc;
}

/* The secret holds its public half: both are made anew from its first half and compared. */
static int take_secret(const char *hex, struct sign_key *k)
{
    unsigned char given[64];
    int ok = unhex(hex, given, sizeof given);
    if (ok) {
        crypto_sign_seed_keypair(k->public, k->secret, given);
        ok = sodium_memcmp(k->secret, given, sizeof given) == 0;
    }
    k->has_secret = 1;
    sodium_memzero(given, sizeof given);
    return ok;
}

int sign_key_read(const char *path, struct sign_key *ret, struct azoth_error *err)
{
    char line[LINE_MAX_BYTES];
    struct sign_key k = {0};
    size_t len;
    int fd, ok = 0, rc = backup_sodium(err);
    if (rc || (rc = open_key(path, &fd, err)))
        return rc;
    rc = read_line(fd, path, line, &len, err);
    if (!rc && strncmp(line, SECRET_WORD, strlen(SECRET_WORD)) == 0) {
        rc = check_mode(fd, path, err);
        ok = take_secret(line + strlen(SECRET_WORD), &k);
    } else if (!rc && strncmp(line, PUBLIC_WORD, strlen(PUBLIC_WORD)) == 0) {
        ok = unhex(line + strlen(PUBLIC_WORD), k.public, sizeof k.public);
    }
    close(fd);
    if (!rc && !ok)
        rc = error_set(err, AZOTH_ERR_CONFIG, "%s: no key for signatures", path);
    if (!rc) {
        *ret = k;
        sodium_mlock(ret, sizeof *ret);
    }
    sodium_memzero(&k, sizeof k);
    sodium_memzero(line, sizeof line);
    return rc;
}

void sign_key_fini(struct sign_key *k)
{
    sodium_munlock(k, sizeof *k);
    sodium_memzero(k, sizeof *k);
}

int sign_bytes(const struct sign_key *k, struct azoth_bytes text, unsigned char ret[64],
               struct azoth_error *err)
{
    int rc = backup_sodium(err);
    if (rc)
        return rc;
    if (!k->has_secret)
        return error_set(err, AZOTH_ERR_USAGE, "a public key can check signatures, but make none");
    crypto_sign_detached(ret, NULL, text.ptr, text.len, k->secret);
    return 0;
}

int sign_check(const struct sign_key *k, struct azoth_bytes text, const unsigned char sig[64],
               struct azoth_error *err)
{
    int rc = backup_sodium(err);
    if (rc)
        return rc;
    if (crypto_sign_verify_detached(sig, text.ptr, text.len, k->public))
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "it was not signed with this key, or was changed since");
    return 0;
}
