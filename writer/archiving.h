/*
 * archiving.h - the control operations that move events out of LMDB; see core/archived.h for what they write.
 * Operations of writer/control.c, which tells them as control.h does.
 *
 *   operation      argument                  what
 *   archive        a segment's record        records the segment, whose file is durable, and behind the newest
 *                                            one: its events stay in LMDB and are read from there. Of one that is
 *                                            recorded (same digest) nothing is changed
 *   archive-piece  -                         deletes the next events that a recorded segment has: at most
 *                                            ARCHIVE_PIECE_EVENTS of ARCHIVE_PIECE_BYTES. None left: nothing is changed
 *   archive-move   u64 last event | path     the segment that ends there lies under this path now. NOT_FOUND
 *
 * BAD_REQUEST: not this argument; a segment that does not begin behind the newest one or ends beyond the head.
 * CORRUPT: what is recorded fails its check. GAP: LMDB does not begin with the event that it should.
 */
#ifndef WRITER_ARCHIVING_H
#define WRITER_ARCHIVING_H

#include "writer/append.h"

int archiving_record(struct append *a, struct azoth_bytes argument, int *ret_code,
                     struct azoth_error *detail);
int archiving_piece(struct append *a, struct azoth_bytes argument, int *ret_code,
                    struct azoth_error *detail);
int archiving_move(struct append *a, struct azoth_bytes argument, int *ret_code,
                   struct azoth_error *detail);

#endif
