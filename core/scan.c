/*
 * scan.c - ordered reads: state by prefix and range, events by id. One cursor in one snapshot each,
 * so nothing is skipped or seen twice, whatever bytes the keys have.
 *
 * Events are looked for in LMDB first, which costs those that are there nothing; one that is not is in a segment if
 * it was archived, and then so are those behind it up to the first that is in LMDB.
 */
#include "core/store.h"
#include "core/store_lmdb.h"

#include <string.h>
#include <xxhash.h>

struct scan {
    struct snapshot *snapshot;
    MDB_cursor *cursor;
    int started, ended;
    unsigned char start[AZOTH_KEY_MAX], prefix[AZOTH_KEY_MAX], end[AZOTH_KEY_MAX];
    size_t start_len, prefix_len, end_len;
    struct azoth_bytes
        before; /* the key that came last, which lies still as long as the snapshot */
};

static int bound_copy(unsigned char *to, size_t *to_len, struct azoth_bytes b,
                      struct azoth_error *err)
{
    if (b.len > AZOTH_KEY_MAX)
        return error_set(err, AZOTH_ERR_KEY_SIZE, "a bound of %zu bytes", b.len);
    if (b.len)
        memcpy(to, b.ptr, b.len);
    *to_len = b.len;
    return 0;
}

int scan_open(struct snapshot *sn, struct azoth_bytes prefix, struct azoth_bytes from,
              struct azoth_bytes to, struct scan **ret, struct azoth_error *err)
{
    struct scan *sc = malloc(sizeof *sc);
    if (!sc)
        return error_set(err, AZOTH_ERR_NOMEM, "a scan");
    sc->snapshot = sn;
    sc->started = sc->ended = 0;
    sc->before = (struct azoth_bytes){0};
    struct azoth_bytes start = bytes_cmp(from, prefix) > 0 ? from : prefix;
    int rc = bound_copy(sc->start, &sc->start_len, start, err);
    if (!rc)
        rc = bound_copy(sc->prefix, &sc->prefix_len, prefix, err);
    if (!rc)
        rc = bound_copy(sc->end, &sc->end_len, to, err);
    if (!rc) {
        int m = mdb_cursor_open(snapshot_txn(sn), store_lmdb(snapshot_store(sn))->dbi[DB_STATE],
                                &sc->cursor);
        if (m)
            rc = lmdb_error(err, m, "scan");
    }
    if (rc) {
        free(sc);
        return rc;
    }
    *ret = sc;
    return 0;
}

int scan_next(struct scan *sc, struct azoth_bytes *ret_key, struct state_record *ret,
              struct azoth_error *err)
{
    if (sc->ended)
        return 0;
    MDB_val k = {sc->start_len, sc->start}, v;
    MDB_cursor_op op = sc->started ? MDB_NEXT : sc->start_len ? MDB_SET_RANGE : MDB_FIRST;
    int rc = mdb_cursor_get(sc->cursor, &k, &v, op);
    sc->started = 1;
    if (rc && rc != MDB_NOTFOUND)
        return lmdb_error(err, rc, "scan");
    struct azoth_bytes key = bytes_of_val(k);
    if (rc == MDB_NOTFOUND ||
        (sc->prefix_len &&
         (key.len < sc->prefix_len || memcmp(key.ptr, sc->prefix, sc->prefix_len) != 0)) ||
        (sc->end_len && bytes_cmp(key, bytes_of(sc->end, sc->end_len)) >= 0)) {
        sc->ended = 1;
        return 0;
    }
    char text[80];
    rc = record_state_decode(key, bytes_of_val(v), ret);
    if (rc)
        return error_set(err, rc, "key %s: the stored record fails its check",
                         bytes_print(key, text, sizeof text));
    /* A page in the place of another has good records: keys were lost then, and others come twice. */
    if (sc->before.len && bytes_cmp(sc->before, key) >= 0)
        return error_set(err, AZOTH_ERR_CORRUPT, "key %s is out of order",
                         bytes_print(key, text, sizeof text));
    sc->before = key;
    *ret_key = key;
    return 1;
}

