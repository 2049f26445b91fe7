/*
 * pause.c - pauses and seals of a handle, and those that are held.
 *
 * The segment's part, and what a death leaves of it, is shm/pause.h's. A handle keeps the attachment on
 * which it asked: a segment that is retired takes the pause along, and azoth_pause_stands() says so.
 */
#include "client/internal.h"

#include "core/clock.h"
#include "core/record.h"
#include "writer/control.h"

#include <string.h>
#include <unistd.h>

#define LONGEST_MS 3600000u
#define HOLD_MS    60000u /* the seal under which the store's is made */

static int may_pause(const struct azoth *db, struct azoth_error *err)
{
    int rc = client_allowed(db, AZOTH_ERR_USAGE, err);
    if (!rc && (db->remote || db->read_only))
        rc = error_set(err, AZOTH_ERR_UNSUPPORTED, "pausing needs an attached handle");
    return rc;
}

/* Takes the handle's pause away from it. */
static struct attachment *take_own(struct azoth *db, struct pause *ret)
{
    pthread_mutex_lock(&db->lock);
    struct attachment *a = db->pause_on;
    *ret = db->pause;
    db->pause_on = NULL;
    pthread_mutex_unlock(&db->lock);
    return a;
}

void client_pause_end(struct azoth *db)
{
    struct pause own;
    struct attachment *a = db->local ? take_own(db, &own) : NULL;
    if (!a)
        return;
    pause_end(a->segment, &own);
    local_release(db->local, a);
}

/* ---- asking ---- */

/* Until the writer has finished what was submitted before. */
static int wait_for_force(struct azoth *db, struct attachment *a, const struct pause *p,
                          uint64_t give_up_ns, struct azoth_error *err)
{
    struct header_shm *h = a->segment->header;
    for (;;) {
        uint32_t seen = atomic_load(&h->pause_wake);
        int state = pause_in_force(a->segment, p);
        if (segment_retired(a->segment))
            return error_set(err, AZOTH_ERR_RETIRED, "%s", azoth_code_sentence(AZOTH_ERR_RETIRED));
        if (state > 0)
            return 0;
        if (state < 0)
            return error_set(err, AZOTH_ERR_TIMEOUT, "the pause ended before it was in force");
        if (clock_mono_ns() >= give_up_ns)
            return error_set(err, AZOTH_ERR_TIMEOUT, "the writer did not confirm the pause");
        slot_wake_writer(a->segment);
        if (!local_step(db->local) && !pause_in_force(a->segment, p))
            shm_wait(&h->pause_wake, seen, SHM_WAIT_SLICE_NS);
        segment_look(a->segment, clock_mono_ns());
    }
}

/* The new one first, then the end of the one before: there is no gap between them. */
static void make_own(struct azoth *db, struct attachment *a, const struct pause *p,
                     enum pause_kind kind)
{
    struct pause before;
    pthread_mutex_lock(&db->lock);
    struct attachment *was = db->pause_on;
    before = db->pause;
    db->pause_on = a;
    db->pause = *p;
    db->pause_seals = kind == PAUSE_SEAL;
    pthread_mutex_unlock(&db->lock);
    if (!was)
        return;
    pause_end(was->segment, &before);
    local_release(db->local, was);
}

/* Nothing moves it while a seal is in force. */
static void head_now(const struct attachment *a, struct azoth_seal_info *ret)
{
    ret->event = atomic_load(&a->segment->header->head_event);
    ret->txn = atomic_load(&a->segment->header->head_txn);
    ret->time_ns = clock_wall_ns();
}

static int pause_writes(struct azoth *db, enum pause_kind kind, uint32_t timeout_ms, int held,
                        struct azoth_seal_info *ret_seal, struct azoth_error *err)
{
    struct attachment *a;
    struct pause p;
    int rc = may_pause(db, err);
    if (!rc && (timeout_ms < 1 || timeout_ms > LONGEST_MS))
        rc = error_set(err, AZOTH_ERR_USAGE, "a pause or a seal lasts 1 ms to 1 h");
    if (rc)
        return rc;
    uint64_t now = clock_mono_ns(), give_up = now + db->deadline_ms * NS_PER_MS;
    rc = local_attach(db->local, give_up, &a, err);
    if (rc)
        return rc;
    rc = pause_ask(a->participant, kind, clock_mono_ns() + timeout_ms * NS_PER_MS, held,
                   db->local->name, &p, err);
    if (!rc) {
        rc = wait_for_force(db, a, &p, give_up, err);
        if (rc)
            pause_end(a->segment, &p);
    }
    if (!rc && ret_seal) {
        head_now(a, ret_seal);
        if (pause_in_force(a->segment, &p) != 1)
            rc = error_set(err, AZOTH_ERR_TIMEOUT, "the seal ended as soon as it was in force");
    }
    if (!rc && !held)
        make_own(db, a, &p, kind);
    else
        local_release(db->local, a);
    return rc;
}

int azoth_pause(struct azoth *db, uint32_t timeout_ms, struct azoth_error *err)
{
    return pause_writes(db, PAUSE_WRITES, timeout_ms, 0, NULL, err);
}

int azoth_pause_hold(struct azoth *db, uint32_t timeout_ms, struct azoth_error *err)
{
    return pause_writes(db, PAUSE_WRITES, timeout_ms, 1, NULL, err);
}

int azoth_seal(struct azoth *db, uint32_t timeout_ms, struct azoth_seal_info *ret,
               struct azoth_error *err)
{
    struct azoth_seal_info unused;
    return pause_writes(db, PAUSE_SEAL, timeout_ms, 0, ret ? ret : &unused, err);
}

