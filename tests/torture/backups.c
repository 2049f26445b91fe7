#include "tests/torture/backups.h"

#include "core/clock.h"
#include "tests/system/bank.h"
#include "writer/restore.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHARE 8u /* a check may take one part of so many of the run */

/* ---- the place ---- */

/* B1. What the one that is under way, or died last, has beside its file: a partial one, and copies of projections. */
static void place_is_tidy(const struct world *w, struct audit *a, int final)
{
    DIR *d = opendir(w->place);
    int partial = 0, copies = 0, identities = 0;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name);
        if (e->d_name[0] == '.' || strcmp(e->d_name, "place") == 0)
            continue;
        if (n > 8 && strcmp(e->d_name + n - 8, ".partial") == 0)
            partial++;
        else if (strncmp(e->d_name, "azoth-backup-", 13) == 0)
            copies++;
        else if (strncmp(e->d_name, "place.", 6) == 0)
            identities++;
        else if (n < 4 || strcmp(e->d_name + n - 4, ".azb") != 0)
            audit_violation(a, "B1 the place of backups has %s", e->d_name);
    }
    if (d)
        closedir(d);
    int most = final ? 0 : 1;
    if (partial > most || copies > most || (identities && w->backups))
        audit_violation(a, "B1 dead backups have left %d partial files and %d directories", partial,
                        copies);
}

/* What `azoth backup list` calls complete, the oldest first; its JSON, or NULL when it was told. */
static json_t *listed(struct world *w, struct audit *a)
{
    static char out[1 << 18];
    char program[256];
    harness_program(&w->h, "azoth", program);
    char *const argv[] = {program, "backup", "list", "--json", w->place, NULL};
    int rc = harness_run(out, sizeof out, argv);
    json_t *list = rc ? NULL : json_loads(out, 0, NULL);
    if (!json_is_array(list))
        audit_violation(a, "B1 the backups are not listed: %d %.200s", rc, out);
    for (size_t i = 0; i < json_array_size(list);) {
        const json_t *e = json_array_get(list, i);
        if (json_is_true(json_object_get(e, "complete"))) {
            if (!json_is_null(json_object_get(e, "error")))
                audit_violation(a, "B2 %s is not readable: %s",
                                json_string_value(json_object_get(e, "file")),
                                json_string_value(json_object_get(e, "message")));
            i++;
        } else {
            json_array_remove(list, i);
        }
    }
    return list;
}

static int is_full(const json_t *e)
{
    return strcmp(json_string_value(json_object_get(e, "kind")), "full") == 0;
}

static unsigned fulls(const json_t *list)
{
    unsigned n = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        n += is_full(json_array_get(list, i)) != 0;
    return n;
}

/* Those before the newest that stands alone are needed by none. */
static void drop_older(struct backups *b, const struct world *w, const json_t *list)
{
    b->here = (unsigned)json_array_size(list);
    size_t keep = json_array_size(list);
    while (keep-- > 0)
        if (is_full(json_array_get(list, keep)))
            break;
    for (size_t i = 0; i < keep && keep < json_array_size(list); i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", w->place,
                 json_string_value(json_object_get(json_array_get(list, i), "file")));
        if (unlink(path) == 0) {
            b->dropped++;
            b->dropped_full += is_full(json_array_get(list, i)) != 0;
            b->here--;
        }
    }
}

/* ---- what the log says of a moment ---- */

struct moment {
    struct audit *a;
    uint64_t head, cursor; /* of the restored database, and of its projection accounts */
    int64_t balance[OP_ACCOUNTS], at_cursor[OP_ACCOUNTS];
    int64_t *value; /* of registers, as a->registers; 0: nothing was written */
    unsigned accounts;
};

