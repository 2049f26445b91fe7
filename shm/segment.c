/*
 * segment.c - the shared objects: creation, attaching, retirement.
 *
 * Happy path: the writer creates the object under a temporary name's absence (O_EXCL), allocates it
 * in full, fills the header and stores the magic last; others map it and look at the magic first.
 *
 * Failure modes:
 *   creator dies before the magic  -> attachers see "no writer"; the next writer unlinks and starts anew
 *   another layout                 -> attachers are told both versions; the writer retires it through
 *                                     the frozen prefix
 *   object smaller than it says    -> CORRUPT, before anything is touched
 */
#include "shm/segment.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define LOOK_INTERVAL_NS NS_PER_S

struct plan_offsets {
    uint64_t header, participant, slot, stripe, block_owner, block, contention, pause, end;
};

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static struct plan_offsets offsets_of(uint32_t slots, uint32_t stripes, uint32_t blocks)
{
    struct plan_offsets o;
    o.header = sizeof(struct prefix_shm);
    o.participant = round_up(o.header + sizeof(struct header_shm), 64);
    o.slot = round_up(o.participant + SHM_PARTICIPANTS * sizeof(struct participant_shm), 4096);
    o.stripe = o.slot + (uint64_t)slots * sizeof(struct slot_shm);
    o.block_owner = o.stripe + (uint64_t)stripes * sizeof(struct stripe_shm);
    o.block = round_up(o.block_owner + (uint64_t)blocks * 8, 4096);
    o.contention = o.block + (uint64_t)blocks * SHM_BLOCK_BYTES;
    o.pause = round_up(o.contention + sizeof(struct contention_shm), 64);
    o.end = o.pause + (SHM_PAUSES + 1) * sizeof(struct pause_shm);
    return o;
}

