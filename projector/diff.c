/*
 * diff.c - the statements that compare a live projection's tables with those of a scratch file.
 *
 * With a primary key each is one walk over one side that looks into the other's index: removed rows are those of
 * the live side whose key the scratch has not, added ones the reverse, changed ones have the key in both and
 * another value. Without one the rows of both are grouped, the scratch's counted up and the live one's down: what is not
 * zero is different, and by how much. Values are compared byte by byte, whatever collation a column has.
 */
#include "projector/diff.h"

#include "core/error.h"
#include "projector/split.h"
#include "projector/tablefile.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define STOP_STEPS 20000 /* of SQLite's machine between two looks at `stop` */

struct diff {
    sqlite3 *db;
    uint32_t shards;
    int (*stop)(void);
    char path[4400];
};

struct column {
    char *name;
    int key; /* from 1: its place in the primary key; 0: none of it */
};

struct columns {
    struct column *list; /* those of both */
    int n;
    int keyed;
    char *unlike;
};

static int failed(struct diff *d, struct azoth_error *err)
{
    if ((sqlite3_errcode(d->db) & 0xff) == SQLITE_INTERRUPT)
        return error_set(err, AZOTH_ERR_BUSY, "the comparison was interrupted");
    return sqlite_error(d->db, err, d->path);
}

static const char *schema(uint32_t shard, char out[20])
{
    snprintf(out, 20, shard ? "shard_%" PRIu32 : "main", shard);
    return out;
}

/* Prepares the text that sqlite3_str has gathered. */
static int prepared(struct diff *d, sqlite3_str *s, sqlite3_stmt **ret, struct azoth_error *err)
{
    char *sql = sqlite3_str_finish(s);
    if (!sql)
        return error_set(err, AZOTH_ERR_NOMEM, "a comparison");
    int rc = sqlite3_prepare_v2(d->db, sql, -1, ret, NULL);
    sqlite3_free(sql);
    return rc == SQLITE_OK ? 0 : failed(d, err);
}

/* ---- opening ---- */

static int on_progress(void *arg)
{
    const struct diff *d = arg;
    return d->stop && d->stop();
}

int diff_open(const char *dir, const char *name, const char *scratch, int (*stop)(void),
              struct diff **ret, struct azoth_error *err)
{
    struct diff *d = calloc(1, sizeof *d);
    if (!d)
        return error_set(err, AZOTH_ERR_NOMEM, "a comparison");
    d->stop = stop;
    int rc = split_serving(dir, name, &d->shards, err);
    if (!rc &&
        (query_open_shards(dir, name, 0, d->shards, d->shards, &d->db, d->path, sizeof d->path) ||
         query_attach(d->db, scratch, "scratch")))
        rc = d->db ? failed(d, err) : error_set(err, AZOTH_ERR_NOMEM, "SQLite");
    if (rc) {
        diff_close(d);
        return rc;
    }
    sqlite3_exec(d->db, "PRAGMA query_only = ON", NULL, NULL, NULL);
    sqlite3_progress_handler(d->db, STOP_STEPS, on_progress, d);
    *ret = d;
    return 0;
}

void diff_close(struct diff *d)
{
    if (!d)
        return;
    sqlite3_close(d->db);
    free(d);
}

int diff_cursors(struct diff *d, uint64_t *ret_least, uint64_t *ret_most, struct azoth_error *err)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (uint32_t i = 0; i < d->shards; i++) {
        char name[20];
        sqlite3_stmt *s = NULL;
        sqlite3_str *text = sqlite3_str_new(d->db);
        sqlite3_str_appendf(text, "SELECT cursor FROM %s.azoth_projection WHERE id = 1",
                            schema(i, name));
        int rc = prepared(d, text, &s, err);
        if (rc)
            return rc;
        int step = sqlite3_step(s);
        uint64_t at = step == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(s, 0) : 0;
        rc = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : failed(d, err);
        sqlite3_finalize(s);
        if (rc)
            return rc;
        least = at < least ? at : least;
        most = at > most ? at : most;
    }
    *ret_least = least;
    *ret_most = most;
    return 0;
}

