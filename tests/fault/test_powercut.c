/*
 * test_powercut.c - what a power cut may leave of a database, opened.
 *
 * SIGKILL leaves the page cache, so it says nothing about the disk. Here writer and projector run with
 * record_io.c preloaded, from init on, and the test's own transactions are noted in the same log when
 * they are answered. From the log the files are made as they may be after a cut at any moment
 * (powercut.h), and the product's own code opens them: the writer recovers and goes on, the projection
 * opens and goes on.
 *
 * What must hold in each state
 *   P1  a transaction answered before the cut is there, with the answer that it got
 *   P2  each transaction is there whole and once, or not at all: event, key, sum and request id agree
 *   P3  event ids are gapless and the next one follows
 *   P4  the projection is no further than the log, its rows are a replay up to its cursor, and the
 *       cursor's checksum is that event's; the rest can be applied
 *   P5  before init had answered there is a whole database, or none and another init makes one
 * With sync mode meta-lazy P1 does not hold, the others do.
 *
 * States are made by a child, so that one that dies on a state (a page that is not there) is a finding
 * and not the end: --check LOG DIR SEED STATES full|lazy IGNORED-SYNC. AZOTH_CUT_STATES: how many.
 */
#include "core/clock.h"
#include "core/error.h"
#include "core/store.h"
#include "projector/table.h"
#include "shm/segment.h"
#include "tests/fault/powercut.h"
#include "tests/system/harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define TRANSACTIONS 240
#define IN_FLIGHT    8

static const char counts_sql[] = "-- azoth: projection counts\n"
                                 "-- azoth: migration 1 create\n"
                                 "CREATE TABLE seen (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);\n"
                                 "CREATE INDEX seen_n ON seen (n);\n"
                                 "-- azoth: on added\n"
                                 "INSERT INTO seen VALUES (@id, :n);\n";

/* What a mark says beside the transaction's number (ino) and id (at). Number 0: init has answered. */
/* Packed: it is read where it lies in the log. */
struct __attribute__((packed)) answer {
    uint64_t first_event;
    uint8_t id[AZOTH_ID_BYTES];
};

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* ==== checking one state ==== */

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

static void empty_tree(const char *path, int self)
{
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char sub[700];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
        if (unlink(sub))
            empty_tree(sub, 1);
    }
    if (d)
        closedir(d);
    if (self)
        rmdir(path);
}