uint64_t segment_fingerprint(void)
{
    uint64_t h = 0, n[2];
#define MIX(structure, name)                                                                       \
    n[0] = offsetof(struct structure, name);                                                       \
    n[1] = sizeof(((struct structure *)0)->name);                                                  \
    h = XXH3_64bits_withSeed(#structure "." #name, sizeof #structure "." #name, h);                \
    h = XXH3_64bits_withSeed(n, sizeof n, h);
#define HEADER_1(type, name)         MIX(header_shm, name)
#define HEADER_N(type, name, c)      MIX(header_shm, name)
#define PARTICIPANT_1(type, name)    MIX(participant_shm, name)
#define PARTICIPANT_N(type, name, c) MIX(participant_shm, name)
#define SLOT_1(type, name)           MIX(slot_shm, name)
#define SLOT_N(type, name, c)        MIX(slot_shm, name)
#define STRIPE_1(type, name)         MIX(stripe_shm, name)
#define STRIPE_N(type, name, c)      MIX(stripe_shm, name)
#define CONTENTION_1(type, name)     MIX(contention_shm, name)
#define CONTENTION_N(type, name, c)  MIX(contention_shm, name)
#define PAUSE_1(type, name)          MIX(pause_shm, name)
#define PAUSE_N(type, name, c)       MIX(pause_shm, name)
    SHM_HEADER_FIELDS(HEADER_1, HEADER_N)
    SHM_PARTICIPANT_FIELDS(PARTICIPANT_1, PARTICIPANT_N)
    SHM_SLOT_FIELDS(SLOT_1, SLOT_N)
    SHM_STRIPE_FIELDS(STRIPE_1, STRIPE_N)
    SHM_CONTENTION_FIELDS(CONTENTION_1, CONTENTION_N)
    SHM_PAUSE_FIELDS(PAUSE_1, PAUSE_N)
    return h;
}

int segment_name_of(const char *dir, struct segment_name *ret, struct azoth_error *err)
{
    struct stat st;
    if (stat(dir, &st))
        return errno == ENOENT || errno == ENOTDIR
                   ? error_set(err, AZOTH_ERR_NO_DATABASE, "%s: no such directory", dir)
                   : error_errno(err, errno, "%s", dir);
    uint64_t id[2] = {(uint64_t)st.st_dev, (uint64_t)st.st_ino};
    XXH64_hash_t h = XXH64(id, sizeof id, 0);
    snprintf(ret->segment, sizeof ret->segment, "/azoth-%016llx", (unsigned long long)h);
    snprintf(ret->gauges, sizeof ret->gauges, "/azoth-%016llx-gauges", (unsigned long long)h);
    return 0;
}

static void segment_point(struct segment *s, void *base)
{
    unsigned char *p = base;
    struct plan_offsets o = offsets_of(s->slots, s->stripes, s->blocks);
    s->prefix = base;
    s->header = (void *)(p + o.header);
    s->participant = (void *)(p + o.participant);
    s->slot = (void *)(p + o.slot);
    s->stripe = (void *)(p + o.stripe);
    s->block_owner = (void *)(p + o.block_owner);
    s->block = p + o.block;
    s->contention = (void *)(p + o.contention);
    s->pause = (void *)(p + o.pause);
    s->bytes = o.end;
}

/* Creates an object of `bytes` under name, allocated in full. *ret is its mapping; *ret_fd the caller closes. */
static int object_create(const char *name, uint64_t bytes, unsigned mode, void **ret, int *ret_fd,
                         struct azoth_error *err)
{
    int rc = 0;
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, errno, "shared memory %s", name);
    CRASH_POINT(segment_opened);
    /* fchmod, not the mode of shm_open: the umask of a shell must not shut the group out. First, so
     * that who attaches meanwhile finds it unfinished, not forbidden. */
    if (fchmod(fd, mode)) {
        rc = error_errno(err, errno, "shared memory %s", name);
        goto fail;
    }
    /* Allocated now: a later write to a full tmpfs would be SIGBUS. */
    int e = posix_fallocate(fd, 0, (off_t)bytes);
    if (e) {
        rc = error_errno(err, e, "shared memory %s: %llu bytes", name, (unsigned long long)bytes);
        goto fail;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        rc = error_errno(err, errno, "shared memory %s", name);
        goto fail;
    }
    CRASH_POINT(segment_allocated);
    *ret = p;
    *ret_fd = fd;
    return 0;
fail:
    close(fd);
    shm_unlink(name);
    return rc;
}

int segment_create(const struct segment_name *name, const struct segment_plan *plan,
                   struct segment **ret, struct azoth_error *err)
{
    struct segment *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, AZOTH_ERR_NOMEM, "the segment's handle");
    s->slots = plan->slots;
    s->stripes = plan->stripes;
    s->blocks = plan->blocks;
    s->incarnation = plan->incarnation;
    s->name = *name;
    uint64_t bytes = offsets_of(s->slots, s->stripes, s->blocks).end;
    shm_unlink(name->segment);
    void *base;
    int rc = object_create(name->segment, bytes, plan->mode, &base, &s->fd, err);
    if (rc) {
        free(s);
        return rc;
    }
    segment_point(s, base);
    struct header_shm *h = s->header;
    memcpy(h->uuid, plan->uuid, sizeof h->uuid);
    h->device = plan->device;
    h->inode = plan->inode;
    h->incarnation = plan->incarnation;
    h->created_ns = (uint64_t)clock_wall_ns();
    h->slots = plan->slots;
    h->stripes = plan->stripes;
    h->blocks = plan->blocks;
    h->sync_mode = plan->sync_mode;
    for (uint32_t i = 0; i < s->slots; i++)
        atomic_fetch_or_explicit(&h->free_bits[i / 64], 1ull << (i % 64), memory_order_relaxed);
    s->prefix->layout_version = SHM_LAYOUT_VERSION;
    s->prefix->fingerprint = segment_fingerprint();
    s->prefix->bytes = bytes;
    atomic_store_explicit(&s->prefix->state, SEGMENT_LIVE, memory_order_relaxed);
    atomic_store_explicit(&s->prefix->magic, SHM_MAGIC, memory_order_release);
    CRASH_POINT(segment_made);
    *ret = s;
    return 0;
}

