/*
 * replay.h - dead letters tried again: by the projector itself, and because somebody asks for it.
 * The thread of the table; each call is at most one transaction and blocks on the disk.
 */
#ifndef PROJECTOR_REPLAY_H
#define PROJECTOR_REPLAY_H

#include "projector/table.h"

/*
 * Tries one letter, when one is due: first those that were released, which waited behind another one and
 * whose order would suffer if newer events were applied before them; then, a round every so often, those
 * that the definition's `replay` takes. Applied, it is gone from the table in the same transaction; failed,
 * that is counted, and after the last attempt it is retired. Neither counts for the breaker, but while that
 * is open nothing is tried. 1: something was tried, 0: nothing is due, or the machine's fault.
 */
int table_replay_step(struct table *t, struct azoth_error *err);
/* 1 when released letters are to be tried before newer events are applied. */
int table_has_released(const struct table *t);
/* Until table_replay_step has something to do; UINT64_MAX: not by the passing of time. */
uint64_t table_replay_wait_ns(struct table *t);

#define COMMAND_ID_BYTES   16u
#define COMMAND_ANSWER_MAX 1000u
#define COMMAND_TEXT_MAX   64u

/*
 * Does what `text` says and puts a sentence with the result as its first word into answer:
 *   retry EVENT   "applied", "failed WHY", "parked ...", "not-found"
 *   drop EVENT    "dropped", "not-found"; what waited behind it is released
 * Anything else: "unknown". What changed the file is kept beside the change under the command's id for an
 * hour, so that a command sent again is answered again and done once. 0, or the machine's fault.
 */
int table_command(struct table *t, const uint8_t id[COMMAND_ID_BYTES], const char *text,
                  char answer[COMMAND_ANSWER_MAX], struct azoth_error *err);

/* The parts of such a text, "VERB EVENT": 1, or 0 when it is none. */
int command_parse(const char *text, char ret_verb[8], uint64_t *ret_event);

#endif
