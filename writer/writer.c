/*
 * writer.c - take, decide, append, commit, complete, announce.
 *
 * Happy path of a step: take what is queued, in the order of submission; apply it in one LMDB write
 * transaction, and take again until nothing new has come or the batch is full; commit; publish the
 * head; for each transaction release its stripes, then publish its result; wake.
 *
 * Death of the writer, by the place where it happens:
 *   before the commit         nothing of the batch is on the disk; its slots are still SUBMITTED and
 *                             the next writer finds them by its scan
 *   in the commit             LMDB's meta page decides: as above, or as below
 *   after the commit          the batch record names (slot, ticket, outcome): the next writer answers
 *                             those that are still SUBMITTED and executes nothing twice
 *   while completing          as above; releasing stripes again changes nothing (shm/stripe.c, S2)
 *   after publishing          owners have their answers; who was not woken looks again within a slice
 *
 * Invariants
 *   W1  all results of a batch are published before the next batch commits, since the next commit
 *       overwrites the record that would repair them.
 *   W2  a rejection is published only after the batch whose effects it may have seen is durable.
 *   W3  for one submitter, transactions are applied in the order of submission: an item is applied
 *       only after a take that began after it was seen, so whatever its submitter queued before it
 *       has been seen too.
 *   W4  after an error of unknown effect nothing is published any more.
 */
#include "writer/writer.h"
#include "writer/watch.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "shm/marks.h"
#include "shm/pause.h"
#include "shm/reaper.h"
#include "writer/append.h"
#include "writer/control.h"
#include "writer/create.h"
#include "writer/reserve.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAP_INTERVAL_NS  (250 * NS_PER_MS)
#define CLEAR_INTERVAL_NS (5 * NS_PER_S) /* readers that died */
#define MARK_INTERVAL_NS  (5 * NS_PER_S) /* of the head, for rates */
#define LOOK_INTERVAL_NS  NS_PER_S       /* whether the shared objects are still there */
#define FITS_AGAIN_NS     NS_PER_S /* behind one that did not fit, what fits says that there is room */

struct writer {
    struct writer_options options;
    char dir[4096];
    struct place *place;
    struct store *store;
    struct append *append;
    struct reserve *reserve;
    struct segment *segment;
    struct gauges *gauges;
    struct participant *participant;
    struct writer_recovery recovery;
    struct append_limits limits;
    uint64_t reaped_ns, looked_ns;
    int failed; /* W4 */
    int taken;  /* that the shared objects have no name any more was told */

    /* The helper's. */
    struct watch *watch;
    uint64_t cleared_ns;
    uint64_t marks_version; /* of what was shown last; 0: nothing was */

    /* Seen and not yet decided, sorted by seq. */
    struct slot_taken pending[SHM_SLOTS_MAX];
    uint32_t pending_len;
    _Atomic uint32_t undecided;   /* pending_len after the last step, for who waits beside steps */
    uint64_t closed;              /* pending with seq < closed may be applied (W3) */
    uint8_t known[SHM_SLOTS_MAX]; /* the slot is in pending */
    uint64_t stop_seq;            /* what was submitted from here on is the next writer's */
    uint64_t full_seq;            /* the disk is full: from here on it is refused */
    uint64_t unfit_ns;            /* when one did not fit and there was no reserve; 0: they fit */
    uint32_t pause_kind;          /* of what is asked for and not yet in force, or 0 */
    uint64_t pause_seq;           /* what was submitted before it was seen is finished first */

    /* The batch that is being made. */
    struct slot_taken batch[SHM_SLOTS_MAX];
    struct batch_entry entry[SHM_SLOTS_MAX];
    struct slot_outcome outcome[SHM_SLOTS_MAX];
    uint32_t batch_len;
    uint64_t batch_bytes;
    struct buf image;
};

void writer_options_from(const struct config *c, struct writer_options *ret)
{
    ret->sync = (enum config_sync)c->number[CONFIG_writer_sync];
    ret->slots = (uint32_t)c->number[CONFIG_segment_slots];
    ret->stripes = (uint32_t)c->number[CONFIG_segment_stripes];
    ret->blocks = (uint32_t)c->number[CONFIG_segment_blocks];
    ret->batch_bytes = c->number[CONFIG_writer_batch_bytes];
    ret->batch_transactions = (uint32_t)c->number[CONFIG_writer_batch_transactions];
    ret->id_count = c->number[CONFIG_writer_id_count];
    ret->id_time_ms = c->number[CONFIG_writer_id_time];
    ret->redo_bytes = c->number[CONFIG_writer_redo_keep];
    ret->reserve_bytes = c->number[CONFIG_writer_reserve];
}

static struct append_limits limits_of(const struct writer_options *o)
{
    return (struct append_limits){o->id_count, o->id_time_ms, o->redo_bytes};
}

/* ---- opening ---- */

