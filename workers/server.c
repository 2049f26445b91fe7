/*
 * server.c - the request server's two threads.
 *
 *   receiver (caller)                                  completer (own thread)
 *   receive, decode                                    sleep until something was published
 *     bad request or read ──► answer                   take the whole list
 *     transaction: begin, step                         step each
 *       done ──► answer                                  done ──► answer, flight becomes free
 *       else ──► list                                    else ──► back to the list
 *   wake the writer once for the burst                 wake the writer if one was submitted
 *
 * A flight is in one place at a time: free, the receiver's hands, the list, the completer's hands.
 * Only whoever has it in hand steps it; the mutex guards the list and the free ones, and is never
 * held while a preflight is stepped, since that may run a command.
 *
 * Failure modes
 *   everything in flight: the receiver takes nothing more; requests wait in the sockets' buffers.
 *   an answer cannot be delivered: counted and dropped; the client asks again under its id.
 *   a deadline passes: preflight_step says which error that is; the completer wakes in time for it.
 *
 * Invariants
 *   W1  no wake is lost: a result (or a released stripe) that the completer was told of before the
 *       flight came to the list is told again. The receiver reads done_seq before the first step
 *       and after the flight is in the list; if it has moved, it moves it once more. If it has not,
 *       the news is still to come, and the completer looks at the list after it.
 *   W2  the message and everything decoded from it stay until the flight is answered: preflight
 *       borrows them.
 */
#include "workers/server.h"

#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "workers/message.h"

#include <pthread.h>
#include <string.h>
#include <sys/queue.h>

#define TICK_PARKED_NS                                                                             \
    (2 * NS_PER_MS)                      /* what waits for a slot, blocks or a pause hears nothing \
                                          */
#define TICK_FLIGHT_NS  (20 * NS_PER_MS) /* the rest is woken; this is for a reaper's work */
#define TICK_IDLE_NS    SHM_WAIT_SLICE_NS
#define STALLED_NS      (10 * NS_PER_S)
#define SEND_TIMEOUT_MS 1000
#define KEPT_BYTES      (256u << 10) /* buffers of a flight that are larger are given back */

struct flight {
    STAILQ_ENTRY(flight) link;
    struct preflight *preflight;
    struct reqrep_return to;
    struct azoth_bytes message;
    struct wire_request request;
    struct buf store; /* what the request borrows beside the message */
    struct command_call call;
    uint64_t deadline_ns;
    enum preflight_stage stage;
    int json;
};
STAILQ_HEAD(flights, flight);

struct server {
    struct server_options o;
    pthread_t thread;
    _Atomic int stop;
    _Atomic uint64_t round_ns; /* when the completer last woke */
    _Atomic uint64_t requests, refused, undelivered;

    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct flights list; /* in flight, not in the completer's hands */
    struct flights free;
    uint32_t made, in_flight;

    struct flight *spare;      /* the receiver's, for the next request */
    struct buf received, work; /* the receiver's */
    struct buf completed;      /* the completer's */
    uint64_t reaped_ns;        /* the completer's */
};

/* ---- flights ---- */

static struct flight *flight_new(struct server *s)
{
    struct flight *fl = calloc(1, sizeof *fl);
    if (fl && preflight_new(s->o.participant, s->o.store, &fl->preflight)) {
        free(fl);
        return NULL;
    }
    return fl;
}

static void flight_free(struct flight *fl)
{
    preflight_free(fl->preflight);
    if (fl->message.ptr)
        reqrep_release(fl->message);
    command_call_fini(&fl->call);
    buf_fini(&fl->store);
    free(fl);
}

/* One for the receiver's hands, or NULL when all are in flight. */
static struct flight *flight_take(struct server *s)
{
    struct flight *fl = s->spare;
    s->spare = NULL;
    if (fl)
        return fl;
    pthread_mutex_lock(&s->lock);
    fl = STAILQ_FIRST(&s->free);
    if (fl)
        STAILQ_REMOVE_HEAD(&s->free, link);
    pthread_mutex_unlock(&s->lock);
    if (!fl && s->made < s->o.in_flight_max) {
        fl = flight_new(s);
        if (fl)
            s->made++;
        else if (s->made)
            s->o.in_flight_max = s->made; /* memory is out: live with what there is */
    }
    return fl;
}

