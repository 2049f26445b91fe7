#include "tests/unit/segment_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

int segment_begin(struct segment_plan plan, char dir[64], struct segment_name *name,
                  struct segment **ret)
{
    struct azoth_error err = {0};
    plan.device = 1;
    plan.inode = 2;
    plan.incarnation = 1;
    plan.mode = 0660;
    strcpy(dir, "/tmp/azoth-segment-XXXXXX");
    if (mkdtemp(dir) && !segment_name_of(dir, name, &err) &&
        !segment_create(name, &plan, ret, &err))
        return 0;
    print_error("%s: %s\n", dir, err.message);
    return -1;
}

int segment_end(const char *dir, const struct segment_name *name, struct segment *seg)
{
    char path[100];
    segment_detach(seg);
    segment_unlink(name);
    snprintf(path, sizeof path, "%s/participants.lock", dir);
    unlink(path);
    return rmdir(dir);
}
