/*
 * store.c - one LMDB environment per directory and process, snapshots, single reads.
 *
 * Failure modes
 *   a second descriptor of lock.mdb in this process  closing it would drop LMDB's lock on the process
 *                                                    and let others reuse our pages: hence the
 *                                                    process-wide list of open stores
 *   a process stopped inside LMDB's reader mutex     first registration of a reader blocks: a writer
 *                                                    (STORE_WRITE) registers none before it is ready
 *   reader slots are scarce                          snapshots are kept and renewed
 */
#include "core/store.h"

#include "core/batchrec.h"
#include "core/pagecheck.h"
#include "core/store_lmdb.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

const char *const store_db_name[DB_COUNT] = {"state", "events", "meta", "ids", "ids_age", "redo"};

struct snapshot {
    struct store *store;
    MDB_txn *txn;
    struct snapshot *next;
};

struct store {
    struct store_lmdb lmdb;
    struct store_identity identity;
    dev_t dir_dev;
    ino_t dir_ino;
    unsigned users;
    int file;             /* opened with STORE_FILE */
    pthread_mutex_t lock; /* the idle list, archive */
    struct snapshot *idle;
    struct archived_cache *archive; /* NULL: nobody has read a segment yet */
    struct store *next;
};

static pthread_mutex_t stores_lock = PTHREAD_MUTEX_INITIALIZER;
static struct store *stores; /* of this process */

/* In a forked child: the parent's environments are not the child's. Their descriptors stay open, since
 * LMDB's locks are per process and nothing may be closed beside a living environment. */
static void forget_parents(void)
{
    stores = NULL;
    pthread_mutex_init(&stores_lock, NULL);
}

static void register_fork(void)
{
    pthread_atfork(NULL, NULL, forget_parents);
}

int lmdb_error(struct azoth_error *err, int rc, const char *what)
{
    int code = AZOTH_ERR_IO;
    if (rc > 0)
        code = error_from_errno(rc);
    switch (rc) {
    case MDB_NOTFOUND:
        code = AZOTH_ERR_NOT_FOUND;
        break;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case MDB_PAGE_FULL:
    case MDB_CURSOR_FULL:
        code = AZOTH_ERR_NOSPACE;
        break;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
        code = AZOTH_ERR_CORRUPT;
        break;
    case MDB_VERSION_MISMATCH:
        code = AZOTH_ERR_FORMAT;
        break;
    case MDB_READERS_FULL:
        code = AZOTH_ERR_FULL;
        break;
    case ENOENT:
        code = AZOTH_ERR_NO_DATABASE;
        break;
    default:
        break;
    }
    return error_foreign(err, code, rc, "%s: %s", what, mdb_strerror(rc));
}

int lmdb_env_open(const char *dir, unsigned flags, MDB_env **ret, struct azoth_error *err)
{
    MDB_env *env = NULL;
    int rc = mdb_env_create(&env);
    if (!rc)
        rc = mdb_env_set_maxdbs(env, DB_COUNT + 8);
    if (!rc)
        rc = mdb_env_set_mapsize(env, STORE_MAP_BYTES);
    if (!rc)
        rc = mdb_env_set_maxreaders(env, STORE_READERS_MAX);
    if (!rc)
        rc = mdb_env_open(env, dir, flags | MDB_NOTLS | MDB_NORDAHEAD, 0660);
    if (rc) {
        if (env)
            mdb_env_close(env);
        char what[300];
        snprintf(what, sizeof what, "%.280s", dir);
        return lmdb_error(err, rc, what);
    }
    *ret = env;
    return 0;
}

/* ---- records of the store itself ---- */

#define FORMAT_MAGIC 0x31465a41u /* "AZF1" */

void store_format_encode(unsigned char out[STORE_FORMAT_RECORD], const uint8_t uuid[16],
                         uint64_t created_ns)
{
    put_u32(out, FORMAT_MAGIC);
    put_u32(out + 4, STORE_FORMAT);
    memcpy(out + 8, uuid, 16);
    put_u64(out + 24, created_ns);
    put_u64(out + 32, XXH3_64bits(out, 32));
}

