/* verify.h - azoth verify: the store's part (verify_store.c) and its projections' (verify.c). */
#ifndef CLIENT_CMD_VERIFY_H
#define CLIENT_CMD_VERIFY_H

#include "client/cmd/cmd.h"

/*
 * Checks the whole store in dir (core/storecheck.h) and tells each finding: on standard error, with json as
 * "store" of the object that j is in. Exit code 0: nothing was found; 1: something was; else that of the failure. A signal
 * ends it. *ret_store is opened, and the caller's to close; it stays NULL when it can not be: then nothing can be read there.
 */
int verify_store(const char *dir, struct store **ret_store, int json, struct json_text *j);

#endif
