/* error.h - making and passing errors inside the project. */
#ifndef CORE_ERROR_H
#define CORE_ERROR_H

#include "core/azoth_base.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * Fills *err (may be NULL) and returns code, so that a failing call reads `return error_set(...)`.
 * The message is cut at its field's size.
 */
int error_set(struct azoth_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with the foreign library's code kept beside it. */
int error_foreign(struct azoth_error *err, int code, int foreign, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Code for an errno: ENOSPC and EDQUOT NOSPACE, ENOMEM NOMEM, EACCES and EPERM PERMISSION, else IO.
 */
int error_from_errno(int errnum);

/* error_foreign(err, error_from_errno(errnum), errnum, "WHAT: strerror"). */
int error_errno(struct azoth_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The static analyzer must see that these never return 0: it cannot look into another file. */
#if defined(__clang_analyzer__) && !defined(CORE_ERROR_IMPLEMENTATION)
#define error_set(err, code, ...)        ((void)(error_set)(err, code, __VA_ARGS__), (code))
#define error_foreign(err, code, n, ...) ((void)(error_foreign)(err, code, n, __VA_ARGS__), (code))
#define error_errno(err, errnum, ...)    ((void)(error_errno)(err, errnum, __VA_ARGS__), AZOTH_ERR_IO)
#define error_from_errno(errnum)         ((void)(error_from_errno)(errnum), AZOTH_ERR_IO)
#endif

/*
 * A check of our own bugs; stays on in release. One condition each. Never for what came from
 * outside (a file, a socket, shared memory): that is answered with an error.
 */
#define ensure(cond)                                                                               \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            ensure_failed(#cond, __FILE__, __LINE__);                                              \
    } while (0)

_Noreturn void ensure_failed(const char *cond, const char *file, int line);

#endif
