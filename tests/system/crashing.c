/*
 * crashing.c - a library of handlers for test_handlers.c that crashes once at each event whose id is a multiple of
 * $AZOTH_TEST_CRASH_EVERY, half through its batch, and leaves a file of the event's id in $AZOTH_TEST_CRASH_DIR so
 * that it does not crash there again.
 */
#include "client/azoth_projection.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void crash_once(uint64_t id)
{
    char path[400];
    const char *every = getenv("AZOTH_TEST_CRASH_EVERY"), *dir = getenv("AZOTH_TEST_CRASH_DIR");
    if (!every || !dir || id % strtoull(every, NULL, 10))
        return;
    snprintf(path, sizeof path, "%s/crashed-%" PRIu64, dir, id);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    close(fd);
    raise(SIGSEGV);
}

static int put(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev, size_t n,
               struct azoth_projection_fail *f)
{
    sqlite3_stmt *s;
    int rc = 0;
    (void)state;
    if (sqlite3_prepare_v2(db, "INSERT INTO t VALUES (?)", -1, &s, NULL))
        return f->sqlite(f);
    for (size_t i = 0; i < n && !rc; i++) {
        sqlite3_bind_int64(s, 1, (int64_t)ev[i].id);
        if (sqlite3_step(s) != SQLITE_DONE)
            rc = f->sqlite(f);
        sqlite3_reset(s);
        crash_once(ev[i].id);
    }
    sqlite3_finalize(s);
    return rc;
}

static const struct azoth_projection_handler handlers[] = {{.type = "put", .batch = put}};
static const struct azoth_projection projections[] = {
    {.name = "c", .version = 1, .handlers = 1, .handler = handlers}};

const struct azoth_projection_library *azoth_projections(void)
{
    static const struct azoth_projection_library library = {AZOTH_PROJECTION_ABI, 1, projections};
    return &library;
}
