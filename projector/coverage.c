#include "projector/coverage.h"

#include "core/error.h"
#include "core/record.h"
#include "projector/tablefile.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

const char coverage_query[] =
    "SELECT shard, shards, uuid, cursor, cursor_check, from_event, events, hash, types, shard_by "
    "FROM azoth_projection LEFT JOIN azoth_coverage ON 1 = 1 ORDER BY from_event";

struct coverage {
    struct tablefile *f;
    struct sql_stmt *write;
    int64_t from;
};

void coverage_add(struct coverage_sum *s, uint64_t id, uint32_t check)
{
    uint8_t bytes[12];
    put_u64(bytes, id);
    put_u32(bytes + 8, check);
    s->hash = XXH3_64bits_withSeed(bytes, sizeof bytes, s->hash);
    s->events++;
}

/* 1 when the last span goes on: the same filter. */
static int find_span(struct coverage *c, struct azoth_bytes types, const char *shard_by,
                     struct coverage_sum *ret, struct azoth_error *err)
{
    struct sql_stmt *s;
    int rc = tablefile_prepare(c->f,
                               "SELECT from_event, events, hash, types = ?1 AND shard_by = ?2 "
                               "FROM azoth_coverage ORDER BY from_event DESC LIMIT 1",
                               &s, err);
    if (rc)
        return rc;
    sql_bind_blob(s, 0, types);
    sql_bind_text(s, 1, bytes_str(shard_by));
    int step = sql_step(s);
    if (step == SQL_ROW && sql_int64(s, 3)) {
        rc = 1;
        c->from = sql_int64(s, 0);
        ret->events = (uint64_t)sql_int64(s, 1);
        ret->hash = (uint64_t)sql_int64(s, 2);
    }
    if (step == SQL_FAILED)
        rc = sql_error(c->f->sql, err, c->f->path);
    sql_finalize(s);
    return rc;
}

/* One that has handled nothing yet is replaced. */
static int begin_span(struct coverage *c, struct azoth_bytes types, const char *shard_by,
                      struct azoth_error *err)
{
    struct sql_stmt *s;
    int rc = tablefile_prepare(c->f,
                               "INSERT INTO azoth_coverage VALUES (?1, 0, 0, ?2, ?3) ON CONFLICT "
                               "(from_event) DO UPDATE SET events = 0, hash = 0, types = "
                               "excluded.types, shard_by = excluded.shard_by",
                               &s, err);
    if (rc)
        return rc;
    sql_bind_int64(s, 0, c->from);
    sql_bind_blob(s, 1, types);
    sql_bind_text(s, 2, bytes_str(shard_by));
    rc = sql_run(c->f->sql, s, err, c->f->path);
    sql_finalize(s);
    return rc;
}

int coverage_open(struct tablefile *f, struct azoth_bytes types, const char *shard_by,
                  uint64_t cursor, struct coverage **ret, struct coverage_sum *ret_sum,
                  struct azoth_error *err)
{
    struct coverage *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, AZOTH_ERR_NOMEM, "a projection");
    *ret = c;
    *ret_sum = (struct coverage_sum){0};
    c->f = f;
    int rc = tablefile_run(f,
                           "CREATE TABLE IF NOT EXISTS azoth_coverage (from_event INTEGER PRIMARY "
                           "KEY, events INTEGER NOT NULL, hash INTEGER NOT NULL, types BLOB NOT "
                           "NULL, shard_by TEXT NOT NULL)",
                           err);
    if (!rc)
        rc = find_span(c, types, shard_by, ret_sum, err);
    if (rc < 0)
        return rc;
    if (rc == 0) {
        c->from = (int64_t)cursor + 1;
        rc = begin_span(c, types, shard_by, err);
        if (rc)
            return rc;
    }
    return tablefile_prepare(
        f, "UPDATE azoth_coverage SET events = ?1, hash = ?2 WHERE from_event = ?3", &c->write,
        err);
}

int coverage_write(struct coverage *c, const struct coverage_sum *s, struct azoth_error *err)
{
    struct sql_db *db = c->f->sql;
    sql_bind_int64(c->write, 0, (int64_t)s->events);
    sql_bind_int64(c->write, 1, (int64_t)s->hash);
    sql_bind_int64(c->write, 2, c->from);
    int rc = sql_run(db, c->write, err, c->f->path);
    if (!rc && sql_changes(db) != 1)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s: its account of what was handled is gone",
                       c->f->path);
    return rc;
}

void coverage_close(struct coverage *c)
{
    if (c)
        sql_finalize(c->write);
    free(c);
}
