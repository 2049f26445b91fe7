/* projection.c - azoth projection: definitions written and checked, migrations shown, tried, applied, undone. */
#include "client/cmd/check.h"
#include "client/cmd/rebuild.h"
#include "client/cmd/try.h"
#include "core/dbdir.h"
#include "core/io.h"
#include "projector/migrate.h"
#include "projector/target.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- new ---- */

static const char example[] =
    "-- azoth: projection %s\n"
    "--\n"
    "-- Lines that begin with `-- azoth:` are marks; other comments are yours. Check the file "
    "with\n"
    "--     azoth projection check FILE\n"
    "-- and look at what is projected with\n"
    "--     azoth query %s 'SELECT * FROM %s'\n"
    "\n"
    "-- Tables are made by migrations. One that was applied is never changed: add another.\n"
    "-- azoth: migration 1 create the table\n"
    "CREATE TABLE %s (key TEXT PRIMARY KEY, events INTEGER NOT NULL, last_event INTEGER NOT "
    "NULL);\n"
    "-- azoth: undo\n"
    "DROP TABLE %s;\n"
    "\n"
    "-- A handler is run for each event of its types, in the order of the events. :name is a field "
    "of\n"
    "-- the payload's JSON; @id @type @time @txn @key @payload are the event's own.\n"
    "-- azoth: on example\n"
    "INSERT INTO %s VALUES (@key, 1, @id)\n"
    "  ON CONFLICT (key) DO UPDATE SET events = events + 1, last_event = excluded.last_event;\n";

/* A name as SQL takes it for a table's: '-' is no part of one. */
static void table_name(const char *name, char out[AZOTH_NAME_MAX + 1])
{
    snprintf(out, AZOTH_NAME_MAX + 1, "%s", name);
    for (char *p = out; *p; p++)
        if (*p == '-')
            *p = '_';
}

static int run_new(struct cmd_line *l, const char *dir, const char *name)
{
    char path[4300], table[AZOTH_NAME_MAX + 1];
    struct azoth_error err = {0};
    struct buf text = {0};
    table_name(name, table);
    snprintf(path, sizeof path, "%s/%s.sql", dir, name);
    int code = dbdir_make(dir, 0770, &err);
    if (!code && buf_addf(&text, example, name, name, table, table, table, table))
        code = error_set(&err, AZOTH_ERR_NOMEM, "%s", path);
    int fd = code ? -1 : open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0660);
    if (!code && fd < 0)
        code = errno == EEXIST ? error_set(&err, AZOTH_ERR_DUPLICATE, "%s is there already", path)
                               : error_errno(&err, errno, "%s", path);
    if (!code)
        code = io_write_all(fd, text.ptr, text.len, path, &err);
    if (fd >= 0 && close(fd) && !code)
        code = error_errno(&err, errno, "%s", path);
    buf_fini(&text);
    if (code)
        return cmd_fail(&err);
    if (!l->json)
        printf("%s\n", path);
    return 0;
}

/* ---- migrations ---- */

struct telling {
    const char *what;
    int json, n;
    struct json_text j;
};

static void tell_migration(void *arg, uint32_t shard, uint32_t shards,
                           const struct sql_migration *m)
{
    struct telling *t = arg;
    t->n++;
    if (!t->json) {
        if (shards > 1)
            printf("shard %u/%u: ", shard, shards);
        printf("%s migration %u %s\n", t->what, m->version, m->title);
        return;
    }
    out_open(&t->j, NULL, '{');
    out_u64(&t->j, "version", m->version);
    if (shards > 1)
        out_u64(&t->j, "shard", shard);
    out_str(&t->j, "title", m->title);
    out_close(&t->j, '}');
}

