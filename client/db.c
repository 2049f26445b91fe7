/*
 * db.c - opening: handles, the one environment per directory, attaching, the embedded writer.
 *
 * Embedded mode runs the writer's own loop (writer/writer.h) on a thread of this process. A caller
 * that waits for its commit runs the step itself when nobody else does: no thread is woken then.
 *
 * Failure modes
 *   the writer process dies     attached handles notice nothing but time: the next writer answers
 *   the segment is retired      what was not submitted goes to the new one; what was, is unknown
 *   its object is removed       what comes goes to the next one; who waits retires it when its writer is gone
 *   the data file is replaced   RETIRED: this handle reads the old file and must be opened anew
 *   this process forks          the child's copy of a handle answers FORKED; what it opens itself is
 *                               its own
 */
#include "client/internal.h"

#include "core/clock.h"
#include "writer/create.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

__thread int client_in_callback;

static pthread_mutex_t locals_lock = PTHREAD_MUTEX_INITIALIZER;
static struct local *locals; /* of this process */

/* ---- the attachment ---- */

static void attachment_free(struct attachment *a)
{
    while (a->pool_len)
        preflight_free(a->pool[--a->pool_len]);
    participant_leave(a->participant);
    segment_detach(a->segment);
    free(a);
}

static int attach_once(struct local *l, struct attachment **ret, struct azoth_error *err)
{
    struct segment_name name;
    struct attachment *a = calloc(1, sizeof *a);
    if (!a)
        return error_set(err, AZOTH_ERR_NOMEM, "an attachment");
    int rc = segment_name_of(l->dir, &name, err);
    if (!rc)
        rc = segment_attach(&name, &a->segment, err);
    if (!rc) {
        const struct store_identity *id = store_identity(l->store);
        const struct header_shm *h = a->segment->header;
        if (h->device != id->device || h->inode != id->inode)
            rc = error_set(err, AZOTH_ERR_RETIRED,
                           "the data file was replaced: close this handle and open again");
    }
    if (!rc)
        rc = participant_join(a->segment, l->dir,
                              l->writer ? PARTICIPANT_EMBEDDED : PARTICIPANT_CLIENT, l->name,
                              &a->participant, err);
    /* The last writer may have retired it between our look and our joining. */
    if (!rc && segment_retired(a->segment))
        rc = error_set(err, AZOTH_ERR_RETIRED, "%s", azoth_code_sentence(AZOTH_ERR_RETIRED));
    if (rc) {
        participant_leave(a->participant);
        segment_detach(a->segment);
        free(a);
        return rc;
    }
    a->store = l->store;
    a->users = 1; /* local's own */
    *ret = a;
    return 0;
}

/* There is nothing to sleep on while the object is not there: look again every few milliseconds. */
void client_nap(void)
{
    struct timespec ts = {0, 5 * (long)NS_PER_MS};
    nanosleep(&ts, NULL);
}

/* Is it worth another look, after this error? The object is its maker's alone for a moment: that
 * PERMISSION is no answer yet. */
static int attach_again(int rc, int tries)
{
    return rc == AZOTH_ERR_NO_WRITER || rc == AZOTH_ERR_RETIRED ||
           (rc == AZOTH_ERR_PERMISSION && tries < 4);
}

/* The living attachment, made if there is none. l->lock is held; does not wait. */
static int attachment_now(struct local *l, struct attachment **ret, struct azoth_error *err)
{
    struct attachment *a = l->attachment;
    if (a && atomic_load(&a->participant->forked))
        return error_set(err, AZOTH_ERR_FORKED, "%s", azoth_code_sentence(AZOTH_ERR_FORKED));
    if (a && (segment_retired(a->segment) || segment_look(a->segment, clock_mono_ns()))) {
        l->attachment = NULL;
        if (--a->users == 0)
            attachment_free(a);
    }
    int rc = l->attachment ? 0 : attach_once(l, &l->attachment, err);
    if (!rc) {
        *ret = l->attachment;
        (*ret)->users++;
    }
    return rc;
}

