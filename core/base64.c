/* Base64 as in RFC 4648 section 4: padded, no line breaks, no bits left over in the last group. */
#include "core/valuejson.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Room for `more` bytes. b may lie in out, which growing moves: it is taken along. */
static int reserve(struct buf *out, size_t more, struct azoth_bytes *b)
{
    uintptr_t base = (uintptr_t)out->ptr, at = (uintptr_t)b->ptr - base;
    size_t cap = out->cap;
    int rc = buf_reserve(out, more);
    if (!rc && base && (uintptr_t)b->ptr >= base && at < cap)
        b->ptr = out->ptr + at;
    return rc;
}

int base64_encode(struct buf *out, struct azoth_bytes in)
{
    if (in.len == 0)
        return 0;
    if (in.len > SIZE_MAX / 8)
        return AZOTH_ERR_NOMEM;
    size_t size = (in.len + 2) / 3 * 4;
    if (reserve(out, size, &in))
        return AZOTH_ERR_NOMEM;
    const unsigned char *p = in.ptr;
    unsigned char *to = out->ptr + out->len;
    out->len += size;
    for (size_t i = 0; i < in.len; i += 3) {
        size_t left = in.len - i;
        uint32_t group = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                         (left > 2 ? p[i + 2] : 0);
        *to++ = (unsigned char)letters[group >> 18];
        *to++ = (unsigned char)letters[group >> 12 & 63];
        *to++ = (unsigned char)(left > 1 ? letters[group >> 6 & 63] : '=');
        *to++ = (unsigned char)(left > 2 ? letters[group & 63] : '=');
    }
    return 0;
}

static int digit(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(struct buf *out, struct azoth_bytes text)
{
    size_t before = out->len;
    if (text.len % 4)
        return AZOTH_ERR_ENCODING;
    if (text.len == 0)
        return 0;
    if (reserve(out, text.len / 4 * 3, &text))
        return AZOTH_ERR_NOMEM;
    const unsigned char *p = text.ptr;
    for (size_t i = 0; i < text.len; i += 4) {
        int last = i + 4 == text.len;
        int pad = last && p[i + 3] == '=' ? (p[i + 2] == '=' ? 2 : 1) : 0;
        int d[4] = {digit(p[i]), digit(p[i + 1]), pad > 1 ? 0 : digit(p[i + 2]),
                    pad > 0 ? 0 : digit(p[i + 3])};
        if (d[0] < 0 || d[1] < 0 || d[2] < 0 || d[3] < 0)
            goto fail;
        uint32_t group =
            (uint32_t)d[0] << 18 | (uint32_t)d[1] << 12 | (uint32_t)d[2] << 6 | (uint32_t)d[3];
        if ((pad == 1 && (group & 0xff)) || (pad == 2 && (group & 0xffff)))
            goto fail; /* a second spelling of the same bytes */
        for (int k = 0; k < 3 - pad; k++)
            out->ptr[out->len++] = (unsigned char)(group >> (16 - 8 * k));
    }
    return 0;
fail:
    out->len = before;
    return AZOTH_ERR_ENCODING;
}