int store_format_decode(struct azoth_bytes rec, uint8_t ret_uuid[16], uint64_t *ret_created_ns,
                        uint32_t *ret_format, struct azoth_error *err)
{
    const unsigned char *p = rec.ptr;
    if (rec.len < 8 || get_u32(p) != FORMAT_MAGIC)
        return error_set(err, AZOTH_ERR_CORRUPT, "the store's format record is damaged");
    if (get_u32(p + 4) < STORE_FORMAT_LEAST || get_u32(p + 4) > STORE_FORMAT)
        return error_set(err, AZOTH_ERR_FORMAT, "the store has format %u, this program knows %u",
                         get_u32(p + 4), STORE_FORMAT);
    if (rec.len != STORE_FORMAT_RECORD || get_u64(p + 32) != XXH3_64bits(p, 32))
        return error_set(err, AZOTH_ERR_CORRUPT, "the store's format record is damaged");
    memcpy(ret_uuid, p + 8, 16);
    *ret_created_ns = get_u64(p + 24);
    if (ret_format)
        *ret_format = get_u32(p + 4);
    return 0;
}

static uint32_t id_checksum(const uint8_t id[AZOTH_ID_BYTES], const unsigned char *rec)
{
    return (uint32_t)XXH3_64bits_withSeed(rec, STORE_ID_RECORD - 4,
                                          XXH3_64bits(id, AZOTH_ID_BYTES));
}

void store_id_encode(unsigned char out[STORE_ID_RECORD], const uint8_t id[AZOTH_ID_BYTES],
                     const struct txn_result *r, uint64_t content, uint64_t age)
{
    put_u64(out, r->txn);
    put_u64(out + 8, r->first_event);
    put_u64(out + 16, r->last_event);
    put_u64(out + 24, content);
    put_u64(out + 32, age);
    put_u32(out + 40, r->keys_written);
    put_u32(out + 44, r->keys_deleted);
    put_u32(out + 48, r->keys_missing);
    put_u32(out + 52, id_checksum(id, out));
}

int store_id_decode(const uint8_t id[AZOTH_ID_BYTES], struct azoth_bytes rec,
                    struct txn_result *ret, uint64_t *ret_content, uint64_t *ret_age)
{
    const unsigned char *p = rec.ptr;
    if (rec.len != STORE_ID_RECORD || get_u32(p + 52) != id_checksum(id, p))
        return AZOTH_ERR_CORRUPT;
    *ret = (struct txn_result){
        .txn = get_u64(p),
        .first_event = get_u64(p + 8),
        .last_event = get_u64(p + 16),
        .keys_written = get_u32(p + 40),
        .keys_deleted = get_u32(p + 44),
        .keys_missing = get_u32(p + 48),
        .duplicate = 1,
    };
    *ret_content = get_u64(p + 24);
    *ret_age = get_u64(p + 32);
    return 0;
}

/* ---- opening ---- */

static int open_dbis(struct store *s, struct azoth_error *err)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->lmdb.env, NULL, MDB_RDONLY, &txn);
    if (rc)
        return lmdb_error(err, rc, "store");
    for (int i = 0; i < DB_REDO && !rc; i++)
        rc = mdb_dbi_open(txn, store_db_name[i], 0, &s->lmdb.dbi[i]);
    if (!rc && (rc = mdb_dbi_open(txn, store_db_name[DB_REDO], 0, &s->lmdb.dbi[DB_REDO])) == 0)
        atomic_store(&s->lmdb.redo_open, 1);
    else if (rc == MDB_NOTFOUND)
        rc = 0; /* format 1 */
    MDB_val k = {6, "format"}, v;
    if (!rc)
        rc = mdb_get(txn, s->lmdb.dbi[DB_META], &k, &v);
    if (rc) {
        mdb_txn_abort(txn);
        return rc == MDB_NOTFOUND
                   ? error_set(err, AZOTH_ERR_FORMAT, "%s: this LMDB file is no Azoth database",
                               s->identity.dir)
                   : lmdb_error(err, rc, "store");
    }
    rc = store_format_decode(bytes_of_val(v), s->identity.uuid, &s->identity.created_ns, NULL, err);
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    mdb_txn_commit(txn); /* of a read transaction: keeps the DBIs open */
    s->lmdb.dbis_open = 1;
    return 0;
}

/* The file of a database is there: LMDB would make it. */
static int find_file(const char *path, const char *dir, struct azoth_error *err)
{
    struct stat st;
    if (stat(path, &st) == 0)
        return 0;
    return errno == ENOENT ? error_set(err, AZOTH_ERR_NO_DATABASE,
                                       "%s: no database here (azoth init makes one)", dir)
                           : error_errno(err, errno, "%s", path);
}

