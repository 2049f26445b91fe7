/*
 * test_backupfile.c - what is written into a backup file comes out of it, or an error; never something else.
 *
 * Contents are made from a member's name, so that what was read is compared with what was written without being kept.
 */
#include "writer/backupfile.h"

#include "core/error.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <locale.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include <cmocka.h>

static char dir[64];
static struct backup_key key, other_key, passphrase;
static struct azoth_error err;

/* ---- contents ---- */

struct member {
    const char *name;
    size_t bytes;
};

/* Compressible in its first half, and not in its second. */
static void fill(struct buf *out, const char *name, size_t bytes)
{
    uint64_t x = bytes + 0x9e3779b97f4a7c15u;
    for (const char *p = name; *p; p++)
        x = (x ^ (unsigned char)*p) * 0x100000001b3u;
    out->len = 0;
    unsigned char *p = buf_grow(out, bytes ? bytes : 1);
    assert_non_null(p);
    out->len = bytes;
    for (size_t i = 0; i < bytes; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        p[i] = i < bytes / 2 ? (unsigned char)"the quick brown fox "[i % 20]
                             : (unsigned char)(x >> 32);
    }
}

#define ABOUT "{\"kind\":\"full\",\"secret-word\":\"xylophone\"}"

static const struct member few[] = {
    {"data.mdb/00000001", 100}, {"projections/accounts.db", 0}, {"azoth.conf", 1}};
#define FEW 3

static void path_of(char out[128], const char *name)
{
    snprintf(out, 128, "%s/%s", dir, name);
}

static int exists(const char *name)
{
    char path[128];
    struct stat st;
    path_of(path, name);
    return lstat(path, &st) == 0;
}

static void write_members(struct backupfile_out *b, const struct member *m, size_t n)
{
    struct buf content = {0};
    for (size_t i = 0; i < n; i++) {
        fill(&content, m[i].name, m[i].bytes);
        assert_int_equal(backupfile_member(b, m[i].name, content.len, &err), 0);
        /* In pieces of odd sizes, as a caller may have them. */
        for (size_t at = 0; at < content.len;) {
            size_t part = content.len - at < 70001 ? content.len - at : 70001;
            assert_int_equal(backupfile_write(b, content.ptr + at, part, &err), 0);
            at += part;
        }
    }
    buf_fini(&content);
}

static void make(const char *name, const struct backupfile_options *o, const struct member *m,
                 size_t n, unsigned char digest[BACKUPFILE_DIGEST])
{
    struct backupfile_out *b;
    char path[128];
    path_of(path, name);
    int rc = backupfile_create(path, o, bytes_str(ABOUT), &b, &err);
    if (rc)
        fail_msg("%s", err.message);
    write_members(b, m, n);
    rc = backupfile_finish(b, digest, &err);
    if (rc)
        fail_msg("%s", err.message);
}

/* Reads all members and compares them; 0 when they are all there and agree, or the error. */
static int check_members(struct backupfile_in *b, const struct member *m, size_t n, size_t piece)
{
    struct buf want = {0}, got = {0};
    const char *name;
    uint64_t bytes;
    size_t seen = 0, len = 0;
    int rc;
    while ((rc = backupfile_next(b, &name, &bytes, &err)) == 1) {
        int same = seen < n && strcmp(name, m[seen].name) == 0 && bytes == m[seen].bytes;
        got.len = 0;
        do {
            assert_int_equal(buf_reserve(&got, piece), 0);
            rc = backupfile_read(b, got.ptr + got.len, piece, &len, &err);
            got.len += rc ? 0 : len;
        } while (!rc && len);
        if (rc)
            break;
        if (same)
            fill(&want, name, (size_t)bytes);
        /* Other bytes may come, as long as no end comes that says they are right. */
        if (!same || !bytes_eq(buf_bytes(&want), buf_bytes(&got)))
            seen = n + 1;
        seen++;
    }
    buf_fini(&want);
    buf_fini(&got);
    if (rc == 0 && seen != n)
        fail_msg("believed, and another content: member %zu of %zu", seen, n);
    return rc;
}

static int check_fd(int fd, const struct backup_key *k, const struct member *m, size_t n,
                    size_t piece, unsigned char digest[BACKUPFILE_DIGEST])
{
    struct backupfile_in *b;
    err = (struct azoth_error){0};
    int rc = backupfile_open_fd(fd, k, &b, &err);
    if (rc)
        return rc;
    struct azoth_bytes about = backupfile_about(b);
    int same = bytes_eq(about, bytes_str(ABOUT));
    rc = check_members(b, m, n, piece);
    if (rc == 0 && !same)
        fail_msg("believed, and another about.json");
    if (rc == 0 && digest)
        backupfile_digest(b, digest);
    backupfile_close(b);
    return rc;
}

static int check(const char *name, const struct backup_key *k, const struct member *m, size_t n,
                 unsigned char digest[BACKUPFILE_DIGEST])
{
    char path[128];
    path_of(path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    int rc = check_fd(fd, k, m, n, 65536, digest);
    close(fd);
    return rc;
}

static void load(const char *name, struct buf *out)
{
    char path[128];
    struct stat st;
    path_of(path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    out->len = 0;
    unsigned char *p = buf_grow(out, (size_t)st.st_size);
    assert_true(st.st_size == 0 || p);
    assert_int_equal(read(fd, out->ptr, out->len), out->len);
    close(fd);
}

/* A descriptor that has these bytes. */
static int memory(struct azoth_bytes b)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b.ptr, b.len), b.len);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void drop(const char *name)
{
    char path[128];
    path_of(path, name);
    assert_int_equal(unlink(path), 0);
}

static int contains(const struct buf *b, const char *text)
{
    return memmem(b->ptr, b->len, text, strlen(text)) != NULL;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *name)
{
    char path[128];
    path_of(path, name);
    assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- what goes in comes out ---- */

static const struct backupfile_options forms[] = {
    {.level = 3}, {.level = 0}, {.level = 3, .key = &key}, {.level = 0, .key = &key}};
#define FORMS 4

static void members_of_all_sizes_come_out_as_they_went_in(void **state)
{
    static const struct member sizes[] = {{"empty", 0},
                                          {"one", 1},
                                          {"below", 65535},
                                          {"chunk", 65536},
                                          {"beyond", 65537},
                                          {"block", 512},
                                          {"block+1", 513},
                                          {"part/00000001", BACKUPFILE_PART},
                                          {"part/00000002", BACKUPFILE_PART - 1},
                                          {"part/00000003", BACKUPFILE_PART + 1}};
    size_t n = sizeof sizes / sizeof *sizes;
    unsigned char wrote[BACKUPFILE_DIGEST], read[BACKUPFILE_DIGEST], first[BACKUPFILE_DIGEST];
    (void)state;
    for (int i = 0; i < FORMS; i++) {
        make("sizes", &forms[i], sizes, n, wrote);
        assert_int_equal(check("sizes", &key, sizes, n, read), 0);
        assert_memory_equal(wrote, read, sizeof wrote);
        /* The content's digest is the content's, whatever the form is. */
        if (i == 0)
            memcpy(first, wrote, sizeof first);
        assert_memory_equal(wrote, first, sizeof first);
        drop("sizes");
    }
    assert_false(exists("sizes.partial"));
}

/* Streams that end at, before and behind the end of a chunk. */
static void a_stream_may_end_anywhere_in_a_chunk(void **state)
{
    (void)state;
    struct backupfile_options o = {.level = 0, .key = &key};
    int ends[3] = {0};
    /* A tar stream has whole blocks of 512 bytes: those around one chunk's end and two chunks'. */
    for (size_t blocks = 116; blocks <= 250; blocks++) {
        struct member m = {"m", blocks * 512};
        struct backupfile_out *b;
        struct stat st;
        int fd = memory(bytes_str(""));
        assert_int_equal(backupfile_stream(fd, &o, bytes_str(ABOUT), &b, &err), 0);
        write_members(b, &m, 1);
        assert_int_equal(backupfile_finish(b, NULL, &err), 0);
        assert_int_equal(fstat(fd, &st), 0);
        size_t stream = (size_t)st.st_size - 96 - 32;
        size_t rest = stream % (65536 + 17);
        ends[rest == 0 ? 0 : rest < 1100 ? 1 : 2]++;
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        assert_int_equal(check_fd(fd, &key, &m, 1, 4096, NULL), 0);
        close(fd);
    }
    assert_true(ends[0] >= 1 && ends[1] >= 1 && ends[2] >= 1);
}

static void ten_thousand_members_come_out_in_their_order(void **state)
{
    (void)state;
    enum { N = 10000 };
    struct member *m = calloc(N, sizeof *m);
    char(*names)[32] = calloc(N, sizeof *names);
    assert_true(m && names);
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "many/%08d", (i * 7919) % N);
        m[i] = (struct member){names[i], (size_t)i % 7};
    }
    make("many", &forms[2], m, N, NULL);
    assert_int_equal(check("many", &key, m, N, NULL), 0);
    drop("many");
    free(m);
    free(names);
}

