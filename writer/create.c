/*
 * create.c - making an empty database.
 *
 * Happy path: the directory, the store beside its name (data.mdb.new), lock.mdb in full, DIR/uuid,
 * DIR/reserve, DIR/projections; everything synced; then the store is renamed to data.mdb and the names
 * are synced.
 *
 * Failure modes
 *   killed, or the power goes, before the rename   there is no data.mdb, so there is no database: the
 *                                                  next one begins anew and overwrites what was left
 *   after the rename                               there is a whole database
 *   the disk is full, an error                     as before the rename; data.mdb.new is removed
 *   two at once                                    the second one is refused: BUSY, or DATABASE_EXISTS
 *
 * Invariants
 *   C1  a file named data.mdb is a whole and durable store.
 *   C2  what lies under another name here counts for nothing, and whoever creates may overwrite it:
 *       the lock on the directory says that no other one is at work.
 */
#include "writer/create.h"

#include "core/batchrec.h"
#include "core/clock.h"
#include "core/crash.h"
#include "core/io.h"
#include "core/store_lmdb.h"
#include "writer/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

struct creation {
    char dir[PATH_MAX], store[PATH_MAX + 16], fresh[PATH_MAX + 16];
    int dir_fd; /* with the lock that keeps a second one out */
    uint8_t uuid[16];
};

static int sync_dir(int fd, const char *path, struct azoth_error *err)
{
    return fsync(fd) ? error_errno(err, errno, "%s", path) : 0;
}