int local_attach(struct local *l, uint64_t deadline_ns, struct attachment **ret,
                 struct azoth_error *err)
{
    for (int tries = 0;; tries++) {
        if (atomic_load(&l->failed))
            return error_set(
                err, AZOTH_ERR_IO,
                "a commit of the embedded writer failed: close this handle and open again");
        /* Other threads have deadlines of their own: the lock is not held while we wait. */
        pthread_mutex_lock(&l->lock);
        int rc = attachment_now(l, ret, err);
        pthread_mutex_unlock(&l->lock);
        if (rc == 0 || !attach_again(rc, tries) || clock_mono_ns() >= deadline_ns)
            return rc;
        client_nap();
    }
}

void local_hold(struct local *l, struct attachment *a)
{
    pthread_mutex_lock(&l->lock);
    a->users++;
    pthread_mutex_unlock(&l->lock);
}

void local_release(struct local *l, struct attachment *a)
{
    pthread_mutex_lock(&l->lock);
    if (--a->users == 0)
        attachment_free(a);
    pthread_mutex_unlock(&l->lock);
}

struct preflight *local_preflight(struct local *l, struct attachment *a)
{
    struct preflight *f = NULL;
    pthread_mutex_lock(&l->lock);
    if (a->pool_len)
        f = a->pool[--a->pool_len];
    pthread_mutex_unlock(&l->lock);
    if (!f && preflight_new(a->participant, a->store, &f))
        return NULL;
    return f;
}

void local_preflight_put(struct local *l, struct attachment *a, struct preflight *f)
{
    pthread_mutex_lock(&l->lock);
    if (a->pool_len < CLIENT_POOL) {
        a->pool[a->pool_len++] = f;
        f = NULL;
    }
    pthread_mutex_unlock(&l->lock);
    preflight_free(f);
}

/* ---- the embedded writer ---- */

uint64_t local_now(const struct local *l)
{
    return atomic_load((_Atomic int *)&l->failed) ? UINT64_MAX : clock_mono_ns();
}

int local_step(struct local *l)
{
    if (!l->writer || atomic_load(&l->failed) || pthread_mutex_trylock(&l->step) != 0)
        return 0;
    int n = writer_step(l->writer, clock_mono_ns(), NULL);
    if (n < 0)
        atomic_store(&l->failed, 1);
    pthread_mutex_unlock(&l->step);
    return n > 0;
}

static void *writer_main(void *arg)
{
    struct local *l = arg;
    while (!atomic_load(&l->stopping) && !atomic_load(&l->failed)) {
        pthread_mutex_lock(&l->step);
        int n = writer_step(l->writer, clock_mono_ns(), NULL);
        pthread_mutex_unlock(&l->step);
        if (n < 0)
            atomic_store(&l->failed, 1);
        else if (n == 0)
            writer_wait(l->writer, SHM_WAIT_SLICE_NS);
    }
    return NULL;
}

static void *helper_main(void *arg)
{
    struct local *l = arg;
    pthread_mutex_lock(&l->helper_lock);
    while (!atomic_load(&l->stopping)) {
        struct timespec until;
        /* Not the wall clock: put back, it would have us sleep for as long. */
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += WRITER_HELP_S;
        pthread_cond_clockwait(&l->helper_wake, &l->helper_lock, CLOCK_MONOTONIC, &until);
        pthread_mutex_unlock(&l->helper_lock);
        if (!atomic_load(&l->stopping))
            writer_help(l->writer);
        pthread_mutex_lock(&l->helper_lock);
    }
    pthread_mutex_unlock(&l->helper_lock);
    return NULL;
}

static int embed(struct local *l, const struct azoth_options *opt, struct azoth_error *err)
{
    struct config c;
    int rc = config_load(&c, l->dir, err);
    if (!rc && opt->sync)
        rc = config_set(&c, CONFIG_writer_sync, opt->sync, 3, err);
    if (rc)
        return rc;
    struct writer_options o = {.dir = l->dir, .program = l->name, .embedded = 1};
    writer_options_from(&c, &o);
    o.create = (opt->flags & AZOTH_CREATE) != 0;
    rc = writer_open(&o, &l->writer, err);
    if (rc)
        return rc;
    pthread_mutex_init(&l->helper_lock, NULL);
    pthread_cond_init(&l->helper_wake, NULL);
    if (pthread_create(&l->writer_thread, NULL, writer_main, l)) {
        writer_close(l->writer);
        l->writer = NULL;
        return error_set(err, AZOTH_ERR_NOMEM, "the writer's thread");
    }
    if (pthread_create(&l->helper_thread, NULL, helper_main, l)) {
        atomic_store(&l->stopping, 1);
        pthread_join(l->writer_thread, NULL);
        writer_close(l->writer);
        l->writer = NULL;
        return error_set(err, AZOTH_ERR_NOMEM, "the helper's thread");
    }
    return 0;
}

