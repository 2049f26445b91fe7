/*
 * verify.c - azoth verify: the store (verify_store.c), and proof from the log that a projection has handled
 * exactly its events; with --replay that its rows are those that its definition makes of them.
 *
 * The projection's account (projector/coverage.h) is read as of one moment, cursor and sums together; the log
 * is then read up to that cursor with the account's filters, and must give the same counts and hashes. The log
 * is only appended to, so what is committed meanwhile does not matter. Nothing is written, and the projector
 * may run.
 */
#include "client/cmd/progress.h"
#include "client/cmd/try.h"
#include "client/cmd/verify.h"

#include "core/dbdir.h"
#include "core/record.h"
#include "core/store.h"
#include "projector/coverage.h"
#include "projector/split.h"
#include "projector/table.h"
#include "writer/feed_look.h"

#include <string.h>
#include <unistd.h>

#define LOOK_BYTES (4u << 20)

struct span {
    uint64_t from, to; /* events of the log */
    struct coverage_sum account, log;
    struct feed_filter filter;
};

/* One file's. */
struct account {
    uint32_t shard, shards;
    uint8_t uuid[16];
    uint64_t cursor;
    uint32_t cursor_check;
    struct span *span;
    size_t spans;
    int failed;
};

struct verify {
    struct cmd_line *l;
    char dir[4096], projections[4200];
    struct store *store;
    struct buf frames;
    struct json_text j, replays;
    struct progress progress;
    int replay;
    int all;       /* projections: one that can not be replayed is no failure then */
    int whole;     /* --replay alone: the store and all projections, also when there are none */
    int exit_code; /* of the newest failure */
};

static void account_fini(struct account *a)
{
    for (size_t i = 0; i < a->spans; i++)
        free(a->span[i].filter.types);
    free(a->span);
}

/* ---- the projection's side ---- */

static int add_span(struct account *a, const struct query_value *v)
{
    struct span *more = realloc(a->span, (a->spans + 1) * sizeof *more);
    if (!more)
        return AZOTH_ERR_NOMEM;
    a->span = more;
    struct span *s = &a->span[a->spans];
    memset(s, 0, sizeof *s);
    s->from = (uint64_t)v[5].integer;
    s->to = a->cursor;
    s->account = (struct coverage_sum){(uint64_t)v[6].integer, (uint64_t)v[7].integer};
    s->filter.shard = a->shard;
    s->filter.shards = a->shards;
    if (v[9].bytes.len >= sizeof s->filter.shard_by)
        return AZOTH_ERR_CORRUPT;
    if (v[9].bytes.len)
        memcpy(s->filter.shard_by, v[9].bytes.ptr, v[9].bytes.len);
    s->filter.types = malloc(v[8].bytes.len + 1);
    if (!s->filter.types)
        return AZOTH_ERR_NOMEM;
    if (v[8].bytes.len)
        memcpy(s->filter.types, v[8].bytes.ptr, v[8].bytes.len);
    s->filter.types_len = v[8].bytes.len;
    if (a->spans)
        a->span[a->spans - 1].to = s->from - 1;
    a->spans++;
    return 0;
}

static int on_row(void *arg, int n, const char *const *names, const struct query_value *v)
{
    struct account *a = arg;
    (void)names;
    if (!v || n != 10)
        return 0;
    a->shard = (uint32_t)v[0].integer;
    a->shards = (uint32_t)v[1].integer;
    a->cursor = (uint64_t)v[3].integer;
    a->cursor_check = (uint32_t)v[4].integer;
    if (v[2].bytes.len == sizeof a->uuid)
        memcpy(a->uuid, v[2].bytes.ptr, sizeof a->uuid);
    if (v[5].type != QUERY_NULL)
        a->failed = add_span(a, v);
    return a->failed;
}

static int read_account(struct verify *v, const char *base, const char *name, uint32_t shard,
                        uint32_t shards, struct account *a, struct azoth_error *err)
{
    int rc = query_run_shard(v->projections, base, shard, shards, coverage_query, on_row, a, err);
    if (!rc && a->failed)
        rc = error_set(err, a->failed, "%s: its account: %s", name, azoth_code_sentence(a->failed));
    if (rc == AZOTH_ERR_USAGE || (!rc && a->spans == 0))
        rc = error_set(err, AZOTH_ERR_UNSUPPORTED,
                       "%s keeps no account yet: its projector has not run since the version that "
                       "keeps one",
                       name);
    if (!rc && (a->shard != shard || a->shards != shards))
        rc = error_set(err, AZOTH_ERR_PROJECTION, "%s: its file is of shard %u of %u", name,
                       a->shard, a->shards);
    return rc;
}

