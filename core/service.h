/*
 * service.h - what a supervised process does around its loop: signals, readiness, watchdog.
 *
 * service_init() blocks SIGTERM, SIGINT and SIGHUP in the calling thread (threads made later inherit
 * it; nanomsg's too) and ignores SIGPIPE; a signalfd delivers them. Speaks sd_notify(3) through
 * libsystemd; without a supervisor those calls do nothing.
 */
#ifndef CORE_SERVICE_H
#define CORE_SERVICE_H

#include "core/azoth_base.h"
#include "core/clock.h"

#define SERVICE_EXIT_NEVER_RESTART 100 /* configuration, layout: RestartPreventExitStatus */
#define SERVICE_EXIT_TEMPORARY     75  /* EX_TEMPFAIL: restart and try again */

#define SERVICE_STATUS_NS (2 * NS_PER_S) /* how often a loop tells its status */

struct service {
    int signal_fd;         /* readable when a signal came */
    uint64_t watchdog_ns;  /* interval between heartbeats; 0: no watchdog */
    uint64_t heartbeat_ns; /* when the last one was sent */
    volatile int stopping; /* set by service_poll */
    volatile int reload;   /* set by SIGHUP; the caller clears it */
};

int service_init(struct service *s, struct azoth_error *err);
/* Has the log tell what it left out so far, too. */
void service_fini(struct service *s);
/* Reads pending signals without blocking; returns s->stopping. */
int service_poll(struct service *s);
void service_ready(struct service *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void service_status(struct service *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void service_stopping(struct service *s);
/* Around rereading the configuration: RELOADING=1 with the time, which the supervisor wants, and READY=1. */
void service_reloading(struct service *s);
void service_reloaded(struct service *s);
/* Call from the loop itself: sends WATCHDOG=1 when half of the interval has passed, and has the log
 * tell what it left out. */
void service_heartbeat(struct service *s, uint64_t now_ns);
/* Exit code of a process that cannot start for this reason: 100, 75, or 1 for the rest. */
int service_exit_code(int azoth_code);

#endif