static int finish_telling(struct telling *t, int code, const struct azoth_error *err,
                          const char *nothing)
{
    if (t->json) {
        out_close(&t->j, ']');
        out_bool(&t->j, "ok", code == 0);
        if (code) {
            out_str(&t->j, "error", azoth_code_name(code));
            out_str(&t->j, "message", err->message);
        }
        out_close(&t->j, '}');
        out_print(&t->j);
    } else if (!code && t->n == 0) {
        puts(nothing);
    }
    return code ? cmd_fail(err) : 0;
}

static int run_migrations(struct cmd_line *l, const char *dir, const char *name, const char *verb,
                          uint64_t to)
{
    char path[4300];
    struct sqlfile def;
    struct azoth_error err = {0};
    int dry = strcmp(verb, "plan") == 0, back = strcmp(verb, "rollback") == 0;
    struct telling t = {.what = dry    ? "would apply"
                                : back ? "undone:"
                                       : "applied",
                        .json = l->json};
    snprintf(path, sizeof path, "%s/%s.sql", dir, name);
    int code = sqlfile_read(path, &def, &err);
    if (code)
        return cmd_fail(&err);
    if (strcmp(def.name, name) != 0) {
        error_set(&err, AZOTH_ERR_PROJECTION, "%s defines projection %s, not %s", path, def.name,
                  name);
        sqlfile_fini(&def);
        return cmd_fail(&err);
    }
    if (t.json) {
        out_open(&t.j, NULL, '{');
        out_open(&t.j, dry ? "pending" : back ? "undone" : "applied", '[');
    }
    code = back ? projection_rollback(&def, dir, to, tell_migration, &t, &err)
                : projection_migrate(&def, dir, dry, tell_migration, &t, &err);
    if (!code && back && !t.json)
        printf("the rows are not those of the handlers any more: %s%s makes them\n"
               "anew, or the projector goes on with --accept-changed\n",
               def.target == TARGET_POSTGRESQL ? "dropping the schema of "
                                               : "azoth projection rebuild ",
               name);
    int rc = finish_telling(&t, code, &err, "nothing is pending");
    sqlfile_fini(&def);
    return rc;
}

static const char history_sql[] =
    "SELECT version, title, strftime('%Y-%m-%dT%H:%M:%SZ', applied_at / 1000000000, 'unixepoch')"
    " AS applied, printf('%016x', checksum) AS checksum FROM azoth_migrations GROUP BY version "
    "ORDER BY version";

static const char history_of_server[] =
    "SELECT version, title, to_char(to_timestamp(applied_at / 1000000000) AT TIME ZONE 'UTC',"
    " 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS applied, lpad(to_hex(checksum), 16, '0') AS checksum"
    " FROM azoth_migrations ORDER BY version";

static int run_history(const struct cmd_line *l, const char *dir, const char *name)
{
    char conninfo[SQLFILE_CONNINFO_MAX + 1];
    struct azoth_error err = {0};
    int server = target_is_server(dir, name, conninfo, &err);
    if (server < 0)
        return cmd_fail(&err);
    return cmd_query_print(dir, name, server ? history_of_server : history_sql, l->json);
}

struct flags {
    struct check_flags check; /* its --load is try's as well */
    struct try_options trial; /* its --to is rollback's as well */
    struct cmd_number generation;
    struct rebuild_flags rebuild;
};

