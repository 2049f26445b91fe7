#include "core/u256.h"

#include "core/error.h"
#include "core/record.h"

#include <gmp.h>
#include <string.h>

_Static_assert(GMP_NUMB_BITS == 64 && sizeof(mp_limb_t) == 8, "gmp's limbs are ours");
#define LIMBS 4

struct azoth_u256 u256_of(uint64_t n)
{
    return (struct azoth_u256){{n, 0, 0, 0}};
}

/* gmp's limb type is another name for the same 64 bits: copied, so that no alias is needed. */
static void load(mp_limb_t to[LIMBS], const struct azoth_u256 *a)
{
    memcpy(to, a->limb, sizeof a->limb);
}

static void store(struct azoth_u256 *to, const mp_limb_t from[LIMBS])
{
    memcpy(to->limb, from, sizeof to->limb);
}

static mp_size_t significant(const mp_limb_t *l, mp_size_t n)
{
    while (n > 0 && l[n - 1] == 0)
        n--;
    return n;
}

int u256_cmp(const struct azoth_u256 *a, const struct azoth_u256 *b)
{
    mp_limb_t x[LIMBS], y[LIMBS];
    load(x, a);
    load(y, b);
    int c = mpn_cmp(x, y, LIMBS);
    return (c > 0) - (c < 0);
}

int u256_add(const struct azoth_u256 *a, const struct azoth_u256 *b, struct azoth_u256 *ret)
{
    mp_limb_t x[LIMBS], y[LIMBS], r[LIMBS];
    load(x, a);
    load(y, b);
    if (mpn_add_n(r, x, y, LIMBS))
        return AZOTH_ERR_OVERFLOW;
    store(ret, r);
    return 0;
}

int u256_sub(const struct azoth_u256 *a, const struct azoth_u256 *b, struct azoth_u256 *ret)
{
    mp_limb_t x[LIMBS], y[LIMBS], r[LIMBS];
    load(x, a);
    load(y, b);
    if (mpn_sub_n(r, x, y, LIMBS))
        return AZOTH_ERR_UNDERFLOW;
    store(ret, r);
    return 0;
}

int u256_mul(const struct azoth_u256 *a, const struct azoth_u256 *b, struct azoth_u256 *ret)
{
    mp_limb_t x[LIMBS], y[LIMBS], r[2 * LIMBS];
    load(x, a);
    load(y, b);
    mpn_mul_n(r, x, y, LIMBS);
    if (significant(r, 2 * LIMBS) > LIMBS)
        return AZOTH_ERR_OVERFLOW;
    store(ret, r);
    return 0;
}

int u256_div(const struct azoth_u256 *a, const struct azoth_u256 *b, struct azoth_u256 *ret_quot,
             struct azoth_u256 *ret_rem)
{
    mp_limb_t x[LIMBS], y[LIMBS], q[LIMBS] = {0}, r[LIMBS] = {0};
    load(x, a);
    load(y, b);
    mp_size_t yn = significant(y, LIMBS), xn = significant(x, LIMBS);
    if (yn == 0)
        return AZOTH_ERR_DIVISION;
    if (xn >= yn)
        mpn_tdiv_qr(q, r, 0, x, xn, y, yn);
    else
        memcpy(r, x, sizeof r);
    if (ret_quot)
        store(ret_quot, q);
    if (ret_rem)
        store(ret_rem, r);
    return 0;
}

size_t u256_text(const struct azoth_u256 *a, char out[U256_TEXT_MAX])
{
    mp_limb_t x[LIMBS + 1] = {0}; /* mpn_get_str destroys its operand and wants room */
    load(x, a);
    mp_size_t n = significant(x, LIMBS);
    if (n == 0) {
        memcpy(out, "0", 2);
        return 1;
    }
    unsigned char digits[U256_TEXT_MAX + 1];
    size_t len = mpn_get_str(digits, 10, x, n);
    size_t zeros = 0;
    while (zeros + 1 < len && digits[zeros] == 0)
        zeros++;
    len -= zeros;
    for (size_t i = 0; i < len; i++)
        out[i] = (char)('0' + digits[zeros + i]);
    out[len] = 0;
    return len;
}

int u256_parse(struct azoth_bytes text, struct azoth_u256 *ret)
{
    const char *p = text.ptr;
    size_t n = text.len;
    if (n == 0)
        return AZOTH_ERR_ENCODING;
    for (size_t i = 0; i < n; i++)
        if (p[i] < '0' || p[i] > '9')
            return AZOTH_ERR_ENCODING;
    while (n > 1 && *p == '0') {
        p++;
        n--;
    }
    if (n > 78)
        return AZOTH_ERR_OVERFLOW;
    unsigned char digits[78];
    for (size_t i = 0; i < n; i++)
        digits[i] = (unsigned char)(p[i] - '0');
    mp_limb_t r[LIMBS + 2] = {0};
    if (mpn_set_str(r, digits, n, 10) > LIMBS)
        return AZOTH_ERR_OVERFLOW;
    store(ret, r);
    return 0;
}

void u256_to_be(const struct azoth_u256 *a, unsigned char out[32])
{
    for (int i = 0; i < LIMBS; i++)
        put_be64(out + 8 * i, a->limb[LIMBS - 1 - i]);
}

void u256_from_be(const unsigned char in[32], struct azoth_u256 *ret)
{
    for (int i = 0; i < LIMBS; i++)
        ret->limb[LIMBS - 1 - i] = get_be64(in + 8 * i);
}
