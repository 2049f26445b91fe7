/*
 * copies.h - may a refusal be told, when a request was sent more than once?
 *
 * A request that stays silent is sent again, and each copy is executed for itself; the request id
 * lets at most one commit. A copy that is refused says nothing of another that lies in a stopped
 * worker and will be executed later, perhaps committed: told then, the refusal would be untrue. So a
 * refusal is final when every other copy is known to be done for:
 *
 *   it was answered with a refusal too, or
 *   its connection broke: its worker is gone. What that worker had submitted by then holds the id's
 *   stripe until it is committed, so a copy that was sent after the break would have seen it, if it
 *   came so far as to look: one that gave up waiting (for that very stripe, perhaps) has not.
 *
 * A copy whose worker answers OUTCOME_UNKNOWN was submitted and goes on without it: that is as if the
 * worker had died.
 *
 * Invariant C1: a copy counts as out until one of the two is known. A copy on a socket that we close
 * ourselves stays out for ever: then only a commit or OUTCOME_UNKNOWN can be told.
 */
#ifndef CLIENT_COPIES_H
#define CLIENT_COPIES_H

#include <stdint.h>

#define REMOTE_ENDPOINTS_MAX 16u

struct copies {
    uint16_t out[REMOTE_ENDPOINTS_MAX]; /* not answered, on the connection that tag stands for */
    uint32_t tag[REMOTE_ENDPOINTS_MAX]; /* connections of the endpoint broken before it was sent */
    int lost;                           /* some were on a socket that we closed */
    int sent_after_break;               /* the last copy went out after the last break */
    int broke;                          /* some died with their connection, or were given up */
};

void copies_sent(struct copies *c, uint32_t endpoint, uint32_t breaks);
void copies_answered(struct copies *c, uint32_t endpoint);
/* The endpoint's worker has submitted its copy and waits for it no longer. */
void copies_unknown(struct copies *c, uint32_t endpoint);
/* `breaks` of the endpoint's connections have broken by now: 1 when copies died with one. */
int copies_broke(struct copies *c, uint32_t endpoint, uint32_t breaks);
/* The endpoint's socket is closed by us. */
void copies_lose(struct copies *c, uint32_t endpoint);
/* How many are out. */
uint32_t copies_out(const struct copies *c);
/* 1 when a refusal that has come is true for all copies. looked: it was given under the locks. */
int copies_settled(const struct copies *c, int looked);

#endif
