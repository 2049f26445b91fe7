/* backup.c - azoth backup: its line, and what was made. */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "writer/restore.h"
#include "writer/retention.h"

#include <errno.h>
#include <libgen.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define LOCK_NS    (NS_PER_S)
#define MOST_LEAST 65536u /* each increment costs a file, or a command, and a commit */

/* ---- keys ---- */

int backup_keys_read(const struct backup_flags *f, struct backup_keys *ret, struct azoth_error *err)
{
    int rc = 0;
    memset(ret, 0, sizeof *ret);
    if (f->key_file && f->passphrase_file)
        return error_set(err, AZOTH_ERR_USAGE, "--key-file or --passphrase-file, not both");
    if (f->key_file)
        rc = backup_key_read(f->key_file, &ret->key, err);
    else if (f->passphrase_file)
        rc = backup_key_passphrase(f->passphrase_file, -1, &ret->key, err);
    if (rc)
        return rc;
    ret->has_key = f->key_file || f->passphrase_file;
    if (f->sign_key)
        rc = sign_key_read(f->sign_key, &ret->sign, err);
    ret->has_sign = f->sign_key && !rc;
    if (!rc && f->sign_key && !ret->sign.has_secret)
        rc = error_set(err, AZOTH_ERR_USAGE, "%s: a public key signs nothing", f->sign_key);
    if (!rc && f->signed_by)
        rc = sign_key_read(f->signed_by, &ret->public_key, err);
    ret->has_public = f->signed_by && !rc;
    if (rc)
        backup_keys_fini(ret);
    return rc;
}

void backup_keys_fini(struct backup_keys *k)
{
    if (k->has_key)
        backup_key_fini(&k->key);
    if (k->has_sign)
        sign_key_fini(&k->sign);
    if (k->has_public)
        sign_key_fini(&k->public_key);
    memset(k, 0, sizeof *k);
}

/* ---- what was made ---- */

static void tell_json(const struct backup_job *j, struct json_text *t)
{
    char digest[2 * BACKUPFILE_DIGEST + 1];
    const struct backup_about *a = &j->about;
    bytes_hex(digest, j->digest, sizeof j->digest);
    out_open(t, NULL, '{');
    out_bool(t, "ok", 1);
    out_str(t, "kind", backup_kind_name(a->kind));
    out_str(t, "file", *j->path ? j->path : NULL);
    out_str(t, "id", *a->id ? a->id : NULL);
    out_str(t, "database", a->database);
    out_str(t, "parent", *a->parent ? a->parent : NULL);
    out_u64(t, "from_transaction", a->from.txn);
    out_u64(t, "from_event", a->from.event);
    out_u64(t, "transaction", a->to.txn);
    out_u64(t, "event", a->to.event);
    if (j->incremental) {
        out_bool(t, "nothing_new", j->nothing_new);
        out_str(t, "why_full", *j->why_full ? j->why_full : NULL);
    }
    if (j->keep)
        out_u64(t, "removed", j->pruned);
    out_str(t, "increment", *j->increment ? j->increment : NULL);
    out_str(t, "mark_note", *j->mark_note ? j->mark_note : NULL);
    out_u64(t, "content_bytes", j->content);
    out_u64(t, "file_bytes", j->bytes);
    out_u64(t, "growth_bytes", j->growth);
    out_bool(t, "paused", j->paused);
    out_real(t, "seconds", (double)(clock_mono_ns() - j->begun_ns) / 1e9);
    out_str(t, "digest", digest);
    out_open(t, "projections", '[');
    for (size_t i = 0; i < a->projections; i++) {
        out_open(t, NULL, '{');
        out_str(t, "file", a->projection[i].file);
        out_u64(t, "cursor", a->projection[i].is.cursor);
        out_close(t, '}');
    }
    out_close(t, ']');
    out_u64(t, "segments", a->segments);
    out_bool(t, "without_archive", a->without_archive);
    backup_about_absent_json(a, t);
    out_close(t, '}');
}

