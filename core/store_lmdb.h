/* store_lmdb.h - LMDB's handles, shared between the files that may use them: core/store.c, core/scan.c
 * and core/mark.c read, writer/create.c and writer/append.c write. */
#ifndef CORE_STORE_LMDB_H
#define CORE_STORE_LMDB_H

#include "core/error.h"
#include "core/store.h"

#include <lmdb.h>
#include <stdatomic.h>

enum store_db { DB_STATE, DB_EVENTS, DB_META, DB_IDS, DB_IDS_AGE, DB_REDO, DB_COUNT };
extern const char *const store_db_name[DB_COUNT];

struct store_lmdb {
    MDB_env *env;
    MDB_dbi dbi[DB_COUNT];
    _Atomic int redo_open; /* 0: a store of format 1, dbi[DB_REDO] is nothing */
    int dbis_open; /* 0 after STORE_WRITE until the writer's first transaction opened them */
    int read_only;
};
struct store_lmdb *store_lmdb(struct store *s);
/* After the writer opened the DBIs: reads the identity from the format record. */
void store_set_identity(struct store *s, const uint8_t uuid[16], uint64_t created_ns);

/* Takes the chain of a batch record, which may end before its batch (writer/chaining.h), to event `last`. GAP,
 * CORRUPT, NOMEM, IO: *c as it was. */
int store_chain_complete(MDB_txn *txn, MDB_dbi events, struct chain *c, uint64_t last,
                         struct azoth_error *err);

MDB_txn *snapshot_txn(struct snapshot *sn);
struct store *snapshot_store(struct snapshot *sn);
/* Of the store's segments, made when it is first asked for. NULL: NOMEM. */
struct archived_cache *store_archive(struct store *s);

/* Error of ours for one of LMDB's. */
int lmdb_error(struct azoth_error *err, int rc, const char *what);

/* Opens the environment in dir with our settings. flags are LMDB's. Used by store_open and by the
 * writer when it makes a database. */
int lmdb_env_open(const char *dir, unsigned flags, MDB_env **ret, struct azoth_error *err);

static inline MDB_val val_of(struct azoth_bytes b)
{
    return (MDB_val){b.len, (void *)(uintptr_t)b.ptr};
}
static inline struct azoth_bytes bytes_of_val(MDB_val v)
{
    return (struct azoth_bytes){v.mv_data, v.mv_size};
}

#endif
