/* test_segment.c - the segment's parts by themselves: stripes, slots, blocks, participants,
 * reaping, layouts, gauges. */
#include "core/clock.h"
#include "core/error.h"
#include "shm/gauges.h"
#include "shm/projection_row.h"
#include "shm/reaper.h"
#include "shm/stripe.h"
#include "tests/unit/segment_dir.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct segment_name name;
static struct segment *seg;
static struct participant *me;
static struct azoth_error err;

static int setup(void **state)
{
    (void)state;
    if (segment_begin((struct segment_plan){.slots = 32, .stripes = 256, .blocks = 80}, dir, &name,
                      &seg))
        return -1;
    return participant_join(seg, dir, PARTICIPANT_CLIENT, "me", &me, &err);
}

static int teardown(void **state)
{
    (void)state;
    participant_leave(me);
    return segment_end(dir, &name, seg);
}

static struct slot claim(struct participant *p)
{
    struct slot s;
    assert_int_equal(slot_claim(p, &s), 1);
    return s;
}

#define X(n) ((n) | INTENT_EXCLUSIVE)

static void an_exclusive_holder_keeps_everybody_out_and_readers_keep_it_out(void **state)
{
    (void)state;
    struct slot a = claim(me), b = claim(me), c = claim(me);
    assert_true(stripe_try(seg, a.index, a.ticket, X(5)));
    assert_false(stripe_try(seg, b.index, b.ticket, X(5)));
    assert_false(stripe_try(seg, b.index, b.ticket, 5));
    assert_true(stripe_try(seg, b.index, b.ticket, X(6)));
    stripe_release(seg, a.index, a.ticket, X(5));
    assert_true(stripe_try(seg, b.index, b.ticket, 5));
    assert_true(stripe_try(seg, c.index, c.ticket, 5));
    /* A taker that waits for readers keeps new ones out. */
    assert_false(stripe_try(seg, a.index, a.ticket, X(5)));
    stripe_release(seg, c.index, c.ticket, 5);
    assert_false(stripe_try(seg, c.index, c.ticket, 5));
    stripe_release(seg, b.index, b.ticket, 5);
    assert_true(stripe_try(seg, a.index, a.ticket, X(5)));
}

static void an_object_that_was_removed_is_known_to_be(void **state)
{
    (void)state;
    struct segment *other;
    struct gauges *g;
    assert_int_equal(gauges_create(&name, &g, &err), 0);
    assert_int_equal(segment_attach(&name, &other, &err), 0);
    assert_false(segment_taken(seg) || segment_taken(other) || gauges_taken(g));
    segment_unlink(&name);
    assert_true(segment_taken(seg) && segment_taken(other) && gauges_taken(g));
    segment_detach(other);
    gauges_detach(g);
}

static void a_late_release_does_not_hit_the_next_holder(void **state)
{
    (void)state;
    struct slot a = claim(me);
    uint32_t intent = X(7);
    assert_int_equal(slot_intend(&a, &intent, 1), 0);
    assert_true(stripe_try(seg, a.index, a.ticket, intent));
    uint64_t old = a.ticket;
    slot_cancel(&a);
    struct slot b;
    do {
        b = claim(me); /* until it is the same slot in its next life */
    } while (b.index != a.index);
    assert_true(b.ticket != old);
    assert_true(stripe_try(seg, b.index, b.ticket, intent));
    stripe_release(seg, a.index, old, intent);
    assert_false(stripe_try(seg, a.index + 1, 1, intent));
}

static void a_claim_finds_every_slot_once_and_none_beyond(void **state)
{
    (void)state;
    struct slot s;
    uint32_t seen = 0;
    for (int i = 0; i < 32; i++) {
        s = claim(me);
        assert_false(seen >> s.index & 1);
        seen |= 1u << s.index;
    }
    assert_int_equal(slot_claim(me, &s), 0);
    s.owner = me;
    slot_cancel(&s);
    assert_int_equal(slot_claim(me, &s), 1);
}

