/*
 * preflight.c - the machine of preflight.h.
 *
 *   stage            goes on to                     on deadline            on death of this process
 *   WANTS_PAUSE      WANTS_SLOT                     PAUSED                 nothing held
 *   WANTS_SLOT       WANTS_STRIPE                   BUSY                   nothing held
 *   WANTS_STRIPE     (all held) evaluated, then     LOCK_TIMEOUT           reaper: stripes, slot
 *                    SUBMITTED or DONE
 *   WANTS_BLOCKS     WANTS_STRIPE or SUBMITTED      BUSY                   reaper
 *   SUBMITTED        DONE                           OUTCOME_UNKNOWN, the   the writer commits it and
 *                                                   slot is the writer's   frees the slot
 *
 * Invariants
 *   P1  the snapshot is begun after the last stripe is held, so it shows every commit that a former
 *       holder of these stripes was answered for.
 *   P2  no snapshot is open when a step returns.
 *   P3  the request id is looked up before requirements: a retry must not fail its own `absent`.
 */
#include "workers/preflight.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "shm/contention.h"
#include "workers/require.h"

#include <string.h>

struct declared {
    struct azoth_bytes key;
    int write;
};

/* What is done next. */
enum next {
    NEXT_CLAIM,
    NEXT_INTEND,
    NEXT_LOCK,
    NEXT_EVALUATE,
    NEXT_SUBMIT,
    NEXT_RESULT,
    NEXT_NONE
};

struct preflight {
    struct participant *participant;
    struct store *store;
    struct preflight_request request;
    enum next next;
    enum preflight_stage stage;
    struct slot slot;
    uint32_t *intent;
    uint32_t intents, intents_cap, held;
    struct declared *declared; /* sorted by key; made when a hook runs */
    uint32_t declared_len, declared_cap;
    int changes; /* the image has operations or events */
    int keys;    /* it declares keys */
    int emitted;
    struct txn_builder out;
    struct preflight_outcome outcome;
    uint64_t reaped_ns;
    struct stripe_wait wait; /* for the stripe of intent[held] */
    enum refusal refusal;    /* why an evaluation failed */
    struct txn_item failed;  /* the requirement, in the image; kind 0: none */
};

int preflight_new(struct participant *p, struct store *store, struct preflight **ret)
{
    struct preflight *f = calloc(1, sizeof *f);
    if (!f)
        return AZOTH_ERR_NOMEM;
    f->participant = p;
    f->store = store;
    f->next = NEXT_NONE;
    f->stage = PREFLIGHT_DONE;
    *ret = f;
    return 0;
}

static int forked(const struct preflight *f)
{
    return atomic_load((_Atomic uint32_t *)&f->participant->forked) != 0;
}

static enum preflight_stage done(struct preflight *f, int code)
{
    f->outcome.code = code;
    f->next = NEXT_NONE;
    return f->stage = PREFLIGHT_DONE;
}

/* Gives back what is held before submission. */
static enum preflight_stage refuse(struct preflight *f, int code)
{
    slot_cancel(&f->slot);
    return done(f, code);
}

void preflight_free(struct preflight *f)
{
    if (!f)
        return;
    if (!forked(f)) {
        if (f->next == NEXT_RESULT) {
            struct slot_outcome o;
            if (!slot_give_up(&f->slot) && slot_done(&f->slot))
                slot_collect(&f->slot, &o);
        } else if (f->next != NEXT_NONE && f->next != NEXT_CLAIM) {
            slot_cancel(&f->slot);
        }
    }
    free(f->intent);
    free(f->declared);
    txn_builder_fini(&f->out);
    free(f);
}

/* ---- declarations ---- */

static int by_stripe(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    uint32_t sx = x & ~INTENT_EXCLUSIVE, sy = y & ~INTENT_EXCLUSIVE;
    if (sx != sy)
        return sx < sy ? -1 : 1;
    return (x < y) - (x > y); /* exclusive first: it swallows the shared one */
}

static void sort_intents(struct preflight *f)
{
    if (f->intents <= 16) {
        for (uint32_t i = 1; i < f->intents; i++) {
            uint32_t v = f->intent[i], j = i;
            for (; j > 0 && by_stripe(&f->intent[j - 1], &v) > 0; j--)
                f->intent[j] = f->intent[j - 1];
            f->intent[j] = v;
        }
    } else {
        qsort(f->intent, f->intents, sizeof *f->intent, by_stripe);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->intents; i++)
        if (n == 0 || ((f->intent[i] ^ f->intent[n - 1]) & ~INTENT_EXCLUSIVE) != 0)
            f->intent[n++] = f->intent[i];
    f->intents = n;
}

