/* test_sqlfile.c - what a definition file may say, and where it says what it may not. */
#include "projector/sqlfile.h"

#include "core/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAD "-- azoth: projection p\n"
#define GOOD                                                                                       \
    HEAD "-- azoth: on-error fail-fast\n"                                                          \
         "-- azoth: shard-by :account\n"                                                           \
         "\n"                                                                                      \
         "-- azoth: migration 1 create accounts\n"                                                 \
         "CREATE TABLE a (x);\n"                                                                   \
         "-- azoth: undo\n"                                                                        \
         "DROP TABLE a;\n"                                                                         \
         "-- azoth: migration 7 an index\n"                                                        \
         "\n"                                                                                      \
         "CREATE INDEX i ON a (x);\n"                                                              \
         "\n"                                                                                      \
         "-- azoth: on deposited, made:by-hand\n"                                                  \
         "INSERT INTO a\n"                                                                         \
         "  VALUES (:account);\n"                                                                  \
         "-- azoth: on withdrawn\n"                                                                \
         "DELETE FROM a;"

static struct sqlfile file;

static void parse_good(const char *text)
{
    struct azoth_error err = {0};
    int rc = sqlfile_parse("f.sql", bytes_str(text), &file, &err);
    if (rc)
        print_error("%s\n", err.message);
    assert_int_equal(rc, 0);
}

static void refused(const char *text, const char *message)
{
    struct azoth_error err = {0};
    sqlfile_fini(&file);
    assert_int_equal(sqlfile_parse("f.sql", bytes_str(text), &file, &err), AZOTH_ERR_PROJECTION);
    assert_string_equal(err.message, message);
    assert_int_equal(err.code, AZOTH_ERR_PROJECTION);
    assert_null(file.handler);
    sqlfile_fini(&file);
}

static uint64_t checksum_of(const char *text)
{
    parse_good(text);
    uint64_t sum = file.checksum;
    sqlfile_fini(&file);
    return sum;
}

static uint64_t migration_checksum_of(const char *text)
{
    parse_good(text);
    uint64_t sum = file.migration[0].checksum;
    sqlfile_fini(&file);
    return sum;
}

static void text_is(struct azoth_bytes b, const char *s)
{
    assert_true(bytes_eq(b, bytes_str(s)));
}

static void a_definition_is_read_with_its_lines(void **state)
{
    (void)state;
    parse_good(GOOD);
    assert_string_equal(file.name, "p");
    assert_string_equal(file.shard_by, ":account");
    assert_int_equal(file.policy.strategy, STRATEGY_FAIL_FAST);
    assert_int_equal(file.migrations, 2);
    assert_int_equal(file.migration[0].version, 1);
    assert_string_equal(file.migration[0].title, "create accounts");
    text_is(file.migration[0].up.text, "CREATE TABLE a (x);");
    assert_int_equal(file.migration[0].up.line, 6);
    text_is(file.migration[0].undo.text, "DROP TABLE a;");
    assert_int_equal(file.migration[0].undo.line, 8);
    assert_int_equal(file.migration[1].version, 7);
    text_is(file.migration[1].up.text, "CREATE INDEX i ON a (x);");
    assert_int_equal(file.migration[1].up.line, 11);
    assert_int_equal(file.migration[1].undo.text.len, 0);
    assert_int_equal(file.handlers, 2);
    assert_int_equal(file.handler[0].types_len, 2);
    text_is(file.handler[0].types[0], "deposited");
    text_is(file.handler[0].types[1], "made:by-hand");
    assert_int_equal(file.handler[0].mark_line, 13);
    assert_int_equal(file.handler[0].sql.line, 14);
    text_is(file.handler[1].sql.text, "DELETE FROM a;");
    sqlfile_fini(&file);
}

static void a_position_is_line_and_column_in_the_file(void **state)
{
    (void)state;
    uint32_t line, column;
    parse_good(GOOD);
    const struct sql_block *b = &file.handler[0].sql;
    sqlfile_position(b, 0, &line, &column);
    assert_int_equal(line, 14);
    assert_int_equal(column, 1);
    sqlfile_position(b, strlen("INSERT INTO a\n  "), &line, &column);
    assert_int_equal(line, 15);
    assert_int_equal(column, 3);
    sqlfile_position(b, 100000, &line, &column);
    assert_int_equal(line, 15);
    sqlfile_fini(&file);
}

