/* feed_look.c - snapshots of the feed: begun, read within bounds, ended. */
#include "writer/feed_look.h"

#include "core/error.h"
#include "core/record.h"

#include <jansson.h>
#include <string.h>
#include <xxhash.h>

static int wanted_type(const struct feed_filter *fl, struct azoth_bytes type)
{
    if (fl->types_len == 0)
        return 1;
    for (size_t at = 0; at + 1 <= fl->types_len;) {
        size_t n = fl->types[at];
        if (n > fl->types_len - at - 1)
            return 0;
        if (n == type.len && memcmp(fl->types + at + 1, type.ptr, n) == 0)
            return 1;
        at += 1 + n;
    }
    return 0;
}

/* The shard of an event: by its stream key, or by a field of its payload. */
static int wanted_shard(const struct feed_filter *fl, const struct event_record *ev)
{
    if (fl->shards <= 1)
        return 1;
    if (fl->shard_by[0] != ':')
        return XXH64(ev->key.ptr, ev->key.len, 0) % fl->shards == fl->shard;
    json_t *o = json_loadb(ev->payload.ptr, ev->payload.len, JSON_ALLOW_NUL, NULL);
    const json_t *v = json_object_get(o, fl->shard_by + 1);
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : NULL;
    uint64_t h = text ? XXH64(text, strlen(text), 0) : 0;
    free(text);
    json_decref(o);
    return h % fl->shards == fl->shard;
}

static int look_on(struct event_scan *es, const struct feed_filter *filter, size_t most,
                   struct buf *frames, struct feed_look *l, struct azoth_error *err)
{
    struct event_record ev;
    struct azoth_bytes raw;
    size_t bytes = 0;
    uint32_t n = 0;
    if (most > FEED_LOOK_BYTES)
        most = FEED_LOOK_BYTES;
    for (; n < FEED_LOOK_EVENTS && bytes < FEED_LOOK_BYTES && l->bytes < most; n++) {
        int got = event_scan_next(es, &ev, &raw, err);
        /* Damage behind good events is met again by the next look, which begins there. */
        if (got < 0)
            return n && feed_is_damage(got) ? 0 : got;
        if (got == 0 && n == 0 && l->last < l->head)
            return error_set(err, AZOTH_ERR_GAP, "event %llu is missing: the head is %llu",
                             (unsigned long long)l->last + 1, (unsigned long long)l->head);
        if (got == 0)
            return 0;
        int wanted = wanted_type(filter, ev.type) && wanted_shard(filter, &ev);
        size_t size = wanted ? RECORD_FRAME_HEADER + raw.len : 0;
        if (l->bytes && l->bytes + size > most)
            return 0;
        int rc = wanted ? record_frame_add(frames, ev.id, raw) : 0;
        if (rc)
            return error_set(err, rc, "a batch of events");
        l->last = ev.id;
        l->last_check = record_checksum(raw);
        l->wanted += (uint64_t)wanted;
        l->bytes += size;
        bytes += raw.len;
    }
    return 0;
}

int feed_look(struct store *store, const struct feed_filter *filter, uint64_t cursor, size_t most,
              struct buf *frames, struct feed_look *ret, struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head head;
    struct event_scan *es = NULL;
    int rc = snapshot_begin(store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    if (!rc)
        rc = event_scan_open(sn, cursor + 1, filter->to ? filter->to + 1 : 0, &es, err);
    if (!rc) {
        *ret = (struct feed_look){.head = head.event, .last = cursor};
        rc = look_on(es, filter, most, frames, ret, err);
    }
    event_scan_close(es);
    snapshot_end(sn);
    return rc;
}

static int same_event(struct snapshot *sn, uint64_t cursor, uint32_t check, struct azoth_error *err)
{
    struct event_stamp stamp = {0};
    int rc = snapshot_event(sn, cursor, &stamp, err);
    if (rc == 0)
        return error_set(err, AZOTH_ERR_GAP, "event %llu is missing: the log ends before it",
                         (unsigned long long)cursor);
    if (rc == 1 && stamp.check != check)
        return error_set(err, AZOTH_ERR_DIVERGED, "event %llu is not the one that was applied",
                         (unsigned long long)cursor);
    return rc < 0 ? rc : 0;
}

int feed_same_history(struct store *store, uint64_t cursor, uint32_t check, uint64_t *ret_head,
                      struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head head;
    int rc = snapshot_begin(store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    if (!rc) {
        *ret_head = head.event;
        if (cursor > head.event)
            rc = error_set(err, AZOTH_ERR_DIVERGED, "cursor %llu is beyond the log's head %llu",
                           (unsigned long long)cursor, (unsigned long long)head.event);
        else if (cursor)
            rc = same_event(sn, cursor, check, err);
    }
    snapshot_end(sn);
    return rc;
}
