/*
 * test_participants.c - threads as participants of one segment: submitters, a writer, a reaper, somebody
 * who looks. What a stripe guards is plain memory here, so that a lock that keeps nobody out loses
 * counts, and one that orders nothing is seen by the thread sanitizer (make test-tsan).
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/reaper.h"
#include "shm/stripe.h"
#include "tests/system/harness.h"
#include "tests/unit/segment_dir.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SUBMITTERS 4
#define EACH       2000
#define KEYS       6u
#define SLOTS      16u

static char dir[64];
static struct segment_name name;
static struct segment *seg;
static _Atomic int working;

/* Under the stripe of the same number: by the submitter that holds it, and by the writer for it. */
static uint64_t entered[KEYS], guarded[KEYS];
/* Written by the writer for each payload that it copies whole. */
static uint64_t copied, sum_copied;

static int setup(void **state)
{
    (void)state;
    return segment_begin((struct segment_plan){.slots = SLOTS, .stripes = 64, .blocks = 80}, dir,
                         &name, &seg);
}

static int teardown(void **state)
{
    (void)state;
    return segment_end(dir, &name, seg);
}

struct submitter {
    uint64_t seed, entered[KEYS], adds[KEYS], sum, refused;
};

static struct participant *join(enum participant_kind kind)
{
    struct participant *p = NULL;
    struct azoth_error why;
    int rc = participant_join(seg, dir, kind, "thread", &p, &why);
    ensure(rc == 0);
    return p;
}

static void take_stripe(struct slot *s, uint32_t intent)
{
    while (!stripe_try(seg, s->index, s->ticket, intent))
        stripe_wait(seg, s->index, s->ticket, intent, SHM_WAIT_SLICE_NS);
}

/* Large ones go through blocks. */
static size_t payload(uint64_t *seed, unsigned char *out, size_t size)
{
    uint64_t n = random_next(seed);
    size_t len = n % 50 == 0 ? size : 8 + n % 200;
    memset(out, (int)(n >> 8), len);
    return len;
}

/* Not one instruction: now and then another thread runs between the look and the change. */
static void enter(struct submitter *w, uint32_t k)
{
    uint64_t n = entered[k];
    if (random_next(&w->seed) % 8 == 0)
        sched_yield();
    entered[k] = n + 1;
    w->entered[k]++;
}

static void one_transaction(struct participant *me, struct submitter *w)
{
    static _Thread_local unsigned char bytes[SHM_INLINE_BYTES + SHM_BLOCK_BYTES];
    uint32_t k = (uint32_t)(random_next(&w->seed) % (KEYS - 1));
    uint32_t intents[3] = {k | INTENT_EXCLUSIVE, (k + 1) | INTENT_EXCLUSIVE, 40};
    struct slot s;
    struct slot_outcome o;
    while (!slot_claim(me, &s))
        slot_claim_wait(me, SHM_WAIT_SLICE_NS);
    ensure(slot_intend(&s, intents, 3) == 0);
    for (int i = 0; i < 3; i++)
        take_stripe(&s, intents[i]);
    enter(w, k);
    enter(w, k + 1);
    if (random_next(&w->seed) % 16 == 0) {
        slot_cancel(&s);
        return;
    }
    size_t len = payload(&w->seed, bytes, sizeof bytes);
    struct slot_submission sub = {.payload = bytes_of(bytes, len)};
    int rc = slot_submit(&s, &sub);
    if (rc) {
        w->refused++;
        slot_cancel(&s);
        return;
    }
    slot_wake_writer(seg);
    while (!slot_done(&s))
        slot_wait(&s, SHM_WAIT_SLICE_NS);
    slot_collect(&s, &o);
    ensure(o.code == 0 && o.result.txn == len);
    w->adds[k]++;
    w->adds[k + 1]++;
    w->sum += len;
}

static void *submitter_main(void *arg)
{
    struct participant *me = join(PARTICIPANT_CLIENT);
    for (int i = 0; i < EACH; i++)
        one_transaction(me, arg);
    participant_leave(me);
    atomic_fetch_sub(&working, 1);
    return NULL;
}

