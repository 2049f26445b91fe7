/*
 * test_worker.c - azoth-worker as real processes: a writer, two workers, and clients that speak to
 * their sockets in tpl images and JSON text.
 */
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/reqrep.h"
#include "core/wire.h"
#include "shm/segment.h"
#include "tests/system/harness.h"

#include <errno.h>
#include <arpa/inet.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define ANSWER_MS 15000
#define FLIGHT    64

/* Commands that misbehave, for this test alone. */
static const char bad_commands[] =
    "#include \"azoth_command.h\"\n"
    "#include <stdlib.h>\n"
    "static int one_key(struct azoth_command_declare *d, const struct azoth_command_args *a)\n"
    "{ (void)a; return d->write(d, azoth_command_str(\"bad\")); }\n"
    "static int crash(struct azoth_command_run *r, const struct azoth_command_args *a)\n"
    "{ (void)a; r->set_i64(r, azoth_command_str(\"bad\"), 1); abort(); }\n"
    "static int spin(struct azoth_command_run *r, const struct azoth_command_args *a)\n"
    "{ (void)r; (void)a; for (;;) __asm__ volatile(\"\"); }\n"
    "static int stray(struct azoth_command_run *r, const struct azoth_command_args *a)\n"
    "{ (void)a; return r->set_i64(r, azoth_command_str(\"other\"), 1); }\n"
    "static int junk(struct azoth_command_run *r, const struct azoth_command_args *a)\n"
    "{ (void)r; (void)a; return 12345; }\n"
    "static const struct azoth_command commands[] = {{\"crash\", one_key, crash},\n"
    "    {\"spin\", one_key, spin}, {\"stray\", one_key, stray}, {\"junk\", one_key, junk}};\n"
    "const struct azoth_command_library *azoth_commands(void)\n"
    "{ static const struct azoth_command_library l = {AZOTH_COMMAND_ABI, 4, commands};\n"
    "  return &l; }\n";

struct world {
    struct harness h;
    struct process *writer, *worker[2];
    char endpoint[2][300];
    char transfer_so[300], bad_so[300];
    struct reqrep *client[2];
    uint32_t next; /* request number */
};

/* ---- asking ---- */

static uint32_t send_bytes(struct world *w, int worker, struct azoth_bytes message)
{
    struct azoth_error err = {0};
    uint32_t n = ++w->next;
    int rc = reqrep_request(w->client[worker], n, message, ANSWER_MS, &err);
    if (rc)
        print_message("send: %s\n", err.message);
    assert_int_equal(rc, 0);
    return n;
}

/* The next answer; its number. The message is the caller's to release. */
static uint32_t collect(struct world *w, int worker, struct azoth_bytes *ret)
{
    struct azoth_error err = {0};
    uint64_t until = clock_mono_ns() + ANSWER_MS * NS_PER_MS;
    uint32_t n = 0;
    int rc;
    while ((rc = reqrep_collect(w->client[worker], 50, &n, ret, &err)) == 0 &&
           clock_mono_ns() < until)
        harness_supervise(&w->h);
    if (rc != 1)
        print_message("no answer from worker %d: %s\n", worker + 1, err.message);
    assert_int_equal(rc, 1);
    return n;
}

static json_t *collect_json(struct world *w, int worker, uint32_t *ret_number)
{
    struct azoth_bytes m;
    uint32_t n = collect(w, worker, &m);
    json_t *j = json_loadb(m.ptr, m.len, 0, NULL);
    assert_non_null(j);
    reqrep_release(m);
    if (ret_number)
        *ret_number = n;
    return j;
}

static json_t *ask(struct world *w, int worker, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    uint32_t got, n = send_bytes(w, worker, bytes_str(text));
    json_t *j = collect_json(w, worker, &got);
    assert_int_equal(got, n);
    return j;
}

static int is_ok(const json_t *j)
{
    return json_is_true(json_object_get(j, "ok"));
}

static const char *error_name(const json_t *j)
{
    const char *s = json_string_value(json_object_get(j, "error"));
    return s ? s : "(no error)";
}

static long long number(const json_t *j, const char *name)
{
    return json_integer_value(json_object_get(j, name));
}

static void expect_ok(json_t *j)
{
    if (!is_ok(j))
        print_message("%s: %s\n", error_name(j), json_string_value(json_object_get(j, "message")));
    assert_true(is_ok(j));
    json_decref(j);
}

static void expect_error(json_t *j, const char *name)
{
    assert_false(is_ok(j));
    assert_string_equal(error_name(j), name);
    assert_true(json_string_length(json_object_get(j, "message")) > 0);
    json_decref(j);
}

/* A new request id as 32 hex digits. */
static const char *new_id(void)
{
    static char text[8][33];
    static unsigned at;
    static uint64_t seed;
    if (!seed)
        seed = harness_seed();
    char *s = text[at++ % 8];
    uint64_t a = random_next(&seed), b = random_next(&seed);
    snprintf(s, 33, "%016llx%016llx", (unsigned long long)a, (unsigned long long)b);
    return s;
}

