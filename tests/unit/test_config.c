/* Settings: units and ranges, what a file may hold, and how its mistakes are told. */
#include "core/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], file[96];
static struct config c;
static struct azoth_error err;

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/azoth-config-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/azoth.conf", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    remove(file);
    return rmdir(dir);
}

static int load_bytes(const char *text, size_t n)
{
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    memset(&err, 0, sizeof err);
    return config_load(&c, dir, &err);
}

static int load(const char *text)
{
    return load_bytes(text, strlen(text));
}

/* The file is refused with "azoth.conf:LINE: " and then a sentence that holds `what`. */
static void refused(const char *text, int line, const char *what)
{
    char place[32];
    int rc = load(text);
    snprintf(place, sizeof place, "azoth.conf:%d: ", line);
    if (rc != AZOTH_ERR_CONFIG || !strstr(err.message, place) || !strstr(err.message, what))
        fail_msg("%s\n-> %s: %s; wanted line %d, %s", text, azoth_code_name(rc), err.message, line,
                 what);
}

static void every_setting_has_a_name_a_help_and_a_default_that_is_allowed(void **state)
{
    (void)state;
    config_defaults(&c);
    for (int k = 0; k < CONFIG_KEYS; k++) {
        assert_non_null(strchr(config_key_name((enum config_key)k), '.'));
        assert_true(strlen(config_key_help((enum config_key)k)) > 0);
        assert_int_equal(c.source[k], 0);
    }
    assert_string_equal(config_key_name(CONFIG_writer_batch_bytes), "writer.batch_bytes");
    assert_int_equal(c.number[CONFIG_writer_sync], CONFIG_SYNC_FULL);
    assert_int_equal(c.number[CONFIG_writer_batch_bytes], 4 << 20);
    assert_int_equal(c.number[CONFIG_writer_id_time], 24 * 3600 * 1000);
    assert_string_equal(c.text[CONFIG_log_level], "info");
}

static void units_multiply(void **state)
{
    (void)state;
    static const struct {
        enum config_key key;
        const char *text;
        uint64_t want;
    } cases[] = {{CONFIG_writer_batch_bytes, "65536", 65536},
                 {CONFIG_writer_batch_bytes, "64K", 65536},
                 {CONFIG_writer_batch_bytes, "2 M", 2 << 20},
                 {CONFIG_feed_lapse, "100", 100},
                 {CONFIG_feed_lapse, "250ms", 250},
                 {CONFIG_feed_lapse, "3s", 3000},
                 {CONFIG_feed_lapse, "2min", 120000},
                 {CONFIG_feed_lapse, "1h", 3600000},
                 {CONFIG_run_workers, "0", 0},
                 {CONFIG_run_workers, "64", 64}};
    config_defaults(&c);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(config_set(&c, cases[i].key, cases[i].text, 1, &err), 0);
        assert_int_equal(c.number[cases[i].key], cases[i].want);
        assert_string_equal(c.text[cases[i].key], cases[i].text);
    }
}

static void a_value_of_another_form_or_out_of_range_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        enum config_key key;
        const char *text;
    } cases[] = {{CONFIG_segment_slots, ""},
                 {CONFIG_segment_slots, "-1"},
                 {CONFIG_segment_slots, "+64"},
                 {CONFIG_segment_slots, "0x40"},
                 {CONFIG_segment_slots, "64.0"},
                 {CONFIG_segment_slots, "1K"},
                 {CONFIG_segment_slots, "15"},
                 {CONFIG_segment_slots, "1025"},
                 {CONFIG_segment_slots, "18446744073709551632"},    /* 2^64 + 16 */
                 {CONFIG_writer_batch_bytes, "18014398509486080K"}, /* wraps to 4M */
                 {CONFIG_writer_batch_bytes, "65535"},
                 {CONFIG_writer_batch_bytes, "65M"},
                 {CONFIG_writer_batch_bytes, "4m"},
                 {CONFIG_writer_batch_bytes, "1s"},
                 {CONFIG_feed_lapse, "99ms"},
                 {CONFIG_feed_lapse, "61min"},
                 {CONFIG_feed_lapse, "1M"},
                 {CONFIG_writer_sync, ""},
                 {CONFIG_writer_sync, "Full"},
                 {CONFIG_writer_sync, "meta_lazy"}};
    static struct config before;
    config_defaults(&c);
    before = c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (config_set(&c, cases[i].key, cases[i].text, 1, &err) != AZOTH_ERR_CONFIG)
            fail_msg("%s = %s is taken", config_key_name(cases[i].key), cases[i].text);
        assert_non_null(strstr(err.message, config_key_name(cases[i].key)));
    }
    char longest[sizeof c.text[0] + 1];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(config_set(&c, CONFIG_run_dir, longest, 1, &err), AZOTH_ERR_CONFIG);
    assert_memory_equal(&before, &c, sizeof c);
    longest[sizeof longest - 2] = 0;
    assert_int_equal(config_set(&c, CONFIG_run_dir, longest, 1, &err), 0);
    assert_string_equal(c.text[CONFIG_run_dir], longest);
}

