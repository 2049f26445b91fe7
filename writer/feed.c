/*
 * feed.c - subscriptions and batches.
 *
 * Happy path: a projector sends a pull with a new subscription number, its cursor and a credit; the
 * feed checks that the projector follows this history, sends one batch that begins at cursor + 1, and
 * waits for the next pull. Each pull is one grant; a batch is at most the credit, but at least one
 * event, so a large one passes.
 *
 * Failure modes
 *   a pull or batch is lost      the projector hears nothing, and subscribes anew under a new number
 *   one comes twice or late      its cursor is not where we are, or its number is old: ignored
 *   the projector is slow        its credit is used up: nothing is sent; others are not held up
 *   the projector is gone        silent for longer than lapse: taken off, its row says so
 *   the feed is killed           projectors subscribe again; cursors are theirs, nothing is lost
 *   the log is not theirs        another UUID, a cursor beyond the head, another event at the cursor:
 *                                DIVERGED is sent, and nothing else
 *
 * Invariant F1: a batch's range is contiguous from the subscription's cursor, whatever the filter left
 * of it; `cursor` moves to its end only when the transport has taken it.
 */
#include "writer/feed.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "core/pipe.h"
#include "core/wire.h"
#include "shm/gauges.h"
#include "shm/projection_row.h"

#include <jansson.h>
#include <string.h>
#include <xxhash.h>

#define SUBSCRIPTIONS_MAX SHM_PROJECTIONS
#define LOOK_EVENTS       50000u
#define LOOK_BYTES        (4u << 20)
#define TAKE_MAX          64

struct subscription {
    int used;
    char name[AZOTH_NAME_MAX + 1], endpoint[128], shard_by[256];
    uint32_t shard, shards;
    uint64_t number, instance, cursor;
    uint32_t credit;
    int greet; /* new: told the head even when there is nothing to send */
    int refused;
    uint64_t heard_ns;
    unsigned char *types; /* u8 length and bytes each */
    size_t types_len;
    struct pipe_end *out;
    int row;
};

struct feed {
    struct store *store;
    struct gauges *gauges;
    struct pipe_end *in;
    uint64_t lapse_ns;
    struct subscription sub[SUBSCRIPTIONS_MAX];
    uint32_t turn;
    uint64_t head; /* as last seen in a snapshot */
    struct buf frames, message;
};

#ifdef AZOTH_FAULTS
/* AZOTH_FEED_FAULTS="loss=10,dup=10,reorder=10,late=10,seed=N": what a transport may do, in
 * percent. */
struct faults {
    int read, loss, dup, reorder, late;
    uint64_t seed;
    struct buf held;
    struct pipe_end *held_to;
};
static struct faults faults;

static int fault_value(const char *text, const char *name)
{
    const char *at = text ? strstr(text, name) : NULL;
    return at ? atoi(at + strlen(name)) : 0;
}

static int chance(int percent)
{
    faults.seed ^= faults.seed << 13;
    faults.seed ^= faults.seed >> 7;
    faults.seed ^= faults.seed << 17;
    return (int)(faults.seed % 100) < percent;
}

static int send_batch(struct pipe_end *out, struct azoth_bytes m)
{
    if (!faults.read) {
        const char *text = getenv("AZOTH_FEED_FAULTS");
        faults = (struct faults){1,
                                 fault_value(text, "loss="),
                                 fault_value(text, "dup="),
                                 fault_value(text, "reorder="),
                                 fault_value(text, "late="),
                                 (uint64_t)fault_value(text, "seed=") | 1,
                                 {0},
                                 NULL};
    }
    if (chance(faults.loss))
        return 0;
    int rc = 0;
    if ((chance(faults.reorder) || chance(faults.late)) && !faults.held_to) {
        buf_clear(&faults.held);
        if (buf_add(&faults.held, m.ptr, m.len) == 0)
            faults.held_to = out; /* comes behind a later one */
    } else {
        rc = pipe_send(out, m, 0, NULL);
        if (!rc && chance(faults.dup))
            pipe_send(out, m, 0, NULL);
    }
    if (faults.held_to == out && chance(50)) {
        pipe_send(out, buf_bytes(&faults.held), 0, NULL);
        faults.held_to = NULL;
    }
    return rc;
}

