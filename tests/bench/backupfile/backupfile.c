/*
 * backupfile.c - what a backup's file costs: bytes per second of writing and reading it, beside the zstd command
 * on the same bytes at the same level.
 *
 *   bench_backupfile [BYTES [ROUNDS]]     1000000000 and 3, below AZOTH_BENCH_DIR or /tmp
 *
 * The bytes are those of a database as far as zstd goes: pages with keys in order, JSON of events, ids that do
 * not compress. They lie in a file; both read it, write a file and sync it, in turn. The zstd command compresses
 * in a thread of its own beside the one that reads and writes; so does the product with threads = 1, with 0 it
 * does all in one. Medians are printed, and the ratio to the command: above 1 is faster. The processors' seconds
 * of both are, too: they say what it costs where others work at the same time.
 */
#include "core/clock.h"
#include "core/error.h"
#include "writer/backupfile.h"

#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS_MAX 15
#define PAGE       4096u

extern char **environ;

static char dir[200], input[256], output[256], compressed[256];
static uint64_t total = 1000000000;
static int rounds = 3;
static struct azoth_error err;

static void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench_backupfile: %s: %s\n", what, err.message);
    unlink(input);
    unlink(output);
    unlink(compressed);
    rmdir(dir);
    exit(1);
}

static uint64_t next_random(void)
{
    static uint64_t x = 88172645463325252u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return x;
}

/* Two thirds full of records: a key in order, a random id, a payload of JSON. */
static void fill_page(unsigned char page[PAGE], uint64_t *event)
{
    size_t at = 64;
    memset(page, 0, PAGE);
    memcpy(page, event, sizeof *event);
    while (at < PAGE * 2 / 3) {
        uint64_t id[2] = {next_random(), next_random()};
        memcpy(page + at, id, sizeof id);
        at += sizeof id;
        at += (size_t)snprintf((char *)page + at, PAGE - at,
                               "transferred\tacct/%011" PRIu64 "\t{\"from\":%" PRIu64
                               ",\"to\":%" PRIu64 ",\"amount\":%" PRIu64 ",\"n\":%" PRIu64 "}",
                               next_random() % 100000, next_random() % 100000,
                               next_random() % 100000, next_random() % 1000000, (*event)++);
    }
}

