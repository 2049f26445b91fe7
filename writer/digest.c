#include "writer/digest.h"

#include "core/error.h"
#include "core/hash.h"
#include "writer/export.h"

#include <string.h>

struct summing {
    struct hash sum;
    int with_times;
    digest_progress progress;
    void *arg;
    uint64_t keys, event, head;
};

static void add(struct summing *d, const void *p, size_t n)
{
    hash_add(&d->sum, p, n);
}

static void add_u64(struct summing *d, uint64_t n)
{
    unsigned char b[8];
    put_u64(b, n);
    add(d, b, sizeof b);
}

static void add_bytes(struct summing *d, struct azoth_bytes b)
{
    unsigned char n[4];
    put_u32(n, (uint32_t)b.len);
    add(d, n, sizeof n);
    if (b.len)
        add(d, b.ptr, b.len);
}

static int tell(struct summing *d)
{
    return d->progress && d->progress(d->arg, d->event, d->head) ? 1 : 0;
}

static int on_state(void *arg, struct azoth_bytes part, struct azoth_error *err)
{
    struct summing *d = arg;
    struct azoth_bytes key, record;
    struct state_record rec;
    size_t at = 0;
    int rc;
    while ((rc = export_state_next(part, &at, &key, &record, &rec)) == 1) {
        unsigned char type = (unsigned char)rec.value.type;
        add_bytes(d, key);
        add(d, &type, 1);
        add_u64(d, rec.version);
        add_bytes(d, rec.value.enc);
    }
    return rc ? error_set(err, rc, "a state record fails its check") : tell(d);
}

static int on_events(void *arg, struct azoth_bytes part, struct azoth_error *err)
{
    struct summing *d = arg;
    struct event_record ev;
    size_t at = 0;
    int rc;
    while ((rc = record_frame_next(part, &at, &ev, NULL)) == 1) {
        add_u64(d, ev.id);
        add_u64(d, ev.txn);
        if (d->with_times)
            add_u64(d, (uint64_t)ev.time_ns);
        add_bytes(d, ev.type);
        add_bytes(d, ev.key);
        add_bytes(d, ev.metadata);
        add_bytes(d, ev.payload);
        d->event = ev.id;
    }
    return rc ? error_set(err, rc, "an event's record fails its check") : tell(d);
}

int digest_store(struct store *s, int with_times, digest_progress progress, void *arg,
                 struct digest *ret, struct azoth_error *err)
{
    static const char plain[] = "azoth digest 1", times[] = "azoth digest 1 with times";
    struct summing d = {.with_times = with_times, .progress = progress, .arg = arg};
    struct snapshot *sn;
    struct store_head head;
    hash_begin(&d.sum);
    add(&d, with_times ? times : plain, with_times ? sizeof times - 1 : sizeof plain - 1);
    int rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    d.head = head.event;
    if (!rc)
        rc = export_state(sn, on_state, &d, &d.keys, err);
    snapshot_end(sn);
    add_u64(&d, d.keys);
    if (!rc)
        rc = export_events(s, 0, head.event, on_events, &d, err);
    add_u64(&d, head.event);
    if (rc)
        return rc;
    ret->keys = d.keys;
    ret->head = head;
    hash_end(&d.sum, ret->sum);
    return 0;
}
