/*
 * remote.c - requests to workers over raw REQ sockets, many in flight, one thread per endpoint.
 *
 * Happy path: a call gets a number, is sent to the next endpoint in turn, and its answer finds it by
 * that number. Failure modes:
 *   a worker dies with the request      its connection breaks: sent again at once, to the next
 *                                       endpoint. The request id makes that harmless
 *   a worker is stopped or slow         after some silence the request is sent to the next endpoint.
 *                                       A refusal is held until no other copy can commit (copies.h)
 *   nanomsg drops an answer             (a raw REP socket does, on a connection that is still busy with
 *                                       another answer): as above
 *   an answer comes twice, or too late  its number is not in the table any more: dropped
 *   a peer died inside a message        nanomsg would parse rubbish from then on: a socket that does
 *                                       not even answer a ping is closed and made anew
 *   the deadline passes                 UNREACHABLE if no worker ever took it, else OUTCOME_UNKNOWN
 *
 * One lock for table and calls; sockets have their own, so that a slow send holds up no answer.
 */
#include "client/internal.h"

#include "client/copies.h"
#include "core/clock.h"
#include "core/reqrep.h"

#include <string.h>

#define ENDPOINTS_MAX REMOTE_ENDPOINTS_MAX
#define CALLS_MAX     4096u /* a power of two: the low bits of a number are the place in the table */
#define RESEND_NS     (300 * NS_PER_MS)
#define TICK_MS       50
#define PING_NS       (300 * NS_PER_MS)
#define PING_NUMBER   0x7fffffffu /* no call has it */

struct call {
    uint32_t number;
    int transaction;
    struct buf message;
    uint64_t deadline_ns, sent_ns, resend_ns;
    uint32_t endpoint;
    int taken;   /* a transport took it at least once */
    int refused; /* a copy was refused, and another may yet commit: image is that answer */
    struct copies copies;
    int sending; /* its message is being read without the lock: not to be collected yet */
    int ended, code;
    struct azoth_error error;
    struct buf image; /* the answer as it came */
    pthread_cond_t wake;
    remote_done done; /* asynchronous ones */
    void *arg;
    struct call *next; /* among the ended */
};

struct endpoint {
    struct remote *remote;
    char url[128];
    pthread_mutex_t lock;
    struct reqrep *socket;
    pthread_t thread;
    uint32_t index;
    /* Of the receiver's thread alone. */
    uint64_t pinged_ns;             /* and nothing heard since; or 0 */
    uint32_t breaks, breaks_before; /* seen; of the sockets before this one */
};

struct remote {
    struct endpoint endpoint[ENDPOINTS_MAX];
    uint32_t endpoints, started;
    pthread_mutex_t lock;
    pthread_cond_t ended_wake;
    struct call *table[CALLS_MAX];
    struct call *ended, **ended_tail;
    uint32_t next_place, generation, in_flight, turn;
    _Atomic int stopping;
};

/* ---- sockets ---- */

/* *ret_breaks: how many connections had broken before the one that took it. A break in this very
 * moment counts as before: the copy may be on the next connection, so it must not count as dead. */
static int endpoint_send(struct endpoint *e, uint32_t number, struct azoth_bytes message,
                         uint32_t *ret_breaks)
{
    pthread_mutex_lock(&e->lock);
    int rc = e->socket ? reqrep_request(e->socket, number, message, TICK_MS, NULL)
                       : AZOTH_ERR_UNREACHABLE;
    if (e->socket)
        *ret_breaks = e->breaks_before + reqrep_breaks(e->socket);
    pthread_mutex_unlock(&e->lock);
    return rc;
}

static void endpoint_renew(struct endpoint *e)
{
    struct reqrep *fresh = NULL;
    if (reqrep_connect(e->url, &fresh, NULL))
        return;
    pthread_mutex_lock(&e->lock);
    struct reqrep *old = e->socket;
    e->breaks_before += reqrep_breaks(old);
    e->socket = fresh;
    pthread_mutex_unlock(&e->lock);
    reqrep_close(old);
}

