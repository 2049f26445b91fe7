/*
 * log.h - one line per decision on standard error, with systemd's "<N>" priority prefix when
 * standard error is not a terminal (sd-daemon(3)); key=value pairs after a short sentence.
 *
 * A storm of one line is cut: of lines that are the same up to their first '=', digits aside, LOG_BURST
 * are written within LOG_WINDOW_NS; the others are counted, and a line tells how many there were.
 *
 * Only programs log: library code (everything that libazoth holds) returns errors instead. Any thread.
 */
#ifndef CORE_LOG_H
#define CORE_LOG_H

#include "core/azoth_base.h"
#include "core/clock.h"

#define LOG_BURST     32u
#define LOG_WINDOW_NS (10 * NS_PER_S)

enum log_level {
    LOG_LEVEL_ERR = 3,
    LOG_LEVEL_WARN = 4,
    LOG_LEVEL_NOTICE = 5,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

void log_init(const char *program, int max_level); /* program: shown on terminals */
void log_set_level(int max_level);                 /* while threads run */
int log_level_parse(const char *name, int *ret);   /* "err" "warning" "notice" "info" "debug" */
void log_line(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What others wrote, for a value between quotes: it cannot end them and add keys of its own. Returns out. */
#define LOG_TEXT 640u
const char *log_text(const char *text, char out[LOG_TEXT]);
/* "<3>SENTENCE: MESSAGE error=AZOTH_ERR_X code=N": one line of an error. */
void log_error(int level, const char *what, const struct azoth_error *err);
/* Writes how many lines were left out in windows that are over. Loops call it now and then
 * (service_heartbeat() does), since after a storm no line may come that would. */
void log_settle(uint64_t now_ns);

#endif
