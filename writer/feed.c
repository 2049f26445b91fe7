/*
 * feed.c - subscriptions and batches.
 *
 * Happy path: a projector sends a pull with a new subscription number, its cursor and a credit; the
 * feed checks that the projector follows this history and sends batches that begin at cursor + 1 until
 * the credit is on its way. Each further pull says how far the projector has come: what lies before its
 * cursor is no longer on its way. A batch has at most a quarter of the credit and BATCH_MOST, but at
 * least one event, so a large one passes; while one is applied the next ones are read and sent.
 *
 * Failure modes
 *   - A pull or batch is lost: the projector hears nothing, and subscribes anew under the next
 *     number.
 *   - One comes twice or late: it confirms nothing new, or its number is before the present one.
 *   - The projector is slow: its credit is used up, nothing is sent; others are not held up.
 *   - The transport takes nothing (the connection is being made, the peer is busy or gone): tried again
 *     when it can, a bounded number of times; then the credit is forgotten until the next pull.
 *   - The projector is gone: silent for longer than lapse, taken off, its row says so.
 *   - The feed is killed: projectors subscribe again; cursors are theirs, nothing is lost.
 *   - The log is not theirs (another UUID, a cursor beyond the head, another event at the cursor):
 *     DIVERGED is sent, and nothing else.
 *   - The log is damaged: what lies before the place is sent, then GAP, CORRUPT or FORMAT to those
 *     who come to it; projectors that are beyond it go on.
 *
 * Invariants
 *   F1  a batch's range is contiguous from the subscription's cursor, whatever the filter left of it;
 *       `cursor` moves to its end only when the transport has taken it.
 *   F2  on_way is the sum over `sent`, which is what was sent and is not confirmed; it is over the
 *       credit by less than one event.
 *   F3  a batch that the transport did not take is sent later only to the subscription, under the
 *       number and at the cursor that it was made for. There is one at a time.
 */
#include "writer/feed.h"
#include "writer/feed_faults.h"
#include "writer/feed_look.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/pipe.h"
#include "core/wire.h"
#include "shm/gauges.h"
#include "shm/projection_row.h"

#include <poll.h>
#include <string.h>

#define SUBSCRIPTIONS_MAX SHM_PROJECTIONS
#define TAKE_MAX          64
/* A refused send is tried again after 1, 2, 4, ... ms: half a second in all. */
#define TRIES_MAX 9
/* A batch that the kernel's buffer of a local socket takes at once: the transport's thread has nothing
 * to do then. The buffer holds 208 KiB unless the system allows more (net.core.wmem_max). */
#define BATCH_MOST ((size_t)128 << 10)
/* Batches on their way to one projector, whatever their size. */
#define SENT_MAX 64u
/* Of cursors, for rates. */
#define MARK_INTERVAL_NS (5 * NS_PER_S)
/* Batches to one projector before requests are looked at again. */
#define ROUNDS 8

struct subscription {
    int used;
    char name[AZOTH_NAME_MAX + 1], endpoint[128];
    struct feed_filter filter;
    uint64_t number, instance, cursor;
    uint32_t credit; /* so many bytes may be on their way; 0: it wants nothing */
    struct {
        uint64_t last;
        size_t bytes;
    } sent[SENT_MAX]; /* a ring: batches that are not confirmed */
    uint32_t sent_first, sent_len;
    size_t on_way;
    int greet;     /* new: told the head even when there is nothing to send */
    int refused;   /* the error that it gets instead of events */
    int answer_it; /* that, or that its last word was heard, is not sent yet */
    char why[sizeof((struct azoth_error *)0)->message];
    uint32_t tries; /* sends in a row that the transport did not take */
    uint64_t retry_ns, heard_ns;
    struct pipe_end *out;
    int out_fd; /* polls readable when out may take something */
    int row;
    /* What it said last, for the row: gauges may come after it. Without its texts, but for the error. */
    struct wire_pull told;
    char told_error[256];
};

struct feed {
    struct store *store;
    struct gauges *gauges;
    struct pipe_end *in;
    uint64_t lapse_ns;
    void (*on_subscribed)(const char *name, uint32_t shard, uint32_t shards, uint64_t cursor,
                          int refused, const char *why);
    struct subscription sub[SUBSCRIPTIONS_MAX];
    uint32_t turn;
    uint64_t marked_ns;
    uint64_t head; /* as last seen in a snapshot */
    struct buf message, refusal;
    /* `message` was made for this one and not taken; NULL: for nobody. */
    struct subscription *kept_for;
    uint64_t kept_cursor;
    struct feed_look kept;
};

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

