/*
 * test_history.c - the checker of register histories: small histories, legal and not, and random
 * ones against a search without any cleverness.
 */
#include "tests/torture/history.h"
#include "tests/unit/seed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define P HISTORY_PENDING

static enum history_verdict check(const struct history_op *ops, size_t n)
{
    return history_check(ops, n, NULL);
}
#define LEGAL(ops) assert_int_equal(check(ops, sizeof ops / sizeof *(ops)), HISTORY_LINEARIZABLE)
#define ILLEGAL(ops)                                                                               \
    assert_int_equal(check(ops, sizeof ops / sizeof *(ops)), HISTORY_NOT_LINEARIZABLE)

static void no_operations_are_linearizable(void **state)
{
    (void)state;
    assert_int_equal(history_check(NULL, 0, NULL), HISTORY_LINEARIZABLE);
}

static void a_read_sees_the_write_that_ended_before_it(void **state)
{
    (void)state;
    const struct history_op good[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                      {HISTORY_READ, 1, 0, 30, 40, 0}};
    const struct history_op stale[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                       {HISTORY_READ, 0, 0, 30, 40, 0}};
    LEGAL(good);
    ILLEGAL(stale);
}

static void a_read_beside_a_write_may_see_it_or_not(void **state)
{
    (void)state;
    const struct history_op before[] = {{HISTORY_WRITE, 1, 0, 10, 40, 0},
                                        {HISTORY_READ, 0, 0, 20, 30, 0}};
    const struct history_op after[] = {{HISTORY_WRITE, 1, 0, 10, 40, 0},
                                       {HISTORY_READ, 1, 0, 20, 30, 0}};
    LEGAL(before);
    LEGAL(after);
}

static void two_reads_in_a_row_do_not_go_back(void **state)
{
    (void)state;
    const struct history_op back[] = {{HISTORY_WRITE, 1, 0, 10, 100, 0},
                                      {HISTORY_READ, 1, 0, 20, 30, 0},
                                      {HISTORY_READ, 0, 0, 40, 50, 0}};
    const struct history_op on[] = {{HISTORY_WRITE, 1, 0, 10, 100, 0},
                                    {HISTORY_READ, 0, 0, 20, 30, 0},
                                    {HISTORY_READ, 1, 0, 40, 50, 0}};
    ILLEGAL(back);
    LEGAL(on);
}

static void a_read_does_not_see_what_is_written_later_or_never(void **state)
{
    (void)state;
    const struct history_op later[] = {{HISTORY_READ, 1, 0, 10, 20, 0},
                                       {HISTORY_WRITE, 1, 0, 30, 40, 0}};
    const struct history_op never[] = {{HISTORY_READ, 7, 0, 10, 20, 0}};
    ILLEGAL(later);
    ILLEGAL(never);
}

static void of_two_compare_and_sets_from_one_value_one_succeeds(void **state)
{
    (void)state;
    const struct history_op both[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                      {HISTORY_CAS, 2, 1, 30, 60, 0},
                                      {HISTORY_CAS, 3, 1, 40, 50, 0}};
    const struct history_op one[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                     {HISTORY_CAS, 2, 1, 30, 60, 0},
                                     {HISTORY_CAS_NOT, 3, 1, 40, 50, 0}};
    ILLEGAL(both);
    LEGAL(one);
}

static void a_refused_compare_and_set_needs_another_value_to_have_been_there(void **state)
{
    (void)state;
    const struct history_op wrong[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                       {HISTORY_CAS_NOT, 2, 1, 30, 40, 0}};
    const struct history_op beside[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                        {HISTORY_WRITE, 5, 0, 25, P, 0},
                                        {HISTORY_CAS_NOT, 2, 1, 30, 40, 0}};
    const struct history_op too_late[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                          {HISTORY_WRITE, 5, 0, 45, P, 0},
                                          {HISTORY_CAS_NOT, 2, 1, 30, 40, 0}};
    ILLEGAL(wrong);
    LEGAL(beside);
    ILLEGAL(too_late);
}