void scan_close(struct scan *sc)
{
    if (!sc)
        return;
    mdb_cursor_close(sc->cursor);
    free(sc);
}

/* ---- what was archived ---- */

int snapshot_archive(struct snapshot *sn, struct archived_state *ret, struct azoth_error *err)
{
    MDB_val k = {7, "archive"}, v;
    int rc = mdb_get(snapshot_txn(sn), store_lmdb(snapshot_store(sn))->dbi[DB_META], &k, &v);
    if (rc == MDB_NOTFOUND) {
        *ret = (struct archived_state){.first_in_store = 1};
        return 0;
    }
    if (rc)
        return lmdb_error(err, rc, "meta/archive");
    rc = archived_state_decode(bytes_of_val(v), ret);
    return rc ? error_set(err, rc, "meta/archive fails its check") : 0;
}

int snapshot_archive_of(struct snapshot *sn, uint64_t id, struct archived_entry *ret,
                        struct azoth_error *err)
{
    unsigned char key[ARCHIVE_KEY];
    MDB_cursor *cursor;
    archived_key(key, id);
    int rc =
        mdb_cursor_open(snapshot_txn(sn), store_lmdb(snapshot_store(sn))->dbi[DB_META], &cursor);
    if (rc)
        return lmdb_error(err, rc, "meta/segment");
    MDB_val k = {sizeof key, key}, v;
    /* They are keyed by their last events: the first one from here on. */
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    mdb_cursor_close(cursor);
    if (rc && rc != MDB_NOTFOUND)
        return lmdb_error(err, rc, "meta/segment");
    if (rc || k.mv_size != sizeof key || memcmp(k.mv_data, ARCHIVE_KEY_PREFIX, 8) != 0)
        return 0;
    uint64_t last = get_be64((const unsigned char *)k.mv_data + 8);
    rc = archived_entry_decode(bytes_of_val(v), ret);
    if (rc || ret->about.last != last) {
        ret->about.last = last;
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "the record of the segment up to event %llu fails its check",
                         (unsigned long long)last);
    }
    return ret->about.first <= id;
}

int snapshot_archives(struct snapshot *sn,
                      int (*each)(void *arg, const struct archived_entry *e,
                                  struct azoth_error *err),
                      void *arg, struct azoth_error *err)
{
    struct archived_state state = {0};
    struct archived_entry *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's record");
    int rc = snapshot_archive(sn, &state, err);
    for (uint64_t id = 1; !rc && id <= state.last_archived; id = e->about.last + 1) {
        int got = snapshot_archive_of(sn, id, e, err);
        if (got == 0)
            got = error_set(err, AZOTH_ERR_CORRUPT, "event %llu is in no recorded segment",
                            (unsigned long long)id);
        rc = got < 0 ? got : each(arg, e, err);
    }
    int more = rc ? 0 : snapshot_archive_of(sn, state.last_archived + 1, e, err);
    if (more == 1)
        more = error_set(
            err, AZOTH_ERR_CORRUPT,
            "meta/archive knows of events up to %llu, and a segment up to event %llu is recorded",
            (unsigned long long)state.last_archived, (unsigned long long)e->about.last);
    rc = rc ? rc : more;
    free(e);
    return rc;
}

/* ---- events ---- */

struct event_scan {
    struct snapshot *snapshot;
    MDB_cursor *cursor;
    uint64_t next, end;
    int started, ended;
    uintptr_t page; /* where the last record was */

    uint64_t follows; /* after a gap: the event behind it */
    uint64_t border;  /* in segments: the first event that is in LMDB; 0: not in segments */
    struct archived_block
        *block; /* of a segment: which holds `next`, or was just read to its end */
    size_t at;  /* in its frames */
};

