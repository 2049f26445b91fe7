/* marks.c - the words of a mark, and the marks about failures: on-error, replay, order-by, breaker. */
#include "projector/marks.h"

#include "projector/split.h"

#include "core/error.h"

#include <string.h>

#define POLICIES_MAX 1024u
#define BATCH_MAX    10000u
#define COUNT_MAX    1000000u

/* ---- words of a mark ---- */

/* Of ASCII, whatever the locale says. */
int is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

void skip_blanks(struct words *w)
{
    while (w->at < w->end && is_blank(*w->at))
        w->at++;
}

struct azoth_bytes next_word(struct words *w)
{
    skip_blanks(w);
    const char *from = w->at;
    while (w->at < w->end && !is_blank(*w->at))
        w->at++;
    return bytes_of(from, (size_t)(w->at - from));
}

int is_word(struct azoth_bytes word, const char *s)
{
    return bytes_eq(word, bytes_str(s));
}

/* Digits at *at, moved behind them; 0 when there are none or it is over max. */
static int take_number(const char **at, const char *end, uint64_t max, uint64_t *ret)
{
    uint64_t n = 0;
    const char *from = *at;
    for (; *at < end && is_digit(**at); ++*at) {
        n = n * 10 + (uint64_t)(**at - '0');
        if (n > max)
            return 0;
    }
    *ret = n;
    return *at > from;
}

int word_number(struct azoth_bytes word, uint64_t max, uint64_t *ret)
{
    const char *at = word.ptr, *end = at + word.len;
    return take_number(&at, end, max, ret) && at == end;
}

static int take_text(const char **at, const char *end, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(end - *at) < n || memcmp(*at, text, n) != 0)
        return 0;
    *at += n;
    return 1;
}

static int take_ms(const char **at, const char *end, uint64_t *ret)
{
    uint64_t n;
    if (!take_number(at, end, 1000000000, &n))
        return 0;
    if (take_text(at, end, "min"))
        n *= 60000;
    else if (take_text(at, end, "s"))
        n *= 1000;
    else if (!take_text(at, end, "ms"))
        return 0;
    *ret = n;
    return 1;
}

/* "100ms..5s" */
static int word_range(struct azoth_bytes word, uint64_t *ret_min, uint64_t *ret_max)
{
    const char *at = word.ptr, *end = at + word.len;
    return take_ms(&at, end, ret_min) && take_text(&at, end, "..") && take_ms(&at, end, ret_max) &&
           at == end && *ret_max >= *ret_min;
}

int nothing_more(struct parser *p, struct words *w)
{
    struct azoth_bytes word = next_word(w);
    return word.len ? fail_at(p, word.ptr, "%s: nothing more is wanted on this line", word) : 0;
}

struct azoth_bytes rest_of_line(struct words *w)
{
    skip_blanks(w);
    struct azoth_bytes rest = bytes_of(w->at, (size_t)(w->end - w->at));
    while (rest.len && is_blank(w->at[rest.len - 1]))
        rest.len--;
    return rest;
}

struct azoth_bytes next_type(struct words *w)
{
    skip_blanks(w);
    const char *from = w->at;
    while (w->at < w->end && *w->at != ',' && !is_blank(*w->at))
        w->at++;
    return bytes_of(from, (size_t)(w->at - from));
}

int next_comma(struct parser *p, struct words *w)
{
    skip_blanks(w);
    if (w->at == w->end)
        return 0;
    if (*w->at != ',') {
        struct azoth_bytes word = next_word(w);
        return fail_at(p, word.ptr, "\"%s\": a comma is wanted between types", word);
    }
    w->at++;
    return 1;
}

/* A word, or a comma that stands behind one. */
static struct azoth_bytes next_item(struct words *w)
{
    skip_blanks(w);
    if (w->at < w->end && *w->at == ',')
        return bytes_of(w->at++, 1);
    return next_type(w);
}

