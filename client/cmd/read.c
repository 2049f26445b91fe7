/*
 * read.c - get, scan, events.
 *
 * Rows come in pages, each read in one snapshot that is closed before a row is printed: a reader of
 * ours that stops reading (a pager) must not hold pages of the store.
 */
#include "client/cmd/cmd.h"

#include "client/internal.h"
#include "core/txnjson.h"
#include "core/valuejson.h"

#include <string.h>

#define PAGE 1000u

/* A request and its answer's memory. */
struct reading {
    struct azoth *db;
    struct buf store, text;
    struct wire_answer answer;
};

static void reading_fini(struct reading *r)
{
    azoth_close(r->db);
    buf_fini(&r->store);
    buf_fini(&r->text);
}

/* 0, or the exit code after the failure was told. */
static int ask(struct reading *r, struct wire_request *req)
{
    struct azoth_error err = {0};
    req->deadline_ms = 30000;
    if (req->limit == 0)
        req->limit = 1;
    buf_clear(&r->store);
    int rc = client_request(r->db, req, &r->store, &r->answer, &err);
    if (rc)
        return cmd_fail(&err);
    if (r->answer.code)
        return cmd_fail_code(r->answer.code, "%.*s", (int)r->answer.message.len,
                             (const char *)r->answer.message.ptr);
    return 0;
}

static int print_text(struct reading *r, int code, const char *what)
{
    if (code)
        return cmd_fail_code(code, "%s: %s", what, azoth_code_sentence(code));
    cmd_write(&r->text);
    return 0;
}

/* ---- get ---- */

static int get_raw(struct reading *r, struct azoth_value v)
{
    if (v.type != AZOTH_TYPE_STRING && v.type != AZOTH_TYPE_BYTES)
        return cmd_fail_code(AZOTH_ERR_TYPE, "--raw is for strings and bytes, this is %s",
                             value_type_name(v.type));
    return print_text(r, buf_add(&r->text, v.enc.ptr, v.enc.len), "the value");
}

static int print_value(struct reading *r, const struct cmd_line *l, int raw)
{
    struct azoth_bytes key;
    struct state_record st;
    size_t at = 0;
    if (wire_item_next(r->answer.body, &at, &key, &st) != 1)
        return cmd_fail_code(AZOTH_ERR_CORRUPT, "the answer holds no value");
    if (raw)
        return get_raw(r, st.value);
    int rc = l->json ? txnjson_answer(&r->text, &r->answer) : value_to_json(&r->text, st.value);
    if (!rc)
        rc = buf_add_str(&r->text, "\n");
    return print_text(r, rc, "the value");
}