static void every_error_has_file_line_and_column(void **state)
{
    (void)state;
    refused("", "f.sql:1:1: `-- azoth: projection NAME` is missing");
    refused("SELECT 1;\n", "f.sql:1:1: SQL stands in a migration or an `on` block");
    refused("-- azoth: on a\n", "f.sql:1:11: the first mark is `projection NAME`, not on");
    refused(HEAD "-- azoth: projection q\n",
            "f.sql:2:22: a file defines one projection, this one has p");
    refused("-- azoth: projection 9lives\n",
            "f.sql:1:22: \"9lives\" is no name: a letter, then letters, digits, _ and -");
    refused(HEAD "  -- azoth: frob x\n", "f.sql:2:13: there is no mark `frob`");
    refused(HEAD "-- azoth:\n", "f.sql:2:10: a mark without a word");
    refused(HEAD "-- azoth: shards 1\n", "f.sql:2:18: \"1\": shards wants a number of 2 to 10");
    refused(HEAD "-- azoth: shards 11\n", "f.sql:2:18: \"11\": shards wants a number of 2 to 10");
    refused(HEAD "-- azoth: shards 4\n-- azoth: shards 4\n",
            "f.sql:3:18: shards 4: a file says it once");
    refused(HEAD "-- azoth: effects true\n-- azoth: shards 4\n",
            "f.sql:3:18: effects have no shards");
    refused(HEAD "-- azoth: shard-by account\n",
            "f.sql:2:20: \"account\": shard-by wants :field or @key");
    refused(HEAD "-- azoth: shard-by :a\n-- azoth: shard-by @key\n",
            "f.sql:3:20: shard-by @key: a file has one shard-by");
    refused(HEAD "-- azoth: migration one\n",
            "f.sql:2:21: \"one\": migration wants a number from 1 and a title");
    refused(HEAD "-- azoth: migration 1 a\n\n-- nothing\n", "f.sql:2:1: this migration has no SQL");
    refused(HEAD "-- azoth: migration 1 a\nSELECT 1;\n-- azoth: undo\n/* none */\n",
            "f.sql:4:1: this undo has no SQL");
    refused(HEAD "-- azoth: on a\n-- only this\n", "f.sql:2:1: this handler has no SQL");
    refused(HEAD "-- azoth: projection\n",
            "f.sql:2:21: a file defines one projection, this one has p");
}

static void a_migration_that_is_there_twice_or_out_of_order_is_refused(void **state)
{
    (void)state;
    refused(HEAD "-- azoth: migration 2 a\nSELECT 1;\n-- azoth: migration 2 b\nSELECT 2;\n",
            "f.sql:4:21: migration 2 is there twice");
    refused(HEAD "-- azoth: migration 1 a\nSELECT 1;\n-- azoth: migration 3 b\nSELECT 2;\n"
                 "-- azoth: migration 1 c\nSELECT 3;\n",
            "f.sql:6:21: migration 1 is there twice");
    refused(HEAD "-- azoth: migration 3 a\nSELECT 1;\n-- azoth: migration 2 b\nSELECT 2;\n",
            "f.sql:4:21: migration 2 follows a higher one");
}

static void an_undo_belongs_to_the_migration_right_before_it(void **state)
{
    (void)state;
    refused(HEAD "-- azoth: undo\nSELECT 1;\n", "f.sql:2:1: undo follows the SQL of its migration");
    refused(HEAD "-- azoth: migration 1 a\nSELECT 1;\n-- azoth: on x\nSELECT 1;\n"
                 "-- azoth: undo\nSELECT 1;\n",
            "f.sql:6:1: undo follows the SQL of its migration");
    refused(HEAD "-- azoth: migration 1 a\nSELECT 1;\n-- azoth: undo\nSELECT 1;\n"
                 "-- azoth: undo\nSELECT 1;\n",
            "f.sql:6:1: undo follows the SQL of its migration");
}

static void a_type_has_one_handler(void **state)
{
    (void)state;
    refused(HEAD "-- azoth: on a, b, a\nSELECT 1;\n", "f.sql:2:20: type a has a handler already");
    refused(HEAD "-- azoth: on a\nSELECT 1;\n-- azoth: on b, a\nSELECT 1;\n",
            "f.sql:4:17: type a has a handler already");
    refused(HEAD "-- azoth: on a b\nSELECT 1;\n",
            "f.sql:2:16: \"b\": a comma is wanted between types");
    refused(HEAD "-- azoth: on a,\nSELECT 1;\n", "f.sql:2:16: an event type is wanted here");
    refused(HEAD "-- azoth: on\nSELECT 1;\n", "f.sql:2:13: an event type is wanted here");
}

