/*
 * chaining.c - writer/chaining.c as it is released, stepped through every interleaving of the commit thread with the
 * hashing thread: a program of its own beside the model of the segment, on the same explorer.
 *
 * A step is each lock, unlock, wait, wake, start and join, and the middle of each hash. What lies between two steps is
 * plain memory, whose owner is told by `state`. The commit thread makes some batches, each empty, small or large, and
 * commits it, aborts it, or aborts it before its head; the thread can be made, or cannot.
 *
 * Checked after each step
 *   CM1  `state` and `ending` change under the lock
 *   CM2  what is offered, with its value, changes by the thread's hand while TAKEN, by the commit thread's otherwise
 *   CM3  a text does not change while it is hashed, and is not hashed by two at a time
 * and where the commit thread asks
 *   CM4  a record's chain is that of the log with its batch or, of a large one that the thread has, that of the log
 *        before it; chaining_trails() says which of the two the last committed record had
 *   CM5  it waits for what has begun alone, and what it has offered lets no thread sleep
 *   CM6  all memory is given back, and nothing is destroyed that somebody uses
 * At the end: from every state both threads can still come to their ends: no wake is lost, nobody waits for ever.
 *
 * The hash is a cheap one: its value still is another for each order and each mix-up of texts. Memory is two buffers
 * that are emptied when they are given back, so that what is used after that is seen.
 */
#include "core/error.h"
#include "core/hash.h"
#include "tests/model/explore.h"
#include "writer/chaining.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

/* ---- what the source calls instead ---- */

static int model_lock(void);
static int model_unlock(void);
static int model_sleep(void);
static int model_wake_all(void);
static int model_start(void *(*body)(void *), void *arg);
static int model_join_thread(void);
static int model_destroy(void);
static int model_sigmask(sigset_t *old);
static void model_hash(uint8_t value[CHAIN_BYTES], const unsigned char *text, size_t len);
static void *model_alloc(size_t size);
static void model_free(void *p);
static unsigned char *model_buf_grow(struct buf *b, size_t n);
static void model_buf_clear(struct buf *b);
static void model_buf_fini(struct buf *b);

#define pthread_mutex_init(m, a)     ((void)(m))
#define pthread_cond_init(c, a)      ((void)(c))
#define pthread_mutex_lock(m)        ((void)(m), model_lock())
#define pthread_mutex_unlock(m)      ((void)(m), model_unlock())
#define pthread_cond_wait(c, m)      ((void)(c), (void)(m), model_sleep())
#define pthread_cond_broadcast(c)    ((void)(c), model_wake_all())
#define pthread_create(t, a, f, v)   ((void)(t), model_start(f, v))
#define pthread_join(t, r)           ((void)(t), model_join_thread())
#define pthread_mutex_destroy(m)     ((void)(m), model_destroy())
#define pthread_cond_destroy(c)      ((void)(c), model_destroy())
#define pthread_sigmask(how, s, old) ((void)(s), model_sigmask(old))
#define hash_once                    model_hash
#define calloc(n, size)              model_alloc((n) * (size))
#define free                         model_free
#define buf_grow                     model_buf_grow
#define buf_clear                    model_buf_clear
#define buf_fini                     model_buf_fini
#define CHAINING_LARGE               128u

#include "writer/chaining.c"

#undef calloc
#undef free

/* ---- the world ---- */

#define COMMITS    0u
#define HASHES     1u
#define BATCHES    4u
#define BUFS       2u
#define BUF_BYTES  1024u
#define STATES_MAX 20000000u

enum wait { RUNS, FOR_LOCK, FOR_WAKE, FOR_END };

static struct world {
    uint8_t status[ACTORS_MAX];
    uint8_t waits[ACTORS_MAX];   /* enum wait */
    uint8_t holder;              /* of the lock: actor + 1 */
    uint8_t made;                /* the thread may start */
    uint8_t hashing[ACTORS_MAX]; /* is in the middle of a text that was offered */
    uint8_t buf_used[BUFS];
    uint8_t alive; /* the struct is allocated */
} W;
static unsigned char bufs[BUFS][BUF_BYTES];
static struct chaining C;
static void *(*thread_body)(void *); /* constant */
static int spurious;                 /* who waits for a wake may wake without one */

