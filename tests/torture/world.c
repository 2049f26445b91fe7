#include "tests/torture/world.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "shm/participant.h"
#include "tests/system/bank.h"
#include "tests/torture/audit.h"
#include "writer/restore.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FINISH_NS      (60 * NS_PER_S)
#define BACKUP_MOST_NS (300 * NS_PER_MS) /* between two, at most */
#define CLEAN_MS       8000 /* longer than the deadline of a request that a worker may still have */

static const char accounts_sql[] =
    "-- azoth: projection accounts\n"
    "-- azoth: migration 1 create\n"
    "CREATE TABLE accounts (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL);\n"
    "-- azoth: on opened\n"
    "INSERT INTO accounts VALUES (:account, :amount);\n"
    "-- azoth: on transferred\n"
    "UPDATE accounts SET balance = balance - :amount WHERE account = :from;\n"
    "UPDATE accounts SET balance = balance + :amount WHERE account = :to;\n";

#define CHAIN_LINK                                                                                 \
    "UPDATE chain SET n = n + 1, last = @id, h = " AUDIT_CHAIN_SQL " WHERE one = 1;\n"
static const char chain_sql[] =
    "-- azoth: projection chain\n"
    "-- azoth: migration 1 create\n"
    "CREATE TABLE chain (one INTEGER PRIMARY KEY, n INTEGER, last INTEGER, h INTEGER);\n"
    "INSERT INTO chain VALUES (1, 0, 0, 0);\n"
    "-- azoth: on opened\n" CHAIN_LINK "-- azoth: on transferred\n" CHAIN_LINK
    "-- azoth: on wrote\n" CHAIN_LINK;

static void nap_1ms(void)
{
    struct timespec ts = {0, 1000000};
    nanosleep(&ts, NULL);
}

/* Ctrl-C, or a time limit: the harness ends what runs, from outside the handler. */
static volatile sig_atomic_t asked_to_end;

static void on_signal(int signal)
{
    (void)signal;
    asked_to_end = 1;
}

static void failed(const char *what)
{
    fprintf(stderr, "torture: %s\n", what);
    exit(1); /* the harness ends what runs */
}

/* ---- starting ---- */

static char places[300];

/* Beside the database's directory: what the harness does not know of. */
static void remove_places(void)
{
    if (!getenv("AZOTH_TEST_KEEP") && *places)
        restore_remove_tree(places);
}

/* What a backup's second word may be: one in four has everything, the others what is new. */
static const char longest_kind[] = "--incremental";
static const char *const kinds[] = {longest_kind, longest_kind, longest_kind, "--quiet"};

static void begin_backups(struct world *w)
{
    snprintf(places, sizeof places, "%s.backups", w->h.dir);
    snprintf(w->place, sizeof w->place, "%s/place", places);
    snprintf(w->place_of_copies, sizeof w->place_of_copies, "%s", places);
    if (mkdir(places, 0700))
        failed(places);
    w->backup = harness_start(&w->h, "backup", 0, "azoth", "backup", longest_kind, "--quiet",
                              "--dir", w->h.dir, w->place, NULL);
    w->backup_runs = w->backing_up = 1;
}

static void put_projection(struct world *w, const char *name, const char *sql)
{
    char path[300];
    snprintf(path, sizeof path, "%s/projections/%s.sql", w->h.dir, name);
    FILE *f = fopen(path, "w");
    if (!f || fputs(sql, f) < 0 || fclose(f))
        failed(path);
}

static struct process *start_client(struct world *w, unsigned number, enum op_path path)
{
    char self[256], name[16], digits[16], kind[16], endpoints[600], ids[32];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    snprintf(name, sizeof name, "client-%02u", number);
    snprintf(digits, sizeof digits, "%u", number);
    snprintf(kind, sizeof kind, "%d", (int)path);
    snprintf(ids, sizeof ids, "%llu", (unsigned long long)w->random);
    snprintf(endpoints, sizeof endpoints, "ipc://%s/run/worker-1.sock,ipc://%s/run/worker-2.sock",
             w->h.dir, w->h.dir);
    return harness_start(&w->h, name, 1, self, CLIENT_FLAG, w->h.dir, digits, kind, endpoints, ids,
                         NULL);
}

