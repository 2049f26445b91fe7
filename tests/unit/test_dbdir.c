/* Names and paths: which database, where its sockets are, what a name may be. */
#include "core/dbdir.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char top[64];
static char out[PATH_MAX], want[PATH_MAX];
static struct azoth_error err;

static int make_top(void **state)
{
    (void)state;
    char made[] = "/tmp/azoth-dbdir-XXXXXX", real[PATH_MAX];
    if (!mkdtemp(made) || !realpath(made, real) || strlen(real) >= sizeof top)
        return -1;
    strcpy(top, real);
    unsetenv("AZOTH_DIR");
    return chdir(top);
}

/* What the tests make, deepest first. */
static int remove_top(void **state)
{
    (void)state;
    static const char *const made[] = {"link", "file", "a/b/c", "a/b", "a", "real", "new"};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        remove(made[i]);
    return chdir("/") || rmdir(top);
}

static const char *below(const char *name)
{
    snprintf(want, sizeof want, "%s/%s", top, name);
    return want;
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    return st.st_mode & 07777;
}

static void the_flag_wins_over_the_environment_and_one_of_them_is_needed(void **state)
{
    (void)state;
    assert_int_equal(dbdir_resolve(NULL, out, sizeof out, &err), AZOTH_ERR_USAGE);
    assert_non_null(strstr(err.message, "AZOTH_DIR"));
    assert_int_equal(dbdir_resolve("", out, sizeof out, &err), AZOTH_ERR_USAGE);
    assert_int_equal(mkdir("real", 0700), 0);
    assert_int_equal(mkdir("new", 0700), 0);
    setenv("AZOTH_DIR", "real", 1);
    int by_env = dbdir_resolve(NULL, out, sizeof out, &err);
    assert_string_equal(out, below("real"));
    int by_flag = dbdir_resolve("new", out, sizeof out, &err);
    unsetenv("AZOTH_DIR");
    assert_int_equal(by_env, 0);
    assert_int_equal(by_flag, 0);
    assert_string_equal(out, below("new"));
}

static void links_are_resolved_and_a_directory_yet_to_be_made_is_absolute(void **state)
{
    (void)state;
    assert_int_equal(mkdir("real", 0700), 0);
    assert_int_equal(symlink("real", "link"), 0);
    assert_int_equal(dbdir_resolve("./link/../link/", out, sizeof out, &err), 0);
    assert_string_equal(out, below("real"));
    assert_int_equal(dbdir_resolve("new", out, sizeof out, &err), 0);
    assert_string_equal(out, below("new"));
    assert_int_equal(dbdir_resolve("/no/such/place", out, sizeof out, &err), 0);
    assert_string_equal(out, "/no/such/place");
}

static void a_path_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    char small[12];
    assert_int_equal(dbdir_resolve(top, small, sizeof small, &err), AZOTH_ERR_USAGE);
    assert_int_equal(dbdir_resolve("new", small, sizeof small, &err), AZOTH_ERR_USAGE);
    assert_int_equal(dbdir_path(small, sizeof small, "/db", "data.%s", "mdb"), AZOTH_ERR_USAGE);
    assert_int_equal(dbdir_path(small, sizeof small, "/db", "data.%s", "md"), 0);
    assert_string_equal(small, "/db/data.md");
    assert_int_equal(dbdir_path(small, sizeof small, "/database/is", "x"), AZOTH_ERR_USAGE);
}

static void an_endpoint_is_as_long_as_a_socket_allows_and_no_longer(void **state)
{
    (void)state;
    char run[DBDIR_SOCKET_PATH_MAX + 1], endpoint[200];
    memset(run, 'r', sizeof run);
    run[0] = '/';
    run[DBDIR_SOCKET_PATH_MAX - 1 - strlen("/feed.sock")] = 0;
    assert_int_equal(dbdir_endpoint(endpoint, sizeof endpoint, run, &err, "%s.sock", "feed"), 0);
    assert_int_equal(strlen(endpoint), strlen("ipc://") + DBDIR_SOCKET_PATH_MAX - 1);
    assert_memory_equal(endpoint, "ipc:///r", 8);
    assert_string_equal(endpoint + strlen(endpoint) - 10, "/feed.sock");
    assert_int_equal(dbdir_endpoint(endpoint, sizeof endpoint, run, &err, "%s.sock", "feeds"),
                     AZOTH_ERR_CONFIG);
    assert_non_null(strstr(err.message, "107 bytes"));
    assert_int_equal(dbdir_endpoint(endpoint, 10, "/run", &err, "feed.sock"), AZOTH_ERR_USAGE);
}

