/*
 * marks.h - the parser of a definition, shared by sqlfile.c (lines, blocks, most marks) and marks.c (the
 * marks about failures). For these two alone.
 */
#ifndef PROJECTOR_MARKS_H
#define PROJECTOR_MARKS_H

#include "projector/sqlfile.h"

struct parser {
    struct sqlfile *f;
    const char *path; /* of the file, uncut */
    const char *at, *end, *line_start;
    uint32_t line;
    struct sql_block *block; /* the one that lines go to */
    int skipping;            /* the lines of a mark that was not understood */
    int policy_given, order_given;
    size_t types_bytes;
    sqlfile_report report; /* NULL: the first error ends it */
    void *arg;
    struct azoth_error *err; /* the first */
    int failed;              /* its code, or 0 */
};

/* What is left of a mark's line. */
struct words {
    const char *at, *end;
};

/* Tells an error at `where` in the present line, and returns its code. fmt has one %s, for what. */
int fail_at(struct parser *p, const char *where, const char *fmt, struct azoth_bytes what)
    __attribute__((format(printf, 3, 0)));
int fail_line(struct parser *p, uint32_t line, const char *what);
int fail_memory(struct parser *p);

int is_blank(char c);
void skip_blanks(struct words *w);
/* The next word, or no bytes at the end of the line. */
struct azoth_bytes next_word(struct words *w);
int is_word(struct azoth_bytes word, const char *s);
/* 1 when all of the word is a number of at most max. */
int word_number(struct azoth_bytes word, uint64_t max, uint64_t *ret);
/* 1 when all of the word is a time. */
int word_time(struct azoth_bytes word, uint64_t *ret_ms);
int nothing_more(struct parser *p, struct words *w);
/* A type up to a comma or blank; *w is behind it. */
struct azoth_bytes next_type(struct words *w);
/* The rest of the line without blanks at its end. */
struct azoth_bytes rest_of_line(struct words *w);
/* Behind a type: 1 and over the comma, 0 at the end of the line, or an error. */
int next_comma(struct parser *p, struct words *w);

/* Behind the mark's first word. */
int parse_on_error(struct parser *p, struct words *w);
int parse_replay(struct parser *p, struct words *w);
int parse_order_by(struct parser *p, struct words *w);
int parse_shard_by(struct parser *p, struct words *w);
int parse_shards(struct parser *p, struct words *w);
int parse_breaker(struct parser *p, struct words *w);
int parse_load(struct parser *p, struct words *w);
/* " in C" behind the types of an `on`, when it is there. */
int parse_in_c(struct parser *p, struct words *w, struct sql_handler *h);
/* At the end of the file: what can be said only then. */
void marks_finish(struct parser *p);

#endif
