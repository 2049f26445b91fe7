/* test_pgtext.c - PostgreSQL's SQL as text: where parameters are, and where statements end. */
#include "projector/pgtext.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* All statements, as they are sent, with their parameters: "select $1 {:a}|..." */
static const char *split(const char *sql)
{
    static char out[2000];
    struct azoth_bytes left = bytes_str(sql);
    size_t n = 0;
    out[0] = 0;
    while (left.len) {
        struct pgtext t;
        size_t used = 0;
        assert_int_equal(pgtext_first(left, &t, &used), 0);
        assert_true(used > 0 && used <= left.len);
        assert_int_equal(strlen((char *)t.sql.ptr), t.len);
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%s", n ? "|" : "",
                              t.empty ? "" : (char *)t.sql.ptr);
        for (int i = 0; i < t.parameters; i++)
            n += (size_t)snprintf(out + n, sizeof out - n, "{%s}", t.parameter[i].name);
        pgtext_fini(&t);
        left = bytes_of((const char *)left.ptr + used, left.len - used);
    }
    return out;
}

static void fields_and_the_events_own_become_numbers(void **state)
{
    (void)state;
    assert_string_equal(split("SELECT :a, @id, :b_2"), "SELECT $1, $2, $3{:a}{@id}{:b_2}");
    /* Each place has a number of its own. */
    assert_string_equal(split("SELECT :a+:a"), "SELECT $1+$2{:a}{:a}");
    assert_string_equal(split("WHERE id=@id AND n>=@time OR n-@txn"),
                        "WHERE id=$1 AND n>=$2 OR n-$3{@id}{@time}{@txn}");
    assert_string_equal(split("f(:a)::text || :b"), "f($1)::text || $2{:a}{:b}");
}

