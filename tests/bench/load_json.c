/* load_json.c - the load of a client that has no libazoth: JSON text on raw REQ sockets. */
#include "core/clock.h"
#include "core/reqrep.h"
#include "tests/bench/load.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

void load_json_id(char out[33])
{
    static unsigned char client[10];
    static uint64_t made;
    if (!made++)
        must(getrandom(client, sizeof client, 0) == sizeof client, "random bytes");
    for (int i = 0; i < 10; i++)
        snprintf(out + 2 * i, 3, "%02x", client[i]);
    snprintf(out + 20, 13, "%012llx", (unsigned long long)(made & 0xffffffffffff));
}

void load_worker(struct harness *h, const char *name, const char *load, char endpoint[400])
{
    harness_start(h, name, 0, "azoth-worker", "--dir", h->dir, "--name", name,
                  load ? "--load" : NULL, load, NULL);
    snprintf(endpoint, 400, "ipc://%s/run/worker-%s.sock", h->dir, name);
    must(harness_answers(endpoint), "a worker does not answer");
}

struct line {
    struct reqrep *s;
    int in_flight;
    uint32_t sent;
};

static void send_one(struct line *l, struct buf *out, load_json_make make)
{
    struct azoth_error err;
    buf_clear(out);
    make(out);
    must(!reqrep_request(l->s, ++l->sent & 0x7fffffff, buf_bytes(out), 10000, &err), err.message);
    l->in_flight++;
}

/* What has come, without waiting; how many. */
static uint64_t collect(struct line *l)
{
    static const char good[] = "{\"ok\":true";
    struct azoth_error err = {0};
    struct azoth_bytes m;
    uint32_t id;
    uint64_t n = 0;
    int rc;
    while (l->in_flight && (rc = reqrep_collect(l->s, 0, &id, &m, &err)) != 0) {
        must(rc == 1, err.message);
        if (m.len < sizeof good || memcmp(m.ptr, good, sizeof good - 1) != 0)
            fprintf(stderr, "%.*s\n", (int)m.len, (const char *)m.ptr);
        must(m.len >= sizeof good && memcmp(m.ptr, good, sizeof good - 1) == 0, "was refused");
        reqrep_release(m);
        l->in_flight--;
        n++;
    }
    return n;
}

static uint64_t collect_all(struct line *l, int n, int *ret_in_flight)
{
    struct pollfd fd[LOAD_JSON_WORKERS];
    uint64_t done = 0;
    for (int i = 0; i < n; i++)
        fd[i] = (struct pollfd){.fd = reqrep_poll_fd(l[i].s), .events = POLLIN};
    must(poll(fd, (nfds_t)n, 30000) > 0, "no answer within 30 s");
    *ret_in_flight = 0;
    for (int i = 0; i < n; i++) {
        done += collect(&l[i]);
        *ret_in_flight += l[i].in_flight;
    }
    return done;
}

double load_json(const char *const *endpoint, int n, int in_flight, load_json_make make)
{
    struct line l[LOAD_JSON_WORKERS] = {{.sent = 0}};
    struct azoth_error err;
    struct buf out = {0};
    uint64_t done = 0;
    int left = 0;
    must(n <= LOAD_JSON_WORKERS, "too many workers");
    for (int i = 0; i < n; i++)
        must(!reqrep_connect(endpoint[i], &l[i].s, &err), err.message);
    uint64_t from = clock_mono_ns();
    while (clock_mono_ns() - from < BENCH_SLICE_NS) {
        for (int i = 0; i < n; i++)
            while (l[i].in_flight < in_flight / n)
                send_one(&l[i], &out, make);
        done += collect_all(l, n, &left);
    }
    double rate = (double)done * 1e9 / (double)(clock_mono_ns() - from);
    while (left > 0)
        collect_all(l, n, &left);
    for (int i = 0; i < n; i++)
        reqrep_close(l[i].s);
    buf_fini(&out);
    return rate;
}
