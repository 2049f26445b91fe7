#include "projector/sqlfile.h"

#include "core/dbdir.h"
#include "core/error.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

struct parser {
    struct sqlfile *f;
    const char *at, *end, *line_start;
    uint32_t line;
    struct sql_block *block; /* the one that lines go to */
    struct azoth_error *err;
};

static int fail_at(struct parser *p, const char *where, const char *fmt, const char *what)
{
    char text[160];
    snprintf(text, sizeof text, fmt, what);
    return error_set(p->err, AZOTH_ERR_PROJECTION, "%s:%u:%u: %s", p->f->path, p->line,
                     (unsigned)(where - p->line_start) + 1, text);
}

/* ---- words of a mark ---- */

struct words {
    const char *at, *end;
};

static int next_word(struct words *w, char *out, size_t size, const char **ret_at)
{
    while (w->at < w->end && isspace((unsigned char)*w->at))
        w->at++;
    *ret_at = w->at;
    size_t n = 0;
    while (w->at < w->end && !isspace((unsigned char)*w->at)) {
        if (n + 1 < size)
            out[n++] = *w->at;
        w->at++;
    }
    out[n] = 0;
    return n > 0;
}

static int parse_strategy_name(const char *name, enum strategy *ret)
{
    static const char *const names[] = {"fail-fast", "log-and-skip", "dead-letter", "custom", "retry"};
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum strategy)i;
            return 1;
        }
    return 0;
}

static int parse_ms(const char *text, char **end, uint64_t *ret)
{
    if (!isdigit((unsigned char)*text))
        return 0;
    errno = 0;
    *ret = strtoull(text, end, 10);
    if (errno || *ret > 1000000000)
        return 0;
    if (strncmp(*end, "ms", 2) == 0) {
        *end += 2;
    } else if (**end == 's') {
        *ret *= 1000;
        *end += 1;
    } else if (strncmp(*end, "min", 3) == 0) {
        *ret *= 60000;
        *end += 3;
    } else {
        return 0;
    }
    return 1;
}

static int parse_on_error(struct parser *p, struct words *w)
{
    char word[64], *end;
    const char *at;
    struct sqlfile *f = p->f;
    if (!next_word(w, word, sizeof word, &at) || !parse_strategy_name(word, &f->strategy))
        return fail_at(p, at, "%s is no error strategy", word);
    if (f->strategy == STRATEGY_RETRY) {
        if (!next_word(w, word, sizeof word, &at) || !isdigit((unsigned char)*word))
            return fail_at(p, at, "retry wants a count%s", "");
        f->retry_count = (uint32_t)strtoul(word, NULL, 10);
        if (!next_word(w, word, sizeof word, &at) || !parse_ms(word, &end, &f->retry_min_ms) ||
            strncmp(end, "..", 2) != 0 || !parse_ms(end + 2, &end, &f->retry_max_ms) || *end ||
            f->retry_max_ms < f->retry_min_ms)
            return fail_at(p, at, "%s: retry wants MIN..MAX, as in 100ms..5s", word);
        f->retry_then = STRATEGY_FAIL_FAST;
        if (next_word(w, word, sizeof word, &at)) {
            if (strcmp(word, "then") != 0 || !next_word(w, word, sizeof word, &at) ||
                !parse_strategy_name(word, &f->retry_then) || f->retry_then == STRATEGY_RETRY)
                return fail_at(p, at, "%s: `then` and another strategy are wanted", word);
        }
    }
    if (next_word(w, word, sizeof word, &at))
        return fail_at(p, at, "%s: nothing more is wanted", word);
    if (f->strategy != STRATEGY_FAIL_FAST)
        return fail_at(p, p->line_start, "this version offers fail-fast only%s", "");
    return 0;
}

/* ---- marks ---- */

static int parse_projection(struct parser *p, struct words *w)
{
    char word[128];
    const char *at;
    if (p->f->name[0])
        return fail_at(p, p->line_start, "a file defines one projection, this one has %s", p->f->name);
    if (!next_word(w, word, sizeof word, &at) || !dbdir_name_valid(word))
        return fail_at(p, at, "\"%s\" is no name: a letter, then letters, digits, _ and -", word);
    snprintf(p->f->name, sizeof p->f->name, "%s", word);
    return 0;
}

static int parse_shard_by(struct parser *p, struct words *w)
{
    char word[256];
    const char *at;
    if (!next_word(w, word, sizeof word, &at) ||
        (strcmp(word, "@key") != 0 && (word[0] != ':' || !word[1])))
        return fail_at(p, at, "\"%s\": shard-by wants :field or @key", word);
    snprintf(p->f->shard_by, sizeof p->f->shard_by, "%s", word);
    return 0;
}

