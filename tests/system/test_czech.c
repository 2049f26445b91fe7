/*
 * test_czech.c - a year of a real bank's standing orders: 4,500 accounts, 6,471 orders, month by
 * month, as transfers with balance checks. The store, the SQL projection and a straight
 * recomputation must agree to the cent. Skipped where the data are not at hand (AZOTH_SHARED,
 * default ../shared).
 */
#include "core/clock.h"
#include "tests/system/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ACCOUNTS_MAX 12000
#define ORDERS_MAX   7000
#define MONTHS       12

struct payee {
    char name[40]; /* "BANK/ACCOUNT" */
    int64_t cents; /* recomputed */
};

struct order {
    int account;
    char name[40];
    struct payee *payee;
    int64_t cents;
};

static struct order orders[ORDERS_MAX];
static struct payee payees[ORDERS_MAX]; /* by name */
static int accounts[ACCOUNTS_MAX], orders_len, accounts_len, payees_len;
static int64_t balance[ACCOUNTS_MAX]; /* by account id, recomputed */
static long want_refused, refused, committed;
static struct harness h;

static const char czech_sql[] =
    "-- azoth: projection czech\n"
    "-- azoth: migration 1 create\n"
    "CREATE TABLE account (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL);\n"
    "CREATE TABLE payee (id TEXT PRIMARY KEY, cents INTEGER NOT NULL);\n"
    "-- azoth: on opened\n"
    "INSERT INTO account VALUES (:account, :cents);\n"
    "-- azoth: on paid\n"
    "UPDATE account SET cents = cents - :cents WHERE id = :account;\n"
    "INSERT INTO payee VALUES (:payee, :cents) ON CONFLICT (id) DO UPDATE SET cents = cents + "
    "excluded.cents;\n";

static int64_t opening(int account)
{
    return 50000 + (int64_t)account * 7919 % 3000000; /* enough for some a year, for some a month */
}

static FILE *data(const char *name)
{
    char path[500];
    const char *shared = getenv("AZOTH_SHARED");
    snprintf(path, sizeof path, "%s/data/czech-bank/%s", shared ? shared : "../shared", name);
    return fopen(path, "r");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct payee *)a)->name, ((const struct payee *)b)->name);
}

static struct payee *payee_of(const char *name)
{
    struct payee want = {.cents = 0};
    snprintf(want.name, sizeof want.name, "%s", name);
    return bsearch(&want, payees, (size_t)payees_len, sizeof *payees, by_name);
}

/* Each payee once, also when several orders pay to it. */
static void make_payees(void)
{
    for (int i = 0; i < orders_len; i++)
        memcpy(payees[i].name, orders[i].name, sizeof payees[i].name);
    qsort(payees, (size_t)orders_len, sizeof *payees, by_name);
    for (int i = 0; i < orders_len; i++)
        if (payees_len == 0 || by_name(&payees[payees_len - 1], &payees[i]) != 0)
            payees[payees_len++] = payees[i];
    for (int i = 0; i < orders_len; i++)
        orders[i].payee = payee_of(orders[i].name);
}

static int read_data(void)
{
    char line[300], bank[8], payee[24];
    FILE *a = data("fin_account.tsv"), *o = data("fin_order.tsv");
    if (!a || !o) {
        if (a)
            fclose(a);
        if (o)
            fclose(o);
        return 0;
    }
    while (fgets(line, sizeof line, a) && accounts_len < ACCOUNTS_MAX)
        accounts[accounts_len++] = atoi(line);
    while (fgets(line, sizeof line, o) && orders_len < ORDERS_MAX) {
        char amount[24];
        struct order *x = &orders[orders_len];
        if (sscanf(line, "%*d\t%d\t%7s\t%23s\t%23s", &x->account, bank, payee, amount) != 4)
            continue;
        /* "245.20", and ".80" for less than one. */
        const char *dot = strchr(amount, '.');
        if (!dot || strlen(dot) != 3)
            continue;
        x->cents = strtoll(amount, NULL, 10) * 100 + atoi(dot + 1);
        snprintf(x->name, sizeof x->name, "%s/%s", bank, payee);
        orders_len++;
    }
    fclose(a);
    fclose(o);
    make_payees();
    return 1;
}

static void landed(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                   const struct azoth_error *err, void *arg)
{
    (void)info;
    (void)arg;
    if (code && code != AZOTH_ERR_PREFLIGHT_FAILED)
        print_message("%s\n", err->message);
    assert_true(code == 0 || code == AZOTH_ERR_PREFLIGHT_FAILED);
    committed += code == 0;
    refused += code != 0;
    azoth_txn_free(t);
}

static void send_one(struct azoth *db, struct azoth_txn *t)
{
    struct azoth_error err;
    azoth_txn_set_deadline(t, 60000);
    assert_int_equal(azoth_submit(t, landed, NULL, &err), 0);
    while (azoth_in_flight(db) >= 256)
        azoth_poll(db, 1000);
}

