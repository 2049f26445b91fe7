/*
 * history.h - is a history of one register linearizable?
 *
 * An operation took effect at one instant between its invocation and its response, or it has no
 * response: then at any instant after its invocation, or never. The history is linearizable when such
 * instants can be chosen so that the operations, run one after the other in that order on one
 * register, give the results that were seen. Each operation of ours is a transaction of its own on
 * one key, so this is strict serializability, and keys may be checked one by one (linearizability is
 * local: Herlihy and Wing 1990).
 */
#ifndef TESTS_HISTORY_H
#define TESTS_HISTORY_H

#include <stddef.h>
#include <stdint.h>

enum history_kind {
    HISTORY_READ,    /* saw `value` */
    HISTORY_WRITE,   /* stores `value` */
    HISTORY_CAS,     /* stores `value` where `expected` was */
    HISTORY_CAS_NOT, /* was refused: the register did not hold `expected` */
    HISTORY_CHECK,   /* the register held `expected`; changes nothing */
};

#define HISTORY_PENDING UINT64_MAX /* no response: its outcome is unknown */

struct history_op {
    enum history_kind kind;
    int64_t value, expected;         /* 0: the register is empty */
    uint64_t invoked_ns, replied_ns; /* replied_ns may be HISTORY_PENDING */
    uint64_t ref;                    /* the caller's name for it */
};

enum history_verdict {
    HISTORY_LINEARIZABLE,
    HISTORY_NOT_LINEARIZABLE,
    HISTORY_UNDECIDED, /* more than HISTORY_STATES_MAX configurations, or no memory */
};
#define HISTORY_STATES_MAX 2000000u

/*
 * The register is empty at first. The ops are not changed. When it is not linearizable,
 * *ret_longest (may be NULL) is the largest number of operations that could be put in order.
 */
enum history_verdict history_check(const struct history_op *ops, size_t n, size_t *ret_longest);

#endif
