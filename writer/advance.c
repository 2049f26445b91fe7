/*
 * advance.c - applies redo records and events to a store that is not one yet.
 *
 * Happy path: per part one LMDB transaction or some; in each, per entry: ids that had expired until then go, the
 * after-images, the events and the id of the transaction are put, the chain is extended; the batch record last. That
 * the counters before an entry are those that its transaction found makes the ids exact.
 *
 * Invariants
 *   V1  transaction n + 1 is applied to a store that stands at n, or not at all.
 *   V2  nothing of an entry is put before all of it was checked.
 */
#include "writer/advance.h"

#include "core/error.h"
#include "core/store_lmdb.h"
#include "writer/increment.h"

#include <string.h>

/* Keys that are changed within one LMDB transaction, about: its dirty pages are memory. */
#define CHANGES_MOST 50000u

struct advance {
    MDB_env *env;
    MDB_dbi dbi[DB_COUNT];
    MDB_txn *txn;
    struct batch_head head;
    struct chain
        before; /* while entries are passed over that the store has: where it was after the last of them */
    uint64_t passed;  /* transaction of that; the head's when none is to be passed over */
    uint64_t changes; /* in txn */
    struct buf events;
};

/* ---- opening ---- */

static int read_own(struct advance *a, struct azoth_error *err)
{
    uint8_t uuid[16];
    uint64_t created;
    uint32_t format;
    MDB_val k = {6, "format"}, v, hk = {4, "head"}, hv;
    int rc = mdb_get(a->txn, a->dbi[DB_META], &k, &v);
    if (!rc)
        rc = mdb_get(a->txn, a->dbi[DB_META], &hk, &hv);
    if (rc)
        return lmdb_error(err, rc, "the restored store");
    rc = store_format_decode(bytes_of_val(v), uuid, &created, &format, err);
    if (!rc && format != STORE_FORMAT)
        rc =
            error_set(err, AZOTH_ERR_FORMAT,
                      "a store of format %u has no incremental backups that come after it", format);
    if (!rc && batch_decode(bytes_of_val(hv), &a->head))
        rc = error_set(err, AZOTH_ERR_CORRUPT, "meta/head fails its check");
    a->passed = a->head.txn;
    return rc ? rc
              : store_chain_complete(a->txn, a->dbi[DB_EVENTS], &a->head.chain, a->head.event, err);
}

static int begin(struct advance *a, struct azoth_error *err)
{
    int rc = mdb_txn_begin(a->env, NULL, 0, &a->txn);
    a->changes = 0;
    return rc ? lmdb_error(err, rc, "the restored store") : 0;
}

/* The batch record of a batch without answers, and the commit. */
static int commit(struct advance *a, struct azoth_error *err)
{
    unsigned char head[BATCH_HEAD];
    a->head.count = 0;
    batch_encode(head, &a->head, NULL);
    MDB_val k = {4, "head"}, v = {sizeof head, head};
    MDB_txn *txn = a->txn;
    int rc = mdb_put(txn, a->dbi[DB_META], &k, &v, 0);
    a->txn = NULL;
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = mdb_txn_commit(txn);
    return rc ? lmdb_error(err, rc, "the restored store") : 0;
}

static int open_dbis(struct advance *a, struct azoth_error *err)
{
    for (int i = 0; i < DB_COUNT; i++) {
        int rc = mdb_dbi_open(a->txn, store_db_name[i], i == DB_REDO ? MDB_CREATE : 0, &a->dbi[i]);
        if (rc)
            return lmdb_error(err, rc, store_db_name[i]);
    }
    return read_own(a, err);
}

int advance_open(const char *path, struct advance **ret, struct azoth_error *err)
{
    struct advance *a = calloc(1, sizeof *a);
    if (!a)
        return error_set(err, AZOTH_ERR_NOMEM, "a restore");
    /* Durable at the end, all at once. */
    int rc = lmdb_env_open(path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, &a->env, err);
    if (!rc)
        rc = begin(a, err);
    if (!rc)
        rc = open_dbis(a, err);
    if (!rc)
        rc = commit(a, err);
    if (rc) {
        advance_abort(a);
        return rc;
    }
    *ret = a;
    return 0;
}

void advance_abort(struct advance *a)
{
    if (!a)
        return;
    if (a->txn)
        mdb_txn_abort(a->txn);
    if (a->env)
        mdb_env_close(a->env);
    buf_fini(&a->events);
    free(a);
}

int advance_finish(struct advance *a, struct azoth_error *err)
{
    int rc = mdb_env_sync(a->env, 1);
    advance_abort(a);
    return rc ? lmdb_error(err, rc, "the restored store") : 0;
}

const struct batch_head *advance_head(const struct advance *a)
{
    return &a->head;
}

/* ---- an entry ---- */