static void open_account(struct azoth *db, int account)
{
    char key[32], json[80];
    struct azoth_txn *t = azoth_txn_new(db);
    snprintf(key, sizeof key, "account/%d", account);
    snprintf(json, sizeof json, "{\"account\":%d,\"cents\":%lld}", account,
             (long long)opening(account));
    azoth_require_absent(t, azoth_str(key));
    azoth_set_i64(t, azoth_str(key), opening(account));
    azoth_event_json(t, "opened", json);
    send_one(db, t);
    balance[account] = opening(account);
}

static void pay(struct azoth *db, const struct order *o, int month)
{
    char key[32], payee[64], json[160];
    struct azoth_txn *t = azoth_txn_new(db);
    snprintf(key, sizeof key, "account/%d", o->account);
    snprintf(payee, sizeof payee, "payee/%s", o->name);
    snprintf(json, sizeof json, "{\"account\":%d,\"payee\":\"%s\",\"cents\":%lld,\"month\":%d}",
             o->account, o->name, (long long)o->cents, month);
    azoth_require_min_i64(t, azoth_str(key), o->cents);
    azoth_add_i64(t, azoth_str(key), -o->cents);
    azoth_add_i64(t, azoth_str(payee), o->cents);
    azoth_event_json(t, "paid", json);
    send_one(db, t);
    /* The straight recomputation: the same orders, one after the other. */
    if (balance[o->account] >= o->cents) {
        balance[o->account] -= o->cents;
        o->payee->cents += o->cents;
    } else {
        want_refused++;
    }
}

/* A payee whose every payment was refused is not there at all. */
static int payees_paid(void)
{
    int n = 0;
    for (int i = 0; i < payees_len; i++)
        n += payees[i].cents != 0;
    return n;
}

static void check_store(struct azoth *db)
{
    struct azoth_scan *s;
    struct azoth_bytes key;
    struct azoth_entry e;
    struct azoth_error err;
    int64_t n;
    int rc, seen = 0;
    for (int i = 0; i < accounts_len; i++) {
        char k[32];
        snprintf(k, sizeof k, "account/%d", accounts[i]);
        assert_int_equal(azoth_get_i64(db, azoth_str(k), &n, &err), 0);
        assert_int_equal(n, balance[accounts[i]]);
    }
    assert_int_equal(azoth_scan(db, AZOTH_STR("payee/"), AZOTH_STR(""), AZOTH_STR(""), &s, &err),
                     0);
    while ((rc = azoth_scan_next(s, &key, &e, &err)) == 1) {
        char name[40];
        snprintf(name, sizeof name, "%.*s", (int)key.len - 6, (const char *)key.ptr + 6);
        struct payee *p = payee_of(name);
        assert_non_null(p);
        assert_int_equal(azoth_value_i64(e.value, &n), 0);
        assert_int_equal(n, p->cents);
        seen++;
    }
    assert_int_equal(rc, 0);
    azoth_scan_free(s);
    assert_int_equal(seen, payees_paid());
}

static void check_sql(void)
{
    static char out[400000];
    char db[400];
    snprintf(db, sizeof db, "%s/projections/czech.db", h.dir);
    char *const argv[] = {
        "sqlite3", "-readonly", db,
        "SELECT id || ' ' || cents FROM account; SELECT 'payee ' || id || ' ' || cents FROM payee;",
        NULL};
    assert_int_equal(harness_run(out, sizeof out, argv), 0);
    int seen = 0, seen_payees = 0;
    for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n")) {
        long long id, cents;
        char name[40];
        if (sscanf(line, "payee %39s %lld", name, &cents) == 2) {
            struct payee *p = payee_of(name);
            assert_non_null(p);
            assert_int_equal(cents, p->cents);
            seen_payees++;
        } else {
            assert_int_equal(sscanf(line, "%lld %lld", &id, &cents), 2);
            assert_int_equal(cents, balance[id]);
            seen++;
        }
    }
    assert_int_equal(seen, accounts_len);
    assert_int_equal(seen_payees, payees_paid());
}

static void a_year_of_standing_orders_agrees_to_the_cent_in_store_and_sql(void **state)
{
    (void)state;
    if (!read_data()) {
        print_message("the bank's data are not here (AZOTH_SHARED)\n");
        skip();
    }
    assert_int_equal(accounts_len, 4500);
    assert_int_equal(orders_len, 6471);
    harness_begin(&h);
    char path[400];
    snprintf(path, sizeof path, "%s/projections/czech.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(czech_sql, f);
    fclose(f);
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = "none"};
    struct azoth *db;
    struct azoth_error err;
    assert_int_equal(azoth_open(h.dir, &o, &db, &err), 0);
    for (int i = 0; i < accounts_len; i++)
        open_account(db, accounts[i]);
    for (int month = 1; month <= MONTHS; month++)
        for (int i = 0; i < orders_len; i++)
            pay(db, &orders[i], month);
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
    print_message("MEASURED %ld committed, %ld refused for lack of money\n", committed, refused);
    assert_int_equal(committed + refused, 4500 + 6471 * MONTHS);
    assert_int_equal(refused, want_refused);
    assert_true(refused > 0);
    check_store(db);
    azoth_close(db);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    struct process *p = harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir,
                                      "--once", "czech", NULL);
    assert_int_equal(harness_wait(&h, p, 60000), 0);
    check_sql();
    harness_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_year_of_standing_orders_agrees_to_the_cent_in_store_and_sql),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
