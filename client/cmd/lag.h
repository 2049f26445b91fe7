/*
 * lag.h - how far each projection is behind the log, for `azoth lag` and `azoth top`.
 *
 * The feed's rows in the gauges tell cursor and state; the store tells the head and when the oldest
 * event that is not applied was committed. Rows are read before the head, so a cursor is never
 * ahead of it unless the log went back. What the rows say is corrected by what is known about the
 * living: without a feed, or when a projector was not heard for longer than feed.lapse, its state
 * is "silent", and the cursor is the one in the projection's own file when that is here. Why one is
 * down it has left beside its file (projector/last.h), or told the feed.
 */
#ifndef CLIENT_CMD_LAG_H
#define CLIENT_CMD_LAG_H

#include "client/cmd/supervised.h"
#include "client/cmd/view.h"
#include "core/mark.h"
#include "projector/last.h"

#define LAG_ROWS_MAX (SHM_PROJECTIONS + 896u)

struct lag_row {
    struct projection_row r;
    int seen;    /* 0: a definition that nobody has reported on */
    int in_file; /* its own file told the cursor */
    const char *state;
    uint64_t behind;
    double seconds_behind, since_progress, since_heard; /* -1: not known */
    double rate;                                        /* events applied a second; -1: not known */
    double
        catch_up; /* seconds until the head is reached at this rate; 0: it is; -1: not known, or never */
    int64_t
        file_wall_ns; /* when its file was written last, where that told more than the row; or 0 */
    int failed;       /* last says why it is down, or does not go on */
    struct last_words last;
    struct supervised supervised; /* of lag_ask_supervisor() */
};

/* How far a place of backups is behind: by its mark, so also when nobody follows. */
struct lag_backup {
    char place[33];
    uint64_t event, txn, behind, txns_behind;
    double seconds_behind; /* age of the oldest event that it lacks; -1: not known */
    int followed;          /* by azoth backup --follow: the limits are for it, too */
    const char *
        state; /* "following", "silent" (nobody does), "broken", "kept" (backups by hand or timer) */
};

struct lag {
    char dir[4096];
    struct config config;
    struct cmd_list names; /* wanted; none: all */
    struct lag_row row[LAG_ROWS_MAX];
    uint32_t rows;
    struct lag_backup backup[MARKS_MAX];
    uint32_t backups;
    char follower[MARKS_MAX]
                 [VIEW_FOLLOWER]; /* digits of the places that somebody follows with backups now */
    uint32_t followers;
    uint32_t left_out; /* rows that there was no room for */
    uint64_t head;
    int head_known;   /* 0: no gauges are there, and the store did not answer */
    double head_rate; /* events a second; -1: not known */
    int feed_alive;   /* 1, 0, or -1: we may not look */
    struct view_pauses pauses;
    uint64_t now_ns;
    int64_t wall_ns;
    struct azoth_error store_err; /* code 0: times are known */
};

/* dir and config are set. Waits a second for the store at most. */
void lag_look(struct lag *g);
/* Behind lag_look(): asks who supervises the projectors of those that are down, where there are any. */
void lag_ask_supervisor(struct lag *g);
/* A sentence of what that means to do, or what a person has to: into out, which it returns. Empty: there is nothing to
 * say. */
const char *lag_supervisor_text(const struct lag *g, const struct supervised *s, char *out,
                                size_t size);
/* The rows and the head as the gauges have it, without the store: for who waits. */
void lag_read_rows(struct lag *g);
int lag_has_row(const struct lag *g, const char *name);
/* Seconds until then, -1 for 0 (it does not wait). */
double lag_until(const struct lag *g, uint64_t then_ns);
/* "accounts", "accounts 1/4". */
const char *lag_name(const struct lag_row *row, char out[96]);

#endif
