#include "core/reqrep.h"

#include "core/dbdir.h"
#include "core/error.h"
#include "core/pipe.h"
#include "core/record.h"
#include "core/wire.h"

#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define SP_HEADER_MAX sizeof(((struct reqrep_return *)0)->header)

struct reqrep {
    int socket;
    int receive_timeout_ms;
    _Atomic int send_timeout_ms;
};

static int set_int(int s, int option, int value)
{
    return nn_setsockopt(s, NN_SOL_SOCKET, option, &value, sizeof value);
}

static int nn_error(struct azoth_error *err, const char *what)
{
    int e = nn_errno();
    /* EAFNOSUPPORT: a unit's RestrictAddressFamilies= has it forbidden. */
    int code = e == EADDRINUSE                                  ? AZOTH_ERR_DUPLICATE
               : e == EINVAL || e == ENODEV                     ? AZOTH_ERR_USAGE
               : e == ENOMEM                                    ? AZOTH_ERR_NOMEM
               : e == EACCES || e == EPERM || e == EAFNOSUPPORT ? AZOTH_ERR_PERMISSION
                                                                : AZOTH_ERR_IO;
    return error_foreign(err, code, e, "%s: %s", what, nn_strerror(e));
}

static int check_endpoint(const char *endpoint, struct azoth_error *err)
{
    size_t n = strlen(endpoint);
    if (strncmp(endpoint, "ipc://", 6) == 0 && n > 6 && n - 6 < DBDIR_SOCKET_PATH_MAX)
        return 0;
    if (strncmp(endpoint, "tcp://", 6) == 0 && n > 6 && n < NN_SOCKADDR_MAX)
        return 0;
    return error_set(err, AZOTH_ERR_USAGE,
                     "%s: neither ipc://PATH (at most %u bytes) nor tcp://ADDRESS:PORT", endpoint,
                     DBDIR_SOCKET_PATH_MAX - 1);
}

static int open_socket(int protocol, struct reqrep **ret, struct azoth_error *err)
{
    struct reqrep *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "a socket");
    s->socket = nn_socket(AF_SP_RAW, protocol);
    if (s->socket < 0) {
        int rc = nn_error(err, "socket");
        free(s);
        return rc;
    }
    /* nanomsg counts the SP header in: without room for it the greatest message never arrives. */
    set_int(s->socket, NN_RCVMAXSIZE, (int)(WIRE_MESSAGE_MAX + SP_HEADER_MAX));
    set_int(s->socket, NN_RCVTIMEO, 0);
    set_int(s->socket, NN_SNDTIMEO, 1000);
    set_int(s->socket, NN_SNDBUF, 1 << 20);
    set_int(s->socket, NN_RCVBUF, 1 << 20);
    set_int(s->socket, NN_RECONNECT_IVL, 10);
    set_int(s->socket, NN_RECONNECT_IVL_MAX, 500);
    *ret = s;
    return 0;
}

int reqrep_bind_more(struct reqrep *s, const char *endpoint, struct azoth_error *err)
{
    int rc = pipe_prepare_bind(endpoint, err);
    if (rc)
        return rc;
    /* 0660 from the first moment: who can connect can abort this process. */
    mode_t mask = umask(0117);
    rc = nn_bind(s->socket, endpoint);
    umask(mask);
    return rc < 0 ? nn_error(err, endpoint) : 0;
}

int reqrep_bind(const char *endpoint, struct reqrep **ret, struct azoth_error *err)
{
    struct reqrep *s;
    int rc = open_socket(NN_REP, &s, err);
    if (rc)
        return rc;
    rc = reqrep_bind_more(s, endpoint, err);
    if (rc)
        reqrep_close(s);
    else
        *ret = s;
    return rc;
}

