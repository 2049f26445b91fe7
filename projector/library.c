/*
 * library.c - handlers and decisions in C.
 *
 * Happy path: the library is loaded before the file is opened, since its version is part of what makes the
 * rows; its state is opened when migrations are done and closed before the connection. In a batch without
 * savepoints the events of one batch handler are kept until another handler's comes, or the batch ends.
 *
 * Failure modes
 *   it cannot be used          refused by name before anything is opened
 *   a handler fails            apply.c does the batch again event by event, which is told to the state
 *   SQLite rolls all back      seen behind the call: the event fails as one whose SQL did so (apply.c)
 *   it goes on regardless      the commit hook refuses what it would write outside the transaction
 *   it crashes, or hangs       the process ends, the file is as of the last commit
 *
 * Invariants
 *   1  nothing is committed while a function of the library runs
 *   2  nothing is kept when a savepoint or a transaction begins or ends
 *   3  a begin is followed by one commit or rollback, a savepoint by one release, undo or that rollback
 */
#include "projector/library.h"

#include "core/dbdir.h"
#include "core/error.h"
#include "projector/table_own.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define PROJECTIONS_MAX 256u
#define HANDLERS_MAX    16384u
#define SENTENCE_MAX    150u

struct library {
    const struct sqlfile *def;
    void *handle; /* of dlopen */
    int fd;       /* of its file, when its name was taken; -1: it was not */
    const struct azoth_projection *p;
    struct tablefile *file; /* NULL: not started */
    void *state;
    int running; /* a function of it: the guard is on and commits are refused */
    int in_transaction, in_savepoint;

    /* Events kept for a batch handler. */
    const struct azoth_projection_handler *handler;
    uint32_t line, kept;
    struct azoth_projection_event event[AZOTH_PROJECTION_BATCH_MAX];
};

/* ---- what the definition needs ---- */

static int at_line(const struct library *l, uint32_t line, struct azoth_error *err,
                   struct azoth_bytes type, const char *what)
{
    char shown[60];
    return error_set(err, AZOTH_ERR_PROJECTION, "%s:%u:1: %s%s%s", l->def->path, line,
                     bytes_print(type, shown, sizeof shown), type.len ? " " : "", what);
}

static int is_custom(const struct sql_policy *p)
{
    return p->strategy == STRATEGY_CUSTOM || p->then == STRATEGY_CUSTOM;
}

const struct azoth_projection_handler *library_handler(const struct library *l,
                                                       struct azoth_bytes type)
{
    for (uint32_t i = 0; l && i < l->p->handlers; i++)
        if (azoth_projection_is(type, l->p->handler[i].type))
            return &l->p->handler[i];
    return NULL;
}

/* Each type in C has a handler, and who is asked for decisions is there. p is NULL without a library. */
static int serves(const struct library *l, struct azoth_error *err)
{
    const struct sqlfile *d = l->def;
    for (uint32_t i = 0; i < d->handlers; i++)
        for (uint32_t t = 0; d->handler[i].in_c && t < d->handler[i].types_len; t++) {
            struct azoth_bytes type = d->handler[i].types[t];
            if (!l->p)
                return at_line(l, d->handler[i].mark_line, err, type,
                               "is handled in C: no library (`load FILE.so`, or --load) is given");
            if (!library_handler(l, type))
                return at_line(l, d->handler[i].mark_line, err, type,
                               "is handled in C, but the library has no handler of this type");
        }
    const char *why = !l->p             ? "on-error custom: no library (`load FILE.so`) is given"
                      : !l->p->on_error ? "on-error custom: the library decides nothing (on_error)"
                                        : NULL;
    if (why && is_custom(&d->policy))
        return at_line(l, d->policy_line, err, bytes_of("", 0), why);
    for (uint32_t i = 0; why && i < d->policies; i++)
        if (is_custom(&d->policy_for[i].policy))
            return at_line(l, d->policy_for[i].line, err, bytes_of("", 0), why);
    return 0;
}

/* ---- loading ---- */

