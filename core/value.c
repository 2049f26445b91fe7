#include "core/value.h"

#include "core/error.h"
#include "core/record.h"
#include "core/u256.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
    [AZOTH_TYPE_I64] = "i64",     [AZOTH_TYPE_U256] = "u256",   [AZOTH_TYPE_SET] = "set",
    [AZOTH_TYPE_ARRAY] = "array", [AZOTH_TYPE_BYTES] = "bytes", [AZOTH_TYPE_STRING] = "string",
};

const char *value_type_name(uint32_t type)
{
    return type < sizeof names / sizeof *names && names[type] ? names[type] : "?";
}

int value_type_parse(const char *name, uint32_t *ret)
{
    for (uint32_t t = AZOTH_TYPE_I64; t <= AZOTH_TYPE_STRING; t++)
        if (strcmp(name, names[t]) == 0) {
            *ret = t;
            return 0;
        }
    return AZOTH_ERR_TYPE;
}

/* ---- lists: sets and arrays ---- */

#define LIST_HEAD 4u /* the count; shorter bytes are no list and have no place to splice */

static int is_list(struct azoth_value v)
{
    return v.type == AZOTH_TYPE_SET || v.type == AZOTH_TYPE_ARRAY;
}

int value_next(struct azoth_value v, size_t *at, struct azoth_bytes *ret)
{
    size_t from = *at ? *at : 4;
    const unsigned char *p = v.enc.ptr;
    if (!is_list(v) || from > v.enc.len || v.enc.len - from < 4)
        return 0;
    size_t len = get_u32(p + from);
    if (len > v.enc.len - from - 4)
        return 0;
    *ret = bytes_of(p + from + 4, len);
    *at = from + 4 + len;
    return 1;
}

static int check_list(struct azoth_value v)
{
    if (v.enc.len < 4)
        return AZOTH_ERR_ENCODING;
    uint32_t count = get_u32(v.enc.ptr);
    size_t at = 4;
    struct azoth_bytes member, before = {0};
    for (uint32_t i = 0; i < count; i++) {
        if (!value_next(v, &at, &member))
            return AZOTH_ERR_ENCODING;
        if (!utf8_valid(member))
            return AZOTH_ERR_UTF8;
        if (v.type == AZOTH_TYPE_SET && i > 0 && bytes_cmp(before, member) >= 0)
            return AZOTH_ERR_ENCODING;
        before = member;
    }
    return at == v.enc.len ? 0 : AZOTH_ERR_ENCODING;
}

int value_check(struct azoth_value v)
{
    if (v.enc.len > AZOTH_VALUE_MAX)
        return AZOTH_ERR_VALUE_SIZE;
    switch (v.type) {
    case AZOTH_TYPE_I64:
        return v.enc.len == 8 ? 0 : AZOTH_ERR_ENCODING;
    case AZOTH_TYPE_U256:
        return v.enc.len == 32 ? 0 : AZOTH_ERR_ENCODING;
    case AZOTH_TYPE_SET:
    case AZOTH_TYPE_ARRAY:
        return check_list(v);
    case AZOTH_TYPE_BYTES:
        return 0;
    case AZOTH_TYPE_STRING:
        return utf8_valid(v.enc) ? 0 : AZOTH_ERR_UTF8;
    default:
        return AZOTH_ERR_TYPE;
    }
}

int value_i64(struct azoth_value v, int64_t *ret)
{
    if (v.type != AZOTH_TYPE_I64 || v.enc.len != 8)
        return AZOTH_ERR_TYPE;
    memcpy(ret, v.enc.ptr, 8);
    return 0;
}

int value_u256(struct azoth_value v, struct azoth_u256 *ret)
{
    if (v.type != AZOTH_TYPE_U256 || v.enc.len != 32)
        return AZOTH_ERR_TYPE;
    u256_from_be(v.enc.ptr, ret);
    return 0;
}

int value_count(struct azoth_value v, uint32_t *ret)
{
    if (!is_list(v) || v.enc.len < 4)
        return AZOTH_ERR_TYPE;
    *ret = get_u32(v.enc.ptr);
    return 0;
}

/* ---- makers ---- */

