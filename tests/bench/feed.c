/*
 * feed.c - rows 10 and 10b: from the store to a projector process that keeps nothing.
 *
 * Row 10's floor is a bare nanomsg pipeline that carries as many bytes of warm memory between two
 * processes in messages of 64 KiB. Row 10b's is the same pipeline with what no feed can leave out: raw
 * LMDB is read by a cursor, each record is checked and copied into the message, and checked again by
 * the receiver. What the product does beside that, and 10b's ratio shows: snapshots, subscriptions,
 * credit, ranges. All times include starting and ending the receiving process.
 */
#include "core/clock.h"
#include "core/record.h"
#include "tests/bench/load.h"
#include "tests/bench/raw.h"

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

static uint64_t check_frames(struct azoth_bytes frames)
{
    struct event_record ev;
    uint64_t n = 0;
    size_t at = 0;
    int rc;
    while ((rc = record_frame_next(frames, &at, &ev, NULL)) == 1)
        n++;
    must(rc == 0, "floor: a frame fails its check");
    return n;
}

/* Until so many messages have come; with check, so many events in messages of any size. */
int bench_feed_sink(const char *endpoint, uint64_t left, int check)
{
    int s = nn_socket(AF_SP, NN_PULL), patience_ms = 30000;
    must(s >= 0, "floor: socket");
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &patience_ms, sizeof patience_ms);
    must(nn_bind(s, endpoint) >= 0, endpoint);
    while (left > 0) {
        void *m;
        int n = nn_recv(s, &m, NN_MSG, 0);
        must(n > 0, "floor: receive");
        uint64_t got = check ? check_frames((struct azoth_bytes){m, (size_t)n}) : 1;
        must(got > 0 && got <= left, "floor: as much as was sent");
        left -= got;
        nn_freemsg(m);
    }
    nn_close(s);
    return 0;
}

static void send_memory(int s, const unsigned char *ring, uint64_t messages)
{
    for (uint64_t i = 0; i < messages; i++)
        must(nn_send(s, ring + i % RING * MESSAGE, MESSAGE, 0) == (int)MESSAGE, "floor: send");
}

static void send_events(int s, struct floor *f)
{
    struct azoth_error err;
    must(floor_read(f, &err) == 0, err.message);
    for (uint64_t id = 1; id <= EVENTS;) {
        size_t len;
        void *m = nn_allocmsg(MESSAGE, 0);
        must(m != NULL, "out of memory");
        int n = floor_frames(f, id, EVENTS, m, MESSAGE, &len, &err);
        must(n > 0, err.message);
        id += (uint64_t)n;
        m = nn_reallocmsg(m, len);
        must(m && nn_send(s, &m, NN_MSG, 0) == (int)len, "floor: send");
    }
    floor_unread(f);
}

/* Of ring, or of f when that is not NULL. */
static double floor_seconds(struct harness *h, const unsigned char *ring, struct floor *f)
{
    char endpoint[300], count[32], self[256];
    uint64_t messages = (uint64_t)EVENTS * FRAME / MESSAGE;
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/floor.sock", h->dir);
    snprintf(count, sizeof count, "%llu", (unsigned long long)(f ? EVENTS : messages));
    uint64_t from = clock_mono_ns();
    struct process *p = harness_start(h, "sink", 0, self, "--feed-sink", endpoint, count,
                                      f ? "check" : "count", NULL);
    int s = nn_socket(AF_SP, NN_PUSH), buffer = 4 << 20, reconnect = 10, patience_ms = 30000;
    must(s >= 0, "floor: socket");
    nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDBUF, &buffer, sizeof buffer);
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RECONNECT_IVL, &reconnect, sizeof reconnect);
    nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDTIMEO, &patience_ms, sizeof patience_ms);
    must(nn_connect(s, endpoint) >= 0, endpoint);
    if (f)
        send_events(s, f);
    else
        send_memory(s, ring, messages);
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

static void row_10(struct harness *h)
{
    unsigned char *ring = malloc((size_t)RING * MESSAGE);
    must(ring != NULL, "out of memory");
    memset(ring, 'x', (size_t)RING * MESSAGE);
    struct bench_row *r =
        bench_row("10", "events to a discarding projector / pipeline of as many bytes", "/s", 0.60);
    r->least = 1500000;
    for (int i = 0; i < bench_pairs(); i++) {
        double product = EVENTS / product_seconds(h);
        bench_pair(r, product, EVENTS / floor_seconds(h, ring, NULL));
        forget_ended(h);
    }
    free(ring);
}

static void row_10b(struct harness *h)
{
    struct floor *raw = raw_open(h->dir);
    raw_fill(raw, LOAD_EVENTS, EVENTS);
    struct bench_row *r =
        bench_row("10b", "the same / cursor, checks at both ends, pipeline, by hand", "/s", 0);
    for (int i = 0; i < bench_pairs(); i++) {
        double product = EVENTS / product_seconds(h);
        bench_pair(r, product, EVENTS / floor_seconds(h, NULL, raw));
        forget_ended(h);
    }
    floor_close(raw);
}

void bench_feed_rows(void)
{
    if (!bench_wants("10") && !bench_wants("10b"))
        return;
    struct harness h;
    bench_begin(&h);
    fill(h.dir);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    if (bench_wants("10"))
        row_10(&h);
    if (bench_wants("10b"))
        row_10b(&h);
    harness_end(&h);
}
