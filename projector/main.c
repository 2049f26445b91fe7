/*
 * azoth-projector: applies events to one projection's SQLite file, or its schema in PostgreSQL.
 *
 * The order of a turn: take a batch, ask for the next, apply this one and its cursor in one SQLite
 * transaction, tell the feed. Killed anywhere, it begins again at the cursor in the file. It opens
 * neither the store nor the segment, so it may run on another machine.
 *
 * An event that is tried again holds the batch it came in: what follows it waits in the transport, as far
 * as the credit goes, and the feed is told now and then why. Dead letters that were released are tried
 * before newer events are applied, those of the definition's `replay` between batches.
 */
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/log.h"
#include "core/program.h"
#include "core/record.h"
#include "core/service.h"
#include "projector/adopt.h"
#include "projector/control.h"
#include "projector/effects_serve.h"
#include "projector/last.h"
#include "projector/pull.h"
#include "projector/replay.h"
#include "projector/split.h"
#include "projector/table.h"
#include "shm/projection_row.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: azoth-projector --dir DIR NAME [I/K] | --instance DB:NAME[:I-K]  [options]\n"
    "\n"
    "Projects events into DIR/projections/NAME.db as DIR/projections/NAME.sql says, or into\n"
    "PostgreSQL when that has the target.\n"
    "I/K: of K processes this is shard I (from 0), with NAME.IofK.db for its events.\n"
    "  --definition FILE   another definition file\n"
    "  --uuid HEX          the database's identity, where DIR/uuid is not at hand\n"
    "  --feed-connect URL  the feed's endpoint, e.g. tcp://10.0.0.1:7101\n"
    "  --load FILE.so      the library of handlers in C, instead of the definition's\n"
    "  --accept-changed    go on although the handlers were changed\n"
    "  --once              project up to the newest event, then exit\n"
    "  --discard           count events and keep nothing (to measure the feed)\n"
    "Exit status: 0 stopped, 1 a handler failed, 75 try again, 100 do not restart.\n";

struct projector {
    struct program program;
    struct service service;
    const char *definition, *uuid_text, *load;
    int accept_changed, once, discard;
    uint32_t shard, shards;
    uint8_t uuid[16];
    char dir[4300], path[4300]; /* of the projections, and of the definition */
    struct table_options options;
    struct sqlfile def;
    struct table *table; /* or, of effects: */
    struct effects *effects;
    struct effects_server *server;
    struct pull *pull;
    struct control *control;
    char endpoint[256];
    uint64_t cursor, head, events, failures;
    uint64_t commits; /* of the ledger of effects, as of the last turn */
    uint32_t cursor_check;
    uint64_t idle_ns;
    int idle, heard, another; /* another: the file or the definition may be another one now */
    struct wire_batch held;   /* was left in the middle */
    int holds;
    struct table_standing standing; /* as of this turn */
    uint64_t full_ns;               /* the disk is full: it is tried again then; 0: it is not */
    char full[200];                 /* what said so */
    uint64_t opened_at;             /* the cursor */
    int gets_on;                    /* last words of an earlier one are removed */
};

/*
 * A projector that is started while its PostgreSQL server is away waits for it, and looks so often. Longer than a
 * supervisor allows a number of starts in, so that it does not give up on us, and shorter than it waits for READY.
 */
#define SERVER_PATIENCE_NS (60 * NS_PER_S)
#define SERVER_AGAIN_MS    500
/* A command that has the lock, since no projector ran, is soon done; another projector is not. */
#define LOCK_PATIENCE_NS (5 * NS_PER_S)
#define LOCK_AGAIN_MS    20

#define FULL_AGAIN_NS NS_PER_S /* between two tries on a full disk */

/* Dead letters are tried for so long at a time: signals wait no longer. */
#define REPLAY_NS (20 * NS_PER_MS)

static int own_flag(void *arg, int argc, char **argv, int *i, struct azoth_error *err)
{
    struct projector *p = arg;
    const char *a = argv[*i];
    int rc = 0;
    if (strcmp(a, "--definition") == 0 && *i + 1 < argc)
        p->definition = argv[++*i];
    else if (strcmp(a, "--uuid") == 0 && *i + 1 < argc)
        p->uuid_text = argv[++*i];
    else if (strcmp(a, "--load") == 0 && *i + 1 < argc)
        p->load = argv[++*i];
    else if (strcmp(a, "--accept-changed") == 0)
        p->accept_changed = 1;
    else if (strcmp(a, "--once") == 0)
        p->once = 1;
    else if (strcmp(a, "--discard") == 0)
        p->discard = 1;
    else if (a[0] != '-' && strchr(a, '/'))
        rc = split_parse(a, &p->shard, &p->shards, err);
    else
        return 0;
    ++*i;
    return rc ? rc : 1;
}

