/*
 * pagewalk.c - LMDB's trees by their bytes (mdb.c of LMDB 0.9.24; MDB_meta, MDB_db, MDB_page, MDB_node).
 *
 *   page 0, 1   header, then: u32 magic | u32 version | u64 address | u64 map | db free | db main | u64 last page | u64 txn
 *   db          u32 pad (in `free`: the page size) | u16 flags | u16 depth | u64 branches | u64 leaves | u64 overflow
 *               | u64 entries | u64 root, all ones when it is empty
 *   header      u64 own number | u16 pad | u16 flags | u16 lower | u16 upper; of overflow pages the last two are u32 pages
 *   page        header, u16 places of nodes up to `lower`, the nodes from `upper` to the end without a gap
 *   node        u16 low | u16 high | u16 flags | u16 bytes of key | key | data; of a leaf low and high are the bytes of data,
 *               of a branch they and the flags are the page below
 *
 * Of both first pages the one with the greater transaction counts. A compacting copy has no free pages, and our trees have
 * neither duplicates nor other orders than that of bytes: what has is none of ours.
 *
 * Invariants
 *   W1  no byte is read outside of the page in hand.
 *   W2  each page is in one place, so the walk ends, whatever the pages say.
 */
#include "writer/pagewalk.h"

#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC       0xBEEFC0DEu
#define VERSION     1u
#define HEADER      16u
#define META        136u /* bytes behind its header */
#define DB          48u
#define NODE        8u
#define KEY_MAX     511u
#define PAGE_MIN    512u
#define PAGE_MAX    32768u /* of a page */
#define DEPTH_MAX   32u
#define NO_PAGE     UINT64_MAX
#define IS_BRANCH   1u
#define IS_LEAF     2u
#define IS_OVERFLOW 4u
#define IS_META     8u
#define NODE_BIG    1u /* its data are on overflow pages, whose number it has */
#define NODE_TREE   2u /* its data are a db */
#define FREE_FLAGS  0x7fu
#define FREE_ORDER  8u /* keys of free pages are integers */

struct walk {
    int fd;
    const char *path;
    size_t size;         /* of a page */
    uint64_t pages;      /* up to the last one that is in use */
    unsigned char *used; /* a bit for each */
    struct azoth_error *err;
};

