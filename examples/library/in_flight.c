/* in_flight.c - many transactions on their way at once, from one thread.
 *   in_flight DIR COUNT */
#include <azoth.h>

#include <stdio.h>
#include <stdlib.h>

static long committed;

static void done(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                 const struct azoth_error *err, void *arg)
{
    (void)info;
    (void)arg;
    if (code)
        fprintf(stderr, "%s\n", err->message);
    else
        committed++;
    azoth_txn_free(t);
}

int main(int argc, char **argv)
{
    struct azoth *db;
    struct azoth_error err;
    struct azoth_options o = {.flags = AZOTH_EMBEDDED | AZOTH_CREATE};
    if (argc != 3 || azoth_open(argv[1], &o, &db, &err)) {
        fprintf(stderr, "%s\n", argc == 3 ? err.message : "usage: in_flight DIR COUNT");
        return 1;
    }
    for (int i = 0, n = atoi(argv[2]); i < n; i++) {
        char key[32];
        struct azoth_txn *t = azoth_txn_new(db);
        snprintf(key, sizeof key, "counter/%d", i % 10);
        azoth_add_i64(t, azoth_str(key), 1);
        azoth_event_json(t, "counted", "{}");
        if (azoth_submit(t, done, NULL, &err)) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
        while (azoth_in_flight(db) >= 64) /* a bound of our own */
            azoth_poll(db, 1000);
    }
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
    printf("%ld committed\n", committed);
    azoth_close(db);
    return 0;
}
