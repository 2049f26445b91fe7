/*
 * status.c - azoth status: who runs, how far, how busy. From shared memory alone; only the numbers
 * of the store are read from it, last, and within a bounded time.
 */
#include "client/cmd/status.h"

#include "core/clock.h"
#include "shm/contention.h"

#include <string.h>
#include <unistd.h>

#define STORE_ANSWER_MS 1000u

/* A damaged batch hides nothing but the chain: the rest is what is asked for then. */
static int ask_head(struct snapshot *sn, struct store_facts *f, struct azoth_error *err)
{
    int rc = snapshot_head(sn, &f->head, err);
    if (!rc)
        (void)snapshot_head_chained(sn, &f->head, &f->chain_err);
    return rc;
}

static int ask_facts(struct store *s, void *arg, struct azoth_error *err)
{
    struct store_facts *f = arg;
    struct snapshot *sn;
    int rc = store_usage(s, &f->usage, err);
    if (!rc)
        rc = snapshot_begin(s, &sn, err);
    if (rc)
        return rc;
    rc = ask_head(sn, f, err);
    if (!rc)
        rc = snapshot_marks(sn, f->mark, MARKS_MAX, &f->marks, err);
    if (!rc) {
        f->sealed = snapshot_seal(sn, &f->seal, err);
        rc = f->sealed < 0 ? f->sealed : 0;
    }
    snapshot_end(sn);
    return rc;
}

static void look_at_store(struct status_look *k)
{
    struct store_facts *f = calloc(1, sizeof *f);
    k->store_err.code = 0;
    if (!f) {
        error_set(&k->store_err, AZOTH_ERR_NOMEM, "out of memory");
        return;
    }
    int rc = cmd_ask_store(k->v.dir, ask_facts, f, STORE_ANSWER_MS, &k->store_err);
    if (!rc)
        k->store = *f;
    if (rc != AZOTH_ERR_TIMEOUT)
        free(f);
}

static void rate(struct status_look *k)
{
    struct rates now = {.at_ns = k->now_ns, .commits_s = -1};
    const struct rates *was = &k->rates;
    if (k->v.gauges) {
        const struct gauges_shm *g = k->v.gauges->g;
        now.commits = gauge_get(&g->commits);
        now.transactions = gauge_get(&g->transactions);
        now.events = gauge_get(&g->events);
    }
    double s = (double)(now.at_ns - was->at_ns) / 1e9;
    if (was->at_ns && s > 0 && now.commits >= was->commits) {
        now.commits_s = (double)(now.commits - was->commits) / s;
        now.transactions_s = (double)(now.transactions - was->transactions) / s;
        now.events_s = (double)(now.events - was->events) / s;
    }
    k->rates = now;
}

static void look(struct status_look *k, const char *dir)
{
    view_open(&k->v, dir);
    k->now_ns = clock_mono_ns();
    k->wall_ns = clock_wall_ns();
    view_pauses(&k->v, k->now_ns, &k->pauses);
    memset(&k->counts, 0, sizeof k->counts);
    if (k->v.segment)
        view_count(k->v.segment, &k->counts);
    culprits_look(&k->v, NULL, k->now_ns, &k->culprits);
    rate(k);
}

uint64_t status_disk_full_ns(const struct status_look *k)
{
    return k->v.gauges ? gauge_get(&k->v.gauges->g->disk_full_ns) : 0;
}

const char *status_projection_state(const struct status_look *k, const struct projection_row *r,
                                    uint64_t head)
{
    return projection_row_state(r, projection_row_head(r, head), k->v.feed_alive, k->now_ns,
                                k->lapse_ns);
}

double status_seconds_since(const struct status_look *k, int64_t wall_ns)
{
    return k->wall_ns > wall_ns ? (double)(k->wall_ns - wall_ns) / 1e9 : 0;
}

/* ---- text ---- */

