/*
 * transaction.c - building transactions, committing and submitting them.
 *
 * A commit returns 0 only after the writer said that the batch is durable. It is executed at most
 * once: what was not submitted when the segment is retired is tried on the next one; what was
 * submitted is never sent again, its outcome is told as unknown and can be asked for by its id.
 */
#include "client/internal.h"

#include "core/clock.h"
#include "core/valuejson.h"
#include "writer/control.h"

#include <stdarg.h>
#include <string.h>

#define DEADLINE_MS_MAX 3600000u

/* ---- life ---- */

/* Ids of one handle count up behind its random prefix: unique, and neighbours in the store. */
static void fresh_id(struct azoth_txn *t)
{
    memcpy(t->id, t->db->id_prefix, sizeof t->db->id_prefix);
    uint64_t n = atomic_fetch_add(&t->db->id_next, 1);
    for (int i = 0; i < 6; i++)
        t->id[10 + i] = (uint8_t)(n >> (40 - 8 * i));
}

struct azoth_txn *azoth_txn_new(struct azoth *db)
{
    struct azoth_txn *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->db = db;
    t->deadline_ms = db->deadline_ms;
    t->wait_paused = db->wait_paused;
    fresh_id(t);
    return t;
}

void azoth_txn_free(struct azoth_txn *t)
{
    if (!t)
        return;
    txn_builder_fini(&t->builder);
    buf_fini(&t->scratch);
    free(t);
}

void azoth_txn_reset(struct azoth_txn *t)
{
    txn_builder_clear(&t->builder);
    buf_clear(&t->scratch);
    t->callbacks = 0;
    t->error.code = 0;
    t->deadline_ms = t->db->deadline_ms;
    fresh_id(t);
}

void azoth_txn_id(const struct azoth_txn *t, uint8_t ret[AZOTH_ID_BYTES])
{
    memcpy(ret, t->id, AZOTH_ID_BYTES);
}

void azoth_txn_set_id(struct azoth_txn *t, const uint8_t id[AZOTH_ID_BYTES])
{
    memcpy(t->id, id, AZOTH_ID_BYTES);
}

void azoth_txn_set_deadline(struct azoth_txn *t, uint32_t ms)
{
    t->deadline_ms = ms < 1 ? 1 : ms > DEADLINE_MS_MAX ? DEADLINE_MS_MAX : ms;
}

/* ---- appending ---- */

static int keep(struct azoth_txn *t, int rc, const struct azoth_error *err)
{
    if (rc && !t->error.code) {
        t->error = *err;
        t->error.code = rc;
    }
    return rc;
}

/* Into the transaction, or, inside a callback, to preflight. */
static int add_item(struct azoth_txn *t, const struct txn_item *it)
{
    struct azoth_error err = {0};
    int rc;
    if (!t->view)
        rc = txn_add(&t->builder, it, &err);
    else if (!t->emitting)
        rc = error_set(&err, AZOTH_ERR_USAGE, "a validate callback changes nothing");
    else
        rc = preflight_emit(t->view, it, &err);
    return keep(t, rc, &err);
}

static int add_value(struct azoth_txn *t, enum txn_kind kind, struct azoth_bytes key,
                     struct azoth_value v)
{
    return add_item(t,
                    &(struct txn_item){.kind = kind, .type = v.type, .key = key, .value = v.enc});
}

static int add_key(struct azoth_txn *t, enum txn_kind kind, struct azoth_bytes key)
{
    return add_item(t, &(struct txn_item){.kind = kind, .key = key});
}

static int add_member(struct azoth_txn *t, enum txn_kind kind, struct azoth_bytes key,
                      struct azoth_bytes member)
{
    return add_item(t, &(struct txn_item){.kind = kind, .key = key, .value = member});
}

static int add_i64(struct azoth_txn *t, enum txn_kind kind, struct azoth_bytes key, int64_t n)
{
    struct azoth_value v = {AZOTH_TYPE_I64, {&n, sizeof n}};
    return add_value(t, kind, key, v);
}

