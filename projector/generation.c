#include "projector/generation.h"

#include "core/crash.h"
#include "core/dbdir.h"
#include "core/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 4400

static int path_of(char out[PATH_BYTES], const char *dir, const char *stem, const char *what,
                   struct azoth_error *err)
{
    return dbdir_path(out, PATH_BYTES, dir, "%s%s", stem, what)
               ? error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir)
               : 0;
}

int generation_path(char *out, size_t size, const char *dir, const char *stem, uint64_t n,
                    struct azoth_error *err)
{
    int rc = n ? dbdir_path(out, size, dir, "%s.g%" PRIu64 ".db", stem, n)
               : dbdir_path(out, size, dir, "%s.rebuild.db", stem);
    return rc ? error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir) : 0;
}

/* What the superuser makes is of whom the directory is: the projector, which is somebody else, goes on with it. */
static int give_away(int fd, const char *dir)
{
    struct stat above, st;
    if (geteuid() != 0 || stat(dir, &above) || fstat(fd, &st) || st.st_uid == above.st_uid ||
        st.st_uid != 0)
        return 0;
    return fchown(fd, above.st_uid, above.st_gid);
}

static int make_file(const char *path, const char *dir, mode_t mode, int *ret_fd,
                     struct azoth_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, mode);
    if (fd >= 0 && give_away(fd, dir) == 0) {
        *ret_fd = fd;
        return 0;
    }
    int rc = error_errno(err, errno, "%s", path);
    if (fd >= 0)
        close(fd);
    return rc;
}

int generation_lock(const char *dir, const char *stem, const char *suffix, int *ret_fd,
                    struct azoth_error *err)
{
    char path[PATH_BYTES], what[20];
    snprintf(what, sizeof what, "%s.lock", suffix);
    int rc = path_of(path, dir, stem, what, err);
    if (rc)
        return rc;
    int fd;
    rc = make_file(path, dir, 0660, &fd, err);
    if (rc)
        return rc;
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &l) == 0) {
        *ret_fd = fd;
        return 0;
    }
    rc = errno == EAGAIN || errno == EACCES
             ? error_set(err, AZOTH_ERR_DUPLICATE, "%s: another process projects into it", path)
             : error_errno(err, errno, "%s", path);
    close(fd);
    return rc;
}

/* ---- what is there ---- */

/* N of STEM.gN.db; 0: it is none. One that leaves no room for the next is none of ours. */
static uint64_t number_of(const char *stem, const char *name)
{
    size_t n = strlen(stem);
    char *end;
    if (strncmp(name, stem, n) != 0 || strncmp(name + n, ".g", 2) != 0 || name[n + 2] < '1' ||
        name[n + 2] > '9')
        return 0;
    unsigned long long k = strtoull(name + n + 2, &end, 10);
    return strcmp(end, ".db") == 0 && k < UINT64_MAX / 2 ? k : 0;
}

int generation_current(const char *dir, const char *stem, uint64_t *ret, struct azoth_error *err)
{
    char path[PATH_BYTES], target[300];
    int rc = path_of(path, dir, stem, ".db", err);
    if (rc)
        return rc;
    ssize_t n = readlink(path, target, sizeof target - 1);
    *ret = 0;
    if (n < 0 && errno == ENOENT)
        return 0;
    if (n < 0 && errno == EINVAL)
        return error_set(err, AZOTH_ERR_DUPLICATE,
                         "%s: a file lies where our symbolic link belongs", path);
    if (n < 0)
        return error_errno(err, errno, "%s", path);
    target[n] = 0;
    *ret = number_of(stem, target);
    return *ret ? 0
                : error_set(err, AZOTH_ERR_DUPLICATE, "%s: links to %s, which is no generation",
                            path, target);
}

int generation_each(const char *dir, const char *stem, generation_fn fn, void *arg,
                    struct azoth_error *err)
{
    DIR *d = opendir(dir);
    int rc = d ? 0 : error_errno(err, errno, "%s", dir);
    for (struct dirent *e; d && !rc && (e = readdir(d));) {
        uint64_t n = number_of(stem, e->d_name);
        if (n)
            rc = fn(arg, n);
    }
    if (d)
        closedir(d);
    return rc;
}

static int sync_dir(const char *dir, struct azoth_error *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) ? error_errno(err, errno, "%s", dir) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int remove_file(const char *path, struct azoth_error *err)
{
    return unlink(path) && errno != ENOENT ? error_errno(err, errno, "%s", path) : 0;
}

