/*
 * fuzz_archive.c - any bytes as a segment file, and as the record of one: an error, or what can be read to its
 * end. The first byte says whether the checksums are made to fit, so that what they cover is reached.
 */
#include "core/archived.h"
#include "core/error.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADER 64u
#define FOOTER 192u

static void sign_block(unsigned char *b, size_t left)
{
    if (left < 32 || get_u32(b) > left - 32)
        return;
    put_u64(b + 24, XXH3_64bits_withSeed(b + 32, get_u32(b), XXH3_64bits(b, 24)));
}

static void sign(unsigned char *p, size_t n)
{
    if (n < HEADER + FOOTER)
        return;
    unsigned char *f = p + n - FOOTER;
    put_u64(p + 56, XXH3_64bits(p, 56));
    uint64_t at = get_u64(f + 56), blocks = get_u32(f + 64);
    if (at <= n - FOOTER && blocks * 16 <= n - FOOTER - at) {
        for (uint64_t i = 0; i < blocks; i++) {
            uint64_t place = get_u64(p + at + i * 16 + 8);
            if (place < at)
                sign_block(p + place, (size_t)(at - place));
        }
        put_u64(f + 136, XXH3_64bits(p + at, (size_t)blocks * 16));
    }
    put_u64(f + 184, XXH3_64bits(f, 184));
}

static void check_file(const unsigned char *p, size_t n)
{
    char path[40];
    struct archivefile *f;
    struct azoth_error err;
    struct buf frames = {0};
    int fd = memfd_create("segment", MFD_CLOEXEC);
    ensure(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (archivefile_open(path, &f, &err) == 0) {
        const struct archive_about *a = archivefile_about(f);
        uint32_t last = archivefile_block_of(f, a->last);
        ensure(last == archivefile_blocks(f) - 1 && archivefile_block_of(f, a->first) == 0);
        if (archivefile_read(f, last, &frames, &err) == 0)
            ensure(frames.len <= ARCHIVE_BLOCK_MAX);
        archivefile_verify(f, NULL, NULL, &err);
        archivefile_close(f);
    }
    buf_fini(&frames);
    close(fd);
}

static void check_record(const unsigned char *p, size_t n)
{
    struct archived_entry *e = malloc(sizeof *e);
    struct buf again = {0};
    struct archived_state s;
    ensure(e != NULL);
    if (archived_entry_decode(bytes_of(p, n), e) == 0) {
        ensure(archived_entry_encode(&again, e) == 0);
        ensure(again.len == n);
    }
    archived_state_decode(bytes_of(p, n), &s);
    buf_fini(&again);
    free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t n = size - 1;
    unsigned char *p = malloc(n ? n : 1);
    ensure(p != NULL);
    memcpy(p, data + 1, n);
    if (data[0] % 2) {
        sign(p, n);
        check_file(p, n);
        if (n >= 8)
            put_u64(p + n - 8, XXH3_64bits(p, n - 8));
    } else {
        check_file(p, n);
    }
    check_record(p, n);
    free(p);
    return 0;
}
