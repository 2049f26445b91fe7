/*
 * dump.c - azoth status --segment: every field of the segment, by the tables that made its structs.
 *
 * For post mortems: what is printed is what lies there, whether or not it makes sense. Rows, slots
 * and stripes that are free are left out unless all are asked for, and reserved fields while they
 * are zero.
 */
#include "client/cmd/view.h"
#include "shm/contention.h"

#include <string.h>

#define BYTES_SHOWN 64u /* of payloads and intents */

struct field {
    const char *type, *name;
    size_t offset, size; /* size of all elements */
    uint32_t count;
};

#define F1_OF(s, t, n)         {#t, #n, offsetof(struct s, n), sizeof(((struct s *)0)->n), 1},
#define FN_OF(s, t, n, c)      {#t, #n, offsetof(struct s, n), sizeof(((struct s *)0)->n), c},
#define PREFIX_1(t, n)         F1_OF(prefix_shm, t, n)
#define PREFIX_N(t, n, c)      FN_OF(prefix_shm, t, n, c)
#define HEADER_1(t, n)         F1_OF(header_shm, t, n)
#define HEADER_N(t, n, c)      FN_OF(header_shm, t, n, c)
#define PARTICIPANT_1(t, n)    F1_OF(participant_shm, t, n)
#define PARTICIPANT_N(t, n, c) FN_OF(participant_shm, t, n, c)
#define SLOT_1(t, n)           F1_OF(slot_shm, t, n)
#define SLOT_N(t, n, c)        FN_OF(slot_shm, t, n, c)
#define STRIPE_1(t, n)         F1_OF(stripe_shm, t, n)
#define STRIPE_N(t, n, c)      FN_OF(stripe_shm, t, n, c)
#define CONTENTION_1(t, n)     F1_OF(contention_shm, t, n)
#define CONTENTION_N(t, n, c)  FN_OF(contention_shm, t, n, c)
#define PAUSE_1(t, n)          F1_OF(pause_shm, t, n)
#define PAUSE_N(t, n, c)       FN_OF(pause_shm, t, n, c)

static const struct field prefix_fields[] = {SHM_PREFIX_FIELDS(PREFIX_1, PREFIX_N){0}};
static const struct field header_fields[] = {SHM_HEADER_FIELDS(HEADER_1, HEADER_N){0}};
static const struct field participant_fields[] = {
    SHM_PARTICIPANT_FIELDS(PARTICIPANT_1, PARTICIPANT_N){0}};
static const struct field slot_fields[] = {SHM_SLOT_FIELDS(SLOT_1, SLOT_N){0}};
static const struct field stripe_fields[] = {SHM_STRIPE_FIELDS(STRIPE_1, STRIPE_N){0}};
static const struct field contention_fields[] = {
    SHM_CONTENTION_FIELDS(CONTENTION_1, CONTENTION_N){0}};

static const struct field pause_fields[] = {SHM_PAUSE_FIELDS(PAUSE_1, PAUSE_N){0}};

/* Where the dump goes: JSON, or lines of text. */
struct dump {
    struct json_text j;
    int json;
};

static int all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return 0;
    return 1;
}

static uint64_t element(const unsigned char *p, size_t size, int is_signed)
{
    uint64_t v8 = 0;
    uint32_t v4 = 0;
    if (size == 1)
        return *p;
    if (size == 4) {
        memcpy(&v4, p, 4);
        return is_signed ? (uint64_t)(int64_t)(int32_t)v4 : v4;
    }
    memcpy(&v8, p, 8);
    return v8;
}

static void dump_text(struct dump *d, const struct field *f, const unsigned char *p)
{
    char text[512];
    size_t n = strnlen((const char *)p, f->size < sizeof text - 1 ? f->size : sizeof text - 1);
    memcpy(text, p, n);
    text[n] = 0;
    if (d->json) {
        out_str(&d->j, f->name, text);
    } else {
        char shown[1024];
        printf("  %-22s \"%s\"\n", f->name, bytes_print(bytes_of(text, n), shown, sizeof shown));
    }
}

