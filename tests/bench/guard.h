/*
 * guard.h - runs the measuring process so that nothing of it stays, however it ends.
 */
#ifndef TESTS_BENCH_GUARD_H
#define TESTS_BENCH_GUARD_H

/*
 * Runs this program again with the arguments argv (argv[0] to NULL), in a new directory below `below`
 * that TMPDIR names to it. Returns its exit code, BENCH_FAILED when it was killed or could not be run. SIGINT,
 * SIGTERM and SIGHUP end it, and then this process by the same signal. The caller has one thread.
 */
int guard_run(char *const argv[], const char *below);

#endif
