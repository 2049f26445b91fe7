#include "projector/tablefile.h"

#include "projector/generation.h"
#include "projector/migrate.h"
#include "projector/split.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/dbdir.h"
#include "core/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define WAL_LIMIT_BYTES 67108864

int sqlite_error(sqlite3 *db, struct azoth_error *err, const char *what)
{
    int code = AZOTH_ERR_IO, rc = sqlite3_errcode(db);
    switch (rc & 0xff) {
    case SQLITE_FULL:
        code = AZOTH_ERR_NOSPACE;
        break;
    case SQLITE_NOMEM:
        code = AZOTH_ERR_NOMEM;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        code = AZOTH_ERR_CORRUPT;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        code = AZOTH_ERR_BUSY;
        break;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        code = AZOTH_ERR_PERMISSION;
        break;
    default:
        break;
    }
    if ((rc & 0xff) == SQLITE_IOERR && sqlite3_system_errno(db) == ENOSPC)
        code = AZOTH_ERR_NOSPACE;
    return error_foreign(err, code, sqlite3_extended_errcode(db), "%s: %s", what,
                         sqlite3_errmsg(db));
}

int tablefile_run(struct tablefile *f, const char *sql, struct azoth_error *err)
{
    if (sqlite3_exec(f->db, sql, NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    return sqlite_error(f->db, err, f->path);
}

/* ---- what a definition may not do ---- */

static int own_name(const char *name)
{
    return name && sqlite3_strnicmp(name, "azoth_", 6) == 0;
}

static int authorize(void *arg, int action, const char *a, const char *b, const char *c,
                     const char *d)
{
    (void)arg;
    (void)c;
    (void)d;
    switch (action) {
    case SQLITE_TRANSACTION: /* the cursor must stay in the rows' transaction */
    case SQLITE_SAVEPOINT:
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
    case SQLITE_PRAGMA:
        return SQLITE_DENY;
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
    case SQLITE_DROP_TABLE:
    case SQLITE_CREATE_TABLE:
    case SQLITE_CREATE_VIEW:
    case SQLITE_CREATE_VTABLE:
        return own_name(a) ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_CREATE_TRIGGER: /* b is the table: a trigger on the cursor would run with it */
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_INDEX:
    case SQLITE_ALTER_TABLE:
        return own_name(b) ? SQLITE_DENY : SQLITE_OK;
    default:
        return SQLITE_OK;
    }
}

void tablefile_guard(struct tablefile *f, int on)
{
    sqlite3_set_authorizer(f->db, on ? authorize : NULL, NULL);
}

/* ---- statements of a block ---- */

static void position(const struct sql_block *b, size_t at, uint32_t *ret_line, uint32_t *ret_column)
{
    const char *p = b->text.ptr;
    *ret_line = b->line;
    *ret_column = 1;
    for (size_t i = 0; i < at && i < b->text.len; i++) {
        ++*ret_column;
        if (p[i] == '\n') {
            ++*ret_line;
            *ret_column = 1;
        }
    }
}

/* Over white space and comments, so that a statement's line is that of its first word. */
static size_t skip_blank(struct azoth_bytes t, size_t at)
{
    const char *p = t.ptr;
    for (;;) {
        while (at < t.len &&
               (p[at] == ' ' || p[at] == '\t' || p[at] == '\n' || p[at] == '\r' || p[at] == ';'))
            at++;
        if (at + 1 < t.len && p[at] == '-' && p[at + 1] == '-') {
            while (at < t.len && p[at] != '\n')
                at++;
        } else {
            return at;
        }
    }
}

int tablefile_next(struct tablefile *f, struct sql_cursor *c, sqlite3_stmt **ret,
                   struct azoth_error *err)
{
    const struct azoth_bytes t = c->block->text;
    const char *start = t.ptr, *tail;
    uint32_t column;
    for (;;) {
        c->at = skip_blank(t, c->at);
        if (c->at >= t.len)
            return 0;
        position(c->block, c->at, &c->line, &column);
        int rc = sqlite3_prepare_v3(f->db, start + c->at, (int)(t.len - c->at),
                                    SQLITE_PREPARE_PERSISTENT, ret, &tail);
        if (rc != SQLITE_OK) {
            int offset = sqlite3_error_offset(f->db);
            uint32_t line;
            position(c->block, c->at + (offset > 0 ? (size_t)offset : 0), &line, &column);
            return error_foreign(err, AZOTH_ERR_PROJECTION, rc, "%s:%u:%u: %s", c->path, line,
                                 column, sqlite3_errmsg(f->db));
        }
        c->at = (size_t)(tail - start);
        if (*ret)
            return 1;
    }
}

/* ---- identity ---- */

static const char own_tables[] =
    "CREATE TABLE IF NOT EXISTS azoth_projection (id INTEGER PRIMARY KEY CHECK (id = 1),"
    " name TEXT NOT NULL, uuid BLOB NOT NULL, cursor INTEGER NOT NULL, cursor_check INTEGER NOT "
    "NULL,"
    " handlers INTEGER NOT NULL, shard INTEGER NOT NULL, shards INTEGER NOT NULL, format INTEGER "
    "NOT NULL);"
    "CREATE TABLE IF NOT EXISTS azoth_migrations (version INTEGER PRIMARY KEY, title TEXT NOT NULL,"
    " checksum INTEGER NOT NULL, applied_at INTEGER NOT NULL)";

const char *table_shard_by(const struct sqlfile *def, const struct table_options *o)
{
    return o->shards <= 1 ? "" : def->shard_by[0] ? def->shard_by : "@key";
}

int64_t table_makers(const struct sqlfile *def, const struct table_options *o)
{
    const char *by = table_shard_by(def, o);
    return (int64_t)(*by ? XXH3_64bits_withSeed(by, strlen(by), def->checksum) : def->checksum);
}

static int insert_identity(struct tablefile *f, const struct sqlfile *def,
                           const struct table_options *o, struct azoth_error *err)
{
    static const uint8_t none[16];
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(f->db, "INSERT INTO azoth_projection VALUES (1, ?, ?, 0, 0, ?, ?, ?, 1)",
                           -1, &s, NULL))
        return sqlite_error(f->db, err, f->path);
    sqlite3_bind_text(s, 1, def->name, -1, SQLITE_STATIC);
    sqlite3_bind_blob(s, 2, o->uuid ? o->uuid : none, 16, SQLITE_STATIC);
    sqlite3_bind_int64(s, 3, f->makers);
    sqlite3_bind_int64(s, 4, o->shard);
    sqlite3_bind_int64(s, 5, o->shards);
    int rc = sqlite3_step(s) == SQLITE_DONE ? 0 : sqlite_error(f->db, err, f->path);
    sqlite3_finalize(s);
    return rc;
}

static int check_identity(struct tablefile *f, sqlite3_stmt *s, const struct sqlfile *def,
                          const struct table_options *o, int any_handlers, struct azoth_error *err)
{
    const char *name = (const char *)sqlite3_column_text(s, 0);
    if (sqlite3_column_int64(s, 7) != 1)
        return error_set(err, AZOTH_ERR_FORMAT, "%s: format %lld", f->path,
                         (long long)sqlite3_column_int64(s, 7));
    if (!name || strcmp(name, def->name) != 0)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s: it is of projection %.63s, not %s",
                         f->path, name ? name : "?", def->name);
    if (o->uuid &&
        (sqlite3_column_bytes(s, 1) != 16 || memcmp(sqlite3_column_blob(s, 1), o->uuid, 16) != 0))
        return error_set(
            err, AZOTH_ERR_DIVERGED,
            "%s: it follows another database: azoth projection rebuild %s projects this one",
            f->path, def->name);
    if ((uint32_t)sqlite3_column_int64(s, 5) != o->shard ||
        (uint32_t)sqlite3_column_int64(s, 6) != o->shards)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s: it is shard %lld of %lld", f->path,
                         (long long)sqlite3_column_int64(s, 5),
                         (long long)sqlite3_column_int64(s, 6));
    if (sqlite3_column_int64(s, 4) != f->makers && !o->accept_changed && !any_handlers &&
        sqlite3_column_int64(s, 2) > 0)
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s: the handlers differ from those that made the rows up to event %lld: "
                         "azoth projection rebuild %s makes them anew beside these, "
                         "--accept-changed goes on with these",
                         def->path, (long long)sqlite3_column_int64(s, 2), def->name);
    return 0;
}

