/*
 * participant.c - joining, leaving, and asking the kernel who is dead.
 *
 * Joining takes the kernel's lock on a row's byte first and the row second, leaving frees the row
 * first and the lock second. So a row that is LIVE without its lock belongs to a dead process, always.
 *
 *   dies before the row is LIVE  -> the kernel drops the lock, the row was FREE: nothing to repair
 *   dies while LIVE              -> reaper (shm/reaper.c)
 *   dies after FREE              -> nothing to repair
 */
#include "shm/participant.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "shm/pause.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes of the lock file beyond the participants' rows. */
#define PLACE_WRITER 1000000
#define PLACE_FEED   1000001

/* A lock on a byte that stands for an office of the whole database. */
struct place {
    int fd;
    off_t at;
    struct place *next;
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct participant *list; /* of this process */
static struct place *places;     /* of this process */

/* Runs in a forked child: gives up the inherited descriptors, whose locks the parent still holds.
 */
static void child_after_fork(void)
{
    for (struct participant *p = list; p; p = p->next) {
        atomic_store(&p->forked, 1);
        close(p->lock_fd);
        p->lock_fd = -1;
    }
    for (struct place *p = places; p; p = p->next)
        close(p->fd);
    list = NULL;
    places = NULL;
    pthread_mutex_unlock(&list_lock);
}

static void before_fork(void)
{
    pthread_mutex_lock(&list_lock);
}

static void parent_after_fork(void)
{
    pthread_mutex_unlock(&list_lock);
}

static void register_atfork(void)
{
    pthread_atfork(before_fork, parent_after_fork, child_after_fork);
}

static void watch_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_atfork);
}

static int lock_file_open(const char *dir, struct azoth_error *err)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/participants.lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    if (fd < 0) {
        if (errno == ENOENT)
            return error_set(err, AZOTH_ERR_NO_DATABASE, "%s: no such directory", dir);
        return error_errno(err, errno, "%s", path);
    }
    struct stat st;
    /* The group takes part whatever the creator's umask was. Not ours to change: let it be. */
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 0660) != 0660)
        (void)!fchmod(fd, 0660);
    return fd;
}

/* 1 locked, 0 somebody else holds it, -1 errno. */
static int byte_lock(int fd, off_t at)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &l) == 0)
        return 1;
    return errno == EAGAIN || errno == EACCES ? 0 : -1;
}

/* 1 when another open file description holds the byte. An error counts as held: never reap on
 * doubt. */
static int byte_held(int fd, off_t at)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &l))
        return 1;
    return l.l_type != F_UNLCK;
}

static void row_fill(struct participant_shm *row, enum participant_kind kind, const char *name)
{
    atomic_store(&row->pid, (uint32_t)getpid());
    atomic_store(&row->kind, kind);
    memset(row->name, 0, sizeof row->name);
    snprintf(row->name, sizeof row->name, "%s", name ? name : "");
    row->joined_ns = (uint64_t)clock_wall_ns();
    atomic_store(&row->sleeps, 0);
    A64 *counters[] = {&row->submitted, &row->refused, &row->lock_timeouts, &row->stripe_waits,
                       &row->reaped,    &row->wait_ns, &row->held_up,       &row->held_up_ns};
    for (unsigned i = 0; i < sizeof counters / sizeof *counters; i++)
        atomic_store(counters[i], 0);
}

int participant_join(struct segment *s, const char *dir, enum participant_kind kind,
                     const char *name, struct participant **ret, struct azoth_error *err)
{
    watch_forks();
    struct participant *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a participant");
    int rc = 0;
    p->segment = s;
    pthread_mutex_lock(&list_lock); /* no fork between the descriptor and the list */
    p->lock_fd = lock_file_open(dir, err);
    if (p->lock_fd < 0) {
        rc = p->lock_fd;
        goto fail;
    }
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        struct participant_shm *row = &s->participant[i];
        uint64_t word = atomic_load(&row->word);
        if ((word & 0xff) != PARTICIPANT_FREE)
            continue;
        int got = byte_lock(p->lock_fd, (off_t)i);
        if (got < 0) {
            rc = error_errno(err, errno, "%s/participants.lock", dir);
            goto fail;
        }
        if (!got)
            continue;
        /* With the byte ours nobody else joins here; the row can only have been FREE or, if its
         * process died just now, LIVE: then it waits for its reaper. */
        uint64_t live = ((word >> 8) + 1) << 8 | PARTICIPANT_LIVE;
        row_fill(row, kind, name);
        CRASH_POINT(participant_filled);
        if (atomic_compare_exchange_strong(&row->word, &word, live)) {
            CRASH_POINT(participant_joined);
            p->index = i;
            p->word = live;
            atomic_store(&p->claim_hint, i * 37 % s->slots);
            p->next = list;
            list = p;
            pthread_mutex_unlock(&list_lock);
            *ret = p;
            return 0;
        }
        struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = 1};
        fcntl(p->lock_fd, F_OFD_SETLK, &l);
    }
    rc = error_set(err, AZOTH_ERR_FULL, "all %u rows for participants are taken", SHM_PARTICIPANTS);