/* A value made by fn into scratch, or fn's error. */
static int add_made(struct azoth_txn *t, enum txn_kind kind, struct azoth_bytes key, int rc,
                    const struct azoth_value *v)
{
    struct azoth_error err = {0};
    if (rc) {
        char text[80];
        error_set(&err, rc, "key %s: %s", bytes_print(key, text, sizeof text),
                  azoth_code_sentence(rc));
        return keep(t, rc, &err);
    }
    return add_value(t, kind, key, *v);
}

static int add_u256(struct azoth_txn *t, enum txn_kind kind, struct azoth_bytes key,
                    const struct azoth_u256 *n)
{
    struct azoth_value v;
    buf_clear(&t->scratch);
    return add_made(t, kind, key, value_make_u256(&t->scratch, n, &v), &v);
}

int azoth_read(struct azoth_txn *t, struct azoth_bytes key)
{
    return add_key(t, TXN_READ, key);
}

int azoth_write(struct azoth_txn *t, struct azoth_bytes key)
{
    return add_key(t, TXN_WRITE, key);
}

int azoth_require_exists(struct azoth_txn *t, struct azoth_bytes key)
{
    return add_key(t, TXN_REQUIRE_EXISTS, key);
}

int azoth_require_absent(struct azoth_txn *t, struct azoth_bytes key)
{
    return add_key(t, TXN_REQUIRE_ABSENT, key);
}

int azoth_require_equals(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value v)
{
    return add_value(t, TXN_REQUIRE_EQUALS, key, v);
}

int azoth_require_min(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value v)
{
    return add_value(t, TXN_REQUIRE_MIN, key, v);
}

int azoth_require_max(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value v)
{
    return add_value(t, TXN_REQUIRE_MAX, key, v);
}

int azoth_require_min_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t least)
{
    return add_i64(t, TXN_REQUIRE_MIN, key, least);
}

int azoth_require_max_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t greatest)
{
    return add_i64(t, TXN_REQUIRE_MAX, key, greatest);
}

int azoth_require_type(struct azoth_txn *t, struct azoth_bytes key, enum azoth_type type)
{
    return add_item(t, &(struct txn_item){.kind = TXN_REQUIRE_TYPE, .type = type, .key = key});
}

int azoth_require_contains(struct azoth_txn *t, struct azoth_bytes key, struct azoth_bytes member)
{
    return add_member(t, TXN_REQUIRE_CONTAINS, key, member);
}

int azoth_require_version(struct azoth_txn *t, struct azoth_bytes key, uint64_t version)
{
    return add_member(t, TXN_REQUIRE_VERSION, key, bytes_of(&version, sizeof version));
}

int azoth_set(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value v)
{
    return add_value(t, TXN_SET, key, v);
}

int azoth_set_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t n)
{
    return add_i64(t, TXN_SET, key, n);
}

int azoth_set_u256(struct azoth_txn *t, struct azoth_bytes key, const struct azoth_u256 *n)
{
    return add_u256(t, TXN_SET, key, n);
}

int azoth_set_string(struct azoth_txn *t, struct azoth_bytes key, struct azoth_bytes utf8)
{
    return add_value(t, TXN_SET, key, (struct azoth_value){AZOTH_TYPE_STRING, utf8});
}

int azoth_set_bytes(struct azoth_txn *t, struct azoth_bytes key, struct azoth_bytes b)
{
    return add_value(t, TXN_SET, key, (struct azoth_value){AZOTH_TYPE_BYTES, b});
}

int azoth_set_set(struct azoth_txn *t, struct azoth_bytes key, const struct azoth_bytes *members,
                  size_t n)
{
    struct azoth_value v;
    buf_clear(&t->scratch);
    return add_made(t, TXN_SET, key, value_make_set(&t->scratch, members, n, &v), &v);
}

int azoth_set_array(struct azoth_txn *t, struct azoth_bytes key, const struct azoth_bytes *members,
                    size_t n)
{
    struct azoth_value v;
    buf_clear(&t->scratch);
    return add_made(t, TXN_SET, key, value_make_array(&t->scratch, members, n, &v), &v);
}

