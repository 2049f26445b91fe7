#include "tests/system/bank.h"

#include "core/clock.h"
#include "core/error.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct azoth_bytes key_of(char out[32], int account)
{
    int n = snprintf(out, 32, "acct/%06d", account);
    return (struct azoth_bytes){out, (size_t)n};
}

int bank_open(struct azoth *db, int accounts)
{
    struct azoth_error err;
    for (int i = 0; i < accounts; i++) {
        struct azoth_txn *t = azoth_txn_new(db);
        char key[32], json[80];
        snprintf(json, sizeof json, "{\"account\":%d,\"amount\":%d}", i, BANK_OPENING);
        azoth_require_absent(t, key_of(key, i));
        azoth_set_i64(t, key_of(key, i), BANK_OPENING);
        azoth_event_json(t, "opened", json);
        int rc = azoth_commit(t, NULL, &err);
        azoth_txn_free(t);
        if (rc) {
            fprintf(stderr, "open: %s\n", err.message);
            return rc;
        }
    }
    return 0;
}

struct transfer {
    char from_key[32], to_key[32], json[160];
    struct azoth_bytes from, to;
    int64_t amount;
};

static int enough(struct azoth_txn *t, void *arg)
{
    struct transfer *x = arg;
    int64_t have;
    int rc = azoth_txn_get_i64(t, x->from, &have);
    if (rc)
        return rc;
    return have >= x->amount ? 0 : azoth_reject(t, "only %lld", (long long)have);
}

static int move(struct azoth_txn *t, void *arg)
{
    struct transfer *x = arg;
    azoth_add_i64(t, x->from, -x->amount);
    azoth_add_i64(t, x->to, x->amount);
    return azoth_event_json(t, "transferred", x->json);
}

static void fill_transaction(struct azoth_txn *t, struct transfer *x, int attached)
{
    azoth_txn_reset(t);
    if (attached) {
        azoth_write(t, x->from);
        azoth_write(t, x->to);
        azoth_validate(t, enough, x);
        azoth_execute(t, move, x);
    } else {
        azoth_require_min_i64(t, x->from, x->amount);
        move(t, x);
    }
}

static int journal(int fd, const char *fmt, const char *ref, int code)
{
    char line[100];
    int n = snprintf(line, sizeof line, fmt, ref, code);
    return write(fd, line, (size_t)n) == n ? 0 : -1;
}

/* bank-client DIR NAME ENDPOINTS ACCOUNTS TRANSFERS SEED */
int bank_client_main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    int attached = strcmp(argv[3], "-") == 0;
    int accounts = atoi(argv[4]), transfers = atoi(argv[5]), bad = 0;
    uint64_t seed = strtoull(argv[6], NULL, 10) | 1;
    char path[400];
    snprintf(path, sizeof path, "%s/journal-%s", argv[1], argv[2]);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    struct azoth_options o = {.deadline_ms = 60000, .attach_wait_ms = 20000, .name = argv[2]};
    struct azoth *db;
    struct azoth_error err;
    int rc = attached ? azoth_open(argv[1], &o, &db, &err) : azoth_connect(argv[3], &o, &db, &err);
    if (rc || fd < 0) {
        fprintf(stderr, "%s: %s\n", argv[2], err.message);
        return 1;
    }
    struct azoth_txn *t = azoth_txn_new(db);
    for (int i = 0; i < transfers && !bad; i++) {
        struct transfer x;
        char ref[80];
        int from = (int)(random_next(&seed) % (uint64_t)accounts);
        int to = (from + 1 + (int)(random_next(&seed) % (uint64_t)(accounts - 1))) % accounts;
        x.amount = 1 + (int64_t)(random_next(&seed) % 300);
        x.from = key_of(x.from_key, from);
        x.to = key_of(x.to_key, to);
        snprintf(ref, sizeof ref, "%s-%d-%d", argv[2], (int)getpid(), i);
        snprintf(x.json, sizeof x.json, "{\"ref\":\"%s\",\"from\":%d,\"to\":%d,\"amount\":%lld}",
                 ref, from, to, (long long)x.amount);
        fill_transaction(t, &x, attached);
        if (journal(fd, "S %s %d\n", ref, 0))
            return 1;
        rc = azoth_commit(t, NULL, &err);
        if (rc == 0 || rc == AZOTH_ERR_PREFLIGHT_FAILED || rc == AZOTH_ERR_REJECTED) {
            if (journal(fd, "A %s %d\n", ref, rc))
                return 1;
        } else {
            fprintf(stderr, "%s: %s %s: %s\n", argv[2], ref, azoth_code_name(rc), err.message);
            bad = 1;
        }
    }
    azoth_txn_free(t);
    azoth_close(db);
    close(fd);
    return bad;
}

struct process *bank_client(struct harness *h, const char *name, const char *endpoints,
                            int accounts, int transfers, uint64_t seed)
{
    char n[16], a[16], s[32], self[256];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    snprintf(n, sizeof n, "%d", transfers);
    snprintf(a, sizeof a, "%d", accounts);
    snprintf(s, sizeof s, "%llu", (unsigned long long)seed);
    return harness_start(h, name, 0, self, h->dir, name, endpoints, a, n, s, NULL);
}

/* ---- checking ---- */

struct entry {
    char ref[56];
    int answered, code, seen;
};

struct ledger {
    struct entry *entry;
    size_t n, cap;
    int64_t *balance;
    int accounts;
};

