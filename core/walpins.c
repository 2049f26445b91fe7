#include "core/walpins.h"

#include "core/buf.h"
#include "core/dbdir.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAL_MARKS      5u
#define WAL_INDEX_HEAD 136u /* what is read of it */
#define WAL_MAX_FRAME  16u  /* offsets */
#define WAL_READ_MARK  100u
#define WAL_READ_LOCK  123

struct found {
    struct wal_pin *pin;
    uint32_t n, most;
};

static uint64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Those who hold a mark of this shared-memory file that is before the WAL's end. */
static void look_at_marks(int fd, const char *stem, uint64_t wal_bytes, struct found *f)
{
    unsigned char head[WAL_INDEX_HEAD];
    if (pread(fd, head, sizeof head, 0) != (ssize_t)sizeof head)
        return;
    uint32_t last, mark[WAL_MARKS]; /* in the byte order of the machine */
    memcpy(&last, head + WAL_MAX_FRAME, sizeof last);
    memcpy(mark, head + WAL_READ_MARK, sizeof mark);
    for (uint32_t i = 0; i < WAL_MARKS && f->n < f->most; i++) {
        struct flock l = {.l_type = F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_start = WAL_READ_LOCK + (off_t)i,
                          .l_len = 1};
        if (mark[i] >= last || fcntl(fd, F_GETLK, &l) || l.l_type == F_UNLCK || l.l_pid <= 0)
            continue;
        struct wal_pin *p = &f->pin[f->n++];
        *p = (struct wal_pin){.pid = (uint64_t)l.l_pid,
                              .mark = mark[i],
                              .behind = last - mark[i],
                              .wal_bytes = wal_bytes};
        snprintf(p->stem, sizeof p->stem, "%s", stem);
        utf8_tame(p->stem);
    }
}

static void look_at_file(const char *dir, const char *name, struct found *f)
{
    char path[4400], real[4096], stem[WALPINS_STEM];
    if (dbdir_path(path, sizeof path, dir, "%s", name) || !realpath(path, real))
        return;
    snprintf(stem, sizeof stem, "%.*s", (int)(strlen(name) - 3), name);
    snprintf(path, sizeof path, "%s-wal", real);
    uint64_t bytes = file_bytes(path);
    snprintf(path, sizeof path, "%s-shm", real);
    int fd = bytes ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0)
        return;
    look_at_marks(fd, stem, bytes, f);
    close(fd);
}

static int is_database(const char *name)
{
    size_t n = strlen(name);
    return n > 3 && strcmp(name + n - 3, ".db") == 0;
}

/* The plain names: NAME.db and NAME.IofK.db lead to the files that serve. */
uint32_t wal_pins(const char *dir, struct wal_pin *ret, uint32_t most)
{
    char path[4200];
    struct found f = {.pin = ret, .most = most};
    if (dbdir_path(path, sizeof path, dir, "projections"))
        return 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_type == DT_LNK && is_database(e->d_name))
            look_at_file(path, e->d_name, &f);
    if (d)
        closedir(d);
    return f.n;
}
