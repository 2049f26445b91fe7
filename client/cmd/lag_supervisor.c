/* lag_supervisor.c - of projections whose projector does not run: when it is started again, or why it is not. */
#include "client/cmd/lag.h"

#include "core/service.h"

#include <string.h>

/* As far as its state says, or the words that it left when it ended: the feed takes it to be there for a while. */
static int is_down(const struct lag_row *row)
{
    static const char *const down[] = {"failed", "stopped", "silent", "unseen", "diverged"};
    if (row->failed && row->last.code)
        return 1;
    for (size_t i = 0; i < sizeof down / sizeof *down; i++)
        if (strcmp(row->state, down[i]) == 0)
            return 1;
    return 0;
}

void lag_ask_supervisor(struct lag *g)
{
    static char instance[LAG_ROWS_MAX][AZOTH_NAME_MAX + 16];
    static struct supervised_ask ask[LAG_ROWS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->rows; i++) {
        struct lag_row *row = &g->row[i];
        row->supervised = (struct supervised){.exit_code = -1};
        if (!is_down(row))
            continue;
        if (row->r.shards > 1)
            snprintf(instance[n], sizeof instance[n], "%s:%u-%u", row->r.name, row->r.shard,
                     row->r.shards);
        else
            snprintf(instance[n], sizeof instance[n], "%s", row->r.name);
        ask[n] = (struct supervised_ask){instance[n], &row->supervised};
        n++;
    }
    supervised_ask(g->dir, &g->config, ask, n);
}

/* What a person may do about it, or what to wait for; empty when it runs, or nobody supervises it. */
const char *lag_supervisor_text(const struct lag *g, const struct supervised *s, char *out,
                                size_t size)
{
    char in[CMD_TIME_TEXT];
    int by_systemd = s->state != SUPERVISED_UNKNOWN && strcmp(s->by, "systemd") == 0;
    int mend = s->exit_code == SERVICE_EXIT_NEVER_RESTART;
    *out = 0;
    if (s->state == SUPERVISED_WAITS) {
        double left = lag_until(g, s->next_start_ns);
        snprintf(out, size, "%s starts %s again%s%s (%llu times so far)", s->by, s->unit,
                 left < 0    ? ""
                 : left == 0 ? " now"
                             : " in ",
                 left > 0 ? cmd_duration((uint64_t)(left * 1e9), in) : "",
                 (unsigned long long)s->starts);
    } else if (s->state == SUPERVISED_FAILED && by_systemd) {
        snprintf(out, size,
                 "systemd does not start it again%s%s%s: %ssystemctl reset-failed %s; systemctl "
                 "start %s",
                 mend ? ", since exit code 100 says that something has to be mended" : " (",
                 mend ? "" : s->result, mend ? "" : ")", mend ? "then " : "", s->unit, s->unit);
    } else if (s->state == SUPERVISED_FAILED) {
        snprintf(out, size,
                 "azoth run starts it again when its definition, its file or its library has "
                 "changed: exit code %d says that something has to be mended",
                 s->exit_code);
    } else if (s->state == SUPERVISED_STOPPED && by_systemd) {
        snprintf(out, size, "it does not run: systemctl start %s", s->unit);
    }
    return out;
}
