/* sql_sqlite.c - a projection's statements on SQLite. Thin: every event goes through here. */
#include "projector/sql_sqlite.h"

#include "core/clock.h"
#include "core/error.h"
#include "projector/sqlfile.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/*
 * Passive checkpoints: every so many commits once the WAL has so many pages (16 MB; in between it may
 * grow to the size that it is cut back to). Not at every commit, as SQLite would: under a long reader
 * each try syncs and gains nothing.
 */
#define WAL_PAGES_MAX      4000
#define CHECKPOINT_COMMITS 16u
#define WAL_LIMIT_BYTES    67108864

struct connection {
    struct sql_db base;
    sqlite3 *db;
    int wal_used;  /* since it was truncated */
    int wal_pages; /* after the last commit */
    uint32_t commits_since_checkpoint;
    int copied; /* frames that the last checkpoint left copied */
    uint64_t
        pinned_ns; /* running time: since when a reader has kept the next one from being; 0: none does */
    int no_memory; /* the last statement that was prepared: SQLite does not know */
    char wal_path[4408];
};

struct prepared {
    struct sql_stmt base;
    int unbound; /* a value could not be bound */
    sqlite3_stmt *s;
};

static sqlite3 *db_of(struct sql_db *db)
{
    return ((struct connection *)db)->db;
}

static sqlite3_stmt *stmt_of(struct sql_stmt *s)
{
    return ((struct prepared *)s)->s;
}

static int done(int rc)
{
    return rc == SQLITE_OK ? 0 : SQL_FAILED;
}

/* ---- errors ---- */

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

static int db_error(struct sql_db *db, struct azoth_error *err, const char *what)
{
    if (((struct connection *)db)->no_memory)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", what);
    return sqlite_error(db_of(db), err, what);
}

static int db_code(struct sql_db *db)
{
    return sqlite3_extended_errcode(db_of(db));
}

static const char *db_message(struct sql_db *db)
{
    return sqlite3_errmsg(db_of(db));
}

static int db_is_machine(struct sql_db *db)
{
    switch (sqlite3_errcode(db_of(db)) & 0xff) {
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_NOMEM:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
    case SQLITE_NOLFS:
    case SQLITE_INTERRUPT:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return 1;
    default:
        return 0;
    }
}

/* A busy file was waited for already. */
static int db_is_transient(struct sql_db *db)
{
    (void)db;
    return 0;
}

/* ---- the connection ---- */

static void db_close(struct sql_db *db)
{
    sqlite3_close(db_of(db));
    free(db);
}

static int db_exec(struct sql_db *db, const char *sql)
{
    return done(sqlite3_exec(db_of(db), sql, NULL, NULL, NULL));
}

static int own_name(const char *name)
{
    return name && sqlite3_strnicmp(name, "azoth_", 6) == 0;
}

static int authorize(void *arg, int action, const char *a, const char *b, const char *c,
                     const char *d)
{
    const int *on = arg; /* NULL: always */
    (void)c;
    (void)d;
    if (on && !*on)
        return SQLITE_OK;
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

static void db_guard(struct sql_db *db, int on)
{
    sqlite3_set_authorizer(db_of(db), on ? authorize : NULL, NULL);
}

void sql_sqlite_guard_while(struct sql_db *db, const int *on)
{
    /* Set once: setting it makes SQLite prepare every statement anew. */
    sqlite3_set_authorizer(db_of(db), authorize, (void *)(uintptr_t)on);
}

static int db_in_transaction(struct sql_db *db)
{
    return !sqlite3_get_autocommit(db_of(db));
}

static int64_t db_changes(struct sql_db *db)
{
    return sqlite3_changes64(db_of(db));
}

/* ---- the WAL ---- */

/* In place of SQLite's own checkpoints: only takes note. Called after each commit. */
static int wal_grew(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct connection *c = arg;
    (void)db;
    (void)name;
    c->wal_pages = pages;
    c->wal_used = 1;
    return SQLITE_OK;
}

static void db_keep_log(struct sql_db *db)
{
    sqlite3_wal_hook(db_of(db), wal_grew, db);
}

/* What a checkpoint could not copy, a reader has: the same one, as long as it stops at the same frame. */
static void note_checkpoint(struct connection *c, int frames, int copied)
{
    if (frames < 0)
        return; /* there was none */
    if (copied >= frames)
        c->pinned_ns = 0;
    else if (c->pinned_ns == 0 || copied != c->copied)
        c->pinned_ns = clock_mono_ns();
    c->copied = copied;
}

static void db_committed(struct sql_db *db)
{
    struct connection *c = (struct connection *)db;
    if (++c->commits_since_checkpoint < CHECKPOINT_COMMITS || c->wal_pages < WAL_PAGES_MAX)
        return;
    c->commits_since_checkpoint = 0;
    /* What a reader keeps from being copied is left to the next time. */
    int frames = -1, copied = -1;
    sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);
    note_checkpoint(c, frames, copied);
}

