/*
 * dlq.c - azoth dlq: the dead letters of a projection.
 *
 * Listing reads the projection's file like any query. What changes it goes to the projector, whose
 * connection is the only one that writes; when none runs, this process takes the projection's lock and does
 * what the projector would. One that dies, starts or stops in between is met by asking again, or doing it
 * here, under the same id: each command happens once.
 */
#include "client/cmd/cmd.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "core/valuejson.h"
#include "projector/control.h"
#include "projector/effects.h"
#include "projector/split.h"
#include "projector/table.h"
#include "projector/target.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define OWN_NS   NS_PER_S /* the lock is held no longer at a time: a projector may be starting */
#define AGAIN_MS 10u

struct dlq {
    struct cmd_line *l;
    const char *name;
    uint32_t shard, shards; /* where the letter at hand is */
    char stem[SPLIT_STEM];
    char dir[4096], projections[4200], run_dir[4096];
    struct cmd_number timeout; /* in ms */
    int all;
    struct sqlfile def;
    struct table *table; /* or, of effects, the next; NULL: the lock is not ours */
    struct effects *effects;
    uint64_t opened_ns;
    uint64_t *event;
    size_t events;
    struct buf out;
    uint64_t rows;
    int failed;
};

/* ---- reading ---- */

static int query(struct dlq *d, const char *sql, query_row row, struct azoth_error *err)
{
    return query_run(d->projections, d->name, sql, row, d, err);
}

static int on_any(void *arg, int n, const char *const *names, const struct query_value *v)
{
    struct dlq *d = arg;
    (void)n;
    (void)names;
    d->rows += v != NULL;
    return 0;
}

/* Whether the projection has the table: a file of a version before it has none. */
static int has_table(struct dlq *d, struct azoth_error *err)
{
    char conninfo[SQLFILE_CONNINFO_MAX + 1];
    d->rows = 0;
    int rc = target_is_server(d->projections, d->name, conninfo, err);
    if (rc >= 0)
        rc = query(d,
                   rc ? "SELECT 1 WHERE to_regclass('azoth_dlq') IS NOT NULL"
                      : "SELECT 1 FROM pragma_table_info('azoth_dlq')",
                   on_any, err);
    int has = d->rows > 0;
    d->rows = 0;
    return rc ? rc : has;
}

static int add_member(struct buf *out, const char *key, const struct query_value *v)
{
    int rc = json_add_string(out, bytes_str(key), 1);
    if (!rc)
        rc = buf_add_str(out, ":");
    if (rc)
        return rc;
    switch (v->type) {
    case QUERY_INTEGER:
        return buf_addf(out, "%lld", (long long)v->integer);
    case QUERY_TEXT:
        return json_add_string(out, v->bytes, 1);
    case QUERY_BLOB:
        /* In SQLite what is text was stored as text; PostgreSQL's columns have one type. */
        if (utf8_valid(v->bytes))
            return json_add_string(out, v->bytes, 1);
        rc = buf_add_str(out, "{\"bytes\":\"");
        if (!rc)
            rc = base64_encode(out, v->bytes);
        return rc ? rc : buf_add_str(out, "\"}");
    default:
        return buf_add_str(out, "null");
    }
}

static int on_json(void *arg, int n, const char *const *names, const struct query_value *v)
{
    struct dlq *d = arg;
    if (!v)
        return 0;
    d->rows++;
    d->failed = buf_add_str(&d->out, "{");
    for (int i = 0; i < n && !d->failed; i++) {
        if (i)
            d->failed = buf_add_str(&d->out, ",");
        if (!d->failed)
            d->failed = add_member(&d->out, names[i], &v[i]);
    }
    if (!d->failed)
        d->failed = buf_add_str(&d->out, "}\n");
    if (d->out.len > 1u << 20) {
        cmd_write(&d->out);
        buf_clear(&d->out);
    }
    return d->failed;
}

static const char *shown(const struct query_value *v, char *out, size_t size)
{
    if (v->type == QUERY_INTEGER)
        snprintf(out, size, "%lld", (long long)v->integer);
    else
        bytes_print(v->bytes, out, size);
    return out;
}

