#include "client/cmd/scratch.h"

#include "writer/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LETTERS "XXXXXX" /* mkdtemp()'s */
#define ROOM    300u     /* for the names of what is put into it */
#define TRIES   8u

const char *scratch_above(void)
{
    const char *env = getenv("TMPDIR");
    return env ? env : "/var/tmp";
}

/* One of this user's, which nobody else can have put there or written into. */
static int is_ours(const char *path, const char *name, const char *prefix)
{
    struct stat st;
    size_t len = strlen(prefix);
    return strncmp(name, prefix, len) == 0 && strlen(name) == len + sizeof LETTERS - 1 &&
           lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 077) == 0;
}

static void remove_dead(const char *above, const char *prefix)
{
    DIR *d = opendir(above);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[PATH_MAX + NAME_MAX + 2];
        snprintf(path, sizeof path, "%s/%s", above, e->d_name);
        int fd =
            is_ours(path, e->d_name, prefix) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            restore_remove_tree(path);
        close(fd);
    }
    closedir(d);
}

/* 1: it is locked; 0: another one took it for a dead one's before it was. */
static int lock(struct scratch *s, struct azoth_error *err)
{
    struct stat mine, there;
    int rc = 0;
    s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->fd >= 0 && flock(s->fd, LOCK_EX | LOCK_NB) == 0 && fstat(s->fd, &mine) == 0 &&
        stat(s->path, &there) == 0) {
        if (mine.st_ino == there.st_ino)
            return 1;
        errno = ENOENT;
    }
    if (errno != ENOENT && errno != EWOULDBLOCK) {
        rc = error_errno(err, errno, "%s", s->path);
        rmdir(s->path);
    }
    if (s->fd >= 0)
        close(s->fd);
    s->path[0] = 0;
    return rc;
}

static int make(struct scratch *s, const char *above, const char *prefix, struct azoth_error *err)
{
    if (snprintf(s->path, sizeof s->path - ROOM, "%s/%s" LETTERS, above, prefix) >=
        (int)(sizeof s->path - ROOM)) {
        s->path[0] = 0;
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", above);
    }
    if (!mkdtemp(s->path)) {
        int e = errno;
        s->path[0] = 0;
        return error_errno(err, e, "%s/%s" LETTERS, above, prefix);
    }
    return lock(s, err);
}

int scratch_begin(struct scratch *s, const char *above, const char *prefix, struct azoth_error *err)
{
    int rc = 0;
    remove_dead(above, prefix);
    for (unsigned i = 0; i < TRIES && !rc; i++)
        rc = make(s, above, prefix, err);
    return rc > 0 ? 0
           : rc   ? rc
                  : error_set(err, AZOTH_ERR_BUSY, "%s: others remove what is made here", above);
}

void scratch_end(struct scratch *s)
{
    if (!*s->path)
        return;
    restore_remove_tree(s->path);
    close(s->fd);
    s->path[0] = 0;
}
