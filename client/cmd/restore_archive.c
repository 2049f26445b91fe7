/*
 * restore_archive.c - the segments of a restored store: in its own directory archive/, whatever their places were.
 *
 * They are believed by what the store says of them: digest, range, the chain's value before and after. The database that
 * made them, whose UUID they carry, is no matter: the restored one has another.
 */
#include "client/cmd/backup.h"

#include "core/crash.h"
#include "core/io.h"
#include "writer/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- from elsewhere ---- */

struct writing {
    int fd;
    const char *path;
};

static int on_piece(void *arg, const void *p, size_t len, struct azoth_error *err)
{
    const struct writing *w = arg;
    return cmd_interrupted() ? 1 : io_write_all(w->fd, p, len, w->path, err);
}

static int copy_in(struct restore *r, const char *name, const struct archivefile *f,
                   struct azoth_error *err)
{
    char path[PATH_MAX];
    struct writing w = {.path = path};
    int rc = restore_new_segment(r, name, path, &w.fd, err);
    if (rc)
        return rc;
    rc = archivefile_copy(f, on_piece, &w, err);
    if (!rc && fsync(w.fd))
        rc = error_errno(err, errno, "%s", path);
    close(w.fd);
    return rc;
}

/* A segment that the backup wants, where it should be. */
static int find(const struct restore_job *j, const struct backup_segment *s,
                struct archivefile **ret, struct azoth_error *err)
{
    char name[ARCHIVE_NAME_MAX], from[PATH_MAX];
    archivefile_name(name, s->first, s->last);
    if (!j->archive)
        return error_set(err, AZOTH_ERR_BACKUP_MISSING,
                         "the backup was made without its archive: the first segment that it wants "
                         "is %s (--archive DIR says where they are)",
                         name);
    if (snprintf(from, sizeof from, "%s/%s", j->archive, name) >= PATH_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", j->archive);
    int rc = archivefile_open(from, ret, err);
    if (rc == AZOTH_ERR_NOT_FOUND)
        return error_set(err, AZOTH_ERR_BACKUP_MISSING,
                         "%s: the backup was made without its archive, and this segment is not "
                         "there",
                         from);
    if (rc)
        return rc;
    if (memcmp(archivefile_about(*ret)->digest, s->digest, sizeof s->digest) == 0)
        return 0;
    archivefile_close(*ret);
    return error_set(err, AZOTH_ERR_CORRUPT,
                     "%s is not the segment of the backup: its digest is another", from);
}

static int fetch(struct restore_job *j, struct restore *r, const struct backup_segment *s,
                 struct azoth_error *err)
{
    char name[ARCHIVE_NAME_MAX];
    struct archivefile *f;
    int rc = find(j, s, &f, err);
    if (rc)
        return rc;
    archivefile_name(name, s->first, s->last);
    rc = copy_in(r, name, f, err);
    archivefile_close(f);
    return rc;
}

int restore_look_for_archive(const struct restore_job *j, struct azoth_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < j->about.segments && !rc && j->about.without_archive; i++) {
        struct archivefile *f;
        rc = find(j, &j->about.segment[i], &f, err);
        if (!rc)
            archivefile_close(f);
    }
    return rc;
}

int restore_archive(struct restore_job *j, struct restore *r, struct azoth_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < j->about.segments && !rc && j->about.without_archive; i++)
        rc = fetch(j, r, &j->about.segment[i], err);
    if (!rc && j->about.segments)
        rc = restore_segments(r, err);
    CRASH_POINT(restore_segments);
    return rc;
}

/* ---- all of them ---- */

struct verifying {
    struct restore_job *j;
    struct store *store;
    size_t n;
    struct archive_about before; /* the one before; last is 0: there is none */
};

static int on_verified(void *arg, uint64_t event)
{
    struct restore_job *j = arg;
    progress_say(&j->progress, event, j->about.to.event, "event");
    return cmd_interrupted() ? 1 : 0;
}

static int same_segment(const struct verifying *v, const struct archived_entry *e)
{
    const struct backup_segment *s = &v->j->about.segment[v->n];
    return v->n < v->j->about.segments && s->first == e->about.first && s->last == e->about.last &&
           s->bytes == e->about.bytes && memcmp(s->digest, e->about.digest, sizeof s->digest) == 0;
}

/* What the file says of itself is what the store says of it, and goes on where the one before ended. */
static int compare(const struct verifying *v, const struct archived_entry *e,
                   const struct archivefile *f, struct azoth_error *err)
{
    const struct archive_about *a = archivefile_about(f), *b = &v->before;
    char name[ARCHIVE_NAME_MAX];
    archivefile_name(name, a->first, a->last);
    if (a->bytes != e->about.bytes || a->chained != e->about.chained ||
        memcmp(a->chain_before, e->about.chain_before, ARCHIVE_DIGEST) != 0 ||
        memcmp(a->chain_after, e->about.chain_after, ARCHIVE_DIGEST) != 0)
        return error_set(err, AZOTH_ERR_CORRUPT, "segment %s is not what the store says of it",
                         name);
    if (b->last && b->chained &&
        (!a->chained || memcmp(b->chain_after, a->chain_before, ARCHIVE_DIGEST) != 0))
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "segment %s does not go on with the chain where the one before ends",
                         name);
    return 0;
}

static int on_entry(void *arg, const struct archived_entry *e, struct azoth_error *err)
{
    struct verifying *v = arg;
    struct archivefile *f;
    if (!same_segment(v, e))
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "the store's segment up to event %llu is not in the backup",
                         (unsigned long long)e->about.last);
    int rc = store_archive_open(v->store, e, &f, err);
    if (rc == AZOTH_ERR_NOT_FOUND)
        return error_set(err, AZOTH_ERR_CORRUPT, "the backup does not have %s", e->path);
    if (rc)
        return rc;
    rc = compare(v, e, f, err);
    if (!rc)
        rc = archivefile_verify(f, on_verified, v->j, err);
    archivefile_close(f);
    v->before = e->about;
    v->n++;
    return rc;
}

int restore_verify_archive(struct restore_job *j, struct store *s, struct azoth_error *err)
{
    struct verifying v = {.j = j, .store = s};
    struct snapshot *sn;
    int rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_archives(sn, on_entry, &v, err);
    snapshot_end(sn);
    if (!rc && v.n != j->about.segments)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "the backup has %zu segments, and the store %zu",
                       j->about.segments, v.n);
    return rc;
}