static void holds(struct world *w, const char *key, long long value)
{
    json_t *j = ask(w, 1, "{\"op\":\"get\",\"key\":\"%s\"}", key);
    assert_true(is_ok(j));
    assert_int_equal(number(j, "value"), value);
    json_decref(j);
}

/* ---- the world ---- */

static void build_bad_commands(struct world *w)
{
    char source[300], out[16];
    snprintf(source, sizeof source, "%s/bad.c", w->h.dir);
    snprintf(w->bad_so, sizeof w->bad_so, "%s/bad.so", w->h.dir);
    FILE *f = fopen(source, "w");
    assert_non_null(f);
    fputs(bad_commands, f);
    fclose(f);
    char *const argv[] = {"cc",   "-shared", "-fPIC",   "-Iclient", "-Icore",
                          source, "-o",      w->bad_so, NULL};
    assert_int_equal(harness_run(out, sizeof out, argv), 0);
}

static void start_worker(struct world *w, int i)
{
    char name[16], number_text[8];
    snprintf(name, sizeof name, "worker-%d", i + 1);
    snprintf(number_text, sizeof number_text, "%d", i + 1);
    w->worker[i] = harness_start(&w->h, name, 1, "azoth-worker", "--dir", w->h.dir, "--name",
                                 number_text, "--load", w->transfer_so, "--load", w->bad_so,
                                 "--worker-command-time", "300ms", NULL);
}

/* slots: NULL for the default. */
static void world_begin(struct world *w, const char *slots)
{
    memset(w, 0, sizeof *w);
    harness_begin(&w->h);
    snprintf(w->transfer_so, sizeof w->transfer_so, "%s/examples/commands/transfer.so", w->h.build);
    build_bad_commands(w);
    for (int i = 0; i < 2; i++) /* before the writer: they wait for it */
        start_worker(w, i);
    w->writer = harness_start(&w->h, "writer", 1, "azoth-writer", "--dir", w->h.dir,
                              slots ? "--segment-slots" : NULL, slots, NULL);
    struct azoth_error err = {0};
    char run_dir[300];
    snprintf(run_dir, sizeof run_dir, "%s/run", w->h.dir);
    for (int i = 0; i < 2; i++) {
        int rc = dbdir_endpoint(w->endpoint[i], sizeof w->endpoint[i], run_dir, &err,
                                "worker-%d.sock", i + 1);
        assert_int_equal(rc, 0);
        rc = reqrep_connect(w->endpoint[i], &w->client[i], &err);
        assert_int_equal(rc, 0);
        /* Until it answers: a request sent while it starts may be lost with its connection. */
        assert_true(harness_answers(w->endpoint[i]));
        expect_ok(ask(w, i, "{\"op\":\"ping\"}"));
    }
}

static void world_end(struct world *w)
{
    for (int i = 0; i < 2; i++)
        reqrep_close(w->client[i]);
    harness_end(&w->h);
}

static struct world shared; /* of the tests that leave every process as it was */

static int group_begin(void **state)
{
    *state = &shared;
    world_begin(&shared, NULL);
    return 0;
}

static int group_end(void **state)
{
    world_end(*state);
    return 0;
}

/* Of a test that leaves its processes otherwise than it found them. */
static int own_begin(void **state)
{
    static struct world own;
    *state = &own;
    world_begin(&own, NULL);
    return 0;
}

static int few_slots_begin(void **state)
{
    static struct world own;
    *state = &own;
    world_begin(&own, "16");
    return 0;
}

/* ---- transactions ---- */

/* Sends FLIGHT additions of 1, half on one key, and collects every answer exactly once. */
/* A client in earnest: what is not answered for a second is sent again under its number and id, since
 * nanomsg may drop an answer on a connection that is busy with another. */
static void many_in_flight(struct world *w, int worker, const char *prefix)
{
    static char text[FLIGHT][300];
    uint32_t first = w->next + 1;
    uint8_t answered[FLIGHT] = {0};
    struct azoth_error err = {0};
    struct azoth_bytes m;
    char key[40];
    for (int i = 0; i < FLIGHT; i++) {
        snprintf(text[i], sizeof text[i],
                 "{\"id\":\"%s\",\"deadline_ms\":%d,\"add\":{\"%s/%d\":1},\"events\":"
                 "[{\"type\":\"%s\",\"data\":{\"n\":%d}}]}",
                 new_id(), ANSWER_MS, prefix, i % 2 ? i : 0, prefix, i);
        send_bytes(w, worker, bytes_str(text[i]));
    }
    for (int left = FLIGHT, silences = 0; left > 0;) {
        uint32_t n;
        int rc = reqrep_collect(w->client[worker], 1000, &n, &m, &err);
        assert_true(rc >= 0 && silences < 10);
        if (rc == 0) {
            silences++;
            for (uint32_t i = 0; i < FLIGHT; i++)
                if (!answered[i])
                    assert_int_equal(reqrep_request(w->client[worker], first + i,
                                                    bytes_str(text[i]), ANSWER_MS, &err),
                                     0);
            continue;
        }
        json_t *j = json_loadb(m.ptr, m.len, 0, NULL);
        reqrep_release(m);
        assert_in_range(n, first, first + FLIGHT - 1);
        left -= !answered[n - first];
        answered[n - first] = 1;
        expect_ok(j);
    }
    snprintf(key, sizeof key, "%s/0", prefix);
    holds(w, key, FLIGHT / 2); /* however often it was asked: applied once */
}