/* The flags of one verb are not for another. */
static int misplaced(struct cmd_line *l, const struct flags *f, const char *verb)
{
    int rebuilds = strcmp(verb, "rebuild") == 0, back = strcmp(verb, "rollback") == 0,
        prunes = strcmp(verb, "prune") == 0, checks = strcmp(verb, "check") == 0,
        tries = strcmp(verb, "try") == 0;
    if (f->trial.to.given && !back && !tries)
        return cmd_usage(l, "--to is of rollback and try");
    if (f->generation.given && !back)
        return cmd_usage(l, "--generation is of rollback");
    if (f->generation.has && !f->generation.n)
        return cmd_usage(l, "--generation is a number from 1");
    if ((f->check.against_log || f->check.events.given || f->check.target) && !checks)
        return cmd_usage(l, "--against-log, --events and --target are of check");
    if ((f->trial.from.given || f->trial.rows.given || f->trial.keep || f->trial.strict ||
         f->trial.diff) &&
        !tries)
        return cmd_usage(l, "--from, --rows, --keep, --strict and --diff are of try");
    if (f->trial.to.given && f->generation.given)
        return cmd_usage(l, "--to is a migration's version: --generation goes back to other files");
    if ((f->rebuild.abort || f->rebuild.quiet || f->rebuild.shards.given) && !rebuilds)
        return cmd_usage(l, "--abort, --quiet and --shards are of rebuild");
    if (f->rebuild.abort && f->rebuild.shards.given)
        return cmd_usage(l, "--abort removes what was being built of all shards");
    if (f->rebuild.timeout.given && !rebuilds && !prunes && !f->generation.given)
        return cmd_usage(l, "--timeout is of what asks the projector");
    if (f->rebuild.timeout.n > 3600000)
        return cmd_usage(l, "--timeout is at most an hour");
    if (f->check.load && !checks && !tries)
        return cmd_usage(l, "--load is of check and try");
    return 0;
}

/* Of one projection, in the directory of the projections. */
static int run_named(struct cmd_line *l, const struct flags *f, const char *dir)
{
    const char *verb = l->word[0], *name = l->word[1];
    if (strcmp(verb, "new") == 0)
        return run_new(l, dir, name);
    if (strcmp(verb, "history") == 0)
        return run_history(l, dir, name);
    if (strcmp(verb, "rebuild") == 0)
        return rebuild_run(l, dir, name, &f->rebuild);
    if (strcmp(verb, "generations") == 0)
        return generations_list(l, dir, name);
    if (strcmp(verb, "prune") == 0)
        return generations_prune(l, dir, name, f->rebuild.timeout.n);
    if (f->generation.given)
        return generations_back(l, dir, name, &f->generation, f->rebuild.timeout.n);
    return run_migrations(l, dir, name, verb, f->trial.to.given ? f->trial.to.n : MIGRATE_ONE_BACK);
}

static int run_projection(struct cmd_line *l)
{
    static const char *const verbs[] = {"new",      "history", "plan",        "migrate",
                                        "rollback", "rebuild", "generations", "prune"};
    char dir[4200];
    struct flags f = {.rebuild = {.timeout = {.n = 30000}}};
    const struct cmd_flag flags[] = {{"--load", FLAG_TEXT, &f.check.load},
                                     {"--to", FLAG_NUMBER, &f.trial.to},
                                     {"--generation", FLAG_MAYBE, &f.generation},
                                     {"--target", FLAG_SWITCH, &f.check.target},
                                     {"--against-log", FLAG_SWITCH, &f.check.against_log},
                                     {"--events", FLAG_NUMBER, &f.check.events},
                                     {"--from", FLAG_NUMBER, &f.trial.from},
                                     {"--rows", FLAG_NUMBER, &f.trial.rows},
                                     {"--keep", FLAG_TEXT, &f.trial.keep},
                                     {"--strict", FLAG_SWITCH, &f.trial.strict},
                                     {"--diff", FLAG_SWITCH, &f.trial.diff},
                                     {"--abort", FLAG_SWITCH, &f.rebuild.abort},
                                     {"--quiet", FLAG_SWITCH, &f.rebuild.quiet},
                                     {"--shards", FLAG_NUMBER, &f.rebuild.shards},
                                     {"--timeout", FLAG_SECONDS, &f.rebuild.timeout},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 1, CMD_WORDS_MAX), known = 0;
    if (!rc)
        rc = misplaced(l, &f, l->word[0]);
    if (rc)
        return rc;
    if (strcmp(l->word[0], "check") == 0)
        return cmd_projection_check(l, &f.check);
    f.trial.load = f.check.load;
    if (strcmp(l->word[0], "try") == 0)
        return cmd_projection_try(l, &f.trial);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        known |= strcmp(l->word[0], verbs[i]) == 0;
    if (!known)
        return cmd_usage(l, "there is no projection %s", l->word[0]);
    if (l->words != 2)
        return cmd_usage(l, "%s takes the name of one projection", l->word[0]);
    rc = cmd_projections(l, l->word[1], dir, sizeof dir);
    return rc ? rc : run_named(l, &f, dir);
}

