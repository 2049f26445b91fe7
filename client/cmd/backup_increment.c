/*
 * backup_increment.c - an increment, and the mark in the database that it builds on.
 *
 * The mark says up to which transaction the place has everything; the database keeps redo records from there on. It is
 * moved when the file is durable, so a death between leaves it where it was, and the next increment finds by the
 * files what is there already. It is set before the snapshot of a full backup that is to be the first.
 *
 *   what comes next builds on     the newest increment, or else the oldest full backup, that ends at the mark or behind it
 *   there is none                 a full one, and the mark is set anew
 *   the events do not lead from   another history: likewise
 *   there to the head
 */
#include "client/cmd/backup.h"

#include "client/internal.h"
#include "core/clock.h"
#include "core/crash.h"
#include "core/mark.h"
#include "writer/control.h"
#include "writer/increment.h"

#include <stdarg.h>
#include <string.h>

#define CONTROL_NS (30 * NS_PER_S)

/* ---- the mark ---- */

/* 1 and *ret, 0 when the place has none, or an error. */
static int read_mark(const struct backup_job *j, struct mark *ret, struct azoth_error *err)
{
    struct snapshot *sn;
    uint8_t place[MARK_PLACE];
    if (!cmd_unhex(j->place.uuid, place, sizeof place))
        return 0; /* it was checked */
    int rc = snapshot_begin(j->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_mark(sn, place, ret, err);
    snapshot_end(sn);
    return rc;
}

int backup_control(const struct backup_job *j, const char *operation, const void *argument,
                   size_t len, struct azoth_error *err)
{
    const struct azoth_options opt = {.name = "azoth backup"};
    struct txn_result done;
    struct azoth *db;
    int rc = azoth_open(j->dir, &opt, &db, err);
    if (rc)
        return rc;
    rc = client_control(db, operation, bytes_of(argument, len), clock_mono_ns() + CONTROL_NS, &done,
                        err);
    azoth_close(db);
    return rc;
}

static int set_mark(struct backup_job *j, struct azoth_error *err)
{
    uint8_t place[MARK_PLACE];
    (void)cmd_unhex(j->place.uuid, place, sizeof place);
    return backup_control(j, "mark", place, sizeof place, err);
}

/* Also to where it is, when that confirms it. What fails here costs no backup: the redo records are kept a while longer. */
static void move_mark(struct backup_job *j, const struct backup_point *to)
{
    unsigned char argument[CONTROL_MARK_MOVE];
    struct azoth_error err = {0};
    struct mark m = {0};
    /* To where it stands, too, when that confirms it: the place has something from then on. */
    if (read_mark(j, &m, &err) != 1 || m.broken || m.txn > to->txn ||
        (m.txn == to->txn && m.confirmed))
        return;
    (void)cmd_unhex(j->place.uuid, argument, MARK_PLACE);
    put_u64(argument + MARK_PLACE, to->txn);
    put_u64(argument + MARK_PLACE + 8, to->event);
    put_u64(argument + MARK_PLACE + 16, (uint64_t)to->time_ns);
    CRASH_POINT(increment_durable);
    if (backup_control(j, "mark", argument, sizeof argument, &err))
        snprintf(j->mark_note, sizeof j->mark_note, "the mark stays at transaction %llu: %.150s",
                 (unsigned long long)m.txn, err.message);
    CRASH_POINT(increment_mark_moved);
}

/* ---- what it builds on ---- */

static int why(struct backup_job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* 0: there is no parent, for this reason. */
static int why(struct backup_job *j, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(j->why_full, sizeof j->why_full, fmt, ap);
    va_end(ap);
    return 0;
}

/* 1: e is the one. Those that are wanted no more, as what is older can not be better: *done. */
static int suits(const struct backup_job *j, const struct backup_known *e, const struct mark *m,
                 int *done)
{
    const struct backup_about *a = &e->about;
    if (!e->known || a->kind == BACKUP_SEALED || strcmp(a->database, j->about.database) != 0)
        return 0;
    *done = a->to.txn < m->txn || a->kind == BACKUP_INCREMENT;
    return a->to.txn >= m->txn;
}

/* What ends behind one that was made after it, or there with another chain, is of a history that was given up, or of the
 * time before there was a chain. */
static int is_given_up(const struct backup_about *a, const struct backup_about *later)
{
    return a->to.txn > later->to.txn ||
           (a->to.txn == later->to.txn &&
            (a->chain.on != later->chain.on ||
             memcmp(a->chain.value, later->chain.value, CHAIN_BYTES) != 0));
}

/* From the newest file on, and seldom further than to the second one. 1 and *ret, 0, or an error. */
static int search(struct backup_job *j, const struct mark *m, struct backup_about *ret,
                  struct azoth_error *err)
{
    struct backup_entry *list;
    int n = backup_place_list(j->place.dir, &list, err), found = 0, done = 0;
    if (n < 0)
        return n;
    for (int i = n - 1; i >= 0 && !done; i--) {
        struct backup_known e = {.is = list[i]};
        if (list[i].partial)
            continue;
        backup_look(j->place.dir, &j->keys, &e);
        if (e.known && j->keys.has_key && !e.encrypted) {
            e.known = 0;
            e.rc = error_set(&e.err, AZOTH_ERR_WRONG_KEY, "it is not encrypted");
        }
        if (e.rc && !*j->why_full)
            why(j, "%s: %s", e.is.file, e.err.message);
        int suited = suits(j, &e, m, &done);
        if (suited && found && is_given_up(&e.about, ret)) {
            done = 1;
        } else if (suited) {
            found = 1;
            *ret = e.about;
        }
        backup_about_fini(&e.about); /* the lists in it, of which nothing is wanted */
    }
    free(list);
    return found;
}

/* A command has had its backups: which was the last one is noted. */
static int find_had(struct backup_job *j, const struct mark *m, struct backup_about *ret,
                    struct azoth_error *err)
{
    int done, rc = backup_exec_had(j, ret, err);
    struct backup_known e = {.known = 1};
    if (rc <= 0)
        return rc;
    e.about = *ret;
    return suits(j, &e, m, &done);
}

static int find_parent(struct backup_job *j, const struct mark *m, int marked,
                       struct backup_about *ret, struct azoth_error *err)
{
    struct azoth_error unread = {0};
    struct snapshot *sn;
    struct store_head head = {0};
    j->why_full[0] = 0;
    if (!marked)
        return why(j, "the database does not know this directory of backups yet");
    if (m->broken)
        return why(j,
                   "the redo records after transaction %llu were given up, since there was more of "
                   "them than writer.redo_keep allows",
                   (unsigned long long)m->txn);
    int rc = j->exec ? find_had(j, m, ret, err) : search(j, m, ret, err);
    if (rc < 0 || (rc == 0 && *j->why_full))
        return rc;
    if (rc == 0)
        return why(j, "no backup in it ends at transaction %llu, where its mark is",
                   (unsigned long long)m->txn);
    ret->projection = NULL;
    ret->absent = NULL;
    ret->segment = NULL;
    ret->projections = ret->absences = ret->segments = 0;
    rc = snapshot_begin(j->store, &sn, &unread);
    if (!rc) {
        rc = snapshot_head(sn, &head, &unread);
        snapshot_end(sn);
    }
    if (rc) {
        *err = unread;
        return rc;
    }
    if (head.txn < ret->to.txn || head.event < ret->to.event)
        return why(j,
                   "the newest backup in it is at transaction %llu, beyond the head: it is of "
                   "another history",
                   (unsigned long long)ret->to.txn);
    j->why_full[0] = 0;
    return 1;
}

/* ---- the file ---- */

struct writing {
    struct backup_job *j;
    unsigned parts;
};

static int on_part(void *arg, struct azoth_bytes part, struct azoth_error *err)
{
    struct writing *w = arg;
    char name[40];
    snprintf(name, sizeof name, "changes/%08u", ++w->parts);
    if (backup_interrupted())
        return 1;
    int rc = backupfile_add(w->j->out, name, part, err);
    CRASH_POINT(increment_part);
    backup_say(w->j);
    return rc;
}

static int set_range(struct backup_job *j, const struct backup_about *parent,
                     const struct store_head *head, struct azoth_error *err)
{
    struct backup_about *a = &j->about;
    snprintf(a->parent, sizeof a->parent, "%s", parent->id);
    a->from = parent->to;
    a->chain_from = parent->chain;
    a->to = (struct backup_point){head->txn, head->event, head->time_ns};
    a->chain = head->chain;
    a->running_ms = head->running_ms;
    a->id_first = head->id_first;
    struct snapshot *sn;
    int rc = snapshot_begin(j->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_chain_start(sn, &a->chain_start, err);
    snapshot_end(sn);
    return rc < 0 ? rc : 0;
}

static int read_head(struct backup_job *j, struct store_head *ret, struct azoth_error *err)
{
    struct snapshot *sn;
    int rc = snapshot_begin(j->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head_chained(sn, ret, err);
    snapshot_end(sn);
    return rc;
}

/* It is read over, on the way to where the increment ends. */
static int on_counted(void *arg, struct azoth_bytes part, struct azoth_error *err)
{
    (void)part;
    (void)err;
    backup_say(arg);
    return backup_interrupted() ? 1 : 0;
}

/* *head becomes where this increment ends: j->cut when that is before. */
static int cut_short(struct backup_job *j, const struct backup_about *parent,
                     struct store_head *head, struct azoth_error *err)
{
    const struct increment_at at = {parent->to.txn, parent->to.event, parent->chain};
    struct store_head end;
    int checked = *j->sure && strcmp(j->sure, parent->id) == 0;
    int rc = increment_cut(j->store, &at, head, j->most, checked, on_counted, j, &end, err);
    if (rc)
        return rc;
    j->cut = end.txn < head->txn;
    *head = end;
    return 0;
}

/* What is new since parent; j->nothing_new when nothing is. */
static int write_increment(struct backup_job *j, const struct backup_about *parent,
                           struct azoth_error *err)
{
    struct writing w = {.j = j};
    struct store_head head;
    int rc = backup_set_about(j, BACKUP_INCREMENT, err);
    if (!rc)
        rc = read_head(j, &head, err);
    if (rc)
        return rc;
    j->nothing_new = head.txn == parent->to.txn;
    if (!j->nothing_new && j->most)
        rc = cut_short(j, parent, &head, err);
    if (!rc)
        rc = set_range(j, parent, &head, err);
    if (rc || j->nothing_new)
        return rc;
    rc = backup_begin_output(j, err);
    CRASH_POINT(increment_began);
    struct increment_at at = {parent->to.txn, parent->to.event, parent->chain};
    if (!rc)
        rc = increment_export(j->store, &at, &head, on_part, &w, err);
    CRASH_POINT(increment_written);
    if (!rc) {
        rc = backup_end_output(j, err);
        if (!rc)
            snprintf(j->sure, sizeof j->sure, "%s", j->about.id);
        return rc;
    }
    rc = backup_exec_abort(j, rc, err);
    backupfile_abort(j->out);
    j->out = NULL;
    j->path[0] = 0;
    return rc;
}

/* ---- a full one ---- */

/* An increment that was tried before has left where it would have begun. */
static void begin_at_first(struct backup_about *a)
{
    a->parent[0] = 0;
    a->from = (struct backup_point){0};
    a->chain_from = (struct chain){0};
    a->running_ms = a->id_first = 0;
}

static int full_marked(struct backup_job *j, int anew, struct azoth_error *err)
{
    struct azoth_error unset = {0};
    begin_at_first(&j->about);
    if (anew && set_mark(j, &unset))
        snprintf(j->mark_note, sizeof j->mark_note,
                 "no incremental backup can follow: the mark was not set: %.140s", unset.message);
    CRASH_POINT(increment_mark_set);
    int rc = backup_set_about(j, BACKUP_FULL, err);
    return rc ? rc : backup_full(j, err);
}

/* The increment that leads on to the full one that was made, beside it. */
static int lead_on(struct backup_job *full, const struct backup_about *parent,
                   struct azoth_error *err)
{
    struct backup_job *j = malloc(sizeof *j);
    if (!j)
        return error_set(err, AZOTH_ERR_NOMEM, "an incremental backup");
    *j = *full;
    j->about = (struct backup_about){0};
    snprintf(j->about.database, sizeof j->about.database, "%s", full->about.database);
    j->path[0] = 0;
    j->expected = 0;
    int rc = write_increment(j, parent, err);
    if (!rc) {
        snprintf(full->increment, sizeof full->increment, "%s", j->path);
        move_mark(full, &j->about.to);
    }
    backup_about_fini(&j->about);
    free(j);
    return rc;
}

int backup_full_placed(struct backup_job *j, struct azoth_error *err)
{
    struct backup_about parent = {0};
    struct mark m = {0};
    int marked = read_mark(j, &m, err);
    int has_parent = marked == 1 ? find_parent(j, &m, marked, &parent, err) : 0;
    j->why_full[0] = 0; /* it was asked for */
    if (marked < 0 || has_parent < 0)
        return marked < 0 ? marked : has_parent;
    int rc = full_marked(j, marked && !has_parent, err);
    if (rc)
        return rc;
    if (has_parent) {
        rc = lead_on(j, &parent, err);
        /* The full one is there: what can not lead on to it is no failure of it. */
        if (rc < 0)
            snprintf(j->mark_note, sizeof j->mark_note,
                     "no incremental backup leads on to it: %.150s", err->message);
        if (rc == AZOTH_ERR_DIVERGED || rc == AZOTH_ERR_BACKUP_MISSING)
            move_mark(j, &j->about.to);
        return rc == 1 ? 1 : 0;
    }
    move_mark(j, &j->about.to);
    return 0;
}

/* ---- an increment ---- */

int backup_increment(struct backup_job *j, struct azoth_error *err)
{
    struct backup_about parent = {0};
    struct mark m = {0};
    int rc = read_mark(j, &m, err);
    if (rc < 0)
        return rc;
    int found = find_parent(j, &m, rc, &parent, err);
    if (found < 0)
        return found;
    if (found) {
        rc = write_increment(j, &parent, err);
        if (!rc) {
            move_mark(j, &j->about.to);
            return 0;
        }
        if (rc != AZOTH_ERR_DIVERGED && rc != AZOTH_ERR_BACKUP_MISSING)
            return rc;
        why(j, "%.190s", err->message);
        *err = (struct azoth_error){0};
    }
    rc = full_marked(j, 1, err);
    if (!rc)
        move_mark(j, &j->about.to);
    return rc;
}
