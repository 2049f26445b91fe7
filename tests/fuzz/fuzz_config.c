/*
 * fuzz_config.c - any bytes as azoth.conf, or, by the first byte, as flags of a command line (one
 * argument a line): what is accepted lies within its bounds and means the same when it is given again;
 * what is refused is refused by name, and of a file with its line.
 */
#include "core/config.h"
#include "core/error.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ARGUMENTS 64

static char dir[64], path[80];

static void leave(void)
{
    unlink(path);
    rmdir(dir);
}

static void enter(void)
{
    snprintf(dir, sizeof dir, "%s/azoth-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ensure(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/azoth.conf", dir);
    atexit(leave);
}

/* Every setting has a value that is accepted again and means the same. */
static void check(const struct config *c)
{
    static struct config again;
    config_defaults(&again);
    for (int k = 0; k < CONFIG_KEYS; k++) {
        struct azoth_error err;
        ensure(memchr(c->text[k], 0, sizeof c->text[k]) != NULL);
        int rc = config_set(&again, (enum config_key)k, c->text[k], c->source[k], &err);
        ensure(rc == 0);
        ensure(again.number[k] == c->number[k]);
        ensure(c->source[k] <= 3);
    }
    ensure(c->number[CONFIG_writer_sync] <= CONFIG_SYNC_NONE);
    ensure(c->number[CONFIG_segment_slots] >= 16 && c->number[CONFIG_segment_slots] <= 1024);
}

static void as_file(const uint8_t *data, size_t size)
{
    static struct config c, same;
    struct azoth_error err = {0};
    size_t lines = 1, n = strlen(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ensure(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
    int rc = config_load(&c, dir, &err);
    ensure(config_load(&same, dir, NULL) == rc);
    if (rc == 0) {
        ensure(memcmp(&c, &same, sizeof c) == 0);
        check(&c);
        return;
    }
    for (size_t i = 0; i < size; i++)
        lines += data[i] == '\n';
    ensure(rc == AZOTH_ERR_CONFIG && err.code == rc);
    ensure(strncmp(err.message, path, n) == 0 && err.message[n] == ':');
    unsigned long line = strtoul(err.message + n + 1, NULL, 10);
    ensure(line >= 1 && line <= lines);
}

static void as_flags(const uint8_t *data, size_t size)
{
    static struct config c;
    char *text = malloc(size + 1), *argv[ARGUMENTS + 1];
    int argc = 0;
    ensure(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    for (char *at = text; at && argc < ARGUMENTS;) {
        argv[argc++] = at;
        at = strchr(at, '\n');
        if (at)
            *at++ = 0;
    }
    argv[argc] = NULL;
    config_defaults(&c);
    for (int i = 0; i < argc;) {
        struct azoth_error err = {0};
        int before = i, rc = config_flag(&c, argc, argv, &i, &err);
        ensure(i <= argc);
        ensure(rc == 1 || rc == 0 || rc == AZOTH_ERR_CONFIG || rc == AZOTH_ERR_USAGE);
        ensure(rc >= 0 || err.code == rc);
        ensure(rc != 1 || i > before);
        if (rc != 1)
            i = before + 1;
    }
    check(&c);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!*dir)
        enter();
    if (size && *data == '-')
        as_flags(data, size);
    else
        as_file(data, size);
    return 0;
}
