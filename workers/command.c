/*
 * command.c - loading command libraries, running their functions.
 *
 * Happy path: a call is declared by the thread that received it and run by the thread that got its
 * last lock; both arm the timer around the command's own code.
 *
 * Failure modes: a library that cannot be used is refused at start. A command's error is the
 * request's error. An overrun ends the process with one line in the log; a crash ends it without.
 * In both cases nothing was submitted, or the writer has it: see preflight.c's table.
 */
#include "workers/command.h"

#include "core/dbdir.h"
#include "core/error.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

#define COMMANDS_MAX 256u

struct command_set {
    const struct azoth_command *command[COMMANDS_MAX];
    uint32_t count;
};

/* ---- loading ---- */

int command_set_open(struct command_set **ret, struct azoth_error *err)
{
    struct command_set *set = calloc(1, sizeof *set);
    if (!set)
        return error_set(err, AZOTH_ERR_NOMEM, "the table of commands");
    *ret = set;
    return 0;
}

void command_set_close(struct command_set *set)
{
    free(set);
}

uint32_t command_count(const struct command_set *set)
{
    return set->count;
}

const struct azoth_command *command_find(const struct command_set *set, struct azoth_bytes name)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (bytes_eq(bytes_str(set->command[i]->name), name))
            return set->command[i];
    return NULL;
}

static int command_add(struct command_set *set, const struct azoth_command *c, const char *path,
                       struct azoth_error *err)
{
    if (!c->name || !dbdir_name_valid(c->name) || !c->declare || !c->run)
        return error_set(err, AZOTH_ERR_CONFIG,
                         "%s: a command needs a name of letters and digits, declare and run", path);
    if (command_find(set, bytes_str(c->name)))
        return error_set(err, AZOTH_ERR_DUPLICATE, "%s: command %s is there already", path,
                         c->name);
    if (set->count == COMMANDS_MAX)
        return error_set(err, AZOTH_ERR_CONFIG, "%s: more than %u commands", path, COMMANDS_MAX);
    set->command[set->count++] = c;
    return 0;
}

