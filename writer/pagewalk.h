/*
 * pagewalk.h - whether LMDB may be let at a file of pages that somebody else has written.
 *
 * LMDB 0.9.24 believes its pages: a number that leads out of the file or out of a page ends the process by a signal, or is
 * followed to wherever it leads. The digests of a backup tell what happened to a file by itself, but who makes a backup
 * makes its manifest, too. So the pages that a backup brings are walked here, by their bytes alone, before LMDB sees them.
 */
#ifndef WRITER_PAGEWALK_H
#define WRITER_PAGEWALK_H

#include "core/azoth_base.h"

/*
 * path: what LMDB's compacting copy of a store has written (writer/copy.h), of LMDB 0.9 with 64 bits in this machine's order
 * of bytes. 0 when each page that a tree leads to is inside the file, whole, and in one place of one tree; else FORMAT (none
 * of these), CORRUPT (says which page), IO, PERMISSION, NOMEM. What the records say is not looked at. Reads the file once;
 * takes a bit for each page. Any thread.
 */
int pagewalk_check(const char *path, struct azoth_error *err);

#endif
