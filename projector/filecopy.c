#include "projector/filecopy.h"

#include "core/buf.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/record.h"
#include "projector/split.h"
#include "projector/tablefile.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define STEP_PAGES 512

/* ---- names ---- */

int filecopy_parse(const char *file, char *ret_stem, size_t size, uint64_t *ret_n)
{
    size_t n = strlen(file);
    if (n < 6 || n >= size || strcmp(file + n - 3, ".db") != 0)
        return 0;
    size_t digits = 0, end = n - 3;
    while (digits < end && file[end - digits - 1] >= '0' && file[end - digits - 1] <= '9')
        digits++;
    size_t g = end - digits;
    if (!digits || digits > 18 || g < 3 || file[end - digits] == '0' ||
        strncmp(file + g - 2, ".g", 2) != 0)
        return 0;
    memcpy(ret_stem, file, g - 2);
    ret_stem[g - 2] = 0;
    if (strspn(ret_stem, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") !=
            g - 2 ||
        ret_stem[0] == '.')
        return 0;
    *ret_n = strtoull(file + end - digits, NULL, 10);
    return 1;
}

static int is_generation(const struct dirent *e)
{
    char stem[256];
    uint64_t n;
    return filecopy_parse(e->d_name, stem, sizeof stem, &n);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int filecopy_each(const char *dir, filecopy_fn fn, void *arg, struct azoth_error *err)
{
    struct dirent **list = NULL;
    int n = scandir(dir, &list, is_generation, by_name), rc = 0;
    if (n < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", dir);
    for (int i = 0; i < n; i++) {
        char stem[256];
        uint64_t number;
        if (!rc && filecopy_parse(list[i]->d_name, stem, sizeof stem, &number))
            rc = fn(arg, list[i]->d_name, stem, number);
        free(list[i]);
    }
    free(list);
    return rc;
}

/* ---- opening and looking ---- */

static int open_flags(const char *path, int flags, sqlite3 **ret, struct azoth_error *err)
{
    int rc = sqlite3_open_v2(path, ret, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(*ret, 2000);
        return 0;
    }
    rc = *ret ? sqlite_error(*ret, err, path) : error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    sqlite3_close(*ret);
    *ret = NULL;
    return rc;
}

static int prepare(sqlite3 *db, const char *path, const char *sql, sqlite3_stmt **ret,
                   struct azoth_error *err)
{
    return sqlite3_prepare_v2(db, sql, -1, ret, NULL) == SQLITE_OK ? 0
                                                                   : sqlite_error(db, err, path);
}

static int no_rows(const char *path, struct azoth_error *err)
{
    return error_set(err, AZOTH_ERR_NOT_FOUND, "%s: no projector has filled it yet", path);
}

/* Whether a projector has made its own tables. */
static int has_table(sqlite3 *db, const char *path, struct azoth_error *err)
{
    sqlite3_stmt *s;
    int rc = prepare(db, path,
                     "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = "
                     "'azoth_projection'",
                     &s, err);
    if (rc)
        return rc;
    int step = sqlite3_step(s);
    rc = step == SQLITE_ROW    ? 0
         : step == SQLITE_DONE ? no_rows(path, err)
                               : sqlite_error(db, err, path);
    sqlite3_finalize(s);
    return rc;
}

/* Also begins the read transaction, if one is to be begun. */
static int look(sqlite3 *db, const char *path, struct filecopy *ret, struct azoth_error *err)
{
    sqlite3_stmt *s;
    int rc = has_table(db, path, err);
    if (!rc)
        rc = prepare(db, path,
                     "SELECT name, uuid, cursor, cursor_check, shard, shards FROM azoth_projection",
                     &s, err);
    if (rc)
        return rc;
    int step = sqlite3_step(s);
    if (step == SQLITE_ROW && sqlite3_column_bytes(s, 1) == 16 && sqlite3_column_text(s, 0)) {
        *ret = (struct filecopy){.cursor = (uint64_t)sqlite3_column_int64(s, 2),
                                 .cursor_check = (uint32_t)sqlite3_column_int64(s, 3),
                                 .shard = (uint32_t)sqlite3_column_int64(s, 4),
                                 .shards = (uint32_t)sqlite3_column_int64(s, 5)};
        snprintf(ret->name, sizeof ret->name, "%s", (const char *)sqlite3_column_text(s, 0));
        memcpy(ret->uuid, sqlite3_column_blob(s, 1), 16);
    } else if (step == SQLITE_ROW) {
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s: it does not say which database it follows",
                       path);
    } else {
        rc = step == SQLITE_DONE ? no_rows(path, err) : sqlite_error(db, err, path);
    }
    sqlite3_finalize(s);
    return rc;
}

static int check_pages(sqlite3 *db, const char *path, struct azoth_error *err)
{
    sqlite3_stmt *s;
    int rc = prepare(db, path, "PRAGMA integrity_check(1)", &s, err);
    if (rc)
        return rc;
    if (sqlite3_step(s) != SQLITE_ROW)
        rc = sqlite_error(db, err, path);
    else if (strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s: %.150s", path, sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    return rc;
}

int filecopy_look(const char *path, int deep, struct filecopy *ret, struct azoth_error *err)
{
    sqlite3 *db = NULL;
    int rc = open_flags(path, SQLITE_OPEN_READWRITE, &db, err);
    if (rc)
        return rc;
    rc = look(db, path, ret, err);
    if (!rc && deep)
        rc = check_pages(db, path, err);
    sqlite3_close(db);
    return rc;
}

int filecopy_follow(const char *path, const uint8_t uuid[16], struct azoth_error *err)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *s;
    int rc = open_flags(path, SQLITE_OPEN_READWRITE, &db, err);
    if (rc)
        return rc;
    rc = prepare(db, path, "UPDATE azoth_projection SET uuid = ?", &s, err);
    if (!rc) {
        sqlite3_bind_blob(s, 1, uuid, 16, SQLITE_STATIC);
        if (sqlite3_step(s) != SQLITE_DONE)
            rc = sqlite_error(db, err, path);
        sqlite3_finalize(s);
    }
    if (!rc && sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL))
        rc = sqlite_error(db, err, path);
    sqlite3_close(db);
    return rc;
}

/* ---- copying ---- */

static int run_backup(sqlite3 *from, sqlite3 *to, const char *path, int (*stop)(void),
                      struct azoth_error *err)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
    int step = SQLITE_OK, rc = 0;
    while (b && (step == SQLITE_OK || step == SQLITE_BUSY || step == SQLITE_LOCKED) && !rc) {
        step = sqlite3_backup_step(b, STEP_PAGES);
        if (stop && stop())
            rc = 1;
    }
    sqlite3_backup_finish(b);
    if (!rc && (!b || step != SQLITE_DONE))
        rc = sqlite_error(to, err, path);
    return rc;
}

