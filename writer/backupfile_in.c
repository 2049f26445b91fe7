/*
 * backupfile_in.c - a backup being read: its members in order, and at the end what the manifest says of them.
 *
 * Happy path: about.json is read when it is opened; members are digested as they are read; the manifest comes,
 * nothing comes behind it, the layers below reach their end (FINAL, the trailer) and the manifest's text is the
 * one that the members give. Only then backupfile_next() answers 0. Whatever fails fails for good.
 *
 * All of it is input: names are those that a member may have, none comes twice, about.json and the manifest are
 * bounded.
 */
#include "writer/backupfile_parts.h"

#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct backupfile_in {
    struct backup_sum *sum; /* of the member */
    const struct backup_reading *how;
    void *reading;
    int fd, own_fd;
    struct buf about, text; /* text: the manifest's, as the file has it */
    struct backup_manifest manifest;
    struct manifest_signature signature; /* borrowed from text */
    int open, ended;                     /* a member is; all was read and agrees */
    char name[BACKUPFILE_NAME_MAX + 1];
    uint64_t bytes, left; /* of the member */
    unsigned char digest[BACKUPFILE_DIGEST];
    int failed;
    struct azoth_error why;
};

static int in_fails(struct backupfile_in *b, int rc, struct azoth_error *err)
{
    if (rc && !b->failed)
        b->failed = rc;
    if (b->failed && err)
        *err = b->why;
    return b->failed;
}

/* ---- members ---- */

static int read_some(struct backupfile_in *b, void *p, size_t cap, size_t *ret_len,
                     struct azoth_error *err)
{
    size_t n = 0;
    int rc = b->how->read(b->reading, p, cap, &n, err);
    if (rc)
        return rc;
    if (n > b->left || (n == 0 && cap && b->left))
        return error_set(err, AZOTH_ERR_CORRUPT, "%s ends too early", b->name);
    b->left -= n;
    backup_sum_add(b->sum, p, n);
    *ret_len = n;
    return 0;
}

static int begin_member(struct backupfile_in *b, const char *name, uint64_t bytes,
                        struct azoth_error *err)
{
    int rc = manifest_name(&b->manifest, name, 0, err);
    if (rc == AZOTH_ERR_DUPLICATE)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s is there twice in the backup", name);
    if (rc)
        return rc;
    snprintf(b->name, sizeof b->name, "%s", name);
    b->bytes = b->left = bytes;
    b->open = 1;
    backup_sum_begin(b->sum);
    return 0;
}

/* What is left of the member is read, too; its line of the manifest. */
static int end_member(struct backupfile_in *b, struct azoth_error *err)
{
    unsigned char digest[BACKUPFILE_DIGEST], rest[16384];
    size_t n;
    int rc = 0;
    if (!b->open)
        return 0;
    while (!rc && b->left)
        rc = read_some(b, rest, sizeof rest, &n, err);
    /* And where it should end it does. */
    if (!rc && (rc = read_some(b, rest, sizeof rest, &n, err)) == 0)
        ensure(n == 0);
    if (rc)
        return rc;
    b->open = 0;
    backup_sum_end(b->sum, digest);
    rc = manifest_add(&b->manifest, b->name, b->bytes, digest, err);
    return rc == AZOTH_ERR_USAGE
               ? error_set(err, AZOTH_ERR_CORRUPT, "no backup has so many members")
               : rc;
}

/* All of a member that has at most `most` bytes. */
static int read_all(struct backupfile_in *b, uint64_t bytes, uint64_t most, struct buf *ret,
                    struct azoth_error *err)
{
    if (bytes > most)
        return error_set(err, AZOTH_ERR_CORRUPT, "%s has more than %llu bytes", b->name,
                         (unsigned long long)most);
    while (b->left) {
        size_t n = 0, want = b->left < 65536 ? (size_t)b->left : 65536;
        if (buf_reserve(ret, want))
            return error_set(err, AZOTH_ERR_NOMEM, "reading the backup");
        int rc = read_some(b, ret->ptr + ret->len, want, &n, err);
        if (rc)
            return rc;
        ret->len += n;
    }
    return 0;
}

