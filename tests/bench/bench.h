/*
 * bench.h - rows of a benchmark: the product beside its floor.
 *
 * A row measures both in turn, many times, for a fraction of a second each, and reports medians and
 * the median ratio of neighbours with its quartiles: a machine's speed drifts, ratios of neighbours do
 * not. The floor does the same durable work with the bare library: records of the product's size
 * (headers and checksums included) under keys of the product's order.
 *
 * Data lies below the directory that AZOTH_BENCH_DIR names, else below the build directory; a tmpfs is
 * refused, since nothing is durable there. One thread.
 */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include "tests/system/harness.h"

#include <stdint.h>

#define BENCH_FAILED    4 /* exit code: 1 is a row that misses its reach, 2 the command line */
#define BENCH_KEYS      100000u
#define BENCH_VALUE     100u
#define BENCH_PAIRS_MAX 101
#define BENCH_SLICE_NS  (400ull * 1000 * 1000)

struct bench_row {
    const char *row;     /* "3a": number, and letter when there are several */
    const char *name;    /* what product and floor are */
    const char *unit;    /* of product and floor: "/s", or "us" where less is better */
    double reach;        /* of the ratio; 0: reported without a bar */
    double least;        /* of the product, in its unit; 0: none */
    int lower_is_better; /* ratio is product / floor all the same; met when ratio <= reach */
    double product[BENCH_PAIRS_MAX], floor[BENCH_PAIRS_MAX];
    int n;
};

/* A new row, to be filled with bench_pair() bench_pairs() times. Never NULL: ends the program. */
struct bench_row *bench_row(const char *row, const char *name, const char *unit, double reach);
void bench_pair(struct bench_row *r, double product, double floor);
int bench_pairs(void); /* asked for with --pairs; 15 */
/* 1 when the row was asked for (--rows 1,3,12; all by default). "3" stands for 3a and 3b. A new row has to
 * be among those known in bench.c. */
int bench_wants(const char *row);
/* A point of the plots; series and unit are literals. */
void bench_point_throughput(const char *series, double in_flight, double per_second);
void bench_point_latency(const char *series, double in_flight, double microseconds);

/* Ends the program with a message and BENCH_FAILED unless ok. */
void must(int ok, const char *what);
uint64_t bench_random(void);
/* Key i of BENCH_KEYS as the product's load uses it: "acct/00000000123". */
struct azoth_bytes bench_key(char out[24], uint64_t i);
double bench_quantile(const double *v, int n, double q); /* of at most 1,000,000 values */
/* harness_begin() with the directory on the disk that is measured. */
void bench_begin(struct harness *h);
extern const char bench_value[BENCH_VALUE];

/* One function a file; each looks with bench_wants() which of its rows to run. */
void bench_write_rows(void);      /* 1 to 4, 7, 17, 18, and the plots: write.c */
void bench_chain_rows(void);      /* 7b to 7d: chain.c */
void bench_contention_rows(void); /* 12, 13, 14, 16: contention.c */
void bench_worker_rows(void);     /* 5, 6, 19: through_workers.c */
void bench_read_rows(void);       /* 8, 9: reads.c */
void bench_feed_rows(void);       /* 10: feed.c */
/* The receiving end of the floors of rows 10 and 10b, a process of its own:
 * bench --feed-sink ENDPOINT MESSAGES count, or EVENTS check. */
int bench_feed_sink(const char *endpoint, uint64_t left, int check);
void bench_projection_rows(void);        /* 11, 15, 20: projection.c */
void bench_growth_rows(uint64_t events); /* g1 to g7, only with --growth: growth.c */

#endif
