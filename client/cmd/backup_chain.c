/*
 * backup_chain.c - what builds on what in a directory of backups.
 *
 * Increments follow each other without a gap: each begins where the one before it ended, also over full backups that
 * were made between. So a full backup is a base for every increment that was made after it and ends behind it; what of
 * it the full one has already is passed over (writer/advance.h).
 */
#include "client/cmd/backup.h"

#include <string.h>

int backup_open(const char *path, const struct backup_keys *keys, struct backupfile_in **ret,
                struct azoth_error *err)
{
    struct backupfile_in *in;
    int rc = backupfile_open(path, backup_key_of(keys), &in, err);
    if (rc)
        return rc;
    if (keys->has_key && !backupfile_encrypted(in)) {
        backupfile_close(in);
        return error_set(
            err, AZOTH_ERR_WRONG_KEY,
            "%s: it is not encrypted, so anybody may have made it: without a key it is "
            "read all the same",
            path);
    }
    *ret = in;
    return 0;
}

void backup_look(const char *dir, const struct backup_keys *keys, struct backup_known *e)
{
    char path[PATH_MAX + NAME_MAX + 2];
    struct backupfile_in *in;
    snprintf(path, sizeof path, "%s/%s", dir, e->is.file);
    if (e->is.partial)
        return;
    e->rc = backupfile_open(path, backup_key_of(keys), &in, &e->err);
    if (e->rc) {
        e->encrypted = e->rc == AZOTH_ERR_WRONG_KEY;
        return;
    }
    e->encrypted = backupfile_encrypted(in);
    e->rc = backup_about_parse(backupfile_about(in), &e->about, &e->err);
    e->known = !e->rc;
    if (e->known && e->about.kind != e->is.kind) {
        e->known = 0;
        e->rc = error_set(&e->err, AZOTH_ERR_CORRUPT, "it is of another kind than its name says");
    }
    backupfile_close(in);
}

int backup_known_list(const char *dir, const struct backup_keys *keys, struct backup_known **ret,
                      struct azoth_error *err)
{
    struct backup_entry *list;
    int n = backup_place_list(dir, &list, err), k = 0;
    *ret = NULL;
    if (n < 0)
        return n;
    struct backup_known *known = calloc((size_t)n + 1, sizeof *known);
    for (int i = 0; known && i < n; i++) {
        known[k].is = list[i];
        backup_look(dir, keys, &known[k++]);
    }
    free(list);
    *ret = known;
    return known ? k : error_set(err, AZOTH_ERR_NOMEM, "a list of backups");
}

void backup_known_free(struct backup_known *list, int n)
{
    for (int i = 0; i < n; i++)
        backup_about_fini(&list[i].about);
    free(list);
}

int backup_known_parent(const struct backup_known *list, int n, int i)
{
    const struct backup_about *a = &list[i].about;
    int before = -1;
    if (!list[i].known || a->kind != BACKUP_INCREMENT)
        return -1;
    for (int k = n - 1; k >= 0; k--) {
        const struct backup_about *b = &list[k].about;
        if (k == i || !list[k].known || list[k].is.number >= list[i].is.number ||
            strcmp(a->database, b->database) != 0)
            continue;
        if (b->kind == BACKUP_FULL && b->to.txn >= a->from.txn && b->to.txn <= a->to.txn)
            return k;
        if (b->kind == BACKUP_INCREMENT && before < 0 && strcmp(a->parent, b->id) == 0)
            before = k;
    }
    return before;
}