static void a_member_may_be_skipped_and_is_checked_all_the_same(void **state)
{
    (void)state;
    static const struct member big[] = {{"a", 300000}, {"b", 5}};
    struct backupfile_in *b;
    const char *name;
    uint64_t bytes;
    char path[128], some[10];
    size_t n;
    make("skip", &forms[0], big, 2, NULL);
    path_of(path, "skip");
    assert_int_equal(backupfile_open(path, NULL, &b, &err), 0);
    assert_false(backupfile_encrypted(b));
    assert_int_equal(backupfile_next(b, &name, &bytes, &err), 1);
    assert_int_equal(backupfile_read(b, some, sizeof some, &n, &err), 0);
    assert_int_equal(n, sizeof some);
    assert_int_equal(backupfile_next(b, &name, &bytes, &err), 1);
    assert_string_equal(name, "b");
    assert_int_equal(backupfile_next(b, &name, &bytes, &err), 0);
    assert_int_equal(backupfile_next(b, &name, &bytes, &err), 0);
    assert_true(backupfile_bytes_read(b) > 100000);
    backupfile_close(b);
    drop("skip");
}

/* ---- pipes ---- */

/* The other end of a pipe, which interrupts this one before each of its own steps. */
struct other_end {
    int fd;
    size_t piece;
    struct azoth_bytes bytes; /* to be given */
    struct buf got;
    pthread_t interrupted;
};

static void *feed(void *arg)
{
    struct other_end *f = arg;
    const unsigned char *p = f->bytes.ptr;
    for (size_t at = 0; at < f->bytes.len;) {
        size_t n = f->bytes.len - at < f->piece ? f->bytes.len - at : f->piece;
        pthread_kill(f->interrupted, SIGUSR1);
        ssize_t r = write(f->fd, p + at, n);
        if (r <= 0)
            break;
        at += (size_t)r;
    }
    close(f->fd);
    return NULL;
}

static void *collect(void *arg)
{
    struct other_end *c = arg;
    for (;;) {
        if (buf_reserve(&c->got, c->piece))
            return NULL;
        ssize_t n = read(c->fd, c->got.ptr + c->got.len, c->piece);
        if (n <= 0)
            return NULL;
        c->got.len += (size_t)n;
        /* Not after the end: whom it would interrupt may be elsewhere by then. Slow enough that the pipe is full at
         * most of them. */
        pthread_kill(c->interrupted, SIGUSR1);
        nanosleep(&(struct timespec){0, 50000}, NULL);
    }
}

static atomic_int interruptions;

static void on_signal(int sig)
{
    (void)sig;
    atomic_fetch_add(&interruptions, 1);
}

static const struct member piped[] = {{"a", 400000}, {"b", 5}};

static void read_piped(const struct backupfile_options *o, int flags)
{
    struct buf file = {0};
    pthread_t thread;
    int ends[2];
    make("pipe", o, piped, 2, NULL);
    load("pipe", &file);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(fcntl(ends[0], F_SETFL, flags), 0);
    struct other_end f = {
        .fd = ends[1], .bytes = buf_bytes(&file), .piece = 1000, .interrupted = pthread_self()};
    assert_int_equal(pthread_create(&thread, NULL, feed, &f), 0);
    assert_int_equal(check_fd(ends[0], &key, piped, 2, 777, NULL), 0);
    pthread_join(thread, NULL);
    close(ends[0]);
    drop("pipe");
    buf_fini(&file);
}

static void write_piped(const struct buf *file, int flags)
{
    struct backupfile_out *b;
    pthread_t thread;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, flags), 0);
    struct other_end c = {.fd = ends[0], .piece = 1000, .interrupted = pthread_self()};
    assert_int_equal(pthread_create(&thread, NULL, collect, &c), 0);
    assert_int_equal(backupfile_stream(ends[1], &forms[0], bytes_str(ABOUT), &b, &err), 0);
    write_members(b, piped, 2);
    assert_int_equal(backupfile_written(b), strlen(ABOUT) + 400005);
    assert_int_equal(backupfile_finish(b, NULL, &err), 0);
    assert_int_equal(fcntl(ends[1], F_GETFD), FD_CLOEXEC); /* it stays the caller's */
    close(ends[1]);
    pthread_join(thread, NULL);
    assert_true(bytes_eq(buf_bytes(&c.got), buf_bytes(file)));
    close(ends[0]);
    buf_fini(&c.got);
}

static void a_pipe_is_read_and_written_whatever_interrupts(void **state)
{
    (void)state;
    struct sigaction now = {.sa_handler = on_signal}, before;
    struct buf file = {0};
    sigaction(SIGUSR1, &now, &before); /* without SA_RESTART */
    make("file", &forms[0], piped, 2, NULL);
    load("file", &file);
    drop("file");
    for (int block = 0; block < 2; block++) {
        for (int i = 0; i < FORMS; i++)
            read_piped(&forms[i], block ? 0 : O_NONBLOCK);
        write_piped(&file, block ? 0 : O_NONBLOCK);
    }
    sigaction(SIGUSR1, &before, NULL);
    assert_true(atomic_load(&interruptions) > 100);
    buf_fini(&file);
}

static void a_reader_that_is_gone_is_an_error(void **state)
{
    (void)state;
    struct backupfile_out *b;
    int ends[2];
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGPIPE, &ignore, &before);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    assert_int_equal(backupfile_stream(ends[1], &forms[0], bytes_str(ABOUT), &b, &err), 0);
    assert_int_equal(backupfile_finish(b, NULL, &err), AZOTH_ERR_IO);
    assert_int_equal(err.foreign, EPIPE);
    close(ends[1]);
    sigaction(SIGPIPE, &before, NULL);
}

static void a_full_device_is_told(void **state)
{
    (void)state;
    struct backupfile_out *b;
    for (int i = 0; i < FORMS; i++) {
        int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            skip();
        int rc = backupfile_stream(fd, &forms[i], bytes_str(ABOUT), &b, &err);
        if (!rc)
            rc = backupfile_finish(b, NULL, &err);
        assert_int_equal(rc, AZOTH_ERR_NOSPACE);
        close(fd);
    }
}

/* ---- what was changed is not believed ---- */

static void one_of_the_four(int rc, const char *what, size_t at)
{
    if (rc != AZOTH_ERR_WRONG_KEY && rc != AZOTH_ERR_CORRUPT && rc != AZOTH_ERR_FORMAT &&
        rc != AZOTH_ERR_TRUNCATED)
        fail_msg("%s at %zu: %s %s", what, at, azoth_code_name(rc), err.message);
}

static void every_byte_that_is_changed_is_noticed(void **state)
{
    (void)state;
    struct buf file = {0};
    for (int i = 0; i < FORMS; i++) {
        int codes[64] = {0};
        make("flip", &forms[i], few, FEW, NULL);
        load("flip", &file);
        for (size_t at = 0; at < file.len; at++) {
            unsigned char bit = (unsigned char)(1u << (at * 5 + (size_t)i) % 8);
            file.ptr[at] ^= bit;
            int fd = memory(buf_bytes(&file));
            int rc = check_fd(fd, &key, few, FEW, 4096, NULL);
            one_of_the_four(rc, "a flipped bit", at);
            /* With a key nothing but its header's check value is another's. */
            if (forms[i].key && at >= 96)
                assert_int_equal(rc, at >= file.len - 32 && at < file.len - 16 ? AZOTH_ERR_TRUNCATED
                                                                               : AZOTH_ERR_CORRUPT);
            codes[-rc]++;
            close(fd);
            file.ptr[at] ^= bit;
        }
        assert_int_equal(codes[-AZOTH_ERR_WRONG_KEY], 0);
        assert_true(codes[-AZOTH_ERR_CORRUPT] > (int)file.len / 2);
        drop("flip");
    }
    buf_fini(&file);
}

static void every_shorter_file_is_noticed_and_so_is_a_longer_one(void **state)
{
    (void)state;
    struct buf file = {0};
    for (int i = 0; i < FORMS; i++) {
        int told[64] = {0};
        make("cut", &forms[i], few, FEW, NULL);
        load("cut", &file);
        for (size_t len = 0; len < file.len; len++) {
            int fd = memory(bytes_of(file.ptr, len));
            int rc = check_fd(fd, &key, few, FEW, 4096, NULL);
            one_of_the_four(rc, "cut", len);
            told[-rc]++;
            close(fd);
        }
        /* "No backup" is said of the first blocks of a tar only. */
        assert_int_equal(told[-AZOTH_ERR_TRUNCATED] + told[-AZOTH_ERR_FORMAT], file.len);
        assert_true(told[-AZOTH_ERR_FORMAT] < (forms[i].level || forms[i].key ? 1 : 545));
        assert_int_equal(buf_add(&file, "x", 1), 0);
        int fd = memory(buf_bytes(&file));
        one_of_the_four(check_fd(fd, &key, few, FEW, 4096, NULL), "a byte more", file.len);
        close(fd);
        drop("cut");
    }
    buf_fini(&file);
}

static void says(int rc, int code, const char *text)
{
    if (rc != code || !strstr(err.message, text))
        fail_msg("%s %s: not %s with \"%s\"", azoth_code_name(rc), err.message,
                 azoth_code_name(code), text);
}

/* ---- keys ---- */

static int open_code(const char *name, const struct backup_key *k)
{
    struct backupfile_in *b = NULL;
    char path[128];
    path_of(path, name);
    int rc = backupfile_open(path, k, &b, &err);
    if (!rc)
        backupfile_close(b);
    return rc;
}

