/*
 * report.h - what a run writes: the table on standard output, bench.json, and plots as SVG.
 *
 * A file is written beside its place and renamed: whoever reads it sees the last run or this one.
 * What cannot be written ends the program.
 */
#ifndef TESTS_BENCH_REPORT_H
#define TESTS_BENCH_REPORT_H

#include "tests/bench/bench.h"

#include <stdio.h>

/* The median of the product has to reach `least`, the median ratio `reach`. */
int report_met(const struct bench_row *r);
void report_table(struct bench_row *const *rows, int n);
void report_json(const char *dir, struct bench_row *const *rows, int n);

struct plot_point {
    const char *series; /* points of one series are neighbours */
    double x, y;        /* above 0 */
};
struct plot {
    const char *file, *title, *x_label, *y_label; /* labels name the units */
    struct plot_point point[64];
    int len;
};
/* Both axes are logarithmic. Writes nothing when there is no point. */
void plot_write(const char *dir, const struct plot *p);

/* A file of dir in the making, and its place taken. */
FILE *report_create(const char *dir, const char *name);
void report_finish(FILE *f, const char *dir, const char *name);

#endif
