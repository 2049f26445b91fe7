#include "projector/last.h"

#include "core/dbdir.h"
#include "core/error.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int path_of(char out[4400], const char *dir, const char *stem, const char *suffix)
{
    return dbdir_path(out, 4400, dir, "%s.last%s", stem, suffix);
}

void last_write(const char *dir, const char *stem, struct last_words *w)
{
    char path[4400], fresh[4400];
    struct last_words before;
    if (path_of(path, dir, stem, "") || path_of(fresh, dir, stem, ".new"))
        return;
    int same = last_read(dir, stem, &before) && before.code == w->code &&
               strcmp(before.message, w->message) == 0;
    w->since_ns = same ? before.since_ns : w->at_ns;
    w->times = same ? before.times + 1 : 1;
    json_t *j = json_pack("{s:I, s:I, s:I, s:I, s:s, s:i, s:s}", "at_ns", (json_int_t)w->at_ns,
                          "since_ns", (json_int_t)w->since_ns, "times", (json_int_t)w->times,
                          "event", (json_int_t)w->event, "error", azoth_code_name(w->code), "code",
                          w->code, "message", w->message);
    /* Words that are no UTF-8, or no room: the log has them. */
    if (j && json_dump_file(j, fresh, JSON_COMPACT) == 0)
        (void)!rename(fresh, path);
    else
        unlink(fresh);
    json_decref(j);
}

void last_forget(const char *dir, const char *stem)
{
    char path[4400];
    if (path_of(path, dir, stem, "") == 0)
        unlink(path);
}

int last_read(const char *dir, const char *stem, struct last_words *ret)
{
    char path[4400];
    json_int_t at = 0, since = 0, times = 0, event = 0;
    const char *message = NULL;
    int code = 0;
    if (path_of(path, dir, stem, ""))
        return 0;
    json_t *j = json_load_file(path, 0, NULL);
    if (j && json_unpack(j, "{s:I, s:I, s:I, s:I, s:i, s:s}", "at_ns", &at, "since_ns", &since,
                         "times", &times, "event", &event, "code", &code, "message", &message))
        message = NULL;
    if (message) {
        *ret = (struct last_words){.at_ns = at,
                                   .since_ns = since,
                                   .times = (uint64_t)times,
                                   .event = event > 0 ? (uint64_t)event : 0,
                                   .code = code};
        snprintf(ret->message, sizeof ret->message, "%s", message);
    }
    json_decref(j);
    return message != NULL;
}