static int read_uuid(struct projector *p, struct azoth_error *err)
{
    char text[40] = "", path[4200];
    if (p->uuid_text) {
        snprintf(text, sizeof text, "%s", p->uuid_text);
    } else {
        snprintf(path, sizeof path, "%s/uuid", p->program.dir);
        FILE *f = fopen(path, "r");
        if (!f || !fgets(text, sizeof text, f))
            text[0] = 0;
        if (f)
            fclose(f);
    }
    for (int i = 0; i < 16; i++) {
        unsigned byte;
        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            return error_set(err, AZOTH_ERR_NO_DATABASE,
                             "%s/uuid: no database here (or give --uuid with 32 hex digits)",
                             p->program.dir);
        p->uuid[i] = (uint8_t)byte;
    }
    return 0;
}

static int is_effects(const struct projector *p)
{
    return p->def.effects[0] != 0;
}

static uint32_t as_us(int64_t ns)
{
    return ns <= 0 ? 0 : ns / 1000 >= UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 1000);
}

/* For the histograms. */
static void on_settled(void *arg, uint64_t apply_ns, int64_t lag_ns)
{
    struct projector *p = arg;
    if (p->pull)
        pull_sample(p->pull, &(struct wire_sample){.apply_us = as_us((int64_t)apply_ns),
                                                   .lag_us = as_us(lag_ns)});
}

static int open_effects(struct projector *p, const struct table_options *o, struct azoth_error *err)
{
    char endpoint[256];
    int rc = effects_open(&p->def, o, clock_mono_ns(), &p->effects, err);
    if (!rc)
        rc = dbdir_endpoint(endpoint, sizeof endpoint, p->program.run_dir, err, "e-%s.sock",
                            p->def.name);
    if (!rc)
        rc = effects_server_open(endpoint, p->effects, &p->server, err);
    if (!rc) {
        effects_on_settled(p->effects, on_settled, p);
        effects_cursor(p->effects, &p->cursor, &p->cursor_check);
    }
    return rc;
}

static void on_failure(void *arg, enum failure_action action, uint64_t event, const char *error)
{
    static const struct {
        int level;
        const char *text;
    } said[] = {[FAILURE_SKIPPED] = {LOG_LEVEL_WARN, "skipped"},
                [FAILURE_DEAD_LETTERED] = {LOG_LEVEL_WARN, "dead-lettered"},
                [FAILURE_RETRIES] = {LOG_LEVEL_WARN, "to be tried again"},
                [FAILURE_OPENS] = {LOG_LEVEL_WARN, "breaker open"},
                [FAILURE_RETIRED] = {LOG_LEVEL_WARN, "retired"},
                [FAILURE_MORE] = {LOG_LEVEL_WARN, "more failures"}};
    const struct projector *p = arg;
    char shown[LOG_TEXT];
    log_line(said[action].level, "%s projection=%s event=%" PRIu64 " error=\"%s\"",
             said[action].text, p->def.name, event, log_text(error, shown));
}

/* The command line fits the definition: a library only for what is in C, and as many processes as it says, when
 * it says it: another set of files would begin at event 1. */
static int fits(const struct projector *p, struct azoth_error *err)
{
    const struct sqlfile *d = &p->def;
    if (p->load && !sqlfile_in_c(d))
        return error_set(err, AZOTH_ERR_USAGE, "--load: nothing of %s is in C", d->path);
    if (is_effects(p) && p->shards > 1)
        return error_set(err, AZOTH_ERR_USAGE,
                         "%s: effects are not split: start more azoth-effects workers", d->name);
    if (d->target != TARGET_SQLITE && p->shards > 1)
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s: a projection in PostgreSQL is not split: start azoth-projector %s",
                         d->path, d->name);
    if (d->shards && d->shards != p->shards)
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s says %u shards: start azoth-projector %s 0/%u to %u/%u", d->path,
                         d->shards, d->name, d->shards, d->shards - 1, d->shards);
    return 0;
}