/* Sends a call to the next endpoint that takes it. */
static int call_send(struct remote *r, struct call *c, uint32_t number, struct azoth_bytes message,
                     uint32_t first)
{
    for (uint32_t i = 0; i < r->endpoints; i++) {
        uint32_t at = (first + i) % r->endpoints;
        uint32_t breaks;
        if (endpoint_send(&r->endpoint[at], number, message, &breaks) == 0) {
            c->endpoint = at;
            copies_sent(&c->copies, at, breaks);
            return 0;
        }
    }
    return AZOTH_ERR_UNREACHABLE;
}

/* The worker gives up a little before we do, so that its reason is heard. */
static uint32_t worker_deadline_ms(uint64_t left_ns)
{
    uint64_t ms = left_ns / NS_PER_MS, margin = ms / 10 < 50 ? ms / 10 : 50;
    return ms - margin > 0 ? (uint32_t)(ms - margin) : 1;
}

/* ---- the table; r->lock is held ---- */

/* To remote_poll, which frees it. */
static void hand_over(struct remote *r, struct call *c)
{
    c->next = NULL;
    *r->ended_tail = c;
    r->ended_tail = &c->next;
    pthread_cond_signal(&r->ended_wake);
}

static void end_call(struct remote *r, struct call *c, int code)
{
    r->table[c->number & (CALLS_MAX - 1)] = NULL;
    c->ended = 1;
    c->code = code;
    if (!c->done)
        pthread_cond_signal(&c->wake);
    else if (!c->sending)
        hand_over(r, c);
}

static void expire(struct remote *r, struct call *c)
{
    int code = !c->taken        ? AZOTH_ERR_UNREACHABLE
               : c->transaction ? AZOTH_ERR_OUTCOME_UNKNOWN
                                : AZOTH_ERR_TIMEOUT;
    error_set(&c->error, code, "%s%s", azoth_code_sentence(code),
              c->refused ? " (one worker refused it, another has it still)" : "");
    end_call(r, c, code);
}

/* Would another copy of the request be refused as this one was, whatever happens in between? */
static int refused_for_good(int code)
{
    switch (code) {
    case AZOTH_ERR_KEY_SIZE:
    case AZOTH_ERR_VALUE_SIZE:
    case AZOTH_ERR_EVENT_TYPE:
    case AZOTH_ERR_TXN_SIZE:
    case AZOTH_ERR_UTF8:
    case AZOTH_ERR_ENCODING:
    case AZOTH_ERR_BAD_REQUEST:
    case AZOTH_ERR_NO_ID:
        return 1;
    default:
        return 0;
    }
}

/* Was the request looked at under its locks, or given up or turned away before? */
static int refused_under_locks(int code)
{
    enum azoth_class class = azoth_code_class(code);
    return class == AZOTH_CLASS_CONFLICT ||
           (class == AZOTH_CLASS_CALLER && code != AZOTH_ERR_NO_COMMAND);
}

/* Counts the answer; 1 when it may not be told yet: another copy of the request can still commit. */
static int is_premature(struct call *c, uint32_t endpoint, struct azoth_bytes message)
{
    struct wire_answer a;
    int code = wire_answer_decode(message, &a, NULL) == 0 ? a.code : 0;
    if (!c->transaction || code != AZOTH_ERR_OUTCOME_UNKNOWN) {
        copies_answered(&c->copies, endpoint);
        return c->transaction && code && !refused_for_good(code) &&
               !copies_settled(&c->copies, refused_under_locks(code));
    }
    copies_unknown(&c->copies, endpoint);
    return copies_out(&c->copies) != 0; /* which may know */
}

