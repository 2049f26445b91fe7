/*
 * backupfile_out.c - a backup being written: members in order, the manifest behind them, then its name.
 *
 * Each member's bytes are counted and digested here, whatever form the file has; the manifest's text grows by a
 * line per member. What fails fails for good: the object only answers the same error until it is freed, and what
 * was written is removed. A process that dies leaves PATH.partial, which the next one replaces: nothing has PATH's
 * name before everything is on the disk.
 */
#include "writer/backupfile_parts.h"

#include "core/crash.h"
#include "core/error.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

struct backupfile_out {
    struct hash digest; /* of the member */
    const struct backup_writing *how;
    void *writing;
    struct backup_manifest manifest;
    const struct sign_key *sign;
    struct backup_place place;
    int placed; /* else a descriptor of the caller's */
    int fd;
    int open; /* a member is */
    char name[BACKUPFILE_NAME_MAX + 1];
    uint64_t bytes, left; /* of the member */
    uint64_t written;
    int failed;
    struct azoth_error why;
};

/* Keeps the first failure and tells it. */
static int out_fails(struct backupfile_out *b, int rc, struct azoth_error *err)
{
    if (rc && !b->failed)
        b->failed = rc;
    if (b->failed && err)
        *err = b->why;
    return b->failed;
}

static void out_free(struct backupfile_out *b)
{
    if (!b)
        return;
    if (b->writing)
        b->how->free(b->writing);
    if (b->placed)
        place_drop(&b->place);
    manifest_fini(&b->manifest);
    free(b);
}

/* ---- members ---- */

static int begin_member(struct backupfile_out *b, const char *name, uint64_t bytes,
                        struct azoth_error *err)
{
    snprintf(b->name, sizeof b->name, "%s", name);
    b->bytes = b->left = bytes;
    hash_begin(&b->digest);
    b->open = 1;
    return out_fails(b, b->how->begin(b->writing, name, bytes, &b->why), err);
}

/* The end of the member before, if there is one: its line of the manifest. */
static int end_member(struct backupfile_out *b, struct azoth_error *err)
{
    unsigned char digest[BACKUPFILE_DIGEST];
    if (!b->open || b->failed)
        return out_fails(b, 0, err);
    if (b->left)
        return error_set(err, AZOTH_ERR_USAGE,
                         "%s: %llu bytes were announced, and %llu are missing", b->name,
                         (unsigned long long)b->bytes, (unsigned long long)b->left);
    b->open = 0;
    hash_end(&b->digest, digest);
    int rc = b->how->end(b->writing, &b->why);
    if (!rc && strcmp(b->name, BACKUP_MANIFEST) != 0)
        rc = manifest_add(&b->manifest, b->name, b->bytes, digest, &b->why);
    return out_fails(b, rc, err);
}

int backupfile_member(struct backupfile_out *b, const char *name, uint64_t bytes,
                      struct azoth_error *err)
{
    int rc = end_member(b, err);
    if (rc)
        return rc;
    if (!backupfile_name_valid(name))
        return error_set(err, AZOTH_ERR_USAGE, "%.80s: no member of a backup may be called so",
                         name);
    if (bytes > BACKUPFILE_MEMBER_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: a member has at most %llu bytes", name,
                         BACKUPFILE_MEMBER_MAX);
    rc = manifest_name(&b->manifest, name, b->how == &backup_dir_writing, err);
    return rc ? rc : begin_member(b, name, bytes, err);
}

int backupfile_write(struct backupfile_out *b, const void *p, size_t len, struct azoth_error *err)
{
    if (b->failed)
        return out_fails(b, 0, err);
    if (!b->open || len > b->left)
        return error_set(err, AZOTH_ERR_USAGE, "%s: more bytes than were announced",
                         b->open ? b->name : "no member");
    if (len == 0)
        return 0;
    hash_add(&b->digest, p, len);
    b->left -= len;
    b->written += len;
    return out_fails(b, b->how->write(b->writing, p, len, &b->why), err);
}

int backupfile_add(struct backupfile_out *b, const char *name, struct azoth_bytes content,
                   struct azoth_error *err)
{
    int rc = backupfile_member(b, name, content.len, err);
    return rc ? rc : backupfile_write(b, content.ptr, content.len, err);
}

uint64_t backupfile_written(const struct backupfile_out *b)
{
    return b->written;
}

/* ---- from the beginning to the end ---- */

static int check_options(const struct backupfile_options *o, int dir, struct azoth_bytes about,
                         struct azoth_error *err)
{
    if (o->level < 0 || o->level > 19)
        return error_set(err, AZOTH_ERR_USAGE, "the level is 0 to 19, not %d", o->level);
    if (dir && o->key)
        return error_set(err, AZOTH_ERR_USAGE, "a plain directory is not encrypted");
    if (o->sign && !o->sign->has_secret)
        return error_set(err, AZOTH_ERR_USAGE, "a public key can check signatures, but make none");
    if (about.len > BACKUPFILE_ABOUT_MAX)
        return error_set(err, AZOTH_ERR_USAGE,
                         "what a backup tells about itself has at most %u bytes",
                         BACKUPFILE_ABOUT_MAX);
    json_t *j = json_loadb(about.ptr ? about.ptr : "", about.len, JSON_REJECT_DUPLICATES, NULL);
    int object = json_is_object(j);
    json_decref(j);
    return object ? 0
                  : error_set(err, AZOTH_ERR_BAD_JSON,
                              "what a backup tells about itself is a JSON object");
}