/* Which stripes the image and the id need, ascending, each once. */
static int declare(struct preflight *f)
{
    uint32_t most = txn_items(f->request.image) + 1;
    if (most > f->intents_cap) {
        uint32_t *p = realloc(f->intent, most * sizeof *p);
        if (!p)
            return AZOTH_ERR_NOMEM;
        f->intent = p;
        f->intents_cap = most;
    }
    const struct segment *s = f->participant->segment;
    f->intents = 0;
    f->changes = 0;
    f->keys = 0;
    size_t at = 0;
    struct txn_item it;
    while (txn_next(f->request.image, &at, &it)) {
        int writes = it.kind == TXN_WRITE || txn_kind_is_operation(it.kind);
        f->changes |= it.kind == TXN_EVENT || txn_kind_is_operation(it.kind);
        if (it.kind != TXN_EVENT && it.kind != TXN_CONTROL)
            f->intent[f->intents++] = stripe_of_key(s, it.key) | (writes ? INTENT_EXCLUSIVE : 0);
    }
    f->keys = f->intents > 0;
    if (f->request.id)
        f->intent[f->intents++] = stripe_of_id(s, f->request.id) | INTENT_EXCLUSIVE;
    sort_intents(f);
    return 0;
}

void preflight_begin(struct preflight *f, const struct preflight_request *r)
{
    ensure(f->next == NEXT_NONE);
    f->request = *r;
    f->held = 0;
    f->wait.since_ns = 0;
    f->emitted = 0;
    f->next = NEXT_CLAIM;
    f->stage = PREFLIGHT_WANTS_SLOT;
    memset(&f->outcome.result, 0, sizeof f->outcome.result);
    f->outcome.code = 0;
    f->outcome.error.code = 0;
    f->outcome.error.foreign = 0;
    f->outcome.error.message[0] = 0;
    if (forked(f))
        done(f, error_set(&f->outcome.error, AZOTH_ERR_FORKED, "%s",
                          azoth_code_sentence(AZOTH_ERR_FORKED)));
    else if (declare(f))
        done(f, error_set(&f->outcome.error, AZOTH_ERR_NOMEM, "a transaction's declarations"));
}

/* ---- claiming and locking ---- */

static enum preflight_stage wants(struct preflight *f, enum preflight_stage what, uint64_t now_ns,
                                  int code)
{
    f->stage = what;
    if (now_ns < f->request.deadline_ns)
        return what;
    error_set(&f->outcome.error, code, "%s", azoth_code_sentence(code));
    if (f->next == NEXT_CLAIM)
        return done(f, code);
    return refuse(f, code);
}

static enum preflight_stage claim(struct preflight *f, uint64_t now_ns)
{
    struct header_shm *h = f->participant->segment->header;
    int held_up = f->changes || (f->request.control && f->request.wait_paused);
    uint32_t paused = held_up ? atomic_load(&h->paused) : 0;
    if (paused && atomic_load(&h->pause_until_ns) > now_ns) {
        int code = paused == PAUSE_SEAL ? AZOTH_ERR_SEALED : AZOTH_ERR_PAUSED;
        if (f->request.wait_paused)
            return wants(f, PREFLIGHT_WANTS_PAUSE, now_ns, code);
        return done(f, error_set(&f->outcome.error, code, "%s", azoth_code_sentence(code)));
    }
    if (!slot_claim(f->participant, &f->slot))
        return wants(f, PREFLIGHT_WANTS_SLOT, now_ns, AZOTH_ERR_BUSY);
    f->next = NEXT_INTEND;
    return PREFLIGHT_SUBMITTED; /* go on */
}

/* A key of the image that lies on this stripe; empty: the request's id does. */
static struct azoth_bytes key_on(const struct preflight *f, uint32_t stripe)
{
    size_t at = 0;
    struct txn_item it;
    while (txn_next(f->request.image, &at, &it))
        if (it.kind != TXN_EVENT && stripe_of_key(f->participant->segment, it.key) == stripe)
            return it.key;
    return (struct azoth_bytes){0};
}