static void parsed(const char *marks)
{
    char text[600];
    struct azoth_error err = {0};
    snprintf(text, sizeof text, HEAD "%s-- azoth: on a, b\nSELECT 1;\n", marks);
    sqlfile_fini(&file);
    int rc = sqlfile_parse("f.sql", bytes_str(text), &file, &err);
    if (rc)
        print_error("%s\n", err.message);
    assert_int_equal(rc, 0);
}

static void the_error_strategies_are_known_by_name(void **state)
{
    (void)state;
    parsed("-- azoth: on-error log-and-skip\n");
    assert_int_equal(file.policy.strategy, STRATEGY_LOG_AND_SKIP);
    parsed("-- azoth: on-error dead-letter\n");
    assert_int_equal(file.policy.strategy, STRATEGY_DEAD_LETTER);
    parsed("-- azoth: on-error retry 5 100ms..1min then dead-letter\n");
    assert_int_equal(file.policy.strategy, STRATEGY_RETRY);
    assert_int_equal(file.policy.then, STRATEGY_DEAD_LETTER);
    assert_int_equal(file.policy.count, 5);
    assert_int_equal(file.policy.backoff.kind, BACKOFF_EXPONENTIAL);
    assert_int_equal(file.policy.backoff.min_ms, 100);
    assert_int_equal(file.policy.backoff.max_ms, 60000);
    parsed("-- azoth: on-error retry 2 fibonacci 1s..5s\n");
    assert_int_equal(file.policy.backoff.kind, BACKOFF_FIBONACCI);
    assert_int_equal(file.policy.then, STRATEGY_FAIL_FAST);
    parsed("-- azoth: on-error retry 2 fixed 250ms then log-and-skip\n");
    assert_int_equal(file.policy.backoff.kind, BACKOFF_FIXED);
    assert_int_equal(file.policy.backoff.min_ms, 250);
    assert_int_equal(file.policy.backoff.max_ms, 250);
    parsed("-- azoth: on-error custom\n");
    assert_int_equal(file.policy.strategy, STRATEGY_CUSTOM);
    assert_int_equal(file.policy_line, 2);
    parsed("-- azoth: on-error retry 1 fixed 1s then custom\n");
    assert_int_equal(file.policy.then, STRATEGY_CUSTOM);
    refused(HEAD "-- azoth: on-error explode\n",
            "f.sql:2:20: \"explode\" is no error strategy: fail-fast, log-and-skip, dead-letter, "
            "custom or retry");
}

static void handlers_in_c_are_types_without_sql_and_a_library_beside_the_file(void **state)
{
    (void)state;
    struct azoth_error err = {0};
    sqlfile_fini(&file);
    refused(HEAD "-- azoth: on in\tC\n", "f.sql:2:17: \"C\": a comma is wanted between types");
    static const char text[] =
        HEAD "-- azoth: load lib/..so \n-- azoth: on a, in in C\n\n-- nothing\n-- azoth: on b\n"
             "SELECT 1;\n";
    assert_int_equal(sqlfile_parse("some/where/f.sql", bytes_str(text), &file, &err), 0);
    assert_string_equal(file.load, "some/where/lib/..so");
    assert_true(file.handler[0].in_c && !file.handler[1].in_c);
    assert_int_equal(file.handler[0].types_len, 2);
    assert_int_equal(sqlfile_in_c(&file), 1);
    sqlfile_fini(&file);
    parsed("-- azoth: on-error dead-letter\n");
    assert_int_equal(sqlfile_in_c(&file), 0);
    parsed("-- azoth: on-error retry 1 fixed 1s then custom for b\n");
    assert_int_equal(sqlfile_in_c(&file), 1);
    parsed("-- azoth: load x.so\n-- azoth: on-error custom\n");
    assert_string_equal(file.load, "x.so");
    refused(HEAD "-- azoth: on a in C\nSELECT 1;\n", "f.sql:3:1: the handler is in C: no SQL");
    refused(HEAD "-- azoth: on a in c\n", "f.sql:2:19: \"c\": `in C` is wanted here");
    refused(HEAD "-- azoth: on a in C now\n",
            "f.sql:2:21: now: nothing more is wanted on this line");
    refused(HEAD "-- azoth: load\n", "f.sql:2:15: load wants the library's file");
    refused(HEAD "-- azoth: load /x.so\n-- azoth: on a in C\n",
            "f.sql:2:16: \"/x.so\": the library lies below the definition's directory");
    refused(HEAD "-- azoth: load a/../../x.so\n-- azoth: on a in C\n",
            "f.sql:2:16: \"a/../../x.so\": the library lies below the definition's directory");
    refused(HEAD "-- azoth: load x.so\n-- azoth: load y.so\n-- azoth: on a in C\n",
            "f.sql:3:16: load y.so: a file has one library");
    refused(HEAD "-- azoth: load x.so\n-- azoth: on a\nSELECT 1;\n",
            "f.sql:2:1: load: neither a handler nor on-error custom is in C");
    refused(HEAD "-- azoth: effects cat\n-- azoth: on a in C\n",
            "f.sql:3:19: effects run their command: none is in C");
    refused(HEAD "-- azoth: effects cat\n-- azoth: load x.so\n",
            "f.sql:3:16: effects run their command: no load");
    refused(HEAD "-- azoth: effects cat\n-- azoth: on-error custom\n",
            "f.sql:3:20: on-error custom: effects have no handler in C to ask");
    assert_int_not_equal(checksum_of(HEAD "-- azoth: on a in C\n"),
                         checksum_of(HEAD "-- azoth: on b in C\n"));
    assert_int_not_equal(checksum_of(HEAD "-- azoth: on a, b\nSELECT 1;\n"),
                         checksum_of(HEAD "-- azoth: on a in C\n-- azoth: on b\nSELECT 1;\n"));
}

