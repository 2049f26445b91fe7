/*
 * sql_pg.c - a projection's statements on PostgreSQL.
 *
 * Happy path: a session, opened once, with an advisory lock that lives as long; each statement is prepared once and
 * then costs one exchange with the server.
 *
 * Failure modes
 *   the session ends           every call fails with the machine's fault, UNREACHABLE. The projector ends with
 *                              it and its successor reads the cursor; what was not committed is not there
 *   it ends within COMMIT      the same: the cursor says whether it was
 *   the projector is killed    its session may live on for as long as its statement runs, and so
 *                              does the lock: the successor waits for it, and reads the cursor after it
 *   any statement fails        the transaction is over but for ROLLBACK [TO]: in the layer above, the
 *                              savepoint or the whole batch goes
 *   COMMIT of such a one       the server answers ROLLBACK, and no error: made one here
 */
#include "projector/sql_pg.h"

#include "core/error.h"
#include "projector/pgtext.h"
#include "projector/sql_pg_own.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

struct value {
    const char *bytes; /* NULL: in the statement's buffer, from `from` */
    size_t from, len;
    int null;
};

struct prepared {
    struct sql_stmt base;
    struct session *session;
    char name[24];
    int own;     /* ours: values are mended, and rows come in binary form */
    int commits; /* is COMMIT */
    int parameters;
    char **parameter; /* names; of ours none */
    Oid *type;
    struct value *value;
    const char **bytes; /* as libpq wants them */
    int *len, *format;
    struct buf buf;
    int unbound; /* a value could not be bound */
    PGresult *result;
    int row, rows;
};

static struct prepared *prepared_of(struct sql_stmt *s)
{
    return (struct prepared *)s;
}

/* ---- errors ---- */

int sql_pg_fail(struct session *s, const char *state, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->message, sizeof s->message, fmt, ap);
    va_end(ap);
    snprintf(s->state, sizeof s->state, "%s", state);
    s->position = 0;
    s->no_memory = 0;
    return SQL_FAILED;
}

int sql_pg_fail_memory(struct session *s)
{
    sql_pg_fail(s, "", "out of memory");
    s->no_memory = 1;
    return SQL_FAILED;
}

void sql_pg_one_line(const char *text, char *out, size_t size)
{
    size_t n = 0;
    *out = 0;
    while (*text) {
        text += strspn(text, " \t");
        size_t len = strcspn(text, "\n");
        if (len && strncmp(text, "LOCATION:", 9) != 0 && n < size)
            n += (size_t)snprintf(out + n, size - n, "%s%.*s", n ? "; " : "", (int)len, text);
        text += len + (text[len] != 0);
    }
}

int sql_pg_fail_result(struct session *s, const PGresult *r)
{
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(r, PG_DIAG_MESSAGE_DETAIL);
    const char *position = PQresultErrorField(r, PG_DIAG_STATEMENT_POSITION);
    char text[300];
    if (!state || !primary) {
        sql_pg_one_line(PQerrorMessage(s->c), text, sizeof text);
        return sql_pg_fail(s, "", "%s", *text ? text : "the connection is gone");
    }
    sql_pg_fail(s, state, "%s%s%s (SQLSTATE %s)", primary, detail ? ": " : "", detail ? detail : "",
                state);
    s->position = position ? strtoul(position, NULL, 10) : 0;
    return SQL_FAILED;
}

static int in_class(const struct session *s, const char *class)
{
    return strncmp(s->state, class, strlen(class)) == 0;
}

static int db_code(struct sql_db *db)
{
    const char *state = session_of(db)->state;
    return *state ? (int)strtol(state, NULL, 36) : 0;
}

static const char *db_message(struct sql_db *db)
{
    return session_of(db)->message;
}

static int db_is_machine(struct sql_db *db)
{
    static const char *const classes[] = {"08", "25", "26", "28", "3D", "40",   "53",
                                          "55", "57", "58", "F0", "XX", "42501"};
    const struct session *s = session_of(db);
    if (!*s->state)
        return 1;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (in_class(s, classes[i]))
            return 1;
    return 0;
}