static void start_servers(struct world *w)
{
    static const char *const projections[] = {"accounts", "chain"};
    char so[300];
    snprintf(so, sizeof so, "%s/tests/torture/command.so", w->h.build);
    if (access(so, R_OK))
        failed(so);
    w->writer = harness_start(&w->h, "writer", 1, "azoth-writer", "--dir", w->h.dir, NULL);
    for (int i = 0; i < 2; i++) {
        char name[16], digit[2] = {(char)('1' + i), 0};
        snprintf(name, sizeof name, "worker-%d", i + 1);
        w->worker[i] = harness_start(&w->h, name, 1, "azoth-worker", "--dir", w->h.dir, "--name",
                                     digit, "--load", so, NULL);
        w->projector[i] = harness_start(&w->h, projections[i], 1, "azoth-projector", "--dir",
                                        w->h.dir, projections[i], NULL);
    }
    w->feed = harness_start(&w->h, "feed", 1, "azoth-feed", "--dir", w->h.dir, NULL);
}

void world_begin(struct world *w, uint64_t seed)
{
    static const enum op_path paths[WORLD_CLIENTS] = {
        PATH_CALLBACKS, PATH_CALLBACKS, PATH_ASYNC,    PATH_BATCH,    PATH_REMOTE,
        PATH_JSON,      PATH_COMMAND,   PATH_REGISTER, PATH_REGISTER, PATH_REGISTER_REMOTE};
    memset(w, 0, sizeof *w);
    w->random = seed | 1;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    atexit(remove_places); /* after the harness has ended what writes there */
    harness_begin(&w->h);
    put_projection(w, "accounts", accounts_sql);
    put_projection(w, "chain", chain_sql);
    start_servers(w);
    w->db = harness_attach(&w->h, 20000);
    struct segment_name name;
    struct azoth_error err = {0};
    if (!w->db || bank_open(w->db, OP_ACCOUNTS))
        failed("the accounts cannot be opened");
    if (segment_name_of(w->h.dir, &name, &err) || segment_attach(&name, &w->segment, &err))
        failed(err.message);
    for (unsigned i = 0; i < WORLD_CLIENTS; i++)
        w->client[i] = start_client(w, i + 1, paths[i]);
    begin_backups(w);
}

/* ---- supervising ---- */