static void put(const char *name, mode_t mode, const char *text)
{
    char path[128];
    path_of(path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void only_the_key_opens_it(void **state)
{
    (void)state;
    char path[128];
    put("phrase", 0600, "correct horse\nand a second line\n");
    put("wrong-phrase", 0600, "incorrect horse\n");
    path_of(path, "phrase");
    struct backupfile_options o = {.level = 3, .key = &passphrase};
    assert_int_equal(backup_key_passphrase(path, -1, &passphrase, &err), 0);
    make("by-key", &forms[2], few, FEW, NULL);
    make("by-phrase", &o, few, FEW, NULL);
    make("plain", &forms[0], few, FEW, NULL);
    assert_int_equal(open_code("by-key", &key), 0);
    assert_int_equal(open_code("by-key", &other_key), AZOTH_ERR_WRONG_KEY);
    assert_int_equal(open_code("by-key", NULL), AZOTH_ERR_WRONG_KEY);
    assert_non_null(strstr(err.message, "encrypted with a key file"));
    assert_int_equal(open_code("by-key", &passphrase), AZOTH_ERR_WRONG_KEY);
    assert_int_equal(check("by-phrase", &passphrase, few, FEW, NULL), 0);
    assert_int_equal(open_code("by-phrase", &key), AZOTH_ERR_WRONG_KEY);
    assert_int_equal(open_code("by-phrase", NULL), AZOTH_ERR_WRONG_KEY);
    assert_non_null(strstr(err.message, "encrypted with a passphrase"));
    backup_key_fini(&passphrase);
    path_of(path, "wrong-phrase");
    assert_int_equal(backup_key_passphrase(path, -1, &passphrase, &err), 0);
    assert_int_equal(open_code("by-phrase", &passphrase), AZOTH_ERR_WRONG_KEY);
    /* A key that is not needed does no harm. */
    assert_int_equal(check("plain", &key, few, FEW, NULL), 0);
    drop("by-key");
    drop("by-phrase");
    drop("plain");
    drop("phrase");
    drop("wrong-phrase");
}

/* A header that asks for this, with its sum made anew: nobody but a forger writes one. */
static int forged_header(struct buf *file, size_t at, unsigned char to)
{
    unsigned char was[96];
    memcpy(was, file->ptr, sizeof was);
    file->ptr[at] = to;
    crypto_generichash(file->ptr + 80, 16, file->ptr, 80, NULL, 0);
    int fd = memory(buf_bytes(file));
    int rc = check_fd(fd, &passphrase, few, FEW, 4096, NULL);
    close(fd);
    memcpy(file->ptr, was, sizeof was);
    return rc;
}

static void a_forged_header_gets_neither_memory_nor_time(void **state)
{
    (void)state;
    struct buf file = {0};
    char path[128];
    put("phrase", 0600, "correct horse\n");
    path_of(path, "phrase");
    backup_key_fini(&passphrase);
    assert_int_equal(backup_key_passphrase(path, -1, &passphrase, &err), 0);
    make("forged", &forms[2], few, FEW, NULL);
    load("forged", &file);
    file.ptr[8] = 1; /* a passphrase, with limits of nothing */
    assert_int_equal(forged_header(&file, 12, 0), AZOTH_ERR_FORMAT);
    file.ptr[12] = 3;
    assert_int_equal(forged_header(&file, 16 + 3, 0x80), AZOTH_ERR_FORMAT); /* 2 GiB */
    assert_non_null(strstr(err.message, "2048 MiB"));
    assert_int_equal(forged_header(&file, 16 + 7, 0x80), AZOTH_ERR_FORMAT);
    file.ptr[16 + 1] = 0x40; /* 16 KiB, which may be had */
    assert_int_equal(forged_header(&file, 12, 11), AZOTH_ERR_FORMAT);
    assert_int_equal(forged_header(&file, 12, 3), AZOTH_ERR_WRONG_KEY);
    assert_int_equal(forged_header(&file, 8, 2), AZOTH_ERR_FORMAT);
    assert_int_equal(forged_header(&file, 30, 2), AZOTH_ERR_WRONG_KEY);
    assert_int_equal(forged_header(&file, 7, '2'), AZOTH_ERR_FORMAT);
    assert_non_null(strstr(err.message, "another version"));
    drop("forged");
    drop("phrase");
    buf_fini(&file);
}

static void nothing_but_sizes_is_readable_without_the_key(void **state)
{
    (void)state;
    static const char *const words[] = {"about.json",  "manifest",  "accounts",
                                        "azoth.conf",  "xylophone", "ustar",
                                        "quick brown", "blake2b",   "\x28\xB5\x2F\xFD"};
    struct buf plain = {0}, file = {0}, again = {0};
    make("plain", &forms[1], few, FEW, NULL);
    load("plain", &plain);
    for (size_t i = 0; i < 8; i++)
        assert_true(contains(&plain, words[i]));
    for (int f = 2; f < FORMS; f++) {
        make("file", &forms[f], few, FEW, NULL);
        make("again", &forms[f], few, FEW, NULL);
        load("file", &file);
        load("again", &again);
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            assert_false(contains(&file, words[i]));
        /* Nor that two are of the same content; nor any of their bytes, but what says how to open them. */
        assert_int_equal(file.len, again.len);
        assert_memory_not_equal(file.ptr + 24, again.ptr + 24, 16);
        for (size_t i = 96; i + 64 < file.len - 32; i += 16)
            assert_memory_not_equal(file.ptr + i, again.ptr + i, 16);
        drop("file");
        drop("again");
    }
    drop("plain");
    buf_fini(&plain);
    buf_fini(&file);
    buf_fini(&again);
}

static int key_code(const char *name, const char *text, mode_t mode)
{
    struct backup_key k = {0};
    char path[128];
    put(name, mode, text);
    path_of(path, name);
    int rc = backup_key_read(path, &k, &err);
    drop(name);
    backup_key_fini(&k);
    return rc;
}

#define DIGITS "0123456789abcdef0123456789abcdef0123456789ABCDEF0123456789abcdef"

static void a_key_file_is_made_once_and_read_by_its_owner_alone(void **state)
{
    (void)state;
    struct backup_key k;
    struct stat st;
    char path[128];
    mode_t mask = umask(0);
    path_of(path, "made");
    assert_int_equal(backup_key_make(path, &err), 0);
    umask(mask);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0600);
    assert_int_equal(st.st_size, 65);
    assert_int_equal(backup_key_make(path, &err), AZOTH_ERR_DUPLICATE);
    assert_int_equal(backup_key_read(path, &k, &err), 0);
    assert_int_equal(k.secret_len, 32);
    assert_memory_not_equal(k.secret, key.secret, 32);
    backup_key_fini(&k);
    for (size_t i = 0; i < sizeof k; i++)
        assert_int_equal(((unsigned char *)&k)[i], 0);
    drop("made");
    assert_int_equal(backup_key_read(path, &k, &err), AZOTH_ERR_NOT_FOUND);
    assert_int_equal(key_code("k", DIGITS "\n", 0600), 0);
    assert_int_equal(key_code("k", DIGITS, 0440), 0);
    assert_int_equal(key_code("k", DIGITS, 0604), AZOTH_ERR_PERMISSION);
    assert_int_equal(key_code("k", DIGITS, 0660), AZOTH_ERR_PERMISSION);
    assert_int_equal(key_code("k", DIGITS "0", 0600), AZOTH_ERR_CONFIG);
    assert_int_equal(key_code("k", DIGITS " ", 0600), AZOTH_ERR_CONFIG);
    assert_int_equal(key_code("k", &DIGITS[1], 0600), AZOTH_ERR_CONFIG);
    assert_int_equal(key_code("k", "x" DIGITS, 0600), AZOTH_ERR_CONFIG);
    assert_int_equal(key_code("k", "", 0600), AZOTH_ERR_CONFIG);
}

static int phrase_code(const char *text, size_t len, size_t *ret_len)
{
    struct backup_key k = {0};
    int fd = memory(bytes_of(text, len));
    int rc = backup_key_passphrase(NULL, fd, &k, &err);
    *ret_len = k.secret_len;
    if (!rc) {
        /* The next line is still there for who reads it. */
        assert_true(lseek(fd, 0, SEEK_CUR) ==
                    (off_t)(len < k.secret_len + 1 ? len : k.secret_len + 1));
        assert_memory_equal(k.secret, text, k.secret_len);
    }
    close(fd);
    backup_key_fini(&k);
    return rc;
}

static void a_passphrase_is_one_line_of_8_to_1023_bytes(void **state)
{
    (void)state;
    char text[1100];
    size_t len;
    memset(text, 'p', sizeof text);
    assert_int_equal(phrase_code(text, 7, &len), AZOTH_ERR_CONFIG);
    assert_int_equal(phrase_code(text, 8, &len), 0);
    assert_int_equal(phrase_code(text, 1023, &len), 0);
    assert_int_equal(len, 1023);
    assert_int_equal(phrase_code(text, 1024, &len), AZOTH_ERR_CONFIG);
    text[9] = '\n';
    assert_int_equal(phrase_code(text, 1100, &len), 0);
    assert_int_equal(len, 9);
    text[9] = 0;
    assert_int_equal(phrase_code(text, 20, &len), AZOTH_ERR_CONFIG);
    put("phrase", 0644, "correct horse\n");
    char path[128];
    struct backup_key k;
    path_of(path, "phrase");
    assert_int_equal(backup_key_passphrase(path, -1, &k, &err), AZOTH_ERR_PERMISSION);
    drop("phrase");
}

/* ---- signatures ---- */

static int signed_code(const char *name, const struct sign_key *k)
{
    struct backupfile_in *b;
    char path[128];
    path_of(path, name);
    int rc = backupfile_open(path, NULL, &b, &err);
    assert_int_equal(rc, 0);
    assert_int_equal(check_members(b, few, FEW, 4096), 0);
    rc = backupfile_signed_by(b, k, &err);
    backupfile_close(b);
    return rc;
}

static void make_sign_key(const char *name, struct sign_key *secret, struct sign_key *public)
{
    char path[128];
    path_of(path, name);
    assert_int_equal(sign_key_make(path, &err), 0);
    assert_int_equal(sign_key_make(path, &err), AZOTH_ERR_DUPLICATE);
    assert_int_equal(sign_key_read(path, secret, &err), 0);
    strcat(path, ".pub");
    assert_int_equal(sign_key_read(path, public, &err), 0);
    assert_true(secret->has_secret && !public->has_secret);
    assert_memory_equal(secret->public, public->public, 32);
}

static void a_signature_is_of_this_content_by_this_key(void **state)
{
    (void)state;
    struct sign_key secret, public, others, other_public;
    make_sign_key("sign", &secret, &public);
    make_sign_key("others", &others, &other_public);
    struct backupfile_options o = {.level = 3, .sign = &secret}, cannot = {.sign = &public};
    unsigned char with[BACKUPFILE_DIGEST], without[BACKUPFILE_DIGEST];
    struct backupfile_out *b;
    char path[128];
    make("signed", &o, few, FEW, with);
    make("unsigned", &forms[0], few, FEW, without);
    assert_memory_equal(with, without, sizeof with);
    assert_int_equal(signed_code("signed", &public), 0);
    assert_int_equal(signed_code("signed", &secret), 0);
    says(signed_code("signed", &other_public), AZOTH_ERR_CORRUPT, "another key");
    assert_int_equal(signed_code("unsigned", &public), AZOTH_ERR_NOT_FOUND);
    path_of(path, "none");
    assert_int_equal(backupfile_create(path, &cannot, bytes_str(ABOUT), &b, &err), AZOTH_ERR_USAGE);
    assert_false(exists("none.partial"));
    unsigned char sig[64];
    struct azoth_bytes text = bytes_str("a statement");
    assert_int_equal(sign_bytes(&public, text, sig, &err), AZOTH_ERR_USAGE);
    assert_int_equal(sign_bytes(&secret, text, sig, &err), 0);
    assert_int_equal(sign_check(&public, text, sig, &err), 0);
    assert_int_equal(sign_check(&other_public, text, sig, &err), AZOTH_ERR_CORRUPT);
    assert_int_equal(sign_check(&public, bytes_str("a statemenT"), sig, &err), AZOTH_ERR_CORRUPT);
    sign_key_fini(&secret);
    sign_key_fini(&others);
    drop("signed");
    drop("unsigned");
    drop("sign");
    drop("sign.pub");
    drop("others");
    drop("others.pub");
}

static int sign_code(const char *name, struct sign_key *k)
{
    char path[128];
    path_of(path, name);
    return sign_key_read(path, k, &err);
}

static void no_key_is_taken_for_another(void **state)
{
    (void)state;
    struct sign_key k, public;
    struct backup_key b;
    struct buf text = {0};
    char path[128];
    make_sign_key("sign", &k, &public);
    assert_int_equal(sign_code("key", &k), AZOTH_ERR_CONFIG);
    path_of(path, "sign.pub");
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(backup_key_read(path, &b, &err), AZOTH_ERR_CONFIG);
    path_of(path, "sign");
    assert_int_equal(backup_key_read(path, &b, &err), AZOTH_ERR_CONFIG);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(sign_code("sign", &k), AZOTH_ERR_PERMISSION);
    /* The second half of a secret is its public key: one that does not belong to it signs what nobody can check. */
    load("sign", &text);
    assert_int_equal(buf_add(&text, "", 1), 0);
    char *digit = (char *)text.ptr + strlen("azoth-sign-secret ") + 100;
    *digit = *digit == '0' ? '1' : '0';
    put("mended", 0600, (char *)text.ptr);
    assert_int_equal(sign_code("mended", &k), AZOTH_ERR_CONFIG);
    /* A pair is made whole or not at all. */
    drop("sign");
    path_of(path, "sign");
    assert_int_equal(sign_key_make(path, &err), AZOTH_ERR_DUPLICATE);
    assert_false(exists("sign"));
    drop("sign.pub");
    drop("mended");
    buf_fini(&text);
}

/* ---- the same bytes ---- */

static void the_same_members_are_the_same_bytes_whatever_the_surroundings(void **state)
{
    (void)state;
    static const struct member m[] = {{"a", 3000000}, {"projections/p.db", 70000}};
    struct buf first = {0}, other = {0};
    struct stat st;
    char path[128], long_name[256];
    memset(long_name, 'n', 255);
    long_name[255] = 0;
    struct member longest = {long_name, 5};
    for (int i = 0; i < 2; i++) {
        make("first", &forms[i], m, 2, NULL);
        make("first-long", &forms[i], &longest, 1, NULL);
        char *was = strdup(setlocale(LC_ALL, NULL));
        mode_t mask = umask(077);
        setenv("TZ", "Pacific/Auckland", 1);
        tzset();
        setlocale(LC_ALL, "C.UTF-8");
        make("other", &forms[i], m, 2, NULL);
        make("other-long", &forms[i], &longest, 1, NULL);
        setlocale(LC_ALL, was);
        free(was);
        unsetenv("TZ");
        tzset();
        path_of(path, "other");
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        drop("other");
        umask(0);
        make("other", &forms[i], m, 2, NULL);
        umask(mask);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0640);
        load("first", &first);
        load("other", &other);
        assert_true(bytes_eq(buf_bytes(&first), buf_bytes(&other)));
        load("first-long", &first);
        load("other-long", &other);
        assert_true(bytes_eq(buf_bytes(&first), buf_bytes(&other)));
        assert_int_equal(check("other-long", NULL, &longest, 1, NULL), 0);
        drop("first");
        drop("other");
        drop("first-long");
        drop("other-long");
    }
    buf_fini(&first);
    buf_fini(&other);
}