const struct cmd cmd_projection = {
    .name = "projection",
    .synopsis = "check FILE ... [--load FILE.so] [--target] [--against-log [--events N]] | try "
                "FILE [--from "
                "A] [--to B] | new NAME | history NAME | plan NAME | migrate NAME | "
                "rollback NAME [--to VERSION | --generation [N]] | "
                "rebuild NAME [--shards K] [--quiet] [--abort] | generations NAME | prune NAME  "
                "[--timeout TIME] [--json]",
    .summary = "Projections: write and check definitions, migrate, rebuild",
    .help =
        "  check FILE ...  apply the migrations to an empty database in memory and prepare every\n"
        "                  handler; what is wrong is told with file, line and column, exit code 1\n"
        "  --against-log   of check: look also whether events have the fields that are read. A "
        "field\n"
        "                  that no event of its type has is an error, one that some have a "
        "warning\n"
        "  --events N      of --against-log: the newest N of each type (default 1000); 0: all\n"
        "  --target        of check: ask the server of a file with the target postgresql, in a\n"
        "                  transaction that is taken back; without it marks and parameters are "
        "checked\n"
        "  --load FILE.so  of check and try: load the library of handlers in C, too, which runs "
        "its code\n"
        "  try FILE        run the definition over the log into a scratch file: rates, failures, "
        "and\n"
        "                  the rows that differ from those of the live projection of its name; "
        "exit\n"
        "                  code 1 when an event would stop it\n"
        "  --from A --to B of try: these events; default all. From above 1: begun with empty "
        "tables\n"
        "  --rows N        of try: differing rows told of each table; default 10\n"
        "  --diff          of try: compare although both are not at the same event\n"
        "  --strict        of try: stop where the projection would\n"
        "  --keep PATH     of try: keep the scratch file there\n"
        "  new NAME        write a commented definition to begin with, DIR/projections/NAME.sql\n"
        "  history NAME    the migrations that were applied, when, and their checksums\n"
        "  plan NAME       try what is pending in a transaction that is taken back\n"
        "  migrate NAME    apply what is pending now (the projector does it when it starts)\n"
        "  rollback NAME   undo the newest migration\n"
        "  --to VERSION    of rollback: undo all above this one, the newest first; 0: all\n\n"
        "plan, migrate and rollback want the projector to be stopped. Each migration is one\n"
        "transaction with its row of history. After a rollback the rows are not those of the\n"
        "handlers any more: the projector refuses to go on until it is told to.\n\n"
        "  rebuild NAME    make the rows anew from event 1 in a file beside the one that serves, "
        "which\n"
        "                  then takes its place; one that was interrupted goes on where it was\n"
        "  --shards K      of rebuild: in so many files (without: as the definition says, or as "
        "now)\n"
        "  --quiet         of rebuild: no progress\n"
        "  --abort         of rebuild: remove what an interrupted one has built\n"
        "  generations NAME  the files that serve and served, their cursors, whose handlers made "
        "them\n"
        "  rollback NAME --generation [N]\n"
        "                  generation N, or the one before, serves again and is followed from its "
        "cursor\n"
        "  prune NAME      remove the generations that do not serve\n"
        "  --timeout TIME  for the projector to answer; default 30 s\n\n"
        "These four work while the projector runs, and when none does. A reader that has the old "
        "file\n"
        "open goes on reading it; a query behind the rebuild finds the new one.\n\n"
        "  azoth projection check projections/*.sql --against-log\n"
        "  azoth projection try accounts-new.sql --rows 3\n"
        "  azoth projection plan accounts && azoth projection migrate accounts\n",
    .run = run_projection,
};
