/*
 * read.c - reading: values, snapshots, scans, events, outcomes; waiting for projections; pausing.
 *
 * Attached handles read the store in their own process, without locks and without asking anyone.
 * Remote ones ask a worker, a page at a time. No snapshot is open while something is waited for.
 */
#include "client/internal.h"

#include "core/answer.h"
#include "core/clock.h"
#include "core/u256.h"
#include "core/valuejson.h"
#include "shm/projection_row.h"

#include <string.h>
#include <time.h>

struct azoth_snapshot {
    struct snapshot *snapshot;
};

struct azoth_scan {
    struct azoth *db;
    struct snapshot *snapshot; /* attached */
    struct scan *scan;
    struct wire_request request; /* remote: the next page */
    unsigned char bound[4][AZOTH_KEY_MAX];
    struct buf page;
    struct wire_answer answer;
    size_t at;
    int more;
};

struct azoth_events {
    struct azoth *db;
    struct snapshot *snapshot;
    struct event_scan *scan;
    uint64_t next, to;
    char type[AZOTH_EVENT_TYPE_MAX + 1];
    size_t type_len;
    struct attachment *attachment; /* for following */
    struct buf page;               /* remote */
    struct wire_answer answer;
    size_t at;
    int more;
};

int client_allowed(const struct azoth *db, int code, struct azoth_error *err)
{
    int rc = handle_check(db, err);
    if (rc || !client_in_callback)
        return rc;
    return error_set(err, code, "inside a callback only azoth_txn_get reads: %s",
                     azoth_code_sentence(code));
}

static int use_remote(struct azoth *db, struct wire_request *req, struct buf *store,
                      struct wire_answer *ret, struct azoth_error *err)
{
    req->deadline_ms = db->deadline_ms;
    if (!req->limit)
        req->limit = 1;
    int rc = remote_call(db->remote, req, clock_mono_ns() + db->deadline_ms * NS_PER_MS, store, ret,
                         err);
    if (!rc && ret->code)
        rc = error_set(err, ret->code, "%.*s", (int)ret->message.len,
                       (const char *)ret->message.ptr);
    return rc;
}

/* ---- one value ---- */

static int copy_out(struct azoth_buffer *buf, const struct state_record *st,
                    struct azoth_entry *ret, struct azoth_error *err)
{
    size_t n = st->value.enc.len;
    if (buf->size < n || !buf->ptr) {
        void *p = realloc(buf->ptr, n ? n : 1);
        if (!p)
            return error_set(err, AZOTH_ERR_NOMEM, "a value of %zu bytes", n);
        buf->ptr = p;
        buf->size = n ? n : 1;
    }
    if (n)
        memcpy(buf->ptr, st->value.enc.ptr, n);
    ret->version = st->version;
    ret->value = (struct azoth_value){st->value.type, {buf->ptr, n}};
    return 0;
}

