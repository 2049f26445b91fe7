/*
 * model.c - the scenarios.
 */
#include "tests/model/world.h"

#include "shm/reaper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- actors ---- */

static struct participant *handles[ACTORS_MAX];
static struct script scripts[ACTORS_MAX];
static uint8_t is_reaper[ACTORS_MAX];
static uint32_t made;
static const char *const names[] = {"A", "B", "C", "D", "E", "F", "G", "H"};

static void reaper_body(void *arg)
{
    (void)arg;
    uint32_t who = model_self();
    for (;;) {
        W.idle[who] = 1;
        model_stop(PENDING_CALL, "reap_step");
        W.idle[who] = 0;
        reap_step(handles[who]);
    }
}

/* Joined before the scenario begins. */
static struct participant *present(uint32_t who, uint32_t kind)
{
    struct participant *p = model_join(who, kind);
    W.lock[p->index] = (uint8_t)(who + 1);
    W.status[who] = ACTOR_RUNS;
    return handles[who] = p;
}

static void own_handle(struct actor *a, struct participant *p)
{
    if (!p)
        return;
    a->own[a->owns].ptr = p;
    a->own[a->owns++].bytes = sizeof *p;
}

static struct script *submitter(int mortal, int together)
{
    uint32_t who = made++;
    struct actor a = {.name = names[who], .mortal = mortal};
    own_handle(&a, present(who, PARTICIPANT_CLIENT));
    submitter_reset(who, handles[who]);
    scripts[who] = (struct script){.together = together};
    submitter_actor(&a, who, &scripts[who]);
    explore_actor(&a);
    return &scripts[who];
}

/* Starts when the row of `victim` was given back. */
static int victims_row_free(const struct actor *a)
{
    (void)a;
    const struct participant_shm *row = &model_segment->participant[0];
    return W.status[0] == ACTOR_DEAD && (atomic_load((A64 *)&row->word) & 0xff) == PARTICIPANT_FREE;
}

static struct script *comes(const char *name, int (*may_start)(const struct actor *))
{
    uint32_t who = made++;
    struct actor a = {.name = name, .may_start = may_start};
    memset(model_handle(who), 0, sizeof *model_handle(who));
    own_handle(&a, model_handle(who));
    submitter_reset(who, NULL);
    scripts[who] = (struct script){.joins = 1};
    submitter_actor(&a, who, &scripts[who]);
    explore_actor(&a);
    return &scripts[who];
}

static struct script *newcomer(void)
{
    return comes("new", victims_row_free);
}

static struct script *joiner(void)
{
    return comes("joiner", NULL);
}

static void writer(int mortal, int joined)
{
    uint32_t who = made++;
    struct actor a = {.name = joined ? "writer" : "writer 2", .mortal = mortal};
    struct participant *p = joined ? present(who, PARTICIPANT_WRITER) : NULL;
    own_handle(&a, p);
    writer_reset(who, p);
    if (joined)
        W.writes[who] = 1;
    writer_actor(&a, who);
    explore_actor(&a);
}

static int reaper_is_dead(const struct actor *a)
{
    (void)a;
    for (uint32_t i = 0; i < made; i++)
        if (is_reaper[i] && W.status[i] == ACTOR_DEAD)
            return 1;
    return 0;
}

/* which: 0 the first, 1 one that comes when the first has died, 2 a second one */
static void reaper(int mortal, int which)
{
    static const char *const name[] = {"reaper", "reaper 2", "reaper 2"};
    uint32_t who = made++;
    is_reaper[who] = 1;
    struct actor a = {.name = name[which], .body = reaper_body, .mortal = mortal};
    own_handle(&a, present(who, PARTICIPANT_TOOL));
    if (which == 1) {
        W.status[who] = ACTOR_UNBORN;
        a.may_start = reaper_is_dead;
    }
    explore_actor(&a);
}

/* ---- transactions ---- */

#define X(stripe) ((stripe) | INTENT_EXCLUSIVE)

static void commits(struct script *s, struct model_txn t)
{
    for (t.intents = 0; t.intents < STRIPES_MAX && t.intent[t.intents] != UINT32_MAX; t.intents++)
        ;
    s->txn[s->n++] = world_txn(&t);
}

static const struct model_txn x0 = {.intent = {X(0), UINT32_MAX}};
static const struct model_txn s0 = {.intent = {0, UINT32_MAX}};
static const struct model_txn x0_x1 = {.intent = {X(0), X(1)}};
static const struct model_txn s0_x1 = {.intent = {0, X(1)}};
static const struct model_txn large = {.intent = {X(0), UINT32_MAX}, .padding = 3200};
static const struct model_txn large_x1 = {.intent = {X(1), UINT32_MAX}, .padding = 3200};
static const struct model_txn late_x0 = {.intent = {X(0), UINT32_MAX}, .expires = 1};
static const struct model_txn late_s0 = {.intent = {0, UINT32_MAX}, .expires = 1};

/* ---- scenarios ---- */

enum { A_DIES = 1, B_DIES = 2, WRITER_DIES = 4, REAPER_DIES = 8, NO_REAPER = 16 };

