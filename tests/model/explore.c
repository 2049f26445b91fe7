/*
 * explore.c - the search of explore.h.
 *
 * An actor stops by switching to the explorer's stack; what lies between its stack pointer and the
 * top of its stack is then all that it knows, with the registers that a call preserves on top. To go
 * on from an older state these bytes are copied back to the same place.
 *
 * Invariants
 *   X1  an actor touches watched memory only as the first thing after it was resumed: a state is
 *       always "before the next access".
 *   X2  the part and actor contents that are loaded are those of `loaded`; a content that has been
 *       run is gathered before anything else is loaded.
 */
#include "explore.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define STACK_BYTES (128u << 10)
#define CLEAN_BYTES 4096u /* below the stack pointer: old frames would be taken for knowledge */
#define NONE        UINT32_MAX
#define WIDTH_MAX   (PARTS_MAX + ACTORS_MAX)
#define RANGES_MAX  40u

/* Saves what a call must preserve, stores the stack pointer in *save, goes on at `to`. */
void model_switch(void **save, void *to);
__asm__(".text\n"
        ".globl model_switch\n"
        ".type model_switch,@function\n"
        "model_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq "
        "%r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size model_switch, .-model_switch\n");

/* ---- each distinct content once ---- */

struct contents {
    unsigned char **bytes;
    uint32_t *len;
    uint64_t *hash;
    uint32_t n, cap;
    uint32_t *table; /* number + 1, or 0 */
    uint32_t slots;
};

static void *must(void *p)
{
    if (!p) {
        fputs("not ok - no memory for the states\n", stdout);
        exit(1);
    }
    return p;
}

static void *again(void *p, size_t n, size_t size)
{
    return must(realloc(p, n * size));
}

static uint32_t contents_put(struct contents *c, const void *bytes, uint32_t len)
{
    uint64_t h = XXH3_64bits(bytes, len);
    if (2 * (c->n + 1) > c->slots) {
        c->slots = c->slots ? c->slots * 2 : 1024;
        free(c->table);
        c->table = must(calloc(c->slots, sizeof *c->table));
        for (uint32_t i = 0; i < c->n; i++) {
            uint32_t at = (uint32_t)c->hash[i] & (c->slots - 1);
            while (c->table[at])
                at = (at + 1) & (c->slots - 1);
            c->table[at] = i + 1;
        }
    }
    uint32_t at = (uint32_t)h & (c->slots - 1);
    for (; c->table[at]; at = (at + 1) & (c->slots - 1)) {
        uint32_t i = c->table[at] - 1;
        if (c->hash[i] == h && c->len[i] == len && memcmp(c->bytes[i], bytes, len) == 0)
            return i;
    }
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 256;
        c->bytes = again(c->bytes, c->cap, sizeof *c->bytes);
        c->len = again(c->len, c->cap, sizeof *c->len);
        c->hash = again(c->hash, c->cap, sizeof *c->hash);
    }
    c->bytes[c->n] = must(malloc(len ? len : 1));
    memcpy(c->bytes[c->n], bytes, len);
    c->len[c->n] = len;
    c->hash[c->n] = h;
    c->table[at] = c->n + 1;
    return c->n++;
}

static void contents_fini(struct contents *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        free(c->bytes[i]);
    free(c->bytes);
    free(c->len);
    free(c->hash);
    free(c->table);
    *c = (struct contents){0};
}

/* ---- the scenario ---- */

struct range {
    unsigned char *ptr;
    size_t bytes;
};
static struct part {
    struct range range[RANGES_MAX];
    uint32_t ranges;
} part[PARTS_MAX];
static uint32_t parts;

struct image_head {
    struct pending pending;
    unsigned char *sp;
};
static struct actor actor[ACTORS_MAX];
static uint32_t actors;
static unsigned char *stack[ACTORS_MAX];
static struct image_head head[ACTORS_MAX]; /* of the loaded content */

static struct contents contents[WIDTH_MAX]; /* of parts, then of actors */
static uint32_t loaded[WIDTH_MAX];
static unsigned char scratch[STACK_BYTES + 65536];

/* ---- running one actor ---- */

static uint32_t current = ACTORS_MAX, chosen;
static void *explorer_sp;
static int failed;
static char why[400];

uint32_t model_self(void)
{
    return current;
}

void model_stop(enum pending_kind kind, const void *at)
{
    if (current == ACTORS_MAX)
        return; /* the scenario is being made */
    head[current].pending = (struct pending){at, kind, 1};
    model_switch((void **)&head[current].sp, explorer_sp);
}

uint32_t model_choose(uint32_t ways)
{
    head[current].pending = (struct pending){NULL, PENDING_CHOICE, ways};
    model_switch((void **)&head[current].sp, explorer_sp);
    return chosen;
}

