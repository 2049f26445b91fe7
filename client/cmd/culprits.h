/*
 * culprits.h - who keeps others waiting or space from being used again, and how long the disk lasts; for
 * `azoth status` and `azoth top`. Looks at shared memory, /proc and the locks of projection files; asks
 * nobody, waits for nobody.
 */
#ifndef CLIENT_CMD_CULPRITS_H
#define CLIENT_CMD_CULPRITS_H

#include "client/cmd/view.h"
#include "core/process.h"

#define CULPRITS_PINS_MAX 32u
#define CULPRITS_HOT_MAX  16u

/* Who holds an old snapshot open, of the store or of a projection's file. */
struct pin {
    uint64_t pid;
    char projection[80];           /* the file's stem; empty: the store */
    char program[PROCESS_PROGRAM]; /* empty when it is gone, or not ours to see */
    char unit[PROCESS_UNIT];       /* systemd's, from its control group; empty: none */
    uint64_t behind;    /* commits since the store's snapshot; frames of the WAL since the file's */
    uint64_t wal_bytes; /* of a projection's file */
    double
        age_s; /* it is as old at least; -1: not known. Of a file: the age of its process, which it
                            is as old as at most */
};

struct hot_key {
    uint32_t stripe, len; /* len 0: no key is known */
    uint64_t waits, wait_ns;
    unsigned char key[512];
};

struct culprits {
    struct pin pin[CULPRITS_PINS_MAX];
    uint32_t pins;
    struct hot_key hot[CULPRITS_HOT_MAX]; /* most waits first, since the segment was made */
    uint32_t hots;
    uint64_t disk_free_bytes, disk_total_bytes; /* 0: not known */
    double disk_fill_day;                       /* bytes a day; -1: not observed for long enough */
    double days_to_full;                        /* -1: not known, or it does not fill */
};

/* before: see contention_hot(); may be NULL. Must not run beside SQLite in the same process: closing a file
 * that it has open drops its locks. */
void culprits_look(const struct view *v, const uint64_t *before, uint64_t now_ns,
                   struct culprits *ret);

#endif
