/*
 * packages.c - a Debian machine's own history as events: reads dpkg's log, turns every line into
 * one transaction.
 *
 *   packages DIR [LOG ...]        default: /var/log/dpkg.log
 *
 * State: pkg/NAME:ARCH is "STATUS VERSION"; ver/NAME:ARCH the installed version, absent when there
 * is none. What the log says of before is a requirement, checked under the locks: an upgrade from
 * OLD needs OLD installed, an install nothing, and "installed VERSION" a state of that version
 * before it. A package that the log mentions for the first time has no history here: then nothing
 * is required.
 *
 * Up to 64 transactions are on their way; those of one package share its keys and keep their order.
 */
#include <azoth.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line {
    char when[32], action[32], package[200], old[120], new[120];
    char pkg_key[220], ver_key[220];
};

static long lines, committed, refused, failed;

static int value_is(const struct azoth_entry *e, const char *text)
{
    size_t n = strlen(text);
    return e->value.enc.len == n && memcmp(e->value.enc.ptr, text, n) == 0;
}

/* The installed version must be the one that the line says it was. */
static int was_version(struct azoth_txn *t, const char *key, const char *old)
{
    struct azoth_entry e;
    int rc = azoth_txn_get(t, azoth_str(key), &e);
    if (rc == AZOTH_ERR_NOT_FOUND)
        return 0; /* first mention, or nothing installed */
    if (rc)
        return rc;
    if (strcmp(old, "<none>") == 0)
        return azoth_reject(t, "%s: installed already", key);
    return value_is(&e, old)
               ? 0
               : azoth_reject(t, "%s: another version than %s was installed", key, old);
}

static int validate(struct azoth_txn *t, void *arg)
{
    const struct line *l = arg;
    struct azoth_entry e;
    if (strcmp(l->action, "install") == 0)
        return was_version(t, l->ver_key, "<none>");
    if (strcmp(l->action, "upgrade") == 0 || strcmp(l->action, "remove") == 0)
        return was_version(t, l->ver_key, l->old);
    if (strcmp(l->action, "status") != 0 || strcmp(l->old, "installed") != 0)
        return 0;
    int rc = azoth_txn_get(t, azoth_str(l->pkg_key), &e);
    if (rc)
        return rc == AZOTH_ERR_NOT_FOUND ? 0 : rc;
    size_t n = strlen(l->new);
    const char *text = e.value.enc.ptr;
    if (e.value.enc.len > n && memcmp(text + e.value.enc.len - n, l->new, n) == 0)
        return 0;
    return azoth_reject(t, "%s: %s follows %.*s", l->package, l->new, (int)e.value.enc.len, text);
}

static void done(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                 const struct azoth_error *err, void *arg)
{
    (void)info;
    if (code == 0) {
        committed++;
    } else if (code == AZOTH_ERR_REJECTED) {
        fprintf(stderr, "refused: %s\n", err->message);
        refused++;
    } else {
        fprintf(stderr, "%s: %s\n", azoth_code_name(code), err->message);
        failed++;
    }
    free(arg);
    azoth_txn_free(t);
}

/* "DATE TIME status STATUS PACKAGE VERSION" or "DATE TIME ACTION PACKAGE OLD NEW": 1, else 0. For a
 * status line, `old` is the status and `new` the version. */
static int parse(const char *text, struct line *l)
{
    char date[16], time[16];
    if (sscanf(text, "%15s %15s %31s", date, time, l->action) != 3)
        return 0;
    snprintf(l->when, sizeof l->when, "%sT%s", date, time);
    int n = strcmp(l->action, "status") == 0
                ? sscanf(text, "%*s %*s %*s %119s %199s %119s", l->old, l->package, l->new)
                : sscanf(text, "%*s %*s %*s %199s %119s %119s", l->package, l->old, l->new);
    /* "startup archives unpack", "conffile PATH ...": no package. */
    if (n != 3 || !strchr(l->package, ':') || strchr(l->package, '/'))
        return 0;
    snprintf(l->pkg_key, sizeof l->pkg_key, "pkg/%s", l->package);
    snprintf(l->ver_key, sizeof l->ver_key, "ver/%s", l->package);
    return 1;
}

static void fill(struct azoth_txn *t, struct line *l)
{
    char json[600], state[256];
    azoth_write(t, azoth_str(l->pkg_key));
    azoth_write(t, azoth_str(l->ver_key));
    azoth_validate(t, validate, l);
    if (strcmp(l->action, "status") == 0) {
        snprintf(state, sizeof state, "%s %s", l->old, l->new);
        azoth_set_string(t, azoth_str(l->pkg_key), azoth_str(state));
        if (strcmp(l->old, "installed") == 0)
            azoth_set_string(t, azoth_str(l->ver_key), azoth_str(l->new));
        else if (strcmp(l->old, "not-installed") == 0 || strcmp(l->old, "config-files") == 0)
            azoth_delete(t, azoth_str(l->ver_key));
        snprintf(json, sizeof json,
                 "{\"package\":\"%s\",\"status\":\"%s\",\"version\":\"%s\",\"time\":\"%s\"}",
                 l->package, l->old, l->new, l->when);
    } else {
        snprintf(json, sizeof json,
                 "{\"package\":\"%s\",\"old\":\"%s\",\"new\":\"%s\",\"time\":\"%s\"}", l->package,
                 l->old, l->new, l->when);
    }
    azoth_event_json(t, l->action, json);
}

static int read_log(struct azoth *db, const char *path)
{
    char text[4096];
    struct azoth_error err;
    FILE *f = fopen(path, "r");
    if (!f) {
        perror(path);
        return 1;
    }
    while (fgets(text, sizeof text, f)) {
        struct line *l = calloc(1, sizeof *l);
        if (!l || !parse(text, l)) {
            free(l);
            continue;
        }
        lines++;
        struct azoth_txn *t = azoth_txn_new(db);
        fill(t, l);
        azoth_txn_set_deadline(t, 60000);
        if (azoth_submit(t, done, l, &err)) {
            fprintf(stderr, "%s\n", err.message);
            fclose(f);
            return 1;
        }
        while (azoth_in_flight(db) >= 64)
            azoth_poll(db, 1000);
    }
    fclose(f);
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
    return 0;
}

int main(int argc, char **argv)
{
    struct azoth *db;
    struct azoth_error err;
    struct azoth_options o = {.flags = AZOTH_EMBEDDED | AZOTH_CREATE};
    if (argc < 2) {
        fprintf(stderr, "usage: packages DIR [LOG ...]\n");
        return 2;
    }
    if (azoth_open(argv[1], &o, &db, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int rc = argc == 2 ? read_log(db, "/var/log/dpkg.log") : 0;
    for (int i = 2; i < argc && !rc; i++)
        rc = read_log(db, argv[i]);
    azoth_close(db);
    printf("lines %ld committed %ld refused %ld\n", lines, committed, refused);
    return rc || failed;
}