/* As it was before the step that runs. */
static struct before {
    int state, ending;
    uint64_t offered;
} before;

static uint64_t offered_now(void)
{
    uint64_t h = XXH3_64bits(&C.offered, sizeof C.offered);
    h = XXH3_64bits_withSeed(C.value, sizeof C.value, h);
    return C.offered.bytes.len ? XXH3_64bits_withSeed(C.offered.bytes.ptr, C.offered.bytes.len, h)
                               : h;
}

static struct before look(void)
{
    return (struct before){C.state, C.ending, offered_now()};
}

static void stop(enum wait why, const char *what)
{
    uint32_t me = model_self();
    W.waits[me] = (uint8_t)why;
    model_stop(PENDING_CALL, what);
    W.waits[me] = RUNS;
    before = look();
}

static void take_lock(void)
{
    if (W.holder)
        model_fail("two have the lock");
    W.holder = (uint8_t)(model_self() + 1);
}

static void give_lock(void)
{
    if (W.holder != model_self() + 1)
        model_fail("a lock is given back by one who does not have it");
    W.holder = 0;
}

static int model_lock(void)
{
    if (W.holder == model_self() + 1)
        model_fail("who has the lock waits for it");
    stop(FOR_LOCK, "lock");
    take_lock();
    return 0;
}

static int model_unlock(void)
{
    stop(RUNS, "unlock");
    give_lock();
    return 0;
}

static int model_sleep(void)
{
    stop(RUNS, "wait");
    if (model_self() == COMMITS && C.state != TAKEN)
        model_fail("the commit thread waits for what nobody has begun (CM5)");
    give_lock();
    stop(FOR_WAKE, "lock, woken");
    take_lock();
    return 0;
}

static int model_wake_all(void)
{
    stop(RUNS, "wake");
    for (uint32_t a = 0; a < ACTORS_MAX; a++)
        if (W.waits[a] == FOR_WAKE)
            W.waits[a] = FOR_LOCK;
    return 0;
}

static int model_start(void *(*body)(void *), void *arg)
{
    if (arg != &C)
        model_fail("the thread is given something else");
    thread_body = body;
    if (model_choose(2))
        return EAGAIN;
    before = look();
    W.made = 1;
    return 0;
}

static int model_join_thread(void)
{
    stop(FOR_END, "join");
    return 0;
}

static int model_destroy(void)
{
    if (W.holder || W.status[HASHES] == ACTOR_RUNS)
        model_fail("the lock is destroyed while somebody uses it (CM6)");
    return 0;
}

static int model_sigmask(sigset_t *old)
{
    if (old)
        memset(old, 0, sizeof *old);
    return 0;
}

/* ---- hash and memory ---- */

static int is_offered(const void *p)
{
    const unsigned char *at = p, *from = C.offered.bytes.ptr;
    return from && at >= from && at < from + C.offered.bytes.cap;
}

static int others(int is_offer)
{
    return is_offer && model_self() == COMMITS && C.state == TAKEN;
}

static void cheap_hash(uint8_t value[CHAIN_BYTES], const void *text, size_t len)
{
    for (unsigned i = 0; i < CHAIN_BYTES / 8; i++)
        put_u64(value + 8 * (size_t)i, XXH3_64bits_withSeed(text, len, i));
}