int azoth_delete(struct azoth_txn *t, struct azoth_bytes key)
{
    return add_key(t, TXN_DELETE, key);
}

int azoth_add(struct azoth_txn *t, struct azoth_bytes key, struct azoth_value delta)
{
    return add_value(t, TXN_ADD, key, delta);
}

int azoth_add_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t delta)
{
    return add_i64(t, TXN_ADD, key, delta);
}

int azoth_add_u256(struct azoth_txn *t, struct azoth_bytes key, const struct azoth_u256 *delta)
{
    return add_u256(t, TXN_ADD, key, delta);
}

int azoth_set_add(struct azoth_txn *t, struct azoth_bytes key, struct azoth_bytes member)
{
    return add_member(t, TXN_SET_ADD, key, member);
}

int azoth_set_remove(struct azoth_txn *t, struct azoth_bytes key, struct azoth_bytes member)
{
    return add_member(t, TXN_SET_REMOVE, key, member);
}

int azoth_array_push(struct azoth_txn *t, struct azoth_bytes key, struct azoth_bytes member)
{
    return add_member(t, TXN_ARRAY_PUSH, key, member);
}

int azoth_event(struct azoth_txn *t, const struct azoth_event_in *ev)
{
    return add_item(t, &(struct txn_item){.kind = TXN_EVENT,
                                          .key = ev->stream,
                                          .name = ev->type,
                                          .metadata = ev->metadata,
                                          .value = ev->payload});
}

int azoth_event_json(struct azoth_txn *t, const char *type, const char *json)
{
    json_error_t why;
    json_t *j = json_loads(json, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
    if (!j) {
        struct azoth_error err;
        return keep(t, error_set(&err, AZOTH_ERR_BAD_JSON, "payload of %s: %s", type, why.text),
                    &err);
    }
    json_decref(j);
    return azoth_event_bytes(t, type, bytes_str(json));
}

int azoth_event_bytes(struct azoth_txn *t, const char *type, struct azoth_bytes payload)
{
    return azoth_event(t, &(struct azoth_event_in){.type = bytes_str(type), .payload = payload});
}

/* ---- callbacks ---- */

static int add_callback(struct azoth_txn *t, azoth_callback fn, void *arg, int execute)
{
    struct azoth_error err;
    if (t->db->remote)
        return keep(
            t, error_set(&err, AZOTH_ERR_UNSUPPORTED, "callbacks run in attached processes"), &err);
    if (t->callbacks == sizeof t->callback / sizeof *t->callback)
        return keep(t, error_set(&err, AZOTH_ERR_FULL, "a transaction has at most 8 callbacks"),
                    &err);
    t->callback[t->callbacks++] = (struct callback){fn, arg, execute};
    return 0;
}

int azoth_validate(struct azoth_txn *t, azoth_callback fn, void *arg)
{
    return add_callback(t, fn, arg, 0);
}

int azoth_execute(struct azoth_txn *t, azoth_callback fn, void *arg)
{
    return add_callback(t, fn, arg, 1);
}

static int run_callbacks(struct preflight_view *view, void *arg, struct azoth_error *err)
{
    struct azoth_txn *t = arg;
    int rc = 0;
    t->view = view;
    client_in_callback++;
    for (uint32_t i = 0; i < t->callbacks && !rc; i++) {
        t->emitting = t->callback[i].execute;
        rc = t->callback[i].fn(t, t->callback[i].arg);
        if (!rc && t->error.code) /* an append inside it failed and it did not say so */
            rc = t->error.code;
    }
    client_in_callback--;
    t->view = NULL;
    if (rc) {
        if (t->error.code == rc)
            *err = t->error;
        else
            error_set(err, rc < 0 ? rc : AZOTH_ERR_REJECTED, "a callback returned %d", rc);
    }
    t->error.code = 0;
    return rc > 0 ? AZOTH_ERR_REJECTED : rc;
}

int azoth_txn_get(struct azoth_txn *t, struct azoth_bytes key, struct azoth_entry *ret)
{
    struct azoth_error err;
    struct state_record st;
    if (!t->view)
        return keep(t, error_set(&err, AZOTH_ERR_USAGE, "azoth_txn_get is for callbacks"), &err);
    int rc = preflight_read(t->view, key, &st, &err);
    if (rc == AZOTH_ERR_NOT_FOUND)
        return rc; /* an answer, no failure */
    if (rc)
        return keep(t, rc, &err);
    *ret = (struct azoth_entry){st.version, st.value};
    return 0;
}

int azoth_txn_get_i64(struct azoth_txn *t, struct azoth_bytes key, int64_t *ret)
{
    struct azoth_entry e;
    int rc = azoth_txn_get(t, key, &e);
    return rc ? rc : value_i64(e.value, ret);
}

int azoth_reject(struct azoth_txn *t, const char *fmt, ...)
{
    struct azoth_error err = {.code = AZOTH_ERR_REJECTED};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err.message, sizeof err.message, fmt, ap);
    va_end(ap);
    return keep(t, AZOTH_ERR_REJECTED, &err);
}

