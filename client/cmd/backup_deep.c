/*
 * backup_deep.c - azoth backup verify --deep: what backups lead to is restored, checked as a restore is, and taken away.
 *
 * A directory of backups falls into stretches: a full backup with the increments behind it, up to the one that leads on
 * to the next full one. Each is restored by itself, increment by increment, and after each the store must stand where
 * that increment says: transaction, event and chain. So each file is applied once, and each full backup is a beginning.
 *
 *   a file fails by itself     it is not there for the plan: what builds on it is told as not restored
 *   an increment in between    is missing: BACKUP_MISSING, with the transactions that nothing has
 *   a stretch fails            its own error; the others are tried
 *   it is killed               the directory stays, and goes with the next run of the same user
 */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "writer/restore.h"

#include <errno.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "azoth-verify-"

struct deep {
    struct backup_verifying *v;
    const char *dir;    /* of backups */
    struct scratch tmp; /* where they are restored */
    struct backup_known *list;
    char *used; /* of each in the list: it belongs to a stretch */
    int n;
};

/* ---- one restore ---- */

static int restore_there(struct deep *d, struct restore_job *j, struct backup_point *from,
                         struct azoth_error *err)
{
    struct restore *r;
    char target[PATH_MAX + 8];
    snprintf(target, sizeof target, "%s/db", d->tmp.path);
    int rc = restore_begin(target, &r, err);
    if (rc)
        return rc;
    progress_begin(&j->progress, "restore", d->v->f->quiet, 0);
    rc = restore_load(j, r, err);
    *from = j->about.to;
    if (!rc && j->steps)
        rc = restore_steps(j, r, err);
    if (!rc)
        rc = restore_verify(j, r, err);
    progress_end(&j->progress);
    restore_abort(r);
    return rc;
}

static void tell_json(struct json_text *t, const struct restore_job *j,
                      const struct backup_point *from, uint64_t took_ns, int rc,
                      const struct azoth_error *err)
{
    char last[PATH_MAX + NAME_MAX + 2] = "";
    if (j->steps)
        snprintf(last, sizeof last, "%s/%s", j->from, j->step[j->steps - 1].is.file);
    out_open(t, NULL, '{');
    out_str(t, "base", j->base);
    out_u64(t, "increments", j->steps);
    out_str(t, "last", *last ? last : NULL);
    out_bool(t, "ok", rc == 0);
    out_u64(t, "from_event", from->event);
    out_u64(t, "to_event", j->head.event);
    out_u64(t, "to_transaction", j->head.txn);
    out_real(t, "seconds", (double)took_ns / 1e9);
    out_str(t, "error", rc ? azoth_code_name(rc) : NULL);
    out_str(t, "message", rc ? err->message : NULL);
    out_close(t, '}');
}

static void tell_line(const struct restore_job *j, const struct backup_point *from,
                      uint64_t took_ns)
{
    char time[CMD_TIME_TEXT], more[48] = "";
    if (j->steps)
        snprintf(more, sizeof more, " and %zu incremental backup%s", j->steps,
                 j->steps == 1 ? "" : "s");
    printf("%s%s: restored ", j->base, more);
    if (j->steps)
        printf("from event %llu ", (unsigned long long)from->event);
    printf("to event %llu, transaction %llu, all checked, in %s\n",
           (unsigned long long)j->head.event, (unsigned long long)j->head.txn,
           cmd_duration(took_ns, time));
}

/* What was planned in j: restored, told, taken away. plan: 0, or the error that the plan has come to. */
static void try_one(struct deep *d, struct restore_job *j, int plan, struct azoth_error *err)
{
    struct backup_point from = {0};
    uint64_t begun_ns = clock_mono_ns();
    int rc = plan ? plan : restore_there(d, j, &from, err);
    uint64_t took_ns = clock_mono_ns() - begun_ns;
    if (!(rc && cmd_interrupted())) {
        if (d->v->l->json)
            tell_json(&d->v->t, j, &from, took_ns, rc, err);
        else if (!rc && !d->v->f->quiet)
            tell_line(j, &from, took_ns);
        if (rc)
            backup_verify_failed(d->v, j->base, err);
    }
    backup_about_fini(&j->about);
    restore_plan_fini(j);
}