/* How long what kept the file from being opened is waited for. */
static uint64_t patience_ns(const struct projector *p, int rc)
{
    switch (rc) {
    case AZOTH_ERR_UNREACHABLE:
        return SERVER_PATIENCE_NS;
    case AZOTH_ERR_NOSPACE:
        return p->once ? 0 : SERVER_PATIENCE_NS;
    case AZOTH_ERR_DUPLICATE:
        return LOCK_PATIENCE_NS;
    default:
        return 0;
    }
}

static int open_file(struct projector *p, const struct table_options *o, struct azoth_error *err)
{
    return is_effects(p) ? open_effects(p, o, err) : table_open(&p->def, o, &p->table, err);
}

/* UNREACHABLE, DUPLICATE, NOSPACE: it did not come, or we are asked to stop. */
static int open_when_there(struct projector *p, const struct table_options *o,
                           struct azoth_error *err)
{
    uint64_t begun = clock_mono_ns();
    int rc, said = 0;
    struct pollfd fd = {.fd = p->service.signal_fd, .events = POLLIN};
    while ((rc = open_file(p, o, err)) && !p->effects &&
           clock_mono_ns() - begun < patience_ns(p, rc)) {
        int lock = rc == AZOTH_ERR_DUPLICATE;
        if (!said++)
            log_error(LOG_LEVEL_WARN, "waiting", err);
        service_status(&p->service, "waiting for %s",
                       lock                      ? "the lock"
                       : rc == AZOTH_ERR_NOSPACE ? "room on the disk"
                                                 : "PostgreSQL");
        poll(&fd, 1, lock ? LOCK_AGAIN_MS : SERVER_AGAIN_MS);
        if (service_poll(&p->service))
            break;
    }
    return rc;
}

static int open_table(struct projector *p, struct azoth_error *err)
{
    char stem[SPLIT_STEM];
    if (p->discard) {
        snprintf(p->def.name, sizeof p->def.name, "%s", p->program.instance_name);
        return 0;
    }
    snprintf(p->dir, sizeof p->dir, "%s/projections", p->program.dir);
    if (p->definition)
        snprintf(p->path, sizeof p->path, "%s", p->definition);
    else
        snprintf(p->path, sizeof p->path, "%s/%s.sql", p->dir, p->program.instance_name);
    int rc = sqlfile_read(p->path, &p->def, err);
    if (rc)
        return rc;
    if (strcmp(p->def.name, p->program.instance_name) != 0)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s defines projection %s, not %s", p->def.path,
                         p->def.name, p->program.instance_name);
    rc = fits(p, err);
    if (!rc)
        rc = dbdir_make(p->dir, 0770, err);
    split_stem(stem, p->def.name, p->shard, p->shards);
    p->options = (struct table_options){
        .dir = p->dir,
        .postgresql = p->program.config.text[CONFIG_projector_postgresql],
        .uuid = p->uuid,
        .load = p->load,
        .accept_changed = p->accept_changed,
        .shard = p->shard,
        .shards = p->shards,
    };
    if (!rc)
        rc = open_when_there(p, &p->options, err);
    if (!rc)
        rc = control_open(p->program.run_dir, stem, &p->control, err);
    if (!rc && p->table) {
        table_on_failure(p->table, on_failure, p);
        table_cursor(p->table, &p->cursor, &p->cursor_check);
    }
    return rc;
}

static int open_pull(struct projector *p, struct azoth_error *err)
{
    const struct config *c = &p->program.config;
    char feed[256];
    int rc = 0;
    /* The path carries the process: nn_close unlinks it, also when a newer process has bound it. */
    if (c->text[CONFIG_projector_endpoint][0])
        snprintf(p->endpoint, sizeof p->endpoint, "%s", c->text[CONFIG_projector_endpoint]);
    else
        rc = dbdir_endpoint(p->endpoint, sizeof p->endpoint, p->program.run_dir, err,
                            "p-%s-%d.sock", p->def.name, (int)getpid());
    if (!rc && c->text[CONFIG_feed_connect][0])
        snprintf(feed, sizeof feed, "%s", c->text[CONFIG_feed_connect]);
    else if (!rc)
        rc = dbdir_endpoint(feed, sizeof feed, p->program.run_dir, err, "feed.sock");
    if (rc)
        return rc;
    struct pull_options o = {
        .name = p->def.name,
        .feed = feed,
        .endpoint = p->endpoint,
        .shard = p->shard,
        .shards = p->shards,
        .shard_by = p->def.shard_by,
        .types = p->table     ? table_types(p->table)
                 : p->effects ? effects_types(p->effects)
                              : (struct azoth_bytes){0},
        .credit_bytes = (uint32_t)c->number[CONFIG_projector_credit],
        .timeout_ns = c->number[CONFIG_projector_timeout] * NS_PER_MS,
        .cursor = p->cursor,
        .cursor_check = p->cursor_check,
    };
    memcpy(o.uuid, p->uuid, sizeof o.uuid);
    rc = pull_open(&o, &p->pull, err);
    if (!rc && p->effects) {
        p->cursor = effects_settled(p->effects);
        pull_report(p->pull, p->cursor, p->full_ns ? PROJECTION_RETRYING : PROJECTION_RUNNING,
                    p->failures, p->full_ns ? p->full : NULL);
    }
    return rc;
}

