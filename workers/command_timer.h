/*
 * command_timer.h - the limit on a command's time: ends the process of one that overruns.
 */
#ifndef WORKERS_COMMAND_TIMER_H
#define WORKERS_COMMAND_TIMER_H

#include "core/azoth_base.h"

struct command_timer;
struct timer_place;

/*
 * Ends the process with _exit(1), after one line in the log, when an armed command overruns
 * limit_ns. A thread of its own watches; arming costs a lock. IO, NOMEM.
 */
int command_timer_open(uint64_t limit_ns, struct command_timer **ret, struct azoth_error *err);
void command_timer_close(struct command_timer *t); /* NULL is accepted; nothing may be armed */

/* Around a command's code; at most 8 threads at once. name stays until it is disarmed. */
struct timer_place *command_timer_arm(struct command_timer *t, const char *name,
                                      const uint8_t id[AZOTH_ID_BYTES]);
void command_timer_disarm(struct command_timer *t, struct timer_place *p);

#endif
