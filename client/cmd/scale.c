/*
 * scale.c - azoth scale: how many workers, effects workers or shards run, where systemd supervises them.
 *
 * The units that shall be there are enabled and, when the database runs, started, then those of the same kind
 * beyond them are stopped and disabled; systemctl does it. Present are those that systemd knows and those that
 * are enabled. Workers with a name instead of a number are not touched.
 */
#include "client/cmd/cmd.h"
#include "client/cmd/systemctl.h"

#include "core/dbdir.h"
#include "projector/split.h"
#include "projector/sqlfile.h"

#include <errno.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define SCALE_MAX     64u
#define UNITS_MAX     (2 * SCALE_MAX)
#define UNIT_NAME_MAX 256
#define MEMBERS       "/etc/systemd/system/azoth-members.target.wants"

struct unit_name {
    char text[UNIT_NAME_MAX];
};

struct scale {
    char database[AZOTH_NAME_MAX + 1];
    char stem[UNIT_NAME_MAX]; /* "azoth-worker@main:": what the units' names begin with */
    struct unit_name want[SCALE_MAX], present[UNITS_MAX];
    int wants, presents;
    int dry_run, booted; /* booted: systemd runs here */
};

/* ---- systemctl ---- */

/* Its exit status; or an exit code of ours after the failure was told, as *ret_code. */
static int systemctl(char *const argv[], struct buf *out, int *ret_code)
{
    struct azoth_error err;
    int status = 0;
    *ret_code = systemctl_run(argv, out, 0, &status, &err) ? cmd_fail(&err) : 0;
    return *ret_code ? *ret_code : status;
}

/* Prints it, and runs it unless that is all: 0 or an exit code. */
static int act(const struct scale *s, char *const argv[])
{
    int code = 0;
    for (int i = 0; argv[i]; i++)
        printf("%s%s", i ? " " : "", argv[i]);
    putchar('\n');
    fflush(stdout);
    if (s->dry_run)
        return 0;
    int status = systemctl(argv, NULL, &code);
    if (!code && status)
        code =
            cmd_fail_code(AZOTH_ERR_IO, "systemctl %s failed with exit status %d", argv[1], status);
    return code;
}

/* systemctl VERB [--now] UNIT... */
static int act_on(const struct scale *s, char *verb, int now, const struct unit_name *unit, int n)
{
    static char *argv[UNITS_MAX + 4];
    int at = 0;
    if (n == 0)
        return 0;
    argv[at++] = "systemctl";
    argv[at++] = verb;
    if (now)
        argv[at++] = "--now";
    for (int i = 0; i < n; i++)
        argv[at++] = (char *)unit[i].text;
    argv[at] = NULL;
    return act(s, argv);
}

/* ---- which units there are ---- */

static int among(const struct unit_name *list, int n, const char *text)
{
    for (int i = 0; i < n; i++)
        if (strcmp(list[i].text, text) == 0)
            return 1;
    return 0;
}

/* "3", and of shards nothing, or "0-4". A worker called "2-b" or "1-2" is somebody's own. */
static int is_ours(const struct scale *s, const char *unit)
{
    size_t stem = strlen(s->stem), n = strlen(unit);
    const char *end = unit + n - strlen(".service");
    if (n <= strlen(".service") || strcmp(end, ".service") != 0 ||
        strncmp(unit, s->stem, stem) != 0 || unit + stem > end)
        return 0;
    const char *rest = unit + stem;
    if (rest == end)
        return s->stem[stem - 1] != ':';
    int sharded = s->stem[stem - 1] != ':';
    if (sharded && *rest++ != ':')
        return 0;
    return strspn(rest, sharded ? "0123456789-" : "0123456789") == (size_t)(end - rest);
}

static void add_present(struct scale *s, const char *unit)
{
    if (is_ours(s, unit) && s->presents < (int)UNITS_MAX && strlen(unit) < UNIT_NAME_MAX &&
        !among(s->present, s->presents, unit))
        snprintf(s->present[s->presents++].text, UNIT_NAME_MAX, "%s", unit);
}