static void a_large_payload_comes_back_whole_and_its_blocks_are_freed(void **state)
{
    (void)state;
    struct slot a = claim(me);
    uint32_t intents[200];
    for (uint32_t i = 0; i < 200; i++)
        intents[i] = X(i);
    assert_int_equal(slot_intend(&a, intents, 200), 0); /* more than fit inline */
    size_t n = 3 * SHM_BLOCK_BYTES + 17;
    unsigned char *bytes = malloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(i * 31);
    struct slot_submission sub = {.payload = {bytes, n}, .content = 9};
    assert_int_equal(slot_submit(&a, &sub), 0);
    struct slot_taken t[SHM_SLOTS_MAX];
    assert_int_equal(slot_take(seg, 0, t), 1);
    struct buf copy = {0};
    uint8_t id[16];
    uint64_t content;
    assert_int_equal(slot_copy(seg, &t[0], &copy, id, &content), 0);
    assert_int_equal(copy.len, n);
    assert_memory_equal(copy.ptr, bytes, n);
    seg->block[(size_t)seg->slot[a.index].block[1] * SHM_BLOCK_BYTES] ^= 1;
    assert_int_equal(slot_copy(seg, &t[0], &copy, id, &content), AZOTH_ERR_CORRUPT);
    struct wakes wakes = {0};
    struct slot_outcome o = {.code = 0, .result = {.txn = 3}}, got;
    slot_complete(seg, &t[0], &o, &wakes);
    assert_true(slot_done(&a));
    slot_collect(&a, &got);
    assert_int_equal(got.result.txn, 3);
    for (uint32_t b = 0; b < seg->blocks; b++)
        assert_int_equal(atomic_load(&seg->block_owner[b]), 0);
    buf_fini(&copy);
    free(bytes);
}

static void blocks_are_taken_all_or_none(void **state)
{
    (void)state;
    size_t n = 60 * SHM_BLOCK_BYTES;
    unsigned char *bytes = calloc(1, n);
    struct slot a = claim(me), b = claim(me);
    struct slot_submission sub = {.payload = {bytes, n}};
    assert_int_equal(slot_intend(&a, NULL, 0), 0);
    assert_int_equal(slot_intend(&b, NULL, 0), 0);
    assert_int_equal(slot_submit(&a, &sub), 0);
    assert_int_equal(slot_submit(&b, &sub), AZOTH_ERR_BUSY); /* 20 of 80 are left */
    uint32_t owned = 0;
    for (uint32_t i = 0; i < seg->blocks; i++)
        owned += atomic_load(&seg->block_owner[i]) != 0;
    assert_int_equal(owned, 60);
    free(bytes);
}

static void one_submitters_slots_are_taken_in_the_order_of_submission(void **state)
{
    (void)state;
    struct slot s[20];
    for (int i = 0; i < 20; i++) {
        s[i] = claim(me);
        assert_int_equal(slot_intend(&s[i], NULL, 0), 0);
    }
    struct slot_submission sub = {.payload = {"x", 1}};
    for (int i = 19; i >= 0; i--)
        assert_int_equal(slot_submit(&s[i], &sub), 0);
    struct slot_taken t[SHM_SLOTS_MAX];
    assert_int_equal(slot_take(seg, 0, t), 20);
    for (int i = 0; i < 20; i++)
        for (int k = 0; k < 20; k++)
            if (t[k].index == s[i].index)
                assert_int_equal(t[k].seq, 19 - i);
    assert_int_equal(slot_take(seg, 0, t), 0);
    assert_int_equal(slot_take(seg, 1, t), 20); /* a restarted writer looks at every slot */
}

/* A child joins, does its part, says so, and is killed. */
static uint32_t child_dies(void (*act)(struct participant *p))
{
    int fds[2];
    uint32_t index = 0;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct participant *p;
        if (participant_join(seg, dir, PARTICIPANT_CLIENT, "child", &p, NULL) == 0) {
            act(p);
            (void)!write(fds[1], &p->index, sizeof p->index);
        }
        for (;;)
            pause();
    }
    assert_int_equal(read(fds[0], &index, sizeof index), sizeof index);
    assert_false(participant_dead(me, index)); /* alive, it is left alone */
    assert_int_equal(reap_step(me), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fds[0]);
    close(fds[1]);
    assert_true(participant_dead(me, index));
    return index;
}