/* Lets go of the request; fl can take another. */
static void flight_clear(struct flight *fl)
{
    reqrep_release(fl->message);
    fl->message = (struct azoth_bytes){NULL, 0};
    command_call_end(&fl->call);
    if (fl->store.cap > KEPT_BYTES)
        buf_fini(&fl->store);
    if (fl->call.declared.image.cap > KEPT_BYTES || fl->call.hashed.cap > KEPT_BYTES)
        command_call_fini(&fl->call);
}

/* ---- answering ---- */

static void answer_send(struct server *s, const struct flight *fl, const struct buf *out)
{
    struct azoth_error err = {0};
    if (reqrep_answer(s->o.socket, &fl->to, buf_bytes(out), SEND_TIMEOUT_MS, &err) == 0)
        return;
    uint64_t n = atomic_fetch_add(&s->undelivered, 1) + 1;
    if ((n & (n - 1)) == 0) /* the first, and then ever more seldom */
        log_line(LOG_LEVEL_WARN, "an answer was not delivered: %s undelivered=%llu", err.message,
                 (unsigned long long)n);
}

static void answer_or_log(struct server *s, const struct flight *fl, const struct buf *out, int rc)
{
    if (rc == 0)
        answer_send(s, fl, out);
    else
        log_line(LOG_LEVEL_ERR, "an answer could not be made error=%s", azoth_code_name(rc));
}

static void answer_error_now(struct server *s, struct flight *fl, const struct azoth_error *err)
{
    atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
    answer_or_log(s, fl, &s->received, message_error(&s->received, fl->json, &fl->request, err));
}

static void answer_done(struct server *s, struct flight *fl, struct buf *out)
{
    struct preflight_outcome o;
    preflight_end(fl->preflight, &o);
    if (o.code)
        atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
    answer_or_log(s, fl, out, message_outcome(out, fl->json, &fl->request, &o));
}

/* ---- the receiver ---- */

static uint32_t news(const struct server *s)
{
    const struct participant *p = s->o.participant;
    return atomic_load(&p->segment->participant[p->index].done_seq);
}

/* Wakes the completer the way the writer does. */
static void completer_wake(struct server *s)
{
    const struct participant *p = s->o.participant;
    struct wakes wakes = {0};
    wakes_add(&wakes, p->index, WAITS_ANY);
    wakes_send(p->segment, &wakes);
}

/* Fills *ret for preflight. A call's keys are declared here. */
static int request_of(struct server *s, struct flight *fl, uint64_t now_ns,
                      struct preflight_request *ret, struct azoth_error *err)
{
    const struct wire_request *req = &fl->request;
    fl->deadline_ns = now_ns + req->deadline_ms * NS_PER_MS;
    *ret = (struct preflight_request){
        .image = req->body,
        .id = req->id.len ? req->id.ptr : NULL,
        .deadline_ns = fl->deadline_ns,
        .wait_paused = (req->flags & WIRE_WAIT_PAUSED) != 0,
    };
    if (req->kind == WIRE_TX) {
        ret->content = txn_content_hash(req->body, (struct azoth_bytes){NULL, 0});
        return 0;
    }
    int rc = command_call_begin(&fl->call, s->o.commands, s->o.timer, req->name, req->body,
                                req->args, req->id, &ret->image, &ret->content, err);
    if (!rc)
        ret->hooks = command_call_hook(&fl->call);
    return rc;
}

static void list_add(struct server *s, struct flight *fl, uint32_t seen)
{
    /* The completer sleeps longer than what hears nothing, or a short deadline, allows. */
    int wake = (fl->stage != PREFLIGHT_SUBMITTED && fl->stage != PREFLIGHT_WANTS_STRIPE) ||
               fl->request.deadline_ms * NS_PER_MS < 2 * TICK_IDLE_NS;
    pthread_mutex_lock(&s->lock);
    STAILQ_INSERT_TAIL(&s->list, fl, link);
    s->in_flight++;
    pthread_mutex_unlock(&s->lock);
    if (wake || news(s) != seen) /* W1 */
        completer_wake(s);
}

/* Starts a transaction: 1 when it is in flight now, 0 when it is answered. */
static int transaction_start(struct server *s, struct flight *fl, int *submitted)
{
    struct preflight_request r;
    struct azoth_error err = {0};
    uint64_t now = clock_mono_ns();
    if (request_of(s, fl, now, &r, &err)) {
        answer_error_now(s, fl, &err);
        return 0;
    }
    uint32_t seen = news(s);
    preflight_begin(fl->preflight, &r);
    fl->stage = preflight_step(fl->preflight, now);
    if (fl->stage == PREFLIGHT_DONE) {
        answer_done(s, fl, &s->received);
        return 0;
    }
    *submitted |= fl->stage == PREFLIGHT_SUBMITTED;
    list_add(s, fl, seen);
    return 1;
}

