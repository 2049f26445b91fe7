/*
 * powercut.c - from a log of what was done to files to the files that a power cut may leave.
 *
 * Invariants
 *   C1  an operation that was durable before the cut is in every state made for that cut.
 *   C2  of the others any choice may be there; a write may be there in some of its sectors.
 *   C3  directory operations keep their order: if one is there, all before it are.
 *   C4  a sync makes durable what was noted before it began: of what came while it ran, it says nothing.
 */
#include "tests/fault/powercut.h"

#include "tests/system/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 64

struct image { /* a file's bytes, by its inode */
    uint64_t ino;
    unsigned char *ptr;
    size_t len, cap; /* of the file; of what is in memory: what lies beyond is zeros */
};
struct entry { /* a name */
    char name[200], target[200];
    uint64_t ino; /* 0: a symbolic link */
};
struct disk {
    struct image file[FILES];
    struct entry entry[FILES];
    size_t files, entries;
};

/* ---- the log ---- */

static int names(const struct cut_op *o, const char *name)
{
    return o->r.path == strlen(name) && memcmp(o->path, name, o->r.path) == 0;
}

static int is_entry(const struct cut_op *o)
{
    return o->r.kind == CUT_CREATE || o->r.kind == CUT_RENAME || o->r.kind == CUT_SYMLINK ||
           o->r.kind == CUT_UNLINK;
}

/* The inode of the directory that the entry lies in, as far as the log has seen it opened. */
static uint64_t parent(const struct cut_log *l, const struct cut_op *o)
{
    size_t n = o->r.path;
    while (n > 0 && o->path[n - 1] != '/')
        n--;
    n = n ? n - 1 : 0;
    for (size_t i = 0; i < l->ops; i++)
        if (l->op[i].r.kind == CUT_DIRECTORY && l->op[i].r.path == n &&
            memcmp(l->op[i].path, o->path, n) == 0)
            return l->op[i].r.ino;
    return 0;
}

/* Where the sync began that ended at `end`; 0: the log does not say, and it is worth nothing. */
static size_t began(const struct cut_log *l, size_t end)
{
    for (size_t i = end; i-- > 0;)
        if (l->op[i].r.kind == CUT_SYNC_BEGIN && l->op[i].r.token == l->op[end].r.token)
            return i;
    return 0;
}

/* The first end of a sync of the file, or of the directory that the entry lies in, that began after
 * the operation: where it is durable (C4). */
static size_t durable_from(const struct cut_log *l, size_t i, const size_t *begin)
{
    const struct cut_op *o = &l->op[i];
    uint64_t dir = is_entry(o) ? parent(l, o) : 0;
    for (size_t k = i + 1; k < l->ops; k++) {
        const struct cut_record *s = &l->op[k].r;
        if (s->kind == CUT_SYNC && begin[k] > i &&
            ((s->ino == o->r.ino && o->r.ino) || (dir && s->ino == dir)))
            return k + 1;
        if (s->kind == CUT_SYNC_WRITE && o->r.kind == CUT_WRITE && s->token == o->r.token)
            return k + 1;
    }
    return SIZE_MAX;
}

static int find_durable(struct cut_log *l)
{
    size_t *begin = calloc(l->ops + 1, sizeof *begin);
    if (!begin)
        return -1;
    for (size_t i = 0; i < l->ops; i++)
        begin[i] = l->op[i].r.kind == CUT_SYNC ? began(l, i) : 0;
    for (size_t i = 0; i < l->ops; i++) {
        struct cut_op *o = &l->op[i];
        int lasts = o->r.kind == CUT_WRITE || o->r.kind == CUT_SIZE || is_entry(o);
        o->durable = lasts ? durable_from(l, i, begin) : SIZE_MAX;
    }
    free(begin);
    size_t later = SIZE_MAX; /* C3 */
    for (size_t i = l->ops; i-- > 0;) {
        if (!is_entry(&l->op[i]))
            continue;
        if (l->op[i].durable < later)
            later = l->op[i].durable;
        l->op[i].durable = later;
    }
    return 0;
}