static void hold_stripes(struct participant *p)
{
    struct slot s;
    uint32_t intents[] = {3, X(9), X(12)};
    slot_claim(p, &s);
    slot_intend(&s, intents, 3);
    stripe_try(p->segment, s.index, s.ticket, intents[0]);
    stripe_try(p->segment, s.index, s.ticket, intents[1]);
    slot_claim(p, &s); /* and one that is only claimed */
}

static void submit_one(struct participant *p)
{
    struct slot s;
    uint32_t intent = X(20);
    struct slot_submission sub = {.payload = {"x", 1}};
    slot_claim(p, &s);
    slot_intend(&s, &intent, 1);
    stripe_try(p->segment, s.index, s.ticket, intent);
    slot_submit(&s, &sub);
}

static void the_dead_give_back_slots_and_stripes(void **state)
{
    (void)state;
    child_dies(hold_stripes);
    struct slot s = claim(me);
    assert_false(stripe_try(seg, s.index, s.ticket, X(9)));
    assert_int_equal(reap_step(me), 1);
    assert_true(stripe_try(seg, s.index, s.ticket, X(9)));
    assert_true(stripe_try(seg, s.index, s.ticket, X(3)));
    uint32_t taken = 0;
    for (uint32_t i = 0; i < seg->slots; i++)
        taken += slot_word_state(atomic_load(&seg->slot[i].word)) != SLOT_FREE;
    assert_int_equal(taken, 1); /* ours */
    assert_int_equal(reap_step(me), 0);
}

static void what_the_dead_submitted_goes_on_and_is_freed_by_the_writer(void **state)
{
    (void)state;
    child_dies(submit_one);
    /* As if it had died before it could say so. */
    for (uint32_t w = 0; w < SHM_SLOT_WORDS; w++)
        atomic_store(&seg->header->queue_bits[w], 0);
    assert_int_equal(reap_step(me), 1);
    struct slot_taken t[SHM_SLOTS_MAX];
    assert_int_equal(slot_take(seg, 0, t), 1);
    struct wakes wakes = {0};
    struct slot_outcome o = {.code = 0};
    slot_complete(seg, &t[0], &o, &wakes);
    assert_int_equal(slot_word_state(atomic_load(&seg->slot[t[0].index].word)), SLOT_FREE);
    struct slot s = claim(me);
    assert_true(stripe_try(seg, s.index, s.ticket, X(20)));
}

static void half_done(struct participant *p)
{
    struct slot s;
    uint32_t intent = X(30);
    slot_claim(p, &s);
    slot_intend(&s, &intent, 1);
    stripe_try(p->segment, s.index, s.ticket, intent);
    /* A reaper's mark, as one leaves it that dies right behind it. */
    atomic_store(&p->segment->slot[s.index].word, slot_word(SLOT_REAPING, p->index, s.ticket));
}

static void a_dead_reapers_repair_is_done_again(void **state)
{
    (void)state;
    child_dies(half_done);
    assert_int_equal(reap_step(me), 1);
    struct slot s = claim(me);
    assert_true(stripe_try(seg, s.index, s.ticket, X(30)));
}

static void a_forked_child_does_not_hold_its_parents_place(void **state)
{
    (void)state;
    int fds[2];
    char c;
    assert_int_equal(pipe(fds), 0);
    struct participant *p;
    assert_int_equal(participant_join(seg, dir, PARTICIPANT_CLIENT, "parent", &p, &err), 0);
    uint32_t index = p->index;
    pid_t pid = fork();
    if (pid == 0) {
        c = (char)(atomic_load(&p->forked) == 1);
        (void)!write(fds[1], &c, 1);
        for (;;)
            pause();
    }
    assert_int_equal(read(fds[0], &c, 1), 1);
    assert_int_equal(c, 1);
    assert_false(participant_dead(me, index));
    close(p->lock_fd); /* what the kernel does when the parent dies */
    assert_true(participant_dead(me, index));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fds[0]);
    close(fds[1]);
    p->lock_fd = dup(0);
    participant_leave(p);
}

