/*
 * stripe.h - shared and exclusive stripe locks, owned by commit slots.
 *
 * A slot's intents are stored before a stripe is touched (slot_intend), so whoever finds the owner
 * dead knows what to give back. Releasing what is not held does nothing: repair may be repeated.
 */
#ifndef SHM_STRIPE_H
#define SHM_STRIPE_H

#include "shm/slot.h"

/* Stripe of a key; ids have a name space of their own. XXH64, seed 0 or 1. */
uint32_t stripe_of_key(const struct segment *s, struct azoth_bytes key);
uint32_t stripe_of_id(const struct segment *s, const uint8_t id[AZOTH_ID_BYTES]);

/* One attempt for one intent, without waiting: 1 held, 0 somebody is in the way. An exclusive
 * attempt that met only shared holders keeps its mark (no new ones come in) and is continued by
 * calling again; stripe_release takes it back. */
int stripe_try(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t intent);
/* Sleeps until the stripe may be free, at most timeout_ns (and never over SHM_WAIT_SLICE_NS). */
void stripe_wait(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t intent,
                 uint64_t timeout_ns);
/* Leaves word that this participant has a transaction parked for the stripe: it is then woken
 * through its done_seq. To be followed by one more stripe_try. */
void stripe_park(struct participant *p, uint32_t intent);

/* Releases one intent; 1 when a participant has parked for it (stripe_poke). */
int stripe_release(struct segment *s, uint32_t slot, uint64_t ticket, uint32_t intent);
/* Releases every intent stored in the slot. For owner, writer and reaper alike. 1 as above. */
int stripe_release_slot(struct segment *s, uint32_t slot, uint64_t ticket);
/* Adds the participants that have parked to wakes. */
void stripe_poke(struct segment *s, struct wakes *wakes);

/* Who is in the way, for messages: the slot index, or -1. */
int stripe_holder(const struct segment *s, uint32_t stripe);

#endif
