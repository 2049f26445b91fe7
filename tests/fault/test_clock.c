/*
 * test_clock.c - the wall clock jumps by hours in both directions, while everything runs.
 *
 * Time in the log is the wall clock's, and never goes back; everything else counts running time:
 * deadlines, pauses, the memory of request ids, lapses, the watchdog, the helpers' rounds, and the ages
 * that `azoth lag` tells. The program starts itself again with jump.c preloaded, and so do the processes
 * that it starts: one clock for all. --read DIR opens a snapshot and stops itself.
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/gauges.h"
#include "tests/system/harness.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HOUR ((int64_t)3600 * (int64_t)NS_PER_S)

static struct harness h;
static struct azoth_error err;
static _Atomic int64_t *ahead; /* of the machine's clock */

static void jump(int64_t by_ns)
{
    *ahead += by_ns;
}

static void put_file(const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", h.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void begin(const char *conf)
{
    *ahead = 0;
    harness_begin(&h);
    put_file("azoth.conf", conf);
    put_file("projections/counts.sql", "-- azoth: projection counts\n"
                                       "-- azoth: migration 1 create\n"
                                       "CREATE TABLE seen (id INTEGER PRIMARY KEY);\n"
                                       "-- azoth: on added\n"
                                       "INSERT INTO seen VALUES (@id);\n");
}

static struct process *start(const char *name, const char *program, const char *more)
{
    return harness_start(&h, name, 0, program, "--dir", h.dir, more, NULL);
}

static struct azoth_txn *addition(struct azoth *db, const char *key, uint32_t deadline_ms)
{
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_txn_set_deadline(t, deadline_ms);
    azoth_add_i64(t, azoth_str(key), 1);
    azoth_event_bytes(t, "added", azoth_str(key));
    return t;
}

static int add(struct azoth *db, const char *key)
{
    struct azoth_txn *t = addition(db, key, 10000);
    int rc = azoth_commit(t, NULL, &err);
    azoth_txn_free(t);
    return rc;
}

/* The program's standard output; its exit code is `want`. */
static void azoth_says(int want, char *out, size_t size, const char *what, const char *more,
                       const char *most)
{
    char program[256];
    harness_program(&h, "azoth", program);
    char *const argv[] = {program,
                          (char *)(uintptr_t)what,
                          "--dir",
                          h.dir,
                          "--json",
                          (char *)(uintptr_t)more,
                          (char *)(uintptr_t)most,
                          NULL};
    assert_int_equal(harness_run(out, size, argv), want);
}

/* "name":NUMBER in the text; fails when it is not there, or null. */
static double number_in(const char *text, const char *name)
{
    char want[64], *end;
    snprintf(want, sizeof want, "\"%s\":", name);
    const char *at = strstr(text, want);
    assert_non_null(at);
    double n = strtod(at + strlen(want), &end);
    assert_true(end != at + strlen(want));
    return n;
}

static int says_held(void)
{
    char out[16000];
    azoth_says(0, out, sizeof out, "status", NULL, NULL);
    return strstr(out, "\"clock_held\":true") != NULL;
}

/* ---- the log ---- */

static void event_times_stand_still_while_the_clock_is_behind_and_never_go_back(void **state)
{
    (void)state;
    begin("");
    struct process *w = start("writer", "azoth-writer", NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    assert_int_equal(add(db, "k"), 0);
    int64_t before = clock_wall_ns();
    jump(3 * HOUR);
    assert_int_equal(add(db, "k"), 0);
    jump(-9 * HOUR);
    assert_int_equal(add(db, "k"), 0);
    assert_true(says_held());
    /* A new writer knows the newest time from the store. */
    harness_kill(w, SIGKILL);
    harness_wait(&h, w, 5000);
    harness_spawn(&h, w);
    assert_int_equal(add(db, "k"), 0);
    assert_true(says_held());
    jump(12 * HOUR);
    assert_int_equal(add(db, "k"), 0);
    assert_false(says_held());
    struct azoth_events *it;
    struct azoth_event ev;
    int64_t time[8] = {0};
    int n = 0;
    assert_int_equal(azoth_events(db, 1, 0, NULL, &it, &err), 0);
    while (n < 7 && azoth_events_next(it, &ev, &err) == 1)
        time[++n] = ev.time_ns;
    azoth_events_free(it);
    assert_int_equal(n, 5);
    assert_true(time[1] <= before);
    assert_true(time[2] >= before + 3 * HOUR && time[2] < before + 4 * HOUR);
    assert_true(time[3] == time[2] && time[4] == time[2]);
    assert_true(time[5] >= before + 6 * HOUR && time[5] < before + 7 * HOUR);
    azoth_close(db);
    harness_end(&h);
}

/* ---- running time ---- */

static struct told {
    int code;
    uint64_t at_ns;
} told[3];

static void note(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                 const struct azoth_error *why, void *arg)
{
    (void)info;
    (void)why;
    *(struct told *)arg = (struct told){code, clock_mono_ns()};
    azoth_txn_free(t);
}

static void submit(struct azoth *db, const char *key, int i)
{
    told[i].code = 1;
    assert_int_equal(azoth_submit(addition(db, key, 1500), note, &told[i], &err), 0);
}

static void deadlines_hold_whatever_the_clock_says(void **state)
{
    (void)state;
    begin("");
    char listen[300];
    struct process *w = start("writer", "azoth-writer", NULL);
    struct azoth *db[3] = {harness_attach(&h, 10000), harness_attach(&h, 10000), NULL};
    snprintf(listen, sizeof listen, "ipc://%s/w.sock", h.dir);
    harness_start(&h, "worker", 0, "azoth-worker", "--dir", h.dir, "--name", "w", "--worker-listen",
                  listen, NULL);
    assert_true(harness_answers(listen));
    assert_int_equal(azoth_connect(listen, NULL, &db[2], &err), 0);
    for (int back = 0; back < 2; back++) {
        static const char *const keys[][3] = {{"a", "a", "b"}, {"c", "c", "d"}};
        harness_kill(w, SIGSTOP);
        uint64_t from = clock_mono_ns();
        for (int i = 0; i < 3; i++)
            submit(db[i], keys[back][i], i);
        jump(back ? -11 * HOUR : 5 * HOUR);
        for (int i = 0; told[0].code == 1 || told[1].code == 1 || told[2].code == 1; i++)
            azoth_poll(db[i % 3], 10);
        for (int i = 0; i < 3; i++)
            assert_in_range((told[i].at_ns - from) / NS_PER_MS, 1450, 4000);
        assert_int_equal(told[0].code, AZOTH_ERR_OUTCOME_UNKNOWN);
        assert_int_equal(told[1].code, AZOTH_ERR_LOCK_TIMEOUT);
        assert_int_equal(told[2].code, AZOTH_ERR_OUTCOME_UNKNOWN);
        harness_kill(w, SIGCONT);
        assert_int_equal(add(db[0], "between"), 0);
    }
    for (int i = 0; i < 3; i++)
        azoth_close(db[i]);
    harness_end(&h);
}

static void a_pause_lasts_as_long_as_it_was_asked_for(void **state)
{
    (void)state;
    begin("");
    start("writer", "azoth-writer", NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    for (int back = 0; back < 2; back++) {
        uint64_t from = clock_mono_ns();
        assert_int_equal(azoth_pause(db, 1500, &err), 0);
        jump(back ? -11 * HOUR : 5 * HOUR);
        int rc = AZOTH_ERR_PAUSED;
        while (rc == AZOTH_ERR_PAUSED && clock_mono_ns() - from < 8 * NS_PER_S) {
            rc = add(db, "k");
            nap_ms(10);
        }
        assert_int_equal(rc, 0);
        assert_in_range((clock_mono_ns() - from) / NS_PER_MS, 1450, 6000);
    }
    azoth_close(db);
    harness_end(&h);
}

static void ids_are_kept_and_forgotten_by_running_time(void **state)
{
    (void)state;
    static const char *const conf[] = {"[writer]\nid_time = 1h\n", "[writer]\nid_time = 1s\n"};
    for (int forgets = 0; forgets < 2; forgets++) {
        begin(conf[forgets]);
        start("writer", "azoth-writer", NULL);
        struct azoth *db = harness_attach(&h, 10000);
        assert_non_null(db);
        uint8_t id[AZOTH_ID_BYTES];
        struct azoth_txn *t = addition(db, "k", 10000);
        azoth_txn_id(t, id);
        assert_int_equal(azoth_commit(t, NULL, &err), 0);
        azoth_txn_free(t);
        jump(forgets ? -100 * HOUR : 100 * HOUR);
        int rc = 0;
        uint64_t until = clock_mono_ns() + 15 * NS_PER_S;
        for (int i = 0; rc == 0 && (forgets ? clock_mono_ns() < until : i < 20); i++) {
            assert_int_equal(add(db, "other"), 0); /* a commit is what forgets */
            rc = azoth_outcome(db, id, NULL, &err);
        }
        assert_int_equal(rc, forgets ? AZOTH_ERR_NOT_FOUND : 0);
        azoth_close(db);
        harness_end(&h);
    }
}

/* ---- the helpers, which clear what dead readers leave ---- */

static uint64_t readers_cleared(void)
{
    struct segment_name name;
    struct gauges *g;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(gauges_attach(&name, 0, &g, &err), 0);
    uint64_t n = gauge_get(&g->g->readers_cleared);
    gauges_detach(g);
    return n;
}

static int read_main(const char *dir)
{
    struct azoth_options o = {.flags = AZOTH_READ_ONLY};
    struct azoth *db;
    struct azoth_snapshot *s;
    if (azoth_open(dir, &o, &db, &err) || azoth_snapshot(db, &s, &err))
        return 1;
    raise(SIGSTOP);
    return 1;
}

static void dead_readers_are_cleared_soon_after_the_clock_went_back(void **state)
{
    (void)state;
    for (int embedded = 0; embedded < 2; embedded++) {
        struct azoth_options o = {.flags = AZOTH_EMBEDDED};
        struct azoth *db = NULL;
        char self[256];
        ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
        self[len < 0 ? 0 : len] = 0;
        begin("");
        if (embedded) {
            assert_int_equal(azoth_open(h.dir, &o, &db, &err), 0);
        } else {
            start("writer", "azoth-writer", NULL);
            db = harness_attach(&h, 10000);
        }
        assert_non_null(db);
        assert_int_equal(add(db, "k"), 0);
        struct process *r = harness_start(&h, "reader", 0, self, "--read", h.dir, NULL);
        int status;
        assert_int_equal(waitpid(r->pid, &status, WUNTRACED), r->pid);
        assert_true(WIFSTOPPED(status));
        jump(-5 * HOUR);
        harness_kill(r, SIGKILL);
        harness_wait(&h, r, 5000);
        /* Every five seconds somebody looks. */
        uint64_t until = clock_mono_ns() + 20 * NS_PER_S;
        while (readers_cleared() == 0 && clock_mono_ns() < until)
            nap_ms(20);
        assert_int_equal(readers_cleared(), 1);
        azoth_close(db);
        harness_end(&h);
    }
}

/* ---- what lag tells ---- */

static void lag_tells_ages_that_have_passed_and_takes_nobody_for_silent(void **state)
{
    (void)state;
    char out[4000];
    begin("[feed]\nlapse = 5s\n");
    start("writer", "azoth-writer", NULL);
    start("feed", "azoth-feed", NULL);
    struct process *p = start("projector", "azoth-projector", "counts");
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    assert_int_equal(add(db, "k"), 0);
    assert_int_equal(azoth_wait_projected(db, "counts", 1, 20000, &err), 0);
    for (int back = 0; back < 2; back++) {
        jump(back ? -11 * HOUR : 5 * HOUR);
        azoth_says(0, out, sizeof out, "lag", "--max-seconds", "30");
        assert_null(strstr(out, "\"silent\""));
        assert_in_range(number_in(out, "since_heard_s"), 0, 20);
        assert_in_range(number_in(out, "since_progress_s"), 0, 60);
        assert_true(number_in(out, "seconds_behind") == 0);
    }
    /* Behind, while the clock is hours behind the log and again when it is hours ahead. */
    harness_kill(p, SIGSTOP);
    assert_int_equal(add(db, "k"), 0);
    uint64_t from = clock_mono_ns(), until = from + 20 * NS_PER_S;
    do {
        nap_ms(50);
        azoth_says(0, out, sizeof out, "lag", NULL, NULL);
    } while (!strstr(out, "\"silent\"") && clock_mono_ns() < until);
    double passed = (double)(clock_mono_ns() - from) / 1e9;
    assert_non_null(strstr(out, "\"silent\""));
    for (int ahead_too = 0; ahead_too < 2; ahead_too++) {
        assert_true(number_in(out, "since_heard_s") >= 4.9);
        assert_true(number_in(out, "since_heard_s") < passed + 20);
        assert_int_equal(number_in(out, "events_behind"), 1);
        assert_true(number_in(out, "seconds_behind") >= 3);
        assert_true(number_in(out, "seconds_behind") < passed + 20);
        jump(30 * HOUR);
        azoth_says(1, out, sizeof out, "lag", "--max-seconds", "3");
    }
    harness_kill(p, SIGCONT);
    assert_int_equal(azoth_wait_projected(db, "counts", 2, 20000, &err), 0);
    azoth_close(db);
    harness_end(&h);
}

/* ---- the watchdog ---- */

#define WATCHDOG_S 3

static int supervise(struct sockaddr_un *at)
{
    int one = 1, fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(at->sun_path, sizeof at->sun_path, "%.90s/notify", h.dir);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)at, sizeof *at), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one), 0);
    return fd;
}

