/* audit.c - the clients' records and the log (A1 to A5, and the replay for the others). */
#include "tests/torture/audit.h"

#include "core/clock.h"
#include "core/storecheck.h"
#include "tests/system/bank.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOLD_MAX 5u /* of each rule */

void audit_violation(struct audit *a, const char *fmt, ...)
{
    unsigned rule = fmt[0] == 'A' && fmt[1] >= '1' && fmt[1] <= '9' ? (unsigned)(fmt[1] - '0') : 0;
    a->violations++;
    if (a->told[rule]++ >= TOLD_MAX)
        return;
    va_list ap;
    va_start(ap, fmt);
    fputs("VIOLATION ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

void audit_init(struct audit *a, struct harness *h)
{
    memset(a, 0, sizeof *a);
    a->h = h;
    a->next_event = 1;
    for (int i = 0; i < AUDIT_CLIENTS; i++)
        a->client[i].fd = -1;
}

void audit_fini(struct audit *a)
{
    for (int i = 0; i < AUDIT_CLIENTS; i++) {
        if (a->client[i].fd >= 0)
            close(a->client[i].fd);
        free(a->client[i].op);
    }
    for (uint64_t i = 0; i < a->registers_len; i++)
        free(a->registers[i].op);
    free(a->registers);
    free(a->chain);
    free(a->answered);
}

/* At least n elements of `size`, new ones zero. */
static void *grown(void *p, uint64_t *cap, uint64_t n, size_t size)
{
    if (n <= *cap)
        return p;
    uint64_t more = *cap ? *cap * 2 : 1024;
    while (more < n)
        more *= 2;
    char *q = realloc(p, more * size);
    if (!q) {
        fprintf(stderr, "the audit is out of memory\n");
        exit(1);
    }
    memset(q + *cap * size, 0, (more - *cap) * size);
    *cap = more;
    return q;
}

struct tracked *audit_tracked(struct audit *a, int64_t ref)
{
    uint64_t client = (uint64_t)ref >> 40, seq = (uint64_t)ref & 0xffffffffffull;
    if (client >= AUDIT_CLIENTS || seq >= a->client[client].len || seq == 0)
        return NULL;
    struct tracked *t = &a->client[client].op[seq];
    return t->kind ? t : NULL;
}

struct register_history *audit_register(struct audit *a, int64_t key)
{
    if (!a->registers_len)
        a->registers_from = key - OP_REGISTERS * 4; /* clients begin at slightly different times */
    if (key < a->registers_from)
        return NULL;
    uint64_t at = (uint64_t)(key - a->registers_from), cap = a->registers_len;
    if (at >= a->registers_len) {
        a->registers = grown(a->registers, &cap, at + 1, sizeof *a->registers);
        a->registers_len = cap;
    }
    return &a->registers[at];
}

/* ---- records ---- */

static void register_sent(struct audit *a, struct tracked *t, const struct record *r)
{
    static const enum history_kind kinds[] = {[OP_READ] = HISTORY_READ,
                                              [OP_WRITE] = HISTORY_WRITE,
                                              [OP_CAS] = HISTORY_CAS,
                                              [OP_CAS_VERSION] = HISTORY_CAS,
                                              [OP_CHECK] = HISTORY_CHECK};
    struct register_history *h = audit_register(a, r->key);
    if (!h) {
        audit_violation(a, "register %" PRId64 " is older than the run", r->key);
        return;
    }
    if (h->n == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 64;
        struct history_op *op = realloc(h->op, h->cap * sizeof *op);
        if (!op)
            exit(1);
        h->op = op;
    }
    t->register_op = h->n;
    h->op[h->n++] = (struct history_op){kinds[r->op], r->value,        r->expected,
                                        r->time_ns,   HISTORY_PENDING, (uint64_t)record_ref(r)};
}

static void register_answered(struct audit *a, const struct tracked *t, const struct record *r)
{
    struct register_history *h = audit_register(a, r->key);
    struct history_op *op = &h->op[t->register_op];
    if (r->code == 0) {
        op->value = r->value;
        op->replied_ns = r->time_ns;
    } else if (r->code == AZOTH_ERR_PREFLIGHT_FAILED) {
        op->kind = HISTORY_CAS_NOT;
        op->replied_ns = r->time_ns;
    } else {
        op->kind = HISTORY_READ; /* refused before it looked: it neither changed nor saw anything */
    }
}

static void in_time(struct audit *a, int64_t ref, const struct tracked *t)
{
    if (t->seen && t->kind == RECORD_ANSWERED && t->replied_ns < t->invoked_before_ns)
        audit_violation(a,
                        "A5 operation %" PRId64
                        " was answered before one was sent that is earlier in the log",
                        ref);
}

static void on_sent(struct audit *a, unsigned client, const struct record *r)
{
    a->client[client].op =
        grown(a->client[client].op, &a->client[client].cap, r->seq + 1, sizeof(struct tracked));
    if (r->seq >= a->client[client].len)
        a->client[client].len = r->seq + 1;
    struct tracked *t = &a->client[client].op[r->seq];
    if (t->kind)
        audit_violation(a, "client %u sent %" PRIu64 " twice as a new one", client, r->seq);
    *t = (struct tracked){.invoked_ns = r->time_ns,
                          .draw = r->draw,
                          .key = r->key,
                          .value = r->value,
                          .kind = RECORD_SENT,
                          .op = (uint8_t)r->op,
                          .parts = (uint8_t)r->parts};
    a->sent++;
    if (r->op != OP_TRANSFER)
        register_sent(a, t, r);
}

/* A4, with the times, which tell much of the cause. */
static void tell_refused(struct audit *a, int64_t ref, const struct tracked *t)
{
    audit_violation(a,
                    "A4 operation %" PRId64
                    " was refused (%s) %.3f ms after it was sent and is event "
                    "%" PRIu64 ", committed %.3f ms after",
                    ref, azoth_code_name(t->code), (double)(t->replied_ns - t->invoked_ns) / 1e6,
                    t->seen_first, (double)(int64_t)(t->seen_ns - t->invoked_ns) / 1e6);
}

static int logs_event(const struct tracked *t)
{
    return t->op != OP_READ && t->op != OP_CHECK;
}

static void on_answered(struct audit *a, struct tracked *t, const struct record *r)
{
    int64_t ref = record_ref(r);
    t->replied_ns = r->time_ns;
    t->code = r->code;
    t->txn = r->txn;
    t->first_event = r->first_event;
    if (t->op != OP_TRANSFER)
        register_answered(a, t, r);
    if (r->code) {
        a->refused++;
        if (t->seen)
            tell_refused(a, ref, t);
        return;
    }
    a->committed++;
    if (!logs_event(t))
        return;
    in_time(a, ref, t);
    a->answered = grown(a->answered, &a->answered_cap, a->answered_len + 1, sizeof *a->answered);
    a->answered[a->answered_len++] = ref;
}

static void on_record(struct audit *a, unsigned client, const struct record *r)
{
    if (r->kind == RECORD_SENT) {
        on_sent(a, client, r);
        return;
    }
    struct tracked *t = audit_tracked(a, record_ref(r));
    if (!t || t->kind != RECORD_SENT) {
        audit_violation(a, "client %u: record %u of operation %" PRIu64 " has no sending", client,
                        r->kind, r->seq);
        return;
    }
    t->kind = (uint8_t)r->kind;
    if (r->kind == RECORD_ANSWERED)
        on_answered(a, t, r);
    else
        a->given_up++;
}

void audit_records(struct audit *a)
{
    for (unsigned c = 0; c < AUDIT_CLIENTS; c++) {
        char path[400];
        record_path(path, a->h->dir, c);
        if (a->client[c].fd < 0 &&
            (access(path, F_OK) || (a->client[c].fd = record_open(a->h->dir, c)) < 0))
            continue;
        struct record r;
        int rc;
        while ((rc = record_read(a->client[c].fd, &a->client[c].at, &r)) == 1)
            on_record(a, c, &r);
        if (rc < 0)
            audit_violation(a, "client %u: a record is damaged", c);
    }
}

/* ---- the log ---- */

int audit_is_type(const struct azoth_event *ev, const char *type)
{
    return ev->type.len == strlen(type) && memcmp(ev->type.ptr, type, ev->type.len) == 0;
}

int audit_replay(int64_t balance[OP_ACCOUNTS], const struct azoth_event *ev)
{
    if (audit_is_type(ev, "opened")) {
        balance[bank_member(ev->payload, "account") % OP_ACCOUNTS] +=
            bank_member(ev->payload, "amount");
    } else if (audit_is_type(ev, "transferred")) {
        int64_t amount = bank_member(ev->payload, "amount");
        int from = (int)(bank_member(ev->payload, "from") % OP_ACCOUNTS);
        balance[from] -= amount;
        balance[bank_member(ev->payload, "to") % OP_ACCOUNTS] += amount;
        return from;
    }
    return -1;
}

/* A6. */
static void replay(struct audit *a, const struct azoth_event *ev)
{
    int from = audit_replay(a->balance, ev);
    if (from >= 0 && a->balance[from] < 0)
        audit_violation(a, "A6 event %" PRIu64 " takes account %d below zero", ev->id, from);
}

/* A2: the event is the next part of what was sent. */
static void same_content(struct audit *a, const struct azoth_event *ev, int64_t ref,
                         struct tracked *t)
{
    struct record r = {.op = t->op,
                       .client = (uint16_t)((uint64_t)ref >> 40),
                       .seq = (uint64_t)ref & 0xffffffffffull,
                       .draw = t->draw,
                       .key = t->key,
                       .value = t->value};
    char want[160];
    op_payload(&r, t->seen, want);
    if (ev->payload.len != strlen(want) || memcmp(ev->payload.ptr, want, ev->payload.len) != 0)
        audit_violation(a, "A2 event %" PRIu64 " is %.*s, sent was %s", ev->id,
                        (int)ev->payload.len, (const char *)ev->payload.ptr, want);
}

static void on_operation_event(struct audit *a, const struct azoth_event *ev)
{
    int64_t ref = bank_member(ev->payload, "ref");
    struct tracked *t = audit_tracked(a, ref);
    if (!t) { /* sent since the records were read */
        audit_records(a);
        t = audit_tracked(a, ref);
    }
    if (!t) {
        audit_violation(a, "A2 event %" PRIu64 ": nobody sent %" PRId64, ev->id, ref);
        return;
    }
    if (t->seen == t->parts) {
        audit_violation(a, "A3 A4 operation %" PRId64 " is event %" PRIu64 " and again %" PRIu64,
                        ref, t->seen_first, ev->id);
        return;
    }
    same_content(a, ev, ref, t);
    if (t->seen == 0) {
        t->seen_first = ev->id;
        t->seen_txn = ev->txn;
        t->seen_ns = (uint64_t)(ev->time_ns - clock_wall_ns()) + clock_mono_ns();
        t->invoked_before_ns = a->invoked_ns;
        if (t->invoked_ns > a->invoked_ns)
            a->invoked_ns = t->invoked_ns;
        if (t->kind == RECORD_ANSWERED && t->code)
            tell_refused(a, ref, t);
    } else if (ev->id != t->seen_first + t->seen || ev->txn != t->seen_txn) {
        audit_violation(a, "A2 event %" PRIu64 " is torn from its transaction", ev->id);
    }
    t->seen++;
    in_time(a, ref, t);
    if (audit_is_type(ev, "wrote")) {
        struct register_history *h = audit_register(a, t->key);
        if (h)
            h->last = t->value;
    }
}

void audit_log(struct audit *a, struct azoth *db, uint64_t head)
{
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_error err = {0};
    if (head < a->next_event)
        return;
    int rc = azoth_events(db, a->next_event, head + 1, NULL, &it, &err);
    if (!rc) {
        while ((rc = azoth_events_next(it, &ev, &err)) == 1) {
            if (ev.id != a->next_event)
                audit_violation(a, "A1 event %" PRIu64 " follows %" PRIu64, ev.id,
                                a->next_event - 1);
            a->chain = grown(a->chain, &a->chain_cap, ev.id + 1, sizeof *a->chain);
            a->chain[ev.id] =
                (uint32_t)((a->chain[ev.id - 1] * UINT64_C(31) + ev.id) % 1000000007u);
            a->next_event = ev.id + 1;
            replay(a, &ev);
            if (!audit_is_type(&ev, "opened"))
                on_operation_event(a, &ev);
        }
        azoth_events_free(it);
    }
    if (rc < 0)
        audit_violation(a, "the log cannot be read: %s", err.message);
    if (a->next_event != head + 1)
        audit_violation(a, "A1 the log ends at %" PRIu64 ", its head is %" PRIu64,
                        a->next_event - 1, head);
}

/* ---- all of it ---- */

/* A3: those whose answers were read before the log was. */
static void check_answered(struct audit *a, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const struct tracked *t = audit_tracked(a, a->answered[i]);
        if (t->seen != t->parts || t->seen_first != t->first_event || t->seen_txn != t->txn)
            audit_violation(a,
                            "A3 operation %" PRId64 " was answered as transaction %" PRIu64
                            " event %" PRIu64 " and is transaction %" PRIu64 " event %" PRIu64
                            ", %u of %u parts",
                            a->answered[i], t->txn, t->first_event, t->seen_txn, t->seen_first,
                            t->seen, t->parts);
    }
    memmove(a->answered, a->answered + n, (a->answered_len - n) * sizeof *a->answered);
    a->answered_len -= n;
}

/* A4: each without an answer is there whole or not at all. */
static void check_unanswered(struct audit *a)
{
    for (int c = 0; c < AUDIT_CLIENTS; c++)
        for (uint64_t s = 1; s < a->client[c].len; s++) {
            const struct tracked *t = &a->client[c].op[s];
            if (t->kind && t->seen && t->seen != t->parts)
                audit_violation(a, "A4 client %d operation %" PRIu64 " is there in part", c, s);
            if (t->kind == RECORD_SENT)
                audit_violation(a, "client %d left operation %" PRIu64 " open", c, s);
        }
}

/* ---- the store itself (A9) ---- */

static void on_finding(void *arg, const struct store_finding *f)
{
    audit_violation(arg, "A9 %s: %s", f->kind, f->message);
}

static void audit_store(struct audit *a)
{
    struct store *s;
    struct store_check_sum sum;
    struct azoth_error err = {0};
    const struct store_check_tell tell = {.arg = a, .found = on_finding};
    int rc = store_open(a->h->dir, 0, &s, &err);
    if (!rc) {
        rc = store_check(s, &tell, &sum, &err);
        store_close(s);
    }
    if (rc)
        audit_violation(a, "A9 the store can not be checked: %s", err.message);
    else if (!sum.chain_checked)
        audit_violation(a, "A9 the chain was not made again");
}

unsigned audit_run(struct audit *a, struct azoth *db, int final)
{
    struct azoth_snapshot *s;
    struct azoth_error err = {0};
    audit_records(a);
    uint64_t answers = a->answered_len;
    if (azoth_snapshot(db, &s, &err)) {
        audit_violation(a, "no snapshot: %s", err.message);
        return a->violations;
    }
    audit_log(a, db, azoth_snapshot_head(s));
    audit_balances(a, s);
    azoth_snapshot_free(s);
    if (answers)
        check_answered(a, answers);
    if (final)
        check_unanswered(a);
    if (final)
        audit_store(a);
    audit_registers(a, db, final);
    audit_projections(a, db, final);
    return a->violations;
}
