/*
 * backup.h - what the files of azoth backup and azoth restore share.
 *
 *   backup.c         the command's line; what was made, told
 *   backup_full.c    a hot full backup      backup_sealed.c  a sealed one
 *   backup_files.c   projections and other files, for both
 *   backup_archive.c segments of events that were archived
 *   backup_about.c   about.json             backup_place.c   a directory of backups
 *   backup_list.c    list
 *   backup_verify.c  verify: each file by itself
 *   backup_deep.c    verify --deep: what they lead to, restored and taken away again
 *   backup_increment.c  an increment, and the mark that it builds on
 *   backup_chain.c   what builds on what in a directory of backups
 *   backup_forget.c  forget                 backup_prune.c   prune
 *   backup_follow.c  an increment whenever commits have come
 *   backup_exec.c    backups to a command's standard input, and what it has
 *   restore.c        the command's line, and the order of a restore
 *   restore_load.c   a backup's members into a database in the making
 *   restore_archive.c  its segments
 *   restore_chain.c  which backups lead to an event or a time, and the increments among them
 *   restore_time.c   a time as people write it
 *
 * One thread. What blocks on the disk or on a pipe is left by a signal (backup_interrupted()): then 1 is returned.
 */
#ifndef CLIENT_CMD_BACKUP_H
#define CLIENT_CMD_BACKUP_H

#include "client/cmd/cmd.h"
#include "client/cmd/progress.h"
#include "client/cmd/scratch.h"
#include "core/archived.h"
#include "projector/filecopy.h"
#include "core/service.h"
#include "writer/advance.h"
#include "writer/backupfile.h"

#include <limits.h>

/* ---- flags that all of them have ---- */

struct backup_flags {
    const char *key_file, *passphrase_file, *sign_key, *signed_by, *tmp, *archive;
    struct cmd_number level;
    int quiet;
};
#define BACKUP_KEY_FLAGS(f)                                                                        \
    {"--key-file", FLAG_TEXT, &(f)->key_file},                                                     \
        {"--passphrase-file", FLAG_TEXT, &(f)->passphrase_file},                                   \
    {                                                                                              \
        "--quiet", FLAG_SWITCH, &(f)->quiet                                                        \
    }

/* Keys that the flags name; wiped by backup_keys_fini(). */
struct backup_keys {
    struct backup_key key;
    struct sign_key sign, public_key;
    int has_key, has_sign, has_public;
};
/* CONFIG, PERMISSION, IO, NOT_FOUND, USAGE (two of them for one purpose). */
int backup_keys_read(const struct backup_flags *f, struct backup_keys *ret,
                     struct azoth_error *err);
void backup_keys_fini(struct backup_keys *k);
static inline const struct backup_key *backup_key_of(const struct backup_keys *k)
{
    return k->has_key ? &k->key : NULL;
}

/* As cmd_catch_signals(), and pipes that nobody empties or fills are left then, too. */
void backup_catch_signals(void);
/* Whether what is made now is to be left: asked between its steps. cmd_interrupted(), unless another one is to be asked. */
int backup_interrupted(void);
void backup_interrupted_by(int (*by)(void));

/* ---- about.json ---- */

enum backup_kind { BACKUP_FULL, BACKUP_INCREMENT, BACKUP_SEALED };
const char *backup_kind_name(
    enum backup_kind kind); /* "full", "increment", "sealed": in names and for programs */
const char *
backup_kind_word(enum backup_kind kind); /* "full", "incremental", "sealed": for people */

#define BACKUP_ID_TEXT 33 /* 32 hexadecimal digits; empty: none */

struct backup_point {
    uint64_t txn, event;
    int64_t time_ns;
};

/* A projection's file. */
struct backup_projection {
    char file[256], stem[256]; /* NAME.gN.db; without .gN.db */
    uint64_t generation;
    int serves; /* STEM.db points to it */
    struct filecopy is;
    uint64_t bytes;
    int fd;                   /* of its copy, which has no name any more; -1 */
    unsigned char digest[32]; /* of its rows, in a sealed backup */
};

/* What is not in the backup, and why. */
struct backup_absence {
    char name[AZOTH_NAME_MAX + 1], why[160];
};