/* A seal of the handle's own, in force; the one that it has, if it is one. When that has ended, the event that it stood at is
 * not the newest any more: a new one would be of another. */
static int own_seal(struct azoth *db, struct azoth_seal_info *ret, struct azoth_error *err)
{
    struct pause_info p;
    pthread_mutex_lock(&db->lock);
    const struct attachment *a = db->pause_on;
    int there = a && !segment_retired(a->segment) && pause_in_force(a->segment, &db->pause) == 1 &&
                pause_read(a->segment, db->pause.row, &p) && p.kind == PAUSE_SEAL;
    int ended = a && db->pause_seals && !there;
    if (there)
        head_now(a, ret);
    pthread_mutex_unlock(&db->lock);
    if (ended) {
        client_pause_end(db);
        return error_set(err, AZOTH_ERR_TIMEOUT, "the seal has ended before it was made durable");
    }
    return there ? 0 : azoth_seal(db, HOLD_MS, ret, err);
}

/* The store's seal, which may be older than this one. */
static int stored_seal(struct azoth *db, struct azoth_seal_info *ret, struct azoth_error *err)
{
    struct snapshot *sn;
    struct seal seal;
    int rc = snapshot_begin(db->local->store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_seal(sn, &seal, err);
    snapshot_end(sn);
    if (rc == 1)
        *ret = (struct azoth_seal_info){seal.event, seal.txn, seal.time_ns};
    else if (rc == 0)
        rc = error_set(err, AZOTH_ERR_TIMEOUT, "somebody has ended the seal again");
    return rc < 0 ? rc : 0;
}

int azoth_seal_hold(struct azoth *db, struct azoth_seal_info *ret, struct azoth_error *err)
{
    unsigned char argument[CONTROL_SEAL + sizeof db->local->name];
    struct azoth_seal_info seal;
    struct txn_result head;
    int rc = may_pause(db, err);
    if (!rc)
        rc = own_seal(db, &seal, err);
    if (rc)
        return rc;
    size_t who = strnlen(db->local->name, sizeof db->local->name - 1);
    put_u32(argument, (uint32_t)getpid());
    put_u64(argument + 4, (uint64_t)seal.time_ns);
    memcpy(argument + CONTROL_SEAL, db->local->name, who);
    rc = client_control(db, "seal", bytes_of(argument, CONTROL_SEAL + who),
                        clock_mono_ns() + db->deadline_ms * NS_PER_MS, &head, err);
    if (!rc)
        rc = stored_seal(db, &seal, err);
    client_pause_end(db);
    if (!rc && ret)
        *ret = seal;
    return rc;
}

int azoth_pause_stands(struct azoth *db)
{
    if (handle_check(db, NULL) || !db->local)
        return 0;
    pthread_mutex_lock(&db->lock);
    const struct attachment *a = db->pause_on;
    int stands = a && !segment_retired(a->segment) && pause_in_force(a->segment, &db->pause) == 1;
    pthread_mutex_unlock(&db->lock);
    return stands;
}

/* ---- ending ---- */

static int pause_wanted(const struct segment *s)
{
    struct pause_info p;
    for (uint32_t i = 0; i <= SHM_PAUSE_STORE; i++)
        if (pause_read(s, i, &p))
            return 1;
    return 0;
}

/* Until the writer goes on, or has another reason not to. */
static void wait_for_end(struct azoth *db, struct attachment *a)
{
    struct header_shm *h = a->segment->header;
    uint64_t give_up = clock_mono_ns() + db->deadline_ms * NS_PER_MS;
    while (atomic_load(&h->paused) && !pause_wanted(a->segment) && !segment_retired(a->segment) &&
           clock_mono_ns() < give_up) {
        uint32_t seen = atomic_load(&h->pause_wake);
        slot_wake_writer(a->segment);
        if (!local_step(db->local) && atomic_load(&h->paused))
            shm_wait(&h->pause_wake, seen, SHM_WAIT_SLICE_NS);
    }
}

int azoth_resume(struct azoth *db, struct azoth_error *err)
{
    struct pause own;
    int rc = may_pause(db, err);
    if (rc)
        return rc;
    struct attachment *a = take_own(db, &own);
    if (!a)
        return 0;
    pause_end(a->segment, &own);
    wait_for_end(db, a);
    local_release(db->local, a);
    return 0;
}

int azoth_unseal(struct azoth *db, struct azoth_error *err)
{
    return azoth_resume(db, err);
}

static int end_held(struct azoth *db, enum pause_kind kind, int everybody, uint32_t *ret_left,
                    struct azoth_error *err)
{
    struct attachment *a;
    int rc = local_attach(db->local, clock_mono_ns() + db->deadline_ms * NS_PER_MS, &a, err);
    if (rc)
        return rc;
    client_pause_end(db);
    uint32_t left = pause_end_all(a->segment, kind, everybody);
    wait_for_end(db, a);
    local_release(db->local, a);
    if (ret_left)
        *ret_left = left;
    return 0;
}

int azoth_resume_held(struct azoth *db, int everybody, uint32_t *ret_left, struct azoth_error *err)
{
    int rc = may_pause(db, err);
    return rc ? rc : end_held(db, PAUSE_WRITES, everybody, ret_left, err);
}

int azoth_unseal_held(struct azoth *db, int everybody, uint32_t *ret_left, struct azoth_error *err)
{
    struct txn_result head;
    int rc = may_pause(db, err);
    if (!rc)
        rc = client_control(db, "unseal", (struct azoth_bytes){0},
                            clock_mono_ns() + db->deadline_ms * NS_PER_MS, &head, err);
    return rc ? rc : end_held(db, PAUSE_SEAL, everybody, ret_left, err);
}
