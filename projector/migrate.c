/*
 * migrate.c - a projection's migrations: applied in their order, undone in the opposite one.
 *
 * Each is one transaction with its row in azoth_migrations: killed at any moment, it was applied and is in
 * the history, or neither. What lies in the file is compared with the history before anything is run.
 *
 * An undo takes away what handlers have made (a column, a table), while the cursor says that they have
 * run. So it leaves a mark that no handlers made the rows: the next projector refuses to go on until it
 * is told to (--accept-changed), or the projection is made anew.
 */
#include "projector/migrate.h"

#include "projector/split.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"

#include <string.h>
#include <unistd.h>

struct done {
    uint32_t version;
    uint64_t checksum;
};

static int history(struct tablefile *f, struct done **ret, uint32_t *ret_n, struct azoth_error *err)
{
    struct sql_stmt *s;
    int rc = tablefile_prepare(f, "SELECT version, checksum FROM azoth_migrations ORDER BY version",
                               &s, err);
    if (rc)
        return rc;
    struct done *d = NULL;
    uint32_t n = 0;
    int step;
    while (!rc && (step = sql_step(s)) != SQL_DONE) {
        struct done *more = step == SQL_ROW ? realloc(d, (n + 1) * sizeof *d) : NULL;
        if (step != SQL_ROW) {
            rc = sql_error(f->sql, err, f->path);
        } else if (!more) {
            rc = error_set(err, AZOTH_ERR_NOMEM, "%s", f->path);
        } else {
            d = more;
            d[n++] = (struct done){(uint32_t)sql_int64(s, 0), (uint64_t)sql_int64(s, 1)};
        }
    }
    sql_finalize(s);
    if (rc) {
        free(d);
        return rc;
    }
    *ret = d;
    *ret_n = n;
    return 0;
}

/* What was applied must still be there and the same; what is new must be higher. */
static int compare_history(const struct sqlfile *def, const struct done *d, uint32_t n,
                           struct azoth_error *err)
{
    uint32_t highest = n ? d[n - 1].version : 0, seen = 0;
    for (uint32_t i = 0; i < def->migrations; i++) {
        const struct sql_migration *m = &def->migration[i];
        const struct done *was = NULL;
        for (uint32_t k = 0; k < n; k++)
            if (d[k].version == m->version)
                was = &d[k];
        seen += was != NULL;
        if (was && was->checksum != m->checksum)
            return error_set(
                err, AZOTH_ERR_PROJECTION,
                "%s:%u:1: migration %u was changed after it had been applied: write a new "
                "one, or rebuild",
                def->path, m->up.line, m->version);
        if (!was && m->version < highest)
            return error_set(err, AZOTH_ERR_PROJECTION,
                             "%s:%u:1: migration %u comes late: %u has been applied", def->path,
                             m->up.line, m->version, highest);
    }
    if (seen < n)
        return error_set(err, AZOTH_ERR_PROJECTION,
                         "%s: %u applied migrations are not in the definition any more", def->path,
                         n - seen);
    return 0;
}

static int record_migration(struct tablefile *f, const struct sql_migration *m,
                            struct azoth_error *err)
{
    struct sql_stmt *s;
    int rc = tablefile_prepare(f, "INSERT INTO azoth_migrations VALUES (?1, ?2, ?3, ?4)", &s, err);
    if (rc)
        return rc;
    sql_bind_int64(s, 0, m->version);
    sql_bind_text(s, 1, bytes_str(m->title));
    sql_bind_int64(s, 2, (int64_t)m->checksum);
    sql_bind_int64(s, 3, clock_wall_ns());
    rc = sql_run(f->sql, s, err, f->path);
    sql_finalize(s);
    return rc;
}