static void print_writer(const struct status_look *k)
{
    const struct segment *s = k->v.segment;
    char text[CMD_TIME_TEXT];
    printf("writer        ");
    if (k->v.writer_alive == 0)
        printf("not running%s\n", s ? "; what follows is what the last one left" : "");
    else if (!s)
        printf("%s; segment: %s (%s)\n", k->v.writer_alive > 0 ? "alive" : "unknown",
               k->v.segment_err.message, azoth_code_name(k->v.segment_err.code));
    if (!s)
        return;
    const struct header_shm *h = s->header;
    if (k->v.writer_alive != 0) {
        uint64_t beat = atomic_load((A64 *)&h->heartbeat_ns);
        printf("%s, pid %u, heartbeat %s ago\n",
               writer_state_name(atomic_load((A32 *)&h->writer_state)),
               atomic_load((A32 *)&h->writer_pid),
               cmd_duration(beat < k->now_ns ? k->now_ns - beat : 0, text));
    }
    printf("sync          %s; epoch %llu, incarnation %llu%s\n", sync_mode_name(h->sync_mode),
           (unsigned long long)atomic_load((A64 *)&h->epoch), (unsigned long long)h->incarnation,
           segment_retired(s) ? "; segment RETIRED" : "");
    if (k->pauses.writes != WRITES_OPEN)
        print_pauses("writes        ", &k->pauses, k->now_ns);
    else if (k->v.writer_alive == 0)
        printf("writes        none\n");
    else if (status_disk_full_ns(k))
        printf("writes        REFUSED: the disk is full since %s\n",
               cmd_time((int64_t)status_disk_full_ns(k), text));
    else
        printf("writes        open\n");
}

static void print_gauges(const struct status_look *k)
{
    char a[CMD_TIME_TEXT], b[CMD_TIME_TEXT], c[CMD_TIME_TEXT], d[CMD_TIME_TEXT];
    if (!k->v.gauges)
        return;
    const struct gauges_shm *g = k->v.gauges->g;
    printf("head          event %llu, transaction %llu, %s%s\n",
           (unsigned long long)gauge_get(&g->head_event),
           (unsigned long long)gauge_get(&g->head_txn),
           cmd_time((int64_t)gauge_get(&g->head_time_ns), a),
           gauge_get(&g->clock_held) ? "; the clock is behind, event times stand still" : "");
    printf("done          %llu transactions in %llu commits, %llu events; %llu rejected, "
           "%llu repeated, %llu commits failed\n",
           (unsigned long long)gauge_get(&g->transactions),
           (unsigned long long)gauge_get(&g->commits), (unsigned long long)gauge_get(&g->events),
           (unsigned long long)gauge_get(&g->rejected),
           (unsigned long long)gauge_get(&g->duplicates),
           (unsigned long long)gauge_get(&g->commit_failures));
    printf("commit        p50 %s, p99 %s, max %s; p50 %llu transactions\n",
           cmd_duration(histogram_at(&g->commit_ns, 0.5), a),
           cmd_duration(histogram_at(&g->commit_ns, 0.99), b),
           cmd_duration(gauge_get(&g->commit_ns.max), c),
           (unsigned long long)histogram_at(&g->batch_size, 0.5));
    printf("preflight     p50 %s, p99 %s; applied within p50 %s, p99 %s of the commit\n",
           cmd_duration(histogram_at(&g->preflight_ns, 0.5), a),
           cmd_duration(histogram_at(&g->preflight_ns, 0.99), b),
           cmd_duration(histogram_at(&g->lag_ns, 0.5), c),
           cmd_duration(histogram_at(&g->lag_ns, 0.99), d));
    if (k->rates.commits_s >= 0)
        printf("rates         %.0f transactions/s, %.0f events/s, %.0f commits/s\n",
               k->rates.transactions_s, k->rates.events_s, k->rates.commits_s);
    printf("feed          %s; %llu events in %llu batches sent\n",
           k->v.feed_alive < 0 ? "unknown"
           : k->v.feed_alive   ? "running"
                               : "not running",
           (unsigned long long)gauge_get(&g->feed_events),
           (unsigned long long)gauge_get(&g->feed_batches));
}