/* ":field" or "@key" into out, which is empty unless the mark was there before. */
static int parse_field(struct parser *p, struct words *w, const char *mark, char *out, size_t size,
                       const char **ret_at)
{
    struct azoth_bytes word = next_word(w);
    const char *s = word.ptr;
    char fmt[80];
    if (!is_word(word, "@key") && (word.len < 2 || *s != ':' || word.len >= size)) {
        snprintf(fmt, sizeof fmt, "\"%%s\": %s wants :field or @key", mark);
        return fail_at(p, s, fmt, word);
    }
    if (out[0]) {
        snprintf(fmt, sizeof fmt, "%s %%s: a file has one %s", mark, mark);
        return fail_at(p, s, fmt, word);
    }
    memcpy(out, s, word.len);
    out[word.len] = 0;
    *ret_at = s;
    return nothing_more(p, w);
}

int parse_order_by(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    return parse_field(p, w, "order-by", f->order_by, sizeof f->order_by, &f->order_by_at);
}

int parse_shard_by(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    return parse_field(p, w, "shard-by", f->shard_by, sizeof f->shard_by, &f->shard_by_at);
}

int parse_shards(struct parser *p, struct words *w)
{
    struct azoth_bytes word = next_word(w);
    uint64_t n;
    if (p->f->shards)
        return fail_at(p, word.ptr, "shards %s: a file says it once", word);
    if (p->f->target != TARGET_SQLITE)
        return fail_at(p, word.ptr,
                       "shards %s: a projection in PostgreSQL is not split: its server's "
                       "partitions and replicas are",
                       word);
    if (!word_number(word, SPLIT_MAX, &n) || n < 2)
        return fail_at(p, word.ptr, "\"%s\": shards wants a number of 2 to 10", word);
    p->f->shards = (uint32_t)n;
    return nothing_more(p, w);
}

/* ---- times ---- */

int word_time(struct azoth_bytes word, uint64_t *ret)
{
    const char *at = word.ptr, *end = at + word.len;
    return take_ms(&at, end, ret) && at == end;
}

/* [exponential | fibonacci] MIN..MAX, or fixed TIME; `who` asks for it. */
static int parse_backoff(struct parser *p, struct azoth_bytes word, struct words *w,
                         const char *who, struct backoff *b)
{
    char fmt[100];
    b->kind = BACKOFF_EXPONENTIAL;
    if (is_word(word, "fixed")) {
        b->kind = BACKOFF_FIXED;
        word = next_item(w);
        if (word_time(word, &b->min_ms) && b->min_ms) {
            b->max_ms = b->min_ms;
            return 0;
        }
        return fail_at(p, word.ptr, "\"%s\": fixed wants a time, as in 500ms, 1s or 2min", word);
    }
    if (is_word(word, "fibonacci"))
        b->kind = BACKOFF_FIBONACCI;
    if (is_word(word, "fibonacci") || is_word(word, "exponential"))
        word = next_item(w);
    if (word_range(word, &b->min_ms, &b->max_ms) && b->min_ms)
        return 0;
    snprintf(fmt, sizeof fmt, "\"%%s\": %s wants MIN..MAX, as in 100ms..5s", who);
    return fail_at(p, word.ptr, fmt, word);
}

/* ---- on-error ---- */

