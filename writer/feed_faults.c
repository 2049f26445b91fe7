/* feed_faults.c - a transport that loses, repeats and delays on purpose. Empty in a release build.
 */
#include "writer/feed_faults.h"

#ifdef AZOTH_FAULTS

#include "core/buf.h"

#include <stdlib.h>
#include <string.h>

struct faults {
    int read, loss, dup, reorder, late;
    uint64_t seed;
    struct buf held;
    struct pipe_end *held_to;
};
static struct faults faults;

static int fault_value(const char *text, const char *name)
{
    const char *at = text ? strstr(text, name) : NULL;
    return at ? atoi(at + strlen(name)) : 0;
}

static int chance(int percent)
{
    faults.seed ^= faults.seed << 13;
    faults.seed ^= faults.seed >> 7;
    faults.seed ^= faults.seed << 17;
    return (int)(faults.seed % 100) < percent;
}

int feed_send(struct pipe_end *out, struct azoth_bytes m)
{
    if (!faults.read) {
        const char *text = getenv("AZOTH_FEED_FAULTS");
        faults = (struct faults){1,
                                 fault_value(text, "loss="),
                                 fault_value(text, "dup="),
                                 fault_value(text, "reorder="),
                                 fault_value(text, "late="),
                                 (uint64_t)fault_value(text, "seed=") | 1,
                                 {0},
                                 NULL};
    }
    if (chance(faults.loss))
        return 0;
    int rc = 0;
    if ((chance(faults.reorder) || chance(faults.late)) && !faults.held_to) {
        buf_clear(&faults.held);
        if (buf_add(&faults.held, m.ptr, m.len) == 0)
            faults.held_to = out; /* comes behind a later one */
    } else {
        rc = pipe_send(out, m, 0, NULL);
        if (!rc && chance(faults.dup))
            pipe_send(out, m, 0, NULL);
    }
    if (faults.held_to == out && chance(50)) {
        pipe_send(out, buf_bytes(&faults.held), 0, NULL);
        faults.held_to = NULL;
    }
    return rc;
}

void feed_send_forget(const struct pipe_end *out)
{
    if (faults.held_to == out)
        faults.held_to = NULL;
}

#endif