struct tree {
    uint16_t flags, depth;
    uint64_t branches, leaves, overflow, entries, root;
    int names; /* it is the one that has the others' names */
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

static struct tree tree_at(const unsigned char *p)
{
    return (struct tree){.flags = u16_at(p + 4),
                         .depth = u16_at(p + 6),
                         .branches = u64_at(p + 8),
                         .leaves = u64_at(p + 16),
                         .overflow = u64_at(p + 24),
                         .entries = u64_at(p + 32),
                         .root = u64_at(p + 40)};
}

static int is_bad(const struct walk *w, uint64_t page, const char *why)
{
    return error_set(w->err, AZOTH_ERR_CORRUPT, "page %llu of the store: %s",
                     (unsigned long long)page, why);
}

static int read_at(const struct walk *w, uint64_t at, unsigned char *ret, size_t len)
{
    for (size_t have = 0; have < len;) {
        ssize_t n = pread(w->fd, ret + have, len - have, (off_t)(at + have));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? error_errno(w->err, errno, "%s", w->path)
                     : error_set(w->err, AZOTH_ERR_CORRUPT, "%s: it became shorter", w->path);
        have += (size_t)n;
    }
    return 0;
}

/* W2. Takes n pages from page on. */
static int take(const struct walk *w, uint64_t page, uint64_t n)
{
    if (page < 2 || page >= w->pages || n < 1 || n > w->pages - page)
        return is_bad(w, page, "it is not in the file");
    for (uint64_t i = page; i < page + n; i++) {
        unsigned char bit = (unsigned char)(1u << (i % 8));
        if (w->used[i / 8] & bit)
            return is_bad(w, i, "it belongs to something else, too");
        w->used[i / 8] |= bit;
    }
    return 0;
}

/* ---- nodes ---- */

static int walk_tree(const struct walk *w, struct tree t);
static int walk_page(const struct walk *w, struct tree *t, uint64_t page, unsigned below);

static int take_overflow(const struct walk *w, struct tree *t, uint64_t page, uint64_t bytes)
{
    unsigned char h[HEADER];
    int rc = take(w, page, 1);
    if (!rc)
        rc = read_at(w, page * w->size, h, sizeof h);
    if (rc)
        return rc;
    uint64_t n = u32_at(h + 12);
    if (u64_at(h) != page || u16_at(h + 10) != IS_OVERFLOW || n < 1 || HEADER + bytes > n * w->size)
        return is_bad(w, page, "it should hold a value");
    t->overflow -= n;
    return n > 1 ? take(w, page + 1, n - 1) : 0;
}

/* The data of a leaf's node, of which the key is inside the page: how many bytes of them are, or a failure. */
static int leaf_data(const struct walk *w, struct tree *t, uint64_t page, const unsigned char *node,
                     size_t left)
{
    uint64_t bytes = u16_at(node) | (uint64_t)u16_at(node + 2) << 16;
    unsigned flags = u16_at(node + 4), key = u16_at(node + 6);
    const unsigned char *data = node + NODE + key;
    size_t inside = flags & NODE_BIG ? 8 : bytes, most = ((w->size - HEADER) / 2 & ~(size_t)1) - 2;
    if (key < 1 || (flags & ~(NODE_BIG | NODE_TREE)) || flags == (NODE_BIG | NODE_TREE) ||
        inside > left || NODE + key + inside > most)
        return is_bad(w, page, "a node makes no sense");
    if ((flags & NODE_TREE) && (!t->names || bytes != DB))
        return is_bad(w, page, "a tree is where none should be");
    t->entries--;
    int rc = 0;
    if (flags & NODE_BIG)
        rc = take_overflow(w, t, u64_at(data), bytes);
    else if (flags & NODE_TREE)
        rc = walk_tree(w, tree_at(data));
    return rc ? rc : (int)inside;
}

/* The nodes of a page lie beside each other, none upon another: `filled` has a byte for each of its bytes. */
struct nodes {
    const unsigned char *p;
    unsigned char *filled;
    size_t lower, upper, sum;
};

static int check_node(const struct walk *w, struct tree *t, uint64_t page, struct nodes *s,
                      size_t i, unsigned below)
{
    size_t at = u16_at(s->p + HEADER + 2 * i), len = NODE;
    if (at < s->upper || at % 2 || at + NODE > w->size)
        return is_bad(w, page, "a node is not in it");
    const unsigned char *node = s->p + at;
    unsigned key = u16_at(node + 6);
    if (key > KEY_MAX || at + NODE + key > w->size)
        return is_bad(w, page, "a key is not in it");
    len += key;
    if (below) {
        uint64_t child =
            u16_at(node) | (uint64_t)u16_at(node + 2) << 16 | (uint64_t)u16_at(node + 4) << 32;
        int rc = walk_page(w, t, child, below - 1);
        if (rc)
            return rc;
    } else {
        int data = leaf_data(w, t, page, node, w->size - at - len);
        if (data < 0)
            return data;
        len += (size_t)data;
    }
    len += len % 2;
    if (at + len > w->size || memchr(s->filled + at, 1, len))
        return is_bad(w, page, "two nodes lie upon each other");
    memset(s->filled + at, 1, len);
    s->sum += len;
    return 0;
}

/* Keys in the order of their bytes; a branch's first one is never looked at. */
static int check_order(const struct walk *w, uint64_t page, const unsigned char *p, size_t n,
                       size_t first)
{
    for (size_t i = first + 1; i < n; i++) {
        const unsigned char *a = p + u16_at(p + HEADER + 2 * (i - 1)),
                            *b = p + u16_at(p + HEADER + 2 * i);
        size_t x = u16_at(a + 6), y = u16_at(b + 6);
        int c = memcmp(a + NODE, b + NODE, x < y ? x : y);
        if (c > 0 || (c == 0 && x >= y))
            return is_bad(w, page, "its keys are out of order");
    }
    return 0;
}

/* ---- pages ---- */

static int check_page(const struct walk *w, struct tree *t, uint64_t page, unsigned below,
                      struct nodes *s)
{
    s->lower = u16_at(s->p + 12);
    s->upper = u16_at(s->p + 14);
    size_t n = (s->lower - HEADER) / 2;
    if (u64_at(s->p) != page || u16_at(s->p + 10) != (below ? IS_BRANCH : IS_LEAF))
        return is_bad(w, page, below ? "it is no branch" : "it is no leaf");
    if (s->lower < HEADER || s->lower % 2 || s->upper < s->lower || s->upper > w->size ||
        n < (below ? 2 : 1))
        return is_bad(w, page, "its bounds make no sense");
    t->branches -= below > 0;
    t->leaves -= below == 0;
    for (size_t i = 0; i < n; i++) {
        int rc = check_node(w, t, page, s, i, below);
        if (rc)
            return rc;
    }
    if (s->sum != w->size - s->upper)
        return is_bad(w, page, "its nodes leave a gap");
    return check_order(w, page, s->p, n, below > 0);
}

/* `below`: how many levels are below it; 0 is a leaf. */
static int walk_page(const struct walk *w, struct tree *t, uint64_t page, unsigned below)
{
    int rc = take(w, page, 1);
    if (rc)
        return rc;
    unsigned char *p = calloc(2, w->size);
    if (!p)
        return error_set(w->err, AZOTH_ERR_NOMEM, "a page");
    struct nodes s = {.p = p, .filled = p + w->size};
    rc = read_at(w, page * w->size, p, w->size);
    if (!rc)
        rc = check_page(w, t, page, below, &s);
    free(p);
    return rc;
}

static int walk_tree(const struct walk *w, struct tree t)
{
    uint64_t root = t.root;
    if (t.flags || t.depth > DEPTH_MAX || (root == NO_PAGE) != (t.depth == 0))
        return error_set(w->err, AZOTH_ERR_CORRUPT, "a tree of the store makes no sense");
    int rc = root == NO_PAGE ? 0 : walk_page(w, &t, root, t.depth - 1u);
    if (!rc && (t.branches || t.leaves || t.overflow || t.entries))
        rc = error_set(w->err, AZOTH_ERR_CORRUPT,
                       "a tree of the store has another size than it says");
    return rc;
}

/* ---- the file ---- */

static int is_meta(const unsigned char *p)
{
    return u16_at(p + 10) == IS_META && u32_at(p + HEADER) == MAGIC &&
           u32_at(p + HEADER + 4) == VERSION;
}

/* The newer one of both, and the bounds that it gives. */
static int read_meta(struct walk *w, unsigned char ret[HEADER + META], uint64_t bytes)
{
    unsigned char other[HEADER + META];
    if (bytes < 2 * PAGE_MIN || read_at(w, 0, ret, HEADER + META))
        return error_set(w->err, AZOTH_ERR_FORMAT, "the store is no file of LMDB's");
    w->size = u32_at(ret + HEADER + 24);
    if (!is_meta(ret) || w->size < PAGE_MIN || w->size > PAGE_MAX || (w->size & (w->size - 1)) ||
        bytes < 2 * w->size)
        return error_set(w->err, AZOTH_ERR_FORMAT, "the store is no file of LMDB's");
    int rc = read_at(w, w->size, other, sizeof other);
    if (rc)
        return rc;
    if (!is_meta(other) || u32_at(other + HEADER + 24) != w->size)
        return error_set(w->err, AZOTH_ERR_FORMAT, "the store is no file of LMDB's");
    if (u64_at(ret + HEADER + 128) < u64_at(other + HEADER + 128))
        memcpy(ret, other, sizeof other);
    uint64_t last = u64_at(ret + HEADER + 120), txn = u64_at(ret + HEADER + 128);
    if (last < 1 || last >= bytes / w->size || txn > UINT64_MAX / 2)
        return error_set(w->err, AZOTH_ERR_CORRUPT, "the store has fewer pages than it says");
    w->pages = last + 1;
    return 0;
}

static int walk_file(struct walk *w, uint64_t bytes)
{
    unsigned char meta[HEADER + META];
    int rc = read_meta(w, meta, bytes);
    if (rc)
        return rc;
    struct tree none = tree_at(meta + HEADER + 24), names = tree_at(meta + HEADER + 72);
    if ((none.flags & FREE_FLAGS) != FREE_ORDER || none.depth || none.entries ||
        none.root != NO_PAGE)
        return error_set(w->err, AZOTH_ERR_FORMAT, "the store is no copy without free pages");
    w->used = calloc(1, (size_t)(w->pages / 8 + 1));
    if (!w->used)
        return error_set(w->err, AZOTH_ERR_NOMEM, "a bit for each page");
    names.names = 1;
    rc = walk_tree(w, names);
    free(w->used);
    return rc;
}

int pagewalk_check(const char *path, struct azoth_error *err)
{
    struct walk w = {.path = path, .err = err};
    struct stat st;
    w.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (w.fd < 0)
        return error_errno(err, errno, "%s", path);
    int rc = fstat(w.fd, &st) ? error_errno(err, errno, "%s", path)
                              : walk_file(&w, (uint64_t)st.st_size);
    close(w.fd);
    return rc;
}
