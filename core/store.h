/*
 * store.h - reading the canonical store. All reads of LMDB go through here; writing is
 * writer/append.c's and writer/create.c's alone.
 *
 *   state    user key                -> state record (record.h)
 *   events   event id, u64 BE        -> event record
 *   meta     "format" -> the store's format and identity; "head" -> the batch record (batchrec.h);
 *            "chain" -> where the chain began (chain.h); "mark:" PLACE -> a mark (mark.h); "archive",
 *            "segment:..." -> events that lie in segment files instead (archived.h)
 *   ids      request id, 16 bytes    -> id record
 *   ids_age  u64 BE order of commit  -> request id
 *   redo     transaction id, u64 BE  -> redo record (redo.h)
 *
 * A store of format 1 has neither chain nor marks nor redo: it is read all the same, and a writer makes it
 * format 2 at its start.
 *
 * One environment per directory and process: store_open() of a directory that this process has
 * open already returns the same one, counted (closing any descriptor of lock.mdb in a process
 * drops LMDB's own lock there). Threads: every call may be made from any thread; one snapshot
 * belongs to one thread at a time. No call is valid in a forked child.
 */
#ifndef CORE_STORE_H
#define CORE_STORE_H

#include "core/archived.h"
#include "core/azoth_base.h"
#include "core/buf.h"
#include "core/chain.h"
#include "core/record.h"
#include "core/txn.h"

#define STORE_FORMAT       2u
#define STORE_FORMAT_LEAST 1u /* that is read */
/* Sparse: the disk is full before the map is. The thread sanitizer leaves less room for addresses. */
#ifndef STORE_MAP_BYTES
#define STORE_MAP_BYTES (1ull << 40)
#endif
#define STORE_READERS_MAX 1024u

struct store;
struct snapshot;

struct store_identity {
    uint8_t uuid[16];
    uint64_t created_ns;
    uint64_t device, inode; /* of data.mdb as this process has it open */
    char dir[4096];         /* absolute path of the data directory */
};

enum store_open_flags {
    STORE_WRITE = 1, /* for the writer: the environment can be written */
    STORE_FILE =
        2, /* dir is the path of a store under another name, which nobody else knows: no lock file.
              Recorded segments are below the directory that it is in */
};

/* NO_DATABASE, FORMAT, CORRUPT, IO, PERMISSION, NOMEM. With STORE_WRITE no read transaction is
 * begun, so that a process stopped inside LMDB's reader mutex cannot hold the writer up. */
int store_open(const char *dir, unsigned flags, struct store **ret, struct azoth_error *err);
/*
 * Tells what is wrong with the pages of the file in dir (core/pagecheck.h), before any store is opened there in this process: LMDB, which
 * reads through a map, may end the process on what is told as fatal. 0, CORRUPT when not even the meta pages are good,
 * BUSY (`progress`, or commits come too fast), NO_DATABASE, IO, NOMEM. Reads the whole file.
 */
struct pagecheck_tell;
int store_pages_look(const char *dir, const struct pagecheck_tell *tell, struct azoth_error *err);
void store_close(struct store *s); /* the last close closes the environment; NULL is accepted */
const struct store_identity *store_identity(const struct store *s);
/* 1 when the directory is on a file system that is mounted for reading only: LMDB's lock file could not
 * be opened, and a writer that reaches the files by another way does not know of our snapshots. */
int store_unlocked(const struct store *s);

/* A snapshot sees one commit. Reader slots are kept and renewed: begin and end are cheap.
 * snapshot_begin: IO, FULL (no reader slot), CORRUPT. */
int snapshot_begin(struct store *s, struct snapshot **ret, struct azoth_error *err);
void snapshot_end(struct snapshot *sn); /* NULL is accepted */

/* *ret borrows the snapshot. NOT_FOUND, CORRUPT (err names the key), FORMAT, IO. */
int snapshot_get(struct snapshot *sn, struct azoth_bytes key, struct state_record *ret,
                 struct azoth_error *err);

