/*
 * bench_feed.c - the feed beside its floor: events a second from the store to a projector process that
 * keeps nothing, and a bare nanomsg PUSH/PULL pipeline that carries the same bytes between two
 * processes in messages of 64 KiB.
 *
 * What the product does beside the floor, and the ratio measures: reading LMDB, checking each event on
 * both sides, asking for each batch. Both include starting and ending the receiving process. Pairs are
 * interleaved, first one then the other begins.
 *
 *   bench_feed [--pairs N] [--events N]
 */
#include "core/clock.h"
#include "core/error.h"
#include "core/record.h"
#include "tests/system/harness.h"

#include <inttypes.h>
#include <nanomsg/nn.h>
#include <nanomsg/pipeline.h>
#include <string.h>
#include <unistd.h>

#define PAYLOAD   100u
#define MESSAGE   65536u
#define PAIRS_MAX 100

static void must(int ok, const char *what, const char *why)
{
    if (ok)
        return;
    fprintf(stderr, "bench_feed: %s: %s\n", what, why);
    exit(1);
}

/* ---- the floor ---- */

/* The receiving process: ends when it has so many messages. */
static int sink(const char *endpoint, uint64_t messages)
{
    int s = nn_socket(AF_SP, NN_PULL), patience_ms = 30000;
    must(s >= 0, "socket", nn_strerror(nn_errno()));
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &patience_ms, sizeof patience_ms);
    must(nn_bind(s, endpoint) >= 0, endpoint, nn_strerror(nn_errno()));
    while (messages > 0) {
        void *m;
        int n = nn_recv(s, &m, NN_MSG, 0);
        must(n == (int)MESSAGE, "receive", nn_strerror(nn_errno()));
        nn_freemsg(m);
        messages--;
    }
    nn_close(s);
    return 0;
}

static double floor_run(struct harness *h, const char *self, const unsigned char *bytes, uint64_t n)
{
    char endpoint[300], count[32];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/floor.sock", h->dir);
    snprintf(count, sizeof count, "%" PRIu64, n);
    uint64_t begin = clock_mono_ns();
    struct process *p = harness_start(h, "sink", 0, self, "--sink", endpoint, count, NULL);
    int s = nn_socket(AF_SP, NN_PUSH), buffer = 4 << 20, reconnect = 10, patience_ms = 30000;
    must(s >= 0, "socket", nn_strerror(nn_errno()));
    nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDBUF, &buffer, sizeof buffer);
    nn_setsockopt(s, NN_SOL_SOCKET, NN_RECONNECT_IVL, &reconnect, sizeof reconnect);
    nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDTIMEO, &patience_ms, sizeof patience_ms);
    must(nn_connect(s, endpoint) >= 0, endpoint, nn_strerror(nn_errno()));
    for (uint64_t i = 0; i < n; i++)
        must(nn_send(s, bytes + i * MESSAGE, MESSAGE, 0) == (int)MESSAGE, "send",
             nn_strerror(nn_errno()));
    must(harness_wait(h, p, 60000) == 0, "the sink", "did not end well");
    double seconds = (double)(clock_mono_ns() - begin) / 1e9;
    nn_close(s);
    return seconds;
}

/* ---- the product ---- */

static double product_run(struct harness *h)
{
    uint64_t begin = clock_mono_ns();
    struct process *p = harness_start(h, "projector", 0, "azoth-projector", "--dir", h->dir,
                                      "--discard", "--once", "discard", NULL);
    must(harness_wait(h, p, 60000) == 0, "the projector", "did not end well");
    return (double)(clock_mono_ns() - begin) / 1e9;
}

static void fill(struct harness *h, uint64_t events)
{
    static char value[PAYLOAD];
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = "none"};
    struct azoth *db;
    struct azoth_error err = {0};
    memset(value, 'x', sizeof value);
    must(azoth_open(h->dir, &o, &db, &err) == 0, "open", err.message);
    for (uint64_t i = 0; i < events;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int k = 0; k < 10000 && i < events; k++, i++)
            azoth_event_bytes(t, "deposited", (struct azoth_bytes){value, sizeof value});
        must(azoth_commit(t, NULL, &err) == 0, "commit", err.message);
        azoth_txn_free(t);
    }
    azoth_close(db);
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

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void run_pairs(struct harness *h, const char *self, uint64_t events, int pairs)
{
    double product[PAIRS_MAX], floor[PAIRS_MAX], ratio[PAIRS_MAX], n = (double)events;
    uint64_t frame = RECORD_FRAME_HEADER + RECORD_EVENT_HEADER + strlen("deposited") + PAYLOAD;
    uint64_t messages = events * frame / MESSAGE;
    unsigned char *bytes = malloc(messages * MESSAGE);
    must(bytes != NULL, "the floor's bytes", "out of memory");
    memset(bytes, 'x', messages * MESSAGE);
    for (int i = 0; i < pairs; i++) {
        double p = i % 2 ? 0 : product_run(h);
        double f = floor_run(h, self, bytes, messages);
        if (i % 2)
            p = product_run(h);
        product[i] = n / p;
        floor[i] = n / f;
        ratio[i] = f / p;
        forget_ended(h);
    }
    double least = ratio[0], most = ratio[0];
    for (int i = 0; i < pairs; i++) {
        least = ratio[i] < least ? ratio[i] : least;
        most = ratio[i] > most ? ratio[i] : most;
    }
    printf(
        "MEASURED feed product %.0f events/s, floor %.0f events/s (%.0f MB/s), ratio %.3f (%.3f to "
        "%.3f, %d pairs of %" PRIu64 " events)\n",
        median(product, pairs), median(floor, pairs), median(floor, pairs) * (double)frame / 1e6,
        median(ratio, pairs), least, most, pairs, events);
    free(bytes);
}

int main(int argc, char **argv)
{
    static struct harness h;
    uint64_t events = 2000000;
    int pairs = 7;
    if (argc == 4 && strcmp(argv[1], "--sink") == 0)
        return sink(argv[2], strtoull(argv[3], NULL, 10));
    for (int i = 1; i < argc; i++) {
        int more = i + 1 < argc;
        if (more && strcmp(argv[i], "--pairs") == 0)
            pairs = atoi(argv[++i]);
        else if (more && strcmp(argv[i], "--events") == 0)
            events = strtoull(argv[++i], NULL, 10);
        else
            must(0, argv[i], "usage: bench_feed [--pairs N] [--events N]");
    }
    must(pairs >= 1 && pairs <= PAIRS_MAX, "--pairs", "1 to 100");
    must(events >= 10000 && events <= 20000000, "--events", "10,000 to 20,000,000");
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    must(n > 0, "/proc/self/exe", "cannot be read");
    self[n] = 0;
    harness_begin(&h);
    fill(&h, events);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    run_pairs(&h, self, events, pairs);
    harness_end(&h);
    return 0;
}
