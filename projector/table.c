/*
 * table.c - applying events to a projection's file.
 *
 * Happy path: BEGIN IMMEDIATE; for each event its handler's statements; the cursor; COMMIT. Exactly
 * once in effect, because rows and cursor are one transaction, whatever is killed when.
 *
 * Failure modes
 *   killed before COMMIT     SQLite rolls back; the cursor is the old one; the events come again
 *   killed after COMMIT      the cursor is the new one; a repeated batch does not begin at cursor + 1
 *   a handler fails          see apply.c
 *   power cut                synchronous=NORMAL may lose the last transactions, cursor and all: the
 *                            log still has the events
 *   COMMIT fails, unclear    the next batch finds the cursor in the file elsewhere and is refused
 *
 * Invariants
 *   1  rows and cursor change in one transaction, from the cursor that this handle knows
 *   2  nothing of an event whose handler failed is ever committed
 *   3  when no transaction runs, handle and file have the same cursor
 */
#include "projector/table.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "core/record.h"
#include "projector/failure.h"
#include "projector/table_own.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

/* ---- preparing ---- */

static int parameter_of(const char *name, struct parameter *ret)
{
    static const struct {
        const char *name;
        enum parameter_kind kind;
    } known[] = {{"@id", P_ID},   {"@type", P_TYPE}, {"@time", P_TIME},
                 {"@txn", P_TXN}, {"@key", P_KEY},   {"@payload", P_PAYLOAD}};
    if (!name)
        return 0;
    if (name[0] == ':' && strlen(name) <= PARAMETER_FIELD_MAX + 1) {
        ret->kind = P_FIELD;
        snprintf(ret->name, sizeof ret->name, "%s", name + 1);
        return 1;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0) {
            ret->kind = known[i].kind;
            return 1;
        }
    return 0;
}

int table_parameter_valid(const char *name)
{
    struct parameter ignored;
    return parameter_of(name, &ignored);
}

/* c stands behind the statement. */
static int bind_names(struct table *t, struct handler *h, struct statement *s,
                      const struct sql_cursor *c, struct azoth_error *err)
{
    s->parameters = sql_parameters(s->stmt);
    s->parameter = calloc((size_t)s->parameters + 1, sizeof *s->parameter);
    if (!s->parameter)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", t->def->path);
    for (int i = 0; i < s->parameters; i++) {
        const char *name = sql_parameter(s->stmt, i);
        if (!parameter_of(name, &s->parameter[i])) {
            uint32_t line, column;
            sqlfile_position(c->block, sqlfile_find(c->block->text, c->from, c->at, name), &line,
                             &column);
            return error_set(err, AZOTH_ERR_PROJECTION,
                             "%s:%u:%u: parameter %s is neither :field (up to 63 bytes) nor one of "
                             "@id @type @time @txn @key @payload",
                             t->def->path, line, column, name ? name : "?");
        }
        s->parameter[i].json = s->parameter[i].kind == P_FIELD && sql_wants_json(s->stmt, i);
        if (s->parameter[i].kind == P_FIELD && !h->fields_line)
            h->fields_line = s->line;
    }
    return 0;
}

static int prepare_handler(struct table *t, struct handler *h, struct azoth_error *err)
{
    struct sql_cursor c = {.path = t->def->path, .block = &h->def->sql};
    struct sql_stmt *stmt;
    int rc;
    while ((rc = tablefile_next(&t->file, &c, &stmt, err)) == 1) {
        struct statement *all = realloc(h->statement, (h->statements + 1) * sizeof *all);
        if (!all) {
            sql_finalize(stmt);
            return error_set(err, AZOTH_ERR_NOMEM, "%s", t->def->path);
        }
        h->statement = all;
        h->statement[h->statements] = (struct statement){.stmt = stmt, .line = c.line};
        rc = bind_names(t, h, &h->statement[h->statements++], &c, err);
        if (rc)
            return rc;
    }
    if (!rc && h->statements == 0 && !h->def->in_c)
        rc = error_set(err, AZOTH_ERR_PROJECTION, "%s:%u:1: this handler has no SQL", t->def->path,
                       h->def->mark_line);
    return rc;
}