static void make_input(void)
{
    static unsigned char block[256 * PAGE];
    uint64_t event = 1;
    int fd = open(input, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    must(fd >= 0, input);
    for (uint64_t done = 0; done < total; done += sizeof block) {
        for (size_t at = 0; at < sizeof block; at += PAGE)
            fill_page(block + at, &event);
        must(write(fd, block, sizeof block) == (ssize_t)sizeof block, input);
    }
    must(fsync(fd) == 0, input);
    close(fd);
    total = (total + sizeof block - 1) / sizeof block * sizeof block;
}

/* ---- what is measured ---- */

struct cost {
    double wall, cpu; /* seconds */
};

static double cpu_seconds(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* who: RUSAGE_SELF, or of the command RUSAGE_CHILDREN. */
static struct cost begin(int who)
{
    return (struct cost){(double)clock_mono_ns() / 1e9, cpu_seconds(who)};
}

static struct cost since(struct cost began, int who)
{
    struct cost now = begin(who);
    return (struct cost){now.wall - began.wall, now.cpu - began.cpu};
}

static struct cost write_product(const struct backupfile_options *o)
{
    static unsigned char block[1 << 20];
    struct backupfile_out *b;
    char name[40];
    struct cost began = begin(RUSAGE_SELF);
    unlink(output);
    int fd = open(input, O_RDONLY | O_CLOEXEC);
    must(fd >= 0, input);
    must(backupfile_create(output, o, bytes_str("{}"), &b, &err) == 0, output);
    for (uint64_t at = 0; at < total; at += sizeof block) {
        snprintf(name, sizeof name, "data.mdb/%08" PRIu64, at / BACKUPFILE_PART);
        if (at % BACKUPFILE_PART == 0) {
            uint64_t left = total - at;
            must(backupfile_member(b, name, left < BACKUPFILE_PART ? left : BACKUPFILE_PART,
                                   &err) == 0,
                 name);
        }
        must(read(fd, block, sizeof block) == (ssize_t)sizeof block, input);
        must(backupfile_write(b, block, sizeof block, &err) == 0, name);
    }
    close(fd);
    must(backupfile_finish(b, NULL, &err) == 0, output);
    return since(began, RUSAGE_SELF);
}

static struct cost read_product(const struct backup_key *key)
{
    static unsigned char block[1 << 20];
    struct backupfile_in *b;
    const char *name;
    struct cost began = begin(RUSAGE_SELF);
    uint64_t bytes;
    size_t n;
    int rc;
    must(backupfile_open(output, key, &b, &err) == 0, output);
    while ((rc = backupfile_next(b, &name, &bytes, &err)) == 1)
        do
            must(backupfile_read(b, block, sizeof block, &n, &err) == 0, name);
        while (n);
    must(rc == 0, output);
    backupfile_close(b);
    return since(began, RUSAGE_SELF);
}

static void run(char *const argv[])
{
    posix_spawn_file_actions_t files;
    pid_t pid;
    int status;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    must(posix_spawnp(&pid, argv[0], &files, NULL, argv, environ) == 0, argv[0]);
    must(waitpid(pid, &status, 0) == pid && status == 0, argv[0]);
    posix_spawn_file_actions_destroy(&files);
}

static struct cost write_zstd(void)
{
    char *const compress[] = {"zstd", "-3", "-q", "-f", input, "-o", compressed, NULL};
    char *const sync[] = {"sync", compressed, NULL};
    struct cost began = begin(RUSAGE_CHILDREN);
    run(compress);
    run(sync);
    return since(began, RUSAGE_CHILDREN);
}

static struct cost read_zstd(void)
{
    char *const decompress[] = {"zstd", "-d", "-q", "-c", compressed, NULL};
    struct cost began = begin(RUSAGE_CHILDREN);
    run(decompress);
    return since(began, RUSAGE_CHILDREN);
}

/* ---- the table ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of each figure by itself. */
static struct cost median(const struct cost *c)
{
    double wall[ROUNDS_MAX], cpu[ROUNDS_MAX];
    for (int i = 0; i < rounds; i++) {
        wall[i] = c[i].wall;
        cpu[i] = c[i].cpu;
    }
    qsort(wall, (size_t)rounds, sizeof *wall, compare);
    qsort(cpu, (size_t)rounds, sizeof *cpu, compare);
    return (struct cost){wall[rounds / 2], cpu[rounds / 2]};
}

static void tell(const char *what, const struct cost *product, const struct cost *floor)
{
    struct cost p = median(product), f = median(floor);
    struct stat st;
    must(stat(output, &st) == 0, output);
    printf("%-36s %5.0f MB/s  zstd %5.0f  ratio %.2f   cpu %6.2f s  zstd %6.2f  ratio %.2f   %5.1f "
           "%%\n",
           what, (double)total / p.wall / 1e6, (double)total / f.wall / 1e6, f.wall / p.wall, p.cpu,
           f.cpu, f.cpu / p.cpu, 100 * (double)st.st_size / (double)total);
    fflush(stdout);
}

static void measure(const char *what, const struct backupfile_options *o)
{
    struct cost wrote[ROUNDS_MAX], read[ROUNDS_MAX], zstd_wrote[ROUNDS_MAX], zstd_read[ROUNDS_MAX];
    char text[80];
    for (int i = 0; i < rounds; i++) {
        wrote[i] = write_product(o);
        zstd_wrote[i] = write_zstd();
        read[i] = read_product(o->key);
        zstd_read[i] = read_zstd();
    }
    snprintf(text, sizeof text, "written, %s", what);
    tell(text, wrote, zstd_wrote);
    snprintf(text, sizeof text, "read, %s", what);
    tell(text, read, zstd_read);
    unlink(output);
}

int main(int argc, char **argv)
{
    static const struct backup_key key = {.secret = "bench", .secret_len = 32};
    const char *where = getenv("AZOTH_BENCH_DIR");
    if (argc > 1)
        total = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        rounds = atoi(argv[2]);
    snprintf(dir, sizeof dir, "%.100s/bench-backupfile-XXXXXX", where ? where : "/tmp");
    must(rounds >= 1 && rounds <= ROUNDS_MAX && total > 0, "bench_backupfile [BYTES [ROUNDS]]");
    must(mkdtemp(dir) != NULL, dir);
    snprintf(input, sizeof input, "%s/input", dir);
    snprintf(output, sizeof output, "%s/output", dir);
    snprintf(compressed, sizeof compressed, "%s/compressed", dir);
    make_input();
    printf("%" PRIu64 " bytes, level 3, median of %d\n", total, rounds);
    measure("plain", &(struct backupfile_options){.level = 3});
    measure("plain, a thread of zstd", &(struct backupfile_options){.level = 3, .threads = 1});
    measure("plain, two threads of zstd", &(struct backupfile_options){.level = 3, .threads = 2});
    measure("encrypted", &(struct backupfile_options){.level = 3, .key = &key});
    measure("encrypted, a thread of zstd",
            &(struct backupfile_options){.level = 3, .threads = 1, .key = &key});
    measure("stored", &(struct backupfile_options){.level = 0});
    unlink(input);
    unlink(compressed);
    return rmdir(dir) != 0;
}
