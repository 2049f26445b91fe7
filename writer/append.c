/*
 * append.c - the only file that writes the store.
 *
 * Happy path of a batch: begin; for each transaction evaluate all operations against what the batch
 * has made of the state so far, then put; write the batch record; commit. One LMDB transaction, so
 * state, events, ids and the record of what was decided are durable together or not at all.
 *
 * Failure modes
 *   an operation fails          nothing of its transaction was put yet: refused alone (A1)
 *   LMDB is full in the middle  the batch is aborted whole; the caller tries halves
 *   the commit fails with NOSPACE  nothing became visible (the meta page is written last); as above.
 *                               LMDB calls a write that was cut short by a full disk EIO. But
 *                               NOSPACE for the meta page itself is the next case
 *   the commit fails otherwise  what the disk holds is unknown: the process must end (A3)
 *   killed anywhere             the old meta page or the new one counts; the next writer commits a
 *                               write transaction of its own before it believes either (A2)
 *
 * Invariants
 *   A1  no put of a transaction precedes the evaluation of its last operation.
 *   A2  the last batch's record is read inside a write transaction, and that is committed durably
 *       with the record unchanged but for the epoch: a reader's view may lag after a kill between
 *       LMDB's meta page and its reader table.
 *   A3  after an error of unknown effect append answers nothing any more.
 *   A4  event ids are consecutive, transaction ids too, times never decrease.
 *   A5  the chain in the record ends with the batch, or before it when it is large (chaining.h); a writer that
 *       starts or ends in peace leaves one that ends with it.
 */
#include "writer/append.h"

#include "core/clock.h"
#include "core/config.h"
#include "core/crash.h"
#include "core/mark.h"
#include "core/record.h"
#include "core/redo.h"
#include "core/store_lmdb.h"
#include "writer/chaining.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>
#include <xxhash.h>

/* Less than the greatest batch's pages: then a short write is the disk's being full. */
#define NEARLY_FULL_BYTES (16u << 20)

/* One key of the transaction that is being evaluated. */
struct plan_key {
    struct azoth_bytes key; /* borrows the image */
    struct azoth_value value;
    size_t scratch_at; /* where value.enc lies, when in_scratch */
    int in_scratch;
    int existed; /* before the transaction */
    int exists;  /* after the operations so far */
    int touched; /* set or deleted */
};

/* Marks and redo, counted: what is asked for at every transaction and commit. */
struct keep {
    uint32_t marks, wanting; /* all; those that are not broken */
    uint64_t lowest;         /* transaction of the lowest that is not broken, else UINT64_MAX */
    uint64_t version;        /* another one when they were counted anew */
    uint64_t redo_first;     /* transaction of the oldest redo record, else UINT64_MAX */
};

/* Redo records that nobody wants are removed with later commits: so many by each, and twice as many as
 * it has added, so that it comes to an end. */
#define TRIM_RECORDS 64u

struct append {
    struct store *store;
    MDB_env *env;
    MDB_dbi *dbi;
    MDB_txn *txn;
    struct batch_head head;  /* with this batch */
    struct batch_head saved; /* as committed */
    struct keep keep, keep_saved;
    struct mark mark[MARKS_MAX]; /* as of the last count, also of a batch that was undone */
    uint32_t mark_len;
    uint32_t format; /* of the store, as it was found */
    uint64_t opened_ns, running_base_ms;
    uint64_t changes, ids_added, redo_added;
    int dead; /* A3 */

    struct plan_key *plan;
    uint32_t plan_len, plan_cap;
    uint32_t *plan_index; /* open addressing: 0 empty, else position + 1 */
    uint32_t plan_index_len;
    struct chaining *chaining;  /* NULL: the store has no chain */
    struct event_record *event; /* of the transaction that is being put; borrow its image */
    uint32_t event_len, event_cap;
    struct buf scratch;
    struct buf record;
};

/* ---- opening ---- */

/* Behind it nothing is added to the batch; chain_end() says what became of it. */
static int put_head(struct append *a, const struct batch_entry *entries, uint32_t n)
{
    a->head.count = n;
    if (a->chaining)
        chaining_head(a->chaining, &a->head.chain);
    MDB_val k = {4, "head"}, v = {BATCH_HEAD + (size_t)n * BATCH_ENTRY, NULL};
    int rc = mdb_put(a->txn, a->dbi[DB_META], &k, &v, MDB_RESERVE);
    if (rc == 0)
        batch_encode(v.mv_data, &a->head, entries);
    return rc;
}

static void chain_end(struct append *a, int committed)
{
    if (!a->chaining)
        return;
    if (committed)
        chaining_commit(a->chaining);
    else
        chaining_abort(a->chaining);
}

