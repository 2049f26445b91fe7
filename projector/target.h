/* target.h - where a projection's rows lie: in a SQLite file of ours, or on a PostgreSQL server. Any thread. */
#ifndef PROJECTOR_TARGET_H
#define PROJECTOR_TARGET_H

#include "projector/sqlfile.h"

/*
 * How to reach the server of def: what its mark says, else `setting`, else (setting NULL) what projector.postgresql
 * says in the database above dir, the directory of the projections (NULL: the environment). Empty: libpq knows.
 * CONFIG, IO, PERMISSION.
 */
int target_conninfo(const struct sqlfile *def, const char *dir, const char *setting,
                    char out[SQLFILE_CONNINFO_MAX + 1], struct azoth_error *err);

/*
 * Whether dir/NAME.sql says that NAME is on a server: 1 and how to reach it, 0 (also: no such file), or an error as above.
 * Blocks on the disk.
 */
int target_is_server(const char *dir, const char *name, char out[SQLFILE_CONNINFO_MAX + 1],
                     struct azoth_error *err);

#endif
