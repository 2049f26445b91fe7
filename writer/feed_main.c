/*
 * azoth-feed: sends events to projectors.
 *
 * Two things wake the loop: requests (a descriptor) and commits (a futex). A second thread sleeps on the
 * futex and pokes an eventfd; it is armed only while a projector waits at the head, so an idle system
 * has no traffic. The feed reads the store and runs without a writer too; then it looks for a segment
 * once a second.
 */
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/log.h"
#include "core/program.h"
#include "core/service.h"
#include "shm/gauges.h"
#include "shm/participant.h"
#include "shm/projection_row.h"
#include "writer/feed.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define TICK_MS 1000
#define TICK_NS (TICK_MS * NS_PER_MS)

static const char usage[] =
    "usage: azoth-feed --dir DIR | --instance NAME  [--feed-listen ENDPOINT] [--SECTION-KEY VALUE "
    "...]\n"
    "\n"
    "Sends the events of one database to its projectors. Run one.\n"
    "  --feed-listen ENDPOINT   beside ipc://RUN/feed.sock, e.g. tcp://127.0.0.1:7101 (trusted\n"
    "                           networks only)\n";

struct waker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct segment *segment; /* sleeps on its head_seq; NULL: not armed */
    uint32_t seen;
    int busy; /* between taking a segment and letting it go */
    int stopping;
    int event_fd;
};

static void *waker_main(void *arg)
{
    struct waker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        if (!w->segment) {
            pthread_cond_wait(&w->wake, &w->lock);
            continue;
        }
        struct header_shm *h = w->segment->header;
        uint32_t seen = w->seen;
        w->busy = 1;
        pthread_mutex_unlock(&w->lock);
        atomic_store(&h->head_waiters, 1);
        shm_wait(&h->head_seq, seen, TICK_NS);
        int news = atomic_load(&h->head_seq) != seen;
        pthread_mutex_lock(&w->lock);
        w->busy = 0;
        pthread_cond_broadcast(&w->wake);
        if (news && w->segment) {
            w->segment = NULL;
            eventfd_write(w->event_fd, 1);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void waker_arm(struct waker *w, struct segment *s, uint32_t seen)
{
    pthread_mutex_lock(&w->lock);
    w->segment = s;
    w->seen = seen;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

/* Returns when the thread does not look at the segment any more. */
static void waker_disarm(struct waker *w, struct segment *s)
{
    pthread_mutex_lock(&w->lock);
    w->segment = NULL;
    while (w->busy) {
        /* Others who sleep there look again and sleep on. Repeated: it may only be about to sleep.
         */
        struct timespec until;
        shm_wake(&s->header->head_seq, 1 << 30);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)NS_PER_MS;
        if (until.tv_nsec >= (long)NS_PER_S) {
            until.tv_nsec -= (long)NS_PER_S;
            until.tv_sec++;
        }
        pthread_cond_clockwait(&w->wake, &w->lock, CLOCK_MONOTONIC, &until);
    }
    pthread_mutex_unlock(&w->lock);
}

struct server {
    struct program program;
    struct service service;
    struct store *store;
    struct feed *feed;
    struct segment *segment;
    struct gauges *gauges;
    struct participant *participant;
    struct waker waker;
    struct place *place;
    uint64_t looked_ns, said_ns, sent;
    int attach_failed; /* why the last try failed, told already */
};

static void detach(struct server *s)
{
    waker_disarm(&s->waker, s->segment);
    feed_set_gauges(s->feed, NULL);
    participant_leave(s->participant);
    gauges_detach(s->gauges);
    segment_detach(s->segment);
    s->participant = NULL;
    s->gauges = NULL;
    s->segment = NULL;
}

static uint64_t sent_so_far(const struct server *s)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++)
        n += gauge_get(&s->gauges->projection[i].events_sent);
    return n;
}

/* 1 when the segment that was found is not of the file that we read: then it is let go. Either it is a dead writer's,
 * of a file that was here before, and the next writer makes another; or it is ours that is not the database any
 * more, and a new process reads the new one. */
static int of_another_file(struct server *s)
{
    const struct store_identity *id = store_identity(s->store);
    const struct header_shm *h = s->segment->header;
    char path[4200];
    struct stat st;
    if (h->device == id->device && h->inode == id->inode)
        return 0;
    segment_detach(s->segment);
    s->segment = NULL;
    if (dbdir_path(path, sizeof path, s->program.dir, "data.mdb") || stat(path, &st) ||
        (uint64_t)st.st_dev != id->device || (uint64_t)st.st_ino != id->inode) {
        log_line(LOG_LEVEL_WARN, "the data file was replaced: stopping to be started again");
        s->service.stopping = 2;
    }
    return 1;
}

