/*
 * generation.h - the generations of a projection's file, and the one that is being built beside them.
 *
 *   STEM.db          a symbolic link to the generation that serves (STEM: split.h)
 *   STEM.gN.db       a generation. Others than the one that serves are kept until they are pruned
 *   STEM.rebuild.db  is being filled from event 1, by who holds STEM.rebuild.lock
 *   STEM.lock        is held by who projects into the one that serves
 *
 * Adopting gives STEM.rebuild.db the name of the next generation (a hard link), lets the link point to it
 * (a rename), and removes its old name, each made durable before the next. It is done by who holds both locks:
 * the projector, asked by the command, or the command itself when none runs. A reader that has the old
 * file open goes on reading it as it was left.
 *
 *   who dies, and when                       what is left, and who goes on
 *   the rebuilder, filling                   STEM.rebuild.db at its cursor; the next rebuild resumes it
 *   the rebuilder, having asked              the projector adopts, or has died as below
 *   the one that adopts, before the hard link    as filling
 *   ... before the link points to it         both names, one file; the next rebuild resumes it under the old name
 *   ... before the old name is removed       it serves; the next rebuild removes the name, and begins anew
 *   the projector, having adopted            the next one opens what the link says
 */
#ifndef PROJECTOR_GENERATION_H
#define PROJECTOR_GENERATION_H

#include "core/azoth_base.h"

/*
 * Takes the lock DIR/STEM.lock or DIR/STEM.rebuild.lock without waiting: *ret_fd, until it is closed.
 * DUPLICATE: another process has it. IO, PERMISSION. `suffix` is "" or ".rebuild".
 */
int generation_lock(const char *dir, const char *stem, const char *suffix, int *ret_fd,
                    struct azoth_error *err);

/* The number of the generation that serves, and its file; 0: there is none yet. DUPLICATE: no link lies there. */
int generation_current(const char *dir, const char *stem, uint64_t *ret, struct azoth_error *err);

/* The same; lets the link point to generation 1, which need not be there, when there is none. */
int generation_current_or_first(const char *dir, const char *stem, uint64_t *ret,
                                struct azoth_error *err);

/* The path of generation n, or with 0 of the file that is being built. USAGE: it is too long. */
int generation_path(char *out, size_t size, const char *dir, const char *stem, uint64_t n,
                    struct azoth_error *err);

/* Calls fn with each generation that lies there, in no order, until it returns an error. */
typedef int (*generation_fn)(void *arg, uint64_t n);
int generation_each(const char *dir, const char *stem, generation_fn fn, void *arg,
                    struct azoth_error *err);

/* ---- for the holder of STEM.rebuild.lock ---- */

/*
 * What a death left: 1 when there is a file to resume, 0 when there is none (also after one that was
 * adopted already lost its old name here), or IO, PERMISSION.
 */
int generation_look(const char *dir, const char *stem, struct azoth_error *err);
/* Makes the file that is to be built, empty, when it is not there. Nobody here has it open. IO, PERMISSION, NOSPACE. */
int generation_make(const char *dir, const char *stem, struct azoth_error *err);
/* Removes the file that is being built. *ret_had: there was one. */
int generation_abort(const char *dir, const char *stem, int *ret_had, struct azoth_error *err);

/* ---- for the holder of STEM.lock ---- */

/*
 * STEM.rebuild.db becomes the next generation, *ret; the caller holds STEM.rebuild.lock too. Nobody may
 * have it open, and its log must be empty: BUSY. NOT_FOUND: there is none. IO, NOSPACE, PERMISSION.
 */
int generation_adopt(const char *dir, const char *stem, uint64_t *ret, struct azoth_error *err);
/* The newest generation before the one that serves: NOT_FOUND: there is none. */
int generation_before(const char *dir, const char *stem, uint64_t *ret, struct azoth_error *err);
/* Generation n serves from now on. NOT_FOUND: there is none, or it is not built to its end. IO, PERMISSION. */
int generation_serve(const char *dir, const char *stem, uint64_t n, struct azoth_error *err);
/* Removes all but the one that serves; *ret: so many. */
int generation_prune(const char *dir, const char *stem, uint64_t *ret, struct azoth_error *err);

#endif
