/*
 * restore_chain.c - which backups of a directory lead to an event or a time, or are to be verified together, and the
 * increments among them.
 *
 * Base: the newest full backup of the newest backup's database that is not behind the target. From there increment by
 * increment, each one beginning where the store stands, until one ends behind the target. Nothing is believed of about.json
 * that the increments themselves do not bear out when they are applied.
 */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/crash.h"
#include "writer/restore.h"

#include <string.h>

/* A commit that had its time before a backup was begun may become visible so much later. */
#define IN_FLIGHT_NS (10 * (int64_t)NS_PER_S)

#define PART_MAX (4ull << 30) /* bytes of a part: a transaction is in memory as a whole */

struct plan {
    struct restore_job *j;
    const struct backup_known *known;
    int n;
    const char *database;
    int base, last; /* the newest of what was chosen */
    int until;      /* the full one at which a stretch ends; n: there is none */
};

static int is_one(const struct plan *p, int i, enum backup_kind kind)
{
    const struct backup_known *e = &p->known[i];
    return e->known && e->about.kind == kind && strcmp(e->about.database, p->database) == 0;
}

static int within(const struct advance_target *t, const struct backup_point *at)
{
    return (!t->by_event || at->event <= t->event) && (!t->by_time || at->time_ns <= t->time_ns);
}

/* What is behind `at` is behind the target, too. */
static int passes(const struct advance_target *t, const struct backup_point *at)
{
    return (t->by_event && at->event > t->event) || (t->by_time && at->time_ns > t->time_ns);
}

static int unreadable(const struct backup_known *e, struct azoth_error *err)
{
    return error_set(err, e->rc, "%.60s: %.170s", e->is.file, e->err.message);
}

/* ---- the base ---- */

/* Of several databases the newest backup's is meant. */
static int choose_database(struct plan *p, struct azoth_error *err)
{
    for (int i = p->n - 1; i >= 0 && !p->database; i--)
        if (p->known[i].known && p->known[i].about.kind != BACKUP_SEALED)
            p->database = p->known[i].about.database;
    if (p->database)
        return 0;
    p->database = "";
    for (int i = p->n - 1; i >= 0; i--)
        if (p->known[i].rc)
            return unreadable(&p->known[i], err);
    return 0;
}

static int too_early(const struct plan *p, int oldest, struct azoth_error *err)
{
    char time[CMD_TIME_TEXT];
    const struct backup_point *at = &p->known[oldest].about.to;
    return error_set(err, AZOTH_ERR_NOT_FOUND,
                     "that is before the oldest full backup, %s: from event %llu on, of %s",
                     p->known[oldest].is.file, (unsigned long long)at->event,
                     cmd_time(at->time_ns, time));
}

/* A sealed one is of one moment, and nothing leads on from it. */
static int choose_sealed(struct plan *p, struct azoth_error *err)
{
    for (int i = p->n - 1; i >= 0 && p->base < 0; i--)
        if (p->known[i].known && p->known[i].about.kind == BACKUP_SEALED)
            p->base = i;
    for (int i = p->n - 1; i >= 0 && p->base < 0; i--)
        if (p->known[i].rc)
            return unreadable(&p->known[i], err);
    if (p->base < 0 || p->j->target_at.text)
        return error_set(err, AZOTH_ERR_BACKUP_MISSING, "%s: there is no full backup in it",
                         p->j->from);
    return 0;
}

static int choose_base(struct plan *p, struct azoth_error *err)
{
    int oldest = -1;
    p->base = -1;
    for (int i = p->n - 1; i >= 0 && p->base < 0; i--) {
        if (!is_one(p, i, BACKUP_FULL))
            continue;
        oldest = i;
        if (within(&p->j->target_at.to, &p->known[i].about.to))
            p->base = i;
    }
    if (p->base < 0)
        return oldest < 0 ? choose_sealed(p, err) : too_early(p, oldest, err);
    return 0;
}

/* ---- the increments ---- */