int event_scan_open(struct snapshot *sn, uint64_t from, uint64_t to, struct event_scan **ret,
                    struct azoth_error *err)
{
    struct event_scan *es = malloc(sizeof *es);
    if (!es)
        return error_set(err, AZOTH_ERR_NOMEM, "a scan of events");
    *es = (struct event_scan){.snapshot = sn, .next = from ? from : 1, .end = to};
    int rc = mdb_cursor_open(snapshot_txn(sn), store_lmdb(snapshot_store(sn))->dbi[DB_EVENTS],
                             &es->cursor);
    if (rc) {
        free(es);
        return lmdb_error(err, rc, "events");
    }
    *ret = es;
    return 0;
}

/*
 * The leaf after this one, which in a log that was appended to is mostly the next page of the file.
 * Without the hints (they read nothing, any address will do) a scan of a log that is not in the
 * processor's cache waits for memory most of its time: LMDB fills a leaf from its end downwards, and
 * what fetches ahead in the processor itself stops at the end of a page.
 */
static void read_soon(struct event_scan *es, const void *record)
{
    const uintptr_t page = 4096, first = (uintptr_t)record & ~(page - 1);
    if (first == es->page)
        return;
    es->page = first;
    for (uintptr_t line = 0; line < page; line += 64)
        __builtin_prefetch((const void *)(first + page + line));
}

/* The newest record of the segment that ends where e does: 1 when it tells another path, which is e's then. */
static int renew_path(struct store *st, struct archived_entry *e)
{
    struct snapshot *now;
    struct archived_entry *newer = calloc(1, sizeof *newer);
    if (!newer || snapshot_begin(st, &now, NULL)) {
        free(newer);
        return 0;
    }
    int moved = snapshot_archive_of(now, e->about.last, newer, NULL) == 1 &&
                newer->about.last == e->about.last && strcmp(newer->path, e->path) != 0;
    snapshot_end(now);
    if (moved)
        memcpy(e->path, newer->path, sizeof e->path);
    free(newer);
    return moved;
}

int store_archive_open(struct store *s, const struct archived_entry *e, struct archivefile **ret,
                       struct azoth_error *err)
{
    struct archived_cache *c = store_archive(s);
    struct archived_entry *at = malloc(sizeof *at);
    int rc = c && at ? 0 : error_set(err, AZOTH_ERR_NOMEM, "a segment's record");
    if (!rc) {
        *at = *e;
        do
            rc = archived_cache_open(c, at, ret, err);
        while (rc == AZOTH_ERR_NOT_FOUND && renew_path(s, at));
    }
    free(at);
    return rc;
}

/* The block that has the next event. */
static int load_block(struct event_scan *es, struct azoth_error *err)
{
    struct store *st = snapshot_store(es->snapshot);
    struct archived_cache *c = store_archive(st);
    struct archived_entry *e = calloc(1, sizeof *e);
    int rc = c && e ? snapshot_archive_of(es->snapshot, es->next, e, err)
                    : error_set(err, AZOTH_ERR_NOMEM, "a segment's record");
    archived_block_release(c, es->block);
    es->block = NULL;
    es->at = 0;
    if (rc == 0)
        rc = error_set(err, AZOTH_ERR_GAP, "event %llu is missing: no segment has it",
                       (unsigned long long)es->next);
    if (rc == 1) {
        do /* the file may have been moved since the snapshot was taken */
            rc = archived_cache_block(c, e, es->next, &es->block, err);
        while (rc == AZOTH_ERR_NOT_FOUND && renew_path(st, e));
        /* What can not be read there is no verdict on LMDB. The message names the file. */
        if (rc == AZOTH_ERR_IO)
            rc = AZOTH_ERR_CORRUPT;
    }
    free(e);
    return rc;
}

