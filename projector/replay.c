/*
 * replay.c - dead letters tried again.
 *
 * Happy path: BEGIN; the handler, under a savepoint; the letter's row is deleted and what waited behind it
 * released; COMMIT. Killed anywhere, the letter is either applied and gone, or still there as it was.
 *
 * Failure modes
 *   the handler fails again   what it did is undone; the row tells the new failure
 *   it rolls back everything  the transaction held nothing else: it is begun again for the row
 *   a command is sent twice   its id and answer lie in azoth_command since the transaction that did it
 */
#include "projector/replay.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "projector/failure.h"

#include <inttypes.h>
#include <string.h>

struct replay {
    uint64_t round_ns; /* running time of the next round */
    uint64_t *id;      /* of this one */
    uint64_t n, at;
    uint64_t in_a_row; /* failures */
};

/* What an attempt came to. */
enum outcome { LETTER_NONE, LETTER_APPLIED, LETTER_FAILED, LETTER_PARKED };

int replay_open(struct table *t, struct azoth_error *err)
{
    t->replay = calloc(1, sizeof *t->replay);
    if (t->replay && t->def->replay.every_ms)
        t->replay->id = calloc(t->def->replay.batch, sizeof *t->replay->id);
    if (!t->replay || (t->def->replay.every_ms && !t->replay->id))
        return error_set(err, AZOTH_ERR_NOMEM, "a projection");
    return 0;
}

void replay_close(struct table *t)
{
    if (t->replay)
        free(t->replay->id);
    free(t->replay);
    t->replay = NULL;
}

/* ---- one letter ---- */

/* The row after another failure, or gone when such events are skipped. */
static int failed_again(struct table *t, const struct dlq_letter *was,
                        const struct azoth_error *why, struct azoth_error *err)
{
    const struct sql_replay *r = &t->def->replay;
    struct dlq_letter l = *was;
    t->failures_open++;
    if (was->failures == 0 && failure_skips_released(t, &was->ev, why)) {
        failure_note(t, FAILURE_SKIPPED, was->ev.id, why->message);
        return dlq_remove(t, was, err);
    }
    l.failures++;
    l.last_ns = table_wall(t);
    l.first_ns = was->failures ? was->first_ns : l.last_ns;
    l.code = why->foreign;
    l.error = why->message;
    if (r->every_ms) {
        uint32_t n = l.failures < UINT32_MAX ? (uint32_t)l.failures : UINT32_MAX;
        l.next_ns =
            l.last_ns + (int64_t)(backoff_ms(&r->backoff, n, (uint64_t)l.last_ns) * NS_PER_MS);
        if (l.failures >= r->attempts)
            l.state = DLQ_RETIRED;
    }
    if (l.state == DLQ_RETIRED && was->state != DLQ_RETIRED)
        failure_note(t, FAILURE_RETIRED, was->ev.id, why->message);
    return dlq_update(t, was, &l, err);
}

/* Inside a transaction: *why tells of a failure. */
static int attempt(struct table *t, uint64_t event, enum outcome *ret, struct azoth_error *why,
                   struct azoth_error *err)
{
    struct dlq_letter l;
    *ret = LETTER_NONE;
    int rc = dlq_get(t, event, &l, err);
    if (rc != 1)
        return rc;
    if (l.state == DLQ_PARKED) {
        *ret = LETTER_PARKED;
        return 0;
    }
    rc = table_savepoint(t, err);
    if (rc)
        return rc;
    rc = table_apply_event(t, &l.ev, why);
    if (rc && rc != AZOTH_ERR_HANDLER) {
        if (err)
            *err = *why;
        return rc;
    }
    int applied = rc == 0;
    if (!applied && !sql_in_transaction(t->file.sql)) {
        library_tell(t->library, LIBRARY_ROLLED_BACK);
        rc = table_run(t, t->begin, err);
        if (!rc)
            library_tell(t->library, LIBRARY_BEGUN);
    } else {
        rc = applied ? table_release(t, err) : table_undo(t, err);
    }
    *ret = applied ? LETTER_APPLIED : LETTER_FAILED;
    if (rc)
        return rc;
    return applied ? dlq_remove(t, &l, err) : failed_again(t, &l, why, err);
}

/* One transaction; with a command's id and answer, those are kept by it. */
static int try_once(struct table *t, uint64_t event, const uint8_t *id,
                    char answer[COMMAND_ANSWER_MAX], enum outcome *ret, struct azoth_error *err)
{
    struct azoth_error why = {0};
    int rc = table_begin(t, err);
    if (rc)
        return rc;
    rc = attempt(t, event, ret, &why, err);
    int changed = *ret == LETTER_APPLIED || *ret == LETTER_FAILED;
    if (answer)
        snprintf(answer, COMMAND_ANSWER_MAX, "%s%s",
                 *ret == LETTER_APPLIED  ? "applied"
                 : *ret == LETTER_FAILED ? "failed "
                 : *ret == LETTER_PARKED ? "parked: it waits behind an earlier one of its value"
                                         : "not-found",
                 *ret == LETTER_FAILED ? why.message : "");
    if (!rc && id && changed)
        rc = command_put(t, id, answer, err);
    if (!rc && changed) {
        CRASH_POINT(projector_replayed);
        rc = table_commit(t, err);
    }
    if (rc || !changed)
        table_rollback(t);
    else
        table_tell(t);
    return rc;
}

