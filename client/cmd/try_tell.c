/* try_tell.c - azoth projection try: rates, failures and differing rows, as text and as JSON. */
#include "client/cmd/try.h"

#include "core/clock.h"

#include <string.h>

#define VALUE_TOLD 200u /* bytes of a text or blob in a row */

/* ---- rows ---- */

static int add_value(struct buf *out, const struct query_value *v)
{
    char text[VALUE_TOLD + 8];
    switch (v->type) {
    case QUERY_INTEGER:
        return buf_addf(out, "%lld", (long long)v->integer);
    case QUERY_REAL:
        return buf_addf(out, "%.17g", v->real);
    case QUERY_TEXT:
        return buf_addf(out, "'%s'", bytes_print(v->bytes, text, sizeof text));
    case QUERY_BLOB:
        return buf_addf(out, "x'%s'", bytes_print(v->bytes, text, sizeof text));
    default:
        return buf_add_str(out, "NULL");
    }
}

static void row_text(struct try_result *r, char sign, uint64_t times, int n,
                     const char *const *names, const struct query_value *values)
{
    struct buf *out = &r->rows;
    int failed = buf_addf(out, "    %c", sign);
    for (int i = 0; i < n && !failed; i++) {
        failed = buf_addf(out, " %s=", names[i]);
        failed |= add_value(out, &values[i]);
    }
    if (times > 1)
        failed |= buf_addf(out, "  (%llu times)", (unsigned long long)times);
    r->failed |= failed | buf_add_str(out, "\n");
}

static void row_json(struct try_result *r, char sign, uint64_t times, int n,
                     const char *const *names, const struct query_value *values)
{
    struct json_text *j = &r->json_rows;
    out_open(j, NULL, '{');
    out_str(j, "sign", sign == '-' ? "-" : "+");
    out_u64(j, "times", times);
    out_open(j, "columns", '[');
    for (int i = 0; i < n; i++)
        out_str(j, NULL, names[i]);
    out_close(j, ']');
    out_open(j, "values", '[');
    for (int i = 0; i < n; i++) {
        if (i)
            j->failed |= buf_add_str(&j->b, ",");
        j->failed |= cmd_value_json(&j->b, &values[i]);
    }
    out_close(j, ']');
    out_close(j, '}');
}

void try_tell_row(void *arg, char sign, uint64_t times, int n, const char *const *names,
                  const struct query_value *values)
{
    struct try_result *r = arg;
    if (r->l->json)
        row_json(r, sign, times, n, names, values);
    else
        row_text(r, sign, times, n, names, values);
}

/* ---- tables ---- */

static const char *where_name(const struct diff_table *t)
{
    return t->where == DIFF_IN_BOTH ? "both" : t->where == DIFF_LIVE_ONLY ? "live" : "scratch";
}

static void table_json(struct try_result *r, const struct diff_table *t)
{
    struct json_text *j = &r->tables;
    out_open(j, NULL, '{');
    out_str(j, "table", t->name);
    out_str(j, "in", where_name(t));
    out_bool(j, "keyed", t->keyed);
    out_u64(j, "live_rows", t->live_rows);
    out_u64(j, "scratch_rows", t->scratch_rows);
    out_u64(j, "removed", t->removed);
    out_u64(j, "added", t->added);
    out_u64(j, "changed", t->changed);
    out_str(j, "columns_of_one", t->columns);
    out_open(j, "rows", '[');
    j->failed |= r->json_rows.failed | buf_add(&j->b, r->json_rows.b.ptr, r->json_rows.b.len);
    out_close(j, ']');
    out_close(j, '}');
    buf_clear(&r->json_rows.b);
    r->json_rows.comma = 0;
}

