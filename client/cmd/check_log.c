/*
 * check_log.c - azoth projection check --against-log: the fields that a definition reads, beside those that
 * events have.
 *
 * The log has no index by type, so it is read from its end in stretches, each twice: once to count what is
 * in it of which type, then, when there is something of use, to look into payloads. Of a type with more
 * events in a stretch than are still wanted the oldest are passed over: what is told is of the newest.
 */
#include "client/cmd/check.h"
#include "client/cmd/progress.h"

#include <jansson.h>
#include <string.h>
#include <strings.h>

#define STRETCH     10000u /* events; a snapshot is held for so long */
#define NAMES_MAX   64u    /* fields of a type that are remembered by name */
#define NAMES_TOLD  12u
#define OTHERS_MAX  1000u /* types without a handler that are remembered */
#define FIELD_BYTES 64u

enum kind { KIND_STRING, KIND_NUMBER, KIND_BOOLEAN, KIND_COMPOUND, KINDS };
static const char *const kind_names[KINDS] = {"a string", "a number", "a boolean",
                                              "an object or array"};

/* What the events of a type have of a field that is read. */
struct field {
    char name[FIELD_BYTES + 200]; /* of order-by and shard-by: up to 254 bytes */
    const void *at;               /* where it is read first */
    const char *mark;             /* "order-by", "shard-by"; NULL: in a handler */
    uint64_t in, of_kind[KINDS];
    uint64_t lacks; /* the newest event without it */
};

struct type {
    struct azoth_bytes name; /* none: every type, of effects that take all */
    struct field *field;
    size_t fields;
    char **name_seen;
    size_t names_seen;
    uint64_t looked, objects, no_object; /* no_object: the newest event whose payload is none */
    uint64_t left, here, pass_over;      /* wanted still; in this stretch; of them the oldest */
};

struct other {
    struct azoth_bytes name; /* a copy */
    uint64_t events;
};

struct log {
    const struct sqlfile *def;
    struct type *type; /* in the order of their names */
    size_t types;
    int all;             /* the one type is every type */
    struct other *other; /* in the order of their names, too */
    size_t others;
};

static int no_memory(struct azoth_error *err)
{
    return error_set(err, AZOTH_ERR_NOMEM, "what the log has");
}

/* ---- what is read ---- */

static int add_field(struct type *t, struct azoth_bytes name, const void *at, const char *mark)
{
    struct field one = {.at = at, .mark = mark};
    if (name.len >= sizeof one.name)
        return 0; /* no parameter: told by the other check */
    memcpy(one.name, name.ptr, name.len);
    for (size_t i = 0; i < t->fields; i++)
        if (!mark && !t->field[i].mark && strcmp(t->field[i].name, one.name) == 0)
            return 0;
    struct field *more = realloc(t->field, (t->fields + 1) * sizeof *more);
    if (!more)
        return AZOTH_ERR_NOMEM;
    t->field = more;
    t->field[t->fields++] = one;
    return 0;
}

/* Behind the colon; none of "@key". */
static struct azoth_bytes field_name(struct azoth_bytes word)
{
    const char *p = word.ptr;
    return word.len > 1 && *p == ':' ? bytes_of(p + 1, word.len - 1) : bytes_of(NULL, 0);
}

static int add_mark(struct type *t, const char *value, const char *at, const char *mark)
{
    struct azoth_bytes name = field_name(bytes_str(value));
    return at && name.len ? add_field(t, name, at, mark) : 0;
}

static int add_type(struct log *g, const struct sql_handler *h, struct azoth_bytes name,
                    uint64_t most)
{
    struct type *t = &g->type[g->types++];
    struct azoth_bytes word;
    size_t at = 0;
    int rc = 0;
    *t = (struct type){.name = name, .left = most ? most : UINT64_MAX};
    while (!rc && h && sqlfile_word(h->sql.text, &at, &word)) {
        struct azoth_bytes field = field_name(word);
        rc = field.len ? add_field(t, field, word.ptr, NULL) : 0;
    }
    if (!rc)
        rc = add_mark(t, g->def->order_by, g->def->order_by_at, "order-by");
    return rc ? rc : add_mark(t, g->def->shard_by, g->def->shard_by_at, "shard-by");
}

static int compare_types(const void *a, const void *b)
{
    return bytes_cmp(((const struct type *)a)->name, ((const struct type *)b)->name);
}

