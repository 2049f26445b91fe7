/* u256.h - integers from 0 to 2^256-1 with checked arithmetic, over gmp's mpn limbs. */
#ifndef CORE_U256_H
#define CORE_U256_H

#include "core/azoth_base.h"

#define U256_TEXT_MAX 79 /* 78 decimal digits and the NUL */

struct azoth_u256 u256_of(uint64_t n);
int u256_cmp(const struct azoth_u256 *a, const struct azoth_u256 *b); /* -1, 0, 1 */
/* 0, AZOTH_ERR_OVERFLOW, AZOTH_ERR_UNDERFLOW or AZOTH_ERR_DIVISION; *ret may be a or b. */
int u256_add(const struct azoth_u256 *a, const struct azoth_u256 *b, struct azoth_u256 *ret);
int u256_sub(const struct azoth_u256 *a, const struct azoth_u256 *b, struct azoth_u256 *ret);
int u256_mul(const struct azoth_u256 *a, const struct azoth_u256 *b, struct azoth_u256 *ret);
int u256_div(const struct azoth_u256 *a, const struct azoth_u256 *b, struct azoth_u256 *ret_quot,
             struct azoth_u256 *ret_rem); /* either output may be NULL */
/* Decimal text, no sign, no leading zeros, NUL-terminated; returns its length. */
size_t u256_text(const struct azoth_u256 *a, char out[U256_TEXT_MAX]);
/* Digits only, 1 to 78 significant ones; leading zeros accepted. AZOTH_ERR_ENCODING, _OVERFLOW. */
int u256_parse(struct azoth_bytes text, struct azoth_u256 *ret);
void u256_to_be(const struct azoth_u256 *a, unsigned char out[32]);
void u256_from_be(const unsigned char in[32], struct azoth_u256 *ret);

#endif