static void a_type_may_have_a_strategy_of_its_own(void **state)
{
    (void)state;
    parsed("-- azoth: on-error dead-letter\n-- azoth: on-error log-and-skip for b,a\n");
    assert_int_equal(file.policy.strategy, STRATEGY_DEAD_LETTER);
    assert_int_equal(file.policies, 2);
    assert_true(bytes_eq(file.policy_for[0].type, bytes_str("b")));
    assert_int_equal(file.policy_for[1].policy.strategy, STRATEGY_LOG_AND_SKIP);
    parsed("-- azoth: on-error retry 1 fixed 1s then dead-letter for a\n");
    assert_int_equal(file.policy_for[0].policy.then, STRATEGY_DEAD_LETTER);
    refused(HEAD "-- azoth: on-error dead-letter for\n",
            "f.sql:2:35: an event type is wanted here");
    refused(HEAD "-- azoth: on-error dead-letter for a, a\n",
            "f.sql:2:39: type a has an error strategy already");
    refused(HEAD "-- azoth: on-error dead-letter for a b\n",
            "f.sql:2:38: \"b\": a comma is wanted between types");
    refused(HEAD "-- azoth: on-error dead-letter for c\n-- azoth: on a\nSELECT 1;\n",
            "f.sql:2:1: on-error for c: no handler takes this type");
}

static void replay_order_by_and_breaker_are_read_strictly(void **state)
{
    (void)state;
    parsed("-- azoth: replay every 1min, age 30s, by attempts, batch 50, attempts 7, stop-after 5, "
           "backoff fibonacci 1s..1min\n-- azoth: order-by :account\n"
           "-- azoth: breaker 10 failures in 1min, open 30s, probes 2\n");
    const struct sql_replay *r = &file.replay;
    assert_true(r->every_ms == 60000 && r->age_ms == 30000 && r->by_attempts && r->batch == 50 &&
                r->attempts == 7 && r->stop_after == 5);
    assert_true(r->backoff.kind == BACKOFF_FIBONACCI && r->backoff.max_ms == 60000);
    assert_string_equal(file.order_by, ":account");
    assert_true(file.breaker.failures == 10 && file.breaker.window_ms == 60000 &&
                file.breaker.open_ms == 30000 && file.breaker.probes == 2);
    parsed("-- azoth: replay every 5s\n-- azoth: order-by @key\n"
           "-- azoth: breaker 1 failure in 1s, open 1s\n");
    assert_true(r->batch == 100 && r->attempts == 10 && r->stop_after == 0 && !r->by_attempts);
    assert_true(r->backoff.kind == BACKOFF_FIXED && r->backoff.min_ms == 5000);
    assert_int_equal(file.breaker.probes, 3);
    refused(HEAD "-- azoth: replay age 1s\n", "f.sql:2:17: replay wants `every` and a time");
    refused(HEAD "-- azoth: replay every 0s\n", "f.sql:2:17: replay wants `every` and a time");
    refused(HEAD "-- azoth: replay every 1s age 2s\n",
            "f.sql:2:27: \"age\": a comma is wanted here");
    refused(HEAD "-- azoth: replay every 1s,\n", "f.sql:2:27: \"\" is no part of replay");
    refused(HEAD "-- azoth: replay every 1s, every 2s\n", "f.sql:2:28: every is there twice");
    refused(HEAD "-- azoth: replay every 1s, by luck\n",
            "f.sql:2:31: \"luck\": by wants age or attempts");
    refused(HEAD "-- azoth: replay every 1s, batch 0\n",
            "f.sql:2:34: \"0\": batch wants a number of 1 to 10000");
    refused(HEAD "-- azoth: replay every soon\n",
            "f.sql:2:24: \"soon\": every wants a time, as in 500ms, 1s or 2min");
    refused(HEAD "-- azoth: replay every 1s\n-- azoth: replay every 1s\n",
            "f.sql:3:17: a file has one replay");
    refused(HEAD "-- azoth: order-by account\n",
            "f.sql:2:20: \"account\": order-by wants :field or @key");
    refused(HEAD "-- azoth: order-by @key\n-- azoth: order-by @key\n",
            "f.sql:3:20: order-by @key: a file has one order-by");
    refused(HEAD "-- azoth: breaker many failures in 1s, open 1s\n",
            "f.sql:2:19: \"many\": breaker wants a number of 1 to 1000");
    refused(HEAD "-- azoth: breaker 5 faults in 1s, open 1s\n",
            "f.sql:2:21: \"faults\": `failures in TIME` is wanted here");
    refused(HEAD "-- azoth: breaker 5 failures in 1s\n",
            "f.sql:2:18: breaker wants `open` and a time");
    refused(HEAD "-- azoth: breaker 5 failures in 1s, shut 1s\n",
            "f.sql:2:37: \"shut\" is no part of breaker");
}

