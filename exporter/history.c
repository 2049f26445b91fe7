#include "exporter/history.h"

#include <math.h>

static const struct history_point *
point(const struct history_ring *r, const struct history_point *points, uint32_t size, uint32_t i)
{
    return &points[(r->first + i) % size];
}

static void add(struct history_ring *r, struct history_point *points, uint32_t size,
                uint64_t step_ns, struct history_point p)
{
    if (r->len && p.at_ns - point(r, points, size, r->len - 1)->at_ns < step_ns)
        return;
    if (r->len == size) {
        r->first = (r->first + 1) % size;
        r->len--;
    }
    points[(r->first + r->len++) % size] = p;
}

void history_add(struct history *h, uint64_t now_ns, uint64_t value)
{
    struct history_point p = {now_ns, value};
    /* A tick is a little early now and then: half a second of tolerance keeps one point a tick. */
    add(&h->fine_ring, h->fine, HISTORY_FINE, HISTORY_FINE_NS / 2, p);
    add(&h->coarse_ring, h->coarse, HISTORY_COARSE, HISTORY_COARSE_NS, p);
}

static uint64_t last_at_most(const struct history_ring *r, const struct history_point *points,
                             uint32_t size, uint64_t value)
{
    for (uint32_t i = r->len; i > 0; i--) {
        const struct history_point *p = point(r, points, size, i - 1);
        if (p->value <= value)
            return p->at_ns;
    }
    return 0;
}

uint64_t history_last_at_most(const struct history *h, uint64_t value)
{
    uint64_t at = last_at_most(&h->fine_ring, h->fine, HISTORY_FINE, value);
    return at ? at : last_at_most(&h->coarse_ring, h->coarse, HISTORY_COARSE, value);
}

/* Least squares; the newest point is the origin, so that the numbers stay small. */
static double seconds_to_zero(const struct history_ring *r, const struct history_point *points,
                              uint32_t size)
{
    if (r->len < 2)
        return NAN;
    const struct history_point *newest = point(r, points, size, r->len - 1);
    if (newest->at_ns - point(r, points, size, 0)->at_ns < HISTORY_TREND_NS)
        return NAN;
    double n = r->len, st = 0, sv = 0, stt = 0, stv = 0;
    for (uint32_t i = 0; i < r->len; i++) {
        const struct history_point *p = point(r, points, size, i);
        double t = -(double)(newest->at_ns - p->at_ns) / 1e9;
        double v = (double)p->value - (double)newest->value;
        st += t;
        sv += v;
        stt += t * t;
        stv += t * v;
    }
    double slope = (n * stv - st * sv) / (n * stt - st * st);
    return slope < 0 ? (double)newest->value / -slope : INFINITY;
}

double history_seconds_to_zero(const struct history *h)
{
    const struct history_ring *c = &h->coarse_ring;
    if (c->len >= 10)
        return seconds_to_zero(c, h->coarse, HISTORY_COARSE);
    return seconds_to_zero(&h->fine_ring, h->fine, HISTORY_FINE);
}
