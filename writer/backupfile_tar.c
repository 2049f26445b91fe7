/*
 * backupfile_tar.c - members as a tar stream, through zstd or as it is: the one place that calls libarchive.
 *
 * libarchive 3.6.2, and what was tried:
 *
 * - By its bids it would put up to 25 filters on top of each other, each with a window of 128 MiB, before one
 *   can count them. So no bids: the first four bytes say whether it is zstd, and that filter is appended alone.
 *   Windows over 128 MiB are refused by libzstd's own limit. Of formats only tar is known to it.
 * - A header of pax or GNU for the next member may have 1 MiB and no more, and 32 may follow each other: bounded.
 * - Sparse members: archive_read_data() would make a terabyte of zeros out of one block. Blocks are taken as they are
 *   stored (archive_read_data_block()), and one that does not begin where the last one ended is refused.
 * - An archive without its end (two blocks of zeros) is no error to it: the manifest tells.
 * - It checks tar's headers, not contents nor what is between them; its zstd filter writes no checksum ("Check: None"
 *   says zstd -lv). The manifest's digests and the trailer do.
 * - Names are converted by the program's locale, and a name that cannot be is NULL: names are ASCII.
 * - Unless archive_write_set_bytes_in_last_block() says 1, zeros are written behind the last zstd frame up to the next
 *   multiple of 10240 bytes.
 * - "Not of this format" is errno EILSEQ; the name for it, ARCHIVE_ERRNO_FILE_FORMAT, is not in its header.
 * - archive_write_free() writes what it still holds, after a failure too; and after archive_write_fail(), or when its
 *   callback has failed, it leaks its buffer of 64 KiB (the address sanitizer tells). So it is never told: the callback
 *   takes everything, keeps the sink's first error, and gives nothing on from then on.
 * - Where it has no memory it may end the process: "Fatal Internal Error in libarchive: Out of memory", exit status 1,
 *   from its strings (each of its allocations was failed in turn: a third was told, the others ended it, one by a
 *   segmentation fault). So nobody but the azoth command calls this, and what is left is PATH.partial.
 * - archive_write_data() takes no more than was announced, without an error, and fills up with zeros what is missing:
 *   the caller counts.
 */
#include "writer/backupfile_parts.h"

#include "core/error.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>

#define BLOCK_BYTES 65536

/* ---- writing ---- */

struct tar_writing {
    struct archive *a;
    struct archive_entry *entry;
    struct backup_sink *sink;
    int ended;              /* nothing is given to the sink any more */
    struct azoth_error why; /* the sink's, when that was what failed */
};

static la_ssize_t give(struct archive *a, void *arg, const void *p, size_t len)
{
    struct tar_writing *w = arg;
    (void)a;
    if (!w->ended)
        w->ended = sink_write(w->sink, p, len, &w->why) != 0;
    return (la_ssize_t)len;
}

/* What a call of libarchive came to, and whether what it gave was taken. */
static int written(struct tar_writing *w, int rc, struct azoth_error *err)
{
    if (rc == ARCHIVE_OK && !w->why.code)
        return 0;
    if (w->why.code) {
        if (err)
            *err = w->why;
        return w->why.code;
    }
    const char *text = archive_error_string(w->a);
    return error_foreign(err, archive_errno(w->a) == ENOMEM ? AZOTH_ERR_NOMEM : AZOTH_ERR_IO,
                         archive_errno(w->a), "the backup's tar stream: %s", text ? text : "?");
}

static int set_filter(struct tar_writing *w, int level, unsigned threads)
{
    char text[16];
    if (level == 0)
        return 0;
    snprintf(text, sizeof text, "%d", level);
    if (archive_write_add_filter_zstd(w->a) ||
        archive_write_set_filter_option(w->a, "zstd", "compression-level", text))
        return -1;
    snprintf(text, sizeof text, "%u", threads);
    /* Of 0 threads it would make as many as there are processors. */
    return threads ? archive_write_set_filter_option(w->a, "zstd", "threads", text) : 0;
}

static void tar_write_free(void *writing)
{
    struct tar_writing *w = writing;
    if (!w)
        return;
    w->ended = 1;
    archive_write_free(w->a);
    archive_entry_free(w->entry);
    sink_free(w->sink);
    free(w);
}