static int check_projection(const struct azoth_projection *p, const char *path,
                            struct azoth_error *err)
{
    if (p->handlers > HANDLERS_MAX || (p->handlers && !p->handler))
        return error_set(err, AZOTH_ERR_CONFIG, "%s: %s has %u handlers, 0 to %u are possible",
                         path, p->name, p->handlers, HANDLERS_MAX);
    for (uint32_t i = 0; i < p->handlers; i++) {
        const struct azoth_projection_handler *h = &p->handler[i];
        if (!h->type || !h->event == !h->batch)
            return error_set(err, AZOTH_ERR_CONFIG,
                             "%s: handler %u of %s: it needs a type, and either event or batch",
                             path, i, p->name);
    }
    return 0;
}

static int find_projection(struct library *l, const struct azoth_projection_library *lib,
                           const char *path, struct azoth_error *err)
{
    if (lib->count < 1 || lib->count > PROJECTIONS_MAX || !lib->projections)
        return error_set(err, AZOTH_ERR_CONFIG, "%s: %u projections, 1 to %u are possible", path,
                         lib->count, PROJECTIONS_MAX);
    for (uint32_t i = 0; i < lib->count; i++) {
        const struct azoth_projection *p = &lib->projections[i];
        if (!p->name || !dbdir_name_valid(p->name))
            return error_set(err, AZOTH_ERR_CONFIG, "%s: projection %u has no valid name", path, i);
        if (strcmp(p->name, l->def->name) == 0) {
            l->p = p;
            return check_projection(p, path, err);
        }
    }
    return error_set(err, AZOTH_ERR_CONFIG, "%s: it has no projection %s", path, l->def->name);
}

/*
 * What lies under this path now. The loader knows by name what it has loaded, and the file may be another one by
 * now: the library was built anew while this process has the old one. By another name the loader looks at the file
 * itself, and knows the old one when it is that. The descriptor stays, so that no other has its number.
 */