/* ---- committing ---- */

void commit_info_of(const struct txn_result *r, struct azoth_commit_info *ret)
{
    *ret = (struct azoth_commit_info){
        .txn = r->txn,
        .first_event = r->first_event,
        .last_event = r->last_event,
        .keys_written = r->keys_written,
        .keys_deleted = r->keys_deleted,
        .keys_missing = r->keys_missing,
        .duplicate = r->duplicate,
    };
}

void txn_request(struct azoth_txn *t, uint64_t deadline_ns, struct preflight_request *ret)
{
    struct azoth_bytes image = txn_image(&t->builder);
    *ret = (struct preflight_request){
        .image = image,
        .id = t->id,
        .content = txn_content_hash(image, (struct azoth_bytes){0}),
        .deadline_ns = deadline_ns,
        .wait_paused = t->wait_paused,
    };
    if (t->callbacks)
        ret->hooks = (struct preflight_hooks){run_callbacks, t};
}

/* One transaction on one attachment until it is done; embedded, the caller may be the writer. */
static void run_local(struct local *l, struct attachment *a, struct preflight *f,
                      const struct preflight_request *r, struct preflight_outcome *ret)
{
    preflight_begin(f, r);
    for (;;) {
        uint64_t now = local_now(l);
        enum preflight_stage st = preflight_step(f, now);
        if (st == PREFLIGHT_DONE)
            break;
        if (st == PREFLIGHT_SUBMITTED) {
            if (local_step(l))
                continue;
            slot_wake_writer(a->segment);
        }
        preflight_wait(f, now);
    }
    preflight_end(f, ret);
}

static int commit_local(struct local *l, const struct preflight_request *r,
                        struct preflight_outcome *ret)
{
    for (;;) {
        struct attachment *a;
        int rc = local_attach(l, r->deadline_ns, &a, &ret->error);
        if (rc)
            return ret->code = rc;
        struct preflight *f = local_preflight(l, a);
        if (!f) {
            local_release(l, a);
            return ret->code = error_set(&ret->error, AZOTH_ERR_NOMEM, "a transaction");
        }
        run_local(l, a, f, r, ret);
        local_preflight_put(l, a, f);
        local_release(l, a);
        /* Refused before anything was queued: the next segment is as good. */
        if (ret->code != AZOTH_ERR_RETIRED || clock_mono_ns() >= r->deadline_ns)
            return ret->code;
    }
}

