#include "writer/restore.h"

#include "core/batchrec.h"
#include "core/crash.h"
#include "core/store_lmdb.h"
#include "core/value.h"
#include "writer/create.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define SUFFIX        ".restoring-"
#define SUFFIX_DIGITS 12u

struct restore {
    char target[PATH_MAX], parent[PATH_MAX], name[NAME_MAX + 1]; /* target is parent/name */
    char dir[PATH_MAX], store[PATH_MAX];
    int fd;            /* of dir, with the lock; -1 */
    struct stat place; /* the target, or the directory above it when there is none */
    int replaces;      /* there is an empty target */
};

/* ---- removing ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    (void)remove(path);
    return 0;
}

void restore_remove_tree(const char *dir)
{
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* What a dead one has left: its lock can be had. */
static void remove_dead(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        restore_remove_tree(path);
    close(fd);
}

static int is_working_name(const struct restore *r, const char *name)
{
    size_t n = strlen(r->name), s = sizeof SUFFIX - 1;
    return strncmp(name, r->name, n) == 0 && strncmp(name + n, SUFFIX, s) == 0 &&
           strspn(name + n + s, "0123456789abcdef") == SUFFIX_DIGITS &&
           strlen(name + n + s) == SUFFIX_DIGITS;
}

static int remove_leftovers(const struct restore *r, struct azoth_error *err)
{
    DIR *d = opendir(r->parent);
    if (!d)
        return error_errno(err, errno, "%s", r->parent);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[PATH_MAX + NAME_MAX + 2];
        snprintf(path, sizeof path, "%s/%s", r->parent, e->d_name);
        if (is_working_name(r, e->d_name))
            remove_dead(path);
    }
    closedir(d);
    return 0;
}

/* ---- beginning ---- */

/* 0: it is an empty directory. */
static int check_empty(const struct restore *r, struct azoth_error *err)
{
    DIR *d = opendir(r->target);
    if (!d)
        return errno == ENOTDIR
                   ? error_set(err, AZOTH_ERR_DUPLICATE, "%s: it is no directory", r->target)
                   : error_errno(err, errno, "%s", r->target);
    int rc = 0;
    for (struct dirent *e; !rc && (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = error_set(err, AZOTH_ERR_DUPLICATE,
                           "%s: it is not empty (%.80s is there); a database is restored into a "
                           "directory that is new or empty",
                           r->target, e->d_name);
    closedir(d);
    if (rc && faccessat(AT_FDCWD, r->target, F_OK, 0) == 0) {
        char store[PATH_MAX + 16];
        snprintf(store, sizeof store, "%s/data.mdb", r->target);
        if (access(store, F_OK) == 0)
            return error_set(err, AZOTH_ERR_DATABASE_EXISTS,
                             "%s: there is a database here already; restore into a new directory",
                             r->target);
    }
    return rc;
}

static int find_place(struct restore *r, const char *target, struct azoth_error *err)
{
    char copy[PATH_MAX], copy2[PATH_MAX];
    if (snprintf(copy, sizeof copy, "%s", target) >= (int)sizeof copy - 40 || !*target)
        return error_set(err, AZOTH_ERR_USAGE, "%s: no path of a directory", target);
    snprintf(copy2, sizeof copy2, "%s", copy);
    const char *name = basename(copy), *above = dirname(copy2);
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "/") == 0)
        return error_set(err, AZOTH_ERR_USAGE, "%s: say the directory's own name", target);
    snprintf(r->name, sizeof r->name, "%s", name);
    if (!realpath(above, r->parent))
        return errno == ENOENT ? error_set(err, AZOTH_ERR_NO_DATABASE,
                                           "%s: there is no such directory to restore in", above)
                               : error_errno(err, errno, "%s", above);
    if (snprintf(r->target, sizeof r->target, "%s/%s", strcmp(r->parent, "/") == 0 ? "" : r->parent,
                 r->name) >= PATH_MAX - 40)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", target);
    r->replaces = lstat(r->target, &r->place) == 0;
    /* What a link leads to is replaced, and not the link: a directory is not renamed over one. */
    if (r->replaces && S_ISLNK(r->place.st_mode))
        return realpath(r->target, copy) ? find_place(r, copy, err)
                                         : error_errno(err, errno, "%s: a link", r->target);
    if (r->replaces)
        return check_empty(r, err);
    return errno != ENOENT || stat(r->parent, &r->place) ? error_errno(err, errno, "%s", r->target)
                                                         : 0;
}

