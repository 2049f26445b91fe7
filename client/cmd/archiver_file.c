/*
 * archiver_file.c - a segment's file is written from bounded looks into the log, transaction by transaction, with the
 * chain over them; and read back and compared with what LMDB has, block by block. It has no name that counts yet:
 * see archiver.c.
 */
#include "client/cmd/archiver_file.h"

#include "core/crash.h"
#include "core/error.h"
#include "writer/feed_look.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_BYTES (1u << 20)

int archiver_say(const struct archiver *a, const char *doing, uint64_t event)
{
    return a->say ? a->say(a->arg, doing, event) : 0;
}

/* A segment that is being written. */
struct writing {
    struct archivefile_out *o;
    uint64_t last, txn; /* what was added */
    int full;           /* the segment ends before the next transaction */
    uint8_t chain_before[CHAIN_BYTES];
    struct chain chain;
    struct buf frames; /* of the transaction that is not in the chain yet */
    uint32_t events;
};

/* Its last transaction is whole: the chain goes over it. */
static int chain_transaction(struct writing *w, struct azoth_error *err)
{
    if (!w->chain.on || w->events == 0)
        return 0;
    struct event_record *ev = calloc(w->events, sizeof *ev);
    size_t at = 0;
    if (!ev)
        return error_set(err, AZOTH_ERR_NOMEM, "a transaction's events");
    for (uint32_t i = 0; i < w->events; i++)
        ensure(record_frame_next(buf_bytes(&w->frames), &at, &ev[i], NULL) == 1);
    chain_extend(&w->chain, ev, w->events);
    free(ev);
    buf_clear(&w->frames);
    w->events = 0;
    return 0;
}

static int add_event(struct writing *w, const struct event_record *ev, struct azoth_bytes raw,
                     struct azoth_error *err)
{
    int rc = ev->txn != w->txn ? chain_transaction(w, err) : 0;
    if (!rc && w->chain.on && record_frame_add(&w->frames, ev->id, raw))
        rc = error_set(err, AZOTH_ERR_NOMEM, "a transaction's events");
    if (!rc)
        rc = archivefile_add(w->o, ev, raw, err);
    if (rc)
        return rc;
    w->events += (uint32_t)w->chain.on;
    w->txn = ev->txn;
    w->last = ev->id;
    return 0;
}

static int add_frames(struct archiver *a, struct writing *w, struct azoth_bytes frames,
                      struct azoth_error *err)
{
    struct event_record ev;
    size_t at = 0, from = 0;
    int rc;
    while ((rc = record_frame_next(frames, &at, &ev, NULL)) == 1) {
        int large = archivefile_events(w->o) >= a->events_max ||
                    archivefile_log_bytes(w->o) >= ARCHIVER_BYTES;
        w->full = large && ev.txn != w->txn;
        if (w->full)
            return 0;
        from += RECORD_FRAME_HEADER;
        rc = add_event(w, &ev, bytes_of((const unsigned char *)frames.ptr + from, at - from), err);
        if (rc)
            return rc;
        from = at;
    }
    return rc ? error_set(err, rc, "the log's frames fail their check") : 0;
}

static int write_events(struct archiver *a, struct writing *w, uint64_t end,
                        struct azoth_error *err)
{
    struct feed_filter all = {.shards = 1, .to = end};
    struct feed_look look = {0};
    struct buf frames = {0};
    int rc = 0;
    while (!rc && !w->full && w->last < end) {
        buf_clear(&frames);
        rc = feed_look(a->store, &all, w->last, LOOK_BYTES, &frames, &look, err);
        if (!rc)
            rc = add_frames(a, w, buf_bytes(&frames), err);
        CRASH_POINT(archive_written);
        if (!rc)
            rc = archiver_say(a, "writing", w->last);
    }
    buf_fini(&frames);
    return rc ? rc : chain_transaction(w, err);
}

/* The chain before the event after the newest segment; *end is drawn in to where the chain begins. */
static int chain_before(struct archiver *a, uint64_t *end, struct chain *ret,
                        struct azoth_error *err)
{
    struct snapshot *sn;
    struct archived_state state = {0};
    struct chain start = {0};
    struct archived_entry *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's record");
    int rc = snapshot_begin(a->store, &sn, err);
    if (rc) {
        free(e);
        return rc;
    }
    rc = snapshot_chain_start(sn, &start, err);
    int got = rc < 0 ? rc : snapshot_archive(sn, &state, err);
    if (got == 0)
        got = snapshot_archive_of(sn, state.last_archived, e, err);
    snapshot_end(sn);
    *ret = start;
    if (got == 1 && e->about.chained)
        memcpy(ret->value, e->about.chain_after, CHAIN_BYTES);
    else if (got >= 0 && start.on && start.event > state.last_archived) {
        ret->on = 0;
        *end = start.event < *end ? start.event : *end;
    }
    free(e);
    return got < 0 ? got : 0;
}

/* What the file has, byte by byte what LMDB has: after all that was cached of it is forgotten. */
static int compare(struct archiver *a, const struct archivefile *f, struct azoth_error *err)
{
    const struct archive_about *about = archivefile_about(f);
    struct buf there = {0}, here = {0};
    struct feed_filter all = {.shards = 1};
    struct feed_look look = {0};
    int rc = 0;
    for (uint32_t i = 0; !rc && i < archivefile_blocks(f); i++) {
        uint64_t first = archivefile_block_first(f, i);
        all.to =
            i + 1 < archivefile_blocks(f) ? archivefile_block_first(f, i + 1) - 1 : about->last;
        buf_clear(&here);
        rc = archivefile_read(f, i, &there, err);
        for (uint64_t at = first - 1; !rc && at < all.to; at = look.last)
            rc = feed_look(a->store, &all, at, FEED_LOOK_BYTES, &here, &look, err);
        if (!rc && !bytes_eq(buf_bytes(&here), buf_bytes(&there)))
            rc = error_set(err, AZOTH_ERR_CORRUPT,
                           "the segment's events %llu to %llu are not those of the log",
                           (unsigned long long)first, (unsigned long long)all.to);
        if (!rc)
            rc = archiver_say(a, "comparing", all.to);
    }
    buf_fini(&there);
    buf_fini(&here);
    return rc;
}

void archiver_forget_cached(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* a courtesy: what is read is the disk's */
    close(fd);
}

int archiver_prove(struct archiver *a, const char *path, struct archive_about *ret,
                   struct azoth_error *err)
{
    struct archivefile *f;
    archiver_forget_cached(path);
    int rc = archivefile_open(path, &f, err);
    if (rc)
        return rc;
    rc = archivefile_verify(f, NULL, NULL, err);
    if (!rc)
        rc = compare(a, f, err);
    if (!rc)
        *ret = *archivefile_about(f);
    archivefile_close(f);
    return rc;
}

int archiver_write(struct archiver *a, const char *partial, uint64_t first, uint64_t end,
                   struct archive_about *ret, struct azoth_error *err)
{
    struct writing w = {.last = first - 1};
    int rc = chain_before(a, &end, &w.chain, err);
    if (!rc)
        rc = archivefile_create(partial, store_identity(a->store)->uuid, a->level, &w.o, err);
    if (rc)
        return rc;
    memcpy(w.chain_before, w.chain.value, CHAIN_BYTES);
    rc = write_events(a, &w, end, err);
    if (rc)
        archivefile_abort(w.o);
    else
        rc = archivefile_finish(w.o, w.chain.on ? w.chain_before : NULL, w.chain.value, ret, err);
    buf_fini(&w.frames);
    if (!rc)
        CRASH_POINT(archive_synced);
    return rc;
}
