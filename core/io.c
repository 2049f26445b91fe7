#include "core/io.h"

#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#define PIECE  65536u
#define ASK_MS 100

/*
 * Until the descriptor lets a call through, or it is to be given up. A call that blocks hears of a signal that comes while it
 * blocks, and would wait for ever with one that came just before. One that never blocks is waited for in again().
 */
static int ready(int (*interrupted)(void), int fd, short event, const char *what,
                 struct azoth_error *err)
{
    struct pollfd p = {.fd = fd, .events = event};
    if (!interrupted || fcntl(fd, F_GETFL) & O_NONBLOCK)
        return 0;
    for (int n = 0; n == 0;) {
        if (interrupted())
            return error_errno(err, EINTR, "%s", what);
        n = poll(&p, 1, ASK_MS);
        if (n < 0 && errno == EINTR)
            n = 0;
    }
    return 0; /* what else poll() has found the call will, too */
}

/* After a call that failed with e: 0 when it is to be made again. */
static int again(int e, int (*interrupted)(void), int fd, short event, const char *what,
                 struct azoth_error *err)
{
    struct pollfd p = {.fd = fd, .events = event};
    if (e == EAGAIN && poll(&p, 1, interrupted ? ASK_MS : -1) < 0)
        e = errno;
    if (e != EINTR && e != EAGAIN)
        return error_errno(err, e, "%s", what);
    return interrupted && interrupted() ? error_errno(err, EINTR, "%s", what) : 0;
}

int io_write_unless(int (*interrupted)(void), int fd, const void *p, size_t len, const char *what,
                    struct azoth_error *err)
{
    const unsigned char *at = p;
    int rc = 0;
    while (!rc && len) {
        rc = ready(interrupted, fd, POLLOUT, what, err);
        if (rc)
            break;
        ssize_t n = write(fd, at, len);
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        } else {
            rc = again(n < 0 ? errno : ENOSPC, interrupted, fd, POLLOUT, what, err);
        }
    }
    return rc;
}

int io_write_all(int fd, const void *p, size_t len, const char *what, struct azoth_error *err)
{
    return io_write_unless(NULL, fd, p, len, what, err);
}

int io_read_unless(int (*interrupted)(void), int fd, void *p, size_t len, size_t *ret_len,
                   const char *what, struct azoth_error *err)
{
    size_t have = 0;
    ssize_t n = 1;
    int rc = 0;
    while (!rc && n && have < len) {
        rc = ready(interrupted, fd, POLLIN, what, err);
        if (rc)
            break;
        n = read(fd, (unsigned char *)p + have, len - have);
        if (n < 0)
            rc = again(errno, interrupted, fd, POLLIN, what, err);
        else
            have += (size_t)n;
    }
    if (!rc)
        *ret_len = have;
    return rc;
}

int io_read_full(int fd, void *p, size_t len, size_t *ret_len, const char *what,
                 struct azoth_error *err)
{
    return io_read_unless(NULL, fd, p, len, ret_len, what, err);
}

int io_read_at(int fd, void *p, size_t len, uint64_t at, size_t *ret_len, const char *what,
               struct azoth_error *err)
{
    size_t have = 0;
    ssize_t n = 1;
    int rc = 0;
    while (!rc && n && have < len) {
        n = pread(fd, (unsigned char *)p + have, len - have, (off_t)(at + have));
        if (n < 0)
            rc = again(errno, NULL, fd, POLLIN, what, err);
        else
            have += (size_t)n;
    }
    if (!rc)
        *ret_len = have;
    return rc;
}

int io_read_all(int fd, struct buf *out, size_t max, const char *what, struct azoth_error *err)
{
    size_t n = PIECE;
    int rc = 0;
    while (!rc && n == PIECE && out->len <= max) {
        if (buf_reserve(out, PIECE))
            return error_set(err, AZOTH_ERR_NOMEM, "%s", what);
        rc = io_read_full(fd, out->ptr + out->len, PIECE, &n, what, err);
        if (!rc)
            out->len += n;
    }
    return rc;
}
