/*
 * torture.c - random kills under load, and whether everything that was told stays true.
 *
 *   torture --kills N [--seconds S] [--seed X]
 *
 * One round: one or more processes of any kind are killed (or stopped, killed beside, continued), each
 * is started again at once, and a transaction of our own on the keys that the dead had in hand tells
 * how long the database was away. Between rounds, every few seconds and at the end the audit
 * compares log, state and projections with the records that the clients keep (audit.h).
 *
 * The choices follow from the seed; the interleaving is the machine's. Exit 0 when everything held.
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/slot.h"
#include "shm/stripe.h"
#include "tests/system/harness.h"
#include "tests/torture/audit.h"
#include "tests/torture/backups.h"
#include "tests/torture/world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define AUDIT_EVERY_NS (3 * NS_PER_S)
#define TELL_EVERY     1000u
#define PROBE_MS       20000
#ifdef __SANITIZE_ADDRESS__
#define BACK_WITHIN_NS (5 * NS_PER_S) /* starting a process alone takes long then */
#else
#define BACK_WITHIN_NS NS_PER_S
#endif
#define REAPER_LOOKS    30
#define REAPER_WATCH_NS (260 * NS_PER_MS) /* a little over the writer's interval */

struct torture {
    struct world w;
    struct audit audit;
    struct backups backups;
    unsigned kills, stops, pairs, reapers, holders; /* what was done */
    uint64_t continued_ns;                          /* when the last stopped one was */
    uint64_t worst_ns;
    struct process *worst_after;
    unsigned late, probes_failed;
};

static uint64_t draw(struct torture *t, uint64_t below)
{
    return random_next(&t->w.random) % below;
}

static struct process *victim(struct torture *t)
{
    struct world *w = &t->w;
    uint64_t n = draw(t, 23);
    if (n >= 20)
        return w->backup->pid ? w->backup : w->writer;
    if (n < 4)
        return w->writer;
    if (n < 7)
        return w->worker[n % 2];
    if (n == 7)
        return w->feed;
    if (n < 10)
        return w->projector[n % 2];
    return w->client[n - 10];
}

static void kill_one(struct torture *t, struct process *p)
{
    t->kills += (unsigned)world_kill(&t->w, p);
}

/* ---- how long the database was away ---- */

struct probe {
    int ended, code;
    char message[240];
};

static void probe_done(struct azoth_txn *txn, int code, const struct azoth_commit_info *info,
                       const struct azoth_error *err, void *arg)
{
    struct probe *p = arg;
    (void)txn;
    (void)info;
    p->ended = 1;
    p->code = code;
    if (code)
        snprintf(p->message, sizeof p->message, "%s", err->message);
}

/* Declares for writing what a client had in hand when it was killed. */
static void declare_keys_of(struct torture *t, struct azoth_txn *txn, int client)
{
    struct stat st;
    struct record r;
    char key[32];
    int fd = record_open(t->w.h.dir, (unsigned)client);
    uint64_t at = 0;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size >= (off_t)RECORD_BYTES)
        at = (uint64_t)st.st_size - RECORD_BYTES;
    if (fd >= 0 && record_read(fd, &at, &r) == 1) {
        if (r.op != OP_TRANSFER)
            azoth_write(txn, op_register_key(key, r.key));
        for (uint32_t i = 0; r.op == OP_TRANSFER && i < r.parts; i++) {
            azoth_write(txn, op_account_key(key, op_transfer(&r, i).from));
            azoth_write(txn, op_account_key(key, op_transfer(&r, i).to));
        }
    }
    if (fd >= 0)
        close(fd);
}

/* A commit of ours on the keys of the dead: the time since the last death, or since what was stopped
 * goes on. A death at a crash point may come meanwhile and begins the measure anew. */
static void measure(struct torture *t, struct process *dead)
{
    struct world *w = &t->w;
    struct azoth_txn *txn = azoth_txn_new(w->db);
    struct azoth_error err = {0};
    struct probe p = {0};
    char key[32];
    int client = world_client(w, dead);
    if (client > 0)
        declare_keys_of(t, txn, client);
    for (int i = 0; i < 2; i++)
        azoth_write(txn, op_account_key(key, (int)draw(t, OP_ACCOUNTS)));
    azoth_add_i64(txn, AZOTH_STR("probe"), 1);
    azoth_txn_set_deadline(txn, PROBE_MS);
    if (azoth_submit(txn, probe_done, &p, &err))
        probe_done(txn, AZOTH_ERR_BUSY, NULL, &err, &p);
    while (!p.ended) {
        azoth_poll(w->db, 1);
        world_supervise(w);
    }
    uint64_t from = w->last_death_ns > t->continued_ns ? w->last_death_ns : t->continued_ns;
    uint64_t ns = clock_mono_ns() - from;
    if (p.code) {
        t->probes_failed++;
        fprintf(stderr, "torture: after a kill of %s: %s\n", dead->name, p.message);
    }
    if (ns > t->worst_ns) {
        t->worst_ns = ns;
        t->worst_after = dead;
    }
    if (ns >= BACK_WITHIN_NS) {
        t->late++;
        fprintf(stderr, "torture: %.0f ms to a commit after a kill of %s\n", (double)ns / 1e6,
                dead->name);
    }
    azoth_txn_free(txn);
}

