/*
 * sqlfile.c - parsing a definition, line by line: a mark opens a block, other lines belong to the open
 * block. SQL is not looked into further than to find where comments end: SQLite splits statements.
 */
#include "projector/sqlfile.h"

#include "core/dbdir.h"
#include "core/error.h"
#include "core/io.h"
#include "projector/marks.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

static int told(struct parser *p, const struct azoth_error *e)
{
    if (!p->failed && p->err)
        *p->err = *e;
    if (!p->failed)
        p->failed = e->code;
    if (p->report)
        p->report(p->arg, e);
    return e->code;
}

int fail_at(struct parser *p, const char *where, const char *fmt, struct azoth_bytes what)
{
    char shown[80], text[200];
    struct azoth_error e = {0};
    bytes_print(what, shown, sizeof shown);
    snprintf(text, sizeof text, fmt, shown);
    error_set(&e, AZOTH_ERR_PROJECTION, "%s:%u:%u: %s", p->f->path, p->line,
              (unsigned)(where - p->line_start) + 1, text);
    return told(p, &e);
}

int fail_line(struct parser *p, uint32_t line, const char *what)
{
    struct azoth_error e = {0};
    error_set(&e, AZOTH_ERR_PROJECTION, "%s:%u:1: %s", p->f->path, line, what);
    return told(p, &e);
}

int fail_memory(struct parser *p)
{
    struct azoth_error e = {0};
    error_set(&e, AZOTH_ERR_NOMEM, "%s", p->f->path);
    return told(p, &e);
}

/* ---- the other marks ---- */

static int parse_projection(struct parser *p, struct words *w)
{
    char name[AZOTH_NAME_MAX + 2];
    struct azoth_bytes word = next_word(w);
    if (p->f->name[0])
        return fail_at(p, word.ptr, "a file defines one projection, this one has %s",
                       bytes_str(p->f->name));
    snprintf(name, sizeof name, "%.*s",
             (int)(word.len > AZOTH_NAME_MAX ? AZOTH_NAME_MAX + 1 : word.len),
             (const char *)word.ptr);
    if (!dbdir_name_valid(name))
        return fail_at(p, word.ptr, "\"%s\" is no name: a letter, then letters, digits, _ and -",
                       word);
    memcpy(p->f->name, name, sizeof p->f->name);
    return nothing_more(p, w);
}

/* What CONNINFO says is not quoted in an error. */
static int parse_target(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    struct azoth_bytes word = next_word(w);
    if (f->target != TARGET_SQLITE)
        return fail_at(p, word.ptr, "a file has one target%s", bytes_of(NULL, 0));
    if (!is_word(word, "postgresql"))
        return fail_at(p, word.ptr, "\"%s\" is no target: postgresql", word);
    if (f->effects[0])
        return fail_at(p, word.ptr, "effects have no target%s", bytes_of(NULL, 0));
    if (f->shards)
        return fail_at(p, word.ptr, "a projection in PostgreSQL is not split%s", bytes_of(NULL, 0));
    if (f->load[0])
        return fail_at(p, word.ptr, "handlers in C write to SQLite: no other target%s",
                       bytes_of(NULL, 0));
    struct azoth_bytes rest = rest_of_line(w);
    if (rest.len > SQLFILE_CONNINFO_MAX)
        return fail_at(p, rest.ptr, "a connection string has at most 1023 bytes%s",
                       bytes_of(NULL, 0));
    f->target = TARGET_POSTGRESQL;
    memcpy(f->conninfo, rest.ptr, rest.len);
    f->conninfo[rest.len] = 0;
    return 0;
}

static int parse_effects(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    struct azoth_bytes command = rest_of_line(w);
    const char *at = command.ptr;
    if (f->effects[0])
        return fail_at(p, at, "a file has one effects command%s", bytes_of(NULL, 0));
    if (p->policy_given || f->policies || f->order_by[0] || f->load[0] || f->migrations ||
        f->handlers || f->replay.every_ms || f->breaker.failures || f->shards ||
        f->target != TARGET_SQLITE)
        return fail_at(p, at, "effects stands before the marks that are about it%s",
                       bytes_of(NULL, 0));
    if (command.len == 0)
        return fail_at(p, at, "effects wants the command to run%s", command);
    if (command.len > SQLFILE_COMMAND_MAX)
        return fail_at(p, at, "a command has at most 1023 bytes, not: %s", command);
    memcpy(f->effects, at, command.len);
    f->effects[command.len] = 0;
    f->lease_ms = 30000;
    return 0;
}

