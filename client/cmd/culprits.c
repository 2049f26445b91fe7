/*
 * culprits.c - see culprits.h.
 *
 * Who holds a projection's WAL is told by SQLite's locks on the shared-memory file beside it (its format is
 * documented: sqlite.org/walformat.html): a reader holds byte 123 + i shared, and aReadMark[i] is the last
 * frame that it sees. The WAL cannot start over while one stands before its end.
 */
#include "client/cmd/culprits.h"

#include "core/clock.h"
#include "core/dbdir.h"
#include "shm/contention.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* The disk's rate is no rate before. */
#define FILL_OBSERVED_NS (300 * NS_PER_S)

#define WAL_MARKS      5u
#define WAL_INDEX_HEAD 136u /* what is read of it */
#define WAL_MAX_FRAME  16u  /* offsets */
#define WAL_READ_MARK  100u
#define WAL_READ_LOCK  123

/* ---- processes ---- */

/* A small file, as text: its length. */
static size_t read_text(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static int ends_with(const char *text, size_t len, const char *suffix)
{
    size_t n = strlen(suffix);
    return len > n && memcmp(text + len - n, suffix, n) == 0;
}

void culprits_unit(const char *cgroup, char *out, size_t size)
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

/* Seconds since the process began; -1 when it is gone. */
static double process_age(uint64_t pid)
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

static void name_process(struct pin *p)
{
    char path[40], text[4096];
    snprintf(path, sizeof path, "/proc/%llu/comm", (unsigned long long)p->pid);
    read_text(path, p->program, sizeof p->program);
    p->program[strcspn(p->program, "\n")] = 0;
    utf8_tame(p->program); /* a process may call itself anything */
    snprintf(path, sizeof path, "/proc/%llu/cgroup", (unsigned long long)p->pid);
    read_text(path, text, sizeof text);
    culprits_unit(text, p->unit, sizeof p->unit);
    utf8_tame(p->unit);
}

/* ---- the store ---- */

static void look_at_store_pins(const struct view *v, uint64_t now_ns, struct culprits *ret)
{
    if (view_helper_looked(v, now_ns) == 0)
        return;
    for (uint32_t i = 0; i < SHM_PINS; i++) {
        const struct pin_shm *s = &v->gauges->g->pin[i];
        uint64_t pid = gauge_get(&s->pid), since = gauge_get(&s->since_ns);
        if (pid == 0)
            return;
        struct pin *p = &ret->pin[ret->pins++];
        *p = (struct pin){.pid = pid,
                          .behind = gauge_get(&s->behind),
                          .age_s = now_ns > since ? (double)(now_ns - since) / 1e9 : 0};
        name_process(p);
    }
}

/* ---- projections ---- */

static uint64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Those who hold a mark of this shared-memory file that is before the WAL's end. */
static void look_at_marks(int fd, const char *stem, uint64_t wal_bytes, struct culprits *ret)
{
    unsigned char head[WAL_INDEX_HEAD];
    if (pread(fd, head, sizeof head, 0) != (ssize_t)sizeof head)
        return;
    uint32_t last, mark[WAL_MARKS]; /* in the byte order of the machine */
    memcpy(&last, head + WAL_MAX_FRAME, sizeof last);
    memcpy(mark, head + WAL_READ_MARK, sizeof mark);
    for (uint32_t i = 0; i < WAL_MARKS && ret->pins < CULPRITS_PINS_MAX; i++) {
        struct flock l = {.l_type = F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_start = WAL_READ_LOCK + (off_t)i,
                          .l_len = 1};
        if (mark[i] >= last || fcntl(fd, F_GETLK, &l) || l.l_type == F_UNLCK || l.l_pid <= 0)
            continue;
        struct pin *p = &ret->pin[ret->pins++];
        *p = (struct pin){.pid = (uint64_t)l.l_pid,
                          .behind = last - mark[i],
                          .wal_bytes = wal_bytes,
                          .age_s = process_age((uint64_t)l.l_pid)};
        snprintf(p->projection, sizeof p->projection, "%s", stem);
        utf8_tame(p->projection);
        name_process(p);
    }
}

static void look_at_file(const char *dir, const char *name, struct culprits *ret)
{
    char path[4400], real[4096], stem[80];
    if (dbdir_path(path, sizeof path, dir, "%s", name) || !realpath(path, real))
        return;
    snprintf(stem, sizeof stem, "%.*s", (int)(strlen(name) - 3), name);
    snprintf(path, sizeof path, "%s-wal", real);
    uint64_t bytes = file_bytes(path);
    snprintf(path, sizeof path, "%s-shm", real);
    int fd = bytes ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0)
        return;
    look_at_marks(fd, stem, bytes, ret);
    close(fd);
}

/* The plain names: NAME.db and NAME.IofK.db lead to the files that serve. */
static void look_at_projections(const char *db, struct culprits *ret)
{
    char path[4200];
    if (dbdir_path(path, sizeof path, db, "projections"))
        return;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_type == DT_LNK && ends_with(e->d_name, strlen(e->d_name), ".db"))
            look_at_file(path, e->d_name, ret);
    if (d)
        closedir(d);
}

/* ---- stripes and disk ---- */

static void look_at_stripes(const struct segment *s, const uint64_t *before, struct culprits *ret)
{
    struct hot_stripe hot[CULPRITS_HOT_MAX];
    ret->hots = contention_hot(s, before, hot, CULPRITS_HOT_MAX);
    for (uint32_t i = 0; i < ret->hots; i++) {
        struct hot_key *k = &ret->hot[i];
        k->stripe = hot[i].stripe;
        k->waits = hot[i].waits;
        k->wait_ns = hot[i].wait_ns;
        k->len = contention_key(s, k->stripe, k->key);
    }
}

static void look_at_disk(const struct view *v, uint64_t now_ns, struct culprits *ret)
{
    struct statvfs fs;
    ret->disk_fill_day = ret->days_to_full = -1;
    if (statvfs(v->dir, &fs) == 0) {
        ret->disk_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        ret->disk_total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    }
    if (ret->disk_total_bytes && ret->disk_free_bytes == 0)
        ret->days_to_full = 0;
    uint64_t looked = view_helper_looked(v, now_ns);
    if (looked == 0)
        return;
    const struct gauges_shm *g = v->gauges->g;
    uint64_t since = gauge_get(&g->disk_watched_ns);
    if (since == 0 || looked < since + FILL_OBSERVED_NS)
        return;
    ret->disk_fill_day = (double)gauge_get(&g->disk_fill_bytes_day);
    if (ret->disk_fill_day > 0)
        ret->days_to_full = (double)ret->disk_free_bytes / ret->disk_fill_day;
}

void culprits_look(const struct view *v, const uint64_t *before, uint64_t now_ns,
                   struct culprits *ret)
{
    ret->pins = ret->hots = 0;
    ret->disk_free_bytes = ret->disk_total_bytes = 0;
    look_at_store_pins(v, now_ns, ret);
    look_at_projections(v->dir, ret);
    if (v->segment)
        look_at_stripes(v->segment, before, ret);
    look_at_disk(v, now_ns, ret);
}