int azoth_get(struct azoth *db, struct azoth_bytes key, struct azoth_buffer *buf,
              struct azoth_entry *ret, struct azoth_error *err)
{
    int rc = client_allowed(db, AZOTH_ERR_UNDECLARED_KEY, err);
    if (rc)
        return rc;
    struct state_record st;
    if (db->remote) {
        struct wire_request req = {.kind = WIRE_GET, .name = key};
        struct wire_answer a;
        struct buf store = {0};
        size_t at = 0;
        struct azoth_bytes k;
        rc = use_remote(db, &req, &store, &a, err);
        if (!rc && wire_item_next(a.body, &at, &k, &st) != 1)
            rc = error_set(err, AZOTH_ERR_BAD_REQUEST, "the answer holds no value");
        if (!rc)
            rc = copy_out(buf, &st, ret, err);
        buf_fini(&store);
        return rc;
    }
    struct snapshot *sn;
    rc = snapshot_begin(db->local->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_get(sn, key, &st, err);
    if (!rc)
        rc = copy_out(buf, &st, ret, err);
    snapshot_end(sn);
    return rc;
}

int azoth_get_i64(struct azoth *db, struct azoth_bytes key, int64_t *ret, struct azoth_error *err)
{
    struct azoth_buffer buf = {0};
    struct azoth_entry e;
    int rc = azoth_get(db, key, &buf, &e, err);
    if (!rc && (rc = value_i64(e.value, ret)) != 0) {
        char text[80];
        error_set(err, rc, "key %s holds a value of type %s", bytes_print(key, text, sizeof text),
                  value_type_name(e.value.type));
    }
    free(buf.ptr);
    return rc;
}

int azoth_exists(struct azoth *db, struct azoth_bytes key, int *ret, struct azoth_error *err)
{
    struct azoth_buffer buf = {0};
    struct azoth_entry e;
    int rc = azoth_get(db, key, &buf, &e, err);
    free(buf.ptr);
    if (rc && rc != AZOTH_ERR_NOT_FOUND)
        return rc;
    *ret = rc == 0;
    return 0;
}

/* ---- snapshots ---- */

int azoth_snapshot(struct azoth *db, struct azoth_snapshot **ret, struct azoth_error *err)
{
    int rc = client_allowed(db, AZOTH_ERR_SCAN_IN_CALLBACK, err);
    if (rc)
        return rc;
    if (db->remote)
        return error_set(err, AZOTH_ERR_UNSUPPORTED, "a remote handle has no snapshots");
    struct azoth_snapshot *s = malloc(sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "a snapshot");
    rc = snapshot_begin(db->local->store, &s->snapshot, err);
    if (rc)
        free(s);
    else
        *ret = s;
    return rc;
}

void azoth_snapshot_free(struct azoth_snapshot *s)
{
    if (!s)
        return;
    snapshot_end(s->snapshot);
    free(s);
}

int azoth_snapshot_get(struct azoth_snapshot *s, struct azoth_bytes key, struct azoth_entry *ret,
                       struct azoth_error *err)
{
    struct state_record st;
    int rc = snapshot_get(s->snapshot, key, &st, err);
    if (!rc)
        *ret = (struct azoth_entry){st.version, st.value};
    return rc;
}

uint64_t azoth_snapshot_head(struct azoth_snapshot *s)
{
    struct store_head h;
    return snapshot_head(s->snapshot, &h, NULL) ? 0 : h.event;
}

int azoth_head(struct azoth *db, uint64_t *ret_event, uint64_t *ret_txn, struct azoth_error *err)
{
    int forked = handle_check(db, err);
    if (forked)
        return forked;
    if (db->remote)
        return error_set(err, AZOTH_ERR_UNSUPPORTED, "a remote handle does not see the head");
    struct snapshot *sn;
    struct store_head h;
    int rc = snapshot_begin(db->local->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &h, err);
    snapshot_end(sn);
    if (rc)
        return rc;
    if (ret_event)
        *ret_event = h.event;
    if (ret_txn)
        *ret_txn = h.txn;
    return 0;
}

/* ---- scans ---- */

static struct azoth_bytes bound(struct azoth_scan *s, int i, struct azoth_bytes b)
{
    size_t n = b.len < AZOTH_KEY_MAX ? b.len : AZOTH_KEY_MAX;
    if (n)
        memcpy(s->bound[i], b.ptr, n);
    return bytes_of(s->bound[i], n);
}

int azoth_scan(struct azoth *db, struct azoth_bytes prefix, struct azoth_bytes from,
               struct azoth_bytes to, struct azoth_scan **ret, struct azoth_error *err)
{
    int rc = client_allowed(db, AZOTH_ERR_SCAN_IN_CALLBACK, err);
    if (rc)
        return rc;
    if (prefix.len > AZOTH_KEY_MAX || from.len > AZOTH_KEY_MAX || to.len > AZOTH_KEY_MAX)
        return error_set(err, AZOTH_ERR_KEY_SIZE, "a bound of a scan is over 511 bytes");
    struct azoth_scan *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "a scan");
    s->db = db;
    if (db->remote) {
        s->request = (struct wire_request){.kind = WIRE_SCAN, .limit = 1000};
        s->request.args = bound(s, 0, prefix);
        s->request.name = bound(s, 1, from);
        s->request.body = bound(s, 2, to);
        s->more = 1;
    } else {
        rc = snapshot_begin(db->local->store, &s->snapshot, err);
        if (!rc)
            rc = scan_open(s->snapshot, prefix, from, to, &s->scan, err);
    }
    if (rc)
        azoth_scan_free(s);
    else
        *ret = s;
    return rc;
}