static int flight_start(struct server *s, struct flight *fl, int *submitted)
{
    struct azoth_error err = {0};
    atomic_fetch_add_explicit(&s->requests, 1, memory_order_relaxed);
    if (message_decode(fl->message, &fl->store, &fl->request, &fl->json, &err)) {
        answer_error_now(s, fl, &err);
        return 0;
    }
    if (!message_is_read(fl->request.kind))
        return transaction_start(s, fl, submitted);
    answer_or_log(s, fl, &s->received,
                  message_read(&s->received, &s->work, fl->json, &fl->request, s->o.store,
                               s->o.participant->segment));
    return 0;
}

int server_step(struct server *s, struct azoth_error *err)
{
    int n = 0, rc = 0, submitted = 0;
    while (n < (int)SERVER_BURST) {
        struct flight *fl = flight_take(s);
        if (!fl)
            break;
        rc = reqrep_receive(s->o.socket, 0, &fl->to, &fl->message, err);
        if (rc <= 0) {
            s->spare = fl;
            break;
        }
        n++;
        if (!flight_start(s, fl, &submitted)) {
            flight_clear(fl);
            s->spare = fl;
        }
    }
    if (submitted)
        preflight_flush(s->o.participant);
    if (s->received.cap > KEPT_BYTES)
        buf_fini(&s->received);
    if (s->work.cap > KEPT_BYTES)
        buf_fini(&s->work);
    return rc < 0 ? rc : n;
}

/* ---- the completer ---- */

struct round {
    uint64_t now_ns;
    uint64_t sleep_ns; /* until the next round, at most */
    int submitted;     /* one that was parked is in the queue now */
    int parked;
};

static void round_kept(struct round *r, const struct flight *fl)
{
    uint64_t sleep = TICK_FLIGHT_NS;
    if (fl->stage != PREFLIGHT_SUBMITTED) {
        r->parked = 1;
        if (fl->stage != PREFLIGHT_WANTS_STRIPE)
            sleep = TICK_PARKED_NS;
    }
    if (fl->deadline_ns < r->now_ns + sleep)
        sleep = fl->deadline_ns > r->now_ns ? fl->deadline_ns - r->now_ns : 0;
    if (sleep < r->sleep_ns)
        r->sleep_ns = sleep;
}

/* Steps all that are in flight, in the order in which they came. */
static void completer_round(struct server *s, struct round *r)
{
    struct flights taken = STAILQ_HEAD_INITIALIZER(taken), kept = STAILQ_HEAD_INITIALIZER(kept),
                   done = STAILQ_HEAD_INITIALIZER(done);
    uint32_t answered = 0;
    struct flight *fl;
    pthread_mutex_lock(&s->lock);
    STAILQ_CONCAT(&taken, &s->list);
    pthread_mutex_unlock(&s->lock);
    while ((fl = STAILQ_FIRST(&taken)) != NULL) {
        STAILQ_REMOVE_HEAD(&taken, link);
        enum preflight_stage before = fl->stage;
        fl->stage = preflight_step(fl->preflight, r->now_ns);
        if (fl->stage == PREFLIGHT_DONE) {
            answer_done(s, fl, &s->completed);
            flight_clear(fl);
            STAILQ_INSERT_TAIL(&done, fl, link);
            answered++;
            continue;
        }
        r->submitted |= fl->stage == PREFLIGHT_SUBMITTED && before != PREFLIGHT_SUBMITTED;
        round_kept(r, fl);
        STAILQ_INSERT_TAIL(&kept, fl, link);
    }
    pthread_mutex_lock(&s->lock);
    STAILQ_CONCAT(&kept, &s->list); /* what came meanwhile is younger */
    STAILQ_CONCAT(&s->list, &kept);
    STAILQ_CONCAT(&s->free, &done);
    s->in_flight -= answered;
    if (answered)
        pthread_cond_broadcast(&s->freed);
    pthread_mutex_unlock(&s->lock);
}

