/*
 * backupfile_sum.c - a member's digest, made beside its reading: BLAKE2b takes as long as zstd does.
 *
 * Pieces are copied into one of two slots, which a thread of its own digests in their order. It is made with the first
 * large piece; small members never need one, and without one (no memory for it) all is done at once.
 */
#include "writer/backupfile_parts.h"

#include <pthread.h>
#include <string.h>

#define SLOTS      2u
#define SLOT_BYTES 262144u
#define LARGE      32768u /* bytes of a piece that are worth another thread */

struct backup_sum {
    struct hash state;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int running, ending; /* there is a thread; it is to end */
    /* Under the lock: slots that are filled, and the one that is the oldest of them. */
    unsigned filled, oldest;
    size_t len[SLOTS];
    unsigned char slot[SLOTS][SLOT_BYTES];
};

static void *sum_main(void *arg)
{
    struct backup_sum *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->filled && !s->ending)
            pthread_cond_wait(&s->changed, &s->lock);
        if (!s->filled)
            break;
        unsigned at = s->oldest;
        pthread_mutex_unlock(&s->lock);
        hash_add(&s->state, s->slot[at], s->len[at]);
        pthread_mutex_lock(&s->lock);
        s->oldest = (at + 1) % SLOTS;
        s->filled--;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

struct backup_sum *backup_sum_new(void)
{
    struct backup_sum *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    return s;
}

/* Until the thread has nothing to do: the state is the caller's then. */
static void settle(struct backup_sum *s)
{
    if (!s->running)
        return;
    pthread_mutex_lock(&s->lock);
    while (s->filled)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

void backup_sum_begin(struct backup_sum *s)
{
    settle(s);
    hash_begin(&s->state);
}

static void hand_over(struct backup_sum *s, const unsigned char *p, size_t n)
{
    pthread_mutex_lock(&s->lock);
    while (s->filled == SLOTS)
        pthread_cond_wait(&s->changed, &s->lock);
    unsigned at = (s->oldest + s->filled) % SLOTS;
    pthread_mutex_unlock(&s->lock); /* a slot that is not filled is ours */
    memcpy(s->slot[at], p, n);
    s->len[at] = n;
    pthread_mutex_lock(&s->lock);
    s->filled++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void backup_sum_add(struct backup_sum *s, const void *p, size_t n)
{
    const unsigned char *at = p;
    if (!s->running && n >= LARGE)
        s->running = pthread_create(&s->thread, NULL, sum_main, s) == 0;
    if (!s->running) {
        hash_add(&s->state, at, n);
        return;
    }
    while (n) {
        size_t piece = n < SLOT_BYTES ? n : SLOT_BYTES;
        hand_over(s, at, piece);
        at += piece;
        n -= piece;
    }
}

void backup_sum_end(struct backup_sum *s, unsigned char ret[BACKUPFILE_DIGEST])
{
    settle(s);
    hash_end(&s->state, ret);
}

void backup_sum_free(struct backup_sum *s)
{
    if (!s)
        return;
    if (s->running) {
        pthread_mutex_lock(&s->lock);
        s->ending = 1;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