/* A deadlock, a conflict of serializable transactions. A lock was waited for already. */
static int db_is_transient(struct sql_db *db)
{
    const struct session *s = session_of(db);
    return in_class(s, "40001") || in_class(s, "40P01");
}

static int code_of(const struct session *s)
{
    static const struct {
        const char *class;
        int code;
    } codes[] = {{"53100", AZOTH_ERR_NOSPACE},    {"53200", AZOTH_ERR_NOMEM},
                 {"53", AZOTH_ERR_UNREACHABLE},   {"08", AZOTH_ERR_UNREACHABLE},
                 {"57P", AZOTH_ERR_UNREACHABLE},  {"25006", AZOTH_ERR_UNREACHABLE},
                 {"26", AZOTH_ERR_UNREACHABLE},   {"28", AZOTH_ERR_PERMISSION},
                 {"42501", AZOTH_ERR_PERMISSION}, {"3D", AZOTH_ERR_CONFIG},
                 {"40", AZOTH_ERR_BUSY},          {"55", AZOTH_ERR_BUSY},
                 {"57", AZOTH_ERR_BUSY},          {"XX001", AZOTH_ERR_CORRUPT},
                 {"XX002", AZOTH_ERR_CORRUPT}};
    if (s->no_memory)
        return AZOTH_ERR_NOMEM;
    if (!*s->state)
        return AZOTH_ERR_UNREACHABLE;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (in_class(s, codes[i].class))
            return codes[i].code;
    return AZOTH_ERR_IO;
}

static int db_error(struct sql_db *db, struct azoth_error *err, const char *what)
{
    return error_foreign(err, code_of(session_of(db)), db_code(db), "%s: %s", what, db_message(db));
}

/* ---- the connection ---- */

static void db_close(struct sql_db *db)
{
    PQfinish(session_of(db)->c);
    free(db);
}

int sql_pg_take(struct session *s, PGresult *r)
{
    ExecStatusType status = PQresultStatus(r);
    int rc = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? 0 : sql_pg_fail_result(s, r);
    if (!rc)
        s->changes = strtoll(PQcmdTuples(r), NULL, 10);
    PQclear(r);
    return rc;
}

static int db_exec(struct sql_db *db, const char *sql)
{
    struct session *s = session_of(db);
    struct buf text = {0};
    int rc = pgtext_own(sql, &text) ? sql_pg_fail_memory(s)
                                    : sql_pg_take(s, PQexec(s->c, (char *)text.ptr));
    buf_fini(&text);
    return rc;
}

static void db_guard(struct sql_db *db, int on)
{
    session_of(db)->guarded = on;
}

static int db_in_transaction(struct sql_db *db)
{
    PGTransactionStatusType t = PQtransactionStatus(session_of(db)->c);
    return t == PQTRANS_INTRANS || t == PQTRANS_INERROR || t == PQTRANS_ACTIVE;
}

static int64_t db_changes(struct sql_db *db)
{
    return session_of(db)->changes;
}

/* The server keeps its log itself. */
static void db_nothing(struct sql_db *db)
{
    (void)db;
}

static int db_idle(struct sql_db *db)
{
    (void)db;
    return 0;
}

/* Neither bytes, nor who pins them. */
static uint64_t db_no_log(struct sql_db *db)
{
    (void)db;
    return 0;
}

/* ---- preparing ---- */

static void stmt_finalize(struct sql_stmt *stmt)
{
    /* What was prepared in the server goes with the session: it is to be closed, or few are left. */
    struct prepared *p = prepared_of(stmt);
    for (int i = 0; p->parameter && i < p->parameters; i++)
        free(p->parameter[i]);
    free(p->parameter);
    free(p->type);
    free(p->value);
    free(p->bytes);
    free(p->len);
    free(p->format);
    buf_fini(&p->buf);
    PQclear(p->result);
    free(p);
}

