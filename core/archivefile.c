/*
 * archivefile.c - segments of the log: written in one pass, read from their end.
 *
 * Failure modes
 *   the writer dies       its file has a name that nobody looks for, and no footer
 *   the disk is full      NOSPACE; the file is removed by archivefile_abort()
 *   bytes change later    the sum of the header, the block, the index or the footer, and the digest
 *
 * Invariants
 *   Z1  a length or place that was read is compared with the file's size, or with a limit, before it is used.
 *   Z2  blocks lie one after the other from the header to the index without a gap, in the order of ids.
 */
#include "core/archivefile.h"

#include "core/chain.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#define HEADER       64u
#define BLOCK_HEADER 32u
#define INDEX_ENTRY  16u
#define FOOTER       192u
#define FORMAT_1     1u
/* Where the digest stands in the footer, and so what it does not cover. */
#define FOOTER_DIGEST 144u

static const char header_magic[8] = "AZOTHSG1", footer_magic[8] = "AZOTHSGE";

_Static_assert(ARCHIVE_DIGEST == HASH_BYTES && ARCHIVE_DIGEST == CHAIN_BYTES, "a BLAKE2b-256");

void archivefile_name(char out[ARCHIVE_NAME_MAX], uint64_t first, uint64_t last)
{
    snprintf(out, ARCHIVE_NAME_MAX, "events-%020llu-%020llu.azs", (unsigned long long)first,
             (unsigned long long)last);
}

int archivefile_name_parse(const char *name, uint64_t *ret_first, uint64_t *ret_last)
{
    unsigned long long first, last;
    char again[ARCHIVE_NAME_MAX];
    if (sscanf(name, "events-%20llu-%20llu.azs", &first, &last) != 2)
        return 0;
    archivefile_name(again, first, last);
    if (strcmp(name, again) != 0)
        return 0;
    *ret_first = first;
    *ret_last = last;
    return 1;
}

/* ---- what the record has, too ---- */

void archivefile_range_encode(unsigned char out[ARCHIVE_RANGE], const struct archive_about *a)
{
    put_u64(out, a->first);
    put_u64(out + 8, a->last);
    put_u64(out + 16, a->first_txn);
    put_u64(out + 24, a->last_txn);
    put_u64(out + 32, (uint64_t)a->first_time_ns);
    put_u64(out + 40, (uint64_t)a->last_time_ns);
}

void archivefile_range_decode(const unsigned char p[ARCHIVE_RANGE], struct archive_about *ret)
{
    ret->first = get_u64(p);
    ret->last = get_u64(p + 8);
    ret->first_txn = get_u64(p + 16);
    ret->last_txn = get_u64(p + 24);
    ret->first_time_ns = (int64_t)get_u64(p + 32);
    ret->last_time_ns = (int64_t)get_u64(p + 40);
}

void archivefile_chains_encode(unsigned char out[ARCHIVE_CHAINS], const struct archive_about *a)
{
    memcpy(out, a->chain_before, ARCHIVE_DIGEST);
    memcpy(out + ARCHIVE_DIGEST, a->chain_after, ARCHIVE_DIGEST);
}

void archivefile_chains_decode(const unsigned char p[ARCHIVE_CHAINS], struct archive_about *ret)
{
    memcpy(ret->chain_before, p, ARCHIVE_DIGEST);
    memcpy(ret->chain_after, p + ARCHIVE_DIGEST, ARCHIVE_DIGEST);
}

/* ---- writing ---- */

struct archivefile_out {
    int fd, level;
    char path[4096];
    struct archive_about about;
    uint64_t at, events, block_first;
    uint32_t block_events;
    struct buf frames, packed, index;
    ZSTD_CCtx *zstd;
    struct hash hash;
};

static int write_all(struct archivefile_out *o, const void *p, size_t len, struct azoth_error *err)
{
    int rc = io_write_all(o->fd, p, len, o->path, err);
    o->at += rc ? 0 : len;
    return rc;
}