static void forget_held(const struct pipe_end *out)
{
    if (faults.held_to == out)
        faults.held_to = NULL;
}
#else
static int send_batch(struct pipe_end *out, struct azoth_bytes m)
{
    return pipe_send(out, m, 0, NULL);
}
static void forget_held(const struct pipe_end *out)
{
    (void)out;
}
#endif

int feed_open(const struct feed_options *o, struct store *store, struct gauges *gauges,
              struct feed **ret, struct azoth_error *err)
{
    struct feed *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(err, AZOTH_ERR_NOMEM, "the feed");
    f->store = store;
    f->gauges = gauges;
    f->lapse_ns = o->lapse_ns;
    int rc = pipe_bind_pull(o->listen[0], &f->in, err);
    for (int i = 1; !rc && i < 4 && o->listen[i]; i++)
        rc = pipe_bind_more(f->in, o->listen[i], err);
    if (rc)
        feed_close(f);
    else
        *ret = f;
    return rc;
}

static void drop(struct subscription *s)
{
    forget_held(s->out);
    pipe_close(s->out);
    free(s->types);
    memset(s, 0, sizeof *s);
}

void feed_close(struct feed *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++)
        if (f->sub[i].used)
            drop(&f->sub[i]);
    pipe_close(f->in);
    buf_fini(&f->frames);
    buf_fini(&f->message);
    free(f);
}

void feed_set_gauges(struct feed *f, struct gauges *gauges)
{
    f->gauges = gauges;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++)
        f->sub[i].row = -1;
}

int feed_poll_fd(const struct feed *f)
{
    return pipe_poll_fd(f->in);
}

uint32_t feed_subscriptions(const struct feed *f)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++)
        n += (uint32_t)f->sub[i].used;
    return n;
}

int feed_waits(const struct feed *f)
{
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++)
        if (f->sub[i].used && f->sub[i].credit && !f->sub[i].refused)
            return 1;
    return 0;
}

/* ---- sending ---- */

static int send_to(struct feed *f, struct subscription *s, struct wire_batch *b)
{
    buf_clear(&f->message);
    b->subscription = s->number;
    int rc = wire_batch_encode(&f->message, b);
    return rc ? rc : send_batch(s->out, buf_bytes(&f->message));
}

static void refuse(struct feed *f, struct subscription *s, int code, const char *why)
{
    struct wire_batch b = {.first = s->cursor + 1,
                           .last = s->cursor,
                           .head = f->head,
                           .code = code,
                           .message = bytes_str(why)};
    s->refused = 1;
    s->credit = 0;
    send_to(f, s, &b);
}

/* ---- requests ---- */

static struct subscription *find(struct feed *f, const struct wire_pull *m)
{
    struct subscription *none = NULL;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++) {
        struct subscription *s = &f->sub[i];
        if (!s->used) {
            none = none ? none : s;
            continue;
        }
        if (bytes_eq(bytes_str(s->name), m->name) && s->shard == m->shard && s->shards == m->shards)
            return s;
    }
    return none;
}

static void text_of(char *out, size_t size, struct azoth_bytes b)
{
    snprintf(out, size, "%.*s", (int)b.len, b.len ? (const char *)b.ptr : "");
}

/* Is the event at the projector's cursor the one that it applied? */
static int same_history(struct feed *f, const struct wire_pull *m, char *why, size_t size)
{
    struct snapshot *sn;
    struct store_head head;
    struct event_scan *es = NULL;
    struct event_record ev;
    struct azoth_bytes raw;
    if (memcmp(m->uuid, store_identity(f->store)->uuid, 16) != 0) {
        snprintf(why, size, "the projection follows another database (UUID)");
        return 0;
    }
    if (snapshot_begin(f->store, &sn, NULL))
        return -1;
    int ok = -1;
    if (snapshot_head(sn, &head, NULL) == 0) {
        f->head = head.event;
        if (m->cursor > head.event) {
            snprintf(why, size, "cursor %llu is beyond the log's head %llu",
                     (unsigned long long)m->cursor, (unsigned long long)head.event);
            ok = 0;
        } else if (m->cursor == 0) {
            ok = 1;
        } else if (event_scan_open(sn, m->cursor, m->cursor + 1, &es, NULL) == 0 &&
                   event_scan_next(es, &ev, &raw, NULL) == 1) {
            ok = record_checksum(raw) == m->cursor_check;
            if (!ok)
                snprintf(why, size, "event %llu is not the one that was applied",
                         (unsigned long long)m->cursor);
        }
    }
    event_scan_close(es);
    snapshot_end(sn);
    return ok;
}