static void *completer_main(void *arg)
{
    struct server *s = arg;
    uint32_t seen = news(s);
    uint64_t sleep_ns = TICK_IDLE_NS;
    while (!atomic_load(&s->stop)) {
        preflight_wait_any(s->o.participant, &seen, sleep_ns);
        struct round r = {.now_ns = clock_mono_ns(), .sleep_ns = TICK_IDLE_NS};
        atomic_store_explicit(&s->round_ns, r.now_ns, memory_order_relaxed);
        completer_round(s, &r);
        if (r.submitted)
            preflight_flush(s->o.participant);
        /* Whoever waits for others' locks looks after the dead. */
        if (r.parked && r.now_ns - s->reaped_ns > SHM_WAIT_SLICE_NS) {
            s->reaped_ns = r.now_ns;
            reap_step(s->o.participant);
        }
        sleep_ns = r.sleep_ns;
    }
    return NULL;
}

/* ---- life ---- */

int server_open(const struct server_options *o, struct server **ret, struct azoth_error *err)
{
    ensure(o->in_flight_max >= 1 && o->in_flight_max <= SERVER_IN_FLIGHT_MAX);
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "the server");
    s->o = *o;
    STAILQ_INIT(&s->list);
    STAILQ_INIT(&s->free);
    atomic_store(&s->round_ns, clock_mono_ns());
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->freed, &attr);
    pthread_condattr_destroy(&attr);
    int e = pthread_create(&s->thread, NULL, completer_main, s);
    if (e) {
        pthread_cond_destroy(&s->freed);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return error_errno(err, e, "the server's thread");
    }
    *ret = s;
    return 0;
}

/* Waits for `freed` until *word is below limit. Under the lock. */
static int wait_below(struct server *s, const uint32_t *word, uint32_t limit, uint64_t timeout_ns)
{
    uint64_t until = clock_mono_ns() + timeout_ns;
    struct timespec at = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    while (*word >= limit && clock_mono_ns() < until)
        pthread_cond_timedwait(&s->freed, &s->lock, &at);
    return *word < limit;
}

int server_wait_room(struct server *s, uint64_t timeout_ns)
{
    pthread_mutex_lock(&s->lock);
    int room = wait_below(s, &s->in_flight, s->o.in_flight_max, timeout_ns);
    pthread_mutex_unlock(&s->lock);
    return room;
}

int server_wait_idle(struct server *s, uint64_t timeout_ns)
{
    pthread_mutex_lock(&s->lock);
    int idle = wait_below(s, &s->in_flight, 1, timeout_ns);
    pthread_mutex_unlock(&s->lock);
    return idle;
}

int server_alive(const struct server *s, uint64_t now_ns)
{
    uint64_t round = atomic_load_explicit(&s->round_ns, memory_order_relaxed);
    return now_ns < round + STALLED_NS;
}

struct server_counters server_counters(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    uint32_t in_flight = s->in_flight;
    pthread_mutex_unlock(&s->lock);
    return (struct server_counters){
        .requests = atomic_load(&s->requests),
        .refused = atomic_load(&s->refused),
        .undelivered = atomic_load(&s->undelivered),
        .in_flight = in_flight,
    };
}

/* The worker stops before this one has its outcome. */
static void flight_give_up(struct server *s, struct flight *fl)
{
    struct azoth_error err = {0};
    if (fl->stage == PREFLIGHT_SUBMITTED)
        error_set(&err, AZOTH_ERR_OUTCOME_UNKNOWN,
                  "submitted, but the worker stops before the answer came");
    else
        error_set(&err, AZOTH_ERR_BUSY, "the worker stops: send it again, to another one");
    answer_error_now(s, fl, &err);
    flight_free(fl);
}

void server_close(struct server *s)
{
    if (!s)
        return;
    atomic_store(&s->stop, 1);
    completer_wake(s);
    pthread_join(s->thread, NULL);
    struct flight *fl;
    while ((fl = STAILQ_FIRST(&s->list)) != NULL) {
        STAILQ_REMOVE_HEAD(&s->list, link);
        flight_give_up(s, fl);
    }
    while ((fl = STAILQ_FIRST(&s->free)) != NULL) {
        STAILQ_REMOVE_HEAD(&s->free, link);
        flight_free(fl);
    }
    if (s->spare)
        flight_free(s->spare);
    buf_fini(&s->received);
    buf_fini(&s->work);
    buf_fini(&s->completed);
    pthread_cond_destroy(&s->freed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
