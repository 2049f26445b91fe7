#include "projector/coverage.h"

#include "core/error.h"
#include "core/record.h"
#include "projector/tablefile.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

const char coverage_query[] =
    "SELECT shard, shards, uuid, cursor, cursor_check, from_event, events, hash, types, shard_by "
    "FROM azoth_projection LEFT JOIN azoth_coverage ORDER BY from_event";

struct coverage {
    struct tablefile *f;
    sqlite3_stmt *write;
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
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(c->f->db,
                           "SELECT from_event, events, hash, types = ?1 AND shard_by = ?2 "
                           "FROM azoth_coverage ORDER BY from_event DESC LIMIT 1",
                           -1, &s, NULL))
        return sqlite_error(c->f->db, err, c->f->path);
    sqlite3_bind_blob(s, 1, types.len ? types.ptr : "", (int)types.len, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, shard_by, -1, SQLITE_STATIC);
    int step = sqlite3_step(s), same = 0;
    if (step == SQLITE_ROW && sqlite3_column_int(s, 3)) {
        same = 1;
        c->from = sqlite3_column_int64(s, 0);
        ret->events = (uint64_t)sqlite3_column_int64(s, 1);
        ret->hash = (uint64_t)sqlite3_column_int64(s, 2);
    }
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        same = sqlite_error(c->f->db, err, c->f->path);
    sqlite3_finalize(s);
    return same;
}

/* One that has handled nothing yet is replaced. */
static int begin_span(struct coverage *c, struct azoth_bytes types, const char *shard_by,
                      struct azoth_error *err)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(c->f->db, "INSERT OR REPLACE INTO azoth_coverage VALUES (?, 0, 0, ?, ?)",
                           -1, &s, NULL))
        return sqlite_error(c->f->db, err, c->f->path);
    sqlite3_bind_int64(s, 1, c->from);
    sqlite3_bind_blob(s, 2, types.len ? types.ptr : "", (int)types.len, SQLITE_STATIC);
    sqlite3_bind_text(s, 3, shard_by, -1, SQLITE_STATIC);
    sqlite3_step(s);
    return sqlite3_finalize(s) == SQLITE_OK ? 0 : sqlite_error(c->f->db, err, c->f->path);
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
    if (sqlite3_prepare_v3(f->db,
                           "UPDATE azoth_coverage SET events = ?1, hash = ?2 WHERE from_event = ?3",
                           -1, SQLITE_PREPARE_PERSISTENT, &c->write, NULL))
        return sqlite_error(f->db, err, f->path);
    return 0;
}

int coverage_write(struct coverage *c, const struct coverage_sum *s, struct azoth_error *err)
{
    sqlite3_bind_int64(c->write, 1, (int64_t)s->events);
    sqlite3_bind_int64(c->write, 2, (int64_t)s->hash);
    sqlite3_bind_int64(c->write, 3, c->from);
    sqlite3_step(c->write);
    int rc = sqlite3_reset(c->write) == SQLITE_OK ? 0 : sqlite_error(c->f->db, err, c->f->path);
    if (!rc && sqlite3_changes(c->f->db) != 1)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s: its account of what was handled is gone",
                       c->f->path);
    return rc;
}

void coverage_close(struct coverage *c)
{
    if (c)
        sqlite3_finalize(c->write);
    free(c);
}