/* A database and what SQLite keeps beside it. */
static int remove_database(const char *path, struct azoth_error *err)
{
    char beside[PATH_BYTES + 8];
    int rc = remove_file(path, err);
    snprintf(beside, sizeof beside, "%s-wal", path);
    if (!rc)
        rc = remove_file(beside, err);
    snprintf(beside, sizeof beside, "%s-shm", path);
    return rc ? rc : remove_file(beside, err);
}

/* The link of STEM.db to generation n: made beside and renamed, so there is the old one or the new one. */
static int point_to(const char *dir, const char *stem, uint64_t n, struct azoth_error *err)
{
    char link[PATH_BYTES], fresh[PATH_BYTES], target[300];
    int rc = path_of(link, dir, stem, ".db", err);
    if (!rc)
        rc = path_of(fresh, dir, stem, ".db.new", err);
    if (!rc)
        rc = remove_file(fresh, err);
    if (rc)
        return rc;
    snprintf(target, sizeof target, "%s.g%" PRIu64 ".db", stem, n);
    if (symlink(target, fresh))
        return error_errno(err, errno, "%s", fresh);
    CRASH_POINT(projector_link_made);
    if (rename(fresh, link))
        return error_errno(err, errno, "%s", link);
    CRASH_POINT(projector_linked);
    return sync_dir(dir, err);
}

int generation_current_or_first(const char *dir, const char *stem, uint64_t *ret,
                                struct azoth_error *err)
{
    int rc = generation_current(dir, stem, ret, err);
    if (rc || *ret)
        return rc;
    *ret = 1;
    return point_to(dir, stem, 1, err);
}

/* ---- the one that is being built ---- */

int generation_look(const char *dir, const char *stem, struct azoth_error *err)
{
    char built[PATH_BYTES], serves[PATH_BYTES];
    struct stat a, b;
    uint64_t n;
    int rc = generation_path(built, sizeof built, dir, stem, 0, err);
    if (rc)
        return rc;
    if (stat(built, &a))
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", built);
    rc = generation_current(dir, stem, &n, err);
    if (!rc && n)
        rc = generation_path(serves, sizeof serves, dir, stem, n, err);
    if (rc)
        return rc;
    if (!n || stat(serves, &b) || a.st_ino != b.st_ino || a.st_dev != b.st_dev)
        return 1;
    rc = remove_file(built, err);
    return rc ? rc : 0;
}

int generation_make(const char *dir, const char *stem, struct azoth_error *err)
{
    char built[PATH_BYTES];
    int fd, rc = generation_path(built, sizeof built, dir, stem, 0, err);
    if (!rc)
        rc = make_file(built, dir, 0644, &fd, err);
    if (!rc)
        close(fd);
    return rc;
}

int generation_abort(const char *dir, const char *stem, int *ret_had, struct azoth_error *err)
{
    char built[PATH_BYTES];
    *ret_had = 0;
    int rc = generation_look(dir, stem, err);
    if (rc <= 0)
        return rc;
    *ret_had = 1;
    rc = generation_path(built, sizeof built, dir, stem, 0, err);
    return rc ? rc : remove_database(built, err);
}

struct search {
    const char *dir, *stem;
    struct stat built;
    uint64_t same, most, below, current, removed;
    struct azoth_error *err;
};

static int look_at(void *arg, uint64_t n)
{
    struct search *s = arg;
    char path[PATH_BYTES];
    struct stat st;
    int rc = generation_path(path, sizeof path, s->dir, s->stem, n, s->err);
    if (!rc && stat(path, &st) == 0 && st.st_ino == s->built.st_ino && st.st_dev == s->built.st_dev)
        s->same = n;
    s->most = n > s->most ? n : s->most;
    s->below = n < s->current && n > s->below ? n : s->below;
    return rc;
}

/* An empty log, or none: what it held is in the database. */
static int check_log(const char *built, struct azoth_error *err)
{
    char path[PATH_BYTES + 8];
    struct stat st;
    snprintf(path, sizeof path, "%s-wal", built);
    if (stat(path, &st) == 0 && st.st_size > 0)
        return error_set(err, AZOTH_ERR_BUSY, "%s: not everything is in the database yet", path);
    return 0;
}

static int move_file(const char *from, const char *to, struct azoth_error *err)
{
    if (rename(from, to) == 0)
        return 0;
    return errno == ENOENT ? remove_file(to, err) : error_errno(err, errno, "%s", to);
}

/*
 * What SQLite keeps beside it gets the new name as well, before the database does: who may read but not write finds
 * no log otherwise, and cannot make one; and a log that a pruned generation of this number left when we died would
 * be taken for this one's.
 */