/* The file's creation: under its name, or under one that became it. */
static int creates(const struct cut_log *l, const struct cut_op *o, const char *name)
{
    if (o->r.kind != CUT_CREATE)
        return 0;
    for (const struct cut_op *m = o; m < l->op + l->ops; m++)
        if (m->r.kind == CUT_RENAME && m->r.other == strlen(name) &&
            memcmp(m->other, name, m->r.other) == 0 && m->r.path == o->r.path &&
            memcmp(m->path, o->path, o->r.path) == 0)
            return 1;
    return names(o, name);
}

/* Turns the n-th sync of the file (or all) into nothing. */
static void ignore_sync(struct cut_log *l, const char *name, size_t n)
{
    uint64_t ino = 0;
    size_t seen = 0;
    for (size_t i = 0; i < l->ops && n; i++) {
        if (creates(l, &l->op[i], name))
            ino = l->op[i].r.ino;
        if (!ino || l->op[i].r.ino != ino || l->op[i].r.kind != CUT_SYNC)
            continue;
        if (++seen == n || n == SIZE_MAX) {
            l->op[i].r.kind = CUT_DIRECTORY; /* opened, and no more */
            l->op[i].r.ino = 0;
            l->ignored = i;
        }
    }
}

int cut_log_read(struct cut_log *l, const char *path, const char *name, size_t ignore)
{
    struct stat st;
    memset(l, 0, sizeof *l);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        return perror(path), -1;
    size_t size = (size_t)st.st_size, at = 0;
    l->bytes = malloc(size + 1);
    l->op = malloc((size / sizeof(struct cut_record) + 1) * sizeof *l->op);
    for (ssize_t n; l->bytes && at < size && (n = read(fd, l->bytes + at, size - at)) > 0;)
        at += (size_t)n;
    close(fd);
    if (!l->bytes || !l->op || at != size)
        return fprintf(stderr, "%s: cannot be read\n", path), -1;
    for (at = 0; at + sizeof(struct cut_record) <= size;) {
        struct cut_op *o = &l->op[l->ops++];
        memcpy(&o->r, l->bytes + at, sizeof o->r);
        at += sizeof o->r;
        o->path = (const char *)l->bytes + at;
        o->other = o->path + o->r.path;
        o->data = (const unsigned char *)o->other + o->r.other;
        at += o->r.path + o->r.other + o->r.data;
        if (o->r.magic != CUT_MAGIC || at > size)
            return fprintf(stderr, "%s: record %zu is damaged\n", path, l->ops), -1;
    }
    ignore_sync(l, name, ignore);
    return find_durable(l);
}

void cut_log_free(struct cut_log *l)
{
    free(l->bytes);
    free(l->op);
}

/* ---- a state ---- */

static struct image *image_of(struct disk *d, uint64_t ino)
{
    for (size_t i = 0; i < d->files; i++)
        if (d->file[i].ino == ino)
            return &d->file[i];
    if (d->files == FILES)
        abort();
    d->file[d->files].ino = ino;
    return &d->file[d->files++];
}

/* What was allocated and never written to takes no memory. */
static void resize(struct image *f, size_t len)
{
    if (len < f->len && len < f->cap)
        memset(f->ptr + len, 0, (f->len < f->cap ? f->len : f->cap) - len);
    f->len = len;
}

static void put_bytes(struct image *f, size_t at, const unsigned char *p, size_t n)
{
    if (at + n > f->cap) {
        size_t cap = (at + n) * 2;
        f->ptr = realloc(f->ptr, cap);
        if (!f->ptr)
            abort();
        memset(f->ptr + f->cap, 0, cap - f->cap);
        f->cap = cap;
    }
    if (f->len < at + n)
        f->len = at + n;
    memcpy(f->ptr + at, p, n);
}

static void put(struct image *f, const struct cut_op *o, int torn, uint64_t *seed)
{
    for (size_t from = 0; from < o->r.data;) {
        size_t at = o->r.at + from, n = CUT_SECTOR - at % CUT_SECTOR;
        if (n > o->r.data - from)
            n = o->r.data - from;
        if (!torn || random_next(seed) % 2)
            put_bytes(f, at, o->data + from, n);
        from += n;
    }
}

