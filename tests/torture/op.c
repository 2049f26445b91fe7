#include "tests/torture/op.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* splitmix64 (Vigna 2015): the part-th number drawn from the record. */
static uint64_t drawn(const struct record *r, uint64_t part)
{
    uint64_t z = r->draw + (part + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

struct op_transfer op_transfer(const struct record *r, uint32_t part)
{
    uint64_t x = drawn(r, part);
    int from = (int)((r->draw % OP_ACCOUNTS + part) % OP_ACCOUNTS);
    int to = (from + 1 + (int)(x % (OP_ACCOUNTS - 1))) % OP_ACCOUNTS;
    return (struct op_transfer){from, to, 1 + (int64_t)(x >> 32) % OP_AMOUNT_MAX};
}

struct azoth_bytes op_account_key(char out[32], int account)
{
    int n = snprintf(out, 32, "acct/%06d", account);
    return (struct azoth_bytes){out, (size_t)n};
}

struct azoth_bytes op_register_key(char out[32], int64_t key)
{
    int n = snprintf(out, 32, "register/%" PRId64, key);
    return (struct azoth_bytes){out, (size_t)n};
}

void op_payload(const struct record *r, uint32_t part, char out[160])
{
    if (r->op != OP_TRANSFER) {
        snprintf(out, 160, "{\"key\":%" PRId64 ",\"ref\":%" PRId64 ",\"value\":%" PRId64 "}",
                 r->key, record_ref(r), r->value);
        return;
    }
    struct op_transfer x = op_transfer(r, part);
    snprintf(out, 160,
             "{\"amount\":%" PRId64 ",\"from\":%d,\"part\":%u,\"ref\":%" PRId64 ",\"to\":%d}",
             x.amount, x.from, part, record_ref(r), x.to);
}

/* ---- as a transaction ---- */

static int enough(struct azoth_txn *t, void *arg)
{
    const struct op_context *c = arg;
    struct op_transfer x = op_transfer(&c->record, 0);
    char key[32];
    int64_t have;
    int rc = azoth_txn_get_i64(t, op_account_key(key, x.from), &have);
    if (rc)
        return rc;
    return have >= x.amount ? 0 : azoth_reject(t, "only %" PRId64, have);
}

static void move_part(struct azoth_txn *t, const struct record *r, uint32_t part)
{
    struct op_transfer x = op_transfer(r, part);
    char key[32], json[160];
    azoth_add_i64(t, op_account_key(key, x.from), -x.amount);
    azoth_add_i64(t, op_account_key(key, x.to), x.amount);
    op_payload(r, part, json);
    azoth_event_json(t, "transferred", json);
}

static int move(struct azoth_txn *t, void *arg)
{
    const struct op_context *c = arg;
    move_part(t, &c->record, 0);
    return 0;
}

static void fill_transfer(struct azoth_txn *t, struct op_context *c, enum op_path path)
{
    const struct record *r = &c->record;
    char key[32];
    for (uint32_t part = 0; part < r->parts; part++) {
        struct op_transfer x = op_transfer(r, part);
        if (path == PATH_CALLBACKS) {
            azoth_write(t, op_account_key(key, x.from));
            azoth_write(t, op_account_key(key, x.to));
            azoth_validate(t, enough, c);
            azoth_execute(t, move, c);
            return;
        }
        azoth_require_min_i64(t, op_account_key(key, x.from), x.amount);
        move_part(t, r, part);
    }
}

static void fill_register(struct azoth_txn *t, const struct record *r)
{
    char text[32], json[160];
    struct azoth_bytes key = op_register_key(text, r->key);
    struct azoth_value expected = {AZOTH_TYPE_I64, {&r->expected, sizeof r->expected}};
    if (r->op == OP_CAS_VERSION)
        azoth_require_version(t, key, r->version);
    else if (r->op != OP_WRITE && r->expected == 0)
        azoth_require_absent(t, key);
    else if (r->op != OP_WRITE)
        azoth_require_equals(t, key, expected);
    if (r->op == OP_CHECK)
        return;
    azoth_set_i64(t, key, r->value);
    op_payload(r, 0, json);
    azoth_event_json(t, "wrote", json);
}

void op_fill(struct azoth_txn *t, struct op_context *c, enum op_path path)
{
    if (c->record.op == OP_TRANSFER)
        fill_transfer(t, c, path);
    else
        fill_register(t, &c->record);
}

/* ---- as text ---- */

void op_json(const struct record *r, uint32_t deadline_ms, char *out, size_t size)
{
    struct op_transfer x = op_transfer(r, 0);
    char id[2 * AZOTH_ID_BYTES + 1], from[32], to[32], data[160];
    for (size_t i = 0; i < AZOTH_ID_BYTES; i++)
        snprintf(id + 2 * i, 3, "%02x", r->id[i]);
    op_account_key(from, x.from);
    op_account_key(to, x.to);
    op_payload(r, 0, data);
    snprintf(out, size,
             "{\"id\":\"%s\",\"deadline_ms\":%u,\"require\":[{\"key\":\"%s\",\"min\":%" PRId64
             "}],\"add\":{\"%s\":%" PRId64 ",\"%s\":%" PRId64
             "},\"events\":[{\"type\":\"transferred\",\"data\":%s}]}",
             id, deadline_ms, from, x.amount, from, -x.amount, to, x.amount, data);
}

void op_command_args(const struct record *r, char *out, size_t size)
{
    char payload[160];
    op_payload(r, 0, payload);
    snprintf(out, size, "%s", payload);
}
