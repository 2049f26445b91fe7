/*
 * test_feed.c - the feed and the projector's side of its protocol, stepped by hand in one process.
 *
 * Time is a number that the tests move; only messages between sockets take real time, and for these
 * a test waits on the sockets' descriptors.
 */
#include "core/clock.h"
#include "core/error.h"
#include "core/pipe.h"
#include "core/store_lmdb.h"
#include "projector/pull.h"
#include "shm/gauges.h"
#include "shm/projection_row.h"
#include "writer/append.h"
#include "writer/create.h"
#include "writer/feed.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LAPSE_NS   (10 * NS_PER_S)
#define TIMEOUT_NS (60 * NS_PER_S)
#define GIVE_UP_MS 10000
#define CREDIT     262144u
#define BATCH      (CREDIT / 4)

static char dir[64], feed_at[100], projector_at[2][100];
static struct segment_name segment;
static struct store *store;
static struct append *append;
static struct gauges *gauges;
static struct feed *feed;
static struct azoth_error err;
static uint64_t now;

/* ---- a database of one's own ---- */

static void open_feed(void)
{
    struct feed_options o = {.listen = {feed_at}, .lapse_ns = LAPSE_NS};
    assert_int_equal(feed_open(&o, store, gauges, &feed, &err), 0);
}

static int setup(void **state)
{
    (void)state;
    struct buf record = {0};
    strcpy(dir, "/tmp/azoth-feed-XXXXXX");
    if (!mkdtemp(dir) || store_create(dir, 0, &err) || store_open(dir, STORE_WRITE, &store, &err) ||
        append_open(store, 2, &append, &record, &err) || segment_name_of(dir, &segment, &err) ||
        gauges_create(&segment, &gauges, &err))
        return -1;
    buf_fini(&record);
    snprintf(feed_at, sizeof feed_at, "ipc://%s/feed.sock", dir);
    for (int i = 0; i < 2; i++)
        snprintf(projector_at[i], sizeof *projector_at, "ipc://%s/p%d.sock", dir, i);
    now = 1000 * NS_PER_S;
    open_feed();
    return 0;
}

static int teardown(void **state)
{
    static const char *const files[] = {"data.mdb",  "lock.mdb", "uuid",   "participants.lock",
                                        "feed.sock", "p0.sock",  "p1.sock"};
    (void)state;
    feed_close(feed);
    append_close(append);
    store_close(store);
    gauges_detach(gauges);
    segment_unlink(&segment);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    char path[100];
    snprintf(path, sizeof path, "%s/projections", dir);
    return rmdir(path) || rmdir(dir);
}

/* Commits n events of one type and payload; stream keys and payloads tell the event's id. */
static void add_events(uint64_t n, const char *type, size_t payload_bytes)
{
    static uint64_t clock_ns = 1700000000000000000;
    struct txn_builder b = {0};
    struct txn_result res;
    char *payload = malloc(payload_bytes + 40);
    int code;
    assert_non_null(payload);
    memset(payload, ' ', payload_bytes + 40);
    for (uint64_t done = 0; done < n;) {
        txn_builder_clear(&b);
        uint64_t id = append_head(append)->event;
        for (int k = 0; k < 500 && done < n; k++, done++) {
            char key[32];
            ++id;
            snprintf(key, sizeof key, "k%llu", (unsigned long long)(id % 100));
            int len = snprintf(payload, 40, "{\"account\":%llu}", (unsigned long long)(id % 100));
            payload[len] = ' ';
            size_t size = (size_t)len > payload_bytes ? (size_t)len : payload_bytes;
            assert_int_equal(txn_add_event(&b, bytes_str(type), bytes_str(key), bytes_of("", 0),
                                           bytes_of(payload, size), &err),
                             0);
        }
        assert_int_equal(append_begin(append, (int64_t)clock_ns++, 0, &err), 0);
        assert_int_equal(append_apply(append, txn_image(&b), NULL, 0, &code, &res, &err), 0);
        assert_int_equal(code, 0);
        assert_int_equal(append_commit(append, NULL, 0, &err), 0);
    }
    txn_builder_fini(&b);
    free(payload);
}

static uint32_t check_of(uint64_t id)
{
    struct snapshot *sn;
    struct event_scan *es;
    struct event_record ev;
    struct azoth_bytes raw;
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    assert_int_equal(event_scan_open(sn, id, id + 1, &es, &err), 0);
    assert_int_equal(event_scan_next(es, &ev, &raw, &err), 1);
    uint32_t check = record_checksum(raw);
    event_scan_close(es);
    snapshot_end(sn);
    return check;
}