static int prepare(struct log *g, uint64_t most)
{
    size_t n = 0;
    for (uint32_t i = 0; i < g->def->handlers; i++)
        n += g->def->handler[i].types_len;
    g->type = calloc(n + 1, sizeof *g->type);
    g->other = calloc(OTHERS_MAX, sizeof *g->other);
    if (!g->type || !g->other)
        return AZOTH_ERR_NOMEM;
    for (uint32_t i = 0; i < g->def->handlers; i++)
        for (uint32_t k = 0; k < g->def->handler[i].types_len; k++)
            if (add_type(g, &g->def->handler[i], g->def->handler[i].types[k], most))
                return AZOTH_ERR_NOMEM;
    g->all = g->types == 0 && g->def->order_by_at;
    if (g->all)
        return add_type(g, NULL, bytes_of(NULL, 0), most);
    qsort(g->type, g->types, sizeof *g->type, compare_types);
    return 0;
}

static void log_fini(struct log *g)
{
    for (size_t i = 0; i < g->types; i++) {
        for (size_t k = 0; k < g->type[i].names_seen; k++)
            free(g->type[i].name_seen[k]);
        free(g->type[i].name_seen);
        free(g->type[i].field);
    }
    for (size_t i = 0; i < g->others; i++)
        free((void *)g->other[i].name.ptr);
    free(g->type);
    free(g->other);
}

static struct type *find_type(const struct log *g, struct azoth_bytes name)
{
    const struct type want = {.name = name};
    if (g->all)
        return g->type;
    return bsearch(&want, g->type, g->types, sizeof want, compare_types);
}

/* ---- what is there ---- */

static int note_other(struct log *g, struct azoth_bytes name)
{
    size_t from = 0, to = g->others;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        int c = bytes_cmp(g->other[mid].name, name);
        if (c == 0) {
            g->other[mid].events++;
            return 0;
        }
        if (c < 0)
            from = mid + 1;
        else
            to = mid;
    }
    if (g->others == OTHERS_MAX)
        return 0;
    char *copy = malloc(name.len + 1);
    if (!copy)
        return AZOTH_ERR_NOMEM;
    memcpy(copy, name.ptr, name.len);
    memmove(&g->other[from + 1], &g->other[from], (g->others - from) * sizeof *g->other);
    g->other[from] = (struct other){bytes_of(copy, name.len), 1};
    g->others++;
    return 0;
}

static int note_name(struct type *t, const char *name)
{
    for (size_t i = 0; i < t->names_seen; i++)
        if (strcmp(t->name_seen[i], name) == 0)
            return 0;
    if (t->names_seen == NAMES_MAX)
        return 0;
    if (!t->name_seen)
        t->name_seen = calloc(NAMES_MAX, sizeof *t->name_seen);
    char *copy = t->name_seen ? strdup(name) : NULL;
    if (!copy)
        return AZOTH_ERR_NOMEM;
    t->name_seen[t->names_seen++] = copy;
    return 0;
}

/* NULL is no kind: a field that may be null is one. */
static enum kind kind_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return KIND_STRING;
    case JSON_INTEGER:
    case JSON_REAL:
        return KIND_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE:
        return KIND_BOOLEAN;
    case JSON_OBJECT:
    case JSON_ARRAY:
        return KIND_COMPOUND;
    default:
        return KINDS;
    }
}

static int look_at(struct type *t, const struct event_record *ev)
{
    t->looked++;
    t->left -= t->left != UINT64_MAX;
    if (!t->fields)
        return 0;
    json_t *payload =
        json_loadb(ev->payload.len ? ev->payload.ptr : "", ev->payload.len, JSON_ALLOW_NUL, NULL);
    int rc = 0;
    if (!json_is_object(payload)) {
        t->no_object = ev->id > t->no_object ? ev->id : t->no_object;
        json_decref(payload);
        return 0;
    }
    t->objects++;
    for (size_t i = 0; i < t->fields; i++) {
        struct field *f = &t->field[i];
        const json_t *v = json_object_get(payload, f->name);
        f->in += v != NULL;
        if (!v)
            f->lacks = ev->id > f->lacks ? ev->id : f->lacks;
        else if (kind_of(v) != KINDS)
            f->of_kind[kind_of(v)]++;
    }
    const char *name;
    json_t *ignored;
    json_object_foreach(payload, name, ignored) if (!rc) rc = note_name(t, name);
    json_decref(payload);
    return rc;
}