/* A segment that the store has recorded; its file is called by archivefile_name(). */
struct backup_segment {
    uint64_t first, last, bytes;
    unsigned char digest[ARCHIVE_DIGEST];
};

struct backup_about {
    enum backup_kind kind;
    char id[BACKUP_ID_TEXT], database[BACKUP_ID_TEXT], place[BACKUP_ID_TEXT],
        parent[BACKUP_ID_TEXT];
    struct backup_point from, to;
    struct chain chain_start, chain; /* where the log's chain began, and where it stands at `to` */
    struct chain chain_from;         /* of an increment: where it stands at `from` */
    uint64_t running_ms, id_first;   /* of an increment: the batch record's counters at `to` */
    int64_t created_ns;              /* of the backup; 0 in a sealed one */
    uint64_t store_created_ns;
    char program[40];
    struct backup_projection *projection; /* owned, and below */
    size_t projections;
    struct backup_absence *absent;
    size_t absences;
    struct backup_segment *segment; /* in the order of events; in a sealed one there are none */
    size_t segments;
    int without_archive; /* their files are not in the backup */
};
/* Adds one, zeroed; NULL: no memory. */
struct backup_projection *backup_about_projection(struct backup_about *a);
int backup_about_absence(struct backup_about *a, const char *name, const char *why);
void backup_about_absent_json(const struct backup_about *a,
                              struct json_text *t); /* "absent": [...] */
int backup_about_segment(struct backup_about *a, const struct backup_segment *s);
/* The text of it: the same of the same, with nothing of time or place in a sealed one. NOMEM. */
int backup_about_text(const struct backup_about *a, struct buf *out, struct azoth_error *err);
/* FORMAT: of another version, or not of ours. *ret is to be freed in any case. */
int backup_about_parse(struct azoth_bytes text, struct backup_about *ret, struct azoth_error *err);
void backup_about_fini(struct backup_about *a); /* closes descriptors, too */

/* ---- a directory of backups ---- */

/*
 * DEST/place                                  its UUID: what makes it one, and the lock of who writes into it
 * DEST/YYYYMMDDTHHMMSSZ-NNNNNN-KIND.azb       backups, numbered in the order in which they were made
 */
#define BACKUP_TMP "azoth-backup-" /* begins the name of a directory for copies of projections */
struct backup_place {
    char dir[PATH_MAX];
    char uuid[BACKUP_ID_TEXT];
    int fd; /* of DEST/place, with the lock; -1 */
};
/* Makes it when it is not there (DUPLICATE: a directory with other things in it). BUSY: another backup is made into
 * it. IO, PERMISSION, NOSPACE. */
int backup_place_lock(const char *dir, struct backup_place *ret, struct azoth_error *err);
void backup_place_unlock(struct backup_place *p);
/* 1: dir is one. */
int backup_place_is(const char *dir);
/* 1: it can be read as one: it is one, or has files that are called as backups are. Where --exec's command has put them, or
 * they were copied to, there may be no DEST/place. */
int backup_place_reads(const char *dir);
/* The path of the next backup, made now. */
int backup_place_next(const struct backup_place *p, enum backup_kind kind, int64_t wall_ns,
                      char out[PATH_MAX], struct azoth_error *err);

struct backup_entry {
    char file[NAME_MAX + 1];
    uint64_t number;
    enum backup_kind kind; /* by its name */
    int partial;           /* not complete: it is being written, or who did died */
    uint64_t bytes;
    int64_t changed_ns; /* the file's time */
};
/* All of them, in the order of their numbers; *ret is to be freed. How many, or IO, PERMISSION, NOMEM. */
int backup_place_list(const char *dir, struct backup_entry **ret, struct azoth_error *err);
/* The identity of a place, which need not be locked: NOT_FOUND, CORRUPT, IO. */
int backup_place_identity(const char *dir, char uuid[BACKUP_ID_TEXT], struct azoth_error *err);

/* As backupfile_open(), but who has a key gets what is encrypted with it: WRONG_KEY, too, when it is not encrypted. What
 * decrypts is known to be of who has the key, and a file without encryption in its place must not be taken for that. */
