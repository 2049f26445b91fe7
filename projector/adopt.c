#include "projector/adopt.h"

#include "core/error.h"
#include "projector/generation.h"
#include "projector/library.h"
#include "projector/split.h"
#include "projector/tablefile.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4400

/* ---- what a file says of itself ---- */

static int on_identity(void *arg, int n, const char *const *names, const struct query_value *v)
{
    struct table_identity *i = arg;
    (void)names;
    if (!v || n != 7 || v[0].bytes.len >= sizeof i->name || v[1].bytes.len != sizeof i->uuid)
        return 0;
    if (v[0].bytes.len)
        memcpy(i->name, v[0].bytes.ptr, v[0].bytes.len);
    memcpy(i->uuid, v[1].bytes.ptr, sizeof i->uuid);
    i->cursor = (uint64_t)v[2].integer;
    i->cursor_check = (uint32_t)v[3].integer;
    i->handlers = v[4].integer;
    i->shard = (uint32_t)v[5].integer;
    i->shards = (uint32_t)v[6].integer;
    return 0;
}

int table_identify(const char *path, struct table_identity *ret, struct azoth_error *err)
{
    memset(ret, 0, sizeof *ret);
    if (access(path, F_OK))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "%s: there is no such file", path);
    int rc = query_run_file(path,
                            "SELECT name, uuid, cursor, cursor_check, handlers, shard, shards FROM "
                            "azoth_projection",
                            on_identity, ret, err);
    /* USAGE: without its tables yet. */
    if (rc == AZOTH_ERR_USAGE || (!rc && !ret->name[0]))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "%s: it is empty", path);
    return rc;
}

int table_makers_now(const struct sqlfile *def, const struct table_options *o, int64_t *ret,
                     struct azoth_error *err)
{
    struct library *library = NULL;
    int rc = library_load(def, o->load, &library, err);
    if (!rc)
        *ret = table_makers(def, o, library_makers(library));
    library_unload(library);
    return rc;
}

/* Whether the file may serve in this place. */
static int fits(const char *path, const struct table_identity *i, const struct sqlfile *def,
                const struct table_options *o, struct azoth_error *err)
{
    if (strcmp(i->name, def->name) != 0 || i->shard != o->shard || i->shards != o->shards)
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s: it is shard %" PRIu32 " of %" PRIu32 " of projection %s", path,
                         i->shard, i->shards, i->name);
    if (memcmp(i->uuid, o->uuid, sizeof i->uuid) != 0)
        return error_set(err, AZOTH_ERR_DIVERGED, "%s: it follows another database", path);
    /* Of a library in C this process may have an older one loaded: who built the file has looked, and so does
     * who opens it. */
    if (i->cursor > 0 && !sqlfile_in_c(def) && i->handlers != table_makers(def, o, 0) &&
        !o->accept_changed)
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s: its rows were made by other handlers than those of %s", path,
                         def->path);
    return 0;
}

/* ---- taking the place ---- */

static int adopt_locked(const struct sqlfile *def, const struct table_options *o, const char *stem,
                        uint64_t least, uint64_t *ret, struct azoth_error *err)
{
    char path[PATH_BYTES];
    struct table_identity i;
    int rc = generation_look(o->dir, stem, err);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return error_set(err, AZOTH_ERR_NOT_FOUND, "%s: nothing was built", stem);
    rc = generation_path(path, sizeof path, o->dir, stem, 0, err);
    if (!rc)
        rc = table_identify(path, &i, err);
    if (!rc)
        rc = fits(path, &i, def, o, err);
    if (!rc && i.cursor < least)
        rc = error_set(err, AZOTH_ERR_GAP,
                       "%s: it is at event %" PRIu64 ", the one that serves at %" PRIu64, path,
                       i.cursor, least);
    return rc ? rc : generation_adopt(o->dir, stem, ret, err);
}

int adopt_built(const struct sqlfile *def, const struct table_options *o, uint64_t least,
                uint64_t *ret, struct azoth_error *err)
{
    char stem[SPLIT_STEM];
    int fd;
    split_stem(stem, def->name, o->shard, o->shards);
    int rc = generation_lock(o->dir, stem, ".rebuild", &fd, err);
    if (rc == AZOTH_ERR_DUPLICATE)
        return error_set(err, AZOTH_ERR_BUSY, "%s: another process builds it", stem);
    if (rc)
        return rc;
    rc = adopt_locked(def, o, stem, least, ret, err);
    close(fd);
    return rc;
}

int adopt_generation(const struct sqlfile *def, const struct table_options *o, uint64_t n,
                     struct azoth_error *err)
{
    char stem[SPLIT_STEM], path[PATH_BYTES];
    struct table_identity i;
    split_stem(stem, def->name, o->shard, o->shards);
    int rc = generation_path(path, sizeof path, o->dir, stem, n, err);
    if (!rc)
        rc = table_identify(path, &i, err);
    if (!rc)
        rc = fits(path, &i, def, o, err);
    return rc ? rc : generation_serve(o->dir, stem, n, err);
}

/* ---- asked for ---- */

enum what { WHAT_ADOPT, WHAT_SERVE, WHAT_PRUNE, WHAT_ELSE };

static enum what what_of(const char *text, uint64_t *ret_n)
{
    unsigned long long n;
    int end = 0;
    if (strcmp(text, "adopt") == 0)
        return WHAT_ADOPT;
    if (strcmp(text, "prune") == 0)
        return WHAT_PRUNE;
    if (sscanf(text, "serve %llu%n", &n, &end) != 1 || text[end])
        return WHAT_ELSE;
    *ret_n = n;
    return WHAT_SERVE;
}

static int prune(const struct sqlfile *def, const struct table_options *o, uint64_t *ret,
                 struct azoth_error *err)
{
    char stem[SPLIT_STEM];
    split_stem(stem, def->name, o->shard, o->shards);
    return generation_prune(o->dir, stem, ret, err);
}

int adopt_command(const char *definition, const struct table_options *o, uint64_t cursor,
                  const char *text, char answer[COMMAND_ANSWER_MAX], int *ret_other)
{
    static const char *const done[] = {"adopted", "serves", "pruned"};
    struct azoth_error err = {0};
    struct sqlfile def;
    uint64_t n = 0;
    enum what what = what_of(text, &n);
    if (what == WHAT_ELSE)
        return 0;
    int rc = sqlfile_read(definition, &def, &err);
    if (!rc && what == WHAT_ADOPT)
        rc = adopt_built(&def, o, cursor, &n, &err);
    if (!rc && what == WHAT_SERVE)
        rc = adopt_generation(&def, o, n, &err);
    if (!rc && what == WHAT_PRUNE)
        rc = prune(&def, o, &n, &err);
    sqlfile_fini(&def);
    /* Also after a failure, since the link may have been made before it. */
    *ret_other = what != WHAT_PRUNE && rc != AZOTH_ERR_GAP && rc != AZOTH_ERR_BUSY &&
                 rc != AZOTH_ERR_NOT_FOUND && rc != AZOTH_ERR_PROJECTION &&
                 rc != AZOTH_ERR_DIVERGED;
    if (rc)
        snprintf(answer, COMMAND_ANSWER_MAX, "refused %d %s", rc, err.message);
    else
        snprintf(answer, COMMAND_ANSWER_MAX, "%s %" PRIu64, done[what], n);
    return 1;
}
