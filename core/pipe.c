#include "core/pipe.h"

#include "core/dbdir.h"
#include "core/error.h"
#include "core/wire.h"

#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pipeline.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct pipe_end {
    int socket;
};

/* Both ends of every socket: explicit limits and times (nanomsg's defaults block for ever, and a
 * message over the default size makes the pair reconnect for ever). */
static int set_int(int s, int option, int value)
{
    return nn_setsockopt(s, NN_SOL_SOCKET, option, &value, sizeof value);
}

static int check_endpoint(const char *endpoint, struct azoth_error *err)
{
    if (strncmp(endpoint, "ipc://", 6) == 0) {
        /* A path of 108 to 121 characters makes nanomsg abort(). */
        if (strlen(endpoint + 6) < DBDIR_SOCKET_PATH_MAX && endpoint[6])
            return 0;
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path of a socket has 1 to %u bytes",
                         endpoint, DBDIR_SOCKET_PATH_MAX - 1);
    }
    if (strncmp(endpoint, "tcp://", 6) == 0 && strlen(endpoint) < NN_SOCKADDR_MAX)
        return 0;
    return error_set(err, AZOTH_ERR_USAGE, "%s: neither ipc://PATH nor tcp://ADDRESS:PORT",
                     endpoint);
}

/*
 * nanomsg would do this itself, but it aborts the process when the file cannot be removed (a
 * directory, a directory that is not ours), and removes a regular file without a word.
 */
static int remove_stale(const char *path, struct azoth_error *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, AZOTH_ERR_DUPLICATE, "%s is there and is no socket", path);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(err, errno, "socket");
    int e = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : errno;
    close(fd);
    if (e == 0 || e == EAGAIN || e == EINPROGRESS)
        return error_set(err, AZOTH_ERR_DUPLICATE, "%s is in use", path);
    if (e != ECONNREFUSED && e != ENOENT)
        return error_errno(err, e, "%s", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return error_errno(err, errno, "%s", path);
    return 0;
}

int pipe_prepare_bind(const char *endpoint, struct azoth_error *err)
{
    int rc = check_endpoint(endpoint, err);
    if (rc || strncmp(endpoint, "ipc://", 6) != 0)
        return rc;
    return remove_stale(endpoint + 6, err);
}

static int nn_error(struct azoth_error *err, const char *endpoint)
{
    int e = nn_errno();
    /* EAFNOSUPPORT: a unit's RestrictAddressFamilies= has it forbidden. */
    int code = e == EADDRINUSE                                  ? AZOTH_ERR_DUPLICATE
               : e == EINVAL || e == ENODEV                     ? AZOTH_ERR_USAGE
               : e == ENOMEM                                    ? AZOTH_ERR_NOMEM
               : e == EACCES || e == EPERM || e == EAFNOSUPPORT ? AZOTH_ERR_PERMISSION
                                                                : AZOTH_ERR_IO;
    return error_foreign(err, code, e, "%s: %s", endpoint, nn_strerror(e));
}

static int open_socket(int protocol, struct pipe_end **ret, struct azoth_error *err)
{
    struct pipe_end *p = malloc(sizeof *p);
    if (!p)
        return error_set(err, AZOTH_ERR_NOMEM, "a socket");
    p->socket = nn_socket(AF_SP, protocol);
    if (p->socket < 0) {
        int rc = nn_error(err, "socket");
        free(p);
        return rc;
    }
    if (protocol == NN_PULL)
        set_int(p->socket, NN_RCVMAXSIZE, (int)WIRE_MESSAGE_MAX);
    set_int(p->socket, NN_RECONNECT_IVL, 10);
    set_int(p->socket, NN_RECONNECT_IVL_MAX, 500);
    *ret = p;
    return 0;
}

int pipe_bind_more(struct pipe_end *p, const char *endpoint, struct azoth_error *err)
{
    int rc = pipe_prepare_bind(endpoint, err);
    if (rc)
        return rc;
    /* 0660 from the first moment: who can connect can abort this process. */
    mode_t mask = umask(0117);
    rc = nn_bind(p->socket, endpoint);
    umask(mask);
    return rc < 0 ? nn_error(err, endpoint) : 0;
}

int pipe_bind_pull(const char *endpoint, struct pipe_end **ret, struct azoth_error *err)
{
    struct pipe_end *p;
    int rc = open_socket(NN_PULL, &p, err);
    if (rc)
        return rc;
    rc = pipe_bind_more(p, endpoint, err);
    if (rc)
        pipe_close(p);
    else
        *ret = p;
    return rc;
}

int pipe_connect_push(const char *endpoint, struct pipe_end **ret, struct azoth_error *err)
{
    struct pipe_end *p;
    int rc = check_endpoint(endpoint, err);
    if (!rc)
        rc = open_socket(NN_PUSH, &p, err);
    if (rc)
        return rc;
    /* What the kernel holds. nanomsg itself takes the next message when this one has gone to it. */
    set_int(p->socket, NN_SNDBUF, 4 << 20);
    if (nn_connect(p->socket, endpoint) < 0) {
        rc = nn_error(err, endpoint);
        pipe_close(p);
        return rc;
    }
    *ret = p;
    return 0;
}

void pipe_close(struct pipe_end *p)
{
    if (!p)
        return;
    while (nn_close(p->socket) < 0 && nn_errno() == EINTR)
        ;
    free(p);
}

int pipe_receive(struct pipe_end *p, int timeout_ms, struct azoth_bytes *ret,
                 struct azoth_error *err)
{
    void *message;
    int n;
    if (timeout_ms)
        set_int(p->socket, NN_RCVTIMEO, timeout_ms);
    do {
        n = nn_recv(p->socket, &message, NN_MSG, timeout_ms == 0 ? NN_DONTWAIT : 0);
    } while (n < 0 && nn_errno() == EINTR && timeout_ms == 0);
    if (n >= 0) {
        *ret = (struct azoth_bytes){message, (size_t)n};
        return 1;
    }
    int e = nn_errno();
    if (e == EAGAIN || e == ETIMEDOUT || e == EINTR)
        return 0;
    return nn_error(err, "receive");
}

void pipe_release(struct azoth_bytes message)
{
    nn_freemsg((void *)(uintptr_t)message.ptr);
}

static int fd_of(struct pipe_end *p, int option)
{
    int fd = -1;
    size_t size = sizeof fd;
    if (nn_getsockopt(p->socket, NN_SOL_SOCKET, option, &fd, &size) < 0)
        return -1;
    return fd;
}

int pipe_poll_fd(struct pipe_end *p)
{
    return fd_of(p, NN_RCVFD);
}

int pipe_send_fd(struct pipe_end *p)
{
    return fd_of(p, NN_SNDFD);
}

int pipe_send(struct pipe_end *p, struct azoth_bytes message, int timeout_ms,
              struct azoth_error *err)
{
    int n;
    if (message.len > WIRE_MESSAGE_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "a message of %zu bytes: at most %u", message.len,
                         WIRE_MESSAGE_MAX);
    if (timeout_ms)
        set_int(p->socket, NN_SNDTIMEO, timeout_ms);
    do {
        n = nn_send(p->socket, message.ptr, message.len, timeout_ms == 0 ? NN_DONTWAIT : 0);
    } while (n < 0 && nn_errno() == EINTR);
    if (n >= 0)
        return 0;
    int e = nn_errno();
    if (e == EAGAIN || e == ETIMEDOUT)
        return error_set(err, AZOTH_ERR_BUSY, "the peer takes no more messages now");
    return nn_error(err, "send");
}
