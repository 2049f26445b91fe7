/*
 * record_io.c - preloaded into a program: writes down what it does to the files below a directory.
 *
 *   AZOTH_RECORD_DIR=DIR   whose files (absolute, resolved)
 *   AZOTH_RECORD_LOG=FILE  one log for all processes; each record is appended by one call
 *
 * A write is noted before it is done; a sync when it begins and again after it succeeded, since it
 * promises nothing of what is written while it runs. So what the log calls synced was written, and what
 * may lie on the disk is in the log (tests/fault/powercut.h has the format).
 *
 * What the log cannot say is refused (record_refuse.c).
 */
#include "tests/fault/record_io.h"

#include "tests/fault/powercut.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
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
    int dsync, append, worthless;
} file[FDS];

int open64(const char *path, int flags, ...);
int openat64(int dir, const char *path, int flags, ...);
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
const char *record_name(const char *path)
{
    const char *dir = getenv("AZOTH_RECORD_DIR");
    size_t n = dir ? strlen(dir) : 0;
    if (!n || strncmp(path, dir, n) != 0 || (path[n] != '/' && path[n] != 0))
        return NULL;
    return path[n] ? path + n + 1 : "";
}

void record_refuse(const char *what, const char *name)
{
    char text[300];
    int n = snprintf(text, sizeof text, "record_io: %s of %.200s is not recorded\n", what, name);
    syscall(SYS_write, 2, text, n);
    abort();
}

/* Names a sync or a write, over all processes. */
static uint64_t new_token(void)
{
    static _Atomic uint32_t last;
    return (uint64_t)getpid() << 32 | (atomic_fetch_add(&last, 1) + 1);
}