/* What a broken disk or another program did: event `id` is gone, or one of its bytes is. */
static void damage(uint64_t id, int gone)
{
    struct store_lmdb *l = store_lmdb(store);
    MDB_txn *txn;
    unsigned char key[8], copy[4096];
    put_be64(key, id);
    MDB_val k = {8, key}, v;
    assert_int_equal(mdb_txn_begin(l->env, NULL, 0, &txn), 0);
    if (gone) {
        assert_int_equal(mdb_del(txn, l->dbi[DB_EVENTS], &k, NULL), 0);
    } else {
        assert_int_equal(mdb_get(txn, l->dbi[DB_EVENTS], &k, &v), 0);
        assert_true(v.mv_size <= sizeof copy);
        memcpy(copy, v.mv_data, v.mv_size);
        copy[v.mv_size - 1] ^= 1;
        v.mv_data = copy;
        assert_int_equal(mdb_put(txn, l->dbi[DB_EVENTS], &k, &v, 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
}

/* ---- a projector made by hand ---- */

struct hand {
    struct pipe_end *in, *out;
    struct wire_pull m;
    struct buf buf;
    struct azoth_bytes message;
    struct wire_batch b;  /* the last one */
    uint64_t events, sum; /* of what was received */
    size_t frames_max;
};

static void hand_open(struct hand *h, const char *name, int at)
{
    memset(h, 0, sizeof *h);
    assert_int_equal(pipe_bind_pull(projector_at[at], &h->in, &err), 0);
    assert_int_equal(pipe_connect_push(feed_at, &h->out, &err), 0);
    h->m = (struct wire_pull){.subscription = 100,
                              .instance = 7,
                              .credit_bytes = CREDIT,
                              .shards = 1,
                              .state = PROJECTION_RUNNING,
                              .name = bytes_str(name),
                              .endpoint = bytes_str(projector_at[at])};
    memcpy(h->m.uuid, store_identity(store)->uuid, 16);
}

static void hand_close(struct hand *h)
{
    if (h->message.ptr)
        pipe_release(h->message);
    pipe_close(h->in);
    pipe_close(h->out);
    buf_fini(&h->buf);
}

static void hand_send(struct hand *h)
{
    buf_clear(&h->buf);
    assert_int_equal(wire_pull_encode(&h->buf, &h->m), 0);
    assert_int_equal(pipe_send(h->out, buf_bytes(&h->buf), GIVE_UP_MS, &err), 0);
    struct pollfd fd = {.fd = feed_poll_fd(feed), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, GIVE_UP_MS), 1);
}

static int hand_take(struct hand *h, int timeout_ms)
{
    struct event_record ev;
    if (h->message.ptr)
        pipe_release(h->message);
    h->message = (struct azoth_bytes){0};
    int got = pipe_receive(h->in, timeout_ms, &h->message, &err);
    assert_true(got >= 0);
    if (!got)
        return 0;
    assert_int_equal(wire_batch_decode(h->message, &h->b, &err), 0);
    for (size_t at = 0; record_frame_next(h->b.frames, &at, &ev, NULL) == 1;) {
        h->events++;
        h->sum += ev.id;
    }
    if (h->b.frames.len > h->frames_max)
        h->frames_max = h->b.frames.len;
    return 1;
}

/* Steps the feed, its time by a millisecond each, until it has nothing to do. */
static void feed_run(void)
{
    for (int idle = 0; idle < 3;) {
        int n = feed_step(feed, now, &err);
        assert_true(n >= 0);
        idle = n ? 0 : idle + 1;
        now += NS_PER_MS;
    }
}

/* Runs the feed until a batch has come; a connection that is being made takes real time. */
static int hand_wait_for(struct hand *h, int ms)
{
    for (int i = 0; i < ms; i++) {
        assert_true(feed_step(feed, now, &err) >= 0);
        now += NS_PER_MS;
        if (hand_take(h, 1))
            return 1;
    }
    return 0;
}

static int hand_wait(struct hand *h)
{
    return hand_wait_for(h, GIVE_UP_MS);
}

static int hand_ask(struct hand *h)
{
    hand_send(h);
    return hand_wait(h);
}

/* A subscription that is established: it has been told the head. */
static void hand_follow(struct hand *h)
{
    h->m.cursor = h->b.last;
    h->m.cursor_check = h->b.last_check;
    h->m.applied = h->b.last;
}

/* Everything up to the head; each batch is confirmed as it comes. */
static void hand_drain(struct hand *h)
{
    h->b = (struct wire_batch){0};
    hand_send(h);
    do {
        if (h->b.last > h->m.cursor) {
            hand_follow(h);
            hand_send(h);
        }
        assert_true(hand_wait(h));
        assert_int_equal(h->b.code, 0);
        assert_int_equal(h->b.first, h->m.cursor + 1);
    } while (h->b.last < h->b.head);
    hand_follow(h);
}

/* Nothing is on its way: what the feed sends from now on is the next message. */
static void hand_hears_nothing(struct hand *h)
{
    feed_run();
    assert_int_equal(hand_take(h, 30), 0);
}

static uint64_t sum_to(uint64_t n)
{
    return n * (n + 1) / 2;
}

/* ---- batches ---- */

static void events_come_once_and_in_order_in_batches_within_the_credit(void **state)
{
    (void)state;
    struct hand h;
    add_events(5000, "added", 100);
    hand_open(&h, "p", 0);
    hand_drain(&h);
    assert_int_equal(h.events, 5000);
    assert_int_equal(h.sum, sum_to(5000));
    assert_int_equal(h.b.last, 5000);
    assert_int_equal(h.b.last_check, check_of(5000));
    assert_true(h.frames_max <= BATCH && h.frames_max > BATCH - 5000);
    hand_close(&h);
}

static void as_much_as_the_credit_is_sent_ahead_and_what_is_confirmed_makes_room(void **state)
{
    (void)state;
    struct hand h;
    add_events(10000, "added", 100);
    hand_open(&h, "p", 0);
    hand_send(&h);
    size_t bytes = 0;
    uint64_t cursor = 0, first_end = 0;
    uint32_t batches = 0;
    for (; hand_wait_for(&h, 300); batches++) {
        assert_int_equal(h.b.first, cursor + 1);
        cursor = h.b.last;
        first_end = batches ? first_end : cursor;
        bytes += h.b.frames.len;
    }
    assert_int_equal(batches, 4);
    assert_true(bytes <= CREDIT && bytes > CREDIT - 4 * 5000);
    assert_false(feed_waits(feed));
    /* The first is confirmed: room for one more. */
    h.m.cursor = first_end;
    assert_true(hand_ask(&h));
    assert_int_equal(h.b.first, cursor + 1);
    cursor = h.b.last;
    hand_hears_nothing(&h);
    /* Less credit, of which more is on its way: nothing until that has come. */
    h.m.credit_bytes = CREDIT / 2;
    hand_send(&h);
    hand_hears_nothing(&h);
    h.m.cursor = cursor;
    hand_send(&h);
    for (bytes = 0; hand_wait_for(&h, 300); bytes += h.b.frames.len) {
        assert_int_equal(h.b.first, cursor + 1);
        assert_true(h.b.frames.len <= CREDIT / 8);
        cursor = h.b.last;
    }
    assert_true(bytes <= CREDIT / 2 && bytes > CREDIT / 2 - 4 * 5000);
    /* Beyond what was sent: it confirms nothing. */
    h.m.cursor = cursor + 1;
    hand_send(&h);
    hand_hears_nothing(&h);
    hand_close(&h);
}

static void what_the_transport_did_not_take_is_sent_to_nobody_else(void **state)
{
    (void)state;
    struct hand h, other;
    struct pollfd fds[4];
    add_events(4000, "added", 100);
    hand_open(&h, "p", 0);
    hand_open(&other, "other", 1);
    hand_send(&h);
    pipe_close(h.in); /* the endpoint is not bound for now */
    assert_true(feed_step(feed, now, &err) >= 0);
    assert_int_equal(feed_blocked(feed, fds, 4), 1);
    assert_int_equal(poll(fds, 1, 0), 0);
    other.m.types = bytes_of("\4none", 5);
    hand_drain(&other);
    assert_int_equal(other.b.last, 4000);
    assert_int_equal(other.b.frames.len, 0);
    /* Nor to the same one under another filter. */
    h.m.types = bytes_of("\4none", 5);
    h.m.subscription++;
    hand_send(&h);
    assert_true(feed_step(feed, now, &err) >= 0);
    assert_int_equal(pipe_bind_pull(projector_at[0], &h.in, &err), 0);
    assert_int_equal(feed_blocked(feed, fds, 4), 1);
    assert_int_equal(poll(fds, 1, GIVE_UP_MS), 1); /* the connection */
    hand_drain(&h);
    assert_int_equal(h.events, 0);
    assert_int_equal(feed_blocked(feed, fds, 4), 0);
    h.m.types = bytes_of("", 0);
    h.m.cursor = 0;
    h.m.cursor_check = 0;
    h.m.subscription++;
    hand_drain(&h);
    assert_int_equal(h.events, 4000);
    assert_int_equal(h.sum, sum_to(4000));
    hand_close(&h);
    hand_close(&other);
}

static void an_event_over_the_credit_comes_alone(void **state)
{
    (void)state;
    struct hand h;
    add_events(1, "small", 10);
    add_events(1, "large", 900000);
    add_events(1, "small", 10);
    hand_open(&h, "p", 0);
    for (uint64_t id = 1; id <= 3; id++) {
        assert_true(hand_ask(&h));
        assert_int_equal(h.b.first, id);
        assert_int_equal(h.b.last, id);
        assert_int_equal(h.events, id);
        hand_follow(&h);
    }
    hand_close(&h);
}

static void a_range_without_wanted_events_moves_the_cursor_in_bounded_looks(void **state)
{
    (void)state;
    struct hand h;
    add_events(60000, "other", 10);
    add_events(3, "added", 10);
    hand_open(&h, "p", 0);
    h.m.types = bytes_of("\5added\4more", 11);
    assert_true(hand_ask(&h));
    assert_int_equal(h.b.last, 50000);
    assert_int_equal(h.b.last_check, check_of(50000));
    assert_int_equal(h.b.frames.len, 0);
    hand_follow(&h);
    hand_drain(&h);
    assert_int_equal(h.b.last, 60003);
    assert_int_equal(h.events, 3);
    hand_close(&h);
}

static void shards_divide_the_events_by_key_or_by_field(void **state)
{
    (void)state;
    static const char *const by[] = {"", "@key", ":account"};
    add_events(3000, "added", 40);
    for (size_t i = 0; i < sizeof by / sizeof *by; i++) {
        uint64_t events = 0, sum = 0;
        for (uint32_t shard = 0; shard < 3; shard++) {
            struct hand h;
            hand_open(&h, "p", 0);
            h.m.shard = shard;
            h.m.shards = 3;
            h.m.shard_by = bytes_str(by[i]);
            h.m.instance = 1000 * i + shard;
            hand_drain(&h);
            assert_true(h.events > 300 && h.events < 1800);
            events += h.events;
            sum += h.sum;
            hand_close(&h);
        }
        assert_int_equal(events, 3000);
        assert_int_equal(sum, sum_to(3000));
    }
}

static void new_events_are_sent_to_one_who_waits_at_the_head(void **state)
{
    (void)state;
    struct hand h;
    hand_open(&h, "p", 0);
    /* One who is new is told the head, though there is nothing. */
    assert_true(hand_ask(&h));
    assert_int_equal(h.b.head, 0);
    assert_int_equal(h.b.last, 0);
    hand_hears_nothing(&h);
    assert_true(feed_waits(feed));
    add_events(10, "added", 10);
    assert_true(hand_wait(&h));
    assert_int_equal(h.events, 10);
    /* Its credit is not used up by that. */
    assert_true(feed_waits(feed));
    add_events(10, "added", 10);
    assert_true(hand_wait(&h));
    assert_int_equal(h.events, 20);
    hand_close(&h);
}

static void the_first_answer_does_not_wait_for_the_connection_twice(void **state)
{
    (void)state;
    struct hand h;
    add_events(1, "added", 10);
    hand_open(&h, "p", 0);
    hand_send(&h);
    /* The endpoint is not bound for now: the first send finds nobody. */
    pipe_close(h.in);
    feed_step(feed, now, &err);
    assert_int_not_equal(feed_retry_ns(feed), 0);
    assert_int_equal(feed_step(feed, now, &err), 0);
    assert_int_equal(pipe_bind_pull(projector_at[0], &h.in, &err), 0);
    assert_true(hand_wait(&h));
    assert_int_equal(h.events, 1);
    assert_int_equal(feed_retry_ns(feed), 0);
    hand_close(&h);
}

static void sends_to_nobody_are_tried_a_bounded_number_of_times(void **state)
{
    (void)state;
    struct hand h;
    add_events(1, "added", 10);
    hand_open(&h, "p", 0);
    hand_send(&h);
    pipe_close(h.in);
    h.in = NULL;
    uint64_t begin = now;
    do {
        assert_true(feed_step(feed, now, &err) >= 0);
        now = feed_retry_ns(feed) ? feed_retry_ns(feed) : now;
    } while (feed_retry_ns(feed) && now < begin + LAPSE_NS);
    assert_true(now - begin > 200 * NS_PER_MS && now - begin < NS_PER_S);
    assert_false(feed_waits(feed));
    hand_close(&h);
}

/* ---- histories ---- */

static void another_history_is_refused_and_told_why(void **state)
{
    (void)state;
    struct hand h;
    add_events(10, "added", 10);
    for (int i = 0; i < 3; i++) {
        hand_open(&h, "p", 0);
        h.m.subscription += (uint64_t)i;
        h.m.cursor = i == 1 ? 11 : 5;
        h.m.cursor_check = check_of(5) + (i == 2);
        h.m.uuid[3] ^= i == 0;
        assert_true(hand_ask(&h));
        assert_int_equal(h.b.code, AZOTH_ERR_DIVERGED);
        assert_int_equal(h.b.first, h.m.cursor + 1);
        static const char *const why[] = {"another database", "beyond the log's head 10",
                                          "event 5 is not the one"};
        char text[300];
        snprintf(text, sizeof text, "%.*s", (int)h.b.message.len, (const char *)h.b.message.ptr);
        assert_non_null(strstr(text, why[i]));
        /* And gets nothing on asking again under the same number. */
        hand_send(&h);
        hand_hears_nothing(&h);
        assert_int_equal(h.events, 0);
        hand_close(&h);
    }
    hand_open(&h, "p", 0);
    h.m.subscription += 3;
    h.m.cursor = 5;
    h.m.cursor_check = check_of(5);
    assert_true(hand_ask(&h));
    assert_int_equal(h.b.code, 0);
    assert_int_equal(h.events, 5);
    hand_close(&h);
}

static void damage_stops_those_who_come_to_it_behind_what_is_whole(void **state)
{
    (void)state;
    static const int codes[] = {AZOTH_ERR_GAP, AZOTH_ERR_CORRUPT};
    for (int i = 0; i < 2; i++) {
        struct hand h, beyond;
        if (i == 0)
            add_events(1000, "added", 50);
        damage(500 - 100 * (uint64_t)i, i == 0);
        hand_open(&h, "before", 0);
        h.m.instance += (uint64_t)i;
        hand_open(&beyond, "beyond", 1);
        beyond.m.instance += (uint64_t)i;
        beyond.m.cursor = 600;
        beyond.m.cursor_check = check_of(600);
        assert_true(hand_ask(&h));
        assert_int_equal(h.b.code, 0);
        assert_int_equal(h.b.last, 499 - 100 * i);
        assert_int_equal(h.events, 499 - 100 * i);
        hand_follow(&h);
        assert_true(hand_ask(&h));
        assert_int_equal(h.b.code, codes[i]);
        hand_drain(&beyond);
        assert_int_equal(beyond.events, 400);
        /* Whose cursor is at the place is told too, and not left waiting. */
        h.m.subscription++;
        h.m.cursor = 500 - 100 * (uint64_t)i;
        assert_true(hand_ask(&h));
        assert_int_equal(h.b.code, codes[i]);
        hand_close(&h);
        hand_close(&beyond);
    }
}

static void a_log_that_ends_before_its_head_is_a_gap(void **state)
{
    (void)state;
    struct hand h;
    add_events(10, "added", 10);
    damage(10, 1);
    hand_open(&h, "p", 0);
    assert_true(hand_ask(&h));
    assert_int_equal(h.b.last, 9);
    hand_follow(&h);
    assert_true(hand_ask(&h));
    assert_int_equal(h.b.code, AZOTH_ERR_GAP);
    hand_close(&h);
}

/* ---- what a transport may do ---- */

static void a_pull_that_comes_twice_or_late_changes_nothing(void **state)
{
    (void)state;
    struct hand h;
    add_events(1000, "added", 100);
    hand_open(&h, "p", 0);
    assert_true(hand_ask(&h));
    while (h.b.last < 1000)
        assert_true(hand_wait(&h));
    hand_send(&h); /* again: it confirms nothing */
    hand_hears_nothing(&h);
    hand_follow(&h);
    h.m.subscription = 101;
    assert_true(hand_ask(&h));
    assert_int_equal(h.b.subscription, 101);
    assert_int_equal(h.b.first, 1001);
    struct wire_pull present = h.m;
    h.m.subscription = 100; /* from before, with a credit of its own */
    h.m.cursor = 0;
    h.m.applied = 0;
    hand_send(&h);
    hand_hears_nothing(&h);
    h.m = present;
    hand_send(&h);
    add_events(1, "added", 100);
    assert_true(hand_wait(&h));
    assert_int_equal(h.b.subscription, 101);
    assert_int_equal(h.b.first, 1001);
    /* Another instance need not count on: it replaces the first. */
    h.m.instance++;
    h.m.subscription = 3;
    h.m.cursor = 0;
    assert_true(hand_ask(&h));
    assert_int_equal(h.b.subscription, 3);
    assert_int_equal(h.b.first, 1);
    assert_int_equal(feed_subscriptions(feed), 1);
    hand_close(&h);
}

static void messages_that_are_no_pulls_are_passed_over(void **state)
{
    (void)state;
    struct hand h;
    add_events(1, "added", 10);
    hand_open(&h, "p", 0);
    assert_int_equal(pipe_send(h.out, bytes_str("{\"id\":1}"), GIVE_UP_MS, &err), 0);
    assert_int_equal(pipe_send(h.out, bytes_str(""), GIVE_UP_MS, &err), 0);
    h.m.shard = 1; /* of 1 */
    hand_send(&h);
    hand_hears_nothing(&h);
    assert_int_equal(feed_subscriptions(feed), 0);
    h.m.shard = 0;
    static const struct azoth_bytes names[] = {{"p\033[2J", 5}, {"p\0q", 3}, {"p\nq", 3}, {"1", 1}};
    for (int i = 0; i < 4; i++) {
        h.m.name = names[i];
        hand_send(&h);
        hand_hears_nothing(&h);
        assert_int_equal(feed_subscriptions(feed), 0);
    }
    h.m.name = bytes_str("p");
    h.m.endpoint = bytes_str("ftp://nowhere");
    hand_send(&h);
    feed_run();
    assert_int_equal(feed_subscriptions(feed), 0);
    h.m.endpoint = bytes_str(projector_at[0]);
    assert_true(hand_ask(&h));
    assert_int_equal(h.events, 1);
    hand_close(&h);
}

static char told[200];
static void tell(const char *who, uint32_t shard, uint32_t shards, uint64_t cursor, int refused,
                 const char *why)
{
    (void)shard;
    (void)shards;
    (void)cursor;
    if (refused)
        snprintf(told, sizeof told, "%s %d %s", who, refused, why);
}

static void one_too_many_is_told_of(void **state)
{
    (void)state;
    struct hand h;
    char text[AZOTH_NAME_MAX + 1], want[200];
    hand_open(&h, "p", 0);
    feed_on_subscribed(feed, tell);
    *told = 0;
    for (uint32_t i = 0; i <= SHM_PROJECTIONS; i++) {
        assert_string_equal(told, "");
        snprintf(text, sizeof text, "p%u", i);
        h.m.name = bytes_str(text);
        hand_send(&h);
        feed_run();
    }
    snprintf(want, sizeof want, "p%u %d there is no room for more projections and shards at once",
             SHM_PROJECTIONS, AZOTH_ERR_FULL);
    assert_string_equal(told, want);
    assert_int_equal(feed_subscriptions(feed), SHM_PROJECTIONS);
    hand_close(&h);
}

static void a_projector_that_does_not_ask_again_holds_back_nobody(void **state)
{
    (void)state;
    struct hand slow, fast;
    add_events(20000, "added", 100);
    hand_open(&slow, "slow", 0);
    hand_open(&fast, "fast", 1);
    hand_send(&slow);
    hand_drain(&fast);
    assert_int_equal(fast.events, 20000);
    /* What was sent to the slow one is its credit, and no more. */
    size_t bytes = 0;
    while (hand_wait_for(&slow, 300))
        bytes += slow.b.frames.len;
    assert_true(bytes <= CREDIT && bytes > CREDIT - 4 * 5000);
    hand_follow(&slow);
    hand_drain(&slow);
    assert_int_equal(slow.sum, fast.sum);
    hand_close(&slow);
    hand_close(&fast);
}

/* ---- rows ---- */

static void row_of(const char *name, struct projection_row *ret)
{
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++)
        if (projection_row_read(gauges, i, ret) == 1 && strcmp(ret->name, name) == 0)
            return;
    fail_msg("no row of %s", name);
}

static void a_row_tells_what_is_applied_and_what_was_sent(void **state)
{
    (void)state;
    struct hand h;
    struct projection_row r;
    add_events(100, "added", 10);
    hand_open(&h, "p", 0);
    hand_drain(&h);
    h.m.applied = 40; /* of the hundred that it has received */
    h.m.credit_bytes = 0;
    h.m.errors = 2;
    h.m.error = bytes_str("event 41: no such column");
    hand_send(&h);
    feed_run();
    row_of("p", &r);
    assert_int_equal(r.cursor, 40);
    assert_int_equal(r.head_seen, 100);
    assert_int_equal(r.errors, 2);
    assert_int_equal(r.state, PROJECTION_RUNNING);
    assert_int_equal(r.instance, 7);
    assert_int_equal(r.events_sent, 100);
    assert_true(r.bytes_sent > 1000);
    assert_string_equal(r.error, "event 41: no such column");
    assert_string_equal(r.endpoint, projector_at[0]);
    assert_int_equal(gauge_get(&gauges->g->feed_events), 100);
    assert_int_equal(gauge_get(&gauges->g->feed_batches), 1);
    hand_close(&h);
}

static void a_row_tells_the_rate_since_when_it_fails_and_what_batches_took(void **state)
{
    (void)state;
    struct hand h;
    struct projection_row r;
    unsigned char samples[2 * WIRE_SAMPLE];
    add_events(1000, "added", 10);
    hand_open(&h, "p", 0);
    assert_true(hand_ask(&h));
    row_of("p", &r);
    assert_true(r.rate_ns > 0 && r.rate_cursor == 0); /* a new process: from here */
    uint64_t began = r.rate_ns, since = 0, cursor = r.cursor;
    for (unsigned i = 0; i < 30; i++) {
        now += NS_PER_S;
        since = i == 10 || i == 20 ? now : since;
        h.m.applied = cursor + i * 10;
        h.m.error = bytes_str(i < 10 ? "" : i < 20 ? "event 7: no" : "event 8: no");
        h.m.credit_bytes = 0;
        hand_send(&h);
        feed_run();
        row_of("p", &r);
        assert_true(r.rate_ns >= began && now - r.rate_ns < 12 * NS_PER_S);
        if (i > 12)
            assert_in_range((r.cursor - r.rate_cursor) * NS_PER_S / (now - r.rate_ns), 8, 10);
        assert_int_equal(r.failed_ns, since);
    }
    assert_true(r.rate_ns > began);
    wire_sample_put(samples, &(struct wire_sample){.apply_us = 5000, .lag_us = 70000});
    wire_sample_put(samples + WIRE_SAMPLE, &(struct wire_sample){.apply_us = 20, .lag_us = 30});
    h.m.samples = bytes_of(samples, sizeof samples);
    uint64_t had = gauge_get(&gauges->g->lag_ns.count);
    hand_send(&h);
    feed_run();
    row_of("p", &r);
    assert_int_equal(r.apply_ns, 20000);
    assert_int_equal(r.lag_ns, 30000);
    assert_int_equal(gauge_get(&gauges->g->lag_ns.count), had + 2);
    assert_int_equal(gauge_get(&gauges->g->lag_ns.max), 70000000);
    assert_int_equal(gauge_get(&gauges->g->apply_ns.sum), 5020000);
    hand_close(&h);
}

static void a_silent_projector_is_taken_off_and_its_row_says_so(void **state)
{
    (void)state;
    struct hand gone, failed;
    struct projection_row r;
    hand_open(&gone, "gone", 0);
    hand_open(&failed, "failed", 1);
    assert_true(hand_ask(&gone));
    assert_true(hand_ask(&failed));
    failed.m.state = PROJECTION_FAILED;
    failed.m.credit_bytes = 0;
    hand_send(&failed);
    feed_run();
    assert_int_equal(feed_subscriptions(feed), 2);
    now += LAPSE_NS - NS_PER_S;
    feed_run();
    assert_int_equal(feed_subscriptions(feed), 2);
    now += NS_PER_S;
    feed_run();
    assert_int_equal(feed_subscriptions(feed), 0);
    row_of("gone", &r);
    assert_int_equal(r.state, PROJECTION_SILENT);
    row_of("failed", &r);
    assert_int_equal(r.state, PROJECTION_FAILED);
    /* It is back, and is served as before. */
    add_events(5, "added", 10);
    gone.m.subscription++;
    assert_true(hand_ask(&gone));
    assert_int_equal(gone.events, 5);
    row_of("gone", &r);
    assert_int_equal(r.state, PROJECTION_RUNNING);
    hand_close(&gone);
    hand_close(&failed);
}

static void what_was_told_before_there_were_gauges_is_in_them(void **state)
{
    (void)state;
    struct hand failed;
    struct projection_row r;
    add_events(5, "added", 10);
    feed_set_gauges(feed, NULL);
    hand_open(&failed, "failed", 0);
    assert_true(hand_ask(&failed));
    failed.m.state = PROJECTION_FAILED;
    failed.m.applied = 3;
    failed.m.errors = 1;
    failed.m.credit_bytes = 0;
    failed.m.error = bytes_str("event 4: no such column");
    hand_send(&failed);
    feed_run();
    uint64_t until = now; /* feed_run() moves it */
    now += NS_PER_S;
    feed_set_gauges(feed, gauges);
    row_of("failed", &r);
    assert_int_equal(r.state, PROJECTION_FAILED);
    assert_int_equal(r.cursor, 3);
    assert_int_equal(r.errors, 1);
    assert_in_range(r.heard_ns, until - NS_PER_S / 2, until);
    assert_string_equal(r.error, "event 4: no such column");
    hand_close(&failed);
}

static void a_last_word_is_answered_under_its_number_and_nothing_is_sent_behind_it(void **state)
{
    (void)state;
    struct hand h;
    hand_open(&h, "p", 0);
    assert_true(hand_ask(&h));
    assert_true(feed_waits(feed));
    h.m.state = PROJECTION_STOPPED;
    h.m.credit_bytes = 0;
    h.m.subscription++;
    for (int i = 0; i < 2; i++) { /* said again, since the answer was not heard */
        hand_send(&h);
        assert_true(hand_wait(&h));
        assert_int_equal(h.b.subscription, h.m.subscription);
        assert_int_equal(h.b.frames.len, 0);
        assert_true(h.b.last < h.b.first);
    }
    assert_false(feed_waits(feed));
    add_events(5, "added", 10);
    hand_hears_nothing(&h);
    hand_close(&h);
}

static void a_last_word_of_one_that_the_feed_does_not_know_is_told_all_the_same(void **state)
{
    (void)state;
    struct hand h;
    struct projection_row r;
    hand_open(&h, "p", 0);
    h.m.state = PROJECTION_FAILED;
    h.m.credit_bytes = 0;
    h.m.error = bytes_str("closed");
    hand_send(&h);
    assert_true(hand_wait(&h));
    assert_int_equal(h.b.subscription, h.m.subscription);
    row_of("p", &r);
    assert_int_equal(r.state, PROJECTION_FAILED);
    assert_string_equal(r.error, "closed");
    hand_close(&h);
}

/* ---- the projector's side ---- */

struct fake_feed {
    struct pipe_end *in, *out;
    struct azoth_bytes message;
    struct wire_pull m; /* the last pull */
    struct buf buf;
};

static struct pull *pull_begin(struct fake_feed *f, uint64_t cursor, uint64_t timeout_ns)
{
    static char at[100];
    struct pull *p;
    memset(f, 0, sizeof *f);
    snprintf(at, sizeof at, "ipc://%s/p1.sock", dir);
    assert_int_equal(pipe_bind_pull(at, &f->in, &err), 0);
    struct pull_options o = {.name = "p",
                             .feed = at,
                             .endpoint = projector_at[0],
                             .shards = 1,
                             .credit_bytes = 65536,
                             .timeout_ns = timeout_ns,
                             .cursor = cursor,
                             .cursor_check = cursor ? 77 : 0};
    assert_int_equal(pull_open(&o, &p, &err), 0);
    assert_int_equal(pipe_connect_push(projector_at[0], &f->out, &err), 0);
    return p;
}

static void pull_end(struct fake_feed *f, struct pull *p)
{
    pull_close(p);
    if (f->message.ptr)
        pipe_release(f->message);
    pipe_close(f->in);
    pipe_close(f->out);
    buf_fini(&f->buf);
}

static int fake_take(struct fake_feed *f, int timeout_ms)
{
    if (f->message.ptr)
        pipe_release(f->message);
    f->message = (struct azoth_bytes){0};
    if (pipe_receive(f->in, timeout_ms, &f->message, &err) != 1)
        return 0;
    assert_int_equal(wire_pull_decode(f->message, &f->m, &err), 0);
    return 1;
}

/* The next pull; time passes meanwhile, as a connection is made. */
static int fake_wait(struct fake_feed *f, struct pull *p)
{
    struct wire_batch b;
    for (int i = 0; i < GIVE_UP_MS; i++) {
        assert_int_equal(pull_next(p, now, &b, &err), 0);
        if (fake_take(f, 1))
            return 1;
        now += NS_PER_MS;
    }
    return 0;
}

static void fake_send(struct fake_feed *f, struct pull *p, const struct wire_batch *b)
{
    buf_clear(&f->buf);
    assert_int_equal(wire_batch_encode(&f->buf, b), 0);
    assert_int_equal(pipe_send(f->out, buf_bytes(&f->buf), GIVE_UP_MS, &err), 0);
    struct pollfd fd = {.fd = pull_poll_fd(p), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, GIVE_UP_MS), 1);
}

