/* retention.c - which backups of a place stay. */
#include "writer/retention.h"

#include "core/clock.h"
#include "core/error.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

static const char *const period_name[RETENTION_PERIODS] = {"last",   "hourly",  "daily",
                                                           "weekly", "monthly", "yearly"};

const char *retention_period_name(enum retention_period p)
{
    return period_name[p];
}

/* ---- the rule ---- */

/* One part, "7 daily", of len bytes. */
static int parse_part(const char *part, size_t len, struct retention_rule *r,
                      struct azoth_error *err)
{
    size_t at = 0;
    uint64_t n = 0;
    while (at < len && isspace((unsigned char)part[at]))
        at++;
    size_t digits = at;
    while (at < len && isdigit((unsigned char)part[at]) && n <= RETENTION_MOST)
        n = n * 10 + (uint64_t)(part[at++] - '0');
    if (at == digits || n < 1 || n > RETENTION_MOST)
        return error_set(err, AZOTH_ERR_USAGE, "'%.*s': a number from 1 to %u comes first",
                         (int)(len < 60 ? len : 60), part, RETENTION_MOST);
    while (at < len && isspace((unsigned char)part[at]))
        at++;
    while (len > at && isspace((unsigned char)part[len - 1]))
        len--;
    for (int p = 0; p < RETENTION_PERIODS; p++) {
        if (len - at != strlen(period_name[p]) || memcmp(part + at, period_name[p], len - at) != 0)
            continue;
        if (r->keep[p])
            return error_set(err, AZOTH_ERR_USAGE, "'%s' stands there twice", period_name[p]);
        r->keep[p] = (uint32_t)n;
        return 0;
    }
    return error_set(err, AZOTH_ERR_USAGE,
                     "'%.*s': after a number comes last, hourly, daily, weekly, monthly or yearly",
                     (int)(len < 60 ? len : 60), part);
}

int retention_parse(const char *text, struct retention_rule *ret, struct azoth_error *err)
{
    struct retention_rule r = {0};
    for (;;) {
        size_t len = strcspn(text, ",");
        int rc = parse_part(text, len, &r, err);
        if (rc)
            return rc;
        text += len;
        if (!*text)
            break;
        text++;
    }
    *ret = r;
    return 0;
}

/* ---- applying it ---- */

/* Days since 1970; times before count down. */
static int64_t day_of(int64_t time_ns)
{
    int64_t day = (int64_t)(24 * 3600 * NS_PER_S);
    return time_ns / day - (time_ns % day < 0);
}

/* A number that is the same for all times of one period, and greater for later ones. */
static int64_t period_of(enum retention_period p, int64_t time_ns)
{
    int64_t hour = (int64_t)(3600 * NS_PER_S);
    time_t seconds = (time_t)(day_of(time_ns) * 24 * 3600);
    struct tm tm = {0};
    switch (p) {
    case RETENTION_HOURLY:
        return time_ns / hour - (time_ns % hour < 0);
    case RETENTION_DAILY:
        return day_of(time_ns);
    case RETENTION_WEEKLY: /* 1970-01-01 was a Thursday; weeks begin on Monday */
        return (day_of(time_ns) + 3) / 7 - ((day_of(time_ns) + 3) % 7 < 0);
    case RETENTION_MONTHLY:
        gmtime_r(&seconds, &tm);
        return (int64_t)tm.tm_year * 12 + tm.tm_mon;
    case RETENTION_YEARLY:
        gmtime_r(&seconds, &tm);
        return tm.tm_year;
    default: /* RETENTION_LAST has none */
        return 0;
    }
}

struct order {
    int64_t time_ns;
    size_t item;
};

/* Newest first; of equal times the one that came later. */
static int newest_first(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    if (x->time_ns != y->time_ns)
        return x->time_ns < y->time_ns ? 1 : -1;
    return x->item < y->item ? 1 : -1;
}

/* The order of making, not of times: a clock that was set back makes no new backup an old one. */
static void keep_last(uint32_t most, struct retention_item *items, size_t n)
{
    for (size_t i = n; i > 0 && n - i < most; i--) {
        items[i - 1].kept = 1;
        items[i - 1].why = RETENTION_LAST;
    }
}

static void keep_by(enum retention_period p, uint32_t most, const struct order *order,
                    struct retention_item *items, size_t n)
{
    uint32_t kept = 0;
    int64_t last = 0;
    for (size_t i = 0; i < n && kept < most; i++) {
        struct retention_item *it = &items[order[i].item];
        int64_t period = period_of(p, it->time_ns);
        if (kept && period == last)
            continue;
        last = period;
        kept++;
        if (!it->kept)
            it->why = p;
        it->kept = 1;
    }
}

int retention_apply(const struct retention_rule *r, struct retention_item *items, size_t n,
                    struct azoth_error *err)
{
    struct order *order = malloc((n + 1) * sizeof *order);
    if (!order)
        return error_set(err, AZOTH_ERR_NOMEM, "a list of backups");
    for (size_t i = 0; i < n; i++) {
        order[i] = (struct order){items[i].time_ns, i};
        items[i].kept = items[i].needed = 0;
        items[i].why = RETENTION_LAST;
    }
    qsort(order, n, sizeof *order, newest_first);
    keep_last(r->keep[RETENTION_LAST] ? r->keep[RETENTION_LAST] : 1, items, n);
    for (int p = RETENTION_LAST + 1; p < RETENTION_PERIODS; p++)
        if (r->keep[p])
            keep_by((enum retention_period)p, r->keep[p], order, items, n);
    for (size_t i = 0; i < n; i++) {
        if (!items[i].kept || items[i].needed)
            continue;
        /* Ends at one that is kept already, so a ring is left too. */
        for (size_t at = items[i].parent; at < n && !items[at].kept; at = items[at].parent)
            items[at].kept = items[at].needed = 1;
    }
    free(order);
    return 0;
}