/* Does the living segment belong to this data file as it is now? */
static int segment_fits(const struct writer *w, const struct segment *s)
{
    const struct store_identity *id = store_identity(w->store);
    const struct batch_head *head = append_head(w->append);
    const struct header_shm *h = s->header;
    return h->device == id->device && h->inode == id->inode &&
           memcmp(h->uuid, id->uuid, sizeof h->uuid) == 0 && h->incarnation == head->incarnation &&
           atomic_load(&h->head_event) <= head->event && atomic_load(&h->head_txn) <= head->txn &&
           atomic_load(&h->epoch) < head->epoch;
}

static int segment_make(struct writer *w, const struct segment_name *name, uint64_t least,
                        struct azoth_error *err)
{
    const struct store_identity *id = store_identity(w->store);
    struct segment_plan plan = {
        .device = id->device,
        .inode = id->inode,
        .incarnation = append_head(w->append)->incarnation,
        .slots = w->options.slots,
        .stripes = w->options.stripes,
        .blocks = w->options.blocks,
        .sync_mode = (uint32_t)w->options.sync,
        .mode = 0660,
    };
    memcpy(plan.uuid, id->uuid, sizeof plan.uuid);
    if (plan.incarnation < least)
        plan.incarnation = least;
    plan.incarnation++;
    /* In LMDB first: the record of the last batch must not be taken for one of the new segment. */
    int rc = append_incarnation(w->append, plan.incarnation, err);
    if (!rc)
        CRASH_POINT(writer_incarnation);
    if (!rc)
        rc = segment_create(name, &plan, &w->segment, err);
    return rc;
}

static int segment_enter(struct writer *w, struct azoth_error *err)
{
    struct segment_name name;
    struct azoth_error why;
    int rc = segment_name_of(w->dir, &name, err);
    if (rc)
        return rc;
    rc = gauges_create(&name, &w->gauges, err);
    if (rc)
        return rc;
    rc = segment_attach(&name, &w->segment, &why);
    if (rc == 0 && segment_fits(w, w->segment))
        return 0;
    uint64_t incarnation = 0;
    if (rc == 0) {
        incarnation = w->segment->incarnation;
        segment_detach(w->segment);
        w->segment = NULL;
    }
    if (rc != AZOTH_ERR_NO_WRITER)
        w->recovery.retired = 1;
    rc = segment_retire_name(&name, err);
    if (rc)
        return rc;
    return segment_make(w, &name, incarnation, err);
}

