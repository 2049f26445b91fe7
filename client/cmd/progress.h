/* progress.h - how far long work is, on standard error when that is a terminal. One thread. */
#ifndef CLIENT_CMD_PROGRESS_H
#define CLIENT_CMD_PROGRESS_H

#include <stdint.h>

struct progress {
    const char *label;
    int off;
    uint64_t begun_ns, said_ns, from; /* the count that it began with */
};

void progress_begin(struct progress *p, const char *label, int quiet, uint64_t from);
/* A bar with share, rate and time left; four times a second at most. what: of the count. */
void progress_say(struct progress *p, uint64_t at, uint64_t end, const char *what);
/* Takes it off the line. */
void progress_end(struct progress *p);
/* Since it began: seconds, and counts a second. */
double progress_seconds(const struct progress *p);
double progress_rate(const struct progress *p, uint64_t at);

#endif
