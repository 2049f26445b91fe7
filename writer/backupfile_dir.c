/*
 * backupfile_dir.c - members as files of a directory, named as they are; the manifest is a file like the others.
 *
 * Written: each file is new (O_EXCL) and synced when it is complete, the directories at the end. Read: in the order
 * of the manifest, each file opened from directory to directory without following a link. What is not there or has
 * another size is CORRUPT at once; contents are compared as those of a stream, by their digests. Without a
 * manifest it is TRUNCATED, and without about.json as well, it is no backup: FORMAT.
 */
#include "writer/backupfile_parts.h"

#include "core/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens the file from dirfd on, through directories only, which are made when flags have O_CREAT. The descriptor, or -1
 * and errno. */
static int open_below(int dirfd, const char *name, int flags)
{
    char part[BACKUPFILE_NAME_MAX + 1];
    int at = dirfd;
    for (const char *slash; (slash = strchr(name, '/')); name = slash + 1) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - name), name);
        int fd = -1;
        if (!(flags & O_CREAT) || mkdirat(at, part, 0750) == 0 || errno == EEXIST)
            fd = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int e = errno;
        if (at != dirfd)
            close(at);
        errno = e;
        if (fd < 0)
            return -1;
        at = fd;
    }
    int fd = openat(at, name, flags | O_NOFOLLOW | O_CLOEXEC, 0640), e = errno;
    if (at != dirfd)
        close(at);
    errno = e;
    return fd;
}

/* ---- writing ---- */

struct dir_writing {
    int dirfd, fd;
    char name[BACKUPFILE_NAME_MAX + 1];
};

static void dir_write_free(void *writing)
{
    struct dir_writing *w = writing;
    if (w && w->fd >= 0)
        close(w->fd);
    free(w);
}

int backup_dir_create(int dirfd, void **ret, struct azoth_error *err)
{
    struct dir_writing *w = calloc(1, sizeof *w);
    if (!w)
        return error_set(err, AZOTH_ERR_NOMEM, "the backup's directory");
    w->dirfd = dirfd;
    w->fd = -1;
    *ret = w;
    return 0;
}

static int dir_begin(void *writing, const char *name, uint64_t bytes, struct azoth_error *err)
{
    struct dir_writing *w = writing;
    (void)bytes;
    snprintf(w->name, sizeof w->name, "%s", name);
    w->fd = open_below(w->dirfd, name, O_WRONLY | O_CREAT | O_EXCL);
    return w->fd < 0 ? error_errno(err, errno, "%s", name) : 0;
}

static int dir_write(void *writing, const void *p, size_t len, struct azoth_error *err)
{
    struct dir_writing *w = writing;
    return backup_write_all(w->fd, p, len, err);
}

static int dir_end(void *writing, struct azoth_error *err)
{
    struct dir_writing *w = writing;
    int rc = fsync(w->fd) ? error_errno(err, errno, "%s", w->name) : 0;
    if (close(w->fd) && !rc)
        rc = error_errno(err, errno, "%s", w->name);
    w->fd = -1;
    return rc;
}

/* Syncs the directories below fd, which it closes. As deep as names are. */
static int sync_below(int fd)
{
    DIR *d = fdopendir(fd);
    int e = 0;
    if (!d) {
        e = errno;
        close(fd);
        return e;
    }
    struct dirent *entry;
    while (!e && (entry = readdir(d))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            e = sync_below(below);
        else if (errno != ENOTDIR)
            e = errno;
    }
    if (!e && fsync(fd))
        e = errno;
    closedir(d);
    return e;
}

