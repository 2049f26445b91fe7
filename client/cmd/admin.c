/* admin.c - init, config. */
#include "client/cmd/cmd.h"
#include "client/internal.h"

#include "core/dbdir.h"

#include <string.h>

/* ---- init ---- */

static void read_uuid(const char *dir, char out[33])
{
    char path[4200];
    out[0] = 0;
    FILE *f = dbdir_path(path, sizeof path, dir, "uuid") == 0 ? fopen(path, "re") : NULL;
    if (!f)
        return;
    size_t n = fread(out, 1, 32, f);
    out[n] = 0;
    fclose(f);
}

static int run_init(struct cmd_line *l)
{
    char dir[4096], projections[4200], uuid[33];
    struct azoth_error err;
    const char *chain = "on";
    const struct cmd_flag flags[] = {{"--chain", FLAG_TEXT, &chain}, {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 1);
    if (!rc && strcmp(chain, "on") != 0 && strcmp(chain, "off") != 0)
        rc = cmd_usage(l, "--chain is on or off");
    if (!rc)
        rc = cmd_dir(l, l->words ? l->word[0] : NULL, 0, dir, sizeof dir);
    if (rc)
        return rc;
    if (client_init(dir, strcmp(chain, "off") == 0, &err))
        return cmd_fail(&err);
    if (dbdir_path(projections, sizeof projections, dir, "projections"))
        projections[0] = 0;
    read_uuid(dir, uuid);
    if (l->json) {
        struct json_text j = {0};
        out_open(&j, NULL, '{');
        out_bool(&j, "ok", 1);
        out_str(&j, "dir", dir);
        out_str(&j, "uuid", uuid);
        out_close(&j, '}');
        return out_print(&j);
    }
    printf("made an empty database in %s\n"
           "  identity     %s\n"
           "  projections  %s (put NAME.sql there)\n"
           "azoth run %s starts it.\n",
           dir, uuid, projections, dir);
    return 0;
}

const struct cmd cmd_init = {
    .name = "init",
    .synopsis = "[DIR] [--chain on|off] [--json]",
    .summary = "Make an empty database",
    .help =
        "  --chain on|off  a hash chain over the log, which azoth verify proves it by (default "
        "on);\n"
        "                  off stays off\n"
        "  --json          one object\n\n"
        "DIR is made when it is not there; --dir and AZOTH_DIR name it too. What is to stay set,\n"
        "as the sync mode, goes into DIR/azoth.conf (azoth.conf(5)).\n\n"
        "  azoth init /var/lib/azoth/main\n",
    .run = run_init,
};

/* ---- config ---- */

static int run_config(struct cmd_line *l)
{
    static const char *const sources[] = {"default", "file", "environment", "flag"};
    static struct config flagged, c;
    struct azoth_error err;
    char dir[4096];
    config_defaults(&flagged);
    l->config = &flagged;
    int rc = cmd_flags(l, NULL, 0, 0);
    if (!rc)
        rc = cmd_dir(l, NULL, 0, dir, sizeof dir);
    if (rc)
        return rc;
    if (cmd_config(dir, &flagged, &c, &err))
        return cmd_fail(&err);
    struct json_text j = {0};
    if (l->json)
        out_open(&j, NULL, '[');
    for (int k = 0; k < CONFIG_KEYS; k++) {
        const char *name = config_key_name((enum config_key)k);
        const char *source = sources[c.source[k] & 3];
        const char *value = c.text[k];
        if (k == CONFIG_projector_postgresql && *value)
            value = "(not shown)"; /* a password may be in it */
        if (!l->json) {
            printf("%-27s %-12s %-12s %s\n", name, *value ? value : "-", source,
                   config_key_help((enum config_key)k));
            continue;
        }
        out_open(&j, NULL, '{');
        out_str(&j, "key", name);
        out_str(&j, "value", value);
        out_str(&j, "source", source);
        out_str(&j, "help", config_key_help((enum config_key)k));
        out_close(&j, '}');
    }
    if (!l->json)
        return 0;
    out_close(&j, ']');
    return out_print(&j);
}

const struct cmd cmd_config_show = {
    .name = "config",
    .synopsis = "[--json]",
    .summary = "Settings, their values and where each comes from",
    .help = "A flag (--writer-sync none) wins over the environment (AZOTH_WRITER_SYNC), that over\n"
            "DIR/azoth.conf, that over the default. azoth.conf(5) lists them.\n\n"
            "  azoth config --dir /var/lib/azoth/main\n"
            "  azoth config --json | jq -r '.[] | select(.source != \"default\") | .key'\n",
    .run = run_config,
};
