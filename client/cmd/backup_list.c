/* backup_list.c - azoth backup list and verify: what lies in a directory of backups, and whether it is whole. */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "writer/restore.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- list ---- */

/* What it is restored upon: its number, or 0. */
static uint64_t builds_on(const struct backup_known *list, int n, int i)
{
    int on = backup_known_parent(list, n, i);
    return on < 0 ? 0 : list[on].is.number;
}

static void list_json(struct json_text *t, const struct backup_known *e, uint64_t on)
{
    const struct backup_about *a = &e->about;
    out_open(t, NULL, '{');
    out_str(t, "file", e->is.file);
    out_u64(t, "number", e->is.number);
    out_str(t, "kind", backup_kind_name(e->is.kind));
    out_u64(t, "file_bytes", e->is.bytes);
    out_bool(t, "complete", !e->is.partial);
    out_bool(t, "encrypted", e->encrypted);
    if (e->known) {
        out_str(t, "id", *a->id ? a->id : NULL);
        out_str(t, "parent", *a->parent ? a->parent : NULL);
        if (on)
            out_u64(t, "builds_on", on);
        else
            out_null(t, "builds_on");
        out_str(t, "database", a->database);
        out_i64(t, "created_ns", a->created_ns);
        out_u64(t, "from_event", a->from.event);
        out_u64(t, "to_event", a->to.event);
        out_u64(t, "from_transaction", a->from.txn);
        out_u64(t, "to_transaction", a->to.txn);
        out_i64(t, "to_time_ns", a->to.time_ns);
        out_u64(t, "segments", a->segments);
        out_bool(t, "without_archive", a->without_archive);
    }
    int readable = !e->rc || e->rc == AZOTH_ERR_WRONG_KEY;
    out_str(t, "error", readable ? NULL : azoth_code_name(e->rc));
    out_str(t, "message", readable ? NULL : e->err.message);
    out_close(t, '}');
}

static void list_line(const struct backup_known *e, uint64_t on)
{
    char size[CMD_TIME_TEXT], time[CMD_TIME_TEXT], events[48] = "-", upon[40] = "";
    if (e->known)
        snprintf(events, sizeof events, "%llu-%llu", (unsigned long long)e->about.from.event + 1,
                 (unsigned long long)e->about.to.event);
    if (on)
        snprintf(upon, sizeof upon, " upon %06llu", (unsigned long long)on);
    else if (e->known && e->about.kind == BACKUP_INCREMENT)
        snprintf(upon, sizeof upon, " upon nothing that is here");
    printf("%-44s %-9s %-24s %-20s %10s%s%s%s%s\n", e->is.file, backup_kind_name(e->is.kind),
           cmd_time(e->known && e->about.created_ns ? e->about.created_ns : e->is.changed_ns, time),
           events, cmd_size(e->is.bytes, size), upon, e->encrypted ? " encrypted" : "",
           e->known && e->about.without_archive ? " without its archive" : "",
           e->is.partial                           ? " not complete"
           : e->rc && e->rc != AZOTH_ERR_WRONG_KEY ? azoth_code_name(e->rc)
                                                   : "");
}

int backup_list(struct cmd_line *l, const struct backup_flags *f, const char *dir)
{
    struct backup_keys keys;
    struct backup_known *list;
    struct azoth_error err = {0};
    struct json_text t = {0};
    if (backup_keys_read(f, &keys, &err))
        return cmd_fail(&err);
    int n = backup_known_list(dir, &keys, &list, &err);
    backup_keys_fini(&keys);
    if (n < 0)
        return cmd_fail(&err);
    if (l->json)
        out_open(&t, NULL, '[');
    else
        printf("%-44s %-9s %-24s %-20s %10s\n", "FILE", "KIND", "TIME", "EVENTS", "SIZE");
    for (int i = 0; i < n; i++)
        if (l->json)
            list_json(&t, &list[i], builds_on(list, n, i));
        else
            list_line(&list[i], builds_on(list, n, i));
    backup_known_free(list, n);
    if (!l->json)
        return 0;
    out_close(&t, ']');
    return out_print(&t);
}

/* ---- verify ---- */

struct verifying {
    struct cmd_line *l;
    const struct backup_flags *f;
    struct backup_keys keys;
    struct json_text t;
    struct progress progress;
    int exit_code, files;
};

/* Every member, against the manifest. */
static int read_all(struct verifying *v, const char *path, struct backup_about *about,
                    unsigned char digest[BACKUPFILE_DIGEST], struct azoth_error *err)
{
    struct backupfile_in *in;
    struct stat st;
    const char *name;
    char last[BACKUPFILE_NAME_MAX + 1] = "";
    uint64_t bytes, size = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    int rc = backup_open(path, &v->keys, &in, err);
    if (rc)
        return rc;
    rc = backup_about_parse(backupfile_about(in), about, err);
    while (!rc && (rc = backupfile_next(in, &name, &bytes, err)) == 1) {
        snprintf(last, sizeof last, "%s", name);
        progress_say(&v->progress, backupfile_bytes_read(in) >> 20, size >> 20, "MiB");
        rc = cmd_interrupted() ? 1 : 0;
        if (rc)
            break;
    }
    backup_name_member(rc, last, err);
    if (!rc) {
        backupfile_digest(in, digest);
        if (v->keys.has_public)
            rc = backupfile_signed_by(in, &v->keys.public_key, err);
    }
    backupfile_close(in);
    return rc;
}

