/*
 * backupfile_manifest.c - the manifest's one text, made while members are written and while they are read.
 *
 * Its form is fixed (no blank, no escape: names have none of the characters that would need one), so that two
 * are compared as bytes. No JSON parser sees what a stranger wrote: jansson takes some forty times the bytes of a
 * text like [[],[],...], which for 64 MiB is more than a machine should give. Directories are read in the order
 * of their manifest: line by line, each made again from what was understood and compared.
 *
 * Names that were taken are kept in a tree of the C library; its strings begin with a byte that tells a member ('m')
 * from a directory above members ('d'), which a directory of files wants to know.
 */
#include "writer/backupfile_parts.h"

#include "core/error.h"

#include <inttypes.h>
#include <search.h>
#include <string.h>

#define VERSION "{\"azoth-backup\":"
#define BEGIN   VERSION "1,\"members\":[\n"
#define BETWEEN ",\n"
#define END     "\n]}\n"

/* ---- names ---- */

static int part_valid(const char *p, size_t len)
{
    return len > 0 && !(p[0] == '.' && (len == 1 || (len == 2 && p[1] == '.')));
}

int backup_path_valid(const char *name)
{
    size_t n = strlen(name), part = 0;
    if (n == 0 || n > BACKUPFILE_NAME_MAX)
        return 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && name[i] != '/') {
            unsigned char c = (unsigned char)name[i];
            if (c < 0x20 || c > 0x7e || c == '"' || c == '\\')
                return 0;
            continue;
        }
        if (!part_valid(name + part, i - part))
            return 0;
        part = i + 1;
    }
    return 1;
}

int backupfile_name_valid(const char *name)
{
    return backup_path_valid(name) && strcmp(name, BACKUP_ABOUT) != 0 &&
           strcmp(name, BACKUP_MANIFEST) != 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((const char *)a + 1, (const char *)b + 1);
}

/* The entry of the first len bytes of name; a new one of this kind when it was not there. NULL: no memory. */
static const char *enter(struct backup_manifest *m, const char *name, size_t len, char kind)
{
    char *s = malloc(len + 2);
    if (!s)
        return NULL;
    s[0] = kind;
    memcpy(s + 1, name, len);
    s[len + 1] = 0;
    char **found = tsearch(s, &m->names, compare_names);
    const char *entry = found ? *found : NULL;
    if (entry != s)
        free(s);
    return entry;
}

int manifest_name(struct backup_manifest *m, const char *name, int tree, struct azoth_error *err)
{
    for (const char *slash = strchr(name, '/'); tree && slash; slash = strchr(slash + 1, '/')) {
        const char *above = enter(m, name, (size_t)(slash - name), 'd');
        if (!above)
            return error_set(err, AZOTH_ERR_NOMEM, "the backup's names");
        if (*above != 'd')
            return error_set(err, AZOTH_ERR_DUPLICATE, "%s: a member has the name of its directory",
                             name);
    }
    size_t len = strlen(name);
    char key[BACKUPFILE_NAME_MAX + 2] = "m";
    ensure(len <= BACKUPFILE_NAME_MAX);
    memcpy(key + 1, name, len + 1);
    if (tfind(key, &m->names, compare_names))
        return error_set(err, AZOTH_ERR_DUPLICATE, "%s: this name was used in the backup", name);
    return enter(m, name, len, 'm') ? 0 : error_set(err, AZOTH_ERR_NOMEM, "the backup's names");
}

void manifest_fini(struct backup_manifest *m)
{
    tdestroy(m->names, free);
    buf_fini(&m->text);
    *m = (struct backup_manifest){0};
}

/* ---- the text ---- */

static int add_line(struct buf *text, const char *name, uint64_t bytes,
                    const unsigned char digest[BACKUPFILE_DIGEST])
{
    char hex[2 * BACKUPFILE_DIGEST + 1];
    sodium_bin2hex(hex, sizeof hex, digest, BACKUPFILE_DIGEST);
    return buf_addf(text, "{\"name\":\"%s\",\"bytes\":%" PRIu64 ",\"blake2b\":\"%s\"}", name, bytes,
                    hex);
}