/* ---- the log's side ---- */

/* 0, 1 when it was interrupted, or an error. */
static int sum_span(struct verify *v, struct span *s, uint64_t cursor, struct azoth_error *err)
{
    struct feed_look look = {.last = s->from - 1};
    while (look.last < s->to) {
        size_t at = 0;
        struct event_record ev;
        uint32_t check;
        int rc;
        if (cmd_interrupted())
            return 1;
        buf_clear(&v->frames);
        rc = feed_look(v->store, &s->filter, look.last, LOOK_BYTES, &v->frames, &look, err);
        if (rc)
            return rc;
        while ((rc = record_frame_next(buf_bytes(&v->frames), &at, &ev, &check)) == 1)
            if (ev.id <= s->to)
                coverage_add(&s->log, ev.id, check);
        if (rc)
            return error_set(err, rc, "the log's frames fail their check");
        progress_say(&v->progress, look.last, cursor, "event");
    }
    return 0;
}

static int compare(const struct account *a, const char *name, struct azoth_error *err)
{
    for (size_t i = 0; i < a->spans; i++) {
        const struct span *s = &a->span[i];
        unsigned long long from = s->from, to = s->to, had = s->account.events, has = s->log.events;
        if (had != has)
            return error_set(err, AZOTH_ERR_CORRUPT,
                             "%s: of events %llu to %llu the log has %llu for it, and it has "
                             "handled %llu: rebuild it",
                             name, from, to, has, had);
        if (s->account.hash != s->log.hash)
            return error_set(err, AZOTH_ERR_CORRUPT,
                             "%s: of events %llu to %llu it has handled %llu, but not those of the "
                             "log, or in another order: rebuild it",
                             name, from, to, had);
    }
    if (a->span[0].from > 1)
        return error_set(err, AZOTH_ERR_UNSUPPORTED,
                         "%s: its account begins at event %llu: those before it were handled by a "
                         "version that kept none",
                         name, (unsigned long long)a->span[0].from);
    return 0;
}

static int check_file(struct verify *v, const char *base, const char *name, uint32_t shard,
                      uint32_t shards, struct account *a, struct azoth_error *err)
{
    uint64_t head;
    int rc = read_account(v, base, name, shard, shards, a, err);
    if (!rc && memcmp(a->uuid, store_identity(v->store)->uuid, sizeof a->uuid) != 0)
        rc = error_set(err, AZOTH_ERR_DIVERGED, "%s follows another database", name);
    if (!rc)
        rc = feed_same_history(v->store, a->cursor, a->cursor_check, &head, err);
    progress_begin(&v->progress, name, v->l->json, 0);
    for (size_t i = 0; !rc && i < a->spans; i++)
        rc = sum_span(v, &a->span[i], a->cursor, err);
    progress_end(&v->progress);
    return rc ? rc : compare(a, name, err);
}

/* ---- output ---- */

static void tell(struct verify *v, const char *stem, const char *name, const struct account *a,
                 int rc, const struct azoth_error *err)
{
    uint64_t handled = 0;
    for (size_t i = 0; i < a->spans; i++)
        handled += a->span[i].account.events;
    if (!v->l->json) {
        if (!rc)
            printf("%s: events 1 to %llu: its %llu handled, each once, in order\n", stem,
                   (unsigned long long)a->cursor, (unsigned long long)handled);
        else
            v->exit_code = cmd_fail(err);
        return;
    }
    out_open(&v->j, NULL, '{');
    out_str(&v->j, "name", name);
    out_u64(&v->j, "shard", a->shard);
    out_u64(&v->j, "shards", a->shards);
    out_bool(&v->j, "ok", rc == 0);
    out_u64(&v->j, "cursor", a->cursor);
    out_u64(&v->j, "handled", handled);
    out_open(&v->j, "spans", '[');
    for (size_t i = 0; i < a->spans; i++) {
        const struct span *s = &a->span[i];
        out_open(&v->j, NULL, '{');
        out_u64(&v->j, "from", s->from);
        out_u64(&v->j, "to", s->to);
        out_u64(&v->j, "handled", s->account.events);
        out_u64(&v->j, "in_log", s->log.events);
        out_bool(&v->j, "same",
                 s->account.events == s->log.events && s->account.hash == s->log.hash);
        out_close(&v->j, '}');
    }
    out_close(&v->j, ']');
    out_str(&v->j, "error", rc ? azoth_code_name(rc) : NULL);
    out_str(&v->j, "message", rc ? err->message : NULL);
    out_close(&v->j, '}');
    if (rc)
        v->exit_code = cmd_fail(err);
}