static void only_the_batch_behind_the_cursor_of_the_present_number_is_taken(void **state)
{
    (void)state;
    struct fake_feed f;
    struct wire_batch b;
    struct pull *p = pull_begin(&f, 10, TIMEOUT_NS);
    assert_true(fake_wait(&f, p));
    assert_int_equal(f.m.cursor, 10);
    assert_int_equal(f.m.cursor_check, 77);
    uint64_t number = f.m.subscription;
    struct wire_batch good = {
        .subscription = number, .first = 11, .last = 20, .head = 20, .last_check = 99};
    struct wire_batch wrong = good;
    wrong.subscription = number - 1; /* for a subscription from before */
    fake_send(&f, p, &wrong);
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    wrong = good;
    wrong.first = 12; /* one before it was lost */
    fake_send(&f, p, &wrong);
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    assert_false(fake_take(&f, 30));
    fake_send(&f, p, &good);
    assert_int_equal(pull_next(p, now, &b, &err), 1);
    assert_int_equal(b.last, 20);
    /* The feed sends on by itself. What is applied is told when nothing more has come. */
    assert_false(fake_take(&f, 30));
    pull_report(p, 20, PROJECTION_RUNNING, 0, NULL);
    assert_false(fake_take(&f, 30));
    fake_send(&f, p, &good); /* again */
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    assert_true(fake_take(&f, GIVE_UP_MS));
    assert_int_equal(f.m.cursor, 20);
    assert_int_equal(f.m.cursor_check, 99);
    assert_int_equal(f.m.applied, 20);
    assert_int_equal(f.m.credit_bytes, 65536);
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    assert_false(fake_take(&f, 30)); /* once */
    /* Far from the head, one report stands for several batches. */
    for (uint64_t id = 21; id <= 28; id++) {
        struct wire_batch more = {.subscription = number, .first = id, .last = id, .head = 50};
        fake_send(&f, p, &more);
        assert_int_equal(pull_next(p, now, &b, &err), 1);
        pull_report(p, id, PROJECTION_RUNNING, 0, NULL);
        assert_int_equal(pull_next(p, now, &b, &err), 0);
        assert_int_equal(fake_take(&f, id == 28 ? GIVE_UP_MS : 10), id == 28);
    }
    assert_int_equal(f.m.applied, 28);
    /* One that ends says so at once, and takes no more. */
    pull_report(p, 28, PROJECTION_STOPPED, 0, NULL);
    assert_true(fake_take(&f, GIVE_UP_MS));
    assert_int_equal(f.m.state, PROJECTION_STOPPED);
    assert_int_equal(f.m.credit_bytes, 0);
    pull_end(&f, p);
}