/* A damaged mark wants nothing here: who shows or checks them says that it is damaged. */
static int count_marks(struct append *a)
{
    MDB_cursor *cursor;
    struct keep keep = {
        .lowest = UINT64_MAX, .redo_first = a->keep.redo_first, .version = a->keep.version + 1};
    int rc = mdb_cursor_open(a->txn, a->dbi[DB_META], &cursor);
    if (rc)
        return rc;
    MDB_val k = {5, "mark:"}, v;
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    a->mark_len = 0;
    for (; !rc && mark_is_key(bytes_of_val(k)); rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        struct mark m;
        keep.marks++;
        if (mark_decode(bytes_of_val(k), bytes_of_val(v), &m))
            continue;
        if (a->mark_len < MARKS_MAX)
            a->mark[a->mark_len++] = m;
        if (m.broken)
            continue;
        keep.wanting++;
        if (m.txn < keep.lowest)
            keep.lowest = m.txn;
    }
    mdb_cursor_close(cursor);
    a->keep = keep;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The transaction of the oldest redo record, into *cursor's place; UINT64_MAX when there is none. */
static int first_redo(MDB_cursor *cursor, uint64_t *ret)
{
    MDB_val k, v;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
    *ret = UINT64_MAX;
    if (rc == MDB_NOTFOUND)
        return 0;
    if (!rc && k.mv_size != 8)
        return MDB_CORRUPTED;
    if (!rc)
        *ret = get_be64(k.mv_data);
    return rc;
}

static int count_keep(struct append *a)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(a->txn, a->dbi[DB_REDO], &cursor);
    if (rc)
        return rc;
    rc = first_redo(cursor, &a->keep.redo_first);
    mdb_cursor_close(cursor);
    return rc ? rc : count_marks(a);
}

/* Opens the DBIs inside a write transaction: a read transaction would register a reader (see core/
 * store.c), and after a kill it may see the batch before the last. */
static int open_dbis(struct append *a, struct azoth_error *err)
{
    struct store_lmdb *l = store_lmdb(a->store);
    for (int i = 0; i < DB_COUNT; i++) {
        /* A store of format 1 has no redo: upgrade() wants it, and where it is wanted it is made. */
        unsigned flags = i == DB_REDO ? MDB_CREATE : 0;
        int rc = mdb_dbi_open(a->txn, store_db_name[i], flags, &l->dbi[i]);
        if (rc)
            return rc == MDB_NOTFOUND
                       ? error_set(err, AZOTH_ERR_FORMAT, "this LMDB file is no Azoth database")
                       : lmdb_error(err, rc, store_db_name[i]);
    }
    MDB_val k = {6, "format"}, v;
    int rc = mdb_get(a->txn, a->dbi[DB_META], &k, &v);
    if (rc)
        return error_set(err, AZOTH_ERR_FORMAT, "this LMDB file is no Azoth database");
    uint8_t uuid[16];
    uint64_t created;
    rc = store_format_decode(bytes_of_val(v), uuid, &created, &a->format, err);
    if (rc)
        return rc;
    store_set_identity(a->store, uuid, created);
    return 0;
}

static int put_meta(struct append *a, const char *key, const void *rec, size_t len)
{
    MDB_val k = val_of(bytes_str(key)), v = val_of(bytes_of(rec, len));
    return mdb_put(a->txn, a->dbi[DB_META], &k, &v, 0);
}

/* Format 1 to 2, in the first transaction, with a->head read: the chain begins after its newest event. */
static int upgrade(struct append *a)
{
    unsigned char format[STORE_FORMAT_RECORD], start[CHAIN_RECORD];
    const struct store_identity *id = store_identity(a->store);
    if (a->format == STORE_FORMAT)
        return 0;
    store_format_encode(format, id->uuid, id->created_ns);
    chain_begin(&a->head.chain, id->uuid, a->head.txn, a->head.event);
    chain_start_encode(start, &a->head.chain);
    int rc = put_meta(a, "format", format, sizeof format);
    return rc ? rc : put_meta(a, "chain", start, sizeof start);
}

/* Puts the record of the last batch again: what a->head has now, with the same transactions. */
static int put_head_again(struct append *a, struct azoth_bytes record, struct azoth_error *err)
{
    struct batch_entry *entries = calloc(a->head.count + 1, sizeof *entries);
    if (!entries)
        return error_set(err, AZOTH_ERR_NOMEM, "the batch record");
    for (uint32_t i = 0; i < a->head.count; i++)
        batch_entry_decode(record, i, &entries[i]);
    int rc = put_head(a, entries, a->head.count);
    free(entries);
    return rc ? lmdb_error(err, rc, "meta/head") : 0;
}

static int read_record(struct append *a, struct buf *ret, struct azoth_error *err)
{
    MDB_val k = {4, "head"}, v;
    int rc = mdb_get(a->txn, a->dbi[DB_META], &k, &v);
    if (rc)
        return lmdb_error(err, rc, "meta/head");
    rc = batch_decode(bytes_of_val(v), &a->head);
    if (rc)
        return error_set(err, rc, "meta/head fails its check");
    buf_clear(ret);
    return buf_add(ret, v.mv_data, v.mv_size) ? error_set(err, AZOTH_ERR_NOMEM, "the batch record")
                                              : 0;
}