static int open_new(const char *dir, unsigned flags, struct store *s, struct azoth_error *err)
{
    if (!realpath(dir, s->identity.dir))
        return errno == ENOENT || errno == ENOTDIR
                   ? error_set(err, AZOTH_ERR_NO_DATABASE, "%s: no such directory", dir)
                   : error_errno(err, errno, "%s", dir);
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, flags & STORE_FILE ? "%s" : "%s/data.mdb", s->identity.dir);
    unsigned how = flags & STORE_FILE ? MDB_NOSUBDIR | MDB_NOLOCK : 0;
    struct stat st;
    int fd, rc = find_file(path, dir, err);
    if (!rc)
        rc = lmdb_env_open(s->identity.dir, how, &s->lmdb.env, err);
    if (rc == AZOTH_ERR_PERMISSION && !(flags & STORE_WRITE)) {
        s->lmdb.read_only = 1;
        rc = lmdb_env_open(s->identity.dir, MDB_RDONLY, &s->lmdb.env, err);
    }
    if (rc)
        return rc;
    if (mdb_env_get_fd(s->lmdb.env, &fd) || fstat(fd, &st)) {
        rc = error_errno(err, errno, "%s", path);
        goto fail;
    }
    s->file = (flags & STORE_FILE) != 0;
    s->identity.device = (uint64_t)st.st_dev;
    s->identity.inode = (uint64_t)st.st_ino;
    if (!(flags & STORE_WRITE) && (rc = open_dbis(s, err)) != 0)
        goto fail;
    return 0;
fail:
    mdb_env_close(s->lmdb.env);
    return rc;
}

int store_open(const char *dir, unsigned flags, struct store **ret, struct azoth_error *err)
{
    struct stat st;
    if (stat(dir, &st))
        return errno == ENOENT || errno == ENOTDIR
                   ? error_set(err, AZOTH_ERR_NO_DATABASE, "%s: no such directory", dir)
                   : error_errno(err, errno, "%s", dir);
    int rc = 0;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork);
    pthread_mutex_lock(&stores_lock);
    struct store *s = stores;
    while (s && (s->dir_dev != st.st_dev || s->dir_ino != st.st_ino))
        s = s->next;
    if (s) {
        if ((flags & STORE_WRITE) && s->lmdb.read_only)
            rc = error_set(err, AZOTH_ERR_PERMISSION, "%s: opened for reading only", dir);
        else if (!(flags & STORE_WRITE) && !s->lmdb.dbis_open)
            rc = open_dbis(s, err);
        if (!rc) {
            s->users++;
            *ret = s;
        }
        pthread_mutex_unlock(&stores_lock);
        return rc;
    }
    s = calloc(1, sizeof *s);
    if (!s)
        rc = error_set(err, AZOTH_ERR_NOMEM, "the store's handle");
    else
        rc = open_new(dir, flags, s, err);
    if (!rc) {
        s->dir_dev = st.st_dev;
        s->dir_ino = st.st_ino;
        s->users = 1;
        pthread_mutex_init(&s->lock, NULL);
        s->next = stores;
        stores = s;
        *ret = s;
    } else {
        free(s);
    }
    pthread_mutex_unlock(&stores_lock);
    return rc;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&stores_lock);
    if (--s->users == 0) {
        struct store **at = &stores;
        while (*at != s)
            at = &(*at)->next;
        *at = s->next;
        while (s->idle) {
            struct snapshot *sn = s->idle;
            s->idle = sn->next;
            mdb_txn_abort(sn->txn);
            free(sn);
        }
        archived_cache_free(s->archive);
        mdb_env_close(s->lmdb.env);
        pthread_mutex_destroy(&s->lock);
        free(s);
    }
    pthread_mutex_unlock(&stores_lock);
}

/* ---- before it is opened ---- */

#define PAGES_TRIES 20

static int look_at_meta(const char *path, struct azoth_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "%s", path);
    int rc = pagecheck_meta(fd, path, err);
    close(fd);
    return rc;
}

