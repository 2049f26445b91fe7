/* test_supervised.c - what systemd's and azoth run's own words about a projector come to. */
#include "client/cmd/supervised.h"
#include "client/cmd/systemctl.h"
#include "core/clock.h"
#include "core/error.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct supervised parsed(const char *sub, const char *restart, const char *code,
                                const char *status)
{
    char text[600];
    struct supervised s = {.exit_code = -1};
    snprintf(text, sizeof text,
             "Result=exit-code\nNRestarts=7\nRestartUSec=%s\nExecMainCode=%s\nExecMainStatus=%s\n"
             "Id=azoth-projector@main:p.service\nLoadState=loaded\nActiveState=%s\nSubState=%s\n"
             "InactiveEnterTimestampMonotonic=5000000",
             restart, code, status, strcmp(sub, "auto-restart") == 0 ? "activating" : sub, sub);
    supervised_parse(text, &s);
    return s;
}

static void a_unit_that_waits_is_started_again_its_pause_after_it_ended(void **state)
{
    (void)state;
    static const struct {
        const char *span;
        uint64_t ms;
    } t[] = {{"200ms", 200},       {"0", 0},       {"1s", 1000},   {"1min 30.500s", 90500},
             {"1h 2min", 3720000}, {"5ms 1us", 5}, {"infinity", 0}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct supervised s = parsed("auto-restart", t[i].span, "1", "1");
        assert_int_equal(s.state, SUPERVISED_WAITS);
        assert_int_equal(s.next_start_ns / NS_PER_MS, 5000 + t[i].ms);
        assert_int_equal(s.starts, 7);
        assert_string_equal(s.result, "exit-code");
    }
}

static void each_state_of_a_unit_says_whether_it_is_started_again(void **state)
{
    (void)state;
    struct supervised s = parsed("failed", "200ms", "1", "100");
    assert_int_equal(s.state, SUPERVISED_FAILED);
    assert_int_equal(s.exit_code, 100);
    assert_int_equal(s.next_start_ns, 0);
    s = parsed("failed", "200ms", "2", "9"); /* by a signal: that is no exit code */
    assert_int_equal(s.exit_code, -1);
    assert_int_equal(parsed("inactive", "200ms", "1", "0").state, SUPERVISED_STOPPED);
    assert_int_equal(parsed("active", "200ms", "0", "0").state, SUPERVISED_RUNS);
    char none[] = "LoadState=not-found\nActiveState=inactive\nSubState=dead\n", empty[] = "";
    supervised_parse(none, &s);
    assert_int_equal(s.state, SUPERVISED_UNKNOWN);
    supervised_parse(empty, &s);
    assert_int_equal(s.state, SUPERVISED_UNKNOWN);
}

/* RUN/supervisor.json, with the lock held by another process or by none. */
static void azoth_run_is_believed_while_it_lives(void **state)
{
    (void)state;
    static struct config c;
    char dir[] = "/tmp/azoth-sup-XXXXXX", path[100], command[60];
    struct supervised p, q;
    struct supervised_ask ask[] = {{"p:0-2", &p}, {"q", &q}};
    config_defaults(&c);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/run", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/run/supervisor.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"p:0-2\":{\"unit\":\"projector-p:0-2\",\"state\":\"waiting\",\"next_start_ns\":77,"
          "\"starts\":3,\"exit_code\":1}}",
          f);
    fclose(f);
    supervised_ask(dir, &c, ask, 2);
    assert_int_equal(p.state, SUPERVISED_UNKNOWN); /* nobody has the lock */
    snprintf(path, sizeof path, "%s/run/supervisor.lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    supervised_ask(dir, &c, ask, 2);
    assert_int_equal(p.state, SUPERVISED_WAITS);
    assert_string_equal(p.by, "azoth run");
    assert_string_equal(p.unit, "projector-p:0-2");
    assert_true(p.next_start_ns == 77 && p.starts == 3 && p.exit_code == 1);
    assert_int_equal(q.state, SUPERVISED_UNKNOWN);
    close(fd);
    supervised_ask(dir, &c, ask, 2);
    assert_int_equal(p.state, SUPERVISED_UNKNOWN);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void one_that_does_not_answer_is_not_waited_for(void **state)
{
    (void)state;
    struct buf out = {0};
    struct azoth_error err;
    int status = 77;
    char *slow[] = {"sh", "-c", "echo begun; exec sleep 100", NULL};
    uint64_t begun = clock_mono_ns();
    assert_int_equal(systemctl_run(slow, &out, 50, &status, &err), AZOTH_ERR_TIMEOUT);
    assert_true(clock_mono_ns() - begun < 20 * NS_PER_S);
    assert_int_equal(status, 77);
    buf_clear(&out);
    char *good[] = {"sh", "-c", "echo hidden >&2; echo a; exit 3", NULL};
    assert_int_equal(systemctl_run(good, &out, 20000, &status, &err), 0);
    assert_int_equal(status, 3);
    assert_true(out.len == 2 && memcmp(out.ptr, "a\n", 2) == 0);
    char *none[] = {"/no/such/program", "x", NULL};
    assert_int_equal(systemctl_run(none, &out, 1000, &status, &err), AZOTH_ERR_UNSUPPORTED);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unit_that_waits_is_started_again_its_pause_after_it_ended),
        cmocka_unit_test(each_state_of_a_unit_says_whether_it_is_started_again),
        cmocka_unit_test(azoth_run_is_believed_while_it_lives),
        cmocka_unit_test(one_that_does_not_answer_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