static int add_route(struct table *t, struct azoth_bytes type, const struct handler *h)
{
    unsigned char len = (unsigned char)type.len;
    const struct sql_policy *policy = &t->def->policy;
    for (uint32_t i = 0; i < t->def->policies; i++)
        if (bytes_eq(t->def->policy_for[i].type, type))
            policy = &t->def->policy_for[i].policy;
    t->route[t->routes++] =
        (struct route){type, h, h->def->in_c ? library_handler(t->library, type) : NULL, policy};
    return buf_add(&t->types, &len, 1) || buf_add(&t->types, type.ptr, type.len);
}

static int compare_routes(const void *a, const void *b)
{
    return bytes_cmp(((const struct route *)a)->type, ((const struct route *)b)->type);
}

static int prepare_all(struct table *t, struct azoth_error *err)
{
    const struct sqlfile *d = t->def;
    size_t types = 0;
    for (uint32_t i = 0; i < d->handlers; i++)
        types += d->handler[i].types_len;
    t->handler = calloc(d->handlers + 1, sizeof *t->handler);
    t->route = calloc(types + 1, sizeof *t->route);
    if (!t->handler || !t->route)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", d->path);
    for (uint32_t i = 0; i < d->handlers; i++) {
        t->handler[i].def = &d->handler[i];
        int rc = prepare_handler(t, &t->handler[i], err);
        if (rc)
            return rc;
        for (uint32_t k = 0; k < d->handler[i].types_len; k++)
            if (add_route(t, d->handler[i].types[k], &t->handler[i]))
                return error_set(err, AZOTH_ERR_NOMEM, "%s", d->path);
    }
    qsort(t->route, t->routes, sizeof *t->route, compare_routes);
    return 0;
}

static int prepare_own(struct table *t, struct azoth_error *err)
{
    static const char *const sql[] = {
        "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", "SAVEPOINT azoth_event", "RELEASE azoth_event",
        "ROLLBACK TO azoth_event",
        /* The handlers are those that made the rows up to the cursor: stored as it moves. */
        ("UPDATE azoth_projection SET cursor = ?1, cursor_check = ?2, handlers = ?3"
         " WHERE id = 1 AND cursor = ?4")};
    struct sql_stmt **to[] = {&t->begin,   &t->commit,      &t->rollback, &t->savepoint,
                              &t->release, &t->rollback_to, &t->move};
    int rc = 0;
    for (size_t i = 0; i < sizeof sql / sizeof *sql && !rc; i++)
        rc = tablefile_prepare(&t->file, sql[i], to[i], err);
    if (!rc)
        sql_keep_log(t->file.sql);
    return rc;
}

int table_open(const struct sqlfile *def, const struct table_options *o, struct table **ret,
               struct azoth_error *err)
{
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(err, AZOTH_ERR_NOMEM, "a projection");
    t->def = def;
    t->file.lock_fd = -1;
    int rc = library_load(def, o->load, &t->library, err);
    t->file.library = library_makers(t->library);
    if (!rc)
        rc = tablefile_open(&t->file, def, o, &t->cursor, &t->cursor_check, err);
    if (!rc)
        rc = prepare_own(t, err);
    if (!rc)
        rc = dlq_open(t, err);
    if (!rc) {
        sql_guard(t->file.sql, 1);
        rc = prepare_all(t, err);
        sql_guard(t->file.sql, 0);
    }
    if (!rc)
        rc = coverage_open(&t->file, buf_bytes(&t->types), table_shard_by(def, o), t->cursor,
                           &t->coverage, &t->faults.sum, err);
    if (!rc)
        rc = replay_open(t, err);
    if (!rc)
        rc = library_start(t->library, &t->file, err);
    if (rc)
        table_close(t);
    else
        *ret = t;
    return rc;
}