static int make_dir(struct restore *r, struct azoth_error *err)
{
    uint8_t random[SUFFIX_DIGITS / 2];
    char hex[SUFFIX_DIGITS + 1];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return error_errno(err, errno, "random bytes");
    bytes_hex(hex, random, sizeof random);
    if (snprintf(r->dir, sizeof r->dir, "%s" SUFFIX "%s", r->target, hex) >= PATH_MAX - 20)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", r->target);
    snprintf(r->store, sizeof r->store, "%s/data.mdb.new", r->dir);
    if (mkdir(r->dir, 0770))
        return error_errno(err, errno, "%s", r->dir);
    r->fd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->fd < 0 || flock(r->fd, LOCK_EX | LOCK_NB))
        return error_errno(err, errno, "%s", r->dir);
    /* Between its making and its lock another one may have taken it for a dead one's. */
    struct stat mine, there;
    if (fstat(r->fd, &mine) || stat(r->dir, &there) || mine.st_ino != there.st_ino)
        return error_set(err, AZOTH_ERR_BUSY, "%s: another process restores to this place",
                         r->target);
    return mkdirat(r->fd, "projections", 0770) ? error_errno(err, errno, "%s/projections", r->dir)
                                               : 0;
}

int restore_begin(const char *target, struct restore **ret, struct azoth_error *err)
{
    struct restore *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, AZOTH_ERR_NOMEM, "a restore");
    r->fd = -1;
    int rc = find_place(r, target, err);
    if (!rc)
        rc = remove_leftovers(r, err);
    if (!rc)
        rc = make_dir(r, err);
    if (rc) {
        restore_abort(r);
        return rc;
    }
    CRASH_POINT(restore_begun);
    *ret = r;
    return 0;
}

const char *restore_dir(const struct restore *r)
{
    return r->dir;
}

const char *restore_store(const struct restore *r)
{
    return r->store;
}

void restore_abort(struct restore *r)
{
    if (!r)
        return;
    if (r->fd >= 0) {
        restore_remove_tree(r->dir);
        close(r->fd);
    }
    free(r);
}

/* ---- checking ---- */

static int check_state(struct snapshot *sn, const struct store_head *head, struct azoth_error *err)
{
    const struct azoth_bytes open = {0};
    struct azoth_bytes key = {0};
    struct state_record rec = {0};
    struct scan *sc = NULL;
    char text[80];
    int rc = scan_open(sn, open, open, open, &sc, err);
    if (rc)
        return rc;
    while ((rc = scan_next(sc, &key, &rec, err)) == 1)
        if (value_check(rec.value)) {
            rc = error_set(err, AZOTH_ERR_CORRUPT, "key %s: its value is not encoded as its type",
                           bytes_print(key, text, sizeof text));
            break;
        } else if (rec.version < 1 || rec.version > head->txn) {
            rc = error_set(err, AZOTH_ERR_CORRUPT,
                           "key %s: transaction %llu changed it, and the newest is %llu",
                           bytes_print(key, text, sizeof text), (unsigned long long)rec.version,
                           (unsigned long long)head->txn);
            break;
        }
    scan_close(sc);
    return rc;
}

/* State and ids are read beside the events, by a thread of their own. */
struct beside {
    struct store *store;
    int rc;
    struct azoth_error error;
};

static void *check_beside(void *arg)
{
    struct beside *b = arg;
    struct snapshot *sn;
    struct store_head head;
    b->rc = snapshot_begin(b->store, &sn, &b->error);
    if (b->rc)
        return NULL;
    b->rc = snapshot_head(sn, &head, &b->error);
    if (!b->rc)
        b->rc = check_state(sn, &head, &b->error);
    if (!b->rc)
        b->rc = ids_agree(sn, &b->error);
    snapshot_end(sn);
    return NULL;
}

