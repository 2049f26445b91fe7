/*
 * table_own.h - what the files behind table.h share: table.c (preparing, one event), apply.c (batches),
 * failure.c (what becomes of an event that fails), dlq.c (rows of dead letters), replay.c (trying them
 * again). For these alone.
 */
#ifndef PROJECTOR_TABLE_OWN_H
#define PROJECTOR_TABLE_OWN_H

#include "core/record.h"
#include "projector/breaker.h"
#include "projector/coverage.h"
#include "projector/library.h"
#include "projector/tablefile.h"

#define PARAMETER_FIELD_MAX 63u /* bytes of a field's name */

enum parameter_kind { P_FIELD, P_ID, P_TYPE, P_TIME, P_TXN, P_KEY, P_PAYLOAD };

struct parameter {
    enum parameter_kind kind;
    int json; /* wants the JSON text of a field's value */
    char name[PARAMETER_FIELD_MAX +
              1]; /* of a field. A copy: SQLite's moves when it prepares anew */
};

struct statement {
    struct sql_stmt *stmt;
    struct parameter *parameter;
    int parameters;
    uint32_t line;
};

struct handler {
    const struct sql_handler *def;
    struct statement *statement;
    uint32_t statements;
    uint32_t fields_line; /* of the first statement with a :field; 0: none has one */
};

struct route {
    struct azoth_bytes type;
    const struct handler *handler;
    const struct azoth_projection_handler *c; /* NULL: the handler is in SQL */
    const struct sql_policy *policy;
};

/* The event that the projection stands at, in azoth_retry. */
struct retry {
    uint64_t event;                     /* 0: none */
    uint32_t failures;                  /* so far */
    int64_t first_ns, last_ns, next_ns; /* wall clock */
    uint64_t delay_ms;                  /* between last_ns and next_ns */
    int32_t code;                       /* the database's, or 0 */
    char error[sizeof((struct azoth_error *)0)->message];
};

struct dlq_counts {
    uint64_t waiting, retired, parked;
    uint64_t released; /* of the waiting ones: not tried yet, since what they waited for is gone */
    uint64_t valued;   /* have a value of order-by */
};

/* What memory holds of the file's account of failures; it changes and goes back with a transaction. */
struct faults {
    struct retry retry;
    struct dlq_counts dlq;
    struct breaker breaker;
    struct coverage_sum sum; /* of what was handled */
};

#define NOTES_MAX 32u /* unless each failure is to be told */
struct note {
    enum failure_action action;
    uint64_t event;
    char error[sizeof((struct azoth_error *)0)->message];
};

struct table {
    struct tablefile file;
    const struct sqlfile *def;
    struct handler *handler;
    struct route *route; /* sorted by type */
    size_t routes;
    struct sql_stmt *begin, *commit, *rollback, *move, *savepoint, *release, *rollback_to;
    uint64_t cursor;
    uint32_t cursor_check;
    uint64_t events, batches, failures;  /* see struct table_stats */
    uint64_t events_open, failures_open; /* of the open transaction, or the last one */
    struct buf types;

    struct faults faults, before; /* before: as the open transaction found them */
    uint64_t failed_event;        /* see struct table_standing */
    uint64_t retry_due_ns;        /* running time: when the event may be tried again */
    int stands;                   /* the last batch was left at an event: its rest may come again */
    uint32_t careful;             /* so many batches more with savepoints from the beginning */
    struct dlq *dlq;              /* statements: dlq.c */
    struct replay *replay;        /* replay.c */
    struct coverage *coverage;
    struct library *library; /* NULL: nothing is in C */
    struct note *note;       /* of the open transaction, told when it is committed */
    uint32_t notes, notes_room, notes_more;
    int tells_each;
    table_failure on_failure;
    void *failure_arg;
    int64_t test_wall_ns; /* 0: the clock's */
    uint64_t test_mono_ns;
};

/* ---- table.c ---- */

/* Runs the handler of the event's type. HANDLER: the event's fault (without a savepoint: perhaps that of
 * one before it, see library.h), the transaction may be gone with it; others: the machine's. */
int table_apply_event(struct table *t, const struct event_record *ev, struct azoth_error *err);
const struct sql_policy *table_policy(const struct table *t, struct azoth_bytes type);
/* The clocks, or what a test has set them to. */
int64_t table_wall(const struct table *t);
uint64_t table_mono(const struct table *t);

/* ---- apply.c ---- */

/* Steps one of our own statements, whose values are bound, and resets it. */
int table_run(struct table *t, struct sql_stmt *s, struct azoth_error *err);
int table_begin(struct table *t, struct azoth_error *err);
int table_commit(struct table *t, struct azoth_error *err);
/* One event of the open transaction: its savepoint, and the savepoint's end. */
int table_savepoint(struct table *t, struct azoth_error *err);
int table_release(struct table *t, struct azoth_error *err);
int table_undo(struct table *t, struct azoth_error *err);
/* Whether the transaction that ended with rc, rolled back, is run again at once. tries begins at 0. */
int table_again(struct table *t, int rc, uint32_t *tries);
/* Whatever is left of the transaction; what memory says of the file goes back with it. */
void table_rollback(struct table *t);
/* Tells what the transaction that was committed did to failed events. */
void table_tell(struct table *t);

#endif
