/*
 * txn.h - the encoded transaction: declarations, requirements, operations and events.
 *
 * The same image travels in a request, lies in a commit slot and is applied by the writer. It is
 * checked where it comes from (txn_check) and once more in the writer's own copy.
 *
 *   image   u32 magic "AZT1" | u32 item count | items
 *   item    u8 kind | u8 type | u16 key_len | u16 name_len | u16 meta_len | u32 value_len | u32 0
 *           | key | name | metadata | value            (integers little-endian, no alignment)
 *
 *   kind                    type         key     name   metadata  value
 *   READ, WRITE             0            key     -      -         -
 *   REQUIRE_EXISTS, _ABSENT 0            key     -      -         -
 *   REQUIRE_EQUALS          of value     key     -      -         encoding
 *   REQUIRE_MIN, _MAX       of value     key     -      -         encoding (I64 or U256; inclusive)
 *   REQUIRE_TYPE            the type     key     -      -         -
 *   REQUIRE_CONTAINS        0            key     -      -         member
 *   REQUIRE_VERSION         0            key     -      -         u64 transaction id; 0 = absent
 *   SET                     of value     key     -      -         encoding
 *   DELETE                  0            key     -      -         -
 *   ADD                     of value     key     -      -         encoding (I64 or U256)
 *   SET_ADD, SET_REMOVE     0            key     -      -         member
 *   ARRAY_PUSH              0            key     -      -         member
 *   EVENT                   0            stream  type   metadata  payload
 *   CONTROL                 0            -       operation -      argument
 *
 * ADD on a missing key starts from zero of the operand's type; SET_ADD, SET_REMOVE and ARRAY_PUSH
 * from an empty set or array. The type of a present value decides, see value_add().
 *
 * Requirements read their key, operations write it: both declare it. READ and WRITE declare more
 * keys for callbacks.
 *
 * CONTROL is the only item of its image, and no part of what anybody may ask for: txn_check() refuses it, and
 * txn_check_control() accepts nothing else. See writer/control.h.
 */
#ifndef CORE_TXN_H
#define CORE_TXN_H

#include "core/buf.h"
#include "core/value.h"

enum txn_kind {
    TXN_READ = 1,
    TXN_WRITE = 2,
    TXN_REQUIRE_EXISTS = 16,
    TXN_REQUIRE_ABSENT = 17,
    TXN_REQUIRE_EQUALS = 18,
    TXN_REQUIRE_MIN = 19,
    TXN_REQUIRE_MAX = 20,
    TXN_REQUIRE_TYPE = 21,
    TXN_REQUIRE_CONTAINS = 22,
    TXN_REQUIRE_VERSION = 23,
    TXN_SET = 32,
    TXN_DELETE = 33,
    TXN_ADD = 34,
    TXN_SET_ADD = 35,
    TXN_SET_REMOVE = 36,
    TXN_ARRAY_PUSH = 37,
    TXN_EVENT = 48,
    TXN_CONTROL = 64,
};

#define TXN_HEADER      8u
#define TXN_ITEM_HEADER 16u

#define TXN_CONTROL_MAX 65536u /* bytes of a control item's argument */

static inline int txn_kind_is_requirement(uint32_t kind)
{
    return kind >= TXN_REQUIRE_EXISTS && kind <= TXN_REQUIRE_VERSION;
}
static inline int txn_kind_is_operation(uint32_t kind)
{
    return kind >= TXN_SET && kind <= TXN_ARRAY_PUSH;
}
const char *txn_kind_name(uint32_t kind); /* "exists", "min", "set", "add", "event", ...; "?" */

struct txn_item {
    uint32_t kind; /* enum txn_kind */
    uint32_t type;
    struct azoth_bytes key;      /* of an event: its stream key */
    struct azoth_bytes name;     /* of an event: its type; of a control item: the operation */
    struct azoth_bytes metadata; /* of an event */
    struct azoth_bytes value;
};

static inline struct azoth_value txn_item_value(const struct txn_item *it)
{
    return (struct azoth_value){it->type, it->value};
}

/*
 * Checks an image completely: bounds, kinds, key sizes, value encodings, limits, nothing after the
 * last item. 0, or AZOTH_ERR_BAD_REQUEST, _TXN_SIZE, _KEY_SIZE, _VALUE_SIZE, _EVENT_TYPE, _TYPE,
 * _UTF8, _ENCODING with a sentence that names the key. Safe on any bytes.
 */
int txn_check(struct azoth_bytes image, struct azoth_error *err);

/* The same for an image that is one CONTROL item and nothing else: 0 or BAD_REQUEST. */
int txn_check_control(struct azoth_bytes image, struct azoth_error *err);

/* Steps through a checked image: begin with *at = 0. 1 and *ret (borrows the image); 0 at the end
 * or where the image ends early. */
int txn_next(struct azoth_bytes image, size_t *at, struct txn_item *ret);
uint32_t txn_items(struct azoth_bytes image); /* item count of a checked image */

/*
 * Building an image. Zero-initialise; append items; txn_image() at the end. An item that is refused
 * (the errors of txn_check, or NOMEM) leaves the image as it was.
 */
struct txn_builder {
    struct buf image;
    uint32_t items;
};
void txn_builder_fini(struct txn_builder *b);
void txn_builder_clear(struct txn_builder *b);
int txn_add(struct txn_builder *b, const struct txn_item *it, struct azoth_error *err);
struct azoth_bytes txn_image(struct txn_builder *b); /* borrows b until it next changes */

/* Shorthands over txn_add. */
int txn_add_key(struct txn_builder *b, enum txn_kind kind, struct azoth_bytes key,
                struct azoth_error *err); /* READ, WRITE, EXISTS, ABSENT, DELETE */
int txn_add_value(struct txn_builder *b, enum txn_kind kind, struct azoth_bytes key,
                  struct azoth_value value, struct azoth_error *err); /* EQUALS MIN MAX SET ADD */
int txn_add_member(struct txn_builder *b, enum txn_kind kind, struct azoth_bytes key,
                   struct azoth_bytes member, struct azoth_error *err);
int txn_add_event(struct txn_builder *b, struct azoth_bytes type, struct azoth_bytes stream_key,
                  struct azoth_bytes metadata, struct azoth_bytes payload, struct azoth_error *err);

/* Makes b the image of one control item. BAD_REQUEST (no name, one over AZOTH_NAME_MAX, an argument over
 * TXN_CONTROL_MAX), NOMEM. */
int txn_set_control(struct txn_builder *b, struct azoth_bytes operation,
                    struct azoth_bytes argument, struct azoth_error *err);

/* Identifies a request's content: XXH3_64bits over the image and the name of the command, if any.
 */
uint64_t txn_content_hash(struct azoth_bytes image, struct azoth_bytes command);

/* What a committed transaction answers: the commit info. */
struct txn_result {
    uint64_t txn;         /* transaction id; 0 when nothing was committed */
    uint64_t first_event; /* 0 when it logged none */
    uint64_t last_event;
    uint32_t keys_written;
    uint32_t keys_deleted;
    uint32_t keys_missing; /* deletes of keys that were not there */
    uint32_t duplicate;    /* 1: this id was committed before; this is that commit's result */
};

#endif
