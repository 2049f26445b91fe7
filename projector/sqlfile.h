/*
 * sqlfile.h - the definition of a projection: one SQL file with `-- azoth:` marks.
 *
 *   -- azoth: projection NAME            first mark, once
 *   -- azoth: on-error STRATEGY [for TYPE[, TYPE ...]]
 *                                        fail-fast (default) | log-and-skip | dead-letter | custom |
 *                                        retry N BACKOFF [then STRATEGY]; `for`: of these types alone
 *   -- azoth: replay every TIME[, age TIME][, by age|attempts][, batch N][, attempts N]
 *             [, stop-after N][, backoff BACKOFF]      of dead letters, by the projector itself
 *   -- azoth: order-by :FIELD | @key     what follows a dead letter of the same value waits behind it
 *   -- azoth: breaker N failures in TIME, open TIME[, probes N]
 *   -- azoth: shard-by :FIELD | @key     which shard an event is of: by default its stream key's
 *   -- azoth: shards K                   so many processes project it (split.h), 2 to 10
 *   -- azoth: target postgresql [CONNINFO]
 *                                        the rows lie on a PostgreSQL server (sql_pg.h), not in a SQLite file: CONNINFO as
 *                                        libpq has it, by default the setting projector.postgresql. Neither split nor
 *                                        of effects; its SQL is PostgreSQL's
 *   -- azoth: effects COMMAND            no tables: COMMAND is run for each event (projector/effects.h);
 *                                        before the other marks
 *   -- azoth: lease TIME                 of effects: how long a command may run, 1s to 60min; 30s
 *   -- azoth: order-by :FIELD | @key | none
 *                                        of effects: events with the same value one after the other;
 *                                        @key, and events without a key in no order
 *   -- azoth: migration N [TITLE]        ascending from 1; SQL until the next mark
 *   -- azoth: undo                       of the migration before it; SQL until the next mark
 *   -- azoth: on TYPE[, TYPE ...]        the handler of these event types: SQL until the next mark
 *   -- azoth: on TYPE[, TYPE ...] in C   the library handles them: no SQL
 *   -- azoth: load FILE.so               the library (client/azoth_projection.h), below the definition's
 *                                        directory
 *
 * BACKOFF is [exponential] MIN..MAX, fibonacci MIN..MAX or fixed TIME; a TIME is a number and ms, s or min.
 *
 * A mark is a line of its own; a line that looks like one is one, also inside a string or a comment.
 * `custom` asks the library, which table_open() looks for. Effects are not in C; their strategy is for all types
 * alike, and they have neither replay nor breaker; `on` of theirs names types and has no SQL; without it: all.
 *
 * Parameters in handlers: :field is a top-level member of the payload's JSON object; @id @type @time
 * @txn @key @payload are of the event.
 *
 * Everything here is plain memory: any thread, one at a time for one struct sqlfile.
 */
#ifndef PROJECTOR_SQLFILE_H
#define PROJECTOR_SQLFILE_H

#include "core/buf.h"

#define SQLFILE_BYTES_MAX      (1u << 20)
#define SQLFILE_TITLE_MAX      79u   /* bytes of a migration's title */
#define SQLFILE_COMMAND_MAX    1023u /* bytes of an effects command */
#define SQLFILE_CONNINFO_MAX   1023u /* bytes of how to reach a server */
#define SQLFILE_MIGRATIONS_MAX 10000u
#define SQLFILE_HANDLERS_MAX   1024u
#define SQLFILE_TYPES_MAX      16u /* event types of one handler */
#define SQLFILE_TYPES_BYTES_MAX                                                                    \
    65536u /* of all types, with a byte of length each: what a pull carries */

enum sql_target { TARGET_SQLITE, TARGET_POSTGRESQL };

enum strategy {
    STRATEGY_FAIL_FAST,
    STRATEGY_LOG_AND_SKIP,
    STRATEGY_DEAD_LETTER,
    STRATEGY_CUSTOM,
    STRATEGY_RETRY
};

enum backoff_kind { BACKOFF_EXPONENTIAL, BACKOFF_FIBONACCI, BACKOFF_FIXED };

struct backoff {
    enum backoff_kind kind;
    uint64_t min_ms, max_ms; /* the same when fixed; at least 1 */
};

struct sql_policy {
    enum strategy strategy;
    enum strategy then;     /* of RETRY, when `count` further attempts have failed: never RETRY */
    uint32_t count;         /* of RETRY */
    struct backoff backoff; /* of RETRY */
};

struct sql_policy_for {
    struct azoth_bytes type;
    struct sql_policy policy;
    uint32_t line;
};

/* Replay of dead letters: a round every so often. */
struct sql_replay {
    uint64_t every_ms;      /* 0: there is none */
    uint64_t age_ms;        /* since the first failure, before it is tried */
    int by_attempts;        /* those tried least come first, instead of the oldest */
    uint64_t batch;         /* events of a round, at most */
    uint64_t attempts;      /* after so many failures in all it is retired */
    uint64_t stop_after;    /* consecutive failures end the round; 0: they do not */
    struct backoff backoff; /* between two attempts of one event */
};