static int remote_scan_next(struct azoth_scan *s, struct azoth_bytes *key, struct state_record *st,
                            struct azoth_error *err)
{
    for (;;) {
        int rc = wire_item_next(s->answer.body, &s->at, key, st);
        if (rc != 0)
            return rc;
        if (!s->more)
            return 0;
        rc = use_remote(s->db, &s->request, &s->page, &s->answer, err);
        if (rc)
            return rc;
        s->at = 0;
        s->more = (s->answer.flags & WIRE_MORE) != 0;
        size_t at = 0;
        struct azoth_bytes last = {0};
        struct state_record skip;
        while (wire_item_next(s->answer.body, &at, &last, &skip) == 1)
            ;
        s->request.after = bound(s, 3, last);
    }
}

int azoth_scan_next(struct azoth_scan *s, struct azoth_bytes *key, struct azoth_entry *entry,
                    struct azoth_error *err)
{
    struct state_record st;
    int rc = s->scan ? scan_next(s->scan, key, &st, err) : remote_scan_next(s, key, &st, err);
    if (rc == 1)
        *entry = (struct azoth_entry){st.version, st.value};
    return rc;
}

void azoth_scan_free(struct azoth_scan *s)
{
    if (!s)
        return;
    scan_close(s->scan);
    snapshot_end(s->snapshot);
    buf_fini(&s->page);
    free(s);
}

/* ---- events ---- */

int azoth_events(struct azoth *db, uint64_t from, uint64_t to, const char *type,
                 struct azoth_events **ret, struct azoth_error *err)
{
    int rc = client_allowed(db, AZOTH_ERR_SCAN_IN_CALLBACK, err);
    if (rc)
        return rc;
    size_t n = type ? strlen(type) : 0;
    if (n > AZOTH_EVENT_TYPE_MAX)
        return error_set(err, AZOTH_ERR_EVENT_TYPE, "%s",
                         azoth_code_sentence(AZOTH_ERR_EVENT_TYPE));
    struct azoth_events *it = calloc(1, sizeof *it);
    if (!it)
        return error_set(err, AZOTH_ERR_NOMEM, "an iterator");
    it->db = db;
    it->next = from ? from : 1;
    it->to = to;
    it->type_len = n;
    if (n)
        memcpy(it->type, type, n);
    it->more = 1;
    *ret = it;
    return 0;
}

static void close_scan(struct azoth_events *it)
{
    event_scan_close(it->scan);
    snapshot_end(it->snapshot);
    it->scan = NULL;
    it->snapshot = NULL;
}

static int wanted(const struct azoth_events *it, const struct event_record *ev)
{
    return it->type_len == 0 || bytes_eq(ev->type, bytes_of(it->type, it->type_len));
}

static int next_local(struct azoth_events *it, struct event_record *ev, struct azoth_error *err)
{
    int rc;
    ensure(it->db->local != NULL);
    if (!it->scan) {
        rc = snapshot_begin(it->db->local->store, &it->snapshot, err);
        if (!rc)
            rc = event_scan_open(it->snapshot, it->next, it->to, &it->scan, err);
        if (rc) {
            close_scan(it);
            return rc;
        }
    }
    while ((rc = event_scan_next(it->scan, ev, NULL, err)) == 1) {
        it->next = ev->id + 1;
        if (wanted(it, ev))
            return 1;
    }
    close_scan(it);
    return rc;
}

static int next_remote(struct azoth_events *it, struct event_record *ev, struct azoth_error *err)
{
    for (;;) {
        int rc = record_frame_next(it->answer.body, &it->at, ev, NULL);
        if (rc != 0)
            return rc;
        if (!it->more)
            return 0;
        struct wire_request req = {.kind = WIRE_EVENTS,
                                   .from = it->next,
                                   .to = it->to,
                                   .limit = 1000,
                                   .name = bytes_of(it->type, it->type_len)};
        rc = use_remote(it->db, &req, &it->page, &it->answer, err);
        if (rc)
            return rc;
        it->at = 0;
        it->more = (it->answer.flags & WIRE_MORE) != 0;
        if (it->answer.first_event)
            it->next = it->answer.first_event + 1;
    }
}

int azoth_events_next(struct azoth_events *it, struct azoth_event *ret, struct azoth_error *err)
{
    struct event_record ev;
    int rc = handle_check(it->db, err);
    if (rc)
        return rc;
    rc = it->db->remote ? next_remote(it, &ev, err) : next_local(it, &ev, err);
    if (rc == 1)
        *ret = (struct azoth_event){.id = ev.id,
                                    .txn = ev.txn,
                                    .time_ns = ev.time_ns,
                                    .type = ev.type,
                                    .payload = ev.payload,
                                    .stream = ev.key,
                                    .metadata = ev.metadata};
    return rc;
}

