/*
 * dbdir.h - the files of a database, by name.
 *
 *   DIR/data.mdb lock.mdb      the store (LMDB)
 *   DIR/participants.lock      one byte per participant, held while its process lives
 *   DIR/azoth.conf             configuration, optional
 *   DIR/projections/NAME.sql   definitions
 *   DIR/projections/NAME.gN.db and NAME.db -> NAME.gN.db
 *   RUN/feed.sock, worker-N.sock, projector-NAME-INSTANCE.sock      RUN = DIR/run, or run_dir
 */
#ifndef CORE_DBDIR_H
#define CORE_DBDIR_H

#include "core/azoth_base.h"

/* The longest path of a unix socket that nanomsg takes without abort(), NUL included. */
#define DBDIR_SOCKET_PATH_MAX 108u

/* --dir, else AZOTH_DIR, else AZOTH_ERR_USAGE. Absolute and resolved. */
int dbdir_resolve(const char *flag, char *out, size_t size, struct azoth_error *err);

/* Formats a path below dir; AZOTH_ERR_USAGE when it does not fit. */
int dbdir_path(char *out, size_t size, const char *dir, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* "ipc://RUN/..." checked against DBDIR_SOCKET_PATH_MAX. */
int dbdir_endpoint(char *out, size_t size, const char *run_dir, struct azoth_error *err,
                   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Name of a projection, command or process: 1 to AZOTH_NAME_MAX of [A-Za-z0-9_-], a letter first.
 */
int dbdir_name_valid(const char *name);

/*
 * Splits a unit's instance "DATABASE" or "DATABASE:NAME[:PART]" (systemd cannot): the data directory
 * /var/lib/azoth/DATABASE, the run directory /run/azoth/DATABASE, and NAME (empty when there is none).
 * AZOTH_ERR_USAGE.
 */
int dbdir_instance(const char *instance, char *dir, size_t dir_size, char *run_dir, size_t run_size,
                   char *name, size_t name_size, struct azoth_error *err);

/* mkdir -p with mode for the last part; 0 when it is there already. */
int dbdir_make(const char *path, unsigned mode, struct azoth_error *err);

#endif