static void another_layout_is_refused_and_can_be_retired(void **state)
{
    (void)state;
    struct segment *other;
    seg->prefix->layout_version++;
    assert_int_equal(segment_attach(&name, &other, &err), AZOTH_ERR_LAYOUT);
    char said[20];
    snprintf(said, sizeof said, "layout %u", SHM_LAYOUT_VERSION + 1);
    assert_non_null(strstr(err.message, said));
    seg->prefix->layout_version--;
    seg->prefix->fingerprint ^= 1;
    assert_int_equal(segment_attach(&name, &other, &err), AZOTH_ERR_LAYOUT);
    assert_int_equal(segment_retire_name(&name, &err), 0);
    assert_true(segment_retired(seg));
    seg->prefix->fingerprint ^= 1;
    assert_int_equal(segment_attach(&name, &other, &err), AZOTH_ERR_NO_WRITER);
}

static void a_damaged_segment_is_refused_before_it_is_used(void **state)
{
    (void)state;
    struct segment *other;
    seg->header->slots = 1u << 30;
    assert_int_equal(segment_attach(&name, &other, &err), AZOTH_ERR_CORRUPT);
    seg->header->slots = 32;
    atomic_store(&seg->prefix->magic, 77);
    assert_int_equal(segment_attach(&name, &other, &err), AZOTH_ERR_CORRUPT);
    atomic_store(&seg->prefix->magic, 0);
    assert_int_equal(segment_attach(&name, &other, &err), AZOTH_ERR_NO_WRITER);
    atomic_store(&seg->prefix->magic, SHM_MAGIC);
}

static void one_process_holds_the_writers_place(void **state)
{
    (void)state;
    struct place *place, *second;
    assert_false(writer_place_held(dir));
    assert_int_equal(writer_place_take(dir, "tester", &place, &err), 0);
    assert_true(writer_place_held(dir));
    assert_int_equal(writer_place_take(dir, "other", &second, &err), AZOTH_ERR_WRITER_RUNNING);
    assert_non_null(strstr(err.message, "tester pid"));
    place_leave(place);
    assert_false(writer_place_held(dir));
}

static void a_forked_child_does_not_hold_the_writers_place_on(void **state)
{
    (void)state;
    struct place *place;
    int fds[2];
    char c;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(writer_place_take(dir, "tester", &place, &err), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)!write(fds[1], "x", 1);
        for (;;)
            pause();
    }
    assert_int_equal(read(fds[0], &c, 1), 1);
    place_leave(place);
    int held = writer_place_held(dir);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fds[0]);
    close(fds[1]);
    assert_false(held);
}

static void who_waits_for_blocks_sleeps_until_enough_are_free(void **state)
{
    (void)state;
    size_t n = 60 * SHM_BLOCK_BYTES;
    unsigned char *bytes = calloc(1, n);
    struct slot a = claim(me);
    struct slot_submission sub = {.payload = {bytes, n}};
    assert_int_equal(slot_intend(&a, NULL, 0), 0);
    assert_int_equal(slot_submit(&a, &sub), 0);
    free(bytes);
    /* 31 slots are free, and 20 of 80 blocks. */
    uint64_t before = clock_mono_ns();
    slot_block_wait(me, 21, 60 * NS_PER_MS);
    assert_true(clock_mono_ns() - before >= 50 * NS_PER_MS);
    before = clock_mono_ns();
    slot_block_wait(me, 20, NS_PER_S);
    assert_true(clock_mono_ns() - before < 50 * NS_PER_MS);
}

#define ADDED 100000u
static struct histogram_shm many;

static void *adds(void *arg)
{
    for (uint64_t v = 1; v <= ADDED; v++)
        histogram_add_shared(&many, v * (arg ? 2 : 1));
    return NULL;
}

static void what_several_add_to_one_histogram_at_once_is_all_there(void **state)
{
    (void)state;
    static struct histogram_shm alone;
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, adds, i ? &many : NULL), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    for (uint64_t v = 1; v <= ADDED; v++) {
        histogram_add(&alone, v);
        histogram_add(&alone, 2 * v);
    }
    assert_memory_equal(&many, &alone, sizeof many);
}