static void sixty_four_requests_in_flight_are_all_answered_and_applied_once(void **state)
{
    many_in_flight(*state, 0, "flight");
}

static void the_same_id_again_answers_with_the_first_commit(void **state)
{
    struct world *w = *state;
    const char *id = new_id();
    const char *text = "{\"id\":\"%s\",\"require\":[{\"key\":\"once\",\"absent\":true}],"
                       "\"set\":{\"once\":%d},\"events\":[{\"type\":\"once\",\"data\":1}]}";
    json_t *a = ask(w, 0, text, id, 1), *b = ask(w, 1, text, id, 1);
    assert_true(is_ok(a) && is_ok(b));
    assert_false(json_is_true(json_object_get(a, "duplicate")));
    assert_true(json_is_true(json_object_get(b, "duplicate")));
    assert_int_equal(number(a, "txn"), number(b, "txn"));
    assert_int_equal(number(a, "first_event"), number(b, "first_event"));
    assert_true(number(a, "first_event") > 0);
    json_decref(a);
    json_decref(b);
    expect_error(ask(w, 1, text, id, 2), "AZOTH_ERR_ID_REUSED");
    expect_error(ask(w, 1, text, new_id(), 1), "AZOTH_ERR_PREFLIGHT_FAILED");
    json_t *o = ask(w, 1, "{\"op\":\"outcome\",\"id\":\"%s\"}", id);
    assert_true(is_ok(o) && number(o, "txn") > 0);
    json_decref(o);
    expect_error(ask(w, 1, "{\"op\":\"outcome\",\"id\":\"%s\"}", new_id()), "AZOTH_ERR_NOT_FOUND");
}

static void without_an_id_a_transaction_must_say_at_least_once(void **state)
{
    struct world *w = *state;
    expect_error(ask(w, 0, "{\"add\":{\"noid\":1}}"), "AZOTH_ERR_NO_ID");
    expect_ok(ask(w, 0, "{\"at_least_once\":true,\"add\":{\"noid\":1}}"));
    expect_ok(ask(w, 0, "{\"at_least_once\":true,\"add\":{\"noid\":1}}"));
    holds(w, "noid", 2);
}

static void the_same_request_twice_at_once_commits_once(void **state)
{
    struct world *w = *state;
    for (int round = 0; round < 20; round++) {
        char text[200];
        int duplicates = 0;
        long long txn[2];
        snprintf(text, sizeof text, "{\"id\":\"%s\",\"add\":{\"twice\":1}}", new_id());
        int other = round % 2; /* or through the same one, as when a request is sent again */
        send_bytes(w, 0, bytes_str(text));
        send_bytes(w, other, bytes_str(text));
        for (int i = 0; i < 2; i++) {
            json_t *j = collect_json(w, i * other, NULL);
            assert_true(is_ok(j));
            duplicates += json_is_true(json_object_get(j, "duplicate"));
            txn[i] = number(j, "txn");
            json_decref(j);
        }
        assert_int_equal(duplicates, 1);
        assert_int_equal(txn[0], txn[1]);
    }
    holds(w, "twice", 20);
}

/* A tpl transaction: set KEY to 5. */
static void tpl_transaction(struct buf *image, const char *key, const uint8_t *id)
{
    struct txn_builder b = {0};
    struct azoth_error err = {0};
    unsigned char five[8] = {5};
    assert_int_equal(txn_add_value(&b, TXN_SET, bytes_str(key),
                                   (struct azoth_value){AZOTH_TYPE_I64, {five, 8}}, &err),
                     0);
    struct wire_request r = {.kind = WIRE_TX, .deadline_ms = 5000, .limit = 1};
    r.id = bytes_of(id, id ? AZOTH_ID_BYTES : 0);
    r.body = txn_image(&b);
    assert_int_equal(wire_request_encode(image, &r), 0);
    txn_builder_fini(&b);
}

static void a_tpl_request_is_answered_as_tpl_and_is_the_same_as_its_json(void **state)
{
    struct world *w = *state;
    uint8_t id[AZOTH_ID_BYTES];
    char hex[33];
    snprintf(hex, sizeof hex, "%s", new_id());
    for (unsigned i = 0; i < sizeof id; i++)
        sscanf(hex + 2 * i, "%2hhx", &id[i]);
    expect_ok(ask(w, 0, "{\"id\":\"%s\",\"set\":{\"both\":5}}", hex));
    struct buf image = {0};
    struct azoth_bytes m;
    struct wire_answer a;
    struct azoth_error err = {0};
    tpl_transaction(&image, "both", id);
    uint32_t n = send_bytes(w, 1, buf_bytes(&image));
    assert_int_equal(collect(w, 1, &m), n);
    assert_int_equal(wire_answer_decode(m, &a, &err), 0);
    assert_int_equal(a.code, 0);
    assert_int_equal(a.flags & WIRE_DUPLICATE, WIRE_DUPLICATE);
    reqrep_release(m);
    buf_clear(&image);
    tpl_transaction(&image, "both", NULL);
    send_bytes(w, 1, buf_bytes(&image));
    collect(w, 1, &m);
    assert_int_equal(wire_answer_decode(m, &a, &err), 0);
    assert_int_equal(a.code, AZOTH_ERR_NO_ID);
    reqrep_release(m);
    buf_fini(&image);
}

