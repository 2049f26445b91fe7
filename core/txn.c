#include "core/txn.h"

#include "core/error.h"
#include "core/record.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC 0x31545a41u /* "AZT1" */

const char *txn_kind_name(uint32_t kind)
{
    switch (kind) {
    case TXN_READ:
        return "read";
    case TXN_WRITE:
        return "write";
    case TXN_REQUIRE_EXISTS:
        return "exists";
    case TXN_REQUIRE_ABSENT:
        return "absent";
    case TXN_REQUIRE_EQUALS:
        return "equals";
    case TXN_REQUIRE_MIN:
        return "min";
    case TXN_REQUIRE_MAX:
        return "max";
    case TXN_REQUIRE_TYPE:
        return "type";
    case TXN_REQUIRE_CONTAINS:
        return "contains";
    case TXN_REQUIRE_VERSION:
        return "version";
    case TXN_SET:
        return "set";
    case TXN_DELETE:
        return "delete";
    case TXN_ADD:
        return "add";
    case TXN_SET_ADD:
        return "set_add";
    case TXN_SET_REMOVE:
        return "set_remove";
    case TXN_ARRAY_PUSH:
        return "array_push";
    case TXN_EVENT:
        return "event";
    case TXN_CONTROL:
        return "control";
    default:
        return "?";
    }
}

/* ---- reading ---- */

/* Splits the item at p, which has `left` bytes: its size, or 0 when it does not fit. */
static size_t item_split(const unsigned char *p, size_t left, struct txn_item *ret)
{
    if (left < TXN_ITEM_HEADER)
        return 0;
    size_t key = get_u16(p + 2), name = get_u16(p + 4), meta = get_u16(p + 6),
           value = get_u32(p + 8);
    size_t size = TXN_ITEM_HEADER + key + name + meta + value;
    if (size > left)
        return 0;
    const unsigned char *at = p + TXN_ITEM_HEADER;
    *ret = (struct txn_item){
        .kind = p[0],
        .type = p[1],
        .key = bytes_of(at, key),
        .name = bytes_of(at + key, name),
        .metadata = bytes_of(at + key + name, meta),
        .value = bytes_of(at + key + name + meta, value),
    };
    return size;
}

int txn_next(struct azoth_bytes image, size_t *at, struct txn_item *ret)
{
    size_t from = *at ? *at : TXN_HEADER;
    if (from >= image.len)
        return 0;
    size_t size = item_split((const unsigned char *)image.ptr + from, image.len - from, ret);
    if (size == 0)
        return 0;
    *at = from + size;
    return 1;
}

uint32_t txn_items(struct azoth_bytes image)
{
    return image.len >= TXN_HEADER ? get_u32((const unsigned char *)image.ptr + 4) : 0;
}

/* ---- checking ---- */

static int bad(struct azoth_error *err, int code, const struct txn_item *it)
{
    char key[100];
    return error_set(err, code, "%s on key %s: %s", txn_kind_name(it->kind),
                     bytes_print(it->key, key, sizeof key), azoth_code_sentence(code));
}

static int check_event(const struct txn_item *it)
{
    if (it->name.len < 1 || it->name.len > AZOTH_EVENT_TYPE_MAX || !utf8_valid(it->name))
        return AZOTH_ERR_EVENT_TYPE;
    if (it->key.len > AZOTH_STREAM_KEY_MAX)
        return AZOTH_ERR_KEY_SIZE;
    if (it->value.len > AZOTH_PAYLOAD_MAX || it->metadata.len > AZOTH_METADATA_MAX)
        return AZOTH_ERR_VALUE_SIZE;
    return it->type ? AZOTH_ERR_BAD_REQUEST : 0;
}

static int check_value_item(const struct txn_item *it)
{
    struct azoth_value v = txn_item_value(it);
    int numbers = it->kind == TXN_ADD || it->kind == TXN_REQUIRE_MIN || it->kind == TXN_REQUIRE_MAX;
    if (numbers && v.type != AZOTH_TYPE_I64 && v.type != AZOTH_TYPE_U256)
        return AZOTH_ERR_TYPE;
    return value_check(v);
}

