#include "core/storecheck.h"

#include "core/batchrec.h"
#include "core/mark.h"
#include "core/pagecheck.h"
#include "core/redo.h"
#include "core/store_lmdb.h"

#include <stdarg.h>
#include <string.h>

#define STEPS      1024u /* between two looks at progress */
#define PAGE_TRIES 20

struct store_check {
    struct store *store;
    const struct store_check_tell *tell;
    struct store_check_sum *sum;
    struct snapshot *sn;    /* of the part that runs */
    struct store_head head; /* as that snapshot has it */
    uint64_t at, end;       /* progress */
};

/* ---- telling ---- */

__attribute__((format(printf, 7, 8))) static void
store_check_found(struct store_check *c, const char *kind, int code, struct azoth_bytes key,
                  uint64_t event, uint64_t txn, const char *fmt, ...)
{
    struct store_finding f = {.kind = kind, .code = code, .key = key, .event = event, .txn = txn};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f.message, sizeof f.message, fmt, ap);
    va_end(ap);
    c->sum->findings++;
    c->tell->found(c->tell->arg, &f);
}

/* One more is done: 0 or BUSY. */
static int store_check_step(struct store_check *c, const char *what, struct azoth_error *err)
{
    if (++c->at % STEPS || !c->tell->progress)
        return 0;
    return c->tell->progress(c->tell->arg, c->at, c->end, what)
               ? error_set(err, AZOTH_ERR_BUSY, "the check was interrupted")
               : 0;
}

static void store_check_end(struct store_check *c)
{
    snapshot_end(c->sn);
    c->sn = NULL;
}

/* Its snapshot and head. */
static int store_check_begin(struct store_check *c, struct azoth_error *err)
{
    int rc = snapshot_begin(c->store, &c->sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(c->sn, &c->head, err);
    if (rc)
        store_check_end(c);
    return rc;
}

static const struct azoth_bytes no_key;

/* ---- events and the chain ---- */

struct log_walk {
    struct store_check *c;
    uint64_t next;    /* the event that comes */
    uint64_t damaged; /* the first event that can not be read: no chain from there on */
    uint64_t txn;     /* of the last whole transaction */
    int64_t time_ns;
    struct chain chain; /* over the transactions so far */
    struct event_record
        *ev; /* of the transaction that is being read; pointers: places in `bytes` */
    uint32_t n, cap;
    struct buf bytes; /* their own, since events borrow the scan until its next call */
};

static int keep_bytes(struct log_walk *w, struct azoth_bytes *b)
{
    uintptr_t at = w->bytes.len;
    int rc = buf_add(&w->bytes, b->ptr, b->len);
    b->ptr = (const void *)at;
    return rc;
}

/* Where the bytes lie in the end. */
static void place_bytes(struct log_walk *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        struct azoth_bytes *const part[] = {&w->ev[i].type, &w->ev[i].key, &w->ev[i].metadata,
                                            &w->ev[i].payload};
        for (size_t k = 0; k < sizeof part / sizeof *part; k++)
            part[k]->ptr = w->bytes.ptr + (uintptr_t)part[k]->ptr;
    }
}

static int keep_event(struct log_walk *w, const struct event_record *ev, struct azoth_error *err)
{
    if (w->n == w->cap) {
        uint32_t cap = w->cap ? 2 * w->cap : 64;
        struct event_record *more = realloc(w->ev, cap * sizeof *more);
        if (!more)
            return error_set(err, AZOTH_ERR_NOMEM, "a transaction's events");
        w->ev = more;
        w->cap = cap;
    }
    struct event_record *kept = &w->ev[w->n];
    *kept = *ev;
    if (keep_bytes(w, &kept->type) || keep_bytes(w, &kept->key) || keep_bytes(w, &kept->metadata) ||
        keep_bytes(w, &kept->payload))
        return error_set(err, AZOTH_ERR_NOMEM, "a transaction's events");
    w->n++;
    return 0;
}