/* ---- the kinds of rounds ---- */

static struct process *round_one(struct torture *t)
{
    struct process *p = victim(t);
    kill_one(t, p);
    return p;
}

/* Two in the same instant: both are gone before either is started again. */
static struct process *round_two(struct torture *t)
{
    struct process *a = victim(t), *b = victim(t);
    if (a != b && b->pid) {
        int before = b->restarts;
        harness_kill(b, SIGKILL);
        kill_one(t, a);
        while (!world_is_back(&t->w, b, before))
            world_nap(&t->w, NS_PER_MS);
        t->kills++;
        t->pairs++;
    } else {
        kill_one(t, a);
    }
    return a;
}

/* One is stopped, another is killed meanwhile, and sometimes the stopped one too. */
static struct process *round_stop(struct torture *t)
{
    struct process *s = victim(t), *p = victim(t);
    pid_t pid = s->pid;
    if (pid) {
        harness_kill(s, SIGSTOP);
        t->stops++;
        /* Now and then for so long that requests are sent again to another worker. */
        int worker = s == t->w.worker[0] || s == t->w.worker[1];
        world_nap(&t->w, draw(t, worker ? 2 : 6) ? draw(t, 60) * NS_PER_MS
                                                 : (300 + draw(t, 500)) * NS_PER_MS);
    }
    if (p != s || draw(t, 2))
        kill_one(t, p);
    world_nap(&t->w, draw(t, 30) * NS_PER_MS);
    if (s->pid && s->pid == pid)
        harness_kill(s, SIGCONT);
    t->continued_ns = clock_mono_ns();
    return p;
}

/* A slot of the process that holds, or may hold, stripes; -1 none. */
static int held_slot(const struct torture *t, pid_t pid)
{
    const struct segment *s = t->w.segment;
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t word = atomic_load((A64 *)&s->slot[i].word);
        uint32_t owner = slot_word_owner(word);
        if (slot_word_state(word) == SLOT_PREFLIGHT && owner < SHM_PARTICIPANTS &&
            (pid_t)atomic_load((A32 *)&s->participant[owner].pid) == pid)
            return (int)i;
    }
    return -1;
}

/* Looks at the slot until somebody repairs it; that one, or NULL when it went too quickly. */
static struct process *reaper_of(struct torture *t, uint32_t slot)
{
    const struct segment *s = t->w.segment;
    uint64_t until = clock_mono_ns() + REAPER_WATCH_NS;
    uint64_t before = atomic_load((A64 *)&s->slot[slot].word), word;
    while ((word = atomic_load((A64 *)&s->slot[slot].word)) == before && clock_mono_ns() < until)
        ;
    uint32_t owner = slot_word_owner(word);
    if (slot_word_state(word) != SLOT_REAPING || owner >= SHM_PARTICIPANTS)
        return NULL;
    pid_t pid = (pid_t)atomic_load((A32 *)&s->participant[owner].pid);
    for (int i = 0; i < t->w.h.processes; i++)
        if (t->w.h.process[i].pid == pid)
            return &t->w.h.process[i];
    return NULL;
}

/* A process that holds stripes dies, and then whoever gives them back. */
static struct process *round_reaper(struct torture *t)
{
    for (int i = 0; i < REAPER_LOOKS; i++) {
        struct process *p = draw(t, 4) ? t->w.client[draw(t, 4)] : t->w.worker[draw(t, 2)];
        if (!p->pid)
            continue;
        harness_kill(p, SIGSTOP);
        int slot = held_slot(t, p->pid);
        if (slot < 0) {
            harness_kill(p, SIGCONT);
            world_nap(&t->w, NS_PER_MS);
            continue;
        }
        t->holders++;
        /* Nobody supervises until somebody has repaired: its successor does not help. */
        int before = p->restarts;
        harness_kill(p, SIGKILL);
        struct process *reaper = reaper_of(t, (uint32_t)slot);
        t->reapers += reaper != NULL;
        kill_one(t, reaper ? reaper : t->w.writer);
        while (!world_is_back(&t->w, p, before))
            world_nap(&t->w, NS_PER_MS);
        t->kills++;
        return p;
    }
    return round_one(t);
}