static void a_name_has_letters_digits_and_two_marks_and_begins_with_a_letter(void **state)
{
    (void)state;
    char longest[AZOTH_NAME_MAX + 2];
    memset(longest, 'n', sizeof longest);
    longest[AZOTH_NAME_MAX + 1] = 0;
    assert_false(dbdir_name_valid(longest));
    longest[AZOTH_NAME_MAX] = 0;
    assert_true(dbdir_name_valid(longest));
    static const char *const good[] = {"a", "Z9", "daily_totals", "a-b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(dbdir_name_valid(good[i]));
    static const char *const bad[] = {"",   "1a",  "_a",  "-a",       "a.b", "a/b",
                                      "..", "a b", "a:b", "\xc3\xa4", "a\n", "a\xe4"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(dbdir_name_valid(bad[i]));
}

static void an_instance_gives_directory_run_directory_and_name(void **state)
{
    (void)state;
    char run[64], name[AZOTH_NAME_MAX + 1];
    assert_int_equal(
        dbdir_instance("main", out, sizeof out, run, sizeof run, name, sizeof name, &err), 0);
    assert_string_equal(out, "/var/lib/azoth/main");
    assert_string_equal(run, "/run/azoth/main");
    assert_string_equal(name, "");
    assert_int_equal(
        dbdir_instance("main:accounts", out, sizeof out, run, sizeof run, name, sizeof name, &err),
        0);
    assert_string_equal(out, "/var/lib/azoth/main");
    assert_string_equal(name, "accounts");
    /* Workers are counted. */
    assert_int_equal(
        dbdir_instance("b-2:1", out, sizeof out, run, sizeof run, name, sizeof name, &err), 0);
    assert_string_equal(run, "/run/azoth/b-2");
    assert_string_equal(name, "1");
    /* Shards, and workers of effects. */
    assert_int_equal(dbdir_instance("main:accounts:0-4", out, sizeof out, run, sizeof run, name,
                                    sizeof name, &err),
                     0);
    assert_string_equal(name, "accounts:0-4");
}

static void an_instance_that_would_leave_its_directory_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",         ":",          ":1",      "main:",   "main:../x",
                                      "main:a/b", "main:a:b:c", "main::b", "main:a:", "main:a:../b",
                                      "main:.",   "../x",       "..",      "a/b",     "1",
                                      "main:x ",  "main:\n"};
    char run[64], name[AZOTH_NAME_MAX + 1];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (dbdir_instance(bad[i], out, sizeof out, run, sizeof run, name, sizeof name, &err) !=
            AZOTH_ERR_USAGE)
            fail_msg("\"%s\" is taken", bad[i]);
    char longest[2 * AZOTH_NAME_MAX];
    memset(longest, 'n', sizeof longest);
    longest[AZOTH_NAME_MAX + 1] = 0;
    assert_int_equal(
        dbdir_instance(longest, out, sizeof out, run, sizeof run, name, sizeof name, &err),
        AZOTH_ERR_USAGE);
}

static void an_instance_is_never_cut_to_fit(void **state)
{
    (void)state;
    char run[64], name[8], tiny[16];
    assert_int_equal(
        dbdir_instance("main", tiny, sizeof tiny, run, sizeof run, name, sizeof name, &err),
        AZOTH_ERR_USAGE);
    assert_int_equal(
        dbdir_instance("mainer", out, sizeof out, tiny, sizeof tiny, name, sizeof name, &err),
        AZOTH_ERR_USAGE);
    assert_int_equal(
        dbdir_instance("main:accounts", out, sizeof out, run, sizeof run, name, sizeof name, &err),
        AZOTH_ERR_USAGE);
}

static void a_directory_is_made_with_its_parents_and_its_mode(void **state)
{
    (void)state;
    mode_t mask = umask(0);
    int made = dbdir_make(below("a/b/c"), 0750, &err);
    int again = dbdir_make(below("a/b/c"), 0700, &err);
    int slash = dbdir_make(below("new//"), 0750, &err);
    umask(mask);
    assert_int_equal(made, 0);
    assert_int_equal(mode_of("a"), 0755);
    assert_int_equal(again, 0);
    assert_int_equal(mode_of("a/b/c"), 0750);
    assert_int_equal(slash, 0);
    assert_int_equal(mode_of("new"), 0750);
    assert_int_equal(dbdir_make("/", 0700, &err), 0);
}

static void a_file_or_a_missing_right_in_the_way_is_an_error(void **state)
{
    (void)state;
    FILE *f = fopen("file", "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(dbdir_make(below("file"), 0700, &err), AZOTH_ERR_IO);
    assert_int_equal(err.foreign, ENOTDIR);
    assert_non_null(strstr(err.message, "file"));
    assert_int_equal(dbdir_make(below("file/x"), 0700, &err), AZOTH_ERR_IO);
    assert_int_equal(symlink("nowhere", "link"), 0);
    assert_int_equal(dbdir_make(below("link"), 0700, &err), AZOTH_ERR_IO);
    assert_int_equal(mkdir("real", 0700), 0);
    remove("link");
    assert_int_equal(symlink("real", "link"), 0);
    assert_int_equal(dbdir_make(below("link"), 0700, &err), 0);
}

#define IN_TOP(f) cmocka_unit_test_setup_teardown(f, make_top, remove_top)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TOP(the_flag_wins_over_the_environment_and_one_of_them_is_needed),
        IN_TOP(links_are_resolved_and_a_directory_yet_to_be_made_is_absolute),
        IN_TOP(a_path_that_does_not_fit_is_refused),
        cmocka_unit_test(an_endpoint_is_as_long_as_a_socket_allows_and_no_longer),
        cmocka_unit_test(a_name_has_letters_digits_and_two_marks_and_begins_with_a_letter),
        cmocka_unit_test(an_instance_gives_directory_run_directory_and_name),
        cmocka_unit_test(an_instance_that_would_leave_its_directory_is_refused),
        cmocka_unit_test(an_instance_is_never_cut_to_fit),
        IN_TOP(a_directory_is_made_with_its_parents_and_its_mode),
        IN_TOP(a_file_or_a_missing_right_in_the_way_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
