/*
 * cmd.h - what the files of the azoth command share: the dispatch table, flags, output.
 *
 * A command takes its line, prints to standard output, tells failures on standard error as
 * `azoth: SENTENCE (AZOTH_ERR_X)` and returns the exit code: 0 done, 1 refused, 2 usage, 3 no
 * database or writer, 4 input or output, 5 outcome unknown.
 */
#ifndef CLIENT_CMD_CMD_H
#define CLIENT_CMD_CMD_H

#include "client/azoth.h"
#include "core/buf.h"
#include "core/config.h"
#include "core/error.h"
#include "core/store.h"

#include <dirent.h>
#include <stdio.h>

#define CMD_WORDS_MAX 64u

struct cmd_line;

struct cmd {
    const char *name;
    const char *synopsis; /* what follows the name */
    const char *summary;  /* one line of `azoth help` */
    const char *help;     /* flags and examples */
    int (*run)(struct cmd_line *l);
};

/* The command's line: argv after its name; the rest is filled by cmd_flags(). */
struct cmd_line {
    const struct cmd *cmd;
    int argc;
    char **argv;
    const char *dir; /* --dir, or NULL */
    int json;
    struct config *config;     /* when set, settings (--writer-sync ...) are taken into it */
    char *word[CMD_WORDS_MAX]; /* what is no flag */
    int words;
};

enum cmd_flag_kind {
    FLAG_SWITCH,        /* int: set to 1 */
    FLAG_TEXT,          /* const char * */
    FLAG_NUMBER,        /* struct cmd_number: decimal */
    FLAG_SECONDS,       /* struct cmd_number, in ms: "2", "1.5", "500ms", "3min", "1h" */
    FLAG_SIZE,          /* struct cmd_number, in bytes: "65536", "64K", "16M", "1G" */
    FLAG_MAYBE,         /* struct cmd_number: the number may be left out */
    FLAG_MAYBE_SECONDS, /* as FLAG_SECONDS: the time may be left out; n is what it was then */
    FLAG_LIST,          /* struct cmd_list */
};

struct cmd_number {
    int given; /* 1: the flag was there */
    int has;   /* 1: with a number */
    uint64_t n;
};

struct cmd_list {
    const char *text[CMD_WORDS_MAX];
    int n;
};

struct cmd_flag {
    const char *name; /* with its dashes; NULL ends the table */
    enum cmd_flag_kind kind;
    void *ret;
};

/* Reads the flags (--dir and --json beside those of the table, which may be NULL) and the words, of
 * which least to most may be given. 0, or the exit code after the failure was told. */
int cmd_flags(struct cmd_line *l, const struct cmd_flag *flags, int least, int most);
/* Whether the line had it, when cmd_flags() has read that. */
int cmd_flag_given(const struct cmd_flag *f);
/* Settings given as flags win over those loaded: copies them from `flagged` to c. */
int cmd_config(const char *dir, const struct config *flagged, struct config *c,
               struct azoth_error *err);

