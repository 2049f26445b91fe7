/*
 * lag.c - azoth lag: how far each projection is behind the log.
 *
 * The feed's rows in the gauges tell cursor and state; the store tells the head and when the oldest
 * event that is not applied was committed. Rows are read before the head, so a cursor is never
 * ahead of it unless the log went back. What the rows say is corrected by what is known about the
 * living: without a feed, or when a projector was not heard for longer than feed.lapse, its state
 * is "silent", and the cursor is the one in the projection's own file when that is here.
 */
#include "client/cmd/view.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "projector/split.h"
#include "projector/table.h"

#include <string.h>
#include <unistd.h>

#define ROWS_MAX        (SHM_PROJECTIONS + 128u)
#define STORE_ANSWER_MS 1000u
#define WAIT_LOOK_MS    10u

struct lag_row {
    struct projection_row r;
    int seen;    /* 0: a definition that nobody has reported on */
    int in_file; /* its own file told the cursor */
    const char *state;
    uint64_t behind;
    double seconds_behind, since_progress, since_heard; /* -1: not known */
};

struct lag {
    char dir[4096];
    struct config config;
    struct cmd_list names; /* wanted; none: all */
    struct lag_row row[ROWS_MAX];
    uint32_t rows;
    uint64_t head;
    int head_known; /* 0: no gauges are there, and the store did not answer */
    int feed_alive;
    uint64_t now_ns;
    int64_t wall_ns;
    struct azoth_error store_err; /* code 0: times are known */
    struct cmd_number events_max, ms_max;
};

/* ---- rows ---- */

static int wanted(const struct lag *g, const char *name)
{
    for (int i = 0; i < g->names.n; i++)
        if (strcmp(g->names.text[i], name) == 0)
            return 1;
    return g->names.n == 0;
}

static int has_row(const struct lag *g, const char *name)
{
    for (uint32_t i = 0; i < g->rows; i++)
        if (strcmp(g->row[i].r.name, name) == 0)
            return 1;
    return 0;
}

static int unheard(const struct lag *g, const struct lag_row *row)
{
    uint64_t lapse_ns = g->config.number[CONFIG_feed_lapse] * NS_PER_MS;
    return row->r.heard_ns + lapse_ns < g->now_ns;
}

/* Of the same projection, in as many shards. */
static int same_split(const struct lag_row *a, const struct lag_row *b)
{
    return strcmp(a->r.name, b->r.name) == 0 && a->r.shards == b->r.shards;
}

/* When its split was heard last: a row that lives, in it, counts more than any time. */
static uint64_t split_lives(const struct lag *g, const struct lag_row *row)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < g->rows; i++) {
        const struct lag_row *a = &g->row[i];
        if (!same_split(a, row))
            continue;
        int gone = a->r.state == PROJECTION_STOPPED || unheard(g, a);
        uint64_t n = gone ? a->r.heard_ns : UINT64_MAX;
        most = n > most ? n : most;
    }
    return most;
}

/* A projection that was split anew leaves its old shards' rows: what is told is the split that lives; both,
 * while the new files are filled. */
static void drop_old_splits(struct lag *g)
{
    uint64_t lives[ROWS_MAX];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->rows; i++)
        lives[i] = split_lives(g, &g->row[i]);
    /* Decided against all rows: marked first, moved below. */
    for (uint32_t i = 0; i < g->rows; i++) {
        g->row[i].seen = 1;
        for (uint32_t k = 0; k < g->rows; k++)
            if (lives[k] > lives[i] && strcmp(g->row[k].r.name, g->row[i].r.name) == 0)
                g->row[i].seen = 0;
    }
    for (uint32_t i = 0; i < g->rows; i++)
        if (g->row[i].seen)
            g->row[kept++] = g->row[i];
    g->rows = kept;
}

static void add_definition(struct lag *g, const char *projections, const char *name)
{
    uint32_t shards = 1;
    split_serving(projections, name, &shards, NULL);
    for (uint32_t i = 0; i < shards && g->rows < ROWS_MAX; i++) {
        struct lag_row *row = &g->row[g->rows++];
        memset(row, 0, sizeof *row);
        snprintf(row->r.name, sizeof row->r.name, "%s", name);
        row->r.shard = i;
        row->r.shards = shards;
    }
}

