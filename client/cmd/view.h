/* view.h - looking at a database, for the commands; shm/view.h has the most of it. */
#ifndef CLIENT_CMD_VIEW_H
#define CLIENT_CMD_VIEW_H

#include "client/cmd/cmd.h"
#include "shm/view.h"

/* Dumps the segment's fields by the tables of shm/layout.h; all: free rows, slots and stripes too.
 */
int segment_dump(const struct segment *s, int all, int json);

#endif
