/*
 * damage.c - changes a stopped database behind the product's back, through LMDB alone: for tests of what
 * finds such changes, and of stores of an older format.
 *
 *   damage DIR keys DB                       the keys of a database, in hexadecimal, with the lengths of their values
 *   damage DIR get DB KEY                    a value, in hexadecimal
 *   damage DIR flip DB KEY OFFSET            flips the lowest bit of one byte of a value
 *   damage DIR delete DB KEY
 *   damage DIR move DB KEY TO                puts a value under another key
 *   damage DIR put DB KEY VALUE              all in hexadecimal
 *   damage DIR forge EVENT                   another payload, with a checksum that fits it
 *   damage DIR retime EVENT NANOSECONDS      another commit time, the same way
 *   damage DIR state KEY VERSION TYPE VALUE  a state record whose checksum fits, of any version and bytes
 *   damage DIR mark PLACE TRANSACTION EVENT  a place of backups that has everything up to there
 *   damage DIR format1                       what a writer of format 1 would have left
 */
#include "core/batchrec.h"
#include "core/error.h"
#include "core/mark.h"
#include "core/record.h"
#include "core/store.h"
#include "core/store_lmdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static MDB_env *env;
static MDB_txn *txn;

static void must(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "damage: %s: %s\n", what, mdb_strerror(rc));
    exit(1);
}

static MDB_dbi db(const char *name)
{
    MDB_dbi dbi;
    must(mdb_dbi_open(txn, name, 0, &dbi), name);
    return dbi;
}

static MDB_val unhex(const char *text, unsigned char *out)
{
    size_t n = strlen(text) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            must(MDB_BAD_VALSIZE, text);
        out[i] = (unsigned char)byte;
    }
    return (MDB_val){n, out};
}

/* A copy of the value under the key, to be changed and put back. */
static MDB_val copy_of(MDB_dbi dbi, MDB_val *k)
{
    MDB_val v;
    must(mdb_get(txn, dbi, k, &v), "get");
    void *p = malloc(v.mv_size + 1);
    if (!p)
        exit(1);
    memcpy(p, v.mv_data, v.mv_size);
    return (MDB_val){v.mv_size, p};
}

static void keys(const char *name)
{
    MDB_cursor *c;
    MDB_val k, v;
    must(mdb_cursor_open(txn, db(name), &c), name);
    while (mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0) {
        for (size_t i = 0; i < k.mv_size; i++)
            printf("%02x", ((unsigned char *)k.mv_data)[i]);
        printf(" %zu\n", v.mv_size);
    }
    mdb_cursor_close(c);
}

static void change_event(const char *id_text, int64_t time_ns, int forge)
{
    unsigned char key[8];
    uint64_t id = strtoull(id_text, NULL, 10);
    struct event_record ev;
    put_be64(key, id);
    MDB_dbi dbi = db("events");
    MDB_val k = {8, key}, v = copy_of(dbi, &k);
    must(record_event_decode(id, bytes_of(v.mv_data, v.mv_size), &ev) ? MDB_CORRUPTED : 0, "event");
    if (!forge)
        ev.time_ns = time_ns;
    else
        ((unsigned char *)v.mv_data)[v.mv_size - 1] ^= 1;
    unsigned char *out = malloc(v.mv_size);
    if (!out)
        exit(1);
    record_event_encode(out, &ev);
    MDB_val to = {v.mv_size, out};
    must(mdb_put(txn, dbi, &k, &to, 0), "put");
    free(out);
    free(v.mv_data);
}

static void put_state(char **arg)
{
    unsigned char key[AZOTH_KEY_MAX], value[4096];
    MDB_val k = unhex(arg[0], key), v = unhex(arg[3], value);
    unsigned char rec[RECORD_STATE_HEADER + sizeof value];
    record_state_encode(
        rec, bytes_of(k.mv_data, k.mv_size), strtoull(arg[1], NULL, 10),
        (struct azoth_value){(uint32_t)atoi(arg[2]), bytes_of(v.mv_data, v.mv_size)});
    MDB_val to = {record_state_size(v.mv_size), rec};
    must(mdb_put(txn, db("state"), &k, &to, 0), "put");
}