static void add_definitions(struct lag *g)
{
    char path[4200];
    struct dirent **list;
    if (dbdir_path(path, sizeof path, g->dir, "projections"))
        return;
    int n = cmd_definitions(g->dir, &list, NULL);
    for (int i = 0; i < n; i++)
        if (wanted(g, list[i]->d_name) && !has_row(g, list[i]->d_name))
            add_definition(g, path, list[i]->d_name);
    cmd_definitions_free(list, n);
}

static int by_name(const void *a, const void *b)
{
    const struct lag_row *x = a, *y = b;
    int c = strcmp(x->r.name, y->r.name);
    return c ? c : (int)x->r.shard - (int)y->r.shard;
}

/* Not heard of: what its own file says is nearer to the truth than the last report. */
static int silent(const struct lag *g, const struct lag_row *row)
{
    return g->feed_alive == 0 || unheard(g, row);
}

static int on_cursor(void *arg, int n, const char *const *names, const struct query_value *values)
{
    struct lag_row *row = arg;
    (void)names;
    if (n == 1 && values && values[0].type == QUERY_INTEGER && values[0].integer >= 0) {
        row->r.cursor = (uint64_t)values[0].integer;
        row->in_file = 1;
    }
    return 0;
}

static void ask_files(struct lag *g)
{
    char path[4200];
    if (dbdir_path(path, sizeof path, g->dir, "projections"))
        return;
    for (uint32_t i = 0; i < g->rows; i++) {
        struct lag_row *row = &g->row[i];
        if (!row->seen || silent(g, row))
            query_run_shard(path, row->r.name, row->r.shard, row->r.shards,
                            "SELECT cursor FROM azoth_projection", on_cursor, row, NULL);
    }
}

static void read_rows(struct lag *g)
{
    struct view v;
    view_open(&v, g->dir);
    g->rows = 0;
    g->feed_alive = v.feed_alive;
    g->now_ns = clock_mono_ns();
    for (uint32_t i = 0; v.gauges && i < SHM_PROJECTIONS; i++) {
        struct lag_row *row = &g->row[g->rows];
        memset(row, 0, sizeof *row);
        if (projection_row_read(v.gauges, i, &row->r) && wanted(g, row->r.name))
            g->rows++;
    }
    drop_old_splits(g);
    add_definitions(g);
    qsort(g->row, g->rows, sizeof *g->row, by_name);
    ask_files(g);
    g->head = v.gauges ? gauge_get(&v.gauges->g->head_event) : 0;
    g->head_known = v.gauges != NULL;
    view_close(&v);
}

/* ---- the store's part ---- */

struct question {
    uint32_t n;
    uint64_t head;
    uint64_t id[ROWS_MAX];
    int64_t time_ns[ROWS_MAX]; /* 0: there is no such event */
};

static int event_time(struct snapshot *sn, uint64_t id, int64_t *ret, struct azoth_error *err)
{
    struct event_scan *es;
    struct event_record ev;
    int rc = event_scan_open(sn, id, id + 1, &es, err);
    if (rc)
        return rc;
    rc = event_scan_next(es, &ev, NULL, err);
    if (rc == 1)
        *ret = ev.time_ns;
    event_scan_close(es);
    return rc < 0 ? rc : 0;
}

static int ask_times(struct store *s, void *arg, struct azoth_error *err)
{
    struct question *q = arg;
    struct snapshot *sn;
    struct store_head head;
    int rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    if (!rc)
        q->head = head.event;
    for (uint32_t i = 0; !rc && i < q->n; i++)
        if (q->id[i] <= q->head)
            rc = event_time(sn, q->id[i], &q->time_ns[i], err);
    snapshot_end(sn);
    return rc;
}

static double since(uint64_t now_ns, uint64_t then_ns)
{
    if (then_ns == 0)
        return -1;
    return now_ns > then_ns ? (double)(now_ns - then_ns) / 1e9 : 0;
}

/*
 * The age of the oldest event that is not applied. Its own time is the wall clock's, which may have
 * jumped since: ahead, and it looks too old; back, and it lies in the future, which says nothing. But it
 * is younger than the moment when the projection was last at the head.
 */
static double age(const struct lag *g, const struct lag_row *row, int64_t then_ns)
{
    double most = since(g->now_ns, row->r.at_head_ns);
    double own = then_ns == 0                               ? -1
                 : g->wall_ns >= then_ns                    ? (double)(g->wall_ns - then_ns) / 1e9
                 : then_ns - g->wall_ns < (int64_t)NS_PER_S ? 0
                                                            : -1;
    if (own < 0 || (most >= 0 && most < own))
        return most;
    return own;
}

