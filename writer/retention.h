/*
 * retention.h - which backups of a place stay, by a rule such as "7 daily, 4 weekly, 12 monthly".
 *
 * Of each period of a kind (a day, a week by ISO 8601, ...; UTC) the newest backup is kept, in the newest
 * N periods that have one. A backup that any part of the rule keeps stays, and so does every one that
 * it builds on, whatever their age: a chain is never broken. "N last" are those that were made last, and the
 * last one always stays: by their order, since their times are those of a clock that may have been set back.
 *
 * Pure: no file is touched here. Any thread.
 */
#ifndef WRITER_RETENTION_H
#define WRITER_RETENTION_H

#include "core/azoth_base.h"

enum retention_period {
    RETENTION_LAST, /* each backup is a period of its own */
    RETENTION_HOURLY,
    RETENTION_DAILY,
    RETENTION_WEEKLY,
    RETENTION_MONTHLY,
    RETENTION_YEARLY,
    RETENTION_PERIODS,
};
const char *retention_period_name(enum retention_period p); /* "last", "hourly", ... */

#define RETENTION_MOST 100000u /* of one period */

struct retention_rule {
    uint32_t keep[RETENTION_PERIODS]; /* 0: this period is no part of the rule */
};
/* "7 daily, 4 weekly": a number from 1 to RETENTION_MOST and a period's name, with commas between; each period
 * once. USAGE names what it does not understand. */
int retention_parse(const char *text, struct retention_rule *ret, struct azoth_error *err);

#define RETENTION_NO_PARENT SIZE_MAX

struct retention_item {
    int64_t time_ns; /* when it was made; UTC, since 1970 */
    size_t parent;   /* the item that it builds on, or RETENTION_NO_PARENT */
    /* told by retention_apply: */
    int kept;
    int needed; /* kept only because a kept one builds on it */
    enum retention_period
        why; /* the first part of the rule that keeps it, when it is kept and not needed */
};

/* The items are in the order in which they were made. Parents that form a ring are kept (nothing is ever removed by mistake). NOMEM. */
int retention_apply(const struct retention_rule *r, struct retention_item *items, size_t n,
                    struct azoth_error *err);

#endif
