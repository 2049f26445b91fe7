/*
 * metrics.h - one look as Prometheus text (exposition format 0.0.4).
 *
 * Names by Prometheus' conventions: base units, _total for what only grows. What is not known now
 * (no gauges, no segment, no directory) is left out; a number that is not known is NaN.
 */
#ifndef EXPORTER_METRICS_H
#define EXPORTER_METRICS_H

#include "core/buf.h"
#include "exporter/look.h"

/* Appends the text: 0 or NOMEM. requests: answered so far, for the exporter's own count. */
int metrics_write(struct buf *b, const struct look *k, uint64_t requests);

#endif