static void model_hash(uint8_t value[CHAIN_BYTES], const unsigned char *text, size_t len)
{
    uint8_t sum[CHAIN_BYTES], again[CHAIN_BYTES];
    uint32_t me = model_self();
    int shared = is_offered(text);
    if (others(shared) || (shared && W.hashing[1 - me]))
        model_fail("a text is hashed by one while the other has it (CM3)");
    cheap_hash(sum, text, len);
    W.hashing[me] = (uint8_t)shared;
    stop(RUNS, "go on hashing");
    W.hashing[me] = 0;
    cheap_hash(again, text, len);
    if (memcmp(sum, again, sizeof sum) != 0)
        model_fail("a text changes while it is hashed (CM3)");
    memcpy(value, sum, sizeof sum);
}

static void *model_alloc(size_t size)
{
    ensure(size == sizeof C && !W.alive);
    W.alive = 1;
    memset(&C, 0, sizeof C);
    return &C;
}

static void model_free(void *p)
{
    if (p != &C || !W.alive || W.buf_used[0] || W.buf_used[1])
        model_fail("something is freed twice, or has not been given back (CM6)");
    W.alive = 0;
    memset(&C, 0, sizeof C);
}

static void check_owner(const struct buf *b)
{
    if (others(b == &C.offered.bytes))
        model_fail("what is offered is changed while the thread has it (CM2)");
}

static unsigned char *model_buf_grow(struct buf *b, size_t n)
{
    check_owner(b);
    for (uint32_t i = 0; i < BUFS && !b->ptr; i++)
        if (!W.buf_used[i]) {
            W.buf_used[i] = 1;
            *b = (struct buf){bufs[i], 0, BUF_BYTES};
        }
    ensure(b->ptr && b->cap - b->len >= n);
    unsigned char *at = b->ptr + b->len;
    b->len += n;
    return at;
}

static void model_buf_clear(struct buf *b)
{
    check_owner(b);
    if (b->ptr)
        memset(b->ptr, 0, b->cap);
    b->len = 0;
}

static void model_buf_fini(struct buf *b)
{
    model_buf_clear(b);
    for (uint32_t i = 0; i < BUFS; i++)
        if (b->ptr == bufs[i])
            W.buf_used[i] = 0;
    *b = (struct buf){0};
}

/* ---- the two threads ---- */

static struct chain start; /* constant */

static void expect(const struct chain *said, const struct chain *want, const char *what)
{
    if (said->on != want->on || said->txn != want->txn || said->event != want->event ||
        memcmp(said->value, want->value, CHAIN_BYTES) != 0)
        model_fail("a record's chain is not that of the log %s its batch (CM4)", what);
}

/* A transaction into the batch and into the reference; its time tells one batch from another. */
static void one_txn(struct chaining *ch, struct chain *ref, uint32_t batch)
{
    unsigned char text[BUF_BYTES];
    struct event_record ev = {.id = ref->event + 1, .txn = ref->txn + 1, .time_ns = batch};
    if (chaining_add(ch, &ev, 1))
        model_fail("no memory");
    chain_text(text, ref, &ev, 1);
    cheap_hash(ref->value, text, chain_text_size(&ev, 1));
    ref->txn = ev.txn;
    ref->event = ev.id;
}

/* What became of the batch: 1 committed. *trails: what chaining_trails() has to say. */
static int one_batch(struct chaining *ch, uint32_t no, const struct chain *log, struct chain *batch,
                     int *trails)
{
    struct chain said;
    uint32_t txns = model_choose(3); /* empty, small, large */
    before = look();
    for (uint32_t i = 0; i < txns; i++)
        one_txn(ch, batch, no);
    uint32_t end = model_choose(3);
    before = look();
    if (end == 2) {
        chaining_abort(ch);
        return 0;
    }
    chaining_head(ch, &said);
    int with = txns < 2 || !W.made;
    if (C.state == OFFERED && W.waits[HASHES] == FOR_WAKE)
        model_fail("the thread sleeps through an offer (CM5)");
    expect(&said, with ? batch : log, with ? "with" : "before");
    if (end == 1) {
        chaining_abort(ch);
        return 0;
    }
    chaining_commit(ch);
    *trails = !with;
    return 1;
}

