#include "core/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_fini(struct buf *b)
{
    free(b->ptr);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
    b->len = 0;
}

int buf_reserve(struct buf *b, size_t more)
{
    if (more <= b->cap - b->len)
        return 0;
    if (more > SIZE_MAX / 4 - b->len)
        return AZOTH_ERR_NOMEM;
    size_t cap = b->cap ? b->cap : 256;
    while (cap - b->len < more)
        cap *= 2;
    unsigned char *p = realloc(b->ptr, cap);
    if (!p)
        return AZOTH_ERR_NOMEM;
    b->ptr = p;
    b->cap = cap;
    return 0;
}

unsigned char *buf_grow(struct buf *b, size_t n)
{
    /* Never without memory: NULL means that there was none, and has nothing added to it. */
    if (buf_reserve(b, n ? n : 1))
        return NULL;
    unsigned char *p = b->ptr + b->len;
    b->len += n;
    return p;
}

int buf_add(struct buf *b, const void *p, size_t n)
{
    unsigned char *to = buf_grow(b, n);
    if (!to)
        return AZOTH_ERR_NOMEM;
    if (n)
        memcpy(to, p, n);
    return 0;
}

int buf_add_str(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || buf_reserve(b, (size_t)n + 1))
        return AZOTH_ERR_NOMEM;
    va_start(ap, fmt);
    vsnprintf((char *)b->ptr + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}

struct azoth_bytes bytes_str(const char *s)
{
    return s ? bytes_of(s, strlen(s)) : bytes_of("", 0);
}

int bytes_eq(struct azoth_bytes a, struct azoth_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

int bytes_cmp(struct azoth_bytes a, struct azoth_bytes b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.ptr, b.ptr, n) : 0;
    if (c)
        return c;
    return (a.len > b.len) - (a.len < b.len);
}

void bytes_hex(char *out, const void *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[b[i] >> 4];
        out[2 * i + 1] = digits[b[i] & 15];
    }
    out[2 * n] = 0;
}

const char *bytes_print(struct azoth_bytes b, char *out, size_t size)
{
    const unsigned char *p = b.ptr;
    size_t at = 0;
    for (size_t i = 0; i < b.len; i++) {
        int plain = p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\';
        if (at + (plain ? 1u : 4u) + 4 > size) {
            if (size >= at + 4)
                at += (size_t)snprintf(out + at, size - at, "...");
            break;
        }
        at += (size_t)snprintf(out + at, size - at, plain ? "%c" : "\\x%02x", p[i]);
    }
    if (size && at < size)
        out[at] = 0;
    return out;
}

int utf8_valid(struct azoth_bytes b)
{
    const unsigned char *p = b.ptr, *end;
    if (b.len == 0)
        return 1;
    for (end = p + b.len; p < end;) {
        if (*p < 0x80) {
            p++;
            continue;
        }
        unsigned n = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
        if (*p < 0xc2 || *p > 0xf4 || (size_t)(end - p) <= n)
            return 0;
        /* The second byte's range closes over long forms, surrogates and the upper end. */
        unsigned char lo = *p == 0xe0 ? 0xa0 : *p == 0xf0 ? 0x90 : 0x80;
        unsigned char hi = *p == 0xed ? 0x9f : *p == 0xf4 ? 0x8f : 0xbf;
        if (p[1] < lo || p[1] > hi)
            return 0;
        for (unsigned i = 2; i <= n; i++)
            if ((p[i] & 0xc0) != 0x80)
                return 0;
        p += n + 1;
    }
    return 1;
}

void utf8_tame(char *text)
{
    unsigned char *p = (unsigned char *)text, *end = p + strlen(text);
    while (p < end) {
        size_t n = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : *p >= 0x80 ? 2 : 1;
        /* U+0080 to U+009F are control characters too. */
        int control = n == 1 ? *p < 0x20 || *p == 0x7f : *p == 0xc2 && p[1] < 0xa0;
        if (n > (size_t)(end - p) || control || !utf8_valid(bytes_of(p, n))) {
            *p = *p >= '\t' && *p <= '\r' ? ' ' : '?';
            n = 1;
        }
        p += n;
    }
}
