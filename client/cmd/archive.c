/*
 * archive.c - azoth archive: old events out of LMDB into segment files; list, verify and move these.
 *
 * What a projection has not applied, or the backups of a place do not have, is not moved: it is refused, and they are
 * named. Nobody would lose anything, since reading goes through segments; but who reads them soon reads slower.
 */
#include "client/cmd/archiver.h"
#include "client/cmd/cmd.h"
#include "client/cmd/lag.h"
#include "client/cmd/progress.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "core/mark.h"

#include <string.h>
#include <unistd.h>

#define DAY_NS (86400ull * NS_PER_S)

struct archive_flags {
    struct cmd_number before, keep_events, keep_days, level, segment_events;
    struct cmd_list gone;
    const char *move;
    int dry_run, embedded, quiet;
};

struct run {
    struct cmd_line *l;
    struct archive_flags f;
    struct archiver a;
    char dir[4096];
    uint64_t before, end; /* asked for; the newest event that goes */
    uint64_t archived;    /* the newest one that had gone before */
    struct progress progress;
    struct json_text j;
    uint64_t segments, events, bytes, log_bytes;
};

static int on_say(void *arg, const char *doing, uint64_t event)
{
    struct run *r = arg;
    progress_say(&r->progress, event, r->end, doing);
    return cmd_interrupted() ? ARCHIVER_INTERRUPTED : 0;
}

/* The exit code of what a run ended with. */
static int ended(int rc, const struct azoth_error *err)
{
    if (rc == ARCHIVER_INTERRUPTED)
        return 128 + cmd_interrupted(); /* as shells tell it */
    return rc ? cmd_fail(err) : 0;
}

/* ---- how far ---- */

static int time_of(struct snapshot *sn, uint64_t id, int64_t *ret, struct azoth_error *err)
{
    struct event_stamp stamp = {0};
    int rc = snapshot_event(sn, id, &stamp, err);
    if (rc == 1)
        *ret = stamp.time_ns;
    if (rc == 0)
        rc = error_set(err, AZOTH_ERR_GAP, "event %llu is missing", (unsigned long long)id);
    return rc < 0 ? rc : 0;
}

/* The first event that is not older than `since`, of from..to; to + 1: none. */
static int first_since(struct snapshot *sn, uint64_t from, uint64_t to, int64_t since,
                       uint64_t *ret, struct azoth_error *err)
{
    uint64_t low = from, high = to + 1;
    int rc = 0;
    while (!rc && low < high) {
        uint64_t middle = low + (high - low) / 2;
        int64_t t = 0;
        rc = time_of(sn, middle, &t, err);
        if (t < since)
            low = middle + 1;
        else
            high = middle;
    }
    *ret = low;
    return rc;
}

