/*
 * request.c - tx and call: requests as JSON, one as an argument or one a line.
 *
 * Each request gets an id when it brings none, so that a lost answer can be asked for later.
 */
#include "client/cmd/cmd.h"

#include "client/cmd/view.h"
#include "client/internal.h"
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/txnjson.h"
#include "core/valuejson.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What the flags say about every request of this run. */
struct asking {
    struct azoth *db;
    int json;
    unsigned long line; /* of standard input; 0: the request is an argument */
    const char *id;     /* --id */
    uint32_t deadline_ms;
    int wait_paused;
    int undecided; /* of outcome: it lies in the queue of a writer that is gone */
    struct buf parsed, answered, text; /* kept between requests */
};

static void asking_fini(struct asking *a)
{
    azoth_close(a->db);
    buf_fini(&a->parsed);
    buf_fini(&a->answered);
    buf_fini(&a->text);
}

/* ---- answers ---- */

static int tell_refusal(const struct asking *a, const struct wire_answer *answer)
{
    char where[32] = "", later[80] = "";
    if (a->line)
        snprintf(where, sizeof where, "line %lu: ", a->line);
    if (answer->code == AZOTH_ERR_OUTCOME_UNKNOWN && answer->id.len == AZOTH_ID_BYTES) {
        char hex[2 * AZOTH_ID_BYTES + 1];
        bytes_hex(hex, answer->id.ptr, AZOTH_ID_BYTES);
        snprintf(later, sizeof later, "; azoth tx outcome %s tells later", hex);
    }
    fflush(stdout);
    fprintf(stderr, "azoth: %s%.*s%s (%s)\n", where, (int)answer->message.len,
            (const char *)answer->message.ptr, later, azoth_code_name(answer->code));
    return azoth_code_exit(answer->code);
}

static void print_commit(const struct wire_answer *a)
{
    if (a->txn == 0) {
        puts("done: there was nothing to commit");
        return;
    }
    printf("%s: transaction %llu", a->flags & WIRE_DUPLICATE ? "committed before" : "committed",
           (unsigned long long)a->txn);
    if (a->first_event && a->first_event == a->last_event)
        printf(", event %llu", (unsigned long long)a->first_event);
    else if (a->first_event)
        printf(", events %llu to %llu", (unsigned long long)a->first_event,
               (unsigned long long)a->last_event);
    printf(", %u keys written", a->keys_written);
    if (a->keys_deleted || a->keys_missing)
        printf(", %u deleted, %u to delete were not there", a->keys_deleted, a->keys_missing);
    putchar('\n');
}

static int tell(struct asking *a, const struct wire_answer *answer)
{
    int commit =
        answer->kind == WIRE_TX || answer->kind == WIRE_CALL || answer->kind == WIRE_OUTCOME;
    if (a->json || (answer->code == 0 && !commit)) {
        buf_clear(&a->text);
        int rc = txnjson_answer(&a->text, answer);
        if (rc)
            return cmd_fail_code(rc, "the answer: %s", azoth_code_sentence(rc));
        cmd_write(&a->text);
        putchar('\n');
    } else if (answer->code == 0) {
        print_commit(answer);
    }
    return answer->code ? tell_refusal(a, answer) : 0;
}

/* ---- requests ---- */

/* Executes a request and tells its answer. */
static int execute(struct asking *a, struct wire_request *req)
{
    struct azoth_error err = {0};
    struct wire_answer answer = {0};
    uint8_t made[AZOTH_ID_BYTES], given[AZOTH_ID_BYTES];
    if (a->id) {
        cmd_unhex(a->id, given, sizeof given); /* looked at with the flags */
        req->id = bytes_of(given, sizeof given);
    }
    if ((req->kind == WIRE_TX || req->kind == WIRE_CALL) && req->id.len == 0 &&
        !(req->flags & WIRE_AT_LEAST_ONCE)) {
        if (getrandom(made, sizeof made, 0) != sizeof made)
            return cmd_fail_code(AZOTH_ERR_IO, "random bytes: %s", strerror(errno));
        req->id = bytes_of(made, sizeof made);
    }
    if (a->deadline_ms)
        req->deadline_ms = a->deadline_ms;
    if (a->wait_paused)
        req->flags |= WIRE_WAIT_PAUSED;
    buf_clear(&a->answered);
    int rc = client_request(a->db, req, &a->answered, &answer, &err);
    if (rc)
        answer = (struct wire_answer){
            .kind = req->kind, .code = rc, .id = req->id, .message = bytes_str(err.message)};
    else if (answer.id.len == 0)
        answer.id = req->id;
    if (a->undecided && answer.code == AZOTH_ERR_NOT_FOUND) {
        answer.code = AZOTH_ERR_BUSY;
        answer.message =
            bytes_str("it lies in the queue, and no writer runs: it is decided when one does");
    }
    return tell(a, &answer);
}

