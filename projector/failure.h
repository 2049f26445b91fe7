/*
 * failure.h - what becomes of an event whose handler failed: the decision, and the rows it leaves in
 * the projection's file. Internal to the files behind table.h; all calls but open and close stand inside
 * a transaction of theirs and return 0 or the machine's fault.
 */
#ifndef PROJECTOR_FAILURE_H
#define PROJECTOR_FAILURE_H

#include "projector/replay.h"
#include "projector/table_own.h"

/* ---- failure.c ---- */

enum verdict {
    VERDICT_GO_ON, /* it is dealt with: skipped or put aside */
    VERDICT_STAND, /* the projection waits before it */
    VERDICT_FAIL   /* the projection stops before it */
};
/* `why` is the failure. What is decided is written into the open transaction. */
int failure_decide(struct table *t, const struct event_record *ev, const struct azoth_error *why,
                   enum verdict *ret, struct azoth_error *err);
/* Whether an event that waited behind a dead letter, and fails when its turn comes, is skipped. */
int failure_skips_released(struct table *t, const struct event_record *ev,
                           const struct azoth_error *why);
/* A handler succeeded; of use to a breaker that is half open. */
int failure_success(struct table *t, struct azoth_error *err);
/* The cursor moves to this event: what was tried again and lies behind is done. */
int failure_passes(struct table *t, uint64_t cursor, struct azoth_error *err);
/* Queues what is told when the transaction is committed. */
void failure_note(struct table *t, enum failure_action action, uint64_t event, const char *error);

/* ---- dlq.c ---- */

/* Makes the tables, and reads what they say into t->faults. */
int dlq_open(struct table *t, struct azoth_error *err);
void dlq_close(struct table *t);

/*
 * The event's value of order-by in *ret (borrows from a buffer of t, until the next call): 1, or 0 when it
 * has none. NOMEM.
 */
int dlq_value(struct table *t, const struct event_record *ev, struct azoth_bytes *ret,
              struct azoth_error *err);
/* 1 when the event must wait behind a dead letter of its value, and is put behind it; 0 when not. */
int dlq_park(struct table *t, const struct event_record *ev, struct azoth_error *err);

enum dlq_state { DLQ_WAITING, DLQ_RETIRED, DLQ_PARKED };

struct dlq_letter {
    struct event_record ev;
    enum dlq_state state;
    uint64_t failures;
    int64_t first_ns, last_ns, next_ns; /* wall clock; next_ns 0: when somebody says so */
    int32_t code;                       /* the database's, or 0 */
    const char *error;
    struct azoth_bytes value; /* of order-by; len 0: none */
};
/* A new dead letter; its value is found by this. */
int dlq_insert(struct table *t, const struct dlq_letter *l, struct azoth_error *err);
/* 1 and *ret (borrows from a buffer of t until the next call; error is empty), 0 when there is none. */
int dlq_get(struct table *t, uint64_t event, struct dlq_letter *ret, struct azoth_error *err);
/* Removes it; what was parked next behind it is released. */
int dlq_remove(struct table *t, const struct dlq_letter *l, struct azoth_error *err);
/* It failed once more: stores failures, times, code, error and state of l; `was` is as it was got. */
int dlq_update(struct table *t, const struct dlq_letter *was, const struct dlq_letter *l,
               struct azoth_error *err);
/* The first released one: 1, 0. Outside a transaction too. */
int dlq_released(struct table *t, uint64_t *ret, struct azoth_error *err);
/* Ids of at most max that are due, in the order of the definition's replay: how many. Likewise. */
int dlq_due(struct table *t, uint64_t max, uint64_t *ret, struct azoth_error *err);

/* The answer that the command of this id was given: 1, 0. Likewise. */
int command_get(struct table *t, const uint8_t id[COMMAND_ID_BYTES], char ret[COMMAND_ANSWER_MAX],
                struct azoth_error *err);
int command_put(struct table *t, const uint8_t id[COMMAND_ID_BYTES], const char *answer,
                struct azoth_error *err);

int retry_store(struct table *t, struct azoth_error *err);
int retry_clear(struct table *t, struct azoth_error *err);
int breaker_store(struct table *t, struct azoth_error *err);

/* ---- replay.c ---- */

int replay_open(struct table *t, struct azoth_error *err);
void replay_close(struct table *t);

#endif
