/*
 * increment.c - reads redo records and events of the same transactions out of a store, and back out of a part.
 *
 * Both lie in the order of transactions, so a look is one walk along the redo records with the events beside them. A
 * look ends when a part is full; the next one begins a snapshot of its own.
 */
#include "writer/increment.h"

#include "core/error.h"
#include "writer/backupfile.h"

#include <string.h>

/* So many transactions in a look at most: small ones take longer than their bytes say. */
#define LOOK_TXNS 50000u

struct look {
    struct increment_at *at;
    struct redo_scan *redo;
    struct event_scan *events;
    struct buf part, frames, records; /* of the look; of one transaction */
    uint32_t txns;
    /* for increment_cut() */
    uint64_t left; /* bytes until the cut; UINT64_MAX: there is none */
    int checked, some,
        cut; /* what is behind the cut needs no look;  a transaction lies before it; it was come to */
    struct store_head end;
};

/* Behind it the state is that which `next` found. */
static int is_cut(struct look *l, const struct redo_record *next, size_t bytes)
{
    if (l->cut || l->left == UINT64_MAX)
        return 0;
    if (!l->some || bytes <= l->left) {
        l->left -= bytes < l->left ? bytes : l->left;
        l->some = 1;
        l->end.time_ns = next->time_ns;
        l->end.running_ms = next->running_ms;
        return 0;
    }
    l->cut = 1;
    l->end.txn = l->at->txn;
    l->end.event = l->at->event;
    l->end.chain = l->at->chain;
    l->end.id_first = next->id_first;
    return 1;
}

static int gather_event(struct look *l, const struct redo_record *r, uint64_t want,
                        struct azoth_error *err)
{
    struct event_record ev;
    struct azoth_bytes raw;
    int rc = event_scan_next(l->events, &ev, &raw, err);
    if (rc < 0)
        return rc;
    if (rc == 0 || ev.id != want)
        return error_set(err, AZOTH_ERR_GAP, "event %llu is missing", (unsigned long long)want);
    if (ev.txn != r->txn || ev.time_ns != r->time_ns)
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "event %llu and the redo record of transaction %llu do not agree",
                         (unsigned long long)want, (unsigned long long)r->txn);
    return record_frame_add(&l->frames, ev.id, raw)
               ? error_set(err, AZOTH_ERR_NOMEM, "a transaction's events")
               : 0;
}

/* What was read borrows the scan until its next call, if it lies in a segment: these borrow l->frames. */
static int decode_frames(struct look *l, struct azoth_error *err)
{
    struct event_record ev;
    size_t at = 0;
    int rc;
    while ((rc = record_frame_next(buf_bytes(&l->frames), &at, &ev, NULL)) == 1)
        if (buf_add(&l->records, &ev, sizeof ev))
            return error_set(err, AZOTH_ERR_NOMEM, "a transaction's events");
    return rc ? error_set(err, rc, "an event fails its check") : 0;
}

/* The events of r into l->frames and l->records. */
static int gather(struct look *l, const struct redo_record *r, struct azoth_error *err)
{
    int rc = 0;
    buf_clear(&l->frames);
    buf_clear(&l->records);
    if (!r->last_event)
        return 0;
    if (r->first_event != l->at->event + 1)
        return error_set(err, AZOTH_ERR_GAP, "transaction %llu begins with event %llu, not %llu",
                         (unsigned long long)r->txn, (unsigned long long)r->first_event,
                         (unsigned long long)l->at->event + 1);
    for (uint64_t id = r->first_event; !rc && id <= r->last_event; id++)
        rc = gather_event(l, r, id, err);
    return rc ? rc : decode_frames(l, err);
}

static int add_entry(struct look *l, uint64_t txn, struct azoth_bytes redo, struct azoth_error *err)
{
    unsigned char *p = buf_grow(&l->part, INCREMENT_HEADER + redo.len + l->frames.len);
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a part of an incremental backup");
    put_u64(p, txn);
    put_u64(p + 8, redo.len);
    put_u64(p + 16, l->frames.len);
    memcpy(p + INCREMENT_HEADER, redo.ptr, redo.len);
    if (l->frames.len)
        memcpy(p + INCREMENT_HEADER + redo.len, l->frames.ptr, l->frames.len);
    return 0;
}

static void chain_on(struct chain *c, const struct buf *records)
{
    if (c->on && records->len)
        chain_extend(c, (const void *)records->ptr,
                     (uint32_t)(records->len / sizeof(struct event_record)));
}