static int one(struct asking *a, struct azoth_bytes text)
{
    struct wire_request req = {0};
    struct azoth_error err = {0};
    buf_clear(&a->parsed);
    int rc = txnjson_parse(text, &a->parsed, &req, &err);
    if (rc == 0)
        return execute(a, &req);
    struct wire_answer answer = {.code = rc, .message = bytes_str(err.message)};
    return tell(a, &answer);
}

/* One line into out, without its end: 1, 0 at the end, -1 when it is over the limit (and skipped).
 */
static int read_line(struct buf *out)
{
    buf_clear(out);
    int c, any = 0, over = 0;
    while ((c = getc_unlocked(stdin)) != EOF) {
        any = 1;
        if (c == '\n')
            break;
        unsigned char byte = (unsigned char)c;
        if (out->len >= TXNJSON_BYTES_MAX || buf_add(out, &byte, 1))
            over = 1;
    }
    return over ? -1 : any;
}

static int is_blank(const struct buf *b)
{
    for (size_t i = 0; i < b->len; i++)
        if (!strchr(" \t\r", b->ptr[i]) || b->ptr[i] == 0)
            return 0;
    return 1;
}

/* Executes every line; the exit code is the greatest of all. */
static int lines(struct asking *a)
{
    struct buf line = {0};
    int worst = 0, got;
    while ((got = read_line(&line)) != 0) {
        a->line++;
        int rc = 0;
        if (got < 0) {
            struct wire_answer answer = {.code = AZOTH_ERR_BAD_JSON,
                                         .message = bytes_str("the request is over 8 MiB")};
            rc = tell(a, &answer);
        } else if (!is_blank(&line)) {
            rc = one(a, buf_bytes(&line));
        }
        if (rc > worst)
            worst = rc;
        /* A program at the other end of a pipe waits for its answer. */
        fflush(stdout);
    }
    buf_fini(&line);
    if (ferror(stdin))
        return cmd_fail_code(AZOTH_ERR_IO, "standard input: %s", strerror(errno));
    return worst;
}

/* ---- tx ---- */

/* Nobody writes: a request that the last writer left undecided is decided by the next one. */
static int left_undecided(const struct cmd_line *l, const uint8_t id[AZOTH_ID_BYTES])
{
    char dir[4096];
    struct view v;
    if (cmd_dir(l, NULL, 1, dir, sizeof dir))
        return 0;
    view_open(&v, dir);
    int found = v.writer_alive == 0 && v.segment && slot_find_id(v.segment, id);
    view_close(&v);
    return found;
}

static int run_outcome(struct cmd_line *l, struct asking *a, const char *to)
{
    uint8_t id[AZOTH_ID_BYTES];
    if (l->words != 2 || !cmd_unhex(l->word[1], id, sizeof id))
        return cmd_usage(l, "outcome takes an id of %u hex digits", 2 * AZOTH_ID_BYTES);
    int rc = to ? cmd_open(l, to, 0, &a->db) : cmd_open_attached(l, &a->db);
    if (rc)
        return rc;
    struct wire_request req = {
        .kind = WIRE_OUTCOME, .deadline_ms = 5000, .limit = 1, .id = bytes_of(id, sizeof id)};
    /* The queue first, then the store: what leaves one is in the other by then. */
    a->undecided = !to && left_undecided(l, id);
    return execute(a, &req);
}