struct store_head {
    uint64_t event;                /* newest event id */
    uint64_t txn;                  /* newest transaction id */
    int64_t time_ns;               /* commit time of the newest batch */
    uint64_t epoch;                /* of the writer that made it */
    uint64_t incarnation;          /* of the segment it was made through */
    struct chain chain;            /* as of the newest event, from snapshot_head_chained() alone */
    uint64_t running_ms, id_first; /* of the batch record (batchrec.h) */
};
/* chain is zeros. CORRUPT, IO. */
int snapshot_head(struct snapshot *sn, struct store_head *ret, struct azoth_error *err);
/* With the chain: where the record's trails, the newest batch is read and hashed (some ms at most).
 * CORRUPT, GAP (that batch is damaged: *ret has the chain as in the record), NOMEM, IO. */
int snapshot_head_chained(struct snapshot *sn, struct store_head *ret, struct azoth_error *err);
/* Where the chain began: 1 and *ret, 0 when the store has none. CORRUPT, IO. */
int snapshot_chain_start(struct snapshot *sn, struct chain *ret, struct azoth_error *err);

/* State in key order. from inclusive, to exclusive; empty = open. prefix and from/to may be
 * combined. The scan borrows the snapshot and must be closed before it ends. */
struct scan;
int scan_open(struct snapshot *sn, struct azoth_bytes prefix, struct azoth_bytes from,
              struct azoth_bytes to, struct scan **ret, struct azoth_error *err);
/* 1 and outputs, 0 at the end, or CORRUPT, FORMAT, IO. */
int scan_next(struct scan *sc, struct azoth_bytes *ret_key, struct state_record *ret,
              struct azoth_error *err);
void scan_close(struct scan *sc);

/* Events from id `from` (inclusive) to `to` (exclusive; 0 = the snapshot's end), O(log n) to start: one log,
 * whether they lie in segment files or in LMDB. An id missing between the first and the last is AZOTH_ERR_GAP. */
struct event_scan;
int event_scan_open(struct snapshot *sn, uint64_t from, uint64_t to, struct event_scan **ret,
                    struct azoth_error *err);
/* 1 and *ret (borrows the scan until its next call); 0 at the end; CORRUPT, FORMAT, GAP, IO; of a segment that is
 * not there or may not be read NOT_FOUND, PERMISSION, and err names it. *ret_raw (may be NULL) gets the
 * record's bytes. May block on a segment's file. */
int event_scan_next(struct event_scan *es, struct event_record *ret, struct azoth_bytes *ret_raw,
                    struct azoth_error *err);
/* After an error: where a scan that passes over what can not be read would begin: behind the event, at the one behind a gap, or behind the
 * block or the segment that it lies in. *ret_segment: it lies in one. */
uint64_t event_scan_behind(struct event_scan *es, int *ret_segment);
void event_scan_close(struct event_scan *es);

/* What was archived as this snapshot sees it. Nothing: first_in_store is 1. CORRUPT, IO. */
int snapshot_archive(struct snapshot *sn, struct archived_state *ret, struct azoth_error *err);
/* The recorded segment that has event id: 1 and *ret, 0 when none has it, CORRUPT (about.last is its, by its key), IO. */
int snapshot_archive_of(struct snapshot *sn, uint64_t id, struct archived_entry *ret,
                        struct azoth_error *err);
/* Calls each for every recorded segment, in the order of events, until it returns other than 0, which is
 * returned. An entry is valid during its call. CORRUPT, IO, NOMEM. */
int snapshot_archives(struct snapshot *sn,
                      int (*each)(void *arg, const struct archived_entry *e,
                                  struct azoth_error *err),
                      void *arg, struct azoth_error *err);

/*
 * Opens a recorded segment's file for the caller, who closes it; where it lies by the newest record, when it was moved
 * since e was read. It is the one that was recorded. NOT_FOUND, PERMISSION, CORRUPT, FORMAT, IO, NOMEM; err names the
 * file. Once it is open a move does not matter.
 */
int store_archive_open(struct store *s, const struct archived_entry *e, struct archivefile **ret,
                       struct azoth_error *err);

/* What stands in an event beside its contents. */
struct event_stamp {
    uint64_t txn;
    int64_t time_ns;
    uint32_t check; /* of its record: record_checksum() */
};
/* Of one event: 1 and *ret, 0 when there is none; CORRUPT, FORMAT, GAP, IO, NOMEM. */
int snapshot_event(struct snapshot *sn, uint64_t id, struct event_stamp *ret,
                   struct azoth_error *err);

