/*
 * pull.c - subscribing, accepting batches in order, asking for the next one.
 *
 * Invariants
 *   L1  a batch is handed out only if it carries the present subscription's number and begins at
 *       `received` + 1: lost, repeated, reordered and late ones change nothing.
 *   L2  the feed sends on while a batch is applied, as far as the credit goes; a report of what is
 *       applied makes room for more. What was received and not applied is lost with the process only,
 *       and the cursor in SQLite is the truth.
 */
#include "projector/pull.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "core/pipe.h"
#include "shm/projection_row.h"

#include <poll.h>
#include <string.h>
#include <sys/random.h>

#define TRIES_MAX 8
/* So many are reported together at most, while more are on their way: a fraction of what may be. */
#define REPORT_BATCHES 8u
/* A last word that is not answered is said again. */
#define LAST_WORD_AGAIN_NS (100 * NS_PER_MS)

struct pull {
    struct pull_options o;
    char name[AZOTH_NAME_MAX + 1], endpoint[128], shard_by[256], error[256];
    struct pipe_end *in, *out;
    uint64_t subscription, instance;
    uint64_t received, applied;
    uint32_t received_check;
    uint64_t heard_ns, kept_ns;
    uint64_t retry_ns; /* when a subscription that the transport did not take is sent again; or 0 */
    uint32_t tries;
    int subscribed;
    uint32_t state;
    uint64_t errors;
    struct pull_faults faults;
    unsigned char samples[WIRE_SAMPLES_MAX * WIRE_SAMPLE];
    size_t samples_len;
    size_t untold; /* bytes and batches that were received since the last report */
    uint32_t untold_batches;
    int at_head;      /* the last batch reached the head as the feed saw it */
    int owes;         /* a report was held back */
    int kept;         /* since pull_keep(): the feed does not know that there is room again */
    uint64_t held_ns; /* the last report while a batch was held; 0: none is */
    struct azoth_bytes message;
    struct buf buf, types;
};

int pull_open(const struct pull_options *o, struct pull **ret, struct azoth_error *err)
{
    struct pull *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a subscription");
    p->o = *o;
    snprintf(p->name, sizeof p->name, "%s", o->name);
    snprintf(p->endpoint, sizeof p->endpoint, "%s", o->endpoint);
    snprintf(p->shard_by, sizeof p->shard_by, "%s", o->shard_by ? o->shard_by : "");
    p->received = p->applied = o->cursor;
    p->received_check = o->cursor_check;
    if (getrandom(&p->instance, sizeof p->instance, 0) != sizeof p->instance ||
        getrandom(&p->subscription, sizeof p->subscription, 0) != sizeof p->subscription) {
        free(p);
        return error_set(err, AZOTH_ERR_IO, "random bytes");
    }
    int rc = o->types.len && buf_add(&p->types, o->types.ptr, o->types.len)
                 ? error_set(err, AZOTH_ERR_NOMEM, "a subscription")
                 : pipe_bind_pull(p->endpoint, &p->in, err);
    if (!rc)
        rc = pipe_connect_push(o->feed, &p->out, err);
    if (rc)
        pull_close(p);
    else
        *ret = p;
    return rc;
}

void pull_close(struct pull *p)
{
    if (!p)
        return;
    pull_release(p);
    pipe_close(p->in);
    pipe_close(p->out);
    buf_fini(&p->buf);
    buf_fini(&p->types);
    free(p);
}

int pull_poll_fd(const struct pull *p)
{
    return pipe_poll_fd(p->in);
}

