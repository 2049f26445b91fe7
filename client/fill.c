#include "client/fill.h"

#include "core/error.h"
#include "writer/feed_look.h"

#include <string.h>

struct fill {
    struct store *store;
    struct table *table;
    struct feed_filter filter;
    struct buf frames;
    uint64_t head;
};

int fill_open(struct store *store, struct table *t, uint32_t shard, uint32_t shards,
              const char *shard_by, struct fill **ret, struct azoth_error *err)
{
    uint64_t cursor;
    uint32_t check;
    struct fill *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(err, AZOTH_ERR_NOMEM, "a filling");
    f->store = store;
    f->table = t;
    f->filter.shard = shard;
    f->filter.shards = shards;
    snprintf(f->filter.shard_by, sizeof f->filter.shard_by, "%s", shard_by);
    struct azoth_bytes types = table_types(t);
    f->filter.types = malloc(types.len + 1);
    if (!f->filter.types) {
        fill_close(f);
        return error_set(err, AZOTH_ERR_NOMEM, "the types of a projection");
    }
    if (types.len)
        memcpy(f->filter.types, types.ptr, types.len);
    f->filter.types_len = types.len;
    table_cursor(t, &cursor, &check);
    int rc = feed_same_history(store, cursor, check, &f->head, err);
    if (rc)
        fill_close(f);
    else
        *ret = f;
    return rc;
}

void fill_close(struct fill *f)
{
    if (!f)
        return;
    free(f->filter.types);
    buf_fini(&f->frames);
    free(f);
}

int64_t fill_oldest_ns(const struct fill *f)
{
    struct event_record oldest;
    size_t at = 0;
    return record_frame_next(buf_bytes(&f->frames), &at, &oldest, NULL) == 1 ? oldest.time_ns : 0;
}

uint64_t fill_head(const struct fill *f)
{
    return f->head;
}

int fill_step(struct fill *f, uint64_t to, struct azoth_error *err)
{
    struct feed_look look;
    uint64_t cursor, at;
    uint32_t check;
    table_cursor(f->table, &cursor, &check);
    if (cursor >= to)
        return FILL_DONE;
    buf_clear(&f->frames);
    f->filter.to = to == UINT64_MAX ? 0 : to;
    int rc = feed_look(f->store, &f->filter, cursor, FEED_LOOK_BYTES, &f->frames, &look, err);
    if (rc)
        return rc;
    f->head = look.head;
    if (look.last == cursor)
        return FILL_DONE;
    rc = table_apply(f->table, buf_bytes(&f->frames), cursor + 1, look.last, look.last_check, err);
    if (rc < 0)
        return rc;
    table_cursor(f->table, &at, &check);
    if (rc == TABLE_STANDS)
        return FILL_STANDS;
    return at < look.head && at < to ? FILL_MORE : FILL_DONE;
}