static int same_event(const struct azoth_event *x, const struct azoth_event *y)
{
    const struct azoth_bytes p[] = {x->type, x->payload, x->stream, x->metadata};
    const struct azoth_bytes q[] = {y->type, y->payload, y->stream, y->metadata};
    int same = x->id == y->id && x->txn == y->txn && x->time_ns == y->time_ns;
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        same &= p[i].len == q[i].len && (!p[i].len || memcmp(p[i].ptr, q[i].ptr, p[i].len) == 0);
    return same;
}

static void replay(struct moment *m, const struct azoth_event *ev)
{
    audit_replay(m->balance, ev);
    if (ev->id == m->cursor)
        memcpy(m->at_cursor, m->balance, sizeof m->balance);
    m->accounts += audit_is_type(ev, "opened") != 0;
    if (!audit_is_type(ev, "wrote"))
        return;
    uint64_t at = (uint64_t)(bank_member(ev->payload, "key") - m->a->registers_from);
    if (at < m->a->registers_len)
        m->value[at] = bank_member(ev->payload, "value");
}

/* B3, and the replay for B4 and B5. Both logs are read side by side. */
static void same_log(struct backups *b, struct moment *m, struct azoth *live, struct azoth *copy)
{
    struct azoth_events *of_live = NULL, *of_copy = NULL;
    struct azoth_event x = {0}, y = {0};
    struct azoth_error err = {0};
    uint64_t n = 0;
    int rc = azoth_events(live, 1, m->head + 1, NULL, &of_live, &err);
    if (!rc)
        rc = azoth_events(copy, 1, 0, NULL, &of_copy, &err);
    while (!rc && (rc = azoth_events_next(of_copy, &x, &err)) == 1) {
        rc = azoth_events_next(of_live, &y, &err);
        if (rc != 1 || !same_event(&x, &y)) {
            audit_violation(m->a, "B3 event %" PRIu64 " of the backup is not the log's", x.id);
            rc = 1;
            break;
        }
        replay(m, &x);
        n++;
        rc = 0;
    }
    if (rc < 0)
        audit_violation(m->a, "B3 a log cannot be read: %s", err.message);
    else if (rc == 0 && n != m->head)
        audit_violation(m->a, "B3 the backup has %" PRIu64 " events, its head is %" PRIu64, n,
                        m->head);
    b->events += n;
    azoth_events_free(of_live);
    azoth_events_free(of_copy);
}

/* ---- state ---- */

/* A key and what the replay says of it; it is struck off there. 1: as it should be. */
static int as_replayed(struct moment *m, const char *key, int64_t have)
{
    int account;
    int64_t number;
    if (strcmp(key, "probe") == 0) /* its transactions log no events */
        return 1;
    if (sscanf(key, "acct/%d", &account) == 1 && account >= 0 && account < OP_ACCOUNTS)
        return m->accounts-- && have == m->balance[account];
    if (sscanf(key, "register/%" SCNd64, &number) != 1)
        return 0;
    uint64_t at = (uint64_t)(number - m->a->registers_from);
    int same = at < m->a->registers_len && m->value[at] == have && have != 0;
    if (same)
        m->value[at] = 0;
    return same;
}

/* B4. */
static void same_state(struct moment *m, struct azoth *copy)
{
    const struct azoth_bytes open = {0};
    struct azoth_bytes key;
    struct azoth_entry e;
    struct azoth_scan *s;
    struct azoth_error err = {0};
    int rc = azoth_scan(copy, open, open, open, &s, &err);
    while (!rc && (rc = azoth_scan_next(s, &key, &e, &err)) == 1) {
        char text[64];
        int64_t have = -1;
        snprintf(text, sizeof text, "%.*s", (int)key.len, (const char *)key.ptr);
        if (azoth_value_i64(e.value, &have) || !as_replayed(m, text, have))
            audit_violation(m->a, "B4 key %s of the backup holds %" PRId64 ", its log says another",
                            text, have);
        rc = 0;
    }
    if (rc < 0)
        audit_violation(m->a, "B4 the backup's state cannot be read: %s", err.message);
    else
        azoth_scan_free(s);
    if (m->accounts)
        audit_violation(m->a, "B4 %u accounts are not in the backup", m->accounts);
    for (uint64_t i = 0; i < m->a->registers_len; i++)
        if (m->value[i])
            audit_violation(m->a, "B4 register %" PRId64 " is not in the backup",
                            m->a->registers_from + (int64_t)i);
}

