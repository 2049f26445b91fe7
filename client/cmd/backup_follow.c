/*
 * backup_follow.c - azoth backup --follow: an increment whenever commits have come.
 *
 * A loop in one thread: wait until the head is beyond the newest backup, woken by the writer's own announcement of it;
 * make one increment of all that there is by then; not before the interval since the last one is over. What is durable is
 * found by the files (or by what the command has had) at each turn, so nothing is remembered over a restart, and
 * other backups may be made into the same directory meanwhile. The directory is locked while one is made, not between.
 *
 *   the writer ends                  what it has committed is shipped; then the next one is waited for
 *   a backup fails                   told once, tried again after 1 s, 2 s, ... at most a minute; the mark stays
 *   SIGTERM                          the increment in hand is finished, exit 0; a full one is left, and so is one that a
 *                                    command does not take within 2 s: it gets SIGTERM, too, and SIGKILL 2 s later
 *   killed                           a partial file, which the next one to lock the directory removes
 */
#include "client/cmd/backup.h"

#include "client/internal.h"
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/log.h"
#include "core/mark.h"
#include "shm/participant.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define BACKOFF_MS      1000u
#define BACKOFF_MAX_MS  60000u
#define WITHOUT_LOOK_MS 500u /* without a writer nobody wakes us */

struct follow {
    struct backup_job *j;
    struct service service;
    struct azoth *db; /* NULL until there was a writer */
    uint64_t interval_ms, made_ns, backoff_ms;
    uint64_t at_txn, at_event; /* the newest backup, as far as known */
    uint64_t files, bytes;
    int known, ready;
    uint64_t stop_ns,
        said_ns; /* when we were told to end; when what the command does was said last */
    char told[sizeof((struct azoth_error *)0)->message];
};

static struct follow following;

/* ---- signals ---- */

/* A command that takes its time: who looks at the service sees what is waited for. */
static void say_waiting(struct follow *f, uint64_t now_ns)
{
    uint64_t began = f->j->begun_ns > f->said_ns ? f->j->begun_ns : f->said_ns;
    if (!f->j->pid || now_ns - began < SERVICE_STATUS_NS)
        return;
    f->said_ns = now_ns;
    service_status(&f->service, "The command has had %.60s for %llu s", f->j->path,
                   (unsigned long long)((now_ns - f->j->begun_ns) / NS_PER_S));
}

/* Whether the backup in hand is to be left; asked by whoever makes it, often enough for the watchdog. A full one may take
 * long, and so may a command. */
static int leave_it(void)
{
    struct follow *f = &following;
    uint64_t now = clock_mono_ns();
    service_heartbeat(&f->service, now);
    say_waiting(f, now);
    if (backup_exec_ended(f->j))
        return 1;
    if (!service_poll(&f->service))
        return 0;
    if (!f->stop_ns)
        f->stop_ns = now;
    return f->j->about.kind == BACKUP_FULL ||
           (f->j->exec && now - f->stop_ns >= BACKUP_EXEC_GRACE_NS);
}

/* ---- one backup ---- */

static void reset(struct backup_job *j)
{
    backup_about_fini(&j->about);
    memset(&j->about, 0, sizeof j->about);
    j->path[0] = j->why_full[0] = j->increment[0] = j->mark_note[0] = 0;
    j->expected = j->content = j->bytes = j->growth = j->pruned = 0;
    j->paused = j->nothing_new = j->cut = 0;
    j->begun_ns = clock_mono_ns();
}

/* The directory is for files, or for what a command has had. */
static int check_use(const struct backup_job *j, struct azoth_error *err)
{
    return !j->exec && backup_exec_is(j->place.dir)
               ? error_set(err, AZOTH_ERR_USAGE,
                           "%s: it has what a command has had of backups (--exec)", j->to)
               : 0;
}

static int make_locked(struct backup_job *j, struct azoth_error *err)
{
    struct backup_pruned done;
    int rc = check_use(j, err);
    if (!rc)
        rc = backup_set_about(j, BACKUP_INCREMENT, err);
    if (!rc)
        rc = backup_increment(j, err);
    if (!rc && j->keep && !j->nothing_new) {
        rc = backup_prune_locked(j->place.dir, &j->keys, j->keep, 0, NULL, 1, &done, err);
        j->pruned = rc ? 0 : done.removed;
    }
    return rc;
}

