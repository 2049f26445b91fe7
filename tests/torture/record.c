#include "tests/torture/record.h"

#include "core/clock.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

static uint64_t check_of(const struct record *r)
{
    return XXH3_64bits(r, offsetof(struct record, check));
}

void record_path(char out[400], const char *dir, unsigned client)
{
    snprintf(out, 400, "%s/records-%02u", dir, client);
}

int record_open(const char *dir, unsigned client)
{
    char path[400];
    record_path(path, dir, client);
    return open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

int record_add(int fd, struct record *r)
{
    r->time_ns = clock_mono_ns();
    r->check = check_of(r);
    return write(fd, r, sizeof *r) == (ssize_t)sizeof *r ? 0 : -1;
}

int record_read(int fd, uint64_t *at, struct record *ret)
{
    ssize_t n = pread(fd, ret, sizeof *ret, (off_t)*at);
    if (n == 0)
        return 0;
    if (n != (ssize_t)sizeof *ret || ret->check != check_of(ret))
        return -1;
    *at += sizeof *ret;
    return 1;
}