static void a_transaction_without_changes_is_checked_and_answered(void **state)
{
    struct world *w = *state;
    expect_ok(ask(w, 0, "{\"id\":\"%s\",\"set\":{\"there\":1}}", new_id()));
    json_t *j = ask(w, 0, "{\"id\":\"%s\",\"require\":[{\"key\":\"there\",\"min\":1}]}", new_id());
    assert_true(is_ok(j));
    assert_int_equal(number(j, "txn"), 0);
    json_decref(j);
}

/* ---- bad input ---- */

static void malformed_messages_get_named_errors_and_the_worker_stays(void **state)
{
    struct world *w = *state;
    pid_t pid = w->worker[0]->pid;
    struct buf image = {0};
    struct azoth_bytes m;
    struct wire_answer a;
    struct azoth_error err = {0};
    uint8_t id[AZOTH_ID_BYTES] = {9};
    tpl_transaction(&image, "mal", id);
    size_t len = image.len;
    for (size_t at = 0; at < len; at += 3) { /* each byte in turn is wrong, then missing */
        unsigned char kept = image.ptr[at];
        image.ptr[at] ^= 0x80;
        send_bytes(w, 0, bytes_of(image.ptr, len));
        collect(w, 0, &m);
        if (wire_is_json(m)) {
            assert_int_equal(((const char *)m.ptr)[0], '{');
        } else {
            assert_int_equal(wire_answer_decode(m, &a, &err), 0);
            if (a.code) /* a changed key or value may be well-formed */
                assert_true(a.message.len > 0);
        }
        reqrep_release(m);
        image.ptr[at] = kept;
        send_bytes(w, 0, bytes_of(image.ptr, at));
        collect(w, 0, &m);
        assert_int_equal(wire_answer_decode(m, &a, &err), 0);
        assert_int_equal(a.code, AZOTH_ERR_BAD_REQUEST);
        reqrep_release(m);
    }
    buf_fini(&image);
    static const char *const texts[] = {"{",
                                        "{}x",
                                        "{\"id\":1}",
                                        "{\"id\":\"12\"}",
                                        "{\"op\":\"nonsense\"}",
                                        "{\"op\":\"get\"}",
                                        "{\"deadline_ms\":0,\"at_least_once\":true}",
                                        "{\"unknown\":1,\"at_least_once\":true}",
                                        "{\"add\":{\"\":1},\"at_least_once\":true}",
                                        "{\"set\":{\"k\":1.5},\"at_least_once\":true}",
                                        "{\"op\":\"scan\",\"limit\":0}",
                                        "{\"op\":\"events\",\"from\":-1}",
                                        "{\"set\":{\"\xff\":1},\"at_least_once\":true}",
                                        "{\"op\":\"outcome\"}"};
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        send_bytes(w, 0, bytes_str(texts[i]));
        json_t *j = collect_json(w, 0, NULL);
        if (is_ok(j))
            print_message("accepted: %s\n", texts[i]);
        assert_false(is_ok(j));
        assert_int_equal(strncmp(error_name(j), "AZOTH_ERR_", 10), 0);
        assert_string_not_equal(error_name(j), "AZOTH_ERR_?");
        json_decref(j);
    }
    harness_supervise(&w->h);
    assert_int_equal(w->worker[0]->pid, pid);
    assert_int_equal(w->worker[0]->restarts, 0);
    expect_ok(ask(w, 0, "{\"op\":\"ping\"}"));
}

/* ---- reads ---- */

static void scan_and_events_come_in_pages_without_gap_or_repeat(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 25; i++)
        expect_ok(ask(w, i % 2,
                      "{\"id\":\"%s\",\"set\":{\"page/%02d\":%d},\"events\":"
                      "[{\"type\":\"%s\",\"data\":{\"n\":%d}}]}",
                      new_id(), i, i, i % 5 ? "page" : "rare", i));
    int seen = 0, more = 1;
    char after[16] = "";
    while (more) {
        json_t *j = ask(
            w, 0, "{\"op\":\"scan\",\"prefix\":\"page/\",\"after\":\"%s\",\"limit\":10}", after);
        assert_true(is_ok(j));
        const json_t *items = json_object_get(j, "items");
        for (size_t i = 0; i < json_array_size(items); i++, seen++) {
            const json_t *item = json_array_get(items, i);
            assert_int_equal(number(item, "value"), seen);
            snprintf(after, sizeof after, "%s", json_string_value(json_object_get(item, "key")));
        }
        more = json_is_true(json_object_get(j, "more"));
        assert_int_equal(json_array_size(items), more ? 10 : 5);
        json_decref(j);
    }
    assert_int_equal(seen, 25);
    long long from = 1;
    for (seen = 0, more = 1; more;) {
        json_t *j =
            ask(w, 1, "{\"op\":\"events\",\"from\":%lld,\"type\":\"rare\",\"limit\":2}", from);
        assert_true(is_ok(j));
        const json_t *events = json_object_get(j, "events");
        for (size_t i = 0; i < json_array_size(events); i++, seen++) {
            const json_t *ev = json_array_get(events, i);
            assert_int_equal(number(json_object_get(ev, "data"), "n"), 5 * seen);
            assert_true(number(ev, "id") >= from);
        }
        assert_true(json_array_size(events) <= 2);
        more = json_is_true(json_object_get(j, "more"));
        from = number(j, "next");
        json_decref(j);
    }
    assert_int_equal(seen, 5);
}

