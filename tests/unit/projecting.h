/*
 * projecting.h - what unit tests of projections share: a directory, a definition and the table that it opens, events
 * made by hand, a clock that stands, and rows as text.
 *
 * There is one fixture for the program, fx: begin() and end() are a test's setup and teardown, and whatever a test
 * left open end() closes. Nothing here is for threads. A call that cannot do its part fails the test.
 */
#ifndef TESTS_UNIT_PROJECTING_H
#define TESTS_UNIT_PROJECTING_H

#include "core/buf.h"
#include "core/clock.h"
#include "core/record.h"
#include "projector/table.h"

#define WALL                                                                                       \
    1700000000000000000 /* where the wall clock stands at first, and event 0 would have been */
#define MS ((int64_t)NS_PER_MS)

extern const uint8_t uuid[16]; /* of the database that the events are of */

struct projecting {
    char dir[64];
    struct sqlfile def;
    struct table *table;
    struct azoth_error err; /* of the last call that has one */
    struct buf frames;      /* events that are not applied yet */
    uint32_t check;         /* of the last event added */
    uint64_t last;          /* its id */
    int64_t passed_ns;      /* of the test's clocks */
    char told[4000];        /* what told() heard, "ACTION:EVENT;" */
};

extern struct projecting fx;

/* A new directory with the program's name in its own; 0, or -1. */
int begin(void **state);
/* Closes what is open, removes the directory; 0. */
int end(void **state);
/* Closes the table and its definition, where they are open. */
void shut(void);
/* Runs a program to its end, which must be 0; NULL ends argv. */
void run(const char *const *argv);

/* Fails with fx.err's message unless rc is 0. */
void good(int rc);
/* For table_on_failure(): appends to fx.told. */
void told(void *arg, enum failure_action action, uint64_t event, const char *error);
/* The table's clocks stand, and move only here. */
void pass_ms(int64_t ms);

/* Appends the event to frames; its record's checksum. */
uint32_t add_event(struct buf *frames, const struct event_record *ev);
/* An event of transaction id + 1000 and key "stream", id nanoseconds after WALL, for the next batch. */
void add_bytes(uint64_t id, const char *type, struct azoth_bytes payload);
void add(uint64_t id, const char *type, const char *payload);
/* What was added, as the batch of `first` to `last`. The frames stay until all are applied, as a held batch does. */
int apply_range(uint64_t first, uint64_t last);
/* The same from behind the cursor to the last event added. */
int apply(void);

uint64_t cursor(void);
struct table_standing standing(void);
/* What query_run() says to a question to a projection in the directory. */
int ask(const char *name, const char *sql, struct azoth_error *err);
/* Rows of projection p as "1,x;2.5r,null;yb;": a real ends in r, a blob in b. Or the error's message. Until the next. */
const char *rows(const char *sql);

#endif