static int put(struct archivefile_out *o, const void *p, size_t len, struct azoth_error *err)
{
    hash_add(&o->hash, p, len);
    return write_all(o, p, len, err);
}

static int put_header(struct archivefile_out *o, struct azoth_error *err)
{
    unsigned char h[HEADER] = {0};
    memcpy(h, header_magic, 8);
    put_u32(h + 8, FORMAT_1);
    memcpy(h + 16, o->about.uuid, 16);
    put_u64(h + 32, o->about.first);
    put_u64(h + 56, XXH3_64bits(h, 56));
    return put(o, h, sizeof h, err);
}

/* What a dead run has left may be complete, and so read-only, or another user's: it goes when nobody has it locked. Of one that we
 * may not read we cannot see that, and it goes, too: who writes it fails then, and can be run again. 0, or an errno. */
static int remove_left(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int e = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) ? errno : unlink(path) ? errno : 0;
    if (fd >= 0)
        close(fd);
    return e;
}

static int taken_by_another(const char *path, struct azoth_error *err)
{
    return error_set(err, AZOTH_ERR_BUSY, "%s: another process writes it", path);
}

/* The lock is on the file that has the name: one that was replaced meanwhile is opened again. */
static int open_alone(const char *path, int *ret, struct azoth_error *err)
{
    struct stat a, b;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 && errno == EACCES) {
            int left = remove_left(path);
            if (left == 0)
                continue;
            return left == EWOULDBLOCK ? taken_by_another(path, err)
                                       : error_errno(err, EACCES, "%s", path);
        }
        if (fd < 0)
            return errno == ENOENT
                       ? error_set(err, AZOTH_ERR_NOT_FOUND, "%s: no such directory", path)
                       : error_errno(err, errno, "%s", path);
        int taken = flock(fd, LOCK_EX | LOCK_NB) != 0;
        int e = errno;
        if (!taken && fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino &&
            a.st_dev == b.st_dev && ftruncate(fd, 0) == 0 && fchmod(fd, 0440) == 0) {
            *ret = fd;
            return 0;
        }
        if (!taken)
            e = errno;
        close(fd);
        if (taken)
            return e == EWOULDBLOCK ? taken_by_another(path, err) : error_errno(err, e, "%s", path);
        if (e != ENOENT && e != 0)
            return error_errno(err, e, "%s", path);
    }
}

int archivefile_create(const char *path, const uint8_t uuid[16], int level,
                       struct archivefile_out **ret, struct azoth_error *err)
{
    struct archivefile_out *o = calloc(1, sizeof *o);
    if (!o)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment");
    o->level = level;
    o->fd = -1;
    snprintf(o->path, sizeof o->path, "%s", path);
    memcpy(o->about.uuid, uuid, 16);
    hash_begin(&o->hash);
    o->zstd = ZSTD_createCCtx();
    int rc = o->zstd ? open_alone(path, &o->fd, err)
                     : error_set(err, AZOTH_ERR_NOMEM, "a segment's compressor");
    if (rc) {
        ZSTD_freeCCtx(o->zstd);
        free(o);
        return rc;
    }
    *ret = o;
    return 0;
}

static void out_free(struct archivefile_out *o)
{
    if (o->fd >= 0)
        close(o->fd);
    ZSTD_freeCCtx(o->zstd);
    buf_fini(&o->frames);
    buf_fini(&o->packed);
    buf_fini(&o->index);
    free(o);
}