static int run_tx(struct cmd_line *l)
{
    struct asking a = {0};
    struct cmd_number deadline = {0};
    const char *to = NULL;
    int embedded = 0;
    const struct cmd_flag flags[] = {{"--to", FLAG_TEXT, &to},
                                     {"--embedded", FLAG_SWITCH, &embedded},
                                     {"--id", FLAG_TEXT, &a.id},
                                     {"--deadline", FLAG_SECONDS, &deadline},
                                     {"--wait-paused", FLAG_SWITCH, &a.wait_paused},
                                     {NULL, 0, NULL}};
    uint8_t id[AZOTH_ID_BYTES];
    int rc = cmd_flags(l, flags, 0, 2);
    if (rc)
        return rc;
    int outcome = l->words > 0 && strcmp(l->word[0], "outcome") == 0;
    int from_stdin = l->words == 0 || strcmp(l->word[0], "-") == 0;
    if (l->words == 2 && !outcome)
        return cmd_usage(l, "what is %s for?", l->word[1]);
    if (a.id && (from_stdin || outcome))
        return cmd_usage(l, "--id goes with one request as an argument");
    if (a.id && !cmd_unhex(a.id, id, sizeof id))
        return cmd_usage(l, "--id takes %u hex digits", 2 * AZOTH_ID_BYTES);
    if (to && embedded)
        return cmd_usage(l, "--to and --embedded exclude each other");
    if (deadline.given && (deadline.n < 1 || deadline.n > 3600000))
        return cmd_usage(l, "--deadline is 1 ms to 1 h");
    a.deadline_ms = (uint32_t)deadline.n;
    a.json = l->json;
    if (outcome) {
        rc = run_outcome(l, &a, to);
    } else {
        rc = cmd_open(l, to, embedded ? AZOTH_EMBEDDED : 0, &a.db);
        if (!rc)
            rc = from_stdin ? lines(&a) : one(&a, bytes_str(l->word[0]));
    }
    asking_fini(&a);
    return rc;
}

const struct cmd cmd_tx = {
    .name = "tx",
    .synopsis = "[JSON | - | outcome ID] [--to ENDPOINT] [--embedded] [--json]",
    .summary = "Commit transactions, or tell what became of one",
    .help =
        "JSON is one request. With - or nothing, requests are read from standard input, one a\n"
        "line, and answered one a line; the exit code is then the greatest of all.\n\n"
        "  --to ENDPOINT    send to a worker (ipc://PATH, tcp://HOST:PORT; several with commas)\n"
        "  --embedded       run the writer in this process when none is running\n"
        "  --id HEX         32 hex digits: the request's id, to repeat one safely\n"
        "  --deadline TIME  instead of the request's deadline_ms: 2, 500ms, 1min\n"
        "  --wait-paused    wait while the database is paused or sealed\n"
        "  --json           answers as JSON\n\n"
        "  azoth tx "
        "'{\"set\":{\"acct/1\":100},\"events\":[{\"type\":\"opened\",\"data\":{\"account\":1}}]}'\n"
        "  azoth tx "
        "'{\"require\":[{\"key\":\"acct/1\",\"min\":30}],\"add\":{\"acct/1\":-30,\"acct/2\":30}}'\n"
        "  azoth tx --json - < requests.ndjson > answers.ndjson\n"
        "  azoth tx outcome 00112233445566778899aabbccddeeff\n\n"
        "Members of a request: require, set, delete, add, set_add, set_remove, array_push, "
        "events,\n"
        "read, write, id, deadline_ms, wait_paused.\n",
    .run = run_tx,
};

/* ---- call ---- */

/* Does somebody accept at this unix socket? */
static int listens(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path)
        return 0;
    strcpy(sa.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return 0;
    int yes = connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
    close(fd);
    return yes;
}