/* 1: taken; 0: the part is full, or nothing is left. */
static int take_one(struct look *l, uint64_t to, struct azoth_error *err)
{
    struct redo_record r;
    struct azoth_bytes raw;
    if (l->at->txn >= to || l->txns == LOOK_TXNS)
        return 0;
    int rc = redo_scan_next(l->redo, &r, &raw, err);
    if (rc == 0 || rc == AZOTH_ERR_GAP)
        return error_set(err, AZOTH_ERR_BACKUP_MISSING,
                         "the redo record of transaction %llu is not there any more",
                         (unsigned long long)l->at->txn + 1);
    rc = rc < 0 ? rc : gather(l, &r, err);
    if (rc)
        return rc;
    if (l->part.len && l->part.len + INCREMENT_HEADER + raw.len + l->frames.len > BACKUPFILE_PART)
        return 0;
    if (is_cut(l, &r, INCREMENT_HEADER + raw.len + l->frames.len) && l->checked)
        return 0;
    rc = add_entry(l, r.txn, raw, err);
    if (rc)
        return rc;
    chain_on(&l->at->chain, &l->records);
    l->at->txn = r.txn;
    if (r.last_event)
        l->at->event = r.last_event;
    l->txns++;
    return 1;
}

static int look(struct store *s, struct look *l, uint64_t to, struct azoth_error *err)
{
    struct snapshot *sn;
    int rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    l->redo = NULL;
    l->events = NULL;
    l->txns = 0;
    buf_clear(&l->part);
    rc = redo_scan_open(sn, l->at->txn + 1, &l->redo, err);
    if (!rc)
        rc = event_scan_open(sn, l->at->event + 1, 0, &l->events, err);
    while (!rc && (rc = take_one(l, to, err)) == 1)
        rc = 0;
    redo_scan_close(l->redo);
    if (l->events)
        event_scan_close(l->events);
    snapshot_end(sn);
    return rc;
}

static int same_end(const struct increment_at *at, const struct store_head *to,
                    struct azoth_error *err)
{
    if (at->event == to->event && at->chain.on == to->chain.on &&
        (!at->chain.on || memcmp(at->chain.value, to->chain.value, CHAIN_BYTES) == 0))
        return 0;
    return error_set(err, AZOTH_ERR_DIVERGED,
                     "the events do not lead from the newest backup to the log's head");
}

static int walk(struct store *s, struct look *l, const struct store_head *to, export_part part,
                void *arg, struct azoth_error *err)
{
    int rc = 0;
    while (!rc && l->at->txn < to->txn && !(l->cut && l->checked)) {
        rc = look(s, l, to->txn, err);
        if (!rc)
            rc = part(arg, buf_bytes(&l->part), err);
    }
    buf_fini(&l->part);
    buf_fini(&l->frames);
    buf_fini(&l->records);
    return rc || (l->cut && l->checked) ? rc : same_end(l->at, to, err);
}

int increment_export(struct store *s, struct increment_at *at, const struct store_head *to,
                     export_part part, void *arg, struct azoth_error *err)
{
    struct look l = {.at = at, .left = UINT64_MAX};
    return walk(s, &l, to, part, arg, err);
}

int increment_cut(struct store *s, const struct increment_at *at, const struct store_head *to,
                  uint64_t bytes, int checked, export_part part, void *arg, struct store_head *ret,
                  struct azoth_error *err)
{
    struct increment_at here = *at;
    struct look l = {.at = &here, .left = bytes, .checked = checked, .end = *to};
    int rc = walk(s, &l, to, part, arg, err);
    if (!rc)
        *ret = l.cut ? l.end : *to;
    return rc;
}

/* ---- reading a part ---- */

/* The frames are those of the record's events, in order. */
static int check_frames(struct azoth_bytes frames, const struct redo_record *r, struct buf *events)
{
    struct event_record ev;
    size_t at = 0;
    uint64_t id = r->first_event;
    int rc;
    buf_clear(events);
    if (r->last_event && (!r->first_event || r->first_event > r->last_event))
        return AZOTH_ERR_CORRUPT;
    while ((rc = record_frame_next(frames, &at, &ev, NULL)) == 1) {
        if (!r->last_event || ev.id != id || id > r->last_event || ev.txn != r->txn ||
            ev.time_ns != r->time_ns)
            return AZOTH_ERR_CORRUPT;
        if (buf_add(events, &ev, sizeof ev))
            return AZOTH_ERR_NOMEM;
        id++;
    }
    return rc ? rc : r->last_event && id != r->last_event + 1 ? AZOTH_ERR_CORRUPT : 0;
}

int increment_next(struct azoth_bytes part, size_t *at, struct buf *events,
                   struct increment_entry *ret)
{
    size_t left = part.len - *at;
    const unsigned char *p = (const unsigned char *)part.ptr + *at;
    if (!left)
        return 0;
    if (left < INCREMENT_HEADER)
        return AZOTH_ERR_CORRUPT;
    uint64_t txn = get_u64(p), redo = get_u64(p + 8), frames = get_u64(p + 16);
    left -= INCREMENT_HEADER;
    p += INCREMENT_HEADER;
    if (redo > left || frames > left - redo)
        return AZOTH_ERR_CORRUPT;
    int rc = redo_decode(txn, bytes_of(p, (size_t)redo), &ret->redo);
    if (rc)
        return rc;
    ret->frames = bytes_of(p + redo, (size_t)frames);
    ret->events = events;
    rc = check_frames(ret->frames, &ret->redo, events);
    if (rc)
        return rc;
    *at += INCREMENT_HEADER + (size_t)(redo + frames);
    return 1;
}