static int make_room(struct prepared *p, int parameters)
{
    size_t n = (size_t)parameters + 1;
    p->parameters = parameters;
    p->type = calloc(n, sizeof *p->type);
    p->value = calloc(n, sizeof *p->value);
    p->bytes = calloc(n, sizeof *p->bytes);
    p->len = calloc(n, sizeof *p->len);
    p->format = calloc(n, sizeof *p->format);
    return p->type && p->value && p->bytes && p->len && p->format ? 0
                                                                  : sql_pg_fail_memory(p->session);
}

static int describe(struct prepared *p)
{
    struct session *s = p->session;
    PGresult *r = PQdescribePrepared(s->c, p->name);
    int rc = PQresultStatus(r) == PGRES_COMMAND_OK ? 0 : sql_pg_fail_result(s, r);
    if (!rc)
        rc = make_room(p, PQnparams(r));
    for (int i = 0; !rc && i < p->parameters; i++) {
        p->type[i] = PQparamtype(r, i);
        p->format[i] = p->type[i] == T_BYTEA;
    }
    PQclear(r);
    return rc;
}

/* types: of the first n parameters, 0: the server infers it. */
static int prepare(struct session *s, const char *sql, int own, const Oid *types, int n,
                   struct prepared **ret)
{
    struct prepared *p = calloc(1, sizeof *p);
    *ret = p;
    if (!p)
        return sql_pg_fail_memory(s);
    p->base.ops = &sql_pg_ops;
    p->session = s;
    p->own = own;
    p->commits = strcmp(sql, "COMMIT") == 0;
    snprintf(p->name, sizeof p->name, "azoth_%" PRIu64, ++s->statements);
    int rc = sql_pg_take(s, PQprepare(s->c, p->name, sql, n, types));
    return rc ? rc : describe(p);
}

static int db_prepare(struct sql_db *db, const char *sql, struct sql_stmt **ret)
{
    struct session *s = session_of(db);
    struct prepared *p = NULL;
    struct buf text = {0};
    int rc = pgtext_own(sql, &text) ? sql_pg_fail_memory(s)
                                    : prepare(s, (char *)text.ptr, 1, NULL, 0, &p);
    buf_fini(&text);
    if (rc && p)
        stmt_finalize(&p->base);
    if (!rc)
        *ret = &p->base;
    return rc;
}

static int take_names(struct prepared *p, struct pgtext *t)
{
    if (p->parameters != t->parameters)
        return sql_pg_fail(p->session, "42P02", "the server counts %d parameters, not %d",
                           p->parameters, t->parameters);
    p->parameter = calloc((size_t)p->parameters + 1, sizeof *p->parameter);
    if (!p->parameter)
        return sql_pg_fail_memory(p->session);
    for (int i = 0; i < p->parameters; i++) {
        p->parameter[i] = t->parameter[i].name;
        t->parameter[i].name = NULL;
    }
    return 0;
}

/* The byte of the given text that the server's position, in characters, is about. */
static size_t wrong_byte(const struct session *s, const struct pgtext *t)
{
    size_t at = 0;
    if (!s->position)
        return 0;
    for (size_t left = s->position - 1; left && at < t->len; left--)
        for (at++; at < t->len && (t->sql.ptr[at] & 0xc0) == 0x80;)
            at++;
    return pgtext_place(t, at);
}

/* The event's own numbers are of 64 bits: in `@id % 10` the server would infer the 32 of what is beside it. */
static Oid *own_types(const struct pgtext *t)
{
    Oid *types = calloc((size_t)t->parameters + 1, sizeof *types);
    for (int i = 0; types && i < t->parameters; i++) {
        const char *name = t->parameter[i].name;
        if (strcmp(name, "@id") == 0 || strcmp(name, "@txn") == 0 || strcmp(name, "@time") == 0)
            types[i] = T_INT8;
    }
    return types;
}