static void what_only_looks_like_one_stays(void **state)
{
    (void)state;
    static const char *const same[] = {"SELECT ':a', 'it''s :b'",
                                       "SELECT \":a\", \"x\"\":b\"",
                                       "SELECT 1 -- :a @id",
                                       "SELECT /* :a /* @id */ :b */ 1",
                                       "SELECT $$ :a; $$, $q$ $$ @id $q$",
                                       "SELECT E'\\':a', e'\\\\'",
                                       "SELECT x::int, y :: text",
                                       "SELECT a[1 : 2], f(n := 1), a[1:2]",
                                       "SELECT a <@ b, a @> c, a @@ d, a <@b, @ -5",
                                       "SELECT a$b$, \xc3\xa9$x$"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_string_equal(split(same[i]), same[i]);
    assert_string_equal(split("SELECT E'\\\\', :a"), "SELECT E'\\\\', $1{:a}");
    assert_string_equal(split("SELECT '\\', :a"), "SELECT '\\', $1{:a}");
    /* What does not end, ends with the text. */
    assert_string_equal(split("SELECT ':a"), "SELECT ':a");
    assert_string_equal(split("SELECT $x$ :a"), "SELECT $x$ :a");
    assert_string_equal(split("SELECT /* /* */ :a"), "SELECT /* /* */ :a");
}

static void statements_end_where_the_server_ends_them(void **state)
{
    (void)state;
    assert_string_equal(split("A; B;"), "A| B");
    assert_string_equal(split("A ';'; B $$;$$; /* ; */ C"), "A ';'| B $$;$$| /* ; */ C");
    assert_string_equal(split("CREATE RULE r AS ON x DO (A; B); C"),
                        "CREATE RULE r AS ON x DO (A; B)| C");
    assert_string_equal(
        split("CREATE FUNCTION f() BEGIN ATOMIC A; SELECT CASE x WHEN 1 THEN 2 END; END; C"),
        "CREATE FUNCTION f() BEGIN ATOMIC A; SELECT CASE x WHEN 1 THEN 2 END; END| C");
    assert_string_equal(split("-- only\n;"), "");
}

static void places_are_those_of_the_text_that_was_given(void **state)
{
    (void)state;
    const char sql[] = "SELECT :amount, @id, wrong";
    struct pgtext t;
    size_t used;
    assert_int_equal(pgtext_first(bytes_str(sql), &t, &used), 0);
    assert_string_equal((char *)t.sql.ptr, "SELECT $1, $2, wrong");
    size_t out = (size_t)(strstr((char *)t.sql.ptr, "wrong") - (char *)t.sql.ptr);
    assert_int_equal(pgtext_place(&t, out), strstr(sql, "wrong") - sql);
    assert_int_equal(pgtext_place(&t, 3), 3);
    assert_int_equal(pgtext_place(&t, 7), 7);
    pgtext_fini(&t);
}

static const char *refused(const char *sql, size_t at)
{
    size_t where = 999;
    const char *why = pgtext_refused(bytes_str(sql), &where);
    if (why)
        assert_int_equal(where, at);
    return why;
}

static void a_definition_may_not_touch_what_is_the_projectors(void **state)
{
    (void)state;
    static const char *const never[] = {"commit",      "ROLLBACK TO x",     "Begin",
                                        "SET x = 1",   "COPY t FROM STDIN", "savepoint x",
                                        "DISCARD ALL", "PREPARE p AS A"};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        assert_non_null(refused(never[i], 0));
    assert_non_null(refused("/* x */ COMMIT", 8));
    assert_non_null(refused("UPDATE azoth_projection SET cursor = 1", 7));
    assert_non_null(refused("DROP TABLE \"AZOTH_dlq\"", 11));
    assert_non_null(refused("SELECT $1", 7));
    assert_null(refused("SELECT 'azoth_dlq', 'COMMIT', $$ begin $$", 0));
    assert_null(refused("UPDATE t SET begin_at = 1 -- azoth_dlq", 0));
    assert_null(refused("CREATE TABLE my_azoth_t (x int)", 0));
}

static void our_own_statements_are_put_into_its_words(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(pgtext_own("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB, c 'INTEGER'); "
                                "BEGIN IMMEDIATE; SELECT ?1, ?12 WHERE x = ?2",
                                &b),
                     0);
    assert_string_equal((char *)b.ptr,
                        "CREATE TABLE t (a BIGINT PRIMARY KEY, b BYTEA, c 'INTEGER'); "
                        "BEGIN ; SELECT $1, $12 WHERE x = $2");
    buf_fini(&b);
}

/* Whatever the bytes are, the scanner goes on and stays within them: run with the address sanitizer. */
static void any_bytes_are_scanned_to_their_end(void **state)
{
    (void)state;
    static const char some[] = "'\"$:@-/*;()[]aE\\\n \xc3?<1_";
    uint64_t x = 88172645463325252u;
    for (int round = 0; round < 20000; round++) {
        size_t len = (size_t)(round % 40), at;
        char *p = malloc(len + 1);
        assert_non_null(p);
        for (size_t i = 0; i < len; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            p[i] = some[x % (sizeof some - 1)];
        }
        char *exact = realloc(p, len ? len : 1);
        struct azoth_bytes left = bytes_of(exact, len);
        while (left.len) {
            struct pgtext t;
            size_t used = 0;
            assert_int_equal(pgtext_first(left, &t, &used), 0);
            assert_true(used > 0 && used <= left.len);
            assert_true(pgtext_place(&t, t.len) <= left.len);
            pgtext_fini(&t);
            pgtext_refused(bytes_of(left.ptr, used), &at);
            left = bytes_of((const char *)left.ptr + used, left.len - used);
        }
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_and_the_events_own_become_numbers),
        cmocka_unit_test(what_only_looks_like_one_stays),
        cmocka_unit_test(statements_end_where_the_server_ends_them),
        cmocka_unit_test(places_are_those_of_the_text_that_was_given),
        cmocka_unit_test(a_definition_may_not_touch_what_is_the_projectors),
        cmocka_unit_test(our_own_statements_are_put_into_its_words),
        cmocka_unit_test(any_bytes_are_scanned_to_their_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
