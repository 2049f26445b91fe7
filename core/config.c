#include "core/config.h"

#include "core/error.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <string.h>

struct row {
    const char *section, *key, *name, *def, *help;
    enum config_type type;
    uint64_t least, greatest;
};

static const struct row rows[CONFIG_KEYS] = {
#define X(s, k, type, def, lo, hi, help)                                                           \
    [CONFIG_##s##_##k] = {#s, #k, #s "." #k, def, help, CONFIG_##type, lo, hi},
    CONFIG_TABLE(X)
#undef X
};

const char *config_key_name(enum config_key key)
{
    return rows[key].name;
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

int config_parse_size(const char *text, uint64_t *ret)
{
    return parse_number(text, sizes, ret);
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
    FILE *file;
    int line; /* the one that inih works on */
    int code;
    struct azoth_error *err;
};

static int refuse(struct reading *r, const char *why)
{
    r->code = error_set(r->err, AZOTH_ERR_CONFIG, "%s:%d: %s", r->path, r->line, why);
    return 0;
}

static int on_entry(void *user, const char *section, const char *key, const char *value)
{
    struct reading *r = user;
    struct azoth_error why;
    for (int k = 0; k < CONFIG_KEYS; k++)
        if (strcmp(rows[k].section, section) == 0 && strcmp(rows[k].key, key) == 0)
            return config_set(r->config, (enum config_key)k, value, 1, &why) == 0 ||
                   refuse(r, why.message);
    error_set(&why, AZOTH_ERR_CONFIG, "there is no setting %s.%s", section, key);
    return refuse(r, why.message);
}

#if INI_HANDLER_LINENO
static int on_numbered_entry(void *user, const char *section, const char *key, const char *value,
                             int line)
{
    (void)line;
    return on_entry(user, section, key, value);
}
#define ON_ENTRY on_numbered_entry
#else
#define ON_ENTRY on_entry
#endif

/* "[section]" and nothing behind it but a comment: inih drops what stands there. */
static int section_alone(const char *text)
{
    const char *end = strchr(text, ']');
    return !end || strchr(";#\r\n", end[1 + strspn(end + 1, " \t")]);
}

/*
 * inih's line source, ours for three reasons: it knows the line (Debian's inih tells its handler
 * none) and ends at the first mistake; a long line is refused, not cut in two; and blanks at
 * the beginning go, since inih takes an indented line for more of the value above it, so that an
 * indented `none` would undo `sync = full` in silence.
 */
static char *next_line(char *out, int size, void *stream)
{
    struct reading *r = stream;
    if (r->code || !fgets(out, size, r->file))
        return NULL;
    r->line++;
    size_t n = strlen(out);
    if ((n == 0 || out[n - 1] != '\n') && !feof(r->file)) {
        char why[80];
        snprintf(why, sizeof why, "a line has at most %d bytes and no NUL", size - 2);
        refuse(r, why);
        return NULL;
    }
    size_t blanks = strspn(out, " \t");
    memmove(out, out + blanks, n - blanks + 1);
    if (*out == '[' && !section_alone(out)) {
        refuse(r, "text after [section]: a setting has its own line");
        return NULL;
    }
    return out;
}

static int read_file(struct config *c, const char *path, struct azoth_error *err)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    struct reading r = {.config = c, .path = path, .file = f, .err = err};
    errno = 0;
    int line = ini_parse_stream(next_line, &r, ON_ENTRY, &r);
    int rc = r.code;
    if (!rc && ferror(f))
        rc = error_errno(err, errno, "%s", path);
    if (!rc && line == -2)
        rc = error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    /* After a line that it cannot read itself inih reads on: the earlier mistake is told. */
    if (line > 0 && (!rc || (r.code && line < r.line)))
        rc = error_set(err, AZOTH_ERR_CONFIG, "%s:%d: neither [section] nor key = value", path,
                       line);
    fclose(f);
    return rc;
}

int config_load(struct config *c, const char *dir, struct azoth_error *err)
{
    config_defaults(c);
    char path[4200];
    snprintf(path, sizeof path, "%s/azoth.conf", dir);
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
