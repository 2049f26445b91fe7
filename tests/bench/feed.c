/*
 * feed.c - row 10: from the store to a projector process that keeps nothing, beside a bare nanomsg
 * pipeline that carries as many bytes between two processes in messages of 64 KiB.
 *
 * What the product does beside the floor, and the ratio shows: reading LMDB, checking each event on
 * both sides, asking for each batch. Both times include starting and ending the receiving process.
 */
#include "core/clock.h"
#include "core/record.h"
#include "tests/bench/load.h"

#include <nanomsg/nn.h>
#include <nanomsg/pipeline.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVENTS  6000000u
#define MESSAGE 65536u
#define RING    1024u /* messages: more than the caches hold, as the store is */
#define FRAME   (RECORD_FRAME_HEADER + RECORD_EVENT_HEADER + 9 + BENCH_VALUE)

int bench_feed_sink(const char *endpoint, uint64_t messages)
{
    int s = nn_socket(AF_SP, NN_PULL), patience_ms = 30000;
    must(s >= 0, "floor: socket");
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &patience_ms, sizeof patience_ms);
    must(nn_bind(s, endpoint) >= 0, endpoint);
    while (messages-- > 0) {
        void *m;
        must(nn_recv(s, &m, NN_MSG, 0) == (int)MESSAGE, "floor: receive");
        nn_freemsg(m);
    }
    nn_close(s);
    return 0;
}

static double floor_seconds(struct harness *h, const unsigned char *ring, uint64_t n)
{
    char endpoint[300], count[32], self[256];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/floor.sock", h->dir);
    snprintf(count, sizeof count, "%llu", (unsigned long long)n);
    uint64_t from = clock_mono_ns();
    struct process *p = harness_start(h, "sink", 0, self, "--feed-sink", endpoint, count, NULL);
    int s = nn_socket(AF_SP, NN_PUSH), buffer = 4 << 20, reconnect = 10, patience_ms = 30000;
    must(s >= 0, "floor: socket");
    nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDBUF, &buffer, sizeof buffer);
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RECONNECT_IVL, &reconnect, sizeof reconnect);
    nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDTIMEO, &patience_ms, sizeof patience_ms);
    must(nn_connect(s, endpoint) >= 0, endpoint);
    for (uint64_t i = 0; i < n; i++)
        must(nn_send(s, ring + i % RING * MESSAGE, MESSAGE, 0) == (int)MESSAGE, "floor: send");
    must(harness_wait(h, p, 60000) == 0, "the floor's receiver ended well");
    double seconds = (double)(clock_mono_ns() - from) / 1e9;
    nn_close(s);
    return seconds;
}

static double product_seconds(struct harness *h)
{
    uint64_t from = clock_mono_ns();
    struct process *p = harness_start(h, "projector", 0, "azoth-projector", "--dir", h->dir,
                                      "--discard", "--once", "discard", NULL);
    must(harness_wait(h, p, 60000) == 0, "the projector ended well");
    return (double)(clock_mono_ns() - from) / 1e9;
}

/* The feed stays; the places of those that have ended are used again. */
static void forget_ended(struct harness *h)
{
    while (h->processes > 1) {
        struct process *p = &h->process[--h->processes];
        for (int a = 0; p->argv[a]; a++)
            free(p->argv[a]);
        memset(p, 0, sizeof *p);
    }
}

static void fill(const char *dir)
{
    struct azoth *db = load_open_embedded(dir);
    struct azoth_error err;
    for (uint32_t i = 0; i < EVENTS;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int k = 0; k < 10000 && i < EVENTS; k++, i++)
            azoth_event_bytes(t, "deposited", (struct azoth_bytes){bench_value, BENCH_VALUE});
        must(azoth_commit(t, NULL, &err) == 0, err.message);
        azoth_txn_free(t);
    }
    azoth_close(db);
}

void bench_feed_rows(void)
{
    if (!bench_wants("10"))
        return;
    struct harness h;
    bench_begin(&h);
    fill(h.dir);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    unsigned char *ring = malloc((size_t)RING * MESSAGE);
    must(ring != NULL, "out of memory");
    memset(ring, 'x', (size_t)RING * MESSAGE);
    uint64_t messages = (uint64_t)EVENTS * FRAME / MESSAGE;
    struct bench_row *r =
        bench_row("10", "events to a discarding projector / pipeline of as many bytes", "/s", 0.60);
    r->least = 1500000;
    for (int i = 0; i < bench_pairs(); i++) {
        double product = EVENTS / product_seconds(&h);
        bench_pair(r, product, EVENTS / floor_seconds(&h, ring, messages));
        forget_ended(&h);
    }
    free(ring);
    harness_end(&h);
}