/* Maps an existing object whole. *ret_bytes is its size; *ret_fd the caller closes. */
static int object_map(const char *name, int writable, uint64_t least, void **ret,
                      uint64_t *ret_bytes, int *ret_fd, struct azoth_error *err)
{
    int fd = shm_open(name, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
    if (fd < 0)
        return errno == ENOENT ? error_set(err, AZOTH_ERR_NO_WRITER,
                                           "no writer has made the shared segment yet")
                               : error_errno(err, errno, "shared memory %s", name);
    struct stat st;
    if (fstat(fd, &st)) {
        int e = errno;
        close(fd);
        return error_errno(err, e, "shared memory %s", name);
    }
    if ((uint64_t)st.st_size < least) {
        close(fd);
        return error_set(err, AZOTH_ERR_NO_WRITER, "the shared segment is being made");
    }
    void *p =
        mmap(NULL, (size_t)st.st_size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        int e = errno;
        close(fd);
        return error_errno(err, e, "shared memory %s", name);
    }
    *ret = p;
    *ret_bytes = (uint64_t)st.st_size;
    *ret_fd = fd;
    return 0;
}

/* Is this a segment of our layout, alive (or a retired one may do), and as large as it says? */
static int segment_accept(const struct prefix_shm *p, uint64_t bytes, int retired_too,
                          struct azoth_error *err)
{
    uint64_t magic = atomic_load_explicit((A64 *)&p->magic, memory_order_acquire);
    if (magic == 0)
        return error_set(err, AZOTH_ERR_NO_WRITER, "the shared segment is being made");
    if (magic != SHM_MAGIC)
        return error_set(err, AZOTH_ERR_CORRUPT, "the shared segment has a wrong magic number");
    if (!retired_too &&
        atomic_load_explicit((A32 *)&p->state, memory_order_acquire) != SEGMENT_LIVE)
        return error_set(err, AZOTH_ERR_RETIRED, "the shared segment was retired");
    if (p->layout_version != SHM_LAYOUT_VERSION || p->fingerprint != segment_fingerprint())
        return error_set(
            err, AZOTH_ERR_LAYOUT,
            "the segment has layout %u (fingerprint %016llx), this program %u (%016llx): "
            "run programs of one version",
            p->layout_version, (unsigned long long)p->fingerprint, SHM_LAYOUT_VERSION,
            (unsigned long long)segment_fingerprint());
    const struct header_shm *h = (const void *)(p + 1);
    if (h->slots < 1 || h->slots > SHM_SLOTS_MAX || h->stripes < 1 ||
        h->stripes > SHM_STRIPES_MAX || h->blocks > 65536 ||
        offsets_of(h->slots, h->stripes, h->blocks).end != bytes || p->bytes != bytes)
        return error_set(err, AZOTH_ERR_CORRUPT,
                         "the shared segment's sizes contradict each other");
    return 0;
}

static int attach(const struct segment_name *name, int writable, struct segment **ret,
                  struct azoth_error *err)
{
    void *base;
    uint64_t bytes;
    int fd;
    int rc =
        object_map(name->segment, writable, sizeof(struct prefix_shm) + sizeof(struct header_shm),
                   &base, &bytes, &fd, err);
    if (rc)
        return rc;
    rc = segment_accept(base, bytes, !writable, err);
    struct segment *s = rc ? NULL : calloc(1, sizeof *s);
    if (!s) {
        munmap(base, bytes);
        close(fd);
        return rc ? rc : error_set(err, AZOTH_ERR_NOMEM, "the segment's handle");
    }
    const struct header_shm *h = (const void *)((unsigned char *)base + sizeof(struct prefix_shm));
    s->slots = h->slots;
    s->stripes = h->stripes;
    s->blocks = h->blocks;
    s->incarnation = h->incarnation;
    s->name = *name;
    s->fd = fd;
    segment_point(s, base);
    *ret = s;
    return 0;
}

int segment_attach(const struct segment_name *name, struct segment **ret, struct azoth_error *err)
{
    return attach(name, 1, ret, err);
}

int segment_inspect(const struct segment_name *name, struct segment **ret, struct azoth_error *err)
{
    return attach(name, 0, ret, err);
}

void segment_detach(struct segment *s)
{
    if (!s)
        return;
    munmap(s->prefix, s->bytes);
    close(s->fd);
    free(s);
}

static int unlinked(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_nlink == 0;
}

int segment_taken(const struct segment *s)
{
    return unlinked(s->fd);
}

int gauges_taken(const struct gauges *g)
{
    return unlinked(g->fd);
}

void segment_retire(struct segment *s)
{
    atomic_store(&s->prefix->state, SEGMENT_RETIRED);
    CRASH_POINT(segment_retired_state);
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        atomic_fetch_add(&s->participant[i].done_seq, 1);
        shm_wake(&s->participant[i].done_seq, INT_MAX);
    }
    for (uint32_t i = 0; i < s->stripes; i++)
        if (atomic_exchange(&s->stripe[i].waiters, 0)) {
            atomic_fetch_add(&s->stripe[i].wake, 1);
            shm_wake(&s->stripe[i].wake, INT_MAX);
        }
    A32 *rest[] = {&s->header->head_seq, &s->header->free_wake, &s->header->pause_wake,
                   &s->header->writer_wake};
    for (unsigned i = 0; i < sizeof rest / sizeof *rest; i++) {
        atomic_fetch_add(rest[i], 1);
        shm_wake(rest[i], INT_MAX);
    }
}

