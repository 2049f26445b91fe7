/*
 * lag.c - azoth lag: prints what lag_look.c has seen, and waits for it.
 */
#include "client/cmd/lag.h"

#include "core/clock.h"

#include <string.h>
#include <unistd.h>

#define WAIT_LOOK_MS   10u
#define WATCH_LEAST_MS 10u

/* What the command was asked for, beside the rows. */
struct limits {
    struct cmd_number events_max, ms_max;
};
static struct limits limits;

/* ---- output ---- */

static int limited(void)
{
    return limits.events_max.given || limits.ms_max.given;
}

/* It has applied what is not in the log: how far it is behind is not known. */
static int diverged(const struct lag *g, const struct lag_row *row)
{
    return g->head_known && row->r.cursor > projection_row_head(&row->r, g->head);
}

static int over(const struct lag *g, const struct lag_row *row)
{
    if (!g->head_known || diverged(g, row))
        return limited(); /* not known to be within */
    return (limits.events_max.given && row->behind > limits.events_max.n) ||
           (limits.ms_max.given && (row->seconds_behind * 1e3 > (double)limits.ms_max.n ||
                                    (row->behind && row->seconds_behind < 0)));
}

/* Only what is followed is to come close to the head at all times. */
static int backup_over(const struct lag_backup *b)
{
    if (!b->followed || !limited())
        return 0;
    return strcmp(b->state, "broken") == 0 ||
           (limits.events_max.given && b->behind > limits.events_max.n) ||
           (limits.ms_max.given && b->seconds_behind * 1e3 > (double)limits.ms_max.n);
}