static void a_target_is_a_server_that_nobody_is_told_of(void **state)
{
    (void)state;
    parsed("-- azoth: shard-by :a\n");
    assert_int_equal(file.target, TARGET_SQLITE);
    parsed("-- azoth: target postgresql\n");
    assert_int_equal(file.target, TARGET_POSTGRESQL);
    assert_string_equal(file.conninfo, "");
    parsed("-- azoth: target postgresql  host=/run/x dbname=y  password='a b' \n");
    assert_string_equal(file.conninfo, "host=/run/x dbname=y  password='a b'");
    refused(HEAD "-- azoth: target mysql\n", "f.sql:2:18: \"mysql\" is no target: postgresql");
    refused(HEAD "-- azoth: target postgresql\n-- azoth: target postgresql password=x\n",
            "f.sql:3:18: a file has one target");
    refused(HEAD "-- azoth: target postgresql\n-- azoth: shards 2\n",
            "f.sql:3:18: shards 2: a projection in PostgreSQL is not split: its server's "
            "partitions and replicas are");
    refused(HEAD "-- azoth: shards 2\n-- azoth: target postgresql password=x\n",
            "f.sql:3:18: a projection in PostgreSQL is not split");
    refused(HEAD "-- azoth: effects true\n-- azoth: target postgresql password=x\n",
            "f.sql:3:18: effects have no target");
    refused(HEAD "-- azoth: target postgresql\n-- azoth: effects true\n",
            "f.sql:3:19: effects stands before the marks that are about it");
    static const char mark[] = HEAD "-- azoth: target postgresql ";
    char text[sizeof mark + SQLFILE_CONNINFO_MAX + 1];
    memset(text, 'x', sizeof text - 1);
    memcpy(text, mark, sizeof mark - 1);
    text[sizeof text - 1] = 0;
    refused(text, "f.sql:2:29: a connection string has at most 1023 bytes");
}

static void a_retry_has_a_count_a_range_and_perhaps_another_strategy(void **state)
{
    (void)state;
#define COUNT "retry wants a count of 1 to 1000000"
#define RANGE "retry wants MIN..MAX, as in 100ms..5s"
    refused(HEAD "-- azoth: on-error retry\n", "f.sql:2:25: \"\": " COUNT);
    refused(HEAD "-- azoth: on-error retry 5x 1s..2s\n", "f.sql:2:26: \"5x\": " COUNT);
    refused(HEAD "-- azoth: on-error retry 0 1s..2s\n", "f.sql:2:26: \"0\": " COUNT);
    refused(HEAD "-- azoth: on-error retry 99999999999999999999 1s..2s\n",
            "f.sql:2:26: \"99999999999999999999\": " COUNT);
    refused(HEAD "-- azoth: on-error retry 5 2s..1s\n", "f.sql:2:28: \"2s..1s\": " RANGE);
    refused(HEAD "-- azoth: on-error retry 5 2s\n", "f.sql:2:28: \"2s\": " RANGE);
    refused(HEAD "-- azoth: on-error retry 5 1..2\n", "f.sql:2:28: \"1..2\": " RANGE);
    refused(HEAD "-- azoth: on-error retry 5 1s..2s then retry\n",
            "f.sql:2:40: \"retry\": `then` wants another strategy");
    refused(HEAD "-- azoth: on-error retry 5 1s..2s custom\n",
            "f.sql:2:35: \"custom\": `then` and another strategy are wanted");
    refused(HEAD "-- azoth: on-error fail-fast now\n",
            "f.sql:2:30: now: nothing more is wanted on this line");
    refused(HEAD "-- azoth: on-error fail-fast\n-- azoth: on-error fail-fast\n",
            "f.sql:3:20: on-error fail-fast: a file has one error strategy beside those `for` "
            "types");
}

