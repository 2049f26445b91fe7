/*
 * join.c - the product's participant.c on the model's kernel.
 *
 * The lock file's bytes are world.lock: taken and asked for with fcntl, dropped by the kernel when an
 * actor dies. All actors live in one process, so participant.c's list of handles (which only its
 * atfork handler walks) is emptied around each call; nothing stops in between.
 */
#include "tests/model/world.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_FILE 1000000 /* a descriptor that no system call accepts */

static struct participant handle[ACTORS_MAX];
static uint32_t joining;

static int model_fcntl(int fd, int command, struct flock *l)
{
    (void)fd;
    if (command == F_OFD_SETLK) {
        if (!model_lock_call(1, (uint32_t)l->l_start, l->l_type == F_UNLCK)) {
            errno = EAGAIN;
            return -1;
        }
        return 0;
    }
    if (!model_lock_call(0, (uint32_t)l->l_start, 0))
        l->l_type = F_UNLCK;
    return 0;
}

#undef pthread_mutex_lock
#undef pthread_mutex_unlock
#define pthread_mutex_lock(m)   ((void)(m))
#define pthread_mutex_unlock(m) ((void)(m))
#define pthread_once(once, f)   ((void)(once), (void)(f))
#define pthread_atfork(a, b, c) ((void)(a), (void)(b), (void)(c))
#define open(path, flags, mode) ((void)(path), LOCK_FILE)
#define fcntl(fd, command, l)   model_fcntl(fd, command, l)
#define close(fd)               ((void)(fd))
#define calloc(n, size)         (memset(&handle[joining], 0, (size)), (void *)&handle[joining])
#define free(p)                 ((void)(p))
#define getpid()                1

#include "shm/participant.c"

struct participant *model_handle(uint32_t who)
{
    return &handle[who];
}

struct participant *model_join(uint32_t who, uint32_t kind)
{
    struct participant *p = NULL;
    joining = who;
    list = NULL;
    int rc = participant_join(model_segment, "model", (enum participant_kind)kind, "m", &p, NULL);
    list = NULL;
    if (rc)
        model_fail("no row for actor %u", who);
    p->next = NULL;
    W.row_of[who] = (uint8_t)p->index;
    return p;
}
