/*
 * internal.h - what the files of libazoth share.
 *
 *   struct azoth        a handle; several may be open on one directory
 *   struct local        one per directory and process: store, embedded writer, the attachment
 *   struct attachment   a segment and our row in it; replaced when the segment is retired, kept until
 *                       its last transaction has ended
 */
#ifndef CLIENT_INTERNAL_H
#define CLIENT_INTERNAL_H

#include "client/azoth.h"
#include "core/error.h"
#include "core/store.h"
#include "core/txn.h"
#include "core/wire.h"
#include "shm/pause.h"
#include "workers/preflight.h"
#include "writer/writer.h"

#include <pthread.h>

#define CLIENT_POOL 1024u /* preflights kept, and asynchronous transactions in flight */

struct attachment {
    struct segment *segment;
    struct participant *participant;
    struct store *store; /* borrowed from local */
    unsigned users;      /* under local.lock */
    struct preflight *pool[CLIENT_POOL];
    uint32_t pool_len;
};

struct local {
    dev_t device;
    ino_t inode;
    char dir[4096];
    unsigned users;
    struct local *next;
    pthread_mutex_t lock; /* attachment and its users, pools */
    struct store *store;
    struct attachment *attachment;
    uint32_t attach_wait_ms;
    char name[32];

    struct writer *writer; /* embedded */
    pthread_mutex_t step;  /* whoever runs writer_step() */
    pthread_t writer_thread, helper_thread;
    pthread_mutex_t helper_lock;
    pthread_cond_t helper_wake;
    _Atomic int stopping, failed;
};

struct remote;

/* An asynchronous transaction. Its segment was retired before it was submitted when it has neither
 * attachment nor preflight: it goes on the next one. */
struct operation {
    struct azoth_txn *txn;
    azoth_done done;
    void *arg;
    struct attachment *attachment;
    struct preflight *preflight;
    uint64_t deadline_ns;
    struct azoth_error refused; /* without a preflight: why it has ended, if code is set */
};

struct azoth {
    struct local *local; /* or */
    struct remote *remote;
    uint32_t deadline_ms;
    int wait_paused, read_only;
    pthread_mutex_t lock; /* operations; their number may be read without it */
    struct operation *operation[CLIENT_POOL];
    _Atomic uint32_t operations;
    uint32_t done_seen;
    unsigned char id_prefix[10];
    _Atomic uint64_t id_next;
    unsigned generation; /* of the process that opened it */
    /* its pause or seal, under lock; pause_on NULL: it has none (pause.c) */
    struct attachment *pause_on;
    struct pause pause;
    int pause_seals; /* it is a seal */
};

/* 0, or FORKED in a child of the process that opened the handle: its locks, threads, LMDB slots and
 * sockets are the parent's. Looked at before anything of the handle is touched. */
int handle_check(const struct azoth *db, struct azoth_error *err);

struct callback {
    azoth_callback fn;
    void *arg;
    int execute;
};

struct azoth_txn {
    struct azoth *db;
    struct txn_builder builder;
    uint8_t id[AZOTH_ID_BYTES];
    uint32_t deadline_ms;
    int wait_paused;
    struct azoth_error error; /* of the first append that failed */
    struct buf scratch;
    struct callback callback[8];
    uint32_t callbacks;
    /* while a callback runs */
    struct preflight_view *view;
    int emitting;
};

/* 1 while this thread is inside a transaction's callback. */
extern __thread int client_in_callback;

int local_open(const char *dir, const struct azoth_options *opt, struct local **ret,
               struct azoth_error *err);
void local_close(struct local *l);
/* A living attachment, waiting for a writer at most until deadline_ns (0: does not wait). NO_WRITER,
 * RETIRED, ... */
int local_attach(struct local *l, uint64_t deadline_ns, struct attachment **ret,
                 struct azoth_error *err);
void local_hold(struct local *l, struct attachment *a); /* one more user */
void local_release(struct local *l, struct attachment *a);
struct preflight *local_preflight(struct local *l, struct attachment *a);
void local_preflight_put(struct local *l, struct attachment *a, struct preflight *f);
/* The time for preflight_step(). After the embedded writer failed nobody will answer: then every
 * deadline has passed, and what was submitted is told as unknown at once. */
uint64_t local_now(const struct local *l);
/* Embedded: runs a step if nobody else does; 1 when it decided something. */
int local_step(struct local *l);

/* azoth_init(), with the choice of having no hash chain. */
int client_init(const char *dir, int chain_off, struct azoth_error *err);

/* 0, FORKED, or `code` inside a transaction's callback. */
int client_allowed(const struct azoth *db, int code, struct azoth_error *err);

/* Waiting for a commit: begin, look, and if there was nothing wait at most ns (and never over
 * SHM_WAIT_SLICE_NS), end. Without a writer, or read-only, nobody wakes: some milliseconds. */
struct watch {
    struct attachment *attachment;
    uint32_t seen;
};
void watch_begin(struct azoth *db, struct watch *w);
void watch_wait(const struct watch *w, uint64_t ns);
void watch_end(struct azoth *db, const struct watch *w);

/* Ends the handle's pause or seal, and waits for nobody. */
void client_pause_end(struct azoth *db);

/* A few milliseconds, while there is nothing to sleep on. */
void client_nap(void);

/* The request that preflight gets for this transaction. */
void txn_request(struct azoth_txn *t, uint64_t deadline_ns, struct preflight_request *ret);
void commit_info_of(const struct txn_result *r, struct azoth_commit_info *ret);

/*
 * Has the writer do a control operation (writer/control.h) and waits until it is durable, at most until
 * deadline_ns. *ret has the head at which it was done: txn and last_event. UNSUPPORTED for a remote or
 * read-only handle, what the operation answers, and what azoth_commit() answers: after OUTCOME_UNKNOWN it
 * may be repeated.
 */
int client_control(struct azoth *db, const char *operation, struct azoth_bytes argument,
                   uint64_t deadline_ns, struct txn_result *ret, struct azoth_error *err);

/*
 * Executes any request, attached or remote, and yields its answer, whose bytes lie in *store. Errors
 * of the request are in the answer (code, message); the return value is for what could not be asked.
 */
int client_request(struct azoth *db, const struct wire_request *req, struct buf *store,
                   struct wire_answer *ret, struct azoth_error *err);

/* Remote handles (remote.c). */
int remote_open(const char *endpoints, struct remote **ret, struct azoth_error *err);
void remote_close(struct remote *r);
int remote_call(struct remote *r, const struct wire_request *req, uint64_t deadline_ns,
                struct buf *store, struct wire_answer *ret, struct azoth_error *err);
/* done is called from remote_poll. */
typedef void (*remote_done)(void *arg, int code, const struct wire_answer *answer,
                            const struct azoth_error *err);
int remote_submit(struct remote *r, const struct wire_request *req, uint64_t deadline_ns,
                  remote_done done, void *arg, struct azoth_error *err);
int remote_poll(struct remote *r, uint64_t timeout_ns);
uint32_t remote_in_flight(struct remote *r);

#endif
