/*
 * io.h - all of what is to be written or read through a descriptor, however much a call takes or gives.
 *
 * Signals are no errors, and a descriptor that does not block is waited for; so these block as long as the other end
 * lets them. `what` names the file or the other end in errors: NOSPACE (also where nothing more is taken), NOMEM,
 * PERMISSION, IO. Any thread; who writes to a pipe ignores SIGPIPE, or is ended with its reader.
 */
#ifndef CORE_IO_H
#define CORE_IO_H

#include "core/buf.h"

int io_write_all(int fd, const void *p, size_t len, const char *what, struct azoth_error *err);

/* Up to len bytes: *ret_len is less only at the end. */
int io_read_full(int fd, void *p, size_t len, size_t *ret_len, const char *what,
                 struct azoth_error *err);
/* The same of a file's bytes from `at` on, wherever the descriptor stands. */
int io_read_at(int fd, void *p, size_t len, uint64_t at, size_t *ret_len, const char *what,
               struct azoth_error *err);

/* Appends all that is there to out, but stops when out has more than max bytes: whoever finds those refuses it. */
int io_read_all(int fd, struct buf *out, size_t max, const char *what, struct azoth_error *err);

/* As the first two, but `interrupted` (NULL: never) is asked before each call that may block, and several times a second while the descriptor is
 * waited for, so a signal may have come at any time; with 1 it is given up: IO, of EINTR. A pipe that takes a part of what is
 * written lets the call wait for the rest, which a signal ends that comes meanwhile. */
int io_write_unless(int (*interrupted)(void), int fd, const void *p, size_t len, const char *what,
                    struct azoth_error *err);
int io_read_unless(int (*interrupted)(void), int fd, void *p, size_t len, size_t *ret_len,
                   const char *what, struct azoth_error *err);

#endif
