/*
 * rebuild.c - azoth projection rebuild: a new file beside the one that serves, which then takes its place.
 *
 * Happy path, for each shard: STEM.rebuild.db is filled from event 1, straight from the store, while the old file
 * serves and follows. At the head the projector is asked to hold; what came meanwhile is applied; the file is
 * closed, and the projector is asked to adopt it. Without a projector all that is done here, under its lock.
 *
 * Failure modes (the table of generation.h tells what each death leaves)
 *   this process dies        the file and its cursor stay; the projector's hold ends with the connection. The
 *                            next rebuild resumes it
 *   the projector dies       before it adopted: asked again, or done here. After: the link says so
 *   the definition changed   since an interrupted rebuild: its file is begun anew
 *   a handler fails          as its strategy says; fail-fast ends the rebuild, which a mended
 *                            definition begins anew. The old file serves on
 *   the disk is full         the same; the next rebuild resumes it, --abort gives the space back
 */
#include "client/cmd/rebuild.h"

#include "client/cmd/owner.h"
#include "client/cmd/progress.h"
#include "client/fill.h"
#include "core/clock.h"
#include "core/crash.h"
#include "core/dbdir.h"
#include "projector/generation.h"
#include "projector/split.h"
#include "writer/feed_look.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 4400
#define WAIT_MS    50u /* between two looks at what stands at an event, and before asking again */
#define ASKS_MAX   20u /* times that a projector finds the file behind, or in use */

struct part {
    struct table_options o;
    char stem[SPLIT_STEM], path[PATH_BYTES];
    int lock_fd; /* of STEM.rebuild.lock */
    struct table *table;
    struct fill *fill;
    struct stat file; /* which one is built */
    uint64_t from;    /* resumed there */
    uint64_t cursor, generation;
    double seconds;
};

struct rebuild {
    struct cmd_line *l;
    const char *name, *projections;
    const struct rebuild_flags *flags;
    char dir[4096], run_dir[4096], definition[PATH_BYTES];
    struct sqlfile def;
    struct store *store;
    struct part part[SPLIT_MAX];
    uint32_t shards;
    int timeout_ms;
};

#define INTERRUPTED 1

/* ---- one shard's file ---- */

static void part_close(struct part *p)
{
    fill_close(p->fill);
    table_close(p->table);
    if (p->lock_fd >= 0)
        close(p->lock_fd);
    p->fill = NULL;
    p->table = NULL;
    p->lock_fd = -1;
}

static int part_lock(struct rebuild *r, struct part *p, struct azoth_error *err)
{
    int rc = generation_lock(r->projections, p->stem, ".rebuild", &p->lock_fd, err);
    if (rc == AZOTH_ERR_DUPLICATE)
        return error_set(err, AZOTH_ERR_BUSY, "%s: another process rebuilds it", p->stem);
    return rc;
}

/* What says that the file's rows are not those that the definition makes of this log. */
static int is_stale(int rc)
{
    return rc == AZOTH_ERR_PROJECTION || rc == AZOTH_ERR_DIVERGED || rc == AZOTH_ERR_CORRUPT ||
           rc == AZOTH_ERR_FORMAT;
}

static int open_table(struct rebuild *r, struct part *p, struct azoth_error *err)
{
    int rc = generation_make(r->projections, p->stem, err);
    if (!rc)
        rc = table_open(&r->def, &p->o, &p->table, err);
    if (!rc)
        rc = fill_open(r->store, p->table, p->o.shard, p->o.shards,
                       r->def.shard_by[0] ? r->def.shard_by : "@key", &p->fill, err);
    if (rc) {
        table_close(p->table);
        p->table = NULL;
    }
    return rc;
}

static int part_open(struct rebuild *r, struct part *p, struct azoth_error *err)
{
    int rc = part_lock(r, p, err), had;
    uint32_t check;
    if (rc)
        return rc;
    had = generation_look(r->projections, p->stem, err);
    if (had < 0)
        return had;
    rc = open_table(r, p, err);
    if (had && is_stale(rc)) {
        if (!r->flags->quiet)
            fprintf(stderr, "azoth: %s: begun anew: %s\n", p->stem, err->message);
        rc = generation_abort(r->projections, p->stem, &had, err);
        if (!rc)
            rc = open_table(r, p, err);
    }
    if (rc)
        return rc;
    table_cursor(p->table, &p->from, &check);
    p->cursor = p->from;
    if (p->from && !r->flags->quiet && !r->l->json)
        printf("%s: goes on from event %llu\n", p->stem, (unsigned long long)p->from);
    return stat(p->path, &p->file) ? error_errno(err, errno, "%s", p->path) : 0;
}