/* ---- replay ---- */

static void tell_replay(struct verify *v, const char *name, const struct try_replay *r, int rc,
                        int excused, const struct azoth_error *err)
{
    if (v->l->json) {
        out_open(&v->replays, NULL, '{');
        out_str(&v->replays, "name", name);
        if (excused)
            out_str(&v->replays, "ok", NULL);
        else
            out_bool(&v->replays, "ok", rc == 0);
        out_u64(&v->replays, "cursor", r->cursor);
        out_u64(&v->replays, "tables", r->tables);
        out_u64(&v->replays, "rows", r->rows);
        out_u64(&v->replays, "removed", r->removed);
        out_u64(&v->replays, "added", r->added);
        out_u64(&v->replays, "changed", r->changed);
        out_str(&v->replays, "error", rc ? azoth_code_name(rc) : NULL);
        out_str(&v->replays, "message", rc ? err->message : NULL);
        out_close(&v->replays, '}');
    } else if (!rc) {
        printf("%s: replayed up to event %llu: its %llu rows in %llu tables are those of the log\n",
               name, (unsigned long long)r->cursor, (unsigned long long)r->rows,
               (unsigned long long)r->tables);
    } else if (excused) {
        printf("%s: not replayed: %s\n", name, err->message);
    }
    if (rc && !excused)
        v->exit_code = cmd_fail(err);
}

static void replay(struct verify *v, const char *name)
{
    char file[4400];
    struct try_replay r = {0};
    struct azoth_error err = {0};
    snprintf(file, sizeof file, "%s/%s.sql", v->projections, name);
    int rc = try_replay(v->dir, file, &r, &err);
    if (cmd_interrupted())
        return;
    int excused = v->all && rc == AZOTH_ERR_UNSUPPORTED;
    if (!rc && *r.why_not)
        rc = error_set(&err, AZOTH_ERR_UNSUPPORTED, "%s: not replayed: %.190s", name, r.why_not);
    else if (!rc && *r.first)
        rc = error_set(&err, AZOTH_ERR_CORRUPT, "%s: at event %llu, %.180s", name,
                       (unsigned long long)r.cursor, r.first);
    tell_replay(v, name, &r, rc, excused, &err);
}

/* ---- the command ---- */

static int is_defined(const struct verify *v, const char *name)
{
    char file[4400];
    snprintf(file, sizeof file, "%s/%s.sql", v->projections, name);
    return access(file, F_OK) == 0;
}

static void check_projection(struct verify *v, const char *name)
{
    uint32_t shards = 1;
    struct azoth_error err = {0};
    int rc = split_serving(v->projections, name, &shards, &err);
    if (rc == AZOTH_ERR_NOT_FOUND && is_defined(v, name))
        rc = error_set(&err, rc, "projection %s has no file: no projector has begun it", name);
    if (rc) {
        v->exit_code = cmd_fail(&err);
        return;
    }
    if (v->replay)
        replay(v, name);
    for (uint32_t i = 0; i < shards && !cmd_interrupted(); i++) {
        char stem[SPLIT_STEM];
        struct account a = {.shard = i, .shards = shards};
        split_stem(stem, name, i, shards);
        rc = check_file(v, name, stem, i, shards, &a, &err);
        if (rc <= 0)
            tell(v, stem, name, &a, rc, &err);
        account_fini(&a);
    }
}