static int decide_before(struct run *r, struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head head = {0};
    struct archived_state state = {0};
    int rc = snapshot_begin(r->a.store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    if (!rc)
        rc = snapshot_archive(sn, &state, err);
    if (r->f.before.given)
        r->before = r->f.before.n;
    else if (r->f.keep_events.given)
        r->before = head.event >= r->f.keep_events.n ? head.event - r->f.keep_events.n + 1 : 1;
    else if (!rc)
        rc = first_since(sn, state.last_archived + 1, head.event,
                         clock_wall_ns() - (int64_t)(r->f.keep_days.n * DAY_NS), &r->before, err);
    snapshot_end(sn);
    r->archived = state.last_archived;
    if (!rc && r->before > head.event + 1)
        rc = error_set(err, AZOTH_ERR_USAGE, "--before %llu: the newest event is %llu",
                       (unsigned long long)r->before, (unsigned long long)head.event);
    return rc ? rc : archiver_end(&r->a, r->before, &r->end, err);
}

/* ---- who has it ---- */

static int is_gone(const struct run *r, const char *name)
{
    for (int i = 0; i < r->f.gone.n; i++)
        if (strcmp(r->f.gone.text[i], name) == 0)
            return 1;
    return 0;
}

static int is_defined(const struct run *r, const char *name)
{
    char path[4300];
    return dbdir_path(path, sizeof path, r->dir, "projections/%s.sql", name) == 0 &&
           access(path, F_OK) == 0;
}

static int check_projections(const struct run *r, struct azoth_error *err)
{
    static struct lag g;
    snprintf(g.dir, sizeof g.dir, "%s", r->dir);
    int rc = cmd_config(r->dir, NULL, &g.config, err);
    if (rc)
        return rc;
    lag_read_rows(&g);
    for (uint32_t i = 0; i < g.rows; i++) {
        const struct lag_row *row = &g.row[i];
        char name[96];
        if (row->r.cursor >= r->end || is_gone(r, row->r.name))
            continue;
        return error_set(
            err, AZOTH_ERR_BUSY, "projection %s has applied events up to %llu only: %s",
            lag_name(row, name), (unsigned long long)row->r.cursor,
            is_defined(r, row->r.name)
                ? "wait for it (azoth lag --wait), or take its definition away if it is "
                  "not wanted any more"
                : "start it, or say that it is gone for good (--gone NAME)");
    }
    return 0;
}

static int check_marks(const struct run *r, struct azoth_error *err)
{
    struct snapshot *sn;
    struct mark mark[MARKS_MAX];
    uint32_t n = 0;
    char place[2 * MARK_PLACE + 1];
    int rc = snapshot_begin(r->a.store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_marks(sn, mark, MARKS_MAX, &n, err);
    snapshot_end(sn);
    for (uint32_t i = 0; !rc && i < n; i++) {
        /* A mark is set before the first backup there is made: only one that was moved says what is there. */
        uint64_t has = mark[i].confirmed ? mark[i].event : 0;
        if (has >= r->end)
            continue;
        bytes_hex(place, mark[i].place, MARK_PLACE);
        rc = error_set(
            err, AZOTH_ERR_BUSY,
            "the backups of place %s have events up to %llu only: make one there first, or "
            "drop its mark (azoth backup forget)",
            place, (unsigned long long)has);
    }
    return rc;
}

/* ---- a run ---- */

static void json_entry(struct run *r, const struct archived_entry *e)
{
    char digest[2 * ARCHIVE_DIGEST + 1];
    bytes_hex(digest, e->about.digest, ARCHIVE_DIGEST);
    out_open(&r->j, NULL, '{');
    out_u64(&r->j, "first", e->about.first);
    out_u64(&r->j, "last", e->about.last);
    out_u64(&r->j, "bytes", e->about.bytes);
    out_u64(&r->j, "log_bytes", e->about.log_bytes);
    out_str(&r->j, "path", e->path);
    out_str(&r->j, "digest", digest);
    if (e->about.chained)
        bytes_hex(digest, e->about.chain_after, ARCHIVE_DIGEST);
    out_str(&r->j, "chain", e->about.chained ? digest : NULL);
}

static void text_entry(const struct archived_entry *e, const char *after)
{
    char a[CMD_TIME_TEXT], b[CMD_TIME_TEXT];
    printf("events %llu to %llu  %s of %s  %s%s\n", (unsigned long long)e->about.first,
           (unsigned long long)e->about.last, cmd_size(e->about.bytes, a),
           cmd_size(e->about.log_bytes, b), e->path, after);
    fflush(stdout);
}

static void count(struct run *r, const struct archived_entry *e)
{
    r->segments++;
    r->events += e->about.last - e->about.first + 1;
    r->bytes += e->about.bytes;
    r->log_bytes += e->about.log_bytes;
}

static int make_segments(struct run *r, struct azoth_error *err)
{
    struct archived_entry *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's record");
    int rc = archiver_resume(&r->a, err);
    while (!rc && (rc = archiver_segment(&r->a, r->end, e, err)) == 1) {
        progress_end(&r->progress);
        count(r, e);
        if (r->l->json) {
            json_entry(r, e);
            out_close(&r->j, '}');
        } else if (!r->f.quiet) {
            text_entry(e, "");
        }
        rc = archiver_delete(&r->a, err);
    }
    free(e);
    return rc;
}

static int head_json(struct run *r, int rc)
{
    out_close(&r->j, ']');
    out_u64(&r->j, "events", r->events);
    out_u64(&r->j, "bytes", r->bytes);
    out_u64(&r->j, "log_bytes", r->log_bytes);
    out_real(&r->j, "seconds", progress_seconds(&r->progress));
    out_bool(&r->j, "ok", rc == 0);
    out_close(&r->j, '}');
    return out_print(&r->j);
}

static void begin_json(struct run *r)
{
    out_open(&r->j, NULL, '{');
    out_u64(&r->j, "before", r->before);
    out_u64(&r->j, "end", r->end);
    out_str(&r->j, "dest", r->a.dest);
    out_bool(&r->j, "dry_run", r->f.dry_run);
    out_open(&r->j, "segments", '[');
}

static void tell_out(const struct run *r)
{
    int nothing = r->end <= r->archived;
    unsigned long long end = nothing ? r->archived : r->end;
    if (r->f.dry_run) {
        printf(nothing ? "events up to %llu are archived: there is nothing to do\n"
                       : "events up to %llu would lie in %s\n",
               end, r->a.dest);
        return;
    }
    if (!nothing && r->end + 1 < r->before)
        printf("event %llu is of the same transaction as those behind it and stays\n",
               (unsigned long long)r->before - 1);
    printf("%llu events in %llu segments; events up to %llu are archived\n",
           (unsigned long long)r->events, (unsigned long long)r->segments, end);
}

static int move_out(struct run *r, struct azoth_error *err)
{
    progress_begin(&r->progress, "archive", r->f.quiet || r->l->json, 0);
    if (r->l->json)
        begin_json(r);
    int rc = r->f.dry_run ? 0 : make_segments(r, err);
    progress_end(&r->progress);
    if (r->l->json)
        head_json(r, rc);
    else if (!rc && (r->f.dry_run || !r->f.quiet))
        tell_out(r);
    return rc;
}

static int run_out(struct run *r, const char *dest)
{
    struct azoth_error err = {0};
    int rc = archiver_lock(&r->a, &err);
    if (!rc)
        rc = decide_before(r, &err);
    if (!rc)
        rc = check_projections(r, &err);
    if (!rc)
        rc = check_marks(r, &err);
    if (!rc)
        rc = archiver_dest(&r->a, dest, !r->f.dry_run, &err);
    if (!rc)
        rc = move_out(r, &err);
    archiver_unlock(&r->a);
    return ended(rc, &err);
}

/* ---- over what is recorded ---- */

/* All records, before anything is done with their files: no snapshot is open meanwhile. */
struct list {
    struct archived_entry *e;
    size_t n, cap;
    struct archived_state state;
};

static int add_entry(void *arg, const struct archived_entry *e, struct azoth_error *err)
{
    struct list *s = arg;
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 16;
        struct archived_entry *more = realloc(s->e, cap * sizeof *more);
        if (!more)
            return error_set(err, AZOTH_ERR_NOMEM, "the list of segments");
        s->e = more;
        s->cap = cap;
    }
    s->e[s->n++] = *e;
    return 0;
}

static int read_list(struct store *store, struct list *ret, struct azoth_error *err)
{
    struct snapshot *sn;
    int rc = snapshot_begin(store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_archive(sn, &ret->state, err);
    if (!rc)
        rc = snapshot_archives(sn, add_entry, ret, err);
    snapshot_end(sn);
    return rc;
}

static int on_verified(void *arg, uint64_t event)
{
    return on_say(arg, "event", event);
}

/* The recorded file is there, is that one, and all of it is good. */
static int verify_entry(struct run *r, const struct archived_entry *e, struct azoth_error *err)
{
    struct archivefile *f;
    int rc = store_archive_open(r->a.store, e, &f, err);
    if (rc)
        return rc;
    rc = archivefile_verify(f, on_verified, r, err);
    archivefile_close(f);
    return rc;
}

static int one_of_list(struct run *r, const struct archived_entry *e, int verify)
{
    struct azoth_error err = {0};
    int rc = verify ? verify_entry(r, e, &err) : 0, exit_code = 0;
    progress_end(&r->progress);
    if (rc == ARCHIVER_INTERRUPTED)
        return ended(rc, &err);
    count(r, e);
    if (r->l->json) {
        json_entry(r, e);
        if (verify)
            out_bool(&r->j, "ok", rc == 0);
        if (rc)
            out_str(&r->j, "message", err.message);
        out_close(&r->j, '}');
    } else if (!rc && !r->f.quiet) {
        text_entry(e, verify ? "  good" : "");
    }
    if (rc)
        exit_code = cmd_fail(&err);
    return exit_code;
}

/* List and verify. */
static int run_list(struct run *r, int verify)
{
    struct azoth_error err = {0};
    struct list s = {0};
    int exit_code = 0, rc = read_list(r->a.store, &s, &err);
    if (rc) {
        free(s.e);
        return cmd_fail(&err);
    }
    r->end = s.state.last_archived;
    progress_begin(&r->progress, "archive", r->f.quiet || r->l->json, 0);
    if (r->l->json) {
        out_open(&r->j, NULL, '{');
        out_u64(&r->j, "first_in_store", s.state.first_in_store);
        out_u64(&r->j, "last_archived", s.state.last_archived);
        out_open(&r->j, "segments", '[');
    }
    for (size_t i = 0; i < s.n && !cmd_interrupted(); i++) {
        rc = one_of_list(r, &s.e[i], verify);
        exit_code = rc ? rc : exit_code;
    }
    if (r->l->json)
        head_json(r, exit_code);
    else if (!r->f.quiet)
        printf("%llu segments, events up to %llu; LMDB begins with event %llu\n",
               (unsigned long long)s.n, (unsigned long long)s.state.last_archived,
               (unsigned long long)s.state.first_in_store);
    free(s.e);
    return exit_code;
}

static int run_move(struct run *r, const char *dest)
{
    struct azoth_error err = {0};
    struct list s = {0};
    uint64_t moved = 0;
    int rc = archiver_lock(&r->a, &err);
    if (!rc)
        rc = read_list(r->a.store, &s, &err);
    if (!rc)
        rc = archiver_dest(&r->a, dest, 1, &err);
    r->end = s.state.last_archived;
    progress_begin(&r->progress, "archive", r->f.quiet || r->l->json, 0);
    for (size_t i = 0; !rc && i < s.n; i++) {
        rc = on_say(r, "moving", s.e[i].about.first);
        if (!rc)
            rc = archiver_move(&r->a, &s.e[i], &err);
        if (rc < 0)
            break;
        moved += rc == 1;
        rc = 0;
    }
    progress_end(&r->progress);
    archiver_unlock(&r->a);
    free(s.e);
    if (!rc && r->l->json)
        printf("{\"ok\":true,\"moved\":%llu}\n", (unsigned long long)moved);
    else if (!rc && !r->f.quiet)
        printf("%llu segments moved to %s\n", (unsigned long long)moved, r->a.dest);
    return ended(rc, &err);
}

/* ---- the command ---- */

static int check_flags(struct cmd_line *l, const struct archive_flags *f, const char *what)
{
    int how = f->before.given + f->keep_events.given + f->keep_days.given;
    if (f->move && l->words)
        return cmd_usage(l, "what is %s for, beside --move?", l->word[0]);
    if ((what || f->move) && (how || f->gone.n || f->dry_run || f->level.given ||
                              f->segment_events.given || (what && f->embedded)))
        return cmd_usage(l, "%s takes none of the flags of a run that archives",
                         what ? what : "--move");
    if (what || f->move)
        return 0;
    if (how != 1)
        return cmd_usage(l, "which events? --before ID, --keep-events N or --keep-days N");
    if (f->before.given && f->before.n < 1)
        return cmd_usage(l, "--before is an event's id, from 1");
    if (f->keep_days.given && f->keep_days.n > 36500)
        return cmd_usage(l, "--keep-days is 0 to 36500");
    if (f->level.given && (f->level.n < 1 || f->level.n > 19))
        return cmd_usage(l, "--level is 1 to 19");
    if (f->segment_events.given &&
        (f->segment_events.n < 1 || f->segment_events.n > ARCHIVER_EVENTS))
        return cmd_usage(l, "--segment-events is 1 to %u", ARCHIVER_EVENTS);
    return 0;
}

static int open_run(struct run *r, int writes)
{
    struct azoth_error err;
    int rc = cmd_dir(r->l, NULL, 1, r->dir, sizeof r->dir);
    if (!rc && writes)
        rc = cmd_open(r->l, NULL, r->f.embedded ? AZOTH_EMBEDDED : 0, &r->a.db);
    if (!rc && store_open(r->dir, 0, &r->a.store, &err))
        rc = cmd_fail(&err);
    if (rc)
        return rc;
    r->a.dir = store_identity(r->a.store)->dir;
    r->a.level = r->f.level.given ? (int)r->f.level.n : ARCHIVE_LEVEL;
    r->a.events_max = r->f.segment_events.given ? r->f.segment_events.n : ARCHIVER_EVENTS;
    r->a.lock_fd = -1;
    r->a.say = on_say;
    r->a.arg = r;
    return 0;
}

static int run_archive(struct cmd_line *l)
{
    static struct run r;
    r.l = l;
    const struct cmd_flag flags[] = {{"--before", FLAG_NUMBER, &r.f.before},
                                     {"--keep-events", FLAG_NUMBER, &r.f.keep_events},
                                     {"--keep-days", FLAG_NUMBER, &r.f.keep_days},
                                     {"--gone", FLAG_LIST, &r.f.gone},
                                     {"--move", FLAG_TEXT, &r.f.move},
                                     {"--level", FLAG_NUMBER, &r.f.level},
                                     {"--segment-events", FLAG_NUMBER, &r.f.segment_events},
                                     {"--dry-run", FLAG_SWITCH, &r.f.dry_run},
                                     {"--embedded", FLAG_SWITCH, &r.f.embedded},
                                     {"--quiet", FLAG_SWITCH, &r.f.quiet},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 1);
    const char *word = l->words ? l->word[0] : NULL;
    int list = word && strcmp(word, "list") == 0, verify = word && strcmp(word, "verify") == 0;
    if (!rc)
        rc = check_flags(l, &r.f, list || verify ? word : NULL);
    if (!rc)
        rc = open_run(&r, !list && !verify && !r.f.dry_run);
    if (rc)
        return rc;
    cmd_catch_signals();
    if (list || verify)
        rc = run_list(&r, verify);
    else if (r.f.move)
        rc = run_move(&r, r.f.move);
    else
        rc = run_out(&r, word);
    store_close(r.a.store);
    azoth_close(r.a.db);
    return rc;
}

const struct cmd cmd_archive = {
    .name = "archive",
    .synopsis = "--before ID [DEST] | --keep-events N [DEST] | --keep-days N [DEST] | --move DEST "
                "| list | verify"
                "  [--json]",
    .summary = "Move old events out of the store into files that are read as before",
    .help =
        "  --before ID         events before this one go\n"
        "  --keep-events N     all but the newest N\n"
        "  --keep-days N       those that are older than N days of 24 hours\n"
        "  --gone NAME         this projection is gone for good: it is not waited for (may be "
        "repeated)\n"
        "  --dry-run           only say which, or why not\n"
        "  --level N           zstd's, 1 to 19 (default 3)\n"
        "  --segment-events N  a file ends after so many events (default 1000000, or 256 MiB)\n"
        "  --move DEST         segments that are recorded lie in DEST from now on\n"
        "  --embedded          run the writer in this process when none is running\n"
        "  --quiet             no progress, no lines\n"
        "  --json              one object\n"
        "  list                the segments\n"
        "  verify              all of each segment, against its digest\n\n"
        "DEST is a directory that everybody who reads the database can read: where the newest "
        "segment\n"
        "lies, else DIR/archive, unless said otherwise. What a projection has not applied, or a "
        "place of\n"
        "backups does not have, is refused. A run that was ended is finished by the next one.\n\n"
        "  azoth archive --keep-days 90\n"
        "  azoth archive --before 1000000 /srv/events --dry-run\n",
    .run = run_archive,
};