/* The transaction whose events were read is whole. */
static void end_txn(struct log_walk *w)
{
    const struct event_record *first = w->ev;
    if (w->n == 0)
        return;
    w->c->sum->transactions++;
    if (first->txn <= w->txn)
        store_check_found(w->c, "event", AZOTH_ERR_CORRUPT, no_key, first->id, first->txn,
                          "event %llu is of transaction %llu, the one before it of %llu",
                          (unsigned long long)first->id, (unsigned long long)first->txn,
                          (unsigned long long)w->txn);
    if (first->time_ns < w->time_ns)
        store_check_found(w->c, "event", AZOTH_ERR_CORRUPT, no_key, first->id, first->txn,
                          "event %llu is older than the one before it",
                          (unsigned long long)first->id);
    for (uint32_t i = 1; i < w->n; i++)
        if (w->ev[i].time_ns != first->time_ns)
            store_check_found(w->c, "event", AZOTH_ERR_CORRUPT, no_key, w->ev[i].id, first->txn,
                              "event %llu has another time than its transaction %llu",
                              (unsigned long long)w->ev[i].id, (unsigned long long)first->txn);
    place_bytes(w);
    if (w->chain.on && !w->damaged && first->id > w->chain.event)
        chain_extend(&w->chain, w->ev, w->n);
    buf_clear(&w->bytes);
    w->txn = first->txn;
    w->time_ns = first->time_ns;
    w->n = 0;
}

static int is_damage(int code, int segment)
{
    return code == AZOTH_ERR_CORRUPT || code == AZOTH_ERR_FORMAT || code == AZOTH_ERR_GAP ||
           (segment && (code == AZOTH_ERR_NOT_FOUND || code == AZOTH_ERR_PERMISSION));
}

/* What can not be read is told, and passed over: the chain ends there. Of a segment that is as much as is lost with one
 * block, or all of it. */
static void pass_over(struct log_walk *w, int code, const struct azoth_error *why, uint64_t behind,
                      int segment)
{
    end_txn(w);
    if (!w->damaged)
        w->damaged = w->next;
    if (segment)
        store_check_found(w->c, "segment", code, no_key, w->next, 0,
                          "%s; events %llu to %llu can not be read", why->message,
                          (unsigned long long)w->next, (unsigned long long)behind - 1);
    else
        store_check_found(w->c, "event", code, no_key, w->next, 0, "%s", why->message);
    w->next = behind;
}

/* 1 and the event, 0 at the snapshot's end, or an error. Opens *es where it is needed. */
static int next_event(struct log_walk *w, struct event_scan **es, struct event_record *ev,
                      struct azoth_error *err)
{
    for (;;) {
        struct azoth_error why;
        int rc = *es ? 0 : event_scan_open(w->c->sn, w->next, 0, es, err);
        if (rc || !*es) /* the second for the static analyzer */
            return rc;
        rc = event_scan_next(*es, ev, NULL, &why);
        if (rc >= 0)
            return rc;
        int segment;
        uint64_t behind = event_scan_behind(*es, &segment);
        event_scan_close(*es);
        *es = NULL;
        if (!is_damage(rc, segment)) {
            if (err)
                *err = why;
            return rc;
        }
        pass_over(w, rc, &why, behind, segment);
        rc = store_check_step(w->c, "events", err);
        if (rc)
            return rc;
    }
}

/* One look: 1 when there is more, 0 when it came to the snapshot's newest event, or an error. */
static int look_at_events(struct log_walk *w, struct azoth_error *err)
{
    struct event_scan *es = NULL;
    struct event_record ev = {0}; /* for the static analyzer */
    uint32_t seen = 0;
    int rc, more = 0;
    while ((rc = next_event(w, &es, &ev, err)) == 1) {
        if (w->n && ev.txn != w->ev[0].txn) {
            end_txn(w);
            if (seen >= STORECHECK_LOOK) {
                more = 1;
                break; /* this one is the next look's */
            }
        }
        if (ev.id > w->c->head.event)
            store_check_found(w->c, "event", AZOTH_ERR_CORRUPT, no_key, ev.id, ev.txn,
                              "event %llu is beyond the head, which is at %llu",
                              (unsigned long long)ev.id, (unsigned long long)w->c->head.event);
        rc = keep_event(w, &ev, err);
        if (!rc)
            rc = store_check_step(w->c, "events", err);
        if (rc)
            break;
        w->next = ev.id + 1;
        w->c->sum->events++;
        seen++;
    }
    event_scan_close(es);
    if (rc < 0)
        return rc;
    if (!more)
        end_txn(w);
    return more;
}

