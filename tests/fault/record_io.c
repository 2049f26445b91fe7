/*
 * record_io.c - preloaded into a program: writes down what it does to the files below a directory.
 *
 *   AZOTH_RECORD_DIR=DIR   whose files (absolute, resolved)
 *   AZOTH_RECORD_LOG=FILE  one log for all processes; each record is appended by one call
 *
 * A write is noted before it is done and a sync after it succeeded, so that what the log calls synced
 * was written, and what may lie on the disk is in the log (tests/fault/powercut.h has the format).
 * Memory maps are not seen: neither LMDB (no WRITEMAP) nor SQLite (no mmap_size) writes its data
 * through one; lock.mdb and -shm files are worth nothing after a power cut.
 */
#include "tests/fault/powercut.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 1024

static struct {
    uint64_t ino; /* 0: not of our directory */
    int dsync, append;
} file[FDS];

int open64(const char *path, int flags, ...);
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at);
int ftruncate64(int fd, off64_t size);

static int log_fd(void)
{
    static int fd = -1;
    const char *name = getenv("AZOTH_RECORD_LOG");
    if (fd < 0 && name) {
        int low = (int)syscall(SYS_openat, AT_FDCWD, name,
                               O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        fd = (int)syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, FDS / 2);
        syscall(SYS_close, low);
    }
    return fd;
}

/* The file's name below the directory, or NULL. */
static const char *ours(const char *path)
{
    const char *dir = getenv("AZOTH_RECORD_DIR");
    size_t n = dir ? strlen(dir) : 0;
    if (!n || strncmp(path, dir, n) != 0 || (path[n] != '/' && path[n] != 0))
        return NULL;
    return path[n] ? path + n + 1 : "";
}

static void note(uint32_t kind, uint64_t ino, uint64_t at, const char *path, const char *other,
                 const struct iovec *v, int n)
{
    struct cut_record r = {.magic = CUT_MAGIC, .kind = kind, .ino = ino, .at = at};
    struct iovec all[CUT_IOV + 3];
    r.path = path ? (uint32_t)strlen(path) : 0;
    r.other = other ? (uint32_t)strlen(other) : 0;
    for (int i = 0; i < n && i < CUT_IOV; i++) {
        r.data += v[i].iov_len;
        all[3 + i] = v[i];
    }
    all[0] = (struct iovec){&r, sizeof r};
    all[1] = (struct iovec){(void *)(uintptr_t)path, r.path};
    all[2] = (struct iovec){(void *)(uintptr_t)other, r.other};
    size_t want = sizeof r + r.path + r.other + r.data;
    int saved = errno;
    if (n > CUT_IOV || syscall(SYS_writev, log_fd(), all, 3 + n) != (long)want)
        abort(); /* a log with a hole proves nothing */
    errno = saved;
}

static uint64_t ino_of(int fd)
{
    return fd >= 0 && fd < FDS ? file[fd].ino : 0;
}

static int opened(const char *path, int flags, unsigned mode)
{
    const char *name = ours(path);
    int made = name && (flags & O_CREAT) && syscall(SYS_access, path, F_OK) != 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd < 0 || fd >= FDS)
        return fd;
    file[fd].ino = 0;
    struct stat st;
    if (!name || fstat(fd, &st) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
        return fd;
    file[fd].ino = st.st_ino;
    file[fd].dsync = (flags & O_DSYNC) != 0;
    file[fd].append = (flags & O_APPEND) != 0;
    if (made)
        note(CUT_CREATE, st.st_ino, 0, name, NULL, NULL, 0);
    else if (S_ISDIR(st.st_mode))
        note(CUT_DIRECTORY, st.st_ino, 0, name, NULL, NULL, 0);
    else if (flags & O_TRUNC)
        note(CUT_SIZE, st.st_ino, 0, NULL, NULL, NULL, 0);
    return fd;
}

#define OPEN_MODE(flags, mode)                                                                     \
    unsigned mode = 0;                                                                             \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                           \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode = va_arg(ap, unsigned);                                                               \
        va_end(ap);                                                                                \
    }

int open(const char *path, int flags, ...)
{
    OPEN_MODE(flags, mode)
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    OPEN_MODE(flags, mode)
    return opened(path, flags, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < FDS)
        file[fd].ino = 0;
    return (int)syscall(SYS_close, fd);
}

/* Of a descriptor with O_DSYNC the write is its own sync, of these bytes alone. */
static void written(int fd, uint64_t at, ssize_t n)
{
    if (n > 0 && ino_of(fd) && file[fd].dsync)
        note(CUT_SYNC_WRITE, file[fd].ino, at, NULL, NULL, NULL, 0);
}

static uint64_t position(int fd)
{
    struct stat st;
    if (file[fd].append && fstat(fd, &st) == 0)
        return (uint64_t)st.st_size;
    return (uint64_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
}

static ssize_t write_at(int fd, const void *b, size_t n, off_t at)
{
    struct iovec v = {(void *)(uintptr_t)b, n};
    if (ino_of(fd))
        note(CUT_WRITE, file[fd].ino, (uint64_t)at, NULL, NULL, &v, 1);
    ssize_t r = syscall(SYS_pwrite64, fd, b, n, at);
    written(fd, (uint64_t)at, r);
    return r;
}

ssize_t pwrite(int fd, const void *b, size_t n, off_t at)
{
    return write_at(fd, b, n, at);
}

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at)
{
    return write_at(fd, b, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    uint64_t at = ino_of(fd) ? position(fd) : 0;
    if (ino_of(fd))
        note(CUT_WRITE, file[fd].ino, at, NULL, NULL, v, n);
    ssize_t r = syscall(SYS_writev, fd, v, n);
    written(fd, at, r);
    return r;
}

ssize_t write(int fd, const void *b, size_t n)
{
    if (!ino_of(fd))
        return syscall(SYS_write, fd, b, n);
    struct iovec v = {(void *)(uintptr_t)b, n};
    return writev(fd, &v, 1);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    if (ino_of(fd))
        note(CUT_WRITE, file[fd].ino, (uint64_t)at, NULL, NULL, v, n);
    ssize_t r = syscall(SYS_pwritev, fd, v, n, at, 0);
    written(fd, (uint64_t)at, r);
    return r;
}

static int resized(int fd, off_t size)
{
    if (ino_of(fd))
        note(CUT_SIZE, file[fd].ino, (uint64_t)size, NULL, NULL, NULL, 0);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate(int fd, off_t size)
{
    return resized(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return resized(fd, size);
}

static int synced(int fd, int r)
{
    if (r == 0 && ino_of(fd))
        note(CUT_SYNC, file[fd].ino, 0, NULL, NULL, NULL, 0);
    return r;
}

int fsync(int fd)
{
    return synced(fd, (int)syscall(SYS_fsync, fd));
}

int fdatasync(int fd)
{
    return synced(fd, (int)syscall(SYS_fdatasync, fd));
}

int rename(const char *from, const char *to)
{
    if (ours(from) && ours(to))
        note(CUT_RENAME, 0, 0, ours(from), ours(to), NULL, 0);
    return (int)syscall(SYS_rename, from, to);
}

int symlink(const char *target, const char *path)
{
    int r = (int)syscall(SYS_symlink, target, path);
    if (r == 0 && ours(path))
        note(CUT_SYMLINK, 0, 0, ours(path), target, NULL, 0);
    return r;
}

int unlink(const char *path)
{
    int r = (int)syscall(SYS_unlink, path);
    if (r == 0 && ours(path))
        note(CUT_UNLINK, 0, 0, ours(path), NULL, NULL, 0);
    return r;
}
