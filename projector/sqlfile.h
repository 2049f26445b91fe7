/*
 * sqlfile.h - the definition of a projection: one SQL file with `-- azoth:` marks.
 *
 *   -- azoth: projection NAME            first mark, once
 *   -- azoth: on-error STRATEGY          fail-fast (default) | log-and-skip | dead-letter | custom |
 *                                        retry N MIN..MAX [then STRATEGY]
 *   -- azoth: shard-by :FIELD | @key
 *   -- azoth: migration N TITLE          ascending from 1; SQL until the next mark
 *   -- azoth: undo                       of the migration before it
 *   -- azoth: on TYPE[, TYPE ...]        the handler of these event types: SQL until the next mark
 *
 * Parameters in handlers: :field is a top-level member of the payload's JSON object; @id @type @time
 * @txn @key @payload are of the event.
 */
#ifndef PROJECTOR_SQLFILE_H
#define PROJECTOR_SQLFILE_H

#include "core/buf.h"

#define SQLFILE_BYTES_MAX (1u << 20)

enum strategy { STRATEGY_FAIL_FAST, STRATEGY_LOG_AND_SKIP, STRATEGY_DEAD_LETTER, STRATEGY_CUSTOM, STRATEGY_RETRY };

/* SQL text between two marks; borrows the file. */
struct sql_block {
    struct azoth_bytes text;
    uint32_t line; /* of its first character, from 1 */
};

struct sql_migration {
    uint32_t version;
    char title[80];
    struct sql_block up, undo; /* undo.text.len 0: none */
    uint64_t checksum;         /* XXH3_64bits of up */
};

struct sql_handler {
    struct azoth_bytes types[16];
    uint32_t types_len;
    struct sql_block sql;
    uint32_t mark_line;
};

struct sqlfile {
    char path[4096];
    char name[AZOTH_NAME_MAX + 1];
    char shard_by[256]; /* ":field", "@key" or empty */
    enum strategy strategy, retry_then;
    uint32_t retry_count;
    uint64_t retry_min_ms, retry_max_ms;
    struct sql_migration *migration;
    uint32_t migrations;
    struct sql_handler *handler;
    uint32_t handlers;
    uint64_t checksum; /* XXH3_64bits over types and text of all handlers */
    struct buf text;
};

/* Reads and parses. PROJECTION (err says FILE:LINE:COLUMN and what), IO, NOMEM. */
int sqlfile_read(const char *path, struct sqlfile *ret, struct azoth_error *err);
/* The same from memory; `path` names it in messages. Safe on any bytes. */
int sqlfile_parse(const char *path, struct azoth_bytes text, struct sqlfile *ret,
                  struct azoth_error *err);
void sqlfile_fini(struct sqlfile *f);

#endif