/* Bytes that JSON escapes six-fold: pages of the store's bytes would be over a message's size. */
static void pages_of_large_values_stay_below_a_messages_size(void **state)
{
    struct world *w = *state;
    enum { BYTES = 600 << 10, KEYS = 6 };
    struct buf image = {0};
    char *value = malloc(BYTES);
    assert_non_null(value);
    memset(value, 1, BYTES);
    for (int i = 0; i < KEYS; i++) {
        struct txn_builder b = {0};
        struct azoth_error err = {0};
        struct azoth_bytes m;
        struct wire_answer a;
        char key[16];
        snprintf(key, sizeof key, "large/%d", i);
        struct azoth_value v = {AZOTH_TYPE_STRING, {value, BYTES}};
        assert_int_equal(txn_add_value(&b, TXN_SET, bytes_str(key), v, &err), 0);
        struct wire_request r = {
            .kind = WIRE_TX, .deadline_ms = 10000, .limit = 1, .flags = WIRE_AT_LEAST_ONCE};
        r.body = txn_image(&b);
        buf_clear(&image);
        assert_int_equal(wire_request_encode(&image, &r), 0);
        send_bytes(w, 0, buf_bytes(&image));
        collect(w, 0, &m);
        assert_int_equal(wire_answer_decode(m, &a, &err), 0);
        assert_int_equal(a.code, 0);
        reqrep_release(m);
        txn_builder_fini(&b);
    }
    int seen = 0, more = 1, pages = 0;
    char after[16] = "";
    while (more) {
        json_t *j = ask(w, 0, "{\"op\":\"scan\",\"prefix\":\"large/\",\"after\":\"%s\"}", after);
        assert_true(is_ok(j));
        const json_t *items = json_object_get(j, "items");
        assert_true(json_array_size(items) > 0);
        for (size_t i = 0; i < json_array_size(items); i++, seen++) {
            const json_t *item = json_array_get(items, i);
            assert_int_equal(json_string_length(json_object_get(item, "value")), BYTES);
            snprintf(after, sizeof after, "%s", json_string_value(json_object_get(item, "key")));
        }
        more = json_is_true(json_object_get(j, "more"));
        pages++;
        json_decref(j);
    }
    assert_int_equal(seen, KEYS);
    assert_true(pages >= 3);
    free(value);
    buf_fini(&image);
}

/* ---- commands ---- */

static json_t *call(struct world *w, int worker, const char *id, const char *command,
                    const char *args)
{
    return ask(w, worker, "{\"op\":\"call\",\"id\":\"%s\",\"command\":\"%s\",\"args\":%s}", id,
               command, args);
}

static void a_command_reads_and_yields_under_its_locks(void **state)
{
    struct world *w = *state;
    const char *args = "{\"from\":\"a\",\"to\":\"b\",\"amount\":30}", *id = new_id();
    expect_ok(ask(w, 0, "{\"id\":\"%s\",\"set\":{\"acct/a\":100,\"acct/b\":0}}", new_id()));
    expect_ok(call(w, 0, id, "transfer", args));
    json_t *again = call(w, 1, id, "transfer", args);
    assert_true(json_is_true(json_object_get(again, "duplicate")));
    json_decref(again);
    expect_error(call(w, 0, id, "transfer", "{\"from\":\"a\",\"to\":\"b\",\"amount\":31}"),
                 "AZOTH_ERR_ID_REUSED");
    holds(w, "acct/a", 70);
    holds(w, "acct/b", 30);
    expect_error(call(w, 0, new_id(), "transfer", "{\"from\":\"a\",\"to\":\"b\",\"amount\":71}"),
                 "AZOTH_ERR_REJECTED");
    expect_error(call(w, 0, new_id(), "transfer", "{\"from\":\"a\",\"to\":\"b\",\"amount\":0}"),
                 "AZOTH_ERR_REJECTED");
    expect_error(call(w, 0, new_id(), "transfer", "{\"from\":\"a\",\"to\":\"b\"}"),
                 "AZOTH_ERR_NOT_FOUND");
    expect_error(call(w, 0, new_id(), "transfer", "{\"from\":1,\"to\":\"b\",\"amount\":1}"),
                 "AZOTH_ERR_TYPE");
    expect_error(call(w, 0, new_id(), "transfer", "[1]"), "AZOTH_ERR_BAD_JSON");
    expect_error(call(w, 0, new_id(), "no-such", "{}"), "AZOTH_ERR_NO_COMMAND");
    holds(w, "acct/a", 70);
}

