/* systemctl.h - systemctl, as a process: libsystemd has nothing of what it does. */
#ifndef CLIENT_CMD_SYSTEMCTL_H
#define CLIENT_CMD_SYSTEMCTL_H

#include "core/buf.h"

/*
 * Runs it; its output goes into out, or to ours when that is NULL. within_ms 0: waits until it ends, and shows its
 * complaints. Else it is killed after so long, and says nothing. 0 and *ret_status (128: it was ended by a signal);
 * UNSUPPORTED: there is none; IO; TIMEOUT; NOMEM.
 */
int systemctl_run(char *const argv[], struct buf *out, unsigned within_ms, int *ret_status,
                  struct azoth_error *err);

#endif
