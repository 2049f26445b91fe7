/*
 * restore.c - azoth restore: a database from a backup.
 *
 * The base, then what comes after it, into a directory beside the target; everything checked; a new identity, also in
 * the files of projections; then the names. Nothing that looks like a database is there before (writer/restore.h).
 */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/crash.h"
#include "writer/restore.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int restore_choose(struct restore_job *j, struct azoth_error *err)
{
    struct stat st;
    if (snprintf(j->base, sizeof j->base, "%s", j->from) >= (int)sizeof j->base)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", j->from);
    if (strcmp(j->from, "-") == 0)
        return 0;
    if (stat(j->from, &st))
        return errno == ENOENT ? error_set(err, AZOTH_ERR_NOT_FOUND, "%s: it is not there", j->from)
                               : error_errno(err, errno, "%s", j->from);
    if (S_ISDIR(st.st_mode) && backup_place_reads(j->from))
        return restore_plan(j, err);
    return j->target_at.text
               ? error_set(err, AZOTH_ERR_USAGE,
                           "%s: an event or a time is found in a directory of backups", j->from)
               : 0;
}

/* The projections' files follow the restored database from now on. */
static int adopt_projections(struct restore_job *j, struct restore *r, struct azoth_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < j->about.projections && !rc && !j->no_projections; i++) {
        char path[PATH_MAX];
        if (!*j->about.projection[i].file)
            continue;
        snprintf(path, sizeof path, "%s/projections/%s", restore_dir(r),
                 j->about.projection[i].file);
        rc = filecopy_follow(path, j->uuid, err);
    }
    CRASH_POINT(restore_adopted);
    return rc;
}

static int finish(struct restore_job *j, struct restore *r, struct azoth_error *err)
{
    static struct config c;
    int rc = config_load(&c, restore_dir(r), err);
    if (rc) {
        restore_abort(r);
        return rc;
    }
    return restore_finish(r, j->uuid, c.number[CONFIG_writer_reserve], err);
}

static int restore_all(struct restore_job *j, struct azoth_error *err)
{
    struct restore *r;
    int rc = restore_choose(j, err);
    if (!rc)
        rc = restore_begin(j->target, &r, err);
    if (rc)
        return rc;
    rc = restore_load(j, r, err);
    if (!rc && j->steps)
        rc = restore_steps(j, r, err);
    CRASH_POINT(restore_loaded);
    if (!rc)
        rc = restore_verify(j, r, err);
    CRASH_POINT(restore_checked);
    if (!rc)
        rc = restore_identity(r, j->same_uuid, j->uuid, err);
    if (!rc)
        rc = adopt_projections(j, r, err);
    if (!rc)
        return finish(j, r, err);
    restore_abort(r);
    return rc;
}

/* ---- the command ---- */

static int tell_done(struct cmd_line *l, const struct restore_job *j, uint64_t begun_ns)
{
    const struct backup_about *a = &j->about;
    char uuid[BACKUP_ID_TEXT], time[CMD_TIME_TEXT], digest[2 * BACKUPFILE_DIGEST + 1];
    bytes_hex(uuid, j->uuid, sizeof j->uuid);
    bytes_hex(digest, j->digest, sizeof j->digest);
    if (l->json) {
        struct json_text t = {0};
        out_open(&t, NULL, '{');
        out_bool(&t, "ok", 1);
        out_str(&t, "dir", j->target);
        out_str(&t, "from", j->base);
        out_str(&t, "kind", backup_kind_name(a->kind));
        out_str(&t, "uuid", uuid);
        out_str(&t, "was", a->database);
        out_u64(&t, "transaction", j->head.txn);
        out_u64(&t, "event", j->head.event);
        out_u64(&t, "segments", a->segments);
        out_u64(&t, "increments", j->steps);
        out_u64(&t, "content_bytes", j->content);
        out_real(&t, "seconds", (double)(clock_mono_ns() - begun_ns) / 1e9);
        out_str(&t, "digest", digest);
        backup_about_absent_json(a, &t);
        out_close(&t, '}');
        return out_print(&t);
    }
    char more[48] = "";
    if (j->steps)
        snprintf(more, sizeof more, " and %zu incremental backup%s", j->steps,
                 j->steps == 1 ? "" : "s");
    printf("restored %s from %s%s: events 1 to %llu, transactions 1 to %llu, all checked, in %s\n",
           j->target, j->base, more, (unsigned long long)j->head.event,
           (unsigned long long)j->head.txn, cmd_duration(clock_mono_ns() - begun_ns, time));
    if (j->target_at.to.by_event && j->head.event > j->target_at.to.event)
        printf("  event %llu is inside transaction %llu, which is there whole\n",
               (unsigned long long)j->target_at.to.event, (unsigned long long)j->head.txn);
    printf("  identity   %s%s\n", uuid, j->same_uuid ? ", as before" : " (a new one)");
    if (a->segments)
        printf("  archive    %zu segments, events 1 to %llu\n", a->segments,
               (unsigned long long)a->segment[a->segments - 1].last);
    for (size_t i = 0; i < a->projections; i++)
        if (*a->projection[i].file && !j->no_projections)
            printf("  projection %s at event %llu\n", a->projection[i].file,
                   (unsigned long long)a->projection[i].is.cursor);
    for (size_t i = 0; i < a->absences; i++)
        printf("  not in it  %s: %s\n", a->absent[i].name, a->absent[i].why);
    return 0;
}