static int strategy_of(struct azoth_bytes word, enum strategy *ret)
{
    static const char *const names[] = {[STRATEGY_FAIL_FAST] = "fail-fast",
                                        [STRATEGY_LOG_AND_SKIP] = "log-and-skip",
                                        [STRATEGY_DEAD_LETTER] = "dead-letter",
                                        [STRATEGY_CUSTOM] = "custom",
                                        [STRATEGY_RETRY] = "retry"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (is_word(word, names[i])) {
            *ret = (enum strategy)i;
            return 1;
        }
    return 0;
}

/* *ret_next is the word behind it, perhaps none. */
static int parse_retry(struct parser *p, struct words *w, struct sql_policy *policy,
                       struct azoth_bytes *ret_next)
{
    uint64_t count;
    struct azoth_bytes word = next_word(w);
    if (!word_number(word, COUNT_MAX, &count) || count == 0)
        return fail_at(p, word.ptr, "\"%s\": retry wants a count of 1 to 1000000", word);
    policy->count = (uint32_t)count;
    int rc = parse_backoff(p, next_word(w), w, "retry", &policy->backoff);
    if (rc)
        return rc;
    policy->then = STRATEGY_FAIL_FAST;
    *ret_next = word = next_word(w);
    if (word.len == 0 || is_word(word, "for"))
        return 0;
    if (!is_word(word, "then"))
        return fail_at(p, word.ptr, "\"%s\": `then` and another strategy are wanted", word);
    word = next_word(w);
    if (!strategy_of(word, &policy->then) || policy->then == STRATEGY_RETRY)
        return fail_at(p, word.ptr, "\"%s\": `then` wants another strategy", word);
    *ret_next = next_word(w);
    return 0;
}

static int add_policy(struct parser *p, struct azoth_bytes type, const struct sql_policy *policy)
{
    struct sqlfile *f = p->f;
    if (type.len == 0)
        return fail_at(p, type.ptr, "an event type is wanted here%s", bytes_of(NULL, 0));
    for (uint32_t i = 0; i < f->policies; i++)
        if (bytes_eq(f->policy_for[i].type, type))
            return fail_at(p, type.ptr, "type %s has an error strategy already", type);
    if (f->policies == POLICIES_MAX)
        return fail_at(p, type.ptr, "%s: at most 1024 types have strategies of their own", type);
    struct sql_policy_for *all = realloc(f->policy_for, (f->policies + 1) * sizeof *all);
    if (!all)
        return fail_memory(p);
    f->policy_for = all;
    f->policy_for[f->policies++] =
        (struct sql_policy_for){.type = type, .policy = *policy, .line = p->line};
    return 0;
}

static int parse_for(struct parser *p, struct words *w, const struct sql_policy *policy)
{
    int rc;
    do {
        rc = add_policy(p, next_type(w), policy);
        if (!rc)
            rc = next_comma(p, w);
    } while (rc == 1);
    return rc;
}

int parse_on_error(struct parser *p, struct words *w)
{
    struct sql_policy policy = {.strategy = STRATEGY_FAIL_FAST};
    struct azoth_bytes name = next_word(w), next = {"", 0};
    if (!strategy_of(name, &policy.strategy))
        return fail_at(
            p, name.ptr,
            "\"%s\" is no error strategy: fail-fast, log-and-skip, dead-letter, custom or "
            "retry",
            name);
    if (policy.strategy == STRATEGY_RETRY) {
        int rc = parse_retry(p, w, &policy, &next);
        if (rc)
            return rc;
    } else {
        next = next_word(w);
    }
    if (is_word(next, "for"))
        return parse_for(p, w, &policy);
    if (next.len)
        return fail_at(p, next.ptr, "%s: nothing more is wanted on this line", next);
    if (p->policy_given)
        return fail_at(p, name.ptr,
                       "on-error %s: a file has one error strategy beside those `for` types", name);
    p->policy_given = 1;
    p->f->policy = policy;
    p->f->policy_line = p->line;
    return 0;
}

/* ---- replay ---- */

struct clause {
    const char *name;
    uint64_t max;  /* of a number from 1; 0: a time */
    uint64_t *ret; /* NULL: parsed by its own code */
};

/* One clause of a list; `seen` has a bit for each that was there. */
static int parse_clause(struct parser *p, struct words *w, const struct clause *c, size_t n,
                        const char *mark, uint32_t *seen, size_t *ret_which)
{
    char fmt[100];
    struct azoth_bytes word = next_item(w);
    size_t i = 0;
    while (i < n && !is_word(word, c[i].name))
        i++;
    if (i == n) {
        snprintf(fmt, sizeof fmt, "\"%%s\" is no part of %s", mark);
        return fail_at(p, word.ptr, fmt, word);
    }
    if (*seen & 1u << i)
        return fail_at(p, word.ptr, "%s is there twice", word);
    *seen |= 1u << i;
    *ret_which = i;
    if (!c[i].ret)
        return 0;
    word = next_item(w);
    if (c[i].max ? !word_number(word, c[i].max, c[i].ret) || !*c[i].ret
                 : !word_time(word, c[i].ret)) {
        snprintf(fmt, sizeof fmt,
                 c[i].max ? "\"%%s\": %s wants a number of 1 to %llu"
                          : "\"%%s\": %s wants a time, as in 500ms, 1s or 2min",
                 c[i].name, (unsigned long long)c[i].max);
        return fail_at(p, word.ptr, fmt, word);
    }
    return 0;
}

/* 1 over a comma, 0 at the end of the line. */
static int between_clauses(struct parser *p, struct words *w)
{
    struct azoth_bytes word = next_item(w);
    if (!word.len)
        return 0;
    return is_word(word, ",") ? 1 : fail_at(p, word.ptr, "\"%s\": a comma is wanted here", word);
}

int parse_replay(struct parser *p, struct words *w)
{
    struct sql_replay r = {.batch = 100, .attempts = 10};
    const struct clause clauses[] = {{"every", 0, &r.every_ms},
                                     {"age", 0, &r.age_ms},
                                     {"batch", BATCH_MAX, &r.batch},
                                     {"attempts", COUNT_MAX, &r.attempts},
                                     {"stop-after", COUNT_MAX, &r.stop_after},
                                     {"by", 0, NULL},
                                     {"backoff", 0, NULL}};
    const char *start = w->at;
    uint32_t seen = 0;
    size_t which = 0;
    int rc;
    do {
        rc = parse_clause(p, w, clauses, sizeof clauses / sizeof *clauses, "replay", &seen, &which);
        if (!rc && strcmp(clauses[which].name, "by") == 0) {
            struct azoth_bytes word = next_item(w);
            r.by_attempts = is_word(word, "attempts");
            if (!r.by_attempts && !is_word(word, "age"))
                rc = fail_at(p, word.ptr, "\"%s\": by wants age or attempts", word);
        } else if (!rc && strcmp(clauses[which].name, "backoff") == 0) {
            rc = parse_backoff(p, next_item(w), w, "backoff", &r.backoff);
        }
        if (!rc)
            rc = between_clauses(p, w);
    } while (rc == 1);
    if (rc)
        return rc;
    if (!(seen & 1u) || !r.every_ms)
        return fail_at(p, start, "replay wants `every` and a time%s", bytes_of(NULL, 0));
    if (p->f->replay.every_ms)
        return fail_at(p, start, "a file has one replay%s", bytes_of(NULL, 0));
    if (!r.backoff.min_ms)
        r.backoff = (struct backoff){BACKOFF_FIXED, r.every_ms, r.every_ms};
    p->f->replay = r;
    return 0;
}

/* ---- breaker ---- */

/* N failures in TIME, open TIME[, probes N] */
int parse_breaker(struct parser *p, struct words *w)
{
    struct sql_breaker b = {.probes = 3};
    const struct clause clauses[] = {{"open", 0, &b.open_ms}, {"probes", 1000, &b.probes}};
    const char *start = w->at;
    uint32_t seen = 0;
    size_t which;
    struct azoth_bytes word = next_item(w);
    if (!word_number(word, BREAKER_FAILURES_MAX, &b.failures) || !b.failures)
        return fail_at(p, word.ptr, "\"%s\": breaker wants a number of 1 to 1000", word);
    word = next_item(w);
    if (!is_word(word, "failures") && !is_word(word, "failure"))
        return fail_at(p, word.ptr, "\"%s\": `failures in TIME` is wanted here", word);
    word = next_item(w);
    if (!is_word(word, "in"))
        return fail_at(p, word.ptr, "\"%s\": `in TIME` is wanted here", word);
    word = next_item(w);
    if (!word_time(word, &b.window_ms) || !b.window_ms)
        return fail_at(p, word.ptr, "\"%s\": `in` wants a time, as in 500ms, 1s or 2min", word);
    int rc = between_clauses(p, w);
    while (rc == 1) {
        rc = parse_clause(p, w, clauses, 2, "breaker", &seen, &which);
        if (!rc)
            rc = between_clauses(p, w);
    }
    if (rc)
        return rc;
    if (!b.open_ms)
        return fail_at(p, start, "breaker wants `open` and a time%s", bytes_of(NULL, 0));
    if (p->f->breaker.failures)
        return fail_at(p, start, "a file has one breaker%s", bytes_of(NULL, 0));
    p->f->breaker = b;
    return 0;
}

/* ---- what is in C ---- */

/* A path that stays below the directory it is relative to. */
static int stays_below(struct azoth_bytes file)
{
    const char *at = file.ptr, *end = at + file.len;
    if (*at == '/')
        return 0;
    while (at < end) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        const char *to = slash ? slash : end;
        if (to - at == 2 && memcmp(at, "..", 2) == 0)
            return 0;
        at = slash ? slash + 1 : end;
    }
    return 1;
}