/* ---- the end ---- */

static int read_manifest(struct backupfile_in *b, uint64_t bytes, struct azoth_error *err)
{
    const char *name;
    snprintf(b->name, sizeof b->name, "%s", BACKUP_MANIFEST);
    b->left = bytes;
    backup_sum_begin(b->sum);
    int rc = read_all(b, bytes, BACKUPFILE_JSON_MAX, &b->text, err);
    if (rc)
        return rc;
    struct azoth_error at_end = {0};
    int ended = b->how->next(b->reading, &name, &bytes, &at_end);
    if (ended == 1)
        ended = error_set(&at_end, AZOTH_ERR_CORRUPT, "the backup goes on behind its manifest");
    /* The stream's end knows that something was changed; the manifest says which member that was. */
    if (!ended || ended == AZOTH_ERR_CORRUPT)
        rc = manifest_end(&b->manifest, NULL, NULL, b->digest, err);
    if (!rc && (!ended || ended == AZOTH_ERR_CORRUPT))
        rc = manifest_agrees(&b->manifest, buf_bytes(&b->text), &b->signature, err);
    if (!rc && ended) {
        *err = at_end;
        rc = ended;
    }
    b->ended = !rc;
    return rc;
}

static int next_member(struct backupfile_in *b, struct azoth_error *err)
{
    const char *name;
    uint64_t bytes;
    int rc = end_member(b, err);
    if (!rc)
        rc = b->how->next(b->reading, &name, &bytes, err);
    else
        return rc;
    if (rc == 0)
        return error_set(err, AZOTH_ERR_TRUNCATED, "the backup has no manifest");
    if (rc < 0)
        return rc;
    if (strcmp(name, BACKUP_MANIFEST) == 0)
        return read_manifest(b, bytes, err);
    rc = begin_member(b, name, bytes, err);
    return rc ? rc : 1;
}

int backupfile_next(struct backupfile_in *b, const char **ret_name, uint64_t *ret_bytes,
                    struct azoth_error *err)
{
    if (b->failed || b->ended)
        return in_fails(b, 0, err);
    int rc = next_member(b, &b->why);
    if (rc < 0)
        return in_fails(b, rc, err);
    if (rc == 1) {
        *ret_name = b->name;
        *ret_bytes = b->bytes;
    }
    return rc;
}

int backupfile_read(struct backupfile_in *b, void *p, size_t cap, size_t *ret_len,
                    struct azoth_error *err)
{
    if (b->failed)
        return in_fails(b, 0, err);
    if (!b->open || !b->left) {
        *ret_len = 0;
        return 0;
    }
    return in_fails(b, read_some(b, p, cap, ret_len, &b->why), err);
}

/* ---- the beginning ---- */

static int read_about(struct backupfile_in *b, struct azoth_error *err)
{
    const char *name;
    uint64_t bytes;
    int rc = b->how->next(b->reading, &name, &bytes, err);
    if (rc == 0)
        return error_set(err, AZOTH_ERR_TRUNCATED, "the backup is empty");
    if (rc < 0)
        return rc;
    if (strcmp(name, BACKUP_ABOUT) != 0)
        return error_set(err, AZOTH_ERR_FORMAT, "this is no backup: its first member is %s", name);
    rc = begin_member(b, name, bytes, err);
    if (!rc)
        rc = read_all(b, bytes, BACKUPFILE_ABOUT_MAX, &b->about, err);
    return rc ? rc : end_member(b, err);
}