static int prepare_text(struct session *s, struct pgtext *t, struct sql_stmt **ret,
                        size_t *ret_wrong)
{
    struct prepared *p = NULL;
    Oid *types = own_types(t);
    int rc =
        types ? prepare(s, (char *)t->sql.ptr, 0, types, t->parameters, &p) : sql_pg_fail_memory(s);
    free(types);
    if (!rc)
        rc = take_names(p, t);
    if (rc)
        *ret_wrong = wrong_byte(s, t);
    if (rc && p)
        stmt_finalize(&p->base);
    if (!rc)
        *ret = &p->base;
    return rc;
}

static int db_prepare_first(struct sql_db *db, struct azoth_bytes text, struct sql_stmt **ret,
                            size_t *ret_used, size_t *ret_wrong)
{
    struct session *s = session_of(db);
    struct pgtext t;
    *ret = NULL;
    *ret_wrong = 0;
    int rc = pgtext_first(text, &t, ret_used) ? sql_pg_fail_memory(s) : 0;
    if (!rc && !t.empty) {
        const char *why =
            s->guarded ? pgtext_refused(bytes_of(text.ptr, *ret_used), ret_wrong) : NULL;
        rc = why ? sql_pg_fail(s, "0A000", "%s", why) : prepare_text(s, &t, ret, ret_wrong);
    }
    pgtext_fini(&t);
    return rc;
}

static int stmt_parameters(struct sql_stmt *s)
{
    return prepared_of(s)->parameters;
}

static const char *stmt_parameter(struct sql_stmt *s, int i)
{
    const struct prepared *p = prepared_of(s);
    return p->parameter ? p->parameter[i] : NULL;
}

static int stmt_wants_json(struct sql_stmt *s, int i)
{
    Oid type = prepared_of(s)->type[i];
    return type == T_JSON || type == T_JSONB;
}

/* ---- values ---- */

static int unbound(struct prepared *p)
{
    p->unbound = 1;
    return SQL_FAILED;
}

/* A copy with a NUL behind it, as libpq wants text. */
static int bind_copy(struct prepared *p, int i, const char *text, size_t len)
{
    p->value[i] = (struct value){.from = p->buf.len, .len = len};
    if (buf_add(&p->buf, text, len) || buf_add(&p->buf, "", 1)) {
        sql_pg_fail_memory(p->session);
        return unbound(p);
    }
    return 0;
}

static int stmt_bind_int64(struct sql_stmt *s, int i, int64_t n)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%" PRId64, n);
    return bind_copy(prepared_of(s), i, text, (size_t)len);
}

