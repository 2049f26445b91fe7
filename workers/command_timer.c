/*
 * command_timer.c - one thread that watches the armed commands.
 *
 * It sleeps until the earliest deadline, and without a limit in time while nothing is armed. The
 * command's own thread cannot be helped from here (azoth_command.h says why), so the end of the
 * process is the only edge out of "overran".
 */
#include "workers/command_timer.h"

#include "core/buf.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define TIMER_PLACES 8u /* threads that run commands at once */

struct timer_place {
    const char *name; /* NULL: free */
    uint8_t id[AZOTH_ID_BYTES];
    uint64_t deadline_ns;
};

struct command_timer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    uint64_t limit_ns;
    struct timer_place place[TIMER_PLACES];
    int idle; /* the thread sleeps until somebody arms */
    int stop;
};

static _Noreturn void timer_end_process(const struct command_timer *t, const struct timer_place *p)
{
    char id[2 * AZOTH_ID_BYTES + 1];
    bytes_hex(id, p->id, AZOTH_ID_BYTES);
    log_line(LOG_LEVEL_ERR,
             "a command ran over its time limit: this worker ends, its locks are given back "
             "command=%s id=%s limit_ms=%llu error=%s",
             p->name, id, (unsigned long long)(t->limit_ns / NS_PER_MS),
             azoth_code_name(AZOTH_ERR_COMMAND_TIMEOUT));
    _exit(1);
}

/* The earliest deadline armed, 0 for none. Ends the process when one has passed. */
static uint64_t timer_earliest(const struct command_timer *t, uint64_t now_ns)
{
    uint64_t first = 0;
    for (unsigned i = 0; i < TIMER_PLACES; i++) {
        const struct timer_place *p = &t->place[i];
        if (!p->name)
            continue;
        if (now_ns >= p->deadline_ns)
            timer_end_process(t, p);
        if (first == 0 || p->deadline_ns < first)
            first = p->deadline_ns;
    }
    return first;
}

static void *timer_main(void *arg)
{
    struct command_timer *t = arg;
    pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        uint64_t until = timer_earliest(t, clock_mono_ns());
        if (until) {
            struct timespec at = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
            pthread_cond_timedwait(&t->changed, &t->lock, &at);
        } else {
            t->idle = 1;
            pthread_cond_wait(&t->changed, &t->lock);
            t->idle = 0;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int command_timer_open(uint64_t limit_ns, struct command_timer **ret, struct azoth_error *err)
{
    struct command_timer *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(err, AZOTH_ERR_NOMEM, "the commands' timer");
    t->limit_ns = limit_ns;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, &attr);
    pthread_condattr_destroy(&attr);
    int e = pthread_create(&t->thread, NULL, timer_main, t);
    if (e) {
        pthread_cond_destroy(&t->changed);
        pthread_mutex_destroy(&t->lock);
        free(t);
        return error_errno(err, e, "the commands' timer thread");
    }
    *ret = t;
    return 0;
}

void command_timer_close(struct command_timer *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stop = 1;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/*
 * All commands have the same limit, so a later arm never has an earlier deadline: only a sleeping
 * timer without one needs a wake.
 */
struct timer_place *command_timer_arm(struct command_timer *t, const char *name,
                                      const uint8_t id[AZOTH_ID_BYTES])
{
    pthread_mutex_lock(&t->lock);
    struct timer_place *p = t->place;
    while (p < t->place + TIMER_PLACES && p->name)
        p++;
    ensure(p < t->place + TIMER_PLACES);
    p->name = name;
    memcpy(p->id, id, AZOTH_ID_BYTES);
    p->deadline_ns = clock_mono_ns() + t->limit_ns;
    if (t->idle)
        pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
    return p;
}

void command_timer_disarm(struct command_timer *t, struct timer_place *p)
{
    pthread_mutex_lock(&t->lock);
    p->name = NULL;
    pthread_mutex_unlock(&t->lock);
}
