/*
 * pagecheck.c - the pages of LMDB's trees, as LMDB 0.9.24 writes them on a 64-bit machine (its mdb.c, MDB_page, MDB_node,
 * MDB_db, MDB_meta).
 *
 *   two meta pages   each tells of one commit: its number, the last page, the roots of two trees
 *   tree of names    a leaf entry for each database: the root of its tree, and the counts that LMDB keeps of it
 *   list of free     a tree, too: entries are lists of page numbers, by the commit that freed them
 *   branch page      entries with a page number each
 *   leaf page        entries with a key and a value, or with the number of the first of the value's own pages
 *
 * Each page begins with its number and its kind; behind these stand the places of its entries, which lie at its end.
 *
 * Invariants
 *   Y1  nothing that was read is used as a place or a length before it was compared with the page or the file.
 *   Y2  a page is read for one tree once, and a leaf only at the tree's depth: so the walk ends, and so does LMDB's.
 *   Y3  the trees come first and the lists of free pages last: a page that is in a tree twice is found as fatal, one that
 *       is in a tree and free as a finding that nobody who reads has to fear.
 */
#include "core/pagecheck.h"

#include "core/io.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_PAGES 2u
#define META_MAGIC 0xBEEFC0DEu
#define META_BYTES 136u
#define PAGE_HEAD  16u /* number, pad, kind, and where entries begin; then the places of entries */
#define NODE_HEAD  8u  /* of an entry: three shorts and the key's length */
#define TREE_BYTES 48u
#define DEPTH_MAX  32u /* LMDB's own */
#define NAMES_MAX  32u
#define KEY_MAX    511u
#define NO_PAGE    UINT64_MAX
#define STEPS      1024u /* pages between two looks at progress */

enum page_kind { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_KINDS = 0x6f };
enum node_flag { NODE_BIG = 1, NODE_TREE = 2, NODE_DUPLICATES = 4 };

struct tree {
    char name[32];
    uint32_t pad; /* LMDB's own */
    uint16_t flags, depth;
    uint64_t branch, leaf, overflow, entries; /* counts: pages, and entries of leaves */
    uint64_t root;
};

struct meta {
    uint64_t page_size, last_page, txn;
    struct tree free, names;
};
_Static_assert(sizeof(struct meta) == 3 * 8 + 2 * (32 + TREE_BYTES), "it is compared as bytes");

struct walk {
    int fd;
    const struct pagecheck_tell *tell;
    struct pagecheck_sum *sum;
    size_t size;        /* of a page */
    uint64_t pages;     /* that the commit says there are */
    uint64_t bytes;     /* of the file */
    unsigned char *met; /* a bit for each page */
    unsigned char *level[DEPTH_MAX];
    unsigned char *filled; /* a byte for each of a page's: it belongs to an entry */
    uint64_t counted, seen;
    const struct tree *tree; /* that is walked */
    struct tree found;       /* its counts, as they were met */
    int fatal;               /* in this tree */
    int lists;               /* it is the one of free pages */
    struct tree name[NAMES_MAX];
    uint32_t names;
};

static uint16_t u16_at(const unsigned char *p)
{
    uint16_t n;
    memcpy(&n, p, sizeof n);
    return n;
}

static uint32_t u32_at(const unsigned char *p)
{
    uint32_t n;
    memcpy(&n, p, sizeof n);
    return n;
}

static uint64_t u64_at(const unsigned char *p)
{
    uint64_t n;
    memcpy(&n, p, sizeof n);
    return n;
}

__attribute__((format(printf, 3, 4))) static void found(struct walk *w, int fatal, const char *fmt,
                                                        ...)
{
    char text[300];
    va_list ap;
    int n = snprintf(text, sizeof text, "%s: ", w->tree->name);
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    w->fatal |= fatal;
    w->tell->found(w->tell->arg, fatal && !w->lists, text); /* who reads has no use for the lists */
}

/* ---- pages ---- */