static int subscribe(struct feed *f, struct subscription *s, const struct wire_pull *m)
{
    char endpoint[128];
    text_of(endpoint, sizeof endpoint, m->endpoint);
    if (!s->used) {
        memset(s, 0, sizeof *s);
        s->used = 1;
        s->row = -1;
        text_of(s->name, sizeof s->name, m->name);
        s->shard = m->shard;
        s->shards = m->shards;
    }
    if (!s->out || strcmp(endpoint, s->endpoint) != 0) {
        struct pipe_end *out;
        if (pipe_connect_push(endpoint, &out, NULL)) {
            drop(s);
            return 0;
        }
        forget_held(s->out);
        pipe_close(s->out);
        s->out = out;
        snprintf(s->endpoint, sizeof s->endpoint, "%s", endpoint);
    }
    free(s->types);
    s->types = malloc(m->types.len + 1);
    if (!s->types) {
        drop(s);
        return 0;
    }
    s->types_len = m->types.len;
    if (m->types.len)
        memcpy(s->types, m->types.ptr, m->types.len);
    text_of(s->shard_by, sizeof s->shard_by, m->shard_by);
    s->number = m->subscription;
    s->instance = m->instance;
    s->cursor = m->cursor;
    s->credit = m->credit_bytes;
    s->refused = 0;
    s->greet = 1;
    char why[160];
    int ok = same_history(f, m, why, sizeof why);
    if (ok == 0)
        refuse(f, s, AZOTH_ERR_DIVERGED, why);
    else if (ok < 0)
        s->credit = 0; /* the store could not be read now: the projector will ask again */
    return 1;
}

static void write_row(struct feed *f, struct subscription *s, const struct wire_pull *m)
{
    if (!f->gauges)
        return;
    if (s->row < 0)
        s->row = projection_row_claim(f->gauges, s->name, s->shard, s->shards);
    if (s->row < 0)
        return;
    struct projection_shm *p = &f->gauges->projection[s->row];
    uint64_t now = (uint64_t)clock_wall_ns();
    if (gauge_get(&p->cursor) != m->applied || gauge_get(&p->instance) != m->instance)
        gauge_set(&p->progress_wall_ns, now);
    gauge_set(&p->cursor, m->applied);
    gauge_set(&p->head_seen, f->head);
    gauge_set(&p->errors, m->errors);
    gauge_set(&p->heard_wall_ns, now);
    gauge_set(&p->instance, m->instance);
    atomic_store(&p->state, m->state);
    char error[256];
    text_of(error, sizeof error, m->error);
    if (strcmp(error, p->error) != 0 || strcmp(s->endpoint, p->endpoint) != 0)
        projection_row_text(f->gauges, s->row, error, s->endpoint);
}

static void take_pull(struct feed *f, struct azoth_bytes message, uint64_t now_ns)
{
    struct wire_pull m;
    if (wire_pull_decode(message, &m, NULL))
        return; /* not from a projector of ours */
    struct subscription *s = find(f, &m);
    if (!s)
        return; /* the table is full: the projector goes on asking */
    int fresh = !s->used || s->number != m.subscription || s->instance != m.instance;
    if (fresh && m.credit_bytes == 0 && !s->used)
        return; /* a report behind its own end */
    if (fresh && m.credit_bytes) {
        if (!subscribe(f, s, &m))
            return;
    } else if (m.credit_bytes && m.cursor == s->cursor && !s->refused) {
        s->credit = m.credit_bytes;
    }
    s->heard_ns = now_ns;
    write_row(f, s, &m);
}

/* ---- batches ---- */

static int wanted_type(const struct subscription *s, struct azoth_bytes type)
{
    if (s->types_len == 0)
        return 1;
    for (size_t at = 0; at + 1 <= s->types_len;) {
        size_t n = s->types[at];
        if (n > s->types_len - at - 1)
            return 0;
        if (n == type.len && memcmp(s->types + at + 1, type.ptr, n) == 0)
            return 1;
        at += 1 + n;
    }
    return 0;
}

