/* backup_list.c - azoth backup list: what lies in a directory of backups. */
#include "client/cmd/backup.h"

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
        backup_about_absent_json(a, t);
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
    printf("%-44s %-11s %-24s %-20s %10s%s%s%s%s\n", e->is.file, backup_kind_word(e->is.kind),
           cmd_time(e->known && e->about.created_ns ? e->about.created_ns : e->is.changed_ns, time),
           events, cmd_size(e->is.bytes, size), upon, e->encrypted ? " encrypted" : "",
           e->known && e->about.without_archive ? " without its archive" : "",
           e->is.partial                           ? " not complete"
           : e->rc && e->rc != AZOTH_ERR_WRONG_KEY ? azoth_code_name(e->rc)
                                                   : "");
}

/* What the newest one that could have it has not, below the list: most are as the one before. */
static void list_absent(const struct backup_known *list, int n)
{
    int i = n - 1;
    while (i >= 0 && (!list[i].known || list[i].about.kind == BACKUP_INCREMENT))
        i--;
    for (size_t k = 0; i >= 0 && k < list[i].about.absences; k++)
        printf("not in %s: %s: %s\n", list[i].is.file, list[i].about.absent[k].name,
               list[i].about.absent[k].why);
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
        printf("%-44s %-11s %-24s %-20s %10s\n", "FILE", "KIND", "TIME", "EVENTS", "SIZE");
    for (int i = 0; i < n; i++)
        if (l->json)
            list_json(&t, &list[i], builds_on(list, n, i));
        else
            list_line(&list[i], builds_on(list, n, i));
    if (!l->json)
        list_absent(list, n);
    backup_known_free(list, n);
    if (!l->json)
        return 0;
    out_close(&t, ']');
    return out_print(&t);
}
