/* test_archive.c - segment files and the records that name them: each byte that changes is found, and any
 * bytes are answered with an error. */
#include "core/archived.h"

#include "core/chain.h"
#include "core/error.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#define EVENTS 5u
#define LARGE  300000u /* of one that fills a block by itself */

static char dir[64], path[100];
static struct azoth_error err;
static const uint8_t uuid[16] = "0123456789abcdef";

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/azoth-archive-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/segment", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

/* Event `id`; its record lies in *rec. */
static struct event_record event(uint64_t id, uint32_t payload, struct buf *rec)
{
    static char zeros[LARGE];
    struct event_record ev = {.id = id,
                              .txn = id / 2 + 1,
                              .time_ns = (int64_t)id * 10,
                              .type = bytes_str("type"),
                              .key = bytes_str("stream"),
                              .payload = bytes_of(zeros, payload)};
    buf_clear(rec);
    unsigned char *p = buf_grow(rec, record_event_size(&ev));
    assert_non_null(p);
    record_event_encode(p, &ev);
    return ev;
}

/* EVENTS events from 11 on: one block each for the first two, the others share one. */
static struct archive_about make_with(const uint8_t *chain_after)
{
    static const uint8_t before[ARCHIVE_DIGEST] = "before";
    struct chain_walk walk = {.chain = {.event = 10, .on = 1}};
    struct archivefile_out *o;
    struct archive_about a;
    struct buf rec = {0};
    memcpy(walk.chain.value, before, sizeof before);
    unlink(path);
    assert_int_equal(archivefile_create(path, uuid, ARCHIVE_LEVEL, &o, &err), 0);
    for (uint64_t id = 11; id < 11 + EVENTS; id++) {
        struct event_record ev = event(id, id < 13 ? LARGE : 10, &rec);
        assert_int_equal(archivefile_add(o, &ev, buf_bytes(&rec), &err), 0);
        assert_int_equal(chain_walk_add(&walk, &ev), 0);
    }
    chain_walk_end(&walk);
    assert_int_equal(archivefile_events(o), EVENTS);
    assert_int_equal(
        archivefile_finish(o, before, chain_after ? chain_after : walk.chain.value, &a, &err), 0);
    chain_walk_fini(&walk);
    buf_fini(&rec);
    return a;
}

static struct archive_about make(void)
{
    return make_with(NULL);
}

static void what_was_written_is_read_back(void **state)
{
    (void)state;
    struct archive_about made = make();
    struct archivefile *f;
    struct buf frames = {0}, rec = {0};
    struct event_record ev;
    struct stat st;
    uint64_t id = 11;
    assert_int_equal(archivefile_open(path, &f, &err), 0);
    assert_memory_equal(archivefile_about(f), &made, sizeof made);
    assert_int_equal(made.first, 11);
    assert_int_equal(made.last, 15);
    assert_int_equal(made.first_txn, 6);
    assert_int_equal(made.last_txn, 8);
    assert_int_equal(made.last_time_ns, 150);
    assert_int_equal(made.chained, 1);
    assert_int_equal(archivefile_blocks(f), 3);
    assert_int_equal(archivefile_block_of(f, 11), 0);
    assert_int_equal(archivefile_block_of(f, 12), 1);
    assert_int_equal(archivefile_block_of(f, 15), 2);
    for (uint32_t b = 0; b < 3; b++) {
        size_t at = 0;
        assert_int_equal(archivefile_read(f, b, &frames, &err), 0);
        while (record_frame_next(buf_bytes(&frames), &at, &ev, NULL) == 1) {
            struct event_record was = event(id, id < 13 ? LARGE : 10, &rec);
            assert_int_equal(ev.id, id++);
            assert_int_equal(ev.txn, was.txn);
            assert_true(bytes_eq(ev.payload, was.payload) && bytes_eq(ev.key, was.key));
        }
    }
    assert_int_equal(id, 16);
    assert_int_equal(archivefile_verify(f, NULL, NULL, &err), 0);
    archivefile_close(f);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0440);
    assert_int_equal((uint64_t)st.st_size, made.bytes);
    buf_fini(&frames);
    buf_fini(&rec);
}

