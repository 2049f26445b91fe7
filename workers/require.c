#include "workers/require.h"

#include "core/error.h"
#include "core/u256.h"

#include <string.h>

#define SHOWN_BYTES 20u /* of a text */

/* A value for a message: numbers in full, texts and bytes as far as they fit, others by their type. */
static const char *show(struct azoth_value v, char *out, size_t size)
{
    int64_t n;
    struct azoth_u256 u;
    char digits[U256_TEXT_MAX];
    if (value_i64(v, &n) == 0) {
        snprintf(out, size, "%lld", (long long)n);
    } else if (value_u256(v, &u) == 0) {
        u256_text(&u, digits);
        snprintf(out, size, "%s", digits);
    } else if (v.type == AZOTH_TYPE_STRING || v.type == AZOTH_TYPE_BYTES) {
        char text[SHOWN_BYTES * 4 + 1];
        struct azoth_bytes some = {v.enc.ptr, v.enc.len < SHOWN_BYTES ? v.enc.len : SHOWN_BYTES};
        snprintf(out, size, "\"%s\"%s", bytes_print(some, text, sizeof text),
                 some.len < v.enc.len ? "..." : "");
    } else {
        snprintf(out, size, "a value of type %s", value_type_name(v.type));
    }
    return out;
}

/* Orders the stored value against the operand; a non-negative I64 operand may stand for a U256. */
static int compare(struct azoth_value have, struct azoth_value want, int *ret)
{
    int64_t n;
    if (have.type == AZOTH_TYPE_U256 && value_i64(want, &n) == 0) {
        struct azoth_u256 u, limit = u256_of(n < 0 ? 0 : (uint64_t)n);
        int rc = value_u256(have, &u);
        if (rc)
            return rc;
        *ret = n < 0 ? 1 : u256_cmp(&u, &limit);
        return 0;
    }
    if (have.type != want.type || (have.type != AZOTH_TYPE_I64 && have.type != AZOTH_TYPE_U256))
        return AZOTH_ERR_TYPE;
    return value_compare(have, want, ret);
}

static int refuse(const struct txn_item *it, struct azoth_error *err, const char *text)
{
    char key[100];
    return error_set(err, AZOTH_ERR_PREFLIGHT_FAILED, "requirement %s on key %s: %s",
                     txn_kind_name(it->kind), bytes_print(it->key, key, sizeof key), text);
}

static int check_range(const struct txn_item *it, struct azoth_value have, struct azoth_error *err)
{
    int order;
    char key[100], a[90], b[90], text[200];
    int rc = compare(have, txn_item_value(it), &order);
    if (rc)
        return error_set(err, rc, "requirement %s on key %s: it holds %s", txn_kind_name(it->kind),
                         bytes_print(it->key, key, sizeof key), show(have, a, sizeof a));
    int least = it->kind == TXN_REQUIRE_MIN;
    if (least ? order >= 0 : order <= 0)
        return 0;
    snprintf(text, sizeof text, "it is %s, not at %s %s", show(have, a, sizeof a),
             least ? "least" : "most", show(txn_item_value(it), b, sizeof b));
    return refuse(it, err, text);
}

static int check_version(const struct txn_item *it, const struct state_record *st,
                         struct azoth_error *err)
{
    uint64_t want = get_u64(it->value.ptr), have = st ? st->version : 0;
    if (want == have)
        return 0;
    char text[120];
    if (!st)
        snprintf(text, sizeof text, "it is not there, version %llu was", (unsigned long long)want);
    else
        snprintf(text, sizeof text, "it was changed by transaction %llu, after version %llu",
                 (unsigned long long)have, (unsigned long long)want);
    return refuse(it, err, text);
}

static int check_contains(const struct txn_item *it, struct azoth_value have,
                          struct azoth_error *err)
{
    int found;
    char key[100];
    int rc = have.type == AZOTH_TYPE_SET ? value_contains(have, it->value, &found) : AZOTH_ERR_TYPE;
    if (rc)
        return error_set(err, rc, "requirement contains on key %s: it holds a value of type %s",
                         bytes_print(it->key, key, sizeof key), value_type_name(have.type));
    return found ? 0 : refuse(it, err, "the set does not contain the member");
}

static int check_present(const struct txn_item *it, const struct state_record *st,
                         struct azoth_error *err)
{
    char text[240], have[90], want[90];
    switch (it->kind) {
    case TXN_REQUIRE_EXISTS:
        return 0;
    case TXN_REQUIRE_EQUALS:
        if (st->value.type == it->type && bytes_eq(st->value.enc, it->value))
            return 0;
        snprintf(text, sizeof text, "it is %s, not %s", show(st->value, have, sizeof have),
                 show(txn_item_value(it), want, sizeof want));
        return refuse(it, err, text);
    case TXN_REQUIRE_MIN:
    case TXN_REQUIRE_MAX:
        return check_range(it, st->value, err);
    case TXN_REQUIRE_TYPE:
        if (st->value.type == it->type)
            return 0;
        snprintf(text, sizeof text, "it holds a value of type %s, not %s",
                 value_type_name(st->value.type), value_type_name(it->type));
        return refuse(it, err, text);
    case TXN_REQUIRE_CONTAINS:
        return check_contains(it, st->value, err);
    default:
        return error_set(err, AZOTH_ERR_BAD_REQUEST, "item %u is no requirement", it->kind);
    }
}

int require_check(struct snapshot *sn, const struct txn_item *it, struct azoth_error *err)
{
    struct state_record st;
    int rc = snapshot_get(sn, it->key, &st, NULL);
    if (rc != 0 && rc != AZOTH_ERR_NOT_FOUND)
        return snapshot_get(sn, it->key, &st, err); /* once more, for its sentence */
    int there = rc == 0;
    if (it->kind == TXN_REQUIRE_VERSION)
        return check_version(it, there ? &st : NULL, err);
    if (it->kind == TXN_REQUIRE_ABSENT)
        return there ? refuse(it, err, "it is there") : 0;
    return there ? check_present(it, &st, err) : refuse(it, err, "it is not there");
}

void require_explain(struct snapshot *sn, const struct txn_item *it, struct azoth_error *err)
{
    struct state_record st;
    uint64_t event;
    if (snapshot_get(sn, it->key, &st, NULL))
        return;
    char text[sizeof err->message];
    snprintf(text, sizeof text, "%s", err->message);
    if (snapshot_event_of_txn(sn, st.version, &event, NULL) == 1)
        error_set(err, err->code, "%s (since transaction %llu, event %llu)", text,
                  (unsigned long long)st.version, (unsigned long long)event);
    else
        error_set(err, err->code, "%s (since transaction %llu)", text,
                  (unsigned long long)st.version);
}
