/* view.c - looking at a database from outside; see view.h. */
#include "shm/view.h"

#include "core/clock.h"
#include "core/dbdir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HELPER_LASTS_NS (5 * NS_PER_S)

/* participants.lock tells who lives, to those who may read it: asking for a lock needs no more. */
static void look_who_lives(struct view *v)
{
    char path[4200];
    v->lock_fd = -1;
    v->writer_alive = v->feed_alive = -1;
    if (dbdir_path(path, sizeof path, v->dir, "participants.lock"))
        return;
    v->lock_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (v->lock_fd >= 0) {
        v->writer_alive = writer_place_held(v->dir);
        v->feed_alive = feed_place_held(v->dir);
    } else if (errno == ENOENT) {
        v->writer_alive = v->feed_alive = 0;
    }
}

void view_open(struct view *v, const char *dir)
{
    memset(v, 0, sizeof *v);
    snprintf(v->dir, sizeof v->dir, "%s", dir);
    look_who_lives(v);
    if (segment_name_of(dir, &v->name, &v->segment_err)) {
        v->gauges_err = v->segment_err;
        return;
    }
    if (segment_inspect(&v->name, &v->segment, &v->segment_err))
        v->segment = NULL;
    if (gauges_attach(&v->name, 0, &v->gauges, &v->gauges_err))
        v->gauges = NULL;
}

void view_close(struct view *v)
{
    segment_detach(v->segment);
    gauges_detach(v->gauges);
    if (v->lock_fd >= 0)
        close(v->lock_fd);
    v->segment = NULL;
    v->gauges = NULL;
    v->lock_fd = -1;
}

int view_participant_alive(const struct view *v, uint32_t index)
{
    if (v->lock_fd < 0)
        return -1;
    /* Looks through our descriptor; the index is nobody's, as we are no participant. */
    struct participant nobody = {
        .segment = v->segment, .index = SHM_PARTICIPANTS, .lock_fd = v->lock_fd};
    return !participant_dead(&nobody, index);
}

uint32_t view_followers(const struct view *v, char (*out)[VIEW_FOLLOWER], uint32_t cap)
{
    const size_t prefix = sizeof MARK_FOLLOWER - 1;
    uint32_t n = 0;
    for (uint32_t i = 0; v->segment && i < SHM_PARTICIPANTS && n < cap; i++) {
        const struct participant_shm *p = &v->segment->participant[i];
        char name[sizeof p->name + 1] = "";
        memcpy(name, (const char *)p->name, sizeof p->name);
        if ((atomic_load((A64 *)&p->word) & 0xff) == PARTICIPANT_LIVE &&
            strncmp(name, MARK_FOLLOWER, prefix) == 0 && view_participant_alive(v, i) == 1)
            snprintf(out[n++], VIEW_FOLLOWER, "%.*s", MARK_FOLLOWER_DIGITS, name + prefix);
    }
    return n;
}

int view_is_followed(const char (*list)[VIEW_FOLLOWER], uint32_t n, const char *uuid)
{
    for (uint32_t i = 0; i < n; i++)
        if (strncmp(list[i], uuid, MARK_FOLLOWER_DIGITS) == 0)
            return 1;
    return 0;
}

enum place_state { PLACE_FOLLOWING, PLACE_SILENT, PLACE_BROKEN, PLACE_KEPT };
const char *const view_place_states[VIEW_PLACE_STATES] = {"following", "silent", "broken", "kept"};

const char *view_place_state(const struct mark *m, const char (*list)[VIEW_FOLLOWER], uint32_t n,
                             const char *uuid)
{
    enum place_state is = m->broken                         ? PLACE_BROKEN
                          : view_is_followed(list, n, uuid) ? PLACE_FOLLOWING
                          : m->followed                     ? PLACE_SILENT
                                                            : PLACE_KEPT;
    return view_place_states[is];
}