/* Nothing is read through LMDB but of which commit a snapshot is. */
static int look_at_pages(MDB_env *env, const struct pagecheck_tell *tell, struct azoth_error *err)
{
    struct pagecheck_sum sum;
    int fd, rc = 1, m = mdb_env_get_fd(env, &fd);
    for (int i = 0; i < PAGES_TRIES && !m && rc == 1; i++) {
        MDB_txn *txn;
        m = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
        if (m)
            break;
        rc = pagecheck(fd, mdb_txn_id(txn), tell, &sum, err);
        mdb_txn_abort(txn);
    }
    if (m)
        return lmdb_error(err, m, "pages");
    return rc == 1 ? error_set(err, AZOTH_ERR_BUSY, "commits came too fast to look at the pages")
                   : rc;
}

int store_pages_look(const char *dir, const struct pagecheck_tell *tell, struct azoth_error *err)
{
    char path[PATH_MAX + 16];
    MDB_env *env = NULL;
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    int rc = find_file(path, dir, err);
    if (!rc)
        rc = look_at_meta(path, err);
    if (rc)
        return rc;
    rc = lmdb_env_open(dir, 0, &env, err);
    if (rc == AZOTH_ERR_PERMISSION)
        rc = lmdb_env_open(dir, MDB_RDONLY, &env, err);
    if (rc)
        return rc;
    rc = look_at_pages(env, tell, err);
    mdb_env_close(env);
    return rc;
}

const struct store_identity *store_identity(const struct store *s)
{
    return &s->identity;
}

int store_unlocked(const struct store *s)
{
    return s->lmdb.read_only;
}

struct store_lmdb *store_lmdb(struct store *s)
{
    return &s->lmdb;
}

void store_set_identity(struct store *s, const uint8_t uuid[16], uint64_t created_ns)
{
    memcpy(s->identity.uuid, uuid, 16);
    s->identity.created_ns = created_ns;
}

/* ---- snapshots ---- */

/* A store that was opened in format 1 may have become format 2 since. */
static void look_for_redo(struct store *s)
{
    MDB_txn *txn;
    MDB_dbi dbi;
    if (mdb_txn_begin(s->lmdb.env, NULL, MDB_RDONLY, &txn))
        return;
    if (mdb_dbi_open(txn, store_db_name[DB_REDO], 0, &dbi)) {
        mdb_txn_abort(txn);
        return;
    }
    mdb_txn_commit(txn);
    s->lmdb.dbi[DB_REDO] = dbi;
    atomic_store(&s->lmdb.redo_open, 1);
}

int snapshot_begin(struct store *s, struct snapshot **ret, struct azoth_error *err)
{
    pthread_mutex_lock(&s->lock);
    if (!atomic_load(&s->lmdb.redo_open))
        look_for_redo(s);
    struct snapshot *sn = s->idle;
    if (sn)
        s->idle = sn->next;
    pthread_mutex_unlock(&s->lock);
    int rc;
    if (sn) {
        rc = mdb_txn_renew(sn->txn);
        if (rc == 0) {
            *ret = sn;
            return 0;
        }
        mdb_txn_abort(sn->txn);
    } else {
        sn = malloc(sizeof *sn);
        if (!sn)
            return error_set(err, AZOTH_ERR_NOMEM, "a snapshot");
    }
    sn->store = s;
    sn->next = NULL;
    rc = mdb_txn_begin(s->lmdb.env, NULL, MDB_RDONLY, &sn->txn);
    if (rc) {
        free(sn);
        return lmdb_error(err, rc, "snapshot");
    }
    *ret = sn;
    return 0;
}

void snapshot_end(struct snapshot *sn)
{
    if (!sn)
        return;
    mdb_txn_reset(sn->txn);
    pthread_mutex_lock(&sn->store->lock);
    sn->next = sn->store->idle;
    sn->store->idle = sn;
    pthread_mutex_unlock(&sn->store->lock);
}

MDB_txn *snapshot_txn(struct snapshot *sn)
{
    return sn->txn;
}

struct store *snapshot_store(struct snapshot *sn)
{
    return sn->store;
}

struct archived_cache *store_archive(struct store *s)
{
    char dir[sizeof s->identity.dir];
    snprintf(dir, sizeof dir, "%s", s->identity.dir);
    if (s->file && strrchr(dir, '/')) /* what lies beside it is its own */
        *strrchr(dir, '/') = 0;
    pthread_mutex_lock(&s->lock);
    if (!s->archive)
        s->archive = archived_cache_make(dir);
    struct archived_cache *c = s->archive;
    pthread_mutex_unlock(&s->lock);
    return c;
}