static void note_as(uint64_t token, uint32_t kind, uint64_t ino, uint64_t at, const char *path,
                    const char *other, const struct iovec *v, int n)
{
    struct cut_record r = {.magic = CUT_MAGIC, .kind = kind, .ino = ino, .at = at, .token = token};
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

static void note(uint32_t kind, uint64_t ino, uint64_t at, const char *path, const char *other,
                 const struct iovec *v, int n)
{
    note_as(0, kind, ino, at, path, other, v, n);
}

static uint64_t ino_of(int fd)
{
    return fd >= 0 && fd < FDS ? file[fd].ino : 0;
}

void record_must_not(int fd, const char *what)
{
    char name[32];
    snprintf(name, sizeof name, "descriptor %d", fd);
    if (ino_of(fd) && !file[fd].worthless)
        record_refuse(what, name);
}

/* The path that a name stands for below a directory's descriptor. */
const char *record_path(int dir, const char *path, char out[PATH_MAX])
{
    char link[40];
    if (path[0] == '/' || dir == AT_FDCWD)
        return path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t n = syscall(SYS_readlink, link, out, PATH_MAX - 1);
    n = n < 0 ? 0 : n;
    snprintf(out + n, (size_t)(PATH_MAX - n), "/%s", path);
    return out;
}

static int is_there(const char *path)
{
    struct stat st;
    return syscall(SYS_newfstatat, AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Under the name that the file has, whatever it was opened by: links followed, "." and ".." gone. */
static int opened(int dir, const char *path, int flags, unsigned mode)
{
    char buf[PATH_MAX], link[40], real[PATH_MAX];
    const char *full = record_path(dir, path, buf), *name;
    int made = (flags & O_CREAT) && syscall(SYS_access, full, F_OK) != 0;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    struct stat st;
    if (fd < 0)
        return fd;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlink, link, real, sizeof real - 1);
    real[n < 0 ? 0 : n] = 0;
    name = record_name(real);
    if (fd >= FDS && name)
        record_refuse("a descriptor beyond the table", name);
    if (fd >= FDS)
        return fd;
    file[fd].ino = 0;
    if (!name || fstat(fd, &st) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
        return fd;
    file[fd].ino = st.st_ino;
    file[fd].dsync = (flags & O_DSYNC) != 0;
    file[fd].append = (flags & O_APPEND) != 0;
    file[fd].worthless = cut_worthless(name);
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
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    OPEN_MODE(flags, mode)
    return opened(AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
    OPEN_MODE(flags, mode)
    return opened(dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
    OPEN_MODE(flags, mode)
    return opened(dir, path, flags, mode);
}

int creat(const char *path, mode_t mode)
{
    return opened(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < FDS)
        file[fd].ino = 0;
    return (int)syscall(SYS_close, fd);
}

void record_forget(int fd)
{
    if (ino_of(fd))
        file[fd].ino = 0;
}

/* ---- writing ---- */

/* Notes what is about to be written: what to call it if it is its own sync, as with O_DSYNC. */
static uint64_t writes(int fd, uint64_t from, const struct iovec *v, int n)
{
    if (!ino_of(fd))
        return 0;
    uint64_t token = file[fd].dsync ? new_token() : 0;
    note_as(token, CUT_WRITE, file[fd].ino, from, NULL, NULL, v, n);
    return token;
}

static void wrote(int fd, uint64_t token, uint64_t from, ssize_t n)
{
    if (n > 0 && token)
        note_as(token, CUT_SYNC_WRITE, file[fd].ino, from, NULL, NULL, NULL, 0);
}

static uint64_t position(int fd)
{
    struct stat st;
    if (file[fd].append && fstat(fd, &st) == 0)
        return (uint64_t)st.st_size;
    return (uint64_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
}

static ssize_t write_at(int fd, const void *b, size_t n, off_t from)
{
    struct iovec v = {(void *)(uintptr_t)b, n};
    uint64_t token = writes(fd, (uint64_t)from, &v, 1);
    ssize_t r = syscall(SYS_pwrite64, fd, b, n, from);
    wrote(fd, token, (uint64_t)from, r);
    return r;
}

ssize_t pwrite(int fd, const void *b, size_t n, off_t from)
{
    return write_at(fd, b, n, from);
}

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t from)
{
    return write_at(fd, b, n, from);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    uint64_t from = ino_of(fd) ? position(fd) : 0, token = writes(fd, from, v, n);
    ssize_t r = syscall(SYS_writev, fd, v, n);
    wrote(fd, token, from, r);
    return r;
}

ssize_t write(int fd, const void *b, size_t n)
{
    if (!ino_of(fd))
        return syscall(SYS_write, fd, b, n);
    struct iovec v = {(void *)(uintptr_t)b, n};
    return writev(fd, &v, 1);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t from)
{
    uint64_t token = writes(fd, (uint64_t)from, v, n);
    ssize_t r = syscall(SYS_pwritev, fd, v, n, from, 0);
    wrote(fd, token, (uint64_t)from, r);
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

/* Room beyond the end reads as zeros; without KEEP_SIZE the file grows to it. */
static int allocated(int fd, int mode, off_t from, off_t n)
{
    struct stat st;
    if (ino_of(fd) && (mode & ~FALLOC_FL_KEEP_SIZE))
        record_must_not(fd, "fallocate with a mode");
    if (ino_of(fd) && !mode && fstat(fd, &st) == 0 && st.st_size < from + n)
        note(CUT_SIZE, file[fd].ino, (uint64_t)(from + n), NULL, NULL, NULL, 0);
    return (int)syscall(SYS_fallocate, fd, mode, from, n);
}

int fallocate(int fd, int mode, off_t from, off_t n)
{
    return allocated(fd, mode, from, n);
}

int fallocate64(int fd, int mode, off64_t from, off64_t n)
{
    return allocated(fd, mode, from, n);
}

int posix_fallocate(int fd, off_t from, off_t n)
{
    int saved = errno, r = allocated(fd, 0, from, n) ? errno : 0;
    errno = saved;
    return r;
}

int posix_fallocate64(int fd, off64_t from, off64_t n)
{
    return posix_fallocate(fd, from, n);
}

/* ---- syncing ---- */

static int synced(int fd, long call)
{
    uint64_t token = ino_of(fd) ? new_token() : 0;
    if (token)
        note_as(token, CUT_SYNC_BEGIN, file[fd].ino, 0, NULL, NULL, NULL, 0);
    int r = (int)syscall(call, fd);
    if (token && r == 0)
        note_as(token, CUT_SYNC, file[fd].ino, 0, NULL, NULL, NULL, 0);
    return r;
}

int fsync(int fd)
{
    return synced(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return synced(fd, SYS_fdatasync);
}

/* ---- names: noted before, since the disk may have it before we come back ---- */

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    char a[PATH_MAX], b[PATH_MAX];
    const char *f = record_path(from_dir, from, a), *t = record_path(to_dir, to, b);
    if (!record_name(f) != !record_name(t))
        record_refuse("a rename out of the directory or into it", f);
    if (record_name(f) && flags)
        record_refuse("a rename with flags", f);
    if (record_name(f) && is_there(f))
        note(CUT_RENAME, 0, 0, record_name(f), record_name(t), NULL, 0);
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return renameat2(from_dir, from, to_dir, to, 0);
}

int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int symlinkat(const char *target, int dir, const char *path)
{
    char a[PATH_MAX];
    const char *p = record_path(dir, path, a);
    if (record_name(p) && !is_there(p))
        note(CUT_SYMLINK, 0, 0, record_name(p), target, NULL, 0);
    return (int)syscall(SYS_symlinkat, target, dir, path);
}

int symlink(const char *target, const char *path)
{
    return symlinkat(target, AT_FDCWD, path);
}

int unlinkat(int dir, const char *path, int flags)
{
    char a[PATH_MAX];
    const char *p = record_path(dir, path, a);
    if (record_name(p) && (flags & AT_REMOVEDIR))
        record_refuse("the end of a directory", p);
    if (record_name(p) && is_there(p))
        note(CUT_UNLINK, 0, 0, record_name(p), NULL, NULL, 0);
    return (int)syscall(SYS_unlinkat, dir, path, flags);
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}