static int check_control(const struct txn_item *it)
{
    return it->kind != TXN_CONTROL || it->type || it->key.len || it->metadata.len ||
                   it->name.len < 1 || it->name.len > AZOTH_NAME_MAX ||
                   it->value.len > TXN_CONTROL_MAX
               ? AZOTH_ERR_BAD_REQUEST
               : 0;
}

static int check_item(const struct txn_item *it)
{
    if (it->kind == TXN_EVENT)
        return check_event(it);
    if (it->kind == TXN_CONTROL)
        return AZOTH_ERR_BAD_REQUEST;
    if (it->key.len < 1 || it->key.len > AZOTH_KEY_MAX)
        return AZOTH_ERR_KEY_SIZE;
    if (it->name.len || it->metadata.len)
        return AZOTH_ERR_BAD_REQUEST;
    switch (it->kind) {
    case TXN_READ:
    case TXN_WRITE:
    case TXN_REQUIRE_EXISTS:
    case TXN_REQUIRE_ABSENT:
    case TXN_DELETE:
        return it->type || it->value.len ? AZOTH_ERR_BAD_REQUEST : 0;
    case TXN_REQUIRE_TYPE:
        if (it->value.len)
            return AZOTH_ERR_BAD_REQUEST;
        return it->type < AZOTH_TYPE_I64 || it->type > AZOTH_TYPE_STRING ? AZOTH_ERR_TYPE : 0;
    case TXN_REQUIRE_VERSION:
        return it->type || it->value.len != 8 ? AZOTH_ERR_BAD_REQUEST : 0;
    case TXN_REQUIRE_CONTAINS:
    case TXN_SET_ADD:
    case TXN_SET_REMOVE:
    case TXN_ARRAY_PUSH:
        if (it->type)
            return AZOTH_ERR_BAD_REQUEST;
        if (it->value.len > AZOTH_VALUE_MAX)
            return AZOTH_ERR_VALUE_SIZE;
        return utf8_valid(it->value) ? 0 : AZOTH_ERR_UTF8;
    case TXN_REQUIRE_EQUALS:
    case TXN_REQUIRE_MIN:
    case TXN_REQUIRE_MAX:
    case TXN_SET:
    case TXN_ADD:
        return check_value_item(it);
    default:
        return AZOTH_ERR_BAD_REQUEST;
    }
}

static int check_image(struct azoth_bytes image, int (*check)(const struct txn_item *),
                       struct azoth_error *err)
{
    const unsigned char *p = image.ptr;
    if (image.len < TXN_HEADER || get_u32(p) != MAGIC)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "this is no transaction image");
    uint32_t items = get_u32(p + 4);
    if (image.len > AZOTH_TXN_BYTES_MAX || items > AZOTH_TXN_ITEMS_MAX)
        return error_set(err, AZOTH_ERR_TXN_SIZE, "%zu bytes, %u items: at most %u and %u",
                         image.len, items, AZOTH_TXN_BYTES_MAX, AZOTH_TXN_ITEMS_MAX);
    size_t at = TXN_HEADER;
    for (uint32_t i = 0; i < items; i++) {
        struct txn_item it;
        size_t size = item_split(p + at, image.len - at, &it);
        if (size == 0 || get_u32(p + at + 12) != 0)
            return error_set(err, AZOTH_ERR_BAD_REQUEST, "item %u does not fit its image", i);
        int rc = check(&it);
        if (rc)
            return bad(err, rc, &it);
        at += size;
    }
    if (at != image.len)
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "bytes after the last item");
    return 0;
}

int txn_check(struct azoth_bytes image, struct azoth_error *err)
{
    return check_image(image, check_item, err);
}

int txn_check_control(struct azoth_bytes image, struct azoth_error *err)
{
    int rc = check_image(image, check_control, err);
    if (!rc && txn_items(image) != 1)
        rc = error_set(err, AZOTH_ERR_BAD_REQUEST, "a control image has one item");
    return rc;
}

uint64_t txn_content_hash(struct azoth_bytes image, struct azoth_bytes command)
{
    return XXH3_64bits_withSeed(image.ptr, image.len,
                                command.len ? XXH3_64bits(command.ptr, command.len) : 0);
}

/* ---- building ---- */

