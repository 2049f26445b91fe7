/* sql_pg_own.h - what the files behind sql_pg.h share: sql_pg.c (statements), sql_pg_open.c, sql_pg_query.c. */
#ifndef PROJECTOR_SQL_PG_OWN_H
#define PROJECTOR_SQL_PG_OWN_H

#include "projector/sql.h"

#include <libpq-fe.h>

/* Types by their number in the catalog, which never changes (src/include/catalog/pg_type.dat). */
enum { T_BOOL = 16, T_BYTEA = 17, T_INT8 = 20, T_INT2 = 21, T_INT4 = 23, T_OID = 26 };
enum { T_JSON = 114, T_FLOAT4 = 700, T_FLOAT8 = 701, T_NUMERIC = 1700, T_JSONB = 3802 };

struct session {
    struct sql_db base;
    PGconn *c;
    uint64_t statements; /* so many were given names */
    int guarded;
    int64_t changes;
    char state[6];     /* SQLSTATE of the last failure; empty: the connection's, or memory */
    int no_memory;     /* was that */
    size_t position;   /* of it in the statement, in characters from 1; 0: not known */
    char message[400]; /* of it */
};

static inline struct session *session_of(struct sql_db *db)
{
    return (struct session *)db;
}

extern const struct sql_ops sql_pg_ops;

/* All return SQL_FAILED and keep why. */
int sql_pg_fail(struct session *s, const char *state, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int sql_pg_fail_memory(struct session *s);
/* What the server, or libpq, says of r. */
int sql_pg_fail_result(struct session *s, const PGresult *r);

/* Takes what the server answered: 0 when that is a success. */
int sql_pg_take(struct session *s, PGresult *r);

/* libpq's text is of several lines; the place in the server's source goes. */
void sql_pg_one_line(const char *text, char *out, size_t size);

#endif