static const char *state_of(const struct lag *g, const struct lag_row *row)
{
    const struct projection_row *r = &row->r;
    if (!row->seen && !row->in_file)
        return "unseen";
    if (g->head_known && r->cursor > g->head)
        return "diverged";
    if (r->state == PROJECTION_FAILED || r->state == PROJECTION_STOPPED)
        return projection_state_name(r->state);
    return projection_state_name(silent(g, row) ? PROJECTION_SILENT : r->state);
}

static void look(struct lag *g)
{
    read_rows(g);
    g->store_err.code = 0;
    struct question *q = calloc(1, sizeof *q);
    if (q) {
        q->n = g->rows;
        for (uint32_t i = 0; i < g->rows; i++)
            q->id[i] = g->row[i].r.cursor + 1;
        int rc = cmd_ask_store(g->dir, ask_times, q, STORE_ANSWER_MS, &g->store_err);
        if (rc == AZOTH_ERR_TIMEOUT) {
            q = NULL; /* the thread's now */
        } else if (!rc) {
            g->head = q->head;
            g->head_known = 1;
        }
    }
    g->now_ns = clock_mono_ns();
    g->wall_ns = clock_wall_ns();
    for (uint32_t i = 0; i < g->rows; i++) {
        struct lag_row *row = &g->row[i];
        row->behind = g->head > row->r.cursor ? g->head - row->r.cursor : 0;
        row->seconds_behind = !g->head_known     ? -1
                              : row->behind == 0 ? 0
                              : q                ? age(g, row, q->time_ns[i])
                                                 : -1;
        row->since_progress = since(g->now_ns, row->r.progress_ns);
        row->since_heard = since(g->now_ns, row->r.heard_ns);
        row->state = state_of(g, row);
    }
    free(q);
}

/* ---- output ---- */

/* -1: it does not wait. */
static double until(const struct lag *g, uint64_t then_ns)
{
    if (then_ns == 0)
        return -1;
    return then_ns > g->now_ns ? (double)(then_ns - g->now_ns) / 1e9 : 0;
}

static int over(const struct lag *g, const struct lag_row *row)
{
    if (!g->head_known)
        return g->events_max.given || g->ms_max.given; /* not known to be within */
    return (g->events_max.given && row->behind > g->events_max.n) ||
           (g->ms_max.given && (row->seconds_behind * 1e3 > (double)g->ms_max.n ||
                                (row->behind && row->seconds_behind < 0)));
}

static int any_over(const struct lag *g)
{
    for (uint32_t i = 0; i < g->rows; i++)
        if (over(g, &g->row[i]))
            return 1;
    return 0;
}

static void real_or_null(struct json_text *j, const char *key, double n)
{
    if (n < 0)
        out_null(j, key);
    else
        out_real(j, key, n);
}

static void u64_or_null(struct json_text *j, const char *key, int known, uint64_t n)
{
    if (known)
        out_u64(j, key, n);
    else
        out_null(j, key);
}

static int print_json(const struct lag *g)
{
    struct json_text j = {0};
    out_open(&j, NULL, '{');
    u64_or_null(&j, "head", g->head_known, g->head);
    if (g->feed_alive < 0)
        out_null(&j, "feed_alive");
    else
        out_bool(&j, "feed_alive", g->feed_alive);
    out_bool(&j, "over_limit", any_over(g));
    out_open(&j, "projections", '[');
    for (uint32_t i = 0; i < g->rows; i++) {
        const struct lag_row *row = &g->row[i];
        out_open(&j, NULL, '{');
        out_str(&j, "name", row->r.name);
        out_u64(&j, "shard", row->r.shard);
        out_u64(&j, "shards", row->r.shards);
        out_str(&j, "state", row->state);
        out_u64(&j, "cursor", row->r.cursor);
        u64_or_null(&j, "head", g->head_known, g->head);
        u64_or_null(&j, "events_behind", g->head_known, row->behind);
        real_or_null(&j, "seconds_behind", row->seconds_behind);
        real_or_null(&j, "since_progress_s", row->since_progress);
        real_or_null(&j, "since_heard_s", row->since_heard);
        out_u64(&j, "errors", row->r.errors);
        out_str(&j, "breaker", breaker_state_name(row->r.breaker));
        out_open(&j, "dead_letters", '{');
        out_u64(&j, "waiting", row->r.dead_waiting);
        out_u64(&j, "retired", row->r.dead_retired);
        out_u64(&j, "parked", row->r.dead_parked);
        out_close(&j, '}');
        u64_or_null(&j, "stands_at_event", row->r.stands_event != 0, row->r.stands_event);
        real_or_null(&j, "next_attempt_s", until(g, row->r.next_attempt_ns));
        out_str(&j, "error", *row->r.error ? row->r.error : NULL);
        out_bool(&j, "over_limit", over(g, row));
        out_close(&j, '}');
    }
    out_close(&j, ']');
    if (g->store_err.code)
        out_str(&j, "store_error", g->store_err.message);
    out_close(&j, '}');
    return out_print(&j);
}

