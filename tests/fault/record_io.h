/*
 * record_io.h - inside the recorder: what is recorded of a process, for those calls that are not.
 */
#ifndef TESTS_FAULT_RECORD_IO_H
#define TESTS_FAULT_RECORD_IO_H

#include <limits.h>

#pragma GCC visibility push(hidden)

/* The file's name below the recorded directory, or NULL; "" is the directory. */
const char *record_name(const char *path);
/* The path that a name stands for below a directory's descriptor: `path`, or out. */
const char *record_path(int dir, const char *path, char out[PATH_MAX]);
/* Says that it is not recorded, and aborts. */
void record_refuse(const char *what, const char *name) __attribute__((noreturn));
/* The same when the descriptor is of a recorded file that a power cut leaves something of. */
void record_must_not(int fd, const char *what);
/* The descriptor is about to be another's. */
void record_forget(int fd);

#pragma GCC visibility pop
#endif
