/*
 * backup_files.c - projections' files and others in a backup, and its output.
 *
 * Projections are copied before the store is: so none of them is beyond the store's copy. The copies have no
 * names: each is removed when it is made and read through its descriptor, so a backup that is killed leaves one
 * file at most, which the next one removes that makes its copies there.
 */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/dbdir.h"
#include "core/io.h"
#include "projector/generation.h"
#include "projector/target.h"
#include "writer/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE      65536u
#define SETTLE_MAX 16u

/* ---- output ---- */

void backup_say(struct backup_job *j)
{
    if (j->service)
        service_heartbeat(j->service, clock_mono_ns());
    progress_say(&j->progress, j->out ? backupfile_written(j->out) >> 20 : 0, j->expected >> 20,
                 "MiB");
}

int backup_begin_output(struct backup_job *j, struct azoth_error *err)
{
    const struct backupfile_options o = {
        .level = j->f.level.given ? (int)j->f.level.n : BACKUPFILE_LEVEL,
        /* A sealed one is to be the same bytes, which one thread makes. */
        .threads = j->about.kind == BACKUP_SEALED ? 0 : 1,
        .key = backup_key_of(&j->keys),
        .sign = j->keys.has_sign ? &j->keys.sign : NULL};
    struct buf text = {0};
    int rc = backup_about_text(&j->about, &text, err);
    if (rc)
        return rc;
    struct azoth_bytes about = buf_bytes(&text);
    if (j->plain) {
        snprintf(j->path, sizeof j->path, "%s", j->to);
        rc = backupfile_create_dir(j->path, &o, about, &j->out, err);
    } else if (j->exec) {
        rc = backup_exec_begin(j, &o, about, err);
    } else if (j->place.fd < 0) {
        rc = backupfile_stream(STDOUT_FILENO, &o, about, &j->out, err);
    } else {
        rc = backup_place_next(&j->place, j->about.kind, clock_wall_ns(), j->path, err);
        if (!rc)
            rc = backupfile_create(j->path, &o, about, &j->out, err);
    }
    buf_fini(&text);
    return rc;
}

int backup_end_output(struct backup_job *j, struct azoth_error *err)
{
    j->content = backupfile_written(j->out);
    if (j->exec)
        return backup_exec_end(j, err);
    int rc = backupfile_finish(j->out, j->digest, err);
    j->out = NULL;
    struct stat st;
    if (!rc && *j->path && stat(j->path, &st) == 0)
        j->bytes = (uint64_t)st.st_size;
    return rc;
}

/* ---- members from files ---- */

static int add_fd(struct backup_job *j, const char *name, int fd, const char *path,
                  struct azoth_error *err)
{
    static unsigned char piece[PIECE];
    struct stat st;
    if (fstat(fd, &st))
        return error_errno(err, errno, "%s", path);
    uint64_t left = (uint64_t)st.st_size;
    int rc = backupfile_member(j->out, name, left, err);
    for (uint64_t at = 0; !rc && left;) {
        size_t n = 0, want = left < sizeof piece ? (size_t)left : sizeof piece;
        rc = io_read_at(fd, piece, want, at, &n, path, err);
        if (backup_interrupted())
            return 1;
        if (!rc && n < want)
            rc = error_set(err, AZOTH_ERR_IO, "%s: it became shorter", path);
        if (!rc)
            rc = backupfile_write(j->out, piece, n, err);
        at += n;
        left -= n;
        backup_say(j);
    }
    return rc;
}

int backup_add_file(struct backup_job *j, const char *name, struct azoth_error *err)
{
    char path[4400];
    if (dbdir_path(path, sizeof path, j->dir, "%s", name))
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", j->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    int rc = add_fd(j, name, fd, path, err);
    close(fd);
    return rc;
}

