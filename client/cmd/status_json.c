/* status_json.c - what azoth status has seen, as one JSON object. */
#include "client/cmd/status.h"

#include "shm/contention.h"

#include <string.h>

static void json_alive(struct json_text *j, const char *key, int alive)
{
    if (alive < 0)
        out_null(j, key);
    else
        out_bool(j, key, alive);
}

static void json_histogram(struct json_text *j, const char *key, const struct histogram_shm *h)
{
    out_open(j, key, '{');
    out_u64(j, "count", gauge_get(&h->count));
    out_u64(j, "p50", histogram_at(h, 0.5));
    out_u64(j, "p99", histogram_at(h, 0.99));
    out_u64(j, "max", gauge_get(&h->max));
    out_close(j, '}');
}

/* Below 0: not known. */
static void json_known(struct json_text *j, const char *key, double n)
{
    if (n < 0)
        out_null(j, key);
    else
        out_real(j, key, n);
}

static void json_writer(struct json_text *j, const struct status_look *k)
{
    const struct segment *s = k->v.segment;
    out_open(j, "writer", '{');
    json_alive(j, "alive", k->v.writer_alive);
    if (s) {
        const struct header_shm *h = s->header;
        uint64_t beat = atomic_load((A64 *)&h->heartbeat_ns);
        out_u64(j, "pid", atomic_load((A32 *)&h->writer_pid));
        out_str(j, "state", writer_state_name(atomic_load((A32 *)&h->writer_state)));
        out_str(j, "sync", sync_mode_name(h->sync_mode));
        out_u64(j, "epoch", atomic_load((A64 *)&h->epoch));
        out_u64(j, "incarnation", h->incarnation);
        out_real(j, "heartbeat_age_s", beat < k->now_ns ? (double)(k->now_ns - beat) / 1e9 : 0);
        out_bool(j, "segment_retired", segment_retired(s));
    }
    if (k->v.gauges)
        out_u64(j, "started_ns", gauge_get(&k->v.gauges->g->writer_started_ns));
    out_close(j, '}');
    out_str(j, "writes",
            k->pauses.writes != WRITES_OPEN ? view_writes_name(k->pauses.writes)
            : k->v.writer_alive == 0        ? "none"
            : status_disk_full_ns(k)        ? "refused"
                                            : view_writes_name(WRITES_OPEN));
    json_pauses(j, &k->pauses, k->now_ns);
}

static void json_gauges(struct json_text *j, const struct status_look *k)
{
    if (!k->v.gauges) {
        out_null(j, "gauges");
        return;
    }
    const struct gauges_shm *g = k->v.gauges->g;
    out_open(j, "head", '{');
    out_u64(j, "event", gauge_get(&g->head_event));
    out_u64(j, "txn", gauge_get(&g->head_txn));
    out_u64(j, "time_ns", gauge_get(&g->head_time_ns));
    out_bool(j, "clock_held", gauge_get(&g->clock_held) != 0);
    out_close(j, '}');
    out_open(j, "gauges", '{');
    out_u64(j, "commits", gauge_get(&g->commits));
    out_u64(j, "transactions", gauge_get(&g->transactions));
    out_u64(j, "events", gauge_get(&g->events));
    out_u64(j, "rejected", gauge_get(&g->rejected));
    out_u64(j, "duplicates", gauge_get(&g->duplicates));
    out_u64(j, "commit_failures", gauge_get(&g->commit_failures));
    out_u64(j, "recovered", gauge_get(&g->recovered));
    out_u64(j, "bytes", gauge_get(&g->bytes));
    out_u64(j, "readers_cleared", gauge_get(&g->readers_cleared));
    out_u64(j, "participants_reaped", gauge_get(&g->participants_reaped));
    json_histogram(j, "commit_ns", &g->commit_ns);
    json_histogram(j, "batch_size", &g->batch_size);
    json_histogram(j, "queue_ns", &g->queue_ns);
    json_histogram(j, "preflight_ns", &g->preflight_ns);
    json_histogram(j, "apply_ns", &g->apply_ns);
    json_histogram(j, "lag_ns", &g->lag_ns);
    out_close(j, '}');
    out_open(j, "feed", '{');
    json_alive(j, "alive", k->v.feed_alive);
    out_u64(j, "batches", gauge_get(&g->feed_batches));
    out_u64(j, "events", gauge_get(&g->feed_events));
    out_u64(j, "bytes", gauge_get(&g->feed_bytes));
    out_u64(j, "broken_connections", gauge_get(&g->feed_broken_connections));
    out_close(j, '}');
    out_open(j, "disk", '{');
    out_bool(j, "full", status_disk_full_ns(k) != 0);
    if (status_disk_full_ns(k))
        out_u64(j, "full_since_ns", status_disk_full_ns(k));
    out_u64(j, "reserve_bytes", gauge_get(&g->reserve_bytes));
    out_u64(j, "free_bytes", k->culprits.disk_free_bytes);
    out_u64(j, "total_bytes", k->culprits.disk_total_bytes);
    json_known(j, "fill_bytes_day", k->culprits.disk_fill_day);
    json_known(j, "days_to_full", k->culprits.days_to_full);
    out_close(j, '}');
    if (k->rates.commits_s >= 0) {
        out_open(j, "rates", '{');
        out_real(j, "commits_s", k->rates.commits_s);
        out_real(j, "transactions_s", k->rates.transactions_s);
        out_real(j, "events_s", k->rates.events_s);
        out_close(j, '}');
    }
}

