#include "core/dbdir.h"

#include "core/error.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int dbdir_resolve(const char *flag, char *out, size_t size, struct azoth_error *err)
{
    const char *dir = flag ? flag : getenv("AZOTH_DIR");
    if (!dir || !*dir)
        return error_set(err, AZOTH_ERR_USAGE, "which database? give --dir DIR or set AZOTH_DIR");
    char full[PATH_MAX];
    if (realpath(dir, full)) {
        dir = full;
    } else if (errno != ENOENT) {
        return error_errno(err, errno, "%s", dir);
    } else if (*dir != '/') {
        /* Not there yet (init makes it): absolute all the same. */
        char cwd[PATH_MAX];
        if (!getcwd(cwd, sizeof cwd))
            return error_errno(err, errno, "the working directory");
        if ((size_t)snprintf(out, size, "%s/%s", cwd, dir) >= size)
            return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir);
        return 0;
    }
    if ((size_t)snprintf(out, size, "%s", dir) >= size)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir);
    return 0;
}

int dbdir_path(char *out, size_t size, const char *dir, const char *fmt, ...)
{
    int at = snprintf(out, size, "%s/", dir);
    if (at < 0 || (size_t)at >= size)
        return AZOTH_ERR_USAGE;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out + at, size - (size_t)at, fmt, ap);
    va_end(ap);
    return n < 0 || (size_t)n >= size - (size_t)at ? AZOTH_ERR_USAGE : 0;
}

int dbdir_endpoint(char *out, size_t size, const char *run_dir, struct azoth_error *err,
                   const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    if (strlen(run_dir) + 1 + strlen(name) >= DBDIR_SOCKET_PATH_MAX)
        return error_set(
            err, AZOTH_ERR_CONFIG,
            "the path of a socket has at most %u bytes: choose a shorter run.dir than %s",
            DBDIR_SOCKET_PATH_MAX - 1, run_dir);
    if ((size_t)snprintf(out, size, "ipc://%s/%s", run_dir, name) >= size)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", run_dir);
    return 0;
}

/* Spelled out: isalpha() follows the locale of the program that holds the library. */
#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

static int name_letters(const char *name)
{
    size_t n = strlen(name);
    return n >= 1 && n <= AZOTH_NAME_MAX && strspn(name, LETTERS "0123456789_-") == n;
}

/* NAME or NAME:PART. */
static int parts_valid(const char *rest)
{
    char name[AZOTH_NAME_MAX + 1];
    const char *colon = strchr(rest, ':');
    if (!colon)
        return name_letters(rest);
    if ((size_t)snprintf(name, sizeof name, "%.*s", (int)(colon - rest), rest) >= sizeof name)
        return 0;
    return name_letters(name) && name_letters(colon + 1);
}

int dbdir_name_valid(const char *name)
{
    return name_letters(name) && strchr(LETTERS, name[0]);
}

int dbdir_make(const char *path, unsigned mode, struct azoth_error *err)
{
    char part[PATH_MAX];
    if ((size_t)snprintf(part, sizeof part, "%s", path) >= sizeof part)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", path);
    /* "new/" is "new": else the last part would be made as a parent, open to everybody. */
    for (size_t n = strlen(part); n > 1 && part[n - 1] == '/'; n--)
        part[n - 1] = 0;
    for (char *p = part + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            if (mkdir(part, 0755) && errno != EEXIST)
                return error_errno(err, errno, "%s", part);
            *p = '/';
        }
    if (mkdir(part, mode) == 0)
        return 0;
    struct stat st;
    if (errno != EEXIST || stat(part, &st))
        return error_errno(err, errno, "%s", part);
    return S_ISDIR(st.st_mode) ? 0 : error_errno(err, ENOTDIR, "%s", part);
}

int dbdir_instance(const char *instance, char *dir, size_t dir_size, char *run_dir, size_t run_size,
                   char *name, size_t name_size, struct azoth_error *err)
{
    const char *colon = strchr(instance, ':');
    char db[AZOTH_NAME_MAX + 1];
    size_t len = colon ? (size_t)(colon - instance) : strlen(instance);
    if (len < 1 || len >= sizeof db)
        return error_set(err, AZOTH_ERR_USAGE, "%s: an instance is DATABASE or DATABASE:NAME",
                         instance);
    memcpy(db, instance, len);
    db[len] = 0;
    if (!dbdir_name_valid(db))
        return error_set(err, AZOTH_ERR_USAGE, "%s: a database's name has letters, digits, _ and -",
                         db);
    const char *rest = colon ? colon + 1 : "";
    /* Names become parts of paths. A worker's may begin with a digit. */
    if (colon && !parts_valid(rest))
        return error_set(err, AZOTH_ERR_USAGE,
                         "%s: a name after a colon has 1 to %u letters, digits, _ and -", instance,
                         AZOTH_NAME_MAX);
    if ((size_t)snprintf(dir, dir_size, "/var/lib/azoth/%s", db) >= dir_size ||
        (size_t)snprintf(run_dir, run_size, "/run/azoth/%s", db) >= run_size ||
        (size_t)snprintf(name, name_size, "%s", rest) >= name_size)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", instance);
    return 0;
}
