/*
 * backup_prune.c - azoth backup prune: removes what a rule does not keep (writer/retention.h).
 *
 * What a backup builds on has a smaller number than it. They are removed from the greatest number down, so whenever
 * this dies, what is kept has all that it builds on. While one of them can not be read nothing is removed: what it
 * is, and what it builds on, is not known.
 */
#include "client/cmd/backup.h"

#include "core/crash.h"
#include "writer/retention.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct pruning {
    const char *dir;
    struct backup_known *list;
    struct retention_item *items;
    int n;
    struct backup_pruned *told;
};

/* Of the time that they were made: a database in which nothing happens has backups of each day, too. */
static int fill_items(struct pruning *p, struct azoth_error *err)
{
    p->items = calloc((size_t)p->n + 1, sizeof *p->items);
    if (!p->items)
        return error_set(err, AZOTH_ERR_NOMEM, "a list of backups");
    for (int i = 0; i < p->n; i++) {
        const struct backup_known *e = &p->list[i];
        if (e->is.partial)
            return error_set(err, AZOTH_ERR_BUSY, "%s: another backup is made into it now", p->dir);
        if (!e->known)
            return error_set(err, e->rc, "nothing is removed while %.60s can not be read: %.140s",
                             e->is.file, e->err.message);
        int on = backup_known_parent(p->list, p->n, i);
        p->items[i].time_ns = e->about.created_ns ? e->about.created_ns : e->is.changed_ns;
        p->items[i].parent = on < 0 ? RETENTION_NO_PARENT : (size_t)on;
    }
    return 0;
}

static int remove_one(const struct pruning *p, int dir_fd, const struct backup_known *e,
                      struct azoth_error *err)
{
    /* Durable before what it builds on goes: else the disk might have the other order. */
    if (unlinkat(dir_fd, e->is.file, 0) || fsync(dir_fd))
        return error_errno(err, errno, "%s/%s", p->dir, e->is.file);
    CRASH_POINT(prune_removed);
    return 0;
}

static int remove_all(struct pruning *p, int dry_run, struct azoth_error *err)
{
    int rc = 0, fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "%s", p->dir);
    for (int i = p->n - 1; i >= 0 && !rc; i--) {
        struct backup_known *e = &p->list[i];
        if (p->items[i].kept)
            continue;
        rc = dry_run ? 0 : remove_one(p, fd, e, err);
        if (!rc) {
            p->told->removed++;
            p->told->bytes += e->is.bytes;
        }
    }
    close(fd);
    return rc;
}

static void tell_one(const struct pruning *p, int i, struct json_text *t)
{
    const struct retention_item *it = &p->items[i];
    const char *why = it->needed ? "needed" : it->kept ? retention_period_name(it->why) : NULL;
    if (t) {
        out_open(t, NULL, '{');
        out_str(t, "file", p->list[i].is.file);
        out_bool(t, "kept", it->kept);
        out_str(t, "why", why);
        out_close(t, '}');
    } else {
        printf("%-44s %s%s\n", p->list[i].is.file, it->kept ? "kept: " : "removed", why ? why : "");
    }
}

int backup_prune_locked(const char *dir, const struct backup_keys *keys, const char *rule,
                        int dry_run, struct json_text *t, int quiet, struct backup_pruned *ret,
                        struct azoth_error *err)
{
    struct pruning p = {.dir = dir, .told = ret};
    struct retention_rule r;
    *ret = (struct backup_pruned){0};
    int rc = retention_parse(rule, &r, err);
    if (rc)
        return rc;
    p.n = backup_known_list(dir, keys, &p.list, err);
    if (p.n < 0)
        return p.n;
    rc = fill_items(&p, err);
    if (!rc)
        rc = retention_apply(&r, p.items, (size_t)p.n, err);
    if (!rc)
        rc = remove_all(&p, dry_run, err);
    for (int i = 0; i < p.n && !rc && !quiet; i++)
        tell_one(&p, i, t);
    free(p.items);
    backup_known_free(p.list, p.n);
    return rc;
}

/* ---- the command ---- */

static int prune(struct cmd_line *l, const struct backup_flags *f, const char *dir,
                 const char *rule, int dry_run, struct azoth_error *err)
{
    struct backup_place place = {.fd = -1};
    struct backup_keys keys;
    struct backup_pruned done;
    struct json_text t = {0};
    char bytes[CMD_TIME_TEXT];
    int rc = backup_keys_read(f, &keys, err);
    if (rc)
        return rc;
    rc = backup_place_lock(dir, &place, err);
    if (l->json) {
        out_open(&t, NULL, '{');
        out_bool(&t, "dry_run", dry_run);
        out_open(&t, "backups", '[');
    }
    if (!rc)
        rc = backup_prune_locked(dir, &keys, rule, dry_run, l->json ? &t : NULL, f->quiet, &done,
                                 err);
    backup_place_unlock(&place);
    backup_keys_fini(&keys);
    if (rc) {
        buf_fini(&t.b);
        return rc;
    }
    if (!l->json) {
        if (!f->quiet)
            printf("%llu %s, %s\n", (unsigned long long)done.removed,
                   dry_run ? "would be removed" : "removed", cmd_size(done.bytes, bytes));
        return 0;
    }
    out_close(&t, ']');
    out_u64(&t, "removed", done.removed);
    out_u64(&t, "bytes", done.bytes);
    out_close(&t, '}');
    return out_print(&t);
}

int backup_prune(struct cmd_line *l, const struct backup_flags *f, const char *dir,
                 const char *rule, int dry_run)
{
    struct azoth_error err = {0};
    if (!rule)
        return cmd_usage(l, "prune --keep what? For instance --keep \"7 daily, 4 weekly\"");
    if (!backup_place_is(dir))
        return cmd_fail_code(AZOTH_ERR_NOT_FOUND, "%s: it is no directory of backups", dir);
    int rc = prune(l, f, dir, rule, dry_run, &err);
    return rc < 0 ? cmd_fail(&err) : rc;
}