/* Stands at an event that is tried again, or behind an open breaker. */
static void wait_until_due(const struct part *p)
{
    struct table_standing s;
    table_standing(p->table, &s);
    uint64_t ms = s.wait_ns / NS_PER_MS + 1;
    cmd_sleep_ms(ms < WAIT_MS ? ms : WAIT_MS);
}

/* At least to event `to`, and to the head as each step finds it: 0, INTERRUPTED or an error. */
static int part_fill(struct part *p, uint64_t to, struct progress *say, struct azoth_error *err)
{
    uint32_t check;
    for (;;) {
        int rc = fill_step(p->fill, to, err);
        if (rc < 0)
            return rc;
        table_cursor(p->table, &p->cursor, &check);
        progress_say(say, p->cursor, to < UINT64_MAX ? to : fill_head(p->fill), "event");
        CRASH_POINT(rebuild_filled);
        if (rc == FILL_DONE)
            return 0;
        if (cmd_interrupted())
            return INTERRUPTED;
        if (rc == FILL_STANDS)
            wait_until_due(p);
    }
}

/* ---- in its place ---- */

/* The cursor of the file that serves, if that follows the store's log: nobody may find the new one behind. */
static int served_cursor(struct rebuild *r, struct part *p, uint64_t *ret, struct azoth_error *err)
{
    char path[PATH_BYTES];
    struct table_identity i;
    uint64_t n, head;
    *ret = 0;
    int rc = generation_current(r->projections, p->stem, &n, err);
    if (rc || !n)
        return rc;
    rc = generation_path(path, sizeof path, r->projections, p->stem, n, err);
    if (!rc)
        rc = table_identify(path, &i, err);
    /* One that was never filled, or is damaged, is what a rebuild is good for. */
    if (rc == AZOTH_ERR_NOT_FOUND || rc == AZOTH_ERR_CORRUPT)
        return 0;
    if (rc || memcmp(i.uuid, p->o.uuid, sizeof i.uuid) != 0)
        return rc;
    rc = feed_same_history(r->store, i.cursor, i.cursor_check, &head, err);
    if (rc == AZOTH_ERR_DIVERGED || rc == AZOTH_ERR_GAP)
        return 0;
    *ret = rc ? 0 : i.cursor;
    return rc;
}

/* The link points to what was built here: whoever did it has died, or was not heard. */
static int serves_already(struct rebuild *r, struct part *p)
{
    char path[PATH_BYTES];
    struct azoth_error ignored;
    struct stat st;
    uint64_t n;
    if (generation_current(r->projections, p->stem, &n, &ignored) || !n ||
        generation_path(path, sizeof path, r->projections, p->stem, n, &ignored))
        return 0;
    if (stat(path, &st) || st.st_ino != p->file.st_ino || st.st_dev != p->file.st_dev)
        return 0;
    p->generation = n;
    /* The name that it was built under goes: nobody is to open the file that serves by it. */
    part_close(p);
    if (part_lock(r, p, &ignored) == 0)
        (void)generation_look(r->projections, p->stem, &ignored);
    part_close(p);
    return 1;
}

static int swap_once(struct rebuild *r, struct part *p, struct progress *say,
                     struct azoth_error *err)
{
    struct owner owner;
    uint64_t least = 0;
    /* What can be done before anybody has to wait for it. */
    table_idle(p->table);
    int rc = owner_find(r->run_dir, r->projections, p->stem, r->timeout_ms, &owner, err);
    if (rc)
        return rc;
    rc = owner.talk_fd >= 0 ? owner_ask(&owner, r->definition, &p->o, 0, "hold", &least, err)
                            : served_cursor(r, p, &least, err);
    /* To have been held for nothing leaves nothing that is not known. */
    if (rc == AZOTH_ERR_OUTCOME_UNKNOWN)
        rc = error_set(err, AZOTH_ERR_UNREACHABLE, "the projector does not answer");
    CRASH_POINT(rebuild_held);
    if (!rc)
        rc = part_fill(p, least, say, err);
    if (!rc) {
        part_close(p);
        CRASH_POINT(rebuild_closed);
        rc = owner_ask(&owner, r->definition, &p->o, least, "adopt", &p->generation, err);
    }
    owner_close(&owner);
    return rc;
}

/* Another try may find what this one did not. */
static int may_pass(int rc)
{
    return rc == AZOTH_ERR_GAP || rc == AZOTH_ERR_BUSY || rc == AZOTH_ERR_UNREACHABLE;
}