/* The shortest text that is this number: 0.1 is 0.1 in a numeric, too. */
static int stmt_bind_double(struct sql_stmt *s, int i, double x)
{
    char text[40];
    int len = 0;
    for (int digits = 15; digits <= 17; digits++) {
        len = snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    return bind_copy(prepared_of(s), i, text, (size_t)len);
}

/* Ours hold messages, which may be cut in the middle of a character. */
static int bind_mended(struct prepared *p, int i, struct azoth_bytes b)
{
    int rc = bind_copy(p, i, b.len ? b.ptr : "", b.len);
    for (size_t k = 0; !rc && k < b.len; k++) {
        unsigned char *c = &p->buf.ptr[p->value[i].from + k];
        if (*c == 0 || *c >= 0x80)
            *c = '?';
    }
    return rc;
}

static int stmt_bind_text(struct sql_stmt *s, int i, struct azoth_bytes b)
{
    struct prepared *p = prepared_of(s);
    if (p->format[i]) {
        p->value[i] = (struct value){.bytes = b.len ? b.ptr : "", .len = b.len};
        return 0;
    }
    if (b.len && (memchr(b.ptr, 0, b.len) || !utf8_valid(b))) {
        if (p->own)
            return bind_mended(p, i, b);
        sql_pg_fail(p->session, "22021", "a value is not UTF-8 text without NULs (SQLSTATE 22021)");
        return unbound(p);
    }
    return bind_copy(p, i, b.len ? b.ptr : "", b.len);
}

static int stmt_bind_owned(struct sql_stmt *s, int i, char *text)
{
    struct prepared *p = prepared_of(s);
    int rc = bind_copy(p, i, text, strlen(text));
    free(text);
    return rc;
}

static int stmt_bind_null(struct sql_stmt *s, int i)
{
    prepared_of(s)->value[i] = (struct value){.null = 1};
    return 0;
}

/* ---- running ---- */

static int run(struct prepared *p)
{
    struct session *s = p->session;
    for (int i = 0; i < p->parameters; i++) {
        const struct value *v = &p->value[i];
        p->bytes[i] = v->null ? NULL : v->bytes ? v->bytes : (char *)p->buf.ptr + v->from;
        p->len[i] = (int)v->len;
    }
    p->result = PQexecPrepared(s->c, p->name, p->parameters, p->bytes, p->len, p->format, p->own);
    ExecStatusType status = PQresultStatus(p->result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        return sql_pg_fail_result(s, p->result);
    if (p->commits && strcmp(PQcmdStatus(p->result), "COMMIT") != 0)
        return sql_pg_fail(s, "40000", "COMMIT of a transaction that had failed");
    s->changes = strtoll(PQcmdTuples(p->result), NULL, 10);
    p->rows = PQntuples(p->result);
    p->row = -1;
    return 0;
}

static int stmt_step(struct sql_stmt *stmt)
{
    struct prepared *p = prepared_of(stmt);
    if (p->unbound)
        return SQL_FAILED;
    if (!p->result && run(p))
        return SQL_FAILED;
    if (p->row + 1 >= p->rows)
        return SQL_DONE;
    p->row++;
    return SQL_ROW;
}

static void stmt_reset(struct sql_stmt *s)
{
    struct prepared *p = prepared_of(s);
    PQclear(p->result);
    p->result = NULL;
    p->row = p->rows = 0;
    p->unbound = 0;
    buf_clear(&p->buf);
}

/* ---- columns of ours: binary, so integers are big-endian ---- */

static int64_t stmt_int64(struct sql_stmt *s, int i)
{
    const struct prepared *p = prepared_of(s);
    const unsigned char *b = (const unsigned char *)PQgetvalue(p->result, p->row, i);
    int len = PQgetisnull(p->result, p->row, i) ? 0 : PQgetlength(p->result, p->row, i);
    uint64_t n = len > 1 && len < 8 && (b[0] & 0x80) ? UINT64_MAX : 0;
    for (int k = 0; k < len && k < 8; k++)
        n = n << 8 | b[k];
    return (int64_t)n;
}

static const char *stmt_text(struct sql_stmt *s, int i)
{
    const struct prepared *p = prepared_of(s);
    return PQgetisnull(p->result, p->row, i) ? NULL : PQgetvalue(p->result, p->row, i);
}

static struct azoth_bytes stmt_bytes(struct sql_stmt *s, int i)
{
    const struct prepared *p = prepared_of(s);
    return bytes_of(stmt_text(s, i), (size_t)PQgetlength(p->result, p->row, i));
}

const struct sql_ops sql_pg_ops = {
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
    .keep_log = db_nothing,
    .committed = db_nothing,
    .idle = db_idle,
    .log_bytes = db_no_log,
    .log_pinned_ns = db_no_log,
    .finalize = stmt_finalize,
    .parameters = stmt_parameters,
    .parameter = stmt_parameter,
    .wants_json = stmt_wants_json,
    .bind_int64 = stmt_bind_int64,
    .bind_double = stmt_bind_double,
    .bind_text = stmt_bind_text,
    .bind_owned = stmt_bind_owned,
    .bind_blob = stmt_bind_text,
    .bind_null = stmt_bind_null,
    .step = stmt_step,
    .reset = stmt_reset,
    .int64 = stmt_int64,
    .text = stmt_text,
    .bytes = stmt_bytes,
};