static void table_text(struct try_result *r, const struct diff_table *t)
{
    struct buf *out = &r->text;
    int failed = buf_addf(out, "  %s: %llu rows live, %llu here", t->name,
                          (unsigned long long)t->live_rows, (unsigned long long)t->scratch_rows);
    if (t->where != DIFF_IN_BOTH)
        failed |= buf_addf(out, "; the table is %s alone\n",
                           t->where == DIFF_LIVE_ONLY ? "in the live one" : "here");
    else if (!t->removed && !t->added && !t->changed)
        failed |= buf_add_str(out, ": the same\n");
    else
        failed |= buf_addf(out, ": %llu removed, %llu added, %llu changed%s\n",
                           (unsigned long long)t->removed, (unsigned long long)t->added,
                           (unsigned long long)t->changed,
                           t->keyed ? "" : " (whole rows: no primary key in common)");
    if (t->columns[0])
        failed |= buf_addf(out, "    columns of one alone are left out:%s\n", t->columns);
    failed |= buf_add(out, r->rows.ptr, r->rows.len);
    buf_clear(&r->rows);
    r->failed |= failed;
}

void try_tell_table(void *arg, const struct diff_table *t)
{
    struct try_result *r = arg;
    if (r->l->json)
        table_json(r, t);
    else
        table_text(r, t);
}

/* ---- the rest ---- */

static uint64_t per_second(uint64_t events, uint64_t ns)
{
    return ns ? (uint64_t)((double)events * 1e9 / (double)ns) : 0;
}

static uint64_t handled(const struct try_type *t)
{
    return t->events - t->failed - t->parked;
}

static const char *strategy_name(enum strategy s)
{
    static const char *const names[] = {[STRATEGY_FAIL_FAST] = "fail-fast",
                                        [STRATEGY_LOG_AND_SKIP] = "log-and-skip",
                                        [STRATEGY_DEAD_LETTER] = "dead-letter",
                                        [STRATEGY_CUSTOM] = "custom",
                                        [STRATEGY_RETRY] = "retry"};
    return names[s];
}

static const char *policy_text(const struct sql_policy *p, char out[80])
{
    if (p->strategy == STRATEGY_RETRY)
        snprintf(out, 80, "retry %u then %s", p->count, strategy_name(p->then));
    else
        snprintf(out, 80, "%s", strategy_name(p->strategy));
    return out;
}

static void tell_types(const struct try_result *r)
{
    char name[60], policy[80];
    printf("  %-24s %12s %12s %9s %9s %10s  %s\n", "type", "events", "handled", "failed", "parked",
           "handled/s", "on-error");
    for (size_t i = 0; i < r->types; i++) {
        const struct try_type *t = &r->type[i];
        printf("  %-24s %12llu %12llu %9llu %9llu %10llu  %s\n",
               bytes_print(t->name, name, sizeof name), (unsigned long long)t->events,
               (unsigned long long)handled(t), (unsigned long long)t->failed,
               (unsigned long long)t->parked,
               (unsigned long long)per_second(handled(t), r->looked_ns),
               policy_text(t->policy, policy));
    }
}

static void tell_failures(const struct try_result *r)
{
    char name[60];
    for (size_t i = 0; i < r->types; i++) {
        const struct try_type *t = &r->type[i];
        uint64_t k = 0;
        for (; k < t->failed && k < TRY_FIRST; k++)
            printf("  failed: %s\n", t->why[k] ? t->why[k] : "?");
        if (t->failed > k)
            printf("  and %llu more of \"%s\"\n", (unsigned long long)(t->failed - k),
                   bytes_print(t->name, name, sizeof name));
    }
    if (r->waiting || r->parked || r->skipped)
        printf("  %llu dead letters, %llu waiting behind one, %llu skipped\n",
               (unsigned long long)r->waiting, (unsigned long long)r->parked,
               (unsigned long long)r->skipped);
    if (r->would_stop)
        printf("  %llu would stop the projection, and were passed over\n",
               (unsigned long long)r->would_stop);
}