static int any_over(const struct lag *g)
{
    for (uint32_t i = 0; i < g->backups && !g->names.n; i++)
        if (backup_over(&g->backup[i]))
            return 1;
    for (uint32_t i = 0; i < g->rows; i++)
        if (over(g, &g->row[i]))
            return 1;
    return g->left_out && limited();
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

/* Why it is down, or does not go on. */
static void json_failure(struct json_text *j, const struct lag_row *row)
{
    if (!row->failed) {
        out_null(j, "last_failure");
        return;
    }
    const struct last_words *w = &row->last;
    out_open(j, "last_failure", '{');
    u64_or_null(j, "event", w->event != 0, w->event);
    out_str(j, "code", w->code ? azoth_code_name(w->code) : NULL);
    out_str(j, "message", w->message);
    out_i64(j, "since_ns", w->since_ns);
    out_i64(j, "at_ns", w->at_ns);
    out_u64(j, "times", w->times);
    out_close(j, '}');
}

/* Who starts it again, and when; or that nobody does. */
static void json_supervisor(struct json_text *j, const struct lag *g, const struct supervised *s)
{
    char text[600];
    if (s->state == SUPERVISED_UNKNOWN) {
        out_null(j, "supervisor");
        return;
    }
    lag_supervisor_text(g, s, text, sizeof text);
    out_open(j, "supervisor", '{');
    out_str(j, "by", s->by);
    out_str(j, "unit", s->unit);
    out_str(j, "state", supervised_state_name(s->state));
    real_or_null(j, "next_start_s", lag_until(g, s->next_start_ns));
    out_u64(j, "starts_again", s->starts);
    u64_or_null(j, "exit_code", s->exit_code >= 0, (uint64_t)(s->exit_code < 0 ? 0 : s->exit_code));
    out_str(j, "result", *s->result ? s->result : NULL);
    out_str(j, "advice", *text ? text : NULL);
    out_close(j, '}');
}

static void json_backups(struct json_text *j, const struct lag *g)
{
    out_open(j, "backups", '[');
    for (uint32_t i = 0; i < g->backups && !g->names.n; i++) {
        const struct lag_backup *b = &g->backup[i];
        out_open(j, NULL, '{');
        out_str(j, "place", b->place);
        out_str(j, "state", b->state);
        out_bool(j, "followed", b->followed);
        out_u64(j, "event", b->event);
        out_u64(j, "transaction", b->txn);
        out_u64(j, "behind", b->behind);
        out_u64(j, "transactions_behind", b->txns_behind);
        out_real(j, "seconds_behind", b->seconds_behind);
        out_bool(j, "over_limit", backup_over(b));
        out_close(j, '}');
    }
    out_close(j, ']');
}

static int print_json(const struct lag *g)
{
    struct json_text j = {0};
    out_open(&j, NULL, '{');
    u64_or_null(&j, "head", g->head_known, g->head);
    real_or_null(&j, "head_events_s", g->head_rate);
    if (g->feed_alive < 0)
        out_null(&j, "feed_alive");
    else
        out_bool(&j, "feed_alive", g->feed_alive);
    out_bool(&j, "over_limit", any_over(g));
    out_str(&j, "writes", view_writes_name(g->pauses.writes));
    json_pauses(&j, &g->pauses, g->now_ns);
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
        real_or_null(&j, "events_s", row->rate);
        real_or_null(&j, "catch_up_s", row->catch_up);
        out_u64(&j, "errors", row->r.errors);
        out_str(&j, "breaker", breaker_state_name(row->r.breaker));
        out_open(&j, "dead_letters", '{');
        out_u64(&j, "waiting", row->r.dead_waiting);
        out_u64(&j, "retired", row->r.dead_retired);
        out_u64(&j, "parked", row->r.dead_parked);
        out_close(&j, '}');
        u64_or_null(&j, "stands_at_event", row->r.stands_event != 0, row->r.stands_event);
        real_or_null(&j, "next_attempt_s", lag_until(g, row->r.next_attempt_ns));
        out_str(&j, "error", *row->r.error ? row->r.error : NULL);
        json_failure(&j, row);
        json_supervisor(&j, g, &row->supervised);
        out_bool(&j, "over_limit", over(g, row));
        out_close(&j, '}');
    }
    out_close(&j, ']');
    json_backups(&j, g);
    if (g->left_out)
        out_u64(&j, "left_out", g->left_out);
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
    if (row->behind && row->rate >= 0)
        printf("    applies %.0f events/s, the log grows by %.0f/s: %s%s\n", row->rate,
               g->head_rate < 0 ? 0 : g->head_rate,
               row->catch_up < 0 ? "does not catch up" : "caught up in ",
               row->catch_up < 0 ? "" : seconds(row->catch_up, next));
    if (r->dead_waiting || r->dead_retired || r->dead_parked)
        printf("    dead letters: %llu waiting, %llu retired, %llu parked\n",
               (unsigned long long)r->dead_waiting, (unsigned long long)r->dead_retired,
               (unsigned long long)r->dead_parked);
    if (r->breaker > 1)
        printf("    breaker: %s\n", breaker_state_name(r->breaker));
    if (r->stands_event && !row->failed)
        printf("    stands at event %llu\n", (unsigned long long)r->stands_event);
    if (r->next_attempt_ns)
        printf("    goes on in %s\n", seconds(lag_until(g, r->next_attempt_ns), next));
}

static void print_failure(const struct lag_row *row)
{
    const struct last_words *w = &row->last;
    char text[4 * sizeof row->r.error], since[CMD_TIME_TEXT], at[CMD_TIME_TEXT];
    if (*row->r.error)
        printf("    %s\n", bytes_print(bytes_str(row->r.error), text, sizeof text));
    if (!row->failed)
        return;
    if (strcmp(w->message, row->r.error) != 0)
        printf("    ended with: %s%s%s%s\n", bytes_print(bytes_str(w->message), text, sizeof text),
               w->code ? " (" : "", w->code ? azoth_code_name(w->code) : "", w->code ? ")" : "");
    printf("    ");
    if (w->event)
        printf("stands at event %llu; ", (unsigned long long)w->event);
    printf("since %s", cmd_time(w->since_ns, since));
    if (w->times > 1)
        printf(", %llu times, at %s last", (unsigned long long)w->times, cmd_time(w->at_ns, at));
    puts("");
}

