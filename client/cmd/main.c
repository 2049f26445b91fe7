/*
 * main.c - the azoth command: one table of commands, help, version.
 *
 * azoth [--dir DIR] COMMAND ...; cmd.h tells what a command owes its caller.
 */
#include "client/cmd/cmd.h"
#include "client/cmd/run.h"

#include <errno.h>
#include <string.h>

const struct cmd *const cmd_table[] = {
    &cmd_init,   &cmd_run,    &cmd_tx,      &cmd_call,    &cmd_get,    &cmd_scan,
    &cmd_events, &cmd_status, &cmd_lag,     &cmd_top,     &cmd_query,  &cmd_projection,
    &cmd_dlq,    &cmd_pause,  &cmd_resume,  &cmd_seal,    &cmd_unseal, &cmd_config_show,
    &cmd_bench,  &cmd_verify, &cmd_archive, &cmd_scale,   &cmd_backup, &cmd_restore,
    &cmd_digest, &cmd_key,    &cmd_help,    &cmd_version, NULL,
};

const struct cmd *cmd_find(const char *name)
{
    for (const struct cmd *const *c = cmd_table; *c; c++)
        if (strcmp((*c)->name, name) == 0)
            return *c;
    return NULL;
}

static void print_overview(FILE *to)
{
    fprintf(to, "usage: azoth [--dir DIR] COMMAND [ARGUMENTS]\n\n");
    for (const struct cmd *const *c = cmd_table; *c; c++)
        fprintf(to, "  %-11s %s\n", (*c)->name, (*c)->summary);
    fprintf(to,
            "\nThe database is --dir DIR or the environment's AZOTH_DIR. Listings take --json.\n"
            "azoth COMMAND --help tells its flags, with examples.\n"
            "Exit codes: 0 done, 1 refused, 2 usage, 3 no database or no writer, 4 input or\n"
            "output failed, 5 outcome unknown.\n");
}

static void print_help(const struct cmd *c)
{
    printf("usage: azoth %s%s%s\n\n%s.\n\n%s", c->name, *c->synopsis ? " " : "", c->synopsis,
           c->summary, c->help);
}

static int run_help(struct cmd_line *l)
{
    int rc = cmd_flags(l, NULL, 0, 1);
    if (rc)
        return rc;
    if (l->words == 0) {
        print_overview(stdout);
        return 0;
    }
    const struct cmd *c = cmd_find(l->word[0]);
    if (!c)
        return cmd_fail_code(AZOTH_ERR_USAGE, "there is no command %s; see azoth help", l->word[0]);
    print_help(c);
    return 0;
}

const struct cmd cmd_help = {
    .name = "help",
    .synopsis = "[COMMAND]",
    .summary = "What there is, or what one command takes",
    .help = "  azoth help tx\n",
    .run = run_help,
};

static int run_version(struct cmd_line *l)
{
    int rc = cmd_flags(l, NULL, 0, 0);
    if (rc)
        return rc;
    if (l->json)
        printf("{\"version\":\"%s\"}\n", AZOTH_VERSION);
    else
        printf("azoth %s\n", AZOTH_VERSION);
    return 0;
}

const struct cmd cmd_version = {
    .name = "version",
    .synopsis = "[--json]",
    .summary = "The version of this program",
    .help = "  azoth version\n",
    .run = run_version,
};

/* Is --help among the arguments, before a "--"? */
static int asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return 1;
    return 0;
}

static int dispatch(int argc, char **argv)
{
    struct cmd_line line = {0};
    int i = 1;
    while (i < argc && argv[i][0] == '-') {
        if (strcmp(argv[i], "--version") == 0)
            return run_version(&(struct cmd_line){.cmd = &cmd_version});
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return run_help(&(struct cmd_line){.cmd = &cmd_help});
        if (strncmp(argv[i], "--dir=", 6) == 0) {
            line.dir = argv[i++] + 6;
        } else if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc) {
            line.dir = argv[i + 1];
            i += 2;
        } else {
            return cmd_fail_code(AZOTH_ERR_USAGE,
                                 "%s: this flag comes after a command; see azoth help", argv[i]);
        }
    }
    if (i == argc) {
        print_overview(stderr);
        return azoth_code_exit(AZOTH_ERR_USAGE);
    }
    line.cmd = cmd_find(argv[i]);
    if (!line.cmd)
        return cmd_fail_code(AZOTH_ERR_USAGE, "there is no command %s; see azoth help", argv[i]);
    line.argc = argc - i - 1;
    line.argv = argv + i + 1;
    if (asks_for_help(line.argc, line.argv)) {
        print_help(line.cmd);
        return 0;
    }
    return line.cmd->run(&line);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], RUN_CHILD_COMMAND) == 0)
        return run_child_main(argc - 2, argv + 2);
    int rc = dispatch(argc, argv);
    errno = 0;
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "azoth: standard output: %s (AZOTH_ERR_IO)\n",
                errno ? strerror(errno) : "not all of it was written");
        return rc ? rc : azoth_code_exit(AZOTH_ERR_IO);
    }
    return rc;
}