static int count_only(struct projector *p, const struct wire_batch *b, struct azoth_error *err)
{
    struct event_record ev;
    size_t at = 0;
    int rc;
    while ((rc = record_frame_next(b->frames, &at, &ev, NULL)) == 1)
        p->events++;
    if (rc < 0)
        return error_set(err, rc, "a batch's frames fail their check");
    p->cursor = b->last;
    return 0;
}

/* ---- what the feed is told ---- */

static uint32_t state_of(const struct projector *p)
{
    if (p->full_ns)
        return PROJECTION_RETRYING;
    if (p->standing.event && (p->holds || p->standing.wait_ns))
        return PROJECTION_RETRYING;
    if (p->standing.breaker == BREAKER_OPEN)
        return PROJECTION_OPEN;
    return p->cursor >= p->head ? PROJECTION_IDLE : PROJECTION_RUNNING;
}

static uint64_t errors_of(const struct projector *p)
{
    return p->table ? table_failures(p->table) : p->failures;
}

/* Of running time, from there until now; 0 for 0. */
static uint64_t passed_ns(uint64_t since_ns)
{
    uint64_t now = clock_mono_ns();
    return since_ns == 0 ? 0 : now > since_ns ? now - since_ns : 1;
}

static void look(struct projector *p)
{
    struct table_stats st;
    if (!p->table)
        return;
    table_cursor(p->table, &p->cursor, &p->cursor_check);
    table_standing(p->table, &p->standing);
    table_stats(p->table, &st);
    const struct table_standing *s = &p->standing;
    int in_file = p->def.target == TARGET_SQLITE;
    if (p->pull)
        pull_faults(p->pull,
                    &(struct pull_faults){.breaker = s->breaker,
                                          .dead_waiting = s->waiting,
                                          .dead_retired = s->retired,
                                          .dead_parked = s->parked,
                                          .stands_event = s->event ? s->event : s->failed,
                                          .next_ns = s->wait_ns,
                                          .wal_bytes = in_file ? st.wal_bytes : WIRE_NO_WAL,
                                          .wal_pinned_for_ns = passed_ns(st.wal_pinned_ns)});
}

static void report(struct projector *p)
{
    look(p);
    pull_report(p->pull, p->cursor, state_of(p), errors_of(p),
                p->standing.event ? p->standing.error : NULL);
}

/* What is to be done, which the feed cannot know. */
static void advise(const struct projector *p, int rc, struct azoth_error *err)
{
    static const char cause[] =
        "the rows are of another log than this (was an older copy of the database put back?)";
    struct azoth_error why = *err;
    const char *name = p->def.name;
    if (rc != AZOTH_ERR_DIVERGED || p->discard)
        return;
    if (p->def.target == TARGET_POSTGRESQL)
        error_set(err, rc, "%s: %s: drop the projection's schema to project this one", why.message,
                  cause);
    else if (p->def.effects[0])
        error_set(err, rc,
                  "%s: %s: the ledger of effects belongs to its log, put it back with that copy",
                  why.message, cause);
    else
        error_set(err, rc, "%s: %s: azoth projection rebuild %s makes them anew from this one",
                  why.message, cause, name);
}

/* Where the projection's files lie, also when nothing of it could be opened. */
static void last_place(const struct projector *p, char dir[4300], char stem[SPLIT_STEM])
{
    snprintf(dir, 4300, "%s/projections", p->program.dir);
    split_stem(stem, p->program.instance_name, p->shard, p->shards);
}

