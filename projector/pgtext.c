/*
 * pgtext.c - a scanner for PostgreSQL's SQL, as far as strings, names, comments and operators go
 * (https://www.postgresql.org/docs/15/sql-syntax-lexical.html; standard_conforming_strings is on).
 */
#include "projector/pgtext.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum kind { K_BLANK, K_COMMENT, K_STRING, K_NAME, K_QUOTED, K_PARAMETER, K_OTHER };

struct token {
    enum kind kind;
    const char *at;
    size_t len;
};

static int is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int begins_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static int is_name(char c)
{
    return begins_name(c) || is_digit(c) || c == '$';
}

static int is_operator(char c)
{
    return c && strchr("+-*/<>=~!@#%^&|`?", c);
}

static size_t name_end(const char *p, size_t len, size_t at)
{
    while (at < len && is_name(p[at]))
        at++;
    return at;
}

/* ---- tokens that hold anything; all end at the end of the text at the latest ---- */

/* Behind the quote that ends what the one at p[at] began. A doubled quote is an end and a beginning. */
static size_t quoted_end(const char *p, size_t len, size_t at, int backslashes)
{
    char quote = p[at++];
    while (at < len && p[at] != quote)
        at += backslashes && p[at] == '\\' && at + 1 < len ? 2 : 1;
    return at < len ? at + 1 : len;
}

/* Comments nest. */
static size_t comment_end(const char *p, size_t len, size_t at)
{
    int depth = 0;
    while (at + 1 < len) {
        int opens = p[at] == '/' && p[at + 1] == '*', closes = p[at] == '*' && p[at + 1] == '/';
        depth += opens - closes;
        at += opens || closes ? 2 : 1;
        if (closes && depth == 0)
            return at;
    }
    return len;
}

/* $tag$ ... $tag$; 0: none begins here. */
static size_t dollar_end(const char *p, size_t len, size_t at)
{
    size_t tag = at + 1;
    if (tag < len && begins_name(p[tag]))
        while (tag < len && is_name(p[tag]) && p[tag] != '$')
            tag++;
    if (tag >= len || p[tag] != '$')
        return 0;
    size_t n = tag + 1 - at;
    const char *end = memmem(p + at + n, len - at - n, p + at, n);
    return end ? (size_t)(end - p) + n : len;
}

/* Operators are as long as can be, but end before a comment and before @name. */
static size_t operator_end(const char *p, size_t len, size_t at)
{
    size_t from = at;
    for (; at < len && is_operator(p[at]); at++) {
        char next = at + 1 < len ? p[at + 1] : 0;
        if (at > from && ((p[at] == '-' && next == '-') || (p[at] == '/' && next == '*')))
            break;
        if (p[at] == '@' && begins_name(next) && at > from && p[at - 1] != '<' && p[at - 1] != '@')
            break;
    }
    return at;
}

static struct token token_at(struct azoth_bytes text, size_t at)
{
    const char *p = text.ptr;
    size_t len = text.len, end = at + 1;
    char c = p[at], next = at + 1 < len ? p[at + 1] : 0;
    enum kind kind = K_OTHER;
    if (is_space(c)) {
        kind = K_BLANK;
    } else if (c == '-' && next == '-') {
        const char *nl = memchr(p + at, '\n', len - at);
        kind = K_COMMENT;
        end = nl ? (size_t)(nl - p) : len;
    } else if (c == '/' && next == '*') {
        kind = K_COMMENT;
        end = comment_end(p, len, at);
    } else if (c == '\'') {
        kind = K_STRING;
        end = quoted_end(p, len, at, 0);
    } else if ((c == 'E' || c == 'e') && next == '\'') {
        kind = K_STRING;
        end = quoted_end(p, len, at + 1, 1);
    } else if (c == '"') {
        kind = K_QUOTED;
        end = quoted_end(p, len, at, 0);
    } else if (c == '$' && (end = dollar_end(p, len, at))) {
        kind = K_STRING;
    } else if (c == '$') {
        end = name_end(p, len, at);
    } else if (begins_name(c)) {
        kind = K_NAME;
        end = name_end(p, len, at);
    } else if (is_digit(c)) {
        end = name_end(p, len, at);
    } else if ((c == ':' || c == '@') && begins_name(next)) {
        kind = K_PARAMETER;
        end = name_end(p, len, at + 1);
    } else if (c == ':' && (next == ':' || next == '=')) {
        end = at + 2;
    } else if (is_operator(c)) {
        end = operator_end(p, len, at);
    }
    return (struct token){kind, p + at, end - at};
}

static int is_word(const struct token *t, const char *word)
{
    return t->kind == K_NAME && t->len == strlen(word) && strncasecmp(t->at, word, t->len) == 0;
}

/* ---- a statement ---- */

/* What a `;` may stand in without ending the statement. */
struct nesting {
    int parentheses, body; /* body: of a function, BEGIN ATOMIC ... END */
    int begun;             /* the word before was BEGIN */
};

static void nest(struct nesting *n, const struct token *t)
{
    if (t->kind == K_BLANK || t->kind == K_COMMENT)
        return;
    if (t->kind == K_OTHER && *t->at == '(')
        n->parentheses++;
    if (t->kind == K_OTHER && *t->at == ')')
        n->parentheses -= n->parentheses > 0;
    if (n->begun && is_word(t, "atomic"))
        n->body = 1;
    else if (n->body && is_word(t, "case"))
        n->body++;
    else if (n->body && is_word(t, "end"))
        n->body--;
    n->begun = is_word(t, "begin");
}

