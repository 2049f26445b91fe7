#include "projector/tablefile.h"

#include "projector/generation.h"
#include "projector/migrate.h"
#include "projector/split.h"
#include "projector/sql_pg.h"
#include "projector/target.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/dbdir.h"
#include "core/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

int tablefile_run(struct tablefile *f, const char *sql, struct azoth_error *err)
{
    return sql_exec(f->sql, sql) ? sql_error(f->sql, err, f->path) : 0;
}

int tablefile_prepare(struct tablefile *f, const char *sql, struct sql_stmt **ret,
                      struct azoth_error *err)
{
    return sql_prepare(f->sql, sql, ret) ? sql_error(f->sql, err, f->path) : 0;
}

/* ---- statements of a block ---- */

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

int tablefile_next(struct tablefile *f, struct sql_cursor *c, struct sql_stmt **ret,
                   struct azoth_error *err)
{
    const struct azoth_bytes t = c->block->text;
    const char *start = t.ptr;
    uint32_t line, column;
    size_t used, wrong;
    for (;;) {
        c->at = c->from = skip_blank(t, c->at);
        if (c->at >= t.len)
            return 0;
        sqlfile_position(c->block, c->at, &c->line, &column);
        if (sql_prepare_first(f->sql, bytes_of(start + c->at, t.len - c->at), ret, &used, &wrong)) {
            sqlfile_position(c->block, c->at + wrong, &line, &column);
            if (sql_is_machine(f->sql))
                return sql_error(f->sql, err, f->path);
            return error_foreign(err, AZOTH_ERR_PROJECTION, sql_code(f->sql), "%s:%u:%u: %s",
                                 c->path, line, column, sql_message(f->sql));
        }
        c->at += used;
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

int64_t table_makers(const struct sqlfile *def, const struct table_options *o, uint64_t library)
{
    const char *by = table_shard_by(def, o);
    uint64_t sum = def->checksum;
    if (library)
        sum = XXH3_64bits_withSeed(&library, sizeof library, sum);
    return (int64_t)(*by ? XXH3_64bits_withSeed(by, strlen(by), sum) : sum);
}

static int insert_identity(struct tablefile *f, const struct sqlfile *def,
                           const struct table_options *o, struct azoth_error *err)
{
    static const uint8_t none[16];
    struct sql_stmt *s;
    int rc = tablefile_prepare(
        f, "INSERT INTO azoth_projection VALUES (1, ?1, ?2, 0, 0, ?3, ?4, ?5, 1)", &s, err);
    if (rc)
        return rc;
    sql_bind_text(s, 0, bytes_str(def->name));
    sql_bind_blob(s, 1, bytes_of(o->uuid ? o->uuid : none, 16));
    sql_bind_int64(s, 2, f->makers);
    sql_bind_int64(s, 3, o->shard);
    sql_bind_int64(s, 4, o->shards);
    rc = sql_run(f->sql, s, err, f->path);
    sql_finalize(s);
    return rc;
}

/* How the rows are made anew. */
static const char *anew(const struct sqlfile *def)
{
    return def->target == TARGET_POSTGRESQL ? "a projector behind DROP SCHEMA"
                                            : "azoth projection rebuild";
}

static int check_identity(struct tablefile *f, struct sql_stmt *s, const struct sqlfile *def,
                          const struct table_options *o, int any_handlers, struct azoth_error *err)
{
    const char *name = sql_text(s, 0);
    if (sql_int64(s, 7) != 1)
        return error_set(err, AZOTH_ERR_FORMAT, "%s: format %lld", f->path,
                         (long long)sql_int64(s, 7));
    if (!name || strcmp(name, def->name) != 0)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s: it is of projection %.63s, not %s",
                         f->path, name ? name : "?", def->name);
    if (o->uuid && !bytes_eq(sql_bytes(s, 1), bytes_of(o->uuid, 16)))
        return error_set(err, AZOTH_ERR_DIVERGED,
                         "%s: it follows another database: %s %s projects this one", f->path,
                         anew(def), def->name);
    if ((uint32_t)sql_int64(s, 5) != o->shard || (uint32_t)sql_int64(s, 6) != o->shards)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s: it is shard %lld of %lld", f->path,
                         (long long)sql_int64(s, 5), (long long)sql_int64(s, 6));
    if (sql_int64(s, 4) != f->makers && !o->accept_changed && !any_handlers && sql_int64(s, 2) > 0)
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s: the handlers differ from those that made the rows up to event %lld: "
                         "%s %s makes them anew%s, --accept-changed goes on with these",
                         def->path, (long long)sql_int64(s, 2), anew(def), def->name,
                         def->target == TARGET_POSTGRESQL ? "" : " beside these");
    return 0;
}

static int identity(struct tablefile *f, const struct sqlfile *def, const struct table_options *o,
                    int any_handlers, uint64_t *ret_cursor, uint32_t *ret_check,
                    struct azoth_error *err)
{
    struct sql_stmt *s;
    int rc = tablefile_run(f, own_tables, err);
    if (!rc)
        rc = tablefile_prepare(f,
                               "SELECT name, uuid, cursor, cursor_check, handlers, shard, shards, "
                               "format FROM azoth_projection",
                               &s, err);
    if (rc)
        return rc;
    int step = sql_step(s);
    *ret_cursor = 0;
    *ret_check = 0;
    if (step == SQL_ROW) {
        rc = check_identity(f, s, def, o, any_handlers, err);
        *ret_cursor = (uint64_t)sql_int64(s, 2);
        *ret_check = (uint32_t)sql_int64(s, 3);
    } else if (step == SQL_DONE && any_handlers) {
        rc =
            error_set(err, AZOTH_ERR_NOT_FOUND, "%s: it is empty: the projector fills it", f->path);
    } else if (step == SQL_DONE) {
        rc = insert_identity(f, def, o, err);
    } else {
        rc = sql_error(f->sql, err, f->path);
    }
    sql_finalize(s);
    if (!rc && o->accept_changed) {
        char sql[120];
        snprintf(sql, sizeof sql, "UPDATE azoth_projection SET handlers = %" PRId64, f->makers);
        rc = tablefile_run(f, sql, err);
    }
    return rc;
}

