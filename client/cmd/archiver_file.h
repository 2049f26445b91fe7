/*
 * archiver_file.h - the file of a segment, for archiver.c: written from the log, and compared with it.
 *
 * Errors are those of the log and of the file: CORRUPT, NOSPACE, NOMEM, IO, PERMISSION; and ARCHIVER_INTERRUPTED. These
 * block on disks; one thread.
 */
#ifndef CLIENT_CMD_ARCHIVER_FILE_H
#define CLIENT_CMD_ARCHIVER_FILE_H

#include "client/cmd/archiver.h"

/* Tells a->say, where there is one, and returns its answer. */
int archiver_say(const struct archiver *a, const char *doing, uint64_t event);
/* Writes events from `first` on, up to `end` or to where the segment is full, as the file `partial`; it is durable then. */
int archiver_write(struct archiver *a, const char *partial, uint64_t first, uint64_t end,
                   struct archive_about *ret, struct azoth_error *err);
/* Opens the file, reads all of it from the disk and checks it, against LMDB too. */
int archiver_prove(struct archiver *a, const char *path, struct archive_about *ret,
                   struct azoth_error *err);
/* What is read of the file next comes from the disk, where the kernel does as it is asked. */
void archiver_forget_cached(const char *path);

#endif
