#include "core/crash.h"

#ifdef AZOTH_FAULTS
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const names[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

static int chosen = -1, delayed = -1, action = SIGKILL;
static atomic_long left;

/* -1 for NULL. */
static int point_of(const char *variable, const char *want, size_t len)
{
    for (int i = 0; want && i < CRASH_POINT_COUNT; i++)
        if (strlen(names[i]) == len && strncmp(names[i], want, len) == 0)
            return i;
    if (want) {
        fprintf(stderr, "%s=%s names no crash point\n", variable, want);
        abort();
    }
    return -1;
}

static void read_choice(void)
{
    const char *want = getenv("AZOTH_CRASH"), *what = getenv("AZOTH_CRASH_ACTION");
    const char *slow = getenv("AZOTH_DELAY");
    delayed = point_of("AZOTH_DELAY", slow, slow ? strlen(slow) : 0);
    if (!want)
        return;
    const char *colon = strchr(want, ':');
    chosen = point_of("AZOTH_CRASH", want, colon ? (size_t)(colon - want) : strlen(want));
    /* A test that names what never comes would pass without its death. */
    char *end = "";
    long passing = colon ? strtol(colon + 1, &end, 10) : 1;
    if (passing < 1 || *end) {
        fprintf(stderr, "AZOTH_CRASH=%s: the passing is a number from 1\n", want);
        abort();
    }
    atomic_store(&left, passing);
    if (what && strcmp(what, "stop") == 0) {
        action = SIGSTOP;
    } else if (what && strcmp(what, "kill") != 0) {
        fprintf(stderr, "AZOTH_CRASH_ACTION=%s is neither kill nor stop\n", what);
        abort();
    }
}

static int defect = -1;

static void read_defect(void)
{
    static const char *const defects[] = {
#define X(name) #name,
        BREAKS(X)
#undef X
    };
    const char *want = getenv("AZOTH_BREAK");
    for (int i = 0; want && i < BREAK_COUNT; i++)
        if (strcmp(defects[i], want) == 0)
            defect = i;
    if (want && defect < 0) {
        fprintf(stderr, "AZOTH_BREAK=%s names no defect\n", want);
        abort();
    }
}

int broken(enum broken what)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_defect);
    return defect == (int)what;
}

void crash_point(enum crash_point at)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_choice);
    /* A window that is some nanoseconds wide becomes one that others get into. */
    if (delayed == (int)at)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    if (chosen == (int)at && atomic_fetch_sub(&left, 1) == 1)
        raise(action); /* not kill(): another thread may take that, and this one runs on a while */
}
#else
/* A translation unit must not be empty. */
typedef int crash_points_are_off;
#endif
