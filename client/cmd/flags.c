/* flags.c - the flags and words of a command's line. */
#include "client/cmd/cmd.h"

#include "core/clock.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static int parse_number(const char *text, uint64_t *ret)
{
    if (!isdigit((unsigned char)*text))
        return 0;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || *end)
        return 0;
    *ret = n;
    return 1;
}

/* Seconds with an optional unit, as milliseconds. */
static int parse_seconds(const char *text, uint64_t *ret)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"", 1e3}, {"ms", 1}, {"s", 1e3}, {"min", 6e4}, {"h", 3.6e6}};
    if (!isdigit((unsigned char)*text))
        return 0;
    char *end;
    double n = strtod(text, &end);
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0 && n * units[i].ms < 1e15) {
            *ret = (uint64_t)(n * units[i].ms + 0.5);
            return 1;
        }
    return 0;
}

static int store_value(const struct cmd_line *l, const struct cmd_flag *f, const char *value)
{
    struct cmd_number *number = f->ret;
    struct cmd_list *list = f->ret;
    switch (f->kind) {
    case FLAG_TEXT:
        *(const char **)f->ret = value;
        return 0;
    case FLAG_LIST:
        if (list->n == (int)CMD_WORDS_MAX)
            return cmd_usage(l, "%s is given too often", f->name);
        list->text[list->n++] = value;
        return 0;
    case FLAG_SECONDS:
    case FLAG_MAYBE_SECONDS:
        if (!parse_seconds(value, &number->n))
            return cmd_usage(l, "%s: %s is no time; 10, 1.5s, 500ms, 3min are", f->name, value);
        break;
    case FLAG_SIZE:
        if (!config_parse_size(value, &number->n))
            return cmd_usage(l, "%s: %s is no size; 65536, 64K, 16M, 1G are", f->name, value);
        break;
    default:
        if (!parse_number(value, &number->n))
            return cmd_usage(l, "%s: %s is no number", f->name, value);
        break;
    }
    number->given = number->has = 1;
    return 0;
}

/* One flag at argv[*i]; *i is left on the next argument. */
static int take_flag(struct cmd_line *l, const struct cmd_flag *f, int *i)
{
    const char *eq = strchr(l->argv[*i], '=');
    const char *value = eq ? eq + 1 : NULL;
    uint64_t unused;
    ++*i;
    if (f->kind == FLAG_SWITCH) {
        if (value)
            return cmd_usage(l, "%s takes no value", f->name);
        *(int *)f->ret = 1;
        return 0;
    }
    if ((f->kind == FLAG_MAYBE || f->kind == FLAG_MAYBE_SECONDS) && !value) {
        ((struct cmd_number *)f->ret)->given = 1;
        int (*parse)(const char *, uint64_t *) =
            f->kind == FLAG_MAYBE ? parse_number : parse_seconds;
        if (*i >= l->argc || !parse(l->argv[*i], &unused))
            return 0;
    }
    if (!value && *i >= l->argc)
        return cmd_usage(l, "%s needs a value", f->name);
    if (!value)
        value = l->argv[(*i)++];
    return store_value(l, f, value);
}

static const struct cmd_flag *find_flag(const struct cmd_flag *flags, const char *arg)
{
    size_t n = strcspn(arg, "=");
    for (; flags && flags->name; flags++)
        if (strlen(flags->name) == n && strncmp(flags->name, arg, n) == 0)
            return flags;
    return NULL;
}

int cmd_flags(struct cmd_line *l, const struct cmd_flag *flags, int least, int most)
{
    const struct cmd_flag common[] = {
        {"--dir", FLAG_TEXT, &l->dir}, {"--json", FLAG_SWITCH, &l->json}, {NULL, 0, NULL}};
    struct azoth_error err;
    int words_only = 0;
    for (int i = 0; i < l->argc;) {
        char *arg = l->argv[i];
        if (words_only || arg[0] != '-' || arg[1] == 0) {
            if (l->words >= most || l->words >= (int)CMD_WORDS_MAX)
                return cmd_usage(l, "what is %s for?", arg);
            l->word[l->words++] = arg;
            i++;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            words_only = 1;
            i++;
            continue;
        }
        const struct cmd_flag *f = find_flag(flags, arg);
        if (!f)
            f = find_flag(common, arg);
        if (f) {
            int rc = take_flag(l, f, &i);
            if (rc)
                return rc;
            continue;
        }
        int rc = l->config ? config_flag(l->config, l->argc, l->argv, &i, &err) : 0;
        if (rc < 0)
            return cmd_fail(&err);
        if (rc == 0)
            return cmd_usage(l, "there is no flag %s", arg);
    }
    if (l->words < least)
        return cmd_usage(l, "the form is azoth %s %s", l->cmd->name, l->cmd->synopsis);
    return 0;
}

int cmd_flag_given(const struct cmd_flag *f)
{
    switch (f->kind) {
    case FLAG_SWITCH:
        return *(const int *)f->ret;
    case FLAG_TEXT:
        return *(const char *const *)f->ret != NULL;
    case FLAG_LIST:
        return ((const struct cmd_list *)f->ret)->n > 0;
    default:
        return ((const struct cmd_number *)f->ret)->given;
    }
}

int cmd_config(const char *dir, const struct config *flagged, struct config *c,
               struct azoth_error *err)
{
    int rc = config_load(c, dir, err);
    for (int k = 0; !rc && flagged && k < CONFIG_KEYS; k++)
        if (flagged->source[k] == 3)
            rc = config_set(c, (enum config_key)k, flagged->text[k], 3, err);
    return rc;
}
