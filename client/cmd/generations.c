/* generations.c - azoth projection generations, rollback --generation, prune: the files that served before. */
#include "client/cmd/rebuild.h"

#include "client/cmd/owner.h"
#include "core/clock.h"
#include "core/dbdir.h"
#include "projector/generation.h"
#include "projector/split.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_BYTES     4400
#define GENERATION_MAX 1000u /* listed */
#define AGAIN_MS       10u

struct files {
    struct cmd_line *l;
    const char *name, *projections;
    char dir[4096], run_dir[4096], definition[PATH_BYTES];
    uint8_t uuid[16];
    struct sqlfile def;
    uint32_t shards;
    int timeout_ms;
};

struct one {
    struct table_options o;
    char stem[SPLIT_STEM];
    uint64_t current;
};

static int files_open(struct files *f, struct azoth_error *err)
{
    static struct config config;
    struct store *store;
    int rc = dbdir_path(f->definition, sizeof f->definition, f->projections, "%s.sql", f->name)
                 ? error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", f->projections)
                 : sqlfile_read(f->definition, &f->def, err);
    if (!rc && f->def.target != TARGET_SQLITE)
        rc = error_set(err, AZOTH_ERR_UNSUPPORTED,
                       "%s: its rows are in PostgreSQL, which keeps no generations of them",
                       f->definition);
    if (!rc)
        rc = split_serving(f->projections, f->name, &f->shards, err);
    if (!rc)
        rc = config_load(&config, f->dir, err);
    if (!rc)
        rc = cmd_find_run_dir(f->dir, &config, f->run_dir, sizeof f->run_dir, err);
    if (!rc)
        rc = store_open(f->dir, 0, &store, err);
    if (rc)
        return rc;
    memcpy(f->uuid, store_identity(store)->uuid, sizeof f->uuid);
    store_close(store);
    return 0;
}

static int one_of(const struct files *f, uint32_t shard, struct one *ret, struct azoth_error *err)
{
    ret->o = (struct table_options){
        .dir = f->projections, .uuid = f->uuid, .shard = shard, .shards = f->shards};
    split_stem(ret->stem, f->name, shard, f->shards);
    return generation_current(f->projections, ret->stem, &ret->current, err);
}

/* ---- listing ---- */

struct listing {
    const struct files *f;
    const struct one *one;
    int64_t makers; /* of the definition as it is */
    uint64_t n[GENERATION_MAX];
    size_t count;
    struct azoth_error *err;
};

