/*
 * status.h - one look as the JSON object that the page polls, and the answer of /readyz.
 */
#ifndef EXPORTER_STATUS_H
#define EXPORTER_STATUS_H

#include "core/buf.h"
#include "exporter/look.h"

/* Appends the object: 0 or NOMEM. What is not known is null. database: its directory. */
int status_write(struct buf *b, const struct look *k, const struct look_memory *m,
                 const char *database);

/* Appends what is not as it should be, a line each, or "ready": *ret_ready says which. Limits are
 * exporter.max_lag_events and exporter.max_lag_seconds. 0 or NOMEM. */
int status_ready(struct buf *b, const struct look *k, const struct config *c, int *ret_ready);

#endif