static void two(const struct model_txn *a, const struct model_txn *b, unsigned how)
{
    commits(submitter(how & A_DIES, 0), *a);
    commits(submitter(how & B_DIES, 0), *b);
    writer(how & WRITER_DIES, 1);
    if (!(how & NO_REAPER))
        reaper(how & REAPER_DIES, 0);
    if (how & REAPER_DIES)
        reaper(0, 1);
    if (how & WRITER_DIES)
        writer(0, 0);
}

static void one(const struct model_txn *a, unsigned how)
{
    commits(submitter(how & A_DIES, 0), *a);
    writer(how & WRITER_DIES, 1);
    reaper(how & REAPER_DIES, 0);
    if (how & REAPER_DIES)
        reaper(0, 1);
    if (how & WRITER_DIES)
        writer(0, 0);
}

/* A has two in flight, B one. */
static void three(const struct model_txn *a, const struct model_txn *then,
                  const struct model_txn *b, unsigned how)
{
    struct script *s = submitter(how & A_DIES, 1);
    commits(s, *a);
    commits(s, *then);
    if (b)
        commits(submitter(how & B_DIES, 0), *b);
    writer(how & WRITER_DIES, 1);
    if (!(how & NO_REAPER))
        reaper(0, 0);
    if (how & WRITER_DIES)
        writer(0, 0);
}

/* A dies; a newcomer takes its row while another reaper is still at it. */
static void row_taken_again(void)
{
    commits(submitter(1, 0), x0);
    writer(0, 1);
    reaper(0, 0);
    reaper(0, 2);
    commits(newcomer(), x0);
}

/* Two look for a row at the same time. */
static void two_join(void)
{
    commits(joiner(), x0);
    commits(joiner(), x0);
    writer(0, 1);
}

/* There is no process for repairs alone. */
static void waiters_reap(void)
{
    commits(submitter(1, 0), x0);
    commits(submitter(0, 0), x0);
    writer(0, 1);
}

#define TWO(name, a, b, how)                                                                       \
    static void name(void)                                                                         \
    {                                                                                              \
        two(&(a), &(b), how);                                                                      \
    }
TWO(xx_a, x0, x0, A_DIES)
TWO(xx_w, x0, x0, WRITER_DIES | NO_REAPER)
TWO(xx_all, x0, x0, A_DIES | B_DIES | WRITER_DIES | REAPER_DIES)
TWO(xs_a, x0, s0, A_DIES)
TWO(xs_b, x0, s0, B_DIES)
TWO(xs_w, x0, s0, WRITER_DIES | NO_REAPER)
TWO(xs_all, x0, s0, A_DIES | B_DIES | WRITER_DIES | REAPER_DIES)
TWO(two_a, x0_x1, s0_x1, A_DIES)
TWO(two_b, x0_x1, s0_x1, B_DIES)
TWO(two_all, x0_x1, s0_x1, A_DIES | B_DIES | WRITER_DIES | REAPER_DIES)
TWO(late_a, late_x0, x0, A_DIES)
TWO(late_b, late_s0, x0, B_DIES)
TWO(late_all, late_x0, late_s0, A_DIES | B_DIES | WRITER_DIES | REAPER_DIES)
TWO(blocks_a, large, large_x1, A_DIES)
TWO(xx, x0, x0, NO_REAPER)
TWO(xs, x0, s0, NO_REAPER)
TWO(ss_x, s0_x1, x0, NO_REAPER)
TWO(both_two, x0_x1, s0_x1, NO_REAPER)
TWO(blocks, large, large_x1, NO_REAPER)

static void repair_of_repair(void)
{
    one(&x0, A_DIES | REAPER_DIES);
}
static void writer_and_reaper(void)
{
    one(&x0, WRITER_DIES);
}
static void flight_a(void)
{
    three(&x0, &x0, NULL, A_DIES);
}
static void flight_order(void)
{
    struct script *s = submitter(0, 1);
    for (int i = 0; i < 3; i++)
        commits(s, s0);
    writer(0, 1);
}
static void flight_w(void)
{
    three(&x0, &s0, NULL, WRITER_DIES | NO_REAPER);
}
static void flight_all(void)
{
    three(&x0_x1, &x0, &s0, A_DIES);
}
static void flight(void)
{
    three(&x0, &s0, &x0, NO_REAPER);
}

struct scenario {
    const char *sentence;
    struct model_plan plan;
    void (*make)(void);
    int large; /* only when it is asked for */
};

