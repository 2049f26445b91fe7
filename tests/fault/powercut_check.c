/*
 * powercut_check.c - states that a power cut may leave, opened with the product's own code: the writer
 * recovers and goes on, the projection opens and goes on.
 *
 * What must hold in each state
 *   P1  a transaction answered before the cut is there, with the answer that it got
 *   P2  each transaction is there whole and once, or not at all: event, key, sum and request id agree
 *   P3  event ids are gapless and the next one follows
 *   P4  the projection is no further than the log, its rows are a replay up to its cursor, and the
 *       cursor's checksum is that event's; the rest can be applied
 *   P5  before init had answered there is a whole database, or none and another init makes one
 * With sync mode meta-lazy P1 does not hold, the others do.
 */
#include "tests/fault/powercut_check.h"

#include "core/error.h"
#include "core/store.h"
#include "projector/table.h"
#include "tests/fault/powercut.h"
#include "tests/system/harness.h"

#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char cut_counts_sql[] = "-- azoth: projection counts\n"
                              "-- azoth: migration 1 create\n"
                              "CREATE TABLE seen (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);\n"
                              "CREATE INDEX seen_n ON seen (n);\n"
                              "-- azoth: on added\n"
                              "INSERT INTO seen VALUES (@id, :n);\n";

void cut_put_file(const char *dir, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f) {
        perror(path);
        exit(2);
    }
    fputs(text, f);
    fclose(f);
}

static char now_at[200]; /* which state, for the one that dies of it */

static void died(int sig)
{
    static const char text[] = "died in ";
    ssize_t n = write(1, text, sizeof text - 1);
    n += write(1, now_at, strlen(now_at));
    _exit(sig == 0 || n == 0 ? 4 : 3);
}

struct check {
    const char *dir;
    const struct answer *answered[TRANSACTIONS + 1];
    uint64_t answered_txn[TRANSACTIONS + 1];
    uint64_t number[2 * TRANSACTIONS + 8]; /* by event id */
    uint64_t head;
    int there, lazy; /* there: init had answered */
    uint64_t rows_at;
    char why[300];
};

#define FOUND(c, ...) (snprintf((c)->why, sizeof(c)->why, __VA_ARGS__), -1)

static int check_events(struct check *c, struct azoth *db)
{
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_error err;
    uint8_t seen[TRANSACTIONS + 2] = {0};
    int rc;
    if (azoth_events(db, 1, 0, NULL, &it, &err))
        return FOUND(c, "events: %.200s", err.message);
    c->head = 0;
    while ((rc = azoth_events_next(it, &ev, &err)) == 1) {
        uint64_t n = 0;
        char text[32] = "", key[40];
        int64_t value = 0;
        snprintf(text, sizeof text, "%.*s", (int)ev.payload.len, (const char *)ev.payload.ptr);
        if (sscanf(text, "{\"n\":%" SCNu64 "}", &n) != 1 || n > TRANSACTIONS || seen[n]++)
            break;
        if (ev.id != c->head + 1 || ev.id >= sizeof c->number / sizeof *c->number)
            break;
        c->head = ev.id;
        c->number[ev.id] = n;
        snprintf(key, sizeof key, "k/%" PRIu64, n);
        if (azoth_get_i64(db, azoth_str(key), &value, &err) || value != (int64_t)n)
            break;
    }
    azoth_events_free(it);
    if (rc)
        return FOUND(c, "event %" PRIu64 ": %.200s", c->head + 1,
                     rc < 0 ? err.message : "not what follows");
    int64_t sum = 0;
    rc = azoth_get_i64(db, AZOTH_STR("sum"), &sum, &err);
    if ((rc && rc != AZOTH_ERR_NOT_FOUND) || sum != (int64_t)c->head)
        return FOUND(c, "the sum is %" PRId64 " after %" PRIu64 " events", sum, c->head);
    return 0;
}

static int check_answers(struct check *c, struct azoth *db)
{
    struct azoth_error err;
    for (uint64_t n = 1; n <= TRANSACTIONS && !c->lazy; n++) {
        const struct answer *a = c->answered[n];
        struct azoth_commit_info info;
        if (!a)
            continue;
        if (a->first_event > c->head || c->number[a->first_event] != n)
            return FOUND(c, "LOST: transaction %" PRIu64 " was answered, the log ends at %" PRIu64,
                         n, c->head);
        if (azoth_outcome(db, a->id, &info, &err) || info.first_event != a->first_event ||
            info.txn != c->answered_txn[n])
            return FOUND(c, "LOST: the id of transaction %" PRIu64, n);
    }
    return 0;
}

