/*
 * test_powercut.c - what a power cut may leave of a database, opened.
 *
 * SIGKILL leaves the page cache, so it says nothing about the disk. Here writer and projector run with
 * record_io.c preloaded, from init on, and the test's own transactions are noted in the same log when
 * they are answered (powercut_record.c). From the log the files are made as they may be after a cut at any
 * moment (powercut.h), and checked (powercut_check.c, which lists what must hold).
 *
 * States are made by a child, so that one that dies on a state (a page that is not there) is a finding
 * and not the end: --check, see powercut_check.h. When a state is wrong the recording is kept, since a seed
 * does not bring one back; --log FILE full|lazy checks it again, with AZOTH_TEST_SEED and AZOTH_CUT_STATES
 * (how many states; 2000). --do WHAT DIR is a program for the recorder to look at.
 */
#include "core/error.h"
#include "shm/segment.h"
#include "tests/fault/powercut.h"
#include "tests/fault/powercut_check.h"
#include "tests/fault/powercut_record.h"
#include "tests/system/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char said[1000]; /* by the last check */

/* Of shared memory where there is some: states are made by the thousand. */
static void work_dir(char out[64])
{
    snprintf(out, 64, "%s/azoth-powercut-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(out));
}

/* The child's verdict: 0 nothing found, 1 something, 3 it died of a state. */
static int check_all(const char *log, const char *mode, uint64_t states, size_t ignored,
                     const char *policy)
{
    char self[256], seed[32], n[32], ign[32], work[64];
    struct segment_name name;
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    work_dir(work);
    snprintf(seed, sizeof seed, "%" PRIu64, harness_seed());
    snprintf(n, sizeof n, "%" PRIu64, states);
    snprintf(ign, sizeof ign, "%zu", ignored);
    char *const argv[] = {self,
                          "--check",
                          (char *)(uintptr_t)log,
                          work,
                          seed,
                          n,
                          (char *)(uintptr_t)mode,
                          ign,
                          (char *)(uintptr_t)policy,
                          NULL};
    int rc = harness_run(said, sizeof said, argv);
    print_message("MEASURED power cut, %s, sync ignored %s, seed %s: %s\n", mode,
                  ignored == SIZE_MAX ? "all" : ign, seed, said);
    if (segment_name_of(work, &name, NULL) == 0)
        segment_unlink(&name);
    cut_empty_tree(work, 1);
    return rc;
}

static uint64_t states_wanted(void)
{
    const char *given = getenv("AZOTH_CUT_STATES");
    return given ? strtoull(given, NULL, 10) : 2000;
}

/* Nothing reached the disk that was not synced, and not all was: an answer must be missed, by name, and
 * nothing else may be the matter. */
static int is_lost(const char *log, uint64_t states, size_t ignored)
{
    return check_all(log, "full", states, ignored, "none") == 1 && strstr(said, "; state ") &&
           strstr(said, ": LOST: ");
}

static void whatever_a_power_cut_leaves_opens_with_all_that_was_answered(void **state)
{
    (void)state;
    const char *log = cut_record("full");
    int rc = check_all(log, "full", states_wanted(), 0, "any");
    /* The same log without the syncs of the store: of all, there is no store; of one, an answer goes. */
    int nothing =
        check_all(log, "full", 200, SIZE_MAX, "none") == 1 && strstr(said, ": open: ") != NULL;
    /* On a busy machine a client now and then tells of its answer behind the next sync, which then is what the answer
     * rests on: the one before is missed by nobody. */
    int lost = 0;
    for (size_t i = 20; i < 40; i++)
        lost += is_lost(log, 40, i);
    cut_record_end("full", rc != 0 || !nothing || lost < 15);
    assert_int_equal(rc, 0);
    assert_true(nothing);
    assert_in_range(lost, 15, 20);
}

static void meta_lazy_may_lose_the_last_answers_but_contradicts_nothing(void **state)
{
    (void)state;
    const char *log = cut_record("meta-lazy");
    int rc = check_all(log, "lazy", states_wanted() / 4, 0, "any");
    cut_record_end("lazy", rc != 0);
    assert_int_equal(rc, 0);
}

static void a_store_without_sync_is_seen_to_lose_answers(void **state)
{
    (void)state;
    const char *log = cut_record("none");
    int lost = is_lost(log, 500, 0);
    cut_record_end("full", !lost);
    assert_true(lost);
}

/* ---- the log and its recorder ---- */

static struct harness h;

static void append(int fd, const struct cut_record *r, const char *path, const char *data)
{
    struct cut_record full = *r;
    full.magic = CUT_MAGIC;
    full.path = (uint32_t)strlen(path);
    full.data = strlen(data);
    struct iovec v[] = {{&full, sizeof full},
                        {(void *)(uintptr_t)path, full.path},
                        {(void *)(uintptr_t)data, full.data}};
    assert_int_equal(writev(fd, v, 3), (ssize_t)(sizeof full + full.path + full.data));
}

static void read_made(const char *dir, const char *name, char *out, size_t size)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, out, size - 1);
    assert_true(n >= 0);
    out[n] = 0;
    close(fd);
}