int manifest_add(struct backup_manifest *m, const char *name, uint64_t bytes,
                 const unsigned char digest[BACKUPFILE_DIGEST], struct azoth_error *err)
{
    /* With room for this line and for a signature. */
    if (m->text.len > BACKUPFILE_JSON_MAX - 1024)
        return error_set(err, AZOTH_ERR_USAGE, "%s: a backup with so many members is not made",
                         name);
    if (buf_add_str(&m->text, m->members ? BETWEEN : BEGIN) ||
        add_line(&m->text, name, bytes, digest))
        return error_set(err, AZOTH_ERR_NOMEM, "the backup's manifest");
    m->members++;
    return 0;
}

/* The same with the signature in its last line. */
static int signed_text(const struct buf *text, const struct sign_key *k, struct buf *ret,
                       struct azoth_error *err)
{
    unsigned char signature[crypto_sign_BYTES];
    char sig_hex[2 * sizeof signature + 1], public_hex[2 * sizeof k->public + 1];
    int rc = sign_bytes(k, buf_bytes(text), signature, err);
    if (rc)
        return rc;
    sodium_bin2hex(sig_hex, sizeof sig_hex, signature, sizeof signature);
    sodium_bin2hex(public_hex, sizeof public_hex, k->public, sizeof k->public);
    ensure(text->len > strlen(END));
    if (buf_add(ret, text->ptr, text->len - strlen(END)) ||
        buf_addf(ret, "\n],\"public\":\"%s\",\"signature\":\"%s\"}\n", public_hex, sig_hex))
        return error_set(err, AZOTH_ERR_NOMEM, "the backup's manifest");
    return 0;
}

int manifest_end(struct backup_manifest *m, const struct sign_key *k, struct buf *ret_text,
                 unsigned char digest[BACKUPFILE_DIGEST], struct azoth_error *err)
{
    if (buf_add_str(&m->text, END))
        return error_set(err, AZOTH_ERR_NOMEM, "the backup's manifest");
    hash_once(digest, m->text.ptr, m->text.len);
    if (!ret_text)
        return 0;
    if (k)
        return signed_text(&m->text, k, ret_text, err);
    return buf_add(ret_text, m->text.ptr, m->text.len)
               ? error_set(err, AZOTH_ERR_NOMEM, "the backup's manifest")
               : 0;
}

/* ---- comparing ---- */

/* n hexadecimal digits and then `end` at *at, which goes behind them: where they are, or NULL. */
static const char *hex_at(struct azoth_bytes text, size_t *at, size_t n, const char *end)
{
    const char *p = (const char *)text.ptr + *at;
    if (text.len - *at < n + strlen(end) || memcmp(p + n, end, strlen(end)) != 0)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!memchr("0123456789abcdef", p[i], 16))
            return NULL;
    *at += n + strlen(end);
    return p;
}

/* What stands where the unsigned text has its end: that, or a signature. */
static int read_end(struct azoth_bytes text, size_t at, struct manifest_signature *ret)
{
    static const char public[] = "\n],\"public\":\"", signature[] = "\",\"signature\":\"";
    const char *p = (const char *)text.ptr + at;
    struct manifest_signature s = {0};
    if (text.len - at == strlen(END) && memcmp(p, END, strlen(END)) == 0) {
        *ret = s;
        return 1;
    }
    if (text.len - at < strlen(public) || memcmp(p, public, strlen(public)) != 0)
        return 0;
    at += strlen(public);
    if (!(s.public = hex_at(text, &at, 64, signature)) ||
        !(s.signature = hex_at(text, &at, 128, "\"}\n")) || at != text.len)
        return 0;
    *ret = s;
    return 1;
}

/* The name in the line that has byte `at` of the text; "" when there is none. */
static void name_at(const struct buf *text, size_t at, char out[BACKUPFILE_NAME_MAX + 1])
{
    static const char before[] = "{\"name\":\"";
    const char *p = (const char *)text->ptr;
    size_t from = at, n = 0;
    while (from > 0 && p[from - 1] != '\n')
        from--;
    out[0] = 0;
    if (text->len - from < strlen(before) || memcmp(p + from, before, strlen(before)) != 0)
        return;
    from += strlen(before);
    while (from + n < text->len && p[from + n] != '"' && n < BACKUPFILE_NAME_MAX)
        n++;
    memcpy(out, p + from, n);
    out[n] = 0;
}