/* Once a second: a writer may come, or come back with a new segment, or this one may have been removed. */
static void attach(struct server *s, uint64_t now_ns)
{
    if (s->segment && segment_retired(s->segment))
        detach(s);
    if (now_ns - s->looked_ns < TICK_NS)
        return;
    s->looked_ns = now_ns;
    if (s->segment && (segment_taken(s->segment) || gauges_taken(s->gauges)))
        detach(s);
    if (s->segment)
        return;
    struct segment_name name;
    struct azoth_error err;
    if (segment_name_of(s->program.dir, &name, &err) || segment_attach(&name, &s->segment, &err)) {
        s->segment = NULL;
        return;
    }
    if (of_another_file(s))
        return;
    int rc = gauges_attach(&name, 1, &s->gauges, &err);
    if (!rc)
        rc = participant_join(s->segment, s->program.dir, PARTICIPANT_FEED, "azoth-feed",
                              &s->participant, &err);
    if (rc) {
        /* Once for each reason: it is tried every second. */
        if (rc != s->attach_failed)
            log_error(LOG_LEVEL_WARN, "cannot attach", &err);
        s->attach_failed = rc;
        detach(s);
        return;
    }
    s->attach_failed = 0;
    feed_set_gauges(s->feed, s->gauges);
    s->sent = sent_so_far(s);
    log_line(LOG_LEVEL_INFO, "attached incarnation=%llu subscriptions=%u",
             (unsigned long long)s->segment->incarnation, feed_subscriptions(s->feed));
}

/* The projection that is the furthest behind, among those that are told of. */
static uint64_t worst(const struct server *s, char name[AZOTH_NAME_MAX + 1])
{
    uint64_t head = gauge_get(&s->gauges->g->head_event), most = 0;
    struct projection_row row;
    for (uint32_t i = 0; i < SHM_PROJECTIONS; i++)
        if (projection_row_read(s->gauges, i, &row) && row.state != PROJECTION_STOPPED &&
            head > row.cursor && head - row.cursor > most) {
            most = head - row.cursor;
            snprintf(name, AZOTH_NAME_MAX + 1, "%s", row.name);
        }
    return most;
}

static void say_status(struct server *s, uint64_t now_ns)
{
    char name[AZOTH_NAME_MAX + 1] = "", lag[160] = "no lag";
    uint64_t since = now_ns - s->said_ns;
    if (since < SERVICE_STATUS_NS)
        return;
    s->said_ns = now_ns;
    if (!s->gauges) {
        service_status(&s->service, "%u projectors, no writer yet", feed_subscriptions(s->feed));
        return;
    }
    uint64_t sent = sent_so_far(s), behind = worst(s, name);
    if (behind)
        snprintf(lag, sizeof lag, "%s is %llu events behind", name, (unsigned long long)behind);
    service_status(&s->service, "head %llu, %u projectors, %.0f events/s sent, %s",
                   (unsigned long long)gauge_get(&s->gauges->g->head_event),
                   feed_subscriptions(s->feed), (double)(sent - s->sent) * 1e9 / (double)since,
                   lag);
    s->sent = sent;
}

static void reload(struct server *s)
{
    struct program *p = &s->program;
    if (program_reload(&p->config, p->dir, p->argc, p->argv, &s->service))
        feed_set_lapse(s->feed, p->config.number[CONFIG_feed_lapse] * NS_PER_MS);
}

static void wait_for_work(struct server *s, uint32_t seen, uint64_t now_ns)
{
    if (s->segment && feed_waits(s->feed))
        waker_arm(&s->waker, s->segment, seen);
    struct pollfd fds[3 + SHM_PROJECTIONS] = {{.fd = s->service.signal_fd, .events = POLLIN},
                                              {.fd = feed_poll_fd(s->feed), .events = POLLIN},
                                              {.fd = s->waker.event_fd, .events = POLLIN}};
    nfds_t n_fds = 3 + feed_blocked(s->feed, fds + 3, SHM_PROJECTIONS);
    uint64_t retry = feed_retry_ns(s->feed), timeout = TICK_MS;
    if (retry)
        timeout = retry > now_ns ? (retry - now_ns) / NS_PER_MS + 1 : 0;
    if (timeout > TICK_MS)
        timeout = TICK_MS;
    poll(fds, n_fds, (int)timeout);
    eventfd_t n;
    if (fds[2].revents)
        eventfd_read(s->waker.event_fd, &n);
}

