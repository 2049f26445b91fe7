#include "exporter/status.h"

#include "core/error.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* ---- JSON ---- */

/* NaN and infinity are no JSON. */
static json_t *real(double n)
{
    return isfinite(n) ? json_real(n) : json_null();
}

static json_t *whole(uint64_t n)
{
    return json_integer((json_int_t)(n & INT64_MAX));
}

/* In seconds. */
static json_t *ns(uint64_t n)
{
    return json_real((double)n / 1e9);
}

static json_t *known(int alive)
{
    return alive < 0 ? json_null() : json_boolean(alive);
}

/* Others wrote it: what is no text is shown as question marks. */
static json_t *text(const char *s)
{
    char clean[4200];
    snprintf(clean, sizeof clean, "%s", s);
    utf8_tame(clean);
    return json_string(clean);
}

static json_t *writer(const struct look *k)
{
    const struct segment *s = k->v.segment;
    json_t *o = json_object();
    json_object_set_new(o, "alive", known(k->v.writer_alive));
    json_object_set_new(o, "heartbeat_age_s", real(k->writer_beat_age));
    if (s) {
        json_object_set_new(o, "state",
                            text(writer_state_name(atomic_load(&s->header->writer_state))));
        json_object_set_new(o, "sync", text(sync_mode_name(s->header->sync_mode)));
        json_object_set_new(o, "pid", json_integer(atomic_load(&s->header->writer_pid)));
        json_object_set_new(o, "segment_retired", json_boolean(segment_retired(s)));
    } else {
        json_object_set_new(o, "error", text(k->v.segment_err.message));
    }
    return o;
}

static const char *writes(const struct look *k)
{
    if (k->pauses.writes != WRITES_OPEN)
        return view_writes_name(k->pauses.writes);
    if (k->v.gauges && gauge_get(&k->v.gauges->g->disk_full_ns))
        return "refused";
    return k->up ? "open" : "none";
}

static json_t *gauges(const struct look *k)
{
    const struct gauges_shm *g = k->v.gauges ? k->v.gauges->g : NULL;
    if (!g)
        return json_null();
    json_t *o = json_object();
    json_object_set_new(o, "commits", whole(gauge_get(&g->commits)));
    json_object_set_new(o, "transactions", whole(gauge_get(&g->transactions)));
    json_object_set_new(o, "events", whole(gauge_get(&g->events)));
    json_object_set_new(o, "rejected", whole(gauge_get(&g->rejected)));
    json_object_set_new(o, "head_event", whole(k->head));
    return o;
}

static json_t *segment(const struct look *k)
{
    const struct segment *s = k->v.segment;
    if (!s)
        return json_null();
    return json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:o}", "queue_depth",
                     (int)k->counts.slot[SLOT_SUBMITTED], "slots", (int)s->slots, "slots_free",
                     (int)k->counts.slot[SLOT_FREE], "stripes", (int)s->stripes, "exclusive",
                     (int)k->counts.exclusive, "shared", (int)k->counts.shared, "stripe_waits",
                     whole(k->stripe_waits));
}

static void participant_name(const struct segment *s, uint32_t row, char out[64])
{
    const struct participant_shm *p = &s->participant[row];
    char name[sizeof p->name + 1] = {0};
    memcpy(name, p->name, sizeof p->name);
    snprintf(out, 64, "%s %s", participant_kind_name(atomic_load((A32 *)&p->kind)), name);
}

static json_t *processes(const struct look *k)
{
    const struct segment *s = k->v.segment;
    json_t *a = json_array();
    for (uint32_t i = 0; s && i < SHM_PARTICIPANTS; i++) {
        const struct participant_shm *p = &s->participant[i];
        char name[64];
        if ((atomic_load((A64 *)&p->word) & 0xff) != PARTICIPANT_LIVE)
            continue;
        participant_name(s, i, name);
        json_array_append_new(
            a, json_pack("{s:i,s:o,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "row", (int)i, "name",
                         text(name), "pid", (json_int_t)atomic_load((A32 *)&p->pid), "alive",
                         known(view_participant_alive(&k->v, i)), "submitted",
                         whole(gauge_get(&p->submitted)), "refused", whole(gauge_get(&p->refused)),
                         "lock_timeouts", whole(gauge_get(&p->lock_timeouts)), "stripe_waits",
                         whole(gauge_get(&p->stripe_waits)), "wait_s", ns(gauge_get(&p->wait_ns)),
                         "held_up", whole(gauge_get(&p->held_up)), "held_up_s",
                         ns(gauge_get(&p->held_up_ns))));
    }
    return a;
}

