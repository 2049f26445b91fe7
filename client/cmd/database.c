/* database.c - how the azoth command finds and opens its database. */
#include "client/cmd/cmd.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "shm/participant.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int cmd_dir(const struct cmd_line *l, const char *word, int must_exist, char *out, size_t size)
{
    struct azoth_error err;
    if (dbdir_resolve(word ? word : l->dir, out, size, &err))
        return cmd_fail(&err);
    if (!must_exist)
        return 0;
    char file[4200];
    struct stat st;
    if (dbdir_path(file, sizeof file, out, "data.mdb") == 0 && stat(file, &st) == 0)
        return 0;
    if (errno != ENOENT && errno != ENOTDIR) {
        error_errno(&err, errno, "%s", file);
        return cmd_fail(&err);
    }
    return cmd_fail_code(AZOTH_ERR_NO_DATABASE,
                         "%s: there is no database in this directory; azoth init %s makes one", out,
                         out);
}

int cmd_run_dir(const char *dir, const struct config *c, char *out, size_t size,
                struct azoth_error *err)
{
    const char *given = c->text[CONFIG_run_dir];
    int n = *given ? snprintf(out, size, "%s", given) : snprintf(out, size, "%s/run", dir);
    if (n < 0 || (size_t)n >= size)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir);
    return 0;
}

/* Whether azoth run works in DIR/run. */
static int run_works(const char *run_dir)
{
    char path[4200];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = dbdir_path(path, sizeof path, run_dir, "supervisor.lock")
                 ? -1
                 : open(path, O_RDWR | O_CLOEXEC);
    int works = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0)
        close(fd);
    return works;
}

/* The run directory of the unit's database that lies in dir under this name; 0: there is none. */
static int units_run_dir(const char *dir, const char *name, char *out, size_t size)
{
    char standard[4096], part[AZOTH_NAME_MAX + 1];
    struct stat a, b;
    return !strchr(name, ':') &&
           dbdir_instance(name, standard, sizeof standard, out, size, part, sizeof part, NULL) ==
               0 &&
           stat(dir, &a) == 0 && stat(standard, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino && stat(out, &a) == 0;
}

int cmd_find_run_dir(const char *dir, const struct config *c, char *out, size_t size,
                     struct azoth_error *err)
{
    char real[PATH_MAX], typed[4096], own[4096];
    int rc = cmd_run_dir(dir, c, own, sizeof own, err);
    if (rc)
        return rc;
    snprintf(typed, sizeof typed, "%s", dir);
    if (!realpath(dir, real))
        real[0] = 0;
    /* Either may be the name: a link's, or that of the directory in which we are. */
    if (!c->text[CONFIG_run_dir][0] && !run_works(own) &&
        (units_run_dir(dir, basename(typed), out, size) ||
         units_run_dir(dir, basename(real), out, size)))
        return 0;
    if ((size_t)snprintf(out, size, "%s", own) >= size)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir);
    return 0;
}

struct question {
    char dir[4096];
    int (*ask)(struct store *s, void *arg, struct azoth_error *err);
    void *arg;
    int rc, done, given_up;
    struct azoth_error err;
    pthread_mutex_t lock;
    pthread_cond_t answered;
};

/* A thread hangs there: no second one, until it comes back. */
static _Atomic int stuck;

static void question_free(struct question *q)
{
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->answered);
    free(q);
}

static void *question_main(void *p)
{
    struct question *q = p;
    struct store *store;
    int rc = store_open(q->dir, 0, &store, &q->err);
    if (!rc) {
        rc = q->ask(store, q->arg, &q->err);
        store_close(store);
    }
    pthread_mutex_lock(&q->lock);
    q->rc = rc;
    q->done = 1;
    int given_up = q->given_up;
    pthread_cond_signal(&q->answered);
    pthread_mutex_unlock(&q->lock);
    if (given_up) {
        free(q->arg);
        question_free(q);
        stuck = 0;
    }
    return NULL;
}

