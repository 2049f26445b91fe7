/*
 * bench_floor.h - raw LMDB, as a careful programmer would use it by hand: the floor beside which the
 * product is measured, here for `azoth bench` and in tests/bench.
 *
 * The environment is opened with the product's flags; records have the product's sizes, headers and
 * checksums included, and keys the product's order. Nothing else of the product is in it: no locks,
 * no queue, no batch record, no checksum is computed unless a call says so. One thread at a time.
 *
 * Calls return 0 or a negative AZOTH_ERR_*. One write transaction is open between floor_begin() and
 * floor_commit().
 */
#ifndef CLIENT_CMD_BENCH_FLOOR_H
#define CLIENT_CMD_BENCH_FLOOR_H

#include "core/azoth_base.h"

struct floor;

#define FLOOR_VALUE_MAX 65536u

/* Makes dir and an empty environment in it. Its event ids start at 1. */
int floor_open(const char *dir, struct floor **ret, struct azoth_error *err);
void floor_close(struct floor *f); /* NULL is accepted */
/* 1: commits are not synced (to fill); 0: they are, and what was written before is synced now. */
int floor_lazy(struct floor *f, int lazy, struct azoth_error *err);

int floor_begin(struct floor *f, struct azoth_error *err);
int floor_commit(struct floor *f, struct azoth_error *err); /* durable, unless lazy */
/* A state record of a value of value_len bytes (at most FLOOR_VALUE_MAX). */
int floor_put_state(struct floor *f, struct azoth_bytes key, size_t value_len,
                    struct azoth_error *err);
/* The next event: any bytes, appended. */
int floor_append(struct floor *f, struct azoth_bytes record, struct azoth_error *err);
/* A request id's two records, in the order in which one client's ids come. */
int floor_put_id(struct floor *f, struct azoth_error *err);
/* Reads a value inside the write transaction. */
int floor_look(struct floor *f, struct azoth_bytes key, struct azoth_error *err);
uint64_t floor_head(const struct floor *f); /* newest event id */

/* A snapshot that is renewed: one is open between floor_read and floor_unread. */
int floor_read(struct floor *f, struct azoth_error *err);
void floor_unread(struct floor *f);
/* Copies the record; *ret_len is its length, at most size. */
int floor_get(struct floor *f, struct azoth_bytes key, void *out, size_t size, size_t *ret_len,
              struct azoth_error *err);
/* Events first..last by a cursor, each record's checksum checked; the sum of their lengths. Records
 * must be real ones (core/record.h). CORRUPT, NOT_FOUND when one is missing. */
int floor_events(struct floor *f, uint64_t first, uint64_t last, uint64_t *ret_bytes,
                 struct azoth_error *err);
/* The same, copied into out as frames (core/record.h), as many whole ones as size holds: the number of
 * events, or an error. USAGE: the first does not fit. */
int floor_frames(struct floor *f, uint64_t first, uint64_t last, void *out, size_t size,
                 size_t *ret_len, struct azoth_error *err);

#endif
