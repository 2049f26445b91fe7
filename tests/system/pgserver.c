#include "tests/system/pgserver.h"

#include "tests/system/harness.h"

#include "core/clock.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

#define PATIENCE (60 * NS_PER_S)

static struct pgserver *living; /* one a program */

/* The newest version's directory of programs. */
static int find_bin(char out[128])
{
    glob_t g;
    int found = 0;
    if (glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &g) == 0 && g.gl_pathc > 0) {
        snprintf(out, 128, "%s", g.gl_pathv[g.gl_pathc - 1]);
        *strrchr(out, '/') = 0;
        found = 1;
    }
    globfree(&g);
    return found;
}

int pgserver_there(void)
{
    char bin[128];
    return find_bin(bin);
}

/* As the user it belongs to; its output goes to DIR/log. */
static pid_t spawn(struct pgserver *s, char *const *argv)
{
    char uid[40], gid[40], log[80], *as[24];
    pid_t pid;
    int n = 0;
    snprintf(uid, sizeof uid, "--reuid=%u", (unsigned)s->uid);
    snprintf(gid, sizeof gid, "--regid=%u", (unsigned)s->gid);
    as[n++] = (char *)"setpriv";
    if (getuid() == 0) {
        as[n++] = uid;
        as[n++] = gid;
        as[n++] = (char *)"--clear-groups";
    }
    as[n++] = (char *)"--pdeathsig=QUIT";
    for (; *argv; argv++)
        as[n++] = *argv;
    as[n] = NULL;
    snprintf(log, sizeof log, "%s/log", s->dir);
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    posix_spawn_file_actions_adddup2(&fa, 1, 2);
    assert_int_equal(posix_spawnp(&pid, "setpriv", &fa, NULL, as, environ), 0);
    posix_spawn_file_actions_destroy(&fa);
    return pid;
}

static void show_log(const struct pgserver *s)
{
    char path[80], line[300];
    snprintf(path, sizeof path, "%s/log", s->dir);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        print_error("%s", line);
    if (f)
        fclose(f);
}

static void at_exit(void)
{
    if (living)
        pgserver_end(living);
}

static void make_cluster(struct pgserver *s)
{
    char program[160], data[80];
    int status;
    snprintf(program, sizeof program, "%s/initdb", s->bin);
    snprintf(data, sizeof data, "%s/data", s->dir);
    char *argv[] = {program,
                    (char *)"--no-sync",
                    (char *)"-A",
                    (char *)"trust",
                    (char *)"-U",
                    (char *)"azoth",
                    (char *)"-E",
                    (char *)"UTF8",
                    (char *)"--locale=C",
                    (char *)"-D",
                    data,
                    NULL};
    pid_t pid = spawn(s, argv);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status) {
        show_log(s);
        fail_msg("initdb failed");
    }
}

void pgserver_begin(struct pgserver *s)
{
    /* That a failed assertion left. */
    at_exit();
    memset(s, 0, sizeof *s);
    const struct passwd *user = getpwnam("postgres");
    if (!user)
        user = getpwnam("nobody");
    s->uid = getuid() == 0 && user ? user->pw_uid : getuid();
    s->gid = getuid() == 0 && user ? user->pw_gid : getgid();
    assert_true(find_bin(s->bin));
    snprintf(s->dir, sizeof s->dir, "/tmp/azoth-pg-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    living = s;
    atexit(at_exit);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    assert_int_equal(chown(s->dir, s->uid, s->gid), 0);
    snprintf(s->conninfo, sizeof s->conninfo, "host=%s user=azoth dbname=postgres", s->dir);
    make_cluster(s);
    pgserver_start(s);
}

void pgserver_start(struct pgserver *s)
{
    char program[160], data[80], at[100];
    uint64_t until = clock_mono_ns() + PATIENCE;
    snprintf(program, sizeof program, "%s/postgres", s->bin);
    snprintf(data, sizeof data, "%s/data", s->dir);
    snprintf(at, sizeof at, "unix_socket_directories=%s", s->dir);
    /* fsync guards against power cuts, and these kill processes. */
    char *argv[] = {program,
                    (char *)"-D",
                    data,
                    (char *)"-c",
                    (char *)"listen_addresses=",
                    (char *)"-c",
                    at,
                    (char *)"-c",
                    (char *)"fsync=off",
                    (char *)"-c",
                    (char *)"dynamic_shared_memory_type=mmap",
                    (char *)"-c",
                    (char *)"shared_buffers=16MB",
                    NULL};
    s->pid = spawn(s, argv);
    while (PQping(s->conninfo) != PQPING_OK) {
        if (clock_mono_ns() > until) {
            show_log(s);
            fail_msg("PostgreSQL does not start");
        }
        /* One of before may still hold on to its memory: then it says so and ends. */
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid)
            s->pid = spawn(s, argv);
        nap_ms(10);
    }
}

