/*
 * azoth-exporter - metrics and a page of one database, over HTTP.
 *
 * Reads shared memory alone and takes part in nothing: whatever becomes of it, no writer and no
 * client waits. It serves while there is no writer and before there is a database, and says so.
 */
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/program.h"
#include "core/service.h"
#include "exporter/http.h"
#include "exporter/look.h"
#include "exporter/metrics.h"
#include "exporter/page.h"
#include "exporter/status.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>

#define NOTE_NS   NS_PER_S
#define STATUS_NS (5 * NS_PER_S)
#define LOOK_NS   (100 * NS_PER_MS) /* answers within so long are of one look */

static const char usage[] =
    "usage: azoth-exporter --dir DIR | --instance DB  [--SECTION-KEY VALUE ...]\n"
    "\n"
    "Serves over HTTP what a database shows in shared memory, while it runs, stands, or is not "
    "there "
    "yet:\n"
    "  /             a page to look at\n"
    "  /metrics      for Prometheus\n"
    "  /healthz      200 while this process answers\n"
    "  /readyz       200 while the writer accepts transactions and every projection is within\n"
    "                exporter.max_lag_events and exporter.max_lag_seconds; 503 and what is not\n"
    "  /status.json  what the page polls\n"
    "\n"
    "  --dir DIR           the data directory (or AZOTH_DIR)\n"
    "  --instance DB       /var/lib/azoth/DB, as the systemd units call it\n"
    "  --exporter-listen HOST:PORT  default 127.0.0.1:7109; a port of its own for each database\n"
    "Exit status: 0 stopped, 100 do not restart.\n";

struct exporter {
    struct program program;
    struct service service;
    struct http *http;
    struct look_memory memory;
    struct look look;
    int up, ready; /* of the last look */
    struct text {
        uint64_t written_ns; /* 0: not yet */
        struct buf buf;
    } metrics, status, readiness;
};

enum which { METRICS, STATUS, READINESS };

static int write_text(struct exporter *e, enum which which, struct buf *b)
{
    const struct program *p = &e->program;
    buf_clear(b);
    switch (which) {
    case METRICS:
        return metrics_write(b, &e->look, http_requests(e->http));
    case STATUS:
        return status_write(b, &e->look, &e->memory, p->dir);
    default:
        return status_ready(b, &e->look, &p->config, &e->ready);
    }
}

/* A text of a look that is LOOK_NS old at most, however many ask for it. */
static int look(struct exporter *e, enum which which, struct azoth_bytes *ret)
{
    struct text *t = which == METRICS ? &e->metrics : which == STATUS ? &e->status : &e->readiness;
    uint64_t now = clock_mono_ns();
    int rc = 0;
    if (!t->written_ns || now - t->written_ns >= LOOK_NS) {
        look_open(&e->look, &e->memory, e->program.dir,
                  e->program.config.number[CONFIG_feed_lapse]);
        e->up = e->look.up;
        rc = write_text(e, which, &t->buf);
        look_close(&e->look);
        t->written_ns = rc ? 0 : now;
    }
    *ret = buf_bytes(&t->buf);
    return rc;
}

static const struct page {
    const char *path, *type;
    enum which which;
} pages[] = {
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", METRICS},
    {"/status.json", "application/json", STATUS},
    {"/readyz", "text/plain; charset=utf-8", READINESS},
};

static int handle(void *arg, const char *path, struct http_answer *a)
{
    struct exporter *e = arg;
    if (strcmp(path, "/") == 0) {
        *a = (struct http_answer){200, "text/html; charset=utf-8", page_html(), 1};
        return 1;
    }
    *a = (struct http_answer){200, "text/plain; charset=utf-8", bytes_str("ok\n"), 1};
    if (strcmp(path, "/healthz") == 0)
        return 1;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        if (strcmp(path, pages[i].path) != 0)
            continue;
        if (look(e, pages[i].which, &a->body)) {
            a->status = 503;
            a->body = bytes_str("out of memory\n");
            return 1;
        }
        a->type = pages[i].type;
        a->lasting = 0;
        if (pages[i].which == READINESS && !e->ready)
            a->status = 503;
        return 1;
    }
    return 0;
}

/* ---- the loop ---- */

/* SIGHUP: limits may change; the address and the directory stay. */
static void reload(struct exporter *e)
{
    struct program *p = &e->program;
    if (program_reload(&p->config, p->dir, p->argc, p->argv, &e->service))
        e->readiness.written_ns = 0;
}

static void say_status(struct exporter *e)
{
    struct azoth_bytes text;
    if (look(e, READINESS, &text) == 0)
        service_status(&e->service, "http://%s/: the writer is %s, %s; %" PRIu64 " requests",
                       http_address(e->http), e->up ? "up" : "down",
                       e->ready ? "ready" : "not ready", http_requests(e->http));
}

static void loop(struct exporter *e)
{
    uint64_t noted = 0, said = 0;
    while (!service_poll(&e->service)) {
        uint64_t now = clock_mono_ns();
        if (e->service.reload)
            reload(e);
        if (now - noted >= NOTE_NS) {
            noted = now;
            look_note(&e->memory, e->program.dir);
        }
        http_step(e->http, now);
        service_heartbeat(&e->service, now);
        if (now - said >= STATUS_NS) {
            said = now;
            say_status(e);
        }
        struct pollfd fds[] = {{.fd = e->service.signal_fd, .events = POLLIN},
                               {.fd = http_poll_fd(e->http), .events = POLLIN}};
        poll(fds, 2, http_timeout_ms(e->http));
    }
}

int main(int argc, char **argv)
{
    static struct exporter e;
    struct azoth_error err = {0};
    if (program_help(argc, argv, "azoth-exporter", usage))
        return 0;
    e.program.name = "azoth-exporter";
    e.program.looks_only = 1;
    int rc = program_parse(&e.program, argc, argv, &err);
    if (!rc && e.program.instance_name[0])
        rc = error_set(&err, AZOTH_ERR_USAGE, "%s: a database is all that is wanted",
                       e.program.instance_name);
    if (!rc)
        rc = service_init(&e.service, &err);
    if (!rc)
        rc = http_open(e.program.config.text[CONFIG_exporter_listen], handle, &e, &e.http, &err);
    if (!rc) {
        log_line(LOG_LEVEL_NOTICE, "ready listen=%s", http_address(e.http));
        service_ready(&e.service, "http://%s/", http_address(e.http));
        loop(&e);
        service_stopping(&e.service);
        log_line(LOG_LEVEL_NOTICE, "stopped requests=%" PRIu64, http_requests(e.http));
    }
    http_close(e.http);
    service_fini(&e.service);
    buf_fini(&e.metrics.buf);
    buf_fini(&e.status.buf);
    buf_fini(&e.readiness.buf);
    if (rc)
        log_error(LOG_LEVEL_ERR, "stopping", &err);
    return rc ? service_exit_code(rc) : 0;
}