/* One pass over the events from..to; counting, or looking into payloads. */
static int pass(struct log *g, struct snapshot *sn, uint64_t from, uint64_t to, int counting,
                struct azoth_error *err)
{
    struct event_scan *es = NULL;
    struct event_record ev;
    int rc = event_scan_open(sn, from, to + 1, &es, err), got = 0, out = 0;
    while (!rc && !out && (got = event_scan_next(es, &ev, NULL, err)) == 1) {
        struct type *t = find_type(g, ev.type);
        if (!t)
            out = counting ? note_other(g, ev.type) : 0;
        else if (counting)
            t->here++;
        else if (t->pass_over)
            t->pass_over--;
        else if (t->left)
            out = look_at(t, &ev);
    }
    event_scan_close(es);
    if (out)
        return no_memory(err);
    return rc ? rc : got < 0 ? got : 0;
}

/* *ret_open: types of which more are wanted. */
static int stretch(struct log *g, struct store *store, uint64_t from, uint64_t to, size_t *ret_open,
                   struct azoth_error *err)
{
    struct snapshot *sn;
    int rc = snapshot_begin(store, &sn, err), any = 0;
    if (rc)
        return rc;
    rc = pass(g, sn, from, to, 1, err);
    for (size_t i = 0; i < g->types; i++) {
        struct type *t = &g->type[i];
        t->pass_over = t->here > t->left ? t->here - t->left : 0;
        any |= t->here && t->left;
        t->here = 0;
    }
    if (!rc && any)
        rc = pass(g, sn, from, to, 0, err);
    snapshot_end(sn);
    *ret_open = 0;
    for (size_t i = 0; i < g->types; i++)
        *ret_open += g->type[i].left > 0;
    return rc;
}

static int read_log(struct log *g, struct store *store, struct azoth_error *err)
{
    struct snapshot *sn;
    struct store_head head;
    struct progress progress;
    size_t open = g->types;
    int rc = snapshot_begin(store, &sn, err);
    if (rc)
        return rc;
    rc = snapshot_head(sn, &head, err);
    snapshot_end(sn);
    uint64_t at = rc ? 0 : head.event;
    progress_begin(&progress, g->def->name, 0, 0);
    while (!rc && at && open) {
        uint64_t from = at > STRETCH ? at - STRETCH + 1 : 1;
        rc = cmd_interrupted() ? 1 : stretch(g, store, from, at, &open, err);
        at = from - 1;
        progress_say(&progress, head.event - at, head.event, "events back:");
    }
    progress_end(&progress);
    return rc;
}

/* ---- names nearly alike ---- */

static int same_letters(struct azoth_bytes a, struct azoth_bytes b)
{
    return a.len == b.len && strncasecmp(a.ptr, b.ptr, a.len) == 0;
}

/* By case, or by one letter that is another, too many, missing, or swapped with the next; numbers are meant. */
static int alike(struct azoth_bytes a, struct azoth_bytes b)
{
    const char *p = a.ptr, *q = b.ptr;
    size_t i = 0;
    if (bytes_eq(a, b))
        return 0;
    if (same_letters(a, b))
        return 1;
    if (a.len < 3 || b.len < 3)
        return 0;
    while (i < a.len && i < b.len && p[i] == q[i])
        i++;
    if ((i < a.len && p[i] >= '0' && p[i] <= '9') || (i < b.len && q[i] >= '0' && q[i] <= '9'))
        return 0;
    struct azoth_bytes x = bytes_of(p + i, a.len - i), y = bytes_of(q + i, b.len - i);
    if (a.len == b.len && i + 1 < a.len && p[i] == q[i + 1] && p[i + 1] == q[i])
        return bytes_eq(bytes_of(p + i + 2, a.len - i - 2), bytes_of(q + i + 2, b.len - i - 2));
    if (a.len == b.len)
        return bytes_eq(bytes_of(p + i + 1, x.len - 1), bytes_of(q + i + 1, y.len - 1));
    if (a.len + 1 == b.len)
        return bytes_eq(x, bytes_of(q + i + 1, y.len - 1));
    return b.len + 1 == a.len && bytes_eq(bytes_of(p + i + 1, x.len - 1), y);
}