static int add_parameter(struct pgtext *t, const struct token *k, size_t in_end)
{
    struct pgtext_parameter *all = realloc(t->parameter, ((size_t)t->parameters + 1) * sizeof *all);
    if (!all)
        return AZOTH_ERR_NOMEM;
    t->parameter = all;
    struct pgtext_parameter *p = &all[t->parameters];
    p->name = strndup(k->at, k->len);
    if (!p->name)
        return AZOTH_ERR_NOMEM;
    t->parameters++;
    if (buf_addf(&t->sql, "$%d", t->parameters))
        return AZOTH_ERR_NOMEM;
    p->in = in_end;
    p->out = t->sql.len;
    return 0;
}

int pgtext_first(struct azoth_bytes text, struct pgtext *ret, size_t *ret_used)
{
    struct nesting n = {0};
    size_t at = 0;
    int rc = 0, ended = 0;
    memset(ret, 0, sizeof *ret);
    ret->empty = 1;
    while (at < text.len && !ended && !rc) {
        struct token t = token_at(text, at);
        at += t.len;
        ended = t.kind == K_OTHER && *t.at == ';' && !n.parentheses && !n.body;
        nest(&n, &t);
        if (!ended && t.kind != K_BLANK && t.kind != K_COMMENT)
            ret->empty = 0;
        if (t.kind == K_PARAMETER)
            rc = add_parameter(ret, &t, at);
        else if (!ended)
            rc = buf_add(&ret->sql, t.at, t.len);
    }
    ret->len = ret->sql.len;
    if (!rc)
        rc = buf_add(&ret->sql, "", 1);
    *ret_used = at;
    return rc ? AZOTH_ERR_NOMEM : 0;
}

void pgtext_fini(struct pgtext *t)
{
    for (int i = 0; i < t->parameters; i++)
        free(t->parameter[i].name);
    free(t->parameter);
    buf_fini(&t->sql);
    memset(t, 0, sizeof *t);
}

size_t pgtext_place(const struct pgtext *t, size_t out)
{
    size_t in_from = 0, out_from = 0;
    for (int i = 0; i < t->parameters && t->parameter[i].out <= out; i++) {
        in_from = t->parameter[i].in;
        out_from = t->parameter[i].out;
    }
    return in_from + (out - out_from);
}

/* ---- what a definition may not do ---- */

static const char *refused_first(const struct token *t)
{
    /* The cursor must stay in the rows' transaction, and the session as it was made. */
    static const char *const transaction[] = {"begin",    "start",     "commit",  "end",
                                              "rollback", "abort",     "prepare", "savepoint",
                                              "release",  "deallocate"};
    static const char *const session[] = {"set",    "reset",    "discard", "copy",
                                          "listen", "unlisten", "execute"};
    for (size_t i = 0; i < sizeof transaction / sizeof *transaction; i++)
        if (is_word(t, transaction[i]))
            return "not authorized: transactions are the projector's";
    for (size_t i = 0; i < sizeof session / sizeof *session; i++)
        if (is_word(t, session[i]))
            return "not authorized: the session is the projector's";
    return NULL;
}

static int is_own(const struct token *t)
{
    size_t quote = t->kind == K_QUOTED;
    return (t->kind == K_NAME || t->kind == K_QUOTED) && t->len >= 6 + quote &&
           strncasecmp(t->at + quote, "azoth_", 6) == 0;
}

const char *pgtext_refused(struct azoth_bytes text, size_t *ret_at)
{
    int first = 1;
    for (size_t at = 0; at < text.len;) {
        struct token t = token_at(text, at);
        const char *why =
            first && t.kind != K_BLANK && t.kind != K_COMMENT ? refused_first(&t) : NULL;
        *ret_at = at;
        if (why)
            return why;
        if (is_own(&t))
            return "not authorized: names that begin with azoth_ are the projector's";
        if (t.kind == K_OTHER && *t.at == '$' && t.len > 1)
            return "a parameter is :field or one of @id @type @time @txn @key @payload";
        if (t.kind != K_BLANK && t.kind != K_COMMENT && *t.at != ';')
            first = 0;
        at += t.len;
    }
    return NULL;
}

/* ---- ours ---- */

int pgtext_own(const char *sql, struct buf *ret)
{
    struct azoth_bytes text = bytes_str(sql);
    int rc = 0;
    for (size_t at = 0; at < text.len && !rc;) {
        struct token t = token_at(text, at);
        at += t.len;
        if (is_word(&t, "INTEGER"))
            rc = buf_add_str(ret, "BIGINT");
        else if (is_word(&t, "BLOB"))
            rc = buf_add_str(ret, "BYTEA");
        else if (is_word(&t, "IMMEDIATE"))
            ;
        else if (t.kind == K_OTHER && t.len == 1 && *t.at == '?')
            rc = buf_add_str(ret, "$");
        else
            rc = buf_add(ret, t.at, t.len);
    }
    return rc || buf_add(ret, "", 1) ? AZOTH_ERR_NOMEM : 0;
}
