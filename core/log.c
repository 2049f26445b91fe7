#include "core/log.h"

#include "core/buf.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static const char *program_name = "azoth";
static _Atomic int most = LOG_LEVEL_INFO;
static int with_prefix = 1;

/* One kind of line that was written lately. The kind that was longest silent makes room for a new one. */
struct kind {
    uint64_t hash, began_ns, last_ns;
    uint32_t lines, left_out;
    int level;
    char text[96]; /* its sentence, for the line that counts */
};
#define KINDS 32
static struct kind kinds[KINDS];
static pthread_mutex_t kinds_lock = PTHREAD_MUTEX_INITIALIZER;

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

void log_set_level(int max_level)
{
    most = max_level;
}

/* One write: lines of several processes on one descriptor do not mix. */
static void put(int level, const char *text)
{
    char line[1024];
    int at = with_prefix ? snprintf(line, sizeof line, "<%d>", level)
                         : snprintf(line, sizeof line, "%s: ", program_name);
    snprintf(line + at, sizeof line - (size_t)at - 1, "%s", text);
    /* A journal shows a line with anything else in it as so many bytes of data. */
    utf8_tame(line);
    size_t len = strlen(line);
    line[len] = '\n';
    (void)!write(STDERR_FILENO, line, len + 1);
}

const char *log_text(const char *text, char out[LOG_TEXT])
{
    size_t n = 0;
    for (; *text && n + 3 <= LOG_TEXT; text++) {
        if (*text == '"' || *text == '\\')
            out[n++] = '\\';
        out[n++] = *text;
    }
    out[n] = 0;
    return out;
}

/* ---- storms ---- */

static uint64_t kind_of(const char *text, char sentence[sizeof kinds->text])
{
    char same[sizeof kinds->text];
    size_t n = 0, m = 0;
    for (; *text && *text != '=' && m < sizeof same - 1; text++) {
        if (n < sizeof same - 1)
            sentence[n++] = *text;
        if (*text < '0' || *text > '9')
            same[m++] = *text;
    }
    sentence[n] = 0;
    return XXH3_64bits(same, m) | 1;
}

static void settle(struct kind *k)
{
    char text[300];
    if (k->left_out) {
        char line[LOG_TEXT];
        snprintf(text, sizeof text,
                 "more like this were left out suppressed=%u within_s=%u line=\"%s\"", k->left_out,
                 (unsigned)(LOG_WINDOW_NS / NS_PER_S), log_text(k->text, line));
        put(k->level, text);
    }
    k->left_out = k->lines = 0;
}

static struct kind *kind_find(uint64_t hash)
{
    struct kind *oldest = kinds;
    for (struct kind *k = kinds; k < kinds + KINDS; k++) {
        if (k->hash == hash)
            return k;
        if (k->last_ns < oldest->last_ns)
            oldest = k;
    }
    settle(oldest);
    oldest->hash = hash;
    return oldest;
}

/* 1: the line is written; else it is counted. */
static int passes(int level, const char *text, uint64_t now_ns)
{
    char sentence[sizeof kinds->text];
    struct kind *k = kind_find(kind_of(text, sentence));
    if (now_ns >= k->began_ns + LOG_WINDOW_NS || k->lines == 0) {
        settle(k);
        k->began_ns = now_ns;
    }
    k->last_ns = now_ns;
    if (k->lines < LOG_BURST) {
        k->lines++;
        return 1;
    }
    k->left_out++;
    k->level = level;
    memcpy(k->text, sentence, sizeof k->text);
    return 0;
}

void log_settle(uint64_t now_ns)
{
    pthread_mutex_lock(&kinds_lock);
    for (struct kind *k = kinds; k < kinds + KINDS; k++)
        if (k->left_out && now_ns >= k->began_ns + LOG_WINDOW_NS)
            settle(k);
    pthread_mutex_unlock(&kinds_lock);
}

/* ---- lines ---- */

void log_line(int level, const char *fmt, ...)
{
    char text[1024];
    if (level > most)
        return;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    pthread_mutex_lock(&kinds_lock);
    if (passes(level, text, clock_mono_ns()))
        put(level, text);
    pthread_mutex_unlock(&kinds_lock);
}

void log_error(int level, const char *what, const struct azoth_error *err)
{
    log_line(level, "%s: %s error=%s code=%d", what, err->message, azoth_code_name(err->code),
             err->foreign);
}