/* The process whose transaction has the slot; "" for none. Shared memory is input. */
static void holder_name(const struct segment *s, int slot, char out[64])
{
    *out = 0;
    if (slot < 0 || (uint32_t)slot >= s->slots)
        return;
    uint32_t owner = slot_word_owner(atomic_load(&s->slot[slot].word));
    if (owner == SLOT_OWNER_WRITER)
        snprintf(out, 64, "writer");
    else if (owner < SHM_PARTICIPANTS)
        participant_name(s, owner, out);
}

/* Bytes that are no printable ASCII are told as \xNN. */
static json_t *key_or_null(const struct look_stripe *l)
{
    char key[4 * sizeof l->key + 1];
    if (l->key_len == 0)
        return json_null();
    return json_string(bytes_print(bytes_of(l->key, l->key_len), key, sizeof key));
}

static json_t *stripes(const struct look *k)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < k->stripes_len; i++) {
        const struct look_stripe *l = &k->stripe[i];
        char holder[64];
        holder_name(k->v.segment, l->holder, holder);
        json_array_append_new(a, json_pack("{s:i,s:o,s:o,s:o,s:o}", "stripe", (int)l->hot.stripe,
                                           "key", key_or_null(l), "waits", whole(l->hot.waits),
                                           "wait_s", ns(l->hot.wait_ns), "holder", text(holder)));
    }
    return a;
}

static json_t *refused_by(const struct look *k)
{
    if (!k->v.segment)
        return json_null();
    json_t *o = json_object();
    for (uint32_t i = 0; i < REFUSALS; i++)
        json_object_set_new(o, refusal_name(i),
                            whole(gauge_get(&k->v.segment->contention->refused_by[i])));
    return o;
}

static json_t *pin(const struct look_pin *p)
{
    return json_pack("{s:o,s:o,s:o,s:o}", "pid", whole(p->pid), "program", text(p->program), "unit",
                     text(p->unit), "age_s", real(p->age));
}

static json_t *pins(const struct look *k)
{
    if (!k->pins_known)
        return json_null();
    json_t *a = json_array();
    for (uint32_t i = 0; i < k->pins; i++) {
        json_t *o = pin(&k->pin[i]);
        json_object_set_new(o, "commits_behind", whole(k->pin[i].behind));
        json_array_append_new(a, o);
    }
    return a;
}

static json_t *file_pins(const struct look *k)
{
    if (!k->file_pins_known)
        return json_null();
    json_t *a = json_array();
    for (uint32_t i = 0; i < k->file_pins; i++) {
        const struct look_pin *p = &k->file_pin[i];
        json_t *o = pin(p);
        json_object_set_new(o, "projection", text(p->projection));
        json_object_set_new(o, "shard", json_integer(p->shard));
        json_object_set_new(o, "shards", json_integer(p->shards));
        json_object_set_new(o, "frames_behind", whole(p->behind));
        json_array_append_new(a, o);
    }
    return a;
}

/* A bucket's end may lie beyond the greatest value, which is known. */
static json_t *quantile(const struct histogram_shm *h, double q)
{
    uint64_t n = histogram_at(h, q), max = gauge_get(&h->max);
    return ns(n < max ? n : max);
}

/* Since the gauges were made: not of the last minutes. */
static json_t *times(const struct look *k)
{
    if (!k->v.gauges)
        return json_null();
    const struct gauges_shm *g = k->v.gauges->g;
    const struct {
        const char *of;
        const struct histogram_shm *h;
    } all[] = {{"preflight", &g->preflight_ns},
               {"queue", &g->queue_ns},
               {"commit", &g->commit_ns},
               {"apply", &g->apply_ns},
               {"lag", &g->lag_ns}};
    json_t *a = json_array();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const struct histogram_shm *h = all[i].h;
        json_array_append_new(a, json_pack("{s:s,s:o,s:o,s:o,s:o}", "of", all[i].of, "count",
                                           whole(gauge_get(&h->count)), "p50_s", quantile(h, 0.5),
                                           "p99_s", quantile(h, 0.99), "max_s",
                                           ns(gauge_get(&h->max))));
    }
    return a;
}

