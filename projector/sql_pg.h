/*
 * sql_pg.h - sql.h on a PostgreSQL server, over libpq; and queries there.
 *
 * A projection's rows and its own tables lie in a schema of its name, which is first in the session's search_path
 * (behind it: public, where extensions are). So own statements are the same text as for SQLite, and what belongs to a projection is
 * dropped, dumped and granted as one thing.
 *
 * What is given to parameters. @id, @txn and @time are bigint. All other values are sent as text without a type, so that the server infers one from where
 * the parameter stands, as it does for a quoted literal: a number for a number's column, text for text's. true and
 * false are 1 and 0, which are boolean as well. A parameter of type json or jsonb gets the JSON of the field, one of
 * type bytea the bytes as they are. Where no type can be inferred the server says so, and `:field::bigint` helps.
 * PostgreSQL's text holds no NUL: such a string is refused, and is the event's fault.
 *
 * Errors: SQLSTATE is in the message, and as a number of base 36 in sql_code(). Classes 08, 25, 26, 28, 3D, 40, 53,
 * 55, 57, 58, F0, XX and 42501 are the machine's, all others the statement's. UNREACHABLE: the
 * connection is gone; open it anew, since what was being committed is decided there.
 *
 * No password is in a message. A connection belongs to one thread; every call waits for the server.
 */
#ifndef PROJECTOR_SQL_PG_H
#define PROJECTOR_SQL_PG_H

#include "projector/sql.h"
#include "projector/table.h"

enum sql_pg_use {
    SQL_PG_PROJECT, /* makes the schema, and holds the projection's lock as long as the session lives */
    SQL_PG_CHANGE, /* the same of a projection that is there already */
    SQL_PG_CHECK,  /* in a transaction that is never committed, in a schema that is new */
    SQL_PG_READ    /* read-only */
};

/*
 * conninfo: keywords and values, or a URI; what it leaves out libpq's environment and service files say.
 * DUPLICATE: another session holds the lock (waits for a session that ends up to SQL_PG_LOCK_MS). NOT_FOUND: no such projection
 * (CHANGE, READ). CONFIG: conninfo is none, or names no database of the server that is in UTF8. PERMISSION, UNREACHABLE, NOSPACE, PROJECTION (a name that
 * PostgreSQL keeps to itself), NOMEM. After an error *ret may be there and is to be closed.
 */
#define SQL_PG_LOCK_MS    3000
#define SQL_PG_CONNECT_MS 5000
int sql_pg_open(const char *conninfo, const char *name, enum sql_pg_use use, struct sql_db **ret,
                struct azoth_error *err);

/*
 * One statement in a read-only transaction, with query_run()'s calls of row. int2 to int8 and boolean are integers, as is numeric
 * when it is one and fits; real and double are reals; bytea is bytes; everything else is text. USAGE: what the
 * server says of the statement.
 */
int sql_pg_query(struct sql_db *db, const char *sql, query_row row, void *arg,
                 struct azoth_error *err);

#endif
