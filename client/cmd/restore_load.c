/*
 * restore_load.c - a backup's members into a database in the making, and the check of what came out.
 *
 * The members are written as they come; none of it is believed before the backup's end has been read and agreed. Names
 * are those that a backup has, and nothing else: what a file from outside says is no path.
 */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "core/io.h"
#include "core/pagecheck.h"
#include "writer/export.h"
#include "writer/feed_look.h"
#include "writer/import.h"
#include "writer/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 262144u

struct load {
    struct restore_job *j;
    struct restore *r;
    struct backupfile_in *in;
    struct import *im; /* of a sealed backup */
    int store_fd;      /* of a full one: data.mdb.new; -1 */
    int segment_fd;    /* of the segment that is being read, archive/`segment`; -1 */
    char segment[ARCHIVE_NAME_MAX];
    unsigned parts;    /* of the store, or of that */
    uint64_t expected; /* bytes of the file; 0: not known */
    struct buf part;
    unsigned char piece[PIECE];
};

static void say(struct load *d)
{
    uint64_t at = backupfile_bytes_read(d->in);
    progress_say(&d->j->progress, at >> 20, (d->expected ? d->expected : at) >> 20, "MiB");
}

/* ---- members into files ---- */

static int pour(struct load *d, int fd, const char *path, struct azoth_error *err)
{
    size_t len = 1;
    int rc = 0;
    while (!rc && len) {
        if (cmd_interrupted())
            return 1;
        rc = backupfile_read(d->in, d->piece, sizeof d->piece, &len, err);
        if (!rc && len)
            rc = io_write_all(fd, d->piece, len, path, err);
        d->j->content += len;
        say(d);
    }
    return rc;
}

static int new_file(const char *path, int *ret, struct azoth_error *err)
{
    *ret = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0660);
    return *ret < 0 ? error_errno(err, errno, "%s", path) : 0;
}