static const char *seconds(double n, char out[CMD_TIME_TEXT])
{
    if (n < 0)
        return "-";
    return n == 0 ? "0" : cmd_duration((uint64_t)(n * 1e9), out);
}

/* A line, when there is anything to say. */
static void print_faults(const struct lag *g, const struct lag_row *row)
{
    const struct projection_row *r = &row->r;
    char next[CMD_TIME_TEXT];
    if (r->dead_waiting || r->dead_retired || r->dead_parked)
        printf("    dead letters: %llu waiting, %llu retired, %llu parked\n",
               (unsigned long long)r->dead_waiting, (unsigned long long)r->dead_retired,
               (unsigned long long)r->dead_parked);
    if (r->breaker > 1)
        printf("    breaker: %s\n", breaker_state_name(r->breaker));
    if (r->stands_event)
        printf("    stands at event %llu\n", (unsigned long long)r->stands_event);
    if (r->next_attempt_ns)
        printf("    goes on in %s\n", seconds(until(g, r->next_attempt_ns), next));
}

static void print_text(const struct lag *g)
{
    char a[CMD_TIME_TEXT], b[CMD_TIME_TEXT];
    if (g->head_known)
        printf("head: event %llu; ", (unsigned long long)g->head);
    printf("feed: %s\n", g->feed_alive < 0 ? "unknown" : g->feed_alive ? "running" : "not running");
    if (g->store_err.code)
        printf("times are not known: %s\n", g->store_err.message);
    if (!g->rows) {
        puts("no projection is defined here, and none has reported");
        return;
    }
    printf("%-28s %-9s %12s %12s %10s %10s %7s\n", "PROJECTION", "STATE", "CURSOR", "BEHIND", "AGE",
           "PROGRESS", "ERRORS");
    for (uint32_t i = 0; i < g->rows; i++) {
        const struct lag_row *row = &g->row[i];
        char name[96], text[4 * sizeof row->r.error], behind[24] = "-";
        if (row->r.shards > 1)
            snprintf(name, sizeof name, "%s %u/%u", row->r.name, row->r.shard, row->r.shards);
        else
            snprintf(name, sizeof name, "%s", row->r.name);
        if (g->head_known)
            snprintf(behind, sizeof behind, "%llu", (unsigned long long)row->behind);
        printf("%-28s %-9s %12llu %12s %10s %10s %7llu%s\n", name, row->state,
               (unsigned long long)row->r.cursor, behind, seconds(row->seconds_behind, a),
               seconds(row->since_progress, b), (unsigned long long)row->r.errors,
               over(g, row) ? "  OVER" : "");
        print_faults(g, row);
        if (*row->r.error)
            printf("    %s\n", bytes_print(bytes_str(row->r.error), text, sizeof text));
    }
}

/* ---- the command ---- */

static int show(struct lag *g, int json)
{
    int rc = 0;
    look(g);
    if (json)
        rc = print_json(g);
    else
        print_text(g);
    return rc ? rc : any_over(g) ? 1 : 0;
}

static int watch(struct lag *g, int json)
{
    int rc = 0;
    cmd_catch_signals();
    while (!cmd_interrupted()) {
        if (!json && isatty(STDOUT_FILENO))
            printf("\033[H\033[2J");
        rc = show(g, json);
        if (fflush(stdout))
            break;
        cmd_sleep_ms(1000);
    }
    return rc;
}

/* The row that has not applied `id`, or NULL. */
static const struct lag_row *first_behind(const struct lag *g, uint64_t id)
{
    for (uint32_t i = 0; i < g->rows; i++)
        if (g->row[i].r.cursor < id)
            return &g->row[i];
    return NULL;
}