void txn_builder_fini(struct txn_builder *b)
{
    buf_fini(&b->image);
    b->items = 0;
}

void txn_builder_clear(struct txn_builder *b)
{
    buf_clear(&b->image);
    b->items = 0;
}

static int builder_begin(struct txn_builder *b)
{
    if (b->image.len)
        return 0;
    unsigned char *p = buf_grow(&b->image, TXN_HEADER);
    if (!p)
        return AZOTH_ERR_NOMEM;
    put_u32(p, MAGIC);
    put_u32(p + 4, 0);
    return 0;
}

static unsigned char *append(unsigned char *to, struct azoth_bytes b)
{
    if (b.len)
        memcpy(to, b.ptr, b.len);
    return to + b.len;
}

/* A checked item. */
static int put_item(struct txn_builder *b, const struct txn_item *it, struct azoth_error *err)
{
    size_t size = TXN_ITEM_HEADER + it->key.len + it->name.len + it->metadata.len + it->value.len;
    size_t now = b->image.len ? b->image.len : TXN_HEADER;
    if (b->items >= AZOTH_TXN_ITEMS_MAX || now + size > AZOTH_TXN_BYTES_MAX)
        return bad(err, AZOTH_ERR_TXN_SIZE, it);
    unsigned char *p = NULL;
    if (builder_begin(b) == 0)
        p = buf_grow(&b->image, size);
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a transaction");
    p[0] = (unsigned char)it->kind;
    p[1] = (unsigned char)it->type;
    put_u16(p + 2, (uint16_t)it->key.len);
    put_u16(p + 4, (uint16_t)it->name.len);
    put_u16(p + 6, (uint16_t)it->metadata.len);
    put_u32(p + 8, (uint32_t)it->value.len);
    put_u32(p + 12, 0);
    unsigned char *at = p + TXN_ITEM_HEADER;
    at = append(at, it->key);
    at = append(at, it->name);
    at = append(at, it->metadata);
    append(at, it->value);
    b->items++;
    return 0;
}

int txn_add(struct txn_builder *b, const struct txn_item *it, struct azoth_error *err)
{
    int rc = check_item(it);
    return rc ? bad(err, rc, it) : put_item(b, it, err);
}

int txn_set_control(struct txn_builder *b, struct azoth_bytes operation,
                    struct azoth_bytes argument, struct azoth_error *err)
{
    struct txn_item it = {.kind = TXN_CONTROL, .name = operation, .value = argument};
    int rc = check_control(&it);
    txn_builder_clear(b);
    return rc ? bad(err, rc, &it) : put_item(b, &it, err);
}

struct azoth_bytes txn_image(struct txn_builder *b)
{
    static const unsigned char empty[TXN_HEADER] = {'A', 'Z', 'T', '1'};
    if (!b->image.len)
        return bytes_of(empty, sizeof empty);
    put_u32(b->image.ptr + 4, b->items);
    return buf_bytes(&b->image);
}

int txn_add_key(struct txn_builder *b, enum txn_kind kind, struct azoth_bytes key,
                struct azoth_error *err)
{
    return txn_add(b, &(struct txn_item){.kind = kind, .key = key}, err);
}

int txn_add_value(struct txn_builder *b, enum txn_kind kind, struct azoth_bytes key,
                  struct azoth_value value, struct azoth_error *err)
{
    return txn_add(
        b, &(struct txn_item){.kind = kind, .type = value.type, .key = key, .value = value.enc},
        err);
}

int txn_add_member(struct txn_builder *b, enum txn_kind kind, struct azoth_bytes key,
                   struct azoth_bytes member, struct azoth_error *err)
{
    return txn_add(b, &(struct txn_item){.kind = kind, .key = key, .value = member}, err);
}

int txn_add_event(struct txn_builder *b, struct azoth_bytes type, struct azoth_bytes stream_key,
                  struct azoth_bytes metadata, struct azoth_bytes payload, struct azoth_error *err)
{
    return txn_add(b,
                   &(struct txn_item){.kind = TXN_EVENT,
                                      .key = stream_key,
                                      .name = type,
                                      .metadata = metadata,
                                      .value = payload},
                   err);
}
