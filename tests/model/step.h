/*
 * step.h - put before every line of the product that the model runs (gcc -include).
 *
 * Each access to an atomic becomes a call: if the address is one that the model watches, the actor
 * stops there and the explorer decides who goes on. The product's sources are compiled unchanged.
 *
 * All accesses are sequentially consistent here, whatever order the source asks for: see README.md
 * for the weaker ones and why they are no weaker in effect. A weak compare-and-swap never fails for
 * no reason: its only use is a loop that would do the same once more.
 */
#ifndef MODEL_STEP_H
#define MODEL_STEP_H

#include <stdatomic.h>
#include <stdint.h>

enum model_change { MODEL_SWAP, MODEL_ADD, MODEL_AND, MODEL_OR };

uint64_t model_load(const void *at, unsigned bytes);
void model_store(void *at, unsigned bytes, uint64_t value);
uint64_t model_change(void *at, unsigned bytes, enum model_change how, uint64_t value);
int model_cas(void *at, unsigned bytes, void *expected, uint64_t value);

#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_and
#undef atomic_fetch_and_explicit
#undef atomic_fetch_or
#undef atomic_fetch_or_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak
#undef atomic_compare_exchange_weak_explicit

#define MODEL_TYPE(p) __typeof__(+*(p))
#define MODEL_CHANGE(p, how, v)                                                                    \
    ({                                                                                             \
        MODEL_TYPE(p)                                                                              \
        model_old = (MODEL_TYPE(p))model_change((void *)(p), sizeof *(p), (how), (uint64_t)(v));   \
        model_old;                                                                                 \
    })

#define atomic_load(p)                     ((MODEL_TYPE(p))model_load((const void *)(p), sizeof *(p)))
#define atomic_load_explicit(p, o)         atomic_load(p)
#define atomic_store(p, v)                 model_store((void *)(p), sizeof *(p), (uint64_t)(v))
#define atomic_store_explicit(p, v, o)     atomic_store(p, v)
#define atomic_exchange(p, v)              MODEL_CHANGE(p, MODEL_SWAP, v)
#define atomic_exchange_explicit(p, v, o)  MODEL_CHANGE(p, MODEL_SWAP, v)
#define atomic_fetch_add(p, v)             MODEL_CHANGE(p, MODEL_ADD, v)
#define atomic_fetch_add_explicit(p, v, o) MODEL_CHANGE(p, MODEL_ADD, v)
#define atomic_fetch_and(p, v)             MODEL_CHANGE(p, MODEL_AND, v)
#define atomic_fetch_and_explicit(p, v, o) MODEL_CHANGE(p, MODEL_AND, v)
#define atomic_fetch_or(p, v)              MODEL_CHANGE(p, MODEL_OR, v)
#define atomic_fetch_or_explicit(p, v, o)  MODEL_CHANGE(p, MODEL_OR, v)
#define atomic_compare_exchange_strong(p, e, v)                                                    \
    model_cas((void *)(p), sizeof *(p), (e), (uint64_t)(v))
#define atomic_compare_exchange_weak(p, e, v) atomic_compare_exchange_strong(p, e, v)

/* The kernel, the clock and the store belong to the model. */
#define shm_wait       model_wait
#define shm_wake       model_wake
#define shm_wait_bits  model_wait_bits
#define shm_wake_bits  model_wake_bits
#define clock_mono_ns  model_mono_ns
#define clock_wall_ns  model_wall_ns
#define ensure_failed  model_ensure_failed
#define snapshot_begin model_snapshot_begin
#define snapshot_end   model_snapshot_end

#endif
