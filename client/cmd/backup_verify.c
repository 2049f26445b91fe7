/*
 * backup_verify.c - azoth backup verify: whether backups are whole, each file by itself, by its own manifest.
 *
 * What they lead to together is the matter of --deep (backup_deep.c).
 */
#include "client/cmd/backup.h"

#include <string.h>
#include <sys/stat.h>

/* ---- one file ---- */

/* Every member, against the manifest. */
static int read_all(struct backup_verifying *v, const char *path, struct backup_about *about,
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

void backup_verify_failed(struct backup_verifying *v, const char *path,
                          const struct azoth_error *err)
{
    struct azoth_error named = {.code = err->code, .foreign = err->foreign};
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    snprintf(named.message, sizeof named.message, "%.60s: %.170s", name, err->message);
    int code = cmd_fail(strstr(err->message, name) ? err : &named);
    if (code > v->exit_code)
        v->exit_code = code;
}

static void tell(struct backup_verifying *v, const char *path, const struct backup_about *a,
                 const unsigned char digest[BACKUPFILE_DIGEST], int rc,
                 const struct azoth_error *err)
{
    char hex[2 * BACKUPFILE_DIGEST + 1];
    bytes_hex(hex, digest, BACKUPFILE_DIGEST);
    if (v->l->json) {
        out_open(&v->t, NULL, '{');
        out_str(&v->t, "file", path);
        out_bool(&v->t, "ok", rc == 0);
        out_str(&v->t, "digest", rc ? NULL : hex);
        out_u64(&v->t, "to_event", a->to.event);
        out_str(&v->t, "error", rc ? azoth_code_name(rc) : NULL);
        out_str(&v->t, "message", rc ? err->message : NULL);
        out_close(&v->t, '}');
    } else if (!rc && !v->f->quiet) {
        printf("%s: whole, events %llu to %llu, digest %s\n", path,
               (unsigned long long)a->from.event + 1, (unsigned long long)a->to.event, hex);
    }
    if (rc)
        backup_verify_failed(v, path, err);
}

int backup_verify_file(struct backup_verifying *v, const char *path, struct backup_about *about,
                       struct azoth_error *err)
{
    unsigned char digest[BACKUPFILE_DIGEST] = {0};
    progress_begin(&v->progress, "verify", v->f->quiet, 0);
    int rc = read_all(v, path, about, digest, err);
    progress_end(&v->progress);
    v->files++;
    if (rc && cmd_interrupted())
        return 1;
    tell(v, path, about, digest, rc, err);
    return rc;
}

/* ---- the command ---- */

static int verify_place(struct backup_verifying *v, const char *dir)
{
    struct backup_entry *list;
    struct azoth_error err = {0};
    int n = backup_place_list(dir, &list, &err);
    if (n < 0)
        return cmd_fail(&err);
    for (int i = 0; i < n && !cmd_interrupted(); i++) {
        char path[PATH_MAX + NAME_MAX + 2];
        struct backup_about about = {0};
        snprintf(path, sizeof path, "%s/%s", dir, list[i].file);
        if (!list[i].partial)
            (void)backup_verify_file(v, path, &about, &err);
        backup_about_fini(&about);
    }
    free(list);
    return v->files || cmd_interrupted()
               ? 0
               : cmd_fail_code(AZOTH_ERR_BACKUP_MISSING, "%s: there is no backup in it", dir);
}

static int verify_alone(struct backup_verifying *v, const char *path)
{
    struct backup_about about = {0};
    struct azoth_error err = {0};
    (void)backup_verify_file(v, path, &about, &err);
    backup_about_fini(&about);
    return 0;
}

int backup_verify(struct cmd_line *l, const struct backup_flags *f, const char *path, int deep)
{
    struct backup_verifying v = {.l = l, .f = f};
    struct azoth_error err = {0};
    if (backup_keys_read(f, &v.keys, &err))
        return cmd_fail(&err);
    backup_catch_signals();
    if (l->json)
        out_open(&v.t, NULL, deep ? '{' : '[');
    int rc = deep                       ? backup_deep(&v, path)
             : backup_place_reads(path) ? verify_place(&v, path)
                                        : verify_alone(&v, path);
    backup_keys_fini(&v.keys);
    if (l->json) {
        if (deep)
            out_bool(&v.t, "ok", !rc && !v.exit_code && !cmd_interrupted());
        out_close(&v.t, deep ? '}' : ']');
        out_print(&v.t);
    }
    if (cmd_interrupted())
        return 128 + cmd_interrupted();
    return rc ? rc : v.exit_code;
}
