/* Base64 as in RFC 4648 section 4: padded, no line breaks, no bits left over in the last group. */
#include "core/valuejson.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(struct buf *out, struct azoth_bytes in)
{
    const unsigned char *p = in.ptr;
    unsigned char *to = buf_grow(out, (in.len + 2) / 3 * 4);
    if (!to && in.len)
        return AZOTH_ERR_NOMEM;
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
    const unsigned char *p = text.ptr;
    size_t before = out->len;
    if (text.len % 4)
        return AZOTH_ERR_ENCODING;
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
        unsigned char bytes[3] = {(unsigned char)(group >> 16), (unsigned char)(group >> 8),
                                  (unsigned char)group};
        if (buf_add(out, bytes, (size_t)(3 - pad))) {
            out->len = before;
            return AZOTH_ERR_NOMEM;
        }
    }
    return 0;
fail:
    out->len = before;
    return AZOTH_ERR_ENCODING;
}
