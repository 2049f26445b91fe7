/*
 * azoth_projection.h - handlers in C: what a projection does with events where SQL is awkward.
 *
 * A projection stays one SQL file: its migrations make the tables, its marks say which events it wants
 * and what becomes of those that fail. Types that C handles are named by a mark without SQL, and another
 * mark names the library, a shared object in the definition's directory that links nothing of ours:
 *
 *   -- azoth: load ledger.so
 *   -- azoth: on deposited, withdrawn in C
 *
 *   cc -shared -fPIC -I/usr/local/include/azoth ledger.c -o DIR/projections/ledger.so
 *
 * It exports one function, azoth_projections(), which returns its table. It may call SQLite, which the
 * projector has loaded: nothing needs to be linked. examples/projections/ is a complete one.
 *
 * Where what is made lives. Rows are written with the handle `db`, inside the transaction that also moves
 * the cursor: exactly once, whatever is killed when. What must survive lies there. The state that open()
 * makes is memory: a process that starts again has the file and nothing else, so open() reads what it
 * needs from it.
 *
 * An event that fails leaves nothing behind, its strategy (on-error) decides, and the others go on in
 * their order. That is done so:
 *
 *   1  A batch of the feed is one transaction without savepoints: begin(), handlers, commit().
 *   2  When a handler fails, all of it is undone: rollback(). It is then done again event by event, each
 *      in a savepoint: savepoint(), the handler, release() or, when it fails, undo(). A batch handler is
 *      called with one event at a time then, so that only the event that fails is put aside; and so for the
 *      next 16 batches of the feed, since where one fails others do.
 *   3  A handler may therefore see an event again that it has seen and succeeded with. The file does not
 *      remember the first time. State in memory must not either: it has to follow rollback() and undo().
 *      What cannot be undone must not be kept in memory; the simplest way is to forget it all and to read
 *      it from the file again when it is needed.
 *
 * What C may not do is what SQL may not: while a function of the library runs, statements for transactions,
 * savepoints, ATTACH and PRAGMA, and those that write to tables called azoth_*, cannot be prepared
 * (SQLITE_AUTH), and nothing can be committed (SQLITE_CONSTRAINT_COMMITHOOK), also by a statement that runs
 * on after SQLite has rolled the transaction back by itself. Statements are prepared in open() and finalized
 * in close(), or both in one call; a handler resets what it has stepped. Another connection to the file must
 * not be opened: SQLite 3.40 has a defect with two that write.
 *
 * A library is loaded when the projector opens its file, and again when it opens another generation of it. Put a new
 * one in its place under the same name (mv, install, a linker); one that is written into crashes who has it loaded.
 *
 * Everything is called by the projector's one thread. It gives no sign of life while a function runs: one that
 * takes longer than the supervisor's patience (10 s in the systemd unit, 30 s of azoth run) is killed. A crash
 * takes down this projector only; it is started again and goes on at the cursor, so a crash that an event causes
 * comes again with that event.
 */
#ifndef AZOTH_PROJECTION_H
#define AZOTH_PROJECTION_H

#include "azoth_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of the structs below. A library made for another one is refused by name. */
#define AZOTH_PROJECTION_ABI 1u

#define AZOTH_PROJECTION_BATCH_MAX 1024u /* events of one call of a batch handler */

/* An event that on_error wants tried again has failed at most so often; then the projection stops before it
 * as with fail-fast. Decisions without end would be a projection that stands for ever. */
#define AZOTH_PROJECTION_ATTEMPTS_MAX 1000u
#define AZOTH_PROJECTION_WAIT_MS_MAX  3600000u /* a longer wait is cut to an hour */

struct sqlite3;

/* Borrowed: all of it lives during the call. */
struct azoth_projection_event {
    uint64_t id, txn;
    int64_t time_ns; /* UTC, since 1970 */
    struct azoth_bytes type, key, metadata, payload;
};

/*
 * How a function tells that it failed: `return f->event(f, ...)`. What they return is never 0. Another value
 * that is not 0 is a failure too, with what was told last or no sentence; 0 is success, whatever was told.
 */
