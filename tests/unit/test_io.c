/* test_io.c - all is written and read through pipes that take little, signals, and ends. */
#include "core/io.h"

#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MUCH 300000u /* more than a pipe holds */

static unsigned char sent[MUCH], got[MUCH];
static struct azoth_error err;
static int from, to; /* the ends of a pipe; -1 when it is closed */
static pthread_t tester;
static _Atomic int signals, enough; /* handled; after which the other thread sends no more */
static _Atomic int given_up;

static void on_signal(int sig)
{
    (void)sig;
    atomic_fetch_add(&signals, 1);
}

static int setup(void **state)
{
    struct sigaction a = {.sa_handler = on_signal}; /* without SA_RESTART: calls end with EINTR */
    int ends[2];
    (void)state;
    for (size_t i = 0; i < MUCH; i++)
        sent[i] = (unsigned char)(i * 2654435761u >> 13);
    memset(got, 0, sizeof got);
    memset(&err, 0, sizeof err);
    atomic_store(&signals, 0);
    atomic_store(&given_up, 0);
    tester = pthread_self();
    if (sigaction(SIGUSR1, &a, NULL) || pipe2(ends, O_CLOEXEC))
        return -1;
    from = ends[0];
    to = ends[1];
    return 0;
}

static void end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int teardown(void **state)
{
    (void)state;
    end(&from);
    end(&to);
    return 0;
}

/* Sends signals until so many have been handled. */
static void disturb(int n)
{
    while (atomic_load(&signals) < n) {
        pthread_kill(tester, SIGUSR1);
        nanosleep(&(struct timespec){0, 100000}, NULL);
    }
}

static void *read_much(void *arg)
{
    size_t n = 0;
    (void)arg;
    disturb(atomic_load(&enough));
    if (io_read_full(from, got, MUCH, &n, "the pipe", NULL) || n != MUCH)
        got[0] = (unsigned char)~sent[0];
    return NULL;
}

static void *write_much(void *arg)
{
    (void)arg;
    disturb(atomic_load(&enough));
    io_write_all(to, sent, MUCH, "the pipe", NULL);
    end(&to);
    return NULL;
}

static pthread_t other(void *(*what)(void *), int signals_first)
{
    pthread_t t;
    atomic_store(&enough, signals_first);
    assert_int_equal(pthread_create(&t, NULL, what, NULL), 0);
    return t;
}