static void after_a_silence_the_rest_is_asked_for_under_the_next_number(void **state)
{
    (void)state;
    struct fake_feed f;
    struct wire_batch b;
    struct pull *p = pull_begin(&f, 0, 2 * NS_PER_S);
    assert_true(fake_wait(&f, p));
    uint64_t number = f.m.subscription;
    struct wire_batch one = {.subscription = number, .first = 1, .last = 5, .head = 5};
    fake_send(&f, p, &one);
    assert_int_equal(pull_next(p, now, &b, &err), 1);
    pull_report(p, 5, PROJECTION_RUNNING, 0, NULL);
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    assert_true(fake_take(&f, GIVE_UP_MS));
    assert_true(pull_deadline_ns(p) == now + 2 * NS_PER_S);
    now += 2 * NS_PER_S - 1;
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    assert_false(fake_take(&f, 30));
    now += 1;
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    assert_true(fake_take(&f, GIVE_UP_MS));
    assert_int_equal(f.m.subscription, number + 1);
    assert_int_equal(f.m.cursor, 5);
    assert_int_equal(f.m.credit_bytes, 65536);
    /* What was in flight belongs to the number before. */
    struct wire_batch late = {.subscription = number, .first = 6, .last = 9, .head = 9};
    fake_send(&f, p, &late);
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    late.subscription++;
    fake_send(&f, p, &late);
    assert_int_equal(pull_next(p, now, &b, &err), 1);
    pull_end(&f, p);
}

