/*
 * shim.c - preloaded into a program under test, to do what only a library's inside can be made to do.
 *
 *   AZOTH_SHIM_META=N     dies by SIGKILL right after the N-th write of an LMDB meta page, before the
 *                         reader table is told
 *   AZOTH_SHIM_READER=1   stops itself (SIGSTOP) holding the first process-shared mutex that it locks:
 *                         in a reader, LMDB's reader mutex
 *   AZOTH_SHIM_SLOW=TEXT  sleeps a second before each step of an SQL statement that has TEXT in it
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at);

/* LMDB writes a meta page's changed part: less than a page, within the first two. */
static ssize_t write_and_maybe_die(int fd, const void *b, size_t n, off_t at)
{
    static int left = -1;
    ssize_t r = syscall(SYS_pwrite64, fd, b, n, at);
    if (left < 0) {
        const char *want = getenv("AZOTH_SHIM_META");
        left = want ? atoi(want) : 0;
    }
    if (left > 0 && at < 8192 && n < 4096 && --left == 0)
        kill(getpid(), SIGKILL);
    return r;
}

ssize_t pwrite(int fd, const void *b, size_t n, off_t at)
{
    return write_and_maybe_die(fd, b, n, at);
}

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at)
{
    return write_and_maybe_die(fd, b, n, at);
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    static int (*real)(pthread_mutex_t *);
    static int armed = -1;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    int r = real(m);
    if (armed < 0)
        armed = getenv("AZOTH_SHIM_READER") != NULL;
    if (armed && (m->__data.__kind & 128)) { /* PTHREAD_MUTEX_PSHARED_BIT of glibc */
        armed = 0;
        kill(getpid(), SIGSTOP);
    }
    return r;
}

int sqlite3_step(sqlite3_stmt *statement)
{
    static int (*real)(sqlite3_stmt *);
    static const char *(*text_of)(sqlite3_stmt *);
    const char *slow = getenv("AZOTH_SHIM_SLOW");
    if (!real) {
        *(void **)&text_of = dlsym(RTLD_NEXT, "sqlite3_sql");
        *(void **)&real = dlsym(RTLD_NEXT, "sqlite3_step");
    }
    const char *text = slow ? text_of(statement) : NULL;
    if (text && strstr(text, slow)) {
        struct timespec second = {.tv_sec = 1};
        nanosleep(&second, NULL);
    }
    return real(statement);
}
