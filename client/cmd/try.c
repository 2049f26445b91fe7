/*
 * try.c - azoth projection try: a definition run over the log into a scratch file.
 *
 * Nothing of it waits: of `retry` only what comes behind its last attempt is done, a breaker never opens, what a
 * decision in C wants to try later is tried at once, and what would stop the projection is skipped, counted and
 * told, unless --strict (or a decision in C says so). The handlers are those of the
 * definition, so the rows are what the projection would have.
 *
 * The live projection goes on moving. The scratch is first filled as far as that is now; then the live files are
 * held still for one connection, the scratch follows the few events that came meanwhile, both are compared, and the
 * rest is filled. So a long run keeps no projector from taking its log's space back.
 */
#include "client/cmd/try.h"

#include "client/cmd/progress.h"
#include "client/fill.h"
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/record.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS_TOLD       10u
#define CURSOR_TRIES    50 /* to find the shards of a live projection at one cursor */
#define CURSOR_NAP_MS   20u
#define STEP_NS         (100 * NS_PER_MS)
#define STEP_EVENTS_MAX 50000u

struct trial {
    const struct diff_tell *tell; /* NULL: try_tell.c */
    struct try_result r;
    const struct try_options *o;
    struct sqlfile def, trial; /* trial: the same with strategies that do not wait */
    struct store *store;
    struct table *table;
    struct fill *fill;
    struct diff *diff;
    char projections[4200], dir[4200], path[4300]; /* dir: made for the scratch file, or "" */
    int made;                                      /* the scratch file is there, or parts of it */
    struct progress progress;
    uint64_t step; /* events of the next transaction */
};

/* ---- strategies that do not wait ---- */

static struct sql_policy at_once(struct sql_policy p, int strict)
{
    if (p.strategy == STRATEGY_RETRY)
        p.strategy = p.then;
    if (p.strategy == STRATEGY_FAIL_FAST && !strict)
        p.strategy = STRATEGY_LOG_AND_SKIP;
    return p;
}

static int stops(const struct sql_policy *p)
{
    return at_once(*p, 1).strategy == STRATEGY_FAIL_FAST;
}

static int without_waits(struct trial *t, struct azoth_error *err)
{
    const struct sqlfile *d = &t->def;
    t->trial = *d;
    t->trial.policy = at_once(d->policy, t->o->strict);
    t->trial.breaker = (struct sql_breaker){0};
    t->trial.replay = (struct sql_replay){0};
    t->trial.policy_for = calloc(d->policies + 1, sizeof *d->policy_for);
    if (!t->trial.policy_for)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", d->path);
    for (uint32_t i = 0; i < d->policies; i++) {
        t->trial.policy_for[i] = d->policy_for[i];
        t->trial.policy_for[i].policy = at_once(d->policy_for[i].policy, t->o->strict);
    }
    return 0;
}

/* ---- types ---- */

static int compare_types(const void *a, const void *b)
{
    return bytes_cmp(((const struct try_type *)a)->name, ((const struct try_type *)b)->name);
}

static struct try_type *find_type(struct try_result *r, struct azoth_bytes name)
{
    const struct try_type want = {.name = name};
    return bsearch(&want, r->type, r->types, sizeof want, compare_types);
}

static int list_types(struct trial *t, struct azoth_error *err)
{
    const struct sqlfile *d = &t->def;
    struct try_result *r = &t->r;
    size_t n = 0;
    for (uint32_t i = 0; i < d->handlers; i++)
        n += d->handler[i].types_len;
    r->type = calloc(n + 1, sizeof *r->type);
    if (!r->type)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", d->path);
    for (uint32_t i = 0; i < d->handlers; i++)
        for (uint32_t k = 0; k < d->handler[i].types_len; k++)
            r->type[r->types++] =
                (struct try_type){d->handler[i].types[k], &d->policy, .events = 0};
    qsort(r->type, r->types, sizeof *r->type, compare_types);
    for (uint32_t i = 0; i < d->policies; i++) {
        struct try_type *type = find_type(r, d->policy_for[i].type);
        if (type)
            type->policy = &d->policy_for[i].policy;
    }
    return 0;
}