int snapshot_get(struct snapshot *sn, struct azoth_bytes key, struct state_record *ret,
                 struct azoth_error *err)
{
    if (key.len < 1 || key.len > AZOTH_KEY_MAX)
        return error_set(err, AZOTH_ERR_KEY_SIZE, "a key of %zu bytes", key.len);
    MDB_val k = val_of(key), v;
    int rc = mdb_get(sn->txn, sn->store->lmdb.dbi[DB_STATE], &k, &v);
    char text[80];
    if (rc == MDB_NOTFOUND)
        return error_set(err, AZOTH_ERR_NOT_FOUND, "key %s: not there",
                         err ? bytes_print(key, text, sizeof text) : "");
    if (rc)
        return lmdb_error(err, rc, "get");
    rc = record_state_decode(key, bytes_of_val(v), ret);
    if (rc)
        return error_set(err, rc, "key %s: the stored record fails its check",
                         bytes_print(key, text, sizeof text));
    return 0;
}

/* One event of the log that is in LMDB. */
static int chain_event(struct chain_walk *w, uint64_t id, MDB_val k, MDB_val v,
                       struct azoth_error *err)
{
    struct event_record ev;
    if (k.mv_size != 8 || get_be64(k.mv_data) != id)
        return error_set(err, AZOTH_ERR_GAP, "event %llu of the newest batch is missing",
                         (unsigned long long)id);
    int rc = record_event_decode(id, bytes_of_val(v), &ev);
    if (rc)
        return error_set(err, rc, "event %llu of the newest batch fails its check",
                         (unsigned long long)id);
    rc = chain_walk_add(w, &ev);
    return rc ? error_set(err, rc, "the newest batch's events") : 0;
}

int store_chain_complete(MDB_txn *txn, MDB_dbi events, struct chain *c, uint64_t last,
                         struct azoth_error *err)
{
    struct chain_walk w = {.chain = *c};
    MDB_cursor *cursor;
    if (!c->on || c->event >= last)
        return 0;
    int rc = mdb_cursor_open(txn, events, &cursor);
    if (rc)
        return lmdb_error(err, rc, "events");
    unsigned char first[8];
    put_be64(first, c->event + 1);
    MDB_val k = {sizeof first, first}, v;
    MDB_cursor_op op = MDB_SET_RANGE;
    for (uint64_t id = c->event + 1; !rc && id <= last; id++, op = MDB_NEXT) {
        rc = mdb_cursor_get(cursor, &k, &v, op);
        if (rc == MDB_NOTFOUND)
            rc = error_set(err, AZOTH_ERR_GAP, "event %llu of the newest batch is missing",
                           (unsigned long long)id);
        else
            rc = rc ? lmdb_error(err, rc, "events") : chain_event(&w, id, k, v, err);
    }
    mdb_cursor_close(cursor);
    if (!rc) {
        chain_walk_end(&w);
        *c = w.chain;
    }
    chain_walk_fini(&w);
    return rc;
}

static int read_head(struct snapshot *sn, struct store_head *ret, struct azoth_error *err)
{
    MDB_val k = {4, "head"}, v;
    int rc = mdb_get(sn->txn, sn->store->lmdb.dbi[DB_META], &k, &v);
    if (rc)
        return lmdb_error(err, rc, "meta/head");
    struct batch_head h;
    rc = batch_decode(bytes_of_val(v), &h);
    if (rc)
        return error_set(err, rc, "meta/head fails its check");
    *ret = (struct store_head){h.event,       h.txn,   h.time_ns,    h.epoch,
                               h.incarnation, h.chain, h.running_ms, h.id_first};
    return 0;
}

int snapshot_head(struct snapshot *sn, struct store_head *ret, struct azoth_error *err)
{
    int rc = read_head(sn, ret, err);
    if (!rc)
        ret->chain = (struct chain){0};
    return rc;
}

int snapshot_head_chained(struct snapshot *sn, struct store_head *ret, struct azoth_error *err)
{
    int rc = read_head(sn, ret, err);
    return rc ? rc
              : store_chain_complete(sn->txn, sn->store->lmdb.dbi[DB_EVENTS], &ret->chain,
                                     ret->event, err);
}

int snapshot_chain_start(struct snapshot *sn, struct chain *ret, struct azoth_error *err)
{
    MDB_val k = {5, "chain"}, v;
    int rc = mdb_get(sn->txn, sn->store->lmdb.dbi[DB_META], &k, &v);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return lmdb_error(err, rc, "meta/chain");
    return chain_start_decode(bytes_of_val(v), ret)
               ? error_set(err, AZOTH_ERR_CORRUPT, "meta/chain fails its check")
               : 1;
}

