#include "writer/control.h"

#include "core/error.h"
#include "core/mark.h"
#include "core/record.h"
#include "writer/archiving.h"

#include <string.h>

/* Answers a verdict on the request (*ret_code is 0 when it is called), or fails as LMDB did. */
typedef int operation_fn(struct append *a, struct azoth_bytes argument, int *ret_code,
                         struct azoth_error *detail);

/* ---- marks ---- */

/* 1 and *ret, 0 when the place has none, or an error. */
static int find_mark(struct append *a, const uint8_t *place, struct mark *ret,
                     struct azoth_error *detail)
{
    char key[MARK_KEY + 1];
    struct azoth_bytes rec;
    mark_key(key, place);
    int rc = append_meta_get(a, bytes_str(key), &rec, detail);
    if (rc == 1 && mark_decode(bytes_str(key), rec, ret))
        return error_set(detail, AZOTH_ERR_CORRUPT, "meta/%s fails its check", key);
    return rc;
}

static int put_mark(struct append *a, const struct mark *m, struct azoth_error *detail)
{
    char key[MARK_KEY + 1];
    unsigned char rec[MARK_RECORD];
    mark_key(key, m->place);
    mark_encode(rec, m);
    return append_meta_put(a, bytes_str(key), bytes_of(rec, sizeof rec), detail);
}

static int new_mark(struct append *a, struct mark *m, int there, int *ret_code,
                    struct azoth_error *detail)
{
    const struct batch_head *head = append_head(a);
    if (!there && append_marks(a) >= MARKS_MAX) {
        *ret_code =
            error_set(detail, AZOTH_ERR_FULL,
                      "%u places of backups have a mark: azoth backup forget drops one", MARKS_MAX);
        return 0;
    }
    m->txn = head->txn;
    m->event = head->event;
    m->since_ns = head->time_ns;
    m->broken = 0;
    m->confirmed = 0;
    return put_mark(a, m, detail);
}

static int move_mark(struct append *a, struct mark *m, int there, const unsigned char *to,
                     int *ret_code, struct azoth_error *detail)
{
    const struct batch_head *head = append_head(a);
    uint64_t txn = get_u64(to), event = get_u64(to + 8);
    if (!there)
        *ret_code = error_set(detail, AZOTH_ERR_NOT_FOUND,
                              "the place of these backups has no mark in the database");
    else if (m->broken)
        *ret_code = error_set(detail, AZOTH_ERR_BACKUP_MISSING,
                              "the redo records after transaction %llu are gone: the next backup "
                              "to this place has to be a full one",
                              (unsigned long long)m->txn);
    else if (txn < m->txn || event < m->event || txn > head->txn || event > head->event)
        *ret_code = error_set(detail, AZOTH_ERR_BAD_REQUEST,
                              "the mark is at transaction %llu, the head at %llu: it can not go "
                              "to %llu",
                              (unsigned long long)m->txn, (unsigned long long)head->txn,
                              (unsigned long long)txn);
    if (*ret_code)
        return 0;
    m->txn = txn;
    m->event = event;
    m->since_ns = (int64_t)get_u64(to + 16);
    m->confirmed = 1;
    return put_mark(a, m, detail);
}

static int bad_argument(int *ret_code, size_t len, struct azoth_error *detail)
{
    *ret_code = error_set(detail, AZOTH_ERR_BAD_REQUEST,
                          "a control operation with an argument of %zu bytes", len);
    return 0;
}

static int do_mark(struct append *a, struct azoth_bytes argument, int *ret_code,
                   struct azoth_error *detail)
{
    struct mark m = {0};
    const unsigned char *p = argument.ptr;
    if (argument.len != CONTROL_MARK_NEW && argument.len != CONTROL_MARK_MOVE)
        return bad_argument(ret_code, argument.len, detail);
    int there = find_mark(a, p, &m, detail);
    if (there < 0)
        return there;
    memcpy(m.place, p, MARK_PLACE);
    return argument.len == CONTROL_MARK_NEW
               ? new_mark(a, &m, there, ret_code, detail)
               : move_mark(a, &m, there, p + MARK_PLACE, ret_code, detail);
}

