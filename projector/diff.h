/*
 * diff.h - the rows of a live projection beside those of a scratch file, table by table.
 *
 * The live files are read by a connection of their own, read-only and without checkpoints, in one transaction:
 * they go on moving, and what is compared is as of one cursor. Memory is SQLite's page cache; sorting what has no
 * key goes to temporary files. One thread; blocks on the disk.
 */
#ifndef PROJECTOR_DIFF_H
#define PROJECTOR_DIFF_H

#include "projector/table.h"

struct diff;

/*
 * The live projection `name` of dir, all shards as one, and the scratch file, which is there already and whose
 * table may go on writing. stop (may be NULL) is asked now and then: non-zero ends a comparison with BUSY.
 * NOT_FOUND: there is no live one. IO, BUSY, CORRUPT, NOMEM.
 */
int diff_open(const char *dir, const char *name, const char *scratch, int (*stop)(void),
              struct diff **ret, struct azoth_error *err);
void diff_close(struct diff *d); /* NULL is accepted */

/* The least and the greatest cursor of the live files as they are now. */
int diff_cursors(struct diff *d, uint64_t *ret_least, uint64_t *ret_most, struct azoth_error *err);
/* The same, and the live files stand still for this connection until diff_end(): their WALs grow as long. */
int diff_begin(struct diff *d, uint64_t *ret_least, uint64_t *ret_most, struct azoth_error *err);
void diff_end(struct diff *d);

enum diff_where { DIFF_IN_BOTH, DIFF_LIVE_ONLY, DIFF_SCRATCH_ONLY };
struct diff_table {
    const char *name;
    enum diff_where where;
    int keyed; /* rows belong together by primary key; else whole rows are compared */
    uint64_t live_rows, scratch_rows;
    uint64_t removed, added,
        changed;         /* rows of the live one alone, of the scratch alone, of both */
    const char *columns; /* " -a +b": of one alone, not compared; or "" */
};

/* How a row is told: '-' it is in the live one alone, '+' in the scratch alone; a changed one is told as both, the
 * live one first. times: of rows without a key, so many of it. */
struct diff_tell {
    void *arg;
    void (*row)(void *arg, char sign, uint64_t times, int n, const char *const *names,
                const struct query_value *values);
    void (*table)(void *arg, const struct diff_table *t); /* behind its rows */
};

/* Compares every table but those named azoth_*, and tells the first `rows` differing rows of each. IO, CORRUPT,
 * NOMEM, NOSPACE (for sorting), BUSY. */
int diff_run(struct diff *d, uint64_t rows, const struct diff_tell *tell, struct azoth_error *err);

#endif
