/*
 * archived.c - records of segments, and a small cache of open files and unpacked blocks.
 *
 * Whoever follows the log in small looks (the feed) meets the same block several times: it is unpacked once.
 * Blocks that are held are never evicted; the cache is then larger than its limit until they are given back.
 */
#include "core/archived.h"

#include "core/error.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <xxhash.h>

#define FILES_MAX  8u
#define BLOCKS_MAX 8u

#define STATE_MAGIC 0x31415a41u /* "AZA1" */
#define ENTRY_MAGIC 0x32415a41u /* "AZA2" */

/* ---- records ---- */

void archived_state_encode(unsigned char out[ARCHIVE_STATE], const struct archived_state *s)
{
    put_u32(out, STATE_MAGIC);
    put_u32(out + 4, 0);
    put_u64(out + 8, s->first_in_store);
    put_u64(out + 16, s->last_archived);
    put_u64(out + 24, XXH3_64bits(out, 24));
}

int archived_state_decode(struct azoth_bytes rec, struct archived_state *ret)
{
    const unsigned char *p = rec.ptr;
    if (rec.len != ARCHIVE_STATE || get_u32(p) != STATE_MAGIC ||
        get_u64(p + 24) != XXH3_64bits(p, 24))
        return AZOTH_ERR_CORRUPT;
    uint64_t first = get_u64(p + 8), last = get_u64(p + 16);
    if (first == 0 || first - 1 > last)
        return AZOTH_ERR_CORRUPT;
    *ret = (struct archived_state){first, last};
    return 0;
}

void archived_key(unsigned char out[ARCHIVE_KEY], uint64_t last)
{
    memcpy(out, ARCHIVE_KEY_PREFIX, 8);
    put_be64(out + 8, last);
}

int archived_entry_encode(struct buf *out, const struct archived_entry *e)
{
    const struct archive_about *a = &e->about;
    size_t n = strlen(e->path), at = out->len;
    if (n == 0 || n > ARCHIVE_PATH_MAX)
        return AZOTH_ERR_USAGE;
    unsigned char *p = buf_grow(out, ARCHIVE_ENTRY + n + 8);
    if (!p)
        return AZOTH_ERR_NOMEM;
    memset(p, 0, ARCHIVE_ENTRY);
    put_u32(p, ENTRY_MAGIC);
    put_u32(p + 4, a->chained);
    archivefile_range_encode(p + 8, a);
    put_u64(p + 56, a->bytes);
    put_u64(p + 64, a->log_bytes);
    memcpy(p + 72, a->uuid, 16);
    memcpy(p + 88, a->digest, ARCHIVE_DIGEST);
    archivefile_chains_encode(p + 120, a);
    memcpy(p + ARCHIVE_ENTRY, e->path, n);
    p = out->ptr + at;
    put_u64(p + ARCHIVE_ENTRY + n, XXH3_64bits(p, ARCHIVE_ENTRY + n));
    return 0;
}

int archived_entry_decode(struct azoth_bytes rec, struct archived_entry *ret)
{
    const unsigned char *p = rec.ptr;
    if (rec.len <= ARCHIVE_ENTRY + 8 || rec.len > ARCHIVE_ENTRY_MAX || get_u32(p) != ENTRY_MAGIC)
        return AZOTH_ERR_CORRUPT;
    size_t n = rec.len - ARCHIVE_ENTRY - 8;
    if (get_u64(p + ARCHIVE_ENTRY + n) != XXH3_64bits(p, ARCHIVE_ENTRY + n) ||
        memchr(p + ARCHIVE_ENTRY, 0, n))
        return AZOTH_ERR_CORRUPT;
    struct archive_about *a = &ret->about;
    a->chained = get_u32(p + 4);
    archivefile_range_decode(p + 8, a);
    a->bytes = get_u64(p + 56);
    a->log_bytes = get_u64(p + 64);
    memcpy(a->uuid, p + 72, 16);
    memcpy(a->digest, p + 88, ARCHIVE_DIGEST);
    archivefile_chains_decode(p + 120, a);
    memcpy(ret->path, p + ARCHIVE_ENTRY, n);
    ret->path[n] = 0;
    return a->first && a->first <= a->last ? 0 : AZOTH_ERR_CORRUPT;
}