static int check_chain(struct chain_walk *g, const struct store_head *head, struct azoth_error *err)
{
    chain_walk_end(g);
    if (g->chain.on == head->chain.on &&
        (!g->chain.on || memcmp(g->chain.value, head->chain.value, CHAIN_BYTES) == 0))
        return 0;
    return error_set(err, AZOTH_ERR_CORRUPT,
                     "the events up to %llu do not give the chain's value: one of them was changed",
                     (unsigned long long)head->event);
}

static int walk_events(struct snapshot *sn, const struct store_head *head, struct chain_walk *g,
                       restore_progress progress, void *arg, struct azoth_error *err)
{
    struct event_record ev = {0};
    struct event_scan *es = NULL;
    uint64_t event = 0, txn = 0;
    int64_t time_ns = INT64_MIN;
    int rc = event_scan_open(sn, 1, 0, &es, err);
    while (!rc && (rc = event_scan_next(es, &ev, NULL, err)) == 1) {
        rc = chain_walk_add(g, &ev) ? error_set(err, AZOTH_ERR_NOMEM, "a transaction's events") : 0;
        if (!rc && (ev.txn < txn || ev.txn > head->txn || ev.time_ns < time_ns))
            rc = error_set(err, AZOTH_ERR_CORRUPT,
                           "event %llu: its transaction or its time is out of order",
                           (unsigned long long)ev.id);
        else if (!rc && ev.id % 4096 == 0 && progress && progress(arg, ev.id, head->event))
            rc = 1;
        event = ev.id;
        txn = ev.txn;
        time_ns = ev.time_ns;
    }
    event_scan_close(es);
    if (!rc && event != head->event)
        rc = error_set(err, AZOTH_ERR_GAP, "the log ends at event %llu, and its head is %llu",
                       (unsigned long long)event, (unsigned long long)head->event);
    return rc;
}

static int check_events(struct snapshot *sn, const struct store_head *head,
                        restore_progress progress, void *arg, struct azoth_error *err)
{
    struct chain_walk g = {0};
    int rc = snapshot_chain_start(sn, &g.chain, err);
    if (rc >= 0)
        rc = walk_events(sn, head, &g, progress, arg, err);
    if (!rc)
        rc = check_chain(&g, head, err);
    chain_walk_fini(&g);
    return rc;
}

static int check_log(struct store *s, restore_progress progress, void *arg, struct store_head *ret,
                     struct azoth_error *err)
{
    struct snapshot *sn;
    int rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head_chained(sn, ret, err);
    if (!rc)
        rc = check_events(sn, ret, progress, arg, err);
    snapshot_end(sn);
    return rc;
}

int restore_check(const struct restore *r, restore_progress progress, void *arg,
                  struct store_head *ret, struct azoth_error *err)
{
    struct beside b = {0};
    struct store_head head = {0};
    pthread_t thread;
    int rc = store_open(r->store, STORE_FILE, &b.store, err);
    if (rc)
        return rc;
    int threaded = pthread_create(&thread, NULL, check_beside, &b) == 0;
    rc = check_log(b.store, progress, arg, &head, err);
    if (threaded)
        pthread_join(thread, NULL);
    else
        check_beside(&b);
    store_close(b.store);
    if (!rc && b.rc) {
        *err = b.error;
        rc = b.rc;
    }
    if (!rc && ret)
        *ret = head;
    return rc;
}

/* ---- segments ---- */

static int corrupt_segment(struct azoth_error *err)
{
    return error_set(err, AZOTH_ERR_CORRUPT, "the record of a segment fails its check");
}

