/*
 * txnjson.c - requests and answers as JSON text (forms in txnjson.h).
 *
 * The text is bounded before it is parsed; jansson bounds the nesting (2048 levels). Every member is
 * looked at by name, so that a misspelt one is an error and not a transaction that does less.
 */
#include "core/txnjson.h"

#include "core/error.h"
#include "core/valuejson.h"

#include <stdlib.h>
#include <string.h>

struct parse {
    struct txn_builder *builder;
    struct buf value; /* the encoding of one value */
    struct azoth_error *err;
};

static int bad(struct parse *p, const char *member, const char *text)
{
    return error_set(p->err, AZOTH_ERR_BAD_JSON, "%s: %s", member, text);
}

static struct azoth_bytes text_of(const json_t *j)
{
    return bytes_of(json_string_value(j), json_string_length(j));
}

/* A key: a string, or {"b64":"..."}. *ret borrows j or p->value. */
static int key_of(struct parse *p, const char *member, const json_t *j, struct azoth_bytes *ret)
{
    if (json_is_string(j)) {
        *ret = text_of(j);
        return 0;
    }
    const json_t *b = json_object_get(j, "b64");
    buf_clear(&p->value);
    if (!json_is_string(b) || json_object_size(j) != 1 || base64_decode(&p->value, text_of(b)))
        return bad(p, member, "a key is a string or {\"b64\":\"...\"}");
    *ret = buf_bytes(&p->value);
    return 0;
}

static int parse_keys(struct parse *p, const char *member, const json_t *list, enum txn_kind kind)
{
    if (!json_is_array(list))
        return bad(p, member, "a list of keys is wanted");
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct azoth_bytes key;
        int rc = key_of(p, member, json_array_get(list, i), &key);
        if (!rc)
            rc = txn_add_key(p->builder, kind, key, p->err);
        if (rc)
            return rc;
    }
    return 0;
}

static int add_value(struct parse *p, enum txn_kind kind, struct azoth_bytes key, const json_t *j)
{
    struct azoth_value v;
    struct azoth_error why = {0};
    struct buf enc = {0};
    int rc = value_from_json(&enc, j, &v, &why);
    if (rc) {
        char text[100];
        error_set(p->err, rc, "%s of key %s: %s", txn_kind_name(kind),
                  bytes_print(key, text, sizeof text), why.message);
    } else {
        rc = txn_add_value(p->builder, kind, key, v, p->err);
    }
    buf_fini(&enc);
    return rc;
}

/* {"key": value, ...} */
static int parse_values(struct parse *p, const char *member, json_t *object, enum txn_kind kind)
{
    const char *key;
    json_t *v;
    if (!json_is_object(object))
        return bad(p, member, "an object of keys and values is wanted");
    json_object_foreach(object, key, v)
    {
        int rc = add_value(p, kind, bytes_str(key), v);
        if (rc)
            return rc;
    }
    return 0;
}

static int parse_member(struct parse *p, const char *member, struct azoth_bytes key,
                        const json_t *m, enum txn_kind kind)
{
    if (!json_is_string(m))
        return bad(p, member, "members of sets and arrays are strings");
    return txn_add_member(p->builder, kind, key, text_of(m), p->err);
}

