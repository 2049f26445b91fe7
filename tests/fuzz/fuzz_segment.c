/*
 * fuzz_segment.c - a segment and gauges in which any bytes may lie, stepped over with the product's own
 * functions: taking, copying, completing, reaping, claiming, looking. No step may crash, leave its part
 * of the segment, or go on for ever; what is refused is refused by name.
 *
 * Input: records of a kind (1 byte), an index (2), an offset (2), a length (1) and that many bytes. A
 * record puts its bytes into the part of the segment, or makes a step, so that bytes change between steps
 * as another process may change them. Before the first step the segment lies in an object of shared memory
 * and is attached as it is; then each of its parts is moved into memory of its own, where a
 * sanitizer sees an access beyond it.
 */
#include "client/cmd/view.h"
#include "core/clock.h"
#include "core/error.h"
#include "exporter/metrics.h"
#include "exporter/status.h"
#include "shm/contention.h"
#include "shm/reaper.h"
#include "shm/stripe.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OBJECT_MOST (4u << 20)
#define STEPS_MOST  200

/* More stripes than a slot has intents inline: those of a larger transaction lie in a block. */
static const struct segment_plan plan = {.device = 1,
                                         .inode = 2,
                                         .incarnation = 1,
                                         .slots = 8,
                                         .stripes = 80,
                                         .blocks = 3,
                                         .mode = 0600};

/* Parts that a record may put bytes into, then steps. */
enum kind {
    PUT_HEADER, /* with the prefix */
    PUT_PARTICIPANT,
    PUT_SLOT,
    PUT_STRIPE,
    PUT_OWNER,
    PUT_BLOCK,
    PUT_GAUGES,
    PUT_ROW,
    PUT_SIZE, /* of the object, before it is attached */
    SLOT_WORD,
    SLOT_HASH, /* the payload's, made to fit */
    STEP_TAKE,
    STEP_SCAN,
    STEP_REAP,
    STEP_SUBMIT,
    STEP_COLLECT,
    STEP_GIVEN_UP,
    STEP_LOOK,
    STEP_DUMP,
    STEP_ROWS,
    STEP_RETIRE,
    PUT_CONTENTION,
    PUT_PAUSE,
    STEP_PAUSES,
    KINDS
};

struct record {
    uint32_t kind, index, offset;
    const uint8_t *bytes;
    size_t len;
};

static char dir[64];
static struct segment_name name;
static unsigned char *image; /* of the segment as it is made */
static size_t image_bytes;
static struct segment s; /* of parts of their own */
static struct gauges g;
static struct participant *self;
static struct buf payload;
static FILE *nowhere;

/* ---- once ---- */

static void leave(void)
{
    char path[100];
    segment_unlink(&name);
    snprintf(path, sizeof path, "%s/participants.lock", dir);
    unlink(path);
    rmdir(dir);
}

static void *part(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    ensure(p != NULL);
    memset(p, 0, bytes);
    return p;
}

static void enter(void)
{
    struct segment *made;
    snprintf(dir, sizeof dir, "/tmp/azoth-fuzz-XXXXXX");
    ensure(mkdtemp(dir) != NULL);
    ensure(segment_name_of(dir, &name, NULL) == 0);
    atexit(leave);
    ensure(segment_create(&name, &plan, &made, NULL) == 0);
    image_bytes = made->bytes;
    image = malloc(image_bytes);
    ensure(image != NULL);
    memcpy(image, made->prefix, image_bytes);
    segment_detach(made);
    nowhere = fopen("/dev/null", "we");
    ensure(nowhere != NULL);
    g.prefix = part(sizeof *g.prefix);
    g.g = part(sizeof *g.g);
    g.projection = part(SHM_PROJECTIONS * sizeof *g.projection);
}

/* ---- one input ---- */