int parse_load(struct parser *p, struct words *w)
{
    struct sqlfile *f = p->f;
    struct azoth_bytes file = rest_of_line(w);
    const char *slash = strrchr(p->path, '/');
    int dir = slash ? (int)(slash + 1 - p->path) : 0;
    if (f->effects[0])
        return fail_at(p, file.ptr, "effects run their command: no load%s", bytes_of(NULL, 0));
    if (f->load[0])
        return fail_at(p, file.ptr, "load %s: a file has one library", file);
    if (file.len == 0)
        return fail_at(p, file.ptr, "load wants the library's file%s", file);
    if (!stays_below(file))
        return fail_at(p, file.ptr, "\"%s\": the library lies below the definition's directory",
                       file);
    if ((size_t)dir + file.len >= sizeof f->load)
        return fail_at(p, file.ptr, "load %s: the path is too long", file);
    snprintf(f->load, sizeof f->load, "%.*s%.*s", dir, p->path, (int)file.len,
             (const char *)file.ptr);
    f->load_line = p->line;
    return 0;
}

int parse_in_c(struct parser *p, struct words *w, struct sql_handler *h)
{
    struct words at = *w;
    if (!is_word(next_word(&at), "in"))
        return 0;
    struct azoth_bytes word = next_word(&at);
    if (!is_word(word, "C"))
        return fail_at(p, word.ptr, "\"%s\": `in C` is wanted here", word);
    if (p->f->effects[0])
        return fail_at(p, word.ptr, "effects run their command: none is in %s", word);
    h->in_c = 1;
    *w = at;
    return nothing_more(p, w);
}