int archived_path(char *out, size_t size, const char *dir, const char *recorded)
{
    int n = recorded[0] == '/' ? snprintf(out, size, "%s", recorded)
                               : snprintf(out, size, "%s/%s", dir, recorded);
    return n < 0 || (size_t)n >= size ? AZOTH_ERR_USAGE : 0;
}

const char *archived_path_recorded(const char *dir, const char *absolute)
{
    size_t n = strlen(dir);
    return strncmp(absolute, dir, n) == 0 && absolute[n] == '/' ? absolute + n + 1 : absolute;
}

/* ---- the cache ---- */

/* A segment that is open. Its file does not change: what is read of it once is good for ever. */
struct open_segment {
    struct archivefile *file;
    uint8_t digest[ARCHIVE_DIGEST];
    uint64_t used;
    uint32_t users;
};

struct archived_block {
    uint8_t digest[ARCHIVE_DIGEST]; /* of its segment */
    uint32_t number;
    uint32_t users;
    uint64_t used;
    int kept; /* in the cache */
    struct buf frames;
};

struct archived_cache {
    char dir[PATH_MAX];
    pthread_mutex_t lock;
    uint64_t clock;
    struct open_segment segment[FILES_MAX];
    struct archived_block *block[BLOCKS_MAX];
};

struct archived_cache *archived_cache_make(const char *dir)
{
    struct archived_cache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    snprintf(c->dir, sizeof c->dir, "%s", dir);
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

static void block_free(struct archived_block *b)
{
    if (!b)
        return;
    buf_fini(&b->frames);
    free(b);
}

void archived_cache_free(struct archived_cache *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < BLOCKS_MAX; i++)
        block_free(c->block[i]);
    for (uint32_t i = 0; i < FILES_MAX; i++)
        archivefile_close(c->segment[i].file);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

int archived_cache_open(const struct archived_cache *c, const struct archived_entry *e,
                        struct archivefile **ret, struct azoth_error *err)
{
    char path[PATH_MAX + ARCHIVE_PATH_MAX];
    if (archived_path(path, sizeof path, c->dir, e->path))
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", e->path);
    int rc = archivefile_open(path, ret, err);
    if (rc)
        return rc;
    const struct archive_about *a = archivefile_about(*ret);
    if (memcmp(a->digest, e->about.digest, ARCHIVE_DIGEST) == 0 && a->first == e->about.first &&
        a->last == e->about.last)
        return 0;
    archivefile_close(*ret);
    return error_set(err, AZOTH_ERR_CORRUPT,
                     "%s is not the segment that was recorded: its digest is another", path);
}

/* Under the lock: the open segment, and one more user of it; opened if need be. *ret_own: not in the table, since
 * all places of it are in use: the caller closes it. */
static int segment_get(struct archived_cache *c, const struct archived_entry *e,
                       struct open_segment **ret, struct archivefile **ret_own,
                       struct azoth_error *err)
{
    struct open_segment *oldest = NULL;
    *ret = NULL;
    *ret_own = NULL;
    for (uint32_t i = 0; i < FILES_MAX; i++) {
        struct open_segment *s = &c->segment[i];
        if (s->file && memcmp(s->digest, e->about.digest, ARCHIVE_DIGEST) == 0) {
            s->used = ++c->clock;
            s->users++;
            *ret = s;
            return 0;
        }
        if (s->users == 0 && (!oldest || s->used < oldest->used))
            oldest = s;
    }
    struct archivefile *f = NULL;
    int rc = archived_cache_open(c, e, &f, err);
    if (rc)
        return rc;
    if (!oldest) {
        *ret_own = f;
        return 0;
    }
    archivefile_close(oldest->file);
    *oldest = (struct open_segment){.file = f, .used = ++c->clock, .users = 1};
    memcpy(oldest->digest, e->about.digest, ARCHIVE_DIGEST);
    *ret = oldest;
    return 0;
}

/* Under the lock. */
static struct archived_block *block_find(struct archived_cache *c, const uint8_t *digest,
                                         uint32_t number)
{
    for (uint32_t i = 0; i < BLOCKS_MAX; i++) {
        struct archived_block *b = c->block[i];
        if (b && b->number == number && memcmp(b->digest, digest, ARCHIVE_DIGEST) == 0) {
            b->used = ++c->clock;
            b->users++;
            return b;
        }
    }
    return NULL;
}

/* Under the lock: in the place of the one that was used longest ago, if there is one that nobody holds. */
static void block_keep(struct archived_cache *c, struct archived_block *b)
{
    struct archived_block **place = NULL;
    for (uint32_t i = 0; i < BLOCKS_MAX; i++) {
        struct archived_block **at = &c->block[i];
        if (!*at) {
            place = at;
            break;
        }
        if ((*at)->users == 0 && (!place || (*at)->used < (*place)->used))
            place = at;
    }
    if (!place)
        return;
    block_free(*place);
    *place = b;
    b->kept = 1;
    b->used = ++c->clock;
}

static int block_load(const struct archivefile *f, uint32_t number, const uint8_t *digest,
                      struct archived_block **ret, struct azoth_error *err)
{
    struct archived_block *b = calloc(1, sizeof *b);
    if (!b)
        return error_set(err, AZOTH_ERR_NOMEM, "a segment's block");
    memcpy(b->digest, digest, ARCHIVE_DIGEST);
    b->number = number;
    b->users = 1;
    int rc = archivefile_read(f, number, &b->frames, err);
    if (rc)
        block_free(b);
    else
        *ret = b;
    return rc;
}

int archived_cache_block(struct archived_cache *c, const struct archived_entry *e, uint64_t id,
                         struct archived_block **ret, struct azoth_error *err)
{
    struct open_segment *s;
    struct archivefile *own;
    struct archived_block *b = NULL;
    ensure(id >= e->about.first && id <= e->about.last);
    pthread_mutex_lock(&c->lock);
    int rc = segment_get(c, e, &s, &own, err);
    const struct archivefile *f = rc ? NULL : s ? s->file : own;
    uint32_t number = f ? archivefile_block_of(f, id) : 0;
    if (f)
        b = block_find(c, e->about.digest, number);
    pthread_mutex_unlock(&c->lock);
    if (rc)
        return rc;
    /* Beside the lock: others go on with what they have. Two may unpack the same one, once in a while. */
    int fresh = b == NULL;
    if (fresh)
        rc = block_load(f, number, e->about.digest, &b, err);
    pthread_mutex_lock(&c->lock);
    if (s)
        s->users--;
    if (!rc && fresh)
        block_keep(c, b);
    pthread_mutex_unlock(&c->lock);
    archivefile_close(own);
    if (!rc)
        *ret = b;
    return rc;
}

uint64_t archived_cache_behind(struct archived_cache *c, const struct archived_entry *e,
                               uint64_t id)
{
    struct archivefile *f;
    uint64_t behind = e->about.last + 1;
    ensure(id >= e->about.first && id <= e->about.last);
    if (archived_cache_open(c, e, &f, NULL))
        return behind;
    uint32_t next = archivefile_block_of(f, id) + 1;
    if (next < archivefile_blocks(f))
        behind = archivefile_block_first(f, next);
    archivefile_close(f);
    return behind;
}

void archived_block_release(struct archived_cache *c, struct archived_block *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&c->lock);
    int drop = --b->users == 0 && !b->kept;
    pthread_mutex_unlock(&c->lock);
    if (drop)
        block_free(b);
}

struct azoth_bytes archived_block_frames(const struct archived_block *b)
{
    return buf_bytes(&b->frames);
}