void watch_begin(struct azoth *db, struct watch *w)
{
    struct local *l = db->local;
    w->attachment = NULL;
    if (l && !db->read_only && local_attach(l, 0, &w->attachment, NULL) != 0)
        w->attachment = NULL; /* no writer now: look at the store */
    w->seen = w->attachment ? atomic_load(&w->attachment->segment->header->head_seq) : 0;
}

void watch_wait(const struct watch *w, uint64_t ns)
{
    if (ns > SHM_WAIT_SLICE_NS)
        ns = SHM_WAIT_SLICE_NS;
    if (w->attachment) {
        struct header_shm *h = w->attachment->segment->header;
        atomic_store(&h->head_waiters, 1);
        shm_wait(&h->head_seq, w->seen, ns);
    } else {
        struct timespec ts = {0, (long)(ns < 10 * NS_PER_MS ? ns : 10 * NS_PER_MS)};
        nanosleep(&ts, NULL);
    }
}

void watch_end(struct azoth *db, const struct watch *w)
{
    if (w->attachment)
        local_release(db->local, w->attachment);
}

int azoth_events_follow(struct azoth_events *it, uint32_t timeout_ms, struct azoth_event *ret,
                        struct azoth_error *err)
{
    uint64_t until = clock_mono_ns() + timeout_ms * NS_PER_MS;
    for (;;) {
        struct watch w;
        watch_begin(it->db, &w);
        it->more = 1;
        int rc = azoth_events_next(it, ret, err);
        uint64_t now = clock_mono_ns();
        if (rc == 0 && now < until)
            watch_wait(&w, until - now);
        watch_end(it->db, &w);
        if (rc != 0 || now >= until)
            return rc;
    }
}

void azoth_events_free(struct azoth_events *it)
{
    if (!it)
        return;
    close_scan(it);
    buf_fini(&it->page);
    free(it);
}

/* ---- any request, for the command ---- */

static int local_transaction(struct azoth *db, const struct wire_request *req, struct buf *store,
                             struct wire_answer *ret, struct azoth_error *err)
{
    struct azoth_txn *t = azoth_txn_new(db);
    if (!t)
        return error_set(err, AZOTH_ERR_NOMEM, "a transaction");
    struct azoth_commit_info info;
    struct azoth_error why = {0};
    size_t at = 0;
    struct txn_item it;
    int rc = txn_check(req->body, &why);
    while (!rc && txn_next(req->body, &at, &it))
        rc = txn_add(&t->builder, &it, &why);
    if (req->id.len == AZOTH_ID_BYTES)
        azoth_txn_set_id(t, req->id.ptr);
    azoth_txn_set_deadline(t, req->deadline_ms);
    t->wait_paused |= (req->flags & WIRE_WAIT_PAUSED) != 0;
    if (!rc)
        rc = azoth_commit(t, &info, &why);
    if (rc) {
        answer_error(req, &why, store, ret);
    } else {
        struct txn_result r = {info.txn,          info.first_event,  info.last_event,
                               info.keys_written, info.keys_deleted, info.keys_missing,
                               info.duplicate};
        answer_txn(req, &r, ret);
    }
    azoth_txn_free(t);
    return 0;
}

static int id_in_hands(struct azoth *db, struct azoth_bytes id)
{
    struct attachment *a;
    if (db->read_only || id.len != AZOTH_ID_BYTES || local_attach(db->local, 0, &a, NULL) != 0)
        return 0;
    int found = slot_find_id(a->segment, id.ptr);
    local_release(db->local, a);
    return found;
}

int client_request(struct azoth *db, const struct wire_request *req, struct buf *store,
                   struct wire_answer *ret, struct azoth_error *err)
{
    int rc = handle_check(db, err);
    if (rc)
        return rc;
    if (db->remote)
        return remote_call(db->remote, req, clock_mono_ns() + req->deadline_ms * NS_PER_MS, store,
                           ret, err);
    if (req->kind == WIRE_CALL)
        return error_set(err, AZOTH_ERR_UNSUPPORTED,
                         "commands run in workers: give their endpoint");
    if (req->kind == WIRE_TX)
        return local_transaction(db, req, store, ret, err);
    /* The queue first, then the store: what leaves one is in the other by then. */
    int in_hands = req->kind == WIRE_OUTCOME && id_in_hands(db, req->id);
    answer_read(db->local->store, req, in_hands, store, ret);
    return 0;
}