/* Restores it beside nothing, and takes it away again. */
static int restore_and_drop(struct verifying *v, const char *path, struct azoth_error *err)
{
    static struct restore_job j;
    struct restore *r;
    char target[PATH_MAX];
    const char *above = v->f->tmp ? v->f->tmp : getenv("TMPDIR");
    memset(&j, 0, sizeof j);
    j.keys = &v->keys;
    j.from = path;
    j.archive = v->f->archive;
    snprintf(j.base, sizeof j.base, "%s", path);
    if (snprintf(target, sizeof target, "%s/azoth-verify-%d", above ? above : "/var/tmp",
                 (int)getpid()) >= PATH_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", above);
    int rc = restore_begin(target, &r, err);
    if (rc)
        return rc;
    progress_begin(&j.progress, "restore", v->f->quiet, 0);
    rc = restore_load(&j, r, err);
    if (!rc)
        rc = restore_verify(&j, r, err);
    progress_end(&j.progress);
    restore_abort(r);
    backup_about_fini(&j.about);
    return rc;
}

static void tell(struct verifying *v, const char *path, const struct backup_about *a,
                 const unsigned char digest[BACKUPFILE_DIGEST], int rc,
                 const struct azoth_error *err)
{
    char hex[2 * BACKUPFILE_DIGEST + 1];
    cmd_hex(digest, BACKUPFILE_DIGEST, hex);
    if (v->l->json) {
        out_open(&v->t, NULL, '{');
        out_str(&v->t, "file", path);
        out_bool(&v->t, "ok", rc == 0);
        out_str(&v->t, "digest", rc ? NULL : hex);
        out_u64(&v->t, "to_event", a->to.event);
        out_str(&v->t, "error", rc ? azoth_code_name(rc) : NULL);
        out_str(&v->t, "message", rc ? err->message : NULL);
        out_close(&v->t, '}');
    } else if (!rc) {
        printf("%s: whole, events %llu to %llu, digest %s\n", path,
               (unsigned long long)a->from.event + 1, (unsigned long long)a->to.event, hex);
    }
    if (rc) {
        struct azoth_error named = {.code = rc, .foreign = err->foreign};
        const char *name = strrchr(path, '/');
        name = name ? name + 1 : path;
        snprintf(named.message, sizeof named.message, "%.60s: %.170s", name, err->message);
        v->exit_code = cmd_fail(strstr(err->message, name) ? err : &named);
    }
}

static void verify_one(struct verifying *v, const char *path, int deep)
{
    struct backup_about about = {0};
    struct azoth_error err = {0};
    unsigned char digest[BACKUPFILE_DIGEST] = {0};
    progress_begin(&v->progress, "verify", v->f->quiet, 0);
    int rc = read_all(v, path, &about, digest, &err);
    progress_end(&v->progress);
    if (!rc && deep && about.kind != BACKUP_INCREMENT)
        rc = restore_and_drop(v, path, &err);
    if (rc <= 0 && !(rc && cmd_interrupted()))
        tell(v, path, &about, digest, rc, &err);
    backup_about_fini(&about);
    v->files++;
}

static int verify_place(struct verifying *v, const char *dir, int deep)
{
    struct backup_entry *list;
    struct azoth_error err = {0};
    int n = backup_place_list(dir, &list, &err);
    if (n < 0)
        return cmd_fail(&err);
    for (int i = 0; i < n && !cmd_interrupted(); i++) {
        char path[PATH_MAX + NAME_MAX + 2];
        snprintf(path, sizeof path, "%s/%s", dir, list[i].file);
        if (!list[i].partial)
            verify_one(v, path, deep);
    }
    free(list);
    return v->files || cmd_interrupted()
               ? 0
               : cmd_fail_code(AZOTH_ERR_BACKUP_MISSING, "%s: there is no backup in it", dir);
}

int backup_verify(struct cmd_line *l, const struct backup_flags *f, const char *path, int deep)
{
    struct verifying v = {.l = l, .f = f};
    struct azoth_error err = {0};
    if (backup_keys_read(f, &v.keys, &err))
        return cmd_fail(&err);
    backup_catch_signals();
    if (l->json)
        out_open(&v.t, NULL, '[');
    int rc = 0;
    if (backup_place_reads(path))
        rc = verify_place(&v, path, deep);
    else
        verify_one(&v, path, deep);
    backup_keys_fini(&v.keys);
    if (l->json) {
        out_close(&v.t, ']');
        out_print(&v.t);
    }
    if (cmd_interrupted())
        return 128 + cmd_interrupted();
    return rc ? rc : v.exit_code;
}