static int copy_into(sqlite3 *from, const char *to, int (*stop)(void), struct azoth_error *err)
{
    sqlite3 *db = NULL;
    int rc = open_flags(to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db, err);
    if (rc)
        return rc;
    /* What a death leaves of it is thrown away. */
    if (sqlite3_exec(db, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", NULL, NULL, NULL))
        rc = sqlite_error(db, err, to);
    if (!rc)
        rc = run_backup(from, db, to, stop, err);
    sqlite3_close(db);
    return rc;
}

int filecopy_make(const char *from, const char *to, int (*stop)(void), struct filecopy *ret,
                  struct azoth_error *err)
{
    sqlite3 *db = NULL;
    struct filecopy of_source = {0}, of_copy = {0};
    if (access(from, F_OK))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "%s: there is no such file", from);
    int rc = open_flags(from, SQLITE_OPEN_READONLY, &db, err);
    if (rc)
        return rc;
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    /* Without a transaction of its own every commit of the projector would let the copy begin anew. */
    if (sqlite3_exec(db, "BEGIN", NULL, NULL, NULL))
        rc = sqlite_error(db, err, from);
    if (!rc)
        rc = look(db, from, &of_source, err);
    if (!rc)
        rc = copy_into(db, to, stop, err);
    sqlite3_close(db);
    if (!rc)
        rc = filecopy_look(to, 0, &of_copy, err);
    if (!rc && of_copy.cursor != of_source.cursor)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s: its copy has another cursor", from);
    if (rc)
        unlink(to);
    else
        *ret = of_copy;
    return rc;
}

/* ---- digest ---- */

static void sum_u64(struct hash *sum, uint64_t n)
{
    unsigned char b[8];
    put_u64(b, n);
    hash_add(sum, b, sizeof b);
}

static void sum_bytes(struct hash *sum, const void *p, int n)
{
    sum_u64(sum, (uint64_t)n);
    if (n)
        hash_add(sum, p, (size_t)n);
}

static void sum_value(struct hash *sum, sqlite3_stmt *s, int i)
{
    int type = sqlite3_column_type(s, i);
    double real;
    uint64_t bits;
    sum_u64(sum, (uint64_t)type);
    switch (type) {
    case SQLITE_INTEGER:
        sum_u64(sum, (uint64_t)sqlite3_column_int64(s, i));
        break;
    case SQLITE_FLOAT:
        real = sqlite3_column_double(s, i);
        memcpy(&bits, &real, sizeof bits);
        sum_u64(sum, bits);
        break;
    case SQLITE_TEXT:
        sum_bytes(sum, sqlite3_column_text(s, i), sqlite3_column_bytes(s, i));
        break;
    case SQLITE_BLOB:
        sum_bytes(sum, sqlite3_column_blob(s, i), sqlite3_column_bytes(s, i));
        break;
    default:
        break;
    }
}

/* "SELECT * FROM t ORDER BY ...": the primary key's columns in their order, or else all; byte by byte. */
static char *ordered(sqlite3 *db, const char *table)
{
    sqlite3_stmt *s = NULL;
    sqlite3_str *sql = sqlite3_str_new(db);
    int n = 0;
    sqlite3_str_appendf(sql, "SELECT * FROM \"%w\"", table);
    char *columns = sqlite3_mprintf("SELECT name FROM pragma_table_info(%Q) WHERE pk > 0 OR NOT "
                                    "EXISTS (SELECT 1 FROM pragma_table_info(%Q) WHERE pk > 0) "
                                    "ORDER BY pk, cid",
                                    table, table);
    if (columns && sqlite3_prepare_v2(db, columns, -1, &s, NULL) == SQLITE_OK)
        while (sqlite3_step(s) == SQLITE_ROW)
            sqlite3_str_appendf(sql, "%s\"%w\" COLLATE BINARY", n++ ? ", " : " ORDER BY ",
                                sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    sqlite3_free(columns);
    return sqlite3_str_finish(sql);
}

static int sum_table(sqlite3 *db, const char *path, const char *table, struct hash *sum,
                     struct azoth_error *err)
{
    sqlite3_stmt *s;
    char *sql = ordered(db, table);
    if (!sql)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    int rc = prepare(db, path, sql, &s, err), step = SQLITE_ROW;
    sqlite3_free(sql);
    if (rc)
        return rc;
    uint64_t rows = 0;
    int n = sqlite3_column_count(s);
    sum_bytes(sum, table, (int)strlen(table));
    for (int i = 0; i < n; i++)
        sum_bytes(sum, sqlite3_column_name(s, i), (int)strlen(sqlite3_column_name(s, i)));
    for (; (step = sqlite3_step(s)) == SQLITE_ROW; rows++)
        for (int i = 0; i < n; i++)
            sum_value(sum, s, i);
    sum_u64(sum, rows);
    if (step != SQLITE_DONE)
        rc = sqlite_error(db, err, path);
    sqlite3_finalize(s);
    return rc;
}

int filecopy_digest(const char *path, unsigned char ret[32], struct azoth_error *err)
{
    static const char tables[] =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE "
        "'\\' AND name NOT LIKE 'azoth\\_%' ESCAPE '\\' ORDER BY name COLLATE BINARY";
    struct hash sum;
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    hash_begin(&sum);
    int rc = open_flags(path, SQLITE_OPEN_READWRITE, &db, err);
    if (rc)
        return rc;
    rc = prepare(db, path, tables, &s, err);
    while (!rc && sqlite3_step(s) == SQLITE_ROW)
        rc = sum_table(db, path, (const char *)sqlite3_column_text(s, 0), &sum, err);
    sqlite3_finalize(s);
    sqlite3_close(db);
    if (!rc)
        hash_end(&sum, ret);
    return rc;
}