static void a_write_made_while_a_sync_runs_is_not_credited_to_it(void **state)
{
    (void)state;
    char log[300], made[300], text[16];
    struct cut_log l;
    uint64_t seed = 1;
    harness_begin(&h);
    snprintf(log, sizeof log, "%s/io.log", h.dir);
    snprintf(made, sizeof made, "%s/made", h.dir);
    assert_int_equal(mkdir(made, 0700), 0);
    int fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const struct cut_record sync = {.kind = CUT_SYNC, .ino = 7, .token = 1};
    append(fd, &(struct cut_record){.kind = CUT_CREATE, .ino = 7}, "f", "");
    append(fd, &(struct cut_record){.kind = CUT_WRITE, .ino = 7, .at = 0}, "", "aa");
    append(fd, &(struct cut_record){.kind = CUT_SYNC_BEGIN, .ino = 7, .token = 1}, "", "");
    append(fd, &(struct cut_record){.kind = CUT_WRITE, .ino = 7, .at = 2}, "", "bb");
    /* Of a write that is its own sync only that write: one before it at the same place is not. */
    append(fd, &(struct cut_record){.kind = CUT_WRITE, .ino = 7, .at = 4}, "", "ccXX");
    append(fd, &(struct cut_record){.kind = CUT_WRITE, .ino = 7, .at = 4, .token = 9}, "", "dd");
    append(fd, &(struct cut_record){.kind = CUT_SYNC_WRITE, .ino = 7, .at = 4, .token = 9}, "", "");
    append(fd, &sync, "", "");
    close(fd);
    assert_int_equal(cut_log_read(&l, log, "f", 0), 0);
    assert_int_equal(cut_make(&l, l.ops, CUT_NONE, &seed, made), 0);
    read_made(made, "f", text, sizeof text);
    assert_memory_equal(text, "aa\0\0dd", 7);
    cut_empty_tree(made, 0);
    assert_int_equal(cut_make(&l, l.ops, CUT_ALL, &seed, made), 0);
    read_made(made, "f", text, sizeof text);
    assert_string_equal(text, "aabbddXX");
    cut_log_free(&l);
    harness_end(&h);
}

/* What the recorder must see, or refuse, done by a process of its own. */
static int do_main(const char *what, const char *dir)
{
    int d = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
    if (d < 0)
        return 1;
    if (strcmp(what, "at") == 0) {
        fd = openat(d, "new", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, "text", 4) != 4 || posix_fallocate(fd, 0, 10) ||
            renameat(d, "new", d, "kept") || close(fd))
            return 1;
        fd = openat(d, "gone", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        return fd < 0 || close(fd) || unlinkat(d, "gone", 0) || symlinkat("kept", d, "link");
    }
    fd = openat(d, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096))
        return 1;
    char path[300];
    snprintf(path, sizeof path, "%s/file", dir);
    if (strcmp(what, "link") == 0)
        return linkat(d, "file", d, "second", 0);
    if (strcmp(what, "map") == 0)
        return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED;
    if (strcmp(what, "dup") == 0)
        return fcntl(fd, F_DUPFD_CLOEXEC, 0) < 0;
    if (strcmp(what, "hole") == 0)
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 512);
    if (strcmp(what, "stream") == 0)
        return fopen(path, "a") == NULL;
    if (strcmp(what, "truncate") == 0)
        return truncate(path, 1);
    if (strcmp(what, "copy") == 0)
        return copy_file_range(fd, NULL, fd, NULL, 0, 0) < 0;
    return 1;
}

