#include "core/valuejson.h"

#include "core/error.h"
#include "core/u256.h"

#include <stdlib.h>
#include <string.h>

static int bad(struct azoth_error *err, int code, const char *text)
{
    return error_set(err, code, "%s", text);
}

static struct azoth_bytes string_of(const json_t *j)
{
    return bytes_of(json_string_value(j), json_string_length(j));
}

static int from_list(struct buf *out, uint32_t type, const json_t *list, struct azoth_value *ret,
                     struct azoth_error *err)
{
    size_t n = json_array_size(list);
    struct azoth_bytes *members = malloc((n + 1) * sizeof *members);
    if (!members)
        return bad(err, AZOTH_ERR_NOMEM, "a list");
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *m = json_array_get(list, i);
        if (json_is_string(m))
            members[i] = string_of(m);
        else
            rc = bad(err, AZOTH_ERR_BAD_JSON, "sets and arrays hold strings");
    }
    if (!rc) {
        rc = type == AZOTH_TYPE_SET ? value_make_set(out, members, n, ret)
                                    : value_make_array(out, members, n, ret);
        if (rc)
            bad(err, rc, azoth_code_sentence(rc));
    }
    free(members);
    return rc;
}

static int from_u256(struct buf *out, const json_t *j, struct azoth_value *ret,
                     struct azoth_error *err)
{
    struct azoth_u256 n;
    int rc = 0;
    if (json_is_string(j))
        rc = u256_parse(string_of(j), &n);
    else if (json_is_integer(j) && json_integer_value(j) >= 0)
        n = u256_of((uint64_t)json_integer_value(j));
    else
        return bad(err, AZOTH_ERR_BAD_JSON, "a u256 is written as decimal text");
    if (rc == AZOTH_ERR_OVERFLOW)
        return bad(err, rc, "the u256 is over 2^256-1");
    if (rc)
        return bad(err, AZOTH_ERR_BAD_JSON, "a u256 is written as decimal digits");
    rc = value_make_u256(out, &n, ret);
    return rc ? bad(err, rc, azoth_code_sentence(rc)) : 0;
}

static int from_bytes(struct buf *out, const json_t *j, struct azoth_value *ret,
                      struct azoth_error *err)
{
    size_t before = out->len;
    int rc = json_is_string(j) ? 0 : AZOTH_ERR_ENCODING;
    if (!rc)
        rc = buf_reserve(out, 1); /* no bytes at all still have a place to point at */
    if (!rc)
        rc = base64_decode(out, string_of(j));
    if (rc == AZOTH_ERR_ENCODING)
        return bad(err, AZOTH_ERR_BAD_JSON, "bytes are written as padded base64");
    if (!rc && out->len - before > AZOTH_VALUE_MAX) {
        out->len = before;
        rc = AZOTH_ERR_VALUE_SIZE;
    }
    if (rc)
        return bad(err, rc, azoth_code_sentence(rc));
    *ret = (struct azoth_value){AZOTH_TYPE_BYTES, {out->ptr + before, out->len - before}};
    return 0;
}

static int from_object(struct buf *out, const json_t *j, struct azoth_value *ret,
                       struct azoth_error *err)
{
    void *it = json_object_iter((json_t *)(uintptr_t)j);
    if (json_object_size(j) != 1)
        return bad(err, AZOTH_ERR_BAD_JSON, "a typed value is an object with one member");
    const char *type = json_object_iter_key(it);
    const json_t *v = json_object_iter_value(it);
    if (strcmp(type, "u256") == 0)
        return from_u256(out, v, ret, err);
    if (strcmp(type, "bytes") == 0)
        return from_bytes(out, v, ret, err);
    if (strcmp(type, "set") == 0 && json_is_array(v))
        return from_list(out, AZOTH_TYPE_SET, v, ret, err);
    if (strcmp(type, "array") == 0 && json_is_array(v))
        return from_list(out, AZOTH_TYPE_ARRAY, v, ret, err);
    if ((strcmp(type, "i64") == 0 && json_is_integer(v)) ||
        (strcmp(type, "string") == 0 && json_is_string(v)))
        return value_from_json(out, v, ret, err);
    return error_set(err, AZOTH_ERR_TYPE,
                     "%.40s is no type of values, or its value does not fit it", type);
}

int value_from_json(struct buf *out, const json_t *json, struct azoth_value *ret,
                    struct azoth_error *err)
{
    int rc;
    switch (json ? json_typeof(json) : JSON_NULL) {
    case JSON_INTEGER:
        rc = value_make_i64(out, json_integer_value(json), ret);
        break;
    case JSON_STRING:
        rc = value_make_string(out, string_of(json), ret);
        break;
    case JSON_ARRAY:
        return from_list(out, AZOTH_TYPE_ARRAY, json, ret, err);
    case JSON_OBJECT:
        return from_object(out, json, ret, err);
    default:
        return bad(err, AZOTH_ERR_BAD_JSON,
                   "a value is an integer, a string, an array or an object");
    }
    return rc ? bad(err, rc, azoth_code_sentence(rc)) : 0;
}