static void a_first_request_is_sent_as_soon_as_there_is_a_connection(void **state)
{
    (void)state;
    struct fake_feed f;
    struct wire_batch b;
    struct pull *p = pull_begin(&f, 0, TIMEOUT_NS);
    pipe_close(f.in); /* nobody listens when it first asks */
    pull_close(p);
    struct pull_options o = {.name = "p",
                             .feed = projector_at[1],
                             .endpoint = projector_at[0],
                             .shards = 1,
                             .credit_bytes = 65536,
                             .timeout_ns = TIMEOUT_NS};
    assert_int_equal(pull_open(&o, &p, &err), 0);
    uint64_t begin = now;
    assert_int_equal(pull_next(p, now, &b, &err), 0);
    assert_true(pull_deadline_ns(p) <= now + NS_PER_MS);
    assert_int_equal(pipe_bind_pull(projector_at[1], &f.in, &err), 0);
    assert_true(fake_wait(&f, p));
    assert_true(now - begin < TIMEOUT_NS);
    pull_end(&f, p);
}

/* The connection is made while it speaks, and nothing is said behind it. */
static void a_last_word_waits_for_its_way(void **state)
{
    (void)state;
    struct fake_feed f;
    struct pull *p = pull_begin(&f, 0, TIMEOUT_NS);
    pipe_close(f.in);
    pull_close(p);
    struct pull_options o = {.name = "p",
                             .feed = projector_at[1],
                             .endpoint = projector_at[0],
                             .shards = 1,
                             .credit_bytes = 65536,
                             .timeout_ns = TIMEOUT_NS};
    assert_int_equal(pull_open(&o, &p, &err), 0);
    assert_int_equal(pipe_bind_pull(projector_at[1], &f.in, &err), 0);
    pull_report(p, 3, PROJECTION_FAILED, 1, "closed");
    assert_true(fake_take(&f, GIVE_UP_MS));
    assert_int_equal(f.m.state, PROJECTION_FAILED);
    assert_int_equal(f.m.applied, 3);
    pull_end(&f, p);
}