static void *open_object(struct library *l, const char *full)
{
    char name[40];
    void *there = dlopen(full, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    if (!there)
        return dlopen(full, RTLD_NOW | RTLD_LOCAL);
    l->fd = open(full, O_RDONLY | O_CLOEXEC);
    snprintf(name, sizeof name, "/proc/self/fd/%d", l->fd);
    void *now = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    dlclose(there);
    return now;
}

static int load_file(struct library *l, const char *path, struct azoth_error *err)
{
    /* A bare name would be looked for in the system's library directories. */
    char full[PATH_MAX];
    if (!realpath(path, full))
        return error_foreign(err, AZOTH_ERR_CONFIG, errno, "%s: %s", path, strerror(errno));
    l->handle = open_object(l, full);
    if (!l->handle)
        return error_set(err, AZOTH_ERR_CONFIG, "%s", dlerror());
    const struct azoth_projection_library *(*entry)(void);
    void *symbol = dlsym(l->handle, "azoth_projections");
    if (!symbol)
        return error_set(err, AZOTH_ERR_CONFIG, "%s: it has no function azoth_projections", path);
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no conversion from data to function */
    const struct azoth_projection_library *lib = entry();
    if (!lib || lib->abi != AZOTH_PROJECTION_ABI)
        return error_set(err, AZOTH_ERR_CONFIG,
                         "%s: made for projection ABI %u, this projector has %u", path,
                         lib ? lib->abi : 0, AZOTH_PROJECTION_ABI);
    return find_projection(l, lib, path, err);
}

int library_load(const struct sqlfile *def, const char *load, struct library **ret,
                 struct azoth_error *err)
{
    const char *path = load ? load : def->load[0] ? def->load : NULL;
    struct library *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(err, AZOTH_ERR_NOMEM, "a library");
    l->def = def;
    l->fd = -1;
    int rc = path ? load_file(l, path, err) : 0;
    if (!rc)
        rc = serves(l, err);
    if (rc || !path) {
        library_unload(l);
        l = NULL;
    }
    if (!rc)
        *ret = l;
    return rc;
}

void library_unload(struct library *l)
{
    if (!l)
        return;
    if (l->handle)
        dlclose(l->handle);
    if (l->fd >= 0)
        close(l->fd);
    free(l);
}

uint64_t library_makers(const struct library *l)
{
    return l ? UINT64_C(1) << 32 | l->p->version : 0;
}

/* ---- how a function tells that it failed ---- */

struct failing {
    struct azoth_projection_fail f; /* its host is this */
    struct library *l;
    int rc; /* what was told: HANDLER or the machine's fault */
    int32_t code;
    char sentence[SENTENCE_MAX + 1];
    struct azoth_error machine;
};

/* Cut within a character, or never UTF-8: people read it. */
static void keep_text(char *text)
{
    size_t len = strlen(text);
    while (len && !utf8_valid(bytes_of(text, len)))
        len--;
    text[len] = 0;
}

__attribute__((format(printf, 3, 4))) static int fail_event(struct azoth_projection_fail *f,
                                                            int32_t code, const char *fmt, ...)
{
    struct failing *k = f->host;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(k->sentence, sizeof k->sentence, fmt, ap);
    va_end(ap);
    keep_text(k->sentence);
    k->code = code;
    return k->rc = AZOTH_ERR_HANDLER;
}

static int fail_sqlite(struct azoth_projection_fail *f)
{
    struct failing *k = f->host;
    sqlite3 *db = k->l->file->db;
    int code = sqlite3_extended_errcode(db);
    if (sql_is_machine(k->l->file->sql))
        return k->rc = sqlite_error(db, &k->machine, k->l->file->path);
    return fail_event(f, code, "%s", sqlite3_errmsg(db));
}

/* What a function returned: 0, HANDLER with a sentence, or the machine's fault. */
static int outcome(struct failing *k, int returned)
{
    if (returned == 0 || k->rc)
        return returned ? k->rc : 0;
    return fail_event(&k->f, 0, "it returned %d, and no reason", returned);
}

/* ---- the state's life ---- */

static int refuse_commit(void *arg)
{
    const struct library *l = arg;
    return l->running;
}

static void enter(struct library *l)
{
    l->running = 1;
}

/* A statement that is left stepped would hold its rows, and keep the transaction from its end. */
static void leave(struct library *l)
{
    for (sqlite3_stmt *s = NULL; (s = sqlite3_next_stmt(l->file->db, s));)
        if (sqlite3_stmt_busy(s))
            sqlite3_reset(s);
    l->running = 0;
}

static void let_go(struct library *l)
{
    sqlite3_commit_hook(l->file->db, NULL, NULL);
    sql_guard(l->file->sql, 0);
    l->file = NULL;
    l->state = NULL;
}

int library_start(struct library *l, struct tablefile *f, struct azoth_error *err)
{
    if (!l)
        return 0;
    struct azoth_projection_open o = {
        .db = f->db, .name = l->def->name, .shard = f->shard, .shards = f->shards};
    struct failing k = {.f = {&k, fail_event, fail_sqlite}, .l = l};
    void *state = NULL;
    l->file = f;
    sql_sqlite_guard_while(f->sql, &l->running);
    sqlite3_commit_hook(f->db, refuse_commit, l);
    if (!l->p->open)
        return 0;
    enter(l);
    int rc = outcome(&k, l->p->open(&o, &state, &k.f));
    leave(l);
    if (rc == 0) {
        l->state = state;
        return 0;
    }
    let_go(l); /* nothing of it is open: nothing is to be closed */
    if (rc != AZOTH_ERR_HANDLER) {
        if (err)
            *err = k.machine;
        return rc;
    }
    return error_foreign(err, AZOTH_ERR_PROJECTION, k.code, "%s: its library cannot be opened: %s",
                         l->def->path, k.sentence);
}

void library_stop(struct library *l)
{
    if (!l || !l->file)
        return;
    enter(l);
    if (l->p->close)
        l->p->close(l->state);
    leave(l);
    let_go(l);
}

/* ---- what it is told ---- */

static void call(struct library *l, void (*fn)(void *state))
{
    if (!fn)
        return;
    enter(l);
    fn(l->state);
    leave(l);
}

void library_tell(struct library *l, enum library_moment moment)
{
    if (!l || !l->file || (moment != LIBRARY_BEGUN && !l->in_transaction))
        return;
    l->kept = 0;
    l->in_transaction = moment != LIBRARY_COMMITTED && moment != LIBRARY_ROLLED_BACK;
    l->in_savepoint = moment == LIBRARY_SAVED;
    void (*const fn[])(void *) = {
        [LIBRARY_BEGUN] = l->p->begin,          [LIBRARY_COMMITTED] = l->p->commit,
        [LIBRARY_ROLLED_BACK] = l->p->rollback, [LIBRARY_SAVED] = l->p->savepoint,
        [LIBRARY_RELEASED] = l->p->release,     [LIBRARY_UNDONE] = l->p->undo};
    call(l, fn[moment]);
}

/* ---- events ---- */

static struct azoth_projection_event event_of(const struct event_record *ev)
{
    return (struct azoth_projection_event){.id = ev->id,
                                           .txn = ev->txn,
                                           .time_ns = ev->time_ns,
                                           .type = ev->type,
                                           .key = ev->key,
                                           .metadata = ev->metadata,
                                           .payload = ev->payload};
}

static int told_of(const struct library *l, const struct failing *k, int rc,
                   const struct azoth_projection_event *ev, struct azoth_error *err)
{
    char type[60];
    if (rc == 0)
        return 0;
    if (rc != AZOTH_ERR_HANDLER) {
        if (err)
            *err = k->machine;
        return rc;
    }
    return error_foreign(err, rc, k->code, "event %" PRIu64 " (%s): %s:%u: %s", ev->id,
                         bytes_print(ev->type, type, sizeof type), l->def->path, l->line,
                         k->sentence);
}

/* Runs the handler on the n events that are kept. */
static int run_kept(struct library *l, struct azoth_error *err)
{
    const struct azoth_projection_handler *h = l->handler;
    struct failing k = {.f = {&k, fail_event, fail_sqlite}, .l = l};
    sqlite3 *db = l->file->db;
    size_t n = l->kept;
    l->kept = 0;
    enter(l);
    int rc = outcome(&k, h->batch ? h->batch(l->state, db, l->event, n, &k.f)
                                  : h->event(l->state, db, l->event, &k.f));
    leave(l);
    if (!rc && sqlite3_get_autocommit(db))
        rc = fail_event(&k.f, 0, "its SQL rolled the transaction back, and it went on");
    return told_of(l, &k, rc, l->event, err);
}

int library_flush(struct library *l, struct azoth_error *err)
{
    return l && l->kept ? run_kept(l, err) : 0;
}

int library_run(struct library *l, const struct azoth_projection_handler *h,
                const struct event_record *ev, uint32_t line, struct azoth_error *err)
{
    int full = l->kept == AZOTH_PROJECTION_BATCH_MAX;
    int rc = full || (l->kept && l->handler->batch != h->batch) ? run_kept(l, err) : 0;
    if (rc)
        return rc;
    l->handler = h;
    l->line = line;
    l->event[l->kept++] = event_of(ev);
    return h->batch && !l->in_savepoint ? 0 : run_kept(l, err);
}

enum azoth_projection_answer library_decide(struct library *l, const struct event_record *ev,
                                            const struct azoth_projection_failure *why,
                                            uint64_t *ret_wait_ms)
{
    const struct azoth_projection_event e = event_of(ev);
    uint64_t wait = 0;
    enter(l);
    enum azoth_projection_answer answer = l->p->on_error(l->state, &e, why, &wait);
    leave(l);
    if (answer == AZOTH_PROJECTION_RETRY && why->attempts >= AZOTH_PROJECTION_ATTEMPTS_MAX)
        answer = AZOTH_PROJECTION_FAIL_FAST;
    *ret_wait_ms = wait < AZOTH_PROJECTION_WAIT_MS_MAX ? wait : AZOTH_PROJECTION_WAIT_MS_MAX;
    return answer;
}
