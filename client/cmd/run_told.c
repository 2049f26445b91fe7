/* run_told.c - how the projectors are, for `azoth lag` (supervised.h), which asks nobody: a file that is renamed over the
 * one before whenever that changes. One that cannot be written is not told: the log has it. */
#include "client/cmd/cmd.h"
#include "client/cmd/run.h"
#include "client/cmd/supervised.h"
#include "core/dbdir.h"

#include <string.h>
#include <unistd.h>

static int path_of(char out[4300], const char *run_dir, const char *suffix)
{
    return dbdir_path(out, 4300, run_dir, "supervisor.json%s", suffix);
}

static enum supervised_state state_of(const struct run_child *c)
{
    switch (c->state) {
    case CHILD_WAITING:
        return c->deaths ? SUPERVISED_WAITS : SUPERVISED_RUNS;
    case CHILD_FAILED:
        return SUPERVISED_FAILED;
    case CHILD_STOPPED:
        return SUPERVISED_STOPPED;
    default:
        return SUPERVISED_RUNS;
    }
}

/* A number that is another one when there is something new to tell. */
static uint64_t sum_of(const struct run_child *child, unsigned n)
{
    uint64_t sum = 1;
    for (unsigned i = 0; i < n; i++)
        if (child[i].instance) {
            sum = sum * 31 + (uint64_t)child[i].state;
            sum = sum * 31 + child[i].deaths;
            sum = sum * 31 + child[i].restart_ns;
        }
    return sum;
}

static void add(struct json_text *j, const struct run_child *c)
{
    enum supervised_state state = state_of(c);
    out_open(j, c->instance, '{');
    out_str(j, "unit", c->label);
    out_str(j, "state", supervised_state_name(state));
    out_u64(j, "next_start_ns", state == SUPERVISED_WAITS ? c->restart_ns : 0);
    out_u64(j, "starts", c->deaths);
    out_i64(j, "exit_code", c->exit_code);
    out_close(j, '}');
}

static int write_file(const char *path, struct azoth_bytes text)
{
    FILE *f = fopen(path, "we");
    if (!f)
        return 0;
    int whole = fwrite(text.ptr, 1, text.len, f) == text.len;
    return fclose(f) == 0 && whole;
}

void run_told(uint64_t *told, const char *run_dir, const struct run_child *child, unsigned n)
{
    char path[4300], fresh[4300];
    struct json_text j = {0};
    uint64_t sum = sum_of(child, n);
    if (sum == *told || path_of(path, run_dir, "") || path_of(fresh, run_dir, ".new"))
        return;
    *told = sum;
    out_open(&j, NULL, '{');
    for (unsigned i = 0; i < n; i++)
        if (child[i].instance)
            add(&j, &child[i]);
    out_close(&j, '}');
    if (j.failed || !write_file(fresh, buf_bytes(&j.b)) || rename(fresh, path))
        unlink(fresh);
    buf_fini(&j.b);
}

void run_told_end(const char *run_dir)
{
    char path[4300];
    if (path_of(path, run_dir, "") == 0)
        unlink(path);
}