static void drop(struct feed *f, struct subscription *s)
{
    if (f->kept_for == s)
        f->kept_for = NULL;
    feed_send_forget(s->out);
    pipe_close(s->out);
    free(s->filter.types);
    memset(s, 0, sizeof *s);
}

void feed_close(struct feed *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++)
        if (f->sub[i].used)
            drop(f, &f->sub[i]);
    pipe_close(f->in);
    buf_fini(&f->message);
    buf_fini(&f->refusal);
    free(f);
}

void feed_set_lapse(struct feed *f, uint64_t lapse_ns)
{
    f->lapse_ns = lapse_ns;
}

void feed_on_subscribed(struct feed *f,
                        void (*call)(const char *name, uint32_t shard, uint32_t shards,
                                     uint64_t cursor, int refused, const char *why))
{
    f->on_subscribed = call;
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

static size_t batch_most(const struct subscription *s)
{
    return s->credit / 4 < BATCH_MOST ? s->credit / 4 : BATCH_MOST;
}

/* May a batch be sent now? */
static int room(const struct subscription *s)
{
    return s->credit &&
           (s->sent_len == 0 || (s->sent_len < SENT_MAX && s->on_way + batch_most(s) <= s->credit));
}

int feed_waits(const struct feed *f)
{
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++)
        if (f->sub[i].used && room(&f->sub[i]))
            return 1;
    return 0;
}

uint32_t feed_blocked(const struct feed *f, struct pollfd *ret, uint32_t most)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX && n < most; i++)
        if (f->sub[i].used && f->sub[i].retry_ns)
            ret[n++] = (struct pollfd){.fd = f->sub[i].out_fd, .events = POLLIN};
    return n;
}

uint64_t feed_retry_ns(const struct feed *f)
{
    uint64_t first = 0;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++) {
        const struct subscription *s = &f->sub[i];
        if (s->used && s->retry_ns && (first == 0 || s->retry_ns < first))
            first = s->retry_ns;
    }
    return first;
}

/* ---- sending ---- */

/* 1 when the transport took it, 0 when it did not (the try is counted), IO. */
static int send_to(struct subscription *s, const struct buf *image, uint64_t now_ns,
                   struct azoth_error *err)
{
    int rc = feed_send(s->out, buf_bytes(image));
    if (rc && rc != AZOTH_ERR_BUSY)
        return error_set(err, rc, "sending a batch to %s", s->name);
    if (!rc) {
        s->tries = 0;
        s->retry_ns = 0;
        return 1;
    }
    if (s->tries < TRIES_MAX) {
        s->retry_ns = now_ns + (NS_PER_MS << s->tries++);
    } else {
        s->credit = 0;
        s->answer_it = 0;
        s->retry_ns = 0;
    }
    return 0;
}

static void refuse(struct subscription *s, int code, const char *why)
{
    s->refused = code;
    s->answer_it = 1;
    s->credit = 0;
    snprintf(s->why, sizeof s->why, "%s", why);
}

static int send_answer(struct feed *f, struct subscription *s, uint64_t now_ns,
                       struct azoth_error *err)
{
    struct wire_batch b = {.subscription = s->number,
                           .first = s->cursor + 1,
                           .last = s->cursor,
                           .head = f->head,
                           .code = s->refused,
                           .message = bytes_str(s->why)};
    buf_clear(&f->refusal);
    int rc = wire_batch_encode(&f->refusal, &b);
    if (rc)
        return error_set(err, rc, "answering %s", s->name);
    rc = send_to(s, &f->refusal, now_ns, err);
    if (rc > 0)
        s->answer_it = 0;
    return rc;
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
        if (bytes_eq(bytes_str(s->name), m->name) && s->filter.shard == m->shard &&
            s->filter.shards == m->shards)
            return s;
    }
    return none;
}

static void text_of(char *out, size_t size, struct azoth_bytes b)
{
    snprintf(out, size, "%.*s", (int)b.len, b.len ? (const char *)b.ptr : "");
}