/*
 * Operands may lie in the buffer that the result is appended to, and growing moves them. Where they
 * lay is taken before, as a number: the old pointer means nothing afterwards.
 */
struct place {
    uintptr_t base;
    size_t cap;
};

static struct place place_of(const struct buf *out)
{
    return (struct place){(uintptr_t)out->ptr, out->cap};
}

static struct azoth_bytes moved(const struct buf *out, struct place was, struct azoth_bytes b)
{
    uintptr_t p = (uintptr_t)b.ptr;
    if (was.base && p >= was.base && p - was.base < was.cap)
        b.ptr = out->ptr + (p - was.base);
    return b;
}

/* Appends n bytes to out, fills them from p and makes *ret of them. p may lie in out. */
static int emit(struct buf *out, uint32_t type, const void *p, size_t n, struct azoth_value *ret)
{
    struct place was = place_of(out);
    unsigned char *to = buf_grow(out, n ? n : 1); /* one byte at least, so that *ret has a place */
    if (!to)
        return AZOTH_ERR_NOMEM;
    if (n)
        memmove(to, moved(out, was, bytes_of(p, n)).ptr, n);
    else
        out->len--;
    *ret = (struct azoth_value){type, bytes_of(to, n)};
    return 0;
}

int value_make_i64(struct buf *out, int64_t n, struct azoth_value *ret)
{
    return emit(out, AZOTH_TYPE_I64, &n, sizeof n, ret);
}

int value_make_u256(struct buf *out, const struct azoth_u256 *n, struct azoth_value *ret)
{
    unsigned char be[32];
    u256_to_be(n, be);
    return emit(out, AZOTH_TYPE_U256, be, sizeof be, ret);
}

int value_make_bytes(struct buf *out, struct azoth_bytes b, struct azoth_value *ret)
{
    if (b.len > AZOTH_VALUE_MAX)
        return AZOTH_ERR_VALUE_SIZE;
    return emit(out, AZOTH_TYPE_BYTES, b.ptr, b.len, ret);
}

int value_make_string(struct buf *out, struct azoth_bytes b, struct azoth_value *ret)
{
    if (b.len > AZOTH_VALUE_MAX)
        return AZOTH_ERR_VALUE_SIZE;
    if (!utf8_valid(b))
        return AZOTH_ERR_UTF8;
    return emit(out, AZOTH_TYPE_STRING, b.ptr, b.len, ret);
}

static unsigned char *put_member(unsigned char *to, struct azoth_bytes m)
{
    put_u32(to, (uint32_t)m.len);
    if (m.len)
        memcpy(to + 4, m.ptr, m.len);
    return to + 4 + m.len;
}

/* The list of the n members, already in their order. */
static int make_list(struct buf *out, uint32_t type, const struct azoth_bytes *members, size_t n,
                     struct azoth_value *ret)
{
    size_t size = 4;
    for (size_t i = 0; i < n; i++) {
        if (members[i].len > AZOTH_VALUE_MAX - 4 || size + 4 + members[i].len > AZOTH_VALUE_MAX)
            return AZOTH_ERR_VALUE_SIZE;
        if (!utf8_valid(members[i]))
            return AZOTH_ERR_UTF8;
        size += 4 + members[i].len;
    }
    struct place was = place_of(out);
    unsigned char *list = buf_grow(out, size);
    if (!list)
        return AZOTH_ERR_NOMEM;
    put_u32(list, (uint32_t)n);
    unsigned char *to = list + 4;
    for (size_t i = 0; i < n; i++)
        to = put_member(to, moved(out, was, members[i]));
    *ret = (struct azoth_value){type, bytes_of(list, size)};
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return bytes_cmp(*(const struct azoth_bytes *)a, *(const struct azoth_bytes *)b);
}

int value_make_set(struct buf *out, const struct azoth_bytes *members, size_t n,
                   struct azoth_value *ret)
{
    if (n > AZOTH_VALUE_MAX / 4)
        return AZOTH_ERR_VALUE_SIZE;
    struct azoth_bytes *sorted = malloc((n + 1) * sizeof *sorted);
    if (!sorted)
        return AZOTH_ERR_NOMEM;
    if (n)
        memcpy(sorted, members, n * sizeof *sorted);
    if (n)
        qsort(sorted, n, sizeof *sorted, by_bytes);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || !bytes_eq(sorted[kept - 1], sorted[i]))
            sorted[kept++] = sorted[i];
    int rc = make_list(out, AZOTH_TYPE_SET, sorted, kept, ret);
    free(sorted);
    return rc;
}

