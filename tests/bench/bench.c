/*
 * bench.c - the rows that there are, their statistics, and the order of a run.
 *
 * This program runs itself again (guard.c) to measure; the outer one only waits, and clears away what
 * the inner one leaves. Results are written when all rows are measured, or not at all.
 */
#include "tests/bench/bench.h"

#include "core/clock.h"
#include "tests/bench/guard.h"
#include "tests/bench/report.h"

#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/vfs.h>

#define ROWS_MAX 64
#define MEASURE  "--measure" /* the first argument of the inner process */

const char bench_value[BENCH_VALUE] = {[0 ... BENCH_VALUE - 1] = 'x'};

/* What --rows may name, in the order of the table. Rows of growth are not chosen. */
static const char *const known[] = {"1",  "2",   "3a", "3b", "4",  "5",   "6",  "7",   "7b", "7c",
                                    "7d", "8a",  "8b", "9",  "10", "10b", "11", "12",  "13", "14",
                                    "15", "15b", "16", "17", "18", "19",  "20", "plot"};
#define KNOWN ((int)(sizeof known / sizeof *known))

static int pairs = 15, growth;
static uint64_t events = 10000000;
static const char *wanted; /* "1,3,12" or NULL */
static struct bench_row *rows[ROWS_MAX];
static int rows_len;

static struct plot throughput = {.file = "bench-throughput.svg",
                                 .title = "Durable transactions (one value set, one event logged)",
                                 .x_label = "transactions in flight (logarithmic)",
                                 .y_label = "transactions per second (logarithmic)"};
static struct plot latency = {.file = "bench-latency.svg",
                              .title = "Mean time from submission to the durable answer",
                              .x_label = "transactions in flight (logarithmic)",
                              .y_label = "microseconds (logarithmic)"};

void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench: %s\n", what);
    exit(BENCH_FAILED);
}

uint64_t bench_random(void)
{
    static uint64_t state = 88172645463325252u;
    return random_next(&state);
}

struct azoth_bytes bench_key(char out[24], uint64_t i)
{
    int n = snprintf(out, 24, "acct/%011llu", (unsigned long long)i);
    return (struct azoth_bytes){out, (size_t)n};
}

void bench_begin(struct harness *h)
{
    harness_begin(h);
    struct statfs fs;
    must(statfs(h->dir, &fs) == 0, "the data's file system");
    must(fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC,
         "the data would lie in memory: name a directory on a disk with AZOTH_BENCH_DIR");
}

int bench_pairs(void)
{
    return pairs;
}

/* Does `part` of len bytes name the row? "3" names 3a and 3b. */
static int names(const char *part, size_t len, const char *row)
{
    size_t digits = strspn(row, "0123456789");
    return (len == strlen(row) || (len == digits && len > 0)) && strncmp(part, row, len) == 0;
}