static void histograms_are_within_a_quarter_of_the_value(void **state)
{
    (void)state;
    static struct histogram_shm h;
    for (uint64_t v = 1; v < 1000000000; v = v * 3 + 1) {
        memset(&h, 0, sizeof h);
        histogram_add(&h, v);
        uint64_t at = histogram_at(&h, 0.5);
        assert_int_equal(at, v); /* no more than the greatest that was seen */
        gauge_set(&h.max, 0);
        at = histogram_at(&h, 0.5);
        assert_true(at >= v && at <= v + v / 4 + 1);
    }
    memset(&h, 0, sizeof h);
    for (uint64_t v = 1; v <= 1000; v++)
        histogram_add(&h, v);
    assert_in_range(histogram_at(&h, 0.5), 500, 640);
    assert_in_range(histogram_at(&h, 0.99), 990, 1000);
}

static void a_projections_row_is_found_again_by_name_and_shard(void **state)
{
    (void)state;
    struct gauges *g;
    assert_int_equal(gauges_create(&name, &g, &err), 0);
    int a = projection_row_claim(g, "accounts", 0, 1),
        b = projection_row_claim(g, "accounts", 1, 4);
    assert_true(a >= 0 && b >= 0 && a != b);
    assert_int_equal(projection_row_claim(g, "accounts", 0, 1), a);
    projection_row_text(g, a, "what went wrong", "ipc://there");
    struct projection_row row;
    assert_int_equal(projection_row_read(g, (uint32_t)a, &row), 1);
    assert_string_equal(row.error, "what went wrong");
    assert_int_equal(projection_row_read(g, 100, &row), 0);
    gauges_detach(g);
}

static void a_new_projection_gets_the_row_of_who_was_heard_least_lately(void **state)
{
    (void)state;
    struct gauges *g;
    struct projection_row row;
    char text[64];
    int rows[SHM_PROJECTIONS];
    assert_int_equal(gauges_create(&name, &g, &err), 0);
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++) {
        snprintf(text, sizeof text, "p%u", i);
        rows[i] = projection_row_claim(g, text, 0, 1);
        gauge_set(&g->projection[rows[i]].heard_ns, i == 77 ? 1 : 100 + i);
        gauge_set(&g->projection[rows[i]].cursor, 9);
        projection_row_text(g, rows[i], "old", NULL);
    }
    int fresh = projection_row_claim(g, "fresh", 1, 2);
    assert_int_equal(fresh, rows[77]);
    assert_int_equal(projection_row_read(g, (uint32_t)fresh, &row), 1);
    assert_string_equal(row.name, "fresh");
    assert_string_equal(row.error, "");
    assert_int_equal(row.cursor, 0);
    assert_int_equal(row.shards, 2);
    assert_int_equal(projection_row_claim(g, "p76", 0, 1), rows[76]);
    gauges_detach(g);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(an_exclusive_holder_keeps_everybody_out_and_readers_keep_it_out),
        T(an_object_that_was_removed_is_known_to_be),
        T(a_late_release_does_not_hit_the_next_holder),
        T(a_claim_finds_every_slot_once_and_none_beyond),
        T(a_large_payload_comes_back_whole_and_its_blocks_are_freed),
        T(blocks_are_taken_all_or_none),
        T(one_submitters_slots_are_taken_in_the_order_of_submission),
        T(the_dead_give_back_slots_and_stripes),
        T(what_the_dead_submitted_goes_on_and_is_freed_by_the_writer),
        T(a_dead_reapers_repair_is_done_again),
        T(a_forked_child_does_not_hold_its_parents_place),
        T(another_layout_is_refused_and_can_be_retired),
        T(a_damaged_segment_is_refused_before_it_is_used),
        T(one_process_holds_the_writers_place),
        T(a_forked_child_does_not_hold_the_writers_place_on),
        T(who_waits_for_blocks_sleeps_until_enough_are_free),
        T(histograms_are_within_a_quarter_of_the_value),
        T(a_new_projection_gets_the_row_of_who_was_heard_least_lately),
        T(what_several_add_to_one_histogram_at_once_is_all_there),
        T(a_projections_row_is_found_again_by_name_and_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
