/*
 * check.c - azoth projection check: the findings of each file, gathered, put in order and told.
 */
#include "client/cmd/check.h"

#include "core/dbdir.h"
#include "projector/table.h"

#include <stdarg.h>
#include <string.h>

#define EVENTS_LOOKED_AT 1000u /* of each type, unless told otherwise */

static const char *const severity_names[] = {
    [FINDING_ERROR] = "error", [FINDING_WARNING] = "warning", [FINDING_HINT] = "hint"};

/* ---- gathering ---- */

void finding_add(struct findings *f, const struct finding *one)
{
    struct finding *more = realloc(f->list, (f->n + 1) * sizeof *more);
    f->errors += one->severity == FINDING_ERROR;
    f->warnings += one->severity == FINDING_WARNING;
    if (!more) {
        f->failed = 1;
        return;
    }
    f->list = more;
    f->list[f->n++] = *one;
}

void finding_at(struct findings *f, enum severity severity, const struct sqlfile *def,
                const void *at, const char *fmt, ...)
{
    struct finding one = {.severity = severity, .code = AZOTH_ERR_PROJECTION};
    va_list ap;
    sqlfile_place(def, at, &one.line, &one.column);
    va_start(ap, fmt);
    vsnprintf(one.text, sizeof one.text, fmt, ap);
    va_end(ap);
    finding_add(f, &one);
}

struct gathering {
    struct findings *findings;
    const char *path;
};

/* The checker tells FILE:LINE:COLUMN: TEXT, with a long FILE cut in front; files are told without a place. */
static void gather(void *arg, const struct azoth_error *err)
{
    struct gathering *g = arg;
    struct finding one = {.severity = FINDING_ERROR, .code = err->code};
    const char *at = err->message;
    size_t n = strlen(g->path);
    int skip = 0;
    at += strncmp(at, g->path, n) == 0 ? n : strcspn(at, ":");
    if (sscanf(at, ":%u:%u: %n", &one.line, &one.column, &skip) == 2 && skip) {
        at += skip;
    } else {
        one.line = one.column = 0;
        at = err->message;
    }
    snprintf(one.text, sizeof one.text, "%s", at);
    finding_add(g->findings, &one);
}

static int compare(const void *a, const void *b)
{
    const struct finding *x = a, *y = b;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    if (x->column != y->column)
        return x->column < y->column ? -1 : 1;
    return (x->severity > y->severity) - (x->severity < y->severity);
}

/* ---- telling ---- */

static const struct finding *first_error(const struct findings *f)
{
    size_t i = 0;
    while (i < f->n && f->list[i].severity != FINDING_ERROR)
        i++;
    return i < f->n ? &f->list[i] : NULL;
}

static void sentence(const char *file, const struct finding *one, char *out, size_t size)
{
    const char *kind = one->severity == FINDING_WARNING ? "warning: "
                       : one->severity == FINDING_HINT  ? "hint: "
                                                        : "";
    if (one->line)
        snprintf(out, size, "%s:%u:%u: %s%s", file, one->line, one->column, kind, one->text);
    else
        snprintf(out, size, "%s%s", kind, one->text);
}

static void tell_json(const char *file, const struct findings *f,
                      const struct projection_unchecked *missed)
{
    struct json_text j = {0};
    char text[1200];
    const struct finding *first = first_error(f);
    out_open(&j, NULL, '{');
    out_bool(&j, "ok", f->errors == 0);
    out_str(&j, "file", file);
    out_bool(&j, "c_checked", !missed->in_c);
    out_bool(&j, "sql_checked", !missed->sql);
    if (first) {
        sentence(file, first, text, sizeof text);
        out_str(&j, "error", azoth_code_name(first->code));
        out_str(&j, "message", text);
    }
    out_open(&j, "findings", '[');
    for (size_t i = 0; i < f->n; i++) {
        const struct finding *one = &f->list[i];
        out_open(&j, NULL, '{');
        out_str(&j, "file", file);
        if (one->line) {
            out_u64(&j, "line", one->line);
            out_u64(&j, "column", one->column);
        } else {
            out_null(&j, "line");
            out_null(&j, "column");
        }
        out_str(&j, "severity", severity_names[one->severity]);
        out_str(&j, "message", one->text);
        out_close(&j, '}');
    }
    out_close(&j, ']');
    out_close(&j, '}');
    out_print(&j);
}