static int parse_lease(struct parser *p, struct words *w)
{
    struct azoth_bytes word = next_word(w);
    uint64_t ms;
    if (!p->f->effects[0])
        return fail_at(p, word.ptr, "lease %s: of effects, behind their mark", word);
    if (!word_time(word, &ms) || ms < 1000 || ms > 3600000)
        return fail_at(p, word.ptr, "\"%s\": lease wants a time of 1s to 60min", word);
    p->f->lease_ms = ms;
    return nothing_more(p, w);
}

/* Of effects, which may have none. */
static int parse_effects_order(struct parser *p, struct words *w)
{
    struct words at = *w;
    struct azoth_bytes word = next_word(&at);
    if (p->order_given)
        return fail_at(p, word.ptr, "order-by %s: a file has one order-by", word);
    p->order_given = 1;
    if (!is_word(word, "none"))
        return parse_order_by(p, w);
    return nothing_more(p, &at);
}

/* What effects do not have is refused where it stands. */
static int refuse_of_effects(struct parser *p, const struct words *w, struct azoth_bytes mark)
{
    struct words at = *w;
    return fail_at(p, next_word(&at).ptr, "effects have no %s", mark);
}

static int parse_effects_on_error(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    struct words at = *w;
    struct azoth_bytes name = next_word(&at);
    int rc = parse_on_error(p, w);
    if (!rc && f->policies)
        rc = fail_at(p, name.ptr, "on-error %s: of effects it is for all types alike", name);
    if (!rc && (f->policy.strategy == STRATEGY_CUSTOM || f->policy.then == STRATEGY_CUSTOM))
        rc = fail_at(p, name.ptr, "on-error %s: effects have no handler in C to ask", name);
    return rc;
}

static int parse_migration(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    struct azoth_bytes word = next_word(w);
    uint64_t version;
    if (f->effects[0])
        return fail_at(p, p->line_start, "effects keep no tables of their own: no migration%s",
                       bytes_of(NULL, 0));
    if (!word_number(word, 999999999, &version) || version == 0)
        return fail_at(p, word.ptr, "\"%s\": migration wants a number from 1 and a title", word);
    for (uint32_t i = f->migrations; i > 0 && f->migration[i - 1].version >= version; i--)
        if (f->migration[i - 1].version == version)
            return fail_at(p, word.ptr, "migration %s is there twice", word);
    if (f->migrations && f->migration[f->migrations - 1].version > version)
        return fail_at(p, word.ptr, "migration %s follows a higher one", word);
    struct azoth_bytes title = rest_of_line(w);
    if (title.len > SQLFILE_TITLE_MAX)
        return fail_at(p, w->at, "a title has at most 79 bytes, not: %s", title);
    if (f->migrations == SQLFILE_MIGRATIONS_MAX)
        return fail_at(p, word.ptr, "migration %s: there are 10000 already", word);
    struct sql_migration *m = realloc(f->migration, (f->migrations + 1) * sizeof *m);
    if (!m)
        return fail_memory(p);
    f->migration = m;
    m = &f->migration[f->migrations++];
    memset(m, 0, sizeof *m);
    m->version = (uint32_t)version;
    m->mark_line = p->line;
    memcpy(m->title, title.ptr, title.len);
    p->block = &m->up;
    return 0;
}

/* open: the block that this mark ends. */
static int parse_undo(struct parser *p, struct words *w, const struct sql_block *open)
{
    struct sqlfile *f = p->f;
    struct sql_migration *m = f->migrations ? &f->migration[f->migrations - 1] : NULL;
    if (!m || open != &m->up)
        return fail_at(p, p->line_start, "undo follows the SQL of its migration%s",
                       bytes_of(NULL, 0));
    p->block = &m->undo;
    m->undo_line = p->line;
    return nothing_more(p, w);
}

static int type_taken(const struct sqlfile *f, const struct sql_handler *h, struct azoth_bytes type)
{
    for (uint32_t t = 0; t < h->types_len; t++)
        if (bytes_eq(h->types[t], type))
            return 1;
    for (uint32_t i = 0; i < f->handlers; i++)
        for (uint32_t t = 0; t < f->handler[i].types_len; t++)
            if (bytes_eq(f->handler[i].types[t], type))
                return 1;
    return 0;
}

