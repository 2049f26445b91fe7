#include "client/cmd/progress.h"

#include "client/cmd/cmd.h"
#include "core/clock.h"

#include <string.h>
#include <unistd.h>

#define CELLS 20u

void progress_begin(struct progress *p, const char *label, int quiet, uint64_t from)
{
    *p = (struct progress){.label = label,
                           .off = quiet || !isatty(STDERR_FILENO),
                           .begun_ns = clock_mono_ns(),
                           .from = from};
}

double progress_seconds(const struct progress *p)
{
    return (double)(clock_mono_ns() - p->begun_ns) / (double)NS_PER_S;
}

double progress_rate(const struct progress *p, uint64_t at)
{
    double seconds = progress_seconds(p);
    return seconds > 0 ? (double)(at - p->from) / seconds : 0;
}

void progress_say(struct progress *p, uint64_t at, uint64_t end, const char *what)
{
    char bar[CELLS + 1], left[CMD_TIME_TEXT] = "?";
    uint64_t now = clock_mono_ns();
    if (p->off || now - p->said_ns < NS_PER_S / 4)
        return;
    p->said_ns = now;
    double share = end ? (double)at / (double)end : 1, rate = progress_rate(p, at);
    share = share > 1 ? 1 : share;
    memset(bar, '.', CELLS);
    memset(bar, '#', (size_t)(share * CELLS));
    bar[CELLS] = 0;
    if (rate > 0 && at < end)
        cmd_duration((uint64_t)((double)(end - at) / rate * (double)NS_PER_S), left);
    fprintf(stderr, "\r\033[K%s: [%s] %3.0f %%  %s %llu of %llu  %.0f/s  %s left ", p->label, bar,
            share * 100, what, (unsigned long long)at, (unsigned long long)end, rate,
            at < end ? left : "0 s");
}

void progress_end(struct progress *p)
{
    if (!p->off && p->said_ns)
        fputs("\r\033[K", stderr);
    p->said_ns = 0;
}