static int open_reading(struct backupfile_in *b, const struct backup_key *key,
                        struct azoth_error *err)
{
    struct backup_source *source;
    struct stat st;
    if (fstat(b->fd, &st))
        return error_errno(err, errno, "the backup");
    if (S_ISDIR(st.st_mode)) {
        int fd = openat(b->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        b->how = &backup_dir_reading;
        return fd < 0 ? error_errno(err, errno, "the backup")
                      : backup_dir_open(fd, &b->reading, err);
    }
    int rc = source_open(b->fd, key, &source, err);
    return rc ? rc : backup_tar_open(source, &b->reading, err);
}

static int open_in(int fd, int own_fd, const struct backup_key *key, struct backupfile_in **ret,
                   struct azoth_error *err)
{
    struct backupfile_in *b = calloc(1, sizeof *b);
    if (!b) {
        if (own_fd)
            close(fd);
        return error_set(err, AZOTH_ERR_NOMEM, "reading a backup");
    }
    b->fd = fd;
    b->own_fd = own_fd;
    b->how = &backup_tar_reading;
    int rc = backup_sodium(err);
    b->sum = backup_sum_new();
    if (!rc && !b->sum)
        rc = error_set(err, AZOTH_ERR_NOMEM, "reading a backup");
    if (!rc)
        rc = open_reading(b, key, err);
    if (!rc)
        rc = read_about(b, err);
    if (rc) {
        backupfile_close(b);
        return rc;
    }
    *ret = b;
    return 0;
}

int backupfile_open(const char *path, const struct backup_key *key, struct backupfile_in **ret,
                    struct azoth_error *err)
{
    if (strcmp(path, "-") == 0)
        return open_in(STDIN_FILENO, 0, key, ret, err);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? error_foreign(err, AZOTH_ERR_NOT_FOUND, ENOENT,
                                               "%s: there is no such backup", path)
                               : error_errno(err, errno, "%s", path);
    struct azoth_error why = {0};
    int rc = open_in(fd, 1, key, ret, &why);
    return rc ? error_foreign(err, rc, why.foreign, "%s: %s", path, why.message) : 0;
}

int backupfile_open_fd(int fd, const struct backup_key *key, struct backupfile_in **ret,
                       struct azoth_error *err)
{
    return open_in(fd, 0, key, ret, err);
}

void backupfile_close(struct backupfile_in *b)
{
    if (!b)
        return;
    if (b->reading)
        b->how->free(b->reading);
    if (b->own_fd)
        close(b->fd);
    backup_sum_free(b->sum);
    manifest_fini(&b->manifest);
    buf_fini(&b->about);
    buf_fini(&b->text);
    free(b);
}

/* ---- what was found ---- */

struct azoth_bytes backupfile_about(const struct backupfile_in *b)
{
    return buf_bytes(&b->about);
}

int backupfile_encrypted(const struct backupfile_in *b)
{
    return b->how->encrypted(b->reading);
}

uint64_t backupfile_bytes_read(const struct backupfile_in *b)
{
    return b->how->bytes(b->reading);
}

void backupfile_digest(const struct backupfile_in *b, unsigned char ret[BACKUPFILE_DIGEST])
{
    ensure(b->ended);
    memcpy(ret, b->digest, sizeof b->digest);
}

int backupfile_signed_by(const struct backupfile_in *b, const struct sign_key *k,
                         struct azoth_error *err)
{
    unsigned char signature[crypto_sign_BYTES], public[crypto_sign_PUBLICKEYBYTES];
    size_t n;
    ensure(b->ended);
    if (!b->signature.signature)
        return error_set(err, AZOTH_ERR_NOT_FOUND, "the backup is not signed");
    if (sodium_hex2bin(signature, sizeof signature, b->signature.signature, 128, NULL, &n, NULL) ||
        sodium_hex2bin(public, sizeof public, b->signature.public, 64, NULL, &n, NULL))
        return error_set(err, AZOTH_ERR_CORRUPT, "the backup's signature makes no sense");
    if (memcmp(public, k->public, sizeof public) != 0)
        return error_set(err, AZOTH_ERR_CORRUPT, "the backup was signed with another key");
    return sign_check(k, buf_bytes(&b->manifest.text), signature, err);
}
