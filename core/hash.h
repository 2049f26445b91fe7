/*
 * hash.h - BLAKE2b-256 without a key (RFC 7693): the hash chain, digests of databases and of files.
 *
 * By libtomcrypt's portable code: libsodium's for AVX2, which it picks where there is AVX2, is slower by
 * a third on processors with many units (177 and 110 ns for 125 bytes on an AMD EPYC). Both give the
 * same bytes.
 *
 * No call blocks, allocates or fails. One thread at a time for one struct hash.
 */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_BYTES 32u

struct hash {
    uint64_t state[52]; /* libtomcrypt's */
    size_t len;         /* of what is gathered: a call for each short piece costs a fifth more */
    unsigned char gathered[512];
};

void hash_begin(struct hash *h);
void hash_add(struct hash *h, const void *p, size_t n); /* p may be NULL when n is 0 */
void hash_end(struct hash *h, unsigned char ret[HASH_BYTES]);
void hash_once(unsigned char ret[HASH_BYTES], const void *p, size_t n);

#endif