/* Tells the failure and returns its exit code. */
int cmd_fail(const struct azoth_error *err);
int cmd_fail_code(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cmd_usage(const struct cmd_line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The database's directory: word (may be NULL), --dir, AZOTH_DIR. NO_DATABASE when there is none
 * and must_exist is set. 0, or the exit code after the failure was told. */
int cmd_dir(const struct cmd_line *l, const char *word, int must_exist, char *out, size_t size);
/* The directory of the projections, and whether name is one's: 0 or an exit code, told. */
int cmd_projections(struct cmd_line *l, const char *name, char *out, size_t size);
/* Lists DIR/projections/NAME.sql, sorted: *ret has the names, each with its list to be freed by
 * cmd_definitions_free(). How many; none when the directory is missing. IO, PERMISSION, USAGE (the path), NOMEM. */
int cmd_definitions(const char *dir, struct dirent ***ret, struct azoth_error *err);
void cmd_definitions_free(struct dirent **list, int n);
/* A value of a projection as JSON: a blob is {"bytes":BASE64}. 0 or NOMEM. */
struct query_value;
int cmd_value_json(struct buf *out, const struct query_value *v);
/* Runs one statement on a projection and prints its rows, as `azoth query`; an exit code. */
int cmd_query_print(const char *dir, const char *name, const char *sql, int json);
/* Opens the database with enum azoth_open_flags, or connects to the workers at `to` (may be NULL;
 * flags do not count then). 0, or the exit code after the failure was told. */
int cmd_open(const struct cmd_line *l, const char *to, unsigned flags, struct azoth **ret);
/* Attached when a writer runs (so that commits wake us and its queue is seen), else read-only. */
int cmd_open_attached(const struct cmd_line *l, struct azoth **ret);
/* DIR/run, or run.dir of the configuration: where processes put their sockets that are started with --dir. */
int cmd_run_dir(const char *dir, const struct config *c, char *out, size_t size,
                struct azoth_error *err);
/* Where those that run now have them: of the units' databases that is /run/azoth/NAME, unless azoth run has DIR. */
int cmd_find_run_dir(const char *dir, const struct config *c, char *out, size_t size,
                     struct azoth_error *err);

/*
 * Asks the store in a thread of its own and waits at most timeout_ms: a process that is stopped
 * inside LMDB's reader table must not stop `status`. arg is malloc'd; when the answer is TIMEOUT it is not
 * the caller's any more. Until a thread that hung has come back the answer is TIMEOUT at once. The process must
 * not open the store any other way afterwards.
 */
int cmd_ask_store(const char *dir, int (*ask)(struct store *s, void *arg, struct azoth_error *err),
                  void *arg, uint32_t timeout_ms, struct azoth_error *err);

/* SIGINT, SIGTERM and SIGHUP (unless it is ignored) end a loop: the signal once one came, 0 before.
 * Sleeps are cut short by them. */
void cmd_catch_signals(void);
int cmd_interrupted(void);
void cmd_sleep_ms(uint64_t ms);

/* ---- output ---- */

#define CMD_TIME_TEXT 40
/* "2026-11-23T12:00:00.123Z"; "-" for 0. */
const char *cmd_time(int64_t wall_ns, char out[CMD_TIME_TEXT]);
/* "350 us", "1.2 ms", "3.4 s", "5 min", "2.0 h". */
const char *cmd_duration(uint64_t ns, char out[CMD_TIME_TEXT]);
/* "512 B", "1.5 MiB". */
const char *cmd_size(uint64_t bytes, char out[CMD_TIME_TEXT]);
void cmd_write(const struct buf *b);                     /* to standard output */
int cmd_unhex(const char *text, uint8_t *out, size_t n); /* 1 when text is 2 n hex digits */

/* A JSON text in the making. key is NULL inside an array. */
struct json_text {
    struct buf b;
    int comma, failed;
};
void out_open(struct json_text *j, const char *key, char bracket);
void out_close(struct json_text *j, char bracket);
void out_str(struct json_text *j, const char *key, const char *text); /* NULL: null */
void out_u64(struct json_text *j, const char *key, uint64_t n);
void out_i64(struct json_text *j, const char *key, int64_t n);
void out_real(struct json_text *j, const char *key, double n); /* three decimals */
void out_bool(struct json_text *j, const char *key, int yes);
void out_null(struct json_text *j, const char *key);
/* Prints it with a newline and frees it: 0 or an exit code. */
int out_print(struct json_text *j);

/* ---- the commands ---- */

extern const struct cmd *const cmd_table[]; /* NULL ends it */
const struct cmd *cmd_find(const char *name);

extern const struct cmd cmd_init, cmd_config_show, cmd_pause, cmd_resume; /* admin.c, hold.c */
extern const struct cmd cmd_tx, cmd_call;                                 /* request.c */
extern const struct cmd cmd_get, cmd_scan, cmd_events;                    /* read.c */
extern const struct cmd cmd_status;                                       /* status.c */
extern const struct cmd cmd_lag;                                          /* lag.c */
extern const struct cmd cmd_top;                                          /* top.c */
extern const struct cmd cmd_query;                                        /* query.c */
extern const struct cmd cmd_projection;                                   /* projection.c */
extern const struct cmd cmd_dlq;                                          /* dlq.c */
extern const struct cmd cmd_verify;                                       /* verify.c */
extern const struct cmd cmd_archive;                                      /* archive.c */
extern const struct cmd cmd_run;                                          /* run.c */
extern const struct cmd cmd_scale;                                        /* scale.c */
extern const struct cmd cmd_key;                                          /* key.c */
extern const struct cmd cmd_bench;                                        /* bench.c */
extern const struct cmd cmd_backup;                                       /* backup.c */
extern const struct cmd cmd_restore;                                      /* restore.c */
extern const struct cmd cmd_digest;                                       /* digest.c */
extern const struct cmd cmd_help, cmd_version;                            /* main.c */

extern const struct cmd cmd_seal, cmd_unseal; /* hold.c */

#endif
