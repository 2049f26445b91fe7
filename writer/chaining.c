#include "writer/chaining.h"

#include "core/crash.h"
#include "core/error.h"
#include "core/hash.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of text that are worth another thread: hashing them takes 30 us, waking it 5 to 50. The model's are fewer. */
#ifndef CHAINING_LARGE
#define CHAINING_LARGE 32768u
#endif

/* Memory that is kept for the next batch. */
#define KEEP_BYTES (4u << 20)

enum { EMPTY, OFFERED, TAKEN, DONE };

/* The texts of transactions: u64 length | text, whose first bytes, the value before it, are not known yet. */
struct texts {
    struct buf bytes;
    uint64_t txn, event; /* the last ones in it */
};

struct chaining {
    struct chain at;       /* of what was committed and hashed */
    struct chain next;     /* with a small batch in hand */
    struct texts gathered; /* of the batch in hand, until its head */
    int pending;           /* the thread has the batch in hand */
    int trailing;          /* it has the last one that was committed */
    int trails; /* the last record that was committed does, also when that one is hashed */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int running, refused; /* there is a thread; there can be none */
    /* Under the lock. */
    int state, ending;
    struct texts offered; /* the commit thread's while EMPTY or DONE */
    uint8_t value[CHAIN_BYTES];
};

static void hash_texts(struct texts *t, uint8_t value[CHAIN_BYTES])
{
    for (size_t at = 0; at < t->bytes.len;) {
        uint64_t len = get_u64(t->bytes.ptr + at);
        unsigned char *text = t->bytes.ptr + at + sizeof len;
        memcpy(text, value, CHAIN_BYTES);
        hash_once(value, text, len);
        at += sizeof len + len;
    }
}

static void *chaining_main(void *arg)
{
    struct chaining *ch = arg;
    pthread_mutex_lock(&ch->lock);
    for (;;) {
        while (ch->state != OFFERED && !ch->ending)
            pthread_cond_wait(&ch->changed, &ch->lock);
        if (ch->ending)
            break;
        ch->state = TAKEN;
        pthread_mutex_unlock(&ch->lock);
        CRASH_POINT(chain_taken);
        hash_texts(&ch->offered, ch->value);
        pthread_mutex_lock(&ch->lock);
        ch->state = DONE;
        pthread_cond_broadcast(&ch->changed);
    }
    pthread_mutex_unlock(&ch->lock);
    return NULL;
}

struct chaining *chaining_new(const struct chain *at)
{
    struct chaining *ch = calloc(1, sizeof *ch);
    if (!ch)
        return NULL;
    pthread_mutex_init(&ch->lock, NULL);
    pthread_cond_init(&ch->changed, NULL);
    ch->at = *at;
    return ch;
}

/* With the first large batch: many a writer never sees one. Signals are the other threads'. */
static int has_thread(struct chaining *ch)
{
    sigset_t all, before;
    if (ch->running || ch->refused)
        return ch->running;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ch->running = pthread_create(&ch->thread, NULL, chaining_main, ch) == 0;
    ch->refused = !ch->running;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ch->running;
}

int chaining_add(struct chaining *ch, const struct event_record *ev, uint32_t n)
{
    size_t len = chain_text_size(ev, n);
    unsigned char *to = buf_grow(&ch->gathered.bytes, sizeof(uint64_t) + len);
    if (!to)
        return AZOTH_ERR_NOMEM;
    put_u64(to, len);
    chain_text(to + sizeof(uint64_t), &ch->at, ev, n);
    ch->gathered.txn = ev[0].txn;
    ch->gathered.event = ev[0].id + n - 1;
    return 0;
}

static void clear(struct texts *t)
{
    if (t->bytes.cap > KEEP_BYTES)
        buf_fini(&t->bytes);
    buf_clear(&t->bytes);
}

static void offer(struct chaining *ch)
{
    struct texts spare = ch->offered;
    pthread_mutex_lock(&ch->lock);
    ch->offered = ch->gathered;
    memcpy(ch->value, ch->at.value, CHAIN_BYTES);
    ch->state = OFFERED;
    pthread_mutex_unlock(&ch->lock);
    pthread_cond_broadcast(&ch->changed);
    ch->gathered = spare;
    ch->pending = 1;
}

/* What the thread has is the commit thread's again. 1: it is hashed. 0: nobody has begun. */
static int take_back(struct chaining *ch)
{
    pthread_mutex_lock(&ch->lock);
    while (ch->state == TAKEN)
        pthread_cond_wait(&ch->changed, &ch->lock);
    int done = ch->state == DONE;
    ch->state = EMPTY;
    pthread_mutex_unlock(&ch->lock);
    return done;
}

/* Puts the chain behind a text. */
static void move(struct chain *c, const struct texts *t, const uint8_t value[CHAIN_BYTES])
{
    memcpy(c->value, value, CHAIN_BYTES);
    c->txn = t->txn;
    c->event = t->event;
}

static void settle(struct chaining *ch)
{
    if (!take_back(ch))
        hash_texts(&ch->offered, ch->value);
    move(&ch->at, &ch->offered, ch->value);
    clear(&ch->offered);
    ch->trailing = 0;
}

void chaining_head(struct chaining *ch, struct chain *ret)
{
    if (ch->trailing)
        settle(ch);
    ch->next = ch->at;
    size_t len = ch->gathered.bytes.len;
    if (len >= CHAINING_LARGE && has_thread(ch)) {
        offer(ch);
    } else if (len) {
        uint8_t value[CHAIN_BYTES];
        memcpy(value, ch->at.value, CHAIN_BYTES);
        hash_texts(&ch->gathered, value);
        move(&ch->next, &ch->gathered, value);
    }
    *ret = ch->next;
}

void chaining_commit(struct chaining *ch)
{
    ch->trails = ch->trailing = ch->pending;
    ch->pending = 0;
    if (!ch->trailing)
        ch->at = ch->next;
    clear(&ch->gathered);
}

void chaining_abort(struct chaining *ch)
{
    if (ch->pending) {
        take_back(ch);
        clear(&ch->offered);
    }
    ch->pending = 0;
    clear(&ch->gathered);
}

int chaining_trails(const struct chaining *ch)
{
    return ch->trails;
}

void chaining_free(struct chaining *ch)
{
    if (!ch)
        return;
    if (ch->running) {
        pthread_mutex_lock(&ch->lock);
        ch->ending = 1;
        pthread_mutex_unlock(&ch->lock);
        pthread_cond_broadcast(&ch->changed);
        pthread_join(ch->thread, NULL);
    }
    pthread_cond_destroy(&ch->changed);
    pthread_mutex_destroy(&ch->lock);
    buf_fini(&ch->gathered.bytes);
    buf_fini(&ch->offered.bytes);
    free(ch);
}