static void the_sync_modes_have_three_names(void **state)
{
    (void)state;
    assert_int_equal(load("[writer]\nsync = full\n"), 0);
    assert_int_equal(c.number[CONFIG_writer_sync], CONFIG_SYNC_FULL);
    assert_int_equal(load("[writer]\nsync = meta-lazy\n"), 0);
    assert_int_equal(c.number[CONFIG_writer_sync], CONFIG_SYNC_META_LAZY);
    assert_int_equal(load("[writer]\nsync = none\n"), 0);
    assert_int_equal(c.number[CONFIG_writer_sync], CONFIG_SYNC_NONE);
    assert_int_equal(c.source[CONFIG_writer_sync], 1);
}

static void the_first_mistake_of_a_file_is_told_with_its_own_line(void **state)
{
    (void)state;
    refused("[writer]\nfirst = 1\n\nsecond = 2\n", 2, "writer.first");
    refused("[writer]\nsync = maybe\nnonsense\n", 2, "maybe");
    refused("[writer]\nnonsense\n\nsync = maybe\n", 2, "neither");
    refused("# one\n\n[segment]\nslots = 15\nslots = 16\n", 4, "segment.slots: 15");
}

static void unknown_sections_and_keys_and_settings_before_a_section_are_refused(void **state)
{
    (void)state;
    refused("[wrtier]\nsync = full\n", 2, "wrtier.sync");
    refused("[writer]\nslots = 64\n", 2, "writer.slots");
    refused("[writer]\nSync = full\n", 2, "writer.Sync");
    refused("sync = full\n", 1, ".sync");
    refused("[writer\nsync = full\n", 1, "neither");
}

static void an_indented_line_is_a_setting_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(load("[feed]\nlisten = tcp://127.0.0.1:1\n  connect = tcp://127.0.0.1:2\n"),
                     0);
    assert_string_equal(c.text[CONFIG_feed_listen], "tcp://127.0.0.1:1");
    assert_string_equal(c.text[CONFIG_feed_connect], "tcp://127.0.0.1:2");
    /* Never more of the value above it: here durability would be lost in silence. */
    refused("[writer]\nsync = full\n  none\n", 3, "neither");
    refused("[writer]\nsync = full\n\tnone\n", 3, "neither");
}

static void text_behind_a_section_is_refused(void **state)
{
    (void)state;
    refused("[writer] sync = none\n", 1, "own line");
    assert_int_equal(load("[writer] ; a comment\nsync = none\n"), 0);
    assert_int_equal(c.number[CONFIG_writer_sync], CONFIG_SYNC_NONE);
}

static void a_line_too_long_or_with_a_nul_is_refused_by_its_number(void **state)
{
    (void)state;
    char text[400] = "[feed]\nlisten = ";
    memset(text + strlen(text), 'x', 230);
    strcat(text, "\nlapse = 1s\n");
    refused(text, 2, "at most");
    static const char nul[] = "[writer]\nsync = none\0\nid_count = 5\n";
    assert_int_equal(load_bytes(nul, sizeof nul - 1), AZOTH_ERR_CONFIG);
    assert_non_null(strstr(err.message, "azoth.conf:2: "));
}

static void comments_line_ends_and_a_missing_last_newline_are_understood(void **state)
{
    (void)state;
    assert_int_equal(load("; one\r\n# two\r\n\r\n[writer]\r\nsync = none ; three\r\n"), 0);
    assert_int_equal(c.number[CONFIG_writer_sync], CONFIG_SYNC_NONE);
    assert_int_equal(load("\xef\xbb\xbf[segment]\nslots=64"), 0);
    assert_int_equal(c.number[CONFIG_segment_slots], 64);
    assert_int_equal(load(""), 0);
}