static void threads_and_levels_change_the_file_and_not_its_content(void **state)
{
    (void)state;
    static const struct member m[] = {{"a", 3000000}};
    static const int levels[] = {1, 3, 19};
    unsigned char first[BACKUPFILE_DIGEST], digest[BACKUPFILE_DIGEST];
    struct stat st;
    char path[128];
    off_t sizes[3];
    path_of(path, "level");
    for (int i = 0; i < 3; i++) {
        struct backupfile_options o = {.level = levels[i], .threads = i == 1 ? 2 : 0};
        make("level", &o, m, 1, i ? digest : first);
        assert_int_equal(stat(path, &st), 0);
        sizes[i] = st.st_size;
        assert_int_equal(check("level", NULL, m, 1, digest), 0);
        assert_memory_equal(first, digest, sizeof digest);
        drop("level");
    }
    assert_true(sizes[0] < 2000000 && sizes[2] < sizes[0]);
    struct backupfile_out *b;
    struct backupfile_options high = {.level = 20}, low = {.level = -1};
    assert_int_equal(backupfile_create(path, &high, bytes_str("{}"), &b, &err), AZOTH_ERR_USAGE);
    assert_int_equal(backupfile_create(path, &low, bytes_str("{}"), &b, &err), AZOTH_ERR_USAGE);
}

/* What a shell says to a command: its output's lines, or NULL when it failed. */
static char *shell(const char *command)
{
    static char out[4096];
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    return pclose(f) == 0 ? out : NULL;
}

static void shell_says(const char *command, const char *want)
{
    const char *out = shell(command);
    assert_non_null(out);
    assert_string_equal(out, want);
}

static void without_a_key_zstd_and_tar_read_it(void **state)
{
    (void)state;
    static const char names[] =
        "about.json\ndata.mdb/00000001\nprojections/accounts.db\nazoth.conf\nmanifest.json\n";
    char command[400];
    if (!shell("command -v zstd tar >/dev/null")) {
        print_message(
            "skip - zstd and tar are not both installed: nobody else has read a backup\n");
        skip();
    }
    make("plain", &forms[0], few, FEW, NULL);
    make("stored", &forms[1], few, FEW, NULL);
    snprintf(command, sizeof command, "zstd -dqc '%s/plain' | tar t 2>&1", dir);
    shell_says(command, names);
    snprintf(command, sizeof command, "tar tf '%s/stored' 2>&1", dir);
    shell_says(command, names);
    snprintf(command, sizeof command, "zstd -dqc '%s/plain' | tar xO manifest.json | wc -l", dir);
    shell_says(command, "6\n");
    snprintf(command, sizeof command, "zstd -dqc '%s/plain' | tar xO about.json", dir);
    shell_says(command, ABOUT);
    drop("plain");
    drop("stored");
}