int backup_tar_create(struct backup_sink *sink, int level, unsigned threads, void **ret,
                      struct azoth_error *err)
{
    struct tar_writing *w = calloc(1, sizeof *w);
    if (!w) {
        sink_free(sink);
        return error_set(err, AZOTH_ERR_NOMEM, "the backup's tar stream");
    }
    w->sink = sink;
    w->a = archive_write_new();
    w->entry = archive_entry_new();
    int rc = w->a && w->entry ? 0 : error_set(err, AZOTH_ERR_NOMEM, "the backup's tar stream");
    /* pax where ustar does not do: a name that cannot be divided at 100 bytes, more than 8 GiB. */
    if (!rc && (archive_write_set_format_pax_restricted(w->a) || set_filter(w, level, threads) ||
                archive_write_set_bytes_per_block(w->a, BLOCK_BYTES) ||
                archive_write_set_bytes_in_last_block(w->a, 1) ||
                archive_write_open(w->a, w, NULL, give, NULL)))
        rc = written(w, ARCHIVE_FATAL, err);
    if (rc) {
        tar_write_free(w);
        return rc;
    }
    *ret = w;
    return 0;
}

static int tar_begin(void *writing, const char *name, uint64_t bytes, struct azoth_error *err)
{
    struct tar_writing *w = writing;
    archive_entry_clear(w->entry);
    archive_entry_set_pathname(w->entry, name);
    archive_entry_set_filetype(w->entry, AE_IFREG);
    archive_entry_set_perm(w->entry, 0640);
    archive_entry_set_mtime(w->entry, 0, 0);
    archive_entry_set_size(w->entry, (la_int64_t)bytes);
    return written(w, archive_write_header(w->a, w->entry), err);
}

