/* backup_forget.c - azoth backup forget: nothing is kept for a place of backups any more. */
#include "client/cmd/backup.h"

#include "client/internal.h"
#include "core/clock.h"
#include "core/mark.h"
#include "core/store.h"

/* Whether the database is known to have no mark for it: what can not be read might be one. */
static int is_unknown(const char *dir, const uint8_t place[MARK_PLACE])
{
    struct mark mark;
    struct store *s;
    struct snapshot *sn;
    if (store_open(dir, 0, &s, NULL))
        return 0;
    int none = 0;
    if (snapshot_begin(s, &sn, NULL) == 0) {
        none = snapshot_mark(sn, place, &mark, NULL) == 0;
        snapshot_end(sn);
    }
    store_close(s);
    return none;
}

int backup_forget(struct cmd_line *l, const char *dir, const char *uuid)
{
    struct azoth_error err = {0};
    struct txn_result done;
    struct azoth *db;
    char text[BACKUP_ID_TEXT], database[PATH_MAX];
    uint8_t place[MARK_PLACE];
    if (!dir == !uuid)
        return cmd_usage(l, "a directory, or --place UUID when it is gone");
    if (dir && backup_place_identity(dir, text, &err))
        return cmd_fail(&err);
    if (!cmd_unhex(uuid ? uuid : text, place, sizeof place))
        return cmd_usage(l, "a place's UUID has 32 hexadecimal digits: azoth status shows it");
    int rc = cmd_dir(l, NULL, 1, database, sizeof database);
    if (rc)
        return rc;
    if (uuid && is_unknown(database, place))
        return cmd_fail_code(AZOTH_ERR_NOT_FOUND,
                             "%s: the database knows no such place of backups; azoth status shows "
                             "those that it keeps something for",
                             uuid);
    rc = cmd_open(l, NULL, 0, &db);
    if (rc)
        return rc;
    rc = client_control(db, "unmark", bytes_of(place, sizeof place),
                        clock_mono_ns() + 30 * NS_PER_S, &done, &err);
    azoth_close(db);
    if (rc)
        return cmd_fail(&err);
    if (!l->json)
        printf("the database keeps nothing for backups of %s any more\n", dir ? dir : uuid);
    else
        puts("{\"ok\":true}");
    return 0;
}
