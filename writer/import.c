#include "writer/import.h"

#include "core/error.h"
#include "core/store_lmdb.h"
#include "writer/export.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct import {
    MDB_env *env;
    MDB_dbi dbi[DB_COUNT];
    MDB_txn *txn; /* of the part in hand */
    uint64_t event, txn_max, version_max;
    int64_t time_ns;
    uint64_t id_first, id_next, born_ms;
};

static int make_dbis(struct import *im, struct azoth_error *err)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(im->env, NULL, 0, &txn);
    if (rc)
        return lmdb_error(err, rc, "import");
    for (int i = 0; i < DB_COUNT && !rc; i++)
        rc = mdb_dbi_open(txn, store_db_name[i], MDB_CREATE, &im->dbi[i]);
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = mdb_txn_commit(txn);
    return rc ? lmdb_error(err, rc, "import") : 0;
}

int import_open(const char *path, struct import **ret, struct azoth_error *err)
{
    if (access(path, F_OK) == 0)
        return error_set(err, AZOTH_ERR_DUPLICATE, "%s: it is there", path);
    struct import *im = calloc(1, sizeof *im);
    if (!im)
        return error_set(err, AZOTH_ERR_NOMEM, "an import");
    im->id_first = im->id_next = 1;
    /* Durable at the end, all at once. */
    int rc = lmdb_env_open(path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, &im->env, err);
    if (!rc)
        rc = make_dbis(im, err);
    if (rc) {
        import_abort(im);
        return rc;
    }
    *ret = im;
    return 0;
}

void import_abort(struct import *im)
{
    if (!im)
        return;
    if (im->txn)
        mdb_txn_abort(im->txn);
    if (im->env)
        mdb_env_close(im->env);
    free(im);
}

static int begin(struct import *im, struct azoth_error *err)
{
    int rc = mdb_txn_begin(im->env, NULL, 0, &im->txn);
    return rc ? lmdb_error(err, rc, "import") : 0;
}

static int end(struct import *im, int rc, struct azoth_error *err)
{
    MDB_txn *txn = im->txn;
    im->txn = NULL;
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn);
    return rc ? lmdb_error(err, rc, "import") : 0;
}

/* The key must be behind all that are there. */
static int append(struct import *im, enum store_db db, struct azoth_bytes key,
                  struct azoth_bytes value, struct azoth_error *err)
{
    MDB_val k = val_of(key), v = val_of(value);
    int rc = mdb_put(im->txn, im->dbi[db], &k, &v, MDB_APPEND);
    char text[80];
    if (rc == MDB_KEYEXIST)
        return error_set(err, AZOTH_ERR_CORRUPT, "%s: %s does not come after the one before",
                         store_db_name[db], bytes_print(key, text, sizeof text));
    return rc ? lmdb_error(err, rc, store_db_name[db]) : 0;
}

int import_state(struct import *im, struct azoth_bytes part, struct azoth_error *err)
{
    struct azoth_bytes key, record;
    struct state_record rec;
    size_t at = 0;
    int rc = begin(im, err), step = 0;
    while (!rc && (step = export_state_next(part, &at, &key, &record, &rec)) == 1) {
        rc = append(im, DB_STATE, key, record, err);
        if (rec.version > im->version_max)
            im->version_max = rec.version;
    }
    if (!rc && step)
        rc = error_set(err, step, "a state record fails its check");
    return im->txn ? end(im, rc, err) : rc;
}

/* Ids without a gap, transactions and times that never go back. */
static int check_event(struct import *im, const struct event_record *ev, struct azoth_error *err)
{
    unsigned long long id = ev->id;
    if (ev->id != im->event + 1)
        return error_set(err, AZOTH_ERR_GAP, "event %llu follows event %llu", id,
                         (unsigned long long)im->event);
    if (ev->txn < im->txn_max || ev->time_ns < im->time_ns)
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "event %llu: its transaction or its time is before the last one's", id);
    im->event = ev->id;
    im->txn_max = ev->txn;
    im->time_ns = ev->time_ns;
    return 0;
}

int import_events(struct import *im, struct azoth_bytes part, struct azoth_error *err)
{
    struct event_record ev;
    size_t at = 0, from = 0;
    int rc = begin(im, err), step = 0;
    while (!rc && (step = record_frame_next(part, &at, &ev, NULL)) == 1) {
        const unsigned char *frame = (const unsigned char *)part.ptr + from;
        unsigned char key[8];
        put_be64(key, ev.id);
        rc = check_event(im, &ev, err);
        if (!rc)
            rc =
                append(im, DB_EVENTS, bytes_of(key, sizeof key),
                       bytes_of(frame + RECORD_FRAME_HEADER, at - from - RECORD_FRAME_HEADER), err);
        from = at;
    }
    if (!rc && step)
        rc = error_set(err, step, "an event's record fails its check");
    return im->txn ? end(im, rc, err) : rc;
}