static int compare_chain(struct log_walk *w, struct azoth_error *err)
{
    struct store_check *c = w->c;
    const struct chain *head = &c->head.chain;
    struct azoth_error why;
    int rc = snapshot_head_chained(c->sn, &c->head, &why);
    if (rc && !is_damage(rc, 0)) {
        *err = why;
        return rc;
    }
    if (rc && !w->damaged)
        store_check_found(c, "chain", rc, no_key, 0, 0, "%s", why.message);
    if (head->on != w->chain.on)
        store_check_found(c, "chain", AZOTH_ERR_CORRUPT, no_key, 0, 0,
                          "the head %s a chain, and meta/chain %s there",
                          head->on ? "has" : "has not", w->chain.on ? "is" : "is not");
    if (rc || !head->on || !w->chain.on || w->damaged)
        return 0;
    c->sum->chain_checked = 1;
    if (head->event == w->chain.event && head->txn == w->chain.txn &&
        memcmp(head->value, w->chain.value, CHAIN_BYTES) == 0)
        return 0;
    store_check_found(c, "chain", AZOTH_ERR_CORRUPT, no_key, head->event, head->txn,
                      "events up to %llu do not give the chain's value at event %llu, transaction "
                      "%llu: one was changed, put in or taken out, and its checksum made to fit",
                      (unsigned long long)w->chain.event, (unsigned long long)head->event,
                      (unsigned long long)head->txn);
    return 0;
}

/* Of segments whose events are still in LMDB nobody has read: that they are there, and those that were recorded. */
static int check_unread(void *arg, const struct archived_entry *e, struct azoth_error *err)
{
    struct store_check *c = arg;
    struct archived_state state = {0};
    struct archivefile *f;
    struct azoth_error why;
    c->sum->segments++;
    int rc = snapshot_archive(c->sn, &state, err);
    if (rc || e->about.last < state.first_in_store)
        return rc;
    rc = store_archive_open(c->store, e, &f, &why);
    if (!rc)
        archivefile_close(f);
    else if (is_damage(rc, 1))
        store_check_found(c, "segment", rc, no_key, e->about.first, 0, "%s", why.message);
    else if (err)
        *err = why;
    return !rc || is_damage(rc, 1) ? 0 : rc;
}

static int check_segments(struct store_check *c, struct azoth_error *err)
{
    struct azoth_error why;
    int rc = snapshot_archives(c->sn, check_unread, c, &why);
    if (rc == AZOTH_ERR_CORRUPT)
        store_check_found(c, "segment", rc, no_key, 0, 0, "%s", why.message);
    else if (rc && err)
        *err = why;
    return rc == AZOTH_ERR_CORRUPT ? 0 : rc;
}

static int check_log(struct store_check *c, struct azoth_error *err)
{
    struct log_walk w = {.c = c, .next = 1, .time_ns = INT64_MIN};
    int rc, more = 1;
    for (int first = 1; more == 1; first = 0) {
        rc = store_check_begin(c, err);
        if (rc)
            break;
        if (first && snapshot_chain_start(c->sn, &w.chain, err) < 0)
            store_check_found(c, "chain", AZOTH_ERR_CORRUPT, bytes_str("chain"), 0, 0,
                              "meta/chain fails its check");
        rc = more = look_at_events(&w, err);
        if (rc == 0) {
            if (w.next <= c->head.event)
                store_check_found(c, "event", AZOTH_ERR_GAP, no_key, w.next, 0,
                                  "events %llu to %llu are missing at the end",
                                  (unsigned long long)w.next, (unsigned long long)c->head.event);
            if (w.txn > c->head.txn)
                store_check_found(c, "event", AZOTH_ERR_CORRUPT, no_key, w.next - 1, w.txn,
                                  "transaction %llu is beyond the head, which is at %llu",
                                  (unsigned long long)w.txn, (unsigned long long)c->head.txn);
            rc = compare_chain(&w, err);
            c->sum->head = c->head;
        }
        store_check_end(c);
    }
    free(w.ev);
    buf_fini(&w.bytes);
    return rc < 0 ? rc : 0;
}

/* ---- the other databases, each in one snapshot ---- */

typedef int (*record_fn)(struct store_check *c, struct azoth_bytes key, struct azoth_bytes rec,
                         void *arg);