static int go_on(struct check *c, struct azoth *db)
{
    struct azoth_error err;
    struct azoth_commit_info info = {0};
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_set_i64(t, AZOTH_STR("k/0"), 0);
    azoth_event_json(t, "added", "{\"n\":0}");
    int rc = azoth_commit(t, &info, &err);
    azoth_txn_free(t);
    if (rc)
        return FOUND(c, "it does not go on: %.200s", err.message);
    if (info.first_event != c->head + 1)
        return FOUND(c, "event %" PRIu64 " follows %" PRIu64, info.first_event, c->head);
    c->number[c->head + 1] = 0;
    return 0;
}

static int row(void *arg, int n, const char *const *names, const struct query_value *values)
{
    struct check *c = arg;
    (void)n;
    (void)names;
    if (values && values[0].integer == (int64_t)c->rows_at + 1 &&
        values[1].integer == (int64_t)c->number[c->rows_at + 1])
        c->rows_at++;
    else if (values)
        c->rows_at = UINT64_MAX / 2; /* never again right */
    return 0;
}

static int check_rows(struct check *c, const char *dir, uint64_t cursor)
{
    struct azoth_error err;
    c->rows_at = 0;
    if (query_run(dir, "counts", "SELECT id, n FROM seen ORDER BY id", row, c, &err))
        return FOUND(c, "rows: %.200s", err.message);
    if (c->rows_at != cursor)
        return FOUND(c, "the rows are not those of events 1 to %" PRIu64, cursor);
    return 0;
}

/* The events behind the cursor, as a batch; and the checksum of the one at it. */
static int frames_from(struct check *c, uint64_t cursor, struct buf *frames, uint32_t *ret_at,
                       uint32_t *ret_last)
{
    struct store *s;
    struct snapshot *sn = NULL;
    struct event_scan *es = NULL;
    struct event_record ev;
    struct azoth_bytes raw;
    struct azoth_error err;
    int rc = store_open(c->dir, 0, &s, &err);
    if (rc)
        return FOUND(c, "store: %.200s", err.message);
    rc = snapshot_begin(s, &sn, &err);
    if (!rc)
        rc = event_scan_open(sn, cursor ? cursor : 1, 0, &es, &err);
    while (!rc && event_scan_next(es, &ev, &raw, &err) == 1) {
        if (ev.id == cursor)
            *ret_at = record_checksum(raw);
        else
            rc = record_frame_add(frames, ev.id, raw);
        *ret_last = record_checksum(raw);
    }
    event_scan_close(es);
    snapshot_end(sn);
    store_close(s);
    return rc ? FOUND(c, "a batch: %d", rc) : 0;
}

static int check_table(struct check *c, struct table *t, const char *dir)
{
    struct azoth_error err;
    struct buf frames = {0};
    uint64_t cursor;
    uint32_t check, at = 0, last = 0;
    table_cursor(t, &cursor, &check);
    if (cursor > c->head)
        return c->lazy ? 0 /* the checksum at the cursor tells the feed */
                       : FOUND(c, "AHEAD: cursor %" PRIu64 ", log %" PRIu64, cursor, c->head);
    int rc = check_rows(c, dir, cursor);
    if (!rc)
        rc = frames_from(c, cursor, &frames, &at, &last);
    if (!rc && cursor && at != check)
        rc = FOUND(c, "the cursor's checksum is not that of event %" PRIu64, cursor);
    if (!rc && table_apply(t, buf_bytes(&frames), cursor + 1, c->head + 1, last, &err))
        rc = FOUND(c, "it does not go on from %" PRIu64 ": %.200s", cursor, err.message);
    if (!rc)
        rc = check_rows(c, dir, c->head + 1);
    buf_fini(&frames);
    return rc;
}

static int check_projection(struct check *c)
{
    static struct sqlfile def;
    struct azoth_error err;
    char dir[300], path[340];
    snprintf(dir, sizeof dir, "%s/projections", c->dir);
    snprintf(path, sizeof path, "%s/counts.sql", dir);
    if (sqlfile_read(path, &def, &err))
        return FOUND(c, "%.200s", err.message);
    struct table *t = NULL;
    struct table_options o = {.dir = dir, .shards = 1};
    int rc = table_open(&def, &o, &t, &err) ? FOUND(c, "projection: %.200s", err.message)
                                            : check_table(c, t, dir);
    table_close(t);
    sqlfile_fini(&def);
    return rc;
}

