/*
 * archiver.c - making, placing, recording segments; deleting their events.
 *
 * Happy path of a segment: DEST/events-FIRST-UUID.partial is written from bounded looks into the log, and synced; it is
 * read back from the disk, checked, and compared with LMDB, frame by frame; it gets its name, the directory is
 * synced; the writer records it; the writer deletes its events, a bounded piece with each commit.
 *
 * Death of this process, or of the writer, by the place where it happens
 *   before the name      a partial file that nobody looks at: the next run replaces it
 *   named, not recorded  a file that counts for nothing, its events are in LMDB. The next run compares it with
 *                        LMDB and records it; if the run ends elsewhere it is removed from a directory below the
 *                        database's, and left in another one
 *   recorded             its events are in LMDB as well, and are read from there; the next run checks the file once
 *                        more, and deletes them
 *   between two pieces   likewise: the record says which event is the first in LMDB (core/archived.h)
 *   while it is moved    the file is in both places, and one of them is recorded. The next run goes on
 *
 * Invariants
 *   H1  the writer is asked to record only a file that is durable under its name and was compared with LMDB.
 *   H2  no snapshot is open while a file is written: events do not change, so each look may have its own
 *       (archiver_file.c).
 */
#include "client/cmd/archiver_file.h"

#include "client/cmd/cmd.h"
#include "client/internal.h"
#include "core/clock.h"
#include "core/crash.h"
#include "core/dbdir.h"
#include "core/io.h"
#include "projector/generation.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONTROL_MS    10000u /* a writer that starts anew is waited for */
#define CONTROL_TRIES 3
#define RESTS         3u /* as long as a piece took */
#define COPY_BYTES    (1u << 20)
#define SEGMENT_DIR   "archive" /* below the database's directory, unless said otherwise */

int archiver_lock(struct archiver *a, struct azoth_error *err)
{
    int rc = generation_lock(a->dir, "archive", "", &a->lock_fd, err);
    return rc == AZOTH_ERR_DUPLICATE
               ? error_set(err, AZOTH_ERR_BUSY, "%s: another process archives", a->dir)
               : rc;
}

void archiver_unlock(struct archiver *a)
{
    if (a->lock_fd >= 0)
        close(a->lock_fd);
    a->lock_fd = -1;
}

/* The superuser makes files for those whose database it is. */
static int give_to_owner(const struct archiver *a, const char *path, struct azoth_error *err)
{
    struct stat st;
    if (geteuid() != 0)
        return 0;
    if (stat(a->dir, &st) || lchown(path, st.st_uid, st.st_gid))
        return error_errno(err, errno, "%s", path);
    return 0;
}

static int sync_directory(const char *path, struct azoth_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) ? error_errno(err, errno, "%s", path) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* The directory's own name is durable, too: that of one that was just made is in the one above it. */
static int sync_above(const char *path, struct azoth_error *err)
{
    char above[PATH_MAX];
    snprintf(above, sizeof above, "%s", path);
    char *slash = strrchr(above, '/');
    if (slash)
        slash[slash == above] = 0;
    if (slash && sync_directory(above, NULL) == 0)
        return 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY |
                            O_CLOEXEC); /* that one may not be read: all of its disk */
    int rc = fd < 0 || syncfs(fd) ? error_errno(err, errno, "%s", path) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* 1 when both are one name in one directory, by whichever way: a link to the directory, or a mount of it. */
static int same_name(const char *a, const char *b)
{
    char above[2][PATH_MAX + ARCHIVE_PATH_MAX];
    struct stat st[2];
    const char *path[2] = {a, b}, *name[2];
    for (int i = 0; i < 2; i++) {
        snprintf(above[i], sizeof above[i], "%s", path[i]);
        char *slash = strrchr(above[i], '/');
        name[i] = strrchr(path[i], '/');
        if (!slash)
            return 0;
        slash[slash == above[i]] = 0;
        if (stat(above[i], &st[i]))
            return 0;
    }
    return st[0].st_dev == st[1].st_dev && st[0].st_ino == st[1].st_ino &&
           strcmp(name[0], name[1]) == 0;
}