/* Calls fn for each record, and tells keys that are out of order. */
static int walk(struct store_check *c, enum store_db db, record_fn fn, void *arg,
                struct azoth_error *err)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    unsigned char before[AZOTH_KEY_MAX + 1];
    size_t before_len = 0;
    int rc = mdb_cursor_open(snapshot_txn(c->sn), store_lmdb(c->store)->dbi[db], &cursor);
    if (rc)
        return lmdb_error(err, rc, store_db_name[db]);
    int code = 0;
    while (!code && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        struct azoth_bytes key = bytes_of_val(k);
        char text[100];
        if (before_len && bytes_cmp(bytes_of(before, before_len), key) >= 0)
            store_check_found(c, "page", AZOTH_ERR_CORRUPT, key, 0, 0,
                              "%s: key %s is out of order: a read may not find it",
                              store_db_name[db], bytes_print(key, text, sizeof text));
        before_len = key.len < sizeof before ? key.len : sizeof before;
        if (before_len)
            memcpy(before, key.ptr, before_len);
        code = fn(c, key, bytes_of_val(v), arg);
        if (!code)
            code = store_check_step(c, store_db_name[db], err);
    }
    mdb_cursor_close(cursor);
    return code ? code : rc == MDB_NOTFOUND ? 0 : lmdb_error(err, rc, store_db_name[db]);
}

static int check_state(struct store_check *c, struct azoth_bytes key, struct azoth_bytes rec,
                       void *arg)
{
    struct state_record st;
    char text[100];
    (void)arg;
    c->sum->keys++;
    bytes_print(key, text, sizeof text);
    int rc = record_state_decode(key, rec, &st);
    if (rc) {
        store_check_found(c, "state", rc, key, 0, 0, "key %s: the stored record fails its check",
                          text);
        return 0;
    }
    if (st.version == 0 || st.version > c->head.txn)
        store_check_found(c, "state", AZOTH_ERR_CORRUPT, key, 0, st.version,
                          "key %s: its version %llu is beyond the head, transaction %llu", text,
                          (unsigned long long)st.version, (unsigned long long)c->head.txn);
    rc = value_check(st.value);
    if (rc)
        store_check_found(c, "state", AZOTH_ERR_CORRUPT, key, 0, st.version, "key %s: %s", text,
                          azoth_code_sentence(rc));
    return 0;
}

/* ---- request ids ---- */

struct ids {
    struct batch_head batch;
    uint64_t running_ms; /* of the one before */
    uint64_t by_id, by_age;
};

static MDB_val *look_up(struct store_check *c, enum store_db db, struct azoth_bytes key, MDB_val *v)
{
    MDB_val k = val_of(key);
    return mdb_get(snapshot_txn(c->sn), store_lmdb(c->store)->dbi[db], &k, v) == 0 ? v : NULL;
}

static void bad_id(struct store_check *c, struct azoth_bytes key, uint64_t txn, const char *what)
{
    char text[2 * AZOTH_ID_BYTES + 1] = "?";
    if (key.len)
        bytes_hex(text, key.ptr, key.len < AZOTH_ID_BYTES ? key.len : AZOTH_ID_BYTES);
    store_check_found(c, "id", AZOTH_ERR_CORRUPT, key, 0, txn, "request id %s: %s", text, what);
}

static int check_id(struct store_check *c, struct azoth_bytes key, struct azoth_bytes rec,
                    void *arg)
{
    struct ids *ids = arg;
    struct txn_result r;
    uint64_t content, age;
    unsigned char order[8];
    MDB_val v;
    c->sum->ids++;
    ids->by_id++;
    if (key.len != AZOTH_ID_BYTES || store_id_decode(key.ptr, rec, &r, &content, &age)) {
        bad_id(c, key, 0, "the stored record fails its check");
        return 0;
    }
    if (r.txn == 0 || r.txn > c->head.txn || r.last_event > c->head.event ||
        r.first_event > r.last_event)
        bad_id(c, key, r.txn, "it tells of a transaction or events beyond the head");
    put_be64(order, age);
    if (!look_up(c, DB_IDS_AGE, bytes_of(order, 8), &v))
        bad_id(c, key, r.txn, "ids_age has none of its age: it will never be forgotten");
    else if (v.mv_size != AZOTH_ID_BYTES + 8 || memcmp(v.mv_data, key.ptr, AZOTH_ID_BYTES) != 0)
        bad_id(c, key, r.txn, "ids_age has another id of its age");
    return 0;
}