static int flush_block(struct archivefile_out *o, struct azoth_error *err)
{
    if (o->block_events == 0)
        return 0;
    size_t most = ZSTD_compressBound(o->frames.len);
    buf_clear(&o->packed);
    unsigned char *entry = buf_grow(&o->index, INDEX_ENTRY);
    unsigned char *b = buf_grow(&o->packed, BLOCK_HEADER + most);
    if (!entry || !b)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's block");
    put_u64(entry, o->block_first);
    put_u64(entry + 8, o->at);
    size_t n =
        ZSTD_compressCCtx(o->zstd, b + BLOCK_HEADER, most, o->frames.ptr, o->frames.len, o->level);
    if (ZSTD_isError(n))
        return error_set(err, AZOTH_ERR_IO, "zstd: %s", ZSTD_getErrorName(n));
    put_u32(b, (uint32_t)n);
    put_u32(b + 4, (uint32_t)o->frames.len);
    put_u64(b + 8, o->block_first);
    put_u32(b + 16, o->block_events);
    put_u32(b + 20, 0);
    put_u64(b + 24, XXH3_64bits_withSeed(b + BLOCK_HEADER, n, XXH3_64bits(b, 24)));
    int rc = put(o, b, BLOCK_HEADER + n, err);
    buf_clear(&o->frames);
    o->block_events = 0;
    return rc;
}

int archivefile_add(struct archivefile_out *o, const struct event_record *ev,
                    struct azoth_bytes raw, struct azoth_error *err)
{
    struct archive_about *a = &o->about;
    if (o->events == 0) {
        a->first = ev->id;
        a->first_txn = ev->txn;
        a->first_time_ns = ev->time_ns;
        int rc = put_header(o, err);
        if (rc)
            return rc;
    } else if (ev->id != a->last + 1) {
        return error_set(err, AZOTH_ERR_GAP, "event %llu is missing: %llu follows",
                         (unsigned long long)a->last + 1, (unsigned long long)ev->id);
    }
    if (o->block_events == 0)
        o->block_first = ev->id;
    if (record_frame_add(&o->frames, ev->id, raw))
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's block");
    a->last = ev->id;
    a->last_txn = ev->txn;
    a->last_time_ns = ev->time_ns;
    a->log_bytes += RECORD_FRAME_HEADER + raw.len;
    o->events++;
    o->block_events++;
    return o->frames.len >= ARCHIVE_BLOCK ? flush_block(o, err) : 0;
}

uint64_t archivefile_events(const struct archivefile_out *o)
{
    return o->events;
}

uint64_t archivefile_log_bytes(const struct archivefile_out *o)
{
    return o->about.log_bytes;
}

static int put_footer(struct archivefile_out *o, uint64_t index_at, struct azoth_error *err)
{
    struct archive_about *a = &o->about;
    unsigned char f[FOOTER] = {0};
    archivefile_range_encode(f, a);
    put_u64(f + 48, a->log_bytes);
    put_u64(f + 56, index_at);
    put_u32(f + 64, (uint32_t)(o->index.len / INDEX_ENTRY));
    put_u32(f + 68, a->chained);
    archivefile_chains_encode(f + 72, a);
    put_u64(f + 136, XXH3_64bits(o->index.ptr, o->index.len));
    hash_add(&o->hash, f, FOOTER_DIGEST);
    hash_end(&o->hash, a->digest);
    memcpy(f + FOOTER_DIGEST, a->digest, ARCHIVE_DIGEST);
    memcpy(f + 176, footer_magic, 8);
    put_u64(f + 184, XXH3_64bits(f, 184));
    return write_all(o, f, sizeof f, err);
}

int archivefile_finish(struct archivefile_out *o, const uint8_t *chain_before,
                       const uint8_t *chain_after, struct archive_about *ret,
                       struct azoth_error *err)
{
    ensure(o->events > 0);
    if (chain_before && chain_after) {
        o->about.chained = 1;
        memcpy(o->about.chain_before, chain_before, ARCHIVE_DIGEST);
        memcpy(o->about.chain_after, chain_after, ARCHIVE_DIGEST);
    }
    int rc = flush_block(o, err);
    uint64_t index_at = o->at;
    if (!rc)
        rc = put(o, o->index.ptr, o->index.len, err);
    if (!rc)
        rc = put_footer(o, index_at, err);
    if (!rc && fsync(o->fd))
        rc = error_errno(err, errno, "%s", o->path);
    o->about.bytes = o->at;
    if (rc) {
        archivefile_abort(o);
        return rc;
    }
    *ret = o->about;
    out_free(o);
    return 0;
}