/* The process that a heartbeat came from; 0: none within the time, or another message. */
static pid_t heartbeat(int fd, int wait_ms)
{
    char text[512] = "", control[CMSG_SPACE(sizeof(struct ucred))];
    struct iovec v = {text, sizeof text - 1};
    struct msghdr m = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct ucred who = {0};
    if (poll(&p, 1, wait_ms) != 1 || recvmsg(fd, &m, 0) <= 0)
        return 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_type == SCM_CREDENTIALS)
            memcpy(&who, CMSG_DATA(c), sizeof who);
    return strstr(text, "WATCHDOG=1") ? who.pid : 0;
}

static void the_watchdog_hears_from_everybody_in_time(void **state)
{
    (void)state;
    struct sockaddr_un at;
    char usec[24];
    begin("");
    int fd = supervise(&at);
    snprintf(usec, sizeof usec, "%d", WATCHDOG_S * 1000000);
    setenv("NOTIFY_SOCKET", at.sun_path, 1);
    setenv("WATCHDOG_USEC", usec, 1);
    unsetenv("WATCHDOG_PID");
    struct process *p[4] = {start("writer", "azoth-writer", NULL), NULL, NULL, NULL};
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    p[1] = start("feed", "azoth-feed", NULL);
    p[2] = start("projector", "azoth-projector", "counts");
    p[3] = harness_start(&h, "worker", 0, "azoth-worker", "--dir", h.dir, "--name", "w", NULL);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    uint64_t last[4] = {0};
    for (int beats[3][4] = {{0}}, round = 0; round < 3; round++) {
        /* Round 0 waits for each one's first. */
        uint64_t until = clock_mono_ns() + 30 * NS_PER_S;
        while ((!beats[round][0] || !beats[round][1] || !beats[round][2] || !beats[round][3]) &&
               clock_mono_ns() < until) {
            pid_t pid = heartbeat(fd, 1000);
            for (int i = 0; i < 4; i++)
                if (pid == p[i]->pid) {
                    uint64_t now = clock_mono_ns();
                    assert_true(!last[i] || now - last[i] < WATCHDOG_S * NS_PER_S);
                    last[i] = now;
                    beats[round][i]++;
                }
        }
        for (int i = 0; i < 4; i++)
            assert_true(beats[round][i] > 0);
        jump(round ? -11 * HOUR : 5 * HOUR);
    }
    close(fd);
    azoth_close(db);
    harness_end(&h);
}

