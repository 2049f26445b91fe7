#include "tests/unit/log_segment.h"

#include "core/archivefile.h"

#include <stdio.h>
#include <string.h>

static int copy_events(struct store *s, uint64_t first, uint64_t last, struct archivefile_out *o,
                       struct azoth_error *err)
{
    struct snapshot *sn;
    struct event_scan *es = NULL;
    struct event_record ev;
    struct azoth_bytes raw;
    int more = 0, rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    rc = event_scan_open(sn, first, last ? last + 1 : 0, &es, err);
    while (!rc && (more = event_scan_next(es, &ev, &raw, err)) == 1)
        rc = archivefile_add(o, &ev, raw, err);
    event_scan_close(es);
    snapshot_end(sn);
    return rc ? rc : more;
}

int log_segment(struct store *s, const char *dir, uint64_t first, uint64_t last,
                struct archived_entry *ret, struct azoth_error *err)
{
    struct archivefile_out *o;
    char path[200];
    snprintf(path, sizeof path, "%s/segment", dir);
    int rc = archivefile_create(path, store_identity(s)->uuid, 1, &o, err);
    if (rc)
        return rc;
    rc = copy_events(s, first, last, o, err);
    if (rc) {
        archivefile_abort(o);
        return rc;
    }
    strcpy(ret->path, "segment");
    return archivefile_finish(o, NULL, NULL, &ret->about, err);
}
