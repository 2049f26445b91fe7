/*
 * history.c - the search of Wing and Gong with Lowe's memory of where it has been.
 *
 * J. M. Wing, C. Gong, "Testing and verifying concurrent objects", 1993; G. Lowe, "Testing for
 * linearizability", 2017: the calls and returns stand in one list by time. The first call is tried;
 * if the register allows it, its call and return leave the list and the search begins at the front
 * again. A return that is met in the list belongs to a call that was tried in vain: the last choice
 * is taken back and its successor tried. A configuration (which operations are placed, and what
 * the register holds) that was seen before leads nowhere new and is not entered again.
 *
 * An operation without a response has no return in the list: nothing forces it to be placed. So the
 * search succeeds when no return is left, whatever calls are. Such a write is only placed where the
 * next operation needs it (reads its value, or is refused because of it): everywhere else the order
 * without it is as good, and trying both would double the work for each of them.
 *
 * Invariants
 *   H1  the list holds exactly the entries of operations that are not placed, in order of time.
 *   H2  the bits in now[] and the stack name the same operations.
 */
#include "tests/torture/history.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    uint64_t at_ns;
    size_t op;
    int is_return;
    struct entry *next, *prev, *match; /* match: a call's return, or NULL */
};

/*
 * One configuration: what the register holds; whether the last one placed has no response and was
 * not needed yet, and what the register held before it; the bits of the placed operations.
 */
enum { NOW_HOLDS, NOW_UNUSED, NOW_BEFORE, NOW_BITS };

struct choice {
    struct entry *call;
    uint64_t before[NOW_BITS]; /* the configuration's head before it */
};

struct seen {
    uint64_t *table; /* 1 + number of the configuration; open addressing; a power of two */
    size_t table_len, n, cap, words;
    uint64_t *config; /* `words` each */
};

struct search {
    const struct history_op *ops;
    size_t n, returns, depth, longest;
    struct entry *entries, head;
    struct choice *stack;
    uint64_t *now; /* the configuration */
    struct seen seen;
};

/* ---- configurations seen ---- */

static uint64_t hash_words(const uint64_t *w, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15ull; /* FNV-1a by words, stirred (Vigna's splitmix64 finish) */
    for (size_t i = 0; i < n; i++)
        h = (h ^ w[i]) * 0x100000001b3ull, h ^= h >> 29;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
    return h ^ (h >> 27);
}

static size_t seen_place(const struct seen *s, const uint64_t *config)
{
    size_t at = hash_words(config, s->words) & (s->table_len - 1);
    while (s->table[at] && memcmp(s->config + (s->table[at] - 1) * s->words, config,
                                  s->words * sizeof *config) != 0)
        at = (at + 1) & (s->table_len - 1);
    return at;
}

static int seen_grow(struct seen *s)
{
    struct seen wider = *s;
    wider.cap = s->cap ? s->cap * 2 : 1024;
    wider.table_len = wider.cap * 2;
    wider.table = calloc(wider.table_len, sizeof *wider.table);
    uint64_t *config = realloc(s->config, wider.cap * s->words * sizeof *config);
    if (config)
        s->config = wider.config = config;
    if (!wider.table || !config) {
        free(wider.table);
        return -1;
    }
    for (size_t i = 0; i < s->n; i++)
        wider.table[seen_place(&wider, s->config + i * s->words)] = i + 1;
    free(s->table);
    *s = wider;
    return 0;
}

/* 1 new, 0 seen before, -1 too many. */
static int seen_add(struct seen *s, const uint64_t *config)
{
    if (s->n == s->cap && (s->n >= HISTORY_STATES_MAX || seen_grow(s)))
        return -1;
    size_t at = seen_place(s, config);
    if (s->table[at])
        return 0;
    memcpy(s->config + s->n * s->words, config, s->words * sizeof *config);
    s->table[at] = ++s->n;
    return 1;
}

/* ---- the register ---- */

/* May the operation run on a register that holds `state`? What it holds then. */
static int allowed(const struct history_op *op, int64_t state, int64_t *ret)
{
    *ret = state;
    switch (op->kind) {
    case HISTORY_READ:
        return state == op->value;
    case HISTORY_WRITE:
        *ret = op->value;
        return 1;
    case HISTORY_CAS:
        *ret = op->value;
        return state == op->expected;
    case HISTORY_CAS_NOT:
        return state != op->expected;
    case HISTORY_CHECK:
        return state == op->expected;
    }
    return 0;
}

/* ---- the list ---- */

static void unlink_entry(struct entry *e)
{
    e->prev->next = e->next;
    if (e->next)
        e->next->prev = e->prev;
}

/* Undoes unlink_entry, in the opposite order of unlinking. */
static void relink_entry(struct entry *e)
{
    e->prev->next = e;
    if (e->next)
        e->next->prev = e;
}