/* {"key": "member" or ["member", ...], ...} */
static int parse_members(struct parse *p, const char *member, json_t *object, enum txn_kind kind)
{
    const char *key;
    json_t *v;
    if (!json_is_object(object))
        return bad(p, member, "an object of keys and members is wanted");
    json_object_foreach(object, key, v)
    {
        int rc = 0;
        if (!json_is_array(v))
            rc = parse_member(p, member, bytes_str(key), v, kind);
        for (size_t i = 0; json_is_array(v) && i < json_array_size(v) && !rc; i++)
            rc = parse_member(p, member, bytes_str(key), json_array_get(v, i), kind);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- requirements ---- */

static int require_flag(struct parse *p, const char *name, const json_t *v, struct azoth_bytes key,
                        enum txn_kind kind)
{
    if (!json_is_true(v))
        return bad(p, name, "true is wanted");
    return txn_add_key(p->builder, kind, key, p->err);
}

static int parse_condition(struct parse *p, struct azoth_bytes key, const char *name,
                           const json_t *v)
{
    if (strcmp(name, "exists") == 0)
        return require_flag(p, name, v, key, TXN_REQUIRE_EXISTS);
    if (strcmp(name, "absent") == 0)
        return require_flag(p, name, v, key, TXN_REQUIRE_ABSENT);
    if (strcmp(name, "equals") == 0)
        return add_value(p, TXN_REQUIRE_EQUALS, key, v);
    if (strcmp(name, "min") == 0)
        return add_value(p, TXN_REQUIRE_MIN, key, v);
    if (strcmp(name, "max") == 0)
        return add_value(p, TXN_REQUIRE_MAX, key, v);
    if (strcmp(name, "contains") == 0)
        return parse_member(p, name, key, v, TXN_REQUIRE_CONTAINS);
    if (strcmp(name, "type") == 0) {
        struct txn_item it = {.kind = TXN_REQUIRE_TYPE, .key = key};
        if (!json_is_string(v) || value_type_parse(json_string_value(v), &it.type))
            return bad(p, name, "a type is one of i64, u256, set, array, bytes, string");
        return txn_add(p->builder, &it, p->err);
    }
    if (strcmp(name, "version") == 0) {
        uint64_t n = json_is_integer(v) ? (uint64_t)json_integer_value(v) : 0;
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return bad(p, name, "a version is a transaction id");
        return txn_add_member(p->builder, TXN_REQUIRE_VERSION, key, bytes_of(&n, 8), p->err);
    }
    return error_set(p->err, AZOTH_ERR_BAD_JSON, "require: there is no condition \"%.40s\"", name);
}

static int parse_require(struct parse *p, const json_t *list)
{
    static const char *const order[] = {"exists", "absent", "equals",   "min",
                                        "max",    "type",   "contains", "version"};
    if (!json_is_array(list))
        return bad(p, "require", "a list of objects is wanted");
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *o = json_array_get(list, i), *k = json_object_get(o, "key");
        struct azoth_bytes key = {0};
        struct buf kept = {0};
        size_t used = 1;
        int rc = k ? key_of(p, "require", k, &key) : bad(p, "require", "\"key\" is missing");
        if (!rc)
            rc = buf_add(&kept, key.ptr, key.len);
        key = buf_bytes(&kept);
        for (size_t c = 0; c < sizeof order / sizeof *order && !rc; c++) {
            const json_t *v = json_object_get(o, order[c]);
            used += v != NULL;
            if (v)
                rc = parse_condition(p, key, order[c], v);
        }
        const char *name;
        json_t *v;
        if (!rc && used != json_object_size(o))
            json_object_foreach(o, name, v)
            {
                if (strcmp(name, "key") != 0 && !rc)
                    rc = parse_condition(p, key, name, v);
            }
        if (!rc && used == 1)
            rc = bad(p, "require", "a condition is missing");
        buf_fini(&kept);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- events ---- */

/* Any JSON as compact text with sorted members: equal data have equal bytes. */
static char *compact(const json_t *j)
{
    return json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
}

static int event_members_known(struct parse *p, json_t *o)
{
    static const char *const known[] = {"type", "data", "bytes", "key", "metadata"};
    const char *name;
    json_t *v;
    json_object_foreach(o, name, v)
    {
        int found = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found |= strcmp(known[i], name) == 0;
        if (!found)
            return error_set(p->err, AZOTH_ERR_BAD_JSON, "events: there is no member \"%.40s\"",
                             name);
    }
    return 0;
}

static int parse_event(struct parse *p, json_t *o)
{
    const json_t *type = json_object_get(o, "type"), *data = json_object_get(o, "data"),
                 *raw = json_object_get(o, "bytes"), *meta = json_object_get(o, "metadata"),
                 *key = json_object_get(o, "key");
    int rc = event_members_known(p, o);
    if (rc)
        return rc;
    if (!json_is_string(type))
        return bad(p, "events", "\"type\" is missing");
    if (data && raw)
        return bad(p, "events", "an event has \"data\" or \"bytes\"");
    struct azoth_bytes stream = {0}, payload = {0};
    struct buf bytes = {0};
    char *data_text = data ? compact(data) : NULL, *meta_text = meta ? compact(meta) : NULL;
    if ((data && !data_text) || (meta && !meta_text))
        rc = error_set(p->err, AZOTH_ERR_NOMEM, "an event");
    if (!rc && key)
        rc = key_of(p, "events", key, &stream);
    if (!rc && raw && (!json_is_string(raw) || base64_decode(&bytes, text_of(raw))))
        rc = bad(p, "events", "\"bytes\" is padded base64");
    if (data_text)
        payload = bytes_str(data_text);
    else if (raw)
        payload = buf_bytes(&bytes);
    if (!rc)
        rc =
            txn_add_event(p->builder, text_of(type), stream, bytes_str(meta_text), payload, p->err);
    free(data_text);
    free(meta_text);
    buf_fini(&bytes);
    return rc;
}

static int parse_events(struct parse *p, const json_t *list)
{
    if (!json_is_array(list))
        return bad(p, "events", "a list of objects is wanted");
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *o = json_array_get(list, i);
        int rc = json_is_object(o) ? parse_event(p, o)
                                   : bad(p, "events", "an event is an object with a type");
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- requests ---- */

/* Operations are applied in this order, whatever the order of members in the text. */
static int parse_transaction(struct parse *p, json_t *o)
{
    static const struct {
        const char *name;
        enum txn_kind kind;
        int (*fn)(struct parse *, const char *, json_t *, enum txn_kind);
    } ops[] = {{"set", TXN_SET, parse_values},
               {"add", TXN_ADD, parse_values},
               {"set_add", TXN_SET_ADD, parse_members},
               {"set_remove", TXN_SET_REMOVE, parse_members},
               {"array_push", TXN_ARRAY_PUSH, parse_members}};
    json_t *v;
    int rc = 0;
    if ((v = json_object_get(o, "read")))
        rc = parse_keys(p, "read", v, TXN_READ);
    if (!rc && (v = json_object_get(o, "write")))
        rc = parse_keys(p, "write", v, TXN_WRITE);
    if (!rc && (v = json_object_get(o, "require")))
        rc = parse_require(p, v);
    for (size_t i = 0; i < sizeof ops / sizeof *ops && !rc; i++)
        if ((v = json_object_get(o, ops[i].name)))
            rc = ops[i].fn(p, ops[i].name, v, ops[i].kind);
    if (!rc && (v = json_object_get(o, "delete")))
        rc = parse_keys(p, "delete", v, TXN_DELETE);
    if (!rc && (v = json_object_get(o, "events")))
        rc = parse_events(p, v);
    return rc;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int parse_id(struct parse *p, const json_t *j, uint8_t out[AZOTH_ID_BYTES])
{
    if (!json_is_string(j) || json_string_length(j) != 2 * AZOTH_ID_BYTES)
        return bad(p, "id", "32 hex digits are wanted");
    const char *s = json_string_value(j);
    for (unsigned i = 0; i < AZOTH_ID_BYTES; i++) {
        int hi = hex(s[2 * i]), lo = hex(s[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return bad(p, "id", "32 hex digits are wanted");
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return 0;
}

static int parse_u64(struct parse *p, json_t *o, const char *name, uint64_t least, uint64_t most,
                     uint64_t *ret)
{
    const json_t *v = json_object_get(o, name);
    if (!v)
        return 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0 ||
        (uint64_t)json_integer_value(v) < least || (uint64_t)json_integer_value(v) > most)
        return error_set(p->err, AZOTH_ERR_BAD_JSON, "%s: a number from %llu to %llu is wanted",
                         name, (unsigned long long)least, (unsigned long long)most);
    *ret = (uint64_t)json_integer_value(v);
    return 0;
}

struct form {
    const char *op;
    enum wire_kind kind;
    const char *members; /* allowed beside the common ones */
};
static const struct form forms[] = {
    {"tx", WIRE_TX, " read write require set delete add set_add set_remove array_push events "},
    {"call", WIRE_CALL, " command args read write "},
    {"get", WIRE_GET, " key "},
    {"scan", WIRE_SCAN, " prefix from to after limit "},
    {"events", WIRE_EVENTS, " from to type limit "},
    {"outcome", WIRE_OUTCOME, " "},
    {"ping", WIRE_PING, " "},
};

static int check_members(struct parse *p, json_t *o, const struct form *f)
{
    static const char common[] = " op id deadline_ms at_least_once wait_paused ";
    const char *name;
    json_t *v;
    json_object_foreach(o, name, v)
    {
        char spaced[64];
        if ((size_t)snprintf(spaced, sizeof spaced, " %s ", name) >= sizeof spaced ||
            strchr(name, ' ') || (!strstr(common, spaced) && !strstr(f->members, spaced)))
            return error_set(p->err, AZOTH_ERR_BAD_JSON, "\"%s\" requests have no member \"%.40s\"",
                             f->op, name);
    }
    return 0;
}

/* Offsets into store, made into pointers when nothing moves any more. */
struct part {
    size_t at, len;
};

static int keep(struct buf *store, struct azoth_bytes b, struct part *ret)
{
    *ret = (struct part){store->len, b.len};
    return buf_add(store, b.ptr, b.len);
}

static int keep_member(struct parse *p, json_t *o, const char *name, size_t most, struct buf *store,
                       struct part *ret)
{
    const json_t *v = json_object_get(o, name);
    struct azoth_bytes b = {0};
    if (!v)
        return 0;
    int rc = key_of(p, name, v, &b);
    if (!rc && b.len > most)
        rc = error_set(p->err, AZOTH_ERR_KEY_SIZE, "%s: %zu bytes, at most %zu", name, b.len, most);
    return rc ? rc : keep(store, b, ret);
}

static int parse_flag(struct parse *p, json_t *o, const char *name, uint32_t flag, uint32_t *flags)
{
    const json_t *v = json_object_get(o, name);
    if (v && !json_is_boolean(v))
        return bad(p, name, "true or false is wanted");
    if (json_is_true(v))
        *flags |= flag;
    return 0;
}

static int parse_object(struct parse *p, json_t *o, struct buf *store, struct wire_request *ret)
{
    const json_t *op = json_object_get(o, "op"), *v;
    const char *op_name = op ? json_string_value(op) : "tx";
    const struct form *f = NULL;
    for (size_t i = 0; op_name && i < sizeof forms / sizeof *forms; i++)
        if (strcmp(forms[i].op, op_name) == 0)
            f = &forms[i];
    if (!f)
        return bad(p, "op", "one of tx, call, get, scan, events, outcome, ping is wanted");
    struct wire_request m = {.kind = f->kind};
    struct part id = {0}, name = {0}, body = {0}, args = {0}, after = {0};
    uint64_t deadline = 5000, limit = 100;
    m.from = f->kind == WIRE_EVENTS ? 1 : 0;
    int rc = check_members(p, o, f);
    if (!rc)
        rc = parse_u64(p, o, "deadline_ms", 1, 3600000, &deadline);
    if (!rc)
        rc = parse_u64(p, o, "limit", 1, 1000, &limit);
    if (!rc)
        rc = parse_flag(p, o, "at_least_once", WIRE_AT_LEAST_ONCE, &m.flags);
    if (!rc)
        rc = parse_flag(p, o, "wait_paused", WIRE_WAIT_PAUSED, &m.flags);
    if (!rc && (v = json_object_get(o, "id"))) {
        uint8_t bytes[AZOTH_ID_BYTES];
        rc = parse_id(p, v, bytes);
        if (!rc)
            rc = keep(store, bytes_of(bytes, sizeof bytes), &id);
    }
    if (!rc && (f->kind == WIRE_TX || f->kind == WIRE_CALL)) {
        rc = parse_transaction(p, o);
        if (!rc)
            rc = keep(store, txn_image(p->builder), &body);
    }
    if (!rc && f->kind == WIRE_CALL) {
        const json_t *a = json_object_get(o, "args");
        char *text = a ? compact(a) : NULL;
        rc = keep_member(p, o, "command", AZOTH_NAME_MAX, store, &name);
        if (!rc && !name.len)
            rc = bad(p, "command", "the command's name is missing");
        if (!rc && text)
            rc = keep(store, bytes_str(text), &args);
        free(text);
    }
    if (!rc && f->kind == WIRE_GET) {
        rc = keep_member(p, o, "key", AZOTH_KEY_MAX, store, &name);
        if (!rc && !name.len)
            rc = error_set(p->err, AZOTH_ERR_KEY_SIZE, "key: 1 to 511 bytes are wanted");
    }
    if (!rc && f->kind == WIRE_SCAN) {
        rc = keep_member(p, o, "prefix", AZOTH_KEY_MAX, store, &args);
        if (!rc)
            rc = keep_member(p, o, "from", AZOTH_KEY_MAX, store, &name);
        if (!rc)
            rc = keep_member(p, o, "to", AZOTH_KEY_MAX, store, &body);
        if (!rc)
            rc = keep_member(p, o, "after", AZOTH_KEY_MAX, store, &after);
    }
    if (!rc && f->kind == WIRE_EVENTS) {
        rc = parse_u64(p, o, "from", 0, INT64_MAX, &m.from);
        if (!rc)
            rc = parse_u64(p, o, "to", 0, INT64_MAX, &m.to);
        if (!rc)
            rc = keep_member(p, o, "type", AZOTH_EVENT_TYPE_MAX, store, &name);
    }
    if (rc)
        return rc;
    m.deadline_ms = (uint32_t)deadline;
    m.limit = (uint32_t)limit;
    const unsigned char *base = store->ptr;
    m.id = bytes_of(base + id.at, id.len);
    m.name = bytes_of(base + name.at, name.len);
    m.body = bytes_of(base + body.at, body.len);
    m.args = bytes_of(base + args.at, args.len);
    m.after = bytes_of(base + after.at, after.len);
    *ret = m;
    return 0;
}

int txnjson_parse(struct azoth_bytes text, struct buf *store, struct wire_request *ret,
                  struct azoth_error *err)
{
    if (text.len > TXNJSON_BYTES_MAX)
        return error_set(err, AZOTH_ERR_BAD_JSON, "a request of %zu bytes: at most %u", text.len,
                         TXNJSON_BYTES_MAX);
    json_error_t why;
    json_t *o = json_loadb(text.ptr ? text.ptr : "", text.len,
                           JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!json_is_object(o)) {
        json_decref(o);
        return error_set(err, AZOTH_ERR_BAD_JSON, "%s at byte %d",
                         o ? "a request is an object" : why.text, o ? 0 : why.position);
    }
    struct txn_builder builder = {0};
    struct parse p = {.builder = &builder, .err = err};
    size_t before = store->len;
    /* jansson is asked for at least one byte to keep: pointers into an empty store are not NULL. */
    int rc = buf_reserve(store, 64);
    if (!rc)
        rc = parse_object(&p, o, store, ret);
    if (rc == AZOTH_ERR_NOMEM)
        error_set(err, rc, "a request");
    if (rc)
        store->len = before;
    txn_builder_fini(&builder);
    buf_fini(&p.value);
    json_decref(o);
    return rc;
}

/* ---- answers ---- */

static int add_id(struct buf *out, struct azoth_bytes id)
{
    const unsigned char *p = id.ptr;
    int rc = buf_add_str(out, "\"");
    for (size_t i = 0; i < id.len && !rc; i++)
        rc = buf_addf(out, "%02x", p[i]);
    return rc ? rc : buf_add_str(out, "\"");
}

static int answer_failed(struct buf *out, const struct wire_answer *a)
{
    int rc = buf_addf(out, "{\"ok\":false,\"error\":\"%s\",\"message\":", azoth_code_name(a->code));
    if (!rc)
        rc = json_add_string(out, a->message, 1);
    if (!rc && a->id.len) {
        rc = buf_add_str(out, ",\"id\":");
        if (!rc)
            rc = add_id(out, a->id);
    }
    if (!rc)
        rc = buf_addf(out, ",\"retry\":%s}",
                      azoth_code_class(a->code) == AZOTH_CLASS_RETRY ? "true" : "false");
    return rc;
}

/* A key or another text: a JSON string where it is UTF-8, else {"b64":"..."}. */
static int add_text(struct buf *out, struct azoth_bytes b)
{
    int rc = json_add_string(out, b, 0);
    if (rc != AZOTH_ERR_UTF8)
        return rc;
    rc = buf_add_str(out, "{\"b64\":\"");
    if (!rc)
        rc = base64_encode(out, b);
    return rc ? rc : buf_add_str(out, "\"}");
}

int txnjson_item(struct buf *out, struct azoth_bytes key, const struct state_record *st)
{
    int rc = buf_add_str(out, "{\"key\":");
    if (!rc)
        rc = add_text(out, key);
    if (!rc)
        rc = buf_addf(out, ",\"version\":%llu,\"value\":", (unsigned long long)st->version);
    if (!rc)
        rc = value_to_json(out, st->value);
    return rc ? rc : buf_add_str(out, "}");
}

/* JSON text without its line ends, which stand only between tokens: one object is one line. */
static int add_line(struct buf *out, struct azoth_bytes b)
{
    const char *p = b.ptr, *end = p + b.len;
    int rc = 0;
    while (p < end && !rc) {
        const char *q = p;
        while (q < end && *q != '\n' && *q != '\r')
            q++;
        rc = buf_add(out, p, (size_t)(q - p));
        p = q + (q < end);
    }
    return rc;
}

/* ,"name":JSON when b is JSON text, else ,"other":"base64". */
static int add_json_or_bytes(struct buf *out, const char *name, const char *other,
                             struct azoth_bytes b)
{
    json_t *j = b.len ? json_loadb(b.ptr, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    int rc;
    if (j) {
        json_decref(j);
        rc = buf_addf(out, ",\"%s\":", name);
        return rc ? rc : add_line(out, b);
    }
    rc = buf_addf(out, ",\"%s\":\"", other);
    if (!rc)
        rc = base64_encode(out, b);
    return rc ? rc : buf_add_str(out, "\"");
}

int txnjson_event(struct buf *out, const struct event_record *ev)
{
    int rc = buf_addf(
        out, "{\"id\":%llu,\"txn\":%llu,\"time\":%lld,\"type\":", (unsigned long long)ev->id,
        (unsigned long long)ev->txn, (long long)ev->time_ns);
    if (!rc)
        rc = add_text(out, ev->type);
    if (!rc && ev->key.len) {
        rc = buf_add_str(out, ",\"key\":");
        if (!rc)
            rc = add_text(out, ev->key);
    }
    if (!rc)
        rc = add_json_or_bytes(out, "data", "bytes", ev->payload);
    if (!rc && ev->metadata.len)
        rc = add_json_or_bytes(out, "metadata", "metadata_bytes", ev->metadata);
    return rc ? rc : buf_add_str(out, "}");
}

static int answer_items(struct buf *out, const struct wire_answer *a)
{
    size_t at = 0;
    struct azoth_bytes key;
    struct state_record st;
    int rc = buf_add_str(out, "{\"ok\":true,\"items\":["), n = 0, got;
    while (!rc && (got = wire_item_next(a->body, &at, &key, &st)) != 0) {
        if (got < 0)
            return got;
        if (n++)
            rc = buf_add_str(out, ",");
        if (!rc)
            rc = txnjson_item(out, key, &st);
    }
    return rc ? rc : buf_addf(out, "],\"more\":%s}", a->flags & WIRE_MORE ? "true" : "false");
}

static int answer_events(struct buf *out, const struct wire_answer *a)
{
    size_t at = 0;
    struct event_record ev;
    int rc = buf_add_str(out, "{\"ok\":true,\"events\":["), n = 0, got;
    while (!rc && (got = record_frame_next(a->body, &at, &ev, NULL)) != 0) {
        if (got < 0)
            return got;
        if (n++)
            rc = buf_add_str(out, ",");
        if (!rc)
            rc = txnjson_event(out, &ev);
    }
    uint64_t next = a->first_event + 1;
    /* "next" is where the following page begins: a filtered page may end behind its last event. */
    if (!rc)
        rc = buf_addf(out, "],\"more\":%s,\"next\":%llu,\"head\":%llu}",
                      a->flags & WIRE_MORE ? "true" : "false", (unsigned long long)next,
                      (unsigned long long)a->last_event);
    return rc;
}

static int answer_get(struct buf *out, const struct wire_answer *a)
{
    size_t at = 0;
    struct azoth_bytes key;
    struct state_record st;
    if (wire_item_next(a->body, &at, &key, &st) != 1)
        return AZOTH_ERR_CORRUPT;
    int rc = buf_add_str(out, "{\"ok\":true,");
    size_t from = out->len;
    if (!rc)
        rc = txnjson_item(out, key, &st);
    if (!rc) { /* the item's own brace goes */
        memmove(out->ptr + from, out->ptr + from + 1, out->len - from - 1);
        out->len--;
    }
    return rc;
}

static int answer_committed(struct buf *out, const struct wire_answer *a)
{
    int rc = buf_add_str(out, "{\"ok\":true");
    if (!rc && a->id.len) {
        rc = buf_add_str(out, ",\"id\":");
        if (!rc)
            rc = add_id(out, a->id);
    }
    uint64_t events = a->first_event ? a->last_event - a->first_event + 1 : 0;
    if (!rc)
        rc = buf_addf(out,
                      ",\"txn\":%llu,\"first_event\":%llu,\"last_event\":%llu,\"events\":%llu,"
                      "\"keys_written\":%u,\"keys_deleted\":%u,\"keys_missing\":%u,"
                      "\"duplicate\":%s}",
                      (unsigned long long)a->txn, (unsigned long long)a->first_event,
                      (unsigned long long)a->last_event, (unsigned long long)events,
                      a->keys_written, a->keys_deleted, a->keys_missing,
                      a->flags & WIRE_DUPLICATE ? "true" : "false");
    return rc;
}

int txnjson_answer(struct buf *out, const struct wire_answer *answer)
{
    if (answer->code)
        return answer_failed(out, answer);
    switch (answer->kind) {
    case WIRE_GET:
        return answer_get(out, answer);
    case WIRE_SCAN:
        return answer_items(out, answer);
    case WIRE_EVENTS:
        return answer_events(out, answer);
    case WIRE_PING:
        return buf_add_str(out, "{\"ok\":true}");
    default:
        return answer_committed(out, answer);
    }
}