static int loop(struct server *s, struct azoth_error *err)
{
    while (!service_poll(&s->service)) {
        uint64_t now = clock_mono_ns();
        attach(s, now);
        if (s->service.stopping)
            break;
        uint32_t seen = s->segment ? atomic_load(&s->segment->header->head_seq) : 0;
        int n = feed_step(s->feed, now, err);
        if (n < 0)
            return n;
        service_heartbeat(&s->service, now);
        say_status(s, now);
        if (s->service.reload)
            reload(s);
        if (n == 0)
            wait_for_work(s, seen, now);
    }
    return 0;
}

/* The feed keeps nothing: after a restart these lines tell who has come back, and from where they go on. */
static void on_subscribed(const char *name, uint32_t shard, uint32_t shards, uint64_t cursor,
                          int refused, const char *why)
{
    char shown[LOG_TEXT];
    if (refused)
        log_line(LOG_LEVEL_ERR, "refused projection=%s shard=%u/%u cursor=%llu error=%s why=\"%s\"",
                 name, shard, shards, (unsigned long long)cursor, azoth_code_name(refused),
                 log_text(why, shown));
    else
        log_line(LOG_LEVEL_INFO, "subscribed projection=%s shard=%u/%u cursor=%llu", name, shard,
                 shards, (unsigned long long)cursor);
}

static int open_parts(struct server *s, struct azoth_error *err)
{
    char endpoint[256];
    int rc = feed_place_take(s->program.dir, "azoth-feed", &s->place, err);
    if (!rc)
        rc = store_open(s->program.dir, 0, &s->store, err);
    if (!rc)
        rc = dbdir_endpoint(endpoint, sizeof endpoint, s->program.run_dir, err, "feed.sock");
    if (rc)
        return rc;
    struct feed_options o = {.listen = {endpoint},
                             .lapse_ns = s->program.config.number[CONFIG_feed_lapse] * NS_PER_MS};
    if (s->program.config.text[CONFIG_feed_listen][0])
        o.listen[1] = s->program.config.text[CONFIG_feed_listen];
    rc = feed_open(&o, s->store, NULL, &s->feed, err);
    if (rc)
        return rc;
    feed_on_subscribed(s->feed, on_subscribed);
    s->waker.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->waker.event_fd < 0 || pthread_create(&s->waker.thread, NULL, waker_main, &s->waker))
        return error_set(err, AZOTH_ERR_NOMEM, "the waker's thread");
    return 0;
}

static int serve(struct server *s, struct azoth_error *err)
{
    int rc = service_init(&s->service, err);
    if (!rc)
        rc = open_parts(s, err);
    if (rc)
        return rc;
    log_line(LOG_LEVEL_NOTICE, "ready dir=%s", s->program.dir);
    service_ready(&s->service, "serving");
    rc = loop(s, err);
    service_stopping(&s->service);
    detach(s);
    pthread_mutex_lock(&s->waker.lock);
    s->waker.stopping = 1;
    pthread_cond_broadcast(&s->waker.wake);
    pthread_mutex_unlock(&s->waker.lock);
    pthread_join(s->waker.thread, NULL);
    feed_close(s->feed);
    store_close(s->store);
    close(s->waker.event_fd);
    place_leave(s->place);
    service_fini(&s->service);
    if (!rc)
        log_line(LOG_LEVEL_NOTICE, "stopped");
    return rc;
}

int main(int argc, char **argv)
{
    if (program_help(argc, argv, "azoth-feed", usage))
        return 0;
    static struct server s;
    struct azoth_error err = {0};
    s.program.name = "azoth-feed";
    pthread_mutex_init(&s.waker.lock, NULL);
    pthread_cond_init(&s.waker.wake, NULL);
    program_keeps_memory();
    int rc = program_parse(&s.program, argc, argv, &err);
    if (!rc && s.program.instance_name[0])
        rc = error_set(&err, AZOTH_ERR_USAGE, "%s: a database is all that is wanted",
                       s.program.instance_name);
    if (!rc)
        rc = serve(&s, &err);
    if (rc) {
        log_error(LOG_LEVEL_ERR, "stopping", &err);
        return service_exit_code(rc);
    }
    return s.service.stopping == 2 ? SERVICE_EXIT_TEMPORARY : 0;
}