int backup_open(const char *path, const struct backup_keys *keys, struct backupfile_in **ret,
                struct azoth_error *err);

/* One of a place, and what it says of itself. */
struct backup_known {
    struct backup_entry is;
    struct backup_about about;
    int known, encrypted, rc; /* about.json could be read; why not */
    struct azoth_error err;
};
/* Reads about.json of e->is, which the caller has filled. */
void backup_look(const char *dir, const struct backup_keys *keys, struct backup_known *e);
/* All of them, in the order of their numbers; to be freed by backup_known_free(). How
 * many, or IO, PERMISSION, NOMEM. */
int backup_known_list(const char *dir, const struct backup_keys *keys, struct backup_known **ret,
                      struct azoth_error *err);
void backup_known_free(struct backup_known *list, int n);
/* The position of what list[i] is restored upon: for an increment the newest full backup that it leads on from, else the
 * increment before it; -1: it stands alone, or that is not there. */
int backup_known_parent(const struct backup_known *list, int n, int i);

/* ---- making ---- */

struct backup_job {
    struct cmd_line *l;
    struct backup_flags f;
    const char *to;   /* "-", a path */
    const char *exec; /* backups go to this command, and j->place has only what it has had; NULL */
    struct service *service; /* whose watchdog is told while it goes on; NULL */
    int out_fd, left_fd;     /* of the command's standard input, while it runs: both ends */
    pid_t pid;               /* 0: it does not */
    uint64_t number;         /* of the backup that it gets */
    const char *keep;        /* the rule that the place is pruned by afterwards; NULL */
    uint64_t most;           /* bytes of content that an increment has at most; 0: any number */
    int cut;                 /* the increment that was made ends before the head */
    char sure
        [BACKUP_ID_TEXT]; /* id of an increment of which it is known that the log goes on behind it as it is */
    int plain, no_archive, no_projections, incremental;
    struct archived_entry *archive; /* of about.segment, as the copied commit has them; owned */
    struct cmd_number timeout;      /* of sealing, ms */
    char dir[4096], projections[4200];
    struct scratch tmp; /* of copies of projections, while they are made */
    struct backup_keys keys;
    struct backup_place place; /* fd -1: to is none */
    struct store *store;
    struct backup_about about;
    struct backupfile_out *out;
    char path[PATH_MAX]; /* of the file that is made; empty: a stream */
    struct progress progress;
    uint64_t expected; /* bytes of content, about */
    /* what came of it */
    uint64_t content, bytes, growth;
    uint64_t begun_ns;
    int paused;      /* commits came too fast: they were paused for a moment */
    int nothing_new; /* since the newest increment: none was written */
    uint64_t pruned;
    char why_full[200];       /* an increment was asked for, and why it is a full one */
    char increment[PATH_MAX]; /* beside a full one: that leads the increments on to it */
    char mark_note[200];      /* why the database's mark was not set or moved */
    unsigned char digest[BACKUPFILE_DIGEST];
};
/* Identity, place and time of what is made now, into j->about. */
int backup_set_about(struct backup_job *j, enum backup_kind kind, struct azoth_error *err);
/* 0, 1 when a signal came, or an error; nothing is left of it then. */
int backup_full(struct backup_job *j, struct azoth_error *err);
int backup_sealed(struct backup_job *j, struct azoth_error *err);
/* What is new since the newest backup of this place; a full one when that can not be (j->why_full). The mark is set before
 * a full one and moved when its file is durable. */
int backup_increment(struct backup_job *j, struct azoth_error *err);
/* A full one into a place. When the place has a mark: and the increment that leads on to it, so no moment is missing
 * between the increments before and after it. */
int backup_full_placed(struct backup_job *j, struct azoth_error *err);

/* Fills dir and projections of the job: 0, or the exit code of what was said. Backups are not made into the database's
 * own directory. */
int backup_dirs(struct backup_job *j);
/* Copies of all projections' files into j->about, and what is absent. 0, 1, or an error. */
int backup_copy_projections(struct backup_job *j, int with_digests, struct azoth_error *err);
/* Begins the output, with about.json. */
int backup_begin_output(struct backup_job *j, struct azoth_error *err);
/* What the copied commit says of segments, into j->about and j->archive; each is there, else NOT_FOUND, PERMISSION or CORRUPT
 * and its name. */