static int next_record(const uint8_t **at, const uint8_t *end, struct record *ret)
{
    if (end - *at < 6)
        return 0;
    const uint8_t *p = *at;
    ret->kind = p[0] % KINDS;
    ret->index = (uint32_t)p[1] | (uint32_t)p[2] << 8;
    ret->offset = (uint32_t)p[3] | (uint32_t)p[4] << 8;
    ret->len = p[5];
    ret->bytes = p + 6;
    if (ret->len > (size_t)(end - ret->bytes))
        ret->len = (size_t)(end - ret->bytes);
    *at = ret->bytes + ret->len;
    return 1;
}

static void put(void *base, size_t stride, size_t count, const struct record *r)
{
    if (!count)
        return;
    size_t at = r->index % count * stride + r->offset % stride, total = stride * count;
    memcpy((unsigned char *)base + at, r->bytes, r->len < total - at ? r->len : total - at);
}

static uint64_t number(const struct record *r)
{
    uint64_t n = 0;
    memcpy(&n, r->bytes, r->len < sizeof n ? r->len : sizeof n);
    return n;
}

/* The segment as records put it, in an object of the size that they want: attached, or refused. */
static struct segment *attached(const uint8_t *data, const uint8_t *end)
{
    struct record r;
    struct segment *ret;
    struct azoth_error err = {0};
    size_t size = image_bytes;
    int fd = shm_open(name.segment, O_RDWR | O_CLOEXEC, 0);
    ensure(fd >= 0);
    unsigned char *head = malloc(sizeof(struct prefix_shm) + sizeof(struct header_shm));
    ensure(head != NULL);
    memcpy(head, image, sizeof(struct prefix_shm) + sizeof(struct header_shm));
    while (next_record(&data, end, &r) && r.kind < SLOT_WORD) {
        if (r.kind == PUT_SIZE)
            size = number(&r) % OBJECT_MOST;
        if (r.kind == PUT_HEADER)
            put(head, sizeof(struct prefix_shm) + sizeof(struct header_shm), 1, &r);
    }
    size_t n = sizeof(struct prefix_shm) + sizeof(struct header_shm);
    ensure(ftruncate(fd, (off_t)size) == 0);
    ensure(pwrite(fd, head, n < size ? n : size, 0) >= 0);
    close(fd);
    free(head);
    int rc = segment_attach(&name, &ret, &err);
    ensure(rc == 0 || (rc == err.code && err.message[0]));
    struct segment *looked;
    int looks = segment_inspect(&name, &looked, &err);
    ensure(rc != 0 || looks == 0);
    if (looks == 0)
        segment_detach(looked);
    return rc ? NULL : ret;
}

/* Each part into memory of its own, of its very size: kept while the sizes stay the same. */
static void move_apart(struct segment *from)
{
    if (!s.header || s.slots != from->slots || s.stripes != from->stripes ||
        s.blocks != from->blocks) {
        void *old[] = {s.prefix,      s.header, s.participant, s.slot, s.stripe,
                       s.block_owner, s.block,  s.contention,  s.pause};
        for (size_t i = 0; i < sizeof old / sizeof *old; i++)
            free(old[i]);
        s = *from;
        s.prefix = part(sizeof *s.prefix);
        s.header = part(sizeof *s.header);
        s.participant = part(SHM_PARTICIPANTS * sizeof *s.participant);
        s.slot = part(s.slots * sizeof *s.slot);
        s.stripe = part(s.stripes * sizeof *s.stripe);
        s.block_owner = part(s.blocks * sizeof *s.block_owner + 1);
        s.block = part((size_t)s.blocks * SHM_BLOCK_BYTES + 1);
        s.contention = part(sizeof *s.contention);
        s.pause = part((SHM_PAUSES + 1) * sizeof *s.pause);
    }
    memcpy(s.prefix, from->prefix, sizeof *s.prefix);
    memcpy(s.header, from->header, sizeof *s.header);
    memset(s.participant, 0, SHM_PARTICIPANTS * sizeof *s.participant);
    memset(s.slot, 0, s.slots * sizeof *s.slot);
    memset(s.stripe, 0, s.stripes * sizeof *s.stripe);
    memset(s.block_owner, 0, s.blocks * sizeof *s.block_owner);
    memset(s.contention, 0, sizeof *s.contention);
    memset(s.pause, 0, (SHM_PAUSES + 1) * sizeof *s.pause);
    memset(g.g, 0, sizeof *g.g);
    memset(g.projection, 0, SHM_PROJECTIONS * sizeof *g.projection);
}