/* Notes n pages. 0 when one is not of the file, or was noted before: that is told. */
static int note(struct walk *w, int fatal, uint64_t first, uint64_t n)
{
    if (first < META_PAGES || first >= w->pages || n > w->pages - first) {
        found(w, fatal, "page %llu is beyond the end, which is at %llu",
              (unsigned long long)(first + n - 1), (unsigned long long)w->pages);
        return 0;
    }
    for (uint64_t i = first; i < first + n; i++) {
        unsigned char bit = (unsigned char)(1u << (i % 8));
        if (w->met[i / 8] & bit) {
            found(w, fatal, "page %llu belongs to something else, too", (unsigned long long)i);
            return 0;
        }
        w->met[i / 8] |= bit;
    }
    return 1;
}

static int read_bytes(struct walk *w, uint64_t at, void *out, size_t len, struct azoth_error *err)
{
    size_t n = 0;
    int rc = io_read_at(w->fd, out, len, at, &n, "pages", err);
    if (!rc && n < len)
        rc = error_set(err, AZOTH_ERR_IO, "the file became shorter while it was read");
    return rc;
}

/* The first len bytes of a page of one kind, which is noted with the n - 1 behind it: 1, 0 when it is none (told), or an
 * error. */
static int read_page(struct walk *w, uint64_t page, enum page_kind kind, unsigned char *out,
                     size_t len, struct azoth_error *err)
{
    if (++w->seen % STEPS == 0 && w->tell->progress &&
        w->tell->progress(w->tell->arg, w->seen, w->pages))
        return error_set(err, AZOTH_ERR_BUSY, "the check was interrupted");
    if (!note(w, 1, page, 1))
        return 0;
    if ((page + 1) * w->size > w->bytes) {
        found(w, 1, "page %llu is not there: the file ends before it, at byte %llu",
              (unsigned long long)page, (unsigned long long)w->bytes);
        return 0;
    }
    int rc = read_bytes(w, page * w->size, out, len, err);
    if (rc)
        return rc;
    if (u64_at(out) == page && (u16_at(out + 10) & PAGE_KINDS) == kind) {
        /* A writer would take such a page for its own copy, and write to what is mapped for reading. */
        if (u16_at(out + 10) != kind)
            found(w, 0, "page %llu has a mark of memory", (unsigned long long)page);
        return 1;
    }
    found(w, 1, "page %llu is not the %s page that it should be", (unsigned long long)page,
          kind == PAGE_BRANCH ? "branch"
          : kind == PAGE_LEAF ? "leaf"
                              : "overflow");
    return 0;
}

/* ---- entries ---- */

struct node {
    const unsigned char *key, *data;
    size_t key_len;
    uint64_t data_len; /* of a leaf's */
    uint16_t flags;
    uint64_t child; /* of a branch's */
};

static uint32_t node_count(const unsigned char *page)
{
    return (u16_at(page + 12) - PAGE_HEAD) / 2;
}

/* One entry, inside of the page: 1, or 0 when it is not. */
static int node_at(const struct walk *w, const unsigned char *page, uint32_t i, int leaf,
                   struct node *ret)
{
    uint16_t at = u16_at(page + PAGE_HEAD + (size_t)2 * i), upper = u16_at(page + 14);
    if (at < upper || at + NODE_HEAD > w->size)
        return 0;
    const unsigned char *p = page + at;
    uint32_t low = u32_at(p);
    *ret = (struct node){.key = p + NODE_HEAD, .flags = u16_at(p + 4), .key_len = u16_at(p + 6)};
    if (at + NODE_HEAD + ret->key_len > w->size)
        return 0;
    ret->data = ret->key + ret->key_len;
    ret->data_len = low;
    ret->child = low | (uint64_t)ret->flags << 32;
    uint64_t inside = !leaf ? 0 : ret->flags & NODE_BIG ? sizeof(uint64_t) : ret->data_len;
    return inside <= w->size - at - NODE_HEAD - ret->key_len;
}