int segment_look(struct segment *s, uint64_t now_ns)
{
    uint64_t looked = atomic_load_explicit(&s->looked_ns, memory_order_relaxed);
    if (now_ns - looked < LOOK_INTERVAL_NS)
        return atomic_load_explicit(&s->seen_taken, memory_order_relaxed);
    atomic_store_explicit(&s->looked_ns, now_ns, memory_order_relaxed);
    if (!segment_taken(s))
        return 0;
    atomic_store_explicit(&s->seen_taken, 1, memory_order_relaxed);
    /* Signed: it may have moved since now_ns. */
    int64_t silent = (int64_t)(now_ns - atomic_load(&s->header->heartbeat_ns));
    if (silent > (int64_t)SEGMENT_SILENT_NS && !segment_retired(s))
        segment_retire(s);
    return 1;
}

int segment_retire_name(const struct segment_name *name, struct azoth_error *err)
{
    struct segment *s;
    struct azoth_error why;
    int rc = segment_attach(name, &s, &why);
    if (rc == 0) {
        segment_retire(s);
        segment_detach(s);
    } else if (rc != AZOTH_ERR_NO_WRITER) {
        /* Of another layout, or damaged: only the prefix may be touched. Those who wait in it look
         * at the prefix after every slice of waiting. */
        void *base;
        uint64_t bytes;
        int fd;
        if (object_map(name->segment, 1, sizeof(struct prefix_shm), &base, &bytes, &fd, &why) ==
            0) {
            struct prefix_shm *p = base;
            if (atomic_load(&p->magic) == SHM_MAGIC)
                atomic_store(&p->state, SEGMENT_RETIRED);
            munmap(base, bytes);
            close(fd);
        }
    }
    if (shm_unlink(name->segment) && errno != ENOENT)
        return error_errno(err, errno, "shared memory %s", name->segment);
    return 0;
}

void segment_unlink(const struct segment_name *name)
{
    shm_unlink(name->segment);
    CRASH_POINT(segment_unlinked);
    shm_unlink(name->gauges);
}

/* ---- gauges ---- */

static uint64_t gauges_bytes(void)
{
    return round_up(sizeof(struct prefix_shm) + sizeof(struct gauges_shm), 64) +
           SHM_PROJECTIONS * sizeof(struct projection_shm);
}

