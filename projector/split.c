#include "projector/split.h"

#include "core/dbdir.h"
#include "core/error.h"
#include "projector/table.h"
#include "projector/target.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    int complete;
    uint64_t cursor; /* of its slowest shard */
    struct timespec linked;
};

static int later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

static int link_of(char path[4400], const char *dir, const char *name, uint32_t shard,
                   uint32_t shards)
{
    char stem[SPLIT_STEM];
    split_stem(stem, name, shard, shards);
    return dbdir_path(path, 4400, dir, "%s.db", stem);
}

static int complete(const char *dir, const char *name, uint32_t shards)
{
    char path[4400];
    for (uint32_t i = 0; i < shards; i++)
        if (link_of(path, dir, name, i, shards) || access(path, F_OK))
            return 0;
    return 1;
}

/* When another file began to serve: of the link itself, which is made anew then. A file is also written to when
 * nothing is applied, by a projector that gives its log's space back. */
static void look_when_linked(const char *dir, const char *name, uint32_t shard, uint32_t shards,
                             struct set *s)
{
    char path[4400];
    struct stat st;
    if (link_of(path, dir, name, shard, shards) == 0 && lstat(path, &st) == 0 &&
        later(&st.st_mtim, &s->linked))
        s->linked = st.st_mtim;
}

static int on_cursor(void *arg, int n, const char *const *names, const struct query_value *v)
{
    (void)names;
    if (v && n == 1)
        *(uint64_t *)arg = (uint64_t)v[0].integer;
    return 0;
}

static int look_at(const char *dir, const char *name, uint32_t shards, struct set *s,
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
        look_when_linked(dir, name, i, shards, s);
    }
    return 0;
}

static int serves_before(const struct set *a, const struct set *b)
{
    return a->cursor != b->cursor ? a->cursor > b->cursor : later(&a->linked, &b->linked);
}

int split_serving(const char *dir, const char *name, uint32_t *ret_shards, struct azoth_error *err)
{
    struct set set[SPLIT_MAX + 1] = {0};
    uint32_t found = 0, best = 0;
    char conninfo[SQLFILE_CONNINFO_MAX + 1];
    int server = target_is_server(dir, name, conninfo, err);
    if (server < 0)
        return server;
    if (server) {
        *ret_shards = 1;
        return 0;
    }
    for (uint32_t k = 1; k <= SPLIT_MAX; k++) {
        set[k].complete = complete(dir, name, k);
        found += (uint32_t)set[k].complete;
    }
    if (!found)
        return error_set(err, AZOTH_ERR_NOT_FOUND, "there is no projection %s here", name);
    for (uint32_t k = 1; k <= SPLIT_MAX; k++) {
        int rc = set[k].complete && found > 1 ? look_at(dir, name, k, &set[k], err) : 0;
        if (rc)
            return rc;
        if (set[k].complete && (!best || serves_before(&set[k], &set[best])))
            best = k;
    }
    *ret_shards = best;
    return 0;
}
