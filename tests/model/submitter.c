/*
 * submitter.c - a participant that commits transactions: the product's preflight machine, as libazoth
 * (one after the other) and azoth-worker (several at once) step it.
 *
 * The store is world.log; a snapshot is the place where preflight notes what it read (M7).
 */
#include "tests/model/world.h"

#include "core/error.h"
#include "core/store.h"
#include "core/txn.h"
#include "shm/contention.h"
#include "shm/stripe.h"

#include <string.h>

/* Notes what the product was told: that this slot holds the stripe. */
static int told_try(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t intent)
{
    int held = stripe_try(s, slot, ticket, intent);
    if (held)
        W.holds[slot] = (uint8_t)(W.holds[slot] | 1u << (intent & ~INTENT_EXCLUSIVE));
    return held;
}
/* What counts culprits decides nothing, and its times would tell states apart: left out. */
static void no_wait(struct segment *s, struct stripe_wait *w, uint32_t self, uint32_t stripe,
                    uint64_t now_ns)
{
    (void)s, (void)w, (void)self, (void)stripe, (void)now_ns;
}
static void no_sample(struct segment *s, uint32_t stripe, struct azoth_bytes key)
{
    (void)s, (void)stripe, (void)key;
}
static void no_refusal(struct segment *s, enum refusal why)
{
    (void)s, (void)why;
}
#define stripe_try         told_try
#define contention_look    no_wait
#define contention_end     no_wait
#define contention_sample  no_sample
#define contention_refused no_refusal
#include "workers/preflight.c"
#undef stripe_try

#define TOGETHER 3u

static struct mine {
    struct participant *p;
    uint32_t intent[TOGETHER][4];
    uint32_t txn; /* whose machine is stepped */
    uint32_t done_seen;
    int late[TOGETHER];
    struct preflight f[TOGETHER]; /* last: the second is not in use by most */
} mine[ACTORS_MAX];

int model_snapshot_begin(struct store *s, struct snapshot **ret, struct azoth_error *err)
{
    (void)s;
    (void)err;
    uint32_t no = mine[model_self()].txn;
    const struct model_txn *t = &model_txn[no];
    W.evaluated[no] = 1;
    for (uint32_t i = 0; i < t->intents; i++) {
        uint32_t stripe = t->intent[i] & ~INTENT_EXCLUSIVE;
        W.seen[no][stripe] = (uint8_t)world_version(stripe, NULL, 0);
    }
    *ret = NULL;
    return 0;
}

void model_snapshot_end(struct snapshot *sn)
{
    (void)sn;
}

/* ---- the transactions of a scenario ---- */

uint32_t world_txn(const struct model_txn *t)
{
    static unsigned char image[TXNS_MAX][2 * SHM_BLOCK_BYTES];
    static const unsigned char zeros[SHM_BLOCK_BYTES + 4096];
    uint32_t no = model_txns++;
    struct txn_builder b = {0};
    struct azoth_error err;
    int rc = 0;
    for (uint32_t i = 0; i < t->intents; i++) {
        char key[2] = "a";
        while (stripe_of_key(model_segment, bytes_of(key, 1)) != (t->intent[i] & ~INTENT_EXCLUSIVE))
            key[0]++;
        struct txn_item it = {.kind = t->intent[i] & INTENT_EXCLUSIVE ? TXN_WRITE : TXN_READ,
                              .key = bytes_of(key, 1)};
        rc |= txn_add(&b, &it, &err);
    }
    char name[2] = {(char)('0' + no), 0};
    rc |= txn_add(&b,
                  &(struct txn_item){.kind = TXN_EVENT,
                                     .name = bytes_of(name, 1),
                                     .value = bytes_of(zeros, t->padding)},
                  &err);
    struct azoth_bytes made = txn_image(&b);
    ensure(rc == 0 && made.len <= sizeof image[no]);
    memcpy(image[no], made.ptr, made.len);
    model_txn[no] = *t;
    model_txn[no].image = image[no];
    model_txn[no].image_bytes = made.len;
    txn_builder_fini(&b);
    return no;
}

/* ---- the actor ---- */