static void dump_bytes(struct dump *d, const struct field *f, const unsigned char *p)
{
    char hex[2 * BYTES_SHOWN + 1];
    size_t n = f->size < BYTES_SHOWN ? f->size : BYTES_SHOWN;
    bytes_hex(hex, p, n);
    if (d->json)
        out_str(&d->j, f->name, hex);
    else
        printf("  %-22s %s%s\n", f->name, hex, n < f->size ? "..." : "");
}

static void dump_array(struct dump *d, const struct field *f, const unsigned char *p)
{
    size_t size = f->size / f->count;
    uint32_t n = f->count < BYTES_SHOWN ? f->count : BYTES_SHOWN;
    if (d->json)
        out_open(&d->j, f->name, '[');
    else
        printf("  %-22s", f->name);
    if (!d->json && all_zero(p, f->size))
        printf(" 0 (all %u)", f->count);
    for (uint32_t i = 0; i < n && (d->json || !all_zero(p, f->size)); i++) {
        uint64_t v = element(p + i * size, size, 0);
        if (d->json)
            out_u64(&d->j, NULL, v);
        else
            printf(" %llx", (unsigned long long)v);
    }
    if (d->json)
        out_close(&d->j, ']');
    else
        puts(n < f->count ? " ..." : "");
}

static void dump_field(struct dump *d, const struct field *f, const unsigned char *base)
{
    const unsigned char *p = base + f->offset;
    if (strstr(f->name, "reserved") && all_zero(p, f->size))
        return;
    if (strcmp(f->type, "struct key_sample_shm") == 0) /* dump_samples() */
        return;
    if (strcmp(f->type, "char") == 0) {
        dump_text(d, f, p);
    } else if (strcmp(f->type, "uint8_t") == 0) {
        dump_bytes(d, f, p);
    } else if (f->count > 1) {
        dump_array(d, f, p);
    } else {
        int is_signed = f->type[0] == 'i';
        uint64_t v = element(p, f->size, is_signed);
        if (d->json && is_signed)
            out_i64(&d->j, f->name, (int64_t)v);
        else if (d->json)
            out_u64(&d->j, f->name, v);
        else if (is_signed)
            printf("  %-22s %lld\n", f->name, (long long)v);
        else
            printf("  %-22s %llu (0x%llx)\n", f->name, (unsigned long long)v,
                   (unsigned long long)v);
    }
}

static void dump_struct(struct dump *d, const char *name, int64_t index, const struct field *fields,
                        const void *base, const char *state)
{
    if (d->json) {
        out_open(&d->j, index < 0 ? name : NULL, '{');
        if (index >= 0)
            out_i64(&d->j, "index", index);
        if (state)
            out_str(&d->j, "state_name", state);
    } else {
        printf("%s", name);
        if (index >= 0)
            printf(" %lld", (long long)index);
        printf("%s%s\n", state ? ": " : "", state ? state : "");
    }
    for (; fields->name; fields++)
        dump_field(d, fields, base);
    if (d->json)
        out_close(&d->j, '}');
}

static void dump_list(struct dump *d, const char *name, int begin)
{
    if (!d->json)
        return;
    if (begin)
        out_open(&d->j, name, '[');
    else
        out_close(&d->j, ']');
}

static void dump_slot(struct dump *d, const struct segment *s, uint32_t i, int all)
{
    uint64_t word = atomic_load(&s->slot[i].word);
    uint32_t state = slot_word_state(word), owner = slot_word_owner(word);
    char text[80];
    if (state == SLOT_FREE && !all)
        return;
    if (owner == SLOT_OWNER_WRITER)
        snprintf(text, sizeof text, "%s, given up to the writer, ticket %llu",
                 slot_state_name(state), (unsigned long long)slot_word_ticket(word));
    else
        snprintf(text, sizeof text, "%s, participant %u, ticket %llu", slot_state_name(state),
                 owner, (unsigned long long)slot_word_ticket(word));
    dump_struct(d, "slot", i, slot_fields, &s->slot[i], text);
}