static void furnish(const char *dir)
{
    char path[300];
    empty_tree(dir, 0);
    snprintf(path, sizeof path, "%s/projections", dir);
    mkdir(path, 0770);
    put_file(path, "counts.sql", counts_sql);
    put_file(dir, "azoth.conf", "[segment]\nslots = 16\nstripes = 64\nblocks = 80\n");
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

static int check_main(char **argv)
{
    static struct cut_log l;
    static struct check c;
    static const char *const policy_name[] = {"all", "none", "subset", "torn", "last"};
    uint64_t seed = strtoull(argv[2], NULL, 10), states = strtoull(argv[3], NULL, 10), i = 0;
    if (cut_log_read(&l, argv[0], "data.mdb", strtoull(argv[5], NULL, 10)))
        return 2;
    for (int s = 1; s < 32; s++)
        if (s == SIGBUS || s == SIGSEGV || s == SIGABRT || s == SIGFPE)
            signal(s, died);
    c.dir = argv[1];
    c.lazy = strcmp(argv[4], "lazy") == 0;
    int bad = 0;
    for (; i < states && !bad; i++) {
        size_t cut = choose_cut(&l, i, states, &seed);
        enum cut_policy policy = (enum cut_policy)(random_next(&seed) % CUT_POLICIES);
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

/* ==== recording ==== */

static struct {
    struct harness h;
    char db[280], log[280], recorder[300], work[64];
    int log_fd;
    uint64_t next;
} run;

static void mark(uint64_t n, uint64_t txn, const struct answer *a)
{
    struct cut_record r = {.magic = CUT_MAGIC, .kind = CUT_MARK, .ino = n, .at = txn};
    r.data = sizeof *a;
    struct iovec v[] = {{&r, sizeof r}, {(void *)(uintptr_t)a, sizeof *a}};
    assert_int_equal(writev(run.log_fd, v, 2), (ssize_t)(sizeof r + sizeof *a));
}

static void answered(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                     const struct azoth_error *err, void *arg)
{
    struct answer a = {.first_event = info->first_event};
    if (code)
        fprintf(stderr, "%s\n", err->message);
    assert_int_equal(code, 0);
    azoth_txn_id(t, a.id);
    mark((uint64_t)(uintptr_t)arg, info->txn, &a);
    azoth_txn_free(t);
}

static void commit_some(struct azoth *db, uint64_t n)
{
    struct azoth_error err;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t number = run.next++;
        char key[40], json[40];
        struct azoth_txn *t = azoth_txn_new(db);
        snprintf(key, sizeof key, "k/%" PRIu64, number);
        snprintf(json, sizeof json, "{\"n\":%" PRIu64 "}", number);
        azoth_set_i64(t, azoth_str(key), (int64_t)number);
        azoth_add_i64(t, AZOTH_STR("sum"), 1);
        azoth_event_json(t, "added", json);
        while (azoth_in_flight(db) >= IN_FLIGHT)
            azoth_poll(db, 1000);
        assert_int_equal(azoth_submit(t, answered, (void *)(uintptr_t)number, &err), 0);
    }
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
}

static struct process *recorded(const char *name, const char *a, const char *b, const char *more)
{
    setenv("LD_PRELOAD", run.recorder, 1);
    struct process *p = harness_start(&run.h, name, 0, a, "--dir", run.db, b, more, NULL);
    unsetenv("LD_PRELOAD");
    return p;
}

static void phase(const char *sync, int last)
{
    struct azoth_error err;
    struct azoth_options o = {.deadline_ms = 20000, .attach_wait_ms = 10000};
    struct azoth *db;
    struct process *w = recorded("writer", "azoth-writer", "--writer-sync", sync);
    assert_int_equal(azoth_open(run.db, &o, &db, &err), 0);
    struct process *f = harness_start(&run.h, "feed", 0, "azoth-feed", "--dir", run.db, NULL);
    struct process *p = recorded("projector", "azoth-projector", "counts", NULL);
    commit_some(db, TRANSACTIONS / 3);
    assert_int_equal(azoth_wait_projected(db, "counts", run.next - 1, 20000, &err), 0);
    /* The projector ends in order, and so checkpoints; the last writer's end is not seen, since it
     * syncs what the lazier modes had not. */
    assert_int_equal(harness_stop(&run.h, p), 0);
    if (last)
        harness_kill(w, SIGKILL);
    azoth_close(db);
    harness_stop(&run.h, f);
    harness_stop(&run.h, w);
}

static void record_begin(void)
{
    char cwd[200], path[300];
    harness_begin(&run.h);
    assert_non_null(getcwd(cwd, sizeof cwd));
    const char *build = run.h.build;
    snprintf(run.recorder, sizeof run.recorder, "%.100s%s%.100s/tests/fault/record_io.so",
             build[0] == '/' ? "" : cwd, build[0] == '/' ? "" : "/", build);
    assert_int_equal(access(run.recorder, R_OK), 0);
    snprintf(run.db, sizeof run.db, "%s/db", run.h.dir);
    snprintf(run.log, sizeof run.log, "%s/io.log", run.h.dir);
    setenv("AZOTH_RECORD_DIR", run.db, 1);
    setenv("AZOTH_RECORD_LOG", run.log, 1);
    run.log_fd = open(run.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(run.log_fd >= 0);
    run.next = 1;
    char program[256];
    harness_program(&run.h, "azoth", program);
    char *const init[] = {program, "init", run.db, NULL};
    setenv("LD_PRELOAD", run.recorder, 1);
    assert_int_equal(harness_run(path, sizeof path, init), 0);
    unsetenv("LD_PRELOAD");
    mark(0, 0, &(struct answer){0});
    snprintf(path, sizeof path, "%s/run", run.db);
    mkdir(path, 0770);
    snprintf(path, sizeof path, "%s/projections", run.db);
    put_file(path, "counts.sql", counts_sql);
    snprintf(run.work, sizeof run.work, "%s/azoth-powercut-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(run.work));
}

static void remove_segment_of(const char *dir)
{
    struct segment_name name;
    if (segment_name_of(dir, &name, NULL) == 0)
        segment_unlink(&name);
}

static void record(const char *sync)
{
    record_begin();
    for (int i = 0; i < 3; i++)
        phase(sync, i == 2);
    unsetenv("AZOTH_RECORD_DIR");
    unsetenv("AZOTH_RECORD_LOG");
}

static void record_end(void)
{
    close(run.log_fd);
    remove_segment_of(run.work);
    remove_segment_of(run.db);
    empty_tree(run.work, 1);
    harness_end(&run.h);
}

/* The child's verdict: 0 nothing found, 1 something, 3 it died of a state. */
static int check_all(const char *mode, uint64_t states, size_t ignored)
{
    char self[256], seed[32], n[32], ign[32], out[500];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    snprintf(seed, sizeof seed, "%" PRIu64, harness_seed());
    snprintf(n, sizeof n, "%" PRIu64, states);
    snprintf(ign, sizeof ign, "%zu", ignored);
    char *const argv[] = {self, "--check", run.log, run.work, seed, n, (char *)(uintptr_t)mode,
                          ign,  NULL};
    int rc = harness_run(out, sizeof out, argv);
    print_message("MEASURED power cut, %s, sync ignored %s, seed %s: %s\n", mode,
                  ignored == SIZE_MAX ? "all" : ign, seed, out);
    remove_segment_of(run.work);
    return rc;
}

static uint64_t states_wanted(void)
{
    const char *given = getenv("AZOTH_CUT_STATES");
    return given ? strtoull(given, NULL, 10) : 2000;
}

static void whatever_a_power_cut_leaves_opens_with_all_that_was_answered(void **state)
{
    (void)state;
    record("full");
    int rc = check_all("full", states_wanted(), 0);
    /* The same log without the syncs of the store: the check must see it. */
    int without_any = check_all("full", 200, SIZE_MAX);
    int without_one = 0;
    for (size_t i = 20; i < 40; i++)
        without_one += check_all("full", 40, i) != 0;
    record_end();
    assert_int_equal(rc, 0);
    assert_int_not_equal(without_any, 0);
    assert_int_equal(without_one, 20);
}

static void meta_lazy_may_lose_the_last_answers_but_contradicts_nothing(void **state)
{
    (void)state;
    record("meta-lazy");
    int rc = check_all("lazy", states_wanted() / 4, 0);
    record_end();
    assert_int_equal(rc, 0);
}

static void a_store_without_sync_is_seen_to_lose_answers(void **state)
{
    (void)state;
    record("none");
    int rc = check_all("full", 500, 0);
    record_end();
    assert_int_not_equal(rc, 0);
}

int main(int argc, char **argv)
{
    /* The recorder comes before a sanitizer's runtime, which would refuse that. */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    if (argc == 8 && strcmp(argv[1], "--check") == 0)
        return check_main(argv + 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_a_power_cut_leaves_opens_with_all_that_was_answered),
        cmocka_unit_test(meta_lazy_may_lose_the_last_answers_but_contradicts_nothing),
        cmocka_unit_test(a_store_without_sync_is_seen_to_lose_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
