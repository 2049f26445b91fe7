#include "client/cmd/owner.h"

#include "client/cmd/cmd.h"
#include "core/clock.h"
#include "projector/control.h"
#include "projector/generation.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define AGAIN_MS 10u

int owner_find(const char *run_dir, const char *projections, const char *stem, int timeout_ms,
               struct owner *ret, struct azoth_error *err)
{
    uint64_t until = clock_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    *ret = (struct owner){-1, -1};
    for (;;) {
        int rc = control_dial(run_dir, stem, timeout_ms, &ret->talk_fd, err);
        if (rc != AZOTH_ERR_UNREACHABLE)
            return rc;
        rc = generation_lock(projections, stem, "", &ret->lock_fd, err);
        if (rc != AZOTH_ERR_DUPLICATE)
            return rc;
        /* It starts, or ends, or its socket is in another run directory. */
        if (clock_mono_ns() >= until || cmd_interrupted())
            return error_set(
                err, AZOTH_ERR_UNREACHABLE,
                "who projects %s does not listen in %.120s: a process that projects by "
                "itself, or one with another run directory",
                stem, run_dir);
        cmd_sleep_ms(AGAIN_MS);
    }
}

void owner_close(struct owner *o)
{
    if (o->talk_fd >= 0)
        close(o->talk_fd);
    if (o->lock_fd >= 0)
        close(o->lock_fd);
    *o = (struct owner){-1, -1};
}

static int understand(const char *answer, uint64_t *ret_n, struct azoth_error *err)
{
    unsigned long long n;
    int code, at = 0;
    if (sscanf(answer, "refused %d %n", &code, &at) == 1 && at && code < 0)
        return error_set(err, code, "%s", answer + at);
    if (sscanf(answer, "%*s %llu", &n) != 1)
        return error_set(err, AZOTH_ERR_UNSUPPORTED,
                         "the projector does not know this command: it is of another version");
    *ret_n = n;
    return 0;
}

int owner_ask(const struct owner *o, const char *definition, const struct table_options *options,
              uint64_t cursor, const char *text, uint64_t *ret_n, struct azoth_error *err)
{
    char answer[COMMAND_ANSWER_MAX] = "";
    uint8_t id[COMMAND_ID_BYTES];
    int rc = 0, other;
    if (getrandom(id, sizeof id, 0) != sizeof id)
        return error_set(err, AZOTH_ERR_IO, "random bytes");
    if (o->talk_fd >= 0)
        rc = control_say(o->talk_fd, id, text, answer, err);
    else
        (void)adopt_command(definition, options, cursor, text, answer, &other);
    return rc ? rc : understand(answer, ret_n, err);
}
