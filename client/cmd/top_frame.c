/*
 * top_frame.c - a frame of azoth top as lines of text: totals above, then tables of projections, processes and
 * culprits, which share the room that is left.
 */
#include "client/cmd/top.h"

#include "core/clock.h"
#include "shm/contention.h"

#include <stdarg.h>
#include <string.h>
#include <wchar.h>

#define TABLES 4u

/* ---- lines ---- */

/* Cuts the text where it is wider than that; bytes that are no character count as one. */
static void fit(char *text, uint32_t width)
{
    mbstate_t st = {0};
    uint32_t columns = 0;
    for (char *p = text; *p;) {
        wchar_t c;
        size_t n = mbrtowc(&c, p, MB_CUR_MAX, &st);
        int w = 1;
        if (n == (size_t)-1 || n == (size_t)-2 || n == 0) {
            n = 1;
            memset(&st, 0, sizeof st);
        } else {
            w = wcwidth(c);
        }
        columns += w > 0 ? (uint32_t)w : 0;
        if (columns > width) {
            *p = 0;
            return;
        }
        p += n;
    }
}

static __attribute__((format(printf, 4, 5))) void
line(struct top_frame *f, const struct top_options *o, enum top_mark mark, const char *fmt, ...)
{
    if (f->lines == TOP_LINES_MAX)
        return;
    struct top_line *l = &f->line[f->lines++];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(l->text, sizeof l->text, fmt, ap);
    va_end(ap);
    l->mark = mark;
    fit(l->text, o->width);
}

/* A number of things a second, in at most seven columns; "-" when it is not known. */
static const char *per_s(double n, char out[24])
{
    if (n < 0)
        snprintf(out, 24, "-");
    else if (n < 99.95)
        snprintf(out, 24, "%.1f", n);
    else if (n < 1e6)
        snprintf(out, 24, "%.0f", n);
    else
        snprintf(out, 24, "%.1fM", n / 1e6);
    return out;
}

static const char *duration(double ns, char out[CMD_TIME_TEXT])
{
    if (ns < 0)
        snprintf(out, CMD_TIME_TEXT, "-");
    else
        cmd_duration((uint64_t)ns, out);
    return out;
}

static const char *seconds(double s, char out[CMD_TIME_TEXT])
{
    return s == 0 ? "0" : duration(s < 0 ? -1 : s * 1e9, out);
}

/* The newest values, as high as the highest of them: eight steps, or as many characters of ASCII. */
static const char *sparkline(const struct top_track *k, uint32_t width, int utf8, char out[256])
{
    static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const ascii[] = {" ", ".", ":", "-", "=", "+", "*", "%", "#"};
    double most = 0;
    size_t len = 0;
    out[0] = 0;
    if (!k)
        return out;
    uint32_t first = k->len > width ? k->len - width : 0;
    for (uint32_t i = first; i < k->len; i++)
        most = k->value[i] > most ? k->value[i] : most;
    for (uint32_t i = first; i < k->len && len + 8 < 256; i++) {
        int step = k->value[i] <= 0 ? 0 : 1 + (int)(k->value[i] / most * 7);
        len += (size_t)snprintf(out + len, 256 - len, "%s",
                                (utf8 ? blocks : ascii)[step > 8 ? 8 : step]);
    }
    return out;
}

/* ---- above ---- */

static void title(struct top *t, const struct top_options *o, struct top_frame *f)
{
    char when[CMD_TIME_TEXT], left[TOP_TEXT / 2];
    cmd_time(clock_wall_ns(), when);
    snprintf(left, sizeof left, "azoth top  %s%s", t->lag.dir, o->paused ? "  [PAUSED]" : "");
    int room = (int)o->width - 21;
    if (room < 20)
        line(f, o, TOP_TITLE, "%s", left);
    else
        line(f, o, TOP_TITLE, "%-*.*s %.19sZ", room, room, left, when);
}

static const char *alive(int n)
{
    return n < 0 ? "unknown" : n ? "running" : "NOT RUNNING";
}

static void processes_line(struct top *t, const struct top_options *o, struct top_frame *f)
{
    const struct gauges *g = t->v.gauges;
    uint64_t full = g ? gauge_get(&g->g->disk_full_ns) : 0;
    const char *writes = t->pauses.writes == WRITES_SEALED   ? "SEALED"
                         : t->pauses.writes == WRITES_PAUSED ? "PAUSED"
                         : t->pauses.writes != WRITES_OPEN   ? "pausing"
                         : t->v.writer_alive == 0            ? "none"
                         : full                              ? "REFUSED, the disk is full"
                                                             : "open";
    int alarm =
        t->v.writer_alive == 0 || t->v.feed_alive == 0 || full || t->pauses.writes != WRITES_OPEN;
    line(f, o, alarm ? TOP_ALARM : TOP_PLAIN, "writer %s   feed %s   writes %s   head %llu",
         alive(t->v.writer_alive), alive(t->v.feed_alive), writes, (unsigned long long)t->lag.head);
}