static void commits_body(void *arg)
{
    (void)arg;
    before = look();
    struct chaining *ch = chaining_new(&start);
    struct chain log = start;
    int trails = 0;
    for (uint32_t i = 0; i < BATCHES; i++) {
        struct chain batch = log;
        if (one_batch(ch, i, &log, &batch, &trails))
            log = batch;
        if (chaining_trails(ch) != trails)
            model_fail("what is said of the last record's chain is wrong (CM4)");
    }
    chaining_free(ch);
}

static void hashes_body(void *arg)
{
    before = look();
    thread_body(arg);
}

static int thread_is_made(const struct actor *a)
{
    (void)a;
    return W.made;
}

/* ---- what the explorer asks ---- */

enum actor_status world_status(uint32_t a)
{
    return (enum actor_status)W.status[a];
}

void world_set_status(uint32_t a, enum actor_status s)
{
    W.status[a] = (uint8_t)s;
}

int world_asleep(uint32_t a, const struct pending *p)
{
    (void)p;
    switch ((enum wait)W.waits[a]) {
    case FOR_LOCK:
        return W.holder != 0;
    case FOR_WAKE:
        return !spurious || W.holder != 0;
    case FOR_END:
        return W.status[HASHES] != ACTOR_DONE;
    default:
        return 0;
    }
}

int world_may_die(uint32_t a)
{
    (void)a;
    return 0;
}

void world_die(uint32_t a)
{
    (void)a;
}

void world_check(uint32_t a)
{
    if (!W.alive)
        return;
    if ((C.state != before.state || C.ending != before.ending) && W.holder != a + 1)
        model_fail("the state changes without the lock (CM1)");
    uint32_t owner = before.state == TAKEN ? HASHES : COMMITS;
    if (offered_now() != before.offered && a != owner)
        model_fail("what is offered, or its value, is changed by one who does not have it (CM2)");
}

int world_good(void)
{
    return W.status[COMMITS] == ACTOR_DONE && !W.alive &&
           W.status[HASHES] == (W.made ? ACTOR_DONE : ACTOR_UNBORN);
}

const char *world_address(const void *at)
{
    (void)at;
    return "?";
}

_Noreturn void model_ensure_failed(const char *cond, const char *file, int line)
{
    printf("not ok - %s:%d: %s\n", file, line, cond);
    exit(1);
}

/* ---- the scenarios ---- */

static const struct {
    const char *sentence;
    int spurious;
} scenarios[] = {
    {"batches and the thread that hashes them: no wake is lost", 0},
    {"batches and the thread that hashes them: a sleeper may wake for no reason", 1},
};

static int run(uint32_t i)
{
    static const struct actor commits = {.name = "commits", .body = commits_body},
                              hashes = {.name = "hashes",
                                        .body = hashes_body,
                                        .arg = &C,
                                        .may_start = thread_is_made};
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    explore_reset();
    memset(&W, 0, sizeof W);
    memset(&C, 0, sizeof C);
    memset(bufs, 0, sizeof bufs);
    spurious = scenarios[i].spurious;
    W.status[COMMITS] = ACTOR_RUNS;
    explore_actor(&commits);
    explore_actor(&hashes);
    explore_part(0, &W, sizeof W);
    explore_part(1, &C, sizeof C);
    explore_part(2, bufs, sizeof bufs);
    struct explore_result r = explore_run(STATES_MAX);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    printf("%s - %s (%llu states, %llu transitions, depth %llu, %.1f s)\n",
           r.failed ? "not ok" : "ok", scenarios[i].sentence, (unsigned long long)r.states,
           (unsigned long long)r.transitions, (unsigned long long)r.deepest,
           (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9);
    fflush(stdout);
    return r.failed;
}

int main(void)
{
    int bad = 0;
    chain_begin(&start, (const uint8_t[16]){1}, 0, 0);
    for (uint32_t i = 0; i < sizeof scenarios / sizeof *scenarios && !bad; i++)
        bad |= run(i);
    explore_reset();
    return bad;
}