/* ---- what is told ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "amount, account"; with the one that may be meant. */
static void list_names(struct type *t, const char *wanted, char *out, size_t size)
{
    const char *meant = NULL;
    size_t at = 0;
    if (t->names_seen)
        qsort(t->name_seen, t->names_seen, sizeof *t->name_seen, compare_names);
    for (size_t i = 0; i < t->names_seen && !meant; i++)
        if (alike(bytes_str(t->name_seen[i]), bytes_str(wanted)))
            meant = t->name_seen[i];
    at += (size_t)snprintf(out, size, t->names_seen ? "they have" : "they have no fields");
    for (size_t i = 0; i < t->names_seen && i < NAMES_TOLD && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s %.40s", i ? "," : "", t->name_seen[i]);
    if (t->names_seen > NAMES_TOLD && at < size)
        at += (size_t)snprintf(out + at, size - at, ", ...");
    if (meant && at < size)
        snprintf(out + at, size - at, "; is %.40s meant?", meant);
}

static void tell_kinds(struct log *g, struct findings *out, const struct field *f, const char *type)
{
    char text[200];
    size_t at = 0;
    int kinds = 0;
    for (int k = 0; k < KINDS; k++) {
        if (!f->of_kind[k])
            continue;
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s in %llu", kinds ? ", " : "",
                               kind_names[k], (unsigned long long)f->of_kind[k]);
        kinds++;
    }
    if (kinds > 1)
        finding_at(out, FINDING_WARNING, g->def, f->at,
                   "field \"%s\" of \"%s\" is %s of the events looked at", f->name, type, text);
}

/* Without its field an event is in no order of its own and in any shard; in a handler it fails. */
static const char *effect_of(const struct field *f)
{
    if (!f->mark)
        return "the handler fails there";
    return strcmp(f->mark, "order-by") == 0 ? "they are in no order"
                                            : "they are all of the same shard";
}

/* Is there any type whose events have the field of a mark? */
static int in_another(const struct log *g, const struct field *f)
{
    for (size_t i = 0; i < g->types; i++)
        for (size_t k = 0; k < g->type[i].fields; k++)
            if (g->type[i].field[k].at == f->at && g->type[i].field[k].in)
                return 1;
    return 0;
}

static void tell_field(struct log *g, struct findings *out, struct type *t, const struct field *f,
                       const char *type)
{
    char names[400];
    if (f->in == 0) {
        list_names(t, f->name, names, sizeof names);
        int elsewhere = f->mark && in_another(g, f);
        finding_at(out, elsewhere ? FINDING_WARNING : FINDING_ERROR, g->def, f->at,
                   "no \"%s\" of %llu looked at has a field \"%s\"; %s", type,
                   (unsigned long long)t->objects, f->name, names);
        return;
    }
    if (f->in < t->objects)
        finding_at(
            out, FINDING_WARNING, g->def, f->at,
            "%llu of %llu \"%s\" looked at (%.1f %%) have no field \"%s\", the newest is event "
            "%llu: %s",
            (unsigned long long)(t->objects - f->in), (unsigned long long)t->objects, type,
            (double)(t->objects - f->in) * 100 / (double)t->objects, f->name,
            (unsigned long long)f->lacks, effect_of(f));
    tell_kinds(g, out, f, type);
}

static void tell_alike(struct log *g, struct findings *out, const struct type *t, const char *type)
{
    char other[80];
    for (size_t i = 0; i < g->others; i++)
        if (alike(g->other[i].name, t->name))
            finding_at(out, FINDING_HINT, g->def, t->name.ptr,
                       "the log has \"%s\" (%llu seen), which no handler takes: is it meant by "
                       "\"%s\"?",
                       bytes_print(g->other[i].name, other, sizeof other),
                       (unsigned long long)g->other[i].events, type);
}

static void tell_type(struct log *g, struct findings *out, struct type *t)
{
    char type[80] = "event";
    if (!g->all)
        bytes_print(t->name, type, sizeof type);
    tell_alike(g, out, t, type);
    if (!t->looked) {
        finding_at(out, FINDING_WARNING, g->def, g->all ? g->def->order_by_at : t->name.ptr,
                   "there is no \"%s\" in the log so far", type);
        return;
    }
    int handler_reads = t->fields && !t->field[0].mark;
    if (handler_reads && t->objects < t->looked)
        finding_at(
            out, t->objects ? FINDING_WARNING : FINDING_ERROR, g->def, t->field[0].at,
            "the payload of %llu of %llu \"%s\" looked at is no JSON object, the newest is event "
            "%llu: the handler reads its fields",
            (unsigned long long)(t->looked - t->objects), (unsigned long long)t->looked, type,
            (unsigned long long)t->no_object);
    for (size_t i = 0; t->objects && i < t->fields; i++)
        tell_field(g, out, t, &t->field[i], type);
}

int check_log(struct store *store, const struct sqlfile *def, uint64_t most, struct findings *f,
              struct azoth_error *err)
{
    struct log g = {.def = def};
    int rc = prepare(&g, most) ? no_memory(err) : 0;
    if (!rc)
        rc = read_log(&g, store, err);
    for (size_t i = 0; !rc && i < g.types; i++)
        tell_type(&g, f, &g.type[i]);
    log_fini(&g);
    return rc;
}