static void print_segment(const struct status_look *k)
{
    const struct segment *s = k->v.segment;
    if (!s)
        return;
    printf("queue         %u submitted; %u of %u slots free", k->counts.slot[SLOT_SUBMITTED],
           k->counts.slot[SLOT_FREE], s->slots);
    for (uint32_t i = SLOT_CLAIMED; i <= SLOT_REAPING; i++)
        if (k->counts.slot[i])
            printf(", %u %s", k->counts.slot[i], slot_state_name(i));
    printf("\nstripes       %u held exclusively, %u shared, of %u; %u of %u blocks in use\n",
           k->counts.exclusive, k->counts.shared, s->stripes, k->counts.blocks_used, s->blocks);
}

static void print_participants(const struct status_look *k)
{
    const struct segment *s = k->v.segment;
    int any = 0;
    for (uint32_t i = 0; s && i < SHM_PARTICIPANTS; i++) {
        const struct participant_shm *p = &s->participant[i];
        if ((atomic_load((A64 *)&p->word) & 0xff) != PARTICIPANT_LIVE)
            continue;
        if (!any++)
            printf("\n%-8s %-9s %-24s %-7s %10s %9s %9s %9s\n", "PID", "KIND", "NAME", "ALIVE",
                   "SUBMITTED", "REFUSED", "TIMEOUTS", "WAITS");
        char shown[sizeof p->name * 4 + 1];
        printf(
            "%-8u %-9s %-24s %-7s %10llu %9llu %9llu %9llu\n", atomic_load((A32 *)&p->pid),
            participant_kind_name(atomic_load((A32 *)&p->kind)),
            bytes_print(bytes_of(p->name, strnlen(p->name, sizeof p->name)), shown, sizeof shown),
            alive_name(view_participant_alive(&k->v, i)),
            (unsigned long long)gauge_get(&p->submitted),
            (unsigned long long)gauge_get(&p->refused),
            (unsigned long long)gauge_get(&p->lock_timeouts),
            (unsigned long long)gauge_get(&p->stripe_waits));
    }
}

static void print_projections(const struct status_look *k)
{
    struct projection_row r;
    int any = 0;
    for (uint32_t i = 0; k->v.gauges && i < SHM_PROJECTIONS; i++) {
        if (!projection_row_read(k->v.gauges, i, &r))
            continue;
        uint64_t head = gauge_get(&k->v.gauges->g->head_event);
        if (!any++)
            printf("\n%-28s %-9s %12s %12s %8s\n", "PROJECTION", "STATE", "CURSOR", "BEHIND",
                   "ERRORS");
        char name[96];
        if (r.shards > 1)
            snprintf(name, sizeof name, "%s %u/%u", r.name, r.shard, r.shards);
        else
            snprintf(name, sizeof name, "%s", r.name);
        printf("%-28s %-9s %12llu %12llu %8llu\n", name, status_projection_state(k, &r, head),
               (unsigned long long)r.cursor,
               (unsigned long long)(head > r.cursor ? head - r.cursor : 0),
               (unsigned long long)r.errors);
    }
}

static void print_contention(const struct status_look *k)
{
    const struct segment *s = k->v.segment;
    char key[4 * 512 + 1], took[CMD_TIME_TEXT];
    int any = 0;
    for (uint32_t i = 0; s && i < REFUSALS; i++) {
        uint64_t n = gauge_get(&s->contention->refused_by[i]);
        if (n)
            printf("%s%s %llu", any++ ? ", " : "\nrefused       ", refusal_name(i),
                   (unsigned long long)n);
    }
    if (any)
        puts("");
    for (uint32_t i = 0; i < k->culprits.hots && i < 5; i++) {
        const struct hot_key *h = &k->culprits.hot[i];
        printf("%s %s, stripe %u: %llu waits, %s in all\n", i ? "             " : "waited for   ",
               h->len ? bytes_print(bytes_of(h->key, h->len), key, sizeof key) : "(no key known)",
               h->stripe, (unsigned long long)h->waits, cmd_duration(h->wait_ns, took));
    }
}

