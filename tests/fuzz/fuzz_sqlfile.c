/*
 * fuzz_sqlfile.c - any bytes as a projection's definition: it is understood, and every block lies
 * in the text at the line that it tells, or it is refused with a place.
 */
#include "projector/sqlfile.h"

#include "core/dbdir.h"
#include "core/error.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint32_t errors;
    struct azoth_error first;
};

static void note(void *arg, const struct azoth_error *err)
{
    struct seen *s = arg;
    ensure(err->code == AZOTH_ERR_PROJECTION);
    ensure(strncmp(err->message, "f.sql:", 6) == 0);
    if (!s->errors++)
        s->first = *err;
}

static void check_block(const struct sqlfile *f, const struct sql_block *b)
{
    const unsigned char *p = b->text.ptr, *start = f->text.ptr;
    uint32_t line = 1, end_line, column;
    if (!b->text.len)
        return;
    ensure(p >= start);
    ensure(p + b->text.len < start + f->text.len);
    for (const unsigned char *q = start; q < p; q++)
        line += *q == '\n';
    ensure(b->line == line);
    sqlfile_position(b, b->text.len, &end_line, &column);
    ensure(end_line >= line && column >= 1);
}

/* Words lie in the text, one behind the other, and are found again. */
static void check_words(const struct sqlfile *f, const struct sql_block *b)
{
    const unsigned char *from = b->text.ptr, *last = from;
    struct azoth_bytes word;
    uint32_t line, column;
    for (size_t at = 0, before = 0; sqlfile_word(b->text, &at, &word); before = at) {
        const unsigned char *p = word.ptr;
        ensure(at > before && at <= b->text.len);
        ensure(word.len > 0 && p >= last && p + word.len <= from + at);
        last = p;
        sqlfile_place(f, p, &line, &column);
        ensure(line >= b->line && column >= 1);
    }
    ensure(sqlfile_find(b->text, 0, b->text.len, "\x01") == 0);
}

static void check_file(const struct sqlfile *f)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < f->migrations; i++) {
        ensure(f->migration[i].version > last);
        last = f->migration[i].version;
        check_block(f, &f->migration[i].up);
        check_block(f, &f->migration[i].undo);
    }
    for (uint32_t i = 0; i < f->handlers; i++) {
        ensure(f->handler[i].types_len >= 1 && f->handler[i].types_len <= SQLFILE_TYPES_MAX);
        check_block(f, &f->handler[i].sql);
        check_words(f, &f->handler[i].sql);
    }
}

/* What is in C has no SQL, needs a library, and is nothing for effects. */
static void check_c(const struct sqlfile *f)
{
    int custom = f->policy.strategy == STRATEGY_CUSTOM || f->policy.then == STRATEGY_CUSTOM;
    ensure(!f->load[0] || sqlfile_in_c(f));
    ensure(!custom || sqlfile_in_c(f));
    ensure(f->load[0] != '/' && strncmp(f->load, "../", 3) != 0 && !strstr(f->load, "/../"));
    ensure(!f->effects[0] || !sqlfile_in_c(f));
    for (uint32_t i = 0; i < f->handlers; i++)
        ensure(f->effects[0] || f->handler[i].in_c == !f->handler[i].sql.text.len);
}

static void check_policy(const struct sql_policy *p)
{
    if (p->strategy != STRATEGY_RETRY)
        return;
    ensure(p->then != STRATEGY_RETRY && p->count >= 1);
    ensure(p->backoff.min_ms >= 1 && p->backoff.min_ms <= p->backoff.max_ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sqlfile f, all;
    struct seen seen = {0};
    struct azoth_error err = {0};
    int rc = sqlfile_parse("f.sql", bytes_of(data, size), &f, &err);
    int rc_all = sqlfile_parse_all("f.sql", bytes_of(data, size), &all, note, &seen);
    ensure(rc == rc_all);
    ensure((rc != 0) == (seen.errors != 0));
    check_file(&all);
    if (rc) {
        ensure(rc == AZOTH_ERR_PROJECTION);
        ensure(strcmp(err.message, seen.first.message) == 0);
        ensure(!f.handler && !f.migration);
    } else {
        ensure(dbdir_name_valid(f.name));
        ensure(!f.effects[0] || (f.migrations == 0 && f.lease_ms >= 1000 && !f.policies));
        check_c(&f);
        check_policy(&f.policy);
        for (uint32_t i = 0; i < f.policies; i++)
            check_policy(&f.policy_for[i].policy);
        ensure(!f.replay.every_ms || (f.replay.batch && f.replay.attempts));
        ensure(!f.breaker.failures || (f.breaker.failures <= BREAKER_FAILURES_MAX &&
                                       f.breaker.window_ms && f.breaker.open_ms));
        ensure(f.checksum == all.checksum);
        check_file(&f);
    }
    sqlfile_fini(&f);
    sqlfile_fini(&all);
    return 0;
}
