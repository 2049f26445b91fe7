/*
 * copy.c - LMDB's compacting copy of a known commit.
 *
 * LMDB begins the read transaction of a copy by itself and does not tell of which commit it is. But its
 * table of readers does: a thread of ours takes a snapshot and calls mdb_env_copyfd2() right behind it, and the
 * table shows which commit that thread copies. Equal numbers are one commit; else all is tried again, which is
 * rare: some 50 us lie between. LMDB may still correct what it has put into the table: so the pipe is filled with
 * bytes of ours but for a page of it, and the table counts as soon as LMDB's first bytes are in that page; nor
 * can the copy be over before, as the shortest one has two pages.
 *
 * Why the compacting copy, and not the other, which is a plain run through the file: without MDB_CP_COMPACT LMDB
 * holds the writers' mutex while it writes the two meta pages to the descriptor. A process that is stopped
 * there (SIGSTOP, or a pipe that nobody empties) stops every commit; this was tried. The compacting one takes no
 * lock but that of the reader table, as any reader does.
 *
 * Failure modes
 *   a commit between our snapshot and LMDB's   other numbers: the pipe is closed, and all is tried again
 *   the caller gives up                        the same: LMDB ends with EPIPE (it takes care of the signal)
 *   killed                                     the reader's slot is a dead process's, which the writer clears
 *   stopped                                    the slot keeps pages in use; no lock is held
 *   no lock file (a read-only mount)           no table either: the number at the end must be that of the
 *                                              beginning, since nothing protects pages from a writer elsewhere
 */
#include "writer/copy.h"

#include "core/crash.h"
#include "core/io.h"
#include "core/store_lmdb.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define COPY_TRIES 200u
#define PIPE_BYTES (1 << 20)

struct copy {
    struct store *store;
    struct snapshot *snapshot;
    uint64_t commit, file_bytes;
    int to, from; /* the pipe's ends: LMDB's, ours; -1 */
    int filled;   /* bytes of ours in the pipe */
    int running, ended;
    pthread_t thread;
    _Atomic int begun; /* the thread has the snapshot, which is the caller's from then on */
    _Atomic int done;  /* it returned */
    int rc;            /* when done: LMDB's, or the snapshot's */
    struct azoth_error error;
};

static int renew(struct copy *c, struct azoth_error *err)
{
    snapshot_end(c->snapshot);
    c->snapshot = NULL;
    int rc = snapshot_begin(c->store, &c->snapshot, err);
    if (!rc)
        c->commit = mdb_txn_id(snapshot_txn(c->snapshot));
    return rc;
}

static uint64_t file_bytes(const struct copy *c)
{
    struct stat st;
    int fd;
    return mdb_env_get_fd(store_lmdb(c->store)->env, &fd) || fstat(fd, &st) ? 0
                                                                            : (uint64_t)st.st_size;
}

/*
 * Whether the thread copies the snapshot's commit, when it copies. The copy's slot in the table has the thread's name;
 * the snapshot's has it or not, since a slot keeps the name of who first had it: so all with that name must be of it.
 */
static int same_commit(const struct copy *c)
{
    static _Thread_local struct store_reader list[STORE_READERS_MAX];
    uint32_t n = 0, same = 0, other = 0;
    if (store_readers(c->store, list, STORE_READERS_MAX, &n))
        return 0;
    for (uint32_t i = 0; i < n; i++)
        if (list[i].pid == (uint64_t)getpid() && list[i].thread == (uint64_t)c->thread) {
            same += list[i].snapshot == c->commit;
            other += list[i].snapshot != c->commit;
        }
    return same && !other;
}

static void *copy_main(void *arg)
{
    struct copy *c = arg;
    c->rc = renew(c, &c->error);
    atomic_store(&c->begun, 1);
    if (!c->rc)
        c->rc = mdb_env_copyfd2(store_lmdb(c->store)->env, c->to, MDB_CP_COMPACT);
    close(c->to); /* the reader's end of file */
    atomic_store(&c->done, 1);
    return NULL;
}

static void stop(struct copy *c)
{
    if (c->from >= 0)
        close(c->from);
    c->from = -1;
    if (c->running)
        pthread_join(c->thread, NULL);
    c->running = 0;
}

/* Leaves room for less than the shortest copy. */
static int fill_pipe(struct copy *c, struct azoth_error *err)
{
    static const char page[4096];
    int room = fcntl(c->to, F_GETPIPE_SZ);
    int rc = 0;
    c->filled = room - (int)sizeof page;
    for (int i = 0; !rc && i < c->filled; i += (int)sizeof page)
        rc = io_write_all(c->to, page, sizeof page, "a pipe", err);
    return rc;
}

