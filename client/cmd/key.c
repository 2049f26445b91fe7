/*
 * key.c - azoth key: makes the keys that backups are encrypted and signed with.
 *
 * A key is never written over, and never printed: it is in its file alone. Public keys are printed, they are made
 * to be handed on.
 */
#include "client/cmd/cmd.h"

#include "writer/backupfile.h"

#include <string.h>

static int tell_made(const struct cmd_line *l, const char *path, const struct sign_key *k)
{
    char public[2 * 32 + 1];
    struct json_text j = {0};
    if (k)
        bytes_hex(public, k->public, sizeof k->public);
    if (l->json) {
        out_open(&j, NULL, '{');
        out_bool(&j, "ok", 1);
        out_str(&j, "file", path);
        if (k)
            out_str(&j, "public", public);
        out_close(&j, '}');
        return out_print(&j);
    }
    if (k)
        printf("made a key for signatures in %s, and %s.pub for whoever checks them\n"
               "  public  %s\n",
               path, path, public);
    else
        printf(
            "made a key for backups in %s\n"
            "Without it nothing opens what is encrypted with it: keep a copy where the backups are "
            "not.\n",
            path);
    return 0;
}

static int run_key(struct cmd_line *l)
{
    int sign = 0;
    const struct cmd_flag flags[] = {{"--sign", FLAG_SWITCH, &sign}, {NULL, 0, NULL}};
    struct azoth_error err;
    struct sign_key k;
    int rc = cmd_flags(l, flags, 2, 2);
    if (rc)
        return rc;
    if (strcmp(l->word[0], "make") != 0)
        return cmd_usage(l, "the form is azoth key %s", l->cmd->synopsis);
    const char *path = l->word[1];
    if (!sign)
        return backup_key_make(path, &err) ? cmd_fail(&err) : tell_made(l, path, NULL);
    if (sign_key_make(path, &err) || sign_key_read(path, &k, &err))
        return cmd_fail(&err);
    rc = tell_made(l, path, &k);
    sign_key_fini(&k);
    return rc;
}

const struct cmd cmd_key = {
    .name = "key",
    .synopsis = "make FILE [--sign] [--json]",
    .summary = "Make a key for encrypted or signed backups",
    .help =
        "  make FILE          64 hexadecimal digits, readable by their owner alone\n"
        "  --sign             a pair for signatures: the secret key into FILE, the public one "
        "into\n"
        "                     FILE.pub\n"
        "  --json             one object, with the public key\n\n"
        "A file that is there is never written over. Without its key nothing opens an encrypted "
        "backup.\n\n"
        "  azoth key make /etc/azoth/backup.key\n"
        "  azoth key make --sign /etc/azoth/sign.key\n",
    .run = run_key,
};
