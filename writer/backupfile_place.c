/*
 * backupfile_place.c - PATH.partial: what is being written, until it is complete and gets its name.
 *
 *   open O_EXCL, flock      ours, unless another found it between the two, unlocked, and took it for a dead
 *                           one's: it is looked up once more
 *   it is there, locked     BUSY
 *   it is there, unlocked   the one who wrote it is dead: locked, removed, made anew
 *   rename                  never over something: RENAME_NOREPLACE, or a look where the file system has none
 *
 * A directory is locked by its own descriptor. It is removed with what is in it, one level of names at a time, by
 * descriptors and without following links; one that has something in it but no about.json was made by somebody
 * else and is left alone: USAGE.
 */
#include "writer/backupfile_parts.h"

#include "core/crash.h"
#include "core/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 128 /* of a name of 255 bytes */
#define TRIES     100 /* to take a place: each further one follows a step of another process */

/* The directory that path is in. */
static int open_parent(const char *path, int *ret, struct azoth_error *err)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!dir)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    if (fd < 0)
        rc = errno == ENOENT ? error_foreign(err, AZOTH_ERR_NOT_FOUND, ENOENT,
                                             "%s: there is no such directory", dir)
                             : error_errno(err, errno, "%s", dir);
    free(dir);
    if (!rc)
        *ret = fd;
    return rc;
}

int backup_sync_parent(const char *path, struct azoth_error *err)
{
    int fd, rc = open_parent(path, &fd, err);
    if (rc)
        return rc;
    if (fsync(fd))
        rc = error_errno(err, errno, "the directory of %s", path);
    close(fd);
    return rc;
}

/* ---- removing ---- */

/* Everything below fd, which it closes. */
static int remove_below(int fd, int depth)
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
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if (unlinkat(fd, name, 0) == 0)
            continue;
        if (errno != EISDIR && errno != EPERM) {
            e = errno;
            break;
        }
        int below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        e = below < 0 ? errno : depth >= DEPTH_MAX ? ELOOP : 0;
        if (e && below >= 0)
            close(below);
        if (!e)
            e = remove_below(below, depth + 1);
        if (!e && unlinkat(fd, name, AT_REMOVEDIR))
            e = errno;
    }
    closedir(d);
    return e;
}