static int next_archived(struct event_scan *es, struct event_record *ret,
                         struct azoth_bytes *ret_raw, struct azoth_error *err)
{
    for (;;) {
        struct azoth_bytes frames = {0};
        if (es->block)
            frames = archived_block_frames(es->block);
        if (es->at >= frames.len) {
            int rc = load_block(es, err);
            if (rc)
                return rc;
            frames = archived_block_frames(es->block);
        }
        size_t at = es->at;
        int rc = record_frame_next(frames, &es->at, ret, NULL);
        if (rc == 1 && ret->id < es->next)
            continue; /* the block begins before what was asked for */
        if (rc != 1 || ret->id != es->next)
            return error_set(err, rc < 0 ? rc : AZOTH_ERR_CORRUPT,
                             "event %llu: its record in a segment fails its check",
                             (unsigned long long)es->next);
        if (ret_raw)
            *ret_raw = bytes_of((const unsigned char *)frames.ptr + at + RECORD_FRAME_HEADER,
                                es->at - at - RECORD_FRAME_HEADER);
        es->next++;
        return 1;
    }
}

/* LMDB does not have the next event: in segments from here on, when it was archived. 1 then, 0 when not. */
static int enter_segments(struct event_scan *es, struct azoth_error *err)
{
    struct archived_state state = {0};
    int rc = snapshot_archive(es->snapshot, &state, err);
    if (rc)
        return rc;
    if (es->next >= state.first_in_store)
        return 0;
    es->border = state.first_in_store;
    return 1;
}

int event_scan_next(struct event_scan *es, struct event_record *ret, struct azoth_bytes *ret_raw,
                    struct azoth_error *err)
{
    if (es->ended || (es->end && es->next >= es->end))
        return 0;
    if (es->next < es->border)
        return next_archived(es, ret, ret_raw, err);
    unsigned char id[8];
    put_be64(id, es->next);
    MDB_val k = {8, id}, v;
    int rc = mdb_cursor_get(es->cursor, &k, &v, es->started ? MDB_NEXT : MDB_SET_RANGE);
    if (rc && rc != MDB_NOTFOUND)
        return lmdb_error(err, rc, "events");
    if (rc == 0 && k.mv_size != 8)
        return error_set(err, AZOTH_ERR_CORRUPT, "an event's key has %zu bytes", k.mv_size);
    uint64_t at = rc ? 0 : get_be64(k.mv_data);
    if (at != es->next && !es->started && !es->border) {
        int archived = enter_segments(es, err);
        if (archived)
            return archived < 0 ? archived : next_archived(es, ret, ret_raw, err);
    }
    if (rc == MDB_NOTFOUND) {
        es->ended = 1;
        return 0;
    }
    /* Ids are gapless: what is missing was lost, and to read on would hide it. */
    es->follows = at;
    if (at != es->next)
        return error_set(err, AZOTH_ERR_GAP, "event %llu is missing: %llu follows",
                         (unsigned long long)es->next, (unsigned long long)at);
    es->started = 1;
    read_soon(es, v.mv_data);
    rc = record_event_decode(at, bytes_of_val(v), ret);
    if (rc)
        return error_set(err, rc, "event %llu: the stored record fails its check",
                         (unsigned long long)at);
    if (ret_raw)
        *ret_raw = bytes_of_val(v);
    es->next = at + 1;
    return 1;
}

uint64_t event_scan_behind(struct event_scan *es, int *ret_segment)
{
    struct archived_cache *c = store_archive(snapshot_store(es->snapshot));
    struct archived_entry *e = calloc(1, sizeof *e);
    uint64_t behind = es->follows > es->next ? es->follows : es->next + 1;
    *ret_segment = es->next < es->border;
    if (*ret_segment && c && e) {
        int rc = snapshot_archive_of(es->snapshot, es->next, e, NULL);
        behind = rc == 1                               ? archived_cache_behind(c, e, es->next)
                 : rc < 0 && e->about.last >= es->next ? e->about.last + 1
                 : rc == 0 && e->about.first > es->next && e->about.first < es->border
                     ? e->about.first
                     : es->border;
        behind = behind < es->border ? behind : es->border;
    }
    free(e);
    return behind;
}