static int subscribe(struct feed *f, struct subscription *s, const struct wire_pull *m)
{
    char endpoint[128];
    text_of(endpoint, sizeof endpoint, m->endpoint);
    if (f->kept_for == s)
        f->kept_for = NULL; /* another filter, perhaps another projection */
    if (!s->used) {
        memset(s, 0, sizeof *s);
        s->used = 1;
        s->row = -1;
        text_of(s->name, sizeof s->name, m->name);
        s->filter.shard = m->shard;
        s->filter.shards = m->shards;
    }
    if (!s->out || strcmp(endpoint, s->endpoint) != 0) {
        struct pipe_end *out;
        if (pipe_connect_push(endpoint, &out, NULL)) {
            drop(f, s);
            return 0;
        }
        feed_send_forget(s->out);
        pipe_close(s->out);
        s->out = out;
        s->out_fd = pipe_send_fd(out);
        snprintf(s->endpoint, sizeof s->endpoint, "%s", endpoint);
    }
    free(s->filter.types);
    s->filter.types = malloc(m->types.len + 1);
    if (!s->filter.types) {
        drop(f, s);
        return 0;
    }
    s->filter.types_len = m->types.len;
    if (m->types.len)
        memcpy(s->filter.types, m->types.ptr, m->types.len);
    text_of(s->filter.shard_by, sizeof s->filter.shard_by, m->shard_by);
    s->number = m->subscription;
    s->instance = m->instance;
    s->cursor = m->cursor;
    s->credit = m->credit_bytes;
    s->sent_len = 0;
    s->on_way = 0;
    s->refused = s->answer_it = 0;
    s->tries = 0;
    s->retry_ns = 0;
    s->greet = 1;
    struct azoth_error why = {0};
    int rc = 0;
    if (memcmp(m->uuid, store_identity(f->store)->uuid, 16) != 0)
        rc = error_set(&why, AZOTH_ERR_DIVERGED, "the projection follows another database (UUID)");
    else
        rc = feed_same_history(f->store, m->cursor, m->cursor_check, &f->head, &why);
    if (rc == AZOTH_ERR_DIVERGED || feed_is_damage(rc))
        refuse(s, rc, why.message);
    else if (rc)
        s->credit = 0; /* the store could not be read now: the projector will ask again */
    return 1;
}

/* It has everything up to cursor. */
static void confirm(struct subscription *s, uint64_t cursor)
{
    while (s->sent_len && s->sent[s->sent_first].last <= cursor) {
        s->on_way -= s->sent[s->sent_first].bytes;
        s->sent_first = (s->sent_first + 1) % SENT_MAX;
        s->sent_len--;
    }
}

static void write_row(struct feed *f, struct subscription *s)
{
    const struct wire_pull *m = &s->told;
    uint64_t heard_ns = s->heard_ns;
    if (!f->gauges)
        return;
    if (s->row < 0)
        s->row = projection_row_claim(f->gauges, s->name, s->filter.shard, s->filter.shards);
    struct projection_shm *p = &f->gauges->projection[s->row];
    if (gauge_get(&p->cursor) != m->applied || gauge_get(&p->instance) != m->instance)
        gauge_set(&p->progress_ns, heard_ns);
    if (gauge_get(&p->instance) != m->instance) {
        /* What it did before it went away is no part of how fast it is now. */
        gauge_set(&p->rate_ns, 0);
        gauge_set(&p->rate_next_cursor, m->applied);
        gauge_set(&p->rate_next_ns, heard_ns);
    }
    if (m->applied >= f->head)
        gauge_set(&p->at_head_ns, heard_ns);
    else if (m->applied < gauge_get(&p->cursor))
        gauge_set(&p->at_head_ns, 0);
    gauge_set(&p->cursor, m->applied);
    gauge_set(&p->head_seen, f->head);
    gauge_set(&p->errors, m->errors);
    gauge_set(&p->dead_waiting, m->dead_waiting);
    gauge_set(&p->dead_retired, m->dead_retired);
    gauge_set(&p->dead_parked, m->dead_parked);
    gauge_set(&p->stands_event, m->stands_event);
    gauge_set(&p->next_attempt_ns, m->next_ns ? heard_ns + m->next_ns : 0);
    gauge_set(&p->wal_bytes, m->wal_bytes);
    gauge_set(&p->wal_pinned_ns, m->wal_pinned_for_ns && m->wal_pinned_for_ns < heard_ns
                                     ? heard_ns - m->wal_pinned_for_ns
                                     : 0);
    atomic_store(&p->breaker, m->breaker);
    if (!*s->told_error)
        gauge_set(&p->failed_ns, 0);
    else if (strcmp(s->told_error, p->error) != 0 || gauge_get(&p->failed_ns) == 0)
        gauge_set(&p->failed_ns, heard_ns);
    gauge_set(&p->heard_ns, heard_ns);
    gauge_set(&p->instance, m->instance);
    atomic_store(&p->state, m->state);
    if (strcmp(s->told_error, p->error) != 0 || strcmp(s->endpoint, p->endpoint) != 0)
        projection_row_text(f->gauges, s->row, s->told_error, s->endpoint);
}