static int check_age(struct store_check *c, struct azoth_bytes key, struct azoth_bytes rec,
                     void *arg)
{
    struct ids *ids = arg;
    struct azoth_bytes id = bytes_of(rec.ptr, AZOTH_ID_BYTES);
    struct txn_result r;
    uint64_t content, age;
    MDB_val v;
    ids->by_age++;
    if (key.len != 8 || rec.len != AZOTH_ID_BYTES + 8) {
        bad_id(c, rec, 0, "its entry of ids_age has another size");
        return 0;
    }
    uint64_t order = get_be64(key.ptr),
             born_ms = get_u64((const unsigned char *)rec.ptr + AZOTH_ID_BYTES);
    if (order < ids->batch.id_first || order >= ids->batch.id_next)
        bad_id(c, id, 0, "its age is out of the range that the head tells");
    if (born_ms < ids->running_ms || born_ms > ids->batch.running_ms)
        bad_id(c, id, 0, "its time is before that of the one before it, or after the head's");
    ids->running_ms = born_ms;
    if (!look_up(c, DB_IDS, id, &v))
        bad_id(c, id, 0, "ids_age has it, ids has not: it is not known for a repeated one");
    else if (store_id_decode(id.ptr, bytes_of_val(v), &r, &content, &age) == 0 && age != order)
        bad_id(c, id, r.txn, "ids has it with another age than ids_age");
    return 0;
}

static int check_ids(struct store_check *c, struct azoth_error *err)
{
    struct ids ids = {0};
    MDB_val v;
    if (!look_up(c, DB_META, bytes_str("head"), &v) || batch_decode(bytes_of_val(v), &ids.batch))
        return error_set(err, AZOTH_ERR_CORRUPT, "meta/head fails its check");
    int rc = walk(c, DB_IDS, check_id, &ids, err);
    if (!rc)
        rc = walk(c, DB_IDS_AGE, check_age, &ids, err);
    uint64_t want = ids.batch.id_next - ids.batch.id_first;
    if (!rc && (ids.by_id != want || ids.by_age != want))
        store_check_found(c, "id", AZOTH_ERR_CORRUPT, no_key, 0, 0,
                          "%llu request ids, %llu ages, and the head tells of %llu",
                          (unsigned long long)ids.by_id, (unsigned long long)ids.by_age,
                          (unsigned long long)want);
    return rc;
}

/* ---- marks and redo ---- */

static int check_mark(struct store_check *c, struct azoth_bytes key, struct azoth_bytes rec,
                      void *arg)
{
    uint64_t *lowest = arg;
    struct mark m;
    char text[100];
    if (!mark_is_key(key))
        return 0;
    c->sum->marks++;
    bytes_print(key, text, sizeof text);
    if (mark_decode(key, rec, &m)) {
        store_check_found(c, "mark", AZOTH_ERR_CORRUPT, key, 0, 0,
                          "meta/%s fails its check: its place gets a full backup", text);
        return 0;
    }
    if (m.txn > c->head.txn || m.event > c->head.event)
        store_check_found(c, "mark", AZOTH_ERR_CORRUPT, key, m.event, m.txn,
                          "meta/%s is beyond the head", text);
    else if (!m.broken && m.txn < *lowest)
        *lowest = m.txn;
    return 0;
}

static void check_redo_ops(struct store_check *c, const struct redo_record *r)
{
    struct redo_op op;
    size_t at = 0;
    char text[100];
    while (redo_next(r, &at, &op)) {
        int rc = op.deleted ? 0 : value_check(op.value);
        if (rc)
            store_check_found(c, "redo", AZOTH_ERR_CORRUPT, op.key, 0, r->txn,
                              "the redo record of transaction %llu, key %s: %s",
                              (unsigned long long)r->txn, bytes_print(op.key, text, sizeof text),
                              azoth_code_sentence(rc));
    }
}