/* ---- starting again with the clock that jumps ---- */

static char clock_file[64];

static void remove_clock(void)
{
    unlink(clock_file);
}

static int again(char **argv)
{
    char lib[600], cwd[200], file[] = "/tmp/azoth-clock-XXXXXX";
    const char *build = getenv("AZOTH_BUILD") ? getenv("AZOTH_BUILD") : "build";
    int fd = mkstemp(file);
    if (fd < 0 || ftruncate(fd, sizeof *ahead) || !getcwd(cwd, sizeof cwd))
        return perror(file), 1;
    close(fd);
    snprintf(lib, sizeof lib, "%s%s%s/tests/fault/jump.so", build[0] == '/' ? "" : cwd,
             build[0] == '/' ? "" : "/", build);
    setenv("AZOTH_CLOCK_FILE", file, 1);
    setenv("LD_PRELOAD", lib, 1);
    /* The preloaded one comes before a sanitizer's runtime, which would refuse that. */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    execv("/proc/self/exe", argv);
    perror("/proc/self/exe");
    unlink(file);
    return 1;
}

static void map_clock(void)
{
    snprintf(clock_file, sizeof clock_file, "%s", getenv("AZOTH_CLOCK_FILE"));
    int fd = open(clock_file, O_RDWR | O_CLOEXEC);
    void *p = mmap(NULL, sizeof *ahead, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) {
        perror(clock_file);
        exit(1);
    }
    ahead = p;
}