int client_control(struct azoth *db, const char *operation, struct azoth_bytes argument,
                   uint64_t deadline_ns, struct txn_result *ret, struct azoth_error *err)
{
    int rc = client_allowed(db, AZOTH_ERR_USAGE, err);
    if (rc)
        return rc;
    if (db->remote || db->read_only)
        return error_set(err, AZOTH_ERR_UNSUPPORTED,
                         "%s is for processes that are attached to the database for writing",
                         operation);
    struct txn_builder b = {0};
    struct preflight_outcome o = {0};
    rc = txn_set_control(&b, bytes_str(operation), argument, err);
    if (!rc) {
        struct preflight_request r = {.image = txn_image(&b),
                                      .deadline_ns = deadline_ns,
                                      .wait_paused = control_waits(bytes_str(operation)),
                                      .control = 1};
        rc = commit_local(db->local, &r, &o);
        if (rc && err)
            *err = o.error;
        if (!rc)
            *ret = o.result;
    }
    txn_builder_fini(&b);
    return rc;
}

static void wire_of(struct azoth_txn *t, struct wire_request *ret)
{
    *ret = (struct wire_request){
        .kind = WIRE_TX,
        .flags = t->wait_paused ? WIRE_WAIT_PAUSED : 0,
        .deadline_ms = t->deadline_ms,
        .limit = 1,
        .id = bytes_of(t->id, sizeof t->id),
        .body = txn_image(&t->builder),
    };
}

static void info_of_answer(const struct wire_answer *a, struct azoth_commit_info *ret)
{
    *ret = (struct azoth_commit_info){
        .txn = a->txn,
        .first_event = a->first_event,
        .last_event = a->last_event,
        .keys_written = a->keys_written,
        .keys_deleted = a->keys_deleted,
        .keys_missing = a->keys_missing,
        .duplicate = (a->flags & WIRE_DUPLICATE) != 0,
    };
}

static int error_of_answer(const struct wire_answer *a, struct azoth_error *err)
{
    return error_set(err, a->code, "%.*s", (int)a->message.len, (const char *)a->message.ptr);
}

static int commit_remote(struct azoth_txn *t, const struct wire_request *req, uint64_t deadline_ns,
                         struct azoth_commit_info *info, struct azoth_error *err)
{
    struct buf store = {0};
    struct wire_answer a;
    int rc = remote_call(t->db->remote, req, deadline_ns, &store, &a, err);
    if (!rc && a.code)
        rc = error_of_answer(&a, err);
    if (!rc && info)
        info_of_answer(&a, info);
    buf_fini(&store);
    return rc;
}

static int ready(struct azoth_txn *t, struct azoth_error *err)
{
    int rc = handle_check(t->db, err);
    if (rc)
        return rc;
    if (client_in_callback)
        return error_set(err, AZOTH_ERR_USAGE, "a callback cannot commit");
    if (t->db->read_only)
        return error_set(err, AZOTH_ERR_UNSUPPORTED, "the handle was opened for reading only");
    if (t->error.code && err)
        *err = t->error;
    return t->error.code;
}

int azoth_commit(struct azoth_txn *t, struct azoth_commit_info *info, struct azoth_error *err)
{
    int rc = ready(t, err);
    if (rc)
        return rc;
    uint64_t deadline_ns = clock_mono_ns() + t->deadline_ms * NS_PER_MS;
    if (t->db->remote) {
        struct wire_request req;
        wire_of(t, &req);
        return commit_remote(t, &req, deadline_ns, info, err);
    }
    struct preflight_outcome o;
    struct preflight_request r;
    txn_request(t, deadline_ns, &r);
    rc = commit_local(t->db->local, &r, &o);
    if (rc && err)
        *err = o.error;
    if (!rc && info)
        commit_info_of(&o.result, info);
    return rc;
}

int azoth_call(struct azoth_txn *t, const char *command, struct azoth_bytes args,
               struct azoth_commit_info *info, struct azoth_error *err)
{
    int rc = ready(t, err);
    if (rc)
        return rc;
    if (!t->db->remote)
        return error_set(err, AZOTH_ERR_UNSUPPORTED,
                         "commands run in workers: open with azoth_connect()");
    struct wire_request req;
    wire_of(t, &req);
    req.kind = WIRE_CALL;
    req.name = bytes_str(command);
    req.args = args;
    return commit_remote(t, &req, clock_mono_ns() + t->deadline_ms * NS_PER_MS, info, err);
}

/* ---- submitting ---- */