/* Those that systemd has loaded, and those that are enabled, which it need not have. */
static int find_present(struct scale *s)
{
    char pattern[UNIT_NAME_MAX + 4];
    snprintf(pattern, sizeof pattern, "%s*", s->stem);
    char *argv[] = {"systemctl", "list-units", "--all", "--plain", "--no-legend", pattern, NULL};
    struct buf out = {0};
    int code = 0;
    int status = s->booted ? systemctl(argv, &out, &code) : 0;
    if (!code && status)
        code =
            cmd_fail_code(AZOTH_ERR_IO, "systemctl %s failed with exit status %d", argv[1], status);
    if (!code && out.len && buf_add(&out, "", 1) == 0) {
        char *save = NULL, *line = strtok_r((char *)out.ptr, "\n", &save);
        for (; line; line = strtok_r(NULL, "\n", &save)) {
            line[strcspn(line, " ")] = 0;
            add_present(s, line);
        }
    }
    buf_fini(&out);
    DIR *d = opendir(MEMBERS);
    struct dirent *e;
    while (d && (e = readdir(d)))
        add_present(s, e->d_name);
    if (d)
        closedir(d);
    return code;
}

static int runs(const struct scale *s)
{
    char target[UNIT_NAME_MAX];
    snprintf(target, sizeof target, "azoth@%s.target", s->database);
    char *argv[] = {"systemctl", "is-active", "--quiet", target, NULL};
    int code;
    return s->booted && systemctl(argv, NULL, &code) == 0 && code == 0;
}

/* First those that come, so that somebody serves all the time. */
static int apply(struct scale *s)
{
    struct unit_name gone[UNITS_MAX];
    int n = 0, code = find_present(s);
    if (code)
        return code;
    for (int i = 0; i < s->presents; i++)
        if (!among(s->want, s->wants, s->present[i].text))
            gone[n++] = s->present[i];
    code = act_on(s, "enable", runs(s), s->want, s->wants);
    return code ? code : act_on(s, "disable", 1, gone, n);
}

/* ---- what is asked for ---- */

static int find_database(struct cmd_line *l, const char *instance, struct scale *s)
{
    static const char home[] = "/var/lib/azoth/";
    char dir[4096];
    if (!instance) {
        int rc = cmd_dir(l, NULL, 0, dir, sizeof dir);
        if (rc)
            return rc;
        for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
            dir[n - 1] = 0;
        instance = strncmp(dir, home, strlen(home)) == 0 ? dir + strlen(home) : dir;
    }
    if (!dbdir_name_valid(instance))
        return cmd_usage(l, "%s is no database of the units: --instance NAME is that of %sNAME",
                         instance, home);
    snprintf(s->database, sizeof s->database, "%s", instance);
    return 0;
}

static int take_count(const struct cmd_line *l, const char *word, uint32_t *ret)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(word, &end, 10);
    if (word[0] < '0' || word[0] > '9' || *end || errno || n > SCALE_MAX)
        return cmd_usage(l, "%s: a number from 0 to %u is wanted", word, SCALE_MAX);
    *ret = (uint32_t)n;
    return 0;
}

static int want_numbered(struct cmd_line *l, struct scale *s, const char *word)
{
    uint32_t n = 0;
    int rc = take_count(l, word, &n);
    for (uint32_t i = 1; !rc && i <= n; i++)
        snprintf(s->want[s->wants++].text, UNIT_NAME_MAX, "%.200s%u.service", s->stem, i);
    return rc;
}

/* As many shards as the definition says: another number is another set of files, which a rebuild makes. */
static int shards_of(struct cmd_line *l, const struct scale *s, const char *name, uint32_t *ret)
{
    char path[4200];
    struct sqlfile def = {0};
    struct azoth_error err;
    uint32_t asked = 1;
    snprintf(path, sizeof path, "/var/lib/azoth/%s/projections/%s.sql", s->database, name);
    int rc = l->words > 2 ? take_count(l, l->word[2], &asked) : 0;
    *ret = asked;
    if (!rc && asked > SPLIT_MAX)
        rc = cmd_usage(l, "a projection has %u shards at most", SPLIT_MAX);
    if (rc || asked == 0)
        return rc;
    if (sqlfile_read(path, &def, &err))
        return cmd_fail(&err);
    uint32_t says = def.shards;
    sqlfile_fini(&def);
    *ret = says ? says : asked;
    if (l->words > 2 && says && says != asked)
        return cmd_fail_code(
            AZOTH_ERR_PROJECTION,
            "%s says %u shards: change it there, and azoth projection rebuild %s fills "
            "the new files beside the old",
            path, says, name);
    return 0;
}

