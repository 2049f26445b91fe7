/*
 * sql_pg_open.c - a session with a PostgreSQL server: where it is, the lock, the schema.
 *
 * The connection is made with libpq's asynchronous calls, for two reasons: it takes at most
 * SQL_PG_CONNECT_MS whatever hosts there are, and the verbosity that lets us see SQLSTATE when the server refuses
 * must be set before.
 */
#include "projector/sql_pg.h"

#include "core/clock.h"
#include "core/error.h"
#include "projector/sql_pg_own.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

/* ---- conninfo ---- */

#define WORDS_MAX 80

struct words {
    const char *key[WORDS_MAX + 1], *value[WORDS_MAX + 1];
    int n;
    int failed; /* too many */
};

static int has(const struct words *w, const char *key)
{
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->key[i], key) == 0)
            return 1;
    return 0;
}

/* Unless it was given. */
static void add(struct words *w, const char *key, const char *value)
{
    if (has(w, key))
        return;
    if (w->n == WORDS_MAX) {
        w->failed = 1;
        return;
    }
    w->key[w->n] = key;
    w->value[w->n++] = value;
}

/* What a host that vanished would keep us waiting for, and where one that may be written to is. */
static void add_defaults(struct words *w, enum sql_pg_use use, const char *application)
{
    add(w, "application_name", application);
    add(w, "client_encoding", "UTF8");
    add(w, "keepalives_idle", "30");
    add(w, "keepalives_interval", "10");
    add(w, "keepalives_count", "3");
    add(w, "tcp_user_timeout", "30000");
    if (use != SQL_PG_READ && !getenv("PGTARGETSESSIONATTRS"))
        add(w, "target_session_attrs", "read-write");
}

/* The error says nothing of the text: a password may be in it, also where one does not expect it. */
static int parse(const char *conninfo, PQconninfoOption **ret, struct words *w,
                 struct azoth_error *err)
{
    char *why = NULL;
    *ret = PQconninfoParse(conninfo, &why);
    PQfreemem(why);
    int ok = *ret != NULL;
    for (const PQconninfoOption *o = *ret; ok && o->keyword; o++) {
        if (!o->val)
            continue;
        add(w, o->keyword, o->val);
        ok = strcmp(o->keyword, "host") != 0 || !strchr(o->val, '@');
    }
    if (ok && !w->failed)
        return 0;
    return error_set(err, AZOTH_ERR_CONFIG,
                     "the connection string is neither libpq's keyword=value ... nor a URI "
                     "postgresql://...");
}

/* ---- connecting ---- */

