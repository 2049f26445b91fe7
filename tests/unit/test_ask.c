/* test_ask.c - asking the store in a thread that may hang: the answer comes in time, no second thread hangs, and
 * who watches has answers again once the first one came back. */
#include "client/cmd/cmd.h"
#include "writer/create.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct azoth_error err;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int asked;

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/azoth-ask-XXXXXX");
    return !mkdtemp(dir) || store_create(dir, 0, &err);
}

static int teardown(void **state)
{
    static const char *const files[] = {"data.mdb", "lock.mdb", "uuid", "participants.lock"};
    char path[100];
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/projections", dir);
    rmdir(path);
    return rmdir(dir);
}

/* As one that waits inside the store for a process that is stopped there. */
static int ask(struct store *s, void *arg, struct azoth_error *why)
{
    (void)s;
    (void)why;
    asked++;
    pthread_mutex_lock(&gate);
    *(int *)arg = 42;
    pthread_mutex_unlock(&gate);
    return 0;
}

static int answer(uint32_t timeout_ms)
{
    int *arg = calloc(1, sizeof *arg);
    assert_non_null(arg);
    int rc = cmd_ask_store(dir, ask, arg, timeout_ms, &err);
    if (rc == AZOTH_ERR_TIMEOUT)
        return rc; /* not ours any more */
    assert_int_equal(*arg, rc ? 0 : 42);
    free(arg);
    return rc;
}

static void a_store_that_answers_again_is_asked_again(void **state)
{
    (void)state;
    assert_int_equal(answer(20000), 0);
    pthread_mutex_lock(&gate);
    assert_int_equal(answer(200), AZOTH_ERR_TIMEOUT);
    int before = asked;
    for (int i = 0; i < 3; i++)
        assert_int_equal(answer(20000), AZOTH_ERR_TIMEOUT); /* at once */
    assert_int_equal(asked, before);
    pthread_mutex_unlock(&gate);
    int rc = AZOTH_ERR_TIMEOUT;
    for (int i = 0; i < 10000 && rc; i++) {
        rc = answer(20000);
        poll(NULL, 0, 1); /* the thread comes back in its own time */
    }
    assert_int_equal(rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_store_that_answers_again_is_asked_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
