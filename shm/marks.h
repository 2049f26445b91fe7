/*
 * marks.h - the places of backups as the gauges tell them (struct mark_shm): written by the writer when a commit has changed
 * one, read by whoever may not ask the store.
 */
#ifndef SHM_MARKS_H
#define SHM_MARKS_H

#include "core/mark.h"
#include "shm/gauges.h"

_Static_assert(SHM_MARKS == MARKS_MAX, "each mark has its row");

struct mark_told {
    struct mark is;
    int64_t moved_ns; /* as in struct mark_shm */
};

/* The whole list, n of at most SHM_MARKS. The writer alone; also after one that died in here. */
void marks_write(struct gauges_shm *g, const struct mark_told *m, uint32_t n);
/* 1 and the list, or 0: none was written yet, or its writer was stopped at it or died, and no next one has come. Any process,
 * any time; does not wait. */
int marks_read(const struct gauges_shm *g, struct mark_told ret[SHM_MARKS], uint32_t *ret_n);

#endif
