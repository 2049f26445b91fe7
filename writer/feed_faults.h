/*
 * feed_faults.h - the feed's send, and in a build with AZOTH_FAULTS what a transport may do to it.
 *
 * AZOTH_FEED_FAULTS="loss=10,dup=10,reorder=10,late=10,seed=N" in the environment, in percent. A
 * batch that is held back is sent behind a later one, or never.
 */
#ifndef WRITER_FEED_FAULTS_H
#define WRITER_FEED_FAULTS_H

#include "core/pipe.h"

#ifdef AZOTH_FAULTS
/* As pipe_send() without waiting: 0, BUSY, USAGE, IO. One thread. */
int feed_send(struct pipe_end *out, struct azoth_bytes m);
/* Before a socket is closed: what is held back for it is dropped. */
void feed_send_forget(const struct pipe_end *out);
#else
static inline int feed_send(struct pipe_end *out, struct azoth_bytes m)
{
    return pipe_send(out, m, 0, NULL);
}
static inline void feed_send_forget(const struct pipe_end *out)
{
    (void)out;
}
#endif

#endif