/* How well i goes on from where the store stands: 3 its parent is the last one, 2 it begins there, 1 it begins
 * before the base's end and ends behind it; 0 it does not. Of what was made after the full one that ends a stretch only
 * what leads on to that belongs to it. */
static int fits(const struct plan *p, int i)
{
    const struct backup_about *a = &p->known[i].about, *last = &p->known[p->last].about;
    if (!is_one(p, i, BACKUP_INCREMENT) || p->known[i].is.number <= p->known[p->last].is.number ||
        a->to.txn <= last->to.txn || a->from.txn > last->to.txn)
        return 0;
    if (strcmp(a->parent, last->id) == 0)
        return i < p->until || last->to.txn < p->known[p->until].about.to.txn ? 3 : 0;
    if (i > p->until)
        return 0;
    return a->from.txn == last->to.txn ? 2 : p->last == p->base;
}

static int next_one(const struct plan *p)
{
    int best = 0, at = -1;
    for (int i = p->base + 1; i < p->n; i++) {
        int fit = fits(p, i);
        if (fit && fit >= best) {
            best = fit;
            at = i;
        }
    }
    return at;
}

static int add_step(struct plan *p, int i, struct azoth_error *err)
{
    struct restore_job *j = p->j;
    struct backup_known *more = realloc(j->step, (j->steps + 1) * sizeof *more);
    if (!more)
        return error_set(err, AZOTH_ERR_NOMEM, "a list of incremental backups");
    j->step = more;
    more[j->steps] = p->known[i];
    /* An increment has none of these. */
    more[j->steps].about.projection = NULL;
    more[j->steps].about.absent = NULL;
    more[j->steps].about.segment = NULL;
    more[j->steps].about.projections = more[j->steps].about.absences = 0;
    more[j->steps].about.segments = 0;
    j->steps++;
    p->last = i;
    return 0;
}

/* Nothing goes on from here: is something missing, or is that the end? */
static int check_end(const struct plan *p, struct azoth_error *err)
{
    const struct backup_known *last = &p->known[p->last];
    const struct backup_known *gap = NULL;
    for (int i = p->n - 1; i > p->base; i--)
        if (is_one(p, i, BACKUP_INCREMENT) && p->known[i].about.from.txn > last->about.to.txn)
            gap = &p->known[i];
    for (int i = p->base + 1; i < p->n; i++)
        if (p->known[i].rc && p->known[i].is.number > last->is.number)
            return unreadable(&p->known[i], err);
    return gap ? error_set(err, AZOTH_ERR_BACKUP_MISSING,
                           "transactions %llu to %llu are missing: nothing leads from %s to %s",
                           (unsigned long long)last->about.to.txn + 1,
                           (unsigned long long)gap->about.from.txn, last->is.file, gap->is.file)
               : 0;
}

/* The target lies behind all that there is. */
static int too_late(const struct plan *p, struct azoth_error *err)
{
    const struct advance_target *t = &p->j->target_at.to;
    const struct backup_about *a = &p->known[p->last].about;
    char time[CMD_TIME_TEXT];
    int64_t quiet = a->created_ns - IN_FLIGHT_NS;
    if ((!t->by_event || a->to.event >= t->event) &&
        (!t->by_time || t->time_ns <= (quiet > a->to.time_ns ? quiet : a->to.time_ns)))
        return 0;
    return error_set(err, AZOTH_ERR_NOT_FOUND,
                     "no backup leads so far: the last one, %s, is at event %llu, of %s",
                     p->known[p->last].is.file, (unsigned long long)a->to.event,
                     cmd_time(a->to.time_ns, time));
}

static int choose_steps(struct plan *p, struct azoth_error *err)
{
    const struct advance_target *t = &p->j->target_at.to;
    int i, rc = 0;
    p->last = p->base;
    while (!rc && !passes(t, &p->known[p->last].about.to) && (i = next_one(p)) >= 0)
        rc = add_step(p, i, err);
    if (rc || passes(t, &p->known[p->last].about.to))
        return rc;
    rc = check_end(p, err);
    /* The event is there: at most transactions that logged nothing are missing of what is wanted. */
    if (rc && t->by_event && p->known[p->last].about.to.event == t->event)
        rc = 0;
    return rc ? rc : too_late(p, err);
}