static void arrived(struct endpoint *e, uint32_t number, struct azoth_bytes message)
{
    struct remote *r = e->remote;
    pthread_mutex_lock(&r->lock);
    struct call *c = r->table[number & (CALLS_MAX - 1)];
    if (c && c->number == number) {
        buf_clear(&c->image);
        int rc = buf_add(&c->image, message.ptr, message.len);
        if (rc)
            error_set(&c->error, rc, "an answer of %zu bytes", message.len);
        /* While it is being sent for the first time there is no other copy. */
        c->refused = is_premature(c, e->index, message) && !rc && !c->sending;
        if (!c->refused)
            end_call(r, c, rc);
        else if (copies_out(&c->copies) == 0)
            c->resend_ns = 0; /* only a copy that comes after the dead ones can tell */
    }
    pthread_mutex_unlock(&r->lock);
}

/* The call once more, with the time that is left; under the lock, so it cannot end meanwhile. */
static void resend(struct remote *r, struct call *c, uint32_t first, uint64_t now)
{
    struct wire_request req;
    struct buf message = {0};
    if (wire_request_decode(buf_bytes(&c->message), &req, NULL) == 0) {
        req.deadline_ms = worker_deadline_ms(c->deadline_ns - now);
        if (wire_request_encode(&message, &req) == 0 &&
            call_send(r, c, c->number, buf_bytes(&message), first) == 0)
            c->taken = 1;
    }
    buf_fini(&message);
    c->sent_ns = now;
    c->resend_ns = c->resend_ns ? c->resend_ns * 2 : RESEND_NS;
}

/* Expires and resends what this endpoint was last given. Returns 1 when it was silent. */
static int tick(struct endpoint *e, uint64_t now)
{
    struct remote *r = e->remote;
    int silent = 0;
    uint32_t breaks = e->breaks_before + reqrep_breaks(e->socket), fresh = breaks != e->breaks;
    e->breaks = breaks;
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < CALLS_MAX && r->in_flight; i++) {
        struct call *c = r->table[i];
        if (!c || c->sending)
            continue; /* whether it was taken is known in a moment */
        if (fresh && copies_broke(&c->copies, e->index, breaks) && copies_out(&c->copies) == 0)
            c->resend_ns = 0;
        if (c->endpoint != e->index)
            continue;
        if (now >= c->deadline_ns) {
            expire(r, c);
        } else if (now - c->sent_ns >= c->resend_ns) {
            silent |= c->taken && c->resend_ns;
            resend(r, c, e->index + 1, now);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return silent;
}

/* What was sent on the socket is not answered any more. */
static void give_up_socket(struct endpoint *e)
{
    struct remote *r = e->remote;
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < CALLS_MAX && r->in_flight; i++)
        if (r->table[i])
            copies_lose(&r->table[i]->copies, e->index);
    pthread_mutex_unlock(&r->lock);
    endpoint_renew(e);
    e->pinged_ns = 0;
}

/* A call is silent: is the connection? */
static void ping(struct endpoint *e, uint64_t now)
{
    struct wire_request req = {.kind = WIRE_PING, .deadline_ms = 1000, .limit = 1};
    struct buf message = {0};
    uint32_t breaks;
    if (!e->pinged_ns && wire_request_encode(&message, &req) == 0 &&
        endpoint_send(e, PING_NUMBER, buf_bytes(&message), &breaks) == 0)
        e->pinged_ns = now;
    buf_fini(&message);
}

static void *receiver_main(void *arg)
{
    struct endpoint *e = arg;
    struct remote *r = e->remote;
    uint64_t ticked = 0;
    while (!atomic_load(&r->stopping)) {
        uint32_t number;
        struct azoth_bytes message;
        /* Only this thread replaces the socket, so it may read it without the lock. */
        int rc = reqrep_collect(e->socket, TICK_MS, &number, &message, NULL);
        uint64_t now = clock_mono_ns();
        if (rc == 1) {
            e->pinged_ns = 0;
            arrived(e, number, message);
            reqrep_release(message);
        }
        if (rc < 0 || now - ticked >= TICK_MS * NS_PER_MS) {
            ticked = now;
            if (tick(e, now))
                ping(e, now);
            if (rc < 0 || (e->pinged_ns && now - e->pinged_ns >= PING_NS))
                give_up_socket(e);
        }
    }
    return NULL;
}

