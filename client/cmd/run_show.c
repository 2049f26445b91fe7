/* run_show.c - how azoth run shows the system: head, transactions per second, lag of each
 * projection. */
#include "client/cmd/run.h"

#include "client/cmd/view.h"
#include "core/clock.h"

#include <sys/ioctl.h>
#include <unistd.h>

#define TICK_NS NS_PER_S

static int live_line_shown;

void run_show_off(void)
{
    if (live_line_shown)
        (void)!write(STDOUT_FILENO, "\r\033[K", 4);
    live_line_shown = 0;
}

static void describe_projection(struct buf *out, const struct projection_row *p, uint64_t head)
{
    buf_addf(out, "  %s", p->name);
    if (p->shards > 1)
        buf_addf(out, " %u/%u", p->shard, p->shards);
    buf_addf(out, " -%llu", (unsigned long long)(head > p->cursor ? head - p->cursor : 0));
    if (p->state == PROJECTION_FAILED || p->errors)
        buf_addf(out, " (%llu errors%s)", (unsigned long long)p->errors,
                 p->state == PROJECTION_FAILED ? ", FAILED" : "");
}

static void describe(struct run_show *s, const char *dir, struct buf *out, uint64_t now_ns)
{
    struct view v;
    struct projection_row p;
    view_open(&v, dir);
    if (v.gauges) {
        const struct gauges_shm *g = v.gauges->g;
        uint64_t n = gauge_get(&g->transactions);
        double seconds = (double)(now_ns - s->tick_ns) / 1e9, rate = 0;
        if (s->tick_ns && n >= s->transactions)
            rate = (double)(n - s->transactions) / seconds;
        s->transactions = n;
        uint64_t head = gauge_get(&g->head_event);
        buf_addf(out, "head %llu  %.0f tx/s", (unsigned long long)head, rate);
        for (uint32_t i = 0; i < SHM_PROJECTIONS; i++)
            if (projection_row_read(v.gauges, i, &p))
                describe_projection(out, &p, head);
    }
    view_close(&v);
}

void run_show_tick(struct run_show *s, const char *dir, unsigned ready, unsigned children,
                   uint64_t now_ns)
{
    struct buf line = {0};
    struct winsize w;
    int terminal = isatty(STDOUT_FILENO);
    if (now_ns - s->tick_ns < TICK_NS)
        return;
    if (s->progress || terminal) {
        describe(s, dir, &line, now_ns);
        if (ready != children)
            buf_addf(&line, "%s%u of %u processes ready", line.len ? "  " : "", ready, children);
        size_t n = line.len;
        if (s->progress) {
            printf("%.*s\n", (int)n, line.ptr ? (const char *)line.ptr : "");
            fflush(stdout);
        } else {
            if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col && n >= w.ws_col)
                n = w.ws_col - 1u;
            run_show_off();
            (void)!write(STDOUT_FILENO, line.ptr, n);
            live_line_shown = 1;
        }
        buf_fini(&line);
    }
    s->tick_ns = now_ns;
}

uint64_t run_show_due(const struct run_show *s)
{
    return s->tick_ns + TICK_NS;
}