static void tell(const struct backup_job *j, FILE *to)
{
    const struct backup_about *a = &j->about;
    char content[CMD_TIME_TEXT], bytes[CMD_TIME_TEXT], time[CMD_TIME_TEXT], growth[CMD_TIME_TEXT];
    char digest[2 * BACKUPFILE_DIGEST + 1];
    bytes_hex(digest, j->digest, sizeof j->digest);
    if (j->nothing_new) {
        fprintf(to, "nothing is new since transaction %llu (event %llu): nothing was written\n",
                (unsigned long long)a->to.txn, (unsigned long long)a->to.event);
        return;
    }
    fprintf(to, "%s backup%s%s: events %llu to %llu, transactions %llu to %llu\n",
            backup_kind_word(a->kind), *j->path ? " " : "", j->path,
            (unsigned long long)a->from.event + 1, (unsigned long long)a->to.event,
            (unsigned long long)a->from.txn + 1, (unsigned long long)a->to.txn);
    if (*j->increment)
        fprintf(to, "  incremental backup %s leads on to it\n", j->increment);
    for (size_t i = 0; i < a->projections; i++)
        fprintf(to, "  projection %s at event %llu\n", a->projection[i].file,
                (unsigned long long)a->projection[i].is.cursor);
    if (a->segments)
        fprintf(to,
                a->without_archive ? "  not in it: %zu segments, events 1 to %llu\n"
                                   : "  %zu segments, events 1 to %llu\n",
                a->segments, (unsigned long long)a->segment[a->segments - 1].last);
    for (size_t i = 0; i < a->absences; i++)
        fprintf(to, "  not in it: %s: %s\n", a->absent[i].name, a->absent[i].why);
    fprintf(to, "  %s of content", cmd_size(j->content, content));
    if (j->bytes && !j->plain)
        fprintf(to, ", %s of file", cmd_size(j->bytes, bytes));
    fprintf(to, ", in %s\n", cmd_duration(clock_mono_ns() - j->begun_ns, time));
    if (j->growth)
        fprintf(to, "  data.mdb grew by %s meanwhile, since its pages of that moment were kept\n",
                cmd_size(j->growth, growth));
    if (j->paused)
        fprintf(to,
                "  commits came too fast to begin between two: they were paused for a moment\n");
    if (j->keep)
        fprintf(to, "  %llu older ones removed\n", (unsigned long long)j->pruned);
    fprintf(to, "  digest %s\n", digest);
}

/* Beside a stream on standard output there is standard error. */
static int tell_done(const struct backup_job *j)
{
    int stream = strcmp(j->to, "-") == 0 && !j->plain;
    if (!j->f.quiet && *j->why_full)
        fprintf(stderr, "azoth: a full backup: %s\n", j->why_full);
    if (!j->f.quiet && *j->mark_note)
        fprintf(stderr, "azoth: %s\n", j->mark_note);
    if (!j->l->json) {
        if (!j->f.quiet)
            tell(j, stream ? stderr : stdout);
        return 0;
    }
    struct json_text t = {0};
    tell_json(j, &t);
    if (!stream)
        return out_print(&t);
    if (!t.failed)
        fprintf(stderr, "%.*s\n", (int)t.b.len, (const char *)t.b.ptr);
    buf_fini(&t.b);
    return 0;
}

/* ---- making ---- */

int backup_set_about(struct backup_job *j, enum backup_kind kind, struct azoth_error *err)
{
    const struct store_identity *id = store_identity(j->store);
    uint8_t random[16];
    j->about.kind = kind;
    bytes_hex(j->about.database, id->uuid, sizeof id->uuid);
    j->about.store_created_ns = id->created_ns;
    if (kind == BACKUP_SEALED)
        return 0;
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return error_errno(err, errno, "random bytes");
    bytes_hex(j->about.id, random, sizeof random);
    if (j->place.fd >= 0)
        snprintf(j->about.place, sizeof j->about.place, "%s", j->place.uuid);
    j->about.created_ns = clock_wall_ns();
    snprintf(j->about.program, sizeof j->about.program, "azoth %s", AZOTH_VERSION);
    return 0;
}

