/* A supervised process: what the supervisor hears, and which signals arrive how. */
#include "core/service.h"

#include "core/clock.h"
#include "core/log.h"

#include <poll.h>
#include <pthread.h>
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

static char dir[64];
static struct sockaddr_un at = {.sun_family = AF_UNIX};
static int supervisor = -1;
static struct service s;
static struct azoth_error err;

static int supervise(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/azoth-service-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(at.sun_path, sizeof at.sun_path, "%s/notify", dir);
    supervisor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (supervisor < 0 || bind(supervisor, (struct sockaddr *)&at, sizeof at))
        return -1;
    return setenv("NOTIFY_SOCKET", at.sun_path, 1);
}

static int leave(void **state)
{
    (void)state;
    service_fini(&s);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    close(supervisor);
    unlink(at.sun_path);
    return rmdir(dir);
}

/* The next message; "" when there is none. sd_notify() has delivered it when it returns. */
static const char *heard(void)
{
    static char text[1024];
    ssize_t n = recv(supervisor, text, sizeof text - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static void watched(const char *usec, pid_t pid)
{
    char text[24];
    snprintf(text, sizeof text, "%d", (int)pid);
    setenv("WATCHDOG_USEC", usec, 1);
    setenv("WATCHDOG_PID", text, 1);
}

static void the_supervisor_hears_ready_status_and_stopping(void **state)
{
    (void)state;
    assert_int_equal(service_init(&s, &err), 0);
    assert_string_equal(heard(), "");
    service_ready(&s, "event %d", 5);
    assert_string_equal(heard(), "READY=1\nSTATUS=event 5");
    service_status(&s, "event %d of %d", 6, 9);
    assert_string_equal(heard(), "STATUS=event 6 of 9");
    service_stopping(&s);
    assert_string_equal(heard(), "STOPPING=1");
    assert_string_equal(heard(), "");
}

static void the_supervisor_hears_when_settings_are_read_again(void **state)
{
    (void)state;
    assert_int_equal(service_init(&s, &err), 0);
    raise(SIGHUP);
    assert_int_equal(service_poll(&s), 0);
    assert_int_equal(s.reload, 1);
    unsigned long long usec = 0, now = clock_mono_ns() / NS_PER_US;
    service_reloading(&s);
    assert_int_equal(sscanf(heard(), "RELOADING=1\nMONOTONIC_USEC=%llu", &usec), 1);
    assert_in_range(usec, now, now + 10000000);
    service_reloaded(&s);
    assert_string_equal(heard(), "READY=1");
    assert_int_equal(s.reload, 0);
}

static void the_watchdog_is_fed_at_half_its_interval_and_not_before(void **state)
{
    (void)state;
    watched("10000000", getpid());
    assert_int_equal(service_init(&s, &err), 0);
    assert_int_equal(s.watchdog_ns, 10 * NS_PER_S);
    uint64_t now = 1000 * NS_PER_S;
    service_heartbeat(&s, now);
    assert_string_equal(heard(), "WATCHDOG=1");
    service_heartbeat(&s, now + 5 * NS_PER_S - 1);
    assert_string_equal(heard(), "");
    service_heartbeat(&s, now + 5 * NS_PER_S);
    assert_string_equal(heard(), "WATCHDOG=1");
    service_heartbeat(&s, now + 5 * NS_PER_S + 1);
    assert_string_equal(heard(), "");
}

static void without_a_watchdog_there_is_no_heartbeat(void **state)
{
    (void)state;
    assert_int_equal(service_init(&s, &err), 0);
    assert_int_equal(s.watchdog_ns, 0);
    service_heartbeat(&s, 1000 * NS_PER_S);
    assert_string_equal(heard(), "");
    service_fini(&s);
    /* The parent's watchdog, inherited through the environment, is not ours. */
    watched("10000000", getppid());
    assert_int_equal(service_init(&s, &err), 0);
    assert_int_equal(s.watchdog_ns, 0);
}

static void without_a_supervisor_nothing_is_said_and_nothing_fails(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(service_init(&s, &err), 0);
    service_ready(&s, "ready");
    service_status(&s, "status");
    service_stopping(&s);
    assert_string_equal(heard(), "");
}

static void a_long_status_is_cut(void **state)
{
    (void)state;
    static char text[4000];
    memset(text, 'x', sizeof text - 1);
    assert_int_equal(service_init(&s, &err), 0);
    service_status(&s, "%s", text);
    const char *got = heard();
    assert_memory_equal(got, "STATUS=x", 8);
    assert_in_range(strlen(got), 100, 400);
}

static int readable(void)
{
    struct pollfd p = {.fd = s.signal_fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void term_and_int_stop(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(service_init(&s, &err), 0);
        assert_false(service_poll(&s));
        assert_false(readable());
        assert_int_equal(kill(getpid(), signals[i]), 0);
        assert_true(readable());
        assert_true(service_poll(&s));
        assert_false(readable());
        assert_true(service_poll(&s)); /* it stays so */
        assert_false(s.reload);
        service_fini(&s);
    }
}

static void hup_asks_for_a_reload_and_does_not_stop(void **state)
{
    (void)state;
    assert_int_equal(service_init(&s, &err), 0);
    assert_int_equal(kill(getpid(), SIGHUP), 0);
    assert_false(service_poll(&s));
    assert_true(s.reload);
    s.reload = 0;
    assert_false(service_poll(&s));
    assert_false(s.reload);
}

static void signals_that_came_together_are_read_in_one_poll(void **state)
{
    (void)state;
    assert_int_equal(service_init(&s, &err), 0);
    assert_int_equal(kill(getpid(), SIGHUP), 0);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    assert_true(service_poll(&s));
    assert_true(s.reload);
    assert_false(readable());
}

static void *mask_of_thread(void *mask)
{
    pthread_sigmask(SIG_BLOCK, NULL, mask);
    return NULL;
}

static void threads_made_later_leave_the_signals_alone_and_a_broken_pipe_kills_nobody(void **state)
{
    (void)state;
    assert_int_equal(service_init(&s, &err), 0);
    sigset_t mask;
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, mask_of_thread, &mask), 0);
    pthread_join(t, NULL);
    assert_true(sigismember(&mask, SIGTERM) && sigismember(&mask, SIGINT) &&
                sigismember(&mask, SIGHUP));
    struct sigaction pipe_action;
    assert_int_equal(sigaction(SIGPIPE, NULL, &pipe_action), 0);
    assert_ptr_equal(pipe_action.sa_handler, SIG_IGN);
}

static void exit_codes_tell_never_from_try_again(void **state)
{
    (void)state;
    static const int never[] = {AZOTH_ERR_CONFIG, AZOTH_ERR_USAGE, AZOTH_ERR_LAYOUT,
                                AZOTH_ERR_FORMAT, AZOTH_ERR_PERMISSION};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        assert_int_equal(service_exit_code(never[i]), SERVICE_EXIT_NEVER_RESTART);
    static const int later[] = {AZOTH_ERR_NO_WRITER, AZOTH_ERR_RETIRED};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        assert_int_equal(service_exit_code(later[i]), SERVICE_EXIT_TEMPORARY);
    assert_int_equal(service_exit_code(AZOTH_ERR_IO), 1);
    assert_int_equal(service_exit_code(AZOTH_ERR_NOSPACE), 1);
}

/* What was left out of a storm is told although the process ends within the storm's window. */
static void the_end_tells_what_the_log_left_out(void **state)
{
    (void)state;
    char text[100 * LOG_BURST] = "";
    int saved = dup(STDERR_FILENO), ends[2];
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    assert_int_equal(service_init(&s, &err), 0);
    log_init("azoth-test", LOG_LEVEL_INFO);
    for (unsigned i = 0; i < LOG_BURST + 3; i++)
        log_line(LOG_LEVEL_INFO, "storm n=%u", i);
    service_fini(&s);
    dup2(saved, STDERR_FILENO);
    close(saved);
    for (size_t n = 0; n < sizeof text - 1;) {
        ssize_t got = read(ends[0], text + n, sizeof text - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(ends[0]);
    assert_non_null(strstr(text, "suppressed=3 within_s=10 line=\"storm n\"\n"));
}

#define SUPERVISED(f) cmocka_unit_test_setup_teardown(f, supervise, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SUPERVISED(the_supervisor_hears_ready_status_and_stopping),
        SUPERVISED(the_supervisor_hears_when_settings_are_read_again),
        SUPERVISED(the_watchdog_is_fed_at_half_its_interval_and_not_before),
        SUPERVISED(without_a_watchdog_there_is_no_heartbeat),
        SUPERVISED(without_a_supervisor_nothing_is_said_and_nothing_fails),
        SUPERVISED(a_long_status_is_cut),
        SUPERVISED(term_and_int_stop),
        SUPERVISED(hup_asks_for_a_reload_and_does_not_stop),
        SUPERVISED(signals_that_came_together_are_read_in_one_poll),
        SUPERVISED(threads_made_later_leave_the_signals_alone_and_a_broken_pipe_kills_nobody),
        SUPERVISED(the_end_tells_what_the_log_left_out),
        cmocka_unit_test(exit_codes_tell_never_from_try_again),
    };
    /* The tests block SIGTERM, so a read that waits must have another end. */
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