int cmd_ask_store(const char *dir, int (*ask)(struct store *s, void *arg, struct azoth_error *err),
                  void *arg, uint32_t timeout_ms, struct azoth_error *err)
{
    if (stuck) {
        free(arg);
        return error_set(err, AZOTH_ERR_TIMEOUT, "the store still does not answer");
    }
    struct question *q = calloc(1, sizeof *q);
    if (!q)
        return error_set(err, AZOTH_ERR_NOMEM, "a question to the store");
    snprintf(q->dir, sizeof q->dir, "%s", dir);
    q->ask = ask;
    q->arg = arg;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->answered, &attr);
    pthread_condattr_destroy(&attr);
    pthread_t thread;
    if (pthread_create(&thread, NULL, question_main, q)) {
        question_free(q);
        return error_set(err, AZOTH_ERR_NOMEM, "a thread");
    }
    uint64_t until = clock_mono_ns() + timeout_ms * NS_PER_MS;
    struct timespec ts = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    pthread_mutex_lock(&q->lock);
    while (!q->done && pthread_cond_timedwait(&q->answered, &q->lock, &ts) == 0)
        ;
    int done = q->done;
    q->given_up = !done;
    stuck = !done;
    pthread_mutex_unlock(&q->lock);
    if (!done) {
        pthread_detach(thread);
        return error_set(err, AZOTH_ERR_TIMEOUT,
                         "the store did not answer: a process may be stopped inside it");
    }
    pthread_join(thread, NULL);
    int rc = q->rc;
    if (rc && err)
        *err = q->err;
    question_free(q);
    return rc;
}

int cmd_open(const struct cmd_line *l, const char *to, unsigned flags, struct azoth **ret)
{
    struct azoth_error err;
    char name[32], dir[4096];
    snprintf(name, sizeof name, "azoth %s", l->cmd->name);
    struct azoth_options opt = {.name = name, .flags = to ? 0 : flags};
    if (to)
        return azoth_connect(to, &opt, ret, &err) ? cmd_fail(&err) : 0;
    int exit_code = cmd_dir(l, NULL, 1, dir, sizeof dir);
    if (exit_code)
        return exit_code;
    int rc = azoth_open(dir, &opt, ret, &err);
    if (rc == AZOTH_ERR_WRITER_RUNNING && (flags & AZOTH_EMBEDDED)) {
        /* Somebody else writes: be one of its clients. */
        opt.flags = 0;
        rc = azoth_open(dir, &opt, ret, &err);
    }
    return rc ? cmd_fail(&err) : 0;
}

int cmd_open_attached(const struct cmd_line *l, struct azoth **ret)
{
    char name[32], dir[4096];
    snprintf(name, sizeof name, "azoth %s", l->cmd->name);
    struct azoth_options opt = {.name = name};
    int exit_code = cmd_dir(l, NULL, 1, dir, sizeof dir);
    if (exit_code)
        return exit_code;
    if (writer_place_held(dir) && azoth_open(dir, &opt, ret, NULL) == 0)
        return 0;
    return cmd_open(l, NULL, AZOTH_READ_ONLY, ret);
}

/* ---- definitions of projections ---- */

static int is_definition(const struct dirent *e)
{
    char name[256];
    size_t n = strlen(e->d_name);
    if (n < 5 || strcmp(e->d_name + n - 4, ".sql") != 0)
        return 0;
    memcpy(name, e->d_name, n - 4);
    name[n - 4] = 0;
    return dbdir_name_valid(name);
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int cmd_definitions(const char *dir, struct dirent ***ret, struct azoth_error *err)
{
    char path[4200];
    *ret = NULL;
    int rc = dbdir_path(path, sizeof path, dir, "projections");
    if (rc)
        return error_set(err, rc, "%s: the path is too long", dir);
    int n = scandir(path, ret, is_definition, compare_names);
    if (n < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    for (int i = 0; i < n; i++)
        (*ret)[i]->d_name[strlen((*ret)[i]->d_name) - 4] = 0;
    return n;
}

void cmd_definitions_free(struct dirent **list, int n)
{
    for (int i = 0; i < n; i++)
        free(list[i]);
    free(list);
}
