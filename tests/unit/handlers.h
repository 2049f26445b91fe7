/*
 * handlers.h - what test_library.c and the library that it loads, handlers.c, say to each other: one struct,
 * in the library.
 */
#ifndef TESTS_UNIT_HANDLERS_H
#define TESTS_UNIT_HANDLERS_H

#include "client/azoth_projection.h"

/* What a payload's v makes a handler do, behind the insert of the row; other values: nothing. */
enum {
    V_FAILS = 7,           /* tells so, with code 42 */
    V_BREAKS_A_CHECK = 8,  /* of the table */
    V_ROLLS_BACK = 9,      /* everything, and goes on as if nothing had been */
    V_FAILS_SILENTLY = 10, /* returns 5 */
    V_TRESPASSES = 11,     /* tries what is forbidden, and notes SQLite's answers */
    V_LEAVES_A_ROW = 12,   /* does not reset a statement that writes */
    V_WANTS_MEMORY = 13,   /* more than there is */
};

struct handlers_control {
    /* Which table is given: "": the good one; else "abi", "nothing", "count", "both", "other", "mute". */
    const char *table;
    uint32_t version;
    const char *open; /* "": opens; "refuses", "writes" */
    /* An answer of on_error for each time it is asked: F, S, D, R and its wait: "R100". The last one stays. */
    const char *answer;
    char told[12000]; /* what was called, in order */
    int64_t sum;      /* of all v, kept in memory */
    int64_t asked_first_ns;
};

typedef struct handlers_control *(*handlers_control_fn)(void);

#endif