static int make(struct backup_job *j, struct azoth_error *err)
{
    reset(j);
    int rc = backup_place_lock(j->to, &j->place, err);
    if (rc)
        return rc;
    rc = make_locked(j, err);
    if (rc) {
        rc = backup_exec_abort(j, rc, err);
        backupfile_abort(j->out);
        j->out = NULL;
    }
    backup_place_unlock(&j->place);
    return rc;
}

/* The database says of this place that somebody follows: azoth lag tells when nobody does. */
static void say_followed(struct follow *f)
{
    uint8_t place[MARK_PLACE];
    struct azoth_error err;
    if (f->known || !cmd_unhex(f->j->place.uuid, place, sizeof place))
        return;
    f->known = backup_control(f->j, "follow", place, sizeof place, &err) == 0;
}

/* A full one has a mark that was set anew, maybe of another place: the one before was forgotten, or its directory taken away. */
static void forget_place(struct follow *f)
{
    f->known = 0;
    if (f->db)
        azoth_close(f->db);
    f->db = NULL;
}

static void made(struct follow *f)
{
    const struct backup_job *j = f->j;
    f->made_ns = clock_mono_ns();
    f->at_txn = j->about.to.txn;
    f->at_event = j->about.to.event;
    if (j->about.kind == BACKUP_FULL)
        forget_place(f);
    say_followed(f);
    if (j->nothing_new)
        return;
    f->files++;
    f->bytes += j->content;
    if (*j->why_full)
        log_line(LOG_LEVEL_NOTICE, "backup kind=full file=%s to=%llu why=\"%s\"", j->path,
                 (unsigned long long)j->about.to.txn, j->why_full);
}

/* Told when it is another one than the last time. */
static void failed(struct follow *f, const struct azoth_error *err)
{
    if (strcmp(f->told, err->message) != 0)
        log_error(LOG_LEVEL_WARN, "a backup failed and is tried again", err);
    snprintf(f->told, sizeof f->told, "%s", err->message);
    service_status(&f->service, "Fails since event %llu: %.200s", (unsigned long long)f->at_event,
                   err->message);
    f->backoff_ms = f->backoff_ms ? 2 * f->backoff_ms : BACKOFF_MS;
    if (err->code == AZOTH_ERR_BUSY) /* another backup is made into it: that ends */
        f->backoff_ms = BACKOFF_MS;
    if (f->backoff_ms > BACKOFF_MAX_MS)
        f->backoff_ms = BACKOFF_MAX_MS;
}

/* 0; what failed is told and waited for. */
static int turn(struct follow *f)
{
    struct azoth_error err = {0};
    struct backup_job *j = f->j;
    int rc = make(j, &err);
    /* Without its mark the next one would be a full one again. */
    if (!rc && *j->mark_note && j->about.kind == BACKUP_FULL)
        rc = error_set(&err, AZOTH_ERR_NO_WRITER, "%s", j->mark_note);
    if (rc && f->service.stopping)
        log_line(LOG_LEVEL_NOTICE, "left a backup unfinished: it is made again at the next start");
    else if (rc)
        failed(f, &err);
    if (rc)
        return rc;
    made(f);
    f->backoff_ms = 0;
    if (*f->told)
        log_line(LOG_LEVEL_NOTICE, "backups go on event=%llu", (unsigned long long)f->at_event);
    f->told[0] = 0;
    if (!f->ready)
        log_line(LOG_LEVEL_NOTICE, "ready to=%s event=%llu", j->to,
                 (unsigned long long)f->at_event);
    if (!f->ready)
        service_ready(&f->service, "follows database to=%s event=%llu", j->to,
                      (unsigned long long)f->at_event);
    f->ready = 1;
    service_status(&f->service, "At event %llu (transaction %llu), %llu files",
                   (unsigned long long)f->at_event, (unsigned long long)f->at_txn,
                   (unsigned long long)f->files);
    return 0;
}

/* ---- waiting ---- */

/* A signal ends it. */
static void nap(struct follow *f, uint64_t ms)
{
    struct pollfd p = {.fd = f->service.signal_fd, .events = POLLIN};
    uint64_t until = clock_mono_ns() + ms * NS_PER_MS, now;
    while (!service_poll(&f->service) && (now = clock_mono_ns()) < until) {
        uint64_t left = (until - now) / NS_PER_MS + 1;
        service_heartbeat(&f->service, now);
        poll(&p, 1, (int)(left < 1000 ? left : 1000));
    }
}