/* The statements of up or undo, in the transaction that is open. */
static int run_block(struct tablefile *f, const struct sqlfile *def, const struct sql_migration *m,
                     const struct sql_block *block, struct azoth_error *err)
{
    struct sql_cursor c = {.path = def->path, .block = block};
    struct sql_stmt *s;
    int rc = 0, got = 0;
    sql_guard(f->sql, 1);
    while (!rc && (got = tablefile_next(f, &c, &s, err)) == 1) {
        int step;
        if (sql_parameters(s) > 0) {
            rc =
                error_set(err, AZOTH_ERR_PROJECTION,
                          "%s:%u:1: migration %u has a parameter: there is no event in a migration",
                          def->path, c.line, m->version);
            sql_finalize(s);
            break;
        }
        while ((step = sql_step(s)) == SQL_ROW)
            ;
        if (step != SQL_DONE)
            rc = sql_is_machine(f->sql) ? sql_error(f->sql, err, f->path)
                                        : error_foreign(err, AZOTH_ERR_PROJECTION, sql_code(f->sql),
                                                        "%s:%u:1: migration %u: %s", def->path,
                                                        c.line, m->version, sql_message(f->sql));
        sql_finalize(s);
    }
    sql_guard(f->sql, 0);
    return !rc && got < 0 ? got : rc;
}

static int apply_one(struct tablefile *f, const struct sqlfile *def, const struct sql_migration *m,
                     struct azoth_error *err)
{
    int rc = tablefile_run(f, "BEGIN IMMEDIATE", err);
    if (rc)
        return rc;
    rc = run_block(f, def, m, &m->up, err);
    if (!rc)
        rc = record_migration(f, m, err);
    if (!rc)
        CRASH_POINT(projector_migrating);
    if (!rc)
        rc = tablefile_run(f, "COMMIT", err);
    if (!rc)
        CRASH_POINT(projector_migrated);
    if (rc)
        sql_exec(f->sql, "ROLLBACK");
    return rc;
}

/* All that are pending in one transaction, which is taken back. */
static int try_pending(struct tablefile *f, const struct sqlfile *def, uint32_t first,
                       migration_told told, void *arg, struct azoth_error *err)
{
    int rc = tablefile_run(f, "BEGIN IMMEDIATE", err);
    if (rc)
        return rc;
    for (uint32_t i = first; i < def->migrations && !rc; i++) {
        rc = run_block(f, def, &def->migration[i], &def->migration[i].up, err);
        if (!rc)
            told(arg, f->shard, f->shards, &def->migration[i]);
    }
    sql_exec(f->sql, "ROLLBACK");
    return rc;
}

/* Index of the first migration that was not applied. */
static int first_pending(struct tablefile *f, const struct sqlfile *def, uint32_t *ret,
                         struct azoth_error *err)
{
    struct done *d = NULL;
    uint32_t n = 0;
    int rc = history(f, &d, &n, err);
    if (!rc)
        rc = compare_history(def, d, n, err);
    for (*ret = 0; !rc && n && *ret < def->migrations; ++*ret)
        if (def->migration[*ret].version > d[n - 1].version)
            break;
    free(d);
    return rc;
}

int migrations_apply(struct tablefile *f, const struct sqlfile *def, migration_told told, void *arg,
                     struct azoth_error *err)
{
    uint32_t i;
    int rc = first_pending(f, def, &i, err);
    for (; !rc && i < def->migrations; i++) {
        rc = apply_one(f, def, &def->migration[i], err);
        if (!rc && told)
            told(arg, f->shard, f->shards, &def->migration[i]);
    }
    return rc;
}

/* ---- undoing ---- */

/* The migration of an applied version, if its undo is known and to be trusted. */
static int undo_of(const struct sqlfile *def, const struct done *d,
                   const struct sql_migration **ret, struct azoth_error *err)
{
    for (uint32_t i = 0; i < def->migrations; i++) {
        const struct sql_migration *m = &def->migration[i];
        if (m->version != d->version)
            continue;
        if (m->checksum != d->checksum)
            return error_set(
                err, AZOTH_ERR_PROJECTION,
                "%s:%u:1: migration %u was changed after it had been applied: its undo "
                "is not that of what was done",
                def->path, m->up.line, m->version);
        if (!m->undo.text.len)
            return error_set(err, AZOTH_ERR_PROJECTION, "%s:%u:1: migration %u has no undo",
                             def->path, m->mark_line, m->version);
        *ret = m;
        return 0;
    }
    return error_set(err, AZOTH_ERR_PROJECTION,
                     "%s: migration %u was applied and is not in the definition: nothing says how "
                     "to undo it",
                     def->path, d->version);
}