/* ---- opening ---- */

/* Waits by the monotonic clock: a jump of the other one must not lengthen them. */
static void cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

int remote_open(const char *endpoints, struct remote **ret, struct azoth_error *err)
{
    struct remote *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(err, AZOTH_ERR_NOMEM, "a remote handle");
    pthread_mutex_init(&r->lock, NULL);
    cond_init(&r->ended_wake);
    r->ended_tail = &r->ended;
    int rc = 0;
    for (const char *p = endpoints; *p && !rc;) {
        size_t n = strcspn(p, ",");
        struct endpoint *e = &r->endpoint[r->endpoints];
        if (r->endpoints == ENDPOINTS_MAX || n == 0 || n >= sizeof e->url) {
            rc = error_set(err, AZOTH_ERR_USAGE,
                           "1 to %u endpoints, separated by commas, are wanted", ENDPOINTS_MAX);
            break;
        }
        memcpy(e->url, p, n);
        e->remote = r;
        e->index = r->endpoints;
        pthread_mutex_init(&e->lock, NULL);
        rc = reqrep_connect(e->url, &e->socket, err);
        if (!rc)
            r->endpoints++;
        p += n + (p[n] == ',');
    }
    if (!rc && r->endpoints == 0)
        rc = error_set(err, AZOTH_ERR_USAGE, "no endpoint was given");
    for (; !rc && r->started < r->endpoints; r->started++)
        if (pthread_create(&r->endpoint[r->started].thread, NULL, receiver_main,
                           &r->endpoint[r->started])) {
            rc = error_set(err, AZOTH_ERR_NOMEM, "an endpoint's thread");
            break;
        }
    if (rc)
        remote_close(r);
    else
        *ret = r;
    return rc;
}

static void call_free(struct call *c)
{
    buf_fini(&c->message);
    buf_fini(&c->image);
    pthread_cond_destroy(&c->wake);
    free(c);
}

void remote_close(struct remote *r)
{
    if (!r)
        return;
    atomic_store(&r->stopping, 1);
    for (uint32_t i = 0; i < r->started; i++)
        pthread_join(r->endpoint[i].thread, NULL);
    for (uint32_t i = 0; i < r->endpoints; i++) {
        reqrep_close(r->endpoint[i].socket);
        pthread_mutex_destroy(&r->endpoint[i].lock);
    }
    for (uint32_t i = 0; i < CALLS_MAX; i++)
        if (r->table[i])
            call_free(r->table[i]);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->ended_wake);
    free(r);
}

/* ---- calling ---- */