static int try_letter(struct table *t, uint64_t event, const uint8_t *id,
                      char answer[COMMAND_ANSWER_MAX], enum outcome *ret, struct azoth_error *err)
{
    uint32_t tries = 0;
    int rc;
    do {
        rc = try_once(t, event, id, answer, ret, err);
    } while (table_again(t, rc, &tries));
    return rc;
}

/* ---- the projector's own ---- */

static int next_of_round(struct table *t, uint64_t *ret, struct azoth_error *err)
{
    struct replay *r = t->replay;
    const struct sql_replay *def = &t->def->replay;
    uint64_t now = table_mono(t);
    if (!def->every_ms || !t->faults.dlq.waiting)
        return 0;
    if (r->at == r->n) {
        if (now < r->round_ns)
            return 0;
        int n = dlq_due(t, def->batch, r->id, err);
        if (n < 0)
            return n;
        r->round_ns = now + def->every_ms * NS_PER_MS;
        r->n = (uint64_t)n;
        r->at = 0;
        r->in_a_row = 0;
    }
    if (r->at == r->n)
        return 0;
    *ret = r->id[r->at++];
    return 1;
}

static int paused(struct table *t)
{
    breaker_look(&t->faults.breaker, table_mono(t));
    return t->faults.breaker.at == BREAKER_OPEN;
}

int table_has_released(const struct table *t)
{
    return t->faults.dlq.released > 0;
}

int table_replay_step(struct table *t, struct azoth_error *err)
{
    struct replay *r = t->replay;
    enum outcome outcome;
    uint64_t event;
    if (paused(t))
        return 0;
    int released = dlq_released(t, &event, err);
    int rc = released ? released : next_of_round(t, &event, err);
    if (rc != 1)
        return rc;
    rc = try_letter(t, event, NULL, NULL, &outcome, err);
    if (rc)
        return rc;
    if (!released && outcome == LETTER_APPLIED)
        r->in_a_row = 0;
    if (!released && outcome == LETTER_FAILED && ++r->in_a_row == t->def->replay.stop_after)
        r->at = r->n;
    return 1;
}

uint64_t table_replay_wait_ns(struct table *t)
{
    const struct replay *r = t->replay;
    uint64_t now = table_mono(t);
    if (paused(t))
        return UINT64_MAX; /* table_standing() tells when it is over */
    if (t->faults.dlq.released || (r->at < r->n && t->faults.dlq.waiting))
        return 0;
    if (!t->def->replay.every_ms || !t->faults.dlq.waiting)
        return UINT64_MAX;
    return r->round_ns > now ? r->round_ns - now : 0;
}

/* ---- commands ---- */

static int drop(struct table *t, uint64_t event, const uint8_t *id, char *answer,
                struct azoth_error *err)
{
    struct dlq_letter l;
    int rc = table_begin(t, err);
    if (rc)
        return rc;
    int got = dlq_get(t, event, &l, err);
    snprintf(answer, COMMAND_ANSWER_MAX, got == 1 ? "dropped" : "not-found");
    rc = got == 1 ? dlq_remove(t, &l, err) : got;
    if (!rc && got == 1)
        rc = command_put(t, id, answer, err);
    if (!rc && got == 1)
        rc = table_commit(t, err);
    if (rc || got != 1)
        table_rollback(t);
    return rc;
}

int command_parse(const char *text, char ret_verb[8], uint64_t *ret_event)
{
    int end = 0;
    return sscanf(text, "%7s %20" SCNu64 "%n", ret_verb, ret_event, &end) == 2 && !text[end] &&
           *ret_event <= INT64_MAX;
}

int table_command(struct table *t, const uint8_t id[COMMAND_ID_BYTES], const char *text,
                  char answer[COMMAND_ANSWER_MAX], struct azoth_error *err)
{
    char verb[8];
    uint64_t event;
    enum outcome outcome;
    int rc = command_get(t, id, answer, err);
    if (rc)
        return rc < 0 ? rc : 0;
    snprintf(answer, COMMAND_ANSWER_MAX, "unknown");
    if (!command_parse(text, verb, &event))
        return 0;
    if (strcmp(verb, "retry") == 0)
        return try_letter(t, event, id, answer, &outcome, err);
    return strcmp(verb, "drop") == 0 ? drop(t, event, id, answer, err) : 0;
}