/* "FATAL:  28P01: password authentication failed": the server's, when there is one. */
static void state_of(const char *text, char ret[6])
{
    const char *p = strstr(text, ":  ");
    *ret = 0;
    if (p && strspn(p + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && p[8] == ':')
        snprintf(ret, 6, "%.5s", p + 3);
}

static int refused(struct session *s, const char *what, struct azoth_error *err)
{
    char text[300], state[6];
    sql_pg_one_line(PQerrorMessage(s->c), text, sizeof text);
    state_of(text, state);
    if (!*state && PQconnectionNeedsPassword(s->c))
        snprintf(state, sizeof state, "28P01");
    sql_pg_fail(s, state, "%s", *text ? text : "no connection");
    return sql_error(&s->base, err, what);
}

static int wait_for_server(struct session *s, const char *what, struct azoth_error *err)
{
    uint64_t until = clock_mono_ns() + SQL_PG_CONNECT_MS * NS_PER_MS;
    PostgresPollingStatusType t = PGRES_POLLING_WRITING;
    while (t != PGRES_POLLING_OK && t != PGRES_POLLING_FAILED) {
        uint64_t now = clock_mono_ns();
        struct pollfd fd = {.fd = PQsocket(s->c),
                            .events = t == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        if (now >= until)
            return error_set(err, AZOTH_ERR_UNREACHABLE, "%s: the server does not answer", what);
        if (poll(&fd, 1, (int)((until - now) / NS_PER_MS) + 1) > 0)
            t = PQconnectPoll(s->c);
    }
    return t == PGRES_POLLING_OK ? 0 : refused(s, what, err);
}

/* Notices are nobody's: a library does not print. */
static void no_notice(void *arg, const PGresult *r)
{
    (void)arg;
    (void)r;
}

static int connect_to(struct session *s, const char *conninfo, const char *name,
                      enum sql_pg_use use, const char *what, struct azoth_error *err)
{
    PQconninfoOption *options = NULL;
    struct words w = {.n = 0};
    char application[AZOTH_NAME_MAX + 8];
    snprintf(application, sizeof application, "azoth:%s", name);
    int rc = parse(conninfo, &options, &w, err);
    if (!rc) {
        add_defaults(&w, use, application);
        s->c = PQconnectStartParams(w.key, w.value, 0);
        if (!s->c)
            rc = error_set(err, AZOTH_ERR_NOMEM, "%s", what);
    }
    if (!rc && PQstatus(s->c) == CONNECTION_BAD)
        rc = refused(s, what, err);
    if (!rc) {
        PQsetErrorVerbosity(s->c, PQERRORS_VERBOSE);
        PQsetNoticeReceiver(s->c, no_notice, NULL);
        rc = wait_for_server(s, what, err);
    }
    PQconninfoFree(options);
    return rc;
}

/* ---- the session ---- */

/*
 * A projector that has nothing to do keeps its session; of one whose machine or network went away the server ends it in a
 * minute, and not after the two hours of TCP: it has the lock. What an older server does not know is left out.
 */
static const char session_that_lasts[] =
    "SELECT set_config(v.name, v.value, false) FROM (VALUES ('idle_session_timeout', '0'),"
    " ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', "
    "'3'),"
    " ('tcp_user_timeout', '30s')) AS v (name, value) JOIN pg_settings s ON s.name = v.name";

/* What roles and databases may have set otherwise, and we rely upon. */
static int settings(struct session *s, enum sql_pg_use use)
{
    int rc =
        sql_pg_take(s, PQexec(s->c, "SET standard_conforming_strings = on; SET DateStyle = 'ISO';"
                                    "SET client_min_messages = error; SET bytea_output = 'hex';"
                                    "SET extra_float_digits = 1;"
                                    "SET default_transaction_isolation = 'read committed';"
                                    "SET idle_in_transaction_session_timeout = 0"));
    if (!rc && use == SQL_PG_READ)
        rc = sql_pg_take(s, PQexec(s->c, "SET default_transaction_read_only = on"));
    if (!rc && (use == SQL_PG_PROJECT || use == SQL_PG_CHANGE))
        rc = sql_pg_take(s, PQexec(s->c, session_that_lasts));
    return rc;
}

/* In another encoding not every event could be stored, and not every message about one. */
static int encoding_fits(const struct session *s, const char *what, struct azoth_error *err)
{
    const char *is = PQparameterStatus(s->c, "server_encoding");
    return is && strcmp(is, "UTF8") == 0
               ? 0
               : error_set(err, AZOTH_ERR_CONFIG,
                           "%s: the encoding of its database is %s: UTF8 is wanted", what,
                           is ? is : "not known");
}

/* A row, or none: 1, 0, SQL_FAILED. */
static int ask(struct session *s, const char *sql, const char *value)
{
    PGresult *r = PQexecParams(s->c, sql, 1, NULL, &value, NULL, NULL, 0);
    int n = PQntuples(r);
    int rc = sql_pg_take(s, r);
    return rc ? rc : n > 0;
}

/* The lock of the projection's name in this database; whose session ends leaves it. */
static int lock(struct session *s, const char *name, const char *what, struct azoth_error *err)
{
    char sql[200];
    snprintf(sql, sizeof sql, "SET lock_timeout = %d; SELECT pg_advisory_lock(%" PRId64 ")",
             SQL_PG_LOCK_MS, (int64_t)XXH3_64bits_withSeed(name, strlen(name), 0x617a6f7468));
    int rc = sql_pg_take(s, PQexec(s->c, sql));
    if (rc && strcmp(s->state, "55P03") == 0)
        return error_set(err, AZOTH_ERR_DUPLICATE, "%s: another process projects into it", what);
    if (!rc)
        rc = sql_pg_take(s, PQexec(s->c, "SET lock_timeout = '5s'"));
    return rc ? sql_error(&s->base, err, what) : 0;
}

static int set_path(struct session *s, const char *name)
{
    char sql[AZOTH_NAME_MAX + 60];
    snprintf(sql, sizeof sql, "SET search_path = \"%s\", public", name);
    return sql_pg_take(s, PQexec(s->c, sql));
}

static int make_schema(struct session *s, const char *name)
{
    char sql[AZOTH_NAME_MAX + 60];
    snprintf(sql, sizeof sql, "CREATE SCHEMA \"%s\"", name);
    return sql_pg_take(s, PQexec(s->c, sql));
}

/* Names that are not ours to take. */
static int reserved(const char *name)
{
    return strncasecmp(name, "pg_", 3) == 0 || strcmp(name, "public") == 0 ||
           strcmp(name, "information_schema") == 0;
}

/* What the role may not use the search path passes over: its tables would not be there. */
static int may_use(struct session *s, const char *name, const char *what, struct azoth_error *err)
{
    int may = ask(s, "SELECT 1 WHERE has_schema_privilege($1, 'USAGE')", name);
    if (may < 0)
        return sql_error(&s->base, err, what);
    return may ? 0
               : error_set(err, AZOTH_ERR_PERMISSION,
                           "%s: the role may not use it: GRANT USAGE ON SCHEMA lets it", what);
}

static int enter_schema(struct session *s, const char *name, enum sql_pg_use use, const char *what,
                        struct azoth_error *err)
{
    int there = ask(s, "SELECT 1 FROM pg_namespace WHERE nspname = $1", name), rc = 0;
    if (there == 0 && (use == SQL_PG_READ || use == SQL_PG_CHANGE))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "%s: there is no such projection there yet",
                         what);
    if (there < 0 || (there == 0 && make_schema(s, name)) || set_path(s, name))
        rc = sql_error(&s->base, err, what);
    return rc ? rc : may_use(s, name, what, err);
}

/* A schema that goes with the transaction. */
static int enter_check(struct session *s, const char *what, struct azoth_error *err)
{
    char name[40];
    snprintf(name, sizeof name, "azoth_check_%d", PQbackendPID(s->c));
    int rc = sql_pg_take(s, PQexec(s->c, "BEGIN"));
    if (!rc)
        rc = make_schema(s, name);
    if (!rc)
        rc = set_path(s, name);
    return rc ? sql_error(&s->base, err, what) : 0;
}

int sql_pg_open(const char *conninfo, const char *name, enum sql_pg_use use, struct sql_db **ret,
                struct azoth_error *err)
{
    char what[AZOTH_NAME_MAX + 40];
    snprintf(what, sizeof what, "PostgreSQL, schema %s", name);
    if (reserved(name))
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s is a schema of PostgreSQL's own: a projection there has another name",
                         name);
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", what);
    s->base.ops = &sql_pg_ops;
    *ret = &s->base;
    int rc = connect_to(s, conninfo, name, use, what, err);
    if (!rc && settings(s, use))
        rc = sql_error(&s->base, err, what);
    if (!rc)
        rc = encoding_fits(s, what, err);
    if (!rc && (use == SQL_PG_PROJECT || use == SQL_PG_CHANGE))
        rc = lock(s, name, what, err);
    if (!rc)
        rc =
            use == SQL_PG_CHECK ? enter_check(s, what, err) : enter_schema(s, name, use, what, err);
    return rc;
}