static int new_out(const struct backupfile_options *o, int dir, struct azoth_bytes about,
                   struct backupfile_out **ret, struct azoth_error *err)
{
    int rc = backup_sodium(err);
    if (rc || (rc = check_options(o, dir, about, err)))
        return rc;
    struct backupfile_out *b = calloc(1, sizeof *b);
    if (!b)
        return error_set(err, AZOTH_ERR_NOMEM, "a backup");
    b->how = dir ? &backup_dir_writing : &backup_tar_writing;
    b->sign = o->sign;
    *ret = b;
    return 0;
}

/* The backend on b->fd, and about.json. b is freed when that fails. */
static int start(struct backupfile_out *b, const struct backupfile_options *o,
                 struct azoth_bytes about, struct backupfile_out **ret, struct azoth_error *err)
{
    struct backup_sink *sink = NULL;
    int rc;
    if (b->how == &backup_dir_writing) {
        rc = backup_dir_create(b->fd, &b->writing, err);
    } else {
        rc = sink_open(b->fd, o->key, &sink, err);
        if (!rc)
            rc = backup_tar_create(sink, o->level, o->threads, &b->writing, err);
    }
    if (!rc)
        rc = manifest_name(&b->manifest, BACKUP_ABOUT, 1, err);
    if (!rc)
        rc = manifest_name(&b->manifest, BACKUP_MANIFEST, 1, err);
    if (!rc)
        rc = begin_member(b, BACKUP_ABOUT, about.len, err);
    if (!rc)
        rc = backupfile_write(b, about.ptr, about.len, err);
    if (!rc)
        rc = end_member(b, err);
    if (rc) {
        out_free(b);
        return rc;
    }
    CRASH_POINT(backupfile_begun);
    *ret = b;
    return 0;
}

static int create(const char *path, int dir, const struct backupfile_options *o,
                  struct azoth_bytes about, struct backupfile_out **ret, struct azoth_error *err)
{
    struct backupfile_out *b;
    int rc = new_out(o, dir, about, &b, err);
    if (rc)
        return rc;
    rc = place_take(&b->place, path, dir, err);
    if (rc) {
        out_free(b);
        return rc;
    }
    b->placed = 1;
    b->fd = b->place.fd;
    return start(b, o, about, ret, err);
}

int backupfile_create(const char *path, const struct backupfile_options *o,
                      struct azoth_bytes about, struct backupfile_out **ret,
                      struct azoth_error *err)
{
    return create(path, 0, o, about, ret, err);
}

int backupfile_create_dir(const char *path, const struct backupfile_options *o,
                          struct azoth_bytes about, struct backupfile_out **ret,
                          struct azoth_error *err)
{
    return create(path, 1, o, about, ret, err);
}

int backupfile_stream(int fd, const struct backupfile_options *o, struct azoth_bytes about,
                      struct backupfile_out **ret, struct azoth_error *err)
{
    struct backupfile_out *b;
    int rc = new_out(o, 0, about, &b, err);
    if (rc)
        return rc;
    b->fd = fd;
    return start(b, o, about, ret, err);
}

static int write_manifest(struct backupfile_out *b, unsigned char digest[BACKUPFILE_DIGEST],
                          struct azoth_error *err)
{
    struct buf text = {0};
    int rc = manifest_end(&b->manifest, b->sign, &text, digest, err);
    if (!rc)
        rc = begin_member(b, BACKUP_MANIFEST, text.len, err);
    if (!rc)
        rc = backupfile_write(b, text.ptr, text.len, err);
    if (!rc)
        rc = end_member(b, err);
    buf_fini(&text);
    return rc;
}

/* A pipe or a terminal cannot be synced, and need not. */
static int sync_stream(int fd, struct azoth_error *err)
{
    if (fsync(fd) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP)
        return 0;
    return error_errno(err, errno, "the backup");
}

int backupfile_finish(struct backupfile_out *b, unsigned char digest[BACKUPFILE_DIGEST],
                      struct azoth_error *err)
{
    unsigned char whole[BACKUPFILE_DIGEST];
    int rc = end_member(b, err);
    if (!rc) {
        CRASH_POINT(backupfile_manifest);
        rc = write_manifest(b, whole, err);
    }
    if (!rc)
        rc = b->how->finish(b->writing, err);
    if (!rc)
        rc = b->placed ? place_keep(&b->place, err) : sync_stream(b->fd, err);
    if (!rc && digest)
        memcpy(digest, whole, sizeof whole);
    out_free(b);
    return rc;
}

void backupfile_abort(struct backupfile_out *b)
{
    out_free(b);
}
