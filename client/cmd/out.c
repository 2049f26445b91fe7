/* out.c - failures, signals, texts and JSON of the azoth command. */
#include "client/cmd/cmd.h"

#include "core/clock.h"
#include "core/valuejson.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

int cmd_fail(const struct azoth_error *err)
{
    fflush(stdout);
    fprintf(stderr, "azoth: %s (%s)\n", err->message, azoth_code_name(err->code));
    return azoth_code_exit(err->code);
}

int cmd_fail_code(int code, const char *fmt, ...)
{
    struct azoth_error err = {.code = code};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err.message, sizeof err.message, fmt, ap);
    va_end(ap);
    return cmd_fail(&err);
}

int cmd_usage(const struct cmd_line *l, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return cmd_fail_code(AZOTH_ERR_USAGE, "%s: %s; see azoth %s --help", l->cmd->name, text,
                         l->cmd->name);
}

/* ---- signals ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int signo)
{
    interrupted = signo;
}

void cmd_catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal}, hangup;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* nohup */
        sigaction(SIGHUP, &sa, NULL);
}

int cmd_interrupted(void)
{
    return interrupted;
}

/* A signal between the look and the sleep must not be lost: it is blocked but while we sleep. */
void cmd_sleep_ms(uint64_t ms)
{
    sigset_t block, before;
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &block, &before);
    struct timespec ts = {(time_t)(ms / 1000), (long)(ms % 1000 * NS_PER_MS)};
    if (!interrupted)
        pselect(0, NULL, NULL, NULL, &ts, &before);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- texts ---- */

const char *cmd_time(int64_t wall_ns, char out[CMD_TIME_TEXT])
{
    if (wall_ns == 0) {
        snprintf(out, CMD_TIME_TEXT, "-");
        return out;
    }
    time_t s = (time_t)(wall_ns / (int64_t)NS_PER_S);
    struct tm tm;
    gmtime_r(&s, &tm);
    char date[24];
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, CMD_TIME_TEXT, "%s.%03dZ", date,
             (int)(wall_ns % (int64_t)NS_PER_S / (int64_t)NS_PER_MS));
    return out;
}

const char *cmd_duration(uint64_t ns, char out[CMD_TIME_TEXT])
{
    double n = (double)ns;
    if (n < 1e6)
        snprintf(out, CMD_TIME_TEXT, "%.0f us", n / 1e3);
    else if (n < 1e9)
        snprintf(out, CMD_TIME_TEXT, "%.1f ms", n / 1e6);
    else if (n < 120e9)
        snprintf(out, CMD_TIME_TEXT, "%.1f s", n / 1e9);
    else if (n < 7200e9)
        snprintf(out, CMD_TIME_TEXT, "%.0f min", n / 60e9);
    else
        snprintf(out, CMD_TIME_TEXT, "%.1f h", n / 3600e9);
    return out;
}

const char *cmd_size(uint64_t bytes, char out[CMD_TIME_TEXT])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        snprintf(out, CMD_TIME_TEXT, "%llu B", (unsigned long long)bytes);
        return out;
    }
    double n = (double)bytes / 1024;
    unsigned u = 0;
    for (; n >= 1024 && u < 3; u++)
        n /= 1024;
    snprintf(out, CMD_TIME_TEXT, "%.1f %s", n, units[u]);
    return out;
}

void cmd_write(const struct buf *b)
{
    if (b->len)
        fwrite(b->ptr, 1, b->len, stdout);
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    if (c >= 'A' && c <= 'F')
        c = (char)(c - 'A' + 'a');
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

int cmd_unhex(const char *text, uint8_t *out, size_t n)
{
    if (strlen(text) != 2 * n)
        return 0;
    for (size_t i = 0; i < n; i++) {
        int hi = hex_digit(text[2 * i]), lo = hex_digit(text[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return 0;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return 1;
}

/* ---- JSON ---- */

static void out_key(struct json_text *j, const char *key)
{
    if (j->comma)
        j->failed |= buf_add_str(&j->b, ",");
    if (key)
        j->failed |= buf_addf(&j->b, "\"%s\":", key);
    j->comma = 1;
}

void out_open(struct json_text *j, const char *key, char bracket)
{
    out_key(j, key);
    j->failed |= buf_add(&j->b, &bracket, 1);
    j->comma = 0;
}

void out_close(struct json_text *j, char bracket)
{
    j->failed |= buf_add(&j->b, &bracket, 1);
    j->comma = 1;
}

void out_str(struct json_text *j, const char *key, const char *text)
{
    if (!text) {
        out_null(j, key);
        return;
    }
    out_key(j, key);
    j->failed |= json_add_string(&j->b, bytes_str(text), 1);
}

void out_u64(struct json_text *j, const char *key, uint64_t n)
{
    out_key(j, key);
    j->failed |= buf_addf(&j->b, "%llu", (unsigned long long)n);
}

void out_i64(struct json_text *j, const char *key, int64_t n)
{
    out_key(j, key);
    j->failed |= buf_addf(&j->b, "%lld", (long long)n);
}

void out_real(struct json_text *j, const char *key, double n)
{
    out_key(j, key);
    j->failed |= buf_addf(&j->b, "%.3f", n);
}

void out_bool(struct json_text *j, const char *key, int yes)
{
    out_key(j, key);
    j->failed |= buf_add_str(&j->b, yes ? "true" : "false");
}

void out_null(struct json_text *j, const char *key)
{
    out_key(j, key);
    j->failed |= buf_add_str(&j->b, "null");
}

int out_print(struct json_text *j)
{
    int failed = j->failed;
    if (!failed) {
        cmd_write(&j->b);
        putchar('\n');
        fflush(stdout);
    }
    buf_fini(&j->b);
    return failed ? cmd_fail_code(AZOTH_ERR_NOMEM, "out of memory") : 0;
}
