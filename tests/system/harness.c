#include "tests/system/harness.h"

#include "core/clock.h"
#include "core/error.h"
#include "projector/table.h"
#include "shm/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

void nap_ms(long ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

uint64_t random_next(uint64_t *s)
{
    /* xorshift64 (Marsaglia 2003). */
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

uint64_t harness_seed(void)
{
    static uint64_t seed;
    if (!seed) {
        const char *given = getenv("AZOTH_TEST_SEED");
        seed = given ? strtoull(given, NULL, 10) : (uint64_t)clock_wall_ns() | 1;
        fprintf(stderr, "AZOTH_TEST_SEED=%llu\n", (unsigned long long)seed);
    }
    return seed;
}

static struct harness *begun[64];

static void end_all(void)
{
    for (size_t i = 0; i < sizeof begun / sizeof *begun; i++)
        if (begun[i])
            harness_end(begun[i]);
}

static void remember(struct harness *h)
{
    static int registered;
    if (!registered++)
        atexit(end_all);
    for (size_t i = 0; i < sizeof begun / sizeof *begun; i++)
        if (!begun[i]) {
            begun[i] = h;
            return;
        }
}

static void forget(const struct harness *h)
{
    for (size_t i = 0; i < sizeof begun / sizeof *begun; i++)
        if (begun[i] == h)
            begun[i] = NULL;
}

void harness_begin(struct harness *h)
{
    for (size_t i = 0; i < sizeof begun / sizeof *begun; i++)
        if (begun[i] == h)
            harness_end(h); /* a test before this one failed and left it open */
    memset(h, 0, sizeof *h);
    remember(h);
    const char *build = getenv("AZOTH_BUILD");
    h->build = build ? build : "build";
    snprintf(h->dir, sizeof h->dir, "%s/azoth-test-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(h->dir)) {
        perror(h->dir);
        exit(1);
    }
    struct azoth_error err;
    char path[300];
    if (azoth_init(h->dir, &err)) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    snprintf(path, sizeof path, "%s/run", h->dir);
    mkdir(path, 0770);
    snprintf(path, sizeof path, "%s/projections", h->dir);
    mkdir(path, 0770);
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char sub[1024];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
        if (e->d_type == DT_DIR)
            remove_tree(sub);
        else
            unlink(sub);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

void harness_drop(struct harness *h)
{
    struct process *p = &h->process[--h->processes];
    if (p->pid) {
        kill(p->pid, SIGCONT);
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    for (int i = 0; p->argv[i]; i++)
        free(p->argv[i]);
    memset(p, 0, sizeof *p);
}

void harness_end(struct harness *h)
{
    forget(h);
    while (h->processes)
        harness_drop(h);
    struct segment_name name;
    if (segment_name_of(h->dir, &name, NULL) == 0)
        segment_unlink(&name);
    if (!getenv("AZOTH_TEST_KEEP"))
        remove_tree(h->dir);
    memset(h, 0, sizeof *h);
}

void harness_program(struct harness *h, const char *name, char out[256])
{
    if (name[0] == '/')
        snprintf(out, 256, "%s", name);
    else
        snprintf(out, 256, "%s/%s", h->build, name);
}

void harness_spawn(struct harness *h, struct process *p)
{
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t none;
    char log[300];
    sigemptyset(&none);
    snprintf(log, sizeof log, "%s/log-%s", h->dir, p->name);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attr, &none);
    int e = posix_spawn(&p->pid, p->argv[0], &fa, &attr, p->argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&attr);
    if (e) {
        fprintf(stderr, "%s: %s\n", p->argv[0], strerror(e));
        p->pid = 0;
    }
}

struct process *harness_start(struct harness *h, const char *name, int restart, ...)
{
    struct process *p = &h->process[h->processes++];
    char path[256];
    va_list ap;
    va_start(ap, restart);
    const char *arg = va_arg(ap, const char *);
    harness_program(h, arg, path);
    snprintf(p->name, sizeof p->name, "%s", name);
    p->argv[0] = strdup(path);
    for (int i = 1; i < 15 && (arg = va_arg(ap, const char *)); i++)
        p->argv[i] = strdup(arg);
    va_end(ap);
    p->restart = restart;
    harness_spawn(h, p);
    return p;
}

int harness_supervise(struct harness *h)
{
    int ended = 0;
    for (int i = 0; i < h->processes; i++) {
        struct process *p = &h->process[i];
        if (!p->pid || waitpid(p->pid, &p->status, WNOHANG) != p->pid)
            continue;
        p->pid = 0;
        ended++;
        if (p->restart) {
            p->restarts++;
            harness_spawn(h, p);
        }
    }
    return ended;
}

int harness_wait(struct harness *h, struct process *p, int timeout_ms)
{
    uint64_t until = clock_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    while (p->pid && clock_mono_ns() < until) {
        harness_supervise(h);
        nap_ms(1);
    }
    return p->pid ? -1 : p->status;
}

void harness_kill(struct process *p, int signal)
{
    if (p->pid)
        kill(p->pid, signal);
}

int harness_stop(struct harness *h, struct process *p)
{
    p->restart = 0;
    harness_kill(p, SIGTERM);
    return harness_wait(h, p, 20000);
}

struct azoth *harness_attach(struct harness *h, uint32_t deadline_ms)
{
    struct azoth_options o = {.deadline_ms = deadline_ms, .attach_wait_ms = 10000};
    struct azoth *db = NULL;
    struct azoth_error err;
    if (azoth_open(h->dir, &o, &db, &err)) {
        fprintf(stderr, "attach: %s\n", err.message);
        return NULL;
    }
    return db;
}

int harness_drain(struct azoth *db)
{
    struct azoth_error err;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, AZOTH_STR("harness/drained"), 1);
    int rc = azoth_commit(t, NULL, &err);
    azoth_txn_free(t);
    if (rc)
        fprintf(stderr, "drain: %s\n", err.message);
    return rc == 0;
}

int harness_answers(const char *endpoint)
{
    struct azoth_options o = {.deadline_ms = 10000};
    struct azoth *db;
    struct azoth_error err;
    if (azoth_connect(endpoint, &o, &db, &err)) {
        fprintf(stderr, "connect: %s\n", err.message);
        return 0;
    }
    int there;
    int rc = azoth_exists(db, AZOTH_STR("harness/ping"), &there, &err);
    if (rc)
        fprintf(stderr, "%s: %s\n", endpoint, err.message);
    azoth_close(db);
    return rc == 0;
}

static int segment_clean(const struct segment *s, char *why, size_t size)
{
    for (uint32_t i = 0; i < s->slots; i++) {
        uint32_t state = slot_word_state(atomic_load(&s->slot[i].word));
        if (state != SLOT_FREE)
            return snprintf(why, size, "slot %u is in state %u", i, state) * 0;
    }
    for (uint32_t i = 0; i < s->stripes; i++) {
        if (atomic_load(&s->stripe[i].exclusive))
            return snprintf(why, size, "stripe %u is locked", i) * 0;
        for (uint32_t w = 0; w < SHM_SLOT_WORDS; w++)
            if (atomic_load(&s->stripe[i].shared[w]))
                return snprintf(why, size, "stripe %u is shared", i) * 0;
    }
    for (uint32_t b = 0; b < s->blocks; b++)
        if (atomic_load(&s->block_owner[b]))
            return snprintf(why, size, "block %u is owned", b) * 0;
    for (uint32_t p = 0; p < SHM_PAUSES; p++)
        if ((atomic_load(&s->pause[p].word) & 0xff) != PAUSE_FREE)
            return snprintf(why, size, "pause %u is there", p) * 0;
    return 1;
}

int harness_segment_clean(struct harness *h, int wait_ms)
{
    struct segment_name name;
    struct segment *s;
    struct azoth_error err;
    char why[100] = "";
    if (segment_name_of(h->dir, &name, &err) || segment_attach(&name, &s, &err)) {
        fprintf(stderr, "segment: %s\n", err.message);
        return 0;
    }
    uint64_t until = clock_mono_ns() + (uint64_t)wait_ms * NS_PER_MS;
    int clean;
    while (!(clean = segment_clean(s, why, sizeof why)) && clock_mono_ns() < until) {
        harness_supervise(h);
        nap_ms(5);
    }
    if (!clean)
        fprintf(stderr, "segment: %s\n", why);
    segment_detach(s);
    return clean;
}

int harness_run(char *out, size_t size, char *const argv[])
{
    int pipe_fd[2], status;
    pid_t pid;
    if (pipe2(pipe_fd, O_CLOEXEC))
        return -1;
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, pipe_fd[1], 1);
    int e = posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    close(pipe_fd[1]);
    size_t at = 0;
    char drop[512];
    for (ssize_t n = 1; !e && n > 0;) {
        int room = at + 1 < size;
        n = read(pipe_fd[0], room ? out + at : drop, room ? size - 1 - at : sizeof drop);
        if (n > 0 && room)
            at += (size_t)n;
    }
    close(pipe_fd[0]);
    if (size)
        out[at] = 0;
    if (e || waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int harness_azoth(struct harness *h, char *out, size_t size, const char *a, const char *b,
                  const char *c, const char *d)
{
    char program[256];
    harness_program(h, "azoth", program);
    const char *argv[] = {program, "--dir", h->dir, a, b, c, d, NULL};
    return harness_run(out, size, (char *const *)argv);
}

struct text {
    char *to;
    size_t size, at;
};

static void add_text(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = t->at < t->size ? vsnprintf(t->to + t->at, t->size - t->at, fmt, ap) : 0;
    va_end(ap);
    t->at += n > 0 ? (size_t)n : 0;
}

static int join(void *arg, int n, const char *const *names, const struct query_value *v)
{
    (void)names;
    for (int i = 0; v && i < n; i++) {
        add_text(arg, "%s", i ? "," : "");
        if (v[i].type == QUERY_INTEGER)
            add_text(arg, "%" PRId64, v[i].integer);
        else
            add_text(arg, "%.*s", (int)v[i].bytes.len, (const char *)v[i].bytes.ptr);
    }
    add_text(arg, ";");
    return 0;
}

const char *harness_rows(const struct harness *h, const char *name, const char *sql, char *text,
                         size_t size)
{
    char dir[300];
    struct azoth_error err = {0};
    struct text t = {text, size, 0};
    text[0] = 0;
    snprintf(dir, sizeof dir, "%s/projections", h->dir);
    if (query_run(dir, name, sql, join, &t, &err))
        snprintf(text, size, "%s", err.message);
    return text;
}