static void a_hundred_transfers_through_two_workers_keep_the_sum(void **state)
{
    struct world *w = *state;
    expect_ok(ask(w, 0, "{\"id\":\"%s\",\"set\":{\"acct/c\":50,\"acct/d\":50}}", new_id()));
    char text[300];
    int refused = 0;
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof text,
                 "{\"op\":\"call\",\"id\":\"%s\",\"deadline_ms\":%d,\"command\":\"transfer\","
                 "\"args\":{\"from\":\"%s\",\"to\":\"%s\",\"amount\":%d}}",
                 new_id(), ANSWER_MS, i % 3 ? "c" : "d", i % 3 ? "d" : "c", 7 + i % 11);
        send_bytes(w, i % 2, bytes_str(text));
    }
    for (int i = 0; i < 100; i++) {
        json_t *j = collect_json(w, i % 2, NULL);
        if (!is_ok(j)) {
            assert_string_equal(error_name(j), "AZOTH_ERR_REJECTED");
            refused++;
        }
        json_decref(j);
    }
    assert_in_range(refused, 1, 99);
    json_t *c = ask(w, 0, "{\"op\":\"get\",\"key\":\"acct/c\"}");
    json_t *d = ask(w, 0, "{\"op\":\"get\",\"key\":\"acct/d\"}");
    assert_int_equal(number(c, "value") + number(d, "value"), 100);
    assert_true(number(c, "value") >= 0 && number(d, "value") >= 0);
    json_decref(c);
    json_decref(d);
}

static void a_command_may_not_touch_what_it_did_not_declare(void **state)
{
    struct world *w = *state;
    expect_error(call(w, 0, new_id(), "stray", "{}"), "AZOTH_ERR_UNDECLARED_KEY");
    expect_error(call(w, 0, new_id(), "junk", "{}"), "AZOTH_ERR_REJECTED");
    /* The caller may declare more. */
    expect_ok(ask(w, 0,
                  "{\"op\":\"call\",\"id\":\"%s\",\"command\":\"stray\",\"write\":[\"other\"]}",
                  new_id()));
    holds(w, "other", 1);
}

/* Sends the call to worker 1, waits until that process ends, and sees what the others can do. */
static void command_ends_its_worker(struct world *w, const char *command, int by_signal)
{
    char text[200];
    int restarts = w->worker[0]->restarts;
    snprintf(text, sizeof text, "{\"op\":\"call\",\"id\":\"%s\",\"command\":\"%s\"}", new_id(),
             command);
    send_bytes(w, 0, bytes_str(text));
    uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
    while (w->worker[0]->restarts == restarts && clock_mono_ns() < until) {
        harness_supervise(&w->h);
        expect_ok(ask(w, 1, "{\"id\":\"%s\",\"add\":{\"while\":1}}", new_id()));
    }
    assert_int_equal(w->worker[0]->restarts, restarts + 1);
    assert_int_equal(WIFSIGNALED(w->worker[0]->status) != 0, by_signal);
    if (!by_signal)
        assert_int_equal(WEXITSTATUS(w->worker[0]->status), 1);
    /* The key that it held is free again within a second, and nothing of it was written. */
    expect_ok(ask(w, 1,
                  "{\"id\":\"%s\",\"deadline_ms\":1500,\"require\":[{\"key\":\"bad\","
                  "\"absent\":true}],\"set\":{\"bad\":7}}",
                  new_id()));
    expect_ok(ask(w, 1, "{\"id\":\"%s\",\"delete\":[\"bad\"]}", new_id()));
    /* Started again, it serves: through a new socket, as a client does that heard nothing. */
    struct azoth_error err = {0};
    reqrep_close(w->client[0]);
    assert_int_equal(reqrep_connect(w->endpoint[0], &w->client[0], &err), 0);
    expect_ok(ask(w, 0, "{\"op\":\"ping\"}"));
}

static void a_command_that_crashes_takes_down_its_own_worker_only(void **state)
{
    command_ends_its_worker(*state, "crash", 1);
}