int command_load(struct command_set *set, const char *path, struct azoth_error *err)
{
    /* A bare name would be looked for in the system's library directories. */
    char full[PATH_MAX];
    if (!realpath(path, full))
        return error_foreign(err, AZOTH_ERR_CONFIG, errno, "%s: %s", path, strerror(errno));
    void *handle = dlopen(full, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return error_set(err, AZOTH_ERR_CONFIG, "%s", dlerror());
    const struct azoth_command_library *(*entry)(void);
    void *symbol = dlsym(handle, "azoth_commands");
    if (!symbol) {
        dlclose(handle);
        return error_set(err, AZOTH_ERR_CONFIG, "%s: it has no function azoth_commands", path);
    }
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no conversion from data to function */
    const struct azoth_command_library *lib = entry();
    if (!lib || lib->abi != AZOTH_COMMAND_ABI)
        return error_set(err, AZOTH_ERR_CONFIG, "%s: made for command ABI %u, this worker has %u",
                         path, lib ? lib->abi : 0, AZOTH_COMMAND_ABI);
    if (lib->count < 1 || lib->count > COMMANDS_MAX || !lib->commands)
        return error_set(err, AZOTH_ERR_CONFIG, "%s: %u commands, 1 to %u are possible", path,
                         lib->count, COMMANDS_MAX);
    int rc = 0;
    for (uint32_t i = 0; !rc && i < lib->count; i++)
        rc = command_add(set, &lib->commands[i], path, err);
    return rc;
}

/* ---- arguments ---- */

/* The member, or NULL with the error kept. */
static const json_t *args_member(const struct azoth_command_args *a, const char *member,
                                 int *ret_rc)
{
    struct command_call *c = a->host;
    if (!c->args_parsed) {
        c->args_parsed = 1;
        if (a->text.len)
            c->args = json_loadb(a->text.ptr, a->text.len, JSON_REJECT_DUPLICATES, NULL);
    }
    if (!json_is_object(c->args)) {
        *ret_rc = error_set(c->err, AZOTH_ERR_BAD_JSON, "the arguments of %s are no JSON object",
                            c->command->name);
        return NULL;
    }
    const json_t *v = json_object_get(c->args, member);
    if (!v)
        *ret_rc = error_set(c->err, AZOTH_ERR_NOT_FOUND, "the arguments of %s have no member %s",
                            c->command->name, member);
    return v;
}

static int args_integer(const struct azoth_command_args *a, const char *member, int64_t *ret)
{
    struct command_call *c = a->host;
    int rc = 0;
    const json_t *v = args_member(a, member, &rc);
    if (!v)
        return rc;
    if (!json_is_integer(v))
        return error_set(c->err, AZOTH_ERR_TYPE, "argument %s of %s is no integer", member,
                         c->command->name);
    *ret = json_integer_value(v);
    return 0;
}

static int args_string(const struct azoth_command_args *a, const char *member,
                       struct azoth_bytes *ret)
{
    struct command_call *c = a->host;
    int rc = 0;
    const json_t *v = args_member(a, member, &rc);
    if (!v)
        return rc;
    if (!json_is_string(v))
        return error_set(c->err, AZOTH_ERR_TYPE, "argument %s of %s is no string", member,
                         c->command->name);
    *ret = bytes_of(json_string_value(v), json_string_length(v));
    return 0;
}

static int args_has(const struct azoth_command_args *a, const char *member)
{
    struct command_call *c = a->host;
    struct azoth_error *kept = c->err; /* asking is not failing */
    int rc = 0;
    c->err = NULL;
    int has = args_member(a, member, &rc) != NULL;
    c->err = kept;
    return has;
}

/* ---- declare ---- */

static int declare_read(struct azoth_command_declare *d, struct azoth_bytes key)
{
    struct command_call *c = d->host;
    return txn_add_key(&c->declared, TXN_READ, key, c->err);
}

static int declare_write(struct azoth_command_declare *d, struct azoth_bytes key)
{
    struct command_call *c = d->host;
    return txn_add_key(&c->declared, TXN_WRITE, key, c->err);
}

static int reject(struct command_call *c, const char *fmt, va_list ap)
{
    char text[200];
    vsnprintf(text, sizeof text, fmt, ap);
    size_t len = strlen(text);
    while (len && !utf8_valid(bytes_of(text, len))) /* cut in a character, or never UTF-8 */
        len--;
    text[len] = 0;
    return error_set(c->err, AZOTH_ERR_REJECTED, "%s: %s", c->command->name, text);
}

__attribute__((format(printf, 2, 3))) static int declare_reject(struct azoth_command_declare *d,
                                                                const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = reject(d->host, fmt, ap);
    va_end(ap);
    return rc;
}

/* What a command returned, as this request's error. */
static int command_verdict(const struct command_call *c, int rc, struct azoth_error *err)
{
    if (rc == 0)
        return 0;
    if (rc > 0 || strcmp(azoth_code_name(rc), "AZOTH_ERR_?") == 0)
        return error_set(err, AZOTH_ERR_REJECTED, "%s: it returned %d, which is no code of azoth",
                         c->command->name, rc);
    if (err->code == rc)
        return rc;
    return error_set(err, rc, "%s: %s", c->command->name, azoth_code_sentence(rc));
}

/* Declarations that the client sent along: READ and WRITE only. */
static int declare_sent(struct command_call *c, struct azoth_bytes sent, struct azoth_error *err)
{
    size_t at = 0;
    struct txn_item it;
    int rc = 0;
    if (sent.len == 0)
        return 0;
    while (!rc && txn_next(sent, &at, &it)) {
        if (it.kind != TXN_READ && it.kind != TXN_WRITE)
            return error_set(err, AZOTH_ERR_BAD_REQUEST,
                             "a call carries declarations of keys only, not %s",
                             txn_kind_name(it.kind));
        rc = txn_add(&c->declared, &it, err);
    }
    return rc;
}

static int content_of(struct command_call *c, struct azoth_bytes sent, struct azoth_bytes args,
                      uint64_t *ret)
{
    buf_clear(&c->hashed);
    int rc = buf_add(&c->hashed, c->command->name, strlen(c->command->name) + 1);
    if (!rc && args.len)
        rc = buf_add(&c->hashed, args.ptr, args.len);
    if (!rc)
        *ret = txn_content_hash(sent, buf_bytes(&c->hashed));
    return rc;
}

int command_call_begin(struct command_call *c, const struct command_set *set,
                       struct command_timer *timer, struct azoth_bytes name,
                       struct azoth_bytes sent, struct azoth_bytes args, struct azoth_bytes id,
                       struct azoth_bytes *ret_image, uint64_t *ret_content,
                       struct azoth_error *err)
{
    char text[100];
    c->command = command_find(set, name);
    if (!c->command)
        return error_set(err, AZOTH_ERR_NO_COMMAND, "this worker has no command %s",
                         bytes_print(name, text, sizeof text));
    c->timer = timer;
    memset(c->id, 0, sizeof c->id);
    if (id.len == AZOTH_ID_BYTES)
        memcpy(c->id, id.ptr, AZOTH_ID_BYTES);
    c->args_parsed = 0;
    c->args_api = (struct azoth_command_args){args, c, args_integer, args_string, args_has};
    c->err = err;
    txn_builder_clear(&c->declared);
    uint64_t content;
    int rc = content_of(c, sent, args, &content);
    if (rc)
        return error_set(err, rc, "a command's arguments");
    rc = declare_sent(c, sent, err);
    if (rc)
        return rc;
    struct azoth_command_declare d = {c, declare_read, declare_write, declare_reject};
    struct timer_place *place = command_timer_arm(timer, c->command->name, c->id);
    rc = c->command->declare(&d, &c->args_api);
    command_timer_disarm(timer, place);
    rc = command_verdict(c, rc, err);
    if (rc)
        return rc;
    *ret_image = txn_image(&c->declared);
    *ret_content = content;
    return 0;
}

void command_call_end(struct command_call *c)
{
    json_decref(c->args);
    c->args = NULL;
    c->args_parsed = 0;
    c->err = NULL;
    c->view = NULL;
}

void command_call_fini(struct command_call *c)
{
    command_call_end(c);
    txn_builder_fini(&c->declared);
    buf_fini(&c->hashed);
}

/* ---- run ---- */

static int run_get(struct azoth_command_run *r, struct azoth_bytes key, struct azoth_value *ret,
                   uint64_t *ret_version)
{
    struct command_call *c = r->host;
    struct state_record st;
    int rc = preflight_read(c->view, key, &st, c->err);
    if (rc)
        return rc;
    *ret = st.value;
    if (ret_version)
        *ret_version = st.version;
    return 0;
}

static int run_get_i64(struct azoth_command_run *r, struct azoth_bytes key, int64_t *ret)
{
    struct command_call *c = r->host;
    struct azoth_value v;
    char text[100];
    int rc = run_get(r, key, &v, NULL);
    if (rc)
        return rc;
    rc = value_i64(v, ret);
    if (rc)
        return error_set(c->err, rc, "key %s holds %s, not i64",
                         bytes_print(key, text, sizeof text), value_type_name(v.type));
    return 0;
}

static int emit(struct azoth_command_run *r, enum txn_kind kind, struct azoth_bytes key,
                struct azoth_value v)
{
    struct command_call *c = r->host;
    struct txn_item it = {.kind = (uint32_t)kind, .type = v.type, .key = key, .value = v.enc};
    return preflight_emit(c->view, &it, c->err);
}

static struct azoth_value untyped(struct azoth_bytes member)
{
    return (struct azoth_value){0, member};
}

static int run_set(struct azoth_command_run *r, struct azoth_bytes key, struct azoth_value value)
{
    return emit(r, TXN_SET, key, value);
}

static int run_set_i64(struct azoth_command_run *r, struct azoth_bytes key, int64_t n)
{
    unsigned char enc[8];
    put_u64(enc, (uint64_t)n);
    return emit(r, TXN_SET, key, (struct azoth_value){AZOTH_TYPE_I64, {enc, sizeof enc}});
}

static int run_set_string(struct azoth_command_run *r, struct azoth_bytes key,
                          struct azoth_bytes utf8)
{
    return emit(r, TXN_SET, key, (struct azoth_value){AZOTH_TYPE_STRING, utf8});
}

static int run_remove(struct azoth_command_run *r, struct azoth_bytes key)
{
    return emit(r, TXN_DELETE, key, untyped((struct azoth_bytes){NULL, 0}));
}

static int run_add(struct azoth_command_run *r, struct azoth_bytes key, struct azoth_value delta)
{
    return emit(r, TXN_ADD, key, delta);
}

static int run_add_i64(struct azoth_command_run *r, struct azoth_bytes key, int64_t delta)
{
    unsigned char enc[8];
    put_u64(enc, (uint64_t)delta);
    return emit(r, TXN_ADD, key, (struct azoth_value){AZOTH_TYPE_I64, {enc, sizeof enc}});
}

static int run_set_add(struct azoth_command_run *r, struct azoth_bytes key,
                       struct azoth_bytes member)
{
    return emit(r, TXN_SET_ADD, key, untyped(member));
}

static int run_set_remove(struct azoth_command_run *r, struct azoth_bytes key,
                          struct azoth_bytes member)
{
    return emit(r, TXN_SET_REMOVE, key, untyped(member));
}

static int run_array_push(struct azoth_command_run *r, struct azoth_bytes key,
                          struct azoth_bytes member)
{
    return emit(r, TXN_ARRAY_PUSH, key, untyped(member));
}

static int run_event(struct azoth_command_run *r, struct azoth_bytes type,
                     struct azoth_bytes payload, struct azoth_bytes stream,
                     struct azoth_bytes metadata)
{
    struct command_call *c = r->host;
    struct txn_item it = {
        .kind = TXN_EVENT, .key = stream, .name = type, .metadata = metadata, .value = payload};
    return preflight_emit(c->view, &it, c->err);
}

static int run_event_json(struct azoth_command_run *r, const char *type, const char *json)
{
    struct command_call *c = r->host;
    json_t *parsed = json_loads(json, JSON_DECODE_ANY, NULL);
    if (!parsed)
        return error_set(c->err, AZOTH_ERR_BAD_JSON, "%s: the payload of event %s is no JSON text",
                         c->command->name, type);
    json_decref(parsed);
    struct azoth_bytes none = {NULL, 0};
    return run_event(r, bytes_str(type), bytes_str(json), none, none);
}

__attribute__((format(printf, 2, 3))) static int run_reject(struct azoth_command_run *r,
                                                            const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = reject(r->host, fmt, ap);
    va_end(ap);
    return rc;
}

static int command_run(struct preflight_view *view, void *arg, struct azoth_error *err)
{
    struct command_call *c = arg;
    struct azoth_command_run r = {
        .host = c,
        .get = run_get,
        .get_i64 = run_get_i64,
        .set = run_set,
        .set_i64 = run_set_i64,
        .set_string = run_set_string,
        .remove = run_remove,
        .add = run_add,
        .add_i64 = run_add_i64,
        .set_add = run_set_add,
        .set_remove = run_set_remove,
        .array_push = run_array_push,
        .event = run_event,
        .event_json = run_event_json,
        .reject = run_reject,
    };
    c->view = view;
    c->err = err;
    struct timer_place *place = command_timer_arm(c->timer, c->command->name, c->id);
    int rc = c->command->run(&r, &c->args_api);
    command_timer_disarm(c->timer, place);
    c->view = NULL;
    c->err = NULL;
    return command_verdict(c, rc, err);
}

struct preflight_hooks command_call_hook(struct command_call *c)
{
    return (struct preflight_hooks){command_run, c};
}
