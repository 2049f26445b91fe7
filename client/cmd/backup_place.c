/* backup_place.c - a directory of backups: its identity, its lock, the names in it. */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/io.h"
#include "writer/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PLACE_NAME "place"
#define SUFFIX     ".azb"

/* ---- names ---- */

#define DIGITS_MAX 12 /* of a number: what is longer was not counted to */

/* YYYYMMDDTHHMMSSZ-NNNNNN-KIND.azb, or with .partial behind: 1, or 0 when it is none. */
static int parse_name(const char *name, struct backup_entry *ret)
{
    char kind[16] = "";
    int at = 0, end = 0;
    unsigned long long number;
    if (strspn(name, "0123456789TZ") != 16 || name[16] != '-' ||
        strspn(name + 17, "0123456789") > DIGITS_MAX)
        return 0;
    if (sscanf(name + 16, "-%20llu-%15[a-z]%n" SUFFIX "%n", &number, kind, &at, &end) != 2 || !end)
        return 0;
    const char *tail = name + 16 + end;
    int k = 0;
    while (k < 3 && strcmp(kind, backup_kind_name((enum backup_kind)k)) != 0)
        k++;
    if (k == 3 || (*tail && strcmp(tail, ".partial") != 0) || strlen(name) > NAME_MAX)
        return 0;
    memset(ret, 0, sizeof *ret);
    snprintf(ret->file, sizeof ret->file, "%s", name);
    ret->number = number;
    ret->kind = (enum backup_kind)k;
    ret->partial = *tail != 0;
    return 1;
}

static int by_number(const void *a, const void *b)
{
    const struct backup_entry *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return strcmp(x->file, y->file);
}

static int add_entry(struct backup_entry **list, size_t n, int dir_fd, const struct backup_entry *e,
                     struct azoth_error *err)
{
    struct stat st;
    struct backup_entry *more = realloc(*list, (n + 1) * sizeof *more);
    if (!more)
        return error_set(err, AZOTH_ERR_NOMEM, "a list of backups");
    *list = more;
    more[n] = *e;
    if (fstatat(dir_fd, e->file, &st, 0) == 0) {
        more[n].bytes = (uint64_t)st.st_size;
        more[n].changed_ns = (int64_t)st.st_mtim.tv_sec * (int64_t)NS_PER_S + st.st_mtim.tv_nsec;
    }
    return 0;
}

int backup_place_list(const char *dir, struct backup_entry **ret, struct azoth_error *err)
{
    DIR *d = opendir(dir);
    size_t n = 0;
    int rc = 0;
    *ret = NULL;
    if (!d)
        return error_errno(err, errno, "%s", dir);
    for (struct dirent *e; !rc && (e = readdir(d)) != NULL;) {
        struct backup_entry one;
        if (parse_name(e->d_name, &one) && !(rc = add_entry(ret, n, dirfd(d), &one, err)))
            n++;
    }
    closedir(d);
    if (rc) {
        free(*ret);
        *ret = NULL;
        return rc;
    }
    if (n)
        qsort(*ret, n, sizeof **ret, by_number);
    return (int)n;
}

int backup_place_next(const struct backup_place *p, enum backup_kind kind, int64_t wall_ns,
                      char out[PATH_MAX], struct azoth_error *err)
{
    struct backup_entry *list;
    char stamp[32];
    struct tm tm;
    time_t s = (time_t)(wall_ns / (int64_t)NS_PER_S);
    int n = backup_place_list(p->dir, &list, err);
    if (n < 0)
        return n;
    uint64_t number = n ? list[n - 1].number + 1 : 1;
    free(list);
    gmtime_r(&s, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    int len = snprintf(out, PATH_MAX, "%s/%s-%06llu-%s" SUFFIX, p->dir, stamp,
                       (unsigned long long)number, backup_kind_name(kind));
    return len < PATH_MAX ? 0 : error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", p->dir);
}

/* ---- the place ---- */

int backup_place_is(const char *dir)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/" PLACE_NAME, dir) < PATH_MAX && access(path, F_OK) == 0;
}

int backup_place_reads(const char *dir)
{
    struct backup_entry *list;
    int whole = 0;
    if (backup_place_is(dir))
        return 1;
    int n = backup_place_list(dir, &list, NULL);
    for (int i = 0; i < n && !whole; i++)
        whole = !list[i].partial;
    if (n >= 0)
        free(list);
    return whole;
}

static int check_empty(const char *dir, struct azoth_error *err)
{
    DIR *d = opendir(dir);
    struct backup_entry one;
    int rc = 0;
    if (!d)
        return error_errno(err, errno, "%s", dir);
    for (struct dirent *e; !rc && (e = readdir(d)) != NULL;)
        /* What a death left of this very call: written beside and linked. */
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            strncmp(e->d_name, PLACE_NAME ".", sizeof PLACE_NAME) != 0)
            rc = parse_name(e->d_name, &one)
                     ? error_set(err, AZOTH_ERR_DUPLICATE,
                                 "%s: it has backups, and no file \"" PLACE_NAME
                                 "\": azoth restore reads them, new ones belong elsewhere",
                                 dir)
                     : error_set(err, AZOTH_ERR_DUPLICATE,
                                 "%s: there are other things in it (%.80s): a directory of backups "
                                 "is one of their own",
                                 dir, e->d_name);
    closedir(d);
    return rc;
}

