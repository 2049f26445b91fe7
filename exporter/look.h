/*
 * look.h - what the exporter sees of a database, from shared memory alone, and what it makes of it.
 *
 * It is no participant: read-only mappings, no lock, nobody waits for it. Each look maps the objects
 * anew, so that a database that is made, a writer that comes, and a segment that was retired and
 * made anew are found by the next look, and nothing is held of what has gone.
 */
#ifndef EXPORTER_LOOK_H
#define EXPORTER_LOOK_H

#include "core/config.h"
#include "exporter/history.h"
#include "exporter/recent.h"
#include "shm/contention.h"
#include "shm/marks.h"
#include "shm/pins.h"
#include "shm/view.h"

#define LOOK_STRIPES 10u /* those that were waited for most */

/* A process that writes its heartbeat once a second at least is told to hang after so long. */
#define LOOK_HANGS_S 10.0

/* Rows of the gauges, and shards that have none. */
#define LOOK_PROJECTIONS (2u * SHM_PROJECTIONS)

struct look_projection {
    struct projection_row r;
    int heard;           /* 0: others of its split have reported, it has not: no number is known */
    uint32_t row;        /* in the gauges, of one that was heard */
    const char *state;   /* corrected by who lives: "silent", "diverged" */
    uint64_t behind;     /* events */
    double seconds;      /* age of the oldest event that is not applied, at most; NAN: not known */
    double progress_age; /* since the cursor moved; NAN: never */
    double heard_age;    /* since it was heard; NAN: never */
    double failed_age;   /* since the error came that it tells; NAN: it tells none */
    double wal_pinned;   /* since a reader keeps its WAL from starting over; 0: none does */
    double rate;         /* events a second that its cursor moved, lately; NAN: not known */
};

struct look_stripe {
    struct hot_stripe hot;
    int holder;       /* slot, or -1 */
    uint32_t key_len; /* 0: no key is known that was waited for there */
    unsigned char key[512];
};

/* Who holds a snapshot open that commits have gone past: of the store, or of a projection's file. */
struct look_pin {
    uint64_t pid, behind; /* commits; of a file: frames of its WAL */
    double age;           /* seconds, at least */
    char program[PROCESS_PROGRAM],
        unit[PROCESS_UNIT];              /* as the writer saw them; empty: not known, or none */
    char projection[AZOTH_NAME_MAX + 1]; /* of a file */
    uint32_t shard, shards;
};

/* A place of backups that the store keeps something for. */
struct look_backup {
    struct mark_told m;
    char place[2 * MARK_PLACE + 1];
    const char *
        state; /* as azoth lag has it: "following", "silent", "broken", "kept"; NULL: we may not look who lives */
    uint64_t behind; /* events that no backup there has */
    double seconds;  /* age of the oldest transaction that none has, at most; 0: none is lacking */
};

/* What is kept from look to look. Zeroed to begin. */
struct look_memory {
    struct history head, head_txn, free_bytes;
    struct recent recent;
};

struct look {
    struct view v;
    uint64_t now_ns;
    int64_t wall_ns;
    int up;                                /* a writer lives, in a segment that is not retired */
    double writer_beat_age, feed_beat_age; /* seconds; NAN: never */
    struct view_pauses pauses;
    struct view_counts counts;
    uint64_t stripe_waits, stripe_wait_ns; /* of all stripes */
    uint32_t stripes_len;
    struct look_stripe stripe[LOOK_STRIPES]; /* most waited for first */
    uint64_t head;
    uint32_t projections;
    struct look_projection projection[LOOK_PROJECTIONS]; /* by name and shard */
    int pins_known;                                      /* the writer's helper looked just now */
    uint32_t pins;
    struct look_pin pin[SHM_PINS]; /* most commits behind first */
    int file_pins_known;           /* the writer's helper looked at projections' files, too */
    uint32_t file_pins;
    struct look_pin file_pin[SHM_PINS]; /* oldest first */
    int backups_known;                  /* the writer has told */
    uint32_t backups;
    struct look_backup backup[SHM_MARKS];
    int disk_known;
    uint64_t disk_free, disk_size; /* of the directory's file system, for who is not root */
    uint64_t store_bytes;          /* that data.mdb takes on the disk */
    double disk_fill;    /* bytes a second that the writer's helper saw it fill; NAN: not known */
    double disk_seconds; /* until it is full; INFINITY: not at all, NAN: not known yet */
};

/* A short look, once a second: adds to the memory what later looks are measured against. */
void look_note(struct look_memory *m, const char *dir);

/* The whole. lapse_ms: feed.lapse. To be closed, before the next. */
void look_open(struct look *k, const struct look_memory *m, const char *dir, uint64_t lapse_ms);
void look_close(struct look *k);
/* The same with k->v open and all else zero. */
void look_at(struct look *k, const struct look_memory *m, uint64_t lapse_ms);

#endif