/* Counts the events from..to by type; of one event, tells its type. */
static int count_events(struct trial *t, uint64_t from, uint64_t to, struct try_type **ret,
                        struct azoth_error *err)
{
    struct snapshot *sn;
    struct event_scan *es = NULL;
    struct event_record ev;
    int rc = snapshot_begin(t->store, &sn, err), got = 0;
    if (rc)
        return rc;
    rc = event_scan_open(sn, from, to + 1, &es, err);
    while (!rc && (got = event_scan_next(es, &ev, NULL, err)) == 1) {
        struct try_type *type = find_type(&t->r, ev.type);
        if (type && !ret)
            type->events++;
        if (ret)
            *ret = type;
    }
    event_scan_close(es);
    snapshot_end(sn);
    return rc ? rc : got;
}

static void note_failure(struct trial *t, uint64_t event, int skipped, const char *why)
{
    struct try_type *type = NULL;
    if (count_events(t, event, event, &type, NULL) || !type)
        return;
    if (type->failed < TRY_FIRST) {
        type->first[type->failed] = event;
        type->why[type->failed] = strdup(why);
    }
    type->failed++;
    if (stops(type->policy))
        t->r.would_stop++;
    else
        t->r.skipped += (uint64_t)skipped;
}

static void on_failure(void *arg, enum failure_action action, uint64_t event, const char *error)
{
    struct trial *t = arg;
    if (action == FAILURE_SKIPPED || action == FAILURE_DEAD_LETTERED)
        note_failure(t, event, action == FAILURE_SKIPPED, error);
}

static int on_parked(void *arg, int n, const char *const *names, const struct query_value *v)
{
    struct trial *t = arg;
    (void)names;
    struct try_type *type = v && n == 3 ? find_type(&t->r, v[0].bytes) : NULL;
    if (!type)
        return 0;
    type->parked = (uint64_t)v[2].integer;
    t->r.parked += type->parked;
    t->r.waiting += (uint64_t)v[1].integer - type->parked;
    return 0;
}

/* ---- filling ---- */

/* A step that takes a tenth of a second or so: a signal is answered, and the terminal told, in between. */
static void adapt(struct trial *t, uint64_t took_ns)
{
    if (took_ns < STEP_NS / 2 && t->step < STEP_EVENTS_MAX)
        t->step *= 2;
    else if (took_ns > STEP_NS * 2 && t->step > 1)
        t->step /= 2;
}

/* 0 there, 1 a signal came, HANDLER (--strict), or the machine's fault. */
static int fill_to(struct trial *t, uint64_t to, struct azoth_error *err)
{
    uint32_t check;
    int more = FILL_MORE;
    while (more >= 0 && t->r.cursor < to) {
        uint64_t from = t->r.cursor + 1, begun = clock_mono_ns();
        uint64_t until = to - t->r.cursor > t->step ? t->r.cursor + t->step : to;
        struct azoth_error counting = {0};
        if (cmd_interrupted())
            return 1;
        more = fill_step(t->fill, until, err);
        t->r.looked_ns += clock_mono_ns() - begun;
        adapt(t, clock_mono_ns() - begun);
        table_cursor(t->table, &t->r.cursor, &check);
        int rc = count_events(t, from, t->r.cursor, NULL, &counting);
        if (rc && more >= 0) {
            *err = counting;
            return rc;
        }
        progress_say(&t->progress, t->r.cursor, t->r.to, "event");
        /* Where it stands a decision in C wants to wait: it is tried again at once. */
        if (more >= 0 && more != FILL_STANDS && t->r.cursor < from)
            return error_set(err, AZOTH_ERR_GAP, "the log ends before event %llu",
                             (unsigned long long)to);
    }
    return more < 0 ? more : 0;
}