static int identity(struct tablefile *f, const struct sqlfile *def, const struct table_options *o,
                    int any_handlers, uint64_t *ret_cursor, uint32_t *ret_check,
                    struct azoth_error *err)
{
    sqlite3_stmt *s;
    int rc = tablefile_run(f, own_tables, err);
    if (rc)
        return rc;
    if (sqlite3_prepare_v2(
            f->db,
            "SELECT name, uuid, cursor, cursor_check, handlers, shard, shards, format "
            "FROM azoth_projection",
            -1, &s, NULL))
        return sqlite_error(f->db, err, f->path);
    int step = sqlite3_step(s);
    *ret_cursor = 0;
    *ret_check = 0;
    if (step == SQLITE_ROW) {
        rc = check_identity(f, s, def, o, any_handlers, err);
        *ret_cursor = (uint64_t)sqlite3_column_int64(s, 2);
        *ret_check = (uint32_t)sqlite3_column_int64(s, 3);
    } else if (step == SQLITE_DONE && any_handlers) {
        rc =
            error_set(err, AZOTH_ERR_NOT_FOUND, "%s: it is empty: the projector fills it", f->path);
    } else if (step == SQLITE_DONE) {
        rc = insert_identity(f, def, o, err);
    } else {
        rc = sqlite_error(f->db, err, f->path);
    }
    sqlite3_finalize(s);
    if (!rc && o->accept_changed) {
        char sql[120];
        snprintf(sql, sizeof sql, "UPDATE azoth_projection SET handlers = %" PRId64, f->makers);
        rc = tablefile_run(f, sql, err);
    }
    return rc;
}

