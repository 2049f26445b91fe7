/*
 * reserve.c - the file that is given up when the disk is full.
 *
 * A full disk must not leave transactions half way: what is submitted then is committed into the
 * space that the reserve gave up, and the writer can stop and start. Meanwhile new transactions are
 * refused (writer.c); a reserve made anew says that there is room again.
 *
 * Failure modes
 *   killed after giving it up    the next writer finds a file that is too short: lacking, as before
 *   killed while it is made      as above; what was allocated is allocated still, and completed
 *   the disk is full again       an allocation that did not fit is given back at once
 *   a copy of the directory      may be sparse: allocated at each start, which changes nothing else
 *
 * Invariant V1: unless `lacking` says so, the whole file is allocated: writing LMDB's pages into what it
 * gives up needs no room that anybody else could take first.
 */
#include "writer/reserve.h"

#include "core/crash.h"
#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct reserve {
    int fd; /* -1: there was no room even for the name */
    int lacking;
    uint64_t bytes;
    char path[PATH_MAX + 16];
};

/* 0, ENOSPC after giving back what was got, or another errno. */
static int allocate(struct reserve *r)
{
    struct stat st;
    struct statvfs fs;
    if (r->fd < 0)
        r->fd = open(r->path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    if (r->fd < 0)
        return errno == EDQUOT ? ENOSPC : errno;
    if (fstat(r->fd, &st) || fstatvfs(r->fd, &fs))
        return errno;
    /* Looked at first: an allocation that fails would take the last blocks for a moment. */
    uint64_t have = (uint64_t)st.st_blocks * 512, room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (have < r->bytes && room < r->bytes - have)
        return ENOSPC;
    int e = posix_fallocate(r->fd, 0, (off_t)r->bytes);
    if (!e && (uint64_t)st.st_size > r->bytes && ftruncate(r->fd, (off_t)r->bytes))
        e = errno;
    if ((e == ENOSPC || e == EDQUOT) && ftruncate(r->fd, 0))
        return errno;
    return e == EDQUOT ? ENOSPC : e;
}

int reserve_open(const char *dir, uint64_t bytes, struct reserve **ret, struct azoth_error *err)
{
    struct reserve *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, AZOTH_ERR_NOMEM, "the reserve");
    r->fd = -1;
    r->bytes = bytes;
    snprintf(r->path, sizeof r->path, "%s/" RESERVE_NAME, dir);
    int e = bytes ? allocate(r) : unlink(r->path) && errno != ENOENT ? errno : 0;
    if (e && e != ENOSPC) {
        int rc = error_errno(err, e, "%s", r->path);
        reserve_close(r);
        return rc;
    }
    r->lacking = e == ENOSPC;
    *ret = r;
    return 0;
}

void reserve_close(struct reserve *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    free(r);
}

int reserve_lacking(const struct reserve *r)
{
    return r && r->lacking;
}

uint64_t reserve_held(const struct reserve *r)
{
    return r && !r->lacking ? r->bytes : 0;
}

int reserve_give_up(struct reserve *r)
{
    if (!r || r->lacking || r->bytes == 0)
        return 0;
    r->lacking = 1;
    /* Synced: journaling file systems hand freed blocks out only when the journal has the freeing. */
    if (ftruncate(r->fd, 0) || fsync(r->fd))
        return 0;
    CRASH_POINT(reserve_given_up);
    return 1;
}

int reserve_restore(struct reserve *r)
{
    if (!r || !r->lacking)
        return 1;
    if (allocate(r))
        return 0;
    CRASH_POINT(reserve_made);
    r->lacking = 0;
    return 1;
}
