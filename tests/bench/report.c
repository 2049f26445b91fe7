/* report.c - the table and bench.json. */
#include "tests/bench/report.h"

static double ratio_of(const struct bench_row *r, double q)
{
    double v[BENCH_PAIRS_MAX];
    for (int i = 0; i < r->n; i++)
        v[i] = r->floor[i] > 0 ? r->product[i] / r->floor[i] : 0;
    return bench_quantile(v, r->n, q);
}

int report_met(const struct bench_row *r)
{
    double ratio = ratio_of(r, 0.5);
    if (r->least > 0 && bench_quantile(r->product, r->n, 0.5) < r->least)
        return 0;
    return r->reach == 0 || (r->lower_is_better ? ratio <= r->reach : ratio >= r->reach);
}

void report_table(struct bench_row *const *rows, int n)
{
    printf("\n%-4s %-64s %11s %11s %-3s %6s %13s %6s\n", "row", "product / floor", "product",
           "floor", "", "ratio", "quartiles", "reach");
    for (int i = 0; i < n; i++) {
        const struct bench_row *r = rows[i];
        char reach[16] = "-", least[40] = "";
        if (r->reach > 0)
            snprintf(reach, sizeof reach, "%s%.2f", r->lower_is_better ? "<" : "", r->reach);
        if (r->least > 0)
            snprintf(least, sizeof least, " and %.0f %s", r->least, r->unit);
        double product = bench_quantile(r->product, r->n, 0.5);
        int digits = product < 100 ? 2 : 0;
        printf("%-4s %-64s %11.*f %11.*f %-3s %6.2f %6.2f-%6.2f %6s%s%s\n", r->row, r->name, digits,
               product, digits, bench_quantile(r->floor, r->n, 0.5), r->unit, ratio_of(r, 0.5),
               ratio_of(r, 0.25), ratio_of(r, 0.75), reach, least, report_met(r) ? "" : "  MISSED");
    }
}

static void path_of(char out[400], const char *dir, const char *name, const char *suffix)
{
    must((size_t)snprintf(out, 400, "%s/%s%s", dir, name, suffix) < 400, "a path is too long");
}

FILE *report_create(const char *dir, const char *name)
{
    char path[400];
    path_of(path, dir, name, ".new");
    FILE *f = fopen(path, "w");
    must(f != NULL, path);
    return f;
}

void report_finish(FILE *f, const char *dir, const char *name)
{
    char from[400], to[400];
    path_of(from, dir, name, ".new");
    path_of(to, dir, name, "");
    int bad = ferror(f);
    must(fclose(f) == 0 && !bad, from);
    must(rename(from, to) == 0, to);
}

void report_json(const char *dir, struct bench_row *const *rows, int n)
{
    FILE *f = report_create(dir, "bench.json");
    fputs("[", f);
    for (int i = 0; i < n; i++) {
        const struct bench_row *r = rows[i];
        fprintf(f,
                "%s\n{\"row\":\"%s\",\"name\":\"%s\",\"unit\":\"%s\",\"product\":%.3f,"
                "\"floor\":%.3f,\"ratio\":%.3f,\"quartiles\":[%.3f,%.3f],\"pairs\":%d,"
                "\"reach\":%.2f,\"least\":%.0f,\"lower_is_better\":%s,\"met\":%s}",
                i ? "," : "", r->row, r->name, r->unit, bench_quantile(r->product, r->n, 0.5),
                bench_quantile(r->floor, r->n, 0.5), ratio_of(r, 0.5), ratio_of(r, 0.25),
                ratio_of(r, 0.75), r->n, r->reach, r->least, r->lower_is_better ? "true" : "false",
                report_met(r) ? "true" : "false");
    }
    fputs("\n]\n", f);
    report_finish(f, dir, "bench.json");
}