#define BREAKER_FAILURES_MAX 1000u
struct sql_breaker {
    uint64_t failures; /* 0: there is none */
    uint64_t window_ms, open_ms;
    uint64_t probes; /* events in a row that must succeed before it closes */
};

/*
 * SQL text between two marks, without blank lines and comments around it, but from the beginning of
 * a line. Borrows the file.
 */
struct sql_block {
    struct azoth_bytes text;
    uint32_t line; /* of its first character, from 1 */
};

struct sql_migration {
    uint32_t version;
    uint32_t mark_line, undo_line; /* undo_line 0: none */
    char title[SQLFILE_TITLE_MAX + 1];
    struct sql_block up, undo; /* undo.text.len 0: none */
    uint64_t checksum;         /* XXH3_64bits of up */
};

struct sql_handler {
    struct azoth_bytes types[SQLFILE_TYPES_MAX];
    uint32_t types_len;
    struct sql_block sql;
    uint32_t mark_line;
    int in_c; /* the library's, and no SQL */
};

struct sqlfile {
    char path[4096]; /* for messages: a long one is cut in front, so that what is wrong has room */
    char name[AZOTH_NAME_MAX + 1];
    char shard_by[256];                    /* ":field", "@key" or empty */
    char order_by[256];                    /* the same */
    const char *shard_by_at, *order_by_at; /* where the text says so; NULL: it does not */
    uint32_t shards;                       /* 0: not said */
    char effects[SQLFILE_COMMAND_MAX + 1]; /* the command, or empty: a projection into tables */
    uint64_t lease_ms;                     /* of effects */
    char load[4096];                       /* path of the library, or empty */
    uint32_t load_line;
    enum sql_target target;
    char conninfo[SQLFILE_CONNINFO_MAX +
                  1]; /* of the target; never shown: a password may be in it */
    struct sql_policy policy;
    uint32_t policy_line; /* 0: not said */
    struct sql_policy_for *policy_for;
    uint32_t policies;
    struct sql_replay replay;
    struct sql_breaker breaker;
    struct sql_migration *migration;
    uint32_t migrations;
    struct sql_handler *handler;
    uint32_t handlers;
    uint64_t
        checksum; /* XXH3_64bits over types and text of all handlers; what is in C: over types */
    struct buf text;
};

/*
 * Reads and parses the file `path` (a regular file). *ret owns a copy of the text until sqlfile_fini;
 * after an error it is empty. PROJECTION: the file is not there or not valid, err says
 * FILE:LINE:COLUMN (from 1; columns count bytes) and what. IO, PERMISSION, NOMEM. Blocks on the disk.
 */
int sqlfile_read(const char *path, struct sqlfile *ret, struct azoth_error *err);

/* The same from memory; `path` names it in messages. Safe on any bytes. Does not block. */
int sqlfile_parse(const char *path, struct azoth_bytes text, struct sqlfile *ret,
                  struct azoth_error *err);

/* Called with each error; it lives during the call. */
typedef void (*sqlfile_report)(void *arg, const struct azoth_error *err);

/*
 * As sqlfile_read and sqlfile_parse, but goes on behind an invalid line and reports every error. After
 * PROJECTION *ret holds what was understood; sqlfile_fini is due after any code. The code (0: none)
 * is that of the first error.
 */
int sqlfile_read_all(const char *path, struct sqlfile *ret, sqlfile_report report, void *arg);
int sqlfile_parse_all(const char *path, struct azoth_bytes text, struct sqlfile *ret,
                      sqlfile_report report, void *arg);

/* Frees; f is empty afterwards, and may be freed again. */
void sqlfile_fini(struct sqlfile *f);

/* 1 when a library is needed: for a handler, or for `on-error custom`. */
int sqlfile_in_c(const struct sqlfile *f);

/* Line and column in the file of the block's byte `at` (a greater `at`: of its end). */
void sqlfile_position(const struct sql_block *b, size_t at, uint32_t *ret_line,
                      uint32_t *ret_column);
/* The same of a byte of f's own text: of a type, of a block. */
void sqlfile_place(const struct sqlfile *f, const void *at, uint32_t *ret_line,
                   uint32_t *ret_column);

/*
 * Steps over words and parameters of SQL as SQLite's tokenizer sees them, outside strings and comments: 1 and
 * *ret (borrows sql; a quoted name without its quotes), *at is behind it; 0 at the end. Begins with *at = 0.
 * A parameter begins with one of ":@$#?". Safe on any bytes.
 */
int sqlfile_word(struct azoth_bytes sql, size_t *at, struct azoth_bytes *ret);
int sqlfile_is_parameter(struct azoth_bytes word);
/* Where in bytes from..to of SQL this name (in any case) or parameter (NULL: "?") stands first; from: nowhere. */
size_t sqlfile_find(struct azoth_bytes sql, size_t from, size_t to, const char *word);

#endif
