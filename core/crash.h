/*
 * crash.h - named places where a death matters, for fault tests. Empty unless AZOTH_FAULTS is set at
 * build time; then AZOTH_CRASH="name" or "name:N" in the environment makes the process die by
 * SIGKILL at the N-th passing (default 1), or stop itself with AZOTH_CRASH_ACTION=stop.
 */
#ifndef CORE_CRASH_H
#define CORE_CRASH_H

#define CRASH_POINTS(X)                                                                            \
    X(preflight_claimed)                                                                           \
    X(preflight_one_stripe)                                                                        \
    X(preflight_locked)                                                                            \
    X(preflight_submitted)                                                                         \
    X(writer_epoch)                                                                                \
    X(writer_taken)                                                                                \
    X(writer_applied)                                                                              \
    X(writer_committed)                                                                            \
    X(writer_one_completed)                                                                        \
    X(writer_completed)                                                                            \
    X(reaper_chosen)                                                                               \
    X(reaper_marked)                                                                               \
    X(reaper_stripes_released)                                                                     \
    X(feed_sent)                                                                                   \
    X(projector_applied)                                                                           \
    X(projector_committed)

enum crash_point {
#define CRASH_X(name) CRASH_##name,
    CRASH_POINTS(CRASH_X)
#undef CRASH_X
        CRASH_POINT_COUNT
};

/*
 * Deliberate defects, to show that a test which looks for their effects finds them. AZOTH_BREAK="name"
 * in the environment chooses one; BROKEN() is 0 in every other build.
 */
#define BREAKS(X)                                                                                  \
    X(locks)        /* stripes are taken without looking who holds them */                         \
    X(early_answer) /* results are told before their batch is committed */

enum broken {
#define BREAK_X(name) BREAK_##name,
    BREAKS(BREAK_X)
#undef BREAK_X
        BREAK_COUNT
};

#ifdef AZOTH_FAULTS
int broken(enum broken what); /* any thread */
#define BROKEN(name) broken(BREAK_##name)
#else
#define BROKEN(name) 0
#endif

#ifdef AZOTH_FAULTS
void crash_point(enum crash_point at); /* any thread; does not return when it is the one */
#define CRASH_POINT(name) crash_point(CRASH_##name)
#else
#define CRASH_POINT(name) ((void)0)
#endif

#endif