/* Places and lengths of all entries: 1, or 0 (told). */
static int check_entries(struct walk *w, uint64_t number, const unsigned char *page, int leaf)
{
    uint16_t lower = u16_at(page + 12), upper = u16_at(page + 14);
    struct node node;
    int good = lower >= PAGE_HEAD && lower % 2 == 0 && lower <= upper && upper <= w->size;
    /* LMDB asserts two children, but not of the list of free pages. */
    good = good && node_count(page) >= (leaf || w->lists ? 1u : 2u);
    for (uint32_t i = 0; good && i < node_count(page); i++)
        good = node_at(w, page, i, leaf, &node);
    if (!good)
        found(w, 1, "page %llu: its entries do not lie within it", (unsigned long long)number);
    return good;
}

/* What LMDB writes: entries beside each other from `upper` to the page's end, at even places, with a key of a length that it
 * takes, and short enough that a page has two. Reading does not mind another, but writing moves bytes by these. */
static int is_packed(struct walk *w, const unsigned char *page, int leaf)
{
    size_t sum = 0, upper = u16_at(page + 14), most = ((w->size - PAGE_HEAD) / 2 & ~(size_t)1) - 2;
    memset(w->filled, 0, w->size);
    for (uint32_t i = 0; i < node_count(page); i++) {
        struct node n;
        size_t at = u16_at(page + PAGE_HEAD + (size_t)2 * i);
        if (at % 2 || !node_at(w, page, i, leaf, &n) || n.key_len > KEY_MAX ||
            (leaf && n.key_len < 1))
            return 0;
        size_t len = NODE_HEAD + n.key_len +
                     (!leaf                ? 0
                      : n.flags & NODE_BIG ? sizeof(uint64_t)
                                           : (size_t)n.data_len);
        if (leaf && len > most)
            return 0;
        len += len % 2;
        if (at + len > w->size || memchr(w->filled + at, 1, len))
            return 0;
        memset(w->filled + at, 1, len);
        sum += len;
    }
    return sum == w->size - upper;
}

/* In the order of their bytes; a branch's first key is never looked at. The lists' are numbers. */
static int is_in_order(const struct walk *w, const unsigned char *page, int leaf)
{
    struct node a, b;
    for (uint32_t i = leaf ? 1 : 2; i < node_count(page) && !w->lists; i++) {
        if (!node_at(w, page, i - 1, leaf, &a) || !node_at(w, page, i, leaf, &b))
            return 0;
        int c = memcmp(a.key, b.key, a.key_len < b.key_len ? a.key_len : b.key_len);
        if (c > 0 || (c == 0 && a.key_len >= b.key_len))
            return 0;
    }
    return 1;
}

/* What LMDB survives when it reads. */
static void check_make(struct walk *w, uint64_t number, const unsigned char *page, int leaf)
{
    if (!is_packed(w, page, leaf))
        found(w, 0, "page %llu: its entries do not lie side by side", (unsigned long long)number);
    else if (!is_in_order(w, page, leaf))
        found(w, 0, "page %llu: its keys are out of order", (unsigned long long)number);
}

static void tree_at(const unsigned char *p, struct tree *ret)
{
    ret->pad = u32_at(p);
    ret->flags = u16_at(p + 4);
    ret->depth = u16_at(p + 6);
    ret->branch = u64_at(p + 8);
    ret->leaf = u64_at(p + 16);
    ret->overflow = u64_at(p + 24);
    ret->entries = u64_at(p + 32);
    ret->root = u64_at(p + 40);
}

/* A database's name and root: it is walked later. */
static void add_name(struct walk *w, const struct node *n)
{
    struct tree *t = &w->name[w->names];
    if (n->flags != NODE_TREE || n->data_len != TREE_BYTES || w->names == NAMES_MAX) {
        found(w, 1, "%.*s is not the name of a database", (int)(n->key_len < 32 ? n->key_len : 32),
              (const char *)n->key);
        return;
    }
    snprintf(t->name, sizeof t->name, "%.*s", (int)(n->key_len < 31 ? n->key_len : 31),
             (const char *)n->key);
    tree_at(n->data, t);
    w->names++;
}