static int by_time(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    /* Of the same instant they are taken as concurrent: calls first. */
    if (x->is_return != y->is_return)
        return x->is_return - y->is_return;
    return (x->op > y->op) - (x->op < y->op);
}

static void make_list(struct search *s)
{
    size_t len = 0;
    for (size_t i = 0; i < s->n; i++) {
        s->entries[len++] = (struct entry){.at_ns = s->ops[i].invoked_ns, .op = i};
        if (s->ops[i].replied_ns != HISTORY_PENDING) {
            s->entries[len++] =
                (struct entry){.at_ns = s->ops[i].replied_ns, .op = i, .is_return = 1};
            s->returns++;
        }
    }
    if (len)
        qsort(s->entries, len, sizeof *s->entries, by_time);
    struct entry *last = &s->head;
    for (size_t i = 0; i < len; i++) {
        struct entry *e = &s->entries[i];
        e->prev = last;
        last->next = e;
        last = e;
    }
    /* A return finds its call through the (still unused) stack. */
    for (size_t i = 0; i < len; i++) {
        struct entry *e = &s->entries[i];
        if (!e->is_return)
            s->stack[e->op].call = e;
        else
            s->stack[e->op].call->match = e;
    }
}

/* ---- the search ---- */

static void place(struct search *s, struct entry *call, int64_t after)
{
    struct choice *c = &s->stack[s->depth++];
    c->call = call;
    memcpy(c->before, s->now, sizeof c->before);
    s->now[NOW_UNUSED] = call->match == NULL;
    s->now[NOW_BEFORE] = call->match ? 0 : s->now[NOW_HOLDS];
    s->now[NOW_HOLDS] = (uint64_t)after;
    s->now[NOW_BITS + call->op / 64] |= 1ull << (call->op % 64);
    unlink_entry(call);
    if (call->match) {
        unlink_entry(call->match);
        s->returns--;
    }
    if (s->depth > s->longest)
        s->longest = s->depth;
}

static struct entry *take_back(struct search *s)
{
    const struct choice *c = &s->stack[--s->depth];
    memcpy(s->now, c->before, sizeof c->before);
    s->now[NOW_BITS + c->call->op / 64] &= ~(1ull << (c->call->op % 64));
    if (c->call->match) {
        relink_entry(c->call->match);
        s->returns++;
    }
    relink_entry(c->call);
    return c->call;
}

/* Does this one need what the last one, which has no response, has stored? */
static int needs_last(const struct search *s, const struct history_op *op)
{
    if (op->kind == HISTORY_WRITE)
        return 0;
    if (op->kind == HISTORY_CAS_NOT)
        return op->expected == (int64_t)s->now[NOW_BEFORE];
    return 1; /* allowed() has seen that it is what is there */
}

/* Places the call if the register allows it and leads somewhere new: 1, 0, or -1 (too many). */
static int try_call(struct search *s, struct entry *call)
{
    const struct history_op *op = &s->ops[call->op];
    int64_t after;
    if (!call->match && op->kind != HISTORY_WRITE && op->kind != HISTORY_CAS)
        return 0; /* no response and no effect */
    if (!allowed(op, (int64_t)s->now[NOW_HOLDS], &after))
        return 0;
    if (s->now[NOW_UNUSED] && !needs_last(s, op))
        return 0;
    place(s, call, after);
    int fresh = seen_add(&s->seen, s->now);
    if (fresh <= 0)
        take_back(s);
    return fresh;
}

static enum history_verdict search_run(struct search *s)
{
    struct entry *at = s->head.next;
    while (s->returns > 0) {
        if (at && !at->is_return) {
            int placed = try_call(s, at);
            if (placed < 0)
                return HISTORY_UNDECIDED;
            at = placed ? s->head.next : at->next;
        } else if (s->depth > 0) {
            at = take_back(s)->next;
        } else {
            return HISTORY_NOT_LINEARIZABLE;
        }
    }
    return HISTORY_LINEARIZABLE;
}

enum history_verdict history_check(const struct history_op *ops, size_t n, size_t *ret_longest)
{
    struct search s = {.ops = ops, .n = n};
    s.seen.words = NOW_BITS + (n + 63) / 64;
    s.entries = calloc(2 * n + 1, sizeof *s.entries);
    s.stack = calloc(n + 1, sizeof *s.stack);
    s.now = calloc(s.seen.words, sizeof *s.now);
    enum history_verdict v = HISTORY_UNDECIDED;
    if (s.entries && s.stack && s.now) {
        make_list(&s);
        v = search_run(&s);
    }
    if (v == HISTORY_NOT_LINEARIZABLE && ret_longest)
        *ret_longest = s.longest;
    free(s.entries);
    free(s.stack);
    free(s.now);
    free(s.seen.table);
    free(s.seen.config);
    return v;
}