/* A row has 0 before the first batch. */
static json_t *ns_or_null(uint64_t n)
{
    return n ? ns(n) : json_null();
}

/* Of a shard that has not reported nothing is known. */
static json_t *heard(const struct look_projection *p, uint64_t n)
{
    return p->heard ? whole(n) : json_null();
}

static json_t *projections(const struct look *k)
{
    json_t *a = json_array();
    for (uint32_t i = 0; i < k->projections; i++) {
        const struct look_projection *p = &k->projection[i];
        json_array_append_new(
            a,
            json_pack("{s:o,s:i,s:i,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:s,s:o,s:o,s:o,s:o,s:o}", "name",
                      text(p->r.name), "shard", (int)p->r.shard, "shards", (int)p->r.shards,
                      "state", p->state, "cursor", heard(p, p->r.cursor), "lag_events",
                      heard(p, p->behind), "lag_seconds", real(p->seconds), "progress_age_s",
                      real(p->progress_age), "errors", heard(p, p->r.errors), "dead_letters",
                      heard(p, p->r.dead_waiting + p->r.dead_retired + p->r.dead_parked), "breaker",
                      breaker_state_name(p->r.breaker), "error", text(p->r.error), "error_age_s",
                      real(p->failed_age), "rate_s", real(p->rate), "batch_s",
                      ns_or_null(p->r.apply_ns), "batch_lag_s", ns_or_null(p->r.lag_ns)));
    }
    return a;
}

static json_t *disk(const struct look *k)
{
    if (!k->disk_known)
        return json_null();
    json_t *o = json_object();
    json_object_set_new(o, "free_bytes", whole(k->disk_free));
    json_object_set_new(o, "size_bytes", whole(k->disk_size));
    json_object_set_new(o, "store_bytes", whole(k->store_bytes));
    json_object_set_new(o, "fill_bytes_s", real(k->disk_fill));
    json_object_set_new(o, "days_to_full", real(k->disk_seconds / 86400));
    json_object_set_new(o, "trend_known", json_boolean(!isnan(k->disk_seconds)));
    return o;
}

static json_t *seconds_or_null(uint64_t n)
{
    return n == RECENT_NONE ? json_null() : ns(n);
}

/* The last minutes as columns; the lag of those projections that the look has, in its order. */
static json_t *recent(const struct look *k, const struct recent *r)
{
    json_t *age = json_array(), *transactions = json_array(), *events = json_array();
    json_t *p50 = json_array(), *p99 = json_array(), *lag = json_array();
    for (uint32_t i = 0; i < r->len; i++) {
        const struct recent_point *p = recent_at(r, i);
        double s = (double)p->span_ns / 1e9;
        json_array_append_new(age, json_real((double)(k->now_ns - p->at_ns) / 1e9));
        json_array_append_new(transactions,
                              s > 0 ? real((double)p->transactions / s) : json_null());
        json_array_append_new(events, s > 0 ? real((double)p->events / s) : json_null());
        json_array_append_new(p50, seconds_or_null(p->p50_ns));
        json_array_append_new(p99, seconds_or_null(p->p99_ns));
    }
    for (uint32_t n = 0; n < k->projections; n++) {
        json_t *of_one = json_array();
        for (uint32_t i = 0; i < r->len; i++) {
            const struct look_projection *p = &k->projection[n];
            uint64_t behind = p->heard ? recent_at(r, i)->lag[p->row] : RECENT_NONE;
            json_array_append_new(of_one, behind == RECENT_NONE ? json_null() : whole(behind));
        }
        json_array_append_new(lag, of_one);
    }
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "age_s", age, "transactions_s", transactions,
                     "events_s", events, "commit_p50_s", p50, "commit_p99_s", p99, "lag_events",
                     lag);
}

static int append(const char *p, size_t n, void *buf)
{
    return buf_add(buf, p, n) ? -1 : 0;
}