static void answer_check(uint32_t no, const struct preflight_outcome *o)
{
    uint32_t at = (uint32_t)o->result.txn - 1;
    int late = model_txn[no].expires;
    switch (o->code) {
    case 0:
        if (at >= W.log_len || W.log[at] != no + 1)
            model_fail("transaction %u is told that it is number %u, which it is not", no, at + 1);
        break;
    case AZOTH_ERR_OUTCOME_UNKNOWN:
        if (!late || !W.order[no])
            model_fail("transaction %u is told that its outcome is unknown", no);
        break;
    case AZOTH_ERR_BUSY:
    case AZOTH_ERR_LOCK_TIMEOUT:
        if (!late || W.order[no])
            model_fail("transaction %u is told %d", no, o->code);
        break;
    default:
        model_fail("transaction %u is told %d", no, o->code);
    }
    if (W.answered[no]++)
        model_fail("transaction %u is answered twice", no);
}

static void begin(struct mine *m, uint32_t k, uint32_t no)
{
    struct preflight *f = &m->f[k];
    memset(f, 0, sizeof *f);
    f->participant = m->p;
    f->next = NEXT_NONE;
    f->stage = PREFLIGHT_DONE;
    f->intent = m->intent[k];
    f->intents_cap = sizeof m->intent[k] / sizeof *m->intent[k];
    m->late[k] = 0;
    const struct model_txn *t = &model_txn[no];
    preflight_begin(f, &(struct preflight_request){.image = bytes_of(t->image, t->image_bytes),
                                                   .content = no + 1,
                                                   .deadline_ns = DEADLINE_NS});
}

/* What the clock says when the machine is stepped: late stays late. */
static uint64_t look_at_clock(struct mine *m, uint32_t k, uint32_t no)
{
    if (model_txn[no].expires && !m->late[k])
        m->late[k] = (int)model_choose(2);
    return m->late[k] ? 2 * DEADLINE_NS : model_plan.all_reap ? DEADLINE_NS / 2 : NOW_NS;
}

static void end(struct mine *m, uint32_t k, uint32_t no)
{
    struct preflight_outcome o;
    preflight_end(&m->f[k], &o);
    answer_check(no, &o);
    memset(&m->f[k], 0, sizeof m->f[k]);
}

static void one(struct mine *m, uint32_t no)
{
    begin(m, 0, no);
    for (;;) {
        uint64_t now = look_at_clock(m, 0, no);
        m->txn = no;
        enum preflight_stage st = preflight_step(&m->f[0], now);
        if (st == PREFLIGHT_DONE)
            break;
        if (st == PREFLIGHT_SUBMITTED)
            slot_wake_writer(model_segment);
        preflight_wait(&m->f[0], now);
        m->f[0].reaped_ns = 0;
    }
    end(m, 0, no);
}

static void both(struct mine *m, const uint32_t *no, uint32_t n)
{
    uint32_t left = (1u << n) - 1;
    for (uint32_t k = 0; k < n; k++)
        begin(m, k, no[k]);
    for (;;) {
        for (uint32_t k = 0; k < n; k++) {
            if (!(left & 1u << k))
                continue;
            /* As in_order() of the client: nobody overtakes one that waits for the same stripe. */
            if (k == 1 && (left & 1) && preflight_waiting(&m->f[0]) &&
                preflight_waiting(&m->f[1]) && preflight_conflict(&m->f[0], &m->f[1]))
                continue;
            uint64_t now = look_at_clock(m, k, no[k]);
            m->txn = no[k];
            if (preflight_step(&m->f[k], now) == PREFLIGHT_DONE) {
                left &= ~(1u << k);
                end(m, k, no[k]);
            }
        }
        if (!left)
            return;
        slot_wake_writer(model_segment);
        preflight_wait_any(m->p, &m->done_seen, SHM_WAIT_SLICE_NS);
    }
}

void submitter_body(void *arg)
{
    const struct script *sc = arg;
    struct mine *m = &mine[model_self()];
    if (sc->joins)
        m->p = model_join(model_self(), PARTICIPANT_CLIENT);
    if (sc->together)
        both(m, sc->txn, sc->n);
    else
        for (uint32_t i = 0; i < sc->n; i++)
            one(m, sc->txn[i]);
}

void submitter_reset(uint32_t who, struct participant *p)
{
    memset(&mine[who], 0, sizeof mine[who]);
    mine[who].p = p;
}

void submitter_actor(struct actor *a, uint32_t who, struct script *s)
{
    a->body = submitter_body;
    a->arg = s;
    a->own[a->owns].ptr = &mine[who];
    a->own[a->owns++].bytes =
        s->together ? sizeof mine[who] : offsetof(struct mine, f) + sizeof mine[who].f[0];
}