static void say_last(const struct projector *p, const struct azoth_error *err)
{
    char dir[4300], stem[SPLIT_STEM];
    struct last_words w = {.at_ns = clock_wall_ns(),
                           .event = p->standing.event ? p->standing.event : p->standing.failed,
                           .code = err->code};
    if (p->discard || !p->program.instance_name[0])
        return;
    snprintf(w.message, sizeof w.message, "%s", err->message);
    last_place(p, dir, stem);
    last_write(dir, stem, &w);
}

/* It has applied something, or there is nothing to apply: what stopped an earlier one is over. */
static void look_whether_it_gets_on(struct projector *p)
{
    char dir[4300], stem[SPLIT_STEM];
    if (p->gets_on || p->holds || p->discard ||
        !(p->cursor > p->opened_at || (p->heard && p->cursor >= p->head)))
        return;
    p->gets_on = 1;
    last_place(p, dir, stem);
    last_forget(dir, stem);
}

static int failed(struct projector *p, int rc, struct azoth_error *err)
{
    advise(p, rc, err);
    look(p);
    if (p->pull)
        pull_report(p->pull, p->cursor, PROJECTION_FAILED, errors_of(p) + (errors_of(p) == 0),
                    err->message);
    return rc;
}

/* ---- a turn ---- */

/* For the histograms: what the batch took, and how old its oldest event had become by the end. */
static void sample(struct projector *p, const struct wire_batch *b, uint64_t begun_ns)
{
    struct event_record oldest;
    size_t at = 0;
    if (!p->pull || record_frame_next(b->frames, &at, &oldest, NULL) != 1)
        return;
    pull_sample(p->pull,
                &(struct wire_sample){.apply_us = as_us((int64_t)(clock_mono_ns() - begun_ns)),
                                      .lag_us = as_us(clock_wall_ns() - oldest.time_ns)});
}

static int apply(struct projector *p, const struct wire_batch *b, struct azoth_error *err)
{
    int rc = 0;
    uint64_t begun_ns = clock_mono_ns();
    p->head = b->head;
    if (b->last >= b->first)
        rc = p->discard
                 ? count_only(p, b, err)
                 : table_apply(p->table, b->frames, p->cursor + 1, b->last, b->last_check, err);
    /* The message is borrowed until the next pull_next(), which a held batch puts off. */
    p->holds = rc == TABLE_STANDS || rc == AZOTH_ERR_NOSPACE;
    if (p->holds)
        p->held = *b;
    if (rc < 0)
        return rc;
    if (!p->holds)
        sample(p, b, begun_ns);
    report(p);
    return 0;
}

/* Dead letters: 1 when some were tried. Those of a round take turns with batches. */
static int replay(struct projector *p, uint64_t now, struct azoth_error *err)
{
    int tried = 0, rc;
    if (!p->table || table_replay_wait_ns(p->table))
        return 0;
    do {
        rc = table_replay_step(p->table, err);
        tried += rc > 0;
    } while (rc > 0 && clock_mono_ns() - now < REPLAY_NS);
    if (rc < 0)
        return rc;
    if (tried)
        report(p);
    return tried > 0;
}

static int do_command(void *arg, const uint8_t id[COMMAND_ID_BYTES], const char *text,
                      char answer[COMMAND_ANSWER_MAX], struct azoth_error *err)
{
    struct projector *p = arg;
    int other = 0;
    /* What is asked for behind an adoption waits for who opens the file that serves then. */
    if (p->another) {
        snprintf(answer, COMMAND_ANSWER_MAX, "refused %d another file serves: ask again",
                 AZOTH_ERR_BUSY);
        return 0;
    }
    if (is_effects(p) && !p->effects) {
        snprintf(answer, COMMAND_ANSWER_MAX, "refused %d %s", AZOTH_ERR_NOSPACE, p->full);
        return 0;
    }
    if (!adopt_command(p->path, &p->options, p->cursor, text, answer, &other))
        return p->table ? table_command(p->table, id, text, answer, err)
                        : effects_command(p->effects, id, text, answer, err);
    p->another |= other;
    char shown[2][LOG_TEXT];
    log_line(LOG_LEVEL_NOTICE, "asked projection=%s cursor=%" PRIu64 " what=\"%s\" answer=\"%s\"",
             p->def.name, p->cursor, log_text(text, shown[0]), log_text(answer, shown[1]));
    return 0;
}

