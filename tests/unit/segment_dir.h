/*
 * segment_dir.h - a segment in a new directory of its own, for tests of the segment's parts: no database lies there.
 */
#ifndef TESTS_UNIT_SEGMENT_DIR_H
#define TESTS_UNIT_SEGMENT_DIR_H

#include "shm/segment.h"

/* Makes the directory, and in it the segment with the plan's numbers of slots, stripes and blocks. 0, or -1 after
 * saying why. */
int segment_begin(struct segment_plan plan, char dir[64], struct segment_name *name,
                  struct segment **ret);
/* Detaches the segment and removes it and the directory; 0, or -1 when something else still lies there. */
int segment_end(const char *dir, const struct segment_name *name, struct segment *seg);

#endif
