/* buf.h - owned, growing bytes. Zero-initialise to begin; one thread at a time. */
#ifndef CORE_BUF_H
#define CORE_BUF_H

#include "core/azoth_base.h"

struct buf {
    unsigned char *ptr;
    size_t len;
    size_t cap;
};

void buf_fini(struct buf *b);                        /* frees; b is empty and usable afterwards */
void buf_clear(struct buf *b);                       /* len = 0, memory kept */
int buf_reserve(struct buf *b, size_t more);         /* 0 or AZOTH_ERR_NOMEM; len unchanged */
int buf_add(struct buf *b, const void *p, size_t n); /* 0 or AZOTH_ERR_NOMEM */
int buf_add_str(struct buf *b, const char *s);       /* without the NUL */
int buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
unsigned char *buf_grow(struct buf *b, size_t n); /* n new bytes at the end to fill, or NULL */

static inline struct azoth_bytes buf_bytes(const struct buf *b)
{
    return (struct azoth_bytes){b->ptr, b->len};
}

/* Borrowed bytes: helpers. */
static inline struct azoth_bytes bytes_of(const void *p, size_t n)
{
    return (struct azoth_bytes){p, n};
}
struct azoth_bytes bytes_str(const char *s); /* without the NUL; "" for NULL */
int bytes_eq(struct azoth_bytes a, struct azoth_bytes b);
int bytes_cmp(struct azoth_bytes a, struct azoth_bytes b); /* memcmp, then the shorter first */

/*
 * Text of a key for messages: printable ASCII as it is, other bytes as \xNN, cut with "..." to fit.
 * Returns out.
 */
const char *bytes_print(struct azoth_bytes b, char *out, size_t size);

/* n bytes as 2 * n digits, small letters, and a NUL. */
void bytes_hex(char *out, const void *p, size_t n);

/* 1 if b is well-formed UTF-8 (RFC 3629: no surrogates, shortest forms, up to U+10FFFF). */
int utf8_valid(struct azoth_bytes b);
/* Makes it, in place, what a terminal or journal only shows: blanks for white space, ? for other control
 * characters and for bytes that are no UTF-8. */
void utf8_tame(char *text);

#endif