static void totals(struct top *t, const struct top_options *o, struct top_frame *f)
{
    char a[CMD_TIME_TEXT], b[CMD_TIME_TEXT], c[CMD_TIME_TEXT], d[CMD_TIME_TEXT], spark[256];
    char r[3][24], batch[2][24];
    snprintf(batch[0], 24, "%.0f", top_quantile(t, TOP_BATCH, 0.5));
    snprintf(batch[1], 24, "%.0f", top_quantile(t, TOP_BATCH, 0.99));
    int none = top_quantile(t, TOP_BATCH, 0.5) < 0;
    line(f, o, TOP_PLAIN, "txn/s %-8s events/s %-8s commits/s %-8s %s",
         per_s(t->transactions_s, r[0]), per_s(t->events_s, r[1]), per_s(t->commits_s, r[2]),
         sparkline(&t->throughput, o->width > 56 ? o->width - 56 : 0, o->utf8, spark));
    line(f, o, TOP_PLAIN, "commit     p50 %-8s p99 %-10s preflight  p50 %-8s p99 %s",
         duration(top_quantile(t, TOP_COMMIT, 0.5), a),
         duration(top_quantile(t, TOP_COMMIT, 0.99), b),
         duration(top_quantile(t, TOP_PREFLIGHT, 0.5), c),
         duration(top_quantile(t, TOP_PREFLIGHT, 0.99), d));
    line(f, o, TOP_PLAIN, "queue      p50 %-8s p99 %-10s projected  p50 %-8s p99 %s",
         duration(top_quantile(t, TOP_QUEUE, 0.5), a),
         duration(top_quantile(t, TOP_QUEUE, 0.99), b), duration(top_quantile(t, TOP_LAG, 0.5), c),
         duration(top_quantile(t, TOP_LAG, 0.99), d));
    line(f, o, TOP_PLAIN, "batch size p50 %-8s p99 %-10s queue depth %u, %u of %u slots free",
         none ? "-" : batch[0], none ? "-" : batch[1], t->counts.slot[SLOT_SUBMITTED],
         t->counts.slot[SLOT_FREE], t->v.segment ? t->v.segment->slots : 0);
    char disk[80], free_bytes[CMD_TIME_TEXT];
    const struct culprits *k = &t->culprits;
    snprintf(disk, sizeof disk, "%s free", cmd_size(k->disk_free_bytes, free_bytes));
    if (k->days_to_full >= 0)
        snprintf(disk + strlen(disk), sizeof disk - strlen(disk), ", full in %.1f days",
                 k->days_to_full);
    line(f, o, k->days_to_full >= 0 && k->days_to_full < 1 ? TOP_ALARM : TOP_PLAIN,
         "stripes %u held, %s waits/s   refused/s %s   disk %s",
         t->counts.exclusive + t->counts.shared, per_s(t->waits_s, r[0]), per_s(t->refused_s, r[1]),
         disk);
}

/* ---- tables ---- */

/* A column of names gets half of what a wider screen has. */
static int name_width(const struct top_options *o, int least)
{
    return least + (o->width > 80 ? (int)(o->width - 80) / 2 : 0);
}

struct table {
    uint32_t rows, room;
    void (*heading)(struct top *t, const struct top_options *o, const char *cut,
                    struct top_frame *f);
    void (*row)(struct top *t, const struct top_options *o, uint32_t i, struct top_frame *f);
};

static void projections_heading(struct top *t, const struct top_options *o, const char *cut,
                                struct top_frame *f)
{
    (void)t;
    char name[40];
    snprintf(name, sizeof name, "PROJECTION%s", cut);
    line(f, o, TOP_HEADING, "%-*s %-9s %9s %9s %8s %4s  %s", name_width(o, 22), name, "STATE",
         "BEHIND", "AGE", "EVENTS/S", "DLQ", "LATELY");
}