void archivefile_abort(struct archivefile_out *o)
{
    if (!o)
        return;
    unlink(o->path);
    out_free(o);
}

/* ---- reading ---- */

struct archivefile {
    int fd;
    char path[4096];
    struct archive_about about;
    uint64_t index_at;
    uint32_t blocks;
    unsigned char *index;
};

static int read_at(const struct archivefile *f, uint64_t at, void *p, size_t len,
                   struct azoth_error *err)
{
    size_t n = 0;
    int rc = io_read_at(f->fd, p, len, at, &n, f->path, err);
    if (!rc && n < len)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s ends too early", f->path);
    return rc;
}

static int damaged(const struct archivefile *f, const char *what, struct azoth_error *err)
{
    return error_set(err, AZOTH_ERR_CORRUPT, "%s: its %s fails its check", f->path, what);
}

static int read_header(struct archivefile *f, struct azoth_error *err)
{
    unsigned char h[HEADER];
    int rc = read_at(f, 0, h, sizeof h, err);
    if (rc)
        return rc;
    if (memcmp(h, header_magic, 8) != 0 || get_u64(h + 56) != XXH3_64bits(h, 56))
        return damaged(f, "header", err);
    if (get_u32(h + 8) != FORMAT_1)
        return error_set(err, AZOTH_ERR_FORMAT, "%s has format %u, this program knows %u", f->path,
                         get_u32(h + 8), FORMAT_1);
    memcpy(f->about.uuid, h + 16, 16);
    f->about.first = get_u64(h + 32);
    return 0;
}

static int read_footer(struct archivefile *f, uint64_t *ret_index_sum, struct azoth_error *err)
{
    unsigned char b[FOOTER];
    struct archive_about *a = &f->about;
    int rc = read_at(f, a->bytes - FOOTER, b, sizeof b, err);
    if (rc)
        return rc;
    if (memcmp(b + 176, footer_magic, 8) != 0 || get_u64(b + 184) != XXH3_64bits(b, 184) ||
        get_u64(b) != a->first)
        return damaged(f, "footer", err);
    archivefile_range_decode(b, a);
    a->log_bytes = get_u64(b + 48);
    f->index_at = get_u64(b + 56);
    f->blocks = get_u32(b + 64);
    a->chained = get_u32(b + 68);
    archivefile_chains_decode(b + 72, a);
    *ret_index_sum = get_u64(b + 136);
    memcpy(a->digest, b + FOOTER_DIGEST, ARCHIVE_DIGEST);
    uint64_t index_bytes = (uint64_t)f->blocks * INDEX_ENTRY;
    if (a->first == 0 || a->last < a->first || f->blocks == 0 || f->index_at < HEADER ||
        index_bytes > a->bytes || f->index_at != a->bytes - FOOTER - index_bytes)
        return damaged(f, "footer", err);
    return 0;
}

static uint64_t index_first(const struct archivefile *f, uint32_t i)
{
    return get_u64(f->index + (size_t)i * INDEX_ENTRY);
}

/* Of a block; of the one behind the last the index's. */
static uint64_t index_place(const struct archivefile *f, uint32_t i)
{
    return i == f->blocks ? f->index_at : get_u64(f->index + (size_t)i * INDEX_ENTRY + 8);
}

static int read_index(struct archivefile *f, uint64_t sum, struct azoth_error *err)
{
    size_t len = (size_t)f->blocks * INDEX_ENTRY;
    f->index = malloc(len);
    if (!f->index)
        return error_set(err, AZOTH_ERR_NOMEM, "the index of %s", f->path);
    int rc = read_at(f, f->index_at, f->index, len, err);
    if (rc)
        return rc;
    int good = XXH3_64bits(f->index, len) == sum && index_first(f, 0) == f->about.first &&
               index_place(f, 0) == HEADER && index_first(f, f->blocks - 1) <= f->about.last;
    for (uint32_t i = 0; good && i < f->blocks; i++)
        good = index_place(f, i) <= f->index_at && index_place(f, i + 1) <= f->index_at &&
               index_place(f, i + 1) >= index_place(f, i) + BLOCK_HEADER &&
               (i == 0 || index_first(f, i) > index_first(f, i - 1));
    return good ? 0 : damaged(f, "index", err);
}

