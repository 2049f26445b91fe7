/*
 * pgtext.h - SQL for PostgreSQL as text: where a statement ends, and which of its words are parameters.
 *
 * PostgreSQL itself knows $1, $2, ... A definition has :field and @id, wherever these are no part of a string,
 * a quoted name, a comment, a dollar quote or a cast (::). Each place gets a number of its own, so that the server
 * infers a type for each: one field may be a number here and text there. `a[1:n]` is read as a parameter
 * :n; write `a[1 : n]`. `<@`, `@>` and `@@` are operators; any other `@` with a letter behind it is a parameter.
 *
 * Plain memory: any thread. Safe on any bytes.
 */
#ifndef PROJECTOR_PGTEXT_H
#define PROJECTOR_PGTEXT_H

#include "core/buf.h"

struct pgtext_parameter {
    char *name;     /* with its sign */
    size_t in, out; /* where it ends in the text that was given, and in the one that was made */
};

struct pgtext {
    struct buf sql; /* with $1, $2, ...; ends with a NUL that is not counted in text_len */
    size_t len;
    struct pgtext_parameter *parameter;
    int parameters;
    int empty; /* blanks and comments alone */
};

/*
 * The first statement of text. *ret_used: its bytes, with the `;`. NOMEM. pgtext_fini() is due after
 * either.
 */
int pgtext_first(struct azoth_bytes text, struct pgtext *ret, size_t *ret_used);
void pgtext_fini(struct pgtext *t);

/*
 * Why a definition may not have this statement: it would end the transaction that the cursor is moved by, change
 * the session, or names what begins with azoth_, which is ours. NULL: it may. *ret_at: the word's place.
 */
const char *pgtext_refused(struct azoth_bytes text, size_t *ret_at);

/* A place in t->sql, as place in the text that was given. */
size_t pgtext_place(const struct pgtext *t, size_t out);

/* A statement of ours (sql.h) in PostgreSQL's words, with a NUL at its end: 0, NOMEM. */
int pgtext_own(const char *sql, struct buf *ret);

#endif