static void put_into_part(const struct record *r)
{
    switch (r->kind) {
    case PUT_HEADER:
        /* Sizes are copied when a segment is attached; what lies there later is not looked at. */
        put(s.header, sizeof *s.header, 1, r);
        break;
    case PUT_PARTICIPANT:
        put(s.participant, sizeof *s.participant, SHM_PARTICIPANTS, r);
        break;
    case PUT_SLOT:
        put(s.slot, sizeof *s.slot, s.slots, r);
        break;
    case PUT_STRIPE:
        put(s.stripe, sizeof *s.stripe, s.stripes, r);
        break;
    case PUT_OWNER:
        put(s.block_owner, sizeof *s.block_owner, s.blocks, r);
        break;
    case PUT_BLOCK:
        put(s.block, SHM_BLOCK_BYTES, s.blocks, r);
        break;
    case PUT_GAUGES:
        put(g.g, sizeof *g.g, 1, r);
        break;
    case PUT_CONTENTION:
        put(s.contention, sizeof *s.contention, 1, r);
        break;
    case PUT_PAUSE:
        put(s.pause, sizeof *s.pause, SHM_PAUSES + 1, r);
        break;
    case PUT_ROW:
        put(g.projection, sizeof *g.projection, SHM_PROJECTIONS, r);
        break;
    default:
        break;
    }
}

/* ---- steps ---- */

/* A word as a process may have left it: the kind of bytes that chance seldom finds. */
static void slot_word_put(const struct record *r)
{
    uint64_t n = number(r);
    struct slot_shm *sl = &s.slot[r->index % s.slots];
    atomic_store(&sl->word, slot_word((uint32_t)n % 8, (uint32_t)(n >> 8) & 0xffff, n >> 24 & 7));
    atomic_fetch_or(&s.header->queue_bits[0], 1ull << r->index % s.slots % 64);
}

static void slot_hash_put(const struct record *r)
{
    struct slot_shm *sl = &s.slot[r->index % s.slots];
    sl->payload_bytes = r->offset % (SHM_INLINE_BYTES + 1);
    sl->payload_hash = XXH3_64bits(sl->payload, sl->payload_bytes);
}

static void take_and_complete(int scan)
{
    static struct slot_taken taken[SHM_SLOTS_MAX];
    struct wakes wakes = {0};
    uint32_t n = slot_take(&s, scan, taken);
    ensure(n <= s.slots);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t id[16];
        uint64_t content;
        struct slot_outcome o = {.detail = "as the writer says"};
        ensure(taken[i].index < s.slots);
        o.code = slot_copy(&s, &taken[i], &payload, id, &content);
        ensure(o.code == 0 || o.code == AZOTH_ERR_CORRUPT);
        ensure(payload.len <= AZOTH_TXN_BYTES_MAX);
        slot_complete(&s, &taken[i], &o, &wakes);
        slot_find_id(&s, id);
    }
    wakes_send(&s, &wakes);
}