static int make_kind(struct backup_job *j, struct azoth_error *err)
{
    if (j->about.kind == BACKUP_SEALED)
        return backup_sealed(j, err);
    if (j->incremental)
        return backup_increment(j, err);
    return j->place.fd >= 0 ? backup_full_placed(j, err) : backup_full(j, err);
}

/* The backup is there; what fails now is told of as such. */
static int prune_after(struct backup_job *j, struct azoth_error *err)
{
    struct backup_pruned done;
    char why[sizeof err->message];
    int rc = backup_prune_locked(j->place.dir, &j->keys, j->keep, 0, NULL, 1, &done, err);
    j->pruned = done.removed;
    if (rc) {
        snprintf(why, sizeof why, "%s", err->message);
        snprintf(err->message, sizeof err->message, "the backup is made, but %.220s", why);
    }
    return rc;
}

/* One that follows has the place for a moment at a time: that is waited for. */
static int lock_place(struct backup_job *j, struct azoth_error *err)
{
    uint64_t until = clock_mono_ns() + LOCK_NS;
    int rc;
    while ((rc = backup_place_lock(j->to, &j->place, err)) == AZOTH_ERR_BUSY &&
           clock_mono_ns() < until && !cmd_interrupted())
        cmd_sleep_ms(20);
    return rc;
}

static int make(struct backup_job *j, struct azoth_error *err)
{
    int rc = backup_keys_read(&j->f, &j->keys, err);
    if (!rc)
        rc = store_open(j->dir, 0, &j->store, err);
    if (!rc && !j->plain && strcmp(j->to, "-") != 0)
        rc = lock_place(j, err);
    if (!rc && j->place.fd >= 0 && backup_exec_is(j->place.dir))
        rc = error_set(
            err, AZOTH_ERR_USAGE,
            "%s: it has what a command has had of backups (--exec), and is for that alone", j->to);
    if (!rc)
        rc = backup_set_about(j, j->about.kind, err);
    progress_begin(&j->progress, "backup", j->f.quiet, 0);
    if (!rc)
        rc = make_kind(j, err);
    progress_end(&j->progress);
    return rc || !j->keep ? rc : prune_after(j, err);
}

static void fini(struct backup_job *j)
{
    backupfile_abort(j->out);
    backup_about_fini(&j->about);
    free(j->archive);
    store_close(j->store);
    backup_place_unlock(&j->place);
    backup_keys_fini(&j->keys);
}

/* Of the path, or of where it would be made. */
static int is_inside(const char *to, const char *dir)
{
    char path[PATH_MAX], above[PATH_MAX], database[PATH_MAX];
    if (!realpath(dir, database))
        return 0;
    snprintf(above, sizeof above, "%s", to);
    if (!realpath(to, path) && !realpath(dirname(above), path))
        return 0; /* nothing can be made there either */
    size_t n = strlen(database);
    return strncmp(path, database, n) == 0 && (path[n] == '/' || path[n] == 0);
}

int backup_dirs(struct backup_job *j)
{
    int rc = cmd_dir(j->l, NULL, 1, j->dir, sizeof j->dir);
    if (rc)
        return rc;
    if (dbdir_path(j->projections, sizeof j->projections, j->dir, "projections"))
        return cmd_usage(j->l, "%s: the path is too long", j->dir);
    if ((j->plain || strcmp(j->to, "-") != 0) && is_inside(j->to, j->dir))
        return cmd_usage(j->l, "%s is in the database's own directory, and would be lost with it",
                         j->to);
    return 0;
}

static int (*interrupted)(void) = cmd_interrupted;

int backup_interrupted(void)
{
    return interrupted();
}

void backup_interrupted_by(int (*by)(void))
{
    interrupted = by;
    backupfile_give_up_when(by);
}

void backup_catch_signals(void)
{
    cmd_catch_signals();
    backup_interrupted_by(cmd_interrupted);
}