int reqrep_connect(const char *endpoint, struct reqrep **ret, struct azoth_error *err)
{
    struct reqrep *s;
    int rc = check_endpoint(endpoint, err);
    if (!rc)
        rc = open_socket(NN_REQ, &s, err);
    if (rc)
        return rc;
    if (nn_connect(s->socket, endpoint) < 0) {
        rc = nn_error(err, endpoint);
        reqrep_close(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void reqrep_close(struct reqrep *s)
{
    if (!s)
        return;
    while (nn_close(s->socket) < 0 && nn_errno() == EINTR)
        ;
    free(s);
}

int reqrep_poll_fd(struct reqrep *s)
{
    int fd = -1;
    size_t size = sizeof fd;
    if (nn_getsockopt(s->socket, NN_SOL_SOCKET, NN_RCVFD, &fd, &size) < 0)
        return -1;
    return fd;
}

/* The SP header of a message, out of its control data: a size_t length and the bytes. 1, or 0 when
 * there is none that fits. */
static int header_of(struct nn_msghdr *h, struct reqrep_return *ret)
{
    for (struct nn_cmsghdr *c = NN_CMSG_FIRSTHDR(h); c; c = NN_CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level != PROTO_SP || c->cmsg_type != SP_HDR)
            continue;
        size_t n;
        memcpy(&n, NN_CMSG_DATA(c), sizeof n);
        if (n > sizeof ret->header || n < 4)
            return 0;
        memcpy(ret->header, NN_CMSG_DATA(c) + sizeof n, n);
        ret->len = (uint32_t)n;
        return 1;
    }
    return 0;
}

static int receive(struct reqrep *s, int timeout_ms, struct reqrep_return *ret_to,
                   struct azoth_bytes *ret, struct azoth_error *err)
{
    if (timeout_ms != s->receive_timeout_ms && timeout_ms > 0) {
        set_int(s->socket, NN_RCVTIMEO, timeout_ms);
        s->receive_timeout_ms = timeout_ms;
    }
    for (;;) {
        void *body, *control;
        struct nn_iovec iov = {&body, NN_MSG};
        struct nn_msghdr h = {&iov, 1, &control, NN_MSG};
        int n = nn_recvmsg(s->socket, &h, timeout_ms == 0 ? NN_DONTWAIT : 0);
        if (n < 0) {
            int e = nn_errno();
            if (e == EAGAIN || e == ETIMEDOUT || e == EINTR)
                return 0;
            return nn_error(err, "receive");
        }
        /* NN_CMSG_FIRSTHDR wants the buffer itself, not the pointer to it. */
        struct nn_msghdr view = {NULL, 0, &control, NN_MSG};
        int ok = header_of(&view, ret_to);
        nn_freemsg(control);
        if (ok) {
            *ret = (struct azoth_bytes){body, (size_t)n};
            return 1;
        }
        nn_freemsg(body); /* no way back to its sender */
    }
}

static int send_with(struct reqrep *s, const unsigned char *header, size_t len,
                     struct azoth_bytes message, int timeout_ms, struct azoth_error *err)
{
    if (message.len > WIRE_MESSAGE_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "a message of %zu bytes: at most %u", message.len,
                         WIRE_MESSAGE_MAX);
    _Alignas(16) unsigned char control[NN_CMSG_SPACE(sizeof(size_t) + SP_HEADER_MAX)] = {0};
    struct nn_cmsghdr *c = (void *)control;
    c->cmsg_level = PROTO_SP;
    c->cmsg_type = SP_HDR;
    c->cmsg_len = NN_CMSG_LEN(sizeof(size_t) + len);
    memcpy(NN_CMSG_DATA(c), &len, sizeof len);
    memcpy(NN_CMSG_DATA(c) + sizeof len, header, len);
    /* Set at each change only: senders share the socket, and a stale value costs a little time. */
    if (timeout_ms > 0 && timeout_ms != atomic_load(&s->send_timeout_ms)) {
        set_int(s->socket, NN_SNDTIMEO, timeout_ms);
        atomic_store(&s->send_timeout_ms, timeout_ms);
    }
    struct nn_iovec iov = {(void *)(uintptr_t)message.ptr, message.len};
    struct nn_msghdr h = {&iov, 1, control, NN_CMSG_SPACE(sizeof(size_t) + len)};
    int n;
    do {
        n = nn_sendmsg(s->socket, &h, timeout_ms == 0 ? NN_DONTWAIT : 0);
    } while (n < 0 && nn_errno() == EINTR);
    if (n >= 0)
        return 0;
    int e = nn_errno();
    if (e == EAGAIN || e == ETIMEDOUT)
        return error_set(err, AZOTH_ERR_BUSY, "the peer takes no more messages now");
    return nn_error(err, "send");
}

int reqrep_receive(struct reqrep *s, int timeout_ms, struct reqrep_return *ret_to,
                   struct azoth_bytes *ret, struct azoth_error *err)
{
    return receive(s, timeout_ms, ret_to, ret, err);
}

int reqrep_answer(struct reqrep *s, const struct reqrep_return *to, struct azoth_bytes message,
                  int timeout_ms, struct azoth_error *err)
{
    return send_with(s, to->header, to->len, message, timeout_ms, err);
}

int reqrep_request(struct reqrep *s, uint32_t request_id, struct azoth_bytes message,
                   int timeout_ms, struct azoth_error *err)
{
    unsigned char header[4];
    put_u32(header, __builtin_bswap32(request_id | 0x80000000u));
    return send_with(s, header, sizeof header, message, timeout_ms, err);
}

int reqrep_collect(struct reqrep *s, int timeout_ms, uint32_t *ret_request_id,
                   struct azoth_bytes *ret, struct azoth_error *err)
{
    struct reqrep_return to;
    int rc = receive(s, timeout_ms, &to, ret, err);
    if (rc == 1)
        *ret_request_id = __builtin_bswap32(get_u32(to.header)) & 0x7fffffffu;
    return rc;
}

uint32_t reqrep_breaks(struct reqrep *s)
{
    return (uint32_t)nn_get_statistic(s->socket, NN_STAT_BROKEN_CONNECTIONS);
}

void reqrep_release(struct azoth_bytes message)
{
    nn_freemsg((void *)(uintptr_t)message.ptr);
}