static void add_list(struct walk *w, const unsigned char *list, uint64_t len)
{
    if (len < 8 || u64_at(list) > len / 8 - 1) {
        found(w, 0, "an entry is no list of pages");
        return;
    }
    uint64_t n = u64_at(list);
    for (uint64_t i = 1; i <= n; i++) {
        note(w, 0, u64_at(list + 8 * i), 1);
        w->sum->free_pages++;
    }
}

/* The pages of a long value. */
static int overflow(struct walk *w, const struct node *n, struct azoth_error *err)
{
    unsigned char head[PAGE_HEAD];
    uint64_t first = u64_at(n->data), need = (PAGE_HEAD - 1 + n->data_len) / w->size + 1;
    int rc = read_page(w, first, PAGE_OVERFLOW, head, sizeof head, err);
    if (rc != 1)
        return rc;
    uint64_t has = u32_at(head + 12);
    if (has < need || (first + need) * w->size > w->bytes) {
        found(w, 1, "page %llu: the value that begins there is not all there",
              (unsigned long long)first);
        return 0;
    }
    w->found.overflow += has;
    if ((has > 1 && !note(w, 1, first + 1, has - 1)) || !w->lists)
        return 0;
    unsigned char *list = malloc(n->data_len);
    if (!list)
        return error_set(err, AZOTH_ERR_NOMEM, "a list of free pages");
    rc = read_bytes(w, first * w->size + PAGE_HEAD, list, n->data_len, err);
    if (!rc)
        add_list(w, list, n->data_len);
    free(list);
    return rc;
}

static int leaf_node(struct walk *w, const struct node *n, int names, struct azoth_error *err)
{
    w->found.entries++;
    if (w->lists && n->key_len != 8)
        found(w, 1, "an entry has a key of %zu bytes", n->key_len);
    else if (names)
        add_name(w, n);
    else if (n->flags & (NODE_TREE | NODE_DUPLICATES))
        found(w, 1, "an entry is not what it should be");
    else if (n->flags & NODE_BIG)
        return overflow(w, n, err);
    else if (w->lists)
        add_list(w, n->data, n->data_len);
    return 0;
}

/* ---- trees ---- */

static int visit(struct walk *w, uint64_t number, uint16_t level, int names,
                 struct azoth_error *err)
{
    int leaf = level + 1 == w->tree->depth;
    if (!w->level[level])
        w->level[level] = malloc(w->size);
    unsigned char *page = w->level[level];
    if (!page)
        return error_set(err, AZOTH_ERR_NOMEM, "a page");
    int rc = read_page(w, number, leaf ? PAGE_LEAF : PAGE_BRANCH, page, w->size, err);
    if (rc != 1 || !check_entries(w, number, page, leaf))
        return rc < 0 ? rc : 0;
    check_make(w, number, page, leaf);
    if (leaf)
        w->found.leaf++;
    else
        w->found.branch++;
    rc = 0;
    for (uint32_t i = 0; !rc && i < node_count(page); i++) {
        struct node n;
        if (!node_at(w, page, i, leaf, &n))
            break;
        rc = leaf ? leaf_node(w, &n, names, err)
                  : visit(w, n.child, (uint16_t)(level + 1), names, err);
    }
    return rc;
}

static void compare(struct walk *w, const char *what, uint64_t met, uint64_t told)
{
    if (met != told)
        found(w, 0, "%llu %s were met, and there should be %llu", (unsigned long long)met, what,
              (unsigned long long)told);
}

/* Keys that are numbers, duplicates and the like: what would make LMDB read the tree as another kind. */
static int flags_good(const struct walk *w)
{
    return (w->tree->flags & (MDB_REVERSEKEY | MDB_DUPSORT | MDB_INTEGERKEY | MDB_DUPFIXED |
                              MDB_INTEGERDUP | MDB_REVERSEDUP)) == (w->lists ? MDB_INTEGERKEY : 0);
}