/* ---- output ---- */

/*
 * Room for the text of b: an escape has at most six bytes for one of b, and `more` are for what
 * stands around it. b may lie in out, which growing moves: it is taken along, and the writing that
 * follows does not grow out again.
 */
static int reserve_text(struct buf *out, size_t more, struct azoth_bytes *b)
{
    uintptr_t base = (uintptr_t)out->ptr, at = (uintptr_t)b->ptr - base;
    if (!base || (uintptr_t)b->ptr < base || at >= out->cap)
        return 0;
    if (b->len > SIZE_MAX / 8)
        return AZOTH_ERR_NOMEM;
    int rc = buf_reserve(out, 6 * b->len + more);
    if (!rc)
        b->ptr = out->ptr + at;
    return rc;
}

static int add_string(struct buf *out, struct azoth_bytes b, int lossy)
{
    const unsigned char *p = b.ptr;
    size_t before = out->len;
    int rc = buf_add_str(out, "\"");
    for (size_t i = 0; i < b.len && !rc;) {
        size_t n = 1;
        if (p[i] == '"' || p[i] == '\\') {
            rc = buf_addf(out, "\\%c", p[i]);
        } else if (p[i] < 0x20) {
            rc = buf_addf(out, "\\u%04x", p[i]);
        } else if (p[i] < 0x80) {
            while (i + n < b.len && p[i + n] >= 0x20 && p[i + n] < 0x80 && p[i + n] != '"' &&
                   p[i + n] != '\\')
                n++;
            rc = buf_add(out, p + i, n);
        } else {
            n = p[i] >= 0xf0 ? 4 : p[i] >= 0xe0 ? 3 : 2;
            if (n <= b.len - i && utf8_valid(bytes_of(p + i, n))) {
                rc = buf_add(out, p + i, n);
            } else if (lossy) {
                n = 1;
                rc = buf_add_str(out, "\xef\xbf\xbd");
            } else {
                rc = AZOTH_ERR_UTF8;
            }
        }
        i += n;
    }
    if (!rc)
        rc = buf_add_str(out, "\"");
    if (rc)
        out->len = before;
    return rc;
}

#define AROUND 128u /* quotes, a type's name, digits of a number, and buf_addf's NUL */

int json_add_string(struct buf *out, struct azoth_bytes b, int lossy)
{
    int rc = reserve_text(out, AROUND, &b);
    return rc ? rc : add_string(out, b, lossy);
}

static int list_to_json(struct buf *out, struct azoth_value v)
{
    size_t at = 0;
    struct azoth_bytes m;
    int rc = buf_add_str(out, "["), first = 1;
    while (!rc && value_next(v, &at, &m)) {
        if (!first)
            rc = buf_add_str(out, ",");
        first = 0;
        if (!rc)
            rc = add_string(out, m, 0);
    }
    return rc ? rc : buf_add_str(out, "]");
}

static int to_json(struct buf *out, struct azoth_value v)
{
    int64_t n;
    struct azoth_u256 u;
    char digits[U256_TEXT_MAX];
    int rc;
    switch (v.type) {
    case AZOTH_TYPE_I64:
        rc = value_i64(v, &n);
        return rc ? AZOTH_ERR_ENCODING : buf_addf(out, "%lld", (long long)n);
    case AZOTH_TYPE_U256:
        if (value_u256(v, &u))
            return AZOTH_ERR_ENCODING;
        u256_text(&u, digits);
        return buf_addf(out, "{\"u256\":\"%s\"}", digits);
    case AZOTH_TYPE_SET:
        rc = buf_add_str(out, "{\"set\":");
        if (!rc)
            rc = list_to_json(out, v);
        return rc ? rc : buf_add_str(out, "}");
    case AZOTH_TYPE_ARRAY:
        return list_to_json(out, v);
    case AZOTH_TYPE_BYTES:
        rc = buf_add_str(out, "{\"bytes\":\"");
        if (!rc)
            rc = base64_encode(out, v.enc);
        return rc ? rc : buf_add_str(out, "\"}");
    case AZOTH_TYPE_STRING:
        return add_string(out, v.enc, 0);
    default:
        return AZOTH_ERR_ENCODING;
    }
}

int value_to_json(struct buf *out, struct azoth_value v)
{
    size_t before = out->len;
    /* Damaged bytes would otherwise be shown as a shorter list than the one that was stored. */
    if (value_check(v))
        return AZOTH_ERR_ENCODING;
    int rc = reserve_text(out, AROUND, &v.enc);
    if (!rc)
        rc = to_json(out, v);
    if (rc)
        out->len = before;
    return rc;
}