static void json_segment(struct json_text *j, const struct status_look *k)
{
    const struct segment *s = k->v.segment;
    if (!s) {
        out_null(j, "segment");
        out_str(j, "segment_error", azoth_code_name(k->v.segment_err.code));
        return;
    }
    out_open(j, "segment", '{');
    out_u64(j, "queue_depth", k->counts.slot[SLOT_SUBMITTED]);
    out_open(j, "slots", '{');
    out_u64(j, "total", s->slots);
    for (uint32_t i = 0; i <= SLOT_REAPING; i++)
        out_u64(j, slot_state_name(i), k->counts.slot[i]);
    out_close(j, '}');
    out_open(j, "stripes", '{');
    out_u64(j, "total", s->stripes);
    out_u64(j, "exclusive", k->counts.exclusive);
    out_u64(j, "shared", k->counts.shared);
    out_close(j, '}');
    out_open(j, "blocks", '{');
    out_u64(j, "total", s->blocks);
    out_u64(j, "used", k->counts.blocks_used);
    out_close(j, '}');
    out_close(j, '}');
}

static void json_contention(struct json_text *j, const struct status_look *k)
{
    const struct segment *s = k->v.segment;
    char key[4 * 512 + 1];
    if (!s) {
        out_null(j, "contention");
        return;
    }
    out_open(j, "contention", '{');
    out_open(j, "refused_by", '{');
    for (uint32_t i = 0; i < REFUSALS; i++)
        out_u64(j, refusal_name(i), gauge_get(&s->contention->refused_by[i]));
    out_close(j, '}');
    out_open(j, "stripes", '[');
    for (uint32_t i = 0; i < k->culprits.hots; i++) {
        const struct hot_key *h = &k->culprits.hot[i];
        out_open(j, NULL, '{');
        out_u64(j, "stripe", h->stripe);
        out_str(j, "key", h->len ? bytes_print(bytes_of(h->key, h->len), key, sizeof key) : NULL);
        out_u64(j, "waits", h->waits);
        out_u64(j, "wait_ns", h->wait_ns);
        out_close(j, '}');
    }
    out_close(j, ']');
    out_close(j, '}');
}

static void json_pins(struct json_text *j, const struct status_look *k)
{
    out_open(j, "pins", '[');
    for (uint32_t i = 0; i < k->culprits.pins; i++) {
        const struct pin *p = &k->culprits.pin[i];
        int store = !*p->projection;
        out_open(j, NULL, '{');
        out_str(j, "of", store ? "store" : "projection");
        out_str(j, "projection", store ? NULL : p->projection);
        out_u64(j, "pid", p->pid);
        out_str(j, "program", *p->program ? p->program : NULL);
        out_str(j, "unit", *p->unit ? p->unit : NULL);
        json_known(j, store ? "age_s" : "process_age_s", p->age_s);
        out_u64(j, store ? "commits_behind" : "frames_behind", p->behind);
        if (!store)
            out_u64(j, "wal_bytes", p->wal_bytes);
        out_close(j, '}');
    }
    out_close(j, ']');
}

static void json_participants(struct json_text *j, const struct status_look *k)
{
    const struct segment *s = k->v.segment;
    out_open(j, "participants", '[');
    for (uint32_t i = 0; s && i < SHM_PARTICIPANTS; i++) {
        const struct participant_shm *p = &s->participant[i];
        char name[sizeof p->name + 1] = {0};
        if ((atomic_load((A64 *)&p->word) & 0xff) != PARTICIPANT_LIVE)
            continue;
        memcpy(name, p->name, sizeof p->name);
        out_open(j, NULL, '{');
        out_u64(j, "row", i);
        out_u64(j, "pid", atomic_load((A32 *)&p->pid));
        out_str(j, "kind", participant_kind_name(atomic_load((A32 *)&p->kind)));
        out_str(j, "name", name);
        json_alive(j, "alive", view_participant_alive(&k->v, i));
        out_u64(j, "joined_ns", p->joined_ns);
        out_u64(j, "submitted", gauge_get(&p->submitted));
        out_u64(j, "refused", gauge_get(&p->refused));
        out_u64(j, "lock_timeouts", gauge_get(&p->lock_timeouts));
        out_u64(j, "stripe_waits", gauge_get(&p->stripe_waits));
        out_u64(j, "wait_ns", gauge_get(&p->wait_ns));
        out_u64(j, "held_up", gauge_get(&p->held_up));
        out_u64(j, "held_up_ns", gauge_get(&p->held_up_ns));
        out_u64(j, "reaped", gauge_get(&p->reaped));
        out_close(j, '}');
    }
    out_close(j, ']');
}