static int on_generation(void *arg, uint64_t n)
{
    struct listing *g = arg;
    if (g->count == GENERATION_MAX)
        return error_set(g->err, AZOTH_ERR_FULL, "%s has more than %u generations", g->one->stem,
                         GENERATION_MAX);
    g->n[g->count++] = n;
    return 0;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int list_one(struct listing *g, uint64_t n, struct json_text *j)
{
    char path[PATH_BYTES], size[CMD_TIME_TEXT], time[CMD_TIME_TEXT];
    struct table_identity i;
    struct stat st;
    int rc = generation_path(path, sizeof path, g->f->projections, g->one->stem, n, g->err);
    if (rc)
        return rc;
    if (stat(path, &st))
        return 0; /* it went while we looked */
    rc = table_identify(path, &i, g->err);
    int readable = rc == 0, serves = n == g->one->current;
    int fits = readable && i.handlers == g->makers;
    int64_t written = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
    if (!g->f->l->json) {
        printf("%-20s %10" PRIu64 " %-6s %12" PRIu64 " %-8s %10s %s\n", g->one->stem, n,
               serves ? "serves" : "kept", i.cursor,
               !readable ? "damaged"
               : fits    ? "current"
                         : "other",
               cmd_size((uint64_t)st.st_size, size), cmd_time(written, time));
        return 0;
    }
    out_open(j, NULL, '{');
    out_u64(j, "shard", g->one->o.shard);
    out_u64(j, "generation", n);
    out_bool(j, "serves", serves);
    out_bool(j, "readable", readable);
    out_bool(j, "current_handlers", fits);
    out_u64(j, "cursor", i.cursor);
    out_u64(j, "bytes", (uint64_t)st.st_size);
    out_str(j, "written", cmd_time(written, time));
    out_close(j, '}');
    return 0;
}

static int list_all(const struct files *f, struct json_text *j, struct azoth_error *err)
{
    int rc = 0;
    for (uint32_t s = 0; !rc && s < f->shards; s++) {
        struct one one;
        struct listing g = {.f = f, .one = &one, .err = err};
        rc = one_of(f, s, &one, err);
        if (!rc)
            rc = table_makers_now(&f->def, &one.o, &g.makers, err);
        if (!rc)
            rc = generation_each(f->projections, one.stem, on_generation, &g, err);
        qsort(g.n, g.count, sizeof *g.n, ascending);
        for (size_t i = 0; !rc && i < g.count; i++)
            rc = list_one(&g, g.n[i], j);
    }
    return rc;
}

int generations_list(struct cmd_line *l, const char *projections, const char *name)
{
    struct files f = {.l = l, .name = name, .projections = projections};
    struct azoth_error err = {0};
    struct json_text j = {0};
    int rc = cmd_dir(l, NULL, 1, f.dir, sizeof f.dir);
    if (rc)
        return rc;
    rc = files_open(&f, &err);
    if (!rc && l->json) {
        out_open(&j, NULL, '{');
        out_str(&j, "name", name);
        out_u64(&j, "shards", f.shards);
        out_open(&j, "generations", '[');
    } else if (!rc) {
        printf("%-20s %10s %-6s %12s %-8s %10s %s\n", "FILES", "GENERATION", "STATE", "CURSOR",
               "HANDLERS", "SIZE", "WRITTEN");
    }
    if (!rc)
        rc = list_all(&f, &j, &err);
    if (!rc && l->json) {
        out_close(&j, ']');
        out_close(&j, '}');
        out_print(&j);
    } else {
        buf_fini(&j.b);
    }
    sqlfile_fini(&f.def);
    return rc ? cmd_fail(&err) : 0;
}

/* ---- changing ---- */

static int ask_once(const struct files *f, const struct one *one, const char *text, uint64_t *ret,
                    struct azoth_error *err)
{
    struct owner owner;
    int rc = owner_find(f->run_dir, f->projections, one->stem, f->timeout_ms, &owner, err);
    if (!rc)
        rc = owner_ask(&owner, f->definition, &one->o, 0, text, ret, err);
    owner_close(&owner);
    return rc;
}

/* A projector that ends, or opens another file, is asked again: twice is as good as once. */
static int ask_one(const struct files *f, const struct one *one, const char *text, uint64_t *ret,
                   struct azoth_error *err)
{
    uint64_t until = clock_mono_ns() + (uint64_t)f->timeout_ms * NS_PER_MS;
    int rc;
    while (((rc = ask_once(f, one, text, ret, err)) == AZOTH_ERR_UNREACHABLE ||
            rc == AZOTH_ERR_BUSY) &&
           clock_mono_ns() < until && !cmd_interrupted())
        cmd_sleep_ms(AGAIN_MS);
    return rc;
}

/* Which one every shard is to go back to, all looked at before the first does. */
static int choose(const struct files *f, const struct cmd_number *asked, uint64_t n[SPLIT_MAX],
                  struct azoth_error *err)
{
    int rc = 0;
    for (uint32_t s = 0; !rc && s < f->shards; s++) {
        char path[PATH_BYTES];
        struct table_identity i;
        struct one one;
        int64_t makers = 0;
        n[s] = asked->n;
        rc = one_of(f, s, &one, err);
        if (!rc)
            rc = table_makers_now(&f->def, &one.o, &makers, err);
        if (!rc && !asked->has)
            rc = generation_before(f->projections, one.stem, &n[s], err);
        if (!rc)
            rc = generation_path(path, sizeof path, f->projections, one.stem, n[s], err);
        if (!rc)
            rc = table_identify(path, &i, err);
        if (!rc && i.cursor && i.handlers != makers)
            rc = error_set(err, AZOTH_ERR_PROJECTION,
                           "%s: other handlers than those of %s made its rows: put the definition "
                           "of that time back first",
                           path, f->definition);
    }
    return rc;
}

static int back(struct files *f, const struct cmd_number *asked, struct azoth_error *err)
{
    uint64_t n[SPLIT_MAX];
    int rc = files_open(f, err);
    if (!rc)
        rc = choose(f, asked, n, err);
    for (uint32_t s = 0; !rc && s < f->shards; s++) {
        char text[40];
        struct one one;
        rc = one_of(f, s, &one, err);
        snprintf(text, sizeof text, "serve %" PRIu64, n[s]);
        if (!rc)
            rc = ask_one(f, &one, text, &n[s], err);
        if (!rc && !f->l->json)
            printf("%s: generation %" PRIu64 " serves\n", one.stem, n[s]);
    }
    return rc;
}

static int prune(struct files *f, const struct cmd_number *ignored, struct azoth_error *err)
{
    uint64_t n, all = 0;
    (void)ignored;
    int rc = files_open(f, err);
    for (uint32_t s = 0; !rc && s < f->shards; s++) {
        struct one one;
        rc = one_of(f, s, &one, err);
        if (!rc)
            rc = ask_one(f, &one, "prune", &n, err);
        if (!rc)
            all += n;
    }
    if (!rc && f->l->json)
        printf("{\"removed\":%" PRIu64 "}\n", all);
    else if (!rc)
        printf("%" PRIu64 " removed\n", all);
    return rc;
}

typedef int (*changes)(struct files *f, const struct cmd_number *asked, struct azoth_error *err);

static int change(struct cmd_line *l, const char *projections, const char *name,
                  uint64_t timeout_ms, changes fn, const struct cmd_number *asked)
{
    struct files f = {
        .l = l, .name = name, .projections = projections, .timeout_ms = (int)timeout_ms};
    struct azoth_error err = {0};
    int rc = cmd_dir(l, NULL, 1, f.dir, sizeof f.dir);
    if (rc)
        return rc;
    cmd_catch_signals();
    rc = fn(&f, asked, &err);
    sqlfile_fini(&f.def);
    return rc ? cmd_fail(&err) : 0;
}

int generations_back(struct cmd_line *l, const char *projections, const char *name,
                     const struct cmd_number *generation, uint64_t timeout_ms)
{
    return change(l, projections, name, timeout_ms, back, generation);
}

int generations_prune(struct cmd_line *l, const char *projections, const char *name,
                      uint64_t timeout_ms)
{
    return change(l, projections, name, timeout_ms, prune, NULL);
}