static void put_mark(char **arg)
{
    struct mark m = {.txn = strtoull(arg[1], NULL, 10), .event = strtoull(arg[2], NULL, 10)};
    unsigned char rec[MARK_RECORD];
    char key[MARK_KEY + 1];
    unhex(arg[0], m.place);
    mark_key(key, m.place);
    mark_encode(rec, &m);
    MDB_val k = {MARK_KEY, key}, v = {sizeof rec, rec};
    must(mdb_put(txn, db("meta"), &k, &v, 0), "put");
}

/* The batch record without what format 2 added, its checksum in the place of the flags. */
static void old_head(MDB_dbi meta)
{
    MDB_val k = {4, "head"}, v = copy_of(meta, &k);
    unsigned char *p = v.mv_data;
    size_t entries = v.mv_size - BATCH_HEAD;
    memcpy(p, "AZB1", 4);
    memmove(p + 80, p + BATCH_HEAD, entries);
    put_u64(p + 72, XXH3_64bits_withSeed(p + 80, entries, XXH3_64bits(p, 72)));
    v.mv_size = 80 + entries;
    must(mdb_put(txn, meta, &k, &v, 0), "head");
    free(p);
}

static void format1(void)
{
    MDB_dbi meta = db("meta");
    MDB_val k = {6, "format"}, v = copy_of(meta, &k), chain = {5, "chain"};
    put_u32((unsigned char *)v.mv_data + 4, 1);
    put_u64((unsigned char *)v.mv_data + 32, XXH3_64bits(v.mv_data, 32));
    must(mdb_put(txn, meta, &k, &v, 0), "format");
    free(v.mv_data);
    old_head(meta);
    must(mdb_drop(txn, db("redo"), 1), "redo");
    int rc = mdb_del(txn, meta, &chain, NULL);
    must(rc == MDB_NOTFOUND ? 0 : rc, "chain");
}

static int change(int n, char **arg)
{
    unsigned char key[AZOTH_KEY_MAX + 1], other[65536];
    const char *what = arg[0];
    if (strcmp(what, "format1") == 0 && n == 1) {
        format1();
    } else if (strcmp(what, "keys") == 0 && n == 2) {
        keys(arg[1]);
    } else if (strcmp(what, "forge") == 0 && n == 2) {
        change_event(arg[1], 0, 1);
    } else if (strcmp(what, "retime") == 0 && n == 3) {
        change_event(arg[1], strtoll(arg[2], NULL, 10), 0);
    } else if (strcmp(what, "mark") == 0 && n == 4) {
        put_mark(arg + 1);
    } else if (strcmp(what, "state") == 0 && n == 5) {
        put_state(arg + 1);
    } else if (n >= 3) {
        MDB_dbi dbi = db(arg[1]);
        MDB_val k = unhex(arg[2], key), v;
        if (strcmp(what, "put") == 0 && n == 4) {
            v = unhex(arg[3], other);
            must(mdb_put(txn, dbi, &k, &v, 0), what);
            return 1;
        }
        v = copy_of(dbi, &k);
        if (strcmp(what, "get") == 0 && n == 3) {
            for (size_t i = 0; i < v.mv_size; i++)
                printf("%02x", ((unsigned char *)v.mv_data)[i]);
            puts("");
        } else if (strcmp(what, "flip") == 0 && n == 4) {
            ((unsigned char *)v.mv_data)[strtoul(arg[3], NULL, 10) % v.mv_size] ^= 1;
            must(mdb_put(txn, dbi, &k, &v, 0), what);
        } else if (strcmp(what, "delete") == 0 && n == 3) {
            must(mdb_del(txn, dbi, &k, NULL), what);
        } else if (strcmp(what, "move") == 0 && n == 4) {
            MDB_val to = unhex(arg[3], other);
            must(mdb_del(txn, dbi, &k, NULL), what);
            must(mdb_put(txn, dbi, &to, &v, 0), what);
        } else {
            return 0;
        }
        free(v.mv_data);
    } else {
        return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    struct azoth_error err;
    if (argc < 3) {
        fprintf(stderr, "usage: damage DIR WHAT ...\n");
        return 2;
    }
    if (lmdb_env_open(argv[1], 0, &env, &err)) {
        fprintf(stderr, "damage: %s\n", err.message);
        return 1;
    }
    must(mdb_txn_begin(env, NULL, 0, &txn), argv[1]);
    int rc = change(argc - 2, argv + 2);
    if (rc)
        must(mdb_txn_commit(txn), "commit");
    mdb_env_close(env);
    if (!rc)
        fprintf(stderr, "damage: what is %s with %d arguments?\n", argv[2], argc - 3);
    return rc ? 0 : 2;
}