static int load_file(struct load *d, const char *name, struct azoth_error *err)
{
    char path[PATH_MAX];
    int fd;
    if (snprintf(path, sizeof path, "%s/%s", restore_dir(d->r), name) >= PATH_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", name);
    int rc = new_file(path, &fd, err);
    if (rc)
        return rc;
    rc = pour(d, fd, path, err);
    if (!rc && fsync(fd))
        rc = error_errno(err, errno, "%s", path);
    close(fd);
    return rc;
}

/* ---- members of the store ---- */

static int next_part(struct load *d, const char *number, struct azoth_error *err)
{
    char want[16];
    snprintf(want, sizeof want, "%08u", ++d->parts);
    return strcmp(number, want) == 0
               ? 0
               : error_set(err, AZOTH_ERR_FORMAT, "part %s comes where part %s should", number,
                           want);
}

static int load_pages(struct load *d, const char *number, struct azoth_error *err)
{
    int rc = next_part(d, number, err);
    if (!rc && d->store_fd < 0)
        rc = new_file(restore_store(d->r), &d->store_fd, err);
    if (!rc)
        rc = pour(d, d->store_fd, restore_store(d->r), err);
    /* On its way to the disk while the next part is read; the new identity's commit makes it durable. */
    if (!rc)
        (void)sync_file_range(d->store_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return rc;
}

/* ---- segments ---- */

int restore_new_segment(struct restore *r, const char *name, char path[PATH_MAX], int *ret,
                        struct azoth_error *err)
{
    if (snprintf(path, PATH_MAX, "%s/archive", restore_dir(r)) >= PATH_MAX ||
        snprintf(path, PATH_MAX, "%s/archive/%s", restore_dir(r), name) >= PATH_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    int made = mkdir(path, 0750) == 0 || errno == EEXIST, e = errno;
    *slash = '/';
    if (!made)
        return error_errno(err, e, "%s", path);
    *ret = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0440);
    return *ret < 0 ? error_errno(err, errno, "%s", path) : 0;
}

static int end_segment(struct load *d, struct azoth_error *err)
{
    int fd = d->segment_fd, rc = 0;
    d->segment_fd = -1;
    if (fd >= 0 && fsync(fd))
        rc = error_errno(err, errno, "%s", d->segment);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Whether about.json has told of it. */
static int is_segment(const struct load *d, const char *file)
{
    const struct backup_about *a = &d->j->about;
    char name[ARCHIVE_NAME_MAX];
    for (size_t i = 0; i < a->segments && !a->without_archive; i++) {
        archivefile_name(name, a->segment[i].first, a->segment[i].last);
        if (strcmp(name, file) == 0)
            return 1;
    }
    return 0;
}

/* NAME, or its parts NAME/00000001 and so on, one behind the other. */
static int load_segment(struct load *d, const char *rest, struct azoth_error *err)
{
    char name[ARCHIVE_NAME_MAX], path[PATH_MAX];
    const char *slash = strchrnul(rest, '/');
    int rc = 0, n = snprintf(name, sizeof name, "%.*s", (int)(slash - rest), rest);
    if (n >= (int)sizeof name || !is_segment(d, name))
        return error_set(err, AZOTH_ERR_FORMAT, "a segment %.80s is in no backup", rest);
    if (d->segment_fd < 0 || strcmp(name, d->segment) != 0 || !*slash) {
        d->parts = 0;
        rc = end_segment(d, err);
        memcpy(d->segment, name, sizeof name);
        if (!rc)
            rc = restore_new_segment(d->r, name, path, &d->segment_fd, err);
    }
    if (!rc && *slash)
        rc = next_part(d, slash + 1, err);
    return rc ? rc : pour(d, d->segment_fd, d->segment, err);
}

/* Parts of one kind come one after the other, each kind from 1. */
static int load_entries(struct load *d, const char *number, uint64_t bytes,
                        int (*take)(struct import *, struct azoth_bytes, struct azoth_error *),
                        struct azoth_error *err)
{
    if (strcmp(number, "00000001") == 0)
        d->parts = 0;
    int rc = next_part(d, number, err);
    size_t len = 1;
    if (!rc && bytes > BACKUPFILE_PART)
        rc = error_set(err, AZOTH_ERR_FORMAT, "a part of %llu bytes", (unsigned long long)bytes);
    buf_clear(&d->part);
    unsigned char *p = rc ? NULL : buf_grow(&d->part, (size_t)bytes + 1);
    if (!rc && !p)
        rc = error_set(err, AZOTH_ERR_NOMEM, "a part of the export");
    size_t at = 0;
    while (!rc && len && at <= bytes) {
        rc = backupfile_read(d->in, p + at, (size_t)bytes + 1 - at, &len, err);
        at += len;
    }
    if (!rc && cmd_interrupted())
        return 1;
    d->j->content += bytes;
    say(d);
    return rc ? rc : take(d->im, bytes_of(p, (size_t)bytes), err);
}

/* ---- which is which ---- */

static const char *after(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

/* A projection's definition, or a file that about.json has told of. */
static int is_projection_file(const struct load *d, const char *file)
{
    char name[256];
    size_t n = strlen(file);
    if (n > 4 && n < sizeof name && strcmp(file + n - 4, ".sql") == 0) {
        memcpy(name, file, n - 4);
        name[n - 4] = 0;
        return dbdir_name_valid(name);
    }
    for (size_t i = 0; i < d->j->about.projections; i++)
        if (strcmp(d->j->about.projection[i].file, file) == 0)
            return 1;
    return 0;
}

static int load_member(struct load *d, const char *name, uint64_t bytes, struct azoth_error *err)
{
    const char *rest;
    if (d->im && (rest = after(name, "state/")) != NULL)
        return load_entries(d, rest, bytes, import_state, err);
    if (d->im && (rest = after(name, "events/")) != NULL)
        return load_entries(d, rest, bytes, import_events, err);
    if (d->im && (rest = after(name, "ids/")) != NULL)
        return load_entries(d, rest, bytes, import_ids, err);
    if (!d->im && (rest = after(name, "data.mdb/")) != NULL)
        return load_pages(d, rest, err);
    if (!d->im && (rest = after(name, "archive/")) != NULL)
        return load_segment(d, rest, err);
    if (strcmp(name, "azoth.conf") == 0)
        return load_file(d, name, err);
    rest = after(name, "projections/");
    if (!rest || !is_projection_file(d, rest))
        return error_set(err, AZOTH_ERR_FORMAT, "a member %.80s is in no backup", name);
    if (d->j->no_projections && !strstr(rest, ".sql"))
        return 0; /* read over */
    return load_file(d, name, err);
}

static int end_store(struct load *d, struct azoth_error *err)
{
    const struct backup_about *a = &d->j->about;
    struct import_identity id = {.created_ns = a->store_created_ns,
                                 .txn = a->to.txn,
                                 .event = a->to.event,
                                 .chain_start = a->chain_start,
                                 .chain = a->chain};
    if (d->im) {
        struct import *im = d->im;
        d->im = NULL;
        if (!cmd_unhex(a->database, id.uuid, sizeof id.uuid))
            memset(id.uuid, 0, sizeof id.uuid); /* it was checked */
        return import_finish(im, &id, err);
    }
    if (d->store_fd < 0)
        return error_set(err, AZOTH_ERR_FORMAT, "the backup has no store");
    return pagecheck_file(restore_store(d->r), err);
}

static int load_members(struct load *d, struct azoth_error *err)
{
    const char *name;
    char last[BACKUPFILE_NAME_MAX + 1] = "";
    uint64_t bytes;
    int rc, loaded = 0;
    while (!loaded && (rc = backupfile_next(d->in, &name, &bytes, err)) == 1) {
        snprintf(last, sizeof last, "%s", name);
        loaded = load_member(d, name, bytes, err);
    }
    if (loaded || rc)
        return backup_name_member(loaded ? loaded : rc, last, err);
    backupfile_digest(d->in, d->j->digest);
    if (d->j->keys->has_public)
        rc = backupfile_signed_by(d->in, &d->j->keys->public_key, err);
    if (!rc)
        rc = end_segment(d, err);
    return rc ? rc : end_store(d, err);
}

/* STEM.db, which lets readers and projectors find the generation that serves. */
static int link_generations(struct load *d, struct azoth_error *err)
{
    for (size_t i = 0; i < d->j->about.projections; i++) {
        const struct backup_projection *p = &d->j->about.projection[i];
        char path[PATH_MAX];
        if (!p->serves || !*p->file)
            continue;
        if (snprintf(path, sizeof path, "%s/projections/%s.db", restore_dir(d->r), p->stem) >=
            PATH_MAX)
            return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", p->file);
        if (symlink(p->file, path))
            return error_errno(err, errno, "%s", path);
    }
    return 0;
}

static int load_backup(struct load *d, struct azoth_error *err)
{
    struct restore_job *j = d->j;
    int rc = backup_about_parse(backupfile_about(d->in), &j->about, err);
    if (!rc && j->about.kind == BACKUP_INCREMENT)
        rc = error_set(err, AZOTH_ERR_BACKUP_MISSING,
                       "%s: it has only what was new since another one: restore from its directory",
                       j->base);
    if (!rc)
        rc = restore_look_for_archive(j, err);
    if (!rc && j->about.kind == BACKUP_SEALED)
        rc = import_open(restore_store(d->r), &d->im, err);
    if (!rc)
        rc = load_members(d, err);
    if (!rc)
        rc = restore_archive(j, d->r, err);
    if (!rc && !j->no_projections)
        rc = link_generations(d, err);
    return rc;
}

int restore_load(struct restore_job *j, struct restore *r, struct azoth_error *err)
{
    struct stat st;
    struct load *d = calloc(1, sizeof *d);
    if (!d)
        return error_set(err, AZOTH_ERR_NOMEM, "a restore");
    d->j = j;
    d->r = r;
    d->store_fd = d->segment_fd = -1;
    d->expected = stat(j->base, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    int rc = backup_open(j->base, j->keys, &d->in, err);
    if (!rc)
        rc = load_backup(d, err);
    if (d->store_fd >= 0)
        close(d->store_fd);
    (void)end_segment(d, NULL);
    import_abort(d->im);
    backupfile_close(d->in);
    buf_fini(&d->part);
    free(d);
    return rc;
}

/* ---- what came out ---- */

static int on_event(void *arg, uint64_t event, uint64_t head)
{
    struct restore_job *j = arg;
    progress_say(&j->progress, event, head, "event");
    return cmd_interrupted();
}

/* The file is whole, of this database, and at an event of this log. */
static int verify_projection(struct restore_job *j, struct restore *r, struct store *s,
                             const struct backup_projection *p, struct azoth_error *err)
{
    struct filecopy is;
    uint8_t uuid[16];
    uint64_t head;
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/projections/%s", restore_dir(r), p->file) >= PATH_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", p->file);
    int rc = filecopy_look(path, 1, &is, err);
    if (rc)
        return rc;
    if (!cmd_unhex(j->about.database, uuid, sizeof uuid) || memcmp(uuid, is.uuid, 16) != 0)
        return error_set(err, AZOTH_ERR_DIVERGED, "%s: it follows another database", p->file);
    if (is.cursor != p->is.cursor)
        return error_set(err, AZOTH_ERR_CORRUPT, "%s: its cursor is not the one of the backup",
                         p->file);
    return feed_same_history(s, is.cursor, is.cursor_check, &head, err);
}

static int check_store(struct restore_job *j, struct store *s, struct azoth_error *err)
{
    char hex[BACKUP_ID_TEXT];
    bytes_hex(hex, store_identity(s)->uuid, 16);
    return strcmp(hex, j->about.database) == 0
               ? restore_verify_archive(j, s, err)
               : error_set(err, AZOTH_ERR_CORRUPT,
                           "the store is of another database than the backup");
}

static int check_head(const struct restore_job *j, struct azoth_error *err)
{
    if (j->head.event != j->about.to.event || j->head.txn != j->about.to.txn)
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "the store's head is event %llu, and not that of the backup, %llu",
                         (unsigned long long)j->head.event, (unsigned long long)j->about.to.event);
    if (j->head.chain.on != j->about.chain.on ||
        memcmp(j->head.chain.value, j->about.chain.value, CHAIN_BYTES) != 0)
        return error_set(err, AZOTH_ERR_CORRUPT, "the chain is not where the backup says");
    return 0;
}

int restore_verify(struct restore_job *j, struct restore *r, struct azoth_error *err)
{
    struct store *s;
    int rc = store_open(restore_store(r), STORE_FILE, &s, err);
    if (rc)
        return rc;
    rc = check_store(j, s, err);
    if (!rc)
        rc = restore_check(r, on_event, j, &j->head, err);
    if (!rc)
        rc = check_head(j, err);
    for (size_t i = 0; i < j->about.projections && !rc && !j->no_projections; i++)
        if (*j->about.projection[i].file)
            rc = verify_projection(j, r, s, &j->about.projection[i], err);
    store_close(s);
    return rc;
}