int azoth_outcome(struct azoth *db, const uint8_t id[AZOTH_ID_BYTES],
                  struct azoth_commit_info *info, struct azoth_error *err)
{
    struct wire_request req = {.kind = WIRE_OUTCOME,
                               .deadline_ms = db->deadline_ms,
                               .limit = 1,
                               .id = bytes_of(id, AZOTH_ID_BYTES)};
    struct wire_answer a;
    struct buf store = {0};
    int rc = client_request(db, &req, &store, &a, err);
    if (!rc && a.code)
        rc = error_set(err, a.code, "%.*s", (int)a.message.len, (const char *)a.message.ptr);
    if (!rc && info)
        *info = (struct azoth_commit_info){
            a.txn, a.first_event, a.last_event, a.keys_written, a.keys_deleted, a.keys_missing, 0};
    buf_fini(&store);
    return rc;
}

/* ---- values ---- */

int azoth_value_i64(struct azoth_value v, int64_t *ret)
{
    return value_i64(v, ret);
}

int azoth_value_u256(struct azoth_value v, struct azoth_u256 *ret)
{
    return value_u256(v, ret);
}

int azoth_value_count(struct azoth_value v, uint32_t *ret)
{
    return value_count(v, ret);
}

int azoth_value_next(struct azoth_value v, size_t *at, struct azoth_bytes *ret)
{
    return value_next(v, at, ret);
}

int azoth_value_json(struct azoth_value v, char *out, size_t size)
{
    struct buf b = {0};
    int rc = value_to_json(&b, v);
    if (!rc)
        rc = snprintf(out, size, "%.*s", (int)b.len, (const char *)b.ptr);
    buf_fini(&b);
    return rc;
}

int azoth_u256_parse(const char *decimal, struct azoth_u256 *ret)
{
    return u256_parse(bytes_str(decimal), ret);
}

size_t azoth_u256_text(const struct azoth_u256 *n, char out[80])
{
    return u256_text(n, out);
}

/* ---- operating ---- */

#define SHARDS_COUNTED 64u

/* 1 when all shards of one split are there (another one's rows may be of processes that are gone), 0 not
 * yet, NOT_FOUND when the feed never heard of the projection. */
static int projected(struct gauges *g, const char *name, uint64_t event_id)
{
    uint32_t there[SHARDS_COUNTED + 1] = {0};
    int rows = 0;
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++) {
        struct projection_row row;
        if (!projection_row_read(g, i, &row) || strcmp(row.name, name) != 0)
            continue;
        rows++;
        /* One ahead of the log follows another history: that it has an event of this number says nothing. */
        if (row.cursor > projection_row_head(&row, gauge_get(&g->g->head_event)))
            continue;
        if (row.cursor >= event_id && row.shards <= SHARDS_COUNTED &&
            ++there[row.shards] == row.shards)
            return 1;
    }
    return rows ? 0 : AZOTH_ERR_NOT_FOUND;
}

int azoth_wait_projected(struct azoth *db, const char *name, uint64_t event_id, uint32_t timeout_ms,
                         struct azoth_error *err)
{
    struct segment_name sn;
    struct gauges *g;
    if (db->remote)
        return error_set(err, AZOTH_ERR_UNSUPPORTED, "waiting needs a handle on the directory");
    int rc = segment_name_of(db->local->dir, &sn, err);
    if (!rc)
        rc = gauges_attach(&sn, 0, &g, err);
    if (rc)
        return rc;
    uint64_t until = clock_mono_ns() + timeout_ms * NS_PER_MS;
    for (;;) {
        rc = g ? projected(g, name, event_id) : 0;
        if (rc == 1 || clock_mono_ns() >= until)
            break;
        /* A writer that was stopped took them away, and another one makes them anew. */
        if (!g || gauges_taken(g)) {
            gauges_detach(g);
            if (gauges_attach(&sn, 0, &g, NULL))
                g = NULL;
        }
        /* Rows are written by the feed, which wakes nobody: a few looks a second are cheap. */
        struct timespec ts = {0, 2 * (long)NS_PER_MS};
        nanosleep(&ts, NULL);
    }
    gauges_detach(g);
    if (rc == 1)
        return 0;
    return rc < 0 ? error_set(err, rc, "no projection %s has reported", name)
                  : error_set(err, AZOTH_ERR_TIMEOUT, "projection %s has not applied event %llu",
                              name, (unsigned long long)event_id);
}