static int send_pull(struct pull *p, uint32_t credit)
{
    p->untold = 0;
    p->untold_batches = 0;
    p->owes = 0;
    struct wire_pull m = {
        .subscription = p->subscription,
        .instance = p->instance,
        .cursor = p->received,
        .applied = p->applied,
        .cursor_check = p->received_check,
        .credit_bytes = credit,
        .shard = p->o.shard,
        .shards = p->o.shards,
        .state = p->state,
        .errors = p->errors,
        .breaker = p->faults.breaker,
        .dead_waiting = p->faults.dead_waiting,
        .dead_retired = p->faults.dead_retired,
        .dead_parked = p->faults.dead_parked,
        .stands_event = p->faults.stands_event,
        .next_ns = p->faults.next_ns,
        .wal_bytes = p->faults.wal_bytes,
        .wal_pinned_for_ns = p->faults.wal_pinned_for_ns,
        .name = bytes_str(p->name),
        .endpoint = bytes_str(p->endpoint),
        .types = buf_bytes(&p->types),
        .shard_by = bytes_str(p->shard_by),
        .error = bytes_str(p->error),
        .samples = bytes_of(p->samples, p->samples_len),
    };
    memcpy(m.uuid, p->o.uuid, sizeof m.uuid);
    buf_clear(&p->buf);
    int rc = wire_pull_encode(&p->buf, &m);
    if (!rc)
        rc = pipe_send(p->out, buf_bytes(&p->buf), 0, NULL);
    if (!rc)
        p->samples_len = 0;
    return rc;
}

static void subscribe(struct pull *p, uint64_t now_ns)
{
    p->subscription++;
    p->subscribed = 1;
    p->heard_ns = now_ns;
    p->retry_ns = now_ns;
}

/*
 * From what was received: batches in flight belong to the old number and are dropped. A connection
 * that is only being made takes nothing yet: tried again after 1, 2, 4, ... ms, up to the timeout.
 */
static void send_subscription(struct pull *p, uint64_t now_ns)
{
    p->retry_ns = send_pull(p, p->o.credit_bytes) == 0 ? 0 : now_ns + (NS_PER_MS << p->tries);
    if (p->tries < TRIES_MAX)
        p->tries++;
}

uint64_t pull_deadline_ns(const struct pull *p)
{
    uint64_t silent = p->subscribed ? p->heard_ns + p->o.timeout_ns : 0;
    return p->retry_ns && p->retry_ns < silent ? p->retry_ns : silent;
}

void pull_release(struct pull *p)
{
    if (p->message.ptr)
        pipe_release(p->message);
    p->message = (struct azoth_bytes){0};
}

/* 1 accepted, 0 not for us, or the error that the feed sent. */
static int accept_batch(struct pull *p, uint64_t now_ns, struct wire_batch *b,
                        struct azoth_error *err)
{
    if (wire_batch_decode(p->message, b, NULL) || b->subscription != p->subscription ||
        b->first != p->received + 1)
        return 0;
    p->heard_ns = now_ns;
    p->retry_ns = 0;
    p->tries = 0;
    p->at_head = b->last >= b->head;
    if (b->code)
        return error_set(err, b->code, "%.*s", (int)b->message.len, (const char *)b->message.ptr);
    if (b->last < b->first)
        return 1; /* the head, and nothing new: our credit stands */
    p->received = b->last;
    p->received_check = b->last_check;
    p->untold += p->message.len;
    p->untold_batches++;
    return 1;
}