static void json_projections(struct json_text *j, const struct status_look *k)
{
    uint64_t head = k->v.gauges ? gauge_get(&k->v.gauges->g->head_event) : 0;
    struct projection_row r;
    out_open(j, "projections", '[');
    for (uint32_t i = 0; k->v.gauges && i < SHM_PROJECTIONS; i++) {
        if (!projection_row_read(k->v.gauges, i, &r))
            continue;
        out_open(j, NULL, '{');
        out_str(j, "name", r.name);
        out_u64(j, "shard", r.shard);
        out_u64(j, "shards", r.shards);
        out_str(j, "state", status_projection_state(k, &r, head));
        out_u64(j, "cursor", r.cursor);
        out_u64(j, "events_behind", head > r.cursor ? head - r.cursor : 0);
        out_u64(j, "errors", r.errors);
        out_u64(j, "events_sent", r.events_sent);
        out_close(j, '}');
    }
    out_close(j, ']');
}

static void json_seal(struct json_text *j, const struct store_facts *s)
{
    char text[CMD_TIME_TEXT];
    if (!s->sealed) {
        out_null(j, "seal");
        return;
    }
    out_open(j, "seal", '{');
    out_u64(j, "event", s->seal.event);
    out_u64(j, "txn", s->seal.txn);
    out_i64(j, "time_ns", s->seal.time_ns);
    out_str(j, "time", cmd_time(s->seal.time_ns, text));
    out_str(j, "by", s->seal.who);
    out_u64(j, "pid", s->seal.pid);
    out_close(j, '}');
}

static void json_chain(struct json_text *j, const struct store_facts *f)
{
    const struct chain *c = &f->head.chain;
    char hex[2 * CHAIN_BYTES + 1];
    if (f->chain_err.code || !c->on) {
        out_null(j, "chain");
        if (f->chain_err.code)
            out_str(j, "chain_error", f->chain_err.message);
        return;
    }
    bytes_hex(hex, c->value, CHAIN_BYTES);
    out_open(j, "chain", '{');
    out_str(j, "value", hex);
    out_u64(j, "event", c->event);
    out_u64(j, "txn", c->txn);
    out_close(j, '}');
}

static void json_marks(struct json_text *j, const struct status_look *k)
{
    out_open(j, "marks", '[');
    for (uint32_t i = 0; i < k->store.marks; i++) {
        const struct mark *m = &k->store.mark[i];
        char place[2 * MARK_PLACE + 1];
        bytes_hex(place, m->place, MARK_PLACE);
        out_open(j, NULL, '{');
        out_str(j, "place", place);
        out_u64(j, "txn", m->txn);
        out_u64(j, "event", m->event);
        out_u64(j, "transactions_behind", k->store.head.txn - m->txn);
        out_real(j, "age_s", status_seconds_since(k, m->since_ns));
        out_bool(j, "followed", m->followed);
        out_bool(j, "broken", m->broken);
        out_bool(j, "confirmed", m->confirmed);
        out_close(j, '}');
    }
    out_close(j, ']');
}

static void json_store(struct json_text *j, const struct status_look *k)
{
    const struct store_usage *u = &k->store.usage;
    if (k->store_err.code) {
        out_null(j, "store");
        out_str(j, "store_error", k->store_err.message);
        return;
    }
    out_open(j, "store", '{');
    out_u64(j, "file_bytes", u->file_bytes);
    out_u64(j, "map_bytes", u->map_bytes);
    out_u64(j, "state_keys", u->state_keys);
    out_u64(j, "events", u->events);
    out_u64(j, "events_archived", u->events_archived);
    out_u64(j, "ids", u->ids);
    out_u64(j, "readers", u->readers);
    out_u64(j, "readers_max", u->readers_max);
    out_u64(j, "redo_records", u->redo_records);
    out_u64(j, "redo_bytes", u->redo_bytes);
    json_chain(j, &k->store);
    json_marks(j, k);
    json_seal(j, &k->store);
    out_close(j, '}');
}

int status_print_json(const struct status_look *k)
{
    struct json_text j = {0};
    out_open(&j, NULL, '{');
    out_str(&j, "dir", k->v.dir);
    out_str(&j, "shm", k->v.name.segment);
    out_str(&j, "shm_gauges", k->v.name.gauges);
    if (k->v.segment) {
        char uuid[33];
        bytes_hex(uuid, k->v.segment->header->uuid, 16);
        out_str(&j, "uuid", uuid);
    }
    json_writer(&j, k);
    json_gauges(&j, k);
    json_segment(&j, k);
    json_contention(&j, k);
    json_pins(&j, k);
    json_participants(&j, k);
    json_projections(&j, k);
    json_store(&j, k);
    out_close(&j, '}');
    return out_print(&j);
}
