/* create.h - making an empty database. */
#ifndef WRITER_CREATE_H
#define WRITER_CREATE_H

#include "core/azoth_base.h"

/*
 * Makes a database in dir (made if missing, mode 0770): the store with its format, identity and an
 * empty head, durably; lock.mdb allocated in full; DIR/uuid, the identity as 32 hex digits, for
 * programs that have no access to the store; DIR/projections; DIR/reserve (0: none). Whole or not at all: after a death on
 * the way it can be called again. DATABASE_EXISTS, BUSY (another process makes one here), NOSPACE,
 * PERMISSION, IO, NOMEM.
 */
int store_create(const char *dir, uint64_t reserve_bytes, struct azoth_error *err);

/* What may be chosen when it is made, and stays: the same with these. */
struct store_plan {
    uint64_t reserve_bytes;
    int chain_off; /* 1: no hash chain over the log (core/chain.h) */
};
int store_create_planned(const char *dir, const struct store_plan *plan, struct azoth_error *err);

/*
 * What lies beside a store in its directory, which dir_fd is: lock.mdb, DIR/uuid, DIR/reserve, DIR/projections; durable.
 * May be repeated. NOSPACE, PERMISSION, IO, NOMEM.
 */
int store_surround(const char *dir, int dir_fd, const uint8_t uuid[16], uint64_t reserve_bytes,
                   struct azoth_error *err);

#endif