int archivefile_open(const char *path, struct archivefile **ret, struct azoth_error *err)
{
    struct stat st;
    uint64_t sum = 0;
    struct archivefile *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment");
    snprintf(f->path, sizeof f->path, "%s", path);
    int rc = 0;
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f->fd < 0)
        rc = errno == ENOENT || errno == ENOTDIR
                 ? error_set(err, AZOTH_ERR_NOT_FOUND, "%s: the segment is not there", path)
                 : error_errno(err, errno, "%s", path);
    else if (fstat(f->fd, &st))
        rc = error_errno(err, errno, "%s", path);
    else if (!S_ISREG(st.st_mode) || st.st_size < (off_t)(HEADER + FOOTER))
        rc = error_set(err, AZOTH_ERR_CORRUPT, "%s is no segment, or ends too early", path);
    if (!rc) {
        f->about.bytes = (uint64_t)st.st_size;
        rc = read_header(f, err);
    }
    if (!rc)
        rc = read_footer(f, &sum, err);
    if (!rc)
        rc = read_index(f, sum, err);
    if (rc)
        archivefile_close(f);
    else
        *ret = f;
    return rc;
}

void archivefile_close(struct archivefile *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    free(f->index);
    free(f);
}

const struct archive_about *archivefile_about(const struct archivefile *f)
{
    return &f->about;
}

uint32_t archivefile_blocks(const struct archivefile *f)
{
    return f->blocks;
}

uint64_t archivefile_block_first(const struct archivefile *f, uint32_t block)
{
    return index_first(f, block);
}