static int part_swap(struct rebuild *r, struct part *p, struct progress *say,
                     struct azoth_error *err)
{
    int rc = 0;
    for (unsigned tries = 0; tries < ASKS_MAX; tries++) {
        /* Open still when the projector went away before it was asked to adopt. */
        rc = p->table ? 0 : part_lock(r, p, err);
        if (!rc && !p->table)
            rc = open_table(r, p, err);
        if (!rc)
            rc = part_fill(p, UINT64_MAX, say, err);
        uint64_t until = clock_mono_ns() + (uint64_t)r->timeout_ms * NS_PER_MS;
        if (!rc)
            rc = swap_once(r, p, say, err);
        if (rc < 0 && serves_already(r, p))
            return 0;
        if (rc >= 0 || !may_pass(rc) || clock_mono_ns() >= until)
            return rc;
        if (cmd_interrupted())
            return INTERRUPTED;
        cmd_sleep_ms(WAIT_MS);
    }
    return rc;
}

/* ---- all of it ---- */

static int build_all(struct rebuild *r, struct azoth_error *err)
{
    struct progress say;
    int rc = 0;
    for (uint32_t i = 0; !rc && i < r->shards; i++)
        rc = part_open(r, &r->part[i], err);
    for (uint32_t i = 0; !rc && i < r->shards; i++) {
        struct part *p = &r->part[i];
        progress_begin(&say, p->stem, r->flags->quiet || r->l->json, p->from);
        rc = part_fill(p, UINT64_MAX, &say, err);
        p->seconds = progress_seconds(&say);
        progress_end(&say);
    }
    for (uint32_t i = 0; !rc && i < r->shards; i++) {
        struct part *p = &r->part[i];
        progress_begin(&say, p->stem, r->flags->quiet || r->l->json, p->cursor);
        rc = part_swap(r, p, &say, err);
        p->seconds += progress_seconds(&say);
        progress_end(&say);
    }
    for (uint32_t i = 0; i < r->shards; i++)
        part_close(&r->part[i]);
    return rc;
}

static int abort_one(struct rebuild *r, uint32_t shard, uint32_t shards, int *ret_had,
                     struct azoth_error *err)
{
    struct part *p = &r->part[0];
    *ret_had = 0;
    split_stem(p->stem, r->name, shard, shards);
    int rc = generation_path(p->path, sizeof p->path, r->projections, p->stem, 0, err);
    if (rc || access(p->path, F_OK))
        return rc;
    p->lock_fd = -1;
    rc = part_lock(r, p, err);
    if (!rc)
        rc = generation_abort(r->projections, p->stem, ret_had, err);
    part_close(p);
    return rc;
}

/* Of however many shards, and whatever the definition says by now. */
static int abort_all(struct rebuild *r, struct azoth_error *err)
{
    int rc = 0, had, removed = 0;
    for (uint32_t k = 1; k <= SPLIT_MAX; k++)
        for (uint32_t i = 0; !rc && i < k; i++) {
            rc = abort_one(r, i, k, &had, err);
            removed += !rc && had;
        }
    if (!rc && r->l->json)
        printf("{\"removed\":%d}\n", removed);
    else if (!rc)
        puts(removed ? "what was being built is removed" : "nothing was being built");
    return rc;
}

static void tell(const struct rebuild *r, uint32_t serving)
{
    struct json_text j = {0};
    if (r->l->json) {
        out_open(&j, NULL, '{');
        out_str(&j, "name", r->name);
        out_open(&j, "shards", '[');
    }
    for (uint32_t i = 0; i < r->shards; i++) {
        const struct part *p = &r->part[i];
        uint64_t events = p->cursor - p->from;
        double rate = p->seconds > 0 ? (double)events / p->seconds : 0;
        if (!r->l->json && !events) {
            printf("%s: generation %llu serves at event %llu: nothing was left to apply\n", p->stem,
                   (unsigned long long)p->generation, (unsigned long long)p->cursor);
            continue;
        }
        if (!r->l->json) {
            printf("%s: generation %llu serves: events %llu to %llu in %.1f s, %.0f/s\n", p->stem,
                   (unsigned long long)p->generation, (unsigned long long)p->from + 1,
                   (unsigned long long)p->cursor, p->seconds, rate);
            continue;
        }
        out_open(&j, NULL, '{');
        out_u64(&j, "shard", p->o.shard);
        out_u64(&j, "shards", p->o.shards);
        out_u64(&j, "generation", p->generation);
        out_u64(&j, "from", p->from + 1);
        out_u64(&j, "cursor", p->cursor);
        out_real(&j, "seconds", p->seconds);
        out_real(&j, "rate", rate);
        out_close(&j, '}');
    }
    if (r->l->json) {
        out_close(&j, ']');
        out_close(&j, '}');
        out_print(&j);
    } else if (serving && serving != r->shards) {
        printf(
            "these are other files than the %u that it was in: start azoth-projector %s I/%u for\n"
            "each I from 0, and stop the old ones; queries read the set that is further\n",
            serving, r->name, r->shards);
    }
}