static void name_waited_key(struct preflight *f, uint32_t stripe)
{
    const struct segment *s = f->participant->segment;
    struct azoth_bytes waited = key_on(f, stripe);
    char key[100] = "(request id)";
    if (waited.len)
        bytes_print(waited, key, sizeof key);
    int holder = stripe_holder(s, stripe);
    uint32_t owner = holder >= 0 && (uint32_t)holder < s->slots
                         ? slot_word_owner(atomic_load(&s->slot[holder].word))
                         : SLOT_OWNER_WRITER;
    if (owner < SHM_PARTICIPANTS)
        error_set(&f->outcome.error, AZOTH_ERR_LOCK_TIMEOUT,
                  "key %s is locked by a transaction of pid %u", key,
                  atomic_load(&s->participant[owner].pid));
    else
        error_set(&f->outcome.error, AZOTH_ERR_LOCK_TIMEOUT,
                  "key %s was locked by other transactions until the deadline", key);
}

/* For who looks for culprits: the stripe of intent[held] is held by others. */
static void note_wait(struct preflight *f, uint64_t now_ns)
{
    struct segment *s = f->participant->segment;
    uint32_t stripe = f->intent[f->held] & ~INTENT_EXCLUSIVE;
    if (f->wait.since_ns == 0) {
        struct azoth_bytes key = key_on(f, stripe);
        if (key.len)
            contention_sample(s, stripe, key);
    }
    contention_look(s, &f->wait, f->participant->index, stripe, now_ns);
}

static void note_wait_over(struct preflight *f, uint64_t now_ns)
{
    if (f->wait.since_ns)
        contention_end(f->participant->segment, &f->wait, f->participant->index,
                       f->intent[f->held] & ~INTENT_EXCLUSIVE, now_ns);
}

static enum preflight_stage lock_timeout(struct preflight *f, uint64_t now_ns)
{
    struct segment *s = f->participant->segment;
    struct participant_shm *row = &s->participant[f->participant->index];
    atomic_fetch_add_explicit(&row->lock_timeouts, 1, memory_order_relaxed);
    contention_refused(s, REFUSED_LOCK_TIMEOUT);
    note_wait_over(f, now_ns);
    name_waited_key(f, f->intent[f->held] & ~INTENT_EXCLUSIVE);
    return refuse(f, AZOTH_ERR_LOCK_TIMEOUT);
}

static enum preflight_stage lock(struct preflight *f, uint64_t now_ns)
{
    struct segment *s = f->participant->segment;
    for (; f->held < f->intents; f->held++) {
        uint32_t intent = f->intent[f->held];
        if (!stripe_try(s, f->slot.index, f->slot.ticket, intent)) {
            /* Leave word first and look once more: a release in between is not missed. */
            stripe_park(f->participant, intent);
            if (!stripe_try(s, f->slot.index, f->slot.ticket, intent)) {
                f->stage = PREFLIGHT_WANTS_STRIPE;
                note_wait(f, now_ns);
                return now_ns < f->request.deadline_ns ? f->stage : lock_timeout(f, now_ns);
            }
        }
        note_wait_over(f, now_ns);
        CRASH_POINT(preflight_one_stripe);
    }
    CRASH_POINT(preflight_locked);
    f->next = NEXT_EVALUATE;
    return PREFLIGHT_SUBMITTED;
}

/* ---- evaluation ---- */

static int by_key(const void *a, const void *b)
{
    const struct declared *x = a, *y = b;
    int c = bytes_cmp(x->key, y->key);
    return c ? c : y->write - x->write;
}

static int declared_index(struct preflight *f)
{
    uint32_t most = txn_items(f->request.image);
    if (most > f->declared_cap) {
        struct declared *d = realloc(f->declared, most * sizeof *d);
        if (!d)
            return AZOTH_ERR_NOMEM;
        f->declared = d;
        f->declared_cap = most;
    }
    f->declared_len = 0;
    size_t at = 0;
    struct txn_item it;
    while (txn_next(f->request.image, &at, &it))
        if (it.kind != TXN_EVENT)
            f->declared[f->declared_len++] =
                (struct declared){it.key, it.kind == TXN_WRITE || txn_kind_is_operation(it.kind)};
    if (f->declared_len)
        qsort(f->declared, f->declared_len, sizeof *f->declared, by_key);
    return 0;
}