/* The effect of each is the writer's, in the middle of the time for which its stripes are held. */
static void apply(const struct slot_taken *t, struct buf *image, struct wakes *wakes)
{
    uint8_t id[16];
    uint64_t content;
    struct slot_outcome o = {.code = slot_copy(seg, t, image, id, &content)};
    const struct slot_shm *sl = &seg->slot[t->index];
    ensure(o.code == 0);
    copied++;
    sum_copied += image->len;
    o.result.txn = image->len;
    for (int i = 0; i < 2; i++)
        guarded[sl->intent[i] & ~INTENT_EXCLUSIVE]++;
    slot_complete(seg, t, &o, wakes);
}

static void *writer_main(void *arg)
{
    static struct slot_taken taken[SHM_SLOTS_MAX];
    struct buf image = {0};
    struct header_shm *h = seg->header;
    (void)arg;
    while (atomic_load(&working)) {
        struct wakes wakes = {0};
        uint32_t n = slot_take(seg, 0, taken);
        for (uint32_t i = 0; i < n; i++)
            apply(&taken[i], &image, &wakes);
        wakes_send(seg, &wakes);
        if (n)
            continue;
        uint32_t seen = atomic_load(&h->writer_wake);
        atomic_store(&h->writer_sleeps, 1);
        if (!slot_queued(seg))
            shm_wait(&h->writer_wake, seen, SHM_WAIT_SLICE_NS / 10);
        atomic_store(&h->writer_sleeps, 0);
    }
    buf_fini(&image);
    return NULL;
}

/* Nobody dies: there is nothing to repair, and it must not be found. */
static void *reaper_main(void *arg)
{
    struct participant *me = join(PARTICIPANT_CLIENT);
    while (atomic_load(&working)) {
        *(uint32_t *)arg += reap_step(me);
        for (uint32_t i = 0; i < seg->stripes; i++)
            ensure(stripe_holder(seg, i) < (int)SLOTS);
        usleep(500);
    }
    participant_leave(me);
    return NULL;
}

static void threads_of_one_segment_lose_no_count_and_tear_no_payload(void **state)
{
    (void)state;
    struct submitter w[SUBMITTERS] = {0};
    pthread_t thread[SUBMITTERS], writer, reaper;
    uint32_t reaped = 0;
    uint64_t in[KEYS] = {0}, adds[KEYS] = {0}, sum = 0, seed = harness_seed();
    atomic_store(&working, SUBMITTERS);
    assert_int_equal(pthread_create(&writer, NULL, writer_main, NULL), 0);
    assert_int_equal(pthread_create(&reaper, NULL, reaper_main, &reaped), 0);
    for (int i = 0; i < SUBMITTERS; i++) {
        w[i].seed = random_next(&seed);
        assert_int_equal(pthread_create(&thread[i], NULL, submitter_main, &w[i]), 0);
    }
    for (int i = 0; i < SUBMITTERS; i++)
        pthread_join(thread[i], NULL);
    pthread_join(writer, NULL);
    pthread_join(reaper, NULL);
    for (int i = 0; i < SUBMITTERS; i++) {
        sum += w[i].sum;
        for (uint32_t k = 0; k < KEYS; k++) {
            in[k] += w[i].entered[k];
            adds[k] += w[i].adds[k];
        }
    }
    for (uint32_t k = 0; k < KEYS; k++) {
        assert_int_equal(entered[k], in[k]);
        assert_int_equal(guarded[k], adds[k]);
    }
    assert_int_equal(sum_copied, sum);
    assert_true(copied > SUBMITTERS * EACH / 2);
    assert_int_equal(reaped, 0);
    for (uint32_t i = 0; i < SLOTS; i++)
        assert_int_equal(slot_word_state(atomic_load(&seg->slot[i].word)), SLOT_FREE);
    for (uint32_t i = 0; i < seg->stripes; i++)
        assert_int_equal(stripe_holder(seg, i), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(threads_of_one_segment_lose_no_count_and_tear_no_payload,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
