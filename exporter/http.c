/*
 * http.c - see http.h.
 *
 * Happy path: the poll loop sees the epoll descriptor readable, MHD_run() accepts, reads, calls
 * on_request() twice (headers, then the end of the request), and sends.
 *
 * Failure modes:
 *   no request, half a request, bytes one by one -> the connection is shut down at its deadline; MHD
 *                                  sees the end and closes it (its own timeout counts silence only)
 *   an answer that nobody reads -> the same
 *   too many connections        -> the rest waits in the kernel's queue until one ends: deadlines are
 *                                  shorter meanwhile
 *   a page of another site, in a browser here, whose name was made to point to this address (DNS
 *                                  rebinding) -> its Host is neither a number nor localhost: 421
 */
#include "exporter/http.h"

#include "core/clock.h"
#include "core/error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    int fd; /* -1: the place is free */
    uint64_t since_ns;
};

struct http {
    struct MHD_Daemon *daemon;
    http_handler *handler;
    void *arg;
    int loopback; /* bound to this machine alone */
    uint64_t now_ns, requests;
    char address[80];
    struct connection connection[HTTP_CONNECTIONS];
};

/* ---- answering ---- */

static enum MHD_Result send_answer(struct http *h, struct MHD_Connection *c,
                                   const struct http_answer *a)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(
        a->body.len, (void *)(uintptr_t)a->body.ptr,
        a->lasting ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO; /* closes the connection */
    static const char *const headers[][2] = {
        {"Cache-Control", "no-store"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        /* The page brings everything along; texts of others in it must not fetch or run anything. */
        {"Content-Security-Policy",
         "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
         "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
         "frame-ancestors 'none'"},
    };
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        MHD_add_response_header(r, headers[i][0], headers[i][1]);
    if (a->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result done = MHD_queue_response(c, a->status, r);
    MHD_destroy_response(r);
    h->requests++;
    return done;
}

static enum MHD_Result say(struct http *h, struct MHD_Connection *c, unsigned status,
                           const char *sentence)
{
    struct http_answer a = {.status = status,
                            .type = "text/plain; charset=utf-8",
                            .body = {sentence, strlen(sentence)},
                            .lasting = 1};
    return send_answer(h, c, &a);
}

/* A number, [number] or localhost, with or without a port. */
static int host_is_ours(const char *host)
{
    char name[64];
    unsigned char bits[16];
    int bracket = *host == '[';
    size_t n = strcspn(host + bracket, bracket ? "]" : ":");
    if (n >= sizeof name)
        return 0;
    memcpy(name, host + bracket, n);
    name[n] = 0;
    return strcasecmp(name, "localhost") == 0 || inet_pton(AF_INET, name, bits) == 1 ||
           inet_pton(AF_INET6, name, bits) == 1;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_len, void **state)
{
    struct http *h = arg;
    static char begun;
    (void)version;
    (void)data;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return say(h, c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD are all there is\n");
    if (!*state || *data_len) {
        /* The headers came; what a GET has for a body is dropped. */
        *state = &begun;
        *data_len = 0;
        return MHD_YES;
    }
    const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    if (h->loopback && host && !host_is_ours(host))
        return say(h, c, 421, "ask for this address by its number, or localhost\n");
    struct http_answer a = {.status = MHD_HTTP_OK};
    if (!h->handler(h->arg, path, &a))
        return say(h, c, MHD_HTTP_NOT_FOUND, "there is no such page; / is one\n");
    return send_answer(h, c, &a);
}

/* Paths are compared as they came: none of ours has anything to decode, and %00 would cut one short. */
static size_t leave_escaped(void *arg, struct MHD_Connection *c, char *path)
{
    (void)arg;
    (void)c;
    return strlen(path);
}

/* ---- deadlines ---- */

static void on_connection(void *arg, struct MHD_Connection *c, void **state,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http *h = arg;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*state)
            ((struct connection *)*state)->fd = -1;
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    for (uint32_t i = 0; info && i < HTTP_CONNECTIONS; i++)
        if (h->connection[i].fd < 0) {
            h->connection[i] = (struct connection){info->connect_fd, h->now_ns};
            *state = &h->connection[i];
            return;
        }
}

static void on_completed(void *arg, struct MHD_Connection *c, void **state,
                         enum MHD_RequestTerminationCode how)
{
    struct http *h = arg;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    (void)how;
    *state = NULL;
    if (info && info->socket_context)
        ((struct connection *)info->socket_context)->since_ns = h->now_ns;
}

/* While there is no room, those who wait for it count more than those who are slow. */
static void end_overdue(struct http *h)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; i < HTTP_CONNECTIONS; i++)
        taken += h->connection[i].fd >= 0;
    uint64_t most = taken == HTTP_CONNECTIONS ? HTTP_CROWDED_NS : HTTP_REQUEST_NS;
    for (uint32_t i = 0; i < HTTP_CONNECTIONS; i++) {
        struct connection *c = &h->connection[i];
        if (c->fd >= 0 && h->now_ns - c->since_ns >= most)
            shutdown(c->fd, SHUT_RDWR);
    }
}