static void submit_one(const struct record *r, int collect)
{
    struct slot slot;
    struct slot_outcome o;
    uint32_t intents[2] = {r->index % s.stripes, (r->offset % s.stripes) | INTENT_EXCLUSIVE};
    struct slot_submission sub = {.payload = bytes_of(r->bytes, r->len)};
    slot_claim_wait(self, 0);
    if (!slot_claim(self, &slot))
        return;
    ensure(slot.index < s.slots);
    ensure(slot_intend(&slot, intents, 2) == 0);
    for (int i = 0; i < 2; i++) {
        if (!stripe_try(&s, slot.index, slot.ticket, intents[i])) {
            stripe_wait(&s, slot.index, slot.ticket, intents[i], 0);
            stripe_park(self, intents[i]);
            slot_cancel(&slot);
            return;
        }
    }
    if (slot_submit(&slot, &sub)) {
        slot_cancel(&slot);
        return;
    }
    slot_wake_writer(&s);
    slot_wait(&slot, 0);
    if (!collect)
        return;
    take_and_complete(0);
    if (slot_done(&slot))
        slot_collect(&slot, &o);
    else
        slot_give_up(&slot);
}

/* What a program prints is JSON, whatever lies there. */
static void valid_json(const char *text, size_t len)
{
    json_error_t why;
    json_t *j = json_loadb(text, len,
                           JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
    if (!j)
        fprintf(stderr, "%s, at %d: %.*s\n", why.text, why.position, (int)len, text);
    ensure(j != NULL);
    json_decref(j);
}

/* Every line is a comment or a metric of ours: no text of others ends one. */
static void valid_metrics(const char *at, size_t len)
{
    const char *end = at + len;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        ensure(line_end != NULL);
        ensure(strncmp(at, "# HELP azoth_", 13) == 0 || strncmp(at, "# TYPE azoth_", 13) == 0 ||
               strncmp(at, "azoth_", 6) == 0);
        at = line_end + 1;
    }
}

/* What the exporter makes of it. */
static void export(void)
{
    static struct look k;
    static struct look_memory memory;
    static struct buf text;
    static struct config config;
    int ready;
    memset(&k, 0, sizeof k);
    k.v = (struct view){.dir = "/", .segment = &s, .gauges = &g, .lock_fd = -1};
    config_defaults(&config);
    recent_note(&memory.recent, &g, clock_mono_ns());
    look_at(&k, &memory, 1000);
    buf_clear(&text);
    ensure(metrics_write(&text, &k, 0) == 0);
    valid_metrics((const char *)text.ptr, text.len);
    buf_clear(&text);
    ensure(status_write(&text, &k, &memory, "/") == 0);
    valid_json((const char *)text.ptr, text.len);
    buf_clear(&text);
    ensure(status_ready(&text, &k, &config, &ready) == 0);
}

/* What the writer and those who pause do with rows of any content. */
static void pauses(const struct record *r)
{
    uint64_t until;
    struct pause_info info;
    struct pause p = {r->index % SHM_PAUSES, r->offset};
    ensure(pause_look(&s, (uint64_t)r->offset << r->index % 64, &until) <= PAUSE_SEAL);
    for (uint32_t i = 0; i <= SHM_PAUSE_STORE; i++)
        if (pause_read(&s, i, &info))
            ensure(memchr(info.who, 0, sizeof info.who) != NULL);
    pause_confirm(&s);
    pause_in_force(&s, &p);
    pause_end(&s, &p);
    if (pause_ask(self, PAUSE_WRITES, UINT64_MAX, r->offset % 2, "fuzz", &p, NULL) == 0)
        ensure(pause_in_force(&s, &p) == 0);
    ensure(pause_end_all(&s, PAUSE_WRITES, 1) == 0);
    pause_leave(self);
}