void model_fail(const char *fmt, ...)
{
    if (!failed) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(why, sizeof why, fmt, ap);
        va_end(ap);
    }
    failed = 1;
    if (current < ACTORS_MAX)
        model_switch((void **)&head[current].sp, explorer_sp);
}

static void actor_main(void)
{
    uint32_t a = current;
    actor[a].body(actor[a].arg);
    world_set_status(a, ACTOR_DONE);
    model_switch((void **)&head[a].sp, explorer_sp);
    abort();
}

static void actor_prepare(uint32_t a)
{
    if (!stack[a])
        stack[a] = must(aligned_alloc(64, STACK_BYTES));
    memset(stack[a], 0, STACK_BYTES);
    /* Six registers, then where the first switch returns to: entered as by a call. */
    unsigned char *sp = stack[a] + STACK_BYTES - 64;
    void (*entry)(void) = actor_main;
    memcpy(sp + 48, &entry, sizeof entry);
    head[a] = (struct image_head){{NULL, PENDING_START, 1}, sp};
}

/* ---- loading and gathering ---- */

static void part_load(uint32_t p, uint32_t id)
{
    if (loaded[p] == id)
        return;
    const unsigned char *from = contents[p].bytes[id];
    for (uint32_t i = 0; i < part[p].ranges; i++) {
        memcpy(part[p].range[i].ptr, from, part[p].range[i].bytes);
        from += part[p].range[i].bytes;
    }
    loaded[p] = id;
}

/* Number of what the part holds now; same: the number that it was loaded from, or NONE. */
static uint32_t part_gather(uint32_t p)
{
    unsigned char *to = scratch;
    for (uint32_t i = 0; i < part[p].ranges; i++) {
        memcpy(to, part[p].range[i].ptr, part[p].range[i].bytes);
        to += part[p].range[i].bytes;
    }
    uint32_t len = (uint32_t)(to - scratch), was = loaded[p];
    if (was != NONE && memcmp(contents[p].bytes[was], scratch, len) == 0)
        return was;
    return loaded[p] = contents_put(&contents[p], scratch, len);
}

static const struct image_head *image_of(uint32_t a, uint32_t id)
{
    return (const void *)contents[PARTS_MAX + a].bytes[id];
}

static void actor_load(uint32_t a, uint32_t id)
{
    const struct contents *c = &contents[PARTS_MAX + a];
    const unsigned char *from = c->bytes[id], *end = from + c->len[id];
    memcpy(&head[a], from, sizeof head[a]);
    from += sizeof head[a];
    for (uint32_t i = 0; i < actor[a].owns; i++) {
        memcpy(actor[a].own[i].ptr, from, actor[a].own[i].bytes);
        from += actor[a].own[i].bytes;
    }
    memcpy(head[a].sp, from, (size_t)(end - from));
    unsigned char *low = head[a].sp - CLEAN_BYTES;
    if (low < stack[a])
        low = stack[a];
    memset(low, 0, (size_t)(head[a].sp - low));
}

static uint32_t actor_gather(uint32_t a)
{
    enum actor_status st = world_status(a);
    if (st == ACTOR_DONE || st == ACTOR_DEAD) {
        struct image_head none = {{NULL, PENDING_START, 0}, NULL};
        return contents_put(&contents[PARTS_MAX + a], &none, sizeof none);
    }
    unsigned char *to = scratch;
    if (actor[a].tidy)
        actor[a].tidy(a);
    memcpy(to, &head[a], sizeof head[a]);
    to += sizeof head[a];
    for (uint32_t i = 0; i < actor[a].owns; i++) {
        memcpy(to, actor[a].own[i].ptr, actor[a].own[i].bytes);
        to += actor[a].own[i].bytes;
    }
    size_t n = (size_t)(stack[a] + STACK_BYTES - head[a].sp);
    memcpy(to, head[a].sp, n);
    to += n;
    return contents_put(&contents[PARTS_MAX + a], scratch, (uint32_t)(to - scratch));
}

/* ---- the states ---- */

#define MOVE_DEATH 0x80u /* the actor; else actor * 8 + way */

static uint32_t *rows; /* WIDTH numbers each: parts, then actors */
static uint32_t *parent, *table;
static uint8_t *moved, *good;
static uint32_t states, states_cap, table_slots;
static struct edge {
    uint32_t from, to;
} * edges;
static uint64_t edge_count, edge_cap;

static uint32_t width(void)
{
    return parts + actors;
}

static uint32_t *row(uint32_t state)
{
    return rows + (size_t)state * width();
}