static int walk_tree(struct walk *w, const struct tree *t, int names, struct azoth_error *err)
{
    w->tree = t;
    w->fatal = 0;
    memset(&w->found, 0, sizeof w->found);
    if (t->depth > DEPTH_MAX || (t->depth == 0) != (t->root == NO_PAGE) || !flags_good(w)) {
        found(w, 1, "what is noted of the tree cannot be");
        return 0;
    }
    int rc = t->depth ? visit(w, t->root, 0, names, err) : 0;
    if (rc || w->fatal)
        return rc;
    compare(w, "entries", w->found.entries, t->entries);
    compare(w, "leaf pages", w->found.leaf, t->leaf);
    compare(w, "branch pages", w->found.branch, t->branch);
    compare(w, "overflow pages", w->found.overflow, t->overflow);
    w->counted += w->found.leaf + w->found.branch + w->found.overflow;
    return 0;
}

static int walk_all(struct walk *w, const struct meta *m, struct azoth_error *err)
{
    int fatal, rc = walk_tree(w, &m->names, 1, err);
    fatal = w->fatal;
    for (uint32_t i = 0; i < w->names && !rc; i++) {
        rc = walk_tree(w, &w->name[i], 0, err);
        fatal |= w->fatal;
    }
    w->lists = 1;
    if (!rc)
        rc = walk_tree(w, &m->free, 0, err);
    fatal |= w->fatal;
    uint64_t all = META_PAGES + w->counted + w->sum->free_pages;
    static const struct tree file = {.name = "data.mdb"};
    w->tree = &file;
    if (!rc && !fatal && all != w->pages)
        found(w, 0, "the file has %llu pages, and %llu are in a tree or free",
              (unsigned long long)w->pages, (unsigned long long)all);
    return rc;
}

/* ---- the meta pages ---- */

static int read_meta(int fd, const char *path, uint64_t at, struct meta *ret,
                     struct azoth_error *err)
{
    unsigned char b[PAGE_HEAD + META_BYTES];
    size_t n = 0;
    int rc = io_read_at(fd, b, sizeof b, at, &n, path, err);
    if (rc)
        return rc;
    const unsigned char *p = b + PAGE_HEAD;
    *ret = (struct meta){.free = {.name = "the list of free pages"},
                         .names = {.name = "the tree of names"}};
    if (n == sizeof b) {
        ret->page_size = u32_at(p + 24);
        tree_at(p + 24, &ret->free);
        tree_at(p + 24 + TREE_BYTES, &ret->names);
        ret->last_page = u64_at(p + 24 + 2 * TREE_BYTES);
        ret->txn = u64_at(p + 32 + 2 * TREE_BYTES);
    }
    if (n == sizeof b && u32_at(p) == META_MAGIC && ret->page_size >= 512 &&
        ret->page_size <= 32768 && (ret->page_size & (ret->page_size - 1)) == 0)
        return 0;
    return error_set(err, AZOTH_ERR_CORRUPT, "%s: the meta page at byte %llu is damaged", path,
                     (unsigned long long)at);
}

/* Of both, in one size of pages. */
static int read_metas(int fd, const char *path, struct meta ret[META_PAGES],
                      struct azoth_error *err)
{
    int rc = read_meta(fd, path, 0, &ret[0], err);
    if (!rc)
        rc = read_meta(fd, path, ret[0].page_size, &ret[1], err);
    if (!rc && ret[0].page_size != ret[1].page_size)
        rc =
            error_set(err, AZOTH_ERR_CORRUPT, "%s: its meta pages are of two sizes of pages", path);
    return rc;
}

int pagecheck_meta(int fd, const char *path, struct azoth_error *err)
{
    struct meta m[META_PAGES];
    return read_metas(fd, path, m, err);
}