static void effects_have_a_command_a_lease_an_order_and_no_sql(void **state)
{
    (void)state;
#define EFFECTS HEAD "-- azoth: effects send --to x  \n"
    parse_good(EFFECTS "-- azoth: lease 2min\n-- azoth: order-by :to\n"
                       "-- azoth: on-error retry 3 1s..1min then log-and-skip\n"
                       "-- azoth: on sent, sent-again\n");
    assert_string_equal(file.effects, "send --to x");
    assert_int_equal(file.lease_ms, 120000);
    assert_string_equal(file.order_by, ":to");
    assert_int_equal(file.policy.then, STRATEGY_LOG_AND_SKIP);
    assert_int_equal(file.handlers, 1);
    assert_int_equal(file.handler[0].types_len, 2);
    sqlfile_fini(&file);
    parse_good(EFFECTS);
    assert_int_equal(file.lease_ms, 30000);
    assert_string_equal(file.order_by, "@key");
    sqlfile_fini(&file);
    parse_good(EFFECTS "-- azoth: order-by none\n");
    assert_string_equal(file.order_by, "");
    sqlfile_fini(&file);
    refused(HEAD "-- azoth: effects \n", "f.sql:2:19: effects wants the command to run");
    refused(EFFECTS "-- azoth: effects b\n", "f.sql:3:19: a file has one effects command");
    refused(HEAD "-- azoth: on-error fail-fast\n-- azoth: effects b\n",
            "f.sql:3:19: effects stands before the marks that are about it");
    refused(HEAD "-- azoth: lease 1s\n", "f.sql:2:17: lease 1s: of effects, behind their mark");
    refused(EFFECTS "-- azoth: lease 999ms\n",
            "f.sql:3:17: \"999ms\": lease wants a time of 1s to 60min");
    refused(EFFECTS "-- azoth: lease 61min\n",
            "f.sql:3:17: \"61min\": lease wants a time of 1s to 60min");
    refused(EFFECTS "-- azoth: order-by to\n", "f.sql:3:20: \"to\": order-by wants :field or @key");
    refused(EFFECTS "-- azoth: order-by @key\n-- azoth: order-by none\n",
            "f.sql:4:20: order-by none: a file has one order-by");
    refused(EFFECTS "-- azoth: migration 1 a\nSELECT 1;\n",
            "f.sql:3:1: effects keep no tables of their own: no migration");
    refused(EFFECTS "-- azoth: on sent\nSELECT 1;\n",
            "f.sql:4:1: effects run their command: no SQL");
    parse_good(EFFECTS "-- azoth: on-error retry 3 1s..1min then dead-letter\n");
    assert_int_equal(file.policy.then, STRATEGY_DEAD_LETTER);
    sqlfile_fini(&file);
    refused(EFFECTS "-- azoth: on-error log-and-skip for sent\n",
            "f.sql:3:20: on-error log-and-skip: of effects it is for all types alike");
    refused(EFFECTS "-- azoth: replay every 1min\n", "f.sql:3:18: effects have no replay");
}

static void what_is_no_text_is_refused_with_its_place(void **state)
{
    (void)state;
    struct azoth_error err = {0};
    static const char nul[] = HEAD "-- a\0b\n", torn[] = HEAD "-- \xc3\xa9 \xe2\x82\n";
    assert_int_equal(sqlfile_parse("f.sql", bytes_of(nul, sizeof nul - 1), &file, &err),
                     AZOTH_ERR_PROJECTION);
    assert_string_equal(err.message, "f.sql:2:5: not UTF-8 text without NULs");
    assert_int_equal(sqlfile_parse("f.sql", bytes_of(torn, sizeof torn - 1), &file, &err),
                     AZOTH_ERR_PROJECTION);
    assert_string_equal(err.message, "f.sql:2:7: not UTF-8 text");
    struct buf big = {0};
    assert_int_equal(buf_add_str(&big, HEAD), 0);
    unsigned char *p = buf_grow(&big, SQLFILE_BYTES_MAX - big.len);
    assert_non_null(p);
    memset(p, '\n', (size_t)(big.ptr + big.len - p));
    assert_int_equal(sqlfile_parse("f.sql", buf_bytes(&big), &file, &err), 0);
    sqlfile_fini(&file);
    assert_int_equal(buf_add(&big, "\n", 1), 0);
    assert_int_equal(sqlfile_parse("f.sql", buf_bytes(&big), &file, &err), AZOTH_ERR_PROJECTION);
    assert_string_equal(err.message, "f.sql:1:1: a definition has at most 1048576 bytes");
    buf_fini(&big);
}