static void a_missing_file_means_the_defaults_and_an_unreadable_one_is_an_error(void **state)
{
    (void)state;
    remove(file);
    assert_int_equal(config_load(&c, dir, &err), 0);
    assert_int_equal(c.source[CONFIG_segment_slots], 0);
    /* A directory opens and then does not read: for any user, root too. */
    assert_int_equal(mkdir(file, 0700), 0);
    assert_int_equal(config_load(&c, dir, &err), AZOTH_ERR_IO);
    assert_non_null(strstr(err.message, "azoth.conf"));
}

static void the_environment_is_held_to_the_same_rules(void **state)
{
    (void)state;
    assert_int_equal(load("[writer]\nsync = none\n"), 0);
    setenv("AZOTH_WRITER_SYNC", "meta-lazy", 1);
    int good = config_load(&c, dir, &err);
    uint64_t mode = c.number[CONFIG_writer_sync];
    int source = c.source[CONFIG_writer_sync];
    setenv("AZOTH_WRITER_SYNC", "sometimes", 1);
    int bad = config_load(&c, dir, &err);
    unsetenv("AZOTH_WRITER_SYNC");
    assert_int_equal(good, 0);
    assert_int_equal(mode, CONFIG_SYNC_META_LAZY);
    assert_int_equal(source, 2);
    assert_int_equal(bad, AZOTH_ERR_CONFIG);
    assert_non_null(strstr(err.message, "writer.sync: sometimes"));
}

static void flags_of_others_stay_and_ours_are_held_to_the_same_rules(void **state)
{
    (void)state;
    static char *theirs[] = {"p",        "word",         "-x", "--", "--writer-syncs",
                             "--writer", "--writer_sync"};
    config_defaults(&c);
    for (int at = 1; at < (int)(sizeof theirs / sizeof *theirs); at++) {
        int i = at;
        assert_int_equal(config_flag(&c, 7, theirs, &i, &err), 0);
        assert_int_equal(i, at);
    }
    char *bad[] = {"p", "--segment-slots=4"}, *bare[] = {"p", "--segment-slots"};
    int i = 1;
    assert_int_equal(config_flag(&c, 2, bad, &i, &err), AZOTH_ERR_CONFIG);
    i = 1;
    assert_true(config_flag(&c, 2, bare, &i, &err) < 0);
    assert_int_equal(c.number[CONFIG_segment_slots], 1024);
    char *good[] = {"p", "--writer-sync", "none", "--run-dir=/r", "--writer-id-count=5"};
    i = 1;
    assert_int_equal(config_flag(&c, 5, good, &i, &err), 1);
    assert_int_equal(i, 3);
    assert_int_equal(config_flag(&c, 5, good, &i, &err), 1);
    assert_int_equal(config_flag(&c, 5, good, &i, &err), 1);
    assert_int_equal(i, 5);
    assert_int_equal(c.number[CONFIG_writer_id_count], 5);
    assert_int_equal(c.source[CONFIG_writer_sync], 3);
    assert_int_equal(c.number[CONFIG_writer_sync], CONFIG_SYNC_NONE);
    assert_string_equal(c.text[CONFIG_run_dir], "/r");
}

#define WITH_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_setting_has_a_name_a_help_and_a_default_that_is_allowed),
        cmocka_unit_test(units_multiply),
        cmocka_unit_test(a_value_of_another_form_or_out_of_range_is_refused_and_changes_nothing),
        WITH_DIR(the_sync_modes_have_three_names),
        WITH_DIR(the_first_mistake_of_a_file_is_told_with_its_own_line),
        WITH_DIR(unknown_sections_and_keys_and_settings_before_a_section_are_refused),
        WITH_DIR(an_indented_line_is_a_setting_of_its_own),
        WITH_DIR(text_behind_a_section_is_refused),
        WITH_DIR(a_line_too_long_or_with_a_nul_is_refused_by_its_number),
        WITH_DIR(comments_line_ends_and_a_missing_last_newline_are_understood),
        WITH_DIR(a_missing_file_means_the_defaults_and_an_unreadable_one_is_an_error),
        WITH_DIR(the_environment_is_held_to_the_same_rules),
        cmocka_unit_test(flags_of_others_stay_and_ours_are_held_to_the_same_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
