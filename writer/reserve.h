/* reserve.h - space on the disk that is kept for what is in flight when it runs full. */
#ifndef WRITER_RESERVE_H
#define WRITER_RESERVE_H

#include "core/azoth_base.h"

#define RESERVE_NAME "reserve"

struct reserve;

/*
 * DIR/reserve of `bytes`, allocated; 0: none is kept, and a file that is there is removed. A disk that
 * has no room for it is no error: then the reserve is lacking. IO, PERMISSION, NOMEM. Blocks for the
 * allocation, which file systems that know extents do at once.
 */
int reserve_open(const char *dir, uint64_t bytes, struct reserve **ret, struct azoth_error *err);
void reserve_close(struct reserve *r); /* the file stays; NULL is accepted, here and below */

/* 1 when there should be a reserve and is none. */
int reserve_lacking(const struct reserve *r);
/* Bytes that are kept now. */
uint64_t reserve_held(const struct reserve *r);
/* Gives its space back to the disk: 1, or 0 when there was none to give. */
int reserve_give_up(struct reserve *r);
/* Makes a lacking one anew when the disk has room: 1 when none is lacking then. Cheap on a full disk. */
int reserve_restore(struct reserve *r);

#endif