/* ---- the file ---- */

static int open_file(struct tablefile *f, const struct sqlfile *def, const struct table_options *o,
                     struct azoth_error *err)
{
    int rc = 0;
    f->shard = o->shard;
    f->shards = o->shards;
    f->makers = table_makers(def, o);
    if (o->file) {
        snprintf(f->path, sizeof f->path, "%s", o->file);
    } else if (o->dir) {
        char stem[SPLIT_STEM];
        uint64_t n;
        split_stem(stem, def->name, o->shard, o->shards);
        rc = generation_lock(o->dir, stem, "", &f->lock_fd, err);
        if (!rc)
            rc = generation_current_or_first(o->dir, stem, &n, err);
        if (!rc)
            rc = generation_path(f->path, sizeof f->path, o->dir, stem, n, err);
    } else {
        snprintf(f->path, sizeof f->path, ":memory:");
    }
    if (rc)
        return rc;
    if (sqlite3_open_v2(f->path, &f->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL))
        return f->db ? sqlite_error(f->db, err, f->path)
                     : error_set(err, AZOTH_ERR_NOMEM, "SQLite");
    sqlite3_busy_timeout(f->db, 2000);
    sqlite3_extended_result_codes(f->db, 1);
    int keep = 1; /* the WAL file stays: readers of another user could not make it again */
    sqlite3_file_control(f->db, NULL, SQLITE_FCNTL_PERSIST_WAL, &keep);
    char pragmas[300];
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA mmap_size = 0;"
             "PRAGMA journal_size_limit = %d; PRAGMA wal_autocheckpoint = 4000;"
             "PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY",
             WAL_LIMIT_BYTES);
    return tablefile_run(f, pragmas, err);
}

int tablefile_open(struct tablefile *f, const struct sqlfile *def, const struct table_options *o,
                   uint64_t *ret_cursor, uint32_t *ret_check, struct azoth_error *err)
{
    int rc = open_file(f, def, o, err);
    CRASH_POINT(projector_file_made);
    if (!rc)
        rc = identity(f, def, o, 0, ret_cursor, ret_check, err);
    CRASH_POINT(projector_identified);
    if (!rc)
        rc = migrations_apply(f, def, NULL, NULL, err);
    return rc;
}

int tablefile_open_any(struct tablefile *f, const struct sqlfile *def,
                       const struct table_options *o, struct azoth_error *err)
{
    uint64_t cursor;
    uint32_t check;
    int rc = open_file(f, def, o, err);
    return rc ? rc : identity(f, def, o, 1, &cursor, &check, err);
}

