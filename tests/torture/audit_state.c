/* audit_state.c - what it all came to: balances, projections, registers (A6 to A8). */
#include "tests/torture/audit.h"

#include "core/clock.h"
#include "tests/system/bank.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CATCH_UP_NS   (60 * NS_PER_S)
#define SETTLED_SPANS 4 /* so old, a register gets no new operations */

void audit_balances(struct audit *a, struct azoth_snapshot *s)
{
    int64_t sum = 0;
    for (int i = 0; i < OP_ACCOUNTS; i++) {
        char key[32];
        struct azoth_entry e;
        struct azoth_error err = {0};
        int64_t have = -1;
        if (azoth_snapshot_get(s, op_account_key(key, i), &e, &err) ||
            azoth_value_i64(e.value, &have))
            audit_violation(a, "A6 account %d: %s", i, err.message);
        if (have != a->balance[i] || have < 0)
            audit_violation(a, "A6 account %d holds %" PRId64 ", its events say %" PRId64, i, have,
                            a->balance[i]);
        sum += have;
    }
    if (sum != (int64_t)OP_ACCOUNTS * BANK_OPENING)
        audit_violation(a, "A6 the sum is %" PRId64, sum);
}

/* ---- projections ---- */

static int query(const struct audit *a, const char *projection, const char *sql, char *out,
                 size_t size)
{
    char db[300], text[200];
    snprintf(db, sizeof db, "%s/projections/%s.db", a->h->dir, projection);
    snprintf(text, sizeof text, "%s", sql);
    char wait[] = ".timeout 5000";
    char *const argv[] = {"sqlite3", "-readonly", "-cmd", wait, db, text, NULL};
    return harness_run(out, size, argv);
}

/* The cursor moves in the same SQLite transaction, so any moment will do. */
static void chain_is_a_replay(struct audit *a, int final)
{
    char out[200] = "";
    uint64_t n, last, h;
    if (query(a, "chain", "SELECT n, last, h FROM chain", out, sizeof out) ||
        sscanf(out, "%" SCNu64 "|%" SCNu64 "|%" SCNu64, &n, &last, &h) != 3) {
        if (final)
            audit_violation(a, "A7 the projection chain cannot be read: %s", out);
        return; /* it may not have begun */
    }
    if (last < a->next_event && (n != last || h != a->chain[last]))
        audit_violation(
            a, "A7 chain applied %" PRIu64 " events up to %" PRIu64 ": sum %" PRIu64 ", not %u", n,
            last, h, a->chain[last]);
    if (final && last != a->next_event - 1)
        audit_violation(a, "A7 chain ends at %" PRIu64 ", the log at %" PRIu64, last,
                        a->next_event - 1);
}

static void accounts_are_a_replay(struct audit *a)
{
    char out[64 * OP_ACCOUNTS] = "";
    if (query(a, "accounts", "SELECT account || ' ' || balance FROM accounts ORDER BY account", out,
              sizeof out))
        audit_violation(a, "A7 the projection accounts cannot be read");
    char *line = strtok(out, "\n");
    for (int i = 0; i < OP_ACCOUNTS; i++, line = strtok(NULL, "\n")) {
        int account = -1;
        int64_t balance = -1;
        if (!line || sscanf(line, "%d %" SCNd64, &account, &balance) != 2 || account != i ||
            balance != a->balance[i])
            audit_violation(a, "A7 account %d: the projection has %s, the log says %" PRId64, i,
                            line ? line : "no row", a->balance[i]);
    }
}

static void caught_up(struct audit *a, struct azoth *db, const char *projection)
{
    struct azoth_error err = {0};
    uint64_t until = clock_mono_ns() + CATCH_UP_NS;
    int rc;
    do {
        harness_supervise(a->h);
        rc = azoth_wait_projected(db, projection, a->next_event - 1, 100, &err);
    } while (rc && clock_mono_ns() < until);
    if (rc)
        audit_violation(a, "A7 %s does not catch up: %s", projection, err.message);
}

void audit_projections(struct audit *a, struct azoth *db, int final)
{
    if (final) {
        caught_up(a, db, "chain");
        caught_up(a, db, "accounts");
        accounts_are_a_replay(a);
    }
    chain_is_a_replay(a, final);
}

/* ---- registers ---- */

static void tell_history(const struct register_history *h)
{
    static const char *const names[] = {"read", "write", "cas", "cas-not", "check"};
    for (uint32_t i = 0; i < h->n && i < 3000; i++)
        if (h->op[i].replied_ns != HISTORY_PENDING || h->op[i].kind != HISTORY_READ)
            fprintf(stderr,
                    "  %" PRIu64 " %" PRId64 " client %" PRIu64 " %s %" PRId64 " expected %" PRId64
                    "\n",
                    h->op[i].invoked_ns, (int64_t)h->op[i].replied_ns, h->op[i].ref >> 40,
                    names[h->op[i].kind], h->op[i].value, h->op[i].expected);
}

static void check_history(struct audit *a, int64_t key, struct register_history *h)
{
    size_t longest = 0;
    enum history_verdict v = history_check(h->op, h->n, &longest);
    a->histories += !h->checked;
    a->history_ops += h->checked ? 0 : h->n;
    h->checked = 1;
    if (v == HISTORY_LINEARIZABLE)
        return;
    if (v == HISTORY_NOT_LINEARIZABLE)
        audit_violation(a, "A8 register %" PRId64 " is not linearizable: %zu of %u operations", key,
                        longest, h->n);
    else
        audit_violation(a, "A8 register %" PRId64 " could not be decided: %u operations", key,
                        h->n);
    if (getenv("AZOTH_TEST_KEEP"))
        tell_history(h);
}

static void check_value(struct audit *a, struct azoth *db, int64_t key,
                        const struct register_history *h)
{
    char text[32];
    int64_t have = 0;
    struct azoth_error err = {0};
    int rc = azoth_get_i64(db, op_register_key(text, key), &have, &err);
    if ((rc && rc != AZOTH_ERR_NOT_FOUND) || have != h->last)
        audit_violation(a,
                        "A8 register %" PRId64 " holds %" PRId64 ", its last event says %" PRId64,
                        key, have, h->last);
}

void audit_registers(struct audit *a, struct azoth *db, int final)
{
    uint64_t span = clock_mono_ns() / OP_REGISTER_NS;
    int64_t settled = (int64_t)((span - SETTLED_SPANS) * OP_REGISTERS);
    for (uint64_t i = 0; i < a->registers_len; i++) {
        struct register_history *h = &a->registers[i];
        int64_t key = a->registers_from + (int64_t)i;
        if (!h->n)
            continue;
        if (final || (key < settled && !h->checked))
            check_history(a, key, h);
        if (final)
            check_value(a, db, key, h);
    }
}