static void projection(struct top *t, const struct top_options *o, uint32_t i, struct top_frame *f)
{
    const struct lag_row *row = &t->lag.row[i];
    char name[96], age[CMD_TIME_TEXT], rate[24], spark[256];
    int alarm = row->r.state == PROJECTION_FAILED || row->r.breaker == 2 ||
                strcmp(row->state, "failed") == 0 || strcmp(row->state, "diverged") == 0 ||
                strcmp(row->state, "silent") == 0;
    lag_name(row, name);
    line(f, o, alarm ? TOP_ALARM : TOP_PLAIN, "%-*.*s %-9s %9llu %9s %8s %4llu  %s",
         name_width(o, 22), name_width(o, 22), name, row->state, (unsigned long long)row->behind,
         seconds(row->seconds_behind, age), per_s(row->rate, rate),
         (unsigned long long)(row->r.dead_waiting + row->r.dead_retired + row->r.dead_parked),
         sparkline(top_track_of(t, row), o->width > 70 ? (o->width - 60) / 2 : 0, o->utf8, spark));
}

static void processes_heading(struct top *t, const struct top_options *o, const char *cut,
                              struct top_frame *f)
{
    (void)t;
    char name[40];
    snprintf(name, sizeof name, "NAME%s", cut);
    line(f, o, TOP_HEADING, "%-7s %-8s %-*s %-7s %7s %9s %7s %6s %7s", "PID", "KIND",
         name_width(o, 14), name, "ALIVE", "TXN/S", "REFUSED/S", "WAITS/S", "WAITED", "HELD UP");
}

/* Of one second, or of so many threads' seconds. */
static const char *share(double n, char out[24])
{
    if (n < 0)
        snprintf(out, 24, "-");
    else
        snprintf(out, 24, "%.0f%%", n * 100);
    return out;
}

static void process(struct top *t, const struct top_options *o, uint32_t i, struct top_frame *f)
{
    const struct top_process *p = &t->process[i];
    char r[5][24];
    line(f, o, p->alive == 0 ? TOP_ALARM : TOP_PLAIN, "%-7u %-8s %-*.*s %-7s %7s %9s %7s %6s %7s",
         p->pid, participant_kind_name(p->kind), name_width(o, 14), name_width(o, 14), p->name,
         alive_name(p->alive), per_s(p->submitted_s, r[0]), per_s(p->refused_s, r[1]),
         per_s(p->waits_s, r[2]), share(p->waited, r[3]), share(p->held_up, r[4]));
}

static void hot_heading(struct top *t, const struct top_options *o, const char *cut,
                        struct top_frame *f)
{
    char name[40];
    snprintf(name, sizeof name, "WAITED FOR%s", cut);
    line(f, o, TOP_HEADING, "%-48s %8s %10s", name, "STRIPE",
         t->before.at_ns ? "WAITS/S" : "WAITS");
}

static void hot(struct top *t, const struct top_options *o, uint32_t i, struct top_frame *f)
{
    const struct hot_key *k = &t->culprits.hot[i];
    char key[4 * sizeof k->key + 1] = "(no key known)", rate[24];
    double s = (double)(t->now.at_ns - t->before.at_ns) / 1e9;
    if (k->len)
        bytes_print(bytes_of(k->key, k->len), key, sizeof key);
    line(f, o, TOP_PLAIN, "%-48.48s %8u %10s", key, k->stripe,
         per_s(t->before.at_ns ? (double)k->waits / s : (double)k->waits, rate));
}

static void pins_heading(struct top *t, const struct top_options *o, const char *cut,
                         struct top_frame *f)
{
    (void)t;
    char name[40];
    snprintf(name, sizeof name, "PINNED%s", cut);
    line(f, o, TOP_HEADING, "%-24s %-8s %-16s %-20s %s", name, "BY PID", "PROGRAM", "UNIT", "AGE");
}

static void pin(struct top *t, const struct top_options *o, uint32_t i, struct top_frame *f)
{
    const struct pin *p = &t->culprits.pin[i];
    char what[100], size[CMD_TIME_TEXT], age[CMD_TIME_TEXT];
    if (*p->projection)
        snprintf(what, sizeof what, "WAL of %s, %s", p->projection, cmd_size(p->wal_bytes, size));
    else
        snprintf(what, sizeof what, "store, %llu commits", (unsigned long long)p->behind);
    line(f, o, TOP_PLAIN, "%-24.24s %-8llu %-16.16s %-20.20s %s", what, (unsigned long long)p->pid,
         *p->program ? p->program : "-", *p->unit ? p->unit : "-", seconds(p->age_s, age));
}

/* ---- order ---- */

/* qsort() takes no argument: one frame at a time is made. */
static const struct top_options *order;

const char *top_sort_name(enum top_sort s)
{
    static const char *const names[] = {"name", "lag", "rate", "waits"};
    return names[s < TOP_SORTS ? s : 0];
}

/* More first; equal ones by name. */
static int more(double a, double b, int by_name)
{
    int c = a < b ? 1 : a > b ? -1 : by_name;
    return order->reverse ? -c : c;
}