static int recorded_of(struct store *s, struct archived_state *state, uint64_t id,
                       struct archived_entry *e, struct azoth_error *err)
{
    struct snapshot *sn;
    int rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_archive(sn, state, err);
    if (!rc && e)
        rc = snapshot_archive_of(sn, id ? id : state->last_archived, e, err);
    snapshot_end(sn);
    return rc;
}

/* Where the newest segment lies. */
static int dest_of_newest(struct archiver *a, char *out, size_t size, struct azoth_error *err)
{
    struct archived_state state = {0};
    struct archived_entry *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's record");
    int rc = recorded_of(a->store, &state, 0, e, err);
    if (rc == 1 && archived_path(out, size, a->dir, e->path) == 0 && strrchr(out, '/'))
        *strrchr(out, '/') = 0;
    else if (rc >= 0)
        rc = dbdir_path(out, size, a->dir, SEGMENT_DIR);
    free(e);
    return rc < 0 ? rc : 0;
}

int archiver_dest(struct archiver *a, const char *dest, int make, struct azoth_error *err)
{
    char path[PATH_MAX];
    int rc = 0;
    if (!dest)
        rc = dest_of_newest(a, path, sizeof path, err);
    else if ((size_t)snprintf(path, sizeof path, "%s", dest) >= sizeof path)
        rc = error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dest);
    if (rc)
        return rc;
    if (make && mkdir(path, 0750) == 0) {
        rc = give_to_owner(a, path, err);
        if (rc)
            return rc;
    }
    char real[PATH_MAX];
    if (realpath(path, real))
        snprintf(a->dest, sizeof a->dest, "%s", real);
    else if (make)
        return errno == ENOENT ? error_set(err, AZOTH_ERR_NOT_FOUND, "%s: no such directory", path)
                               : error_errno(err, errno, "%s", path);
    else
        snprintf(a->dest, sizeof a->dest, "%s", path); /* not there yet: only told */
    if (strlen(a->dest) + ARCHIVE_NAME_MAX > ARCHIVE_PATH_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", a->dest);
    return make ? sync_above(a->dest, err) : 0;
}

static int event_at(struct snapshot *sn, uint64_t id, struct event_stamp *ret,
                    struct azoth_error *err)
{
    int rc = snapshot_event(sn, id, ret, err);
    return rc == 1 ? 0
           : rc    ? rc
                   : error_set(err, AZOTH_ERR_GAP, "event %llu is missing", (unsigned long long)id);
}