/* Endpoints of the workers of this machine, separated by commas. */
static int local_workers(const struct cmd_line *l, struct buf *out)
{
    static struct config c;
    char dir[4096], run_dir[4096], path[4400];
    struct azoth_error err;
    int rc = cmd_dir(l, NULL, 1, dir, sizeof dir);
    if (rc)
        return rc;
    if (config_load(&c, dir, &err) || cmd_find_run_dir(dir, &c, run_dir, sizeof run_dir, &err))
        return cmd_fail(&err);
    DIR *d = opendir(run_dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (strncmp(e->d_name, "worker-", 7) != 0 || n < 5 ||
            strcmp(e->d_name + n - 5, ".sock") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", run_dir, e->d_name);
        if (listens(path) && buf_addf(out, "%sipc://%s", out->len ? "," : "", path))
            rc = cmd_fail_code(AZOTH_ERR_NOMEM, "out of memory");
    }
    if (d)
        closedir(d);
    if (!rc && out->len == 0)
        rc = cmd_fail_code(AZOTH_ERR_UNREACHABLE, "no worker listens in %s; give --to ENDPOINT",
                           run_dir);
    return rc;
}

/* The same text as other clients send, so that content and its hash are the same. */
static int call_text(struct buf *out, const char *name, const char *args, int at_least_once)
{
    int rc = buf_add_str(out, "{\"op\":\"call\",\"command\":");
    if (!rc)
        rc = json_add_string(out, bytes_str(name), 0);
    if (!rc && args)
        rc = buf_addf(out, ",\"args\":%s", args);
    if (!rc && at_least_once)
        rc = buf_add_str(out, ",\"at_least_once\":true");
    return rc ? rc : buf_add_str(out, "}");
}

static int run_call(struct cmd_line *l)
{
    struct asking a = {0};
    struct cmd_number deadline = {0};
    struct buf endpoints = {0}, text = {0};
    const char *to = NULL;
    int at_least_once = 0;
    const struct cmd_flag flags[] = {{"--to", FLAG_TEXT, &to},
                                     {"--id", FLAG_TEXT, &a.id},
                                     {"--deadline", FLAG_SECONDS, &deadline},
                                     {"--at-least-once", FLAG_SWITCH, &at_least_once},
                                     {"--wait-paused", FLAG_SWITCH, &a.wait_paused},
                                     {NULL, 0, NULL}};
    uint8_t id[AZOTH_ID_BYTES];
    int rc = cmd_flags(l, flags, 1, 2);
    if (rc)
        return rc;
    if (a.id && !cmd_unhex(a.id, id, sizeof id))
        return cmd_usage(l, "--id takes %u hex digits", 2 * AZOTH_ID_BYTES);
    if (deadline.given && (deadline.n < 1 || deadline.n > 3600000))
        return cmd_usage(l, "--deadline is 1 ms to 1 h");
    a.deadline_ms = (uint32_t)deadline.n;
    a.json = l->json;
    const char *args = l->words == 2 ? l->word[1] : NULL;
    int code = call_text(&text, l->word[0], args, at_least_once);
    if (code)
        rc = cmd_fail_code(code, "the command's name: %s", azoth_code_sentence(code));
    else if (!to)
        rc = local_workers(l, &endpoints);
    if (!rc && !to)
        rc = buf_add(&endpoints, "", 1) ? cmd_fail_code(AZOTH_ERR_NOMEM, "out of memory") : 0;
    if (!rc)
        rc = cmd_open(l, to ? to : (const char *)endpoints.ptr, 0, &a.db);
    if (!rc)
        rc = one(&a, buf_bytes(&text));
    asking_fini(&a);
    buf_fini(&endpoints);
    buf_fini(&text);
    return rc;
}

const struct cmd cmd_call = {
    .name = "call",
    .synopsis = "NAME [ARGS] [--to ENDPOINT] [--json]",
    .summary = "Call a named command of a worker",
    .help =
        "ARGS is JSON. NAME is a command of a library that workers were started with (--load).\n\n"
        "  --to ENDPOINT    ipc://PATH, tcp://HOST:PORT, several with commas; default: the\n"
        "                   workers that listen in the database's run directory\n"
        "  --id HEX         32 hex digits: the request's id, to repeat one safely\n"
        "  --deadline TIME  default 5 s\n"
        "  --at-least-once  send no id: the command may then be executed twice\n"
        "  --wait-paused    wait while the database is paused or sealed\n\n"
        "  azoth call transfer '{\"from\":1,\"to\":2,\"amount\":30}'\n",
    .run = run_call,
};
