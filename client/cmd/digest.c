/* digest.c - azoth digest: one number for what the database holds. */
#include "client/cmd/cmd.h"
#include "client/cmd/progress.h"

#include "writer/digest.h"

static int on_event(void *arg, uint64_t event, uint64_t head)
{
    progress_say(arg, event, head, "event");
    return cmd_interrupted();
}

static int tell(const struct cmd_line *l, const struct digest *d, int with_times)
{
    char hex[2 * DIGEST_BYTES + 1];
    bytes_hex(hex, d->sum, sizeof d->sum);
    if (!l->json) {
        printf("%s  keys %llu, events %llu, transactions %llu\n", hex, (unsigned long long)d->keys,
               (unsigned long long)d->head.event, (unsigned long long)d->head.txn);
        return 0;
    }
    struct json_text t = {0};
    out_open(&t, NULL, '{');
    out_str(&t, "digest", hex);
    out_bool(&t, "with_times", with_times);
    out_u64(&t, "keys", d->keys);
    out_u64(&t, "event", d->head.event);
    out_u64(&t, "transaction", d->head.txn);
    out_close(&t, '}');
    return out_print(&t);
}

static int run_digest(struct cmd_line *l)
{
    char dir[4096];
    int with_times = 0, quiet = 0;
    struct azoth_error err = {0};
    struct progress progress;
    struct store *store;
    struct digest d;
    const struct cmd_flag flags[] = {{"--with-times", FLAG_SWITCH, &with_times},
                                     {"--quiet", FLAG_SWITCH, &quiet},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 0);
    if (!rc)
        rc = cmd_dir(l, NULL, 1, dir, sizeof dir);
    if (rc)
        return rc;
    cmd_catch_signals();
    if (store_open(dir, 0, &store, &err))
        return cmd_fail(&err);
    progress_begin(&progress, "digest", quiet, 0);
    rc = digest_store(store, with_times, on_event, &progress, &d, &err);
    progress_end(&progress);
    store_close(store);
    if (rc)
        return rc == 1 ? 128 + cmd_interrupted() : cmd_fail(&err);
    return tell(l, &d, with_times);
}

const struct cmd cmd_digest = {
    .name = "digest",
    .synopsis = "[--with-times] [--json]",
    .summary = "One number for what the database holds",
    .help =
        "  --with-times  the events' times count, too\n"
        "  --quiet       no progress\n"
        "  --json        one object\n\n"
        "BLAKE2b-256 over each key with its type, value and version and each event with its id, "
        "transaction,\n"
        "type, key, metadata and payload. Databases that were given the same transactions in the "
        "same order have\n"
        "the same one, whatever their identity is. Writes go on meanwhile.\n\n"
        "  azoth digest\n"
        "  [ \"$(azoth digest --dir A)\" = \"$(azoth digest --dir B)\" ]\n",
    .run = run_digest,
};
