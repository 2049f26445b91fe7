#include "tests/bench/raw.h"

#include "core/clock.h"
#include "core/store.h"
#include "tests/bench/bench.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define TYPE_BYTES 9 /* "deposited" */

void raw_open(struct raw *r, const char *parent)
{
    MDB_txn *t;
    snprintf(r->dir, sizeof r->dir, "%s/raw", parent);
    must(mkdir(r->dir, 0700) == 0, "raw LMDB: its directory");
    must(!mdb_env_create(&r->env) && !mdb_env_set_maxdbs(r->env, 4) &&
             !mdb_env_set_mapsize(r->env, 1ull << 40) &&
             !mdb_env_open(r->env, r->dir, MDB_NOTLS | MDB_NORDAHEAD, 0600) &&
             !mdb_txn_begin(r->env, NULL, 0, &t) &&
             !mdb_dbi_open(t, "state", MDB_CREATE, &r->state) &&
             !mdb_dbi_open(t, "events", MDB_CREATE, &r->events) &&
             !mdb_dbi_open(t, "ids", MDB_CREATE, &r->ids) &&
             !mdb_dbi_open(t, "ids_age", MDB_CREATE, &r->ids_age) && !mdb_txn_commit(t),
         "raw LMDB: opening");
    r->next = 1;
}

void raw_close(struct raw *r)
{
    char path[420];
    mdb_env_close(r->env);
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", r->dir, files[i]);
        unlink(path);
    }
    rmdir(r->dir);
}

MDB_txn *raw_begin(struct raw *r)
{
    MDB_txn *t;
    must(!mdb_txn_begin(r->env, NULL, 0, &t), "raw LMDB: begin");
    return t;
}

void raw_commit(MDB_txn *t)
{
    must(!mdb_txn_commit(t), "raw LMDB: commit");
}

void raw_put_event(struct raw *r, MDB_txn *t)
{
    unsigned char id[8], event[RECORD_EVENT_HEADER + TYPE_BYTES + BENCH_VALUE];
    memset(event, 2, sizeof event);
    put_be64(id, r->next++);
    MDB_val k = {sizeof id, id}, v = {sizeof event, event};
    must(!mdb_put(t, r->events, &k, &v, MDB_APPEND), "raw LMDB: put");
}

void raw_put_state(struct raw *r, MDB_txn *t, struct azoth_bytes key, size_t value_bytes)
{
    unsigned char state[RECORD_STATE_HEADER + BENCH_VALUE];
    must(value_bytes <= BENCH_VALUE, "raw LMDB: a value's size");
    memset(state, 1, sizeof state);
    MDB_val k = {key.len, (void *)(uintptr_t)key.ptr};
    MDB_val v = {RECORD_STATE_HEADER + value_bytes, state};
    must(!mdb_put(t, r->state, &k, &v, 0), "raw LMDB: put");
}

void raw_put(struct raw *r, MDB_txn *t, struct azoth_bytes key)
{
    raw_put_state(r, t, key, BENCH_VALUE);
    raw_put_event(r, t);
}

/* Ids of one client are neighbours, as libazoth makes them; a second tree keeps their order. */
void raw_put_id(struct raw *r, MDB_txn *t)
{
    static unsigned char id[AZOTH_ID_BYTES];
    static int made;
    unsigned char rec[STORE_ID_RECORD], order[8], aged[AZOTH_ID_BYTES + 8];
    if (!made++)
        must(getrandom(id, 10, 0) == 10, "random bytes");
    put_be64(order, r->next);
    memcpy(id + 10, order + 2, 6);
    memset(rec, 3, sizeof rec);
    memset(aged, 4, sizeof aged);
    memcpy(aged, id, sizeof id);
    MDB_val k = {sizeof id, id}, v = {sizeof rec, rec}, ok = {8, order}, ov = {sizeof aged, aged};
    must(!mdb_put(t, r->ids, &k, &v, MDB_NOOVERWRITE) &&
             !mdb_put(t, r->ids_age, &ok, &ov, MDB_APPEND),
         "raw LMDB: put");
}

void raw_fill(struct raw *r, uint64_t keys)
{
    for (uint64_t i = 0; i < keys;) {
        MDB_txn *t = raw_begin(r);
        for (int n = 0; n < 1000 && i < keys; n++, i++) {
            char key[24];
            raw_put(r, t, bench_key(key, i));
        }
        raw_commit(t);
    }
}

double raw_pairs(struct raw *r, int batch, int ids, uint64_t keys)
{
    uint64_t from = clock_mono_ns(), n = 0;
    while (clock_mono_ns() - from < BENCH_SLICE_NS) {
        MDB_txn *t = raw_begin(r);
        for (int i = 0; i < batch; i++, n++) {
            char key[24];
            if (ids)
                raw_put_id(r, t);
            raw_put(r, t, bench_key(key, bench_random() % keys));
        }
        raw_commit(t);
    }
    return (double)n * 1e9 / (double)(clock_mono_ns() - from);
}