void table_close(struct table *t)
{
    if (!t)
        return;
    library_stop(t->library);
    for (uint32_t i = 0; t->handler && i < t->def->handlers; i++) {
        struct handler *h = &t->handler[i];
        for (uint32_t k = 0; k < h->statements; k++) {
            sql_finalize(h->statement[k].stmt);
            free(h->statement[k].parameter);
        }
        free(h->statement);
    }
    free(t->handler);
    free(t->route);
    sql_finalize(t->begin);
    sql_finalize(t->commit);
    sql_finalize(t->rollback);
    sql_finalize(t->savepoint);
    sql_finalize(t->release);
    sql_finalize(t->rollback_to);
    sql_finalize(t->move);
    coverage_close(t->coverage);
    replay_close(t);
    dlq_close(t);
    if (t->file.sql)
        table_idle(t);
    tablefile_close(&t->file);
    library_unload(t->library);
    buf_fini(&t->types);
    free(t->note);
    free(t);
}

void table_cursor(const struct table *t, uint64_t *ret_cursor, uint32_t *ret_check)
{
    *ret_cursor = t->cursor;
    *ret_check = t->cursor_check;
}

struct azoth_bytes table_types(const struct table *t)
{
    return buf_bytes(&t->types);
}

void table_stats(const struct table *t, struct table_stats *ret)
{
    *ret = (struct table_stats){.events = t->events,
                                .batches = t->batches,
                                .failures = t->failures,
                                .wal_bytes = sql_log_bytes(t->file.sql),
                                .wal_pinned_ns = sql_log_pinned_ns(t->file.sql)};
}

uint64_t table_applied_events(const struct table *t)
{
    return t->events;
}

uint64_t table_failures(const struct table *t)
{
    return t->failures;
}

/* ---- applying ---- */

static const struct route *route_of(const struct table *t, struct azoth_bytes type)
{
    const struct route want = {.type = type};
    return bsearch(&want, t->route, t->routes, sizeof want, compare_routes);
}

const struct sql_policy *table_policy(const struct table *t, struct azoth_bytes type)
{
    const struct route *r = route_of(t, type);
    return r ? r->policy : &t->def->policy;
}

void table_set_clock(struct table *t, int64_t wall_ns, uint64_t mono_ns)
{
    t->test_wall_ns = wall_ns;
    t->test_mono_ns = mono_ns;
}

int64_t table_wall(const struct table *t)
{
    return t->test_wall_ns ? t->test_wall_ns : clock_wall_ns();
}

uint64_t table_mono(const struct table *t)
{
    return t->test_mono_ns ? t->test_mono_ns : clock_mono_ns();
}

void table_on_failure(struct table *t, table_failure fn, void *arg)
{
    t->on_failure = fn;
    t->failure_arg = arg;
}

void table_tell_each_failure(struct table *t)
{
    t->tells_each = 1;
}

/* code: the database's, or 0. */
static int handler_error(const struct table *t, const struct event_record *ev, uint32_t line,
                         int code, struct azoth_error *err, const char *why)
{
    char type[60];
    return error_foreign(err, AZOTH_ERR_HANDLER, code, "event %" PRIu64 " (%s): %s:%u: %s", ev->id,
                         bytes_print(ev->type, type, sizeof type), t->def->path, line, why);
}

/* Of what SQL_FAILED says. */
static int failed(const struct table *t, const struct statement *s, const struct event_record *ev,
                  struct azoth_error *err)
{
    struct sql_db *db = t->file.sql;
    return sql_is_machine(db) ? sql_error(db, err, t->file.path)
                              : handler_error(t, ev, s->line, sql_code(db), err, sql_message(db));
}

/* NOMEM, or SQL_FAILED. */
static int bind_text_of(struct sql_stmt *s, int i, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    return text ? sql_bind_owned(s, i, text) : AZOTH_ERR_NOMEM;
}

static int bind_json(struct sql_stmt *s, int i, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_INTEGER:
        return sql_bind_int64(s, i, json_integer_value(v));
    case JSON_REAL:
        return sql_bind_double(s, i, json_real_value(v));
    case JSON_STRING:
        return sql_bind_text(s, i, bytes_of(json_string_value(v), json_string_length(v)));
    case JSON_TRUE:
    case JSON_FALSE:
        return sql_bind_int64(s, i, json_is_true(v));
    case JSON_NULL:
        return sql_bind_null(s, i);
    default:
        return bind_text_of(s, i, v);
    }
}

