/*
 * azoth-projector: applies events to one projection's SQLite file.
 *
 * The order of a turn: take a batch, ask for the next, apply this one and its cursor in one SQLite
 * transaction, tell the feed. Killed anywhere, it begins again at the cursor in the file. It opens
 * neither the store nor the segment, so it may run on another machine.
 */
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/log.h"
#include "core/program.h"
#include "core/record.h"
#include "core/service.h"
#include "projector/pull.h"
#include "projector/table.h"
#include "shm/projection_row.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: azoth-projector --dir DIR NAME | --instance DB:NAME  [options]\n"
    "\n"
    "Projects events into DIR/projections/NAME.db as DIR/projections/NAME.sql says.\n"
    "  --definition FILE   another definition file\n"
    "  --uuid HEX          the database's identity, where DIR/uuid is not at hand\n"
    "  --feed-connect URL  the feed's endpoint, e.g. tcp://10.0.0.1:7101\n"
    "  --accept-changed    go on although the handlers were changed\n"
    "  --once              project up to the newest event, then exit\n"
    "  --discard           count events and keep nothing (to measure the feed)\n"
    "Exit status: 0 stopped, 1 a handler failed, 75 try again, 100 do not restart.\n";

struct projector {
    struct program program;
    struct service service;
    const char *definition, *uuid_text;
    int accept_changed, once, discard;
    uint8_t uuid[16];
    struct sqlfile def;
    struct table *table;
    struct pull *pull;
    char endpoint[256];
    uint64_t cursor, head, events;
    uint32_t cursor_check;
    uint64_t idle_ns;
    int idle;
};

static int own_flag(void *arg, int argc, char **argv, int *i, struct azoth_error *err)
{
    struct projector *p = arg;
    const char *a = argv[*i];
    (void)err;
    if (strcmp(a, "--definition") == 0 && *i + 1 < argc)
        p->definition = argv[++*i];
    else if (strcmp(a, "--uuid") == 0 && *i + 1 < argc)
        p->uuid_text = argv[++*i];
    else if (strcmp(a, "--accept-changed") == 0)
        p->accept_changed = 1;
    else if (strcmp(a, "--once") == 0)
        p->once = 1;
    else if (strcmp(a, "--discard") == 0)
        p->discard = 1;
    else
        return 0;
    ++*i;
    return 1;
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

static int open_table(struct projector *p, struct azoth_error *err)
{
    char path[4300], dir[4300];
    if (p->discard) {
        snprintf(p->def.name, sizeof p->def.name, "%s", p->program.instance_name);
        return 0;
    }
    snprintf(dir, sizeof dir, "%s/projections", p->program.dir);
    snprintf(path, sizeof path, "%s/%s.sql", dir, p->program.instance_name);
    int rc = sqlfile_read(p->definition ? p->definition : path, &p->def, err);
    if (rc)
        return rc;
    if (strcmp(p->def.name, p->program.instance_name) != 0)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s defines projection %s, not %s", p->def.path,
                         p->def.name, p->program.instance_name);
    rc = dbdir_make(dir, 0770, err);
    struct table_options o = {
        .dir = dir, .uuid = p->uuid, .accept_changed = p->accept_changed, .shards = 1};
    if (!rc)
        rc = table_open(&p->def, &o, &p->table, err);
    if (!rc)
        table_cursor(p->table, &p->cursor, &p->cursor_check);
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
        .shards = 1,
        .shard_by = p->def.shard_by,
        .types = p->table ? table_types(p->table) : (struct azoth_bytes){0},
        .credit_bytes = (uint32_t)c->number[CONFIG_projector_credit],
        .timeout_ns = c->number[CONFIG_projector_timeout] * NS_PER_MS,
        .cursor = p->cursor,
        .cursor_check = p->cursor_check,
    };
    memcpy(o.uuid, p->uuid, sizeof o.uuid);
    return pull_open(&o, &p->pull, err);
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

static uint32_t state_of(const struct projector *p)
{
    return p->cursor >= p->head ? PROJECTION_IDLE : PROJECTION_RUNNING;
}