static void remote_finished(void *arg, int code, const struct wire_answer *answer,
                            const struct azoth_error *err)
{
    struct operation *op = arg;
    struct azoth_commit_info info = {0};
    struct azoth_error why = {0};
    if (code && err)
        why = *err;
    if (!code && answer->code)
        code = error_of_answer(answer, &why);
    if (!code)
        info_of_answer(answer, &info);
    struct operation copy = *op;
    free(op);
    copy.done(copy.txn, code, &info, &why, copy.arg);
}

static int submit_remote(struct azoth_txn *t, struct operation *op, struct azoth_error *err)
{
    struct wire_request req;
    wire_of(t, &req);
    int rc = remote_submit(t->db->remote, &req, op->deadline_ns, remote_finished, op, err);
    if (rc)
        free(op);
    return rc;
}

/*
 * May op go on without overtaking one of the first n that still wait for their locks? Those that
 * touch the same keys keep the order of submission. Beyond a few that wait, it waits too.
 */
static int in_order(const struct azoth *db, uint32_t n, const struct operation *op)
{
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!db->operation[i]->preflight)
            return 0;
        if (!preflight_waiting(db->operation[i]->preflight))
            continue;
        if (++waiting > 64 || preflight_conflict(db->operation[i]->preflight, op->preflight))
            return 0;
    }
    return 1;
}

/* Attaches (waiting until attach_ns at most) and begins preflight. */
static int operation_begin(struct operation *op, uint64_t attach_ns, struct azoth_error *err)
{
    struct local *l = op->txn->db->local;
    struct attachment *a;
    int rc = local_attach(l, attach_ns, &a, err);
    if (rc)
        return rc;
    struct preflight *f = local_preflight(l, a);
    if (!f) {
        local_release(l, a);
        return error_set(err, AZOTH_ERR_NOMEM, "a transaction in flight");
    }
    struct preflight_request r;
    txn_request(op->txn, op->deadline_ns, &r);
    preflight_begin(f, &r);
    op->attachment = a;
    op->preflight = f;
    return 0;
}

static void operation_end(struct azoth *db, struct operation *op, struct preflight_outcome *ret)
{
    preflight_end(op->preflight, ret);
    local_preflight_put(db->local, op->attachment, op->preflight);
    local_release(db->local, op->attachment);
    op->attachment = NULL;
    op->preflight = NULL;
}

int azoth_submit(struct azoth_txn *t, azoth_done done, void *arg, struct azoth_error *err)
{
    int rc = ready(t, err);
    if (rc)
        return rc;
    struct azoth *db = t->db;
    struct operation *op = calloc(1, sizeof *op);
    if (!op)
        return error_set(err, AZOTH_ERR_NOMEM, "a transaction in flight");
    *op = (struct operation){.txn = t,
                             .done = done,
                             .arg = arg,
                             .deadline_ns = clock_mono_ns() + t->deadline_ms * NS_PER_MS};
    if (db->remote)
        return submit_remote(t, op, err);
    rc = operation_begin(op, op->deadline_ns, err);
    if (rc) {
        free(op);
        return rc;
    }
    pthread_mutex_lock(&db->lock);
    int full = db->operations == CLIENT_POOL;
    if (!full) {
        if (in_order(db, db->operations, op))
            preflight_step(op->preflight, clock_mono_ns());
        db->operation[db->operations++] = op;
        /* Before the lock goes: another thread's poll may end and free op from then on. */
        slot_wake_writer(op->attachment->segment);
    }
    pthread_mutex_unlock(&db->lock);
    if (full) {
        preflight_free(op->preflight);
        local_release(db->local, op->attachment);
        free(op);
        return error_set(err, AZOTH_ERR_BUSY, "%u transactions are in flight", CLIENT_POOL);
    }
    return 0;
}

/*
 * On the next segment, after the one that it began on was retired. 1 when it is to go on (without a
 * preflight: no segment is there yet), 0 when it has ended with op->refused.
 */