static void tell(const char *file, const struct findings *f,
                 const struct projection_unchecked *missed)
{
    char text[1200];
    const char *unseen = missed->in_c  ? ", but what is in C was not checked (--load)"
                         : missed->sql ? ", but PostgreSQL was not asked about its SQL (--target)"
                                       : "";
    fflush(stdout);
    for (size_t i = 0; i < f->n; i++) {
        const struct finding *one = &f->list[i];
        sentence(file, one, text, sizeof text);
        if (one->severity == FINDING_ERROR)
            fprintf(stderr, "azoth: %s (%s)\n", text, azoth_code_name(one->code));
        else
            fprintf(stderr, "azoth: %s\n", text);
    }
    if (!f->errors && f->warnings)
        printf("%s: ok, with %zu warning%s%s\n", file, f->warnings, f->warnings == 1 ? "" : "s",
               unseen);
    else if (!f->errors)
        printf("%s: ok%s\n", file, unseen);
}

/* ---- the command ---- */

static void ignore(void *arg, const struct azoth_error *err)
{
    (void)arg;
    (void)err;
}

/* Of a definition that is wrong elsewhere what was understood is compared all the same. */
static int beside_log(struct store *store, const char *file, uint64_t most, struct findings *f)
{
    struct azoth_error err = {0};
    struct sqlfile def;
    int rc = sqlfile_read_all(file, &def, ignore, NULL);
    rc = rc && rc != AZOTH_ERR_PROJECTION ? 0 : check_log(store, &def, most, f, &err);
    sqlfile_fini(&def);
    if (rc < 0)
        return cmd_fail(&err);
    return rc ? 128 + cmd_interrupted() : 0; /* as shells tell it */
}

static int check_one(struct cmd_line *l, const char *file, struct store *store,
                     const struct check_flags *flags, const struct projection_check_with *with)
{
    struct findings f = {0};
    struct gathering g = {&f, file};
    struct projection_unchecked missed;
    projection_check_all(file, with, &missed, gather, &g);
    uint64_t most = flags->events.given ? flags->events.n : EVENTS_LOOKED_AT;
    int rc = store ? beside_log(store, file, most, &f) : 0;
    if (f.n)
        qsort(f.list, f.n, sizeof *f.list, compare);
    if (f.failed && !rc)
        rc = cmd_fail_code(AZOTH_ERR_NOMEM, "%s: not everything found can be told", file);
    if (rc) {
        free(f.list);
        return rc;
    }
    if (l->json)
        tell_json(file, &f, &missed);
    if (l->json && f.errors)
        fprintf(stderr, "azoth: %s: %zu error%s\n", file, f.errors, f.errors == 1 ? "" : "s");
    if (!l->json)
        tell(file, &f, &missed);
    if (f.errors)
        rc = azoth_code_exit(first_error(&f)->code);
    free(f.list);
    return rc;
}

int cmd_projection_check(struct cmd_line *l, const struct check_flags *flags)
{
    static struct config config;
    char dir[4096];
    struct azoth_error err = {0};
    struct store *store = NULL;
    struct projection_check_with with = {.load = flags->load};
    int worst = 0;
    if (l->words < 2)
        return cmd_usage(l, "check takes a file");
    if (flags->events.given && !flags->against_log)
        return cmd_usage(l, "--events goes with --against-log");
    if (flags->against_log) {
        int rc = cmd_dir(l, NULL, 1, dir, sizeof dir);
        if (rc)
            return rc;
        if (store_open(dir, 0, &store, &err))
            return cmd_fail(&err);
        cmd_catch_signals();
    }
    if (flags->target) {
        /* A definition may be checked where there is no database: then the environment says. */
        const char *of = l->dir ? l->dir : getenv("AZOTH_DIR");
        if (config_load(&config, of ? of : "/nowhere", &err)) {
            store_close(store);
            return cmd_fail(&err);
        }
        with.postgresql = config.text[CONFIG_projector_postgresql];
    }
    for (int i = 1; i < l->words && !cmd_interrupted(); i++) {
        int rc = check_one(l, l->word[i], store, flags, &with);
        if (rc > worst)
            worst = rc;
    }
    store_close(store);
    return worst;
}