int snapshot_find_id(struct snapshot *sn, const uint8_t id[AZOTH_ID_BYTES], struct txn_result *ret,
                     uint64_t *ret_content, struct azoth_error *err)
{
    MDB_val k = {AZOTH_ID_BYTES, (void *)(uintptr_t)id}, v;
    int rc = mdb_get(sn->txn, sn->store->lmdb.dbi[DB_IDS], &k, &v);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return lmdb_error(err, rc, "ids");
    uint64_t age;
    if (store_id_decode(id, bytes_of_val(v), ret, ret_content, &age))
        return error_set(err, AZOTH_ERR_CORRUPT, "a request id's record fails its check");
    return 1;
}

int store_clear_dead_readers(struct store *s, int *ret_cleared)
{
    int dead = 0;
    int rc = mdb_reader_check(s->lmdb.env, &dead);
    if (rc)
        return lmdb_error(NULL, rc, "readers");
    if (ret_cleared)
        *ret_cleared = dead;
    return 0;
}

struct readers {
    struct store_reader *out;
    uint32_t cap, n;
};

/* LMDB tells its readers as lines of text: pid, thread in hexadecimal, snapshot or "-". */
static int on_reader(const char *line, void *arg)
{
    struct readers *r = arg;
    struct store_reader one = {0};
    char *end;
    one.pid = strtoull(line, &end, 10);
    one.thread = strtoull(end, &end, 16);
    while (*end == ' ')
        end++;
    if (one.pid == 0 || *end < '0' || *end > '9' || r->n == r->cap)
        return 0; /* the heading; one that reads nothing now */
    one.snapshot = strtoull(end, NULL, 10);
    r->out[r->n++] = one;
    return 0;
}

int store_readers(struct store *s, struct store_reader *out, uint32_t cap, uint32_t *ret_n)
{
    struct readers r = {out, cap, 0};
    MDB_envinfo info;
    int rc = mdb_reader_list(s->lmdb.env, on_reader, &r);
    if (rc >= 0)
        rc = mdb_env_info(s->lmdb.env, &info);
    if (rc)
        return lmdb_error(NULL, rc, "readers");
    for (uint32_t i = 0; i < r.n; i++)
        if (info.me_last_txnid > out[i].snapshot)
            out[i].behind = info.me_last_txnid - out[i].snapshot;
    *ret_n = r.n;
    return 0;
}

int store_usage(struct store *s, struct store_usage *ret, struct azoth_error *err)
{
    struct snapshot *sn;
    int rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    MDB_envinfo info;
    MDB_stat state, events, ids, redo = {0};
    struct archived_state archive;
    struct stat st;
    int fd;
    rc = snapshot_archive(sn, &archive, err);
    if (rc) {
        snapshot_end(sn);
        return rc;
    }
    rc = mdb_env_info(s->lmdb.env, &info);
    if (!rc)
        rc = mdb_stat(sn->txn, s->lmdb.dbi[DB_STATE], &state);
    if (!rc)
        rc = mdb_stat(sn->txn, s->lmdb.dbi[DB_EVENTS], &events);
    if (!rc)
        rc = mdb_stat(sn->txn, s->lmdb.dbi[DB_IDS], &ids);
    if (!rc && atomic_load(&s->lmdb.redo_open))
        rc = mdb_stat(sn->txn, s->lmdb.dbi[DB_REDO], &redo);
    if (!rc && (mdb_env_get_fd(s->lmdb.env, &fd) || fstat(fd, &st)))
        rc = errno;
    snapshot_end(sn);
    if (rc)
        return lmdb_error(err, rc, "usage");
    *ret = (struct store_usage){
        .file_bytes = (uint64_t)st.st_size,
        .map_bytes = info.me_mapsize,
        .state_keys = state.ms_entries,
        .events = events.ms_entries + archive.first_in_store - 1,
        .events_archived = archive.first_in_store - 1,
        .ids = ids.ms_entries,
        .redo_records = redo.ms_entries,
        .redo_bytes = (redo.ms_branch_pages + redo.ms_leaf_pages + redo.ms_overflow_pages) *
                      (uint64_t)redo.ms_psize,
        .readers = info.me_numreaders,
        .readers_max = info.me_maxreaders,
    };
    return 0;
}
