/*
 * run.h - azoth run: one supervised process (run_child.c), the whole of them (run.c), and what is
 * shown of them (run_show.c).
 *
 *   WAITING ── run_child_start ─► STARTING ── READY=1 ─► READY
 *      ▲                             │                     │
 *      └──── died: after a pause ────┴─────────────────────┤
 *   FAILED ◄── exit code 100 ────────┴─────────────────────┤   (a projector whose files have changed
 *      └───────────► WAITING                               │    since it was started is tried again)
 *   STOPPED ◄── died ── STOPPING ◄── run_child_stop ───────┘
 */
#ifndef CLIENT_CMD_RUN_H
#define CLIENT_CMD_RUN_H

#include "core/buf.h"

#include <sys/types.h>

/* How a child is started: `azoth internal-child PPID PROGRAM ARGUMENTS` asks the kernel for SIGTERM
 * when its parent dies, then becomes the program. posix_spawn has no way to say so. */
#define RUN_CHILD_COMMAND "internal-child"
int run_child_main(int argc, char **argv);

#define RUN_ARGS_MAX 80u

enum run_rank {
    RANK_WRITER,
    RANK_WORKER,
    RANK_FEED,
    RANK_PROJECTOR,
    RANK_EFFECTS, /* their workers: they end before who takes their reports */
    RANKS
}; /* order of starting */
enum run_state {
    CHILD_WAITING,
    CHILD_STARTING,
    CHILD_READY,
    CHILD_STOPPING,
    CHILD_STOPPED,
    CHILD_FAILED
};

/* Of a projector: which definition, which file, and which library of handlers in C it was started with. */
struct run_mark {
    uint64_t inode[3];
    int64_t written_ns[3];
};
/* instance: "NAME" or "NAME:I-K". What is missing is 0. */
void run_mark_of(const char *dir, const char *instance, struct run_mark *ret);

struct run_child {
    char label[80]; /* "writer", "worker-1", "projector-accounts" */
    enum run_rank rank;
    enum run_state state;
    char *argv[RUN_ARGS_MAX]; /* of the program; strings are the child's own */
    int argc;
    pid_t pid; /* 0: none */
    int notify_fd, log_fd;
    char notify_path[108];
    struct buf line; /* of its log, unfinished */
    unsigned deaths;
    int exit_code;                 /* of the last one that ended; -1: none did, or by a signal */
    int killed;                    /* we sent SIGKILL; 2: because it did not stop in time */
    uint64_t started_ns, heard_ns; /* heard: the watchdog's */
    uint64_t ready_ns;             /* 0: not yet, this time */
    uint64_t restart_ns, backoff_ns, kill_ns;
    const char *instance; /* of a projector: one of argv; NULL: it is none */
    struct run_mark mark;
};

/* A line of the supervisor's own, or of a child, on standard error. */
void run_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Called before a line is printed: takes the live line off the terminal. */
extern void (*run_before_line)(void);

/* Binds the child's notification socket at RUN/notify-INDEX.sock. 0 or an error. */
int run_child_init(struct run_child *c, const char *run_dir, unsigned index,
                   struct azoth_error *err);
void run_child_fini(struct run_child *c);
/* Appends an argument (copied). */
int run_child_arg(struct run_child *c, const char *arg, struct azoth_error *err);

/* Starts it; a failure to start counts as a death. env: NULL-terminated, beside NOTIFY_SOCKET. */
void run_child_start(struct run_child *c, char *const *env, uint64_t now_ns);
/* SIGTERM, and SIGKILL after grace_ns. */
void run_child_stop(struct run_child *c, uint64_t now_ns, uint64_t grace_ns);
void run_child_kill(struct run_child *c);
/* Reads its log and its notifications, without blocking. */
void run_child_read(struct run_child *c, uint64_t now_ns);
/* Has it died? Then says so and decides: WAITING, FAILED or STOPPED. */
void run_child_reap(struct run_child *c, uint64_t now_ns);
/* Kills it when it is silent, slow to start or slow to stop. */
void run_child_deadlines(struct run_child *c, uint64_t now_ns);
/* When run_child_deadlines or a restart is due; UINT64_MAX: never. */
uint64_t run_child_due(const struct run_child *c);

/* What is shown once a second: a plain line (progress), or the live line of a terminal.
 * Zero-initialise. */
struct run_show {
    int progress;
    uint64_t tick_ns, transactions; /* when it was shown last, and the count then */
};
void run_show_tick(struct run_show *s, const char *dir, unsigned ready, unsigned children,
                   uint64_t now_ns);
uint64_t run_show_due(const struct run_show *s);
void run_show_off(void); /* takes the live line off the terminal */

/* Tells in RUN/supervisor.json how the projectors among n children are, when that has changed. *told begins at 0. */
void run_told(uint64_t *told, const char *run_dir, const struct run_child *child, unsigned n);
void run_told_end(const char *run_dir);

static inline int run_child_lives(const struct run_child *c)
{
    return c->pid != 0;
}

#endif