static int put_state(struct advance *a, const struct redo_record *r)
{
    struct redo_op op;
    size_t at = 0;
    while (redo_next(r, &at, &op)) {
        MDB_val k = val_of(op.key), v = {record_state_size(op.value.enc.len), NULL};
        int rc = op.deleted ? mdb_del(a->txn, a->dbi[DB_STATE], &k, NULL)
                            : mdb_put(a->txn, a->dbi[DB_STATE], &k, &v, MDB_RESERVE);
        if (rc)
            return rc;
        if (!op.deleted)
            record_state_encode(v.mv_data, op.key, r->txn, op.value);
        a->changes++;
    }
    return 0;
}

static int put_events(struct advance *a, struct azoth_bytes frames)
{
    struct event_record ev;
    size_t at = 0, from = 0;
    while (record_frame_next(frames, &at, &ev, NULL) == 1) {
        const unsigned char *frame = (const unsigned char *)frames.ptr + from;
        unsigned char id[8];
        put_be64(id, ev.id);
        MDB_val k = {8, id}, v = {at - from - RECORD_FRAME_HEADER,
                                  (void *)(uintptr_t)(frame + RECORD_FRAME_HEADER)};
        int rc = mdb_put(a->txn, a->dbi[DB_EVENTS], &k, &v, MDB_APPEND);
        if (rc)
            return rc;
        from = at;
        a->changes++;
    }
    return 0;
}

static int put_id(struct advance *a, const struct redo_record *r)
{
    const struct txn_result res = {.txn = r->txn,
                                   .first_event = r->first_event,
                                   .last_event = r->last_event,
                                   .keys_written = r->keys_written,
                                   .keys_deleted = r->keys_deleted,
                                   .keys_missing = r->keys_missing};
    unsigned char rec[STORE_ID_RECORD], order[8], aged[AZOTH_ID_BYTES + 8];
    store_id_encode(rec, r->id, &res, r->content, r->id_age);
    MDB_val k = {AZOTH_ID_BYTES, (void *)(uintptr_t)r->id}, v = {sizeof rec, rec};
    int rc = mdb_put(a->txn, a->dbi[DB_IDS], &k, &v, MDB_NOOVERWRITE);
    if (rc)
        return rc;
    put_be64(order, r->id_age);
    memcpy(aged, r->id, AZOTH_ID_BYTES);
    put_u64(aged + AZOTH_ID_BYTES, r->running_ms);
    MDB_val ok = {8, order}, ov = {sizeof aged, aged};
    a->head.id_next = r->id_age + 1;
    return mdb_put(a->txn, a->dbi[DB_IDS_AGE], &ok, &ov, MDB_APPEND);
}

/* Ids older than this had expired. */
static int expire(struct advance *a, uint64_t id_first)
{
    for (; a->head.id_first < id_first; a->head.id_first++) {
        unsigned char order[8], id[AZOTH_ID_BYTES];
        put_be64(order, a->head.id_first);
        MDB_val k = {8, order}, v, ik = {sizeof id, id};
        int rc = mdb_get(a->txn, a->dbi[DB_IDS_AGE], &k, &v);
        if (!rc && v.mv_size < sizeof id)
            rc = MDB_CORRUPTED;
        if (rc)
            return rc;
        memcpy(id, v.mv_data, sizeof id);
        rc = mdb_del(a->txn, a->dbi[DB_IDS], &ik, NULL);
        if (!rc || rc == MDB_NOTFOUND)
            rc = mdb_del(a->txn, a->dbi[DB_IDS_AGE], &k, NULL);
        if (rc)
            return rc;
        a->changes++;
    }
    return 0;
}

/* V1, V2: what the record's own checks do not see. */
static int check_entry(const struct advance *a, const struct redo_record *r,
                       struct azoth_error *err)
{
    const struct batch_head *h = &a->head;
    unsigned long long txn = r->txn;
    if (r->txn != h->txn + 1)
        return error_set(err, AZOTH_ERR_GAP, "transaction %llu follows transaction %llu", txn,
                         (unsigned long long)h->txn);
    if (r->last_event && r->first_event != h->event + 1)
        return error_set(err, AZOTH_ERR_GAP, "transaction %llu: event %llu follows event %llu", txn,
                         (unsigned long long)r->first_event, (unsigned long long)h->event);
    if (r->time_ns < h->time_ns || r->running_ms < h->running_ms || r->id_first < h->id_first ||
        r->id_first > h->id_next || (r->has_id && r->id_age != h->id_next))
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "transaction %llu is not what comes next: its time or its request id is "
                         "before the last one's",
                         txn);
    return 0;
}