static int db_idle(struct sql_db *db)
{
    struct connection *c = (struct connection *)db;
    int frames = -1, copied = -1;
    if (!c->wal_used)
        return 0;
    /* Truncating waits for readers as long as the busy timeout says: not here. */
    sqlite3_busy_timeout(c->db, 0);
    int rc = sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, &frames, &copied);
    if (rc == SQLITE_OK)
        c->wal_used = 0;
    note_checkpoint(c, frames, copied);
    sqlite3_busy_timeout(c->db, SQLITE_BUSY_MS);
    return rc == SQLITE_BUSY;
}

static uint64_t db_log_pinned_ns(struct sql_db *db)
{
    return ((struct connection *)db)->pinned_ns;
}

static uint64_t db_log_bytes(struct sql_db *db)
{
    struct stat st;
    return stat(((struct connection *)db)->wal_path, &st) ? 0 : (uint64_t)st.st_size;
}

/* ---- statements ---- */

static const struct sql_ops ops;

/* sql has len bytes, or ends with a NUL (-1). *ret: NULL when it holds a comment alone. */
static int prepare(struct sql_db *db, const char *sql, int len, struct sql_stmt **ret,
                   const char **ret_tail)
{
    struct connection *c = (struct connection *)db;
    struct prepared *p = malloc(sizeof *p);
    c->no_memory = !p;
    if (!p)
        return SQL_FAILED;
    p->base.ops = &ops;
    p->unbound = 0;
    if (sqlite3_prepare_v3(c->db, sql, len, SQLITE_PREPARE_PERSISTENT, &p->s, ret_tail) !=
            SQLITE_OK ||
        !p->s) {
        *ret = NULL;
        free(p);
        return done(sqlite3_errcode(c->db));
    }
    *ret = &p->base;
    return 0;
}

static int db_prepare(struct sql_db *db, const char *sql, struct sql_stmt **ret)
{
    return prepare(db, sql, -1, ret, NULL);
}

/* Of a name that it does not find SQLite tells no place: then where it stands first in the statement. */
static size_t place_of_error(sqlite3 *db, struct azoth_bytes text, const char *tail)
{
    const char *message = sqlite3_errmsg(db), *name;
    int offset = sqlite3_error_offset(db);
    if (offset >= 0)
        return (size_t)offset;
    if (!strstr(message, "no such ") && !strstr(message, "has no column named "))
        return 0;
    name = strrchr(message, ' ') + 1;
    if (strrchr(name, '.'))
        name = strrchr(name, '.') + 1;
    size_t to = (size_t)(tail - (const char *)text.ptr);
    return sqlfile_find(text, 0, to ? to : text.len, name);
}

static int db_prepare_first(struct sql_db *db, struct azoth_bytes text, struct sql_stmt **ret,
                            size_t *ret_used, size_t *ret_wrong)
{
    const char *tail = text.ptr;
    int rc = prepare(db, text.ptr, (int)text.len, ret, &tail);
    if (rc) {
        *ret_wrong = place_of_error(db_of(db), text, tail);
        return rc;
    }
    *ret_used = (size_t)(tail - (const char *)text.ptr);
    return 0;
}

static void stmt_finalize(struct sql_stmt *s)
{
    sqlite3_finalize(stmt_of(s));
    free(s);
}

static int stmt_parameters(struct sql_stmt *s)
{
    return sqlite3_bind_parameter_count(stmt_of(s));
}

static const char *stmt_parameter(struct sql_stmt *s, int i)
{
    return sqlite3_bind_parameter_name(stmt_of(s), i + 1);
}

static int stmt_wants_json(struct sql_stmt *s, int i)
{
    (void)s;
    (void)i;
    return 0;
}

static int bound(struct sql_stmt *s, int rc)
{
    if (rc == SQLITE_OK)
        return 0;
    ((struct prepared *)s)->unbound = 1;
    return SQL_FAILED;
}

static int stmt_bind_int64(struct sql_stmt *s, int i, int64_t n)
{
    return bound(s, sqlite3_bind_int64(stmt_of(s), i + 1, n));
}