static int try_next_segment(struct operation *op, uint64_t now_ns)
{
    int rc = operation_begin(op, 0, &op->refused);
    if (rc && ((rc != AZOTH_ERR_NO_WRITER && rc != AZOTH_ERR_RETIRED) || now_ns >= op->deadline_ns))
        return 0;
    op->refused.code = 0;
    return 1;
}

/* 1 when it has ended. What was refused before anything was queued, because the segment is retired,
 * has not: the next segment is as good. */
static int operation_step(struct azoth *db, struct operation *op, uint64_t now_ns)
{
    for (;;) {
        if (!op->preflight && !try_next_segment(op, now_ns))
            return 1;
        if (!op->preflight || preflight_step(op->preflight, now_ns) != PREFLIGHT_DONE)
            return 0;
        if (preflight_code(op->preflight) != AZOTH_ERR_RETIRED || now_ns >= op->deadline_ns)
            return 1;
        struct preflight_outcome o;
        operation_end(db, op, &o);
    }
}

/* Steps op unless an earlier one, of the first n, has to go before it. 1 when it has ended: those
 * that are held back keep their deadline all the same. */
static int operation_turn(struct azoth *db, uint32_t n, struct operation *op, uint64_t now_ns)
{
    int waits = !op->preflight || preflight_waiting(op->preflight);
    if (!waits || in_order(db, n, op))
        return operation_step(db, op, now_ns);
    if (now_ns < op->deadline_ns)
        return 0;
    if (op->preflight)
        preflight_expire(op->preflight);
    else
        error_set(&op->refused, AZOTH_ERR_NO_WRITER, "%s",
                  azoth_code_sentence(AZOTH_ERR_NO_WRITER));
    return 1;
}

/* Steps every operation in flight; those that are done go to *out. */
static uint32_t step_operations(struct azoth *db, struct operation **out)
{
    uint32_t kept = 0, done = 0;
    uint64_t now = local_now(db->local);
    for (uint32_t i = 0; i < db->operations; i++) {
        struct operation *op = db->operation[i];
        if (operation_turn(db, kept, op, now))
            out[done++] = op;
        else
            db->operation[kept++] = op;
    }
    db->operations = kept;
    return done;
}

static void finish(struct azoth *db, struct operation *op)
{
    struct preflight_outcome o = {.code = op->refused.code, .error = op->refused};
    struct azoth_commit_info info;
    if (op->preflight)
        operation_end(db, op, &o);
    commit_info_of(&o.result, &info);
    struct operation copy = *op;
    free(op);
    copy.done(copy.txn, o.code, &info, &o.error, copy.arg);
}

int azoth_poll(struct azoth *db, uint32_t timeout_ms)
{
    int usable = handle_check(db, NULL);
    if (usable)
        return usable;
    if (client_in_callback)
        return AZOTH_ERR_USAGE;
    if (db->remote)
        return remote_poll(db->remote, timeout_ms * NS_PER_MS);
    uint64_t until = clock_mono_ns() + timeout_ms * NS_PER_MS;
    struct operation *ended[CLIENT_POOL];
    for (;;) {
        pthread_mutex_lock(&db->lock);
        uint32_t n = step_operations(db, ended), left = db->operations;
        struct attachment *a = NULL;
        for (uint32_t i = 0; i < left && !a; i++)
            a = db->operation[i]->attachment;
        if (a) {
            slot_wake_writer(a->segment);
            local_hold(db->local, a);
        }
        pthread_mutex_unlock(&db->lock);
        for (uint32_t i = 0; i < n; i++)
            finish(db, ended[i]);
        uint64_t now = clock_mono_ns();
        int end = n > 0 || !left || now >= until;
        if (!end && !a)
            client_nap();
        else if (!end && !local_step(db->local))
            preflight_wait_any(a->participant, &db->done_seen, until - now);
        if (a)
            local_release(db->local, a);
        if (end)
            return (int)n;
    }
}

uint32_t azoth_in_flight(struct azoth *db)
{
    if (handle_check(db, NULL))
        return 0;
    if (db->remote)
        return remote_in_flight(db->remote);
    return db->operations;
}
