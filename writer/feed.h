/*
 * feed.h - the event feed: projectors ask, the feed sends what they asked for, and keeps nothing.
 *
 * The step never sleeps: azoth-feed's main idles, tests drive it by hand. One thread.
 */
#ifndef WRITER_FEED_H
#define WRITER_FEED_H

#include "core/store.h"
#include "shm/segment.h"

#include <poll.h>

struct feed;

struct feed_options {
    const char *listen[4]; /* endpoints to bind; NULL ends */
    uint64_t lapse_ns;     /* a projector silent for so long is taken off */
};

/* USAGE (endpoint), DUPLICATE (address in use), IO, NOMEM. store and gauges (may be NULL) must
 * outlive it. */
int feed_open(const struct feed_options *o, struct store *store, struct gauges *gauges,
              struct feed **ret, struct azoth_error *err);
void feed_close(struct feed *f);
/* Borrowed; NULL: none now. What the projectors said last is written into them at once. */
void feed_set_gauges(struct feed *f, struct gauges *gauges);

/* From the next look on. */
void feed_set_lapse(struct feed *f, uint64_t lapse_ns);
/* Called by feed_step() when a projector subscribes: cursor is where it goes on; refused is 0 or the
 * error that it gets instead of events, why its sentence. */
void feed_on_subscribed(struct feed *f,
                        void (*call)(const char *name, uint32_t shard, uint32_t shards,
                                     uint64_t cursor, int refused, const char *why));

/*
 * Takes the requests that have come, then gives each subscription that has credit left one batch, in
 * turn; one short snapshot a look. Returns how many messages were taken or sent; 0: nothing to do
 * until a request comes (feed_poll_fd), one of feed_blocked() polls, if feed_waits() says so until
 * there are new events, and at the latest at feed_retry_ns(). Damage in the log (GAP, CORRUPT, FORMAT) is told to the projector that
 * comes to it; errors here are what the store or a socket could not do: IO, NOMEM, FULL.
 */
int feed_step(struct feed *f, uint64_t now_ns, struct azoth_error *err);
/* 1 when a subscription has credit left: new events are waited for. */
int feed_waits(const struct feed *f);
/* Descriptors, at most `most`, that poll readable when a transport may take what it did not take. */
uint32_t feed_blocked(const struct feed *f, struct pollfd *ret, uint32_t most);
/* When what a transport did not take is tried again; 0: nothing is. */
uint64_t feed_retry_ns(const struct feed *f);
int feed_poll_fd(const struct feed *f);
uint32_t feed_subscriptions(const struct feed *f);

#endif