static void a_command_that_overruns_ends_its_worker_and_is_named_in_the_log(void **state)
{
    struct world *w = *state;
    command_ends_its_worker(w, "spin", 0);
    char path[300], line[1024];
    int found = 0;
    snprintf(path, sizeof path, "%s/log-worker-1", w->h.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        found |= strstr(line, "command=spin") && strstr(line, "AZOTH_ERR_COMMAND_TIMEOUT");
    fclose(f);
    assert_true(found);
}

/* ---- the writer comes and goes ---- */

static void a_killed_writer_costs_time_and_no_errors(void **state)
{
    struct world *w = *state;
    char text[300];
    for (int i = 0; i < FLIGHT; i++) {
        snprintf(text, sizeof text, "{\"id\":\"%s\",\"deadline_ms\":%d,\"add\":{\"kill/%d\":1}}",
                 new_id(), ANSWER_MS, i % 4);
        send_bytes(w, i % 2, bytes_str(text));
        if (i == FLIGHT / 2)
            harness_kill(w->writer, SIGKILL);
    }
    for (int i = 0; i < FLIGHT; i++)
        expect_ok(collect_json(w, i % 2, NULL));
    for (int i = 0; i < 4; i++) {
        snprintf(text, sizeof text, "kill/%d", i);
        holds(w, text, FLIGHT / 4);
    }
    assert_int_equal(w->worker[0]->restarts + w->worker[1]->restarts, 2); /* of the tests before */
}

static void deadlines_hold_while_the_writer_is_stopped(void **state)
{
    struct world *w = *state;
    harness_kill(w->writer, SIGSTOP);
    char text[200];
    snprintf(text, sizeof text, "{\"id\":\"%s\",\"deadline_ms\":300,\"add\":{\"stop\":1}}",
             new_id());
    uint64_t began = clock_mono_ns();
    uint32_t first = send_bytes(w, 0, bytes_str(text)), n;
    snprintf(text, sizeof text, "{\"id\":\"%s\",\"deadline_ms\":150,\"add\":{\"stop\":1}}",
             new_id());
    send_bytes(w, 0, bytes_str(text));
    json_t *j = collect_json(w, 0, &n);
    assert_int_equal(n, first + 1);
    expect_error(j, "AZOTH_ERR_LOCK_TIMEOUT");
    expect_error(collect_json(w, 0, &n), "AZOTH_ERR_OUTCOME_UNKNOWN");
    assert_int_equal(n, first);
    assert_in_range((clock_mono_ns() - began) / NS_PER_MS, 300, 1500);
    expect_ok(ask(w, 0, "{\"op\":\"ping\"}"));
    harness_kill(w->writer, SIGCONT);
    /* What was submitted is committed all the same. */
    expect_ok(ask(w, 0, "{\"id\":\"%s\",\"deadline_ms\":5000,\"set\":{\"stop2\":1}}", new_id()));
    holds(w, "stop", 1);
}

static void a_paused_database_refuses_at_once_or_lets_wait(void **state)
{
    struct world *w = *state;
    struct azoth_error err = {0};
    struct azoth *db = harness_attach(&w->h, 5000);
    assert_non_null(db);
    assert_int_equal(azoth_pause(db, 60000, &err), 0);
    char text[200];
    snprintf(text, sizeof text,
             "{\"id\":\"%s\",\"deadline_ms\":%d,\"wait_paused\":true,\"add\":{\"pause\":1}}",
             new_id(), ANSWER_MS);
    uint32_t waits = send_bytes(w, 0, bytes_str(text)), n;
    expect_error(ask(w, 0, "{\"id\":\"%s\",\"add\":{\"pause\":1}}", new_id()), "AZOTH_ERR_PAUSED");
    expect_error(ask(w, 0, "{\"op\":\"get\",\"key\":\"pause\"}"), "AZOTH_ERR_NOT_FOUND");
    assert_int_equal(azoth_resume(db, &err), 0);
    expect_ok(collect_json(w, 0, &n));
    assert_int_equal(n, waits);
    holds(w, "pause", 1);
    azoth_close(db);
}

static void sigterm_answers_what_is_in_flight_and_exits_0(void **state)
{
    struct world *w = *state;
    harness_kill(w->writer, SIGSTOP);
    char text[200];
    for (int i = 0; i < FLIGHT; i++) {
        snprintf(text, sizeof text, "{\"id\":\"%s\",\"deadline_ms\":9000,\"add\":{\"drain/%d\":1}}",
                 new_id(), i);
        send_bytes(w, 0, bytes_str(text));
    }
    /* A read is answered in order of receipt: all that was sent before it has been taken. */
    uint32_t n = send_bytes(w, 0, bytes_str("{\"op\":\"ping\"}"));
    uint32_t got;
    expect_ok(collect_json(w, 0, &got));
    assert_int_equal(got, n);
    w->worker[0]->restart = 0;
    harness_kill(w->worker[0], SIGTERM);
    assert_int_equal(harness_wait(&w->h, w->worker[0], 300), -1); /* it waits for the writer */
    harness_kill(w->writer, SIGCONT);
    /* nanomsg may drop an answer on a connection that is still busy with another, and discards on
     * close: a client would ask again. So: answers came, and what was in flight is committed. */
    int answered = 0;
    struct azoth_bytes m;
    while (answered < FLIGHT && reqrep_collect(w->client[0], 1000, &got, &m, NULL) == 1) {
        json_t *j = json_loadb(m.ptr, m.len, 0, NULL);
        reqrep_release(m);
        expect_ok(j);
        answered++;
    }
    assert_true(answered > 0);
    int status = harness_wait(&w->h, w->worker[0], 5000);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    json_t *all = ask(w, 1, "{\"op\":\"scan\",\"prefix\":\"drain/\",\"limit\":1000}");
    assert_int_equal(json_array_size(json_object_get(all, "items")), FLIGHT);
    json_decref(all);
    assert_true(harness_segment_clean(&w->h, 1000));
}

static void more_in_flight_than_the_segment_has_slots_is_answered_too(void **state)
{
    struct world *w = *state;
    many_in_flight(w, 0, "few");
    assert_true(harness_segment_clean(&w->h, 1000));
}

static void a_retired_segment_is_left_with_the_temporary_code(void **state)
{
    struct world *w = *state;
    struct segment_name name;
    struct segment *s;
    struct azoth_error err = {0};
    w->worker[0]->restart = 0;
    assert_int_equal(segment_name_of(w->h.dir, &name, &err), 0);
    assert_int_equal(segment_attach(&name, &s, &err), 0);
    segment_retire(s);
    segment_detach(s);
    int status = harness_wait(&w->h, w->worker[0], 5000);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 75);
}

