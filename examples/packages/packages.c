/*
 * packages.c - a Debian machine's own history as events: reads dpkg's log, turns every line into
 * one transaction.
 *
 *   packages DIR [LOG ...]        default: /var/log/dpkg.log; rotated ones oldest first
 *
 * State: pkg/NAME:ARCH is "STATUS VERSION"; ver/NAME:ARCH the installed version, absent when there
 * is none. What a line says of before is required of ver/: "upgrade OLD NEW" and "remove OLD" that
 * it equals OLD, "install" that it is absent. "installed VERSION" is validated by a callback: the
 * status before it was of that version.
 *
 * A package's history may begin before the log. So nothing is required of its first mention, nor
 * until a status line has told whether it is installed; and nothing again while it is between two
 * such lines (a step that failed half-way leaves it there). "purge" tells the version of
 * the configuration that was left, "configure" and "trigproc" that of the step they begin: nothing
 * is required of them.
 *
 * Up to 64 transactions are on their way; those of one package share its keys and keep their order.
 */
#define _GNU_SOURCE /* tdestroy */
#include <azoth.h>

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line {
    char when[32], action[32], package[200], old[120], new[120];
    char pkg_key[220], ver_key[220];
};

static long lines, committed, refused, failed;

/* Packages of which the newest status line told whether they are installed. */
static void *settled;

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int is_settled(const char *package)
{
    return tfind(package, &settled, by_name) != NULL;
}

/* Follows a status line. 0, or -1 when memory is out. */
static int follow_status(const char *package, const char *status)
{
    void *node = tfind(package, &settled, by_name);
    if (strcmp(status, "installed") == 0 || strcmp(status, "not-installed") == 0 ||
        strcmp(status, "config-files") == 0) {
        char *copy = node ? NULL : strdup(package);
        if (node)
            return 0;
        if (copy && tsearch(copy, &settled, by_name))
            return 0;
        free(copy);
        return -1;
    }
    /* Those of triggers leave a package installed. Any other is a step on the way. */
    if (node && strncmp(status, "triggers-", 9) != 0) {
        char *name = *(char **)node;
        tdelete(package, &settled, by_name);
        free(name);
    }
    return 0;
}

/* What an earlier run has read counts as told. */
static int remember(struct azoth *db, struct azoth_error *err)
{
    struct azoth_scan *s;
    struct azoth_bytes key;
    struct azoth_entry e;
    int rc = azoth_scan(db, AZOTH_STR("pkg/"), AZOTH_STR(""), AZOTH_STR(""), &s, err);
    if (rc)
        return rc;
    while ((rc = azoth_scan_next(s, &key, &e, err)) == 1) {
        char name[200], status[32] = "", text[256];
        snprintf(name, sizeof name, "%.*s", (int)key.len - 4, (const char *)key.ptr + 4);
        snprintf(text, sizeof text, "%.*s", (int)e.value.enc.len, (const char *)e.value.enc.ptr);
        sscanf(text, "%31s", status);
        if (follow_status(name, status)) {
            snprintf(err->message, sizeof err->message, "out of memory");
            rc = AZOTH_ERR_NOMEM;
            break;
        }
    }
    azoth_scan_free(s);
    return rc;
}

/* "installed VERSION": the status before was of the same version. */
static int same_version(struct azoth_txn *t, void *arg)
{
    const struct line *l = arg;
    struct azoth_entry e;
    int rc = azoth_txn_get(t, azoth_str(l->pkg_key), &e);
    if (rc)
        return rc == AZOTH_ERR_NOT_FOUND ? 0 : rc; /* the first mention */
    const char *text = e.value.enc.ptr, *space = memchr(text, ' ', e.value.enc.len);
    size_t n = strlen(l->new);
    if (space && (size_t)(text + e.value.enc.len - space - 1) == n &&
        memcmp(space + 1, l->new, n) == 0)
        return 0;
    return azoth_reject(t, "%s: installed %s follows %.*s", l->package, l->new,
                        (int)e.value.enc.len, text);
}

static void done(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                 const struct azoth_error *err, void *arg)
{
    (void)info;
    if (code == 0) {
        committed++;
    } else if (code == AZOTH_ERR_PREFLIGHT_FAILED || code == AZOTH_ERR_REJECTED) {
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
    /* Both keys on every line: lines of one package then keep their order. */
    azoth_write(t, azoth_str(l->pkg_key));
    azoth_write(t, azoth_str(l->ver_key));
    if (is_settled(l->package)) {
        struct azoth_value old = {AZOTH_TYPE_STRING, azoth_str(l->old)};
        if (strcmp(l->action, "install") == 0)
            azoth_require_absent(t, azoth_str(l->ver_key));
        else if (strcmp(l->action, "upgrade") == 0 || strcmp(l->action, "remove") == 0)
            azoth_require_equals(t, azoth_str(l->ver_key), old);
    }
    if (strcmp(l->action, "status") == 0) {
        snprintf(state, sizeof state, "%s %s", l->old, l->new);
        azoth_set_string(t, azoth_str(l->pkg_key), azoth_str(state));
        if (strcmp(l->old, "installed") == 0) {
            azoth_validate(t, same_version, l);
            azoth_set_string(t, azoth_str(l->ver_key), azoth_str(l->new));
        } else if (strcmp(l->old, "not-installed") == 0 || strcmp(l->old, "config-files") == 0) {
            azoth_delete(t, azoth_str(l->ver_key));
        }
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

/* 0, or 1 after saying why not. */
static int send_line(struct azoth *db, const struct line *from)
{
    struct azoth_error err = {.message = "out of memory"};
    struct azoth_txn *t = azoth_txn_new(db);
    struct line *l = malloc(sizeof *l);
    if (!t || !l)
        goto fail;
    *l = *from;
    fill(t, l);
    azoth_txn_set_deadline(t, 60000);
    if (azoth_submit(t, done, l, &err))
        goto fail;
    lines++;
    if (strcmp(from->action, "status") == 0 && follow_status(from->package, from->old)) {
        fprintf(stderr, "out of memory\n"); /* the transaction is on its way: done() frees it */
        return 1;
    }
    while (azoth_in_flight(db) >= 64)
        azoth_poll(db, 1000);
    return 0;
fail:
    fprintf(stderr, "%s\n", err.message);
    free(l);
    if (t)
        azoth_txn_free(t);
    return 1;
}

static int read_log(struct azoth *db, const char *path)
{
    char text[4096];
    struct line l;
    int rc = 0;
    FILE *f = fopen(path, "r");
    if (!f) {
        perror(path);
        return 1;
    }
    while (!rc && fgets(text, sizeof text, f))
        if (parse(text, &l))
            rc = send_line(db, &l);
    if (ferror(f)) {
        perror(path);
        rc = 1;
    }
    fclose(f);
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
    return rc;
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
    int rc = remember(db, &err);
    if (rc)
        fprintf(stderr, "%s\n", err.message);
    else if (argc == 2)
        rc = read_log(db, "/var/log/dpkg.log");
    for (int i = 2; i < argc && !rc; i++)
        rc = read_log(db, argv[i]);
    azoth_close(db);
    tdestroy(settled, free);
    printf("lines %ld committed %ld refused %ld\n", lines, committed, refused);
    return rc || failed;
}
