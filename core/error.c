#define CORE_ERROR_IMPLEMENTATION
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

struct row {
    const char *name;
    const char *sentence;
    enum azoth_class class;
    int exit;
};

static const struct row rows[] = {[0] = {"AZOTH_OK", "done", AZOTH_CLASS_NONE, 0},
#define X(name, number, class, exit, sentence)                                                     \
    [number] = {"AZOTH_ERR_" #name, sentence, AZOTH_CLASS_##class, exit},
                                  AZOTH_ERRORS(X)
#undef X
};

static const struct row *row_of(int code)
{
    static const struct row unknown = {"AZOTH_ERR_?", "an unknown error", AZOTH_CLASS_SYSTEM, 4};
    if (code > 0 || code <= -(int)(sizeof rows / sizeof *rows) || !rows[-code].name)
        return &unknown;
    return &rows[-code];
}

const char *azoth_code_name(int code)
{
    return row_of(code)->name;
}

const char *azoth_code_sentence(int code)
{
    return row_of(code)->sentence;
}

enum azoth_class azoth_code_class(int code)
{
    return row_of(code)->class;
}

int azoth_code_exit(int code)
{
    return row_of(code)->exit;
}

static void fill(struct azoth_error *err, int code, int foreign, const char *fmt, va_list ap)
{
    if (!err)
        return;
    /* The arguments may point into *err itself (a message that quotes the one below). */
    char text[sizeof err->message];
    vsnprintf(text, sizeof text, fmt, ap);
    err->code = code;
    err->foreign = foreign;
    memcpy(err->message, text, sizeof text);
}

int error_set(struct azoth_error *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, 0, fmt, ap);
    va_end(ap);
    return code;
}

int error_foreign(struct azoth_error *err, int code, int foreign, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, foreign, fmt, ap);
    va_end(ap);
    return code;
}

int error_from_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        return AZOTH_ERR_NOSPACE;
    case ENOMEM:
        return AZOTH_ERR_NOMEM;
    case EACCES:
    case EPERM:
    case EROFS:
        return AZOTH_ERR_PERMISSION;
    default:
        return AZOTH_ERR_IO;
    }
}

int error_errno(struct azoth_error *err, int errnum, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char reason[80];
    return error_foreign(err, error_from_errno(errnum), errnum, "%s: %s", text,
                         strerror_r(errnum, reason, sizeof reason));
}

void ensure_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "<2>bug: %s does not hold at %s:%d\n", cond, file, line);
    abort();
}