/* What batches took, and how old their oldest events had become. */
static void take_samples(struct feed *f, const struct subscription *s, struct azoth_bytes samples)
{
    if (!f->gauges || s->row < 0)
        return;
    struct projection_shm *p = &f->gauges->projection[s->row];
    for (size_t at = 0; at + WIRE_SAMPLE <= samples.len; at += WIRE_SAMPLE) {
        struct wire_sample one = wire_sample_get((const unsigned char *)samples.ptr + at);
        histogram_add_shared(&f->gauges->g->apply_ns, (uint64_t)one.apply_us * 1000);
        histogram_add_shared(&f->gauges->g->lag_ns, (uint64_t)one.lag_us * 1000);
        gauge_set(&p->apply_ns, (uint64_t)one.apply_us * 1000);
        gauge_set(&p->lag_ns, (uint64_t)one.lag_us * 1000);
    }
}

/* The cursors as they were a while ago: who looks once can tell a rate. */
static void mark_rates(struct feed *f, uint64_t now_ns)
{
    if (!f->gauges || now_ns - f->marked_ns < MARK_INTERVAL_NS)
        return;
    f->marked_ns = now_ns;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++) {
        if (!f->sub[i].used || f->sub[i].row < 0)
            continue;
        struct projection_shm *p = &f->gauges->projection[f->sub[i].row];
        gauge_set(&p->rate_cursor, gauge_get(&p->rate_next_cursor));
        gauge_set(&p->rate_ns, gauge_get(&p->rate_next_ns));
        gauge_set(&p->rate_next_cursor, gauge_get(&p->cursor));
        gauge_set(&p->rate_next_ns, now_ns);
    }
}

void feed_set_gauges(struct feed *f, struct gauges *gauges)
{
    f->gauges = gauges;
    for (uint32_t i = 0; i < SUBSCRIPTIONS_MAX; i++) {
        struct subscription *s = &f->sub[i];
        s->row = -1;
        /* A projector may have come and stopped before there were any. */
        if (s->used)
            write_row(f, s);
    }
}

/* Terminals and logs will show it. */
static int is_name(struct azoth_bytes b)
{
    char name[AZOTH_NAME_MAX + 1];
    text_of(name, sizeof name, b);
    return strlen(name) == b.len && dbdir_name_valid(name);
}

static void say_full(const struct feed *f, const struct wire_pull *m)
{
    char name[AZOTH_NAME_MAX + 1];
    text_of(name, sizeof name, m->name);
    if (f->on_subscribed)
        f->on_subscribed(name, m->shard, m->shards, m->cursor, AZOTH_ERR_FULL,
                         "there is no room for more projections and shards at once");
}

static void take_pull(struct feed *f, struct azoth_bytes message, uint64_t now_ns)
{
    struct wire_pull m;
    if (wire_pull_decode(message, &m, NULL) || !is_name(m.name))
        return; /* not from a projector of ours */
    CRASH_POINT(feed_asked);
    struct subscription *s = find(f, &m);
    if (!s) {
        say_full(f, &m); /* the projector goes on asking */
        return;
    }
    int fresh = !s->used || s->number != m.subscription || s->instance != m.instance;
    /* A projector counts its subscriptions up: one from before comes late. */
    if (s->used && s->instance == m.instance && (int64_t)(m.subscription - s->number) < 0)
        return;
    int last_word = m.state == PROJECTION_FAILED || m.state == PROJECTION_STOPPED;
    if (fresh && m.credit_bytes == 0 && !s->used && !last_word)
        return; /* a report behind its own end */
    if (fresh && (m.credit_bytes || !s->used)) {
        int known = s->used && s->instance == m.instance;
        if (!subscribe(f, s, &m))
            return;
        /* A projector that asks anew after a silence is no news. */
        if (f->on_subscribed && (!known || s->refused))
            f->on_subscribed(s->name, s->filter.shard, s->filter.shards, s->cursor, s->refused,
                             s->why);
    } else if (m.credit_bytes && m.cursor <= s->cursor && !s->refused) {
        confirm(s, m.cursor);
        s->credit = m.credit_bytes;
    }
    if (last_word) {
        /* It takes no more: what it was granted before would only be sent to nobody. It waits for the answer, since
         * what a socket still holds is gone when its other end closes. */
        s->credit = 0;
        s->number = m.subscription;
        s->answer_it = 1;
    }
    s->heard_ns = now_ns;
    text_of(s->told_error, sizeof s->told_error, m.error);
    s->told = m;
    s->told.name = s->told.endpoint = s->told.types = s->told.shard_by = s->told.error =
        s->told.samples = (struct azoth_bytes){0};
    write_row(f, s);
    take_samples(f, s, m.samples);
}

