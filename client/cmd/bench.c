/*
 * bench.c - azoth bench: the load of the project's benchmarks on the user's own disk.
 *
 * A temporary database below the given directory, raw LMDB beside it in the same directory, both
 * filled with the same keys; then product and floor in turn until the time is over, so that a disk
 * whose speed drifts treats both alike. However it ends (Ctrl-C too), the directory is removed.
 */
#include "client/cmd/bench_load.h"
#include "client/cmd/cmd.h"

#include "core/clock.h"
#include "shm/segment.h"

#include <errno.h>
#include <ftw.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SLICE_NS     (250 * NS_PER_MS)
#define PAIRS_MAX    1000u
#define KEYS_DEFAULT 100000u
#define FLIGHTS      3

struct benching {
    char dir[4200];
    struct azoth *db;
    struct floor *floor;
    uint64_t keys;
    uint32_t value_bytes;
    int quiet; /* no progress */
};

struct result {
    uint32_t in_flight, pairs;
    double product[PAIRS_MAX], floor[PAIRS_MAX], ratio[PAIRS_MAX];
    struct bench_load_times times; /* of the product's transactions */
};

/* ---- the directory ---- */

static int make_dir(struct benching *b, const char *below, struct azoth_error *err)
{
    struct statfs fs;
    if (statfs(below, &fs))
        return error_errno(err, errno, "%s", below);
    if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
        return error_set(err, AZOTH_ERR_USAGE,
                         "%s is memory: commits cost nothing there; choose a directory on a disk",
                         below);
    snprintf(b->dir, sizeof b->dir, "%.4100s/azoth-bench-XXXXXX", below);
    if (mkdtemp(b->dir))
        return 0;
    int rc = error_errno(err, errno, "%s", b->dir);
    b->dir[0] = 0;
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

static void clean_up(struct benching *b)
{
    char db[4300];
    struct segment_name name;
    azoth_close(b->db);
    floor_close(b->floor);
    if (!b->dir[0])
        return;
    snprintf(db, sizeof db, "%s/db", b->dir);
    if (segment_name_of(db, &name, NULL) == 0)
        segment_unlink(&name); /* a writer that failed leaves it for the next one */
    nftw(b->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int begin(struct benching *b, const char *below, struct azoth_error *err)
{
    struct azoth_options o = {
        .flags = AZOTH_EMBEDDED | AZOTH_CREATE, .deadline_ms = 60000, .name = "bench"};
    struct bench_load l = {.kind = LOAD_PAIR, .keys = b->keys, .value_bytes = b->value_bytes};
    char db[4300], raw[4300];
    int rc = make_dir(b, below, err);
    snprintf(db, sizeof db, "%s/db", b->dir);
    snprintf(raw, sizeof raw, "%s/raw", b->dir);
    if (!rc && !b->quiet)
        fprintf(stderr, "azoth: filling %llu keys below %s\n", (unsigned long long)b->keys, b->dir);
    rc = rc ? rc : azoth_open(db, &o, &b->db, err);
    rc = rc ? rc : floor_open(raw, &b->floor, err);
    rc = rc ? rc : bench_load_fill(b->db, &l, cmd_interrupted, err);
    return rc ? rc : bench_load_fill_floor(b->floor, &l, cmd_interrupted, err);
}

/* ---- measuring ---- */

static int one_pair(struct benching *b, struct result *r, uint64_t seed, struct azoth_error *err)
{
    struct bench_load l = {.kind = LOAD_PAIR,
                           .keys = b->keys,
                           .value_bytes = b->value_bytes,
                           .seed = seed},
                      same = l;
    double *p = &r->product[r->pairs], *f = &r->floor[r->pairs];
    int rc = 0;
    if (r->pairs % 2)
        rc = bench_load_floor(b->floor, &same, r->in_flight, SLICE_NS, NULL, f, err);
    if (!rc)
        rc = bench_load_product(b->db, &l, r->in_flight, SLICE_NS, &r->times, p, err);
    if (!rc && r->pairs % 2 == 0)
        rc = bench_load_floor(b->floor, &same, r->in_flight, SLICE_NS, NULL, f, err);
    r->ratio[r->pairs] = *f > 0 ? *p / *f : 0;
    r->pairs += !rc;
    return rc;
}

static int measure(struct benching *b, struct result *r, uint64_t time_ns, struct azoth_error *err)
{
    uint64_t from = clock_mono_ns(), seed = 88172645463325252u;
    int tell = !b->quiet && isatty(2), rc = 0;
    do {
        rc = one_pair(b, r, bench_load_random(&seed), err);
        if (tell && !rc)
            fprintf(stderr, "\r%u in flight: %.0f/s, by hand %.0f/s, %.0f s to go  ", r->in_flight,
                    r->product[r->pairs - 1], r->floor[r->pairs - 1],
                    clock_mono_ns() - from < time_ns
                        ? (double)(time_ns - (clock_mono_ns() - from)) / 1e9
                        : 0.0);
    } while (!rc && !cmd_interrupted() && r->pairs < PAIRS_MAX && clock_mono_ns() - from < time_ns);
    if (tell)
        fprintf(stderr, "\n");
    return rc;
}

/* ---- output ---- */

/* Quantile of a few figures, by the sorting of times. */
static double quantile(const double *v, uint32_t n, double q)
{
    double copy[PAIRS_MAX];
    struct bench_load_times t = {.ns = copy, .len = n};
    memcpy(copy, v, n * sizeof *v);
    return bench_load_times_quantile(&t, q);
}

static void print_result(struct result *r)
{
    char p50[CMD_TIME_TEXT], p99[CMD_TIME_TEXT];
    printf("%9u %12.0f/s %12.0f/s %7.2f  %5.2f to %5.2f  %10s %10s\n", r->in_flight,
           quantile(r->product, r->pairs, 0.5), quantile(r->floor, r->pairs, 0.5),
           quantile(r->ratio, r->pairs, 0.5), quantile(r->ratio, r->pairs, 0.25),
           quantile(r->ratio, r->pairs, 0.75),
           cmd_duration((uint64_t)bench_load_times_quantile(&r->times, 0.5), p50),
           cmd_duration((uint64_t)bench_load_times_quantile(&r->times, 0.99), p99));
}

static void json_result(struct json_text *j, struct result *r)
{
    out_open(j, NULL, '{');
    out_u64(j, "in_flight", r->in_flight);
    out_u64(j, "pairs", r->pairs);
    out_real(j, "product", quantile(r->product, r->pairs, 0.5));
    out_real(j, "floor", quantile(r->floor, r->pairs, 0.5));
    out_real(j, "ratio", quantile(r->ratio, r->pairs, 0.5));
    out_real(j, "ratio_low", quantile(r->ratio, r->pairs, 0.25));
    out_real(j, "ratio_high", quantile(r->ratio, r->pairs, 0.75));
    out_u64(j, "p50_ns", (uint64_t)bench_load_times_quantile(&r->times, 0.5));
    out_u64(j, "p99_ns", (uint64_t)bench_load_times_quantile(&r->times, 0.99));
    out_close(j, '}');
}

static int print_results(const struct cmd_line *l, uint32_t value_bytes, struct result *results,
                         int n)
{
    struct json_text j = {0};
    if (l->json) {
        out_open(&j, NULL, '[');
        for (int i = 0; i < n; i++)
            json_result(&j, &results[i]);
        out_close(&j, ']');
        return out_print(&j);
    }
    printf("Durable transactions: one value of %u bytes set, one event of %u bytes logged.\n\n"
           "%9s %14s %14s %7s  %-14s  %10s %10s\n",
           value_bytes, value_bytes, "in flight", "azoth", "raw LMDB", "ratio", "quartiles", "p50",
           "p99");
    for (int i = 0; i < n; i++)
        print_result(&results[i]);
    return 0;
}

/* ---- the command ---- */

static const char *directory(const struct cmd_line *l)
{
    const char *env = getenv("AZOTH_DIR");
    return l->dir ? l->dir : env && *env ? env : ".";
}

static int run_all(struct cmd_line *l, struct benching *b, struct result *results, int n,
                   uint64_t time_ns)
{
    struct azoth_error err = {0};
    int rc = begin(b, directory(l), &err), done = 0;
    for (; done < n && !rc && !cmd_interrupted(); done++)
        rc = measure(b, &results[done], time_ns / (uint64_t)n, &err);
    if (rc)
        return cmd_fail(&err);
    if (done == 0) {
        fprintf(stderr, "azoth: interrupted before the first figure\n");
        return 128 + cmd_interrupted(); /* as shells tell it */
    }
    return print_results(l, b->value_bytes, results, done);
}

static int run_bench(struct cmd_line *l)
{
    struct cmd_number seconds = {.n = 10000}, keys = {.n = KEYS_DEFAULT}, flight = {0};
    struct cmd_number value_bytes = {.n = LOAD_VALUE};
    struct benching b = {0};
    const struct cmd_flag flags[] = {
        {"--seconds", FLAG_SECONDS, &seconds}, {"--in-flight", FLAG_NUMBER, &flight},
        {"--keys", FLAG_NUMBER, &keys},        {"--value-bytes", FLAG_NUMBER, &value_bytes},
        {"--quiet", FLAG_SWITCH, &b.quiet},    {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 0), n = flight.given ? 1 : FLIGHTS;
    if (rc)
        return rc;
    if (seconds.n < 1 || seconds.n > 3600000)
        return cmd_usage(l, "--seconds is 1 ms to 1 h");
    if (flight.given && (flight.n < 1 || flight.n > 1024))
        return cmd_usage(l, "--in-flight is 1 to 1024");
    if (keys.n < 2 || keys.n > 100000000)
        return cmd_usage(l, "--keys is 2 to 100,000,000");
    if (value_bytes.n < 1 || value_bytes.n > LOAD_VALUE_MAX)
        return cmd_usage(l, "--value-bytes is 1 to %u", LOAD_VALUE_MAX);
    struct result *results = calloc(FLIGHTS, sizeof *results);
    if (!results)
        return cmd_fail_code(AZOTH_ERR_NOMEM, "the results");
    static const uint32_t flights[FLIGHTS] = {1, 64, 256};
    for (int i = 0; i < n; i++)
        results[i].in_flight = flight.given ? (uint32_t)flight.n : flights[i];
    b.keys = keys.n;
    b.value_bytes = (uint32_t)value_bytes.n;
    cmd_catch_signals();
    rc = run_all(l, &b, results, n, seconds.n * NS_PER_MS);
    clean_up(&b);
    for (int i = 0; i < n; i++)
        free(results[i].times.ns);
    free(results);
    return rc;
}

const struct cmd cmd_bench = {
    .name = "bench",
    .synopsis = "[--seconds TIME] [--in-flight N] [--keys N] [--value-bytes N] [--quiet] [--json]",
    .summary = "Measure this disk: the database beside raw LMDB",
    .help =
        "  --dir DIR       a directory on the disk to measure; default AZOTH_DIR, or the current\n"
        "                  one. A database is made below it and removed again\n"
        "  --seconds TIME  measure for so long in all, after filling; default 10 s\n"
        "  --in-flight N   so many transactions at once, 1 to 1024; default 1, then 64, then 256\n"
        "  --keys N        that the transactions choose from; default 100000\n"
        "  --value-bytes N of the value and of the event's payload, 1 to 65536; default 100\n"
        "  --quiet         no progress on standard error\n\n"
        "Product and raw LMDB (as many pairs in one of its transactions as are in flight) run in\n"
        "turn; the ratio is the median of neighbours. Times are from submission to durable "
        "answer.\n\n"
        "Interrupted, it prints what it has measured; before the first figure it exits with "
        "130.\n\n"
        "  azoth bench --dir /var/lib/azoth --seconds 30\n",
    .run = run_bench,
};
