/* restore_time.c - a time as people write it. */
#include "client/cmd/backup.h"

#include "core/clock.h"

#include <string.h>
#include <time.h>

/* A fraction of a second, if there is one: how many ns; *at is behind it. */
static long fraction(const char **at)
{
    long ns = 0, unit = 100000000;
    if (**at != '.' || !(*at)[1] || !strchr("0123456789", (*at)[1]))
        return 0;
    for (++*at; **at >= '0' && **at <= '9'; ++*at, unit /= 10)
        ns += (**at - '0') * unit;
    return ns;
}

static int two_digits(const char *p, int *ret)
{
    if (p[0] < '0' || p[0] > '9' || p[1] < '0' || p[1] > '9')
        return 0;
    *ret = (p[0] - '0') * 10 + p[1] - '0';
    return 1;
}

/* "Z", "+01:00", or nothing for local time. */
static int zone(const char *at, struct tm *tm, time_t *ret)
{
    int hours, minutes;
    if (!*at) {
        tm->tm_isdst = -1;
        *ret = mktime(tm);
        return 1;
    }
    *ret = timegm(tm);
    if (strcmp(at, "Z") == 0 || strcmp(at, "z") == 0)
        return 1;
    if ((*at != '+' && *at != '-') || strlen(at) != 6 || at[3] != ':' ||
        !two_digits(at + 1, &hours) || !two_digits(at + 4, &minutes) || hours > 23 || minutes > 59)
        return 0;
    *ret += (*at == '+' ? -1 : 1) * (hours * 3600 + minutes * 60);
    return 1;
}

static int in_range(const struct tm *tm)
{
    struct tm again = *tm;
    (void)timegm(&again); /* what is no date becomes another one */
    return again.tm_mday == tm->tm_mday && again.tm_mon == tm->tm_mon && tm->tm_year >= 70 &&
           tm->tm_year < 300 && tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 60;
}

int restore_time(const char *text, int64_t *ret_ns)
{
    struct tm tm = {0};
    time_t seconds;
    long ns;
    const char *at = text;
    if (*text == '@') {
        char *end;
        seconds = strtol(text + 1, &end, 10);
        at = end;
        ns = fraction(&at);
        if (end == text + 1 || *at || seconds < 0 || seconds >= 9000000000)
            return 0;
    } else {
        at = strptime(text, "%Y-%m-%d", &tm);
        if (!at || (*at != 'T' && *at != 't' && *at != ' '))
            return 0;
        at = strptime(at + 1, "%H:%M", &tm);
        if (at && *at == ':')
            at = strptime(at + 1, "%S", &tm);
        if (!at || !in_range(&tm))
            return 0;
        ns = fraction(&at);
        if (!zone(at, &tm, &seconds))
            return 0;
    }
    *ret_ns = (int64_t)seconds * (int64_t)NS_PER_S + ns;
    return 1;
}