static void round_of_kills(struct torture *t)
{
    world_nap(&t->w, draw(t, 25) * NS_PER_MS);
    uint64_t kind = draw(t, 100);
    struct process *dead = kind < 55   ? round_one(t)
                           : kind < 70 ? round_two(t)
                           : kind < 88 ? round_stop(t)
                                       : round_reaper(t);
    measure(t, dead);
}

/* ---- the run ---- */

static int told(struct torture *t, uint64_t seed, uint64_t ns)
{
    const struct audit *a = &t->audit;
    const struct world *w = &t->w;
    printf("%u kills, %u deaths in all (%.1f/s); longest time to a commit after one: %.0f ms (%s); "
           "seed %llu\n",
           t->kills, w->deaths, (double)w->deaths / ((double)ns / 1e9), (double)t->worst_ns / 1e6,
           t->worst_after ? t->worst_after->name : "none", (unsigned long long)seed);
    printf("%u pairs at once, %u stopped and continued, %u that held stripes, %u that gave them "
           "back\n",
           t->pairs, t->stops, t->holders, t->reapers);
    printf("%llu operations: %llu committed, %llu refused, %llu given up; %llu events; "
           "%llu histories of registers, %llu operations in them\n",
           (unsigned long long)a->sent, (unsigned long long)a->committed,
           (unsigned long long)a->refused, (unsigned long long)a->given_up,
           (unsigned long long)(a->next_event - 1), (unsigned long long)a->histories,
           (unsigned long long)a->history_ops);
    printf("%u backups were made and %u died; %u are whole, %u were restored, with %llu events\n",
           w->backups, w->backup_deaths, t->backups.here + t->backups.dropped, t->backups.restored,
           (unsigned long long)t->backups.events);
    int ok = a->violations == 0 && w->unexpected == 0 && t->late == 0 && t->probes_failed == 0;
    if (!ok)
        printf("%u violations, %u ends that were not ours, %u late commits, %u failed probes\n",
               a->violations, w->unexpected, t->late, t->probes_failed);
    return ok;
}

static int run(unsigned kills, uint64_t seconds, uint64_t seed)
{
    static struct torture t; /* outlives exit(): the harness ends it then */
    world_begin(&t.w, seed);
    audit_init(&t.audit, &t.w.h);
    t.w.crash_points = 1;
    uint64_t began = clock_mono_ns(), audited = began;
    unsigned told_at = TELL_EVERY;
    while (t.w.deaths < kills && clock_mono_ns() - began < seconds * NS_PER_S &&
           t.audit.violations == 0 && t.w.unexpected == 0 && t.late == 0 && t.probes_failed == 0) {
        round_of_kills(&t);
        if (t.w.deaths >= told_at) {
            fprintf(stderr, "%u deaths, %.0f s\n", t.w.deaths,
                    (double)(clock_mono_ns() - began) / 1e9);
            told_at += TELL_EVERY;
        }
        if (clock_mono_ns() - audited > AUDIT_EVERY_NS) {
            audit_run(&t.audit, t.w.db, 0);
            backups_check(&t.backups, &t.w, &t.audit, 0);
            audited = clock_mono_ns();
        }
    }
    uint64_t took = clock_mono_ns() - began;
    int ok = world_stop_backups(&t.w);
    ok = world_stop_clients(&t.w) && ok;
    ok = world_segment_clean(&t.w) && ok;
    audit_run(&t.audit, t.w.db, 1);
    backups_check(&t.backups, &t.w, &t.audit, 1);
    ok = told(&t, seed, took) && ok;
    audit_fini(&t.audit);
    ok = world_end(&t.w) && ok;
    printf(ok ? "everything held\n" : "NOT everything held\n");
    return !ok;
}

int main(int argc, char **argv)
{
    unsigned kills = 1000;
    uint64_t seconds = 1000000, seed = 0;
    if (argc > 1 && strcmp(argv[1], CLIENT_FLAG) == 0)
        return client_main(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--kills") == 0)
            kills = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else
            argc = 0;
    }
    if (argc % 2 == 0) {
        fprintf(stderr, "usage: torture [--kills N] [--seconds S] [--seed X]\n");
        return 2;
    }
    return run(kills, seconds, seed ? seed : harness_seed());
}
