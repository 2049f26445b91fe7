/*
 * backup_archive.c - segments of archived events in a backup: those that the copied commit has recorded.
 *
 * All are looked for before anything is written, so that a missing one costs nothing. One that is damaged is found while
 * it is read, by its digest, and the backup is not finished.
 */
#include "client/cmd/backup.h"

#include <string.h>

/* ---- the list ---- */

static int look_for(struct backup_job *j, const struct archived_entry *e, struct azoth_error *err)
{
    struct archivefile *f;
    int rc = store_archive_open(j->store, e, &f, err);
    if (!rc)
        archivefile_close(f);
    return rc;
}

static int on_entry(void *arg, const struct archived_entry *e, struct azoth_error *err)
{
    struct backup_job *j = arg;
    struct backup_segment s = {e->about.first, e->about.last, e->about.bytes, {0}};
    size_t n = j->about.segments;
    struct archived_entry *more = realloc(j->archive, (n + 1) * sizeof *more);
    if (!more)
        return error_set(err, AZOTH_ERR_NOMEM, "the list of segments");
    j->archive = more;
    more[n] = *e;
    memcpy(s.digest, e->about.digest, sizeof s.digest);
    if (backup_about_segment(&j->about, &s))
        return error_set(err, AZOTH_ERR_NOMEM, "the list of segments");
    if (j->about.without_archive)
        return 0;
    j->expected += s.bytes;
    return look_for(j, e, err);
}

int backup_list_archive(struct backup_job *j, struct snapshot *sn, struct azoth_error *err)
{
    j->about.without_archive = j->no_archive;
    return snapshot_archives(sn, on_entry, j, err);
}

/* ---- members ---- */

struct adding {
    struct backup_job *j;
    char name[ARCHIVE_NAME_MAX];
    uint64_t left, room; /* bytes to come, of the file and of the member in hand */
    unsigned part;       /* of that member; 0: the file is one member */
};

static int next_member(struct adding *a, struct azoth_error *err)
{
    char name[ARCHIVE_NAME_MAX + 30];
    a->room = a->left < BACKUPFILE_PART ? a->left : BACKUPFILE_PART;
    if (a->part)
        snprintf(name, sizeof name, "archive/%s/%08u", a->name, a->part++);
    else
        snprintf(name, sizeof name, "archive/%s", a->name);
    return backupfile_member(a->j->out, name, a->room, err);
}

static int on_piece(void *arg, const void *p, size_t len, struct azoth_error *err)
{
    struct adding *a = arg;
    const unsigned char *at = p;
    int rc = 0;
    if (backup_interrupted())
        return 1;
    while (!rc && len) {
        if (!a->room)
            rc = next_member(a, err);
        size_t n = len < a->room ? len : (size_t)a->room;
        if (!rc)
            rc = backupfile_write(a->j->out, at, n, err);
        at += n;
        len -= n;
        a->room -= n;
        a->left -= n;
    }
    backup_say(a->j);
    return rc;
}

static int add_segment(struct backup_job *j, const struct archived_entry *e,
                       struct azoth_error *err)
{
    struct archivefile *f;
    struct adding a = {.j = j};
    int rc = store_archive_open(j->store, e, &f, err);
    if (rc)
        return rc;
    archivefile_name(a.name, e->about.first, e->about.last);
    a.left = archivefile_about(f)->bytes;
    a.part = a.left > BACKUPFILE_PART;
    rc = archivefile_copy(f, on_piece, &a, err);
    archivefile_close(f);
    return rc;
}

int backup_add_archive(struct backup_job *j, struct azoth_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < j->about.segments && !rc && !j->about.without_archive; i++)
        rc = add_segment(j, &j->archive[i], err);
    return rc;
}
