/*
 * tablecheck.c - what can be found wrong with a definition before it runs.
 *
 * Marks are parsed; migrations run on an empty database in memory, each undo right behind its
 * migration, inside a savepoint that takes it back; handlers are prepared on the tables that are there
 * then. A library that is given is loaded when all that is right. After an error it goes on behind the statement, so that one run tells all. A table that a
 * wrong statement did not make is told again by those that use it.
 *
 * With the target postgresql the same is done on its server, in a transaction that is never committed, where each statement has a
 * savepoint of its own, since one that fails ends all behind it. Without a server the text alone is looked at.
 */
#include "projector/table.h"

#include "core/error.h"
#include "projector/library.h"
#include "projector/pgtext.h"
#include "projector/sql_pg.h"
#include "projector/tablefile.h"
#include "projector/target.h"

#include <string.h>

/* Ends of statements tried behind one that is wrong: sqlite3_complete looks at all of it each time.
 */
#define ENDS_MAX 256

struct check {
    sqlfile_report report;
    void *arg;
    struct sqlfile def;
    struct tablefile file;
    int server; /* file is a session with one */
    uint32_t errors;
    int rc; /* the first error's */
    const char *load;
    struct library *library;
    struct buf text; /* of a statement that is wrong */
};

static void told(void *arg, const struct azoth_error *err)
{
    struct check *c = arg;
    if (!c->errors)
        c->rc = err->code;
    if (c->errors < PROJECTION_CHECK_MAX)
        c->report(c->arg, err);
    c->errors++;
}

/* Behind the statement that cannot be prepared, or at the block's end. */
static void skip_statement(struct check *c, struct sql_cursor *at)
{
    const struct azoth_bytes t = at->block->text;
    const char *p = t.ptr;
    size_t to = at->at;
    if (c->server) {
        struct pgtext one;
        if (!pgtext_first(bytes_of(p + to, t.len - to), &one, &to))
            at->at += to;
        else
            at->at = t.len;
        pgtext_fini(&one);
        return;
    }
    for (int i = 0; i < ENDS_MAX; i++) {
        const char *end = memchr(p + to, ';', t.len - to);
        if (!end)
            break;
        to = (size_t)(end - p) + 1;
        buf_clear(&c->text);
        if (buf_add(&c->text, p + at->at, to - at->at) || buf_add(&c->text, "", 1))
            break;
        if (sqlite3_complete((const char *)c->text.ptr)) {
            at->at = to;
            return;
        }
    }
    at->at = t.len;
}

/* At the byte `place` of the block. */
static void told_at(struct check *c, const struct sql_cursor *at, size_t place, const char *what)
{
    struct azoth_error err = {0};
    uint32_t line, column;
    sqlfile_position(at->block, place, &line, &column);
    error_set(&err, AZOTH_ERR_PROJECTION, "%s:%u:%u: %s", c->def.path, line, column, what);
    told(c, &err);
}

static void check_parameter(struct check *c, const struct sql_cursor *at, const char *name,
                            size_t place, int handler)
{
    char what[200];
    if (handler && table_parameter_valid(name))
        return;
    snprintf(what, sizeof what,
             handler ? "parameter %.60s is neither :field (up to 63 bytes) nor one of @id @type "
                       "@time @txn @key @payload"
                     : "parameter %.60s: there is no event in a migration",
             name ? name : "?");
    told_at(c, at, place, what);
}

static void run_statement(struct check *c, const struct sql_cursor *at, struct sql_stmt *s)
{
    int step;
    do {
        step = sql_step(s);
    } while (step == SQL_ROW);
    if (step != SQL_DONE)
        told_at(c, at, at->from, sql_message(c->file.sql));
}

static void check_statement(struct check *c, const struct sql_cursor *at, struct sql_stmt *s,
                            int handler)
{
    for (int i = 0; i < sql_parameters(s); i++) {
        const char *name = sql_parameter(s, i);
        check_parameter(c, at, name, sqlfile_find(at->block->text, at->from, at->at, name),
                        handler);
    }
    if (!handler)
        run_statement(c, at, s);
}

/* One statement, or the end: 1, 0. */
static int check_next(struct check *c, struct sql_cursor *at, int handler)
{
    struct sql_stmt *s;
    struct azoth_error err = {0};
    int got = tablefile_next(&c->file, at, &s, &err);
    if (got > 0) {
        check_statement(c, at, s, handler);
        sql_finalize(s);
    } else if (got < 0) {
        told(c, &err);
        skip_statement(c, at);
        /* What is behind it fails as well when it is the machine's fault. */
        return err.code == AZOTH_ERR_PROJECTION;
    }
    return got;
}

static void check_block(struct check *c, const struct sql_block *block, int handler)
{
    struct sql_cursor at = {.path = c->def.path, .block = block};
    int more = 1;
    sql_guard(c->file.sql, 1);
    while (more && c->errors < PROJECTION_CHECK_MAX) {
        uint32_t before = c->errors;
        if (c->server)
            sql_exec(c->file.sql, "SAVEPOINT azoth_statement");
        more = check_next(c, &at, handler);
        if (c->server && c->errors > before)
            sql_exec(c->file.sql, "ROLLBACK TO azoth_statement");
        if (c->server)
            sql_exec(c->file.sql, "RELEASE azoth_statement");
    }
    sql_guard(c->file.sql, 0);
}