static int head_txn(struct follow *f, uint64_t *ret)
{
    struct snapshot *sn;
    struct store_head head;
    struct azoth_error err;
    if (snapshot_begin(f->j->store, &sn, &err))
        return 0;
    int rc = snapshot_head(sn, &head, &err);
    snapshot_end(sn);
    *ret = rc ? 0 : head.txn;
    return rc == 0;
}

/* The handle through which the writer wakes us; azoth status and lag know it by its name. */
static void attach(struct follow *f)
{
    struct azoth_error err;
    char name[32];
    if (f->db)
        return;
    snprintf(name, sizeof name, MARK_FOLLOWER "%.16s", f->j->place.uuid);
    const struct azoth_options opt = {.name = name};
    if (azoth_open(f->j->dir, &opt, &f->db, &err))
        f->db = NULL;
}

/* Until the head is beyond the newest backup: sleeps on the writer's announcement, in slices for the watchdog. */
static void wait_for_commits(struct follow *f)
{
    uint64_t head;
    while (!service_poll(&f->service)) {
        struct watch w = {0};
        attach(f);
        if (f->db)
            watch_begin(f->db, &w);
        int behind = !head_txn(f, &head) || head > f->at_txn;
        if (!behind && w.attachment)
            watch_wait(&w, NS_PER_S);
        if (f->db)
            watch_end(f->db, &w);
        if (behind)
            return;
        if (!w.attachment)
            nap(f, WITHOUT_LOOK_MS);
        service_heartbeat(&f->service, clock_mono_ns());
    }
}

static void loop(struct follow *f)
{
    while (!service_poll(&f->service)) {
        /* The first one sets the mark, which the writer does. */
        if (!f->ready && !writer_place_held(f->j->dir)) {
            service_status(&f->service, "Waits for the writer");
            nap(f, WITHOUT_LOOK_MS);
            continue;
        }
        if (turn(f)) {
            nap(f, f->backoff_ms);
            continue;
        }
        wait_for_commits(f);
        uint64_t since = (clock_mono_ns() - f->made_ns) / NS_PER_MS;
        if (since < f->interval_ms && !f->j->cut)
            nap(f, f->interval_ms - since);
    }
}

/* ---- the command ---- */

static int open_all(struct follow *f, struct azoth_error *err)
{
    struct backup_job *j = f->j;
    int rc = backup_keys_read(&j->f, &j->keys, err);
    if (!rc)
        rc = store_open(j->dir, 0, &j->store, err);
    /* What no second try mends is told at once. */
    if (!rc)
        rc = backup_place_lock(j->to, &j->place, err);
    if (!rc)
        rc = check_use(j, err);
    if (rc == AZOTH_ERR_BUSY)
        rc = 0;
    backup_place_unlock(&j->place);
    return rc;
}

int backup_follow(struct backup_job *j, uint64_t interval_ms)
{
    struct follow *f = &following;
    struct azoth_error err = {0};
    f->j = j;
    f->interval_ms = interval_ms;
    int rc = backup_dirs(j);
    if (rc)
        return rc;
    log_init("azoth-backup", LOG_LEVEL_INFO);
    if (service_init(&f->service, &err))
        return cmd_fail(&err);
    j->service = &f->service;
    j->f.quiet = 1;
    progress_begin(&j->progress, "backup", 1, 0);
    backup_interrupted_by(leave_it);
    if (j->exec)
        prctl(PR_SET_CHILD_SUBREAPER, 1); /* what its commands leave is ours to wait for */
    rc = open_all(f, &err);
    if (!rc) {
        loop(f);
        service_stopping(&f->service);
        log_line(LOG_LEVEL_NOTICE, "stopped event=%llu files=%llu", (unsigned long long)f->at_event,
                 (unsigned long long)f->files);
    }
    if (f->db)
        azoth_close(f->db);
    store_close(j->store);
    backup_about_fini(&j->about);
    free(j->archive);
    backup_keys_fini(&j->keys);
    service_fini(&f->service);
    return rc ? cmd_fail(&err) : 0;
}