static int parse_migration(struct parser *p, struct words *w)
{
    char word[64];
    const char *at;
    struct sqlfile *f = p->f;
    if (!next_word(w, word, sizeof word, &at) || strspn(word, "0123456789") != strlen(word) ||
        strlen(word) > 9)
        return fail_at(p, at, "\"%s\": migration wants a number and a title", word);
    uint32_t version = (uint32_t)strtoul(word, NULL, 10);
    uint32_t last = f->migrations ? f->migration[f->migrations - 1].version : 0;
    if (version == last && last)
        return fail_at(p, at, "migration %s is there twice", word);
    if (version <= last)
        return fail_at(p, at, "migration %s follows a higher one", word);
    struct sql_migration *m = realloc(f->migration, (f->migrations + 1) * sizeof *m);
    if (!m)
        return error_set(p->err, AZOTH_ERR_NOMEM, "%s", f->path);
    f->migration = m;
    m = &f->migration[f->migrations++];
    memset(m, 0, sizeof *m);
    m->version = version;
    while (w->at < w->end && isspace((unsigned char)*w->at))
        w->at++;
    size_t n = (size_t)(w->end - w->at);
    while (n && isspace((unsigned char)w->at[n - 1]))
        n--;
    snprintf(m->title, sizeof m->title, "%.*s", (int)n, w->at);
    p->block = &m->up;
    return 0;
}

static int parse_undo(struct parser *p)
{
    struct sqlfile *f = p->f;
    if (!f->migrations || p->block != &f->migration[f->migrations - 1].up)
        return fail_at(p, p->line_start, "undo follows its migration%s", "");
    p->block = &f->migration[f->migrations - 1].undo;
    return 0;
}

static int type_taken(const struct sqlfile *f, struct azoth_bytes type)
{
    for (uint32_t i = 0; i < f->handlers; i++)
        for (uint32_t t = 0; t < f->handler[i].types_len; t++)
            if (bytes_eq(f->handler[i].types[t], type))
                return 1;
    return 0;
}

static int parse_on(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    struct sql_handler h = {.mark_line = p->line};
    while (w->at < w->end) {
        while (w->at < w->end && (isspace((unsigned char)*w->at) || *w->at == ','))
            w->at++;
        const char *from = w->at;
        while (w->at < w->end && *w->at != ',' && !isspace((unsigned char)*w->at))
            w->at++;
        struct azoth_bytes type = bytes_of(from, (size_t)(w->at - from));
        char text[80];
        if (type.len == 0)
            break;
        if (type.len > AZOTH_EVENT_TYPE_MAX)
            return fail_at(p, from, "an event's type has at most 255 bytes%s", "");
        bytes_print(type, text, sizeof text);
        for (uint32_t t = 0; t < h.types_len; t++)
            if (bytes_eq(h.types[t], type))
                return fail_at(p, from, "type %s has a handler already", text);
        if (type_taken(f, type))
            return fail_at(p, from, "type %s has a handler already", text);
        if (h.types_len == sizeof h.types / sizeof *h.types)
            return fail_at(p, from, "a handler has at most 16 types%s", "");
        h.types[h.types_len++] = type;
    }
    if (h.types_len == 0)
        return fail_at(p, w->end, "on wants an event type%s", "");
    struct sql_handler *all = realloc(f->handler, (f->handlers + 1) * sizeof *all);
    if (!all)
        return error_set(p->err, AZOTH_ERR_NOMEM, "%s", f->path);
    f->handler = all;
    f->handler[f->handlers] = h;
    p->block = &f->handler[f->handlers++].sql;
    return 0;
}

static int parse_mark(struct parser *p, const char *from, const char *to)
{
    struct words w = {from, to};
    char word[64];
    const char *at;
    if (!next_word(&w, word, sizeof word, &at))
        return fail_at(p, at, "a mark without a word%s", "");
    p->block = NULL;
    if (strcmp(word, "projection") == 0)
        return parse_projection(p, &w);
    if (!p->f->name[0])
        return fail_at(p, at, "the first mark is `projection NAME`, not %s", word);
    if (strcmp(word, "on-error") == 0)
        return parse_on_error(p, &w);
    if (strcmp(word, "shard-by") == 0)
        return parse_shard_by(p, &w);
    if (strcmp(word, "migration") == 0)
        return parse_migration(p, &w);
    if (strcmp(word, "undo") == 0) {
        p->block = p->f->migrations ? &p->f->migration[p->f->migrations - 1].up : NULL;
        return parse_undo(p);
    }
    if (strcmp(word, "on") == 0)
        return parse_on(p, &w);
    return fail_at(p, at, "there is no mark `%s`", word);
}