static void print_pins(const struct status_look *k)
{
    char age[CMD_TIME_TEXT], size[CMD_TIME_TEXT];
    for (uint32_t i = 0; i < k->culprits.pins; i++) {
        const struct pin *p = &k->culprits.pin[i];
        printf("pinned        ");
        if (*p->projection)
            printf("%s's WAL (%s) ", p->projection, cmd_size(p->wal_bytes, size));
        else
            printf("the store's pages of %llu commits ", (unsigned long long)p->behind);
        printf("by pid %llu", (unsigned long long)p->pid);
        if (*p->program)
            printf(" %s", p->program);
        if (*p->unit)
            printf(" (%s)", p->unit);
        if (p->age_s >= 0)
            printf(", for %s at %s", cmd_duration((uint64_t)(p->age_s * 1e9), age),
                   *p->projection ? "most" : "least");
        puts("");
    }
}

static void print_disk(const struct status_look *k)
{
    char a[CMD_TIME_TEXT], b[CMD_TIME_TEXT];
    const struct culprits *c = &k->culprits;
    if (c->disk_total_bytes == 0)
        return;
    printf("disk          %s free of %s", cmd_size(c->disk_free_bytes, a),
           cmd_size(c->disk_total_bytes, b));
    if (c->disk_free_bytes == 0)
        printf(", full");
    else if (c->disk_fill_day == 0)
        printf(", not filling");
    else if (c->days_to_full >= 0)
        printf(", full in %.1f days at %s a day", c->days_to_full,
               cmd_size((uint64_t)c->disk_fill_day, a));
    puts("");
}

static void print_marks(const struct status_look *k)
{
    char age[CMD_TIME_TEXT], size[CMD_TIME_TEXT];
    const struct store_usage *u = &k->store.usage;
    if (u->redo_records || k->store.marks)
        printf("redo          %llu records, %s, for %u places of backups\n",
               (unsigned long long)u->redo_records, cmd_size(u->redo_bytes, size), k->store.marks);
    for (uint32_t i = 0; i < k->store.marks; i++) {
        const struct mark *m = &k->store.mark[i];
        char place[2 * MARK_PLACE + 1];
        bytes_hex(place, m->place, MARK_PLACE);
        printf("%s %s has all up to transaction %llu, %llu behind, of %s ago%s%s\n",
               i ? "             " : "backups      ", place, (unsigned long long)m->txn,
               (unsigned long long)(k->store.head.txn - m->txn),
               cmd_duration((uint64_t)(status_seconds_since(k, m->since_ns) * 1e9), age),
               m->confirmed ? "" : "; its first backup is not complete yet",
               m->broken ? "; BROKEN: the next one has to be full" : "");
    }
}

static void print_store(const struct status_look *k)
{
    char size[CMD_TIME_TEXT], hex[2 * CHAIN_BYTES + 1], who[4 * sizeof k->store.seal.who],
        archived[60] = "";
    const struct store_usage *u = &k->store.usage;
    const struct chain *c = &k->store.head.chain;
    if (k->store_err.code) {
        printf("\nstore         %s\n", k->store_err.message);
        return;
    }
    if (u->events_archived)
        snprintf(archived, sizeof archived, " (%llu of them archived)",
                 (unsigned long long)u->events_archived);
    printf("\nstore         %llu keys, %llu events%s, %llu request ids, %s; %u of %u readers\n",
           (unsigned long long)u->state_keys, (unsigned long long)u->events, archived,
           (unsigned long long)u->ids, cmd_size(u->file_bytes, size), u->readers, u->readers_max);
    bytes_hex(hex, c->value, CHAIN_BYTES);
    if (k->store.chain_err.code)
        printf("chain         not known: %s\n", k->store.chain_err.message);
    else if (c->on)
        printf("chain         %s at event %llu, transaction %llu\n", hex,
               (unsigned long long)c->event, (unsigned long long)c->txn);
    if (k->store.sealed)
        printf(
            "seal          at event %llu (transaction %llu), %s, by %s, pid %u: azoth unseal ends "
            "it\n",
            (unsigned long long)k->store.seal.event, (unsigned long long)k->store.seal.txn,
            cmd_time(k->store.seal.time_ns, size),
            bytes_print(bytes_str(k->store.seal.who), who, sizeof who), k->store.seal.pid);
    print_marks(k);
}