static void the_manifest_is_json_that_says_what_is_there(void **state)
{
    (void)state;
    struct buf text = {0};
    struct backupfile_out *b;
    struct backupfile_in *in;
    char path[128];
    path_of(path, "dir");
    assert_int_equal(backupfile_create_dir(path, &forms[0], bytes_str(ABOUT), &b, &err), 0);
    write_members(b, few, FEW);
    unsigned char digest[BACKUPFILE_DIGEST], of_text[BACKUPFILE_DIGEST];
    assert_int_equal(backupfile_finish(b, digest, &err), 0);
    load("dir/manifest.json", &text);
    crypto_generichash(of_text, sizeof of_text, text.ptr, text.len, NULL, 0);
    assert_memory_equal(of_text, digest, sizeof digest);
    json_t *j = json_loadb((char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    json_t *list = json_object_get(j, "members");
    assert_int_equal(json_array_size(list), 1 + FEW);
    assert_int_equal(json_integer_value(json_object_get(j, "azoth-backup")), 1);
    for (size_t i = 0; i < FEW; i++) {
        json_t *m = json_array_get(list, i + 1);
        assert_string_equal(json_string_value(json_object_get(m, "name")), few[i].name);
        assert_int_equal(json_integer_value(json_object_get(m, "bytes")), few[i].bytes);
    }
    json_decref(j);
    buf_fini(&text);
    assert_int_equal(backupfile_open(path, NULL, &in, &err), 0);
    assert_true(bytes_eq(backupfile_about(in), bytes_str(ABOUT)));
    assert_int_equal(check_members(in, few, FEW, 4096), 0);
    backupfile_close(in);
    remove_tree("dir");
}

/* ---- what is asked for wrongly ---- */

static void names_and_sizes_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",      "/",    "/a",   "a/",   "a//b", ".",        "..",   "../a",       "a/..",
        "a/./b", "a\nb", "a\\b", "a\"b", "\x7f", "\xc3\xa9", "a\tb", "about.json", "manifest.json"};
    static const char *const good[] = {"a", "...", "a b", ".x", "a/b/c", "a..b", "about.json2"};
    char long_name[257];
    struct backupfile_out *b;
    char path[128];
    path_of(path, "names");
    memset(long_name, 'n', 256);
    long_name[256] = 0;
    assert_int_equal(backupfile_create(path, &forms[0], bytes_str(ABOUT), &b, &err), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(backupfile_name_valid(bad[i]));
        assert_int_equal(backupfile_member(b, bad[i], 0, &err), AZOTH_ERR_USAGE);
    }
    assert_int_equal(backupfile_member(b, long_name, 0, &err), AZOTH_ERR_USAGE);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(backupfile_add(b, good[i], bytes_str("x"), &err), 0);
    assert_int_equal(backupfile_add(b, "a", bytes_str("x"), &err), AZOTH_ERR_DUPLICATE);
    assert_int_equal(backupfile_add(b, long_name + 1, bytes_str("x"), &err), 0);
    assert_int_equal(backupfile_member(b, "huge", BACKUPFILE_MEMBER_MAX + 1, &err),
                     AZOTH_ERR_USAGE);
    assert_int_equal(backupfile_member(b, "m", 3, &err), 0);
    assert_int_equal(backupfile_write(b, "four", 4, &err), AZOTH_ERR_USAGE);
    assert_int_equal(backupfile_write(b, "tw", 2, &err), 0);
    assert_int_equal(backupfile_member(b, "next", 3, &err), AZOTH_ERR_USAGE);
    assert_non_null(strstr(err.message, "1 are missing"));
    assert_int_equal(backupfile_finish(b, NULL, &err), AZOTH_ERR_USAGE);
    assert_false(exists("names") || exists("names.partial"));
}

static void about_is_a_json_object_of_bounded_size(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "[]", "{", "{\"a\":1,\"a\":2}", "{} x"};
    struct backupfile_out *b;
    char path[128];
    path_of(path, "about");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(backupfile_create(path, &forms[0], bytes_str(bad[i]), &b, &err),
                         AZOTH_ERR_BAD_JSON);
    char *big = malloc(BACKUPFILE_ABOUT_MAX + 1);
    assert_non_null(big);
    memset(big, ' ', BACKUPFILE_ABOUT_MAX + 1);
    memcpy(big, "{}", 2);
    assert_int_equal(
        backupfile_create(path, &forms[0], bytes_of(big, BACKUPFILE_ABOUT_MAX + 1), &b, &err),
        AZOTH_ERR_USAGE);
    assert_int_equal(
        backupfile_create(path, &forms[0], bytes_of(big, BACKUPFILE_ABOUT_MAX), &b, &err), 0);
    backupfile_abort(b);
    free(big);
    assert_false(exists("about.partial"));
    assert_int_equal(open_code("about", NULL), AZOTH_ERR_NOT_FOUND);
}

/* ---- one place, one writer ---- */

static void a_place_is_one_writer_s_and_nothing_is_written_over(void **state)
{
    (void)state;
    struct backupfile_out *a, *b;
    char path[128], partial[128];
    path_of(path, "place");
    path_of(partial, "place.partial");
    for (int i = 0; i < 2; i++) {
        int (*create)(const char *, const struct backupfile_options *, struct azoth_bytes,
                      struct backupfile_out **, struct azoth_error *) =
            i ? backupfile_create_dir : backupfile_create;
        assert_int_equal(create(path, &forms[0], bytes_str(ABOUT), &a, &err), 0);
        assert_int_equal(create(path, &forms[0], bytes_str(ABOUT), &b, &err), AZOTH_ERR_BUSY);
        assert_true(exists("place.partial") && !exists("place"));
        /* Somebody is quicker: what has the name stays. */
        put("place", 0600, "mine");
        assert_int_equal(create(path, &forms[0], bytes_str(ABOUT), &b, &err), AZOTH_ERR_DUPLICATE);
        assert_int_equal(backupfile_finish(a, NULL, &err), AZOTH_ERR_DUPLICATE);
        assert_false(exists("place.partial"));
        drop("place");
        assert_int_equal(create(path, &forms[0], bytes_str(ABOUT), &a, &err), 0);
        backupfile_abort(a);
        assert_false(exists("place.partial") || exists("place"));
        backupfile_abort(NULL);
    }
    /* What a dead one left; nobody holds it. */
    put("place.partial", 0600, "left");
    make("place", &forms[0], few, FEW, NULL);
    assert_int_equal(check("place", NULL, few, FEW, NULL), 0);
    drop("place");
    /* Of a directory, too, if it may be one. */
    assert_int_equal(mkdir(partial, 0700), 0);
    put("place.partial/about.json", 0600, "");
    path_of(partial, "place.partial/projections");
    assert_int_equal(mkdir(partial, 0700), 0);
    put("place.partial/projections/x", 0600, "");
    assert_int_equal(backupfile_create_dir(path, &forms[0], bytes_str(ABOUT), &a, &err), 0);
    assert_false(exists("place.partial/projections"));
    backupfile_abort(a);
    assert_false(exists("place.partial"));
}

static void what_is_somebody_else_s_is_left_alone(void **state)
{
    (void)state;
    struct backupfile_out *b;
    char path[128], partial[128];
    path_of(path, "place");
    path_of(partial, "place.partial");
    assert_int_equal(mkdir(partial, 0700), 0);
    put("place.partial/thesis.tex", 0600, "years");
    assert_int_equal(backupfile_create_dir(path, &forms[0], bytes_str(ABOUT), &b, &err),
                     AZOTH_ERR_USAGE);
    assert_true(exists("place.partial/thesis.tex"));
    assert_true(backupfile_create(path, &forms[0], bytes_str(ABOUT), &b, &err) < 0);
    assert_true(exists("place.partial/thesis.tex"));
    drop("place.partial/thesis.tex");
    assert_int_equal(rmdir(partial), 0);
    put("victim", 0600, "mine");
    assert_int_equal(symlink("victim", partial), 0);
    assert_true(backupfile_create(path, &forms[0], bytes_str(ABOUT), &b, &err) < 0);
    assert_int_equal(unlink(partial), 0);
    assert_int_equal(mkfifo(partial, 0600), 0);
    assert_int_equal(backupfile_create(path, &forms[0], bytes_str(ABOUT), &b, &err),
                     AZOTH_ERR_USAGE);
    assert_int_equal(unlink(partial), 0);
    drop("victim");
    path_of(path, "missing/place");
    assert_int_equal(backupfile_create(path, &forms[0], bytes_str(ABOUT), &b, &err),
                     AZOTH_ERR_NOT_FOUND);
}

/* Many at once for one place: one of them has it, and what it says is there. */
static void *race(void *arg)
{
    struct backupfile_out *b;
    struct azoth_error e;
    char path[128];
    path_of(path, "race");
    int rc = backupfile_create(path, &forms[0], bytes_str(ABOUT), &b, &e);
    if (!rc)
        rc = backupfile_finish(b, NULL, &e);
    *(int *)arg = rc;
    return NULL;
}

static void of_many_writers_one_has_the_place(void **state)
{
    (void)state;
    enum { N = 8 };
    for (int round = 0; round < 20; round++) {
        pthread_t thread[N];
        int rc[N], won = 0;
        if (round % 2)
            put("race.partial", 0600, "left");
        for (int i = 0; i < N; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, race, &rc[i]), 0);
        for (int i = 0; i < N; i++)
            pthread_join(thread[i], NULL);
        for (int i = 0; i < N; i++) {
            won += rc[i] == 0;
            assert_true(rc[i] == 0 || rc[i] == AZOTH_ERR_BUSY || rc[i] == AZOTH_ERR_DUPLICATE);
        }
        assert_int_equal(won, 1);
        assert_int_equal(check("race", NULL, NULL, 0, NULL), 0);
        assert_false(exists("race.partial"));
        drop("race");
    }
}

/* ---- directories ---- */