void http_step(struct http *h, uint64_t now_ns)
{
    h->now_ns = now_ns;
    end_overdue(h);
    MHD_run(h->daemon);
}

int http_poll_fd(const struct http *h)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    return info ? info->epoll_fd : -1;
}

int http_timeout_ms(const struct http *h)
{
    MHD_UNSIGNED_LONG_LONG ms;
    /* Deadlines are looked at once a second. */
    if (MHD_get_timeout(h->daemon, &ms) != MHD_YES || ms > 1000)
        return 1000;
    return (int)ms;
}

uint64_t http_requests(const struct http *h)
{
    return h->requests;
}

const char *http_address(const struct http *h)
{
    return h->address;
}

/* ---- listening ---- */

/* Splits HOST:PORT; brackets around the host are taken off. */
static int parse(const char *text, struct addrinfo **ret, struct azoth_error *err)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    int bracket = n > 2 && *text == '[' && text[n - 1] == ']';
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                   .ai_socktype = SOCK_STREAM};
    /* getaddrinfo() takes any number, and the port would be what is left of it modulo 65536. */
    if (n == 0 || n >= sizeof host || !colon[1] || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || atoi(colon + 1) > 65535)
        return error_set(err, AZOTH_ERR_CONFIG,
                         "exporter.listen: %s is not an address and a port, as 127.0.0.1:7109",
                         text);
    snprintf(host, sizeof host, "%.*s", (int)(n - 2 * (size_t)bracket), text + bracket);
    int e = getaddrinfo(host, colon + 1, &hints, ret);
    return e ? error_set(err, AZOTH_ERR_CONFIG, "exporter.listen: %s: %s", text, gai_strerror(e))
             : 0;
}

/* By the numbers as they are written: 127.x.x.x or ::1. */
static int is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

static int say_address(struct http *h, int fd)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof sa;
    char host[64], port[8];
    if (getsockname(fd, (struct sockaddr *)&sa, &len) ||
        getnameinfo((struct sockaddr *)&sa, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return AZOTH_ERR_IO;
    snprintf(h->address, sizeof h->address, sa.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
             port);
    h->loopback = is_loopback(host);
    return 0;
}

static int bind_to(struct http *h, const char *listen_text, int *ret, struct azoth_error *err)
{
    struct addrinfo *at = NULL;
    int yes = 1, rc = parse(listen_text, &at, err);
    if (rc)
        return rc;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
        bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, 64) || say_address(h, fd))
        rc = error_errno(err, errno, "exporter.listen %s", listen_text);
    freeaddrinfo(at);
    if (rc && fd >= 0)
        close(fd);
    *ret = fd;
    return rc;
}

int http_open(const char *listen_text, http_handler *handler, void *arg, struct http **ret,
              struct azoth_error *err)
{
    struct http *h = calloc(1, sizeof *h);
    int fd, rc;
    if (!h)
        return error_set(err, AZOTH_ERR_NOMEM, "the HTTP server");
    h->handler = handler;
    h->arg = arg;
    h->now_ns = clock_mono_ns();
    for (uint32_t i = 0; i < HTTP_CONNECTIONS; i++)
        h->connection[i].fd = -1;
    rc = bind_to(h, listen_text, &fd, err);
    if (rc) {
        free(h);
        return rc;
    }
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HTTP_CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)(HTTP_REQUEST_NS / NS_PER_S), MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_END);
    if (!h->daemon) {
        close(fd);
        free(h);
        return error_set(err, AZOTH_ERR_IO, "the HTTP server does not start");
    }
    *ret = h;
    return 0;
}

void http_close(struct http *h)
{
    if (!h)
        return;
    MHD_stop_daemon(h->daemon);
    free(h);
}