/* Is there something in it, and nothing that says it is a backup? */
static int is_foreign(int fd)
{
    struct stat st;
    if (fstatat(fd, BACKUP_ABOUT, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return !S_ISREG(st.st_mode);
    int own = dup(fd), some = 0;
    DIR *d = own < 0 ? NULL : fdopendir(own);
    if (!d) {
        if (own >= 0)
            close(own);
        return 1;
    }
    struct dirent *entry;
    while (!some && (entry = readdir(d)))
        some = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(d);
    return some;
}

/* fd is the partial one's. */
static int remove_partial(const char *partial, int fd, int dir, struct azoth_error *err)
{
    int e = 0;
    if (dir) {
        int below = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        e = below < 0 ? errno : remove_below(below, 0);
        if (!e && rmdir(partial))
            e = errno;
    } else if (unlink(partial)) {
        e = errno;
    }
    return e ? error_errno(err, e, "%s", partial) : 0;
}

/* ---- taking ---- */

static int is_there(const char *path, struct azoth_error *err)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        return error_set(err, AZOTH_ERR_DUPLICATE, "%s is there already", path);
    return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
}

static int open_new(struct backup_place *p)
{
    if (!p->dir)
        return open(p->partial, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (mkdir(p->partial, 0750))
        return -1;
    return open(p->partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int open_old(const struct backup_place *p)
{
    /* A FIFO must not make us wait. */
    return open(p->partial,
                (p->dir ? O_RDONLY | O_DIRECTORY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

/* Does the name still lead to what the descriptor has? */
static int is_named(const struct backup_place *p, int fd)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(p->partial, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

static int lock(const struct backup_place *p, int fd, struct azoth_error *err)
{
    while (flock(fd, LOCK_EX | LOCK_NB))
        if (errno != EINTR)
            return errno == EWOULDBLOCK
                       ? error_set(err, AZOTH_ERR_BUSY, "%s: another one writes it", p->path)
                       : error_errno(err, errno, "%s: a lock", p->partial);
    return 0;
}

/* Removes what a dead one has left: 1 when the place is to be taken again, or an error. */
static int clear(const struct backup_place *p, struct azoth_error *err)
{
    struct stat st;
    int fd = open_old(p);
    if (fd < 0)
        return errno == ENOENT ? 1 : error_errno(err, errno, "%s", p->partial);
    int rc = lock(p, fd, err);
    if (!rc && is_named(p, fd)) {
        if (p->dir ? is_foreign(fd) : fstat(fd, &st) || !S_ISREG(st.st_mode))
            rc = error_set(err, AZOTH_ERR_USAGE, "%s is in the way, and is no unfinished backup",
                           p->partial);
        else
            rc = remove_partial(p->partial, fd, p->dir, err);
    }
    close(fd);
    return rc ? rc : 1;
}

/* One try: 0, 1 for another one, or an error. */
static int try_take(struct backup_place *p, struct azoth_error *err)
{
    int fd = open_new(p);
    if (fd < 0 && errno == EEXIST)
        return clear(p, err);
    if (fd < 0 && errno == ENOENT && p->dir)
        return 1; /* a directory that was just made: the same */
    if (fd < 0)
        return error_errno(err, errno, "%s", p->partial);
    CRASH_POINT(backupfile_made);
    int rc = lock(p, fd, err);
    if (!rc && !is_named(p, fd))
        rc = 1; /* taken for a dead one's before it was locked */
    if (rc) {
        close(fd);
        return rc;
    }
    p->fd = fd;
    /* Another one may have finished since the first look. */
    return is_there(p->path, err);
}

static char *joined(const char *path, size_t len, const char *end)
{
    char *s = malloc(len + strlen(end) + 1);
    if (s) {
        memcpy(s, path, len);
        memcpy(s + len, end, strlen(end) + 1);
    }
    return s;
}

int place_take(struct backup_place *p, const char *path, int dir, struct azoth_error *err)
{
    size_t len = strlen(path);
    while (dir && len > 1 && path[len - 1] == '/')
        len--;
    *p = (struct backup_place){.fd = -1, .parent = -1, .dir = dir};
    p->path = joined(path, len, "");
    p->partial = joined(path, len, ".partial");
    int rc = p->path && p->partial ? 0 : error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    if (!rc && (len == 0 || path[len - 1] == '/'))
        rc = error_set(err, AZOTH_ERR_USAGE, "%s: a backup has a name", path);
    if (!rc)
        rc = open_parent(p->path, &p->parent, err);
    if (!rc)
        rc = is_there(p->path, err);
    for (int i = 0; !rc && i < TRIES && (rc = try_take(p, err)) == 1; i++)
        rc = i < TRIES - 1 ? 0 : error_set(err, AZOTH_ERR_BUSY, "%s: others write it", path);
    if (rc)
        place_drop(p);
    return rc;
}

/* ---- keeping ---- */

static int rename_new(const struct backup_place *p, struct azoth_error *err)
{
    int rc = renameat2(AT_FDCWD, p->partial, AT_FDCWD, p->path, RENAME_NOREPLACE);
    if (rc && (errno == EINVAL || errno == ENOSYS)) {
        if ((rc = is_there(p->path, err)))
            return rc;
        rc = rename(p->partial, p->path);
    }
    if (rc && errno == EEXIST)
        return error_foreign(err, AZOTH_ERR_DUPLICATE, EEXIST, "%s is there meanwhile", p->path);
    return rc ? error_errno(err, errno, "%s", p->path) : 0;
}

int place_keep(struct backup_place *p, struct azoth_error *err)
{
    CRASH_POINT(backupfile_written);
    if (fsync(p->fd))
        return error_errno(err, errno, "%s", p->partial);
    CRASH_POINT(backupfile_synced);
    int rc = rename_new(p, err);
    if (rc)
        return rc;
    /* From here on there is nothing to be dropped: it has its name. */
    close(p->fd);
    p->fd = -1;
    CRASH_POINT(backupfile_renamed);
    return fsync(p->parent) ? error_errno(err, errno, "the directory of %s", p->path) : 0;
}

void place_drop(struct backup_place *p)
{
    if (p->fd >= 0) {
        if (is_named(p, p->fd))
            remove_partial(p->partial, p->fd, p->dir, NULL);
        close(p->fd);
    }
    if (p->parent >= 0)
        close(p->parent);
    free(p->path);
    free(p->partial);
    *p = (struct backup_place){.fd = -1, .parent = -1};
}
