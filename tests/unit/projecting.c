#include "tests/unit/projecting.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

extern char **environ;

const uint8_t uuid[16] = {1, 2, 3};
struct projecting fx;

int begin(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof fx);
    snprintf(fx.dir, sizeof fx.dir, "/tmp/%.40s-XXXXXX", program_invocation_short_name);
    return mkdtemp(fx.dir) ? 0 : -1;
}

void shut(void)
{
    table_close(fx.table);
    fx.table = NULL;
    sqlfile_fini(&fx.def);
}

int end(void **state)
{
    (void)state;
    shut();
    buf_fini(&fx.frames);
    run((const char *[]){"rm", "-rf", fx.dir, NULL});
    return 0;
}

void run(const char *const *argv)
{
    pid_t pid;
    int status;
    assert_int_equal(posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

void good(int rc)
{
    if (rc)
        print_error("%s\n", fx.err.message);
    assert_int_equal(rc, 0);
}

void told(void *arg, enum failure_action action, uint64_t event, const char *error)
{
    size_t n = strlen(fx.told);
    (void)arg;
    assert_true(error[0]);
    snprintf(fx.told + n, sizeof fx.told - n, "%d:%" PRIu64 ";", (int)action, event);
}

void pass_ms(int64_t ms)
{
    fx.passed_ns += ms * MS;
    table_set_clock(fx.table, WALL + fx.passed_ns, 1000000000u + (uint64_t)fx.passed_ns);
}

/* ---- events ---- */

uint32_t add_event(struct buf *frames, const struct event_record *ev)
{
    unsigned char rec[4096];
    assert_true(record_event_size(ev) <= sizeof rec);
    record_event_encode(rec, ev);
    struct azoth_bytes b = bytes_of(rec, record_event_size(ev));
    assert_int_equal(record_frame_add(frames, ev->id, b), 0);
    return record_checksum(b);
}

void add_bytes(uint64_t id, const char *type, struct azoth_bytes payload)
{
    struct event_record ev = {.id = id,
                              .txn = id + 1000,
                              .time_ns = WALL + (int64_t)id,
                              .type = bytes_str(type),
                              .key = bytes_str("stream"),
                              .payload = payload};
    fx.check = add_event(&fx.frames, &ev);
    fx.last = id;
}

void add(uint64_t id, const char *type, const char *payload)
{
    add_bytes(id, type, bytes_str(payload));
}

int apply_range(uint64_t first, uint64_t last)
{
    memset(&fx.err, 0, sizeof fx.err);
    int rc = table_apply(fx.table, buf_bytes(&fx.frames), first, last, fx.check, &fx.err);
    if (rc != TABLE_STANDS)
        buf_clear(&fx.frames);
    return rc;
}

int apply(void)
{
    return apply_range(cursor() + 1, fx.last);
}

/* ---- reading ---- */

uint64_t cursor(void)
{
    uint64_t at;
    uint32_t check;
    table_cursor(fx.table, &at, &check);
    return at;
}

struct table_standing standing(void)
{
    struct table_standing s;
    table_standing(fx.table, &s);
    return s;
}

static char text[4000];

static int join(void *arg, int n, const char *const *names, const struct query_value *v)
{
    size_t *at = arg;
    (void)names;
    for (int i = 0; v && i < n; i++) {
        char *to = text + *at;
        size_t left = sizeof text - *at;
        if (v[i].type == QUERY_INTEGER)
            *at += (size_t)snprintf(to, left, "%s%" PRId64, i ? "," : "", v[i].integer);
        else if (v[i].type == QUERY_REAL)
            *at += (size_t)snprintf(to, left, "%s%gr", i ? "," : "", v[i].real);
        else if (v[i].type == QUERY_NULL)
            *at += (size_t)snprintf(to, left, "%snull", i ? "," : "");
        else
            *at +=
                (size_t)snprintf(to, left, "%s%.*s%s", i ? "," : "", (int)v[i].bytes.len,
                                 (const char *)v[i].bytes.ptr, v[i].type == QUERY_BLOB ? "b" : "");
        assert_true(*at < sizeof text);
    }
    *at += (size_t)snprintf(text + *at, sizeof text - *at, ";");
    return 0;
}

int ask(const char *name, const char *sql, struct azoth_error *err)
{
    size_t at = 0;
    text[0] = 0;
    return query_run(fx.dir, name, sql, join, &at, err);
}

const char *rows(const char *sql)
{
    struct azoth_error err = {0};
    if (ask("p", sql, &err))
        snprintf(text, sizeof text, "%s", err.message);
    return text;
}
