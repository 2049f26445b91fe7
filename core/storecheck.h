/*
 * storecheck.h - is the whole store what it was written as? Each record, what belongs together, the chain,
 * and the pages of LMDB's trees.
 *
 * Events are immutable: they are read in looks of STORECHECK_LOOK with a short snapshot each, up to the newest
 * one there is when they are through. State, ids, marks and redo change: each is read in one snapshot, held for as long as that
 * takes, and so are the pages (core/pagecheck.c). Nothing is written, and nobody is held up: under load the file may
 * grow meanwhile, since pages that the snapshot sees are not used again.
 *
 *   found as  what is checked
 *   event     checksum; ids from 1 (or the first that there is) without a gap up to the head; transactions in order, one
 *             time each, times never decreasing
 *   chain     the value that the events give is the one in the head. By it alone an event is found that was changed
 *             and given a checksum that fits
 *   segment   a recorded segment is there, is the one that was recorded, and its events can be read; what can not is
 *             passed over, a block or the whole file in one finding
 *   state     checksum, the canonical encoding of its type, a version that is no later than the head, keys in order
 *   id        checksum; transaction, events and age within those of the head; ids and ids_age agree, one for one
 *   redo      checksum, encodings, transactions and events within those of the head; from the lowest mark on each one
 *   mark      checksum, and not beyond the head
 *   page      each is the one that it should be, with its entries inside; branch, leaf and overflow pages and entries are as
 *             many as LMDB's own counts say; no page belongs to two places; and all of the file's are in a tree or free
 *
 * LMDB does not survive each damage of its pages: store_pages_look(), before the store is opened, tells whether it would.
 */
#ifndef CORE_STORECHECK_H
#define CORE_STORECHECK_H

#include "core/chain.h"
#include "core/error.h"
#include "core/store.h"

#define STORECHECK_LOOK 20000u /* events, and those that end the last one's transaction */

struct store_finding {
    const char *kind; /* as above */
    int code;         /* CORRUPT, FORMAT or GAP; of a segment also NOT_FOUND, PERMISSION */
    char message[400];
    struct azoth_bytes key; /* of the record, or none; borrowed for the call */
    uint64_t event, txn;    /* 0: it is not about one */
};

struct store_check_tell {
    void *arg;
    void (*found)(void *arg, const struct store_finding *f);
    /* Now and then: how much of all is done. Non-zero ends the check with BUSY. */
    int (*progress)(void *arg, uint64_t at, uint64_t end, const char *what);
};

struct store_check_sum {
    uint64_t events, segments, transactions, keys, ids, redo, marks, pages, free_pages;
    uint64_t findings;
    struct store_head head; /* up to which events were checked */
    int chain_checked;      /* 0: there is none, or a damaged event is in its way */
    int pages_counted; /* 0: the writer committed too often for a snapshot's meta page to be read */
};

/* 0 when everything could be looked at, whatever was found (ret->findings); BUSY, IO, NOMEM, and CORRUPT when there
 * is no reading on. One thread. */
int store_check(struct store *s, const struct store_check_tell *tell, struct store_check_sum *ret,
                struct azoth_error *err);

#endif