#ifdef AZOTH_FAULTS
static const char *const points[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

/* One in four of what is started next dies at a named point, if it passes there often enough. */
static void arm(struct world *w)
{
    char value[64];
    if (!w->crash_points || random_next(&w->random) % 4) {
        unsetenv("AZOTH_CRASH");
        return;
    }
    snprintf(value, sizeof value, "%s:%u", points[random_next(&w->random) % CRASH_POINT_COUNT],
             1 + (unsigned)(random_next(&w->random) % 20));
    setenv("AZOTH_CRASH", value, 1);
}

/* One in three, at one of their own. */
static void arm_backup(struct world *w)
{
    const char *own[CRASH_POINT_COUNT];
    unsigned n = 0;
    char value[64];
    for (unsigned i = 0; i < CRASH_POINT_COUNT; i++)
        if (strncmp(points[i], "backup", 6) == 0 || strncmp(points[i], "copy_", 5) == 0 ||
            strncmp(points[i], "increment_", 10) == 0)
            own[n++] = points[i];
    unsetenv("AZOTH_CRASH");
    if (!w->crash_points || random_next(&w->random) % 3)
        return;
    snprintf(value, sizeof value, "%s:1", own[random_next(&w->random) % n]);
    setenv("AZOTH_CRASH", value, 1);
}
#else
static void arm(struct world *w)
{
    (void)w;
}

static void arm_backup(struct world *w)
{
    (void)w;
}
#endif

static void tell_log(struct world *w, const struct process *p)
{
    char path[320], line[400];
    snprintf(path, sizeof path, "%s/log-%s", w->h.dir, p->name);
    FILE *f = fopen(path, "r");
    if (f && fseek(f, -1500, SEEK_END) == 0 && !fgets(line, sizeof line, f))
        rewind(f);
    while (f && fgets(line, sizeof line, f))
        fprintf(stderr, "  %s: %s", p->name, line);
    if (f)
        fclose(f);
}

static void ended(struct world *w, const struct process *p)
{
    w->deaths++;
    w->last_death_ns = clock_mono_ns();
    if (WIFSIGNALED(p->status) && WTERMSIG(p->status) == SIGKILL)
        return;
    w->unexpected++;
    fprintf(stderr, "torture: %s ended by itself: %s %d\n", p->name,
            WIFSIGNALED(p->status) ? "signal" : "status",
            WIFSIGNALED(p->status) ? WTERMSIG(p->status) : WEXITSTATUS(p->status));
    if (w->unexpected <= 5)
        tell_log(w, p);
}

/* ---- backups ---- */

static void backup_ended(struct world *w)
{
    struct process *p = w->backup;
    w->backup_runs = 0;
    w->next_backup_ns = clock_mono_ns() + random_next(&w->random) % BACKUP_MOST_NS;
    if (WIFEXITED(p->status) && WEXITSTATUS(p->status) == 0) {
        w->backups++;
        w->full_backups += strcmp(p->argv[2], longest_kind) != 0;
        w->backup_floor = w->backup_began_at;
    } else {
        w->backup_deaths++;
        ended(w, p);
    }
}

static void begin_backup(struct world *w)
{
    struct process *p = w->backup;
    if (azoth_head(w->db, &w->backup_began_at, NULL, NULL))
        return;
    snprintf(p->argv[2], sizeof longest_kind, "%s",
             kinds[random_next(&w->random) % (sizeof kinds / sizeof *kinds)]);
    arm_backup(w);
    harness_spawn(&w->h, p);
    w->restarts[p - w->h.process] = ++p->restarts;
    w->backup_runs = 1;
    arm(w);
}

static void supervise_backup(struct world *w)
{
    if (!w->backup || w->backup->pid)
        return;
    if (w->backup_runs)
        backup_ended(w);
    else if (w->backing_up && clock_mono_ns() >= w->next_backup_ns)
        begin_backup(w);
}

int world_stop_backups(struct world *w)
{
    uint64_t until = clock_mono_ns() + FINISH_NS;
    unsigned made = w->backups;
    w->crash_points = 0;
    /* The one that is under way may carry a crash point: it does not count. */
    w->backing_up = 0;
    while (w->backup_runs && clock_mono_ns() < until)
        world_nap(w, NS_PER_MS);
    made = w->backups;
    begin_backup(w);
    while (w->backup_runs && clock_mono_ns() < until)
        world_nap(w, NS_PER_MS);
    if (w->backup_runs)
        fprintf(stderr, "torture: a backup does not end\n");
    return w->backups == made + 1;
}

int world_azoth(struct world *w, const char *const *words)
{
    char program[256], line[] = "exec \"$0\" \"$@\" >&2"; /* into its log */
    const char *word[8] = {0};
    for (int i = 0; i < 8 && words[i]; i++)
        word[i] = words[i];
    unsetenv("AZOTH_CRASH");
    harness_program(&w->h, "azoth", program);
    struct process *p =
        harness_start(&w->h, "azoth", 0, "/bin/sh", "-c", line, program, word[0], word[1], word[2],
                      word[3], word[4], word[5], word[6], word[7], NULL);
    arm(w);
    while (p->pid)
        world_nap(w, NS_PER_MS);
    int status = p->status;
    if (status)
        tell_log(w, p);
    harness_drop(&w->h);
    return status;
}

/* ---- supervising all ---- */

void world_supervise(struct world *w)
{
    if (asked_to_end)
        failed("interrupted");
    azoth_poll(w->db, 0);
    int some = harness_supervise(&w->h);
    supervise_backup(w);
    if (!some)
        return;
    for (int i = 0; i < w->h.processes; i++) {
        struct process *p = &w->h.process[i];
        if (p->restarts != w->restarts[i])
            ended(w, p);
        w->restarts[i] = p->restarts;
    }
    arm(w);
}

void world_nap(struct world *w, uint64_t ns)
{
    uint64_t until = clock_mono_ns() + ns;
    do {
        world_supervise(w);
        nap_1ms();
    } while (clock_mono_ns() < until);
}

int world_is_back(const struct world *w, const struct process *p, int before)
{
    return p->restarts != before || (p == w->backup && !p->pid);
}

int world_kill(struct world *w, struct process *p)
{
    int before = p->restarts;
    if (!p->pid)
        return 0;
    harness_kill(p, SIGKILL);
    while (!world_is_back(w, p, before)) {
        world_supervise(w);
        nap_1ms();
    }
    return 1;
}

int world_client(const struct world *w, const struct process *p)
{
    for (int i = 0; i < WORLD_CLIENTS; i++)
        if (w->client[i] == p)
            return i + 1;
    return -1;
}

/* ---- ending ---- */

/* 1 when the client has finished; starts it again when it was killed once more. */
static int client_finished(struct world *w, struct process *p)
{
    if (p->pid)
        return 0;
    if (WIFEXITED(p->status) && WEXITSTATUS(p->status) == 0)
        return 1;
    ended(w, p);
    harness_spawn(&w->h, p);
    return 0;
}

int world_stop_clients(struct world *w)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", w->h.dir, CLIENT_STOP_FILE);
    w->crash_points = 0;
    arm(w);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return 0;
    close(fd);
    for (int i = 0; i < WORLD_CLIENTS; i++)
        w->client[i]->restart = 0;
    uint64_t until = clock_mono_ns() + FINISH_NS;
    int left = WORLD_CLIENTS;
    unsigned unexpected = w->unexpected;
    while (left && clock_mono_ns() < until && w->unexpected == unexpected) {
        world_nap(w, NS_PER_MS);
        left = 0;
        for (int i = 0; i < WORLD_CLIENTS; i++)
            left += !client_finished(w, w->client[i]);
    }
    for (int i = 0; i < WORLD_CLIENTS; i++)
        if (w->client[i]->pid) {
            fprintf(stderr, "torture: %s does not finish\n", w->client[i]->name);
            tell_log(w, w->client[i]);
        }
    return left == 0;
}