/* The directory's own name. Whoever may not read the parent has not made the directory either. */
static int sync_parent(const struct creation *c, struct azoth_error *err)
{
    int fd = openat(c->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == EACCES ? 0 : error_errno(err, errno, "%s/..", c->dir);
    int rc = sync_dir(fd, c->dir, err);
    close(fd);
    return rc;
}

static int enter(struct creation *c, const char *dir, struct azoth_error *err)
{
    if (mkdir(dir, 0770) && errno != EEXIST)
        return error_errno(err, errno, "%s", dir);
    if (!realpath(dir, c->dir))
        return error_errno(err, errno, "%s", dir);
    CRASH_POINT(create_begun);
    c->dir_fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->dir_fd < 0)
        return error_errno(err, errno, "%s", dir);
    if (flock(c->dir_fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? error_set(err, AZOTH_ERR_BUSY,
                                                "%s: another process makes a database here", dir)
                                    : error_errno(err, errno, "%s", dir);
    snprintf(c->store, sizeof c->store, "%s/data.mdb", c->dir);
    snprintf(c->fresh, sizeof c->fresh, "%s/data.mdb.new", c->dir);
    if (access(c->store, F_OK) == 0)
        return error_set(err, AZOTH_ERR_DATABASE_EXISTS, "%s: there is a database here already",
                         dir);
    if (unlink(c->fresh) && errno != ENOENT)
        return error_errno(err, errno, "%s", c->fresh);
    return getrandom(c->uuid, sizeof c->uuid, 0) == sizeof c->uuid
               ? 0
               : error_errno(err, errno, "random bytes");
}

/* lock.mdb in full, before the environment is first opened: the first touch of a sparse page on a
 * full disk would be SIGBUS in whoever takes a reader slot. */
static int allocate_lock_file(const char *dir, int dir_fd, struct azoth_error *err)
{
    int fd = openat(dir_fd, "lock.mdb", O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    if (fd < 0)
        return error_errno(err, errno, "%s/lock.mdb", dir);
    int e = posix_fallocate(fd, 0, (STORE_READERS_MAX + 128) * 64);
    if (!e && fsync(fd))
        e = errno;
    close(fd);
    return e ? error_errno(err, e, "%s/lock.mdb", dir) : 0;
}

static int write_uuid(const char *dir, int dir_fd, const uint8_t uuid[16], struct azoth_error *err)
{
    char text[34] = {0}, path[PATH_MAX];
    bytes_hex(text, uuid, 16);
    text[32] = '\n';
    snprintf(path, sizeof path, "%s/uuid", dir);
    int fd = openat(dir_fd, "uuid", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0664);
    if (fd < 0)
        return error_errno(err, errno, "%s", path);
    int rc = io_write_all(fd, text, 33, path, err);
    if (!rc && fsync(fd))
        rc = error_errno(err, errno, "%s", path);
    close(fd);
    return rc;
}

static int put_meta(MDB_txn *txn, MDB_dbi dbi, const char *key, const void *rec, size_t len)
{
    MDB_val k = val_of(bytes_str(key)), v = val_of(bytes_of(rec, len));
    return mdb_put(txn, dbi, &k, &v, 0);
}

static int fill_store(MDB_env *env, const uint8_t uuid[16], int chain_off, struct azoth_error *err)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc)
        return lmdb_error(err, rc, "init");
    MDB_dbi dbi[DB_COUNT];
    for (int i = 0; i < DB_COUNT && !rc; i++)
        rc = mdb_dbi_open(txn, store_db_name[i], MDB_CREATE, &dbi[i]);
    unsigned char format[STORE_FORMAT_RECORD], head[BATCH_HEAD], start[CHAIN_RECORD];
    store_format_encode(format, uuid, (uint64_t)clock_wall_ns());
    struct batch_head h = {.id_first = 1, .id_next = 1};
    if (!chain_off)
        chain_begin(&h.chain, uuid, 0, 0);
    chain_start_encode(start, &h.chain);
    batch_encode(head, &h, NULL);
    if (!rc)
        rc = put_meta(txn, dbi[DB_META], "format", format, sizeof format);
    if (!rc)
        rc = put_meta(txn, dbi[DB_META], "head", head, sizeof head);
    if (!rc && !chain_off)
        rc = put_meta(txn, dbi[DB_META], "chain", start, sizeof start);
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = mdb_txn_commit(txn);
    return rc ? lmdb_error(err, rc, "init") : 0;
}

/* Without LMDB's lock file: nobody else knows the name. The commit is durable. */
static int make_store(const struct creation *c, int chain_off, struct azoth_error *err)
{
    MDB_env *env;
    int rc = lmdb_env_open(c->fresh, MDB_NOSUBDIR | MDB_NOLOCK, &env, err);
    if (rc)
        return rc;
    CRASH_POINT(create_begins_store);
    rc = fill_store(env, c->uuid, chain_off, err);
    mdb_env_close(env);
    return rc;
}

/* A disk without room for it has no room for a database. */
static int make_reserve(const char *dir, uint64_t bytes, struct azoth_error *err)
{
    struct reserve *r;
    int rc = reserve_open(dir, bytes, &r, err);
    if (rc)
        return rc;
    int lacking = reserve_lacking(r);
    reserve_close(r);
    return lacking
               ? error_set(err, AZOTH_ERR_NOSPACE, "%s/" RESERVE_NAME ": no room for %llu bytes",
                           dir, (unsigned long long)bytes)
               : 0;
}

int store_surround(const char *dir, int dir_fd, const uint8_t uuid[16], uint64_t reserve_bytes,
                   struct azoth_error *err)
{
    int rc = allocate_lock_file(dir, dir_fd, err);
    if (rc)
        return rc;
    CRASH_POINT(create_lock);
    rc = write_uuid(dir, dir_fd, uuid, err);
    if (rc)
        return rc;
    CRASH_POINT(create_uuid);
    rc = make_reserve(dir, reserve_bytes, err);
    if (rc)
        return rc;
    CRASH_POINT(create_reserve);
    if (mkdirat(dir_fd, "projections", 0770) && errno != EEXIST)
        return error_errno(err, errno, "%s/projections", dir);
    return sync_dir(dir_fd, dir, err);
}

static int make_files(const struct creation *c, const struct store_plan *plan,
                      struct azoth_error *err)
{
    int rc = make_store(c, plan->chain_off, err);
    if (rc)
        return rc;
    CRASH_POINT(create_stored);
    return store_surround(c->dir, c->dir_fd, c->uuid, plan->reserve_bytes, err);
}

int store_create(const char *dir, uint64_t reserve_bytes, struct azoth_error *err)
{
    return store_create_planned(dir, &(struct store_plan){.reserve_bytes = reserve_bytes}, err);
}

int store_create_planned(const char *dir, const struct store_plan *plan, struct azoth_error *err)
{
    struct creation c = {.dir_fd = -1};
    int rc = enter(&c, dir, err);
    if (rc)
        goto fail;
    rc = make_files(&c, plan, err);
    if (!rc) {
        CRASH_POINT(create_ready);
        if (rename(c.fresh, c.store))
            rc = error_errno(err, errno, "%s", c.store);
    }
    if (rc) {
        unlink(c.fresh);
        goto fail;
    }
    CRASH_POINT(create_renamed);
    rc = sync_dir(c.dir_fd, c.dir, err);
    if (!rc)
        rc = sync_parent(&c, err);
fail:
    if (c.dir_fd >= 0)
        close(c.dir_fd);
    return rc;
}