static void unembed(struct local *l)
{
    atomic_store(&l->stopping, 1);
    struct header_shm *h = writer_segment(l->writer)->header;
    atomic_fetch_add(&h->writer_wake, 1);
    shm_wake(&h->writer_wake, 1);
    pthread_join(l->writer_thread, NULL);
    pthread_mutex_lock(&l->helper_lock);
    pthread_cond_signal(&l->helper_wake);
    pthread_mutex_unlock(&l->helper_lock);
    pthread_join(l->helper_thread, NULL);
    pthread_cond_destroy(&l->helper_wake);
    pthread_mutex_destroy(&l->helper_lock);
    writer_close(l->writer);
    l->writer = NULL;
}

/* ---- one per directory ---- */

static void local_free(struct local *l)
{
    if (l->attachment && --l->attachment->users == 0)
        attachment_free(l->attachment);
    if (l->writer)
        unembed(l);
    store_close(l->store);
    pthread_mutex_destroy(&l->lock);
    pthread_mutex_destroy(&l->step);
    free(l);
}

static int local_fill(struct local *l, const struct azoth_options *opt, struct azoth_error *err)
{
    int rc = 0;
    if (opt->flags & AZOTH_EMBEDDED)
        rc = embed(l, opt, err);
    if (!rc)
        rc = store_open(l->dir, 0, &l->store, err);
    if (!rc && store_unlocked(l->store) && writer_place_held(l->dir))
        rc = error_set(err, AZOTH_ERR_PERMISSION,
                       "%s: mounted for reading only here, and a writer changes it elsewhere",
                       l->dir);
    if (rc || (opt->flags & AZOTH_READ_ONLY))
        return rc;
    uint64_t deadline = clock_mono_ns() + l->attach_wait_ms * NS_PER_MS;
    struct attachment *a;
    rc = local_attach(l, deadline, &a, err);
    if (!rc)
        local_release(l, a);
    /* A segment that a killed writer left is good when its successor is on its way. */
    while (!rc && !l->writer && !writer_place_held(l->dir)) {
        if (clock_mono_ns() >= deadline)
            return error_set(err, AZOTH_ERR_NO_WRITER, "%s: no writer is running", l->dir);
        client_nap();
    }
    return rc;
}

int local_open(const char *dir, const struct azoth_options *opt, struct local **ret,
               struct azoth_error *err)
{
    struct stat st;
    if (stat(dir, &st)) {
        int make = (opt->flags & AZOTH_EMBEDDED) && (opt->flags & AZOTH_CREATE) && errno == ENOENT;
        if (!make || mkdir(dir, 0770) || stat(dir, &st))
            return errno == ENOENT || errno == ENOTDIR
                       ? error_set(err, AZOTH_ERR_NO_DATABASE, "%s: no such directory", dir)
                       : error_errno(err, errno, "%s", dir);
    }
    int rc = 0;
    pthread_mutex_lock(&locals_lock);
    struct local *l = locals;
    while (l && (l->device != st.st_dev || l->inode != st.st_ino))
        l = l->next;
    if (l && (opt->flags & AZOTH_EMBEDDED) && !l->writer)
        rc = error_set(
            err, AZOTH_ERR_UNSUPPORTED,
            "%s: open in this process without an embedded writer: open it embedded first", dir);
    if (!l) {
        l = calloc(1, sizeof *l);
        if (!l || !realpath(dir, l->dir)) {
            free(l);
            pthread_mutex_unlock(&locals_lock);
            return error_set(err, AZOTH_ERR_NOMEM, "a handle on %s", dir);
        }
        pthread_mutex_init(&l->lock, NULL);
        pthread_mutex_init(&l->step, NULL);
        l->device = st.st_dev;
        l->inode = st.st_ino;
        l->attach_wait_ms = opt->attach_wait_ms ? opt->attach_wait_ms : 2000;
        snprintf(l->name, sizeof l->name, "%s",
                 opt->name ? opt->name : program_invocation_short_name);
        rc = local_fill(l, opt, err);
        if (rc) {
            local_free(l);
        } else {
            l->next = locals;
            locals = l;
        }
    }
    if (!rc) {
        l->users++;
        *ret = l;
    }
    pthread_mutex_unlock(&locals_lock);
    return rc;
}

