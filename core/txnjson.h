/*
 * txnjson.h - requests and answers as JSON text.
 *
 * A request is one object; members may be left out, unknown ones are refused by name:
 *
 *   op            "tx" (default), "call", "get", "scan", "events", "outcome", "ping"
 *   id            32 hex digits
 *   deadline_ms   1 to 3600000 (default 5000)
 *   at_least_once true: no id is needed
 *   wait_paused   true: wait while the database is paused instead of AZOTH_ERR_PAUSED
 *
 * of "tx":
 *   read, write   ["key", ...]                 more declared keys
 *   require       [{"key":K, "exists":true | "absent":true | "equals":V | "min":N | "max":N |
 *                   "type":"i64" | "contains":"member" | "version":N}, ...]
 *                 (several conditions in one object are several requirements, in the order above)
 *   set           {"key":VALUE, ...}           VALUE as in valuejson.h
 *   delete        ["key", ...]
 *   add           {"key":NUMBER | {"u256":".."}, ...}
 *   set_add, set_remove, array_push   {"key":"member" | ["member", ...], ...}
 *   events        [{"type":T, "data":ANY JSON | "bytes":BASE64, "key":STREAM,
 *                   "metadata":ANY JSON}, ...]  data is stored as compact JSON text, keys sorted
 *
 * of "call":    command NAME, args ANY JSON (handed to the command as text), plus read, write
 * of "get":     key
 * of "scan":    prefix | from, to; after KEY (exclusive; for pages), limit (1 to 1000, default 100)
 * of "events":  from ID (inclusive, default 1), to ID (exclusive), type, limit (as scan)
 * of "outcome": id
 *
 * A key is a JSON string; {"b64":"..."} stands for a key that is not UTF-8 where a key is not a
 * member name.
 *
 * An answer:
 *   {"ok":true,"txn":7,"first_event":3,"last_event":4,"events":2,"keys_written":2,
 *    "keys_deleted":0,"keys_missing":0,"duplicate":false}
 *   {"ok":false,"error":"AZOTH_ERR_PREFLIGHT_FAILED","message":"...","retry":false}  ("id" when known)
 *   get:    {"ok":true,"key":K,"version":7,"value":VALUE}
 *   scan:   {"ok":true,"items":[{"key":K,"version":N,"value":V},...],"more":true|false}
 *   events: {"ok":true,"events":[{"id":1,"txn":1,"time":ns,"type":T,"key":S,"data":ANY |
 *            "bytes":B64,"metadata":ANY},...],"more":..,"head":N}
 */
#ifndef CORE_TXNJSON_H
#define CORE_TXNJSON_H

#include "core/record.h"
#include "core/txn.h"
#include "core/wire.h"

#define TXNJSON_BYTES_MAX (8u << 20) /* of one request's text */

/*
 * Parses text into a request. Its image and strings are appended to *store (which must outlive
 * *ret). AZOTH_ERR_BAD_JSON and the errors of txn_check and value_from_json, with a sentence that
 * names the member. Safe on any bytes.
 */
int txnjson_parse(struct azoth_bytes text, struct buf *store, struct wire_request *ret,
                  struct azoth_error *err);

/* Appends the answer's JSON text: of a "tx" or "call" (kind WIRE_TX, WIRE_CALL), or of a read,
 * whose body has the forms of wire.h. */
int txnjson_answer(struct buf *out, const struct wire_answer *answer);

/* Appends one event or one state item as a JSON object (the forms above, without newline). */
int txnjson_event(struct buf *out, const struct event_record *ev);
int txnjson_item(struct buf *out, struct azoth_bytes key, const struct state_record *st);

#endif