int archiver_end(struct archiver *a, uint64_t before, uint64_t *ret, struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head head;
    struct event_stamp last = {0}, next = {0};
    uint64_t end = before ? before - 1 : 0, first = 0;
    int rc = snapshot_begin(a->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    if (!rc && end >= head.event)
        end = head.event;
    else if (!rc && end > 0) {
        rc = event_at(sn, end, &last, err);
        if (!rc)
            rc = event_at(sn, end + 1, &next, err);
        if (!rc && last.txn == next.txn) {
            int got = snapshot_event_of_txn(sn, last.txn, &first, err);
            rc = got < 0 ? got : 0;
            end = got == 1 ? first - 1 : end;
        }
    }
    snapshot_end(sn);
    if (!rc)
        *ret = end;
    return rc;
}

/* ---- placing ---- */

static int join(char *out, size_t size, const char *dir, const char *name, struct azoth_error *err)
{
    int n = snprintf(out, size, "%s/%s", dir, name);
    return n < 0 || (size_t)n >= size
               ? error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", dir)
               : 0;
}

/* Gives the file its name, which nothing may have yet. */
static int place(const char *partial, const char *path, const char *dir, struct azoth_error *err)
{
    if (link(partial, path))
        return errno == EEXIST ? error_set(err, AZOTH_ERR_DUPLICATE,
                                           "%s is there, and is not recorded: remove it, or take "
                                           "another directory",
                                           path)
                               : error_errno(err, errno, "%s", path);
    if (unlink(partial))
        return error_errno(err, errno, "%s", partial);
    int rc = sync_directory(dir, err);
    CRASH_POINT(archive_placed);
    return rc;
}

/* Makes and places it: *ret_path is its path then. */
static int make(struct archiver *a, uint64_t first, uint64_t end, struct archive_about *ret,
                char ret_path[PATH_MAX], struct azoth_error *err)
{
    char name[ARCHIVE_NAME_MAX + 32], partial[PATH_MAX], uuid[33];
    /* Several databases may have one directory. */
    bytes_hex(uuid, store_identity(a->store)->uuid, 16);
    snprintf(name, sizeof name, "events-%020llu-%s.partial", (unsigned long long)first, uuid);
    int rc = join(partial, sizeof partial, a->dest, name, err);
    if (!rc)
        rc = archiver_write(a, partial, first, end, ret, err);
    if (rc)
        return rc;
    rc = archiver_prove(a, partial, ret, err);
    if (!rc)
        rc = give_to_owner(a, partial, err);
    archivefile_name(name, ret->first, ret->last);
    if (!rc)
        rc = join(ret_path, PATH_MAX, a->dest, name, err);
    if (!rc)
        rc = place(partial, ret_path, a->dest, err);
    if (rc)
        unlink(partial);
    return rc;
}

/* ---- what a run that died has left ---- */

static int below(const char *dir, const char *path)
{
    return archived_path_recorded(dir, path) != path;
}

/* A file that begins with this event and is not recorded: 1 and its path when it is good for what is asked, 0 when
 * it is not, and is removed if nobody else can have it. */
static int try_left(struct archiver *a, const char *name, uint64_t first, uint64_t end,
                    struct archive_about *ret, char ret_path[PATH_MAX], struct azoth_error *err)
{
    uint64_t from, to;
    struct archivefile *f;
    if (!archivefile_name_parse(name, &from, &to) || from != first)
        return 0;
    int rc = join(ret_path, PATH_MAX, a->dest, name, err);
    if (rc)
        return rc;
    if (archivefile_open(ret_path, &f, NULL))
        return 0; /* place() says so if it is in the way */
    int ours = memcmp(archivefile_about(f)->uuid, store_identity(a->store)->uuid, 16) == 0;
    archivefile_close(f);
    if (!ours)
        return 0;
    if (to <= end && archiver_prove(a, ret_path, ret, NULL) == 0)
        return 1;
    if (below(a->dir, a->dest))
        unlink(ret_path);
    return 0;
}

static int find_left(struct archiver *a, uint64_t first, uint64_t end, struct archive_about *ret,
                     char ret_path[PATH_MAX], struct azoth_error *err)
{
    DIR *d = opendir(a->dest);
    if (!d)
        return error_errno(err, errno, "%s", a->dest);
    int rc = 0;
    for (const struct dirent *e; rc == 0 && (e = readdir(d));)
        rc = try_left(a, e->d_name, first, end, ret, ret_path, err);
    closedir(d);
    if (rc == 1) {
        int bad = sync_directory(a->dest, err);
        rc = bad ? bad : 1;
    }
    return rc;
}

/* ---- the writer's part ---- */

/* *ret (may be NULL): the head at which it was done. */
static int control(struct archiver *a, const char *operation, struct azoth_bytes argument,
                   struct txn_result *ret, struct azoth_error *err)
{
    struct txn_result ignored;
    int rc = AZOTH_ERR_OUTCOME_UNKNOWN;
    /* May be repeated: once more makes known what the writer did that was killed meanwhile. */
    for (int i = 0; i < CONTROL_TRIES && rc == AZOTH_ERR_OUTCOME_UNKNOWN; i++)
        rc = client_control(a->db, operation, argument, clock_mono_ns() + CONTROL_MS * NS_PER_MS,
                            ret ? ret : &ignored, err);
    return rc;
}

static int record(struct archiver *a, const struct archive_about *about, const char *path,
                  struct archived_entry *ret, struct azoth_error *err)
{
    struct buf rec = {0};
    ret->about = *about;
    snprintf(ret->path, sizeof ret->path, "%.*s", (int)ARCHIVE_PATH_MAX,
             archived_path_recorded(a->dir, path));
    int rc = archived_entry_encode(&rec, ret);
    rc = rc ? error_set(err, rc, "a segment's record")
            : control(a, "archive", buf_bytes(&rec), NULL, err);
    buf_fini(&rec);
    CRASH_POINT(archive_recorded);
    return rc;
}

int archiver_segment(struct archiver *a, uint64_t end, struct archived_entry *ret,
                     struct azoth_error *err)
{
    struct archived_state state = {0};
    struct archive_about about;
    char path[PATH_MAX];
    int rc = recorded_of(a->store, &state, 0, NULL, err);
    if (rc || state.last_archived >= end)
        return rc;
    rc = find_left(a, state.last_archived + 1, end, &about, path, err);
    if (rc == 0)
        rc = make(a, state.last_archived + 1, end, &about, path, err);
    if (rc >= 0)
        rc = record(a, &about, path, ret, err);
    return rc ? rc : 1;
}

/* A piece costs the batch that it is in some milliseconds: when others commit too, most batches are without one. */
static void rest(uint64_t began_ns)
{
    cmd_sleep_ms((clock_mono_ns() - began_ns) * RESTS / NS_PER_MS + 1);
}

int archiver_delete(struct archiver *a, struct azoth_error *err)
{
    struct archived_state s, before = {0};
    struct txn_result head = {0};
    for (;;) {
        uint64_t txn = head.txn, began_ns = clock_mono_ns();
        int rc = recorded_of(a->store, &s, 0, NULL, err);
        if (rc || s.first_in_store > s.last_archived)
            return rc;
        if (s.first_in_store == before.first_in_store)
            return error_set(err, AZOTH_ERR_CORRUPT, "the writer did not delete event %llu",
                             (unsigned long long)s.first_in_store);
        before = s;
        rc = archiver_say(a, "deleting", s.first_in_store - 1);
        if (!rc)
            rc = control(a, "archive-piece", bytes_of(NULL, 0), &head, err);
        if (rc)
            return rc;
        CRASH_POINT(archive_deleted);
        if (txn && head.txn != txn)
            rest(began_ns);
    }
}

/* Of a recorded segment whose events are in LMDB, too: the file is there, and all of it is good. */
static int prove_recorded(void *arg, const struct archived_entry *e, struct azoth_error *err)
{
    struct archiver *a = arg;
    struct archived_state s = {0};
    struct archivefile *f;
    int rc = recorded_of(a->store, &s, 0, NULL, err);
    if (rc || e->about.last < s.first_in_store)
        return rc;
    rc = store_archive_open(a->store, e, &f, err);
    if (rc)
        return rc;
    rc = archivefile_verify(f, NULL, NULL, err);
    archivefile_close(f);
    return rc;
}

int archiver_resume(struct archiver *a, struct azoth_error *err)
{
    struct snapshot *sn;
    int rc = snapshot_begin(a->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_archives(sn, prove_recorded, a, err);
    snapshot_end(sn);
    return rc ? rc : archiver_delete(a, err);
}

/* ---- moving ---- */

static int copy_bytes(int from, int to, const char *path, struct azoth_error *err)
{
    char *b = malloc(COPY_BYTES);
    size_t n = COPY_BYTES;
    int rc = b ? 0 : error_set(err, AZOTH_ERR_NOMEM, "a copy");
    while (!rc && n == COPY_BYTES) {
        rc = io_read_full(from, b, COPY_BYTES, &n, path, err);
        if (!rc)
            rc = io_write_all(to, b, n, path, err);
    }
    if (!rc && fsync(to))
        rc = error_errno(err, errno, "%s", path);
    free(b);
    return rc;
}

/* The segment e at path, all of it checked. */
static int is_segment(const char *path, const struct archived_entry *e, struct azoth_error *err)
{
    struct archivefile *f;
    archiver_forget_cached(path);
    int rc = archivefile_open(path, &f, err);
    if (rc)
        return rc;
    if (memcmp(archivefile_about(f)->digest, e->about.digest, ARCHIVE_DIGEST) != 0)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s is not the segment that was recorded", path);
    else
        rc = archivefile_verify(f, NULL, NULL, err);
    archivefile_close(f);
    return rc;
}

static int copy_segment(struct archiver *a, const char *from, const char *to,
                        const struct archived_entry *e, struct azoth_error *err)
{
    char partial[PATH_MAX + 16];
    snprintf(partial, sizeof partial, "%s.partial", to);
    if (unlink(partial) && errno != ENOENT)
        return error_errno(err, errno, "%s", partial);
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1, rc = 0;
    if (in < 0)
        return error_errno(err, errno, "%s", from);
    out = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0440);
    if (out < 0 || fchmod(out, 0440))
        rc = error_errno(err, errno, "%s", partial);
    if (!rc)
        rc = copy_bytes(in, out, partial, err);
    close(in);
    if (out >= 0)
        close(out);
    if (!rc)
        rc = is_segment(partial, e, err);
    if (rc == AZOTH_ERR_CORRUPT)
        (void)is_segment(from, e,
                         err); /* the copy is as bad as what was copied: that is named then */
    if (!rc)
        rc = give_to_owner(a, partial, err);
    if (!rc)
        rc = place(partial, to, a->dest, err);
    if (rc)
        unlink(partial);
    return rc;
}

/* One that died after a copy was recorded has left the old file: known only below the database's directory. */
static int drop_old(struct archiver *a, const struct archived_entry *e, const char *name,
                    const char *now, struct azoth_error *err)
{
    char dir[PATH_MAX], old[PATH_MAX];
    if (dbdir_path(dir, sizeof dir, a->dir, SEGMENT_DIR) ||
        join(old, sizeof old, dir, name, NULL) || same_name(old, now) || is_segment(old, e, NULL))
        return 0;
    return unlink(old) ? error_errno(err, errno, "%s", old) : 0;
}

int archiver_move(struct archiver *a, const struct archived_entry *e, struct azoth_error *err)
{
    char from[PATH_MAX + ARCHIVE_PATH_MAX], to[PATH_MAX], name[ARCHIVE_NAME_MAX];
    archivefile_name(name, e->about.first, e->about.last);
    int rc = join(to, sizeof to, a->dest, name, err);
    if (rc || archived_path(from, sizeof from, a->dir, e->path))
        return rc ? rc : error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", e->path);
    if (strcmp(from, to) == 0)
        return drop_old(a, e, name, to, err);
    /* One that died after it had placed the copy has left it there. */
    if (access(to, F_OK) != 0 || is_segment(to, e, NULL))
        rc = copy_segment(a, from, to, e, err);
    if (rc)
        return rc;
    struct buf argument = {0};
    unsigned char last[8];
    put_u64(last, e->about.last);
    rc = buf_add(&argument, last, sizeof last);
    if (!rc)
        rc = buf_add_str(&argument, archived_path_recorded(a->dir, to));
    rc = rc ? error_set(err, rc, "a path")
            : control(a, "archive-move", buf_bytes(&argument), NULL, err);
    buf_fini(&argument);
    CRASH_POINT(archive_moved);
    /* Where a directory has two paths the old file is the new one. */
    if (!rc && !same_name(from, to) && unlink(from) && errno != ENOENT)
        rc = error_errno(err, errno, "%s", from);
    return rc ? rc : 1;
}
