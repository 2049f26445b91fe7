/*
 * http.h - the HTTP server of the exporter: libmicrohttpd, in the caller's thread and poll loop.
 *
 * Made for who may be hostile: GET and HEAD only; HTTP_CONNECTIONS at a time, each with
 * HTTP_CONNECTION_BYTES for what it sends; a request that is not there whole, or an answer that is not taken,
 * HTTP_REQUEST_NS after the connection's last one ends it, however steadily bytes trickle; while all are taken
 * HTTP_CROWDED_NS after it, so that a scrape gets through a crowd.
 *
 * The only place with MHD_ calls.
 */
#ifndef EXPORTER_HTTP_H
#define EXPORTER_HTTP_H

#include "core/azoth_base.h"

#define HTTP_CONNECTIONS      32u
#define HTTP_CONNECTION_BYTES 16384u
#define HTTP_REQUEST_NS       10000000000ull
#define HTTP_CROWDED_NS       1000000000ull /* the same while all connections are taken */

struct http_answer {
    unsigned status;         /* 200, 503; 404 is what the server says itself */
    const char *type;        /* of the content, a constant */
    struct azoth_bytes body; /* copied, unless lasting */
    int lasting;             /* lives as long as the process */
};

/* Answers a path: 1 with *ret filled, 0: there is none of this name. Runs within http_step(). */
typedef int http_handler(void *arg, const char *path, struct http_answer *ret);

struct http;

/* listen is HOST:PORT with a numeric host ([::1]:7109), port 0 for any. Accepts from now on. CONFIG (the
 * text), IO (the port is taken), PERMISSION, NOMEM. */
int http_open(const char *listen, http_handler *handler, void *arg, struct http **ret,
              struct azoth_error *err);
void http_close(struct http *h); /* NULL is accepted */

/* "127.0.0.1:7109", with the port that was chosen. */
const char *http_address(const struct http *h);

/* Readable when http_step() has something to do; it also has after http_timeout_ms(). */
int http_poll_fd(const struct http *h);
int http_timeout_ms(const struct http *h);
/* Does what can be done without waiting. */
void http_step(struct http *h, uint64_t now_ns);
uint64_t http_requests(const struct http *h); /* answered so far */

#endif