static int undo_one(struct tablefile *f, const struct sqlfile *def, const struct sql_migration *m,
                    struct azoth_error *err)
{
    char sql[120];
    int rc = tablefile_run(f, "BEGIN IMMEDIATE", err);
    if (rc)
        return rc;
    rc = run_block(f, def, m, &m->undo, err);
    snprintf(sql, sizeof sql, "DELETE FROM azoth_migrations WHERE version = %u", m->version);
    if (!rc)
        rc = tablefile_run(f, sql, err);
    if (!rc)
        rc = tablefile_run(f, "UPDATE azoth_projection SET handlers = 0 WHERE cursor > 0", err);
    if (!rc)
        rc = tablefile_run(f, "COMMIT", err);
    if (rc)
        sql_exec(f->sql, "ROLLBACK");
    return rc;
}

static int undo_all(struct tablefile *f, const struct sqlfile *def, const struct done *d,
                    uint32_t n, uint64_t to, migration_told told, void *arg,
                    struct azoth_error *err)
{
    const struct sql_migration *m;
    int rc = 0;
    if (n == 0 || (to != MIGRATE_ONE_BACK && d[n - 1].version <= to))
        return error_set(err, AZOTH_ERR_NOT_FOUND, "%s: there is nothing to roll back", def->name);
    uint64_t keep = to != MIGRATE_ONE_BACK ? to : n > 1 ? d[n - 2].version : 0;
    /* Everything is looked at before anything is done. */
    for (uint32_t i = n; i-- > 0 && d[i].version > keep && !rc;)
        rc = undo_of(def, &d[i], &m, err);
    for (uint32_t i = n; i-- > 0 && d[i].version > keep && !rc;) {
        rc = undo_of(def, &d[i], &m, err);
        if (!rc)
            rc = undo_one(f, def, m, err);
        if (!rc)
            told(arg, f->shard, f->shards, m);
    }
    return rc;
}

/* ---- for the command ---- */

/* All its files, or none. */
struct files {
    struct tablefile f[SPLIT_MAX];
    uint32_t n;
};

static void close_all(struct files *a)
{
    while (a->n)
        tablefile_close(&a->f[--a->n]);
}

static int open_existing(struct files *a, const struct sqlfile *def, const char *dir,
                         struct azoth_error *err)
{
    struct table_options o = {.dir = dir, .shards = 1};
    a->n = 0;
    int rc = split_serving(dir, def->name, &o.shards, err);
    if (rc == AZOTH_ERR_NOT_FOUND)
        return error_set(err, rc, "%s/%s.db: there is no such file yet: the projector makes it",
                         dir, def->name);
    for (; !rc && o.shard < o.shards; o.shard++) {
        a->f[a->n] = (struct tablefile){.lock_fd = -1};
        rc = tablefile_open_any(&a->f[a->n++], def, &o, err);
    }
    if (rc)
        close_all(a);
    if (rc == AZOTH_ERR_DUPLICATE)
        return error_set(err, rc, "%s: its projector runs: stop it first", def->name);
    return rc;
}

static int try_or_apply(struct tablefile *f, const struct sqlfile *def, int dry,
                        migration_told told, void *arg, struct azoth_error *err)
{
    uint32_t first;
    if (!dry)
        return migrations_apply(f, def, told, arg, err);
    int rc = first_pending(f, def, &first, err);
    return rc ? rc : try_pending(f, def, first, told, arg, err);
}

int projection_migrate(const struct sqlfile *def, const char *dir, int dry, migration_told told,
                       void *arg, struct azoth_error *err)
{
    struct files a;
    int rc = open_existing(&a, def, dir, err);
    for (uint32_t i = 0; !rc && i < a.n; i++)
        rc = try_or_apply(&a.f[i], def, dry, told, arg, err);
    close_all(&a);
    return rc;
}

int projection_rollback(const struct sqlfile *def, const char *dir, uint64_t to,
                        migration_told told, void *arg, struct azoth_error *err)
{
    struct files a;
    int rc = open_existing(&a, def, dir, err);
    for (uint32_t i = 0; !rc && i < a.n; i++) {
        struct done *d = NULL;
        uint32_t n = 0;
        rc = history(&a.f[i], &d, &n, err);
        if (!rc)
            rc = undo_all(&a.f[i], def, d, n, to, told, arg, err);
        free(d);
    }
    close_all(&a);
    return rc;
}
