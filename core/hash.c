#include "core/hash.h"

#include "core/error.h"

#include <string.h>
#include <tomcrypt.h>

_Static_assert(sizeof(hash_state) <= sizeof(((struct hash *)0)->state), "room for the state");
_Static_assert(_Alignof(hash_state) <= _Alignof(uint64_t), "and aligned");

static hash_state *state(struct hash *h)
{
    return (void *)&h->state;
}

/* It fails for arguments that it does not take alone. */
static void put(struct hash *h, const void *p, size_t n)
{
    int rc = blake2b_process(state(h), p, n);
    ensure(rc == CRYPT_OK);
}

void hash_begin(struct hash *h)
{
    int rc = blake2b_init(state(h), HASH_BYTES, NULL, 0);
    ensure(rc == CRYPT_OK);
    h->len = 0;
}

void hash_add(struct hash *h, const void *p, size_t n)
{
    if (n > sizeof h->gathered - h->len) {
        put(h, h->gathered, h->len);
        h->len = 0;
    }
    if (n > sizeof h->gathered) {
        put(h, p, n);
    } else if (n) {
        memcpy(h->gathered + h->len, p, n);
        h->len += n;
    }
}

void hash_end(struct hash *h, unsigned char ret[HASH_BYTES])
{
    put(h, h->gathered, h->len);
    int rc = blake2b_done(state(h), ret);
    ensure(rc == CRYPT_OK);
}

void hash_once(unsigned char ret[HASH_BYTES], const void *p, size_t n)
{
    struct hash h;
    hash_begin(&h);
    hash_add(&h, p, n);
    hash_end(&h, ret);
}
