/*
 * query.c - query and projection: reading projections and checking their definitions.
 *
 * Rows are gathered before they are printed: a reader of ours that stops reading (a pager) must not
 * keep the projector from taking its log's space back.
 */
#include "client/cmd/cmd.h"

#include "core/dbdir.h"
#include "core/valuejson.h"
#include "projector/table.h"

#include <math.h>
#include <string.h>

#define GATHER_BYTES (16u << 20) /* of output, before it is printed in the middle after all */

struct result {
    struct buf out;
    int json, failed;
    uint64_t rows;
};

static void flush_result(struct result *r)
{
    cmd_write(&r->out);
    buf_clear(&r->out);
}

/* ---- one value ---- */

static int add_real(struct buf *out, double x, int json)
{
    if (json && !isfinite(x))
        return buf_add_str(out, "null");
    return buf_addf(out, "%.17g", x);
}

/* A row is a line: control characters are shown as \xNN. */
static int add_plain(struct buf *out, struct azoth_bytes b)
{
    int rc = 0;
    const unsigned char *p = b.ptr;
    for (size_t i = 0; !rc && i < b.len; i++)
        rc = p[i] < 0x20 || p[i] == 0x7f ? buf_addf(out, "\\x%02x", p[i]) : buf_add(out, p + i, 1);
    return rc;
}

int cmd_value_json(struct buf *out, const struct query_value *v)
{
    int rc;
    switch (v->type) {
    case QUERY_INTEGER:
        return buf_addf(out, "%lld", (long long)v->integer);
    case QUERY_REAL:
        return add_real(out, v->real, 1);
    case QUERY_TEXT:
        return json_add_string(out, v->bytes, 1);
    case QUERY_BLOB:
        rc = buf_add_str(out, "{\"bytes\":\"");
        if (!rc)
            rc = base64_encode(out, v->bytes);
        return rc ? rc : buf_add_str(out, "\"}");
    default:
        return buf_add_str(out, "null");
    }
}

static int add_text(struct buf *out, const struct query_value *v)
{
    int rc;
    switch (v->type) {
    case QUERY_INTEGER:
        return buf_addf(out, "%lld", (long long)v->integer);
    case QUERY_REAL:
        return add_real(out, v->real, 0);
    case QUERY_TEXT:
        return add_plain(out, v->bytes);
    case QUERY_BLOB:
        rc = buf_add_str(out, "base64:");
        return rc ? rc : base64_encode(out, v->bytes);
    default:
        return 0;
    }
}

/* ---- rows ---- */

static int add_names(struct buf *out, int n, const char *const *names)
{
    int rc = 0;
    for (int i = 0; !rc && i < n; i++) {
        rc = i ? buf_add_str(out, "\t") : 0;
        if (!rc)
            rc = add_plain(out, bytes_str(names[i]));
    }
    return rc ? rc : buf_add_str(out, "\n");
}

static int add_row(struct result *r, int n, const char *const *names, const struct query_value *v)
{
    int rc = r->json ? buf_add_str(&r->out, "{") : 0;
    for (int i = 0; !rc && i < n; i++) {
        if (i)
            rc = buf_add_str(&r->out, r->json ? "," : "\t");
        if (!rc && r->json)
            rc = json_add_string(&r->out, bytes_str(names[i]), 1);
        if (!rc && r->json)
            rc = buf_add_str(&r->out, ":");
        if (!rc)
            rc = r->json ? cmd_value_json(&r->out, &v[i]) : add_text(&r->out, &v[i]);
    }
    return rc ? rc : buf_add_str(&r->out, r->json ? "}\n" : "\n");
}

static int on_row(void *arg, int n, const char *const *names, const struct query_value *values)
{
    struct result *r = arg;
    int rc = !r->json && r->rows == 0 && n > 0 ? add_names(&r->out, n, names) : 0;
    if (!rc && values) {
        rc = add_row(r, n, names, values);
        r->rows++;
    }
    if (r->out.len > GATHER_BYTES)
        flush_result(r);
    r->failed = rc;
    return rc;
}

int cmd_projections(struct cmd_line *l, const char *name, char *out, size_t size)
{
    char dir[4096];
    int rc = cmd_dir(l, NULL, 1, dir, sizeof dir);
    if (rc)
        return rc;
    if (!dbdir_name_valid(name))
        return cmd_usage(l, "%s is no name of a projection", name);
    if (dbdir_path(out, size, dir, "projections"))
        return cmd_usage(l, "%s: the path is too long", dir);
    return 0;
}

int cmd_query_print(const char *dir, const char *name, const char *sql, int json)
{
    struct result r = {.json = json};
    struct azoth_error err = {0};
    int code = query_run(dir, name, sql, on_row, &r, &err);
    if (r.failed)
        code = error_set(&err, r.failed, "a row: %s", azoth_code_sentence(r.failed));
    flush_result(&r);
    buf_fini(&r.out);
    return code ? cmd_fail(&err) : 0;
}

static int run_query(struct cmd_line *l)
{
    char dir[4200];
    int rc = cmd_flags(l, NULL, 2, 2);
    if (!rc)
        rc = cmd_projections(l, l->word[0], dir, sizeof dir);
    return rc ? rc : cmd_query_print(dir, l->word[0], l->word[1], l->json);
}

const struct cmd cmd_query = {
    .name = "query",
    .synopsis = "NAME SQL [--json]",
    .summary = "Run a query on a projection, read-only",
    .help = "  --json  one object a line\n\n"
            "Columns are separated by tabs, after a line of their names. Needs no process of the "
            "system.\n\n"
            "  azoth query accounts 'SELECT account, balance FROM accounts ORDER BY balance DESC "
            "LIMIT 5'\n",
    .run = run_query,
};