static void does_not_block(int fd)
{
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

static void all_is_written_whatever_signals_come(void **state)
{
    (void)state;
    pthread_t t = other(read_much, 20);
    assert_int_equal(io_write_all(to, sent, MUCH, "the pipe", &err), 0);
    pthread_join(t, NULL);
    assert_memory_equal(sent, got, MUCH);
}

static void all_is_read_whatever_signals_come(void **state)
{
    size_t n = 0;
    (void)state;
    pthread_t t = other(write_much, 20);
    assert_int_equal(io_read_full(from, got, MUCH, &n, "the pipe", &err), 0);
    pthread_join(t, NULL);
    assert_int_equal(n, MUCH);
    assert_memory_equal(sent, got, MUCH);
}

/* How often this thread slept until something came: one that looks again and again does not. */
static long sleeps(void)
{
    struct rusage u;
    assert_int_equal(getrusage(RUSAGE_THREAD, &u), 0);
    return u.ru_nvcsw;
}

static void a_descriptor_that_does_not_block_is_waited_for(void **state)
{
    size_t n = 0;
    (void)state;
    does_not_block(to);
    pthread_t t = other(read_much, 20);
    long before = sleeps();
    assert_int_equal(io_write_all(to, sent, MUCH, "the pipe", &err), 0);
    assert_true(sleeps() > before);
    pthread_join(t, NULL);
    assert_memory_equal(sent, got, MUCH);
    memset(got, 0, sizeof got);
    does_not_block(from);
    atomic_store(&signals, 0);
    t = other(write_much, 20);
    before = sleeps();
    assert_int_equal(io_read_full(from, got, MUCH, &n, "the pipe", &err), 0);
    assert_true(sleeps() > before);
    pthread_join(t, NULL);
    assert_int_equal(n, MUCH);
    assert_memory_equal(sent, got, MUCH);
}

static int three_came(void)
{
    return atomic_load(&signals) >= 3;
}

/* The third one may have come beside the call, which then hears of the next. */
static void *only_disturb(void *arg)
{
    (void)arg;
    while (!atomic_load(&given_up))
        disturb(atomic_load(&signals) + 1);
    return NULL;
}

static void is_given_up(int rc)
{
    atomic_store(&given_up, 1);
    assert_int_equal(rc, AZOTH_ERR_IO);
    assert_int_equal(err.foreign, EINTR);
    assert_true(three_came());
}

static void it_is_given_up_after_a_signal_when_that_is_asked_for(void **state)
{
    size_t n = 77;
    (void)state;
    pthread_t t = other(only_disturb, 0);
    is_given_up(io_read_unless(three_came, from, got, 1, &n, "the pipe", &err));
    pthread_join(t, NULL);
    assert_int_equal(n, 77);
    atomic_store(&signals, 0);
    atomic_store(&given_up, 0);
    t = other(only_disturb, 0);
    is_given_up(io_write_unless(three_came, to, sent, MUCH, "the pipe", &err));
    pthread_join(t, NULL);
}

static int times_asked;

static int at_the_second_time(void)
{
    return ++times_asked == 2;
}

/* What tells may have come without a signal to this thread. */
static void who_may_give_up_is_asked_while_it_waits_too(void **state)
{
    size_t n = 77;
    (void)state;
    times_asked = 0;
    does_not_block(from);
    assert_int_equal(io_read_unless(at_the_second_time, from, got, 1, &n, "the pipe", &err),
                     AZOTH_ERR_IO);
    assert_int_equal(err.foreign, EINTR);
    assert_int_equal(times_asked, 2);
    assert_int_equal(n, 77);
}

/* A call that blocks would never hear of it: the other end does nothing. */
static void a_signal_that_came_before_the_call_is_not_lost(void **state)
{
    size_t n = 77;
    (void)state;
    times_asked = 0;
    assert_int_equal(io_read_unless(at_the_second_time, from, got, 1, &n, "the pipe", &err),
                     AZOTH_ERR_IO);
    assert_int_equal(err.foreign, EINTR);
    assert_int_equal(n, 77);
    assert_int_equal(fcntl(to, F_SETPIPE_SZ, 4096), 4096);
    assert_int_equal(io_write_all(to, sent, 4096, "the pipe", &err), 0);
    times_asked = 0;
    assert_int_equal(io_write_unless(at_the_second_time, to, sent, 1, "the pipe", &err),
                     AZOTH_ERR_IO);
    assert_int_equal(err.foreign, EINTR);
}

static void less_is_read_only_at_the_end(void **state)
{
    size_t n = 0;
    (void)state;
    assert_int_equal(io_write_all(to, "abc", 3, "the pipe", &err), 0);
    end(&to);
    assert_int_equal(io_read_full(from, got, 2, &n, "the pipe", &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(io_read_full(from, got, 2, &n, "the pipe", &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(io_read_full(from, got, 2, &n, "the pipe", &err), 0);
    assert_int_equal(n, 0);
}

static int new_file(void)
{
    char path[] = "/tmp/azoth-io-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(io_write_all(fd, sent, MUCH, path, &err), 0);
    return fd;
}

static void a_file_is_read_from_anywhere_in_it(void **state)
{
    size_t n = 0;
    (void)state;
    int fd = new_file();
    assert_int_equal(io_read_at(fd, got, 1000, MUCH - 10, &n, "the file", &err), 0);
    assert_int_equal(n, 10);
    assert_memory_equal(got, sent + MUCH - 10, 10);
    assert_int_equal(io_read_at(fd, got, 1000, MUCH + 10, &n, "the file", &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(io_read_at(fd, got, 1000, 5, &n, "the file", &err), 0);
    assert_int_equal(n, 1000);
    assert_memory_equal(got, sent + 5, 1000);
    close(fd);
}

static void all_of_a_file_is_appended_but_not_much_more_than_the_most(void **state)
{
    struct buf all = {0}, some = {0};
    (void)state;
    int fd = new_file();
    assert_int_equal(buf_add_str(&all, "x"), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(io_read_all(fd, &all, MUCH + 1, "the file", &err), 0);
    assert_int_equal(all.len, MUCH + 1);
    assert_memory_equal(all.ptr + 1, sent, MUCH);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(io_read_all(fd, &some, 1000, "the file", &err), 0);
    assert_in_range(some.len, 1001, MUCH / 2);
    buf_fini(&all);
    buf_fini(&some);
    close(fd);
}

static void an_error_names_what_it_was_of(void **state)
{
    size_t n = 77;
    (void)state;
    int fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, "abc", 3, "the full one", &err), AZOTH_ERR_NOSPACE);
    assert_string_equal(err.message, "the full one: No space left on device");
    close(fd);
    assert_int_equal(io_write_all(from, "abc", 3, "its other end", &err), AZOTH_ERR_IO);
    assert_non_null(strstr(err.message, "its other end: "));
    assert_int_equal(io_read_full(to, got, 3, &n, "its other end", &err), AZOTH_ERR_IO);
    assert_int_equal(io_read_at(from, got, 3, 0, &n, "a pipe", &err), AZOTH_ERR_IO);
    assert_int_equal(err.foreign, ESPIPE);
    assert_int_equal(n, 77);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(all_is_written_whatever_signals_come),
        T(all_is_read_whatever_signals_come),
        T(a_descriptor_that_does_not_block_is_waited_for),
        T(it_is_given_up_after_a_signal_when_that_is_asked_for),
        T(who_may_give_up_is_asked_while_it_waits_too),
        T(a_signal_that_came_before_the_call_is_not_lost),
        T(less_is_read_only_at_the_end),
        T(a_file_is_read_from_anywhere_in_it),
        T(all_of_a_file_is_appended_but_not_much_more_than_the_most),
        T(an_error_names_what_it_was_of),
    };
    alarm(60); /* what is wrong here waits for ever */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
