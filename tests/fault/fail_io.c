/*
 * fail_io.c - preloaded into a program: lets one call of a kind fail, the n-th.
 *
 *   AZOTH_FAIL=KIND,N,ERRNO   KIND: write, sync (below AZOTH_FAIL_DIR), meta (LMDB's meta page: it is
 *                             written, and the error told all the same), alloc (called from an object
 *                             whose name contains AZOTH_FAIL_FROM)
 *   AZOTH_FAIL_FIRED=FILE     is made when it has failed
 *   AZOTH_FAIL_FULL=FILE      as long as this file is there, every write that makes a file longer
 *                             fails with ENOSPC: a disk that is full and is freed
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at);
int ftruncate64(int fd, off64_t size);
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t k, size_t n);
void *__libc_realloc(void *p, size_t n);

static char kind;
static int code;
static _Atomic int left;
static const char *dir, *from, *full;

__attribute__((constructor)) static void begin(void)
{
    char name[16] = "";
    int n = 0;
    const char *what = getenv("AZOTH_FAIL");
    dir = getenv("AZOTH_FAIL_DIR");
    from = getenv("AZOTH_FAIL_FROM");
    full = getenv("AZOTH_FAIL_FULL");
    if (what && sscanf(what, "%15[a-z],%d,%d", name, &n, &code) == 3) {
        atomic_store(&left, n);
        kind = name[0];
    }
}

static int inside(int fd)
{
    char link[40], path[400];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0 || !dir)
        return 0;
    path[n] = 0;
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && path[len] == '/' && strncmp(path + len, "/log-", 5) != 0;
}

/* 1, with errno, when this is the one. */
static int fails(char which)
{
    if (kind != which || atomic_fetch_sub(&left, 1) != 1)
        return 0;
    const char *fired = getenv("AZOTH_FAIL_FIRED");
    if (fired)
        syscall(SYS_close,
                (int)syscall(SYS_openat, AT_FDCWD, fired, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    errno = code;
    return 1;
}

static int write_fails(int fd, off_t end)
{
    struct stat st;
    if (kind != 'w' && !full)
        return 0;
    if (!inside(fd))
        return 0;
    if (full && syscall(SYS_access, full, F_OK) == 0 && fstat(fd, &st) == 0 && end > st.st_size) {
        errno = ENOSPC;
        return 1;
    }
    return fails('w');
}

ssize_t pwrite(int fd, const void *b, size_t n, off_t at)
{
    if (kind == 'm' && at < 8192 && n < 4096 && inside(fd)) {
        ssize_t r = syscall(SYS_pwrite64, fd, b, n, at);
        return fails('m') ? -1 : r;
    }
    return write_fails(fd, at + (off_t)n) ? -1 : syscall(SYS_pwrite64, fd, b, n, at);
}

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at)
{
    return pwrite(fd, b, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    off_t end = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    for (int i = 0; i < n; i++)
        end += (off_t)v[i].iov_len;
    return write_fails(fd, end) ? -1 : syscall(SYS_writev, fd, v, n);
}

ssize_t write(int fd, const void *b, size_t n)
{
    return write_fails(fd, syscall(SYS_lseek, fd, 0, SEEK_CUR) + (off_t)n)
               ? -1
               : syscall(SYS_write, fd, b, n);
}

int ftruncate(int fd, off_t size)
{
    return write_fails(fd, size) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int posix_fallocate(int fd, off_t at, off_t n)
{
    if (write_fails(fd, at + n))
        return errno;
    return syscall(SYS_fallocate, fd, 0, at, n) ? errno : 0;
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

int fsync(int fd)
{
    return kind == 's' && inside(fd) && fails('s') ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return kind == 's' && inside(fd) && fails('s') ? -1 : (int)syscall(SYS_fdatasync, fd);
}

static int alloc_fails(const void *caller)
{
    Dl_info info;
    if (kind != 'a' || !from || !dladdr(caller, &info) || !info.dli_fname)
        return 0;
    const char *slash = strrchr(info.dli_fname, '/');
    return strstr(slash ? slash + 1 : info.dli_fname, from) && fails('a');
}

void *malloc(size_t n)
{
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t k, size_t n)
{
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_calloc(k, n);
}

void *realloc(void *p, size_t n)
{
    return alloc_fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}