static int apply(struct projector *p, const struct wire_batch *b, struct azoth_error *err)
{
    int rc = 0;
    p->head = b->head;
    if (b->last >= b->first) {
        rc = p->discard ? count_only(p, b, err)
                        : table_apply(p->table, b->frames, b->first, b->last, b->last_check, err);
        if (p->table)
            table_cursor(p->table, &p->cursor, &p->cursor_check);
    }
    if (rc) {
        pull_report(p->pull, p->cursor, PROJECTION_FAILED, 1, err->message);
        return rc;
    }
    pull_report(p->pull, p->cursor, state_of(p), 0, NULL);
    return 0;
}

static void rest(struct projector *p, uint64_t now)
{
    /* A second without work: the WAL's space goes back. Once, until there is work again. */
    if (!p->idle) {
        p->idle = 1;
        p->idle_ns = now;
    } else if (p->idle == 1 && now - p->idle_ns > NS_PER_S && p->table) {
        table_idle(p->table);
        p->idle = 2;
    }
    struct pollfd fds[] = {{.fd = p->service.signal_fd, .events = POLLIN},
                           {.fd = pull_poll_fd(p->pull), .events = POLLIN}};
    uint64_t until = pull_deadline_ns(p->pull);
    uint64_t ms = until > now ? (until - now) / NS_PER_MS + 1 : 1;
    poll(fds, 2, ms > 1000 ? 1000 : (int)ms);
}

static int loop(struct projector *p, struct azoth_error *err)
{
    uint64_t said = 0;
    int heard = 0;
    while (!service_poll(&p->service)) {
        struct wire_batch b;
        uint64_t now = clock_mono_ns();
        int got = pull_next(p->pull, now, &b, err);
        if (got < 0) {
            pull_report(p->pull, p->cursor, PROJECTION_FAILED, 1, err->message);
            return got;
        }
        if (got) {
            heard = 1;
            /* The head alone, told to one who asked, is no work. */
            if (b.last >= b.first)
                p->idle = 0;
            int rc = apply(p, &b, err);
            if (rc)
                return rc;
        }
        service_heartbeat(&p->service, now);
        if (now - said > 5 * NS_PER_S) {
            said = now;
            service_status(&p->service, "event %" PRIu64 " of %" PRIu64, p->cursor, p->head);
        }
        if (p->once && heard && p->cursor >= p->head)
            return 0;
        /* Not after work: what is applied is told by the call that finds nothing more. */
        if (!got)
            rest(p, now);
    }
    return 0;
}

static int serve(struct projector *p, struct azoth_error *err)
{
    if (!p->program.instance_name[0])
        return error_set(err, AZOTH_ERR_USAGE, "which projection? (azoth-projector --help)");
    int rc = service_init(&p->service, err);
    if (!rc)
        rc = read_uuid(p, err);
    if (!rc)
        rc = open_table(p, err);
    if (!rc)
        rc = open_pull(p, err);
    if (!rc) {
        log_line(LOG_LEVEL_NOTICE, "ready projection=%s cursor=%" PRIu64, p->def.name, p->cursor);
        service_ready(&p->service, "event %" PRIu64, p->cursor);
        rc = loop(p, err);
        service_stopping(&p->service);
        if (!rc)
            pull_report(p->pull, p->cursor, PROJECTION_STOPPED, 0, NULL);
        /* nanomsg discards on close what it has not sent: leave the report a moment. */
        poll(NULL, 0, 20);
    }
    pull_close(p->pull);
    table_close(p->table);
    if (!rc)
        log_line(LOG_LEVEL_NOTICE, "stopped projection=%s cursor=%" PRIu64 " events=%" PRIu64,
                 p->def.name, p->cursor, p->discard ? p->events : 0);
    sqlfile_fini(&p->def);
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
    program_keeps_memory();
    int rc = program_parse(&p.program, argc, argv, &err);
    if (!rc)
        rc = serve(&p, &err);
    if (rc)
        log_error(LOG_LEVEL_ERR, "stopping", &err);
    return rc ? service_exit_code(rc) : 0;
}