static int projections_order(const void *a, const void *b)
{
    const struct lag_row *x = a, *y = b;
    int name = strcmp(x->r.name, y->r.name);
    if (!name)
        name = x->r.shard < y->r.shard ? -1 : x->r.shard > y->r.shard;
    double p = 0, q = 0;
    if (order->sort == TOP_BY_LAG || order->sort == TOP_BY_WAITS)
        p = (double)x->behind, q = (double)y->behind;
    else if (order->sort == TOP_BY_RATE)
        p = x->rate, q = y->rate;
    return more(p, q, name);
}

static int processes_order(const void *a, const void *b)
{
    const struct top_process *x = a, *y = b;
    int name = strcmp(x->name, y->name);
    if (!name)
        name = x->pid < y->pid ? -1 : x->pid > y->pid;
    double p = 0, q = 0;
    if (order->sort == TOP_BY_RATE)
        p = x->submitted_s, q = y->submitted_s;
    else if (order->sort != TOP_BY_NAME)
        p = x->held_up + x->waited, q = y->held_up + y->waited;
    return more(p, q, name);
}

/* ---- the frame ---- */

/* Rows to each table by turns, until nothing is left; a heading and an empty line go with each. */
static void allot(struct table *tables, uint32_t lines)
{
    for (uint32_t i = 0; i < TABLES; i++)
        if (tables[i].rows)
            lines = lines > 2 ? lines - 2 : 0;
    for (int given = 1; given && lines;) {
        given = 0;
        for (uint32_t i = 0; i < TABLES && lines; i++)
            if (tables[i].room < tables[i].rows) {
                tables[i].room++;
                lines--;
                given = 1;
            }
    }
}

static void footer(const struct top_options *o, struct top_frame *f)
{
    if (o->height == 0)
        return;
    while (f->lines < o->height - 1 && f->lines < TOP_LINES_MAX)
        line(f, o, TOP_PLAIN, "%s", "");
    f->lines = f->lines < o->height ? f->lines : o->height - 1;
    line(f, o, TOP_HEADING, "q quit  p pause  s sort: %s  r reverse%s  + - every %.1f s  h help",
         top_sort_name(o->sort), o->reverse ? "d" : "", o->interval_ms / 1000.0);
}

void top_render(struct top *t, const struct top_options *o, struct top_frame *ret)
{
    struct table tables[TABLES] = {{t->lag.rows, 0, projections_heading, projection},
                                   {t->processes, 0, processes_heading, process},
                                   {t->culprits.hots, 0, hot_heading, hot},
                                   {t->culprits.pins, 0, pins_heading, pin}};
    ret->lines = 0;
    order = o;
    qsort(t->lag.row, t->lag.rows, sizeof *t->lag.row, projections_order);
    qsort(t->process, t->processes, sizeof *t->process, processes_order);
    title(t, o, ret);
    processes_line(t, o, ret);
    totals(t, o, ret);
    uint32_t above = ret->lines + 1;
    allot(tables, o->height == 0 ? UINT32_MAX : o->height > above ? o->height - above : 0);
    for (uint32_t i = 0; i < TABLES; i++) {
        struct table *k = &tables[i];
        char cut[30] = "";
        if (k->room == 0)
            continue;
        if (k->room < k->rows)
            snprintf(cut, sizeof cut, " %u/%u", k->room, k->rows);
        line(ret, o, TOP_PLAIN, "%s", "");
        k->heading(t, o, cut, ret);
        for (uint32_t n = 0; n < k->room; n++)
            k->row(t, o, n, ret);
    }
    footer(o, ret);
}

void top_render_help(const struct top_options *o, struct top_frame *ret)
{
    static const char *const text[] = {
        "q        quit",
        "p, space pause: the frame stays as it is; again: go on",
        "s        sort by the next of: name, lag, rate, waits",
        "n l b w  sort by name, lag, rate (busy), waits",
        "r        the other way round",
        "+ -      look less often, more often",
        "h, ?     this; any key: back",
        "",
        "commit, preflight, queue, batch size: percentiles of what came since the last look.",
        "projected: from the commit of an event until it was applied.",
        "BEHIND: events not applied; AGE: of the oldest of them; DLQ: dead letters.",
        "WAITED: share of the time that threads of the process waited for keys that others held.",
        "HELD UP: the same of others, while this one held the key.",
        "PINNED: old snapshots that keep pages of the store or a projection's WAL in use.",
    };
    ret->lines = 0;
    line(ret, o, TOP_TITLE, "%-*s", (int)o->width, "azoth top: keys and columns");
    line(ret, o, TOP_PLAIN, "%s", "");
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        line(ret, o, TOP_PLAIN, "%s", text[i]);
    footer(o, ret);
}
