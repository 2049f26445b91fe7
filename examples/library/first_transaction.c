/* first_transaction.c - opens a database in this process, commits one transaction, reads it back.
 *   first_transaction DIR */
#include <azoth.h>

#include <stdio.h>

int main(int argc, char **argv)
{
    struct azoth *db;
    struct azoth_error err;
    struct azoth_commit_info info;
    struct azoth_options o = {.flags = AZOTH_EMBEDDED | AZOTH_CREATE};
    int64_t balance;
    if (argc != 2 || azoth_open(argv[1], &o, &db, &err)) {
        fprintf(stderr, "%s\n", argc == 2 ? err.message : "usage: first_transaction DIR");
        return 1;
    }
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_require_absent(t, AZOTH_STR("acct/1"));
    azoth_set_i64(t, AZOTH_STR("acct/1"), 500);
    azoth_event_json(t, "opened", "{\"account\":1,\"amount\":500}");
    int rc = azoth_commit(t, &info, &err);
    azoth_txn_free(t);
    if (rc == 0)
        printf("transaction %llu logged event %llu\n", (unsigned long long)info.txn,
               (unsigned long long)info.first_event);
    else
        printf("refused: %s\n", err.message); /* the second time: the account is there */
    if (azoth_get_i64(db, AZOTH_STR("acct/1"), &balance, &err) == 0)
        printf("acct/1 holds %lld\n", (long long)balance);
    azoth_close(db);
    return 0;
}
