/*
 * backup_sealed.c - the content of a database that stands still, by its meaning: the same content is the same file.
 *
 * A database whose writer runs is paused for so long, and its projections are waited for. Nothing of the machine, of
 * the time or of the database's pages is in the file: state in the order of keys, events, request ids in the order of
 * their commits, definitions, and of projections their cursors and the digests of their rows.
 */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/crash.h"
#include "projector/split.h"
#include "shm/participant.h"
#include "writer/export.h"

#include <string.h>

#define PAUSE_MS 3600000u /* as long as a pause may be */
#define SLICE_MS 200u     /* of a wait, between two looks for a signal */

struct exporting {
    struct backup_job *j;
    const char *what;
    unsigned parts;
};

static int on_part(void *arg, struct azoth_bytes part, struct azoth_error *err)
{
    struct exporting *e = arg;
    char name[40];
    snprintf(name, sizeof name, "%s/%08u", e->what, ++e->parts);
    int rc = backup_interrupted() ? 1 : backupfile_add(e->j->out, name, part, err);
    backup_say(e->j);
    return rc;
}

/* The time of the newest event: the store's own also moves with commits that changed nothing. */
static int event_time(struct snapshot *sn, uint64_t id, int64_t *ret, struct azoth_error *err)
{
    struct event_stamp stamp = {0};
    if (id == 0)
        return 0;
    int rc = snapshot_event(sn, id, &stamp, err);
    if (rc == 1)
        *ret = stamp.time_ns;
    return rc == 1 ? 0 : rc ? rc : error_set(err, AZOTH_ERR_GAP, "the newest event is missing");
}

static int write_members(struct backup_job *j, struct snapshot *sn, struct azoth_error *err)
{
    uint64_t n;
    struct exporting state = {j, "state", 0}, events = {j, "events", 0}, ids = {j, "ids", 0};
    int rc = backup_begin_output(j, err);
    CRASH_POINT(backup_began);
    if (!rc)
        rc = export_state(sn, on_part, &state, &n, err);
    if (!rc)
        rc = export_events(j->store, 0, j->about.to.event, on_part, &events, err);
    if (!rc)
        rc = export_ids(sn, on_part, &ids, &n, err);
    CRASH_POINT(backup_stored);
    return rc ? rc : backup_add_definitions(j, err);
}

static int same_head(struct backup_job *j, const struct store_head *head, struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head now = {0};
    int rc = snapshot_begin(j->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &now, err);
    snapshot_end(sn);
    return rc || now.txn == head->txn
               ? rc
               : error_set(err, AZOTH_ERR_BUSY,
                           "the database was written to meanwhile: the pause ended too early");
}

static int export_all(struct backup_job *j, struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head head;
    struct store_usage usage;
    int rc = backup_copy_projections(j, 1, err);
    CRASH_POINT(backup_projections_copied);
    if (!rc)
        rc = store_usage(j->store, &usage, err);
    if (!rc)
        rc = snapshot_begin(j->store, &sn, err);
    if (rc)
        return rc;
    j->expected = usage.file_bytes;
    rc = snapshot_head_chained(sn, &head, err);
    if (!rc) {
        j->about.to = (struct backup_point){.txn = head.txn, .event = head.event};
        j->about.chain = head.chain;
        rc = snapshot_chain_start(sn, &j->about.chain_start, err);
        if (rc >= 0)
            rc = event_time(sn, head.event, &j->about.to.time_ns, err);
    }
    if (!rc)
        rc = write_members(j, sn, err);
    snapshot_end(sn);
    if (!rc)
        rc = same_head(j, &head, err);
    CRASH_POINT(backup_written);
    return rc ? rc : backup_end_output(j, err);
}

/* 0, 1 when a signal came: nobody is to wait for writes because we wait on, or an error. */
static int wait_for_one(struct azoth *db, const char *name, uint64_t event, uint64_t until,
                        struct azoth_error *err)
{
    for (;;) {
        uint64_t now = clock_mono_ns(), left = until > now ? (until - now) / NS_PER_MS : 0;
        int rc =
            azoth_wait_projected(db, name, event, left < SLICE_MS ? (uint32_t)left : SLICE_MS, err);
        if (rc != AZOTH_ERR_TIMEOUT || left <= SLICE_MS)
            return rc;
        if (cmd_interrupted())
            return 1;
    }
}

/* Projections that have a file, until they have all events. */
static int wait_for_projections(struct backup_job *j, struct azoth *db, struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head head = {0};
    struct dirent **list;
    uint64_t until = clock_mono_ns() + j->timeout.n * NS_PER_MS;
    int rc = snapshot_begin(j->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head_chained(sn, &head, err);
    snapshot_end(sn);
    int n = rc ? 0 : cmd_definitions(j->dir, &list, err);
    if (rc || n < 0)
        return rc ? rc : n;
    for (int i = 0; i < n && !rc; i++) {
        uint32_t shards;
        if (split_serving(j->projections, list[i]->d_name, &shards, NULL))
            continue; /* it has no file: named as absent */
        rc = wait_for_one(db, list[i]->d_name, head.event, until, err);
        if (rc == AZOTH_ERR_TIMEOUT || rc == AZOTH_ERR_NOT_FOUND)
            rc = error_set(err, AZOTH_ERR_TIMEOUT,
                           "projection %s has not come to event %llu in time: with it the backup "
                           "would depend on when it was made; --without-projections leaves it out",
                           list[i]->d_name, (unsigned long long)head.event);
    }
    cmd_definitions_free(list, n);
    return rc;
}

int backup_sealed(struct backup_job *j, struct azoth_error *err)
{
    const struct azoth_options opt = {.name = "azoth backup"};
    struct azoth *db = NULL;
    if (!writer_place_held(j->dir))
        return export_all(j, err);
    int rc = azoth_open(j->dir, &opt, &db, err);
    if (rc)
        return rc;
    rc = azoth_pause(db, PAUSE_MS, err);
    if (!rc && !j->no_projections)
        rc = wait_for_projections(j, db, err);
    if (!rc)
        rc = export_all(j, err);
    azoth_resume(db, NULL);
    azoth_close(db);
    return rc;
}
