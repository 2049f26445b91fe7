#include "client/cmd/verify.h"

#include "client/cmd/progress.h"
#include "core/pagecheck.h"
#include "core/storecheck.h"

#define FOUND 1 /* exit code */

struct telling {
    int json;
    struct json_text *j;
    struct progress progress;
    uint64_t fatal; /* pages that LMDB can not be let read */
};

static void on_finding(void *arg, const struct store_finding *f)
{
    struct telling *t = arg;
    progress_end(&t->progress);
    if (!t->json) {
        fprintf(stderr, "azoth: %s: %s (%s)\n", f->kind, f->message, azoth_code_name(f->code));
        return;
    }
    char hex[2 * AZOTH_KEY_MAX + 1];
    size_t len = f->key.len < AZOTH_KEY_MAX ? f->key.len : AZOTH_KEY_MAX;
    bytes_hex(hex, f->key.ptr, len);
    out_open(t->j, NULL, '{');
    out_str(t->j, "kind", f->kind);
    out_str(t->j, "error", azoth_code_name(f->code));
    out_str(t->j, "message", f->message);
    out_str(t->j, "key_hex", len ? hex : NULL);
    if (f->event)
        out_u64(t->j, "event", f->event);
    if (f->txn)
        out_u64(t->j, "txn", f->txn);
    out_close(t->j, '}');
}

static int on_progress(void *arg, uint64_t at, uint64_t end, const char *what)
{
    struct telling *t = arg;
    progress_say(&t->progress, at, end, what);
    return cmd_interrupted();
}

static void tell_chain(struct json_text *j, const struct store_check_sum *s)
{
    char hex[2 * CHAIN_BYTES + 1];
    bytes_hex(hex, s->head.chain.value, CHAIN_BYTES);
    out_str(j, "chain", s->head.chain.on ? hex : NULL);
    out_bool(j, "chain_checked", s->chain_checked);
}

static void tell_sum_json(struct json_text *j, const struct store_check_sum *s)
{
    out_u64(j, "event", s->head.event);
    out_u64(j, "txn", s->head.txn);
    out_u64(j, "events", s->events);
    out_u64(j, "segments", s->segments);
    out_u64(j, "transactions", s->transactions);
    out_u64(j, "keys", s->keys);
    out_u64(j, "ids", s->ids);
    out_u64(j, "redo_records", s->redo);
    out_u64(j, "marks", s->marks);
    out_u64(j, "pages", s->pages);
    out_u64(j, "free_pages", s->free_pages);
    out_bool(j, "pages_counted", s->pages_counted);
    tell_chain(j, s);
}

static void tell_sum(const struct store_check_sum *s, double seconds)
{
    char hex[2 * CHAIN_BYTES + 1];
    bytes_hex(hex, s->head.chain.value, CHAIN_BYTES);
    printf("store: %llu events in %llu transactions, %llu keys, %llu request ids, %llu redo "
           "records, %llu pages: ",
           (unsigned long long)s->events, (unsigned long long)s->transactions,
           (unsigned long long)s->keys, (unsigned long long)s->ids, (unsigned long long)s->redo,
           (unsigned long long)s->pages);
    if (s->findings)
        printf("%llu findings", (unsigned long long)s->findings);
    else
        printf("whole");
    printf(" (%.1f s)\n", seconds);
    if (s->chain_checked)
        printf("chain: %s at event %llu%s\n", hex, (unsigned long long)s->head.chain.event,
               s->findings ? "" : ", recomputed");
    else
        printf("chain: %s\n", s->head.chain.on ? "not recomputed, since an event can not be read"
                                               : "none (azoth init --chain off)");
    if (!s->pages_counted)
        printf("pages: the writer was faster; they were not checked\n");
}

/* ---- before LMDB reads it ---- */

/* The others are told by the check itself, which does not come after fatal ones. */
static void on_page(void *arg, int fatal, const char *message)
{
    struct telling *t = arg;
    struct store_finding f = {.kind = "page", .code = AZOTH_ERR_CORRUPT};
    if (!fatal)
        return;
    snprintf(f.message, sizeof f.message, "%s", message);
    t->fatal++;
    on_finding(t, &f);
}

static int on_page_progress(void *arg, uint64_t at, uint64_t end)
{
    return on_progress(arg, at, end, "pages");
}

static int check(struct telling *t, const char *dir, struct store **ret_store,
                 struct store_check_sum *sum, struct azoth_error *err)
{
    const struct pagecheck_tell pages = {t, on_page, on_page_progress};
    const struct store_check_tell tell = {t, on_finding, on_progress};
    int rc = store_pages_look(dir, &pages, err);
    if (!rc && t->fatal)
        rc = error_set(err, AZOTH_ERR_CORRUPT,
                       "%s: LMDB can not read these pages: nothing else was checked", dir);
    if (!rc)
        rc = store_open(dir, 0, ret_store, err);
    return rc ? rc : store_check(*ret_store, &tell, sum, err);
}

int verify_store(const char *dir, struct store **ret_store, int json, struct json_text *j)
{
    struct telling t = {.json = json, .j = j};
    struct store_check_sum sum = {0};
    struct azoth_error err = {0};
    progress_begin(&t.progress, "store", json, 0);
    if (json) {
        out_open(j, "store", '{');
        out_open(j, "findings", '[');
    }
    int rc = check(&t, dir, ret_store, &sum, &err);
    double seconds = progress_seconds(&t.progress);
    progress_end(&t.progress);
    if (json) {
        out_close(j, ']');
        out_bool(j, "ok", rc == 0 && sum.findings == 0);
        tell_sum_json(j, &sum);
        out_str(j, "error", rc ? azoth_code_name(rc) : NULL);
        out_str(j, "message", rc ? err.message : NULL);
        out_close(j, '}');
    } else if (!rc) {
        tell_sum(&sum, seconds);
    }
    if (rc && !cmd_interrupted()) {
        int exit_code = cmd_fail(&err);
        return t.fatal ? FOUND : exit_code;
    }
    return sum.findings ? FOUND : 0;
}
