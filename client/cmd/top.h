/*
 * top.h - azoth top in its three parts: looking (top_look.c), making a frame of text (top_frame.c), and the
 * terminal (top.c). A frame is text with marks, so that --once prints what the screen shows.
 */
#ifndef CLIENT_CMD_TOP_H
#define CLIENT_CMD_TOP_H

#include "client/cmd/culprits.h"
#include "client/cmd/lag.h"

#define TOP_HISTORY   60u /* looks that a sparkline shows at most */
#define TOP_TRACKS    LAG_ROWS_MAX
#define TOP_LINES_MAX 1024u
#define TOP_TEXT      1200u /* bytes of a line: 240 columns and room for UTF-8 */

/* ---- looking ---- */

enum { TOP_COMMIT, TOP_PREFLIGHT, TOP_QUEUE, TOP_BATCH, TOP_LAG, TOP_APPLY, TOP_HISTOGRAMS };

/* Counters at one look. */
struct top_sample {
    uint64_t at_ns; /* 0: there was none */
    uint64_t commits, transactions, events, refused, stripe_waits;
    struct histogram_shm histogram[TOP_HISTOGRAMS];
    struct top_counts {
        uint64_t word, submitted, refused, waits, wait_ns, held_up_ns;
    } row[SHM_PARTICIPANTS];
};

/* One that takes part. Rates are -1 when it was not there at the look before. */
struct top_process {
    uint32_t pid, kind;
    int alive; /* 1, 0, or -1: we may not look */
    char name[33];
    double submitted_s, refused_s, waits_s;
    double waited, held_up; /* seconds a second: its threads waited; others waited for it */
};

/* How far behind a projection was, look by look; the newest last. */
struct top_track {
    char name[64];
    uint32_t shard, shards, len, used; /* used: at this look */
    double value[TOP_HISTORY];
};

struct top {
    struct lag lag; /* dir and config are the caller's */
    struct view v;  /* open between top_look() and top_unlook() */
    struct view_counts counts;
    struct culprits culprits;
    struct view_pauses pauses;
    struct top_sample now, before;
    double commits_s, transactions_s, events_s, refused_s, waits_s; /* -1: not known yet */
    struct top_process process[SHM_PARTICIPANTS];
    uint32_t processes;
    struct top_track track[TOP_TRACKS], throughput;
    uint64_t stripe_before[SHM_STRIPES_MAX];
};

/* Looks; the pointers of v are valid until top_unlook(). Waits a second for the store at most. */
void top_look(struct top *t);
void top_unlook(struct top *t);
/* The value at quantile q of what came in since the look before; since the beginning when there was none. -1:
 * nothing did. */
double top_quantile(const struct top *t, int histogram, double q);
/* NULL: none. */
const struct top_track *top_track_of(const struct top *t, const struct lag_row *row);

/* ---- a frame ---- */

enum top_sort { TOP_BY_NAME, TOP_BY_LAG, TOP_BY_RATE, TOP_BY_WAITS, TOP_SORTS };
const char *top_sort_name(enum top_sort s);

struct top_options {
    uint32_t width, height; /* height 0: as many lines as there are */
    enum top_sort sort;
    int reverse, paused, utf8;
    uint32_t interval_ms;
};

enum top_mark { TOP_PLAIN, TOP_TITLE, TOP_HEADING, TOP_ALARM };

struct top_frame {
    uint32_t lines;
    struct top_line {
        enum top_mark mark;
        char text[TOP_TEXT];
    } line[TOP_LINES_MAX];
};

/* Sorts what t has found, and makes lines of at most o->width columns. */
void top_render(struct top *t, const struct top_options *o, struct top_frame *ret);
/* What the keys do, in place of it. */
void top_render_help(const struct top_options *o, struct top_frame *ret);

#endif