static void an_unknown_write_takes_effect_at_any_later_time_once_or_never(void **state)
{
    (void)state;
    const struct history_op late[] = {{HISTORY_WRITE, 1, 0, 10, P, 0},
                                      {HISTORY_READ, 0, 0, 20, 30, 0},
                                      {HISTORY_READ, 1, 0, 40, 50, 0},
                                      {HISTORY_READ, 1, 0, 60, 70, 0}};
    const struct history_op never[] = {{HISTORY_WRITE, 1, 0, 10, P, 0},
                                       {HISTORY_READ, 0, 0, 20, 30, 0},
                                       {HISTORY_READ, 0, 0, 40, 50, 0}};
    const struct history_op twice[] = {{HISTORY_WRITE, 1, 0, 10, P, 0},
                                       {HISTORY_READ, 1, 0, 20, 30, 0},
                                       {HISTORY_WRITE, 2, 0, 40, 50, 0},
                                       {HISTORY_READ, 1, 0, 60, 70, 0}};
    const struct history_op early[] = {{HISTORY_READ, 1, 0, 5, 8, 0},
                                       {HISTORY_WRITE, 1, 0, 10, P, 0}};
    LEGAL(late);
    LEGAL(never);
    ILLEGAL(twice);
    ILLEGAL(early);
}

static void a_lost_update_is_found(void **state)
{
    (void)state;
    const struct history_op lost[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                      {HISTORY_READ, 1, 0, 21, 22, 0},
                                      {HISTORY_CAS, 2, 1, 30, 40, 0},
                                      {HISTORY_CHECK, 0, 1, 50, 60, 0}};
    const struct history_op kept[] = {{HISTORY_WRITE, 1, 0, 10, 20, 0},
                                      {HISTORY_READ, 1, 0, 21, 22, 0},
                                      {HISTORY_CAS, 2, 1, 30, 40, 0},
                                      {HISTORY_CHECK, 0, 2, 50, 60, 0}};
    ILLEGAL(lost);
    LEGAL(kept);
}

/* ---- random ones, against every order ---- */

static uint64_t next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static int runs(const struct history_op *op, int64_t *value)
{
    if (op->kind == HISTORY_READ)
        return *value == op->value;
    if (op->kind == HISTORY_CAS_NOT)
        return *value != op->expected;
    if (op->kind != HISTORY_WRITE && *value != op->expected)
        return 0;
    if (op->kind != HISTORY_CHECK)
        *value = op->value;
    return 1;
}

/* Every order that respects time, one operation after the other. */
static int some_order(const struct history_op *ops, unsigned n, unsigned placed, int64_t value)
{
    int left = 0;
    for (unsigned i = 0; i < n; i++)
        left += !(placed >> i & 1) && ops[i].replied_ns != P;
    if (!left)
        return 1;
    for (unsigned i = 0; i < n; i++) {
        int first = !(placed >> i & 1);
        for (unsigned k = 0; k < n && first; k++)
            first = (placed >> k & 1) || k == i || ops[k].replied_ns >= ops[i].invoked_ns;
        int64_t v = value;
        if (first && runs(&ops[i], &v) && some_order(ops, n, placed | 1u << i, v))
            return 1;
    }
    return 0;
}

static void random_histories_get_the_verdict_of_trying_every_order(void **state)
{
    (void)state;
    uint64_t seed = seed_of_run() | 1;
    unsigned legal = 0, illegal = 0;
    for (int round = 0; round < 20000; round++) {
        struct history_op ops[7];
        unsigned n = 1 + (unsigned)(next(&seed) % 7);
        for (unsigned i = 0; i < n; i++) {
            uint64_t from = next(&seed) % 20;
            ops[i] = (struct history_op){.kind = (enum history_kind)(next(&seed) % 5),
                                         .value = (int64_t)(next(&seed) % 4),
                                         .expected = (int64_t)(next(&seed) % 4),
                                         .invoked_ns = from,
                                         .replied_ns = from + next(&seed) % 12,
                                         .ref = i};
            if ((ops[i].kind == HISTORY_WRITE || ops[i].kind == HISTORY_CAS) &&
                next(&seed) % 4 == 0)
                ops[i].replied_ns = P;
        }
        int want = some_order(ops, n, 0, 0);
        if (check(ops, n) != (want ? HISTORY_LINEARIZABLE : HISTORY_NOT_LINEARIZABLE))
            fail_msg("round %d: the exhaustive search says %d", round, want);
        legal += (unsigned)want;
        illegal += (unsigned)!want;
    }
    /* Both kinds were met in earnest. */
    assert_true(legal > 1000 && illegal > 1000);
}

