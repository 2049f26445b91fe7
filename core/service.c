#include "core/service.h"

#include "core/error.h"
#include "core/log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

int service_init(struct service *s, struct azoth_error *err)
{
    memset(s, 0, sizeof *s);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    int e = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (e)
        return error_errno(err, e, "signals");
    signal(SIGPIPE, SIG_IGN);
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->signal_fd < 0)
        return error_errno(err, errno, "signals");
    uint64_t us = 0;
    if (sd_watchdog_enabled(0, &us) > 0)
        s->watchdog_ns = us * 1000;
    return 0;
}

void service_fini(struct service *s)
{
    log_settle(UINT64_MAX); /* nobody will come back to it */
    if (s->signal_fd > 0)
        close(s->signal_fd);
    s->signal_fd = -1;
}

int service_poll(struct service *s)
{
    struct signalfd_siginfo si;
    while (read(s->signal_fd, &si, sizeof si) == sizeof si) {
        if (si.ssi_signo == SIGHUP)
            s->reload = 1;
        else
            s->stopping = 1;
    }
    return s->stopping;
}

static void notify(const char *head, const char *fmt, va_list ap)
{
    char text[256], message[320];
    vsnprintf(text, sizeof text, fmt, ap);
    snprintf(message, sizeof message, "%sSTATUS=%s", head, text);
    sd_notify(0, message);
}

void service_ready(struct service *s, const char *fmt, ...)
{
    (void)s;
    va_list ap;
    va_start(ap, fmt);
    notify("READY=1\n", fmt, ap);
    va_end(ap);
}

void service_status(struct service *s, const char *fmt, ...)
{
    (void)s;
    va_list ap;
    va_start(ap, fmt);
    notify("", fmt, ap);
    va_end(ap);
}

void service_stopping(struct service *s)
{
    (void)s;
    sd_notify(0, "STOPPING=1");
}

void service_reloading(struct service *s)
{
    (void)s;
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
               (unsigned long long)(clock_mono_ns() / NS_PER_US));
}

void service_reloaded(struct service *s)
{
    s->reload = 0;
    sd_notify(0, "READY=1");
}

void service_heartbeat(struct service *s, uint64_t now_ns)
{
    log_settle(now_ns);
    if (s->watchdog_ns == 0 || now_ns - s->heartbeat_ns < s->watchdog_ns / 2)
        return;
    s->heartbeat_ns = now_ns;
    sd_notify(0, "WATCHDOG=1");
}

int service_exit_code(int azoth_code)
{
    switch (azoth_code) {
    case AZOTH_ERR_CONFIG:
    case AZOTH_ERR_USAGE:
    case AZOTH_ERR_LAYOUT:
    case AZOTH_ERR_FORMAT:
    case AZOTH_ERR_PROJECTION:
    case AZOTH_ERR_DIVERGED:
    case AZOTH_ERR_GAP:
    case AZOTH_ERR_PERMISSION: /* a mode, an owner, a disk that is mounted for reading only */
        return SERVICE_EXIT_NEVER_RESTART;
    case AZOTH_ERR_NO_DATABASE: /* its writer, started beside us, may be about to make it */
    case AZOTH_ERR_NO_WRITER:
    case AZOTH_ERR_RETIRED:
    case AZOTH_ERR_UNREACHABLE:
        return SERVICE_EXIT_TEMPORARY;
    default:
        return 1;
    }
}
