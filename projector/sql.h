/*
 * sql.h - statements on the database that a projection's rows lie in, whichever that is.
 *
 * What the files behind table.h do is the same everywhere, so they know this alone: sql_sqlite.c is SQLite.
 * A call on a statement costs an indirect call.
 *
 * Two kinds of statements are given. Ours are written in what the databases share: parameters ?1, ?2, ...,
 * INTEGER of 64 bits, BLOB, BEGIN IMMEDIATE. A definition's are in its database's own language, with
 * :name and @name.
 *
 * Calls that can fail return SQL_FAILED, and the connection keeps why: sql_error() makes it an error of ours.
 * Parameters and columns count from 0. One thread a connection; everything that runs a statement may
 * block on the disk or the network.
 */
#ifndef PROJECTOR_SQL_H
#define PROJECTOR_SQL_H

#include "core/azoth_base.h"

#define SQL_DONE   0
#define SQL_ROW    1
#define SQL_FAILED (-1000) /* no AZOTH_ERR */

struct sql_db;
struct sql_stmt;

/* The calls below, of one database. */
struct sql_ops {
    void (*close)(struct sql_db *db);
    int (*exec)(struct sql_db *db, const char *sql);
    int (*prepare)(struct sql_db *db, const char *sql, struct sql_stmt **ret);
    int (*prepare_first)(struct sql_db *db, struct azoth_bytes text, struct sql_stmt **ret,
                         size_t *ret_used, size_t *ret_wrong);
    void (*guard)(struct sql_db *db, int on);
    int (*in_transaction)(struct sql_db *db);
    int64_t (*changes)(struct sql_db *db);

    int (*code)(struct sql_db *db);
    const char *(*message)(struct sql_db *db);
    int (*is_machine)(struct sql_db *db);
    int (*is_transient)(struct sql_db *db);
    int (*error)(struct sql_db *db, struct azoth_error *err, const char *what);

    void (*keep_log)(struct sql_db *db);
    void (*committed)(struct sql_db *db);
    int (*idle)(struct sql_db *db);
    uint64_t (*log_bytes)(struct sql_db *db);
    uint64_t (*log_pinned_ns)(struct sql_db *db);

    void (*finalize)(struct sql_stmt *s);
    int (*parameters)(struct sql_stmt *s);
    const char *(*parameter)(struct sql_stmt *s, int i);
    int (*wants_json)(struct sql_stmt *s, int i);
    int (*bind_int64)(struct sql_stmt *s, int i, int64_t n);
    int (*bind_double)(struct sql_stmt *s, int i, double x);
    int (*bind_text)(struct sql_stmt *s, int i, struct azoth_bytes text);
    int (*bind_owned)(struct sql_stmt *s, int i, char *text);
    int (*bind_blob)(struct sql_stmt *s, int i, struct azoth_bytes bytes);
    int (*bind_null)(struct sql_stmt *s, int i);
    int (*step)(struct sql_stmt *s);
    void (*reset)(struct sql_stmt *s);
    int64_t (*int64)(struct sql_stmt *s, int i);
    const char *(*text)(struct sql_stmt *s, int i);
    struct azoth_bytes (*bytes)(struct sql_stmt *s, int i);
};

struct sql_db {
    const struct sql_ops *ops;
};
struct sql_stmt {
    const struct sql_ops *ops;
};

/* ---- the connection ---- */

/* Its statements are finalized before. NULL is accepted. */
static inline void sql_close(struct sql_db *db)
{
    if (db)
        db->ops->close(db);
}

/* Runs statements of ours, several with `;` between them. */
static inline int sql_exec(struct sql_db *db, const char *sql)
{
    return db->ops->exec(db, sql);
}

/* One of ours, to be run often. *ret belongs to the caller. */
static inline int sql_prepare(struct sql_db *db, const char *sql, struct sql_stmt **ret)
{
    return db->ops->prepare(db, sql, ret);
}

/*
 * The first of a definition's statements. *ret_used: its bytes; *ret is NULL when they hold a comment alone.
 * After SQL_FAILED *ret_wrong is the byte that is wrong, 0 when that is not known.
 */
static inline int sql_prepare_first(struct sql_db *db, struct azoth_bytes text,
                                    struct sql_stmt **ret, size_t *ret_used, size_t *ret_wrong)
{
    return db->ops->prepare_first(db, text, ret, ret_used, ret_wrong);
}

/* While on, statements that are prepared may not touch transactions, other databases or our tables. */
static inline void sql_guard(struct sql_db *db, int on)
{
    db->ops->guard(db, on);
}

static inline int sql_in_transaction(struct sql_db *db)
{
    return db->ops->in_transaction(db);
}

/* Rows that the last statement changed. */
static inline int64_t sql_changes(struct sql_db *db)
{
    return db->ops->changes(db);
}

