/*
 * record_refuse.c - what the log of record_io.c cannot say, preloaded with it.
 *
 * A program that does it to a file of the directory is told so and aborted, as a log with a hole proves
 * nothing. That is another name for a file, a second descriptor, a mapping that is written through (but of
 * lock.mdb and -shm files, which are worth nothing after a power cut), streams that are written to, and
 * holes. New directories are not noted: they are there in every state.
 */
#include "tests/fault/record_io.h"

#include "tests/fault/powercut.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int fcntl64(int fd, int what, ...);

static void must_not_name(int dir, const char *path, const char *what)
{
    char a[PATH_MAX];
    const char *name = record_name(record_path(dir, path, a));
    if (name && *name && !cut_worthless(name))
        record_refuse(what, name);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    must_not_name(from_dir, from, "a second name");
    must_not_name(to_dir, to, "a second name");
    return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int remove(const char *path)
{
    must_not_name(AT_FDCWD, path, "remove()");
    return unlink(path);
}

int truncate(const char *path, off_t size)
{
    must_not_name(AT_FDCWD, path, "truncate()");
    return (int)syscall(SYS_truncate, path, size);
}

FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*real)(const char *, const char *);
    if (strpbrk(mode, "wa+"))
        must_not_name(AT_FDCWD, path, "a stream");
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fopen");
    return real(path, mode);
}

void *mmap(void *where, size_t n, int protection, int flags, int fd, off_t from)
{
    if ((protection & PROT_WRITE) && (flags & MAP_TYPE) != MAP_PRIVATE)
        record_must_not(fd, "a mapping that is written to");
    return (void *)syscall(SYS_mmap, where, n, protection, flags, fd, from);
}

void *mmap64(void *where, size_t n, int protection, int flags, int fd, off64_t from)
{
    return mmap(where, n, protection, flags, fd, from);
}

int dup(int fd)
{
    record_must_not(fd, "a second descriptor");
    return (int)syscall(SYS_dup, fd);
}

int dup3(int fd, int to, int flags)
{
    record_must_not(fd, "a second descriptor");
    record_forget(to);
    return (int)syscall(SYS_dup3, fd, to, flags);
}

int dup2(int fd, int to)
{
    record_must_not(fd, "a second descriptor");
    record_forget(to);
    return (int)syscall(SYS_dup2, fd, to);
}

static int controlled(int fd, int what, long arg)
{
    if (what == F_DUPFD || what == F_DUPFD_CLOEXEC)
        record_must_not(fd, "a second descriptor");
    return (int)syscall(SYS_fcntl, fd, what, arg);
}

int fcntl(int fd, int what, ...)
{
    va_list ap;
    va_start(ap, what);
    long arg = va_arg(ap, long);
    va_end(ap);
    return controlled(fd, what, arg);
}

int fcntl64(int fd, int what, ...)
{
    va_list ap;
    va_start(ap, what);
    long arg = va_arg(ap, long);
    va_end(ap);
    return controlled(fd, what, arg);
}

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags)
{
    record_must_not(out, "a copy by the kernel");
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, n, flags);
}

ssize_t sendfile(int out, int in, off_t *from, size_t n)
{
    record_must_not(out, "a copy by the kernel");
    return syscall(SYS_sendfile, out, in, from, n);
}

ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t from, int flags)
{
    record_must_not(fd, "pwritev2()");
    return syscall(SYS_pwritev2, fd, v, n, from, 0, flags);
}