uint32_t archivefile_block_of(const struct archivefile *f, uint64_t id)
{
    uint32_t low = 0, high = f->blocks; /* low begins at or before id, high behind it */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (index_first(f, middle) <= id)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int damaged_block(const struct archivefile *f, uint32_t block, struct azoth_error *err)
{
    return error_set(err, AZOTH_ERR_CORRUPT, "%s: the block from event %llu on fails its check",
                     f->path, (unsigned long long)index_first(f, block));
}

/* The events that the index gives to this block. */
static uint64_t block_events(const struct archivefile *f, uint32_t block)
{
    uint64_t end = block + 1 < f->blocks ? index_first(f, block + 1) : f->about.last + 1;
    return end - index_first(f, block);
}

int archivefile_read(const struct archivefile *f, uint32_t block, struct buf *frames,
                     struct azoth_error *err)
{
    uint64_t at = index_place(f, block), len = index_place(f, block + 1) - at;
    if (len > BLOCK_HEADER + ZSTD_compressBound(ARCHIVE_BLOCK_MAX))
        return damaged_block(f, block, err);
    unsigned char *b = malloc(len);
    if (!b)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's block");
    int rc = read_at(f, at, b, len, err);
    size_t packed = len - BLOCK_HEADER;
    if (!rc &&
        (get_u32(b) != packed || get_u32(b + 4) > ARCHIVE_BLOCK_MAX ||
         get_u64(b + 8) != index_first(f, block) || get_u32(b + 16) != block_events(f, block) ||
         get_u64(b + 24) != XXH3_64bits_withSeed(b + BLOCK_HEADER, packed, XXH3_64bits(b, 24))))
        rc = damaged_block(f, block, err);
    buf_clear(frames);
    unsigned char *out = rc ? NULL : buf_grow(frames, get_u32(b + 4));
    if (!rc && !out)
        rc = error_set(err, AZOTH_ERR_NOMEM, "a segment's block");
    if (!rc && ZSTD_decompress(out, frames->len, b + BLOCK_HEADER, packed) != frames->len)
        rc = damaged_block(f, block, err);
    free(b);
    return rc;
}

/* Every record, ids consecutive, transactions and times never going back. */
static int verify_block(const struct archivefile *f, uint32_t block, struct event_record *last,
                        struct chain_walk *walk, struct azoth_bytes frames, struct azoth_error *err)
{
    size_t at = 0;
    uint64_t id = index_first(f, block);
    struct event_record ev;
    int rc;
    while ((rc = record_frame_next(frames, &at, &ev, NULL)) == 1) {
        if (ev.id != id || ev.txn < last->txn || ev.time_ns < last->time_ns)
            return damaged_block(f, block, err);
        if (chain_walk_add(walk, &ev))
            return error_set(err, AZOTH_ERR_NOMEM, "a transaction's events");
        *last = ev;
        id++;
    }
    if (rc || id != index_first(f, block) + block_events(f, block))
        return error_set(err, AZOTH_ERR_CORRUPT, "%s: event %llu fails its check", f->path,
                         (unsigned long long)id);
    return 0;
}

int archivefile_copy(const struct archivefile *f,
                     int (*sink)(void *arg, const void *p, size_t len, struct azoth_error *err),
                     void *arg, struct azoth_error *err)
{
    struct hash hash;
    uint8_t digest[ARCHIVE_DIGEST];
    uint64_t end = f->about.bytes - FOOTER + FOOTER_DIGEST, at = 0;
    unsigned char *b = malloc(ARCHIVE_PIECE), tail[FOOTER - FOOTER_DIGEST];
    if (!b)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's digest");
    hash_begin(&hash);
    int rc = 0;
    while (!rc && at < end) {
        size_t n = end - at < ARCHIVE_PIECE ? (size_t)(end - at) : ARCHIVE_PIECE;
        rc = read_at(f, at, b, n, err);
        if (!rc)
            hash_add(&hash, b, n);
        if (!rc && sink)
            rc = sink(arg, b, n, err);
        at += n;
    }
    free(b);
    if (!rc)
        rc = read_at(f, end, tail, sizeof tail, err);
    if (!rc && sink)
        rc = sink(arg, tail, sizeof tail, err);
    hash_end(&hash, digest);
    if (!rc && (memcmp(digest, f->about.digest, sizeof digest) != 0 ||
                memcmp(digest, tail, sizeof digest) != 0))
        rc = damaged(f, "digest", err);
    return rc;
}

static int verify_blocks(const struct archivefile *f, struct chain_walk *walk,
                         int (*say)(void *arg, uint64_t event), void *arg, struct azoth_error *err)
{
    struct buf frames = {0};
    struct event_record last = {.time_ns = INT64_MIN};
    uint64_t bytes = 0;
    int rc = 0;
    for (uint32_t i = 0; !rc && i < f->blocks; i++) {
        rc = archivefile_read(f, i, &frames, err);
        if (!rc)
            rc = verify_block(f, i, &last, walk, buf_bytes(&frames), err);
        bytes += frames.len;
        if (!rc && say)
            rc = say(arg, last.id);
    }
    buf_fini(&frames);
    if (!rc && (bytes != f->about.log_bytes || last.txn != f->about.last_txn ||
                last.time_ns != f->about.last_time_ns))
        rc = damaged(f, "footer", err);
    return rc;
}

int archivefile_verify(const struct archivefile *f, int (*say)(void *arg, uint64_t event),
                       void *arg, struct azoth_error *err)
{
    struct chain_walk walk = {.chain = {.event = f->about.first - 1, .on = f->about.chained != 0}};
    memcpy(walk.chain.value, f->about.chain_before, CHAIN_BYTES);
    int rc = verify_blocks(f, &walk, say, arg, err);
    chain_walk_end(&walk);
    if (!rc && walk.chain.on && memcmp(walk.chain.value, f->about.chain_after, CHAIN_BYTES) != 0)
        rc = error_set(
            err, AZOTH_ERR_CORRUPT,
            "%s: its events do not lead from the chain's value before them to that after", f->path);
    chain_walk_fini(&walk);
    return rc ? rc : archivefile_copy(f, NULL, NULL, err);
}
