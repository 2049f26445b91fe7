/*
 * value.h - typed values: canonical encodings and checked arithmetic.
 *
 * Equal values have equal bytes, so bytes_eq() on encodings is equality of values of one type.
 *
 *   I64     8 bytes, little-endian two's complement
 *   U256    32 bytes, big-endian (memcmp orders as numbers)
 *   Set     u32 count, then per member u32 length and bytes; members sorted by bytes_cmp, unique,
 *           each valid UTF-8; integers little-endian
 *   Array   as Set, in the order given, repeats allowed
 *   Bytes   the bytes
 *   String  the bytes, valid UTF-8
 *
 * A struct azoth_value borrows its encoding; results of arithmetic are appended to a caller's buf.
 */
#ifndef CORE_VALUE_H
#define CORE_VALUE_H

#include "core/azoth_base.h"
#include "core/buf.h"

const char *value_type_name(uint32_t type);            /* "i64", "u256", "set", ...; "?" */
int value_type_parse(const char *name, uint32_t *ret); /* 0 or AZOTH_ERR_TYPE */

/* 0 if v.enc is the canonical encoding of a value of v.type within AZOTH_VALUE_MAX; else
 * AZOTH_ERR_TYPE, _VALUE_SIZE, _UTF8 or _ENCODING. Safe on any bytes. */
int value_check(struct azoth_value v);

/* Readers. AZOTH_ERR_TYPE for another type. v must have passed value_check. */
int value_i64(struct azoth_value v, int64_t *ret);
int value_u256(struct azoth_value v, struct azoth_u256 *ret);
int value_count(struct azoth_value v, uint32_t *ret); /* members of a Set or Array */

/* Members of a Set or Array in stored order: begin with *at = 0; 1 and *ret, 0 at the end. */
int value_next(struct azoth_value v, size_t *at, struct azoth_bytes *ret);

/* Makers. Append the encoding to out and set *ret to it. *ret borrows out: it is valid until out
 * next changes. AZOTH_ERR_NOMEM, and by name what is wrong with the input. */
int value_make_i64(struct buf *out, int64_t n, struct azoth_value *ret);
int value_make_u256(struct buf *out, const struct azoth_u256 *n, struct azoth_value *ret);
int value_make_set(struct buf *out, const struct azoth_bytes *members, size_t n,
                   struct azoth_value *ret); /* sorts and removes repeats; members not changed */
int value_make_array(struct buf *out, const struct azoth_bytes *members, size_t n,
                     struct azoth_value *ret);
int value_make_bytes(struct buf *out, struct azoth_bytes b, struct azoth_value *ret);
int value_make_string(struct buf *out, struct azoth_bytes b, struct azoth_value *ret);

/*
 * Arithmetic on I64 and U256, both operands of the same type. AZOTH_ERR_TYPE, _OVERFLOW,
 * _UNDERFLOW, _DIVISION (also: I64 minimum / -1 is _OVERFLOW). Division truncates towards zero.
 *
 * value_add alone also takes an I64 delta to a U256 (negative deltas subtract): the "add"
 * operation of transactions on a U256 balance may be written either way.
 */
int value_add(struct buf *out, struct azoth_value a, struct azoth_value b, struct azoth_value *ret);
int value_sub(struct buf *out, struct azoth_value a, struct azoth_value b, struct azoth_value *ret);
int value_mul(struct buf *out, struct azoth_value a, struct azoth_value b, struct azoth_value *ret);
int value_div(struct buf *out, struct azoth_value a, struct azoth_value b, struct azoth_value *ret);

/* Orders two values of the same type: numbers by size, others by bytes. *ret is -1, 0 or 1. */
int value_compare(struct azoth_value a, struct azoth_value b, int *ret);

/* Sets and arrays. member is UTF-8. *ret_changed (may be NULL) tells whether the value differs. */
int value_contains(struct azoth_value set, struct azoth_bytes member, int *ret);
int value_set_add(struct buf *out, struct azoth_value set, struct azoth_bytes member,
                  struct azoth_value *ret, int *ret_changed);
int value_set_remove(struct buf *out, struct azoth_value set, struct azoth_bytes member,
                     struct azoth_value *ret, int *ret_changed);
int value_array_push(struct buf *out, struct azoth_value array, struct azoth_bytes member,
                     struct azoth_value *ret);

#endif
