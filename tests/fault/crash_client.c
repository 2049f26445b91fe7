/* crash_client.c - the clients of test_crash: processes of their own, which note every answer. */
#include "tests/fault/crash.h"

#include "client/internal.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/mark.h"
#include "core/record.h"
#include "writer/control.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define IN_FLIGHT 6

struct client {
    struct azoth *db;
    const char *name;
    int journal, lonely, large;
    unsigned n;
};

struct attempt {
    struct client *client;
    char token[48];
};

static void note(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                 const struct azoth_error *err, void *arg)
{
    struct attempt *a = arg;
    char line[80];
    (void)err;
    /* The batch record must have answered, not the request id: nobody sent this twice. */
    if (code == 0 && info->duplicate)
        code = AZOTH_ERR_DUPLICATE;
    int len = snprintf(line, sizeof line, "%s %d\n", a->token, code);
    if (write(a->client->journal, line, (size_t)len) != len)
        abort();
    azoth_txn_free(t);
    free(a);
}

/* Transactions of all kinds: small, large, with many keys, refused by a worker, refused by the writer, of
 * short patience. Each that commits adds 1 to a key below n/ and logs one event. */
static void submit_one(struct client *c)
{
    static char large[100000], payload[90000];
    struct attempt *a = malloc(sizeof *a);
    struct azoth_txn *t = azoth_txn_new(c->db);
    char key[64];
    unsigned i = c->n++;
    if (!a || !t)
        abort();
    a->client = c;
    snprintf(a->token, sizeof a->token, "%s-%d-%u", c->name, (int)getpid(), i);
    snprintf(key, sizeof key, "n/%s/%u", c->lonely || i % 4 ? c->name : "all", i % 8);
    azoth_add_i64(t, azoth_str(key), 1);
    memset(payload, 'x', sizeof payload);
    int len = snprintf(payload, sizeof payload, "%s ", a->token);
    payload[len] = 'x';
    azoth_event_bytes(
        t, "added",
        (struct azoth_bytes){payload, c->large && i % 8 != 7 ? sizeof payload : strlen(a->token)});
    switch (i % 8) {
    case 1:
        snprintf(key, sizeof key, "large/%s", c->name);
        azoth_set_bytes(t, azoth_str(key), (struct azoth_bytes){large, sizeof large});
        break;
    case 2:
        for (unsigned k = 0; k < 100; k++) {
            snprintf(key, sizeof key, "many/%s/%u", c->name, k);
            azoth_read(t, azoth_str(key));
        }
        break;
    case 3:
        azoth_require_exists(t, AZOTH_STR("never"));
        break;
    case 4:
        azoth_add_i64(t, AZOTH_STR("greatest"), 1);
        break;
    case 5:
        azoth_txn_set_deadline(t, 1);
        break;
    default:
        azoth_read(t, AZOTH_STR("greatest"));
        break;
    }
    struct azoth_error err;
    if (azoth_submit(t, note, a, &err)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
}

int crash_load(const char *dir, const char *name)
{
    struct azoth_options o = {.deadline_ms = 30000, .attach_wait_ms = 30000};
    struct azoth_error err;
    char journal[300], enough[300], large[300];
    snprintf(journal, sizeof journal, "%s/journal-%s", dir, name);
    snprintf(enough, sizeof enough, "%s/enough", dir);
    snprintf(large, sizeof large, "%s/large", dir);
    struct client c = {
        .name = name, .lonely = strcmp(name, "prey") == 0, .large = access(large, F_OK) == 0};
    c.journal = open(journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    while (access(enough, F_OK) != 0) {
        if (c.journal < 0 || azoth_open(dir, &o, &c.db, &err)) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
        for (int i = 0; i < 24; i++) {
            submit_one(&c);
            while (azoth_in_flight(c.db) >= IN_FLIGHT)
                azoth_poll(c.db, 100);
        }
        while (azoth_in_flight(c.db))
            azoth_poll(c.db, 100);
        azoth_close(c.db);
    }
    return 0;
}

/* Pauses and seals, of its own and held, and resumes or lets them run out: a transaction that waits for the
 * end tells. */
int crash_pause(const char *dir)
{
    struct azoth_options o = {.deadline_ms = 30000, .attach_wait_ms = 30000, .wait_paused = 1};
    struct azoth *db;
    struct azoth_error err;
    if (azoth_open(dir, &o, &db, &err))
        return 1;
    for (unsigned i = 0;; i++) {
        int rc = i % 5 == 4   ? azoth_seal_hold(db, NULL, &err)
                 : i % 4 == 0 ? azoth_pause_hold(db, 200, &err)
                 : i % 4 == 1 ? azoth_seal(db, 200, NULL, &err)
                              : azoth_pause(db, 200, &err);
        if (i % 5 == 4)
            azoth_unseal_held(db, 0, NULL, &err);
        else if (rc == 0 && i % 2)
            azoth_resume(db, &err);
        struct azoth_txn *t = azoth_txn_new(db);
        azoth_set_i64(t, AZOTH_STR("paused"), i);
        azoth_commit(t, NULL, &err);
        azoth_txn_free(t);
    }
}

/* A place of backups: sets its mark, moves it on, drops it. */
int crash_mark(const char *dir)
{
    struct azoth_options o = {.deadline_ms = 30000, .attach_wait_ms = 30000};
    struct azoth *db;
    struct azoth_error err;
    if (azoth_open(dir, &o, &db, &err))
        return 1;
    struct txn_result at = {0};
    for (unsigned i = 0;; i++) {
        unsigned char argument[CONTROL_MARK_MOVE] = {'c', 'r', 'a', 's', 'h'};
        const char *operation = i % 8 == 7 ? "unmark" : "mark";
        size_t len = i % 8 == 0 || i % 8 == 7 ? CONTROL_MARK_NEW : CONTROL_MARK_MOVE;
        struct azoth_txn *t = azoth_txn_new(db);
        struct azoth_commit_info info;
        azoth_set_i64(t, AZOTH_STR("marked"), i);
        if (azoth_commit(t, &info, &err) == 0)
            put_u64(argument + MARK_PLACE, info.txn);
        put_u64(argument + MARK_PLACE + 8, at.last_event);
        azoth_txn_free(t);
        client_control(db, operation, bytes_of(argument, len), clock_mono_ns() + 30 * NS_PER_S, &at,
                       &err);
    }
}

/* Two processes that want most blocks at once: one waits for them whenever the other has them. */
int crash_crowd(const char *dir)
{
    struct azoth_options o = {.deadline_ms = 30000, .attach_wait_ms = 30000};
    struct azoth_error err;
    struct azoth_txn *t;
    struct azoth *db;
    char key[16];
    size_t len = AZOTH_VALUE_MAX - 64;
    void *value = calloc(1, len);
    if (fork() == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!value || azoth_open(dir, &o, &db, &err))
        return 1;
    while ((t = azoth_txn_new(db))) {
        for (int i = 0; i < 3; i++) {
            snprintf(key, sizeof key, "crowd/%d", i);
            azoth_set_bytes(t, azoth_str(key), (struct azoth_bytes){value, len});
        }
        azoth_commit(t, NULL, &err);
        azoth_txn_free(t);
    }
    return 1;
}
