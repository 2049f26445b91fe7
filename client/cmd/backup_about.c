/* backup_about.c - about.json: what a backup says of itself. */
#include "client/cmd/backup.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

#define ABOUT_FORMAT 1

static const char *const kind_names[] = {"full", "increment", "sealed"};

const char *backup_kind_name(enum backup_kind kind)
{
    return kind_names[kind];
}

const char *backup_kind_word(enum backup_kind kind)
{
    return kind == BACKUP_INCREMENT ? "incremental" : backup_kind_name(kind);
}

struct backup_projection *backup_about_projection(struct backup_about *a)
{
    struct backup_projection *more = realloc(a->projection, (a->projections + 1) * sizeof *more);
    if (!more)
        return NULL;
    a->projection = more;
    more += a->projections++;
    memset(more, 0, sizeof *more);
    more->fd = -1;
    return more;
}

int backup_about_absence(struct backup_about *a, const char *name, const char *why)
{
    struct backup_absence *more = realloc(a->absent, (a->absences + 1) * sizeof *more);
    if (!more)
        return AZOTH_ERR_NOMEM;
    a->absent = more;
    more += a->absences++;
    snprintf(more->name, sizeof more->name, "%s", name);
    snprintf(more->why, sizeof more->why, "%s", why);
    return 0;
}

int backup_about_segment(struct backup_about *a, const struct backup_segment *s)
{
    struct backup_segment *more = realloc(a->segment, (a->segments + 1) * sizeof *more);
    if (!more)
        return AZOTH_ERR_NOMEM;
    a->segment = more;
    more[a->segments++] = *s;
    return 0;
}

void backup_about_fini(struct backup_about *a)
{
    for (size_t i = 0; i < a->projections; i++)
        if (a->projection[i].fd >= 0)
            close(a->projection[i].fd);
    free(a->projection);
    free(a->absent);
    free(a->segment);
    a->projection = NULL;
    a->absent = NULL;
    a->segment = NULL;
    a->projections = a->absences = a->segments = 0;
}

int backup_name_member(int rc, const char *name, struct azoth_error *err)
{
    char why[sizeof err->message];
    if (rc >= 0 || !*name || strstr(err->message, name))
        return rc;
    snprintf(why, sizeof why, "%s", err->message);
    snprintf(err->message, sizeof err->message, "at member %.60s or behind it: %.160s", name, why);
    return rc;
}

/* ---- writing ---- */

static void point(struct json_text *j, const char *key, const struct backup_point *p)
{
    out_open(j, key, '{');
    out_u64(j, "transaction", p->txn);
    out_u64(j, "event", p->event);
    out_i64(j, "time_ns", p->time_ns);
    out_close(j, '}');
}

static void chain(struct json_text *j, const char *key, const struct chain *c)
{
    char hex[2 * CHAIN_BYTES + 1];
    if (!c->on) {
        out_null(j, key);
        return;
    }
    bytes_hex(hex, c->value, CHAIN_BYTES);
    out_open(j, key, '{');
    out_str(j, "value", hex);
    out_u64(j, "transaction", c->txn);
    out_u64(j, "event", c->event);
    out_close(j, '}');
}

static void projection(struct json_text *j, const struct backup_projection *p, int sealed)
{
    char hex[65];
    out_open(j, NULL, '{');
    out_str(j, "name", p->is.name);
    out_str(j, "stem", p->stem);
    out_u64(j, "shard", p->is.shard);
    out_u64(j, "shards", p->is.shards);
    out_u64(j, "cursor", p->is.cursor);
    if (sealed) { /* of which generation the rows are says nothing of them */
        bytes_hex(hex, p->digest, sizeof p->digest);
        out_str(j, "digest", hex);
    } else {
        out_str(j, "file", p->file);
        out_u64(j, "generation", p->generation);
        out_bool(j, "serves", p->serves);
        out_u64(j, "cursor_check", p->is.cursor_check);
        out_u64(j, "bytes", p->bytes);
    }
    out_close(j, '}');
}

static void archive(struct json_text *j, const struct backup_about *a)
{
    char name[ARCHIVE_NAME_MAX], hex[2 * ARCHIVE_DIGEST + 1];
    if (!a->segments)
        return;
    out_open(j, "archive", '{');
    out_bool(j, "inside", !a->without_archive);
    out_open(j, "segments", '[');
    for (size_t i = 0; i < a->segments; i++) {
        const struct backup_segment *s = &a->segment[i];
        archivefile_name(name, s->first, s->last);
        bytes_hex(hex, s->digest, sizeof s->digest);
        out_open(j, NULL, '{');
        out_str(j, "name", name);
        out_u64(j, "first", s->first);
        out_u64(j, "last", s->last);
        out_u64(j, "bytes", s->bytes);
        out_str(j, "digest", hex);
        out_close(j, '}');
    }
    out_close(j, ']');
    out_close(j, '}');
}