static int run_restore(struct cmd_line *l)
{
    static struct restore_job j;
    static struct backup_keys keys;
    struct backup_flags f = {0};
    struct azoth_error err = {0};
    uint64_t begun_ns = clock_mono_ns();
    struct cmd_number event = {0};
    const char *time = NULL;
    const struct cmd_flag flags[] = {BACKUP_KEY_FLAGS(&f),
                                     {"--same-uuid", FLAG_SWITCH, &j.same_uuid},
                                     {"--without-projections", FLAG_SWITCH, &j.no_projections},
                                     {"--archive", FLAG_TEXT, &f.archive},
                                     {"--signed-by", FLAG_TEXT, &f.signed_by},
                                     {"--to-event", FLAG_NUMBER, &event},
                                     {"--to-time", FLAG_TEXT, &time},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 2, 2);
    if (rc)
        return rc;
    if (event.given && time)
        return cmd_usage(l, "--to-event or --to-time, not both");
    if (time && !restore_time(time, &j.target_at.to.time_ns))
        return cmd_usage(l,
                         "%s: a time is 2026-11-27T15:00:00Z, \"2026-11-27 15:00\" (local), or "
                         "@SECONDS",
                         time);
    j.target_at.to.by_event = event.given;
    j.target_at.to.event = event.n;
    j.target_at.to.by_time = time != NULL;
    j.target_at.text = time ? time : event.given ? "--to-event" : NULL;
    j.from = l->word[0];
    j.target = l->word[1];
    j.archive = f.archive;
    j.keys = &keys;
    backup_catch_signals();
    rc = backup_keys_read(&f, &keys, &err);
    progress_begin(&j.progress, "restore", f.quiet, 0);
    if (!rc)
        rc = restore_all(&j, &err);
    progress_end(&j.progress);
    backup_keys_fini(&keys);
    if (rc && cmd_interrupted())
        rc = 128 + cmd_interrupted();
    else
        rc = rc ? cmd_fail(&err) : tell_done(l, &j, begun_ns);
    backup_about_fini(&j.about);
    restore_plan_fini(&j);
    return rc;
}

const struct cmd cmd_restore = {
    .name = "restore",
    .synopsis = "FILE|DEST|- DIR [--to-event N | --to-time T] [--same-uuid] "
                "[--without-projections] [--archive DIR] [--key-file F | "
                "--passphrase-file F] [--json]",
    .summary = "Make a database of a backup",
    .help =
        "  FILE|DEST|-        a backup, a directory of backups (the newest state that it has), "
        "standard input\n"
        "  DIR                is made, or is empty\n"
        "  --to-event N       DEST as it was before the transaction that logged what comes after "
        "event N\n"
        "  --to-time T        DEST as it was at T: 2026-11-27T15:00:00Z, \"2026-11-27 15:00\" "
        "(local),\n"
        "                     @SECONDS\n"
        "  --same-uuid        it is the database that was backed up, which is not there any more; "
        "else it\n"
        "                     is another one with the same content\n"
        "  --without-projections  only their definitions: they are made anew from the log\n"
        "  --archive DIR      of a backup without its archive: where the segments are\n"
        "  --key-file F, --passphrase-file F  what it was encrypted with\n"
        "  --signed-by F.pub  refuse it unless it was signed with that key\n"
        "  --quiet            no progress\n\n"
        "Everything is checked before it is said to be done. What fails leaves nothing that looks "
        "like a\n"
        "database.\n\n"
        "  azoth restore /var/backups/azoth/main /var/lib/azoth/main\n"
        "  azoth restore --to-time '2026-11-27 15:00' /var/backups/azoth/main ./before\n"
        "  ssh host 'cat main.azb' | azoth restore --key-file backup.key - ./copy\n",
    .run = run_restore,
};
