/*
 * backup_full.c - a hot full backup: the projections' files, then the store as one commit left it.
 *
 * The order makes it whole: each projection's cursor is at most the head of the commit that is copied after it, and what
 * it lacks it gets from the log of the copy. Writes go on meanwhile. They are paused for a moment only when commits
 * came so fast that a copy of none of them could be begun (writer/copy.h).
 *
 * Segments come behind the store, when its snapshot is over: they never change, so the list that the snapshot has is enough,
 * whatever is archived or moved meanwhile.
 */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/crash.h"
#include "shm/participant.h"
#include "writer/copy.h"

#include <string.h>

#define PAUSE_MS 10000u

/* With writes paused, which end when this is over, or this process is. */
static int begin_paused(struct backup_job *j, struct copy **ret, struct azoth_error *err)
{
    const struct azoth_options opt = {.name = "azoth backup"};
    struct azoth *db;
    int rc = azoth_open(j->dir, &opt, &db, err);
    if (rc)
        return rc;
    rc = azoth_pause(db, PAUSE_MS, err);
    if (!rc) {
        j->paused = 1;
        rc = copy_begin(j->store, ret, err);
        azoth_resume(db, NULL);
    }
    azoth_close(db);
    return rc;
}

static int begin_copy(struct backup_job *j, struct copy **ret, struct azoth_error *err)
{
    int rc = copy_begin(j->store, ret, err);
    return rc == AZOTH_ERR_BUSY && writer_place_held(j->dir) ? begin_paused(j, ret, err) : rc;
}

static int set_head(struct backup_job *j, const struct copy *c, struct azoth_error *err)
{
    struct store_head head;
    struct store_usage usage;
    int rc = snapshot_head_chained(copy_snapshot(c), &head, err);
    if (!rc)
        rc = store_usage(j->store, &usage, err);
    if (rc)
        return rc;
    j->about.to = (struct backup_point){head.txn, head.event, head.time_ns};
    j->about.chain = head.chain;
    rc = snapshot_chain_start(copy_snapshot(c), &j->about.chain_start, err);
    if (rc < 0)
        return rc;
    j->expected = usage.file_bytes;
    rc = backup_list_archive(j, copy_snapshot(c), err);
    if (rc)
        return rc;
    for (size_t i = 0; i < j->about.projections; i++) {
        const struct backup_projection *p = &j->about.projection[i];
        j->expected += p->bytes;
        if (p->is.cursor > head.event)
            return error_set(err, AZOTH_ERR_DIVERGED,
                             "%s: its cursor %llu is beyond the log's head %llu: it is of another "
                             "log than this; rebuild it",
                             p->file, (unsigned long long)p->is.cursor,
                             (unsigned long long)head.event);
    }
    return 0;
}

static int add_store(struct backup_job *j, struct copy *c, struct azoth_error *err)
{
    unsigned char *part = malloc(BACKUPFILE_PART);
    size_t len = BACKUPFILE_PART;
    int rc = part ? 0 : error_set(err, AZOTH_ERR_NOMEM, "a part of the copy");
    for (unsigned n = 1; !rc && len == BACKUPFILE_PART; n++) {
        char name[40];
        snprintf(name, sizeof name, "data.mdb/%08u", n);
        rc = backup_interrupted() ? 1 : copy_read(c, part, BACKUPFILE_PART, &len, err);
        if (!rc && len)
            rc = backupfile_add(j->out, name, bytes_of(part, len), err);
        backup_say(j);
    }
    free(part);
    return rc;
}

int backup_full(struct backup_job *j, struct azoth_error *err)
{
    struct copy *c = NULL;
    int rc = backup_copy_projections(j, 0, err);
    CRASH_POINT(backup_projections_copied);
    if (!rc)
        rc = begin_copy(j, &c, err);
    if (!rc)
        rc = set_head(j, c, err);
    if (!rc)
        rc = backup_begin_output(j, err);
    CRASH_POINT(backup_began);
    if (!rc)
        rc = add_store(j, c, err);
    if (c)
        j->growth = copy_growth(c);
    copy_end(c);
    CRASH_POINT(backup_stored);
    if (!rc)
        rc = backup_add_archive(j, err);
    CRASH_POINT(backup_archived);
    if (!rc)
        rc = backup_add_projections(j, err);
    if (!rc)
        rc = backup_add_definitions(j, err);
    if (!rc)
        rc = backup_add_file(j, "azoth.conf", err);
    CRASH_POINT(backup_written);
    return rc ? rc : backup_end_output(j, err);
}