/* The preload is there and moves the clock, or nothing here would be tested. */
static void the_clock_jumps_and_running_time_does_not(void **state)
{
    (void)state;
    *ahead = 0;
    int64_t wall = clock_wall_ns();
    uint64_t mono = clock_mono_ns();
    jump(7 * HOUR);
    assert_in_range((clock_wall_ns() - wall) / HOUR, 7, 7);
    assert_true(clock_mono_ns() - mono < 60 * NS_PER_S);
    jump(-14 * HOUR);
    assert_true(clock_wall_ns() < wall);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--read") == 0)
        return read_main(argv[2]);
    if (!getenv("AZOTH_CLOCK_FILE"))
        return again(argv);
    map_clock();
    atexit(remove_clock);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clock_jumps_and_running_time_does_not),
        cmocka_unit_test(event_times_stand_still_while_the_clock_is_behind_and_never_go_back),
        cmocka_unit_test(deadlines_hold_whatever_the_clock_says),
        cmocka_unit_test(a_pause_lasts_as_long_as_it_was_asked_for),
        cmocka_unit_test(ids_are_kept_and_forgotten_by_running_time),
        cmocka_unit_test(dead_readers_are_cleared_soon_after_the_clock_went_back),
        cmocka_unit_test(lag_tells_ages_that_have_passed_and_takes_nobody_for_silent),
        cmocka_unit_test(the_watchdog_hears_from_everybody_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