struct azoth_projection_fail {
    void *host;
    /* The event's fault: a sentence (cut at 150 bytes) and a code of the library's own, which azoth_dlq has. */
    int (*event)(struct azoth_projection_fail *f, int32_t code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
    /* SQLite's last call on db failed: takes its code and sentence. A full disk, a read error or no memory is
     * the machine's fault and not the event's: then no strategy is asked and the projector ends. */
    int (*sqlite)(struct azoth_projection_fail *f);
};

/*
 * The handler of one type: one of the two functions, the other is NULL. Both return 0 or as above.
 *
 * event   is called for each event.
 * batch   is called with n events (1 to AZOTH_PROJECTION_BATCH_MAX) of one transaction, which follow one
 *         another in the projection's order and whose types have this same function. It succeeds or fails
 *         as a whole: rule 2 above finds the one.
 */
struct azoth_projection_handler {
    const char *type;
    int (*event)(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev,
                 struct azoth_projection_fail *f);
    int (*batch)(void *state, struct sqlite3 *db, const struct azoth_projection_event *ev, size_t n,
                 struct azoth_projection_fail *f);
};

/* What open is given; name lives until close, the rest during the call. shard: 0 of 1 when not split. */
struct azoth_projection_open {
    struct sqlite3 *db;
    const char *name;
    uint32_t shard, shards;
};

/* What is decided about an event that failed. */
enum azoth_projection_answer {
    AZOTH_PROJECTION_FAIL_FAST = 0, /* the projection stops before it; also any other number */
    AZOTH_PROJECTION_SKIP = 1,      /* told in the log, and passed */
    AZOTH_PROJECTION_DEAD_LETTER = 2,
    AZOTH_PROJECTION_RETRY =
        3, /* the projection stands before it, and tries again after *ret_wait_ms */
};

struct azoth_projection_failure {
    const char *error; /* the sentence as azoth_dlq would have it */
    int32_t code;      /* the handler's, or SQLite's; 0: none */
    uint32_t attempts; /* that have failed, with this one: 1 the first time; kept by a restart */
    int64_t first_failure_ns; /* UTC, since 1970 */
};

struct azoth_projection {
    const char *name; /* as in the definition */
    /* Of what the handlers make of events. The file remembers what made its rows: a projector with another
     * version does not go on without --accept-changed, as when SQL handlers were changed. */
    uint32_t version;
    uint32_t handlers; /* 0 when it only decides; at most 16384 */
    const struct azoth_projection_handler *handler;

    /* All of the following may be NULL. */

    /* The tables are there. It may read, not write; what it returns 0 with in *ret_state is given to all
     * others (NULL without an open). A failure ends the projector. */
    int (*open)(const struct azoth_projection_open *o, void **ret_state,
                struct azoth_projection_fail *f);
    /* At an orderly end; not when the process is killed. */
    void (*close)(void *state);

    /* The transaction: after each begin exactly one of the other two, with nothing left open. */
    void (*begin)(void *state);
    void (*commit)(void *state);   /* it is durable as far as SQLite's synchronous=NORMAL goes */
    void (*rollback)(void *state); /* all since begin is undone, savepoint and all */
    /* An event within it, when it is done event by event: one at a time, never nested. */
    void (*savepoint)(void *state);
    void (*release)(void *state); /* what was done since then stays, if the transaction does */
    void (*undo)(void *state);    /* what was done since then is undone */

    /*
     * Decides for `on-error custom` (also `then custom`), of handlers in SQL and in C alike; what the event
     * did is undone already. *ret_wait_ms is 0 before. It may read, not write, and may be asked again about the
     * same failure: the answer follows from the arguments. Of dead letters that are tried again it is
     * asked only when one that waited behind another fails for the first time, whether it is skipped.
     */
    enum azoth_projection_answer (*on_error)(void *state, const struct azoth_projection_event *ev,
                                             const struct azoth_projection_failure *why,
                                             uint64_t *ret_wait_ms);
};

struct azoth_projection_library {
    uint32_t abi;   /* AZOTH_PROJECTION_ABI */
    uint32_t count; /* of projections: 1 to 256 */
    const struct azoth_projection *projections;
};

/* The one symbol of a library. What it returns must stay until the library is unloaded. */
AZOTH_API const struct azoth_projection_library *azoth_projections(void);

/* 1 when the bytes are this string. */
static inline int azoth_projection_is(struct azoth_bytes b, const char *s)
{
    size_t i = 0;
    while (i < b.len && s[i] && s[i] == ((const char *)b.ptr)[i])
        i++;
    return i == b.len && !s[i];
}

#ifdef __cplusplus
}
#endif
#endif