static void look(void)
{
    struct view v = {.segment = &s, .gauges = &g, .lock_fd = -1};
    struct view_counts counts;
    struct view_pauses pauses;
    export();
    view_count(&s, &counts);
    view_pauses(&v, 1000, &pauses);
    for (uint32_t i = 0; i < s.stripes; i++)
        stripe_holder(&s, i);
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        ensure(participant_kind_name(atomic_load(&s.participant[i].kind)) != NULL);
        participant_dead(self, i);
    }
    struct hot_stripe hot[8];
    unsigned char key[512];
    uint32_t n = contention_hot(&s, NULL, hot, 8);
    for (uint32_t i = 0; i < n; i++)
        ensure(contention_key(&s, hot[i].stripe, key) <= sizeof key);
    ensure(writer_state_name(atomic_load(&s.header->writer_state)) != NULL);
    ensure(sync_mode_name(s.header->sync_mode) != NULL);
    const struct histogram_shm *const h[] = {&g.g->commit_ns,    &g.g->batch_size, &g.g->queue_ns,
                                             &g.g->preflight_ns, &g.g->apply_ns,   &g.g->lag_ns};
    for (size_t i = 0; i < sizeof h / sizeof *h; i++) {
        uint64_t low = histogram_at(h[i], 0.5), high = histogram_at(h[i], 0.99);
        (void)low;
        (void)high;
    }
}

static void dump(int json)
{
    char *text = NULL;
    size_t len = 0;
    FILE *kept = stdout, *f = json ? open_memstream(&text, &len) : nowhere;
    ensure(f != NULL);
    stdout = f;
    segment_dump(&s, 0, json);
    fflush(f);
    stdout = kept;
    if (json) {
        fclose(f);
        valid_json(text, len);
        free(text);
    }
}

static void rows(const struct record *r)
{
    struct projection_row row;
    char *text = NULL;
    size_t len = 0;
    FILE *kept = stdout, *f = open_memstream(&text, &len);
    struct json_text j = {0};
    int claimed = projection_row_claim(&g, "claimed", r->index, r->offset);
    if (claimed >= 0)
        projection_row_text(&g, claimed, "error", NULL);
    out_open(&j, NULL, '[');
    for (uint32_t i = 0; i <= SHM_PROJECTIONS; i++)
        if (projection_row_read(&g, i, &row)) {
            out_str(&j, NULL, row.name);
            out_str(&j, NULL, row.error);
            out_str(&j, NULL, row.endpoint);
            out_str(&j, NULL, projection_state_name(row.state));
        }
    out_close(&j, ']');
    ensure(f != NULL);
    stdout = f;
    out_print(&j);
    fflush(f);
    stdout = kept;
    fclose(f);
    valid_json(text, len);
    free(text);
}

static void step(const struct record *r)
{
    switch (r->kind) {
    case SLOT_WORD:
        slot_word_put(r);
        break;
    case SLOT_HASH:
        slot_hash_put(r);
        break;
    case STEP_TAKE:
    case STEP_SCAN:
        take_and_complete(r->kind == STEP_SCAN);
        break;
    case STEP_REAP:
        ensure(reap_step(self) <= SHM_PARTICIPANTS);
        break;
    case STEP_SUBMIT:
    case STEP_COLLECT:
        submit_one(r, r->kind == STEP_COLLECT);
        break;
    case STEP_GIVEN_UP:
        slot_free_given_up(&s);
        slot_block_wait(self, r->index, 0);
        break;
    case STEP_PAUSES:
        pauses(r);
        break;
    case STEP_LOOK:
        look();
        break;
    case STEP_DUMP:
        dump(r->index % 2);
        break;
    case STEP_ROWS:
        rows(r);
        break;
    case STEP_RETIRE:
        segment_retire(&s);
        break;
    default:
        put_into_part(r);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *at = data, *end = data + size;
    struct record r;
    struct azoth_error err;
    if (!*dir)
        enter();
    struct segment *from = attached(data, end);
    if (!from)
        return 0;
    move_apart(from);
    segment_detach(from);
    if (participant_join(&s, dir, PARTICIPANT_CLIENT, "fuzz", &self, &err))
        return 0;
    for (int steps = 0; steps < STEPS_MOST && next_record(&at, end, &r); steps++)
        step(&r);
    take_and_complete(1);
    reap_step(self);
    look();
    participant_leave(self);
    return 0;
}
