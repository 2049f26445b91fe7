/* callbacks.c - logic of one's own under the locks: interest that depends on what is there.
 *   callbacks DIR */
#include <azoth.h>

#include <stdio.h>

/* Reads, decides; may refuse. Sees declared keys only. */
static int has_savings(struct azoth_txn *t, void *arg)
{
    int64_t balance;
    (void)arg;
    int rc = azoth_txn_get_i64(t, AZOTH_STR("acct/1"), &balance);
    if (rc == AZOTH_ERR_NOT_FOUND || (rc == 0 && balance < 100))
        return azoth_reject(t, "no interest under 100");
    return rc;
}

/* Reads and yields operations and events; the writer applies them, all or none. */
static int pay_interest(struct azoth_txn *t, void *arg)
{
    int64_t balance, *percent = arg;
    char json[80];
    int rc = azoth_txn_get_i64(t, AZOTH_STR("acct/1"), &balance);
    if (rc)
        return rc;
    snprintf(json, sizeof json, "{\"account\":1,\"amount\":%lld}",
             (long long)(balance * *percent / 100));
    azoth_add_i64(t, AZOTH_STR("acct/1"), balance * *percent / 100);
    return azoth_event_json(t, "interest", json);
}

int main(int argc, char **argv)
{
    struct azoth *db;
    struct azoth_error err;
    struct azoth_options o = {.flags = AZOTH_EMBEDDED | AZOTH_CREATE};
    int64_t percent = 3, balance;
    if (argc != 2 || azoth_open(argv[1], &o, &db, &err)) {
        fprintf(stderr, "%s\n", argc == 2 ? err.message : "usage: callbacks DIR");
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        struct azoth_txn *t = azoth_txn_new(db);
        azoth_write(t, AZOTH_STR("acct/1"));
        azoth_validate(t, has_savings, NULL);
        azoth_execute(t, pay_interest, &percent);
        if (azoth_commit(t, NULL, &err))
            printf("refused: %s\n", err.message);
        azoth_txn_reset(t);
        azoth_set_i64(t, AZOTH_STR("acct/1"), 1000); /* for the second round */
        if (i == 0 && azoth_commit(t, NULL, &err))
            printf("%s\n", err.message);
        azoth_txn_free(t);
    }
    if (azoth_get_i64(db, AZOTH_STR("acct/1"), &balance, &err) == 0)
        printf("acct/1 holds %lld\n", (long long)balance);
    azoth_close(db);
    return 0;
}