/* The next record from *last on: 1, 0 when there is none, or an error. */
static int move_segment(MDB_txn *txn, MDB_dbi meta, MDB_cursor *c, uint64_t *last,
                        struct archived_entry *e, struct azoth_error *err)
{
    unsigned char key[ARCHIVE_KEY];
    struct buf rec = {0};
    char name[ARCHIVE_NAME_MAX];
    archived_key(key, *last);
    MDB_val k = {sizeof key, key}, v;
    int rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
    if (rc == MDB_NOTFOUND || (!rc && (k.mv_size < 8 || memcmp(k.mv_data, key, 8) != 0)))
        return 0;
    if (rc)
        return lmdb_error(err, rc, "meta/segment");
    if (k.mv_size != sizeof key || archived_entry_decode(bytes_of_val(v), e))
        return corrupt_segment(err);
    memcpy(key, k.mv_data, sizeof key);
    *last = get_be64(key + 8);
    archivefile_name(name, e->about.first, e->about.last);
    snprintf(e->path, sizeof e->path, "archive/%s", name);
    if (archived_entry_encode(&rec, e))
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's record");
    k = (MDB_val){sizeof key, key};
    v = val_of(buf_bytes(&rec));
    rc = mdb_put(txn, meta, &k, &v, 0);
    buf_fini(&rec);
    return rc ? lmdb_error(err, rc, "meta/segment") : 1;
}

static int move_segments(MDB_txn *txn, MDB_dbi meta, struct azoth_error *err)
{
    MDB_cursor *c;
    uint64_t last = 0;
    struct archived_entry *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's record");
    int rc = mdb_cursor_open(txn, meta, &c);
    if (rc) {
        free(e);
        return lmdb_error(err, rc, "meta/segment");
    }
    while ((rc = move_segment(txn, meta, c, &last, e, err)) == 1 && last < UINT64_MAX)
        last++;
    mdb_cursor_close(c);
    free(e);
    return rc < 0 ? rc : 0;
}

int restore_segments(const struct restore *r, struct azoth_error *err)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi meta;
    int rc = lmdb_env_open(r->store, MDB_NOSUBDIR | MDB_NOLOCK, &env, err);
    if (rc)
        return rc;
    int m = mdb_txn_begin(env, NULL, 0, &txn);
    if (!m) {
        m = mdb_dbi_open(txn, store_db_name[DB_META], 0, &meta);
        if (!m)
            rc = move_segments(txn, meta, err);
        if (m || rc)
            mdb_txn_abort(txn);
        else
            m = mdb_txn_commit(txn);
    }
    mdb_env_close(env);
    return rc ? rc : m ? lmdb_error(err, m, "the restored store") : 0;
}

/* ---- identity ---- */

/* Keys of meta that belong to the database that was backed up, and to its places of backups. */
static int forget_marks(MDB_txn *txn, MDB_dbi meta)
{
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, meta, &c);
    if (rc)
        return rc;
    for (;;) {
        MDB_val k = {5, "mark:"}, v;
        rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
        if (rc || k.mv_size < 5 || memcmp(k.mv_data, "mark:", 5) != 0)
            break;
        rc = mdb_cursor_del(c, 0);
        if (rc)
            break;
    }
    mdb_cursor_close(c);
    if (rc && rc != MDB_NOTFOUND)
        return rc;
    MDB_val seal = {4, "seal"};
    rc = mdb_del(txn, meta, &seal, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* What the marks wanted. A store of format 1 has no such records. */
static int empty_redo(MDB_txn *txn)
{
    MDB_dbi redo;
    int rc = mdb_dbi_open(txn, store_db_name[DB_REDO], 0, &redo);
    return rc == MDB_NOTFOUND ? 0 : rc ? rc : mdb_drop(txn, redo, 0);
}

static int put_identity(MDB_txn *txn, MDB_dbi meta, int same_uuid, uint8_t uuid[16],
                        struct azoth_error *err)
{
    uint8_t was[16];
    uint64_t created;
    struct batch_head h;
    MDB_val k = {6, "format"}, v, hk = {4, "head"}, hv;
    int rc = mdb_get(txn, meta, &k, &v);
    if (!rc)
        rc = mdb_get(txn, meta, &hk, &hv);
    if (rc)
        return lmdb_error(err, rc, "the restored store");
    rc = store_format_decode(bytes_of_val(v), was, &created, NULL, err);
    if (!rc && batch_decode(bytes_of_val(hv), &h))
        rc = error_set(err, AZOTH_ERR_CORRUPT, "meta/head fails its check");
    if (rc)
        return rc;
    if (same_uuid)
        memcpy(uuid, was, 16);
    unsigned char format[STORE_FORMAT_RECORD], head[BATCH_HEAD];
    memcpy(format, v.mv_data, sizeof format); /* its number, too: a writer raises that */
    memcpy(format + 8, uuid, 16);
    put_u64(format + 32, XXH3_64bits(format, 32));
    h.incarnation++;
    h.count = 0;
    batch_encode(head, &h, NULL);
    v = (MDB_val){sizeof format, format};
    hv = (MDB_val){sizeof head, head};
    rc = mdb_put(txn, meta, &k, &v, 0);
    if (!rc)
        rc = mdb_put(txn, meta, &hk, &hv, 0);
    if (!rc)
        rc = forget_marks(txn, meta);
    if (!rc)
        rc = empty_redo(txn);
    return rc ? lmdb_error(err, rc, "the restored store") : 0;
}

int restore_identity(const struct restore *r, int same_uuid, uint8_t ret_uuid[16],
                     struct azoth_error *err)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi meta;
    if (getrandom(ret_uuid, 16, 0) != 16)
        return error_errno(err, errno, "random bytes");
    int rc = lmdb_env_open(r->store, MDB_NOSUBDIR | MDB_NOLOCK, &env, err);
    if (rc)
        return rc;
    int m = mdb_txn_begin(env, NULL, 0, &txn);
    if (!m) {
        m = mdb_dbi_open(txn, store_db_name[DB_META], 0, &meta);
        if (!m)
            rc = put_identity(txn, meta, same_uuid, ret_uuid, err);
        if (m || rc)
            mdb_txn_abort(txn);
        else
            m = mdb_txn_commit(txn);
    }
    mdb_env_close(env);
    CRASH_POINT(restore_identified);
    return rc ? rc : m ? lmdb_error(err, m, "the restored store") : 0;
}