static const char *or_null(const char *text)
{
    return *text ? text : NULL;
}

static void made(struct json_text *j, const struct backup_about *a)
{
    out_str(j, "id", a->id);
    out_str(j, "place", or_null(a->place));
    out_str(j, "parent", or_null(a->parent));
    out_i64(j, "created_ns", a->created_ns);
    out_str(j, "program", a->program);
}

void backup_about_absent_json(const struct backup_about *a, struct json_text *t)
{
    out_open(t, "absent", '[');
    for (size_t i = 0; i < a->absences; i++) {
        out_open(t, NULL, '{');
        out_str(t, "name", a->absent[i].name);
        out_str(t, "why", a->absent[i].why);
        out_close(t, '}');
    }
    out_close(t, ']');
}

int backup_about_text(const struct backup_about *a, struct buf *out, struct azoth_error *err)
{
    struct json_text j = {0};
    int sealed = a->kind == BACKUP_SEALED;
    out_open(&j, NULL, '{');
    out_u64(&j, "format", ABOUT_FORMAT);
    out_str(&j, "kind", kind_names[a->kind]);
    out_str(&j, "database", a->database);
    out_u64(&j, "store_created_ns", a->store_created_ns);
    if (!sealed)
        made(&j, a);
    point(&j, "from", &a->from);
    point(&j, "to", &a->to);
    chain(&j, "chain_start", &a->chain_start);
    chain(&j, "chain", &a->chain);
    if (a->kind == BACKUP_INCREMENT) {
        chain(&j, "chain_from", &a->chain_from);
        out_u64(&j, "running_ms", a->running_ms);
        out_u64(&j, "id_first", a->id_first);
    }
    out_open(&j, "projections", '[');
    for (size_t i = 0; i < a->projections; i++)
        if (!sealed || a->projection[i].serves)
            projection(&j, &a->projection[i], sealed);
    out_close(&j, ']');
    backup_about_absent_json(a, &j);
    archive(&j, a);
    out_close(&j, '}');
    if (j.failed)
        buf_fini(&j.b);
    else
        *out = j.b;
    return j.failed ? error_set(err, AZOTH_ERR_NOMEM, "about.json") : 0;
}

/* ---- reading ---- */

/* Of what we write ourselves, which is printed again: no byte in it tells a terminal to do something. */
static int is_plain_text(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            return 0;
    return 1;
}

/* Text of a key that fits; 1, or 0 when it is something else. A key that is not there, or null, is empty. */
static int get_text(const json_t *o, const char *key, char *out, size_t size)
{
    const json_t *v = json_object_get(o, key);
    out[0] = 0;
    if (!v || json_is_null(v))
        return 1;
    if (!json_is_string(v) || json_string_length(v) >= size ||
        !is_plain_text(json_string_value(v), json_string_length(v)))
        return 0;
    memcpy(out, json_string_value(v), json_string_length(v) + 1);
    return 1;
}

static int get_number(const json_t *o, const char *key, uint64_t *ret)
{
    const json_t *v = json_object_get(o, key);
    *ret = 0;
    if (!v || json_is_null(v))
        return 1;
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return 0;
    *ret = (uint64_t)json_integer_value(v);
    return 1;
}

static int get_hex(const json_t *o, const char *key, char out[BACKUP_ID_TEXT])
{
    uint8_t bytes[16];
    return get_text(o, key, out, BACKUP_ID_TEXT) && (!*out || cmd_unhex(out, bytes, sizeof bytes));
}

static int get_point(const json_t *o, const char *key, struct backup_point *ret)
{
    uint64_t time;
    const json_t *p = json_object_get(o, key);
    if (!json_is_object(p) || !get_number(p, "transaction", &ret->txn) ||
        !get_number(p, "event", &ret->event) || !get_number(p, "time_ns", &time))
        return 0;
    ret->time_ns = (int64_t)time;
    return 1;
}

static int get_chain(const json_t *o, const char *key, struct chain *ret)
{
    char hex[2 * CHAIN_BYTES + 1];
    const json_t *c = json_object_get(o, key);
    if (!c || json_is_null(c))
        return 1;
    ret->on = 1;
    return json_is_object(c) && get_text(c, "value", hex, sizeof hex) &&
           cmd_unhex(hex, ret->value, CHAIN_BYTES) && get_number(c, "transaction", &ret->txn) &&
           get_number(c, "event", &ret->event);
}