int sqlfile_in_c(const struct sqlfile *f)
{
    int custom = f->policy.strategy == STRATEGY_CUSTOM || f->policy.then == STRATEGY_CUSTOM;
    for (uint32_t i = 0; i < f->policies; i++)
        custom |= f->policy_for[i].policy.strategy == STRATEGY_CUSTOM ||
                  f->policy_for[i].policy.then == STRATEGY_CUSTOM;
    for (uint32_t i = 0; i < f->handlers; i++)
        custom |= f->handler[i].in_c;
    return custom;
}

/* ---- the end ---- */

void marks_finish(struct parser *p)
{
    const struct sqlfile *f = p->f;
    if (f->load[0] && !p->failed && !sqlfile_in_c(f))
        fail_line(p, f->load_line, "load: neither a handler nor on-error custom is in C");
    for (uint32_t i = 0; i < f->policies; i++) {
        int handled = 0;
        for (uint32_t h = 0; h < f->handlers && !handled; h++)
            for (uint32_t t = 0; t < f->handler[h].types_len && !handled; t++)
                handled = bytes_eq(f->handler[h].types[t], f->policy_for[i].type);
        char shown[60], text[120];
        if (handled)
            continue;
        snprintf(text, sizeof text, "on-error for %s: no handler takes this type",
                 bytes_print(f->policy_for[i].type, shown, sizeof shown));
        fail_line(p, f->policy_for[i].line, text);
    }
}
