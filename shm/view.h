/*
 * view.h - what a database shows to those who look: segment, gauges, who lives. Nobody is asked, no
 * lock is taken, nothing is written or made; works on what dead processes left, and where there is
 * nothing yet.
 */
#ifndef SHM_VIEW_H
#define SHM_VIEW_H

#include "core/mark.h"
#include "shm/gauges.h"
#include "shm/participant.h"
#include "shm/pause.h"
#include "shm/projection_row.h"

struct view {
    char dir[4096];
    struct segment_name name; /* of the shared objects */
    struct segment *segment;  /* NULL: see segment_err */
    struct gauges *gauges;    /* NULL: see gauges_err */
    struct azoth_error segment_err, gauges_err;
    int writer_alive, feed_alive; /* 1, 0, or -1: we may not look */
    int lock_fd;                  /* participants.lock, or -1 */
};

void view_open(struct view *v, const char *dir);
void view_close(struct view *v);

/* The row's process lives: 1, 0 (it died), -1 (we may not look). */
int view_participant_alive(const struct view *v, uint32_t index);

/* Places that somebody follows with backups now (core/mark.h), by the first digits of their UUIDs: how many. */
#define VIEW_FOLLOWER (MARK_FOLLOWER_DIGITS + 1)
uint32_t view_followers(const struct view *v, char (*out)[VIEW_FOLLOWER], uint32_t cap);
/* 1: the place with this UUID is one of those. */
int view_is_followed(const char (*list)[VIEW_FOLLOWER], uint32_t n, const char *uuid);
/* How a place of backups stands whose mark that is, with those that are followed: "following", "silent" (it should be followed),
 * "broken" or "kept" (nobody is to follow it): one of view_place_states. */
#define VIEW_PLACE_STATES 4
extern const char *const view_place_states[VIEW_PLACE_STATES];
const char *view_place_state(const struct mark *m, const char (*list)[VIEW_FOLLOWER], uint32_t n,
                             const char *uuid);

/* What pauses and seals there are, and what the writer makes of them. */
struct view_pauses {
    enum view_writes { WRITES_OPEN, WRITES_PAUSING, WRITES_PAUSED, WRITES_SEALED } writes;
    uint64_t left_ns; /* until the last of them ends by itself; UINT64_MAX: it does not */
    uint64_t age_ns;  /* of the oldest */
    uint32_t len;
    struct pause_info row[SHM_PAUSES + 1];
};
void view_pauses(const struct view *v, uint64_t now_ns, struct view_pauses *ret);
/* "open", "pausing", "paused", "sealed". */
const char *view_writes_name(enum view_writes writes);

/* When the writer's helper looked at pins and disk (running time), if that was in the last seconds: it looks every
 * second while it lives. 0: it was not, and what it saw is not told. */
uint64_t view_helper_looked(const struct view *v, uint64_t now_ns);
/* The same of those who hold up a projection's file. */
uint64_t view_files_looked(const struct view *v, uint64_t now_ns);

struct view_counts {
    uint32_t slot[SLOT_REAPING + 1]; /* by state */
    uint32_t exclusive, shared;      /* stripes held */
    uint32_t blocks_used;
};
void view_count(const struct segment *s, struct view_counts *ret);

const char *slot_state_name(uint32_t state);
const char *participant_kind_name(uint32_t kind);
const char *writer_state_name(uint32_t state);
const char *sync_mode_name(uint64_t mode);
/* "yes", "no" or "unknown". */
const char *alive_name(int alive);

#endif
