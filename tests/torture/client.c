/*
 * client.c - one client process: sends operations, keeps a record of each outside the system, is
 * killed and started again at any time.
 *
 * Happy path: SENT is in the file before the request leaves, ANSWERED after its answer.
 * Failure modes
 *   the outcome is unknown      the same request is sent again under the same id, or given up
 *   it was killed               the successor finds SENT without ANSWERED and does the same
 *   an answer that it must not get (an error that is neither a refusal nor "try again"): exit 3
 *
 * Invariants
 *   C1  nothing is sent that is not in the file.
 *   C2  ANSWERED with a refusal is only written when that refusal is final: no other copy of the
 *       request can be under way.
 */
#include "tests/torture/client.h"

#include "core/clock.h"
#include "tests/system/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW_MAX     16u
#define TAIL_RECORDS   8192u
#define POLL_MS        20
#define EXIT_FORBIDDEN 3

struct client {
    const char *dir;
    unsigned number, window;
    enum op_path path;
    struct azoth *db;
    struct json_client *json;
    uint64_t random, ids, seq;
    int fd, stopping;
    struct flight flight[WINDOW_MAX];
    struct record open[WINDOW_MAX]; /* of the predecessor */
    unsigned opens;
    /* the last value that this client saw of a register */
    struct {
        int64_t key, value;
        uint64_t version;
    } known[OP_REGISTERS];
};

static uint64_t draw(struct client *c, uint64_t below)
{
    return random_next(&c->random) % below;
}

static void die(const struct client *c, const char *what, const char *why)
{
    fprintf(stderr, "client %u: %s: %s\n", c->number, what, why);
    exit(EXIT_FORBIDDEN);
}

static void keep(struct client *c, struct record *r, enum record_kind kind)
{
    r->kind = kind;
    if (record_add(c->fd, r))
        die(c, "its record file", "cannot be written");
}

/* ---- what a predecessor left ---- */

static void note_open(struct client *c, const struct record *r)
{
    unsigned i = 0;
    while (i < c->opens && c->open[i].seq != r->seq)
        i++;
    if (r->kind == RECORD_SENT && i == c->opens && c->opens < WINDOW_MAX)
        c->open[c->opens++] = *r;
    else if (r->kind != RECORD_SENT && i < c->opens)
        c->open[i] = c->open[--c->opens];
}

static void read_own_tail(struct client *c)
{
    struct stat st;
    struct record r;
    uint64_t at = 0;
    int rc = fstat(c->fd, &st);
    if (!rc && (uint64_t)st.st_size > TAIL_RECORDS * RECORD_BYTES)
        at = ((uint64_t)st.st_size / RECORD_BYTES - TAIL_RECORDS) * RECORD_BYTES;
    while (!rc && (rc = record_read(c->fd, &at, &r)) == 1) {
        rc = 0;
        c->seq = r.seq > c->seq ? r.seq : c->seq;
        note_open(c, &r);
    }
    if (rc < 0)
        die(c, "its record file", "is damaged");
}

/* ---- new operations ---- */

static void new_register_op(struct client *c, struct record *r)
{
    uint64_t span = clock_mono_ns() / OP_REGISTER_NS;
    unsigned which = (unsigned)draw(c, OP_REGISTERS);
    r->key = (int64_t)(span * OP_REGISTERS + which);
    r->value = record_ref(r);
    int known = c->known[which].key == r->key;
    if (known) {
        r->expected = c->known[which].value;
        r->version = c->known[which].version;
    }
    uint64_t p = draw(c, 100);
    if (p < 40)
        r->op = OP_READ;
    else if (p < 50)
        r->op = OP_WRITE;
    else if (p < 75)
        r->op = OP_CAS;
    else if (p < 90 && known)
        r->op = OP_CAS_VERSION;
    else
        r->op = OP_CHECK;
}

static void new_op(struct client *c, struct record *r)
{
    *r = (struct record){.client = (uint16_t)c->number, .seq = ++c->seq, .parts = 1};
    memcpy(r->id, &c->ids, sizeof c->ids);
    for (int i = 0; i < 6; i++)
        r->id[10 + i] = (uint8_t)(r->seq >> (40 - 8 * i));
    r->id[9] = (uint8_t)c->number;
    r->draw = random_next(&c->random);
    r->op = OP_TRANSFER;
    if (c->path == PATH_REGISTER || c->path == PATH_REGISTER_REMOTE)
        new_register_op(c, r);
    else if (c->path == PATH_BATCH)
        r->parts = 2 + (uint32_t)draw(c, OP_PARTS_MAX - 1);
}

