/*
 * test_reaper.c - a reaper that is slow: what it chose was repaired by another meanwhile, and a new
 * process lives on the row.
 *
 * With arguments it is that reaper: --reap DIR joins the segment and reaps once.
 */
#include "core/error.h"
#include "shm/reaper.h"
#include "shm/slot.h"
#include "shm/stripe.h"
#include "tests/unit/segment_dir.h"

#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define KEY (5 | INTENT_EXCLUSIVE)

static char dir[64];
static struct segment_name name;
static struct segment *seg;
static struct participant *me;
static struct azoth_error err;
static pid_t children[4];

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
    for (size_t i = 0; i < sizeof children / sizeof *children; i++)
        if (children[i] > 0) {
            kill(children[i], SIGKILL);
            waitpid(children[i], NULL, 0);
        }
    participant_leave(me);
    return segment_end(dir, &name, seg);
}

static int reap_main(const char *directory)
{
    struct participant *p;
    int rc = segment_name_of(directory, &name, &err);
    if (!rc)
        rc = segment_attach(&name, &seg, &err);
    if (!rc)
        rc = participant_join(seg, directory, PARTICIPANT_CLIENT, "reaper", &p, &err);
    if (rc) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    reap_step(p);
    participant_leave(p);
    segment_detach(seg);
    return 0;
}

/* A process that joins and claims `slots`; with the last of them it holds KEY. */
static pid_t holder(int slots, uint32_t *ret_row)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct participant *p;
        struct slot s = {0};
        uint32_t intent = KEY;
        int ok = participant_join(seg, dir, PARTICIPANT_CLIENT, "holder", &p, NULL) == 0;
        for (int i = 0; i < slots && ok; i++)
            ok = slot_claim(p, &s);
        if (ok && slot_intend(&s, &intent, 1) == 0 && stripe_try(seg, s.index, s.ticket, intent))
            (void)!write(fds[1], &p->index, sizeof p->index);
        close(fds[1]);
        for (;;)
            pause();
    }
    close(fds[1]);
    ssize_t n = read(fds[0], ret_row, sizeof *ret_row);
    close(fds[0]);
    assert_int_equal(n, sizeof *ret_row);
    return pid;
}

static pid_t stopped_reaper(void)
{
    char self[256];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    char *argv[] = {self, "--reap", dir, NULL};
    pid_t pid = 0;
    int status = 0;
    setenv("AZOTH_CRASH", "reaper_chosen", 1);
    setenv("AZOTH_CRASH_ACTION", "stop", 1);
    int rc = posix_spawn(&pid, self, NULL, NULL, argv, environ);
    unsetenv("AZOTH_CRASH");
    unsetenv("AZOTH_CRASH_ACTION");
    assert_int_equal(rc, 0);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    return pid;
}

static void a_slow_reaper_leaves_a_new_process_on_the_row_alone(void **state)
{
    (void)state;
    uint32_t row, again;
    children[0] = holder(1, &row);
    kill(children[0], SIGKILL);
    waitpid(children[0], NULL, 0);
    children[0] = 0;
    children[1] = stopped_reaper();
    assert_int_equal(reap_step(me), 1);
    children[2] = holder(3, &again);
    assert_int_equal(again, row);
    kill(children[1], SIGCONT);
    int status = -1;
    waitpid(children[1], &status, 0);
    children[1] = 0;
    assert_int_equal(status, 0);
    /* It lives and holds the key: nobody else gets it. */
    struct slot mine;
    assert_true(slot_claim(me, &mine));
    uint32_t intent = KEY, held = 0;
    assert_int_equal(slot_intend(&mine, &intent, 1), 0);
    assert_false(stripe_try(seg, mine.index, mine.ticket, KEY));
    for (uint32_t i = 0; i < seg->slots; i++) {
        uint64_t word = atomic_load(&seg->slot[i].word);
        held += slot_word_state(word) != SLOT_FREE && slot_word_owner(word) == row;
    }
    assert_int_equal(held, 3);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--reap") == 0)
        return reap_main(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_slow_reaper_leaves_a_new_process_on_the_row_alone, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