/* The text after "-- azoth:" when the line is a mark, else NULL. */
static const char *mark_of(const char *from, const char *to)
{
    while (from < to && (*from == ' ' || *from == '\t'))
        from++;
    if (to - from < 2 || from[0] != '-' || from[1] != '-')
        return NULL;
    from += 2;
    while (from < to && (*from == ' ' || *from == '\t'))
        from++;
    return to - from >= 6 && memcmp(from, "azoth:", 6) == 0 ? from + 6 : NULL;
}

static int line_is_comment(const char *from, const char *to)
{
    while (from < to && isspace((unsigned char)*from))
        from++;
    return from == to || (to - from >= 2 && from[0] == '-' && from[1] == '-');
}

static int parse_line(struct parser *p, const char *to)
{
    const char *mark = mark_of(p->at, to);
    if (mark)
        return parse_mark(p, mark, to);
    if (!p->block) {
        if (line_is_comment(p->at, to))
            return 0;
        return fail_at(p, p->at, "SQL stands in a migration or an `on` block%s", "");
    }
    if (!p->block->text.ptr) {
        p->block->text.ptr = p->at;
        p->block->line = p->line;
    }
    p->block->text.len = (size_t)(to - (const char *)p->block->text.ptr);
    return 0;
}

static void checksums(struct sqlfile *f)
{
    for (uint32_t i = 0; i < f->migrations; i++)
        f->migration[i].checksum =
            XXH3_64bits(f->migration[i].up.text.ptr, f->migration[i].up.text.len);
    f->checksum = 0;
    for (uint32_t i = 0; i < f->handlers; i++) {
        const struct sql_handler *h = &f->handler[i];
        for (uint32_t t = 0; t < h->types_len; t++)
            f->checksum = XXH3_64bits_withSeed(h->types[t].ptr, h->types[t].len, f->checksum);
        f->checksum = XXH3_64bits_withSeed(h->sql.text.ptr, h->sql.text.len, f->checksum);
    }
}

int sqlfile_parse(const char *path, struct azoth_bytes text, struct sqlfile *ret,
                  struct azoth_error *err)
{
    memset(ret, 0, sizeof *ret);
    snprintf(ret->path, sizeof ret->path, "%s", path);
    if (text.len > SQLFILE_BYTES_MAX)
        return error_set(err, AZOTH_ERR_PROJECTION, "%s: over %u bytes", path, SQLFILE_BYTES_MAX);
    if (text.len && (memchr(text.ptr, 0, text.len) || !utf8_valid(text)))
        return error_set(err, AZOTH_ERR_PROJECTION, "%s: not UTF-8 text", path);
    if (buf_add(&ret->text, text.ptr, text.len) || buf_add(&ret->text, "", 1)) {
        buf_fini(&ret->text);
        return error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    }
    const char *start = (const char *)ret->text.ptr;
    struct parser p = {.f = ret, .at = start, .end = start + text.len, .line = 1, .err = err};
    int rc = 0;
    while (p.at < p.end && !rc) {
        const char *nl = memchr(p.at, '\n', (size_t)(p.end - p.at));
        const char *to = nl ? nl : p.end;
        p.line_start = p.at;
        rc = parse_line(&p, to);
        p.at = nl ? nl + 1 : p.end;
        p.line++;
    }
    if (!rc && !ret->name[0])
        rc = error_set(err, AZOTH_ERR_PROJECTION, "%s:1:1: `-- azoth: projection NAME` is missing",
                       path);
    for (uint32_t i = 0; i < ret->handlers && !rc; i++)
        if (!ret->handler[i].sql.text.len)
            rc = error_set(err, AZOTH_ERR_PROJECTION, "%s:%u:1: this handler has no SQL", path,
                           ret->handler[i].mark_line);
    if (rc)
        sqlfile_fini(ret);
    else
        checksums(ret);
    return rc;
}

int sqlfile_read(const char *path, struct sqlfile *ret, struct azoth_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? error_set(err, AZOTH_ERR_PROJECTION, "%s: there is no such file", path)
                               : error_errno(err, errno, "%s", path);
    struct buf text = {0};
    int rc = 0;
    for (ssize_t n = 1; n > 0 && !rc;) {
        if (buf_reserve(&text, 65536)) {
            rc = error_set(err, AZOTH_ERR_NOMEM, "%s", path);
            break;
        }
        n = read(fd, text.ptr + text.len, 65536);
        if (n < 0 && errno != EINTR)
            rc = error_errno(err, errno, "%s", path);
        else if (n > 0)
            text.len += (size_t)n;
        if (text.len > SQLFILE_BYTES_MAX)
            break;
    }
    close(fd);
    if (!rc)
        rc = sqlfile_parse(path, buf_bytes(&text), ret, err);
    buf_fini(&text);
    return rc;
}

void sqlfile_fini(struct sqlfile *f)
{
    free(f->migration);
    free(f->handler);
    buf_fini(&f->text);
    f->migration = NULL;
    f->handler = NULL;
    f->migrations = f->handlers = 0;
}