static int add_type(struct parser *p, struct sql_handler *h, struct azoth_bytes type)
{
    if (type.len == 0)
        return fail_at(p, type.ptr, "an event type is wanted here%s", bytes_of(NULL, 0));
    if (type.len > AZOTH_EVENT_TYPE_MAX)
        return fail_at(p, type.ptr, "an event's type has at most 255 bytes, not: %s", type);
    if (type_taken(p->f, h, type))
        return fail_at(p, type.ptr, "type %s has a handler already", type);
    if (h->types_len == SQLFILE_TYPES_MAX)
        return fail_at(p, type.ptr, "%s: a handler has at most 16 types", type);
    p->types_bytes += type.len + 1;
    if (p->types_bytes > SQLFILE_TYPES_BYTES_MAX)
        return fail_at(p, type.ptr, "%s: all types together are over 65536 bytes", type);
    h->types[h->types_len++] = type;
    return 0;
}

static int parse_types(struct parser *p, struct words *w, struct sql_handler *h)
{
    int rc;
    do {
        rc = add_type(p, h, next_type(w));
        if (!rc)
            rc = parse_in_c(p, w, h);
        if (!rc)
            rc = next_comma(p, w);
    } while (rc == 1);
    return rc;
}

static int parse_on(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    struct sql_handler h = {.mark_line = p->line};
    if (f->handlers == SQLFILE_HANDLERS_MAX)
        return fail_at(p, p->line_start, "a file has at most 1024 handlers%s", bytes_of(NULL, 0));
    int rc = parse_types(p, w, &h);
    if (rc)
        return rc;
    struct sql_handler *all = realloc(f->handler, (f->handlers + 1) * sizeof *all);
    if (!all)
        return fail_memory(p);
    f->handler = all;
    f->handler[f->handlers] = h;
    p->block = &f->handler[f->handlers++].sql;
    return 0;
}

static int parse_mark(struct parser *p, const char *from, const char *to)
{
    struct words w = {from, to};
    struct azoth_bytes word = next_word(&w);
    const struct sql_block *open = p->block;
    p->block = NULL;
    if (word.len == 0)
        return fail_at(p, word.ptr, "a mark without a word%s", word);
    if (is_word(word, "projection"))
        return parse_projection(p, &w);
    if (!p->f->name[0] && !p->failed)
        return fail_at(p, word.ptr, "the first mark is `projection NAME`, not %s", word);
    if (is_word(word, "target"))
        return parse_target(p, &w);
    if (is_word(word, "effects"))
        return parse_effects(p, &w);
    if (is_word(word, "lease"))
        return parse_lease(p, &w);
    if (p->f->effects[0] && is_word(word, "on-error"))
        return parse_effects_on_error(p, &w);
    if (p->f->effects[0] && is_word(word, "order-by"))
        return parse_effects_order(p, &w);
    if (p->f->effects[0] &&
        (is_word(word, "replay") || is_word(word, "breaker") || is_word(word, "shards")))
        return refuse_of_effects(p, &w, word);
    if (is_word(word, "on-error"))
        return parse_on_error(p, &w);
    if (is_word(word, "replay"))
        return parse_replay(p, &w);
    if (is_word(word, "order-by"))
        return parse_order_by(p, &w);
    if (is_word(word, "breaker"))
        return parse_breaker(p, &w);
    if (is_word(word, "shard-by"))
        return parse_shard_by(p, &w);
    if (is_word(word, "shards"))
        return parse_shards(p, &w);
    if (is_word(word, "migration"))
        return parse_migration(p, &w);
    if (is_word(word, "undo"))
        return parse_undo(p, &w, open);
    if (is_word(word, "on"))
        return parse_on(p, &w);
    if (is_word(word, "load"))
        return parse_load(p, &w);
    return fail_at(p, word.ptr, "there is no mark `%s`", word);
}

/* ---- lines ---- */

/*
 * The text after "-- azoth:" when the line is a mark, else NULL. Neither letters' case nor blanks make
 * it a comment: a handler that is silently none would be worse.
 */
static const char *mark_of(const char *from, const char *to)
{
    struct words w = {from, to};
    skip_blanks(&w);
    if (w.end - w.at < 2 || w.at[0] != '-' || w.at[1] != '-')
        return NULL;
    w.at += 2;
    skip_blanks(&w);
    if (w.end - w.at < 6 || strncasecmp(w.at, "azoth", 5) != 0)
        return NULL;
    w.at += 5;
    skip_blanks(&w);
    return w.at < w.end && *w.at == ':' ? w.at + 1 : NULL;
}