static int set_base(const struct plan *p, struct azoth_error *err)
{
    struct restore_job *j = p->j;
    return snprintf(j->base, sizeof j->base, "%s/%s", j->from, p->known[p->base].is.file) >=
                   (int)sizeof j->base
               ? error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", j->from)
               : 0;
}

int restore_plan(struct restore_job *j, struct azoth_error *err)
{
    struct backup_known *known;
    struct plan p = {.j = j};
    int rc = p.n = p.until = backup_known_list(j->from, j->keys, &known, err);
    if (rc < 0)
        return rc;
    p.known = known;
    rc = choose_database(&p, err);
    if (!rc)
        rc = choose_base(&p, err);
    if (!rc && p.known[p.base].about.kind == BACKUP_FULL)
        rc = choose_steps(&p, err);
    if (!rc)
        rc = set_base(&p, err);
    backup_known_free(known, p.n);
    return rc;
}

/* ---- a stretch ---- */

int restore_plan_stretch(struct restore_job *j, const struct backup_known *list, int n, int base,
                         char *used, struct azoth_error *err)
{
    struct plan p = {.j = j,
                     .known = list,
                     .n = n,
                     .database = list[base].about.database,
                     .base = base,
                     .last = base,
                     .until = base + 1};
    int i, rc = set_base(&p, err);
    used[base] = 1;
    while (p.until < n && !is_one(&p, p.until, BACKUP_FULL))
        p.until++;
    while (!rc && list[base].about.kind == BACKUP_FULL && (i = next_one(&p)) >= 0) {
        rc = add_step(&p, i, err);
        used[i] = 1;
    }
    return rc;
}

static void reverse_steps(struct restore_job *j)
{
    for (size_t i = 0; i < j->steps / 2; i++) {
        struct backup_known swap = j->step[i];
        j->step[i] = j->step[j->steps - 1 - i];
        j->step[j->steps - 1 - i] = swap;
    }
}

int restore_plan_to(struct restore_job *j, const struct backup_known *list, int n, int i,
                    struct azoth_error *err)
{
    struct plan p = {.j = j, .known = list, .n = n};
    int rc = 0, on;
    /* From the last one back; numbers only get smaller. */
    for (; !rc && list[i].about.kind == BACKUP_INCREMENT; i = on) {
        on = backup_known_parent(list, n, i);
        rc = on < 0 ? error_set(err, AZOTH_ERR_BACKUP_MISSING,
                                "%.60s: what it builds on is not there: nothing leads to "
                                "transaction %llu, behind which it begins",
                                list[i].is.file, (unsigned long long)list[i].about.from.txn)
                    : add_step(&p, i, err);
    }
    reverse_steps(j);
    p.base = i;
    return rc ? rc : set_base(&p, err);
}

void restore_plan_fini(struct restore_job *j)
{
    free(j->step);
    j->step = NULL;
    j->steps = 0;
}

/* ---- applying ---- */

struct applying {
    struct restore_job *j;
    struct advance *to;
    struct backupfile_in *in;
    struct buf part;
    unsigned parts;
    int reached; /* the target: the rest is only checked */
};

static int read_part(struct applying *a, uint64_t bytes, struct azoth_error *err)
{
    size_t at = 0, len = 1;
    buf_clear(&a->part);
    unsigned char *p = bytes > PART_MAX ? NULL : buf_grow(&a->part, (size_t)bytes + 1);
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a part of %llu bytes", (unsigned long long)bytes);
    while (len) {
        int rc = cmd_interrupted()
                     ? 1
                     : backupfile_read(a->in, p + at, (size_t)bytes + 1 - at, &len, err);
        if (rc)
            return rc;
        at += len;
    }
    a->j->content += bytes;
    return 0;
}

