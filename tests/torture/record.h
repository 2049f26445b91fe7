/*
 * record.h - what a client of the torture program knows, kept outside the system.
 *
 * Each client has one file that it only appends to: a record before it sends an operation, one after
 * the answer. A record is 128 bytes, written by one write(2) at a multiple of 128, so it never
 * crosses a page: a client that is killed leaves it whole or not at all.
 *
 *   SENT ──► ANSWERED            the outcome is known: committed, or refused with this code
 *     └────► GIVEN_UP            nobody asks again; it may have happened, once
 *     └────► (nothing)           the client died; its successor asks again or gives up
 */
#ifndef TESTS_RECORD_H
#define TESTS_RECORD_H

#include "core/azoth_base.h"

#define RECORD_BYTES 128u

enum record_kind { RECORD_SENT = 1, RECORD_ANSWERED = 2, RECORD_GIVEN_UP = 3 };

enum op_kind {
    OP_TRANSFER = 1,    /* `parts` transfers in one transaction, drawn from `draw` */
    OP_READ = 2,        /* of register `key`: saw `value` at `version` */
    OP_WRITE = 3,       /* stores `value` */
    OP_CAS = 4,         /* where `expected` is, stores `value` */
    OP_CAS_VERSION = 5, /* the same, told by `version` */
    OP_CHECK = 6,       /* requires `expected`, changes nothing */
};

struct record {
    uint32_t kind;
    uint16_t client, op;
    uint64_t seq; /* of the client's operations, from 1 */
    uint8_t id[AZOTH_ID_BYTES];
    uint64_t time_ns; /* CLOCK_MONOTONIC: before sending, after the answer */
    uint64_t draw;
    int64_t key, value, expected;
    uint64_t version;
    uint32_t parts;
    int32_t code;              /* ANSWERED */
    uint64_t txn, first_event; /* ANSWERED with code 0 */
    uint64_t check;            /* of all bytes before it */
    uint64_t reserved[2];
};
_Static_assert(sizeof(struct record) == RECORD_BYTES, "records do not cross a page");

/* The name of an operation in events and messages. */
static inline int64_t record_ref(const struct record *r)
{
    return (int64_t)((uint64_t)r->client << 40 | r->seq);
}

void record_path(char out[400], const char *dir, unsigned client);
/* Opens a client's own file; -1. */
int record_open(const char *dir, unsigned client);
/* Fills in time and check and appends; 0 or -1. */
int record_add(int fd, struct record *r);

/* Reads on from *at: 1 and *ret, 0 at the end, -1 when a record is damaged. */
int record_read(int fd, uint64_t *at, struct record *ret);

#endif
