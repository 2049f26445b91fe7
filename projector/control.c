#include "projector/control.h"

#include "core/buf.h"
#include "core/clock.h"
#include "core/crash.h"
#include "core/dbdir.h"
#include "core/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define TAKE_MAX 64 /* commands of one step */

struct control {
    struct sockaddr_un at;
    int fd;
    int client[CONTROL_CLIENTS];
    unsigned clients;
    int holder; /* its descriptor; -1: nobody holds */
    uint64_t hold_until_ns;
};

static int address(const char *run_dir, const char *name, struct sockaddr_un *ret,
                   struct azoth_error *err)
{
    memset(ret, 0, sizeof *ret);
    ret->sun_family = AF_UNIX;
    return dbdir_path(ret->sun_path, sizeof ret->sun_path, run_dir, "dlq-%s.sock", name)
               ? error_set(err, AZOTH_ERR_USAGE, "%.100s: the path of a socket in it is too long",
                           run_dir)
               : 0;
}

int control_open(const char *run_dir, const char *name, struct control **ret,
                 struct azoth_error *err)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(err, AZOTH_ERR_NOMEM, "a socket");
    c->fd = c->holder = -1;
    int rc = address(run_dir, name, &c->at, err);
    if (!rc && (c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) < 0)
        rc = error_errno(err, errno, "a socket");
    if (!rc) {
        unlink(c->at.sun_path);
        if (bind(c->fd, (struct sockaddr *)&c->at, sizeof c->at) || chmod(c->at.sun_path, 0660) ||
            listen(c->fd, CONTROL_CLIENTS))
            rc = error_errno(err, errno, "%s", c->at.sun_path);
    }
    if (rc) {
        c->at.sun_path[0] = 0;
        control_close(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void control_close(struct control *c)
{
    if (!c)
        return;
    /* Before the lock is given up: the next projector's socket has the same name. */
    if (c->at.sun_path[0])
        unlink(c->at.sun_path);
    for (unsigned i = 0; i < c->clients; i++)
        close(c->client[i]);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

unsigned control_fds(const struct control *c, struct pollfd *fds)
{
    unsigned n = 0;
    if (!c)
        return 0;
    /* One too many waits to be accepted. */
    if (c->clients < CONTROL_CLIENTS)
        fds[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
    for (unsigned i = 0; i < c->clients; i++)
        fds[n++] = (struct pollfd){.fd = c->client[i], .events = POLLIN};
    return n;
}

static void hold(struct control *c, int fd, uint64_t cursor, uint64_t now_ns,
                 char answer[COMMAND_ANSWER_MAX])
{
    if (control_held_ns(c, now_ns) && c->holder != fd) {
        snprintf(answer, COMMAND_ANSWER_MAX, "refused %d another process holds it", AZOTH_ERR_BUSY);
        return;
    }
    c->holder = fd;
    c->hold_until_ns = now_ns + CONTROL_HOLD_NS;
    snprintf(answer, COMMAND_ANSWER_MAX, "held %" PRIu64, cursor);
}

uint64_t control_held_ns(const struct control *c, uint64_t now_ns)
{
    return c && c->holder >= 0 && now_ns < c->hold_until_ns ? c->hold_until_ns : 0;
}

struct asked {
    uint64_t cursor, now_ns;
    control_do fn;
    void *arg;
};

/* 1 done, 0 nothing has come, -1 the client is gone (*ret_rc tells of the machine). */
static int serve(struct control *c, int fd, const struct asked *a, int *ret_rc,
                 struct azoth_error *err)
{
    unsigned char packet[COMMAND_ID_BYTES + COMMAND_TEXT_MAX + 1];
    char answer[COMMAND_ANSWER_MAX];
    ssize_t n = recv(fd, packet, sizeof packet, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= (ssize_t)COMMAND_ID_BYTES || n == sizeof packet)
        return -1;
    packet[n] = 0;
    const char *text = (char *)packet + COMMAND_ID_BYTES;
    CRASH_POINT(projector_command_taken);
    if (strcmp(text, "hold") == 0)
        hold(c, fd, a->cursor, a->now_ns, answer);
    else
        *ret_rc = a->fn(a->arg, packet, text, answer, err);
    if (*ret_rc)
        return -1;
    CRASH_POINT(projector_command_done);
    /* One that does not read is as good as gone: it may ask again under the same id. */
    return send(fd, answer, strlen(answer), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 1;
}

static void drop(struct control *c, unsigned i)
{
    if (c->client[i] == c->holder)
        c->holder = -1;
    close(c->client[i]);
    c->client[i] = c->client[--c->clients];
}

int control_step(struct control *c, uint64_t cursor, uint64_t now_ns, control_do fn, void *arg,
                 struct azoth_error *err)
{
    const struct asked a = {cursor, now_ns, fn, arg};
    int done = 0, rc = 0, fd;
    while (c->clients < CONTROL_CLIENTS &&
           (fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
        c->client[c->clients++] = fd;
    for (unsigned i = 0; i < c->clients && done < TAKE_MAX;) {
        int got = serve(c, c->client[i], &a, &rc, err);
        if (got < 0) {
            drop(c, i);
            if (rc)
                return rc;
            continue;
        }
        done += got;
        i++;
    }
    return done;
}

/* ---- the other side ---- */

int control_dial(const char *run_dir, const char *name, int timeout_ms, int *ret_fd,
                 struct azoth_error *err)
{
    struct sockaddr_un at;
    struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000 + 1};
    int rc = address(run_dir, name, &at, err);
    if (rc)
        return rc;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(err, errno, "a socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    if (connect(fd, (const struct sockaddr *)&at, sizeof at) == 0) {
        *ret_fd = fd;
        return 0;
    }
    rc = errno == EACCES || errno == EPERM
             ? error_errno(err, errno, "%s", at.sun_path)
             : error_set(err, AZOTH_ERR_UNREACHABLE, "no projector listens at %s", at.sun_path);
    close(fd);
    return rc;
}

int control_say(int fd, const uint8_t id[COMMAND_ID_BYTES], const char *text,
                char answer[COMMAND_ANSWER_MAX], struct azoth_error *err)
{
    unsigned char packet[COMMAND_ID_BYTES + COMMAND_TEXT_MAX];
    size_t len = strlen(text);
    if (len >= COMMAND_TEXT_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%.80s: too long for a command", text);
    memcpy(packet, id, COMMAND_ID_BYTES);
    memcpy(packet + COMMAND_ID_BYTES, text, len);
    ssize_t n = send(fd, packet, COMMAND_ID_BYTES + len, MSG_NOSIGNAL);
    if (n >= 0)
        n = recv(fd, answer, COMMAND_ANSWER_MAX - 1, 0);
    if (n > 0) {
        answer[n] = 0;
        return 0;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return error_set(err, AZOTH_ERR_OUTCOME_UNKNOWN,
                         "the projector has taken \"%s\", but has not answered yet", text);
    return error_set(err, AZOTH_ERR_UNREACHABLE, "the projector went away");
}

int control_ask(const char *run_dir, const char *name, const uint8_t id[COMMAND_ID_BYTES],
                const char *text, int timeout_ms, char answer[COMMAND_ANSWER_MAX],
                struct azoth_error *err)
{
    int fd;
    int rc = control_dial(run_dir, name, timeout_ms, &fd, err);
    if (rc)
        return rc;
    rc = control_say(fd, id, text, answer, err);
    close(fd);
    return rc;
}