static int dir_finish(void *writing, struct azoth_error *err)
{
    struct dir_writing *w = writing;
    int fd = openat(w->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int e = fd < 0 ? errno : sync_below(fd);
    return e ? error_errno(err, e, "the backup's directory") : 0;
}

const struct backup_writing backup_dir_writing = {dir_begin, dir_write, dir_end, dir_finish,
                                                  dir_write_free};

/* ---- reading ---- */

struct dir_reading {
    int dirfd, fd; /* fd: the member's; -1 for the manifest, which comes from its text */
    struct buf manifest;
    size_t at;    /* of the manifest's next line */
    int ended;    /* 1: the manifest is the member, 2: it was */
    size_t given; /* of its text */
    uint64_t left, bytes;
    struct manifest_line line;
};

static void dir_read_free(void *reading)
{
    struct dir_reading *r = reading;
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    close(r->dirfd);
    buf_fini(&r->manifest);
    free(r);
}

/* Opens a plain file without waiting for one that is none; its size. */
static int open_file(const struct dir_reading *r, const char *name, int *ret, uint64_t *ret_bytes,
                     struct azoth_error *err)
{
    struct stat st;
    int fd = open_below(r->dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return error_foreign(err, AZOTH_ERR_CORRUPT, errno, "%s is missing in the backup", name);
    if (fd < 0)
        return error_errno(err, errno, "%s", name);
    int rc = fstat(fd, &st) ? error_errno(err, errno, "%s", name) : 0;
    if (!rc && !S_ISREG(st.st_mode))
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s: no backup has a member that is no plain file",
                       name);
    if (rc) {
        close(fd);
        return rc;
    }
    *ret = fd;
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

static int load_manifest(struct dir_reading *r, struct azoth_error *err)
{
    struct stat st;
    uint64_t bytes;
    size_t n = 0;
    int fd;
    if (fstatat(r->dirfd, BACKUP_MANIFEST, &st, AT_SYMLINK_NOFOLLOW) && errno == ENOENT)
        return fstatat(r->dirfd, BACKUP_ABOUT, &st, AT_SYMLINK_NOFOLLOW)
                   ? error_set(err, AZOTH_ERR_FORMAT, "this directory is no backup")
                   : error_set(err, AZOTH_ERR_TRUNCATED, "the backup has no manifest");
    int rc = open_file(r, BACKUP_MANIFEST, &fd, &bytes, err);
    if (rc)
        return rc;
    if (bytes > BACKUPFILE_JSON_MAX)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "the backup's manifest is too long");
    else if (buf_reserve(&r->manifest, bytes ? (size_t)bytes : 1))
        rc = error_set(err, AZOTH_ERR_NOMEM, "the backup's manifest");
    else
        rc = backup_read_full(fd, r->manifest.ptr, (size_t)bytes, &n, err);
    r->manifest.len = n;
    close(fd);
    return rc;
}

int backup_dir_open(int dirfd, void **ret, struct azoth_error *err)
{
    struct dir_reading *r = calloc(1, sizeof *r);
    if (!r) {
        close(dirfd);
        return error_set(err, AZOTH_ERR_NOMEM, "reading the backup");
    }
    r->dirfd = dirfd;
    r->fd = -1;
    int rc = load_manifest(r, err);
    if (rc) {
        dir_read_free(r);
        return rc;
    }
    *ret = r;
    return 0;
}

/* The manifest's text is the last member. */
static int give_manifest(struct dir_reading *r, const char **ret_name, uint64_t *ret_bytes)
{
    r->ended++;
    if (r->ended > 1)
        return 0;
    *ret_name = BACKUP_MANIFEST;
    *ret_bytes = r->manifest.len;
    return 1;
}

static int dir_next(void *reading, const char **ret_name, uint64_t *ret_bytes,
                    struct azoth_error *err)
{
    struct dir_reading *r = reading;
    uint64_t bytes;
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    int rc = r->ended ? 0 : manifest_read(buf_bytes(&r->manifest), &r->at, &r->line, err);
    if (rc == 0)
        return give_manifest(r, ret_name, ret_bytes);
    if (rc < 0 || (rc = open_file(r, r->line.name, &r->fd, &bytes, err)))
        return rc;
    if (bytes != r->line.bytes)
        return error_set(err, AZOTH_ERR_CORRUPT, "%s has %llu bytes, not the manifest's %llu",
                         r->line.name, (unsigned long long)bytes,
                         (unsigned long long)r->line.bytes);
    r->left = bytes;
    *ret_name = r->line.name;
    *ret_bytes = bytes;
    return 1;
}

static int dir_read(void *reading, void *p, size_t cap, size_t *ret_len, struct azoth_error *err)
{
    struct dir_reading *r = reading;
    size_t n = 0;
    if (r->fd < 0) {
        n = r->manifest.len - r->given < cap ? r->manifest.len - r->given : cap;
        memcpy(p, r->manifest.ptr + r->given, n);
        r->given += n;
        *ret_len = n;
        return 0;
    }
    cap = r->left < cap ? (size_t)r->left : cap;
    int rc = backup_read_full(r->fd, p, cap, &n, err);
    if (rc)
        return rc;
    if (n < cap)
        return error_set(err, AZOTH_ERR_CORRUPT, "%s ends too early", r->line.name);
    r->left -= n;
    r->bytes += n;
    *ret_len = n;
    return 0;
}

static uint64_t dir_bytes(const void *reading)
{
    const struct dir_reading *r = reading;
    return r->bytes;
}

static int dir_encrypted(const void *reading)
{
    (void)reading;
    return 0;
}

const struct backup_reading backup_dir_reading = {dir_next, dir_read, dir_bytes, dir_encrypted,
                                                  dir_read_free};