static int line_is_comment(const char *from, const char *to)
{
    struct words w = {from, to};
    skip_blanks(&w);
    return w.at == w.end || (w.end - w.at >= 2 && w.at[0] == '-' && w.at[1] == '-');
}

static int parse_line(struct parser *p, const char *to)
{
    const char *mark = mark_of(p->at, to);
    if (mark) {
        int rc = parse_mark(p, mark, to);
        p->skipping = rc != 0;
        return rc;
    }
    if (!p->block) {
        if (p->skipping || line_is_comment(p->at, to))
            return 0;
        p->skipping = 1;
        return fail_at(p, p->at, "SQL stands in a migration or an `on` block%s", bytes_of(NULL, 0));
    }
    if (!p->block->text.ptr) {
        p->block->text.ptr = p->at;
        p->block->line = p->line;
    }
    p->block->text.len = (size_t)(to - (const char *)p->block->text.ptr);
    return 0;
}

/* ---- blocks ---- */

/* Behind the string, name or comment that begins at p[at], as SQLite's tokenizer sees it. */
static size_t skip_token(const char *p, size_t at, size_t len, int *ret_comment)
{
    char c = p[at], next = at + 1 < len ? p[at + 1] : 0;
    *ret_comment = (c == '-' && next == '-') || (c == '/' && next == '*');
    if (c == '-' && next == '-') {
        while (at < len && p[at] != '\n')
            at++;
    } else if (c == '/' && next == '*') {
        const char *end = memmem(p + at + 2, len - at - 2, "*/", 2);
        at = end ? (size_t)(end + 2 - p) : len;
    } else if (c == '\'' || c == '"' || c == '`' || c == '[') {
        /* A doubled quote is an end and a beginning: the same for us. */
        const char *end = memchr(p + at + 1, c == '[' ? ']' : c, len - at - 1);
        at = end ? (size_t)(end + 1 - p) : len;
    } else {
        at++;
    }
    return at;
}

/* Blank lines and comments around the SQL go, so that no checksum depends on them. */
static void block_trim(struct sql_block *b)
{
    const char *p = b->text.ptr;
    size_t len = b->text.len, at = 0, line_start = 0, from = 0, to = 0;
    uint32_t line = b->line, from_line = line;
    int found = 0, comment;
    while (at < len) {
        size_t begin = at;
        at = skip_token(p, at, len, &comment);
        if (!comment && !is_blank(p[begin])) {
            if (!found) {
                from = line_start;
                from_line = line;
            }
            found = 1;
            to = at;
        }
        for (size_t i = begin; i < at; i++)
            if (p[i] == '\n') {
                line++;
                line_start = i + 1;
            }
    }
    b->line = from_line;
    b->text = bytes_of(p ? p + from : NULL, to - from);
}

void sqlfile_position(const struct sql_block *b, size_t at, uint32_t *ret_line,
                      uint32_t *ret_column)
{
    const char *p = b->text.ptr;
    *ret_line = b->line;
    *ret_column = 1;
    for (size_t i = 0; i < at && i < b->text.len; i++) {
        ++*ret_column;
        if (p[i] == '\n') {
            ++*ret_line;
            *ret_column = 1;
        }
    }
}

void sqlfile_place(const struct sqlfile *f, const void *at, uint32_t *ret_line,
                   uint32_t *ret_column)
{
    const char *text = (const char *)f->text.ptr, *start = text;
    *ret_line = 1;
    for (const char *p = text; p < (const char *)at; p++)
        if (*p == '\n') {
            ++*ret_line;
            start = p + 1;
        }
    *ret_column = (uint32_t)((const char *)at - start) + 1;
}

/* ---- words of SQL ---- */

static int is_word_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '$' || (unsigned char)c >= 0x80;
}

static int begins_parameter(char c)
{
    return c == ':' || c == '@' || c == '#' || c == '$' || c == '?';
}

int sqlfile_is_parameter(struct azoth_bytes word)
{
    return word.len > 0 && begins_parameter(*(const char *)word.ptr);
}