int diff_begin(struct diff *d, uint64_t *ret_least, uint64_t *ret_most, struct azoth_error *err)
{
    /* Each file's snapshot begins when it is read first, and that of the scratch not yet: its writer goes on. */
    if (sqlite3_exec(d->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        return failed(d, err);
    int rc = diff_cursors(d, ret_least, ret_most, err);
    if (rc)
        diff_end(d);
    return rc;
}

void diff_end(struct diff *d)
{
    if (!sqlite3_get_autocommit(d->db))
        sqlite3_exec(d->db, "ROLLBACK", NULL, NULL, NULL);
}

/* ---- columns ---- */

static void columns_fini(struct columns *c)
{
    for (int i = 0; i < c->n; i++)
        sqlite3_free(c->list[i].name);
    sqlite3_free(c->list);
    sqlite3_free(c->unlike);
}

static int add_column(struct columns *c, const char *name, int key)
{
    struct column *more = sqlite3_realloc64(c->list, (sqlite3_uint64)(c->n + 1) * sizeof *c->list);
    char *copy = sqlite3_mprintf("%s", name);
    if (more)
        c->list = more;
    if (!more || !copy) {
        sqlite3_free(copy);
        return AZOTH_ERR_NOMEM;
    }
    c->list[c->n++] = (struct column){copy, key};
    return 0;
}

/* Those of both sides, in the scratch's order; keyed when both have the same primary key. */
static int columns_of(struct diff *d, const char *table, struct columns *c, struct azoth_error *err)
{
    sqlite3_stmt *s = NULL;
    sqlite3_str *text = sqlite3_str_new(d->db), *unlike = sqlite3_str_new(d->db);
    int rc, step = SQLITE_DONE, same_key = 1;
    sqlite3_str_appendf(text,
                        "SELECT s.name, s.pk, l.name, l.pk FROM pragma_table_info(%Q, 'scratch') s"
                        " LEFT JOIN pragma_table_info(%Q, 'main') l ON l.name = s.name COLLATE "
                        "NOCASE UNION ALL SELECT NULL, 0, l.name, l.pk FROM "
                        "pragma_table_info(%Q, 'main') l WHERE NOT EXISTS (SELECT 1 FROM "
                        "pragma_table_info(%Q, 'scratch') s WHERE s.name = l.name COLLATE NOCASE)",
                        table, table, table, table);
    rc = prepared(d, text, &s, err);
    while (!rc && (step = sqlite3_step(s)) == SQLITE_ROW) {
        const char *scratch = (const char *)sqlite3_column_text(s, 0);
        const char *live = (const char *)sqlite3_column_text(s, 2);
        int key = sqlite3_column_int(s, 1);
        same_key &= key == sqlite3_column_int(s, 3);
        c->keyed |= key > 0;
        if (scratch && live && add_column(c, scratch, key))
            rc = error_set(err, AZOTH_ERR_NOMEM, "the columns of %s", table);
        if (!scratch || !live)
            sqlite3_str_appendf(unlike, " %c%s", live ? '-' : '+', live ? live : scratch);
    }
    if (!rc && step != SQLITE_DONE)
        rc = failed(d, err);
    sqlite3_finalize(s);
    c->keyed &= same_key;
    c->unlike = sqlite3_str_finish(unlike);
    return rc;
}

/* ---- statements ---- */

/* "a"."x", "a"."y" */
static void list_columns(sqlite3_str *s, const struct columns *c, const char *of)
{
    for (int i = 0; i < c->n; i++)
        sqlite3_str_appendf(s, "%s%s\"%w\"", i ? ", " : "", of, c->list[i].name);
}

/* Whether the key of row `of` is that of row l, on whose side the index is. */
static void same_key(sqlite3_str *s, const struct columns *c, const char *with, const char *of)
{
    int n = 0;
    for (int i = 0; i < c->n; i++)
        if (c->list[i].key)
            sqlite3_str_appendf(s, "%s%s\"%w\" IS %s\"%w\"", n++ ? " AND " : "", with,
                                c->list[i].name, of, c->list[i].name);
}

/* The live rows of all shards, in parentheses. */
static void live_rows(struct diff *d, sqlite3_str *s, const struct columns *c, const char *table)
{
    char name[20];
    sqlite3_str_appendall(s, "(");
    for (uint32_t i = 0; i < d->shards; i++) {
        sqlite3_str_appendall(s, i ? " UNION ALL SELECT " : "SELECT ");
        list_columns(s, c, "");
        sqlite3_str_appendf(s, " FROM %s.\"%w\"", schema(i, name), table);
    }
    sqlite3_str_appendall(s, ")");
}

static sqlite3_str *removed_rows(struct diff *d, const struct columns *c, const char *table)
{
    sqlite3_str *s = sqlite3_str_new(d->db);
    sqlite3_str_appendall(s, "SELECT ");
    list_columns(s, c, "l.");
    sqlite3_str_appendall(s, " FROM ");
    live_rows(d, s, c, table);
    sqlite3_str_appendf(s, " l WHERE NOT EXISTS (SELECT 1 FROM scratch.\"%w\" s WHERE ", table);
    same_key(s, c, "s.", "l.");
    sqlite3_str_appendall(s, ")");
    return s;
}

static sqlite3_str *added_rows(struct diff *d, const struct columns *c, const char *table)
{
    char name[20];
    sqlite3_str *s = sqlite3_str_new(d->db);
    sqlite3_str_appendall(s, "SELECT ");
    list_columns(s, c, "s.");
    sqlite3_str_appendf(s, " FROM scratch.\"%w\" s WHERE ", table);
    for (uint32_t i = 0; i < d->shards; i++) {
        sqlite3_str_appendf(s, "%sNOT EXISTS (SELECT 1 FROM %s.\"%w\" l WHERE ", i ? " AND " : "",
                            schema(i, name), table);
        same_key(s, c, "l.", "s.");
        sqlite3_str_appendall(s, ")");
    }
    return s;
}

static sqlite3_str *changed_rows(struct diff *d, const struct columns *c, const char *table)
{
    sqlite3_str *s = sqlite3_str_new(d->db);
    sqlite3_str_appendall(s, "SELECT ");
    list_columns(s, c, "l.");
    sqlite3_str_appendall(s, ", ");
    list_columns(s, c, "s.");
    sqlite3_str_appendall(s, " FROM ");
    live_rows(d, s, c, table);
    sqlite3_str_appendf(s, " l CROSS JOIN scratch.\"%w\" s WHERE ", table);
    same_key(s, c, "s.", "l.");
    sqlite3_str_appendall(s, " AND (");
    for (int i = 0; i < c->n; i++)
        sqlite3_str_appendf(s, "%ss.\"%w\" COLLATE BINARY IS NOT l.\"%w\"", i ? " OR " : "",
                            c->list[i].name, c->list[i].name);
    sqlite3_str_appendall(s, ")");
    return s;
}

static sqlite3_str *uneven_rows(struct diff *d, const struct columns *c, const char *table)
{
    sqlite3_str *s = sqlite3_str_new(d->db);
    sqlite3_str_appendall(s, "SELECT ");
    list_columns(s, c, "");
    sqlite3_str_appendall(s, ", sum(\"azoth n\") FROM (SELECT ");
    list_columns(s, c, "");
    sqlite3_str_appendf(s, ", 1 AS \"azoth n\" FROM scratch.\"%w\" UNION ALL SELECT ", table);
    list_columns(s, c, "");
    sqlite3_str_appendall(s, ", -1 FROM ");
    live_rows(d, s, c, table);
    sqlite3_str_appendall(s, ") GROUP BY ");
    for (int i = 0; i < c->n; i++)
        sqlite3_str_appendf(s, "%s\"%w\" COLLATE BINARY", i ? ", " : "", c->list[i].name);
    sqlite3_str_appendall(s, " HAVING sum(\"azoth n\") <> 0");
    return s;
}

/* ---- running ---- */

struct comparing {
    struct diff *d;
    const struct diff_tell *tell;
    const struct columns *c;
    const char **names;
    struct query_value *values; /* of two rows */
    uint64_t room;              /* rows that may be told still */
};

static void tell_row(struct comparing *g, sqlite3_stmt *s, int from, char sign, uint64_t times)
{
    for (int i = 0; i < g->c->n; i++)
        query_value_of(s, from + i, &g->values[i]);
    g->tell->row(g->tell->arg, sign, times, g->c->n, g->names, g->values);
}

/* Walks over differing rows; sign: what they are, '~' changed, '?' the last column says how many more. */
static int walk(struct comparing *g, sqlite3_str *text, char sign, struct diff_table *t,
                struct azoth_error *err)
{
    sqlite3_stmt *s = NULL;
    int step = SQLITE_DONE, rc = prepared(g->d, text, &s, err);
    while (!rc && (step = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t more = sign == '?' ? sqlite3_column_int64(s, g->c->n) : sign == '+' ? 1 : -1;
        uint64_t times = (uint64_t)(more > 0 ? more : -more);
        if (sign == '~')
            t->changed++;
        else if (more > 0)
            t->added += times;
        else
            t->removed += times;
        if (!g->room)
            continue;
        g->room--;
        if (sign == '~' || more < 0)
            tell_row(g, s, 0, '-', times);
        if (sign == '~' || more > 0)
            tell_row(g, s, sign == '~' ? g->c->n : 0, '+', times);
    }
    if (!rc && step != SQLITE_DONE)
        rc = failed(g->d, err);
    sqlite3_finalize(s);
    return rc;
}

static int count_rows(struct diff *d, const char *of, const char *table, uint64_t *ret,
                      struct azoth_error *err)
{
    sqlite3_stmt *s = NULL;
    sqlite3_str *text = sqlite3_str_new(d->db);
    sqlite3_str_appendf(text, "SELECT count(*) FROM %s.\"%w\"", of, table);
    int rc = prepared(d, text, &s, err);
    if (!rc && sqlite3_step(s) == SQLITE_ROW)
        *ret += (uint64_t)sqlite3_column_int64(s, 0);
    else if (!rc)
        rc = failed(d, err);
    sqlite3_finalize(s);
    return rc;
}

static int count_both(struct diff *d, struct diff_table *t, struct azoth_error *err)
{
    char name[20];
    int rc = 0;
    for (uint32_t i = 0; t->where != DIFF_SCRATCH_ONLY && !rc && i < d->shards; i++)
        rc = count_rows(d, schema(i, name), t->name, &t->live_rows, err);
    if (t->where != DIFF_LIVE_ONLY && !rc)
        rc = count_rows(d, "scratch", t->name, &t->scratch_rows, err);
    return rc;
}

static int compare_both(struct comparing *g, struct diff_table *t, struct azoth_error *err)
{
    int rc;
    if (!t->keyed)
        return walk(g, uneven_rows(g->d, g->c, t->name), '?', t, err);
    rc = walk(g, removed_rows(g->d, g->c, t->name), '-', t, err);
    if (!rc)
        rc = walk(g, added_rows(g->d, g->c, t->name), '+', t, err);
    return rc ? rc : walk(g, changed_rows(g->d, g->c, t->name), '~', t, err);
}

static int compare_table(struct diff *d, const char *name, enum diff_where where, uint64_t rows,
                         const struct diff_tell *tell, struct azoth_error *err)
{
    struct columns c = {0};
    struct diff_table t = {.name = name, .where = where, .columns = ""};
    int rc = count_both(d, &t, err);
    if (!rc && where == DIFF_IN_BOTH)
        rc = columns_of(d, name, &c, err);
    if (!rc && c.n) {
        struct comparing g = {.d = d, .tell = tell, .c = &c, .room = rows};
        g.names = calloc((size_t)c.n, sizeof *g.names);
        g.values = calloc((size_t)c.n, sizeof *g.values);
        for (int i = 0; g.names && i < c.n; i++)
            g.names[i] = c.list[i].name;
        t.keyed = c.keyed;
        t.columns = c.unlike ? c.unlike : "";
        rc = g.names && g.values ? compare_both(&g, &t, err)
                                 : error_set(err, AZOTH_ERR_NOMEM, "the columns of %s", name);
        free(g.names);
        free(g.values);
    }
    if (!rc)
        tell->table(tell->arg, &t);
    columns_fini(&c);
    return rc;
}

/* Names of both sides, and in which: 1 main, 2 scratch, 3 both. */
static const char tables_sql[] =
    "SELECT name, sum(side) FROM ("
    "SELECT name, CASE schema WHEN 'main' THEN 1 ELSE 2 END AS side FROM pragma_table_list WHERE "
    "schema IN ('main', 'scratch') AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' "
    "ESCAPE '\\' AND name NOT LIKE 'azoth\\_%' ESCAPE '\\') GROUP BY name COLLATE NOCASE ORDER BY "
    "name";

int diff_run(struct diff *d, uint64_t rows, const struct diff_tell *tell, struct azoth_error *err)
{
    sqlite3_stmt *s = NULL;
    int step = SQLITE_DONE, rc = 0;
    if (sqlite3_prepare_v2(d->db, tables_sql, -1, &s, NULL) != SQLITE_OK)
        return failed(d, err);
    while (!rc && (step = sqlite3_step(s)) == SQLITE_ROW) {
        int side = sqlite3_column_int(s, 1);
        rc = compare_table(d, (const char *)sqlite3_column_text(s, 0),
                           side == 3   ? DIFF_IN_BOTH
                           : side == 1 ? DIFF_LIVE_ONLY
                                       : DIFF_SCRATCH_ONLY,
                           rows, tell, err);
    }
    if (!rc && step != SQLITE_DONE)
        rc = failed(d, err);
    sqlite3_finalize(s);
    return rc;
}