static int apply(struct advance *a, const struct increment_entry *e, struct azoth_error *err)
{
    const struct redo_record *r = &e->redo;
    int rc = check_entry(a, r, err);
    if (rc)
        return rc;
    rc = expire(a, r->id_first);
    if (!rc)
        rc = put_state(a, r);
    if (!rc)
        rc = put_events(a, e->frames);
    if (!rc && r->has_id)
        rc = put_id(a, r);
    if (rc == MDB_KEYEXIST || rc == MDB_NOTFOUND)
        return error_set(err, AZOTH_ERR_CORRUPT, "transaction %llu does not fit what is there: %s",
                         (unsigned long long)r->txn, mdb_strerror(rc));
    if (rc)
        return lmdb_error(err, rc, "the restored store");
    if (r->last_event) {
        a->head.event = r->last_event;
        if (a->head.chain.on)
            chain_extend(&a->head.chain, (const void *)e->events->ptr,
                         (uint32_t)(e->events->len / sizeof(struct event_record)));
    }
    a->head.txn = r->txn;
    a->head.time_ns = r->time_ns;
    a->head.running_ms = r->running_ms;
    return 0;
}

/* ---- an increment ---- */

/* Where the increment meets the store's head they have the same history. */
static int same_chain(const struct advance *a, const struct chain *c, struct azoth_error *err)
{
    if (c->on == a->head.chain.on &&
        (!c->on || memcmp(c->value, a->head.chain.value, CHAIN_BYTES) == 0))
        return 0;
    return error_set(err, AZOTH_ERR_DIVERGED,
                     "it is of another history: the chains differ at transaction %llu",
                     (unsigned long long)a->head.txn);
}

int advance_increment(struct advance *a, uint64_t from_txn, const struct chain *chain,
                      struct azoth_error *err)
{
    if (from_txn > a->head.txn)
        return error_set(
            err, AZOTH_ERR_BACKUP_MISSING,
            "nothing has transactions %llu to %llu: the incremental backup begins behind them",
            (unsigned long long)a->head.txn + 1, (unsigned long long)from_txn);
    a->passed = from_txn;
    a->before = *chain;
    return from_txn == a->head.txn ? same_chain(a, chain, err) : 0;
}

static int pass_over(struct advance *a, const struct increment_entry *e, struct azoth_error *err)
{
    if (e->redo.txn != a->passed + 1)
        return error_set(err, AZOTH_ERR_GAP, "transaction %llu follows transaction %llu",
                         (unsigned long long)e->redo.txn, (unsigned long long)a->passed);
    a->passed = e->redo.txn;
    if (a->before.on && e->redo.last_event)
        chain_extend(&a->before, (const void *)e->events->ptr,
                     (uint32_t)(e->events->len / sizeof(struct event_record)));
    return a->passed == a->head.txn ? same_chain(a, &a->before, err) : 0;
}

static int is_behind(const struct redo_record *r, const struct advance_target *t)
{
    return (t->by_event && r->last_event && r->first_event > t->event) ||
           (t->by_time && r->time_ns > t->time_ns);
}

/* 1: the entry is behind the target, and what its transaction found is what there is now. */
static int take(struct advance *a, const struct increment_entry *e, const struct advance_target *t,
                struct azoth_error *err)
{
    if (a->passed < a->head.txn)
        return pass_over(a, e, err);
    if (is_behind(&e->redo, t)) {
        int rc = check_entry(a, &e->redo, err);
        if (!rc && (rc = expire(a, e->redo.id_first)) != 0)
            rc = lmdb_error(err, rc, "ids");
        return rc ? rc : 1;
    }
    int rc = apply(a, e, err);
    a->passed = a->head.txn;
    return rc;
}

int advance_part(struct advance *a, struct azoth_bytes part, const struct advance_target *t,
                 struct azoth_error *err)
{
    struct increment_entry e;
    size_t at = 0;
    int step = 0, rc = begin(a, err);
    while (!rc && (step = increment_next(part, &at, &a->events, &e)) == 1) {
        rc = take(a, &e, t, err);
        if (!rc && a->changes >= CHANGES_MOST) {
            rc = commit(a, err);
            if (!rc)
                rc = begin(a, err);
        }
    }
    if (!rc && step)
        rc = error_set(err, step, "what comes behind transaction %llu fails its check",
                       (unsigned long long)a->head.txn);
    if (rc < 0)
        return rc;
    int committed = commit(a, err);
    return committed ? committed : rc;
}

int advance_increment_end(struct advance *a, const struct store_head *to, struct azoth_error *err)
{
    struct batch_head *h = &a->head;
    if (h->txn != to->txn || h->event != to->event || to->time_ns < h->time_ns ||
        to->running_ms < h->running_ms || to->id_first < h->id_first || to->id_first > h->id_next)
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "it ends at transaction %llu, event %llu, and should at %llu, %llu",
                         (unsigned long long)h->txn, (unsigned long long)h->event,
                         (unsigned long long)to->txn, (unsigned long long)to->event);
    int rc = same_chain(a, &to->chain, err);
    if (!rc)
        rc = begin(a, err);
    if (rc)
        return rc;
    int m = expire(a, to->id_first);
    h->time_ns = to->time_ns;
    h->running_ms = to->running_ms;
    return m ? lmdb_error(err, m, "ids") : commit(a, err);
}