static uint64_t gauges_fingerprint(void)
{
    uint64_t n[4] = {sizeof(struct gauges_shm), sizeof(struct projection_shm),
                     offsetof(struct gauges_shm, commit_ns), SHM_LAYOUT_VERSION};
    return XXH3_64bits(n, sizeof n);
}

static int gauges_wrap(void *base, int fd, int writable, struct gauges **ret,
                       struct azoth_error *err)
{
    struct gauges *g = calloc(1, sizeof *g);
    if (!g) {
        munmap(base, gauges_bytes());
        close(fd);
        return error_set(err, AZOTH_ERR_NOMEM, "the gauges' handle");
    }
    g->prefix = base;
    g->g = (void *)((unsigned char *)base + sizeof(struct prefix_shm));
    g->projection = (void *)((unsigned char *)base +
                             round_up(sizeof(struct prefix_shm) + sizeof(struct gauges_shm), 64));
    g->bytes = gauges_bytes();
    g->writable = writable;
    g->fd = fd;
    *ret = g;
    return 0;
}

int gauges_attach(const struct segment_name *name, int writable, struct gauges **ret,
                  struct azoth_error *err)
{
    void *base;
    uint64_t bytes;
    int fd;
    int rc = object_map(name->gauges, writable, sizeof(struct prefix_shm), &base, &bytes, &fd, err);
    if (rc)
        return rc;
    struct prefix_shm *p = base;
    uint64_t magic = atomic_load_explicit(&p->magic, memory_order_acquire);
    if (magic != SHM_GAUGES_MAGIC || bytes != gauges_bytes() ||
        p->fingerprint != gauges_fingerprint()) {
        munmap(base, bytes);
        close(fd);
        return magic == 0 ? error_set(err, AZOTH_ERR_NO_WRITER, "the gauges are being made")
                          : error_set(err, AZOTH_ERR_LAYOUT,
                                      "the gauges were made by a version with another layout");
    }
    return gauges_wrap(base, fd, writable, ret, err);
}

int gauges_create(const struct segment_name *name, struct gauges **ret, struct azoth_error *err)
{
    struct azoth_error why;
    if (gauges_attach(name, 1, ret, &why) == 0)
        return 0;
    shm_unlink(name->gauges);
    void *base;
    /* Readable by everybody: numbers and names of projections, no keys and no values. */
    int fd;
    int rc = object_create(name->gauges, gauges_bytes(), 0664, &base, &fd, err);
    if (rc)
        return rc;
    struct prefix_shm *p = base;
    p->layout_version = SHM_LAYOUT_VERSION;
    p->fingerprint = gauges_fingerprint();
    p->bytes = gauges_bytes();
    atomic_store(&p->state, SEGMENT_LIVE);
    atomic_store_explicit(&p->magic, SHM_GAUGES_MAGIC, memory_order_release);
    return gauges_wrap(base, fd, 1, ret, err);
}

void gauges_detach(struct gauges *g)
{
    if (!g)
        return;
    munmap(g->prefix, g->bytes);
    close(g->fd);
    free(g);
}

/* ---- futexes ---- */

void shm_wait(A32 *word, uint32_t expected, uint64_t timeout_ns)
{
    if (timeout_ns == 0)
        return;
    struct timespec ts = {(time_t)(timeout_ns / NS_PER_S), (long)(timeout_ns % NS_PER_S)};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &ts, NULL, 0);
}

void shm_wake(A32 *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

void shm_wait_bits(A32 *word, uint32_t expected, uint64_t timeout_ns, uint32_t bits)
{
    if (timeout_ns == 0)
        return;
    /* Unlike FUTEX_WAIT, this one takes a point of CLOCK_MONOTONIC (futex(2)). */
    uint64_t until = clock_mono_ns() + timeout_ns;
    struct timespec ts = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, &ts, NULL, bits);
}

void shm_wake_bits(A32 *word, uint32_t bits)
{
    syscall(SYS_futex, word, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, bits);
}