/* Its wait status. */
static int recorded(const char *what, const char *dir, const char *log)
{
    char self[256], lib[300];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    cut_recorder(lib);
    setenv("AZOTH_RECORD_DIR", dir, 1);
    setenv("AZOTH_RECORD_LOG", log, 1);
    setenv("LD_PRELOAD", lib, 1);
    struct process *p = harness_start(&h, what, 0, self, "--do", what, dir, NULL);
    unsetenv("LD_PRELOAD");
    unsetenv("AZOTH_RECORD_DIR");
    unsetenv("AZOTH_RECORD_LOG");
    return harness_wait(&h, p, 10000);
}

static void what_is_done_by_a_directorys_descriptor_is_recorded(void **state)
{
    (void)state;
    char log[300], dir[300], made[300], text[64], path[400];
    struct cut_log l;
    struct stat st;
    uint64_t seed = 1;
    harness_begin(&h);
    snprintf(log, sizeof log, "%s/io.log", h.dir);
    snprintf(dir, sizeof dir, "%s/dir", h.dir);
    snprintf(made, sizeof made, "%s/made", h.dir);
    assert_int_equal(mkdir(dir, 0700) || mkdir(made, 0700), 0);
    assert_int_equal(recorded("at", dir, log), 0);
    assert_int_equal(cut_log_read(&l, log, "kept", 0), 0);
    assert_int_equal(cut_make(&l, l.ops, CUT_ALL, &seed, made), 0);
    read_made(made, "link", text, sizeof text);
    assert_memory_equal(text, "text\0\0\0\0\0", 10);
    snprintf(path, sizeof path, "%s/kept", made);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 10);
    snprintf(path, sizeof path, "%s/gone", made);
    assert_int_equal(stat(path, &st), -1);
    snprintf(path, sizeof path, "%s/new", made);
    assert_int_equal(stat(path, &st), -1);
    cut_log_free(&l);
    harness_end(&h);
}

static void what_the_log_cannot_say_is_refused(void **state)
{
    (void)state;
    static const char *const what[] = {"link", "map", "dup", "hole", "stream", "truncate", "copy"};
    harness_begin(&h);
    for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
        char log[300], dir[300], note[300], text[400];
        snprintf(log, sizeof log, "%s/io.log", h.dir);
        snprintf(dir, sizeof dir, "%s/dir-%s", h.dir, what[i]);
        snprintf(note, sizeof note, "log-%s", what[i]);
        assert_int_equal(mkdir(dir, 0700), 0);
        int status = recorded(what[i], dir, log);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        read_made(h.dir, note, text, sizeof text);
        assert_non_null(strstr(text, "record_io: "));
        assert_non_null(strstr(text, " is not recorded"));
    }
    harness_end(&h);
}

/* A kept recording again. */
static int again(const char *log, const char *mode)
{
    return check_all(log, mode, states_wanted(), 0, "any");
}

int main(int argc, char **argv)
{
    /* The recorder comes before a sanitizer's runtime, which would refuse that. */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    if (argc == 9 && strcmp(argv[1], "--check") == 0)
        return cut_check_main(argv + 2);
    if (argc == 4 && strcmp(argv[1], "--log") == 0)
        return again(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "--do") == 0)
        return do_main(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_made_while_a_sync_runs_is_not_credited_to_it),
        cmocka_unit_test(what_is_done_by_a_directorys_descriptor_is_recorded),
        cmocka_unit_test(what_the_log_cannot_say_is_refused),
        cmocka_unit_test(whatever_a_power_cut_leaves_opens_with_all_that_was_answered),
        cmocka_unit_test(meta_lazy_may_lose_the_last_answers_but_contradicts_nothing),
        cmocka_unit_test(a_store_without_sync_is_seen_to_lose_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