static int dir_code(const struct member *m, size_t n)
{
    char path[128];
    path_of(path, "dir");
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    int rc = check_fd(fd, NULL, m, n, 100, NULL);
    close(fd);
    return rc;
}

static void make_dir(void)
{
    struct backupfile_out *b;
    char path[128];
    path_of(path, "dir");
    assert_int_equal(backupfile_create_dir(path, &forms[0], bytes_str(ABOUT), &b, &err), 0);
    write_members(b, few, FEW);
    assert_int_equal(backupfile_finish(b, NULL, &err), 0);
}

static void flip(const char *name, size_t at)
{
    unsigned char c;
    char path[128];
    path_of(path, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, (off_t)at), 1);
    c ^= 1;
    assert_int_equal(pwrite(fd, &c, 1, (off_t)at), 1);
    close(fd);
}

static void a_directory_is_read_as_a_file_is(void **state)
{
    (void)state;
    static const char *const files[] = {"about.json", "data.mdb/00000001", "azoth.conf",
                                        "manifest.json"};
    struct backupfile_out *b;
    char path[128], name[64];
    path_of(path, "dir");
    assert_int_equal(backupfile_create_dir(path, &forms[2], bytes_str(ABOUT), &b, &err),
                     AZOTH_ERR_USAGE);
    make_dir();
    assert_false(exists("dir.partial"));
    assert_int_equal(dir_code(few, FEW), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct stat st;
        snprintf(name, sizeof name, "dir/%s", files[i]);
        path_of(path, name);
        assert_int_equal(stat(path, &st), 0);
        for (off_t at = 0; at < st.st_size; at++) {
            flip(name, (size_t)at);
            assert_int_equal(dir_code(few, FEW), AZOTH_ERR_CORRUPT);
            flip(name, (size_t)at);
        }
        for (off_t at = 0; at < st.st_size; at++) {
            struct buf was = {0};
            load(name, &was);
            assert_int_equal(truncate(path, at), 0);
            says(dir_code(few, FEW), AZOTH_ERR_CORRUPT, i == 3 ? "manifest" : "not the manifest's");
            int fd = open(path, O_WRONLY | O_CLOEXEC);
            assert_int_equal(write(fd, was.ptr, was.len), was.len);
            close(fd);
            buf_fini(&was);
        }
    }
    /* What is not the manifest's is not looked at. */
    put("dir/notes.txt", 0600, "mine");
    assert_int_equal(dir_code(few, FEW), 0);
    remove_tree("dir");
}

static void a_directory_that_is_no_backup_or_no_whole_one_is_told(void **state)
{
    (void)state;
    char path[128];
    make_dir();
    path_of(path, "dir/azoth.conf");
    char moved[128];
    path_of(moved, "content");
    assert_int_equal(rename(path, moved), 0);
    says(dir_code(few, FEW), AZOTH_ERR_CORRUPT, "azoth.conf is missing");
    /* With the right content, but somewhere else. */
    assert_int_equal(symlink("../content", path), 0);
    says(dir_code(few, FEW), AZOTH_ERR_CORRUPT, "azoth.conf is missing");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    says(dir_code(few, FEW), AZOTH_ERR_CORRUPT, "no plain file");
    assert_int_equal(unlink(path), 0);
    drop("content");
    flip("dir/manifest.json", strlen("{\"azoth-backup\":") - 1);
    says(dir_code(few, FEW), AZOTH_ERR_CORRUPT, "manifest is none");
    flip("dir/manifest.json", strlen("{\"azoth-backup\":") - 1);
    path_of(path, "dir/manifest.json");
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "3", 1, strlen("{\"azoth-backup\":")), 1);
    close(fd);
    says(dir_code(few, FEW), AZOTH_ERR_FORMAT, "another version");
    drop("dir/manifest.json");
    assert_int_equal(dir_code(few, FEW), AZOTH_ERR_TRUNCATED);
    drop("dir/about.json");
    assert_int_equal(dir_code(few, FEW), AZOTH_ERR_FORMAT);
    remove_tree("dir");
}

static void a_directory_has_no_file_where_it_has_a_directory(void **state)
{
    (void)state;
    struct backupfile_out *b;
    char path[128];
    path_of(path, "dir");
    assert_int_equal(backupfile_create_dir(path, &forms[0], bytes_str(ABOUT), &b, &err), 0);
    assert_int_equal(backupfile_add(b, "a/b", bytes_str("x"), &err), 0);
    assert_int_equal(backupfile_add(b, "a", bytes_str("x"), &err), AZOTH_ERR_DUPLICATE);
    assert_int_equal(backupfile_add(b, "a/b/c", bytes_str("x"), &err), AZOTH_ERR_DUPLICATE);
    assert_int_equal(backupfile_add(b, "about.json/c", bytes_str("x"), &err), AZOTH_ERR_DUPLICATE);
    assert_int_equal(backupfile_add(b, "a/c", bytes_str("x"), &err), 0);
    assert_int_equal(backupfile_written(b), strlen(ABOUT) + 2);
    assert_int_equal(backupfile_finish(b, NULL, &err), 0);
    remove_tree("dir");
}

/* A name in a signed manifest that leads out of the directory is refused before anything is opened. */
static void a_manifest_leads_nowhere_else(void **state)
{
    (void)state;
    static const char *const names[] = {"../content", "/etc/passwd", "a/../../content", ""};
    char text[400], path[128];
    put("content", 0600, "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        make_dir();
        path_of(path, "dir/manifest.json");
        struct buf was = {0};
        load("dir/manifest.json", &was);
        char *end = strchr((char *)was.ptr, '}');
        int first = (int)(end + 1 - (char *)was.ptr);
        snprintf(text, sizeof text,
                 "%.*s,\n{\"name\":\"%s\",\"bytes\":0,\"blake2b\":\"%064d\"}\n]}\n", first,
                 (char *)was.ptr, names[i], 0);
        drop("dir/manifest.json");
        put("dir/manifest.json", 0600, text);
        assert_int_equal(dir_code(few, FEW), AZOTH_ERR_CORRUPT);
        assert_non_null(strstr(err.message, "makes no sense"));
        remove_tree("dir");
        buf_fini(&was);
    }
    drop("content");
}

static void a_signature_in_a_directory_that_was_changed_is_none(void **state)
{
    (void)state;
    struct sign_key secret, public, others, other_public;
    struct backupfile_out *b;
    struct buf text = {0};
    char path[128];
    make_sign_key("sign", &secret, &public);
    make_sign_key("others", &others, &other_public);
    struct backupfile_options o = {.sign = &secret};
    path_of(path, "dir");
    assert_int_equal(backupfile_create_dir(path, &o, bytes_str(ABOUT), &b, &err), 0);
    write_members(b, few, FEW);
    assert_int_equal(backupfile_finish(b, NULL, &err), 0);
    assert_int_equal(signed_code("dir", &public), 0);
    load("dir/manifest.json", &text);
    /* The last digits but the end of the JSON. '0' to '1' and so on: other hexadecimal digits. */
    size_t at = text.len - 4;
    while (text.ptr[at] == 'a' || text.ptr[at] == '9' || text.ptr[at] == 'f')
        at--;
    flip("dir/manifest.json", at);
    int rc = signed_code("dir", &public);
    assert_int_equal(rc, AZOTH_ERR_CORRUPT);
    assert_non_null(strstr(err.message, "not signed with this key"));
    remove_tree("dir");
    drop("sign");
    drop("sign.pub");
    drop("others");
    drop("others.pub");
    buf_fini(&text);
}

/* ---- what no writer of ours makes ---- */

/* A tar stream that anybody might make, in memory, with the trailer of a backup behind it. */
struct forger {
    struct archive *a;
    unsigned char *bytes;
    size_t cap, used;
};

static void forge(struct forger *f, int zstd)
{
    f->cap = 8 << 20;
    f->bytes = malloc(f->cap);
    f->a = archive_write_new();
    assert_true(f->bytes && f->a);
    archive_write_set_format_pax(f->a);
    if (zstd)
        assert_int_equal(archive_write_add_filter_zstd(f->a), ARCHIVE_OK);
    archive_write_set_bytes_per_block(f->a, 0);
    assert_int_equal(archive_write_open_memory(f->a, f->bytes, f->cap, &f->used), ARCHIVE_OK);
}

static struct archive_entry *forged_entry(const char *name, size_t bytes)
{
    struct archive_entry *e = archive_entry_new();
    assert_non_null(e);
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_size(e, (la_int64_t)bytes);
    return e;
}

static void forge_entry(struct forger *f, struct archive_entry *e, const void *p, size_t bytes)
{
    assert_int_equal(archive_write_header(f->a, e), ARCHIVE_OK);
    if (bytes)
        assert_int_equal(archive_write_data(f->a, p, bytes), bytes);
    archive_entry_free(e);
}

static void forge_member(struct forger *f, const char *name, const char *text)
{
    forge_entry(f, forged_entry(name, strlen(text)), text, strlen(text));
}

static void add_trailer(struct buf *b)
{
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits(b->ptr, b->len));
    assert_int_equal(buf_add(b, "\x50\x2A\x4D\x18\x18\0\0\0AZOTHEND", 16), 0);
    assert_int_equal(buf_add(b, &sum, sizeof sum), 0);
}