/* Without a writer nobody ends what is over: it is left out here. */
void view_pauses(const struct view *v, uint64_t now_ns, struct view_pauses *ret)
{
    memset(ret, 0, sizeof *ret);
    if (!v->segment)
        return;
    for (uint32_t i = 0; i <= SHM_PAUSE_STORE; i++) {
        struct pause_info *p = &ret->row[ret->len];
        if (!pause_read(v->segment, i, p) || p->until_ns <= now_ns ||
            (p->owner < SHM_PARTICIPANTS && view_participant_alive(v, p->owner) == 0))
            continue;
        uint64_t left = p->until_ns == UINT64_MAX ? UINT64_MAX : p->until_ns - now_ns;
        ret->left_ns = left > ret->left_ns ? left : ret->left_ns;
        ret->age_ns = now_ns - p->since_ns > ret->age_ns ? now_ns - p->since_ns : ret->age_ns;
        ret->len++;
    }
    if (!ret->len)
        return;
    uint32_t paused = atomic_load(&v->segment->header->paused);
    ret->writes = paused == PAUSE_SEAL ? WRITES_SEALED : paused ? WRITES_PAUSED : WRITES_PAUSING;
}

const char *view_writes_name(enum view_writes writes)
{
    static const char *const names[] = {"open", "pausing", "paused", "sealed"};
    return (unsigned)writes < sizeof names / sizeof *names ? names[writes] : "?";
}

uint64_t view_helper_looked(const struct view *v, uint64_t now_ns)
{
    uint64_t looked = v->gauges ? gauge_get(&v->gauges->g->looked_ns) : 0;
    return now_ns <= looked + HELPER_LASTS_NS ? looked : 0;
}

uint64_t view_files_looked(const struct view *v, uint64_t now_ns)
{
    uint64_t looked = v->gauges ? gauge_get(&v->gauges->g->files_looked_ns) : 0;
    return now_ns <= looked + HELPER_LASTS_NS ? looked : 0;
}

void view_count(const struct segment *s, struct view_counts *ret)
{
    memset(ret, 0, sizeof *ret);
    for (uint32_t i = 0; i < s->slots; i++) {
        uint32_t state = slot_word_state(atomic_load(&s->slot[i].word));
        if (state <= SLOT_REAPING)
            ret->slot[state]++;
    }
    for (uint32_t i = 0; i < s->stripes; i++) {
        const struct stripe_shm *t = &s->stripe[i];
        uint64_t shared = 0;
        for (uint32_t w = 0; w < SHM_SLOT_WORDS; w++)
            shared |= atomic_load_explicit((A64 *)&t->shared[w], memory_order_relaxed);
        ret->exclusive += atomic_load_explicit((A64 *)&t->exclusive, memory_order_relaxed) != 0;
        ret->shared += shared != 0;
    }
    for (uint32_t i = 0; i < s->blocks; i++)
        ret->blocks_used += atomic_load_explicit(&s->block_owner[i], memory_order_relaxed) != 0;
}

const char *slot_state_name(uint32_t state)
{
    static const char *const names[] = {"free",      "claimed",  "preflight", "submitted",
                                        "committed", "rejected", "reaping"};
    return state < sizeof names / sizeof *names ? names[state] : "?";
}

const char *participant_kind_name(uint32_t kind)
{
    static const char *const names[] = {"?",    "writer",   "worker", "client",
                                        "feed", "embedded", "tool"};
    return kind < sizeof names / sizeof *names ? names[kind] : "?";
}

const char *writer_state_name(uint32_t state)
{
    static const char *const names[] = {"absent", "recovering", "running", "draining"};
    return state < sizeof names / sizeof *names ? names[state] : "?";
}

const char *sync_mode_name(uint64_t mode)
{
    static const char *const names[] = {"full", "meta-lazy", "none"};
    return mode < sizeof names / sizeof *names ? names[mode] : "?";
}

const char *alive_name(int alive)
{
    return alive < 0 ? "unknown" : alive ? "yes" : "no";
}