static void blanks_and_comments_between_blocks_change_no_checksum(void **state)
{
    (void)state;
    static const char plain[] = HEAD "-- azoth: migration 1 a\nCREATE TABLE t (x);\n"
                                     "-- azoth: on e\nINSERT INTO t VALUES ('a\n-- b');\n";
    static const char airy[] =
        HEAD "-- azoth: migration 1 another title\n\n-- what it is\n"
             "CREATE TABLE t (x);\n\n/* of\nevents */\n\n"
             "-- azoth: on e\n\nINSERT INTO t VALUES ('a\n-- b');\n\n-- end\n";
    static const char other[] = HEAD "-- azoth: migration 1 a\nCREATE TABLE t (y);\n"
                                     "-- azoth: on e\nINSERT INTO t VALUES ('a\n-- c');\n";
    static const char type[] = HEAD "-- azoth: migration 1 a\nCREATE TABLE t (x);\n"
                                    "-- azoth: on f\nINSERT INTO t VALUES ('a\n-- b');\n";
    assert_true(checksum_of(plain) == checksum_of(airy));
    assert_true(migration_checksum_of(plain) == migration_checksum_of(airy));
    assert_true(checksum_of(plain) != checksum_of(other));
    assert_true(migration_checksum_of(plain) != migration_checksum_of(other));
    assert_true(checksum_of(plain) != checksum_of(type));
}

static void a_string_that_looks_like_a_comment_stays_whole(void **state)
{
    (void)state;
    parse_good(HEAD "-- azoth: on e\n/* a */ SELECT 'x\n-- y'\n -- z\n");
    text_is(file.handler[0].sql.text, "/* a */ SELECT 'x\n-- y'");
    assert_int_equal(file.handler[0].sql.line, 3);
    sqlfile_fini(&file);
    parse_good(HEAD "-- azoth: on e\n/* a\nb */ SELECT [/*], \"--\"; --\n");
    text_is(file.handler[0].sql.text, "b */ SELECT [/*], \"--\";");
    sqlfile_fini(&file);
}

static void files_of_other_editors_are_understood(void **state)
{
    (void)state;
    parse_good("\xef\xbb\xbf-- azoth: projection p\r\n--AZOTH : on a , b\r\n\r\nSELECT 1;\r\n");
    assert_int_equal(file.handler[0].types_len, 2);
    text_is(file.handler[0].types[1], "b");
    text_is(file.handler[0].sql.text, "SELECT 1;");
    assert_int_equal(file.handler[0].sql.line, 4);
    sqlfile_fini(&file);
}

struct seen {
    int n;
    char first[240], last[240];
};

static void note(void *arg, const struct azoth_error *err)
{
    struct seen *s = arg;
    snprintf(s->n++ ? s->last : s->first, sizeof s->first, "%s", err->message);
}

static void all_errors_are_reported_when_asked_for(void **state)
{
    (void)state;
    struct seen s = {0};
    static const char text[] = HEAD "-- azoth: lease 5s\n-- azoth: on\nSELECT 1;\nSELECT 2;\n"
                                    "-- azoth: on good\nSELECT 3;\n-- azoth: on good\nSELECT 4;\n";
    assert_int_equal(sqlfile_parse_all("f.sql", bytes_str(text), &file, note, &s),
                     AZOTH_ERR_PROJECTION);
    assert_int_equal(s.n, 3);
    assert_string_equal(s.first, "f.sql:2:17: lease 5s: of effects, behind their mark");
    assert_string_equal(s.last, "f.sql:8:14: type good has a handler already");
    assert_int_equal(file.handlers, 1);
    text_is(file.handler[0].sql.text, "SELECT 3;");
    sqlfile_fini(&file);
    sqlfile_fini(&file);
}

static void a_long_path_leaves_room_for_what_is_wrong(void **state)
{
    (void)state;
    char path[1000];
    struct azoth_error err = {0};
    memset(path, 'd', sizeof path);
    memcpy(path + sizeof path - 7, "/f.sql", 7);
    assert_int_equal(sqlfile_parse(path, bytes_str("x"), &file, &err), AZOTH_ERR_PROJECTION);
    assert_non_null(strstr(err.message, "dd/f.sql:1:1: SQL stands in a migration"));
    assert_memory_equal(err.message, "...d", 4);
}