/*
 * The meta page of commit txn: 0 and *ret, 1 when newer ones have taken its place, or an error. That of txn + 2 is written over it,
 * so what was read may be half of each. That commit begins when the meta page of txn + 1 is there: a second reading that finds
 * both as they were says that it had not begun, but where a snapshot is not of the newest commit.
 */
static int find_meta(int fd, uint64_t txn, struct meta *ret, struct azoth_error *err)
{
    struct meta m[META_PAGES], again[META_PAGES];
    int rc = read_metas(fd, "data.mdb", m, err);
    if (!rc)
        rc = read_metas(fd, "data.mdb", again, err);
    if (rc)
        return rc;
    *ret = m[0].txn == txn ? m[0] : m[1];
    return ret->txn != txn || memcmp(m, again, sizeof m) != 0;
}

int pagecheck(int fd, uint64_t txn, const struct pagecheck_tell *tell, struct pagecheck_sum *ret,
              struct azoth_error *err)
{
    struct meta of;
    struct stat st;
    memset(ret, 0, sizeof *ret);
    int rc = find_meta(fd, txn, &of, err);
    if (rc)
        return rc;
    if (fstat(fd, &st))
        return error_errno(err, errno, "data.mdb");
    struct walk *w = calloc(1, sizeof *w);
    if (!w)
        return error_set(err, AZOTH_ERR_NOMEM, "a walk over pages");
    w->fd = fd;
    w->tell = tell;
    w->sum = ret;
    w->size = (size_t)of.page_size;
    w->bytes = (uint64_t)st.st_size;
    ret->pages = w->pages = of.last_page + 1;
    /* A few pages at the end may be free and never written. What is far longer than the file is no number of pages. */
    if (w->pages / 16 > w->bytes / w->size + (1u << 16))
        rc = error_set(err, AZOTH_ERR_CORRUPT, "data.mdb: %llu pages in %llu bytes",
                       (unsigned long long)w->pages, (unsigned long long)w->bytes);
    else if (!(w->met = calloc(1, w->pages / 8 + 1)) || !(w->filled = malloc(w->size)))
        rc = error_set(err, AZOTH_ERR_NOMEM, "a walk over pages");
    else
        rc = walk_all(w, &of, err);
    for (uint32_t i = 0; i < DEPTH_MAX; i++)
        free(w->level[i]);
    free(w->met);
    free(w->filled);
    free(w);
    return rc;
}

/* ---- a file alone ---- */

struct first {
    int any;
    char message[200];
};

static void keep_first(void *arg, int fatal, const char *message)
{
    struct first *f = arg;
    (void)fatal;
    if (!f->any)
        snprintf(f->message, sizeof f->message, "%s", message);
    f->any = 1;
}

static int check_copy(int fd, const char *path, const struct pagecheck_tell *tell,
                      struct azoth_error *err)
{
    struct meta m[META_PAGES];
    struct pagecheck_sum sum;
    struct stat st;
    int rc = read_metas(fd, path, m, err);
    if (rc)
        return rc;
    if (fstat(fd, &st))
        return error_errno(err, errno, "%s", path);
    const struct meta *of = m[1].txn > m[0].txn ? &m[1] : &m[0];
    if (of->last_page >= (uint64_t)st.st_size / of->page_size || of->txn > UINT64_MAX / 2)
        return error_set(err, AZOTH_ERR_CORRUPT, "%s: it has fewer pages than it says", path);
    if (of->free.entries || of->free.root != NO_PAGE)
        return error_set(err, AZOTH_ERR_CORRUPT, "%s: it is no copy, which has no free pages",
                         path);
    return pagecheck(fd, of->txn, tell, &sum, err);
}

int pagecheck_file(const char *path, struct azoth_error *err)
{
    struct first first = {0};
    const struct pagecheck_tell tell = {.arg = &first, .found = keep_first};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "%s", path);
    int rc = check_copy(fd, path, &tell, err);
    close(fd);
    return !rc && first.any ? error_set(err, AZOTH_ERR_CORRUPT, "%s", first.message) : rc;
}