/* ---- the end ---- */

static uid_t give_uid;
static gid_t give_gid;

static int give_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return lchown(path, give_uid, give_gid);
}

/* What the superuser restores is of whom the place is, as everything that is made there. */
static int give_away(const struct restore *r, struct azoth_error *err)
{
    if (geteuid() == 0 && r->place.st_uid != 0) {
        give_uid = r->place.st_uid;
        give_gid = r->place.st_gid;
        if (nftw(r->dir, give_one, 16, FTW_PHYS))
            return error_errno(err, errno, "%s: giving it to its owner", r->dir);
    }
    return r->replaces && chmod(r->dir, r->place.st_mode & 07777)
               ? error_errno(err, errno, "%s", r->dir)
               : 0;
}

static int sync_dir(const char *path, struct azoth_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) ? error_errno(err, errno, "%s", path) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int name_store(const struct restore *r, struct azoth_error *err)
{
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/projections", r->dir);
    int rc = sync_dir(path, err);
    snprintf(path, sizeof path, "%s/archive", r->dir);
    if (!rc && access(path, F_OK) == 0)
        rc = sync_dir(path, err);
    if (!rc)
        rc = sync_dir(r->dir, err);
    snprintf(path, sizeof path, "%s/data.mdb", r->dir);
    CRASH_POINT(restore_ready);
    if (!rc && rename(r->store, path))
        rc = error_errno(err, errno, "%s", path);
    CRASH_POINT(restore_named);
    return rc ? rc : sync_dir(r->dir, err);
}

int restore_finish(struct restore *r, const uint8_t uuid[16], uint64_t reserve_bytes,
                   struct azoth_error *err)
{
    int rc = store_surround(r->dir, r->fd, uuid, reserve_bytes, err);
    CRASH_POINT(restore_surrounded);
    if (!rc)
        rc = give_away(r, err);
    if (!rc)
        rc = name_store(r, err);
    if (!rc && rename(r->dir, r->target))
        rc = errno == ENOTEMPTY || errno == EEXIST
                 ? error_set(err, AZOTH_ERR_DUPLICATE, "%s: it is not empty any more", r->target)
             : errno == EBUSY ? error_set(err, AZOTH_ERR_BUSY,
                                          "%s: a file system is mounted there: restore into a "
                                          "directory in it",
                                          r->target)
                              : error_errno(err, errno, "%s", r->target);
    if (rc) {
        restore_abort(r);
        return rc;
    }
    CRASH_POINT(restore_done);
    rc = sync_dir(r->parent, err);
    close(r->fd);
    free(r);
    return rc;
}