static const struct scenario scenarios[] = {
    {"exclusive against exclusive, a submitter dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1},
     xx_a,
     0},
    {"exclusive against exclusive, the writer dies anywhere and another takes over",
     {.slots = 2, .stripes = 1, .deaths = 1, .unrepaired = 1},
     xx_w,
     0},
    {"exclusive against shared, the exclusive one dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1},
     xs_a,
     0},
    {"exclusive against shared, the shared one dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1},
     xs_b,
     0},
    {"exclusive against shared, the writer dies anywhere and another takes over",
     {.slots = 2, .stripes = 1, .deaths = 1, .unrepaired = 1},
     xs_w,
     0},
    {"two stripes each, one dies anywhere", {.slots = 2, .stripes = 2, .deaths = 1}, two_a, 0},
    {"two stripes each, the other dies anywhere",
     {.slots = 2, .stripes = 2, .deaths = 1},
     two_b,
     1},
    {"a submitter dies and then the reaper that repairs it, both anywhere",
     {.slots = 2, .stripes = 1, .deaths = 2},
     repair_of_repair,
     0},
    {"the writer dies and is reaped while another takes over",
     {.slots = 1, .stripes = 1, .deaths = 1},
     writer_and_reaper,
     0},
    {"a newcomer takes a dead one's row while a second reaper is still at it",
     {.slots = 1, .stripes = 1, .deaths = 1},
     row_taken_again,
     0},
    {"two join at the same time, and commit", {.slots = 2, .stripes = 1}, two_join, 0},
    {"those who wait, and the writer, repair what the dead one left",
     {.slots = 2, .stripes = 1, .deaths = 1, .all_reap = 1},
     waiters_reap,
     0},
    {"a deadline passes anywhere, and its owner dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1, .clock_moves = 1},
     late_a,
     0},
    {"a shared one's deadline passes anywhere, the exclusive one dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1, .clock_moves = 1},
     late_b,
     1},
    {"two in flight of one submitter, which dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1},
     flight_a,
     0},
    {"three in flight of one submitter are applied in their order",
     {.slots = 3, .stripes = 1},
     flight_order,
     0},
    {"two in flight of one submitter, the writer dies anywhere and another takes over",
     {.slots = 2, .stripes = 1, .deaths = 1, .unrepaired = 1},
     flight_w,
     0},
    {"two submitters and one slot, one dies anywhere",
     {.slots = 1, .stripes = 1, .deaths = 1},
     xx_a,
     0},
    {"two large payloads and one block, one dies anywhere",
     {.slots = 2, .stripes = 2, .blocks = 1, .deaths = 1},
     blocks_a,
     0},
    {"no wake is lost: exclusive against exclusive",
     {.slots = 2, .stripes = 1, .exact_sleep = 1},
     xx,
     0},
    {"no wake is lost: exclusive against shared",
     {.slots = 2, .stripes = 1, .exact_sleep = 1},
     xs,
     1},
    {"no wake is lost: a shared and an exclusive stripe against an exclusive one",
     {.slots = 2, .stripes = 2, .exact_sleep = 1},
     ss_x,
     1},
    {"no wake is lost: two stripes each",
     {.slots = 2, .stripes = 2, .exact_sleep = 1},
     both_two,
     1},
    {"no wake is lost: two submitters and one slot",
     {.slots = 1, .stripes = 1, .exact_sleep = 1},
     xx,
     0},
    {"no wake is lost: two large payloads and one block",
     {.slots = 2, .stripes = 2, .blocks = 1, .exact_sleep = 1},
     blocks,
     0},
    {"no wake is lost: two in flight of one submitter and one of another",
     {.slots = 3, .stripes = 1, .exact_sleep = 1},
     flight,
     1},
    {"exclusive against exclusive, anybody dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1},
     xx_all,
     1},
    {"exclusive against shared, anybody dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1},
     xs_all,
     1},
    {"two stripes each, anybody dies anywhere",
     {.slots = 2, .stripes = 2, .deaths = 1},
     two_all,
     1},
    {"two deadlines pass anywhere, anybody dies anywhere",
     {.slots = 2, .stripes = 1, .deaths = 1, .clock_moves = 1},
     late_all,
     1},
    {"two in flight and one beside them, one dies anywhere",
     {.slots = 3, .stripes = 2, .deaths = 1},
     flight_all,
     1},
};

static int run(const struct scenario *sc)
{
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    world_reset(&sc->plan);
    made = 0;
    memset(is_reaper, 0, sizeof is_reaper);
    sc->make();
    world_watch();
    struct explore_result r = explore_run(60000000);
    if (!r.failed && !world_rest_unchanged())
        r.failed = 1;
    clock_gettime(CLOCK_MONOTONIC, &t1);
    printf("%s - %s (%llu states, %llu transitions, depth %llu, %.1f s)\n",
           r.failed ? "not ok" : "ok", sc->sentence, (unsigned long long)r.states,
           (unsigned long long)r.transitions, (unsigned long long)r.deepest,
           (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9);
    fflush(stdout);
    return r.failed;
}

int main(int argc, char **argv)
{
    int bad = 0;
    if (world_open()) {
        puts("not ok - the segment cannot be made");
        return 1;
    }
    /* model [all | first | NUMBER]: the small ones; all; the small ones until one fails; one */
    int all = argc > 1 && strcmp(argv[1], "all") == 0;
    int first = argc > 1 && strcmp(argv[1], "first") == 0;
    int only = argc > 1 && !all && !first ? atoi(argv[1]) : -1;
    for (int i = 0; i < (int)(sizeof scenarios / sizeof *scenarios) && !(first && bad); i++)
        if (only >= 0 ? only == i : all || !scenarios[i].large)
            bad |= run(&scenarios[i]);
    explore_reset();
    return bad;
}