static pid_t parent_of(pid_t pid)
{
    char path[40], line[200] = "";
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f && fgets(line, sizeof line, f) && strrchr(line, ')'))
        sscanf(strrchr(line, ')') + 2, "%*c %d", &parent);
    if (f)
        fclose(f);
    return parent;
}

void pgserver_kill(struct pgserver *s)
{
    pid_t child[256];
    int n = 0;
    /* Stopped first, so that the list of its children stays true. */
    kill(s->pid, SIGSTOP);
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = readdir(d));)
        if (isdigit((unsigned char)e->d_name[0]) && n < 256 && parent_of(atoi(e->d_name)) == s->pid)
            child[n++] = atoi(e->d_name);
    if (d)
        closedir(d);
    kill(s->pid, SIGKILL);
    for (int i = 0; i < n; i++)
        kill(child[i], SIGKILL);
    waitpid(s->pid, NULL, 0);
    /* They are ours now, and nobody else may be there to take what is left of them. */
    for (int i = 0; i < n; i++)
        waitpid(child[i], NULL, 0);
    s->pid = 0;
}

/* Of one that was killed and not started again: its key to the directory, which it would have found. */
static void free_memory(const struct pgserver *s)
{
    char path[80], line[200];
    int key, id;
    snprintf(path, sizeof path, "%s/data/postmaster.pid", s->dir);
    FILE *f = fopen(path, "r");
    for (int i = 1; f && fgets(line, sizeof line, f); i++)
        if (i == 7 && sscanf(line, "%d %d", &key, &id) == 2)
            shmctl(id, IPC_RMID, NULL);
    if (f)
        fclose(f);
}

void pgserver_end(struct pgserver *s)
{
    char *argv[] = {(char *)"rm", (char *)"-rf", s->dir, NULL};
    pid_t pid;
    if (living != s)
        return;
    living = NULL;
    if (s->pid > 0) {
        /* Immediate: it removes its shared memory, and nothing else matters. */
        kill(s->pid, SIGQUIT);
        waitpid(s->pid, NULL, 0);
        s->pid = 0;
    }
    free_memory(s);
    if (posix_spawnp(&pid, "rm", NULL, NULL, argv, environ) == 0)
        waitpid(pid, NULL, 0);
}

static void no_notice(void *arg, const PGresult *r)
{
    (void)arg;
    (void)r;
}

const char *pgserver_ask(struct pgserver *s, const char *sql)
{
    static char value[1000];
    PGconn *c = PQconnectdb(s->conninfo);
    PQsetNoticeReceiver(c, no_notice, NULL);
    PGresult *r = PQexec(c, sql);
    ExecStatusType status = PQresultStatus(r);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
        fail_msg("%s: %s", sql, PQerrorMessage(c));
    snprintf(value, sizeof value, "%s", PQntuples(r) > 0 ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
    PQfinish(c);
    return value;
}
