/*
 * pagecheck.h - the pages of an LMDB file, read beside LMDB: are they the trees that they should be?
 *
 * LMDB trusts its file. On a page that is none it ends the process (an assertion, or a signal where the file is shorter
 * than it says), and where pages lead back to each other it never ends. So whoever suspects a file looks here first.
 */
#ifndef CORE_PAGECHECK_H
#define CORE_PAGECHECK_H

#include "core/error.h"

#include <stdint.h>

struct pagecheck_tell {
    void *arg;
    /* fatal: LMDB can not be let read it. Otherwise a count, or a page that is lost or free and in use. */
    void (*found)(void *arg, int fatal, const char *message);
    /* Now and then, or NULL: pages. Non-zero ends the check with BUSY. */
    int (*progress)(void *arg, uint64_t at, uint64_t end);
};

struct pagecheck_sum {
    uint64_t pages, free_pages; /* of the file, as of that commit */
};

/*
 * All trees of the commit `txn` in the file fd, whatever was found. The caller holds a snapshot of that commit, so that
 * its pages stay what they are. 0; 1 when newer commits have taken the place where the file told of it: begin another
 * snapshot; or BUSY, IO, NOMEM. Reads the file once; of long values only the first page. Any thread.
 */
int pagecheck(int fd, uint64_t txn, const struct pagecheck_tell *tell, struct pagecheck_sum *ret,
              struct azoth_error *err);

/*
 * What LMDB's compacting copy has written, as a backup brings it, who may have been anybody: 0 when LMDB may be let at it, to
 * read and to write; else CORRUPT (the first thing that is wrong), IO, PERMISSION, NOMEM. Any finding counts, and so do free
 * pages: a copy has none.
 */
int pagecheck_file(const char *path, struct azoth_error *err);

/* Before LMDB opens the file: what it believes unseen. 0, IO, or CORRUPT, which says what is wrong. */
int pagecheck_meta(int fd, const char *path, struct azoth_error *err);

#endif