static void print_backups(const struct lag *g)
{
    char age[CMD_TIME_TEXT];
    if (!g->backups || g->names.n)
        return;
    printf("%-34s %-9s %12s %12s %10s\n", "PLACE OF BACKUPS", "STATE", "EVENT", "BEHIND", "AGE");
    for (uint32_t i = 0; i < g->backups; i++) {
        const struct lag_backup *b = &g->backup[i];
        printf("%-34s %-9s %12llu %12llu %10s%s\n", b->place, b->state,
               (unsigned long long)b->event, (unsigned long long)b->behind,
               seconds(b->seconds_behind, age), backup_over(b) ? "  OVER" : "");
    }
}

static void print_rows(const struct lag *g)
{
    char a[CMD_TIME_TEXT], b[CMD_TIME_TEXT], text[600];
    if (!g->rows) {
        puts("no projection is defined here, and none has reported");
        return;
    }
    printf("%-28s %-9s %12s %12s %10s %10s %7s\n", "PROJECTION", "STATE", "CURSOR", "BEHIND", "AGE",
           "PROGRESS", "ERRORS");
    for (uint32_t i = 0; i < g->rows; i++) {
        const struct lag_row *row = &g->row[i];
        char name[96], behind[24] = "-";
        lag_name(row, name);
        if (g->head_known)
            snprintf(behind, sizeof behind, "%llu", (unsigned long long)row->behind);
        printf("%-28s %-9s %12llu %12s %10s %10s %7llu%s\n", name, row->state,
               (unsigned long long)row->r.cursor, behind, seconds(row->seconds_behind, a),
               seconds(row->since_progress, b), (unsigned long long)row->r.errors,
               over(g, row) ? "  OVER" : "");
        print_faults(g, row);
        print_failure(row);
        if (*lag_supervisor_text(g, &row->supervised, text, sizeof text))
            printf("    %s\n", text);
    }
    if (g->left_out)
        printf("%u more are not told of: name those that are wanted\n", g->left_out);
}

static void print_text(const struct lag *g)
{
    if (g->head_known)
        printf("head: event %llu; ", (unsigned long long)g->head);
    printf("feed: %s\n", g->feed_alive < 0 ? "unknown" : g->feed_alive ? "running" : "not running");
    if (g->pauses.writes != WRITES_OPEN)
        print_pauses("writes: ", &g->pauses, g->now_ns);
    if (g->store_err.code)
        printf("times are not known: %s\n", g->store_err.message);
    print_rows(g);
    print_backups(g);
}

/* ---- the command ---- */

static int show(struct lag *g, int json)
{
    int rc = 0;
    lag_look(g);
    lag_ask_supervisor(g);
    if (json)
        rc = print_json(g);
    else
        print_text(g);
    return rc ? rc : any_over(g) ? 1 : 0;
}

static int watch(struct lag *g, uint64_t every_ms, int json)
{
    int rc = 0;
    cmd_catch_signals();
    while (!cmd_interrupted()) {
        if (!json && isatty(STDOUT_FILENO))
            printf("\033[H\033[2J");
        rc = show(g, json);
        if (fflush(stdout))
            break;
        cmd_sleep_ms(every_ms);
    }
    return rc;
}

/* The row that has not applied `id` of this log, or NULL. */
static const struct lag_row *first_behind(const struct lag *g, uint64_t id)
{
    for (uint32_t i = 0; i < g->rows; i++)
        if (g->row[i].r.cursor < id || diverged(g, &g->row[i]))
            return &g->row[i];
    return NULL;
}

static int not_applied(const struct lag *g, const struct lag_row *row, uint64_t id)
{
    char name[96];
    lag_name(row, name);
    if (diverged(g, row))
        return cmd_fail_code(
            AZOTH_ERR_TIMEOUT,
            "projection %s has applied up to event %llu, which is not in the log: it follows "
            "another history",
            name, (unsigned long long)row->r.cursor);
    return cmd_fail_code(AZOTH_ERR_TIMEOUT,
                         "projection %s has applied up to event %llu, not yet event %llu", name,
                         (unsigned long long)row->r.cursor, (unsigned long long)id);
}