static size_t file_read(unsigned char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, out, cap);
    close(fd);
    assert_true(n > 0 && (size_t)n < cap);
    return (size_t)n;
}

static void file_write(const void *p, size_t n)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, p, n), n);
    close(fd);
}

/* What opening and verifying it says. */
static int verdict(void)
{
    struct archivefile *f;
    int rc = archivefile_open(path, &f, &err);
    if (rc)
        return rc;
    rc = archivefile_verify(f, NULL, NULL, &err);
    archivefile_close(f);
    return rc;
}

static void each_byte_that_changes_is_found(void **state)
{
    (void)state;
    static unsigned char b[8192];
    make();
    size_t n = file_read(b, sizeof b);
    for (size_t i = 0; i < n; i++) {
        b[i] ^= (unsigned char)(1u << i % 8);
        file_write(b, n);
        int rc = verdict();
        if (rc != AZOTH_ERR_CORRUPT)
            fail_msg("byte %zu of %zu: %d", i, n, rc);
        assert_non_null(strstr(err.message, path));
        b[i] ^= (unsigned char)(1u << i % 8);
    }
    file_write(b, n);
    assert_int_equal(verdict(), 0);
}

/* What somebody changed who knows how the sums are made: only the digest tells. */
static void a_change_with_right_sums_is_found_by_the_digest(void **state)
{
    (void)state;
    static unsigned char b[8192];
    struct archivefile *f;
    struct buf frames = {0};
    make();
    size_t n = file_read(b, sizeof b);
    unsigned char *block = b + 64;
    put_u32(block + 20, 1); /* means nothing */
    file_write(b, n);
    assert_int_equal(archivefile_open(path, &f, &err), 0);
    assert_int_equal(archivefile_read(f, 0, &frames, &err), AZOTH_ERR_CORRUPT);
    archivefile_close(f);
    put_u64(block + 24, XXH3_64bits_withSeed(block + 32, get_u32(block), XXH3_64bits(block, 24)));
    file_write(b, n);
    assert_int_equal(archivefile_open(path, &f, &err), 0);
    assert_int_equal(archivefile_read(f, 0, &frames, &err), 0);
    assert_int_equal(archivefile_verify(f, NULL, NULL, &err), AZOTH_ERR_CORRUPT);
    assert_non_null(strstr(err.message, "digest"));
    archivefile_close(f);
    buf_fini(&frames);
}

static void events_that_do_not_lead_to_the_chains_value_are_found(void **state)
{
    (void)state;
    static const uint8_t other[ARCHIVE_DIGEST] = "other";
    make_with(other);
    assert_int_equal(verdict(), AZOTH_ERR_CORRUPT);
    assert_non_null(strstr(err.message, "the chain's value"));
}

static struct buf copied;
static size_t pieces;

static int take_piece(void *arg, const void *p, size_t len, struct azoth_error *e)
{
    (void)e;
    pieces++;
    return arg ? 77 : buf_add(&copied, p, len);
}

static void a_copy_is_all_bytes_and_tells_when_they_are_others(void **state)
{
    (void)state;
    static unsigned char b[8192];
    struct archivefile *f;
    int end = 0;
    make();
    size_t n = file_read(b, sizeof b);
    assert_int_equal(archivefile_open(path, &f, &err), 0);
    buf_clear(&copied);
    assert_int_equal(archivefile_copy(f, take_piece, NULL, &err), 0);
    assert_int_equal(copied.len, n);
    assert_memory_equal(copied.ptr, b, n);
    pieces = 0;
    assert_int_equal(archivefile_copy(f, take_piece, &end, &err), 77);
    assert_int_equal(pieces, 1);
    archivefile_close(f);
    b[100] ^= 1;
    file_write(b, n);
    assert_int_equal(archivefile_open(path, &f, &err), 0);
    assert_int_equal(archivefile_copy(f, take_piece, NULL, &err), AZOTH_ERR_CORRUPT);
    archivefile_close(f);
    buf_fini(&copied);
}