/* ---- what failed last ---- */

static inline int sql_code(struct sql_db *db)
{
    return db->ops->code(db); /* the database's own */
}

static inline const char *sql_message(struct sql_db *db)
{
    return db->ops->message(db); /* until the next call */
}

/* The machine's fault (disk, memory, connection), and not the statement's or its values'. */
static inline int sql_is_machine(struct sql_db *db)
{
    return db->ops->is_machine(db);
}

/* The machine's fault, and the same transaction may succeed if it is run again at once. */
static inline int sql_is_transient(struct sql_db *db)
{
    return db->ops->is_transient(db);
}

/* NOSPACE, IO, CORRUPT, NOMEM, PERMISSION, BUSY or UNREACHABLE, with "WHAT: why". */
static inline int sql_error(struct sql_db *db, struct azoth_error *err, const char *what)
{
    return db->ops->error(db, err, what);
}

/* ---- the database's log of changes (SQLite's WAL; others keep theirs themselves) ---- */

/* From now on who opened it decides when the log is taken back, by the calls below. */
static inline void sql_keep_log(struct sql_db *db)
{
    db->ops->keep_log(db);
}

static inline void sql_committed(struct sql_db *db)
{
    db->ops->committed(db);
}

/* There is nothing to do: takes the log back. 1: a reader is in the way, to be tried again. */
static inline int sql_idle(struct sql_db *db)
{
    return db->ops->idle(db);
}

static inline uint64_t sql_log_bytes(struct sql_db *db)
{
    return db->ops->log_bytes(db);
}

/* Running time since when a reader has kept the log from being taken back, as the last try to do that saw it; 0: none
 * did. */
static inline uint64_t sql_log_pinned_ns(struct sql_db *db)
{
    return db->ops->log_pinned_ns(db);
}

/* ---- a statement ---- */

/* NULL is accepted. */
static inline void sql_finalize(struct sql_stmt *s)
{
    if (s)
        s->ops->finalize(s);
}

static inline int sql_parameters(struct sql_stmt *s)
{
    return s->ops->parameters(s);
}

/* ":amount", "@id"; NULL: it has no name. */
static inline const char *sql_parameter(struct sql_stmt *s, int i)
{
    return s->ops->parameter(s, i);
}

/* The parameter is of a type for JSON: it is given the JSON text of a value, not what that stands for. */
static inline int sql_wants_json(struct sql_stmt *s, int i)
{
    return s->ops->wants_json(s, i);
}

/*
 * All parameters are bound before each run. Bytes are borrowed until the statement is reset. What could not
 * be bound fails the step, too: who makes no difference between the two may look at that alone.
 */
static inline int sql_bind_int64(struct sql_stmt *s, int i, int64_t n)
{
    return s->ops->bind_int64(s, i, n);
}

static inline int sql_bind_double(struct sql_stmt *s, int i, double x)
{
    return s->ops->bind_double(s, i, x);
}

/* UTF-8. */
static inline int sql_bind_text(struct sql_stmt *s, int i, struct azoth_bytes text)
{
    return s->ops->bind_text(s, i, text);
}

/* UTF-8 from malloc(), which is freed by the call or by the statement. */
static inline int sql_bind_owned(struct sql_stmt *s, int i, char *text)
{
    return s->ops->bind_owned(s, i, text);
}

static inline int sql_bind_blob(struct sql_stmt *s, int i, struct azoth_bytes bytes)
{
    return s->ops->bind_blob(s, i, bytes);
}

static inline int sql_bind_null(struct sql_stmt *s, int i)
{
    return s->ops->bind_null(s, i);
}

/* SQL_ROW, SQL_DONE or SQL_FAILED; after the last two it may be reset and run again. */
static inline int sql_step(struct sql_stmt *s)
{
    return s->ops->step(s);
}

static inline void sql_reset(struct sql_stmt *s)
{
    s->ops->reset(s);
}

/* Columns of the row; NULL is 0, NULL and no bytes. Borrowed until the next step or reset. */
static inline int64_t sql_int64(struct sql_stmt *s, int i)
{
    return s->ops->int64(s, i);
}

static inline const char *sql_text(struct sql_stmt *s, int i)
{
    return s->ops->text(s, i);
}

static inline struct azoth_bytes sql_bytes(struct sql_stmt *s, int i)
{
    return s->ops->bytes(s, i);
}

/* Steps a statement that gives no rows, and resets it: 0, or an error of ours. */
static inline int sql_run(struct sql_db *db, struct sql_stmt *s, struct azoth_error *err,
                          const char *what)
{
    int rc = sql_step(s) == SQL_DONE ? 0 : sql_error(db, err, what);
    sql_reset(s);
    return rc;
}

#endif