/* ---- outcomes ---- */

static void remember_value(struct client *c, const struct record *r)
{
    unsigned which = (unsigned)((uint64_t)r->key % OP_REGISTERS);
    c->known[which].key = r->key;
    c->known[which].value = r->value;
    c->known[which].version = r->op == OP_READ ? r->version : r->txn;
}

static void committed(struct client *c, struct flight *f, const struct azoth_commit_info *info)
{
    struct record *r = &f->context.record;
    r->code = 0;
    r->txn = info->txn;
    r->first_event = info->first_event;
    keep(c, r, RECORD_ANSWERED);
    if (r->op != OP_TRANSFER && r->op != OP_CHECK)
        remember_value(c, r);
    f->used = 0;
}

static int through_workers(const struct client *c)
{
    return c->path == PATH_REMOTE || c->path == PATH_JSON || c->path == PATH_COMMAND ||
           c->path == PATH_REGISTER_REMOTE;
}

/*
 * C2. Attached, whatever an earlier attempt submitted is decided before this one looks: a refusal
 * counts. Through workers it does while there was one call: the library answers for all the copies
 * that it sent of one; of what we sent ourselves, JSON or an earlier attempt, a worker that was
 * stopped may still have a copy in hand and commit it later.
 */
static int final_refusal(const struct flight *f, int code)
{
    int refused = code == AZOTH_ERR_PREFLIGHT_FAILED || code == AZOTH_ERR_REJECTED;
    int not_queued = code == AZOTH_ERR_LOCK_TIMEOUT || code == AZOTH_ERR_BUSY;
    int first = f->attempts == 0 && !f->resumed;
    if (through_workers(f->client))
        return (refused || not_queued) && first && f->copies <= 1;
    return refused || (not_queued && first);
}

void client_outcome(struct flight *f, int code, const struct azoth_commit_info *info,
                    const char *message)
{
    struct client *c = f->client;
    struct record *r = &f->context.record;
    if (code == 0) {
        committed(c, f, info);
    } else if (final_refusal(f, code)) {
        r->code = code;
        keep(c, r, RECORD_ANSWERED);
        f->used = 0;
    } else if (azoth_code_class(code) != AZOTH_CLASS_RETRY &&
               azoth_code_class(code) != AZOTH_CLASS_CONFLICT) {
        die(c, azoth_code_name(code), message);
    } else if (r->op == OP_READ || azoth_code_class(code) == AZOTH_CLASS_CONFLICT ||
               (!c->stopping && draw(c, 8) == 0)) {
        keep(c, r, RECORD_GIVEN_UP);
        f->used = 0;
    } else {
        f->attempts++;
        f->used = 2; /* to be sent again */
    }
}

/* ---- sending ---- */

static void on_done(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                    const struct azoth_error *err, void *arg)
{
    (void)t;
    client_outcome(arg, code, info, err->message);
}

static void read_register(struct client *c, struct flight *f)
{
    struct record *r = &f->context.record;
    struct azoth_buffer buf = {0};
    struct azoth_entry e = {0};
    struct azoth_error err = {0};
    char key[32];
    int rc = azoth_get(c->db, op_register_key(key, r->key), &buf, &e, &err);
    r->value = 0;
    r->version = rc ? 0 : e.version;
    if (!rc && azoth_value_i64(e.value, &r->value))
        die(c, "a register", "holds no integer");
    free(buf.ptr);
    struct azoth_commit_info none = {0};
    client_outcome(f, rc == AZOTH_ERR_NOT_FOUND ? 0 : rc, &none, err.message);
}

static void prepare(struct client *c, struct flight *f)
{
    azoth_txn_reset(f->txn);
    azoth_txn_set_id(f->txn, f->context.record.id);
    azoth_txn_set_deadline(f->txn, f->deadline_ms);
    if (c->path != PATH_COMMAND)
        op_fill(f->txn, &f->context, c->path);
}