int value_make_array(struct buf *out, const struct azoth_bytes *members, size_t n,
                     struct azoth_value *ret)
{
    return make_list(out, AZOTH_TYPE_ARRAY, members, n, ret);
}

/* ---- arithmetic ---- */

enum op { ADD, SUB, MUL, DIV };

static int i64_op(enum op op, int64_t a, int64_t b, int64_t *ret)
{
    int over;
    switch (op) {
    case ADD:
        over = __builtin_add_overflow(a, b, ret);
        return !over ? 0 : b < 0 ? AZOTH_ERR_UNDERFLOW : AZOTH_ERR_OVERFLOW;
    case SUB:
        over = __builtin_sub_overflow(a, b, ret);
        return !over ? 0 : b > 0 ? AZOTH_ERR_UNDERFLOW : AZOTH_ERR_OVERFLOW;
    case MUL:
        over = __builtin_mul_overflow(a, b, ret);
        return !over ? 0 : (a < 0) != (b < 0) ? AZOTH_ERR_UNDERFLOW : AZOTH_ERR_OVERFLOW;
    default:
        if (b == 0)
            return AZOTH_ERR_DIVISION;
        if (a == INT64_MIN && b == -1)
            return AZOTH_ERR_OVERFLOW;
        *ret = a / b;
        return 0;
    }
}

static int u256_op(enum op op, const struct azoth_u256 *a, const struct azoth_u256 *b,
                   struct azoth_u256 *ret)
{
    switch (op) {
    case ADD:
        return u256_add(a, b, ret);
    case SUB:
        return u256_sub(a, b, ret);
    case MUL:
        return u256_mul(a, b, ret);
    default:
        return u256_div(a, b, ret, NULL);
    }
}

static int arithmetic(struct buf *out, enum op op, struct azoth_value a, struct azoth_value b,
                      struct azoth_value *ret)
{
    int64_t x, y, n;
    if (value_i64(a, &x) == 0 && value_i64(b, &y) == 0) {
        int rc = i64_op(op, x, y, &n);
        return rc ? rc : value_make_i64(out, n, ret);
    }
    struct azoth_u256 u, v, r;
    if (value_u256(a, &u) == 0 && value_u256(b, &v) == 0) {
        int rc = u256_op(op, &u, &v, &r);
        return rc ? rc : value_make_u256(out, &r, ret);
    }
    return AZOTH_ERR_TYPE;
}

int value_add(struct buf *out, struct azoth_value a, struct azoth_value b, struct azoth_value *ret)
{
    struct azoth_u256 u, delta, r;
    int64_t d;
    if (value_u256(a, &u) == 0 && value_i64(b, &d) == 0) {
        delta = u256_of(d < 0 ? 0 - (uint64_t)d : (uint64_t)d);
        int rc = d < 0 ? u256_sub(&u, &delta, &r) : u256_add(&u, &delta, &r);
        return rc ? rc : value_make_u256(out, &r, ret);
    }
    return arithmetic(out, ADD, a, b, ret);
}

int value_sub(struct buf *out, struct azoth_value a, struct azoth_value b, struct azoth_value *ret)
{
    return arithmetic(out, SUB, a, b, ret);
}

int value_mul(struct buf *out, struct azoth_value a, struct azoth_value b, struct azoth_value *ret)
{
    return arithmetic(out, MUL, a, b, ret);
}

int value_div(struct buf *out, struct azoth_value a, struct azoth_value b, struct azoth_value *ret)
{
    return arithmetic(out, DIV, a, b, ret);
}

int value_compare(struct azoth_value a, struct azoth_value b, int *ret)
{
    if (a.type != b.type)
        return AZOTH_ERR_TYPE;
    int64_t x, y;
    if (value_i64(a, &x) == 0 && value_i64(b, &y) == 0) {
        *ret = (x > y) - (x < y);
        return 0;
    }
    int c = bytes_cmp(a.enc, b.enc); /* U256 is big-endian: bytes order as numbers */
    *ret = (c > 0) - (c < 0);
    return 0;
}