static void dump_stripe(struct dump *d, const struct segment *s, uint32_t i, int all)
{
    const struct stripe_shm *t = &s->stripe[i];
    uint64_t owner = atomic_load((A64 *)&t->exclusive);
    char text[80] = "not held exclusively";
    /* `waits` counts for ever; a stripe is worth a look when it is held or waited for. */
    if (!all && owner == 0 && atomic_load((A32 *)&t->waiters) == 0 &&
        all_zero((const unsigned char *)t->shared, sizeof t->shared))
        return;
    if (owner)
        snprintf(text, sizeof text, "held by slot %llu, ticket %llu",
                 (unsigned long long)(owner >> 40) - 1,
                 (unsigned long long)(owner & SLOT_TICKET_MASK));
    dump_struct(d, "stripe", i, stripe_fields, t, text);
}

static void dump_blocks(struct dump *d, const struct segment *s, int all)
{
    dump_list(d, "blocks", 1);
    for (uint32_t i = 0; i < s->blocks; i++) {
        uint64_t owner = atomic_load(&s->block_owner[i]);
        if (!owner && !all)
            continue;
        if (!d->json) {
            printf("block %u\n  %-22s 0x%llx\n", i, "owner", (unsigned long long)owner);
            continue;
        }
        out_open(&d->j, NULL, '{');
        out_u64(&d->j, "index", i);
        out_u64(&d->j, "owner", owner);
        out_close(&d->j, '}');
    }
    dump_list(d, "blocks", 0);
}

/* The keys that were waited for lately. */
static void dump_samples(struct dump *d, const struct segment *s)
{
    unsigned char key[512];
    char text[4 * sizeof key + 1];
    dump_list(d, "waited_keys", 1);
    for (uint32_t i = 0; i < SHM_KEY_SAMPLES; i++) {
        uint64_t head = atomic_load((A64 *)&s->contention->sample[i].head);
        uint32_t stripe = (uint32_t)(head >> 32) - 1;
        uint32_t len = stripe < s->stripes ? contention_key(s, stripe, key) : 0;
        if (!len)
            continue;
        bytes_print(bytes_of(key, len), text, sizeof text);
        if (d->json) {
            out_open(&d->j, NULL, '{');
            out_u64(&d->j, "stripe", stripe);
            out_str(&d->j, "key", text);
            out_close(&d->j, '}');
        } else {
            printf("waited key\n  %-22s %u\n  %-22s %s\n", "stripe", stripe, "key", text);
        }
    }
    dump_list(d, "waited_keys", 0);
}

int segment_dump(const struct segment *s, int all, int json)
{
    struct dump d = {.json = json};
    uint32_t state = atomic_load(&s->prefix->state);
    if (json)
        out_open(&d.j, NULL, '{');
    dump_struct(&d, "prefix", -1, prefix_fields, s->prefix,
                state == SEGMENT_LIVE ? "live" : "retired");
    dump_struct(&d, "header", -1, header_fields, s->header,
                writer_state_name(atomic_load(&s->header->writer_state)));
    dump_list(&d, "participants", 1);
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        const struct participant_shm *p = &s->participant[i];
        uint64_t live = atomic_load((A64 *)&p->word) & 0xff;
        if (live != PARTICIPANT_FREE || all)
            dump_struct(&d, "participant", i, participant_fields, p,
                        live == PARTICIPANT_LIVE
                            ? participant_kind_name(atomic_load((A32 *)&p->kind))
                            : "free");
    }
    dump_list(&d, "participants", 0);
    dump_list(&d, "pauses", 1);
    for (uint32_t i = 0; i <= SHM_PAUSE_STORE; i++)
        if (all || (atomic_load((A64 *)&s->pause[i].word) & 0xff) != PAUSE_FREE)
            dump_struct(&d, "pause", i, pause_fields, &s->pause[i], NULL);
    dump_list(&d, "pauses", 0);
    dump_list(&d, "slots", 1);
    for (uint32_t i = 0; i < s->slots; i++)
        dump_slot(&d, s, i, all);
    dump_list(&d, "slots", 0);
    dump_list(&d, "stripes", 1);
    for (uint32_t i = 0; i < s->stripes; i++)
        dump_stripe(&d, s, i, all);
    dump_list(&d, "stripes", 0);
    dump_blocks(&d, s, all);
    dump_struct(&d, "contention", -1, contention_fields, s->contention, NULL);
    dump_samples(&d, s);
    if (!json)
        return 0;
    out_close(&d.j, '}');
    return out_print(&d.j);
}