int sqlfile_word(struct azoth_bytes sql, size_t *at, struct azoth_bytes *ret)
{
    const char *p = sql.ptr;
    int comment;
    while (*at < sql.len) {
        size_t from = *at, to = from + 1;
        if (is_word_byte(p[from]) || begins_parameter(p[from])) {
            /* "::" is part of a name for SQLite, as Tcl has it. */
            while (to < sql.len && (is_word_byte(p[to]) ||
                                    (p[to] == ':' && to + 1 < sql.len && p[to + 1] == ':' && to++)))
                to++;
            *at = to;
            *ret = bytes_of(p + from, to - from);
            return 1;
        }
        *at = skip_token(p, from, sql.len, &comment);
        if (!comment && strchr("\"`[", p[from]) && *at - from > 2) {
            *ret = bytes_of(p + from + 1, *at - from - 2);
            return 1;
        }
    }
    return 0;
}

size_t sqlfile_find(struct azoth_bytes sql, size_t from, size_t to, const char *word)
{
    struct azoth_bytes found;
    if (from >= to)
        return from;
    sql = bytes_of((const char *)sql.ptr + from, to - from);
    const char *want = word ? word : "?";
    size_t at = 0, len = strlen(want);
    int exact = begins_parameter(*want);
    while (sqlfile_word(sql, &at, &found))
        if (found.len >= len && (found.len == len || !word) &&
            (exact ? memcmp(found.ptr, want, len) : strncasecmp(found.ptr, want, len)) == 0)
            return from + (size_t)((const char *)found.ptr - (const char *)sql.ptr);
    return from;
}

/* What can be said only at the end. */
static int finish(struct parser *p)
{
    struct sqlfile *f = p->f;
    if (!f->name[0] && !p->failed)
        fail_line(p, 1, "`-- azoth: projection NAME` is missing");
    for (uint32_t i = 0; i < f->migrations; i++) {
        struct sql_migration *m = &f->migration[i];
        block_trim(&m->up);
        block_trim(&m->undo);
        if (!m->up.text.len)
            fail_line(p, m->mark_line, "this migration has no SQL");
        if (m->undo_line && !m->undo.text.len)
            fail_line(p, m->undo_line, "this undo has no SQL");
        m->checksum = XXH3_64bits(m->up.text.ptr, m->up.text.len);
    }
    f->checksum = 0;
    for (uint32_t i = 0; i < f->handlers; i++) {
        struct sql_handler *h = &f->handler[i];
        block_trim(&h->sql);
        if (f->effects[0] && h->sql.text.len)
            fail_line(p, h->sql.line, "effects run their command: no SQL");
        else if (h->in_c && f->target != TARGET_SQLITE)
            fail_line(p, h->mark_line, "handlers in C write to SQLite: no other target");
        else if (h->in_c && h->sql.text.len)
            fail_line(p, h->sql.line, "the handler is in C: no SQL");
        else if (!f->effects[0] && !h->in_c && !h->sql.text.len)
            fail_line(p, h->mark_line, "this handler has no SQL");
        for (uint32_t t = 0; t < h->types_len; t++)
            f->checksum = XXH3_64bits_withSeed(h->types[t].ptr, h->types[t].len, f->checksum);
        f->checksum = h->in_c ? XXH3_64bits_withSeed("in C", 4, f->checksum)
                              : XXH3_64bits_withSeed(h->sql.text.ptr, h->sql.text.len, f->checksum);
    }
    if (f->effects[0] && !p->order_given)
        snprintf(f->order_by, sizeof f->order_by, "@key");
    marks_finish(p);
    return p->failed;
}

/* ---- the file ---- */

/* Text that SQLite can be given: UTF-8 without NULs. Says where it is not. */
static int check_text(struct parser *p, struct azoth_bytes text)
{
    const char *start = text.ptr, *nul = text.len ? memchr(text.ptr, 0, text.len) : NULL;
    if (text.len > SQLFILE_BYTES_MAX)
        return fail_line(p, 1, "a definition has at most 1048576 bytes");
    if (!nul && utf8_valid(text))
        return 0;
    p->at = start;
    for (p->line_start = p->at; p->at < start + text.len;) {
        const char *nl = memchr(p->at, '\n', text.len - (size_t)(p->at - start));
        const char *to = nl ? nl + 1 : start + text.len;
        struct azoth_bytes line = bytes_of(p->at, (size_t)(to - p->at));
        p->line_start = p->at;
        if (memchr(line.ptr, 0, line.len) || !utf8_valid(line))
            break;
        p->at = to;
        p->line++;
    }
    /* The longest prefix that is text ends where the fault is. */
    size_t good = 0, left = text.len - (size_t)(p->line_start - start);
    for (size_t n = 1; n <= left && p->line_start[n - 1]; n++) {
        if (utf8_valid(bytes_of(p->line_start + good, n - good)))
            good = n;
        else if (n - good >= 4)
            break;
    }
    return fail_at(p, p->line_start + good,
                   nul ? "not UTF-8 text without NULs%s" : "not UTF-8 text%s", bytes_of(NULL, 0));
}