/* ---- projections ---- */

static int rows(const char *copy, const char *name, const char *sql, char *out, size_t size)
{
    char db[400], text[200];
    snprintf(db, sizeof db, "%s/projections/%s.db", copy, name);
    snprintf(text, sizeof text, "%s", sql);
    out[0] = 0;
    if (access(db, F_OK))
        return -1; /* no projector had filled it yet */
    return harness_run(out, size, (char *const[]){"sqlite3", "-readonly", db, text, NULL});
}

static uint64_t cursor_of(struct audit *a, const char *copy, const char *name)
{
    char out[100];
    uint64_t cursor = 0;
    int rc = rows(copy, name, "SELECT cursor FROM azoth_projection", out, sizeof out);
    if (rc > 0 || (rc == 0 && sscanf(out, "%" SCNu64, &cursor) != 1))
        audit_violation(a, "B5 the cursor of %s: %s", name, out);
    return cursor;
}

/* B5. */
static void same_rows(struct moment *m, const char *copy)
{
    static char out[64 * OP_ACCOUNTS];
    uint64_t n, last, h, cursor = cursor_of(m->a, copy, "chain");
    if (cursor > m->head || m->cursor > m->head)
        audit_violation(m->a, "B5 a cursor is beyond the head %" PRIu64, m->head);
    else if (cursor && (rows(copy, "chain", "SELECT n, last, h FROM chain", out, sizeof out) ||
                        sscanf(out, "%" SCNu64 "|%" SCNu64 "|%" SCNu64, &n, &last, &h) != 3 ||
                        n != cursor || last != cursor || h != m->a->chain[cursor]))
        audit_violation(m->a, "B5 chain at %" PRIu64 " is no replay: %s", cursor, out);
    if (!m->cursor)
        return;
    int rc = rows(copy, "accounts", "SELECT account || ' ' || balance FROM accounts ORDER BY 1",
                  out, sizeof out);
    int64_t balance;
    int account;
    for (char *line = strtok(out, "\n"); line && !rc; line = strtok(NULL, "\n"))
        if (sscanf(line, "%d %" SCNd64, &account, &balance) != 2 || account < 0 ||
            account >= OP_ACCOUNTS || balance != m->at_cursor[account])
            audit_violation(m->a, "B5 accounts at %" PRIu64 " has a row %s", m->cursor, line);
        else
            m->at_cursor[account] = 0;
    for (account = 0; account < OP_ACCOUNTS; account++)
        if (rc || m->at_cursor[account])
            audit_violation(m->a, "B5 accounts at %" PRIu64 " lacks account %d", m->cursor,
                            account);
}

/* ---- one restored ---- */

