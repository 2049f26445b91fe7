/*
 * test_backupfile.c - what is written into a backup file comes out of it, or an error; never something else.
 *
 * Contents are made from a member's name, so that what was read is compared with what was written without being kept.
 */
#include "writer/backupfile.h"

#include "core/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <locale.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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
        struct stat st;
        char path[128];
        make("ends", &o, &m, 1, NULL);
        path_of(path, "ends");
        assert_int_equal(stat(path, &st), 0);
        size_t stream = (size_t)st.st_size - 96 - 48;
        size_t rest = stream % (65536 + 17);
        ends[rest == 0 ? 0 : rest < 1100 ? 1 : 2]++;
        assert_int_equal(check("ends", &key, &m, 1, NULL), 0);
        drop("ends");
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

struct feeder {
    int fd;
    struct azoth_bytes bytes;
    size_t piece;
};

static void *feed(void *arg)
{
    struct feeder *f = arg;
    const unsigned char *p = f->bytes.ptr;
    for (size_t at = 0; at < f->bytes.len;) {
        size_t n = f->bytes.len - at < f->piece ? f->bytes.len - at : f->piece;
        ssize_t r = write(f->fd, p + at, n);
        if (r <= 0)
            break;
        at += (size_t)r;
    }
    close(f->fd);
    return NULL;
}

static void on_signal(int sig)
{
    (void)sig;
}

/* A pipe that gives 1000 bytes at a time and does not block, and signals in between. */
static void a_pipe_is_read_in_pieces_whatever_interrupts(void **state)
{
    (void)state;
    static const struct member m[] = {{"a", 200000}, {"b", 5}};
    struct sigaction now = {.sa_handler = on_signal}, before;
    struct itimerspec often = {.it_interval.tv_nsec = 300000, .it_value.tv_nsec = 300000};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer;
    sigaction(SIGUSR1, &now, &before); /* without SA_RESTART */
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    assert_int_equal(timer_settime(timer, 0, &often, NULL), 0);
    for (int i = 0; i < FORMS; i++) {
        struct buf file = {0};
        pthread_t thread;
        int ends[2];
        make("pipe", &forms[i], m, 2, NULL);
        load("pipe", &file);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
        struct feeder f = {ends[1], buf_bytes(&file), 1000};
        assert_int_equal(pthread_create(&thread, NULL, feed, &f), 0);
        assert_int_equal(check_fd(ends[0], &key, m, 2, 777, NULL), 0);
        pthread_join(thread, NULL);
        close(ends[0]);
        drop("pipe");
        buf_fini(&file);
    }
    timer_delete(timer);
    sigaction(SIGUSR1, &before, NULL);
}

struct collector {
    int fd;
    struct buf got;
};

static void *collect(void *arg)
{
    struct collector *c = arg;
    for (;;) {
        if (buf_reserve(&c->got, 4096))
            return NULL;
        ssize_t n = read(c->fd, c->got.ptr + c->got.len, 4096);
        if (n <= 0)
            return NULL;
        c->got.len += (size_t)n;
    }
}

static void a_pipe_gets_the_same_bytes_as_a_file(void **state)
{
    (void)state;
    static const struct member m[] = {{"a", 400000}, {"b", 5}};
    struct backupfile_out *b;
    struct collector c = {0};
    struct buf file = {0};
    pthread_t thread;
    int ends[2];
    make("file", &forms[0], m, 2, NULL);
    load("file", &file);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    c.fd = ends[0];
    assert_int_equal(pthread_create(&thread, NULL, collect, &c), 0);
    assert_int_equal(backupfile_stream(ends[1], &forms[0], bytes_str(ABOUT), &b, &err), 0);
    write_members(b, m, 2);
    assert_int_equal(backupfile_written(b), strlen(ABOUT) + 400005);
    assert_int_equal(backupfile_finish(b, NULL, &err), 0);
    assert_int_equal(fcntl(ends[1], F_GETFD), FD_CLOEXEC); /* it stays the caller's */
    close(ends[1]);
    pthread_join(thread, NULL);
    assert_true(bytes_eq(buf_bytes(&c.got), buf_bytes(&file)));
    close(ends[0]);
    drop("file");
    buf_fini(&c.got);
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
                assert_int_equal(rc, at >= file.len - 48 && at < file.len - 32 ? AZOTH_ERR_TRUNCATED
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
        assert_true(told[-AZOTH_ERR_FORMAT] < (forms[i].level || forms[i].key ? 1 : 561));
        assert_int_equal(buf_add(&file, "x", 1), 0);
        int fd = memory(buf_bytes(&file));
        one_of_the_four(check_fd(fd, &key, few, FEW, 4096, NULL), "a byte more", file.len);
        close(fd);
        drop("cut");
    }
    buf_fini(&file);
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
        cmocka_unit_test(a_pipe_is_read_in_pieces_whatever_interrupts),
        cmocka_unit_test(a_pipe_gets_the_same_bytes_as_a_file),
        cmocka_unit_test(a_reader_that_is_gone_is_an_error),
        cmocka_unit_test(a_full_device_is_told),
        cmocka_unit_test(every_byte_that_is_changed_is_noticed),
        cmocka_unit_test(every_shorter_file_is_noticed_and_so_is_a_longer_one),
    };
    return cmocka_run_group_tests(tests, begin_all, end_all);
}
