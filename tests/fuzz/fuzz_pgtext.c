/*
 * fuzz_pgtext.c - any bytes as SQL for PostgreSQL: statement after statement is taken to the end, and what is sent differs from
 * what was given in its parameters alone.
 */
#include "projector/pgtext.h"

#include "core/error.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The sent text with the names put back is the given one, up to the `;`. */
static void check_text(const struct pgtext *t, struct azoth_bytes given)
{
    size_t in = 0, out = 0;
    for (int i = 0; i < t->parameters; i++) {
        const struct pgtext_parameter *p = &t->parameter[i];
        char number[24];
        size_t name = strlen(p->name),
               digits = (size_t)snprintf(number, sizeof number, "$%d", i + 1);
        ensure(p->in <= given.len && p->out <= t->len && p->in >= in + name);
        ensure(p->in - name - in == p->out - digits - out);
        ensure(memcmp((const char *)given.ptr + in, t->sql.ptr + out, p->in - name - in) == 0);
        ensure(memcmp((const char *)given.ptr + p->in - name, p->name, name) == 0);
        ensure(memcmp(t->sql.ptr + p->out - digits, number, digits) == 0);
        in = p->in;
        out = p->out;
        ensure(pgtext_place(t, out) == in);
    }
    size_t left = t->len - out;
    ensure(in + left == given.len ||
           (in + left + 1 == given.len && ((const char *)given.ptr)[given.len - 1] == ';'));
    ensure(memcmp((const char *)given.ptr + in, t->sql.ptr + out, left) == 0);
    ensure(t->sql.ptr[t->len] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct azoth_bytes left = bytes_of(data, size);
    /* A definition is text without NULs (sqlfile.h). */
    if (size && memchr(data, 0, size))
        return 0;
    while (left.len) {
        struct pgtext t;
        size_t used = 0, at = 0;
        ensure(pgtext_first(left, &t, &used) == 0);
        ensure(used > 0 && used <= left.len);
        check_text(&t, bytes_of(left.ptr, used));
        if (pgtext_refused(bytes_of(left.ptr, used), &at))
            ensure(at < used);
        pgtext_fini(&t);
        left = bytes_of((const char *)left.ptr + used, left.len - used);
    }
    return 0;
}