static int check_all(struct verify *v)
{
    struct azoth_error err = {0};
    struct dirent **list;
    int n = cmd_definitions(v->dir, &list, &err);
    for (int i = 0; i < n && !cmd_interrupted(); i++)
        check_projection(v, list[i]->d_name);
    cmd_definitions_free(list, n);
    if (n < 0)
        return cmd_fail(&err);
    return n || v->whole
               ? 0
               : cmd_fail_code(AZOTH_ERR_NOT_FOUND, "%s: there is no projection", v->projections);
}

/* They were gathered beside the array of accounts. */
static void print_replays(struct verify *v)
{
    if (!v->replay)
        return;
    out_open(&v->j, "replays", '[');
    v->j.failed |= v->replays.failed || buf_add(&v->j.b, v->replays.b.ptr, v->replays.b.len);
    out_close(&v->j, ']');
    buf_fini(&v->replays.b);
}

static int run_verify(struct cmd_line *l)
{
    static struct verify v;
    struct cmd_list names = {0};
    struct azoth_error err = {0};
    int store = 0;
    v.l = l;
    const struct cmd_flag flags[] = {{"--store", FLAG_SWITCH, &store},
                                     {"--projection", FLAG_LIST, &names},
                                     {"--all-projections", FLAG_SWITCH, &v.all},
                                     {"--replay", FLAG_SWITCH, &v.replay},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 0);
    if (!rc && v.all && names.n)
        rc = cmd_usage(l, "which projection? --projection NAME, or --all-projections");
    if (!rc)
        rc = cmd_dir(l, NULL, 1, v.dir, sizeof v.dir);
    if (rc)
        return rc;
    v.whole = v.replay && !v.all && !names.n;
    if (v.whole)
        store = v.all = 1;
    for (int i = 0; i < names.n; i++)
        if (!dbdir_name_valid(names.text[i]))
            return cmd_usage(l, "%s is no name of a projection", names.text[i]);
    if (dbdir_path(v.projections, sizeof v.projections, v.dir, "projections"))
        return cmd_usage(l, "%s: the path is too long", v.dir);
    cmd_catch_signals();
    if (l->json)
        out_open(&v.j, NULL, '{');
    if (store || (!v.all && !names.n))
        v.exit_code = verify_store(v.dir, &v.store, l->json, &v.j);
    else if (store_open(v.dir, 0, &v.store, &err))
        return cmd_fail(&err);
    if (l->json)
        out_open(&v.j, "projections", '[');
    if (v.store && v.all && (rc = check_all(&v)) != 0)
        v.exit_code = rc;
    for (int i = 0; v.store && i < names.n && !cmd_interrupted(); i++)
        check_projection(&v, names.text[i]);
    if (l->json) {
        out_close(&v.j, ']');
        print_replays(&v);
        out_bool(&v.j, "ok", v.exit_code == 0);
        out_close(&v.j, '}');
        out_print(&v.j);
    }
    buf_fini(&v.frames);
    store_close(v.store);
    return cmd_interrupted() ? 128 + cmd_interrupted() : v.exit_code; /* as shells tell it */
}

const struct cmd cmd_verify = {
    .name = "verify",
    .synopsis = "[--store] [--projection NAME ... | --all-projections] [--replay] [--json]",
    .summary = "Proof that store and projections are what was written, and made of it",
    .help =
        "  --store            the store, also when projections are given; alone it is the default\n"
        "  --projection NAME  this one (may be repeated), all its shards\n"
        "  --all-projections  each DIR/projections/NAME.sql\n"
        "  --replay           of those: their rows too, beside those that the definition makes of\n"
        "                     the log in a scratch file below TMPDIR; alone: the store and all\n"
        "                     projections\n"
        "  --json             one object\n\n"
        "Of the store: each record's checksum, ids without a gap, transactions and times in order, "
        "the\n"
        "hash chain, values in their canonical encoding, request ids, redo, and the pages of the "
        "file.\n"
        "A projection keeps a count and a rolling hash of the events that it applied, skipped or "
        "put\n"
        "aside, in the transaction that moves its cursor; both are made again from the log. "
        "Everything\n"
        "may run meanwhile. Exit code 1: the store has findings, each is told; 4: a projection has "
        "not\n"
        "handled each event from 1 to its cursor once, in order, or has other rows.\n\n"
        "  azoth verify\n"
        "  azoth verify --replay\n"
        "  azoth verify --projection accounts --replay\n",
    .run = run_verify,
};