static int start(struct remote *r, const struct wire_request *req, uint64_t deadline_ns,
                 remote_done done, void *arg, struct call **ret, struct azoth_error *err)
{
    struct call *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, AZOTH_ERR_NOMEM, "a request");
    cond_init(&c->wake);
    c->transaction = req->kind == WIRE_TX || req->kind == WIRE_CALL;
    c->deadline_ns = deadline_ns;
    c->resend_ns = RESEND_NS;
    c->done = done;
    c->arg = arg;
    struct wire_request sent = *req;
    uint64_t now = clock_mono_ns();
    sent.deadline_ms = worker_deadline_ms(deadline_ns > now ? deadline_ns - now : 0);
    int rc = wire_request_encode(&c->message, &sent);
    if (rc) {
        call_free(c);
        return error_set(err, rc, "a request");
    }
    pthread_mutex_lock(&r->lock);
    uint32_t tries = 0;
    while (tries < CALLS_MAX && r->table[r->next_place & (CALLS_MAX - 1)]) {
        r->next_place++;
        tries++;
    }
    if (tries == CALLS_MAX) {
        pthread_mutex_unlock(&r->lock);
        call_free(c);
        return error_set(err, AZOTH_ERR_BUSY, "%u requests are in flight", CALLS_MAX);
    }
    uint32_t place = r->next_place++ & (CALLS_MAX - 1);
    c->number = (r->generation++ % 0x7ffffu) * CALLS_MAX + place;
    c->sent_ns = clock_mono_ns();
    c->endpoint = r->turn++ % r->endpoints;
    uint32_t number = c->number, first = c->endpoint;
    r->table[place] = c;
    r->in_flight++;
    c->taken = 1; /* until we know better: an answer may be faster than we are */
    c->sending = 1;
    pthread_mutex_unlock(&r->lock);
    struct call probe = {.endpoint = first};
    rc = call_send(r, &probe, number, buf_bytes(&c->message), first);
    pthread_mutex_lock(&r->lock);
    c->sending = 0;
    if (c->ended && c->done) {
        hand_over(r, c);
    } else if (!c->ended) {
        c->taken = rc == 0;
        c->endpoint = probe.endpoint;
        c->copies = probe.copies;
        if (rc)
            c->resend_ns = 20 * NS_PER_MS; /* nobody was there: try again soon */
    }
    pthread_mutex_unlock(&r->lock);
    *ret = c;
    return 0;
}

/* The decoded answer of an ended call; its bytes go to *store. */
static int answer_of(struct call *c, struct buf *store, struct wire_answer *ret,
                     struct azoth_error *err)
{
    if (c->code) {
        if (err)
            *err = c->error;
        return c->code;
    }
    buf_fini(store);
    *store = c->image;
    c->image = (struct buf){0};
    return wire_answer_decode(buf_bytes(store), ret, err);
}

int remote_call(struct remote *r, const struct wire_request *req, uint64_t deadline_ns,
                struct buf *store, struct wire_answer *ret, struct azoth_error *err)
{
    struct call *c;
    int rc = start(r, req, deadline_ns, NULL, NULL, &c, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&r->lock);
    while (!c->ended)
        pthread_cond_wait(&c->wake, &r->lock); /* the endpoint's tick ends it at the deadline */
    r->in_flight--;
    pthread_mutex_unlock(&r->lock);
    rc = answer_of(c, store, ret, err);
    call_free(c);
    return rc;
}

int remote_submit(struct remote *r, const struct wire_request *req, uint64_t deadline_ns,
                  remote_done done, void *arg, struct azoth_error *err)
{
    struct call *c;
    return start(r, req, deadline_ns, done, arg, &c, err);
}

int remote_poll(struct remote *r, uint64_t timeout_ns)
{
    pthread_mutex_lock(&r->lock);
    if (!r->ended && r->in_flight && timeout_ns) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t ns = (uint64_t)until.tv_nsec + timeout_ns;
        until.tv_sec += (time_t)(ns / NS_PER_S);
        until.tv_nsec = (long)(ns % NS_PER_S);
        pthread_cond_timedwait(&r->ended_wake, &r->lock, &until);
    }
    struct call *list = r->ended;
    r->ended = NULL;
    r->ended_tail = &r->ended;
    pthread_mutex_unlock(&r->lock);
    int n = 0;
    while (list) {
        struct call *c = list;
        list = c->next;
        struct buf store = {0};
        struct wire_answer a = {0};
        struct azoth_error err = {0};
        int code = answer_of(c, &store, &a, &err);
        c->done(c->arg, code, &a, &err);
        buf_fini(&store);
        call_free(c);
        pthread_mutex_lock(&r->lock);
        r->in_flight--;
        pthread_mutex_unlock(&r->lock);
        n++;
    }
    return n;
}

uint32_t remote_in_flight(struct remote *r)
{
    pthread_mutex_lock(&r->lock);
    uint32_t n = r->in_flight;
    pthread_mutex_unlock(&r->lock);
    return n;
}
