/* view.h - looking at a database, for the commands; shm/view.h has the most of it. */
#ifndef CLIENT_CMD_VIEW_H
#define CLIENT_CMD_VIEW_H

#include "client/cmd/cmd.h"
#include "shm/view.h"

/* Dumps the segment's fields by the tables of shm/layout.h; all: free rows, slots and stripes too.
 */
int segment_dump(const struct segment *s, int all, int json);

/* Pauses and seals, as `writes` has them: in JSON the keys pause_left_s (null: not by itself; missing
 * when there is none) and pauses; as text a line that begins with `label`, and one for each. */
void json_pauses(struct json_text *j, const struct view_pauses *p, uint64_t now_ns);
void print_pauses(const char *label, const struct view_pauses *p, uint64_t now_ns);
/* "a pause by azoth backup, pid 12". */
#define PAUSE_WHOSE_TEXT 128
const char *pause_whose(const struct pause_info *p, char out[PAUSE_WHOSE_TEXT]);

#endif