/* Reads what was forged: the code; err has the sentence. */
static int forged_code(struct forger *f)
{
    struct buf b = {0};
    assert_int_equal(archive_write_close(f->a), ARCHIVE_OK);
    archive_write_free(f->a);
    assert_int_equal(buf_add(&b, f->bytes, f->used), 0);
    add_trailer(&b);
    int fd = memory(buf_bytes(&b));
    int rc = check_fd(fd, &key, few, FEW, 4096, NULL);
    close(fd);
    buf_fini(&b);
    free(f->bytes);
    return rc;
}

static int forged_one(struct archive_entry *e, const void *p, size_t bytes)
{
    struct forger f;
    forge(&f, 0);
    forge_member(&f, "about.json", ABOUT);
    forge_entry(&f, e, p, bytes);
    return forged_code(&f);
}

static void members_that_are_no_plain_files_are_refused(void **state)
{
    (void)state;
    static const int types[] = {AE_IFDIR, AE_IFIFO, AE_IFCHR, AE_IFBLK};
    struct archive_entry *e = forged_entry("m", 0);
    archive_entry_set_filetype(e, AE_IFLNK);
    archive_entry_set_symlink(e, "/etc/passwd");
    says(forged_one(e, NULL, 0), AZOTH_ERR_CORRUPT, "no plain file");
    e = forged_entry("m", 0);
    archive_entry_set_hardlink(e, "about.json");
    says(forged_one(e, NULL, 0), AZOTH_ERR_CORRUPT, "no plain file");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        e = forged_entry("m", 0);
        archive_entry_set_filetype(e, (unsigned)types[i]);
        assert_int_equal(forged_one(e, NULL, 0), AZOTH_ERR_CORRUPT);
    }
    e = forged_entry("m", 1);
    archive_entry_xattr_add_entry(e, "user.x", "y", 1);
    says(forged_one(e, "x", 1), AZOTH_ERR_CORRUPT, "no plain file");
    e = forged_entry("m", 100000);
    archive_entry_sparse_add_entry(e, 0, 512);
    archive_entry_sparse_add_entry(e, 99488, 512);
    char *zeros = calloc(1, 100000);
    says(forged_one(e, zeros, 100000), AZOTH_ERR_CORRUPT, "no plain file");
    free(zeros);
}

static void names_that_lead_elsewhere_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"/etc/passwd", "../x", "a/../../x", "a//b",
                                        "./a",         "a\nb", "a/"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        says(forged_one(forged_entry(names[i], 1), "x", 1), AZOTH_ERR_CORRUPT, "");
    char *name = malloc(300001);
    assert_non_null(name);
    memset(name, 'n', 300000);
    name[256] = 0;
    says(forged_one(forged_entry(name, 1), "x", 1), AZOTH_ERR_CORRUPT, "of this name");
    /* In a header that has most of the mebibyte that libarchive takes, and in one that has more. */
    name[256] = 'n';
    name[300000] = 0;
    says(forged_one(forged_entry(name, 1), "x", 1), AZOTH_ERR_CORRUPT, "of this name");
    free(name);
    struct archive_entry *e = forged_entry("m", 1);
    size_t big = 3 << 20;
    char *value = malloc(big);
    assert_non_null(value);
    memset(value, 'v', big);
    archive_entry_xattr_add_entry(e, "user.x", value, big);
    assert_int_equal(forged_one(e, "x", 1), AZOTH_ERR_CORRUPT);
    free(value);
    says(forged_one(forged_entry("about.json", 1), "x", 1), AZOTH_ERR_CORRUPT, "twice");
}

/* The chunks of an encrypted file in another order, with a trailer that is right: what has been read of it so far. */
static int rechunked_code(const struct buf *file, const int *order, int n, size_t junk)
{
    struct buf b = {0};
    size_t chunk = 65536 + 17, rest = (file->len - 96 - 32) % chunk;
    int last = (int)((file->len - 96 - 32) / chunk);
    assert_int_equal(buf_add(&b, file->ptr, 96), 0);
    for (int i = 0; i < n; i++)
        assert_int_equal(
            buf_add(&b, file->ptr + 96 + (size_t)order[i] * chunk, order[i] == last ? rest : chunk),
            0);
    for (size_t i = 0; i < junk; i++)
        assert_int_equal(buf_add(&b, "j", 1), 0);
    add_trailer(&b);
    static const struct member m[] = {{"m", 150000}};
    int fd = memory(buf_bytes(&b));
    int rc = check_fd(fd, &key, m, 1, 4096, NULL);
    close(fd);
    buf_fini(&b);
    return rc;
}

static void chunks_are_all_there_in_their_order(void **state)
{
    (void)state;
    static const struct member m[] = {{"m", 150000}};
    struct buf file = {0};
    make("chunks", &forms[3], m, 1, NULL);
    load("chunks", &file);
    static const int all[] = {0, 1, 2}, swapped[] = {1, 0, 2}, twice[] = {0, 0, 1, 2},
                     without[] = {0, 2}, again[] = {0, 1, 2, 2};
    assert_int_equal(rechunked_code(&file, all, 3, 0), 0);
    says(rechunked_code(&file, all, 2, 0), AZOTH_ERR_TRUNCATED, "too early");
    says(rechunked_code(&file, all, 0, 0), AZOTH_ERR_TRUNCATED, "too early");
    says(rechunked_code(&file, swapped, 3, 0), AZOTH_ERR_CORRUPT, "fails its check");
    says(rechunked_code(&file, twice, 4, 0), AZOTH_ERR_CORRUPT, "fails its check");
    says(rechunked_code(&file, without, 2, 0), AZOTH_ERR_CORRUPT, "fails its check");
    assert_int_equal(rechunked_code(&file, again, 4, 0), AZOTH_ERR_CORRUPT);
    assert_int_equal(rechunked_code(&file, all, 3, 1), AZOTH_ERR_CORRUPT);
    drop("chunks");
    buf_fini(&file);
    /* Behind a last chunk that is full nothing else is wrong with what is added. */
    struct backupfile_options o = {.level = 0, .key = &key};
    int full = 0;
    for (size_t blocks = 116; blocks <= 130; blocks++) {
        struct member one = {"m", blocks * 512};
        make("chunks", &o, &one, 1, NULL);
        load("chunks", &file);
        drop("chunks");
        if ((file.len - 96 - 32) % (65536 + 17) != 0)
            continue;
        says(rechunked_code(&file, all, 1, 100000), AZOTH_ERR_CORRUPT, "behind its end");
        full++;
    }
    assert_int_equal(full, 1);
    buf_fini(&file);
}

/* Copies the members of a file that was made, and does one thing otherwise. */
enum otherwise {
    AS_IT_IS,
    DROPPED,
    TWICE,
    SWAPPED,
    ONE_MORE,
    BEHIND,
    ANOTHER_BYTE,
    LATER_VERSION,
    NO_MANIFEST,
    EMPTY_FILE
};

static int copied_code(enum otherwise what, int zstd)
{
    struct forger f;
    struct buf file = {0}, content[8] = {{0}};
    char names[8][64];
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    size_t n = 0;
    make("copied", &forms[1], few, FEW, NULL);
    load("copied", &file);
    archive_read_support_format_tar(a);
    assert_int_equal(archive_read_open_memory(a, file.ptr, file.len), ARCHIVE_OK);
    for (; archive_read_next_header(a, &e) == ARCHIVE_OK; n++) {
        size_t bytes = (size_t)archive_entry_size(e);
        snprintf(names[n], sizeof names[n], "%s", archive_entry_pathname(e));
        unsigned char *p = buf_grow(&content[n], bytes + 1);
        assert_int_equal(archive_read_data(a, p, bytes), bytes);
        content[n].len = bytes;
    }
    archive_read_free(a);
    assert_int_equal(n, FEW + 2);
    if (what == LATER_VERSION)
        content[4].ptr[strlen("{\"azoth-backup\":")] = '2';
    if (what == ANOTHER_BYTE)
        content[1].ptr[7] ^= 4;
    static const size_t in_order[] = {0, 1, 2, 3, 4}, swapped[] = {0, 2, 1, 3, 4};
    forge(&f, zstd);
    for (size_t i = 0; i < n && what != EMPTY_FILE; i++) {
        size_t at = what == SWAPPED ? swapped[i] : in_order[i];
        if ((what == DROPPED && i == 2) || (what == NO_MANIFEST && i == 4))
            continue;
        for (int k = 0; k < (what == TWICE && i == 1 ? 2 : 1); k++)
            forge_entry(&f, forged_entry(names[at], content[at].len), content[at].ptr,
                        content[at].len);
        if (what == ONE_MORE && i == 3)
            forge_member(&f, "one-more", "x");
    }
    if (what == BEHIND)
        forge_member(&f, "one-more", "x");
    int rc = forged_code(&f);
    for (size_t i = 0; i < n; i++)
        buf_fini(&content[i]);
    buf_fini(&file);
    drop("copied");
    return rc;
}