/* The file's name says stem and generation: they are taken from there alone. */
static int get_projection(const json_t *o, struct backup_about *a)
{
    struct backup_projection *p = backup_about_projection(a);
    char hex[65], stem[256];
    uint64_t shard, shards, check, n;
    if (!p || !get_text(o, "name", p->is.name, sizeof p->is.name) ||
        !get_text(o, "stem", p->stem, sizeof p->stem) || !get_number(o, "shard", &shard) ||
        !get_number(o, "shards", &shards) || !get_number(o, "cursor", &p->is.cursor) ||
        !get_text(o, "file", p->file, sizeof p->file) || !get_number(o, "cursor_check", &check) ||
        !get_number(o, "bytes", &p->bytes) || !get_text(o, "digest", hex, sizeof hex))
        return 0;
    p->is.shard = (uint32_t)shard;
    p->is.shards = (uint32_t)shards;
    p->is.cursor_check = (uint32_t)check;
    p->serves = json_is_true(json_object_get(o, "serves"));
    if (*hex && !cmd_unhex(hex, p->digest, sizeof p->digest))
        return 0;
    if (!*p->file)
        return 1;
    if (!filecopy_parse(p->file, stem, sizeof stem, &n) || strcmp(stem, p->stem) != 0)
        return 0;
    p->generation = n;
    return 1;
}

/* One behind the other from event 1 on, as they are recorded. */
static int get_archive(const json_t *o, struct backup_about *a)
{
    size_t i;
    json_t *v;
    uint64_t next = 1;
    const json_t *archive = json_object_get(o, "archive");
    if (!archive)
        return 1;
    a->without_archive = !json_is_true(json_object_get(archive, "inside"));
    json_array_foreach(json_object_get(archive, "segments"), i, v)
    {
        struct backup_segment s;
        char hex[2 * ARCHIVE_DIGEST + 1];
        if (!get_number(v, "first", &s.first) || !get_number(v, "last", &s.last) ||
            !get_number(v, "bytes", &s.bytes) || !get_text(v, "digest", hex, sizeof hex) ||
            !cmd_unhex(hex, s.digest, sizeof s.digest) || s.first != next || s.last < s.first ||
            backup_about_segment(a, &s))
            return 0;
        next = s.last + 1;
    }
    return 1;
}

static int get_lists(const json_t *o, struct backup_about *a)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(o, "projections"), i, v)
    {
        if (!get_projection(v, a))
            return 0;
    }
    json_array_foreach(json_object_get(o, "absent"), i, v)
    {
        char name[AZOTH_NAME_MAX + 1], why[160];
        if (!get_text(v, "name", name, sizeof name) || !get_text(v, "why", why, sizeof why) ||
            backup_about_absence(a, name, why))
            return 0;
    }
    return get_archive(o, a);
}

static int get_about(const json_t *o, struct backup_about *a)
{
    char kind[16];
    uint64_t created;
    int k = 0;
    if (!get_text(o, "kind", kind, sizeof kind))
        return 0;
    while (k < 3 && strcmp(kind, kind_names[k]) != 0)
        k++;
    if (k == 3)
        return 0;
    a->kind = (enum backup_kind)k;
    if (!get_hex(o, "id", a->id) || !get_hex(o, "database", a->database) || !*a->database ||
        !get_hex(o, "place", a->place) || !get_hex(o, "parent", a->parent) ||
        !get_number(o, "created_ns", &created) ||
        !get_number(o, "store_created_ns", &a->store_created_ns) ||
        !get_text(o, "program", a->program, sizeof a->program) || !get_point(o, "from", &a->from) ||
        !get_point(o, "to", &a->to) || !get_chain(o, "chain_start", &a->chain_start) ||
        !get_chain(o, "chain", &a->chain) || !get_chain(o, "chain_from", &a->chain_from) ||
        !get_number(o, "running_ms", &a->running_ms) || !get_number(o, "id_first", &a->id_first))
        return 0;
    a->created_ns = (int64_t)created;
    return get_lists(o, a);
}

int backup_about_parse(struct azoth_bytes text, struct backup_about *ret, struct azoth_error *err)
{
    json_error_t why;
    uint64_t format;
    memset(ret, 0, sizeof *ret);
    json_t *o = json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, &why);
    if (!o)
        return error_set(err, AZOTH_ERR_FORMAT, "about.json is no JSON from line %d, byte %d on",
                         why.line, why.column);
    int rc = 0;
    if (!json_is_object(o) || !get_number(o, "format", &format) || !format)
        rc = error_set(err, AZOTH_ERR_FORMAT, "about.json is of no backup of a database");
    else if (format != ABOUT_FORMAT)
        rc = error_set(err, AZOTH_ERR_FORMAT, "the backup has format %llu, this program knows %d",
                       (unsigned long long)format, ABOUT_FORMAT);
    else if (!get_about(o, ret))
        rc = error_set(err, AZOTH_ERR_FORMAT, "about.json is not of the form that it should have");
    json_decref(o);
    return rc;
}