static void only_a_regular_file_is_read(void **state)
{
    (void)state;
    struct azoth_error err = {0};
    char path[] = "/tmp/test-sqlfile-XXXXXX";
    assert_int_equal(sqlfile_read("/nonexistent/p.sql", &file, &err), AZOTH_ERR_PROJECTION);
    assert_string_equal(err.message, "/nonexistent/p.sql: there is no such file");
    assert_int_equal(sqlfile_read("/tmp", &file, &err), AZOTH_ERR_PROJECTION);
    assert_string_equal(err.message, "/tmp: not a regular file");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, GOOD, sizeof GOOD - 1), sizeof GOOD - 1);
    close(fd);
    assert_int_equal(sqlfile_read(path, &file, &err), 0);
    assert_int_equal(file.handlers, 2);
    sqlfile_fini(&file);
    unlink(path);
}

static void words_and_parameters_stand_outside_strings_and_comments(void **state)
{
    (void)state;
    static const char sql[] = "a:b 'x :no' -- :no\n\"t \"\"u\", [v]/* :no */?1 $é::c`w`''x:";
    static const char *const want[] = {"a", ":b", "t ", "u", "v", "?1", "$é::c", "w", "x", ":"};
    struct azoth_bytes word, text = bytes_str(sql);
    size_t at = 0, n = 0;
    for (; sqlfile_word(text, &at, &word); n++) {
        assert_true(n < sizeof want / sizeof *want);
        text_is(word, want[n]);
        assert_int_equal(sqlfile_is_parameter(word), strchr(":?$", want[n][0]) != NULL);
    }
    assert_int_equal(n, sizeof want / sizeof *want);
    for (size_t cut = 0; cut < text.len; cut++) /* and ends with any text */
        for (at = 0; sqlfile_word(bytes_of(sql + cut, text.len - cut), &at, &word);)
            assert_true(at <= text.len - cut);
}

static void places_in_the_text_are_told(void **state)
{
    (void)state;
    uint32_t line, column;
    parse_good("-- azoth: projection p\n-- azoth: order-by  :v\n-- azoth: migration 1 m\n"
               "CREATE TABLE t (v);\n-- azoth: on a, put\n\nSELECT ':v',\n  :V, :v;\n");
    sqlfile_place(&file, file.order_by_at, &line, &column);
    assert_true(line == 2 && column == 21);
    sqlfile_place(&file, file.handler[0].types[1].ptr, &line, &column);
    assert_true(line == 5 && column == 17);
    const struct sql_block *b = &file.handler[0].sql;
    sqlfile_position(b, sqlfile_find(b->text, 0, b->text.len, ":v"), &line, &column);
    assert_true(line == 8 && column == 7);
    assert_int_equal(sqlfile_find(b->text, 3, b->text.len, ":w"), 3);
    assert_null(file.shard_by_at);
    sqlfile_fini(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_definition_is_read_with_its_lines),
        cmocka_unit_test(a_position_is_line_and_column_in_the_file),
        cmocka_unit_test(every_error_has_file_line_and_column),
        cmocka_unit_test(a_migration_that_is_there_twice_or_out_of_order_is_refused),
        cmocka_unit_test(an_undo_belongs_to_the_migration_right_before_it),
        cmocka_unit_test(a_type_has_one_handler),
        cmocka_unit_test(the_error_strategies_are_known_by_name),
        cmocka_unit_test(handlers_in_c_are_types_without_sql_and_a_library_beside_the_file),
        cmocka_unit_test(a_type_may_have_a_strategy_of_its_own),
        cmocka_unit_test(replay_order_by_and_breaker_are_read_strictly),
        cmocka_unit_test(a_target_is_a_server_that_nobody_is_told_of),
        cmocka_unit_test(a_retry_has_a_count_a_range_and_perhaps_another_strategy),
        cmocka_unit_test(effects_have_a_command_a_lease_an_order_and_no_sql),
        cmocka_unit_test(what_is_no_text_is_refused_with_its_place),
        cmocka_unit_test(blanks_and_comments_between_blocks_change_no_checksum),
        cmocka_unit_test(a_string_that_looks_like_a_comment_stays_whole),
        cmocka_unit_test(files_of_other_editors_are_understood),
        cmocka_unit_test(all_errors_are_reported_when_asked_for),
        cmocka_unit_test(a_long_path_leaves_room_for_what_is_wrong),
        cmocka_unit_test(only_a_regular_file_is_read),
        cmocka_unit_test(words_and_parameters_stand_outside_strings_and_comments),
        cmocka_unit_test(places_in_the_text_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