/* From where the last writer's chain ended: with the last batch, or before it. */
static int begin_chain(struct append *a, struct azoth_error *err)
{
    int rc = store_chain_complete(a->txn, a->dbi[DB_EVENTS], &a->head.chain, a->head.event, err);
    if (rc || !a->head.chain.on)
        return rc;
    a->chaining = chaining_new(&a->head.chain);
    return a->chaining ? 0 : error_set(err, AZOTH_ERR_NOMEM, "the hash chain");
}

/* Raises the epoch in the record of the last batch and leaves the rest of it as it is, but for its format and for the
 * chain, where that trailed. */
static int raise_epoch(struct append *a, struct buf *ret_record, struct azoth_error *err)
{
    int rc = read_record(a, ret_record, err);
    if (rc)
        return rc;
    a->head.epoch++;
    rc = upgrade(a);
    if (rc)
        return lmdb_error(err, rc, "meta/format");
    rc = begin_chain(a, err);
    return rc ? rc : put_head_again(a, buf_bytes(ret_record), err);
}

int append_open(struct store *s, uint32_t sync, struct append **ret, struct buf *ret_record,
                struct azoth_error *err)
{
    struct append *a = calloc(1, sizeof *a);
    if (!a)
        return error_set(err, AZOTH_ERR_NOMEM, "the writer");
    struct store_lmdb *l = store_lmdb(s);
    a->store = s;
    a->env = l->env;
    a->dbi = l->dbi;
    int rc = mdb_txn_begin(a->env, NULL, 0, &a->txn);
    if (rc) {
        rc = lmdb_error(err, rc, "the first write transaction");
        goto fail;
    }
    rc = open_dbis(a, err);
    if (!rc)
        rc = raise_epoch(a, ret_record, err);
    int counted = rc ? 0 : count_keep(a);
    if (counted)
        rc = lmdb_error(err, counted, "marks and redo");
    if (rc) {
        mdb_txn_abort(a->txn);
        goto fail;
    }
    rc = mdb_txn_commit(a->txn); /* durable: the lazier modes are set below */
    a->txn = NULL;
    chain_end(a, !rc);
    if (rc) {
        rc = lmdb_error(err, rc, "the first commit");
        goto fail;
    }
    atomic_store(&l->redo_open, 1);
    l->dbis_open = 1;
    unsigned lazy = sync == CONFIG_SYNC_NONE        ? MDB_NOSYNC
                    : sync == CONFIG_SYNC_META_LAZY ? MDB_NOMETASYNC
                                                    : 0;
    if (lazy)
        mdb_env_set_flags(a->env, lazy, 1);
    a->saved = a->head;
    a->keep_saved = a->keep;
    a->opened_ns = clock_mono_ns();
    a->running_base_ms = a->head.running_ms;
    *ret = a;
    return 0;
fail:
    chaining_free(a->chaining);
    free(a);
    return rc;
}

/* A writer that ends in peace leaves a record whose chain has all: what is changed in the file from then on shows. What
 * fails here the next writer's start makes good. */
static void complete_record(struct append *a)
{
    struct buf record = {0};
    if (a->dead || !a->chaining || !chaining_trails(a->chaining) ||
        mdb_txn_begin(a->env, NULL, 0, &a->txn))
        return;
    int rc = read_record(a, &record, NULL);
    if (!rc)
        rc = put_head_again(a, buf_bytes(&record), NULL);
    if (rc)
        mdb_txn_abort(a->txn);
    else
        mdb_txn_commit(a->txn);
    a->txn = NULL;
    buf_fini(&record);
}

void append_close(struct append *a)
{
    if (!a)
        return;
    if (a->txn)
        append_abort(a);
    complete_record(a);
    if (!a->dead)
        mdb_env_sync(a->env, 1); /* for the lazier modes */
    mdb_env_set_flags(a->env, MDB_NOSYNC | MDB_NOMETASYNC, 0);
    chaining_free(a->chaining);
    free(a->plan);
    free(a->plan_index);
    free(a->event);
    buf_fini(&a->scratch);
    buf_fini(&a->record);
    free(a);
}

int append_incarnation(struct append *a, uint64_t incarnation, struct azoth_error *err)
{
    int rc = mdb_txn_begin(a->env, NULL, 0, &a->txn);
    if (rc)
        return lmdb_error(err, rc, "incarnation");
    a->head.incarnation = incarnation;
    rc = put_head(a, NULL, 0);
    if (rc)
        mdb_txn_abort(a->txn);
    else
        rc = mdb_txn_commit(a->txn);
    a->txn = NULL;
    chain_end(a, !rc);
    if (!rc)
        rc = mdb_env_sync(a->env, 1);
    if (rc)
        return lmdb_error(err, rc, "incarnation");
    a->saved = a->head;
    return 0;
}