int bench_wants(const char *row)
{
    for (const char *p = wanted; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (names(p, strcspn(p, ","), row))
            return 1;
    return !wanted;
}

static int place_of(const char *row)
{
    for (int i = 0; i < KNOWN; i++)
        if (strcmp(known[i], row) == 0)
            return i;
    return -1;
}

struct bench_row *bench_row(const char *row, const char *name, const char *unit, double reach)
{
    must(rows_len < ROWS_MAX, "too many rows");
    must(growth || place_of(row) >= 0, "a row is not among those known");
    struct bench_row *r = calloc(1, sizeof *r);
    must(r != NULL, "out of memory");
    r->row = row;
    r->name = name;
    r->unit = unit;
    r->reach = reach;
    rows[rows_len++] = r;
    fprintf(stderr, "%-4s %s\n", row, name);
    return r;
}

void bench_pair(struct bench_row *r, double product, double floor)
{
    must(r->n < BENCH_PAIRS_MAX, "too many pairs");
    r->product[r->n] = product;
    r->floor[r->n++] = floor;
}

static void point_add(struct plot *p, const char *series, double x, double y)
{
    must(p->len < (int)(sizeof p->point / sizeof *p->point), "too many points");
    p->point[p->len++] = (struct plot_point){series, x, y};
}

void bench_point_throughput(const char *series, double in_flight, double per_second)
{
    point_add(&throughput, series, in_flight, per_second);
}

void bench_point_latency(const char *series, double in_flight, double microseconds)
{
    point_add(&latency, series, in_flight, microseconds);
}

/* ---- statistics ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_quantile(const double *v, int n, double q)
{
    must(n > 0, "no measurements");
    double *s = malloc((size_t)n * sizeof *s);
    must(s != NULL, "out of memory");
    memcpy(s, v, (size_t)n * sizeof *s);
    qsort(s, (size_t)n, sizeof *s, by_size);
    double x = s[(int)(q * (n - 1) + 0.5)];
    free(s);
    return x;
}

/* ---- the order of a run ---- */

/* In the order of `known`, whatever file measured them; those of growth by their names. */
static int by_row(const void *a, const void *b)
{
    const char *x = (*(struct bench_row *const *)a)->row, *y = (*(struct bench_row *const *)b)->row;
    int n = place_of(x), m = place_of(y);
    return n != m ? n - m : strcmp(x, y);
}

static int was_measured(const char *row)
{
    for (int i = 0; i < rows_len; i++)
        if (strcmp(rows[i]->row, row) == 0)
            return 1;
    return strcmp(row, "plot") == 0 && throughput.len > 0;
}

static int measure(const char *build)
{
    int missed = 0;
    if (growth) {
        bench_growth_rows(events);
    } else {
        bench_write_rows();
        bench_chain_rows();
        bench_contention_rows();
        bench_worker_rows();
        bench_read_rows();
        bench_feed_rows();
        bench_projection_rows();
        for (int i = 0; i < KNOWN; i++)
            must(!bench_wants(known[i]) || was_measured(known[i]), "a row was not measured");
    }
    qsort(rows, (size_t)rows_len, sizeof *rows, by_row);
    if (rows_len > 0) {
        report_table(rows, rows_len);
        report_json(build, rows, rows_len);
    }
    plot_write(build, &throughput);
    plot_write(build, &latency);
    for (int i = 0; i < rows_len; i++)
        missed += !report_met(rows[i]);
    return missed > 0;
}

/* ---- main ---- */

static const char usage[] =
    "usage: bench [--pairs N] [--rows 1,3,12] [--growth] [--events N]\n"
    "  The product beside its floor; --growth: rows of growth, over 10 million events or "
    "--events.\n"
    "  Writes bench.json and the plots to the build directory.\n"
    "  Exits with 1 when a row misses its reach, 4 when it could not measure. AZOTH_BENCH_DIR: "
    "where the data lies.\n";

static int refuse_row(const char *part, int len)
{
    fprintf(stderr, "bench: there is no row %.*s; there are", len, part);
    for (int i = 0; i < KNOWN; i++)
        fprintf(stderr, "%s %s", i ? "," : "", known[i]);
    fputs("\n", stderr);
    return 2;
}

static int check_wanted(void)
{
    for (const char *p = wanted; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        size_t len = strcspn(p, ",");
        int found = 0;
        for (int i = 0; i < KNOWN; i++)
            found |= names(p, len, known[i]);
        if (!found)
            return refuse_row(p, (int)len);
    }
    return 0;
}

static int number(const char *flag, const char *text, uint64_t least, uint64_t most, uint64_t *ret)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n < least || n > most) {
        fprintf(stderr, "bench: %s is %llu to %llu\n", flag, (unsigned long long)least,
                (unsigned long long)most);
        return 2;
    }
    *ret = n;
    return 0;
}

/* 0, or the exit code after the failure was told; -1: help was asked for. */
static int options(int argc, char **argv)
{
    int rc = 0;
    uint64_t n = (uint64_t)pairs, all = 0;
    for (int i = 1; i < argc && !rc; i++) {
        if (strcmp(argv[i], "--pairs") == 0 && i + 1 < argc) {
            rc = number("--pairs", argv[++i], 1, BENCH_PAIRS_MAX, &n);
        } else if (strcmp(argv[i], "--rows") == 0 && i + 1 < argc) {
            wanted = argv[++i];
        } else if (strcmp(argv[i], "--growth") == 0) {
            growth = 1;
        } else if (strcmp(argv[i], "--events") == 0 && i + 1 < argc) {
            rc = number("--events", argv[++i], 20000, 100000000, &all);
        } else if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return -1;
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    pairs = (int)n;
    events = all ? all : events;
    if (!rc && (growth ? wanted != NULL : all != 0)) {
        fputs("bench: --growth has --events, and all its rows; --rows are of the others\n", stderr);
        rc = 2;
    }
    return rc ? rc : check_wanted();
}

int main(int argc, char **argv)
{
    const char *build = getenv("AZOTH_BUILD") ? getenv("AZOTH_BUILD") : "build";
    if (argc == 5 && strcmp(argv[1], "--feed-sink") == 0)
        return bench_feed_sink(argv[2], strtoull(argv[3], NULL, 10), strcmp(argv[4], "check") == 0);
    if (argc > 1 && strcmp(argv[1], MEASURE) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int rc = options(argc - 1, argv + 1);
        return rc ? rc : measure(build);
    }
    int rc = options(argc, argv);
    if (rc)
        return rc < 0 ? 0 : rc;
    char **inner = calloc((size_t)argc + 2, sizeof *inner);
    must(inner != NULL, "out of memory");
    inner[0] = argv[0];
    inner[1] = (char[]){MEASURE};
    memcpy(inner + 2, argv + 1, (size_t)argc * sizeof *inner); /* with the NULL behind the last */
    rc = guard_run(inner, getenv("AZOTH_BENCH_DIR") ? getenv("AZOTH_BENCH_DIR") : build);
    free(inner);
    return rc;
}