void tablefile_close(struct tablefile *f)
{
    sqlite3_close(f->db);
    f->db = NULL;
    if (f->lock_fd >= 0)
        close(f->lock_fd);
    f->lock_fd = -1;
}

/* ---- reading ---- */

static void value_of(sqlite3_stmt *s, int i, struct query_value *ret)
{
    static const enum query_type types[] = {[SQLITE_INTEGER] = QUERY_INTEGER,
                                            [SQLITE_FLOAT] = QUERY_REAL,
                                            [SQLITE_TEXT] = QUERY_TEXT,
                                            [SQLITE_BLOB] = QUERY_BLOB,
                                            [SQLITE_NULL] = QUERY_NULL};
    ret->type = types[sqlite3_column_type(s, i)];
    ret->integer = sqlite3_column_int64(s, i);
    ret->real = sqlite3_column_double(s, i);
    const void *p = ret->type == QUERY_TEXT ? (const void *)sqlite3_column_text(s, i)
                                            : sqlite3_column_blob(s, i);
    ret->bytes = bytes_of(p, (size_t)sqlite3_column_bytes(s, i));
}

static int query_rows(sqlite3_stmt *s, query_row row, void *arg)
{
    int n = sqlite3_column_count(s), step, rows = 0, stop = 0;
    const char **names = calloc((size_t)n + 1, sizeof *names);
    struct query_value *values = calloc((size_t)n + 1, sizeof *values);
    if (!names || !values) {
        free(names);
        free(values);
        return SQLITE_NOMEM;
    }
    for (int i = 0; i < n; i++)
        names[i] = sqlite3_column_name(s, i);
    while ((step = sqlite3_step(s)) == SQLITE_ROW && !stop) {
        for (int i = 0; i < n; i++)
            value_of(s, i, &values[i]);
        stop = row(arg, n, names, values);
        rows++;
    }
    if (step == SQLITE_DONE && rows == 0)
        row(arg, n, names, NULL);
    free(names);
    free(values);
    return stop ? SQLITE_DONE : step;
}

/* Inherits that it is read-only. */
static int attach(sqlite3 *db, const char *path, uint32_t shard)
{
    char sql[40];
    sqlite3_stmt *s = NULL;
    snprintf(sql, sizeof sql, "ATTACH ? AS shard_%u", shard);
    int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);
    if (rc != SQLITE_OK)
        return rc;
    sqlite3_bind_text(s, 1, path, -1, SQLITE_STATIC);
    sqlite3_step(s);
    return sqlite3_finalize(s);
}

