/*
 * adopt.h - another file takes the place of the one that serves: the one that was built beside it, or a
 * generation that is kept.
 *
 * For the holder of STEM.lock: the projector, when it is asked, or the command when none runs. What takes the
 * place must be of this projection and shard, of this database's log, and made by the definition's
 * handlers; a built one must not be behind the one that serves, since who waited for an event to be
 * projected has been told that it is. generation.h says what a death leaves.
 */
#ifndef PROJECTOR_ADOPT_H
#define PROJECTOR_ADOPT_H

#include "projector/replay.h"
#include "projector/sqlfile.h"

/* What a file says of itself. */
struct table_identity {
    char name[AZOTH_NAME_MAX + 1];
    uint8_t uuid[16];
    uint64_t cursor;
    uint32_t cursor_check;
    int64_t handlers; /* what made its rows; 0: nothing that is known */
    uint32_t shard, shards;
};

/* NOT_FOUND: there is no such file, or it is empty yet. IO, CORRUPT, PERMISSION, BUSY, NOMEM. */
int table_identify(const char *path, struct table_identity *ret, struct azoth_error *err);

/*
 * What the definition's handlers would be in table_identity.handlers. What is in C is loaded for it: PROJECTION,
 * CONFIG, NOMEM.
 */
int table_makers_now(const struct sqlfile *def, const struct table_options *o, int64_t *ret,
                     struct azoth_error *err);

/*
 * STEM.rebuild.db takes the place of the file that serves. least: the cursor that it must have reached; *ret:
 * its generation. Takes STEM.rebuild.lock meanwhile.
 * GAP: it is behind. BUSY: somebody builds it, or has it open. NOT_FOUND: there is none, also after it
 * was adopted already. PROJECTION, DIVERGED: it is another one's. IO, NOSPACE, PERMISSION.
 */
int adopt_built(const struct sqlfile *def, const struct table_options *o, uint64_t least,
                uint64_t *ret, struct azoth_error *err);

/*
 * Generation n takes the place of the file that serves, also when it serves already. PROJECTION: other
 * handlers made its rows (unless o->accept_changed). NOT_FOUND, DIVERGED, IO, PERMISSION.
 */
int adopt_generation(const struct sqlfile *def, const struct table_options *o, uint64_t n,
                     struct azoth_error *err);

/*
 * Does what the text of a command to a projector says (control.h: adopt, serve N, prune), with the definition as it is
 * in the file `definition` now, and puts the sentence into answer. 1: done or refused; *ret_other is set
 * to 1 when another file may serve now. 0: it is none of these texts. cursor: of the file that serves, which
 * nobody writes to meanwhile.
 */
int adopt_command(const char *definition, const struct table_options *o, uint64_t cursor,
                  const char *text, char answer[COMMAND_ANSWER_MAX], int *ret_other);

#endif
