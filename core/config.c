#include "core/config.h"

#include "core/error.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <string.h>

struct row {
    const char *section, *key, *def, *help;
    enum config_type type;
    uint64_t least, greatest;
};

static const struct row rows[CONFIG_KEYS] = {
#define X(section, key, type, def, lo, hi, help)                                                   \
    [CONFIG_##section##_##key] = {#section, #key, def, help, CONFIG_##type, lo, hi},
    CONFIG_TABLE(X)
#undef X
};

const char *config_key_name(enum config_key key)
{
    static char names[CONFIG_KEYS][64];
    if (!names[key][0])
        snprintf(names[key], sizeof names[key], "%s.%s", rows[key].section, rows[key].key);
    return names[key];
}

const char *config_key_help(enum config_key key)
{
    return rows[key].help;
}

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit sizes[] = {
    {"", 1}, {"K", 1u << 10}, {"M", 1u << 20}, {"G", 1u << 30}, {NULL, 0}};
static const struct unit times[] = {{"", 1},        {"ms", 1},      {"s", 1000},
                                    {"min", 60000}, {"h", 3600000}, {NULL, 0}};
static const struct unit counts[] = {{"", 1}, {NULL, 0}};

static int parse_number(const char *text, const struct unit *units, uint64_t *ret)
{
    if (!isdigit((unsigned char)*text))
        return 0;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    while (*end == ' ')
        end++;
    for (; units->name; units++)
        if (strcmp(units->name, end) == 0) {
            if (errno || n > UINT64_MAX / units->factor)
                return 0;
            *ret = n * units->factor;
            return 1;
        }
    return 0;
}

static int parse_sync(const char *text, uint64_t *ret)
{
    static const char *const modes[] = {"full", "meta-lazy", "none"};
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(text, modes[i]) == 0) {
            *ret = i;
            return 1;
        }
    return 0;
}

int config_set(struct config *c, enum config_key key, const char *value, int source,
               struct azoth_error *err)
{
    const struct row *r = &rows[key];
    uint64_t n = 0;
    int ok;
    if (strlen(value) >= sizeof c->text[key])
        return error_set(err, AZOTH_ERR_CONFIG, "%s: the value is too long", config_key_name(key));
    switch (r->type) {
    case CONFIG_COUNT:
        ok = parse_number(value, counts, &n);
        break;
    case CONFIG_SIZE:
        ok = parse_number(value, sizes, &n);
        break;
    case CONFIG_TIME:
        ok = parse_number(value, times, &n);
        break;
    case CONFIG_SYNC:
        ok = parse_sync(value, &n);
        if (!ok)
            return error_set(err, AZOTH_ERR_CONFIG, "%s: %s is none of full, meta-lazy, none",
                             config_key_name(key), value);
        break;
    default:
        ok = 1;
        break;
    }
    if (!ok)
        return error_set(err, AZOTH_ERR_CONFIG, "%s: %s is not a number with a unit that fits",
                         config_key_name(key), value);
    if (r->type != CONFIG_TEXT && r->type != CONFIG_SYNC && (n < r->least || n > r->greatest))
        return error_set(err, AZOTH_ERR_CONFIG, "%s: %s is not within %llu to %llu",
                         config_key_name(key), value, (unsigned long long)r->least,
                         (unsigned long long)r->greatest);
    c->number[key] = n;
    snprintf(c->text[key], sizeof c->text[key], "%s", value);
    c->source[key] = (uint8_t)source;
    return 0;
}

void config_defaults(struct config *c)
{
    memset(c, 0, sizeof *c);
    for (int k = 0; k < CONFIG_KEYS; k++) {
        struct azoth_error err;
        int rc = config_set(c, (enum config_key)k, rows[k].def, 0, &err);
        ensure(rc == 0);
    }
}

/* ---- the file ---- */

struct reading {
    struct config *config;
    const char *path;
    struct azoth_error *err;
    int code;
};

static int on_entry(void *user, const char *section, const char *key, const char *value, int lineno)
{
    struct reading *r = user;
    for (int k = 0; k < CONFIG_KEYS; k++)
        if (strcmp(rows[k].section, section) == 0 && strcmp(rows[k].key, key) == 0) {
            struct azoth_error why;
            if (config_set(r->config, (enum config_key)k, value, 1, &why) == 0)
                return 1;
            r->code =
                error_set(r->err, AZOTH_ERR_CONFIG, "%s:%d: %s", r->path, lineno, why.message);
            return 0;
        }
    r->code = error_set(r->err, AZOTH_ERR_CONFIG, "%s:%d: there is no setting %s.%s", r->path,
                        lineno, section, key);
    return 0;
}

#if !INI_HANDLER_LINENO
/* Debian builds inih without line numbers in its handler; ini_parse() still returns the line of
 * the first error, and ours is that line since we stop there. */
static int on_entry_plain(void *user, const char *section, const char *key, const char *value)
{
    return on_entry(user, section, key, value, 0);
}
#endif

static int read_file(struct config *c, const char *path, struct azoth_error *err)
{
    struct azoth_error why = {0};
    struct reading r = {c, path, &why, 0};
#if INI_HANDLER_LINENO
    int line = ini_parse(path, on_entry, &r);
#else
    int line = ini_parse(path, on_entry_plain, &r);
#endif
    if (line == -1) {
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    }
    if (line == -2)
        return error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    if (r.code) {
        /* "PATH:0: text" when the handler was not told the line. */
        const char *text = strstr(why.message, ": ");
        return error_set(err, AZOTH_ERR_CONFIG, "%s:%d: %s", path, line, text ? text + 2 : "");
    }
    if (line > 0)
        return error_set(err, AZOTH_ERR_CONFIG, "%s:%d: neither [section] nor key = value", path,
                         line);
    return 0;
}

int config_load(struct config *c, const char *dir, struct azoth_error *err)
{
    config_defaults(c);
    char path[4200];
    snprintf(path, sizeof path, "%s/azoth.conf", dir);
    errno = ENOENT;
    int rc = read_file(c, path, err);
    for (int k = 0; !rc && k < CONFIG_KEYS; k++) {
        char name[80];
        int n = snprintf(name, sizeof name, "AZOTH_%s_%s", rows[k].section, rows[k].key);
        for (int i = 0; i < n; i++)
            name[i] = (char)toupper((unsigned char)name[i]);
        const char *value = getenv(name);
        if (value)
            rc = config_set(c, (enum config_key)k, value, 2, err);
    }
    return rc;
}

int config_flag(struct config *c, int argc, char **argv, int *i, struct azoth_error *err)
{
    const char *arg = argv[*i];
    if (strncmp(arg, "--", 2) != 0)
        return 0;
    for (int k = 0; k < CONFIG_KEYS; k++) {
        char name[64];
        int n = snprintf(name, sizeof name, "%s-%s", rows[k].section, rows[k].key);
        for (int j = 0; j < n; j++)
            if (name[j] == '_')
                name[j] = '-';
        if (strncmp(arg + 2, name, (size_t)n) != 0 || (arg[2 + n] != '=' && arg[2 + n] != 0))
            continue;
        const char *value = arg[2 + n] == '=' ? arg + 3 + n : NULL;
        if (!value && *i + 1 >= argc)
            return error_set(err, AZOTH_ERR_USAGE, "%s needs a value", arg);
        if (!value)
            value = argv[++*i];
        ++*i;
        int rc = config_set(c, (enum config_key)k, value, 3, err);
        return rc ? rc : 1;
    }
    return 0;
}
