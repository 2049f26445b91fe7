/*
 * fuzz_increment.c - any bytes as a part of an increment: corrupt, or entries that fill it and agree with
 * themselves. The first byte says whether the checksums of redo records are made to fit, so that the events
 * beside them are reached.
 */
#include "core/error.h"
#include "writer/increment.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend(unsigned char *p, size_t left)
{
    while (left >= INCREMENT_HEADER) {
        uint64_t redo = get_u64(p + 8), frames = get_u64(p + 16);
        left -= INCREMENT_HEADER;
        if (redo < 4 || redo > left || frames > left - redo)
            return;
        unsigned char *rec = p + INCREMENT_HEADER;
        put_u32(rec, (uint32_t)XXH3_64bits_withSeed(rec + 4, (size_t)redo - 4, get_u64(p)));
        p = rec + redo + frames;
        left -= (size_t)(redo + frames);
    }
}

static void check_entry(const struct increment_entry *e)
{
    const struct redo_record *r = &e->redo;
    size_t events = e->events->len / sizeof(struct event_record);
    const struct event_record *ev = (const void *)e->events->ptr;
    ensure(!r->last_event || events > 0);
    ensure(events == (r->last_event ? r->last_event - r->first_event + 1 : 0));
    for (size_t i = 0; i < events; i++)
        ensure(ev[i].id == r->first_event + i && ev[i].txn == r->txn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct increment_entry e;
    struct buf events = {0};
    size_t at = 0, before = 0;
    int rc;
    if (size < 1)
        return 0;
    size_t n = size - 1;
    unsigned char *part = malloc(n ? n : 1);
    ensure(part != NULL);
    memcpy(part, data + 1, n);
    if (data[0] % 2)
        mend(part, n);
    while ((rc = increment_next(bytes_of(part, n), &at, &events, &e)) == 1) {
        ensure(at > before && at <= n);
        before = at;
        check_entry(&e);
    }
    ensure(rc != 0 || at == n);
    buf_fini(&events);
    free(part);
    return 0;
}
