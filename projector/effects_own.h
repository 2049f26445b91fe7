/*
 * effects_own.h - what the files behind effects.h share: effects.c (the ledger), effects_dead.c (dead letters and
 * commands about them). For these alone.
 */
#ifndef PROJECTOR_EFFECTS_OWN_H
#define PROJECTOR_EFFECTS_OWN_H

#include "core/record.h"
#include "projector/coverage.h"
#include "projector/effects.h"
#include "projector/tablefile.h"

#define GIVEN_MAX  256u   /* events that are with workers */
#define SEEN_SLOTS 32768u /* order values of a pass: a power of two, over twice what can be open */
#define ERROR_MAX  160u   /* bytes kept of a command's error */

struct effect {
    uint64_t id, order;             /* order 0: none */
    uint64_t instance, deadline_ns; /* given: to whom, until when */
    uint64_t due_ns;                /* waiting: not before */
    int64_t time_ns;                /* of its commit: wall clock */
    uint64_t given_ns;              /* of clock_mono_ns(), whatever now_ns a caller has */
    uint32_t grants, failures, len;
    int gone, given;
    int again; /* it was a dead letter: settled once already, as far as the cursor goes */
    char worker[AZOTH_NAME_MAX + 1];
    char *error;
    unsigned char *frame;
};

#define SETTLED_TOLD 64u /* of one commit; more of them say nothing new */

/* What was settled and is not committed yet. */
struct settled {
    int64_t time_ns;
    uint64_t given_ns;
};

struct seen {
    uint64_t order;
    uint32_t pass;
};

enum own {
    BEGIN,
    COMMIT,
    ROLLBACK,
    MOVE,
    INSERT,
    GIVE,
    FREE,
    FAIL,
    SETTLE,
    BURY,
    LETTER,
    UNBURY,
    DROP,
    ANSWER_GET,
    ANSWER_PUT,
    ANSWER_OLD,
    OWN_COUNT
};

struct effects {
    struct tablefile file;
    const struct sqlfile *def;
    sqlite3_stmt *own[OWN_COUNT];
    int in_transaction;
    uint64_t cursor;
    uint32_t cursor_check;
    struct effect *effect;
    uint32_t len, cap, first; /* first: everything before it is gone */
    uint32_t open;
    size_t open_bytes;
    uint64_t given[GIVEN_MAX];
    uint32_t givens;
    struct seen seen[SEEN_SLOTS];
    uint32_t pass;
    uint64_t random;
    struct buf types;
    struct coverage *coverage;
    struct coverage_sum sum; /* of what was taken */
    uint64_t settled, skipped, failures, commits;
    uint64_t dead; /* letters that there are */
    struct settled untold[SETTLED_TOLD];
    uint32_t untold_len;
    effects_settled_fn on_settled;
    void *settled_arg;
};

/* ---- effects.c ---- */

/* Steps it, and resets it; bindings are the caller's and stay. */
int effects_run(struct effects *e, enum own which, struct azoth_error *err);
/* The same: one row of ours is changed, or the file is not what we know of it (CORRUPT). */
int effects_change(struct effects *e, enum own which, struct azoth_error *err);
int effects_begin(struct effects *e, struct azoth_error *err);
struct effect *effects_find(struct effects *e, uint64_t id); /* NULL: it is not open */
/* Puts a decoded event into the ledger in memory, at its place. NULL: out of memory. */
struct effect *effects_append(struct effects *e, const struct event_record *ev,
                              struct azoth_bytes frame);
/* Its row goes, and it. */
int effects_settle(struct effects *e, struct effect *x, struct azoth_error *err);

/* ---- effects_dead.c ---- */

/* Makes its tables and counts what is in them. */
int effects_dead_open(struct effects *e, struct azoth_error *err);
/* Puts it aside with its error, and settles it. */
int effects_bury(struct effects *e, struct effect *x, struct azoth_error *err);

#endif
