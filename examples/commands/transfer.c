/*
 * transfer.c - a command library with one command: moves an amount between two accounts.
 *
 *   cc -shared -fPIC -I/usr/local/include/azoth transfer.c -o transfer.so
 *   azoth-worker --dir DIR --name 1 --load ./transfer.so
 *   azoth call transfer '{"from":"1","to":"2","amount":100}'
 *
 * Balances are integers under acct/NAME. The sum over all accounts never changes: both balances are
 * read and both additions made under the locks of both keys.
 */
#include "azoth_command.h"

#include <inttypes.h>
#include <stdio.h>

#define NAME_MAX_BYTES 64

struct transfer {
    char from[80], to[80]; /* keys */
    char event[256];       /* payload */
    int64_t amount;
};

/* Names go into keys and JSON text as they are: letters and digits only. */
static int name_plain(struct azoth_bytes name)
{
    const unsigned char *p = name.ptr;
    for (size_t i = 0; i < name.len; i++)
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'z') ||
              (p[i] >= 'A' && p[i] <= 'Z')))
            return 0;
    return name.len >= 1 && name.len <= NAME_MAX_BYTES;
}

/* 0, a code of the arguments' functions, or 1 when a name or the amount is not acceptable. */
static int transfer_read(const struct azoth_command_args *args, struct transfer *ret)
{
    struct azoth_bytes from, to;
    int rc = args->string(args, "from", &from);
    if (rc == 0)
        rc = args->string(args, "to", &to);
    if (rc == 0)
        rc = args->integer(args, "amount", &ret->amount);
    if (rc)
        return rc;
    if (!name_plain(from) || !name_plain(to) || ret->amount <= 0)
        return 1;
    snprintf(ret->from, sizeof ret->from, "acct/%.*s", (int)from.len, (const char *)from.ptr);
    snprintf(ret->to, sizeof ret->to, "acct/%.*s", (int)to.len, (const char *)to.ptr);
    snprintf(ret->event, sizeof ret->event,
             "{\"amount\":%" PRId64 ",\"from\":\"%.*s\",\"to\":\"%.*s\"}", ret->amount,
             (int)from.len, (const char *)from.ptr, (int)to.len, (const char *)to.ptr);
    return 0;
}

static int transfer_declare(struct azoth_command_declare *d, const struct azoth_command_args *args)
{
    struct transfer t;
    int rc = transfer_read(args, &t);
    if (rc == 1)
        return d->reject(d, "a transfer needs account names of letters and digits and an amount");
    if (rc == 0)
        rc = d->write(d, azoth_command_str(t.from));
    if (rc == 0)
        rc = d->write(d, azoth_command_str(t.to));
    return rc;
}

static int transfer_run(struct azoth_command_run *r, const struct azoth_command_args *args)
{
    struct transfer t;
    int64_t balance;
    int rc = transfer_read(args, &t);
    if (rc)
        return rc == 1 ? AZOTH_ERR_REJECTED : rc;
    rc = r->get_i64(r, azoth_command_str(t.from), &balance);
    if (rc == AZOTH_ERR_NOT_FOUND)
        return r->reject(r, "%s does not exist", t.from);
    if (rc)
        return rc;
    if (balance < t.amount)
        return r->reject(r, "%s has %" PRId64 ", the transfer needs %" PRId64, t.from, balance,
                         t.amount);
    rc = r->add_i64(r, azoth_command_str(t.from), -t.amount);
    if (rc == 0)
        rc = r->add_i64(r, azoth_command_str(t.to), t.amount);
    if (rc == 0)
        rc = r->event_json(r, "transferred", t.event);
    return rc;
}

static const struct azoth_command commands[] = {
    {"transfer", transfer_declare, transfer_run},
};

const struct azoth_command_library *azoth_commands(void)
{
    static const struct azoth_command_library library = {
        AZOTH_COMMAND_ABI,
        sizeof commands / sizeof *commands,
        commands,
    };
    return &library;
}