int backup_list_archive(struct backup_job *j, struct snapshot *sn, struct azoth_error *err);
/* Members: archive/NAME, in parts of BACKUPFILE_PART when it is larger; checked while it is read. Segments that are moved
 * meanwhile are found. */
int backup_add_archive(struct backup_job *j, struct azoth_error *err);
/* Members: the projections' copies; DIR/projections/NAME.sql; DIR/NAME when it is there. */
int backup_add_projections(struct backup_job *j, struct azoth_error *err);
int backup_add_definitions(struct backup_job *j, struct azoth_error *err);
int backup_add_file(struct backup_job *j, const char *name, struct azoth_error *err);
/* To j->exec: starts it, with what it may know in the environment; waits until it has ended, which must be with 0 and behind
 * the last byte, and notes durably that it has this backup. IO: it has not taken it, and how it ended. */
int backup_exec_begin(struct backup_job *j, const struct backupfile_options *o,
                      struct azoth_bytes about, struct azoth_error *err);
int backup_exec_end(struct backup_job *j, struct azoth_error *err);
/* In the middle of one that failed with rc: the command's process group gets SIGTERM, and 2 s later SIGKILL. Returns rc, or
 * IO when the command had ended before, which is why then. Nothing when none runs. */
int backup_exec_abort(struct backup_job *j, int rc, struct azoth_error *err);
#define BACKUP_EXEC_GRACE_NS (2 * NS_PER_S)
/* 1: it runs no more, and was not waited for yet. */
int backup_exec_ended(const struct backup_job *j);
/* What it had last: 1 and *ret with j->number, 0 nothing, or an error. */
int backup_exec_had(struct backup_job *j, struct backup_about *ret, struct azoth_error *err);
/* 1: the place is that of a command. */
int backup_exec_is(const char *dir);
/* Ends it, and fills what came of it. */
int backup_end_output(struct backup_job *j, struct azoth_error *err);
void backup_say(struct backup_job *j);

/* The error of reading on behind this member (empty: none was read) says which it was. Returns rc. */
int backup_name_member(int rc, const char *name, struct azoth_error *err);

/* ---- list and verify: exit codes ---- */

int backup_list(struct cmd_line *l, const struct backup_flags *f, const char *dir);
int backup_verify(struct cmd_line *l, const struct backup_flags *f, const char *path, int deep);

/* A run of it, and what came of it so far. */
struct backup_verifying {
    struct cmd_line *l;
    const struct backup_flags *f;
    struct backup_keys keys;
    struct json_text t; /* a list of files, or of --deep an object */
    struct progress progress;
    int exit_code, files;
};
/* Every member against the manifest, which is told; path: a file, "-", or a plain directory. *about (zeroed before, to be
 * freed in any case) is what it says of itself. 0, 1 when a signal came, or the error that was told. */
int backup_verify_file(struct backup_verifying *v, const char *path, struct backup_about *about,
                       struct azoth_error *err);
/* Tells an error with the name of the file at path, unless its message has one; the worst exit code stays. */
void backup_verify_failed(struct backup_verifying *v, const char *path,
                          const struct azoth_error *err);
/*
 * Restores, checks as a restore does, and removes again: of a directory of backups each full one with the increments that
 * follow it up to the next one, and each sealed one; of an increment all that it builds on; else that file alone.
 * Everything is told into v. 0, or an exit code of what kept it from being tried.
 */
int backup_deep(struct backup_verifying *v, const char *path);

/* Drops the mark of a place: of the directory, or of this UUID when dir is NULL. */
int backup_forget(struct cmd_line *l, const char *dir, const char *uuid);

/* Stays and makes them: an exit code. j is as for an increment; interval_ms between two at least. */
int backup_follow(struct backup_job *j, uint64_t interval_ms);
/* A control operation (writer/control.h) on the mark of j->place. */
int backup_control(const struct backup_job *j, const char *operation, const void *argument,
                   size_t len, struct azoth_error *err);

