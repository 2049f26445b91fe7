/*
 * powercut.h - the log of what was done to a directory's files, and the states that a power cut may
 * leave of them.
 *
 * The log is a sequence of records in the order in which things happened, over all processes. A record
 * is followed by its path, its other path and its data.
 */
#ifndef TESTS_FAULT_POWERCUT_H
#define TESTS_FAULT_POWERCUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CUT_MAGIC  0x54554341u
#define CUT_IOV    1024
#define CUT_SECTOR 512u

enum cut_kind {
    CUT_CREATE,     /* ino, path */
    CUT_DIRECTORY,  /* ino, path: a directory was opened (to sync it) */
    CUT_WRITE,      /* ino, at, data: is about to be written; token: as its own sync (O_DSYNC) */
    CUT_SYNC_WRITE, /* ino, token: that write is durable */
    CUT_SIZE,       /* ino, at: the new size */
    CUT_SYNC_BEGIN, /* ino, token: a sync begins */
    CUT_SYNC,       /* ino, token: it is over, and what came before it began is durable */
    CUT_RENAME,     /* path to other */
    CUT_SYMLINK,    /* path, pointing to other */
    CUT_UNLINK,     /* path */
    CUT_MARK,       /* a note of the client: ino and at are its own, data too */
};

struct cut_record {
    uint32_t magic, kind;
    uint64_t ino, at, token;
    uint32_t path, other; /* lengths */
    uint64_t data;
};

/* What every program makes anew, and no program reads after a cut. */
static inline int cut_worthless(const char *name)
{
    size_t n = strlen(name);
    return strcmp(name, "lock.mdb") == 0 || (n > 4 && strcmp(name + n - 4, "-shm") == 0) ||
           (n > 5 && strcmp(name + n - 5, ".lock") == 0);
}

/* A log in memory. */
struct cut_op {
    struct cut_record r;
    const char *path, *other; /* not terminated */
    const unsigned char *data;
    size_t durable; /* from this length of the log on it is on the disk; SIZE_MAX: never */
};
struct cut_log {
    unsigned char *bytes;
    struct cut_op *op;
    size_t ops;
    size_t ignored; /* where the sync was that is left out; 0: nowhere */
};

/* What becomes of the operations that were not durable when the power went. */
enum cut_policy {
    CUT_ALL,    /* all reached the disk: the state is a prefix of what was done */
    CUT_NONE,   /* none did */
    CUT_SUBSET, /* each did or did not */
    CUT_TORN,   /* as SUBSET, and of each write some sectors did */
    CUT_LAST,   /* none but the newest: the disk reordered */
    CUT_POLICIES
};

/* Reads a log. ignore: a sync of this file name that is left out (its number, from 1; 0: none;
 * SIZE_MAX: all). 0, or -1 after saying why. */
int cut_log_read(struct cut_log *l, const char *path, const char *name, size_t ignore);
void cut_log_free(struct cut_log *l);

/*
 * Makes the files in dir (empty, there) as they may be when the power goes after the first `cut`
 * operations. Directory entries keep their order, as in a journal, and an entry is durable when its
 * directory or the file itself was synced (the rule of ext4). lock.mdb, -shm, locks and sockets are
 * left out: every program makes them anew. 0, or -1 after saying why.
 */
int cut_make(const struct cut_log *l, size_t cut, enum cut_policy policy, uint64_t *seed,
             const char *dir);

#endif
