/*
 * pagecheck.c - the pages of LMDB's trees, as far as LMDB 0.9.24 lets one look at them from outside.
 *
 * A cursor yields pointers into the map. A key lies on a leaf page, a value on the same one or on overflow pages
 * of its own, and every page begins with its number (the overflow's header ends where the value begins). So a walk over
 * all keys meets each leaf and each overflow page; those are counted and noted by number. What is found
 * that way:
 *
 *   a page that belongs to two places, or to a tree and to the list of free pages
 *   counts that differ from those that LMDB keeps of each tree: a part that can not be reached, or is reached twice
 *   a page of the file that is neither in a tree nor free: lost room
 *
 * What it does not let one see are branch pages: they are taken as LMDB counts them, and a branch that leads
 * to a wrong leaf shows as a page met twice, as a key out of order (storecheck.c) or as a wrong count.
 *
 * Of the trees within one snapshot; the file's last page is that of the newest commit: it is compared only when no
 * other commit came between.
 */
#include "core/storecheck.h"

#include "core/store_lmdb.h"

#include <string.h>

#define FREE_DB    0u /* LMDB's own numbers of its list of free pages, and of the tree of names */
#define MAIN_DB    1u
#define META_PAGES 2u
#define PAGE_HEAD  16u /* bytes of a page's header; its number is the first 8 */
#define TRIES      20

static const struct azoth_bytes no_key;

struct pages {
    struct store_check *c;
    unsigned char *used; /* a bit for each page */
    uint64_t pages;      /* that it has bits for */
    size_t size;         /* of a page */
    uint64_t counted;    /* in all trees, free ones too */
    const char *tree;
};

/* Notes n pages: those that were noted before are told. */
static void note(struct pages *p, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++) {
        if (i >= p->pages) {
            store_check_found(p->c, "page", AZOTH_ERR_CORRUPT, no_key, 0, 0,
                              "%s: page %llu is beyond the end, which is at %llu", p->tree,
                              (unsigned long long)i, (unsigned long long)p->pages);
            return;
        }
        unsigned char bit = (unsigned char)(1u << (i % 8));
        if (p->used[i / 8] & bit)
            store_check_found(p->c, "page", AZOTH_ERR_CORRUPT, no_key, 0, 0,
                              "%s: page %llu belongs to something else, too", p->tree,
                              (unsigned long long)i);
        p->used[i / 8] |= bit;
    }
}

static uint64_t number_at(const void *page)
{
    uint64_t n;
    memcpy(&n, page, sizeof n);
    return n;
}

static void compare(struct pages *p, const char *what, uint64_t met, uint64_t told)
{
    if (met != told)
        store_check_found(p->c, "page", AZOTH_ERR_CORRUPT, no_key, 0, 0,
                          "%s: %llu %s were met, and there should be %llu", p->tree,
                          (unsigned long long)met, what, (unsigned long long)told);
}

/* The pages of one tree. The list of free ones adds those that it lists. */
static int walk_tree(struct pages *p, MDB_dbi dbi, struct azoth_error *err)
{
    MDB_cursor *cursor;
    MDB_stat st;
    MDB_val k, v;
    MDB_txn *txn = snapshot_txn(p->c->sn);
    uint64_t entries = 0, leaves = 0, overflow = 0;
    uintptr_t leaf = 0, mask = ~((uintptr_t)p->size - 1);
    int rc = mdb_stat(txn, dbi, &st);
    if (!rc)
        rc = mdb_cursor_open(txn, dbi, &cursor);
    if (rc)
        return lmdb_error(err, rc, p->tree);
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
        uintptr_t at = (uintptr_t)k.mv_data & mask, value = (uintptr_t)v.mv_data & mask;
        entries++;
        if (at != leaf) {
            leaves++;
            note(p, number_at((const void *)at), 1);
        }
        leaf = at;
        if (v.mv_size && value != at && ((uintptr_t)v.mv_data & ~mask) == PAGE_HEAD) {
            uint64_t n = (PAGE_HEAD + v.mv_size + p->size - 1) / p->size;
            overflow += n;
            note(p, number_at((const void *)value), n);
        }
        if (dbi == FREE_DB && v.mv_size >= 8)
            for (uint64_t i = 1; i <= number_at(v.mv_data) && 8 * (i + 1) <= v.mv_size; i++) {
                note(p, number_at((const char *)v.mv_data + 8 * i), 1);
                p->c->sum->free_pages++;
            }
        if (entries % 4096 == 0 && p->c->tell->progress &&
            p->c->tell->progress(p->c->tell->arg, p->c->at, p->c->end, "pages")) {
            mdb_cursor_close(cursor);
            return error_set(err, AZOTH_ERR_BUSY, "the check was interrupted");
        }
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_NOTFOUND)
        return lmdb_error(err, rc, p->tree);
    compare(p, "entries", entries, st.ms_entries);
    compare(p, "leaf pages", leaves, st.ms_leaf_pages);
    compare(p, "overflow pages", overflow, st.ms_overflow_pages);
    p->counted += st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages;
    return 0;
}

/* The snapshot's own last page is not told: that of the newest commit is, which it is when nobody commits
 * between. Begins snapshots anew until then; *ret_known 0: without success. */
static int last_page(struct store_check *c, uint64_t *ret_pages, int *ret_known,
                     struct azoth_error *err)
{
    MDB_envinfo info;
    *ret_known = 0;
    for (int i = 0; i < TRIES && !*ret_known; i++) {
        store_check_end(c);
        int rc = store_check_begin(c, err);
        if (rc)
            return rc;
        rc = mdb_env_info(store_lmdb(c->store)->env, &info);
        if (rc)
            return lmdb_error(err, rc, "pages");
        *ret_known = info.me_last_txnid == mdb_txn_id(snapshot_txn(c->sn));
    }
    *ret_pages = info.me_last_pgno + 1;
    return 0;
}

int store_check_pages(struct store_check *c, struct azoth_error *err)
{
    struct pages p = {.c = c};
    struct store_lmdb *l = store_lmdb(c->store);
    MDB_stat st;
    int rc = last_page(c, &p.pages, &c->sum->pages_counted, err), m = mdb_env_stat(l->env, &st);
    if (!rc && m)
        rc = lmdb_error(err, m, "pages");
    if (rc)
        return rc;
    p.size = st.ms_psize;
    p.used = calloc(1, (size_t)(p.pages / 8 + 1));
    if (!p.used)
        return error_set(err, AZOTH_ERR_NOMEM, "a bit for each page");
    p.tree = "the list of free pages";
    rc = walk_tree(&p, FREE_DB, err);
    p.tree = "the tree of names";
    if (!rc)
        rc = walk_tree(&p, MAIN_DB, err);
    for (int i = 0; i < DB_COUNT && !rc; i++) {
        p.tree = store_db_name[i];
        if (i != DB_REDO || atomic_load(&l->redo_open))
            rc = walk_tree(&p, l->dbi[i], err);
    }
    free(p.used);
    c->sum->pages = p.pages;
    uint64_t all = META_PAGES + p.counted + c->sum->free_pages;
    if (!rc && c->sum->pages_counted && all != p.pages)
        store_check_found(c, "page", AZOTH_ERR_CORRUPT, no_key, 0, 0,
                          "the file has %llu pages, and %llu are in a tree or free",
                          (unsigned long long)p.pages, (unsigned long long)all);
    return rc;
}