/* An empty range moves the cursor to behind what is left out. */
static int begin_at(struct trial *t, uint64_t cursor, struct azoth_error *err)
{
    struct snapshot *sn;
    struct event_stamp stamp = {0};
    int rc = cursor ? snapshot_begin(t->store, &sn, err) : 0;
    if (rc || !cursor)
        return rc;
    rc = snapshot_event(sn, cursor, &stamp, err);
    if (rc == 1)
        rc = table_apply(t->table, bytes_of(NULL, 0), 1, cursor, stamp.check, err);
    else if (rc == 0)
        rc = error_set(err, AZOTH_ERR_GAP, "event %llu is missing", (unsigned long long)cursor);
    snapshot_end(sn);
    return rc;
}

/* ---- the comparison ---- */

/* The shards of a live projection move by themselves: a few looks find them side by side when they are at rest. */
static int hold_live(struct trial *t, uint64_t *ret, struct azoth_error *err)
{
    uint64_t least = 0, most = 0;
    int rc = 0;
    for (int i = 0; i < CURSOR_TRIES; i++) {
        rc = diff_begin(t->diff, &least, &most, err);
        if (rc || least == most || cmd_interrupted() || i == CURSOR_TRIES - 1)
            break;
        diff_end(t->diff);
        cmd_sleep_ms(CURSOR_NAP_MS);
    }
    *ret = least;
    if (!rc && least != most)
        snprintf(t->r.remark, sizeof t->r.remark,
                 "its shards are at events %llu to %llu: rows of the events between differ for "
                 "that alone",
                 (unsigned long long)least, (unsigned long long)most);
    return rc;
}

static void remark_cursors(struct trial *t)
{
    struct try_result *r = &t->r;
    if (r->from > 1)
        snprintf(r->remark, sizeof r->remark, "the scratch has nothing of the events before %llu",
                 (unsigned long long)r->from);
    else if (r->cursor != r->live_cursor)
        snprintf(r->remark, sizeof r->remark, "the live one has the events up to %llu as well",
                 (unsigned long long)r->live_cursor);
}

/* Is there a comparison, and with what? Both stand at the live one's cursor then, or --diff was given. */
static int worth_comparing(struct trial *t)
{
    struct try_result *r = &t->r;
    if (r->cursor == r->live_cursor && r->from == 1)
        return 1;
    remark_cursors(t);
    if (t->o->diff)
        return 1;
    snprintf(r->not_compared, sizeof r->not_compared, "%.250s (--diff compares)", r->remark);
    return 0;
}

static int compare(struct trial *t, struct azoth_error *err)
{
    struct try_result *r = &t->r;
    uint64_t least, most;
    const struct diff_tell told = {r, try_tell_row, try_tell_table};
    int rc = diff_cursors(t->diff, &least, &most, err);
    if (!rc)
        rc = fill_to(t, least < r->to ? least : r->to, err);
    if (!rc)
        rc = hold_live(t, &r->live_cursor, err);
    if (rc)
        return rc;
    if (!t->o->to.given && r->live_cursor > r->to)
        r->head = r->to = r->live_cursor; /* the log has grown since */
    rc = fill_to(t, r->live_cursor < r->to ? r->live_cursor : r->to, err);
    if (!rc && worth_comparing(t)) {
        r->compared_at = r->cursor;
        r->compared = 1;
        progress_end(&t->progress);
        rc = diff_run(t->diff, t->o->rows.given ? t->o->rows.n : ROWS_TOLD,
                      t->tell ? t->tell : &told, err);
    }
    diff_end(t->diff);
    return rc;
}

static int open_live(struct trial *t, struct azoth_error *err)
{
    struct try_result *r = &t->r;
    if (r->from > 1 && !t->o->diff) {
        remark_cursors(t);
        snprintf(r->not_compared, sizeof r->not_compared, "%.250s (--diff compares)", r->remark);
        return 0;
    }
    int rc = diff_open(t->projections, t->def.name, t->path, cmd_interrupted, &t->diff, err);
    if (rc != AZOTH_ERR_NOT_FOUND)
        return rc;
    snprintf(r->not_compared, sizeof r->not_compared, "there is no live projection %s here",
             t->def.name);
    return 0;
}

/* ---- the scratch file ---- */