/* How many commands were done. */
static int command(struct projector *p, uint64_t now, struct azoth_error *err)
{
    int rc = p->control ? control_step(p->control, p->cursor, now, do_command, p, err) : 0;
    if (rc > 0 && p->table)
        report(p);
    return rc;
}

static void close_effects(struct projector *p)
{
    effects_server_close(p->server);
    effects_close(p->effects);
    p->server = NULL;
    p->effects = NULL;
}

/*
 * The disk is full: nothing of what failed is there, and it is tried again now and then, since others give
 * room back. Ending would only use up the starts that a supervisor allows. A ledger of effects in memory is
 * ahead of its file then: it is read again, and workers say again what they had said.
 */
static int no_room(struct projector *p, uint64_t now, const struct azoth_error *why)
{
    close_effects(p);
    if (!p->full_ns)
        log_error(LOG_LEVEL_ERR, "waiting for room on the disk", why);
    p->full_ns = now + FULL_AGAIN_NS;
    snprintf(p->full, sizeof p->full, "%s", why->message);
    return 0;
}

static void there_is_room(struct projector *p)
{
    if (!p->full_ns)
        return;
    p->full_ns = 0;
    log_line(LOG_LEVEL_NOTICE, "there is room again projection=%s cursor=%" PRIu64, p->def.name,
             p->cursor);
    report(p);
}

/* 1: there may be more to do at once. */
static int turn(struct projector *p, uint64_t now, struct azoth_error *err)
{
    struct wire_batch b;
    int rc = command(p, now, err), tried = rc > 0;
    if (rc < 0 || p->another)
        return rc;
    look(p);
    if (now < p->full_ns) {
        pull_hold(p->pull, now, p->cursor, state_of(p), errors_of(p), p->full);
        return tried;
    }
    int held = control_held_ns(p->control, now) != 0;
    rc = held ? 0 : replay(p, now, err);
    if (rc < 0 || (rc && table_has_released(p->table)))
        return rc;
    tried |= rc;
    if (held || p->standing.wait_ns) {
        /* Also without a batch: the breaker opened at the last event, or this is a new process. */
        pull_hold(p->pull, now, p->cursor, state_of(p), errors_of(p),
                  p->standing.event ? p->standing.error : NULL);
        return tried;
    }
    if (p->holds) {
        b = p->held;
        rc = apply(p, &b, err);
        if (!rc)
            there_is_room(p);
        return rc ? rc : 1;
    }
    there_is_room(p);
    int got = pull_next(p->pull, now, &b, err);
    if (got < 0)
        return got;
    if (!got)
        return tried;
    p->heard = 1;
    /* The head alone, told to one who asked, is no work. */
    if (b.last >= b.first)
        p->idle = 0;
    rc = apply(p, &b, err);
    return rc ? rc : 1;
}

static int take_effects(struct projector *p, uint64_t now, struct azoth_error *err)
{
    struct wire_batch b;
    if (!effects_room(p->effects)) {
        pull_keep(p->pull, now);
        return 0;
    }
    int got = pull_next(p->pull, now, &b, err);
    if (got <= 0)
        return got;
    p->heard = 1;
    p->head = b.head;
    int rc = effects_take(p->effects, b.frames, b.first, b.last, b.last_check, err);
    return rc ? rc : 1;
}

/* Of effects, behind no_room(). The disk counts as full for another moment: what did not fit comes at once.
 * NOSPACE: not yet. */
static int open_effects_again(struct projector *p, uint64_t now, struct azoth_error *err)
{
    int rc = open_effects(p, &p->options, err);
    if (!rc)
        rc = effects_probe(p->effects, err);
    if (rc)
        return rc;
    /* What the feed had sent is asked for anew, from the ledger's cursor. */
    pull_close(p->pull);
    p->pull = NULL;
    p->heard = 0;
    p->full_ns = now + FULL_AGAIN_NS;
    return open_pull(p, err);
}

/* 1: the disk is full, and it is not time yet to look again. */
static int without_room(struct projector *p, uint64_t now, struct azoth_error *err)
{
    if (!p->full_ns || (p->effects && now < p->full_ns))
        return 0;
    if (p->effects) {
        there_is_room(p);
        return 0;
    }
    int rc = now >= p->full_ns ? open_effects_again(p, now, err) : 1;
    /* A command about its letters has the lock, which we gave up. */
    if (rc == AZOTH_ERR_DUPLICATE)
        p->full_ns = now + FULL_AGAIN_NS;
    else if (rc <= 0)
        return rc;
    pull_hold(p->pull, now, p->cursor, PROJECTION_RETRYING, p->failures, p->full);
    return 1;
}