static struct restore_job *new_job(const struct deep *d, const char *from)
{
    static struct restore_job j;
    memset(&j, 0, sizeof j);
    j.keys = &d->v->keys;
    j.from = from;
    j.archive = d->v->f->archive;
    snprintf(j.base, sizeof j.base, "%s", from);
    return &j;
}

static void begin_list(struct deep *d, const char *name)
{
    if (d->v->l->json)
        out_open(&d->v->t, name, '[');
}

static void end_list(struct deep *d)
{
    if (d->v->l->json)
        out_close(&d->v->t, ']');
}

/* ---- a directory of backups ---- */

/* Of a file that fails nothing is believed, so that no plan leads over it. */
static void verify_files(struct deep *d)
{
    begin_list(d, "files");
    for (int i = 0; i < d->n && !cmd_interrupted(); i++) {
        struct backup_known *e = &d->list[i];
        char path[PATH_MAX + NAME_MAX + 2];
        struct backup_about about = {0};
        struct azoth_error err = {0};
        snprintf(path, sizeof path, "%s/%s", d->dir, e->is.file);
        int rc = e->is.partial ? 0 : backup_verify_file(d->v, path, &about, &err);
        backup_about_fini(&about);
        if (!rc)
            continue;
        e->known = 0;
        e->rc = rc;
        e->err = err;
    }
    end_list(d);
}

static void try_stretches(struct deep *d)
{
    begin_list(d, "stretches");
    for (int i = 0; i < d->n && !cmd_interrupted(); i++) {
        struct azoth_error err = {0};
        struct restore_job *j = new_job(d, d->dir);
        if (!d->list[i].known || d->list[i].about.kind == BACKUP_INCREMENT)
            continue;
        int rc = restore_plan_stretch(j, d->list, d->n, i, d->used, &err);
        try_one(d, j, rc, &err);
    }
    end_list(d);
}

/* ---- what no stretch has ---- */

static int is_damaged_before(const struct deep *d, int i)
{
    for (int k = 0; k < i; k++)
        if (d->list[k].rc)
            return 1;
    return 0;
}

/* Nothing leads to it, and no damaged file is to blame. */
static void tell_missing(struct deep *d, int i, struct azoth_error *err)
{
    const struct backup_known *e = &d->list[i], *before = NULL;
    for (int k = 0; k < i; k++)
        if (d->used[k] && strcmp(d->list[k].about.database, e->about.database) == 0 &&
            d->list[k].about.to.txn <= e->about.from.txn)
            before = &d->list[k];
    unsigned long long first = before ? before->about.to.txn + 1 : 1, last = e->about.from.txn;
    error_set(err, AZOTH_ERR_BACKUP_MISSING,
              "transactions %llu to %llu are missing: nothing leads from %.60s to %.60s", first,
              last, before ? before->is.file : "a full backup", e->is.file);
    backup_verify_failed(d->v, e->is.file, err);
}

/* Why it was not restored; an error when it should have been. */
static const char *why_unused(struct deep *d, int i, struct azoth_error *err)
{
    int on = backup_known_parent(d->list, d->n, i);
    if (on < 0 && !is_damaged_before(d, i)) {
        tell_missing(d, i, err);
        return err->message;
    }
    if (on < 0 || !d->used[on])
        return "what it builds on is damaged or missing";
    return d->list[on].about.kind == BACKUP_FULL
               ? "what it has is in the full backup before it, and nothing leads on to it"
               : "another one has what it has";
}

