/*
 * command.c - the command "torture": one transfer, given as the payload of the event that it logs.
 */
#include "azoth_command.h"

#include <inttypes.h>
#include <stdio.h>

struct wanted {
    int64_t amount, from, to, part, ref;
    char from_key[32], to_key[32];
};

static int read_args(const struct azoth_command_args *a, struct wanted *w)
{
    int rc = a->integer(a, "amount", &w->amount);
    rc = rc ? rc : a->integer(a, "from", &w->from);
    rc = rc ? rc : a->integer(a, "to", &w->to);
    rc = rc ? rc : a->integer(a, "part", &w->part);
    rc = rc ? rc : a->integer(a, "ref", &w->ref);
    snprintf(w->from_key, sizeof w->from_key, "acct/%06" PRId64, rc ? 0 : w->from);
    snprintf(w->to_key, sizeof w->to_key, "acct/%06" PRId64, rc ? 0 : w->to);
    return rc;
}

static int torture_declare(struct azoth_command_declare *d, const struct azoth_command_args *args)
{
    struct wanted w;
    int rc = read_args(args, &w);
    rc = rc ? rc : d->write(d, azoth_command_str(w.from_key));
    return rc ? rc : d->write(d, azoth_command_str(w.to_key));
}

static int torture_run(struct azoth_command_run *r, const struct azoth_command_args *args)
{
    struct wanted w;
    int64_t balance;
    char json[160];
    int rc = read_args(args, &w);
    rc = rc ? rc : r->get_i64(r, azoth_command_str(w.from_key), &balance);
    if (rc)
        return rc;
    if (balance < w.amount)
        return r->reject(r, "only %" PRId64, balance);
    snprintf(json, sizeof json,
             "{\"amount\":%" PRId64 ",\"from\":%" PRId64 ",\"part\":%" PRId64 ",\"ref\":%" PRId64
             ",\"to\":%" PRId64 "}",
             w.amount, w.from, w.part, w.ref, w.to);
    rc = r->add_i64(r, azoth_command_str(w.from_key), -w.amount);
    rc = rc ? rc : r->add_i64(r, azoth_command_str(w.to_key), w.amount);
    return rc ? rc : r->event_json(r, "transferred", json);
}

static const struct azoth_command commands[] = {{"torture", torture_declare, torture_run}};

const struct azoth_command_library *azoth_commands(void)
{
    static const struct azoth_command_library library = {AZOTH_COMMAND_ABI, 1, commands};
    return &library;
}
