#include "tests/bench/bench.h"

#include "core/clock.h"

#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#define ROWS_MAX   64
#define POINTS_MAX 64

const char bench_value[BENCH_VALUE] = {[0 ... BENCH_VALUE - 1] = 'x'};

static int pairs = 15;
static const char *wanted; /* "1,3,12" or NULL */
static struct bench_row *rows[ROWS_MAX];
static int rows_len;
static const char *build;
static volatile sig_atomic_t interrupted;

struct point {
    const char *series;
    double x, y;
};
static struct point throughput[POINTS_MAX], latency[POINTS_MAX];
static int throughput_len, latency_len;

void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
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

int bench_wants(const char *row)
{
    size_t n = strspn(row, "0123456789");
    for (const char *p = wanted; p && *p;) {
        size_t len = strcspn(p, ",");
        if ((len == n || len == strlen(row)) && strncmp(p, row, len) == 0)
            return 1;
        p += len + (p[len] == ',');
    }
    return !wanted;
}

struct bench_row *bench_row(const char *row, const char *name, const char *unit, double reach)
{
    must(rows_len < ROWS_MAX, "too many rows");
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

static void on_signal(int signo)
{
    interrupted = signo;
}

void bench_pair(struct bench_row *r, double product, double floor)
{
    if (interrupted) {
        fprintf(stderr, "bench: interrupted; nothing is written\n");
        exit(128 + interrupted); /* the harness removes what it made */
    }
    must(r->n < BENCH_PAIRS_MAX, "too many pairs");
    r->product[r->n] = product;
    r->floor[r->n++] = floor;
}

static void point_add(struct point *list, int *len, const char *series, double x, double y)
{
    must(*len < POINTS_MAX, "too many points");
    list[(*len)++] = (struct point){series, x, y};
}

void bench_point_throughput(const char *series, double in_flight, double per_second)
{
    point_add(throughput, &throughput_len, series, in_flight, per_second);
}

void bench_point_latency(const char *series, double in_flight, double microseconds)
{
    point_add(latency, &latency_len, series, in_flight, microseconds);
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

static double ratio_of(const struct bench_row *r, double q)
{
    double v[BENCH_PAIRS_MAX];
    for (int i = 0; i < r->n; i++)
        v[i] = r->floor[i] > 0 ? r->product[i] / r->floor[i] : 0;
    return bench_quantile(v, r->n, q);
}

static int met(const struct bench_row *r)
{
    double ratio = ratio_of(r, 0.5);
    if (r->least > 0 && bench_quantile(r->product, r->n, 0.5) < r->least)
        return 0;
    return r->reach == 0 || (r->lower_is_better ? ratio <= r->reach : ratio >= r->reach);
}

/* ---- output ---- */

static void print_table(void)
{
    printf("\n%-4s %-64s %11s %11s %-3s %6s %13s %6s\n", "row", "product / floor", "product",
           "floor", "", "ratio", "quartiles", "reach");
    for (int i = 0; i < rows_len; i++) {
        const struct bench_row *r = rows[i];
        char reach[16] = "-";
        if (r->reach > 0)
            snprintf(reach, sizeof reach, "%s%.2f", r->lower_is_better ? "<" : "", r->reach);
        double product = bench_quantile(r->product, r->n, 0.5);
        int digits = product < 100 ? 2 : 0;
        printf("%-4s %-64s %11.*f %11.*f %-3s %6.2f %6.2f-%6.2f %6s%s\n", r->row, r->name, digits,
               product, digits, bench_quantile(r->floor, r->n, 0.5), r->unit, ratio_of(r, 0.5),
               ratio_of(r, 0.25), ratio_of(r, 0.75), reach, met(r) ? "" : "  MISSED");
    }
}

static FILE *create(const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", build, name);
    FILE *f = fopen(path, "w");
    must(f != NULL, path);
    return f;
}

static void write_json(void)
{
    FILE *f = create("bench.json.new");
    fputs("[", f);
    for (int i = 0; i < rows_len; i++) {
        const struct bench_row *r = rows[i];
        fprintf(f,
                "%s\n{\"row\":\"%s\",\"name\":\"%s\",\"unit\":\"%s\",\"product\":%.3f,"
                "\"floor\":%.3f,\"ratio\":%.3f,\"quartiles\":[%.3f,%.3f],\"pairs\":%d,"
                "\"reach\":%.2f,\"least\":%.0f,\"lower_is_better\":%s,\"met\":%s}",
                i ? "," : "", r->row, r->name, r->unit, bench_quantile(r->product, r->n, 0.5),
                bench_quantile(r->floor, r->n, 0.5), ratio_of(r, 0.5), ratio_of(r, 0.25),
                ratio_of(r, 0.75), r->n, r->reach, r->least, r->lower_is_better ? "true" : "false",
                met(r) ? "true" : "false");
    }
    fputs("\n]\n", f);
    must(fclose(f) == 0, "bench.json.new");
    char from[400], to[400];
    snprintf(from, sizeof from, "%s/bench.json.new", build);
    snprintf(to, sizeof to, "%s/bench.json", build);
    must(rename(from, to) == 0, to);
}

/* Rows by their numbers, whatever program file measured them; those of growth ("g1") behind. */
static int by_row(const void *a, const void *b)
{
    const char *x = (*(struct bench_row *const *)a)->row, *y = (*(struct bench_row *const *)b)->row;
    int n = *x == 'g' ? 1000 : atoi(x), m = *y == 'g' ? 1000 : atoi(y);
    return n != m ? n - m : strcmp(x, y);
}

/* Both axes are logarithmic, by powers of two. */
static double place(double v, double least, double most, double from, double to)
{
    double span = __builtin_log2(most / least);
    return from + (span > 0 ? __builtin_log2(v / least) / span : 0) * (to - from);
}

static void range_of(const struct point *p, int n, double *lo_x, double *hi_x, double *lo_y,
                     double *hi_y)
{
    *lo_x = *lo_y = 1e300;
    *hi_x = *hi_y = 0;
    for (int i = 0; i < n; i++) {
        *lo_x = p[i].x < *lo_x ? p[i].x : *lo_x;
        *hi_x = p[i].x > *hi_x ? p[i].x : *hi_x;
        *lo_y = p[i].y < *lo_y ? p[i].y : *lo_y;
        *hi_y = p[i].y > *hi_y ? p[i].y : *hi_y;
    }
}

static void draw(const char *file, const char *title, const struct point *p, int n)
{
    static const char *const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e"};
    if (n == 0)
        return;
    double lo_x, hi_x, lo_y, hi_y;
    range_of(p, n, &lo_x, &hi_x, &lo_y, &hi_y);
    FILE *f = create(file);
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"440\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"720\" height=\"440\" "
            "fill=\"white\"/>\n<text x=\"80\" y=\"24\" font-size=\"15\">%s</text>\n"
            "<path d=\"M80 40V380H520\" fill=\"none\" stroke=\"#444\"/>\n",
            title);
    const char *last = NULL;
    for (int i = 0, series = -1; i < n; i++) {
        double x = place(p[i].x, lo_x, hi_x, 90, 510), y = place(p[i].y, lo_y, hi_y, 370, 60);
        if (!last || strcmp(last, p[i].series) != 0) {
            series++;
            fprintf(f, "<text x=\"530\" y=\"%d\" fill=\"%s\">%s</text>\n", 60 + 18 * series,
                    colours[series % 5], p[i].series);
        } else {
            fprintf(f, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\"/>\n",
                    place(p[i - 1].x, lo_x, hi_x, 90, 510), place(p[i - 1].y, lo_y, hi_y, 370, 60),
                    x, y, colours[series % 5]);
        }
        fprintf(f,
                "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n<text x=\"%.1f\" "
                "y=\"%.1f\" text-anchor=\"middle\" font-size=\"10\">%.0f</text>\n",
                x, y, colours[series % 5], x, y - 7, p[i].y);
        if (series == 0)
            fprintf(f, "<text x=\"%.1f\" y=\"398\" text-anchor=\"middle\">%.0f</text>\n", x,
                    p[i].x);
        last = p[i].series;
    }
    fputs(
        "<text x=\"300\" y=\"424\" text-anchor=\"middle\">transactions in flight</text>\n</svg>\n",
        f);
    must(fclose(f) == 0, file);
}

/* ---- main ---- */

static const char usage[] =
    "usage: bench [--pairs N] [--rows 1,3,12] [--growth] [--events N]\n"
    "  The product beside its floor; --growth: rows of growth, over 10 million events or "
    "--events.\n"
    "  Writes bench.json and the plots to the build directory.\n"
    "  Exits with 1 when a row misses its reach. AZOTH_BENCH_DIR: where the data lies.\n";

int main(int argc, char **argv)
{
    int growth = 0;
    uint64_t events = 10000000;
    if (argc == 4 && strcmp(argv[1], "--feed-sink") == 0)
        return bench_feed_sink(argv[2], strtoull(argv[3], NULL, 10));
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--pairs") == 0 && i + 1 < argc) {
            pairs = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--rows") == 0 && i + 1 < argc) {
            wanted = argv[++i];
        } else if (strcmp(argv[i], "--growth") == 0) {
            growth = 1;
        } else if (strcmp(argv[i], "--events") == 0 && i + 1 < argc) {
            events = strtoull(argv[++i], NULL, 10);
        } else {
            fputs(usage, strcmp(argv[i], "--help") == 0 ? stdout : stderr);
            return strcmp(argv[i], "--help") == 0 ? 0 : 2;
        }
    }
    must(pairs >= 1 && pairs <= BENCH_PAIRS_MAX, "--pairs: 1 to 101");
    must(events >= 20000 && events <= 100000000, "--events: 20,000 to 100,000,000");
    build = getenv("AZOTH_BUILD") ? getenv("AZOTH_BUILD") : "build";
    setenv("TMPDIR", getenv("AZOTH_BENCH_DIR") ? getenv("AZOTH_BENCH_DIR") : build, 1);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (growth) {
        bench_growth_rows(events);
    } else {
        bench_write_rows();
        bench_contention_rows();
        bench_worker_rows();
        bench_read_rows();
        bench_feed_rows();
        bench_projection_rows();
    }
    if (rows_len == 0 && throughput_len == 0) {
        fprintf(stderr, "bench: --rows %s names no row; there are 1 to 19, and plot\n", wanted);
        return 2;
    }
    qsort(rows, (size_t)rows_len, sizeof *rows, by_row);
    if (rows_len > 0) {
        print_table();
        write_json();
    }
    draw("bench-throughput.svg", "durable transactions per second", throughput, throughput_len);
    draw("bench-latency.svg", "time to a durable answer, microseconds", latency, latency_len);
    for (int i = 0; i < rows_len; i++)
        if (!met(rows[i]))
            return 1;
    return 0;
}
