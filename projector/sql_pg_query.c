/* sql_pg_query.c - a reader's query on PostgreSQL: row by row, so that memory does not grow with the result. */
#include "projector/sql_pg.h"

#include "core/error.h"
#include "projector/sql_pg_own.h"

#include <errno.h>
#include <string.h>

struct rows {
    query_row row;
    void *arg;
    int n, stop;
    uint64_t given;
    const char **names;
    struct query_value *values;
    unsigned char **owned; /* decoded bytea */
};

static int whole_number(const char *text, int64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoll(text, &end, 10);
    return end > text && *end == 0 && errno == 0;
}

static int value_of(struct rows *q, const PGresult *r, int i)
{
    struct query_value *v = &q->values[i];
    const char *text = PQgetvalue(r, 0, i);
    size_t len;
    *v = (struct query_value){.type = QUERY_TEXT,
                              .bytes = bytes_of(text, (size_t)PQgetlength(r, 0, i))};
    if (PQgetisnull(r, 0, i)) {
        v->type = QUERY_NULL;
        return 0;
    }
    switch (PQftype(r, i)) {
    case T_BOOL:
        v->type = QUERY_INTEGER;
        v->integer = *text == 't';
        break;
    case T_INT2:
    case T_INT4:
    case T_INT8:
    case T_OID:
    case T_NUMERIC:
        if (whole_number(text, &v->integer))
            v->type = QUERY_INTEGER;
        break;
    case T_FLOAT4:
    case T_FLOAT8:
        v->type = QUERY_REAL;
        v->real = strtod(text, NULL);
        break;
    case T_BYTEA:
        v->type = QUERY_BLOB;
        q->owned[i] = PQunescapeBytea((const unsigned char *)text, &len);
        v->bytes = bytes_of(q->owned[i], len);
        return q->owned[i] ? 0 : AZOTH_ERR_NOMEM;
    default:
        break;
    }
    return 0;
}

static void free_rows(struct rows *q)
{
    free(q->names);
    free(q->values);
    free(q->owned);
}

/* The columns, as the first result tells them. */
static int take_columns(struct rows *q, const PGresult *r)
{
    if (q->names)
        return 0;
    q->n = PQnfields(r);
    size_t n = (size_t)q->n + 1;
    q->names = calloc(n, sizeof *q->names);
    q->values = calloc(n, sizeof *q->values);
    q->owned = calloc(n, sizeof *q->owned);
    return q->names && q->values && q->owned ? 0 : AZOTH_ERR_NOMEM;
}

/* One row, or the end with none. */
static int take_row(struct rows *q, const PGresult *r)
{
    int some = PQntuples(r) > 0;
    int rc = take_columns(q, r);
    for (int i = 0; !rc && i < q->n; i++) {
        q->names[i] = PQfname(r, i);
        if (some)
            rc = value_of(q, r, i);
    }
    if (!rc && !q->stop && (some || q->given == 0)) {
        int stop = q->row(q->arg, q->n, q->names, some ? q->values : NULL);
        q->stop = some && stop;
        q->given += (uint64_t)some;
    }
    for (int i = 0; q->owned && i < q->n; i++) {
        PQfreemem(q->owned[i]);
        q->owned[i] = NULL;
    }
    return rc;
}

/* The statement is wrong, or the server cannot. */
static int query_error(struct session *s, struct azoth_error *err)
{
    struct sql_db *db = &s->base;
    if (!sql_is_machine(db) || strcmp(s->state, "25006") == 0 || strcmp(s->state, "42501") == 0)
        return error_foreign(err, AZOTH_ERR_USAGE, sql_code(db), "%s", sql_message(db));
    return sql_error(db, err, "PostgreSQL");
}

static void cancel(PGconn *c)
{
    char why[256];
    PGcancel *it = PQgetCancel(c);
    if (it)
        PQcancel(it, why, sizeof why);
    PQfreeCancel(it);
}

/* Whatever was sent is read to its end, so that the session can go on. */
static int read_rows(struct session *s, struct rows *q, struct azoth_error *err)
{
    PGresult *r;
    int rc = 0, cancelled = 0;
    while ((r = PQgetResult(s->c))) {
        ExecStatusType status = PQresultStatus(r);
        int ok =
            status == PGRES_SINGLE_TUPLE || status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
        if (!ok && !rc && !q->stop) {
            sql_pg_fail_result(s, r);
            rc = query_error(s, err);
        } else if (ok && !rc && take_row(q, r)) {
            rc = error_set(err, AZOTH_ERR_NOMEM, "a row");
        }
        PQclear(r);
        if ((rc || q->stop) && !cancelled) {
            cancelled = 1;
            cancel(s->c);
        }
    }
    return rc;
}

int sql_pg_query(struct sql_db *db, const char *sql, query_row row, void *arg,
                 struct azoth_error *err)
{
    struct session *s = session_of(db);
    struct rows q = {.row = row, .arg = arg};
    int rc = 0;
    /* The extended protocol takes one statement, whatever is in the text. */
    if (!PQsendQueryParams(s->c, sql, 0, NULL, NULL, NULL, NULL, 0) || !PQsetSingleRowMode(s->c)) {
        sql_pg_fail(s, "", "the connection is gone");
        rc = sql_error(db, err, "PostgreSQL");
    }
    if (!rc)
        rc = read_rows(s, &q, err);
    free_rows(&q);
    return rc;
}