static void the_manifest_is_of_these_members_in_this_order(void **state)
{
    (void)state;
    for (int zstd = 0; zstd < 2; zstd++) {
        assert_int_equal(copied_code(AS_IT_IS, zstd), 0); /* who forges all of it makes a backup */
        says(copied_code(DROPPED, zstd), AZOTH_ERR_CORRUPT, "azoth.conf is not what");
        says(copied_code(TWICE, zstd), AZOTH_ERR_CORRUPT, "data.mdb/00000001 is there twice");
        says(copied_code(SWAPPED, zstd), AZOTH_ERR_CORRUPT, "projections/accounts.db is not what");
        says(copied_code(ONE_MORE, zstd), AZOTH_ERR_CORRUPT, "manifest");
        says(copied_code(BEHIND, zstd), AZOTH_ERR_CORRUPT, "behind its manifest");
        says(copied_code(LATER_VERSION, zstd), AZOTH_ERR_FORMAT, "another version");
        says(copied_code(ANOTHER_BYTE, zstd), AZOTH_ERR_CORRUPT, "data.mdb/00000001 is not what");
        says(copied_code(NO_MANIFEST, zstd), AZOTH_ERR_TRUNCATED, "no manifest");
        says(copied_code(EMPTY_FILE, zstd), AZOTH_ERR_TRUNCATED, "empty");
    }
}

static void what_is_no_backup_is_told(void **state)
{
    (void)state;
    struct forger f;
    char text[5000];
    memset(text, 'x', sizeof text);
    int fd = memory(bytes_of(text, sizeof text));
    assert_int_equal(check_fd(fd, NULL, NULL, 0, 10, NULL), AZOTH_ERR_FORMAT);
    close(fd);
    fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_true(check_fd(fd, NULL, NULL, 0, 10, NULL) < 0);
    close(fd);
    forge(&f, 0);
    forge_member(&f, "README", "hello");
    says(forged_code(&f), AZOTH_ERR_FORMAT, "first member is README");
    forge(&f, 1);
    forge_member(&f, "./README", "hello");
    assert_int_equal(forged_code(&f), AZOTH_ERR_FORMAT);
    /* Any other format that libarchive would know is none. */
    char cpio[600] = "070707";
    fd = memory(bytes_of(cpio, sizeof cpio));
    assert_int_equal(check_fd(fd, NULL, NULL, 0, 10, NULL), AZOTH_ERR_FORMAT);
    close(fd);
}

/* ---- memory ---- */

/* What a process that reads these bytes takes at most beside what it had, in KiB. */
static long memory_to_read(struct azoth_bytes b, int want)
{
    struct rusage u;
    int status;
    int fd = memory(b);
    pid_t pid = fork();
    if (pid == 0) {
        struct backupfile_in *in;
        const char *name;
        uint64_t bytes;
        struct rusage before, after;
        getrusage(RUSAGE_SELF, &before);
        int rc = backupfile_open_fd(fd, NULL, &in, &err);
        while (rc == 0 || rc == 1)
            if ((rc = backupfile_next(in, &name, &bytes, &err)) == 0)
                break;
        getrusage(RUSAGE_SELF, &after);
        long grown = (after.ru_maxrss - before.ru_maxrss) / 1024;
        _exit(rc != want ? 255 : grown > 250 ? 250 : (int)grown);
    }
    assert_true(pid > 0);
    assert_int_equal(wait4(pid, &status, 0, &u), pid);
    close(fd);
    assert_true(WIFEXITED(status));
    assert_int_not_equal(WEXITSTATUS(status), 255);
    return WEXITSTATUS(status);
}

static void a_stream_of_zeros_takes_time_and_no_memory(void **state)
{
    (void)state;
    struct buf file = {0};
    struct backupfile_out *b;
    char path[128];
    static const char zeros[1 << 20];
    path_of(path, "zeros");
    assert_int_equal(backupfile_create(path, &forms[0], bytes_str(ABOUT), &b, &err), 0);
    assert_int_equal(backupfile_member(b, "zeros", 100u << 20, &err), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(backupfile_write(b, zeros, sizeof zeros, &err), 0);
    assert_int_equal(backupfile_finish(b, NULL, &err), 0);
    load("zeros", &file);
    assert_true(file.len < 100000);
    long grown = memory_to_read(buf_bytes(&file), 0);
    if (grown > 30)
        fail_msg("%ld MiB for zeros", grown);
    drop("zeros");
    buf_fini(&file);
}

/* The frame's header asks for 256 MiB, and for 128, which libzstd's limit lets through. */
static void a_window_of_more_than_128_mib_is_refused(void **state)
{
    (void)state;
    struct buf file = {0}, forged = {0};
    make("window", &forms[0], few, FEW, NULL);
    load("window", &file);
    assert_int_equal(file.ptr[4] & 0x20, 0); /* no single segment: the next byte is the window's */
    for (int log = 27; log <= 28; log++) {
        forged.len = 0;
        assert_int_equal(buf_add(&forged, file.ptr, file.len - 32), 0);
        forged.ptr[5] = (unsigned char)((log - 10) << 3);
        add_trailer(&forged);
        int fd = memory(buf_bytes(&forged));
        assert_int_equal(check_fd(fd, NULL, few, FEW, 4096, NULL),
                         log == 27 ? 0 : AZOTH_ERR_CORRUPT);
        close(fd);
    }
    assert_true(memory_to_read(buf_bytes(&forged), AZOTH_ERR_CORRUPT) < 20);
    drop("window");
    buf_fini(&file);
    buf_fini(&forged);
}

/* zstd in zstd in zstd...: libarchive would take each for a layer of its own. */
static void zstd_is_taken_off_once(void **state)
{
    (void)state;
    struct buf file = {0}, twice = {0};
    make("once", &forms[0], few, FEW, NULL);
    load("once", &file);
    size_t cap = ZSTD_compressBound(file.len);
    unsigned char *p = buf_grow(&twice, cap);
    assert_non_null(p);
    twice.len = ZSTD_compress(p, cap, file.ptr, file.len, 3);
    assert_false(ZSTD_isError(twice.len));
    add_trailer(&twice);
    int fd = memory(buf_bytes(&twice));
    assert_int_equal(check_fd(fd, NULL, few, FEW, 4096, NULL), AZOTH_ERR_CORRUPT);
    close(fd);
    drop("once");
    buf_fini(&file);
    buf_fini(&twice);
}

/* ---- */

static int begin_all(void **state)
{
    (void)state;
    char path[128];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.30s/azoth-backupfile-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return -1;
    path_of(path, "key");
    if (backup_key_make(path, &err) || backup_key_read(path, &key, &err))
        return -1;
    path_of(path, "other-key");
    return backup_key_make(path, &err) || backup_key_read(path, &other_key, &err);
}

static int end_all(void **state)
{
    (void)state;
    backup_key_fini(&key);
    backup_key_fini(&other_key);
    backup_key_fini(&passphrase);
    drop("key");
    drop("other-key");
    /* Whatever a test has left behind is a failure. */
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_of_all_sizes_come_out_as_they_went_in),
        cmocka_unit_test(a_stream_may_end_anywhere_in_a_chunk),
        cmocka_unit_test(ten_thousand_members_come_out_in_their_order),
        cmocka_unit_test(a_member_may_be_skipped_and_is_checked_all_the_same),
        cmocka_unit_test(a_pipe_is_read_and_written_whatever_interrupts),
        cmocka_unit_test(a_reader_that_is_gone_is_an_error),
        cmocka_unit_test(a_full_device_is_told),
        cmocka_unit_test(every_byte_that_is_changed_is_noticed),
        cmocka_unit_test(every_shorter_file_is_noticed_and_so_is_a_longer_one),
        cmocka_unit_test(only_the_key_opens_it),
        cmocka_unit_test(a_forged_header_gets_neither_memory_nor_time),
        cmocka_unit_test(nothing_but_sizes_is_readable_without_the_key),
        cmocka_unit_test(a_key_file_is_made_once_and_read_by_its_owner_alone),
        cmocka_unit_test(a_passphrase_is_one_line_of_8_to_1023_bytes),
        cmocka_unit_test(a_signature_is_of_this_content_by_this_key),
        cmocka_unit_test(no_key_is_taken_for_another),
        cmocka_unit_test(the_same_members_are_the_same_bytes_whatever_the_surroundings),
        cmocka_unit_test(threads_and_levels_change_the_file_and_not_its_content),
        cmocka_unit_test(without_a_key_zstd_and_tar_read_it),
        cmocka_unit_test(the_manifest_is_json_that_says_what_is_there),
        cmocka_unit_test(names_and_sizes_are_checked),
        cmocka_unit_test(about_is_a_json_object_of_bounded_size),
        cmocka_unit_test(a_place_is_one_writer_s_and_nothing_is_written_over),
        cmocka_unit_test(what_is_somebody_else_s_is_left_alone),
        cmocka_unit_test(of_many_writers_one_has_the_place),
        cmocka_unit_test(a_directory_is_read_as_a_file_is),
        cmocka_unit_test(a_directory_that_is_no_backup_or_no_whole_one_is_told),
        cmocka_unit_test(a_directory_has_no_file_where_it_has_a_directory),
        cmocka_unit_test(a_manifest_leads_nowhere_else),
        cmocka_unit_test(a_signature_in_a_directory_that_was_changed_is_none),
        cmocka_unit_test(members_that_are_no_plain_files_are_refused),
        cmocka_unit_test(names_that_lead_elsewhere_are_refused),
        cmocka_unit_test(chunks_are_all_there_in_their_order),
        cmocka_unit_test(the_manifest_is_of_these_members_in_this_order),
        cmocka_unit_test(what_is_no_backup_is_told),
        cmocka_unit_test(a_stream_of_zeros_takes_time_and_no_memory),
        cmocka_unit_test(a_window_of_more_than_128_mib_is_refused),
        cmocka_unit_test(zstd_is_taken_off_once),
    };
    return cmocka_run_group_tests(tests, begin_all, end_all);
}