void event_scan_close(struct event_scan *es)
{
    if (!es)
        return;
    if (es->block)
        archived_block_release(store_archive(snapshot_store(es->snapshot)), es->block);
    mdb_cursor_close(es->cursor);
    free(es);
}

/* ---- one event, by its id and by its transaction ---- */

int snapshot_event(struct snapshot *sn, uint64_t id, struct event_stamp *ret,
                   struct azoth_error *err)
{
    struct event_scan *es = NULL;
    struct event_record ev = {0};
    struct azoth_bytes raw = {0};
    int rc = event_scan_open(sn, id, id + 1, &es, err);
    if (rc || !es) /* the second for the static analyzer */
        return rc;
    rc = event_scan_next(es, &ev, &raw, err);
    if (rc == 1)
        *ret = (struct event_stamp){ev.txn, ev.time_ns, record_checksum(raw)};
    event_scan_close(es);
    return rc;
}

static int txn_of_event(struct snapshot *sn, uint64_t id, uint64_t *ret, struct azoth_error *err)
{
    struct event_stamp stamp = {0};
    int rc = snapshot_event(sn, id, &stamp, err);
    if (rc == 0)
        return error_set(err, AZOTH_ERR_GAP, "event %llu is missing", (unsigned long long)id);
    if (rc == 1)
        *ret = stamp.txn;
    return rc < 0 ? rc : 0;
}

int snapshot_event_of_txn(struct snapshot *sn, uint64_t txn, uint64_t *ret_id,
                          struct azoth_error *err)
{
    struct store_head head;
    int rc = snapshot_head(sn, &head, err);
    if (rc)
        return rc;
    /* Back from the head in doubled steps, since what is asked for is mostly new: `before` ends up at an
     * event of an earlier transaction, `from` at one that is not earlier. */
    uint64_t from = head.event + 1, before = head.event, step = 1, seen = 0;
    while (!rc && before > 0) {
        rc = txn_of_event(sn, before, &seen, err);
        if (rc || seen < txn)
            break;
        from = before;
        before = before > step ? before - step : 0;
        step *= 2;
    }
    while (!rc && from - before > 1) {
        uint64_t middle = before + (from - before) / 2;
        rc = txn_of_event(sn, middle, &seen, err);
        if (seen < txn)
            before = middle;
        else
            from = middle;
    }
    if (rc || from > head.event)
        return rc;
    rc = txn_of_event(sn, from, &seen, err);
    if (rc || seen != txn)
        return rc;
    *ret_id = from;
    return 1;
}

/* ---- request ids ---- */

struct id_scan {
    struct snapshot *snapshot;
    MDB_cursor *cursor;
};

int id_scan_open(struct snapshot *sn, struct id_scan **ret, struct azoth_error *err)
{
    struct id_scan *is = malloc(sizeof *is);
    if (!is)
        return error_set(err, AZOTH_ERR_NOMEM, "a scan of request ids");
    is->snapshot = sn;
    int rc = mdb_cursor_open(snapshot_txn(sn), store_lmdb(snapshot_store(sn))->dbi[DB_IDS_AGE],
                             &is->cursor);
    if (rc) {
        free(is);
        return lmdb_error(err, rc, "ids_age");
    }
    *ret = is;
    return 0;
}