static int wait_for(struct lag *g, const struct cmd_number *id, uint64_t timeout_ms, int json)
{
    uint64_t until = clock_mono_ns() + timeout_ms * NS_PER_MS;
    cmd_catch_signals();
    lag_look(g);
    uint64_t want = id->has ? id->n : g->head;
    if (!id->has && !g->head_known)
        return cmd_fail(&g->store_err);
    if (g->rows == 0)
        return cmd_fail_code(
            AZOTH_ERR_NOT_FOUND,
            "there is nothing to wait for: no projection is defined or has reported");
    if (g->left_out)
        return cmd_fail_code(AZOTH_ERR_FULL,
                             "%u of the projections cannot be waited for at once: "
                             "name those that are wanted",
                             g->rows + g->left_out);
    const struct lag_row *behind;
    while ((behind = first_behind(g, want)) && clock_mono_ns() < until && !cmd_interrupted()) {
        /* Rows change without waking anybody: a look at shared memory now and then. */
        cmd_sleep_ms(WAIT_LOOK_MS);
        lag_read_rows(g);
    }
    if (behind)
        return not_applied(g, behind, want);
    return show(g, json);
}

static int check_names(const struct lag *g)
{
    for (int i = 0; i < g->names.n; i++)
        if (!lag_has_row(g, g->names.text[i]))
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
    struct cmd_number watches = {.n = 1000};
    const struct cmd_flag flags[] = {
        {"--watch", FLAG_MAYBE_SECONDS, &watches},
        {"--max-events", FLAG_NUMBER, &limits.events_max},
        {"--max-seconds", FLAG_SECONDS, &limits.ms_max},
        {"--wait", FLAG_MAYBE, &wait},
        {"--timeout", FLAG_SECONDS, &timeout},
        {NULL, 0, NULL},
    };
    int rc = cmd_flags(l, flags, 0, CMD_WORDS_MAX);
    if (rc)
        return rc;
    if (watches.given && wait.given)
        return cmd_usage(l, "--watch and --wait exclude each other");
    if (watches.n < WATCH_LEAST_MS)
        return cmd_usage(l, "--watch looks every %u ms at most", WATCH_LEAST_MS);
    if (timeout.given && !wait.given)
        return cmd_usage(l, "--timeout is how long --wait waits");
    rc = cmd_dir(l, NULL, 1, g.dir, sizeof g.dir);
    if (rc)
        return rc;
    if (config_load(&g.config, g.dir, &err))
        return cmd_fail(&err);
    for (int i = 0; i < l->words; i++)
        g.names.text[g.names.n++] = l->word[i];
    lag_read_rows(&g);
    rc = check_names(&g);
    if (rc)
        return rc;
    if (wait.given)
        return wait_for(&g, &wait, timeout.n, l->json);
    return watches.given ? watch(&g, watches.n, l->json) : show(&g, l->json);
}

const struct cmd cmd_lag = {
    .name = "lag",
    .synopsis =
        "[NAME ...] [--max-events N] [--max-seconds TIME] [--wait [EVENT]] [--timeout TIME] "
        "[--watch [TIME]] [--json]",
    .summary = "How far each projection is behind the log",
    .help =
        "  --max-events N     exit code 1 when one is more than N events behind\n"
        "  --max-seconds TIME exit code 1 when the oldest event not applied is older: 5, 500ms, "
        "2min\n"
        "  --wait [EVENT]     wait until this event (default: the newest now) is applied by all\n"
        "  --timeout TIME     of --wait; default 30 s; exit code 1 when it passes\n"
        "  --watch [TIME]     once a second, or so often, until Ctrl-C\n"
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
        "but nobody has reported).\n"
        "Places of backups that the database keeps something for come last: following, silent "
        "(followed by\n"
        "azoth backup --follow, which does not run), broken, kept (nobody follows: no limit counts "
        "it).\n\n"
        "  azoth lag --max-events 1000 --max-seconds 10 || alert\n"
        "  azoth tx \"$REQUEST\" && azoth lag accounts --wait && azoth query accounts 'SELECT "
        "...'\n",
    .run = run_lag,
};
