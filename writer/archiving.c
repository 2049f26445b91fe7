/*
 * archiving.c - recording segments and deleting their events, inside the batch's LMDB transaction.
 *
 * Invariants
 *   G1  in every commit each event is in LMDB, or in a segment that is recorded: `first_in_store` moves in the
 *       transaction that deletes, and never beyond the last recorded event.
 *   G2  segments are recorded one behind the other, from event 1 on, without a gap.
 */
#include "writer/archiving.h"

#include "core/archived.h"
#include "core/error.h"

#include <stdlib.h>
#include <string.h>

/* Of what was found before anything was changed: it is the answer, and no reason to end the writer. */
static int verdict(int rc, int *ret_code)
{
    if (rc != AZOTH_ERR_CORRUPT && rc != AZOTH_ERR_GAP)
        return rc;
    *ret_code = rc;
    return 0;
}

static const struct azoth_bytes state_key = {"archive", 7};

static int get_state(struct append *a, struct archived_state *ret, struct azoth_error *detail)
{
    struct azoth_bytes rec;
    int rc = append_meta_get(a, state_key, &rec, detail);
    *ret = (struct archived_state){.first_in_store = 1};
    if (rc == 1 && archived_state_decode(rec, ret))
        return error_set(detail, AZOTH_ERR_CORRUPT, "meta/archive fails its check");
    return rc < 0 ? rc : 0;
}

static int put_state(struct append *a, const struct archived_state *s, struct azoth_error *detail)
{
    unsigned char rec[ARCHIVE_STATE];
    archived_state_encode(rec, s);
    return append_meta_put(a, state_key, bytes_of(rec, sizeof rec), detail);
}

/* The record of the segment that ends with this event: 1, 0, or an error. */
static int get_entry(struct append *a, uint64_t last, struct archived_entry *ret,
                     struct azoth_error *detail)
{
    unsigned char key[ARCHIVE_KEY];
    struct azoth_bytes rec;
    archived_key(key, last);
    int rc = append_meta_get(a, bytes_of(key, sizeof key), &rec, detail);
    if (rc == 1 && archived_entry_decode(rec, ret))
        return error_set(detail, AZOTH_ERR_CORRUPT,
                         "the record of the segment up to event %llu fails its check",
                         (unsigned long long)last);
    return rc;
}

static int put_entry(struct append *a, const struct archived_entry *e, struct azoth_error *detail)
{
    unsigned char key[ARCHIVE_KEY];
    struct buf rec = {0};
    archived_key(key, e->about.last);
    int rc = archived_entry_encode(&rec, e);
    rc = rc ? error_set(detail, rc, "a segment's record")
            : append_meta_put(a, bytes_of(key, sizeof key), buf_bytes(&rec), detail);
    buf_fini(&rec);
    return rc;
}

static int record(struct append *a, struct archived_entry *e, struct archived_entry *old,
                  int *ret_code, struct azoth_error *detail)
{
    struct archived_state s;
    int rc = get_state(a, &s, detail);
    int there = rc < 0 ? rc : get_entry(a, e->about.last, old, detail);
    if (there < 0)
        return verdict(there, ret_code);
    if (there && memcmp(old->about.digest, e->about.digest, ARCHIVE_DIGEST) == 0)
        return 0;
    if (e->about.first != s.last_archived + 1 || e->about.last > append_head(a)->event) {
        *ret_code = error_set(
            detail, AZOTH_ERR_BAD_REQUEST,
            "a segment of events %llu to %llu: archived are those up to %llu of %llu",
            (unsigned long long)e->about.first, (unsigned long long)e->about.last,
            (unsigned long long)s.last_archived, (unsigned long long)append_head(a)->event);
        return 0;
    }
    s.last_archived = e->about.last;
    rc = put_entry(a, e, detail);
    return rc ? rc : put_state(a, &s, detail);
}

int archiving_record(struct append *a, struct azoth_bytes argument, int *ret_code,
                     struct azoth_error *detail)
{
    struct archived_entry *e = malloc(2 * sizeof *e);
    if (!e)
        return error_set(detail, AZOTH_ERR_NOMEM, "a segment's record");
    int rc = 0;
    if (archived_entry_decode(argument, e))
        *ret_code = error_set(detail, AZOTH_ERR_BAD_REQUEST, "this is no record of a segment");
    else
        rc = record(a, e, e + 1, ret_code, detail);
    free(e);
    return rc;
}

int archiving_piece(struct append *a, struct azoth_bytes argument, int *ret_code,
                    struct azoth_error *detail)
{
    struct archived_state s;
    if (argument.len) {
        *ret_code = error_set(detail, AZOTH_ERR_BAD_REQUEST, "archive-piece takes no argument");
        return 0;
    }
    int rc = get_state(a, &s, detail);
    if (rc || s.first_in_store > s.last_archived)
        return verdict(rc, ret_code);
    rc = append_delete_events(a, &s.first_in_store, s.last_archived, ARCHIVE_PIECE_EVENTS,
                              ARCHIVE_PIECE_BYTES, detail);
    if (rc == AZOTH_ERR_GAP)
        return verdict(rc, ret_code);
    return rc ? rc : put_state(a, &s, detail);
}

int archiving_move(struct append *a, struct azoth_bytes argument, int *ret_code,
                   struct azoth_error *detail)
{
    if (argument.len <= 8 || argument.len > 8 + ARCHIVE_PATH_MAX ||
        memchr((const char *)argument.ptr + 8, 0, argument.len - 8)) {
        *ret_code = error_set(detail, AZOTH_ERR_BAD_REQUEST, "a segment is moved to a path");
        return 0;
    }
    uint64_t last = get_u64(argument.ptr);
    struct archived_entry *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(detail, AZOTH_ERR_NOMEM, "a segment's record");
    int rc = get_entry(a, last, e, detail);
    if (rc == 0)
        *ret_code = error_set(detail, AZOTH_ERR_NOT_FOUND, "no segment ends with event %llu",
                              (unsigned long long)last);
    if (rc < 0)
        rc = verdict(rc, ret_code);
    if (rc == 1) {
        memcpy(e->path, (const char *)argument.ptr + 8, argument.len - 8);
        e->path[argument.len - 8] = 0;
        rc = put_entry(a, e, detail);
    }
    free(e);
    return rc;
}
