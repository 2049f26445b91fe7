/*
 * writer_actor.c - the writer: the product's writer.c, from recovery on, over a store that is a list.
 *
 * A commit is one step: before it nothing of the batch is on the disk, after it all (that is LMDB's
 * promise, tested elsewhere). What is applied and not committed dies with the writer.
 */
#include "tests/model/world.h"

#include "shm/stripe.h"

#include <string.h>

/* The writer's tables, for as many slots as the model has: its own memory, not the layout. */
#undef SHM_SLOTS_MAX
#define SHM_SLOTS_MAX (SLOTS_MAX + 1)
#include "writer/writer.c"

struct append {
    uint32_t n;
    uint8_t applied[TXNS_MAX];
};
static struct append appends[ACTORS_MAX];
static struct writer writers[ACTORS_MAX];
static struct gauges_shm gauges_memory;
static struct gauges gauges = {.g = &gauges_memory};
static unsigned char image[ACTORS_MAX][4 * SHM_BLOCK_BYTES];

const struct batch_head *append_head(const struct append *a)
{
    (void)a; /* of use for gauges alone here */
    static const struct batch_head head;
    return &head;
}

int append_begin(struct append *a, int64_t wall_ns, uint64_t mono_ns, struct azoth_error *err)
{
    (void)wall_ns;
    (void)mono_ns;
    (void)err;
    a->n = 0;
    return 0;
}

static int applied_before(const struct append *a, uint32_t no)
{
    for (uint32_t i = 0; i < W.log_len; i++)
        if (W.log[i] == no)
            return 1;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->applied[i] == no)
            return 1;
    return 0;
}

int append_apply(struct append *a, struct azoth_bytes img, const uint8_t *id, uint64_t content,
                 int *ret_code, struct txn_result *ret, struct azoth_error *detail)
{
    (void)id;
    (void)detail;
    uint32_t no = (uint32_t)content;
    const struct model_txn *t = no >= 1 && no <= model_txns ? &model_txn[no - 1] : NULL;
    if (!t || img.len != t->image_bytes || memcmp(img.ptr, t->image, img.len) != 0)
        model_fail("what is applied is no transaction's whole payload");
    if (applied_before(a, no))
        model_fail("transaction %u is applied twice", no - 1);
    if (!W.evaluated[no - 1])
        model_fail("transaction %u is applied before it was evaluated", no - 1);
    for (uint32_t i = 0; i < model_txns; i++)
        if (W.order[i] && W.owner[i] == W.owner[no - 1] && W.order[i] < W.order[no - 1] &&
            !applied_before(a, i + 1))
            model_fail("transaction %u is applied before %u of the same submitter", no - 1, i);
    for (uint32_t i = 0; i < t->intents; i++) {
        uint32_t stripe = t->intent[i] & ~INTENT_EXCLUSIVE;
        if (world_version(stripe, a->applied, a->n) != W.seen[no - 1][stripe])
            model_fail("stripe %u has changed since transaction %u read it", stripe, no - 1);
    }
    a->applied[a->n++] = (uint8_t)no;
    *ret_code = 0;
    *ret = (struct txn_result){.txn = W.log_len + a->n};
    return 0;
}

int control_apply(struct append *a, struct azoth_bytes img, int *ret_code, struct txn_result *ret,
                  struct azoth_error *detail)
{
    (void)a;
    (void)img;
    (void)ret_code;
    (void)ret;
    (void)detail;
    model_fail("a control item, which the model submits none of");
    return AZOTH_ERR_UNSUPPORTED;
}

int control_seals(struct azoth_bytes img)
{
    (void)img;
    model_fail("a control item, which the model submits none of");
    return 0;
}

/* The model's store is not sealed. */
int control_seal(struct append *a, struct seal *ret, struct azoth_error *err)
{
    (void)a;
    (void)ret;
    (void)err;
    return 0;
}

uint64_t append_changes(const struct append *a)
{
    return a->n;
}

/* The model has no places of backups. */
uint32_t append_mark_list(const struct append *a, const struct mark **ret, uint64_t *ret_version)
{
    (void)a;
    *ret = NULL;
    *ret_version = 0;
    return 0;
}

void append_abort(struct append *a)
{
    a->n = 0;
}

int append_expire_ids(struct append *a, const struct append_limits *l, struct azoth_error *err)
{
    (void)a;
    (void)l;
    (void)err;
    return 0;
}