struct backup_pruned {
    uint64_t removed, bytes;
};
/* Removes what the rule does not keep, or only tells (dry_run), of a place that is locked by the caller: lines, or objects
 * into t when that is not NULL. USAGE: the rule. Why one of them can not be read: nothing is removed then. */
int backup_prune_locked(const char *dir, const struct backup_keys *keys, const char *rule,
                        int dry_run, struct json_text *t, int quiet, struct backup_pruned *ret,
                        struct azoth_error *err);
int backup_prune(struct cmd_line *l, const struct backup_flags *f, const char *dir,
                 const char *rule, int dry_run);

/* ---- restoring ---- */

struct restore;

/* What is wanted; as the caller wrote it, for messages. */
struct restore_target {
    struct advance_target to;
    const char *text;
};

struct restore_job {
    const struct backup_keys *keys;
    const char *from; /* a file, "-", a plain directory, or a directory of backups */
    const char *target;
    const char *archive; /* a directory with the segments of a backup without them; may be NULL */
    int same_uuid, no_projections, quiet;
    struct restore_target target_at;
    char base[PATH_MAX];       /* the file that was chosen */
    struct backup_known *step; /* increments behind the base, in their order; owned */
    size_t steps;
    struct backup_about about;
    struct progress progress;
    struct store_head head; /* of the restored store */
    uint64_t content;
    unsigned char digest[BACKUPFILE_DIGEST];
    uint8_t uuid[16];
};
/* Finds the base of what is to be restored: a file of its own, or the newest full (else sealed) one of a place.
 * BACKUP_MISSING, NOT_FOUND. */
int restore_choose(struct restore_job *j, struct azoth_error *err);
/* A place: base and steps for j->target_at. BACKUP_MISSING: something between them is not there. NOT_FOUND: the target is
 * before the oldest or behind the newest of them. And why a file that would be needed could not be read. */
int restore_plan(struct restore_job *j, struct azoth_error *err);
/* Of a place's backups, list, as backup_known_list() has them: base and steps of the full (or sealed) one list[base] and what
 * goes on from it up to the next full one, or to the newest of all; used[i] is set of those that are in it. NOMEM, USAGE. */
int restore_plan_stretch(struct restore_job *j, const struct backup_known *list, int n, int base,
                         char *used, struct azoth_error *err);
/* Likewise of what list[i] builds on, and it. BACKUP_MISSING: what it builds on is not there. */
int restore_plan_to(struct restore_job *j, const struct backup_known *list, int n, int i,
                    struct azoth_error *err);
/* Applies the steps to the loaded store, up to the target: j->about has then where it stands. 0, 1, or an error. */
int restore_steps(struct restore_job *j, struct restore *r, struct azoth_error *err);
void restore_plan_fini(struct restore_job *j);
/* "2026-11-27T15:00:00Z", "2026-11-27 15:00" (local), "@SECONDS": 1 and *ret, or 0. */
int restore_time(const char *text, int64_t *ret_ns);
/* Reads the base into r and checks all of it. What comes after a base is applied behind this. 0, 1, or an error. */
int restore_load(struct restore_job *j, struct restore *r, struct azoth_error *err);
/* What a backup without its archive wants is in j->archive. BACKUP_MISSING: names the first that is not there; CORRUPT. */
int restore_look_for_archive(const struct restore_job *j, struct azoth_error *err);
/* Behind the members: copies that, checked, and has the store look for its segments in its own archive/. */
int restore_archive(struct restore_job *j, struct restore *r, struct azoth_error *err);
/* A new file in its archive/, which is made when it is not there; path is its path, *ret the caller's descriptor. */
int restore_new_segment(struct restore *r, const char *name, char path[PATH_MAX], int *ret,
                        struct azoth_error *err);
/* All of each segment, against the backup and the store. CORRUPT. */
int restore_verify_archive(struct restore_job *j, struct store *s, struct azoth_error *err);
/* Of the store, its segments and the projections' files, as they are loaded. */
int restore_verify(struct restore_job *j, struct restore *r, struct azoth_error *err);

#endif