static int choose_shards(struct rebuild *r, uint32_t *ret_serving, struct azoth_error *err)
{
    *ret_serving = 0;
    int rc = split_serving(r->projections, r->name, ret_serving, err);
    if (rc && rc != AZOTH_ERR_NOT_FOUND && !is_stale(rc))
        return rc;
    r->shards = r->flags->shards.given ? (uint32_t)r->flags->shards.n
                : r->def.shards        ? r->def.shards
                : *ret_serving         ? *ret_serving
                                       : 1;
    if (r->shards < 1 || r->shards > SPLIT_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "--shards is 1 to %u", SPLIT_MAX);
    if (r->def.shards && r->def.shards != r->shards)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s says %u shards", r->definition,
                         r->def.shards);
    for (uint32_t i = 0; i < r->shards; i++) {
        struct part *p = &r->part[i];
        split_stem(p->stem, r->name, i, r->shards);
        rc = generation_path(p->path, sizeof p->path, r->projections, p->stem, 0, err);
        if (rc)
            return rc;
        p->lock_fd = -1;
        p->o = (struct table_options){.dir = r->projections,
                                      .file = p->path,
                                      .uuid = store_identity(r->store)->uuid,
                                      .shard = i,
                                      .shards = r->shards};
    }
    return 0;
}

static int read_definition(struct rebuild *r, struct azoth_error *err)
{
    int rc = dbdir_path(r->definition, sizeof r->definition, r->projections, "%s.sql", r->name)
                 ? error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", r->projections)
                 : sqlfile_read(r->definition, &r->def, err);
    if (rc)
        return rc;
    if (strcmp(r->def.name, r->name) != 0)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s defines projection %s, not %s",
                         r->definition, r->def.name, r->name);
    if (r->def.effects[0])
        return error_set(err, AZOTH_ERR_UNSUPPORTED,
                         "%s: effects are not rebuilt: that would run their commands again",
                         r->name);
    if (r->def.target != TARGET_SQLITE)
        return error_set(err, AZOTH_ERR_UNSUPPORTED,
                         "%s: its rows are in PostgreSQL, and only SQLite files are filled beside "
                         "those that serve: to make them anew rename the projection, or drop its "
                         "schema",
                         r->definition);
    /* Before an interrupted rebuild's file is taken for stale, which a mistake in it is no reason for. */
    return projection_check(r->definition, err);
}

static int rebuild(struct rebuild *r, struct azoth_error *err)
{
    uint32_t serving;
    if (r->flags->abort)
        return abort_all(r, err);
    int rc = read_definition(r, err);
    if (!rc)
        rc = store_open(r->dir, 0, &r->store, err);
    if (!rc)
        rc = choose_shards(r, &serving, err);
    if (rc)
        return rc;
    rc = build_all(r, err);
    if (!rc)
        tell(r, serving);
    for (uint32_t i = 0; rc && i < r->shards; i++)
        if (r->part[i].generation)
            fprintf(stderr,
                    "azoth: %s: generation %llu serves already, beside older shards until the next "
                    "rebuild\n",
                    r->part[i].stem, (unsigned long long)r->part[i].generation);
    return rc;
}

int rebuild_run(struct cmd_line *l, const char *projections, const char *name,
                const struct rebuild_flags *flags)
{
    static struct rebuild r;
    static struct config config;
    struct azoth_error err = {0};
    r.l = l;
    r.name = name;
    r.projections = projections;
    r.flags = flags;
    r.timeout_ms = (int)flags->timeout.n;
    int rc = cmd_dir(l, NULL, 1, r.dir, sizeof r.dir);
    if (rc)
        return rc;
    cmd_catch_signals();
    rc = config_load(&config, r.dir, &err);
    if (!rc)
        rc = cmd_find_run_dir(r.dir, &config, r.run_dir, sizeof r.run_dir, &err);
    if (!rc)
        rc = rebuild(&r, &err);
    store_close(r.store);
    sqlfile_fini(&r.def);
    if (rc == INTERRUPTED) {
        fprintf(stderr,
                "azoth: %s: interrupted: the same command goes on where it was, --abort removes "
                "what was built\n",
                name);
        return 128 + cmd_interrupted();
    }
    return rc ? cmd_fail(&err) : 0;
}