static void one_that_is_cut_or_grown_is_found(void **state)
{
    (void)state;
    static unsigned char b[8192];
    make();
    size_t n = file_read(b, sizeof b);
    for (size_t i = 0; i < n; i++) {
        file_write(b, i);
        assert_int_equal(verdict(), AZOTH_ERR_CORRUPT);
    }
    file_write(b, n + 1);
    assert_int_equal(verdict(), AZOTH_ERR_CORRUPT);
}

static void a_gap_is_refused_by_the_writer(void **state)
{
    (void)state;
    struct archivefile_out *o;
    struct buf rec = {0};
    unlink(path);
    assert_int_equal(archivefile_create(path, uuid, 1, &o, &err), 0);
    struct event_record ev = event(1, 1, &rec);
    assert_int_equal(archivefile_add(o, &ev, buf_bytes(&rec), &err), 0);
    ev = event(3, 1, &rec);
    assert_int_equal(archivefile_add(o, &ev, buf_bytes(&rec), &err), AZOTH_ERR_GAP);
    archivefile_abort(o);
    assert_int_equal(access(path, F_OK), -1);
    buf_fini(&rec);
}

static void a_dead_ones_file_is_replaced_a_living_ones_is_not(void **state)
{
    (void)state;
    struct archivefile_out *o, *second;
    static unsigned char junk[5000];
    file_write(junk, sizeof junk);
    assert_int_equal(archivefile_create(path, uuid, 1, &o, &err), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(archivefile_create(path, uuid, 1, &second, &err), AZOTH_ERR_BUSY);
    archivefile_abort(o);
    assert_int_equal(archivefile_create("/nowhere/at/all", uuid, 1, &o, &err), AZOTH_ERR_NOT_FOUND);
}

/* It has the mode of a segment, which its own user may not write; and the superuser may have been the one who died. */
static void a_dead_ones_file_is_replaced_by_who_may_not_write_it(void **state)
{
    (void)state;
    struct archivefile_out *o, *second;
    int root = geteuid() == 0;
    if (root)
        assert_int_equal(chown(dir, 65534, 65534) || setegid(65534) || seteuid(65534), 0);
    make();
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(archivefile_create(path, uuid, 1, &o, &err), 0);
    assert_int_equal(archivefile_create(path, uuid, 1, &second, &err), AZOTH_ERR_BUSY);
    archivefile_abort(o);
    if (root) {
        assert_int_equal(seteuid(0) || setegid(0), 0);
        make();
        assert_int_equal(setegid(65534) || seteuid(65534), 0);
        assert_int_equal(archivefile_create(path, uuid, 1, &o, &err), 0);
        archivefile_abort(o);
        assert_int_equal(seteuid(0) || setegid(0), 0);
    }
}

static void names_sort_as_events_do(void **state)
{
    (void)state;
    char a[ARCHIVE_NAME_MAX], b[ARCHIVE_NAME_MAX];
    uint64_t first, last;
    archivefile_name(a, 9, 99);
    archivefile_name(b, 100, UINT64_MAX);
    assert_true(strcmp(a, b) < 0);
    assert_int_equal(archivefile_name_parse(b, &first, &last), 1);
    assert_true(first == 100 && last == UINT64_MAX);
    assert_int_equal(archivefile_name_parse("events-1-2.azs", &first, &last), 0);
    assert_int_equal(archivefile_name_parse("data.mdb", &first, &last), 0);
    strcat(a, ".partial");
    assert_int_equal(archivefile_name_parse(a, &first, &last), 0);
}

static void records_are_read_back_and_each_byte_counts(void **state)
{
    (void)state;
    static struct archived_entry e, got;
    struct buf b = {0};
    unsigned char s[ARCHIVE_STATE];
    struct archived_state st = {17, 20}, st_got;
    memset(&e, 0, sizeof e);
    e.about = make();
    strcpy(e.path, "archive/events");
    assert_int_equal(archived_entry_encode(&b, &e), 0);
    assert_int_equal(archived_entry_decode(buf_bytes(&b), &got), 0);
    assert_memory_equal(&got.about, &e.about, sizeof e.about);
    assert_string_equal(got.path, e.path);
    for (size_t i = 0; i < b.len; i++) {
        b.ptr[i] ^= 1;
        assert_int_equal(archived_entry_decode(buf_bytes(&b), &got), AZOTH_ERR_CORRUPT);
        b.ptr[i] ^= 1;
    }
    for (size_t i = 0; i < b.len; i++)
        assert_int_equal(archived_entry_decode(bytes_of(b.ptr, i), &got), AZOTH_ERR_CORRUPT);
    e.path[0] = 0;
    assert_int_equal(archived_entry_encode(&b, &e), AZOTH_ERR_USAGE);
    buf_fini(&b);
    archived_state_encode(s, &st);
    assert_int_equal(archived_state_decode(bytes_of(s, sizeof s), &st_got), 0);
    assert_memory_equal(&st, &st_got, sizeof st);
    for (size_t i = 0; i < sizeof s; i++) {
        s[i] ^= 0x10;
        assert_int_equal(archived_state_decode(bytes_of(s, sizeof s), &st_got), AZOTH_ERR_CORRUPT);
        s[i] ^= 0x10;
    }
    st = (struct archived_state){30, 20}; /* events 21 to 29 would be nowhere */
    archived_state_encode(s, &st);
    assert_int_equal(archived_state_decode(bytes_of(s, sizeof s), &st_got), AZOTH_ERR_CORRUPT);
}

static void paths_below_the_database_are_relative(void **state)
{
    (void)state;
    char out[40];
    assert_string_equal(archived_path_recorded("/a/db", "/a/db/archive/x"), "archive/x");
    assert_string_equal(archived_path_recorded("/a/db", "/a/db2/x"), "/a/db2/x");
    assert_int_equal(archived_path(out, sizeof out, "/b", "archive/x"), 0);
    assert_string_equal(out, "/b/archive/x");
    assert_int_equal(archived_path(out, sizeof out, "/b", "/a/db2/x"), 0);
    assert_string_equal(out, "/a/db2/x");
    assert_int_equal(archived_path(out, 5, "/b", "archive/x"), AZOTH_ERR_USAGE);
}

/* More blocks are held than the cache has places: each stays good until it is given back. */
static void blocks_stay_while_they_are_held(void **state)
{
    (void)state;
    struct archivefile_out *o;
    static struct archived_entry e;
    struct archived_block *held[12];
    struct buf rec = {0};
    unlink(path);
    assert_int_equal(archivefile_create(path, uuid, 1, &o, &err), 0);
    for (uint64_t id = 1; id <= 12; id++) {
        struct event_record ev = event(id, LARGE, &rec);
        assert_int_equal(archivefile_add(o, &ev, buf_bytes(&rec), &err), 0);
    }
    assert_int_equal(archivefile_finish(o, NULL, NULL, &e.about, &err), 0);
    strcpy(e.path, "segment");
    struct archived_cache *c = archived_cache_make(dir);
    assert_non_null(c);
    for (uint64_t id = 1; id <= 12; id++)
        assert_int_equal(archived_cache_block(c, &e, id, &held[id - 1], &err), 0);
    struct archived_block *again;
    assert_int_equal(archived_cache_block(c, &e, 1, &again, &err), 0);
    assert_ptr_equal(again, held[0]);
    archived_block_release(c, again);
    for (uint64_t id = 1; id <= 12; id++) {
        size_t at = 0;
        struct event_record ev;
        assert_int_equal(record_frame_next(archived_block_frames(held[id - 1]), &at, &ev, NULL), 1);
        assert_int_equal(ev.id, id);
        archived_block_release(c, held[id - 1]);
    }
    archived_cache_free(c);
    /* Another file of the same events' ids in its place is not the one that was recorded. */
    unlink(path);
    assert_int_equal(archivefile_create(path, uuid, 1, &o, &err), 0);
    for (uint64_t id = 1; id <= 12; id++) {
        struct event_record ev = event(id, 1, &rec);
        assert_int_equal(archivefile_add(o, &ev, buf_bytes(&rec), &err), 0);
    }
    struct archive_about other;
    assert_int_equal(archivefile_finish(o, NULL, NULL, &other, &err), 0);
    c = archived_cache_make(dir);
    assert_int_equal(archived_cache_block(c, &e, 1, &again, &err), AZOTH_ERR_CORRUPT);
    assert_non_null(strstr(err.message, "its digest is another"));
    unlink(path);
    assert_int_equal(archived_cache_block(c, &e, 1, &again, &err), AZOTH_ERR_NOT_FOUND);
    archived_cache_free(c);
    buf_fini(&rec);
}

static struct archived_cache *shared;
static struct archived_entry shared_entry;

/* Blocks in an order of its own; how many were not what they should be. */
static void *read_blocks(void *arg)
{
    uintptr_t wrong = 0, turn = (uintptr_t)arg;
    for (uint64_t i = 0; i < 300; i++) {
        uint64_t id = 1 + i * (2 * turn + 5) % 12;
        struct archived_block *b;
        struct event_record ev;
        size_t at = 0;
        if (archived_cache_block(shared, &shared_entry, id, &b, NULL)) {
            wrong++;
            continue;
        }
        wrong += record_frame_next(archived_block_frames(b), &at, &ev, NULL) != 1 || ev.id != id;
        archived_block_release(shared, b);
    }
    return (void *)wrong;
}

static void threads_share_the_cache(void **state)
{
    (void)state;
    pthread_t thread[4];
    struct archivefile_out *o;
    struct buf rec = {0};
    unlink(path);
    assert_int_equal(archivefile_create(path, uuid, 1, &o, &err), 0);
    for (uint64_t id = 1; id <= 12; id++) {
        struct event_record ev = event(id, LARGE, &rec);
        assert_int_equal(archivefile_add(o, &ev, buf_bytes(&rec), &err), 0);
    }
    assert_int_equal(archivefile_finish(o, NULL, NULL, &shared_entry.about, &err), 0);
    strcpy(shared_entry.path, "segment");
    shared = archived_cache_make(dir);
    assert_non_null(shared);
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, read_blocks, (void *)i), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        assert_int_equal(pthread_join(thread[i], &wrong), 0);
        assert_null(wrong);
    }
    archived_cache_free(shared);
    buf_fini(&rec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read_back),
        cmocka_unit_test(each_byte_that_changes_is_found),
        cmocka_unit_test(a_change_with_right_sums_is_found_by_the_digest),
        cmocka_unit_test(events_that_do_not_lead_to_the_chains_value_are_found),
        cmocka_unit_test(a_copy_is_all_bytes_and_tells_when_they_are_others),
        cmocka_unit_test(one_that_is_cut_or_grown_is_found),
        cmocka_unit_test(a_gap_is_refused_by_the_writer),
        cmocka_unit_test(a_dead_ones_file_is_replaced_a_living_ones_is_not),
        cmocka_unit_test(a_dead_ones_file_is_replaced_by_who_may_not_write_it),
        cmocka_unit_test(names_sort_as_events_do),
        cmocka_unit_test(records_are_read_back_and_each_byte_counts),
        cmocka_unit_test(paths_below_the_database_are_relative),
        cmocka_unit_test(blocks_stay_while_they_are_held),
        cmocka_unit_test(threads_share_the_cache),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
