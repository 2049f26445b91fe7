/*
 * try.h - azoth projection try: what the run (try.c) has found, and how it is told (try_tell.c).
 */
#ifndef CLIENT_CMD_TRY_H
#define CLIENT_CMD_TRY_H

#include "client/cmd/cmd.h"
#include "projector/diff.h"

#define TRY_FIRST 3 /* messages kept of each type */

struct try_options {
    struct cmd_number from, to, rows;
    const char *keep, *load; /* load: a library of handlers in C */
    int strict, diff;
};

/* What became of the events of one type. */
struct try_type {
    struct azoth_bytes name;
    const struct sql_policy *policy; /* as the definition has it */
    uint64_t events, failed, parked;
    uint64_t first[TRY_FIRST]; /* events that failed, and why */
    char *why[TRY_FIRST];
};

struct try_result {
    const struct cmd_line *l;
    const char *file, *kept; /* kept: NULL, it is gone */
    const struct sqlfile *def;
    uint64_t from, to, head, cursor; /* cursor: how far it came */
    uint64_t looked_ns;              /* that filling took */
    struct try_type *type;           /* by name */
    size_t types;
    uint64_t skipped, waiting, parked; /* waiting: dead letters */
    uint64_t would_stop;               /* failures of types that are fail-fast: not in skipped */
    /* The comparison: */
    int compared;
    uint64_t live_cursor, compared_at;
    char not_compared[300]; /* why there is none */
    char remark[300];       /* what makes it a comparison of unlike things, or "" */
    struct json_text tables;
    struct buf text, rows; /* of all tables; of the present one */
    struct json_text json_rows;
    int columns_told, failed;
};

/* For diff_run(): arg is the result. */
void try_tell_row(void *arg, char sign, uint64_t times, int n, const char *const *names,
                  const struct query_value *values);
void try_tell_table(void *arg, const struct diff_table *t);
/* Everything, on standard output; an exit code. */
int try_tell(struct try_result *r);
void try_result_fini(struct try_result *r);

/* What a definition makes of the log, beside its live projection. */
struct try_replay {
    uint64_t cursor; /* of both */
    uint64_t tables, rows;
    uint64_t removed, added, changed; /* as in struct diff_table */
    char first[200];                  /* the first table that differs, or "" */
    char why_not[300];                /* there was nothing to compare with: why; or "" */
};
/* Runs the definition in file over the log into a scratch file, up to the live projection's cursor, and compares row by
 * row. What sqlfile_read(), fill_step() and diff_run() fail with; BUSY after a signal. */
int try_replay(const char *dir, const char *file, struct try_replay *ret, struct azoth_error *err);

/* The command: an exit code. */
int cmd_projection_try(struct cmd_line *l, const struct try_options *o);

#endif
