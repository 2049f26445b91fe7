/*
 * walpins.h - who keeps the WAL of a projection's file from starting over.
 *
 * Told by SQLite's locks on the shared-memory file beside it (the format is documented:
 * sqlite.org/walformat.html): a reader holds byte 123 + i shared, and aReadMark[i] is the last frame that it sees.
 * The WAL cannot start over while one stands before its end. Asks nobody, waits for nobody.
 */
#ifndef CORE_WALPINS_H
#define CORE_WALPINS_H

#include <stdint.h>

#define WALPINS_STEM 80u

struct wal_pin {
    uint64_t pid;            /* one of those who hold the mark */
    uint64_t mark, behind;   /* the last frame that it sees; frames since */
    uint64_t wal_bytes;      /* of the file */
    char stem[WALPINS_STEM]; /* "NAME", "NAME.IofK" (projector/split.h) */
};

/*
 * Of all projections of the database in `dir`, at most `most`; how many. Must not run beside SQLite in the same
 * process: closing a file that it has open drops its locks.
 */
uint32_t wal_pins(const char *dir, struct wal_pin *ret, uint32_t most);

#endif