static int move_log(const char *built, const char *path, struct azoth_error *err)
{
    char from[PATH_BYTES + 8], to[PATH_BYTES + 8];
    snprintf(from, sizeof from, "%s-wal", built);
    snprintf(to, sizeof to, "%s-wal", path);
    int rc = move_file(from, to, err);
    snprintf(from, sizeof from, "%s-shm", built);
    snprintf(to, sizeof to, "%s-shm", path);
    return rc ? rc : move_file(from, to, err);
}

static int name_it(struct search *s, const char *built, uint64_t *ret)
{
    char path[PATH_BYTES];
    /* Named by one that died before the link pointed to it. */
    *ret = s->same ? s->same : s->most + 1;
    int rc = generation_path(path, sizeof path, s->dir, s->stem, *ret, s->err);
    if (!rc)
        rc = move_log(built, path, s->err);
    if (rc || s->same)
        return rc;
    if (link(built, path))
        return error_errno(s->err, errno, "%s", path);
    CRASH_POINT(generation_named);
    return sync_dir(s->dir, s->err);
}

int generation_adopt(const char *dir, const char *stem, uint64_t *ret, struct azoth_error *err)
{
    char built[PATH_BYTES];
    struct search s = {.dir = dir, .stem = stem, .err = err};
    int rc = generation_path(built, sizeof built, dir, stem, 0, err);
    if (rc)
        return rc;
    if (stat(built, &s.built))
        return errno == ENOENT ? error_set(err, AZOTH_ERR_NOT_FOUND, "%s: nothing was built", built)
                               : error_errno(err, errno, "%s", built);
    rc = check_log(built, err);
    if (!rc)
        rc = generation_each(dir, stem, look_at, &s, err);
    if (!rc)
        rc = name_it(&s, built, ret);
    if (!rc)
        rc = point_to(dir, stem, *ret, err);
    CRASH_POINT(generation_swapped);
    return rc ? rc : remove_file(built, err);
}

int generation_before(const char *dir, const char *stem, uint64_t *ret, struct azoth_error *err)
{
    struct search s = {.dir = dir, .stem = stem, .err = err};
    int rc = generation_current(dir, stem, &s.current, err);
    if (!rc)
        rc = generation_each(dir, stem, look_at, &s, err);
    *ret = s.below;
    return rc || s.below ? rc
                         : error_set(err, AZOTH_ERR_NOT_FOUND,
                                     "%s: there is no generation before %" PRIu64, stem, s.current);
}

/* Named by one that died before the link pointed to it: a rebuild may be writing to it. */
static int is_being_built(const char *dir, const char *stem, const struct stat *n)
{
    char built[PATH_BYTES];
    struct stat st;
    return generation_path(built, sizeof built, dir, stem, 0, NULL) == 0 && stat(built, &st) == 0 &&
           st.st_ino == n->st_ino && st.st_dev == n->st_dev;
}

int generation_serve(const char *dir, const char *stem, uint64_t n, struct azoth_error *err)
{
    char path[PATH_BYTES];
    struct stat st;
    uint64_t serves;
    int rc = generation_path(path, sizeof path, dir, stem, n, err);
    if (!rc)
        rc = generation_current(dir, stem, &serves, err);
    if (rc)
        return rc;
    /* 0 is the one that is being built. */
    if (!n || (stat(path, &st) && errno == ENOENT))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "%s: there is no generation %" PRIu64, stem, n);
    if (stat(path, &st))
        return error_errno(err, errno, "%s", path);
    if (n != serves && is_being_built(dir, stem, &st))
        return error_set(err, AZOTH_ERR_NOT_FOUND,
                         "%s: generation %" PRIu64
                         " is not built to its end yet: a rebuild goes on with it",
                         stem, n);
    return point_to(dir, stem, n, err);
}

static int prune_one(void *arg, uint64_t n)
{
    struct search *s = arg;
    char path[PATH_BYTES];
    if (n == s->current)
        return 0;
    int rc = generation_path(path, sizeof path, s->dir, s->stem, n, s->err);
    if (!rc)
        rc = remove_database(path, s->err);
    s->removed += !rc;
    return rc;
}

int generation_prune(const char *dir, const char *stem, uint64_t *ret, struct azoth_error *err)
{
    struct search s = {.dir = dir, .stem = stem, .err = err};
    int rc = generation_current(dir, stem, &s.current, err);
    if (!rc && !s.current)
        rc = error_set(err, AZOTH_ERR_NOT_FOUND, "%s: it has no file yet", stem);
    if (!rc)
        rc = generation_each(dir, stem, prune_one, &s, err);
    *ret = s.removed;
    return rc;
}