/* The first event of this transaction: 1 and *ret_id, 0 when it logged none; CORRUPT, FORMAT, GAP, IO,
 * NOMEM. Events lie in the order of transactions: some twenty looks, the fewer the newer it is. */
int snapshot_event_of_txn(struct snapshot *sn, uint64_t txn, uint64_t *ret_id,
                          struct azoth_error *err);

/* The commit that this request id made: 1 and outputs (duplicate is set in *ret), 0 when it is not
 * remembered. */
int snapshot_find_id(struct snapshot *sn, const uint8_t id[AZOTH_ID_BYTES], struct txn_result *ret,
                     uint64_t *ret_content, struct azoth_error *err);

/* The request ids that are remembered, in the order of their commits. */
struct id_entry {
    uint64_t age, born_ms; /* its place in that order; batch_head's running_ms then */
    uint8_t id[AZOTH_ID_BYTES];
    struct azoth_bytes record; /* STORE_ID_RECORD bytes, checked; borrows the snapshot */
};
struct id_scan;
int id_scan_open(struct snapshot *sn, struct id_scan **ret, struct azoth_error *err);
/* 1 and *ret, 0 at the end, CORRUPT (also: ids and ids_age do not agree), IO. */
int id_scan_next(struct id_scan *is, struct id_entry *ret, struct azoth_error *err);
void id_scan_close(struct id_scan *is); /* NULL is accepted */
/* Whether ids and ids_age tell of the same commits, each in its own order: faster than looking each up. 0, CORRUPT, IO. */
int ids_agree(struct snapshot *sn, struct azoth_error *err);

/* The id record, shared with the writer: u64 txn, first event, last event, content, age | u32 keys
 * written, deleted, missing | u32 checksum (low half of XXH3_64bits over id and record). */
#define STORE_ID_RECORD 56u
void store_id_encode(unsigned char out[STORE_ID_RECORD], const uint8_t id[AZOTH_ID_BYTES],
                     const struct txn_result *r, uint64_t content, uint64_t age);
int store_id_decode(const uint8_t id[AZOTH_ID_BYTES], struct azoth_bytes rec,
                    struct txn_result *ret, uint64_t *ret_content, uint64_t *ret_age);

/* The format record, shared with the writer: u32 magic "AZF1" | u32 format | uuid | u64 created_ns
 * | u64 checksum (XXH3_64bits over the 32 bytes before). Decoded from STORE_FORMAT_LEAST on; *ret_format may
 * be NULL. CORRUPT, FORMAT. */
#define STORE_FORMAT_RECORD 40u
void store_format_encode(unsigned char out[STORE_FORMAT_RECORD], const uint8_t uuid[16],
                         uint64_t created_ns);
int store_format_decode(struct azoth_bytes rec, uint8_t ret_uuid[16], uint64_t *ret_created_ns,
                        uint32_t *ret_format, struct azoth_error *err);

/* Clears LMDB reader slots of dead processes; *ret_cleared (may be NULL). May block behind a
 * process stopped in LMDB's reader mutex: never on the commit thread. */
int store_clear_dead_readers(struct store *s, int *ret_cleared);

/* One that reads the store now. */
struct store_reader {
    uint64_t pid, thread;
    uint64_t snapshot; /* LMDB's number of the commit that it sees */
    uint64_t behind;   /* commits since: their pages stay in use for it */
};
/* All of them, at most cap; *ret_n. Takes no lock, so that nobody can hold it up. IO. */
int store_readers(struct store *s, struct store_reader *out, uint32_t cap, uint32_t *ret_n);

struct store_usage {
    uint64_t file_bytes, map_bytes, state_keys, ids;
    uint64_t events;                   /* of the log: in LMDB and in segments */
    uint64_t events_archived;          /* of these, in segments alone */
    uint64_t redo_records, redo_bytes; /* bytes of their pages */
    uint32_t readers, readers_max;
};
int store_usage(struct store *s, struct store_usage *ret, struct azoth_error *err);

#endif
