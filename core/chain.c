#include "core/chain.h"

#include "core/error.h"
#include "core/hash.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC     0x31435a41u /* "AZC1" */
#define TEXT_HEAD (CHAIN_BYTES + 28u)

static const char name[] = "azoth chain 1"; /* without its NUL */

_Static_assert(CHAIN_BYTES == HASH_BYTES, "BLAKE2b-256");

void chain_begin(struct chain *c, const uint8_t uuid[16], uint64_t txn, uint64_t event)
{
    unsigned char text[sizeof name - 1 + 16];
    memcpy(text, name, sizeof name - 1);
    memcpy(text + sizeof name - 1, uuid, 16);
    *c = (struct chain){.txn = txn, .event = event, .on = 1};
    hash_once(c->value, text, sizeof text);
}

/* Where the text of a transaction goes: into a hash, or behind each other into memory. */
typedef void text_sink(void *to, const void *p, size_t n);

static void into_hash(void *to, const void *p, size_t n)
{
    hash_add(to, p, n);
}

static void into_memory(void *to, const void *p, size_t n)
{
    unsigned char **at = to;
    if (n)
        memcpy(*at, p, n);
    *at += n;
}

static inline void add(text_sink *sink, void *to, struct azoth_bytes b)
{
    unsigned char len[4];
    put_u32(len, (uint32_t)b.len);
    sink(to, len, sizeof len);
    sink(to, b.ptr, b.len);
}

static inline void add_text(const struct chain *c, const struct event_record *ev, uint32_t n,
                            text_sink *sink, void *to)
{
    unsigned char head[TEXT_HEAD];
    ensure(n > 0);
    memcpy(head, c->value, CHAIN_BYTES);
    put_u64(head + CHAIN_BYTES, ev[0].txn);
    put_u64(head + CHAIN_BYTES + 8, ev[0].id);
    put_u32(head + CHAIN_BYTES + 16, n);
    put_u64(head + CHAIN_BYTES + 20, (uint64_t)ev[0].time_ns);
    sink(to, head, sizeof head);
    for (uint32_t i = 0; i < n; i++) {
        add(sink, to, ev[i].type);
        add(sink, to, ev[i].key);
        add(sink, to, ev[i].metadata);
        add(sink, to, ev[i].payload);
    }
}

void chain_extend(struct chain *c, const struct event_record *ev, uint32_t n)
{
    struct hash h;
    hash_begin(&h);
    add_text(c, ev, n, into_hash, &h);
    hash_end(&h, c->value);
    c->txn = ev[0].txn;
    c->event = ev[0].id + n - 1;
}

size_t chain_text_size(const struct event_record *ev, uint32_t n)
{
    size_t size = TEXT_HEAD + (size_t)n * 4 * sizeof(uint32_t);
    for (uint32_t i = 0; i < n; i++)
        size += ev[i].type.len + ev[i].key.len + ev[i].metadata.len + ev[i].payload.len;
    return size;
}

void chain_text(unsigned char *out, const struct chain *c, const struct event_record *ev,
                uint32_t n)
{
    add_text(c, ev, n, into_memory, &out);
}

static int keep(struct chain_walk *w, struct azoth_bytes *b)
{
    uintptr_t at = w->bytes.len;
    int rc = buf_add(&w->bytes, b->ptr, b->len);
    b->ptr = (const void *)at;
    return rc;
}

int chain_walk_add(struct chain_walk *w, const struct event_record *ev)
{
    if (!w->chain.on || ev->id <= w->chain.event)
        return 0;
    if (w->n && w->ev[0].txn != ev->txn)
        chain_walk_end(w);
    if (w->n == w->cap) {
        uint32_t cap = w->cap ? 2 * w->cap : 64;
        struct event_record *more = realloc(w->ev, cap * sizeof *more);
        if (!more)
            return AZOTH_ERR_NOMEM;
        w->ev = more;
        w->cap = cap;
    }
    struct event_record *kept = &w->ev[w->n];
    *kept = *ev;
    if (keep(w, &kept->type) || keep(w, &kept->key) || keep(w, &kept->metadata) ||
        keep(w, &kept->payload))
        return AZOTH_ERR_NOMEM;
    w->n++;
    return 0;
}

void chain_walk_end(struct chain_walk *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        struct azoth_bytes *const part[] = {&w->ev[i].type, &w->ev[i].key, &w->ev[i].metadata,
                                            &w->ev[i].payload};
        for (size_t k = 0; k < sizeof part / sizeof *part; k++)
            part[k]->ptr = w->bytes.ptr + (uintptr_t)part[k]->ptr;
    }
    if (w->n)
        chain_extend(&w->chain, w->ev, w->n);
    w->n = 0;
    buf_clear(&w->bytes);
}

void chain_walk_fini(struct chain_walk *w)
{
    free(w->ev);
    buf_fini(&w->bytes);
    w->ev = NULL;
    w->n = w->cap = 0;
}

void chain_start_encode(unsigned char out[CHAIN_RECORD], const struct chain *c)
{
    put_u32(out, MAGIC);
    put_u32(out + 4, 0);
    memcpy(out + 8, c->value, CHAIN_BYTES);
    put_u64(out + 40, c->txn);
    put_u64(out + 48, c->event);
    put_u64(out + 56, XXH3_64bits(out, 56));
}

int chain_start_decode(struct azoth_bytes rec, struct chain *ret)
{
    const unsigned char *p = rec.ptr;
    if (rec.len != CHAIN_RECORD || get_u32(p) != MAGIC || get_u32(p + 4) != 0 ||
        get_u64(p + 56) != XXH3_64bits(p, 56))
        return AZOTH_ERR_CORRUPT;
    *ret = (struct chain){.txn = get_u64(p + 40), .event = get_u64(p + 48), .on = 1};
    memcpy(ret->value, p + 8, CHAIN_BYTES);
    return 0;
}