static int run_make(struct backup_job *j)
{
    struct azoth_error err = {0};
    struct retention_rule rule;
    if (strcmp(j->to, "-") == 0 && !j->plain && isatty(STDOUT_FILENO))
        return cmd_usage(j->l, "a backup is not for a terminal: redirect it, or name a directory");
    if (j->plain && (j->f.key_file || j->f.passphrase_file))
        return cmd_usage(j->l, "--plain is not encrypted");
    if (j->plain && j->f.level.given)
        return cmd_usage(j->l, "--plain is not compressed");
    if (j->incremental && (strcmp(j->to, "-") == 0 || j->plain || j->about.kind == BACKUP_SEALED))
        return cmd_usage(j->l, "--incremental is for a directory of backups");
    if (j->keep && (strcmp(j->to, "-") == 0 || j->plain))
        return cmd_usage(j->l, "--keep is for a directory of backups");
    if (j->keep && retention_parse(j->keep, &rule, &err))
        return cmd_fail(&err);
    if (j->f.level.given && j->f.level.n > 19)
        return cmd_usage(j->l, "--level is 0 to 19");
    int rc = backup_dirs(j);
    if (rc)
        return rc;
    backup_catch_signals();
    signal(SIGPIPE, SIG_IGN); /* a reader that ends is an error of the write */
    j->begun_ns = clock_mono_ns();
    rc = make(j, &err);
    if (rc && cmd_interrupted())
        rc = 128 + cmd_interrupted(); /* as shells tell it */
    else
        rc = rc ? cmd_fail(&err) : tell_done(j);
    fini(j);
    return rc;
}

/* What else can be done with backups: azoth backup WORD DEST. */
struct backup_words {
    const struct backup_flags *f;
    const char *place, *keep;
    int deep, dry_run;
};

static int word_list(struct cmd_line *l, const struct backup_words *w, const char *dest)
{
    return backup_list(l, w->f, dest);
}

static int word_verify(struct cmd_line *l, const struct backup_words *w, const char *dest)
{
    return backup_verify(l, w->f, dest, w->deep);
}

static int word_forget(struct cmd_line *l, const struct backup_words *w, const char *dest)
{
    return backup_forget(l, dest, w->place);
}

static int word_prune(struct cmd_line *l, const struct backup_words *w, const char *dest)
{
    return backup_prune(l, w->f, dest, w->keep, w->dry_run);
}

/* What azoth backup is called for, as bits: which flags go with it. */
enum backup_form {
    FORM_MAKE = 1,
    FORM_FOLLOW = 2,
    FORM_LIST = 4,
    FORM_VERIFY = 8,
    FORM_FORGET = 16,
    FORM_PRUNE = 32
};
#define FORM_WRITES (FORM_MAKE | FORM_FOLLOW)
#define FORM_READS  (FORM_WRITES | FORM_LIST | FORM_VERIFY | FORM_PRUNE)

static const struct backup_word {
    const char *name;
    int (*run)(struct cmd_line *l, const struct backup_words *w, const char *dest);
    int alone; /* goes without DEST, too */
    enum backup_form form;
} backup_words[] = {
    {"list", word_list, 0, FORM_LIST},
    {"verify", word_verify, 0, FORM_VERIFY},
    {"forget", word_forget, 1, FORM_FORGET},
    {"prune", word_prune, 0, FORM_PRUNE},
    {NULL, NULL, 0, FORM_MAKE},
};

/* Flags that do not go with everything. --follow itself says which form it is. */
static const struct flag_forms {
    const char *flag;
    int forms;
} flag_forms[] = {
    {"--key-file", FORM_READS},
    {"--passphrase-file", FORM_READS},
    {"--level", FORM_WRITES},
    {"--tmp", FORM_WRITES | FORM_VERIFY},
    {"--sign-key", FORM_WRITES},
    {"--signed-by", FORM_VERIFY},
    {"--plain", FORM_MAKE},
    {"--compact", FORM_WRITES},
    {"--sealed", FORM_MAKE},
    {"--timeout", FORM_MAKE},
    {"--without-projections", FORM_WRITES},
    {"--without-archive", FORM_WRITES},
    {"--archive", FORM_VERIFY},
    {"--incremental", FORM_WRITES},
    {"--deep", FORM_VERIFY},
    {"--place", FORM_FORGET},
    {"--keep", FORM_WRITES | FORM_PRUNE},
    {"--follow", FORM_FOLLOW},
    {"--interval",
     FORM_WRITES}, /* of a single backup they are refused by a sentence of their own */
    {"--exec", FORM_WRITES},
    {"--max-bytes", FORM_WRITES},
    {"--dry-run", FORM_PRUNE},
    {NULL, 0},
};