/* A port that was free a moment ago. */
static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void a_worker_listens_on_tcp_beside_its_ipc_endpoint(void **state)
{
    struct world *w = *state;
    struct azoth_error err = {0};
    char endpoint[64], ipc[300], run_dir[300];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", free_port());
    struct process *p = harness_start(&w->h, "worker-tcp", 0, "azoth-worker", "--dir", w->h.dir,
                                      "--name", "tcp", "--worker-listen", endpoint, NULL);
    struct reqrep *kept = w->client[0];
    assert_int_equal(reqrep_connect(endpoint, &w->client[0], &err), 0);
    expect_ok(ask(w, 0, "{\"op\":\"ping\"}"));
    expect_ok(ask(w, 0, "{\"id\":\"%s\",\"set\":{\"tcp\":1}}", new_id()));
    reqrep_close(w->client[0]);
    snprintf(run_dir, sizeof run_dir, "%s/run", w->h.dir);
    assert_int_equal(dbdir_endpoint(ipc, sizeof ipc, run_dir, &err, "worker-tcp.sock"), 0);
    assert_int_equal(reqrep_connect(ipc, &w->client[0], &err), 0);
    expect_ok(ask(w, 0, "{\"op\":\"get\",\"key\":\"tcp\"}"));
    reqrep_close(w->client[0]);
    w->client[0] = kept;
    int status = harness_stop(&w->h, p);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void what_cannot_be_configured_exits_100(void **state)
{
    struct world *w = *state;
    char program[256], out[64];
    harness_program(&w->h, "azoth-worker", program);
    char *const cases[][8] = {
        {program, "--dir", w->h.dir, "--load", "/nonexistent.so", NULL},
        {program, "--dir", w->h.dir, "--load", program, NULL}, /* no library of commands */
        {program, "--dir", w->h.dir, "--load", w->bad_so, "--load", w->bad_so, NULL},
        {program, "--dir", w->h.dir, "--worker-command-time", "soon", NULL},
        {program, "--dir", w->h.dir, "--nonsense", NULL},
        {program, "--dir", w->h.dir, "--name", "a/b", NULL},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(harness_run(out, sizeof out, cases[i]), 100);
    /* Not there yet: its writer, started beside it, may be about to make it. */
    char *const absent[] = {program, "--dir", "/nonexistent", NULL};
    assert_int_equal(harness_run(out, sizeof out, absent), 75);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixty_four_requests_in_flight_are_all_answered_and_applied_once),
        cmocka_unit_test(the_same_id_again_answers_with_the_first_commit),
        cmocka_unit_test(without_an_id_a_transaction_must_say_at_least_once),
        cmocka_unit_test(the_same_request_twice_at_once_commits_once),
        cmocka_unit_test(a_tpl_request_is_answered_as_tpl_and_is_the_same_as_its_json),
        cmocka_unit_test(a_transaction_without_changes_is_checked_and_answered),
        cmocka_unit_test(malformed_messages_get_named_errors_and_the_worker_stays),
        cmocka_unit_test(scan_and_events_come_in_pages_without_gap_or_repeat),
        cmocka_unit_test(pages_of_large_values_stay_below_a_messages_size),
        cmocka_unit_test(a_command_reads_and_yields_under_its_locks),
        cmocka_unit_test(a_hundred_transfers_through_two_workers_keep_the_sum),
        cmocka_unit_test(a_command_may_not_touch_what_it_did_not_declare),
        cmocka_unit_test(a_command_that_crashes_takes_down_its_own_worker_only),
        cmocka_unit_test(a_command_that_overruns_ends_its_worker_and_is_named_in_the_log),
        cmocka_unit_test(a_killed_writer_costs_time_and_no_errors),
        cmocka_unit_test(deadlines_hold_while_the_writer_is_stopped),
        cmocka_unit_test(a_paused_database_refuses_at_once_or_lets_wait),
        cmocka_unit_test(a_worker_listens_on_tcp_beside_its_ipc_endpoint),
        cmocka_unit_test(what_cannot_be_configured_exits_100),
        cmocka_unit_test_setup_teardown(sigterm_answers_what_is_in_flight_and_exits_0, own_begin,
                                        group_end),
        cmocka_unit_test_setup_teardown(more_in_flight_than_the_segment_has_slots_is_answered_too,
                                        few_slots_begin, group_end),
        cmocka_unit_test_setup_teardown(a_retired_segment_is_left_with_the_temporary_code,
                                        own_begin, group_end),
    };
    return cmocka_run_group_tests(tests, group_begin, group_end);
}
