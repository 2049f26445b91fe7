/* run_mark.c - whether what a projector was started with has changed since. */
#include "client/cmd/run.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "projector/split.h"
#include "projector/sqlfile.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static void look(const char *path, uint64_t *ret_inode, int64_t *ret_written_ns)
{
    struct stat st;
    /* Of the link itself: another file serves when it is made anew. */
    if (lstat(path, &st))
        return;
    *ret_inode = st.st_ino;
    *ret_written_ns = st.st_mtim.tv_sec * (int64_t)NS_PER_S + st.st_mtim.tv_nsec;
}

static void look_at_library(const char *dir, const char *name, struct run_mark *ret)
{
    char path[4400];
    struct sqlfile def;
    if (dbdir_path(path, sizeof path, dir, "projections/%s.sql", name) ||
        sqlfile_read(path, &def, NULL))
        return;
    if (def.load[0])
        look(def.load, &ret->inode[2], &ret->written_ns[2]);
    sqlfile_fini(&def);
}

void run_mark_of(const char *dir, const char *instance, struct run_mark *ret)
{
    char path[4400], name[AZOTH_NAME_MAX + 1], stem[SPLIT_STEM];
    uint32_t shard = 0, shards = 1;
    const char *colon = strchr(instance, ':');
    memset(ret, 0, sizeof *ret);
    snprintf(name, sizeof name, "%.*s", (int)(colon ? colon - instance : (long)strlen(instance)),
             instance);
    if (colon && split_parse(colon + 1, &shard, &shards, NULL))
        return;
    split_stem(stem, name, shard, shards);
    if (dbdir_path(path, sizeof path, dir, "projections/%s.sql", name) == 0)
        look(path, &ret->inode[0], &ret->written_ns[0]);
    if (dbdir_path(path, sizeof path, dir, "projections/%s.db", stem) == 0)
        look(path, &ret->inode[1], &ret->written_ns[1]);
    look_at_library(dir, name, ret);
}
