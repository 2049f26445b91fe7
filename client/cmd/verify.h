/* verify.h - azoth verify: the store's part (verify_store.c) and its projections' (verify.c). */
#ifndef CLIENT_CMD_VERIFY_H
#define CLIENT_CMD_VERIFY_H

#include "client/cmd/cmd.h"

/*
 * Checks the whole store (core/storecheck.h) and tells each finding: on standard error, with json as
 * "store" of the object that j is in. Exit code 0: nothing was found; 1: something was; else that of the failure. A signal
 * ends it.
 */
int verify_store(struct store *s, int json, struct json_text *j);

#endif