static int on_line(void *arg, int n, const char *const *names, const struct query_value *v)
{
    struct dlq *d = arg;
    char event[24], type[40], state[12], attempts[24], error[400], time[CMD_TIME_TEXT];
    (void)names;
    if (!v || n < 7)
        return 0;
    if (!d->rows++)
        printf("%12s %-9s %-20s %8s %-24s %s\n", "EVENT", "STATE", "TYPE", "ATTEMPTS", "LAST",
               "ERROR");
    printf("%12s %-9s %-20s %8s %-24s %s\n", shown(&v[0], event, sizeof event),
           shown(&v[1], state, sizeof state), shown(&v[2], type, sizeof type),
           shown(&v[3], attempts, sizeof attempts), cmd_time(v[4].integer, time),
           shown(&v[6], error, sizeof error));
    return 0;
}

static int on_member(void *arg, int n, const char *const *names, const struct query_value *v)
{
    struct dlq *d = arg;
    for (int i = 0; v && i < n; i++) {
        char text[4096], time[CMD_TIME_TEXT];
        int is_time = strstr(names[i], "time") || strstr(names[i], "_failure") ||
                      strstr(names[i], "_attempt");
        printf("%-14s %s\n", names[i],
               is_time ? cmd_time(v[i].integer, time) : shown(&v[i], text, sizeof text));
    }
    d->rows += v != NULL;
    return 0;
}

#define COLUMNS "SELECT event, state, type, attempts, last_failure, next_attempt, error"
#define ALL_COLUMNS                                                                                \
    "SELECT event, type, key, time, txn, payload, state, code, error, attempts, first_failure, "   \
    "last_failure, next_attempt, value FROM azoth_dlq "

/* list, show, export: one query. */
static int print_rows(struct dlq *d, const char *sql, query_row row, const char *missing)
{
    struct azoth_error err = {0};
    int rc = has_table(d, &err);
    if (rc == 1)
        rc = query(d, sql, row, &err);
    if (!rc && d->failed)
        rc = error_set(&err, d->failed, "a row: %s", azoth_code_sentence(d->failed));
    cmd_write(&d->out);
    if (!rc && missing && !d->rows)
        rc = error_set(&err, AZOTH_ERR_NOT_FOUND, "%s", missing);
    return rc ? cmd_fail(&err) : 0;
}

static int list(struct dlq *d)
{
    int rc = print_rows(d, COLUMNS " FROM azoth_dlq ORDER BY event", d->l->json ? on_json : on_line,
                        NULL);
    if (!rc && !d->rows && !d->l->json)
        puts("there are no dead letters");
    return rc;
}

static int export(struct dlq *d)
{
    return print_rows(d, ALL_COLUMNS "ORDER BY event", on_json, NULL);
}

static int show(struct dlq *d)
{
    char sql[400], missing[80];
    snprintf(sql, sizeof sql, ALL_COLUMNS "WHERE event = %llu", (unsigned long long)d->event[0]);
    snprintf(missing, sizeof missing, "event %llu is no dead letter here",
             (unsigned long long)d->event[0]);
    return print_rows(d, sql, d->l->json ? on_json : on_member, missing);
}

/* ---- changing ---- */

static void give_up_lock(struct dlq *d)
{
    table_close(d->table);
    effects_close(d->effects);
    d->table = NULL;
    d->effects = NULL;
    sqlfile_fini(&d->def);
}

/* DUPLICATE: a projector has it. */
static int take_lock(struct dlq *d, struct azoth_error *err)
{
    char path[4400];
    struct table_options o = {.dir = d->projections, .shard = d->shard, .shards = d->shards};
    int rc = dbdir_path(path, sizeof path, d->projections, "%s.sql", d->name)
                 ? error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", d->projections)
                 : sqlfile_read(path, &d->def, err);
    if (!rc)
        rc = d->def.effects[0] ? effects_open(&d->def, &o, clock_mono_ns(), &d->effects, err)
                               : table_open(&d->def, &o, &d->table, err);
    if (rc)
        sqlfile_fini(&d->def);
    d->opened_ns = clock_mono_ns();
    return rc;
}

/* Here, under the lock; and what it released, as the projector would. */
static int do_here(struct dlq *d, const uint8_t *id, const char *text,
                   char answer[COMMAND_ANSWER_MAX], struct azoth_error *err)
{
    int rc = d->table ? table_command(d->table, id, text, answer, err)
                      : effects_command(d->effects, id, text, answer, err);
    for (int step = 1; !rc && d->table && step == 1 && table_has_released(d->table);) {
        step = table_replay_step(d->table, err);
        rc = step < 0 ? step : 0;
    }
    if (rc || clock_mono_ns() - d->opened_ns > OWN_NS)
        give_up_lock(d);
    return rc;
}