/* Of effects: what the feed and the status are told is how far every event is settled. */
static int turn_effects(struct projector *p, uint64_t now, struct azoth_error *err)
{
    struct effects_stats st;
    int asked = command(p, now, err);
    if (asked < 0 || p->another)
        return asked;
    int full = without_room(p, now, err);
    if (full)
        return full < 0 ? full : asked;
    int got = take_effects(p, now, err);
    int rc = got < 0 ? got : effects_server_step(p->server, now, err);
    if (rc < 0)
        return rc;
    effects_stats(p->effects, &st);
    pull_faults(p->pull, &(struct pull_faults){.dead_waiting = st.dead,
                                               .wal_bytes = st.wal_bytes,
                                               .wal_pinned_for_ns = passed_ns(st.wal_pinned_ns)});
    uint64_t settled = effects_settled(p->effects);
    if (asked || got || settled != p->cursor || st.failures != p->failures) {
        p->cursor = settled;
        p->failures = st.failures;
        pull_report(p->pull, settled, state_of(p), st.failures, p->full_ns ? p->full : st.error);
    }
    /* That there is nothing for a worker is told each second, and is no work. */
    if (st.commits != p->commits)
        p->idle = 0;
    p->commits = st.commits;
    return got || rc || asked;
}

static uint64_t sooner(uint64_t now, uint64_t until, uint64_t wait_ns)
{
    return wait_ns < until - now ? now + wait_ns : until;
}

/* A second without work: the WAL's space goes back. Once, until there is work again; but for a reader in the way, whose
 * end nobody tells. */
static void give_back_space(struct projector *p, uint64_t now)
{
    if (!p->idle) {
        p->idle = 1;
        p->idle_ns = now;
    }
    if (p->idle != 1 || now - p->idle_ns <= NS_PER_S)
        return;
    int again = p->table ? table_idle(p->table) : p->effects ? effects_idle(p->effects) : 0;
    p->idle = again ? 1 : 2;
    p->idle_ns = now;
    /* What it stands at is told by those who wait for it. */
    if (p->table && !p->holds && !p->full_ns)
        report(p);
}

static void rest(struct projector *p, uint64_t now)
{
    give_back_space(p, now);
    look(p);
    uint64_t held = control_held_ns(p->control, now);
    int full = now < p->full_ns;
    int stands = p->standing.wait_ns > 0 || full;
    int room = p->effects ? effects_room(p->effects) : !stands && !held;
    /* What waits in the transport while no more is taken is no reason to wake up. */
    struct pollfd fds[3 + CONTROL_CLIENTS] = {
        {.fd = p->service.signal_fd, .events = POLLIN},
        {.fd = room ? pull_poll_fd(p->pull) : -1, .events = POLLIN}};
    unsigned n = 2 + control_fds(p->control, fds + 2);
    uint64_t until = room ? pull_deadline_ns(p->pull) : now + PULL_KEEP_NS;
    if (until < now)
        until = now;
    if (p->standing.wait_ns)
        until = sooner(now, until, p->standing.wait_ns);
    if (full)
        until = sooner(now, until, p->full_ns - now);
    if (stands || held)
        until = sooner(now, until, pull_hold_ns(p->pull));
    if (held)
        until = sooner(now, until, held - now);
    else if (p->table && !full)
        until = sooner(now, until, table_replay_wait_ns(p->table));
    if (p->effects) {
        uint64_t due = effects_server_due_ns(p->server, now);
        fds[n++] = (struct pollfd){.fd = effects_server_poll_fd(p->server), .events = POLLIN};
        until = due > now ? sooner(now, until, due - now) : now;
    }
    uint64_t ms = (until - now) / NS_PER_MS + 1;
    poll(fds, n, ms > 1000 ? 1000 : (int)ms);
}

static void say_status(struct projector *p, uint64_t from, uint64_t since_ns)
{
    service_status(&p->service,
                   "event %" PRIu64 " of %" PRIu64 ", %.0f events/s, %" PRIu64 " behind, %s",
                   p->cursor, p->head, (double)(p->cursor - from) * 1e9 / (double)since_ns,
                   p->head > p->cursor ? p->head - p->cursor : 0,
                   p->heard ? projection_state_name(state_of(p)) : "no feed yet");
}

