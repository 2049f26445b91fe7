#include "projector/breaker.h"

#include "core/clock.h"

#include <string.h>

static uint64_t doubled(const struct backoff *b, uint32_t failures)
{
    uint64_t d = b->min_ms;
    for (uint32_t i = 1; i < failures && d < b->max_ms; i++)
        d *= 2;
    return d;
}

/* 1, 1, 2, 3, 5, ... times the least. */
static uint64_t fibonacci(const struct backoff *b, uint32_t failures)
{
    uint64_t d = b->min_ms, before = 0;
    for (uint32_t i = 1; i < failures && d < b->max_ms; i++) {
        uint64_t next = d + before;
        before = d;
        d = next;
    }
    return d;
}

uint64_t backoff_ms(const struct backoff *b, uint32_t failures, uint64_t random)
{
    if (b->kind == BACKOFF_FIXED)
        return b->min_ms;
    uint64_t d = b->kind == BACKOFF_FIBONACCI ? fibonacci(b, failures) : doubled(b, failures);
    if (d > b->max_ms)
        d = b->max_ms;
    if (b->kind == BACKOFF_FIBONACCI)
        return d;
    uint64_t least = d / 2 > b->min_ms ? d / 2 : b->min_ms;
    return least + random % (d - least + 1);
}

int breaker_fails(struct breaker *b, const struct sql_breaker *def, int64_t wall_ns,
                  uint64_t mono_ns)
{
    if (!def->failures)
        return 0;
    int64_t window_ns = (int64_t)(def->window_ms * NS_PER_MS);
    uint32_t old = 0;
    /* A time ahead of now is of a clock that was put back: as good as old. */
    while (old < b->failures && (b->time[old] > wall_ns || wall_ns - b->time[old] > window_ns ||
                                 old + def->failures <= b->failures))
        old++;
    memmove(b->time, b->time + old, (b->failures - old) * sizeof *b->time);
    b->failures -= old;
    b->time[b->failures++] = wall_ns;
    if (b->at != BREAKER_HALF_OPEN && b->failures < def->failures)
        return 0;
    b->at = BREAKER_OPEN;
    b->probes = 0;
    b->failures = 0;
    b->until_ns = wall_ns + (int64_t)(def->open_ms * NS_PER_MS);
    b->due_ns = mono_ns + def->open_ms * NS_PER_MS;
    return 1;
}

int breaker_succeeds(struct breaker *b, const struct sql_breaker *def)
{
    if (b->at != BREAKER_HALF_OPEN)
        return 0;
    if (++b->probes >= def->probes) {
        b->at = BREAKER_CLOSED;
        b->probes = 0;
        b->failures = 0;
    }
    return 1;
}

void breaker_look(struct breaker *b, uint64_t mono_ns)
{
    if (b->at == BREAKER_OPEN && mono_ns >= b->due_ns) {
        b->at = BREAKER_HALF_OPEN;
        b->probes = 0;
    }
}
