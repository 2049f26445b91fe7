/* fuzz_txn.c - any bytes as a transaction image: refused, or what the builder makes of its items.
 */
#include "core/error.h"
#include "core/txn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct txn_builder again;
    struct azoth_bytes image = bytes_of(data, size);
    struct azoth_error err = {0};
    struct txn_item it;
    size_t at = 0;
    int rc = txn_check(image, &err);
    /* Stepping stays inside the image even where nobody has checked it. */
    while (txn_next(image, &at, &it))
        ensure(at <= size);
    if (rc) {
        ensure(err.code == rc && err.message[0]);
        return 0;
    }
    txn_builder_clear(&again);
    at = 0;
    while (txn_next(image, &at, &it))
        ensure(txn_add(&again, &it, &err) == 0);
    ensure(txn_items(image) == again.items);
    ensure(bytes_eq(txn_image(&again), image));
    return 0;
}
