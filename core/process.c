#include "core/process.h"

#include "core/buf.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A small file, as text. */
static void read_text(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = 0;
}

static int ends_with(const char *text, size_t len, const char *suffix)
{
    size_t n = strlen(suffix);
    return len > n && memcmp(text + len - n, suffix, n) == 0;
}

void process_unit(const char *cgroup, char *out, size_t size)
{
    out[0] = 0;
    for (const char *line = cgroup; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *path = strchr(line, ':');
        path = path ? strchr(path + 1, ':') : NULL;
        if (!path)
            return;
        /* The innermost: a service of a user's manager lies below that manager's own. */
        const char *end = path + strcspn(path, "\n");
        for (const char *p = path + 1; p < end;) {
            size_t len = strcspn(p + 1, "/\n");
            if (ends_with(p + 1, len, ".service") || ends_with(p + 1, len, ".scope"))
                snprintf(out, size, "%.*s", (int)len, p + 1);
            p += 1 + len;
        }
        if (*out)
            return;
    }
}

double process_age(uint64_t pid)
{
    char path[40], text[1024];
    unsigned long long ticks;
    struct timespec up;
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    read_text(path, text, sizeof text);
    const char *at = strrchr(text, ')'); /* the name may have anything in it */
    if (!at || sscanf(at + 1,
                      " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                      "%*d %*d %llu",
                      &ticks) != 1)
        return -1;
    clock_gettime(CLOCK_BOOTTIME, &up);
    double now = (double)up.tv_sec + (double)up.tv_nsec / 1e9;
    double age = now - (double)ticks / (double)sysconf(_SC_CLK_TCK);
    return age > 0 ? age : 0;
}

void process_name(uint64_t pid, char program[PROCESS_PROGRAM], char unit[PROCESS_UNIT])
{
    char path[40], text[4096];
    snprintf(path, sizeof path, "/proc/%llu/comm", (unsigned long long)pid);
    read_text(path, program, PROCESS_PROGRAM);
    program[strcspn(program, "\n")] = 0;
    utf8_tame(program); /* a process may call itself anything */
    snprintf(path, sizeof path, "/proc/%llu/cgroup", (unsigned long long)pid);
    read_text(path, text, sizeof text);
    process_unit(text, unit, PROCESS_UNIT);
    utf8_tame(unit);
}