/* ---- sets and arrays ---- */

/* Looks for member: where it is or would be, and the size of what is there. */
static int find(struct azoth_value set, struct azoth_bytes member, size_t *ret_at)
{
    size_t at = 4, before = 4;
    struct azoth_bytes m;
    while (value_next(set, &at, &m)) {
        int c = bytes_cmp(m, member);
        if (c >= 0) {
            *ret_at = before;
            return c == 0;
        }
        before = at;
    }
    *ret_at = before;
    return 0;
}

int value_contains(struct azoth_value set, struct azoth_bytes member, int *ret)
{
    size_t at;
    if (set.type != AZOTH_TYPE_SET)
        return AZOTH_ERR_TYPE;
    *ret = find(set, member, &at);
    return 0;
}

/* A copy of list with `cut` bytes at `at` replaced by `member` (if put), count moved by delta. */
static int splice(struct buf *out, struct azoth_value list, size_t at, size_t cut, int put,
                  struct azoth_bytes member, struct azoth_value *ret)
{
    size_t size = list.enc.len - cut + (put ? 4 + member.len : 0);
    if (size > AZOTH_VALUE_MAX)
        return AZOTH_ERR_VALUE_SIZE;
    struct place was = place_of(out);
    unsigned char *p = buf_grow(out, size);
    if (!p)
        return AZOTH_ERR_NOMEM;
    const unsigned char *from = moved(out, was, list.enc).ptr;
    memcpy(p, from, at);
    unsigned char *to = p + at;
    if (put)
        to = put_member(to, moved(out, was, member));
    memcpy(to, from + at + cut, list.enc.len - at - cut);
    put_u32(p, get_u32(from) + (put ? 1 : 0) - (cut ? 1 : 0));
    *ret = (struct azoth_value){list.type, bytes_of(p, size)};
    return 0;
}

int value_set_add(struct buf *out, struct azoth_value set, struct azoth_bytes member,
                  struct azoth_value *ret, int *ret_changed)
{
    size_t at;
    if (set.type != AZOTH_TYPE_SET)
        return AZOTH_ERR_TYPE;
    if (set.enc.len < LIST_HEAD)
        return AZOTH_ERR_ENCODING;
    if (member.len > AZOTH_VALUE_MAX)
        return AZOTH_ERR_VALUE_SIZE;
    if (!utf8_valid(member))
        return AZOTH_ERR_UTF8;
    int there = find(set, member, &at);
    int rc = there ? emit(out, set.type, set.enc.ptr, set.enc.len, ret)
                   : splice(out, set, at, 0, 1, member, ret);
    if (!rc && ret_changed)
        *ret_changed = !there;
    return rc;
}

int value_set_remove(struct buf *out, struct azoth_value set, struct azoth_bytes member,
                     struct azoth_value *ret, int *ret_changed)
{
    size_t at;
    if (set.type != AZOTH_TYPE_SET)
        return AZOTH_ERR_TYPE;
    if (set.enc.len < LIST_HEAD)
        return AZOTH_ERR_ENCODING;
    int there = find(set, member, &at);
    int rc = there ? splice(out, set, at, 4 + member.len, 0, member, ret)
                   : emit(out, set.type, set.enc.ptr, set.enc.len, ret);
    if (!rc && ret_changed)
        *ret_changed = there;
    return rc;
}

int value_array_push(struct buf *out, struct azoth_value array, struct azoth_bytes member,
                     struct azoth_value *ret)
{
    if (array.type != AZOTH_TYPE_ARRAY)
        return AZOTH_ERR_TYPE;
    if (array.enc.len < LIST_HEAD)
        return AZOTH_ERR_ENCODING;
    if (member.len > AZOTH_VALUE_MAX)
        return AZOTH_ERR_VALUE_SIZE;
    if (!utf8_valid(member))
        return AZOTH_ERR_UTF8;
    return splice(out, array, array.enc.len, 0, 1, member, ret);
}
