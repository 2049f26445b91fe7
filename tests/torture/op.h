/*
 * op.h - the operations of the torture program: what a record of one means as a transaction.
 *
 * Everything follows from the record alone, so a client that was started again sends the very same
 * request as its predecessor, under the same id.
 */
#ifndef TESTS_OP_H
#define TESTS_OP_H

#include "client/azoth.h"
#include "tests/torture/record.h"

#define OP_ACCOUNTS    64
#define OP_PARTS_MAX   8u
#define OP_AMOUNT_MAX  300
#define OP_REGISTERS   3             /* at a time */
#define OP_REGISTER_NS 1500000000ull /* then others: short histories are checked faster */

/* Kinds of clients: the ways into the database. */
enum op_path {
    PATH_CALLBACKS, /* attached, validate and execute callbacks */
    PATH_ASYNC,     /* attached, many in flight */
    PATH_BATCH,     /* attached, several transfers in one transaction */
    PATH_REMOTE,    /* through workers, tpl, many in flight */
    PATH_JSON,      /* through workers, JSON text, many in flight */
    PATH_COMMAND,   /* through workers, a named command */
    PATH_REGISTER,  /* attached, registers */
    PATH_REGISTER_REMOTE,
};

struct op_transfer {
    int from, to;
    int64_t amount;
};
/* The part-th transfer. Those of one transaction have different sources. */
struct op_transfer op_transfer(const struct record *r, uint32_t part);

struct azoth_bytes op_account_key(char out[32], int account);
struct azoth_bytes op_register_key(char out[32], int64_t key);

/* The payload of the event of one part of a transfer, or (part 0) of a register's change. */
void op_payload(const struct record *r, uint32_t part, char out[160]);

/* What a transaction's callbacks work on; must stay until it is done. */
struct op_context {
    struct record record;
};

/* Fills t, which is empty, with the operation; id and deadline are the caller's. */
void op_fill(struct azoth_txn *t, struct op_context *c, enum op_path path);
/* The same as a JSON request's text. */
void op_json(const struct record *r, uint32_t deadline_ms, char *out, size_t size);
/* The arguments of the command "torture" for a transfer. */
void op_command_args(const struct record *r, char *out, size_t size);

#endif
