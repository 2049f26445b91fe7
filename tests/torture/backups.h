/*
 * backups.h - hot backups of the database under torture, one after the other, and whether each is a moment of it.
 *
 * The world makes them into one place, full ones and increments, kills and stops them as it does the others, and arms
 * their crash points. Now and then, and at the end, the newest state that is there is restored, and one between two
 * backups:
 *
 *   live log, as audited ──► its first H events ──► balances, registers, rows at a cursor ─┐
 *   restored database    ──► log, state, projections ──────────────────────────────────────┴──► violations
 *
 * Rules
 *   B1  the place has whole backups, and besides at most what one backup was at when it died.
 *   B2  each one that is listed as complete can be restored, and the check of the whole store, of the projections and
 *       of their rows finds nothing in what comes out.
 *   B3  its log is the first H events of the live one: so what was answered up to H is in it once, as it is there
 *       (A3, A4). H is not before what was durable when the backup began, or is the last one up to the event that was
 *       asked for that ends a transaction.
 *   B4  its state is the replay of these events, and nothing else is in it.
 *   B5  the cursors of its projections are not beyond H, and their rows are the replay up to the cursor.
 *   B6  a writer goes on from there: the next event is H + 1.
 */
#ifndef TESTS_BACKUPS_H
#define TESTS_BACKUPS_H

#include "tests/torture/audit.h"
#include "tests/torture/world.h"

struct backups {
    uint64_t next_ns;        /* not before: a check must not be most of what the run does */
    unsigned restored, here; /* here: in the place when it was looked at */
    unsigned dropped, dropped_full;
    uint64_t events; /* that were compared */
};

/* A check, when it is time for one, or in any case when `final` (no backup is under way then). Supervises meanwhile. */
void backups_check(struct backups *b, struct world *w, struct audit *a, int final);

#endif
