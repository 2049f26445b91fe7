/*
 * audit.h - the log, the state and the projections against what the clients kept.
 *
 * The audit reads on where it stopped, so it may run as often as one likes beside the load:
 *
 *   clients' records ──► what was sent, answered, given up ─┐
 *   event log        ──► what happened, in which order ─────┼──► violations
 *   state, SQLite    ──► what it came to ───────────────────┘
 *
 * Rules
 *   A1  event ids are gapless from 1.
 *   A2  an event is one that a client sent, with the content it sent, the parts of one transaction
 *       together and in order.
 *   A3  answered as committed: there exactly once, under the transaction and event that were told.
 *   A4  refused: not there. Without an answer: there at most once.
 *   A5  time: of two operations, the one answered before the other was sent is first in the log.
 *   A6  balances are what replaying the log gives, at every event none is below zero, the sum is
 *       what was opened.
 *   A7  a projection is what replaying the log up to its cursor gives.
 *   A8  the history of each register is linearizable, and it holds what was written last.
 *   A9  at the end the store's own check finds nothing (core/storecheck.h).
 */
#ifndef TESTS_AUDIT_H
#define TESTS_AUDIT_H

#include "tests/system/harness.h"
#include "tests/torture/history.h"
#include "tests/torture/op.h"

#define AUDIT_CLIENTS 16

/* The order-sensitive sum over event ids that the projection "chain" keeps too. */
#define AUDIT_CHAIN_SQL "(h * 31 + @id) % 1000000007"

struct tracked {
    uint64_t invoked_ns, replied_ns;
    uint64_t draw, txn, first_event; /* as answered */
    uint64_t seen_first, seen_txn;   /* as in the log */
    uint64_t seen_ns;                /* when it was committed, by our clock */
    uint64_t invoked_before_ns;      /* the latest invocation among what is earlier in the log */
    int64_t key, value;
    uint32_t register_op;
    int32_t code;
    uint8_t kind; /* of its last record; 0: not there */
    uint8_t op, parts, seen;
};

struct register_history {
    struct history_op *op;
    uint32_t n, cap;
    int64_t last; /* value of its last event; 0: none */
    int checked;
};

struct audit {
    struct harness *h;
    unsigned violations, told[10]; /* told: by rule; 0 for the rest */
    struct {
        int fd;
        uint64_t at;
        struct tracked *op; /* by seq */
        uint64_t cap, len;
    } client[AUDIT_CLIENTS];
    uint64_t next_event, invoked_ns, event_txn;
    int64_t balance[OP_ACCOUNTS];
    uint32_t *chain; /* by event id */
    uint64_t chain_cap;
    struct register_history *registers;
    uint64_t registers_len;
    int64_t registers_from; /* key of the first */
    /* answers that were read and wait for their events */
    int64_t *answered;
    uint64_t answered_len, answered_cap;
    /* figures */
    uint64_t sent, committed, refused, given_up, histories, history_ops;
};

void audit_init(struct audit *a, struct harness *h);
void audit_fini(struct audit *a);
/* Reads on in records and log. final: the load has ended, all of it must add up. Returns the
 * number of violations so far; each was told on the standard error. */
unsigned audit_run(struct audit *a, struct azoth *db, int final);

/* Used by the audit's files. */
void audit_violation(struct audit *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int audit_is_type(const struct azoth_event *ev, const char *type);
/* Moves the money of one event; the account that it comes from, or -1. */
int audit_replay(int64_t balance[OP_ACCOUNTS], const struct azoth_event *ev);
void audit_records(struct audit *a);
struct tracked *audit_tracked(struct audit *a, int64_t ref);
struct register_history *audit_register(struct audit *a, int64_t key);
void audit_log(struct audit *a, struct azoth *db, uint64_t head);
void audit_balances(struct audit *a, struct azoth_snapshot *s);
void audit_projections(struct audit *a, struct azoth *db, int final);
void audit_registers(struct audit *a, struct azoth *db, int final);

#endif
