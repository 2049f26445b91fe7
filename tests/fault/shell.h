/*
 * shell.h - lines of shell about a harness's database, and deaths of the command in them.
 *
 * In a line $AZOTH is the command and $D the harness's directory. Include it behind cmocka.h: what fails fails the test.
 */
#ifndef TESTS_FAULT_SHELL_H
#define TESTS_FAULT_SHELL_H

#include "tests/system/harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define SHELL_LINE 500

static inline void shell_begin(struct harness *h)
{
    char program[256];
    harness_program(h, "azoth", program);
    setenv("AZOTH", program, 1);
    setenv("D", h->dir, 1);
}

/* Its standard output is in out; its exit status. */
static inline int run(char *out, size_t size, const char *line)
{
    return harness_run(out, size, (char *[]){"/bin/sh", "-c", (char *)(uintptr_t)line, NULL});
}

static inline void must(const char *line)
{
    static char out[8192];
    int status = run(out, sizeof out, line);
    if (status)
        fail_msg("%s: exit status %d: %s", line, status, out);
}

/* $AZOTH `what` is killed at this crash point. */
static inline void dies(const char *point, const char *what)
{
    char line[SHELL_LINE], out[4000];
    snprintf(line, sizeof line, "AZOTH_CRASH=%s $AZOTH %s 2>&1", point, what);
    int status = run(out, sizeof out, line);
    if (status != 128 + SIGKILL)
        fail_msg("%s: exit status %d: %s", line, status, out);
}

#endif