static void tell_unused(struct deep *d)
{
    begin_list(d, "not_restored");
    for (int i = 0; i < d->n && !cmd_interrupted(); i++) {
        struct azoth_error err = {0};
        if (!d->list[i].known || d->used[i])
            continue;
        const char *why = why_unused(d, i, &err);
        if (!d->v->l->json) {
            if (!err.code && !d->v->f->quiet)
                printf("%s/%s: not restored: %s\n", d->dir, d->list[i].is.file, why);
            continue;
        }
        out_open(&d->v->t, NULL, '{');
        out_str(&d->v->t, "file", d->list[i].is.file);
        out_str(&d->v->t, "why", why);
        out_str(&d->v->t, "error", err.code ? azoth_code_name(err.code) : NULL);
        out_close(&d->v->t, '}');
    }
    end_list(d);
}

static int deep_list(struct deep *d)
{
    d->used = calloc((size_t)d->n + 1, 1);
    if (!d->used)
        return cmd_fail_code(AZOTH_ERR_NOMEM, "a list of backups");
    verify_files(d);
    try_stretches(d);
    tell_unused(d);
    free(d->used);
    return d->v->files || cmd_interrupted()
               ? 0
               : cmd_fail_code(AZOTH_ERR_BACKUP_MISSING, "%s: there is no backup in it", d->dir);
}

static int deep_place(struct deep *d)
{
    struct azoth_error err = {0};
    d->n = backup_known_list(d->dir, &d->v->keys, &d->list, &err);
    if (d->n < 0)
        return cmd_fail(&err);
    int rc = deep_list(d);
    backup_known_free(d->list, d->n);
    return rc;
}

/* ---- a file ---- */

static int find_file(const struct deep *d, const char *file)
{
    for (int i = 0; i < d->n; i++)
        if (strcmp(d->list[i].is.file, file) == 0 && d->list[i].known)
            return i;
    return -1;
}

/* Below the directory that it lies in. */
static int plan_increment(struct deep *d, struct restore_job *j, const char *path,
                          struct azoth_error *err)
{
    const char *slash = strrchr(path, '/');
    if (!backup_place_reads(d->dir))
        return error_set(err, AZOTH_ERR_BACKUP_MISSING,
                         "%s: it has only what was new since another one, and does not lie in a "
                         "directory of backups",
                         path);
    int n = d->n = backup_known_list(d->dir, &d->v->keys, &d->list, err);
    if (n < 0)
        return n;
    int i = find_file(d, slash ? slash + 1 : path);
    int rc = i < 0
                 ? error_set(err, AZOTH_ERR_NOT_FOUND, "%s: it is no backup of its directory", path)
                 : restore_plan_to(j, d->list, n, i, err);
    backup_known_free(d->list, n);
    return rc;
}

static void deep_file(struct deep *d, const char *path)
{
    char above[PATH_MAX];
    struct backup_about about = {0};
    struct azoth_error err = {0};
    int rc = 0, from_pipe = strcmp(path, "-") == 0; /* which can be read once: by the restore */
    begin_list(d, "files");
    if (!from_pipe)
        rc = backup_verify_file(d->v, path, &about, &err);
    end_list(d);
    begin_list(d, "stretches");
    if (!rc && about.kind == BACKUP_INCREMENT) {
        snprintf(above, sizeof above, "%s", path);
        d->dir = dirname(above);
        struct restore_job *j = new_job(d, d->dir);
        snprintf(j->base, sizeof j->base, "%s", path);
        try_one(d, j, plan_increment(d, j, path, &err), &err);
    } else if (!rc) {
        try_one(d, new_job(d, path), 0, &err);
    }
    end_list(d);
    begin_list(d, "not_restored");
    end_list(d);
    backup_about_fini(&about);
}

int backup_deep(struct backup_verifying *v, const char *path)
{
    struct deep d = {.v = v, .dir = path};
    struct azoth_error err = {0};
    int rc = scratch_begin(&d.tmp, v->f->tmp ? v->f->tmp : scratch_above(), PREFIX, &err);
    if (rc)
        return cmd_fail(&err);
    if (backup_place_reads(path))
        rc = deep_place(&d);
    else
        deep_file(&d, path);
    scratch_end(&d.tmp);
    return rc;
}