static int make_scratch(struct trial *t, struct azoth_error *err)
{
    const char *tmp = getenv("TMPDIR");
    if (t->o->keep) {
        snprintf(t->path, sizeof t->path, "%s", t->o->keep);
        if (access(t->path, F_OK) == 0)
            return error_set(err, AZOTH_ERR_DUPLICATE, "%s is there already", t->path);
        t->made = 1;
        return 0;
    }
    snprintf(t->dir, sizeof t->dir, "%.4000s/azoth-try-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(t->dir)) {
        int rc = error_errno(err, errno, "%s", t->dir);
        t->dir[0] = 0;
        return rc;
    }
    snprintf(t->path, sizeof t->path, "%s/%s.db", t->dir, t->def.name);
    t->made = 1;
    return 0;
}

/* keep: the database alone, into which its log was written when it was closed. */
static void remove_scratch(struct trial *t, int keep)
{
    char beside[4320];
    static const char *const what[] = {"-wal", "-shm", "-journal"};
    if (t->made && !keep)
        unlink(t->path);
    for (size_t i = 0; t->made && i < sizeof what / sizeof *what; i++) {
        struct stat st;
        snprintf(beside, sizeof beside, "%s%s", t->path, what[i]);
        if (!keep || stat(beside, &st) || st.st_size == 0 || i == 1)
            unlink(beside);
    }
    if (t->dir[0])
        rmdir(t->dir);
}

/* ---- the command ---- */

static int open_all(struct trial *t, struct azoth_error *err)
{
    struct try_result *r = &t->r;
    int rc = make_scratch(t, err);
    struct table_options o = {
        .file = t->path, .uuid = store_identity(t->store)->uuid, .load = t->o->load, .shards = 1};
    if (!rc)
        rc = table_open(&t->trial, &o, &t->table, err);
    if (!rc) {
        table_on_failure(t->table, on_failure, t);
        table_tell_each_failure(t->table);
        rc = begin_at(t, r->from - 1, err);
    }
    r->cursor = r->from - 1;
    if (!rc)
        rc = fill_open(t->store, t->table, 0, 1, "", &t->fill, err);
    return rc ? rc : open_live(t, err);
}

static int run_all(struct trial *t, struct azoth_error *err)
{
    static const char aside[] =
        "SELECT type, count(*), sum(state = 'parked') FROM azoth_dlq GROUP BY type";
    progress_begin(&t->progress, t->def.name, 0, t->r.from - 1);
    int rc = t->diff ? compare(t, err) : 0;
    if (!rc)
        rc = fill_to(t, t->r.to, err);
    progress_end(&t->progress);
    if (rc && rc != AZOTH_ERR_HANDLER)
        return rc;
    if (rc && t->diff && !t->r.compared)
        snprintf(t->r.not_compared, sizeof t->r.not_compared, "it stopped at a failure");
    struct azoth_error reading = {0};
    int got = query_run_file(t->path, aside, on_parked, t, &reading);
    if (got && !rc)
        *err = reading;
    return rc ? rc : got;
}

static int bounds(struct trial *t, struct cmd_line *l, struct azoth_error *err)
{
    struct try_result *r = &t->r;
    struct snapshot *sn;
    struct store_head head;
    int rc = snapshot_begin(t->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    snapshot_end(sn);
    if (rc)
        return rc;
    r->head = head.event;
    r->from = t->o->from.given && t->o->from.n ? t->o->from.n : 1;
    r->to = t->o->to.given && t->o->to.n < r->head ? t->o->to.n : r->head;
    r->l = l;
    if (r->from > r->to + 1)
        return error_set(err, AZOTH_ERR_USAGE, "events %llu to %llu are none; the newest is %llu",
                         (unsigned long long)r->from, (unsigned long long)r->to,
                         (unsigned long long)r->head);
    return 0;
}

static int prepare(struct trial *t, struct cmd_line *l, const char *dir, struct azoth_error *err)
{
    int rc = sqlfile_read(t->r.file, &t->def, err);
    if (!rc && t->def.effects[0])
        rc = error_set(err, AZOTH_ERR_UNSUPPORTED,
                       "%s: effects run a command for each event: that is not tried", t->def.path);
    if (!rc && dbdir_path(t->projections, sizeof t->projections, dir, "projections"))
        rc = error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir);
    if (!rc)
        rc = without_waits(t, err);
    if (!rc)
        rc = list_types(t, err);
    if (!rc)
        rc = store_open(dir, 0, &t->store, err);
    return rc ? rc : bounds(t, l, err);
}