static int loop(struct projector *p, struct azoth_error *err)
{
    uint64_t said = clock_mono_ns(), from = p->cursor;
    while (!service_poll(&p->service)) {
        uint64_t now = clock_mono_ns();
        int worked = is_effects(p) ? turn_effects(p, now, err) : turn(p, now, err);
        if (worked == AZOTH_ERR_NOSPACE && !p->discard && !p->once)
            worked = no_room(p, now, err);
        if (worked < 0)
            return failed(p, worked, err);
        if (p->another)
            return 0;
        look_whether_it_gets_on(p);
        service_heartbeat(&p->service, now);
        if (p->service.reload)
            program_reload(&p->program.config, p->program.dir, p->program.argc, p->program.argv,
                           &p->service);
        if (now - said >= SERVICE_STATUS_NS) {
            say_status(p, from, now - said);
            said = now;
            from = p->cursor;
        }
        if (p->once && p->heard && !p->holds && p->cursor >= p->head)
            return 0;
        /* Not after work: what is applied is told by the call that finds nothing more. */
        if (!worked)
            rest(p, now);
    }
    return 0;
}

/* The name of a unit's instance carries the shard. */
static int take_shard(struct projector *p, struct azoth_error *err)
{
    char *colon = strchr(p->program.instance_name, ':');
    if (colon)
        *colon = 0;
    if (!p->program.instance_name[0])
        return error_set(err, AZOTH_ERR_USAGE, "which projection? (azoth-projector --help)");
    return colon ? split_parse(colon + 1, &p->shard, &p->shards, err) : 0;
}

static void close_all(struct projector *p)
{
    pull_close(p->pull);
    control_close(p->control);
    table_close(p->table);
    close_effects(p);
    sqlfile_fini(&p->def);
    p->pull = NULL;
    p->control = NULL;
    p->table = NULL;
}

/* From opening the file to closing it: until it is told to stop, or another file serves. */
static int project(struct projector *p, struct azoth_error *err)
{
    p->another = p->heard = p->holds = p->idle = 0;
    p->full_ns = 0;
    p->standing = (struct table_standing){0};
    p->gets_on = 0;
    int rc = open_table(p, err);
    int asked = patience_ns(p, rc) && p->service.stopping;
    if (!rc)
        rc = open_pull(p, err);
    p->opened_at = p->cursor;
    if (!rc) {
        log_line(LOG_LEVEL_NOTICE, "ready projection=%s shard=%u/%u cursor=%" PRIu64, p->def.name,
                 p->shard, p->shards, p->cursor);
        service_ready(&p->service, "event %" PRIu64, p->cursor);
        rc = loop(p, err);
        if (!rc && !p->another)
            pull_report(p->pull, p->cursor, PROJECTION_STOPPED, errors_of(p), NULL);
        if (!p->another)
            service_stopping(&p->service);
    }
    if (asked)
        rc = 0;
    if (!rc)
        log_line(LOG_LEVEL_NOTICE, "%s projection=%s cursor=%" PRIu64 " events=%" PRIu64,
                 p->another ? "reopening" : "stopped", p->def.name, p->cursor,
                 p->discard ? p->events : 0);
    close_all(p);
    return rc;
}

static int serve(struct projector *p, struct azoth_error *err)
{
    int rc = take_shard(p, err);
    if (rc)
        return rc;
    rc = service_init(&p->service, err);
    if (!rc)
        rc = read_uuid(p, err);
    while (!rc) {
        rc = project(p, err);
        if (rc)
            say_last(p, err);
        if (!p->another)
            break;
    }
    service_fini(&p->service);
    return rc;
}

int main(int argc, char **argv)
{
    if (program_help(argc, argv, "azoth-projector", usage))
        return 0;
    static struct projector p;
    struct azoth_error err = {0};
    p.program.name = "azoth-projector";
    p.program.flag = own_flag;
    p.program.arg = &p;
    p.program.parts = 1;
    p.shards = 1;
    program_keeps_memory();
    int rc = program_parse(&p.program, argc, argv, &err);
    if (!rc)
        rc = serve(&p, &err);
    if (rc)
        log_error(LOG_LEVEL_ERR, "stopping", &err);
    return rc ? service_exit_code(rc) : 0;
}