static int check_state(struct check *c)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .deadline_ms = 10000};
    struct azoth *db;
    struct azoth_error err;
    int rc = azoth_open(c->dir, &o, &db, &err);
    if (rc == AZOTH_ERR_NO_DATABASE && !c->there) {
        /* Nobody had been told that there is one; what lies there must not stop another init. */
        rc = azoth_init(c->dir, &err);
        if (!rc)
            rc = azoth_open(c->dir, &o, &db, &err);
    }
    if (rc)
        return FOUND(c, "open: %.200s", err.message);
    rc = check_events(c, db);
    if (!rc)
        rc = check_answers(c, db);
    if (!rc)
        rc = go_on(c, db);
    if (!rc)
        rc = check_projection(c);
    azoth_close(db);
    return rc;
}

static void answers_before(struct check *c, const struct cut_log *l, size_t cut)
{
    memset(c->answered, 0, sizeof c->answered);
    c->there = 0;
    for (size_t i = 0; i < cut; i++) {
        const struct cut_record *r = &l->op[i].r;
        if (r->kind != CUT_MARK)
            continue;
        if (r->ino == 0)
            c->there = 1;
        c->answered[r->ino] = (const struct answer *)(const void *)l->op[i].data;
        c->answered_txn[r->ino] = r->at;
    }
}

/* ==== the child: many states, one after another ==== */

void cut_empty_tree(const char *path, int self)
{
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char sub[700];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
        if (unlink(sub))
            cut_empty_tree(sub, 1);
    }
    if (d)
        closedir(d);
    if (self)
        rmdir(path);
}

static void furnish(const char *dir)
{
    char path[300];
    cut_empty_tree(dir, 0);
    snprintf(path, sizeof path, "%s/projections", dir);
    mkdir(path, 0770);
    cut_put_file(path, "counts.sql", cut_counts_sql);
    cut_put_file(dir, "azoth.conf", "[segment]\nslots = 16\nstripes = 64\nblocks = 80\n");
}

/* Half of the cuts go through the log evenly, half are drawn. With a sync left out only those up to
 * the next one are of interest. */
static size_t choose_cut(const struct cut_log *l, uint64_t i, uint64_t states, uint64_t *seed)
{
    if (l->ignored && l->ignored < l->ops / 2 + l->ops / 3)
        return l->ignored + 1 + random_next(seed) % 12;
    if (i % 8 == 4) { /* in the middle of init */
        size_t made = 0;
        while (made < l->ops && l->op[made].r.kind != CUT_MARK)
            made++;
        return random_next(seed) % (made + 1);
    }
    if (i % 2)
        return random_next(seed) % (l->ops + 1);
    return (size_t)((l->ops + 1) * i / states);
}

int cut_check_main(char **argv)
{
    static struct cut_log l;
    static struct check c;
    static const char *const policy_name[] = {"all", "none", "subset", "torn", "last"};
    int wanted = -1;
    uint64_t seed = strtoull(argv[2], NULL, 10), states = strtoull(argv[3], NULL, 10), i = 0;
    if (cut_log_read(&l, argv[0], "data.mdb", strtoull(argv[5], NULL, 10)))
        return 2;
    for (int s = 1; s < 32; s++)
        if (s == SIGBUS || s == SIGSEGV || s == SIGABRT || s == SIGFPE)
            signal(s, died);
    c.dir = argv[1];
    c.lazy = strcmp(argv[4], "lazy") == 0;
    for (int p = 0; p < CUT_POLICIES; p++)
        if (strcmp(argv[6], policy_name[p]) == 0)
            wanted = p;
    if (wanted < 0 && strcmp(argv[6], "any") != 0)
        return 2;
    int bad = 0;
    for (; i < states && !bad; i++) {
        size_t cut = choose_cut(&l, i, states, &seed);
        enum cut_policy policy = (enum cut_policy)(random_next(&seed) % CUT_POLICIES);
        if (wanted >= 0)
            policy = (enum cut_policy)wanted;
        snprintf(now_at, sizeof now_at, "state %" PRIu64 ": cut %zu of %zu, %s", i, cut, l.ops,
                 policy_name[policy]);
        furnish(c.dir);
        answers_before(&c, &l, cut);
        bad = cut_make(&l, cut, policy, &seed, c.dir) ? FOUND(&c, "no state") : check_state(&c);
    }
    printf("%" PRIu64 " states of %zu operations", i, l.ops);
    if (bad)
        printf("; %s: %s", now_at, c.why);
    cut_log_free(&l);
    return bad ? 1 : 0;
}