/* ---- the file ---- */

/* make: also what is not there yet. */
static int open_server(struct tablefile *f, const struct sqlfile *def,
                       const struct table_options *o, int make, struct azoth_error *err)
{
    char conninfo[SQLFILE_CONNINFO_MAX + 1];
    if (o->shards > 1)
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s: a projection in PostgreSQL is not split: start one projector",
                         def->path);
    if (o->file)
        return error_set(
            err, AZOTH_ERR_UNSUPPORTED,
            "%s: its rows are in PostgreSQL, and only SQLite files are filled beside those "
            "that serve: to make them anew rename the projection, or drop its schema",
            def->path);
    snprintf(f->path, sizeof f->path, "PostgreSQL, schema %s", def->name);
    int rc = target_conninfo(def, o->dir, o->postgresql, conninfo, err);
    return rc ? rc
              : sql_pg_open(conninfo, def->name, make ? SQL_PG_PROJECT : SQL_PG_CHANGE, &f->sql,
                            err);
}

static int open_file(struct tablefile *f, const struct sqlfile *def, const struct table_options *o,
                     int make, struct azoth_error *err)
{
    int rc = 0;
    f->shard = o->shard;
    f->shards = o->shards;
    f->makers = table_makers(def, o, f->library);
    if (def->target == TARGET_POSTGRESQL)
        return open_server(f, def, o, make, err);
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
    rc = sql_sqlite_open(f->path, &f->sql, err);
    if (!rc)
        f->db = sql_sqlite_handle(f->sql);
    return rc;
}

int tablefile_open(struct tablefile *f, const struct sqlfile *def, const struct table_options *o,
                   uint64_t *ret_cursor, uint32_t *ret_check, struct azoth_error *err)
{
    int rc = open_file(f, def, o, 1, err);
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
    int rc = open_file(f, def, o, 0, err);
    return rc ? rc : identity(f, def, o, 1, &cursor, &check, err);
}

void tablefile_close(struct tablefile *f)
{
    sql_close(f->sql);
    f->sql = NULL;
    f->db = NULL;
    if (f->lock_fd >= 0)
        close(f->lock_fd);
    f->lock_fd = -1;
}

/* ---- reading ---- */

void query_value_of(sqlite3_stmt *s, int i, struct query_value *ret)
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
            query_value_of(s, i, &values[i]);
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
int query_attach(sqlite3 *db, const char *path, const char *schema)
{
    char sql[40];
    sqlite3_stmt *s = NULL;
    snprintf(sql, sizeof sql, "ATTACH ? AS %s", schema);
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

int query_open_shards(const char *dir, const char *name, uint32_t from, uint32_t to,
                      uint32_t shards, sqlite3 **ret, char *ret_path, size_t path_size)
{
    int rc = SQLITE_OK;
    for (uint32_t i = from; rc == SQLITE_OK && i < to; i++) {
        char stem[SPLIT_STEM], schema[20];
        split_stem(stem, name, i, shards);
        snprintf(schema, sizeof schema, "shard_%u", i);
        snprintf(ret_path, path_size, "%s/%s.db", dir, stem);
        rc = i == from ? open_read_only(ret_path, ret) : query_attach(*ret, ret_path, schema);
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
    int rc = query_open_shards(dir, name, from, to, shards, &db, path, sizeof path);
    if (rc == SQLITE_OK && to - from > 1)
        rc = unite(db, shards);
    if (rc == SQLITE_OK)
        rc = run_one(db, sql, row, arg);
    rc = query_result(db, path, rc, err);
    sqlite3_close(db);
    return rc;
}

/* Of a projection on a server, which is unsplit. */
static int query_server(const char *conninfo, const char *name, const char *sql, query_row row,
                        void *arg, struct azoth_error *err)
{
    struct sql_db *db = NULL;
    int rc = sql_pg_open(conninfo, name, SQL_PG_READ, &db, err);
    if (!rc)
        rc = sql_pg_query(db, sql, row, arg, err);
    sql_close(db);
    return rc;
}

int query_run_shard(const char *dir, const char *name, uint32_t shard, uint32_t shards,
                    const char *sql, query_row row, void *arg, struct azoth_error *err)
{
    char stem[SPLIT_STEM], path[4400], conninfo[SQLFILE_CONNINFO_MAX + 1];
    int server =
        shards == 1 && dbdir_name_valid(name) ? target_is_server(dir, name, conninfo, err) : 0;
    if (server)
        return server < 0 ? server : query_server(conninfo, name, sql, row, arg, err);
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
    char conninfo[SQLFILE_CONNINFO_MAX + 1];
    if (!dbdir_name_valid(name))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "there is no projection %s here", name);
    int rc = target_is_server(dir, name, conninfo, err);
    if (rc)
        return rc < 0 ? rc : query_server(conninfo, name, sql, row, arg, err);
    rc = split_serving(dir, name, &shards, err);
    return rc ? rc : query_shards(dir, name, 0, shards, shards, sql, row, arg, err);
}
