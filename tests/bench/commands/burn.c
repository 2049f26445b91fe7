/*
 * burn.c - the command of row 14: 200 us of the processor's time under the lock of one key, then one
 * state put and one event. The time is that of the thread: waiting for a core is not counted.
 */
#include "azoth_command.h"

#include <time.h>

#define BURN_NS 200000

static long long used_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static int declare(struct azoth_command_declare *d, const struct azoth_command_args *a)
{
    struct azoth_bytes key;
    int rc = a->string(a, "key", &key);
    return rc ? rc : d->write(d, key);
}

static int run(struct azoth_command_run *r, const struct azoth_command_args *a)
{
    struct azoth_bytes key;
    long long until = used_ns() + BURN_NS;
    int rc = a->string(a, "key", &key);
    while (used_ns() < until)
        ;
    if (!rc)
        rc = r->set_i64(r, key, 1);
    return rc ? rc : r->event_json(r, "burnt", "{}");
}

const struct azoth_command_library *azoth_commands(void);
const struct azoth_command_library *azoth_commands(void)
{
    static const struct azoth_command command = {"burn", declare, run};
    static const struct azoth_command_library library = {AZOTH_COMMAND_ABI, 1, &command};
    return &library;
}
