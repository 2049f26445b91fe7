/*
 * status.h - what azoth status sees at one look, for who tells it as text (status.c) and as JSON (status_json.c).
 */
#ifndef CLIENT_CMD_STATUS_H
#define CLIENT_CMD_STATUS_H

#include "client/cmd/culprits.h"
#include "client/cmd/view.h"
#include "core/mark.h"
#include "core/seal.h"

struct rates {
    uint64_t at_ns, commits, transactions, events;
    double commits_s, transactions_s, events_s; /* since the look before; -1: there was none */
};

/* What only the store itself tells. */
struct store_facts {
    struct store_usage usage;
    struct store_head head;
    struct azoth_error
        chain_err; /* code 0: head.chain is known; else the newest batch is damaged */
    struct mark mark[MARKS_MAX];
    uint32_t marks;
    struct seal seal;
    int sealed;
};

struct status_look {
    struct view v;
    uint64_t lapse_ns; /* feed.lapse */
    struct view_counts counts;
    struct culprits culprits;
    struct rates rates;
    uint64_t now_ns;
    int64_t wall_ns;
    struct view_pauses pauses;
    struct store_facts store;
    struct azoth_error store_err; /* code 0: store is there */
};

/* Since when new transactions are refused for want of room; 0: they are not. */
uint64_t status_disk_full_ns(const struct status_look *k);
/* As azoth lag tells it: what a feed or a projector that died said last is not so any more. */
const char *status_projection_state(const struct status_look *k, const struct projection_row *r,
                                    uint64_t head);
/* Of a time on the wall, up to the look; 0 when it is to come. */
double status_seconds_since(const struct status_look *k, int64_t wall_ns);

/* One object, on standard output; an exit code. */
int status_print_json(const struct status_look *k);

#endif
