/*
 * feed_look.h - one bounded look into the log: what of it a projection wants.
 */
#ifndef WRITER_FEED_LOOK_H
#define WRITER_FEED_LOOK_H

#include "core/store.h"

/* At most so much of the log is looked at in one go, so that no projection starves another. */
#define FEED_LOOK_EVENTS 50000u
#define FEED_LOOK_BYTES  (4u << 20)

struct feed_filter {
    uint32_t shard, shards; /* 0 of 1: everything */
    char shard_by[256];     /* ":FIELD" of the payload; else the stream key */
    unsigned char *types;   /* u8 length and bytes each; none: every type */
    size_t types_len;
    uint64_t to; /* the log is looked at up to this event; 0: to its end */
};

struct feed_look {
    uint64_t head;       /* newest event of the snapshot */
    uint64_t last;       /* newest event looked at; the cursor when there was none */
    uint32_t last_check; /* its checksum */
    uint64_t wanted;     /* how many passed the filter */
    size_t bytes;        /* of their frames */
};

/* The log is damaged at this place, and will be the next time too: or a segment of it is not there, or is
 * not to be read, which whoever comes to it is told by the file's name. */
static inline int feed_is_damage(int code)
{
    return code == AZOTH_ERR_GAP || code == AZOTH_ERR_CORRUPT || code == AZOTH_ERR_FORMAT ||
           code == AZOTH_ERR_NOT_FOUND || code == AZOTH_ERR_PERMISSION;
}

/*
 * Looks at the events behind cursor and appends those that pass to frames: as many as `most` bytes
 * hold, but at least one. One snapshot, ended before it returns. When the log is
 * damaged behind good events, these are returned first. GAP, CORRUPT, FORMAT, NOT_FOUND, PERMISSION (of a
 * segment): at cursor + 1. IO,
 * FULL (readers), NOMEM: not now.
 */
int feed_look(struct store *store, const struct feed_filter *filter, uint64_t cursor, size_t most,
              struct buf *frames, struct feed_look *ret, struct azoth_error *err);

/*
 * Is the event at `cursor` the one with this checksum? 0, or DIVERGED with a sentence, or the
 * errors of feed_look. *ret_head is set when the head could be read.
 */
int feed_same_history(struct store *store, uint64_t cursor, uint32_t check, uint64_t *ret_head,
                      struct azoth_error *err);

#endif