static int stmt_bind_double(struct sql_stmt *s, int i, double x)
{
    return bound(s, sqlite3_bind_double(stmt_of(s), i + 1, x));
}

static int stmt_bind_text(struct sql_stmt *s, int i, struct azoth_bytes b)
{
    return bound(s, sqlite3_bind_text64(stmt_of(s), i + 1, b.len ? b.ptr : "", b.len, SQLITE_STATIC,
                                        SQLITE_UTF8));
}

static int stmt_bind_owned(struct sql_stmt *s, int i, char *text)
{
    return bound(s, sqlite3_bind_text(stmt_of(s), i + 1, text, -1, free));
}

static int stmt_bind_blob(struct sql_stmt *s, int i, struct azoth_bytes b)
{
    return bound(s,
                 sqlite3_bind_blob64(stmt_of(s), i + 1, b.len ? b.ptr : "", b.len, SQLITE_STATIC));
}

static int stmt_bind_null(struct sql_stmt *s, int i)
{
    return bound(s, sqlite3_bind_null(stmt_of(s), i + 1));
}

static int stmt_step(struct sql_stmt *s)
{
    if (((struct prepared *)s)->unbound)
        return SQL_FAILED;
    int step = sqlite3_step(stmt_of(s));
    return step == SQLITE_DONE ? SQL_DONE : step == SQLITE_ROW ? SQL_ROW : SQL_FAILED;
}

static void stmt_reset(struct sql_stmt *s)
{
    ((struct prepared *)s)->unbound = 0;
    sqlite3_reset(stmt_of(s));
}

static int64_t stmt_int64(struct sql_stmt *s, int i)
{
    return sqlite3_column_int64(stmt_of(s), i);
}

static const char *stmt_text(struct sql_stmt *s, int i)
{
    return (const char *)sqlite3_column_text(stmt_of(s), i);
}

static struct azoth_bytes stmt_bytes(struct sql_stmt *s, int i)
{
    const void *p = sqlite3_column_blob(stmt_of(s), i);
    return (struct azoth_bytes){p, p ? (size_t)sqlite3_column_bytes(stmt_of(s), i) : 0};
}

static const struct sql_ops ops = {
    .close = db_close,
    .exec = db_exec,
    .prepare = db_prepare,
    .prepare_first = db_prepare_first,
    .guard = db_guard,
    .in_transaction = db_in_transaction,
    .changes = db_changes,
    .code = db_code,
    .message = db_message,
    .is_machine = db_is_machine,
    .is_transient = db_is_transient,
    .error = db_error,
    .keep_log = db_keep_log,
    .committed = db_committed,
    .idle = db_idle,
    .log_bytes = db_log_bytes,
    .log_pinned_ns = db_log_pinned_ns,
    .finalize = stmt_finalize,
    .parameters = stmt_parameters,
    .parameter = stmt_parameter,
    .wants_json = stmt_wants_json,
    .bind_int64 = stmt_bind_int64,
    .bind_double = stmt_bind_double,
    .bind_text = stmt_bind_text,
    .bind_owned = stmt_bind_owned,
    .bind_blob = stmt_bind_blob,
    .bind_null = stmt_bind_null,
    .step = stmt_step,
    .reset = stmt_reset,
    .int64 = stmt_int64,
    .text = stmt_text,
    .bytes = stmt_bytes,
};

/* ---- opening ---- */

int sql_sqlite_open(const char *path, struct sql_db **ret, struct azoth_error *err)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, AZOTH_ERR_NOMEM, "SQLite");
    c->base.ops = &ops;
    *ret = &c->base;
    snprintf(c->wal_path, sizeof c->wal_path, "%s-wal", path);
    if (sqlite3_open_v2(path, &c->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL))
        return c->db ? sqlite_error(c->db, err, path) : error_set(err, AZOTH_ERR_NOMEM, "SQLite");
    sqlite3_busy_timeout(c->db, SQLITE_BUSY_MS);
    sqlite3_extended_result_codes(c->db, 1);
    int keep = 1; /* the WAL file stays: readers of another user could not make it again */
    sqlite3_file_control(c->db, NULL, SQLITE_FCNTL_PERSIST_WAL, &keep);
    char pragmas[300];
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA mmap_size = 0;"
             "PRAGMA journal_size_limit = %d; PRAGMA wal_autocheckpoint = 4000;"
             "PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY",
             WAL_LIMIT_BYTES);
    return sql_exec(&c->base, pragmas) ? sqlite_error(c->db, err, path) : 0;
}

sqlite3 *sql_sqlite_handle(struct sql_db *db)
{
    return db_of(db);
}