/* Rows of processes that are not there any more. */
static int dead_rows(const struct world *w)
{
    int n = 0;
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        const struct participant_shm *row = &w->segment->participant[i];
        pid_t pid = (pid_t)atomic_load((A32 *)&row->pid);
        int here = pid == getpid();
        for (int k = 0; k < w->h.processes; k++)
            here |= w->h.process[k].pid == pid;
        n += (atomic_load((A64 *)&row->word) & 0xff) == PARTICIPANT_LIVE && !here;
    }
    return n;
}

int world_segment_clean(struct world *w)
{
    uint64_t until = clock_mono_ns() + CLEAN_MS * NS_PER_MS;
    while (dead_rows(w) && clock_mono_ns() < until)
        world_nap(w, NS_PER_MS);
    if (dead_rows(w))
        fprintf(stderr, "torture: %d rows belong to dead processes\n", dead_rows(w));
    return harness_segment_clean(&w->h, CLEAN_MS) && !dead_rows(w);
}

int world_end(struct world *w)
{
    struct process *order[] = {w->projector[0], w->projector[1], w->feed,
                               w->worker[0],    w->worker[1],    w->writer};
    int ok = 1;
    segment_detach(w->segment);
    azoth_close(w->db);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        int status = harness_stop(&w->h, order[i]);
        if (status != 0) {
            fprintf(stderr, "torture: %s stops with status %d\n", order[i]->name, status);
            tell_log(w, order[i]);
            ok = 0;
        }
    }
    harness_end(&w->h);
    return ok;
}