static int apply_member(struct applying *a, const char *name, uint64_t bytes,
                        struct azoth_error *err)
{
    char want[40];
    snprintf(want, sizeof want, "changes/%08u", ++a->parts);
    if (strcmp(name, want) != 0)
        return error_set(err, AZOTH_ERR_FORMAT, "member %.80s comes where %s should", name, want);
    if (a->reached)
        return 0; /* read over, and checked against the manifest */
    int rc = read_part(a, bytes, err);
    if (!rc)
        rc = advance_part(a->to, bytes_of(a->part.ptr, (size_t)bytes), &a->j->target_at.to, err);
    a->reached |= rc == 1 && !cmd_interrupted();
    progress_say(&a->j->progress, advance_head(a->to)->txn,
                 a->j->step[a->j->steps - 1].about.to.txn, "transaction");
    return a->reached ? 0 : rc;
}

static int same_about(const struct backup_about *a, const struct backup_about *b)
{
    return a->kind == b->kind && strcmp(a->id, b->id) == 0;
}

static int apply_members(struct applying *a, struct azoth_error *err)
{
    const char *name;
    char last[BACKUPFILE_NAME_MAX + 1] = "";
    uint64_t bytes;
    int rc, applied = 0;
    a->parts = 0;
    while (!applied && (rc = backupfile_next(a->in, &name, &bytes, err)) == 1) {
        snprintf(last, sizeof last, "%s", name);
        applied = apply_member(a, name, bytes, err);
    }
    if (applied || rc)
        return backup_name_member(applied ? applied : rc, last, err);
    if (a->j->keys->has_public)
        rc = backupfile_signed_by(a->in, &a->j->keys->public_key, err);
    return rc;
}

static int apply_open(struct applying *a, const struct backup_about *is, struct azoth_error *err)
{
    struct backup_about about;
    const struct store_head end = {.event = is->to.event,
                                   .txn = is->to.txn,
                                   .time_ns = is->to.time_ns,
                                   .chain = is->chain,
                                   .running_ms = is->running_ms,
                                   .id_first = is->id_first};
    int rc = backup_about_parse(backupfile_about(a->in), &about, err);
    if (!rc && !same_about(&about, is))
        rc = error_set(err, AZOTH_ERR_CORRUPT, "it was changed meanwhile");
    backup_about_fini(&about);
    if (!rc)
        rc = advance_increment(a->to, is->from.txn, &is->chain_from, err);
    if (!rc)
        rc = apply_members(a, err);
    return rc || a->reached ? rc : advance_increment_end(a->to, &end, err);
}

static int apply_one(struct applying *a, const struct backup_known *step, struct azoth_error *err)
{
    char path[PATH_MAX], why[sizeof err->message];
    if (snprintf(path, sizeof path, "%s/%s", a->j->from, step->is.file) >= PATH_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", a->j->from);
    int rc = backup_open(path, a->j->keys, &a->in, err);
    if (!rc) {
        rc = apply_open(a, &step->about, err);
        backupfile_close(a->in);
    }
    if (rc < 0 && !strstr(err->message, step->is.file)) {
        snprintf(why, sizeof why, "%s", err->message);
        snprintf(err->message, sizeof err->message, "%.60s: %.170s", step->is.file, why);
    }
    return rc;
}

int restore_steps(struct restore_job *j, struct restore *r, struct azoth_error *err)
{
    struct applying a = {.j = j};
    int rc = advance_open(restore_store(r), &a.to, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < j->steps && !rc && !a.reached; i++) {
        rc = apply_one(&a, &j->step[i], err);
        CRASH_POINT(increment_applied);
    }
    const struct batch_head *h = advance_head(a.to);
    j->about.to = (struct backup_point){h->txn, h->event, h->time_ns};
    j->about.chain = h->chain;
    buf_fini(&a.part);
    if (!rc)
        return advance_finish(a.to, err);
    advance_abort(a.to);
    return rc;
}