static struct entry *entry_of(struct disk *d, const char *name, size_t len, int make)
{
    for (size_t i = 0; i < d->entries; i++)
        if (strlen(d->entry[i].name) == len && memcmp(d->entry[i].name, name, len) == 0)
            return &d->entry[i];
    if (!make)
        return NULL;
    if (d->entries == FILES || len >= sizeof d->entry->name)
        abort();
    struct entry *e = &d->entry[d->entries++];
    memset(e, 0, sizeof *e);
    memcpy(e->name, name, len);
    return e;
}

static void enter(struct disk *d, const struct cut_op *o)
{
    struct entry *e = entry_of(d, o->path, o->r.path, o->r.kind != CUT_UNLINK);
    switch (o->r.kind) {
    case CUT_CREATE:
        e->ino = o->r.ino;
        resize(image_of(d, o->r.ino), 0); /* the number may have been another file's */
        break;
    case CUT_SYMLINK:
        e->ino = 0;
        snprintf(e->target, sizeof e->target, "%.*s", (int)o->r.other, o->other);
        break;
    case CUT_RENAME: {
        struct entry moved = *e, *to = entry_of(d, o->other, o->r.other, 1);
        to->ino = moved.ino;
        memcpy(to->target, moved.target, sizeof to->target);
        e = entry_of(d, o->path, o->r.path, 0);
        *e = d->entry[--d->entries];
        break;
    }
    default:
        if (e)
            *e = d->entry[--d->entries];
    }
}

static int stays(const struct cut_op *o, enum cut_policy policy, int newest, uint64_t *seed)
{
    switch (policy) {
    case CUT_ALL:
        return 1;
    case CUT_SUBSET:
    case CUT_TORN:
        return random_next(seed) % 2 != 0;
    case CUT_LAST:
        return newest;
    default:
        return (void)o, 0;
    }
}

static int put_out(struct disk *d, const char *dir)
{
    for (size_t i = 0; i < d->entries; i++) {
        const struct entry *e = &d->entry[i];
        char path[700];
        if (cut_worthless(e->name))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->name);
        if (!e->ino) {
            if (symlink(e->target, path))
                return perror(path), -1;
            continue;
        }
        const struct image *f = image_of(d, e->ino);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        size_t held = f->len < f->cap ? f->len : f->cap;
        if (fd < 0 || write(fd, f->ptr ? f->ptr : (const void *)"", held) != (ssize_t)held ||
            ftruncate(fd, (off_t)f->len))
            return perror(path), -1;
        close(fd);
    }
    return 0;
}

int cut_make(const struct cut_log *l, size_t cut, enum cut_policy policy, uint64_t *seed,
             const char *dir)
{
    struct disk *d = calloc(1, sizeof *d);
    if (!d)
        return -1;
    size_t newest = SIZE_MAX, pending = 0;
    for (size_t i = 0; i < cut; i++) {
        if (l->op[i].r.kind == CUT_WRITE && l->op[i].durable > cut)
            newest = i;
        pending += is_entry(&l->op[i]) && l->op[i].durable > cut;
    }
    size_t entries = policy == CUT_ALL    ? pending
                     : policy == CUT_NONE ? 0
                                          : random_next(seed) % (pending + 1);
    for (size_t i = 0; i < cut; i++) {
        const struct cut_op *o = &l->op[i];
        int durable = o->durable <= cut; /* C1 */
        if (is_entry(o)) {
            if (durable || (entries && entries--))
                enter(d, o);
        } else if (o->r.kind == CUT_SIZE) {
            if (durable || stays(o, policy, 0, seed))
                resize(image_of(d, o->r.ino), o->r.at);
        } else if (o->r.kind == CUT_WRITE) {
            if (durable || stays(o, policy, i == newest, seed))
                put(image_of(d, o->r.ino), o, !durable && policy == CUT_TORN, seed);
        }
    }
    int rc = put_out(d, dir);
    for (size_t i = 0; i < d->files; i++)
        free(d->file[i].ptr);
    free(d);
    return rc;
}