static void print_text(struct status_look *k)
{
    printf("database      %s\n", k->v.dir);
    print_writer(k);
    print_gauges(k);
    print_segment(k);
    print_disk(k);
    print_pins(k);
    print_contention(k);
    print_participants(k);
    print_projections(k);
    fflush(stdout); /* the store may let us wait */
    look_at_store(k);
    print_store(k);
}

/* ---- the command ---- */

static int show(struct status_look *k, const char *dir, int json)
{
    int rc = 0;
    look(k, dir);
    if (json) {
        look_at_store(k);
        rc = status_print_json(k);
    } else {
        print_text(k);
    }
    int alive = k->v.writer_alive;
    view_close(&k->v);
    return rc ? rc : alive == 0 ? azoth_code_exit(AZOTH_ERR_NO_WRITER) : 0;
}

static int watch(struct status_look *k, const char *dir, int json)
{
    int rc = 0;
    cmd_catch_signals();
    while (!cmd_interrupted() && (rc == 0 || rc == azoth_code_exit(AZOTH_ERR_NO_WRITER))) {
        if (!json && isatty(STDOUT_FILENO))
            printf("\033[H\033[2J");
        rc = show(k, dir, json);
        if (!json)
            putchar('\n');
        if (fflush(stdout))
            break;
        cmd_sleep_ms(1000);
    }
    return rc;
}

static int dump(const char *dir, int all, int json)
{
    struct view v;
    view_open(&v, dir);
    int rc = v.segment ? segment_dump(v.segment, all, json) : cmd_fail(&v.segment_err);
    view_close(&v);
    return rc;
}

/* With settings that cannot be read, that of the default: what can be seen is shown all the same. */
static void lapse_of(const char *dir, uint64_t *ret_ns)
{
    struct config c;
    if (config_load(&c, dir, NULL))
        config_defaults(&c);
    *ret_ns = c.number[CONFIG_feed_lapse] * NS_PER_MS;
}

static int run_status(struct cmd_line *l)
{
    static struct status_look k;
    char dir[4096];
    int watches = 0, segment = 0, all = 0;
    const struct cmd_flag flags[] = {{"--watch", FLAG_SWITCH, &watches},
                                     {"--segment", FLAG_SWITCH, &segment},
                                     {"--all", FLAG_SWITCH, &all},
                                     {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 0);
    if (!rc)
        rc = cmd_dir(l, NULL, 1, dir, sizeof dir);
    if (rc)
        return rc;
    if (watches && segment)
        return cmd_usage(l, "--watch and --segment exclude each other");
    if (all && !segment)
        return cmd_usage(l, "--all is of --segment");
    lapse_of(dir, &k.lapse_ns);
    if (segment)
        return dump(dir, all, l->json);
    return watches ? watch(&k, dir, l->json) : show(&k, dir, l->json);
}

const struct cmd cmd_status = {
    .name = "status",
    .synopsis = "[--watch] [--segment [--all]] [--json]",
    .summary = "Who runs, how far, how busy",
    .help =
        "  --watch    once a second, with rates, until Ctrl-C\n"
        "  --segment  every field of the shared segment instead: also of a dead or retired one\n"
        "  --all      with --segment: free rows, slots and stripes too\n"
        "  --json     one object (with --watch one a line)\n\n"
        "Reads shared memory and asks nobody. Exit code 3 when no writer runs; what is known is\n"
        "printed all the same.\n\n"
        "  azoth status\n"
        "  azoth status --json | jq .segment.queue_depth\n"
        "  azoth status --segment > post-mortem.txt\n",
    .run = run_status,
};