static void table_grow(void)
{
    table_slots = table_slots ? table_slots * 2 : 1u << 16;
    free(table);
    table = must(calloc(table_slots, sizeof *table));
    for (uint32_t i = 0; i < states; i++) {
        uint32_t at = (uint32_t)XXH3_64bits(row(i), width() * 4) & (table_slots - 1);
        while (table[at])
            at = (at + 1) & (table_slots - 1);
        table[at] = i + 1;
    }
}

/* The state's number; *ret_new: it was not there. */
static uint32_t state_put(const uint32_t *r, int *ret_new)
{
    if (2 * (uint64_t)(states + 1) > table_slots)
        table_grow();
    uint32_t at = (uint32_t)XXH3_64bits(r, width() * 4) & (table_slots - 1);
    for (*ret_new = 0; table[at]; at = (at + 1) & (table_slots - 1))
        if (memcmp(row(table[at] - 1), r, width() * 4) == 0)
            return table[at] - 1;
    if (states == states_cap) {
        states_cap = states_cap ? states_cap * 2 : 1u << 16;
        rows = again(rows, (size_t)states_cap * width(), 4);
        parent = again(parent, states_cap, 4);
        moved = again(moved, states_cap, 1);
        good = again(good, states_cap, 1);
    }
    *ret_new = 1;
    table[at] = states + 1;
    memcpy(row(states), r, width() * 4);
    return states++;
}

static void edge_put(uint32_t from, uint32_t to)
{
    if (edge_count == edge_cap) {
        edge_cap = edge_cap ? edge_cap * 2 : 1u << 17;
        edges = again(edges, edge_cap, sizeof *edges);
    }
    edges[edge_count++] = (struct edge){from, to};
}

/* ---- telling the way ---- */

static const char *const kind_name[] = {
    [PENDING_START] = "starts",   [PENDING_LOAD] = "loads",     [PENDING_STORE] = "stores",
    [PENDING_CHANGE] = "changes", [PENDING_CAS] = "swaps",      [PENDING_WAIT] = "goes to sleep on",
    [PENDING_ASLEEP] = "wakes",   [PENDING_CHOICE] = "chooses", [PENDING_CALL] = "calls",
};

static void say_move(const uint32_t *r, uint8_t move)
{
    if (move & MOVE_DEATH) {
        printf("    %s dies\n", actor[move & 0x7f].name);
        return;
    }
    uint32_t a = move / 8;
    const struct pending *p = &image_of(a, r[parts + a])->pending;
    printf("    %-9s %s %s\n", actor[a].name, kind_name[p->kind],
           p->kind == PENDING_CHOICE ? (move % 8 ? "another way" : "the usual way")
           : p->kind == PENDING_CALL ? (const char *)p->at
           : p->at                   ? world_address(p->at)
                                     : "");
}

/* The moves from the start to the state, and one more (0xff: none). */
static void say_way(uint32_t state, uint8_t last)
{
    uint32_t n = 0, *way = NULL;
    for (uint32_t s = state; s; s = parent[s]) {
        way = again(way, n + 1, sizeof *way);
        way[n++] = s;
    }
    printf("  %s, after %u steps:\n", why, n + (last != 0xff));
    while (n > 0) {
        uint32_t s = way[--n];
        say_move(row(parent[s]), moved[s]);
    }
    if (last != 0xff)
        say_move(row(state), last);
    free(way);
}

/* ---- the search ---- */

static uint32_t moves_of(uint32_t s, uint8_t out[64])
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < parts; p++)
        part_load(p, row(s)[p]);
    for (uint32_t a = 0; a < actors; a++) {
        enum actor_status st = world_status(a);
        if (st == ACTOR_UNBORN && (!actor[a].may_start || actor[a].may_start(&actor[a])))
            out[n++] = (uint8_t)(a * 8);
        if (st != ACTOR_RUNS)
            continue;
        const struct pending *p = &image_of(a, row(s)[parts + a])->pending;
        uint32_t ways = world_asleep(a, p) ? 0 : p->choices;
        for (uint32_t k = 0; k < ways; k++)
            out[n++] = (uint8_t)(a * 8 + k);
        if (actor[a].mortal && world_may_die(a))
            out[n++] = (uint8_t)(MOVE_DEATH | a);
    }
    return n;
}

/* Makes one move from s; the state it leads to is in r. */
static void move_make(uint32_t s, uint8_t move, uint32_t *r)
{
    memcpy(r, row(s), width() * 4);
    for (uint32_t p = 0; p < parts; p++)
        part_load(p, r[p]);
    uint32_t a = move & MOVE_DEATH ? move & 0x7fu : move / 8u;
    if (move & MOVE_DEATH) {
        world_die(a);
    } else {
        if (world_status(a) == ACTOR_UNBORN)
            world_set_status(a, ACTOR_RUNS);
        actor_load(a, r[parts + a]);
        chosen = move % 8u;
        current = a;
        model_switch(&explorer_sp, head[a].sp);
        current = ACTORS_MAX;
    }
    if (!failed)
        world_check(a);
    for (uint32_t p = 0; p < parts; p++)
        r[p] = part_gather(p);
    r[parts + a] = actor_gather(a);
}