static void trial_fini(struct trial *t, int keep)
{
    diff_close(t->diff);
    fill_close(t->fill);
    table_close(t->table);
    remove_scratch(t, keep);
    store_close(t->store);
    try_result_fini(&t->r);
    free(t->trial.policy_for);
    sqlfile_fini(&t->def);
}

int cmd_projection_try(struct cmd_line *l, const struct try_options *o)
{
    static struct trial t;
    char dir[4096];
    struct azoth_error err = {0};
    if (l->words != 2)
        return cmd_usage(l, "try takes the file of one definition");
    int code = cmd_dir(l, NULL, 1, dir, sizeof dir);
    if (code)
        return code;
    t = (struct trial){.o = o, .step = 100, .r = {.file = l->word[1], .def = &t.def}};
    cmd_catch_signals();
    int rc = prepare(&t, l, dir, &err);
    if (!rc)
        rc = open_all(&t, &err);
    if (!rc)
        rc = run_all(&t, &err);
    int ran = rc == 0 || rc == AZOTH_ERR_HANDLER, keep = ran && o->keep && !cmd_interrupted();
    t.r.kept = keep ? t.path : NULL;
    if (cmd_interrupted())
        code = 128 + cmd_interrupted(); /* as shells tell it */
    else if (ran)
        code = try_tell(&t.r);
    if (rc && !cmd_interrupted())
        code = cmd_fail(&err);
    else if (!code && t.r.would_stop)
        code = azoth_code_exit(AZOTH_ERR_HANDLER);
    trial_fini(&t, keep);
    return code;
}

/* ---- for azoth verify ---- */

static void count_row(void *arg, char sign, uint64_t times, int n, const char *const *names,
                      const struct query_value *values)
{
    (void)arg;
    (void)sign;
    (void)times;
    (void)n;
    (void)names;
    (void)values;
}

static void count_table(void *arg, const struct diff_table *d)
{
    struct try_replay *r = arg;
    r->tables++;
    r->rows += d->live_rows;
    r->removed += d->removed;
    r->added += d->added;
    r->changed += d->changed;
    int differs = d->where != DIFF_IN_BOTH || d->removed || d->added || d->changed || *d->columns;
    if (differs && !*r->first)
        snprintf(r->first, sizeof r->first,
                 "table %.80s: %llu rows are too many, %llu are missing, %llu are different%s",
                 d->name, (unsigned long long)d->removed, (unsigned long long)d->added,
                 (unsigned long long)d->changed,
                 d->where == DIFF_LIVE_ONLY      ? "; the definition makes no such table"
                 : d->where == DIFF_SCRATCH_ONLY ? "; the projection lacks the table"
                 : *d->columns                   ? "; its columns are others"
                                                 : "");
}

int try_replay(const char *dir, const char *file, struct try_replay *ret, struct azoth_error *err)
{
    static struct trial t;
    const struct try_options o = {0};
    const struct diff_tell tell = {ret, count_row, count_table};
    memset(ret, 0, sizeof *ret);
    t = (struct trial){.o = &o, .step = 100, .tell = &tell, .r = {.file = file, .def = &t.def}};
    int rc = prepare(&t, NULL, dir, err);
    if (!rc)
        rc = open_all(&t, err);
    if (!rc)
        rc = run_all(&t, err);
    if (!rc && cmd_interrupted())
        rc = error_set(err, AZOTH_ERR_BUSY, "the replay was interrupted");
    ret->cursor = t.r.compared_at;
    if (!t.r.compared)
        snprintf(ret->why_not, sizeof ret->why_not, "%s", t.r.not_compared);
    trial_fini(&t, 0);
    return rc;
}