static int bind_one(const struct table *t, const struct statement *s, int i,
                    const struct event_record *ev, const json_t *payload, struct azoth_error *err)
{
    const struct parameter *p = &s->parameter[i];
    int rc = 0;
    switch (p->kind) {
    case P_FIELD: {
        const json_t *v = json_object_get(payload, p->name);
        if (!v) {
            char why[PARAMETER_FIELD_MAX + 40];
            snprintf(why, sizeof why, "the payload has no field \"%s\"", p->name);
            return handler_error(t, ev, s->line, 0, err, why);
        }
        rc = p->json ? bind_text_of(s->stmt, i, v) : bind_json(s->stmt, i, v);
        break;
    }
    case P_ID:
        rc = sql_bind_int64(s->stmt, i, (int64_t)ev->id);
        break;
    case P_TXN:
        rc = sql_bind_int64(s->stmt, i, (int64_t)ev->txn);
        break;
    case P_TIME:
        rc = sql_bind_int64(s->stmt, i, ev->time_ns);
        break;
    case P_TYPE:
        rc = sql_bind_text(s->stmt, i, ev->type);
        break;
    case P_KEY:
        rc = sql_bind_text(s->stmt, i, ev->key);
        break;
    case P_PAYLOAD:
        rc = utf8_valid(ev->payload) ? sql_bind_text(s->stmt, i, ev->payload)
                                     : sql_bind_blob(s->stmt, i, ev->payload);
        break;
    }
    if (rc == AZOTH_ERR_NOMEM)
        return error_set(err, rc, "event %" PRIu64, ev->id);
    return rc ? failed(t, s, ev, err) : 0;
}

static int run_statement(struct table *t, const struct statement *s, const struct event_record *ev,
                         const json_t *payload, struct azoth_error *err)
{
    int rc = 0, step;
    for (int i = 0; i < s->parameters && !rc; i++)
        rc = bind_one(t, s, i, ev, payload, err);
    if (!rc) {
        do {
            step = sql_step(s->stmt);
        } while (step == SQL_ROW);
        if (step != SQL_DONE)
            rc = failed(t, s, ev, err);
    }
    sql_reset(s->stmt);
    return rc;
}

static int parse_payload(const struct table *t, const struct handler *h,
                         const struct event_record *ev, json_t **ret, struct azoth_error *err)
{
    json_error_t why;
    char text[JSON_ERROR_TEXT_LENGTH + 60];
    *ret =
        json_loadb(ev->payload.len ? ev->payload.ptr : "", ev->payload.len, JSON_ALLOW_NUL, &why);
    if (json_is_object(*ret))
        return 0;
    if (!*ret && json_error_code(&why) == json_error_out_of_memory)
        return error_set(err, AZOTH_ERR_NOMEM, "event %" PRIu64, ev->id);
    if (*ret)
        snprintf(text, sizeof text, "the payload is JSON, but no object");
    else if (ev->payload.len == 0)
        snprintf(text, sizeof text, "the payload is empty, a JSON object is wanted");
    else
        snprintf(text, sizeof text, "the payload is no JSON object: byte %d: %s", why.position,
                 why.text);
    json_decref(*ret);
    return handler_error(t, ev, h->fields_line, 0, err, text);
}

static int run_sql(struct table *t, const struct handler *h, const struct event_record *ev,
                   struct azoth_error *err)
{
    json_t *payload = NULL;
    int rc = h->fields_line ? parse_payload(t, h, ev, &payload, err) : 0;
    if (rc)
        return rc;
    for (uint32_t i = 0; i < h->statements && !rc; i++)
        rc = run_statement(t, &h->statement[i], ev, payload, err);
    json_decref(payload);
    return rc;
}

int table_apply_event(struct table *t, const struct event_record *ev, struct azoth_error *err)
{
    const struct route *r = route_of(t, ev->type);
    if (!r)
        return 0;
    int rc = r->c ? library_run(t->library, r->c, ev, r->handler->def->mark_line, err)
                  : library_flush(t->library, err);
    if (!rc && !r->c)
        rc = run_sql(t, r->handler, ev, err);
    if (!rc)
        t->events_open++;
    return rc;
}

int table_idle(struct table *t)
{
    return sql_idle(t->file.sql);
}
