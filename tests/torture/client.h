/* client.h - the client processes of the torture program. */
#ifndef TESTS_CLIENT_H
#define TESTS_CLIENT_H

#include "tests/torture/op.h"

#define CLIENT_STOP_FILE                                                                           \
    "torture-stop" /* in the database's directory: finish what is open, exit 0 */
#define CLIENT_FLAG "--client"

/* Arguments: CLIENT_FLAG DIR NUMBER PATH ENDPOINTS SEED. Exit 0 when it was stopped and every
 * answer was one that it may get; 3 when one was not. */
int client_main(int argc, char **argv);

/* One operation that is open. */
struct flight {
    struct op_context context;
    struct azoth_txn *txn;
    struct client *client;
    int used;
    int resumed;       /* of a predecessor that died */
    unsigned attempts; /* before this one */
    uint32_t deadline_ms;
    /* JSON */
    uint32_t number;
    uint64_t sent_ns, deadline_ns, resend_ns;
    unsigned worker, copies;
};

/* The outcome of an attempt. info may be NULL when code is not 0. */
void client_outcome(struct flight *f, int code, const struct azoth_commit_info *info,
                    const char *message);

/* JSON over the workers' sockets (client_json.c). */
struct json_client;
int json_open(const char *endpoints, struct json_client **ret);
void json_close(struct json_client *j);
void json_send(struct json_client *j, struct flight *f);
/* Takes answers for at most wait_ms, sends again what is silent, ends what is too old. */
void json_turn(struct json_client *j, struct flight *flights, unsigned n, int wait_ms);

#endif