static void a_refusal_is_handed_up_with_its_sentence(void **state)
{
    (void)state;
    struct fake_feed f;
    struct wire_batch b;
    struct pull *p = pull_begin(&f, 0, TIMEOUT_NS);
    assert_true(fake_wait(&f, p));
    struct wire_batch no = {.subscription = f.m.subscription,
                            .first = 1,
                            .code = AZOTH_ERR_DIVERGED,
                            .message = bytes_str("another database")};
    fake_send(&f, p, &no);
    assert_int_equal(pull_next(p, now, &b, &err), AZOTH_ERR_DIVERGED);
    assert_string_equal(err.message, "another database");
    pull_report(p, 0, PROJECTION_FAILED, 1, err.message);
    assert_true(fake_take(&f, GIVE_UP_MS));
    assert_int_equal(f.m.state, PROJECTION_FAILED);
    assert_int_equal(f.m.credit_bytes, 0);
    assert_int_equal(f.m.error.len, strlen("another database"));
    pull_end(&f, p);
}

/* ---- both ---- */

static void a_feed_that_is_replaced_goes_on_where_the_projector_is(void **state)
{
    (void)state;
    struct pull *p;
    struct wire_batch b;
    struct pull_options o = {.name = "p",
                             .feed = feed_at,
                             .endpoint = projector_at[0],
                             .shards = 1,
                             .credit_bytes = 65536,
                             .timeout_ns = 50 * NS_PER_MS};
    memcpy(o.uuid, store_identity(store)->uuid, 16);
    add_events(20000, "added", 100);
    assert_int_equal(pull_open(&o, &p, &err), 0);
    uint64_t cursor = 0, events = 0, batches = 0;
    for (int i = 0; i < 100000 && cursor < 20000; i++) {
        int sent = feed_step(feed, now, &err);
        assert_true(sent >= 0);
        int got = pull_next(p, now, &b, &err);
        assert_true(got >= 0);
        if (got && b.last >= b.first) {
            struct event_record ev;
            assert_int_equal(b.first, cursor + 1);
            for (size_t at = 0; record_frame_next(b.frames, &at, &ev, NULL) == 1;)
                events++;
            cursor = b.last;
            pull_report(p, cursor, PROJECTION_RUNNING, 0, NULL);
            if (++batches % 10 == 3) {
                feed_close(feed);
                open_feed();
            }
        }
        if (!sent && !got) {
            struct pollfd fds[] = {{.fd = pull_poll_fd(p), .events = POLLIN},
                                   {.fd = feed_poll_fd(feed), .events = POLLIN}};
            poll(fds, 2, 1);
            now += NS_PER_MS;
        }
    }
    assert_int_equal(cursor, 20000);
    assert_int_equal(events, 20000);
    assert_true(batches > 30);
    pull_close(p);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(events_come_once_and_in_order_in_batches_within_the_credit),
        T(as_much_as_the_credit_is_sent_ahead_and_what_is_confirmed_makes_room),
        T(what_the_transport_did_not_take_is_sent_to_nobody_else),
        T(an_event_over_the_credit_comes_alone),
        T(a_range_without_wanted_events_moves_the_cursor_in_bounded_looks),
        T(shards_divide_the_events_by_key_or_by_field),
        T(new_events_are_sent_to_one_who_waits_at_the_head),
        T(the_first_answer_does_not_wait_for_the_connection_twice),
        T(sends_to_nobody_are_tried_a_bounded_number_of_times),
        T(another_history_is_refused_and_told_why),
        T(damage_stops_those_who_come_to_it_behind_what_is_whole),
        T(a_log_that_ends_before_its_head_is_a_gap),
        T(a_pull_that_comes_twice_or_late_changes_nothing),
        T(messages_that_are_no_pulls_are_passed_over),
        T(one_too_many_is_told_of),
        T(a_projector_that_does_not_ask_again_holds_back_nobody),
        T(a_row_tells_what_is_applied_and_what_was_sent),
        T(a_row_tells_the_rate_since_when_it_fails_and_what_batches_took),
        T(a_silent_projector_is_taken_off_and_its_row_says_so),
        T(what_was_told_before_there_were_gauges_is_in_them),
        T(a_last_word_is_answered_under_its_number_and_nothing_is_sent_behind_it),
        T(a_last_word_of_one_that_the_feed_does_not_know_is_told_all_the_same),
        T(only_the_batch_behind_the_cursor_of_the_present_number_is_taken),
        T(after_a_silence_the_rest_is_asked_for_under_the_next_number),
        T(a_first_request_is_sent_as_soon_as_there_is_a_connection),
        T(a_last_word_waits_for_its_way),
        T(a_refusal_is_handed_up_with_its_sentence),
        T(a_feed_that_is_replaced_goes_on_where_the_projector_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