static int want_shards(struct cmd_line *l, struct scale *s, const char *name)
{
    uint32_t n = 0;
    int rc = shards_of(l, s, name, &n);
    if (!rc && n == 1)
        snprintf(s->want[s->wants++].text, UNIT_NAME_MAX, "%.200s.service", s->stem);
    for (uint32_t i = 0; !rc && n > 1 && i < n; i++)
        snprintf(s->want[s->wants++].text, UNIT_NAME_MAX, "%.200s:%u-%u.service", s->stem, i, n);
    return rc;
}

/* Units may be enabled before there is a database. A name that was mistyped looks the same. */
static void note_unknown(const char *database)
{
    char dir[4096];
    snprintf(dir, sizeof dir, "/var/lib/azoth/%s", database);
    if (access(dir, F_OK) && errno == ENOENT)
        fprintf(stderr, "azoth: there is no %s yet: azoth-writer@%s makes it when it starts\n", dir,
                database);
}

static int run_scale(struct cmd_line *l)
{
    static struct scale s;
    const char *instance = NULL;
    const struct cmd_flag flags[] = {{"--instance", FLAG_TEXT, &instance},
                                     {"--dry-run", FLAG_SWITCH, &s.dry_run},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 2, 3);
    if (!rc)
        rc = find_database(l, instance, &s);
    if (rc)
        return rc;
    const char *what = l->word[0], *name = l->word[1];
    int of_projection = strcmp(what, "projector") == 0 || strcmp(what, "effects") == 0;
    if (of_projection && !dbdir_name_valid(name))
        return cmd_usage(l, "%s is no name of a projection", name);
    if (strcmp(what, "workers") == 0 && l->words == 2) {
        snprintf(s.stem, sizeof s.stem, "azoth-worker@%s:", s.database);
        rc = want_numbered(l, &s, name);
    } else if (strcmp(what, "effects") == 0 && l->words == 3) {
        snprintf(s.stem, sizeof s.stem, "azoth-effects@%s:%s:", s.database, name);
        rc = want_numbered(l, &s, l->word[2]);
    } else if (strcmp(what, "projector") == 0) {
        snprintf(s.stem, sizeof s.stem, "azoth-projector@%s:%s", s.database, name);
        rc = want_shards(l, &s, name);
    } else {
        return cmd_usage(l, "the form is azoth scale %s", l->cmd->synopsis);
    }
    if (!rc)
        note_unknown(s.database);
    s.booted = sd_booted() > 0;
    if (!rc && !s.booted && !s.dry_run)
        rc = cmd_fail_code(AZOTH_ERR_UNSUPPORTED,
                           "systemd does not run here: azoth run --workers N starts so many");
    return rc ? rc : apply(&s);
}

const struct cmd cmd_scale = {
    .name = "scale",
    .synopsis = "workers N | effects NAME N | projector NAME [K] [--instance DB] [--dry-run]",
    .summary = "How many workers or shards systemd runs",
    .help = "  workers N          azoth-worker@DB:1 to N\n"
            "  effects NAME N     azoth-effects@DB:NAME:1 to N\n"
            "  projector NAME     azoth-projector@DB:NAME, or one for each shard that its "
            "definition says;\n"
            "                     K: where it says none; 0: none runs\n"
            "  --instance DB      the database /var/lib/azoth/DB; default: the name in --dir or "
            "AZOTH_DIR\n"
            "  --dry-run          only print the commands\n\n"
            "Enables units and, when the database runs, starts them; stops and disables those "
            "beyond. They\n"
            "start and stop with azoth@DB.target from then on. Workers with names, not numbers, "
            "are left\n"
            "alone. Without systemd: azoth run --workers N.\n\n"
            "  azoth scale workers 4 --instance main\n"
            "  azoth scale projector accounts --instance main\n",
    .run = run_scale,
};