/* ---- batches ---- */

static void count_sent(struct feed *f, const struct subscription *s, const struct feed_look *l)
{
    if (!f->gauges)
        return;
    gauge_add(&f->gauges->g->feed_batches, 1);
    gauge_add(&f->gauges->g->feed_events, l->wanted);
    gauge_add(&f->gauges->g->feed_bytes, l->bytes);
    if (s->row < 0)
        return;
    gauge_add(&f->gauges->projection[s->row].events_sent, l->wanted);
    gauge_add(&f->gauges->projection[s->row].bytes_sent, l->bytes);
}

/* Makes the next batch of s in f->message, or finds it there. */
static int make(struct feed *f, struct subscription *s, struct feed_look *ret,
                struct azoth_error *err)
{
    if (f->kept_for == s && f->kept_cursor == s->cursor) {
        *ret = f->kept;
        return 0;
    }
    f->kept_for = NULL;
    int rc = wire_batch_begin(&f->message);
    if (rc)
        return error_set(err, rc, "a batch of events");
    rc = feed_look(f->store, &s->filter, s->cursor, batch_most(s), &f->message, ret, err);
    if (!rc && ret->head > f->head)
        f->head = ret->head;
    return rc;
}

static void sent(struct feed *f, struct subscription *s, const struct feed_look *l)
{
    s->greet = 0;
    f->kept_for = NULL;
    if (l->last == s->cursor)
        return;
    ensure(s->sent_len < SENT_MAX);
    uint32_t at = (s->sent_first + s->sent_len++) % SENT_MAX;
    s->sent[at].last = l->last;
    s->sent[at].bytes = l->bytes;
    s->on_way += l->bytes;
    s->cursor = l->last;
    count_sent(f, s, l);
}

/* 1 when something was sent, 0 when not, or an error that ends the feed. */
static int serve(struct feed *f, struct subscription *s, uint64_t now_ns, struct azoth_error *err)
{
    struct feed_look l;
    struct azoth_error why = {0};
    if (s->answer_it)
        return send_answer(f, s, now_ns, err);
    int rc = make(f, s, &l, &why);
    if (feed_is_damage(rc)) {
        refuse(s, rc, why.message);
        return send_answer(f, s, now_ns, err);
    }
    if (rc) {
        if (err)
            *err = why;
        return rc;
    }
    if (l.last == s->cursor && !s->greet)
        return 0;
    rc = wire_batch_seal(&f->message, &(struct wire_batch){.subscription = s->number,
                                                           .first = s->cursor + 1,
                                                           .last = l.last,
                                                           .head = f->head,
                                                           .last_check = l.last_check});
    if (rc)
        return error_set(err, rc, "a batch of events");
    rc = send_to(s, &f->message, now_ns, err);
    if (rc < 0)
        return rc;
    if (rc == 0) {
        f->kept_for = s;
        f->kept_cursor = s->cursor;
        f->kept = l;
        return 0;
    }
    CRASH_POINT(feed_sent);
    sent(f, s, &l);
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
        drop(f, s);
    }
}

/* After a send that was not taken: when it is time, or the transport says that it can. */
static int sendable(const struct subscription *s, uint64_t now_ns)
{
    struct pollfd fd = {.fd = s->out_fd, .events = POLLIN};
    return now_ns >= s->retry_ns || poll(&fd, 1, 0) == 1;
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
    for (int round = 0; round < ROUNDS; round++) {
        int before = work;
        for (uint32_t k = 0; k < SUBSCRIPTIONS_MAX; k++) {
            struct subscription *s = &f->sub[(f->turn + k) % SUBSCRIPTIONS_MAX];
            if (!s->used || !(room(s) || s->answer_it) || !sendable(s, now_ns))
                continue;
            rc = serve(f, s, now_ns, err);
            if (rc < 0)
                return rc;
            work += rc;
        }
        if (work == before)
            break;
    }
    lapse(f, now_ns);
    mark_rates(f, now_ns);
    if (f->gauges)
        gauge_set(&f->gauges->g->feed_heartbeat_ns, now_ns);
    return work;
}
