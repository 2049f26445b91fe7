/* The writer's heartbeat comes from the loop that commits: while that hangs there is none, whatever its other thread
 * does. A process of ours holds the store's write lock, and the test is the supervisor. */
#include "core/clock.h"
#include "tests/system/harness.h"

#include <lmdb.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define SILENT_MS 2000 /* a beat is due each 100 ms, half of what the writer is told */
#define WITHIN_MS 20000

static struct harness h;
static struct sockaddr_un at = {.sun_family = AF_UNIX};
static int supervisor;

/* Takes the write lock, says so with a file, and holds it until it is killed. */
static int hold(const char *dir)
{
    MDB_env *env;
    MDB_txn *txn;
    char path[300];
    if (mdb_env_create(&env) || mdb_env_set_maxreaders(env, 1000) ||
        mdb_env_open(env, dir, MDB_NOTLS, 0660) || mdb_txn_begin(env, NULL, 0, &txn))
        return 1;
    snprintf(path, sizeof path, "%s/held", dir);
    fclose(fopen(path, "w"));
    for (;;)
        pause();
}

static void supervise(void)
{
    snprintf(at.sun_path, sizeof at.sun_path, "%.80s/notify", h.dir);
    supervisor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(supervisor >= 0);
    assert_int_equal(bind(supervisor, (struct sockaddr *)&at, sizeof at), 0);
    setenv("NOTIFY_SOCKET", at.sun_path, 1);
    setenv("WATCHDOG_USEC", "200000", 1);
}

/* 1 when a heartbeat comes within ms. */
static int beats(uint64_t ms)
{
    uint64_t until = clock_mono_ns() + ms * NS_PER_MS, now;
    while ((now = clock_mono_ns()) < until) {
        struct pollfd p = {.fd = supervisor, .events = POLLIN};
        char text[1024];
        if (poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) != 1)
            continue;
        ssize_t n = recv(supervisor, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        if (strstr(text, "WATCHDOG=1"))
            return 1;
    }
    return 0;
}

static void a_writer_that_hangs_in_a_commit_misses_its_watchdog(void **state)
{
    (void)state;
    char self[256], held[300];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = 0;
    harness_begin(&h);
    supervise();
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    for (int i = 0; i < 3; i++)
        assert_true(beats(WITHIN_MS));
    struct process *holder = harness_start(&h, "holder", 0, self, "hold", h.dir, NULL);
    snprintf(held, sizeof held, "%s/held", h.dir);
    for (int i = 0; access(held, F_OK) != 0; i++) {
        assert_true(i < WITHIN_MS / 10);
        nap_ms(10);
    }
    struct process *tx = harness_start(&h, "tx", 0, "azoth", "tx", "--dir", h.dir, "--deadline",
                                       "60s", "{\"set\":{\"a\":1}}", NULL);
    uint64_t until = clock_mono_ns() + WITHIN_MS * NS_PER_MS;
    int silent = 0;
    while (!silent && clock_mono_ns() < until)
        silent = !beats(SILENT_MS);
    assert_true(silent);
    /* It was only held up: nothing else is wrong with it. */
    harness_kill(holder, SIGKILL);
    assert_true(beats(WITHIN_MS));
    assert_int_equal(harness_wait(&h, tx, WITHIN_MS), 0);
    close(supervisor);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    harness_end(&h);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "hold") == 0)
        return hold(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_writer_that_hangs_in_a_commit_misses_its_watchdog),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