/* Takes out what we have put in. */
static int empty_pipe(struct copy *c, struct azoth_error *err)
{
    char page[4096];
    size_t n;
    for (; c->filled > 0; c->filled -= (int)sizeof page) {
        int rc = io_read_full(c->from, page, sizeof page, &n, "a pipe", err);
        if (rc)
            return rc;
        ensure(n == sizeof page); /* we have put them in */
    }
    (void)fcntl(c->from, F_SETPIPE_SZ, PIPE_BYTES); /* fewer switches; as it is will do */
    return 0;
}

static int start(struct copy *c, struct azoth_error *err)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC))
        return error_errno(err, errno, "a pipe");
    c->from = fd[0];
    c->to = fd[1];
    int rc = fill_pipe(c, err);
    if (rc) {
        close(c->to);
        return rc;
    }
    atomic_store(&c->begun, 0);
    atomic_store(&c->done, 0);
    if (pthread_create(&c->thread, NULL, copy_main, c)) {
        close(c->to);
        return error_set(err, AZOTH_ERR_NOMEM, "a thread");
    }
    c->running = 1;
    return 0;
}

/* Of a file that no table of readers protects. */
static int check_untouched(struct copy *c, struct azoth_error *err)
{
    uint64_t before = c->commit;
    int rc = renew(c, err);
    return !rc && c->commit != before
               ? error_set(err, AZOTH_ERR_BUSY, "the file was written to from elsewhere: try again")
               : rc;
}

static int at_end(struct copy *c, struct azoth_error *err)
{
    stop(c);
    c->ended = 1;
    if (c->rc == c->error.code && c->rc) { /* the snapshot's */
        *err = c->error;
        return c->rc;
    }
    if (c->rc == MDB_INCOMPATIBLE)
        return error_foreign(err, AZOTH_ERR_CORRUPT, c->rc,
                             "data.mdb: its pages in use and its free ones are not all there are");
    if (c->rc)
        return lmdb_error(err, c->rc, "copying data.mdb");
    return store_unlocked(c->store) ? check_untouched(c, err) : 0;
}

/* LMDB's first bytes are in the pipe: 1; it has failed: 0. */
static int await_bytes(struct copy *c)
{
    int there = 0;
    while (!atomic_load(&c->done)) {
        if (atomic_load(&c->begun) && ioctl(c->from, FIONREAD, &there) == 0 && there > c->filled)
            return 1;
        nanosleep(&(struct timespec){0, 100000}, NULL);
    }
    return 0;
}

/* 1: the snapshot and the copy are of one commit; 0: they are not; or why not. */
static int try_once(struct copy *c, struct azoth_error *err)
{
    int rc = start(c, err);
    if (rc)
        return rc;
    if (!await_bytes(c))
        return at_end(c, err);
    CRASH_POINT(copy_opened);
    if (!store_unlocked(c->store) && !same_commit(c))
        return 0;
    rc = empty_pipe(c, err);
    return rc ? rc : 1;
}

int copy_begin(struct store *s, struct copy **ret, struct azoth_error *err)
{
    struct copy *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, AZOTH_ERR_NOMEM, "a copy");
    c->store = s;
    c->from = -1;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < COPY_TRIES; i++) {
        c->file_bytes = file_bytes(c);
        rc = try_once(c, err);
        if (rc != 1)
            stop(c);
        c->ended = 0;
    }
    if (rc == 1) {
        CRASH_POINT(copy_begun);
        *ret = c;
        return 0;
    }
    if (rc == 0)
        rc = error_set(err, AZOTH_ERR_BUSY, "commits come faster than a copy of one can be begun");
    copy_end(c);
    return rc;
}

struct snapshot *copy_snapshot(const struct copy *c)
{
    return c->snapshot;
}

int copy_read(struct copy *c, void *p, size_t cap, size_t *ret_len, struct azoth_error *err)
{
    size_t len = 0;
    int rc = c->ended ? 0 : io_read_full(c->from, p, cap, &len, "the copy's pipe", err);
    if (!rc && !c->ended && len < cap)
        rc = at_end(c, err);
    if (!rc)
        *ret_len = len;
    return rc;
}

uint64_t copy_growth(const struct copy *c)
{
    uint64_t now = file_bytes(c);
    return now > c->file_bytes ? now - c->file_bytes : 0;
}

void copy_end(struct copy *c)
{
    if (!c)
        return;
    stop(c);
    snapshot_end(c->snapshot);
    free(c);
}