int pull_next(struct pull *p, uint64_t now_ns, struct wire_batch *ret, struct azoth_error *err)
{
    pull_release(p);
    p->held_ns = 0;
    for (;;) {
        int rc = pipe_receive(p->in, 0, &p->message, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
        rc = accept_batch(p, now_ns, ret, err);
        if (rc)
            return rc;
        pull_release(p);
    }
    /* What could not be sent now is as good as lost on the way: asked again after the timeout. */
    if (p->kept || (p->owes && p->at_head)) {
        p->kept = 0;
        CRASH_POINT(projector_grants);
        (void)!send_pull(p, p->o.credit_bytes);
    }
    if (!p->subscribed || now_ns - p->heard_ns >= p->o.timeout_ns)
        subscribe(p, now_ns);
    if (p->retry_ns && now_ns >= p->retry_ns)
        send_subscription(p, now_ns);
    return 0;
}

void pull_keep(struct pull *p, uint64_t now_ns)
{
    if (!p->subscribed)
        return;
    /* The feed's silence is our own doing: what it sent waits in the socket. */
    p->heard_ns = now_ns;
    if (now_ns - p->kept_ns < PULL_KEEP_NS)
        return;
    p->kept_ns = now_ns;
    p->kept = 1;
    (void)!send_pull(p, 0);
}

void pull_faults(struct pull *p, const struct pull_faults *f)
{
    p->faults = *f;
}

void pull_sample(struct pull *p, const struct wire_sample *s)
{
    if (p->samples_len == sizeof p->samples)
        return; /* nothing could be sent for a while: what is told then is enough */
    wire_sample_put(p->samples + p->samples_len, s);
    p->samples_len += WIRE_SAMPLE;
}

static void note(struct pull *p, uint64_t applied, uint32_t state, uint64_t errors,
                 const char *error)
{
    p->applied = applied;
    p->state = state;
    p->errors = errors;
    snprintf(p->error, sizeof p->error, "%s", error ? error : "");
}

uint64_t pull_hold_ns(const struct pull *p)
{
    return p->o.timeout_ns / 2;
}

void pull_hold(struct pull *p, uint64_t now_ns, uint64_t applied, uint32_t state, uint64_t errors,
               const char *error)
{
    uint64_t told = p->held_ns;
    if (told && now_ns - told < pull_hold_ns(p) && p->state == state)
        return;
    note(p, applied, state, errors, error);
    p->held_ns = now_ns;
    /* Silence is our own doing. */
    p->heard_ns = now_ns;
    /* The credit that it has already, so that a feed that was started anew takes it for a subscription. */
    if (!p->subscribed)
        subscribe(p, now_ns);
    if (send_pull(p, p->o.credit_bytes) == 0)
        p->retry_ns = 0;
}

/* Whether the feed has answered under the present number. */
static int answered(struct pull *p)
{
    struct wire_batch b;
    int yes = 0;
    pull_release(p);
    while (!yes && pipe_receive(p->in, 0, &p->message, NULL) > 0) {
        yes = wire_batch_decode(p->message, &b, NULL) == 0 && b.subscription == p->subscription;
        pull_release(p);
    }
    return yes;
}

static void last_word(struct pull *p)
{
    uint64_t until = clock_mono_ns() + PULL_LAST_WORD_MS * NS_PER_MS, now;
    /* What comes under the number before is no answer to it. */
    p->subscription++;
    for (int said = 0; !answered(p) && (now = clock_mono_ns()) < until;) {
        /* Until the transport can take it, and then until it is answered or is to be said again. */
        struct pollfd fd[2] = {{.fd = pipe_poll_fd(p->in), .events = POLLIN},
                               {.fd = pipe_send_fd(p->out), .events = POLLIN}};
        if (said && now >= p->retry_ns)
            said = 0;
        int rc = said ? 0 : send_pull(p, 0);
        if (rc && rc != AZOTH_ERR_BUSY)
            return;
        if (!said && !rc) {
            said = 1;
            p->retry_ns = now + LAST_WORD_AGAIN_NS;
        }
        uint64_t next = said && p->retry_ns < until ? p->retry_ns : until;
        poll(fd, said ? 1 : 2, (int)((next - now) / NS_PER_MS) + 1);
    }
}

void pull_report(struct pull *p, uint64_t applied, uint32_t state, uint64_t errors,
                 const char *error)
{
    CRASH_POINT(projector_reports);
    note(p, applied, state, errors, error);
    int ends = state == PROJECTION_FAILED || state == PROJECTION_STOPPED;
    if (ends)
        last_word(p);
    else if (p->untold >= p->o.credit_bytes / 8 || p->untold_batches >= REPORT_BATCHES)
        (void)!send_pull(p, p->o.credit_bytes);
    else
        p->owes = 1;
}
