/* require.h - the ready-made requirements, evaluated on a snapshot. */
#ifndef WORKERS_REQUIRE_H
#define WORKERS_REQUIRE_H

#include "core/store.h"
#include "core/txn.h"

/* 0 when the requirement holds; PREFLIGHT_FAILED (err names key, what it needs and what is there),
 * TYPE when the stored value cannot be compared, CORRUPT, IO. Does not block. */
int require_check(struct snapshot *sn, const struct txn_item *it, struct azoth_error *err);
/*
 * After PREFLIGHT_FAILED or TYPE: adds to err's sentence which transaction last changed the key, and its first event
 * when it logged any. Some twenty looks into the log: made without locks, on a snapshot that may be newer. Tells
 * nothing when the key is not there, or the store cannot be read.
 */
void require_explain(struct snapshot *sn, const struct txn_item *it, struct azoth_error *err);

#endif
