#include "projector/split.h"

#include "core/dbdir.h"
#include "core/error.h"
#include "projector/table.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void split_stem(char out[SPLIT_STEM], const char *name, uint32_t shard, uint32_t shards)
{
    if (shards <= 1)
        snprintf(out, SPLIT_STEM, "%s", name);
    else
        snprintf(out, SPLIT_STEM, "%s.%uof%u", name, shard, shards);
}

int split_parse(const char *text, uint32_t *ret_shard, uint32_t *ret_shards,
                struct azoth_error *err)
{
    char sign;
    unsigned i, k;
    int n = 0;
    /* No blanks and no signs, which sscanf would take. */
    if (strspn(text, "0123456789/-") != strlen(text) || text[0] < '0' ||
        sscanf(text, "%4u%c%4u%n", &i, &sign, &k, &n) != 3 || text[n] || k == 0 || i >= k)
        return error_set(err, AZOTH_ERR_USAGE,
                         "%.80s: a shard is I/K: 0/4, 1/4, 2/4 and 3/4 are the shards of 4", text);
    if (k > SPLIT_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: at most %u shards, which a query reads as one",
                         text, SPLIT_MAX);
    *ret_shard = i;
    *ret_shards = k;
    return 0;
}

/* ---- which one serves ---- */

struct set {
    uint64_t cursor; /* of its slowest shard */
    struct timespec written;
};

static int later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

static int complete(const char *dir, const char *name, uint32_t shards, struct set *s)
{
    char stem[SPLIT_STEM], path[4400], file[PATH_MAX + 8];
    struct stat st;
    memset(s, 0, sizeof *s);
    for (uint32_t i = 0; i < shards; i++) {
        split_stem(stem, name, i, shards);
        if (dbdir_path(path, sizeof path, dir, "%s.db", stem) || !realpath(path, file) ||
            stat(file, &st))
            return 0;
        if (later(&st.st_mtim, &s->written))
            s->written = st.st_mtim;
        /* What is written goes to the log first. */
        strcat(file, "-wal");
        if (stat(file, &st) == 0 && later(&st.st_mtim, &s->written))
            s->written = st.st_mtim;
    }
    return 1;
}

static int on_cursor(void *arg, int n, const char *const *names, const struct query_value *v)
{
    (void)names;
    if (v && n == 1)
        *(uint64_t *)arg = (uint64_t)v[0].integer;
    return 0;
}

static int slowest(const char *dir, const char *name, uint32_t shards, struct set *s,
                   struct azoth_error *err)
{
    for (uint32_t i = 0; i < shards; i++) {
        uint64_t cursor = 0;
        int rc = query_run_shard(dir, name, i, shards, "SELECT cursor FROM azoth_projection",
                                 on_cursor, &cursor, err);
        /* One that is being made has no tables yet: it has applied nothing. */
        if (rc == AZOTH_ERR_USAGE)
            cursor = 0;
        else if (rc)
            return rc;
        if (i == 0 || cursor < s->cursor)
            s->cursor = cursor;
    }
    return 0;
}

int split_serving(const char *dir, const char *name, uint32_t *ret_shards, struct azoth_error *err)
{
    struct set set[SPLIT_MAX + 1];
    uint32_t found = 0, best = 0;
    for (uint32_t k = 1; k <= SPLIT_MAX; k++)
        if (complete(dir, name, k, &set[k])) {
            found++;
            best = k;
        }
    if (!found)
        return error_set(err, AZOTH_ERR_NOT_FOUND, "there is no projection %s here", name);
    if (found > 1)
        best = 0;
    for (uint32_t k = 1; found > 1 && k <= SPLIT_MAX; k++) {
        struct timespec none = {0};
        if (!later(&set[k].written, &none))
            continue;
        int rc = slowest(dir, name, k, &set[k], err);
        if (rc)
            return rc;
        if (!best || set[k].cursor > set[best].cursor ||
            (set[k].cursor == set[best].cursor && later(&set[k].written, &set[best].written)))
            best = k;
    }
    *ret_shards = best;
    return 0;
}