/* What is no manifest of ours: FORMAT when it begins as one with another number. */
static int no_manifest(struct azoth_bytes text, struct azoth_error *err)
{
    const char *p = text.ptr;
    size_t n = strlen(VERSION);
    if (text.len > n && memcmp(p, VERSION, n) == 0 && p[n] >= '2' && p[n] <= '9')
        return error_set(err, AZOTH_ERR_FORMAT, "the backup's manifest is of another version");
    return error_set(err, AZOTH_ERR_CORRUPT, "the backup's manifest is none");
}

int manifest_agrees(const struct backup_manifest *m, struct azoth_bytes text,
                    struct manifest_signature *ret, struct azoth_error *err)
{
    char name[BACKUPFILE_NAME_MAX + 1];
    const char *p = text.ptr;
    size_t common = 0, body = m->text.len - strlen(END);
    while (common < text.len && common < body && p[common] == (char)m->text.ptr[common])
        common++;
    if (common == body && read_end(text, body, ret))
        return 0;
    name_at(&m->text, common, name);
    if (common < strlen(BEGIN))
        return no_manifest(text, err);
    if (!name[0] || common == body)
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "the manifest ends otherwise than the backup's members");
    return error_set(err, AZOTH_ERR_CORRUPT, "%s is not what the manifest says", name);
}

/* The number at p, of at most `most` bytes: how many digits it has, 0 for none or too great a one. */
static size_t number_at(const char *p, size_t most, uint64_t *ret)
{
    uint64_t n = 0;
    size_t i = 0;
    while (i < most && p[i] >= '0' && p[i] <= '9' && n <= BACKUPFILE_MEMBER_MAX)
        n = 10 * n + (uint64_t)(p[i++] - '0');
    *ret = n;
    return n > BACKUPFILE_MEMBER_MAX ? 0 : i;
}

/* As manifest_read(), from the name on; the length of the line without what separates it from the next, or 0. */
static size_t read_line(const char *p, size_t len, struct manifest_line *ret)
{
    static const char before[] = "{\"name\":\"",
                      middle[] = "\",\"bytes\":", behind[] = ",\"blake2b\":\"";
    size_t at = strlen(before);
    if (len < at || memcmp(p, before, at) != 0)
        return 0;
    const char *quote = memchr(p + at, '"', len - at);
    size_t n = quote ? (size_t)(quote - p) - at : 0;
    if (!quote || n > BACKUPFILE_NAME_MAX)
        return 0;
    memcpy(ret->name, p + at, n);
    ret->name[n] = 0;
    at += n;
    if (strlen(ret->name) != n || !backup_path_valid(ret->name) || len - at < strlen(middle) ||
        memcmp(p + at, middle, strlen(middle)) != 0)
        return 0;
    at += strlen(middle);
    n = number_at(p + at, len - at, &ret->bytes);
    at += n;
    if (n == 0 || len - at < strlen(behind) || memcmp(p + at, behind, strlen(behind)) != 0)
        return 0;
    at += strlen(behind);
    return hex_at(bytes_of(p, len), &at, 2 * BACKUPFILE_DIGEST, "\"}") ? at : 0;
}

int manifest_read(struct azoth_bytes text, size_t *at, struct manifest_line *ret,
                  struct azoth_error *err)
{
    const char *p = text.ptr;
    struct manifest_signature unused;
    size_t from = *at;
    if (from > 0 && read_end(text, from, &unused))
        return 0;
    const char *between = from ? BETWEEN : BEGIN;
    size_t n = strlen(between);
    if (text.len - from >= n && memcmp(p + from, between, n) == 0) {
        size_t line = read_line(p + from + n, text.len - from - n, ret);
        if (line) {
            *at = from + n + line;
            return 1;
        }
    }
    if (from == 0 && (text.len < n || memcmp(p, between, n) != 0))
        return no_manifest(text, err);
    return error_set(err, AZOTH_ERR_CORRUPT, "the manifest makes no sense behind byte %zu", from);
}