const struct batch_head *append_head(const struct append *a)
{
    return &a->head;
}

uint64_t append_changes(const struct append *a)
{
    return a->changes;
}

/* ---- a batch ---- */

int append_begin(struct append *a, int64_t wall_ns, uint64_t mono_ns, struct azoth_error *err)
{
    if (a->dead)
        return error_set(err, AZOTH_ERR_IO, "an earlier commit failed: this writer must end");
    int rc = mdb_txn_begin(a->env, NULL, 0, &a->txn);
    if (rc)
        return lmdb_error(err, rc, "a batch");
    a->head = a->saved;
    a->keep = a->keep_saved;
    a->changes = 0;
    a->ids_added = 0;
    a->redo_added = 0;
    if (wall_ns > a->head.time_ns)
        a->head.time_ns = wall_ns;
    if (mono_ns > a->opened_ns)
        a->head.running_ms = a->running_base_ms + (mono_ns - a->opened_ns) / NS_PER_MS;
    return 0;
}

void append_abort(struct append *a)
{
    if (a->txn)
        mdb_txn_abort(a->txn);
    a->txn = NULL;
    chain_end(a, 0);
    a->head = a->saved;
    a->keep = a->keep_saved;
    a->changes = 0;
}

/* LMDB answers EIO when a page was written in part, which is what a disk that runs full does. The
 * meta page was not written then; had it been tried and failed, the environment would be unusable.
 */
static int cut_short_by_full_disk(struct append *a)
{
    struct statvfs fs;
    int fd;
    return mdb_env_get_fd(a->env, &fd) == 0 && fstatvfs(fd, &fs) == 0 &&
           (uint64_t)fs.f_bavail * fs.f_frsize <= NEARLY_FULL_BYTES;
}

/* LMDB begins no transaction any more after a meta page that failed: whether that one reached the disk
 * is unknown, whatever the error was called. */
static int meta_was_tried(struct append *a)
{
    MDB_txn *probe;
    if (mdb_txn_begin(a->env, NULL, 0, &probe))
        return 1;
    mdb_txn_abort(probe);
    return 0;
}

int append_commit(struct append *a, const struct batch_entry *entries, uint32_t n,
                  struct azoth_error *err)
{
    int rc = put_head(a, entries, n);
    if (rc) {
        append_abort(a);
        return lmdb_error(err, rc, "meta/head");
    }
    rc = mdb_txn_commit(a->txn);
    a->txn = NULL;
    chain_end(a, !rc);
    if (rc == 0) {
        a->saved = a->head;
        a->keep_saved = a->keep;
        return 0;
    }
    a->head = a->saved;
    a->keep = a->keep_saved;
    if (rc == EIO && cut_short_by_full_disk(a))
        rc = ENOSPC;
    int code = lmdb_error(err, rc, "commit");
    if (code == AZOTH_ERR_NOSPACE && meta_was_tried(a))
        code = error_foreign(err, AZOTH_ERR_IO, rc, "the meta page: %s", mdb_strerror(rc));
    if (code != AZOTH_ERR_NOSPACE)
        a->dead = 1;
    return code;
}

/* ---- evaluation ---- */

static int plan_reset(struct append *a, uint32_t items)
{
    if (items > a->plan_cap) {
        uint32_t cap = a->plan_cap ? a->plan_cap : 64;
        while (cap < items)
            cap *= 2;
        struct plan_key *plan = realloc(a->plan, cap * sizeof *plan);
        if (!plan)
            return AZOTH_ERR_NOMEM;
        a->plan = plan;
        uint32_t *index = realloc(a->plan_index, 2 * (size_t)cap * sizeof *index);
        if (!index)
            return AZOTH_ERR_NOMEM;
        a->plan_index = index;
        a->plan_cap = cap;
    }
    uint32_t len = 8;
    while (len < 2 * items)
        len *= 2;
    if (len > 2 * a->plan_cap)
        len = 2 * a->plan_cap;
    a->plan_index_len = len;
    memset(a->plan_index, 0, len * sizeof *a->plan_index);
    a->plan_len = 0;
    buf_clear(&a->scratch);
    return 0;
}

