#include "client/cmd/supervised.h"

#include "client/cmd/cmd.h"
#include "client/cmd/systemctl.h"
#include "core/dbdir.h"

#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define HOME "/var/lib/azoth/"

const char *supervised_state_name(enum supervised_state s)
{
    static const char *const names[] = {"unknown", "running", "waiting", "failed", "stopped"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "?";
}

/* ---- azoth run ---- */

static int run_lives(const char *run_dir)
{
    char path[4300];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (dbdir_path(path, sizeof path, run_dir, "supervisor.lock"))
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int held = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0)
        close(fd);
    return held;
}

static void take_child(const json_t *o, struct supervised *ret)
{
    const char *unit = json_string_value(json_object_get(o, "unit"));
    const char *state = json_string_value(json_object_get(o, "state"));
    json_int_t code = json_integer_value(json_object_get(o, "exit_code"));
    *ret = (struct supervised){
        .by = "azoth run",
        .next_start_ns = (uint64_t)json_integer_value(json_object_get(o, "next_start_ns")),
        .starts = (uint64_t)json_integer_value(json_object_get(o, "starts")),
        .exit_code = code >= 0 && code <= 255 ? (int)code : -1};
    snprintf(ret->unit, sizeof ret->unit, "%s", unit ? unit : "");
    for (int i = SUPERVISED_RUNS; state && i <= SUPERVISED_STOPPED; i++)
        if (strcmp(state, supervised_state_name((enum supervised_state)i)) == 0)
            ret->state = (enum supervised_state)i;
}

/* 1 when azoth run supervises this database. */
static int ask_run(const char *dir, const struct config *c, const struct supervised_ask *ask,
                   uint32_t n)
{
    char run_dir[4096], path[4200];
    if (cmd_run_dir(dir, c, run_dir, sizeof run_dir, NULL) || !run_lives(run_dir))
        return 0;
    json_t *told = dbdir_path(path, sizeof path, run_dir, "supervisor.json")
                       ? NULL
                       : json_load_file(path, 0, NULL);
    for (uint32_t i = 0; i < n; i++) {
        const json_t *o = json_object_get(told, ask[i].instance);
        if (o)
            take_child(o, ask[i].ret);
    }
    json_decref(told);
    return 1;
}

/* ---- systemd ---- */

/* "1min 30.5s", "200ms", "0"; in ns. 0 as well for "infinity". */
static uint64_t span_ns(const char *text)
{
    static const struct {
        const char *name;
        double ns;
    } unit[] = {{"us", 1e3},
                {"ms", 1e6},
                {"s", 1e9},
                {"min", 60e9},
                {"h", 3600e9},
                {"d", 86400e9},
                {"w", 7 * 86400e9},
                {"month", 30.44 * 86400e9},
                {"y", 365.25 * 86400e9}};
    double sum = 0;
    for (char *end; *text; text = end + strspn(end, " ")) {
        double n = strtod(text, &end);
        size_t len = strcspn(end, " 0123456789");
        if (end == text)
            return 0;
        for (size_t i = 0; i < sizeof unit / sizeof *unit; i++)
            if (strlen(unit[i].name) == len && strncmp(end, unit[i].name, len) == 0)
                sum += n * unit[i].ns;
        end += len;
    }
    return sum < 1e18 ? (uint64_t)sum : 0;
}

struct shown {
    const char *load, *active, *sub, *restart, *inactive_since, *code, *status, *result, *restarts;
};

static void take_property(struct shown *s, const char *line)
{
    const struct {
        const char *name;
        const char **to;
    } known[] = {{"LoadState=", &s->load},
                 {"ActiveState=", &s->active},
                 {"SubState=", &s->sub},
                 {"RestartUSec=", &s->restart},
                 {"InactiveEnterTimestampMonotonic=", &s->inactive_since},
                 {"ExecMainCode=", &s->code},
                 {"ExecMainStatus=", &s->status},
                 {"Result=", &s->result},
                 {"NRestarts=", &s->restarts}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(line, known[i].name, strlen(known[i].name)) == 0)
            *known[i].to = line + strlen(known[i].name);
}

static enum supervised_state state_of(const struct shown *s)
{
    if (strcmp(s->load, "loaded") != 0)
        return SUPERVISED_UNKNOWN;
    if (strcmp(s->sub, "auto-restart") == 0)
        return SUPERVISED_WAITS;
    if (strcmp(s->active, "failed") == 0)
        return SUPERVISED_FAILED;
    return strcmp(s->active, "inactive") == 0 ? SUPERVISED_STOPPED : SUPERVISED_RUNS;
}

void supervised_parse(char *text, struct supervised *ret)
{
    struct shown s = {"", "", "", "", "", "", "", "", ""};
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        take_property(&s, line);
    ret->by = "systemd";
    ret->state = state_of(&s);
    ret->starts = strtoull(s.restarts, NULL, 10);
    /* 1: it exited, and was not ended by a signal (CLD_EXITED). */
    ret->exit_code = strcmp(s.code, "1") == 0 ? atoi(s.status) : -1;
    snprintf(ret->result, sizeof ret->result, "%s", s.result);
    /* On its way from one start to the next it is inactive for a moment, and waits from then. */
    uint64_t since_us = strtoull(s.inactive_since, NULL, 10);
    if (ret->state == SUPERVISED_WAITS && since_us)
        ret->next_start_ns = since_us * 1000 + span_ns(s.restart);
}

/* The units' properties stand in the order in which they were asked for, with an empty line between two. */
static void take_units(char *text, const struct supervised_ask *ask, uint32_t n)
{
    for (uint32_t i = 0; text && i < n; i++) {
        char *next = strstr(text, "\n\n");
        if (next)
            *next = 0;
        supervised_parse(text, ask[i].ret);
        text = next ? next + 2 : NULL;
    }
}

static void ask_systemd(const char *database, const struct supervised_ask *ask, uint32_t n)
{
    static const char properties[] =
        "--property=Id,LoadState,ActiveState,SubState,RestartUSec,InactiveEnterTimestampMonotonic,"
        "ExecMainCode,ExecMainStatus,Result,NRestarts";
    char *argv[SUPERVISED_MAX + 5] = {"systemctl", "show", "--no-pager", (char *)properties};
    struct buf out = {0};
    int status = 0;
    for (uint32_t i = 0; i < n; i++) {
        snprintf(ask[i].ret->unit, sizeof ask[i].ret->unit, "azoth-projector@%s:%s.service",
                 database, ask[i].instance);
        argv[4 + i] = ask[i].ret->unit;
    }
    if (systemctl_run(argv, &out, SUPERVISED_WITHIN_MS, &status, NULL) == 0 && status == 0 &&
        out.len && buf_add(&out, "", 1) == 0)
        take_units((char *)out.ptr, ask, n);
    buf_fini(&out);
}

void supervised_ask(const char *dir, const struct config *c, const struct supervised_ask *ask,
                    uint32_t n)
{
    n = n < SUPERVISED_MAX ? n : SUPERVISED_MAX;
    for (uint32_t i = 0; i < n; i++)
        *ask[i].ret = (struct supervised){.exit_code = -1};
    if (n == 0 || ask_run(dir, c, ask, n))
        return;
    const char *database = strncmp(dir, HOME, strlen(HOME)) == 0 ? dir + strlen(HOME) : NULL;
    if (database && dbdir_name_valid(database) && sd_booted() > 0)
        ask_systemd(database, ask, n);
}