/* A flag that would do nothing is refused: who says --dry-run or --signed-by relies on it. 0 or an exit code, told. */
static int check_flags(const struct cmd_line *l, const struct cmd_flag *flags, int form,
                       const char *name)
{
    for (; flags->name; flags++)
        for (const struct flag_forms *f = flag_forms; f->flag; f++)
            if (strcmp(f->flag, flags->name) == 0 && !(f->forms & form) && cmd_flag_given(flags))
                return cmd_usage(l, "%s is not for azoth backup %s", flags->name, name);
    return 0;
}

/* One of backup_words, with DEST or without. */
static int run_word(struct cmd_line *l, const struct backup_words *w, const struct backup_word *k,
                    const struct cmd_flag *flags)
{
    if (l->words < 2 && !k->alone)
        return cmd_usage(l, "%s what? (a directory of that name is ./%s)", k->name, k->name);
    int rc = check_flags(l, flags, (int)k->form, k->name);
    return rc ? rc : k->run(l, w, l->words == 2 ? l->word[1] : NULL);
}

static int run_backup(struct cmd_line *l)
{
    static struct backup_job j;
    struct backup_words w = {0};
    struct cmd_number interval = {.n = 1000}, most = {0};
    int sealed = 0, follow = 0, compact = 0; /* the copy is that in any case */
    j.l = l;
    j.place.fd = -1;
    j.timeout.n = 60000;
    const struct cmd_flag flags[] = {BACKUP_KEY_FLAGS(&j.f),
                                     {"--level", FLAG_NUMBER, &j.f.level},
                                     {"--tmp", FLAG_TEXT, &j.f.tmp},
                                     {"--sign-key", FLAG_TEXT, &j.f.sign_key},
                                     {"--signed-by", FLAG_TEXT, &j.f.signed_by},
                                     {"--compact", FLAG_SWITCH, &compact},
                                     {"--plain", FLAG_SWITCH, &j.plain},
                                     {"--sealed", FLAG_SWITCH, &sealed},
                                     {"--timeout", FLAG_SECONDS, &j.timeout},
                                     {"--without-projections", FLAG_SWITCH, &j.no_projections},
                                     {"--without-archive", FLAG_SWITCH, &j.no_archive},
                                     {"--archive", FLAG_TEXT, &j.f.archive},
                                     {"--incremental", FLAG_SWITCH, &j.incremental},
                                     {"--deep", FLAG_SWITCH, &w.deep},
                                     {"--place", FLAG_TEXT, &w.place},
                                     {"--keep", FLAG_TEXT, &w.keep},
                                     {"--follow", FLAG_SWITCH, &follow},
                                     {"--interval", FLAG_SECONDS, &interval},
                                     {"--exec", FLAG_TEXT, &j.exec},
                                     {"--max-bytes", FLAG_SIZE, &most},
                                     {"--dry-run", FLAG_SWITCH, &w.dry_run},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 1, 2);
    if (rc)
        return rc;
    w.f = &j.f;
    for (const struct backup_word *k = backup_words; k->name; k++)
        if (strcmp(l->word[0], k->name) == 0)
            return run_word(l, &w, k, flags);
    if (l->words != 1)
        return cmd_usage(l, "what is %s for?", l->word[1]);
    rc = follow ? check_flags(l, flags, FORM_FOLLOW, "--follow")
                : check_flags(l, flags, FORM_MAKE, j.plain ? "--plain" : "DEST");
    if (rc)
        return rc;
    if (sealed && j.no_archive)
        return cmd_usage(l, "--sealed has every event, archived or not");
    j.to = l->word[0];
    j.keep = w.keep;
    j.about.kind = sealed ? BACKUP_SEALED : BACKUP_FULL;
    if (!follow)
        return j.exec || interval.given || most.given
                   ? cmd_usage(l, "--exec, --interval and --max-bytes are for --follow")
                   : run_make(&j);
    if (most.given && most.n < MOST_LEAST)
        return cmd_usage(l, "--max-bytes is at least 64K");
    j.most = most.n;
    if (strcmp(j.to, "-") == 0 || interval.n > 3600000)
        return cmd_usage(l, "--follow DEST: a directory; --interval is at most 1h");
    j.incremental = 1;
    return backup_follow(&j, interval.n);
}