static int ask(struct dlq *d, const char *text, char answer[COMMAND_ANSWER_MAX],
               struct azoth_error *err)
{
    uint8_t id[COMMAND_ID_BYTES];
    uint64_t until = clock_mono_ns() + d->timeout.n * NS_PER_MS;
    if (getrandom(id, sizeof id, 0) != sizeof id)
        return error_set(err, AZOTH_ERR_IO, "random bytes");
    for (;;) {
        if (d->table || d->effects)
            return do_here(d, id, text, answer, err);
        uint64_t now = clock_mono_ns();
        int left_ms = until > now ? (int)((until - now) / NS_PER_MS) : 0;
        int rc = control_ask(d->run_dir, d->stem, id, text, left_ms, answer, err);
        /* It is about to open another file, and has done nothing. */
        if (!rc && strncmp(answer, "refused ", 8) == 0)
            rc = AZOTH_ERR_UNREACHABLE;
        if (rc != AZOTH_ERR_UNREACHABLE)
            return rc;
        rc = take_lock(d, err);
        if (rc && rc != AZOTH_ERR_DUPLICATE)
            return rc;
        /* It starts, or ends, or its socket is in another run directory. */
        if (rc && clock_mono_ns() >= until)
            return error_set(
                err, AZOTH_ERR_UNREACHABLE,
                "who projects %s does not listen in %.120s: a process that projects by "
                "itself, or one with another run directory",
                d->stem, d->run_dir);
        if (rc)
            cmd_sleep_ms(AGAIN_MS);
    }
}

static void print_answer(const struct dlq *d, uint64_t event, const char *answer)
{
    size_t n = strcspn(answer, " :");
    if (!d->l->json) {
        printf("event %llu: %s\n", (unsigned long long)event, answer);
        return;
    }
    char result[20];
    struct json_text j = {0};
    snprintf(result, sizeof result, "%.*s", (int)n, answer);
    out_open(&j, NULL, '{');
    out_u64(&j, "event", event);
    out_str(&j, "result", result);
    out_str(&j, "detail", answer[n] ? answer + n + strspn(answer + n, " :") : NULL);
    out_close(&j, '}');
    out_print(&j);
}

/* To the shard whose letter it is; when it is nobody's, any of them says so. */
static int find_shard(struct dlq *d, uint64_t event, struct azoth_error *err)
{
    char sql[80];
    uint32_t was = d->shard;
    int rc = 0;
    snprintf(sql, sizeof sql, "SELECT 1 FROM azoth_dlq WHERE event = %llu",
             (unsigned long long)event);
    d->rows = 0;
    for (uint32_t i = 0; !rc && d->shards > 1 && d->rows == 0 && i < d->shards; i++) {
        d->shard = i;
        rc = query_run_shard(d->projections, d->name, i, d->shards, sql, on_any, d, err);
    }
    if (d->shard != was)
        give_up_lock(d);
    split_stem(d->stem, d->name, d->shard, d->shards);
    return rc;
}

static int change(struct dlq *d, const char *verb)
{
    int worst = 0;
    struct azoth_error none = {0};
    if (split_serving(d->projections, d->name, &d->shards, &none))
        return cmd_fail(&none);
    cmd_catch_signals();
    for (size_t i = 0; i < d->events && !cmd_interrupted(); i++) {
        char text[COMMAND_TEXT_MAX], answer[COMMAND_ANSWER_MAX];
        struct azoth_error err = {0};
        snprintf(text, sizeof text, "%s %llu", verb, (unsigned long long)d->event[i]);
        int rc = find_shard(d, d->event[i], &err);
        if (!rc)
            rc = ask(d, text, answer, &err);
        if (rc) {
            give_up_lock(d);
            return cmd_fail(&err);
        }
        print_answer(d, d->event[i], answer);
        if (strcmp(answer, "applied") != 0 && strcmp(answer, "dropped") != 0 &&
            strcmp(answer, "queued") != 0)
            worst = 1;
    }
    give_up_lock(d);
    return cmd_interrupted() ? 1 : worst;
}

static int add_event(struct dlq *d, uint64_t event)
{
    uint64_t *more = realloc(d->event, (d->events + 1) * sizeof *more);
    if (!more)
        return d->failed = AZOTH_ERR_NOMEM;
    d->event = more;
    d->event[d->events++] = event;
    return 0;
}

static int on_event(void *arg, int n, const char *const *names, const struct query_value *v)
{
    (void)names;
    return v && n == 1 ? add_event(arg, (uint64_t)v[0].integer) : 0;
}

static int change_all(struct dlq *d, const char *verb, const char *sql)
{
    int rc = print_rows(d, sql, on_event, NULL);
    return rc ? rc : change(d, verb);
}