static int by_seq(const void *a, const void *b)
{
    const struct slot_taken *x = a, *y = b;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Answers what the last writer decided and did not publish, and queues what it did not decide. */
static int recover(struct writer *w, const struct buf *record, struct azoth_error *err)
{
    struct batch_head h;
    int rc = batch_decode(buf_bytes(record), &h);
    if (rc)
        return error_set(err, rc, "meta/head fails its check");
    struct wakes wakes = {0};
    for (uint32_t i = 0; h.incarnation == w->segment->incarnation && i < h.count; i++) {
        struct batch_entry e;
        batch_entry_decode(buf_bytes(record), i, &e);
        if (e.slot >= w->segment->slots)
            return error_set(err, AZOTH_ERR_CORRUPT, "the batch record names slot %u", e.slot);
        uint64_t word = atomic_load(&w->segment->slot[e.slot].word);
        if (slot_word_state(word) != SLOT_SUBMITTED || slot_word_ticket(word) != e.ticket)
            continue;
        struct slot_taken t = {.index = e.slot, .ticket = e.ticket};
        struct slot_outcome o = {.code = e.code, .result = e.result};
        snprintf(o.detail, sizeof o.detail, "%s", azoth_code_sentence(e.code));
        slot_complete(w->segment, &t, &o, &wakes);
        CRASH_POINT(writer_one_answered);
        w->recovery.answered++;
    }
    wakes_send(w->segment, &wakes);
    slot_free_given_up(w->segment);
    w->pending_len = slot_take(w->segment, 1, w->pending);
    if (w->pending_len)
        qsort(w->pending, w->pending_len, sizeof *w->pending, by_seq);
    for (uint32_t i = 0; i < w->pending_len; i++)
        w->known[w->pending[i].index] = 1;
    w->recovery.requeued = w->pending_len;
    return 0;
}

static void publish_head(struct writer *w)
{
    const struct batch_head *h = append_head(w->append);
    struct header_shm *s = w->segment->header;
    atomic_store_explicit(&s->head_txn, h->txn, memory_order_release);
    atomic_store_explicit(&s->head_event, h->event, memory_order_release);
    struct gauges_shm *g = w->gauges->g;
    gauge_set(&g->head_event, h->event);
    gauge_set(&g->head_txn, h->txn);
    gauge_set(&g->head_time_ns, (uint64_t)h->time_ns);
}

/* Wakes who waits for events: after the submitters, who have waited longer. One who dies before it is
 * noticed by the feed's own bounded wait, and by the next writer's announcement. */
static void announce(struct writer *w)
{
    struct header_shm *s = w->segment->header;
    atomic_fetch_add(&s->head_seq, 1);
    if (atomic_load(&s->head_waiters) && atomic_exchange(&s->head_waiters, 0))
        shm_wake(&s->head_seq, 1 << 30);
}

/* Shows in the segment whether the store is sealed. Looked up in a write transaction: registering as a
 * reader may wait for a process that stands. */
static int show_seal(struct writer *w, struct azoth_error *err)
{
    struct header_shm *h = w->segment->header;
    struct seal s = {0};
    int rc = append_begin(w->append, clock_wall_ns(), clock_mono_ns(), err);
    if (rc)
        return rc;
    int sealed = control_seal(w->append, &s, err);
    append_abort(w->append);
    if (sealed < 0)
        return sealed;
    int64_t age = sealed ? clock_wall_ns() - s.time_ns : 0;
    pause_store(w->segment, sealed ? s.who : NULL, s.pid,
                clock_mono_ns() - (uint64_t)(age > 0 ? age : 0));
    if (sealed) {
        /* At a start it is in force at once: what is submitted was so under the seal. */
        atomic_store(&h->pause_until_ns, UINT64_MAX);
        atomic_store(&h->paused, PAUSE_SEAL);
    }
    CRASH_POINT(writer_seal_shown);
    return 0;
}

/* When a backup that moved the mark was durable last. At a start that is not known of one that came while nobody showed it. */
static int64_t moved_at(const struct mark *m, const struct mark_told *old, uint32_t n,
                        int64_t wall_ns)
{
    for (uint32_t i = 0; i < n; i++)
        if (memcmp(old[i].is.place, m->place, MARK_PLACE) == 0 && old[i].is.txn == m->txn &&
            old[i].is.confirmed == m->confirmed)
            return old[i].moved_ns;
    return !m->confirmed ? 0 : wall_ns ? wall_ns : m->since_ns;
}

/* Behind a commit; wall_ns 0 at the start. */
static void show_marks(struct writer *w, int64_t wall_ns)
{
    struct mark_told old[SHM_MARKS], told[SHM_MARKS];
    const struct mark *list;
    uint64_t version;
    uint32_t olds, n = append_mark_list(w->append, &list, &version);
    if (version == w->marks_version)
        return;
    w->marks_version = version;
    if (!marks_read(w->gauges->g, old, &olds))
        olds = 0;
    for (uint32_t i = 0; i < n; i++)
        told[i] = (struct mark_told){list[i], moved_at(&list[i], old, olds, wall_ns)};
    marks_write(w->gauges->g, told, n);
}

static int open_parts(struct writer *w, struct azoth_error *err)
{
    /* The place is a lock in the directory: that comes first. */
    if (w->options.create && mkdir(w->dir, 0770) && errno != EEXIST)
        return error_errno(err, errno, "%s", w->dir);
    int rc = writer_place_take(w->dir, w->options.program, &w->place, err);
    if (rc)
        return rc;
    char path[4200];
    snprintf(path, sizeof path, "%s/data.mdb", w->dir);
    /* An init may have been faster. */
    if (w->options.create && access(path, F_OK) != 0 &&
        (rc = store_create(w->dir, w->options.reserve_bytes, err)) != 0 &&
        rc != AZOTH_ERR_DATABASE_EXISTS)
        return rc;
    rc = store_open(w->dir, STORE_WRITE, &w->store, err);
    if (!rc)
        rc = reserve_open(w->dir, w->options.reserve_bytes, &w->reserve, err);
    if (rc)
        return rc;
    struct buf record = {0};
    rc = append_open(w->store, (uint32_t)w->options.sync, &w->append, &record, err);
    /* A full disk: the reserve is for this too. */
    if (rc == AZOTH_ERR_NOSPACE && reserve_give_up(w->reserve))
        rc = append_open(w->store, (uint32_t)w->options.sync, &w->append, &record, err);
    if (!rc)
        CRASH_POINT(writer_epoch);
    if (!rc)
        rc = segment_enter(w, err);
    if (!rc)
        rc = participant_join(w->segment, w->dir, PARTICIPANT_WRITER, w->options.program,
                              &w->participant, err);
    if (!rc) {
        struct header_shm *h = w->segment->header;
        atomic_store(&h->writer_state, WRITER_RECOVERING);
        atomic_store(&h->writer_pid, (uint32_t)getpid());
        atomic_store(&h->epoch, append_head(w->append)->epoch);
        h->sync_mode = (uint32_t)w->options.sync;
        show_marks(w, 0);
        rc = recover(w, &record, err);
    }
    if (!rc)
        rc = show_seal(w, err);
    buf_fini(&record);
    return rc;
}

static void show_reserve(struct writer *w)
{
    struct gauges_shm *g = w->gauges->g;
    int full = reserve_lacking(w->reserve) || w->unfit_ns;
    gauge_set(&g->reserve_bytes, reserve_held(w->reserve));
    if (full != (gauge_get(&g->disk_full_ns) != 0))
        gauge_set(&g->disk_full_ns, full ? (uint64_t)clock_wall_ns() : 0);
}

int writer_open(const struct writer_options *o, struct writer **ret, struct azoth_error *err)
{
    struct writer *w = calloc(1, sizeof *w);
    if (!w)
        return error_set(err, AZOTH_ERR_NOMEM, "the writer");
    w->options = *o;
    w->stop_seq = UINT64_MAX;
    w->limits = limits_of(o);
    snprintf(w->dir, sizeof w->dir, "%s", o->dir);
    w->watch = calloc(1, sizeof *w->watch);
    if (w->watch)
        w->watch->not_files = o->embedded;
    int rc = w->watch ? open_parts(w, err) : error_set(err, AZOTH_ERR_NOMEM, "the writer");
    if (rc) {
        w->failed = 1;
        writer_close(w);
        return rc;
    }
    const struct batch_head *h = append_head(w->append);
    w->recovery.epoch = h->epoch;
    w->recovery.incarnation = w->segment->incarnation;
    w->recovery.head_event = h->event;
    gauge_set(&w->gauges->g->sync_mode, (uint64_t)w->options.sync);
    w->full_seq = atomic_load(&w->segment->header->queue_seq);
    show_reserve(w);
    gauge_set(&w->gauges->g->writer_started_ns, (uint64_t)clock_wall_ns());
    gauge_add(&w->gauges->g->recovered, w->recovery.answered + w->recovery.requeued);
    CRASH_POINT(writer_recovered);
    publish_head(w);
    announce(w);
    atomic_store(&w->segment->header->writer_state, WRITER_RUNNING);
    *ret = w;
    return 0;
}

/* ---- taking ---- */

/* One more look at the queue; returns how many were new. What was pending before may be applied
 * now. */
static uint32_t take(struct writer *w)
{
    w->closed = w->pending_len ? w->pending[w->pending_len - 1].seq + 1 : 0;
    struct slot_taken *end = &w->pending[w->pending_len], fresh[SHM_SLOTS_MAX];
    uint32_t n = slot_take(w->segment, 0, fresh), added = 0;
    for (uint32_t i = 0; i < n; i++) {
        /* A reaper may have set the bit of one that is known. */
        if (w->known[fresh[i].index])
            continue;
        w->known[fresh[i].index] = 1;
        end[added++] = fresh[i];
    }
    w->pending_len += added;
    if (added)
        qsort(w->pending, w->pending_len, sizeof *w->pending, by_seq);
    return added;
}

static void drop_first_pending(struct writer *w, uint32_t n)
{
    memmove(w->pending, w->pending + n, (w->pending_len - n) * sizeof *w->pending);
    w->pending_len -= n;
}

/* ---- deciding and appending ---- */

static void outcome_set(struct slot_outcome *o, int code, const struct txn_result *r,
                        const struct azoth_error *detail)
{
    o->code = code;
    o->result = *r;
    o->detail[0] = 0;
    if (code)
        snprintf(o->detail, sizeof o->detail, "%.*s", (int)sizeof o->detail - 1, detail->message);
}

/* What comes after a seal in its batch would be written under it: there must be one in force already. */
static int check_control(const struct writer *w, struct azoth_bytes image, struct azoth_error *err)
{
    int code = txn_check_control(image, err);
    if (!code && control_seals(image) && atomic_load(&w->segment->header->paused) != PAUSE_SEAL)
        code = error_set(err, AZOTH_ERR_TIMEOUT, "the seal that was to be made durable has ended");
    return code;
}

/* Applies one; 0, or what LMDB said. Adds it to the batch either way that it was decided. */
static int decide(struct writer *w, const struct slot_taken *t, struct azoth_error *err)
{
    uint8_t id[16];
    uint64_t content;
    struct txn_result result = {0};
    struct azoth_error detail = {0};
    int code = slot_copy(w->segment, t, &w->image, id, &content);
    if (code == AZOTH_ERR_NOMEM)
        return error_set(err, code, "a payload");
    if (code)
        error_set(&detail, code, "the payload in slot %u does not match its checksum", t->index);
    else if (t->flags & SLOT_CONTROL)
        code = check_control(w, buf_bytes(&w->image), &detail);
    else
        code = txn_check(buf_bytes(&w->image), &detail);
    if (!code) {
        int rc =
            t->flags & SLOT_CONTROL
                ? control_apply(w->append, buf_bytes(&w->image), &code, &result, &detail)
                : append_apply(w->append, buf_bytes(&w->image), t->flags & SLOT_HAS_ID ? id : NULL,
                               content, &code, &result, &detail);
        if (t->flags & SLOT_CONTROL)
            CRASH_POINT(control_applied);
        if (rc) {
            if (err)
                *err = detail;
            return rc;
        }
    }
    uint32_t i = w->batch_len++;
    w->batch[i] = *t;
    outcome_set(&w->outcome[i], code, &result, &detail);
    w->entry[i] =
        (struct batch_entry){.slot = t->index, .code = code, .ticket = t->ticket, .result = result};
    w->batch_bytes += w->image.len;
    return 0;
}

/* ---- completing ---- */

static void complete(struct writer *w, uint64_t now_ns)
{
    struct wakes wakes = {0};
    struct gauges_shm *g = w->gauges->g;
    publish_head(w);
    CRASH_POINT(writer_head_published);
    for (uint32_t i = 0; i < w->batch_len; i++) {
        const struct slot_outcome *o = &w->outcome[i];
        w->known[w->batch[i].index] = 0;
        slot_complete(w->segment, &w->batch[i], o, &wakes);
        if (i == 0)
            CRASH_POINT(writer_one_completed);
        if (o->code)
            gauge_add(&g->rejected, 1);
        else if (o->result.duplicate)
            gauge_add(&g->duplicates, 1);
        else if (!(w->batch[i].flags & SLOT_CONTROL))
            gauge_add(&g->transactions, 1);
        if (!o->code && !o->result.duplicate && o->result.first_event)
            gauge_add(&g->events, o->result.last_event - o->result.first_event + 1);
        if (now_ns > w->batch[i].submitted_ns)
            histogram_add(&g->queue_ns, now_ns - w->batch[i].submitted_ns);
        if (w->batch[i].submitted_ns > w->batch[i].claimed_ns)
            histogram_add(&g->preflight_ns, w->batch[i].submitted_ns - w->batch[i].claimed_ns);
    }
    CRASH_POINT(writer_completed);
    wakes_send(w->segment, &wakes);
    CRASH_POINT(writer_woken);
    announce(w);
    gauge_add(&g->bytes, w->batch_bytes);
    histogram_add(&g->batch_size, w->batch_len);
    w->batch_len = 0;
    w->batch_bytes = 0;
}

static int any_control(const struct writer *w)
{
    for (uint32_t i = 0; i < w->batch_len; i++)
        if (w->batch[i].flags & SLOT_CONTROL)
            return 1;
    return 0;
}

/* Commits what was applied (nothing to commit when it changed nothing), completes it. */
static int commit(struct writer *w, struct azoth_error *err)
{
    uint64_t before = clock_mono_ns(), after = before;
    CRASH_POINT(writer_applied);
    if (append_changes(w->append) == 0) {
        append_abort(w->append);
    } else {
        int rc = append_expire_ids(w->append, &w->limits, err);
        if (!rc)
            rc = append_trim_redo(w->append, &w->limits, err);
        if (rc) {
            append_abort(w->append);
            return rc;
        }
        uint32_t n = w->batch_len;
        if (BROKEN(early_answer))
            complete(w, before);
        rc = append_commit(w->append, w->entry, n, err);
        if (rc)
            return rc;
        after = clock_mono_ns();
        gauge_add(&w->gauges->g->commits, 1);
        histogram_add(&w->gauges->g->commit_ns, after - before);
        if (w->unfit_ns && after - w->unfit_ns > FITS_AGAIN_NS) {
            w->unfit_ns = 0;
            show_reserve(w);
        }
    }
    CRASH_POINT(writer_committed);
    show_marks(w, clock_wall_ns());
    if (any_control(w)) {
        int rc = show_seal(w, err);
        if (rc)
            return rc == AZOTH_ERR_NOSPACE ? AZOTH_ERR_IO : rc; /* it is committed: no second try */
    }
    complete(w, after);
    return 0;
}

/* A batch of the same transactions. */
static int again(struct writer *w, const struct slot_taken *list, uint32_t n,
                 struct azoth_error *err)
{
    w->batch_len = 0;
    w->batch_bytes = 0;
    int rc = append_begin(w->append, clock_wall_ns(), clock_mono_ns(), err);
    for (uint32_t i = 0; i < n && !rc; i++)
        rc = decide(w, &list[i], err);
    if (rc)
        append_abort(w->append);
    else
        rc = commit(w, err);
    return rc;
}

/* What a batch that did not fit leaves: the same transactions, in two halves, down to single ones,
 * which are refused. Each part is a batch of its own (W1). */
static int by_halves(struct writer *w, const struct slot_taken *list, uint32_t n,
                     struct azoth_error *err)
{
    gauge_add(&w->gauges->g->commit_failures, 1);
    if (n == 1) {
        struct txn_result none = {0};
        struct azoth_error full;
        error_set(&full, AZOTH_ERR_NOSPACE, "%s", azoth_code_sentence(AZOTH_ERR_NOSPACE));
        w->batch[0] = list[0];
        outcome_set(&w->outcome[0], AZOTH_ERR_NOSPACE, &none, &full);
        w->batch_len = 1;
        w->batch_bytes = 0;
        uint64_t now_ns = clock_mono_ns();
        if (!reserve_lacking(w->reserve))
            w->unfit_ns = now_ns;
        show_reserve(w);
        complete(w, now_ns);
        return 0;
    }
    for (uint32_t half = 0; half < 2; half++) {
        CRASH_POINT(writer_halves);
        const struct slot_taken *part = half ? list + n / 2 : list;
        uint32_t len = half ? n - n / 2 : n / 2;
        int rc = again(w, part, len, err);
        if (rc == AZOTH_ERR_NOSPACE)
            rc = by_halves(w, part, len, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int retry_smaller(struct writer *w, struct azoth_error *err)
{
    uint32_t n = w->batch_len;
    struct slot_taken *list = malloc((n + 1) * sizeof *list);
    if (!list)
        return error_set(err, AZOTH_ERR_NOMEM, "a batch that did not fit");
    memcpy(list, w->batch, n * sizeof *list);
    int rc = AZOTH_ERR_NOSPACE;
    /* What is submitted until now shall fit into the reserve; what comes later is refused. */
    if (reserve_give_up(w->reserve)) {
        w->full_seq = atomic_load(&w->segment->header->queue_seq);
        show_reserve(w);
        rc = again(w, list, n, err);
    }
    if (rc == AZOTH_ERR_NOSPACE)
        rc = by_halves(w, list, n, err);
    free(list);
    return rc;
}

static int batch_full(const struct writer *w)
{
    return w->batch_len >= w->options.batch_transactions || w->batch_len >= SHM_SLOTS_MAX ||
           w->batch_bytes >= w->options.batch_bytes;
}

static int pending_before(const struct writer *w, uint64_t seq)
{
    return w->pending_len && w->pending[0].seq < seq;
}

/* What was submitted from here on is not applied by this writer now. */
static uint64_t seq_limit(const struct writer *w)
{
    return reserve_lacking(w->reserve) && w->full_seq < w->stop_seq ? w->full_seq : w->stop_seq;
}

/* Applies pending ones and takes again, until nothing new has come or the batch is full. */
static int gather(struct writer *w, struct azoth_error *err)
{
    uint64_t limit = seq_limit(w);
    for (;;) {
        uint32_t fresh = take(w), i = 0;
        uint64_t end = w->closed < limit ? w->closed : limit;
        for (; i < w->pending_len && w->pending[i].seq < end && !batch_full(w); i++) {
            int rc = decide(w, &w->pending[i], err);
            if (rc) {
                /* Undecided: it goes into the retry with the others. */
                w->batch[w->batch_len++] = w->pending[i];
                drop_first_pending(w, i + 1);
                return rc;
            }
        }
        drop_first_pending(w, i);
        if (batch_full(w) || ((fresh == 0 || limit != UINT64_MAX) && !pending_before(w, limit)))
            return 0;
    }
}

/* A control item that no pause holds up. */
static int is_urgent(const struct slot_taken *t)
{
    return (t->flags & (SLOT_CONTROL | SLOT_WAITS_PAUSE)) == SLOT_CONTROL;
}

/* While paused: of the pending ones those that no pause holds up. */
static int gather_control(struct writer *w, struct azoth_error *err)
{
    uint32_t kept = 0, i = 0;
    int rc = 0;
    for (; i < w->pending_len && !rc; i++) {
        struct slot_taken t = w->pending[i];
        if (!is_urgent(&t) || batch_full(w)) {
            w->pending[kept++] = t;
            continue;
        }
        rc = decide(w, &t, err);
        if (rc)
            w->batch[w->batch_len++] = t; /* undecided: as in gather() */
    }
    memmove(w->pending + kept, w->pending + i, (w->pending_len - i) * sizeof *w->pending);
    w->pending_len -= i - kept;
    return rc;
}

/* ---- refusing ---- */

/* Answers the pending ones with `code`, but those that stay. Returns how many. */
static uint32_t refuse_pending(struct writer *w, int code,
                               int (*stays)(const struct writer *, const struct slot_taken *),
                               uint64_t now_ns)
{
    uint32_t kept = 0, refused = 0;
    struct txn_result none = {0};
    struct azoth_error why;
    error_set(&why, code, "%s", azoth_code_sentence(code));
    w->batch_len = 0;
    w->batch_bytes = 0;
    for (uint32_t i = 0; i < w->pending_len; i++) {
        if (stays(w, &w->pending[i])) {
            w->pending[kept++] = w->pending[i];
            continue;
        }
        w->batch[w->batch_len] = w->pending[i];
        outcome_set(&w->outcome[w->batch_len++], code, &none, &why);
        refused++;
    }
    w->pending_len = kept;
    if (refused)
        complete(w, now_ns);
    return refused;
}

static int may_pass_pause(const struct writer *w, const struct slot_taken *t)
{
    (void)w;
    return (t->flags & (SLOT_WAITS_PAUSE | SLOT_CONTROL)) != 0;
}

static int in_flight(const struct writer *w, const struct slot_taken *t)
{
    return t->seq < w->full_seq;
}

/* While the reserve is lacking: refuses what was submitted since it was given up, unless there is room
 * for it again. */
static uint32_t refuse_on_full_disk(struct writer *w, uint64_t now_ns)
{
    if (!reserve_lacking(w->reserve))
        return 0;
    if (reserve_restore(w->reserve)) {
        show_reserve(w);
        return 0;
    }
    take(w);
    return refuse_pending(w, AZOTH_ERR_NOSPACE, in_flight, now_ns);
}

/* ---- pausing ---- */

static void wake_pausers(struct header_shm *h)
{
    atomic_fetch_add(&h->pause_wake, 1);
    shm_wake(&h->pause_wake, 1 << 30);
}

static void pause_over(struct writer *w)
{
    struct header_shm *h = w->segment->header;
    w->pause_kind = 0;
    if (atomic_load(&h->paused) == 0)
        return;
    atomic_store(&h->paused, 0);
    CRASH_POINT(writer_unpaused);
    wake_pausers(h);
}

/* Between two batches. P1 of pause.h: `paused` first, the answers to who asked second. */
static void pause_enforce(struct writer *w, uint32_t kind)
{
    struct header_shm *h = w->segment->header;
    atomic_store(&h->paused, kind);
    CRASH_POINT(writer_paused);
    if (pause_confirm(w->segment))
        wake_pausers(h);
}

/* While paused: refuses the pending that do not want to wait. Returns 1 when nothing but control goes
 * on in this step. */
static int paused(struct writer *w, uint64_t now_ns)
{
    struct header_shm *h = w->segment->header;
    uint64_t until;
    uint32_t kind = pause_look(w->segment, now_ns, &until);
    if (until != atomic_load_explicit(&h->pause_until_ns, memory_order_relaxed))
        atomic_store(&h->pause_until_ns, until);
    if (!kind) {
        pause_over(w);
        return 0;
    }
    if (!atomic_load(&h->paused)) {
        /* What is submitted is finished first. New work keeps coming: only what was there counts. */
        if (!w->pause_kind)
            w->pause_seq = atomic_load(&h->queue_seq);
        w->pause_kind = kind;
        return 0;
    }
    pause_enforce(w, kind);
    take(w);
    refuse_pending(w, kind == PAUSE_SEAL ? AZOTH_ERR_SEALED : AZOTH_ERR_PAUSED, may_pass_pause,
                   now_ns);
    return 1;
}

/* After a step, which has taken at least once since the pause was seen: it takes effect when nothing
 * older is undecided. */
static void pause_if_asked(struct writer *w)
{
    if (w->pause_kind && !pending_before(w, w->pause_seq) &&
        !atomic_load(&w->segment->header->paused))
        pause_enforce(w, w->pause_kind);
}

/* ---- the step ---- */

/* The head as it was a while ago: who looks once can tell a rate. */
static void mark_head(struct writer *w, uint64_t now_ns)
{
    struct gauges_shm *g = w->gauges->g;
    if (now_ns - gauge_get(&g->head_next_ns) < MARK_INTERVAL_NS)
        return;
    gauge_set(&g->head_mark_event, gauge_get(&g->head_next_event));
    gauge_set(&g->head_mark_ns, gauge_get(&g->head_next_ns));
    gauge_set(&g->head_next_event, append_head(w->append)->event);
    gauge_set(&g->head_next_ns, now_ns);
}

static void beat(struct writer *w, uint64_t now_ns)
{
    mark_head(w, now_ns);
    atomic_store_explicit(&w->segment->header->heartbeat_ns, now_ns, memory_order_relaxed);
    gauge_set(&w->gauges->g->writer_heartbeat_ns, now_ns);
    if (reserve_lacking(w->reserve) && now_ns - w->reaped_ns >= REAP_INTERVAL_NS &&
        reserve_restore(w->reserve))
        show_reserve(w);
    if (now_ns - w->reaped_ns >= REAP_INTERVAL_NS) {
        w->reaped_ns = now_ns;
        gauge_add(&w->gauges->g->participants_reaped, reap_step(w->participant));
    }
}

static int objects_taken(const struct writer *w)
{
    return segment_taken(w->segment) || gauges_taken(w->gauges);
}

/* Without their names nobody else can come. Told once: the rest is writer_close()'s. */
static int look_for_objects(struct writer *w, uint64_t now_ns, struct azoth_error *err)
{
    if (w->taken || w->stop_seq != UINT64_MAX || now_ns - w->looked_ns < LOOK_INTERVAL_NS)
        return 0;
    w->looked_ns = now_ns;
    w->taken = objects_taken(w);
    return w->taken ? error_set(
                          err, AZOTH_ERR_RETIRED,
                          "the shared objects %s were removed: new ones are made at the next start",
                          w->segment->name.segment)
                    : 0;
}

/* One batch of what fn finds among the pending: how many were decided, or an error (W4). */
static int batch(struct writer *w, int (*fn)(struct writer *, struct azoth_error *),
                 uint64_t now_ns, struct azoth_error *err)
{
    w->batch_len = 0;
    w->batch_bytes = 0;
    int64_t wall = clock_wall_ns();
    gauge_set(&w->gauges->g->clock_held, wall < append_head(w->append)->time_ns);
    int rc = append_begin(w->append, wall, now_ns, err);
    if (!rc)
        rc = fn(w, err);
    uint32_t n = w->batch_len;
    if (rc)
        append_abort(w->append);
    else
        rc = commit(w, err);
    if (rc == AZOTH_ERR_NOSPACE)
        rc = retry_smaller(w, err);
    w->failed = rc != 0;
    return rc ? rc : (int)n;
}

static int control_pending(const struct writer *w)
{
    for (uint32_t i = 0; i < w->pending_len; i++)
        if (is_urgent(&w->pending[i]))
            return 1;
    return 0;
}

static int step(struct writer *w, uint64_t now_ns, struct azoth_error *err)
{
    if (w->failed)
        return error_set(err, AZOTH_ERR_IO, "an earlier step failed: this writer must end");
    beat(w, now_ns);
    int gone = look_for_objects(w, now_ns, err);
    if (gone)
        return gone;
    if (paused(w, now_ns))
        return control_pending(w) ? batch(w, gather_control, now_ns, err) : 0;
    if (w->pending_len == 0 && take(w) == 0) {
        pause_if_asked(w);
        return 0;
    }
    uint32_t refused = refuse_on_full_disk(w, now_ns);
    if (w->pending_len == 0) {
        pause_if_asked(w);
        return (int)refused;
    }
    CRASH_POINT(writer_taken);
    int n = batch(w, gather, now_ns, err);
    if (n >= 0)
        pause_if_asked(w);
    return n;
}

int writer_step(struct writer *w, uint64_t now_ns, struct azoth_error *err)
{
    int n = step(w, now_ns, err);
    atomic_store_explicit(&w->undecided, w->pending_len, memory_order_relaxed);
    return n;
}

void writer_reconfigure(struct writer *w, const struct writer_options *o)
{
    w->options.batch_bytes = o->batch_bytes;
    w->options.batch_transactions = o->batch_transactions;
    w->limits = limits_of(o);
}

uint32_t writer_waiting(const struct writer *w)
{
    return atomic_load_explicit(&w->undecided, memory_order_relaxed);
}

void writer_wait(struct writer *w, uint64_t timeout_ns)
{
    struct header_shm *h = w->segment->header;
    uint32_t seen = atomic_load(&h->writer_wake);
    atomic_store(&h->writer_sleeps, 1);
    int held = atomic_load(&h->paused) != 0;
    if (!slot_queued(w->segment) &&
        (atomic_load_explicit(&w->undecided, memory_order_relaxed) == 0 || held))
        shm_wait(&h->writer_wake, seen, timeout_ns);
    atomic_store(&h->writer_sleeps, 0);
}

void writer_help(struct writer *w)
{
    int cleared = 0;
    uint64_t now_ns = clock_mono_ns();
    watch_step(w->watch, w->store, w->dir, w->gauges->g, now_ns);
    if (now_ns - w->cleared_ns < CLEAR_INTERVAL_NS)
        return;
    w->cleared_ns = now_ns;
    if (store_clear_dead_readers(w->store, &cleared) == 0 && cleared > 0)
        gauge_add(&w->gauges->g->readers_cleared, (uint64_t)cleared);
}

/* ---- closing ---- */

static int others_attached(struct writer *w)
{
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++)
        if (i != w->participant->index &&
            (atomic_load(&w->segment->participant[i].word) & 0xff) == PARTICIPANT_LIVE &&
            !participant_dead(w->participant, i))
            return 1;
    return 0;
}

/* Finishes what was submitted before now; what comes later waits for the next writer. */
static void drain(struct writer *w)
{
    ensure(w->segment != NULL);
    atomic_store(&w->segment->header->writer_state, WRITER_DRAINING);
    w->stop_seq = atomic_load(&w->segment->header->queue_seq);
    CRASH_POINT(writer_draining);
    /* Two takes see all of it (W3); while paused the rest waits for the next writer. */
    for (int quiet = 0; quiet < 2;) {
        if (writer_step(w, clock_mono_ns(), NULL) < 0 || atomic_load(&w->segment->header->paused))
            return;
        quiet = pending_before(w, w->stop_seq) ? 0 : quiet + 1;
    }
}

static void leave_segment(struct writer *w)
{
    ensure(w->segment != NULL);
    struct header_shm *h = w->segment->header;
    atomic_store(&h->writer_state, WRITER_ABSENT);
    atomic_store(&h->writer_pid, 0);
    CRASH_POINT(writer_absent);
    if (!w->failed && objects_taken(w)) {
        /* What lies under the name now, if anything, is not ours. */
        segment_retire(w->segment);
        return;
    }
    if (w->failed || others_attached(w))
        return;
    /* Nobody is left to use it. One that attaches this moment sees RETIRED and starts over. */
    segment_retire(w->segment);
    segment_unlink(&w->segment->name);
}

void writer_close(struct writer *w)
{
    if (!w)
        return;
    if (w->participant) {
        if (!w->failed)
            drain(w);
        leave_segment(w);
        participant_leave(w->participant);
    }
    append_close(w->append);
    reserve_close(w->reserve);
    segment_detach(w->segment);
    gauges_detach(w->gauges);
    store_close(w->store);
    place_leave(w->place);
    buf_fini(&w->image);
    free(w->watch);
    free(w);
}

struct segment *writer_segment(struct writer *w)
{
    return w->segment;
}

struct gauges *writer_gauges(struct writer *w)
{
    return w->gauges;
}

struct store *writer_store(struct writer *w)
{
    return w->store;
}

struct participant *writer_participant(struct writer *w)
{
    return w->participant;
}

struct writer_recovery writer_recovered(const struct writer *w)
{
    return w->recovery;
}