static void check_undo(struct check *c, const struct sql_block *undo)
{
    if (!undo->text.len)
        return;
    sql_exec(c->file.sql, "SAVEPOINT undo");
    check_block(c, undo, 0);
    sql_exec(c->file.sql, "ROLLBACK TO undo; RELEASE undo");
}

static void check_blocks(struct check *c)
{
    for (uint32_t i = 0; i < c->def.migrations; i++) {
        check_block(c, &c->def.migration[i].up, 0);
        check_undo(c, &c->def.migration[i].undo);
    }
    for (uint32_t i = 0; i < c->def.handlers; i++)
        check_block(c, &c->def.handler[i].sql, 1);
}

static void check_sqlite(struct check *c)
{
    struct azoth_error err = {0};
    uint64_t cursor;
    uint32_t check;
    struct sqlfile bare = c->def; /* its migrations are run here, one by one */
    bare.migrations = 0;
    struct table_options o = {.shards = 1};
    if (tablefile_open(&c->file, &bare, &o, &cursor, &check, &err))
        told(c, &err);
    else
        check_blocks(c);
}

/* Behind the migrations, whose tables its statements are about. */
static void check_library(struct check *c)
{
    struct azoth_error err = {0};
    if (!c->load || c->errors)
        return;
    int rc = library_load(&c->def, c->load, &c->library, &err);
    if (!rc)
        rc = library_start(c->library, &c->file, &err);
    if (rc)
        told(c, &err);
    library_stop(c->library);
}

/* ---- the target postgresql ---- */

static void check_server(struct check *c, const char *setting)
{
    char conninfo[SQLFILE_CONNINFO_MAX + 1];
    struct azoth_error err = {0};
    c->server = 1;
    snprintf(c->file.path, sizeof c->file.path, "PostgreSQL");
    int rc = target_conninfo(&c->def, NULL, setting, conninfo, &err);
    if (!rc)
        rc = sql_pg_open(conninfo, c->def.name, SQL_PG_CHECK, &c->file.sql, &err);
    if (rc)
        told(c, &err);
    else
        check_blocks(c);
}

static void check_text(struct check *c, const struct sql_block *b, int handler)
{
    struct sql_cursor at = {.path = c->def.path, .block = b};
    const char *p = b->text.ptr;
    while (at.at < b->text.len && c->errors < PROJECTION_CHECK_MAX) {
        struct pgtext t;
        size_t used, wrong;
        struct azoth_bytes left = bytes_of(p + at.at, b->text.len - at.at);
        int rc = pgtext_first(left, &t, &used);
        const char *why = rc ? NULL : pgtext_refused(bytes_of(left.ptr, used), &wrong);
        if (rc || why)
            told_at(c, &at, at.at + (why ? wrong : 0), rc ? azoth_code_sentence(rc) : why);
        at.from = at.at;
        for (int i = 0; i < t.parameters; i++)
            check_parameter(c, &at, t.parameter[i].name,
                            at.at + t.parameter[i].in - strlen(t.parameter[i].name), handler);
        at.at += used;
        pgtext_fini(&t);
    }
}

static void check_texts(struct check *c)
{
    for (uint32_t i = 0; i < c->def.migrations; i++) {
        check_text(c, &c->def.migration[i].up, 0);
        check_text(c, &c->def.migration[i].undo, 0);
    }
    for (uint32_t i = 0; i < c->def.handlers; i++)
        check_text(c, &c->def.handler[i].sql, 1);
}

/* ---- all of it ---- */

static void check_all(struct check *c, const struct projection_check_with *with,
                      struct projection_unchecked *ret)
{
    int server = c->def.target == TARGET_POSTGRESQL;
    *ret = (struct projection_unchecked){.in_c = !with->load && sqlfile_in_c(&c->def),
                                         .sql = server && !with->postgresql};
    if (c->rc && c->rc != AZOTH_ERR_PROJECTION)
        return;
    if (!server)
        check_sqlite(c);
    else if (with->postgresql)
        check_server(c, with->postgresql);
    else
        check_texts(c);
    check_library(c);
}

int projection_check_all(const char *path, const struct projection_check_with *with,
                         struct projection_unchecked *ret, sqlfile_report report, void *arg)
{
    static const struct projection_check_with nothing;
    struct projection_unchecked ignored;
    with = with ? with : &nothing;
    struct check c = {.report = report, .arg = arg, .file = {.lock_fd = -1}, .load = with->load};
    (void)sqlfile_read_all(path, &c.def, told, &c);
    check_all(&c, with, ret ? ret : &ignored);
    tablefile_close(&c.file);
    library_unload(c.library);
    sqlfile_fini(&c.def);
    buf_fini(&c.text);
    return c.rc;
}

static void keep_first(void *arg, const struct azoth_error *err)
{
    struct azoth_error *first = arg;
    if (!first->code)
        *first = *err;
}

int projection_check(const char *path, struct azoth_error *err)
{
    struct azoth_error first = {0};
    int rc = projection_check_all(path, NULL, NULL, keep_first, &first);
    if (rc && err)
        *err = first;
    return rc;
}