const struct cmd cmd_backup = {
    .name = "backup",
    .synopsis = "DEST | - | --plain DIR | list DEST | verify FILE|DEST | prune DEST --keep RULE | "
                "forget DEST|--place UUID  "
                "[--incremental | --follow | --sealed] [--key-file F | "
                "--passphrase-file F] [--json]",
    .summary = "Back the database up while it runs; list and verify backups",
    .help =
        "  DEST               a directory of backups, made when it is not there\n"
        "  -                  one stream to standard output\n"
        "  --compact          pages without free ones between: done in any case, so it changes "
        "nothing\n"
        "  --plain DIR        a directory with its members as files, not compressed\n"
        "  --incremental      what is new since the newest backup in DEST; the first one is full\n"
        "  --follow           stays, and makes one whenever commits have come\n"
        "  --interval TIME    of that: between two at least; default 1 s\n"
        "  --max-bytes SIZE   of that: no more content in one of them, such as 64M, or one "
        "transaction\n"
        "  --exec COMMAND     of that: each goes to the standard input of this command, for sh\n"
        "  --sealed           content by its meaning: the same content is the same file. Writes "
        "are "
        "paused\n"
        "  --timeout TIME     of that: how long projections are waited for; default 60 s\n"
        "  --without-projections  they are made anew from the log after a restore\n"
        "  --without-archive  the segments of azoth archive are not in it: a restore wants "
        "--archive\n"
        "  --archive DIR      verify --deep: where these are\n"
        "  --level N          of zstd, 0 (none) to 19; default 3\n"
        "  --key-file F       encrypted with the key of azoth key make F\n"
        "  --passphrase-file F  encrypted with the passphrase in its first line\n"
        "  --sign-key F       signed with the secret key of a pair (azoth-key(1))\n"
        "  --signed-by F.pub  verify: who must have signed it\n"
        "  --deep             verify: restores each full one with the incremental ones behind "
        "it, and\n"
        "                     checks that\n"
        "  --tmp DIR          for copies of projections; default DEST, else, and with a key, "
        "TMPDIR or\n"
        "                     /var/tmp. Of --deep: for what is restored; default TMPDIR or "
        "/var/tmp\n"
        "  --keep RULE        afterwards, or prune: which stay, as \"7 daily, 4 weekly, 12 "
        "monthly\", "
        "with all\n"
        "                     that they build on; also last, hourly, yearly\n"
        "  --dry-run          prune: only says which would be removed\n"
        "  --place UUID       forget: of a directory that is gone\n"
        "  --quiet            nothing but errors\n\n"
        "A backup is of one commit: writes go on meanwhile. It is there when it is whole: a name "
        "that "
        "ends in\n"
        ".partial is none. azoth restore makes a database of it.\n\n"
        "  azoth backup /var/backups/azoth/main\n"
        "  azoth backup --key-file backup.key - | ssh host 'cat > main.azb'\n"
        "  azoth backup --incremental /var/backups/azoth/main\n"
        "  azoth backup prune /var/backups/azoth/main --keep '7 daily, 4 weekly'\n"
        "  azoth backup list /var/backups/azoth/main\n"
        "  azoth backup verify /var/backups/azoth/main\n",
    .run = run_backup,
};