static void send_attempt(struct client *c, struct flight *f)
{
    struct azoth_commit_info info = {0};
    struct azoth_error err = {0};
    int rc;
    f->used = 1;
    f->copies = 0;
    f->deadline_ms = 100 + (uint32_t)draw(c, 2000);
    if (f->context.record.op == OP_READ) {
        read_register(c, f);
        return;
    }
    if (c->path == PATH_JSON) {
        json_send(c->json, f);
        return;
    }
    prepare(c, f);
    if (c->path == PATH_COMMAND) {
        char args[200];
        op_command_args(&f->context.record, args, sizeof args);
        rc = azoth_call(f->txn, "torture", azoth_str(args), &info, &err);
    } else if (c->window == 1) {
        rc = azoth_commit(f->txn, &info, &err);
    } else {
        rc = azoth_submit(f->txn, on_done, f, &err);
        if (rc == 0)
            return;
    }
    client_outcome(f, rc, &info, err.message);
}

static void start_op(struct client *c, struct flight *f)
{
    f->attempts = 0;
    f->resumed = 0;
    while (c->opens) {
        f->context.record = c->open[--c->opens];
        struct record *r = &f->context.record;
        if (r->op != OP_READ && (c->stopping || draw(c, 4))) {
            f->resumed = 1;
            send_attempt(c, f);
            return;
        }
        keep(c, r, RECORD_GIVEN_UP);
    }
    if (c->stopping)
        return;
    new_op(c, &f->context.record);
    keep(c, &f->context.record, RECORD_SENT);
    send_attempt(c, f);
}

/* ---- the loop ---- */

static void turn(struct client *c)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", c->dir, CLIENT_STOP_FILE);
    c->stopping = access(path, F_OK) == 0;
    for (unsigned i = 0; i < c->window; i++) {
        struct flight *f = &c->flight[i];
        if (f->used == 2)
            send_attempt(c, f);
        else if (!f->used)
            start_op(c, f);
    }
    if (c->path == PATH_JSON)
        json_turn(c->json, c->flight, c->window, POLL_MS);
    else if (c->window > 1)
        azoth_poll(c->db, POLL_MS);
}

static int any_open(const struct client *c)
{
    for (unsigned i = 0; i < c->window; i++)
        if (c->flight[i].used)
            return 1;
    return c->opens > 0;
}

static void connect_client(struct client *c, const char *endpoints)
{
    char name[16];
    snprintf(name, sizeof name, "client-%u", c->number);
    struct azoth_options o = {.deadline_ms = 2000, .attach_wait_ms = 30000, .name = name};
    struct azoth_error err = {0};
    int rc = 0;
    if (c->path == PATH_JSON)
        rc = json_open(endpoints, &c->json);
    else if (through_workers(c))
        rc = azoth_connect(endpoints, &o, &c->db, &err);
    else
        rc = azoth_open(c->dir, &o, &c->db, &err);
    if (rc)
        die(c, "open", err.message);
    for (unsigned i = 0; i < c->window; i++) {
        c->flight[i].client = c;
        if (c->db && !(c->flight[i].txn = azoth_txn_new(c->db)))
            die(c, "open", "out of memory");
    }
}

int client_main(int argc, char **argv)
{
    static struct client c;
    if (argc != 7)
        return 2;
    c.dir = argv[2];
    c.number = (unsigned)atoi(argv[3]);
    c.path = (enum op_path)atoi(argv[4]);
    c.ids = strtoull(argv[6], NULL, 10);
    /* Another process, other draws: the same ones would ask for the same things again. */
    c.random = (c.ids ^ clock_mono_ns() * 0x9e3779b97f4a7c15ull ^ c.number) | 1;
    c.window = c.path == PATH_ASYNC                           ? WINDOW_MAX
               : c.path == PATH_REMOTE || c.path == PATH_JSON ? 8
                                                              : 1;
    c.fd = record_open(c.dir, c.number);
    if (c.fd < 0)
        die(&c, "its record file", "cannot be opened");
    read_own_tail(&c);
    connect_client(&c, argv[5]);
    do
        turn(&c);
    while (!c.stopping || any_open(&c));
    for (unsigned i = 0; i < c.window; i++)
        azoth_txn_free(c.flight[i].txn);
    if (c.db)
        azoth_close(c.db);
    json_close(c.json);
    close(c.fd);
    return 0;
}