/* The identity, whole or not at all; of two at once one is taken. */
static int make_identity(const char *dir, const char *path, struct azoth_error *err)
{
    uint8_t uuid[16];
    char text[40], fresh[PATH_MAX + 32];
    if (getrandom(uuid, sizeof uuid, 0) != sizeof uuid)
        return error_errno(err, errno, "random bytes");
    bytes_hex(text, uuid, sizeof uuid);
    snprintf(fresh, sizeof fresh, "%s.%s", path, text);
    memcpy(text + 32, "\n", 2);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0)
        return error_errno(err, errno, "%s", fresh);
    int rc = io_write_all(fd, text, 33, fresh, err);
    if (!rc && fsync(fd))
        rc = error_errno(err, errno, "%s", fresh);
    close(fd);
    /* Whoever was first may have removed ours as one of the dead. */
    if (!rc && link(fresh, path) && errno != EEXIST &&
        !(errno == ENOENT && access(path, F_OK) == 0))
        rc = error_errno(err, errno, "%s", path);
    unlink(fresh);
    int dir_fd = rc ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!rc && (dir_fd < 0 || fsync(dir_fd)))
        rc = error_errno(err, errno, "%s", path);
    if (dir_fd >= 0)
        close(dir_fd);
    return rc;
}

static int read_identity(struct backup_place *p, const char *path, struct azoth_error *err)
{
    uint8_t bytes[16];
    ssize_t n = pread(p->fd, p->uuid, BACKUP_ID_TEXT - 1, 0);
    p->uuid[n > 0 ? n : 0] = 0;
    if (n < 0)
        return error_errno(err, errno, "%s", path);
    return cmd_unhex(p->uuid, bytes, sizeof bytes)
               ? 0
               : error_set(err, AZOTH_ERR_CORRUPT,
                           "%s: it should say the identity of this directory of backups", path);
}

int backup_place_identity(const char *dir, char uuid[BACKUP_ID_TEXT], struct azoth_error *err)
{
    struct backup_place p;
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/" PLACE_NAME, dir) >= PATH_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir);
    p.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (p.fd < 0)
        return errno == ENOENT
                   ? error_set(err, AZOTH_ERR_NOT_FOUND, "%s: it is no directory of backups", dir)
                   : error_errno(err, errno, "%s", path);
    int rc = read_identity(&p, path, err);
    close(p.fd);
    if (!rc)
        memcpy(uuid, p.uuid, BACKUP_ID_TEXT);
    return rc;
}

/* What dead ones have left: nobody else writes into it while we have the lock. */
static void remove_leftovers(const struct backup_place *p)
{
    struct backup_entry one;
    char path[PATH_MAX + NAME_MAX + 2];
    DIR *d = opendir(p->dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", p->dir, e->d_name);
        if (strncmp(e->d_name, BACKUP_TMP, sizeof BACKUP_TMP - 1) == 0)
            restore_remove_tree(path);
        else if (strncmp(e->d_name, PLACE_NAME ".", sizeof PLACE_NAME) == 0)
            unlink(path);
        else if (parse_name(e->d_name, &one) && one.partial)
            unlink(path);
    }
    if (d)
        closedir(d);
}

int backup_place_lock(const char *dir, struct backup_place *ret, struct azoth_error *err)
{
    char path[PATH_MAX + 16];
    int rc = 0;
    ret->fd = -1;
    if (mkdir(dir, 0770) && errno != EEXIST)
        return error_errno(err, errno, "%s", dir);
    if (!realpath(dir, ret->dir))
        return error_errno(err, errno, "%s", dir);
    snprintf(path, sizeof path, "%s/" PLACE_NAME, ret->dir);
    if (!backup_place_is(ret->dir)) {
        rc = check_empty(ret->dir, err);
        /* It may be new, and would take with it what is durable in it. Where we may not look, we have not made it. */
        if (!rc && (rc = backup_sync_parent(ret->dir, err)) == AZOTH_ERR_PERMISSION)
            rc = 0;
        if (!rc)
            rc = make_identity(ret->dir, path, err);
    }
    if (rc)
        return rc;
    ret->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (ret->fd < 0)
        return error_errno(err, errno, "%s", path);
    rc = read_identity(ret, path, err);
    if (!rc && flock(ret->fd, LOCK_EX | LOCK_NB))
        rc = errno == EWOULDBLOCK
                 ? error_set(err, AZOTH_ERR_BUSY, "%s: another backup is made into it now", dir)
                 : error_errno(err, errno, "%s", path);
    if (rc)
        backup_place_unlock(ret);
    else
        remove_leftovers(ret);
    return rc;
}

void backup_place_unlock(struct backup_place *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}
