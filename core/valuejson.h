/*
 * valuejson.h - the JSON form of values.
 *
 *   I64     12            an integer of JSON, -2^63 to 2^63-1; a real number is refused
 *   String  "text"
 *   Array   ["a","b"]     strings only
 *   U256    {"u256":"115..."}    decimal text
 *   Set     {"set":["a","b"]}
 *   Bytes   {"bytes":"aGk="}     base64, RFC 4648 section 4, padded
 *
 * {"i64":..}, {"string":..} and {"array":[..]} are accepted too. Each value has one form on output:
 * the one of the table; members of a Set in stored order.
 */
#ifndef CORE_VALUEJSON_H
#define CORE_VALUEJSON_H

#include "core/buf.h"
#include "core/value.h"

#include <jansson.h>

/* Appends the encoding to out. AZOTH_ERR_BAD_JSON, _TYPE, _OVERFLOW, _UTF8, _VALUE_SIZE, _NOMEM;
 * err (may be NULL) gets the sentence. */
int value_from_json(struct buf *out, const json_t *json, struct azoth_value *ret,
                    struct azoth_error *err);

/* Appends the JSON text of v to out (no trailing newline). AZOTH_ERR_NOMEM, _ENCODING. */
int value_to_json(struct buf *out, struct azoth_value v);

/* Appends b as a JSON string: valid UTF-8 with escapes. Bytes that are not UTF-8 become
 * U+FFFD when lossy is set, else AZOTH_ERR_UTF8. */
int json_add_string(struct buf *out, struct azoth_bytes b, int lossy);

/* Base64 both ways, appended to out. AZOTH_ERR_NOMEM, AZOTH_ERR_ENCODING. */
int base64_encode(struct buf *out, struct azoth_bytes in);
int base64_decode(struct buf *out, struct azoth_bytes text);

#endif
