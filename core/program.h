/*
 * program.h - what the mains of the services have in common: which database, which settings.
 *
 * Flags: --dir DIR, --instance DB[:NAME], --name NAME, one word, --SECTION-KEY VALUE, and what the
 * caller's own function takes.
 */
#ifndef CORE_PROGRAM_H
#define CORE_PROGRAM_H

#include "core/config.h"
#include "core/service.h"

struct program {
    const char *name; /* of the program */
    char dir[4096];
    char run_dir[4096];      /* made if missing, mode 0770 */
    char instance_name[128]; /* --name, the instance's part behind the colon, or the word */
    int parts;               /* the name may be NAME:PART */
    int looks_only;          /* nothing is made, and the database may be missing */
    struct config config;
    /* Takes one of the program's own flags: 1 taken (*i advanced), 0 not its own, or an error. */
    int (*flag)(void *arg, int argc, char **argv, int *i, struct azoth_error *err);
    void *arg;
    int argc; /* as given to program_parse() */
    char **argv;
};

/*
 * For programs through which messages of some 100 KiB pass all the time: malloc() keeps up to 64 MiB
 * that are free instead of giving each message back to the kernel, which costs a page fault for every
 * 4 KiB of the next one. Before the first thread begins.
 */
void program_keeps_memory(void);

/*
 * USAGE, CONFIG, NO_DATABASE (the directory is missing), IO. Starts the log and sets the umask: 0007, and
 * 0002 with --instance, where /var/lib/azoth keeps out who may not even read projections. argv is kept.
 */
int program_parse(struct program *p, int argc, char **argv, struct azoth_error *err);

/*
 * What SIGHUP asks for: reads the settings again, from all their sources, into *c, and takes log.level over;
 * the caller does the same with what else it can change while it runs (azoth.conf(5) says what). A file with a
 * mistake changes nothing. Either is one line in the log; the supervisor hears when it begins and ends. 1
 * when *c is new. Does not block, but for reading the file.
 */
int program_reload(struct config *c, const char *dir, int argc, char **argv, struct service *s);
/* Takes --dir DIR or --instance DB, also with a =: 1 and one of the two (*i advanced), 0 when it is neither, or
 * USAGE: the value is missing. */
int program_place_flag(int argc, char **argv, int *i, const char **dir, const char **instance,
                       struct azoth_error *err);
/* Handles --help and --version: 1 when done. */
int program_help(int argc, char **argv, const char *name, const char *usage);

#endif