int append_trim_redo(struct append *a, const struct append_limits *l, struct azoth_error *err)
{
    (void)a;
    (void)l;
    (void)err;
    return 0;
}

int append_commit(struct append *a, const struct batch_entry *entries, uint32_t n,
                  struct azoth_error *err)
{
    (void)err;
    model_stop(PENDING_CALL, "the store to commit");
    for (uint32_t i = 0; i < a->n; i++)
        W.log[W.log_len++] = a->applied[i];
    a->n = 0;
    struct batch_head h = {.incarnation = 1, .count = n, .txn = W.log_len};
    memset(W.record, 0, sizeof W.record);
    batch_encode(W.record, &h, entries);
    W.record_len = BATCH_HEAD + n * BATCH_ENTRY;
    return 0;
}

/* Of opening and closing a store: not reached. */
int append_open(struct store *s, uint32_t sync, struct append **ret, struct buf *ret_record,
                struct azoth_error *err)
{
    (void)s;
    (void)sync;
    (void)ret;
    (void)ret_record;
    return error_set(err, AZOTH_ERR_UNSUPPORTED, "the model's store is open");
}

int append_incarnation(struct append *a, uint64_t incarnation, struct azoth_error *err)
{
    (void)a;
    (void)incarnation;
    return error_set(err, AZOTH_ERR_UNSUPPORTED, "the model has one segment");
}

int store_create(const char *dir, uint64_t reserve_bytes, struct azoth_error *err)
{
    (void)dir;
    (void)reserve_bytes;
    return error_set(err, AZOTH_ERR_UNSUPPORTED, "the model's store exists");
}

void append_close(struct append *a)
{
    (void)a;
}

/* ---- the actor ---- */

void writer_body(void *arg)
{
    (void)arg;
    uint32_t who = model_self();
    struct writer *w = &writers[who];
    W.writes[who] = 1;
    if (!w->participant)
        w->participant = model_join(who, PARTICIPANT_WRITER);
    struct buf record = {W.record, W.record_len, sizeof W.record};
    if (recover(w, &record, NULL))
        model_fail("the batch record is damaged");
    publish_head(w);
    for (;;) {
        /* It reaps when the interval is over, which all_reap says that it always is. */
        w->reaped_ns = 0;
        int rc = writer_step(w, model_plan.all_reap ? REAP_INTERVAL_NS : NOW_NS, NULL);
        if (rc < 0)
            model_fail("the writer ends with %d", rc);
        if (rc == 0)
            writer_wait(w, SHM_WAIT_SLICE_NS);
    }
}

void writer_reset(uint32_t who, struct participant *p)
{
    struct writer *w = &writers[who];
    memset(w, 0, sizeof *w);
    memset(&appends[who], 0, sizeof appends[who]);
    w->participant = p;
    w->append = &appends[who];
    w->segment = model_segment;
    w->gauges = &gauges;
    w->stop_seq = UINT64_MAX;
    w->options.batch_transactions = SLOTS_MAX;
    w->options.batch_bytes = 1u << 20;
    w->image = (struct buf){image[who], 0, sizeof image[who]};
}

static int no_writer(const struct actor *a)
{
    (void)a;
    for (uint32_t i = 0; i < ACTORS_MAX; i++)
        if (W.writes[i])
            return 0;
    return 1;
}

/* What is left in the tables from earlier batches tells states apart that are the same. */
static void writer_tidy(uint32_t who)
{
    struct writer *w = &writers[who];
    uint32_t n = w->batch_len;
    memset(w->batch + n, 0, sizeof w->batch - n * sizeof *w->batch);
    memset(w->entry + n, 0, sizeof w->entry - n * sizeof *w->entry);
    memset(w->outcome + n, 0, sizeof w->outcome - n * sizeof *w->outcome);
    w->image.len = 0;
    memset(appends[who].applied + appends[who].n, 0, sizeof appends[who].applied - appends[who].n);
}

void writer_actor(struct actor *a, uint32_t who)
{
    a->body = writer_body;
    a->tidy = writer_tidy;
    a->may_start = no_writer; /* the kernel lets one in */
    struct writer *w = &writers[who];
    a->own[a->owns].ptr = &w->place;
    a->own[a->owns++].bytes = sizeof *w - offsetof(struct writer, place);
    a->own[a->owns].ptr = &appends[who];
    a->own[a->owns++].bytes = sizeof appends[who];
}
