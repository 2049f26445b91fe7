/* embedded_projection.c - everything in one process: a transaction, its projection, and a SELECT on the rows.
 *   embedded_projection DIR FROM TO AMOUNT */
#include <azoth.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char definition[] =
    "-- azoth: projection balances\n"
    "-- azoth: migration 1 create balances\n"
    "CREATE TABLE balances (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL);\n"
    "-- azoth: on transferred\n"
    "INSERT INTO balances VALUES (:from, -:amount)\n"
    "  ON CONFLICT (account) DO UPDATE SET balance = balance + excluded.balance;\n"
    "INSERT INTO balances VALUES (:to, :amount)\n"
    "  ON CONFLICT (account) DO UPDATE SET balance = balance + excluded.balance;\n";

static int define(const char *dir)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/projections", dir);
    mkdir(path, 0770);
    snprintf(path, sizeof path, "%s/projections/balances.sql", dir);
    FILE *f = fopen(path, "w");
    if (!f || fputs(definition, f) < 0 || fclose(f))
        return -1;
    return 0;
}

static int show(const char *dir)
{
    char path[4096];
    sqlite3 *rows = NULL;
    sqlite3_stmt *s = NULL;
    snprintf(path, sizeof path, "%s/projections/balances.db", dir);
    int rc = sqlite3_open_v2(path, &rows, SQLITE_OPEN_READONLY, NULL);
    if (!rc)
        rc = sqlite3_prepare_v2(rows, "SELECT account, balance FROM balances", -1, &s, NULL);
    while (!rc && sqlite3_step(s) == SQLITE_ROW)
        printf("account %d: %d\n", sqlite3_column_int(s, 0), sqlite3_column_int(s, 1));
    sqlite3_finalize(s);
    sqlite3_close(rows);
    return rc;
}

int main(int argc, char **argv)
{
    struct azoth *db;
    struct azoth_error err;
    struct azoth_options o = {.flags = AZOTH_EMBEDDED | AZOTH_CREATE};
    char json[100];
    uint64_t cursor = 0;
    if (argc != 5 || azoth_open(argv[1], &o, &db, &err)) {
        fprintf(stderr, "%s\n",
                argc == 5 ? err.message : "usage: embedded_projection DIR FROM TO AMOUNT");
        return 1;
    }
    struct azoth_txn *t = azoth_txn_new(db);
    snprintf(json, sizeof json, "{\"from\":%d,\"to\":%d,\"amount\":%d}", atoi(argv[2]),
             atoi(argv[3]), atoi(argv[4]));
    azoth_event_json(t, "transferred", json);
    int rc = azoth_commit(t, NULL, &err);
    azoth_txn_free(t);
    if (!rc && define(argv[1]))
        fprintf(stderr, "the definition cannot be written\n");
    if (!rc)
        rc = azoth_projection_run_once(db, "balances", NULL, &cursor, &err);
    if (rc)
        fprintf(stderr, "%s\n", err.message);
    else
        printf("projected up to event %llu\n", (unsigned long long)cursor);
    if (!rc && show(argv[1]))
        rc = 1;
    azoth_close(db);
    return rc != 0;
}