static uint32_t first_state(void)
{
    uint32_t r[WIDTH_MAX];
    int fresh;
    for (uint32_t p = 0; p < parts; p++)
        r[p] = part_gather(p);
    for (uint32_t a = 0; a < actors; a++) {
        actor_prepare(a);
        r[parts + a] = actor_gather(a);
    }
    uint32_t s = state_put(r, &fresh);
    good[s] = (uint8_t)world_good();
    return s;
}

/* From every state a good one must be reachable. Returns one from which none is, or NONE. */
static uint32_t hopeless(void)
{
    uint64_t *first = must(calloc((size_t)states + 2, sizeof *first));
    uint32_t *from = must(malloc((edge_count + 1) * sizeof *from)), *queue, head_at = 0, n = 0;
    for (uint64_t e = 0; e < edge_count; e++)
        first[edges[e].to + 2]++;
    for (uint32_t s = 0; s < states; s++)
        first[s + 2] += first[s + 1];
    for (uint64_t e = 0; e < edge_count; e++)
        from[first[edges[e].to + 1]++] = edges[e].from;
    queue = must(malloc(((size_t)states + 1) * sizeof *queue));
    for (uint32_t s = 0; s < states; s++)
        if (good[s])
            queue[n++] = s;
    while (head_at < n) {
        uint32_t s = queue[head_at++];
        for (uint64_t e = first[s]; e < first[s + 1]; e++)
            if (!good[from[e]]) {
                good[from[e]] = 1;
                queue[n++] = from[e];
            }
    }
    uint32_t bad = NONE;
    for (uint32_t s = 0; s < states && bad == NONE; s++)
        if (!good[s])
            bad = s;
    free(first);
    free(from);
    free(queue);
    return bad;
}

static void search(uint64_t states_max, struct explore_result *ret)
{
    uint8_t move[64];
    uint32_t r[WIDTH_MAX];
    for (uint32_t s = 0; s < states; s++) {
        uint32_t n = moves_of(s, move);
        for (uint32_t k = 0; k < n; k++) {
            int fresh;
            move_make(s, move[k], r);
            if (failed) {
                say_way(s, move[k]);
                return;
            }
            uint32_t to = state_put(r, &fresh);
            if (fresh) {
                parent[to] = s;
                moved[to] = move[k];
                good[to] = (uint8_t)world_good();
            }
            edge_put(s, to);
        }
        if (states > states_max) {
            failed = 1;
            printf("  more than %llu states\n", (unsigned long long)states_max);
            return;
        }
    }
    uint32_t bad = hopeless();
    if (bad != NONE) {
        failed = 1;
        snprintf(why, sizeof why, "no end with everything given back can be reached any more");
        say_way(bad, 0xff);
    }
    for (uint32_t s = states - 1; s; s = parent[s])
        ret->deepest++;
}

struct explore_result explore_run(uint64_t states_max)
{
    struct explore_result ret = {0};
    failed = 0;
    why[0] = 0;
    first_state();
    search(states_max, &ret);
    if (getenv("MODEL_CONTENTS"))
        for (uint32_t i = 0; i < WIDTH_MAX; i++)
            if (contents[i].n)
                printf("  %s %u: %u contents\n", i < PARTS_MAX ? "part" : "actor",
                       i < PARTS_MAX ? i : i - PARTS_MAX, contents[i].n);
    ret.states = states;
    ret.transitions = edge_count;
    ret.failed = failed;
    return ret;
}

void explore_reset(void)
{
    for (uint32_t i = 0; i < WIDTH_MAX; i++) {
        contents_fini(&contents[i]);
        loaded[i] = NONE;
    }
    memset(part, 0, sizeof part);
    parts = actors = 0;
    free(rows);
    free(parent);
    free(table);
    free(moved);
    free(good);
    free(edges);
    rows = parent = table = NULL;
    moved = good = NULL;
    edges = NULL;
    states = states_cap = table_slots = 0;
    edge_count = edge_cap = 0;
}

uint32_t explore_actor(const struct actor *a)
{
    actor[actors] = *a;
    return actors++;
}

void explore_part(uint32_t p, void *ptr, size_t bytes)
{
    if (p >= PARTS_MAX || part[p].ranges == RANGES_MAX)
        abort();
    part[p].range[part[p].ranges++] = (struct range){ptr, bytes};
    if (p >= parts)
        parts = p + 1;
}