static int check_redo(struct store_check *c, struct azoth_bytes key, struct azoth_bytes rec,
                      void *arg)
{
    uint64_t *next = arg; /* the transaction that has to come; UINT64_MAX: any */
    struct redo_record r;
    uint64_t txn = key.len == 8 ? get_be64(key.ptr) : 0;
    c->sum->redo++;
    if (*next != UINT64_MAX && txn >= *next) {
        if (txn > *next)
            store_check_found(c, "redo", AZOTH_ERR_GAP, key, 0, *next,
                              "the redo records of transactions %llu to %llu are missing",
                              (unsigned long long)*next, (unsigned long long)txn - 1);
        *next = txn + 1;
    }
    int rc = redo_decode(txn, rec, &r);
    if (rc) {
        store_check_found(c, "redo", rc, key, 0, txn,
                          "the redo record of transaction %llu fails its check",
                          (unsigned long long)txn);
        return 0;
    }
    if (txn > c->head.txn || r.last_event > c->head.event || r.first_event > r.last_event)
        store_check_found(c, "redo", AZOTH_ERR_CORRUPT, key, r.last_event, txn,
                          "the redo record of transaction %llu is beyond the head",
                          (unsigned long long)txn);
    check_redo_ops(c, &r);
    return 0;
}

static int check_marks_and_redo(struct store_check *c, struct azoth_error *err)
{
    uint64_t lowest = UINT64_MAX;
    int rc = walk(c, DB_META, check_mark, &lowest, err);
    uint64_t next = lowest == UINT64_MAX ? lowest : lowest + 1;
    if (!rc && atomic_load(&store_lmdb(c->store)->redo_open))
        rc = walk(c, DB_REDO, check_redo, &next, err);
    if (!rc && next != UINT64_MAX && next <= c->head.txn)
        store_check_found(c, "redo", AZOTH_ERR_GAP, no_key, 0, next,
                          "the redo records of transactions %llu to %llu are missing",
                          (unsigned long long)next, (unsigned long long)c->head.txn);
    return rc;
}

/* ---- pages ---- */

static void on_page(void *arg, int fatal, const char *message)
{
    (void)fatal;
    store_check_found(arg, "page", AZOTH_ERR_CORRUPT, no_key, 0, 0, "%s", message);
}

static int on_page_progress(void *arg, uint64_t at, uint64_t end)
{
    const struct store_check *c = arg;
    return c->tell->progress ? c->tell->progress(c->tell->arg, at, end, "pages") : 0;
}

/* A snapshot whose commit the file's two newest are beyond is begun anew. */
static int check_pages(struct store_check *c, struct azoth_error *err)
{
    const struct pagecheck_tell tell = {c, on_page, on_page_progress};
    struct pagecheck_sum sum = {0};
    int fd, rc = mdb_env_get_fd(store_lmdb(c->store)->env, &fd);
    if (rc)
        return lmdb_error(err, rc, "pages");
    for (int i = 0; i < PAGE_TRIES && (i == 0 || rc == 1); i++) {
        store_check_end(c);
        rc = store_check_begin(c, err);
        if (!rc)
            rc = pagecheck(fd, mdb_txn_id(snapshot_txn(c->sn)), &tell, &sum, err);
    }
    c->sum->pages = sum.pages;
    c->sum->free_pages = sum.free_pages;
    c->sum->pages_counted = rc == 0;
    return rc == 1 ? 0 : rc;
}

/* ---- all of it ---- */

static int check_all_state(struct store_check *c, struct azoth_error *err)
{
    return walk(c, DB_STATE, check_state, NULL, err);
}

int store_check(struct store *s, const struct store_check_tell *tell, struct store_check_sum *ret,
                struct azoth_error *err)
{
    static int (*const part[])(struct store_check * c, struct azoth_error * err) = {
        check_segments, check_all_state, check_ids, check_marks_and_redo, check_pages};
    struct store_usage u;
    struct store_check c = {.store = s, .tell = tell, .sum = ret};
    memset(ret, 0, sizeof *ret);
    int rc = store_usage(s, &u, err);
    if (rc)
        return rc;
    c.end = u.events + u.state_keys + 2 * u.ids + u.redo_records;
    rc = check_log(&c, err);
    for (size_t i = 0; i < sizeof part / sizeof *part && !rc; i++) {
        rc = store_check_begin(&c, err);
        if (rc)
            break;
        rc = part[i](&c, err);
        store_check_end(&c);
    }
    return rc;
}