static int run_get(struct cmd_line *l)
{
    struct reading r = {0};
    const char *at = NULL;
    int raw = 0;
    const struct cmd_flag flags[] = {
        {"--at", FLAG_TEXT, &at}, {"--raw", FLAG_SWITCH, &raw}, {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 1, 1);
    if (rc)
        return rc;
    struct wire_request req = {.kind = WIRE_GET, .name = bytes_str(l->word[0])};
    rc = cmd_open(l, at, AZOTH_READ_ONLY, &r.db);
    if (!rc)
        rc = ask(&r, &req);
    if (!rc)
        rc = print_value(&r, l, raw);
    reading_fini(&r);
    return rc;
}

const struct cmd cmd_get = {
    .name = "get",
    .synopsis = "KEY [--raw] [--at ENDPOINT] [--json]",
    .summary = "Read the value of a key",
    .help = "  --raw          the bytes of a string or of bytes, as they are\n"
            "  --at ENDPOINT  ask a worker\n"
            "  --json         with key and version (the transaction that last changed it)\n\n"
            "Needs no writer. A key that is not there: exit code 1.\n\n"
            "  azoth get acct/1\n",
    .run = run_get,
};

/* ---- scan ---- */

static int print_items(struct reading *r, const struct cmd_line *l, struct buf *last,
                       uint64_t *left)
{
    struct azoth_bytes key = {0};
    struct state_record st;
    size_t at = 0;
    int got;
    buf_clear(&r->text);
    while (*left && (got = wire_item_next(r->answer.body, &at, &key, &st)) != 0) {
        char name[4 * AZOTH_KEY_MAX + 1];
        int rc = got < 0 ? got : 0;
        if (!rc && l->json)
            rc = txnjson_item(&r->text, key, &st);
        else if (!rc)
            rc = buf_addf(&r->text, "%s\t", bytes_print(key, name, sizeof name));
        if (!rc && !l->json)
            rc = value_to_json(&r->text, st.value);
        if (!rc)
            rc = buf_add_str(&r->text, "\n");
        if (rc)
            return print_text(r, rc, "the answer");
        --*left;
    }
    buf_clear(last);
    return print_text(r, buf_add(last, key.ptr, key.len), "the last key");
}

static int run_scan(struct cmd_line *l)
{
    struct reading r = {0};
    struct buf last = {0};
    struct cmd_number limit = {.n = UINT64_MAX};
    const char *to_endpoint = NULL, *from = NULL, *to = NULL;
    const struct cmd_flag flags[] = {{"--from", FLAG_TEXT, &from},
                                     {"--to", FLAG_TEXT, &to},
                                     {"--limit", FLAG_NUMBER, &limit},
                                     {"--at", FLAG_TEXT, &to_endpoint},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 1);
    if (!rc)
        rc = cmd_open(l, to_endpoint, AZOTH_READ_ONLY, &r.db);
    int more = 1;
    while (!rc && more && limit.n) {
        struct wire_request req = {
            .kind = WIRE_SCAN,
            .name = bytes_str(from),
            .body = bytes_str(to),
            .args = bytes_str(l->words ? l->word[0] : NULL),
            .after = buf_bytes(&last),
            .limit = limit.n < PAGE ? (uint32_t)limit.n : PAGE,
        };
        rc = ask(&r, &req);
        /* A page that says more and brings nothing would be asked for for ever. */
        more = !rc && (r.answer.flags & WIRE_MORE) && r.answer.body.len;
        if (!rc)
            rc = print_items(&r, l, &last, &limit.n);
    }
    reading_fini(&r);
    buf_fini(&last);
    return rc;
}

const struct cmd cmd_scan = {
    .name = "scan",
    .synopsis = "[PREFIX] [--from KEY] [--to KEY] [--limit N] [--at ENDPOINT] [--json]",
    .summary = "List keys and values, in the order of the keys' bytes",
    .help = "  PREFIX         keys that begin so\n"
            "  --from KEY     from this key on\n"
            "  --to KEY       up to but without this key\n"
            "  --limit N      at most N rows\n"
            "  --at ENDPOINT  ask a worker\n"
            "  --json         one object a line: key, version, value\n\n"
            "Needs no writer. Rows are read in pages of 1000; each page is of one commit.\n\n"
            "  azoth scan acct/ --limit 10\n"
            "  azoth scan --from a --to b --json | jq .key\n",
    .run = run_scan,
};

/* ---- events ---- */

struct listing {
    uint64_t next, to, left; /* to: 0 for no end */
    uint64_t head;
    const char *type, *at;
    int json;
};

/* Payloads that are text are shown as they are, on one line; others as base64. */
static int add_payload(struct buf *out, struct azoth_bytes b)
{
    int plain = utf8_valid(b);
    for (size_t i = 0; plain && i < b.len; i++)
        plain =
            ((const unsigned char *)b.ptr)[i] >= 0x20 && ((const unsigned char *)b.ptr)[i] != 0x7f;
    if (plain)
        return buf_add(out, b.ptr, b.len);
    int rc = buf_add_str(out, "base64:");
    return rc ? rc : base64_encode(out, b);
}

static int add_event(struct buf *out, const struct event_record *ev, int json)
{
    char time[CMD_TIME_TEXT], type[4 * AZOTH_EVENT_TYPE_MAX + 1],
        stream[4 * AZOTH_STREAM_KEY_MAX + 1];
    if (json) {
        int rc = txnjson_event(out, ev);
        return rc ? rc : buf_add_str(out, "\n");
    }
    int rc = buf_addf(out, "%llu\t%s\t%.*s\t%s\t", (unsigned long long)ev->id,
                      cmd_time(ev->time_ns, time), (int)ev->type.len,
                      utf8_valid(ev->type) ? (const char *)ev->type.ptr
                                           : bytes_print(ev->type, type, sizeof type),
                      ev->key.len ? bytes_print(ev->key, stream, sizeof stream) : "-");
    if (!rc)
        rc = add_payload(out, ev->payload);
    return rc ? rc : buf_add_str(out, "\n");
}

/* One page. *ret_more: there are more of them now. */
static int list_page(struct reading *r, struct listing *g, int *ret_more)
{
    struct wire_request req = {
        .kind = WIRE_EVENTS,
        .from = g->next,
        .to = g->to,
        .name = bytes_str(g->type),
        .limit = g->left < PAGE ? (uint32_t)g->left : PAGE,
    };
    int rc = ask(r, &req);
    if (rc)
        return rc;
    struct event_record ev;
    size_t at = 0;
    int got = 0;
    buf_clear(&r->text);
    while (g->left && (got = record_frame_next(r->answer.body, &at, &ev, NULL)) == 1) {
        int code = add_event(&r->text, &ev, g->json);
        if (code)
            return print_text(r, code, "the answer");
        g->next = ev.id + 1;
        g->left--;
    }
    if (got < 0)
        return print_text(r, got, "the answer");
    g->head = r->answer.last_event;
    /* What was filtered away was looked at too: up to the answer's first_event, or to the head. */
    int more = (r->answer.flags & WIRE_MORE) != 0;
    uint64_t seen = more ? r->answer.first_event : g->head;
    *ret_more = more && g->left && seen >= req.from;
    if (g->left && seen >= g->next)
        g->next = seen + 1;
    return print_text(r, 0, "");
}

static int list_now(struct reading *r, struct listing *g)
{
    int more = g->left > 0, rc = 0;
    while (!rc && more && !cmd_interrupted())
        rc = list_page(r, g, &more);
    return rc;
}

/* Waits until there is an event `next`: 1, or 0 when none came in time. */
static int wait_for_next(struct reading *r, const struct listing *g, int *ret_exit)
{
    struct azoth_error err = {0};
    struct azoth_events *it;
    struct azoth_event ev;
    int rc = azoth_events(r->db, g->next, 0, NULL, &it, &err);
    if (!rc) {
        rc = azoth_events_follow(it, 250, &ev, &err);
        azoth_events_free(it);
    }
    if (rc < 0)
        *ret_exit = cmd_fail(&err);
    return rc > 0;
}

static int follow(struct reading *r, struct listing *g)
{
    int rc = 0;
    cmd_catch_signals();
    while (!rc && !cmd_interrupted() && g->left && !(g->to && g->next >= g->to)) {
        fflush(stdout);
        if (wait_for_next(r, g, &rc) && !rc)
            rc = list_now(r, g);
    }
    return rc;
}

/* --last N: begins so many before the head. */
static int start_at_last(struct reading *r, struct listing *g, uint64_t n)
{
    /* Of none: the first ones may be in a segment that is slow to read, or gone. */
    struct wire_request req = {.kind = WIRE_EVENTS, .from = UINT64_MAX, .limit = 1};
    int rc = ask(r, &req);
    if (rc)
        return rc;
    uint64_t head = r->answer.last_event;
    g->next = head >= n ? head - n + 1 : 1;
    return 0;
}

static int run_events(struct cmd_line *l)
{
    struct reading r = {0};
    struct cmd_number from = {.n = 1}, to = {0}, limit = {.n = UINT64_MAX}, last = {0};
    struct listing g = {0};
    int follows = 0;
    const struct cmd_flag flags[] = {
        {"--from", FLAG_NUMBER, &from},   {"--to", FLAG_NUMBER, &to},
        {"--last", FLAG_NUMBER, &last},   {"--type", FLAG_TEXT, &g.type},
        {"--limit", FLAG_NUMBER, &limit}, {"--follow", FLAG_SWITCH, &follows},
        {"--at", FLAG_TEXT, &g.at},       {NULL, 0, NULL},
    };
    int rc = cmd_flags(l, flags, 0, 0);
    if (rc)
        return rc;
    if (from.given && last.given)
        return cmd_usage(l, "--from and --last exclude each other");
    if (from.n == 0)
        return cmd_usage(l, "event ids start at 1");
    if (follows && g.at)
        return cmd_usage(l, "--follow works on this machine's database, not with --at");
    g.next = from.n;
    g.to = to.n;
    g.left = limit.n;
    g.json = l->json;
    rc = follows ? cmd_open_attached(l, &r.db) : cmd_open(l, g.at, AZOTH_READ_ONLY, &r.db);
    if (!rc && last.given)
        rc = start_at_last(&r, &g, last.n);
    if (!rc)
        rc = list_now(&r, &g);
    if (!rc && follows)
        rc = follow(&r, &g);
    reading_fini(&r);
    return rc;
}

const struct cmd cmd_events = {
    .name = "events",
    .synopsis = "[--from ID] [--to ID] [--last N] [--type TYPE] [--limit N] [--follow] "
                "[--at ENDPOINT] [--json]",
    .summary = "List events in the order of their ids",
    .help = "  --from ID      from this event on; default 1\n"
            "  --to ID        up to but without this event\n"
            "  --last N       the newest N ids\n"
            "  --type TYPE    of this type only\n"
            "  --limit N      at most N events\n"
            "  --follow       go on with new ones as they are committed, until Ctrl-C\n"
            "  --at ENDPOINT  ask a worker\n"
            "  --json         one object a line\n\n"
            "Needs no writer. Columns: id, time, type, stream key, payload.\n\n"
            "  azoth events --last 20\n"
            "  azoth events --type transferred --follow --json | jq .data.amount\n",
    .run = run_events,
};