static int put_id(struct import *im, const struct id_entry *e, struct azoth_error *err)
{
    unsigned char order[8], aged[AZOTH_ID_BYTES + 8];
    put_be64(order, e->age);
    memcpy(aged, e->id, AZOTH_ID_BYTES);
    put_u64(aged + AZOTH_ID_BYTES, e->born_ms);
    if (im->id_next > im->id_first ? e->age != im->id_next : e->age < 1)
        return error_set(err, AZOTH_ERR_CORRUPT, "request id %llu does not come next",
                         (unsigned long long)e->age);
    int rc = append(im, DB_IDS_AGE, bytes_of(order, 8), bytes_of(aged, sizeof aged), err);
    if (rc)
        return rc;
    if (im->id_next == im->id_first)
        im->id_first = e->age;
    im->id_next = e->age + 1;
    im->born_ms = e->born_ms > im->born_ms ? e->born_ms : im->born_ms;
    MDB_val k = {AZOTH_ID_BYTES, (void *)(uintptr_t)e->id}, v = val_of(e->record);
    rc = mdb_put(im->txn, im->dbi[DB_IDS], &k, &v, MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST)
        return error_set(err, AZOTH_ERR_CORRUPT, "request id %llu is there twice",
                         (unsigned long long)e->age);
    return rc ? lmdb_error(err, rc, "ids") : 0;
}

int import_ids(struct import *im, struct azoth_bytes part, struct azoth_error *err)
{
    struct id_entry e;
    size_t at = 0;
    int rc = begin(im, err), step = 0;
    while (!rc && (step = export_id_next(part, &at, &e)) == 1)
        rc = put_id(im, &e, err);
    if (!rc && step)
        rc = error_set(err, step, "a request id's record fails its check");
    return im->txn ? end(im, rc, err) : rc;
}

static int put_own(struct import *im, const struct import_identity *id, struct azoth_error *err)
{
    unsigned char format[STORE_FORMAT_RECORD], head[BATCH_HEAD], start[CHAIN_RECORD];
    struct batch_head h = {.event = id->event,
                           .txn = id->txn,
                           .time_ns = im->time_ns,
                           .running_ms = im->born_ms,
                           .id_first = im->id_first,
                           .id_next = im->id_next,
                           .chain = id->chain};
    store_format_encode(format, id->uuid, id->created_ns);
    batch_encode(head, &h, NULL);
    MDB_val fk = {6, "format"}, fv = {sizeof format, format}, hk = {4, "head"},
            hv = {sizeof head, head};
    int rc = mdb_put(im->txn, im->dbi[DB_META], &fk, &fv, 0);
    if (!rc)
        rc = mdb_put(im->txn, im->dbi[DB_META], &hk, &hv, 0);
    if (!rc && id->chain_start.on) {
        chain_start_encode(start, &id->chain_start);
        MDB_val ck = {5, "chain"}, cv = {sizeof start, start};
        rc = mdb_put(im->txn, im->dbi[DB_META], &ck, &cv, 0);
    }
    return rc ? lmdb_error(err, rc, "import") : 0;
}

int import_finish(struct import *im, const struct import_identity *id, struct azoth_error *err)
{
    int rc = 0;
    if (im->event != id->event)
        rc = error_set(err, AZOTH_ERR_GAP, "the newest event is %llu and not %llu",
                       (unsigned long long)im->event, (unsigned long long)id->event);
    else if (im->txn_max > id->txn || im->version_max > id->txn)
        rc = error_set(
            err, AZOTH_ERR_CORRUPT,
            "there is something of transaction %llu, which is beyond the newest, %llu",
            (unsigned long long)(im->txn_max > im->version_max ? im->txn_max : im->version_max),
            (unsigned long long)id->txn);
    if (!rc)
        rc = begin(im, err);
    if (!rc)
        rc = end(im, put_own(im, id, err), err);
    if (!rc) {
        int m = mdb_env_sync(im->env, 1);
        rc = m ? lmdb_error(err, m, "import") : 0;
    }
    import_abort(im);
    return rc;
}
