/*
 * effects_serve.c - asks taken, the ledger changed and committed, answers sent: in this order, once a
 * step for all that have come.
 *
 * Failure modes
 *   an answer does not arrive: its worker asks again; effects_give() gives it the same.
 *   a worker ends while it waits: what it is given is free when its lease is over, or when the next
 *       process of its name asks.
 *   more workers wait than there are places: the one that has waited longest is told to ask again.
 */
#include "projector/effects_serve.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "core/reqrep.h"
#include "core/wire.h"

#include <string.h>

#define WAITING_MAX 256u
#define TAKE_MAX    256u /* asks of one step */

struct waiting {
    struct reqrep_return to;
    char name[AZOTH_NAME_MAX + 1];
    uint64_t instance, until_ns;
    uint32_t wants;
    int answered; /* in this step: with `answer` */
    struct wire_effect_answer answer;
};

struct effects_server {
    struct effects *ledger;
    struct reqrep *socket;
    struct waiting waiting[WAITING_MAX]; /* in the order in which they came */
    uint32_t len;
    struct buf buf;
};

int effects_server_open(const char *endpoint, struct effects *e, struct effects_server **ret,
                        struct azoth_error *err)
{
    struct effects_server *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "the socket for workers");
    s->ledger = e;
    int rc = reqrep_bind(endpoint, &s->socket, err);
    if (rc)
        effects_server_close(s);
    else
        *ret = s;
    return rc;
}

void effects_server_close(struct effects_server *s)
{
    if (!s)
        return;
    reqrep_close(s->socket);
    buf_fini(&s->buf);
    free(s);
}

int effects_server_poll_fd(const struct effects_server *s)
{
    return reqrep_poll_fd(s->socket);
}

uint32_t effects_server_waiting(const struct effects_server *s)
{
    return s->len;
}

uint64_t effects_server_due_ns(const struct effects_server *s, uint64_t now_ns)
{
    uint64_t due = effects_due_ns(s->ledger, now_ns);
    for (uint32_t i = 0; i < s->len; i++)
        if (s->waiting[i].until_ns < due)
            due = s->waiting[i].until_ns;
    return due;
}

static void drop(struct effects_server *s, uint32_t at)
{
    memmove(&s->waiting[at], &s->waiting[at + 1], (s->len - at - 1) * sizeof *s->waiting);
    s->len--;
}

/* What this worker has asked before is asked no more. */
static void drop_worker(struct effects_server *s, const char *name)
{
    for (uint32_t i = s->len; i-- > 0;)
        if (strcmp(s->waiting[i].name, name) == 0)
            drop(s, i);
}

static int send_answer(struct effects_server *s, const struct reqrep_return *to,
                       const struct wire_effect_answer *m, struct azoth_error *err)
{
    buf_clear(&s->buf);
    int rc = wire_effect_answer_encode(&s->buf, m);
    if (rc)
        return error_set(err, rc, "an answer to a worker");
    rc = reqrep_answer(s->socket, to, buf_bytes(&s->buf), 0, err);
    return rc == AZOTH_ERR_BUSY ? 0 : rc; /* as if it were lost on the way */
}

/* One that wants nothing more is answered with nothing: it knows then that its report is kept. */
static int wait_for_turn(struct effects_server *s, const struct reqrep_return *to,
                         const struct wire_effect_ask *m, uint64_t now_ns, struct azoth_error *err)
{
    if (s->len == WAITING_MAX) {
        int rc = send_answer(s, &s->waiting[0].to, &(struct wire_effect_answer){0}, err);
        if (rc)
            return rc;
        drop(s, 0);
    }
    struct waiting *w = &s->waiting[s->len++];
    *w = (struct waiting){.to = *to, .instance = m->instance, .wants = m->wants};
    w->until_ns = m->wants ? now_ns + EFFECTS_HOLD_MS * NS_PER_MS : now_ns;
    snprintf(w->name, sizeof w->name, "%.*s", (int)m->worker.len, (const char *)m->worker.ptr);
    return 0;
}

static int take_report(struct effects_server *s, const struct wire_effect_ask *m, uint64_t now_ns,
                       struct azoth_error *err)
{
    if (!m->id)
        return 0;
    switch (m->result) {
    case WIRE_EFFECT_DONE:
        return effects_done(s->ledger, m->id, m->grant, err);
    case WIRE_EFFECT_FAILED:
        return effects_failed(s->ledger, m->id, m->grant, m->error, now_ns, err);
    default:
        return effects_given_back(s->ledger, m->id, m->grant, err);
    }
}

static int take_ask(struct effects_server *s, const struct reqrep_return *to,
                    struct azoth_bytes message, uint64_t now_ns, struct azoth_error *err)
{
    struct wire_effect_ask m;
    char name[AZOTH_NAME_MAX + 1];
    if (wire_effect_ask_decode(message, &m, NULL))
        return 0; /* not from a worker of ours */
    int rc = take_report(s, &m, now_ns, err);
    if (rc)
        return rc;
    snprintf(name, sizeof name, "%.*s", (int)m.worker.len, (const char *)m.worker.ptr);
    drop_worker(s, name);
    if (!m.wants)
        rc = effects_leave(s->ledger, &(struct effects_worker){name, m.instance}, err);
    return rc ? rc : wait_for_turn(s, to, &m, now_ns, err);
}

static int take_all(struct effects_server *s, uint64_t now_ns, struct azoth_error *err)
{
    struct reqrep_return to;
    struct azoth_bytes message;
    for (uint32_t i = 0; i < TAKE_MAX; i++) {
        int rc = reqrep_receive(s->socket, 0, &to, &message, err);
        if (rc <= 0)
            return rc;
        rc = take_ask(s, &to, message, now_ns, err);
        reqrep_release(message);
        if (rc)
            return rc;
    }
    return 0;
}

static int give_all(struct effects_server *s, uint64_t now_ns, struct azoth_error *err)
{
    for (uint32_t i = 0; i < s->len; i++) {
        struct waiting *w = &s->waiting[i];
        struct effects_worker who = {w->name, w->instance};
        struct effects_grant g;
        int got = w->wants ? effects_give(s->ledger, &who, now_ns, &g, err) : 0;
        if (got < 0)
            return got;
        w->answered = got || w->until_ns <= now_ns;
        w->answer = (struct wire_effect_answer){0};
        if (got)
            w->answer = (struct wire_effect_answer){g.id, g.grant, g.failures, g.lease_ms, g.frame};
    }
    return 0;
}

static int answer_all(struct effects_server *s, struct azoth_error *err)
{
    int n = 0;
    for (uint32_t i = 0; i < s->len;) {
        if (!s->waiting[i].answered) {
            i++;
            continue;
        }
        int rc = send_answer(s, &s->waiting[i].to, &s->waiting[i].answer, err);
        if (rc)
            return rc;
        CRASH_POINT(effects_answered);
        drop(s, i);
        n++;
    }
    return n;
}

int effects_server_step(struct effects_server *s, uint64_t now_ns, struct azoth_error *err)
{
    int rc = take_all(s, now_ns, err);
    if (!rc)
        rc = effects_expire(s->ledger, now_ns, err);
    if (!rc)
        rc = give_all(s, now_ns, err);
    if (!rc)
        rc = effects_commit(s->ledger, err);
    return rc ? rc : answer_all(s, err);
}