static int by_ref(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->ref, ((const struct entry *)b)->ref);
}

static void read_journal(struct ledger *l, const char *path)
{
    FILE *f = fopen(path, "r");
    char line[200], kind, ref[56];
    int code;
    while (f && fgets(line, sizeof line, f)) {
        if (!strchr(line, '\n') || sscanf(line, "%c %55s %d", &kind, ref, &code) != 3)
            continue; /* the client died in the middle of the line */
        if (kind == 'S') {
            if (l->n == l->cap) {
                l->cap = l->cap ? l->cap * 2 : 4096;
                l->entry = realloc(l->entry, l->cap * sizeof *l->entry);
            }
            l->entry[l->n] = (struct entry){.answered = 0};
            strcpy(l->entry[l->n++].ref, ref);
        } else if (l->n && strcmp(l->entry[l->n - 1].ref, ref) == 0) {
            l->entry[l->n - 1].answered = 1;
            l->entry[l->n - 1].code = code;
        }
    }
    if (f)
        fclose(f);
}

static void read_journals(struct ledger *l, const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && (e = readdir(d)))
        if (strncmp(e->d_name, "journal-", 8) == 0) {
            char path[600];
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            read_journal(l, path);
        }
    if (d)
        closedir(d);
    if (l->n)
        qsort(l->entry, l->n, sizeof *l->entry, by_ref);
}

/* A payload may be the last bytes of the mapped store: what looks for its end would read beyond it. */
static void text_of(struct azoth_bytes json, char *text, size_t size)
{
    size_t n = json.len < size - 1 ? json.len : size - 1;
    memcpy(text, json.ptr, n);
    text[n] = 0;
}

int64_t bank_member(struct azoth_bytes json, const char *name)
{
    char text[256], want[40];
    text_of(json, text, sizeof text);
    snprintf(want, sizeof want, "\"%s\":", name);
    const char *at = strstr(text, want);
    return at ? strtoll(at + strlen(want), NULL, 10) : -1;
}

static int replay(struct ledger *l, const struct azoth_event *ev)
{
    int64_t amount = bank_member(ev->payload, "amount");
    if (ev->type.len == 6) { /* opened */
        l->balance[bank_member(ev->payload, "account")] += amount;
        return 1;
    }
    int64_t from = bank_member(ev->payload, "from"), to = bank_member(ev->payload, "to");
    l->balance[from] -= amount;
    l->balance[to] += amount;
    if (l->balance[from] < 0) {
        fprintf(stderr, "event %llu takes account %lld below zero\n", (unsigned long long)ev->id,
                (long long)from);
        return 0;
    }
    struct entry key;
    char text[256];
    text_of(ev->payload, text, sizeof text);
    if (sscanf(text, "{\"ref\":\"%55[^\"]", key.ref) != 1)
        return 0;
    struct entry *e = l->n ? bsearch(&key, l->entry, l->n, sizeof key, by_ref) : NULL;
    if (!e) {
        fprintf(stderr, "event %llu: nobody sent %s\n", (unsigned long long)ev->id, key.ref);
        return 0;
    }
    e->seen++;
    return 1;
}

static int check_journal(const struct ledger *l)
{
    size_t unanswered = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct entry *e = &l->entry[i];
        unanswered += !e->answered;
        int ok = !e->answered ? e->seen <= 1 : e->code == 0 ? e->seen == 1 : e->seen == 0;
        if (!ok) {
            fprintf(stderr, "%s: answered %d code %d, there %d times\n", e->ref, e->answered,
                    e->code, e->seen);
            return 0;
        }
    }
    fprintf(stderr, "journal: %zu sent, %zu without an answer\n", l->n, unanswered);
    return 1;
}

static int check_balances(const struct ledger *l, struct azoth *db)
{
    int64_t sum = 0, have;
    struct azoth_error err;
    for (int i = 0; i < l->accounts; i++) {
        char key[32];
        if (azoth_get_i64(db, key_of(key, i), &have, &err)) {
            fprintf(stderr, "%s\n", err.message);
            return 0;
        }
        if (have != l->balance[i] || have < 0) {
            fprintf(stderr, "account %d holds %lld, its events say %lld\n", i, (long long)have,
                    (long long)l->balance[i]);
            return 0;
        }
        sum += have;
    }
    if (sum != (int64_t)l->accounts * BANK_OPENING) {
        fprintf(stderr, "the sum is %lld\n", (long long)sum);
        return 0;
    }
    return 1;
}

int bank_check(struct harness *h, struct azoth *db, int accounts)
{
    struct ledger l = {.accounts = accounts};
    l.balance = calloc((size_t)accounts, sizeof *l.balance);
    read_journals(&l, h->dir);
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_error err;
    uint64_t next = 1;
    int ok = azoth_events(db, 1, 0, NULL, &it, &err) == 0, rc = 0;
    while (ok && (rc = azoth_events_next(it, &ev, &err)) == 1) {
        /* The system's own probes are not part of the bank. */
        int bank = ev.type.len == 6 || ev.type.len == 11;
        ok = ev.id == next++ && (!bank || replay(&l, &ev));
    }
    if (rc < 0)
        fprintf(stderr, "events: %s\n", err.message);
    azoth_events_free(it);
    ok = ok && rc == 0 && check_journal(&l) && check_balances(&l, db);
    free(l.entry);
    free(l.balance);
    return ok;
}