int backup_add_definitions(struct backup_job *j, struct azoth_error *err)
{
    struct dirent **list;
    char name[300];
    int n = cmd_definitions(j->dir, &list, err), rc = n < 0 ? n : 0;
    for (int i = 0; i < n && !rc; i++) {
        snprintf(name, sizeof name, "projections/%s.sql", list[i]->d_name);
        rc = backup_add_file(j, name, err);
    }
    cmd_definitions_free(list, n);
    return rc;
}

int backup_add_projections(struct backup_job *j, struct azoth_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < j->about.projections && !rc; i++) {
        const struct backup_projection *p = &j->about.projection[i];
        char name[300];
        snprintf(name, sizeof name, "projections/%s", p->file);
        rc = add_fd(j, name, p->fd, name, err);
    }
    return rc;
}

/* ---- copies of projections ---- */

struct copying {
    struct backup_job *j;
    int with_digests, again;
    struct azoth_error *err;
};

/* Whether this very file was copied or is known to be absent. */
static int is_known(const struct backup_about *a, const char *file)
{
    for (size_t i = 0; i < a->projections; i++)
        if (strcmp(a->projection[i].file, file) == 0)
            return 1;
    for (size_t i = 0; i < a->absences; i++)
        if (strncmp(a->absent[i].name, file, sizeof a->absent[i].name - 1) == 0)
            return 1;
    return 0;
}

static int take(struct copying *c, const char *file, const char *copy, const struct filecopy *is,
                int serves, struct azoth_error *err)
{
    struct backup_projection *p = backup_about_projection(&c->j->about);
    struct stat st;
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a projection's copy");
    snprintf(p->file, sizeof p->file, "%s", file);
    (void)filecopy_parse(file, p->stem, sizeof p->stem, &p->generation);
    p->is = *is;
    if (c->with_digests) {
        int rc = filecopy_digest(copy, p->digest, err);
        if (rc)
            return rc;
    }
    p->fd = open(copy, O_RDONLY | O_CLOEXEC);
    if (p->fd < 0 || fstat(p->fd, &st))
        return error_errno(err, errno, "%s", copy);
    p->bytes = (uint64_t)st.st_size;
    p->serves = serves;
    return 0;
}

static int on_generation(void *arg, const char *file, const char *stem, uint64_t n)
{
    struct copying *c = arg;
    struct backup_job *j = c->j;
    struct filecopy is = {0};
    uint8_t uuid[16];
    char from[4600], to[PATH_MAX + 300];
    uint64_t serving = 0;
    if (is_known(&j->about, file))
        return 0;
    /* Before the copy: one that serves is not made any more, so the copy has all that it had. */
    int rc = generation_current(j->projections, stem, &serving, c->err);
    if (rc)
        return rc;
    if (dbdir_path(from, sizeof from, j->projections, "%s", file))
        return error_set(c->err, AZOTH_ERR_USAGE, "%s: the path is too long", file);
    snprintf(to, sizeof to, "%s/%s", j->tmp.path, file);
    rc = filecopy_make(from, to, backup_interrupted, &is, c->err);
    if (rc < 0 && access(from, F_OK)) { /* pruned meanwhile, or in the middle of it */
        unlink(to);
        c->again = 1;
        return 0;
    }
    if (rc == AZOTH_ERR_NOT_FOUND)
        return backup_about_absence(&j->about, file, "no projector has filled it yet");
    if (rc)
        return rc;
    if (!cmd_unhex(j->about.database, uuid, sizeof uuid) || memcmp(uuid, is.uuid, 16) != 0)
        rc = backup_about_absence(&j->about, file, "it follows another database");
    else
        rc = take(c, file, to, &is, serving == n, c->err);
    CRASH_POINT(backup_projection_copied);
    unlink(to);
    c->again = 1;
    return rc;
}

static int serving_copy(const struct backup_about *a, const char *stem)
{
    for (size_t i = 0; i < a->projections; i++)
        if (a->projection[i].serves && strcmp(a->projection[i].stem, stem) == 0)
            return 1;
    return 0;
}

