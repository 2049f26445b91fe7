/*
 * bank.c - accounts and transfers through workers, and an audit of what came of them.
 *
 *   bank open  ENDPOINTS ACCOUNTS                  opens accounts 0.. with 1000 each
 *   bank load  ENDPOINTS ACCOUNTS SECONDS FLIGHT SEED   random transfers, FLIGHT at once; prints counts
 *   bank audit DIR                                 sum, accounts, lowest balance and events in the store
 *
 * A transfer requires that the payer keeps at least zero: no order of events can break that, however
 * many clients and workers there are.
 */
#include <azoth.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OPENING    1000
#define FLIGHT_MAX 1024

struct load {
    struct azoth *db;
    uint64_t seed;
    int accounts;
    long committed, refused, failed;
    struct azoth_txn *idle[FLIGHT_MAX];
    int idle_len;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t random_next(uint64_t *s)
{
    *s ^= *s << 13; /* xorshift64 */
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static struct azoth_bytes key_of(char out[32], int account)
{
    int n = snprintf(out, 32, "acct/%06d", account);
    return (struct azoth_bytes){out, (size_t)n};
}

static void done(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                 const struct azoth_error *err, void *arg)
{
    struct load *l = arg;
    (void)info;
    if (code == 0) {
        l->committed++;
    } else if (code == AZOTH_ERR_PREFLIGHT_FAILED) {
        l->refused++;
    } else {
        fprintf(stderr, "bank: %s: %s\n", azoth_code_name(code), err->message);
        l->failed++;
    }
    l->idle[l->idle_len++] = t;
}

static void fill_open(struct azoth_txn *t, int account)
{
    char key[32], json[80];
    snprintf(json, sizeof json, "{\"account\":%d,\"amount\":%d}", account, OPENING);
    azoth_require_absent(t, key_of(key, account));
    azoth_set_i64(t, key_of(key, account), OPENING);
    azoth_event_json(t, "opened", json);
}

static void fill_transfer(struct azoth_txn *t, struct load *l)
{
    char from_key[32], to_key[32], json[100];
    int from = (int)(random_next(&l->seed) % (uint64_t)l->accounts);
    int to = (from + 1 + (int)(random_next(&l->seed) % (uint64_t)(l->accounts - 1))) % l->accounts;
    int amount = 1 + (int)(random_next(&l->seed) % 500);
    snprintf(json, sizeof json, "{\"from\":%d,\"to\":%d,\"amount\":%d}", from, to, amount);
    azoth_require_min_i64(t, key_of(from_key, from), amount);
    azoth_add_i64(t, key_of(from_key, from), -amount);
    azoth_add_i64(t, key_of(to_key, to), amount);
    azoth_event_json(t, "transferred", json);
}

/* Keeps `flight` transactions on their way until `end` says so. */
static int drive(struct load *l, int flight, int opening, double until)
{
    struct azoth_error err;
    int next = 0;
    for (int i = 0; i < flight; i++)
        l->idle[l->idle_len++] = azoth_txn_new(l->db);
    for (;;) {
        int more = opening ? next < l->accounts : now() < until;
        while (more && l->idle_len > 0) {
            struct azoth_txn *t = l->idle[--l->idle_len];
            azoth_txn_reset(t);
            azoth_txn_set_deadline(t, 30000);
            if (opening)
                fill_open(t, next++);
            else
                fill_transfer(t, l);
            if (azoth_submit(t, done, l, &err)) {
                fprintf(stderr, "bank: %s\n", err.message);
                return 1;
            }
            more = opening ? next < l->accounts : 1;
        }
        if (!more && azoth_in_flight(l->db) == 0)
            break;
        azoth_poll(l->db, 100);
    }
    while (l->idle_len > 0)
        azoth_txn_free(l->idle[--l->idle_len]);
    return l->failed > 0;
}

static int drive_main(int argc, char **argv)
{
    int opening = strcmp(argv[1], "open") == 0;
    struct load l = {.accounts = atoi(argv[3]), .seed = 88172645463325252u};
    struct azoth_error err;
    if (argc > 6)
        l.seed ^= strtoull(argv[6], NULL, 10) * 7919;
    int flight = argc > 5 ? atoi(argv[5]) : 64;
    if (l.accounts < 2 || flight < 1 || flight > FLIGHT_MAX)
        return 2;
    if (azoth_connect(argv[2], NULL, &l.db, &err)) {
        fprintf(stderr, "bank: %s\n", err.message);
        return 1;
    }
    double from = now();
    int rc = drive(&l, flight, opening, from + (argc > 4 ? atof(argv[4]) : 0));
    printf("committed %ld refused %ld seconds %.2f\n", l.committed, l.refused, now() - from);
    azoth_close(l.db);
    return rc;
}

static int audit(const char *dir)
{
    struct azoth_options o = {.flags = AZOTH_READ_ONLY};
    struct azoth *db;
    struct azoth_error err;
    struct azoth_scan *scan;
    struct azoth_bytes key;
    struct azoth_entry e;
    int64_t sum = 0, lowest = INT64_MAX, n, accounts = 0;
    uint64_t head;
    int rc = azoth_open(dir, &o, &db, &err);
    if (!rc)
        rc = azoth_scan(db, AZOTH_STR("acct/"), (struct azoth_bytes){0}, (struct azoth_bytes){0},
                        &scan, &err);
    int got = 0;
    while (!rc && (got = azoth_scan_next(scan, &key, &e, &err)) == 1) {
        rc = azoth_value_i64(e.value, &n);
        sum += n;
        lowest = n < lowest ? n : lowest;
        accounts++;
    }
    if (rc || got < 0 || azoth_head(db, &head, NULL, &err)) {
        fprintf(stderr, "bank: %s\n", err.message);
        return 1;
    }
    azoth_scan_free(scan);
    azoth_close(db);
    printf("sum %lld accounts %lld lowest %lld events %llu\n", (long long)sum, (long long)accounts,
           (long long)lowest, (unsigned long long)head);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "audit") == 0)
        return audit(argv[2]);
    if (argc >= 4 && (strcmp(argv[1], "open") == 0 || strcmp(argv[1], "load") == 0))
        return drive_main(argc, argv);
    fprintf(stderr, "usage: bank open ENDPOINTS ACCOUNTS\n"
                    "       bank load ENDPOINTS ACCOUNTS SECONDS FLIGHT SEED\n"
                    "       bank audit DIR\n");
    return 2;
}
