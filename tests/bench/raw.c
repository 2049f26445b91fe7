#include "tests/bench/raw.h"

#include "tests/bench/bench.h"

#include <stdio.h>

struct floor *raw_open(const char *parent)
{
    char dir[400];
    struct floor *f;
    struct azoth_error err;
    snprintf(dir, sizeof dir, "%s/raw", parent);
    must(floor_open(dir, &f, &err) == 0, err.message);
    return f;
}

void raw_fill(struct floor *f, enum bench_load_kind kind, uint64_t keys)
{
    struct bench_load l = {.kind = kind, .keys = keys, .value_bytes = BENCH_VALUE};
    struct azoth_error err;
    must(bench_load_fill_floor(f, &l, NULL, &err) == 0, err.message);
}

double raw_rate(struct floor *f, struct bench_load l, uint32_t together)
{
    double rate;
    struct azoth_error err;
    l.value_bytes = BENCH_VALUE;
    l.seed = bench_random();
    must(bench_load_floor(f, &l, together, BENCH_SLICE_NS, NULL, &rate, &err) == 0, err.message);
    return rate;
}

double raw_pairs(struct floor *f, int batch, int ids)
{
    struct bench_load l = {.kind = LOAD_PAIR, .keys = BENCH_KEYS, .ids = ids};
    return raw_rate(f, l, (uint32_t)batch);
}

double raw_events(struct floor *f)
{
    struct bench_load l = {.kind = LOAD_EVENTS, .keys = BENCH_KEYS, .events = 1000};
    return raw_rate(f, l, 1) * 1000;
}