static int tar_write(void *writing, const void *p, size_t len, struct azoth_error *err)
{
    struct tar_writing *w = writing;
    const unsigned char *at = p;
    while (len) {
        la_ssize_t n = archive_write_data(w->a, at, len);
        int rc = written(w, n > 0 ? ARCHIVE_OK : ARCHIVE_FATAL, err);
        if (rc)
            return rc;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static int tar_end(void *writing, struct azoth_error *err)
{
    struct tar_writing *w = writing;
    return written(w, archive_write_finish_entry(w->a), err);
}

static int tar_finish(void *writing, struct azoth_error *err)
{
    struct tar_writing *w = writing;
    int rc = written(w, archive_write_close(w->a), err);
    return rc ? rc : sink_end(w->sink, err);
}

const struct backup_writing backup_tar_writing = {tar_begin, tar_write, tar_end, tar_finish,
                                                  tar_write_free};

/* ---- reading ---- */

struct tar_reading {
    struct archive *a;
    struct backup_source *source;
    const void
        *ahead; /* the stream's first bytes, which were looked at before libarchive gets them */
    size_t ahead_len;
    int zstd, began;   /* by its first bytes; a member has come */
    const void *block; /* of the member: what was not given yet */
    size_t block_len;
    uint64_t at, bytes; /* of the member */
    char name[BACKUPFILE_NAME_MAX + 1];
    struct azoth_error why; /* the source's, when that was what failed */
};

static la_ssize_t ask(struct archive *a, void *arg, const void **ret)
{
    struct tar_reading *r = arg;
    size_t n = 0;
    if (r->ahead_len) {
        *ret = r->ahead;
        n = r->ahead_len;
        r->ahead_len = 0;
        return (la_ssize_t)n;
    }
    if (source_read(r->source, ret, &n, &r->why) == 0)
        return (la_ssize_t)n;
    archive_set_error(a, EIO, "%s", r->why.message);
    return -1;
}

/* What is behind libarchive's "no": whoever changed the file, or cut it, or gave us another. */
static int reading_failed(struct tar_reading *r, struct azoth_error *err)
{
    const char *text = archive_error_string(r->a);
    int n = archive_errno(r->a), trailer = source_trailer(r->source);
    int ours = trailer == 1 || source_encrypted(r->source);
    if (r->why.code) {
        if (err)
            *err = r->why;
        return r->why.code;
    }
    if (n == ENOMEM)
        return error_set(err, AZOTH_ERR_NOMEM, "reading the backup");
    /* A beginning, or one of zstd, may be a backup's: more than its first block is missing then. */
    if (!r->began && !ours && n == EILSEQ && !r->zstd && source_bytes(r->source) > 64)
        return error_set(err, AZOTH_ERR_FORMAT, "this is no backup");
    if (trailer == 0)
        return error_set(err, AZOTH_ERR_TRUNCATED,
                         r->began ? "the backup ends too early" : "this is less than a backup");
    return error_foreign(err, AZOTH_ERR_CORRUPT, n, "the backup was changed: %s",
                         text ? text : "?");
}

static void tar_read_free(void *reading)
{
    struct tar_reading *r = reading;
    if (!r)
        return;
    archive_read_free(r->a);
    source_free(r->source);
    free(r);
}

int backup_tar_open(struct backup_source *source, void **ret, struct azoth_error *err)
{
    struct tar_reading *r = calloc(1, sizeof *r);
    if (!r) {
        source_free(source);
        return error_set(err, AZOTH_ERR_NOMEM, "reading the backup");
    }
    r->source = source;
    r->a = archive_read_new();
    int rc = r->a ? source_read(source, &r->ahead, &r->ahead_len, err)
                  : error_set(err, AZOTH_ERR_NOMEM, "reading the backup");
    r->zstd = !rc && r->ahead_len >= 4 && memcmp(r->ahead, "\x28\xB5\x2F\xFD", 4) == 0;
    if (!rc && (archive_read_support_format_tar(r->a) ||
                (r->zstd && archive_read_append_filter(r->a, ARCHIVE_FILTER_ZSTD)) ||
                archive_read_open(r->a, r, NULL, ask, NULL)))
        rc = reading_failed(r, err);
    if (rc) {
        tar_read_free(r);
        return rc;
    }
    *ret = r;
    return 0;
}

/* A file with content, and nothing else that tar knows. */
static int is_plain(struct archive_entry *e)
{
    la_int64_t bytes = archive_entry_size(e);
    return archive_entry_filetype(e) == AE_IFREG && !archive_entry_hardlink(e) &&
           !archive_entry_symlink(e) && archive_entry_size_is_set(e) && bytes >= 0 &&
           (uint64_t)bytes <= BACKUPFILE_MEMBER_MAX && archive_entry_sparse_count(e) == 0 &&
           archive_entry_xattr_count(e) == 0 && archive_entry_acl_types(e) == 0;
}

static int tar_next(void *reading, const char **ret_name, uint64_t *ret_bytes,
                    struct azoth_error *err)
{
    struct tar_reading *r = reading;
    struct archive_entry *e;
    char text[80];
    int rc = archive_read_next_header(r->a, &e);
    if (rc == ARCHIVE_EOF)
        return r->began ? source_end(r->source, err) : 0;
    if (rc != ARCHIVE_OK)
        return reading_failed(r, err);
    const char *name = archive_entry_pathname(e);
    if (!name || !backup_path_valid(name))
        return error_set(err, r->began ? AZOTH_ERR_CORRUPT : AZOTH_ERR_FORMAT,
                         "%s: no backup has a member of this name",
                         name ? bytes_print(bytes_str(name), text, sizeof text) : "?");
    if (!is_plain(e))
        return error_set(err, r->began ? AZOTH_ERR_CORRUPT : AZOTH_ERR_FORMAT,
                         "%s: no backup has a member that is no plain file", name);
    snprintf(r->name, sizeof r->name, "%s", name);
    r->began = 1;
    r->block_len = 0;
    r->at = 0;
    r->bytes = (uint64_t)archive_entry_size(e);
    *ret_name = r->name;
    *ret_bytes = r->bytes;
    return 1;
}

/* The next block that is not empty: 0 also at the member's end, with block_len 0. */
static int next_block(struct tar_reading *r, struct azoth_error *err)
{
    la_int64_t offset = 0;
    int rc;
    do
        rc = archive_read_data_block(r->a, &r->block, &r->block_len, &offset);
    while (rc == ARCHIVE_OK && r->block_len == 0);
    if (rc == ARCHIVE_EOF) {
        r->block_len = 0;
        return r->at == r->bytes ? 0
                                 : error_set(err, AZOTH_ERR_CORRUPT, "%s ends too early", r->name);
    }
    if (rc != ARCHIVE_OK)
        return reading_failed(r, err);
    if (offset < 0 || (uint64_t)offset != r->at || r->block_len > r->bytes - r->at)
        return error_set(err, AZOTH_ERR_CORRUPT, "%s: no backup has a member with holes", r->name);
    return 0;
}

static int tar_read(void *reading, void *p, size_t cap, size_t *ret_len, struct azoth_error *err)
{
    struct tar_reading *r = reading;
    size_t done = 0;
    while (done < cap) {
        int rc = r->block_len ? 0 : next_block(r, err);
        if (rc)
            return rc;
        if (!r->block_len)
            break;
        size_t n = r->block_len < cap - done ? r->block_len : cap - done;
        memcpy((unsigned char *)p + done, r->block, n);
        r->block = (const unsigned char *)r->block + n;
        r->block_len -= n;
        r->at += n;
        done += n;
    }
    *ret_len = done;
    return 0;
}

static uint64_t tar_bytes(const void *reading)
{
    const struct tar_reading *r = reading;
    return source_bytes(r->source);
}

static int tar_encrypted(const void *reading)
{
    const struct tar_reading *r = reading;
    return source_encrypted(r->source);
}

const struct backup_reading backup_tar_reading = {tar_next, tar_read, tar_bytes, tar_encrypted,
                                                  tar_read_free};