int id_scan_next(struct id_scan *is, struct id_entry *ret, struct azoth_error *err)
{
    MDB_val k, v, ik, iv;
    struct txn_result unused;
    uint64_t content, age;
    int rc = mdb_cursor_get(is->cursor, &k, &v, MDB_NEXT);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return lmdb_error(err, rc, "ids_age");
    if (k.mv_size != 8 || v.mv_size != AZOTH_ID_BYTES + 8)
        return error_set(err, AZOTH_ERR_CORRUPT, "an entry of ids_age has %zu and %zu bytes",
                         k.mv_size, v.mv_size);
    ret->age = get_be64(k.mv_data);
    memcpy(ret->id, v.mv_data, AZOTH_ID_BYTES);
    ret->born_ms = get_u64((const unsigned char *)v.mv_data + AZOTH_ID_BYTES);
    ik = (MDB_val){AZOTH_ID_BYTES, ret->id};
    rc = mdb_get(snapshot_txn(is->snapshot), store_lmdb(snapshot_store(is->snapshot))->dbi[DB_IDS],
                 &ik, &iv);
    if (rc && rc != MDB_NOTFOUND)
        return lmdb_error(err, rc, "ids");
    if (rc || store_id_decode(ret->id, bytes_of_val(iv), &unused, &content, &age) ||
        age != ret->age)
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "request id %llu: its record is not there or fails its check",
                         (unsigned long long)ret->age);
    ret->record = bytes_of_val(iv);
    return 1;
}

void id_scan_close(struct id_scan *is)
{
    if (!is)
        return;
    mdb_cursor_close(is->cursor);
    free(is);
}

/* What is told of one id: of both tables, in whatever order, it must add up to the same. */
static void id_sum(XXH128_hash_t *sum, uint64_t age, const uint8_t *id)
{
    unsigned char b[8 + AZOTH_ID_BYTES];
    put_u64(b, age);
    memcpy(b + 8, id, AZOTH_ID_BYTES);
    XXH128_hash_t h = XXH3_128bits(b, sizeof b);
    sum->low64 += h.low64;
    sum->high64 += h.high64;
}

static int sum_ids(MDB_cursor *c, XXH128_hash_t *sum, struct azoth_error *err)
{
    MDB_val k, v;
    struct txn_result unused;
    uint64_t content, age;
    int rc;
    while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
        if (k.mv_size != AZOTH_ID_BYTES ||
            store_id_decode(k.mv_data, bytes_of_val(v), &unused, &content, &age))
            return error_set(err, AZOTH_ERR_CORRUPT, "a request id's record fails its check");
        id_sum(sum, age, k.mv_data);
    }
    return rc == MDB_NOTFOUND ? 0 : lmdb_error(err, rc, "ids");
}

static int sum_ages(MDB_cursor *c, XXH128_hash_t *sum, struct azoth_error *err)
{
    MDB_val k, v;
    int rc;
    while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
        if (k.mv_size != 8 || v.mv_size != AZOTH_ID_BYTES + 8)
            return error_set(err, AZOTH_ERR_CORRUPT, "an entry of ids_age has %zu and %zu bytes",
                             k.mv_size, v.mv_size);
        id_sum(sum, get_be64(k.mv_data), v.mv_data);
    }
    return rc == MDB_NOTFOUND ? 0 : lmdb_error(err, rc, "ids_age");
}

int ids_agree(struct snapshot *sn, struct azoth_error *err)
{
    XXH128_hash_t sum[2] = {{0, 0}, {0, 0}};
    int rc = 0;
    for (int i = 0; i < 2 && !rc; i++) {
        MDB_cursor *c;
        rc = mdb_cursor_open(snapshot_txn(sn),
                             store_lmdb(snapshot_store(sn))->dbi[i ? DB_IDS_AGE : DB_IDS], &c);
        if (rc)
            return lmdb_error(err, rc, "ids");
        rc = i ? sum_ages(c, &sum[i], err) : sum_ids(c, &sum[i], err);
        mdb_cursor_close(c);
    }
    if (!rc && !XXH128_isEqual(sum[0], sum[1]))
        rc = error_set(err, AZOTH_ERR_CORRUPT, "ids and ids_age do not tell of the same commits");
    return rc;
}
