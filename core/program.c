#include "core/program.h"

#include "core/dbdir.h"
#include "core/error.h"
#include "core/log.h"

#include <malloc.h>
#include <string.h>
#include <sys/stat.h>

int program_help(int argc, char **argv, const char *name, const char *usage)
{
    for (int i = 1; i < argc; i++) {
        int help = strcmp(argv[i], "--help") == 0;
        if (help)
            fputs(usage, stdout);
        else if (strcmp(argv[i], "--version") == 0)
            printf("%s %s\n", name, AZOTH_VERSION);
        else
            continue;
        return 1;
    }
    return 0;
}

/* Takes --NAME VALUE or --NAME=VALUE: 1 and *ret, advancing *i; 0, or USAGE when the value is missing. */
static int text_flag(const char *name, int argc, char **argv, int *i, const char **ret,
                     struct azoth_error *err)
{
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0)
        return 0;
    if (argv[*i][n] == '=') {
        *ret = argv[(*i)++] + n + 1;
        return 1;
    }
    if (argv[*i][n])
        return 0;
    if (*i + 1 >= argc)
        return error_set(err, AZOTH_ERR_USAGE, "%s needs a value", name);
    *ret = argv[*i + 1];
    *i += 2;
    return 1;
}

int program_place_flag(int argc, char **argv, int *i, const char **dir, const char **instance,
                       struct azoth_error *err)
{
    int got = text_flag("--dir", argc, argv, i, dir, err);
    return got ? got : text_flag("--instance", argc, argv, i, instance, err);
}

/* First pass: where the database is, since its file comes before the flags. */
static int locate(struct program *p, int argc, char **argv, struct azoth_error *err)
{
    const char *dir = NULL, *instance = NULL;
    for (int i = 1; i < argc;) {
        int got = program_place_flag(argc, argv, &i, &dir, &instance, err);
        if (got < 0)
            return got;
        i += got == 0;
    }
    if (instance)
        return dbdir_instance(instance, p->dir, sizeof p->dir, p->run_dir, sizeof p->run_dir,
                              p->instance_name, sizeof p->instance_name, err);
    return dbdir_resolve(dir, p->dir, sizeof p->dir, err);
}

static int take_name(struct program *p, int argc, char **argv, int *i, struct azoth_error *err)
{
    const char *name = NULL;
    int got = text_flag("--name", argc, argv, i, &name, err);
    if (got < 0)
        return got;
    if (got == 0) {
        if (argv[*i][0] == '-')
            return error_set(err, AZOTH_ERR_USAGE, "%s: no such option (%s --help)", argv[*i],
                             p->name);
        name = argv[(*i)++];
    }
    if (p->instance_name[0])
        return error_set(err, AZOTH_ERR_USAGE, "%s: the name is %s already", name,
                         p->instance_name);
    if (strlen(name) > (p->parts ? 2 * AZOTH_NAME_MAX + 1 : AZOTH_NAME_MAX))
        return error_set(err, AZOTH_ERR_USAGE, "%s: the name is too long", name);
    snprintf(p->instance_name, sizeof p->instance_name, "%s", name);
    return 0;
}

static int take_level(const struct config *c, int *ret, struct azoth_error *err)
{
    const char *text = c->text[CONFIG_log_level];
    return log_level_parse(text, ret)
               ? error_set(err, AZOTH_ERR_CONFIG,
                           "log.level: %s is none of err, warning, notice, info, debug", text)
               : 0;
}

/* The settings from all their sources, into p->config. */
static int settings(struct program *p, struct azoth_error *err)
{
    int argc = p->argc;
    char **argv = p->argv;
    int rc = config_load(&p->config, p->dir, err), level;
    for (int i = 1; i < argc && !rc;) {
        const char *text;
        int got = program_place_flag(argc, argv, &i, &text, &text, err);
        if (got > 0)
            continue;
        if (got == 0)
            got = p->flag ? p->flag(p->arg, argc, argv, &i, err) : 0;
        if (got == 0)
            got = config_flag(&p->config, argc, argv, &i, err);
        if (got < 0)
            rc = got;
        else if (got == 0)
            rc = take_name(p, argc, argv, &i, err);
    }
    if (!rc)
        rc = take_level(&p->config, &level, err);
    if (!rc)
        log_set_level(level);
    return rc;
}

int program_parse(struct program *p, int argc, char **argv, struct azoth_error *err)
{
    umask(0007);
    log_init(p->name, LOG_LEVEL_INFO);
    p->argc = argc;
    p->argv = argv;
    int rc = locate(p, argc, argv, err);
    if (!rc && p->run_dir[0])
        umask(0002);
    if (!rc)
        rc = settings(p, err);
    if (!rc && !p->parts && strchr(p->instance_name, ':'))
        rc = error_set(err, AZOTH_ERR_USAGE, "%s: a name without a colon is wanted",
                       p->instance_name);
    if (rc)
        return rc;
    if (p->looks_only)
        return 0;
    struct stat st;
    if (stat(p->dir, &st))
        return error_set(err, AZOTH_ERR_NO_DATABASE, "%s: no such directory", p->dir);
    if (p->config.text[CONFIG_run_dir][0])
        snprintf(p->run_dir, sizeof p->run_dir, "%s", p->config.text[CONFIG_run_dir]);
    else if (!p->run_dir[0])
        snprintf(p->run_dir, sizeof p->run_dir, "%.4000s/run", p->dir);
    return dbdir_make(p->run_dir, 0770, err);
}

static int reload(struct config *c, const char *dir, int argc, char **argv, struct azoth_error *err)
{
    struct config fresh;
    int rc = config_load(&fresh, dir, err), level;
    /* Flags that are no settings are as they were when the program began, and in use. */
    for (int i = 1; i < argc && !rc;) {
        int got = config_flag(&fresh, argc, argv, &i, err);
        if (got < 0)
            rc = got;
        else if (got == 0)
            i++;
    }
    if (!rc)
        rc = take_level(&fresh, &level, err);
    if (rc)
        return rc;
    *c = fresh;
    /* Said whatever the level is, and was: somebody asked for it. */
    log_set_level(LOG_LEVEL_NOTICE);
    log_line(LOG_LEVEL_NOTICE, "settings read again log_level=%s", c->text[CONFIG_log_level]);
    log_set_level(level);
    return 0;
}

int program_reload(struct config *c, const char *dir, int argc, char **argv, struct service *s)
{
    struct azoth_error err = {0};
    service_reloading(s);
    int rc = reload(c, dir, argc, argv, &err);
    if (rc)
        log_error(LOG_LEVEL_ERR, "the settings are as before", &err);
    service_reloaded(s);
    return rc == 0;
}

void program_keeps_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, 16 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
}