/* 2 declared for writing, 1 for reading, 0 not declared. The first of equal keys decides. */
static int declared_as(const struct preflight *f, struct azoth_bytes key)
{
    uint32_t lo = 0, hi = f->declared_len;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (bytes_cmp(f->declared[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == f->declared_len || !bytes_eq(f->declared[lo].key, key))
        return 0;
    return f->declared[lo].write ? 2 : 1;
}

static int undeclared(struct azoth_bytes key, const char *what, struct azoth_error *err)
{
    char text[100];
    return error_set(err, AZOTH_ERR_UNDECLARED_KEY, "key %s was not declared for %s",
                     bytes_print(key, text, sizeof text), what);
}

int preflight_read(struct preflight_view *view, struct azoth_bytes key, struct state_record *ret,
                   struct azoth_error *err)
{
    if (!declared_as(view->preflight, key))
        return undeclared(key, "reading", err);
    return snapshot_get(view->snapshot, key, ret, err);
}

int preflight_emit(struct preflight_view *view, const struct txn_item *item,
                   struct azoth_error *err)
{
    struct preflight *f = view->preflight;
    if (item->kind != TXN_EVENT && !txn_kind_is_operation(item->kind))
        return error_set(err, AZOTH_ERR_USAGE, "a callback yields operations and events only");
    if (item->kind != TXN_EVENT && declared_as(f, item->key) != 2)
        return undeclared(item->key, "writing", err);
    int rc = txn_add(&f->out, item, err);
    if (!rc)
        f->emitted = 1;
    return rc;
}

/* The static operations and events go before what callbacks yield. */
static int run_hooks(struct preflight *f, struct snapshot *sn, struct azoth_error *err)
{
    int rc = declared_index(f);
    if (rc)
        return error_set(err, rc, "a callback's declarations");
    txn_builder_clear(&f->out);
    size_t at = 0;
    struct txn_item it;
    while (!rc && txn_next(f->request.image, &at, &it))
        if (it.kind == TXN_EVENT || txn_kind_is_operation(it.kind))
            rc = txn_add(&f->out, &it, err);
    struct preflight_view view = {sn, f};
    if (!rc)
        rc = f->request.hooks.run(&view, f->request.hooks.arg, err);
    if (rc && err->code == 0)
        error_set(err, rc, "%s", azoth_code_sentence(rc));
    return rc;
}

static int evaluate_on(struct preflight *f, struct snapshot *sn, int *ret_known)
{
    struct azoth_error *err = &f->outcome.error;
    *ret_known = 0;
    if (f->request.id) {
        uint64_t content;
        int rc = snapshot_find_id(sn, f->request.id, &f->outcome.result, &content, err);
        if (rc < 0)
            return rc;
        if (rc == 1 && content != f->request.content) {
            uint64_t txn = f->outcome.result.txn;
            f->refusal = REFUSED_ID_REUSED;
            memset(&f->outcome.result, 0, sizeof f->outcome.result);
            return error_set(err, AZOTH_ERR_ID_REUSED,
                             "this id was committed as transaction %llu with another content",
                             (unsigned long long)txn);
        }
        *ret_known = rc;
        if (rc)
            return 0;
    }
    size_t at = 0;
    struct txn_item it;
    while (txn_next(f->request.image, &at, &it))
        if (txn_kind_is_requirement(it.kind)) {
            int rc = require_check(sn, &it, err);
            if (rc) {
                f->refusal = refusal_of_requirement(it.kind);
                f->failed = it;
                return rc;
            }
        }
    if (!f->request.hooks.run)
        return 0;
    f->refusal = REFUSED_CALLBACK;
    return run_hooks(f, sn, err);
}

/* Who changed the key of a requirement that failed. Nothing is held any more. */
static void explain(struct preflight *f)
{
    struct snapshot *sn;
    if (f->failed.kind == 0 ||
        (f->outcome.code != AZOTH_ERR_PREFLIGHT_FAILED && f->outcome.code != AZOTH_ERR_TYPE) ||
        snapshot_begin(f->store, &sn, NULL))
        return;
    require_explain(sn, &f->failed, &f->outcome.error);
    snapshot_end(sn);
}

static enum preflight_stage evaluate(struct preflight *f)
{
    struct snapshot *sn;
    int known = 0;
    f->refusal = REFUSED_OTHER;
    f->failed.kind = 0;
    int rc = snapshot_begin(f->store, &sn, &f->outcome.error);
    if (!rc) {
        rc = evaluate_on(f, sn, &known);
        snapshot_end(sn);
    }
    if (rc) {
        struct participant_shm *row = &f->participant->segment->participant[f->participant->index];
        atomic_fetch_add_explicit(&row->refused, 1, memory_order_relaxed);
        contention_refused(f->participant->segment, f->refusal);
        refuse(f, rc);
        explain(f);
        return f->stage;
    }
    if (known || (!f->changes && !f->emitted && !f->request.control))
        return refuse(f, 0); /* answered by an earlier commit, or nothing to commit */
    f->next = NEXT_SUBMIT;
    return PREFLIGHT_SUBMITTED;
}

/* ---- submission and answer ---- */

static enum preflight_stage submit(struct preflight *f, uint64_t now_ns)
{
    struct slot_submission sub = {
        .payload = f->request.hooks.run ? txn_image(&f->out) : f->request.image,
        .id = f->request.id,
        .content = f->request.content,
        .flags = (f->request.control ? SLOT_CONTROL : 0u) |
                 (f->request.wait_paused ? SLOT_WAITS_PAUSE : 0u),
    };
    if (slot_submit(&f->slot, &sub))
        return wants(f, PREFLIGHT_WANTS_BLOCKS, now_ns, AZOTH_ERR_BUSY);
    f->next = NEXT_RESULT;
    return PREFLIGHT_SUBMITTED;
}

static enum preflight_stage outcome_unknown(struct preflight *f, const char *why)
{
    return done(f, error_set(&f->outcome.error, AZOTH_ERR_OUTCOME_UNKNOWN, "%s", why));
}

static enum preflight_stage result(struct preflight *f, uint64_t now_ns)
{
    if (!slot_done(&f->slot)) {
        if (segment_retired(f->participant->segment)) {
            slot_give_up(&f->slot);
            return outcome_unknown(f, "the shared segment was retired before the answer came");
        }
        if (now_ns < f->request.deadline_ns)
            return f->stage = PREFLIGHT_SUBMITTED;
        if (slot_give_up(&f->slot))
            return outcome_unknown(f, "submitted, but the answer did not come before the deadline");
        if (!slot_done(&f->slot))
            return outcome_unknown(f, "the slot was taken away");
    }
    struct slot_outcome o;
    slot_collect(&f->slot, &o);
    f->outcome.result = o.result;
    if (o.code)
        error_set(&f->outcome.error, o.code, "%s",
                  o.detail[0] ? o.detail : azoth_code_sentence(o.code));
    return done(f, o.code);
}

enum preflight_stage preflight_step(struct preflight *f, uint64_t now_ns)
{
    /* A stage function returns SUBMITTED to say "go on" and leaves where in f->next. */
    enum preflight_stage st = f->stage;
    if (f->next == NEXT_NONE)
        return PREFLIGHT_DONE;
    if (forked(f))
        return done(f, error_set(&f->outcome.error, AZOTH_ERR_FORKED, "%s",
                                 azoth_code_sentence(AZOTH_ERR_FORKED)));
    if (f->next != NEXT_RESULT && segment_retired(f->participant->segment)) {
        error_set(&f->outcome.error, AZOTH_ERR_RETIRED, "%s",
                  azoth_code_sentence(AZOTH_ERR_RETIRED));
        return f->next == NEXT_CLAIM ? done(f, AZOTH_ERR_RETIRED) : refuse(f, AZOTH_ERR_RETIRED);
    }
    if (f->next == NEXT_CLAIM && (st = claim(f, now_ns)) != PREFLIGHT_SUBMITTED)
        return st;
    if (f->next == NEXT_INTEND) {
        if (slot_intend(&f->slot, f->intent, f->intents))
            return wants(f, PREFLIGHT_WANTS_BLOCKS, now_ns, AZOTH_ERR_BUSY);
        f->next = NEXT_LOCK;
    }
    if (f->next == NEXT_LOCK && (st = lock(f, now_ns)) != PREFLIGHT_SUBMITTED)
        return st;
    if (f->next == NEXT_EVALUATE && (st = evaluate(f)) != PREFLIGHT_SUBMITTED)
        return st;
    if (f->next == NEXT_SUBMIT && (st = submit(f, now_ns)) != PREFLIGHT_SUBMITTED)
        return st;
    return result(f, now_ns);
}

void preflight_expire(struct preflight *f)
{
    ensure(preflight_waiting(f));
    note_wait_over(f, clock_mono_ns());
    int code = error_set(&f->outcome.error, AZOTH_ERR_LOCK_TIMEOUT,
                         "an earlier transaction of the same handle still waited at the deadline");
    if (f->next == NEXT_CLAIM)
        done(f, code);
    else
        refuse(f, code);
}

int preflight_code(const struct preflight *f)
{
    return f->outcome.code;
}

void preflight_end(struct preflight *f, struct preflight_outcome *ret)
{
    ensure(f->next == NEXT_NONE);
    *ret = f->outcome;
}

/* ---- order among several ---- */

int preflight_waiting(const struct preflight *f)
{
    return f->next != NEXT_NONE && f->next != NEXT_RESULT;
}

int preflight_conflict(const struct preflight *a, const struct preflight *b)
{
    if (!a->keys || !b->keys)
        return 1;
    /* Both are sorted by stripe. */
    for (uint32_t i = 0, k = 0; i < a->intents && k < b->intents;) {
        uint32_t x = a->intent[i] & ~INTENT_EXCLUSIVE, y = b->intent[k] & ~INTENT_EXCLUSIVE;
        if (x == y && ((a->intent[i] | b->intent[k]) & INTENT_EXCLUSIVE))
            return 1;
        i += x <= y;
        k += y <= x;
    }
    return 0;
}

/* ---- waiting ---- */

static uint32_t blocks_wanted(struct preflight *f)
{
    if (f->next == NEXT_INTEND)
        return 1;
    size_t bytes = f->request.hooks.run ? txn_image(&f->out).len : f->request.image.len;
    return (uint32_t)((bytes + SHM_BLOCK_BYTES - 1) / SHM_BLOCK_BYTES);
}

void preflight_wait(struct preflight *f, uint64_t now_ns)
{
    uint64_t left = f->request.deadline_ns > now_ns ? f->request.deadline_ns - now_ns : 0;
    struct segment *s = f->participant->segment;
    struct header_shm *h = s->header;
    segment_look(s, now_ns);
    switch (f->stage) {
    case PREFLIGHT_WANTS_PAUSE: {
        uint32_t seen = atomic_load(&h->pause_wake);
        if (atomic_load(&h->paused))
            shm_wait(&h->pause_wake, seen, left < SHM_WAIT_SLICE_NS ? left : SHM_WAIT_SLICE_NS);
        return;
    }
    case PREFLIGHT_WANTS_STRIPE:
        stripe_wait(s, f->slot.index, f->slot.ticket, f->intent[f->held], left);
        break;
    case PREFLIGHT_WANTS_BLOCKS:
        slot_block_wait(f->participant, blocks_wanted(f),
                        left < NS_PER_MS * 10 ? left : NS_PER_MS * 10);
        break;
    case PREFLIGHT_WANTS_SLOT:
        slot_claim_wait(f->participant, left < NS_PER_MS * 10 ? left : NS_PER_MS * 10);
        break;
    case PREFLIGHT_SUBMITTED:
        slot_wait(&f->slot, left);
        return;
    default:
        return;
    }
    if (now_ns - f->reaped_ns > SHM_WAIT_SLICE_NS) {
        f->reaped_ns = now_ns;
        reap_step(f->participant);
    }
}

void preflight_run(struct preflight *f, const struct preflight_request *r,
                   struct preflight_outcome *ret)
{
    preflight_begin(f, r);
    uint64_t now = clock_mono_ns();
    while (preflight_step(f, now) != PREFLIGHT_DONE) {
        if (f->stage == PREFLIGHT_SUBMITTED)
            preflight_flush(f->participant);
        preflight_wait(f, now);
        now = clock_mono_ns();
    }
    preflight_end(f, ret);
}

int preflight_wait_any(struct participant *p, uint32_t *seen, uint64_t timeout_ns)
{
    struct participant_shm *row = &p->segment->participant[p->index];
    uint32_t at = atomic_load(&row->done_seq);
    if (at == *seen) {
        atomic_store(&row->sleeps, 1);
        if (atomic_load(&row->done_seq) == at)
            shm_wait_bits(&row->done_seq, at,
                          timeout_ns < SHM_WAIT_SLICE_NS ? timeout_ns : SHM_WAIT_SLICE_NS,
                          WAITS_ANY);
        at = atomic_load(&row->done_seq);
    }
    int news = at != *seen;
    if (!news)
        segment_look(p->segment, clock_mono_ns());
    *seen = at;
    return news;
}

void preflight_flush(struct participant *p)
{
    slot_wake_writer(p->segment);
}
