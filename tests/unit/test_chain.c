/*
 * test_chain.c - the hash chain: known answers, made with another implementation of BLAKE2b (Python's
 * hashlib over the layout in core/chain.h), and that whatever an event has counts.
 */
#include "core/batchrec.h"
#include "core/chain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

static char payload[1000];

static void uuid_of_the_vectors(uint8_t uuid[16])
{
    for (uint8_t i = 0; i < 16; i++)
        uuid[i] = i;
}

static struct event_record first(void)
{
    return (struct event_record){.id = 1,
                                 .txn = 5,
                                 .time_ns = 1700000000000000000,
                                 .type = bytes_str("opened"),
                                 .key = bytes_str("acct/1"),
                                 .payload = bytes_str("{\"n\":1}")};
}

static void second(struct event_record ev[2])
{
    memset(payload, 'p', sizeof payload);
    ev[0] = (struct event_record){.id = 2,
                                  .txn = 9,
                                  .time_ns = -7,
                                  .type = bytes_str("moved"),
                                  .metadata = bytes_of("m\0m", 3)};
    ev[1] = (struct event_record){.id = 3,
                                  .txn = 9,
                                  .time_ns = -7,
                                  .type = bytes_str("moved"),
                                  .key = bytes_str("acct/2"),
                                  .payload = bytes_of(payload, sizeof payload)};
}

static void expect(const struct chain *c, const char *hex, uint64_t txn, uint64_t event)
{
    char text[2 * CHAIN_BYTES + 1];
    for (unsigned i = 0; i < CHAIN_BYTES; i++)
        snprintf(text + 2 * (size_t)i, 3, "%02x", c->value[i]);
    assert_string_equal(text, hex);
    assert_int_equal(c->txn, txn);
    assert_int_equal(c->event, event);
    assert_true(c->on);
}

static void its_values_are_those_of_another_implementation(void **state)
{
    (void)state;
    uint8_t uuid[16];
    struct chain c;
    uuid_of_the_vectors(uuid);
    chain_begin(&c, uuid, 0, 0);
    expect(&c, "d40bb727affe26a003d7b76800d7d11ac577266f252207d78bea4639e8c60b6b", 0, 0);
    struct event_record one = first(), two[2];
    chain_extend(&c, &one, 1);
    expect(&c, "60ddd56b479552c9ab481bb842022da9c860f2220144be9abea2589d0afbcc8e", 5, 1);
    second(two);
    chain_extend(&c, two, 2);
    expect(&c, "97daec7d3866ef45b590aebf3ad3305748fa2bee171c887a96d56d7b23202b9c", 9, 3);
}

static int changes(const struct event_record *ev, uint32_t n)
{
    uint8_t uuid[16];
    struct chain a, b;
    struct event_record was[2];
    uuid_of_the_vectors(uuid);
    second(was);
    chain_begin(&a, uuid, 0, 0);
    b = a;
    chain_extend(&a, was, 2);
    chain_extend(&b, ev, n);
    return memcmp(a.value, b.value, CHAIN_BYTES) != 0;
}

static void whatever_an_event_has_counts(void **state)
{
    (void)state;
    struct event_record ev[2];
    second(ev);
    assert_false(changes(ev, 2));
    assert_true(changes(ev, 1));
    second(ev);
    ev[0].txn++;
    assert_true(changes(ev, 2));
    second(ev);
    ev[0].id++;
    assert_true(changes(ev, 2));
    second(ev);
    ev[0].time_ns++;
    assert_true(changes(ev, 2));
    struct azoth_bytes *const field[] = {&ev[1].type, &ev[1].key, &ev[1].metadata, &ev[1].payload};
    for (size_t i = 0; i < 4; i++) {
        second(ev);
        *field[i] = bytes_str("x");
        assert_true(changes(ev, 2));
    }
    /* A byte that goes from one field to the next. */
    second(ev);
    ev[1].type = bytes_str("move");
    ev[1].key = bytes_str("dacct/2");
    assert_true(changes(ev, 2));
}

static void its_start_is_refused_when_it_is_not_whole(void **state)
{
    (void)state;
    uint8_t uuid[16];
    unsigned char rec[CHAIN_RECORD];
    struct chain c, back;
    uuid_of_the_vectors(uuid);
    chain_begin(&c, uuid, 3, 4);
    chain_start_encode(rec, &c);
    assert_int_equal(chain_start_decode(bytes_of(rec, sizeof rec), &back), 0);
    assert_memory_equal(back.value, c.value, CHAIN_BYTES);
    assert_true(back.txn == 3 && back.event == 4 && back.on);
    for (size_t len = 0; len < sizeof rec; len++)
        assert_true(chain_start_decode(bytes_of(rec, len), &back) < 0);
    for (size_t i = 0; i < sizeof rec * 8; i++) {
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
        assert_true(chain_start_decode(bytes_of(rec, sizeof rec), &back) < 0);
        rec[i / 8] ^= (unsigned char)(1 << (i % 8));
    }
}

static void the_batch_record_carries_it_and_one_of_format_1_has_none(void **state)
{
    (void)state;
    uint8_t uuid[16];
    struct batch_head h = {.incarnation = 1, .epoch = 2, .event = 3, .txn = 4, .count = 1}, back;
    struct batch_entry e = {.slot = 5, .code = -3, .ticket = 6}, one = {0};
    unsigned char rec[BATCH_HEAD + BATCH_ENTRY], old[80 + BATCH_ENTRY];
    uuid_of_the_vectors(uuid);
    chain_begin(&h.chain, uuid, 4, 3);
    batch_encode(rec, &h, &e);
    assert_int_equal(batch_decode(bytes_of(rec, sizeof rec), &back), 0);
    assert_memory_equal(back.chain.value, h.chain.value, CHAIN_BYTES);
    assert_true(back.chain.on && back.chain.txn == 4 && back.chain.event == 3);
    h.chain.on = 0;
    batch_encode(rec, &h, &e);
    assert_int_equal(batch_decode(bytes_of(rec, sizeof rec), &back), 0);
    assert_false(back.chain.on);
    /* Format 1: the same up to the flags, and its checksum there. */
    memcpy(old, rec, 72);
    memcpy(old, "AZB1", 4);
    memcpy(old + 80, rec + BATCH_HEAD, BATCH_ENTRY);
    put_u64(old + 72, XXH3_64bits_withSeed(old + 80, BATCH_ENTRY, XXH3_64bits(old, 72)));
    assert_int_equal(batch_decode(bytes_of(old, sizeof old), &back), 0);
    assert_true(back.event == 3 && back.txn == 4 && back.count == 1 && !back.chain.on);
    batch_entry_decode(bytes_of(old, sizeof old), 0, &one);
    assert_true(one.slot == 5 && one.code == -3 && one.ticket == 6);
    old[40] ^= 1;
    assert_true(batch_decode(bytes_of(old, sizeof old), &back) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_values_are_those_of_another_implementation),
        cmocka_unit_test(whatever_an_event_has_counts),
        cmocka_unit_test(its_start_is_refused_when_it_is_not_whole),
        cmocka_unit_test(the_batch_record_carries_it_and_one_of_format_1_has_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