void local_close(struct local *l)
{
    pthread_mutex_lock(&locals_lock);
    if (--l->users == 0) {
        struct local **at = &locals;
        while (*at != l)
            at = &(*at)->next;
        *at = l->next;
        local_free(l);
    }
    pthread_mutex_unlock(&locals_lock);
}

/* ---- handles ---- */

static _Atomic unsigned generation = 1; /* counts forks on the way to this process */

/* In the child: what the parent has open stays the parent's, and is not found here. */
static void forget_parents(void)
{
    atomic_fetch_add(&generation, 1);
    locals = NULL;
    pthread_mutex_init(&locals_lock, NULL);
}

static void register_fork(void)
{
    pthread_atfork(NULL, NULL, forget_parents);
}

int handle_check(const struct azoth *db, struct azoth_error *err)
{
    if (db->generation == atomic_load_explicit(&generation, memory_order_relaxed))
        return 0;
    return error_set(err, AZOTH_ERR_FORKED, "%s", azoth_code_sentence(AZOTH_ERR_FORKED));
}

static int handle_new(const struct azoth_options *opt, struct azoth **ret, struct azoth_error *err)
{
    struct azoth *db = calloc(1, sizeof *db);
    if (!db)
        return error_set(err, AZOTH_ERR_NOMEM, "a handle");
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork);
    db->generation = atomic_load(&generation);
    db->deadline_ms = opt->deadline_ms ? opt->deadline_ms : 5000;
    db->wait_paused = opt->wait_paused;
    db->read_only = (opt->flags & AZOTH_READ_ONLY) != 0;
    if (getrandom(db->id_prefix, sizeof db->id_prefix, 0) != sizeof db->id_prefix) {
        free(db);
        return error_errno(err, errno, "random bytes");
    }
    pthread_mutex_init(&db->lock, NULL);
    *ret = db;
    return 0;
}

static void handle_free(struct azoth *db)
{
    pthread_mutex_destroy(&db->lock);
    free(db);
}

int client_init(const char *dir, int chain_off, struct azoth_error *err)
{
    struct config c;
    int rc = config_load(&c, dir, err);
    if (rc)
        return rc;
    struct store_plan plan = {c.number[CONFIG_writer_reserve], chain_off};
    return store_create_planned(dir, &plan, err);
}

int azoth_init(const char *dir, struct azoth_error *err)
{
    return client_init(dir, 0, err);
}

int azoth_open(const char *dir, const struct azoth_options *opt, struct azoth **ret,
               struct azoth_error *err)
{
    static const struct azoth_options none;
    if (!opt)
        opt = &none;
    if ((opt->flags & AZOTH_EMBEDDED) && (opt->flags & AZOTH_READ_ONLY))
        return error_set(err, AZOTH_ERR_USAGE, "embedded and read-only exclude each other");
    struct azoth *db;
    int rc = handle_new(opt, &db, err);
    if (rc)
        return rc;
    rc = local_open(dir, opt, &db->local, err);
    if (rc)
        handle_free(db);
    else
        *ret = db;
    return rc;
}

int azoth_connect(const char *endpoints, const struct azoth_options *opt, struct azoth **ret,
                  struct azoth_error *err)
{
    static const struct azoth_options none;
    if (!opt)
        opt = &none;
    if (opt->flags)
        return error_set(err, AZOTH_ERR_UNSUPPORTED, "a remote handle takes no flags");
    struct azoth *db;
    int rc = handle_new(opt, &db, err);
    if (rc)
        return rc;
    rc = remote_open(endpoints, &db->remote, err);
    if (rc)
        handle_free(db);
    else
        *ret = db;
    return rc;
}

void azoth_close(struct azoth *db)
{
    if (!db)
        return;
    if (handle_check(db, NULL)) {
        free(db); /* all else is the parent's */
        return;
    }
    client_pause_end(db); /* first: some of what is in flight may wait for that */
    while (azoth_in_flight(db) > 0)
        if (azoth_poll(db, 100) < 0)
            break;
    if (db->local)
        local_close(db->local);
    remote_close(db->remote);
    handle_free(db);
}

struct azoth_bytes azoth_str(const char *s)
{
    return bytes_str(s);
}