static void check_moment(struct backups *b, struct world *w, struct audit *a, const char *copy,
                         uint64_t floor, uint64_t ceiling)
{
    const struct azoth_options o = {.flags = AZOTH_READ_ONLY};
    struct moment m = {.a = a, .cursor = cursor_of(a, copy, "accounts")};
    struct azoth *db;
    struct azoth_error err = {0};
    int rc = azoth_open(copy, &o, &db, &err);
    if (rc || (rc = azoth_head(db, &m.head, NULL, &err))) {
        audit_violation(a, "B3 what was restored is not opened: %s", err.message);
        return;
    }
    if (m.head < floor || m.head > ceiling)
        audit_violation(a,
                        "B3 what was restored ends at %" PRIu64 ", not in %" PRIu64 " to %" PRIu64,
                        m.head, floor, ceiling);
    audit_run(a, w->db, 0); /* the live log is known that far, and all registers are */
    m.value = calloc(a->registers_len + 1, sizeof *m.value);
    if (!m.value)
        exit(1);
    same_log(b, &m, w->db, db);
    same_state(&m, db);
    same_rows(&m, copy);
    free(m.value);
    azoth_close(db);
    /* B6. */
    char text[] = "{\"add\":{\"probe\":1},\"events\":[{\"type\":\"restored\"}]}";
    uint64_t head = 0;
    if (world_azoth(w, (const char *[]){"tx", "--dir", copy, "--embedded", text, NULL}) ||
        azoth_open(copy, &o, &db, &err))
        audit_violation(a, "B6 what was restored takes no transaction");
    else {
        azoth_head(db, &head, NULL, NULL);
        azoth_close(db);
        if (head != m.head + 1)
            audit_violation(a, "B6 the event after %" PRIu64 " is %" PRIu64, m.head, head);
    }
}

/* B2, of the newest state that the place has, or of an earlier one. */
static void restore_and_check(struct backups *b, struct world *w, struct audit *a, uint64_t event)
{
    char copy[300], number[24];
    uint64_t floor = w->backup_floor; /* what comes after is newer */
    snprintf(copy, sizeof copy, "%s/restored", w->place_of_copies);
    snprintf(number, sizeof number, "%" PRIu64, event);
    const char *newest[] = {"restore", "--quiet", w->place, copy, NULL};
    const char *earlier[] = {"restore", "--quiet", "--to-event", number, w->place, copy, NULL};
    if (world_azoth(w, event ? earlier : newest)) {
        audit_violation(a, "B2 the backups are not restored, to event %" PRIu64, event);
        return;
    }
    b->restored++;
    if (world_azoth(w, (const char *[]){"verify", "--dir", copy, "--store", "--all-projections",
                                        "--replay", NULL}))
        audit_violation(a, "B2 what was restored has findings");
    /* The whole transactions up to an event: it may lie inside of one. */
    if (event)
        check_moment(b, w, a, copy, event < OP_PARTS_MAX ? 0 : event - OP_PARTS_MAX + 1, event);
    else
        check_moment(b, w, a, copy, floor, UINT64_MAX);
    restore_remove_tree(copy);
}

/* An event between the oldest full backup and the newest increment; 0: there is none. */
static uint64_t some_event(struct world *w, const json_t *list)
{
    size_t n = json_array_size(list), first = 0;
    while (first < n && !is_full(json_array_get(list, first)))
        first++;
    if (first + 1 >= n)
        return 0;
    json_int_t from = json_integer_value(json_object_get(json_array_get(list, first), "to_event"));
    json_int_t to = json_integer_value(json_object_get(json_array_get(list, n - 1), "to_event"));
    return to <= from ? 0 : (uint64_t)from + random_next(&w->random) % (uint64_t)(to - from);
}

void backups_check(struct backups *b, struct world *w, struct audit *a, int final)
{
    uint64_t began = clock_mono_ns();
    if (!w->backups || (!final && began < b->next_ns))
        return;
    place_is_tidy(w, a, final);
    json_t *list = listed(w, a);
    if (fulls(list) + b->dropped_full < w->full_backups)
        audit_violation(a, "B1 %u full backups ended well, and %u are listed", w->full_backups,
                        fulls(list) + b->dropped_full);
    if (final && world_azoth(w, (const char *[]){"backup", "verify", w->place, NULL}))
        audit_violation(a, "B2 a backup that is listed is not whole");
    uint64_t event = some_event(w, list);
    if (event && (final || random_next(&w->random) % 2))
        restore_and_check(b, w, a, event);
    drop_older(b, w, list);
    restore_and_check(b, w, a, 0);
    json_decref(list);
    b->next_ns = clock_mono_ns() + SHARE * (clock_mono_ns() - began);
}