static int open_read_only(const char *path, sqlite3 **ret)
{
    int rc = sqlite3_open_v2(path, ret, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return rc;
    sqlite3_busy_timeout(*ret, 2000);
    return sqlite3_db_config(*ret, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

/* The first one's file, and the others beside it; ret_path is for messages. */
static int open_shards(const char *dir, const char *name, uint32_t from, uint32_t to,
                       uint32_t shards, sqlite3 **ret, char *ret_path, size_t path_size)
{
    int rc = SQLITE_OK;
    for (uint32_t i = from; rc == SQLITE_OK && i < to; i++) {
        char stem[SPLIT_STEM];
        split_stem(stem, name, i, shards);
        snprintf(ret_path, path_size, "%s/%s.db", dir, stem);
        rc = i == from ? open_read_only(ret_path, ret) : attach(*ret, ret_path, i);
    }
    return rc;
}

/* A view that shadows the first shard's table, since names are looked for in temp first. */
static int unite_table(sqlite3 *db, const char *name, uint32_t shards)
{
    char *sql = sqlite3_mprintf("CREATE TEMP VIEW \"%w\" AS SELECT * FROM main.\"%w\"", name, name);
    for (uint32_t i = 1; sql && i < shards; i++) {
        char *more = sqlite3_mprintf("%s UNION ALL SELECT * FROM shard_%u.\"%w\"", sql, i, name);
        sqlite3_free(sql);
        sql = more;
    }
    int rc = sql ? sqlite3_exec(db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
    sqlite3_free(sql);
    return rc;
}

/* SQLite keeps its text as CREATE VIEW and what follows; its tables' names are those of all shards. */
static int unite_view(sqlite3 *db, const char *text)
{
    char *sql = sqlite3_mprintf("CREATE TEMP%s", text + strlen("CREATE"));
    int rc = sql ? sqlite3_exec(db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
    sqlite3_free(sql);
    return rc;
}

static int unite(sqlite3 *db, uint32_t shards)
{
    sqlite3_stmt *s;
    int rc = sqlite3_prepare_v2(db,
                                "SELECT type, name, sql FROM main.sqlite_master WHERE type IN "
                                "('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
                                "ORDER BY type, rowid",
                                -1, &s, NULL);
    while (rc == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) {
        const char *type = (const char *)sqlite3_column_text(s, 0);
        if (strcmp(type, "table") == 0)
            rc = unite_table(db, (const char *)sqlite3_column_text(s, 1), shards);
        else
            rc = unite_view(db, (const char *)sqlite3_column_text(s, 2));
    }
    int ended = sqlite3_finalize(s);
    return rc == SQLITE_OK ? ended : rc;
}

static int run_one(sqlite3 *db, const char *sql, query_row row, void *arg)
{
    sqlite3_stmt *s = NULL;
    const char *tail = "";
    sqlite3_exec(db, "PRAGMA query_only = ON", NULL, NULL, NULL);
    int rc = sqlite3_prepare_v2(db, sql, -1, &s, &tail);
    if (rc == SQLITE_OK && (!s || tail[strspn(tail, " \t\r\n;")]))
        rc = SQLITE_MISUSE;
    if (rc == SQLITE_OK && (rc = query_rows(s, row, arg)) == SQLITE_DONE)
        rc = SQLITE_OK;
    sqlite3_finalize(s);
    return rc;
}

static int query_result(sqlite3 *db, const char *path, int rc, struct azoth_error *err)
{
    if (rc == SQLITE_MISUSE)
        return error_set(err, AZOTH_ERR_USAGE, "one SQL statement is wanted");
    if ((rc & 0xff) == SQLITE_ERROR || (rc & 0xff) == SQLITE_READONLY)
        return error_foreign(err, AZOTH_ERR_USAGE, rc, "%s", sqlite3_errmsg(db));
    return rc == SQLITE_OK ? 0 : sqlite_error(db, err, path);
}

static int query_shards(const char *dir, const char *name, uint32_t from, uint32_t to,
                        uint32_t shards, const char *sql, query_row row, void *arg,
                        struct azoth_error *err)
{
    char path[4400];
    sqlite3 *db = NULL;
    int rc = open_shards(dir, name, from, to, shards, &db, path, sizeof path);
    if (rc == SQLITE_OK && to - from > 1)
        rc = unite(db, shards);
    if (rc == SQLITE_OK)
        rc = run_one(db, sql, row, arg);
    rc = query_result(db, path, rc, err);
    sqlite3_close(db);
    return rc;
}

int query_run_shard(const char *dir, const char *name, uint32_t shard, uint32_t shards,
                    const char *sql, query_row row, void *arg, struct azoth_error *err)
{
    char stem[SPLIT_STEM], path[4400];
    split_stem(stem, name, shard, shards);
    snprintf(path, sizeof path, "%s/%s.db", dir, stem);
    if (!dbdir_name_valid(name) || access(path, F_OK))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "there is no projection %s here", stem);
    return query_shards(dir, name, shard, shard + 1, shards, sql, row, arg, err);
}

int query_run_file(const char *path, const char *sql, query_row row, void *arg,
                   struct azoth_error *err)
{
    sqlite3 *db = NULL;
    int rc = open_read_only(path, &db);
    if (rc == SQLITE_OK)
        rc = run_one(db, sql, row, arg);
    rc = query_result(db, path, rc, err);
    sqlite3_close(db);
    return rc;
}

int query_run(const char *dir, const char *name, const char *sql, query_row row, void *arg,
              struct azoth_error *err)
{
    uint32_t shards = 1;
    if (!dbdir_name_valid(name))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "there is no projection %s here", name);
    int rc = split_serving(dir, name, &shards, err);
    return rc ? rc : query_shards(dir, name, 0, shards, shards, sql, row, arg, err);
}
