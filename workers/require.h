/* require.h - the ready-made requirements, evaluated on a snapshot. */
#ifndef WORKERS_REQUIRE_H
#define WORKERS_REQUIRE_H

#include "core/store.h"
#include "core/txn.h"

/* 0 when the requirement holds; PREFLIGHT_FAILED (err names key, what it needs and what is there),
 * TYPE when the stored value cannot be compared, CORRUPT, IO. Does not block. */
int require_check(struct snapshot *sn, const struct txn_item *it, struct azoth_error *err);

#endif