static int wait_for(struct lag *g, const struct cmd_number *id, uint64_t timeout_ms, int json)
{
    uint64_t until = clock_mono_ns() + timeout_ms * NS_PER_MS;
    cmd_catch_signals();
    look(g);
    uint64_t want = id->has ? id->n : g->head;
    if (!id->has && !g->head_known)
        return cmd_fail(&g->store_err);
    if (g->rows == 0)
        return cmd_fail_code(
            AZOTH_ERR_NOT_FOUND,
            "there is nothing to wait for: no projection is defined or has reported");
    const struct lag_row *behind;
    while ((behind = first_behind(g, want)) && clock_mono_ns() < until && !cmd_interrupted()) {
        /* Rows change without waking anybody: a look at shared memory now and then. */
        cmd_sleep_ms(WAIT_LOOK_MS);
        read_rows(g);
    }
    if (behind)
        return cmd_fail_code(
            AZOTH_ERR_TIMEOUT, "projection %s has applied up to event %llu, not yet event %llu",
            behind->r.name, (unsigned long long)behind->r.cursor, (unsigned long long)want);
    return show(g, json);
}

static int check_names(const struct lag *g)
{
    for (int i = 0; i < g->names.n; i++)
        if (!has_row(g, g->names.text[i]))
            return cmd_fail_code(AZOTH_ERR_NOT_FOUND,
                                 "no projection %s is defined here, and none has reported",
                                 g->names.text[i]);
    return 0;
}

static int run_lag(struct cmd_line *l)
{
    static struct lag g;
    struct cmd_number wait = {0}, timeout = {.n = 30000};
    struct azoth_error err;
    int watches = 0;
    const struct cmd_flag flags[] = {
        {"--watch", FLAG_SWITCH, &watches},         {"--max-events", FLAG_NUMBER, &g.events_max},
        {"--max-seconds", FLAG_SECONDS, &g.ms_max}, {"--wait", FLAG_MAYBE, &wait},
        {"--timeout", FLAG_SECONDS, &timeout},      {NULL, 0, NULL},
    };
    int rc = cmd_flags(l, flags, 0, CMD_WORDS_MAX);
    if (rc)
        return rc;
    if (watches && wait.given)
        return cmd_usage(l, "--watch and --wait exclude each other");
    rc = cmd_dir(l, NULL, 1, g.dir, sizeof g.dir);
    if (rc)
        return rc;
    if (config_load(&g.config, g.dir, &err))
        return cmd_fail(&err);
    for (int i = 0; i < l->words; i++)
        g.names.text[g.names.n++] = l->word[i];
    read_rows(&g);
    rc = check_names(&g);
    if (rc)
        return rc;
    if (wait.given)
        return wait_for(&g, &wait, timeout.n, l->json);
    return watches ? watch(&g, l->json) : show(&g, l->json);
}

const struct cmd cmd_lag = {
    .name = "lag",
    .synopsis =
        "[NAME ...] [--max-events N] [--max-seconds TIME] [--wait [EVENT]] [--timeout TIME] "
        "[--watch] [--json]",
    .summary = "How far each projection is behind the log",
    .help =
        "  --max-events N     exit code 1 when one is more than N events behind\n"
        "  --max-seconds TIME exit code 1 when the oldest event not applied is older: 5, 500ms, "
        "2min\n"
        "  --wait [EVENT]     wait until this event (default: the newest now) is applied by all\n"
        "  --timeout TIME     of --wait; default 30 s; exit code 1 when it passes\n"
        "  --watch            once a second, until Ctrl-C\n"
        "  --json             one object (with --watch one a line)\n\n"
        "AGE is the age of the oldest event that is not applied, PROGRESS the time since the "
        "cursor\n"
        "moved. Dead letters, an open breaker and the event that is tried again are told below it. "
        "States: starting, running, idle (at the head), retrying (stands at an event that "
        "failed),\n"
        "open (its breaker), failed, stopped, silent (not heard "
        "for\n"
        "longer than feed.lapse, or there is no feed), diverged (ahead of the log), unseen "
        "(defined,\n"
        "but nobody has reported).\n\n"
        "  azoth lag --max-events 1000 --max-seconds 10 || alert\n"
        "  azoth tx \"$REQUEST\" && azoth lag accounts --wait && azoth query accounts 'SELECT "
        "...'\n",
    .run = run_lag,
};