static int do_follow(struct append *a, struct azoth_bytes argument, int *ret_code,
                     struct azoth_error *detail)
{
    struct mark m = {0};
    if (argument.len != MARK_PLACE)
        return bad_argument(ret_code, argument.len, detail);
    int there = find_mark(a, argument.ptr, &m, detail);
    if (there < 0)
        return there;
    if (!there) {
        *ret_code = error_set(detail, AZOTH_ERR_NOT_FOUND, "this place of backups has no mark");
        return 0;
    }
    m.followed = 1;
    return put_mark(a, &m, detail);
}

static int do_unmark(struct append *a, struct azoth_bytes argument, int *ret_code,
                     struct azoth_error *detail)
{
    char key[MARK_KEY + 1];
    if (argument.len != MARK_PLACE)
        return bad_argument(ret_code, argument.len, detail);
    mark_key(key, argument.ptr);
    return append_meta_del(a, bytes_str(key), detail);
}

/* ---- the seal ---- */

int control_seal(struct append *a, struct seal *ret, struct azoth_error *err)
{
    struct azoth_bytes rec;
    int rc = append_meta_get(a, bytes_str(SEAL_KEY), &rec, err);
    if (rc == 1 && seal_decode(rec, ret))
        return error_set(err, AZOTH_ERR_CORRUPT, "meta/" SEAL_KEY " fails its check");
    return rc;
}

static int do_seal(struct append *a, struct azoth_bytes argument, int *ret_code,
                   struct azoth_error *detail)
{
    const struct batch_head *head = append_head(a);
    unsigned char rec[SEAL_RECORD];
    const unsigned char *p = argument.ptr;
    struct seal s = {0};
    if (argument.len < CONTROL_SEAL || argument.len >= CONTROL_SEAL + sizeof s.who)
        return bad_argument(ret_code, argument.len, detail);
    int there = control_seal(a, &s, detail);
    if (there)
        return there < 0 ? there : 0;
    s.event = head->event;
    s.txn = head->txn;
    s.pid = get_u32(p);
    s.time_ns = (int64_t)get_u64(p + 4);
    memcpy(s.who, p + CONTROL_SEAL, argument.len - CONTROL_SEAL);
    seal_encode(rec, &s);
    return append_meta_put(a, bytes_str(SEAL_KEY), bytes_of(rec, sizeof rec), detail);
}

static int do_unseal(struct append *a, struct azoth_bytes argument, int *ret_code,
                     struct azoth_error *detail)
{
    if (argument.len)
        return bad_argument(ret_code, argument.len, detail);
    return append_meta_del(a, bytes_str(SEAL_KEY), detail);
}

/* ---- dispatch ---- */

static const struct operation {
    const char *name;
    operation_fn *run;
    int waits; /* for the end of a pause */
} operations[] = {
    {"mark", do_mark, 0},
    {"follow", do_follow, 0},
    {"unmark", do_unmark, 0},
    {"seal", do_seal, 0},
    {"unseal", do_unseal, 0},
    {"archive", archiving_record, 1},
    {"archive-piece", archiving_piece, 1},
    {"archive-move", archiving_move, 1},
};

int control_waits(struct azoth_bytes name)
{
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (bytes_eq(name, bytes_str(operations[i].name)))
            return operations[i].waits;
    return 0;
}

int control_seals(struct azoth_bytes image)
{
    size_t at = 0;
    struct txn_item it;
    return txn_next(image, &at, &it) && bytes_eq(it.name, bytes_str("seal"));
}

int control_apply(struct append *a, struct azoth_bytes image, int *ret_code, struct txn_result *ret,
                  struct azoth_error *detail)
{
    size_t at = 0;
    struct txn_item it;
    *ret = (struct txn_result){0};
    *ret_code = 0;
    if (!txn_next(image, &at, &it)) {
        *ret_code = error_set(detail, AZOTH_ERR_BAD_REQUEST, "a control image without its item");
        return 0;
    }
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (!bytes_eq(it.name, bytes_str(operations[i].name)))
            continue;
        int rc = operations[i].run(a, it.value, ret_code, detail);
        if (!rc && !*ret_code)
            *ret = (struct txn_result){.txn = append_head(a)->txn,
                                       .last_event = append_head(a)->event};
        return rc;
    }
    *ret_code = error_set(detail, AZOTH_ERR_BAD_REQUEST, "there is no control operation %.*s",
                          (int)it.name.len, (const char *)it.name.ptr);
    return 0;
}