fail:
    if (p->lock_fd >= 0)
        close(p->lock_fd);
    pthread_mutex_unlock(&list_lock);
    free(p);
    return rc;
}

void participant_leave(struct participant *p)
{
    if (!p)
        return;
    if (!atomic_load(&p->forked)) {
        pause_leave(p);
        uint64_t word = p->word;
        atomic_compare_exchange_strong(&p->segment->participant[p->index].word, &word,
                                       word & ~0xffull);
        CRASH_POINT(participant_left);
        pthread_mutex_lock(&list_lock);
        struct participant **at = &list;
        while (*at && *at != p)
            at = &(*at)->next;
        if (*at)
            *at = p->next;
        close(p->lock_fd);
        pthread_mutex_unlock(&list_lock);
    }
    free(p);
}

int participant_dead(const struct participant *self, uint32_t index)
{
    const struct participant_shm *row = &self->segment->participant[index];
    if (index == self->index || (atomic_load((A64 *)&row->word) & 0xff) != PARTICIPANT_LIVE)
        return 0;
    return !byte_held(self->lock_fd, (off_t)index);
}

/* ---- places that one process holds ---- */

/* Who holds a place is written behind the locks' bytes, one line of 100 bytes a place. */
static off_t place_note(off_t place)
{
    return (place - PLACE_WRITER) * 100;
}

static int place_taken_by_other(int fd, const char *dir, off_t at, const char *what,
                                struct azoth_error *err)
{
    char note[101] = {0};
    ssize_t n = pread(fd, note, 100, place_note(at));
    for (size_t end = strcspn(note, "\n"); end > 0 && note[end - 1] == ' '; end--)
        note[end - 1] = 0;
    note[strcspn(note, "\n")] = 0;
    return error_set(err, AZOTH_ERR_WRITER_RUNNING, "%s: another %s holds this database: %s", dir,
                     what, n > 0 && note[0] ? note : "unknown process");
}

static void place_sign(int fd, off_t at, const char *who)
{
    char note[101];
    snprintf(note, sizeof note, "%s pid %d", who, (int)getpid());
    size_t len = strlen(note);
    memset(note + len, ' ', 99 - len);
    note[99] = '\n';
    /* Only a courtesy for the message: a full disk must not stop the writer. */
    (void)!pwrite(fd, note, 100, place_note(at));
}

static int place_take(const char *dir, off_t at, const char *what, const char *program,
                      struct place **ret, struct azoth_error *err)
{
    watch_forks();
    struct place *p = malloc(sizeof *p);
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "the %s's place", what);
    int rc = 0;
    pthread_mutex_lock(&list_lock); /* no fork between the descriptor and the list */
    int fd = lock_file_open(dir, err);
    if (fd < 0) {
        rc = fd;
        goto fail;
    }
    int got = byte_lock(fd, at);
    if (got != 1) {
        rc = got == 0 ? place_taken_by_other(fd, dir, at, what, err)
                      : error_errno(err, errno, "%s/participants.lock", dir);
        close(fd);
        goto fail;
    }
    place_sign(fd, at, program ? program : what);
    CRASH_POINT(place_taken);
    *p = (struct place){fd, at, places};
    places = p;
    pthread_mutex_unlock(&list_lock);
    *ret = p;
    return 0;
fail:
    pthread_mutex_unlock(&list_lock);
    free(p);
    return rc;
}

void place_leave(struct place *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&list_lock);
    struct place **link = &places;
    while (*link && *link != p)
        link = &(*link)->next;
    if (*link) {
        *link = p->next;
        /* Unlocked before it is closed: a child that is being spawned holds a copy until its exec. */
        struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = p->at, .l_len = 1};
        fcntl(p->fd, F_OFD_SETLK, &l);
        close(p->fd);
    }
    pthread_mutex_unlock(&list_lock);
    free(p);
}

static int place_held(const char *dir, off_t place)
{
    int fd = lock_file_open(dir, NULL);
    if (fd == AZOTH_ERR_PERMISSION) {
        /* Mounted for reading only here, and perhaps not elsewhere: asking needs no right to write. */
        char path[4200];
        snprintf(path, sizeof path, "%s/participants.lock", dir);
        fd = open(path, O_RDONLY | O_CLOEXEC, 0);
    }
    if (fd < 0)
        return 0;
    int held = byte_held(fd, place);
    close(fd);
    return held;
}

int writer_place_take(const char *dir, const char *program, struct place **ret,
                      struct azoth_error *err)
{
    return place_take(dir, PLACE_WRITER, "writer", program, ret, err);
}

int writer_place_held(const char *dir)
{
    return place_held(dir, PLACE_WRITER);
}

int feed_place_take(const char *dir, const char *program, struct place **ret,
                    struct azoth_error *err)
{
    return place_take(dir, PLACE_FEED, "feed", program, ret, err);
}

int feed_place_held(const char *dir)
{
    return place_held(dir, PLACE_FEED);
}