/* A real run: one register, `clients` at once, each operation at an instant inside its interval. */
static size_t make_run(struct history_op *ops, size_t n, unsigned clients, uint64_t *seed)
{
    int64_t value = 0;
    uint64_t busy_until[16] = {0}, now = 100;
    for (size_t i = 0; i < n; i++) {
        now += 10;
        unsigned c = (unsigned)(next(seed) % clients);
        uint64_t room = now - 5 - busy_until[c];
        struct history_op *op = &ops[i];
        *op = (struct history_op){.invoked_ns = now - next(seed) % (room > 60 ? 60 : room + 1),
                                  .replied_ns = now + next(seed) % 60,
                                  .ref = i};
        if (busy_until[c] > now - 6) {
            if (next(seed) % 32) { /* busy: another has its turn */
                i--;
                continue;
            }
            op->invoked_ns = now; /* a client that died: its operation stays unknown */
            op->replied_ns = P;
            op->kind = HISTORY_WRITE;
            value = op->value = (int64_t)i + 1;
            continue;
        }
        busy_until[c] = op->replied_ns;
        switch (next(seed) % 4) {
        case 0:
            op->kind = HISTORY_WRITE;
            value = op->value = (int64_t)i + 1;
            break;
        case 1:
            op->kind = HISTORY_CAS;
            op->expected = value;
            value = op->value = (int64_t)i + 1;
            break;
        case 2:
            op->kind = HISTORY_CAS_NOT;
            op->expected = value + 1000000;
            break;
        default:
            op->kind = HISTORY_READ;
            op->value = value;
        }
    }
    return n;
}

static void long_runs_are_decided_and_one_stale_read_in_them_is_found(void **state)
{
    (void)state;
    static struct history_op ops[3000];
    uint64_t seed = 88172645463325252ull;
    size_t n = make_run(ops, sizeof ops / sizeof *ops, 6, &seed);
    assert_int_equal(check(ops, n), HISTORY_LINEARIZABLE);
    /* A read after the end sees a value that an answered write replaced long before. */
    size_t old = 0;
    while (ops[old].kind != HISTORY_WRITE || ops[old].replied_ns == P)
        old++;
    ops[n - 1] = (struct history_op){HISTORY_READ, ops[old].value, 0, 200000, 200010, 0};
    size_t longest = 0;
    assert_int_equal(history_check(ops, n, &longest), HISTORY_NOT_LINEARIZABLE);
    assert_true(longest > n / 2 && longest < n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_operations_are_linearizable),
        cmocka_unit_test(a_read_sees_the_write_that_ended_before_it),
        cmocka_unit_test(a_read_beside_a_write_may_see_it_or_not),
        cmocka_unit_test(two_reads_in_a_row_do_not_go_back),
        cmocka_unit_test(a_read_does_not_see_what_is_written_later_or_never),
        cmocka_unit_test(of_two_compare_and_sets_from_one_value_one_succeeds),
        cmocka_unit_test(a_refused_compare_and_set_needs_another_value_to_have_been_there),
        cmocka_unit_test(an_unknown_write_takes_effect_at_any_later_time_once_or_never),
        cmocka_unit_test(a_lost_update_is_found),
        cmocka_unit_test(random_histories_get_the_verdict_of_trying_every_order),
        cmocka_unit_test(long_runs_are_decided_and_one_stale_read_in_them_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
