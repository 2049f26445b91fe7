#include "projector/target.h"

#include "core/config.h"
#include "core/dbdir.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int target_conninfo(const struct sqlfile *def, const char *dir, const char *setting,
                    char out[SQLFILE_CONNINFO_MAX + 1], struct azoth_error *err)
{
    struct config c;
    char above[4200];
    int rc = 0;
    snprintf(above, sizeof above, "%s/..", dir ? dir : "/nowhere");
    if (def->conninfo[0])
        setting = def->conninfo;
    if (!setting) {
        rc = config_load(&c, above, err);
        setting = c.text[CONFIG_projector_postgresql];
    }
    if (!rc)
        snprintf(out, SQLFILE_CONNINFO_MAX + 1, "%s", setting);
    return rc;
}

static void ignore(void *arg, const struct azoth_error *err)
{
    (void)arg;
    (void)err;
}

int target_is_server(const char *dir, const char *name, char out[SQLFILE_CONNINFO_MAX + 1],
                     struct azoth_error *err)
{
    char path[4400];
    struct sqlfile def;
    if (dbdir_path(path, sizeof path, dir, "%s.sql", name) || access(path, R_OK))
        return 0;
    /* One with a mistake elsewhere still says where the rows are that its last version made. */
    sqlfile_read_all(path, &def, ignore, NULL);
    int is = def.target == TARGET_POSTGRESQL;
    int rc = is ? target_conninfo(&def, dir, NULL, out, err) : 0;
    sqlfile_fini(&def);
    return rc ? rc : is;
}