static int parse(const char *path, struct azoth_bytes text, struct parser *p)
{
    static const size_t shown = 120; /* of the path: a message has 239 bytes */
    struct sqlfile *f = p->f;
    size_t n = strlen(path);
    const char *tail = path + (n > shown ? n - shown : 0);
    while (((unsigned char)*tail & 0xc0) == 0x80) /* within a character */
        tail++;
    memset(f, 0, sizeof *f);
    p->path = path;
    snprintf(f->path, sizeof f->path, "%s%s", tail > path ? "..." : "", tail);
    p->line = 1;
    int rc = check_text(p, text);
    if (rc)
        return rc;
    if (buf_add(&f->text, text.ptr, text.len) || buf_add(&f->text, "", 1))
        return fail_memory(p);
    p->line = 1;
    p->at = (const char *)f->text.ptr;
    p->end = p->at + text.len;
    if (text.len >= 3 && memcmp(p->at, "\xef\xbb\xbf", 3) == 0)
        p->at += 3; /* a byte order mark, as some editors write it */
    while (p->at < p->end) {
        const char *nl = memchr(p->at, '\n', (size_t)(p->end - p->at));
        const char *to = nl ? nl : p->end;
        p->line_start = p->at;
        rc = parse_line(p, to);
        if (rc && (rc != AZOTH_ERR_PROJECTION || !p->report))
            return rc;
        p->at = nl ? nl + 1 : p->end;
        p->line++;
    }
    return finish(p);
}

int sqlfile_parse(const char *path, struct azoth_bytes text, struct sqlfile *ret,
                  struct azoth_error *err)
{
    struct parser p = {.f = ret, .err = err};
    int rc = parse(path, text, &p);
    if (rc)
        sqlfile_fini(ret);
    return rc;
}

int sqlfile_parse_all(const char *path, struct azoth_bytes text, struct sqlfile *ret,
                      sqlfile_report report, void *arg)
{
    struct parser p = {.f = ret, .report = report, .arg = arg};
    return parse(path, text, &p);
}

static int read_text(const char *path, struct buf *out, struct azoth_error *err)
{
    struct stat st;
    /* O_NONBLOCK: a FIFO of this name must not hold us up before it is refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT
                   ? error_set(err, AZOTH_ERR_PROJECTION, "%s: there is no such file", path)
                   : error_errno(err, errno, "%s", path);
    int rc = 0;
    if (fstat(fd, &st))
        rc = error_errno(err, errno, "%s", path);
    else if (!S_ISREG(st.st_mode))
        rc = error_set(err, AZOTH_ERR_PROJECTION, "%s: not a regular file", path);
    /* A byte over the limit is enough to refuse it. */
    if (!rc)
        rc = io_read_all(fd, out, SQLFILE_BYTES_MAX, path, err);
    close(fd);
    return rc;
}

int sqlfile_read(const char *path, struct sqlfile *ret, struct azoth_error *err)
{
    struct buf text = {0};
    memset(ret, 0, sizeof *ret);
    int rc = read_text(path, &text, err);
    if (!rc)
        rc = sqlfile_parse(path, buf_bytes(&text), ret, err);
    buf_fini(&text);
    return rc;
}

int sqlfile_read_all(const char *path, struct sqlfile *ret, sqlfile_report report, void *arg)
{
    struct buf text = {0};
    struct azoth_error err = {0};
    memset(ret, 0, sizeof *ret);
    int rc = read_text(path, &text, &err);
    if (rc)
        report(arg, &err);
    else
        rc = sqlfile_parse_all(path, buf_bytes(&text), ret, report, arg);
    buf_fini(&text);
    return rc;
}

void sqlfile_fini(struct sqlfile *f)
{
    free(f->migration);
    free(f->handler);
    free(f->policy_for);
    buf_fini(&f->text);
    f->migration = NULL;
    f->handler = NULL;
    f->policy_for = NULL;
    f->migrations = f->handlers = f->policies = 0;
}