/* The shard of an event: by its stream key, or by a field of its payload. */
static int wanted_shard(const struct subscription *s, const struct event_record *ev)
{
    if (s->shards == 1)
        return 1;
    if (s->shard_by[0] != ':')
        return XXH64(ev->key.ptr, ev->key.len, 0) % s->shards == s->shard;
    json_t *o = json_loadb(ev->payload.ptr, ev->payload.len, JSON_ALLOW_NUL, NULL);
    const json_t *v = json_object_get(o, s->shard_by + 1);
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : NULL;
    uint64_t h = text ? XXH64(text, strlen(text), 0) : 0;
    free(text);
    json_decref(o);
    return h % s->shards == s->shard;
}

/* Fills f->frames from the subscription's cursor; moves *ret_last over what was looked at. */
static int look(struct feed *f, const struct subscription *s, uint64_t *ret_last,
                uint32_t *ret_check, struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head head;
    struct event_scan *es = NULL;
    struct event_record ev;
    struct azoth_bytes raw;
    buf_clear(&f->frames);
    int rc = snapshot_begin(f->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    if (!rc) {
        f->head = head.event;
        rc = event_scan_open(sn, s->cursor + 1, 0, &es, err);
    }
    uint32_t events = 0;
    size_t bytes = 0, credit = s->credit < LOOK_BYTES ? s->credit : LOOK_BYTES;
    while (!rc && events < LOOK_EVENTS && bytes < LOOK_BYTES && f->frames.len < credit) {
        int got = event_scan_next(es, &ev, &raw, err);
        if (got <= 0) {
            rc = got;
            break;
        }
        int wanted = wanted_type(s, ev.type) && wanted_shard(s, &ev);
        if (wanted && f->frames.len && f->frames.len + RECORD_FRAME_HEADER + raw.len > credit)
            break;
        if (wanted)
            rc = record_frame_add(&f->frames, ev.id, raw);
        *ret_last = ev.id;
        *ret_check = record_checksum(raw);
        bytes += raw.len;
        events++;
    }
    event_scan_close(es);
    snapshot_end(sn);
    return rc;
}

static int serve(struct feed *f, struct subscription *s, struct azoth_error *err)
{
    struct wire_batch b = {.first = s->cursor + 1, .last = s->cursor};
    int rc = look(f, s, &b.last, &b.last_check, err);
    if (rc)
        return rc;
    if (b.last == s->cursor && !s->greet)
        return 0;
    b.head = f->head;
    b.frames = buf_bytes(&f->frames);
    rc = send_to(f, s, &b);
    if (rc == AZOTH_ERR_BUSY)
        return 0; /* it takes no more now; it will ask again */
    if (rc)
        return error_set(err, rc, "sending a batch to %s", s->name);
    CRASH_POINT(feed_sent);
    s->greet = 0;
    if (b.last == s->cursor)
        return 1;
    s->credit = 0;
    s->cursor = b.last;
    if (f->gauges) {
        gauge_add(&f->gauges->g->feed_batches, 1);
        gauge_add(&f->gauges->g->feed_bytes, f->frames.len);
        if (s->row >= 0)
            gauge_add(&f->gauges->projection[s->row].bytes_sent, f->frames.len);
    }
    return 1;
}

static void lapse(struct feed *f, uint64_t now_ns)
{
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++) {
        struct subscription *s = &f->sub[i];
        if (!s->used || now_ns - s->heard_ns < f->lapse_ns)
            continue;
        if (f->gauges && s->row >= 0) {
            A32 *state = &f->gauges->projection[s->row].state;
            uint32_t was = atomic_load(state);
            /* One that said why it stopped keeps saying so. */
            if (was != PROJECTION_FAILED && was != PROJECTION_STOPPED)
                atomic_store(state, PROJECTION_SILENT);
        }
        drop(s);
    }
}

int feed_step(struct feed *f, uint64_t now_ns, struct azoth_error *err)
{
    int work = 0, rc;
    struct azoth_bytes message;
    for (int i = 0; i < TAKE_MAX; i++) {
        rc = pipe_receive(f->in, 0, &message, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
        take_pull(f, message, now_ns);
        pipe_release(message);
        work++;
    }
    f->turn++;
    for (uint32_t k = 0; k < SUBSCRIPTIONS_MAX; k++) {
        struct subscription *s = &f->sub[(f->turn + k) % SUBSCRIPTIONS_MAX];
        if (!s->used || !s->credit || s->refused)
            continue;
        rc = serve(f, s, err);
        if (rc < 0)
            return rc;
        work += rc;
    }
    lapse(f, now_ns);
    if (f->gauges)
        gauge_set(&f->gauges->g->feed_heartbeat_ns, now_ns);
    return work;
}