static int tell_text(struct try_result *r)
{
    char took[CMD_TIME_TEXT];
    uint64_t n = r->cursor - (r->from - 1);
    printf("%s: events %llu to %llu (the newest is %llu) in %s, %llu/s\n", r->def->name,
           (unsigned long long)r->from, (unsigned long long)r->cursor, (unsigned long long)r->head,
           cmd_duration(r->looked_ns, took), (unsigned long long)per_second(n, r->looked_ns));
    if (r->from > 1)
        printf("  begun with empty tables at event %llu\n", (unsigned long long)r->from);
    tell_types(r);
    tell_failures(r);
    if (r->compared)
        printf("compared with the live projection at event %llu%s%s\n",
               (unsigned long long)r->compared_at, r->remark[0] ? ": " : "", r->remark);
    else
        printf("not compared: %s\n", r->not_compared);
    cmd_write(&r->text);
    if (r->kept)
        printf("kept: %s\n", r->kept);
    return r->failed ? cmd_fail_code(AZOTH_ERR_NOMEM, "not all rows can be told") : 0;
}

static void types_json(struct try_result *r, struct json_text *j)
{
    char name[300], policy[80];
    out_open(j, "types", '[');
    for (size_t i = 0; i < r->types; i++) {
        const struct try_type *t = &r->type[i];
        out_open(j, NULL, '{');
        out_str(j, "type", bytes_print(t->name, name, sizeof name));
        out_u64(j, "events", t->events);
        out_u64(j, "handled", handled(t));
        out_u64(j, "failed", t->failed);
        out_u64(j, "parked", t->parked);
        out_u64(j, "handled_per_second", per_second(handled(t), r->looked_ns));
        out_str(j, "on_error", policy_text(t->policy, policy));
        out_open(j, "failures", '[');
        for (uint64_t k = 0; k < t->failed && k < TRY_FIRST; k++) {
            out_open(j, NULL, '{');
            out_u64(j, "event", t->first[k]);
            out_str(j, "message", t->why[k]);
            out_close(j, '}');
        }
        out_close(j, ']');
        out_close(j, '}');
    }
    out_close(j, ']');
}

static void diff_json(struct try_result *r, struct json_text *j)
{
    if (!r->compared) {
        out_null(j, "diff");
        out_str(j, "not_compared", r->not_compared);
        return;
    }
    out_open(j, "diff", '{');
    out_u64(j, "at_event", r->compared_at);
    out_u64(j, "live_cursor", r->live_cursor);
    out_str(j, "remark", r->remark[0] ? r->remark : NULL);
    out_open(j, "tables", '[');
    j->failed |= r->tables.failed | buf_add(&j->b, r->tables.b.ptr, r->tables.b.len);
    out_close(j, ']');
    out_close(j, '}');
}

static int tell_json(struct try_result *r)
{
    struct json_text j = {0};
    uint64_t n = r->cursor - (r->from - 1);
    out_open(&j, NULL, '{');
    out_bool(&j, "ok", r->would_stop == 0 && r->cursor >= r->to);
    out_str(&j, "projection", r->def->name);
    out_str(&j, "file", r->file);
    out_u64(&j, "from", r->from);
    out_u64(&j, "to", r->cursor);
    out_u64(&j, "head", r->head);
    out_u64(&j, "looked_at", n);
    out_real(&j, "seconds", (double)r->looked_ns / 1e9);
    out_u64(&j, "per_second", per_second(n, r->looked_ns));
    out_u64(&j, "dead_letters", r->waiting);
    out_u64(&j, "parked", r->parked);
    out_u64(&j, "skipped", r->skipped);
    out_u64(&j, "would_stop", r->would_stop);
    types_json(r, &j);
    diff_json(r, &j);
    out_str(&j, "kept", r->kept);
    out_close(&j, '}');
    return out_print(&j);
}

int try_tell(struct try_result *r)
{
    return r->l->json ? tell_json(r) : tell_text(r);
}

void try_result_fini(struct try_result *r)
{
    for (size_t i = 0; i < r->types; i++)
        for (int k = 0; k < TRY_FIRST; k++)
            free(r->type[i].why[k]);
    free(r->type);
    buf_fini(&r->tables.b);
    buf_fini(&r->json_rows.b);
    buf_fini(&r->text);
    buf_fini(&r->rows);
}