/* The key's entry, with its present value on first use. NULL: *ret_rc says why. */
static struct plan_key *plan_of(struct append *a, struct azoth_bytes key, int *ret_rc)
{
    uint32_t at = (uint32_t)XXH3_64bits(key.ptr, key.len) & (a->plan_index_len - 1);
    for (; a->plan_index[at]; at = (at + 1) & (a->plan_index_len - 1)) {
        struct plan_key *p = &a->plan[a->plan_index[at] - 1];
        if (bytes_eq(p->key, key)) {
            if (p->in_scratch)
                p->value.enc.ptr = a->scratch.ptr + p->scratch_at;
            return p;
        }
    }
    struct plan_key p = {.key = key};
    MDB_val k = val_of(key), v;
    int rc = mdb_get(a->txn, a->dbi[DB_STATE], &k, &v);
    if (rc == 0) {
        struct state_record st;
        *ret_rc = record_state_decode(key, bytes_of_val(v), &st);
        if (*ret_rc)
            return NULL;
        p.value = st.value;
        p.existed = p.exists = 1;
    } else if (rc != MDB_NOTFOUND) {
        *ret_rc = lmdb_error(NULL, rc, "get");
        return NULL;
    }
    a->plan[a->plan_len] = p;
    a->plan_index[at] = ++a->plan_len;
    return &a->plan[a->plan_len - 1];
}

/* What an operation starts from when its key is not there. */
static struct azoth_value nothing(uint32_t kind, uint32_t type)
{
    static const unsigned char zeros[32];
    switch (kind) {
    case TXN_ADD:
        return (struct azoth_value){type, {zeros, type == AZOTH_TYPE_I64 ? 8 : 32}};
    case TXN_ARRAY_PUSH:
        return (struct azoth_value){AZOTH_TYPE_ARRAY, {zeros, 4}};
    default:
        return (struct azoth_value){AZOTH_TYPE_SET, {zeros, 4}};
    }
}

static int compute(struct append *a, const struct txn_item *it, struct azoth_value from,
                   struct azoth_value *ret)
{
    switch (it->kind) {
    case TXN_ADD:
        return value_add(&a->scratch, from, txn_item_value(it), ret);
    case TXN_SET_ADD:
        return value_set_add(&a->scratch, from, it->value, ret, NULL);
    case TXN_SET_REMOVE:
        return value_set_remove(&a->scratch, from, it->value, ret, NULL);
    default:
        return value_array_push(&a->scratch, from, it->value, ret);
    }
}

static int evaluate_one(struct append *a, const struct txn_item *it, struct txn_result *res)
{
    int rc = 0;
    struct plan_key *p = plan_of(a, it->key, &rc);
    if (!p)
        return rc;
    if (it->kind == TXN_DELETE) {
        if (!p->exists)
            res->keys_missing++;
        p->exists = 0;
        p->touched = 1;
        return 0;
    }
    if (it->kind == TXN_SET) {
        p->value = txn_item_value(it);
        p->in_scratch = 0;
    } else {
        struct azoth_value v;
        rc = compute(a, it, p->exists ? p->value : nothing(it->kind, it->type), &v);
        if (!rc && v.enc.len > AZOTH_VALUE_MAX)
            rc = AZOTH_ERR_VALUE_SIZE;
        if (rc)
            return rc;
        p->value = v;
        p->in_scratch = 1;
        p->scratch_at = a->scratch.len - v.enc.len;
    }
    p->exists = 1;
    p->touched = 1;
    return 0;
}

/* Evaluates every operation; *ret_events counts events. */
static int evaluate(struct append *a, struct azoth_bytes image, struct txn_result *res,
                    uint32_t *ret_events, struct azoth_error *detail)
{
    size_t at = 0;
    struct txn_item it;
    *ret_events = 0;
    while (txn_next(image, &at, &it)) {
        if (it.kind == TXN_EVENT)
            ++*ret_events;
        if (!txn_kind_is_operation(it.kind))
            continue;
        int rc = evaluate_one(a, &it, res);
        if (rc) {
            char key[80];
            return error_set(detail, rc, "%s on key %s: %s", txn_kind_name(it.kind),
                             bytes_print(it.key, key, sizeof key), azoth_code_sentence(rc));
        }
    }
    return 0;
}

/* ---- putting ---- */

