#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *program_name = "azoth";
static int most = LOG_LEVEL_INFO;
static int with_prefix = 1;

void log_init(const char *program, int max_level)
{
    program_name = program;
    most = max_level;
    with_prefix = !isatty(STDERR_FILENO);
}

int log_level_parse(const char *name, int *ret)
{
    static const struct {
        const char *name;
        int level;
    } levels[] = {{"err", LOG_LEVEL_ERR},
                  {"warning", LOG_LEVEL_WARN},
                  {"notice", LOG_LEVEL_NOTICE},
                  {"info", LOG_LEVEL_INFO},
                  {"debug", LOG_LEVEL_DEBUG}};
    for (unsigned i = 0; i < sizeof levels / sizeof *levels; i++)
        if (strcmp(name, levels[i].name) == 0) {
            *ret = levels[i].level;
            return 0;
        }
    return AZOTH_ERR_CONFIG;
}

void log_line(int level, const char *fmt, ...)
{
    if (level > most)
        return;
    /* One write: lines of several processes on one descriptor do not mix. */
    char line[1024];
    int at = with_prefix ? snprintf(line, sizeof line, "<%d>", level)
                         : snprintf(line, sizeof line, "%s: ", program_name);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line + at, sizeof line - (size_t)at - 1, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    size_t len = strlen(line);
    for (size_t i = 0; i < len; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    line[len] = '\n';
    (void)!write(STDERR_FILENO, line, len + 1);
}

void log_error(int level, const char *what, const struct azoth_error *err)
{
    log_line(level, "%s: %s error=%s code=%d", what, err->message, azoth_code_name(err->code),
             err->foreign);
}