/* As if it had not been looked at. */
static void forget(struct backup_about *a, const char *stem, uint64_t generation)
{
    char file[300];
    snprintf(file, sizeof file, "%s.g%llu.db", stem, (unsigned long long)generation);
    for (size_t i = a->projections; i-- > 0;)
        if (strcmp(a->projection[i].file, file) == 0) {
            close(a->projection[i].fd);
            a->projection[i] = a->projection[--a->projections];
        }
    for (size_t i = a->absences; i-- > 0;)
        if (strncmp(a->absent[i].name, file, sizeof a->absent[i].name - 1) == 0)
            a->absent[i] = a->absent[--a->absences];
}

/*
 * Generations are swapped and rolled back while they are copied. Of two copies that were serving when they were
 * begun the later one serves after a restore. If there is none, since each was copied while another served, the
 * one that does now is copied once more.
 */
static int settle_serving(struct copying *c)
{
    struct backup_about *a = &c->j->about;
    for (size_t i = 0; i < a->projections; i++)
        for (size_t k = 0; a->projection[i].serves && k < i; k++)
            if (strcmp(a->projection[k].stem, a->projection[i].stem) == 0)
                a->projection[k].serves = 0;
    for (size_t i = 0; i < a->projections; i++) {
        char stem[sizeof a->projection[i].stem];
        uint64_t serving;
        memcpy(stem, a->projection[i].stem, sizeof stem);
        if (serving_copy(a, stem))
            continue;
        int rc = generation_current(c->j->projections, stem, &serving, c->err);
        if (rc)
            return rc;
        if (serving) {
            forget(a, stem, serving);
            c->again = 1;
            return 0;
        }
    }
    return 0;
}

/* Definitions that have no file, and why. */
static int name_absent(struct backup_job *j, struct azoth_error *err)
{
    struct dirent **list;
    char conninfo[SQLFILE_CONNINFO_MAX + 1];
    int n = cmd_definitions(j->dir, &list, err), rc = n < 0 ? n : 0;
    for (int i = 0; i < n && !rc; i++) {
        const char *name = list[i]->d_name;
        int there = 0;
        for (size_t k = 0; k < j->about.projections; k++)
            there |= strcmp(j->about.projection[k].is.name, name) == 0;
        if (target_is_server(j->projections, name, conninfo, NULL) != 0)
            rc = backup_about_absence(
                &j->about, name,
                "its rows are in PostgreSQL: keep a pg_dump of its schema, or "
                "let its projector make them anew from the log after a restore");
        else if (!there)
            rc = backup_about_absence(&j->about, name, "it has no file yet");
    }
    cmd_definitions_free(list, n);
    return rc;
}

/* A directory for the copies: in the place of backups, or where those that can be read belong. They can: where only what is
 * encrypted is to go they do not lie for a moment. */
static int begin_tmp(struct backup_job *j, struct azoth_error *err)
{
    const char *above = j->f.tmp                               ? j->f.tmp
                        : j->place.fd >= 0 && !j->keys.has_key ? j->place.dir
                                                               : scratch_above();
    return scratch_begin(&j->tmp, above, BACKUP_TMP, err);
}

int backup_copy_projections(struct backup_job *j, int with_digests, struct azoth_error *err)
{
    struct copying c = {.j = j, .with_digests = with_digests, .again = 1, .err = err};
    if (j->no_projections)
        return 0;
    int rc = begin_tmp(j, err);
    /* Until a look finds nothing new: a generation may have been adopted while others were copied. */
    for (unsigned settled = 0; !rc && c.again;) {
        c.again = 0;
        rc = filecopy_each(j->projections, on_generation, &c, err);
        /* A link may point to a file that is not there; then no copy will ever serve. */
        if (!rc && !c.again && settled++ < SETTLE_MAX)
            rc = settle_serving(&c);
    }
    scratch_end(&j->tmp);
    return rc ? rc : name_absent(j, err);
}