static int put_state(struct append *a, struct txn_result *res)
{
    for (uint32_t i = 0; i < a->plan_len; i++) {
        struct plan_key *p = &a->plan[i];
        MDB_val k = val_of(p->key);
        int rc = 0;
        if (p->touched && p->exists) {
            if (p->in_scratch)
                p->value.enc.ptr = a->scratch.ptr + p->scratch_at;
            MDB_val v = {record_state_size(p->value.enc.len), NULL};
            rc = mdb_put(a->txn, a->dbi[DB_STATE], &k, &v, MDB_RESERVE);
            if (!rc)
                record_state_encode(v.mv_data, p->key, res->txn, p->value);
            res->keys_written++;
        } else if (p->touched && p->existed) {
            rc = mdb_del(a->txn, a->dbi[DB_STATE], &k, NULL);
            res->keys_deleted++;
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* Room for a transaction's events, which the chain wants together. */
static int events_reset(struct append *a, uint32_t events)
{
    if (events > a->event_cap) {
        uint32_t cap = a->event_cap ? a->event_cap : 64;
        while (cap < events)
            cap *= 2;
        struct event_record *ev = realloc(a->event, cap * sizeof *ev);
        if (!ev)
            return AZOTH_ERR_NOMEM;
        a->event = ev;
        a->event_cap = cap;
    }
    a->event_len = 0;
    return 0;
}

static int put_events(struct append *a, struct azoth_bytes image, struct txn_result *res)
{
    size_t at = 0;
    struct txn_item it;
    while (txn_next(image, &at, &it)) {
        if (it.kind != TXN_EVENT)
            continue;
        struct event_record ev = {
            .id = a->head.event + 1,
            .txn = res->txn,
            .time_ns = a->head.time_ns,
            .type = it.name,
            .key = it.key,
            .metadata = it.metadata,
            .payload = it.value,
        };
        unsigned char id[8];
        put_be64(id, ev.id);
        MDB_val k = {8, id}, v = {record_event_size(&ev), NULL};
        int rc = mdb_put(a->txn, a->dbi[DB_EVENTS], &k, &v, MDB_RESERVE | MDB_APPEND);
        if (rc)
            return rc;
        record_event_encode(v.mv_data, &ev);
        a->event[a->event_len++] = ev;
        a->head.event = ev.id;
        if (!res->first_event)
            res->first_event = ev.id;
        res->last_event = ev.id;
    }
    if (a->chaining && a->event_len && chaining_add(a->chaining, a->event, a->event_len))
        return ENOMEM;
    return 0;
}

static int put_id(struct append *a, const uint8_t *id, uint64_t content,
                  const struct txn_result *res)
{
    uint64_t age = a->head.id_next++;
    unsigned char rec[STORE_ID_RECORD], order[8], aged[AZOTH_ID_BYTES + 8];
    store_id_encode(rec, id, res, content, age);
    MDB_val k = {AZOTH_ID_BYTES, (void *)(uintptr_t)id}, v = {sizeof rec, rec};
    int rc = mdb_put(a->txn, a->dbi[DB_IDS], &k, &v, MDB_NOOVERWRITE);
    if (rc)
        return rc;
    put_be64(order, age);
    memcpy(aged, id, AZOTH_ID_BYTES);
    put_u64(aged + AZOTH_ID_BYTES, a->head.running_ms);
    MDB_val ok = {8, order}, ov = {sizeof aged, aged};
    a->ids_added++;
    return mdb_put(a->txn, a->dbi[DB_IDS_AGE], &ok, &ov, MDB_APPEND);
}

/* ---- redo ---- */

/* Marks at or below this transaction are broken from now on: what they wanted is not kept. */
static int break_marks(struct append *a, uint64_t upto)
{
    MDB_cursor *cursor;
    struct mark found[MARKS_MAX];
    uint32_t n = 0;
    int rc = mdb_cursor_open(a->txn, a->dbi[DB_META], &cursor);
    if (rc)
        return rc;
    MDB_val k = {5, "mark:"}, v;
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    for (; !rc && mark_is_key(bytes_of_val(k)) && n < MARKS_MAX;
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))
        if (mark_decode(bytes_of_val(k), bytes_of_val(v), &found[n]) == 0 && !found[n].broken &&
            found[n].txn <= upto)
            n++;
    mdb_cursor_close(cursor);
    rc = rc == MDB_NOTFOUND ? 0 : rc;
    for (uint32_t i = 0; i < n && !rc; i++) {
        char key[MARK_KEY + 1];
        unsigned char rec[MARK_RECORD];
        found[i].broken = 1;
        mark_key(key, found[i].place);
        mark_encode(rec, &found[i]);
        rc = put_meta(a, key, rec, sizeof rec);
    }
    return rc ? rc : count_marks(a);
}

static size_t redo_ops(const struct append *a, uint32_t *ret_ops)
{
    size_t size = REDO_HEADER;
    *ret_ops = 0;
    for (uint32_t i = 0; i < a->plan_len; i++) {
        const struct plan_key *p = &a->plan[i];
        if (!p->touched || (!p->exists && !p->existed))
            continue;
        size += redo_op_size(p->key.len, p->exists ? p->value.enc.len : 0);
        ++*ret_ops;
    }
    return size;
}

/* What put_state() has done: the values that it left in the plan. */
static int put_redo(struct append *a, const uint8_t *id, uint64_t content,
                    const struct txn_result *res)
{
    struct redo_record r = {
        .txn = res->txn,
        .time_ns = a->head.time_ns,
        .first_event = res->first_event,
        .last_event = res->last_event,
        .running_ms = a->head.running_ms,
        .id_first = a->head.id_first,
        .has_id = id != NULL,
        .id_age = id ? a->head.id_next - 1 : 0,
        .content = content,
        .keys_written = res->keys_written,
        .keys_deleted = res->keys_deleted,
        .keys_missing = res->keys_missing,
    };
    unsigned char key[8];
    size_t size = redo_ops(a, &r.ops);
    if (size > REDO_RECORD_MAX)
        return break_marks(a, UINT64_MAX);
    if (id)
        memcpy(r.id, id, sizeof r.id);
    put_be64(key, res->txn);
    MDB_val k = {8, key}, v = {size, NULL};
    int rc = mdb_put(a->txn, a->dbi[DB_REDO], &k, &v, MDB_RESERVE | MDB_APPEND);
    if (rc)
        return rc;
    unsigned char *to = redo_put_header(v.mv_data, &r);
    for (uint32_t i = 0; i < a->plan_len; i++) {
        const struct plan_key *p = &a->plan[i];
        if (p->touched && (p->exists || p->existed))
            to = redo_put_op(to, &(struct redo_op){p->key, !p->exists, p->value});
    }
    redo_seal(v.mv_data, size, res->txn);
    if (a->keep.redo_first == UINT64_MAX)
        a->keep.redo_first = res->txn;
    a->redo_added++;
    return 0;
}

/* 1: the id was committed before (*ret_code, *ret); 0: not; else LMDB failed. */
static int seen_before(struct append *a, const uint8_t *id, uint64_t content, int *ret_code,
                       struct txn_result *ret, struct azoth_error *detail)
{
    MDB_val k = {AZOTH_ID_BYTES, (void *)(uintptr_t)id}, v;
    int rc = mdb_get(a->txn, a->dbi[DB_IDS], &k, &v);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return lmdb_error(detail, rc, "ids");
    uint64_t first_content, age;
    if (store_id_decode(id, bytes_of_val(v), ret, &first_content, &age))
        *ret_code = error_set(detail, AZOTH_ERR_CORRUPT, "a request id's record fails its check");
    else if (first_content != content)
        *ret_code = error_set(detail, AZOTH_ERR_ID_REUSED,
                              "this id was committed as transaction %llu with another content",
                              (unsigned long long)ret->txn);
    else
        *ret_code = 0;
    return 1;
}

int append_apply(struct append *a, struct azoth_bytes image, const uint8_t *id, uint64_t content,
                 int *ret_code, struct txn_result *ret, struct azoth_error *detail)
{
    struct txn_result res = {0};
    uint32_t events;
    *ret = res;
    if (id) {
        int seen = seen_before(a, id, content, ret_code, ret, detail);
        if (seen)
            return seen < 0 ? seen : 0;
    }
    if (plan_reset(a, txn_items(image) + 1))
        return error_set(detail, AZOTH_ERR_NOMEM, "a transaction's plan");
    int rc = evaluate(a, image, &res, &events, detail);
    /* What the machine could not do is no verdict on the transaction. */
    if (rc == AZOTH_ERR_NOMEM || rc == AZOTH_ERR_IO)
        return rc;
    *ret_code = rc;
    if (rc)
        return 0;
    if (events_reset(a, events))
        return error_set(detail, AZOTH_ERR_NOMEM, "a transaction's events");
    res.txn = a->head.txn + 1;
    rc = put_state(a, &res);
    if (!rc)
        rc = put_events(a, image, &res);
    if (!rc && id)
        rc = put_id(a, id, content, &res);
    if (!rc && a->keep.wanting)
        rc = put_redo(a, id, content, &res);
    if (rc)
        return lmdb_error(detail, rc, "put");
    a->head.txn = res.txn;
    a->changes++;
    *ret = res;
    return 0;
}

/* ---- meta, for control ---- */

int append_meta_get(struct append *a, struct azoth_bytes key, struct azoth_bytes *ret,
                    struct azoth_error *err)
{
    MDB_val k = val_of(key), v;
    int rc = mdb_get(a->txn, a->dbi[DB_META], &k, &v);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return lmdb_error(err, rc, "meta");
    *ret = bytes_of_val(v);
    return 1;
}

static int meta_changed(struct append *a, int rc, struct azoth_bytes key, struct azoth_error *err)
{
    if (!rc && mark_is_key(key))
        rc = count_marks(a);
    if (rc)
        return lmdb_error(err, rc, "meta");
    a->changes++;
    return 0;
}

int append_meta_put(struct append *a, struct azoth_bytes key, struct azoth_bytes rec,
                    struct azoth_error *err)
{
    MDB_val k = val_of(key), v = val_of(rec);
    return meta_changed(a, mdb_put(a->txn, a->dbi[DB_META], &k, &v, 0), key, err);
}

int append_meta_del(struct append *a, struct azoth_bytes key, struct azoth_error *err)
{
    MDB_val k = val_of(key);
    int rc = mdb_del(a->txn, a->dbi[DB_META], &k, NULL);
    return rc == MDB_NOTFOUND ? 0 : meta_changed(a, rc, key, err);
}

uint32_t append_marks(const struct append *a)
{
    return a->keep.marks;
}

uint32_t append_mark_list(const struct append *a, const struct mark **ret, uint64_t *ret_version)
{
    *ret = a->mark;
    *ret_version = a->keep.version;
    return a->mark_len;
}

/* ---- what is not wanted any more ---- */

/* Over its limit, redo loses the lowest mark, and then what that one alone wanted. */
static int keep_redo_small(struct append *a, uint64_t bytes)
{
    MDB_stat st;
    int rc = mdb_stat(a->txn, a->dbi[DB_REDO], &st);
    if (rc)
        return rc;
    uint64_t pages = st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages;
    return pages * st.ms_psize > bytes ? break_marks(a, a->keep.lowest) : 0;
}

static int remove_redo(struct append *a)
{
    MDB_cursor *cursor;
    uint64_t most = TRIM_RECORDS + 2 * a->redo_added;
    int rc = mdb_cursor_open(a->txn, a->dbi[DB_REDO], &cursor);
    if (rc)
        return rc;
    for (uint64_t i = 0; !rc; i++) {
        rc = first_redo(cursor, &a->keep.redo_first);
        if (rc || a->keep.redo_first == UINT64_MAX || a->keep.redo_first > a->keep.lowest ||
            i == most)
            break;
        rc = mdb_cursor_del(cursor, 0);
    }
    mdb_cursor_close(cursor);
    CRASH_POINT(redo_trimmed);
    return rc;
}

int append_trim_redo(struct append *a, const struct append_limits *l, struct azoth_error *err)
{
    int rc = 0;
    if (a->keep.redo_first == UINT64_MAX)
        return 0;
    /* Only when nothing is left to remove: what is being removed already is not another mark's fault. */
    if (a->keep.wanting && a->keep.redo_first > a->keep.lowest)
        rc = keep_redo_small(a, l->redo_bytes);
    if (!rc && a->keep.redo_first <= a->keep.lowest)
        rc = remove_redo(a);
    return rc ? lmdb_error(err, rc, "redo") : 0;
}

int append_delete_events(struct append *a, uint64_t *first, uint64_t last, uint32_t events,
                         size_t bytes, struct azoth_error *err)
{
    MDB_cursor *cursor;
    uint64_t next = *first;
    size_t gone = 0;
    int rc = mdb_cursor_open(a->txn, a->dbi[DB_EVENTS], &cursor);
    if (rc)
        return lmdb_error(err, rc, "events");
    for (uint32_t n = 0; !rc && n < events && gone < bytes && next <= last; n++) {
        MDB_val k, v;
        /* From the root each time: what a delete leaves of a cursor's place is subtle, and this is cheap. */
        rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
        if (rc == MDB_NOTFOUND || (!rc && (k.mv_size != 8 || get_be64(k.mv_data) != next))) {
            rc = 0;
            break;
        }
        gone += rc ? 0 : v.mv_size;
        if (!rc)
            rc = mdb_cursor_del(cursor, 0);
        next += rc == 0;
    }
    mdb_cursor_close(cursor);
    if (rc)
        return lmdb_error(err, rc, "events");
    if (next == *first)
        return error_set(err, AZOTH_ERR_GAP, "event %llu is not the first one in LMDB",
                         (unsigned long long)next);
    *first = next;
    a->changes++;
    return 0;
}

int append_expire_ids(struct append *a, const struct append_limits *l, struct azoth_error *err)
{
    uint64_t most = 2 * a->ids_added + 2;
    for (uint64_t i = 0; i < most && a->head.id_first < a->head.id_next; i++) {
        unsigned char order[8];
        put_be64(order, a->head.id_first);
        MDB_val k = {8, order}, v;
        int rc = mdb_get(a->txn, a->dbi[DB_IDS_AGE], &k, &v);
        if (rc)
            return lmdb_error(err, rc, "ids_age");
        if (v.mv_size != AZOTH_ID_BYTES + 8)
            return error_set(err, AZOTH_ERR_CORRUPT, "an entry of ids_age has %zu bytes",
                             v.mv_size);
        uint8_t id[AZOTH_ID_BYTES];
        memcpy(id, v.mv_data, sizeof id);
        uint64_t born_ms = get_u64((const unsigned char *)v.mv_data + AZOTH_ID_BYTES);
        int old = a->head.running_ms - born_ms > l->id_time_ms;
        if (!old && a->head.id_next - a->head.id_first <= l->id_count)
            return 0;
        MDB_val ik = {AZOTH_ID_BYTES, id};
        rc = mdb_del(a->txn, a->dbi[DB_IDS], &ik, NULL);
        if (!rc || rc == MDB_NOTFOUND)
            rc = mdb_del(a->txn, a->dbi[DB_IDS_AGE], &k, NULL);
        if (rc)
            return lmdb_error(err, rc, "ids");
        a->head.id_first++;
    }
    return 0;
}
