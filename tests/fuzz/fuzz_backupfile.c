/*
 * fuzz_backupfile.c - any bytes as a backup: it is read to an end that is believed, or refused with a code for what it
 * is, and never costs more memory than its layers have.
 *
 * The first byte says what the rest is: 0, the file as it is; 1, a file whose trailer is made for it, so that what is
 * behind the trailer's check is reached; 2, the tar stream of a file that is encrypted here with a key that is known; 3, a
 * manifest, read as that of a directory.
 */
#include "core/error.h"
#include "writer/backupfile_parts.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct backup_key key = {.secret = "0123456789abcdef0123456789abcde",
                                      .secret_len = 32};

static void check_code(int rc, const struct azoth_error *err)
{
    ensure(rc == AZOTH_ERR_WRONG_KEY || rc == AZOTH_ERR_FORMAT || rc == AZOTH_ERR_CORRUPT ||
           rc == AZOTH_ERR_TRUNCATED);
    ensure(err->code == rc && err->message[0]);
}

/* At most so many bytes of content: a short input may stand for a terabyte of zeros. */
#define CONTENT_MAX (8u << 20)

static void read_all(struct backupfile_in *b)
{
    static unsigned char content[65536];
    struct azoth_error err = {0};
    unsigned char digest[BACKUPFILE_DIGEST];
    const char *name;
    uint64_t bytes, all = 0;
    size_t n = 0;
    int rc;
    while ((rc = backupfile_next(b, &name, &bytes, &err)) == 1) {
        ensure(backupfile_name_valid(name) && bytes <= BACKUPFILE_MEMBER_MAX);
        uint64_t seen = 0;
        while ((rc = backupfile_read(b, content, sizeof content, &n, &err)) == 0 && n) {
            seen += n;
            all += n;
            ensure(seen <= bytes);
            if (all > CONTENT_MAX)
                return;
        }
        if (rc)
            break;
        ensure(seen == bytes);
    }
    if (rc == 0)
        backupfile_digest(b, digest);
    else
        check_code(rc, &err);
    /* What failed once does not come back. */
    ensure(backupfile_next(b, &name, &bytes, &err) == rc);
}

static void read_fd(int fd)
{
    struct backupfile_in *b;
    struct azoth_error err = {0};
    int rc = backupfile_open_fd(fd, &key, &b, &err);
    if (rc) {
        check_code(rc, &err);
        return;
    }
    ensure(backupfile_about(b).len <= BACKUPFILE_ABOUT_MAX);
    read_all(b);
    backupfile_close(b);
}

static void read_file(const uint8_t *data, size_t size, int form)
{
    struct backup_sink *sink;
    struct azoth_error err;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    ensure(fd >= 0);
    if (form == 0) {
        ensure(backup_write_all(fd, data, size, &err) == 0);
    } else {
        ensure(sink_open(fd, form == 2 ? &key : NULL, &sink, &err) == 0);
        ensure(sink_write(sink, data, size, &err) == 0);
        ensure(sink_end(sink, &err) == 0);
        sink_free(sink);
    }
    ensure(lseek(fd, 0, SEEK_SET) == 0);
    read_fd(fd);
    close(fd);
}

/* Lines lead forward and name what a member may be called, whatever the text is. */
static void read_manifest(struct azoth_bytes text)
{
    struct backup_manifest m = {0};
    struct manifest_line line;
    struct manifest_signature s;
    struct azoth_error err = {0};
    unsigned char digest[BACKUPFILE_DIGEST] = {0};
    size_t at = 0, before = 0;
    int rc;
    while ((rc = manifest_read(text, &at, &line, &err)) == 1) {
        ensure(at > before && at <= text.len);
        ensure(backup_path_valid(line.name) && line.bytes <= BACKUPFILE_MEMBER_MAX);
        before = at;
        if (manifest_name(&m, line.name, 1, &err) == 0)
            ensure(manifest_add(&m, line.name, line.bytes, digest, &err) == 0);
    }
    if (rc)
        check_code(rc, &err);
    if (m.members && manifest_end(&m, NULL, NULL, digest, &err) == 0) {
        rc = manifest_agrees(&m, text, &s, &err);
        if (rc)
            check_code(rc, &err);
    }
    manifest_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 4 == 3)
        read_manifest(bytes_of(data + 1, size - 1));
    else
        read_file(data + 1, size - 1, data[0] % 4);
    return 0;
}
