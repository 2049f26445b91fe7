/* log_segment.h - events of a store as a segment file, as archiving makes one. */
#ifndef TESTS_UNIT_LOG_SEGMENT_H
#define TESTS_UNIT_LOG_SEGMENT_H

#include "core/archived.h"
#include "core/store.h"

/* Events first to last (0: to the newest) into DIR/segment, without a chain; *ret is what a record of it says. 0, or what failed.
 * No assertion of cmocka's: a child process may call it. */
int log_segment(struct store *s, const char *dir, uint64_t first, uint64_t last,
                struct archived_entry *ret, struct azoth_error *err);

#endif
