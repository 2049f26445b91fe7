/*
 * check.h - azoth projection check: what is found in a definition, by itself (projector/tablecheck.c) and beside
 * the log (check_log.c). One thread; what borrows a definition's path or text says so.
 */
#ifndef CLIENT_CMD_CHECK_H
#define CLIENT_CMD_CHECK_H

#include "client/cmd/cmd.h"
#include "projector/sqlfile.h"

enum severity { FINDING_ERROR, FINDING_WARNING, FINDING_HINT };

struct finding {
    enum severity severity;
    int code;              /* of an error */
    uint32_t line, column; /* 0: of no place in the file */
    char text[600];
};

struct findings {
    struct finding *list;
    size_t n, errors, warnings;
    int failed; /* memory was out: some are missing */
};

/* Adds one; without memory it is counted all the same. */
void finding_add(struct findings *f, const struct finding *one);
/* One about a place in the definition's text. */
void finding_at(struct findings *f, enum severity severity, const struct sqlfile *def,
                const void *at, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/*
 * Compares the fields that def's handlers and its order-by and shard-by read with those of the newest `most`
 * events of each type (0: of all), from the newest event of the log down to where enough were seen. One
 * short snapshot for each stretch of the log, so nothing is held up; memory is bounded by the definition. Tells how
 * far it is on a terminal. 0; 1 when a signal came; CORRUPT, GAP, FORMAT, IO, FULL, NOMEM.
 */
int check_log(struct store *store, const struct sqlfile *def, uint64_t most, struct findings *f,
              struct azoth_error *err);

struct check_flags {
    const char *load; /* a library of handlers in C */
    int against_log;
    int target; /* a server of the definition's target is asked */
    struct cmd_number events;
};
/* The command: an exit code. */
int cmd_projection_check(struct cmd_line *l, const struct check_flags *flags);

#endif