/* ---- the command ---- */

static int take_events(struct dlq *d)
{
    for (int i = 2; i < d->l->words; i++) {
        char *end;
        unsigned long long n = strtoull(d->l->word[i], &end, 10);
        if (*end || d->l->word[i][0] < '0' || d->l->word[i][0] > '9' || n == 0 || n > INT64_MAX)
            return cmd_usage(d->l, "%s is no event's number", d->l->word[i]);
        if (add_event(d, n))
            return cmd_fail_code(AZOTH_ERR_NOMEM, "the events");
    }
    return 0;
}

static int dispatch(struct dlq *d)
{
    const char *what = d->l->word[0];
    int changes = strcmp(what, "retry") == 0 || strcmp(what, "drop") == 0;
    if (d->all && strcmp(what, "drop") != 0)
        return cmd_usage(d->l, "--all is of drop");
    if ((changes || strcmp(what, "show") == 0) && (d->events == 0) == !d->all)
        return cmd_usage(d->l, "%s wants the numbers of events", what);
    if (!changes && strcmp(what, "show") != 0 && d->events)
        return cmd_usage(d->l, "%s takes no events", what);
    if (strcmp(what, "list") == 0)
        return list(d);
    if (strcmp(what, "export") == 0)
        return export(d);
    if (strcmp(what, "show") == 0)
        return d->events == 1 ? show(d) : cmd_usage(d->l, "show wants one event");
    if (strcmp(what, "retry-all") == 0)
        return change_all(d, "retry",
                          "SELECT event FROM azoth_dlq WHERE state <> 'parked' ORDER BY event");
    /* The newest first: what waits behind another one is not let go before it is dropped itself. */
    if (d->all)
        return change_all(d, "drop", "SELECT event FROM azoth_dlq ORDER BY event DESC");
    if (changes)
        return change(d, what);
    return cmd_usage(d->l, "there is no dlq %s", what);
}

static int run_dlq(struct cmd_line *l)
{
    struct dlq d = {.l = l, .shards = 1, .timeout = {.n = 30000}};
    struct azoth_error err = {0};
    static struct config config;
    const struct cmd_flag flags[] = {
        {"--all", FLAG_SWITCH, &d.all}, {"--timeout", FLAG_SECONDS, &d.timeout}, {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 2, CMD_WORDS_MAX);
    if (!rc)
        rc = cmd_dir(l, NULL, 1, d.dir, sizeof d.dir);
    if (rc)
        return rc;
    d.name = l->word[1];
    if (!dbdir_name_valid(d.name))
        return cmd_usage(l, "%s is no name of a projection", d.name);
    if (d.timeout.n > 3600000)
        return cmd_usage(l, "--timeout is at most an hour");
    if (dbdir_path(d.projections, sizeof d.projections, d.dir, "projections"))
        return cmd_usage(l, "%s: the path is too long", d.dir);
    if (config_load(&config, d.dir, &err) ||
        cmd_find_run_dir(d.dir, &config, d.run_dir, sizeof d.run_dir, &err))
        return cmd_fail(&err);
    rc = take_events(&d);
    if (!rc)
        rc = has_table(&d, &err) < 0 ? cmd_fail(&err) : dispatch(&d);
    buf_fini(&d.out);
    free(d.event);
    return rc;
}

const struct cmd cmd_dlq = {
    .name = "dlq",
    .synopsis = "list|show|retry|retry-all|drop|export NAME [EVENT ...] [--all] [--timeout TIME] "
                "[--json]",
    .summary = "The dead letters of a projection",
    .help =
        "  list NAME               one line each: waiting, retired (the automatic replay gave "
        "up),\n"
        "                          or parked behind an earlier one of the same order-by value\n"
        "  show NAME EVENT         everything about one\n"
        "  retry NAME EVENT ...    try them again now, each in a transaction of its own; of "
        "effects they\n"
        "                          are queued for a worker\n"
        "  retry-all NAME          all that are not parked, the oldest first\n"
        "  drop NAME EVENT ...     forget them; what waits behind them goes on\n"
        "  drop NAME --all         all of them\n"
        "  export NAME             everything about all, one JSON object a line\n"
        "  --timeout TIME          of each retry or drop; default 30 s\n"
        "  --json                  one object a line\n\n"
        "Exit code 1: an event was tried and failed, or is none of them. A running projector does "
        "the\n"
        "work; without one it is done here.\n\n"
        "  azoth dlq list accounts\n"
        "  azoth dlq retry accounts 4711\n",
    .run = run_dlq,
};
