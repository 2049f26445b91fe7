/*
 * test_pagecheck.c - pages that somebody else has written: what is let through, LMDB survives. AZOTH_TEST_SEED=N repeats a
 * run.
 */
#include "core/clock.h"
#include "core/error.h"
#include "core/pagecheck.h"
#include "core/store_lmdb.h"
#include "tests/unit/seed.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CASES 400
#define KEYS  3000

static struct azoth_error err;
static char dir[] = "/tmp/azoth-test_pagecheck-XXXXXX", original[100], changed[100];
static unsigned char *bytes; /* of the original */
static size_t size, page = 4096;

static void fill(MDB_env *env)
{
    static char value[20000];
    MDB_txn *txn;
    MDB_dbi state, events;
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "state", MDB_CREATE, &state), 0);
    assert_int_equal(mdb_dbi_open(txn, "events", MDB_CREATE, &events), 0);
    for (unsigned i = 0; i < KEYS; i++) {
        char key[20];
        MDB_val k = {(size_t)snprintf(key, sizeof key, "k%u", i * 7919 % KEYS), key},
                v = {i % 50 ? 10 + i % 90 : 100 * (i % 200), value};
        assert_int_equal(mdb_put(txn, i % 2 ? state : events, &k, &v, 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
}

static int begin(void **state)
{
    MDB_env *env;
    char made[120];
    struct stat st;
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(original, sizeof original, "%s/original", dir);
    snprintf(changed, sizeof changed, "%s/changed", dir);
    snprintf(made, sizeof made, "%s/made", dir);
    assert_int_equal(lmdb_env_open(made, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, &env, &err), 0);
    fill(env);
    int fd = open(original, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(mdb_env_copyfd2(env, fd, MDB_CP_COMPACT), 0);
    mdb_env_close(env);
    assert_int_equal(fstat(fd, &st), 0);
    size = (size_t)st.st_size;
    bytes = malloc(size);
    int rc = pread(fd, bytes, size, 0) == (ssize_t)size ? 0 : -1;
    close(fd);
    return rc || unlink(made);
}

static int end(void **state)
{
    (void)state;
    free(bytes);
    unlink(original);
    unlink(changed);
    return rmdir(dir);
}

static void put(const unsigned char *p, size_t n)
{
    int fd = open(changed, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    close(fd);
}

/* What a restore and a writer do with it: all is read, some is changed, one tree is emptied. */
static void use(void)
{
    MDB_env *env;
    MDB_txn *txn;
    if (lmdb_env_open(changed, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, &env, NULL) ||
        mdb_txn_begin(env, NULL, 0, &txn))
        return;
    static const char *const names[] = {"state", "events"};
    for (int i = 0; i < 2; i++) {
        MDB_dbi dbi;
        MDB_cursor *c;
        MDB_val k, v;
        if (mdb_dbi_open(txn, names[i], 0, &dbi) || mdb_cursor_open(txn, dbi, &c))
            continue;
        volatile unsigned char sum = 0;
        while (mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0)
            for (size_t at = 0; at < v.mv_size; at++)
                sum = (unsigned char)(sum + ((unsigned char *)v.mv_data)[at]);
        mdb_cursor_close(c);
        for (unsigned n = 0; n < KEYS; n += 3) {
            char key[20];
            MDB_val kk = {(size_t)snprintf(key, sizeof key, "k%u", n), key}, vv = {6, "abcdef"};
            (void)(n % 2 ? mdb_put(txn, dbi, &kk, &vv, 0) : mdb_del(txn, dbi, &kk, NULL));
        }
        if (i == 0)
            (void)mdb_drop(txn, dbi, 0);
    }
    (void)mdb_txn_commit(txn);
    mdb_env_close(env);
}

/* How a process that uses it ends. */
static int signal_of_use(void)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(20);
        use();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void what_lmdb_has_copied_is_let_through(void **state)
{
    (void)state;
    assert_true(size > 100 * page);
    assert_int_equal(pagecheck_file(original, &err), 0);
    put(bytes, size);
    assert_int_equal(signal_of_use(), 0);
}

static void what_is_cut_or_no_file_of_lmdb_is_told(void **state)
{
    (void)state;
    const size_t cut[] = {0, 1, 100, page, 2 * page, size - 1, size - page};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        put(bytes, cut[i]);
        int rc = pagecheck_file(changed, &err);
        assert_int_equal(rc, AZOTH_ERR_CORRUPT);
    }
    assert_int_equal(pagecheck_file(dir, &err), AZOTH_ERR_IO);
    unlink(changed);
    assert_int_equal(pagecheck_file(changed, &err), AZOTH_ERR_IO);
}

/* The root of a tree leads to itself. */
static void a_ring_of_pages_has_an_end(void **state)
{
    (void)state;
    unsigned char *p = malloc(size);
    memcpy(p, bytes, size);
    for (size_t at = 2 * page; at < size; at += page) {
        uint16_t flags, node;
        memcpy(&flags, p + at + 10, 2);
        if (flags != 1)
            continue;
        memcpy(&node, p + at + 16, 2);
        uint32_t self = (uint32_t)(at / page);
        memcpy(p + at + node, &self, 4); /* low and high */
    }
    put(p, size);
    free(p);
    assert_int_equal(pagecheck_file(changed, &err), AZOTH_ERR_CORRUPT);
    assert_non_null(strstr(err.message, "belongs to something else"));
}

/* ---- a meta page that is written meanwhile ---- */

#define ROOT_AT 128u /* in a meta page: the root of the tree of names */

static unsigned
    torn; /* so many readings of the newest meta page find the roots of a commit to come in it */

ssize_t __real_pread(int fd, void *out, size_t len, off_t at);
ssize_t __wrap_pread(int fd, void *out, size_t len, off_t at);

ssize_t __wrap_pread(int fd, void *out, size_t len, off_t at)
{
    const uint64_t root = 2;
    ssize_t n = __real_pread(fd, out, len, at);
    if (torn && at == (off_t)page && len < page && n > (ssize_t)(ROOT_AT + sizeof root)) {
        memcpy((char *)out + ROOT_AT, &root, sizeof root);
        torn--;
    }
    return n;
}

static void count(void *arg, int fatal, const char *message)
{
    (void)fatal;
    (void)message;
    ++*(unsigned *)arg;
}

static void half_of_another_meta_page_is_no_damage(void **state)
{
    unsigned findings = 0;
    const struct pagecheck_tell tell = {.arg = &findings, .found = count};
    struct pagecheck_sum sum;
    (void)state;
    int fd = open(original, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    torn = 1;
    assert_int_equal(pagecheck(fd, 1, &tell, &sum, &err), 1);
    assert_int_equal(torn, 0);
    assert_int_equal(pagecheck(fd, 1, &tell, &sum, &err), 0);
    assert_int_equal(findings, 0);
    close(fd);
}

/* ---- no memory ---- */

static unsigned allocations, fails_at; /* which one fails; 0: none */

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__wrap_calloc(size_t n, size_t each);

void *__wrap_malloc(size_t n)
{
    return fails_at && ++allocations == fails_at ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t each)
{
    return fails_at && ++allocations == fails_at ? NULL : __real_calloc(n, each);
}

static void a_want_of_memory_is_no_damage(void **state)
{
    int rc = AZOTH_ERR_NOMEM;
    (void)state;
    for (fails_at = 1; rc == AZOTH_ERR_NOMEM; fails_at++) {
        allocations = 0;
        rc = pagecheck_file(original, &err);
        if (allocations < fails_at)
            break;
        assert_int_equal(rc, AZOTH_ERR_NOMEM);
    }
    assert_int_equal(rc, 0);
    assert_true(fails_at > 4); /* a walk, its bits, a page for the check, and one for each level */
    fails_at = 0;
}

static void lmdb_survives_whatever_is_let_through(void **state)
{
    (void)state;
    static const unsigned char bad[] = {0, 1, 2, 4, 16, 127, 128, 255};
    uint64_t seed = seed_of_run();
    unsigned short r[3] = {(unsigned short)seed, (unsigned short)(seed >> 16),
                           (unsigned short)(seed >> 32)};
    unsigned char *p = malloc(size);
    unsigned refused = 0;
    for (int i = 0; i < CASES; i++) {
        memcpy(p, bytes, size);
        for (long n = nrand48(r) % 3; n >= 0; n--) {
            size_t at = (size_t)nrand48(r) % (size / page) * page;
            at +=
                (size_t)nrand48(r) % (nrand48(r) % 3 ? 160 : page); /* mostly headers and places */
            unsigned bit = 1u << (unsigned)(nrand48(r) % 8);
            p[at] = nrand48(r) % 2 ? bad[nrand48(r) % 8] : (unsigned char)((p[at] ^ bit) & 255u);
        }
        put(p, size);
        if (pagecheck_file(changed, &err))
            refused++;
        else
            assert_int_equal(signal_of_use(), 0);
    }
    free(p);
    assert_true(refused > CASES / 10 && refused < CASES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_lmdb_has_copied_is_let_through),
        cmocka_unit_test(what_is_cut_or_no_file_of_lmdb_is_told),
        cmocka_unit_test(a_ring_of_pages_has_an_end),
        cmocka_unit_test(half_of_another_meta_page_is_no_damage),
        cmocka_unit_test(a_want_of_memory_is_no_damage),
        cmocka_unit_test(lmdb_survives_whatever_is_let_through),
    };
    return cmocka_run_group_tests_name("pagecheck", tests, begin, end);
}
