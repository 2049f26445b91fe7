/* The log: one line, one write. Standard error is a datagram socket, so each write is seen whole.
 */
#include "core/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static int saved = -1, pair[2];

static int catch_stderr(void **state)
{
    (void)state;
    saved = dup(STDERR_FILENO);
    if (saved < 0 || socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
        return -1;
    return dup2(pair[1], STDERR_FILENO) < 0 ? -1 : 0;
}

static int release_stderr(void **state)
{
    (void)state;
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(pair[0]);
    close(pair[1]);
    return 0;
}

/* The next write, NUL-terminated; "" when there was none. */
static const char *written(void)
{
    static char text[4096];
    ssize_t n = recv(pair[0], text, sizeof text - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static void a_line_has_its_priority_and_is_one_write(void **state)
{
    (void)state;
    log_init("azoth-test", LOG_LEVEL_INFO);
    log_line(LOG_LEVEL_WARN, "the disk is full: free=%d", 7);
    assert_string_equal(written(), "<4>the disk is full: free=7\n");
    assert_string_equal(written(), "");
}

static void lines_above_the_level_are_not_written(void **state)
{
    (void)state;
    log_init("azoth-test", LOG_LEVEL_NOTICE);
    log_line(LOG_LEVEL_INFO, "not this");
    log_line(LOG_LEVEL_DEBUG, "nor this");
    assert_string_equal(written(), "");
    log_line(LOG_LEVEL_NOTICE, "this");
    assert_string_equal(written(), "<5>this\n");
}

static void a_newline_in_a_message_makes_no_second_line(void **state)
{
    (void)state;
    log_init("azoth-test", LOG_LEVEL_INFO);
    log_line(LOG_LEVEL_ERR, "key=%s", "a\n<0>forged");
    assert_string_equal(written(), "<3>key=a <0>forged\n");
}

/* A journal shows those as data, a terminal obeys them. */
static void what_is_no_text_is_shown_as_question_marks(void **state)
{
    (void)state;
    log_init("azoth-test", LOG_LEVEL_INFO);
    log_line(LOG_LEVEL_ERR, "key=%s", "\t\033[2J\177\001\xff\xc4\x8d\xc2\x9b\xe2\x82\xac\xe2\x82");
    assert_string_equal(written(), "<3>key= ?[2J???\xc4\x8d??\xe2\x82\xac??\n");
}

static void a_value_between_quotes_cannot_end_them(void **state)
{
    (void)state;
    char shown[LOG_TEXT], text[2 * LOG_TEXT];
    log_init("azoth-test", LOG_LEVEL_INFO);
    log_line(LOG_LEVEL_ERR, "skipped error=\"%s\"", log_text("a\" event=\\\"9", shown));
    assert_string_equal(written(), "<3>skipped error=\"a\\\" event=\\\\\\\"9\"\n");
    memset(text, '"', sizeof text - 1);
    text[sizeof text - 1] = 0;
    size_t n = strlen(log_text(text, shown));
    assert_true(n % 2 == 0 && n < LOG_TEXT && n > LOG_TEXT - 4);
}

static void a_long_line_is_cut_and_still_ends(void **state)
{
    (void)state;
    static char text[5000];
    memset(text, 'x', sizeof text - 1);
    log_init("azoth-test", LOG_LEVEL_INFO);
    log_line(LOG_LEVEL_INFO, "%s", text);
    const char *got = written();
    size_t n = strlen(got);
    assert_in_range(n, 512, 1024);
    assert_int_equal(got[n - 1], '\n');
    assert_int_equal(strspn(got + 3, "x"), n - 4);
    assert_string_equal(written(), "");
}

static void an_error_is_logged_with_its_name_and_the_foreign_code(void **state)
{
    (void)state;
    struct azoth_error err = {
        .code = AZOTH_ERR_NOSPACE, .foreign = 28, .message = "data.mdb: no space"};
    log_init("azoth-test", LOG_LEVEL_INFO);
    log_error(LOG_LEVEL_ERR, "stopping", &err);
    assert_string_equal(written(),
                        "<3>stopping: data.mdb: no space error=AZOTH_ERR_NOSPACE code=28\n");
}

static void a_terminal_is_shown_the_program_instead_of_the_priority(void **state)
{
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master))
        skip();
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    dup2(terminal, STDERR_FILENO);
    log_init("azoth-test", LOG_LEVEL_INFO);
    log_line(LOG_LEVEL_ERR, "hello");
    char text[100] = "";
    ssize_t n = read(master, text, sizeof text - 1);
    dup2(pair[1], STDERR_FILENO);
    close(terminal);
    close(master);
    assert_true(n > 0);
    assert_string_equal(text, "azoth-test: hello\r\n");
}

static void a_storm_of_one_line_is_cut_and_counted(void **state)
{
    (void)state;
    log_init("azoth-test", LOG_LEVEL_INFO);
    uint64_t now = clock_mono_ns();
    for (unsigned i = 0; i < LOG_BURST + 100; i++)
        log_line(LOG_LEVEL_WARN, "skipped event=%u error=\"%u\"", i, i);
    char want[60];
    for (unsigned i = 0; i < LOG_BURST; i++) {
        snprintf(want, sizeof want, "<4>skipped event=%u error=\"%u\"\n", i, i);
        assert_string_equal(written(), want);
    }
    assert_string_equal(written(), "");
    /* Another line is not held up by it. */
    log_line(LOG_LEVEL_ERR, "stopping error=AZOTH_ERR_IO");
    assert_string_equal(written(), "<3>stopping error=AZOTH_ERR_IO\n");
    log_settle(now + 1);
    assert_string_equal(written(), "");
    log_settle(now + 2 * LOG_WINDOW_NS);
    assert_string_equal(
        written(),
        "<4>more like this were left out suppressed=100 within_s=10 line=\"skipped event\"\n");
    log_settle(now + 3 * LOG_WINDOW_NS);
    assert_string_equal(written(), "");
}

static void lines_that_differ_in_more_than_numbers_are_no_storm(void **state)
{
    (void)state;
    log_init("azoth-test", LOG_LEVEL_INFO);
    for (unsigned i = 0; i < 2 * LOG_BURST; i++) {
        char text[8] = {(char)('a' + i % 26), (char)('a' + i / 26)};
        log_line(LOG_LEVEL_INFO, "kind %s n=%u", text, i);
        assert_string_not_equal(written(), "");
    }
}

static void a_level_may_change_while_lines_are_written(void **state)
{
    (void)state;
    log_init("azoth-test", LOG_LEVEL_INFO);
    log_set_level(LOG_LEVEL_DEBUG);
    log_line(LOG_LEVEL_DEBUG, "seen");
    assert_string_equal(written(), "<7>seen\n");
    log_set_level(LOG_LEVEL_ERR);
    log_line(LOG_LEVEL_WARN, "not seen");
    assert_string_equal(written(), "");
}

static void the_levels_have_five_names(void **state)
{
    (void)state;
    static const char *const names[] = {"err", "warning", "notice", "info", "debug"};
    for (int i = 0; i < 5; i++) {
        int level = -1;
        assert_int_equal(log_level_parse(names[i], &level), 0);
        assert_int_equal(level, LOG_LEVEL_ERR + i);
    }
    static const char *const others[] = {"", "error", "warn", "INFO", "6", "info "};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        int level = -1;
        assert_int_equal(log_level_parse(others[i], &level), AZOTH_ERR_CONFIG);
        assert_int_equal(level, -1);
    }
}

#define CAUGHT(f) cmocka_unit_test_setup_teardown(f, catch_stderr, release_stderr)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAUGHT(a_line_has_its_priority_and_is_one_write),
        CAUGHT(lines_above_the_level_are_not_written),
        CAUGHT(a_newline_in_a_message_makes_no_second_line),
        CAUGHT(what_is_no_text_is_shown_as_question_marks),
        CAUGHT(a_value_between_quotes_cannot_end_them),
        CAUGHT(a_long_line_is_cut_and_still_ends),
        CAUGHT(an_error_is_logged_with_its_name_and_the_foreign_code),
        CAUGHT(a_terminal_is_shown_the_program_instead_of_the_priority),
        CAUGHT(a_storm_of_one_line_is_cut_and_counted),
        CAUGHT(lines_that_differ_in_more_than_numbers_are_no_storm),
        CAUGHT(a_level_may_change_while_lines_are_written),
        cmocka_unit_test(the_levels_have_five_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