int status_write(struct buf *b, const struct look *k, const struct look_memory *m,
                 const char *database)
{
    json_t *o = json_object();
    json_object_set_new(o, "database", text(database));
    json_object_set_new(o, "version", json_string(AZOTH_VERSION));
    json_object_set_new(o, "up", json_boolean(k->up));
    json_object_set_new(o, "writes", json_string(writes(k)));
    json_object_set_new(o, "writer", writer(k));
    json_object_set_new(o, "feed_alive", known(k->v.feed_alive));
    json_object_set_new(o, "gauges", gauges(k));
    json_object_set_new(o, "segment", segment(k));
    json_object_set_new(o, "processes", processes(k));
    json_object_set_new(o, "stripes", stripes(k));
    json_object_set_new(o, "refused_by", refused_by(k));
    json_object_set_new(o, "pins", pins(k));
    json_object_set_new(o, "wal_pins", file_pins(k));
    json_object_set_new(o, "times", times(k));
    json_object_set_new(o, "projections", projections(k));
    json_object_set_new(o, "disk", disk(k));
    json_object_set_new(o, "recent", recent(k, &m->recent));
    int rc = o ? json_dump_callback(o, append, b, JSON_COMPACT | JSON_REAL_PRECISION(9)) : -1;
    json_decref(o);
    return rc ? AZOTH_ERR_NOMEM : 0;
}

/* ---- readiness ---- */

struct verdict {
    struct buf *b;
    int failed, faults;
};

#define FAULT(v, ...) ((v)->faults++, (v)->failed |= buf_addf((v)->b, __VA_ARGS__) != 0)

static void judge_writer(struct verdict *v, const struct look *k)
{
    const struct segment *s = k->v.segment;
    if (k->v.writer_alive == 0)
        FAULT(v, "writer: not running\n");
    else if (!s && k->v.segment_err.code != AZOTH_ERR_PERMISSION)
        FAULT(v, "writer: %s\n", k->v.segment_err.message);
    else if (s && segment_retired(s))
        FAULT(v, "writer: the segment is retired\n");
    else if (s && atomic_load(&s->header->writer_state) != WRITER_RUNNING)
        FAULT(v, "writer: %s\n", writer_state_name(atomic_load(&s->header->writer_state)));
    else if (!k->v.gauges)
        FAULT(v, "writer: its gauges are not to be seen: %s\n", k->v.gauges_err.message);
    else if (isnan(k->writer_beat_age))
        FAULT(v, "writer: no heartbeat yet\n");
    else if (k->writer_beat_age > LOOK_HANGS_S)
        FAULT(v, "writer: no heartbeat for %.0f s\n", k->writer_beat_age);
    else if (strcmp(writes(k), "open") != 0)
        FAULT(v, "writer: writes are %s\n", writes(k));
}

static void judge_lag(struct verdict *v, const struct look *k, const struct config *c)
{
    uint64_t events = c->number[CONFIG_exporter_max_lag_events];
    uint64_t seconds = c->number[CONFIG_exporter_max_lag_seconds];
    for (uint32_t i = 0; i < k->projections; i++) {
        const struct look_projection *p = &k->projection[i];
        char name[96];
        snprintf(name, sizeof name, p->r.shards > 1 ? "%s %u/%u" : "%s", p->r.name, p->r.shard,
                 p->r.shards);
        if ((events || seconds) && strcmp(p->state, "diverged") == 0)
            FAULT(v, "projection %s: ahead of the log, it follows another history\n", name);
        else if ((events || seconds) && !p->heard)
            FAULT(v, "projection %s: it has not reported\n", name);
        else if (events && p->behind > events)
            FAULT(v, "projection %s: %llu events behind, the limit is %llu\n", name,
                  (unsigned long long)p->behind, (unsigned long long)events);
        else if (seconds && isnan(p->seconds))
            FAULT(v, "projection %s: %llu events behind, how old is not known\n", name,
                  (unsigned long long)p->behind);
        else if (seconds && p->seconds > (double)seconds)
            FAULT(v, "projection %s: %.1f s behind, the limit is %llu\n", name, p->seconds,
                  (unsigned long long)seconds);
    }
}

int status_ready(struct buf *b, const struct look *k, const struct config *c, int *ret_ready)
{
    struct verdict v = {.b = b};
    judge_writer(&v, k);
    judge_lag(&v, k, c);
    if (v.faults == 0)
        v.failed |= buf_add_str(b, "ready\n") != 0;
    *ret_ready = v.faults == 0;
    return v.failed ? AZOTH_ERR_NOMEM : 0;
}
