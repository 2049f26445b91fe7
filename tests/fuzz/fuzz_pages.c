/*
 * fuzz_pages.c - any bytes as an LMDB file: the look at its pages comes to an end, and what it lets pass LMDB walks over
 * without ending the process. The first byte says what is walked by LMDB then: nothing when it is 0.
 */
#include "core/error.h"
#include "core/pagecheck.h"

#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define META_TXN 144u /* where the first meta page tells its commit */

static void on_found(void *arg, int fatal, const char *message)
{
    int *fatals = arg;
    ensure(message[0]);
    *fatals += fatal;
}

static uint64_t read_sum;

static void walk(MDB_txn *txn, MDB_dbi dbi, int names)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    if (mdb_cursor_open(txn, dbi, &cursor))
        return;
    while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
        /* All of the value is there to be read. */
        read_sum += XXH3_64bits(v.mv_data, v.mv_size);
        char name[600];
        MDB_dbi other;
        snprintf(name, sizeof name, "%.*s", (int)k.mv_size, (const char *)k.mv_data);
        if (names && mdb_dbi_open(txn, name, 0, &other) == 0 && other > 1)
            walk(txn, other, 0);
    }
    mdb_cursor_close(cursor);
}

static void walk_all(const char *path)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi names;
    ensure(mdb_env_create(&env) == 0);
    ensure(mdb_env_set_maxdbs(env, 16) == 0);
    if (mdb_env_open(env, path, MDB_RDONLY | MDB_NOLOCK | MDB_NOSUBDIR, 0600) == 0 &&
        mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0) {
        if (mdb_dbi_open(txn, NULL, 0, &names) == 0)
            walk(txn, names, 1);
        mdb_txn_abort(txn);
    }
    mdb_env_close(env);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 + META_TXN + 8)
        return 0;
    char path[40];
    struct azoth_error err;
    struct pagecheck_sum sum;
    int fatals = 0;
    const struct pagecheck_tell tell = {&fatals, on_found, NULL};
    int fd = memfd_create("pages", MFD_CLOEXEC);
    ensure(fd >= 0 && write(fd, data + 1, size - 1) == (ssize_t)size - 1);
    uint64_t txn[2] = {0, 0};
    uint32_t page;
    memcpy(&page, data + 1 + 40, sizeof page);
    memcpy(&txn[0], data + 1 + META_TXN, sizeof txn[0]);
    if (pagecheck_meta(fd, "pages", &err) == 0) {
        memcpy(&txn[1], data + 1 + page + META_TXN, sizeof txn[1]);
        /* The commit that LMDB takes: of two that are equal that of the first page. */
        int rc = pagecheck(fd, txn[1] > txn[0] ? txn[1] : txn[0], &tell, &sum, &err);
        ensure(rc <= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (data[0] && rc == 0 && fatals == 0)
            walk_all(path);
    }
    close(fd);
    return 0;
}
